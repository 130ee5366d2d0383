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


class Run(msgspec.Struct):
    """run.json."""

    benchmark: str
    model: str
    engine: str
    scorer: str
    prompt_format: _Named
    parsers: list[str]
    selected: int
    command: dict[str, Any]
    identity: dict[str, Any]
    data: list[_DataFile]
    examples: int = 0
    harness: str = ""
    fingerprint: str = ""
    created: str = ""
    versions: dict[str, str] = {}
    git: _Git | None = None
    hardware: _Hardware = msgspec.field(default_factory=_Hardware)
    plugins: list[dict[str, Any]] = []


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
