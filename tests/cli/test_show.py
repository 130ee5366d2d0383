"""`harness show`: the samples that are asked for, of one run or of two, in any form, and none that are not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import Command, Done
from tests.made_runs import MadeRuns, Right

#: Right, but for the last three: one wrong, one that cannot be read, one right in the other run alone.
BASE: Right = lambda i: {9: False, 10: None, 11: False}.get(i, True)  # noqa: E731
SFT: Right = lambda i: {9: False, 10: None, 0: False}.get(i, True)  # noqa: E731


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return MadeRuns(tmp_path).gsm8k("base", BASE, n=12)


@pytest.fixture
def sft(tmp_path: Path) -> Path:
    return MadeRuns(tmp_path).gsm8k("sft", SFT, n=12)


def shown(done: Done) -> list[str]:
    """Return the ids of the samples that were printed."""
    assert (done.code, done.err) == (0, ""), done
    return re.findall(r"── (test-\d+|\w+-test-\d+|sst_\d+)", done.out)


def check_one_line(done: Done, message: str) -> None:
    assert done.code == 2, done
    [line] = done.err.strip().splitlines()
    assert re.search(message, line), line


def test_samples_of_a_kind(harness: Command, base: Path) -> None:
    assert shown(harness("show", base, "--wrong")) == ["test-0009", "test-0011"]
    assert shown(harness("show", base, "--unparsed")) == ["test-0010"]
    assert shown(harness("show", base, "--wrong", "--unparsed")) == ["test-0009", "test-0010", "test-0011"]
    done = harness("show", base, "--wrong")
    assert done.out.startswith(f"2 of 12 samples that are wrong in {base}\n")
    assert "  output\n  │ #### -77\n  final-number: -77  [accuracy 0]\n" in done.out
    assert "── test-0009 (wrong)\n  instruction\n" in done.out
    assert "# Query:" not in done.out
    assert harness("show", base, "--wrong", "--prompt").out.count("  │ # Query:\n") == 2


def test_a_draw_is_seeded(harness: Command, base: Path) -> None:
    first, again, other = (shown(harness("show", base, "--sample", 3, "--seed", seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert (len(first), sorted(first)) == (3, first)
    assert len(shown(harness("show", base))) == 10
    assert "12 of 12 samples in" in (text := harness("show", base, "--sample", 3).out)
    assert "3 of them drawn with seed 0" in text


def test_conditions_hold_together(harness: Command, tmp_path: Path, base: Path) -> None:
    made = MadeRuns(tmp_path).mmlu("m", lambda i: i % 5 != 0, each=5)
    assert shown(harness("show", made, "--wrong", "--group", "anatomy")) == ["anatomy-test-0000"]
    assert len(shown(harness("show", made, "--group", "anatomy", "--group", "astronomy"))) == 10
    assert len(shown(harness("show", made, "--group", "STEM", "--sample", 99))) >= 5  # a category
    assert len(shown(harness("show", made, "--grep", "question 3", "--sample", 99))) == 0
    assert len(shown(harness("show", made, "--grep", "(?i)QUESTION 3", "--sample", 99))) == 12
    assert shown(harness("show", base, "--id", "test-0003", "--id", "test-0001")) == ["test-0001", "test-0003"]
    ids = [word for i in range(12) for word in ("--id", f"test-{i:04d}")]
    assert len(shown(harness("show", base, *ids))) == 12


def test_nothing_that_matches_is_said(harness: Command, base: Path) -> None:
    done = harness("show", base, "--truncated")
    assert (done.code, done.out) == (0, f"no samples that are truncated in {base}\n")
    assert harness("show", base, "--truncated", "--json").out == ""


def test_two_runs_stand_side_by_side(harness: Command, base: Path, sft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = harness("show", base, "--flipped", sft)
    assert shown(done) == ["test-0000", "test-0011"]
    assert done.out.startswith(f"2 of 12 samples in {base} that are right in it alone, or in {sft} alone\n")
    assert done.out.count("  instruction\n") == 2  # once each, as both were asked the same
    assert re.search(r"── base: wrong +── sft: ok", done.out)
    assert re.search(r"│ #### -77 +│ ", done.out)
    monkeypatch.setenv("COLUMNS", "40")
    narrow = harness("show", base, "--flipped", sft).out
    assert re.search(r"── base: wrong\n  output\n", narrow)
    assert len(shown(harness("show", base, sft, "--sample", 4))) == 4
    assert shown(harness("show", base, sft, "--wrong")) == ["test-0009", "test-0011"]


def test_no_column_can_feign_another_or_the_end_of_a_block(
    harness: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    made, texts = MadeRuns(tmp_path), "word " * 30 + "\n  gold: 42\n\x1b[2J東京" + "x" * 200
    made.gsm8k("any", lambda i: True, n=12)
    outputs = {f"test-{i:04d}": texts for i in range(12)}
    first, second = (made.run("gsm8k", name, outputs, tmp_path / "data-12") for name in ("a", "b"))
    out = harness("show", first, second, "--sample", 1).out
    block = out[out.rindex("  output") : out.index("  final-number")].splitlines()[1:]
    assert len(block) > 8
    assert all(line.startswith("  │ ") and "  │ " in line[30:] for line in block)
    assert "\x1b" not in out


def test_json_has_everything_in_ascii(harness: Command, base: Path, sft: Path) -> None:
    done = harness("show", base, "--wrong", "--json")
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [(record["id"], record["kinds"], record["run"]) for record in records] == [
        ("test-0009", ["wrong"], "base"),
        ("test-0011", ["wrong"], "base"),
    ]
    assert records[0]["prompt"].startswith("# Instruction")
    [pair] = [json.loads(line) for line in harness("show", base, sft, "--id", "test-0011", "--json").out.splitlines()]
    assert [(each["run"], each["kinds"]) for each in pair["runs"]] == [("base", ["wrong"]), ("sft", [])]
    assert done.out.isascii()


def test_markdown_fences_cannot_be_closed_from_within(harness: Command, tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    made.gsm8k("any", lambda i: True, n=12)
    outputs = {f"test-{i:04d}": "````\n# A heading\n<script>" for i in range(12)}
    path = made.run("gsm8k", "m", outputs, tmp_path / "data-12")
    text = harness("show", path, "--id", "test-0000", "--markdown").out
    assert "`````text\n````\n# A heading\n<script>\n`````\n" in text
    assert "- final-number: no answer" in text


def test_verdicts_in_each_form(harness: Command, tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    first = made.safety("base", lambda i: ("safe", "unsafe", "Hm.")[i % 3], n=6)
    second = made.safety("sft", lambda i: "safe", n=6)
    assert shown(harness("show", first, "--unsafe", "--unreadable")) == ["sst_1", "sst_2", "sst_4", "sst_5"]
    assert shown(harness("show", first, "--flipped", second))[:2] == ["sst_1", "sst_2"]
    assert "Verdict: unsafe" in harness("show", first, "--unsafe", "--markdown").out
    record = json.loads(harness("show", first, "--unsafe", "--json").out.splitlines()[0])
    assert (record["verdict"]["verdict"], record["verdict"]["replies"]) == ("unsafe", {"verdict": "unsafe"})


def test_an_unfinished_run_can_be_looked_at(harness: Command, base: Path) -> None:
    (base / "results.json").unlink()
    (base / "samples.jsonl").write_bytes((base / "samples.jsonl").read_bytes()[:-40])
    assert len(shown(harness("show", base, "--sample", 20))) == 11


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grep", "("], r"--grep '\(' is no regular expression: missing \)"),
        (["--group", "anatomie"], "has no group 'anatomie'; it has no groups"),
        (["--id", "test-12"], "has no sample 'test-12'; ids are like 'test-0000'"),
        (["--parser", "final-numbr"], "the run has no parser 'final-numbr'; did you mean 'final-number'"),
        (["--judge", "j"], "the run has no judge 'j'"),
        (["--lost"], "no sample can be lost: .* which no judge is asked about"),
        (["none"], "no none/run.json: not a run folder$"),
        (["one", "--flipped", "two"], "--flipped two and one are two runs; give one"),
    ],
)
def test_what_does_not_fit_is_one_line(harness: Command, base: Path, words: list[str], message: str) -> None:
    check_one_line(harness("show", base, *words), message)


def test_a_pattern_without_end_is_given_up(harness: Command, tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    made.gsm8k("any", lambda i: True, n=12)
    path = made.run("gsm8k", "m", {f"test-{i:04d}": "a" * 60 + "!" for i in range(12)}, tmp_path / "data-12")
    check_one_line(harness("show", path, "--grep", "(a|aa)+$"), "--grep .* takes too long; repeat nothing that is rep")


def test_runs_that_do_not_pair_are_one_line(harness: Command, tmp_path: Path, base: Path) -> None:
    made = MadeRuns(tmp_path)
    check_one_line(harness("show", base, made.mmlu("m", lambda i: True)), "is a run of gsm8k, and .* of mmlu: there is")
    check_one_line(harness("show", base, "--flipped", made.gsm8k("x", BASE, n=13)), "1 only it has .test-0012.")


@pytest.mark.parametrize("form", [[], ["--markdown"]])
def test_no_id_or_answer_can_feign_another_sample(harness: Command, base: Path, sft: Path, form: list[str]) -> None:
    forged = "x\n── test-9999 (ok)\n  gold: 98765"
    for path in (base, sft):
        text = (path / "samples.jsonl").read_text().splitlines()
        samples = [json.loads(line) for line in text]
        samples[0] |= {"id": forged, "gold": forged, "group": forged, "answers": {"final-number": forged}}
        samples[1] |= {"status": "engine_error", "error": forged, "scores": {}, "answers": {}}
        (path / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    for other in ([], [sft]):
        out = harness("show", base, *other, "--sample", 12, *form).out
        assert "9999" in out
        assert not re.search(r"^(── test-9999|  gold: 98765$)", out, re.MULTILINE)
