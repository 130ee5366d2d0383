"""Losses of preference tuning, as pure functions of log-probabilities.

Log-probabilities are those of whole responses: the sum over a response's tokens, its end token included, of
log p(token | what stands before it), one for each pair. Losses come back one for each pair, in fp32 (fp64 for fp64),
whatever the dtype of the log-probabilities, and on the device of the policy's.

torch is imported when a loss is computed, so that options name losses where it is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the loss of direct preference optimisation, −log σ(βΔ), for each pair.

    Δ = (log π(chosen) − log ρ(chosen)) − (log π(rejected) − log ρ(rejected)), with policy π and reference ρ.
    Rafailov et al. 2023, arXiv:2305.18290, equation 7; `preference_loss` of
    https://github.com/eric-mitchell/direct-preference-optimization.

    Arguments:
        policy_chosen, policy_rejected, reference_chosen, reference_rejected: summed log-probabilities, of one shape.
        beta: how strongly the policy is held to the reference, above 0.
        label_smoothing: how probable it is that a label is wrong, from 0 to ½. Above 0 the loss is conservative DPO,
            −(1 − ε) log σ(βΔ) − ε log σ(−βΔ) (Mitchell 2023, https://ericmitchell.ai/cdpo.pdf).

    Raises ValueError for a beta or label_smoothing out of range and for shapes that differ.
    """
    check_options(beta, label_smoothing)
    difference = _difference(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return _smoothed(lambda logits: -_logsigmoid(beta * logits), difference, label_smoothing)


def ipo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the loss of identity preference optimisation, (Δ − 1/(2β))², for each pair.

    Azar et al. 2023, arXiv:2310.12036, equation 17, whose τ is `beta`; Δ, arguments and errors as in `dpo_loss`. As in
    the paper and in https://github.com/eric-mitchell/direct-preference-optimization, Δ is that of sums. TRL takes Δ of
    averages over tokens: for its loss, give log-probabilities divided by the lengths of their responses.
    """
    check_options(beta, label_smoothing)
    difference = _difference(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return _smoothed(lambda logits: (logits - 1 / (2 * beta)).square(), difference, label_smoothing)


def hinge_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the hinge loss max(0, 1 − βΔ) for each pair.

    Liu et al. 2023 (RSO), arXiv:2309.06657, equation 10, after Zhao et al. 2023 (SLiC-HF), arXiv:2305.10425, whose γ is
    `beta`; the official code is that of TRL's ``loss_type="hinge"``. Δ, arguments and errors as in `dpo_loss`.
    """
    check_options(beta, label_smoothing)
    difference = _difference(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return _smoothed(lambda logits: (1 - beta * logits).relu(), difference, label_smoothing)


def robust_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
    label_smoothing: float,
) -> Tensor:
    """Return the loss of robust DPO, [−(1 − ε) log σ(βΔ) + ε log σ(−βΔ)] / (1 − 2ε), for each pair.

    Where labels are wrong with a probability of ε (`label_smoothing`, below ½), its expectation is DPO's under right
    ones; it may be below 0. Chowdhury et al. 2024, arXiv:2403.00409. Δ, arguments and errors as in
    `dpo_loss`.
    """
    check_options(beta, label_smoothing)
    logits = beta * _difference(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    right, wrong = -_logsigmoid(logits), -_logsigmoid(-logits)
    return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)


def simpo_loss(policy_chosen: Tensor, policy_rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """Return the loss of SimPO, −log σ(β(log π(chosen) − log π(rejected)) − γ), for each pair; no reference model.

    Meng et al. 2024, arXiv:2405.14734, equation 6; https://github.com/princeton-nlp/SimPO.

    Arguments:
        policy_chosen, policy_rejected: **average** log-probabilities over the tokens of each response, that is sums
            divided by the number of its tokens, of one shape.
        beta: scale of the rewards, above 0; the paper's are from 2 to 2.5.
        gamma: by how much the reward of the chosen response should lead, at least 0.
    """
    check_options(beta)
    chosen, rejected = _precise(policy_chosen, policy_rejected)
    return -_logsigmoid(beta * (chosen - rejected) - gamma)


def orpo_loss(policy_chosen: Tensor, policy_rejected: Tensor, beta: float) -> Tensor:
    """Return the loss of ORPO, −log p(chosen) − β log σ(log odds(chosen) − log odds(rejected)), for each pair.

    odds(p) = p / (1 − p), where p is the geometric mean of a response's token probabilities; no reference model.
    Hong et al. 2024, arXiv:2403.07691, equations 6 and 7, whose λ is `beta`; https://github.com/xfactlab/orpo.

    Arguments:
        policy_chosen, policy_rejected: **average** log-probabilities over the tokens of each response, that is sums
            divided by the number of its tokens, of one shape.
        beta: weight of the odds ratio beside the likelihood of the chosen response, above 0; the paper's is 0.1.
    """
    check_options(beta)
    chosen, rejected = _precise(policy_chosen, policy_rejected)
    return -chosen - beta * _logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def _log_odds(logprob: Tensor) -> Tensor:
    """Return log(p / (1 − p)); probabilities next to 1 are taken as the greatest below it."""
    import torch

    logprob = logprob.clamp(max=-torch.finfo(logprob.dtype).eps)
    return logprob - (-torch.expm1(logprob)).log()


def _logsigmoid(logits: Tensor) -> Tensor:
    from torch.nn.functional import logsigmoid

    return logsigmoid(logits)


def _smoothed(loss: Callable[[Tensor], Tensor], difference: Tensor, label_smoothing: float) -> Tensor:
    """Return the expected loss where each label is wrong with a probability of `label_smoothing`."""
    if label_smoothing == 0:
        return loss(difference)
    return (1 - label_smoothing) * loss(difference) + label_smoothing * loss(-difference)


def _difference(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor
) -> Tensor:
    """Return Δ: a response's two log-probabilities are close, so that they are subtracted from each other first."""
    chosen, rejected, reference, other = _precise(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return (chosen - reference) - (rejected - other)


def _precise(*logprobs: Tensor) -> list[Tensor]:
    """Return log-probabilities in fp32 at least, all on the first one's device."""
    import torch

    shapes = [tuple(one.shape) for one in logprobs]
    if len(set(shapes)) > 1:
        raise ValueError(f"log-probabilities of shapes {', '.join(map(str, shapes))}: they must be of one shape")
    return [one.to(logprobs[0].device, torch.promote_types(one.dtype, torch.float32)) for one in logprobs]


def check_options(beta: float, label_smoothing: float = 0.0) -> None:
    """Raise ValueError for options that no loss can have."""
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta must be above 0, not {beta}")
    if not 0 <= label_smoothing <= 0.5:
        raise ValueError(f"label_smoothing must be from 0 to 0.5, not {label_smoothing}")
