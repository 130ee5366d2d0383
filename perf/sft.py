"""Instruction tuning against TRL on one GPU, Llama-3-8B's shape with random weights: tokens a second and peak memory.

    python perf/sft.py [--only NAME …] [--steps N] [--layers L] [--gpus N] [--gib N]

Each row runs in a process of its own, one after the other, on the same GPU: 512-token rows and 16,384 tokens a step,
once as CS336's assignment sets it (microbatch 2), once at each side's best, and with activations recomputed, "auto" as
``memory = "auto"`` chooses for the GPU; then
chat-like lengths of up to 2,048 tokens, packed into rows of that, and padded to the longest of four: by the same loop
(in steps of 128 tokens, so that compiled layers meet few widths) and by TRL. Ours is `harness.training.loop.Loop.step`,
whole: exact fp32 masters, clipping, the test for steps that are not finite, one line of metrics at the end. TRL keeps
no masters. Rows of TRL are left out where it is not installed (TRL 1.16 with Liger 0.8 is what the printed ratios were
made with).

With --gpus N, rows of ours run on that many GPUs of one host, each with as many tokens as one alone would have, and
figures are of all together. With --gib N no process gets more of a GPU, which then stands for a smaller one.

MFU is against 989 TFLOP/s; "of matmul" against what an 8192³ bf16 product reaches here. Needs torch and transformers.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beside_trl import PEAK, SIZES, WARM, Bench, card_bytes, clock, hold_in_4_bits, random_model, shape, words_tokenizer
from harness.training.batch import Batch, TrainingRows

STEP_TOKENS = 16_384
WIDTH = 512

#: name → (microbatch, recompute)
OURS: dict[str, tuple[int, str]] = {
    "ours 2 x 16": (2, "none"),
    "ours 16 x 2": (16, "none"),
    "ours 32 x 1": (32, "none"),
    "ours 32 x 1 selective": (32, "selective"),
    "ours 32 x 1 full": (32, "full"),
    "ours auto": (32, "auto"),
}
#: name → how matrices are multiplied, at 32 x 1
FLOAT8: dict[str, str] = {"ours 32 x 1 float8": "tensorwise", "ours 32 x 1 float8 rowwise": "rowwise"}
#: name → (microbatch, activation checkpointing, Liger, chat-like lengths)
TRL: dict[str, tuple[int, bool, bool, bool]] = {
    "TRL 2 x 16": (2, False, False, False),
    "TRL + Liger 16 x 2": (16, False, True, False),
    "TRL + Liger 32 x 1 checkpointing": (32, True, True, False),
    "chat padded TRL + Liger 4 x 8": (4, False, True, True),
}
#: name → (packed, rows a step)
CHAT: dict[str, tuple[bool, int]] = {"chat packed 4 x 2": (True, 8), "chat padded 4 x 8": (False, 32)}
CHECKS = ("loss", "offload")

#: (ours, theirs, the ratio to reach)
RATIOS = [
    ("ours 16 x 2", "TRL + Liger 16 x 2", 1.0),
    ("ours 32 x 1", "TRL + Liger 16 x 2", 1.0),
    ("ours 16 x 2", "TRL 2 x 16", 1.4),
    ("ours 32 x 1 float8", "ours 32 x 1", 1.2),
    ("ours 32 x 1 float8", "TRL + Liger 16 x 2", 1.25),
    ("ours 32 x 1 full", "TRL + Liger 32 x 1 checkpointing", 1.05),
    ("ours auto", "ours 32 x 1 full", 0.9),
    ("chat packed 4 x 2", "chat padded 4 x 8", 1.8),
    ("chat packed 4 x 2", "chat padded TRL + Liger 4 x 8", 1.8),
]


class RandomRows(TrainingRows):
    """Rows of random tokens: documents of given lengths side by side in `width`, or padded to the longest."""

    def __init__(
        self, width: int | None, documents: Sequence[Sequence[int]], isolated: bool, vocabulary: int = 128_000
    ) -> None:
        self.vocabulary = vocabulary
        self.width, self.isolated, self.documents = width, isolated, documents
        self.weights = self.tokens = np.array([sum(row) for row in documents], np.int64)

    def __len__(self) -> int:
        return len(self.documents)

    def describe(self, index: int) -> str:
        return f"row {index}"

    def positions(self, size: int) -> int:
        return size * (self.width or int(self.tokens.max()))

    def batch(self, indices: Sequence[int], rows: int) -> Batch:
        width = self.width or -(-max(int(self.tokens[index]) for index in indices) // 128) * 128
        draw = np.random.default_rng(list(indices))
        ids = torch.from_numpy(draw.integers(0, self.vocabulary, (rows, width + 1)))
        labels, positions, borders = ids[:, 1:].clone(), np.zeros((rows, width), np.int64), [0]
        for place in range(rows):
            lengths = list(self.documents[indices[place]]) if place < len(indices) else []
            used = sum(lengths)
            labels[place, used:] = -100
            lengths += [width - used] if used < width else []
            ends = np.cumsum(lengths)
            positions[place] = np.arange(width) - np.repeat(ends - lengths, lengths)
            borders.extend((place * width + ends).tolist())
        return Batch(
            ids[:, :-1].contiguous(),
            labels.contiguous(),
            torch.from_numpy(positions),
            torch.tensor(borders, dtype=torch.int32) if self.isolated else None,
            width,
        )


def chat_lengths(count: int) -> list[int]:
    """Return lengths of conversations: log-normal about 480 tokens, as research on public chat data finds them."""
    draw = np.random.default_rng(0)
    return [int(length) for length in np.clip(draw.lognormal(np.log(480) - 0.18, 0.6, count), 16, 2048)]


def timed_steps(loop: Any, steps: int) -> tuple[list[float], list[int]]:
    """Take steps of a loop; return the seconds and the tokens of each."""
    seconds, tokens = [], []
    for _ in range(steps):
        torch.cuda.synchronize()
        began, before = time.perf_counter(), loop.progress.tokens
        loop.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        tokens.append(loop.progress.tokens - before)
    return seconds, tokens


def run_ours(
    rows: Any,
    microbatch: int,
    batch: int,
    steps: int,
    layers: int | None,
    size: str = "8B",
    **more: Any,
) -> dict[str, float]:
    """Run whole steps of the loop, with `more` options; return tokens a second, seconds of a step and of the first.

    With ``apart`` adapters are multiplied by themselves, not with the layers that they stand beside; ``flash`` names
    the kernels by which torch attends in documents.
    """
    from harness.interfaces import TrainingRun
    from harness.training.checkpoint.folder import TrainingProgress
    from harness.training.loop import Job, Loop, Signals, make_optimizer, prepare_process
    from harness.training.model import network as network_module
    from harness.training.model.adapters import adapter_config, add_adapter
    from harness.training.model.attention import fastest_kernels, implementation
    from harness.training.model.flash import use_flash
    from harness.training.model.float8 import to_float8
    from harness.training.model.network import Network, prepared
    from harness.training.options import TrainingOptions
    from harness.training.parallel import join
    from harness_sft.trainer import nll

    apart = more.pop("apart", False)
    use_flash(more.pop("flash", None))
    options = TrainingOptions(
        batch_size=batch, microbatch_size=microbatch, epochs=1000, log_every=10**6, warmup=2, **more
    )
    prepare_process()
    ranks = join("cuda")
    options = replace(options, batch_size=batch * ranks.world)
    told: dict[str, Any] = {}
    if options.memory == "auto":
        choice = chosen(options, rows, layers, size, ranks)
        options = choice.of(options)
        told = {**choice.record(), "estimated_gib": choice.memory.total, "offloaded_gib": choice.offloaded}
    kind = implementation("auto", ranks.device, torch.bfloat16, rows.isolated)
    network = Network(random_model(layers, kind, size=size))
    if options.base_bits:
        hold_in_4_bits(network.lm)
    if options.float8 != "none":
        to_float8(network.lm, options, world=ranks.world)
    if options.lora_rank:
        add_adapter(network.lm, adapter_config(options), torch.bfloat16, seed=0)
    if apart:
        vars(network_module)["join_layers"] = lambda decoder: 0
    network = prepared(network, options, ranks)
    job = Job(TrainingRun("", Path("."), {}), options, nll, rows, None, rows.isolated, None, {}, {})
    nothing: Any = None
    loop = Loop(job, ranks, network, make_optimizer(network, options), nothing, TrainingProgress(), Signals())
    with fastest_kernels(ranks.device):
        seconds, tokens = timed_steps(loop, steps)
    loop.tell(0.0)
    rates = [count / span for count, span in zip(tokens, seconds, strict=True)][WARM:]
    told["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
    return {**spread(rates), "seconds": statistics.median(seconds[WARM:]), "first": seconds[0], **told}


def chosen(options: Any, rows: Any, layers: int | None, size: str, ranks: Any) -> Any:
    """Return what ``memory = "auto"`` chooses."""
    from harness.training.model.choice import MARGIN, Ways
    from harness.training.model.memory import HOST_SHARE, Shape
    from harness.training.plan import free_gib, host_gib

    ways = Ways(Shape.of(shape(layers, size)), options, lambda count: count * rows.width, 2, ranks.world)
    given = torch.cuda.get_per_process_memory_fraction() * card_bytes() / 2**30
    found = ways.fastest(MARGIN * min(free_gib(ranks.device, ranks.world), given), HOST_SHARE * host_gib())
    if found is None:
        raise SystemExit("nothing fits this GPU")
    return found


def spread(rates: Sequence[float]) -> dict[str, float]:
    """Return the median of tokens a second, and the least and the most."""
    return {"tok_s": statistics.median(rates), "least": min(rates), "most": max(rates)}


def run_trl(
    lengths: Sequence[int], microbatch: int, batch: int, steps: int, layers: int | None, size: str = "8B",
    *, checkpointing: bool = False, liger: bool = True, lora: int = 0, bits: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Run TRL's SFTTrainer over rows of random tokens in their order, and return tokens a second and seconds a step."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl import SFTConfig, SFTTrainer

    ticking, times = clock()

    class InOrder(SFTTrainer):  # type: ignore[misc]  # so that each step's tokens are known
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    draw, vocabulary = np.random.default_rng(0), min(128_000, SIZES[size]["vocab_size"])
    ids = [draw.integers(0, vocabulary, length).tolist() for length in lengths]
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=microbatch,
        gradient_accumulation_steps=batch // microbatch,
        max_steps=steps, bf16=True, learning_rate=2e-5, gradient_checkpointing=checkpointing, use_liger_kernel=liger,
        report_to=[], save_strategy="no", logging_steps=1, max_length=max(lengths), packing=False,
        optim="adamw_torch_fused",
        dataset_kwargs={"skip_prepare_dataset": True}, lr_scheduler_type="cosine", warmup_steps=1,
    )  # fmt: skip
    adapter = {}
    if lora:
        from peft import LoraConfig

        adapter["peft_config"] = LoraConfig(r=lora, target_modules="all-linear", lora_alpha=16, task_type="CAUSAL_LM")
    model = random_model(layers, "sdpa", size=size)
    if bits:
        hold_in_4_bits(model)
    InOrder(
        model=model, args=config, train_dataset=Dataset.from_dict({"input_ids": ids}),
        processing_class=words_tokenizer(), callbacks=[ticking], **adapter,
    ).train()  # fmt: skip
    spans = [after - before for before, after in pairwise(times)][WARM - 1 :]
    counts = np.array(lengths).reshape(steps, batch).sum(axis=1)[WARM:]
    rates = [int(count) / span for count, span in zip(counts, spans, strict=True)]
    return {**spread(rates), "seconds": statistics.median(spans)}


def check_loss() -> dict[str, float]:
    """Hold the chunked loss against fp32 full logits, and measure what it takes beside its inputs at 16k tokens."""
    from harness.training.model.logprobs import selected_logprobs, summed_nll

    torch.manual_seed(0)
    hidden = torch.randn(STEP_TOKENS, 4096, device="cuda").bfloat16().requires_grad_()
    head = (0.02 * torch.randn(128_256, 4096, device="cuda")).bfloat16().requires_grad_()
    labels = torch.randint(0, 128_256, (STEP_TOKENS,), device="cuda")
    with torch.no_grad():
        exact = torch.cat(
            [
                -torch.nn.functional.cross_entropy(h.float() @ head.float().t(), y, reduction="none")
                for h, y in zip(torch.split(hidden, 2048), torch.split(labels, 2048), strict=True)
            ]
        )
    found = selected_logprobs(hidden.detach(), head.detach(), labels)
    times = []
    for _ in range(5):
        hidden.grad = None
        head.grad = torch.zeros_like(head)  # as in every microbatch but the first
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        loss = summed_nll(hidden, head, labels, 1 / STEP_TOKENS)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return {
        "loss_relative_error": abs(loss.item() / -exact.mean().item() - 1),
        "logprob_largest_error": (found - exact).abs().max().item(),
        "loss_extra_gib": (torch.cuda.max_memory_allocated() - before) / 2**30,
        "loss_ms": 1000 * statistics.median(times),
        "loss_tflops_6mhv": 6 * STEP_TOKENS * 4096 * 128_256 / statistics.median(times) / 1e12,
    }


def check_offload() -> dict[str, float]:
    """Hold an optimizer whose state lies on the host against one that has it beside the weights, bit by bit."""
    from harness.training.optim import AdamW

    shapes, ended, spans = [(4096, 4096)] * 24 + [(4096,)] * 8, [], {}
    for share in (0.0, 0.1, 0.5, 1.0):
        draw = torch.Generator("cuda").manual_seed(0)
        weights = [(0.02 * torch.randn(each, device="cuda", generator=draw)).bfloat16() for each in shapes]
        parameters = [torch.nn.Parameter(each) for each in weights]
        optimizer = AdamW([(str(place), one) for place, one in enumerate(parameters)], offload=share)
        for _ in range(4):
            for one in parameters:
                one.grad = torch.randn(one.shape, device="cuda", generator=draw).bfloat16()
            torch.cuda.synchronize()
            began = time.perf_counter()
            optimizer.step(1e-3, 0.5, True)
            torch.cuda.synchronize()
            spans[f"offload_{share:g}_ms"] = 1000 * (time.perf_counter() - began)
        ended.append([*(one.detach() for one in parameters), *(one.cuda() for one in optimizer.state.values())])
    equal = all(torch.equal(*both) for other in ended[1:] for both in zip(ended[0], other, strict=True))
    state = sum(one.nbytes for one in optimizer.state.values())
    return {"equal": float(equal), "state_gib": state / 2**30, **spans}


def work(name: str, steps: int, layers: int) -> dict[str, float]:
    """Return what the measurement called `name` finds."""
    from harness.training.model.memory import Shape

    if name in CHECKS:
        return check_loss() if name == "loss" else check_offload()
    rows, batch = RandomRows(WIDTH, [[WIDTH]] * 4096, isolated=False), STEP_TOKENS // WIDTH
    if name in TRL:
        microbatch, checkpointing, liger, chat = TRL[name]
        lengths = chat_lengths(batch * steps) if chat else [WIDTH] * (batch * steps)
        found = run_trl(lengths, microbatch, batch, steps, layers, checkpointing=checkpointing, liger=liger)
    elif name in OURS:
        microbatch, recompute = OURS[name]
        more = {"memory": "auto"} if recompute == "auto" else {"recompute": recompute}
        found = run_ours(rows, microbatch, batch, steps, layers, **more)
    elif name in FLOAT8:
        found = run_ours(rows, batch, batch, steps, layers, float8=FLOAT8[name])
    else:
        packed, batch = CHAT[name]
        found = run_ours(chat_rows(packed), 4, batch, steps, layers)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    length = 480 if name.startswith("chat") else WIDTH
    flops = Shape.of(shape(layers)).flops(found["tok_s"], found["tok_s"] * length)
    return {**found, "gpus": world, "mfu": flops / PEAK / world}


def chat_rows(packed: bool) -> RandomRows:
    """Return chat-like documents: packed at 2,048 tokens a row by the project's own best fit, or one a row."""
    from harness.training.data.packing import best_fit

    lengths = chat_lengths(4000)
    if not packed:
        torch._dynamo.config.recompile_limit = 64  # a compilation for each width
        return RandomRows(None, [[length] for length in lengths], isolated=False)
    rows = best_fit(np.array(lengths), 2048)
    documents: list[list[int]] = [[] for _ in range(int(rows.max()) + 1)]
    for row, length in zip(rows, lengths, strict=True):
        documents[row].append(length)
    return RandomRows(2048, documents, isolated=True)


if __name__ == "__main__":
    rates = Bench([*OURS, *FLOAT8, *CHAT], TRL, CHECKS, "tok_s", RATIOS, work)
    rates.main(__doc__)
