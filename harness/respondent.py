"""Who is asked: a model, the engine that runs it, the format it is asked in, and the identity of the three together.

The evaluated model, the judge and the model of a chat are each a `Respondent`; nothing else chooses an engine, wraps an
instruction or loads weights to generate with.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.calls import blamed, foreign
from harness.config import configured
from harness.errors import ConfigError, ModelError
from harness.files import expanded
from harness.interfaces import Engine, Model, SpreadingEngine, Tokenizer
from harness.prompts import NO_OPTIONS, Choice, FormatOptions, PromptFormat, choose_format
from harness.registry import Registry
from harness.types import Choices, Generation, Message, Request

#: Folders of a training, which are named with it.
_OF_A_TRAINING = re.compile(r"best|last|adapter|step-\d{6}")

#: What ``auto`` tries, in this order.
AUTO_ENGINES = ("vllm", "transformers")


class Respondent:
    """A model that can be asked; its weights are loaded when they are first needed and freed with `close`.

    `engine_reason` says why it is run by `engine`; `choice` is its prompt format, why, and what is to be told about
    it. `tokenizer` is None where text goes to the engine. `identity` is all that its replies depend on beside what it
    is asked, as JSON data, `model_identity` the model's part of it.
    """

    def __init__(
        self, model: str, engine: Engine, engine_reason: str, tokenizer: Tokenizer | None, choice: Choice
    ) -> None:
        self.model = model
        self.engine = engine
        self.engine_reason = engine_reason
        self.tokenizer = tokenizer
        self.choice = choice
        with foreign(engine):
            self.model_identity = dict(engine.identity(model))
        self.identity: Mapping[str, Any] = {
            "model": self.model_identity,
            "engine": running(engine).name,
            "prompt_format": _described(choice.format),
            "chat_template": _template_digest(choice.format, tokenizer),
        }
        self._seconds = 0.0
        self._loaded: Model | None = None

    @property
    def name(self) -> str:
        """The model as folders, results and exported files name it."""
        return model_name(self.model)

    @property
    def format(self) -> PromptFormat:
        """The prompt format that it is asked in."""
        return self.choice.format

    def sampling(self, generation: Generation) -> Generation:
        """Return `generation` with the stop strings of the prompt format beside its own.

        Raises ConfigError for a limit of thoughts with an engine that keeps to none.
        """
        limit, engine = generation.thinking_tokens, self.engine
        if limit is not None and not getattr(engine, "limits_thoughts", False):
            raise ConfigError(
                f"thinking_tokens {limit}: the engine {engine.name!r} does not cut thoughts; leave it out, or give "
                "--engine transformers or vllm"
            )
        stop = tuple(dict.fromkeys((*generation.stop, *self.format.stop)))
        return generation if stop == generation.stop else dataclasses.replace(generation, stop=stop)

    def request(
        self,
        identifier: str,
        index: int,
        instruction: str | Sequence[Message],
        generation: Generation,
        *,
        system: str | None = None,
        history: tuple[Message, ...] = (),
        choices: Choices | None = None,
    ) -> Request:
        """Return the request that asks `instruction`, with a system message and earlier turns where there are any.

        Messages hold these themselves: a system message of theirs takes the place of `system`, the last is asked.
        `generation` is sent as it is; `sampling` gives one that ends where the prompt format does. Of `choices` it is
        asked how likely each is; `likelihoods` says whether it can be. Raises ModelError or ConfigError where the
        prompt format cannot render it.
        """
        if not isinstance(instruction, str):
            *before, asked = instruction
            instruction = asked.content
            if before and before[0].role == "system":
                system = before.pop(0).content
            history = tuple(before)
        prompt = self.format.render(instruction, self.tokenizer, system, history)
        if choices is None or self.tokenizer is None:
            return Request(identifier, prompt, generation, index)
        continuations = self.format.continuations(instruction, self.tokenizer, choices, system, history, prompt)
        return Request(identifier, prompt, generation, index, continuations=continuations)

    @property
    def likelihoods(self) -> bool:
        """Whether it can be asked how likely texts are."""
        return self.tokenizer is not None and bool(getattr(self.engine, "gives_likelihoods", False))

    def check(self) -> None:
        """Raise ModelError where no prompt can be made: the tokenizer may not have been read until now."""
        if self.tokenizer is not None:
            self.tokenizer.encode("")
            self.format.check(self.tokenizer)

    def asked_at(self, created: str) -> None:
        """Let prompts that hold a date hold that of a run's creation (ISO format), however often it is resumed."""
        with suppress(ValueError):
            moment = datetime.fromisoformat(created)
            self.choice = dataclasses.replace(self.choice, format=dataclasses.replace(self.format, moment=moment))

    def loaded(self) -> Model:
        """Return the model, loaded by the first call; ModelError, with the remedy, when that fails."""
        if self._loaded is None:
            started = time.perf_counter()
            with blamed(self.engine):
                self._loaded = self.engine.load(self.model)
            self._seconds = time.perf_counter() - started
        return self._loaded

    def loading(self) -> float:
        """Return the seconds that loading took, once: they are the first run's, and what comes after it had no load."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def close(self) -> None:
        """Free what has been loaded; safe to call twice."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def __enter__(self) -> Respondent:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _described(prompt_format: PromptFormat) -> dict[str, Any]:
    described = {"name": prompt_format.name, "digest": prompt_format.digest}
    given = prompt_format.options.given()
    return {**described, "options": given} if given else described


def _template_digest(prompt_format: PromptFormat, tokenizer: Tokenizer | None) -> str | None:
    """Return the digest of the chat template that prompts are made with, or None where none is."""
    if prompt_format.name != "chat" or tokenizer is None:
        return None
    return hashlib.sha256(json.dumps(tokenizer.chat_template, sort_keys=True).encode()).hexdigest()


def make_respondent(
    model: str,
    engine: Engine,
    engine_reason: str,
    prompt_format: str | None = None,
    options: FormatOptions = NO_OPTIONS,
) -> Respondent:
    """Return `model`, its weights not loaded, as `engine` runs it and `prompt_format`, or else its own, asks it.

    `options` are the user's for prompts. Raises ModelError for a model that the engine cannot tokenize for, ConfigError
    for a prompt format that is none, and options that do not fit it.
    """
    with foreign(engine):
        tokenizer = engine.tokenizer(model)
    choice = choose_format(
        model, prompt_format, tokenizer, applies_chat_template=engine.applies_chat_template, options=options
    )
    return Respondent(model, engine, engine_reason, tokenizer, choice)


def choose_engine(name: str, tables: Mapping[str, Any], registry: Registry) -> tuple[Engine, str]:
    """Return the engine called `name`, or for ``auto`` the first that can run here, and why it was chosen.

    `tables` hold options by the engine's name. Raises ModelError for an engine that cannot run on this machine.
    """
    if name != "auto":
        engine = configured(tables, name, registry.engine(name))
        problem = _problem(engine)
        if problem is not None:
            raise ModelError(f"engine {engine.name!r} cannot run here: {problem}")
        if isinstance(engine, SpreadingEngine):
            return _spread(engine, tables, registry)
        return engine, "--engine"
    enabled = {plugin.name for plugin in registry.plugins("engines") if plugin.status == "ok"}
    problems: list[str] = []
    for each in AUTO_ENGINES:
        if each in enabled:
            engine = configured(tables, each, registry.engine(each))
            problem = _problem(engine)
            if problem is None:
                return engine, "; ".join(["auto", *problems])
            problems.append(f"{each} cannot run here: {problem}")
    raise ModelError("; ".join(problems) or "no engine is installed that can load a model")


def _problem(engine: Engine) -> str | None:
    """Return why an engine cannot run here, None where it can."""
    with foreign(engine):
        return engine.available()


def _spread(engine: SpreadingEngine, tables: Mapping[str, Any], registry: Registry) -> tuple[Engine, str]:
    """Return an engine with the one that it spreads; whether that can run is asked where it runs."""
    if engine.is_here or engine.engine == "auto":
        inner, why = choose_engine(engine.engine, tables, registry)
    else:
        inner, why = configured(tables, engine.engine, registry.engine(engine.engine)), "--engine"
    return engine.over(inner), f"--engine; its replicas run {inner.name}: {why}"


def running(engine: Engine) -> Engine:
    """Return the engine whose outputs they are: of one that spreads work, the one that it has it done by."""
    inner = engine.inner if isinstance(engine, SpreadingEngine) else None
    return engine if inner is None else inner


def engine_tables(engine: Engine) -> tuple[str, ...]:
    """Return the names of the tables whose options an engine takes."""
    return tuple(dict.fromkeys((engine.name, running(engine).name)))


def model_name(model: str) -> str:
    """Return a model's name for folders and files.

    >>> model_name("./out/sft/last/adapter/"), model_name("meta-llama/Meta-Llama-3-8B"), model_name("outputs.jsonl")
    ('sft--last--adapter', 'meta-llama--Meta-Llama-3-8B', 'outputs')
    """
    path = Path(model)
    if path.is_dir() or path.is_file() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        resolved = expanded(path).resolve()
        name = resolved.stem if path.is_file() or path.suffix in (".json", ".jsonl") else resolved.name
        parts = [name]
        for folder in resolved.parents:
            if not _OF_A_TRAINING.fullmatch(parts[0]):
                break
            parts.insert(0, folder.name)
    else:
        parts = model.split("/")
    return re.sub(r"[^\w.+-]+", "-", "--".join(part for part in parts if part)).lstrip(".") or "model"
