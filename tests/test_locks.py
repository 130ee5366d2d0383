"""The lock files against the ranges in pyproject.toml, and the installer's one line for what cannot be installed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.cli import CORE

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "locks"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def needs(extra: str) -> list[Requirement]:
    """Return what an extra brings, those that it names included."""
    found = []
    for line in EXTRAS[extra]:
        need = Requirement(line)
        if need.name == "posttrain-harness":
            found += [other for name in need.extras for other in needs(name)]
        else:
            found.append(need)
    return found


def locked(*names: str) -> dict[str, list[str]]:
    """Return the versions of each package in the lock files called `names`."""
    found: dict[str, list[str]] = {}
    for name in names:
        for package, version in re.findall(r"^([\w.-]+)==(\S+)", (LOCKS / name).read_text(encoding="utf-8"), re.M):
            found.setdefault(package, []).append(version)
    return found


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("dev", ["dev"]), ("demo", ["train", "openai", "report"]), ("docs", ["docs"]), ("vllm", ["hub", "ray"])],
)
def test_a_lock_has_a_version_in_every_range(lock: str, extras: list[str]) -> None:
    versions = locked(f"{lock}.txt", "torch.txt")
    for need in [need for extra in extras for need in needs(extra)]:
        known = versions.get(canonicalize_name(need.name), [])
        assert known, f"locks/{lock}.txt has no {need.name}: run `make lock`"
        assert all(need.specifier.contains(version) for version in known), f"{need}, not {known}: run `make lock`"


def test_float8s_library_is_in_range() -> None:
    [need] = [need for need in needs("float8") if need.name == "torchao"]
    [version] = locked("float8.txt")["torchao"]
    assert need.specifier.contains(version)


def test_torch_is_pinned_without_a_hash_and_all_else_with() -> None:
    for lock in ("dev.txt", "demo.txt", "docs.txt", "vllm.txt", "float8.txt"):
        text = (LOCKS / lock).read_text(encoding="utf-8")
        blocks = re.split(r"\n(?=[\w.-]+==)", text)[1:]
        assert blocks and all("--hash=sha256:" in block for block in blocks)
        assert not re.search(r"^(torch==|nvidia-|cuda-)|\+", re.sub(r"#.*", "", text), re.M)
    assert list(locked("torch.txt")) == ["torch"]


def test_the_constraints_are_the_locked_versions() -> None:
    assert locked("dev.txt", "torch.txt", "torch-cuda.txt") == locked("constraints.txt")


def test_every_extra_brings_the_core() -> None:
    core = {need.name for need in needs("core")}
    assert core == {*CORE, "click"}
    for extra in EXTRAS:
        assert core <= {need.name for need in needs(extra)}, extra


@pytest.mark.parametrize(
    ("line", "index", "message"),
    [
        ("six==1.17.0 --hash=sha256:" + "0" * 64, "http://127.0.0.1:9/simple", "no package index can be reached"),
        (
            "six==999.0 --hash=sha256:" + "0" * 64,
            "EMPTY",
            r"locks/odd.txt does not fit: .* six==999.0 has no build for Py",
        ),
    ],
)
def test_what_cannot_be_installed_is_one_line(line: str, index: str, message: str, tmp_path: Path) -> None:
    for name in ("install.py", "torch.txt", "torch-cuda.txt"):
        (tmp_path / name).write_bytes((LOCKS / name).read_bytes())
    (tmp_path / "odd.txt").write_text(line + "\n")
    (tmp_path / "empty" / "six").mkdir(parents=True)
    (tmp_path / "empty" / "six" / "index.html").write_text("<html></html>")
    index = (tmp_path / "empty").as_uri() if index == "EMPTY" else index
    done = subprocess.run(
        [sys.executable, tmp_path / "install.py", tmp_path / "env", "odd"],
        env={"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index, "PIP_RETRIES": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done
    assert re.fullmatch(rf"locks: {message}[^\n]*\n", done.stderr), done.stderr
