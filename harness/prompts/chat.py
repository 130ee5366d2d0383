"""A tokenizer's chat template: found out about before it is used, and bounded in what it may do.

Templates trim texts, write dates, take a message as a list of parts, have no place for a system message, or leave out
what they are given. What can be adapted to is; the rest is refused in a line that says what the template does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, NamedTuple

from harness.errors import ModelError, PromptError, first_line, nearest
from harness.interfaces import Tokenizer
from harness.prompts.encoding import Piece, controls_of, encode_pieces
from harness.types import Message

#: What to do about a chat template that does not fit: the option of a training, and the flag of other commands.
ANOTHER = "choose another prompt format (prompt_format in a recipe, else --prompt-format)"

#: Stands for a text where a chat template is asked what it writes around it.
MARK = "instruction-goes-here"

#: A text that shows whether a template cuts texts, takes them apart or writes some characters otherwise.
_PROBE = "Is \"1 < 2\" & 'a'\\b {{ c }}?\n\n  - 日本語 🙂\n" * 99

_NUMBERED = re.compile(rf"{MARK}-(\d+)\.")


@dataclass(frozen=True)
class _Frame:
    """What a template writes around the texts of messages: pieces of its own, and between them whose text stands."""

    own: tuple[str, ...]
    places: tuple[int, ...]


class _Form(NamedTuple):
    """How a template takes what it is given.

    Messages as lists of `parts`; empty `lists` where there are no tools and no documents; a `system` message at the
    beginning, without which it writes none.
    """

    parts: bool
    lists: bool
    system: bool


def chat_template(
    tokenizer: Tokenizer, name: str | None, arguments: Mapping[str, Any], moment: datetime | None
) -> ChatTemplate:
    """Return the chat template of a tokenizer, or that of its several called `name`, with `arguments` of its own.

    Where it writes a date it is that of `moment`, by default of now. Raises ModelError where there is no such template.
    """
    return _chat_template(tokenizer, template_text(tokenizer.chat_template, name), json.dumps(arguments), moment)


def template_text(found: Any, name: str | None) -> str:
    """Return the text of a tokenizer's template called `name`, or of its only or default one."""
    if not found:
        raise ModelError(f"the model's tokenizer has no chat template; {ANOTHER}")
    if isinstance(found, str):
        if name not in (None, "default"):
            raise ModelError(f"no chat template {name!r}: the tokenizer has only one, without a name; leave it out")
        return found
    names = sorted(found)
    if name is None and "default" not in found:
        raise ModelError(f"the tokenizer has several chat templates ({', '.join(names)}); choose one: --template NAME")
    if name is not None and name not in found:
        raise ModelError(f"no chat template {name!r}{nearest(name, names)}")
    return str(found[name or "default"])


@lru_cache(maxsize=16)
def _chat_template(tokenizer: Tokenizer, text: str, arguments: str, moment: datetime | None) -> ChatTemplate:
    return ChatTemplate(tokenizer, text, json.loads(arguments), moment)


class ChatTemplate:
    """One chat template with its arguments; made by `chat_template`."""

    def __init__(self, tokenizer: Tokenizer, text: str, arguments: Mapping[str, Any], moment: datetime | None) -> None:
        self._tokenizer = tokenizer
        self._text = text
        self._arguments = arguments
        self._moment = moment
        self._frames: dict[str, _Frame] = {}
        self._around: dict[str, tuple[str | None, str]] = {}
        self.plain: tuple[str | None] | None = None  # why an answer of mere text has no document, once that was asked

    def check(self, system: str | None) -> None:
        """Raise ModelError where the template cannot write a message, behind `system`, or writes another."""
        try:
            self.render(self.placed([Message("user", _PROBE)], system))
        except PromptError as error:
            remedy = "give a system message (--system), or " if system is None and self._form.system else ""
            raise ModelError(str(error).replace(ANOTHER, remedy + ANOTHER)) from error

    @cached_property
    def knows_system(self) -> bool:
        """Whether the template writes a system message; some refuse one, some leave it out."""
        from jinja2 import TemplateError

        messages = (Message("system", MARK), Message("user", "a"))
        try:
            return MARK in self._rendered(messages, True, self._form)
        except TemplateError:
            return False

    @cached_property
    def knows_thoughts(self) -> bool:
        """Whether the template writes the thoughts of an answer that are given apart from it."""
        from jinja2 import TemplateError

        thought = {"reasoning_content": MARK, "thinking": MARK}
        try:
            return MARK in self._rendered([Message("user", "a"), Message("assistant", "", thought)], False, self._form)
        except TemplateError:
            return False

    def placed(self, messages: Sequence[Message], system: str | None) -> tuple[Message, ...]:
        """Return messages behind a system message, which stands within the first of them where there is no place."""
        if system is None:
            return tuple(messages)
        if self.knows_system:
            return (Message("system", system), *messages)
        first, *others = messages
        return (first._replace(content=under(system, first.content)), *others)

    def around(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> tuple[str | None, str]:
        """Return what the template writes between the prompt that `messages` make and a response, and behind that.

        The first is None where a response does not stand behind the prompt.
        """
        key = _key(messages, tools)
        if key not in self._around:
            marked = [Message(each.role, MARK, each.more) for each in messages]
            prompt = self.render(marked, tools=tools)
            whole = self.render([*marked, Message("assistant", MARK)], generating=False, tools=tools)
            before, found, after = whole.rpartition(MARK)
            behind = found and before.startswith(prompt)
            self._around[key] = (before.removeprefix(prompt) if behind else None, after)
        return self._around[key]

    def render(self, messages: Sequence[Message], *, generating: bool = True, tools: Sequence[Any] = ()) -> str:
        """Return what the template makes of messages.

        Raises PromptError where it refuses these, leaves one of them out, or asks something else than a question says.
        """
        if len(messages) > 1 and generating:
            written = self._frame(messages, tools).places
            for number, message in enumerate(messages):
                if message.content and number not in written and not message.more:
                    what = f"leaves out the text of message {number + 1} ({message.role})"
                    raise PromptError(f"the tokenizer's chat template {what}; {ANOTHER}")
        text = self._written(messages, generating, tools)
        for number, message in enumerate(messages if generating else ()):
            asked = message.role == "user" and not message.more  # switches in a system message are a template's to read
            if asked and message.content.strip() not in text:
                what = f"changes the text of message {number + 1} (user)"
                raise PromptError(f"the tokenizer's chat template {what}; {ANOTHER}")
        return text

    def _written(self, messages: Sequence[Message], generating: bool, tools: Sequence[Any]) -> str:
        from jinja2 import TemplateError

        form = self._form
        try:
            return self._rendered(messages, generating, form, tools)
        except TemplateError as error:
            raise PromptError(f"the tokenizer's chat template fails: {first_line(error)}; {ANOTHER}") from error

    def pieces(self, messages: Sequence[Message], text: str, tools: Sequence[Any] = ()) -> list[Piece]:
        """Return the prompt `text` that `render` made of messages as pieces of the template and texts inserted.

        Raises PromptError where the template does more to them than to take white space off their ends.
        """
        frame = self._frame(messages, tools)
        found = [Piece(frame.own[0], own=True)]
        place = len(frame.own[0])
        if not text.startswith(frame.own[0]):
            raise _changed()
        for number, behind in zip(frame.places, frame.own[1:], strict=True):
            last = len(found) == 2 * len(frame.places) - 1
            for inserted in trimmed(messages[number].content):
                fits = text[place:] == inserted + behind if last else text.startswith(inserted + behind, place)
                if fits:
                    break
            else:
                raise _changed()
            found += [Piece(inserted), Piece(behind, own=True)]
            place += len(inserted) + len(behind)
        return found

    def encode(
        self,
        messages: Sequence[Message],
        text: str,
        more: Sequence[Piece] = (),
        tools: Sequence[Any] = (),
        *,
        bare: bool = False,
    ) -> list[int]:
        """Return the ids of the prompt `text` that `render` made of messages, and of what stands behind it.

        With `bare` the white space at the end is left out. Raises PromptError as `pieces` does, where a text spells a
        control token.
        """
        tokenizer, controls = self._tokenizer, controls_of(self._tokenizer)
        frame = [Piece(each, own=True) for each in self._frame(messages, tools).own]
        pieces = [Piece(text), *more]
        whole = "".join(piece.text for piece in pieces)
        ids = tokenizer.encode(whole.rstrip() if bare else whole, add_special_tokens=False, verbose=False)
        spelled = [token for piece in (*frame, *more) if piece.own for token in controls.spelled(piece.text)]
        if controls.within(ids) == spelled:
            return ids
        try:
            pieces = [*self.pieces(messages, text, tools), *more]
            if bare:
                pieces[-1] = pieces[-1]._replace(text=pieces[-1].text.rstrip())
            return encode_pieces(pieces, tokenizer)
        except PromptError:
            texts = [*(message.content for message in messages), *(piece.text for piece in more if not piece.own)]
            if any(controls.within(tokenizer.encode(each, add_special_tokens=False, verbose=False)) for each in texts):
                raise
            return ids  # a template that writes other control tokens beside some texts

    def _frame(self, messages: Sequence[Message], tools: Sequence[Any]) -> _Frame:
        key = _key(messages, tools)
        if key not in self._frames:
            marked = [Message(each.role, f"{MARK}-{number}.", each.more) for number, each in enumerate(messages)]
            split = _NUMBERED.split(self._written(marked, True, tools))
            self._frames[key] = _Frame(tuple(split[::2]), tuple(map(int, split[1::2])))
        return self._frames[key]

    @cached_property
    def _form(self) -> _Form:
        """How the template takes messages; ModelError where it writes none in any form."""
        from jinja2 import TemplateError

        from harness.prompts.bounded import TemplateBounds

        failed: TemplateError | None = None
        written = ""
        user = Message("user", MARK)
        for system, lists, parts in product((False, True), repeat=3):
            form = _Form(parts, lists, system)
            try:
                written = self._rendered([Message("system", "a"), user] if system else [user], True, form)
            except TemplateError as error:
                failed = failed or error
                if isinstance(error, TemplateBounds):
                    break
                continue
            if MARK in written:
                return form
            if MARK in written.lower():
                break
        if failed is not None:
            raise ModelError(f"the tokenizer's chat template fails: {first_line(failed)}; {ANOTHER}") from failed
        what = "changes" if MARK in written.lower() else "leaves out"
        raise ModelError(f"the tokenizer's chat template {what} the text of the user's message; {ANOTHER}")

    def _rendered(self, messages: Sequence[Message], generating: bool, form: _Form, tools: Sequence[Any] = ()) -> str:
        from harness.prompts.bounded import given, render

        content = list(_in_parts(messages)) if form.parts else [message.as_dict() for message in messages]
        arguments = {**self._arguments, "tools": list(tools)} if tools else self._arguments
        names = given(
            self._tokenizer,
            content,
            generating=generating,
            arguments=arguments,
            moment=self._moment,
            lists=form.lists,
        )
        return render(self._text, names, sum(len(message.content) for message in messages))


def under(system: str | None, instruction: str) -> str:
    """Return an instruction below a system message that has no place of its own."""
    return instruction if system is None else f"{system}\n\n{instruction}"


def trimmed(text: str) -> Iterator[str]:
    """Yield a text, and what is left of it when a template takes white space off."""
    yield text
    for space in (None, "\n"):
        yield from (text.strip(space), text.lstrip(space), text.rstrip(space))


def _in_parts(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    for message in messages:
        yield {**message.as_dict(), "content": [{"type": "text", "text": message.content}]}


def _key(messages: Sequence[Message], tools: Sequence[Any]) -> str:
    """Return what a template's own text depends on, beside the contents."""
    more = [dict(message.more) for message in messages]
    return json.dumps([[message.role for message in messages], more if any(more) else [], list(tools)])


def _changed() -> PromptError:
    return PromptError(f"the chat template does not insert the texts as they are; {ANOTHER}")
