"""Preference tuning against TRL on one GPU, Llama-3-8B's shape with random weights: pairs a second and peak memory.

    python perf/dpo.py [--only NAME …] [--steps N] [--layers L]

Each row runs in a process of its own, one after the other, on the same GPU: 64 pairs a step of HH-like lengths (a
prompt of 60 tokens, responses log-normal about 67), RMSprop, clipping, β 0.1. "32 x 2" is two microbatches of 32 pairs.
Ours is `harness.training.loop.Loop.step`, whole, over the rows of ``harness train dpo``: exact fp32 masters, the test
for steps that are not finite, one line of metrics at the end. TRL's DPOTrainer keeps no masters. Its rows are left out
where it is not installed (TRL 1.16 with Liger 0.8 is what the printed ratios were made with).

"same" keeps the reference on the GPU beside the policy, "cached" has its log-probabilities beforehand (how fast these
were computed is ``reference_pairs_s``; it is no part of a step), "other GPU" has it on a second one. ``loss_0`` is the
loss of the first step, log 2 = 0.693147 where policy and reference agree to the bit. "shared" computes a prompt once
for both sides of its pair.

"modes" compares the ways to come by a reference's log-probabilities: largest differences to the policy's, in nats a
sequence, of a copy beside it, of a cache made in microbatches of another size, of prompts computed once for both sides,
and of compiled code without gradients.

"of matmul" is against what an 8192³ bf16 product reaches here. Needs torch and transformers.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

PAIRS = 64
PROMPT = 60

#: name → (reference, microbatch, options beside these)
OURS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ours same 32 x 2": ("same", 32, {}),
    "ours same 22 x 3": ("same", 22, {}),
    "ours same 16 x 4": ("same", 16, {}),
    "ours cached 32 x 2": ("cached", 32, {}),
    "ours cached 22 x 3": ("cached", 22, {}),
    "ours cached 16 x 4": ("cached", 16, {}),
    "ours cached 32 x 2 bf16 moments": ("cached", 32, {"moments": "bfloat16"}),
    "ours cached 64 x 1 selective": ("cached", 64, {"recompute": "selective"}),
    "ours cached 64 x 1 full": ("cached", 64, {"recompute": "full"}),
    "ours cached 32 x 2 full": ("cached", 32, {"recompute": "full"}),
    "ours same 32 x 2 shared": ("same", 32, {"share_prompt": True}),
    "ours cached 32 x 2 shared": ("cached", 32, {"share_prompt": True}),
    "ours other GPU 32 x 2": ("cuda:1", 32, {}),
}
#: name → (microbatch, activation checkpointing, Liger, reference computed beforehand)
TRL: dict[str, tuple[int, bool, bool, bool]] = {
    "TRL 1 x 64": (1, False, False, False),
    "TRL 8 x 8": (8, False, False, False),
    "TRL 8 x 8 checkpointing": (8, True, False, False),
    "TRL + Liger 8 x 8": (8, False, True, False),
    "TRL cached 16 x 4 checkpointing": (16, True, False, True),
}
CHECKS = ("modes",)

#: (ours, theirs, the ratio to reach)
RATIOS = [
    ("ours same 32 x 2", "TRL + Liger 8 x 8", 2.3),
    ("ours same 32 x 2", "TRL 1 x 64", 6.0),
    ("ours cached 32 x 2", "TRL + Liger 8 x 8", 3.2),
    ("ours cached 22 x 3", "TRL + Liger 8 x 8", 3.2),
    ("ours cached 32 x 2", "TRL cached 16 x 4 checkpointing", 3.2),
    ("ours same 32 x 2 shared", "TRL + Liger 8 x 8", 2.8),
    ("ours cached 32 x 2 shared", "TRL + Liger 8 x 8", 3.2),
    ("ours cached 64 x 1 full", "TRL cached 16 x 4 checkpointing", 1.0),
]


def response_lengths(draw: np.random.Generator, count: int) -> Any:
    """Return tokens of responses: log-normal, from 8 to 512, with a mean of 92."""
    return np.clip(draw.lognormal(4.2, 0.8, count).astype(np.int64), 8, 512)


def random_pairs(count: int, share: bool = False) -> Any:
    """Return rows of so many pairs of random tokens: BOS and prompt, the same on both sides, then a response."""
    from harness.training.pairs import Pair
    from harness.training.tokens import Tokens
    from harness_dpo.rows import PairRows

    draw = np.random.default_rng(0)
    lengths = 1 + PROMPT + response_lengths(draw, 2 * count) + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = draw.integers(0, 128_000, int(offsets[-1]), dtype=np.int32)
    for chosen in range(0, 2 * count, 2):
        first, second = (slice(offsets[side], offsets[side] + 1 + PROMPT) for side in (chosen, chosen + 1))
        ids[second] = ids[first]
    documents = Tokens(
        ids, offsets, np.full(2 * count, 1 + PROMPT, np.int32), ("random",), (2 * count,), 0, 0, 128_001
    )  # fmt: skip
    texts = [Pair("", "", "", "random", f"pair {number}") for number in range(count)]
    return PairRows(documents, texts, np.arange(count), np.zeros(count, np.int64), share=share)


def shape(layers: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=layers,
        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192, rms_norm_eps=1e-5,
        bos_token_id=128_000, eos_token_id=128_001, tie_word_embeddings=False, use_cache=False,
    )  # fmt: skip


def random_model(layers: int, attention: str, device: str = "cuda") -> Any:
    from transformers import AutoModelForCausalLM

    make: Any = AutoModelForCausalLM.from_config  # untyped
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = make(shape(layers), dtype=torch.bfloat16, attn_implementation=attention)
    torch.set_default_dtype(before)
    return model


def random_network(layers: int, options: Any, ranks: Any, like: Any = None) -> Any:
    """Return a network as the loop trains it, on the ranks' device, with the weights of `like` if that is given."""
    from harness.training.attention import implementation
    from harness.training.network import Network, prepared

    kind = implementation("auto", ranks.device, torch.bfloat16, True)
    model = random_model(layers, kind, str(ranks.device))
    if like is not None:
        model.load_state_dict(like.lm.state_dict())
    return prepared(Network(model), options, ranks)


def fill_cache(network: Any, rows: Any, options: Any, ranks: Any, steps: int) -> float:
    """Put the network's log-probabilities of the first steps' pairs into the rows; return pairs a second."""
    from harness_dpo.reference import Copy

    give = Copy(network, ranks)
    rows.reference = np.full((len(rows.documents) // 2, 2), np.nan, np.float32)
    seconds = []
    for step in range(steps):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for part in rows.microbatches(
            rows.step(options.batch_size, options.seed, step), options.microbatch_size, 0, 1
        ):  # fmt: skip
            values = give(network, rows.batch(part, options.microbatch_size).to(ranks.device))
            rows.reference[rows.pairs[part]] = values.float().cpu().numpy()
        seconds.append(time.perf_counter() - began)
    return PAIRS / statistics.median(seconds[1:] or seconds)


def run_ours(reference: str, microbatch: int, more: dict[str, Any], steps: int, layers: int) -> dict[str, float]:
    """Run whole steps of the loop and return seconds a step, and what else is known of them."""
    from harness.interfaces import TrainingRun
    from harness.training.attention import fastest_kernels
    from harness.training.checkpoint import Progress
    from harness.training.loop import Job, Loop, Signals, make_optimizer
    from harness.training.parallel import join
    from harness_dpo import DPO
    from harness_dpo.losses import dpo_loss
    from harness_dpo.objective import Preference
    from harness_dpo.reference import Copy

    options = DPO(batch_size=PAIRS, microbatch_size=microbatch, epochs=1000, log_every=10**6, validate_every=0, **more)
    ranks = join("cuda")
    rows = random_pairs(PAIRS * 100, options.share_prompt)
    rows.fit(options.batch_size, options.microbatch_size, 1, options.seed)
    found: dict[str, float] = {}
    seconds, tokens = [], []
    with fastest_kernels(ranks.device):
        network = random_network(layers, options, ranks)
        objective = Preference(dpo_loss, options.beta, 0.0, ("random",))
        if reference == "cached":
            found["reference_pairs_s"] = fill_cache(network, rows, options, ranks, steps)
        else:
            place = ranks if reference == "same" else replace(ranks, device=torch.device(reference))
            objective.reference = Copy(random_network(layers, options, place, network), place)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        job = Job(TrainingRun("", Path("."), {}), options, objective, rows, None, True, None, {}, {})
        nothing: Any = None
        loop = Loop(job, ranks, network, make_optimizer(network, options), nothing, Progress(), Signals())
        for _ in range(steps):
            torch.cuda.synchronize()
            began, before = time.perf_counter(), loop.progress.tokens
            loop.step()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
            tokens.append(loop.progress.tokens - before)
            found.setdefault("loss_0", loop.sums["loss"].item() / PAIRS)
    loop.tell(0.0)
    kept = seconds[3:] or seconds[-1:]
    width = rows.width * len(list(rows.microbatches(rows.step(PAIRS, options.seed, 0), microbatch, 0, 1)))
    return {
        "seconds": statistics.median(kept),
        "first": seconds[0],
        "width": rows.width,
        "fill": statistics.mean(tokens) / width,
        **found,
    }


def run_trl(
    microbatch: int, checkpointing: bool, liger: bool, cached: bool, steps: int, layers: int
) -> dict[str, float]:
    """Run TRL's DPOTrainer over pairs of random words of the same lengths and return seconds a step."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(128_256)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=words, bos_token="w128000", eos_token="w128001", pad_token="w128001")
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            times.append(time.perf_counter())

    draw = np.random.default_rng(0)
    count = PAIRS * steps

    def said(lengths: Any) -> list[str]:
        return ["".join(f" w{word}" for word in draw.integers(0, 128_000, length)) for length in lengths]

    columns = {
        "prompt": [text.strip() for text in said([PROMPT] * count)],
        "chosen": said(response_lengths(draw, count)),
        "rejected": said(response_lengths(draw, count)),
    }
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=microbatch,
        gradient_accumulation_steps=PAIRS // microbatch, max_steps=steps, bf16=True, learning_rate=1e-6, beta=0.1,
        gradient_checkpointing=checkpointing, use_liger_kernel=liger, precompute_ref_log_probs=cached, report_to=[],
        save_strategy="no", logging_steps=1, max_length=1024, optim="rmsprop", warmup_steps=1,
    )  # fmt: skip
    DPOTrainer(
        model=random_model(layers, "sdpa"), ref_model=random_model(layers, "sdpa"), args=config,
        train_dataset=Dataset.from_dict(columns), processing_class=tokenizer, callbacks=[Clock()],
    ).train()  # fmt: skip
    spans = [after - before for before, after in pairwise(times[1:])]
    return {"seconds": statistics.median(spans)}


def check_modes(layers: int) -> dict[str, float]:
    """Hold the ways to come by reference log-probabilities against those of the policy itself."""
    from harness.training.attention import fastest_kernels
    from harness.training.parallel import join
    from harness_dpo import DPO
    from harness_dpo.objective import pair_logprobs
    from harness_dpo.reference import Copy

    ranks = join("cuda")
    options = DPO(microbatch_size=16)
    with fastest_kernels(ranks.device):
        network = random_network(layers, options, ranks)
        copy = Copy(random_network(layers, options, ranks, network), ranks)

        def every(size: int, give: Callable[[Any], Any], share: bool = False) -> Any:
            rows = random_pairs(PAIRS * 100, share)
            rows.fit(PAIRS, size, 1, 0)
            values = np.full((len(rows), 2), np.nan, np.float32)
            for part in rows.microbatches(rows.step(PAIRS, 0, 0), size, 0, 1):
                values[part] = give(rows.batch(part, size).to(ranks.device)).detach().cpu().numpy()
            return values[np.isfinite(values).all(axis=1)]

        policy = every(16, lambda batch: pair_logprobs(network, batch))
        others = {
            "copy": every(16, lambda batch: copy(network, batch)),
            "cache_of_other_microbatches": every(8, lambda batch: copy(network, batch)),
            "shared_prompts": every(16, lambda batch: pair_logprobs(network, batch), share=True),
        }
        with torch.no_grad():
            others["without_gradients"] = every(16, lambda batch: pair_logprobs(network, batch))
    found = {f"nats_{name}": float(np.abs(values - policy).max()) for name, values in others.items()}
    return {**found, "nats_a_sequence": float(policy.mean())}


def matmul_rate() -> float:
    """Return the operations a second of an 8192³ bf16 product."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(50):
        a @ b
    torch.cuda.synchronize()
    return 50 * 2 * 8192**3 / (time.perf_counter() - began)


def work(name: str, steps: int, layers: int) -> dict[str, float]:
    """Return what the measurement called `name` finds."""
    if name == "modes":
        return check_modes(layers)
    if name in TRL:
        return run_trl(*TRL[name], steps, layers)
    return run_ours(*OURS[name], steps, layers)


def measure(name: str, steps: int, layers: int) -> None:
    """Print one measurement as a line of JSON."""
    rate = matmul_rate()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    found = work(name, steps, layers)
    if "seconds" in found:
        found["pairs_s"] = PAIRS / found["seconds"]
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps({"name": name, "matmul_tflops": round(rate / 1e12), **found}), flush=True)


def missing(name: str) -> str | None:
    """Return why a measurement cannot be made here, or None."""
    if name in TRL and not all(importlib.util.find_spec(part) for part in ("trl", "liger_kernel", "datasets")):
        return "TRL or Liger is not installed"
    if name in OURS and OURS[name][0].startswith("cuda:") and torch.cuda.device_count() < 2:
        return "there is one GPU"
    return None


def main() -> None:
    """Run the measurements one after the other and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*OURS, *TRL, *CHECKS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        measure(given.one, given.steps, given.layers)
        return
    results: dict[str, dict[str, float]] = {}
    for name in given.only or names:
        if reason := missing(name):
            print(f"{name}: left out, {reason}", flush=True)
            continue
        words = [sys.executable, __file__, "--one", name, "--steps", str(given.steps), "--layers", str(given.layers)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"name"')]
        print(lines[-1] if lines else f"{name}: failed with exit status {done.returncode}", flush=True)
        if lines:
            results[name] = json.loads(lines[-1])
    for ours, theirs, goal in RATIOS:
        if ours in results and theirs in results:
            ratio = results[ours]["pairs_s"] / results[theirs]["pairs_s"]
            print(f"{ours} / {theirs}: {ratio:.2f} (to reach: {goal})")


if __name__ == "__main__":
    main()
