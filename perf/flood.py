"""Measure whether `harness view` keeps answering in a flood of connections.

    python perf/flood.py [--seconds 60] [--half-open 10000] [--readers 200]

Starts `harness view` on a made run in a process of its own. All through that time connections are opened that send half
a request and no more, and readers ask for its pages one after the other. Meanwhile somebody asks for the list of runs
twice a second, each time by a new connection, and again where that is closed, as browsers do. Shown is how long it
takes until the list is there: to be at most a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from harness.testing.tiny import word_problems

TARGET = 1.0
HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


async def half_open(port: int, count: int, seconds: float, counted: Counter[str]) -> None:
    """Open `count` connections over that time, each of which never asks for anything whole, and close none."""
    held: list[asyncio.StreamWriter] = []
    begun = time.monotonic()
    for number in range(count):
        await asyncio.sleep(begun + seconds * number / count - time.monotonic())
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HALF)
            held.append(writer)
    counted["half-open connections made"] = len(held)
    for writer in held:
        writer.transport.abort()


async def answered(port: int, path: str) -> int:
    """Return the status of an answer that is read to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        head = await reader.readline()
        while await reader.read(1 << 16):
            pass
        return int(head.split()[1]) if head else 0
    finally:
        writer.transport.abort()


async def read(port: int, paths: list[str], until: float, counted: Counter[str]) -> None:
    """Ask for pages one after the other."""
    number = 0
    while time.monotonic() < until:
        status = 0
        with suppress(OSError, asyncio.IncompleteReadError):
            status = await answered(port, paths[number % len(paths)])
        counted[f"pages read with status {status}" if status else "readers sent away"] += 1
        number += 1
        await asyncio.sleep(0)


async def flood(port: int, paths: list[str], options: argparse.Namespace) -> tuple[list[float], Counter[str]]:
    """Return how many seconds each look at the list of runs took, and what else was counted."""
    until, counted, taken = time.monotonic() + options.seconds, Counter[str](), []
    tasks = [asyncio.create_task(half_open(port, options.half_open, options.seconds, counted))]
    tasks += [asyncio.create_task(read(port, paths, until, counted)) for _ in range(options.readers)]
    while time.monotonic() < until:
        begun, status = time.monotonic(), 0
        while status != 200:
            with suppress(OSError):
                status = await answered(port, "/")
            counted["looks that had to be repeated"] += status != 200
        taken.append(time.monotonic() - begun)
        await asyncio.sleep(0.5)
    await asyncio.gather(*tasks)
    return taken, counted


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--half-open", type=int, default=10_000)
    arguments.add_argument("--readers", type=int, default=200)
    options = arguments.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data" / "gsm8k").mkdir(parents=True)
        problems = word_problems(1000, seed=1)
        rows = [json.dumps({"question": question, "answer": answer}) for question, answer in problems]
        (folder / "data" / "gsm8k" / "test.jsonl").write_text("\n".join(rows) + "\n")
        (folder / "said.jsonl").write_text("".join(json.dumps({"output": answer}) + "\n" for _, answer in problems))
        harness = [sys.executable, "-m", "harness"]
        words = ["run", "-b", "gsm8k", "-e", "replay", "--data", "data", "-m", "said.jsonl"]
        subprocess.run([*harness, *words], cwd=folder, check=True, capture_output=True)
        viewing = subprocess.Popen(
            [*harness, "view", "runs", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"}, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            assert viewing.stdout is not None
            line = viewing.stdout.readline()
            [port] = (int(digits) for digits in re.findall(r"http://[\w.]+:(\d+)", line))
            [run] = (folder / "runs").glob("*/*/*")
            paths = ["/", f"/report?run={run.relative_to(folder / 'runs')}"]
            taken, counted = asyncio.run(flood(port, paths, options))
            memory = int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{viewing.pid}/status").read_text())[0]) / 1024
        finally:
            viewing.send_signal(signal.SIGINT)
            viewing.wait(20)
    for title, count in sorted(counted.items()):
        print(f"{count:>10,} {title}")
    longest, middle = max(taken), statistics.median(taken)
    print(f"{len(taken):>10,} looks at the list of runs: {middle:.3f} s in the middle, {longest:.3f} s at most")
    print(f"{memory:>10,.0f} MiB taken by the server at most")
    return 0 if longest <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
