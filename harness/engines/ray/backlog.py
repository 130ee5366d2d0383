"""What is still to be asked, and how a request is found that takes replicas with it.

When a replica is lost, all that it had may be the reason. They go to others as before; what has been in two losses is
asked apart from the rest, in ever smaller groups, and in the end alone. Only a request that has been in two losses
alone fails: one poisonous prompt takes no other with it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapreplace, nsmallest

from harness.engines.ray.replica import Asked
from harness.types import Request

#: Seconds for which requests are gathered into one message, and how many at most.
_GATHER, _MOST = 0.02, 256

#: How many replicas get a share of what is gathered, so that of many none is sent each request by itself.
_SHARES = 16

#: Losses from which on a request is asked apart, and how many of its kind at most are asked with it, by its losses.
APART = 2
_TOGETHER = {2: 64, 3: 8}

#: Losses alone with which a request fails.
_ALONE = 2


class Backlog:
    """The requests of one call: those not yet taken from their source, and those that a lost replica had."""

    def __init__(self, requests: Iterable[Request], clock: Callable[[], float] = time.monotonic) -> None:
        self._source: Iterator[Request] | None = iter(requests)
        self._again: deque[Asked] = deque()
        self._apart: list[Asked] = []
        self._clock = clock

    @property
    def more(self) -> bool:
        """Whether there may be requests that anybody can be asked."""
        return self._source is not None or bool(self._again)

    @property
    def suspects(self) -> bool:
        """Whether there are requests that are to be asked apart."""
        return bool(self._apart)

    def take(self, most: int) -> list[Asked]:
        """Return up to `most` requests, of those that can be had in a moment."""
        taken: list[Asked] = []
        deadline = self._clock() + _GATHER
        while len(taken) < min(most, _MOST):
            if self._again:
                taken.append(self._again.popleft())
            elif self._source is None or (taken and self._clock() > deadline):
                break
            elif (request := next(self._source, None)) is None:
                self._source = None
            else:
                taken.append(Asked(request))
        return taken

    def shares(self, free: Sequence[int]) -> list[list[Asked]]:
        """Take requests and return what each replica gets, given how many more each may have: one by one, where most is
        free, so that all have about as much to do and none is still busy when the others are done.

        >>> backlog = Backlog(map(str, range(9)))
        >>> [len(share) for share in backlog.shares([10, 10, 4])]
        [5, 4, 0]
        """
        shares: list[list[Asked]] = [[] for _ in free]
        places = nsmallest(_SHARES, ((-count, place) for place, count in enumerate(free)))  # in order, which is a heap
        for asked in self.take(-sum(count for count, _ in places)):
            count, place = places[0]
            heapreplace(places, (count + 1, place))
            shares[place].append(asked)
        return shares

    def group(self, room: int) -> list[Asked]:
        """Return requests that are to be asked together, and with nothing else: those with the fewest losses."""
        self._apart.sort(key=lambda asked: asked.losses)
        losses = self._apart[0].losses
        most = min(room, _TOGETHER.get(losses, 1))
        count = next((n for n, each in enumerate(self._apart) if each.losses != losses), len(self._apart))
        taken, self._apart = self._apart[: min(most, count)], self._apart[min(most, count) :]
        return taken

    def give_back(self, had: Iterable[Asked]) -> list[Asked]:
        """Take back what a lost replica had; return those that have failed with it."""
        given = list(had)
        failed = []
        for asked in given:
            asked.losses += 1
            asked.alone += len(given) == 1
            if asked.alone >= _ALONE:
                failed.append(asked)
            elif asked.losses >= APART:
                self._apart.append(asked)
            else:
                self._again.append(asked)
        return failed

    def unanswered(self, asked: Asked) -> list[Asked]:
        """Take back what an engine left unanswered, which is asked apart from now on; return it if it has failed."""
        asked.losses = max(asked.losses + 1, APART)
        asked.alone += 1
        if asked.alone >= _ALONE:
            return [asked]
        self._apart.append(asked)
        return []
