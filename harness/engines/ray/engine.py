"""The engine `ray`, its options, and what it takes over from the engine that its replicas run."""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.engines.ray.options import RayOptions
from harness.errors import ConfigError, ModelError
from harness.hookspecs import hookimpl
from harness.interfaces import Engine, Model, Tokenizer

#: What is missing where Ray is not installed, and the remedy.
ABSENT = "Ray is not installed: pip install 'posttrain-harness[ray]', or leave --engine ray out"


@dataclass(frozen=True)
class RayEngine(RayOptions):
    """Runs another engine in replicas that share the requests, on this machine or on a Ray cluster.

    `engine` is the one that the replicas run, whose own options stand in its own table
    (``--set ray.engine=vllm --set vllm.tensor_parallel_size=2``). `replicas` is their number; ``auto`` takes what the
    cluster has, and more when nodes join. `address` is the cluster's (``auto`` or ``HOST:PORT``); without one
    ``RAY_ADDRESS`` counts, else Ray is started on this machine and ended with the command. `gpus` and `cpus` are what
    Ray reserves for a replica; by default the engine says how many GPUs that is. A replica that has requests and gives
    no completion for `timeout` seconds is taken for hung; `start_timeout` is how many seconds the first replica may
    wait for its place in the cluster. `runtime_env` is Ray's own, for code that is not installed on the nodes
    (``py_modules``, ``working_dir``, ``env_vars``); it is recorded, so keep secrets out of it.
    """

    name: ClassVar[str] = "ray"
    #: The engine that the replicas run, with its options; None before `over` has given it.
    inner: ClassVar[Engine | None] = None

    @property
    def is_here(self) -> bool:
        """Whether replicas run on this machine alone, in a Ray of the command's own."""
        return not self.address and not os.environ.get("RAY_ADDRESS")

    def over(self, inner: Engine) -> RayEngine:
        """Return this engine with the one that its replicas run; ConfigError for one that spreads work itself."""
        if inner.name == self.name:
            raise ConfigError(f"ray.engine={inner.name}: the replicas need an engine that loads the model itself")
        spread = copy.copy(self)
        object.__setattr__(spread, "inner", inner)
        return spread

    @property
    def applies_chat_template(self) -> bool:
        """What the replicas' engine says."""
        return bool(getattr(self.inner, "applies_chat_template", False))

    @property
    def gives_likelihoods(self) -> bool:
        """What the replicas' engine says."""
        return bool(getattr(self.inner, "gives_likelihoods", False))

    @property
    def limits_thoughts(self) -> bool:
        """What the replicas' engine says."""
        return bool(getattr(self.inner, "limits_thoughts", False))

    def available(self) -> str | None:
        """Return None where Ray is installed, else how to install it."""
        return ABSENT if importlib.util.find_spec("ray") is None else None

    def tokenizer(self, model: str) -> Tokenizer | None:
        """Return the tokenizer of the replicas' engine, read on this machine."""
        return self._inner().tokenizer(model)

    def identity(self, model: str) -> Mapping[str, Any]:
        """Return that of the replicas' engine: how many replicas there are, and where, changes no output."""
        return self._inner().identity(model)

    def load(self, model: str) -> Model:
        """Start the replicas, all at the same time, and return when those that have a place in the cluster have loaded.

        Raises ModelError in one line where none can: the cause, what each asks for and what there is.
        """
        if reason := self.available():
            raise ModelError(reason)
        from harness.engines.ray.model import RayModel

        return RayModel(self, self._inner(), model)

    def _inner(self) -> Engine:
        if self.inner is None:
            raise ConfigError("ray.engine names no engine")
        return self.inner


@hookimpl
def harness_engines() -> Iterable[Engine]:
    """Provide the engine `ray`."""
    return [RayEngine()]
