"""Workers, nodes and drivers of Ray killed at random: is each request answered once, and each sample recorded once?

    python -m tests.faults.ray_nodes [--workers N] [--raylets N] [--drivers N] [--minutes N] [--seed S]

Workers and raylets are killed while requests are on their way: a worker every second or so, in which four share the
work, and one of three nodes every few seconds, for which another joins. Drivers are killed at any moment of a command
from its start on, which is then given again with another number of replicas until it has ended. A JSON line for each
kind says how many were killed and what was found; the exit code is 1 if anything was lost, told twice, or failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.engines.ray.engine import RayEngine
from tests.engines.ray.odd import OddEngine, asked

ROOT = Path(__file__).parents[2]
CALL = 1_000


class Killer(threading.Thread):
    """Kills, by a function that says whether it has, until so many are dead or it is told to end."""

    def __init__(self, kill: Callable[[], bool], most: int, draw: random.Random, pause: tuple[float, float]) -> None:
        super().__init__(daemon=True)
        self.killed = 0
        self.ended = threading.Event()
        self._kill, self._most, self._draw, self._pause = kill, most, draw, pause

    def run(self) -> None:
        while self.killed < self._most and not self.ended.wait(self._draw.uniform(*self._pause)):
            self.killed += self._kill()


def answer_all(model: Any, killer: Killer, until: float) -> dict[str, Any]:
    """Ask again and again while there is somebody to kill; return what was found."""
    calls, lost, twice, failed = 0, 0, 0, 0
    killer.start()
    while killer.is_alive() and time.monotonic() < until:
        found = list(model.generate(asked(CALL)))
        counts = Counter(each.id for each in found)
        calls += 1
        lost += CALL - len(counts)
        twice += len(found) - len(counts)
        failed += sum(each.error is not None for each in found)
    killer.ended.set()
    killer.join()
    return {"killed": killer.killed, "requests": calls * CALL, "lost": lost, "twice": twice, "failed": failed}


def workers(most: int, until: float, draw: random.Random) -> dict[str, Any]:
    """Kill workers of a Ray of this process's own."""
    with tempfile.TemporaryDirectory() as name:

        def kill() -> bool:
            marks = list(Path(name).glob("*.pid"))
            if not marks:
                return False
            mark = draw.choice(marks)
            mark.unlink()
            with suppress(ProcessLookupError):
                os.kill(int(mark.stem), signal.SIGKILL)
                return True
            return False

        model = (
            RayEngine(replicas=4, timeout=60).over(OddEngine(name, seconds=0.004, fed=draw.random() < 0.5)).load("odd")
        )
        try:
            return answer_all(model, Killer(kill, most, draw, (0.3, 2.0)), until)
        finally:
            model.close()


@contextmanager
def nodes(count: int) -> Iterator[Any]:
    """A cluster of so many nodes of one CPU each on this machine, beside the head, which has none."""
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    store: dict[str, Any] = {"object_store_memory": 80 << 20}
    head = {"num_cpus": 0, "include_dashboard": False, **store}
    # Nodes join from another thread, where Ray may set no handlers of signals.
    made: Any = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    try:
        for _ in range(count):
            made.add_node(num_cpus=1, **store)
        yield made
    finally:
        made.shutdown()


def raylets(most: int, until: float, draw: random.Random) -> dict[str, Any]:
    """Kill raylets of a cluster on this machine; for each another node joins."""
    with tempfile.TemporaryDirectory() as name, nodes(3) as made:

        def kill() -> bool:
            node = draw.choice(sorted(made.worker_nodes, key=lambda each: each.node_id))
            [raylet] = node.all_processes["raylet"]
            raylet.process.kill()
            with suppress(Exception):  # what is left of it
                made.remove_node(node, allow_graceful=False)
            made.add_node(num_cpus=1, object_store_memory=80 << 20)
            return True

        model = RayEngine(address=made.address, timeout=60).over(OddEngine(name, seconds=0.004)).load("odd")
        try:
            return answer_all(model, Killer(kill, most, draw, (2.0, 8.0)), until)
        finally:
            model.close()


def drivers(most: int, until: float, draw: random.Random) -> dict[str, Any]:
    """Kill commands at any moment and give them again; of each run the journal is looked at in the end."""
    from harness.testing.tiny import word_problems

    killed = runs = lost = twice = failed = 0
    with tempfile.TemporaryDirectory() as name:
        world = Path(name)
        site = world / "site" / "odd-1.0.dist-info"
        site.mkdir(parents=True)
        (site / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
        (site / "entry_points.txt").write_text("[harness.engines]\nodd = tests.engines.ray.odd\n")
        (world / "gsm8k").mkdir()
        lines = [json.dumps({"question": question, "answer": answer}) for question, answer in word_problems(CALL)]
        (world / "gsm8k" / "test.jsonl").write_text("\n".join(lines) + "\n")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(world / "site"), str(ROOT)])}
        words = ["run", "-b", "gsm8k", "--data", name, "-e", "ray", "--set", "ray.engine=odd", "-m", "odd"]
        words += ["--set", "odd.seconds=0.01"]
        while killed < most and time.monotonic() < until:
            runs += 1
            out = ["--run-dir", str(world / f"run-{runs}")]
            while True:
                own = ["--set", f"ray.replicas={draw.randint(1, 4)}"]
                child = subprocess.Popen(
                    [sys.executable, "-m", "harness", *words, *own, *out], cwd=name, env=environment,
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                )  # fmt: skip
                try:
                    _, said = child.communicate(timeout=draw.uniform(1, 30) if killed < most else None)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.communicate()
                    killed += 1
                    continue
                if child.returncode:
                    raise SystemExit(said.decode())
                break
            samples = [json.loads(line) for line in (world / f"run-{runs}" / "samples.jsonl").read_text().splitlines()]
            counts = Counter(each["id"] for each in samples)
            lost += CALL - len(counts)
            twice += len(samples) - len(counts)
            failed += sum(each["error"] is not None for each in samples)
    return {"killed": killed, "runs": runs, "samples": runs * CALL, "lost": lost, "twice": twice, "failed": failed}


def main() -> int:
    """Read the command line, kill, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = {"workers": (workers, 100), "raylets": (raylets, 20), "drivers": (drivers, 20)}
    for name, (_, count) in kinds.items():
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N", help=f"[{count}]")
    parser.add_argument("--minutes", type=float, default=10, help="for each kind at most [10]")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bad = 0
    for name, (work, _) in kinds.items():
        if most := getattr(arguments, name):
            started = time.monotonic()
            found = work(most, started + 60 * arguments.minutes, random.Random(arguments.seed))
            bad += found["lost"] + found["twice"] + found["failed"]
            print(json.dumps({"kind": name, **found, "seconds": round(time.monotonic() - started)}), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
