"""How many samples a second go through one driver, and in how much memory: recorded outputs behind Ray workers.

    python perf/ray_driver.py [--samples N] [--workers N] [--engine ENGINE]

`harness run -b gsm8k --engine ray --set ray.engine=replay` on made-up word problems, in a process of its own. Nothing
is generated, so what is measured is all that one driver does for a sample: rendering, sending, receiving, parsing,
scoring, the journal. Shown are samples a second of generation by the clock, and, since other work may share the
machine, by the CPU time that the driver takes, and by that of all processes on two cores; and at each tenth of the
journal the resident memory in MiB and the CPU seconds of driver and others (the last is short of the end).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from replay import gsm8k_outputs, made_gsm8k

CHILD = "from harness.cli import main; main()"


def resident(process: int) -> float:
    """Return the resident memory of a process in MiB, 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def cpu_seconds(process: int) -> float:
    """Return the CPU seconds that a process has used, 0 where it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def belonging(folder: str) -> list[tuple[int, bool]]:
    """Return the processes of the run in a folder, by their environment, and which of them are Ray's workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if folder.encode() in (path / "environ").read_bytes():
                found.append((int(path.name), b"ray::Worker" in (path / "cmdline").read_bytes()))
        except OSError:
            continue
    return found


def main() -> None:
    """Read the command line, run once and print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000, help="[50000]")
    parser.add_argument("--workers", type=int, default=4, help="[4]")
    parser.add_argument("--engine", default="ray", help="ray, or replay to see what is there without it [ray]")
    parser.add_argument("--profile", metavar="FILE", help="write cProfile's account of the driver there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = made_gsm8k(folder / "made", arguments.samples)
        outputs = gsm8k_outputs(data, folder / "outputs.jsonl")
        words = ["run", "-b", "gsm8k", "-e", arguments.engine, "-m", str(outputs), "--data", str(data), "--out", name]
        if arguments.engine == "ray":
            words += ["--set", "ray.engine=replay", "--set", f"ray.replicas={arguments.workers}"]
        profiled = ["-m", "cProfile", "-o", arguments.profile] if arguments.profile else []
        script = folder / "child.py"
        script.write_text(CHILD)
        child = subprocess.Popen(
            [sys.executable, *profiled, str(script), *words],
            env={**os.environ, "RAY_DRIVER_RUN": name},
            cwd=name,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        held = watch(child, folder, arguments.samples, name)
        _, err = child.communicate()
        if child.returncode:
            raise SystemExit(err[-2000:])
        [timing] = folder.glob("gsm8k/*/*/timing.json")
        session = json.loads(timing.read_text())["sessions"][-1]
        first, last = held[0], held[-1]
        count = (last["part"] - first["part"]) * arguments.samples
        driver, others = last["driver_cpu"] - first["driver_cpu"], last["others_cpu"] - first["others_cpu"]
        record = {
            "samples": session["examples"],
            "workers": arguments.workers,
            "rate": round(session["examples"] / session["generation_seconds"]),
            "generation_seconds": session["generation_seconds"],
            "load_seconds": session["load_seconds"],
            "rate_by_cpu_of_driver": round(count / driver),
            "rate_by_cpu_of_two_cores": round(2 * count / (driver + others)),
            "held": held,
        }
        print(json.dumps(record))


def watch(child: subprocess.Popen[str], folder: Path, samples: int, name: str) -> list[dict[str, float]]:
    """Return the resident memory at each tenth of the journal, by its size: all lines are about as long."""
    held: list[dict[str, float]] = []
    whole = 0.0
    while child.poll() is None:
        time.sleep(0.25)
        for journal in folder.glob("gsm8k/*/*/samples.jsonl"):
            size = journal.stat().st_size
            if not whole and size > 100_000:
                with journal.open("rb") as file:
                    start = file.read(100_000)
                whole = samples * len(start) / max(1, start.count(b"\n"))
            if whole and size / whole * 10 >= len(held):
                others = [each for each in belonging(name) if each[0] != child.pid]
                held.append(
                    {
                        "part": round(size / whole, 2),
                        "driver_mib": round(resident(child.pid)),
                        "largest_worker_mib": round(max((resident(one) for one, works in others if works), default=0)),
                        "driver_cpu": round(cpu_seconds(child.pid), 2),
                        "others_cpu": round(sum(cpu_seconds(one) for one, _ in others), 2),
                    }
                )
    return held


if __name__ == "__main__":
    main()
