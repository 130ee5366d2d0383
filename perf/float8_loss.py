"""Losses on held-out texts of trainings in bf16 and in float8, which differ in nothing else.

    python perf/float8_loss.py --model DIR --data FILE --validation FILE [--shape 1.2B] [--steps 1000]

Each way is `harness train sft` in a process of its own, one after the other: eight rows of 1,024 tokens a step, all
tokens learned, AdamW at --rate with the recipe's cosine, validated ten times. With --shape it is a Llama of that size
with random weights, the same for all, that learns from the model's tokenizer alone. Printed are the losses at each
validation and that of the checkpoint by `harness loss`, all of them of products in bf16; a line of JSON a way, and one
of how far float8's are from bf16's. Exits 1 where tensorwise's checkpoint ends more than 0.2% away. Needs a GPU that
computes in float8, and torchao.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from beside_trl import SIZES, random_model

#: The most by which the held-out loss in float8 may differ from bf16's in the end.
WITHIN = 0.002


def random_folder(folder: Path, tokenizer: str, size: str) -> Path:
    """Write a model of that size with random weights and the vocabulary of another model's tokenizer."""
    from transformers import AutoConfig, AutoTokenizer

    load: Any = AutoTokenizer.from_pretrained  # untyped
    config: Any = AutoConfig.from_pretrained(tokenizer)
    SIZES[size] |= {"vocab_size": config.vocab_size}
    torch.manual_seed(0)
    lm = random_model(None, "sdpa", "cuda", size)
    for name in ("bos_token_id", "eos_token_id"):
        setattr(lm.config, name, getattr(config, name))
    lm.save_pretrained(folder)
    load(tokenizer).save_pretrained(folder)
    return folder


def trained(model: Path, out: Path, float8: str, given: argparse.Namespace) -> dict[str, Any]:
    """Train in one way and return its losses on what is held out, by step."""
    options = {
        "data": json.dumps([given.data]), "validation": json.dumps([given.validation]), "prompt_format": "plain",
        "loss_on": "all", "sequence_length": 1024, "batch_size": 8, "microbatch_size": 8, "epochs": 100,
        "max_steps": given.steps, "learning_rate": given.rate, "validate_every": max(given.steps // 10, 1),
        "float8": float8,
    }  # fmt: skip
    words = [sys.executable, "-m", "harness", "train", "sft", "--model", str(model), "--out", str(out)]
    words += [part for name, value in options.items() for part in ("--set", f"sft.{name}={value}")]
    began = time.perf_counter()
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"float8={float8} failed: {done.stderr.strip()[-2000:]}")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = {line["step"]: line["validation/loss"] for line in lines if "validation/loss" in line}
    seconds = round(time.perf_counter() - began, 1)
    words = [sys.executable, "-m", "harness", "loss", given.validation, "--model", str(out / "last"), "--loss", "all"]
    subprocess.run([*words, "--documents", str(out / "loss.jsonl")], stdout=subprocess.DEVNULL, check=True)
    documents = [json.loads(line) for line in (out / "loss.jsonl").read_text("utf-8").splitlines()]
    mean = sum(each["nats"] for each in documents) / sum(each["tokens"] for each in documents)
    return {"float8": float8, "losses": losses, "checkpoint": mean, "seconds": seconds}


def main() -> int:
    """Train in each way, print their losses, and return 1 where float8's are too far from bf16's."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", required=True)
    options.add_argument("--data", required=True)
    options.add_argument("--validation", required=True)
    options.add_argument("--shape", choices=SIZES)
    options.add_argument("--steps", type=int, default=1000)
    options.add_argument("--rate", type=float, default=2e-5)
    options.add_argument("--ways", nargs="+", default=["none", "tensorwise"], choices=["none", "tensorwise", "rowwise"])
    given = options.parse_args()
    last: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = random_folder(folder / "model", given.model, given.shape) if given.shape else Path(given.model)
        torch.cuda.empty_cache()
        for way in given.ways:
            found = trained(model, folder / way, way, given)
            last[way] = found["checkpoint"]
            print(json.dumps(found), flush=True)
    apart = {way: loss / last["none"] - 1 for way, loss in last.items() if way != "none" and "none" in last}
    print(json.dumps({"relative_difference": apart, "to_reach": WITHIN}))
    return int(abs(apart.get("tensorwise", 0.0)) > WITHIN)


if __name__ == "__main__":
    sys.exit(main())
