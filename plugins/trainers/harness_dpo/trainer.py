"""The trainer ``dpo``: its options and its plan."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from harness import __version__
from harness.engines.models import model_digest
from harness.interfaces import TrainingRun
from harness.training.options import FREE, TrainingOptions
from harness.training.schedule import Schedule
from harness_dpo.data import Data, prepare

if TYPE_CHECKING:
    from harness.training.parallel import Ranks

#: Options that a training may be resumed with others of, and those whose digests say more.
_OTHER = FREE | {"data", "columns", "prompt_format", "reference", "reference_model", "share_prompt"}


@dataclass(frozen=True)
class DPO(TrainingOptions):
    """Direct preference optimisation.

    Attributes:
        data: files of pairs (see `harness.training.pairs`), with the names of their columns where these are not the
            usual ones (columns).
        prompt_format: how prompts are wrapped; by default what `harness.training.texts.training_format` chooses.
        batch_size: pairs an optimizer step. microbatch_size: pairs that one GPU computes at a time on average: they are
            divided so that tokens come out even.
        sequence_length: pairs of which a side has more tokens are left out. share_prompt: whether the two sides of a
            pair share the computation of their prompt; the loss is the same.
        validation_pairs: how many pairs are held out of the data; ``best/`` is the checkpoint with the highest accuracy
            on them.
        loss: ``dpo``, ``ipo`` or ``hinge`` (see `harness_dpo.losses`), with beta, and label_smoothing (cDPO).
        reference: where the reference's log-probabilities come from: ``cached`` (computed once and kept on disk),
            ``same`` (a copy beside the policy), the name of another device (``cuda:1``), or ``adapter`` (the model
            below a low-rank adapter). All give the same loss.
        reference_model: another model than the one that training starts from, of the same tokenizer.
    """

    name: ClassVar[str] = "dpo"

    batch_size: int = 64
    microbatch_size: int = 16
    optimizer: Literal["adamw", "rmsprop"] = "rmsprop"
    learning_rate: float = 1e-6
    schedule: Schedule = "linear"
    warmup: float = 0.1
    clip: float = 10.0
    validate_every: int = 50

    data: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    prompt_format: str | None = None
    sequence_length: int = 1024
    share_prompt: bool = False
    validation_pairs: int = 200
    loss: Literal["dpo", "ipo", "hinge"] = "dpo"
    beta: float = 0.1
    label_smoothing: float = 0.0
    reference: str = "cached"
    reference_model: str = ""

    def __post_init__(self) -> None:
        TrainingOptions.__post_init__(self)
        if not self.beta > 0:
            raise ValueError(f"beta must be above 0, not {self.beta}")
        if not 0 <= self.label_smoothing <= 0.5:
            raise ValueError(f"label_smoothing must be from 0 to 0.5, not {self.label_smoothing}")
        if self.sequence_length < 1:
            raise ValueError(f"sequence_length must be at least 1, not {self.sequence_length}")
        if self.validation_pairs < 0:
            raise ValueError(f"validation_pairs must be 0 or more, not {self.validation_pairs}")
        if self.share_prompt and self.attention == "flash":
            raise ValueError("share_prompt needs other keys than queries; give attention=varlen instead of flash")

    def plan(self, run: TrainingRun) -> str:
        """Return what training would do, and the first pair that it would be trained on."""
        return _describe(self, run, _prepared(self, run))

    def train(self, run: TrainingRun) -> Path:
        """Train, or go on training, and return the folder with the model."""
        from harness.training.loop import Job, train
        from harness_dpo.losses import LOSSES
        from harness_dpo.objective import Preference
        from harness_dpo.reference import open_reference

        data = _prepared(self, run)
        if os.environ.get("RANK", "0") == "0":
            import click

            click.echo(_describe(self, run, data), err=True)
        objective = Preference(LOSSES[self.loss], self.beta, self.label_smoothing, data.sources)

        chosen = _with_kernel(self)

        def prepare_reference(ranks: Ranks) -> None:
            objective.reference = open_reference(chosen, run, data, ranks) or objective.reference

        form = data.choice.format
        options = {name: value for name, value in dataclasses.asdict(self).items() if name not in _OTHER}
        identity = {
            "trainer": self.name, "model": model_digest(run.model), "data": data.digest, "prompt_digest": form.digest,
            "reference": model_digest(self.reference_model or run.model), "held_out": _held_out(data), **options,
        }  # fmt: skip
        card = {
            **form.card(), "trainer": self.name, "base_model": run.model, "recipe": run.recipe, "harness": __version__,
        }  # fmt: skip
        job = Job(
            run, chosen, objective, data.training, data.validation, True, data.tokenizer, identity, card,
            best="accuracy", highest=True, baseline=True, prepare=prepare_reference,
        )  # fmt: skip
        return train(job)


def _held_out(data: Data) -> str:
    """Return a digest of which pairs are held out."""
    pairs = b"" if data.validation is None else data.validation.pairs.tobytes()
    return hashlib.sha256(pairs).hexdigest()


def _prepared(options: DPO, run: TrainingRun) -> Data:
    from harness_dpo.reference import check_reference

    check_reference(options, run)
    return prepare(options, run)


def _with_kernel(options: DPO) -> DPO:
    """Return the options with a kernel for shared prompts, where they need one and leave the choice open."""
    from harness.training.network import weights_dtype
    from harness.training.parallel import device_of

    if not options.share_prompt or options.attention != "auto":
        return options
    device = device_of(options.device)
    fast = device.type == "cuda" and weights_dtype(options, device).itemsize == 2
    return dataclasses.replace(options, attention="varlen" if fast else "sdpa")


def _describe(options: DPO, run: TrainingRun, data: Data) -> str:
    from harness.training.outlook import Outlook, memory_text

    rows, held_out = data.training, data.validation
    outlook = Outlook.of(options, run.model, len(rows))
    world = outlook.world
    first = rows.step(options.batch_size, options.seed, 0)
    count = len(list(rows.microbatches(first, options.microbatch_size, 0, world)))
    alike = dataclasses.replace(options, microbatch_size=1, batch_size=count * world)  # in microbatches of one row
    memory = outlook.memory(alike, rows.width)
    if options.reference == "same":
        memory["reference"] = outlook.shape.parameters * outlook.weight_bytes / world / 2**30
        memory["total"] += memory["reference"]
    sources = ", ".join(f"{name} {number:,}" for name, number in zip(data.sources, data.pairs.counts, strict=True))
    left_out = ", ".join(f"{reason} {number:,}" for reason, number in data.pairs.left_out.items()) or "none"
    lines = [
        f"model       {outlook}",
        f"reference   {options.reference_model or 'the same model'} ({options.reference})",
        f"format      {data.choice.format.name} ({data.choice.reason})",
        f"data        {len(data.pairs):,} pairs: {sources}",
        f"left out    {left_out}; longer than {options.sequence_length:,} tokens {data.dropped:,}",
        f"training    {len(rows):,} pairs, {int(rows.tokens.sum()):,} tokens; "
        f"validation {0 if held_out is None else len(held_out):,} pairs",
        f"steps       {outlook.steps:,} of {options.batch_size} pairs ({count} x {rows.width:,} tokens on {world} of "
        f"{outlook.device.type}), {outlook.warmup_text}",
        f"memory      {memory_text(memory)}",
        "",
        *_first(options, data),
    ]
    return "\n".join(lines)


def _first(options: DPO, data: Data) -> list[str]:
    """Return the first pair of the first step as text."""
    from harness.training.outlook import shortened

    rows = data.training
    index = rows.step(options.batch_size, options.seed, 0)[0]
    pair = int(rows.pairs[index])
    chosen, rejected = (data.documents.document(2 * pair + side).tolist() for side in (0, 1))
    prompts = data.documents.prompts[2 * pair : 2 * pair + 2].tolist()
    parts = {"prompt": chosen[: prompts[0]], "chosen": chosen[prompts[0] :], "rejected": rejected[prompts[1] :]}
    shown = {name: shortened(repr(data.tokenizer.decode(ids)), 600) for name, ids in parts.items()}
    return [f"first pair ({rows.describe(index)}):", *(f"  {name:<8} {text}" for name, text in shown.items())]
