"""The one door to files that may be a stranger's: regular files alone are opened, and none through a link in a folder.

What is asked of a file is asked of the opened descriptor, so that it cannot become another in between. A `root` is a
folder that the user named: no link is followed below it, whether it names a folder or the file. Without one, the
file's own folder is taken. Everything that is refused is an OSError whose `strerror` says why.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from harness import limits

#: What `make_folder` calls the folder of a run before it is whole.
_BEGUN = r"\.\d{8}T\d{6}Z[\w.-]*\.\d+"

#: Bytes of JSON that take little memory, whatever they hold.
_SMALL = 1 << 20

#: Bytes of memory for a value behind a comma, a list and an object with a key or two.
_COSTS = ((b",", 32), (b"[", 64), (b"{", 200))

_WHOLE = 8 << 20  # files below this size are digested whole
_PIECES = 256  # of the larger ones that many evenly spaced pieces,
_PIECE = 4096  # of that many bytes each

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SAFE = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # opening must neither wait for a pipe's writer nor take a terminal
_NO_FILE = "no regular file; write its content to one first"
_LINK = "a symbolic link, which is not followed here; put a copy in its place"


def open_read(path: Path, *, root: Path | None = None, links: bool = False) -> BufferedReader:
    """Open a regular file for reading; with `links` it may be reached through links, as in a cache of models."""
    return os.fdopen(_open(path, os.O_RDONLY, root, links), "rb")


def open_given(path: Path) -> BinaryIO:
    """Open a file that the user names for reading: a regular one, or what a shell gives as ``<(…)`` or ``|``."""
    streams = ("/dev/fd", "/dev/stdin", "/proc/self/fd")
    return path.open("rb") if any(map(path.is_relative_to, streams)) else open_read(path, links=True)


def open_append(path: Path, *, root: Path | None = None) -> BinaryIO:
    """Open a regular file for reading and appending, made where there is none; never one that has a second name."""
    descriptor = _open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, root, False)
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise _refused(path, "a file of several names (hard links), of which another may be no record")
    return os.fdopen(descriptor, "a+b")


def read_bytes(path: Path, *, root: Path | None = None, links: bool = False, most: int | None = None) -> bytes:
    """Return the content of a regular file of at most `most` bytes, by default those of `limits.RECORD`."""
    bound = limits.RECORD.value if most is None else most
    with open_read(path, root=root, links=links) as file:
        content = file.read(min(os.fstat(file.fileno()).st_size, bound) + 1)  # no more room than there is to be read
        content += file.read(bound + 1 - len(content))
    if len(content) > bound:
        told = f"the {bound:,} bytes" if most is not None else f"{limits.RECORD.told} ({limits.RECORD})"
        raise _refused(path, f"larger than {told}, and such a file is not")
    return content


def sampled(path: Path) -> Iterator[bytes]:
    """Yield what identifies a file: all of it below 8 MiB, of a larger one 256 evenly spaced pieces of 4 KiB."""
    with open_read(path, links=True) as file:
        size = os.fstat(file.fileno()).st_size
        if size < _WHOLE:
            yield file.read()
            return
        for piece in range(_PIECES):
            file.seek(piece * (size - _PIECE) // (_PIECES - 1))
            yield file.read(_PIECE)


def read_json(path: Path, *, root: Path | None = None, links: bool = False) -> Any:
    """Return what a JSON file says; ValueError where it is none, or nested too deeply to be read."""
    content = read_bytes(path, root=root, links=links)
    check_values(content)
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def each_line(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file from where it stands, the last one perhaps without its end.

    Raises ValueError at one that is longer than `limits.LINE`, or of more values than `check_values` lets pass.
    """
    most = limits.LINE.value
    for line in iter(partial(file.readline, most + 1), b""):
        if len(line) > _SMALL:
            if len(line) > most:
                raise ValueError(f"a line is longer than {limits.LINE.told} ({limits.LINE})")
            check_values(line)
        yield line


def check_values(content: bytes, size: int = 0) -> None:
    """Raise ValueError for JSON that would take more memory than `limits.MEMORY`, and than four times `size`.

    Some characters become a value of a hundred bytes; commas in texts are taken for as much, which real files can bear.
    """
    if len(content) <= _SMALL:
        return
    taken = sum(cost * content.count(character) for character, cost in _COSTS)
    if taken > max(limits.MEMORY.value, 4 * size):
        raise ValueError(f"it has so many values that they would take more than {limits.MEMORY.told} ({limits.MEMORY})")


def replace_file(path: Path, chunks: Iterable[bytes], *, root: Path | None = None, others: Iterable[str] = ()) -> None:
    """Write a file beside `path` and rename it into place; folders that are missing below `root` are made.

    A link of that name is replaced, not followed. Whatever is raised, by `chunks` too, the old file is untouched and
    none is left beside it; what processes left there of it, or of the files called `others`, that were killed is
    removed.
    """
    aside = f".{path.name}.{os.getpid()}"
    with _folder(path, root, make=True) as folder:
        names = "|".join(map(re.escape, (path.name, *others)))
        clean(folder, re.compile(rf"\.(?:{names})\.\d+"))
        with suppress(FileNotFoundError):  # of an earlier process with our id
            os.unlink(aside, dir_fd=folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(aside, flags, 0o666, dir_fd=folder), "wb") as file:
                with suppress(OSError):  # a file system without locks does without
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside, dir_fd=folder)
            raise


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder in the place of ``~``; of a user whom nobody knows it stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def cache_root() -> Path:
    """Return where what can be made anew is kept: ``HARNESS_CACHE``, else ``harness`` in the user's cache folder."""
    given = os.environ.get("HARNESS_CACHE")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness"
    return expanded(base)


def make_folder(path: Path, fill: Callable[[Path], None]) -> bool:
    """Make a folder with what `fill` writes into it, under another name first; False where `path` is there already.

    Whatever `fill` raises, nothing is left; what processes left there that were killed is removed.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _folder(path, None) as parent:
        clean(parent, re.compile(rf"{_BEGUN}|\.{re.escape(path.name)}\.\d+"))
        if os.path.lexists(path):
            return False
        os.mkdir(aside.name, dir_fd=parent)
        held = os.open(aside.name, _FOLDER, dir_fd=parent)
        try:
            with suppress(OSError):  # a file system without locks does without
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fill(aside)
            os.rename(aside.name, path.name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException as error:
            with suppress(OSError):
                _empty(held)
                os.rmdir(aside.name, dir_fd=parent)
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another was faster
                return False
            raise
        finally:
            os.close(held)
    return True


def clean(folder: int, names: re.Pattern[str]) -> None:
    """Remove the files in an open folder whose names fit and end in the id of a process that is no more.

    One that is locked belongs to a process of another machine. A folder of such a name goes with the files in it.
    """
    with suppress(OSError):  # what cannot be removed stays
        for name in os.listdir(folder):
            if names.fullmatch(name) and not _alive(int(name.rpartition(".")[2])):
                with suppress(OSError):
                    _remove(name, folder)


def _remove(name: str, folder: int) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | _SAFE, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            _empty(descriptor)
            os.rmdir(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(descriptor)


def _empty(folder: int) -> None:
    for name in os.listdir(folder):
        os.unlink(name, dir_fd=folder)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _open(path: Path, flags: int, root: Path | None, links: bool) -> int:
    try:
        if links:
            descriptor = os.open(path, flags | _SAFE, 0o666)
        else:
            with _folder(path, root) as folder:
                descriptor = os.open(path.name, flags | os.O_NOFOLLOW | _SAFE, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP and not links:
            raise _refused(path, _LINK) from error
        if error.errno == errno.ENXIO:  # a pipe or a socket, to write to
            raise _refused(path, _NO_FILE) from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise _refused(path, "a folder" if stat.S_ISDIR(kind) else _NO_FILE)
    return descriptor


@contextmanager
def _folder(path: Path, root: Path | None, *, make: bool = False) -> Iterator[int]:
    """Open the folder of `path`, following no link below `root`."""
    parts = path.parent.relative_to(root).parts if root is not None else ()
    descriptor = os.open(path.parent if root is None else root, _FOLDER)
    try:
        for part in parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
            try:
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            except NotADirectoryError as error:  # what a link to a folder is called, too
                found = os.stat(part, dir_fd=descriptor, follow_symlinks=False).st_mode
                why = _LINK if stat.S_ISLNK(found) else "no folder"
                raise _refused(path, f"in {part}/, which is {why}") from error
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _refused(path: Path, why: str) -> OSError:
    return OSError(errno.EINVAL, why, str(path))
