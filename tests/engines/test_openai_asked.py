"""What the engine ``openai`` asks: changed by what a server says that it does not take, and told once."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engines.openai import OpenAIEngine
from harness.engines.openai_said import left_for
from harness.types import Message, Prompt
from tests.completions_server import Call, CompletionsServer, Reply, error
from tests.engines.asking import ask_one, request

LOWERED = "max_tokens is above what the model or its context allows; it was lowered where needed"


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
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, {"seed"}),
        ({"error": "Input validation error: `top_p` must be > 0.0 and < 1.0"}, {"top_p"}),
        (error("`temperature` must be strictly positive"), {"temperature"}),
        (error("invalid temperature: only 1 is allowed for this model"), {"temperature"}),
        (error("This model doesn't support the seed parameter"), {"seed"}),
        (error("'seed' is not a valid parameter"), {"seed"}),
        (error("Bad request", None, "seed"), {"seed"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [400, 422])
def test_a_parameter_that_the_server_refuses_is_left_out_and_said_once(
    server: CompletionsServer, caplog: pytest.LogCaptureFixture, body: Any, names: set[str], status: int
) -> None:
    server.faults = lambda call: Reply(status, body) if names & call.body.keys() else None
    model: Any = OpenAIEngine(base_url=server.base_url, concurrency=1).load("tiny")
    asked = [request(f"q/{n}", f"question {n}", seed=1) for n in range(6)]
    assert all(each.error is None for each in model.generate(asked))
    assert len(server.calls) == 7
    [notice] = model.notices
    [name] = names
    assert f"the server does not take {name} (" in notice and caplog.text.count(notice) == 1


def test_what_the_user_puts_into_the_body_is_not_left_out(server: CompletionsServer) -> None:
    server.faults = lambda call: Reply(400, error("Unsupported parameter: 'top_p'")) if "top_p" in call.body else None
    assert "Unsupported parameter" in (ask_one(server, extra_body={"top_p": 0.5}).error or "")
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("said", "asked", "left_out"),
    [
        ("`temperature` must be between 0 and 2, not 3", {"temperature": 3.0}, False),
        ("Invalid 'temperature': above maximum value. Expected a value <= 2.", {"temperature": 3.0}, False),
        ("Bad request", {"temperature": 3.0}, False),
        ("Input validation error: `top_p` must be > 0.0 and < 1.0", {"top_p": 1e-9}, False),
        ("Unsupported value: only the default (1) value is supported.", {"temperature": 0.7}, True),
        ("top_p is deprecated for this model", {"top_p": 0.9}, True),
        ("seed must be at most 2147483647", {"seed": 2**40}, True),
    ],
)
def test_a_value_is_refused_where_another_one_would_do(
    server: CompletionsServer, said: str, asked: dict[str, Any], left_out: bool
) -> None:
    """Without it, or with the server's own, the run would measure something else than was asked for."""
    [name] = asked
    server.faults = lambda call: Reply(400, error(said, None, name)) if name in call.body else None
    assert ask_one(server, generation=asked).error == (None if left_out else f"the server answered 400: {said}")
    assert len(server.calls) == 1 + left_out


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
        "Invalid max_tokens value, the valid range of max_tokens is [1,48]",
        "gpt-4-0613: `max_tokens` must be no more than 48, as the `context_window` of this model is larger",
        "Error code: 400 - max_tokens (1,000) exceeds the maximum allowed value of 48",
        "Prompt contains 2,000 tokens and max_tokens is 1,000: more than the context length (2,048)",
        "input length and max_tokens exceed the context limit: 2000 + 1000 > 2048; give less of either",
        "the context window has 2048 tokens, but a total of 3000 were requested",
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_the_limit_is_lowered_to_what_the_context_leaves(server: CompletionsServer, said: str, status: int) -> None:
    server.faults = lambda call: Reply(status, error(said)) if call.body.get("max_tokens", 0) > 48 else None
    model: Any = OpenAIEngine(base_url=server.base_url, concurrency=1).load("tiny")
    found = list(model.generate(request(f"q/{n}", f"question {n}", max_tokens=1000) for n in range(3)))
    assert [each.error for each in found] == [None] * 3
    assert [call.body["max_tokens"] for call in server.calls] == [1000, 48] * 3
    assert model.notices == [LOWERED]


def least(call: Call) -> Reply | None:
    """Refuse as vLLM does, which reads no more of a prompt than would fit and one token more."""
    asked = call.body["max_tokens"]
    said = (
        f"maximum context length is 2048 tokens. However, you requested {asked} output tokens and your prompt contains "
    )
    said += f"at least {2049 - asked} input tokens, for a total of at least 2049 tokens."
    return Reply(400, error(said)) if asked > 48 else None


def test_a_prompt_whose_length_the_server_does_not_tell_takes_few_requests(server: CompletionsServer) -> None:
    server.faults = least
    assert ask_one(server, generation={"max_tokens": 1000}).error is None
    assert [call.body["max_tokens"] for call in server.calls] == [1000, 500, 250, 125, 62, 31]
    server.calls.clear()
    assert ask_one(server, Prompt("a", tuple(range(2000))), generation={"max_tokens": 1000}).error is None
    assert [call.body["max_tokens"] for call in server.calls] == [1000, 48]


def test_a_limit_that_is_lowered_by_one_and_one_is_soon_halved(server: CompletionsServer) -> None:
    def faults(call: Call) -> Reply | None:
        asked = call.body["max_tokens"]
        return Reply(400, error(f"max_tokens={asked} must be below {asked - 1}")) if asked > 48 else None

    server.faults = faults
    assert ask_one(server, generation={"max_tokens": 1000}).error is None
    assert len(server.calls) < 10


def test_a_prompt_that_leaves_no_room_stays_a_failure(server: CompletionsServer) -> None:
    said = "maximum context length is 2048 tokens and your request has 2048 input tokens"
    server.faults = lambda call: Reply(400, error(said))
    assert said in (ask_one(server).error or "") and len(server.calls) == 1


@pytest.mark.parametrize(
    "said",
    [
        "The maximum context length is 8192 tokens. However, you requested 10000 tokens (9000 in the messages, 1000 in "
        "the completion).",
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
        "Expected max_tokens of 2000 or more, but got 1000",
        "Too many requests: 30 of at most 20 in a minute",
        "gpt-4-0613 knows no max_tokens (status 400)",
    ],
)
def test_other_numbers_lower_no_limit(said: str) -> None:
    assert left_for(said, 1000) is None


def test_both_names_of_the_limit_are_not_tried_without_end(server: CompletionsServer) -> None:
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    server.faults = lambda call: Reply(400, error(said)) if "max_tokens" in call.body else None
    assert "Unsupported parameter" in (ask_one(server, extra_body={"max_tokens": 7}).error or "")
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    "said",
    [
        "System role not supported",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "Only user and assistant roles are supported!",
        "Developer instruction is not enabled for this model",
        "Invalid role: system",
        "This model does not support system messages",
    ],
)
def test_a_system_message_that_the_server_refuses_stands_before_the_question(
    server: CompletionsServer, said: str
) -> None:
    server.faults = lambda call: Reply(400, error(said)) if call.body["messages"][0]["role"] == "system" else None
    model: Any = OpenAIEngine(base_url=server.base_url, api="chat", concurrency=1).load("tiny")
    prompt = Prompt("", None, (Message("system", "Be brief."), Message("user", "How?")))
    assert [each.error for each in model.generate([request("a", prompt), request("b", prompt)])] == [None, None]
    assert [len(call.body["messages"]) for call in server.calls] == [2, 1, 1]
    assert server.calls[-1].body["messages"] == [{"role": "user", "content": "Be brief.\n\nHow?"}]
    [notice] = model.notices
    assert "the server takes no system message (" in notice
