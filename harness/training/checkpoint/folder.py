"""Checkpoints: `last/` to go on from and `best/` to keep, each an ordinary Hugging Face folder, replaced as a whole.

    out/
      training.json      what defines the training; another one is refused here
      metrics.jsonl  curve.png  curve.svg
      last/              the newest: weights, tokenizer, generation config, harness.json, and training/ to resume from
      previous/          the one before it, for the case that `last/` turns out damaged
      best/              the best on the validation data, without training/
      step-000200/       those that are to be kept by their step, without training/
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
import json
import os
import re
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

import msgspec
import torch

from harness import limits
from harness.adapted import ADAPTER
from harness.errors import RunError, first_line
from harness.files import open_append, read_json
from harness.models import quiet
from harness.prompts import CHECKPOINT_FILE
from harness.training.checkpoint.background import Background, Copies, copies_fit, local_bytes
from harness.training.checkpoint.kept import Kept, keep_step, remove
from harness.training.checkpoint.manifest import MANIFEST, fault, write_manifest
from harness.training.checkpoint.weights import Keep, Weights
from harness.training.model.adapters import (
    adapter_card,
    adapter_weights,
    ordinary,
    restore_adapter,
    save_adapter,
)
from harness.training.model.choice import CHOSEN
from harness.training.model.network import Network
from harness.training.optim import Optimizer
from harness.training.parallel import Ranks, copied, whole

LAST, PREVIOUS, BEST, STEP = "last", "previous", "best", "step"
TRAINING, METRICS = "training.json", "metrics.jsonl"
_STATE, _DAMAGED = "training", "damaged"
_DIGEST = re.compile("[0-9a-f]{64}")


#: More steps, tokens or seconds than any training takes.
_MOST = 1 << 53


@dataclasses.dataclass
class TrainingProgress:
    """How far a training has come.

    `step` counts optimizer steps taken, `tokens` those seen, `seconds` the time spent. `best` is the best validation
    figure so far, `best_loss` the validation loss beside it and `best_step` when it was reached; `stale` counts the
    validations since. `pending` holds what has been summed up since the last line of metrics.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    stale: int = 0
    pending: dict[str, float] = dataclasses.field(default_factory=dict)


class Checkpoints:
    """The output folder of a training, held against other processes.

    `identity` is what must be equal for a training to be resumed, as JSON data; `card` is what harness.json says, and
    `kept` which checkpoints stay. All ranks make one and call each method together. Raises RunError for a folder of
    another training, or of something else altogether, or one that another process holds.
    """

    def __init__(
        self, folder: Path, ranks: Ranks, *, identity: Mapping[str, Any], card: Mapping[str, Any], tokenizer: Any,
        kept: Kept = 0,
    ) -> None:  # fmt: skip
        self.folder, self._ranks, self._card, self._tokenizer = folder, ranks.apart(), card, tokenizer
        self._kept = kept
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

    def note(self, **facts: str) -> None:
        """Add to what harness.json says; before anything is saved."""
        self._card = {**self._card, **facts}

    def _open(self, identity: dict[str, Any]) -> None:
        path = self.folder / TRAINING
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists() and any(self.folder.iterdir()):
            raise RunError(f"{self.folder} holds something else already; give another out=")
        try:
            self._lock = open_append(path)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}; give another out=") from error
        for left in self.folder.glob(".*.link"):  # of a process that was killed while it linked
            if left.is_symlink():
                left.unlink()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"another process is training into {self.folder}") from error
        self._lock.seek(0)
        found = self._lock.read(limits.RECORD.value)
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
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path}: not JSON ({error}); give another out=") from error
        if not isinstance(before, dict):
            raise RunError(f"{path}: not what this version writes; give another out=")
        # Options say more than digests, of the data for one: those of which they decide differ too.
        keys = {*before, *identity} - {CHOSEN}
        changes = [
            f"{key} was {_short(before.get(key))} and is {_short(identity.get(key))}"
            for key in sorted(keys, key=lambda key: (_is_digest(identity.get(key, before.get(key))), key))
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
            remove(self.folder / _DAMAGED)
            last.rename(self.folder / _DAMAGED)
        if usable == new:
            return new.rename(last)
        if last in problems:
            print(f"warning: {last} is damaged ({problems[last]}); going on from {usable}", file=sys.stderr, flush=True)
        return usable

    def restore(self, checkpoint: Path, network: Network, optimizer: Optimizer) -> TrainingProgress:
        """Load optimizer, random states and adapter, if any, from a checkpoint and return how far it had come.

        Raises RunError for a checkpoint whose optimizer is another one.
        """
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict_loader import load

        from harness.training.checkpoint.optimizer_state import OptimizerReader

        state = checkpoint / _STATE
        progress = _read_progress(state / "progress.json")
        reader = OptimizerReader(state / "optimizer")
        try:
            load(optimizer.state, storage_reader=reader, no_dist=self._ranks.world == 1)
        except CheckpointException as error:
            said = first_line(_inner(error))
            raise RunError(f"{state} does not fit this training ({said}); give another out=") from error
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

    def save(self, network: Network, optimizer: Optimizer, progress: TrainingProgress, places: Sequence[str]) -> None:
        """Take all that belongs to a checkpoint as it is now, and begin to put it in the `places`, BEST or LAST.

        What was in LAST becomes PREVIOUS; with STEP beside LAST it is kept as that of its step. Returns when training
        may change everything again; a checkpoint that is being written still is waited for first. Raises RunError if
        that one could not be written.
        """
        self.finish()
        if self._beside is None:
            weights = sum(weight.size for weight in ordinary(network.lm).values()) // self._ranks.world
            self._beside = copies_fit(weights + sum(map(local_bytes, optimizer.state.values())), self._ranks)
            if not self._beside and self._ranks.main:
                print("note: too little memory for copies; training waits for checkpoints", file=sys.stderr, flush=True)
        keep = self._copies.keep if self._beside else None
        parts: list[Callable[[Path], None]] = [Weights(network.lm, network.shapes, self._ranks, keep).write]
        adapter = {name: whole(tensor).to("cpu", copy=True) for name, tensor in adapter_weights(network.lm).items()}
        if adapter:
            card = adapter_card(network.lm, self._card.get("base_model", ""))
            parts.append(lambda folder: save_adapter(folder / ADAPTER, adapter, card) if self._ranks.main else None)
        state = self._state(optimizer, progress, keep) if LAST in places else []
        if self._ranks.main and self._descriptions is None:
            self._descriptions = _descriptions(self._tokenizer, self._card)
        self._copies.wait()
        work = partial(self._write, places, parts, state, progress.step)
        if self._beside:
            self._background.start(work)
        else:
            work()

    def finish(self) -> None:
        """Return when nothing is being written any more; raise RunError if it could not be."""
        self._background.finish()

    def _write(
        self, places: Sequence[str], parts: Sequence[Callable[[Path], None]], state: Sequence[Callable[[Path], None]],
        step: int,
    ) -> None:  # fmt: skip
        for name in sorted({*places} - {STEP}):  # the best before the last, from which it could be made again
            self._replace(name, [*parts, *state] if name == LAST else parts)
        with self._together():
            if STEP in places and self._ranks.main:
                keep_step(self.folder / LAST, step, self._kept, _STATE)

    def _replace(self, name: str, parts: Sequence[Callable[[Path], None]]) -> None:
        """Write a checkpoint, part by part, and put it in its place; all ranks have the same parts."""
        new = self.folder / f"{name}.new"
        with self._together():
            if self._ranks.main:
                remove(new)
                new.mkdir(parents=True)
        try:
            for write in parts:
                with self._together():  # a part may wait for all ranks: none begins one when another has failed before
                    write(new)
        except RunError:
            if self._ranks.main:
                with suppress(OSError):  # on a full disk, half a checkpoint takes what the next one needs
                    remove(new)
            raise
        with self._together():
            if self._ranks.main:
                for file, content in (self._descriptions or {}).items():
                    (new / file).parent.mkdir(exist_ok=True)
                    (new / file).write_bytes(content)
                write_manifest(new)
                self._settle(name, PREVIOUS if name == LAST else f"{BEST}.old")
                self._link(BEST if (self.folder / BEST).exists() else LAST)

    def _state(
        self, optimizer: Optimizer, progress: TrainingProgress, keep: Keep | None
    ) -> list[Callable[[Path], None]]:
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
                remove(before)
                place.rename(before)
            new.rename(place)
        if old != PREVIOUS and before.exists():
            if place.exists():
                remove(before)
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


def _descriptions(tokenizer: Any, card: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a checkpoint that never change: the tokenizer's and harness.json."""
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            tokenizer.save_pretrained(folder)
        (Path(folder) / CHECKPOINT_FILE).write_text(json.dumps(card, indent=2) + "\n")
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _read_progress(path: Path) -> TrainingProgress:
    try:
        found = msgspec.convert(read_json(path), TrainingProgress)
        counts = (found.step, found.tokens, found.stale, found.seconds, found.best_step or 0)
        if not all(0 <= count < _MOST for count in counts) or (found.best is None) != (found.best_step is None):
            raise ValueError("it says what no training comes to")
        return found
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path} ({first_line(error)}); give another out=") from error


def _random_file(ranks: Ranks) -> str:
    return f"random-{ranks.rank:05d}-of-{ranks.world:05d}.safetensors"


def _random_states(device: torch.device) -> dict[str, torch.Tensor]:
    own = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **own}


def _set_random_states(path: Path) -> None:
    from safetensors.torch import load_file

    restore = {"cpu": torch.set_rng_state, "cuda": torch.cuda.set_rng_state}
    try:
        for device, state in load_file(path).items():
            if device == "cpu" or torch.cuda.is_available():
                restore[device](state)
    except Exception as error:  # safetensors and torch raise whatever their checks raise
        raise RunError(f"{path}: no random states ({first_line(error)}); give another out=") from error


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


def _alike(found: bytes, identity: Mapping[str, Any]) -> bool:
    """Return whether a training.json is of the same trainer as `identity`, and not some other file of that name."""
    with suppress(ValueError, RecursionError):
        before = json.loads(found)
        return isinstance(before, dict) and before.keys() ^ identity.keys() <= {CHOSEN}
    return False


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
