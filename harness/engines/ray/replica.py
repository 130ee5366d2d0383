"""A replica as the driver sees it: its place, its loading, what it has been asked, and what it tells."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from harness.engines.ray.cluster import Need
from harness.engines.ray.messages import Failed, Hello, Loaded, News, packed
from harness.engines.ray.worker import Worker
from harness.errors import first_line
from harness.types import Request

#: Seconds that a message of a living worker may take to come.
_FETCH = 60.0


@dataclass(slots=True)
class Asked:
    """A request on its way: in how many losses of a replica it was with it, and in how many alone."""

    request: Request
    losses: int = 0
    alone: int = 0


class Lost(Exception):
    """The replica is gone, or of no use any more; the message says why, on one line."""


class Replica:
    """An actor, from its place in the cluster to its end.

    `state` is ``placing`` until Ray has found a place for it, ``loading`` until the model is there, then ``ready``.
    """

    def __init__(self, number: int, need: Need, order: bytes, distributions: tuple[str, ...]) -> None:
        self.number = number
        self.node = ""
        self.hello: Hello | None = None
        self.room = 0
        self.in_flight: dict[str, Asked] = {}
        self.heard = time.monotonic()  # when it last gave a completion, or was idle
        self.state: Literal["placing", "loading", "ready"] = "placing"
        self._order = order
        self._group = _reserved(need)
        self._actor = _actor_class().options(**_place(need, self._group)).remote()
        self._stream: Any = None
        self.pending: Any = self._actor.hello.remote(distributions)

    def __str__(self) -> str:
        return f"replica {self.number}{f' on {self.node}' if self.node else ''}"

    @property
    def waited_for(self) -> Any:
        """What Ray is to wait for: something is to be read when it is ready."""
        return self.pending if self.pending is not None else self._stream

    @property
    def free(self) -> int:
        """How many more requests it may be given."""
        return self.room - len(self.in_flight)

    @property
    def portion(self) -> int:
        """How much room it must have for it, and others with it, to be given more."""
        return max(1, self.room // 8)

    def step(self) -> None:
        """Read what it was waited for while it was not ready: its first words, or that it has loaded."""
        import ray

        try:
            told = ray.get(self.pending, timeout=_FETCH)
        except ray.exceptions.RayError as error:
            raise Lost(_cause(error)) from error
        except ray.exceptions.GetTimeoutError as error:
            raise Lost("its first words do not arrive") from error
        self.heard = time.monotonic()
        if isinstance(told, Failed):
            if told.error is not None:
                raise told.error
            raise Lost(told.message)
        if isinstance(told, Hello):
            self.hello, self.node, self.state = told, told.node, "loading"
            self.pending = self._actor.load.remote(self._order)
        else:
            assert isinstance(told, Loaded)
            self.room, self.state, self.pending = told.room, "ready", None
            self._stream = self._actor.results.remote()

    def submit(self, epoch: int, asked: Sequence[Asked]) -> None:
        """Send it requests; that it is gone is told by what is read next."""
        if not self.in_flight:
            self.heard = time.monotonic()
        self.in_flight.update((each.request.id, each) for each in asked)
        for content in packed([each.request for each in asked]):
            self._actor.submit.remote(epoch, content)

    def abort(self, epoch: int) -> None:
        """Have it drop what is on its way, and be ready for the call `epoch`."""
        self.in_flight.clear()
        self._actor.abort.remote(epoch)

    def news(self) -> Iterator[tuple[int, News]]:
        """Yield what it has told since; Lost where it is gone."""
        import ray

        try:
            message = ray.get(next(self._stream), timeout=_FETCH)
        except StopIteration as error:
            raise Lost("it has ended") from error
        except ray.exceptions.RayError as error:
            raise Lost(_cause(error)) from error
        yield from pickle.loads(message)  # noqa: S301 - our own worker's, over Ray's own channel

    def closing(self) -> Any:
        """Have it free what it holds; return what to wait for."""
        return self._actor.close.remote()

    def process(self) -> int:
        """Return the number of its process, on its machine."""
        import ray

        return int(ray.get(self._actor.process.remote(), timeout=_FETCH))

    def kill(self) -> None:
        """End it, and give its place back; safe to call twice."""
        import ray

        with suppress(Exception):  # it is gone already
            ray.kill(self._actor)
        if self._group is not None:
            with suppress(Exception):
                ray.util.remove_placement_group(self._group)
            self._group = None


@cache
def _actor_class() -> Any:
    import ray

    remote: Any = ray.remote  # its types do not know all options
    # Threads: `submit` and `abort` go on beside the one stream of results.
    return remote(max_restarts=0, max_task_retries=0, max_concurrency=4)(Worker)


def _reserved(need: Need) -> Any:
    """Return a place of several GPUs on one machine, reserved as a whole; None where Ray needs no group for that."""
    if need.gpus <= 1:
        return None
    from ray.util.placement_group import placement_group

    return placement_group([{"GPU": need.gpus, **({"CPU": need.cpus} if need.cpus else {})}], strategy="STRICT_PACK")


def _place(need: Need, group: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"num_cpus": need.cpus, "num_gpus": need.gpus}
    if group is not None:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        asked |= {"scheduling_strategy": PlacementGroupSchedulingStrategy(group)}
    elif not need.gpus:
        asked |= {"scheduling_strategy": "SPREAD"}
    return asked


def _cause(error: Exception) -> str:
    """Return in one line why an actor is gone, out of the many that Ray says."""
    text = str(error)
    if "ModuleNotFoundError" in text or "ImportError" in text:
        line = next((each for each in text.splitlines() if "No module named" in each or "ImportError" in each), "")
        return f"{line.strip()}; install posttrain-harness there, or send it along with ray.runtime_env"
    for sign, said in _SIGNS.items():
        if sign in text:
            return said
    return f"{type(error).__name__}: {first_line(error)}"


#: What stands in Ray's account of an actor's end → the same in a few words.
_SIGNS = {
    "OutOfMemory": "its machine has run out of memory",
    "node that actor was placed on has died": "its machine is gone",
    "node has died": "its machine is gone",
    "node was terminated": "its machine is gone",
    "worker process has died": "its process has died",
    "worker is dead": "its process has died",
    "process exit": "its process has died",
    "actor is dead": "its process has died",
    "temporarily unavailable": "it cannot be reached",
}
