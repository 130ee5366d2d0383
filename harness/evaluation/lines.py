"""Files of one JSON record a line, append-only: locked against a second writer, recovered after a crash."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from harness.errors import RunError

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)

#: Seconds between attempts at a lock: `locked` holds it for an instant, which must not refuse a writer.
_WAITS = (0.01, 0.05, 0.1)

#: Made once, as `json.dumps` with options makes an encoder each time.
_encode = json.JSONEncoder(ensure_ascii=False).encode

#: Is told of each whole line and its offset; raises ValueError for a line that is none of the file's.
See = Callable[[bytes, int], None]


class LineFile:
    """A file of records under way: what stands in it is seen once, and lines are added one by one, each flushed.

    `see` is told of each whole line in it; `what` names the records for messages (``sample``). A torn last line, which
    a killed process leaves behind, is cut off. Raises RunError when another process holds the file, or when a line
    other than the last cannot be read.
    """

    def __init__(self, path: Path, see: See, what: str) -> None:
        self._path = path
        try:
            self._file: BinaryIO = path.open("a+b")
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self._lock()
            self._end = scan(self._file, path, see, what)
            self._file.truncate(self._end)
        except BaseException:
            self._file.close()
            raise
        self._file.seek(0, os.SEEK_END)

    def _lock(self) -> None:
        for wait in (*_WAITS, None):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if wait is None:
                    message = f"another process is writing to {self._path.parent}; wait for it, or start a --fresh run"
                    raise RunError(message) from error
                time.sleep(wait)
                continue
            except OSError as error:
                if error.errno not in _NO_LOCKS:  # a file system without locks must do without
                    raise cannot_write(self._path, error) from error
            return

    def append(self, line: bytes) -> int:
        """Write one line and return its offset; RunError when the disk is full or gone (earlier lines are kept)."""
        start = self._end
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._end = start + len(line)
        return start

    def close(self) -> None:
        """Close the file and give up the lock."""
        try:
            self._file.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error


def locked(path: Path) -> bool:
    """Whether a process has the file at `path` open as a `LineFile`; False where there is none, or no locks."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # readers who ask at the same time share it
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def scan(file: BinaryIO, path: Path, see: See, what: str) -> int:
    """Tell `see` of the whole lines of `file` and return where they end; a torn last line is left out."""
    end = 0
    file.seek(0)
    for number, line in enumerate(file, start=1):
        try:
            if not line.endswith(b"}\n"):
                raise ValueError("the line is cut off")
            see(line, end)
        except ValueError as error:
            if line.endswith(b"\n") and file.read(1):
                message = f"{path}:{number}: not a {what} ({error}); delete the line to have it done again"
                raise RunError(message) from error
            break
        end += len(line)
    return end


def read_lines(path: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    """Yield the lines that begin at `offsets`."""
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            yield file.readline()


def encode_record(record: Mapping[str, Any]) -> bytes:
    """Return a record as JSON without a line end, in UTF-8 where it can be, escaped where it holds lone surrogates."""
    try:
        return _encode(record).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(record).encode("ascii")


def json_lines(records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield each record as one line of JSON."""
    for record in records:
        yield encode_record(record) + b"\n"


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file beside `path` and rename it into place; RunError when that fails.

    Whatever is raised, by `chunks` too, the old file is untouched and none is left beside it.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        with suppress(OSError):  # the folder may be none
            aside.unlink()
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def cannot_write(path: Path, error: OSError) -> RunError:
    """Return the one line for a file that cannot be written."""
    remedy = {
        errno.ENOSPC: "free some space and give the same command again",
        errno.EDQUOT: "free some of your quota and give the same command again",
        errno.EACCES: "choose another --out folder, or mend its permissions",
        errno.EROFS: "choose another --out folder",
    }.get(error.errno or 0, "choose another --out folder")
    return RunError(f"cannot write {path}: {error.strerror or error}; {remedy}")
