"""The folders that `harness init` writes, of files that ship with this package."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.files import expanded, make_folder

#: What a file of the assignment's folder is called → where it is in a checkout. A wheel has all in one folder.
_ASSIGNMENT: Mapping[str, str] = {
    "Makefile": "examples/assignment/Makefile",
    "README.md": "docs/assignment.md",
    "dpo.toml": "recipes/dpo.toml",
    "evaluate.toml": "examples/assignment/evaluate.toml",
    "sft.toml": "recipes/sft.toml",
    "writeup.md": "examples/assignment/writeup.md",
}


def write_assignment(folder: Path) -> list[Path]:
    """Write the assignment's folder and return its files; ConfigError where there is something of that name."""
    folder = expanded(folder)

    def fill(aside: Path) -> None:
        for name, source in _ASSIGNMENT.items():
            (aside / name).write_bytes(_shipped(source).read_bytes())

    try:
        made = make_folder(folder, fill)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from error
    if not made:
        raise ConfigError(f"{folder} is there already; name another folder")
    return [folder / name for name in _ASSIGNMENT]


def _shipped(source: str) -> Any:
    """Return a file of the package: in a wheel its data, in a checkout where it is worked on."""
    packaged = files("harness") / "_assignment" / Path(source).name
    return packaged if packaged.is_file() else Path(__file__).parents[1] / source
