"""Build the wheel, install it in an empty environment away from the checkout, and use it there: ``check.py``.

Without torch, transformers or any engine's library: the core, the parsers and the commands that read runs must work.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(p.name for kind in ("benchmarks", "trainers") for p in (ROOT / "plugins" / kind).glob("harness_*"))


def main() -> None:
    """Run all checks; exit with an error at the first that fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        check_contents(wheel)
        python = install(wheel, folder)
        check_commands(python, folder)
        run_tests(python, folder)
    print(f"{wheel.name}: built, installed and tested outside the checkout")


def build(folder: Path) -> Path:
    """Build the wheel from what git tracks, so that an ignored or forgotten file shows as missing."""
    source = folder / "source"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, files.split("\0")):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, source / file)
    call([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(source)], folder)
    [wheel] = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Every package file and prompt is in the wheel, and no top-level name but ours."""
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"harness", *PLUGINS}, tops
    kept = (".py", ".typed", ".txt", ".j2", ".css", ".js")
    expected = {str(p.relative_to(ROOT)) for p in (ROOT / "harness").rglob("*") if p.suffix in kept}
    expected |= {f"harness/_prompts/{p.name}" for p in (ROOT / "prompts").iterdir()}
    for kind in ("benchmarks", "trainers"):
        base = ROOT / "plugins" / kind
        expected |= {str(p.relative_to(base)) for p in base.rglob("*.py")}
    assert expected <= names, f"not in the wheel: {sorted(expected - names)}"


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel with what it requires and nothing else; return the environment's interpreter."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    call([str(python), "-m", "pip", "install", "--quiet", str(wheel)], folder)
    return python


def check_commands(python: Path, folder: Path) -> None:
    """A run of recorded outputs from data to table, with the shipped prompt, where no engine's library is installed."""
    harness = str(python.parent / "harness")
    data = folder / "data" / "gsm8k"
    data.mkdir(parents=True)
    data.joinpath("test.jsonl").write_text('{"question": "2 + 3?", "answer": "#### 5"}\n', encoding="utf-8")
    (folder / "outputs.jsonl").write_text('{"output": "2 + 3 = 5"}\n', encoding="utf-8")
    call([harness, "plugins"], folder)
    words = ["-b", "gsm8k", "-e", "replay", "-m", "outputs.jsonl", "--data", "data"]
    call([harness, "run", *words], folder)
    [results] = (folder / "runs").rglob("results.json")
    assert json.loads(results.read_text())["metrics"]["final-number"]["accuracy"]["value"] == 1
    sample = json.loads(results.with_name("samples.jsonl").read_text())
    assert sample["prompt"].startswith("# Instruction\n"), "the shipped prompt was not found"
    done = subprocess.run([harness, "run", "-b", "gsm8k", "-m", "x", "--data", "data"], cwd=folder, capture_output=True)
    assert done.returncode == 2, done
    assert b"pip install" in done.stderr, done.stderr


def run_tests(python: Path, folder: Path) -> None:
    """The tests that need no model, from a copy of the tests, against the installed wheel."""
    call([str(python), "-m", "pip", "install", "--quiet", "pytest", "hypothesis"], folder)
    shutil.copytree(ROOT / "tests", folder / "copy" / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", folder / "copy")
    places = ["tests/parsers", "tests/evaluation", "tests/cli", "tests/test_config.py", "tests/test_registry.py"]
    places.append("--ignore=tests/cli/test_data.py")  # it makes a model
    call([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *places], folder / "copy")


def call(words: list[str], folder: Path) -> None:
    """Run a command outside the checkout."""
    subprocess.run(words, cwd=folder, check=True, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})


if __name__ == "__main__":
    main()
