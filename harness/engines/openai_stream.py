"""Server-sent events of OpenAI's protocol, put together to what the server would have answered without streaming."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from harness import limits
from harness.engines.openai_answer import text_in, thought_in, with_thought

if TYPE_CHECKING:
    from openai import AsyncOpenAI


async def streamed(
    client: AsyncOpenAI, path: str, body: Mapping[str, Any], tell: Callable[[str], object], seconds: float
) -> object:
    """Send a request, `tell` all of the answer's text so far as it grows, and return the whole answer's JSON.

    It may take `seconds` at most from its first piece to its last, and have `limits.ANSWER` characters. Raises openai's
    errors where the server refuses, ValueError where the answer breaks off.
    """
    import openai

    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    events = await client.post(path, cast_to=object, body=asked, stream=True, stream_cls=openai.AsyncStream[object])
    answer, most = _Answer(), limits.ANSWER.value
    try:
        async with events, asyncio.timeout(seconds):
            async for event in events:
                answer.add(event)
                if answer.size > most:
                    raise ValueError(f"it has more than {limits.ANSWER.told} ({limits.ANSWER})")
                tell(answer.text)
    except TimeoutError as error:
        raise ValueError(f"it took more than {seconds:g} s") from error
    except Exception as error:  # an error event, no JSON, or whatever the client's HTTP library raises
        raise ValueError(f"it broke off ({error or type(error).__name__})") from error
    return answer.whole()


def unstreamed(text: str) -> object:
    """Return the whole answer in server-sent events that a server sent unasked; other text as it is.

    Raises ValueError where they break off.
    """
    events = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    answer = _Answer()
    for event in events:
        if event != "[DONE]":
            answer.add(json.loads(event))
    return answer.whole() if events else text


class _Answer:
    """One answer in the making, in either form of the protocol."""

    def __init__(self) -> None:
        self._content = ""
        self._thought = ""
        self._chat = False
        self._finish_reason: object = None
        self._usage: object = None
        self._logprobs: dict[str, list[Any]] = {}

    @property
    def text(self) -> str:
        """All that has come so far, thoughts between their borders."""
        return with_thought(self._thought, self._content, ended=False)

    @property
    def size(self) -> int:
        """The number of characters so far."""
        return len(self._thought) + len(self._content)

    def add(self, event: object) -> None:
        """Take in one event; what is none of the protocol's is left to the check of the whole."""
        if not isinstance(event, Mapping):
            return
        if error := event.get("error"):
            raise ValueError(f"it broke off: {error}")
        self._usage = event.get("usage") or self._usage  # of the last event, which has no choices
        choices = event.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
            return
        choice = choices[0]
        delta = choice.get("delta")
        self._chat |= isinstance(delta, Mapping)
        piece: object = choice.get("text")
        if isinstance(delta, Mapping):
            thought, piece = text_in(delta.get("content") or delta.get("refusal") or "")
            self._thought += thought_in(delta) or thought
        self._content += piece if isinstance(piece, str) else ""
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        logprobs = choice.get("logprobs")
        for name in ("content", "top_logprobs"):
            if isinstance(logprobs, Mapping) and isinstance(logprobs.get(name), list):
                self._logprobs.setdefault(name, []).extend(logprobs[name])

    def whole(self) -> dict[str, Any]:
        """Return the answer as a server gives it in one piece."""
        if self._finish_reason is None:
            raise ValueError("it broke off: its finish_reason is None")
        message = {"content": self._content, "reasoning_content": self._thought}
        text = {"message": message} if self._chat else {"text": self._content}
        choice = {**text, "finish_reason": self._finish_reason, "logprobs": self._logprobs or None}
        return {"choices": [choice], "usage": self._usage}
