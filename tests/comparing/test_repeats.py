"""Runs of several samples an example are compared example by example: repeats are never counted as independent."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.api import load_run
from harness.comparing.comparison import BenchmarkComparison
from harness.comparing.planning import observed, plan
from harness.runs.columns import read_run
from harness.statistics import paired_difference, plan_samples, plan_size
from harness.types import Estimate
from tests.comparing.test_comparison import compared, only
from tests.conftest import Command
from tests.made_runs import MadeRuns, edit

N = 60
SEEDED = {"gsm8k": {"generation": {"temperature": 0.7}}}


class Repeated(MadeRuns):
    """Makes runs in which the example at an index is right in a repeat with the chance that `rate` gives."""

    def drawn(self, model: str, rate: Callable[[int], float], samples: int, **options: Any) -> Path:
        def outputs(name: str, texts: Any) -> Path:
            path = self.folder / str(samples) / f"{name}.jsonl"
            path.parent.mkdir(exist_ok=True)
            lines = []
            for place, (identifier, text) in enumerate(texts.items()):
                for repeat in range(samples):
                    right = random.Random(f"{name}{identifier}{repeat}").random() < rate(place)
                    said = text if right else "#### -77"
                    lines.append(json.dumps({"id": identifier, "repeat": repeat, "output": said}))
            path.write_text("\n".join(lines))
            return path

        object.__setattr__(self, "outputs", outputs)
        return self.gsm8k(model, lambda i: True, n=N, samples=samples, options=SEEDED, **options)


def means(folder: Path) -> list[float]:
    found: dict[str, list[float]] = {}
    for sample in load_run(folder).samples():
        found.setdefault(sample.id, []).append(sample.scores["final-number"]["accuracy"])
    return [float(np.mean(each)) for each in found.values()]


def difference(comparison: BenchmarkComparison, name: str, label: str) -> Estimate:
    [metric] = [each for each in comparison.metrics if (each.reader, each.name) == ("final-number", name)]
    return metric.against_baseline[label].estimate


def test_runs_of_any_numbers_of_samples_are_compared_by_their_examples_means(tmp_path: Path, harness: Command) -> None:
    made = Repeated(tmp_path)
    four = made.drawn("base", lambda i: (i % 5) / 5, 4)
    two = made.drawn("sft", lambda i: (1 + i % 5) / 5, 2)
    one = made.drawn("dpo", lambda i: (1 + i % 5) / 5, 1)
    comparison = compared(four, two, one).benchmarks[0]
    assert comparison.examples == N
    for label, run in (("sft", two), ("dpo", one)):
        known = paired_difference(means(four), means(run))
        found = difference(comparison, "accuracy", label)
        assert (found.value, found.low, found.high) == pytest.approx(
            (known.estimate.value, known.estimate.low, known.estimate.high)
        )
        assert found.n == N
    assert difference(comparison, "pass@2", "sft").n == N
    headline = comparison.headline
    assert headline is not None and [each.reason for each in comparison.metrics] == [None] * len(comparison.metrics)
    change = headline.against_baseline["sft"]
    assert set(change.gained) <= {f"test-{i:04d}" for i in range(N)} and len(change.gained) == len(set(change.gained))
    said = harness("compare", four, two, one)
    assert "samples an example: base 4, sft 2, dpo 1" in " ".join(said.out.split())
    assert "samples 4 → 2" in said.out
    facts = json.loads(harness("compare", four, two, "--json").out)["benchmarks"][0]["facts"]
    assert [(each["n"], each["samples"]) for each in facts.values()] == [(4 * N, 4), (2 * N, 2)]


def test_the_same_sample_many_times_over_is_no_surer_than_once(tmp_path: Path) -> None:
    made = Repeated(tmp_path)
    runs = {}
    for samples in (1, 8):
        base = made.drawn("base", lambda i: float(i % 3 == 0), samples)
        sft = made.drawn("sft", lambda i: float(i % 3 < 2 or i % 4 == 1), samples)
        runs[samples] = only(compared(base, sft))
    once, often = runs[1], runs[8]
    assert (often.p, often.estimate.low) == pytest.approx((once.p, once.estimate.low))
    assert (often.gained, often.lost) == (once.gained, once.lost)


def test_runs_of_several_samples_say_what_one_and_more_would_show(tmp_path: Path, harness: Command) -> None:
    made = Repeated(tmp_path)
    # A third of the examples are a coin's, with either model; of the others one model has more right.
    coin = {samples: made.drawn("base", lambda i: 0.5 if i % 3 == 0 else 0.0, samples) for samples in (1, 8)}
    other = {
        samples: made.drawn("sft", lambda i: 0.5 if i % 3 == 0 else float(i % 12 == 1), samples) for samples in (1, 8)
    }
    once, often = (observed([read_run(coin[samples]), read_run(other[samples])], None) for samples in (1, 8))
    truth = 1 / 3 * 0.5 + 1 / 12 * 11 / 12  # within the coin's examples, and between examples
    assert often.variance == pytest.approx(truth, rel=0.15) and once.variance == pytest.approx(truth, rel=0.35)
    assert often.inside == pytest.approx(1 / 3 * 0.5, rel=0.15) and once.inside is None
    found = plan(often, 5.0)
    assert often.inside is not None
    assert found.needed_sampled == plan_size(0.05, often.variance - often.inside, within=often.inside, samples=8)
    assert found.samples == plan_samples(0.05, N, often.variance - often.inside, often.inside)
    said = harness("plan-size", "--detect", "5", coin[8], other[8])
    assert f"{found.needed:,} examples, paired, show a true difference of 5 points with 80% power" in said.out
    assert f"{found.needed_sampled:,} examples with 8 samples of each do" in said.out
    assert "by the means of 8 and 8 samples of each" in said.out
    mixed = observed([read_run(coin[1]), read_run(other[8])], None)
    assert mixed.inside == pytest.approx(often.inside / 2, rel=0.4) and mixed.samples == 1
    refused = harness("plan-size", "--detect", "5", "--within", "40", coin[8], other[8])
    assert refused.code == 2 and "--within does nothing" in refused.err and refused.err.count("\n") == 1


def test_two_seeds_of_one_model_are_said_to_be_so(tmp_path: Path) -> None:
    made = Repeated(tmp_path)
    base, other = (made.drawn(name, lambda i: 0.5, 2) for name in ("base", "other"))

    def sampled(record: dict[str, Any], seed: int, dtype: str = "float32") -> None:
        record["identity"]["model"] = {"model_digest": "a" * 64, "dtype": dtype, "seed": seed}

    edit(base / "run.json", lambda record: sampled(record, 0))
    edit(other / "run.json", lambda record: sampled(record, 3))
    [facts] = [*compared(base, other).benchmarks[0].facts.values()][1:]
    assert facts.differs == ("seed 0 → 3, and in nothing else: it is one model, and what differs is chance",)
    edit(other / "run.json", lambda record: sampled(record, 3, "bfloat16"))
    [facts] = [*compared(base, other).benchmarks[0].facts.values()][1:]
    assert facts.differs == ("seed 0 → 3",)


def test_show_goes_by_example_or_by_sample_and_sets_repeats_side_by_side(tmp_path: Path, harness: Command) -> None:
    made = Repeated(tmp_path)
    four = made.drawn("base", lambda i: (i % 5) / 5, 4)
    two = made.drawn("sft", lambda i: (1 + i % 5) / 5, 2)

    def shown(*words: str | Path) -> list[dict[str, Any]]:
        done = harness("show", *words, "--json", "--sample", "999")
        assert done.code == 0, done.err
        return [json.loads(line) for line in done.out.splitlines()]

    assert [each["repeat"] for each in shown(four, "--id", "test-0007")] == [0, 1, 2, 3]
    assert [each["repeat"] for each in shown(four, "--id", "test-0007#2", "--id", "test-0008")] == [2, 0, 1, 2, 3]
    both = shown(four, two, "--id", "test-0007")
    assert [each["id"] for each in both] == ["test-0007", "test-0007#1", "test-0007#2", "test-0007#3"]
    assert [[run["repeat"] for run in each["runs"]] for each in both] == [[0, 0], [1, 1], [2, 0], [3, 1]]
    change = only(compared(two, four), "base")
    flipped = {each["runs"][0]["id"] for each in shown(four, "--flipped", two)}
    assert flipped == {*change.gained, *change.lost}
    assert "no sample 'test-0007#9'" in harness("show", four, "--id", "test-0007#9").err
    page = harness("report", four, two, "-o", tmp_path / "page.html")
    assert page.code == 0
    text = (tmp_path / "page.html").read_text()
    assert "4 samples an example; figures are means over examples" in text and "pass@4" in text
    assert "--samples 4" in text
