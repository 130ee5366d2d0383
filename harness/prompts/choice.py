"""Which prompt format a model is asked in: the user's, that of the checkpoint's card, or what the model has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.adapted import adapter_base, belonging, is_adapter
from harness.errors import ConfigError, ModelError
from harness.files import read_json
from harness.interfaces import Tokenizer
from harness.prompts.chat import template_text
from harness.prompts.formats import NO_OPTIONS, FormatOptions, PromptFormat, checked, find_format, format_names

CHECKPOINT_FILE = "harness.json"


@dataclass(frozen=True)
class Choice:
    """Which format a run uses, why, and what the user should be told about it."""

    format: PromptFormat
    reason: str
    warnings: tuple[str, ...] = ()


def choose_format(
    model: str,
    override: str | None,
    tokenizer: Tokenizer | None,
    *,
    applies_chat_template: bool = False,
    options: FormatOptions = NO_OPTIONS,
) -> Choice:
    """Choose the prompt format for `model`.

    `override` wins; else what the checkpoint's harness.json names; else ``chat`` if the tokenizer has a chat template
    or the engine applies one; else ``zero_shot_system``. `options` go over those that the checkpoint was trained with.
    A checkpoint that was trained with another format, another text of it or other options is told in `warnings`.

    Raises ConfigError for options of a chat template where none is used, ModelError for a template that is not there.
    """
    trained = read_checkpoint_file(Path(model))
    name, own = trained.get("prompt_format"), trained.get("prompt_template")
    if override is not None:
        chosen, reason = find_format(override), "as given"
    elif name is not None:
        if own is None and name not in format_names():  # above all, no path: a model folder opens no file
            raise ModelError(
                f"{model}: {CHECKPOINT_FILE} names the prompt format {name[:80]!r}, which is none of the shipped ones, "
                "without its text; give another (prompt_format in a recipe, else --prompt-format)"
            )
        chosen = find_format(name) if own is None else PromptFormat(name, own)
        reason = f"the checkpoint's {CHECKPOINT_FILE}"
    elif tokenizer is not None and tokenizer.chat_template:
        chosen, reason = find_format("chat"), "the tokenizer has a chat template"
    elif applies_chat_template:
        chosen, reason = find_format("chat"), "the engine applies a chat template"
    else:
        chosen, reason = find_format("zero_shot_system"), "the default for a base model"
    before = FormatOptions(**trained.get("prompt_options", {})) if name == chosen.name else NO_OPTIONS
    chosen = replace(chosen, options=before.under(options))
    _check_options(chosen, tokenizer)
    return Choice(chosen, reason, tuple(_drift(chosen, trained, before)))


def _check_options(chosen: PromptFormat, tokenizer: Tokenizer | None) -> None:
    options = chosen.options
    if chosen.name != "chat":
        if options.template is not None or options.arguments:
            raise ConfigError(
                f"--template and --set chat_template.… are for the prompt format 'chat', not {chosen.name!r}; "
                "leave them out, or give --prompt-format chat"
            )
    elif tokenizer is None:
        if options.template is not None:
            raise ConfigError(
                f"--template {options.template}: the engine applies a chat template of its own; leave it out"
            )
    elif tokenizer.chat_template:
        template_text(tokenizer.chat_template, options.template)


def _drift(chosen: PromptFormat, trained: Mapping[str, Any], before: FormatOptions) -> Iterable[str]:
    """Say how a format differs from the one that a checkpoint was trained in."""
    name, digest = trained.get("prompt_format"), trained.get("prompt_digest")
    if name is not None and name != chosen.name:
        yield f"the checkpoint was trained with the prompt format {name!r}; this run uses {chosen.name!r}"
    if name == chosen.name and digest not in (None, replace(chosen, options=before).digest):
        yield f"the text of the prompt format {chosen.name!r} is not the one that the checkpoint was trained with"
    if name == chosen.name and chosen.options != before:
        yield (
            f"the checkpoint was trained with other options of its prompts ({_said(before)}); "
            f"this run has {_said(chosen.options)}"
        )


def _said(options: FormatOptions) -> str:
    return json.dumps(options.given(), ensure_ascii=False) if options.given() else "none"


def read_checkpoint_file(folder: Path) -> Mapping[str, Any]:
    """Return what a checkpoint's harness.json says, `PromptFormat.card` and more, or nothing without one.

    Of an adapter it is that of the checkpoint that it lies in or of its base, where it has none of its own.
    """
    path = folder / CHECKPOINT_FILE
    if is_adapter(folder):
        path = next(iter(belonging(folder, Path(adapter_base(folder)), CHECKPOINT_FILE)), path)
    if not path.is_file():
        return {}
    try:
        content = read_json(path, links=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not JSON ({error}); mend it, or delete it and give a prompt format") from error
    name = content.get("prompt_format", "plain") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise ModelError(f"{path}: must be an object whose prompt_format is a name; mend it or delete it")
    template = content.get("prompt_template")
    if not isinstance(template, str | None):
        raise ModelError(f"{path}: prompt_template must be a text; mend it or delete it")
    if template is not None:
        checked(PromptFormat(name, template), str(path))
    if not _fits(content.get("prompt_options", {})):
        raise ModelError(f"{path}: prompt_options may hold system, template and arguments; mend it or delete it")
    if not _names_items(content.get("contamination", {})):
        raise ModelError(f"{path}: contamination must name the ids found of each benchmark; mend it or delete it")
    return dict(content)


def _names_items(contamination: Any) -> bool:
    """Whether it says which items of which benchmarks a training has seen, as a training writes it."""
    cards = contamination.values() if isinstance(contamination, dict) else [None]
    found = [card.get("found") if isinstance(card, dict) else None for card in cards]
    return all(isinstance(ids, list) and all(isinstance(each, str) for each in ids) for ids in found)


def _fits(options: Any) -> bool:
    kinds = {"system": str, "template": str, "arguments": dict}
    return isinstance(options, dict) and all(isinstance(each, kinds.get(key, ())) for key, each in options.items())
