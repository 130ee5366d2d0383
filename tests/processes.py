"""Commands of harness in processes of their own that need not import torch and transformers first.

That takes a process longer than most of what the tests then ask of it. Python's own fork server imports them once; each
process is a fork of it, with its own working folder, environment and files for what it says, that may be sent signals.
Where there is a GPU it imports nothing: some of them look at it, and a fork of what has looked can use it no more.
Several ranks find each other by the variables that torchrun sets.
"""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NoReturn

from harness.cli.ending import end_now

IMPORTED = [
    "torch", "torch.distributed.fsdp", "torch.distributed.checkpoint", "torch.distributed.checkpoint.hf_storage",
    "transformers.models.llama.modeling_llama", "transformers.integrations.finegrained_fp8",
    "transformers.loss.loss_utils", "transformers.generation.utils", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "harness.cli", "harness.training.loop", "harness_dpo.trainer",
    "harness_sft.trainer", "tests.frozen",
]  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended: the first rank's exit code that is not 0, and what all of them said."""

    returncode: int
    stdout: str
    stderr: str


class Processes:
    """A command that has been started, on one or several ranks."""

    def __init__(self, processes: list[ForkServerProcess], said: Path) -> None:
        self.pids = [process.pid or 0 for process in processes]
        self._processes, self._said = processes, said

    def running(self) -> bool:
        """Return whether all ranks run."""
        return all(process.is_alive() for process in self._processes)

    def stderr(self) -> str:
        """Return what has been said so far."""
        return self._said.with_suffix(".err").read_text("utf-8")

    def ended(self, seconds: float = 300) -> Ended:
        """Wait for all ranks; TimeoutError, and no rank left, if one has not ended in time."""
        until = time.monotonic() + seconds
        for process in self._processes:
            process.join(max(0.0, until - time.monotonic()))
        late = [process for process in self._processes if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
        if late:
            raise TimeoutError(self.stderr())
        codes = [process.exitcode or 0 for process in self._processes]
        text = self._said.with_suffix(".out").read_text("utf-8")
        return Ended(next((code for code in codes if code), 0), text, self.stderr())


def start(
    words: Sequence[str | Path],
    said: Path,
    *,
    ranks: int = 1,
    environment: Mapping[str, str] | None = None,
    script: str = "from harness.cli import main; main()",
) -> Processes:
    """Start ``harness WORDS``, or a `script` with these arguments, in `ranks` processes; `said` names two new files."""
    context = multiprocessing.get_context("forkserver")
    _serve()
    variables = {**os.environ, **(environment or {}), "OMP_NUM_THREADS": "1"}
    if ranks > 1:
        variables |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
        variables["MASTER_PORT"] = str(_free_port())
    for suffix in (".out", ".err"):
        said.with_suffix(suffix).write_bytes(b"")
    started = []
    for rank in range(ranks):
        own = {**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else variables
        process = context.Process(target=_command, args=(script, [*map(str, words)], own, str(said), os.getcwd()))
        process.start()
        started.append(process)
    return Processes(started, said)


def run(words: Sequence[str | Path], said: Path, *, ranks: int = 1, seconds: float = 300) -> Ended:
    """Run ``harness WORDS`` in `ranks` processes to its end."""
    return start(words, said, ranks=ranks).ended(seconds)


def _serve() -> None:
    """Start the fork server where it does not run yet: torch reads its number of threads when it is imported."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        multiprocessing.get_context("forkserver").set_forkserver_preload([] if _has_gpu() else IMPORTED)
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:  # the wheel is tested without
        return False
    return torch.cuda.is_available()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _command(script: str, words: list[str], variables: dict[str, str], said: str, folder: str) -> NoReturn:
    """Be the process of a command, and end as it does."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for number, suffix in ((1, ".out"), (2, ".err")):
        file = os.open(said + suffix, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    faulthandler.enable()  # a crash says where it was
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["harness", *words]
    code = 0
    try:
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    end_now(code)
