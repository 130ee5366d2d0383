"""The cluster: how this process comes to it, what it has, and what a replica takes of it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from typing import Any

from harness.errors import ModelError, first_line

#: How many models of this process use the cluster, and whether Ray was started for them.
_users = 0
_started_here = False

#: Bytes of the object store of a Ray of the command's own: messages are small and go past it.
_STORE = 128 << 20

#: Seconds that the cluster's address may take to answer.
_CONNECT = 15.0


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, and what Ray has to give of it."""

    name: str
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.name} with {_plural(self.cpus, 'CPU')} and {_plural(self.gpus, 'GPU')}"


@dataclass(frozen=True)
class Need:
    """What Ray reserves for a replica."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        parts = [_plural(self.gpus, "GPU")] if self.gpus or not self.cpus else []
        return " and ".join([*parts, *([_plural(self.cpus, "CPU")] if self.cpus else [])])

    def fits(self, node: Node) -> int:
        """How many replicas a node has place for."""
        parts = [(node.gpus, self.gpus), (node.cpus, self.cpus)]
        return min((floor(there / asked + 1e-6) for there, asked in parts if asked), default=max(1, int(node.cpus)))


def _plural(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def join(address: str, runtime_env: Mapping[str, Any], replicas: int | None) -> bool:
    """Connect this process to Ray, once for all its models; return whether it is a Ray of the command's own.

    Such a one is started for about so many `replicas`, which share this machine's cores. Raises ModelError in one line
    where there is no cluster at the address, or it is of another version or asks for a token.
    """
    global _users, _started_here
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        own = not address and not os.environ.get("RAY_ADDRESS")
        asked: dict[str, Any] = {"runtime_env": dict(runtime_env)} if runtime_env else {}
        if own:
            # By itself Ray would take a cluster that somebody else has on this machine.
            asked |= {"address": "local", "include_dashboard": False, "object_store_memory": _STORE}
        else:
            asked |= {"address": address or None}
            _reach(address or os.environ.get("RAY_ADDRESS", ""))
        with _undisturbed(_environment(replicas) if own else {}):
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **asked)
            except Exception as error:  # Ray has no one kind of error for this
                raise ModelError(_unreached(address or os.environ.get("RAY_ADDRESS", ""), error)) from error
        _silence()
        _started_here = own
    _users += 1
    return _started_here


def leave() -> None:
    """Let go of what `join` connected; the last one ends a Ray that was started here."""
    global _users, _started_here
    import ray

    _users -= 1
    if _users == 0 and ray.is_initialized():
        with _undisturbed({}):
            ray.shutdown()
        _started_here = False


def nodes() -> list[Node]:
    """Return the machines of the cluster that are alive."""
    import ray

    listed: Any = ray.nodes  # untyped
    alive = [each for each in listed() if each.get("Alive")]
    held = [(each.get("NodeManagerAddress", "?"), each.get("Resources", {})) for each in alive]
    return [Node(name, float(has.get("CPU", 0)), float(has.get("GPU", 0))) for name, has in held]


def free() -> Node:
    """Return what is free in the cluster, all machines together."""
    import ray

    available: Any = ray.available_resources  # untyped
    there = available()
    return Node("free", float(there.get("CPU", 0)), float(there.get("GPU", 0)))


def _environment(replicas: int | None) -> dict[str, str]:
    """Return the variables for the processes of a Ray of the command's own: the same modules, and a share of cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // (replicas or cores))
    own = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    return {**own, **({} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(threads)})}


@contextmanager
def _undisturbed(environment: Mapping[str, str]) -> Iterator[None]:
    """Have variables for the processes that are started within, and signals as they were: Ray takes them for itself."""
    main = threading.current_thread() is threading.main_thread()
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)} if main else {}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _silence() -> None:
    """Keep what Ray's daemons say of lost workers off standard output, where a thread of Ray's prints it at length.

    Notices say it in a line. Ray has no option for it.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None


def _reach(address: str) -> None:
    """Raise ModelError where nobody listens at ``HOST:PORT``: Ray would ask for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # ``auto``
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()
    except OSError as error:
        raise ModelError(_unreached(address, error)) from error


def _unreached(address: str, error: Exception) -> str:
    said = first_line(error)
    if not address:
        return f"Ray cannot be started on this machine: {said}"
    if "ersion mismatch" in str(error):
        lines = " ".join(str(error).split())
        return f"the Ray cluster at {address} is of another version: {lines[:300]}; install the same on all machines"
    if "auth" in type(error).__name__.lower() or "token" in str(error).lower():
        return f"the Ray cluster at {address} asks for its token ({said}): set RAY_AUTH_TOKEN or ~/.ray/auth_token"
    return f"no Ray cluster at {address} ({said}): start one with `ray start --head`, or leave ray.address out"
