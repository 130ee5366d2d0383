"""A sample as text, for error analysis."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.runs.judgements import Verdict
    from harness.types import Sample, SourceReading


def kinds_of(sample: Sample, parser: str | None, verdict: Verdict | None = None) -> set[str]:
    """Return what is wrong with a sample, as read by `parser`, and its verdict.

    Wrong means parsed, but not to the gold answer; failed, that the engine or the judge gave nothing; disagreeing, that
    the letter stands beside another option's text.
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
    if parser in sample.disagreeing:
        found.add("disagreeing")
    if sample.source is not None and parser is not None and sample.answers.get(parser) != sample.source.answer:
        found.add("differing-from-source")
    return found


def prompt_of(sample: Sample) -> tuple[str, bool]:
    """Return the prompt that was sent and True or, where it is not known, the benchmark's question and False."""
    if sample.prompt:
        return sample.prompt, True
    fields = sample.fields
    question = next((fields[name] for name in ("question", "instruction") if isinstance(fields.get(name), str)), "")
    options = fields.get("options")
    listed = "".join(f"\n{chr(65 + n)}. {each}" for n, each in enumerate(options if isinstance(options, list) else ()))
    return f"{question}{listed}", False


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


def facts_of(sample: Sample, kinds: Collection[str] = ()) -> list[str]:
    """Return whether a sample is wrong (one of its `kinds`), else its status; whether it was cut off; its length."""
    said = {"truncated": sample.finish_reason == "length", "letter and text disagree": sample.disagreeing}
    return [
        "wrong" if "wrong" in kinds else sample.status,
        *(fact for fact, so in said.items() if so),
        *([f"{sample.completion_tokens} tokens"] if sample.completion_tokens is not None else []),
    ]


def answered(sample: Sample, parsers: Sequence[str], verdict: Verdict | None) -> Iterator[str]:
    """Yield a sample's output, what the parsers read in it, and what the judge said of it."""
    from harness.types import SCORED

    if sample.error is not None:
        yield f"  error: {on_one_line(sample.error)}"
    elif sample.finish_reason != SCORED:
        yield block("output", sample.output)
    if sample.likelihoods:
        yield block("log-likelihood", likelihoods(sample))
    for parser in parsers:
        answer = sample.answers.get(parser)
        scores = ", ".join(f"{name} {value:g}" for name, value in sample.scores.get(parser, {}).items())
        shown = "(no answer)" if answer is None else on_one_line(answer)
        yield f"  {on_one_line(parser)}: {shown}{f'  [{on_one_line(scores)}]' if scores else ''}"
    if sample.source is not None:
        yield f"  source: {_read_there(sample.source)}"
    if verdict is not None:
        yield from _judged(verdict)


def likelihoods(sample: Sample) -> str:
    """Return how likely the model finds each option, a line each: its log-probability in nats, its tokens, its text."""
    listed = sample.likelihoods
    return "\n".join(f"{each.answer}  {each.logprob:.4f}  {each.tokens:>3} tokens  {each.text!r}" for each in listed)


def _read_there(source: SourceReading) -> str:
    """Return what the source of an imported output read in it, in its own words where they are others, and gave."""
    answer = "(no answer)" if source.answer is None else on_one_line(source.answer)
    said = f" ({on_one_line(str(source.said))!r})" if source.said not in (None, source.answer) else ""
    scores = ", ".join(f"{name} {value:g}" for name, value in source.scores.items())
    return f"{answer}{said}{f'  [{on_one_line(scores)}]' if scores else ''}"


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
