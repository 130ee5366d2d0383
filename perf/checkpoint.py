"""How long a training waits while it saves: with copies in the host's memory, and without.

    python perf/checkpoint.py [--layers N] [--hidden H] [--saves N] [--out FOLDER]

Saves ``last/`` (weights, residuals of bf16 weights, both moments of AdamW) of a random Llama several times each way and
prints the median of what `Checkpoints.save` takes, the first save left out (it makes the tokenizer's files and the
memory for copies), and how long the writing goes on beside the training. On a GPU if there is
one, in bf16; on a CPU in fp32. ``--layers 32 --hidden 4096`` is Llama-3-8B's shape. Needs torch and transformers.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any


def network(layers: int, hidden: int, options: Any, ranks: Any) -> Any:
    """Return a random Llama, ready to train."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from harness.training.model.network import Network, weights_dtype

    config = LlamaConfig(
        vocab_size=128_256 if hidden >= 4096 else 16_000, hidden_size=hidden, intermediate_size=7 * hidden // 2,
        num_hidden_layers=layers, num_attention_heads=hidden // 64, num_key_value_heads=max(1, hidden // 256),
    )  # fmt: skip
    make: Any = AutoModelForCausalLM.from_config
    with ranks.device:
        return Network(make(config, dtype=weights_dtype(options, ranks.device)))


def measure(folder: Path, model: Any, optimizer: Any, ranks: Any, tokenizer: Any, saves: int) -> tuple[float, float]:
    """Return the median seconds of a save, and of its writing beside the training."""
    from harness.training.checkpoint.folder import LAST, Checkpoints, TrainingProgress

    waits, writes = [], []
    with Checkpoints(folder, ranks, identity={}, card={}, tokenizer=tokenizer) as checkpoints:
        for step in range(saves + 1):
            began = time.perf_counter()
            checkpoints.save(model, optimizer, TrainingProgress(step=step), [LAST])
            saved = time.perf_counter()
            checkpoints.finish()
            waits.append(saved - began)
            writes.append(time.perf_counter() - saved)
    return statistics.median(waits[1:]), statistics.median(writes[1:])


def main() -> None:
    """Measure both ways and print them."""
    from harness.models import find_model
    from harness.testing.tiny import make_tiny_model
    from harness.training.checkpoint import background
    from harness.training.model import memory
    from harness.training.optim import AdamW
    from harness.training.options import TrainingOptions
    from harness.training.parallel import join

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--out", help="a folder on the disk to measure; by default one for temporary files")
    given = parser.parse_args()
    options, ranks = TrainingOptions(), join("auto")
    model = network(given.layers, given.hidden, options, ranks)
    optimizer = AdamW(model.lm.named_parameters())
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count / 1e6:,.0f}M parameters in {model.lm.dtype} on {ranks.device}")
    with tempfile.TemporaryDirectory(dir=given.out) as folder:
        tokenizer = find_model(str(make_tiny_model(Path(folder) / "tokenizer"))).tokenizer
        for name, free in (("beside", memory.free_memory), ("waiting", lambda: 0)):
            vars(background)["free_memory"] = free
            waits, writes = measure(Path(folder) / name, model, optimizer, ranks, tokenizer, given.saves)
            print(f"{name}: training waits {waits:.3f} s a save; it is written in {writes:.2f} s after that")


if __name__ == "__main__":
    main()
