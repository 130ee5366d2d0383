"""Two GPUs by way of Ray, by vLLM's data parallelism, and by two processes started by hand, on the same prompts.

    python perf/ray_gpus.py [--shape 8B | --model DIR] [--ways hand,ray,parallel,one] [--turns 3] [--out FILE]

Each way is a process of its own. All load the model, one after the other, into shares of the GPUs' memory, and begin to
answer all prompts, so that what is compiled or chosen at first for batches of any size is there. Then they answer them
in turns: 4,000 questions like MMLU's and 1,319 like GSM8K's. Seconds are those of `harness run` without loading
(rendering, generation, parsing, scoring, the journal, results.json); those by hand are from the moment at which both
processes are given their halves as token ids until the later one has finished its call of `LLM.generate`. With --shape
the weights are random. A JSON line a way and turn and, at the end, one of ratios, medians of the turns, go to --out
($OUT/ray_gpus.jsonl, else standard output). No turn begins that would end after --seconds. --engine transformers
--gpus 0 tries the script on a CPU, without the ways that are vLLM's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
            f"vllm.gpu_memory_utilization={arguments.share}",
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


def by_harness(arguments: argparse.Namespace, way: str) -> None:
    """Load a model, and run each benchmark that is asked for as `harness run` does."""
    with tempfile.TemporaryDirectory() as folder:
        plans = {plan.benchmark.name: plan for plan in make_all(arguments, way, Path(folder))}
        respondent = next(iter(plans.values())).respondent
        with respondent:
            started = time.perf_counter()
            model = respondent.loaded()
            seconds = time.perf_counter() - started
            for plan in plans.values():
                requests = (plan.request(index)[1] for index in plan.selection)
                short = replace(plan.generation, max_tokens=WARM)
                for _ in model.generate(replace(each, generation=short) for each in requests):
                    pass
            tell({"load_seconds": round(seconds, 1)})
            for line in sys.stdin:
                plan = plans[line.strip()]
                outcome = run(replace(plan, respondent=respondent), fresh=True, progress=False)
                session = outcome.timing.sessions[-1]
                tell(
                    {
                        **measured(session.examples, session.generation_seconds, session.completion_tokens),
                        "failed": outcome.results.failed.count,
                        "notices": list(getattr(model, "notices", ())),
                    }
                )


def by_hand(arguments: argparse.Namespace) -> None:
    """Do the same with two processes with one GPU each, which are given halves of the prompts."""
    with tempfile.TemporaryDirectory() as folder:
        plans = make_all(arguments, "hand", Path(folder))
        engine = plans[0].respondent.engine
        assert isinstance(engine, VllmEngine)
        setup = engine.setup(str(arguments.model))
        work: dict[str, dict[str, Any]] = {
            plan.benchmark.name: {
                "sampling": {
                    "temperature": 0.0, "max_tokens": plan.generation.max_tokens, "stop": list(plan.generation.stop),
                    "stop_token_ids": list(setup.stop_token_ids),
                },
                "prompts": [list(plan.request(index)[1].prompt.token_ids or ()) for index in plan.selection],
            }
            for plan in plans
        }  # fmt: skip
        started = time.perf_counter()
        halves = []
        for number in range(2):
            part = {name: {**each, "prompts": each["prompts"][number::2]} for name, each in work.items()}
            given = Path(folder) / f"half-{number}.json"
            given.write_text(json.dumps({"arguments": dict(setup.arguments), "work": part}))
            visible = {} if arguments.gpus == 0 else {"CUDA_VISIBLE_DEVICES": str(number)}
            environment = {**os.environ, **visible, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
            halves.append(child(["--half", str(given)], env=environment))
        for each in halves:
            heard(each)
        tell({"load_seconds": round(time.perf_counter() - started, 1)})
        for line in sys.stdin:
            started = time.perf_counter()
            for each in halves:
                ask(each, line.strip())
            tokens = sum(heard(each)["tokens"] for each in halves)
            tell(measured(len(work[line.strip()]["prompts"]), time.perf_counter() - started, tokens))
        for each in halves:
            each.communicate(timeout=60)


def half(given: str) -> None:
    """Load vLLM, warm up, and generate the prompts of each benchmark that is asked for."""
    from vllm import LLM, SamplingParams

    told = json.loads(Path(given).read_text())
    llm = LLM(**told["arguments"])
    tasks = {
        name: ([{"prompt_token_ids": ids} for ids in each["prompts"]], SamplingParams(**each["sampling"]))
        for name, each in told["work"].items()
    }
    for prompts, sampling in tasks.values():
        short = sampling.clone()
        short.max_tokens = WARM
        llm.generate(prompts, short, use_tqdm=False)
    tell({})
    for line in sys.stdin:
        prompts, sampling = tasks[line.strip()]
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        tell({"tokens": sum(len(each.outputs[0].token_ids) for each in outputs)})


def measured(examples: int, seconds: float, tokens: int | None) -> dict[str, Any]:
    """Return what is told of a benchmark."""
    rate = round(examples / seconds, 2)
    return {"examples": examples, "seconds": round(seconds, 3), "rate": rate, "completion_tokens": tokens}


def child(words: Sequence[str], **how: Any) -> subprocess.Popen[str]:
    """Start this script as a process that is asked on its standard input."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, __file__, *words], text=True, **pipes, **how)


def ask(process: subprocess.Popen[str], name: str) -> None:
    """Ask a process for a benchmark; that it has ended is told by what is heard next."""
    assert process.stdin is not None
    with suppress(OSError):
        print(name, file=process.stdin, flush=True)


def tell(record: Mapping[str, Any]) -> None:
    """Answer, behind a mark: libraries say things of their own on the same stream."""
    print("#told " + json.dumps(record), flush=True)


def heard(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a process tells next; SystemExit where it has ended."""
    for line in process.stdout or ():
        if line.startswith("#told "):
            found: dict[str, Any] = json.loads(line.removeprefix("#told "))
            return found
    raise SystemExit(f"a process has ended with exit code {process.wait()}")


def ratios(rates: Mapping[tuple[str, str], Sequence[float]]) -> dict[str, Any]:
    """Return the ratios of rates by benchmark, medians and ends of the turns, and whether they are what is wanted."""
    made: dict[str, Any] = {}
    for way, by, wanted in RATIOS:
        for name in ("mmlu", "gsm8k"):
            pairs = zip(rates.get((way, name), ()), rates.get((by, name), ()), strict=False)
            if found := [round(one / other, 4) for one, other in pairs]:
                ratio = statistics.median(found)
                spread = {"least": min(found), "most": max(found)}
                made[f"{way}/{by} {name}"] = {"ratio": ratio, **spread, "wanted": wanted, "reached": ratio >= wanted}
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
    parser.add_argument("--turns", type=int, default=3, help="how often each answers all prompts [3]")
    parser.add_argument("--seconds", type=float, default=570, help="no turn begins that would end after them [570]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of harness run, repeatable")
    parser.add_argument("--out", type=Path, help="file for the JSON lines [$OUT/ray_gpus.jsonl, or standard output]")
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=float, default=0.9, help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--half", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if arguments.half:
        half(arguments.half)
        return
    if arguments.way == "hand":
        by_hand(arguments)
    elif arguments.way:
        by_harness(arguments, arguments.way)
    else:
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Measure the ways in turns, and say each result as it is there."""
    out = arguments.out or (Path(os.environ["OUT"]) / "ray_gpus.jsonl" if "OUT" in os.environ else None)
    begun, longest, rates = time.monotonic(), 0.0, dict[tuple[str, str], list[float]]()
    ways = arguments.ways.split(",")

    def say(record: object) -> None:
        print(json.dumps(record), flush=True)
        if out is not None:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or make_model(folder / "model", arguments.shape)
        data = make_questions(folder / "data", arguments.gsm8k)
        made_mmlu(data)
        share = 0.9 / len(ways) / (1 if arguments.gpus else 4)  # processes by hand share a CPU's memory
        shared = ["--model", str(model), "--data", str(data), "--share", f"{share:.3f}"]
        processes = {}
        for way in ways:
            processes[way] = child([*sys.argv[1:], *shared, "--way", way])
            say({"way": way, **heard(processes[way])})
        for turn in range(arguments.turns):
            started = time.monotonic()
            if started - begun + longest > arguments.seconds:
                say({"left_out": f"{arguments.turns - turn} turns: {started - begun:.0f} s have passed"})
                break
            for benchmark in ("mmlu", "gsm8k"):
                for way, process in processes.items():
                    ask(process, benchmark)
                    found = heard(process)
                    say({"turn": turn, "way": way, "benchmark": benchmark, **found})
                    rates.setdefault((way, benchmark), []).append(found["rate"])
            longest = max(longest, time.monotonic() - started)
        for process in processes.values():
            process.communicate(timeout=120)
    say({"ratios": ratios(rates), "seconds": round(time.monotonic() - begun, 1)})


if __name__ == "__main__":
    main()
