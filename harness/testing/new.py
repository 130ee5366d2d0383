"""The start of a plugin: a small distribution that works, with its test, as `harness plugins --new` writes it."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from harness.errors import ConfigError, RunError
from harness.files import expanded
from harness.registry import KINDS, Registry

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")

#: What a kind's distribution has beside its module, its test, pyproject.toml and README.md: path → template.
_MORE = {
    "benchmark": {"data/@name@/test.jsonl": "benchmark_data.jsonl"},
    "format": {"data/outputs.@name@": "format_data.tsv"},
}

#: What the plugin needs of the harness beside its core, and what its check is given.
_EXTRAS = {"trainer": "train"}
_FLAGS = {"benchmark": " --data data", "engine": " --model any", "format": " --data data/outputs.@name@"}


def write_plugin(name: str, kind: str, folder: Path, registry: Registry) -> Path:
    """Write a distribution with the plugin `name` (``benchmark``, ``parser``, … as `kind`) and return its new folder.

    The folder is called ``harness-NAME`` and stands in `folder`. Raises ConfigError for a name that cannot be one or
    that an installed plugin of this kind has, RunError where the folder exists or cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"a plugin cannot be called {name!r}: small letters, digits, - and _ between them, as my-sums"
        )
    [group] = [one for one in KINDS if one[:-1] == kind]
    taken = next((plugin for plugin in registry.plugins(group) if plugin.name == name), None)
    if taken is not None:
        raise ConfigError(f"{taken.label} is installed already, from {taken.origin}; choose another name")
    root = expanded(folder) / f"harness-{name.replace('_', '-')}"
    try:
        root.mkdir(parents=True)
        for path, text in plugin_files(name, kind).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
    except FileExistsError as error:
        raise RunError(f"{root} exists already; delete it, choose another name, or another place with --out") from error
    except OSError as error:
        raise RunError(f"cannot write {root}: {error.strerror}") from error
    return root


def plugin_files(name: str, kind: str) -> dict[str, str]:
    """Return the files of such a distribution: path → text."""
    module = f"harness_{name.replace('-', '_')}"
    words = re.split("[-_]", name)
    values = {
        "@flags@": _FLAGS.get(kind, ""),  # which has the name in it
        "@name@": name,
        "@module@": module,
        "@kind@": kind,
        "@distribution@": f"harness-{name.replace('_', '-')}",
        "@title@": " ".join(word.capitalize() for word in words),
        "@Class@": "".join(word.capitalize() for word in (*words, kind)),
        "@extra@": _EXTRAS.get(kind, "core"),
    }
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}.py": f"{kind}.py",
        f"tests/test_{name.replace('-', '_')}.py": f"{kind}_test.py",
        **_MORE.get(kind, {}),
    }
    return {_filled(path, values): _filled(_template(file), values) for path, file in templates.items()}


def next_steps(name: str, kind: str, folder: Path) -> str:
    """Return the commands that install, test and check what was written to `folder`."""
    flags = _FLAGS.get(kind, "").replace("@name@", name)
    return f"cd {folder} && pip install -e '.[test]' && pytest && harness plugins --check {name}{flags}"


def _template(name: str) -> str:
    return files("harness.testing").joinpath("templates", f"{name}.txt").read_text(encoding="utf-8")


def _filled(text: str, values: dict[str, str]) -> str:
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text
