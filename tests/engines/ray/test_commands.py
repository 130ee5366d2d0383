"""Commands with --engine ray in processes of their own: killed and given again, judging, nodes that go and come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.testing.tiny import make_tiny_model, word_problems

ROOT = Path(__file__).parents[3]
COUNT = 300


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with questions, an installed engine `odd`, and recorded outputs."""
    site = tmp_path / "site" / "odd-1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text("[harness.engines]\nodd = tests.engines.ray.odd\n")
    problems = word_problems(COUNT)
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    lines = [json.dumps({"question": question, "answer": answer}) for question, answer in problems]
    (tmp_path / "data" / "gsm8k" / "test.jsonl").write_text("\n".join(lines) + "\n")
    outputs = [json.dumps({"id": f"test-{n:04d}", "output": answer}) for n, (_, answer) in enumerate(problems)]
    (tmp_path / "outputs.jsonl").write_text("\n".join(outputs) + "\n")
    (tmp_path / "pids").mkdir()
    return tmp_path


def command(world: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "harness", "run", "-b", "gsm8k", "--data", "data", "-e", "ray", *words]


def environment(world: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{world / 'site'}{os.pathsep}{ROOT}", "HARNESS_CACHE": str(world / "cache")}


def start(world: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(world, *words), cwd=world, env=environment(world), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, (out, err)
    return out if code == 0 else err


def journal(world: Path) -> list[dict[str, Any]]:
    [path] = world.glob("runs/*/*/*/samples.jsonl")
    lines = path.read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def once_each(samples: Sequence[dict[str, Any]]) -> None:
    assert Counter(each["id"] for each in samples) == Counter(f"test-{n:04d}" for n in range(COUNT))
    assert all(each["error"] is None for each in samples)


def wait_for(found: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.05)


def lines_there(world: Path, count: int) -> bool:
    return sum(path.read_bytes().count(b"\n") for path in world.glob("runs/*/*/*/samples.jsonl")) >= count


ODD = ["-m", "odd", "--set", "ray.engine=odd", "--set", "odd.seconds=0.03", "--set", "odd.folder=pids"]


def test_a_killed_command_goes_on_with_another_number_of_replicas(world: Path) -> None:
    for kill, (replicas, lines) in enumerate([(2, 60), (1, 150)]):
        process = start(world, *ODD, "--set", f"ray.replicas={replicas}")
        wait_for(lambda many=lines: lines_there(world, many))  # type: ignore[misc]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (next(world.glob("runs/*/*/*/run.json")).parent / "results.json").exists(), kill
        assert len(journal(world)) < COUNT
    workers = [int(path.stem) for path in (world / "pids").glob("*.pid")]
    wait_for(lambda: not any(_lives(worker) for worker in workers))
    assert "failed 0" in ended(start(world, *ODD, "--set", "ray.replicas=3"))
    once_each(journal(world))


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def test_a_run_of_one_process_is_gone_on_with_by_replicas(world: Path) -> None:
    """The engine that the replicas run is what the run is of: the same journal, from one machine to a cluster."""
    single = ["-m", "outputs.jsonl", "-e", "replay"]
    assert "failed 0" in ended(start(world, *single))
    assert "failed 0" in ended(start(world, "-m", "outputs.jsonl", "--set", "ray.engine=replay"))
    once_each(journal(world))


def test_ctrl_c_ends_with_a_line_and_the_same_command_goes_on(world: Path) -> None:
    process = start(world, *ODD, "--set", "ray.replicas=2")
    wait_for(lambda: lines_there(world, 40))
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert "failed 0" in ended(start(world, *ODD, "--set", "ray.replicas=2"))
    once_each(journal(world))


def test_workers_by_transformers_give_what_one_process_gives(world: Path) -> None:
    make_tiny_model(world / "tiny")
    words = ["-m", "tiny", "--set", "gsm8k.generation.max_tokens=8", "--limit", "60"]
    ended(start(world, *words, "--set", "ray.engine=transformers", "--set", "ray.replicas=4", "--out", "many"))
    ended(start(world, *words, "-e", "transformers", "--out", "one"))
    runs = []
    for name in ("many", "one"):
        [path] = world.glob(f"{name}/*/*/*/samples.jsonl")
        samples = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        runs.append({each["id"]: (each["output"], each["prompt_tokens"], each["scores"]) for each in samples})
    assert len(runs[0]) == 60 and runs[0] == runs[1]


@contextmanager
def cluster(world: Path, cpus: Sequence[int]) -> Iterator[Any]:
    """Ray nodes on this machine, each with raylet and object store of its own, that a command can be given."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(environment(world), RAY_USAGE_STATS_ENABLED="0")
    store = {"object_store_memory": 80 << 20, "include_dashboard": False}
    made: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **store})
    try:
        made.store = {"object_store_memory": 80 << 20}
        for count in cpus:
            made.add_node(num_cpus=count, **made.store)
        yield made
    finally:
        made.shutdown()
        os.environ.clear()
        os.environ.update(before)


def test_a_node_that_goes_costs_nothing_and_one_that_comes_takes_part(world: Path) -> None:
    with cluster(world, [1, 1]) as made:
        words = [
            *ODD,
            "--set",
            f"ray.address={made.address}",
            "--set",
            "odd.seconds=0.1",
            "--set",
            f"odd.folder={world / 'pids'}",
        ]
        process = start(world, *words)  # replicas=auto
        wait_for(lambda: lines_there(world, 20) or process.poll() is not None)
        assert len(list((world / "pids").glob("*.pid"))) == 2
        node = next(iter(made.worker_nodes))
        [raylet] = node.all_processes["raylet"]
        raylet.process.kill()
        wait_for(lambda: lines_there(world, 60))
        made.add_node(num_cpus=1, **made.store)
        assert "failed 0" in ended(process)
    once_each(journal(world))
    [path] = world.glob("runs/*/*/*/run.json")
    notices = json.loads(path.read_text())["notices"]
    assert any("is lost: its machine is gone" in notice for notice in notices), notices
    assert len(list((world / "pids").glob("*.pid"))) >= 3, "the node that came has taken part"


def test_no_cluster_is_one_line(world: Path) -> None:
    said = ended(start(world, *ODD, "--set", "ray.address=127.0.0.1:9"), code=2)
    assert "no Ray cluster at 127.0.0.1:9" in said and said.count("\n") == 1


def test_the_model_stays_loaded_for_several_benchmarks(world: Path) -> None:
    (world / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"What is {n}?"}) + "\n" for n in range(40)))
    out = ended(start(world, "-b", "prompts.jsonl", *ODD, "--set", "odd.seconds=0", "--set", "ray.replicas=2"))
    assert out.count("failed 0") == 2
    assert len(list((world / "pids").glob("*.pid"))) == 2
