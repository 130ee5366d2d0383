"""Two GPUs by way of Ray, by vLLM's data parallelism, and by two processes started by hand, on the same prompts.

    python perf/ray_gpus.py [--shape 8B | --model DIR] [--ways hand,ray,parallel,one] [--out FILE] [--seconds N]

Each way is a process of its own that loads the model, begins to answer all prompts, so that what is compiled or chosen
at first for batches of any size is there, and then answers them: 4,000 questions like MMLU's and 1,319 like GSM8K's.
Seconds are those of `harness run` without loading (rendering, generation, parsing, scoring, the journal, results.json);
those by hand are from the moment at which both processes, loaded and warm, are given their halves as token ids until
the later one has finished its call of `LLM.generate`. With --shape the weights are random. A JSON line a way and, at
the end, one of ratios go to --out ($OUT/ray_gpus.jsonl, else standard output). A way that would begin after --seconds
is left out, and said to be. --engine transformers --gpus 0 tries the script on a CPU; the ways by vLLM are left out
then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.engines.vllm import VllmEngine
from harness.evaluation.options import run_options
from harness.evaluation.plan import Plan, make_plans
from harness.evaluation.runner import run
from harness.registry import Registry
from replay import made_mmlu
from vllm_overhead import make_model, make_questions

#: Way → the options that make it, beside those of the model.
WAYS = {
    "hand": ["-e", "vllm"],
    "ray": ["-e", "ray", "ray.replicas=2"],
    "parallel": ["-e", "vllm", "vllm.data_parallel_size=2"],
    "one": ["-e", "vllm"],
}

#: (way, the way that it is measured by, the least ratio of their rates that is wanted)
RATIOS = [("ray", "hand", 1.0), ("ray", "parallel", 0.99), ("ray", "one", 1.95), ("parallel", "hand", 1.0)]

#: Tokens that are generated for each prompt beforehand.
WARM = 8


def make_all(arguments: argparse.Namespace, way: str, folder: Path) -> tuple[Plan, ...]:
    """Return the plans of both benchmarks, as `harness run` makes them; rendering is left for the run."""
    engine, *pairs = WAYS[way][1:]
    if arguments.engine != "vllm" and engine == "vllm":
        engine, pairs = arguments.engine, []
    if arguments.engine == "vllm":
        pairs += [
            "vllm.engine_args.enable_prefix_caching=false",
            *(["vllm.engine_args.load_format=dummy"] if arguments.shape else []),
            *([f"vllm.max_num_seqs={arguments.max_num_seqs}"] if arguments.max_num_seqs else []),
        ]
    if engine == "ray":
        pairs += [f"ray.engine={arguments.engine}"]
    pairs += [f"{name}.generation.max_tokens={arguments.max_tokens}" for name in ("mmlu", "gsm8k")]
    counts = {"mmlu": arguments.mmlu, "gsm8k": arguments.gsm8k}
    plans: list[Plan] = []
    for name, count in counts.items():
        flags = {
            "benchmark": (name,), "model": str(arguments.model), "engine": engine, "limit": count,
            "data": str(arguments.data), "prompt_format": "plain", "out": str(folder),
        }  # fmt: skip
        other = {"mmlu": "gsm8k", "gsm8k": "mmlu"}[name]
        own = [pair for pair in pairs + arguments.set if not pair.startswith(other)]
        plans += make_plans(run_options(pairs=own, flags=flags), Registry())
    return tuple(plans)


def by_harness(arguments: argparse.Namespace, way: str) -> Iterator[tuple[str, Any]]:
    """Yield seconds and counts of each benchmark, run as `harness run` does, with one model for both."""
    with tempfile.TemporaryDirectory() as folder:
        plans = make_all(arguments, way, Path(folder))
        respondent = plans[0].respondent
        with respondent:
            started = time.perf_counter()
            model = respondent.loaded()
            yield "load_seconds", round(time.perf_counter() - started, 1)
            for plan in plans:
                requests = (plan.request(index)[1] for index in plan.selection)
                short = replace(plan.generation, max_tokens=WARM)
                for _ in model.generate(replace(each, generation=short) for each in requests):
                    pass
            for plan in plans:
                outcome = run(replace(plan, respondent=respondent), fresh=True, progress=False)
                session = outcome.timing.sessions[-1]
                yield (
                    plan.benchmark.name,
                    {
                        "examples": session.examples,
                        "seconds": session.generation_seconds,
                        "rate": round(session.examples / session.generation_seconds, 2),
                        "completion_tokens": session.completion_tokens,
                        "failed": outcome.results.failed.count,
                    },
                )
            yield "notices", list(getattr(model, "notices", ()))


def by_hand(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Yield the same of two processes with one GPU each, which are given halves of the prompts."""
    with tempfile.TemporaryDirectory() as folder:
        plans = make_all(arguments, "hand", Path(folder))
        engine = plans[0].respondent.engine
        assert isinstance(engine, VllmEngine)
        setup = engine.setup(str(arguments.model))
        work: list[dict[str, Any]] = [
            {
                "sampling": {
                    "temperature": 0.0, "max_tokens": plan.generation.max_tokens, "stop": list(plan.generation.stop),
                    "stop_token_ids": list(setup.stop_token_ids),
                },
                "prompts": [list(plan.request(index)[1].prompt.token_ids or ()) for index in plan.selection],
            }
            for plan in plans
        ]  # fmt: skip
        started = time.perf_counter()
        halves = []
        for number in range(2):
            part = [{**each, "prompts": each["prompts"][number::2]} for each in work]
            given = Path(folder) / f"half-{number}.json"
            given.write_text(json.dumps({"arguments": dict(setup.arguments), "work": part}))
            visible = {} if arguments.gpus == 0 else {"CUDA_VISIBLE_DEVICES": str(number)}
            halves.append(
                subprocess.Popen(
                    [sys.executable, __file__, "--half", str(given)],
                    env={**os.environ, **visible, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        _heard(halves)
        yield "load_seconds", round(time.perf_counter() - started, 1)
        for plan, each in zip(plans, work, strict=True):
            started = time.perf_counter()
            _say(halves)
            tokens = sum(map(int, _heard(halves)))
            seconds = time.perf_counter() - started
            count = len(each["prompts"])
            yield (
                plan.benchmark.name,
                {
                    "examples": count,
                    "seconds": round(seconds, 3),
                    "rate": round(count / seconds, 2),
                    "completion_tokens": tokens,
                },
            )
        for half in halves:
            half.communicate(timeout=60)


def _say(halves: Sequence[Any]) -> None:
    for half in halves:
        half.stdin.write("go\n")
        half.stdin.flush()


def _heard(halves: Sequence[Any]) -> list[str]:
    """Return what each half says next behind a mark; vLLM says things of its own on the same stream."""
    found = []
    for half in halves:
        for line in half.stdout:
            if line.startswith("#half "):
                found.append(line.removeprefix("#half ").strip())
                break
        else:
            raise SystemExit("a process by hand has ended")
    return found


def half(given: str) -> None:
    """Load vLLM, warm up, and generate a list of prompts at each line that comes in."""
    from vllm import LLM, SamplingParams

    told = json.loads(Path(given).read_text())
    llm = LLM(**told["arguments"])
    tasks = [
        ([{"prompt_token_ids": ids} for ids in each["prompts"]], SamplingParams(**each["sampling"]))
        for each in told["work"]
    ]
    for prompts, sampling in tasks:
        short = sampling.clone()
        short.max_tokens = WARM
        llm.generate(prompts, short, use_tqdm=False)
    print("#half ready", flush=True)
    for prompts, sampling in tasks:
        sys.stdin.readline()
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        print(f"#half {sum(len(each.outputs[0].token_ids) for each in outputs)}", flush=True)


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the ratios of rates, by benchmark, and whether they are what is wanted."""
    made: dict[str, Any] = {}
    for way, by, wanted in RATIOS:
        for name in ("mmlu", "gsm8k"):
            if name in found.get(way, {}) and name in found.get(by, {}):
                ratio = round(found[way][name]["rate"] / found[by][name]["rate"], 4)
                made[f"{way}/{by} {name}"] = {"ratio": ratio, "wanted": wanted, "reached": ratio >= wanted}
    return made


def main() -> None:
    """Read the command line and measure each way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default="hand,ray,parallel,one", help="in this order [hand,ray,parallel,one]")
    parser.add_argument("--shape", choices=("135M", "1.2B", "8B"), help="a Llama of this size, with random weights")
    parser.add_argument("--model", type=Path, help="model folder [a tiny random one]")
    parser.add_argument("--engine", default="vllm", help="what the replicas run [vllm]")
    parser.add_argument("--gpus", type=int, default=2, help="0: a CPU [2]")
    parser.add_argument("--mmlu", type=int, default=4000, help="questions like MMLU's [4000]")
    parser.add_argument("--gsm8k", type=int, default=1319, help="questions like GSM8K's [1319]")
    parser.add_argument("--max-tokens", type=int, default=160, help="tokens of a completion at most [160]")
    parser.add_argument("--max-num-seqs", type=int, help="requests that vLLM runs at a time [vLLM's own]")
    parser.add_argument("--seconds", type=float, default=530, help="no way begins that would end after them [530]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of harness run, repeatable")
    parser.add_argument("--out", type=Path, help="file for the JSON lines [$OUT/ray_gpus.jsonl, or standard output]")
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--half", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if arguments.half:
        half(arguments.half)
        return
    if arguments.way:
        made = by_hand(arguments) if arguments.way == "hand" else by_harness(arguments, arguments.way)
        print("#way " + json.dumps(dict(made)), flush=True)
        return
    measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Measure the ways one after the other, and tell each as it is done."""
    out = arguments.out or (Path(os.environ["OUT"]) / "ray_gpus.jsonl" if "OUT" in os.environ else None)
    begun, longest, found = time.monotonic(), 0.0, dict[str, dict[str, Any]]()

    def tell(record: object) -> None:
        print(json.dumps(record), flush=True)
        if out is not None:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or make_model(folder / "model", arguments.shape)
        data = make_questions(folder / "data", arguments.gsm8k)
        made_mmlu(data)
        for way in arguments.ways.split(","):
            if time.monotonic() - begun + longest > arguments.seconds:
                tell({"way": way, "left_out": f"{time.monotonic() - begun:.0f} s have passed"})
                continue
            started = time.monotonic()
            words = [word for word in sys.argv[1:] if word != "--ways" and word != arguments.ways]
            command = [sys.executable, __file__, *words, "--way", way, "--model", str(model), "--data", str(data)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.seconds)
                lines = [line for line in done.stdout.splitlines() if line.startswith("#way ")]
                said = f"exit code {done.returncode}: {done.stderr[-1500:]}"
            except subprocess.TimeoutExpired:
                lines, said = [], f"more than {arguments.seconds:g} s"
            whole = round(time.monotonic() - started, 1)
            longest = max(longest, whole)
            if not lines:
                tell({"way": way, "error": said, "seconds": whole})
                continue
            found[way] = json.loads(lines[0].removeprefix("#way "))
            tell({"way": way, **found[way], "seconds": whole})
    tell({"ratios": ratios(found), "seconds": round(time.monotonic() - begun, 1)})


if __name__ == "__main__":
    main()
