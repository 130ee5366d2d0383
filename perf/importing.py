"""What importing takes: seconds of one core for 12,032 outputs, and the peak of memory for a million rows and a tenth.

    python perf/importing.py [--rows 1000000]

Rows are made up in a temporary folder: prompts of a file, and an output for each, under ids. The limits are 10 s of
processor time, and a peak that grows by less than 200 bytes a row.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

_PUBLISHED = 12_032


def main() -> None:
    """Print the figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    rows = options.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        seconds, _ = _imported(Path(folder) / "published", _PUBLISHED)
        print(f"{_PUBLISHED:,} outputs: {seconds:.1f} s")
        _, few = _imported(Path(folder) / "few", rows // 10)
        seconds, many = _imported(Path(folder) / "many", rows)
        grown = (many - few) / (rows - rows // 10)
        print(f"{rows:,} rows: {seconds:.0f} s, peak {many / 2**20:.0f} MiB; {rows // 10:,}: {few / 2**20:.0f} MiB")
        print(f"{grown:.0f} bytes a row")


def _imported(folder: Path, rows: int) -> tuple[float, int]:
    """Import so many rows in a process of its own; return its processor time in seconds and its peak in bytes."""
    folder.mkdir()
    with (folder / "asked.jsonl").open("w") as asked, (folder / "given.jsonl").open("w") as given:
        for n in range(rows):
            asked.write(json.dumps({"id": f"n{n}", "question": f"What is {n} + 1?", "answer": str(n + 1)}) + "\n")
            given.write(json.dumps({"id": f"n{n}", "output": f"{n} and one more is one more. #### {n + n % 2}"}) + "\n")
    code = (
        "import resource, sys; from harness.cli import main\n"
        "try: main()\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    words = ["import", "given.jsonl", "-b", "asked.jsonl", "--set", "prompts.parser=final-number"]
    started = _spent()
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True)
    seconds = _spent() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, int(done.stderr.split()[-1]) * unit


def _spent() -> float:
    """Return the processor time of all processes started so far, in seconds: others on the machine do not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
