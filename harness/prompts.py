"""Prompt formats: instruction → prompt → token ids. The only place that does so, for evaluation and for training alike.

A format is a text file ``NAME.prompt`` with one ``{instruction}`` and, for training, one ``{response}`` behind it. What
stands before ``{response}`` (or the whole file where there is none) is the prompt, to the byte. ``chat`` is the
tokenizer's own chat template and ``plain`` the instruction alone. An instruction is inserted as it is: braces, code
fences, turn markers and the texts of special tokens in it mean nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, ModelError, first_line, nearest
from harness.interfaces import Tokenizer
from harness.types import Prompt

INSTRUCTION, RESPONSE = "{instruction}", "{response}"
CHECKPOINT_FILE = "harness.json"

#: Where the model is expected to begin an invented next turn, by format.
_STOPS = {"zero_shot_system": ("# Query:",)}

#: Files of this name hold what judges are asked; they are no formats.
_JUDGES = "judge_"

#: What to do about a chat template that does not fit: the option of a training, and the flag of other commands.
_ANOTHER = "choose another prompt format (prompt_format in a recipe, else --prompt-format)"

#: Stands for a text where a chat template is asked what it writes around it.
_MARK = "instruction-goes-here"


@dataclass(frozen=True, slots=True)
class Turns:
    """An instruction with its response; a system message and earlier turns (role and content) where there were any."""

    instruction: str
    response: str
    system: str | None = None
    history: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """What a model is trained on for one instruction.

    `text` is without the BOS and the end token that are added. `token_ids` begin with the ids of the prompt as
    `PromptFormat.render` gives them, `prompt_tokens` many with the BOS, and end with the end token. `joined` is false
    where they are not those of the joined text, because prompt and response would have shared a token.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    joined: bool = True


@dataclass(frozen=True)
class PromptFormat:
    """How an instruction is wrapped.

    `template` is the file's text (``chat`` and ``plain`` have none of their own); `stop` ends a completion.
    """

    name: str
    template: str | None
    stop: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The sha256 of the template, which tells whether two runs wrapped their instructions alike."""
        return hashlib.sha256((self.template or self.name).encode()).hexdigest()

    def card(self) -> dict[str, str]:
        """Return what the harness.json of a model trained in this format says of it, for `choose_format` to find.

        That is its name and digest, and the template where the name alone would not lead to it again.
        """
        card = {"prompt_format": self.name, "prompt_digest": self.digest}
        if self.template is not None and (self.name not in format_names() or find_format(self.name) != self):
            card["prompt_template"] = self.template
        return card

    def text(self, instruction: str) -> str:
        """Return the prompt for `instruction`; only for formats with a template."""
        if self.template is None:
            raise ConfigError(f"the prompt format {self.name!r} needs a tokenizer to render")
        before, after = self.template.partition(RESPONSE)[0].split(INSTRUCTION)
        return f"{before}{instruction}{after}"

    @property
    def single_turn(self) -> bool:
        """Whether there is no place for earlier turns."""
        return self.name != "chat"

    def render(
        self,
        instruction: str,
        tokenizer: Tokenizer | None = None,
        system: str | None = None,
        history: tuple[Mapping[str, str], ...] = (),
    ) -> Prompt:
        """Return the prompt for `instruction`: its text and, where there is a tokenizer, its token ids.

        `system` is a system message. Where the format or the model's chat template has no place for one, it stands
        before the instruction, an empty line between them. `history` holds earlier turns (role and content), for which
        only ``chat`` has a place; others raise ConfigError.
        """
        if not self.single_turn:
            return _render_chat(instruction, tokenizer, system, history)
        if history:
            raise self.no_history()
        text = self.text(_joined(system, instruction))
        return Prompt(text, None if tokenizer is None else encode(text, tokenizer))

    def documents(self, texts: Sequence[Turns], tokenizer: Tokenizer) -> list[Document]:
        """Return what a model is trained on for each instruction and its response.

        A document is the prompt exactly as `render` makes it, the response, what the format has behind the response
        (newlines at its end left out), and the end token, once. Its ids are those of the joined text, unless the
        prompt's part of them would not be what an evaluator sends (a token would reach across the border): then prompt
        and remainder are encoded each by itself. A fast tokenizer encodes the texts on all cores.

        Raises ConfigError where a format other than ``chat`` is given earlier turns, ModelError where the tokenizer has
        no end token or its chat template puts the response elsewhere than behind the prompt.
        """
        end = _end(tokenizer)
        parts = _chat_parts(texts, tokenizer) if self.name == "chat" else self._plain_parts(texts, tokenizer)
        return [_document(one, tokenizer, end) for one in parts]

    def document(self, instruction: str, response: str, tokenizer: Tokenizer) -> Document:
        """Return the training document of one instruction and its response; see `documents`."""
        return self.documents([Turns(instruction, response)], tokenizer)[0]

    def no_history(self) -> ConfigError:
        """Return the error for earlier turns where there is no place for them."""
        return ConfigError(f"the prompt format {self.name!r} has a single turn; conversations need 'chat'")

    def _plain_parts(self, texts: Sequence[Turns], tokenizer: Tokenizer) -> Iterable[_Parts]:
        if any(turns.history for turns in texts):
            raise self.no_history()
        behind = (self.template or "").partition(RESPONSE)[2].rstrip("\r\n")
        prompts = [self.text(_joined(turns.system, turns.instruction)) for turns in texts]
        responses = [turns.response + behind for turns in texts]
        ids = _encode_all(prompts, tokenizer)
        wholes = _encode_all(list(map("".join, zip(prompts, responses, strict=True))), tokenizer)
        for prompt, response, sent, whole in zip(prompts, responses, ids, wholes, strict=True):
            yield _Parts(Prompt(prompt, sent), "", response, "", whole)

    def response(self, output: str) -> str:
        """Return the answer in a completion: white space and the closing code fence of this format's own taken off."""
        text = output.strip()
        fence = "```"
        opened = self.template is not None and self.template.rstrip().endswith(fence)
        if opened and text.endswith(fence) and text.count(fence) % 2:
            text = text.removesuffix(fence).rstrip()
        return text


def encode(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the ids of a plain-text prompt: one BOS in front where the tokenizer is made to add one, no end token.

    Special tokens that are spelled out in the text are ordinary characters.
    """
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
    return (*_begin(tokenizer), *ids)


def _begin(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return what the tokenizer puts before any text: its BOS or nothing."""
    bos = tokenizer.bos_token_id
    return (bos,) if bos is not None and _adds(tokenizer, bos) else ()


@lru_cache(maxsize=16)
def _adds(tokenizer: Tokenizer, bos: int) -> bool:
    return tokenizer.encode("", add_special_tokens=True)[:1] == [bos]


def _encode_all(texts: Sequence[str], tokenizer: Any) -> Iterable[tuple[int, ...]]:
    """Return what `encode` gives for each text."""
    begin = _begin(tokenizer)
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
    return ((*begin, *ids) for ids in encoded["input_ids"])


def _end(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer has no end token, so no model could learn to stop; set its eos_token")
    return int(tokenizer.eos_token_id)


@dataclass(frozen=True, slots=True)
class _Parts:
    """A document in the making: the prompt, the template's text before the response, the response, the text behind it.

    `whole` holds the ids of the joined text, None where they cannot be used.
    """

    prompt: Prompt
    before: str
    response: str
    after: str
    whole: tuple[int, ...] | None


def _document(parts: _Parts, tokenizer: Tokenizer, end: int) -> Document:
    text = f"{parts.prompt.text}{parts.before}{parts.response}{parts.after}"
    prompt, ids = parts.prompt.token_ids or (), parts.whole
    joined = ids is not None and ids[: len(prompt)] == prompt
    if ids is None or not joined:
        ids = (
            *prompt,
            *tokenizer.encode(parts.before, add_special_tokens=False),
            *tokenizer.encode(parts.response, add_special_tokens=False, split_special_tokens=True),
            *tokenizer.encode(parts.after, add_special_tokens=False),
        )
    ended = len(ids) > len(prompt) and ids[-1] == end  # by the chat template
    return Document(text, ids if ended else (*ids, end), len(prompt), joined)


def _chat_parts(texts: Sequence[Turns], tokenizer: Tokenizer) -> Iterable[_Parts]:
    """Render conversations with the tokenizer's chat template, each response inserted as it is."""
    for turns in texts:
        instruction, system = _placed(turns.instruction, turns.system, tokenizer)
        prompt = _render_chat(instruction, tokenizer, system, turns.history)
        answered = [*_messages(instruction, system, turns.history), {"role": "assistant", "content": _MARK}]
        text = _apply(tokenizer, answered, generating=False)
        before, found, after = text.rpartition(_MARK)
        if not found or not before.startswith(prompt.text):
            raise ModelError(
                f"the chat template does not put the response behind the prompt that it generates from; {_ANOTHER}"
            )
        before, after, whole = before.removeprefix(prompt.text), after.rstrip("\r\n"), None
        if not _spells_special(
            tokenizer, (*_messages(instruction, system, turns.history), {"content": turns.response})
        ):
            joined = f"{prompt.text}{before}{turns.response}{after}"
            whole = _one_bos(tokenizer.encode(joined, add_special_tokens=False, verbose=False), tokenizer)
        yield _Parts(prompt, before, turns.response, after, whole)


def _render_chat(
    instruction: str, tokenizer: Tokenizer | None, system: str | None, history: tuple[Mapping[str, str], ...] = ()
) -> Prompt:
    if tokenizer is None:
        return Prompt(_joined(system, instruction), None, _messages(instruction, system, history))
    if not tokenizer.chat_template:
        raise ModelError(f"the model's tokenizer has no chat template; {_ANOTHER}")
    instruction, system = _placed(instruction, system, tokenizer)
    messages = _messages(instruction, system, history)
    text = _apply(tokenizer, messages)
    if not _spells_special(tokenizer, messages):
        return Prompt(text, _one_bos(tokenizer.encode(text, add_special_tokens=False), tokenizer))
    return Prompt(text, _one_bos(_encode_parts(messages, text, tokenizer), tokenizer))


def _spells_special(tokenizer: Tokenizer, messages: Iterable[Mapping[str, str]]) -> bool:
    return any(token in message["content"] for token in tokenizer.all_special_tokens for message in messages)


def _joined(system: str | None, instruction: str) -> str:
    return instruction if system is None else f"{system}\n\n{instruction}"


def _messages(
    instruction: str, system: str | None, history: tuple[Mapping[str, str], ...] = ()
) -> tuple[Mapping[str, str], ...]:
    user = {"role": "user", "content": instruction}
    return (*history, user) if system is None else ({"role": "system", "content": system}, *history, user)


def _placed(instruction: str, system: str | None, tokenizer: Tokenizer) -> tuple[str, str | None]:
    """Return instruction and system message; the latter within the former where the template has no place for it."""
    if system is None or _knows_system(tokenizer):
        return instruction, system
    return _joined(system, instruction), None


def _knows_system(tokenizer: Tokenizer) -> bool:
    """Whether the chat template writes a system message; some refuse one, some leave it out."""
    from jinja2 import TemplateError

    try:
        return _MARK in _applied(tokenizer, _messages("", _MARK))
    except TemplateError:
        return False


def _apply(tokenizer: Tokenizer, messages: Iterable[Mapping[str, str]], *, generating: bool = True) -> str:
    """Return what the chat template makes of messages; ModelError where it is broken or refuses them."""
    from jinja2 import TemplateError

    try:
        return _applied(tokenizer, messages, generating)
    except TemplateError as error:
        raise ModelError(f"the tokenizer's chat template fails: {first_line(error)}; {_ANOTHER}") from error


def _applied(tokenizer: Tokenizer, messages: Iterable[Mapping[str, str]], generating: bool = True) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generating))


def _encode_parts(messages: Sequence[Mapping[str, str]], text: str, tokenizer: Tokenizer) -> list[int]:
    """Encode a chat prompt in which somebody spells out special tokens: only the template's own are special."""
    marks = [f"{_MARK}-{number}." for number in range(len(messages))]
    after = _apply(tokenizer, [{**each, "content": mark} for each, mark in zip(messages, marks, strict=True)])
    joined, ids = "", list[int]()
    for message, mark in zip(messages, marks, strict=True):
        before, _, after = after.partition(mark)
        joined += before + message["content"]
        ids += tokenizer.encode(before, add_special_tokens=False)
        ids += tokenizer.encode(message["content"], add_special_tokens=False, split_special_tokens=True)
    if joined + after != text:
        raise ModelError(f"the chat template does not insert the texts as they are; {_ANOTHER}")
    return [*ids, *tokenizer.encode(after, add_special_tokens=False)]


def _one_bos(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Give `ids` exactly one BOS if the template wrote any, or if the tokenizer is made to add one."""
    bos = tokenizer.bos_token_id
    start = 0
    while start < len(ids) and ids[start] == bos:
        start += 1
    return (*((bos,) if bos is not None and start else _begin(tokenizer)), *ids[start:])


def find_format(name: str) -> PromptFormat:
    """Return the format called `name`: ``chat``, ``plain``, a file in ``prompts/``, or the path of a template file.

    Raises ConfigError for an unknown name and for a template that lacks its placeholder or holds it twice.
    """
    if name == "chat":
        return PromptFormat(name, None)
    if name == "plain":
        return PromptFormat(name, INSTRUCTION)
    if name in format_names():
        return _checked(PromptFormat(name, read_prompt(shipped_prompts()[name]), _STOPS.get(name, ())), name)
    path = Path(name)
    if path.suffix == ".prompt" or "/" in name:
        if not path.is_file():
            raise ConfigError(f"no prompt file {name}")
        if path.stem in ("chat", "plain"):
            raise ConfigError(f"{name}: {path.stem} is the name of a format without a template; rename the file")
        return _checked(PromptFormat(path.stem, read_prompt(path)), name)
    raise ConfigError(f"unknown prompt format {name!r}{nearest(name, format_names())}")


def format_names() -> list[str]:
    """Return the names of all formats that are no files of the user's."""
    return [*(name for name in shipped_prompts() if not name.startswith(_JUDGES)), "chat", "plain"]


def prompt_folder() -> Any:
    """Return the folder of shipped prompts: package data in a wheel, ``prompts/`` in a checkout."""
    packaged = files("harness") / "_prompts"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "prompts"


def shipped_prompts() -> dict[str, Any]:
    """Return the shipped prompt files by name, those for judges (``judge_…``) among them."""
    return {entry.name.removesuffix(".prompt"): entry for entry in prompt_folder().iterdir()}


def read_prompt(path: Any) -> str:
    """Return the text of a prompt file, to the byte. Raises ConfigError where it is not UTF-8."""
    try:
        return str(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _checked(prompt_format: PromptFormat, place: str) -> PromptFormat:
    template = prompt_format.template or ""
    if template.count(INSTRUCTION) != 1:
        count = template.count(INSTRUCTION)
        raise ConfigError(f"{place}: a template has {INSTRUCTION} exactly once, not {count} times")
    if template.count(RESPONSE) > 1 or INSTRUCTION not in template.partition(RESPONSE)[0]:
        raise ConfigError(f"{place}: {RESPONSE} may stand once, behind {INSTRUCTION}")
    return prompt_format


@dataclass(frozen=True)
class Choice:
    """Which format a run uses, why, and what the user should be told about it."""

    format: PromptFormat
    reason: str
    warnings: tuple[str, ...] = ()


def choose_format(
    model: str, override: str | None, tokenizer: Tokenizer | None, *, applies_chat_template: bool = False
) -> Choice:
    """Choose the prompt format for `model`.

    `override` wins; else what the checkpoint's harness.json names; else ``chat`` if the tokenizer has a chat template
    or the engine applies one; else ``zero_shot_system``. A checkpoint that was trained with another format, or another
    text of it, is told in `warnings`.
    """
    trained = read_checkpoint_file(Path(model))
    trained_name = trained.get("prompt_format")
    if override is not None:
        chosen = find_format(override)
        told = [f"the checkpoint was trained with the prompt format {trained_name!r}; this run uses {chosen.name!r}"]
        differs = trained_name is not None and trained_name != chosen.name
        return Choice(chosen, "--prompt-format", (*(told if differs else ()), *_drift(chosen, trained)))
    if trained_name is not None:
        own = trained.get("prompt_template")
        chosen = find_format(trained_name) if own is None else PromptFormat(trained_name, own)
        return Choice(chosen, f"the checkpoint's {CHECKPOINT_FILE}", tuple(_drift(chosen, trained)))
    if tokenizer is not None and tokenizer.chat_template:
        return Choice(find_format("chat"), "the tokenizer has a chat template")
    if applies_chat_template:
        return Choice(find_format("chat"), "the engine applies a chat template")
    return Choice(find_format("zero_shot_system"), "the default for a base model")


def _drift(chosen: PromptFormat, trained: Mapping[str, Any]) -> Iterable[str]:
    digest = trained.get("prompt_digest")
    if trained.get("prompt_format") == chosen.name and digest not in (None, chosen.digest):
        yield f"the text of the prompt format {chosen.name!r} is not the one that the checkpoint was trained with"


def read_checkpoint_file(folder: Path) -> Mapping[str, Any]:
    """Return what a checkpoint's harness.json says, `PromptFormat.card` and more, or nothing without one."""
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error}); mend it, or delete it and give a prompt format") from error
    name = content.get("prompt_format", "plain") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise ModelError(f"{path}: must be an object whose prompt_format is a name; mend it or delete it")
    template = content.get("prompt_template")
    if not isinstance(template, str | None):
        raise ModelError(f"{path}: prompt_template must be a text; mend it or delete it")
    if template is not None:
        _checked(PromptFormat(name, template), str(path))
    return dict(content)
