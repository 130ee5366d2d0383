"""Comparisons of made runs against arithmetic by hand, scipy, and a bootstrap."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.comparing.comparison import Comparison, Difference, compare
from harness.errors import ConfigError, RunError
from harness.runs.columns import read_run
from harness.runs.records import Estimate
from harness.statistics import holm
from tests.made_runs import MadeRuns, Right, edit

#: Right in 30 of 60, in 42 (15 gained, 3 lost), and in 36 of which one cannot be read.
BASE: Right = lambda i: i < 30  # noqa: E731
SFT: Right = lambda i: 3 <= i < 45  # noqa: E731
DPO: Right = lambda i: None if i == 59 else i < 36  # noqa: E731


def compared(*paths: Path, **options: Any) -> Comparison:
    return compare([read_run(path) for path in paths], **options)


def only(comparison: Comparison, label: str = "sft") -> Difference:
    """Return the headline's difference between a run and the baseline of the only benchmark."""
    [each] = comparison.benchmarks
    assert each.headline is not None
    return each.headline.against_baseline[label]


def test_two_runs_of_one_benchmark(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    comparison = compared(made.gsm8k("base", BASE), made.gsm8k("sft", SFT))
    assert (comparison.labels, comparison.tests) == (("base", "sft"), 1)
    [each] = comparison.benchmarks
    assert (each.benchmark, each.baseline, each.examples) == ("gsm8k", "base", 60)
    assert [(metric.reader, metric.name) for metric in each.metrics] == [
        ("final-number", "accuracy"),
        ("last-number", "accuracy"),
    ]
    found = only(comparison)
    assert (found.run, found.against, found.left_out, found.differing) == ("sft", "base", 0, 18)
    assert (each.groups, found.estimate.method, found.verdict) == (None, "score", "better")
    assert found.gained == tuple(f"test-{i:04d}" for i in range(30, 45))
    assert found.lost == ("test-0000", "test-0001", "test-0002")
    assert found.estimate.value == pytest.approx(0.2)
    assert found.p == pytest.approx(stats.chi2.sf((15 - 3) ** 2 / 18, 1), rel=1e-6)  # McNemar's test
    assert found.detectable == pytest.approx(2.8 * math.sqrt((18 / 60 - 0.2**2) / 60), rel=0.05)
    assert each.metrics[0].against_previous == {}
    facts = each.facts["sft"]
    assert (facts.n, facts.truncated, facts.failed, facts.unparsed) == (60, 0, 0, {"final-number": 0, "last-number": 0})
    assert (facts.examples_per_second, facts.prompt_format, facts.engine) == (30.0, "zero_shot_system", "replay")
    assert facts.differs == ()


def test_the_interval_is_that_of_an_independent_bootstrap(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    found = only(compared(made.gsm8k("base", BASE), made.gsm8k("sft", SFT))).estimate
    gains = np.array([float(bool(SFT(i))) - float(bool(BASE(i))) for i in range(60)])
    means = np.random.default_rng(9).choice(gains, size=(100_000, 60)).mean(axis=1)
    tail = stats.norm.cdf(-math.sqrt(60 / 59) * stats.t.ppf(0.975, 59))
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [tail, 1 - tail]), abs=0.017)  # one example
    assert found.stderr == pytest.approx(gains.std(ddof=1) / math.sqrt(60), rel=0.03)


def test_subjects_are_a_sample_where_there_are_enough(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    runs = made.mmlu("base", lambda i: i % 5 == 0), made.mmlu("sft", lambda i: i < 30)
    comparison = compared(*runs)
    found = only(comparison)
    assert (comparison.benchmarks[0].groups, found.estimate.method) == (12, "clustered-score, 12 groups")
    gains = np.array([float(i < 30) - float(i % 5 == 0) for i in range(60)]).reshape(12, 5).mean(axis=1)
    known = stats.ttest_1samp(gains, 0).confidence_interval()
    assert (found.estimate.low, found.estimate.high) == pytest.approx((known.low, known.high), abs=0.05)
    assert found.estimate.stderr == pytest.approx(gains.std(ddof=1) / math.sqrt(12))
    whole = only(compared(*runs, groups_are="whole"))
    assert whole.estimate.method == "score" and whole.estimate.stderr < found.estimate.stderr
    accuracy, macro = comparison.benchmarks[0].metrics
    assert (accuracy.name, macro.name) == ("accuracy", "accuracy_macro")
    difference = macro.against_baseline["sft"]
    assert difference.estimate.value == pytest.approx(found.estimate.value)  # all subjects are of one size
    assert difference.estimate.low == pytest.approx(found.estimate.low, abs=0.02)
    assert difference.estimate.n == 60
    assert difference.estimate.method == "clustered-macro-score, 12 groups"


def test_compare_takes_groups_as_the_first_run_did(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    runs = made.mmlu("base", lambda i: i % 5 == 0), made.mmlu("sft", lambda i: i < 30)
    edit(runs[0] / "run.json", lambda record: record["command"].update(groups_are="whole"))
    assert compared(*runs).benchmarks[0].groups is None
    assert compared(*runs, groups_are="sample").benchmarks[0].groups == 12


def test_a_runs_own_interval_follows_what_compare_takes_groups_for(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    runs = [made.mmlu("base", lambda i: i < 30), made.mmlu("sft", lambda i: i < 35)]
    again = [
        made.mmlu("base-w", lambda i: i < 30, groups_are="whole"),
        made.mmlu("sft-w", lambda i: i < 35, groups_are="whole"),
    ]
    for mixed, choice in ((runs, "whole"), (again, "sample"), ([again[0], runs[1]], None), ([runs[0], again[1]], None)):
        as_whole = choice == "whole" or (choice is None and mixed[0] is again[0])
        known = again if as_whole else runs
        for metric in compared(*mixed, groups_are=choice).benchmarks[0].metrics:
            for (label, found), path in zip(metric.values.items(), known, strict=True):
                recorded = read_run(path).results.metrics[metric.reader][metric.name]
                assert found is not None and found.value == pytest.approx(recorded.value), label
                assert [found.low, found.high] == pytest.approx([recorded.low, recorded.high])


def test_groups_that_pull_apart_take_the_verdict_away(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    # Four of twelve subjects are all gained, one is all lost: McNemar's test, blind to subjects, has p < 0.01.
    runs = made.mmlu("base", lambda i: 20 <= i < 25), made.mmlu("sft", lambda i: i < 20)
    blind, found = only(compared(*runs, groups_are="whole")), only(compared(*runs))
    assert blind.p is not None and blind.p < 0.01 and blind.verdict == "better"
    assert found.p is not None and found.p > 0.05 and found.verdict == "level"
    assert found.estimate.low < 0 < found.estimate.high


def test_few_subjects_are_not(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    few = {"mmlu": {"subjects": ("anatomy", "astronomy")}}
    data = tmp_path / "data-5"
    made.mmlu("any", lambda i: True)
    runs = []
    for model, letters in (("base", "BBCCCBBBCC"), ("sft", "BBBBCBBBBC")):
        outputs = {
            f"{subject}-test-{i:04d}": letters[5 * place + i]
            for place, subject in enumerate(("anatomy", "astronomy"))
            for i in range(5)
        }
        runs.append(made.run("mmlu", model, outputs, data, options=few))
    accuracy, macro = compared(*runs).benchmarks[0].metrics
    assert accuracy.against_baseline["sft"].estimate.method == "score"
    difference = macro.against_baseline["sft"]
    assert difference.estimate.method == "macro-score"
    assert difference.estimate.value == pytest.approx(0.3)


def test_the_same_run_twice_differs_by_nothing(tmp_path: Path) -> None:
    path = MadeRuns(tmp_path).gsm8k("base", BASE)
    comparison = compared(path, path)
    assert comparison.labels == ("base", "base (2)")
    found = only(comparison, "base (2)")
    e = found.estimate
    assert (e.value, e.stderr, found.p, found.adjusted, found.verdict) == (0, 0, 1, 1, "level")
    assert -0.07 < e.low < 0 < e.high < 0.07  # sixty equal pairs do not show that no example would differ
    assert (found.gained, found.lost) == ((), ())


def test_the_other_way_round_is_the_negative(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    base, sft = made.gsm8k("base", BASE), made.gsm8k("sft", SFT)
    there, back = only(compared(base, sft)), only(compared(sft, base), "base")
    assert (back.estimate.value, back.estimate.low, back.estimate.high) == pytest.approx(
        (-there.estimate.value, -there.estimate.high, -there.estimate.low), abs=1e-9
    )
    assert back.p == pytest.approx(there.p)
    assert (back.gained, back.lost) == (there.lost, there.gained)


def test_neither_the_order_of_samples_nor_of_further_runs_matters(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    paths = [made.gsm8k(name, right) for name, right in (("base", BASE), ("sft", SFT), ("dpo", DPO))]
    expected = compared(*paths).benchmarks[0]
    lines = (paths[1] / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (paths[1] / "samples.jsonl").write_bytes(b"".join(reversed(lines)))
    found = compared(paths[0], paths[2], paths[1]).benchmarks[0]
    for first, second in zip(expected.metrics, found.metrics, strict=True):
        assert first.against_baseline == second.against_baseline


def test_several_models_and_benchmarks_share_one_correction(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    models = {"base": BASE, "sft": SFT, "dpo": DPO}
    runs = [made.gsm8k(name, right) for name, right in models.items()]
    runs += [made.mmlu(name, right) for name, right in models.items()]
    comparison = compared(*runs)
    assert comparison.labels == ("base", "sft", "dpo")
    headline, other = comparison.benchmarks[0].metrics
    found = [
        difference
        for metric in (headline, comparison.benchmarks[1].metrics[0])
        for difference in (*metric.against_baseline.values(), *metric.against_previous.values())
    ]
    assert (comparison.tests, len(found)) == (6, 6)  # three pairs of models on two benchmarks
    assert [difference.adjusted for difference in found] == holm([d.p for d in found if d.p is not None])
    beside = other.against_baseline["sft"]
    assert (beside.p, beside.adjusted) == (headline.against_baseline["sft"].p, None)
    previous = comparison.benchmarks[0].metrics[0].against_previous
    assert list(previous) == ["dpo"] and previous["dpo"].against == "sft"
    tax = comparison.as_json()["alignment_tax"]
    assert tax["gsm8k"]["sft"]["value"] == pytest.approx(-0.2)
    assert set(tax) == {"gsm8k", "mmlu"}


def test_everything_is_json(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    comparison = compared(made.gsm8k("base", BASE), made.gsm8k("sft", SFT))
    content = json.loads(json.dumps(comparison.as_json(), allow_nan=False))
    [each] = content["benchmarks"]
    assert (each["baseline"], each["headline"]) == ("base", {"reader": "final-number", "name": "accuracy"})
    assert len(each["metrics"][0]["against_baseline"]["sft"]["gained"]) == 15


def test_one_metric_alone(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    paths = made.mmlu("base", BASE), made.mmlu("sft", SFT)
    [each] = compared(*paths, metrics=["accuracy_macro"]).benchmarks
    assert [metric.name for metric in each.metrics] == ["accuracy_macro"]
    found = only(compared(*paths, metrics=["accuracy_macro"]))
    assert (found.p, len(found.gained), len(found.lost)) == (None, 15, 3)  # not tested, but turned all the same
    with pytest.raises(ConfigError, match="no run has a metric 'acuracy'; did you mean 'accuracy'"):
        compared(*paths, metrics=["acuracy"])


def test_failed_examples_leave_their_pair(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    base, sft = made.gsm8k("base", BASE), made.gsm8k("sft", SFT)
    lines = (sft / "samples.jsonl").read_text().splitlines()
    record = json.loads(lines[0])
    record |= {"status": "engine_error", "error": "gone", "scores": {}, "answers": {}, "output": ""}
    (sft / "samples.jsonl").write_text("\n".join([*lines, json.dumps(record)]) + "\n")

    def without_it(results: Any) -> None:
        for reader in results["metrics"].values():
            reader["accuracy"] |= {"value": 42 / 59, "n": 59}

    edit(sft / "results.json", without_it)
    found = only(compared(base, sft))
    assert (found.left_out, found.estimate.n, len(found.lost)) == (1, 59, 2)
    assert found.estimate.value == pytest.approx(13 / 59)


def test_a_metric_that_is_no_mean_over_samples_has_no_difference(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    paths = made.gsm8k("base", BASE), made.gsm8k("sft", SFT)
    f1: dict[str, Any] = {"value": 0.5, "n": 60, "stderr": None, "low": None, "high": None, "method": "none"}
    for path in paths:
        edit(path / "results.json", lambda r: r["metrics"]["final-number"].update(f1=f1))
    metric = compared(*paths).benchmarks[0].metrics[1]
    assert (metric.name, metric.against_baseline, metric.reason) == ("f1", {}, "it is no mean over samples")
    assert metric.values["sft"] == Estimate(**f1)


def test_judged_runs_are_compared_by_verdict(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    base = made.safety("base", lambda i: "unsafe" if i < 6 else "Hm." if i == 6 else "safe")
    sft = made.safety("sft", lambda i: "safe")
    found = only(compared(base, sft))
    assert found.estimate.value == pytest.approx(7 / 12)  # what cannot be read is not safe
    assert len(found.gained) == 7
    assert found.p == pytest.approx(stats.chi2.sf(7, 1))
    assert compared(base, sft).benchmarks[0].facts["base"].unreadable == {"judge": 1}

    def asked_otherwise(results: Any) -> None:
        results["judges"]["judge"]["options"]["prompt"] = "another"

    edit(sft / "results.json", asked_otherwise)
    [metric] = compared(base, sft).benchmarks[0].metrics
    assert (metric.against_baseline, metric.reason) == ({}, "base and sft were judged in different ways")


def test_twenty_prompts_of_twenty_mended_keep_a_width(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    found = only(compared(made.safety("base", lambda i: "unsafe", n=20), made.safety("sft", lambda i: "safe", n=20)))
    assert (found.estimate.value, found.estimate.high) == (1.0, 1.0) and found.verdict == "better"
    assert found.estimate.low == pytest.approx(0.678, abs=5e-4)


def test_win_rates_are_compared_by_what_the_judge_prefers(tmp_path: Path) -> None:
    won, lost, tied, unreadable = ("2", "1"), ("1", "2"), ("1", "1"), ("Hm.", "1")
    made = MadeRuns(tmp_path)
    base = made.alpaca("base", lambda i: (lost, tied, won)[i % 3])
    sft = made.alpaca("sft", lambda i: unreadable if i == 0 else won)
    [each] = compared(base, sft).benchmarks
    metrics = {metric.name: metric for metric in each.metrics}
    assert list(metrics) == ["win_rate", "discrete_win_rate", "position_agreement"]
    found = metrics["win_rate"].against_baseline["sft"]
    assert found.estimate.value == pytest.approx((3 * 1 + 4 * 0.5 + 4 * 0) / 11)
    assert (found.left_out, len(found.gained), found.lost) == (1, 7, ())
    exact = stats.permutation_test(([1.0] * 3 + [0.5] * 4,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert found.p == pytest.approx(exact.pvalue, abs=0.015)
    agreement = metrics["position_agreement"].against_baseline["sft"]
    assert agreement.estimate.value == pytest.approx(4 / 11)
    assert agreement.p is None


def test_another_prompt_format_is_compared_and_stated(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    paths = made.gsm8k("m", BASE), made.gsm8k("m", SFT, prompt_format="plain")
    comparison = compared(*paths)
    assert comparison.labels == ("m · zero_shot_system", "m · plain")
    said = comparison.benchmarks[0].facts["m · plain"].differs
    assert "prompt_format zero_shot_system → plain" in said
    edit(paths[1] / "run.json", lambda config: config.update(harness="9.9"))
    assert "harness 0.1.0 → 9.9" in compared(*paths).benchmarks[0].facts["m · plain"].differs


def without_two(path: Path) -> None:
    lines = (path / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (path / "samples.jsonl").write_bytes(b"".join(lines[2:]))
    edit(path / "results.json", lambda results: results.update(n=58))


def other_gold(path: Path) -> None:
    text = (path / "samples.jsonl").read_text()
    (path / "samples.jsonl").write_text(text.replace('"gold": "', '"gold": "1', 1))
    edit(path / "run.json", lambda config: config["identity"].update(examples="another"))


def unfinished(path: Path) -> None:
    (path / "results.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_two, r"sft.* is not over the examples of .*base.*: 2 it has not \(test-0000, test-0001\)$"),
        (other_gold, r"1 with another gold under the same id \(test-0000\)"),
        (unfinished, r"sft.*; give its command again"),
    ],
)
def test_what_cannot_be_paired_is_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    made = MadeRuns(tmp_path)
    base, sft = made.gsm8k("base", BASE), made.gsm8k("sft", SFT)
    damage(sft)
    with pytest.raises(RunError, match=message) as caught:
        compared(base, sft)
    assert "\n" not in str(caught.value)


def test_other_samples_and_options_are_named(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    base = made.gsm8k("base", BASE)
    limited = made.gsm8k("sft", SFT, limit=57)
    with pytest.raises(RunError, match=r"3 it has not \(.*\) \[limit none and 57, seed none and 0\]"):
        compared(base, limited)
    other = made.gsm8k("dpo", DPO, n=64)
    with pytest.raises(RunError, match=r"4 only it has \(test-0060, test-0061, test-0062, …\)"):
        compared(base, other)


def test_runs_of_different_benchmarks_have_nothing_in_common(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    gsm8k, mmlu = made.gsm8k("base", BASE), made.mmlu("base", BASE)
    with pytest.raises(RunError, match=r"no two runs are of the same benchmark \(gsm8k, mmlu\)"):
        compared(gsm8k, mmlu)
    # Beside two that have, a third is shown for what it is.
    comparison = compared(gsm8k, mmlu, made.gsm8k("sft", SFT))
    alone = comparison.benchmarks[1]
    assert (list(alone.facts), alone.metrics[0].against_baseline) == (["base"], {})


def test_the_tax_is_against_one_model_alone(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    base, sft = made.gsm8k("base", BASE), made.gsm8k("sft", SFT)
    comparison = compared(base, sft, made.mmlu("dpo", DPO), made.mmlu("sft", SFT))
    assert [each.baseline for each in comparison.benchmarks] == ["base", "dpo"]
    assert {benchmark: list(lost) for benchmark, lost in comparison.alignment_tax().items()} == {"gsm8k": ["sft"]}


def test_two_models_of_one_name_are_told_apart_on_every_benchmark(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)

    def run(make: Callable[..., Path], model: str, right: Right, digest: str) -> Path:
        path = make(model, right)
        edit(path / "run.json", lambda config: config["identity"].update(model={"model_digest": digest * 64}))
        return path

    paths = [
        run(made.gsm8k, "base", BASE, "0"),
        run(made.gsm8k, "step-100", SFT, "a"),
        run(made.mmlu, "base", BASE, "0"),
        run(made.mmlu, "step-100", DPO, "b"),
    ]
    first, second = "step-100 · aaaaaaaa", "step-100 · bbbbbbbb"
    assert compared(*paths).labels == ("base", first, second)
    assert set(compared(*reversed(paths)).labels) == {"base", first, second}
    again = compared(*paths[:2], run(made.gsm8k, "step-100", DPO, "b"), run(made.gsm8k, "step-100", DPO, "b"))
    assert again.labels == ("base", first, second, f"{second} (2)")
    assert compared(*paths[:2]).labels == ("base", "step-100")
