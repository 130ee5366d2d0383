"""Measure how long the command line takes to start, against what its argument parser takes to import.

    python perf/startup.py [--repetitions N]

Prints the median wall time of the commands that one gives first, and their ratios to `python -c "import click"`, run by
the same interpreter in turn, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: What each command may take, in times the base.
TARGETS = {"--help": 3.0, "plugins": 3.0, "runs": 3.0, "doctor": 6.0}
BASE = 'python -c "import click"'


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Return the wall time of a command, which must succeed."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repetitions", type=int, default=20, metavar="N", help="runs of each command [20]")
    repetitions = arguments.parse_args().repetitions
    script = Path(sys.executable).with_name("harness")
    commands = {BASE: [sys.executable, "-c", "import click"]}
    commands |= {f"harness {word}": [str(script), word] for word in TARGETS}
    times: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        # An installed package has its bytecode beside it; a checkout may not, so each run finds it here.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for command in commands.values():
            seconds(command, environment)
        for _ in range(repetitions):
            for name, command in commands.items():
                times[name].append(seconds(command, environment))
    base = statistics.median(times[BASE])
    ratios = {name: statistics.median(values) / base for name, values in times.items()}
    print(f"{'command':<26}{'median':>9}{'fastest':>9}{'ratio':>7}")
    for name, values in times.items():
        median, fastest = statistics.median(values) * 1000, min(values) * 1000
        print(f"{name:<26}{median:>6.0f} ms{fastest:>6.0f} ms{ratios[name]:>7.2f}")
    reached = all(ratios[f"harness {word}"] <= target for word, target in TARGETS.items())
    told = ", ".join(f"{word} {target:g}" for word, target in TARGETS.items())
    print(f"targets, in times the import of click: {told}: {'reached' if reached else 'MISSED'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
