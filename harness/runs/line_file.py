"""Files of one JSON record a line, append-only: locked against a second writer, recovered after a crash."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from harness.errors import RunError
from harness.files import each_line, open_append, open_read, replace_file

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)

#: Seconds between attempts at a lock: `locked` holds it for an instant, which must not refuse a writer.
_WAITS = (0.01, 0.05, 0.1)

#: Made once, as `json.dumps` with options makes an encoder each time.
_encode = json.JSONEncoder(ensure_ascii=False).encode

T = TypeVar("T")

#: Is told of each whole line and its offset; raises ValueError for a line that is none of the file's.
See = Callable[[bytes, int], None]


class LineFile:
    """A file of records under way: what stands in it is seen once, and lines are added one by one, each flushed.

    `see` is told of each whole line in it; `what` names the records for messages (``sample``). A torn last line, which
    a killed process leaves behind, is cut off. Raises RunError when another process holds the file, when it is a link
    or no regular file, or when it holds anything else than such records.
    """

    def __init__(self, path: Path, see: See, what: str) -> None:
        self._path = path
        try:
            self._file: BinaryIO = open_append(path)
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
        with open_read(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # readers who ask at the same time share it
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def scan(file: BinaryIO, path: Path, see: See, what: str) -> int:
    """Tell `see` of the whole lines of `file` and return where they end; a torn last line is left out."""
    end, number = 0, 0
    file.seek(0)
    try:
        for number, line in enumerate(each_line(file), start=1):  # noqa: B007 - the message has it
            try:
                if not line.endswith(b"}\n"):
                    raise ValueError("the line is cut off")
                see(line, end)
            except ValueError:
                if not _torn(line) or (line.endswith(b"\n") and file.read(1)):
                    raise
                break
            end += len(line)
    except ValueError as error:
        message = f"{path}:{number}: not a {what} ({error}); delete the line to have it done again"
        raise RunError(message) from error
    return end


def _torn(line: bytes) -> bool:
    """Whether a line is the beginning of a record or, as a disk may leave it, nothing but zeros."""
    if not line.startswith(b'{"'):
        return line == b"{" or not line.strip(b"\0\n")
    if not line.endswith(b"\n"):
        return True
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def read_lines(path: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    """Yield the lines that begin at `offsets`."""
    try:
        with open_read(path) as file:
            for offset in offsets:
                file.seek(offset)
                yield file.readline()
    except OSError as error:
        raise cannot_read(path, error) from error


def encode_record(record: Mapping[str, Any]) -> bytes:
    """Return a record as JSON without a line end, in UTF-8 where it can be, escaped where it holds lone surrogates."""
    try:
        return _encode(record).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(record).encode("ascii")


def line_decoder(kind: type[T]) -> Callable[[bytes], T]:
    """Return a function from a line to a record; it raises ValueError for a line that is none."""
    fast = msgspec.json.Decoder(kind)

    def decode_line(text: bytes) -> T:
        try:
            return fast.decode(text)
        except ValueError:  # NaN and lone surrogates are in Python's JSON, and in our files, but not in the standard
            return msgspec.convert(_parsed(text), kind)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error

    return decode_line


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def json_lines(records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield each record as one line of JSON."""
    for record in records:
        yield encode_record(record) + b"\n"


def write_atomically(
    path: Path, chunks: Iterable[bytes], *, root: Path | None = None, others: Iterable[str] = ()
) -> None:
    """Write a file as `harness.files.replace_file` does; RunError when that fails.

    Whatever is raised, by `chunks` too, the old file is untouched and none is left beside it.
    """
    try:
        replace_file(path, chunks, root=root, others=others)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_read(path: Path, error: OSError) -> RunError:
    """Return the one line for a file that cannot be read."""
    return RunError(f"cannot read {path}: {error.strerror or error}")


def cannot_write(path: Path, error: OSError) -> RunError:
    """Return the one line for a file that cannot be written."""
    remedy = {
        errno.ENOSPC: "free some space and give the same command again",
        errno.EDQUOT: "free some of your quota and give the same command again",
        errno.EACCES: "choose another --out folder, or mend its permissions",
        errno.EROFS: "choose another --out folder",
    }.get(error.errno or 0, "choose another --out folder")
    return RunError(f"cannot write {path}: {error.strerror or error}; {remedy}")
