"""The replicas together: they start at the same time, are replaced when they are lost, and grow with the cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.engines.ray.cluster import Need, free, join, leave, nodes
from harness.engines.ray.messages import Order
from harness.engines.ray.options import RayOptions
from harness.engines.ray.replica import Asked, Lost, Replica
from harness.engines.ray.versions import difference, own_versions
from harness.errors import ModelError
from harness.interfaces import Engine
from harness.registry import IN_MEMORY, origin

#: Seconds that replicas may take to find a place after the first has found one, before the work begins without them.
_GRACE = 10.0

#: Seconds between looks at what is late, and at whether the cluster has grown.
_LOOK, _GROW = 0.5, 5.0

#: Losses and failed starts in a row, without one completion between them, that end the work.
_MOST_FAILURES = 10

#: Failed starts in a row with which no more are tried.
_MOST_STARTS = 3

#: Seconds before another start behind one that has failed; they double.
_DELAY, _MOST_DELAY = 2.0, 60.0

#: Seconds that replicas get to free what they hold.
_CLOSING = 45.0

#: How many notices a run keeps.
_MOST_NOTICES = 50


class Fleet:
    """All replicas of a model, and what there is to tell of them (`notices`)."""

    def __init__(self, engine: RayOptions, inner: Engine, model: str) -> None:
        self.notices: list[str] = []
        self.replicas: list[Replica] = []
        self._engine, self._model = engine, model
        self._own = join(
            engine.address, engine.runtime_env, engine.replicas if isinstance(engine.replicas, int) else None
        )
        self._joined = True
        try:
            found = origin(inner)
            self._distributions = () if found is None or found.distribution == IN_MEMORY else (found.distribution,)
            there = Path(model).expanduser()
            named = str(there.resolve()) if there.exists() else model  # a worker has a working folder of its own
            self._order = _pickled(Order(inner, named, dict(inner.identity(model))))
            self._need = _need(engine, inner, self._own)
            self._numbers = self._failures = self._failed_starts = 0
            self._again_at = self._looked_at = self._grown_at = 0.0
            self._last = ""
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def ready(self) -> list[Replica]:
        """The replicas that can be asked."""
        return [each for each in self.replicas if each.state == "ready"]

    def _target(self) -> int:
        if isinstance(self._engine.replicas, int):
            return self._engine.replicas
        return sum(self._need.fits(node) for node in nodes())

    def _start(self) -> None:
        """Start all, and wait for those that find a place."""
        target = self._target()
        if target == 0 or (self._own and not any(self._need.fits(node) for node in nodes())):
            if self._own:
                raise ModelError(self._no_place())
            target = max(1, target)
        self._spawn(target)
        begun = time.monotonic()
        placed_at: float | None = None
        while True:
            for replica, cause in self.look(timeout=_LOOK):
                self.drop(replica)
                self._tell(f"{replica} cannot start: {cause}")
            states = [each.state for each in self.replicas]
            now = time.monotonic()
            if placed_at is None and ("loading" in states or "ready" in states):
                placed_at = now
            waiting = "placing" in states and now - (placed_at or now) < _GRACE
            if not states:
                raise ModelError(self._none(f"{self._last}{self._alike(target)}"))
            if "ready" in states and "loading" not in states and not waiting:
                break
            if placed_at is None and now - begun > self._engine.start_timeout:
                raise ModelError(self._no_place(f" for {self._engine.start_timeout:g} s"))
        if missing := target - len(self.ready):
            self._tell(f"{missing} of {target} replicas have no place yet ({self._there()}); they join when they have")

    def _alike(self, target: int) -> str:
        return f" (all {target} failed)" if target > 1 else ""

    def _spawn(self, count: int) -> None:
        for _ in range(count):
            self._numbers += 1
            self.replicas.append(Replica(self._numbers, self._need, self._order, self._distributions))

    def look(self, timeout: float) -> Iterator[tuple[Replica, str]]:
        """Let those go on that are not ready yet; yield those that are lost or late, each with the cause."""
        import ray

        pending = {each.pending: each for each in self.replicas if each.pending is not None}
        if pending:
            for ref in ray.wait([*pending], num_returns=len(pending), timeout=timeout)[0]:
                try:
                    pending[ref].step()
                    self._check(pending[ref])
                except Lost as lost:
                    self._failed_starts += 1
                    self._again_at = time.monotonic() + min(_DELAY * 2**self._failed_starts, _MOST_DELAY)
                    yield pending[ref], self._noted(str(lost))
                else:
                    if pending[ref].state == "ready":
                        self._failed_starts = 0
        late = time.monotonic() - self._engine.timeout
        for replica in [*self.replicas]:
            if replica.state == "loading" and replica.heard < late:
                yield replica, self._noted(f"it has not loaded in {self._engine.timeout:g} s (ray.timeout)")
            elif replica.state == "ready" and replica.in_flight and replica.heard < late:
                yield replica, self._noted(f"it has given no completion for {self._engine.timeout:g} s (ray.timeout)")

    def keep_up(self) -> None:
        """Start what is missing: in the place of those that are lost, and on nodes that have joined."""
        now = time.monotonic()
        if now < self._again_at:
            return
        if len(self.replicas) >= self._numbers_wanted(now):
            return
        if self._failed_starts >= _MOST_STARTS:
            if not self.replicas:
                raise ModelError(self._none(self._last))
            return
        self._spawn(self._numbers_wanted(now) - len(self.replicas))

    def _numbers_wanted(self, now: float) -> int:
        if isinstance(self._engine.replicas, int):
            return self._engine.replicas
        if now - self._grown_at > _GROW or not self.replicas:
            self._grown_at, self._wanted = now, self._target()
        return self._wanted

    def lost(self, replica: Replica, cause: str) -> list[Asked]:
        """Drop a replica that is gone; return what it had. ModelError where one loss follows the other."""
        had = list(replica.in_flight.values())
        self.drop(replica)
        self._noted(cause)
        kept = f"; its {len(had)} requests go to others" if had else ""
        self._tell(f"{replica} is lost: {cause}{kept}")
        self._failures += 1
        if self._failures >= _MOST_FAILURES:
            many = f"{self._failures} replicas were lost one after the other without a completion"
            raise ModelError(f"{many}, the last because: {cause}")
        return had

    def progressed(self) -> None:
        """Say that a completion has come."""
        self._failures = 0

    def drop(self, replica: Replica) -> None:
        """End a replica, and forget it."""
        replica.in_flight.clear()
        replica.kill()
        if replica in self.replicas:
            self.replicas.remove(replica)

    def close(self) -> None:
        """End all replicas, each having freed what it holds, and let go of the cluster; safe to call twice."""
        if not self._joined:
            return
        self._joined = False
        import ray

        if ray.is_initialized():
            closing = [each.closing() for each in self.ready]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=_CLOSING)
        for replica in [*self.replicas]:
            self.drop(replica)
        leave()

    def _check(self, replica: Replica) -> None:
        """Raise Lost where what is installed beside the replica is not what there is here, and beside the others."""
        if replica.state != "loading" or replica.hello is None:
            return
        theirs = replica.hello
        ours = own_versions(self._distributions)
        found = difference(str(replica), theirs.versions, ours, "this machine")
        others = [each for each in self.replicas if each is not replica and each.hello is not None]
        if found is None and others:
            first = others[0]
            assert first.hello is not None
            found = difference(str(replica), theirs.libraries, first.hello.libraries, str(first))
        if found is not None:
            raise Lost(found)

    def _noted(self, cause: str) -> str:
        self._last = cause
        return cause

    def _tell(self, notice: str) -> None:
        if len(self.notices) < _MOST_NOTICES:
            self.notices.append(notice)

    def _there(self) -> str:
        there = nodes()
        told = ", ".join(map(str, there[:4])) + (f" and {len(there) - 4} more" if len(there) > 4 else "")
        left = free()
        are = "is" if len(there) == 1 else "are"
        return f"there {are} {told or 'no machine'}; free: {left.cpus:g} CPUs, {left.gpus:g} GPUs"

    def _none(self, cause: str) -> str:
        return f"no replica can start: {cause}; each asks for {self._need}, and {self._there()}"

    def _no_place(self, waited: str = "") -> str:
        remedy = "lower ray.gpus, ray.cpus or the engine's tensor_parallel_size, or give a larger cluster's ray.address"
        return f"no replica has found a place{waited}: each asks for {self._need}, and {self._there()}; {remedy}"


def _pickled(order: Order) -> bytes:
    """Return an order as bytes; classes that stand in no module of a distribution are told whole."""
    from ray import cloudpickle

    dumps: Any = cloudpickle.dumps
    return bytes(dumps(tuple(order)))


def _need(engine: RayOptions, inner: Engine, own: bool) -> Need:
    """Return what Ray is to reserve. On a machine of one's own cores are shared, however many replicas there are."""
    gpus: Any = engine.gpus
    if gpus is None:
        gpus = getattr(inner, "accelerators", 0)
    if gpus is None:  # one where there are any
        gpus = int(any(node.gpus for node in nodes()))
    return Need(0.0 if own else engine.cpus, float(gpus))
