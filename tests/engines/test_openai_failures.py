"""The engine ``openai`` against a real server that fails: what is tried again, told, or ends the call."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.engines.openai import OpenAIEngine
from harness.errors import ModelError
from tests.completions_server import Call, CompletionsServer, Reply, error
from tests.engines.asking import ask, ask_one, numbered, request

SOON = {"Retry-After-Ms": "1"}


# Failures of single requests


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_what_passes_is_tried_again(server: CompletionsServer, status: int) -> None:
    server.faults = lambda call: Reply(status, error("busy"), SOON) if call.attempt <= 2 else None
    found = ask(server, numbered(5), max_retries=2)
    assert all(c.error is None and c.text for c in found.values())
    assert len(server.calls) == 15
    assert sorted(call.headers["x-stainless-retry-count"] for call in server.calls) == ["0"] * 5 + ["1"] * 5 + ["2"] * 5


def test_retry_after_is_waited_for(server: CompletionsServer) -> None:
    server.faults = lambda call: Reply(429, error("busy"), {"Retry-After": "1"}) if call.attempt == 1 else None
    found = ask_one(server, max_retries=1)
    assert found.error is None
    assert found.seconds is not None
    assert found.seconds >= 1


@pytest.mark.parametrize("code", [429, "502"])
def test_an_error_that_comes_as_an_answer_is_tried_again(server: CompletionsServer, code: Any) -> None:
    body = {"error": {"message": "busy", "code": code}}
    server.faults = lambda call: Reply(200, body, SOON) if call.attempt == 1 else None
    assert ask_one(server, max_retries=1).text == "The answer is question"


@pytest.mark.parametrize(
    "headers",
    [{"Retry-After": "86400"}, {"Retry-After-Ms": "86400000"}, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}],
)
def test_a_longer_pause_than_the_client_takes_is_asked_again_after_its_longest(
    server: CompletionsServer, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engines.openai_client.LONGEST_WAIT", 1)
    server.faults = lambda call: Reply(429, error("busy"), headers) if call.attempt == 1 else None
    assert ask_one(server, max_retries=1).error is None


def test_after_the_last_retry_that_request_fails_and_the_others_go_on(server: CompletionsServer) -> None:
    def faults(call: Call) -> Reply | None:
        return Reply(500, error("out of\nmemory"), SOON) if str(call.prompt).endswith(" 3") else None

    server.faults = faults
    found = ask(server, numbered(10), max_retries=2)
    failed = found.pop("q/3")
    assert (failed.text, failed.finish_reason) == ("", None)
    assert failed.error == "the server answered 500: out of memory"
    assert all(c.error is None for c in found.values())
    assert len(server.calls) == 9 + 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (error("maximum context length is 2048 tokens, you asked for 3000"), "maximum context length is 2048 tokens"),
        ({"object": "error", "message": "too long", "code": 400}, "too long"),
        ({"detail": "too long"}, "too long"),
        (b"too long", "too long"),
        (b"", "400"),
    ],
)
def test_a_prompt_that_is_too_long_is_that_requests_error(server: CompletionsServer, body: Any, said: str) -> None:
    server.faults = lambda call: Reply(400, body) if str(call.prompt).endswith(" 1") else None
    found = ask(server, numbered(3))
    assert (found["q/1"].error or "").startswith("the server answered 400: ")
    assert said in (found["q/1"].error or "")
    assert [found[i].error for i in ("q/0", "q/2")] == [None, None]
    assert len(server.calls) == 3


def test_a_time_out_is_tried_again_and_then_told() -> None:
    with CompletionsServer(delay=lambda call: 30.0 if call.prompt == "slow" or call.attempt == 1 else 0.0) as server:
        found = ask(server, [request("a", "slow"), request("b", "quick")], timeout=1, max_retries=1)
        assert found["b"].text == "The answer is quick"
        assert found["a"].error == "no answer within 1 s in 2 attempts (openai.timeout, openai.max_retries)"


@pytest.mark.parametrize("sent", [0, 40])
def test_a_dropped_connection_is_tried_again_and_then_told(server: CompletionsServer, sent: int) -> None:
    def faults(call: Call) -> Reply | None:
        dropped = Reply(200, b" " * 100, drop=True, sent=sent)
        return dropped if call.prompt == "lost" or call.attempt == 1 else None

    server.faults = faults
    found = ask(server, [request("a", "lost"), request("b", "found")], max_retries=1)
    assert found["b"].text == "The answer is found"
    assert (found["a"].error or "").startswith("the connection was lost in 2 attempts: ")
    assert len(server.calls) == 4


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(200, b"<html>proxy</html>"), "not a JSON object but '<html>proxy"),
        (Reply(200, b""), "not a JSON object but ''"),
        (Reply(200, {"error": "Unexpected endpoint"}), "the server answered 400: Unexpected endpoint"),
        (Reply(200, {"object": "error", "message": "too long", "code": 422}), "the server answered 422: too long"),
        (Reply(200, b'data: {"error": {"message": "gone"}}\n\n'), "it broke off: {'message': 'gone'}"),
        (Reply(200, b'data: {"choices": [{"te'), "cannot be read: Unterminated string"),
        (Reply(400, error("refused", "content_filter")), "the server answered 400: refused"),
        (Reply(403, error("your input was flagged by moderation")), "the server answered 403: your input was flagged"),
        (Reply(200, b"<html>proxy</html>", {"Content-Type": "text/html"}), "not a JSON object but '<html>proxy"),
        (Reply(200, b'{"choices": [{"te'), "cannot be read: "),
        (Reply(200, b'"\xff"'), "cannot be read: "),
        (Reply(200, b"[" * 100_000), "cannot be read: "),
        (Reply(200, b"null"), "not a JSON object"),
        (Reply(200, []), "not a JSON object"),
        (Reply(200, {}), "it has no choices"),
        (Reply(200, {"choices": []}), "it has no choices"),
        (Reply(200, {"choices": [None]}), "it has no choices"),
        (Reply(200, {"choices": {"0": 1}}), "it has no choices"),
        (Reply(200, {"choices": [{"finish_reason": "stop"}]}), "its choice has no text"),
        (Reply(200, {"choices": [{"finish_reason": "stop", "text": 4}]}), "its choice has no text"),
        (Reply(200, {"choices": [{"finish_reason": "stop", "message": {"content": [4]}}]}), "its choice has no text"),
        (Reply(200, {"choices": [{"finish_reason": "content_filter", "text": ""}]}), "cut off by a content filter"),
        (
            Reply(200, {"choices": [{"text": "a", "finish_reason": "stop", "logprobs": {"content": [{}]}}]}),
            "its logprobs are malformed",
        ),
        (
            Reply(200, {"choices": [{"text": "a", "finish_reason": "stop", "logprobs": {"top_logprobs": [3]}}]}),
            "its logprobs are malformed",
        ),
    ],
)
def test_wrong_answers_are_errors_and_the_others_go_on(server: CompletionsServer, reply: Reply, said: str) -> None:
    server.faults = lambda call: reply if str(call.prompt).endswith(" 0") else None
    found = ask(server, numbered(3))
    assert said in (found["q/0"].error or "")
    assert "\n" not in (found["q/0"].error or "")
    assert (found["q/0"].text, found["q/0"].finish_reason) == ("", None)
    assert [found[i].error for i in ("q/1", "q/2")] == [None, None]


def test_a_prompt_with_a_lone_surrogate_cannot_be_sent(server: CompletionsServer) -> None:
    found = ask(server, [request("a", "half \ud83d pair"), request("b")])
    assert found["a"].error == r"the prompt cannot be sent: it holds '\ud83d', which UTF-8 does not have"
    assert found["b"].error is None


def test_a_long_message_with_control_characters_is_one_short_line(server: CompletionsServer) -> None:
    server.faults = lambda call: Reply(400, error("\x1b[31mred\r\n\x00" + "x" * 10_000))
    told = ask_one(server).error or ""
    assert told.isprintable()
    assert len(told) < 500


# What ends the whole call


def test_a_server_that_is_not_there(server: CompletionsServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ModelError, match=rf"no server at http://127\.0\.0\.1:{port}/v1 \(.*\): start it, or set"):
        OpenAIEngine(base_url=f"http://127.0.0.1:{port}/v1").load("tiny")


def test_a_server_that_is_killed_in_the_middle() -> None:
    script = Path(__file__).parents[1] / "completions_server.py"
    command = [sys.executable, str(script), "--delay", "0.02"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            model = OpenAIEngine(base_url=url, concurrency=4, max_retries=1).load("tiny")
            done = []
            with pytest.raises(ModelError, match="no server at"):
                for completion in model.generate(numbered(100_000)):
                    done.append(completion)
                    if len(done) == 10:
                        process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
    assert all(c.error is None for c in done[:10])
    assert len(done) <= 10 + 8


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_call(server: CompletionsServer, status: int) -> None:
    server.faults = lambda call: Reply(status, error("no access"))
    with pytest.raises(ModelError, match=rf"answered {status} for 'tiny': no access; set OPENAI_API_KEY"):
        ask(server, numbered(1000), concurrency=2)
    assert len(server.calls) <= 4


def test_a_key_that_is_refused_from_the_start() -> None:
    class Closed(CompletionsServer):
        def list_models(self) -> Reply:
            return Reply(401, error("who are you?"))

    with Closed() as server, pytest.raises(ModelError, match=r"answered 401 .* who are you\?; set OPENAI_API_KEY"):
        OpenAIEngine(base_url=server.base_url).load("tiny")


def test_an_unknown_model_ends_the_call_and_the_nearest_is_named(server: CompletionsServer) -> None:
    model = OpenAIEngine(base_url=server.base_url).load("tinny")
    with pytest.raises(ModelError, match=r"answered 404 for 'tinny': .* does not exist; .*did you mean 'tiny'\?"):
        list(model.generate(numbered(100)))


def test_a_wrong_base_url_ends_the_call(server: CompletionsServer) -> None:
    model = OpenAIEngine(base_url=server.base_url.removesuffix("/v1")).load("tiny")
    with pytest.raises(ModelError, match=r"answered 404 .*: Not Found; .*the base URL \(it mostly ends in /v1\)"):
        list(model.generate(numbered(3)))


def test_an_empty_account_ends_the_call(server: CompletionsServer) -> None:
    server.faults = lambda call: Reply(429, error("You exceeded your quota", "insufficient_quota"), SOON)
    with pytest.raises(ModelError, match="quota; the account has nothing left"):
        ask(server, numbered(3), max_retries=1)


@pytest.mark.parametrize("listing", [Reply(404, {"detail": "Not Found"}), Reply(200, b"<html>"), Reply(500, {})])
def test_a_server_need_not_list_its_models(listing: Reply) -> None:
    class Unlisted(CompletionsServer):
        def list_models(self) -> Reply:
            return listing

    with Unlisted() as server:
        assert ask_one(server).error is None


def test_neither_server_nor_key() -> None:
    with pytest.raises(ModelError, match="no server given: set OPENAI_BASE_URL"):
        OpenAIEngine().load("gpt-4-1106-preview")
