"""A connection to the server of `harness view`, which is closed where it only takes up room.

uvicorn closes one that is idle behind an answer, but waits for ever for the first request, for the end of one that
comes byte by byte, and for a reader that does not read.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: In seconds: how long a connection may ask for nothing, and how long an answer may go on without a byte being taken.
WAITING, TAKING = 10.0, 30.0

#: So many connections are open at a time; a further one takes the place of that which has waited longest.
MOST = 500


class Connection(H11Protocol):
    """A connection that ends when it has asked for nothing, or taken nothing of its answer, for long."""

    _later: asyncio.TimerHandle

    def connection_made(self, transport: Any) -> None:
        """Begin to watch, and make room."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._unsent = 0
        self._later = self.loop.call_later(min(WAITING, 1.0), self._look)
        if len(self.connections) > MOST:
            waiting = [each for each in self.connections if isinstance(each, Connection) and each._waits()]
            longest = min(waiting, key=lambda each: each._since)  # itself, if all others are being answered
            self.connections.discard(longest)
            longest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        self._later.cancel()
        super().connection_lost(exc)

    def _waits(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _look(self) -> None:
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if not self._waits() and (not unsent or unsent < self._unsent):
            self._since = now
        self._unsent = unsent
        if now - self._since > (WAITING if self._waits() else TAKING):
            self.transport.abort()
        else:
            self._later = self.loop.call_later(min(WAITING, 1.0), self._look)
