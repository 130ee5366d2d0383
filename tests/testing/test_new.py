"""`harness plugins --new`: what it writes is installed, and its own test passes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness.registry import KINDS
from harness.testing.distributions import write_distribution
from harness.testing.new import plugin_files
from tests.conftest import Command
from tests.processes import start

ALL = [kind[:-1] for kind in KINDS]


def test_the_tests_of_all_kinds_pass(harness: Command, tmp_path: Path) -> None:
    installed = []
    for kind in ALL:
        done = harness("plugins", "--new", f"my-{kind}", "--kind", kind, "--out", tmp_path)
        assert done.code == 0, done.err
        root = tmp_path / f"harness-my-{kind}"
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
        assert project["name"] == root.name
        module = f"harness_my_{kind}"
        folder = write_distribution(
            tmp_path / "installed" / kind,
            project["name"],
            version=project["version"],
            entry_points=project["entry-points"],
            modules={module: (root / f"{module}.py").read_text()},
        )
        installed.append(str(folder))
        assert {str(path.relative_to(tmp_path)) for path in root.rglob("*") if path.is_file()} == {
            f"{root.name}/{path}" for path in plugin_files(f"my-{kind}", kind)
        }
    words = ["-q", "-p", "no:cacheprovider", "-W", "error"]
    words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # the process has imported what pytest would rewrite
    words += ["--import-mode=importlib", f"--rootdir={tmp_path}"]
    folders = [str(tmp_path / f"harness-my-{kind}" / "tests") for kind in ALL]
    script = f"import sys, pytest; sys.path[:0] = {installed!r}; sys.exit(pytest.main(sys.argv[1:]))"
    tested = start([*words, *folders], tmp_path / "said", script=script).ended()
    assert tested.returncode == 0, tested.stdout
    assert " passed" in tested.stdout


@pytest.mark.parametrize("kind", ALL)
def test_what_is_written_is_linted_and_formatted(tmp_path: Path, kind: str) -> None:
    for path, text in plugin_files("two-words", kind).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for words in (["check", "--select", "E,F,W,I,B,UP,C4,SIM"], ["format", "--check"]):
        words = [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "120", "."]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    assert (
        "@" not in "".join(plugin_files("two-words", kind))
        and "TwoWords" in plugin_files("two-words", kind)["harness_two_words.py"]
    )


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("Upper", ["--kind", "parser"], "a plugin cannot be called 'Upper'"),
        ("../out", ["--kind", "parser"], "a plugin cannot be called '../out'"),
        ("a--b", ["--kind", "parser"], "a plugin cannot be called 'a--b'"),
        ("gsm8k", ["--kind", "benchmark"], "benchmark 'gsm8k' is installed already, from posttrain-harness"),
        ("sums", [], "no kind given: --kind benchmark, parser,"),
        ("sums", ["--kind", "parser", "--data", "x"], "--data goes with --check NAME"),
        ("sums", ["--kind", "parser", "--check", "gsm8k"], "give --check or --new, not both"),
        ("sums", ["--kind", "parser", "--out", "file"], "cannot write file/harness-sums: Not a directory"),
        ("there", ["--kind", "parser"], "harness-there exists already; delete it"),
    ],
)
def test_what_does_not_fit_is_one_line_and_writes_nothing(
    harness: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harness-there").mkdir()
    (tmp_path / "file").write_text("")
    done = harness("plugins", "--new", name, *words)
    assert done.code == 2
    assert message in done.err and done.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "harness-there"]
