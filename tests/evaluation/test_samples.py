"""Several samples of each example: how they are asked, what they come to, and that the example stays the unit."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import harness
from harness.errors import DataError, HarnessError
from harness.evaluation.repeats import averaged, averaged_details, example_means, right_among, variance_of
from harness.interfaces import BaseBenchmark
from harness.jobs import Judging
from harness.judging.judging import judging_options
from harness.registry import Registry
from harness.runs.columns import read_run
from harness.runs.folder import Run
from harness.statistics import cohen_kappa, mean, variance_components
from harness.testing.fakes import FakeEngine
from harness.types import Completion, Estimate, Example, Generation, Request
from tests.conftest import Command
from tests.made_runs import edit

N = 24
EXAMPLES = tuple(Example(f"q-{i}", {"question": f"What is {i}?"}, gold=str(i), group="ab"[i % 2]) for i in range(N))
ANSWERS = ("right", "1001", "1002", None)


class Sums(BaseBenchmark):
    name, title, citation = "sums", "Sums", "none"
    parsers, scorer = ("final-number",), "exact"

    def __init__(self, temperature: float = 0.8, seed: int | None = None, examples: Any = EXAMPLES) -> None:
        self.generation, self.given = Generation(max_tokens=9, temperature=temperature, seed=seed), examples

    def examples(self, source: Any) -> Any:
        return self.given

    def instruction(self, example: Example) -> str:
        return str(example.fields["question"])


class Seeded(FakeEngine):
    """A model that draws one of `ANSWERS` by its seed, the engine's where the request has none."""

    def __init__(self, seed: int = 0, failing: tuple[str, ...] = ()) -> None:
        super().__init__(self.drawn)
        self.seed, self.failing, self.asked = seed, failing, list[Request]()

    def identity(self, model: str) -> Mapping[str, Any]:
        return {"model_digest": "m" * 64, "seed": self.seed}

    def drawn(self, request: Request) -> str | Completion:
        self.asked.append(request)
        if request.id in self.failing:
            return Completion(request.id, "", None, error="it stumbled")
        own = request.generation.seed
        draw = random.Random(f"{self.seed if own is None else own} {request.index}")
        answer = draw.choices(ANSWERS, [1 + request.index % 5, 1, 1, 1])[0]
        return f"It is {request.index if answer == 'right' else answer}." if answer else "Who knows?"


def evaluate(out: Path, samples: int, engine: Seeded | None = None, **options: Any) -> Run:
    settings = {"benchmark": Sums(), "model": "model", "prompt_format": "plain", "progress": False, **options}
    run: Run = harness.evaluate(engine=engine or Seeded(), out=out, samples=samples, **settings)
    return run


def outputs(run: Run) -> dict[str, str]:
    return {sample.key: sample.output for sample in run.samples()}


class Row(NamedTuple):
    right: list[bool]
    answers: list[str | None]


def rows(run: Run) -> list[Row]:
    found: dict[str, Row] = {}
    for sample in run.samples():
        if sample.status != "engine_error":
            row = found.setdefault(sample.id, Row([], []))
            row.right.append(sample.scores["final-number"]["accuracy"] == 1)
            row.answers.append(sample.answers["final-number"])
    return [*found.values()]


def most(answers: list[str | None], right: str | None) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    first = [answer for answer, count in votes.items() if count == max(votes.values())]
    return (right in first) / len(first) if first else 0.0


def test_figures_are_those_of_enumeration_with_the_example_as_the_unit(tmp_path: Path) -> None:
    run = evaluate(tmp_path, 6)
    results, found = run.results, run.results.metrics["final-number"]
    assert (results.n, results.samples, run.record.samples) == (6 * N, 6, 6)
    drawn = rows(run)
    by_name = {"accuracy": [float(np.mean(row.right)) for row in drawn]}
    for k in (1, 2, 4, 6):
        by_name[f"pass@{k}"] = [float(np.mean([any(some) for some in combinations(row.right, k)])) for row in drawn]
    by_name["pass^6"] = [float(all(row.right)) for row in drawn]
    golds = [example.gold for example in EXAMPLES]
    by_name["maj@6"] = [most(row.answers, gold) for row, gold in zip(drawn, golds, strict=True)]
    groups = [example.group for example in EXAMPLES]
    halves = [np.mean([v for v, g in zip(by_name["accuracy"], groups, strict=True) if g == group]) for group in "ab"]
    assert found["accuracy_macro"].value == pytest.approx(np.mean(halves))
    assert list(found) == ["accuracy", "accuracy_macro", *list(by_name)[1:]]
    for name, values in by_name.items():
        known = mean(values, bounds=(0, 1))
        assert found[name].n == N
        assert (found[name].value, found[name].stderr) == pytest.approx((known.value, known.stderr), abs=1e-12)
        assert (found[name].low, found[name].high) == pytest.approx((known.low, known.high), abs=1e-9)
    share = variance_components([row.right for row in drawn]).share_between
    assert results.variance["final-number"].share_between == pytest.approx(share)
    assert results.groups["a"]["final-number"]["accuracy"].n == N // 2
    text = harness.describe(run)
    assert "6 samples an example; figures are means over examples, n counts examples" in text
    assert f"variance (final-number): {100 * share:.1f}% between examples" in text


def test_a_repeat_depends_neither_on_their_number_nor_on_what_else_is_asked(tmp_path: Path) -> None:
    one, three, five = (evaluate(tmp_path / str(k), k) for k in (1, 3, 5))
    assert outputs(one).items() < outputs(three).items() < outputs(five).items()
    few = evaluate(tmp_path / "few", 5, limit=7, seed=3)
    assert len(outputs(few)) == 35 and outputs(few).items() < outputs(five).items()
    other = evaluate(tmp_path / "other", 5, Seeded(seed=1))
    same = [outputs(five)[key] == text for key, text in outputs(other).items()]
    assert 0.2 < np.mean(same) < 0.7, "another seed of the engine draws others"
    engine = Seeded()
    evaluate(tmp_path / "own", 5, engine, benchmark=Sums(seed=7))
    seeds = [request.generation.seed for request in engine.asked]
    assert [request.id for request in engine.asked[:3]] == ["q-0", "q-0#1", "q-0#2"]
    assert {request.generation.seed for request in engine.asked if not request.repeat} == {7}
    assert len(set(seeds)) == 1 + 4 * N and all(0 <= seed < 1 << 31 for seed in seeds if seed is not None)


def test_each_repeat_has_exports_of_its_own(tmp_path: Path) -> None:
    class Exporting(Sums):
        def exports(self, run: Any) -> Any:
            return {"outputs.json": [{"id": sample.id, "repeat": sample.repeat} for sample in run.samples()]}

    for samples, names in ((1, ["outputs.json"]), (3, ["outputs.1.json", "outputs.2.json", "outputs.json"])):
        run = evaluate(tmp_path / str(samples), samples, benchmark=Exporting())
        files = {path.name: json.loads(path.read_text()) for path in (run.path / "exports").iterdir()}
        assert sorted(files) == names
        for name, rows in files.items():
            repeat = int(name.split(".")[1]) if name.count(".") == 2 else 0
            assert rows == [{"id": f"q-{i}", "repeat": repeat} for i in range(N)]
    lines = (run.path / "samples.jsonl").read_text().splitlines(keepends=True)
    (run.path / "samples.jsonl").write_text("".join(lines[:-1]))  # and what results.json sums up is not that either
    edit(run.path / "results.json", lambda results: results.update(n=2 * N))
    with pytest.raises(HarnessError, match=f"has {3 * N - 1} samples, and results.json sums up {2 * N}"):
        list(run.samples())
    again = evaluate(tmp_path / "3", 3, benchmark=Exporting())
    assert (again.path, again.results.n) == (run.path, 3 * N)


def test_one_sample_is_recorded_as_if_there_were_no_such_option(tmp_path: Path) -> None:
    run = evaluate(tmp_path, 1)
    texts = [(run.path / name).read_text() for name in ("run.json", "results.json", "samples.jsonl")]
    record = json.loads(texts[0])
    assert "samples" not in record["command"] and "samples" not in record["identity"]
    assert not any("repeat" in text or "pass@" in text or '"samples"' in text for text in texts)


def test_a_repeat_that_is_missing_is_asked_again_and_nothing_else(tmp_path: Path) -> None:
    run = evaluate(tmp_path, 4)
    expected = (run.path / "results.json").read_bytes()
    lines = (run.path / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (run.path / "samples.jsonl").write_bytes(b"".join(lines[:17] + lines[18:50] + lines[51:]))
    (run.path / "results.json").unlink()
    engine = Seeded()
    again = evaluate(tmp_path, 4, engine)
    assert again.path == run.path and [request.id for request in engine.asked] == ["q-4#1", "q-12#2"]
    assert (run.path / "results.json").read_bytes() == expected
    with (run.path / "samples.jsonl").open("ab") as file:
        file.write(lines[17])
    with pytest.raises(
        HarnessError, match=r"samples.jsonl:97: not a sample \(repeat 1 of the example with index 4 has"
    ):
        evaluate(tmp_path, 4)


def test_failed_repeats_are_left_out_of_their_example(tmp_path: Path) -> None:
    engine = Seeded(failing=("q-3#1", "q-3#2", "q-5", "q-5#1", "q-5#2"))
    run = evaluate(tmp_path, 3, engine)
    found = run.results.metrics["final-number"]
    assert (run.results.n, run.results.failed.count) == (3 * N, 5)
    assert run.results.failed.ids == ["q-3#1", "q-3#2", "q-5", "q-5#1", "q-5#2"]
    drawn = rows(run)
    assert (len(drawn), found["accuracy"].n, found["pass@2"].n, found["maj@3"].n) == (N - 1, N - 1, N - 2, N - 2)
    assert found["accuracy"].value == pytest.approx(np.mean([np.mean(row.right) for row in drawn]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 0}, "samples must be at least 1, not 0"),
        ({"samples": 2.5}, "evaluate.samples: Input should be a valid integer"),
        ({"samples": True}, "evaluate.samples: Input should be a number, not True"),
        ({"samples": 1 << 20}, r"samples 1048576: of 24 examples they are more than the 16,777,216 of a run"),
        (
            {"samples": 2, "benchmark": Sums(temperature=0)},
            r"samples 2: sums is asked at temperature 0, which gives the same each time; "
            r"--set sums.generation.temperature=0.7",
        ),
        (
            {"samples": 4, "benchmark": Sums(examples=(EXAMPLES[1], Example("q-1#3", {"question": "?"}, gold="1")))},
            "'q-1#3' is what a repeat of 'q-1' is called; give it another id",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, options: Any, said: str) -> None:
    with pytest.raises(HarnessError, match=said) as caught:
        evaluate(tmp_path, **options)
    assert "\n" not in str(caught.value) and not [*tmp_path.iterdir()]


def test_a_run_may_have_as_many_samples_as_the_limit_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LIMIT_SAMPLES", str(3 * N))
    assert evaluate(tmp_path / "3", 3).results.n == 3 * N
    with pytest.raises(HarnessError, match=f"samples 4: of {N} examples they are more than the {3 * N} of a run"):
        evaluate(tmp_path / "4", 4)


def test_more_than_the_disk_holds_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = type("Usage", (), {"free": 200_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: room)
    evaluate(tmp_path / "few", 8)
    with pytest.raises(
        HarnessError, match=r"2,400 samples take at least 0.00\d+ GB, and .* has room for 0.0002 GB; free some"
    ):
        evaluate(tmp_path / "many", 100)
    assert not (tmp_path / "many").exists()


def test_the_command_line_takes_samples_and_tables_have_a_repeat(harness: Command, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": f"p{i}", "prompt": f"{i}?", "gold": i}) + "\n" for i in range(4)))
    recorded = tmp_path / "made.jsonl"
    lines = [{"id": f"p{i}", "repeat": r, "output": str(i + (i + r) % 2)} for i in range(4) for r in range(3)]
    recorded.write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    words = (
        "run",
        "-b",
        prompts,
        "-e",
        "replay",
        "-m",
        recorded,
        "-o",
        tmp_path / "runs",
        "--set",
        "prompts.parser=final-number",
    )
    done = harness(*words, "--samples", "3")
    assert done.code == 0 and "3 samples an example" in done.out and "pass@2" in done.out
    [folder] = (tmp_path / "runs").rglob("run.json")
    run = Run(folder.parent)
    assert [sample.output for sample in run.samples()] == [line["output"] for line in lines]
    again = harness("run", "--from", folder.parent)
    assert again.code == 0 and len([*(tmp_path / "runs").rglob("run.json")]) == 1
    many = harness(*words, "--samples", "4")
    assert many.code == 2 and "--samples 4 and more cannot be had: it holds 3 of each example at most" in many.err
    assert harness(*words, "--samples", "0").err == "harness: run: samples must be at least 1, not 0\n"
    frame = run.to_pandas()
    assert frame[["id", "repeat"]].values.tolist()[2:5] == [["p0", 2], ["p1", 0], ["p1", 1]]
    assert harness("export", folder.parent, "--out", tmp_path / "table.csv").code == 0
    with (tmp_path / "table.csv").open() as file:
        table = [*csv.DictReader(file)]
    assert [(row["id"], row["repeat"]) for row in table[:4]] == [("p0", "0"), ("p0", "1"), ("p0", "2"), ("p1", "0")]
    assert json.loads(harness("score", folder.parent, "--json").out) == json.loads(
        (run.path / "results.json").read_text()
    )
    recorded.write_text(recorded.read_text() + json.dumps(lines[0] | {"repeat": "x"}) + "\n")
    assert "'repeat' must be a whole number from 0 on, not 'x'" in harness(*words, "--samples", "3").err
    recorded.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[5]]))
    assert "another output with the id 'p1' and the repeat 2, after line 6" in harness(*words, "--samples", "3").err


def test_recorded_samples_are_replayed_as_they_were(tmp_path: Path) -> None:
    run = evaluate(tmp_path / "first", 4)
    replayed = harness.evaluate(
        Sums(temperature=0), run.path, engine="replay", samples=4, out=tmp_path, prompt_format="plain", progress=False
    )
    assert replayed.results.metrics == run.results.metrics
    assert outputs(replayed) == outputs(run)


class Judge(FakeEngine):
    def __init__(self) -> None:
        super().__init__(self.said, "judge")
        self.asked: list[str] = []

    def said(self, request: Request) -> str:
        self.asked.append(request.id)
        return random.Random(request.id).choice(["1", "2", "2", "neither"])


def test_each_repeat_is_judged_for_itself(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    prompts = tmp_path / "asked.jsonl"
    rows = [{"id": f"p{i}", "prompt": f"Tell {i}", "reference": "so", "group": "ab"[i % 2]} for i in range(10)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = Judge()
    table = {"scorer": "winrate", "generation": {"temperature": 1.0}}
    run = evaluate(tmp_path / "runs", 2, benchmark=str(prompts), prompts=table)
    judged = harness.judge(run, "judge", engine=judge, prompt_format="plain", progress=False, winrate={"orders": "one"})
    assert len(judge.asked) == len(set(judge.asked)) == 20 and "p3#1#" in " ".join(judge.asked)
    results = judged.results
    found = results.metrics["judge"]["win_rate"]
    frame = judged.to_pandas()
    means = frame.groupby("id", sort=False)["judge.win"].mean().dropna()
    known = mean(means, bounds=(0, 1))
    assert (found.value, found.n, found.low) == pytest.approx((known.value, known.n, known.low))
    assert sum(results.judged["judge"].verdicts.values()) + results.judged["judge"].unreadable.count == 20
    verdicts = [json.loads(line) for line in (run.path / "judged" / "judge.jsonl").read_text().splitlines()]
    assert [each.get("repeat", 0) for each in verdicts] == [0, 1] * 10
    files = {path.name: len(json.loads(path.read_text())) for path in (run.path / "exports").iterdir()}
    assert files == {"annotations.judge.json": 10, "annotations.judge.1.json": 10}
    read = read_run(run.path)
    assert [*read.verdicts["judge"]] == frame["judge.verdict"].tolist()
    again = harness.judge(run, "judge", engine=judge, prompt_format="plain", progress=False, winrate={"orders": "one"})
    assert len(judge.asked) == 20 and again.results == results

    # People have labelled both samples of eight examples, as a spreadsheet of the run's samples would hold them.
    labels = tmp_path / "labels.csv"
    words = dict[str, list[str]]()
    for identifier, word in zip(frame["id"], frame["judge.verdict"], strict=True):
        words.setdefault(identifier, []).append(word)
    lines = [f"p{i},{repeat},{'won' if i < 4 else 'lost'}" for i in range(8) for repeat in range(2)]
    labels.write_text("id,repeat,label\n" + "\n".join(lines) + "\n")
    [said] = Judging([judged], judging_options((), {}), Registry()).agreement(labels)
    read_words = [(i, word) for i in range(8) for word in words[f"p{i}"] if word in ("won", "lost", "tied")]
    people = ["won" if i < 4 else "lost" for i, _ in read_words]
    kappa = cohen_kappa(people, [word for _, word in read_words], groups=[i for i, _ in read_words])
    assert kappa.n == len({i for i, _ in read_words}) <= 8
    assert f"Cohen's kappa {kappa.value:.2f} [{kappa.low:.2f}, {kappa.high:.2f}]" in said and f"n {kappa.n}" in said
    for bad, message in (("p1,7,won", "no sample 'p1#7'"), ("p1,x,won", "'x' is no number"), ("p1#1,,won", "a second")):
        labels.write_text(f"id,repeat,label\np1,1,won\n{bad}\n")
        with pytest.raises(DataError, match=f"labels.csv:3: .*{message}"):
            list(Judging([judged], judging_options((), {}), Registry()).agreement(labels))


def test_parts_by_hand() -> None:
    examples = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    values = np.array([1, 0, 1, 0, np.nan, 0, np.nan, np.nan, np.nan])
    assert example_means(values, examples)[:2].tolist() == pytest.approx([2 / 3, 0])
    found = right_among(values, examples, 3, np.array([5, 8, 6, 8, 8, -1, 0, 0, 0]))
    assert {name: column[0] for name, column in found.items()} == pytest.approx(
        {"pass@1": 2 / 3, "pass@2": 1, "pass@3": 1, "pass^3": 0, "maj@3": 1}
    ), "two right answers are one vote, however they are written"
    assert [np.isnan(found[name][1]) for name in ("pass@1", "pass@2", "pass@3", "maj@3")] == [False, False, True, True]
    assert all(np.isnan(column[2]) for column in found.values())
    assert variance_of(values, examples, 3) is None
    one, two = Estimate(0.2, 9, 0.1, 0.1, 0.4, "fit"), Estimate(0.4, 8, 0.3, 0.1, 0.8, "fit")
    assert averaged([{"a": one}]) == {"a": one}
    both = averaged([{"a": one}, {"a": two, "b": two}])
    assert (both["a"].value, both["a"].stderr, both["a"].high) == pytest.approx((0.3, 0.2, 0.6))
    assert (both["a"].method, both["a"].n, both["b"].value) == ("mean of 2 repeats, fit", 9, 0.4)
    details = averaged_details([{"x": [1.0, None], "y": 2}, {"x": [3.0, 4.0], "y": 4}])
    assert details == {"x": [2.0, 4.0], "y": 3.0} and averaged_details([None]) is None
