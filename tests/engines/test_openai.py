"""The engine ``openai`` against a real server: answers, concurrency, options, and a key that stays secret."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import math
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.config import configure, options_of
from harness.engines.openai import OpenAIEngine, harness_engines
from harness.engines.openai_said import without_key
from harness.errors import ConfigError, ModelError
from harness.interfaces import Engine
from harness.types import Completion, Message, Prompt, Request
from tests.completions_server import Call, CompletionsServer, Reply, error
from tests.engines.asking import ask, ask_one, change, numbered, request

ENCODERS = (base64.b64encode, base64.urlsafe_b64encode)
KEY = "sk-test-0123456789abcdef"


# Answers


def test_it_is_an_engine() -> None:
    (engine,) = harness_engines()
    assert isinstance(engine, Engine)
    assert engine.name == "openai"
    assert engine.available() is None
    assert engine.tokenizer("tiny") is None


def test_it_says_how_to_install_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'posttrain-harness[openai]'" in (OpenAIEngine().available() or "")
    with pytest.raises(ModelError, match="openai is not installed: pip install"):
        OpenAIEngine().load("tiny")


def test_every_request_is_answered_once(server: CompletionsServer) -> None:
    found = ask(server, numbered(100))
    assert {i: c.text for i, c in found.items()} == {f"q/{n}": f"The answer is {n}" for n in range(100)}
    assert all(c.error is None and c.finish_reason == "stop" for c in found.values())
    assert all((c.prompt_tokens, c.completion_tokens) == (3, 5) for c in found.values())
    assert all(c.seconds is not None and c.seconds > 0 for c in found.values())


def test_no_requests_give_no_completions(server: CompletionsServer) -> None:
    assert ask(server, []) == {}


def test_the_base_url_comes_from_the_environment(server: CompletionsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.base_url}/")
    engine = OpenAIEngine()
    assert engine.url == server.base_url
    assert next(engine.load("tiny").generate([request("a")])).text == "The answer is question"


def test_what_is_sent_for_a_completion(server: CompletionsServer) -> None:
    generation = {"max_tokens": 9, "stop": ("#",), "temperature": 0.5, "top_p": 0.9, "seed": 3, "logprobs": 2}
    ask_one(server, generation=generation, extra_body={"top_k": 20})
    (call,) = server.calls
    assert call.path == "/v1/completions"
    assert call.body == {"model": "tiny", "prompt": "a question", **generation, "stop": ["#"], "top_k": 20}


def test_what_is_sent_for_a_chat(server: CompletionsServer) -> None:
    messages = (Message("system", "Judge."), Message("user", "Which?"))
    found = ask_one(server, Prompt("…", None, messages), api="chat", generation={"max_tokens": 4, "logprobs": 2})
    assert found.text == "The answer is Which?"
    assert server.calls[0].path == "/v1/chat/completions"
    assert server.calls[0].body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Judge."}, {"role": "user", "content": "Which?"}],
        "max_tokens": 4,
        "temperature": 0.0,
        "top_p": 1.0,
        "logprobs": True,
        "top_logprobs": 2,
    }


def test_a_prompt_without_messages_is_one_user_message_in_a_chat(server: CompletionsServer) -> None:
    ask_one(server, "the whole prompt", api="chat")
    assert server.calls[0].body["messages"] == [{"role": "user", "content": "the whole prompt"}]


def test_a_chat_prompt_cannot_be_completed_without_a_tokenizer(server: CompletionsServer) -> None:
    prompt = Prompt("hello", None, (Message("user", "hello"),))
    with pytest.raises(ModelError, match=r"set openai\.api=chat, or openai\.tokenizer_path"):
        ask_one(server, prompt)
    assert server.calls == []


def test_token_ids_are_sent_where_there_are_any(server: CompletionsServer) -> None:
    found = ask_one(server, Prompt("text", (1, 5, 9)))
    assert server.calls[0].body["prompt"] == [1, 5, 9]
    assert (found.text, found.prompt_tokens) == ("The answer is 9", 3)


def test_the_tokenizer_comes_from_its_own_folder(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"?": 0, "a": 1, "question": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    saved = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")  # type: ignore[no-untyped-call]
    saved.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    tokenizer = OpenAIEngine(tokenizer_path=str(tmp_path)).tokenizer("name-on-the-server")
    assert tokenizer is not None
    assert tokenizer.encode("a question") == [1, 2]


def test_the_limit_and_stop_strings_end_an_answer(server: CompletionsServer) -> None:
    server.say = lambda prompt: "one two # Query: three"
    cut = ask_one(server, generation={"max_tokens": 2})
    assert (cut.text, cut.finish_reason, cut.completion_tokens) == ("one two", "length", 2)
    stopped = ask_one(server, generation={"stop": ("# Query:",)})
    assert (stopped.text, stopped.finish_reason, stopped.completion_tokens) == ("one two ", "stop", 4)


def test_stop_strings_beyond_what_the_server_takes_cut_here(server: CompletionsServer) -> None:
    server.say = lambda prompt: "one two three four"
    stops = ("A", "B", "C", "D", "three", "two")
    found = ask_one(server, generation={"stop": stops, "max_tokens": 3})
    assert server.calls[0].body["stop"] == ["A", "B", "C", "D"]
    assert (found.text, found.finish_reason, found.completion_tokens) == ("one ", "stop", 3)
    ask_one(server, "again", generation={"stop": stops}, stop_limit=6)
    assert server.calls[1].body["stop"] == list(stops)


def test_a_stop_string_that_a_server_includes_is_cut(server: CompletionsServer) -> None:
    server.edit = lambda call, answer: change(answer, text="one# Query: ")
    assert ask_one(server, generation={"stop": ("# Query:",)}).text == "one"


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_logprobs_in_both_forms(server: CompletionsServer, api: str) -> None:
    found = ask_one(server, api=api, generation={"logprobs": 2, "max_tokens": 2})
    assert found.top_logprobs == ({"The": -0.5, "The1": -1.5}, {" answer": -0.5, " answer1": -1.5})
    assert [next(iter(position)) for position in found.top_logprobs] == ["The", " answer"]


def test_of_two_tokens_that_read_alike_the_likelier_stands(server: CompletionsServer) -> None:
    top = [{"token": "�", "logprob": -0.1}, {"token": "�", "logprob": -4.0}, {"token": "m", "logprob": -5}]
    logprobs = {"content": [{"token": "�", "logprob": -0.1, "top_logprobs": top}]}
    server.edit = lambda call, answer: change(answer, logprobs=logprobs)
    assert ask_one(server, api="chat", generation={"logprobs": 3}).top_logprobs == ({"�": -0.1, "m": -5.0},)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": "7"}, "absent"])
def test_missing_usage_is_not_made_up(server: CompletionsServer, usage: Any) -> None:
    def edit(call: Call, answer: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in answer.items() if name != "usage"}
        return rest if usage == "absent" else rest | {"usage": usage}

    server.edit = edit
    found = ask_one(server)
    assert (found.prompt_tokens, found.completion_tokens, found.error) == (None, None, None)
    assert ask_one(server, Prompt("text", (1, 2))).prompt_tokens == 2


def test_a_model_that_wants_max_completion_tokens_gets_it(server: CompletionsServer) -> None:
    server.limit_names = ("max_completion_tokens",)
    found = ask(server, numbered(20), api="chat", concurrency=2)
    assert all(c.error is None for c in found.values())
    assert sum("max_tokens" in call.body for call in server.calls) <= 2  # those sent before the first refusal came in


@pytest.mark.parametrize(
    ("fields", "text", "finish"),
    [
        ({"message": {"content": None}, "finish_reason": "length"}, "", "length"),
        ({"message": {"content": None, "refusal": "No."}}, "No.", "stop"),
        ({"finish_reason": "eos_token"}, "The answer is question", "stop"),
        ({"finish_reason": "stop_sequence"}, "The answer is question", "stop"),
    ],
)
def test_forms_of_answers(server: CompletionsServer, fields: dict[str, Any], text: str, finish: str) -> None:
    server.edit = lambda call, answer: change(answer, **fields)
    found = ask_one(server, api="chat")
    assert (found.text, found.finish_reason, found.error) == (text, finish, None)


@pytest.mark.parametrize("text", ["lone \ud800 surrogate", "\x00\x1b[2J", "漢字 é 🎉", "x" * 1_000_000, ""])
def test_odd_texts_come_through(server: CompletionsServer, text: str) -> None:
    server.edit = lambda call, answer: change(answer, text=text)
    found = ask_one(server)
    assert (found.text, found.error) == (text, None)


# Concurrency


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_concurrency_is_reached_and_never_passed(concurrency: int) -> None:
    together = threading.Barrier(concurrency)

    def wait_for_the_others(call: Call) -> float:
        together.wait(timeout=30)  # breaks, and so fails the request, unless that many are open at once
        return 0.002

    with CompletionsServer(delay=wait_for_the_others) as server:
        found = ask(server, numbered(3 * concurrency), concurrency=concurrency)
        assert all(c.error is None for c in found.values())
        assert server.most == concurrency


def test_requests_are_pulled_lazily(server: CompletionsServer) -> None:
    pulled = 0

    def requests() -> Iterator[Request]:
        nonlocal pulled
        for item in numbered(1000):
            pulled += 1
            yield item

    model = OpenAIEngine(base_url=server.base_url, concurrency=4).load("tiny")
    for done, _ in enumerate(model.generate(requests()), 1):
        assert pulled <= done + 2 * 4
    assert pulled == 1000


def test_completions_come_as_they_finish() -> None:
    let_go = threading.Event()

    def delay(call: Call) -> float:
        if call.prompt == "slow":
            let_go.wait(30)
        return 0.0

    with CompletionsServer(delay=delay) as server:
        model = OpenAIEngine(base_url=server.base_url).load("tiny")
        order = []
        for completion in model.generate([request("slow", "slow"), request("b", "quick 1"), request("c", "quick 2")]):
            order.append(completion.id)
            if len(order) == 2:
                let_go.set()
        assert sorted(order[:2]) == ["b", "c"]
        assert order[2:] == ["slow"]


def test_leaving_early_cancels_what_is_under_way() -> None:
    let_go = threading.Event()

    def delay(call: Call) -> float:
        if call.number > 1:
            let_go.wait(60)
        return 0.0

    with CompletionsServer(delay=delay) as server:
        completions = OpenAIEngine(base_url=server.base_url, concurrency=4).load("tiny").generate(numbered(100))
        next(completions)
        before = {thread.name for thread in threading.enumerate()}
        completions.close()  # type: ignore[attr-defined]
        after = {thread.name for thread in threading.enumerate()}
        let_go.set()
    assert "openai" in before
    assert "openai" not in after
    assert len(server.calls) <= 5


def test_it_works_where_an_event_loop_runs_already(server: CompletionsServer) -> None:
    async def notebook() -> dict[str, Completion]:
        return ask(server, numbered(3))

    assert len(asyncio.run(notebook())) == 3


def test_an_error_in_the_requests_ends_the_call(server: CompletionsServer) -> None:
    def requests() -> Iterator[Request]:
        yield from numbered(3)
        raise KeyError("no such example")

    with pytest.raises(KeyError, match="no such example"):
        ask(server, requests(), concurrency=1)


def test_a_model_generates_more_than_once(server: CompletionsServer) -> None:
    model = OpenAIEngine(base_url=server.base_url).load("tiny")
    assert [len(list(model.generate(numbered(3)))) for _ in range(3)] == [3, 3, 3]


# Options, identity and the key


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1001}, "concurrency"),
        ({"timeout": 0}, "timeout"),
        ({"max_retries": -1}, "max_retries"),
        ({"stop_limit": -1}, "stop_limit"),
        ({"api": "chat", "tokenizer_path": "dir"}, "tokenizer_path goes with"),
        ({"base_url": "localhost:8000/v1"}, "must look like http://localhost:8000/v1"),
        ({"base_url": "http:///v1"}, "must look like"),
        ({"base_url": "http://me:secret@host/v1"}, "must not hold a user name, a password"),
        ({"base_url": "http://host/v1?api-key=secret"}, "must not hold"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        OpenAIEngine(**options)
    assert "secret" not in str(caught.value)


def test_options_come_from_tables() -> None:
    table = {"concurrency": "8", "api": "chat", "timeout": 5, "extra_body": {"top_k": 20}}
    engine = configure(OpenAIEngine(), table, "openai")
    assert engine == OpenAIEngine(concurrency=8, api="chat", timeout=5.0, extra_body={"top_k": 20})
    assert options_of(engine)["extra_body"] == {"top_k": 20}
    with pytest.raises(ConfigError, match=r"openai\.api: .*'completions' or 'chat'"):
        configure(OpenAIEngine(), {"api": "responses"}, "openai")
    with pytest.raises(ConfigError, match="base_url must not hold") as caught:
        configure(OpenAIEngine(), {"base_url": "http://me:secret@host/v1"}, "openai")
    assert "secret" not in str(caught.value)


def test_a_base_url_in_the_environment_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:secret@host/v1")
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL must not hold") as caught:
        OpenAIEngine().identity("tiny")
    assert "secret" not in str(caught.value)


def test_the_identity() -> None:
    engine = OpenAIEngine(base_url="http://host:1/v1/", extra_body={"top_k": 5})
    assert engine.identity("tiny") == {
        "base_url": "http://host:1/v1",
        "model": "tiny",
        "api": "completions",
        "tokenizer": None,
        "extra_body": {"top_k": 5},
    }


def test_the_key_is_sent_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The server here does its worst: it writes the key into every error."""
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    shown: list[str] = []
    with CompletionsServer(api_key=KEY) as server:
        engine = OpenAIEngine(base_url=server.base_url)
        told = [
            Reply(400, error(f"bad {KEY}")),
            Reply(400, error(f"Incorrect API key provided: {KEY[:10]}**{KEY[-4:]}. See the docs...")),
            Reply(400, error(f"bad {KEY[:8]}…{KEY[-4:]}, {KEY[:8]}... or ...{KEY[-4:]}")),
            Reply(200, f"<{KEY}>".encode()),
            Reply(200, {KEY: KEY}),
            Reply(200, KEY),
        ]
        told += [Reply(200, {"choices": [{"text": "", "finish_reason": KEY}]})]
        server.faults = lambda call: told[call.number - 1] if call.number <= len(told) else None
        model = engine.load("tiny")
        completions = list(model.generate(numbered(10)))
        assert sum(c.error is None for c in completions) == 4  # any name for the end of an answer will do
        assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {KEY}"}
        shown += [json.dumps(dataclasses.asdict(c)) for c in completions]
        shown += [
            repr(engine),
            repr(model),
            json.dumps(engine.identity("tiny")),
            json.dumps(dataclasses.asdict(engine)),
        ]
        for status in (401, 403, 404):
            server.faults = lambda call, status=status: Reply(status, error(f"not with {KEY}"))  # type: ignore[misc]
            with pytest.raises(ModelError) as caught:
                list(model.generate(numbered(1)))
            shown += [str(caught.value), "".join(traceback.format_exception(caught.value))]
    shown.append(caplog.text)
    assert all(KEY not in text for text in shown)
    assert all(part not in text for text in shown[:-1] for part in (KEY[:8], KEY[-4:])), "shortened ones neither"
    assert sum("[key]" in text for text in shown) >= 3 + 2


def test_a_key_that_no_header_can_hold_is_not_shown(server: CompletionsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("sk-sécret", "sk-sec\nret"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(ModelError, match="OPENAI_API_KEY holds characters") as caught:
            OpenAIEngine(base_url=server.base_url).load("tiny")
        assert key not in str(caught.value)


def test_without_a_key_a_placeholder_is_sent(server: CompletionsServer) -> None:
    ask_one(server)
    assert server.calls[0].headers["authorization"] == "Bearer no-key"


def test_nan_is_no_number_to_send(server: CompletionsServer) -> None:
    assert ask_one(server, extra_body={"top_k": math.nan}).error is not None


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_an_answer_that_repeats_the_key_is_kept_without_it(monkeypatch: pytest.MonkeyPatch, api: Any) -> None:
    key = "sk-5e?c>r~e t-0123456789abcdef".replace(" ", "")
    monkeypatch.setenv("OPENAI_API_KEY", key)
    texts = [f"<{key}>"] + [encode(f"{'x' * n}{key}y".encode()).decode() for n in range(4) for encode in ENCODERS]
    with CompletionsServer() as server:
        choices = [{"text": text, "message": {"content": text}, "finish_reason": "stop"} for text in texts]
        server.faults = lambda call: Reply(200, {"choices": [choices[call.number - 1]]})
        completions = list(OpenAIEngine(base_url=server.base_url, api=api).load("tiny").generate(numbered(len(texts))))
    assert len(completions) == len(texts)
    assert all("[key]" in completion.text and len(completion.text) < 16 for completion in completions)
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    assert without_key("The list is EMPTY.") == "The list is EMPTY.", "which is no secret"
