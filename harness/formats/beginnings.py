"""The first record of a file, from its first bytes alone: what formats are recognised by."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.datasets.rows import unreadable
from harness.files import open_read

#: So much of a file is looked at to recognise its format.
_LOOKED_AT = 1 << 20

#: What may stand before the first object: brackets, and the name of a first list (``{"biology": [{``).
_BEFORE = re.compile(r'\s*(?:\{\s*"[^"\\]*"\s*:\s*)?\[\s*(?=\{)')


def start_of(path: Path) -> bytes:
    """Return the first MiB of a file, unpacked where it is packed with gzip; DataError where it cannot be read."""
    try:
        with open_read(path, links=True) as stream:
            if path.suffix.lower() != ".gz":
                return stream.read(_LOOKED_AT)
            with gzip.open(stream) as packed:
                return packed.read(_LOOKED_AT)
    except (EOFError, zlib.error, gzip.BadGzipFile):  # said by whoever reads all of it
        return b""
    except OSError as error:
        raise unreadable(path, error) from error


def first_record(start: bytes) -> Mapping[str, Any]:
    """Return the first object of JSON Lines, of an array, or of an object's first list; empty where there is none.

    >>> first_record(b'[{"id": 1}, {"id"'), first_record(b'{"biology": [{"id": 1}, {')
    ({'id': 1}, {'id': 1})
    >>> first_record(b"id,text")
    {}
    """
    text = start.decode("utf-8-sig", "ignore")
    before = _BEFORE.match(text)
    try:
        found, _ = json.JSONDecoder().raw_decode(text[before.end() if before else 0 :].lstrip())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
