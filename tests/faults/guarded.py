"""A command in a fork of this process that may take so much time and memory, and its end told apart from a fault.

The fork has imported already what commands import, so that thousands of them go quickly, and each begins anew.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from harness.cli.ending import end_now

#: Bytes that a command may take beside what is imported, and seconds.
MEMORY, SECONDS = 1 << 30, 60.0

#: A command may write files of so many bytes.
_FILE = 2 << 30


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, less than 0 for a signal, None where it had to be ended."""

    code: int | None
    out: str
    err: str

    def problem(self, ends: Sequence[int] = (0, 1, 2)) -> str | None:
        """Return what is wrong with this end, or None: a refusal is one line."""
        lines = self.err.splitlines()
        last = lines[-1] if lines else ""
        if self.code is None:
            return f"no end within {SECONDS:g} s"
        if self.code not in ends or "Traceback" in self.err or "internal error" in self.err:
            return f"ended with {self.code}: {last}"
        said = [line for line in lines if line.startswith(("harness: ", "Error: "))]
        if self.code == 2 and len(said) != 1 and not any(line.startswith("Usage:") for line in lines):
            return f"ended with 2 and {len(said)} lines: {last}"
        return None


def guarded(
    words: Sequence[str],
    folder: Path,
    said: Path,
    *,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    prepare: Callable[[], object] = lambda: None,
    said_to_it: str = "",
) -> Outcome:
    """Run ``harness WORDS`` in `folder`, in its process after `prepare`; it speaks by two files beside `said`."""
    files = [said.with_suffix(suffix) for suffix in (".out", ".err")]
    child = os.fork()
    if child == 0:
        said.with_suffix(".in").write_text(said_to_it)
        _command(words, folder, [said.with_suffix(".in"), *files], memory, prepare)
    watched = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        late = not poll.poll(1000 * seconds)
        if late:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(watched)
    out, err = (path.read_bytes()[: 1 << 20].decode("utf-8", "replace") for path in files)
    return Outcome(None if late else os.waitstatus_to_exitcode(status), out, err)


def _command(
    words: Sequence[str], folder: Path, files: Sequence[Path], memory: int, prepare: Callable[[], object]
) -> NoReturn:
    code = 99
    try:
        os.chdir(folder)
        for number, path in enumerate(files):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND if number else os.O_RDONLY
            os.dup2(os.open(path, flags, 0o600), number)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8") for number, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE, _FILE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["harness", *words]
        prepare()
        from harness.cli import main

        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            end_now(code)
