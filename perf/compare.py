"""Measure how long comparing and showing recorded runs takes, and in how much memory.

    python perf/compare.py [--repetitions N] [--large GB] [--samples K]

Makes runs of four models on 14,042 questions over MMLU's 57 subjects through the replay engine (56,168 samples), and
gives `harness compare` and `harness show` to processes of their own. Shown are the median wall time and CPU time over
the process's whole life, the interpreter's start included, and the peak resident memory; CPU time is what counts where
other work shares the machine. With --samples each question has been asked K times, and K times as much is there. Then
a samples.jsonl of --large gigabytes [1], which has as many samples but long outputs, to show that memory does not
follow the texts.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness_mmlu.subjects import CATEGORY_OF

QUESTIONS = 14_042
MODELS = {"base": 0.45, "sft": 0.55, "dpo": 0.56, "rlhf": 0.6}
MOST_SECONDS, MOST_MIB = 3.0, 500.0

#: The seconds for runs of several samples a question.
MOST_SECONDS_SEVERAL = 15.0

#: Runs the command line and says, as its last words, its CPU seconds and what memory it had at most, in KiB.
CHILD = """
import resource, sys
from harness.cli import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = used.ru_maxrss // 1024 if sys.platform == "darwin" else used.ru_maxrss
    print(used.ru_utime + used.ru_stime, peak, file=sys.stderr)
"""


@dataclass(frozen=True)
class Measured:
    """One process: seconds of its life and of the CPU, and peak resident memory in MiB."""

    seconds: float
    cpu: float
    peak: float


def harness(*words: str | Path) -> Measured:
    """Run the command line in a process of its own; raise RuntimeError when that fails."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, *map(str, words)], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"harness {' '.join(map(str, words))} failed: {done.stderr[-2000:]}")
    cpu, peak = done.stderr.split()[-2:]
    return Measured(seconds, float(cpu), int(peak) / 1024)


def questions() -> Iterator[tuple[str, int, list[str]]]:
    """Yield subject, number within it, and row of as many questions as MMLU has."""
    draw = random.Random(0)
    for place, subject in enumerate(CATEGORY_OF):
        for number in range(QUESTIONS // 57 + (place < QUESTIONS % 57)):
            options = [f"the number {value}, more or less" for value in draw.sample(range(1000), 4)]
            question = f"Which of these, says question {number} on {subject}, is it? " + "It is known. " * 15
            yield subject, number, [question, *options, draw.choice("ABCD")]


def made_runs(folder: Path, samples: int) -> list[Path]:
    """Run each model's recorded outputs, `samples` of each question, and return the folders of the runs."""
    test = folder / "data" / "mmlu" / "test"
    test.mkdir(parents=True)
    rows: dict[str, list[list[str]]] = {}
    outputs = {model: (folder / f"{model}.jsonl").open("w", encoding="utf-8") for model in MODELS}
    for subject, number, row in questions():
        rows.setdefault(subject, []).append(row)
        hard = random.Random(f"{subject}{number}").random()
        for model, file in outputs.items():
            draw = random.Random(f"{model}{subject}{number}")
            for repeat in range(samples):
                right = hard + draw.uniform(-0.2, 0.2) < MODELS[model]
                letter = row[5] if right else draw.choice([each for each in "ABCD" if each != row[5]])
                text = f"The correct answer is {letter}." if draw.random() < 0.97 else "I am not certain which it is."
                record = {"id": f"{subject}-test-{number:04d}", "repeat": repeat, "output": text}
                file.write(json.dumps(record) + "\n")
    for subject, found in rows.items():
        with (test / f"{subject}_test.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(found)
    for model, file in outputs.items():
        file.close()
        words: list[str | Path] = [
            "run",
            "-b",
            "mmlu",
            "-e",
            "replay",
            "-m",
            folder / f"{model}.jsonl",
            "--data",
            folder / "data",
        ]
        harness(*words, "-o", folder / "runs", "--samples", str(samples))
    return [next((folder / "runs" / "mmlu" / model).iterdir()) for model in MODELS]


def made_large(run: Path, folder: Path, gigabytes: float) -> Path:
    """Copy a run with outputs, and responses, so long that samples.jsonl has that many gigabytes."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("samples.jsonl"))
    more = b"and so on and on " * int(gigabytes * 1e9 / QUESTIONS / 17 / 2)
    with (run / "samples.jsonl").open("rb") as source, (folder / "samples.jsonl").open("wb") as file:
        for line in source:
            for text in (b'"output": "', b'"response": "'):
                line = line.replace(text, text + more, 1)
            file.write(line)
    return folder


def report(name: str, found: Sequence[Measured], most_seconds: float, most_mib: float) -> bool:
    """Print one line and return whether both targets are reached."""
    seconds, cpu = statistics.median(each.seconds for each in found), statistics.median(each.cpu for each in found)
    peak = max(each.peak for each in found)
    reached = cpu < most_seconds and peak < most_mib
    print(f"{name:<40}{seconds:>8.2f} s{cpu:>8.2f} s{peak:>8.0f} MiB{'' if reached else '  MISSED'}", flush=True)
    return reached


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repetitions", type=int, default=5, metavar="N", help="processes a command [5]")
    arguments.add_argument("--large", type=float, default=1.0, metavar="GB", help="size of the large file [1]")
    arguments.add_argument("--samples", type=int, default=1, metavar="K", help="samples of each question [1]")
    options = arguments.parse_args()
    most = (MOST_SECONDS_SEVERAL if options.samples > 1 else MOST_SECONDS, MOST_MIB)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = made_runs(folder, options.samples)
        count = f"{QUESTIONS * options.samples:,}"
        print(f"four runs of {count} samples, {sum(size(run) for run in runs) / 1e6:,.0f} MB")
        print(f"{'':<40}{'wall':>10}{'CPU':>10}{'peak':>12}")
        commands: dict[str, list[str | Path]] = {
            "harness compare, four runs": ["compare", *runs],
            "harness compare --json, four runs": ["compare", *runs, "--json"],
            "harness show": ["show", runs[0]],
            "harness show --wrong --group anatomy": ["show", runs[0], "--wrong", "--group", "anatomy"],
            "harness show --grep 'question 1?7 on'": ["show", runs[0], "--grep", "question 1?7 on"],
            "harness show --flipped OTHER": ["show", runs[0], "--flipped", runs[1]],
        }
        reached = [
            report(shown, [harness(*words) for _ in range(options.repetitions + 1)][1:], *most)
            for shown, words in commands.items()
        ]
        large = made_large(runs[0], folder / "large", options.large)
        print(f"samples.jsonl of {size(large) / 1e9:.1f} GB, {count} samples; no limit of time")
        shown = [harness("show", large, "--wrong", "--sample", "1")]
        compared = [harness("compare", runs[0], large)]
        reached.append(report("harness show", shown, math.inf, most[1]))
        reached.append(report("harness compare", compared, math.inf, most[1]))
    print(f"target: under {most[0]:g} s of CPU time and {most[1]:g} MiB: {'reached' if all(reached) else 'MISSED'}")
    return 0 if all(reached) else 1


def size(run: Path) -> int:
    return (run / "samples.jsonl").stat().st_size


if __name__ == "__main__":
    sys.exit(main())
