"""The engine for models behind a server that speaks OpenAI's protocol: a ``vllm serve`` fleet, or a hosted model.

``OPENAI_BASE_URL=http://localhost:8000/v1 harness run --engine openai --model NAME`` asks a local server; without a
base URL it is OpenAI's own service. The key comes from ``OPENAI_API_KEY`` and goes nowhere but into the requests.
Requests, back-off and ``Retry-After`` are the official client's (https://github.com/openai/openai-python); the protocol
is https://platform.openai.com/docs/api-reference/completions and …/chat.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn
from urllib.parse import urlsplit

from harness.engines.folder_tokenizer import FolderTokenizer
from harness.engines.openai_answer import completion
from harness.engines.openai_asked import Asking
from harness.engines.openai_client import Budget, bounded_client
from harness.engines.openai_said import KEY, LOWERED, NO_KEY, one_line, own_key, said_in, without_key
from harness.engines.openai_stream import streamed, unstreamed
from harness.engines.streaming import Pieces, settled
from harness.errors import ConfigError, ModelError, nearest, untrusted
from harness.hookspecs import hookimpl
from harness.interfaces import Engine, Tokenizer
from harness.models import find_model
from harness.types import Completion, Request

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

_HOSTED = "https://api.openai.com/v1"
_BASE_URL = "OPENAI_BASE_URL"

#: Seconds to wait for a connection, whatever an answer may take.
_CONNECT_SECONDS = 10.0

#: Seconds between looks at whether a streamed answer has ended, or is to be ended, while nothing comes in.
_LOOK = 0.05

#: Seconds that may be waited for a thread at once.
_LONGEST_WAIT = 3600.0

#: Seconds until a pause in the requests is looked at again.
_PAUSE = 0.01

#: Is told all of an answer's text so far, as it comes in.
_Tell = Callable[[str], object]

#: The client's pool holds no more connections than this.
_MOST_CONNECTIONS = 1000

#: Parameters that cannot be left out.
_NEEDED = ("model", "messages", "prompt")

#: What a server writes that refuses one text for what it says, by the status with which others refuse a key.
_FLAGGED = re.compile(r"moderation|flagged|content (?:policy|filter)|safety", re.IGNORECASE)


@dataclass(frozen=True)
class OpenAIEngine:
    """Models behind an OpenAI-compatible server.

    `base_url` is the server (``http://localhost:8000/v1``), by default that of ``OPENAI_BASE_URL``, else OpenAI's own.
    `api` is ``completions``, or ``chat`` for models that are served only so, such as GPT-4 judges; a prompt without
    messages is then one user message. `tokenizer_path`, a local folder or a name on the hub, makes token ids of the
    prompts, which `api` ``completions`` sends instead of text. `concurrency` is how many requests are open at the same
    time, `timeout` how many seconds the server may take for one, `max_retries` how often one is sent again after a 429,
    a 5xx, a time-out or a lost connection. `stop_limit` is how many stop strings the server takes (OpenAI: 4); the rest
    cut the answer here. `extra_body` is put into every request as it is (``{top_k = 20}``). `omit` names parameters
    that are left out (``["top_p"]``); some that a server refuses are left out without being named. `total_timeout` and
    `total_bytes` are what the server may take for all requests of a command, in seconds and in bytes of answers.
    """

    base_url: str | None = None
    api: Literal["completions", "chat"] = "completions"
    tokenizer_path: str | None = None
    concurrency: int = 32
    timeout: float = 600.0
    max_retries: int = 8
    stop_limit: int = 4
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    omit: tuple[str, ...] = ()
    total_timeout: float = 7 * 86400.0
    total_bytes: int = 64 << 30
    name: ClassVar[str] = "openai"

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= _MOST_CONNECTIONS:
            raise ValueError(f"concurrency must be from 1 to {_MOST_CONNECTIONS}, not {self.concurrency}")
        for name in ("timeout", "total_timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be more than 0 seconds, not {getattr(self, name)}")
        if self.total_bytes <= 0:
            raise ValueError(f"total_bytes must be more than 0, not {self.total_bytes}")
        if self.max_retries < 0 or self.stop_limit < 0:
            raise ValueError("max_retries and stop_limit must be 0 or more")
        if self.api == "chat" and self.tokenizer_path is not None:
            raise ValueError('tokenizer_path goes with api = "completions": chat takes messages, no token ids')
        for name in self.omit:
            if name in _NEEDED:
                raise ValueError(f"omit: a request cannot do without {name}")
        if self.base_url is not None:
            _check_url(self.base_url, "base_url")

    @property
    def applies_chat_template(self) -> bool:
        """Whether `api` is ``chat``."""
        return self.api == "chat"

    @property
    def url(self) -> str:
        """The server's base URL; ConfigError where ``OPENAI_BASE_URL`` holds none."""
        if self.base_url is None and (given := os.environ.get(_BASE_URL, "").strip()):
            try:
                _check_url(given, _BASE_URL)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            return given.rstrip("/")
        return (self.base_url or _HOSTED).rstrip("/")

    def available(self) -> str | None:
        """Return None if the client is installed, else how to install it."""
        if importlib.util.find_spec("openai") is None:
            return "the package openai is not installed: pip install 'posttrain-harness[openai]'"
        return None

    def tokenizer(self, model: str) -> Tokenizer | None:
        """Return the tokenizer at `tokenizer_path`; None without one: text or messages go to the server."""
        if self.tokenizer_path is None:
            return None
        return FolderTokenizer(find_model(self.tokenizer_path))

    def identity(self, model: str) -> Mapping[str, Any]:
        """Return the server, the model's name there, and what shapes the requests; never the key."""
        return {
            "base_url": self.url,
            "model": model,
            "api": self.api,
            "tokenizer": self.tokenizer_path,
            "extra_body": dict(self.extra_body),
            **({"omit": list(self.omit)} if self.omit else {}),
        }

    def load(self, model: str) -> ServedModel:
        """Ask the server which models it has. Raises ModelError where there is no server, or it refuses the key."""
        if (missing := self.available()) is not None:
            raise ModelError(missing)
        import openai

        key, url = own_key(), self.url
        if url == _HOSTED and key == NO_KEY:
            remedy = f"set {_BASE_URL} to a server of your own (http://localhost:8000/v1), or {KEY} for OpenAI's"
            raise ModelError(f"openai: no server given: {remedy}")
        known: tuple[str, ...] = ()
        try:
            with ThreadPoolExecutor(1) as thread:  # this one may run a loop of its own, as in a notebook
                known = _model_names(thread.submit(asyncio.run, self._listed(key, url)).result())
        except openai.APIConnectionError as error:
            if _unreachable(error):
                _raise_unreachable(url, error)
        except openai.AuthenticationError as error:
            _raise_refused(self, model, error, ())
        except (openai.APIError, ValueError, RecursionError):
            pass  # a server need not list its models; whether it has this one, the first request tells
        return ServedModel(self, model, known)

    async def _listed(self, key: str, url: str) -> object:
        """Return what the server says of its models."""
        import openai

        seconds = min(self.timeout, _CONNECT_SECONDS)
        http = bounded_client(seconds, Budget(seconds, self.total_bytes))
        async with openai.AsyncOpenAI(
            api_key=key, base_url=url, timeout=seconds, max_retries=0, http_client=http
        ) as client:
            return await client.get("/models", cast_to=object)


class ServedModel:
    """A model on a server. `known` are the names of the models that the server lists, for the hint after a 404.

    `notices` say what requests had to be sent without, or with less of, than was asked. None among its requests is a
    pause, and `room` how many it has at a time (`harness.interfaces.FedModel`).
    """

    pauses: ClassVar[bool] = True

    def __init__(self, engine: OpenAIEngine, model: str, known: tuple[str, ...] = ()) -> None:
        self._engine = engine
        self._model = model
        self._known = known
        self._asking = Asking(engine.url, model, engine.api, engine.stop_limit, engine.extra_body, engine.omit)
        self._budget = Budget(engine.total_timeout, engine.total_bytes)
        self.room = 2 * engine.concurrency
        self.notices = self._asking.notices

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Yield a completion for each request as its answer comes in.

        No more than twice `concurrency` requests are taken from the iterable before their completions are yielded. What
        fails for good, after all retries, gives a completion with `error`. Raises ModelError where no request could
        succeed: a refused key, an unknown model, an empty account, a server that has gone and is not back when the
        retries are used up, or one that has taken what it may take for all of them together.
        """
        source = iter(requests)
        finished: SimpleQueue[Future[Completion]] = SimpleQueue()
        running: set[Future[Completion]] = set()
        with self._session() as submit:
            try:
                while True:
                    wait = _LONGEST_WAIT
                    for request in islice(source, self.room - len(running)):
                        if request is None:
                            wait = _PAUSE
                            break
                        future = submit(request)
                        running.add(future)
                        future.add_done_callback(finished.put)
                    if not running and wait != _PAUSE:
                        return
                    self._budget.check()
                    try:
                        future = finished.get(timeout=min(self._budget.left, wait))
                    except Empty:
                        continue
                    running.remove(future)
                    yield future.result()
            finally:
                for future in running:
                    future.cancel()

    def stream(self, request: Request) -> Generator[str, None, Completion]:
        """Yield the pieces of an answer and return its completion; see `harness.interfaces.StreamingModel`.

        An answer that breaks off is a failure, and not asked for again: a part of it has been told.
        """
        self._budget.check()
        texts: SimpleQueue[str] = SimpleQueue()
        pieces = Pieces()
        with self._session() as submit:
            future = submit(request, texts.put)
            try:
                while not future.done() or not texts.empty():
                    try:
                        yield pieces.grow(settled(texts.get(timeout=_LOOK), request.generation.stop))
                    except Empty:
                        yield ""
                completion = future.result()
                yield pieces.grow(completion.text)
                return completion
            finally:
                future.cancel()

    def close(self) -> None:
        """Hold nothing, free nothing: connections are closed when `generate` ends."""

    @contextmanager
    def _session(self) -> Iterator[Callable[..., Future[Completion]]]:
        """Give a function that sends a request, with an event loop of its own in a thread behind it.

        The loop's own thread keeps connections moving while the caller works on a result, and works inside a notebook,
        whose thread runs a loop already. What is still under way at the end is cancelled.
        """
        import openai

        engine = self._engine
        seconds = openai.Timeout(engine.timeout, connect=min(engine.timeout, _CONNECT_SECONDS))
        client = openai.AsyncOpenAI(
            api_key=own_key(),
            base_url=engine.url,
            timeout=seconds,
            max_retries=engine.max_retries,
            http_client=bounded_client(engine.timeout, self._budget),
        )
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        loop, leave, free = runner.get_loop(), asyncio.Event(), asyncio.Semaphore(engine.concurrency)

        async def serve() -> None:
            async with client:
                await leave.wait()

        def work() -> None:
            with runner:
                runner.run(serve())

        thread = threading.Thread(target=work, name="openai", daemon=True)
        thread.start()
        try:
            yield lambda *asked: asyncio.run_coroutine_threadsafe(self._answer(client, free, *asked), loop)
        finally:
            loop.call_soon_threadsafe(leave.set)
            thread.join()

    async def _answer(
        self, client: AsyncOpenAI, free: asyncio.Semaphore, request: Request, tell: _Tell | None = None
    ) -> Completion:
        """Send one request and return what came of it; raise ModelError where the others would fare no better."""
        import openai

        async with free:
            started = time.perf_counter()
            try:
                answer = await self._post(client, request, tell)
                found = completion(answer, request, time.perf_counter() - started)
                ended, broken = (
                    None if each is None else one_line(each) for each in (found.finish_reason, found.error)
                )
                return replace(found, text=without_key(found.text), finish_reason=ended, error=broken)
            except openai.APIStatusError as error:
                said, status = said_in(error), error.status_code
                flagged = status == 403 and _FLAGGED.search(said)
                if (status in (401, 402, 403, 404, 405) and not flagged) or error.code == "insufficient_quota":
                    _raise_refused(self._engine, self._model, error, self._known)
                reason = f"the server answered {status}: {said}"
            except openai.APIConnectionError as error:
                if _unreachable(error):
                    _raise_unreachable(self._engine.url, error)
                reason = self._lost(isinstance(error, openai.APITimeoutError), error)
            except UnicodeEncodeError as error:
                reason = f"the prompt cannot be sent: it holds {error.object[error.start]!r}, which UTF-8 does not have"
            except (ValueError, RecursionError) as error:
                reason = f"the server's answer cannot be read: {one_line(str(error))}"
            return Completion(request.id, "", None, seconds=time.perf_counter() - started, error=reason)

    def _lost(self, timed_out: bool, error: APIConnectionError) -> str:
        retries = self._engine.max_retries
        times = f"in {retries + 1} attempts" if retries else "in 1 attempt"
        if timed_out:
            return f"no answer within {self._engine.timeout:g} s {times} (openai.timeout, openai.max_retries)"
        return f"the connection was lost {times}: {one_line(str(error.__cause__ or error))}"

    async def _post(self, client: AsyncOpenAI, request: Request, tell: _Tell | None) -> object:
        """Send a request in the form that the model takes, and return the answer's JSON.

        What a server refuses is seen once and then left out of all requests: parameters that can be spared, a system
        message of its own, and the name max_tokens, in whose place OpenAI's reasoning models know
        max_completion_tokens. A limit beyond what the server says that is left is lowered.
        """
        import openai

        limit, times = request.generation.max_tokens, 0
        while True:
            body = self._asking.body(request, limit)
            try:
                answer = await self._send(client, body, tell)
            except openai.APIStatusError as error:
                said = said_in(error)
                left = self._asking.lowered(said, request, limit, times)
                if left is not None:
                    limit, times = left, times + 1
                elif not self._asking.adapt(said, error.param, body):
                    raise
            else:
                if times:
                    self._asking.notice(LOWERED)
                return answer

    async def _send(self, client: AsyncOpenAI, body: dict[str, Any], tell: _Tell | None) -> object:
        path = "/chat/completions" if self._engine.api == "chat" else "/completions"
        if tell is None:
            answer = await client.post(path, cast_to=object, body=body)
            return unstreamed(answer) if isinstance(answer, str) else answer
        return await streamed(client, path, body, tell, self._engine.timeout)


def _check_url(url: str, name: str) -> None:
    """Raise ValueError for what is no base URL, or holds a secret, which the run's record would then show."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name} must look like http://localhost:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{name} must not hold a user name, a password or a query: it is recorded; use {KEY}")


def _model_names(answer: object) -> tuple[str, ...]:
    models = answer.get("data") if isinstance(answer, dict) else None
    names = [model.get("id") for model in models or () if isinstance(model, dict)] if isinstance(models, list) else []
    return tuple(name for name in names if isinstance(name, str))


def _unreachable(error: APIConnectionError) -> bool:
    """Tell whether there was nobody to connect to, rather than a connection that was lost."""
    return type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")


def _raise_unreachable(url: str, error: APIConnectionError) -> NoReturn:
    if (reason := untrusted(error)) is not None:
        raise ModelError(f"openai: {url}: {reason}") from None
    reason = one_line(str(error.__cause__)) or "no connection"
    remedy = f"start it, or set openai.base_url or {_BASE_URL} to where it is"
    raise ModelError(f"openai: no server at {url} ({reason}): {remedy}") from None


def _raise_refused(engine: OpenAIEngine, model: str, error: APIStatusError, known: tuple[str, ...]) -> NoReturn:
    """Raise ModelError for an answer that every other request would get too."""
    status = error.status_code
    if status in (401, 403):
        remedy = f"set {KEY} to a key that the server takes"
    elif status in (404, 405):
        other = "completions" if engine.api == "chat" else "chat"
        hint = nearest(model, known) if known and model not in known else ""
        remedy = f"check the model's name, the base URL (it mostly ends in /v1) and openai.api (is it {other}?){hint}"
    else:
        remedy = "the account has nothing left to spend; mend that and give the same command again"
    raise ModelError(
        f"openai: {engine.url} answered {status} for {model!r}: {said_in(error).rstrip('.')}; {remedy}"
    ) from None


@hookimpl
def harness_engines() -> Iterable[Engine]:
    """Provide the engine ``openai``."""
    return (OpenAIEngine(),)
