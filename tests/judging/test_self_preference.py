"""Self-preference: what counts, by hand, and what the command line says of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import harness as package
from harness.judging.self_preference import family_of, self_preference
from harness.runs.judgements import Verdict
from harness.statistics import share_difference
from tests.conftest import Command
from tests.made_runs import MadeRuns, edit

SCORES = {"won": 1.0, "lost": 0.0, "tied": 0.5}


def verdicts(said: dict[str, str]) -> dict[str, Verdict]:
    """Return verdicts by key, of examples that are called what stands before a ``#``."""
    found = {}
    for key, word in said.items():
        identifier, _, repeat = key.partition("#")
        found[key] = Verdict(identifier, word, {}, {}, repeat=int(repeat or 0))
    return found


def test_it_is_the_difference_of_two_shares() -> None:
    # Held against what is known: of three good ones two are won and one tied, of four bad ones one is lost.
    known = dict(zip("abcdefghi", ["won"] * 3 + ["lost"] * 4 + ["tied", "won"], strict=True))
    said = verdicts(
        dict(zip("abcdefghix", ["won", "won", "tied", "won", "lost", "won", "won", "won", "?", "won"], strict=True))
    )
    found = self_preference(said, known, SCORES)
    assert found.value == pytest.approx(2.5 / 3 - 1 / 4) and found.n == 7
    assert found == share_difference((2.5, 3), (1, 4))
    assert math.isnan(self_preference(said, {"a": "won"}, SCORES).value), "nothing is known of the other side"


def test_several_samples_of_an_example_are_one() -> None:
    known = {"a": "won", "a#1": "won", "a#2": "lost", "b": "lost", "b#1": "lost", "c": "won"}
    said = verdicts({"a": "won", "a#1": "lost", "a#2": "lost", "b": "won", "b#1": "lost", "c": "won"})
    assert self_preference(said, known, SCORES) == share_difference((1.5, 2), (1.5, 2))


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "qwen"),
        ("mistralai/Mixtral-8x7B", "mistral"),
        ("gpt-4-turbo", "gpt"),
        ("CodeLlama-7b", "llama"),
        ("runs/llama.jsonl", "llama"),
        ("chk/optimal", None),
        ("", None),
    ],
)
def test_families_by_name(model: str, family: str | None) -> None:
    assert family_of(model) == family


def test_a_checkpoints_family_is_in_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    assert family_of(str(tmp_path)) == "qwen"
    (tmp_path / "config.json").write_text("[")
    assert family_of(str(tmp_path)) is None


def test_it_is_estimated_against_another_familys_judge_and_against_people(harness: Command, tmp_path: Path) -> None:
    n = 12
    won, lost = ("2", "1"), ("1", "2")
    made = MadeRuns(tmp_path)
    # The other family's judge: six won, six lost. The own family's says of four of those lost that they are won.
    path = made.alpaca("qwen-sft", lambda i: won if i < 6 else lost, n=n)
    edit(path / "results.json", lambda results: results.update(metrics={}, judges={}))

    def judge(name: str, wins: int) -> list[str | Path]:
        said: dict[str, str] = {}
        for i in range(n):
            replies = won if i < wins else lost
            said |= {f"alpaca-{i:04d}#reference-first": replies[0], f"alpaca-{i:04d}#model-first": replies[1]}
        return ["judge", path, "--judge", made.outputs(name, said), "--judge-engine", "replay"]

    alone = harness(*judge("qwen-judge", 10))
    assert "the judge is of the evaluated model's family (qwen); models prefer their own" in alone.out, alone
    assert "self-preference" not in alone.out
    both = harness(*judge("llama-judge", 6))
    expected = share_difference((6, 6), (2, 6))
    sized = f"+{100 * expected.value:.1f} points [+{100 * expected.low:.1f}, +{100 * expected.high:.1f}], n 12"
    line = f"favours the model by {sized}, held against llama-judge; 0 is no self-preference"
    assert line in both.out and both.out.count("favours the model") == 1
    judges = json.loads((path / "results.json").read_text())["judges"]
    assert judges["qwen-judge"]["self_preference"] == {
        "llama-judge": pytest.approx([expected.value, expected.low, expected.high, 12])
    }
    assert "self_preference" not in judges["llama-judge"]
    before = (path / "results.json").read_bytes()
    assert harness(*judge("qwen-judge", 10)).code == 0
    assert (path / "results.json").read_bytes() == before, "in whatever order they judge"
    page = package.report(path, out=tmp_path / "page.html").read_text()
    assert f"AlpacaEval, qwen-sft: qwen-judge {line}" in page

    labels = tmp_path / "labels.jsonl"
    rows = [{"id": f"alpaca-{i:04d}", "label": "won" if i < 6 else "lost"} for i in range(n)]
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = harness("judge", path, "--labels", labels)
    assert f"favours the model by {sized}, held against the labels" in done.out


def test_verdicts_that_compare_nothing_show_none(harness: Command, tmp_path: Path) -> None:
    path = MadeRuns(tmp_path).safety("qwen", lambda i: "safe" if i % 2 else "unsafe", n=4)
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\nsst_0,safe\nsst_1,unsafe\n")
    done = harness("judge", path, "--labels", labels)
    assert done.code == 0 and "favours" not in done.out
