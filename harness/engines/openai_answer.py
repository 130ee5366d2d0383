"""What servers of OpenAI's protocol answer, in the forms that they write it, as completions.

A server's own names for the end of an answer, contents in parts, thoughts in a field of their own: a text that came is
never thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from harness.types import Completion, FinishReason, Request

#: What servers write where an answer ended by itself, or at the limit; any other name is kept as it is.
_STOPPED = frozenset({"stop", "eos", "eos_token", "end", "end_turn", "stop_sequence", "complete", "done"})
_CUT = frozenset({"length", "model_length", "max_tokens", "max_output_tokens", "max_completion_tokens"})

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
    finish = _finish(choice.get("finish_reason"), made, request.generation.max_tokens)
    ends = [at for stop in request.generation.stop if (at := text.find(stop)) >= 0]
    if ends:
        text, finish = text[: min(ends)], "stop"
    sent = _count(usage, "prompt_tokens")
    if sent is None and request.prompt.token_ids is not None:
        sent = len(request.prompt.token_ids)
    filtered = finish == "content_filter"
    return Completion(
        request.id,
        with_thought(thought, text, ended=finish != "length"),
        None if filtered else finish,
        sent,
        made,
        seconds,
        "it was cut off by a content filter" if filtered else None,
        _top_logprobs(choice.get("logprobs")),
        thought_tokens=_count(details, "reasoning_tokens"),
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
    return next((value for name in THOUGHTS if isinstance(value := message.get(name), str) and value), "")


def text_in(content: object) -> tuple[str, str]:
    """Return the thought and the text in a message's content, which may be a list of parts."""
    if isinstance(content, str):
        return "", content
    if not isinstance(content, list):
        raise ValueError("its choice has no text")
    parts = list(_parts(content))
    return "".join(part for thought, part in parts if thought), "".join(part for thought, part in parts if not thought)


def _parts(content: list[Any]) -> Iterator[tuple[bool, str]]:
    """Yield the texts of parts, and whether each was thought."""
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in THOUGHTS:
            inner = next((part[name] for name in (*THOUGHTS, "text") if name in part), "")
            yield True, "".join(text_in(inner))
        elif kind in ("text", "output_text", "refusal") and isinstance(text := part.get("text", part.get(kind)), str):
            yield False, text
        elif kind is None:
            raise ValueError("its choice has no text")


def _said(choice: Mapping[str, Any]) -> tuple[str, str]:
    """Return the thought and the text of a choice; a text is empty where a model spent its tokens on thoughts."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return "", text_in(choice.get("text"))[1]
    thought, text = text_in(message.get("content") or message.get("refusal") or "")
    return thought_in(message) or thought, text


def _finish(ended: object, made: int | None, limit: int) -> FinishReason:
    """Return how an answer ended; where the server does not say, the number of its tokens does."""
    if isinstance(ended, str) and ended:
        name = ended.lower()
        return "stop" if name in _STOPPED else "length" if name in _CUT else ended
    return "length" if made is not None and made >= limit else "stop"


def _count(usage: object, name: str) -> int | None:
    """Return a number of tokens, None for what cannot be one."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


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
    except (msgspec.ValidationError, TypeError, AttributeError) as error:
        raise ValueError(f"its logprobs are malformed ({error!r})") from error
