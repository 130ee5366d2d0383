"""math-verify in a process of its own, which is ended when it takes too long or too much memory."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
from functools import lru_cache
from importlib.util import find_spec
from typing import Final

#: Seconds for one comparison, and for the process to start.
SECONDS: Final = 5.0
STARTING: Final = 60.0
#: Bytes of memory that the process may take.
MEMORY: Final = 2 * 2**30

_WORKER: Final = """
import json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
except (ImportError, ValueError, OSError):
    pass
from math_verify import parse, verify
print(json.dumps(None), flush=True)
for line in sys.stdin:
    gold, answer = json.loads(line)
    try:
        read = [parse("$" + text + "$", parsing_timeout=None) for text in (gold, answer)]
        result = bool(all(read) and verify(*read, timeout_seconds=None))
    except Exception:
        result = False
    print(json.dumps(result), flush=True)
"""


class _Process:
    """The process, started when it is first needed and again after it had to be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, gold: str, answer: str) -> bool | None:
        """Return whether the two are equal, None where that takes too long."""
        with self._lock:
            process = self._process or self._start()
            if process is None or process.stdin is None:
                return None
            try:
                process.stdin.write(json.dumps([gold, answer]) + "\n")
                process.stdin.flush()
            except OSError:
                self.end()
                return None
            return self._reply(process, SECONDS)

    def _start(self) -> subprocess.Popen[str] | None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(MEMORY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        atexit.register(self.end)
        self._reply(self._process, STARTING)
        return self._process

    def _reply(self, process: subprocess.Popen[str], seconds: float) -> bool | None:
        """Return the next line of the process; without one in time the process is ended."""
        alarm = threading.Timer(seconds, process.kill)
        alarm.start()
        try:
            line = process.stdout.readline() if process.stdout else ""
        finally:
            alarm.cancel()
        if not line:
            self.end()
            return None
        return json.loads(line) is True

    def end(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


_PROCESS: Final = _Process()


@lru_cache(maxsize=4096)
def verified(answer: str, gold: str) -> bool | None:
    """Tell whether math-verify finds an answer equal to the gold; None where it is not installed or takes too long."""
    if find_spec("math_verify") is None:
        return None
    return _PROCESS.ask(gold, answer)
