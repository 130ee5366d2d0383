"""An end to what takes too long, for calls that come by the thousand: a look at the clock each, a system call a second.

A timer of the system sends the process a signal within a second, and again while something is under way. Python takes
notice in the main thread, between any two of its own steps and within patterns of `re`; other code in C is not ended
before it returns. In other threads, and on systems without such timers, nothing is ended.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

from harness import limits

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds from `begin` to the end of it; None for what `limits.SECONDS` says.
PATIENCE: float | None = None

_MAIN = threading.main_thread().ident
_LOOK_EVERY = 1.0

_since: float | None = None
_is_armed = False
_is_ready: bool | None = None
_leaving: set[CodeType] = set()


class TooLong(BaseException):
    """What `begin` began takes too long; nothing that catches Exception catches it."""


def patience() -> float:
    """Return how many seconds that is."""
    return limits.SECONDS.value if PATIENCE is None else PATIENCE


def begin() -> None:
    """Begin what may take `patience()` seconds; after that `TooLong` is raised in it, again and again, until `end`."""
    global _since
    if threading.get_ident() == _MAIN:
        _since = time.monotonic()
        if not _is_armed:
            _arm()


def leaving(function: F) -> F:
    """Have `TooLong` not raised in a function that is about to call `end`; a decorator."""
    _leaving.add(function.__code__)
    return function


@leaving
def end() -> None:
    """Say that it has ended."""
    global _since
    _since = None


def _arm() -> None:
    global _is_armed, _is_ready
    if _is_ready is None:  # SIGALRM may be somebody else's
        _is_ready = hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
        if _is_ready:
            signal.signal(signal.SIGALRM, _look)
            signal.siginterrupt(signal.SIGALRM, False)  # nobody's reading or writing is to fail of it
            os.register_at_fork(after_in_child=_disarmed)
            atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)  # behind that nobody takes the signal
    if _is_ready:
        _is_armed = True
        signal.setitimer(signal.ITIMER_REAL, _LOOK_EVERY)


def _disarmed() -> None:
    global _is_armed
    _is_armed = False


def _look(number: int, frame: FrameType | None) -> None:
    _disarmed()
    if _since is None:
        return
    _arm()
    is_leaving = frame is not None and frame.f_code in _leaving
    if time.monotonic() - _since > patience() and not is_leaving:
        raise TooLong
