"""What a model is trained on: prompt and response of a conversation, as text and as token ids.

A chat template is asked how it writes the response itself, and that is what is learned: its own trimming, its own form
of thoughts and of calls of tools. Where it does something else with them than to write them, once, behind the prompt
that it generates from, the conversation is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import ModelError, PromptError
from harness.interfaces import Tokenizer
from harness.prompts.chat import ANOTHER, ChatTemplate, trimmed
from harness.prompts.encoding import Piece, controls_of, encode_behind, one_bos
from harness.types import Message, Prompt

#: A response that begins with thoughts, whose borders a model writes as tokens.
_THOUGHTS = re.compile(r"(\s*)(<think>)(.*?)(</think>)", re.DOTALL)
_BEGUN = re.compile(r"<think>\s*\Z")

_OUT_OF_PLACE = f"the chat template does not put the response behind the prompt that it generates from; {ANOTHER}"


@dataclass(frozen=True, slots=True)
class Extras:
    """What a conversation holds beside the texts of its turns.

    `role` and `asked` are those of the message that is answered where it is no plain one of the user (a tool's result),
    `answer` what the response's message holds beside its content (``tool_calls``, ``reasoning_content``). `tools` are
    descriptions of tools, as chat templates take them. `learned` are the positions in the history of earlier responses
    that are learned too. `input` is the end of the instruction, behind an empty line, where a row has it in a column of
    its own.
    """

    role: str = "user"
    asked: Mapping[str, Any] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Any, ...] = ()
    learned: tuple[int, ...] = ()
    input: str = ""


NO_EXTRAS = Extras()


@dataclass(frozen=True, slots=True)
class Turns:
    """An instruction with its response; a system message and earlier turns where there were any."""

    instruction: str
    response: str
    system: str | None = None
    history: tuple[Message, ...] = ()
    more: Extras = NO_EXTRAS

    @property
    def asked(self) -> tuple[Message, ...]:
        """What stands before the response, but for the system message."""
        return (*self.history, Message(self.more.role, self.instruction, self.more.asked))

    @property
    def apart(self) -> tuple[str, str]:
        """The instruction without its input, and the input; all of it where there is none."""
        given = self.more.input
        bare = self.instruction.removesuffix(f"\n\n{given}")
        return (bare, given) if given and bare != self.instruction else (self.instruction, "")

    @property
    def plain(self) -> bool:
        """Whether all but tools, and what belongs to them, and thoughts apart from the response is there."""
        return not (self.more.tools or self.more.answer or self.more.role != "user")


@dataclass(frozen=True, slots=True)
class Document:
    """What a model is trained on for one instruction.

    `text` is without the BOS and the end token that are added. `token_ids` begin with the ids of the prompt as
    `PromptFormat.render` gives them, `prompt_tokens` many with the BOS, and end with the end token. `joined` is false
    where they are not those of the joined text, because prompt and response would have shared a token. Where earlier
    responses are learned too, `prompt_tokens` stand before the first and `gaps` are the ranges between that are not.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    joined: bool = True
    gaps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """A document in the making: the prompt and the pieces behind it.

    `whole` holds the ids of the joined text, `earlier` the ranges of those of earlier responses.
    """

    prompt: Prompt
    behind: tuple[Piece, ...]
    whole: tuple[int, ...]
    earlier: tuple[tuple[int, int], ...] = ()


def document(parts: Parts, tokenizer: Tokenizer, end: int) -> Document:
    """Return the document that `parts` make, closed by the token `end`."""
    text = parts.prompt.text + "".join(piece.text for piece in parts.behind)
    prompt, ids = parts.prompt.token_ids or (), parts.whole
    joined = ids[: len(prompt)] == prompt
    if not joined:
        if parts.earlier:
            raise PromptError("the prompt and the last response share a token, so earlier ones cannot be learned too")
        ids = (*prompt, *encode_behind(prompt, parts.behind, tokenizer))
    ended = len(ids) > len(prompt) and ids[-1] == end  # by the chat template
    ids = ids if ended else (*ids, end)
    if not parts.earlier:
        return Document(text, ids, len(prompt), joined)
    starts = [start for start, _ in parts.earlier[1:]] + [len(prompt)]
    gaps = tuple((stop, start) for (_, stop), start in zip(parts.earlier, starts, strict=True))
    return Document(text, ids, parts.earlier[0][0], joined, gaps)


def response_pieces(text: str) -> list[Piece]:
    """Return a response as pieces, of which the borders of thoughts at its beginning are no mere text."""
    match = _THOUGHTS.match(text)
    if match is None:
        return [Piece(text)]
    space, begin, thoughts, end = match.groups()
    return [Piece(space), Piece(begin, own=True), Piece(thoughts), Piece(end, own=True), Piece(text[match.end() :])]


def chat_parts(template: ChatTemplate, turns: Turns, system: str | None, tokenizer: Tokenizer) -> Parts:
    """Return a conversation as the tokenizer's chat template writes it.

    Raises PromptError for what the template does not write, or not behind the prompt that it generates from.
    """
    tools = turns.more.tools
    asked = _settled(template, template.placed(turns.asked, system), tools)
    text = template.render(asked, tools=tools)
    if tools and text == template.render(asked):
        raise PromptError(f"the chat template does not write 'tools'; {ANOTHER}")
    _refuse_lost(asked, text)
    behind = _answered(template, asked, Message("assistant", turns.response, turns.more.answer), text, tools)
    _refuse_spelled(turns, behind, tokenizer)
    prompt = Prompt(text, one_bos(template.encode(asked, text, tools=tools), tokenizer))
    whole = one_bos(template.encode(asked, text, behind, tools=tools), tokenizer)
    shift = len(asked) - len(turns.asked)
    earlier = (
        _earlier(template, asked, shift + position, (text, behind, whole), tools, tokenizer)
        for position in turns.more.learned
    )
    return Parts(prompt, behind, whole, tuple(earlier))


def _settled(template: ChatTemplate, asked: tuple[Message, ...], tools: tuple[Any, ...]) -> tuple[Message, ...]:
    """Return earlier turns with thoughts apart from answers, where the template takes them apart or wants them so."""
    found = tuple(_apart(each) if each.role == "assistant" else each for each in asked)
    same = found == asked or template.render(found, tools=tools) == template.render(asked, tools=tools)
    return found if same or template.knows_thoughts else asked


def _apart(message: Message) -> Message:
    match = _THOUGHTS.match(message.content)
    if match is None or "reasoning_content" in message.more:
        return message
    thought = match.group(3).strip("\n")
    more = {**message.more, "reasoning_content": thought, "thinking": thought}
    return Message(message.role, message.content[match.end() :].lstrip("\n"), more)


def _refuse_lost(asked: Sequence[Message], text: str) -> None:
    """Raise PromptError where a tool's result or an earlier call of one is not in the prompt."""
    for message in asked:
        names = [_name(call) for call in message.more.get("tool_calls", ())]
        if any(name not in text for name in names):
            raise PromptError(f"the chat template does not write 'tool_calls'; {ANOTHER}")
        if message.role == "tool" and message.content.strip() not in text:
            raise PromptError(f"the chat template does not write messages by 'tool'; {ANOTHER}")


def _name(call: Mapping[str, Any]) -> str:
    return str(call.get("function", {}).get("name"))


def _answered(
    template: ChatTemplate, asked: Sequence[Message], answer: Message, text: str, tools: tuple[Any, ...]
) -> tuple[Piece, ...]:
    """Return the pieces that stand behind the prompt `text`: the response, and what the template writes around it."""
    before, after = template.around(asked, tools)
    after = after.rstrip("\r\n")
    for said in _forms(answer):
        rest = template.render([*asked, said], generating=False, tools=tools)
        if not rest.startswith(text):
            continue
        rest = rest.removeprefix(text).rstrip("\r\n")
        if before is not None and not said.more and not _doubled(before, said.content):
            for inserted in trimmed(said.content):
                if rest == (before + inserted + after).rstrip("\r\n"):
                    return (Piece(before, own=True), *response_pieces(inserted), Piece(after, own=True))
        if _written(rest, answer):
            return (Piece(rest, own=True),)
    return _begun(answer, text, after)


def _forms(answer: Message) -> Iterator[Message]:
    """Yield the forms in which templates take a response: thoughts apart, for those that write them, then as given."""
    if (thought := answer.more.get("reasoning_content")) is not None:
        yield answer._replace(more={**answer.more, "thinking": thought})
        return
    apart = _apart(answer)
    if apart != answer:
        yield apart
    yield answer
    if apart != answer and not str(apart.more.get("reasoning_content")).strip():  # an empty block is the template's
        yield apart._replace(more=answer.more)


def _doubled(before: str, response: str) -> bool:
    """Whether a template writes thoughts of its own before a response that has some."""
    return "<think>" in before and _THOUGHTS.match(response) is not None


def _written(rest: str, answer: Message) -> bool:
    """Whether a template has written all of a response, each of its parts once."""
    apart = _apart(answer)
    thought = str(apart.more.get("reasoning_content", "")).strip()
    calls = [_name(call) for call in apart.more.get("tool_calls", ())]
    texts = [apart.content.strip(), *calls]
    if not (thought or calls) or any(text not in rest for text in texts):
        return False
    return not thought or (rest.count(thought) == 1 + apart.content.count(thought) and rest.count("<think>") <= 1)


def _begun(answer: Message, text: str, after: str) -> tuple[Piece, ...]:
    """Return the pieces of a response whose thoughts the prompt `text` has begun."""
    apart = _apart(answer)
    thought = apart.more.get("reasoning_content")
    if not _BEGUN.search(text):
        if apart.more.get("tool_calls"):
            raise PromptError(f"the chat template does not write 'tool_calls' behind its prompt; {ANOTHER}")
        if thought is not None:
            raise PromptError(f"the chat template has no place for the response's thoughts; {ANOTHER}")
        raise ModelError(_OUT_OF_PLACE)
    if thought is None:
        raise PromptError(f"the chat template begins thoughts, and the response has none; {ANOTHER}")
    if apart.more.get("tool_calls"):
        raise PromptError(f"the chat template does not write 'tool_calls' behind its prompt; {ANOTHER}")
    thoughts, border = Piece(f"{str(thought).strip()}\n"), Piece("</think>", own=True)
    return (thoughts, border, Piece(f"\n\n{apart.content.strip()}"), Piece(after, own=True))


def _refuse_spelled(turns: Turns, behind: Sequence[Piece], tokenizer: Any) -> None:
    """Raise PromptError where text that a template wrote among its own spells a control token."""
    texts = [json.dumps(turns.more.tools, ensure_ascii=False)] if turns.more.tools else []
    texts += [json.dumps(dict(message.more), ensure_ascii=False) for message in turns.asked if message.more]
    if len(behind) == 1 and behind[0].own:
        apart = _apart(Message("assistant", turns.response, turns.more.answer))
        texts += [apart.content, json.dumps(dict(apart.more), ensure_ascii=False)]
    for text in texts:
        if controls_of(tokenizer).within(tokenizer.encode(text, add_special_tokens=False, verbose=False)):
            raise PromptError("what a template writes as its own, thoughts or tools, spells one of its control tokens")


def _earlier(
    template: ChatTemplate,
    asked: Sequence[Message],
    number: int,
    written: tuple[str, tuple[Piece, ...], tuple[int, ...]],
    tools: tuple[Any, ...],
    tokenizer: Tokenizer,
) -> tuple[int, int]:
    """Return the range of ids of the earlier response `number` in what the template has `written` of the whole.

    The range is where the template would generate that response, up to the end that it writes behind it.
    """
    text, behind, ids = written
    whole = text + "".join(piece.text for piece in behind)
    prompt = template.render(asked[:number], tools=tools)
    message, found = asked[number], tuple[Piece, ...]()
    if whole.startswith(prompt):
        rest = whole.removeprefix(prompt)
        before, after = template.around(asked[:number], tools)
        closed = after.rstrip("\r\n")
        for start in dict.fromkeys((before or "", "")):
            for inserted in trimmed(message.content) if closed and not message.more and not found else ():
                if rest.startswith(start + inserted + closed):
                    found = (Piece(start, own=True), Piece(inserted), Piece(closed, own=True))
                    break
        alone = template.render(asked[: number + 1], generating=False, tools=tools).rstrip("\r\n")
        if not found and whole.startswith(alone) and alone.startswith(prompt):
            found = (Piece(alone.removeprefix(prompt), own=True),)
    if not found:
        raise PromptError(
            f"the chat template writes an earlier response (message {number + 1}) otherwise than where it would "
            "generate it; learn the last alone"
        )
    first = one_bos(template.encode(asked[:number], prompt, tools=tools), tokenizer)
    last = one_bos(template.encode(asked[:number], prompt, found, tools=tools), tokenizer)
    if ids[: len(last)] != last or last[: len(first)] != first:
        raise PromptError(f"an earlier response (message {number + 1}) shares a token with what is around it")
    return len(first), len(last)
