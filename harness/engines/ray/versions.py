"""What has to be alike on all machines of a cluster, and in one line what is not."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import harness
from harness.registry import DISTRIBUTION
from harness.version import __version__

#: What outputs depend on beside this package and the engine's own: alike among the replicas, needed only there.
LIBRARIES = ("vllm", "torch", "transformers", "tokenizers")

CODE = f"{DISTRIBUTION}'s code"


def own_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions, on this machine, of this package and of the `distributions` that the engine comes from."""
    found = {"Python": platform.python_version(), DISTRIBUTION: __version__, CODE: _code()}
    for name in distributions:
        found.setdefault(name, _version(name))
    return found


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that engines run with."""
    return {name: _version(name) for name in LIBRARIES}


def difference(node: str, theirs: Mapping[str, str], ours: Mapping[str, str], here: str) -> str | None:
    """Return in one line what differs on `node` from what there is `here`, None where nothing does."""
    different = [name for name in ours if name != "Python" and theirs.get(name) != ours[name]]
    if not different:
        return None
    if different == [CODE]:
        what = f"the code of {DISTRIBUTION} {__version__} is another"
    else:
        told = [name for name in different if name != CODE]
        what = ", ".join(f"{name} is {theirs.get(name, 'absent')} and not {ours[name]}" for name in told)
    return f"{node} differs from {here}: {what}; install the same there, or send it along with ray.runtime_env"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


@cache
def _code() -> str:
    """Return a digest of this package's source: two checkouts may have the same version and not the same code."""
    root, digest = Path(harness.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
