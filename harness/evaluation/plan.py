"""Decide everything that defines a run before any weights are loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from harness import limits
from harness.calls import blamed, choices_of, examples_of, instruction_of, reads_likelihoods, score
from harness.config import configured, merged, options_of
from harness.datasets import DataSource
from harness.datasets.ids import IdIndex
from harness.errors import ConfigError, DataError, PromptError, nearest
from harness.evaluation.prompt_file import PROMPTS, PromptFile, is_prompt_file
from harness.evaluation.selection import select
from harness.interfaces import Benchmark, Parser, Scorer
from harness.prompts import FormatOptions, format_options
from harness.registry import Registry
from harness.respondent import Respondent, choose_engine, engine_tables, make_respondent, running
from harness.runs.folder import RUN_FORMAT
from harness.statistics import GroupsAre
from harness.types import DataFile, Example, Generation, PluginSource, Request, described, sample_key
from harness.version import __version__

#: The table of options that go to the judge's engine.
JUDGE = "judge"

#: Options that are no part of what a run is.
_OF_THE_COMMAND = ("shared", "run_dir", "replace")

#: The other options that say who judges.
_JUDGING = ("judge_model", "judge_engine", "judge_prompt_format")

#: The table of arguments that go to the model's chat template.
TEMPLATE = "chat_template"

#: What is read of a model: what it says, how likely it finds each option, or both; and the parser of the second.
Scoring: TypeAlias = Literal["generated", "loglikelihood", "both"]
LOGLIKELIHOOD = "loglikelihood"

#: The engine of recorded outputs, and what stands for an engine where outputs were imported: they draw none.
REPLAY, IMPORT = "replay", "import"

#: The end of an id that looks like a repeat's.
_NUMBERED = re.compile(r"#([1-9]\d{0,8})$")

#: Made once, as `json.dumps` with options makes an encoder each time.
_encode_sorted = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True)
class RunOptions:
    """What `harness run` takes, from a run file, from flags, or from the run.json of an earlier run.

    `options` holds the tables of plugins by name. `limit` examples at most, drawn with `seed`. Where a benchmark's
    answers are judged, `judge_model` does so once the evaluated model has been freed, run by `judge_engine`, whose own
    options are the table ``judge``, and asked in `judge_prompt_format`. `system` is a system message or a file of one,
    `template` the name of one of several chat templates, whose arguments are the table ``chat_template``; for the judge
    they stand in its table. `trackers` are told the final metrics. `parsers` and `scorer` take the place of the
    benchmarks' own; `scoring` ``loglikelihood`` reads the likeliest option in their place, and ``both`` beside them.
    `samples` is how often each example is asked, at a temperature above 0. `groups_are` says whether a
    benchmark's groups (MMLU's subjects) are a ``sample`` of more such groups or the ``whole``, which decides on
    intervals; ``auto`` takes ten and more as a sample. `shared` names the options and tables that stand in a run file
    alone, which may be meant for other benchmarks, too. `run_dir` is the run's own folder, in the place of one that is
    named by benchmark, model and time below `out`; with `replace` a run of other options that is there makes way.
    `trained_on` are files that the model was trained on: examples that share words with them are recorded.
    """

    benchmark: tuple[str, ...] = ()
    model: str = ""
    engine: str = "auto"
    prompt_format: str | None = None
    data: str | None = None
    out: str = "runs"
    limit: int | None = None
    seed: int = 0
    samples: int = 1
    judge_model: str | None = None
    judge_engine: str = "auto"
    judge_prompt_format: str | None = None
    system: str | None = None
    template: str | None = None
    trackers: tuple[str, ...] = ()
    groups_are: GroupsAre = "auto"
    parsers: tuple[str, ...] = ()
    scorer: str | None = None
    scoring: Scoring = "generated"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    run_dir: str | None = None
    replace: bool = False
    trained_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}")
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, not {self.samples}")
        if self.scoring == "loglikelihood" and self.parsers:
            raise ValueError("scoring=loglikelihood reads no output; leave parsers out, or give scoring=both")

    def read_by(self, own: tuple[str, ...]) -> tuple[str, ...]:
        """Return the parsers' names, of a benchmark whose own they are."""
        if self.scoring == "generated":
            return self.parsers or own
        read = (self.parsers or own) if self.scoring == "both" else ()
        return tuple(dict.fromkeys((*read, LOGLIKELIHOOD)))


@dataclass(frozen=True)
class Plan:
    """One benchmark on one model: all that is needed to generate, parse and score, and the run's identity."""

    options: RunOptions
    benchmark: Benchmark
    respondent: Respondent
    parsers: tuple[Parser, ...]
    scorer: Scorer
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
    def title(self) -> str:
        """What is asked of whom and how, on one line, for people."""
        asked = self.respondent
        return f"{self.benchmark.title} · {asked.name} · {asked.engine.name} · {asked.format.name}"

    @property
    def generates(self) -> bool:
        """Whether a model's words are read, or judged; else nothing is generated."""
        return not self.parsers or self.scorer.judged or not all(map(reads_likelihoods, self.parsers))

    @property
    def weighs(self) -> bool:
        """Whether it is read how likely the model finds each option."""
        return any(map(reads_likelihoods, self.parsers))

    def request(self, index: int) -> tuple[Example, Request]:
        """Return the example at `index` of the benchmark and the request that asks it."""
        with blamed(self.benchmark):
            example = self.examples[index]
        asked = instruction_of(self.benchmark, example)
        system = self.benchmark.system(example) if isinstance(self.benchmark, PromptFile) else None
        choices = choices_of(self.benchmark, example) if self.weighs else None
        sent = self.respondent.request(example.id, index, asked, self.generation, system=system, choices=choices)
        return example, sent if self.generates else dataclasses.replace(sent, generated=False)

    def repeated(self, request: Request, repeat: int) -> Request:
        """Return the request that asks the same for another sample of the example; `repeat` 0 gives `request` itself.

        Its seed is made of the user's for the benchmark, or else the engine's, and of the example and the repeat: what
        a repeat gives depends neither on how many there are nor on what else is asked.
        """
        if not repeat:
            return request
        own = request.generation.seed
        seed = self.respondent.model_identity.get("seed") if own is None else own
        generation = dataclasses.replace(request.generation, seed=_seed(seed, request.id, repeat))
        key = sample_key(request.id, repeat)
        return dataclasses.replace(request, id=key, generation=generation, repeat=repeat)

    def command(self) -> dict[str, Any]:
        """Return the options that give this one plan, for run.json."""
        asked = self.benchmark.path if isinstance(self.benchmark, PromptFile) else self.benchmark.name
        given = {**dataclasses.asdict(self.options), "benchmark": [asked], "engine": self.respondent.engine.name}
        for name in _OF_THE_COMMAND:
            del given[name]
        usual = {"samples": 1, "scoring": "generated", "trained_on": ()}
        return {name: value for name, value in given.items() if name not in usual or value != usual[name]}

    def record(self) -> dict[str, Any]:
        """Return the content of run.json, but for the environment and the time."""
        asked_of = self.respondent
        return {
            "format": RUN_FORMAT,
            "harness": __version__,
            "fingerprint": self.fingerprint,
            "benchmark": self.benchmark.name,
            "model": asked_of.name,
            "engine": asked_of.engine.name,
            "command": self.command(),
            "prompt_format": {"name": asked_of.format.name, "reason": asked_of.choice.reason},
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
    engine, why = choose_engine(options.engine, options.options, registry)
    names = dict.fromkeys(options.benchmark)
    if options.run_dir is not None and len(names) > 1:
        raise ConfigError(f"--run-dir {options.run_dir} is the folder of one run; {len(names)} benchmarks are given")
    if options.replace and options.run_dir is None:
        raise ConfigError("--replace goes with --run-dir DIR")
    benchmarks = [_benchmark(options, name, registry) for name in names]
    tables = (name for benchmark in benchmarks for name in _tables_of(options, benchmark))
    used = [JUDGE, TEMPLATE, *engine_tables(engine), *options.trackers, *tables]
    judged = [registry.scorer(_scorer(options, each)).judged for each in benchmarks]
    options = _narrowed(options, used, any(judged), registry)
    _refuse_unknown(options, used)
    check_judge(options, judged)
    respondent = make_respondent(options.model, engine, why, options.prompt_format, asked_with(options))
    by = registry.source("engines", engine.name)
    return tuple(_plan(options, registry, benchmark, respondent, by) for benchmark in benchmarks)


def make_plan(options: RunOptions, registry: Registry, respondent: Respondent, by: PluginSource) -> Plan:
    """Return the plan of the one benchmark that `options` name, whose outputs `respondent` has already, by way of `by`.

    Raises HarnessError as `make_plans` does.
    """
    [name] = options.benchmark
    benchmark = _benchmark(options, name, registry)
    used = [by.name, *_tables_of(options, benchmark)]
    _refuse_unknown(options, used)
    return _plan(options, registry, benchmark, respondent, by)


def _narrowed(options: RunOptions, used: Sequence[str], judged: bool, registry: Registry) -> RunOptions:
    """Return `options` without what their run file says of other benchmarks, engines and judges than this run has."""
    known = {PROMPTS, *(plugin.name for plugin in registry.plugins())} - set(used)
    left_out = known & options.shared
    changes: dict[str, Any] = {}
    given = {name for name in _JUDGING if getattr(options, name) != getattr(RunOptions, name)}
    given |= {JUDGE} & options.options.keys()
    if given <= options.shared and not (judged and options.judge_model is not None):
        left_out.add(JUDGE)
        changes = {name: getattr(RunOptions, name) for name in _JUDGING}
    tables = {name: table for name, table in options.options.items() if name not in left_out}
    return dataclasses.replace(options, **changes, options=tables)


def _refuse_unknown(options: RunOptions, used: Sequence[str]) -> None:
    """Raise ConfigError for a table of options that nothing takes."""
    for name in options.options:
        if name not in used:
            raise ConfigError(f"unknown option or plugin {name!r}{nearest(name, [*used, *_option_names()])}")


def asked_with(options: RunOptions) -> FormatOptions:
    """Return what is said about the evaluated model's prompts; ConfigError for what does not fit."""
    return format_options(options.system, options.template, options.options.get(TEMPLATE, {}))


def _benchmark(options: RunOptions, name: str, registry: Registry) -> Benchmark:
    """Return the benchmark called `name`, or the one in the file of that name, with its options put in."""
    if is_prompt_file(name):
        table = options.options.get(PROMPTS, {})
        named = table.get("parser", ()) if isinstance(table, Mapping) else ()
        own = {"parser": options.read_by(tuple([named] if isinstance(named, str) else named)), "scorer": options.scorer}
        given = {key: value for key, value in own.items() if value}
        return PromptFile(name, merged(options.options, {PROMPTS: given}) if given else options.options, registry)
    return configured(options.options, name, registry.benchmark(name))


def _scorer(options: RunOptions, benchmark: Benchmark) -> str:
    return options.scorer or benchmark.scorer


def _parsers(options: RunOptions, benchmark: Benchmark) -> tuple[str, ...]:
    return benchmark.parsers if isinstance(benchmark, PromptFile) else options.read_by(benchmark.parsers)


def _tables_of(options: RunOptions, benchmark: Benchmark) -> Iterator[str]:
    """Yield the names of the tables whose options a benchmark, its scorer and its parsers take."""
    yield PROMPTS if isinstance(benchmark, PromptFile) else benchmark.name
    yield from (_scorer(options, benchmark), *_parsers(options, benchmark))


def _plan(
    options: RunOptions, registry: Registry, benchmark: Benchmark, respondent: Respondent, by: PluginSource
) -> Plan:
    source = DataSource(options.data)
    names, scored_by = _parsers(options, benchmark), _scorer(options, benchmark)
    parsers = tuple(configured(options.options, name, registry.parser(name)) for name in names)
    scorer = configured(options.options, scored_by, registry.scorer(scored_by))
    with blamed(benchmark):
        examples = benchmark.examples(source)
    groups, digest = _check_examples(benchmark, examples, options.samples)
    if not scorer.judged:
        score(scorer, examples[0], None)  # one that fails on all examples fails before the model is loaded
    generation = respondent.sampling(benchmark.generation)
    _check_likelihoods(options, benchmark, parsers, respondent, examples[0])
    _check_samples(options, benchmark, respondent, len(examples))
    plugins = (
        *(() if isinstance(benchmark, PromptFile) else (registry.source("benchmarks", benchmark.name),)),
        by,
        registry.source("scorers", scorer.name),
        *(registry.source("parsers", parser.name) for parser in parsers),
    )
    table = benchmark.options if isinstance(benchmark, PromptFile) else benchmark
    identity = {
        "benchmark": {"name": benchmark.name, **options_of(table)},
        "generation": described(generation),
        **respondent.identity,
        "parsers": [{"name": parser.name, **options_of(parser)} for parser in parsers],
        # What a judge is asked comes after the outputs, and is recorded with its judgements.
        "scorer": {"name": scorer.name, **({} if scorer.judged else options_of(scorer))},
        "examples": digest,
        "plugins": [dataclasses.asdict(plugin) for plugin in plugins if plugin is not by],
        "limit": options.limit,
        "seed": options.seed if options.limit is not None else None,
        **({"samples": options.samples} if options.samples > 1 else {}),
    }
    return Plan(
        options, benchmark, respondent, parsers, scorer, generation, examples,
        select(groups, options.limit, options.seed), source.used, plugins, identity,
    )  # fmt: skip


def _check_likelihoods(
    options: RunOptions, benchmark: Benchmark, parsers: Sequence[Parser], respondent: Respondent, example: Example
) -> None:
    """Raise ConfigError where parsers read how likely options are, and there are none, or the engine cannot say it."""
    reading = [parser.name for parser in parsers if reads_likelihoods(parser)]
    if not reading:
        return
    if not respondent.likelihoods:
        raise ConfigError(
            f"{reading[0]}: the engine {respondent.engine.name!r} does not say how likely an option is; "
            "--engine transformers and --engine vllm do"
        )
    if options.samples > 1 and len(reading) == len(parsers):
        raise ConfigError(f"samples {options.samples}: {reading[0]} is the same each time; leave samples out")
    try:
        choices_of(benchmark, example)
    except PromptError as error:
        raise ConfigError(str(error)) from error


def _check_samples(options: RunOptions, benchmark: Benchmark, respondent: Respondent, examples: int) -> None:
    """Raise ConfigError for samples that would all be the same (recorded ones are what they are), or are too many."""
    asked, temperature = options.samples, benchmark.generation.temperature
    if asked > 1 and temperature == 0 and running(respondent.engine).name not in (REPLAY, IMPORT):
        remedy = f"--set {next(_tables_of(options, benchmark))}.generation.temperature=0.7"
        raise ConfigError(
            f"samples {asked}: {benchmark.name} is asked at temperature 0, which gives the same each time; {remedy}"
        )
    if asked * examples > limits.SAMPLES.value:
        many = f"{limits.SAMPLES.told} of a run ({limits.SAMPLES})"
        raise ConfigError(f"samples {asked}: of {examples:,} examples they are more than the {many}")


def _seed(seed: object, identifier: str, repeat: int) -> int:
    """Return a seed of 31 bits, which every engine and server takes."""
    digest = hashlib.sha256(f"{seed}/{identifier}/{repeat}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4]) >> 1


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
    return (field.name for field in dataclasses.fields(RunOptions) if field.name not in ("options", *_OF_THE_COMMAND))


def _check_examples(
    benchmark: Benchmark, examples: Sequence[Example], samples: int
) -> tuple[Sequence[str | None], str]:
    """Return the groups of all examples and a digest of what is asked and what is right, whatever files they came in.

    Raises DataError for an empty benchmark, for an id that stands twice, and for one that is what another example's
    repeat is called.
    """
    ids = IdIndex()
    numbered: list[str] = []
    groups: list[str | None] = []
    names: dict[str, str] = {}
    digest = hashlib.sha256()
    for example in examples_of(benchmark, examples):
        ids.add(example.id)
        if samples > 1 and (number := _NUMBERED.search(example.id)) and 0 < int(number[1]) < samples:
            numbered.append(example.id)
        groups.append(None if example.group is None else names.setdefault(example.group, example.group))
        asked, right = instruction_of(benchmark, example), example.gold
        if not isinstance(asked, str):
            asked = json.dumps(asked)
        with blamed(benchmark, example):  # fields that are no JSON
            fields = _encode_sorted(example.fields)  # what is judged may be there and not in the instruction
        content = f"{example.id}\0{asked}\0{right}\0{example.group}\0{example.category}\0{fields}\0"
        digest.update(content.encode("utf-8", "surrogatepass"))
    if not groups:
        raise DataError(f"{benchmark.name}: no examples in its data")
    for first, second in ids.repeated(lambda position: examples[position].id):
        where = f"examples {first + 1} and {second + 1} (counted from 1)"
        raise DataError(f"{benchmark.name}: {where} have the same id {examples[first].id!r}; ids must be unique")
    for identifier in numbered:
        whole = identifier.rpartition("#")[0]
        if any(examples[position].id == whole for position in ids.candidates(whole)):
            raise DataError(
                f"{benchmark.name}: {identifier!r} is what a repeat of {whole!r} is called; give it another id"
            )
    return groups, digest.hexdigest()
