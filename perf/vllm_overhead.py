"""What the harness costs over bare vLLM: seconds for the same prompts, model loading excluded.

    python perf/vllm_overhead.py [--examples N] [--repetitions N] [--samples K] [--model DIR | --shape 8B] [--data DIR]

Three ways take turns, each with a model loaded once: `vllm.LLM.generate` on all prompts in one call, the engine's
`generate`, and what `harness run --benchmark gsm8k` does (prompts, generation, parsing, scoring, the journal, the
results). Printed are all seconds, the medians, and the ratios of medians to bare vLLM. Without --model a tiny random
Llama is made, on which overhead shows most, with --shape a large one that vLLM fills with random weights, and without
--data questions of GSM8K's lengths. Prefix caching is off, as it would remember the prompts of the turn before. Runs
where vLLM runs; on a CPU with a tiny model it takes minutes. Two engines are loaded at a time: on one GPU say
`--set vllm.gpu_memory_utilization=0.42`.

With --samples K each prompt is sampled K times at --temperature: bare vLLM by `n=K`, without a seed and, as a fourth
way, with one; the harness by seeded requests. Prefix caching is as vLLM has it then, on. What is generated differs from
way to way, so seconds are scaled to the tokens that the first way generated.
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


def make_model(folder: Path, size: str | None) -> Path:
    """Write a tiny Llama; with a `size` its config.json is that of a large one, of which there are no weights."""
    model = make_tiny_model(folder, context=2048)
    if size is not None:
        from beside_trl import shape

        config = {**shape(size=size).to_dict(), "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
        config["eos_token_id"] = json.loads((model / "config.json").read_text("utf-8"))["eos_token_id"]
        (model / "config.json").write_text(json.dumps(config), "utf-8")
    return model


def make_plan(arguments: argparse.Namespace, folder: Path) -> Plan:
    """Return the plan of the run, as `harness run` makes it."""
    model = arguments.model or make_model(folder / "model", arguments.shape)
    pairs = [
        f"vllm.engine_args.enable_prefix_caching={str(arguments.samples > 1).lower()}",
        f"vllm.enforce_eager={str(not arguments.compiled).lower()}",
        f"vllm.max_num_seqs={arguments.max_num_seqs}",
        f"gsm8k.generation.max_tokens={arguments.max_tokens}",
        *([f"gsm8k.generation.temperature={arguments.temperature}"] if arguments.samples > 1 else []),
        *(["vllm.engine_args.load_format=dummy"] if arguments.shape else []),
        *arguments.set,
    ]
    flags = {
        "benchmark": ("gsm8k",),
        "model": str(model),
        "engine": "vllm",
        "prompt_format": arguments.prompt_format,
        "data": str(arguments.data or make_questions(folder / "data", arguments.examples)),
        "out": str(folder / "runs"),
        "limit": arguments.examples,
        "samples": arguments.samples,
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
            "n": plan.options.samples,
            "temperature": plan.generation.temperature,
            "top_p": plan.generation.top_p,
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

    def __call__(self, seed: int | None = None) -> int:
        """Generate everything, with a seed or without, and return the number of tokens."""
        self._connection.send({"seed": seed})
        tokens: int = self._connection.recv()
        return tokens

    def close(self) -> None:
        """End the process."""
        self._connection.send(None)
        self._process.join()


def serve_bare(
    connection: Any, arguments: Any, environment: Any, prompts: list[str], expected: list[list[int]], sampling: Any
) -> None:
    """Load vLLM, then generate all prompts in one call for each table of options that comes in."""
    os.setsid()
    os.environ.update({"VLLM_LOGGING_LEVEL": "ERROR", **environment})
    os.environ.pop("TOKENIZERS_PARALLELISM", None)
    from vllm import LLM, SamplingParams

    llm = LLM(**arguments)
    try:
        connection.send(True)
        while (options := connection.recv()) is not None:
            outputs = llm.generate(prompts, SamplingParams(**sampling, **options), use_tqdm=False)
            if [output.prompt_token_ids for output in outputs] != expected:
                raise SystemExit("vLLM made other token ids of the prompts than the harness: not the same work")
            connection.send(sum(len(one.token_ids) for output in outputs for one in output.outputs))
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


def measure(ways: Mapping[str, Callable[[], int]], repetitions: int, *, same: bool) -> None:
    """Let the ways take turns and print what they took; SystemExit if they are to generate the `same` and did not.

    Else their seconds are scaled to as many tokens as the first way generated in the turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repetitions + 1):
        tokens = {}
        for name, way in ways.items():
            started = time.perf_counter()
            tokens[name] = way()
            if turn:  # the first turn warms up
                first = next(iter(tokens.values()))
                seconds[name].append((time.perf_counter() - started) * first / tokens[name])
        if same and len(set(tokens.values())) != 1:
            raise SystemExit(f"the ways differ in the number of tokens that they generate: {tokens}")
        print(f"turn {turn}: {tokens}" + ("" if turn else " (not counted)"), flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    reference = medians[next(iter(ways))]
    for name, values in seconds.items():
        listed = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:24} median {medians[name]:6.2f} s   ratio {medians[name] / reference:.3f}   "
              f"speed {reference / medians[name]:.3f}   [{listed}]")  # fmt: skip


def main() -> None:
    """Read the command line, load the models and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=400, help="questions [400]")
    parser.add_argument("--max-tokens", type=int, default=160, help="tokens of a completion at most [160]")
    parser.add_argument("--samples", type=int, default=1, help="samples of each question [1]")
    parser.add_argument("--temperature", type=float, default=0.7, help="at which several samples are drawn [0.7]")
    parser.add_argument("--repetitions", type=int, default=5, help="turns that count [5]")
    parser.add_argument("--max-num-seqs", type=int, default=64, help="requests that vLLM runs at a time [64]")
    parser.add_argument("--prompt-format", default="plain", help="prompt format [plain]")
    parser.add_argument("--model", help="model folder [a tiny random one]")
    parser.add_argument("--shape", choices=("135M", "1.2B", "8B"), help="a Llama of this size, with random weights")
    parser.add_argument("--data", help="folder with gsm8k/test.jsonl [made-up questions]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of harness run, repeatable")
    parser.add_argument("--compiled", action="store_true", help="let vLLM compile the model (enforce_eager=false)")
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as `harness run` has it; bare vLLM has what it takes by itself
    with ExitStack() as stack:
        plan = make_plan(arguments, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.enter_context(plan.respondent)
        asked = [plan.request(index)[1] for index in plan.selection]
        requests = [plan.repeated(one, repeat) for one in asked for repeat in range(arguments.samples)]
        lengths = sorted(len(request.prompt.token_ids or ()) for request in asked)
        print(f"{len(asked)} prompts of {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}")
        model = plan.respondent.loaded()
        bare = Bare(plan, asked)
        ways: dict[str, Callable[[], int]] = {"bare LLM.generate": bare}
        if arguments.samples > 1:
            ways["bare, with a seed"] = lambda: bare(0)
        ways |= {"engine.generate": engine(model, requests), "harness run": harness(plan)}
        try:
            measure(ways, arguments.repetitions, same=plan.generation.temperature == 0)
        finally:
            bare.close()


if __name__ == "__main__":
    main()
