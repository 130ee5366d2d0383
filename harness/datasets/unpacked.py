"""Data files as streams of bytes, those packed with gzip or Zstandard unpacked."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from harness import limits
from harness.datasets.rows import unreadable
from harness.errors import DataError
from harness.files import open_read

#: Suffixes of packed files.
PACKED = (".gz", ".zst")

_CHUNK = 1 << 20

#: A packed file may unpack to so many times its size, and to `limits.UNPACKED` in any case; texts come to 3 to 30.
TIMES = 200


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes; a packed one is unpacked into an unnamed temporary file first.

    Raises DataError where it cannot be read or is not whole; a .zst file needs pyarrow (the extra ``hub``).
    """
    try:
        with open_read(path, links=True) as stream:
            if path.suffix.lower() not in PACKED:
                yield stream
                return
            with tempfile.TemporaryFile() as unpacked:
                unpack = _gunzip if path.suffix.lower() == ".gz" else _unpack_zst
                most = max(limits.UNPACKED.value, TIMES * stream.seek(0, os.SEEK_END))
                stream.seek(0)
                for chunk in unpack(path, stream):
                    unpacked.write(chunk)
                    if unpacked.tell() > most:
                        raise DataError(
                            f"{path}: unpacks to more than {limits.UNPACKED.told}, {TIMES} times its size and more; "
                            f"if it is yours, unpack it ({limits.UNPACKED})"
                        )
                unpacked.seek(0)
                yield unpacked
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); get it again") from error
    except OSError as error:
        raise unreadable(path, error) from error


def _gunzip(path: Path, stream: IO[bytes]) -> Iterator[bytes]:
    with gzip.open(stream) as packed:
        while chunk := packed.read(_CHUNK):
            yield chunk


def _unpack_zst(path: Path, stream: IO[bytes]) -> Iterator[bytes]:
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(f"{path}: pyarrow is needed to read it; pip install 'posttrain-harness[hub]'") from error
    source: Any = pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")
    while True:
        try:
            chunk = source.read(_CHUNK)
        except OSError as error:
            if error.errno is not None:
                raise
            raise DataError(f"{path}: not a whole Zstandard file ({error}); get it again") from error
        if not chunk:
            return
        yield chunk
