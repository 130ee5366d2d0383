"""Compare the engine `transformers` with lm-eval's backend `hf`, on the same model, prompts, lengths and stop strings.

    pip install -e '.[transformers]' lm_eval accelerate
    python perf/transformers_vs_lm_eval.py [--data DIR] [--model DIR] [--count 256] [--device cpu]

Without `--model` a Llama (4 layers, hidden size 256) is trained for some minutes, so that its answers end by themselves
at varied lengths: on GSM8K's training questions with `--data` (a folder that holds gsm8k/train.jsonl and test.jsonl),
on made-up questions otherwise. Both sides decode greedily, in fp32 on a CPU and in the checkpoint's dtype on a GPU;
lm-eval through its public `HFLM.generate_until` with `batch_size=auto`. Repetitions alternate. The search for lm-eval's
batch size is not counted. On a busy machine look at the ratio of CPU seconds, with `--threads 1`. The exit code is 1 if
outputs differ beyond rounding (2% of them), or if the ratio is below the target of 2.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.engines.transformers import TransformersEngine
from harness.models import find_model
from harness.testing.tiny import make_tiny_model
from harness.types import Generation, Prompt, Request

STOP = ("Question:", "\n\n\n")
TARGET = 2.0
SCENES = (
    "The harbour is quiet this morning and the boats lie in rows.",
    "A gardener sets out pots along the wall.",
    "Lanterns hang between the houses.",
    "Every stall of the market has its own number, painted in white.",
    "It rained in the night.",
)


def countdowns(count: int, seed: int) -> list[tuple[str, str]]:
    """Return made-up questions whose answers are as long as GSM8K's: log-normal, a hundred tokens, some of them 400.

    A model learns quickly to count down, and to stop at 1: its answers have the lengths that the prompts ask for.
    """
    draw = random.Random(seed)
    problems = []
    for _ in range(count):
        first = min(200, max(2, round(draw.lognormvariate(3.7, 0.6))))
        scene = " ".join(draw.choices(SCENES, k=draw.randint(1, 8)))
        numbers = ", ".join(map(str, range(first, 0, -1)))
        problems.append((f"{scene} Count down from {first}.", f"{numbers}\n#### 1"))
    return problems


def gsm8k(path: Path) -> list[tuple[str, str]]:
    """Return the questions and answers of a GSM8K file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(row["question"], row["answer"]) for row in map(json.loads, lines)]


def trained(folder: Path, problems: Sequence[tuple[str, str]], steps: int) -> Path:
    """Return a model trained on `problems`, whose tokens are some three characters long."""
    texts = [f"{question}\nAnswer: {answer}" for question, answer in problems]
    return make_tiny_model(
        folder,
        texts=[text for text in texts if len(text) < 900],
        steps=steps,
        batch_size=8,
        learning_rate=3e-3,
        vocab_size=2048,
        layers=4,
        hidden=256,
        context=1024,
    )


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._began = (time.perf_counter(), time.process_time())

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._began[0], time.process_time() - self._began[1]


class Ours:
    """The engine `transformers`, with its own choice of batches."""

    name = "harness transformers"

    def __init__(self, model: str, prompts: Sequence[str], max_tokens: int, device: str) -> None:
        engine = TransformersEngine(device=device)
        self.model = engine.load(model)
        tokenizer: Any = find_model(model).tokenizer
        generation = Generation(max_tokens=max_tokens, stop=STOP)
        self.ids = [tuple(tokenizer.encode(text)) for text in prompts]
        self.requests = [
            Request(str(index), Prompt(text, ids), generation, index)
            for index, (text, ids) in enumerate(zip(prompts, self.ids, strict=True))
        ]
        self.lengths: list[int] = []

    def run(self) -> tuple[list[str], tuple[float, float]]:
        """Return the outputs in the order of the prompts, and the time they took."""
        clock = Clock()
        completions = {one.id: one for one in self.model.generate(self.requests)}
        seconds = clock.read()
        in_order = [completions[request.id] for request in self.requests]
        self.lengths = [one.completion_tokens or 0 for one in in_order]
        return [one.text for one in in_order], seconds


class Theirs:
    """lm-eval's `hf` at `batch_size=auto`."""

    name = "lm-eval hf"

    def __init__(self, model: str, prompts: Sequence[str], max_tokens: int, device: str) -> None:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        logging.disable(logging.WARNING)
        self.model = HFLM(
            pretrained=model, device=device, dtype="float32" if device == "cpu" else "auto", batch_size="auto"
        )
        clock = Clock()
        size = self.model._detect_batch_size()
        self.searching = clock.read()[0]
        self.model._detect_batch_size = lambda *args, **kwargs: size
        settings = {"until": list(STOP), "max_gen_toks": max_tokens, "do_sample": False}
        self.requests = [
            Instance(request_type="generate_until", doc={}, arguments=(text, dict(settings)), idx=index)
            for index, text in enumerate(prompts)
        ]

    def run(self) -> tuple[list[str], tuple[float, float]]:
        """Return the outputs in the order of the prompts, and the time they took."""
        clock = Clock()
        outputs = self.model.generate_until(self.requests, disable_tqdm=True)
        return list(outputs), clock.read()


def options() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="folder with gsm8k/train.jsonl and gsm8k/test.jsonl")
    parser.add_argument("--model", help="a model folder, instead of training one")
    parser.add_argument("--count", type=int, default=256, help="prompts")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=150, help="training steps of the model")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="threads of PyTorch's on a CPU; by default one a core")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser.parse_args()


def main() -> int:
    """Run the comparison, print it, and return the exit code."""
    given = options()
    if given.threads:
        import torch

        torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        test = gsm8k(given.data / "gsm8k" / "test.jsonl") if given.data else countdowns(given.count, 1)
        model = given.model
        if model is None:
            train = gsm8k(given.data / "gsm8k" / "train.jsonl") if given.data else countdowns(2000, 2)
            model = str(trained(Path(scratch) / "model", train, given.steps))
        prompts = [f"{question}\nAnswer:" for question, _ in test[: given.count]]
        ours = Ours(model, prompts, given.max_tokens, given.device)
        theirs = Theirs(model, prompts, given.max_tokens, given.device)
        for text, ids in zip(prompts, ours.ids, strict=True):
            assert theirs.model.tok_batch_encode([text])[0][0].tolist() == list(ids), "the prompts' ids differ"
        taken: dict[str, list[tuple[float, float]]] = {ours.name: [], theirs.name: []}
        outputs: dict[str, list[str]] = {}
        for repeat in range(given.repeats):
            for side in (ours, theirs) if repeat % 2 == 0 else (theirs, ours):
                outputs[side.name], (wall, cpu) = side.run()
                taken[side.name].append((wall, cpu))
                print(f"{side.name:22}{len(prompts) / wall:8.2f} examples/s{wall:8.1f} s{cpu:8.1f} CPU s", flush=True)
    lengths = sorted(ours.lengths)
    cut = sum(length == given.max_tokens for length in lengths)
    print(
        f"\n{len(prompts)} prompts of {min(map(len, ours.ids))} to {max(map(len, ours.ids))} tokens; completions of "
        f"{lengths[0]} to {lengths[-1]} tokens, median {statistics.median(lengths):.0f}, mean "
        f"{statistics.mean(lengths):.0f}, {cut} cut at {given.max_tokens}"
    )
    same = sum(a == b for a, b in zip(outputs[ours.name], outputs[theirs.name], strict=True))
    print(f"outputs that are the same: {same} of {len(prompts)}")
    pairs = list(zip(taken[ours.name], taken[theirs.name], strict=True))
    walls, cpus = ([b[kind] / a[kind] for a, b in pairs] for kind in (0, 1))
    ratio = statistics.median(walls)
    print(f"ours / lm-eval: {ratio:.2f} times the examples/s (repetitions {', '.join(f'{one:.2f}' for one in walls)})")
    print(f"lm-eval's CPU seconds / ours: {statistics.median(cpus):.2f}")
    print(f"not counted: lm-eval's search for its batch size, {theirs.searching:.1f} s")
    return int(same < 0.98 * len(prompts) or ratio < TARGET)


if __name__ == "__main__":
    sys.exit(main())
