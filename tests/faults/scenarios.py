"""What is disturbed: commands that write, the folder that each begins in, and what of its end must be the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.testing.tiny import make_tiny_model, word_problems

#: The folder below which everything is written that a command writes.
OUT = "out"

#: A session that is killed tells nobody how long it took.
_OF_A_SESSION = ("timing.json",)

#: Parts of names of metrics that no two trainings share.
_TIMED = ("seconds", "tokens_per", "memory", "mfu", "pairs_per")


@dataclass(frozen=True)
class Scenario:
    """A command, given in a copy of `begun`, which has a folder `OUT`; `ended` returns what must be the same after it.

    `ends` are the exit codes of the command where nothing disturbs it, `ranks` the processes that it runs in.
    """

    name: str
    words: tuple[str, ...]
    begun: Path
    ended: Callable[[Path], Mapping[str, Any]]
    ends: tuple[int, ...] = (0,)
    ranks: int = 1


def scenarios(folder: Path, run: Callable[[tuple[str, ...], Path], None]) -> list[Scenario]:
    """Return all, with their folders made below `folder`; `run` carries out a command in a folder."""
    plain = _files(folder / "plain")
    ask = ("run", "--benchmark", "gsm8k", "--engine", "replay", "--model", "answers.jsonl", "--data", "data")
    safety = (
        "run", "--benchmark", "simple_safety_tests", "--engine", "replay", "--model", "outputs.jsonl", "--data", "data",
        "--run-dir", f"{OUT}/run",
    )  # fmt: skip
    judging = ("--judge", "replies.jsonl", "--judge-engine", "replay")
    judged, asked = _files(folder / "judged"), _files(folder / "asked")
    run(safety, judged)
    run((*ask, "--run-dir", f"{OUT}/run"), asked)
    training = _files(folder / "training")
    make_tiny_model(training / "model", hidden=32, layers=1, context=256)
    found = [
        Scenario("run", (*ask, "--run-dir", f"{OUT}/run"), plain, _run),
        Scenario("run --samples 4", (*ask, "--run-dir", f"{OUT}/run", "--samples", "4", "--set",
                                     "gsm8k.generation.temperature=0.7"), plain, _run),
        Scenario("run --judge", (*safety, *judging), plain, _run),
        Scenario("judge", ("judge", f"{OUT}/run", *judging), judged, _run),
        Scenario("export", ("export", f"{OUT}/run", "--format", "lm-eval", "--force"), asked, _exports),
        Scenario("import", ("import", "theirs.jsonl", "-b", "gsm8k", "--data", "data", "-o", OUT), plain, _run),
    ]  # fmt: skip
    for trainer in ("sft", "dpo"):
        options = {"data": '["pairs.jsonl"]', "prompt_format": "plain", "epochs": "2", "max_steps": "3",
                   "batch_size": "4", "microbatch_size": "2", "save_every": "1", "log_every": "1",
                   "deterministic": "true", "device": "cpu", "dtype": "float32", "sequence_length": "128"}  # fmt: skip
        options |= {"validation_pairs": "4"} if trainer == "dpo" else {"validation_documents": "4"}
        words = [word for name, value in options.items() for word in ("--set", f"{trainer}.{name}={value}")]
        command = ("train", trainer, "--model", "model", "--out", f"{OUT}/made", *words)
        found.append(Scenario(f"train {trainer}", command, training, _training))
        if trainer == "sft":
            found.append(Scenario("train sft, 2 ranks", command, training, _training, ranks=2))
    return found


def _files(folder: Path) -> Path:
    """Make a folder with the data, outputs and replies that all commands read, and return it."""
    for name in ("gsm8k", "simple_safety_tests"):
        (folder / "data" / name).mkdir(parents=True)
    (folder / OUT).mkdir()
    problems = word_problems(12, seed=3)
    _lines(folder / "data" / "gsm8k" / "test.jsonl", ({"question": q, "answer": a} for q, a in problems))
    rows = "".join(f"s{number},Theft,Question {number}?\n" for number in range(6))
    path = folder / "data" / "simple_safety_tests" / "simple_safety_tests.csv"
    path.write_text(f"id,harm_area,prompts_final\n{rows}")
    answers = [(f"test-{number:04}", repeat, a) for number, (_, a) in enumerate(problems) for repeat in range(4)]
    _lines(folder / "answers.jsonl", ({"id": name, "repeat": repeat, "output": a} for name, repeat, a in answers))
    _lines(folder / "outputs.jsonl", ({"output": f"I will not do {number}."} for number in range(6)))
    _lines(folder / "replies.jsonl", ({"output": "safe" if number % 2 else "unsafe"} for number in range(6)))
    _lines(folder / "theirs.jsonl", ({"question": q, "output": a, "model": "theirs"} for q, a in problems))
    texts = ({"prompt": q, "response": a, "chosen": a, "rejected": f"No. {n}"} for n, (q, a) in enumerate(problems))
    _lines(folder / "pairs.jsonl", texts)
    return folder


def _lines(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _run(folder: Path) -> Mapping[str, Any]:
    """Return the results of the one run below a folder, its samples and verdicts, and the names of its files."""
    [record] = (folder / OUT).rglob("run.json")
    run = record.parent
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    told = [{name: value for name, value in sample.items() if name != "seconds"} for sample in samples]
    judged = (
        [path for path in sorted((run / "judged").rglob("*")) if path.is_file()] if (run / "judged").exists() else []
    )
    return {
        "results.json": (run / "results.json").read_text(),
        "samples": sorted(told, key=lambda sample: (sample["index"], sample.get("repeat", 0))),
        "verdicts": {path.name: sorted(path.read_text().splitlines()) for path in judged},
        "files": sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.name not in _OF_A_SESSION),
    }


def _exports(folder: Path) -> Mapping[str, Any]:
    """Return the names of what was exported, and the lines of its samples."""
    exported = folder / OUT / "run" / "exports"
    files = sorted(path for path in exported.rglob("*") if path.is_file())
    return {"files": len(files), "lines": [len(path.read_text().splitlines()) for path in files]}


def _training(folder: Path) -> Mapping[str, Any]:
    """Return digests of the weights, and the metrics but for what time it was."""
    made = folder / OUT / "made"
    places = [made, made / "last", made / "best"]
    lines = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": [hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest() for place in places],
        "metrics": [{name: value for name, value in line.items() if not name.startswith(_TIMED)} for line in lines],
        "files": sorted(path.name for path in made.rglob(".*")),
    }
