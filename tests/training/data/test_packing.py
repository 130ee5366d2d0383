"""Packing: nothing lost, doubled or out of order, and the assignment's data set to the letter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, DataError
from harness.models import find_model
from harness.prompts import find_format
from harness.testing.tiny import make_tiny_model
from harness.training.batch import microbatches, step_rows, steps_in_epoch
from harness.training.data.packing import (
    IGNORE,
    DocumentRows,
    Loss,
    PackedDataset,
    PackedRows,
    StreamRows,
    best_fit,
    iterate_batches,
)
from harness.training.data.tokens import Tokens, permutation, stable_order

END = 1
PAIRS = [
    {"prompt": "Name a colour.", "response": "Blue, for example."},
    {"prompt": "Is it raining?", "response": "\nI cannot see outside.\n"},
    {"prompt": "Count to five.", "response": "One, two, three, four, five."},
    {"prompt": "Sort b, a.", "response": "a, b"},
    {"prompt": "Say ünïcödé 🙂.", "response": "ünïcödé 🙂"},
    {"prompt": "Explain rain.", "response": "Water rises, cools and falls. " * 12},
]


def tokens_of(documents: Sequence[Sequence[int]], prompts: Sequence[int] | None = None) -> Tokens:
    ids = np.array([i for document in documents for i in document], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(document) for document in documents])]).astype(np.int64)
    lengths = np.array([1] * len(documents) if prompts is None else prompts, np.int32)
    return Tokens(ids, offsets, lengths, ("made",), (len(documents),), 0, 0, END)


@st.composite
def packed_input(draw: st.DrawFn) -> tuple[Tokens, int]:
    """Documents in which no two tokens are equal, so that each can be traced, and a width."""
    lengths = draw(st.lists(st.integers(2, 40), min_size=1, max_size=30))
    prompts = [draw(st.integers(0, length - 1)) for length in lengths]
    ends = np.cumsum(lengths) + 10
    documents = [range(end - length, end) for end, length in zip(ends.tolist(), lengths, strict=True)]
    return tokens_of(documents, prompts), draw(st.integers(1, 50))


def arrays(rows: PackedRows) -> tuple[Any, Any, Any]:
    batch = rows.batch(range(len(rows)))
    return batch.input_ids.numpy(), batch.labels.numpy(), batch.position_ids.numpy()


# Best fit


def one_by_one(lengths: Sequence[int], width: int) -> list[int]:
    """Return the room left in each row by best-fit decreasing as it is written in books."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row, room in enumerate(rooms) if room >= length]
        if not fitting:
            rooms.append(width)
            fitting = [len(rooms) - 1]
        rooms[min(fitting, key=lambda row: rooms[row])] -= length
    return rooms


def fewest(lengths: Sequence[int], width: int) -> int:
    """Return the least number of rows possible, by trying everything."""
    best = len(lengths)

    def place(rest: tuple[int, ...], rooms: tuple[int, ...]) -> None:
        nonlocal best
        if len(rooms) >= best:
            return
        if not rest:
            best = len(rooms)
            return
        for row in range(len(rooms)):
            if rooms[row] >= rest[0] and rooms[row] not in rooms[:row]:
                place(rest[1:], (*rooms[:row], rooms[row] - rest[0], *rooms[row + 1 :]))
        place(rest[1:], (*rooms, width - rest[0]))

    place(tuple(sorted(lengths, reverse=True)), ())
    return best


lengths_and_width = st.integers(1, 60).flatmap(
    lambda width: st.tuples(st.lists(st.integers(1, width), max_size=80), st.just(width))
)


@given(given=lengths_and_width)
@example(given=([6, 4, 3, 3, 2, 2], 10))
@example(given=([1] * 50, 7))
def test_rows_are_those_of_best_fit_decreasing(given: tuple[list[int], int]) -> None:
    lengths, width = given
    rows = best_fit(np.array(lengths, np.int64), width)
    used = np.bincount(rows, weights=lengths).astype(int).tolist() if lengths else []
    assert len(rows) == len(lengths)
    assert Counter(width - n for n in used) == Counter(one_by_one(lengths, width))


@settings(max_examples=60)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=9))
def test_the_fill_keeps_the_proven_bound(lengths: list[int]) -> None:
    rows = best_fit(np.array(lengths), 20)
    assert rows.max() + 1 <= (11 * fewest(lengths, 20) + 6) / 9


def test_a_length_that_fits_no_row_is_refused() -> None:
    for lengths in ([11], [0], [5, -1]):
        with pytest.raises(ValueError, match="lengths must lie between 1 and 10"):
            best_fit(np.array(lengths), 10)


# Rows of a stream


@settings(deadline=None)  # the first example imports torch
@given(given=packed_input(), seed=st.none() | st.integers(0, 5))
def test_a_stream_is_cut_without_loss(given: tuple[Tokens, int], seed: int | None) -> None:
    tokens, width = given
    order = np.arange(len(tokens)) if seed is None else permutation(len(tokens), seed)
    stream = [i for document in order for i in tokens.document(document).tolist()]
    rows = StreamRows(tokens, width, documents=None if seed is None else order)
    assert len(rows) == (len(stream) - 1) // width
    inputs, labels, positions = arrays(rows)
    kept = len(rows) * width
    assert inputs.ravel().tolist() == stream[:kept]
    assert labels.ravel().tolist() == stream[1 : kept + 1] if kept else not labels.size
    assert (positions == np.arange(width)).all()
    assert rows.report.lost_tokens == (len(stream) - kept - 1 if kept else len(stream))
    assert rows.report.fill == (1 if kept else 0)


@settings(deadline=None)
@given(given=packed_input())
def test_in_a_stream_only_responses_are_learned(given: tuple[Tokens, int]) -> None:
    tokens, width = given
    rows = StreamRows(tokens, width, loss="responses")
    learned = {i for d in range(len(tokens)) for i in tokens.document(d).tolist()[tokens.prompts[d] :]}
    _, every, _ = arrays(StreamRows(tokens, width))
    _, labels, _ = arrays(rows)
    assert labels.tolist() == [[i if i in learned else IGNORE for i in row] for row in every.tolist()]
    assert rows.weights.tolist() == (labels != IGNORE).sum(axis=1).tolist()
    assert rows.tokens.tolist() == [width] * len(rows)


def test_a_document_behind_the_last_row_is_cut_too() -> None:
    """Of 8 tokens a row of 4 takes the first document whole and none of the second's labels."""
    rows = StreamRows(tokens_of([range(10, 15), range(15, 18)]), 4)
    assert (len(rows), rows.report.cut, rows.report.lost_tokens) == (1, 1, 3)


def test_the_handouts_example() -> None:
    rows = StreamRows(tokens_of([range(11)]), 4)
    inputs, labels, _ = arrays(rows)
    assert inputs.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert labels.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert len(StreamRows(tokens_of([range(8)]), 4)) == 1  # the eighth token has no next one
    assert len(StreamRows(tokens_of([range(9)]), 4)) == 2


# Rows of documents


@settings(deadline=None)
@given(
    given=packed_input(),
    seed=st.integers(0, 5),
    loss=st.sampled_from(["all", "responses"]),
    overlong=st.sampled_from(["split", "drop"]),
)
def test_documents_are_packed_without_loss(given: tuple[Tokens, int], seed: int, loss: Any, overlong: Any) -> None:
    tokens, width = given
    rows = DocumentRows(tokens, width, seed=seed, loss=loss, overlong=overlong)
    batch = rows.batch(range(len(rows)))
    assert batch.borders is not None
    inputs, labels = batch.input_ids.numpy().ravel(), batch.labels.numpy().ravel()
    positions, borders = batch.position_ids.numpy().ravel(), batch.borders.numpy()
    whole = {int(tokens.ids[start]): document for document, start in enumerate(tokens.offsets[:-1])}
    following = {}
    for start, end in pairwise(borders.tolist()):
        assert positions[start:end].tolist() == list(range(end - start))
        assert start // width == (end - 1) // width
        if inputs[start] == END:  # padding
            assert (labels[start:end] == IGNORE).all()
            assert end % width == 0
            continue
        begun = int(np.searchsorted(tokens.offsets, inputs[start] - 10, side="right")) - 1
        document = tokens.document(begun).tolist()
        at = document.index(inputs[start])
        assert inputs[start:end].tolist() == document[at : at + end - start]  # in order, of one document
        assert at % width == 0  # a piece begins where the one before it ended
        hidden = 0 if loss == "all" else tokens.prompts[begun] - 1 - at
        expected = [i if n >= hidden else IGNORE for n, i in enumerate(document[at + 1 : at + 1 + end - start])]
        assert labels[start:end].tolist() == expected  # the next token of the same document
        for one in range(start, end):
            assert inputs[one] not in following  # never twice
            following[int(inputs[one])] = labels[one]
    packed = [d for d in whole.values() if overlong == "split" or tokens.lengths[d] - 1 <= width]
    pieces = [
        (d, at, min(at + width, int(tokens.lengths[d]) - 1))
        for d in packed
        for at in range(0, tokens.lengths[d] - 1, width)
    ]
    learned = [(d, at, end) for d, at, end in pieces if loss == "all" or end >= tokens.prompts[d]]
    assert set(following) == {i for d, at, end in learned for i in tokens.document(d).tolist()[at:end]}
    lost = sum(int(tokens.lengths[d]) for d in whole.values() if d not in packed)
    assert rows.report.lost_tokens == lost + sum(end - at for d, at, end in pieces if (d, at, end) not in learned)
    check_report(rows, batch, len(tokens) - len(packed))


def check_report(rows: DocumentRows, batch: Any, dropped: int) -> None:
    tokens, width = rows.source, rows.width
    labels = batch.labels.numpy()
    assert rows.weights.tolist() == (labels != IGNORE).sum(axis=1).tolist()
    assert rows.tokens.tolist() == (batch.input_ids.numpy() != END).sum(axis=1).tolist()
    assert rows.report.dropped == dropped
    assert rows.report.labels == int((labels != IGNORE).sum())
    assert rows.report.cut + rows.report.dropped == int((tokens.lengths - 1 > width).sum())
    if len(rows):
        assert rows.report.fill == pytest.approx(rows.tokens.sum() / (len(rows) * width))


def test_rows_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    tokens = tokens_of([range(10, 10 + n) for n in (8, 8, 8, 8, 5, 5, 5, 5, 3, 3)] * 5)
    first, again, other = (DocumentRows(tokens, 16, seed=seed) for seed in (0, 0, 1))
    members = [[rows.documents(row) for row in range(len(rows))] for rows in (first, again, other)]
    assert members[0] == members[1] != members[2]
    assert len(first) == len(other)


def test_documents_given_twice_are_packed_twice() -> None:
    rows = DocumentRows(tokens_of([range(10, 14), range(20, 26)]), 8, documents=np.array([1, 0, 1]))
    assert sorted(d for row in range(len(rows)) for d in rows.documents(row)) == [0, 1, 1]
    assert rows.report.documents == 3


def test_rows_behind_the_last_are_padding_without_labels() -> None:
    tokens = tokens_of([[0, 5, 6, END], [0, 7, END]])
    for rows in (DocumentRows(tokens, 6), StreamRows(tokens, 6)):
        batch = rows.batch([0], 3)
        assert tuple(batch.input_ids.shape) == (3, 6)
        assert (batch.labels[1:] == IGNORE).all()
        assert batch.borders is None or batch.borders.tolist() == [0, 3, 5, 6, 12, 18]
        assert rows.batch([], 2).labels.tolist() == [[IGNORE] * 6] * 2


def test_a_row_says_where_it_comes_from() -> None:
    tokens = tokens_of([range(10, 14), range(20, 26)])
    assert DocumentRows(tokens, 8).describe(0) == "made, text 1; made, text 2"
    assert StreamRows(tokens, 3).describe(1) == "made, text 1; made, text 2"
    # A row is its inputs and the token behind them: the first ends where the first text does.
    rows = StreamRows(tokens_of([range(10, 15), range(20, 23), range(30, 34)]), 4)
    assert [rows.documents(row) for row in range(len(rows))] == [[0], [0, 1, 2]]


@given(
    length=st.integers(1, 60),
    batch=st.integers(1, 20),
    size=st.integers(1, 5),
    world=st.sampled_from([1, 2, 3, 4]),
    seed=st.integers(0, 3),
)
def test_any_number_of_ranks_gets_the_same_rows_in_equal_counts(
    length: int, batch: int, size: int, world: int, seed: int
) -> None:
    for epoch in range(2):
        seen: list[int] = []
        for place in range(steps_in_epoch(length, batch)):
            step = [int(row) for row in step_rows(length, batch, seed, epoch * steps_in_epoch(length, batch) + place)]
            parts = [list(microbatches(step, size, rank, world)) for rank in range(world)]
            assert len({len(part) for part in parts}) == 1
            assert Counter(int(row) for part in parts for some in part for row in some) == Counter(step)
            seen += step
        assert sorted(seen) == list(range(length))


@given(n=st.integers(0, 200), seed=st.lists(st.integers(0, 2**40), min_size=1, max_size=3))
def test_a_permutation_is_one(n: int, seed: list[int]) -> None:
    order = permutation(n, *seed)
    assert sorted(order.tolist()) == list(range(n))
    assert (order == permutation(n, *seed)).all()


@given(keys=st.lists(st.integers(0, 9) | st.integers(0, 2**40), max_size=60))
def test_a_stable_order_is_numpys(keys: list[int]) -> None:
    values = np.array(keys, np.int64)
    assert stable_order(values).tolist() == np.argsort(values, kind="stable").tolist()


def test_a_permutation_stays_what_it_was() -> None:
    assert permutation(8, 0).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    assert permutation(8, 0, 1).tolist() == [3, 7, 4, 2, 1, 6, 5, 0]


def test_bad_options_and_too_little_data_are_one_line() -> None:
    tokens = tokens_of([range(10, 14)])
    with pytest.raises(ConfigError, match="a row must have at least 1 token, not 0"):
        StreamRows(tokens, 0)
    with pytest.raises(ConfigError, match="loss is on 'all' or on 'responses', not 'prompts'"):
        DocumentRows(tokens, 4, loss="prompts")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="overlong is 'split' or 'drop', not 'cut'"):
        DocumentRows(tokens, 4, overlong="cut")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the data is too small for one row: 4 tokens, of which 4 are left out"):
        StreamRows(tokens, 100).checked()
    with pytest.raises(DataError, match="too small for one row"):
        DocumentRows(tokens, 2, overlong="drop").checked()
    assert len(DocumentRows(tokens, 100).checked()) == 1


# The assignment's data set


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    return find_model(str(make_tiny_model(folder))).tokenizer


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), encoding="utf-8")
    return path


def documents_by_hand(tokenizer: Any, pairs: Sequence[dict[str, str]]) -> list[list[int]]:
    """Return BOS + document + EOS of each pair, as the assignment's handout has it."""
    template = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{}\n\n### Response:\n{}"
    )
    return [
        [*tokenizer.encode(template.format(pair["prompt"], pair["response"])), tokenizer.eos_token_id] for pair in pairs
    ]


@pytest.mark.parametrize("length", [1, 7, 32])
def test_the_stream_is_the_handouts(tokenizer: Any, pairs: Path, length: int) -> None:
    stream = [i for document in documents_by_hand(tokenizer, PAIRS) for i in document]
    dataset = PackedDataset(tokenizer, pairs, length, shuffle=False)
    assert len(dataset) == (len(stream) - 1) // length
    for number, item in enumerate(dataset):  # type: ignore[var-annotated, arg-type]
        start = number * length
        assert item["input_ids"].tolist() == stream[start : start + length]
        assert item["labels"].tolist() == stream[start + 1 : start + length + 1]


def test_items_are_int64_and_end_with_an_index_error(tokenizer: Any, pairs: Path) -> None:
    import torch

    first, second = (PackedDataset(tokenizer, str(pairs), 16, shuffle=False) for _ in range(2))
    item = first[0]
    assert set(item) == {"input_ids", "labels"}
    assert all(value.dtype == torch.int64 and value.shape == (16,) for value in item.values())
    assert first[-1]["labels"].tolist() == first[len(first) - 1]["labels"].tolist()
    with pytest.raises(IndexError, match=f"row {len(first)} of {len(first)}"):
        first[len(first)]
    both = list(zip(first, second))  # type: ignore[call-overload]  # noqa: B905
    assert len(both) == len(first)


def test_every_document_begins_with_bos_and_ends_with_eos_and_no_newline_before_it(
    tokenizer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps([{"prompt": "Hi", "response": "Hello."}] * 3), encoding="utf-8")
    dataset = PackedDataset(tokenizer, path, 1, shuffle=False)
    ids = [int(dataset[0]["input_ids"].item()), *(int(dataset[i]["labels"].item()) for i in range(len(dataset)))]
    text = tokenizer.decode(ids)
    assert text.count("<|begin_of_text|>Below is") == text.count("Hello.<|end_of_text|>") == 3
    assert ids.count(tokenizer.bos_token_id) == ids.count(tokenizer.eos_token_id) == 3


def test_shuffling_moves_documents_and_not_tokens(tokenizer: Any, pairs: Path) -> None:
    plain, shuffled, again, other = (
        PackedDataset(tokenizer, pairs, 1, shuffle, seed=seed)
        for shuffle, seed in ((False, 0), (True, 0), (True, 0), (True, 1))
    )
    streams = [[d[i]["input_ids"].item() for i in range(len(d))] for d in (plain, shuffled, again, other)]
    assert streams[0] != streams[1] == streams[2] != streams[3]
    ends = [i for i, token in enumerate(streams[1]) if token == tokenizer.eos_token_id]
    found = {tuple(streams[1][start : end + 1]) for start, end in zip([0, *[e + 1 for e in ends]], ends, strict=False)}
    assert found <= {tuple(document) for document in documents_by_hand(tokenizer, PAIRS)}
    assert len(found) >= len(PAIRS) - 1


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_cover_the_data_once_and_the_last_may_be_short(tokenizer: Any, pairs: Path, shuffle: bool) -> None:
    import torch

    dataset = PackedDataset(tokenizer, pairs, 16, shuffle=False)
    batches = iterate_batches(dataset, 8, shuffle)
    assert len(batches) == -(-len(dataset) // 8)
    passes = [[row for batch in batches for row in batch["input_ids"].tolist()] for _ in range(2)]
    plain = [dataset[i]["input_ids"].tolist() for i in range(len(dataset))]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(plain)
    assert (passes[0] == plain) is not shuffle
    for number, batch in enumerate(batches):
        rows = 8 if number < len(batches) - 1 else len(dataset) - 8 * number
        assert all(batch[key].shape == (rows, 16) and batch[key].dtype == torch.int64 for key in batch)


def test_data_shorter_than_a_row_has_no_rows(tokenizer: Any, pairs: Path) -> None:
    assert len(PackedDataset(tokenizer, pairs, 100_000, shuffle=False)) == 0


def test_the_real_sample_gives_the_handouts_stream(tokenizer: Any, shared_data: Path) -> None:
    path = shared_data / "sft" / "sft_sample.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    stream = [i for document in documents_by_hand(tokenizer, rows) for i in document]
    dataset = PackedDataset(tokenizer, path, 32, shuffle=False)
    assert [i for n in range(len(dataset)) for i in dataset[n]["input_ids"].tolist()] == stream[: len(dataset) * 32]
    shuffled = PackedDataset(tokenizer, path, 32, shuffle=True)
    pairs = zip((shuffled[n] for n in range(len(dataset))), (dataset[n] for n in range(len(dataset))), strict=True)
    assert any(one["input_ids"].tolist() != other["input_ids"].tolist() for one, other in pairs)


def test_the_real_files_lose_no_token(tokenizer: Any, shared_data: Path) -> None:
    from harness.training.data.texts import read_texts
    from harness.training.data.tokens import tokenize

    texts = read_texts([shared_data / "sft" / "safety_only.json"])
    tokens = tokenize(texts, find_format("alpaca_sft"), tokenizer)
    assert (len(tokens), tokens.empty, tokens.separate) == (2483, 0, 0)
    losses: tuple[Loss, ...] = ("all", "responses")
    for loss in losses:
        rows = DocumentRows(tokens, 512, loss=loss)
        assert int(rows.tokens.sum()) == len(tokens.ids) - len(tokens)
        assert rows.report.lost_tokens == 0
    assert rows.report.labels == len(tokens.ids) - int(tokens.prompts.sum())
