"""What this machine has of what the harness can use, and how to have the rest; no library is imported to find out."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from harness.calls import blamed
from harness.datasets import DataSource
from harness.errors import HarnessError
from harness.extras import missing_of
from harness.registry import DISTRIBUTION, Registry
from harness.reports.samples import printable
from harness.version import __version__

_LIBRARIES = (
    "torch",
    "transformers",
    "vllm",
    "openai",
    "ray",
    "huggingface_hub",
    "pyarrow",
    "flash-attn",
    "peft",
    "bitsandbytes",
)

#: Extras that bring others together, or are for whoever works on the harness.
_NOT_ASKED = ("core", "dev")

_SECONDS = 10


@dataclass(frozen=True)
class Findings:
    """What was found. `gpus` are names with their memory; `missing` says by what is missing how to have it.

    `engines` maps names to ok or what they lack, `caches` what they are for to their folders with what is in them,
    `data` benchmarks to how many examples there are, or why there are none.
    """

    harness: str
    python: str
    platform: str
    cores: int | None
    versions: Mapping[str, str]
    gpus: Sequence[str]
    engines: Mapping[str, str]
    caches: Mapping[str, str]
    data: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the findings, a fact a line, and what is missing at the end."""
        gpus = {f"GPU {number}": gpu for number, gpu in enumerate(self.gpus)}
        parts: list[tuple[str, Mapping[str, str]]] = [
            ("harness", {"": f"{self.harness}, Python {self.python}, {self.platform}, {self.cores} cores"}),
            ("libraries", self.versions or {"": "none"}),
            ("GPUs", gpus or {"": "none that nvidia-smi shows"}),
            ("engines", self.engines),
            ("caches", self.caches),
            ("data", self.data or {"": "from the hub; --data DIR says which benchmarks a folder has"}),
            ("missing", self.missing or {"": "nothing"}),
        ]
        width = max(len(name) for _, lines in parts for name in lines)
        lines = []
        for heading, facts in parts:
            lines.append(heading)
            lines += [f"  {f'{name:{width}}  ' if name else ''}{fact}" for name, fact in facts.items()]
        return printable("\n".join(lines))


def examine(data: str | None, registry: Registry) -> Findings:
    """Look at this machine, and with `data` for the benchmarks' files in that folder."""
    engines = {plugin.name: plugin.status for plugin in registry.plugins("engines", check=True)}
    caches = dict(_caches())
    found = {} if data is None else dict(_examples(data, registry))
    missing = dict(_missing())
    if not os.environ.get("OPENAI_BASE_URL") and not os.environ.get("OPENAI_API_KEY"):
        missing["a server to ask"] = "set OPENAI_BASE_URL or OPENAI_API_KEY, or give --set openai.base_url=…"
    return Findings(
        __version__, platform.python_version(), platform.platform(), os.cpu_count(), dict(_versions()), _gpus(),
        engines, caches, found, missing,
    )  # fmt: skip


def _versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _gpus() -> list[str]:
    """Return the GPUs as the driver's own tool tells of them; none where it is not there or does not answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines() if line.count(",") == 3]
    return [f"{name}, {total}, {used} in use, driver {driver}" for name, total, used, driver in rows]


def _missing() -> Iterator[tuple[str, str]]:
    """Yield the extras of which libraries are missing, each with the command that brings them."""
    try:
        own = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return
    for extra in own.metadata.get_all("Provides-Extra") or []:
        if extra not in _NOT_ASKED and (lacks := missing_of(own, extra)):
            yield extra, f"{', '.join(lacks)}: pip install '{DISTRIBUTION}[{extra}]'"


def _caches() -> Iterator[tuple[str, str]]:
    own = os.environ.get("HARNESS_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    yield "tokens", _room(Path(own) if own else home / "harness")
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home / "huggingface") / "hub"
    names = sorted(os.listdir(hub)) if Path(hub).is_dir() else []
    for kind in ("datasets", "models"):
        kept = [re.sub("--", "/", name.removeprefix(f"{kind}--")) for name in names if name.startswith(f"{kind}--")]
        yield f"hub's {kind}", f"{', '.join(kept) or 'none'} in {hub}"
    yield "runs", _room(Path("runs"))


def _room(path: Path) -> str:
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free / 2**30
    return f"{path}{'' if path.exists() else ' (not there yet)'}, {free:,.0f} GiB free"


def _examples(data: str, registry: Registry) -> Iterator[tuple[str, str]]:
    for plugin in registry.plugins("benchmarks"):
        try:
            benchmark = registry.benchmark(plugin.name)
            with blamed(benchmark):
                count = len(benchmark.examples(DataSource(data)))
            yield plugin.name, f"{count:,} examples"
        except HarnessError as error:
            yield plugin.name, str(error)
