"""The optimizer's part of a checkpoint, read without running what a stranger wrote into it.

torch describes its distributed checkpoints in ``.metadata``, which is a pickle: as such it could have any function
called. Here it can name only what torch puts there, and even that stands for plain records of ours, which are checked
before torch's own are made of them. The tensors themselves torch reads with ``weights_only``.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from harness.errors import RunError, first_line
from harness.files import read_bytes

_METADATA, _FILES = "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"

#: Sizes are tuples; a layout, a memory format and the writer's own path are never looked at.
_VALUES = {
    ("torch", "Size"): tuple,
    ("torch.serialization", "_get_layout"): str,
    (_METADATA, "_MEM_FORMAT_ENCODING"): int,
    ("pathlib", "PosixPath"): "".format,
    ("pathlib._local", "PosixPath"): "".format,
}

#: What the instructions of pickle's protocol 4 are that torch's description needs.
_OPCODES = frozenset(
    ["PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "BININT",
     "BININT1", "BININT2", "LONG1", "SHORT_BINUNICODE", "BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE",
     "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "STACK_GLOBAL", "NEWOBJ",
     "REDUCE", "BUILD"]
)  # fmt: skip
_MOST = 256 << 20


class OptimizerReader(FileSystemReader):
    """torch's reader of a folder; RunError for one whose description is not as torch writes it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        path = folder / ".metadata"
        try:
            self._metadata = _metadata(read_bytes(path, most=_MOST))
        except Exception as error:  # pickle raises whatever its instructions lead to
            raise RunError(
                f"{path}: not what torch writes ({first_line(error)}), so it is not read; give another out="
            ) from error

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return what ``.metadata`` said when the reader was made."""
        self._metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return self._metadata


class _Record:
    """What a pickle says of an object, without the object: its fields, each of which may be anything or missing."""

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)


class _Metadata(_Record):
    state_dict_metadata: object
    planner_data: object
    storage_data: object
    version: object


class _Tensor(_Record):
    properties: object
    size: object
    chunks: object


class _Properties(_Record):
    dtype: object
    layout: object
    requires_grad: object
    pin_memory: object

    def __setstate__(self, state: Any) -> None:
        self.dtype, self.layout, self.requires_grad, _, self.pin_memory = state


class _Chunk(_Record):
    offsets: object
    sizes: object


class _Index(_Record):
    fqn: object
    offset: object
    index: object


class _Place(_Record):
    relative_path: object
    offset: object
    length: object


_RECORDS: dict[tuple[str, str], type[_Record]] = {
    (_METADATA, Metadata.__name__): _Metadata,
    (_METADATA, TensorStorageMetadata.__name__): _Tensor,
    (_METADATA, TensorProperties.__name__): _Properties,
    (_METADATA, ChunkStorageMetadata.__name__): _Chunk,
    (_METADATA, MetadataIndex.__name__): _Index,
    (_METADATA, StorageMeta.__name__): _Record,
    (_FILES, _StorageInfo.__name__): _Place,
}
_R = TypeVar("_R", bound=_Record)


class _Names(pickle.Unpickler):
    """Gives records in the place of torch's classes, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or a function."""
        place = module, name
        if place in _RECORDS:
            return _RECORDS[place]
        if place in _VALUES:
            return _VALUES[place]
        found = getattr(torch, name, None) if module == "torch" and name.isidentifier() else None
        if isinstance(found, torch.dtype):
            return found
        raise ValueError(f"it names {module}.{name}")


def _metadata(content: bytes) -> Metadata:
    for opcode, _, _ in pickletools.genops(content):
        if opcode.name not in _OPCODES:
            raise ValueError(f"it has the instruction {opcode.name}")
    said = _is(_Names(io.BytesIO(content)).load(), _Metadata)
    return Metadata(
        {_text(name): _tensor(entry) for name, entry in _items(said.state_dict_metadata)},
        {_text(name): tuple(map(_text, parts)) for name, parts in _items(said.planner_data)},
        dict(_place(*each) for each in _items(said.storage_data)),
        version=_text(said.version),
    )


def _tensor(entry: object) -> TensorStorageMetadata:
    said = _is(entry, _Tensor)
    of = _is(said.properties, _Properties)
    if not isinstance(of.dtype, torch.dtype) or of.layout != "torch.strided" or of.requires_grad is not False:
        raise ValueError("it describes no plain tensor")
    if not isinstance(said.chunks, list):
        raise ValueError("it has no list where torch puts one")
    chunks = [_is(chunk, _Chunk) for chunk in said.chunks]
    found = [ChunkStorageMetadata(_size(chunk.offsets), _size(chunk.sizes)) for chunk in chunks]
    return TensorStorageMetadata(TensorProperties(of.dtype, pin_memory=bool(of.pin_memory)), _size(said.size), found)


def _place(key: object, value: object) -> tuple[MetadataIndex, _StorageInfo]:
    index, said = _is(key, _Index), _is(value, _Place)
    name = _text(said.relative_path)
    if not name.endswith(".distcp") or "/" in name or vars(said).keys() != _Place.__annotations__.keys():
        raise ValueError(f"it names the file {name!r}")
    if not isinstance(index.index, int | None):
        raise ValueError("it has no number where torch puts one")
    offset, length = _size((said.offset, said.length))
    found = MetadataIndex(_text(index.fqn), _size(index.offset), index.index)
    return found, _StorageInfo(name, offset, length)


def _is(said: object, kind: type[_R]) -> _R:
    if not isinstance(said, kind):
        names = {record: name for (_, name), record in _RECORDS.items()}
        raise ValueError(f"it has no {names[kind]} where torch puts one")
    return said


def _items(found: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(found, dict):
        raise ValueError("it has no dictionary where torch puts one")
    yield from found.items()


def _size(found: Any) -> torch.Size:
    if not isinstance(found, tuple) or not all(type(one) is int and one >= 0 for one in found):
        raise ValueError("it has no size where torch puts one")
    return torch.Size(found)


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise ValueError("it has no name where torch puts one")
    return found
