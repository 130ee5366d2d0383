"""Measure the report on four runs of MMLU's size: how long it takes to make, how large it is, how fast it opens.

    python perf/report.py [--keep FILE] [--repetitions N]

Makes 14,042 questions over 57 subjects, has four models answer them through the replay engine, and runs `harness
report` in a process of its own. The page is then opened in Chromium (`pip install -e '.[dev]'` brings Playwright, and
Debian's package `chromium` the browser): shown are the time to the first paint and to the first sample, and the time
from a click on a filter, or a letter typed in the search, to the frame that shows its result. Medians; the first search
unpacks all texts, later ones find them unpacked.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness_mmlu.subjects import CATEGORY_OF

QUESTIONS, MODELS = 14_042, 4
HARNESS = Path(sys.executable).with_name("harness")

#: Figures to reach: seconds to make it, MB, milliseconds.
TARGETS = {"made in": 10.0, "size": 40.0, "first paint": 1000.0, "filter": 100.0}

#: Clicks on a filter, and says after how many milliseconds the next frame was there.
CLICK = """selector => new Promise(done => {
  const start = performance.now();
  document.querySelector(selector).click();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""


def write_questions(folder: Path) -> list[tuple[str, str]]:
    """Write the questions in MMLU's layout; return their ids and right letters."""
    draw = random.Random(0)
    (folder / "mmlu" / "test").mkdir(parents=True)
    known = []
    for place, subject in enumerate(CATEGORY_OF):
        with (folder / "mmlu" / "test" / f"{subject}_test.csv").open("w", encoding="utf-8", newline="") as file:
            for number in range(QUESTIONS // 57 + (place < QUESTIONS % 57)):
                letter = draw.choice("ABCD")
                words = " ".join(f"{draw.randrange(10**6):x}" for _ in range(45))
                options = [f"the number {value}, more or less" for value in draw.sample(range(1000), 4)]
                csv.writer(file).writerow([f"Which is it, says {subject}: {words}?", *options, letter])
                known.append((f"{subject}-test-{number:04d}", letter))
    return known


def write_outputs(path: Path, known: list[tuple[str, str]], skill: float) -> Path:
    """Write what a model says: a few sentences of its own, then a letter, right as often as `skill` says."""
    draw = random.Random(path.name)
    with path.open("w", encoding="utf-8") as file:
        for identifier, letter in known:
            said = letter if draw.random() < skill else draw.choice("ABCD")
            words = " ".join(f"{draw.randrange(10**6):x}" for _ in range(draw.randrange(2, 60)))
            output = f"Let us see: {words}. The correct answer is {said}." if draw.random() < 0.97 else words
            file.write(json.dumps({"id": identifier, "output": output, "completion_tokens": len(output) // 4}) + "\n")
    return path


def make_runs(folder: Path) -> list[Path]:
    """Return the folders of four runs."""
    known = write_questions(folder / "data")
    runs: list[Path] = []
    for number in range(MODELS):
        outputs = write_outputs(folder / f"model-{number}.jsonl", known, 0.3 + 0.1 * number)
        words = ["run", "-b", "mmlu", "-e", "replay", "-m", str(outputs), "--data", str(folder / "data")]
        subprocess.run([HARNESS, *words, "-o", str(folder / "runs")], check=True, stdout=subprocess.DEVNULL)
        runs += (folder / "runs" / "mmlu" / f"model-{number}").iterdir()
    return runs


def make_report(runs: list[Path], out: Path) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and peak MiB of `harness report`."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([HARNESS, "report", *map(str, runs), "--out", str(out), "--force"], check=True, env=environment)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss / 1024


def opened(page: Any, address: str) -> dict[str, float]:
    """Open the report once; return milliseconds by what was waited for."""
    started = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_selector("#texts pre")
    found = {"first sample": 1000 * (time.perf_counter() - started)}
    found["first paint"] = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    found["filter"] = statistics.median(page.evaluate(CLICK, "#kinds input") for _ in range(6))
    for name, query in (("first search", "zzz"), ("later search", "correct answer is b")):
        started = time.perf_counter()
        page.fill("#query", query)
        page.wait_for_selector("#sample-title:text('No sample fits')" if query == "zzz" else "pre mark")
        found[name] = 1000 * (time.perf_counter() - started)
    return found


def visits(path: Path, repetitions: int) -> Iterator[dict[str, float]]:
    """Yield the times of each opening, in a browser that was started before."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("perf/report.py needs a Chromium in PATH")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for _ in range(repetitions):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            yield opened(context.new_page(), path.as_uri())
            context.close()
        browser.close()


def show(name: str, value: float, unit: str) -> bool:
    """Print one figure beside what is to be reached; return whether it is."""
    limit = TARGETS.get(name)
    reached = limit is None or value <= limit
    verdict = "" if limit is None else f"  target {limit:,g} {unit}: {'reached' if reached else 'MISSED'}"
    print(f"{name:<14}{value:>10,.1f} {unit:<3}{verdict}")
    return reached


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keep", type=Path, metavar="FILE", help="keep the page here")
    arguments.add_argument("--repetitions", type=int, default=5, metavar="N", help="openings of the page [5]")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = options.keep or Path(name) / "report.html"
        wall, cpu, peak = make_report(make_runs(Path(name)), path)
        reached = [show("made in", wall, "s"), show("of it CPU", cpu, "s"), show("peak memory", peak, "MiB")]
        reached.append(show("size", path.stat().st_size / 1e6, "MB"))
        times = list(visits(path.resolve(), options.repetitions))
        for figure in ("first paint", "first sample", "filter", "first search", "later search"):
            reached.append(show(figure, statistics.median(each[figure] for each in times), "ms"))
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
