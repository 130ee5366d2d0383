"""Texts as token ids: encoded once, kept on disk, mapped into memory.

A cache entry is a folder named by the digest of everything that the ids depend on: the bytes of the data files, how
their columns are read, the prompt format's text, the tokenizer with its chat template, and the versions of the
libraries. It is written aside and renamed into place, so a reader finds a whole entry or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unicodedata import normalize

import msgspec
import numpy as np
import numpy.typing as npt

from harness.datasets import file_sha256
from harness.errors import ConfigError, DataError
from harness.files import cache_root
from harness.prompts import PromptFormat, end_of
from harness.training.data.texts import Fits, Reading, Text, Texts

#: Raised when the same inputs would give other ids than before, or would be refused.
_VERSION = 5

_TOGETHER = 1024  # texts that are encoded in one call
_SETTLED = 2_000_000_000  # nanoseconds after which a change of a file is sure to have another time


@dataclass(frozen=True, eq=False)
class Tokens:
    """Documents as token ids, one after the other.

    `ids`, int32 [tokens], hold them: document i is ``ids[offsets[i]:offsets[i + 1]]``, from its BOS (where the
    tokenizer adds one) to its end token, and its first ``prompts[i]`` ids are the prompt's, as an evaluator sends them.
    `offsets` is int64 [documents + 1], `prompts` int32 [documents].

    `files` and `counts` hold the name and the number of documents of each file, in order. `separate` counts documents
    whose prompt and response had to be encoded apart (`harness.prompts.PromptFormat.documents`), `empty` those without
    a response. `end` is the id of the end token. `known` holds `digest` and `largest` where a cache knows them.
    `weights` says of each file how often an epoch holds its documents, once where it is empty. `gaps`, int64 [gaps, 2],
    are the ranges of `ids` behind the prompts that are no response: turns between responses that are learned.
    `readings` says what became of each file. `contents`, uint64 [documents, 2], are hashes of the prompt and of prompt
    and response, in which neither case nor white space counts.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    prompts: npt.NDArray[np.int32]
    files: tuple[str, ...]
    counts: tuple[int, ...]
    separate: int
    empty: int
    end: int
    known: tuple[str, int] | None = None
    weights: tuple[float, ...] = ()
    gaps: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    readings: tuple[Reading, ...] = ()
    contents: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 2), np.uint64))

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of tokens of each document, int64 [documents]."""
        return np.diff(self.offsets)

    @cached_property
    def digest(self) -> str:
        """The sha256 of ids, offsets and prompts."""
        return self.known[0] if self.known else _content_digest(self.ids, self.offsets, self.prompts, self.gaps)

    @cached_property
    def largest(self) -> int:
        """The largest id, -1 where there is none."""
        return self.known[1] if self.known else int(self.ids.max(initial=-1))

    def document(self, index: int) -> npt.NDArray[np.int32]:
        """Return the ids of a document."""
        place = range(len(self))[index]
        return self.ids[self.offsets[place] : self.offsets[place + 1]]

    @cached_property
    def _hidden(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The starts and ends of all ranges of `ids` that are no response, and how many tokens are in those before."""
        starts = np.sort(np.concatenate([self.offsets[:-1], self.gaps[:, 0]]))
        ends = np.sort(np.concatenate([self.offsets[:-1] + self.prompts, self.gaps[:, 1]]))
        return starts, ends, np.cumsum(ends - starts) - (ends - starts)

    def hidden(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return how many of the ids before each of `places` are no response's."""
        if not len(self):
            return np.zeros_like(places)
        starts, ends, before = self._hidden
        found = np.searchsorted(starts, places, side="right") - 1
        return np.asarray(before[found] + np.minimum(places, ends[found]) - starts[found])

    def learned(self, first: int, last: int) -> npt.NDArray[np.bool_]:
        """Return of each of ``ids[first:last]`` whether it is a response's."""
        starts, ends, _ = self._hidden
        found = np.ones(last - first, np.bool_)
        place = max(int(np.searchsorted(starts, first, side="right")) - 1, 0)
        while place < len(starts) and starts[place] < last:
            found[max(int(starts[place]) - first, 0) : max(int(ends[place]) - first, 0)] = False
            place += 1
        return found

    def place(self, index: int) -> str:
        """Return where a document comes from, without reading any file: ``train.jsonl, text 18``."""
        for name, count in zip(self.files, self.counts, strict=True):
            if index < count:
                return f"{name}, text {index + 1}"
            index -= count
        raise IndexError(f"document {index} past the end")

    def draw(self, seed: int = 0) -> npt.NDArray[np.int64]:
        """Return the numbers of the documents of an epoch, those of a file with a weight repeated or sampled.

        Of a weight of 2.5 every document stands twice in it and half of them, drawn from `seed`, a third time.
        """
        drawn, base = [np.zeros(0, np.int64)], 0
        weights = self.weights or [1.0] * len(self.counts)
        for number, (count, weight) in enumerate(zip(self.counts, weights, strict=True)):
            whole, part = divmod(weight, 1)
            more = round(part * count)
            some = permutation(count, seed, number)[:more] if more else np.zeros(0, np.int64)
            drawn += [base + np.tile(np.arange(count), int(whole)), base + np.sort(some)]
            base += count
        return np.concatenate(drawn)


def permutation(n: int, *seed: int) -> npt.NDArray[np.int64]:
    """Return the numbers from 0 to n - 1 in an order that depends on `seed` alone, on any machine.

    It is that of the raw output of numpy's Philox generator, whose stream numpy keeps the same from version to version.
    """
    keys: npt.NDArray[np.uint64] = np.random.Philox(seed=np.random.SeedSequence(seed)).random_raw(n)
    return stable_order(keys >> np.uint64(n.bit_length()))


def stable_order(keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the positions of `keys` in ascending order, equal ones in theirs.

    It sorts keys with their positions in the lower bits, which is several times faster than numpy's stable argsort.
    Keys are at least 0 and need, with the positions, no more than 64 bits.
    """
    bits = np.uint64(len(keys).bit_length())
    both = (keys.astype(np.uint64) << bits) | np.arange(len(keys), dtype=np.uint64)
    both.sort()
    return (both & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def cache_folder() -> Path:
    """Return where token ids are kept unless told otherwise: below ``HARNESS_CACHE``, else the user's cache folder."""
    return cache_root() / "tokens"


def tokenize(texts: Texts, prompt_format: PromptFormat, tokenizer: Any, *, cache: Path | None = None) -> Tokens:
    """Return the documents that `prompt_format` makes of texts, as token ids.

    With a `cache` folder they are encoded once, by one process while others wait for it, and mapped into memory; texts
    that are in the cache are not even read. Without one, or with a tokenizer that is not a fast one, they are encoded
    here and now. A fast tokenizer encodes on all cores.

    Raises DataError for texts that cannot be used (bad lines; a text that begins with the BOS or ends with the end
    token, which are added anyway) and for a cache folder that cannot be written, ConfigError for a text of several
    turns in a format of one, ModelError for a tokenizer without an end token or a chat template that does not fit.
    """
    if cache is None or not getattr(tokenizer, "is_fast", False):
        return _in_memory(texts, prompt_format, tokenizer)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        entry = cache / _key(texts, prompt_format, tokenizer, cache)
        tokens = _read(entry, texts)
        if tokens is None:
            with _alone(entry.with_suffix(".lock")):
                tokens = _read(entry, texts)
                if tokens is None:
                    tokens = _written(entry, texts, prompt_format, tokenizer)
    except OSError as error:
        raise DataError(
            f"{cache}: token ids cannot be kept there ({error.strerror or error}); "
            "make room, or set HARNESS_CACHE to another folder"
        ) from error
    if tokens.empty and not texts.empty:
        texts.check()  # encoded when empty responses were allowed: now they are refused by file and line
    return tokens


def fitting(prompt_format: PromptFormat, tokenizer: Any) -> Fits:
    """Return what says why a text cannot be used in `prompt_format`, for `harness.training.data.texts.read_texts`."""

    def fits(text: Text) -> str | None:
        return _border_fault(text, tokenizer) or prompt_format.fault(text.turns, tokenizer)

    return fits


@dataclass
class _Tally:
    """What is counted while texts are encoded; `gaps` are starts and ends by turns."""

    lengths: array[int] = field(default_factory=lambda: array("q"))
    prompts: array[int] = field(default_factory=lambda: array("i"))
    gaps: array[int] = field(default_factory=lambda: array("q"))
    contents: array[int] = field(default_factory=lambda: array("Q"))
    total: int = 0
    separate: int = 0
    empty: int = 0


class _Facts(msgspec.Struct):
    """What a cache entry's facts.json says of its arrays; `known` is their digest and the largest id."""

    counts: tuple[int, ...]
    separate: int
    empty: int
    end: int
    known: tuple[str, int]
    readings: tuple[Reading, ...] = ()


def _encoded(texts: Texts, prompt_format: PromptFormat, tokenizer: Any, tally: _Tally) -> Iterator[array[int]]:
    """Yield the ids of many documents at a time, and keep the tally."""
    for start in range(0, len(texts), _TOGETHER):
        some = texts[start : start + _TOGETHER]
        for index, text in enumerate(some, start):
            if (fault := _border_fault(text, tokenizer)) is not None:
                raise DataError(f"{texts.place(index)}: {fault}")
            tally.contents.extend(_contents(text))
            if text.history and prompt_format.single_turn:
                raise ConfigError(f"{texts.place(index)}: {prompt_format.no_history()}")
        ids = array("i")
        for document in prompt_format.documents([text.turns for text in some], tokenizer):
            ids.extend(document.token_ids)
            tally.lengths.append(len(document.token_ids))
            tally.prompts.append(document.prompt_tokens)
            tally.gaps.extend(tally.total + place for gap in document.gaps for place in gap)
            tally.total += len(document.token_ids)
            tally.separate += not document.joined
        tally.empty += sum(not text.response.strip() for text in some)
        yield ids


def _contents(text: Text) -> Iterator[int]:
    """Yield a hash of the prompt of a text, with all that stands before it, and one of prompt and response."""
    prompt = [text.system or "", *(message.content for message in text.history), text.prompt]
    for parts in (prompt, [*prompt, text.response]):
        said = "\0".join(" ".join(normalize("NFKC", part).casefold().split()) for part in parts)
        yield int.from_bytes(hashlib.blake2b(said.encode(), digest_size=8).digest(), "little")


def _border_fault(text: Text, tokenizer: Any) -> str | None:
    """Return what is wrong with a text that spells out the tokens that are put around every document, or None."""
    last = end_of(tokenizer)
    begin, end = tokenizer.bos_token, None if last is None else tokenizer.convert_ids_to_tokens(last)
    for how, name, found in (
        ("prompt begins", begin, text.prompt.startswith),
        ("response begins", begin, text.response.startswith),
        ("response ends", end, text.response.endswith),
    ):
        if name and found(name):
            return f"the {how} with {name!r}, which is added anyway; take it out"
    return None


def _in_memory(texts: Texts, prompt_format: PromptFormat, tokenizer: Any) -> Tokens:
    ids, tally = array("i"), _Tally()
    for some in _encoded(texts, prompt_format, tokenizer, tally):
        ids.extend(some)
    return Tokens(
        np.frombuffer(ids, np.int32),
        np.concatenate([[0], np.cumsum(np.frombuffer(tally.lengths, np.int64))]),
        np.frombuffer(tally.prompts, np.int32),
        tuple(str(file.path) for file in texts.files),
        texts.counts,
        tally.separate,
        tally.empty,
        end_of(tokenizer) or 0,
        weights=texts.weights,
        gaps=_pairs(tally.gaps),
        readings=texts.readings,
        contents=np.frombuffer(tally.contents, np.uint64).reshape(-1, 2),
    )


def _written(entry: Path, texts: Texts, prompt_format: PromptFormat, tokenizer: Any) -> Tokens:
    """Encode texts into a new cache entry and return what was written."""
    aside = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=".tmp", dir=entry.parent))
    try:
        tally = _Tally()
        with (aside / "ids.bin").open("wb") as stream:
            for some in _encoded(texts, prompt_format, tokenizer, tally):
                some.tofile(stream)
            stream.flush()
            os.fsync(stream.fileno())  # a crash of the machine leaves no entry that only looks whole
        np.save(aside / "offsets.npy", np.concatenate([[0], np.cumsum(np.frombuffer(tally.lengths, np.int64))]))
        np.save(aside / "prompts.npy", np.frombuffer(tally.prompts, np.int32))
        np.save(aside / "gaps.npy", _pairs(tally.gaps))
        np.save(aside / "contents.npy", np.frombuffer(tally.contents, np.uint64).reshape(-1, 2))
        written = (np.load(aside / f"{name}.npy", mmap_mode="r") for name in ("offsets", "prompts", "gaps"))
        ids = np.memmap(aside / "ids.bin", np.int32, mode="r") if tally.lengths else np.zeros(0, np.int32)
        known = (_content_digest(ids, *written), int(ids.max(initial=-1)))
        facts = _Facts(texts.counts, tally.separate, tally.empty, end_of(tokenizer) or 0, known, texts.readings)
        (aside / "facts.json").write_text(json.dumps(msgspec.to_builtins(facts)), encoding="utf-8")
        if entry.exists():  # damaged, or it would have been read
            shutil.rmtree(entry)
        aside.rename(entry)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    tokens = _read(entry, texts)
    if tokens is None:
        raise DataError(f"{entry}: what was written there cannot be read back; check the disk")
    return tokens


def _read(entry: Path, texts: Texts) -> Tokens | None:
    """Return a cache entry, mapped into memory; None where there is none, or one that is not whole or not as it was."""
    try:
        facts = msgspec.json.decode((entry / "facts.json").read_bytes(), type=_Facts)
        offsets: npt.NDArray[np.int64] = np.load(entry / "offsets.npy", mmap_mode="r", allow_pickle=False)
        prompts: npt.NDArray[np.int32] = np.load(entry / "prompts.npy", mmap_mode="r", allow_pickle=False)
        gaps: npt.NDArray[np.int64] = np.load(entry / "gaps.npy", mmap_mode="r", allow_pickle=False)
        contents: npt.NDArray[np.uint64] = np.load(entry / "contents.npy", mmap_mode="r", allow_pickle=False)
        size = (entry / "ids.bin").stat().st_size
        if len(facts.counts) != len(texts.files):
            return None
        if len(offsets) != len(prompts) + 1 or size != 4 * int(offsets[-1]) or len(prompts) != sum(facts.counts):
            return None
        ids: npt.NDArray[np.int32] = np.memmap(entry / "ids.bin", np.int32, mode="r", shape=(size // 4,))
    except (FileNotFoundError, ValueError, TypeError, IndexError, EOFError):
        return None
    files = tuple(str(file.path) for file in texts.files)
    return Tokens(
        ids, offsets, prompts, files, facts.counts, facts.separate, facts.empty, facts.end, facts.known, texts.weights,
        gaps, facts.readings, contents,
    )  # fmt: skip


def _pairs(flat: array[int]) -> npt.NDArray[np.int64]:
    return np.frombuffer(flat, np.int64).reshape(-1, 2) if flat else np.zeros((0, 2), np.int64)


def _content_digest(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for one in arrays:
        digest.update(np.ascontiguousarray(one).data)
    return digest.hexdigest()


def _key(texts: Texts, prompt_format: PromptFormat, tokenizer: Any, cache: Path) -> str:
    """Return the digest of all that the ids depend on."""
    import tokenizers
    import transformers

    parts = {
        "version": _VERSION,
        "files": [[_digest(file.path, cache), sorted(file.columns.items())] for file in texts.files],
        "rows": [texts.learn, texts.on_bad_rows, texts.empty and texts.on_bad_rows == "skip"],
        "prompt format": [prompt_format.name, prompt_format.digest],
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "special": [tokenizer.bos_token, end_of(tokenizer), tokenizer.all_special_tokens, tokenizer.chat_template],
        "libraries": [tokenizers.__version__, transformers.__version__],
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _digest(path: Path, cache: Path) -> str:
    """Return the sha256 of a data file, kept in the cache under what `stat` says of the file.

    A change of the content changes the time of the file's last change, which programs cannot set; of a file changed a
    moment ago nothing is kept, because the clock may not tell two changes apart.
    """
    before = _stat(path)
    known = cache / f"{hashlib.sha256(json.dumps(before).encode()).hexdigest()}.digest"
    if known.is_file() and len(kept := known.read_text(encoding="ascii")) == 64:
        return kept
    digest = file_sha256(path)
    if not os.access(cache, os.W_OK):  # one that others keep, which may still hold the entry
        return digest
    if _stat(path) == before and time.time_ns() - max(path.stat().st_mtime_ns, path.stat().st_ctime_ns) > _SETTLED:
        handle, aside = tempfile.mkstemp(dir=cache)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(digest)
        os.replace(aside, known)
    return digest


def _stat(path: Path) -> list[int | str]:
    found = path.stat()
    return [str(path.resolve()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock among the processes of this machine, and of others where the file system has locks for them."""
    import fcntl

    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
