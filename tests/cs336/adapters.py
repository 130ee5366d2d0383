"""The adapters of CS336's alignment assignment of 2024 (``tests/adapters.py`` there), connected to this project.

Put this file in the place of the assignment's own and its public tests run unchanged, with this project installed.
"""

from __future__ import annotations

import os
from typing import Any

from harness.parsers import parse_choice, parse_last_number
from harness.training.data.packing import PackedDataset, iterate_batches
from harness_dpo import per_instance_dpo_loss


def get_packed_sft_dataset(
    tokenizer: Any, dataset_path: str | os.PathLike[str], seq_length: int, shuffle: bool
) -> PackedDataset:
    """Return the texts of a file in rows of `seq_length` tokens, documents shuffled before they are packed or not."""
    return PackedDataset(tokenizer, dataset_path, seq_length, shuffle)


def run_iterate_batches(dataset: Any, batch_size: int, shuffle: bool) -> Any:
    """Return the batches of one epoch over `dataset`, the last one short where rows are left."""
    return iterate_batches(dataset, batch_size, shuffle)


def run_parse_mmlu_response(mmlu_example: dict[str, Any], model_output: str) -> str | None:
    """Return the letter (A to D) of the option that `model_output` gives, or None where it gives none.

    `mmlu_example` has ``subject``, ``question``, ``options`` (four texts) and ``answer``.
    """
    return parse_choice(model_output, options=mmlu_example["options"])


def run_parse_gsm8k_response(model_output: str) -> str | None:
    """Return the last number in `model_output` as a plain decimal, or None where it has no number."""
    return parse_last_number(model_output)


def compute_per_instance_dpo_loss(
    lm: Any,
    lm_ref: Any,
    tokenizer: Any,
    beta: float,
    prompt: str,
    response_chosen: str,
    response_rejected: str,
) -> Any:
    """Return the DPO loss of one pair of responses, a scalar on the device of `lm`; `lm_ref` may be on another."""
    return per_instance_dpo_loss(lm, lm_ref, tokenizer, beta, prompt, response_chosen, response_rejected)
