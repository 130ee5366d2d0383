"""Files of data sets on the Hugging Face hub, at a pinned revision, through the hub's own client and cache."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import limits
from harness.downloads import GivenUp, watched
from harness.errors import DataError, untrusted

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a data set repository on the hub.

    `repo` is ``owner/name``, `path` the file's path in it. `revision` should be a commit's full hash, which pins the
    content; a branch or tag works too, and the commit it stood for is what gets recorded. `sha256` is the digest of the
    file's bytes, checked after every download, or None where it is not known.
    """

    repo: str
    path: str
    revision: str
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits in lower case, not {self.sha256!r}")

    @property
    def url(self) -> str:
        """Where the file can be downloaded by hand; ``HF_ENDPOINT`` is respected."""
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
        return f"{endpoint}/datasets/{self.repo}/resolve/{self.revision}/{self.path}"


def download(hub: HubFile, name: str) -> tuple[Path, str]:
    """Return the local path of a file on the hub, from the cache if it is there, and the commit it comes from.

    `name` is the file's name in the layout of ``--data``, for the remedy in messages. The hub's client reads
    ``HF_ENDPOINT``, ``HF_HOME``, ``HF_HUB_OFFLINE`` and the user's token; the token goes nowhere else.

    Raises DataError where the client is not installed, the hub cannot be reached or refuses, or repository, revision
    or file do not exist.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise DataError(
            f"{name}: huggingface_hub is needed to download it; pip install 'posttrain-harness[hub]', "
            f"or give --data DIR with DIR/{name} in it"
        ) from error

    def fetch() -> str:
        return str(hf_hub_download(hub.repo, hub.path, repo_type="dataset", revision=hub.revision))

    try:
        with _quiet():
            found = Path(watched(fetch, hub.repo, "dataset", most=limits.DOWNLOAD.value))
    except Exception as error:  # the client lets errors of several network libraries through
        raise DataError(f"{name}: {_reason(hub, error)}; {_by_hand(hub, name)}") from error
    return found, _commit(found, hub)


def _commit(found: Path, hub: HubFile) -> str:
    """Return the commit in a path of the hub's cache, ``…/snapshots/COMMIT/PATH``."""
    commit = found.parts[-len(Path(hub.path).parts) - 1]
    return commit if _COMMIT.fullmatch(commit) else hub.revision


def _reason(hub: HubFile, error: Exception) -> str:
    """Return why a file could not be had. The errors' own texts are long, and may hold signed addresses."""
    from huggingface_hub import errors

    if isinstance(error, GivenUp):
        return f"{hub.repo} cannot be downloaded: {error}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"{hub.repo} is not in the hub's cache, and {_why_unreachable(error.__cause__)}"
    if isinstance(error, RuntimeError) and "client has been closed" in str(error):  # huggingface_hub 1, tried again
        return f"{hub.repo} is not in the hub's cache, and {_why_unreachable(error.__context__ or error)}"
    if isinstance(error, errors.GatedRepoError):
        return f"{hub.repo} is restricted: accept its terms on the hub and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no data set {hub.repo}, or it is private and HF_TOKEN is missing"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{hub.repo} has no revision {hub.revision} on the hub"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{hub.repo} has no file {hub.path} at revision {hub.revision}"
    if isinstance(error, errors.HfHubHTTPError):
        return f"the hub answered with status {error.response.status_code} for {hub.repo}"
    if isinstance(error, OSError) and error.strerror:
        return f"{hub.repo} cannot be stored: {error.strerror}: {error.filename}"
    return f"{hub.repo} cannot be downloaded: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _why_unreachable(cause: BaseException | None) -> str:
    from huggingface_hub import errors

    if isinstance(cause, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(cause, errors.HfHubHTTPError):
        return f"the hub answered with status {cause.response.status_code}"
    return f"the hub cannot be reached ({untrusted(cause) or type(cause).__name__})"


def _by_hand(hub: HubFile, name: str) -> str:
    """Return the command for a machine that reaches the hub, and how to use its result on one that does not."""
    target = "/".join(["DIR", *name.split("/")[:-1][:1]])
    command = ["hf", "download", "--repo-type", "dataset", "--revision", hub.revision, "--local-dir", target]
    return f"where it works, run `{shlex.join([*command, hub.repo, hub.path])}`, then give --data DIR"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client's log to itself unless a person is watching or has asked for it. Its bars do so on their own."""
    from huggingface_hub.utils import logging as hub_logging

    if sys.stderr.isatty() or "HF_HUB_VERBOSITY" in os.environ:
        yield
        return
    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(before)
