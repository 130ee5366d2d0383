"""A server that does what no server should: what it does with a connection is named by the path that is asked for."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

Behaviour = Callable[[socket.socket], None]

#: What a good answer says, in both forms of the protocol.
_GOOD: dict[str, Any] = {
    "id": "x",
    "object": "text_completion",
    "choices": [
        {
            "index": 0,
            "text": "#### 1",
            "message": {"role": "assistant", "content": "#### 1"},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
}
_MODELS = {"object": "list", "data": [{"id": "tiny", "object": "model"}]}


def reply(body: bytes, *headers: str, status: str = "200 OK", length: object = None) -> bytes:
    """Return an answer as it goes over the wire; `length` lies about its size, and an empty text leaves it out."""
    said = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    if said != "":
        lines.append(f"Content-Length: {said}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def _good(**changes: Any) -> bytes:
    return json.dumps({**_GOOD, **changes}).encode()


def _choice(**changes: Any) -> bytes:
    return _good(choices=[{**_GOOD["choices"][0], **changes}])


def _message(content: object) -> bytes:
    return _choice(text=content, message={"role": "assistant", "content": content})


def _deep(depth: int) -> bytes:
    return b'{"choices":' + b"[" * depth + b"]" * depth + b"}"


#: Bodies that are sent with status 200 and a true length.
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "list": b"[]",
    "number": b"1e999",
    "text": b'"x"',
    "object": b"{}",
    "spaces": b" " * 99,
    "no-json": b"<html>busy</html>",
    "half-json": _good()[:40],
    "two": _good() + _good(),
    "bom": b"\xef\xbb\xbf" + _good(),
    "utf-16": _good().decode().encode("utf-16"),
    "no-utf-8": _good().replace(b"####", b"\xff\xfe\x80"),
    "zeros": b"\0" * 4096,
    "deep": _deep(100_000),
    "digits": _good().replace(b"6}", b"9" * 6000 + b"}"),
    "nan": b'{"choices": NaN, "usage": Infinity}',
    "nan-usage": _good(usage={"prompt_tokens": float("nan"), "completion_tokens": float("inf")}),
    "choices-null": _good(choices=None),
    "choices-empty": _good(choices=[]),
    "choices-object": _good(choices={"0": 1}),
    "choices-of-null": _good(choices=[None]),
    "choices-many": _good(choices=_GOOD["choices"] * 5000),
    "text-null": _message(None),
    "text-number": _message(7),
    "text-list": _message([1, {"type": "text", "text": 5}]),
    "text-parts": _message([{"type": "text", "text": []}, {"type": "thinking", "thinking": [[]]}]),
    "text-surrogate": _message("\ud800 #### 1"),
    "text-zeros": _message("\0" * 1000),
    "text-escape": _message("\x1b[2J\u202e#### 1"),
    "text-long": _message("x" * (8 << 20)),
    "message-list": _choice(text=None, message=[]),
    "message-deep": _choice(
        message={
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "x"}] * 9}],
        }
    ),
    "finish-number": _choice(finish_reason=7),
    "finish-list": _choice(finish_reason=["stop"]),
    "finish-long": _choice(finish_reason="x" * 100_000),
    "finish-escape": _choice(finish_reason="\x1b]0;x\x07\u202e\n"),
    "usage-null": _good(usage=None),
    "usage-list": _good(usage=[1]),
    "usage-negative": _good(usage={"prompt_tokens": -1, "completion_tokens": -(10**30)}),
    "usage-huge": _good(usage={"prompt_tokens": 10**30, "completion_tokens": 10**18}),
    "usage-fraction": _good(usage={"prompt_tokens": 0.5, "completion_tokens": 1e308}),
    "usage-texts": _good(usage={"prompt_tokens": "3", "completion_tokens": True}),
    "usage-details": _good(usage={"completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 10**40}}),
    "same-keys": b'{"choices": [], "choices": [{"text": "#### 1", "finish_reason": "stop"}], "usage": {}}',
    "error-within": json.dumps({"error": {"message": "no", "code": 500}}).encode(),
    "error-text": json.dumps({"error": "no"}).encode(),
    "logprobs-odd": _choice(logprobs={"content": [{"top_logprobs": 1}]}),
    "logprobs-nan": b'{"choices":[{"text":"#### 1","finish_reason":"stop","logprobs":{"top_logprobs":[{"a":NaN}]}}]}',
    "key-back": _choice(finish_reason="sk-SECRET-0123456789"),
    "key-within": _choice(finish_reason="sk-SEC...456789"),
}

#: Statuses with a body that explains nothing.
STATUSES: tuple[str, ...] = (
    "204 No Content",
    "206 Partial Content",
    "304 Not Modified",
    "400 Bad",
    "400 \x1b[31m",
    "401 No",
    "402 Pay",
    "403 No",
    "404 No",
    "405 No",
    "408 Late",
    "409 Conflict",
    "413 Large",
    "418 Teapot",
    "422 No",
    "425 Early",
    "429 Many",
    "451 Law",
    "500 Down",
    "502 Bad",
    "503 Down",
    "504 Late",
    "529 Busy",
    "599 X",
    "600 X",
    "999 X",
    "099 X",
    "-1 X",
    "20 X",
    "2000 X",
)

_OTHER = "http://127.0.0.2:9/elsewhere"

#: Answers as they go over the wire.
WIRE: dict[str, bytes] = {
    "closes": b"",
    "no-http": b"hello\r\n\r\n",
    "http-0.9": _good(),
    "http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9\r\n",
    "tls-alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "tls-hello": b"\x16\x03\x01\x02\x00\x01" + b"\0" * 600,
    "line-only": b"HTTP/1.1 200 OK\r\n",
    "no-headers": b"HTTP/1.1 200 OK\r\n\r\n" + _good(),
    "no-colon": b"HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n",
    "zero-header": b"HTTP/1.1 200 OK\r\nA: \0b\r\n\r\n",
    "bare-newlines": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "no-ascii": b"HTTP/1.1 200 OK\r\n\xff\xfe: x\r\n\r\n{}",
    "long-header": reply(_good(), "A: " + "x" * 2_000_000),
    "many-headers": reply(_good(), *["A: b"] * 100_000),
    "cookies": reply(_good(), *[f"Set-Cookie: a{n}=b; Domain=.org" for n in range(500)]),
    "length-short": reply(_good(), length=5),
    "length-negative": reply(_good(), length=-5),
    "length-text": reply(_good(), length="x"),
    "length-huge": reply(_good(), length=10**30),
    "length-twice": reply(_good(), "Content-Length: 3"),
    "length-none": reply(_good(), length=""),
    "length-cut": reply(_good(), length=10**6),
    "chunks-odd": reply(b"zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=""),
    "chunks-huge": reply(b"ffffffffffffffff\r\n{}", "Transfer-Encoding: chunked", length=""),
    "chunks-negative": reply(b"-5\r\n{}\r\n", "Transfer-Encoding: chunked", length=""),
    "chunks-cut": reply(b"5\r\n{}", "Transfer-Encoding: chunked", length=""),
    "chunks-note": reply(b"2;" + b"x" * 1_000_000 + b"\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=""),
    "chunks-and-length": reply(b"2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "chunks-twice": reply(b"2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked, chunked", length=""),
    "gzip-bomb": reply(gzip.compress(b" " * (200 << 20), 6), "Content-Encoding: gzip"),
    "gzip-in-gzip": reply(
        gzip.compress(gzip.compress(gzip.compress(b" " * (100 << 20), 6))), "Content-Encoding: gzip, gzip, gzip"
    ),
    "deflate-bomb": reply(zlib.compress(b"[" * (100 << 20), 6), "Content-Encoding: deflate"),
    "gzip-not": reply(_good(), "Content-Encoding: gzip"),
    "gzip-cut": reply(gzip.compress(_good())[:30], "Content-Encoding: gzip"),
    "brotli-not": reply(_good(), "Content-Encoding: br"),
    "zstd-not": reply(_good(), "Content-Encoding: zstd"),
    "encoding-unknown": reply(_good(), "Content-Encoding: " + "x, " * 1000 + "x"),
    "html": reply(b"<html></html>").replace(b"application/json", b"text/html; charset=x"),
    "charset-odd": reply(_good()).replace(b"application/json", b"application/json; charset=utf-7"),
    "event-stream": reply(b"data: {}\n\n").replace(b"application/json", b"text/event-stream"),
    "extra": reply(_good()) + reply(b"{}") * 20,
    "continue-flood": b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000 + reply(_good()),
    "hints-flood": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 50_000 + reply(_good()),
    "switching": reply(b"", "Upgrade: websocket", "Connection: Upgrade", status="101 Switching", length=""),
    "redirect-elsewhere": reply(b"", f"Location: {_OTHER}", status="307 Away"),
    "redirect-permanent": reply(b"", f"Location: {_OTHER}", status="308 Away"),
    "redirect-get": reply(b"", f"Location: {_OTHER}", status="302 Away"),
    "redirect-file": reply(b"", "Location: file:///etc/passwd", status="302 Away"),
    "redirect-odd": reply(b"", "Location: http://[::1", status="302 Away"),
    "redirect-none": reply(b"", status="302 Away"),
    "redirect-self": reply(b"", "Location: ?", status="302 Away"),
    "redirect-secret": reply(b"", "Location: http://user:pw@127.0.0.2:9/", status="307 Away"),
    "retry-for-ever": reply(b"{}", "Retry-After: 1e18", status="429 Many"),
    "retry-negative": reply(b"{}", "Retry-After: -5", "Retry-After-Ms: nan", status="503 Down"),
    "retry-date": reply(b"{}", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT", status="429 Many"),
    "error-long": reply(json.dumps({"error": {"message": "no\x1b[31m " * 500_000}}).encode(), status="400 Bad"),
    "error-key": reply(b'{"error": {"message": "bad key sk-SECRET-0123456789, sk-SEC...456789"}}', status="401 No"),
    "error-deep": reply(_deep(100_000), status="400 Bad"),
    "error-list": reply(b"[[]]", status="400 Bad"),
    "error-odd": reply(b'{"error": {"message": {"a": [1]}, "code": [], "param": {}}}', status="400 Bad"),
    "error-context": reply(
        b'{"error": {"message": "context length is 99999999999999999999999 and 1 in the messages"}}', status="400 Bad"
    ),
    "error-refuses-all": reply(
        b'{"error": {"message": "unsupported: top_p seed stop temperature max_completion_tokens"}}', status="400 Bad"
    ),
}


def _drip(connection: socket.socket, parts: Iterable[bytes], pause: float) -> None:
    for part in parts:
        connection.sendall(part)
        time.sleep(pause)


def _reset(connection: socket.socket, before: bytes) -> None:
    connection.sendall(before)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

#: Answers that take their time, or have no end.
SLOW: dict[str, Behaviour] = {
    "never": lambda connection: time.sleep(60),
    "resets": lambda connection: _reset(connection, b""),
    "resets-halfway": lambda connection: _reset(connection, reply(_good())[:90]),
    "drips-head": lambda connection: _drip(connection, (bytes([each]) for each in reply(_good())), 0.3),
    "drips-line": lambda connection: _drip(connection, itertools.repeat(b"x"), 0.3),
    "drips-headers": lambda connection: _drip(connection, itertools.chain([_HEAD], itertools.repeat(b"A: b\r\n")), 0.2),
    "drips-body": lambda connection: _drip(
        connection, itertools.chain([_HEAD + b"Content-Length: 99999\r\n\r\n"], itertools.repeat(b" ")), 0.3
    ),
    "drips-chunks": lambda connection: _drip(
        connection,
        itertools.chain([_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], itertools.repeat(b"1\r\n \r\n")),
        0.3,
    ),
    "drips-continue": lambda connection: _drip(connection, itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"), 0.2),
    "endless-body": lambda connection: _drip(
        connection, itertools.chain([_HEAD + b"\r\n"], itertools.repeat(b" " * 65536)), 0
    ),
    "endless-chunks": lambda connection: _drip(
        connection,
        itertools.chain(
            [_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], itertools.repeat(b"10000\r\n" + b"[" * 65536 + b"\r\n")
        ),
        0,
    ),
    "endless-headers": lambda connection: _drip(
        connection, itertools.chain([_HEAD], itertools.repeat(b"A: b\r\n" * 1000)), 0
    ),
    "endless-line": lambda connection: _drip(connection, itertools.repeat(b"x" * 65536), 0),
}


def behaviours() -> dict[str, Behaviour]:
    """Return all by their names."""

    def sends(content: bytes) -> Behaviour:
        return lambda connection: connection.sendall(content)

    found = {f"body-{name}": sends(reply(body)) for name, body in BODIES.items()}
    found |= {
        f"status-{status.split()[0]}-{number}": sends(reply(b'{"detail": "no"}', status=status))
        for number, status in enumerate(STATUSES)
    }
    found |= {f"wire-{name}": sends(content) for name, content in WIRE.items()}
    return found | {f"slow-{name}": behaviour for name, behaviour in SLOW.items()}


class Hostile:
    """The server in a process of its own: ``with Hostile() as url``, and ``URL/BEHAVIOUR/v1`` is its base URL.

    Models are listed as they should be, but below ``URL/BEHAVIOUR/all/v1``. ``URL/BEHAVIOUR`` is a hub's address
    too, where what is said of a file before it is sent is in order, but below ``URL/BEHAVIOUR/all``.
    """

    def __enter__(self) -> str:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._child = os.fork()
        if self._child == 0:
            _serve(listener)
        port = listener.getsockname()[1]
        listener.close()
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *error: object) -> None:
        os.kill(self._child, 9)
        os.waitpid(self._child, 0)


def _serve(listener: socket.socket) -> None:
    known = behaviours()
    try:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(connection, known), daemon=True).start()
    finally:
        os._exit(1)


def _answer(connection: socket.socket, known: dict[str, Behaviour]) -> None:
    with suppress(OSError), connection:
        connection.settimeout(30)
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := connection.recv(65536)):
                return
            head += piece
        first, _, rest = head.partition(b"\r\n")
        method, path = first.decode().split()[:2]
        length = next(
            (int(line[15:]) for line in rest.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        body = head.partition(b"\r\n\r\n")[2]
        while len(body) < length:
            if not (piece := connection.recv(65536)):
                return
            body += piece
        if path.endswith("/models") and "/all/" not in path:
            connection.sendall(reply(json.dumps(_MODELS).encode(), "Connection: close"))
            return
        if method == "HEAD" and "/datasets/" in path and "/all/" not in path:
            connection.sendall(
                reply(b"", 'ETag: "0123"', f"X-Repo-Commit: {'0' * 40}", "Connection: close", length=400)
            )
            return
        known[path.split("/")[1]](connection)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
