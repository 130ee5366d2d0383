"""All checks of a plugin in a process of their own, so that one that crashes or hangs is one line and no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Timer
from typing import Any, Literal
from unittest import SkipTest

from harness.testing.conformance import Check, Subject, checks
from harness.testing.conformance.fresh_process import as_json

#: A check that takes longer has failed.
_SECONDS = 900.0

_PROGRAM = (
    "import json, sys; given = json.load(sys.stdin); sys.path[:] = given['path'];"
    "from harness.testing.conformance.isolated import answer; answer(**given)"
)


@dataclass(frozen=True)
class Outcome:
    """What became of a check; `why` is the sentence of one that failed or was skipped."""

    check: str
    status: Literal["ok", "failed", "skipped"]
    why: str = ""


def run_isolated(subject: Subject, disabled: Collection[str] = (), seconds: float = _SECONDS) -> Iterator[Outcome]:
    """Yield what becomes of each check of `subject` as it ends.

    `disabled` are the plugins to leave out, as for `harness.registry.Registry`. A process that dies, or takes more than
    so many seconds over one check, fails that check; the others are tried in a new one. Where the plugin does not load,
    all others are skipped.
    """
    left = list(checks(subject.kind))
    first = left[0]
    while left:
        for outcome in _outcomes(subject, left, disabled, seconds):
            yield outcome
            if outcome.check == first.name and outcome.status == "failed":
                yield from (Outcome(check.name, "skipped", "it does not load") for check in left[1:])
                return
            left = left[1:]


def _outcomes(
    subject: Subject, wanted: Sequence[Check], disabled: Collection[str], seconds: float
) -> Iterator[Outcome]:
    """Yield the outcomes of the checks `wanted`, up to the first that ends the process: at least one."""
    given = {"path": sys.path, "subject": as_json(subject), "wanted": [check.name for check in wanted]}
    disabled = (*disabled, os.environ.get("HARNESS_DISABLE_PLUGINS", ""))
    environment = {**os.environ, "HARNESS_DISABLE_PLUGINS": ",".join(disabled)}
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    late: list[bool] = []

    def stop() -> None:
        late.append(True)
        _kill(process)

    done = 0
    try:
        with process.stdout, process.stdin:
            process.stdin.write(json.dumps(given).encode())
            process.stdin.close()
            while done < len(wanted):
                timer = Timer(seconds, stop)
                timer.start()
                line = process.stdout.readline()
                timer.cancel()
                if not line.endswith(b"\n"):
                    break
                yield Outcome(wanted[done].name, *json.loads(line))
                done += 1
        _kill(process)
        code = process.wait()
        if done < len(wanted):
            yield Outcome(wanted[done].name, "failed", f"it takes more than {seconds:g} s" if late else _died(code))
    finally:
        _kill(process)
        process.wait()


def answer(path: list[str], subject: dict[str, Any], wanted: list[str]) -> None:
    """Do the checks `wanted` and write a line of JSON for each; runs in the new process, whose sys.path is `path`."""
    lines = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a plugin prints is not mistaken for a line
    checked = Subject(**subject)
    for check in checks(checked.kind):
        if check.name in wanted:
            lines.write(json.dumps(_outcome(check, checked)) + "\n")
            lines.flush()


def _outcome(check: Check, subject: Subject) -> tuple[str, str]:
    try:
        check(subject)
    except SkipTest as skipped:
        return "skipped", _one_line(skipped)
    except AssertionError as failed:
        return "failed", _one_line(failed)
    except SystemExit as error:
        return "failed", f"it ends the process (exit code {error.code})"
    return "ok", ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _died(code: int) -> str:
    """Say how a process ended; `code` is that of Popen."""
    if code < 0:
        return f"the process died of {signal.Signals(-code).name}"
    return f"the process ended in the middle of it (exit code {code})"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
