"""The options of the trainer ``dpo``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from harness.config import configure
from harness.errors import nearest
from harness.training.options import TrainingOptions
from harness.training.schedule import Schedule
from harness_dpo.losses import LOSSES, PreferenceLoss


@dataclass(frozen=True)
class DPOOptions(TrainingOptions):
    """What preference tuning adds to the options of every training, and other defaults of those.

    Attributes:
        data: files of pairs (see `harness.training.data.pairs`), with the names of their columns where these are not
            the usual ones (columns).
        batch_size: pairs an optimizer step. microbatch_size: pairs that one GPU computes at a time on average: they are
            divided so that tokens come out even.
        sequence_length: pairs of which a side has more tokens are left out. share_prompt: whether the two sides of a
            pair share the computation of their prompt; the loss is the same.
        validation_pairs: how many pairs are held out of the data; ``best/`` is the checkpoint with the highest accuracy
            on them.
        loss: a name in `losses`. beta, label_smoothing (cDPO) and loss_options: options of the loss, in place of its
            own.
        reference: where the reference's log-probabilities come from: ``cached`` (computed once and kept on disk),
            ``same`` (a copy beside the policy), the name of another device (``cuda:1``), or ``adapter`` (the model
            below a low-rank adapter). All give the same loss.
        reference_model: another model than the one that training starts from, of the same tokenizer.
    """

    name: ClassVar[str] = "dpo"
    free: ClassVar[frozenset[str]] = TrainingOptions.free | {"reference", "reference_model", "share_prompt"}

    #: The losses that there are, by the names that users type, with the options that they have unless told otherwise.
    losses: ClassVar[Mapping[str, PreferenceLoss]] = LOSSES

    batch_size: int = 64
    microbatch_size: int = 16
    optimizer: Literal["adamw", "rmsprop"] = "rmsprop"
    learning_rate: float = 1e-6
    schedule: Schedule = "linear"
    warmup: float = 0.1
    clip: float = 10.0
    validate_every: int = 50

    data: tuple[str, ...] = ()
    sequence_length: int = 1024
    share_prompt: bool = False
    validation_pairs: int = 200
    loss: str = "dpo"
    beta: float | None = None
    label_smoothing: float | None = None
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    reference: str = "cached"
    reference_model: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation_pairs < 0:
            raise ValueError(f"validation_pairs must be 0 or more, not {self.validation_pairs}")
        if self.share_prompt and self.attention == "flash":
            raise ValueError("share_prompt needs other keys than queries; give attention=varlen instead of flash")
        without = not self.preference.needs_reference
        if without and (self.reference != "cached" or self.reference_model):
            raise ValueError(f"loss={self.loss} compares with no reference; leave reference and reference_model out")

    @cached_property
    def preference(self) -> PreferenceLoss:
        """The loss with its options; ConfigError or ValueError where these do not fit."""
        name = f"{self.name}.loss={self.loss}"
        if self.loss not in self.losses:
            raise ValueError(f"{name}: there is no such loss{nearest(self.loss, self.losses)}")
        given = {option: getattr(self, option) for option in ("beta", "label_smoothing")}
        given = {option: value for option, value in given.items() if value is not None}
        if twice := sorted(given.keys() & self.loss_options.keys()):
            raise ValueError(f"{twice[0]} and loss_options.{twice[0]} are one option; give one of them")
        return configure(self.losses[self.loss], {**self.loss_options, **given}, name)

    def identity(self) -> dict[str, Any]:
        """Return the options on which it depends where a training ends, those of the loss among them."""
        options, chosen = super().identity(), dataclasses.asdict(self.preference)
        for name in ("beta", "label_smoothing", "loss_options"):
            del options[name]
            if name in chosen:
                options[name] = chosen.pop(name)
        return {**options, "loss_options": chosen} if chosen else options
