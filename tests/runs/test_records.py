"""Typed records say what the files of a run say, all of it, and refuse what does not fit with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RunError
from harness.evaluation.options import run_options
from harness.runs.folder import RESULTS, RUN, TIMING, Run
from harness.runs.judgements import read_verdicts
from harness.runs.records import Estimate, JudgingSession, Results, RunRecord, Timing, as_json, as_record
from tests.made_runs import MadeRuns, edit


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with groups and a judge that leaves something unreadable."""
    made = MadeRuns(tmp_path_factory.mktemp("judged"))
    return made.safety("m", lambda i: ("safe", "unsafe", "Hm.")[i % 3], n=6)


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with categories whose parser is its judge, as of multiple choice."""
    return MadeRuns(tmp_path_factory.mktemp("parsed")).mmlu("m", lambda i: i % 2 == 0)


def same(first: Any, second: Any) -> bool:
    """Whether two files would be the same, the order of their keys included."""
    return json.dumps(first) == json.dumps(second)


def test_records_are_written_as_they_were_read(judged: Path, parsed: Path) -> None:
    for path in (judged, parsed):
        assert same(as_json(Run(path).record), content(path / RUN))
        assert same(as_json(Run(path).results), content(path / RESULTS))


def test_a_record_has_fields_for_what_the_files_say(judged: Path, parsed: Path) -> None:
    record, results = Run(judged).record, Run(judged).results
    assert (record.benchmark, record.model, record.headline) == ("simple_safety_tests", "m", None)
    assert record.command.judge_engine == record.command.engine == "replay"
    assert [plugin.distribution for plugin in record.plugins] == ["posttrain-harness"] * len(record.plugins)
    said = results.judged["judge"]
    assert (said.n, said.verdicts, said.unreadable.count) == (6, {"safe": 2, "unsafe": 2}, 2)
    assert {metric: [round(3 * (end or 0), 6) for end in ends] for metric, ends in said.bounds.items()} == {
        "safe": [1, 2]
    }
    assert results.groups["Area 0"]["judge"]["safe"].value == 1
    assert Run(parsed).results.judges is None and Run(parsed).results.judged == {}
    assert Run(parsed).record.identity.parsers[0].name == "choice"
    assert len(Run(parsed).record.identity.benchmark_options["subjects"]) == 12


def test_what_is_not_known_is_none(judged: Path) -> None:
    nothing = json.loads('{"value": NaN, "n": 0, "stderr": null, "low": 0, "high": 1, "method": "wilson"}')
    results = {**content(judged / RESULTS), "metrics": {"judge": {"safe": nothing}}}
    found = as_record(results, Results, judged).metrics["judge"]["safe"]
    assert (found.stderr, found.low) == (None, 0)
    assert same(as_json(found), nothing), "whole numbers stay whole, and NaN stays NaN"
    missing = {name: value for name, value in nothing.items() if name != "method"}
    with pytest.raises(RunError, match=r"missing required field `method` - at `\$.metrics\[...\]\[...\]`"):
        as_record({**results, "metrics": {"judge": {"safe": missing}}}, Results, judged)


def test_keys_that_are_not_known_are_kept_where_plugins_put_theirs(judged: Path) -> None:
    config, results = content(judged / RUN), content(judged / RESULTS)
    config["identity"]["parsers"] = [{"name": "p", "strict": True}]
    config["identity"]["sampler"] = config["command"]["sampler"] = 7
    results["judges"]["judge"] |= {"details": 1, "mean_length": 2.5}
    record, found = as_record(config, RunRecord, judged), as_record(results, Results, judged)
    assert (record.identity.parsers[0].options, record.identity.more) == ({"strict": True}, {"sampler": 7})
    assert found.judged["judge"].details["mean_length"] == 2.5
    assert same(as_json(found), results) and as_json(record) == config
    assert as_record({**config, "colour": "red"}, RunRecord, judged) == record


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": "six"}, r"Expected `int`, got `str` - at `\$.n`"),
        ({"judges": {"a/b": {}}}, "Object missing required field"),
        ({"judges": []}, r"Expected `object \| null`, got `array` - at `\$.judges`"),
        ({"truncated": {"count": 1, "ids": [1]}}, r"Expected `str`, got `int` - at `\$.truncated.ids\[0\]`"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(judged: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError, match=rf"{RESULTS}: not as this version writes it \(.*{said}"):
        as_record({**content(judged / RESULTS), **change}, Results, judged / RESULTS)


@pytest.mark.parametrize("label", ["", ".hidden", "a/b", "..", "a\\b", "a\0"])
def test_the_label_of_a_judge_names_a_file_in_its_folder(judged: Path, label: str) -> None:
    results = content(judged / RESULTS)
    results["judges"] = {label: results["judges"]["judge"]}
    with pytest.raises(RunError, match="cannot name a judge: it is no plain name of a file"):
        as_record(results, Results, judged / RESULTS)


def test_bounds_are_pairs_of_numbers(judged: Path) -> None:
    results = content(judged / RESULTS)
    results["judges"]["judge"]["bounds"] = {"safe": [0.1]}
    with pytest.raises(RunError, match="not as this version writes it"):
        as_record(results, Results, judged / RESULTS)


def test_a_file_is_changed_where_it_is_told_to_be(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.timing == Timing()
    run.add_judging(JudgingSession(judge="j", replies=2))
    edit(tmp_path / TIMING, lambda timing: timing.update(colour="red"))
    run.add_judging(JudgingSession(judge="k", replies=3))
    assert [session.judge for session in run.timing.judging] == ["j", "k"]
    assert list(content(tmp_path / TIMING)) == ["sessions", "judging", "colour"]
    before = (tmp_path / TIMING).stat()
    run.update(TIMING, {"colour": "red"})
    assert (tmp_path / TIMING).stat() == before, "nothing has changed, and nothing is written"
    run.update(TIMING, {"colour": "blue"})
    assert content(tmp_path / TIMING)["colour"] == "blue"


def test_an_option_of_an_earlier_run_that_is_misspelt_is_not_passed_over(parsed: Path, tmp_path: Path) -> None:
    (tmp_path / RUN).write_bytes((parsed / RUN).read_bytes())
    edit(tmp_path / RUN, lambda config: config["command"].update(limit=3, out="elsewhere", sede=4))
    options = run_options(earlier=tmp_path)
    assert (options.limit, options.out, options.benchmark) == (3, "elsewhere", ("mmlu",))
    assert options.options["sede"] == 4, "which is then no option of any plugin"


def test_verdicts_are_read_back_as_they_were_written(judged: Path) -> None:
    verdicts = read_verdicts(judged, "judge")
    assert [verdict.verdict for verdict in verdicts.values()] == ["safe", "unsafe", "unreadable"] * 2
    assert verdicts["sst_2"].scores == {"safe": None} and verdicts["sst_2"].replies == {"verdict": "Hm."}


def test_an_estimate_is_recorded_without_nan() -> None:
    from harness import types

    nan = float("nan")
    assert Estimate.of(types.Estimate(nan, 0, nan, 0.0, 1.0, "none")) == Estimate(
        value=None, n=0, stderr=None, low=0.0, high=1.0, method="none"
    )
