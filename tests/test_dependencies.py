"""The dependency rule of the project, read from the imports of its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: What stands higher may import what stands lower, never the other way round; neighbours on one line are independent.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"testing"},
    {"reports"},
    {"evaluation"},
    {"training"},
    {"engines"},
    {"scorers"},
    {"parsers"},
    {"statistics"},
    {"prompts"},
    {"datasets"},
    {"config"},
    {"registry"},
    {"hookspecs"},
    {"interfaces"},
    {"types"},
    {"errors"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
PURE = {"choice", "number", "verdict", "preference"}


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, those inside functions too, those for type checking not."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_a_part_of_the_core_imports_only_what_stands_below_it() -> None:
    wrong = []
    for path in sorted((ROOT / "harness").rglob("*.py")):
        part = path.relative_to(ROOT / "harness").parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        assert part in RANK, f"{part} has no place in the layers"
        for name in imports(path):
            top, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if top == "harness" and target in RANK and target != part and RANK[target] <= RANK[part]:
                wrong.append(f"{path.relative_to(ROOT)} imports harness.{target}")
    assert wrong == []


def test_the_core_imports_no_plugin_and_no_plugin_another() -> None:
    plugins = {path.name: path for kind in ("benchmarks", "trainers") for path in (ROOT / "plugins" / kind).glob("h*")}
    assert "harness_gsm8k" in plugins
    wrong = []
    for owner, folder in {"harness": ROOT / "harness", **plugins}.items():
        for path in folder.rglob("*.py"):
            tops = {name.partition(".")[0] for name in imports(path)}
            wrong += [f"{path.relative_to(ROOT)} imports {top}" for top in tops & set(plugins) if top != owner]
    assert wrong == []


def test_the_parsers_import_the_standard_library_alone() -> None:
    import sys

    for path in (ROOT / "harness" / "parsers").glob("*.py"):
        if path.name == "plugin.py":
            continue
        for name in imports(path):
            top = name.partition(".")[0]
            assert top in sys.stdlib_module_names or name.startswith("harness.parsers."), f"{path.name} imports {name}"
