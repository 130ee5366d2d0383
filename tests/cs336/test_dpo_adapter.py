"""The assignment's loss of one preference pair through its adapter, on models and a pair of our own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from harness.models import find_model
from harness.testing.tiny import make_tiny_model
from tests.cs336.adapters import compute_per_instance_dpo_loss


def test_the_loss_of_one_pair(tmp_path: Path) -> None:
    """Two tiny GPT-2s that were saved and loaded, the loss against one computed from whole sequences."""
    tokenizer: Any = find_model(str(make_tiny_model(tmp_path / "tokenizer", bos=False))).tokenizer
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=len(tokenizer), n_layer=2, n_head=2, n_embd=16, n_positions=256, initializer_range=0.3,
        )  # fmt: skip
        GPT2LMHeadModel(config).save_pretrained(tmp_path / str(seed))
        models.append(AutoModelForCausalLM.from_pretrained(tmp_path / str(seed)))
    prompt, chosen, rejected = "A ship that has lost its sails", "drifts with the tide.", "eats no cheese."
    loss = compute_per_instance_dpo_loss(
        lm=models[0],
        lm_ref=models[1],
        tokenizer=tokenizer,
        beta=0.5,
        prompt=prompt,
        response_chosen=chosen,
        response_rejected=rejected,
    )

    template = Path(__file__).parents[2] / "prompts" / "alpaca_sft.prompt"
    ratios = []
    for response in (chosen, rejected):
        text = template.read_text().replace("{instruction}", prompt).replace("{response}", response).rstrip()
        ids = torch.tensor([tokenizer.encode(text + "<|end_of_text|>")])
        assert ids[0, -1] == tokenizer.eos_token_id
        with torch.no_grad():  # the models' own loss is the mean over all labels
            policy, reference = (-model(ids, labels=ids).loss.double() * (ids.shape[1] - 1) for model in models)
        ratios.append(policy.item() - reference.item())
    expected = math.log1p(math.exp(-0.5 * (ratios[0] - ratios[1])))
    assert loss.item() == pytest.approx(expected, abs=1e-4)
    assert abs(expected - math.log(2)) > 0.05
