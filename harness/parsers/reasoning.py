"""Reasoning is not the answer: the response is what a model says outside of its thoughts.

One function knows the envelopes of all model families. The parsers, the judges, the lengths and the exports use it, so
that none of them takes for the answer what the model only thought.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_THOUGHT: Final = (
    r"(?:think(?:ing)?|thoughts?|reasoning|reason|analysis|reflect(?:ion)?|scratchpad|rationale|monologue|deliberation"
    r"|cot)"
)
_NAMES: Final = rf"(?:(?!end)[a-z]{{2,12}}[:_-]){{0,2}}{_THOUGHT}(?:[_-](?!end)[a-z]{{2,12}})?"
_TOKENS: Final = rf"(?:(?:begin|start)_(?:of_)?)?{_THOUGHT}(?:_(?:begin|start))?"
_TOKENS_END: Final = rf"end_(?:of_)?{_THOUGHT}|{_THOUGHT}_end|/{_THOUGHT}"
# An opening and a closing border; the text between is a thought. Attributes may stand in a tag.
_BORDER: Final = re.compile(
    rf"""(?P<open>
        <(?:{_NAMES})(?:\s[^<>\n]{{0,80}})?>
      | \[(?:THINK|THINKING|REASONING)\]
      | ◁think▷
      | <\|(?:{_TOKENS})\|>
      | <unused94>(?:thought\n)?
      | <\|channel>\s{{0,3}}(?:thought|analysis)\b)
    | (?P<close>
        <\s?\\?/\s?(?:{_NAMES})\s{{0,3}}>
      | \[/(?:THINK|THINKING|REASONING)\]
      | ◁/think▷
      | <\|(?:{_TOKENS_END})\|>
      | <unused95>
      | <channel\|>)""",
    re.VERBOSE | re.IGNORECASE,
)
# OpenAI's harmony: named channels, of which "final" alone is meant for the reader.
_CHANNEL: Final = re.compile(
    r"(?:<\|start\|>\s*+assistant\s*+)?<\|channel\|>\s{0,3}(?P<name>analysis|commentary|final)\b[^<\n]{0,60}"
    r"(?:<\|constrain\|>[^<\n]{0,40})?(?:<\|message\|>)?"
)
_CHANNEL_END: Final = re.compile(r"<\|(?!message\|)[a-z]+\|>")
# The same after its special tokens were dropped: "analysisWe need …assistantfinalThe answer …"
_BARE_CHANNEL: Final = re.compile(r"\s*+(?:assistant)?analysis(?:(?=[^\W_a-z])|\n?(?=(?:We|The|I|User|Need)\b))")
_BARE_FINAL: Final = re.compile(r"assistant(?:commentary[^\n]{0,200}?assistant)?final")
_ONLY_FINAL: Final = re.compile(r"\s*+(?:assistant)?final(?=[A-Z0-9(*$\\#])")
_GRANITE: Final = re.compile(r"\s*+here(?:'s| is) my thought process:", re.IGNORECASE)
_GRANITE_ANSWER: Final = re.compile(r"here(?:'s| is) my response:", re.IGNORECASE)
# Some models put their answer in an envelope too.
_ANSWER_BORDERS: Final = re.compile(
    r"<\|(?:begin_of_solution|end_of_solution|start_response|end_response|start_text|end_text)\|>", re.IGNORECASE
)
# How a message of harmony's ends and the one that is meant for the reader begins, by token.
_TO_FINAL: Final = ("<|end|>", "<|start|>", "assistant", "<|channel|>", "final", "<|message|>")
# What opens the answer behind a thought that ended so, in models that put it in an envelope too.
_ANSWERS: Final = {"<|end_of_thought|>": "\n\n<|begin_of_solution|>", "<|end_thinking|>": "<|start_response|>"}
_HEAD: Final = re.compile(r"\s*+(?:(?:assistant)?(?:analysis|final)[A-Z0-9(*$\\#\n]|[Hh]ere(?:'s| is) my thought)")

Span = tuple[int, int]


def without_reasoning(output: str) -> str:
    """Return the response in an output: what stands outside of the model's thoughts.

    Thoughts stand in ``<think>`` (any case, with attributes, ``<thinking>``, ``<thought>``, ``<reasoning>``,
    ``<analysis>``, ``<seed:think>`` and the like), ``[THINK]``, ``◁think▷``, ``<|begin_of_thought|>``, Gemma's
    ``<|channel>thought … <channel|>`` or harmony's channels, with its special tokens or without
    ("analysis…assistantfinal…"). All are removed, however many there are. Where one is never closed, what follows is
    thought; where one was opened by the prompt, all before its closing border is. An output that is nothing but an
    unclosed thought has the empty response. A border that is only mentioned, within a line or in backticks, is text.

    >>> without_reasoning("<think>Is it A? No.</think>\\n\\nB"), without_reasoning("[THINK]It may be A. Hmm")
    ('B', '')
    >>> without_reasoning("Open with `<think>`.")
    'Open with `<think>`.'
    """
    spans = response_spans(output)
    return output if spans is None else "".join(output[start:end] for start, end in spans)


def is_thought_only(output: str) -> bool:
    """Tell whether an output has text, but no response: the model was cut off in its thoughts, or stopped there.

    >>> is_thought_only("<think>Well,"), is_thought_only("<think>Well.</think>B"), is_thought_only("")
    (True, False, False)
    """
    return not without_reasoning(output).strip() and bool(output.strip())


def closing_of(output: str, prompt: str = "") -> str | None:
    """Return what closes the thought in which an output ends, and opens the answer; None where it ends in none.

    A thought may have been opened at the end of the `prompt`. It is closed in the terms of its own envelope, and an
    answer that has one too is opened: the final channel of harmony, ``<|begin_of_solution|>``, ``<|START_RESPONSE|>``.

    >>> closing_of("<think>Well,"), closing_of("<think>Well.</think>B"), closing_of("Well,", "Think! <think>\\n")
    ('\\n</think>\\n\\n', None, '\\n</think>\\n\\n')
    >>> closing_of("<|channel|>analysis<|message|>Well,", "<|start|>assistant")
    '<|end|><|start|>assistant<|channel|>final<|message|>'
    """
    begun = _message(prompt) + output
    if "<|channel|>" in begun:
        return _to_final(begun)
    if _GRANITE.match(output):
        return None if _GRANITE_ANSWER.search(output) else "\n\nHere is my response:\n"
    border = open_thought(output, prompt)
    if border is None:
        return None
    opener = _ANSWERS.get(border.lower(), "")
    return f"\n{border}{opener.upper() if border.isupper() else opener}\n\n"


def _message(prompt: str) -> str:
    """Return the beginning of harmony's message in which a prompt ends."""
    return prompt[max(0, prompt.rfind("<|start|>")) :]


def _to_final(text: str) -> str | None:
    """Return what leads from the end of a text in harmony's format to the final channel, None where it is there."""
    channel = text.rpartition("<|channel|>")[2]
    if channel.startswith("final"):
        return None if channel.startswith("final<|message|>") or "<|constrain|>" in channel else "<|message|>"
    if not channel:
        return "final<|message|>"
    for end in range(4, 0, -1):
        if text.endswith("".join(_TO_FINAL[:end])):
            return "".join(_TO_FINAL[end:])
    rest = "".join(_TO_FINAL)
    return rest if "<|message|>" in channel else f"<|message|>{rest}"


def open_thought(output: str, prompt: str = "") -> str | None:
    """Return the border that would close the thought in which an output ends, None where it ends in none.

    A thought may have been opened at the end of the `prompt`. Harmony's channels have no borders; see `closing_of`.

    >>> open_thought("<think>Well,"), open_thought("<think>Well.</think>B"), open_thought("Well,", "Think! <think>\\n")
    ('</think>', None, '</think>')
    """
    opened = None
    for border in _BORDER.finditer(prompt):
        opened = border.group() if border.group("open") and not prompt[border.end() :].strip() else None
    for border in _BORDER.finditer(output):
        if border.group("close"):
            opened = None
        elif opened is None and not _is_mentioned(output, border) and not _line_before(output, border.start()):
            opened = border.group()
    return None if opened is None else _closing(opened)


def thought_end(output: str, prompt: str = "") -> int:
    """Return where the last closed thought of an output ends, its border included; 0 where there is none.

    >>> thought_end("<think>Well.</think>B"), thought_end("B")
    (20, 0)
    """
    text = (begun := _message(prompt)) + output
    if "<|channel|>" in text:
        thoughts = [channel for channel in _CHANNEL.finditer(text) if channel.group("name") != "final"]
        ends = [_CHANNEL_END.search(text, thought.end()) for thought in thoughts]
        return max([0, *(end.end() - len(begun) for end in ends if end)])
    if _GRANITE.match(output):
        found = _GRANITE_ANSWER.search(output)
        return found.end() if found else 0
    return max((border.end() for border in _BORDER.finditer(output) if border.group("close")), default=0)


def _line_before(output: str, place: int) -> str:
    return output[max(0, place - 200) : place].rpartition("\n")[2].strip()


def _closing(opened: str) -> str:
    if opened.lower().startswith("<|channel>"):
        return "<channel|>"
    if opened.startswith("<unused94>"):
        return "<unused95>"
    if opened.startswith("<|"):  # a token, which has its case
        name = opened[2:-2]
        end = "END" if name.isupper() else "end"
        ended = re.sub("begin|start", end, name, flags=re.IGNORECASE)
        return f"<|{ended}|>" if "_" in name else f"<|/{name}|>"
    name = re.split(r"[\s>]", opened[1:], maxsplit=1)[0]
    return f"</{name.lower()}>" if opened[0] == "<" else f"{opened[0]}/{opened[1:]}"


def border_tokens(special: Iterable[str]) -> set[str]:
    """Return which of a tokenizer's special tokens are borders of reasoning, and have to stay in decoded text.

    >>> sorted(border_tokens(["<s>", "[THINK]", "[/THINK]", "<|end|>", "</s>"]))
    ['[/THINK]', '[THINK]']
    """
    tokens = set(special)
    harmony = {"<|start|>", "<|end|>", "<|message|>", "<|constrain|>", "<|channel|>"}
    gemma = {"<|channel>", "<channel|>"}
    borders = {token for token in tokens if _BORDER.fullmatch(token) or _ANSWER_BORDERS.fullmatch(token)}
    for family, mark in ((harmony, "<|channel|>"), (gemma, "<|channel>")):
        if mark in tokens:
            borders |= family & tokens
    return borders


def response_spans(output: str) -> list[Span] | None:
    """Return where the pieces of the response stand, or None where the output is all response."""
    if not ("<" in output or "[" in output or "◁" in output or _HEAD.match(output)):
        return None
    spans = _channels(output)
    if spans is None:
        spans = _outside(output)
    if spans is None:
        return None
    return _trimmed(output, [piece for span in spans for piece in _without_answer_borders(output, span)])


def _channels(output: str) -> list[Span] | None:
    """Return the final channel of harmony's format, nothing where there are others alone, None for other formats."""
    if "<|channel|>" in output:
        named = False
        for channel in _CHANNEL.finditer(output):
            named = True
            if channel.group("name") == "final":
                end = _CHANNEL_END.search(output, channel.end())
                return [(channel.end(), end.start() if end else len(output))]
        return [] if named else None
    if opened := _BARE_CHANNEL.match(output) or _GRANITE.match(output):
        answer = _BARE_FINAL if opened.re == _BARE_CHANNEL else _GRANITE_ANSWER
        final = answer.search(output, opened.end())
        return [(final.end(), len(output))] if final else []
    final = _ONLY_FINAL.match(output)
    return [(final.end(), len(output))] if final else None


def _outside(output: str) -> list[Span] | None:
    """Return what stands outside of borders, None where there are none."""
    spans: list[Span] = []
    at, opened, changed = 0, False, False
    for border in _BORDER.finditer(output):
        if border.group("close"):
            if not opened:  # the prompt had opened it
                if _is_mentioned(output, border):
                    continue
                spans = []
            at, opened, changed = border.end(), False, True
        elif not opened and not _is_mentioned(output, border):
            spans.append((at, border.start()))
            opened = changed = True
    if opened and output[max(0, spans[-1][1] - 200) : spans[-1][1]].rpartition("\n")[2].strip():
        at, opened = spans.pop()[0], False  # never closed and amid a line: no envelope
    if not opened:
        spans.append((at, len(output)))
    if not changed:
        return [(0, len(output))] if _ANSWER_BORDERS.search(output) else None
    return spans


def _is_mentioned(output: str, border: re.Match[str]) -> bool:
    """Tell whether a border is only spoken of: in backticks or quotes."""
    before, after = output[max(0, border.start() - 1) : border.start()], output[border.end() : border.end() + 1]
    return before in ("`", "'", '"', "“") and after in ("`", "'", '"', "”", " ", "/")


def _without_answer_borders(output: str, span: Span) -> list[Span]:
    pieces, at = [], span[0]
    for border in _ANSWER_BORDERS.finditer(output, *span):
        pieces.append((at, border.start()))
        at = border.end()
    return [*pieces, (at, span[1])]


def _trimmed(output: str, spans: list[Span]) -> list[Span]:
    """Leave out the blanks that a removed envelope leaves at the head."""
    for index, (start, end) in enumerate(spans):
        stripped = len(output[start:end].lstrip())
        if stripped:
            return [(end - stripped, end), *spans[index + 1 :]]
    return []
