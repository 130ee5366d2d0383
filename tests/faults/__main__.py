"""Disturb what the harness does in every way that machines and strangers do, and see whether anything is lost.

    make faults [MINUTES=10]

Changes: at every change that a command which writes makes to a file, by a library that is loaded before all others, it
is killed before, halfway and after; or it and every change behind it fail as on a full disk, a broken one, over a
quota, without permission, or with too many open files; or a signal comes, to the process or its group; or the clock
jumps; or one rank of two is killed. Then the same command is given again, and must come to what it comes to
undisturbed: results, samples, verdicts, weights, metrics to the byte, and no file more. A command that fails says so on
one line, with an exit code that tells. A change is a write, a flush to the disk, a renaming, a link, a folder made, a
file opened to be written or removed.

Servers: a command asks a server that does what no server should, and must end in time, in one line, without the key.

Strangers: run folders, training folders, model folders and data files are changed by chance and given to every command
that takes one, which must end in time, in one line, within 1 GiB, with nothing executed and no file outside touched.

What is tried first is drawn from a fixed seed; after MINUTES, of which each part has its share, the rest is left;
what is made before anything is disturbed counts, too. Needs
a C compiler. Exits 1 where anything is wrong, each fault in a line; one of the changes can be given again:
``python -m tests.faults --only run:17:halfway``. On a machine of many cores ``--part changes --share 3/8`` is the third
of eight commands that meet no point twice; the other parts are given other seeds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

#: Each part's share of the time.
SHARES = {"changes": 0.5, "servers": 0.2, "strangers": 0.3}

#: What commands import that ask a server or a hub.
_ASKING = (
    "harness.cli", "harness.engines.openai", "harness.evaluation.runner", "harness.chatting.chat", "openai",
    "huggingface_hub.file_download",
)  # fmt: skip


def main() -> None:
    """Try faults until the time is up; print tables, and exit 1 where anything is wrong."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--part", action="append", choices=SHARES, help="by default all")
    options.add_argument("--only", help="one fault of the changes, as it is printed")
    options.add_argument("--scenario", help="changes of one command alone, as the table names it")
    options.add_argument("--kills", action="store_true", help="of the changes, kills alone")
    options.add_argument("--share", default="1/1", metavar="I/N", help="the points of the I-th of N such commands")
    given = options.parse_args()
    narrowed = given.only is not None or given.scenario is not None or given.kills
    parts = ["changes"] if narrowed else given.part or list(SHARES)
    whole = sum(SHARES[part] for part in parts)
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"HARNESS_CACHE": str(Path(name, "cache")), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        for part in parts:
            folder = Path(name, part).resolve()
            folder.mkdir()
            seconds = 60 * given.minutes * SHARES[part] / whole
            wrong += len({"changes": changes, "servers": servers, "strangers": strangers}[part](folder, seconds, given))
    sys.exit(1 if wrong else 0)


def changes(folder: Path, seconds: float, given: argparse.Namespace) -> list[str]:
    """Disturb commands at their changes to files; return what was lost."""
    from tests.faults.changes import KILLS, Changes

    until = time.monotonic() + seconds
    campaign = Changes(folder)
    faults = campaign.faults(given.seed)
    if given.scenario is not None:
        faults = [fault for fault in faults if fault.scenario.name == given.scenario]
    if given.kills:
        faults = [fault for fault in faults if fault.kind in KILLS]
    number, count = map(int, given.share.split("/"))
    faults = [fault for fault in faults if fault.number % count == number % count]
    if given.only is not None:
        faults = [fault for fault in faults if str(fault) == given.only]
        if not faults:
            sys.exit(f"faults: none is called {given.only!r}; a command makes as many changes as the table says")
    return campaign.carry_out(faults, until)


def servers(folder: Path, seconds: float, given: argparse.Namespace) -> list[str]:
    """Have commands ask hostile servers; return what went wrong."""
    from tests.faults.servers import Servers

    until = time.monotonic() + seconds
    for module in _ASKING:
        import_module(module)
    campaign = Servers(folder, given.seed)
    wrong = list(campaign.carry_out(until))
    print(
        f"{len(campaign.tried)} of {len(campaign.names)} behaviours of servers met, {len(wrong)} wrong",
        *wrong,
        sep="\n",
    )
    return wrong


def strangers(folder: Path, seconds: float, given: argparse.Namespace) -> list[str]:
    """Give commands what strangers made; return what went wrong."""
    from tests.faults.fuzzed import Fuzzing, targets
    from tests.processes import IMPORTED

    until = time.monotonic() + seconds
    for module in IMPORTED:
        import_module(module)
    found = targets(folder / "begun")
    campaign = Fuzzing(folder / "tried", found, given.seed)
    wrong = [*campaign.warm(), *campaign.carry_out(until)]
    print(f"{'made by strangers':<20}{'tried':>9}{'refused':>9}{'corpus':>9}")
    for target in found:
        name, kept = target.name, sum(len(contents) for contents in target.corpus.values())
        print(f"{name:<20}{campaign.tried[name]:>9,}{campaign.refused[name]:>9,}{kept:>9,}")
    print(f"{campaign.tried.total():,} inputs tried, {len(wrong)} wrong", *wrong, sep="\n")
    return wrong


if __name__ == "__main__":
    main()
