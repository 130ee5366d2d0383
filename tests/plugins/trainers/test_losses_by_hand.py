"""Every preference loss on one pair, against its formula written out in floats."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from harness_dpo.losses import LOSSES, PairLogprobs

#: log π and log ρ of chosen and rejected, and the numbers of their tokens.
CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, LONG, SHORT = -12.0, -9.0, -14.0, -8.0, 6.0, 4.0


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def smoothed(x: float, share: float) -> float:
    """Return what a loss of the margin `x` is where a share of the labels may be the other way round."""
    return -(1 - share) * math.log(sigmoid(x)) - share * math.log(sigmoid(-x))


#: What the policy has gained over the reference on the chosen response beyond the rejected one; the same per token.
MARGIN = (CHOSEN - REFERENCE_CHOSEN) - (REJECTED - REFERENCE_REJECTED)
PER_TOKEN = (CHOSEN - REFERENCE_CHOSEN) / LONG - (REJECTED - REFERENCE_REJECTED) / SHORT
OWN = CHOSEN / LONG - REJECTED / SHORT


def log_odds(average: float) -> float:
    return average - math.log(1 - math.exp(average))


def pair(reference: bool = True) -> PairLogprobs:
    given: dict[str, float] = {
        "chosen": CHOSEN, "rejected": REJECTED, "chosen_tokens": LONG, "rejected_tokens": SHORT,
        **({"reference_chosen": REFERENCE_CHOSEN, "reference_rejected": REFERENCE_REJECTED} if reference else {}),
    }  # fmt: skip
    return PairLogprobs(**{name: torch.tensor([value], dtype=torch.float64) for name, value in given.items()})


def loss(name: str, **options: Any) -> float:
    from harness.config import configure

    chosen = configure(LOSSES[name], options, name)
    given = pair(chosen.needs_reference)
    found = chosen(given.averages() if chosen.averages else given)
    assert found.shape == (1,)
    return float(found.item())


CASES: list[tuple[str, dict[str, float], float]] = [
    ("dpo", {}, smoothed(0.1 * MARGIN, 0)),
    ("dpo", {"beta": 0.3}, smoothed(0.3 * MARGIN, 0)),
    ("dpo", {"beta": 0.3, "label_smoothing": 0.2}, smoothed(0.3 * MARGIN, 0.2)),
    ("dpo", {"label_smoothing": 0.5}, smoothed(0.1 * MARGIN, 0.5)),
    ("dpo_norm", {}, smoothed(5 * PER_TOKEN, 0)),
    ("ipo", {"beta": 0.2}, (MARGIN - 1 / (2 * 0.2)) ** 2),
    ("hinge", {"beta": 0.2}, max(0.0, 1 - 0.2 * MARGIN)),
    ("hinge", {"beta": 0.001}, max(0.0, 1 - 0.001 * MARGIN)),
    ("simpo", {}, smoothed(2.0 * OWN - 0.5, 0)),
    ("simpo", {"beta": 1.5, "gamma": 0.0}, smoothed(1.5 * OWN, 0)),
]


@pytest.mark.parametrize(("name", "options", "expected"), CASES)
def test_by_hand(name: str, options: dict[str, float], expected: float) -> None:
    assert loss(name, **options) == pytest.approx(expected, rel=1e-6)


def test_robust_by_hand() -> None:
    """Chowdhury et al. 2024, arXiv:2403.00409: ((1 - ε) L(m) - ε L(-m)) / (1 - 2ε), one label in ten being wrong."""
    margin = 0.1 * MARGIN
    expected = (0.9 * smoothed(margin, 0) - 0.1 * smoothed(-margin, 0)) / 0.8
    assert loss("robust") == pytest.approx(expected, rel=1e-6)


def test_orpo_by_hand() -> None:
    """Hong et al. 2024, arXiv:2403.07691: the chosen response's loss a token, and β times that of the odds ratio."""
    ratio = log_odds(CHOSEN / LONG) - log_odds(REJECTED / SHORT)
    expected = -CHOSEN / LONG + 0.1 * smoothed(ratio, 0)
    assert loss("orpo") == pytest.approx(expected, rel=1e-6)


def test_rewards_by_hand() -> None:
    chosen, rejected = LOSSES["dpo"].rewards(pair())
    gained = (0.1 * (CHOSEN - REFERENCE_CHOSEN), 0.1 * (REJECTED - REFERENCE_REJECTED))
    assert (chosen.item(), rejected.item()) == pytest.approx(gained)
    chosen, rejected = LOSSES["simpo"].rewards(pair(reference=False).averages())
    assert (chosen.item(), rejected.item()) == pytest.approx((2 * CHOSEN / LONG, 2 * REJECTED / SHORT))


def test_which_need_a_reference_and_which_averages() -> None:
    assert {name for name, each in LOSSES.items() if not each.needs_reference} == {"simpo", "orpo"}
    assert {name for name, each in LOSSES.items() if each.averages} == {"dpo_norm", "ipo_norm", "simpo", "orpo"}
    with pytest.raises(ValueError, match="there is none"):
        LOSSES["dpo"](pair(reference=False))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dpo", {"beta": 0.0}),
        ("dpo", {"beta": -1.0}),
        ("dpo", {"beta": math.inf}),
        ("dpo", {"label_smoothing": -0.1}),
        ("dpo", {"label_smoothing": 0.6}),
        ("robust", {"label_smoothing": 0.5}),
        ("simpo", {"gamma": -0.5}),
        ("simpo", {"gamma": math.inf}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, float]) -> None:
    kind = type(LOSSES[name])
    with pytest.raises(ValueError, match="must be"):
        kind(**options)
