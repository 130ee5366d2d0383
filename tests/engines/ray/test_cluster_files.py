"""The files in examples/cluster: slurm.sh as Slurm runs it, ray.yaml as `ray up` reads it, rayjob.yaml's command.

Slurm runs a copy of the script, in a folder of its own. Its commands have stand-ins, which run here what is for any of
the machines; Ray is real where it is what matters, else a stand-in too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.test_help import check_options
from tests.engines.ray.test_commands import COUNT, ROOT, once_each, wait_for, world

__all__ = ["world"]
FILES = ROOT / "examples" / "cluster"
JOB = str(os.getpid())

SCONTROL = """#!/bin/sh
case $1 in
    show) echo "$3" | tr , '\\n' ;;
    requeue) echo "$2" > requeued ;;
esac
"""
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do
    [ "$1" != -w ] || shift
    shift
done
exec "$@"
"""
#: Ray, and the Python that makes the token and asks whether Ray is up.
RAY = """#!/bin/sh
[ ! -e fails ] || exit 1
exec sleep 600
"""
PYTHON = """#!/bin/sh
case $2 in *ray*) [ ! -e fails ] ;; esac
"""
#: Waits until both machines are there, as a short run would end before.
BOTH = "import ray, time; ray.init()\nwhile sum(node['Alive'] for node in ray.nodes()) < 2: time.sleep(0.2)"


class Job:
    """A job of two machines, both of them this one."""

    def __init__(self, folder: Path, path: str) -> None:
        self.folder, self.said = folder, folder / "slurm.out"
        spooled = folder / "spool" / "slurm_script"
        spooled.parent.mkdir()
        shutil.copy(FILES / "slurm.sh", spooled)
        self._script, self._running = spooled, list[subprocess.Popen[bytes]]()
        given = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
        job = {"SLURM_JOB_ID": JOB, "SLURM_JOB_NODELIST": "localhost,localhost", "SLURM_JOB_NUM_NODES": "2"}
        run = {"SHARED": str(folder), "ENGINE": "replay", "MODEL": "outputs.jsonl", "REPLICAS": "2"}
        self.environment = {**given, **job, **run, "SLURM_CPUS_PER_TASK": "1", "PATH": f"{folder / 'bin'}:{path}"}
        for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
            self.stand_in(name, text)

    def stand_in(self, name: str, text: str) -> None:
        """Put a command before all others on the path."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def without_ray(self) -> None:
        """Let nothing be Ray but a process that sleeps, or ends where there is a file `fails`."""
        self.stand_in("ray", RAY)
        self.stand_in("python", PYTHON)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start the job's script as Slurm does."""
        with self.said.open("ab") as file:
            process = subprocess.Popen(
                ["/bin/bash", self._script, *words], cwd=self.folder, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        self._running.append(process)
        return process

    def run(self, *words: str) -> int:
        """Return the script's exit code."""
        return self.start(*words).wait(240)

    def end(self) -> None:
        """End what the script has left, as Slurm does: all that is the job's gets SIGTERM."""
        for process in self._running:
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
            process.wait(60)

    def left(self) -> list[str]:
        """Return the processes that are of this job's Ray."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if f"harness-{JOB}/" in words:
                found.append(words)
        return found


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path, f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    yield made
    made.end()


def test_a_job_evaluates_on_its_machines_and_leaves_no_process(world: Path, job: Job) -> None:
    script = f"'{sys.executable}' -c \"$BOTH\" && exec sh '{FILES / 'evaluate.sh'}' \"$@\""
    job.environment["BOTH"] = BOTH
    (world / "data" / "mmlu" / "test").mkdir(parents=True)
    (world / "data" / "mmlu" / "test" / "anatomy_test.csv").write_text("What is it?,one,two,three,four,B\n")
    with (world / "outputs.jsonl").open("a") as file:
        file.write(json.dumps({"id": "anatomy-test-0000", "output": "The correct answer is B."}) + "\n")
    try:
        code = job.run("sh", "-c", script, "sh", "--set", 'mmlu.subjects=["anatomy"]')
        assert code == 0, job.said.read_text()
        assert job.left(), "Ray runs until Slurm ends the job"
        job.end()
        wait_for(lambda: not job.left(), 60)
    finally:
        shutil.rmtree(f"/tmp/harness-{JOB}", ignore_errors=True)
    [path] = world.glob("runs/gsm8k/*/*/samples.jsonl")
    samples = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    once_each(samples)
    assert len(samples) == COUNT and list(world.glob("runs/mmlu/*/*/results.json"))


def test_what_a_job_lacks_is_one_line(job: Job) -> None:
    assert job.run() == 2
    job.environment["PATH"] = f"{job.folder / 'bin'}:/usr/bin:/bin"
    assert job.run("true") == 2
    lines = job.said.read_text().splitlines()
    assert len(lines) == 2 and "give the command" in lines[0] and "activate the environment" in lines[1], lines


def test_a_job_ends_where_ray_does_not_start(job: Job) -> None:
    job.without_ray()
    (job.folder / "fails").touch()
    assert job.run("true") == 2
    assert "Ray does not start on localhost" in job.said.read_text()


def test_a_job_ends_as_its_command_does(job: Job) -> None:
    job.without_ray()
    assert [job.run("sh", "-c", f"exit {code}") for code in (0, 3)] == [0, 3]


def test_a_job_whose_time_is_over_is_queued_again(job: Job) -> None:
    job.without_ray()
    process = job.start("sh", "-c", "touch begun; exec sleep 600")
    wait_for(lambda: (job.folder / "begun").exists())
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) != 0
    assert (job.folder / "requeued").read_text() == f"{JOB}\n"


def test_the_cluster_file_is_one_that_ray_takes(tmp_path: Path) -> None:
    """And its machines know each other by the token: without the mode a worker is refused, or anybody let in."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    text = (FILES / "ray.yaml").read_text("utf-8")
    places = {"<head>": "10.0.0.1", "<worker>": "10.0.0.2", "<user>": "me", "<~/.ssh/id_ed25519>": str(tmp_path)}
    for place, value in places.items():
        assert place in text
        text = text.replace(place, value)
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    [kind] = config["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == 2, "all that are named"
    assert any("RAY_AUTH_MODE=token" in command for command in config["setup_commands"])


def test_the_job_for_kubernetes_gives_a_command_that_there_is() -> None:
    spec = yaml.safe_load((FILES / "rayjob.yaml").read_text("utf-8"))["spec"]
    check_options(spec["entrypoint"])
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
