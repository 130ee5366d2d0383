"""Two hosts, each a network namespace with its own address: one dies, and the training goes on without it.

Skipped where namespaces cannot be made: that takes root, and iproute2.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.test_parallel import curve, train, words_of

PORT = 29517


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two hosts on a wire between them; the n-th has the address 10.77.0.n, counted from 1, and sees nothing else."""
    names = [f"harness-{os.getpid()}-{letter}" for letter in "ab"]
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("network namespaces need root and iproute2")
    try:
        for name in names:
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr}")
    try:
        ip("link", "add", "wire", "netns", names[0], "type", "veth", "peer", "name", "wire", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "wire")
            for device in ("lo", "wire"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            kill_all(name)
            subprocess.run(["ip", "netns", "delete", name], check=False)


def kill_all(host: str) -> None:
    """End a host: all its processes at once."""
    for number in ip("netns", "pids", host).split():
        os.kill(int(number), signal.SIGKILL)


def start(host: str, number: int, words: list[str], said: Path) -> subprocess.Popen[bytes]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-id", "hosts", "--rdzv-endpoint", f"10.77.0.1:{PORT}"]
    # torchrun knows a host by its name, and both have the same.
    own = ["--rdzv-conf", f"is_host={number == 1}", "--local-addr", f"10.77.0.{number}", "-m", "harness"]
    with said.open("wb") as file:
        return subprocess.Popen(
            ["ip", "netns", "exec", host, *torchrun, *meeting, *own, *words],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "wire"},
            stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip


def test_a_training_on_two_hosts_goes_on_with_one(tiny: Path, problems: Path, tmp_path: Path, hosts: list[str]) -> None:
    more = {"sft.epochs": "6"}
    whole = train(1, tiny, problems, tmp_path / "whole", **more)
    assert whole.returncode == 0, whole.stderr[-3000:]
    out = tmp_path / "out"
    words = words_of(tiny, problems, out, **more)
    said = [tmp_path / f"host-{number}" for number in (1, 2)]
    running = [start(host, number, words, said[number - 1]) for number, host in enumerate(hosts, start=1)]
    try:
        while "step 14/" not in said[0].read_text("utf-8"):
            assert running[0].poll() is None, said[0].read_text("utf-8")[-3000:]
        kill_all(hosts[1])
        assert running[0].wait(120) != 0, "the host that is left does not wait for ever"
    finally:
        for host in hosts:
            kill_all(host)
        for process in running:
            process.wait()
    resumed = train(1, tiny, problems, out, **more)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert re.search(r"going on behind step (4|8|12)\b", resumed.stderr), resumed.stderr[-3000:]
    expected = curve(tmp_path / "whole")
    assert [step for step, _ in curve(out)] == [step for step, _ in expected]
    assert [loss for _, loss in curve(out)] == pytest.approx([loss for _, loss in expected], abs=1e-4)
