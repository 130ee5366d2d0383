"""`harness data look`: documents as text and as tokens, the loss mask, and what there is of them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.cli.data import look
from harness.models import find_model
from harness.prompts import find_format
from harness.testing.tiny import make_tiny_model
from tests.conftest import Command

ROWS: list[dict[str, Any]] = [
    {"prompt": "Name a colour.", "response": "Blue.", "fail_mode": "none"},
    {"prompt": "Name a colour.", "response": "Red 🙂.", "fail_mode": "late"},
    {"prompt": "Name a colour.", "response": "Red 🙂.", "fail_mode": "late"},
    {"prompt": "Wipe\x1b[2Jme.", "response": ""},
    {"prompt": "Tell me of <|pad|>.", "response": "It rains. " * 100},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def facts(out: str) -> dict[str, str]:
    return dict(re.findall(r"^(\S.*?) {2,}(.*)$", out[out.index("prompt format ") :], re.MULTILINE))


def test_examples_are_shown_as_text_and_as_tokens_with_the_mask(harness: Command, data: Path, model: Path) -> None:
    done = harness("data", "look", data, "-m", model, "--sample", 5)
    assert (done.code, done.err) == (
        0,
        "warning: --seq-length 2,048 is above the 1,024 tokens that the model can attend to\n",
    )
    shown = done.out.split("── ")[1:]
    assert [one.split(" ")[0] for one in shown] == [f"{data}:{n}" for n in range(1, 6)]
    assert "fail_mode late" in shown[1]
    assert "  prompt\n  │ Name a colour.\n  response\n  │ Red 🙂.\n" in shown[1]
    tokens = shown[1].partition("tokens, learned between ⟦ and ⟧\n")[2].split("\n\n")[0]
    text = tokens.replace("  │ ", "").replace("|", "").replace("⏎\n", "\n")
    assert text.startswith("<begin_of_text>Below is an instruction")
    assert text.endswith("### Response:\n⟦Red 🙂.<end_of_text>⟧")
    assert "Wipe\\x1b[2Jme." in shown[3]
    assert "\x1b" not in done.out
    assert re.search(r"\n  │ … [\d,]+ tokens …\n", shown[4])


def test_the_whole_is_summed_up(harness: Command, data: Path, model: Path) -> None:
    done = harness("data", "look", data, "-m", model, "--sample", 0, "--seq-length", 256)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("prompt format alpaca_sft (the default for training a base model)\n")
    found = facts(done.out)
    assert found["file"] == f"{data}: 5 texts from prompt/response"
    assert found["longer than 256"].startswith("1 (20.0%); cutting them off there would lose ")
    assert found["packed by document, 256"].endswith(" filled, 1 (20.0%) documents split")
    assert found["duplicates"] == "1 (20.0%) of a whole document, 2 (40.0%) of a prompt"
    assert found["without an end token"] == "0"
    assert found["empty responses"] == "1 (20.0%)"
    assert found["encoded apart"].startswith("0 ")
    assert found["special tokens spelled out"] == "1 (20.0%) (read as ordinary characters)"
    assert re.search(r"fail_mode +documents\nlate +2 \(40\.0%\)\nnone +1 \(20\.0%\)", done.out)


def test_the_same_seed_draws_the_same_examples(harness: Command, data: Path, model: Path) -> None:
    drawn = [
        re.findall(r"^── \S+:(\d)", harness("data", "look", data, "-m", model, "--sample", 2, "--seed", seed).out, re.M)
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(one) == 2 for one in drawn)


def test_a_terminal_gets_colours_in_place_of_markers(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for plain in ("", "1"):
        monkeypatch.setenv("NO_COLOR", plain)
        look.main([str(data), "-m", str(model), "--sample", "1", "--loss", "all"], standalone_mode=False)
        out = capsys.readouterr().out
        assert ("⟦" in out) is bool(plain)
        assert ("\x1b[32m" in out) is not bool(plain)


def test_loss_on_everything_masks_the_first_token_alone(harness: Command, data: Path, model: Path) -> None:
    out = harness("data", "look", data, "-m", model, "--sample", 1, "--loss", "all").out
    assert "<|begin_of_text|>⟦B" in out


def test_named_columns_and_other_formats(harness: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nWhy?,Because.\n")
    named = ("--columns", "prompt=question,response=answer", "--prompt-format", "plain")
    done = harness("data", "look", path, "-m", model, "--seq-length", 64, *named)
    assert done.code == 0
    assert "prompt format plain (as given)" in done.out
    assert "<|begin_of_text|>|W" in done.out


TEMPLATES = {
    "default": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ mood or 'calm' }} ",
    "short": "{% for m in messages %}{{ m.content }}\n{% endfor %}> ",
}


def test_what_is_said_of_prompts_is_shown_as_it_is_trained_and_measured(
    harness: Command, data: Path, tmp_path: Path
) -> None:
    model = make_tiny_model(tmp_path / "chat")
    tokenizer = find_model(str(model)).tokenizer
    tokenizer.chat_template = {name: placed(text) for name, text in TEMPLATES.items()}
    tokenizer.save_pretrained(model)
    words = ["data", "look", data, "-m", model, "--sample", 5, "--seq-length", 256]
    shown = harness(*words, "--system", "Be kind.", "--set", "chat_template.mood=gay")
    assert shown.code == 0, shown.err
    assert "system: Be kind.\nuser: Name a colour.\ngay ⟦Blue." in rendered(shown.out)
    assert "Name a colour.\n> ⟦Blue." in rendered(harness(*words, "--template", "short").out)
    refused = harness(*words, "--set", "seq_length=3")
    assert refused.code == 2 and "only arguments of the chat template are set here" in refused.err
    measured = ["loss", data, "-m", model, "--device", "cpu", "--on-bad-rows", "skip"]
    losses = [
        harness(*measured),
        harness(*measured, "--set", "chat_template.mood=gay"),
        harness(*measured, "--system", "s"),
    ]
    assert {each.code for each in losses} == {0} and len({each.out for each in losses}) == 3


def rendered(out: str) -> str:
    return out.replace("  │ ", "").replace("|", "").replace("⏎\n", "\n")


def placed(before: str) -> str:
    """Return a template that writes an answer behind what it writes before one."""
    head, loop, tail = before.partition("{% for m in messages %}")
    said, end, asking = tail.partition("{% endfor %}")
    return (
        f"{head}{loop}{{% if m.role == 'assistant' %}}{asking}{{{{ m.content }}}}{{% else %}}{said}{{% endif %}}{end}"
        + ("{% if add_generation_prompt %}" + asking + "{% endif %}")
    )


def test_annotated_rows_of_a_csv_are_counted_by_how_they_fail(harness: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "annotated.csv"
    rows = [("1", "Name a colour.", "Blue, I\nthink.", "none"), ("2", 'Say "no".', "Yes, sir.", "late, wrong")]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([("id", "instruction", "output", "fail_mode"), *rows, ("3", "Why?", "Because.", "none")])
    done = harness("data", "look", path, "-m", model, "--seq-length", 256)
    assert (done.code, done.err) == (0, "")
    assert '; fail_mode late, wrong)\n  prompt\n  │ Say "no".\n  response\n  │ Yes, sir.\n' in done.out
    assert re.search(r"fail_mode +documents\nnone +2 \(66\.7%\)\nlate, wrong +1 \(33\.3%\)\n", done.out)


# Pairs


def hh(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {
        name: f"\n\nHuman: {prompt}\n\nAssistant: {response}"
        for name, response in (("chosen", chosen), ("rejected", rejected))
    }


@pytest.fixture
def pairs(tmp_path: Path) -> list[Path]:
    """Two files of pairs: transcripts, of which two are none, and rows with a prompt."""
    transcripts = [
        hh("Name a colour.", "Blue it is.", "A dog."),
        hh("Name a colour.", "Blue it is.", "A dog."),
        hh("Name a colour.\n\nAssistant: Which?\n\nHuman: Any.", "Blue.", "A dog."),
        hh("Say yes.", "Yes.", "Yes."),
        hh("Wipe\x1b[2Jme.", "No\u202e.", "Well. " * 40),
    ]
    rows = [{"prompt": f"Add {n} and 1.", "chosen": f"It is {n + 1}.", "rejected": "<|pad|>"} for n in range(4)]
    files = [tmp_path / "harmless.jsonl", tmp_path / "sums.jsonl"]
    for path, content in zip(files, (transcripts, rows), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return files


def test_pairs_are_shown_one_below_the_other(harness: Command, pairs: list[Path], model: Path) -> None:
    done = harness("data", "look", *pairs, "-m", model, "--sample", 9, "--seq-length", 200)
    assert (done.code, done.err) == (0, "")
    shown = done.out.split("── ")[1:]
    places = [f"{pairs[0]}:{n}" for n in (1, 2, 5)] + [f"{pairs[1]}:{n}" for n in (1, 2, 3, 4)]
    assert [one.split(" ")[0] for one in shown] == places
    assert re.search(
        r"\(prompt \d+ tokens, with the prompt format's\)\n  prompt\n  │ Name a colour\.\n"
        r"  chosen, \d+ tokens\n  │ Blue it is\.\n  rejected, \d+ tokens\n  │ A dog\.\n",
        shown[0],
    )
    assert "Wipe\\x1b[2Jme." in shown[2]
    assert "No\\u202e." in shown[2]
    assert "\x1b" not in done.out


def test_pairs_are_summed_up_by_source(harness: Command, pairs: list[Path], model: Path) -> None:
    out = harness("data", "look", *pairs, "-m", model, "--sample", 0, "--seq-length", 200).out
    assert out.startswith("prompt format alpaca_sft (the default for training a base model)\nsource ")
    lines = [re.split(r" {2,}", line) for line in out.splitlines()]
    assert [line[:4] for line in lines[1:5]] == [
        ["source", "pairs", "left out", "chosen is longer"],
        ["harmless.jsonl", "3", "2 (40.0%)", "2 (66.7%)"],
        ["sums.jsonl", "4", "0", "0"],
        ["all", "7", "2 (22.2%)", "2 (28.6%)"],
    ]
    assert [line[:3] for line in lines[6:9]] == [
        ["source", "left out", "rows"],
        ["harmless.jsonl", "several turns", "1"],
        ["harmless.jsonl", "chosen equal to rejected", "1"],
    ]
    found = facts(out)
    assert found["longer than 200"] == "1 (14.3%)"
    assert found["duplicates"] == "1 (14.3%) of a whole pair, 1 (14.3%) of a prompt"
    assert found["encoded apart"].startswith("0 ")
    assert found["special tokens spelled out"] == "4 (57.1%) (read as ordinary characters)"


def test_token_lengths_are_those_of_training(harness: Command, pairs: list[Path], model: Path) -> None:
    out = harness("data", "look", pairs[0], "-m", model, "--sample", 3).out
    tokenizer = find_model(str(model)).tokenizer
    alpaca = find_format("alpaca_sft")
    documents = [alpaca.document("Name a colour.", response, tokenizer) for response in ("Blue it is.", "A dog.")]
    prompt = documents[0].prompt_tokens
    chosen, rejected = (len(document.token_ids) - prompt for document in documents)
    assert f":1 (prompt {prompt} tokens, with the prompt format's)" in out
    assert f"chosen, {chosen} tokens\n" in out
    assert f"rejected, {rejected} tokens\n" in out


def test_as_many_pairs_are_drawn_from_each_file(harness: Command, pairs: list[Path], model: Path) -> None:
    expected = {2: ["harmless", "sums"], 5: ["harmless"] * 3 + ["sums"] * 2, 6: ["harmless"] * 3 + ["sums"] * 3}
    for count, files in expected.items():
        out = harness("data", "look", *pairs, "-m", model, "--sample", count).out
        assert re.findall(r"^── \S+/(\w+)\.jsonl:\d", out, re.M) == files


def test_a_wide_terminal_shows_pairs_side_by_side(
    pairs: list[Path], model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    command = [str(pairs[0]), "-m", str(model), "--sample", "3"]
    for columns, beside in (("60", False), ("120", True)):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("NO_COLOR", "1")
        look.main(command, standalone_mode=False)
        plain = capsys.readouterr().out
        assert bool(re.search(r"^  Blue it is\. {20,}A dog\.$", plain, re.M)) is beside
        assert "\x1b" not in plain
    assert re.search(r"^  chosen, \d+ tokens {20,}rejected, \d+ tokens$", plain, re.M)
    monkeypatch.setenv("NO_COLOR", "")
    look.main(command, standalone_mode=False)
    coloured = capsys.readouterr().out
    assert "\x1b[32mchosen, " in coloured
    assert "\x1b[31mrejected, " in coloured
    assert re.sub(r" +$", "", re.sub(r"\x1b\[\d+m", "", coloured), flags=re.M) == plain


def test_columns_of_pairs_can_be_named(harness: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,better,worse\nWhy?,Because.,No.\n")
    done = harness("data", "look", path, "-m", model, "--columns", "prompt=question,chosen=better,rejected=worse")
    assert "  prompt\n  │ Why?\n  chosen, " in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["HARMLESS", "--loss", "all"], "harness: --loss all is for texts; of pairs the responses are compared\n"),
        (["HARMLESS", "DATA"], "harmless.jsonl has pairs and "),
        (["NONE"], "none.jsonl: no pairs of one turn; left out: chosen equal to rejected (2), an empty side (1)\n"),
        (["HARMLESS", "--columns", "chosen=chosen"], "harness: columns must name both chosen and rejected\n"),
    ],
)
def test_bad_pairs_are_one_line(
    harness: Command, pairs: list[Path], data: Path, model: Path, words: list[str], message: str
) -> None:
    none = data.with_name("none.jsonl")
    rows = [hh("a", "b", "b"), hh("a", "", "b"), hh("a", "c", "c")]
    none.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    paths = {"HARMLESS": str(pairs[0]), "DATA": str(data), "NONE": str(none)}
    done = harness("data", "look", *[paths.get(word, word) for word in words], "-m", model)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_the_real_pairs_can_be_looked_at(harness: Command, model: Path, shared_data: Path) -> None:
    done = harness("data", "look", shared_data / "hh" / "harmless-base.jsonl.gz", "-m", model, "--seq-length", 1024)
    assert done.code == 0
    assert re.search(r"^harmless-base\.jsonl\.gz +658 +1,654 \(71\.5%\) ", done.out, re.M)
    assert done.out.count("── ") == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.jsonl"], "harness: none.jsonl: no such file\n"),
        (
            ["DATA", "--columns", "prompt"],
            "harness: --columns 'prompt' must look like prompt=question,response=answer\n",
        ),
        (
            ["DATA", "--columns", "prompt=q,response=r"],
            ":1: no 'q' there, only 'prompt', 'response', 'fail_mode'; 5 bad",
        ),
        (["DATA", "--prompt-format", "alpaca_sf"], "unknown prompt format 'alpaca_sf'; did you mean 'alpaca_sft'?\n"),
        (["DATA", "--prompt-format", "chat"], "the model's tokenizer has no chat template; choose another"),
    ],
)
def test_bad_input_is_one_line(harness: Command, data: Path, model: Path, words: list[str], message: str) -> None:
    done = harness("data", "look", *[str(data) if word == "DATA" else word for word in words], "-m", model)
    assert done.code == 2
    assert message in done.err
    assert done.out == ""
    assert len(done.err.splitlines()) == 1


def test_the_real_files_can_be_looked_at(harness: Command, model: Path, shared_data: Path) -> None:
    folder = shared_data / "sft"
    done = harness(
        "data", "look", folder / "safety_only.json", folder / "sft_sample.jsonl", "-m", model, "--seq-length", 512
    )
    assert done.code == 0
    found = facts(done.out)
    assert found["empty responses"] == found["without an end token"] == "0"
    assert done.out.count("── ") == 10


def test_texts_that_hold_a_benchmarks_items_are_counted(
    harness: Command, model: Path, gsm8k_data: Path, tmp_path: Path
) -> None:
    """Whatever case and marks stand in them; twelve words in a row are none, nor are what all items share."""
    question = "A crate holds 1,000 nails. How many nails are in 2 crates?"  # thirteen words: 1,000 is two
    rows = [
        {"prompt": f"Solve this: {question.upper()}", "response": "2,000"},
        {"prompt": "A crate holds 1,000 nails. How many nails are in 2 boxes?", "response": "2,000"},
        {"prompt": "Name a colour.", "response": f"Blue! ({question})"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    more = ("-m", model, "--sample", 0, "--seq-length", 256, "--against", "gsm8k", "--data", gsm8k_data)
    done = harness("data", "look", path, *more)
    assert done.code == 0, done.err
    lines = done.out.rstrip().splitlines()[-3:]
    assert lines[0].startswith("against gsm8k: 2 of 3 texts share 13 words in a row with 1 of ")
    assert lines[1] == f'  {path}:1 and test-0001: "a crate holds 1 000 nails how many nails are in 2 crates"'
    assert lines[2].startswith(f"  {path}:3 and test-0001: ")
    pair = {"prompt": question, "chosen": "2,000", "rejected": "3"}
    path.write_text(json.dumps(pair) + "\n", encoding="utf-8")
    assert "against gsm8k: 1 of 1 texts" in harness("data", "look", path, *more).out
