"""Build the wheel, install it in an empty environment away from the checkout, and use it there: ``check.py``.

First alone, with the standard library: the parsers. Then with click, and then with the extra ``core``, without torch,
transformers or any engine's library: the commands that read runs. Versions are those of ``locks/constraints.txt``.
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
        check_reproducible(folder)
        python = install(wheel, folder)
        check_parsers(python, folder)
        pip_install(python, folder, "click")
        check_parse(python, folder)
        pip_install(python, folder, f"{wheel}[core]")
        check_commands(python, folder)
        run_tests(python, folder)
    print(f"{wheel.name}: built, installed and tested outside the checkout")


def build(folder: Path) -> Path:
    """Build the wheel from what git tracks, so that an ignored or forgotten file shows as missing."""
    source = copy_of_source(folder / "source")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    call([*pip, "-w", str(folder), str(source)], folder)
    [wheel] = folder.glob("*.whl")
    return wheel


def copy_of_source(source: Path) -> Path:
    """Copy what git tracks into a new folder, each file as if it had been written now."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, files.split("\0")):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, source / file)
    return source


def check_reproducible(folder: Path) -> None:
    """Wheel and sdist come out the same to the byte wherever and whenever they are built."""
    found = []
    for name in ("first", "second"):
        source = copy_of_source(folder / name)
        call([sys.executable, "-m", "hatchling", "build"], source)
        found.append({path.name: path.read_bytes() for path in (source / "dist").iterdir()})
    assert len(found[0]) == 2 and found[0] == found[1], f"built twice, not the same: {sorted(found[0])}"


def check_contents(wheel: Path) -> None:
    """Every package file and prompt is in the wheel, and no top-level name but ours."""
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"harness", *PLUGINS}, tops
    kept = (".py", ".typed", ".txt", ".j2", ".css", ".js")
    expected = {str(p.relative_to(ROOT)) for p in (ROOT / "harness").rglob("*") if p.suffix in kept}
    expected |= {f"harness/_prompts/{p.name}" for p in (ROOT / "prompts").iterdir()}
    assignment = ("Makefile", "assignment.md", "dpo.toml", "evaluate.toml", "sft.toml", "writeup.md")
    expected |= {f"harness/_assignment/{name}" for name in assignment}
    for kind in ("benchmarks", "trainers"):
        base = ROOT / "plugins" / kind
        expected |= {str(p.relative_to(base)) for p in base.rglob("*.py")}
    assert expected <= names, f"not in the wheel: {sorted(expected - names)}"


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel alone, which requires nothing; return the environment's interpreter."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    before = installed(python)
    pip_install(python, folder, str(wheel))
    assert installed(python) - before == {"posttrain-harness"}, installed(python)
    return python


def installed(python: Path) -> set[str]:
    """Return the names of the distributions in the environment."""
    words = [str(python), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = subprocess.run(words, capture_output=True, check=True).stdout
    return {one["name"] for one in json.loads(listed)}


def pip_install(python: Path, folder: Path, *requirements: str) -> None:
    """Install requirements, in the versions that were locked."""
    words = ["install", "--quiet", "--no-compile", "-c", str(ROOT / "locks" / "constraints.txt")]
    call([str(python), "-m", "pip", *words, *requirements], folder)


def refused(words: list[str], folder: Path) -> str:
    """Run a command that lacks a package; return the one line that it says, with exit code 2."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done
    return done.stderr


def check_parsers(python: Path, folder: Path) -> None:
    """All parsers work from the standard library alone, and the command says what it needs."""
    program = "from harness.parsers import *; assert parse_number('#### 7') == '7' and parse_choice('(B)') == 'B'"
    call(
        [str(python), "-c", f"{program}; assert parse_verdict('safe') == 'safe' and parse_preference('1') == 1"], folder
    )
    assert "pip install 'posttrain-harness[core]'" in refused([str(python.parent / "harness"), "parse"], folder)


def check_parse(python: Path, folder: Path) -> None:
    """With click alone `harness parse` works, and the other commands say what they need."""
    harness = str(python.parent / "harness")
    done = subprocess.run([harness, "parse", "final-number"], input=b"#### 7\n", cwd=folder, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"7\n", b""), done
    assert "did you mean 'final-number'" in refused([harness, "parse", "final-numbr"], folder)
    for words in (["plugins"], ["compare", "runs/a", "runs/b"], ["run", "-b", "gsm8k", "-m", "x"]):
        assert "is not installed: pip install 'posttrain-harness[core]'" in refused([harness, *words], folder), words


def check_commands(python: Path, folder: Path) -> None:
    """A run of recorded outputs from data to table, with the shipped prompt, where no engine's library is installed."""
    harness = str(python.parent / "harness")
    data = folder / "data" / "gsm8k"
    data.mkdir(parents=True)
    data.joinpath("test.jsonl").write_text('{"question": "2 + 3?", "answer": "#### 5"}\n', encoding="utf-8")
    (folder / "outputs.jsonl").write_text('{"output": "2 + 3 = 5"}\n', encoding="utf-8")
    listed = json.loads(subprocess.run([harness, "plugins", "--json"], cwd=folder, capture_output=True).stdout)
    status = {plugin["name"]: plugin["status"] for plugin in listed}
    assert status["gsm8k"] == status["replay"] == "ok", status
    assert "torch" in status["sft"] and status["sft"].endswith("pip install 'posttrain-harness[train]'"), status
    assert status["openai"] == "missing openai: pip install 'posttrain-harness[openai]'", status
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
    pip_install(python, folder, "pytest", "hypothesis")
    shutil.copytree(ROOT / "tests", folder / "copy" / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", folder / "copy")
    places = ["tests/parsers", "tests/evaluation", "tests/cli", "tests/test_config.py", "tests/test_registry.py"]
    places += [f"--ignore=tests/cli/test_{name}.py" for name in ("data", "loss")]  # they make models
    call([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *places], folder / "copy")


def call(words: list[str], folder: Path) -> None:
    """Run a command outside the checkout."""
    subprocess.run(words, cwd=folder, check=True, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})


if __name__ == "__main__":
    main()
