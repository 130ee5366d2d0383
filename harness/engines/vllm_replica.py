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
from dataclasses import dataclass, field, replace
from functools import lru_cache
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeAlias

from harness.engines import vllm_likelihood as likelihood
from harness.engines.detokenizing import Detokenizer
from harness.engines.streaming import settled, without_bytes
from harness.engines.thinking import Thoughts
from harness.engines.vllm_likelihood import Part
from harness.errors import first_line
from harness.types import SCORED, Continuation, FinishReason, Generation

#: Seconds that vLLM gets to shut down before its processes are killed.
GRACE = 30.0


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message in: the arguments of `vllm.LLM`, and the token ids that end every completion."""

    arguments: Mapping[str, Any]
    stop_token_ids: tuple[int, ...]


class Submitted(NamedTuple):
    """A request: a key of the sender's own, the prompt's token ids, how to sample, and whether to tell `Grown`.

    `continuations` are to be given log-probabilities; where `generated` is false nothing is sampled beside them.
    """

    key: int
    token_ids: tuple[int, ...]
    generation: Generation
    streamed: bool = False
    continuations: tuple[Continuation, ...] = ()
    generated: bool = True


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
    continuations: tuple[float, ...] = ()
    thought_tokens: int | None = None


@dataclass(slots=True)
class _Open:
    """A request on its way, of whose answers from vLLM so many are `left`; `end` is what is known of its end.

    `parts` are what is asked for its continuations, by number. `before` are the tokens up to the limit of its thoughts,
    and those that close these, once they are there.
    """

    request: Submitted
    started: float
    left: int
    end: Finished
    logprobs: list[float]
    parts: Sequence[Part]
    before: list[int] = field(default_factory=list)
    tables: list[Mapping[str, float]] = field(default_factory=list)


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
        self._open: dict[int, _Open] = {}  # by the request's key
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
        found = self._opened(request)
        names = list[str]()
        try:
            if request.generated:
                names.append(str(request.key))
                self._engine.add_request(names[0], tokens_input(list(request.token_ids)), self._first(request))
            for number, part in enumerate(found.parts):
                names.append(f"{request.key}/{number}")
                asked = likelihood.sampling(part, apart=_apart(request))
                self._engine.add_request(names[-1], tokens_input(list(part.ids)), asked)
        except (ValueError, VLLMValidationError) as error:  # what vLLM raises for a request that it cannot run
            self._engine.abort_request(names[:-1])
            return Finished(request.key, error=f"vLLM refuses the request: {_message(error)}")
        self._open[request.key] = found
        return None

    def _opened(self, request: Submitted) -> _Open:
        parts = [*likelihood.parts(request.continuations, apart=_apart(request))]
        end = Finished(request.key, finish_reason=SCORED, completion_tokens=0)
        logprobs = [0.0] * len(request.continuations)
        return _Open(request, time.perf_counter(), len(parts) + request.generated, end, logprobs, parts)

    def _first(self, request: Submitted) -> Any:
        """Return how to sample a completion, or what comes of it up to the limit of its thoughts."""
        generation, limit = request.generation, request.generation.thinking_tokens
        if limit is not None:
            generation = replace(generation, max_tokens=limit, thinking_tokens=None)
        return self._sampling(generation, request.streamed)

    def abort(self) -> None:
        """Drop every unfinished request."""
        parts = [f"{key}/{number}" for key, each in self._open.items() for number in range(len(each.parts))]
        self._engine.abort_request([*map(str, self._open), *parts])
        self._open.clear()

    def step(self) -> Iterable[Finished | Grown]:
        """Let the engine generate one token for everything that it runs; yield what that finished, or let grow."""
        for output in self._engine.step():
            key, _, number = output.request_id.partition("/")
            found = self._open.get(int(key))
            if found is None:
                continue
            if output.finished:
                seconds = time.perf_counter() - found.started
                if number:
                    if not self._weighed(found, int(number), output):
                        continue
                elif self._goes_on(found, output.outputs[0]):
                    continue
                else:
                    found.end = self._finished(found, output.outputs[0], seconds)
                found.left -= 1
                if not found.left:
                    del self._open[found.request.key]
                    yield found.end._replace(seconds=seconds, continuations=tuple(found.logprobs))
            elif not number:
                ids = [*found.before, *output.outputs[0].token_ids]
                yield Grown(found.request.key, self._words.settled(found.request, ids))

    def _weighed(self, found: _Open, number: int, output: Any) -> bool:
        """Note the log-probabilities that a part asks for; where the prefix cache has hidden some, ask again."""
        part = found.parts[number]
        given = likelihood.logprobs(part, output)
        if given is None:
            from vllm.inputs import tokens_input

            asked = likelihood.sampling(part, apart=_apart(found.request), cached=False)
            self._engine.add_request(f"{found.request.key}/{number}", tokens_input(list(part.ids)), asked)
            return False
        for place, value in zip(part.numbers, given, strict=True):
            found.logprobs[place] = value
        return True

    def _goes_on(self, found: _Open, output: Any) -> bool:
        """Ask for the rest of a completion that has come to the limit of its thoughts, closed if they are open."""
        request = found.request
        limit = request.generation.thinking_tokens
        if limit is None or found.before or output.finish_reason != "length":
            return False
        ids = list(output.token_ids)
        closing = self._words.closing(request.token_ids, ids)
        left = request.generation.max_tokens - len(ids) - len(closing)
        prompt = [*request.token_ids, *ids, *closing]
        if left < 1 or len(prompt) >= self._engine.vllm_config.model_config.max_model_len:
            return False
        from vllm.inputs import tokens_input

        found.before = [*ids, *closing]
        found.tables = self._tables(request, output)
        sampling = self._sampling(replace(request.generation, max_tokens=left, thinking_tokens=None), request.streamed)
        self._engine.add_request(str(request.key), tokens_input(prompt), sampling)
        return True

    def _tables(self, request: Submitted, output: Any) -> list[Mapping[str, float]]:
        return [self._words.table(position, request.generation.logprobs) for position in output.logprobs or ()]

    def _finished(self, found: _Open, output: Any, seconds: float) -> Finished:
        request, before = found.request, found.before
        ids = [*before, *output.token_ids]
        if output.finish_reason not in ("stop", "length"):
            reason = f"vLLM gave up with {output.finish_reason!r}"
            return Finished(request.key, output.text, None, len(ids), seconds, reason)
        thoughts = self._words.thoughts(request.token_ids, ids)
        if isinstance(output.stop_reason, str):  # cut at a stop string
            text = self._words.text(request.token_ids, before) + output.text
        else:
            ended = output.finish_reason == "stop"  # by the last token, which is no text, whether special or not
            text = self._words.text(request.token_ids, ids[: len(ids) - ended])
        tables = (*found.tables, *self._tables(request, output))
        end = Finished(request.key, text, output.finish_reason, len(ids), seconds, None, tables)
        return end._replace(thought_tokens=thoughts)


def _apart(request: Submitted) -> bool:
    """Whether the likeliest tokens are asked for beside continuations."""
    return request.generated and bool(request.generation.logprobs)


class _Words:
    """The text of token ids, as the transformers engine gives it.

    vLLM's own text lacks the end of a completion that breaks off within a character, and its names of single tokens
    have spaces that some tokenizers do not give them.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer)
        self._thoughts = Thoughts(tokenizer, self._detokenizer)
        self.closing, self.thoughts = self._thoughts.closing, self._thoughts.count
        self._name = lru_cache(maxsize=None)(lambda token: self._detokenizer.all([token]))

    def text(self, prompt: Sequence[int], ids: list[int]) -> str:
        """Return the text of `ids` as it stands after `prompt`: some tokenizers drop a space at the very beginning."""
        before = list(prompt[-8:])
        context, text = self._detokenizer.text(before), self._detokenizer.text(before + ids)
        return text[len(context) :] if text.startswith(context) else self._detokenizer.text(ids)

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
