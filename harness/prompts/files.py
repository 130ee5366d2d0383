"""The prompt files that ship with this package, and how one is read."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from harness.errors import ConfigError


def prompt_folder() -> Any:
    """Return the folder of shipped prompts: package data in a wheel, ``prompts/`` in a checkout."""
    packaged = files("harness") / "_prompts"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "prompts"


def shipped_prompts() -> dict[str, Any]:
    """Return the shipped prompt files by name, those of judges (``judge_…``) and benchmarks too."""
    return {entry.name.removesuffix(".prompt"): entry for entry in prompt_folder().iterdir()}


def read_prompt(path: Any) -> str:
    """Return the text of a prompt file, to the byte. Raises ConfigError where it is not UTF-8."""
    try:
        return str(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
