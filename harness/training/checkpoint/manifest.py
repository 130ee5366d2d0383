"""The manifest of a checkpoint: its files, their sizes and digests, by which a damaged one is told from a whole one."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import msgspec

from harness.files import read_bytes, sampled

MANIFEST = "manifest.json"


class _File(msgspec.Struct):
    """What a manifest says of a file."""

    bytes: int
    digest: str


class _Manifest(msgspec.Struct):
    """What manifest.json says: the checkpoint's files by their paths in it."""

    files: dict[str, _File]


def fault(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint's files, or None: each must be there, of its size and its digest.

    Nothing in the folder may be a link or no file, named by the manifest or not: it would lead elsewhere, or be waited
    for.
    """
    if (strange := _strange(checkpoint)) is not None:
        return strange
    try:
        files = msgspec.json.decode(read_bytes(checkpoint / MANIFEST, root=checkpoint), type=_Manifest).files
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, RecursionError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    for name, expected in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{MANIFEST} names {name}, which is not in its folder"
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected.bytes:
            return f"{name} has {path.stat().st_size} bytes instead of {expected.bytes}"
        if _digest(path) != expected.digest:
            return f"the content of {name} has changed"
    return None


def _strange(checkpoint: Path) -> str | None:
    """Return the first thing in a folder that is neither a file nor a folder, or None."""
    if checkpoint.is_symlink():
        return "it is a symbolic link"
    for path in sorted(checkpoint.rglob("*")):  # which follows no links
        kind = path.lstat().st_mode
        if stat.S_ISLNK(kind):
            return f"{path.relative_to(checkpoint)} is a symbolic link"
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            return f"{path.relative_to(checkpoint)} is no file"
    return None


def write_manifest(folder: Path) -> None:
    """Write names, sizes and digests of all files, when they have reached the disk."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[str(path.relative_to(folder))] = _File(path.stat().st_size, _digest(path))
    with (folder / MANIFEST).open("w") as file:
        json.dump(msgspec.to_builtins(_Manifest(files)), file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for content in sampled(path):
        digest.update(content)
    return digest.hexdigest()
