"""An engine whose model does as the prompt says: answers, answers twice, hangs, takes its process with it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import ModelError
from harness.hookspecs import hookimpl
from harness.interfaces import BaseEngine, Engine, Model
from harness.types import Completion, Generation, Prompt, Request


def asked(count: int, **words: str) -> list[Request]:
    """Return requests q0, q1, …; ``q3="die"`` gives that one's prompt another word than ``answer``."""
    return [Request(f"q{n}", Prompt(words.get(f"q{n}", "answer")), Generation(), n) for n in range(count)]


@dataclass(frozen=True)
class OddEngine(BaseEngine):
    """The engine. `folder` is where its processes leave their numbers, and what is to happen once leaves a mark."""

    name: ClassVar[str] = "odd"

    folder: str = ""
    seconds: float = 0.0
    fed: bool = False
    backwards: bool = False
    fails: str = ""

    def identity(self, model: str) -> Mapping[str, Any]:
        """Return the model's name."""
        return {"model": model, "here": self.fails == "identity" and os.getpid()}

    def load(self, model: str) -> Model:
        """Return the model, and leave the number of the process."""
        if self.fails == "load":
            raise ModelError("there is no such model; give another")
        if self.folder:
            (Path(self.folder) / f"{os.getpid()}.pid").touch()
        return _Fed(self) if self.fed else _Odd(self)


class _Odd:
    def __init__(self, engine: OddEngine) -> None:
        self.engine = engine

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in reversed([*requests]) if self.engine.backwards else requests:
            yield from self.answered(request)

    def answered(self, request: Request) -> Iterator[Completion]:
        time.sleep(self.engine.seconds)
        answer = Completion(request.id, f"{request.id} is {len(request.prompt.text)}", "stop", 1, 1)
        match request.prompt.text.partition(" ")[0]:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise RuntimeError("odd")
            case "silent":
                return
            case "hang" if self.once("hung"):
                time.sleep(1e6)
            case "stop" if self.once("stopped"):
                os.kill(os.getpid(), signal.SIGSTOP)
            case "twice":
                yield answer
            case "wrong":
                yield Completion("nobody", "", "stop")
        yield answer

    def once(self, name: str) -> bool:
        mark = Path(self.engine.folder) / name
        there = mark.exists()
        mark.touch()
        return not there

    def close(self) -> None: ...


class _Fed(_Odd):
    """The same, fed without end: it has eight requests at a time."""

    pauses = True
    room = 8

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        for request in requests:
            if request is None:
                time.sleep(0.001)
            else:
                yield from self.answered(request)


@hookimpl
def harness_engines() -> Iterable[Engine]:
    """Provide `odd`."""
    return [OddEngine()]
