"""Write a run in one of the forms that other tools read."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, nearest
from harness.evaluation.instructions import instructions
from harness.evaluation.rescore import read_again
from harness.exporting import every_eval_ever, lm_eval
from harness.exporting.rows import Finished
from harness.registry import Registry
from harness.runs.columns import read_run
from harness.runs.folder import EXPORTS, Run, exported_lines
from harness.runs.judgements import read_verdicts
from harness.runs.line_file import cannot_write, write_atomically
from harness.runs.predictions import predictions


@dataclass(frozen=True)
class ExportOptions:
    """Where to write (None: the run's own folder) and what else the user may say.

    `parser` reads the outputs of a CSV anew, and `raw` leaves control characters in it; `organization` is named in
    Every Eval Ever's record.
    """

    out: Path | None = None
    parser: str | None = None
    organization: str | None = None
    raw: bool = False
    force: bool = False


def write_export(run: Run, form: str, options: ExportOptions, registry: Registry) -> list[Path]:
    """Write `run` in the form called `form`, and return the files; ConfigError for options that it has no use for."""
    if form not in FORMS:
        raise ConfigError(f"no form {form!r}{nearest(form, FORMS)}")
    if options.parser is not None and form != "csv":
        raise ConfigError(f"--parser does nothing here: {form} has what all of the run's parsers read")
    if options.raw and form != "csv":
        raise ConfigError(f"--raw does nothing here: {form} is JSON, which has escapes of its own")
    if options.organization is not None and form != "every-eval-ever":
        raise ConfigError(f"--organization does nothing here: {form} has no place for it")
    return FORMS[form](run, options, registry)


@dataclass(frozen=True)
class _Folder:
    """Where files are written: `path` below `root`, which is there already."""

    path: Path
    root: Path
    force: bool

    @classmethod
    def of(cls, run: Run, options: ExportOptions, name: str) -> _Folder:
        """Return the folder that was asked for, made where it is not there, or the one called `name` in the run's."""
        if options.out is None:
            return cls(run.path / EXPORTS / name, run.path, options.force)
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(options.out, error) from error
        return cls(options.out, options.out, options.force)

    def write(self, name: str, content: Iterable[bytes]) -> Path:
        """Write a file as a whole or not at all; ConfigError for one that is there."""
        path = self.path / name
        if path.exists() and not self.force:
            raise ConfigError(f"{path} is there already: give --force to replace it, or another --out")
        write_atomically(path, content, root=self.root)
        return path


class _Counted:
    """Lines on their way to a file, counted and digested."""

    def __init__(self, records: Iterable[Mapping[str, Any]]) -> None:
        self._records = records
        self._digest = hashlib.sha256()
        self.lines = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in exported_lines(self._records):
            self._digest.update(line)
            self.lines += 1
            yield line

    @property
    def sha256(self) -> str:
        """The digest of what has been written."""
        return self._digest.hexdigest()


def _csv(run: Run, options: ExportOptions, registry: Registry) -> list[Path]:
    """A row a sample, read by the run's first parser or another; of a judged run, with the first judge's verdicts."""
    record = run.record
    samples = run.samples() if options.parser is None else read_again(run, options.parser, registry)
    judge = next(iter(run.results.judged), None) if run.finished else None
    verdicts = {} if judge is None else read_verdicts(run.path, judge)
    asked = instructions(record, registry)
    fields = dict.fromkeys(
        name
        for sample in run.samples()
        for name, value in sample.fields.items()
        if name != "instruction" or value != asked(sample)
    )
    parser, several = options.parser or record.headline, record.samples > 1
    table = predictions(samples, list(fields), asked, parser, verdicts, several=several, raw=options.raw)
    if options.out is None:
        return [_Folder.of(run, options, "").write("predictions.csv", table)]
    return [_Folder(options.out.parent, options.out.parent, options.force).write(options.out.name, table)]


def _lm_eval(run: Run, options: ExportOptions, registry: Registry) -> list[Path]:
    """What lm-evaluation-harness writes: a folder for the model, with its results and samples."""
    finished = Finished(read_run(run.path), registry)
    results, samples = lm_eval.file_names(finished)
    folder, counted = _Folder.of(run, options, "lm-eval"), _Counted(lm_eval.samples(finished))
    written = folder.write(samples, counted)
    return [folder.write(results, _document(lm_eval.results(finished, counted.sha256))), written]


def _every_eval_ever(run: Run, options: ExportOptions, registry: Registry) -> list[Path]:
    """Every Eval Ever's record, and its samples, in the folders of the project's collection."""
    finished = Finished(read_run(run.path), registry)
    told = every_eval_ever.Export(finished, options.organization or "local", int(time.time()))
    folder, counted = _Folder.of(run, options, "every-eval-ever"), _Counted(told.samples())
    samples = folder.write(f"{told.folder}/{told.stem}_samples.jsonl", counted)
    record = told.evaluation(counted.sha256, counted.lines)
    return [folder.write(f"{told.folder}/{told.stem}.json", _document(record)), samples]


#: Form → what writes it.
FORMS: Mapping[str, Callable[[Run, ExportOptions, Registry], list[Path]]] = {
    "csv": _csv,
    "lm-eval": _lm_eval,
    "every-eval-ever": _every_eval_ever,
}


def _document(content: Mapping[str, Any]) -> Iterator[bytes]:
    yield json.dumps(content, indent=2).encode("ascii") + b"\n"
