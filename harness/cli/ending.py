"""``os._exit`` as plugins call it: an end without a word, with a code that may be a lie, becomes one that is told."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import NoReturn

#: Ends the process at once.
end_now = os._exit

#: What calls plugins, and imports them: it names the plugin in what is raised within.
_CALLERS = ("harness.calls", "harness.registry")


def tell_of_exits() -> None:
    """From here on, have ``os._exit`` in this process raise SystemExit in a plugin's call, and be told elsewhere.

    Its forks end as they like.
    """
    own = os.getpid()

    def ended(status: int) -> NoReturn:
        if os.getpid() != own:
            end_now(status)
        caller = sys._getframe(1)
        if _in_plugin(caller):
            raise SystemExit(f"os._exit({status})")
        place = f"{os.path.basename(caller.f_code.co_filename)}, line {caller.f_lineno}"
        os.write(2, f"harness: something has ended the process at once: os._exit({status}) ({place})\n".encode())
        end_now(status or 1)

    os._exit = ended


def _in_plugin(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") in _CALLERS:
            return True
        frame = frame.f_back
    return False
