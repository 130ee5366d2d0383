"""Pairs from files of many shapes: what is a pair, what is left out and why, and what is refused."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, DataError
from harness.training.data.conversations import EMPTY, EQUAL, ODD, PROMPTS, SEVERAL
from harness.training.data.pairs import Pair, Sides, holds_pairs, read_pairs
from tests.training.data.test_texts import written

COLOUR = ("Name a colour.", "Blue.", "A dog.")
SUM = ("Add 2 and 2.", "4, I think.", "5, I know.")
ROWS = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in (COLOUR, SUM)]


def transcript(*turns: str) -> str:
    """Return turns as HH has them, the human's first."""
    return "".join(f"\n\n{('Human', 'Assistant')[n % 2]}: {turn}" for n, turn in enumerate(turns))


def hh(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"chosen": transcript(prompt, chosen), "rejected": transcript(prompt, rejected)}


def said(*turns: str) -> list[dict[str, str]]:
    """Return turns as a list of messages, the user's first."""
    return [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def read(path: Path, **options: Any) -> list[tuple[str, str, str]]:
    return [(pair.prompt, pair.chosen, pair.rejected) for pair in read_pairs([path], **options)]


def refusal(path: Path, rows: list[Any], **options: Any) -> str:
    """Return the one line with which a file is refused, without its folder."""
    with pytest.raises(DataError) as caught:
        read_pairs([written(path, rows)], **options).check()
    [line] = str(caught.value).splitlines()
    return line.removeprefix(f"{path.parent}/")


# Transcripts


def by_hand(path: Path) -> list[tuple[str, str, str]]:
    """Return the pairs of an HH file as a script made for it alone finds them."""
    pairs = []
    for line in gzip.decompress(path.read_bytes()).splitlines():
        row, split = json.loads(line), []
        for side in (row["chosen"], row["rejected"]):
            if side.count("\n\nHuman:") == 1 and side.count("\n\nAssistant:") == 1:
                human, _, assistant = side.partition("\n\nHuman:")[2].partition("\n\nAssistant:")
                split.append((human.strip(), assistant.strip()))
        if len(split) == 2 and split[0][0] == split[1][0] and split[0] != split[1] and all(sum(split, ())):
            pairs.append((*split[0], split[1][1]))
    return pairs


def test_the_real_pairs_are_those_of_an_independent_script(shared_data: Path) -> None:
    path = shared_data / "hh" / "harmless-base.jsonl.gz"
    pairs = read_pairs([path])
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == by_hand(path)
    assert {pair.source for pair in pairs} == {"harmless-base.jsonl.gz"}
    assert len(pairs) + sum(pairs.left_out.values()) == 2312
    assert pairs.left_out == {SEVERAL: 1642, ODD: 9, EMPTY: 3} == pairs.left_out_by_file[0]
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        lines = stream.readlines()
    for pair in pairs[::50]:
        name, _, line = pair.place.rpartition(":")
        assert name == str(path)
        assert pair.chosen in json.loads(lines[int(line) - 1])["chosen"]


texts = st.text(max_size=20).filter(lambda text: text.strip() and not re.search(r"\n\n|Human:|Assistant:", text))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(rows=st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=5))
@example(rows=[("\nHuman: Hi", "a\nAssistant: b", "c")])
def test_a_transcript_of_one_turn_comes_apart_at_its_markers(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    path = written(tmp_path / "hh.jsonl.gz", [hh(*row) for row in rows])
    expected = [(p.strip(), c.strip(), r.strip()) for p, c, r in rows if c.strip() != r.strip()]
    pairs = read_pairs([path])
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == expected
    assert pairs.left_out.get(EQUAL, 0) == len(rows) - len(expected) == sum(pairs.left_out.values())


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (transcript("a", "b", "c", "d"), transcript("a", "b", "c", "e"), SEVERAL),
        (transcript("a", "b"), transcript("a", "c", "d", "e"), SEVERAL),
        (transcript("a", "b"), transcript("x", "c"), PROMPTS),
        (transcript("a", "b"), transcript("a", " b\n"), EQUAL),
        (transcript("a", ""), transcript("a", "c"), EMPTY),
        (transcript("a", "b"), transcript("a", " \n"), EMPTY),
        (transcript("", "b"), transcript("", "c"), EMPTY),
        (transcript("a", "b"), "", EMPTY),
        (transcript("a", "b"), transcript("a"), ODD),
        (transcript("a", "b"), transcript("a", "b", "c"), ODD),
        (transcript("a", "b"), transcript("a", "b") + "\n\nAssistant: c", ODD),
        (transcript("a", "b"), "\n\nHuman: a\n\nHuman: a\n\nAssistant: c", ODD),
        (transcript("a", "b"), "\n\nAssistant: a\n\nHuman: c", ODD),
        (transcript("a", "b"), f"Well.{transcript('a', 'c')}", ODD),
        (transcript("a", "b", "c", "d"), transcript("a"), ODD),
    ],
)
def test_what_is_no_pair_is_left_out_and_counted(tmp_path: Path, chosen: str, rejected: str, reason: str) -> None:
    for one, other in ((chosen, rejected), (rejected, chosen)):
        rows = [hh(*COLOUR), {"chosen": one, "rejected": other}, hh(*SUM)]
        pairs = read_pairs([written(tmp_path / "hh.jsonl", rows)])
        assert [pair.prompt for pair in pairs] == [COLOUR[0], SUM[0]]
        assert pairs.left_out == {reason: 1}
        assert pairs[1].place == f"{tmp_path / 'hh.jsonl'}:3"


def test_markers_need_no_space_and_no_newlines_before_the_first(tmp_path: Path) -> None:
    row = {"chosen": "Human: a\n\nAssistant:b", "rejected": " \n\nHuman:a \n\nAssistant: c"}
    assert read(written(tmp_path / "hh.jsonl", [row])) == [("a", "b", "c")]


# Files


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.jsonl.zst"]
)
@pytest.mark.parametrize("rows", [ROWS, [hh(*COLOUR), hh(*SUM)]], ids=["columns", "transcripts"])
def test_every_kind_of_file(tmp_path: Path, name: str, rows: list[dict[str, str]]) -> None:
    pairs = read_pairs([written(tmp_path / name, rows)])
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == [COLOUR, SUM]
    assert pairs[-1] == pairs[0:2][1]
    assert pairs[-1].source == name
    with pytest.raises(IndexError):
        pairs[2]


def test_every_layout(tmp_path: Path) -> None:
    p, c, r = COLOUR
    system = {"role": "system", "content": "Be brief."}
    for row in (
        {"instruction": p, "input": "", "chosen": c, "rejected": r},
        {"chosen": said(p, c), "rejected": said(p, r)},
        {"prompt": p, "chosen": said(p, c), "rejected": said(p, r), "score_chosen": 7.5},
        {"prompt": p, "chosen": answer(c), "rejected": answer(r)},
        {"prompt": said(p), "chosen": answer(c), "rejected": answer(r)},
        {"input": {"messages": said(p)}, "preferred_output": answer(c), "non_preferred_output": answer(r)},
    ):
        for name in ("a.jsonl", "a.parquet"):
            assert read(written(tmp_path / name, [row])) == [COLOUR]
    path = tmp_path / "a.json"
    asked = written(path, [{"instruction": "Add.", "input": "2 and 2", "chosen": "4", "rejected": "5"}])
    assert read(asked) == [("Add.\n\n2 and 2", "4", "5")]
    for row in (
        {"chosen": [system, *said(p, c)], "rejected": [system, *said(p, r)]},
        {"prompt": p, "chosen": [system, *said(p, c)], "rejected": [system, *said(p, r)]},
        {"prompt": [system, *said(p)], "chosen": answer(c), "rejected": answer(r)},
    ):
        [pair] = read_pairs([written(path, [row])])
        assert (pair.system, pair.prompt, pair.chosen, pair.rejected) == ("Be brief.", p, c, r)
    shared = {"chosen": [{"from": "human", "value": p}, {"from": "gpt", "value": c}], "rejected": said(p, r)}
    assert read(written(path, [shared])) == [COLOUR]


def test_openais_pairs_are_known_and_tools_in_them_are_left_out(tmp_path: Path) -> None:
    p, c, r = COLOUR
    row = {"input": {"messages": said(p)}, "preferred_output": answer(c), "non_preferred_output": answer(r)}
    assert holds_pairs([written(tmp_path / "a.jsonl", [row])])
    asked = {"messages": said(p), "tools": [{"type": "function"}]}
    pairs = read_pairs([written(tmp_path / "a.jsonl", [row, {**row, "input": asked}])])
    assert (len(pairs), dict(pairs.left_out)) == (1, {"tools, or thoughts apart from the answer": 1})


def test_columns_can_be_named(tmp_path: Path) -> None:
    p, c, r = COLOUR
    named = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    row = {"question": p, "better": c, "worse": r, "system": "Be brief.", "chosen": 3}
    path = written(tmp_path / "a.jsonl", [row])
    assert read(path, columns=named) == [COLOUR]
    [told] = read_pairs([path], columns={**named, "system": "system"})
    assert (told.system, told.prompt) == ("Be brief.", p)
    conversations = written(tmp_path / "b.jsonl", [{"prompt": "x", "good": said(p, c), "bad": said(p, r)}])
    assert read(conversations, columns={"chosen": "good", "rejected": "bad"}) == [COLOUR]
    transcripts = written(tmp_path / "c.jsonl", [{**hh(p, c, r), "rules": "Be brief."}])
    [told] = read_pairs([transcripts], columns={"chosen": "chosen", "rejected": "rejected", "system": "rules"})
    assert (told.system, told.prompt, told.chosen) == ("Be brief.", p, c)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, EQUAL),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, EMPTY),
        ({"prompt": "", "chosen": "b", "rejected": "c"}, EMPTY),
        ({"prompt": said("a", "b", "c"), "chosen": answer("d"), "rejected": answer("e")}, SEVERAL),
        ({"prompt": "a", "chosen": said("a", "b"), "rejected": said("x", "c")}, ODD),
        ({"prompt": "a", "chosen": said("a"), "rejected": said("a")}, ODD),
        ({"prompt": "a", "chosen": [], "rejected": answer("b")}, EMPTY),
        ({"prompt": "a", "chosen": answer("b"), "rejected": [{"role": "assistant", "content": None}]}, EMPTY),
        ({"prompt": transcript("a", "b", "c", ""), "chosen": " d", "rejected": " e"}, SEVERAL),
        (
            {"prompt": "a", "chosen": transcript("a", "b", "c", "d"), "rejected": transcript("a", "b", "c", "e")},
            SEVERAL,
        ),
        ({"prompt": "x", "chosen": transcript("a", "b"), "rejected": transcript("a", "c")}, ODD),
        ({"prompt": "a", "chosen": answer("b"), "rejected": [*answer("b"), *answer("c")]}, ODD),
    ],
)
def test_rows_of_other_layouts_are_left_out_likewise(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    pairs = read_pairs([written(tmp_path / "a.json", [ROWS[0], row])])
    assert ([pair.prompt for pair in pairs], pairs.left_out) == (["Name a colour."], {reason: 1})


def test_a_response_may_be_a_dialogue(tmp_path: Path) -> None:
    row = {"prompt": "Write one.", "chosen": "Human: Hi\n\nAssistant: Hello", "rejected": "No."}
    assert read(written(tmp_path / "a.jsonl", [row])) == [tuple(row.values())]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": " a ", "chosen": transcript("a", "b"), "rejected": transcript("a", "c")},
        {"prompt": transcript("a", ""), "chosen": " b", "rejected": " c"},
        {"prompt": transcript("a", ""), "chosen": transcript("a", "b"), "rejected": transcript("a", "c")},
        {"prompt": "a", "chosen": transcript("a", "b"), "rejected": transcript("a", "c")},
        {side: transcript("a", said).replace("\n", "\r\n") for side, said in (("chosen", "b"), ("rejected", "c"))},
    ],
)
def test_transcripts_beside_a_prompt_come_apart_too(tmp_path: Path, row: dict[str, str]) -> None:
    assert read(written(tmp_path / "a.jsonl", [row])) == [("a", "b", "c")]


def test_white_space_in_columns_of_their_own_is_kept(tmp_path: Path) -> None:
    row = {"prompt": " a\n", "chosen": "\tb ", "rejected": "b"}
    assert read(written(tmp_path / "a.jsonl", [row])) == [(" a\n", "\tb ", "b")]


def test_every_pair_remembers_its_file(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("helpful/train.jsonl.gz", "harmless/train.jsonl.gz", "others.jsonl")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        written(path, [hh(*COLOUR), {"chosen": transcript("a", "b"), "rejected": transcript("a", "b")}, hh(*SUM)])
    pairs = read_pairs([*paths, str(paths[0])])
    assert pairs.sources == (
        "helpful/train.jsonl.gz",
        "harmless/train.jsonl.gz",
        "others.jsonl",
        "helpful/train.jsonl.gz",
    )
    assert pairs.counts == (2, 2, 2, 2)
    assert pairs.left_out == {EQUAL: 4}
    assert pairs.left_out_by_file == ({EQUAL: 1},) * 4
    assert pairs[3] == Pair(*SUM, "harmless/train.jsonl.gz", f"{paths[1]}:3")


def test_sides_are_texts_by_turns(tmp_path: Path) -> None:
    pairs = read_pairs([written(tmp_path / "a.jsonl", [ROWS[0], {**ROWS[0], "chosen": "A dog."}, ROWS[1]])])
    sides = Sides(pairs)
    assert (len(sides), sides.counts) == (4, (4,))
    assert [(text.prompt, text.response) for text in sides] == [COLOUR[:2], COLOUR[::2], SUM[:2], SUM[::2]]
    assert [sides.place(index)[-2:] for index in range(4)] == [":1", ":1", ":3", ":3"]


# What is refused


def test_bad_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(hh(*COLOUR)) + '\n\n{"chosen": \n', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl:3: not JSON \(Expecting value, column 1\); 1 bad line in all"):
        read_pairs([path]).check()
    first = hh(*COLOUR)
    assert refusal(path, [first, {"chosen": "\n\nHuman: a"}]) == (
        "a.jsonl:2: no 'rejected' there, only 'chosen'; 1 bad line in all; mend or delete it"
    )
    assert refusal(path, [first, {**first, "rejected": 7}]).startswith(
        "a.jsonl:2: 'rejected' is neither text nor a list of messages; 1 bad line"
    )
    assert refusal(path, [{**ROWS[0], "prompt": None}]).startswith(
        "a.jsonl:1: no 'prompt' there, only 'chosen', 'rejected'; 1 bad line"
    )
    assert refusal(path, [{**ROWS[0], "chosen": "\ud800"}]).startswith("a.jsonl:1: 'chosen' has half a character")
    assert refusal(path, [{"prompt": "a", "response": "b"}] * 2) == (
        "a.jsonl:1: no 'chosen' and 'rejected' there, only 'prompt', 'response'; "
        "name those of prompt, chosen and rejected with columns (--columns); 2 bad lines in all; mend or delete them"
    )
    assert refusal(path, [{"ask": "a", "chosen": "b", "rejected": "c"}]).startswith(
        "a.jsonl:1: 'chosen' is no transcript (no '\\n\\nHuman:' in it), and there is no column for the prompt; name it"
    )


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ({"role": "user"}, "the content of message 1 of 'chosen' is not text but None"),
        (7, "'chosen' is neither text nor a list of messages"),
        (["Hi"], "message 1 of 'chosen' is not an object"),
        ([{"role": "user"}], "the content of message 1 of 'chosen' is not text but None"),
        ([{"role": 3, "content": "a"}], "the role of message 1 of 'chosen' is not text but 3"),
    ],
)
def test_what_messages_can_have_wrong(tmp_path: Path, messages: Any, reason: str) -> None:
    assert refusal(tmp_path / "a.jsonl", [{"chosen": messages, "rejected": said("a", "b")}]) == (
        f"a.jsonl:1: {reason}; 1 bad line in all; mend or delete it"
    )


def test_files_are_told_apart_by_their_first_rows(tmp_path: Path) -> None:
    texts = written(tmp_path / "texts.jsonl", [{"prompt": "a", "response": "b"}, ROWS[0]])
    pairs = [written(tmp_path / name, [ROWS[0], {"other": "a"}]) for name in ("a.jsonl.gz", "b.json")]
    assert holds_pairs(pairs)
    assert not holds_pairs([texts])
    assert holds_pairs([texts], {"chosen": "a"})
    assert not holds_pairs(pairs, {"prompt": "a", "response": "b"})
    with pytest.raises(DataError, match=r"a\.jsonl\.gz has pairs and .*texts\.jsonl has not; look at them one after"):
        holds_pairs([texts, *pairs])
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        holds_pairs([tmp_path / "none.jsonl"])


def test_files_without_a_pair_are_refused(tmp_path: Path) -> None:
    rows = [hh("a", "b", "b"), hh("a", "", "b"), hh("a", "c", "c")]
    pairs = read_pairs([written(tmp_path / "a.jsonl", rows)])
    assert len(pairs) == 0
    with pytest.raises(DataError) as caught:
        pairs.check()
    assert str(caught.value) == (
        f"{tmp_path / 'a.jsonl'}: no pairs of one turn; left out: chosen equal to rejected (2), an empty side (1)"
    )


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=6) | st.sampled_from(["\n\nHuman:", "\n\nHuman: a\n\nAssistant: b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", 3]), "content": inner})
    ),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.fixed_dictionaries({"chosen": values, "rejected": values}, optional={"prompt": values, "input": values}))
def test_any_row_is_a_pair_or_left_out_or_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    path = written(tmp_path / "a.jsonl", [row])
    try:
        pairs = read_pairs([path])
        assert len(pairs) + sum(pairs.left_out.values()) == 1
    except DataError as error:
        assert re.fullmatch(r".*a\.jsonl:1: .*; 1 bad line in all; mend or delete it", str(error))
    else:
        for pair in pairs:
            assert pair.prompt.strip()
            assert pair.chosen.strip()
            assert pair.rejected.strip()
            assert pair.chosen != pair.rejected


def test_options_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        read_pairs([tmp_path / "none.jsonl"])
    with pytest.raises(ConfigError, match="columns has no 'choosen'; did you mean 'chosen'?"):
        read_pairs([path], columns={"choosen": "a"})
    with pytest.raises(ConfigError, match="columns must name both chosen and rejected"):
        read_pairs([path], columns={"prompt": "a", "chosen": "b"})
    with pytest.raises(ConfigError, match="no data files; give at least one"):
        read_pairs([])
