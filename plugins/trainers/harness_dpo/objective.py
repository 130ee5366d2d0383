"""What the loop is to make small: a preference loss over the log-probabilities of pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.training.batch import Batch
from harness.training.model.logprobs import selected_logprobs
from harness.training.model.network import Network
from harness_dpo.losses import PairLogprobs, PreferenceLoss

#: Gives the log-probabilities of a microbatch under the reference model, as `pair_logprobs` gives the policy's, without
#: a graph. It is handed the policy too.
Reference = Callable[[Network, Batch], Tensor]


def pair_logprobs(network: Network, batch: Batch) -> Tensor:
    """Return log p(response | prompt) of the sides of a microbatch's pairs, fp32 [pairs, 2]: chosen, rejected.

    It is the sum over a response's tokens, its end token included. The output layer is applied where there is a label,
    not to prompts; sums are taken in fp64, so that they do not depend on the order in which a GPU adds.
    """
    at, side, labels = batch.extra["at"], batch.extra["side"], batch.labels.flatten()
    hidden = network.hidden(batch).index_select(0, at)
    logprobs = selected_logprobs(hidden, network.lm_head, labels)
    return _by_side(batch, side, logprobs.double()).float()


def response_tokens(batch: Batch) -> Tensor:
    """Return the number of tokens of the sides of a microbatch's pairs, end tokens included, fp32 [pairs, 2]."""
    side = batch.extra["side"]
    return _by_side(batch, side, torch.ones(len(side), dtype=torch.float64, device=side.device)).float()


def _by_side(batch: Batch, side: Tensor, values: Tensor) -> Tensor:
    """Return the sums of values, fp64 [labels], by the sides of pairs that they count for, [pairs, 2]."""
    pairs = len(batch.extra["source"])
    return torch.zeros(2 * pairs, dtype=torch.float64, device=side.device).index_add(0, side, values).view(pairs, 2)


def known_beforehand(network: Network, batch: Batch) -> Tensor:
    """Be the reference whose log-probabilities the rows hold."""
    return batch.extra["reference"]


@dataclass
class Preference:
    """The mean of a preference loss over pairs, with what is known of them as metrics.

    ``rewards/chosen`` and ``rewards/rejected`` are the loss's (`PreferenceLoss.rewards`), ``rewards/margins`` their
    difference, and ``rewards/accuracies`` how often it is above 0 (never, where policy and reference are the same).
    ``accuracy`` is how often the policy itself finds the chosen response more probable than the rejected one, whatever
    the reference says (CS336's classification accuracy). Those of pairs are also given by `sources`, the files that
    they are from.
    """

    loss: PreferenceLoss
    sources: tuple[str, ...]
    reference: Reference = known_beforehand

    def __call__(self, network: Network, batch: Batch, scale: float | Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return `scale` · Σ loss over the pairs of a microbatch, and sums over them for the metrics."""
        references = self.reference(network, batch).unbind(1) if self.loss.needs_reference else ()
        chosen, rejected = pair_logprobs(network, batch).unbind(1)
        pairs = PairLogprobs(chosen, rejected, *response_tokens(batch).unbind(1), *references)
        if self.loss.averages:
            pairs = pairs.averages()
        losses = self.loss(pairs)
        with torch.no_grad():
            rewards = self.loss.rewards(pairs)
            found = {
                "loss": losses,
                "rewards/chosen": rewards[0],
                "rewards/rejected": rewards[1],
                "rewards/margins": rewards[0] - rewards[1],
                "rewards/accuracies": (rewards[0] > rewards[1]).float(),
                "accuracy": (chosen > rejected).float(),
            }
            sums = {name: values.detach().sum() for name, values in found.items()}
            for number, source in enumerate(self.sources):
                own = (batch.extra["source"] == number).float()
                for name in ("accuracy", "rewards/accuracies", "rewards/margins"):
                    sums[f"{name}/{source}"], sums[f"{name}/{source}#"] = (found[name] * own).sum(), own.sum()
        return scale * losses.sum(), sums
