"""A real HTTP server that speaks OpenAI's completions and chat completions protocol, for tests and measurements.

In a thread of the test, with a script that says what goes wrong::

    with CompletionsServer() as server:
        server.faults = lambda call: Reply(429, error("slow down"), {"Retry-After": "1"}) if call.attempt == 1 else None

In a process of its own, which can be killed: ``python tests/completions_server.py --delay 0.1`` prints its base URL.
Its "model" answers ``say(prompt)``, one token for each word, honouring max_tokens, stop and logprobs as servers do.
Only the standard library is needed.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, TypeAlias, cast

Body: TypeAlias = "dict[str, Any]"
Words: TypeAlias = "str | list[int]"


@dataclass(frozen=True)
class Call:
    """One request as it arrived.

    `attempt` counts from 1 how often its prompt has been sent, `number` all requests. Names of headers are lower case.
    """

    number: int
    attempt: int
    path: str
    headers: Mapping[str, str]
    body: Body

    @property
    def prompt(self) -> Words:
        """The text or the token ids to go on from; in a chat, what was said last."""
        return cast(Words, self.body["messages"][-1]["content"] if "messages" in self.body else self.body["prompt"])


@dataclass(frozen=True)
class Reply:
    """What the server sends instead of an answer. A `body` of bytes goes as it is, anything else as JSON.

    A `body` that is a list of bytes is streamed, `pause` seconds between its parts. `drop` hangs up (a reset
    connection) after `sent` bytes of the answer, of a stream after all of it.
    """

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    sent: int = 0
    pause: float = 0.0


def error(message: str, code: str | None = None, param: str | None = None) -> Body:
    """Return an error body in OpenAI's form."""
    return {"error": {"message": message, "type": "error", "param": param, "code": code}}


def echo(prompt: Words) -> str:
    """Answer with the prompt's last word, or its last token id."""
    last = prompt[-1] if isinstance(prompt, list) else (prompt.split() or [""])[-1]
    return f"The answer is {last}"


class CompletionsServer:
    """The server; a context manager that runs it in a thread.

    `models` are served, any other is a 404. `api_key`, when set, is demanded. `delay` is the latency in seconds, or
    gives it for each call, and `pause` that between the parts of a streamed answer. `say` maps a prompt to the whole
    answer; `faults` may return a Reply that is sent instead; `edit` may change the answer's JSON. `limit_names` are the
    names of the token limit that it takes, others are a 400.

    `calls` are the requests for completions so far; `most` is how many were being answered at the same time at most.
    """

    def __init__(
        self,
        models: tuple[str, ...] = ("tiny",),
        *,
        api_key: str | None = None,
        delay: float | Callable[[Call], float] = 0.0,
        port: int = 0,
        limit_names: tuple[str, ...] = ("max_tokens", "max_completion_tokens"),
    ) -> None:
        self.models, self.api_key, self.delay, self.limit_names = models, api_key, delay, limit_names
        self.say: Callable[[Words], str] = echo
        self.faults: Callable[[Call], Reply | None] = lambda call: None
        self.edit: Callable[[Call, Body], Any] = lambda call, answer: answer
        self.pause = 0.0
        self.calls: list[Call] = []
        self.most = 0
        self._now = 0
        self._attempts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._http = _HTTPServer(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL would be."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> CompletionsServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def serve_forever(self) -> None:
        """Serve in this thread until the process ends."""
        self._http.serve_forever()

    def answer(self, path: str, headers: Mapping[str, str], body: Body) -> Reply:
        """Return the reply to one POST."""
        if self.api_key is not None and headers.get("authorization") != f"Bearer {self.api_key}":
            return Reply(401, error(f"Incorrect API key provided: {headers.get('authorization')}", "invalid_api_key"))
        call = self._note(path, headers, body)
        with self._busy():
            self._closing.wait(self.delay(call) if callable(self.delay) else self.delay)
            fault = self.faults(call)
            if fault is not None:
                return fault
            refusal = self._refusal(call)
            if refusal is not None:
                return refusal
            answer = self.edit(call, self._completion(call))
            return Reply(200, events(answer), pause=self.pause) if body.get("stream") else Reply(200, answer)

    def list_models(self) -> Reply:
        """Return the reply to ``GET /v1/models``."""
        return Reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    def _note(self, path: str, headers: Mapping[str, str], body: Body) -> Call:
        with self._lock:
            prompt = json.dumps(body.get("prompt", body.get("messages")))
            self._attempts[prompt] += 1
            call = Call(len(self.calls) + 1, self._attempts[prompt], path, headers, body)
            self.calls.append(call)
            return call

    @contextmanager
    def _busy(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def _refusal(self, call: Call) -> Reply | None:
        if call.path not in ("/v1/completions", "/v1/chat/completions"):
            return Reply(404, {"detail": "Not Found"})
        if call.body.get("model") not in self.models:
            return Reply(404, error(f"The model `{call.body.get('model')}` does not exist.", "model_not_found"))
        for name in ("max_tokens", "max_completion_tokens"):
            if name in call.body and name not in self.limit_names:
                told = f"Unsupported parameter: '{name}' is not supported with this model."
                return Reply(400, error(f"{told} Use '{self.limit_names[0]}' instead.", "unsupported_parameter", name))
        return None

    def _completion(self, call: Call) -> Body:
        text, finish, count, tokens = generate(self.say(call.prompt), call.body)
        chat = call.path.endswith("/chat/completions")
        logprobs = (_chat_logprobs if chat else _logprobs)(tokens, call.body)
        choice: Body = {"index": 0, "finish_reason": finish, "logprobs": logprobs}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        prompt = call.prompt
        sent = len(prompt) if isinstance(prompt, list) else len(prompt.split())
        usage = {"prompt_tokens": sent, "completion_tokens": count, "total_tokens": sent + count}
        kind = "chat.completion" if chat else "text_completion"
        return {
            "id": "cmpl-1",
            "object": kind,
            "created": 0,
            "model": call.body["model"],
            "choices": [choice],
            "usage": usage,
        }


def events(answer: Body) -> list[bytes]:
    """Return an answer as server-sent events: a few characters in each, then how it ended, then what it took."""
    choice = answer["choices"][0]
    chat = "message" in choice
    text = choice["message"]["content"] if chat else choice["text"]
    pieces = [text[start : start + 3] for start in range(0, len(text), 3)]
    deltas: list[Body] = [{"delta": {"content": piece}} if chat else {"text": piece} for piece in pieces]
    end: Body = {"delta": {}} if chat else {"text": ""}
    deltas.append({**end, "finish_reason": choice["finish_reason"], "logprobs": choice["logprobs"]})
    chunks = [{"choices": [{"index": 0, **delta}]} for delta in deltas]
    return [event(chunk) for chunk in [*chunks, {"choices": [], "usage": answer["usage"]}]] + [b"data: [DONE]\n\n"]


def event(data: Body) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def generate(answer: str, body: Body) -> tuple[str, str, int, list[str]]:
    """Return text, finish reason, token count and tokens of an answer under a request's limit and stop strings."""
    limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
    words: list[str] = re.findall(r"\s*\S+", answer)
    text, used = "", words[:limit]
    for count, word in enumerate(used, 1):
        text += word
        ends = [text.index(stop) for stop in body.get("stop") or () if stop in text]
        if ends:
            return text[: min(ends)], "stop", count, used[:count]
    if len(words) > limit:
        return text, "length", limit, used
    return text, "stop", len(used) + 1, used  # one more: the end token


def _alternatives(token: str, count: int) -> list[tuple[str, float]]:
    return [(token if rank == 0 else f"{token}{rank}", -0.5 - rank) for rank in range(count)]


def _logprobs(tokens: list[str], body: Body) -> Body | None:
    if not (count := body.get("logprobs")):
        return None
    top = [dict(_alternatives(token, count)) for token in tokens]
    return {"tokens": tokens, "token_logprobs": [-0.5] * len(tokens), "top_logprobs": top, "text_offset": []}


def _chat_logprobs(tokens: list[str], body: Body) -> Body | None:
    if not body.get("logprobs"):
        return None
    content = []
    for token in tokens:
        top = [{"token": t, "logprob": p, "bytes": None} for t, p in _alternatives(token, body.get("top_logprobs", 0))]
        content.append({"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": top})
    return {"content": content, "refusal": None}


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], served: CompletionsServer) -> None:
        super().__init__(address, _Handler)
        self.served = served

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news; anything else is a fault of this server and is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    @property
    def served(self) -> CompletionsServer:
        return cast(_HTTPServer, self.server).served

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to stderr."""

    def do_GET(self) -> None:
        self._send(self.served.list_models() if self.path == "/v1/models" else Reply(404, {"detail": "Not Found"}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(self.served.answer(self.path, {name.lower(): value for name, value in self.headers.items()}, body))

    def _stream(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in reply.body:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()
            self.served._closing.wait(reply.pause)
        if reply.drop:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

    def _send(self, reply: Reply) -> None:
        if isinstance(reply.body, list):
            self._stream(reply)
            return
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **reply.headers}
        if not reply.drop or reply.sent:
            self.send_response(reply.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: reply.sent] if reply.drop else content)
            self.wfile.flush()
        if reply.drop:
            self.close_connection = True
            if not reply.sent:  # close at once with a reset, as a process that was killed does
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def main() -> None:
    """Serve until killed; print the base URL first."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0, help="latency in seconds")
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    server = CompletionsServer((arguments.model,), delay=arguments.delay, port=arguments.port)
    print(server.base_url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
