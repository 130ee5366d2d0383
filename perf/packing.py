"""How long packing takes, how full the rows get, and how soon a loader goes on at a million documents.

    python perf/packing.py [--trl-python PYTHON] [--folder DIR]

Lengths are drawn from a log-normal distribution with σ = 0.6: a mean of 480 tokens for instruction data, of 180 for
preference data. PYTHON is an interpreter with TRL; its `pack_dataset` then packs the same lengths ("bfd", which cuts
off what is longer than a row, and "bfd_split", which does not). To go on means to open the cached token ids of a
million documents, pack them, find the rows of a step in the middle of an epoch and build its first microbatch, in a
new process; the made-up data for it takes 2 GB in DIR and is removed afterwards. Measured times are the best of three.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.training.data.packing import best_fit

DATA = (("instruction data", 200_000, 480, 512), ("instruction data", 200_000, 480, 2048),
        ("instruction data", 200_000, 480, 8192), ("preference data", 80_000, 180, 2048),
        ("instruction data", 1_000_000, 480, 2048))  # fmt: skip

TRL = """
import json, sys, time
import numpy as np
import pyarrow as pa
from datasets import Dataset
from trl import pack_dataset
job = json.load(sys.stdin)
lengths = np.load(job["lengths"])
offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
data = Dataset(pa.table({"input_ids": pa.ListArray.from_arrays(offsets, np.zeros(offsets[-1], np.int32))}))
found = {}
for strategy in ("bfd", "bfd_split"):
    try:
        start = time.perf_counter()
        packed = pack_dataset(data, job["width"], strategy)
    except ValueError:
        continue
    seconds = time.perf_counter() - start
    tokens = len(packed.data["input_ids"].combine_chunks().flatten())
    found[strategy] = [seconds, tokens / (len(packed) * job["width"]), int(lengths.sum()) - tokens]
print(json.dumps(found))
"""

RESUME = """
import json, sys, time
start = time.perf_counter()
import torch
imported, busy = time.perf_counter(), time.process_time()
from pathlib import Path
from harness.training.data import tokens
from harness.training.batch import step_rows, steps_in_epoch
from harness.training.data.packing import DocumentRows
from harness.training.data.texts import TextFile, Texts
entry = Path(sys.argv[1])
read = tokens._read(entry, Texts([TextFile(entry / "made")]))
rows = DocumentRows(read, 2048, seed=0, loss="responses")
step = steps_in_epoch(len(rows), 64) // 2
batch = rows.batch(step_rows(len(rows), 64, 0, step)[:8], 8)
print(json.dumps([time.perf_counter() - imported, time.process_time() - busy, len(rows), imported - start]))
"""


def lengths_of(documents: int, mean: float) -> npt.NDArray[np.int64]:
    """Return made-up lengths of documents, at least 16 tokens each."""
    sigma = 0.6
    drawn = np.random.default_rng(0).lognormal(np.log(mean) - sigma**2 / 2, sigma, documents)
    return np.maximum(16, drawn.astype(np.int64))


def split(lengths: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    """Return the lengths of the pieces of documents split at every `width` tokens."""
    rests = lengths % width
    return np.concatenate([np.full(int((lengths // width).sum()), width), rests[rests > 0]])


def best_of(count: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the shortest time in seconds of several runs, and the last result."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


def compare(trl_python: str | None) -> None:
    """Print time and fill of best fit over a whole set, beside TRL's."""
    heads = ("data", "documents", "width", "seconds", "fill", "TRL", "seconds", "fill", "lost tokens", "ratio")
    print("{:18}{:>10}{:>7}{:>9}{:>8}  {:10}{:>9}{:>8}{:>13}{:>7}".format(*heads))
    for name, documents, mean, width in DATA:
        lengths = lengths_of(documents, mean)
        pieces = split(lengths, width)
        seconds, rows = best_of(3, partial(best_fit, pieces, width))
        fill = pieces.sum() / ((rows.max() + 1) * width)
        print(f"{name:18}{documents:10,}{width:7,}{seconds:9.3f}{fill:8.2%}")
        for strategy, (theirs, filled, lost) in (
            trl(trl_python, lengths, width) if trl_python and documents <= 200_000 else {}
        ).items():
            print(f"{'':52}  {strategy:10}{theirs:9.3f}{filled:8.2%}{lost:13,}{theirs / seconds:6.0f}×")


def trl(python: str, lengths: npt.NDArray[np.int64], width: int) -> dict[str, tuple[float, float, int]]:
    """Return seconds, fill and lost tokens of TRL's `pack_dataset`, by strategy."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, lengths)
        job = json.dumps({"lengths": file.name, "width": width})
        done = subprocess.run([python, "-c", TRL], input=job, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{python} could not run TRL:\n{done.stderr}")
    return {name: tuple(figures) for name, figures in json.loads(done.stdout.splitlines()[-1]).items()}


def write_entry(entry: Path, lengths: npt.NDArray[np.int64]) -> None:
    """Write made-up token ids to a folder as `harness.training.data.tokens` keeps them."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = int(offsets[-1])
    with (entry / "ids.bin").open("wb") as stream:
        for start in range(0, tokens, 1 << 24):
            np.arange(start, min(start + (1 << 24), tokens), dtype=np.int32).tofile(stream)
    np.save(entry / "offsets.npy", offsets)
    np.save(entry / "prompts.npy", np.full(len(lengths), 10, np.int32))
    np.save(entry / "gaps.npy", np.zeros((0, 2), np.int64))
    np.save(entry / "contents.npy", np.arange(2 * len(lengths), dtype=np.uint64).reshape(-1, 2))
    facts = {"counts": [len(lengths)], "separate": 0, "empty": 0, "end": 1, "known": ["made up", tokens - 1]}
    (entry / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def resume(folder: Path | None, documents: int = 1_000_000) -> None:
    """Print how long a new process takes from cached token ids to the first microbatch in the middle of an epoch."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        entry = Path(name)
        write_entry(entry, lengths_of(documents, 480))
        runs = []
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, "-c", RESUME, str(entry)], capture_output=True, text=True, check=True
            )
            runs.append(json.loads(done.stdout))
        seconds, busy, rows, imports = min(runs)
    print(
        f"\nto go on at {documents:,} documents ({rows:,} rows of 2,048): {seconds:.2f} s, {busy:.2f} s of it computing"
    )
    print(f"(after the import of torch, {imports:.1f} s)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description="Time packing and resuming.")
    parser.add_argument("--trl-python", help="an interpreter that can import trl")
    parser.add_argument("--folder", type=Path, help="where to put 2 GB of made-up token ids for a while")
    options = parser.parse_args(arguments)
    compare(options.trl_python)
    resume(options.folder)


if __name__ == "__main__":
    main()
