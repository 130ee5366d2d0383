"""Checkpoints: `last/` to go on from and `best/` to keep, each an ordinary Hugging Face folder, replaced as a whole.

    out/
      training.json      what defines the training; another one is refused here
      metrics.jsonl  curve.png  curve.svg
      last/              the newest: weights, tokenizer, generation config, harness.json, and training/ to resume from
      previous/          the one before it, for the case that `last/` turns out damaged
      best/              the best on the validation data, without training/
      config.json, …     links to the files of best/ (of last/ where nothing is validated): `--model out/` evaluates it

A checkpoint is written beside its place and renamed into it. Its manifest, written last, tells a whole one from a
damaged one. `training/` holds the optimizer's state, sharded, in torch's distributed format, which any number of ranks
can read. A model with an adapter has it in ``adapter/`` too.

The training goes on while a checkpoint is written: what it changes is first copied to the host's memory. Where that
has no room for the copies, the training waits instead.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import torch

from harness.engines.models import quiet
from harness.errors import RunError, first_line
from harness.prompts import CHECKPOINT_FILE
from harness.training.adapters import ADAPTER, adapter_card, adapter_weights, ordinary, restore_adapter, save_adapter
from harness.training.background import Background, Copies, copies_fit, local_bytes
from harness.training.network import Network
from harness.training.optim import Optimizer
from harness.training.parallel import Ranks, copied, whole
from harness.training.weights import Keep, Weights

LAST, PREVIOUS, BEST = "last", "previous", "best"
TRAINING, MANIFEST, METRICS = "training.json", "manifest.json", "metrics.jsonl"
_STATE, _DAMAGED = "training", "damaged"
#: What of a training's identity is a digest, of the data for one: options that differ change it too.
_DIGESTS = ("data", "held_out", "model", "prompt_digest", "reference")

_WHOLE = 8 << 20  # files up to this size are digested in full
_PIECES, _PIECE = 256, 4096  # of larger ones so many pieces of so many bytes


@dataclasses.dataclass
class Progress:
    """How far a training has come.

    `step` counts optimizer steps taken, `tokens` those seen, `seconds` the time spent. `best` is the best validation
    figure so far and `best_step` when it was reached; `stale` counts the validations since. `pending` holds what has
    been summed up since the last line of metrics.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    pending: dict[str, float] = dataclasses.field(default_factory=dict)


class Checkpoints:
    """The output folder of a training, held against other processes.

    `identity` is what must be equal for a training to be resumed, as JSON data; `card` is what harness.json says. All
    ranks make one and call each method together. Raises RunError for a folder of another training, or of something else
    altogether, or one that another process holds.
    """

    def __init__(
        self, folder: Path, ranks: Ranks, *, identity: Mapping[str, Any], card: Mapping[str, Any], tokenizer: Any
    ) -> None:
        self.folder, self._ranks, self._card, self._tokenizer = folder, ranks.apart(), card, tokenizer
        self._lock: BinaryIO | None = None
        self._background, self._copies = Background(), Copies(ranks.device)
        self._beside: bool | None = None
        self._descriptions: dict[str, bytes] | None = None
        for category in (UserWarning, FutureWarning):  # what torch's writer says of itself, in whatever thread
            warnings.filterwarnings("ignore", category=category, module=r"torch\.distributed\.checkpoint")
        try:
            with self._together():
                if ranks.main:
                    self._open(json.loads(json.dumps(identity)))
        except BaseException:
            self.close()
            raise

    def _open(self, identity: dict[str, Any]) -> None:
        path = self.folder / TRAINING
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists() and any(self.folder.iterdir()):
            raise RunError(f"{self.folder} holds something else already; give another out=")
        self._lock = path.open("a+b")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"another process is training into {self.folder}") from error
        self._lock.seek(0)
        found = self._lock.read()
        saved = (LAST, f"{LAST}.new", PREVIOUS, BEST, f"{BEST}.new", f"{BEST}.old", _DAMAGED)
        kept = any((self.folder / name).exists() for name in saved)
        if found and (kept or not _alike(found, identity)):
            self._compare(path, found, identity)
        else:  # nothing was begun here, or it came to nothing
            self._lock.truncate(0)
            self._lock.write(json.dumps(identity, indent=2).encode() + b"\n")
            self._lock.flush()

    def _compare(self, path: Path, found: bytes, identity: dict[str, Any]) -> None:
        try:
            before = json.loads(found)
        except ValueError as error:
            raise RunError(f"{path}: not JSON ({error}); give another out=") from error
        if not isinstance(before, dict):
            raise RunError(f"{path}: not what this version writes; give another out=")
        keys = sorted({*before, *identity}, key=lambda key: (key in _DIGESTS, key))  # options say more than digests
        changes = [
            f"{key} was {_short(before.get(key))} and is {_short(identity.get(key))}"
            for key in keys
            if before.get(key) != identity.get(key)
        ]
        if changes:
            raise RunError(f"{self.folder} is of another training ({'; '.join(changes)}); give another out=")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None or issubclass(kind, Exception):  # whoever presses Ctrl-C again does not want to wait
                self.finish()
        except RunError as problem:
            if error is None:
                raise
            print(f"warning: {problem}", file=sys.stderr, flush=True)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.close()

    def latest(self) -> Path | None:
        """Return the newest undamaged checkpoint, or None at a training's beginning.

        A damaged `last/` is set aside as `damaged/` with a warning. Raises RunError where all are.
        """
        found = None
        with self._together():
            if self._ranks.main:
                self._settle(BEST, f"{BEST}.old")
                found = self._newest()
        checkpoint: Path | None = self._ranks.gathered(found)[0]
        return checkpoint

    def _newest(self) -> Path | None:
        last, new, previous = (self.folder / name for name in (LAST, f"{LAST}.new", PREVIOUS))
        problems: dict[Path, str] = {}
        usable = None
        for path in (last, new, previous):
            problem = fault(path) if path.exists() else "missing"
            if problem is None:
                usable = path
                break
            if path.exists() and path != new:  # that one has not been whole yet
                problems[path] = problem
        if usable is None and problems:
            path, problem = next(iter(problems.items()))
            raise RunError(f"{path} is damaged ({problem}) and there is none before it; start anew with another out=")
        if usable is None:
            return None
        if last in problems:
            _remove(self.folder / _DAMAGED)
            last.rename(self.folder / _DAMAGED)
        if usable == new:
            return new.rename(last)
        if last in problems:
            print(f"warning: {last} is damaged ({problems[last]}); going on from {usable}", file=sys.stderr, flush=True)
        return usable

    def restore(self, checkpoint: Path, network: Network, optimizer: Optimizer) -> Progress:
        """Load optimizer, random states and adapter, if any, from a checkpoint and return how far it had come.

        Raises RunError for a checkpoint whose optimizer is another one.
        """
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.state_dict_loader import load

        state = checkpoint / _STATE
        content = json.loads((state / "progress.json").read_text())
        reader = FileSystemReader(state / "optimizer")
        try:
            load(optimizer.state, storage_reader=reader, no_dist=self._ranks.world == 1)
        except CheckpointException as error:
            said = first_line(_inner(error))
            raise RunError(f"{state} does not fit this training ({said}); give another out=") from error
        progress = Progress(**content)
        optimizer.steps = progress.step
        if adapter_weights(network.lm):
            restore_adapter(checkpoint / ADAPTER, network.lm)
        random = state / _random_file(self._ranks)
        if random.exists():  # of another number of ranks, the others start with their seeds
            _set_random_states(random)
        return progress

    @property
    def failed(self) -> bool:
        """Whether a checkpoint could not be written and `finish` has not said so yet."""
        return self._background.failed

    def save(self, network: Network, optimizer: Optimizer, progress: Progress, places: Sequence[str]) -> None:
        """Take all that belongs to a checkpoint as it is now, and begin to put it in the `places`, BEST or LAST.

        What was in LAST becomes PREVIOUS. Returns when training may change everything again; a checkpoint that is being
        written still is waited for first. Raises RunError if that one could not be written.
        """
        self.finish()
        if self._beside is None:
            weights = sum(weight.size for weight in ordinary(network.lm).values()) // self._ranks.world
            self._beside = copies_fit(weights + sum(map(local_bytes, optimizer.state.values())), self._ranks)
            if not self._beside and self._ranks.main:
                print("note: too little memory for copies; training waits for checkpoints", file=sys.stderr, flush=True)
        keep = self._copies.keep if self._beside else None
        parts: list[Callable[[Path], None]] = [Weights(network, self._ranks, keep).write]
        adapter = {name: whole(tensor).to("cpu", copy=True) for name, tensor in adapter_weights(network.lm).items()}
        if adapter:
            card = adapter_card(network.lm, self._card.get("base_model", ""))
            parts.append(lambda folder: save_adapter(folder / ADAPTER, adapter, card) if self._ranks.main else None)
        state = self._state(optimizer, progress, keep) if LAST in places else []
        if self._ranks.main and self._descriptions is None:
            self._descriptions = _descriptions(self._tokenizer, self._card)
        self._copies.wait()
        work = partial(self._write, places, parts, state)
        if self._beside:
            self._background.start(work)
        else:
            work()

    def finish(self) -> None:
        """Return when nothing is being written any more; raise RunError if it could not be."""
        self._background.finish()

    def _write(
        self, places: Sequence[str], parts: Sequence[Callable[[Path], None]], state: Sequence[Callable[[Path], None]]
    ) -> None:
        for name in sorted(places):  # the best before the last, from which it could be made again
            self._replace(name, [*parts, *state] if name == LAST else parts)

    def _replace(self, name: str, parts: Sequence[Callable[[Path], None]]) -> None:
        """Write a checkpoint, part by part, and put it in its place; all ranks have the same parts."""
        new = self.folder / f"{name}.new"
        with self._together():
            if self._ranks.main:
                _remove(new)
                new.mkdir(parents=True)
        try:
            for write in parts:
                with self._together():  # a part may wait for all ranks: none begins one when another has failed before
                    write(new)
        except RunError:
            if self._ranks.main:
                _remove(new)  # on a full disk, half a checkpoint takes what the next one needs
            raise
        with self._together():
            if self._ranks.main:
                for file, content in (self._descriptions or {}).items():
                    (new / file).parent.mkdir(exist_ok=True)
                    (new / file).write_bytes(content)
                _write_manifest(new)
                self._settle(name, PREVIOUS if name == LAST else f"{BEST}.old")
                self._link(BEST if (self.folder / BEST).exists() else LAST)

    def _state(self, optimizer: Optimizer, progress: Progress, keep: Keep | None) -> list[Callable[[Path], None]]:
        """Return the parts that write the state of a training that a model folder does not hold, as it is now."""
        from safetensors.torch import save_file
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        ranks, random = self._ranks, _random_states(self._ranks.device)
        text = json.dumps(dataclasses.asdict(progress), indent=2) + "\n"
        state = optimizer.state
        if keep is not None:
            state = {name: copied(tensor, partial(keep, name)) for name, tensor in state.items()}

        def write_random(checkpoint: Path) -> None:
            (checkpoint / _STATE).mkdir(exist_ok=True)
            save_file(random, checkpoint / _STATE / _random_file(ranks))

        def write_optimizer(checkpoint: Path) -> None:
            folder = checkpoint / _STATE
            writer = FileSystemWriter(folder / "optimizer")
            try:
                save(state, storage_writer=writer, process_group=ranks.group, no_dist=ranks.world == 1)
            except CheckpointException as error:
                raise _as_os_error(error, folder) from error
            if ranks.main:
                (folder / "progress.json").write_text(text)

        return [write_random, write_optimizer]

    def _settle(self, name: str, old: str) -> None:
        """Put ``NAME.new`` in the place of NAME if it is whole; what was there becomes `old`.

        Comes to the same wherever it was interrupted before. Only `previous/` is kept.
        """
        place, new, before = (self.folder / part for part in (name, f"{name}.new", old))
        if new.exists() and fault(new) is None:
            if place.exists():
                _remove(before)
                place.rename(before)
            new.rename(place)
        if old != PREVIOUS and before.exists():
            if place.exists():
                _remove(before)
            else:
                before.rename(place)

    def _link(self, name: str) -> None:
        """Make the output folder itself a model folder, by links to the files of a checkpoint in it."""
        files = {path.name for path in (self.folder / name).iterdir() if path.is_file()} - {MANIFEST}
        for path in self.folder.iterdir():
            if path.is_symlink() and path.name not in files:
                path.unlink()
        for file in files:
            aside = self.folder / f".{file}.link"
            aside.unlink(missing_ok=True)
            with suppress(PermissionError, NotImplementedError):  # a file system without links does without
                aside.symlink_to(Path(name) / file)
                aside.replace(self.folder / file)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Run a part on every rank and fail on all if it fails on one, with one line that says where and why."""
        problem: str | None = None
        try:
            yield
        except RunError as error:
            problem = str(error)
        except Exception as error:  # torch's own writer wraps what the file system says
            problem = _cannot_write(self.folder, error)
            if problem is None:
                self._ranks.gathered(f"rank {self._ranks.rank} failed: {first_line(error)}")
                raise
        problems = [found for found in self._ranks.gathered(problem) if found]
        if problems:
            raise RunError(problems[0])


def fault(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint's files, or None: each must be there, of its size and its digest."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text())["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    for name, expected in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
        if _digest(path) != expected["digest"]:
            return f"the content of {name} has changed"
    return None


def _write_manifest(folder: Path) -> None:
    """Write names, sizes and digests of all files, when they have reached the disk."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "digest": _digest(path)}
    with (folder / MANIFEST).open("w") as file:
        json.dump({"files": files}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    """Return a sha256 of a file: all of it up to 8 MiB, beyond that of 256 evenly spaced pieces of 4 KiB."""
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for piece in range(_PIECES):
                file.seek(piece * (size - _PIECE) // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    return digest.hexdigest()


def _descriptions(tokenizer: Any, card: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a checkpoint that never change: the tokenizer's and harness.json."""
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            tokenizer.save_pretrained(folder)
        (Path(folder) / CHECKPOINT_FILE).write_text(json.dumps(card, indent=2) + "\n")
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _random_file(ranks: Ranks) -> str:
    return f"random-{ranks.rank:05d}-of-{ranks.world:05d}.safetensors"


def _random_states(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_states(path: Path) -> None:
    from safetensors.torch import load_file

    states = load_file(path)
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _cannot_write(folder: Path, error: Exception) -> str | None:
    """Return the one line for an error that comes from the file system, or None for any other."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    text = str(cause or error)
    if cause is None and "No space left" not in text and "os error" not in text.lower():
        return None
    full = (isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space left" in text
    remedy = "free some space and give the same command again" if full else "mend it, or give another out="
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else text.splitlines()[0]
    return f"cannot write the checkpoint in {folder}: {reason}; {remedy}; the checkpoint before it is kept"


def _as_os_error(error: Any, folder: Path) -> OSError:
    """Return what the file system said behind torch's CheckpointException, which is no Exception to Python.

    Its zip writer hides a full disk behind a complaint about positions, and another rank's error has lost its cause.
    """
    if shutil.disk_usage(folder).free < 1 << 20:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(errno.EIO, first_line(_inner(error)))


def _inner(error: Any) -> BaseException:
    """Return what the first rank that failed said, out of torch's CheckpointException."""
    inner: BaseException = next(iter(error.failures.values()))[0]
    return inner


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _alike(found: bytes, identity: Mapping[str, Any]) -> bool:
    """Return whether a training.json is of the same trainer as `identity`, and not some other file of that name."""
    with suppress(ValueError):
        before = json.loads(found)
        return isinstance(before, dict) and before.keys() == identity.keys()
    return False


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
