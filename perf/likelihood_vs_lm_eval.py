"""Log-likelihoods of MMLU's options beside lm-eval's: questions a second on vLLM, and what both say.

    pip install -e '.[vllm]' lm_eval accelerate
    python perf/likelihood_vs_lm_eval.py [--shape 8B] [--count 14042] [--theirs 3500] [--small 500] [--data DIR]

Each row is a process of its own, whose loading and warm-up are not counted. `harness run` with
``scoring = "loglikelihood"`` weighs the options of `--count` questions, prompts, journal and results included;
lm-eval's class `VLLM` (its public `loglikelihood`, `batch_size=auto`) those of the first `--theirs` of them. A model of
`--shape` has weights that vLLM makes up, from which nothing can be told but speed. So a model of 135M with random
weights answers `--small` questions on vLLM in bf16, and with the engine `transformers` and lm-eval's `HFLM` in fp32,
and the log-probabilities are compared. The tokenizer is trained on the questions, so that prompts are as long as with
those of large models. Without `--data` (a folder with mmlu/test/*.csv) questions of MMLU's lengths are made up.

Results are printed, and written to $OUT/likelihood.jsonl where OUT is set, a line each. The exit code is 1 where
log-probabilities in fp32 differ by more than 1e-4 nats, or where `harness run` is slower than lm-eval.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.evaluation.options import run_options
from harness.evaluation.plan import Plan, make_plans
from harness.evaluation.runner import run
from harness.prompts.shots import spaced
from harness.registry import Registry
from harness.testing.tiny import make_tiny_model, word_problems

#: Tokens of the vocabulary that is trained on the questions.
VOCABULARY = 16_384

#: Name of a row → who, by which engine, on which model, and which of the counts says how many questions.
ROWS = {
    "harness run, vllm": ("ours", "vllm", "large", "count"),
    "lm-eval, vllm": ("theirs", "vllm", "large", "theirs"),
    "harness run, vllm, 135M": ("ours", "vllm", "small", "small"),
    "lm-eval, vllm, 135M": ("theirs", "vllm", "small", "small"),
    "harness run, transformers, 135M": ("ours", "transformers", "small", "small"),
    "lm-eval, hf, 135M": ("theirs", "hf", "small", "small"),
}

#: Ours, theirs, and the most by which log-probabilities may differ, in nats.
PAIRS = (
    ("harness run, vllm", "lm-eval, vllm", None),
    ("harness run, vllm, 135M", "lm-eval, vllm, 135M", None),
    ("harness run, transformers, 135M", "lm-eval, hf, 135M", 1e-4),
)


def make_questions(folder: Path, count: int) -> None:
    """Write `count` questions in MMLU's layout: a line to many, log-normal as MMLU's are, median 40 words."""
    draw = random.Random(0)
    sentences = [question for question, _ in word_problems(4000)]
    path = folder / "mmlu" / "test" / "high_school_physics_test.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        for _ in range(count):
            words = max(8, round(draw.lognormvariate(3.4, 0.8)))
            text = " ".join(draw.choices(sentences, k=1 + words // 20)).split()[:words]
            options = [" ".join(draw.choice(sentences).split()[: draw.randint(1, 9)]) for _ in range(4)]
            csv.writer(file).writerow([" ".join(text), *options, draw.choice("ABCD")])


def texts_of(data: Path) -> list[str]:
    """Return the questions and options as one text for each row."""
    rows = []
    for path in sorted((data / "mmlu" / "test").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += [" ".join(row) for row in csv.reader(file)]
    return rows


def make_models(folder: Path, texts: Sequence[str], large: str | None, device: str) -> None:
    """Write the small model, with random weights, and the large one, of which there are none."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from beside_trl import shape

    for name in ("large", "small"):
        make_tiny_model(folder / name, texts=texts, vocab_size=VOCABULARY, context=4096)
    if large is None:  # both tiny
        return
    ends = json.loads((folder / "large" / "config.json").read_text("utf-8"))
    for name, size in (("large", large), ("small", "135M")):
        config = {**shape(size=size).to_dict(), "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
        config |= {key: ends[key] for key in ("bos_token_id", "eos_token_id")}
        if name == "small":
            torch.manual_seed(0)
            make: Any = AutoModelForCausalLM.from_config  # untyped
            with torch.device(device):
                make(LlamaConfig(**config | {"dtype": "float32"})).save_pretrained(folder / name)
        else:
            (folder / name / "config.json").write_text(json.dumps(config), "utf-8")
            (folder / name / "model.safetensors").unlink()


def make_plan(engine: str, model: Path, given: argparse.Namespace, count: int) -> Plan:
    """Return the plan of the run, as `harness run` makes it."""
    pairs = []
    if engine == "vllm":
        own = settings(model, given)
        own |= {f"engine_args.{name}": value for name, value in own.pop("engine_args", {}).items()}
        pairs += [f"vllm.{name}={json.dumps(value)}" for name, value in own.items()]
    else:
        pairs += ["transformers.dtype=float32"]
    flags = {
        "benchmark": ("mmlu",),
        "model": str(model),
        "engine": engine,
        "prompt_format": "plain",
        "data": str(given.data),
        "out": str(given.folder / "runs"),
        "limit": count,
        "scoring": "loglikelihood",
    }
    subjects = [path.stem.removesuffix("_test") for path in (given.data / "mmlu" / "test").glob("*.csv")]
    pairs.append(f"mmlu.subjects={json.dumps(sorted(subjects))}")
    (plan,) = make_plans(run_options(pairs=pairs, flags=flags), Registry())
    return plan


def settings(model: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Return vLLM's arguments for both sides, those that are no options of the engine in `engine_args`."""
    further: dict[str, Any] = {} if (model / "model.safetensors").exists() else {"load_format": "dummy"}
    found: dict[str, Any] = {"dtype": "bfloat16", "enforce_eager": True, "max_model_len": 4096, "seed": 0}
    if given.device == "cpu":
        further["kv_cache_memory_bytes"] = 1 << 30
    else:
        found["gpu_memory_utilization"] = 0.9
    return {**found, **({"engine_args": further} if further else {})}


def ours(engine: str, model: Path, given: argparse.Namespace, count: int) -> dict[str, Any]:
    """Return the seconds of `harness run`, and the log-probabilities by id."""
    plan = make_plan(engine, model, given, count)
    with plan.respondent:
        loaded = plan.respondent.loaded()
        warm = [plan.request(index)[1] for index in plan.selection[:64]]
        turned = [each.prompt.token_ids or () for each in warm]
        for completion in loaded.generate(_reversed(each, ids) for each, ids in zip(warm, turned, strict=True)):
            assert completion.error is None, completion.error
        started = time.perf_counter()
        outcome = run(plan, fresh=True, progress=False)
        seconds = time.perf_counter() - started
    found = {one.id: [each.logprob for each in one.likelihoods] for one in outcome.run.samples()}
    return {"seconds": seconds, "logprobs": found}


def _reversed(request: Any, ids: Sequence[int]) -> Any:
    """Return a request for other ids, so that no cache has any of the first."""
    from dataclasses import replace

    first, *others = ids
    turned = [
        replace(each, token_ids=(first, *others[::-1], each.token_ids[-1]), start=len(ids))
        for each in request.continuations
    ]
    prompt = replace(request.prompt, token_ids=(first, *others[::-1]))
    return replace(request, prompt=prompt, continuations=tuple(turned))


def theirs(engine: str, model: Path, given: argparse.Namespace, count: int) -> dict[str, Any]:
    """Return the seconds of lm-eval's `loglikelihood` on the same texts, and the log-probabilities by id."""
    from lm_eval.api.instance import Instance

    plan = make_plan("vllm" if engine == "vllm" else "transformers", model, given, count)
    asked = [plan.request(index)[1] for index in plan.selection]
    loaded: Any
    if engine == "vllm":
        from lm_eval.models.vllm_causallms import VLLM

        arguments = settings(model, given)
        loaded = VLLM(pretrained=str(model), **arguments.pop("engine_args", {}), **arguments)
    else:
        from lm_eval.models.huggingface import HFLM

        loaded = HFLM(pretrained=str(model), device=given.device, dtype="float32", batch_size=32)

    def instances(texts: Sequence[str]) -> list[Any]:
        return [
            Instance("loglikelihood", doc={}, arguments=(text, f" {letter}"), idx=index)
            for index, text in enumerate(texts)
            for letter in "ABCD"
        ]

    contexts = [spaced(each.prompt.text, "The correct answer is") for each in asked]
    loaded.loglikelihood(instances([text[::-1] for text in contexts[:64]]), disable_tqdm=True)
    work = instances(contexts)
    started = time.perf_counter()
    answers = [value for value, _ in loaded.loglikelihood(work, disable_tqdm=True)]
    seconds = time.perf_counter() - started
    found = {each.id: answers[4 * number : 4 * number + 4] for number, each in enumerate(asked)}
    return {"seconds": seconds, "logprobs": found}


def say(**fields: Any) -> None:
    """Print a result, and write it where it is wanted."""
    print(json.dumps(fields), flush=True)
    if out := os.environ.get("OUT"):
        with open(Path(out) / "likelihood.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")


def compare(found: dict[str, dict[str, Any]]) -> bool:
    """Say how ours and theirs compare; return whether all is as it should be."""
    fine = True
    for one, other, most in PAIRS:
        if one not in found or other not in found:
            continue
        mine, its = found[one]["logprobs"], found[other]["logprobs"]
        both = mine.keys() & its.keys()
        widest = max(abs(a - b) for key in both for a, b in zip(mine[key], its[key], strict=True))
        alike = sum(_best(mine[key]) == _best(its[key]) for key in both) / len(both)
        ratio = found[one]["speed"] / found[other]["speed"]
        say(ours=one, theirs=other, ratio=round(ratio, 3), compared=len(both), widest=widest, same_answer=alike)
        fine &= (most is None or widest <= most) and (one != PAIRS[0][0] or ratio >= 1)
    return fine


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def main() -> int:
    """Make questions and models, measure each row in a process of its own, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=14_042, help="questions of ours on the large model [14042]")
    parser.add_argument("--theirs", type=int, default=3_500, help="questions of lm-eval's on it [3500]")
    parser.add_argument("--small", type=int, default=500, help="questions to the small model [500]")
    parser.add_argument("--shape", choices=("135M", "1.2B", "8B", "none"), default="8B", help="none: a tiny model [8B]")
    parser.add_argument("--data", type=Path, help="folder with mmlu/test/*.csv [made-up questions]")
    parser.add_argument("--device", default="cuda", help="cuda or cpu [cuda]")
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help="; ".join(ROWS))
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        side, engine, name, count = ROWS[given.row]
        result = globals()[side](engine, given.folder / name, given, getattr(given, count))
        (given.folder / "result.json").write_text(json.dumps(result))
        os._exit(0)  # lm-eval's vLLM can abort the process while it ends
    with tempfile.TemporaryDirectory() as scratch:
        given.folder = Path(scratch)
        if given.data is None:
            given.data = given.folder / "data"
            make_questions(given.data, max(given.count, given.theirs, given.small))
        make_models(given.folder, texts_of(given.data), None if given.shape == "none" else given.shape, given.device)
        found = {row: measured for row in given.only or ROWS if (measured := measure(row, given))}
        return int(not compare(found) or len(found) < len(given.only or ROWS))


def measure(row: str, given: argparse.Namespace) -> dict[str, Any] | None:
    """Measure a row in a process of its own; None where that fails."""
    words = [sys.executable, __file__, "--row", row, "--folder", given.folder, "--data", given.data]
    words += ["--count", given.count, "--theirs", given.theirs, "--small", given.small, "--device", given.device]
    started = time.perf_counter()
    done = subprocess.run(list(map(str, words)), check=False)
    if done.returncode:
        say(row=row, failed=done.returncode)
        return None
    result: dict[str, Any] = json.loads((given.folder / "result.json").read_text())
    count = len(result["logprobs"])
    result["speed"] = count / result["seconds"]
    whole = round(time.perf_counter() - started, 1)
    say(row=row, questions=count, seconds=round(result["seconds"], 2), speed=round(result["speed"], 1), whole=whole)
    return result


if __name__ == "__main__":
    sys.exit(main())
