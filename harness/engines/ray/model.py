"""The loaded model: hands requests to replicas as they have room, and gives on completions as they come, each once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from harness.engines.ray.backlog import Backlog
from harness.engines.ray.fleet import Fleet
from harness.engines.ray.messages import Failed, News, Unanswered
from harness.engines.ray.options import RayOptions
from harness.engines.ray.replica import Asked, Lost, Replica
from harness.errors import ModelError
from harness.interfaces import Engine
from harness.types import Completion, Request

#: Seconds between looks at the replicas, while nothing arrives from them.
_LOOK = 0.5


class RayModel:
    """A model in replicas; it stays loaded for all calls of `generate` until it is closed."""

    def __init__(self, engine: RayOptions, inner: Engine, model: str) -> None:
        self._fleet: Fleet | None = Fleet(engine, inner, model)
        self._epoch = 0
        self._generating = False
        self._apart: Replica | None = None  # is asked what may take a replica with it, and nothing else
        self._odd = 0

    @property
    def notices(self) -> list[str]:
        """What became of replicas, for the record of the run."""
        if self._fleet is None:
            return []
        odd = f"{self._odd} completions were dropped: their ids had been answered before, or were never asked"
        return [*self._fleet.notices, *([odd] if self._odd else [])]

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield one completion for each request, as they come.

        A request that was in the way of two replicas' loss alone gives one with `error`. Raises ModelError where no
        replica is left and none can be started.
        """
        if self._fleet is None:
            raise ModelError("this model has been closed: load it again")
        if self._generating:
            raise RuntimeError("generate is still running: exhaust or close its iterator first")
        self._generating = True
        self._epoch += 1
        try:
            yield from self._run(self._fleet, Backlog(requests))
        finally:
            self._generating = False
            self._apart = None
            for replica in self._fleet.ready if self._fleet is not None else ():
                if replica.in_flight:
                    replica.abort(self._epoch + 1)

    def close(self) -> None:
        """Free what the replicas hold; a Ray that was started for them ends with the last of its models."""
        if self._fleet is not None:
            self._fleet.close()
            self._fleet = None

    def _run(self, fleet: Fleet, backlog: Backlog) -> Iterator[Completion]:
        looked_at = 0.0
        while True:
            if (now := time.monotonic()) - looked_at > _LOOK:
                looked_at = now
                for replica, cause in fleet.look(timeout=0):
                    yield from self._lose(fleet, backlog, replica, cause)
                fleet.keep_up()
            given = self._refill(fleet, backlog)
            if not backlog.more and not backlog.suspects and not any(each.in_flight for each in fleet.replicas):
                return
            yield from self._arrived(fleet, backlog, 0 if given else _LOOK)

    def _refill(self, fleet: Fleet, backlog: Backlog) -> bool:
        """Give the replicas what they have room for; return whether there was something to give."""
        ready = fleet.ready
        if backlog.suspects and ready:
            if self._apart not in ready:
                self._apart = min(ready, key=lambda each: len(each.in_flight))
            if self._apart is not None and not self._apart.in_flight:
                self._apart.submit(self._epoch, backlog.group(self._apart.room))
        elif self._apart is not None and not self._apart.in_flight:
            self._apart = None
        open_ = [each for each in ready if each is not self._apart]
        if not backlog.more or not any(each.free >= each.portion for each in open_):
            return False
        shares = backlog.shares([each.free for each in open_])
        for replica, share in zip(open_, shares, strict=True):
            if share:
                replica.submit(self._epoch, share)
        return any(shares)

    def _arrived(self, fleet: Fleet, backlog: Backlog, timeout: float) -> Iterator[Completion]:
        """Yield what has come, of each replica a message."""
        import ray

        waited_for = {each.waited_for: each for each in fleet.replicas}
        if not waited_for:
            time.sleep(timeout)
            return
        found, _ = ray.wait([*waited_for], num_returns=1, timeout=timeout, fetch_local=False)
        if found and len(waited_for) > 1:  # what else is there
            found, _ = ray.wait([*waited_for], num_returns=len(waited_for), timeout=0, fetch_local=False)
        for each in found:
            replica = waited_for[each]
            if replica.state != "ready":
                for gone, cause in fleet.look(timeout=0):
                    yield from self._lose(fleet, backlog, gone, cause)
                continue
            try:
                for epoch, news in replica.news():
                    yield from self._told(fleet, backlog, replica, epoch, news)
            except Lost as lost:
                yield from self._lose(fleet, backlog, replica, str(lost))

    def _told(self, fleet: Fleet, backlog: Backlog, replica: Replica, epoch: int, news: News) -> Iterator[Completion]:
        """Yield the completion that a replica gives, if it has been asked for it and has not given it before."""
        if isinstance(news, Failed):
            if news.error is not None:
                raise news.error
            raise Lost(news.message)
        if epoch != self._epoch:
            return
        asked = replica.in_flight.pop(news.id, None)
        if isinstance(news, Unanswered):
            for each in backlog.unanswered(asked) if asked is not None else ():
                yield _failure(each, "the engine ended without a completion for it, twice")
        elif asked is None:
            self._odd += 1
        else:
            replica.heard = time.monotonic()
            fleet.progressed()
            yield news

    def _lose(self, fleet: Fleet, backlog: Backlog, replica: Replica, cause: str) -> Iterator[Completion]:
        if self._apart is replica:
            self._apart = None
        for each in backlog.give_back(fleet.lost(replica, cause)):
            yield _failure(each, f"each replica that was asked this alone was lost: {cause}")


def _failure(asked: Asked, error: str) -> Completion:
    return Completion(asked.request.id, "", None, error=error)
