"""The engine ``openai`` against servers as they are: names, forms and refusals of their own, answers without an end."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from harness.engines.openai import OpenAIEngine
from harness.types import Message, Prompt
from tests.completions_server import Call, CompletionsServer, Reply, error, event
from tests.conftest import Command
from tests.engines.asking import ask, ask_one, change, numbered, request


@pytest.mark.parametrize(
    ("ended", "finish"),
    [
        ("eos", "stop"), ("end", "stop"), ("end_turn", "stop"), ("EOS_TOKEN", "stop"), (None, "stop"), ([], "stop"),
        ("completed", "stop"), ("stop_token", "stop"), ("MAX_TOKENS", "length"), ("token_limit", "length"),
        ("model_context_window_exceeded", "length"), ("SAFETY", "SAFETY"),
        ("model_length", "length"), ("max_tokens", "length"), ("tool_calls", "tool_calls"), ("abort", "abort"),
    ],
)  # fmt: skip
def test_no_text_is_thrown_away_for_the_name_of_its_end(server: CompletionsServer, ended: Any, finish: str) -> None:
    server.edit = lambda call, answer: change(answer, finish_reason=ended)
    found = ask_one(server)
    assert (found.text, found.finish_reason, found.error) == ("The answer is question", finish, None)


def test_an_end_that_is_not_told_is_the_limit_where_all_tokens_were_made(server: CompletionsServer) -> None:
    def without(call: Call, answer: dict[str, Any]) -> dict[str, Any]:
        del answer["choices"][0]["finish_reason"]
        return answer

    server.edit = without
    assert ask_one(server, generation={"max_tokens": 2}).finish_reason == "length"
    assert ask_one(server).finish_reason == "stop"


def test_what_a_content_filter_left_is_kept_with_the_failure(server: CompletionsServer) -> None:
    server.edit = lambda call, answer: change(answer, finish_reason="content_filter")
    found = ask_one(server)
    assert (found.text, found.error) == ("The answer is question", "it was cut off by a content filter")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"finish_reason": "error"}, "the server broke it off"),
        ({"finish_reason": "insufficient_system_resource"}, "the server broke it off, for lack of resources"),
        ({"finish_reason": "stop", "error": {"message": "upstream\nis gone", "code": 502}}, "upstream is gone"),
        ({"finish_reason": "error", "error": "lost"}, "the server broke it off: lost"),
    ],
)
def test_an_answer_that_the_server_broke_off_is_a_failure(
    server: CompletionsServer, fields: dict[str, Any], why: str
) -> None:
    server.edit = lambda call, answer: change(answer, **fields)
    found = ask_one(server)
    assert (found.text, found.finish_reason) == ("The answer is question", None) and why in (found.error or "")


ANSWER = json.dumps({"choices": [{"text": "It is 5.", "finish_reason": "stop"}]}).encode()
EVENTS = [event({"choices": [{"text": "It "}]}), event({"choices": [{"text": "is 5.", "finish_reason": "stop"}]})]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (ANSWER, {"Content-Type": "text/plain"}),
        (ANSWER, {"Content-Type": ""}),
        (b"\xef\xbb\xbf\n" + ANSWER, {"Content-Type": "text/html; charset=utf-8"}),
        (gzip.compress(ANSWER, mtime=0), {"Content-Encoding": "gzip"}),
        (b"".join(EVENTS), {"Content-Type": "text/event-stream"}),
        (b": keep-alive\n\n" + b"".join(EVENTS) + b"data: [DONE]\n\n", {}),
        (b'{"choices": [{"text": "It is 5."}], "error": null}', {}),
    ],
)
def test_an_answer_is_read_for_what_it_is_however_it_is_labelled(
    server: CompletionsServer, body: bytes, headers: dict[str, str]
) -> None:
    server.faults = lambda call: Reply(200, body, headers)
    found = ask_one(server)
    assert (found.text, found.finish_reason, found.error) == ("It is 5.", "stop", None)


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "2+3"}]}
TEXT = {"type": "text", "text": "It is 5."}


@pytest.mark.parametrize(
    ("message", "finish", "text"),
    [
        ({"content": [TEXT]}, "stop", "It is 5."),
        ({"content": [THOUGHT, TEXT]}, "stop", "<think>2+3</think>\n\nIt is 5."),
        ({"content": [{"type": "reasoning", "text": "2+3"}, TEXT]}, "stop", "<think>2+3</think>\n\nIt is 5."),
        ({"content": "It is 5.", "reasoning_content": "2+3"}, "stop", "<think>2+3</think>\n\nIt is 5."),
        ({"content": "It is 5.", "reasoning": "Sum"}, "stop", "<think>Sum</think>\n\nIt is 5."),
        ({"content": None, "reasoning_content": "2+"}, "length", "<think>2+"),
        ({"content": None, "reasoning": "2+3"}, "stop", "<think>2+3</think>\n\n"),
        ({"content": [{"type": "image", "url": "x"}]}, "stop", ""),
        ({"content": ["It is ", "5."]}, "stop", "It is 5."),
        ({"content": "It is 5.", "reasoning_content": [5]}, "stop", "It is 5."),
        ({"content": {"text": "It is 5."}}, "stop", "It is 5."),
        ({"content": [{"text": "It is 5."}, {"type": "text", "text": None}]}, "stop", "It is 5."),
        (
            {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "2+3"}]}, TEXT]},
            "stop",
            "<think>2+3</think>\n\nIt is 5.",
        ),
        ({"content": "It is 5.", "reasoning_content": [{"text": "2+3"}]}, "stop", "<think>2+3</think>\n\nIt is 5."),
        (
            {"content": "It is 5.", "reasoning_details": [{"type": "reasoning.text", "text": "2+3"}]},
            "stop",
            "<think>2+3</think>\n\nIt is 5.",
        ),
    ],
)  # fmt: skip
def test_content_in_parts_and_thoughts_in_fields_of_their_own(
    server: CompletionsServer, message: Any, finish: str, text: str
) -> None:
    server.edit = lambda call, answer: change(answer, message={"role": "assistant", **message}, finish_reason=finish)
    found = ask_one(server, api="chat")
    assert (found.text, found.finish_reason, found.error) == (text, finish, None)


def test_a_stop_string_in_a_thought_stops_nothing(server: CompletionsServer) -> None:
    message = {"content": "So 5.\n\nQ: 6", "reasoning_content": "Q: what?"}
    server.edit = lambda call, answer: change(answer, message=message)
    found = ask_one(server, api="chat", generation={"stop": ("\n\nQ:",)})
    assert found.text == "<think>Q: what?</think>\n\nSo 5."


def test_thoughts_are_streamed_before_the_text(server: CompletionsServer) -> None:
    deltas: list[dict[str, Any]] = [
        {"reasoning_content": "2+"},
        {"reasoning": "3"},
        {"content": "It "},
        {"content": "is 5."},
    ]
    events = [event({"choices": [{"delta": delta}]}) for delta in deltas]
    events.append(event({"choices": [{"delta": {}, "finish_reason": "end_turn"}]}))
    server.faults = lambda call: Reply(200, [*events, b"data: [DONE]\n\n"])
    model: Any = OpenAIEngine(base_url=server.base_url, api="chat").load("tiny")
    stream, told = model.stream(request("a")), ""
    while True:
        try:
            told += next(stream)
        except StopIteration as end:
            assert (told, end.value.finish_reason) == ("<think>2+3</think>\n\nIt is 5.", "stop")
            assert end.value.text == told
            return


@pytest.mark.parametrize("count", [-5, True, 1.5, "7", None])
def test_a_number_of_tokens_that_cannot_be_is_none(server: CompletionsServer, count: Any) -> None:
    server.edit = lambda call, answer: {**answer, "usage": {"prompt_tokens": count, "completion_tokens": count}}
    found = ask_one(server)
    assert (found.prompt_tokens, found.completion_tokens, found.error) == (None, None, None)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_an_answer_that_trickles_in_ends_with_the_time(server: CompletionsServer, api: Any) -> None:
    server.faults = lambda call: Reply(200, [b" "] * 100, pause=0.2) if "1" in str(call.prompt) else None
    found = ask(server, numbered(2), timeout=1, max_retries=0, api=api)
    assert found["q/1"].error == "no answer within 1 s in 1 attempt (openai.timeout, openai.max_retries)"
    assert found["q/0"].error is None


def test_a_streamed_answer_that_trickles_in_ends_with_the_time(server: CompletionsServer) -> None:
    piece = event({"choices": [{"delta": {"content": "a"}}]})
    server.faults = lambda call: Reply(200, [piece] * 100, pause=0.2)
    model: Any = OpenAIEngine(base_url=server.base_url, api="chat", timeout=1, max_retries=0).load("tiny")
    stream = model.stream(request("a"))
    with pytest.raises(StopIteration) as end:
        while True:
            next(stream)
    assert "it took more than 1 s" in end.value.value.error


def test_an_answer_without_an_end_fills_no_memory(server: CompletionsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LIMIT_ANSWER", "1MiB")
    server.faults = lambda call: Reply(200, [b" " * 65536] * 64) if "1" in str(call.prompt) else None
    found = ask(server, numbered(2))
    assert found["q/1"].error == "the server answered 413: its answer has more than 1 MiB (HARNESS_LIMIT_ANSWER)"
    assert found["q/0"].error is None


def test_arguments_of_the_chat_template_go_to_the_server(
    server: CompletionsServer, harness: Command, gsm8k_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = Prompt("Hi", None, (Message("user", "Hi"),), {"enable_thinking": False})
    assert ask_one(server, prompt, api="chat").error is None
    assert server.calls[0].body["chat_template_kwargs"] == {"enable_thinking": False}
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    refused = error("Unsupported parameter: 'top_p'", "unsupported_parameter", "top_p")
    server.faults = lambda call: Reply(400, refused) if "top_p" in call.body else None
    words = ["run", "-b", "gsm8k", "-e", "openai", "-m", "tiny", "--data", gsm8k_data, "-o", tmp_path / "runs"]
    said = ["--set", "openai.api=chat", "--set", "chat_template.enable_thinking=false", "--system", "Be brief."]
    assert harness(*words, *said).code == 0
    assert all(call.body["chat_template_kwargs"] == {"enable_thinking": False} for call in server.calls)
    assert server.calls[-1].body["messages"][0] == {"role": "system", "content": "Be brief."}
    [path] = (tmp_path / "runs").rglob("run.json")
    record = json.loads(path.read_text())
    assert record["identity"]["prompt_format"]["options"]["arguments"] == {"enable_thinking": False}
    assert record["notices"] == [
        "the server does not take top_p (Unsupported parameter: 'top_p'); requests go without it"
    ]


def test_what_a_judge_s_server_does_not_take_is_recorded(
    server: CompletionsServer, harness: Command, tmp_path: Path, outputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    refused = error("Unsupported parameter: 'top_p'", "unsupported_parameter", "top_p")
    server.faults = lambda call: Reply(400, refused) if "top_p" in call.body else None
    (tmp_path / "p.jsonl").write_text('{"instruction": "How?"}\n')
    words = ["run", "-b", tmp_path / "p.jsonl", "-m", outputs("So."), "-e", "replay", "-o", tmp_path / "runs"]
    words += ["--judge", "tiny", "--judge-engine", "openai", "--set", "prompts.scorer=safety"]
    harness(*words)
    [path] = (tmp_path / "runs").rglob("timing.json")
    [session] = json.loads(path.read_text())["judging"]
    notice = "the server does not take top_p (Unsupported parameter: 'top_p'); requests go without it"
    assert session["notices"] == [notice]
    assert harness("report", path.parent, "-o", tmp_path / "page.html").code == 0
    assert "judge tiny, sent otherwise than asked" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("details", "count"), [({"reasoning_tokens": 3}, 3), ({"reasoning_tokens": -1}, None), (7, None), (None, 4)]
)
def test_a_server_s_count_of_thought_tokens_is_kept(server: CompletionsServer, details: Any, count: int | None) -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 5, "completion_tokens_details": details}
    usage |= {"reasoning_tokens": 4} if details is None else {}
    server.edit = lambda call, answer: answer | {"usage": usage}
    found = ask_one(server, api="chat")
    assert (found.error, found.completion_tokens, found.thought_tokens) == (None, 5, count)
