"""How long a training takes to its first step, from the command on: of a 135M model, anew and compiled before.

    python perf/first_step.py [--starts N] [--size 135M] [--device auto] [--imports FILE]

`harness train sft` is started so many times on random words, in rows of 1,024 tokens, eight a step, on a random model.
The first start compiles; the others find its code in $HARNESS_CACHE, a folder of this run. Seconds are from the start
of the command to the plan, which data and tokenizer precede, and to the end of the first step, which importing, loading
and compiling precede. Bytecode is kept too, as an installed package has it. --imports writes what -X importtime says of
one more start.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from beside_trl import SIZES, random_model, words_tokenizer


def make(folder: Path, size: str) -> None:
    """Write a model and its data."""
    words = SIZES[size]["vocab_size"]
    random_model(None, "sdpa", "cpu", size).save_pretrained(folder / "model")
    words_tokenizer(words).save_pretrained(folder / "model")
    draw = np.random.default_rng(0)
    with (folder / "train.jsonl").open("w") as file:
        for _ in range(256):
            prompt, response = (" ".join(f"w{n}" for n in draw.integers(0, words - 256, 256)) for _ in range(2))
            file.write(f"{json.dumps({'prompt': prompt, 'response': response})}\n")


def start(folder: Path, number: int, device: str, imports: Path | None = None) -> dict[str, float]:
    """Start a training and return the seconds until things are said; `imports` is where its imports are written to."""
    options = {
        "data": json.dumps([str(folder / "train.jsonl")]), "prompt_format": "plain", "sequence_length": 1024,
        "batch_size": 8, "max_steps": 3, "log_every": 1, "device": device,
    }  # fmt: skip
    flags = ["-X", "importtime"] if imports else []
    words = [sys.executable, *flags, "-m", "harness", "train", "sft", "--model", str(folder / "model")]
    words += ["--out", str(folder / f"out{number}")]
    words += [part for name, value in options.items() for part in ("--set", f"sft.{name}={value}")]
    found: dict[str, float] = {}
    said: list[str] = []
    environment = {
        **os.environ,
        "HARNESS_CACHE": str(folder / "cache"),
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:  # fmt: skip
        for line in running.stderr or ():
            now = time.perf_counter() - began
            for name, mark in (("plan", "steps  "), ("first_step", "step 1/"), ("third_step", "step 3/")):
                if line.startswith(mark):
                    found.setdefault(name, now)
            said.append(line)
    if imports:
        imports.write_text("".join(line for line in said if line.startswith("import time:")))
    if running.returncode:
        raise SystemExit(f"the training failed with exit code {running.returncode}: {''.join(said[-20:])}")
    return {**found, "whole": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--size", choices=SIZES, default="135M")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--imports", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        make(Path(place), given.size)
        for number in range(given.starts):
            found = start(Path(place), number, given.device)
            print(json.dumps({"name": f"start {number + 1}", "torch": torch.__version__, **found}), flush=True)
        if given.imports:
            start(Path(place), given.starts, given.device, given.imports)


if __name__ == "__main__":
    main()
