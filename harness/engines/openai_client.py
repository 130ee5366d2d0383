"""An HTTP client whose answers have an end: so many seconds and so many bytes for each, however they trickle in."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from harness import limits
from harness.errors import ModelError

#: Headers that are no longer true of a content that has been read.
_DECODED = (b"content-encoding", b"content-length", b"transfer-encoding")


#: Seconds after which a server that asks for a longer pause is asked again (the client's own bound).
LONGEST_WAIT = 120


class Budget:
    """What all answers together may take: `seconds` from now on, and `size` bytes."""

    def __init__(self, seconds: float, size: int) -> None:
        self._seconds, self._until = seconds, time.monotonic() + seconds
        self._size, self._used = size, 0

    def take(self, size: int) -> None:
        """Count bytes that have come."""
        self._used += size

    @property
    def left(self) -> float:
        """How many seconds are left, at least 0."""
        return max(0.0, self._until - time.monotonic())

    def check(self) -> None:
        """Raise ModelError where nothing is left."""
        if self._used > self._size:
            spent = f"the server's answers have more than {self._size:,} bytes in all (openai.total_bytes)"
        elif not self.left:
            spent = f"the server has had {self._seconds:,g} s in all (openai.total_timeout)"
        else:
            return
        raise ModelError(f"openai: {spent}; what has been answered is kept: give the same command again to go on")


def bounded_client(seconds: float, budget: Budget) -> Any:
    """Return a client for openai's, whose whole answers take `seconds` at most and have `limits.ANSWER` at most.

    What comes is counted in the `budget`.

    One that takes longer is the time-out that openai's client knows; one that is larger becomes a 413. Of streams
    that is their beginning; the rest is bounded by who reads them. An error that came as an answer gets the status that
    it tells, so that the client asks again where that helps, and what an answer is of is seen by its beginning.
    """
    import openai

    client: Any = openai.DefaultAsyncHttpxClient()  # of httpx or of its successor, whichever openai is made with
    send = client.send

    async def bounded(request: Any, *, stream: bool = False, **options: Any) -> Any:
        try:
            async with asyncio.timeout(seconds):
                begun = await send(request, stream=True, **options)
                _shorten_wait(begun.headers)
                return begun if stream else await _whole(begun, budget)
        except TimeoutError as error:
            library = sys.modules[type(request).__module__.partition(".")[0]]
            raise library.ReadTimeout("the answer did not end", request=request) from error

    client.send = bounded
    return client


async def _whole(response: Any, budget: Budget) -> Any:
    """Return a response with its content read."""
    content, status, most = bytearray(), response.status_code, limits.ANSWER.value
    try:
        async for chunk in response.aiter_bytes():
            content += chunk
            budget.take(len(chunk))
            if len(content) > most:
                said = {"error": {"message": f"its answer has more than {limits.ANSWER.told} ({limits.ANSWER})"}}
                content, status = bytearray(json.dumps(said).encode()), 413
                break
    finally:
        await response.aclose()
    beginning = content[:64].decode(json.detect_encoding(content), "replace").lstrip("\ufeff \t\r\n")
    response.headers["content-type"] = "application/json" if beginning.startswith(("{", "[")) else "text/plain"
    status = _status(content) if status == 200 else status
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _DECODED]
    return type(response)(status, headers=headers, content=bytes(content), request=response.request)


def _status(content: bytes | bytearray) -> int:
    """Return the status of an answer that came with 200: the one that it tells itself where it is an error."""
    if b"error" not in content or b'"choices"' in content:
        return 200
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return 200  # whoever reads it says why
    if not isinstance(body, dict) or not (body.get("error") or body.get("object") == "error"):
        return 200
    for each in (body.get("error"), body):
        code = str(each.get("code", each.get("status"))) if isinstance(each, dict) else ""
        if code.isdecimal() and 400 <= int(code) < 600:
            return int(code)
    return 400


def _shorten_wait(headers: Any) -> None:
    """Let the client wait where a server asks for more than the client would: it would not ask again at all."""
    asked: float | None = None
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(KeyError, ValueError):
            asked = float(headers[name]) / unit if asked is None else asked
    with suppress(KeyError, ValueError, TypeError):
        asked = parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time() if asked is None else asked
    if asked is not None and asked > LONGEST_WAIT:
        headers.pop("retry-after-ms", None)
        headers["retry-after"] = str(LONGEST_WAIT)
