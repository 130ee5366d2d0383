"""Losses as the trainer takes them: objects with options of their own, and a word on what they need.

One of one's own is such an object too: see `harness_dpo.trainer.DPO`. The formulas are in `harness_dpo.formulas`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from harness_dpo.formulas import (
    check_options,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    orpo_loss,
    robust_loss,
    simpo_loss,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PairLogprobs:
    """What a loss is made of: a figure for each pair of a microbatch, tensors of one shape.

    `chosen` and `rejected` are the log-probabilities that the policy gives the responses, `reference_chosen` and
    `reference_rejected` those of the reference model, None for a loss without one. `chosen_tokens` and
    `rejected_tokens` are the numbers of tokens that they are sums over, end tokens included.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None

    def averages(self) -> PairLogprobs:
        """Return the same per token: each log-probability divided by the number of its response's tokens."""
        chosen, rejected = self.chosen_tokens, self.rejected_tokens
        return replace(
            self,
            chosen=self.chosen / chosen,
            rejected=self.rejected / rejected,
            reference_chosen=None if self.reference_chosen is None else self.reference_chosen / chosen,
            reference_rejected=None if self.reference_rejected is None else self.reference_rejected / rejected,
        )

    @property
    def reference(self) -> tuple[Tensor, Tensor]:
        """The reference model's, chosen and rejected."""
        if self.reference_chosen is None or self.reference_rejected is None:
            raise ValueError("this loss compares with a reference model, and there is none")
        return self.reference_chosen, self.reference_rejected


@dataclass(frozen=True)
class PreferenceLoss(ABC):
    """A loss of pairs; its fields are its options.

    `needs_reference` says whether it compares with a reference model; none is loaded for one that does not. `averages`
    says whether it is given log-probabilities per token, rather than sums. `beta` is the scale of rewards.

    Raises ValueError for options out of range, one line.
    """

    needs_reference: ClassVar[bool] = True
    averages: ClassVar[bool] = False

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_options(self.beta)

    @abstractmethod
    def __call__(self, pairs: PairLogprobs) -> Tensor:
        """Return one loss for each pair."""

    def rewards(self, pairs: PairLogprobs) -> tuple[Tensor, Tensor]:
        """Return the rewards of the chosen and of the rejected responses: β (log π − log ρ), without ρ β log π."""
        if not self.needs_reference:
            return self.beta * pairs.chosen, self.beta * pairs.rejected
        chosen, rejected = pairs.reference
        return self.beta * (pairs.chosen - chosen), self.beta * (pairs.rejected - rejected)


@dataclass(frozen=True)
class DPOLoss(PreferenceLoss):
    """`dpo_loss`; with `label_smoothing` above 0 conservative DPO."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_options(self.beta, self.label_smoothing)

    def __call__(self, pairs: PairLogprobs) -> Tensor:
        return dpo_loss(pairs.chosen, pairs.rejected, *pairs.reference, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class AverageDPOLoss(DPOLoss):
    """Length-normalised DPO: `dpo_loss` of log-probabilities per token.

    Lambert et al. 2024 (Tülu 3), arXiv:2411.15124, whose β is 5; open-instruct's ``dpo_norm`` and TRL's
    ``sigmoid_norm``.
    """

    averages: ClassVar[bool] = True

    beta: float = 5.0


@dataclass(frozen=True)
class IPOLoss(DPOLoss):
    """`ipo_loss` of sums, as in the paper."""

    def __call__(self, pairs: PairLogprobs) -> Tensor:
        return ipo_loss(pairs.chosen, pairs.rejected, *pairs.reference, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class AverageIPOLoss(IPOLoss):
    """`ipo_loss` of log-probabilities per token, which is TRL's ``ipo``."""

    averages: ClassVar[bool] = True


@dataclass(frozen=True)
class HingeLoss(DPOLoss):
    """`hinge_loss`."""

    def __call__(self, pairs: PairLogprobs) -> Tensor:
        return hinge_loss(pairs.chosen, pairs.rejected, *pairs.reference, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class RobustLoss(DPOLoss):
    """`robust_loss`, of labels of which one in ten is wrong unless told otherwise."""

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_smoothing == 0.5:
            raise ValueError("label_smoothing must be below 0.5: nothing can be learned from labels that are noise")

    def __call__(self, pairs: PairLogprobs) -> Tensor:
        return robust_loss(pairs.chosen, pairs.rejected, *pairs.reference, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class SimPOLoss(PreferenceLoss):
    """`simpo_loss`, with the options of the official code."""

    needs_reference: ClassVar[bool] = False
    averages: ClassVar[bool] = True

    beta: float = 2.0
    gamma: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.gamma < float("inf"):
            raise ValueError(f"gamma must be 0 or more, not {self.gamma}")

    def __call__(self, pairs: PairLogprobs) -> Tensor:
        return simpo_loss(pairs.chosen, pairs.rejected, self.beta, self.gamma)


@dataclass(frozen=True)
class ORPOLoss(PreferenceLoss):
    """`orpo_loss`."""

    needs_reference: ClassVar[bool] = False
    averages: ClassVar[bool] = True

    def __call__(self, pairs: PairLogprobs) -> Tensor:
        return orpo_loss(pairs.chosen, pairs.rejected, self.beta)


#: The losses, with the options that they have unless told otherwise, by the names that users type.
LOSSES: Mapping[str, PreferenceLoss] = {
    "dpo": DPOLoss(),
    "dpo_norm": AverageDPOLoss(),
    "robust": RobustLoss(),
    "ipo": IPOLoss(),
    "ipo_norm": AverageIPOLoss(),
    "hinge": HingeLoss(),
    "simpo": SimPOLoss(),
    "orpo": ORPOLoss(),
}
