"""The reference model, wherever it is: in a cache, beside the policy, on another device, or below its adapter.

A reference computes as the policy does, with gradients on where the policy has them: compiled code is then the same, so
that the two agree to the bit while their weights do.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.errors import ConfigError, DataError, ModelError
from harness.models import ModelFolder, find_model
from harness.training.batch import Batch, steps_in_epoch
from harness.training.data.tokens import cache_folder
from harness.training.metrics import duration
from harness.training.model.flash import flash_in_use
from harness.training.model.network import Network, load_network, weights_dtype
from harness.training.parallel import Ranks, device_of
from harness.training.session import Session
from harness_dpo.data import Data
from harness_dpo.objective import Reference, known_beforehand, pair_logprobs
from harness_dpo.options import DPOOptions
from harness_dpo.rows import PairRows

Logprobs = npt.NDArray[np.float32]

_TOGETHER = 32  # microbatches between two writings of the cache
_SECONDS = 10.0  # between two lines that say how far it is


def reference_model(options: DPOOptions, session: Session) -> ModelFolder:
    """Return the model that is the reference; raise HarnessError for one that cannot be had with these options."""
    mode, name = options.reference, options.name
    if mode == "adapter":
        if not options.lora_rank:
            raise ConfigError(f"{name}.reference=adapter is the model below an adapter; give {name}.lora_rank too")
        if options.reference_model:
            raise ConfigError(
                f"{name}.reference=adapter is the model that is trained; leave {name}.reference_model out"
            )
    elif mode not in ("cached", "same"):
        try:
            device_of(mode)
        except ConfigError as error:
            raise ConfigError(f"{name}.reference={mode}: give cached, same, adapter, or a device ({error})") from error
        if session.world > 1:
            raise ConfigError(
                f"{name}.reference={mode}: on several GPUs it is sharded as the policy is; give same or cached"
            )
    if not options.reference_model:
        return session.model
    other = find_model(options.reference_model)
    if other.tokenizer.get_vocab() != session.tokenizer.get_vocab():
        raise ModelError(
            f"{other}: its tokenizer is not that of {session.model}, so that the two models do not see the same "
            "tokens; give a reference of the same family"
        )
    limit = other.context
    if limit is not None and options.sequence_length > limit:
        raise ConfigError(
            f"{name}.sequence_length={options.sequence_length} is above the {limit:,} tokens of the reference {other}"
        )
    return other


def open_reference(options: DPOOptions, model: ModelFolder, data: Data, ranks: Ranks) -> Reference:
    """Return what gives the log-probabilities of the reference `model`; where they are cached, put them into the rows.

    Raises HarnessError for a model that cannot be loaded, and a cache that cannot be written.
    """
    mode = options.reference
    model.check_vocabulary(data.documents.largest)
    if mode == "cached":
        logprobs = Cache(options, model, data, ranks).logprobs()
        for rows in (data.training, data.validation):
            if rows is not None:
                rows.reference = logprobs
        return known_beforehand
    if mode == "adapter":
        return without_adapter
    if mode != "same":
        ranks = replace(ranks, device=device_of(mode))
    return Copy(load_network(model.name, options, ranks, packed=True), ranks)


class Copy:
    """A second model, which stays as it is."""

    def __init__(self, network: Network, ranks: Ranks) -> None:
        self._network, self._ranks = network, ranks

    def __call__(self, policy: Network, batch: Batch) -> Tensor:
        """Return the log-probabilities of a microbatch's pairs, [pairs, 2], on the device that it is on."""
        if self._network.training != policy.training:
            self._network.train(policy.training)
        values, _ = self._network(_alone, batch.to(self._ranks.device), 1.0)
        result: Tensor = values.detach()
        return result.to(batch.input_ids.device, non_blocking=True)


def _alone(network: Network, batch: Batch, scale: float | Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Be the objective of a network that is only asked for log-probabilities."""
    return pair_logprobs(network, batch), {}


def without_adapter(policy: Network, batch: Batch) -> Tensor:
    """Return the log-probabilities under the policy's base: an adapter whose second matrices are 0 adds nothing."""
    seconds = [parameter.detach() for name, parameter in policy.lm.named_parameters() if ".lora_B" in name]
    kept = [tensor.clone() for tensor in seconds]
    try:
        for tensor in seconds:
            tensor.zero_()
        return pair_logprobs(policy, batch).detach()
    finally:
        for tensor, values in zip(seconds, kept, strict=True):
            tensor.copy_(values)


class Cache:
    """Log-probabilities of all pairs under a model, computed once and kept in a file.

    The file is named by the digest of all that they depend on: the model, the tokens, the prompt format, and how
    computing rounds, in float8 which pairs too. It is replaced as a whole, now and then while they are computed, so
    that an interrupted computation goes on from there; those still to come are NaN in it.
    """

    def __init__(self, options: DPOOptions, model: ModelFolder, data: Data, ranks: Ranks) -> None:
        self._options, self._model, self._data, self._ranks = options, model, data, ranks
        float8 = "" if options.float8 == "none" else f"float8 {options.float8}"
        rounded = [str(options.base_bits or ""), float8, flash_in_use() or ""]
        self._facts = {
            "model": model.digest,
            "data": data.digest,
            "prompt format": data.prompt_digest,
            "weights": " ".join([str(weights_dtype(options, ranks.device)), *filter(None, rounded)]),
            "version": "2",
        }
        if float8:  # those that are learned from are rounded, and those held out are not
            self._facts["choice of held-out pairs"] = data.held_out
        name = hashlib.sha256(json.dumps(self._facts).encode()).hexdigest()
        self._folder = cache_folder().parent / "reference"
        self._path = self._folder / f"{name}.safetensors"

    def logprobs(self) -> Logprobs:
        """Return them, float32 [pairs, 2] for all pairs that are rows (NaN for others), computing what is missing."""
        found = self._ranks.gathered(self._read() if self._ranks.main else None)[0]
        shape = len(self._data.documents) // 2, 2
        values: Logprobs = np.full(shape, np.nan, np.float32) if found is None else found
        missing = [
            (rows, [step for step in self._steps(rows) if np.isnan(values[rows.pairs[step]]).any()])
            for rows in (self._data.training, self._data.validation)
            if rows is not None
        ]
        if any(steps for _, steps in missing):
            self._compute(values, missing)
        return values

    def _steps(self, rows: PairRows) -> list[list[int]]:
        """Return all rows in the order of the first epoch's steps, or of a validation.

        In the microbatches that these are divided into 16-bit products round as they will for the policy, so that the
        first loss is log 2 to the bit.
        """
        if rows is not self._data.training:
            return [list(range(len(rows)))]
        size, seed = self._options.batch_size, self._options.seed
        return [rows.step(size, seed, step) for step in range(steps_in_epoch(len(rows), size))]

    def _compute(self, values: Logprobs, missing: list[tuple[PairRows, list[list[int]]]]) -> None:
        ranks, total, done = self._ranks, sum(len(step) for _, steps in missing for step in steps), 0
        self._say(f"reference: computing the log-probabilities of {total:,} pairs under {self._model}, once")
        network = load_network(self._model.name, self._options, ranks, packed=True)
        began = said = time.monotonic()
        for rows, steps in missing:
            learning = rows is self._data.training
            network.train(learning)
            for some in _batched(self._microbatches(rows, steps)):
                with torch.set_grad_enabled(learning):
                    found = [self._pairs(network, rows, part) for part in some]
                own = np.zeros((len(rows), 2), np.float32)
                for part, logprobs in zip(some, found, strict=True):
                    own[part] = logprobs.cpu().numpy()
                asked = sorted(set().union(*ranks.gathered([row for part in some for row in part])))
                every = ranks.total(torch.from_numpy(own).to(ranks.device)).cpu().numpy()[asked]
                self._refuse_not_finite(rows, asked, every)
                values[rows.pairs[asked]] = every
                if ranks.main:
                    self._write(values)
                done += len(asked)
                now = time.monotonic()
                if now - said > _SECONDS or done == total:
                    left = (now - began) * (total - done) / done
                    self._say(f"reference: {done:,} of {total:,} pairs, {duration(left)} left")
                    said = now
        del network
        gc.collect()  # compiled layers refer to themselves
        if ranks.device.type == "cuda":
            torch.cuda.empty_cache()

    def _microbatches(self, rows: PairRows, steps: list[list[int]]) -> Iterator[Sequence[int]]:
        ranks, size = self._ranks, self._options.microbatch_size
        return chain.from_iterable(rows.microbatches(step, size, ranks.rank, ranks.world) for step in steps)

    def _pairs(self, network: Network, rows: PairRows, part: Any) -> Tensor:
        batch = rows.batch(part, self._options.microbatch_size).to(self._ranks.device)
        values, _ = network(_alone, batch, 1.0)
        result: Tensor = values.detach()
        return result

    def _refuse_not_finite(self, rows: PairRows, asked: list[int], values: Logprobs) -> None:
        bad = [row for row, both in zip(asked, values, strict=True) if not np.isfinite(both).all()]
        if bad:
            raise ModelError(
                f"{self._model} gives no finite log-probability to {rows.describe(bad[0])}"
                f" (and {len(bad) - 1} more): not a model to train from"
            )

    def _read(self) -> Logprobs | None:
        """Return what is kept, None where there is nothing; say so of what cannot be used."""
        if not self._path.exists():
            self._tell_of_others()
            return None
        values = self._kept()
        if values is None:
            self._say(f"reference: {self._path} is damaged; computing it anew")
        return values

    def _kept(self) -> Logprobs | None:
        """Return what the file holds, None where it is missing or not as `_write` writes it."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, framework="numpy") as file:
                facts, values = file.metadata() or {}, file.get_tensor("logprobs")
        except (OSError, SafetensorError):
            return None
        whole = {**self._facts, "values": _digest(values)}
        if values.shape != (len(self._data.documents) // 2, 2) or not whole.items() <= facts.items():
            return None
        result: Logprobs = values
        return result

    def _tell_of_others(self) -> None:
        """Say so where the same data has log-probabilities that are out of date, of another model or the like."""
        from safetensors import SafetensorError, safe_open

        for path in sorted(self._folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="numpy") as file:
                    facts = file.metadata() or {}
            except (OSError, SafetensorError):
                continue
            differing = [name for name, value in self._facts.items() if facts.get(name) != value]
            if facts.get("path") == self._model.name and facts.get("data") == self._facts["data"]:
                self._say(f"reference: those kept in {path} are stale (another {', '.join(differing)}); not used")

    def _write(self, values: Logprobs) -> None:
        from safetensors.numpy import save_file

        aside, before = self._path.with_suffix(f".{os.getpid()}.tmp"), self._kept()
        if before is not None:  # another training may have computed what this one has not
            values = np.where(np.isnan(values), before, values)
        facts = {**self._facts, "path": self._model.name, "values": _digest(values)}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file({"logprobs": values}, aside, metadata=facts)
            os.replace(aside, self._path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise DataError(
                f"{self._folder}: log-probabilities cannot be kept there ({error.strerror or error}); "
                "make room, or set HARNESS_CACHE to another folder"
            ) from error

    def _say(self, text: str) -> None:
        if self._ranks.main:
            print(text, file=sys.stderr, flush=True)


def _digest(values: Logprobs) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def _batched(parts: Iterator[Any]) -> Iterator[list[Any]]:
    """Yield parts in lists of `_TOGETHER`."""
    while some := list(islice(parts, _TOGETHER)):
        yield some
