"""A prompt format, and the prompts and training documents that it makes of texts.

A format is a text file ``NAME.prompt`` with one ``{instruction}`` and, for training, one ``{response}`` behind it. What
stands before ``{response}`` (or the whole file where there is none) is the prompt, to the byte. ``chat`` is the
tokenizer's own chat template and ``plain`` the instruction alone. An instruction is inserted as it is: braces, code
fences, turn markers and the texts of special tokens in it mean nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, ModelError, PromptError, nearest
from harness.interfaces import Tokenizer
from harness.prompts.chat import ANOTHER, ChatTemplate, chat_template, under
from harness.prompts.documents import Document, Parts, Turns, chat_parts, document, response_pieces
from harness.prompts.encoding import Piece, encode, encode_all, end_of, one_bos
from harness.prompts.files import read_prompt, shipped_prompts
from harness.prompts.shared import Shared
from harness.prompts.shots import spaced
from harness.types import Choices, Continuation, Message, Prompt

INSTRUCTION, RESPONSE, INPUT = "{instruction}", "{response}", "{input}"

#: The line between a template with an input and the one for instructions without.
_WITHOUT = f"\n=== without {INPUT}\n"

#: Where the model is expected to begin an invented next turn, by format.
_STOPS = {"zero_shot_system": ("# Query:",)}

#: Files of these names hold what judges are asked, and what benchmarks ask; they are no formats.
_NO_FORMATS = ("judge_", "benchmark_")


@dataclass(frozen=True)
class FormatOptions:
    """What the user says about a prompt beside its format.

    `system` is the system message where a benchmark or a judge gives none. `template` is the name of one of a
    tokenizer's several chat templates, and `arguments` go to it (``enable_thinking = false``).
    """

    system: str | None = None
    template: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def under(self, over: FormatOptions) -> FormatOptions:
        """Return these options with those that are given in `over` in their place."""
        return FormatOptions(
            self.system if over.system is None else over.system,
            self.template if over.template is None else over.template,
            {**self.arguments, **over.arguments},
        )

    def given(self) -> dict[str, Any]:
        """Return what has been said, for records: nothing where nothing was."""
        said = {"system": self.system, "template": self.template, "arguments": dict(self.arguments)}
        return {name: value for name, value in said.items() if value not in (None, {})}


NO_OPTIONS = FormatOptions()


@dataclass(frozen=True)
class PromptFormat:
    """How an instruction is wrapped.

    `template` is the file's text (``chat`` and ``plain`` have none of their own); `stop` ends a completion. `options`
    are the user's. Where a chat template writes a date it is that of `moment`, by default of now.
    """

    name: str
    template: str | None
    stop: tuple[str, ...] = ()
    options: FormatOptions = NO_OPTIONS
    moment: datetime | None = field(default=None, compare=False)

    @property
    def digest(self) -> str:
        """The sha256 of template and options, which tells whether two runs wrapped their instructions alike."""
        text = self.template or self.name
        if given := self.options.given():
            text = json.dumps([text, given], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def card(self) -> dict[str, Any]:
        """Return what the harness.json of a model trained in this format says of it, for `choose_format` to find.

        That is its name and digest, the template where the name alone would not lead to it again, and the options.
        """
        card: dict[str, Any] = {"prompt_format": self.name, "prompt_digest": self.digest}
        if self.template is not None and (self.name not in format_names() or self._shipped() != self.template):
            card.update(prompt_template=self.template)
        if given := self.options.given():
            card.update(prompt_options=given)
        return card

    def _shipped(self) -> str | None:
        return find_format(self.name).template

    def text(self, instruction: str, given: str = "") -> str:
        """Return the prompt for `instruction` and the input `given` with it; only for formats with a template."""
        if self.template is None:
            raise ConfigError(f"the prompt format {self.name!r} needs a tokenizer to render")
        before, after = self._template(bool(given)).partition(RESPONSE)[0].split(INSTRUCTION)
        if given and _WITHOUT in self.template:
            between, behind = after.split(INPUT)
            return f"{before}{instruction}{between}{given}{behind}"
        asked = f"{instruction}\n\n{given}" if given else instruction
        return f"{before}{asked}{after}"

    def _template(self, with_input: bool) -> str:
        first, found, second = (self.template or "").partition(_WITHOUT)
        return second if found and not with_input else first

    @property
    def single_turn(self) -> bool:
        """Whether there is no place for earlier turns."""
        return self.name != "chat"

    def check(self, tokenizer: Tokenizer) -> None:
        """Raise ModelError where the tokenizer's chat template, if it is asked for, can write no message."""
        if not self.single_turn:
            self._chat(tokenizer).check(self._system(None))

    def render(
        self,
        instruction: str,
        tokenizer: Tokenizer | None = None,
        system: str | None = None,
        history: tuple[Message, ...] = (),
    ) -> Prompt:
        """Return the prompt for `instruction`: its text and, where there is a tokenizer, its token ids.

        `system` is a system message, by default that of the options; an empty one is none. Where the format or the
        model's chat template has no place for one, it stands before the instruction, an empty line between them.
        `history` holds earlier turns, for which only ``chat`` has a place; others raise ConfigError.
        Raises PromptError for a text that the chat template refuses, ModelError for one that refuses every text.
        """
        system = self._system(system)
        if not self.single_turn:
            return self._render_chat(instruction, tokenizer, system, history)
        if history:
            raise self.no_history()
        text = self.text(under(system, instruction))
        return Prompt(text, None if tokenizer is None else encode(text, tokenizer))

    def continuations(
        self,
        instruction: str,
        tokenizer: Tokenizer,
        choices: Choices,
        system: str | None = None,
        history: tuple[Message, ...] = (),
        prompt: Prompt | None = None,
    ) -> tuple[Continuation, ...]:
        """Return the texts of `choices` as they continue the `prompt` that `render` makes of the same.

        The border is where lm-evaluation-harness has it: prompt and text are encoded together, white space at the end
        of what is given belongs to the text, and the text's ids are those behind as many as what is given has alone.
        Raises PromptError where an id reaches across the border so that nothing is left, and as `render` does.
        """
        prompt = prompt or self.render(instruction, tokenizer, system, history)
        encode_with = self._continued(prompt, instruction, tokenizer, self._system(system), history, choices.lead)
        given = encode_with("", True)
        found = []
        for answer, text in choices.texts.items():
            behind = encode_with(text, False)[len(given) :]
            if not behind:
                raise PromptError(f"the tokenizer joins {text!r} to what stands before it; {ANOTHER}")
            found.append(Continuation(answer, text, (*given, *behind), len(given)))
        return tuple(found)

    def _continued(
        self,
        prompt: Prompt,
        instruction: str,
        tokenizer: Tokenizer,
        system: str | None,
        history: tuple[Message, ...],
        lead: str,
    ) -> Callable[[str, bool], tuple[int, ...]]:
        """Return a function from a text to the ids of prompt, `lead` and text, if bare without white space at the end.

        What they have in common with the prompt is not encoded again where that can be known to give the same.
        """
        shared = Shared(prompt.text, prompt.token_ids or (), tokenizer)

        def behind(text: str) -> str:
            if self.single_turn:
                return spaced(spaced(prompt.text, lead), text)[len(prompt.text) :]
            return spaced(lead, text)

        def whole(more: str, bare: bool) -> tuple[int, ...]:
            if self.single_turn:
                return encode((prompt.text + more).rstrip() if bare else prompt.text + more, tokenizer)
            template = self._chat(tokenizer)
            messages = template.placed((*history, Message("user", instruction)), system)
            pieces = [Piece(more)] if more else []
            return one_bos(template.encode(messages, prompt.text, pieces, bare=bare), tokenizer)

        def ids(text: str, bare: bool) -> tuple[int, ...]:
            more = behind(text)
            joined = prompt.text + more
            return shared.ids(joined.rstrip() if bare else joined) or whole(more, bare)

        return ids

    def documents(self, texts: Sequence[Turns], tokenizer: Tokenizer) -> list[Document]:
        """Return what a model is trained on for each instruction and its response.

        A document is the prompt exactly as `render` makes it, the response, what the format has behind the response
        (newlines at its end left out), and the end token, once. Its ids are those of the joined text, unless the
        prompt's part of them would not be what an evaluator sends (a token would reach across the border): then prompt
        and remainder are encoded each by itself. Of the response, ``<think>`` at its beginning and the ``</think>``
        that follows are the tokens that a model writes, if it has such. A fast tokenizer encodes on all cores.

        Raises ConfigError where a format other than ``chat`` is given earlier turns, ModelError where the tokenizer has
        no end token or its chat template puts the response elsewhere than behind the prompt.
        """
        end = _end(tokenizer)
        parts = self._plain_parts(texts, tokenizer) if self.single_turn else self._chat_parts(texts, tokenizer)
        return [document(one, tokenizer, end) for one in parts]

    def document(self, instruction: str, response: str, tokenizer: Tokenizer) -> Document:
        """Return the training document of one instruction and its response; see `documents`."""
        return self.documents([Turns(instruction, response)], tokenizer)[0]

    def no_history(self) -> ConfigError:
        """Return the error for earlier turns where there is no place for them."""
        return ConfigError(f"the prompt format {self.name!r} has a single turn; conversations need 'chat'")

    def fault(self, turns: Turns, tokenizer: Tokenizer) -> str | None:
        """Return why there is no document of `turns` in this format, or None; of mere text in one turn one is tried."""
        if self.single_turn:
            return self._unplaced(turns)
        if turns.plain and not turns.history and "think>" not in turns.response:
            return self._plain_fault(tokenizer)
        try:
            self.documents([turns], tokenizer)
        except ModelError as error:
            return str(error)
        return None

    def _plain_fault(self, tokenizer: Tokenizer) -> str | None:
        """Return why the chat template has no place for an answer without thoughts, or None."""
        template = self._chat(tokenizer)
        if template.plain is None:
            template.plain = (None,)
            try:
                self.documents([Turns("a", "b")], tokenizer)
            except PromptError as error:
                template.plain = (str(error),)
            except ModelError:  # one that has no place for any answer: whoever encodes says so
                pass
        return template.plain[0]

    def _unplaced(self, turns: Turns) -> str | None:
        if turns.history:
            return str(self.no_history())
        if turns.plain:
            return None
        what = "thoughts apart from the response" if "reasoning_content" in turns.more.answer else "tools"
        return f"the prompt format {self.name!r} has no place for {what}; conversations with them need 'chat'"

    def response(self, output: str) -> str:
        """Return the answer in a completion: white space and the closing code fence of this format's own taken off."""
        text = output.strip()
        fence = "```"
        opened = self.template is not None and self._template(False).rstrip().endswith(fence)
        if opened and text.endswith(fence) and text.count(fence) % 2:
            text = text.removesuffix(fence).rstrip()
        return text

    def _system(self, given: str | None) -> str | None:
        return (self.options.system if given is None else given) or None

    def _chat(self, tokenizer: Tokenizer) -> ChatTemplate:
        return chat_template(tokenizer, self.options.template, self.options.arguments, self.moment)

    def _render_chat(
        self, instruction: str, tokenizer: Tokenizer | None, system: str | None, history: tuple[Message, ...]
    ) -> Prompt:
        if tokenizer is None:
            messages = (*([Message("system", system)] if system else []), *history, Message("user", instruction))
            text = "\n\n".join(f"{each.role}: {each.content}" for each in messages) if history else None
            return Prompt(text or under(system, instruction), None, messages, self.options.arguments)
        template = self._chat(tokenizer)
        messages = template.placed((*history, Message("user", instruction)), system)
        text = template.render(messages)
        return Prompt(text, one_bos(template.encode(messages, text), tokenizer))

    def _plain_parts(self, texts: Sequence[Turns], tokenizer: Tokenizer) -> Iterable[Parts]:
        for turns in texts:
            if (fault := self._unplaced(turns)) is not None:
                raise ConfigError(fault)
        prompts, responses = [], []
        for turns in texts:
            instruction, given = turns.apart
            prompts.append(self.text(under(self._system(turns.system), instruction), given))
            behind = self._template(bool(given)).partition(RESPONSE)[2].rstrip("\r\n")
            responses.append([*response_pieces(turns.response), Piece(behind)])
        ids = encode_all([[Piece(prompt)] for prompt in prompts], tokenizer)
        joined = [[Piece(prompt), *response] for prompt, response in zip(prompts, responses, strict=True)]
        wholes = encode_all(joined, tokenizer)
        for prompt, response, sent, whole in zip(prompts, responses, ids, wholes, strict=True):
            yield Parts(Prompt(prompt, sent), tuple(response), whole)

    def _chat_parts(self, texts: Sequence[Turns], tokenizer: Tokenizer) -> Iterable[Parts]:
        """Render conversations with the tokenizer's chat template."""
        template = self._chat(tokenizer)
        for turns in texts:
            yield chat_parts(template, turns, self._system(turns.system), tokenizer)


def _end(tokenizer: Any) -> int:
    if (end := end_of(tokenizer)) is None:
        raise ModelError("the tokenizer has no end token, so no model could learn to stop; set its eos_token")
    return end


def checked(prompt_format: PromptFormat, place: str) -> PromptFormat:
    """Return a format; ConfigError, naming its `place`, where its template lacks a placeholder or has one twice."""
    first, found, second = (prompt_format.template or "").partition(_WITHOUT)
    for template, inputs in ((first, 1 if found else 0), *([(second, 0)] if found else [])):
        count = template.count(INSTRUCTION)
        if count != 1:
            raise ConfigError(f"{place}: a template has {INSTRUCTION} exactly once, not {count} times")
        before, _, behind = template.partition(INSTRUCTION)
        if template.count(RESPONSE) > 1 or RESPONSE in before:
            raise ConfigError(f"{place}: {RESPONSE} may stand once, behind {INSTRUCTION}")
        asked = behind.partition(RESPONSE)[0]
        if found and (template.count(INPUT), asked.count(INPUT)) != (inputs, inputs):
            raise ConfigError(
                f"{place}: {INPUT} stands once, behind {INSTRUCTION}, above the line {_WITHOUT.strip()!r}, not below"
            )
    return prompt_format


def format_options(
    system: str | None, template: str | None, arguments: Any, place: str = "chat_template"
) -> FormatOptions:
    """Return what the user says about prompts, `system` being a text or the name of a file of it.

    Raises ConfigError for a file that cannot be read, and for `arguments`, named `place`, that are no table or take the
    place of what every chat template is given.
    """
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"arguments of the chat template are given as {place}.NAME=VALUE, not {place}={arguments}")
    for name in ("messages", "add_generation_prompt"):
        if name in arguments:
            raise ConfigError(f"{place}.{name}: is not for you to give; leave it out")
    return FormatOptions(None if system is None else system_text(system), template, dict(arguments))


def system_text(given: str) -> str:
    """Return a system message that is given as it is, or by the name of a file."""
    try:
        file = Path(given)
        return read_prompt(file).rstrip("\r\n") if file.is_file() else given
    except (OSError, ValueError):  # too long for a name, or no name at all
        return given


def find_format(name: str) -> PromptFormat:
    """Return the format called `name`: ``chat``, ``plain``, a file in ``prompts/``, or the path of a template file.

    Raises ConfigError for an unknown name and for a template that lacks its placeholder or holds it twice.
    """
    if name == "chat":
        return PromptFormat(name, None)
    if name == "plain":
        return PromptFormat(name, INSTRUCTION)
    if name in format_names():
        return checked(PromptFormat(name, read_prompt(shipped_prompts()[name]), _STOPS.get(name, ())), name)
    path = Path(name)
    if path.suffix == ".prompt" or "/" in name:
        if not path.is_file():
            raise ConfigError(f"no prompt file {name}")
        if path.stem in ("chat", "plain"):
            raise ConfigError(f"{name}: {path.stem} is the name of a format without a template; rename the file")
        return checked(PromptFormat(path.stem, read_prompt(path)), name)
    raise ConfigError(f"unknown prompt format {name!r}{nearest(name, format_names())}")


def format_names() -> list[str]:
    """Return the names of all formats that are no files of the user's."""
    return [*(name for name in shipped_prompts() if not name.startswith(_NO_FORMATS)), "chat", "plain"]
