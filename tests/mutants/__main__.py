"""Whether the tests notice: small faults are put into the code one at a time, and each is to make a test fail.

`mutmut` 3.8 and `cosmic-ray` 8.7 were tried first. mutmut runs whole files instrumented, which took longer than all of
this before the first mutant; neither draws a sample, and cosmic-ray changes the checkout itself, one process at a time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants.changes import Mutant, mutants

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
SEED = 13
#: The shares of mutants that are to be killed.
ENOUGH = {"parsers": 0.95, "together": 0.92}


@dataclass(frozen=True)
class Room:
    """What rooms.toml says of one."""

    name: str
    files: list[str]
    tests: list[str]
    count: int
    without: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)

    def drawn(self, count: int | None) -> list[tuple[Mutant, Room]]:
        """Return the mutants with the least hashes: most stay the same where a file changes elsewhere."""
        every = [one for file in found(self.files) for one in mutants(file, (ROOT / file).read_text("utf-8"))]
        every.sort(key=lambda one: hashlib.sha256(f"{SEED} {one.key}".encode()).digest())
        return [(one, self) for one in every if one.function not in self.without][: count or self.count]


def found(patterns: list[str]) -> list[str]:
    """Return the files that there are; ValueError for a pattern that finds none."""
    files = [sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)) for pattern in patterns]
    if [] in files:
        raise ValueError(f"tests/mutants/rooms.toml: there is no {patterns[files.index([])]}")
    return list(dict.fromkeys(file for each in files for file in each))


class Copy:
    """A copy of the checkout in which one file at a time is wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.late = folder, 0
        words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(words, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0"):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        subprocess.run([sys.executable, "-m", "compileall", "-q", "harness", "plugins"], cwd=folder, check=True)
        sources = [str(folder), *(str(folder / "plugins" / kind) for kind in ("benchmarks", "trainers"))]
        alone = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(sources)}
        self._environment = {**os.environ, **alone}

    def passes(self, room: Room, seconds: float) -> bool:
        """Return whether a room's tests pass; not to end in time is not to pass."""
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        words += ["-k", " and ".join(f"not {name}" for name in room.slow)] if room.slow else []
        with subprocess.Popen(
            [*words, *found(room.tests)], cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                return process.wait(seconds) == 0
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                self.late += 1
                return False

    def survives(self, mutant: Mutant, room: Room, seconds: float) -> bool:
        """Return whether the room's tests pass although the mutant is there."""
        path = self.folder / mutant.file
        whole = path.read_text("utf-8")
        (path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc").unlink(missing_ok=True)
        path.write_text(mutant.source(), "utf-8")
        survived = self.passes(room, seconds)
        path.write_text(whole, "utf-8")
        return survived


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    arguments.add_argument("--room", action="append", help="only this room; may be repeated")
    arguments.add_argument("--count", type=int, metavar="N", help="so many mutants of each room")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="at a time [cores]")
    arguments.add_argument("--list", action="store_true", help="say which would be tried, and try none")
    options = arguments.parse_args()
    tables = tomllib.loads((HERE / "rooms.toml").read_text("utf-8"))
    rooms = [Room(name, **table) for name, table in tables.items()]
    rooms = [room for room in rooms if options.room is None or room.name in options.room]
    work = [each for room in rooms for each in room.drawn(options.count)]
    if options.list:
        print("\n".join(f"{room.name}: {mutant.key}" for mutant, room in work))
        return 0
    reasons = tomllib.loads((HERE / "survivors.toml").read_text("utf-8"))
    total, killed, unlisted, begun = Counter[str](), Counter[str](), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies = [Copy(Path(folder) / str(number)) for number in range(options.jobs)]
        free: queue.Queue[Copy] = queue.Queue()
        for copy in copies:
            free.put(copy)
        limits: dict[str, float] = {}
        for room in rooms:
            started = time.monotonic()
            if not copies[0].passes(room, 900):
                print(f"{room.name}: its tests fail without a mutant: {' '.join(found(room.tests))}")
                return 2
            limits[room.name] = 3 * (time.monotonic() - started) + 10
            print(f"{room.name}: its tests take {time.monotonic() - started:.0f} s", flush=True)

        def survives(each: tuple[Mutant, Room]) -> bool:
            copy = free.get()
            survived = copy.survives(*each, limits[each[1].name])
            free.put(copy)
            return survived

        for (mutant, room), survived in zip(work, pool.map(survives, work), strict=True):
            total[room.name] += 1
            killed[room.name] += not survived
            if survived:
                unlisted += mutant.key not in reasons
                reason = reasons.get(mutant.key, "NOT LISTED in tests/mutants/survivors.toml")
                print(f"survived: {mutant.key} [line {mutant.line}]\n  {reason}", flush=True)
    shares = {name: killed[name] / total[name] for name in total} | {"together": killed.total() / total.total()}
    print(*(f"{name}: {share:.1%} killed" for name, share in shares.items()), sep="\n")
    late = sum(copy.late for copy in copies)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = f"{time.monotonic() - begun:.0f} s ({used.ru_utime + used.ru_stime:.0f} s of CPU time)"
    print(f"{total.total()} mutants in {spent}, {late} killed by the time limit, {unlisted} survivors not listed")
    return 0 if not unlisted and all(shares.get(name, 1) >= least for name, least in ENOUGH.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
