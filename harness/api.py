"""The way in from Python; `import harness` offers it, and the command line and the fakes of tests call the same.

    run = harness.evaluate("gsm8k", "ckpt/", limit=100)
    print(run.results.metrics["final-number"]["accuracy"].value)

Wherever the name of a plugin is taken, an object that is one may be given instead; nothing need be installed. Options
of plugins are tables by the plugin's name, as in a run file: ``vllm={"tensor_parallel_size": 2}``. Whatever does not
fit raises a `harness.errors.HarnessError` whose message is one line with the remedy.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast, overload

from harness.config import configure, merged
from harness.errors import ConfigError, HarnessWarning, RunError, nearest
from harness.files import expanded
from harness.jobs import Evaluation, Importing, Judging
from harness.registry import Kind, Registry
from harness.runs.folder import RUN, Run, begun
from harness.runs.selecting import found_runs, one_run

if TYPE_CHECKING:
    from harness.comparing.comparison import Comparison
    from harness.evaluation.plan import RunOptions, Scoring
    from harness.interfaces import Benchmark, Engine, Format, Parser, Scorer, Tracker, Trainer
    from harness.runs.records import Results
    from harness.statistics import GroupsAre

#: No options.
_NONE: Mapping[str, Any] = MappingProxyType({})


@overload
def evaluate(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too
    benchmark: str | Path | Benchmark, model: str | Path, *,
    engine: str | Engine | None = ..., prompt_format: str | Path | None = ..., data: str | Path | None = ...,
    out: str | Path | None = ..., run_dir: str | Path | None = ..., replace: bool = ...,
    limit: int | None = ..., seed: int | None = ..., samples: int | None = ...,
    parsers: Sequence[str | Parser] = ..., scorer: str | Scorer | None = ..., scoring: Scoring | None = ...,
    judge: str | Path | None = ..., judge_engine: str | Engine | None = ..., judge_options: Mapping[str, Any] = ...,
    judge_prompt_format: str | Path | None = ..., system: str | None = ..., template: str | None = ...,
    trained_on: Sequence[str | Path] = ..., trackers: Sequence[str | Tracker] = ..., groups_are: GroupsAre | None = ...,
    config: str | Path | None = ..., earlier: Run | str | Path | None = ..., fresh: bool = ..., progress: bool = ...,
    registry: Registry | None = ..., **options: Mapping[str, Any],
) -> Run: ...  # fmt: skip


@overload
def evaluate(
    benchmark: Sequence[str | Path | Benchmark], model: str | Path, *,
    engine: str | Engine | None = ..., prompt_format: str | Path | None = ..., data: str | Path | None = ...,
    out: str | Path | None = ..., run_dir: str | Path | None = ..., replace: bool = ...,
    limit: int | None = ..., seed: int | None = ..., samples: int | None = ...,
    parsers: Sequence[str | Parser] = ..., scorer: str | Scorer | None = ..., scoring: Scoring | None = ...,
    judge: str | Path | None = ..., judge_engine: str | Engine | None = ..., judge_options: Mapping[str, Any] = ...,
    judge_prompt_format: str | Path | None = ..., system: str | None = ..., template: str | None = ...,
    trained_on: Sequence[str | Path] = ..., trackers: Sequence[str | Tracker] = ..., groups_are: GroupsAre | None = ...,
    config: str | Path | None = ..., earlier: Run | str | Path | None = ..., fresh: bool = ..., progress: bool = ...,
    registry: Registry | None = ..., **options: Mapping[str, Any],
) -> list[Run]: ...  # fmt: skip


def evaluate(
    benchmark: str | Path | Benchmark | Sequence[str | Path | Benchmark], model: str | Path, *,
    engine: str | Engine | None = None, prompt_format: str | Path | None = None, data: str | Path | None = None,
    out: str | Path | None = None, run_dir: str | Path | None = None, replace: bool = False,
    limit: int | None = None, seed: int | None = None, samples: int | None = None,
    parsers: Sequence[str | Parser] = (), scorer: str | Scorer | None = None, scoring: Scoring | None = None,
    judge: str | Path | None = None, judge_engine: str | Engine | None = None, judge_options: Mapping[str, Any] = _NONE,
    judge_prompt_format: str | Path | None = None, system: str | None = None, template: str | None = None,
    trained_on: Sequence[str | Path] = (), trackers: Sequence[str | Tracker] = (), groups_are: GroupsAre | None = None,
    config: str | Path | None = None, earlier: Run | str | Path | None = None, fresh: bool = False,
    progress: bool = True, registry: Registry | None = None, **options: Mapping[str, Any],
) -> Run | list[Run]:  # fmt: skip
    """Evaluate a model on a benchmark and return the run; of several benchmarks, for which it is loaded once, all runs.

    It is what `harness run` does: a run that was interrupted, by Ctrl-C too, goes on when the same call is made again,
    and a finished one is answered from its folder. Samples that the engine failed on are counted in the results.

    Arguments:
        benchmark: a name, a file of prompts, an object, or a list of them.
        model: a model folder, a name on the hub or of a server's model, or a file of recorded outputs.
        engine: what runs the model: ``auto``, ``vllm``, ``transformers``, ``openai``, ``replay``, or an object.
        prompt_format: how it is asked, where that is not the format it was trained in, or its own.
        data: the data folder; without it, the Hugging Face hub.
        out: the folder for runs, by default ``runs``; or `run_dir`, that of this one run, where `replace` has a run of
            other options make way.
        limit: a sample of so many examples, stratified by group, that `seed` draws.
        samples: how often each example is asked, at a temperature above 0.
        parsers: what reads the outputs, the headline first, in the place of the benchmark's own; so `scorer`.
        scoring: what is read: what the model says (``generated``), how likely it finds each option of a multiple-choice
            question (``loglikelihood``), or ``both``.
        judge: the model that judges, where the scorer asks one; `judge_engine` runs it, with `judge_options`, and it is
            asked in `judge_prompt_format`.
        system: a system message, or a file of one. Arguments of the chat template are the table `chat_template`.
        template: which of the model's several chat templates.
        trained_on: files that the model was trained on: examples that share 13 words in a row with them are recorded.
        trackers: are told the final metrics.
        groups_are: whether groups of examples (MMLU's subjects) are a ``sample`` or the ``whole``, for intervals.
        config: a run file, and `earlier` a run; their options hold where none is given here.
        fresh: whether to begin anew where the same run is there.
        progress: whether to say on standard error how far it is.
        registry: the plugins there are, to which objects are added; by default those that are installed.
        options: tables of options by the plugin's name.

    Raises HarnessError for what does not fit, before any weights are loaded where that can be known, and for a run that
    cannot go on. Warns with `HarnessWarning` where the prompt format is not the one that the model was trained in.
    """
    several = isinstance(benchmark, Sequence) and not isinstance(benchmark, str)
    asked: dict[str, Any] = {"benchmark": benchmark if several else [benchmark], "data": data, "out": out}
    asked |= {"run_dir": run_dir, "replace": replace or None, "limit": limit, "seed": seed, "samples": samples}
    asked |= {"model": str(model), "engine": engine, "prompt_format": prompt_format, "system": system}
    asked |= {"template": template, "parsers": parsers, "scorer": scorer, "scoring": scoring, "trackers": trackers}
    asked |= {"judge_model": judge, "judge_engine": judge_engine, "judge_prompt_format": judge_prompt_format}
    asked |= {"trained_on": [str(file) for file in trained_on] or None}
    filed, options = _filed(config, earlier), options if not judge_options else {**options, "judge": judge_options}
    runs = _evaluated({**asked, "groups_are": groups_are}, options, filed, registry or Registry(), fresh, progress)
    return runs if several else runs[0]


@overload
def judge(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too
    run: Run | str | Path, model: str | Path, *,
    engine: str | Engine = ..., prompt_format: str | Path | None = ..., reference: str | Path | None = ...,
    trackers: Sequence[str | Tracker] = ..., progress: bool = ..., registry: Registry | None = ...,
    **options: Mapping[str, Any],
) -> Run: ...  # fmt: skip


@overload
def judge(
    run: Sequence[Run | str | Path], model: str | Path, *,
    engine: str | Engine = ..., prompt_format: str | Path | None = ..., reference: str | Path | None = ...,
    trackers: Sequence[str | Tracker] = ..., progress: bool = ..., registry: Registry | None = ...,
    **options: Mapping[str, Any],
) -> list[Run]: ...  # fmt: skip


def judge(
    run: Run | str | Path | Sequence[Run | str | Path],
    model: str | Path,
    *,
    engine: str | Engine = "auto",
    prompt_format: str | Path | None = None,
    reference: str | Path | None = None,
    trackers: Sequence[str | Tracker] = (),
    progress: bool = True,
    registry: Registry | None = None,
    **options: Mapping[str, Any],
) -> Run | list[Run]:
    """Have `model` judge the responses of a finished run, or of several, and return it with what the judge said.

    Nothing is asked twice. `reference` is a file of outputs to compare with in the place of those in the run; `options`
    are those of the scorer (``winrate={"orders": "one"}``) and of the judge's engine (``judge={…}``); otherwise as
    `evaluate`. A chat's transcript can be judged too.
    """
    registry = registry or Registry()
    several = isinstance(run, Sequence) and not isinstance(run, str)
    asked = {"judge_model": str(model), "judge_engine": engine, "judge_prompt_format": prompt_format}
    chosen = _run_options({**asked, "trackers": trackers}, options, registry)
    named = cast("Sequence[Run | str | Path]", run if several else [run])
    judging = Judging([load_run(each) for each in named], chosen, registry, reference=reference)
    _warn(judging.warnings)
    found = []
    for done in judging.carry_out(progress=progress):
        _warn(done.warnings)
        found.append(done.run)
    return found if several else found[0]


def score(run: Run | str | Path, *, parsers: Sequence[str | Parser] = (), registry: Registry | None = None) -> Results:
    """Return what the results of a run would be if its recorded outputs were read by `parsers`; nothing is changed.

    Without parsers they are the run's own. Raises RunError for a run that a judge scores.
    """
    from harness.evaluation.rescore import rescore

    registry = registry or Registry()
    return rescore(load_run(run), [_name(each, "parsers", registry) for each in parsers], registry)


def export(
    run: Run | str | Path,
    form: str = "csv",
    *,
    out: str | Path | None = None,
    parser: str | Parser | None = None,
    raw: bool = False,
    organization: str | None = None,
    force: bool = False,
    registry: Registry | None = None,
) -> list[Path]:
    """Write a run in the form of another tool, and return the files: ``csv``, ``lm-eval`` or ``every-eval-ever``.

    `out` is a file for ``csv`` and a folder for the others, by default in the run's ``exports/``. `parser` reads the
    outputs of a CSV anew, and `raw` leaves control characters in it as they are; `organization` is who evaluated, for
    ``every-eval-ever``. `force` replaces what is there.
    """
    from harness.exporting.export import ExportOptions, write_export

    registry = registry or Registry()
    chosen = None if parser is None else _name(parser, "parsers", registry)
    place = None if out is None else expanded(out)
    return write_export(load_run(run), form, ExportOptions(place, chosen, organization, raw, force), registry)


def compare(
    *runs: Run | str | Path,
    metrics: Sequence[str] = (),
    groups_are: GroupsAre | None = None,
    without_contaminated: bool = False,
    registry: Registry | None = None,
) -> Comparison:
    """Compare finished runs example by example, the first of each benchmark being the baseline.

    `metrics` are names to restrict it to. `without_contaminated` leaves out examples that a model was trained on, as
    its run records it. `groups_are` says whether groups of examples are a ``sample`` or the
    ``whole``, by default what the first run was made with. Raises RunError for runs that cannot be compared.
    """
    from harness.comparing.comparison import compare as compare_recorded
    from harness.runs.columns import read_run

    kept, notes = begun(_paths(runs))
    _warn(notes)
    read = [read_run(path) for path in kept]
    return compare_recorded(
        read, metrics=metrics, groups_are=groups_are, registry=registry, without_contaminated=without_contaminated
    )


def report(
    *runs: Run | str | Path,
    out: str | Path | None = None,
    title: str | None = None,
    force: bool = False,
    form: str = "html",
    registry: Registry | None = None,
) -> Path:
    """Write a document on runs and return its path; `force` replaces a file that is there.

    `form` is ``html``, a self-contained page with all samples, or ``markdown``, the tables alone. By default the file
    is ``report.html`` or ``report.md``.
    """
    from harness.reports import html, markdown
    from harness.runs.columns import read_run
    from harness.runs.line_file import write_atomically

    renders = {"html": (html.render, "report.html"), "markdown": (markdown.render, "report.md")}
    if form not in renders:
        raise ConfigError(f"unknown form {form!r}{nearest(form, renders)}")
    render, usual = renders[form]
    path = Path(usual if out is None else out)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give --out a file, such as {path / usual}")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; give --force (force=True in Python) to replace it, or another --out")
    kept, notes = begun(_paths(runs))
    _warn(notes)
    page = render([read_run(found) for found in kept], title=title, registry=registry)
    write_atomically(path, (piece.encode("utf-8") for piece in page))
    return path


def train(
    trainer: str | Trainer,
    recipe: str | Path | None = None,
    *,
    model: str | Path | None = None,
    out: str | Path | None = None,
    trackers: Sequence[str | Tracker] | None = None,
    progress: bool = True,
    registry: Registry | None = None,
    **options: Any,
) -> Path:
    """Train a model and return the folder of its checkpoint, as `harness train` does.

    `recipe` is a TOML file, which everything else goes over. `options` are the trainer's own (``learning_rate=1e-5``),
    or tables by a tracker's name. Make the same call again after a crash or Ctrl-C, and it goes on where it stopped.
    Without `progress` nothing is said on standard error.
    """
    from harness.calls import foreign
    from harness.training.recipe import read_recipe

    registry = registry or Registry()
    name = _name(trainer, "trainers", registry)
    named = None if trackers is None else [_name(each, "trackers", registry) for each in trackers]
    tables = {key: value for key, value in options.items() if key in (named or ())}
    own = {key: value for key, value in options.items() if key not in tables}
    flags = {"model": model, "out": out, "trackers": named, **tables, name: own}
    file = None if recipe is None else Path(recipe)
    chosen, run = read_recipe(name, registry, file=file, flags=_plain(flags))
    with ExitStack() as stack:
        if not progress:
            silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stderr(silence))
        with foreign(chosen):
            return chosen.train(run)


@overload
def import_outputs(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too
    files: str | Path, benchmark: str | Path | Benchmark, *, format: str | Format | None = ...,
    map: Mapping[str, str] | None = ..., model: str | None = ..., data: str | Path | None = ..., out: str | Path = ...,
    parsers: Sequence[str | Parser] = ..., scorer: str | Scorer | None = ..., groups_are: GroupsAre = ...,
    progress: bool = ..., registry: Registry | None = ..., **options: Mapping[str, Any],
) -> Run: ...  # fmt: skip


@overload
def import_outputs(
    files: Sequence[str | Path], benchmark: str | Path | Benchmark, *, format: str | Format | None = ...,
    map: Mapping[str, str] | None = ..., model: str | None = ..., data: str | Path | None = ..., out: str | Path = ...,
    parsers: Sequence[str | Parser] = ..., scorer: str | Scorer | None = ..., groups_are: GroupsAre = ...,
    progress: bool = ..., registry: Registry | None = ..., **options: Mapping[str, Any],
) -> list[Run]: ...  # fmt: skip


def import_outputs(
    files: str | Path | Sequence[str | Path],
    benchmark: str | Path | Benchmark,
    *,
    format: str | Format | None = None,
    map: Mapping[str, str] | None = None,
    model: str | None = None,
    data: str | Path | None = None,
    out: str | Path = "runs",
    parsers: Sequence[str | Parser] = (),
    scorer: str | Scorer | None = None,
    groups_are: GroupsAre = "auto",
    progress: bool = True,
    registry: Registry | None = None,
    **options: Mapping[str, Any],
) -> Run | list[Run]:
    """Make a run of the outputs that another tool recorded in a file, or of several files a run for each model.

    `format` is what reads the files, by default what recognises them; `map` names the fields of rows
    (``{"output": "generated_text", "id": "question_id"}``). `model` is the model's name where the files do not say it;
    all are then one run. Otherwise as `evaluate`. A file that was imported before is answered from its folder.

    Raises DataError, with file and line or id, for outputs that cannot be used, before anything is written.
    """
    registry = registry or Registry()
    several = not isinstance(files, str | Path)
    asked: dict[str, Any] = {"benchmark": [benchmark], "model": model, "data": data, "out": out}
    asked |= {"parsers": parsers, "scorer": scorer, "groups_are": groups_are}
    form = None if format is None else _name(format, "formats", registry)
    named = [Path(file) for file in cast("Sequence[str | Path]", files if several else [files])]
    importing = Importing(named, _run_options(asked, options, registry), registry, form=form, fields=map or {})
    found = [done.run for done in importing.carry_out(progress=progress)]
    return found if several else found[0]


def load_run(path: Run | str | Path) -> Run:
    """Return the run in the folder `path`, or the chat whose transcript it is.

    ``latest:gsm8k/ckpt`` is the newest finished one of that benchmark and model in ``runs``. Raises RunError where
    there is none, or one of another format.
    """
    if isinstance(path, Run):
        return path
    path = one_run(str(path))
    if path.is_file():
        from harness.judging.transcripts import TranscriptRun

        return TranscriptRun(path)
    run = Run(path)
    _ = run.record  # is read, and so checked
    return run


def load_runs(folder: str | Path = "runs") -> list[Run]:
    """Return the runs below `folder`, by benchmark, model and time; RunError where there is no such folder."""
    if not Path(folder).is_dir():
        raise RunError(f"no folder {folder}: give the one that runs were written to")
    walk = os.walk(folder)  # passes over what goes away meanwhile: a run that is begun gets its name by a renaming
    found = sorted(Path(path).relative_to(folder) for path, _, names in walk if RUN in names)
    return [load_run(Path(folder) / path) for path in found if not any(part.startswith(".") for part in path.parts)]


def describe(thing: Run | Comparison | Evaluation) -> str:
    """Return what the command line prints about a run, a comparison or a planned evaluation."""
    if isinstance(thing, Run):
        from harness.reports.summary import benchmark_title, summary

        record = thing.record
        title = f"{benchmark_title(record.benchmark)} · {record.model} · {record.engine} · {record.prompt_format.name}"
        return summary(title, thing.results, thing.timing, str(thing.path))
    if isinstance(thing, Evaluation):
        return thing.describe()
    from harness.reports.comparison import as_markdown, sections

    return as_markdown(sections(thing, flips=3))


def _name(given: Any, kind: Kind, registry: Registry) -> str:
    """Return a plugin's name; an object is added to the registry under its own."""
    if isinstance(given, str | Path):
        return str(given)
    registry.add(kind, given)
    return str(given.name)


#: The settings of a run that name plugins, and of which kind.
_PLUGINS: Mapping[str, Kind] = {
    "benchmark": "benchmarks", "engine": "engines", "judge_engine": "engines",
    "parsers": "parsers", "scorer": "scorers", "trackers": "trackers",
}  # fmt: skip


def _filed(config: str | Path | None, earlier: Run | str | Path | None) -> RunOptions:
    """Return the options of a run file and of an earlier run, the first over the second."""
    from harness.evaluation.options import run_options

    run = None if earlier is None else load_run(earlier).path
    return run_options(earlier=run, file=None if config is None else Path(config))


def _evaluated(
    asked: Mapping[str, Any], tables: Mapping[str, Any], filed: RunOptions, registry: Registry, fresh: bool, shown: bool
) -> list[Run]:
    """Carry out what is asked for, and return the runs in its order."""
    evaluation = Evaluation(_run_options(asked, tables, registry, filed), registry)
    _warn(evaluation.warnings, depth=4)
    runs: dict[int, Run] = {}
    for done in evaluation.carry_out(fresh=fresh, progress=shown):
        _warn(done.warnings, depth=4)
        runs[done.position] = done.run
    return [run for _, run in sorted(runs.items())]


def _run_options(
    settings: Mapping[str, Any], tables: Mapping[str, Any], registry: Registry, filed: RunOptions | None = None
) -> RunOptions:
    """Return the options of a run, with names in the place of objects; ConfigError for what is of another type.

    Those that are None or empty are not given: they are those of `filed`.
    """
    from harness.evaluation.plan import RunOptions

    given = {key: value for key, value in settings.items() if value not in (None, (), [])}
    for key in [key for key in _PLUGINS if key in given]:
        value, kind = given[key], _PLUGINS[key]
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        given[key] = [_name(each, kind, registry) for each in value] if is_list else _name(value, kind, registry)
    filed, own = filed or RunOptions(), _plain(tables)
    chosen = configure(filed, _plain(given), "evaluate")
    shared = filed.shared - given.keys() - own.keys()
    return replace(chosen, options=merged(filed.options, own), shared=shared)


def _plain(value: Any) -> Any:
    """Return options as a run file would hold them: paths as texts."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _paths(runs: Sequence[Run | str | Path]) -> list[Path]:
    """Return the folders of runs, texts being paths, patterns or ``latest:`` a folder of runs."""
    found = ([run.path] if isinstance(run, Run) else found_runs(str(run)) for run in runs)
    return [path for paths in found for path in paths]


def _warn(messages: Sequence[str], depth: int = 3) -> None:
    """Warn the caller of the function that calls this; `depth` 4, the caller of that one's."""
    for message in messages:
        warnings.warn(message, HarnessWarning, stacklevel=depth)
