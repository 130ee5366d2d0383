"""What run.json, results.json and timing.json must hold, checked where they are read.

A file that was edited by hand, or written by another program, is refused with the place that does not fit; fields that
are not named here may be there too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from harness.errors import RunError


class _Named(msgspec.Struct):
    name: str


class _Gpu(msgspec.Struct):
    name: str
    memory_gib: float


class _Hardware(msgspec.Struct):
    platform: str = ""
    cores: int | None = None
    gpus: list[_Gpu] = []


class _Git(msgspec.Struct):
    commit: str
    dirty: bool


class _DataFile(msgspec.Struct):
    name: str
    sha256: str
    revision: str | None = None


class _Plugin(msgspec.Struct):
    name: str
    distribution: str
    version: str


class _Command(msgspec.Struct):
    benchmark: list[str] = []
    model: str = ""
    engine: str = ""
    prompt_format: str | None = None
    data: str | None = None
    out: str = ""
    limit: int | None = None
    seed: int = 0
    judge_model: str | None = None
    judge_engine: str = ""
    judge_prompt_format: str | None = None
    options: dict[str, Any] = {}


class _Format(msgspec.Struct):
    name: str = ""
    digest: str = ""


class _Identity(msgspec.Struct):
    benchmark: dict[str, Any] = {}
    generation: dict[str, Any] = {}
    model: dict[str, Any] = {}
    engine: str = ""
    prompt_format: _Format = msgspec.field(default_factory=_Format)
    chat_template: str | None = None
    parsers: list[_Named] = []
    scorer: dict[str, Any] = {}
    examples: str = ""
    plugins: list[_Plugin] = []
    limit: int | None = None
    seed: int | None = None


class Run(msgspec.Struct):
    """run.json."""

    benchmark: str
    model: str
    engine: str
    scorer: str
    prompt_format: _Named
    parsers: list[str]
    selected: int
    command: _Command
    identity: _Identity
    data: list[_DataFile]
    examples: int = 0
    harness: str = ""
    fingerprint: str = ""
    created: str = ""
    versions: dict[str, str] = {}
    git: _Git | None = None
    hardware: _Hardware = msgspec.field(default_factory=_Hardware)
    plugins: list[_Plugin] = []


class _Estimate(msgspec.Struct):
    value: float | None
    n: int
    stderr: float | None
    low: float | None
    high: float | None
    method: str


class _Count(msgspec.Struct):
    count: int
    ids: list[str]


class _Judge(msgspec.Struct):
    n: int
    engine: str
    prompt_format: _Named
    options: dict[str, Any]
    verdicts: dict[str, int]
    unreadable: _Count
    failed: _Count
    warnings: list[str]
    bounds: dict[str, tuple[float | None, float | None]] = {}


#: Reader (a parser or a judge) → metric → estimate.
_Metrics: TypeAlias = dict[str, dict[str, _Estimate]]


class Results(msgspec.Struct):
    """results.json."""

    benchmark: str
    n: int
    metrics: _Metrics
    categories: dict[str, _Metrics]
    groups: dict[str, _Metrics]
    unparsed: dict[str, _Count]
    truncated: _Count
    failed: _Count
    tokens: dict[str, int]
    judges: dict[str, _Judge] = {}

    def __post_init__(self) -> None:
        for label in self.judges:  # which names a file
            if not label or label.startswith(".") or any(sign in label for sign in "/\\\0"):
                raise ValueError(f"{label!r} cannot name a judge: it is no plain name of a file")


class Timing(msgspec.Struct):
    """timing.json."""

    load_seconds: float = 0.0
    generation_seconds: float = 0.0
    examples_per_second: float | None = None
    completion_tokens_per_second: float | None = None
    sessions: list[dict[str, Any]] = []
    judging: list[dict[str, Any]] = []


def check_shape(content: Any, shape: type[msgspec.Struct], path: Path) -> None:
    """Raise RunError, naming the place, unless `content`, read from `path`, has that shape."""
    try:
        msgspec.convert(content, shape)
    except msgspec.ValidationError as error:
        raise RunError(f"{path}: not as this version writes it ({error}); mend it, or run it --fresh") from error
