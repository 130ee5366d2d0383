"""What the harness costs over bare vLLM: seconds for the same prompts, model loading excluded.

    python perf/vllm_overhead.py [--examples N] [--repetitions N] [--model DIR --data DIR] …

Three ways take turns, each with a model loaded once: `vllm.LLM.generate` on all prompts in one call, the engine's
`generate`, and what `harness run --benchmark gsm8k` does (prompts, generation, parsing, scoring, the journal, the
results). Printed are all seconds, the medians, and the ratios of medians to bare vLLM. Without --model a tiny random
Llama is made, on which overhead shows most, and without --data questions of GSM8K's lengths. Prefix caching is off, as
it would remember the prompts of the turn before. Runs where vLLM runs; on a CPU with a tiny model it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness.engines.vllm import VllmEngine
from harness.evaluation.options import run_options
from harness.evaluation.plan import Plan, make_plans
from harness.evaluation.runner import run
from harness.interfaces import Model
from harness.registry import Registry
from harness.testing.tiny import make_tiny_model, word_problems
from harness.types import Request


def make_questions(folder: Path, count: int) -> Path:
    """Write `count` questions in GSM8K's format and return the folder.

    They have 3 to 12 sentences: with a tiny model's tokenizer 80 to 300 tokens, as GSM8K's questions behind a system
    prompt have with Llama 3's.
    """
    draw = random.Random(0)
    problems = word_problems(12 * count)
    lines = []
    for start in range(0, len(problems), 12):
        chosen = problems[start : start + draw.randint(3, 12)]
        lines.append(json.dumps({"question": " ".join(question for question, _ in chosen), "answer": chosen[0][1]}))
    path = folder / "gsm8k" / "test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def make_plan(arguments: argparse.Namespace, folder: Path) -> Plan:
    """Return the plan of the run, as `harness run` makes it."""
    model = arguments.model or make_tiny_model(folder / "model", context=2048)
    pairs = [
        "vllm.engine_args.enable_prefix_caching=false",
        f"vllm.enforce_eager={str(not arguments.compiled).lower()}",
        f"vllm.max_num_seqs={arguments.max_num_seqs}",
        f"gsm8k.generation.max_tokens={arguments.max_tokens}",
    ]
    flags = {
        "benchmark": ("gsm8k",),
        "model": str(model),
        "engine": "vllm",
        "prompt_format": arguments.prompt_format,
        "data": str(arguments.data or make_questions(folder / "data", arguments.examples)),
        "out": str(folder / "runs"),
        "limit": arguments.examples,
    }
    (plan,) = make_plans(run_options(pairs=pairs, flags=flags), Registry())
    return plan


class Bare:
    """`vllm.LLM` in a process and session of its own, as the engine's replicas are: neither is in the other's way."""

    def __init__(self, plan: Plan, requests: list[Request]) -> None:
        engine = plan.respondent.engine
        assert isinstance(engine, VllmEngine)
        setup = engine.setup(plan.respondent.model)
        prompts = [request.prompt.text for request in requests]
        expected = [list(request.prompt.token_ids or ()) for request in requests]
        sampling = {
            "temperature": plan.generation.temperature,
            "max_tokens": plan.generation.max_tokens,
            "stop": list(plan.generation.stop),
            "stop_token_ids": list(setup.stop_token_ids),
        }
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        environment = engine.environments()[0]
        self._process = context.Process(
            target=serve_bare, args=(theirs, setup.arguments, environment, prompts, expected, sampling)
        )
        self._process.start()
        self._connection.recv()  # loaded

    def __call__(self) -> int:
        """Generate everything and return the number of tokens."""
        self._connection.send(True)
        tokens: int = self._connection.recv()
        return tokens

    def close(self) -> None:
        """End the process."""
        self._connection.send(False)
        self._process.join()


def serve_bare(
    connection: Any, arguments: Any, environment: Any, prompts: list[str], expected: list[list[int]], sampling: Any
) -> None:
    """Load vLLM, then generate all prompts in one call for each True that comes in."""
    os.setsid()
    os.environ.update({"VLLM_LOGGING_LEVEL": "ERROR", **environment})
    os.environ.pop("TOKENIZERS_PARALLELISM", None)
    from vllm import LLM, SamplingParams

    llm = LLM(**arguments)
    try:
        connection.send(True)
        while connection.recv():
            outputs = llm.generate(prompts, SamplingParams(**sampling), use_tqdm=False)
            if [output.prompt_token_ids for output in outputs] != expected:
                raise SystemExit("vLLM made other token ids of the prompts than the harness: not the same work")
            connection.send(sum(len(output.outputs[0].token_ids) for output in outputs))
    finally:
        llm.llm_engine.engine_core.shutdown()


def engine(model: Model, requests: list[Request]) -> Callable[[], int]:
    """Return a function that has the engine generate everything and counts the tokens."""

    def generate() -> int:
        return sum(completion.completion_tokens or 0 for completion in model.generate(requests))

    return generate


def harness(plan: Plan) -> Callable[[], int]:
    """Return a function that does the whole run in a new folder and counts the tokens."""

    def generate() -> int:
        outcome = run(plan, fresh=True)
        return outcome.timing.sessions[-1].completion_tokens

    return generate


def measure(ways: Mapping[str, Callable[[], int]], repetitions: int) -> None:
    """Let the ways take turns and print what they took; SystemExit if they did not generate the same."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repetitions + 1):
        tokens = {}
        for name, way in ways.items():
            started = time.perf_counter()
            tokens[name] = way()
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - started)
        if len(set(tokens.values())) != 1:
            raise SystemExit(f"the ways differ in the number of tokens that they generate: {tokens}")
        print(f"turn {turn}: {tokens}" + ("" if turn else " (not counted)"), flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    reference = medians[next(iter(ways))]
    for name, values in seconds.items():
        listed = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:20} median {medians[name]:6.2f} s   ratio {medians[name] / reference:.3f}   [{listed}]")


def main() -> None:
    """Read the command line, load the models and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=400, help="questions [400]")
    parser.add_argument("--max-tokens", type=int, default=160, help="tokens of a completion at most [160]")
    parser.add_argument("--repetitions", type=int, default=5, help="turns that count [5]")
    parser.add_argument("--max-num-seqs", type=int, default=64, help="requests that vLLM runs at a time [64]")
    parser.add_argument("--prompt-format", default="plain", help="prompt format [plain]")
    parser.add_argument("--model", help="model folder [a tiny random one]")
    parser.add_argument("--data", help="folder with gsm8k/test.jsonl [made-up questions]")
    parser.add_argument("--compiled", action="store_true", help="let vLLM compile the model (enforce_eager=false)")
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as `harness run` has it; bare vLLM has what it takes by itself
    with ExitStack() as stack:
        plan = make_plan(arguments, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.enter_context(plan.respondent)
        requests = [plan.request(index)[1] for index in plan.selection]
        lengths = sorted(len(request.prompt.token_ids or ()) for request in requests)
        print(f"{len(requests)} prompts of {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}")
        model = plan.respondent.loaded()
        bare = Bare(plan, requests)
        ways: dict[str, Callable[[], int]] = {
            "bare LLM.generate": bare,
            "engine.generate": engine(model, requests),
            "harness run": harness(plan),
        }
        try:
            measure(ways, arguments.repetitions)
        finally:
            bare.close()


if __name__ == "__main__":
    main()
