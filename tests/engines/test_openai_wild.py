"""The engine ``openai`` against servers as they are: names, forms and refusals of their own, answers without an end."""

from __future__ import annotations

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


def test_parameters_may_be_left_out(server: CompletionsServer) -> None:
    assert ask_one(server, omit=("top_p", "seed"), generation={"seed": 3}).error is None
    assert not {"top_p", "seed"} & server.calls[0].body.keys() and "temperature" in server.calls[0].body
    engine = OpenAIEngine(base_url=server.base_url)
    assert "omit" not in engine.identity("tiny")
    assert OpenAIEngine(omit=("top_p",)).identity("tiny")["omit"] == ["top_p"]
    with pytest.raises(ValueError, match="cannot do without messages"):
        OpenAIEngine(omit=("messages",))


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (error("Unsupported parameter: 'top_p' is not supported with this model.", None, "top_p"), {"top_p"}),
        (error("`temperature` and `top_p` cannot both be specified for this model."), {"top_p"}),
        (error("Unsupported value: 'temperature' does not support 0.0", None, "temperature"), {"temperature"}),
        ({"detail": "Extra inputs are not permitted: seed"}, {"seed"}),
    ],
)  # fmt: skip
def test_a_parameter_that_the_server_refuses_is_left_out_and_said_once(
    server: CompletionsServer, caplog: pytest.LogCaptureFixture, body: Any, names: set[str]
) -> None:
    server.faults = lambda call: Reply(400, body) if names & call.body.keys() else None
    model: Any = OpenAIEngine(base_url=server.base_url, concurrency=1).load("tiny")
    asked = [request(f"q/{n}", f"question {n}", seed=1) for n in range(6)]
    assert all(each.error is None for each in model.generate(asked))
    assert len(server.calls) == 7
    [notice] = model.notices
    assert f"the server does not take {names.pop()} (" in notice and caplog.text.count(notice) == 1


def test_what_the_user_puts_into_the_body_is_not_left_out(server: CompletionsServer) -> None:
    server.faults = lambda call: Reply(400, error("Unsupported parameter: 'top_p'")) if "top_p" in call.body else None
    assert "Unsupported parameter" in (ask_one(server, extra_body={"top_p": 0.5}).error or "")
    assert len(server.calls) == 1


def test_a_refusal_of_something_else_stays_a_failure(server: CompletionsServer) -> None:
    server.faults = lambda call: Reply(400, error("the prompt is not supported"))
    assert ask_one(server).error == "the server answered 400: the prompt is not supported"
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens (2000 in the messages, "
        "1000 in the completion).",
        "'max_tokens' or 'max_completion_tokens' is too large: 1000. This model's maximum context length is 2048 "
        "tokens and your request has 2000 input tokens (1000 > 2048 - 2000).",
        "Requested token count exceeds the model's maximum context length of 2048 tokens. You requested a total of "
        "3000 tokens: 2000 tokens from the input messages and 1000 tokens for the completion.",
        "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 2000 `inputs` tokens and 1000 `max_new_tokens`",
        "max_tokens=1000 cannot be greater than max_model_len=49. Please request fewer output tokens.",
        "max_tokens is too large: 1000. This model supports at most 48 completion tokens, whereas you provided 1000.",
        "max_tokens: 1000 > 48, which is the maximum allowed number of output tokens",
    ],
)
def test_the_limit_is_lowered_to_what_the_context_leaves(server: CompletionsServer, said: str) -> None:
    server.faults = lambda call: Reply(400, error(said)) if call.body.get("max_tokens", 0) > 48 else None
    model: Any = OpenAIEngine(base_url=server.base_url, concurrency=1).load("tiny")
    found = list(model.generate(request(f"q/{n}", f"question {n}", max_tokens=1000) for n in range(3)))
    assert [each.error for each in found] == [None] * 3
    assert [call.body["max_tokens"] for call in server.calls] == [1000, 48] * 3
    assert model.notices == ["max_tokens is above what the model or its context allows; it was lowered where needed"]


def test_a_prompt_that_leaves_no_room_stays_a_failure(server: CompletionsServer) -> None:
    said = "maximum context length is 2048 tokens and your request has 2048 input tokens"
    server.faults = lambda call: Reply(400, error(said))
    assert said in (ask_one(server).error or "") and len(server.calls) == 1


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
    ("details", "count"), [({"reasoning_tokens": 3}, 3), ({"reasoning_tokens": -1}, None), (7, None)]
)
def test_a_server_s_count_of_thought_tokens_is_kept(server: CompletionsServer, details: Any, count: int | None) -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 5, "completion_tokens_details": details}
    server.edit = lambda call, answer: answer | {"usage": usage}
    found = ask_one(server, api="chat")
    assert (found.error, found.completion_tokens, found.thought_tokens) == (None, 5, count)
