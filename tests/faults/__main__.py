"""Disturb every command that writes, at every change it makes to a file, and see whether anything is lost.

    make faults [MINUTES=10]

A change is a write, a flush to the disk, a renaming, a link, a folder made, a file opened to be written or removed. At
each, by a library that is loaded before all others, a command is killed before it, halfway and after it; or it and
every change behind it fail as on a full disk, a broken one, over a quota, without permission, or with too many open
files. Then the same command is given again, and must come to what it comes to undisturbed: results, samples, verdicts,
weights, metrics to the byte, and no file more. A command that fails says so on one line, with an exit code that tells.

Which faults are tried first is drawn from a fixed seed; after MINUTES the rest is left. Needs a C compiler. Exits 1
where anything was lost, each fault in a line that can be given again: ``python -m tests.faults --only run:17:halfway``.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.scenarios import OUT, Scenario, scenarios

KILLS = ("before", "halfway", "after")
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EACCES", "EMFILE")

#: Comes before a command in its process: says which change is meant, and writes how many there were.
_ARMED = """
import atexit, ctypes
points = ctypes.CDLL(None)
points.faults_arm({folder!r}.encode(), {number}, {where}, {error})
atexit.register(lambda: open({counted!r}, "w").write(str(points.faults_counted())))
from harness.cli import main
main()
"""


@dataclass(frozen=True)
class Fault:
    """What happens to the change `number` of a scenario's command: killed before, halfway or after it, or an errno."""

    scenario: Scenario
    number: int
    kind: str

    def __str__(self) -> str:
        return f"{self.scenario.name}:{self.number}:{self.kind}"


def main() -> None:
    """Try faults until the time is up; print a table, and exit 1 where anything was lost."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", help="one fault, as it is printed")
    options.add_argument("--scenario", help="one command, as the table names it")
    options.add_argument("--kills", action="store_true", help="only kill, and let nothing fail")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        campaign = Campaign(Path(name))
        faults = campaign.faults(given.seed)
        if given.scenario is not None:
            faults = [fault for fault in faults if fault.scenario.name == given.scenario]
        if given.kills:
            faults = [fault for fault in faults if fault.kind in KILLS]
        if given.only is not None:
            faults = [fault for fault in faults if str(fault) == given.only]
            if not faults:
                sys.exit(f"faults: none is called {given.only!r}; a command makes as many changes as the table says")
        lost = campaign.carry_out(faults, time.monotonic() + 60 * given.minutes)
    sys.exit(1 if lost else 0)


class Campaign:
    """Disturbs commands in folders below `folder`."""

    def __init__(self, folder: Path) -> None:
        library = folder / "points.so"
        source = Path(__file__).with_name("points.c")
        compiler = shutil.which("cc") or sys.exit("faults: no C compiler (cc) is installed")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
        os.environ["LD_PRELOAD"] = str(library)  # for the fork server, which is started with the first command
        os.environ["HARNESS_CACHE"] = str(folder / "cache")
        self._folder = folder.resolve()
        self._scenarios = scenarios(folder, self._undisturbed)
        self._expected: dict[str, Mapping[str, Any]] = {}
        self._changes: dict[str, int] = {}
        for scenario in self._scenarios:
            work = self._copy(scenario)
            code, said, self._changes[scenario.name] = self._run(scenario.words, work)
            if code not in scenario.ends:
                sys.exit(f"faults: undisturbed, {scenario.name} ends with {code}: {said}")
            self._expected[scenario.name] = scenario.ended(work)

    def faults(self, seed: int) -> list[Fault]:
        """Return every fault, in an order drawn from `seed` in which the scenarios take turns."""
        chance, queues = random.Random(seed), []
        for scenario in self._scenarios:
            numbers = range(1, self._changes[scenario.name] + 1)
            queue = [Fault(scenario, number, kind) for number in numbers for kind in (*KILLS, *ERRORS)]
            chance.shuffle(queue)
            queues.append(queue)
        return [queue[place] for place in range(max(map(len, queues))) for queue in queues if place < len(queue)]

    def carry_out(self, faults: list[Fault], until: float) -> list[str]:
        """Try faults until that time, print a table, and return what was lost."""
        tried, lost = Counter[tuple[str, str]](), []
        for fault in faults:
            if time.monotonic() > until:
                break
            kind = "killed" if fault.kind in KILLS else "failed"
            tried[fault.scenario.name, kind] += 1
            if problem := self._problem(fault):
                lost.append(f"{fault}: {problem}")
        print(f"{'command':<18}{'changes':>9}{'killed':>9}{'failed':>9}{'lost':>7}")
        for scenario in self._scenarios:
            name = scenario.name
            count = sum(line.startswith(f"{name}:") for line in lost)
            cells = (self._changes[name], tried[name, "killed"], tried[name, "failed"])
            print(f"{name:<18}{''.join(f'{cell:>9,}' for cell in cells)}{count:>7}")
        print(f"{tried.total():,} of {len(faults):,} faults tried, {len(lost)} lost something", *lost, sep="\n")
        return lost

    def _problem(self, fault: Fault) -> str | None:
        """Disturb a command and give it again; return what is wrong then, or None."""
        scenario = fault.scenario
        work = self._copy(scenario)
        killing = fault.kind in KILLS
        where, error = (KILLS.index(fault.kind), 0) if killing else (0, getattr(errno, fault.kind))
        code, said, _ = self._run(scenario.words, work, fault.number, where, error)
        if killing:
            if code not in (-9, *scenario.ends):  # a change that was not reached: threads take turns
                return f"ended with {code}: {said}"
        elif code not in (1, 2, *scenario.ends) or "internal error" in said or "Traceback" in said:
            return f"ended with {code}: {said}"
        code, said, _ = self._run(scenario.words, work)
        if code not in scenario.ends:
            return f"given again, it ends with {code}: {said}"
        try:
            ended = scenario.ended(work)
        except (OSError, ValueError) as problem:
            return f"given again, {problem}"
        return next(self._differences(scenario, ended, killing), None)

    def _differences(self, scenario: Scenario, ended: Mapping[str, Any], killed: bool) -> Iterator[str]:
        expected = self._expected[scenario.name]
        names = [name for name in expected if killed or name != "files"]  # where nothing can be removed, files stay
        for name in names:
            if ended[name] != expected[name]:
                more = f": {set(ended[name]) ^ set(expected[name])}" if name == "files" else ""
                yield f"other {name}{more}"

    def _undisturbed(self, words: tuple[str, ...], folder: Path) -> None:
        code, said, _ = self._run(words, folder)
        if code:
            sys.exit(f"faults: {' '.join(words)} ends with {code}: {said}")

    def _copy(self, scenario: Scenario) -> Path:
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(scenario.begun, work)
        return work

    def _run(
        self, words: tuple[str, ...], folder: Path, number: int = 0, where: int = 0, error: int = 0
    ) -> tuple[int, str, int]:
        """Run a command in `folder`; return its exit code, its last line, and how many changes it made."""
        from tests.processes import start

        counted = self._folder / "counted"
        counted.unlink(missing_ok=True)
        below = f"{(folder / OUT).resolve()}/"
        script = _ARMED.format(folder=below, number=number, where=where, error=error, counted=str(counted))
        before = os.getcwd()
        os.chdir(folder)
        try:
            ended = start(words, self._folder / "said", script=script).ended(120)
        finally:
            os.chdir(before)
        lines = ended.stderr.strip().splitlines()
        return ended.returncode, lines[-1] if lines else "", int(counted.read_text()) if counted.exists() else 0


if __name__ == "__main__":
    main()
