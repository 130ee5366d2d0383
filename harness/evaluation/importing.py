"""Make run folders of outputs that another tool recorded: found, checked and paired first, then written as a run is.

Files of one model are one run. An output belongs to the benchmark's example of its id, or where ids differ to the one
that asks its question; nothing is written before each has its example.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.calls import blamed, parse
from harness.config import configured, merged, options_of
from harness.datasets import file_sha256
from harness.errors import ConfigError, DataError, HarnessError
from harness.evaluation.pairing import Pairing
from harness.evaluation.plan import IMPORT, Plan, RunOptions, make_plan
from harness.evaluation.progress import Progress
from harness.evaluation.runner import begin_run, find_run, finish, make_sample
from harness.files import expanded
from harness.formats.beginnings import start_of
from harness.interfaces import BaseEngine, Format, Model
from harness.prompts import Choice, PromptFormat
from harness.registry import Registry
from harness.respondent import Respondent
from harness.runs.folder import Run
from harness.runs.journal import Journal
from harness.runs.records import Imported, ImportedFile, as_json
from harness.types import Completion, Prompt, RecordedOutput, Recording, Request, Sample, SourceReading

#: What run.json names in the place of a prompt format.
UNKNOWN = "unknown"

#: Takes what no other format recognises.
_ANY_ROWS = "rows"


@dataclass(frozen=True)
class Import:
    """A run to be made of recorded outputs, everything checked: its plan, and which example each output is for."""

    plan: Plan
    recordings: Sequence[Recording]
    pairing: Pairing
    origin: Imported

    @property
    def title(self) -> str:
        """What is imported, on one line, for people."""
        return f"{self.plan.benchmark.title} · {self.plan.respondent.name} · {_tool(self.origin)}"

    @property
    def paired(self) -> str:
        """How outputs were found to belong to examples, on one line, for people."""
        ways = {"by id": self.origin.by_id, "by the question's text": self.origin.by_text}
        said = " and ".join(f"{count:,} {how}" for how, count in ways.items() if count)
        missing = len(self.plan.examples) - len(self.plan.selection)
        more = f"; {missing:,} of the benchmark's {len(self.plan.examples):,} examples have none" if missing else ""
        return f"paired {said}{more}"

    def carry_out(self, *, progress: bool = True) -> tuple[Run, int]:
        """Write the run, or go on with it, and return it with the number of outputs that were new."""
        found = find_run(self.plan)
        if found is None:
            found = begin_run(self.plan, {"imported": as_json(self.origin)})
        added, samples, selection = 0, self.plan.options.samples, self.plan.selection
        with Journal(found, len(self.plan.examples), samples) as journal:
            unit = "examples" if samples == 1 else "samples"
            counted = Progress(self.plan.benchmark.title, len(selection) * samples, unit=unit, shown=progress)
            if not all(journal.done(index, repeat) for index in selection for repeat in range(samples)):
                with counted:
                    for index, output in zip(self.pairing.indices, _outputs(self.recordings), strict=True):
                        if not journal.done(index, output.repeat):
                            journal.append(_sample(self.plan, index, output))
                            counted.add(output.completion_tokens or 0)
                            added += 1
            finish(self.plan, found, journal, changed=bool(added))
        return found, added


def make_imports(
    paths: Sequence[Path], options: RunOptions, registry: Registry, *, form: str | None, fields: Mapping[str, str]
) -> list[Import]:
    """Return a run for each model whose outputs are in the files at `paths`, everything read and checked.

    `form` names their format, by default the one that recognises each; `fields` are options of it. `options` name the
    benchmark, and the model where the files do not, or where they are all to be one run. Raises HarnessError for the
    first thing that does not fit.
    """
    if len(options.benchmark) != 1:
        raise ConfigError("say of which benchmark the outputs are: --benchmark NAME (`harness plugins` lists them)")
    if not paths:
        raise ConfigError("no files given: harness import FILE… --benchmark NAME")
    read: dict[str, list[_Read]] = {}
    for path in paths:
        one = _read(path, options, registry, form, fields)
        read.setdefault(options.model or one.recording.model or _stem(path), []).append(one)
    return [_import(model, files, options, registry) for model, files in read.items()]


def fields_of(pairs: Sequence[str]) -> dict[str, str]:
    """Turn ``output=generated_text`` pairs into a mapping; ConfigError for what is no such pair."""
    found = {}
    for pair in pairs:
        name, equals, field = pair.partition("=")
        if not equals or not name.strip() or not field.strip():
            raise ConfigError(f"--map {pair!r} must look like NAME=FIELD: output=generated_text")
        found[name.strip()] = field.strip()
    return found


@dataclass(frozen=True)
class _Read:
    """A file, the format that reads it, and what it says."""

    path: Path
    format: Format
    recording: Recording
    sha256: str


def _read(path: Path, options: RunOptions, registry: Registry, form: str | None, fields: Mapping[str, str]) -> _Read:
    path = expanded(path)
    if path.is_dir():
        raise DataError(f"{path}: a folder; give the files in it that hold outputs")
    name = form or (_ANY_ROWS if fields else _recognised(path, registry))
    given = merged(options.options, {name: dict(fields)}) if fields else options.options
    chosen = configured(given, name, registry.format(name))
    with blamed(chosen):
        recording = chosen.read(path)
    return _Read(path, chosen, recording, file_sha256(path))


def _recognised(path: Path, registry: Registry) -> str:
    """Return the name of the format that recognises a file; DataError where none does, or several do."""
    start = start_of(path)
    known = [plugin.name for plugin in registry.plugins("formats") if plugin.status == "ok"]
    found = []
    for name in known:
        format_ = registry.format(name)
        with blamed(format_):
            if format_.recognises(path, start):
                found.append(name)
    special = [name for name in found if name != _ANY_ROWS]
    if len(special) > 1:
        raise DataError(f"{path}: {' and '.join(special)} recognise it; say which it is: --format {special[0]}")
    if not found:
        raise DataError(f"{path}: no format recognises it ({', '.join(known)}); say which it is: --format NAME")
    return [*special, *found][0]


def _import(model: str, files: Sequence[_Read], options: RunOptions, registry: Registry) -> Import:
    """Return the run of one model, its outputs paired with the benchmark's examples."""
    first = files[0]
    respondent = _respondent(model, files)
    by = registry.source("formats", first.format.name)
    plan = make_plan(dataclasses.replace(options, model=model, engine=IMPORT), registry, respondent, by)
    recordings = [file.recording for file in files]
    pairing = Pairing(plan.benchmark, plan.examples)
    for output in _outputs(recordings):
        pairing.add(output)
    pairing.check([file.path for file in files])
    if pairing.samples > 1:
        several = dataclasses.replace(options, model=model, engine=IMPORT, samples=pairing.samples)
        plan = make_plan(several, registry, respondent, by)
    origin = Imported(
        format=first.format.name,
        tool=first.recording.tool,
        version=first.recording.version,
        model=first.recording.model,
        files=[ImportedFile(name=file.path.name, sha256=file.sha256) for file in files],
        settings=dict(first.recording.settings),
        by_id=pairing.by_id,
        by_text=pairing.by_text,
    )
    identity = {**plan.identity, "generation": {}}  # how outputs were sampled is what the source says, if anything
    plan = dataclasses.replace(plan, selection=pairing.selection, identity=identity)
    return Import(plan, recordings, pairing, origin)


@dataclass(frozen=True)
class _Recorded(BaseEngine):
    """Stands where a run has an engine: the outputs are all there is."""

    outputs: tuple[tuple[str, Mapping[str, Any], str], ...]
    name: str = IMPORT

    def identity(self, model: str) -> Mapping[str, Any]:
        """Return the files' digests, and the formats with the options that they were read with."""
        return {"outputs": [{"format": name, **given, "sha256": digest} for name, given, digest in self.outputs]}

    def load(self, model: str) -> Model:
        """Raise ConfigError: no model is there to be asked."""
        raise ConfigError(f"{model}: its outputs were imported; give the model itself to ask it")


def _respondent(model: str, files: Sequence[_Read]) -> Respondent:
    outputs = tuple((file.format.name, options_of(file.format), file.sha256) for file in files)
    choice = Choice(PromptFormat(UNKNOWN, None), "imported outputs")
    return Respondent(model, _Recorded(outputs), "imported outputs", None, choice)


def _outputs(recordings: Sequence[Recording]) -> Iterator[RecordedOutput]:
    return (output for recording in recordings for output in recording.outputs)


def _sample(plan: Plan, index: int, output: RecordedOutput) -> Sample:
    """Read and score one output as a run does, and put what the source read beside it."""
    example = plan.examples[index]
    request = Request(example.id, Prompt(output.prompt or ""), plan.generation, index, output.repeat)
    completion = Completion(
        example.id,
        output.output or "",
        output.finish_reason,
        output.prompt_tokens,
        output.completion_tokens,
        output.seconds,
        output.error if output.output is None else None,
    )
    sample = make_sample(plan, example, request, completion)
    if output.answer is None and not output.scores:
        return sample
    said = output.answer
    if said is not None and plan.parsers and said != sample.answers.get(plan.parsers[0].name):
        try:
            said = parse(plan.parsers[0], said, example)
        except HarnessError:  # as with an output, which tells the parser's failure where it is read
            said = None
    return dataclasses.replace(sample, source=SourceReading(output.answer, said, output.scores))


def _stem(path: Path) -> str:
    """Return a file's name without what says its kind: ``gpt-4.jsonl.gz`` is of ``gpt-4``."""
    name = path.name
    for suffix in (".gz", ".zst", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".eval"):
        name = name.removesuffix(suffix)
    return name


def _tool(origin: Imported) -> str:
    tool = origin.format if origin.tool == UNKNOWN else origin.tool
    return f"imported from {tool}{f' {origin.version}' if origin.version else ''}"
