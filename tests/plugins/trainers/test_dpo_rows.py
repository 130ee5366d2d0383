"""Pairs as rows: what is in a step, in a microbatch and on a rank, and log-probabilities that do not depend on it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.interfaces import TrainingRun
from harness.testing.tiny import make_tiny_model, word_problems
from harness.training.data.pairs import Pair
from harness.training.data.tokens import Tokens
from harness.training.model.network import Network, load_network
from harness.training.parallel import join
from harness.training.session import Session
from harness_dpo import DPO
from harness_dpo.data import Data, held_out, read_data, source_names
from harness_dpo.objective import pair_logprobs
from harness_dpo.rows import PairRows, balanced_order, divided

Lengths = list[tuple[int, int, int]]

#: Tokens of a prompt (BOS among them), and of the chosen and the rejected response (end token among them).
LENGTHS = st.lists(st.tuples(st.integers(1, 20), st.integers(2, 40), st.integers(2, 40)), min_size=1, max_size=60)


def made(lengths: Lengths, share: bool = False) -> PairRows:
    """Return rows of pairs of these lengths, whose ids count from 0 on; both sides begin with the same ids."""
    ids, offsets, prompts, count = [], [0], [], 0
    for prompt, *responses in lengths:
        shared = list(range(count, count + prompt))
        count += prompt
        for response in responses:
            ids += [*shared, *range(count, count + response)]
            count += response
            offsets.append(len(ids))
            prompts.append(prompt)
    tokens = Tokens(
        np.array(ids, np.int32), np.array(offsets), np.array(prompts, np.int32), ("file",), (len(prompts),), 0, 0, 0
    )
    texts = [Pair("", "", "", "file", f"file:{number + 1}") for number in range(len(lengths))]
    return PairRows(tokens, texts, np.arange(len(lengths)), np.zeros(len(lengths), np.int64), share=share)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.integers(0, 40), st.randoms(use_true_random=False))
def test_no_prompt_is_both_learned_and_held_out(asked: list[int], count: int, draw: Any) -> None:
    ids = [token for prompt in asked for response in (20, 21) for token in (prompt, response)]
    sides = 2 * len(asked)
    documents = Tokens(
        np.array(ids, np.int32), np.arange(sides + 1) * 2, np.ones(sides, np.int32), ("file",), (sides,), 0, 0, 0,
        contents=np.array(ids, np.uint64).reshape(-1, 2),
    )  # fmt: skip
    drawn = draw.sample(range(len(asked)), len(asked))
    chosen = held_out(documents, np.array(drawn), count).tolist()
    assert chosen == sorted(set(chosen)) and len(chosen) <= count
    rest = {asked[pair] for pair in set(drawn) - set(chosen)}
    assert rest.isdisjoint(asked[pair] for pair in chosen)
    assert all(asked.count(prompt) > count - len(chosen) for prompt in rest)  # none of the others would have fitted
    if len(set(asked)) == len(asked):
        assert chosen == sorted(drawn[:count])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 500), max_size=200), st.integers(1, 20), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_has_every_pair_once(tokens: list[int], batch: int, seed: int, epoch: int) -> None:
    order = balanced_order(np.array(tokens, np.int64), batch, seed, epoch)
    assert sorted(order.tolist()) == list(range(len(tokens)))
    assert order.tolist() == balanced_order(np.array(tokens, np.int64), batch, seed, epoch).tolist()


def test_steps_have_about_the_same_number_of_tokens_and_are_drawn_anew_each_epoch() -> None:
    draw = np.random.default_rng(0)
    tokens = np.clip(draw.lognormal(5.5, 0.7, 6430).astype(np.int64), 20, 2000)
    orders = [balanced_order(tokens, 64, seed, epoch) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    for order in orders:
        sums = tokens[order[: 100 * 64]].reshape(100, 64).sum(axis=1)
        assert sums.max() < 1.01 * sums.mean()
    first, *others = [{frozenset(step) for step in order[: 100 * 64].reshape(100, 64).tolist()} for order in orders]
    assert all(not first & other for other in others)


@given(st.lists(st.integers(1, 100), max_size=60), st.integers(1, 9))
def test_parts_are_as_equal_as_their_largest_member_allows(tokens: list[int], count: int) -> None:
    values = np.array(tokens, np.int64)
    parts = divided(values, count)
    assert sorted(place for part in parts for place in part) == list(range(len(tokens)))
    sums = [int(values[part].sum()) for part in parts]
    assert max(sums) - min(sums) <= max(tokens, default=0)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 20), st.integers(1, 9), st.integers(1, 3), st.booleans())
def test_a_step_is_divided_among_ranks_and_microbatches(
    lengths: Lengths, batch: int, size: int, world: int, share: bool
) -> None:
    rows = made(lengths, share)
    rows.fit(batch, size, world, 0)
    seen: list[int] = []
    for step in range(-(-len(rows) // batch)):
        pairs = rows.step(batch, 0, step)
        assert len(pairs) == min(batch, len(rows) - step * batch)
        shares = [list(rows.microbatches(pairs, size, rank, world)) for rank in range(world)]
        assert len({len(share) for share in shares}) == 1
        parts = [part for share in shares for part in share]
        assert sorted(row for part in parts for row in part) == sorted(pairs)
        assert all(rows.tokens[part].sum() <= rows.width for part in parts)
        seen += pairs
    assert sorted(seen) == list(range(len(rows)))


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.booleans())
def test_a_microbatch_holds_both_sides_of_its_pairs(lengths: Lengths, size: int, share: bool) -> None:
    rows = made(lengths, share)
    rows.fit(12, size, 1, 0)
    shapes = set()
    for part in rows.microbatches(rows.step(12, 0, 0), size, 0, 1):
        batch = rows.batch(part, size)
        assert batch.borders is not None
        borders, ids, positions = batch.borders.tolist(), batch.input_ids[0].tolist(), batch.position_ids[0].tolist()
        keys = list(range(rows.width)) if batch.keys is None else batch.keys.tolist()
        key_borders = borders if batch.key_borders is None else batch.key_borders.tolist()
        at, side, labels = batch.extra["at"].tolist(), batch.extra["side"].tolist(), batch.labels[0].tolist()
        for number, row in enumerate(part):
            for which in (0, 1):
                document, prompt = rows.documents.document(2 * row + which).tolist(), lengths[row][0]
                segment = 2 * number + which
                seen = keys[key_borders[segment] : key_borders[segment + 1]]
                assert [ids[place] for place in seen] == document[:-1]
                assert [positions[place] for place in seen] == list(range(len(document) - 1))
                own = [place for place in range(len(at)) if side[place] == segment]
                assert [labels[place] for place in own] == document[prompt:]
                assert [at[place] for place in own] == seen[prompt - 1 :]
        assert borders[-1] == rows.width and key_borders[-1] == len(keys)
        spans = [end - start for ends in (borders, key_borders) for start, end in pairwise(ends)]
        assert max(spans) <= max(rows.longest, 2)
        queries = [end - start for start, end in pairwise(borders)]
        seen_keys = [end - start for start, end in pairwise(key_borders)]
        assert all(query or not key for query, key in zip(queries, seen_keys, strict=True))
        shapes.add((tuple(batch.input_ids.shape), len(keys)))
    assert len({shape for shape, _ in shapes}) == 1


def test_rows_say_where_they_come_from() -> None:
    rows = made([(2, 3, 4), (2, 3, 4)])
    assert rows.describe(1) == "file:2"
    assert rows.weights.tolist() == [1, 1] and rows.tokens.tolist() == [9, 9]
    assert made([(2, 3, 4)], share=True).tokens.tolist() == [7]
    assert source_names(("a/x.jsonl", "b/x.csv.gz")) == ("a/x", "b/x")
    assert source_names(("x.jsonl", "x.csv")) == ("x.jsonl", "x.csv")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", context=256)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = [
        json.dumps({"prompt": question, "chosen": answer, "rejected": answer.upper() * (1 + number % 3)})
        for number, (question, answer) in enumerate(word_problems(24, seed=1))
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def data(tiny: Path, pairs: Path, **options: Any) -> tuple[DPO, Data]:
    chosen = DPO(
        data=(str(pairs),), prompt_format="plain", sequence_length=200, batch_size=8, microbatch_size=3,
        validation_pairs=0, device="cpu", **options,
    )  # fmt: skip
    return chosen, read_data(chosen, Session(chosen, TrainingRun(str(tiny), Path("unused"), {})))


def padded_logprobs(lm: Any, found: Data) -> torch.Tensor:
    """Return the log-probabilities of all pairs, [pairs, 2], from one padded batch and all its logits."""
    count = len(found.documents)
    documents = [torch.from_numpy(found.documents.document(index).astype(np.int64)) for index in range(count)]
    ids = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True)
    lengths = torch.tensor([len(document) for document in documents])[:, None]
    mask = (torch.arange(ids.shape[1]) < lengths).long()
    logits = lm(input_ids=ids, attention_mask=mask).logits[:, :-1]
    each = torch.log_softmax(logits, dim=-1).gather(-1, ids[:, 1:, None])[:, :, 0]
    learned = torch.arange(1, ids.shape[1]) >= torch.from_numpy(found.documents.prompts.astype(np.int64))[:, None]
    return (each * learned * mask[:, 1:]).sum(-1).view(-1, 2)


@pytest.mark.parametrize("share", [False, True])
def test_logprobs_and_gradients_are_those_of_a_padded_batch(tiny: Path, pairs: Path, share: bool) -> None:
    from transformers import AutoModelForCausalLM

    chosen, found = data(tiny, pairs, share_prompt=share)
    network: Network = load_network(str(tiny), chosen, join("cpu"), packed=True)
    weights = torch.linspace(-1, 1, 2 * len(found.pairs)).view(-1, 2)
    values = torch.zeros(len(found.pairs), 2)
    for part in found.training.microbatches(range(len(found.training)), 3, 0, 1):
        logprobs = pair_logprobs(network, found.training.batch(part, 3))
        values[part] = logprobs.detach()
        (logprobs * weights[part]).sum().backward()  # type: ignore[no-untyped-call]

    lm: Any = AutoModelForCausalLM.from_pretrained(tiny)
    expected = padded_logprobs(lm, found)
    torch.testing.assert_close(values, expected.detach(), rtol=1e-6, atol=1e-4)
    (expected * weights).sum().backward()  # type: ignore[no-untyped-call]
    gradients = dict(lm.named_parameters())
    for name, parameter in network.lm.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-3, atol=2e-4)


def test_sharing_prompts_saves_their_positions(tiny: Path, pairs: Path) -> None:
    (_, plain), (_, shared) = data(tiny, pairs), data(tiny, pairs, share_prompt=True)
    prompts = int(plain.documents.prompts[::2].sum())
    assert int(plain.training.tokens.sum()) - int(shared.training.tokens.sum()) == prompts
    assert shared.training.width < plain.training.width
    assert [plain.training.step(8, 0, step) for step in range(3)] == [shared.training.step(8, 0, s) for s in range(3)]


def test_a_pair_whose_response_ends_at_once_is_computed_too(tiny: Path, pairs: Path) -> None:
    """Of a response of nothing but an end token, the prompt's last position says all."""
    chosen, _ = data(tiny, pairs)
    network = load_network(str(tiny), chosen, join("cpu"), packed=True)
    values = []
    for share in (False, True):
        rows = made([(4, 1, 3), (3, 2, 1)], share)
        rows.fit(2, 2, 1, 0)
        values.append(pair_logprobs(network, rows.batch([0, 1], 2)).detach())
    torch.testing.assert_close(*values)
