"""A sample as text, for error analysis."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from harness.evaluation.judgements import Verdict
from harness.types import Sample


def kinds_of(sample: Sample, parser: str | None, verdict: Verdict | None = None) -> set[str]:
    """Return what is wrong with a sample, as read by `parser`, and its verdict.

    Wrong means parsed, but not to the gold answer; failed, that the engine or the judge gave nothing.
    """
    if sample.status == "engine_error" or (verdict is not None and verdict.verdict == "judge_error"):
        return {"failed"}
    found = {"truncated"} if sample.finish_reason == "length" else set()
    if verdict is not None:
        found.add(verdict.verdict)
    if parser is not None and sample.answers.get(parser) is None:
        found.add("unparsed")
    elif any(value < 1 for value in list(sample.scores.get(parser or "", {}).values())[:1]):
        found.add("wrong")
    return found


def printable(text: str) -> str:
    """Return text that cannot steer a terminal: control, format and surrogate characters as visible escapes.

    >>> printable("a\\x1b[2Jb\\u202ec\\n")
    'a\\\\x1b[2Jb\\\\u202ec\\n'
    """
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _HIDDEN else _escape(c) for c in text)


def on_one_line(text: str) -> str:
    """Return text as `printable` does, line breaks and tabs as escapes too, for where nothing may begin a line.

    >>> on_one_line("test-1\\n  gold: 7")
    'test-1\\\\n  gold: 7'
    """
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def as_text(sample: Sample, parsers: Sequence[str], verdict: Verdict | None = None) -> str:
    """Return one sample as plain text: prompt, output, answers beside the gold answer, and what the judge said."""
    facts = ", ".join([*([sample.group] if sample.group else []), *facts_of(sample)])
    lines = [f"── {on_one_line(sample.id)} ({on_one_line(facts)})", block("prompt", sample.prompt)]
    if sample.gold is not None:
        lines.append(f"  gold: {on_one_line(sample.gold)}")
    return "\n".join([*lines, *answered(sample, parsers, verdict)])


def facts_of(sample: Sample) -> list[str]:
    """Return a sample's status, whether it was cut off, and its length."""
    return [
        sample.status,
        *(["truncated"] if sample.finish_reason == "length" else []),
        *([f"{sample.completion_tokens} tokens"] if sample.completion_tokens is not None else []),
    ]


def answered(sample: Sample, parsers: Sequence[str], verdict: Verdict | None) -> Iterator[str]:
    """Yield a sample's output, what the parsers read in it, and what the judge said of it."""
    yield block("output", sample.output) if sample.error is None else f"  error: {on_one_line(sample.error)}"
    for parser in parsers:
        answer = sample.answers.get(parser)
        scores = ", ".join(f"{name} {value:g}" for name, value in sample.scores.get(parser, {}).items())
        shown = "(no answer)" if answer is None else on_one_line(answer)
        yield f"  {on_one_line(parser)}: {shown}{f'  [{on_one_line(scores)}]' if scores else ''}"
    if verdict is not None:
        yield from _judged(verdict)


def _judged(verdict: Verdict) -> Iterator[str]:
    """Yield what the response was compared with, the judge's words, and what they came to."""
    if verdict.against is not None:
        yield block("reference", verdict.against)
    for question, reply in verdict.replies.items():
        yield block(f"judge ({question})", reply)
    if verdict.error is not None:
        yield f"  judge's error: {on_one_line(verdict.error)}"
    scores = ", ".join(f"{name} {value:g}" for name, value in verdict.scores.items() if value is not None)
    yield f"  verdict: {on_one_line(verdict.verdict)}{f'  [{on_one_line(scores)}]' if scores else ''}"


def block(title: str, text: str) -> str:
    """Return a titled text, each of its lines behind a bar that no output can feign the end of."""
    body = "\n".join(f"  │ {line}" for line in printable(text).split("\n"))
    return f"  {on_one_line(title)}\n{body}"
