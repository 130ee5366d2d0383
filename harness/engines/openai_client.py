"""An HTTP client whose answers have an end: so many seconds and so many bytes for each, however they trickle in."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from harness import limits
from harness.errors import ModelError

#: Headers that are no longer true of a content that has been read.
_DECODED = (b"content-encoding", b"content-length", b"transfer-encoding")


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
    that is their beginning; the rest is bounded by who reads them.
    """
    import openai

    client: Any = openai.DefaultAsyncHttpxClient()  # of httpx or of its successor, whichever openai is made with
    send = client.send

    async def bounded(request: Any, *, stream: bool = False, **options: Any) -> Any:
        try:
            async with asyncio.timeout(seconds):
                begun = await send(request, stream=True, **options)
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
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _DECODED]
    return type(response)(status, headers=headers, content=bytes(content), request=response.request)
