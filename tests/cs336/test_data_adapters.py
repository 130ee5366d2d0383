"""The assignment's data loader through its adapters, used as its public tests use them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from harness.models import find_model
from harness.testing.tiny import make_tiny_model
from tests.cs336.adapters import get_packed_sft_dataset, run_iterate_batches


def test_packed_rows_and_their_batches(tmp_path: Path) -> None:
    tokenizer = find_model(str(make_tiny_model(tmp_path / "model"))).tokenizer
    path = tmp_path / "texts.jsonl"
    pairs = [{"prompt": f"Count to {n}.", "response": " ".join(map(str, range(n)))} for n in range(3, 20)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    plain = get_packed_sft_dataset(tokenizer=tokenizer, dataset_path=path, seq_length=32, shuffle=False)
    shuffled = get_packed_sft_dataset(tokenizer=tokenizer, dataset_path=path, seq_length=32, shuffle=True)
    assert len(plain) == len(shuffled) > 16
    pairs_of_items = list(zip(plain, shuffled))  # type: ignore[call-overload]  # noqa: B905
    assert len(pairs_of_items) == len(plain)
    items = [[{k: v.tolist() for k, v in item.items()} for item in side] for side in zip(*pairs_of_items, strict=True)]
    assert items[0] != items[1]
    for before, after in zip(items[0], items[0][1:], strict=False):
        assert before["labels"][-1] == after["input_ids"][0]
        assert before["labels"][:-1] == before["input_ids"][1:]

    batches = run_iterate_batches(dataset=plain, batch_size=8, shuffle=True)
    assert len(batches) == math.ceil(len(plain) / 8)
    for number, batch in enumerate(batches):
        for name in ("input_ids", "labels"):
            assert batch[name].dtype == torch.int64
            assert number == len(batches) - 1 or batch[name].shape == (8, 32)
