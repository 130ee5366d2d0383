"""One replica: an actor that holds a loaded model, takes requests, and tells completions as they finish.

Three calls go on beside each other: `submit` puts requests into a queue, a thread of our own has the engine answer
them, and `results` is one stream for the worker's whole life that tells what has finished.
"""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from threading import Condition, Thread
from typing import Any

from harness.engines.ray.messages import Failed, Hello, Loaded, News, Order, Unanswered
from harness.engines.ray.versions import library_versions, own_versions
from harness.errors import HarnessError, ModelError, first_line
from harness.interfaces import Model
from harness.types import Request

#: Seconds for which completions are gathered into one message, and how many at most.
_GATHER, _MOST = 0.01, 256

#: How many requests a model of an engine that does not say is given at a time.
_ROOM = 256


class Over(Exception):
    """The call that the requests belong to is over: raised within the engine's generator, to end it."""


class Worker:
    """The actor. Its methods run in threads of Ray's, `_work` in one of its own."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._waiting: deque[tuple[int, Request]] = deque()
        self._changed = Condition()
        self._epoch = 0
        self._told: SimpleQueue[tuple[int, News]] = SimpleQueue()

    def hello(self, distributions: tuple[str, ...]) -> Hello:
        """Say where this is, and what is installed there."""
        import ray

        node: Any = ray.util.get_node_ip_address  # untyped
        return Hello(node(), own_versions(distributions), library_versions())

    def load(self, order: bytes) -> Loaded | Failed:
        """Load the model; what goes wrong is said in one line."""
        try:
            engine, model, expected = Order(*pickle.loads(order))  # noqa: S301 - the driver's own, over Ray's own channel
            identity = engine.identity(model)
            if different := [name for name in {**expected, **identity} if identity.get(name) != expected.get(name)]:
                name = different[0]
                told = f"{name} is {identity.get(name)!r}, and {expected.get(name)!r} where the command was given"
                return Failed(f"the model is not the same there: {told}; give {engine.name}.{name}, or the same model")
            self._model = engine.load(model)
        except ModuleNotFoundError as error:
            remedy = "install what the engine comes from there, or send it along with ray.runtime_env"
            return Failed(f"{first_line(error)}; {remedy}")
        except HarnessError as error:
            return Failed(str(error), None if isinstance(error, ModelError) else error)
        except Exception as error:  # an engine raises whatever it meets
            return Failed(f"{type(error).__name__}: {first_line(error)}")
        Thread(target=self._work, daemon=True).start()
        return Loaded(max(1, int(getattr(self._model, "room", _ROOM))))

    def submit(self, epoch: int, requests: bytes) -> None:
        """Take requests of the call `epoch`."""
        taken: list[Request] = pickle.loads(requests)  # noqa: S301 - the driver's own, over Ray's own channel
        with self._changed:
            self._epoch = max(self._epoch, epoch)
            self._waiting.extend((epoch, request) for request in taken)
            self._changed.notify()

    def abort(self, epoch: int) -> None:
        """Drop what belongs to calls before `epoch`."""
        with self._changed:
            self._epoch = max(self._epoch, epoch)

    def results(self) -> Iterator[bytes]:
        """Tell what has finished, a list a message, for as long as the worker lives."""
        while True:
            news = [self._told.get()]
            time.sleep(_GATHER)
            while len(news) < _MOST:
                try:
                    news.append(self._told.get_nowait())
                except Empty:
                    break
            yield pickle.dumps(news, pickle.HIGHEST_PROTOCOL)

    def close(self) -> None:
        """Free what the model holds."""
        if self._model is not None:
            self._model.close()

    def process(self) -> int:
        """Return the number of its process."""
        return os.getpid()

    def _work(self) -> None:
        """Answer what comes in, for ever; one failure ends it, as the state of the model is not known behind it."""
        model: Any = self._model
        pauses = bool(getattr(model, "pauses", False))
        while True:
            epoch, first = self._next()
            asked = {first.id: None}
            rest = self._fed(epoch, first, asked) if pauses else self._batch(epoch, first, asked)
            try:
                completions = iter(model.generate(rest if pauses else list(rest)))
                try:
                    for completion in completions:
                        asked.pop(completion.id, None)
                        self._told.put((epoch, completion))
                        if epoch != self._epoch:
                            break
                finally:
                    if hasattr(completions, "close"):
                        completions.close()
            except Over:
                continue
            except HarnessError as error:
                self._told.put((epoch, Failed(str(error), None if isinstance(error, ModelError) else error)))
                return
            except Exception as error:  # an engine raises whatever it meets
                self._told.put((epoch, Failed(f"it raises {type(error).__name__}: {first_line(error)}")))
                return
            for identifier in asked:
                self._told.put((epoch, Unanswered(identifier)))

    def _next(self) -> tuple[int, Request]:
        """Wait for a request of a call that is not over."""
        with self._changed:
            while True:
                while self._waiting:
                    epoch, request = self._waiting.popleft()
                    if epoch == self._epoch:
                        return epoch, request
                self._changed.wait()

    def _batch(self, epoch: int, first: Request, asked: dict[str, None]) -> Iterator[Request]:
        """Yield all that is there: for engines that take requests by the batch, the larger the better."""
        yield first
        with self._changed:
            while self._waiting and self._waiting[0][0] == epoch:
                _, request = self._waiting.popleft()
                asked[request.id] = None
                yield request

    def _fed(self, epoch: int, first: Request, asked: dict[str, None]) -> Iterator[Request | None]:
        """Yield requests as they come in, and None when there is none; the end comes once all have been answered."""
        yield first
        while True:
            if self._epoch != epoch:
                raise Over
            try:
                found, request = self._waiting[0]
            except IndexError:
                if not asked:
                    return
                yield None
                continue
            if found != epoch:
                raise Over
            self._waiting.popleft()
            asked[request.id] = None
            yield request
