"""The transformers engine, against plain greedy decoding of one prompt at a time."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines.decoding import Columns, Row, RowTexts, choose_tokens
from harness.engines.transformers import TransformersEngine, TransformersModel
from harness.models import find_model
from harness.testing.tiny import EOS, make_tiny_model, word_problems
from harness.types import Generation, Prompt, Request
from tests.engines.asking import answered, outcomes, questions, requests_for, scripted

FAMILIES = ["llama", "gpt2", "mistral", "gemma3", "gpt_neox", "opt"]


def save_family(name: str, folder: Path, vocabulary: int) -> None:
    """Write random weights of an architecture beside a tokenizer: steep ones, so that no two tokens are as likely."""
    import torch
    import transformers

    t: Any = transformers  # its configurations are typed by generated code that knows no mappings
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": vocabulary}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    grouped = {**sizes, "intermediate_size": 96, "num_key_value_heads": 2, "max_position_embeddings": 256, **ends}
    configs: dict[str, Callable[[], Any]] = {
        "llama": lambda: t.LlamaConfig(**grouped),
        "gpt2": lambda: t.GPT2Config(n_embd=48, n_layer=2, n_head=4, n_positions=256, vocab_size=vocabulary, **ends),
        "mistral": lambda: t.MistralConfig(**grouped, sliding_window=12),
        "gemma3": lambda: t.Gemma3TextConfig(
            **grouped, head_dim=12, sliding_window=10, layer_types=["sliding_attention", "full_attention"]
        ),
        "gpt_neox": lambda: t.GPTNeoXConfig(**sizes, intermediate_size=96, max_position_embeddings=256, **ends),
        "opt": lambda: t.OPTConfig(
            **sizes, ffn_dim=96, word_embed_proj_dim=48, max_position_embeddings=256, dropout=0.0, **ends
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network: Any = t.AutoModelForCausalLM.from_config(configs[name]())
        for parameter in network.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)


pytestmark = pytest.mark.usefixtures("one_thread")


def test_samples_of_an_example_are_the_same_however_many_and_in_whatever_batch(trained: Path, tmp_path: Path) -> None:
    from harness.api import evaluate

    problems = tmp_path / "gsm8k" / "test.jsonl"
    problems.parent.mkdir()
    problems.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in word_problems(6)))

    def outputs(samples: int, **options: Any) -> dict[str, str]:
        generation = {"generation": {"temperature": 1.5, "max_tokens": 8}}
        run = evaluate(
            "gsm8k", trained, engine="transformers", data=tmp_path, out=tmp_path / "runs", samples=samples,
            progress=False, gsm8k=generation, **options,
        )  # fmt: skip
        return {sample.key: sample.output for sample in run.samples()}

    one, four = outputs(1), outputs(4)
    alone = outputs(2, limit=1, transformers={"batch_tokens": 1})
    assert one.items() < four.items() and alone.items() < four.items()
    assert len({*four.values()}) > len({*one.values()})
    assert outputs(4, transformers={"seed": 1}) != four


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family, with random weights."""
    folder: Path = tmp_path_factory.mktemp("families") / request.param
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("*.safetensors", "*config.json"))
    shutil.copy(trained / "tokenizer_config.json", folder)
    save_family(request.param, folder, len(find_model(str(trained)).tokenizer))
    return folder


def greedy(folder: Path, tokenizer: Any, request: Request) -> list[int]:
    """Return what the model says to one prompt, decoded step by step without a cache, in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = list(request.prompt.token_ids or ())
    start = len(ids)
    with torch.inference_mode():
        while len(ids) < start + request.generation.max_tokens:
            ids.append(int(network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
    return ids[start:]


def test_an_answer_ends_with_its_end_token_which_is_counted_and_is_no_text(
    model: TransformersModel, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tokenizer.encode(" Ada has 5 + 3 = 8 now.\n#### 8", add_special_tokens=False)
    scripted(monkeypatch, [*said, tokenizer.eos_token_id])
    for one, text in zip(answered(model, requests_for(tokenizer, questions(9))), questions(9), strict=True):
        assert (one.text, one.finish_reason, one.error) == (tokenizer.decode(said), "stop", None)
        assert EOS not in one.text
        assert one.prompt_tokens == len(tokenizer.encode(text))
        assert one.completion_tokens == len(said) + 1
        assert one.seconds is not None and one.seconds > 0


def test_a_batch_of_one_and_a_batch_of_many_say_the_same_as_plain_decoding(family: Path, tokenizer: Any) -> None:
    texts = [text * (1 + index % 3) for index, text in enumerate(questions(14))]
    texts[3] = texts[3][:9]
    requests = requests_for(tokenizer, texts, max_tokens=24)
    requests += [Request(f"longer {one.id}", one.prompt, Generation(max_tokens=60), one.index) for one in requests[:3]]
    many = answered(TransformersEngine().load(str(family)), requests)
    for batch_tokens in (1, 600):
        few = answered(TransformersEngine(batch_tokens=batch_tokens).load(str(family)), requests)
        assert outcomes(few) == outcomes(many)
    for request, completion in list(zip(requests, many, strict=True))[:4]:
        expected = greedy(family, tokenizer, request)
        assert completion.completion_tokens == len(expected)
        ended = expected[-1] == tokenizer.eos_token_id
        assert completion.finish_reason == ("stop" if ended else "length")
        assert completion.text == tokenizer.decode(expected, skip_special_tokens=True)
    assert len({one.text for one in many}) > 5


@pytest.mark.parametrize("grain", [1, 3, 16])
def test_rows_that_outgrow_their_batch_and_wait_end_up_the_same(
    model: TransformersModel, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, trained: Path, grain: int
) -> None:
    requests = [
        Request(one.id, one.prompt, Generation(max_tokens=3 + 5 * (index % 9)), index)
        for index, one in enumerate(requests_for(tokenizer, questions(40)))
    ]
    expected = answered(model, requests)
    monkeypatch.setattr("harness.engines.batching._GRAIN", grain)
    monkeypatch.setattr("harness.engines.batching._ROOM", 1)
    monkeypatch.setattr("harness.engines.decoding._SLACK", 2)
    narrow = TransformersEngine(batch_tokens=300).load(str(trained))
    assert outcomes(answered(narrow, requests)) == outcomes(expected)


def test_requests_are_taken_a_window_at_a_time_and_results_come_as_they_finish(
    trained: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engines.transformers._WINDOW", 8)
    taken: list[str] = []

    def given() -> Iterator[Request]:
        for request in requests_for(tokenizer, questions(20)):
            taken.append(request.id)
            yield request

    stream = TransformersEngine(batch_tokens=256).load(str(trained)).generate(given())
    assert next(stream).error is None
    assert len(taken) == 8
    stream.close()  # type: ignore[attr-defined]  # a generator
    assert len(taken) == 8


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_stop_strings_cut_the_text_wherever_they_fall(
    data: st.DataObject, model: TransformersModel, tokenizer: Any
) -> None:
    text, said = word_problems(1, seed=data.draw(st.integers(0, 30)))[0]
    begin = data.draw(st.integers(0, len(said) - 1))
    stop = said[begin : begin + data.draw(st.integers(1, 12))]
    stops = (*data.draw(st.lists(st.sampled_from(["@", "####", "zebra"]), max_size=2)), stop)
    ids = tokenizer.encode(said, add_special_tokens=False)
    with pytest.MonkeyPatch.context() as patch:
        scripted(patch, [*ids, tokenizer.eos_token_id])
        cut = answered(model, requests_for(tokenizer, [text], stop=stops, max_tokens=len(ids) + 1))[0]
    ends = [(said.find(one) + len(one), said.find(one)) for one in stops if one in said]
    assert cut.text == said[: min(ends)[1]]
    assert cut.finish_reason == "stop" and cut.completion_tokens is not None
    made = ids[: cut.completion_tokens]
    assert any(one in tokenizer.decode(made) for one in stops)
    assert not any(one in tokenizer.decode(made[:-1]) for one in stops)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet=st.sampled_from("ab:\n é∑🙂\u200d"), min_size=1, max_size=30),
    begin=st.integers(0, 29),
    length=st.integers(1, 6),
)
def test_a_stop_string_is_found_at_its_last_token_even_inside_characters(
    tokenizer: Any, text: str, begin: int, length: int
) -> None:
    stop = text[begin % len(text) :][:length]
    ids = tokenizer.encode(text, add_special_tokens=False)
    prompt = tokenizer.encode("A prompt:")
    request = Request("a", Prompt("", tuple(prompt)), Generation(stop=(stop,)))
    row, texts = Row(request, list(prompt), 1000, random.Random(0)), RowTexts(tokenizer)
    found = None
    for token in ids:
        row.ids += [tokenizer.pad_token_id, token]  # a special token leaves no trace
        found = texts.stopped(row)
        if found is not None:
            break
        assert stop not in tokenizer.decode(row.ids[len(prompt) :], skip_special_tokens=True)
    assert found == text[: text.index(stop)]


def test_a_stop_string_of_the_prompt_does_not_count(
    model: TransformersModel, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tokenizer.encode(" It is 4.", add_special_tokens=False)
    scripted(monkeypatch, [*said, tokenizer.eos_token_id])
    [stopped] = answered(model, requests_for(tokenizer, questions(1), stop=("Answer:", "How many")))
    assert stopped.text == tokenizer.decode(said)


def test_lengths_and_token_counts_are_exact(
    model: TransformersModel, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tokenizer.encode(" Ada has 5 + 3 = 8 now.", add_special_tokens=False)
    scripted(monkeypatch, [*said, tokenizer.eos_token_id])
    for limit in (1, 2, 5, len(said)):
        for one in answered(model, requests_for(tokenizer, questions(6), max_tokens=limit)):
            assert (one.finish_reason, one.completion_tokens) == ("length", limit)
            assert one.text == tokenizer.decode(said[:limit])
    [exact] = answered(model, requests_for(tokenizer, questions(1), max_tokens=len(said) + 1))
    assert (exact.finish_reason, exact.text) == ("stop", tokenizer.decode(said))


def test_the_end_of_the_context_ends_a_completion_and_a_longer_prompt_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tiny_model(tmp_path, context=64)
    tokenizer: Any = find_model(str(folder)).tokenizer
    ids = tuple(tokenizer.encode("a b c d e f g " * 60))
    requests = [
        Request(str(length), Prompt("", ids[:length]), Generation(max_tokens=500))
        for length in (3, 40, 63, 64, 65, 200)
    ]
    scripted(monkeypatch, lambda made: ids[5])
    for batch_tokens in (None, 1):
        completions = answered(TransformersEngine(batch_tokens=batch_tokens).load(str(folder)), requests)
        for length, one in zip((3, 40, 63), completions[:3], strict=True):
            assert (one.finish_reason, one.completion_tokens) == ("length", 64 - length)
        for length, one in zip((64, 65, 200), completions[3:], strict=True):
            assert (
                one.error == f"the prompt has {length} tokens; the model's context of 64 leaves no room for an answer"
            )
            assert (one.finish_reason, one.text, one.prompt_tokens, one.completion_tokens) == (None, "", length, None)


@pytest.mark.parametrize(
    ("ids", "message"),
    [(None, "no token ids"), ((), "no token ids"), ((5, 10**6), "outside the model's vocabulary"), ((-1,), "outside")],
)
def test_a_prompt_that_cannot_be_run_fails_alone(
    model: TransformersModel, tokenizer: Any, ids: tuple[int, ...] | None, message: str
) -> None:
    wrong = Request("wrong", Prompt("text", ids), Generation())
    first, bad, last = answered(
        model,
        [
            requests_for(tokenizer, questions(1))[0],
            wrong,
            Request("last", Prompt("", tuple(tokenizer.encode("Hi"))), Generation(max_tokens=2)),
        ],
    )
    assert message in (bad.error or "")
    assert first.error is None and last.error is None


def test_each_stop_token_ends_a_completion_and_is_not_text(
    trained: Path, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    [marker] = tokenizer.encode("#", add_special_tokens=False)
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": [1, {marker}]}}')
    said = tokenizer.encode(" It is 4.", add_special_tokens=False)
    model = TransformersEngine().load(str(folder))
    for end in (marker, tokenizer.eos_token_id):
        scripted(monkeypatch, [*said, end])
        [one] = answered(model, requests_for(tokenizer, questions(1)))
        assert (one.finish_reason, one.text, one.completion_tokens) == ("stop", tokenizer.decode(said), len(said) + 1)


def test_sampling_with_a_seed_does_not_depend_on_the_batch(trained: Path, tokenizer: Any) -> None:
    def hot(engine: TransformersEngine, count: int, **generation: Any) -> list[str]:
        requests = requests_for(tokenizer, questions(count), temperature=1.5, top_p=0.95, **generation)
        return [one.text for one in answered(engine.load(str(trained)), requests)]

    seeded = hot(TransformersEngine(), 12, seed=11)
    assert hot(TransformersEngine(batch_tokens=1, seed=5), 4, seed=11) == seeded[:4]
    assert hot(TransformersEngine(), 12, seed=12) != seeded
    free = hot(TransformersEngine(), 12)
    assert hot(TransformersEngine(batch_tokens=600), 5) == free[:5] != seeded[:5]
    assert hot(TransformersEngine(seed=1), 5) != free[:5]


def test_greedy_and_sampled_requests_share_a_batch(model: TransformersModel, tokenizer: Any) -> None:
    texts = questions(8)
    cold, hot = requests_for(tokenizer, texts), requests_for(tokenizer, texts, temperature=2.0, seed=3)
    mixed = [hot[index] if index % 2 else cold[index] for index in range(8)]
    together, alone = answered(model, mixed), answered(model, cold)
    assert [one.text for one in together[::2]] == [one.text for one in alone[::2]]
    assert [one.text for one in together[1::2]] != [one.text for one in alone[1::2]]


def test_draws_follow_the_distribution_and_the_nucleus() -> None:
    import torch

    def drawn(top_p: float, temperature: float, count: int = 4000) -> list[float]:
        request = Request("a", Prompt("", (0,)), Generation(temperature=temperature, top_p=top_p))
        rows = [Row(request, [0], 9, random.Random(seed)) for seed in range(count)]
        logits = torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2]).log().repeat(count, 1)
        tokens = choose_tokens(logits, rows)
        return [tokens.count(token) / count for token in range(5)]

    assert drawn(1.0, 1.0) == pytest.approx([0.1, 0.4, 0.0, 0.3, 0.2], abs=0.03)
    assert drawn(0.65, 1.0) == pytest.approx([0.0, 4 / 7, 0.0, 3 / 7, 0.0], abs=0.03)
    assert drawn(0.01, 1.0) == [0.0, 1.0, 0.0, 0.0, 0.0]
    flat = [0.1**0.5, 0.4**0.5, 0.0, 0.3**0.5, 0.2**0.5]
    assert drawn(1.0, 2.0) == pytest.approx([one / sum(flat) for one in flat], abs=0.03)


def test_top_logprobs_are_those_of_the_model(trained: Path, model: TransformersModel, tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    requests = requests_for(tokenizer, questions(5), logprobs=3)
    requests.append(Request("none", Prompt("", (0, 5)), Generation(max_tokens=3)))
    completions = answered(model, requests)
    assert completions[-1].top_logprobs == ()
    first = completions[0]
    assert len(first.top_logprobs) == first.completion_tokens
    ids = tokenizer.encode(questions(5)[0])
    network: Any = AutoModelForCausalLM.from_pretrained(trained)
    for named in first.top_logprobs:
        with torch.inference_mode():
            expected, tokens = network(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1).topk(3)
        assert list(named) == [tokenizer.decode([token]) for token in tokens.tolist()]
        for token, value in zip(tokens.tolist(), expected.tolist(), strict=True):
            assert named[tokenizer.decode([token])] == pytest.approx(value, abs=1e-4)
        ids.append(int(tokens[0]))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_columns_keep_each_row_own_keys(data: st.DataObject) -> None:
    import torch
    from transformers import DynamicCache

    columns, last, mark = Columns(), 10**9, 0.0
    expected: list[list[float]] = []
    for _ in range(data.draw(st.integers(1, 12))):
        action = data.draw(st.sampled_from(["add", "step", "step", "remove", "room"]))
        if action == "add":
            lengths = sorted(data.draw(st.lists(st.integers(1, min(6, last)), min_size=1, max_size=3)), reverse=True)
            last = lengths[-1]
            rows = []
            for length in lengths:
                rows.append([mark + step for step in range(length)])
                mark += 100
            columns.make_room(len(expected) + len(rows) + 1, 60, lengths[0])
            padded = torch.tensor([[-1.0] * (lengths[0] - len(row)) + row for row in rows])[:, None, :, None]
            cache = DynamicCache()
            cache.update(padded, -padded, 0)
            columns.add(cache, lengths)
            expected += rows
        elif action == "room" and expected:
            columns.make_room(len(expected) + data.draw(st.integers(0, 2)), data.draw(st.integers(60, 80)))
        elif action == "step" and expected:
            mark += 100
            new = torch.tensor([mark + index for index in range(len(expected))])[:, None, None, None]
            keys, values = columns.cache().update(new, -new, 0)
            for row, shown, negated in zip(expected, keys, values, strict=True):
                row.append(float(new[expected.index(row), 0, 0, 0]))
                assert shown[0, -len(row) :, 0].tolist() == row
                assert torch.equal(shown, -negated)
            assert keys.shape[2] == max(map(len, expected))
            columns.advance()
        elif action == "remove" and expected:
            gone = data.draw(st.lists(st.integers(0, len(expected) - 1), unique=True, max_size=len(expected)))
            order = columns.remove(gone)
            assert sorted(order) == [row for row in range(len(expected)) if row not in gone]
            expected = [expected[row] for row in order]
        assert columns.lengths == [len(row) for row in expected]
