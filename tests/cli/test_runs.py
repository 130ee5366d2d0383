"""`harness runs`, and how every command that takes runs finds them."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import harness as package
from harness.errors import RunError
from harness.runs.folder import RESULTS, Run
from harness.runs.selecting import comparable, found_runs
from tests.conftest import Command
from tests.made_runs import MadeRuns, edit


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeRuns:
    monkeypatch.chdir(tmp_path)
    return MadeRuns(tmp_path)


def copied(run: Path, name: str, created: str) -> Path:
    """Return a copy of a run beside it, that began at another time."""
    other = Path(shutil.copytree(run, run.with_name(name)))
    edit(other / "run.json", lambda record: record.update(created=created))
    return other


def test_runs_are_listed_and_removed(harness: Command, made: MadeRuns) -> None:
    base, sft = made.gsm8k("base", lambda i: i % 2 == 0, n=12), made.gsm8k("sft", lambda i: True, n=12)
    stopped = copied(sft, "stopped", "2020-01-01T00:00:00+00:00")
    (stopped / RESULTS).unlink()
    done = harness("runs")
    head, *rows = [line.split() for line in done.out.splitlines()]
    assert head[:2] == ["benchmark", "model"]
    assert [row[1] for row in rows] == ["base", "sft", "sft"]
    assert rows[0][4:] == [
        "finished",
        "12",
        "accuracy",
        "(final-number)",
        "50.0%",
        f"runs/{base.relative_to(base.parents[2])}",
    ]
    assert [row[4] for row in rows] == ["finished", "stopped", "finished"]
    told = json.loads(harness("runs", "runs/gsm8k", "--json").out)
    assert [(each["state"], each["n"]) for each in told] == [("finished", 12), ("stopped", 12), ("finished", 12)]
    assert told[0]["headline"]["low"] < 0.5 < told[0]["headline"]["high"]
    assert Path(told[0]["path"]).resolve() == base
    assert "removed" in harness("runs", "rm", "runs/gsm8k/*/stopped", "--yes").out
    assert not stopped.exists()
    for path in ("runs", "runs/gsm8k/base"):
        done = harness("runs", "rm", path, "--yes")
        assert (done.code, "is not a run folder; nothing is removed" in done.err) == (2, True)
    assert "give --yes" in harness("runs", "rm", base).err
    assert base.exists()
    assert "no folder nowhere" in harness("runs", "nowhere").err


def test_a_run_that_is_going_is_not_removed(harness: Command, made: MadeRuns) -> None:
    from harness.runs.journal import Journal

    run = made.gsm8k("base", lambda i: True, n=12)
    with Journal(Run(run), 12, 1):
        done = harness("runs", "rm", run, "--yes")
    assert (done.code, "a process is at work on it" in done.err) == (2, True)
    assert (run / "samples.jsonl").exists()


def test_latest_is_the_newest_finished_run(harness: Command, made: MadeRuns) -> None:
    sft = made.gsm8k("sft", lambda i: True, n=12)
    newer = copied(sft, "a-newer", "2999-01-01T00:00:00+00:00")
    newest = copied(sft, "a-newest", "2999-01-02T00:00:00+00:00")
    (newest / RESULTS).unlink()
    base = made.gsm8k("base", lambda i: False, n=12)
    Path("chats/sft").mkdir(parents=True)  # holds no run, as what `harness chat` keeps
    assert [path.resolve() for path in found_runs("latest:*/sft")] == [newer]
    assert [path.resolve() for path in found_runs("latest:gsm8k/sft")] == [newer]
    assert {path.resolve().parent.name for path in found_runs("*/sft/*")} == {"sft"}
    assert [path.resolve() for path in found_runs("latest:gsm8k/*")] == [base, newer]
    assert found_runs("latest:runs/gsm8k/sft") == found_runs("latest:gsm8k/sft/")
    assert found_runs("no/such/run") == [Path("no/such/run")]  # is told by who reads it
    with pytest.raises(RunError, match="no run is latest:mmlu/sft, here or in runs"):
        found_runs("latest:mmlu/sft")
    for words in (["show"], ["score"], ["export", "--out", "out.csv"]):
        done = harness(words[0], "latest:gsm8k/sft", *words[1:])
        assert done.code == 0, done.err
    assert "0.0%  100.0%" in harness("compare", "latest:gsm8k/base", "latest:gsm8k/sft").out
    assert "0.0%  100.0%" in harness("compare", "latest:*/base", "runs/*/sft/a-newer").out
    assert package.load_run("latest:gsm8k/sft").path.resolve() == newer
    assert package.compare("latest:gsm8k/*").labels == ("base", "sft")
    assert "is latest:gsm8k/nothing" in harness("report", "latest:gsm8k/nothing").err
    assert "stands for 3 runs, and one is taken here" in harness("show", "runs/gsm8k/sft/*").err


def test_latest_may_be_said_of_whatever_is_given(harness: Command, made: MadeRuns) -> None:
    sft, base = made.gsm8k("sft", lambda i: True, n=12), made.gsm8k("base", lambda i: False, n=12)
    edit(base / "run.json", lambda record: record.update(created="2019-01-01T00:00:00+00:00"))
    older = copied(sft, "older", "2020-01-01T00:00:00+00:00")
    stopped = copied(sft, "stopped", "2999-01-01T00:00:00+00:00")
    (stopped / RESULTS).unlink()
    compared = "0.0%  100.0%"
    assert compared in harness("compare", "--latest").out  # in the order in which they began
    assert compared in harness("compare", "runs/*/base/*", "runs/*/sft/*", "--latest").out
    assert "100.0%  0.0%" in harness("compare", "--latest", sft, base).out
    assert str(older) not in harness("show", "--latest").out
    assert f"runs/gsm8k/sft/{sft.name}" in harness("show", "--latest").out
    assert "runs/gsm8k/base" in harness("show", "--latest", "runs/gsm8k/base/*").out
    reported = [["report"]] if find_spec("jinja2") else []  # the wheel is tested without
    for words in (["score"], ["export", "--out", "out.csv"], ["plan-size", "--detect", "5"], *reported):
        done = harness(*words, "--latest")
        assert done.code == 0, done.err
    rows = harness("runs", "--latest").out.splitlines()[1:]
    assert [row.split()[-1] for row in rows] == [f"runs/gsm8k/base/{base.name}", f"runs/gsm8k/sft/{sft.name}"]
    limited = copied(sft, "limited", "2998-01-01T00:00:00+00:00")
    edit(limited / "run.json", lambda record: record["identity"].update(limit=5))
    done = harness("compare", "--latest")
    assert compared in done.out
    assert done.err.endswith("limited is left out: of other examples than the runs beside them\n")
    assert "sft/limited" in harness("show", "--latest").out
    assert "no run in elsewhere has finished" in harness("show", "elsewhere", "--latest").err
    for words in (["show"], ["compare"], ["runs", "rm"]):
        assert (harness(*words).code, "Missing argument" in harness(*words).err) == (2, True)
    assert "No such option" in harness("runs", "rm", "--latest").err  # what is removed is named


def test_a_judge_is_asked_about_what_it_can_be(harness: Command, made: MadeRuns) -> None:
    made.gsm8k("base", lambda i: True, n=12)
    judged = made.safety("base", lambda i: "safe")
    torn = copied(judged, "torn", "2999-01-01T00:00:00+00:00")
    (torn / RESULTS).unlink()
    Path("labels.csv").write_text("id,label\n" + "".join(f"{s.id},safe\n" for s in Run(judged).samples()))
    done = harness("judge", "runs/*/base/*", "--labels", "labels.csv")
    assert done.code == 0, done.err
    assert re.findall("is left out: (.*)", done.err) == ["unfinished", "scored without a judge"]
    done = harness("judge", "--latest", "runs/gsm8k", "--labels", "labels.csv")
    assert (done.code, "which asks no judge" in done.err) == (2, True)


def test_what_cannot_stand_beside_the_others_is_left_out_with_a_line(harness: Command, made: MadeRuns) -> None:
    runs = [made.gsm8k(model, lambda i: i % 2 == 0, n=12) for model in ("base", "sft")]
    limited = made.gsm8k("sft", lambda i: True, n=12, limit=5)
    torn = copied(runs[0], "torn", "2020-01-01T00:00:00+00:00")
    (torn / RESULTS).unlink()
    given = sorted(path for path in Path("runs").glob("*/*/*"))
    assert len(given) == 4
    done = harness("compare", *given)
    assert done.code == 0, done.err
    assert [line.rpartition("/")[2] for line in done.err.splitlines()] == [
        "torn is left out: unfinished",
        f"{limited.name} is left out: of other examples than the runs beside them",
    ]
    assert comparable([runs[0], limited]) == ([runs[0], limited], [])  # two that were meant are told of, not dropped
    assert comparable([runs[0], torn]) == ([runs[0], torn], [])
    assert harness("compare", *given, "--max-drop", "gsm8k=1").code == 2  # a gate passes over nothing


def test_results_are_written_last(made: MadeRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    there: dict[str, bool] = {}
    write_export = Run.write_export

    def noted(self: Run, name: str, *words: Any) -> None:
        there[name] = self.finished
        write_export(self, name, *words)

    monkeypatch.setattr(Run, "write_export", noted)
    assert Run(made.safety("base", lambda i: "safe")).finished
    assert there["simple_safety_tests.jsonl"] is False
