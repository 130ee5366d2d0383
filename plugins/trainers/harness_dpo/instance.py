"""The DPO loss of one pair, from two models and three texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.prompts import Document, find_format
from harness_dpo.formulas import dpo_loss


def per_instance_dpo_loss(
    lm: torch.nn.Module,
    lm_ref: torch.nn.Module,
    tokenizer: Any,
    beta: float,
    prompt: str,
    response_chosen: str,
    response_rejected: str,
) -> Tensor:
    """Return the DPO loss of one pair, a scalar in fp32 on the device of `lm`; gradients flow to `lm` alone.

    Prompt and responses stand in the Alpaca template, the end token behind them, as a model is trained by ``sft``. Both
    documents begin with the same tokens of the prompt, whose log-probabilities would cancel out and are left out.
    CS336 (spring 2024), assignment 5, problem ``dpo_loss``; the loss is `harness_dpo.dpo_loss`.

    Arguments:
        lm: the policy, a causal model as transformers have them: ``lm(input_ids).logits`` is [1, length, V].
        lm_ref: the reference model, of the same kind; it may be on another device.
        tokenizer: the tokenizer of both.
        beta: how strongly the policy is held to the reference, above 0.
        prompt, response_chosen, response_rejected: texts, without any template around them.

    Raises ModelError for a tokenizer without an end token.
    """
    template = find_format("alpaca_sft")
    documents = [template.document(prompt, response, tokenizer) for response in (response_chosen, response_rejected)]
    policy_chosen, policy_rejected = (_logprob(lm, document) for document in documents)
    with torch.no_grad():
        reference_chosen, reference_rejected = (_logprob(lm_ref, document) for document in documents)
    return dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)


def _logprob(lm: torch.nn.Module, document: Document) -> Tensor:
    """Return the summed log-probability of a document's response given its prompt, a scalar in fp32 or fp64."""
    device = next(lm.parameters()).device
    ids = torch.tensor([document.token_ids], device=device)
    logits: Tensor = lm(ids).logits[0, document.prompt_tokens - 1 : -1].to(device)
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return precise.log_softmax(-1).gather(-1, ids[0, document.prompt_tokens :, None]).sum()
