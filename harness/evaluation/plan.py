"""Decide everything that defines a run before any weights are loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import __version__
from harness.config import configure, options_of
from harness.datasets import DataSource
from harness.datasets.ids import IdIndex
from harness.errors import ConfigError, DataError, ModelError, nearest
from harness.evaluation.journal import RUN_FORMAT
from harness.evaluation.prompt_file import PROMPTS, PromptFile, is_prompt_file
from harness.evaluation.selection import select
from harness.interfaces import Benchmark, Engine, Parser, Scorer, Tokenizer
from harness.prompts import Choice, choose_format
from harness.registry import Registry
from harness.types import DataFile, Example, Generation, PluginSource, Request

#: The table of options that go to the judge's engine.
JUDGE = "judge"

#: Made once, as `json.dumps` with options makes an encoder each time.
_encode_sorted = json.JSONEncoder(sort_keys=True).encode

#: What ``auto`` tries, in this order.
AUTO_ENGINES = ("vllm", "transformers")


@dataclass(frozen=True)
class RunOptions:
    """What `harness run` takes, from a run file, from flags, or from the run.json of an earlier run.

    `options` holds the tables of plugins by name. `limit` examples at most, drawn with `seed`. Where a benchmark's
    answers are judged, `judge_model` does so once the evaluated model has been freed, run by `judge_engine`, whose own
    options are the table ``judge``, and asked in `judge_prompt_format`. `trackers` are told the final metrics.
    """

    benchmark: tuple[str, ...] = ()
    model: str = ""
    engine: str = "auto"
    prompt_format: str | None = None
    data: str | None = None
    out: str = "runs"
    limit: int | None = None
    seed: int = 0
    judge_model: str | None = None
    judge_engine: str = "auto"
    judge_prompt_format: str | None = None
    trackers: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}")


@dataclass(frozen=True)
class Plan:
    """One benchmark on one model: all that is needed to generate, parse and score, and the run's identity."""

    options: RunOptions
    benchmark: Benchmark
    engine: Engine
    engine_reason: str
    parsers: tuple[Parser, ...]
    scorer: Scorer
    choice: Choice
    tokenizer: Tokenizer | None
    generation: Generation
    examples: Sequence[Example]
    selection: Sequence[int]
    data: tuple[DataFile, ...]
    plugins: tuple[PluginSource, ...]
    identity: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """The sha256 of all that outputs and scores depend on: a run may be continued by another that shares it."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

    @property
    def model_name(self) -> str:
        """The model as folders and exported files name it."""
        return model_name(self.options.model)

    def request(self, index: int) -> tuple[Example, Request]:
        """Return the example at `index` of the benchmark and the request that asks it."""
        example = self.examples[index]
        prompt = self.choice.format.render(self.benchmark.instruction(example), self.tokenizer)
        return example, Request(example.id, prompt, self.generation, index)

    def record(self) -> dict[str, Any]:
        """Return the content of run.json, but for the environment and the time."""
        options = dataclasses.asdict(self.options)
        asked = self.benchmark.path if isinstance(self.benchmark, PromptFile) else self.benchmark.name
        return {
            "format": RUN_FORMAT,
            "harness": __version__,
            "fingerprint": self.fingerprint,
            "benchmark": self.benchmark.name,
            "model": self.model_name,
            "engine": self.engine.name,
            "command": {**options, "benchmark": [asked], "engine": self.engine.name},
            "prompt_format": {"name": self.choice.format.name, "reason": self.choice.reason},
            "parsers": [parser.name for parser in self.parsers],
            "scorer": self.scorer.name,
            "examples": len(self.examples),
            "selected": len(self.selection),
            "data": [dataclasses.asdict(file) for file in self.data],
            "plugins": [dataclasses.asdict(plugin) for plugin in self.plugins],
            "identity": self.identity,
        }


def make_plans(options: RunOptions, registry: Registry) -> tuple[Plan, ...]:
    """Return one plan for each benchmark that `options` names.

    Loads plugins, data and the tokenizer, but no weights; raises HarnessError for the first thing that does not fit.
    """
    if not options.benchmark:
        raise ConfigError("no benchmark given: --benchmark NAME (`harness plugins` lists them)")
    if not options.model:
        raise ConfigError("no model given: --model FOLDER (or a name on the Hugging Face hub)")
    engine, why = choose_engine(options, registry)
    names = dict.fromkeys(options.benchmark)
    benchmarks = [_benchmark(options, name, registry) for name in names]
    used = {JUDGE, engine.name, *options.trackers, *(name for b in benchmarks for name in _tables_of(b))}
    for name in options.options:
        if name not in used:
            raise ConfigError(f"unknown option or plugin {name!r}{nearest(name, [*used, *_option_names()])}")
    check_judge(options, [registry.get("scorers", benchmark.scorer).judged for benchmark in benchmarks])
    tokenizer = engine.tokenizer(options.model)
    choice = choose_format(
        options.model, options.prompt_format, tokenizer, applies_chat_template=engine.applies_chat_template
    )
    model = engine.identity(options.model)
    return tuple(_plan(options, registry, b, engine, why, tokenizer, choice, model) for b in benchmarks)


def _benchmark(options: RunOptions, name: str, registry: Registry) -> Benchmark:
    """Return the benchmark called `name`, or the one in the file of that name, with its options put in."""
    if is_prompt_file(name):
        return PromptFile(name, options.options, registry)
    benchmark: Benchmark = configured(options.options, name, registry.get("benchmarks", name))
    return benchmark


def _tables_of(benchmark: Benchmark) -> Iterator[str]:
    """Yield the names of the tables whose options a benchmark, its scorer and its parsers take."""
    yield PROMPTS if isinstance(benchmark, PromptFile) else benchmark.name
    yield from (benchmark.scorer, *benchmark.parsers)


def _plan(
    options: RunOptions,
    registry: Registry,
    benchmark: Benchmark,
    engine: Engine,
    why: str,
    tokenizer: Tokenizer | None,
    choice: Choice,
    model: Mapping[str, Any],
) -> Plan:
    source = DataSource(options.data)
    parsers = tuple(configured(options.options, name, registry.get("parsers", name)) for name in benchmark.parsers)
    scorer = configured(options.options, benchmark.scorer, registry.get("scorers", benchmark.scorer))
    examples = benchmark.examples(source)
    groups, digest = _check_examples(benchmark, examples)
    generation = dataclasses.replace(
        benchmark.generation, stop=tuple(dict.fromkeys((*benchmark.generation.stop, *choice.format.stop)))
    )
    plugins = (
        *(() if isinstance(benchmark, PromptFile) else (registry.source("benchmarks", benchmark.name),)),
        registry.source("engines", engine.name),
        registry.source("scorers", scorer.name),
        *(registry.source("parsers", parser.name) for parser in parsers),
    )
    table = benchmark.options if isinstance(benchmark, PromptFile) else benchmark
    identity = {
        "benchmark": {"name": benchmark.name, **options_of(table)},
        "generation": dataclasses.asdict(generation),
        "model": model,
        "engine": engine.name,
        "prompt_format": {"name": choice.format.name, "digest": choice.format.digest},
        "chat_template": chat_template_digest(choice, tokenizer),
        "parsers": [{"name": parser.name, **options_of(parser)} for parser in parsers],
        # What a judge is asked comes after the outputs, and is recorded with its judgements.
        "scorer": {"name": scorer.name, **({} if scorer.judged else options_of(scorer))},
        "examples": digest,
        "plugins": [dataclasses.asdict(plugin) for plugin in plugins if plugin.kind != "engines"],
        "limit": options.limit,
        "seed": options.seed if options.limit is not None else None,
    }
    return Plan(
        options, benchmark, engine, why, parsers, scorer, choice, tokenizer, generation, examples,
        select(groups, options.limit, options.seed), source.used, plugins, identity,
    )  # fmt: skip


def configured(tables: Mapping[str, Any], name: str, plugin: Any) -> Any:
    """Return `plugin` with the options that `tables` hold under its name; ConfigError for what does not fit."""
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"options of {name!r} are given as {name}.OPTION=VALUE, not {name}={table}")
    return configure(plugin, table, name)


def check_judge(options: RunOptions, judged: Sequence[bool]) -> None:
    """Raise ConfigError for a judge that has nothing to do, and for options of one that is not there."""
    if options.judge_model is not None:
        if not any(judged):
            raise ConfigError(
                f"--judge {options.judge_model}: {', '.join(options.benchmark)} needs no judge; leave it out"
            )
    elif JUDGE in options.options or options.judge_engine != "auto" or options.judge_prompt_format is not None:
        raise ConfigError("options for a judge are given, but no judge: --judge MODEL")


def _option_names() -> Iterator[str]:
    return (field.name for field in dataclasses.fields(RunOptions) if field.name != "options")


def choose_engine(options: RunOptions, registry: Registry) -> tuple[Engine, str]:
    """Return the engine asked for, configured, or for ``auto`` the first that can run here, and why it was chosen."""
    if options.engine != "auto":
        engine = configured(options.options, options.engine, registry.get("engines", options.engine))
        problem = engine.available()
        if problem is not None:
            raise ModelError(f"engine {engine.name!r} cannot run here: {problem}")
        return engine, "--engine"
    enabled = {plugin.name for plugin in registry.plugins("engines") if plugin.status == "ok"}
    problems: list[str] = []
    for name in AUTO_ENGINES:
        if name in enabled:
            engine = configured(options.options, name, registry.get("engines", name))
            problem = engine.available()
            if problem is None:
                return engine, "; ".join(["auto", *problems])
            problems.append(f"{name} cannot run here: {problem}")
    raise ModelError("; ".join(problems) or "no engine is installed that can load a model")


def _check_examples(benchmark: Benchmark, examples: Sequence[Example]) -> tuple[Sequence[str | None], str]:
    """Return the groups of all examples and a digest of what is asked and what is right, whatever files they came in.

    Raises DataError for an empty benchmark and for an id that stands twice.
    """
    ids = IdIndex()
    groups: list[str | None] = []
    names: dict[str, str] = {}
    digest = hashlib.sha256()
    for example in examples:
        ids.add(example.id)
        groups.append(None if example.group is None else names.setdefault(example.group, example.group))
        asked, right = benchmark.instruction(example), example.gold
        fields = _encode_sorted(example.fields)  # what is judged may be there and not in the instruction
        content = f"{example.id}\0{asked}\0{right}\0{example.group}\0{example.category}\0{fields}\0"
        digest.update(content.encode("utf-8", "surrogatepass"))
    if not groups:
        raise DataError(f"{benchmark.name}: no examples in its data")
    for first, second in ids.repeated(lambda position: examples[position].id):
        where = f"examples {first + 1} and {second + 1} (counted from 1)"
        raise DataError(f"{benchmark.name}: {where} have the same id {examples[first].id!r}; ids must be unique")
    return groups, digest.hexdigest()


def chat_template_digest(choice: Choice, tokenizer: Tokenizer | None) -> str | None:
    """Return the digest of the chat template that prompts are made with, or None where none is."""
    if choice.format.name != "chat" or tokenizer is None:
        return None
    return hashlib.sha256(json.dumps(tokenizer.chat_template, sort_keys=True).encode()).hexdigest()


def model_name(model: str) -> str:
    """Return a model's name for folders and files.

    >>> model_name("out/sft/best/"), model_name("meta-llama/Meta-Llama-3-8B"), model_name("outputs.jsonl")
    ('sft--best', 'meta-llama--Meta-Llama-3-8B', 'outputs')
    """
    path = Path(model)
    if path.is_dir() or path.is_file() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        resolved = path.expanduser().resolve()
        name = resolved.stem if path.is_file() or path.suffix in (".json", ".jsonl") else resolved.name
        parts = [resolved.parent.name, name] if name in ("best", "last") else [name]
    else:
        parts = model.split("/")
    return re.sub(r"[^\w.+-]+", "-", "--".join(part for part in parts if part)).lstrip(".") or "model"
