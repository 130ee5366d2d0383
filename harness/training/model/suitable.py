"""Which models can be trained and measured here, found out by asking the model itself, in seconds, before any step.

The losses never build logits, and rows hold several documents. So a model has to come to logits by one product with its
output layer, its layers must take the attention that is given to them, and none may carry anything from one document of
a row to the next. What does not is refused in a line that says what it is about the model, and what can be done.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import HarnessError, ModelError, first_line
from harness.training.batch import Batch

#: What can be done about a model that cannot be computed with here.
ANOTHER = (
    "it can be evaluated (harness run), but not trained or measured here: take another model; docs/training.md lists "
    "the families"
)
_ALONE = "take another model (the trainer sft can do without borders: sft.packing=concat)"

#: Settings by which models multiply or divide their logits.
_FACTORS = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "logit_softcap")
_SINKS = ("sinks", "sink", "attention_sink_bias")


class NotApartError(ModelError):
    """A model that cannot keep the documents of a row apart; it can read them one by one."""


def logit_factor(lm: Any) -> float:
    """Return what a model multiplies its logits by, according to its configuration."""
    config, factor = lm.config.get_text_config(), 1.0
    for name, power in _FACTORS.items():
        value = getattr(config, name, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            factor *= float(value) ** power
    return factor


def refuse_unsuitable(lm: Any) -> None:
    """Raise ModelError for a model of whose parts one is known not to fit."""
    head, name = lm.get_output_embeddings(), type(lm).__name__
    if head is None or not isinstance(head, nn.Linear):
        raise ModelError(f"{name} has no output layer that is one matrix, of which the loss is computed; {ANOTHER}")
    if head.bias is not None:
        raise ModelError(f"{name}'s output layer has a bias, which the loss here does not compute; {ANOTHER}")
    config = lm.config.get_text_config()
    for option in _CAPS:
        if getattr(config, option, None) is not None:
            raise ModelError(
                f"{name} caps its logits ({option}={getattr(config, option)}), which the loss here does not compute; "
                f"{ANOTHER}"
            )
    for key, _ in lm.named_parameters():
        if key.rpartition(".")[2] in _SINKS:
            raise ModelError(f"{name}'s attention has sinks ({key}), which no kernel here computes; {ANOTHER}")


@torch.no_grad()
def refuse_other_logits(network: Any, model: str) -> None:
    """Raise ModelError for a `Network` whose logits are not its hidden states times its output layer."""
    lm = network.lm
    embeddings = lm.get_input_embeddings()
    ids = (torch.arange(12, device=embeddings.weight.device) * 7 + 3)[None] % embeddings.num_embeddings
    try:
        expected = lm(input_ids=ids, use_cache=False).logits[0].float()
        places = torch.arange(12, device=ids.device)[None]
        found = (network.hidden(Batch(ids, ids, places, None, 12)) @ network.lm_head.t()).float()
    except HarnessError as error:
        raise ModelError(f"{model}: {error}") from error
    except Exception as error:  # whatever a model's own code raises
        raise ModelError(
            f"{model}: its own code needs more than rows of tokens, such as a mask ({first_line(error)}); {ANOTHER}"
        ) from error
    if not _alike(found[:, : expected.shape[1]], expected, embeddings.weight.dtype):
        name = type(lm).__name__
        raise ModelError(
            f"{model}: {name} does more to its hidden states than to multiply them by its output layer; {ANOTHER}"
        )


@torch.no_grad()
def refuse_leaks(network: Any, model: str) -> None:
    """Raise NotApartError for a `Network` that does not keep documents apart which stand side by side in a row.

    Layers that carry a state, or that do not hand the borders on to their attention, do so silently: another first
    document then changes the hidden states of the second.
    """
    embeddings = network.lm.get_input_embeddings()
    device, lengths = embeddings.weight.device, [12, 4]
    places = torch.cat([torch.arange(length, device=device) for length in lengths])
    borders = torch.tensor([0, 12, 16], dtype=torch.int32, device=device)
    found = []
    for first in (1, 5):
        ids = (places * 7 + 3) % embeddings.num_embeddings
        ids[:12] = (places[:12] * first + first) % embeddings.num_embeddings
        try:
            found.append(network.hidden(Batch(ids[None], ids[None], places[None], borders, 12))[12:].float())
        except HarnessError as error:
            raise ModelError(f"{model}: {error}") from error
        except Exception as error:  # whatever a model's own code raises
            raise NotApartError(
                f"{model}: cannot read rows of several documents ({first_line(error)}); {_ALONE}"
            ) from error
    if not _alike(found[0], found[1], embeddings.weight.dtype):
        raise NotApartError(
            f"{model}: its layers carry something from one document of a row to the next (a state, or attention that "
            f"is not told where documents end); {_ALONE}"
        )


def _alike(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    allowed = 1e-4 if dtype == torch.float32 else 0.05  # experts may round otherwise
    # of broken weights, which give no numbers, whoever computes with them says where
    return not bool((found - expected).abs().max() > allowed * expected.abs().max())
