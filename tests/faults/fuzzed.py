"""Run folders, training folders, model folders and data files, changed by chance and given to every command.

The corpus grows: what a command answers as it has answered nothing before is kept, and changed further.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.guarded import Outcome, guarded
from tests.faults.strange import EXECUTED, ODD, TEMPLATE, changed

#: A command whose file has become something else than a file.
_ODD = 0.12

#: So many are tried, however little time there is.
_LEAST = 60

#: Inputs that are kept of a file to be changed further.
_KEPT = 60

_WORD = re.compile(r"'[^']*'|\"[^\"]*\"|\d+|/\S+")


@dataclass
class Target:
    """Files of a stranger's, and the commands that read them: given in a copy of `begun`, which has the `files`."""

    name: str
    begun: Path
    files: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    weight: int = 1
    corpus: dict[str, list[bytes]] = field(default_factory=dict)
    seen: set[tuple[str, ...]] = field(default_factory=set)


@dataclass(frozen=True)
class Input:
    """A file in the place of a target's, and the command that it is given to; `odd` names what is no file."""

    file: str
    command: tuple[str, ...]
    content: bytes
    odd: str | None


class Fuzzing:
    """Inputs in an order drawn from `seed`, tried in a folder below `folder`."""

    def __init__(self, folder: Path, targets: list[Target], seed: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._targets = folder, targets
        self._chance = random.Random(seed)
        self.tried = Counter[str]()
        self.refused = Counter[str]()

    def warm(self) -> Iterator[str]:
        """Give each command once, unchanged, here and now, so that forks have imported what it imports."""
        for target in self._targets:
            for command in target.commands:
                outcome = guarded(command, self._copy(target), self._folder / "said")
                if problem := outcome.problem():
                    yield f"{target.name}: unchanged, {' '.join(command)}: {problem}"

    def carry_out(self, until: float) -> Iterator[str]:
        """Try inputs until that time; yield what is wrong."""
        weights = [target.weight for target in self._targets]
        while time.monotonic() < until or self.tried.total() < _LEAST:
            [target] = self._chance.choices(self._targets, weights)
            given = self._input(target)
            yield from self._try(target, given)

    def _input(self, target: Target) -> Input:
        command = self._chance.choice(target.commands)
        file = self._chance.choice([file for file in target.files if file in command] or target.files)
        if self._chance.random() < _ODD:
            return Input(file, command, b"", self._chance.choice(list(ODD)))
        known = target.corpus.setdefault(file, [(target.begun / file).read_bytes()])
        return Input(file, command, changed(self._chance.choice(known), file, self._chance), None)

    def _try(self, target: Target, given: Input) -> Iterator[str]:
        work = self._copy(target)
        path, victim = work / given.file, self._folder / "victim" / "precious.txt"
        victim.parent.mkdir(exist_ok=True)
        victim.write_text("precious\n")
        before = path.read_bytes()
        if given.odd is None:
            path.write_bytes(given.content)
        else:
            path.unlink()
            ODD[given.odd](path, victim)
        outcome = guarded(given.command, work, self._folder / "said")
        self.tried[target.name] += 1
        self.refused[target.name] += outcome.code == 2
        problems = [*filter(None, [outcome.problem()])]
        if [each.name for each in victim.parent.iterdir()] != [victim.name] or victim.read_text() != "precious\n":
            problems.append("a file outside was touched")
            shutil.rmtree(victim.parent)
        if (work / EXECUTED).exists() or (self._folder / "escaped").exists():
            problems.append("something was executed")
        if given.odd is None and given.content != before:
            self._learn(target, given, outcome)
        what = given.odd or f"{len(given.content)} bytes"
        for problem in problems:
            yield f"{target.name}: {' '.join(given.command)} with {given.file} ({what}): {problem}"
        if problems:
            self._keep(given)

    def _learn(self, target: Target, given: Input, outcome: Outcome) -> None:
        said = _WORD.sub("", outcome.err.strip().splitlines()[-1] if outcome.err.strip() else "")
        key = (given.command[0], given.file, str(outcome.code), said)
        kept = target.corpus[given.file]
        if key not in target.seen and len(given.content) < 1 << 20:
            target.seen.add(key)
            kept.append(given.content)
            if len(kept) > _KEPT:
                del kept[1 + self._chance.randrange(len(kept) - 1)]

    def _keep(self, given: Input) -> None:
        """Keep an input that something is wrong with, to be looked at."""
        kept = self._folder.parent / "wrong"
        kept.mkdir(exist_ok=True)
        number = len(list(kept.iterdir()))
        (kept / f"{number:04}-{Path(given.file).name}").write_bytes(given.content)

    def _copy(self, target: Target) -> Path:
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(target.begun, work)
        return work


def targets(folder: Path) -> list[Target]:
    """Make the folders of all targets below `folder`."""
    return [
        *_runs(folder / "runs"),
        _trainings(folder / "trainings"),
        _models(folder / "models"),
        *_data(folder / "data", folder / "models" / "begun" / "model"),
    ]


def _runs(folder: Path) -> Iterator[Target]:
    from tests.made_runs import MadeRuns

    made = MadeRuns(folder / "made")
    asked = [made.gsm8k("one", lambda i: i % 3 == 0, n=8), made.gsm8k("two", lambda i: i % 2 == 0, n=8)]
    begun = folder / "asked"
    for name, run in zip("ab", asked, strict=True):
        shutil.copytree(run, begun / "runs" / "gsm8k" / name / "r")
    shutil.copytree(folder / "made" / "data-8", begun / "data")
    shutil.copy(folder / "made" / "one.jsonl", begun)
    a, b = "runs/gsm8k/a/r", "runs/gsm8k/b/r"
    again = ("run", "-b", "gsm8k", "-e", "replay", "-m", "one.jsonl", "--data", "data", "--run-dir", a)
    commands: tuple[tuple[str, ...], ...] = (
        ("show", a), ("show", a, "--wrong", "--json"), ("show", a, b), ("show", a, "--grep", "x", "--markdown"),
        ("score", a), ("score", a, "--json"), ("compare", a, b), ("compare", a, b, "--json"),
        ("report", a, b, "--out", "page.html"), ("export", a, "--out", "out.csv"),
        ("export", a, "--format", "lm-eval"), ("export", a, "--format", "every-eval-ever"), ("runs", "list", "runs"),
        ("show", "latest:gsm8k/a"), again, ("run", "--from", a, "--dry-run"), (*again, "--replace"),
    )  # fmt: skip
    files = tuple(
        f"{a}/{name}" for name in ("run.json", "results.json", "samples.jsonl", "samples.jsonl", "timing.json")
    )
    yield Target("run folders", begun, files, commands, 4)
    judged = folder / "judged"
    made = MadeRuns(folder / "safe")
    shutil.copytree(made.safety("m", lambda i: "safe" if i % 2 else "unsafe", n=6), judged / a)
    alpaca = MadeRuns(folder / "alpaca").alpaca("m", lambda i: ("m", "M"), n=4)
    shutil.copytree(alpaca, judged / b)
    (judged / "replies.jsonl").write_text('{"output": "safe"}\n' * 8)
    label = next((judged / a / "judged").iterdir()).name
    files = tuple(
        f"{a}/{name}" for name in ("run.json", "results.json", "samples.jsonl", "judgements.jsonl", f"judged/{label}")
    )
    commands = (
        ("show", a), ("show", a, "--unsafe"), ("report", a, "--out", "page.html"), ("export", a, "--out", "out.csv"),
        ("compare", a, a), ("runs", "list", "runs"),
        ("judge", a, "--judge", "replies.jsonl", "--judge-engine", "replay"),
        ("judge", b, "--judge", "replies.jsonl", "--judge-engine", "replay"),
    )  # fmt: skip
    yield Target("judged runs", judged, files, commands, 2)


def _model(folder: Path) -> Path:
    from harness.testing.tiny import make_tiny_model

    turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    template = turns + "{% if add_generation_prompt %}<assistant>{% endif %}"
    return make_tiny_model(folder, hidden=32, layers=1, context=256, chat_template=template)


def _rows(path: Path) -> None:
    rows = ({"prompt": f"What is {n}?", "response": f"It is {n}."} for n in range(8))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _trainings(folder: Path) -> Target:
    begun = folder / "begun"
    begun.mkdir(parents=True)
    _model(begun / "model")
    _rows(begun / "rows.jsonl")
    options = {
        "data": '["rows.jsonl"]', "prompt_format": "plain", "epochs": "2", "max_steps": "4", "batch_size": "2",
        "microbatch_size": "2", "save_every": "1", "log_every": "1", "device": "cpu", "dtype": "float32",
        "sequence_length": "64", "validation_documents": "0",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in ("--set", f"sft.{name}={value}")]
    train = ("train", "sft", "--model", "model", "--out", "made", *words)
    ended = guarded(train, begun, folder / "said", prepare=_interrupted)
    assert ended.code == -signal.SIGKILL, ended.err
    files = tuple(
        str(path.relative_to(begun))
        for path in sorted((begun / "made").rglob("*"))
        if path.is_file() and not path.name.endswith((".png", ".svg")) and path.stat().st_size
    )
    return Target("training folders", begun, files, (train, train, (*train, "--plan")), 1)


def _interrupted() -> None:
    """Have this process killed as it has written its second checkpoint."""
    from harness.training.checkpoint import folder, manifest

    write, written = manifest.write_manifest, []

    def killed(path: Path) -> None:
        write(path)
        written.append(path)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    vars(folder)["write_manifest"] = killed


def _models(folder: Path) -> Target:
    begun = folder / "begun"
    begun.mkdir(parents=True)
    model = _model(begun / "model")
    (model / "harness.json").write_text(
        json.dumps({"prompt_format": "chat", "contamination": {"gsm8k": {"found": ["a"]}}})
    )
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "model.safetensors"}})
    )
    _rows(begun / "rows.jsonl")
    shutil.copytree(folder.parent / "runs" / "made" / "data-8", begun / "data")
    ask = ("-b", "gsm8k", "-m", "model", "--data", "data")
    engine = ("-e", "transformers", "--set", "transformers.device=cpu")
    short = ("--set", "gsm8k.generation.max_tokens=2", "--limit", "1")
    commands = (
        ("preview", "gsm8k", "-m", "model", "--data", "data", *engine),
        ("run", *ask, *engine, "--dry-run"),
        ("run", *ask, *engine, *short),
        ("data", "look", "rows.jsonl", "-m", "model", "--sample", "2"),
        ("loss", "rows.jsonl", "-m", "model", "--device", "cpu"),
    )  # fmt: skip
    files = tuple(str(path.relative_to(begun)) for path in sorted(model.iterdir()) if path.is_file())
    target = Target("model folders", begun, files, commands, 2)
    for name in files:
        if name.endswith(".jinja"):
            target.corpus[name] = [(begun / name).read_bytes(), *(text.encode("utf-8", "replace") for text in TEMPLATE)]
        if name.endswith("tokenizer_config.json"):
            content = json.loads((begun / name).read_text())
            target.corpus[name] = [json.dumps({**content, "chat_template": text}).encode() for text in TEMPLATE]
            target.corpus[name].append(json.dumps(content).encode())
    return target


def _data(folder: Path, model: Path) -> Iterator[Target]:
    import pyarrow
    from pyarrow import parquet

    begun = folder / "begun"
    rows = [{"question": f"What is {n} and {n}?", "answer": f"It is.\n#### {2 * n}"} for n in range(6)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for kind in ("jsonl", "csv", "json", "parquet", "jsonl.gz", "json.gz"):
        (begun / kind / "gsm8k").mkdir(parents=True)
    (begun / "jsonl" / "gsm8k" / "test.jsonl").write_text(text)
    (begun / "csv" / "gsm8k" / "test.csv").write_text('question,answer\n"What, is 1?","#### 1"\nTwo?,"a\n#### 2"\n')
    (begun / "json" / "gsm8k" / "test.json").write_text(json.dumps(rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), begun / "parquet" / "gsm8k" / "test.parquet")
    (begun / "jsonl.gz" / "gsm8k" / "test.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (begun / "json.gz" / "gsm8k" / "test.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    (begun / "outputs.jsonl").write_text('{"output": "#### 2"}\n' * 6)
    for kind in sorted(path.name for path in begun.iterdir() if path.is_dir()):
        file = f"{kind}/gsm8k/test.{kind}"
        commands = (
            ("preview", "gsm8k", "--data", kind, "-m", "outputs.jsonl", "-e", "replay"),
            ("run", "-b", "gsm8k", "-e", "replay", "-m", "outputs.jsonl", "--data", kind),
            ("data", "look", file, "-m", str(model), "--columns", "prompt=question,response=answer"),
        )
        yield Target(f"data ({kind})", begun, (file,), commands, 1)
    yield _read(folder / "read", text, model)


def _read(begun: Path, text: str, model: Path) -> Target:
    """Return the files that single commands read: outputs, prompts, labels, annotations, what others recorded."""
    (begun / "data" / "gsm8k").mkdir(parents=True)
    (begun / "data" / "gsm8k" / "test.jsonl").write_text(text)
    outputs = [{"id": f"test-{n:04d}", "output": f"#### {n}", "finish_reason": "stop"} for n in range(6)]
    (begun / "outputs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in outputs))
    (begun / "plain.jsonl").write_text('{"output": "It"}\n' * 3)
    theirs = [{"question": f"What is {n} and {n}?", "output": f"#### {n}", "model": "theirs"} for n in range(6)]
    (begun / "theirs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in theirs))
    log = {"doc_id": 0, "doc": {"question": "What is 1 and 1?"}, "target": "2", "arguments": [["q", {}]],
           "resps": [["#### 2"]], "filtered_resps": ["2"], "exact_match": 1.0}  # fmt: skip
    (begun / "samples_gsm8k_2025-01-01T00-00-00.jsonl").write_text(json.dumps(log) + "\n")
    choice = {"message": {"role": "assistant", "content": "#### 2"}, "stop_reason": "stop"}
    sample = {"id": 1, "epoch": 1, "input": "What is 1 and 1?", "target": "2", "output": {"choices": [choice]}}
    told = {"task": "gsm8k", "model": "a/b", "created": "2025-01-01"}
    inspect = {"version": 2, "status": "success", "eval": told, "samples": [{**sample, "scores": {}}]}
    (begun / "log.json").write_text(json.dumps(inspect))
    pair = {"instruction": "a", "output_1": "b", "output_2": "c", "generator_1": "r", "generator_2": "m",
            "annotator": "x", "preference": 1.5}  # fmt: skip
    (begun / "annotations.json").write_text(json.dumps([pair, pair]))
    pairs = [{"prompt": "p", "chosen": "yes", "rejected": "no"}] * 4
    (begun / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    chats = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 4
    (begun / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    (begun / "asks.jsonl").write_text('{"prompt": "What is it?", "gold": "It"}\n' * 3)
    (begun / "made.prompt").write_text("Say: {instruction}\n")
    (begun / "run.toml").write_text(
        'benchmark = ["gsm8k"]\nmodel = "outputs.jsonl"\nengine = "replay"\ndata = "data"\n'
    )
    (begun / "packed.jsonl.gz").write_bytes(gzip.compress((begun / "theirs.jsonl").read_bytes()))
    run = ("run", "-b", "gsm8k", "-e", "replay", "--data", "data", "-m")
    commands = (
        ("parse", "final-number", "outputs.jsonl"), ("parse", "choice", "outputs.jsonl", "--explain"),
        ("parse", "last-number", "theirs.jsonl", "--json"), (*run, "outputs.jsonl"), (*run, "theirs.jsonl"),
        ("run", "run.toml"),
        ("run", "-b", "asks.jsonl", "-e", "replay", "-m", "plain.jsonl", "--set", "prompts.scorer=answered"),
        ("import", "theirs.jsonl", "-b", "gsm8k", "--data", "data"),
        ("import", "samples_gsm8k_2025-01-01T00-00-00.jsonl", "-b", "gsm8k", "--data", "data", "-m", "m"),
        ("import", "log.json", "-b", "gsm8k", "--data", "data"), ("score", "annotations.json"),
        ("data", "look", "pairs.jsonl", "-m", str(model)), ("data", "look", "chats.jsonl", "-m", str(model)),
        ("preview", "gsm8k", "--data", "data", "-m", "outputs.jsonl", "-e", "replay", "--prompt-format", "made.prompt"),
        ("import", "packed.jsonl.gz", "-b", "gsm8k", "--data", "data"),
    )  # fmt: skip
    files = tuple(path.name for path in sorted(begun.iterdir()) if path.is_file())
    return Target("files for commands", begun, files, commands, 4)
