"""The dependency rule of the project, read from the imports of its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: What stands higher may import what stands lower, never the other way round; neighbours on one line are independent.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"testing"},
    {"api"},
    {"curve"},
    {"jobs"},
    {"reports", "exporting"},
    {"comparing"},
    {"chatting"},
    {"judging"},
    {"evaluation"},
    {"runs"},
    {"training"},
    {"engines", "trackers", "formats"},
    {"scorers"},
    {"respondent"},
    {"models"},
    {"prompts"},
    {"datasets"},
    {"statistics"},
    {"config"},
    {"calls"},
    {"parsers"},
    {"registry", "overdue"},
    {"behaviour"},
    {"hookspecs"},
    {"interfaces"},
    {"types"},
    {"templates"},
    {"adapted"},
    {"files", "downloads"},
    {"limits"},
    {"errors", "extras", "version"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imports(path: Path, *, types: bool = True) -> Iterator[str]:
    """Yield the dotted names that a file imports, those inside functions too, and with `types` those for their sake."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    for_types = {id(node) for block in blocks for node in ast.walk(block)}
    for node in ast.walk(tree):
        if not types and id(node) in for_types:
            continue
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
        for name in imports(path, types=False):
            top = name.partition(".")[0]
            own = f"{name}.".startswith("harness.parsers.")
            assert top in sys.stdlib_module_names or own, f"{path.name} imports {name}"


def test_records_have_fields_and_not_keys() -> None:
    """Outside of the one place that reads them; what is left are other people's data, and lists of one name."""
    keyed = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "harness").rglob("*"))
        if path.suffix in {".py", ".txt", ".j2"} and "runs" not in path.relative_to(ROOT).parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r'\["[a-z_]+"\]', line)
    ]
    assert len(keyed) < 20, keyed


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Neither when it runs nor for the sake of its types: imports inside functions and for type checking count too."""
    modules = {
        _dotted(path.relative_to(root)): path
        for root in (ROOT, ROOT / "plugins" / "benchmarks", ROOT / "plugins" / "trainers")
        for top in root.glob("harness*")
        for path in top.rglob("*.py")
    }
    assert {"harness.models", "harness_dpo.trainer", "harness_mmlu"} <= modules.keys()
    below = {
        name: {target for one in imports(path) if (target := _module(one, modules)) not in (None, name)}
        for name, path in modules.items()
    }
    assert "harness.training.loop" in below["harness.training.session"], "imports for types are seen"
    assert _circles(below) == []


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _module(name: str, modules: Mapping[str, Path]) -> str | None:
    """Return the module that an imported name is, or is in."""
    return next((one for one in (name, name.rpartition(".")[0]) if one in modules), None)


def _circles(below: Mapping[str, Set[str | None]]) -> list[set[str]]:
    """Return the sets of modules that reach each other, in the order of their names."""

    def reached(name: str) -> set[str]:
        found: set[str] = set()
        waiting = [name]
        while waiting:
            new = {one for one in below[waiting.pop()] if one is not None} - found
            found |= new
            waiting += new
        return found

    reach = {name: reached(name) for name in below}
    circles: list[set[str]] = []
    for name in sorted(below):
        circle = {other for other in reach[name] if name in reach[other]}
        if circle and circle not in circles:
            circles.append(circle)
    return circles


def test_circles_are_found() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [{"a", "b", "c"}]


def test_files_and_functions_are_short() -> None:
    """A file over 500 lines or a function over 60, its docstring included, wants another shape."""
    long = []
    for folder in ("harness", "plugins"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text, place = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
            if (count := text.count("\n")) > 500:
                long.append(f"{place} has {count} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    count = (node.end_lineno or 0) - node.lineno + 1
                    long += [f"{node.name} of {place} has {count} lines"] if count > 60 else []
    assert long == []
