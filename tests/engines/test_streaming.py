"""Answers piece by piece: joined, they are what `generate` gives, by every engine; nothing told is taken back."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.engines.decoding import Row, RowTexts
from harness.engines.openai import OpenAIEngine
from harness.engines.replay import ReplayEngine
from harness.engines.streaming import Pieces, settled, stream, without_bytes
from harness.engines.transformers import TransformersEngine
from harness.errors import ModelError
from harness.interfaces import Model, StreamingModel
from harness.models import find_model
from harness.testing.tiny import word_problems
from harness.types import Completion, Generation, Prompt, Request
from tests.completions_server import CompletionsServer, Reply, event
from tests.engines.asking import change, request, scripted

GENERATIONS = [
    Generation(max_tokens=40),
    Generation(max_tokens=1),
    Generation(max_tokens=40, stop=("\n####",)),
    Generation(max_tokens=40, stop=(" now", "w.", "nothing of the kind")),
    Generation(max_tokens=40, temperature=5.0, seed=3),
    Generation(max_tokens=40, temperature=5.0, seed=4, stop=("a", "e")),
]


def followed(pieces: Generator[str, None, Completion]) -> tuple[list[str], Completion]:
    """Return the pieces of an answer and its completion."""
    told = []
    while True:
        try:
            told.append(next(pieces))
        except StopIteration as end:
            return [piece for piece in told if piece], end.value


def outcome(completion: Completion) -> Any:
    return completion.text, completion.finish_reason, completion.prompt_tokens, completion.completion_tokens


@given(
    text=st.text("abcé\N{REPLACEMENT CHARACTER}\n"),
    stops=st.lists(st.text("abcé\n", min_size=1, max_size=4), max_size=3).map(tuple),
)
@example(text="xabcd", stops=("abcd", "bc"))
def test_whatever_has_been_told_stands(text: str, stops: tuple[str, ...]) -> None:
    """The text is as `generate` of a server gives it: cut at the first stop string."""
    whole = text[: min((text.find(stop) for stop in stops if stop in text), default=None)]
    pieces, told = Pieces(), ""
    for end in range(len(text)):
        told += pieces.grow(settled(text[:end], stops))
        assert whole.startswith(told)
    assert told + pieces.grow(whole) == whole


def prompts(trained: Path) -> list[Prompt]:
    tokenizer = find_model(str(trained)).tokenizer
    texts = [f"{question}\nAnswer:" for question, _ in word_problems(3, seed=9)]
    return [Prompt(text, tuple(tokenizer.encode(text))) for text in texts]


@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
def test_transformers_streams_what_it_generates(model: Model, trained: Path, generation: Generation) -> None:
    assert isinstance(model, StreamingModel)
    for prompt in prompts(trained):
        asked = Request("a", prompt, generation)
        [expected] = model.generate([asked])
        told, completion = followed(stream(model, asked))
        assert "".join(told) == expected.text
        assert outcome(completion) == outcome(expected)


def test_an_answer_comes_in_pieces(model: Model, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer: Any = find_model(str(trained)).tokenizer
    said = tokenizer.encode(" Ada has 5 + 3 = 8 now.", add_special_tokens=False)
    scripted(monkeypatch, said)
    told, completion = followed(stream(model, Request("a", prompts(trained)[0], Generation(max_tokens=len(said)))))
    assert told == [tokenizer.decode([token]) for token in said] and completion.completion_tokens == len(said)


def test_an_answer_that_is_left_leaves_the_model_as_it_was(model: Model, trained: Path) -> None:
    asked = Request("a", prompts(trained)[0], Generation(max_tokens=40))
    [expected] = model.generate([asked])
    with closing(stream(model, asked)) as pieces:
        next(pieces)
    [again] = model.generate([asked])
    assert outcome(again) == outcome(expected)


def test_what_cannot_be_asked_is_an_error_and_no_text(trained: Path, model: Model) -> None:
    told, completion = followed(stream(model, Request("a", Prompt("", (5,) * 5000), Generation())))
    assert told == [] and "leaves no room for an answer" in (completion.error or "")


def test_a_closed_model_says_so(trained: Path) -> None:
    loaded = TransformersEngine().load(str(trained))
    loaded.close()
    with pytest.raises(ModelError, match="has been closed"):
        followed(stream(loaded, Request("a", prompts(trained)[0], Generation())))


def test_a_character_of_several_tokens_is_told_as_a_whole(trained: Path) -> None:
    tokenizer: Any = find_model(str(trained)).tokenizer
    texts, ids = (
        RowTexts(tokenizer),
        tokenizer.encode("caf\N{LATIN SMALL LETTER E WITH ACUTE} 🦕!", add_special_tokens=False),
    )
    start = tokenizer.encode("Is it?")
    row = Row(request("a"), list(start), 100, None)  # type: ignore[arg-type]  # nothing is drawn
    pieces = Pieces()
    told: list[str] = []
    for token in ids:
        row.ids.append(token)
        told.append(pieces.grow(texts.settled(row)))
    assert "".join(told) == "café 🦕!"
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in told)


def test_bytes_spelled_as_tokens_wait_for_those_behind_them() -> None:
    """In Llama 2's tokenizer a byte that fits to none before it turns all of the row into replacement characters."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    words = ["a", "b", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = Tokenizer(BPE({word: index for index, word in enumerate(words)}, []))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend)  # type: ignore[no-untyped-call]
    ids = [0, *(2 + byte for byte in "é€".encode()), 1]
    pieces = Pieces()
    told: list[str] = []
    for end in range(len(ids) + 1):
        told.append(pieces.grow(str(tokenizer.decode(list(without_bytes(ids[:end], tokenizer))))))
    assert [piece for piece in told if piece] == ["a", "é€b"]


# Engines that cannot stream, and servers


def test_an_engine_that_cannot_stream_gives_one_piece(tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").write_text('{"id": "a", "output": "It is 4."}\n', encoding="utf-8")
    model = ReplayEngine().load(str(tmp_path / "o.jsonl"))
    assert not isinstance(model, StreamingModel)
    told, completion = followed(stream(model, request("a")))
    assert (told, completion.text) == (["It is 4."], "It is 4.")
    told, completion = followed(stream(model, request("b")))
    assert told == [] and completion.error is not None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompletionsServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with CompletionsServer() as running:
        running.say = lambda prompt: "First one, then two; at last ### three and the ### end."
        yield running


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize(
    "generation",
    [
        {"max_tokens": 40},
        {"max_tokens": 3},
        {"max_tokens": 40, "stop": ("###",)},
        {"max_tokens": 40, "stop": ("a", "b", "c", "d", "last #")},  # more than the server takes
        {"max_tokens": 6, "logprobs": 2},
    ],
    ids=str,
)
def test_a_server_streams_what_it_generates(server: CompletionsServer, api: Any, generation: dict[str, Any]) -> None:
    model = OpenAIEngine(base_url=server.base_url, api=api).load("tiny")
    asked = request("a", **generation)
    [expected] = model.generate([asked])
    told, completion = followed(stream(model, asked))
    assert "".join(told) == expected.text
    assert outcome(completion) == outcome(expected)
    assert completion.top_logprobs == expected.top_logprobs
    assert len(told) > 1 or generation.get("stop")


def test_pieces_of_a_server_are_there_before_the_end(server: CompletionsServer) -> None:
    server.pause = 30
    model = OpenAIEngine(base_url=server.base_url).load("tiny")
    with closing(stream(model, request("a"))) as pieces:
        assert next(piece for piece in pieces if piece) == "Fir"
    assert not [thread for thread in threading.enumerate() if thread.name == "openai"], "its connection is closed"


def test_an_answer_that_breaks_off_is_an_error(server: CompletionsServer) -> None:
    parts = [event({"choices": [{"text": "First"}]}), event({"choices": [{"text": " one"}]})]
    server.faults = lambda call: Reply(200, parts, drop=True)
    model = OpenAIEngine(base_url=server.base_url, max_retries=3).load("tiny")
    told, completion = followed(stream(model, request("a")))
    assert told == ["First", " one"]
    assert completion.error is not None and "it broke off" in completion.error and completion.finish_reason is None
    assert len(server.calls) == 1, "a part has been told: it is not asked again"


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([event({"choices": [{"text": "First"}]}), b"data: [DONE]\n\n"], "finish_reason is None"),
        ([event({"error": {"message": "the GPU is gone"}})], "the GPU is gone"),
        ([b"data: {nonsense\n\n"], "it broke off"),
        ([b"data: [1]\n\n", b"data: [DONE]\n\n"], "finish_reason is None"),
    ],
)
def test_what_a_server_says_wrongly_is_an_error(server: CompletionsServer, parts: list[bytes], says: str) -> None:
    server.faults = lambda call: Reply(200, parts)
    model = OpenAIEngine(base_url=server.base_url).load("tiny")
    _, completion = followed(stream(model, request("a")))
    assert says in (completion.error or "") and "\n" not in (completion.error or "")


def test_a_server_without_usage_leaves_the_counts_open(server: CompletionsServer) -> None:
    server.edit = lambda call, answer: {**change(answer), "usage": None}
    model = OpenAIEngine(base_url=server.base_url).load("tiny")
    _, completion = followed(stream(model, request("a", max_tokens=40)))
    assert (completion.prompt_tokens, completion.completion_tokens, completion.error) == (None, None, None)
