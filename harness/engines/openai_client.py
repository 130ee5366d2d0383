"""An HTTP client whose answers have an end: so many seconds and so many bytes for each, however they trickle in."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

#: Bytes that one answer may have.
MOST_BYTES = 64 << 20

#: Headers that are no longer true of a content that has been read.
_DECODED = (b"content-encoding", b"content-length", b"transfer-encoding")


def bounded_client(seconds: float) -> Any:
    """Return a client for openai's, whose whole answers take `seconds` at most and have `MOST_BYTES` at most.

    One that takes longer is the time-out that openai's client knows; one that is larger becomes a 413. Streams are
    bounded by who reads them.
    """
    import openai

    client: Any = openai.DefaultAsyncHttpxClient()  # of httpx or of its successor, whichever openai is made with
    send = client.send

    async def bounded(request: Any, *, stream: bool = False, **options: Any) -> Any:
        if stream:
            return await send(request, stream=True, **options)
        try:
            async with asyncio.timeout(seconds):
                return await _whole(await send(request, stream=True, **options))
        except TimeoutError as error:
            library = sys.modules[type(request).__module__.partition(".")[0]]
            raise library.ReadTimeout("the answer did not end", request=request) from error

    client.send = bounded
    return client


async def _whole(response: Any) -> Any:
    """Return a response with its content read."""
    content, status = bytearray(), response.status_code
    try:
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MOST_BYTES:
                said = {"error": {"message": f"its answer has more than {MOST_BYTES >> 20} MiB"}}
                content, status = bytearray(json.dumps(said).encode()), 413
                break
    finally:
        await response.aclose()
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _DECODED]
    return type(response)(status, headers=headers, content=bytes(content), request=response.request)
