"""Direct preference optimisation and its kin: tuning on pairs of responses of which one was preferred.

Rafailov et al. 2023, arXiv:2305.18290; https://github.com/eric-mitchell/direct-preference-optimization.

    from harness_dpo import DPO, PreferenceLoss, dpo_loss, per_instance_dpo_loss

Names are imported when they are first used, so that listing plugins needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.hookspecs import hookimpl
from harness.interfaces import Trainer

if TYPE_CHECKING:
    from harness_dpo.formulas import dpo_loss, hinge_loss, ipo_loss, orpo_loss, robust_loss, simpo_loss
    from harness_dpo.instance import per_instance_dpo_loss
    from harness_dpo.losses import LOSSES, PairLogprobs, PreferenceLoss
    from harness_dpo.trainer import DPO

__all__ = [
    "DPO",
    "LOSSES",
    "PairLogprobs",
    "PreferenceLoss",
    "dpo_loss",
    "harness_trainers",
    "hinge_loss",
    "ipo_loss",
    "orpo_loss",
    "per_instance_dpo_loss",
    "robust_loss",
    "simpo_loss",
]

_ELSEWHERE = {
    "DPO": "trainer",
    "LOSSES": "losses",
    "PairLogprobs": "losses",
    "PreferenceLoss": "losses",
    "per_instance_dpo_loss": "instance",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'formulas')}"), name)


@hookimpl
def harness_trainers() -> Iterable[Trainer]:
    """Return the trainer ``dpo``."""
    from harness_dpo.trainer import DPO

    return [DPO()]
