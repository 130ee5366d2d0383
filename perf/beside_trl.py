"""What perf/sft.py and perf/dpo.py share: Llama-3-8B's shape, a process for each row, and ratios at the end."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

#: (ours, theirs, the ratio to reach)
Ratio = tuple[str, str, float]


@dataclass(frozen=True)
class Bench:
    """Measurements by name.

    Attributes:
        ours, trl, checks: names of ours, which may run on several GPUs, of TRL's, and of those that are no rates.
        rate: the key of a measurement's rate, by which `ratios` are made.
        work: makes a measurement, given its name, steps and layers.
        gpus: how many GPUs one process of a measurement needs.
    """

    ours: Collection[str]
    trl: Collection[str]
    checks: Collection[str]
    rate: str
    ratios: Sequence[Ratio]
    work: Callable[[str, int, int], dict[str, float]]
    gpus: Callable[[str], int] = lambda name: 1

    def main(self, description: str | None) -> None:
        """Run measurements one after the other, each in a process of its own, and print their ratios."""
        parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )  # fmt: skip
        names = [*self.ours, *self.trl, *self.checks]
        parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
        parser.add_argument("--steps", type=int, default=12, help=f"the first {WARM} of them are not counted")
        parser.add_argument("--layers", type=int, default=32)
        parser.add_argument("--gpus", type=int, default=1, help="for rows of ours")
        parser.add_argument("--gib", type=float, help="what a process may take of its GPU, as on a smaller one")
        parser.add_argument("--one", help=argparse.SUPPRESS)
        given = parser.parse_args()
        if given.one:
            self._measure(given.one, given.steps, given.layers, given.gib)
            return
        results: dict[str, dict[str, float]] = {}
        for name in given.only or names:
            if reason := self._missing(name):
                print(f"{name}: left out, {reason}", flush=True)
                continue
            many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(given.gpus)]
            launcher = many if given.gpus > 1 and name in self.ours else []
            sizes = ["--steps", str(given.steps), "--layers", str(given.layers)]
            sizes += ["--gib", str(given.gib)] if given.gib else []
            words = [sys.executable, *launcher, sys.argv[0], "--one", name, *sizes]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
            lines = [line for line in done.stdout.splitlines() if line.startswith('{"name"')]
            print(lines[-1] if lines else f"{name}: failed with exit status {done.returncode}", flush=True)
            if lines:
                results[name] = json.loads(lines[-1])
        for ours, theirs, goal in self.ratios:
            if ours in results and theirs in results:
                ratio = results[ours][self.rate] / results[theirs][self.rate]
                print(f"{ours} / {theirs}: {ratio:.3f} (to reach: {goal})")

    def _missing(self, name: str) -> str | None:
        """Return why a measurement cannot be made here, or None."""
        if name in self.trl and not all(importlib.util.find_spec(part) for part in ("trl", "liger_kernel", "datasets")):
            return "TRL or Liger is not installed"
        wanted, found = self.gpus(name), torch.cuda.device_count()
        return None if found >= wanted else f"it needs {wanted} GPUs, here are {found}"

    def _measure(self, name: str, steps: int, layers: int, gib: float | None) -> None:
        """Print one measurement as a line of JSON."""
        from harness.training.loop import prepare_process

        prepare_process()  # before CUDA is used
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(rank)
        if gib:
            torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / card_bytes()))
        rate = matmul_rate()
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found = self.work(name, steps, layers)
        if self.rate in found:
            found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if "mfu" in found:
            found["of_matmul"] = found["mfu"] * PEAK / rate
        if rank == 0:
            print(json.dumps({"name": name, "matmul_tflops": round(rate / 1e12), **found}), flush=True)


#: Steps before those that count: code is compiled, and microbatches are recorded.
WARM = 5

#: Operations a second of a Hopper GPU in bf16, by its data sheet.
PEAK = 989e12


def card_bytes() -> int:
    """Return the memory of this process's GPU."""
    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


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


#: Sizes of Llamas: SmolLM2-135M's, Llama-3.2-1B's and Llama-3-8B's.
SIZES: dict[str, dict[str, Any]] = {
    "135M": {
        "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    },
    "1.2B": {
        "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
    },
    "8B": {
        "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False,
    },
}  # fmt: skip


def shape(layers: int | None = None, size: str = "8B") -> Any:
    """Return the configuration of a Llama of that size, with another number of layers if one is given."""
    from transformers import LlamaConfig

    sizes = SIZES[size] | ({} if layers is None else {"num_hidden_layers": layers})
    return LlamaConfig(
        **sizes, max_position_embeddings=8192, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, use_cache=False
    )


def random_model(layers: int | None, attention: str, device: str = "cuda", size: str = "8B") -> Any:
    """Return a model of that shape with random weights in bf16."""
    from transformers import AutoModelForCausalLM

    make: Any = AutoModelForCausalLM.from_config  # untyped
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = make(shape(layers, size), dtype=torch.bfloat16, attn_implementation=attention)
    torch.set_default_dtype(before)
    return model


def hold_in_4_bits(lm: Any) -> None:
    """Hold the linear layers of a model but the output layer in 4 bits, as bitsandbytes does for QLoRA."""
    import bitsandbytes

    nn: Any = bitsandbytes.nn  # untyped
    head = lm.get_output_embeddings()
    for name, linear in list(lm.named_modules()):
        if type(linear) is not torch.nn.Linear or linear is head:
            continue
        layer = nn.Linear4bit(
            linear.in_features, linear.out_features, bias=False, compute_dtype=linear.weight.dtype, quant_type="nf4"
        )
        held = nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", module=layer)
        layer.weight = held.to(linear.weight.device)
        lm.set_submodule(name, layer)
    lm.is_loaded_in_4bit = True  # read by peft and TRL


def words_tokenizer(size: int = 128_256) -> Any:
    """Return a tokenizer of so many words, w0, w1, …, of which the last 256 are for special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    make: Any = PreTrainedTokenizerFast
    first = size - 256
    return make(tokenizer_object=words, bos_token=f"w{first}", eos_token=f"w{first + 1}", pad_token=f"w{first + 1}")


def clock() -> tuple[Any, list[float]]:
    """Return a callback for transformers' Trainer, and the list that it puts the end of each step into."""
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            times.append(time.perf_counter())

    return Clock(), times
