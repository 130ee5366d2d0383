"""`harness loss` against a plain transformers loop: tokens a second of the same model on the same documents.

    python perf/loss.py [--size 8B] [--layers L] [--documents N] [--rounds R] [--device cuda]

A Llama of that size with random weights in bf16 reads chat-like documents (log-normal lengths about 480 tokens, up to
2,048; the second half of each counts): ours packs them into rows, as `harness loss` does with a file's, and never
builds the logits; the loop of transformers takes them in their order, pads each batch to its longest, and computes the
cross-entropy of the logits of all positions in fp32. Its batch is the fastest of those given (4, 8 and 16 unless
--batches says otherwise). The two take turns in one process; the median of the rounds counts, and the losses of all
documents are held against each other. Tokens are those of documents, never padding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch._dynamo.utils import counters

from beside_trl import SIZES, random_model
from harness.training.data.packing import DocumentRows
from harness.training.data.tokens import Tokens
from harness.training.loss import rows_together, summed_losses
from harness.training.model.attention import implementation
from harness.training.model.network import Network
from harness.training.parallel import Ranks, join
from sft import chat_lengths

GOAL = 1.5
WIDTH = 2048


def documents(count: int, vocabulary: int) -> Tokens:
    """Return documents of random tokens, the first half of each a prompt."""
    lengths = np.array(chat_lengths(count))
    ids = np.random.default_rng(0).integers(0, vocabulary, int(lengths.sum())).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens(ids, offsets, (lengths // 2).astype(np.int32), ("random",), (count,), 0, 0, 0)


@torch.no_grad()
def plain(lm: Any, tokens: Tokens, batch: int) -> np.ndarray[Any, Any]:
    """Return the nats of each document by transformers alone, so many documents being read at a time."""
    found = []
    for start in range(0, len(tokens), batch):
        some = [
            torch.from_numpy(tokens.document(number).astype(np.int64))
            for number in range(len(tokens))[start : start + batch]
        ]
        ids = torch.nn.utils.rnn.pad_sequence(some, batch_first=True).to(lm.device)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in some], batch_first=True).to(lm.device)
        labels = ids.masked_fill(mask == 0, -100)
        for place, one in enumerate(some):
            labels[place, : len(one) // 2] = -100
        logits = lm(input_ids=ids, attention_mask=mask, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), reduction="none", ignore_index=-100
        )
        found.append(losses.view(len(some), -1).sum(1).double().cpu())
    return torch.cat(found).numpy()


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Return the seconds that some work takes, and what it gives."""
    began = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="8B")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--documents", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    ranks = join(given.device)
    dtype = torch.bfloat16 if ranks.device.type == "cuda" else torch.float32
    kind = implementation("auto", ranks.device, dtype, packed=True)
    lm = random_model(given.layers, kind, str(ranks.device), given.size).to(dtype).eval()
    tokens = documents(given.documents, min(128_000, SIZES[given.size]["vocab_size"]))
    compare(lm, kind, tokens, ranks, given.rounds, given.batches)


def compare(lm: Any, kind: str, tokens: Tokens, ranks: Ranks, rounds: int, batches: list[int]) -> None:
    """Print tokens a second of both sides and their ratio."""
    rows = DocumentRows(tokens, WIDTH, documents=np.arange(len(tokens)), loss="responses")
    network, size, few = (
        Network(lm).eval(),
        rows_together(WIDTH),
        documents(min(32, len(tokens)), int(tokens.ids.max())),
    )

    def ours(tokens: Tokens, rows: DocumentRows) -> Any:
        lm.set_attn_implementation(kind)
        return summed_losses(network, rows, size, ranks)[0]

    def theirs(tokens: Tokens, batch: int) -> Any:
        lm.set_attn_implementation("sdpa")
        return plain(lm, tokens, batch)

    ours(few, DocumentRows(few, WIDTH, documents=np.arange(len(few)), loss="responses"))  # warm
    tried = {}
    for batch in batches:
        theirs(few, batch)
        tried[batch] = timed(lambda batch=batch: theirs(few, batch), ranks.device)[0]  # type: ignore[misc]
    best = min(tried, key=lambda batch: tried[batch])
    spans: dict[str, list[float]] = {"ours": [], "transformers": []}
    for _ in range(rounds):
        span, found = timed(lambda: ours(tokens, rows), ranks.device)
        spans["ours"].append(span)
        span, expected = timed(lambda: theirs(tokens, best), ranks.device)
        spans["transformers"].append(span)
    count = len(tokens.ids)
    rates = {name: count / statistics.median(each) for name, each in spans.items()}
    print(json.dumps({"name": "compiled", "graphs": counters["stats"]["unique_graphs"]}), flush=True)
    for name, each in spans.items():
        print(json.dumps({"name": name, "tok_s": rates[name], "seconds": each, "tokens": count}), flush=True)
    error = float(np.max(np.abs(found / expected - 1)))
    print(
        json.dumps({"name": "agreement", "largest_relative_difference": error, "batch": best, "fill": rows.report.fill})
    )
    print(f"ours / transformers: {rates['ours'] / rates['transformers']:.3f} (to reach: {GOAL})")


if __name__ == "__main__":
    main()
