"""What servers of OpenAI's protocol answer, in the forms that they write it, as completions.

A server's own names for the end of an answer, contents in parts, thoughts in a field of their own: a text that came is
never thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from harness.types import Completion, FinishReason, Request

#: What servers write where an answer ended by itself, or at the limit; any other name is kept as it is.
_STOPPED = frozenset(
    {"stop", "stopped", "stop_token", "stop_sequence", "eos", "eos_token", "eos_token_id", "end", "end_turn"}
    | {"complete", "completed", "finished", "done"}
)
_CUT = frozenset(
    {"length", "max_length", "model_length", "context_length", "length_limit", "token_limit", "max_tokens"}
    | {"max_new_tokens", "max_output_tokens", "max_completion_tokens", "model_context_window_exceeded"}
)

#: What they write where an answer was cut by no fault of its own.
_BROKEN = {
    "content_filter": "it was cut off by a content filter",
    "error": "the server broke it off",
    "insufficient_system_resource": "the server broke it off, for lack of resources",
}

#: More tokens than any answer has.
_MOST = 1 << 40

#: Fields of a message, and of a part of it, in which servers keep what a model thought.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")


class _Alternative(msgspec.Struct):
    token: str
    logprob: float


class _Token(msgspec.Struct):
    """A position of the chat form's logprobs."""

    top_logprobs: Sequence[_Alternative]


def completion(answer: object, request: Request, seconds: float) -> Completion:
    """Read the JSON of an answer in either form of the protocol; ValueError says what is missing or odd in it."""
    if not isinstance(answer, dict):
        raise ValueError(f"not a JSON object but {str(answer)[:100]!r}")
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("it has no choices")
    choice = choices[0]
    thought, text = _said(choice)
    usage = answer.get("usage")
    made = _count(usage, "completion_tokens")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    thought_tokens = next(filter(None, (_count(each, "reasoning_tokens") for each in (details, usage))), None)
    finish = _finish(choice.get("finish_reason"), made, request.generation.max_tokens)
    ends = [at for stop in request.generation.stop if (at := text.find(stop)) >= 0]
    if ends:
        text, finish = text[: min(ends)], "stop"
    sent = _count(usage, "prompt_tokens")
    if sent is None and request.prompt.token_ids is not None:
        sent = len(request.prompt.token_ids)
    broken = _broken(choice, finish)
    return Completion(
        request.id,
        with_thought(thought, text, ended=finish != "length"),
        None if broken else finish,
        sent,
        made,
        seconds,
        broken,
        _top_logprobs(choice.get("logprobs")),
        thought_tokens=None if made is not None and (thought_tokens or 0) > made else thought_tokens,
    )


def with_thought(thought: str, text: str, *, ended: bool) -> str:
    """Return a text behind what was thought, between the borders that models write; open where neither has ended.

    >>> with_thought("Hm.", "So 4.", ended=True), with_thought("Hm", "", ended=False), with_thought("", "4", ended=True)
    ('<think>Hm.</think>\\n\\nSo 4.', '<think>Hm', '4')
    """
    if not thought:
        return text
    return f"<think>{thought}</think>\n\n{text}" if text or ended else f"<think>{thought}"


def thought_in(message: Mapping[str, Any]) -> str:
    """Return what a message, or a piece of it, holds of thoughts in a field of its own."""
    for name in (*THOUGHTS, "reasoning_details"):
        value = message.get(name)
        if isinstance(value, str) and value:
            return value
        with suppress(ValueError):  # the text counts, whatever its thought looks like
            if isinstance(value, list) and (said := "".join(text for _, text in _parts(value))):
                return said
    return ""


def text_in(content: object) -> tuple[str, str]:
    """Return the thought and the text in a message's content, which may be a part or a list of parts."""
    if isinstance(content, str):
        return "", content
    if not isinstance(content, list | dict):
        raise ValueError("its choice has no text")
    parts = list(_parts(content if isinstance(content, list) else [content]))
    return "".join(part for thought, part in parts if thought), "".join(part for thought, part in parts if not thought)


def _parts(content: list[Any]) -> Iterator[tuple[bool, str]]:
    """Yield the texts of parts, and whether each was thought."""
    for part in content:
        if isinstance(part, str):
            yield False, part
            continue
        if not isinstance(part, dict) or not part.keys() & {"type", "text", "refusal"}:
            raise ValueError("its choice has no text")
        kind = str(part.get("type") or "text").lower()
        if kind in THOUGHTS:
            inner = next((part[name] for name in (*THOUGHTS, "text", "summary") if part.get(name)), "")
            yield True, "".join(text_in(inner))
        elif kind.endswith("text") or kind == "refusal":
            text = part.get("text", part.get(kind))
            yield False, text if isinstance(text, str) else ""


def _said(choice: Mapping[str, Any]) -> tuple[str, str]:
    """Return the thought and the text of a choice; a text is empty where a model spent its tokens on thoughts."""
    message = choice.get("message")
    if not isinstance(message, dict):
        text = choice.get("text", choice)
        return "", "" if text is None else text_in(None if text is choice else text)[1]
    thought, text = text_in(message.get("content") or message.get("refusal") or "")
    return thought_in(message) or thought, text


def _finish(ended: object, made: int | None, limit: int) -> FinishReason:
    """Return how an answer ended; where the server does not say, the number of its tokens does."""
    if isinstance(ended, str) and ended:
        name = ended.lower()
        return "stop" if name in _STOPPED else "length" if name in _CUT else ended
    return "length" if made is not None and made >= limit else "stop"


def _broken(choice: Mapping[str, Any], finish: str) -> str | None:
    """Return why an answer is not what the model would have said, None where it is."""
    error = choice.get("error")
    why = _BROKEN.get(finish.lower(), "the server broke it off" if error else None)
    told = error.get("message") if isinstance(error, dict) else error
    return f"{why}: {told}" if why and told else why


def _count(usage: object, name: str) -> int | None:
    """Return a number of tokens, None for what cannot be one."""
    count = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(count, float) and count.is_integer():
        count = int(count)
    return count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < _MOST else None


def _top_logprobs(logprobs: object) -> tuple[Mapping[str, float], ...]:
    """Return the alternatives at each position, from the completions form or the chat form.

    Where two tokens read alike (parts of one character) the more likely one stands, as it comes first.
    """
    if not isinstance(logprobs, dict):
        return ()
    try:
        if isinstance(content := logprobs.get("content"), list):
            tokens = msgspec.convert(content, list[_Token])
            positions = [[(top.token, top.logprob) for top in token.top_logprobs] for token in tokens]
        else:
            positions = [list((top or {}).items()) for top in logprobs.get("top_logprobs") or ()]
        found: list[dict[str, float]] = [{} for _ in positions]
        for alternatives, position in zip(found, positions, strict=True):
            for token, value in position:
                alternatives.setdefault(token, float(value))
        return tuple(found)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"its logprobs are malformed ({error!r})") from error
