"""What driver and workers say to each other; pickled by us, so that a message is one small piece of bytes for Ray."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from harness.errors import HarnessError
from harness.interfaces import Engine
from harness.types import Completion, Request

#: Bytes up to which Ray sends what it is given within its own messages, past its object store.
_SMALL = 90_000


class Order(NamedTuple):
    """What a worker is to load: the engine with its options, the model, and what must come out as its identity."""

    engine: Engine
    model: str
    identity: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker's first words: where it runs, and what is installed there."""

    node: str
    versions: Mapping[str, str]
    libraries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A worker that can be asked: `room` is how many requests it is to have at a time."""

    room: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker that can do no more: in one line why. `error` is set where no other one could do it either."""

    message: str
    error: HarnessError | None = None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A request that the engine took, and ended without a completion for it."""

    id: str


News: TypeAlias = Completion | Unanswered | Failed


def packed(requests: Sequence[Request]) -> Iterator[bytes]:
    """Yield the requests as bytes, in several pieces where they are many or large."""
    content = pickle.dumps(requests, pickle.HIGHEST_PROTOCOL)
    if len(content) > _SMALL and len(requests) > 1:
        middle = len(requests) // 2
        yield from packed(requests[:middle])
        yield from packed(requests[middle:])
    else:
        yield content
