"""Preference tuning against TRL on one GPU, Llama-3-8B's shape with random weights: pairs a second and peak memory.

    python perf/dpo.py [--only NAME …] [--steps N] [--layers L] [--gpus N]

Each row runs in a process of its own, one after the other, on the same GPU: 64 pairs a step of HH-like lengths (a
prompt of 60 tokens, responses log-normal about 67), RMSprop, clipping, β 0.1. "32 x 2" is two microbatches of 32 pairs.
Ours is `harness.training.loop.Loop.step`, whole, over the rows of ``harness train dpo``: exact fp32 masters, the test
for steps that are not finite, one line of metrics at the end. TRL's DPOTrainer keeps no masters. Its rows are left out
where it is not installed (TRL 1.16 with Liger 0.8 is what the printed ratios were made with).

"same" keeps the reference on the GPU beside the policy, "cached" has its log-probabilities beforehand (how fast these
were computed is ``reference_pairs_s``; it is no part of a step), "other GPU" has it on a second one. ``loss_0`` is the
loss of the first step, log 2 = 0.693147 where policy and reference agree to the bit. "shared" computes a prompt once
for both sides of its pair.

"modes" compares the ways to come by a reference's log-probabilities, as the trainer takes them, with the policy's own:
largest differences in nats a sequence, of a model from disk. The last but one of them is of microbatches of another
size, which no mode is. The adapter's base is held against the network with its adapter, which adds nothing yet.

"of matmul" is against what an 8192³ bf16 product reaches here. Needs torch and transformers.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beside_trl import Bench, clock, random_model, words_tokenizer

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
    "ours same 32 x 2 float8": ("same", 32, {"float8": "tensorwise"}),
    "ours cached 32 x 2 float8": ("cached", 32, {"float8": "tensorwise"}),
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
    ("ours same 32 x 2 float8", "ours same 32 x 2", 1.0),
    ("ours cached 32 x 2 float8", "ours cached 32 x 2", 1.0),
]


def response_lengths(draw: np.random.Generator, count: int) -> Any:
    """Return tokens of responses: log-normal, from 8 to 512, with a mean of 92."""
    return np.clip(draw.lognormal(4.2, 0.8, count).astype(np.int64), 8, 512)


def random_pairs(count: int, share: bool = False) -> Any:
    """Return rows of so many pairs of random tokens: BOS and prompt, the same on both sides, then a response."""
    from harness.training.data.pairs import Pair
    from harness.training.data.tokens import Tokens
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


def random_network(layers: int, options: Any, ranks: Any, like: Any = None) -> Any:
    """Return a network as the loop trains it, on the ranks' device, with the weights of `like` if that is given."""
    from harness.training.model.attention import implementation
    from harness.training.model.float8 import to_float8
    from harness.training.model.network import Network, prepared

    kind = implementation("auto", ranks.device, torch.bfloat16, True)
    model = random_model(layers, kind, str(ranks.device))
    if like is not None:
        model.load_state_dict(like.lm.state_dict())
    if options.float8 != "none":
        to_float8(model, options, world=ranks.world)
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
            rows.step(options.batch_size, options.seed, step), options.microbatch_size, ranks.rank, ranks.world
        ):  # fmt: skip
            values = give(network, rows.batch(part, options.microbatch_size).to(ranks.device))
            rows.reference[rows.pairs[part]] = values.float().cpu().numpy()
        seconds.append(time.perf_counter() - began)
    return float(options.batch_size / statistics.median(seconds[1:] or seconds))


def run_ours(reference: str, microbatch: int, more: dict[str, Any], steps: int, layers: int) -> dict[str, float]:
    """Run whole steps of the loop and return seconds a step, and what else is known of them."""
    from harness.interfaces import TrainingRun
    from harness.training.checkpoint.folder import TrainingProgress
    from harness.training.loop import Job, Loop, Signals, make_optimizer
    from harness.training.model.attention import fastest_kernels
    from harness.training.parallel import join
    from harness_dpo import DPO
    from harness_dpo.losses import LOSSES
    from harness_dpo.objective import Preference
    from harness_dpo.reference import Copy

    ranks = join("cuda")
    pairs = PAIRS * ranks.world
    options = DPO(batch_size=pairs, microbatch_size=microbatch, epochs=1000, log_every=10**6, validate_every=0, **more)
    rows = random_pairs(pairs * 100, options.share_prompt)
    rows.fit(options.batch_size, options.microbatch_size, ranks.world, options.seed)
    found: dict[str, float] = {}
    seconds, tokens = [], []
    with fastest_kernels(ranks.device):
        network = random_network(layers, options, ranks)
        objective = Preference(LOSSES["dpo"], ("random",))
        if reference == "cached":
            found["reference_pairs_s"] = fill_cache(network, rows, options, ranks, steps)
        else:
            place = ranks if reference == "same" else replace(ranks, device=torch.device(reference))
            objective.reference = Copy(random_network(layers, options, place, network), place)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        job = Job(TrainingRun("", Path("."), {}), options, objective, rows, None, True, None, {}, {})
        nothing: Any = None
        loop = Loop(job, ranks, network, make_optimizer(network, options), nothing, TrainingProgress(), Signals())
        for _ in range(steps):
            torch.cuda.synchronize()
            began, before = time.perf_counter(), loop.progress.tokens
            loop.step()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
            tokens.append(loop.progress.tokens - before)
            found.setdefault("loss_0", loop.sums["loss"].item() / pairs)
    loop.tell(0.0)
    kept = seconds[3:] or seconds[-1:]
    mine = rows.microbatches(rows.step(pairs, options.seed, 0), microbatch, ranks.rank, ranks.world)
    return {
        "gpus": ranks.world,
        "pairs_s": pairs / statistics.median(kept),
        "seconds": statistics.median(kept),
        "first": seconds[0],
        "width": rows.width,
        "fill": statistics.mean(tokens) / (rows.width * len(list(mine)) * ranks.world),
        **found,
    }


def run_trl(
    microbatch: int, checkpointing: bool, liger: bool, cached: bool, steps: int, layers: int
) -> dict[str, float]:
    """Run TRL's DPOTrainer over pairs of random words of the same lengths and return seconds a step."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    ticking, times = clock()
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=microbatch,
        gradient_accumulation_steps=PAIRS // microbatch, max_steps=steps, bf16=True, learning_rate=1e-6, beta=0.1,
        gradient_checkpointing=checkpointing, use_liger_kernel=liger, precompute_ref_log_probs=cached, report_to=[],
        save_strategy="no", logging_steps=1, max_length=1024, optim="rmsprop", warmup_steps=1,
    )  # fmt: skip
    DPOTrainer(
        model=random_model(layers, "sdpa"), ref_model=random_model(layers, "sdpa"), args=config,
        train_dataset=Dataset.from_dict(random_texts(PAIRS * steps)), processing_class=words_tokenizer(),
        callbacks=[ticking],
    ).train()  # fmt: skip
    spans = [after - before for before, after in pairwise(times[1:])]
    return {"seconds": statistics.median(spans), "pairs_s": PAIRS / statistics.median(spans)}


def random_texts(count: int) -> dict[str, list[str]]:
    """Return so many pairs of random words, of the lengths of `random_pairs`."""
    draw = np.random.default_rng(0)

    def said(lengths: Any) -> list[str]:
        return ["".join(f" w{word}" for word in draw.integers(0, 128_000, length)) for length in lengths]

    return {
        "prompt": [text.strip() for text in said([PROMPT] * count)],
        "chosen": said(response_lengths(draw, count)),
        "rejected": said(response_lengths(draw, count)),
    }


def write_world(folder: Path, layers: int) -> tuple[str, str]:
    """Write a random model and pairs of random words; return the model's folder and the pairs' file."""
    model, pairs, columns = folder / "model", folder / "pairs.jsonl", random_texts(4 * PAIRS)
    random_model(layers, "sdpa").save_pretrained(model)
    words_tokenizer().save_pretrained(model)
    lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
    pairs.write_text("".join(f"{line}\n" for line in lines))
    torch.cuda.empty_cache()
    return str(model), str(pairs)


def check_modes(layers: int) -> dict[str, float]:
    """Hold what the trainer takes as the reference's log-probabilities against the policy's own, before any step.

    Model and pairs lie on disk, and all comes from the functions that the trainer calls.
    """
    from harness.interfaces import TrainingRun
    from harness.training.model.attention import fastest_kernels
    from harness.training.model.network import load_network
    from harness.training.parallel import join
    from harness.training.session import Session
    from harness_dpo import DPO
    from harness_dpo.data import read_data
    from harness_dpo.objective import pair_logprobs
    from harness_dpo.reference import Cache, open_reference, without_adapter

    torch._dynamo.config.recompile_limit = 64  # the same layers with and without gradients, in four widths
    ranks = join("cuda")
    with tempfile.TemporaryDirectory() as folder, fastest_kernels(ranks.device):
        os.environ["HARNESS_CACHE"] = folder
        model, pairs = write_world(Path(folder), layers)
        options = DPO(data=(pairs,), prompt_format="plain", validation_pairs=PAIRS, microbatch_size=16)
        run = TrainingRun(model, Path(folder), {})
        session = Session(options, run)
        data = read_data(options, session)
        cached = Cache(options, session.model, data, ranks).logprobs()

        def every(size: int, give: Callable[[Any], Any], share: bool = False) -> Any:
            rows = read_data(replace(options, share_prompt=share, microbatch_size=size), session).training
            values = np.full(cached.shape, np.nan, np.float32)
            for step in range(len(rows) // PAIRS):
                for part in rows.microbatches(rows.step(PAIRS, options.seed, step), size, 0, 1):
                    values[rows.pairs[part]] = give(rows.batch(part, size).to(ranks.device)).detach().cpu().numpy()
            return values

        network = load_network(model, options, ranks, packed=True)
        policy = every(16, lambda batch: pair_logprobs(network, batch))
        others = {"cached": cached, "shared prompts": every(16, lambda batch: pair_logprobs(network, batch), True)}
        for mode in ("same", *(f"cuda:{number}" for number in range(1, torch.cuda.device_count()))):
            give: Any = open_reference(replace(options, reference=mode), session.model, data, ranks)
            others[mode] = every(16, partial(give, network))
        others["in microbatches of 8"] = every(8, lambda batch: pair_logprobs(network, batch))
        adapted = load_network(model, replace(options, lora_rank=16), ranks, packed=True)
        below = every(16, partial(without_adapter, adapted)) - every(16, lambda batch: pair_logprobs(adapted, batch))
    learned = np.isfinite(policy).all(axis=1)
    differences = {**{name: each - policy for name, each in others.items()}, "adapter": below}
    found = {f"nats, {name}": float(np.abs(each[learned]).max()) for name, each in differences.items()}
    return {"pairs": int(learned.sum()), "nats_a_sequence": float(policy[learned].mean()), **found}


def work(name: str, steps: int, layers: int) -> dict[str, float]:
    """Return what the measurement called `name` finds."""
    if name == "modes":
        return check_modes(layers)
    return run_trl(*TRL[name], steps, layers) if name in TRL else run_ours(*OURS[name], steps, layers)


def gpus(name: str) -> int:
    """Return how many GPUs one process of a measurement needs."""
    return 2 if name in OURS and OURS[name][0].startswith("cuda:") else 1


if __name__ == "__main__":
    Bench(OURS, TRL, CHECKS, "pairs_s", RATIOS, work, gpus).main(__doc__)
