"""Downloads from a hub that end: given up where nothing comes any more, or too much.

The hub's own client bounds how long it waits for the next bytes, but neither how slowly they trickle in nor how many
come. So it works in a thread, and what it has stored is looked at from here.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from harness import limits
from harness.errors import ModelError, first_line, untrusted

T = TypeVar("T")

#: Seconds between looks at what has been stored.
_LOOK = 0.5

#: Bytes of memory that a download of a data file or a description may take.
_MEMORY = 1 << 30


#: Headers that become parts of paths in the cache.
_NAMES = ("etag", "x-linked-etag", "x-repo-commit")


class GivenUp(Exception):
    """A download that is waited for no longer; its text says why."""


def watched(fetch: Callable[[], T], repository: str, kind: str, *, most: int | None = None) -> T:
    """Return what `fetch` does, which downloads files of a `repository` of that `kind` into huggingface_hub's cache.

    Raises GivenUp where nothing has been stored for `limits.STALL` seconds, or more than `most` bytes, and whatever
    `fetch` raises.
    """
    from huggingface_hub import constants

    _look_at_answers()
    folder = Path(constants.HF_HUB_CACHE, "--".join([f"{kind}s", *repository.split("/")]))
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(fetch())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=work, name="download", daemon=True)  # an executor's is waited for at the end
    held = _resident()
    began = size = _stored(folder)
    since = time.monotonic()
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK)
        if (now := _stored(folder)) != size:
            size, since = now, time.monotonic()
        if most is not None and size - began > most:
            raise GivenUp(f"more than {limits.DOWNLOAD.told} came ({limits.DOWNLOAD})")
        if most is not None and _resident() - held > _MEMORY:  # its client reads answers about files without a bound
            raise GivenUp("an answer of the hub has no end")
        if thread.is_alive() and time.monotonic() - since > limits.STALL.value:
            raise GivenUp(f"nothing came for {limits.STALL.told} s ({limits.STALL})")
    return outcome.result()


@functools.cache
def _look_at_answers() -> None:
    """Have answers refused that name a place outside the cache: the client stores a file by what a header calls it."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def made() -> Any:
        client = default_client_factory()
        client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], _check_names]}
        return client

    set_client_factory(made)


def _check_names(response: Any) -> None:
    for header in _NAMES:
        name = response.headers.get(header, "").strip().removeprefix("W/").strip('"')
        if name.startswith("/") or ".." in name.split("/"):
            raise GivenUp(f"the hub answers with a {header} that leads out of the cache: {name[:80]!r}")


def _resident() -> int:
    """Return the bytes of memory that this process takes, 0 where that is not known."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0


def _stored(folder: Path) -> int:
    """Return the bytes that have been stored of a repository, whole files and beginnings."""
    size = 0
    for path, _, names in os.walk(folder / "blobs"):
        for name in names:
            with suppress(OSError):  # is being renamed
                size += os.lstat(os.path.join(path, name)).st_size
    return size


def repository_of(name: str) -> tuple[str, str | None]:
    """Return the repository and the revision that a hub name stands for."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


@functools.cache
def model_files(repository: str, revision: str | None, patterns: tuple[str, ...], most: int | None = None) -> Path:
    """Return the folder of a model's files of these `patterns`, fetched from the hub; at most `most` bytes.

    Raises ModelError for what the hub does not have, does not give, or gives without end.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise ModelError(
            f"{repository}: no such folder, and huggingface_hub is not installed to look for it on the hub: "
            f"pip install 'posttrain-harness[transformers]'"
        ) from error

    def fetch() -> str:
        return str(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))

    try:
        return Path(watched(fetch, repository, "model", most=most))
    except GatedRepoError as error:  # a kind of RepositoryNotFoundError
        raise ModelError(
            f"{repository}: gated on the Hugging Face hub; ask for access on its page, then run: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{repository}: no such folder, and no such model on the Hugging Face hub (or a private one: hf auth login)"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repository}: has no revision {revision!r} on the Hugging Face hub") from error
    except LocalEntryNotFoundError as error:
        reason = f" ({told})" if (told := untrusted(error)) else ""
        raise ModelError(
            f"{repository}: no such folder here, the Hugging Face hub cannot be reached{reason} and nothing is cached; "
            f"give the model's folder, or run where there is a network: hf download {repository}"
        ) from error
    except Exception as error:  # of an answer that makes no sense the client lets through what that leads to
        raise ModelError(f"{repository}: the Hugging Face hub failed ({first_line(error)}); try again") from error
