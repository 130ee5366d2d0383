"""The assignment's Makefile, with a stand-in for `harness` that only writes what a command would, and its page.

`make assignment` does the same for real, on the demonstration's tiny world; tests/cli/test_help.py holds that every
command which the page names is there.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Command

ROOT = Path(__file__).parents[2]
FILES = ("train.jsonl.gz", "test.jsonl.gz", "harmless-base.jsonl.gz", "helpful-base.jsonl.gz")

#: Notes each command in the file `said`, writes what it would make, and fails at the one that is named in DIES.
STAND_IN = """#!/bin/sh
echo "$*" >> said
[ "$*" != "${DIES:-}" ] || exit "${STATUS:-9}"
while [ $# -gt 0 ]; do
    case $1 in
        --run-dir) mkdir -p "$2" && echo {} > "$2/results.json" ;;
        --out) case $2 in *.md|*.html) : > "$2" ;; *) mkdir -p "$2" ;; esac ;;
    esac
    shift
done
"""


@pytest.fixture
def work(harness: Command, tmp_path: Path) -> Path:
    """A folder that `harness init` has written, with data and the stand-in."""
    folder = tmp_path / "work"
    done = harness("init", "assignment", folder)
    assert done.code == 0, done.err
    for name in FILES:
        (folder / name).touch()
    (folder / "stand-in").write_text(STAND_IN, encoding="utf-8")
    (folder / "stand-in").chmod(0o755)
    return folder


def make(folder: Path, *words: str, dies: str = "", status: int = 9) -> tuple[int, list[str]]:
    """Run make in a folder and return its exit status and what was asked of the stand-in."""
    (folder / "said").write_text("", encoding="utf-8")
    command = ["make", "MODEL=base", "JUDGE=judge", "HARNESS=./stand-in", *words]
    environment = {**os.environ, "DIES": dies, "STATUS": str(status)}
    code = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode
    return code, (folder / "said").read_text(encoding="utf-8").splitlines()


def later(path: Path) -> None:
    """Change a file, as far as make can see."""
    newest = max(each.stat().st_mtime for each in path.parent.rglob("*"))
    os.utime(path, (newest + 5, newest + 5))


def test_every_stage_is_done_once_and_only_what_follows_from_a_change_again(work: Path) -> None:
    code, first = make(work)
    assert code == 0
    kinds = [line.split()[0] for line in first]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    assert counts == {"run": 12, "data": 2, "train": 2, "judge": 6, "report": 2, "compare": 1, "show": 12}
    assert sum("--run-dir runs/gsm8k/" in line and line.startswith("run ") for line in first) == 3
    [dpo] = [line for line in first if line.startswith("train dpo")]
    assert dpo.endswith('--set dpo.data=["harmless-base.jsonl.gz","helpful-base.jsonl.gz"]')
    assert make(work) == (0, [])
    (work / "dpo" / "old").touch()
    later(work / "dpo.toml")
    code, again = make(work)
    assert code == 0
    assert not (work / "dpo" / "old").exists()  # another recipe begins anew
    done = [line for line in again if line.split()[0] not in ("compare", "report")]
    assert len(done) == 1 + 4 + 2 + 4
    assert all("dpo" in line for line in done)


def test_what_was_killed_goes_on(work: Path) -> None:
    _, every = make(work, "OUT=whole")
    every = [line.replace("whole/", "part/") for line in every]
    for place in (4, 9, 20):
        code, _ = make(work, "OUT=part", dies=every[place])
        assert code != 0
        kept = work / "part" / "sft" / "checkpoint"
        if kept.parent.exists():
            kept.touch()
    code, rest = make(work, "OUT=part")
    assert code == 0
    assert kept.exists()  # what a training has begun is left to it
    assert set(rest) < set(every)


def test_failed_examples_stop_it_unless_that_is_allowed(work: Path) -> None:
    (work / "runs" / "mmlu" / "base").mkdir(parents=True)
    _, [first] = make(work, "runs/mmlu/base/results.json")
    (work / "runs" / "mmlu" / "base" / "results.json").unlink()
    assert make(work, dies=first, status=1)[0] != 0
    assert make(work, "ALLOW_FAILED=yes", dies=first, status=1)[0] == 0
    assert make(work, "ALLOW_FAILED=yes", "OUT=other", dies=first.replace("runs/", "other/runs/"), status=2)[0] != 0


def test_every_command_can_be_shown_and_a_judge_left_out(work: Path) -> None:
    shown = subprocess.run(["make", "-n", "MODEL=base"], cwd=work, capture_output=True, text=True, check=True).stdout
    assert shown.count("harness run evaluate.toml") == 12
    assert "harness judge" not in shown
    assert sorted(path.name for path in work.iterdir() if path.is_dir()) == []


def test_a_folder_that_is_there_is_left_alone(harness: Command, work: Path) -> None:
    (work / "writeup.md").write_text("mine", encoding="utf-8")
    done = harness("init", "assignment", work)
    assert (done.code, "is there already; name another folder" in done.err) == (2, True)
    assert (work / "writeup.md").read_text(encoding="utf-8") == "mine"


def test_every_problem_of_the_assignment_has_its_place() -> None:
    text = (ROOT / "docs" / "assignment.md").read_text(encoding="utf-8")
    problems = [f"{name}_{when}" for name in ("mmlu", "gsm8k", "alpaca_eval", "sst") for when in ("baseline", "sft")]
    problems += ["look_at_sft", "data_loading", "sft_script", "red_teaming", "look_at_hh", "dpo_loss", "dpo_training"]
    headings = " ".join(re.findall(r"(?m)^## (.*)$", text))
    assert all(problem in headings for problem in problems)
