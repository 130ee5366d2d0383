"""What is checked, and what it is checked with."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import SkipTest

from harness.config import configure
from harness.datasets import DataSource, HubFile
from harness.errors import HarnessError
from harness.interfaces import Engine, Model, SpreadingEngine
from harness.registry import Kind, Registry
from harness.types import Example


@dataclass(frozen=True, eq=False)
class Subject:
    """An installed plugin, by kind and name, and what it is checked with.

    Attributes:
        options: the plugin's options, as ``--set`` would give them.
        data: the data folder of a benchmark, ``--data``; without one, a benchmark that asks for files is not checked.
            Of a format, a file of its own.
        model: what engines and trainers load; by default a tiny model that is made when it is first needed.
        phrase: how a model that does what a benchmark asks for would give the example's gold answer; by default some
            usual phrases are tried.
        outputs: further outputs that a parser, or replies that a judged scorer, is to read.
        examples: what a scorer is to score, where it needs fields of its own.
    """

    kind: Kind
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str | Path | None = None
    model: str | Path | None = None
    phrase: Callable[[Example], str] | None = None
    outputs: Sequence[str] = ()
    examples: Sequence[Example] = ()

    @cached_property
    def registry(self) -> Registry:
        """The plugins of this environment."""
        return Registry()

    @cached_property
    def plugin(self) -> Any:
        """The plugin with its options put in; PluginError or ConfigError where there is no such thing."""
        made = configure(self.registry.get(self.kind, self.name), self.options, self.name)
        if isinstance(made, SpreadingEngine) and made.engine != "auto":
            return made.over(self.registry.engine(made.engine))
        return made

    @cached_property
    def folder(self) -> Path:
        """A folder for what checks write; it goes when the subject goes."""
        folder = Path(tempfile.mkdtemp(prefix="harness-check-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def new_folder(self) -> Path:
        """Return a new empty folder inside `folder`."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def source(self) -> DataSource:
        """Return a new source of a benchmark's data; without a data folder, asking it for a file skips the check."""
        return _NoFiles() if self.data is None else DataSource(self.data)

    @cached_property
    def all_examples(self) -> Sequence[Example]:
        """All examples of the benchmark."""
        found: Sequence[Example] = self.plugin.examples(self.source())
        return found

    @cached_property
    def model_path(self) -> str:
        """The model to load: what was given, or a tiny one."""
        if self.model is not None:
            return str(self.model)
        try:
            from harness.testing.tiny import make_tiny_model

            return str(make_tiny_model(self.folder / "tiny", steps=80, context=256))
        except ImportError as error:
            raise SkipTest(f"no tiny model can be made ({error}); give a model") from error

    @cached_property
    def loaded(self) -> Model:
        """The model, loaded by the engine once for all checks.

        Raises SkipTest where the engine cannot run here, or takes other models than the tiny one.
        """
        engine: Engine = self.plugin
        if (reason := engine.available()) is not None:
            raise SkipTest(f"it cannot run here: {reason}")
        try:
            return engine.load(self.model_path)
        except HarnessError as error:
            if self.model is None:
                raise SkipTest(f"give a model that it loads (--model): {error}") from error
            raise

    def forget_loaded(self) -> None:
        """Have the next check load the model anew, as this one has been closed."""
        self.__dict__.pop("loaded", None)


class _NoFiles(DataSource):
    """A source without files, so that a check downloads nothing unasked."""

    def path(self, name: str, hub: HubFile | None = None) -> Path:
        raise SkipTest(f"it needs the file {name}: give the data folder (--data DIR)")
