"""Writing beside the training: copies of what it goes on changing, and a thread that does one thing at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from harness.training.model.memory import free_memory
from harness.training.parallel import Ranks, local


class Copies:
    """Memory of the host for copies of tensors, by name; it is used again for the next copy under the same name.

    Copies from a GPU are under way until `wait` returns.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[str, Tensor] = {}

    def keep(self, name: str, tensor: Tensor) -> Tensor:
        """Return a copy of a tensor, the same on every call with this name."""
        held = self._held.get(name)
        if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
            held = self._held[name] = self._empty(tensor)
        return held.copy_(tensor.detach(), non_blocking=True)

    def _empty(self, tensor: Tensor) -> Tensor:
        if self._device.type == "cuda":
            try:  # a GPU copies to pinned memory several times faster, and beside the host
                return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            except RuntimeError:  # of which a host gives less than of other memory
                pass
        return torch.empty(tensor.shape, dtype=tensor.dtype)

    def wait(self) -> None:
        """Return when all copies are whole."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class Background:
    """A thread that does one piece of work at a time, and keeps what goes wrong until it is asked."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether work failed and `finish` has not said so yet."""
        return self._problem is not None

    def start(self, work: Callable[[], None]) -> None:
        """Begin `work`; the work before it must be finished."""

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._problem = error

        # A daemon, because whoever ends the process at once does not want to wait for a disk.
        self._thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Return when the work is done; raise what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem


def copies_fit(bytes_needed: int, ranks: Ranks) -> bool:
    """Return whether the hosts of all ranks have so much memory for each, with a tenth of it to spare."""
    free = free_memory()
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return not ranks.any(free is not None and bytes_needed * beside > 0.9 * free)


def local_bytes(tensor: Tensor) -> int:
    """Return the bytes of this rank's part of a tensor."""
    return local(tensor).nbytes
