"""Every command that writes, disturbed at each change it makes to a file: is anything lost?"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.scenarios import OUT, Scenario, scenarios
from tests.processes import Processes, start

KILLS = ("before", "halfway", "after")
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EACCES", "EMFILE")
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
GROUPS = tuple(f"{name}-group" for name in SIGNALS)

#: Seconds by which the clock jumps: to 1970 and before, a day back, ten years on, and behind 2106.
CLOCKS = {
    "clock-epoch": -1_795_000_000,
    "clock-back": -86_400,
    "clock-forward": 315_360_000,
    "clock-far": 2_600_000_000,
}

#: One rank of two is killed.
RANKS = ("rank-0", "rank-1")

#: What the columns of the table are called, by the kinds that they count.
COLUMNS: dict[str, tuple[str, ...]] = {
    "killed": KILLS, "failed": ERRORS, "signalled": (*SIGNALS, *GROUPS), "clock": tuple(CLOCKS), "rank": RANKS
}  # fmt: skip

#: Shares of the kinds among what is tried: as many kills as all else.
_KINDS = (*KILLS, *ERRORS, *SIGNALS, *GROUPS, *CLOCKS)
_FIRST = {**dict.fromkeys(KILLS, 8), **dict.fromkeys(ERRORS, 2), **dict.fromkeys((*SIGNALS, *GROUPS, *CLOCKS), 1)}

#: So many are tried, however little time there is.
_LEAST = 24

_FAIL, _SIGNAL, _GROUP, _CLOCK = 3, 4, 5, 6  # as points.c numbers them, behind the places of a kill

#: Comes before a command in its process: says which change is meant, and writes how many there were.
_ARMED = """
import atexit, ctypes, os
points = ctypes.CDLL(None)
rank = os.environ.get("RANK", "0")
if {groups}:
    os.setpgid(0, 0)
points.faults_arm({folder!r}.encode(), {number} if {rank} in (None, rank) else 0, {where}, ctypes.c_long({value}))
def counted():
    with open({counted!r} + rank, "w") as file:
        file.write(str(points.faults_counted()))
import harness.cli.ending
def ended(code, end=harness.cli.ending.end_now):
    counted()
    end(code)
atexit.register(counted)
harness.cli.ending.end_now = ended
from harness.cli import main
main()
"""


@dataclass(frozen=True)
class Fault:
    """What happens at the change `number` of a scenario's command."""

    scenario: Scenario
    number: int
    kind: str

    def __str__(self) -> str:
        return f"{self.scenario.name}:{self.number}:{self.kind}"


class Changes:
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
        self._changes: dict[str, list[int]] = {}
        for scenario in self._scenarios:
            work = self._copy(scenario)
            code, said, self._changes[scenario.name] = self._run(scenario, work)
            if code not in scenario.ends:
                sys.exit(f"faults: undisturbed, {scenario.name} ends with {code}: {said}")
            self._expected[scenario.name] = scenario.ended(work)

    def faults(self, seed: int) -> list[Fault]:
        """Return every fault, in an order drawn from `seed` in which the scenarios take turns, kills first of all."""
        chance, queues = random.Random(seed), []
        for scenario in self._scenarios:
            queue = [
                Fault(scenario, number, kind)
                for rank, count in enumerate(self._changes[scenario.name])
                for number in range(1, count + 1)
                for kind in (_KINDS if scenario.ranks == 1 else (RANKS[rank],))
            ]
            queue.sort(key=lambda fault: chance.random() / _FIRST.get(fault.kind, 1))
            queues.append(queue)
        return [queue[place] for place in range(max(map(len, queues))) for queue in queues if place < len(queue)]

    def carry_out(self, faults: list[Fault], until: float) -> list[str]:
        """Try faults until that time, print a table, and return what was lost."""
        tried, lost, points = Counter[tuple[str, str]](), [], set[tuple[str, int]]()
        for fault in faults:
            if time.monotonic() > until and tried.total() >= _LEAST:
                break
            tried[fault.scenario.name, _column(fault.kind)] += 1
            points.add((fault.scenario.name, fault.number))
            if problem := self._problem(fault):
                lost.append(f"{fault}: {problem}")
        print(f"{'command':<20}{'changes':>9}{''.join(f'{column:>11}' for column in COLUMNS)}{'lost':>7}")
        for scenario in self._scenarios:
            name = scenario.name
            count = sum(line.startswith(f"{name}:") for line in lost)
            cells = "".join(f"{tried[name, column]:>11,}" for column in COLUMNS)
            print(f"{name:<20}{sum(self._changes[name]):>9,}{cells}{count:>7}")
        total = f"{tried.total():,} of {len(faults):,} faults tried at {len(points):,} points"
        print(f"{total}, {len(lost)} lost something", *lost, sep="\n", flush=True)
        return lost

    def _problem(self, fault: Fault) -> str | None:
        """Disturb a command and give it again; return what is wrong then, or None."""
        scenario = fault.scenario
        work = self._copy(scenario)
        code, said, _ = self._run(scenario, work, fault)
        # A change that was not reached is no fault: threads take turns.
        if code not in (*_ends(fault.kind), *scenario.ends) or "internal error" in said or "Traceback" in said:
            return f"ended with {code}: {said}"
        code, said, _ = self._run(scenario, work)
        if code not in scenario.ends:
            return f"given again, it ends with {code}: {said}"
        try:
            ended = scenario.ended(work)
        except (OSError, ValueError) as problem:
            return f"given again, {problem}"
        return next(self._differences(scenario, ended, fault.kind not in ERRORS), None)

    def _differences(self, scenario: Scenario, ended: Mapping[str, Any], killed: bool) -> Iterator[str]:
        expected = self._expected[scenario.name]
        names = [name for name in expected if killed or name != "files"]  # where nothing can be removed, files stay
        for name in names:
            if ended[name] != expected[name]:
                more = f": {set(ended[name]) ^ set(expected[name])}" if name == "files" else ""
                yield f"other {name}{more}"

    def _undisturbed(self, words: tuple[str, ...], folder: Path) -> None:
        ended = start_in(folder, words, self._folder / "said").ended(120)
        if ended.returncode:
            sys.exit(f"faults: {' '.join(words)} ends with {ended.returncode}: {ended.stderr}")

    def _copy(self, scenario: Scenario) -> Path:
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(scenario.begun, work)
        return work

    def _run(self, scenario: Scenario, folder: Path, fault: Fault | None = None) -> tuple[int, str, list[int]]:
        """Run a command in `folder`; return its exit code, its last line, and how many changes each rank made."""
        counted = self._folder / "counted"
        files = [counted.with_name(f"counted{rank}") for rank in range(scenario.ranks)]
        for file in files:
            file.unlink(missing_ok=True)
        where, value = _meaning(fault.kind) if fault is not None else (0, 0)
        script = _ARMED.format(
            folder=f"{(folder / OUT).resolve()}/",
            number=fault.number if fault is not None else 0,
            where=where,
            value=value,
            rank=repr(fault.kind[-1]) if fault is not None and fault.kind in RANKS else None,
            groups=scenario.ranks == 1,
            counted=str(counted),
        )
        ended = start_in(folder, scenario.words, self._folder / "said", scenario.ranks, script).ended(120)
        lines = ended.stderr.strip().splitlines()
        counts = [int(file.read_text()) if file.exists() else 0 for file in files]
        return ended.returncode, lines[-1] if lines else "", counts


def start_in(
    folder: Path,
    words: tuple[str, ...],
    said: Path,
    ranks: int = 1,
    script: str = "from harness.cli import main; main()",
) -> Processes:
    """Start a command with `folder` as its working folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        return start(words, said, ranks=ranks, script=script)
    finally:
        os.chdir(before)


def _column(kind: str) -> str:
    return next(column for column, kinds in COLUMNS.items() if kind in kinds)


def _meaning(kind: str) -> tuple[int, int]:
    """Return what points.c is told of a kind: where, and what."""
    if kind in KILLS:
        return KILLS.index(kind), 0
    if kind in ERRORS:
        return _FAIL, getattr(errno, kind)
    if kind in CLOCKS:
        return _CLOCK, CLOCKS[kind]
    name = kind.removesuffix("-group")
    return (0, 0) if kind in RANKS else (_GROUP if name != kind else _SIGNAL, getattr(signal, name))


def _ends(kind: str) -> tuple[int, ...]:
    """Return the exit codes of a command that is so disturbed, beside its own."""
    if kind in KILLS:
        return (-signal.SIGKILL,)
    if kind in ERRORS:
        return (1, 2)
    if kind in RANKS:
        return (-signal.SIGKILL, 1, 2)
    return () if kind in CLOCKS else (130, -signal.SIGQUIT, -signal.SIGHUP, -signal.SIGTERM)
