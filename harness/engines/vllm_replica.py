"""One vLLM engine in a process of its own: token ids come in over a connection, completions go out as they finish.

The engine runs apart from the harness so that everything it holds (GPU memory, worker processes, shared memory) is gone
with the process, whatever state it is in, and so that scoring and journalling never hold up its step loop. The process
leads a session: `harness.engines.vllm` can end it together with every process that vLLM started. When its connection
closes, because the harness closed the model or was killed, it shuts vLLM down and ends.

Within it the engine's own step loop is run (`LLMEngine.add_request` and `step`), so vLLM's scheduler stays full while
finished requests leave one by one; `LLM.generate` in chunks would drain the batch at the end of each chunk.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeAlias

from harness.engines.streaming import settled, without_bytes
from harness.errors import first_line
from harness.types import FinishReason, Generation

#: Seconds that vLLM gets to shut down before its processes are killed.
GRACE = 30.0


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message in: the arguments of `vllm.LLM`, and the token ids that end every completion."""

    arguments: Mapping[str, Any]
    stop_token_ids: tuple[int, ...]


class Submitted(NamedTuple):
    """A request: a key of the sender's own, the prompt's token ids, how to sample, and whether to tell `Grown`."""

    key: int
    token_ids: tuple[int, ...]
    generation: Generation
    streamed: bool = False


class Abort(NamedTuple):
    """Drop everything that is in flight; nothing is answered for it any more."""


class Ready(NamedTuple):
    """The engine is loaded: its context in tokens, and how many requests it runs at a time."""

    max_model_len: int
    max_num_seqs: int


class Failed(NamedTuple):
    """The engine cannot be loaded, or has died; nothing comes after this."""

    message: str


class Grown(NamedTuple):
    """What is sure so far of the text of a streamed request."""

    key: int
    text: str


class Finished(NamedTuple):
    """The end of a request: the fields of `harness.types.Completion` that the engine knows."""

    key: int
    text: str = ""
    finish_reason: FinishReason | None = None
    completion_tokens: int | None = None
    seconds: float | None = None
    error: str | None = None
    top_logprobs: tuple[Mapping[str, float], ...] = ()


Incoming: TypeAlias = list[Submitted] | Abort | None  # None: the connection has closed
Outgoing: TypeAlias = Ready | Failed | list[Finished | Grown]


def serve(descriptor: int) -> None:
    """Load vLLM as the `Setup` on the connection says and answer requests until the connection closes."""
    connection: Connection[Any, Any] = Connection(descriptor)
    setup: Setup = connection.recv()
    inbox: SimpleQueue[Incoming] = SimpleQueue()
    outbox: SimpleQueue[Outgoing | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    sender = threading.Thread(target=_send, args=(connection, outbox), daemon=True)
    sender.start()
    try:
        _run(setup, inbox, outbox)
    except Exception as error:
        outbox.put(Failed(_message(error)))
        raise
    finally:
        outbox.put(None)
        sender.join(timeout=GRACE)


def _message(error: Exception) -> str:
    """Return an error's type and the first line of its message; of pydantic's, what it says of the first value."""
    if type(error).__name__ == "ValidationError":
        from pydantic import ValidationError

        if isinstance(error, ValidationError):
            return error.errors()[0]["msg"]
    return f"{type(error).__name__}: {first_line(error)}"


def _run(setup: Setup, inbox: SimpleQueue[Incoming], outbox: SimpleQueue[Outgoing | None]) -> None:
    from vllm import LLM

    llm = LLM(**setup.arguments)
    engine = llm.llm_engine
    threading.Thread(target=_watch, args=(outbox,), daemon=True).start()
    config = engine.vllm_config
    outbox.put(Ready(config.model_config.max_model_len, config.scheduler_config.max_num_seqs))
    loop = _StepLoop(engine, setup.stop_token_ids, _Words(llm.get_tokenizer()))
    open_ = True
    while open_:
        while open_ and not (inbox.empty() and engine.has_unfinished_requests()):
            message = inbox.get()
            if message is None:
                open_ = False
            elif isinstance(message, Abort):
                loop.abort()
            elif refused := [refusal for request in message if (refusal := loop.add(request))]:
                outbox.put([*refused])
        if open_ and (finished := list(loop.step())):
            outbox.put(finished)
    engine.engine_core.shutdown()


class _StepLoop:
    """Adds requests to a vLLM engine and reads finished ones from its steps."""

    def __init__(self, engine: Any, stop_token_ids: tuple[int, ...], words: _Words) -> None:
        self._engine = engine
        self._stop_token_ids = stop_token_ids
        self._words = words
        self._started: dict[str, tuple[float, Submitted]] = {}  # by vLLM's request id
        self._sampling = lru_cache(maxsize=64)(self._new_sampling)

    def _new_sampling(self, generation: Generation, streamed: bool) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=generation.max_tokens,
            stop=list(generation.stop),
            stop_token_ids=list(self._stop_token_ids),
            temperature=generation.temperature,
            top_p=generation.top_p,
            seed=generation.seed,
            logprobs=generation.logprobs or None,
            output_kind=RequestOutputKind.CUMULATIVE if streamed else RequestOutputKind.FINAL_ONLY,
        )

    def add(self, request: Submitted) -> Finished | None:
        """Hand a request to the engine; return its end at once where the engine refuses it."""
        from vllm.exceptions import VLLMValidationError
        from vllm.inputs import tokens_input

        limit = self._engine.vllm_config.model_config.max_model_len
        if not request.token_ids:
            return Finished(request.key, error="the prompt has no token ids, and vLLM takes nothing else")
        if len(request.token_ids) >= limit:
            return Finished(
                request.key,
                error=f"a prompt of {len(request.token_ids)} tokens does not fit a context of {limit}: "
                "raise vllm.max_model_len if the model allows it, or shorten the prompt",
            )
        name = str(request.key)
        try:
            prompt = tokens_input(list(request.token_ids))
            self._engine.add_request(name, prompt, self._sampling(request.generation, request.streamed))
        except (ValueError, VLLMValidationError) as error:  # what vLLM raises for a request that it cannot run
            return Finished(request.key, error=f"vLLM refuses the request: {_message(error)}")
        self._started[name] = time.perf_counter(), request
        return None

    def abort(self) -> None:
        """Drop every unfinished request."""
        self._engine.abort_request(list(self._started))
        self._started.clear()

    def step(self) -> Iterable[Finished | Grown]:
        """Let the engine generate one token for everything that it runs; yield what that finished, or let grow."""
        for output in self._engine.step():
            if output.request_id not in self._started:
                continue
            if output.finished:
                started, request = self._started.pop(output.request_id)
                yield self._finished(request, output.outputs[0], time.perf_counter() - started)
            else:
                _, request = self._started[output.request_id]
                yield Grown(request.key, self._words.settled(request, list(output.outputs[0].token_ids)))

    def _finished(self, request: Submitted, output: Any, seconds: float) -> Finished:
        tokens = len(output.token_ids)
        if output.finish_reason not in ("stop", "length"):
            reason = f"vLLM gave up with {output.finish_reason!r}"
            return Finished(request.key, output.text, None, tokens, seconds, reason)
        text = output.text
        if not isinstance(output.stop_reason, str):  # not cut at a stop string
            ended = output.finish_reason == "stop"  # by the last token, which is no text, whether special or not
            text = self._words.text(request.token_ids, list(output.token_ids[: tokens - ended]))
        count = request.generation.logprobs
        logprobs = tuple(self._words.table(position, count) for position in output.logprobs or ())
        return Finished(request.key, text, output.finish_reason, tokens, seconds, None, logprobs)


class _Words:
    """The text of token ids, as the transformers engine gives it.

    vLLM's own text lacks the end of a completion that breaks off within a character, and its names of single tokens
    have spaces that some tokenizers do not give them.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._name = lru_cache(maxsize=None)(lambda token: self._decode([token], skip_special_tokens=False))

    def text(self, prompt: Sequence[int], ids: list[int]) -> str:
        """Return the text of `ids` as it stands after `prompt`: some tokenizers drop a space at the very beginning."""
        before = list(prompt[-8:])
        context, text = self._decode(before), self._decode(before + ids)
        return text[len(context) :] if text.startswith(context) else self._decode(ids)

    def settled(self, request: Submitted, ids: list[int]) -> str:
        """Return what is sure already of the text of a request's `ids` so far."""
        sure = list(without_bytes(ids, self._tokenizer))
        return settled(self.text(request.token_ids, sure), request.generation.stop)

    def table(self, position: Mapping[int, Any], count: int) -> dict[str, float]:
        """Map the `count` likeliest tokens to log probability; of two with the same text the likelier counts.

        vLLM adds the sampled token to the candidates, wherever it ranks.
        """
        table: dict[str, float] = {}
        for token, candidate in sorted(position.items(), key=lambda item: item[1].rank):
            if candidate.rank <= count:
                table.setdefault(self._name(token), candidate.logprob)
        return table

    def _decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)
        return str(text)


def _receive(connection: Connection[Any, Any], inbox: SimpleQueue[Incoming]) -> None:
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        inbox.put(None)
    time.sleep(GRACE)  # the thread is a daemon: this line is only passed where vLLM hangs, or is still loading
    os.killpg(0, signal.SIGKILL)


def _send(connection: Connection[Any, Any], outbox: SimpleQueue[Outgoing | None]) -> None:
    try:
        while (message := outbox.get()) is not None:
            connection.send(message)
    except OSError:  # nobody listens any more: `_receive` has seen the same
        return


def _watch(outbox: SimpleQueue[Outgoing | None]) -> None:
    """Report the death of a process that vLLM started; `step` waits for ever for one that was killed (vLLM 0.32)."""
    from multiprocessing import active_children
    from multiprocessing.connection import wait

    children = active_children()
    if not children:
        return
    gone = wait([child.sentinel for child in children])
    for child in children:
        if child.sentinel in gone:
            child.join()
            for _ in range(100):  # vLLM's own watcher may have met it first, and is about to note the code
                if child.exitcode is not None:
                    break
                time.sleep(0.01)
            outbox.put(Failed(f"its process {child.name} ended with code {child.exitcode}"))
