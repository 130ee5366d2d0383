"""What a trainer promises: a plan without weights, a model that can be evaluated, and the same one after a crash.

All of it is seen in one rehearsal in a new process: a few steps on a tiny model, whole, killed, stopped and gone on
with, each in a fork of that process, so that torch is imported once.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from unittest import SkipTest

import msgspec

from harness.config import configure, merged
from harness.errors import HarnessError
from harness.interfaces import Trainer, TrainingRun
from harness.testing.conformance.check import Check, require
from harness.testing.conformance.fresh_process import in_fresh_process, last_line
from harness.testing.conformance.subject import Subject
from harness.types import RunInfo

#: What a trainer on `harness.training.options.TrainingOptions` is given unless the subject says otherwise.
_FEW_STEPS = {
    "epochs": 20,
    "max_steps": 8,
    "batch_size": 4,
    "microbatch_size": 2,
    "learning_rate": 1e-3,
    "save_every": 1,
    "log_every": 1,
    "device": "cpu",
    "dtype": "float32",
}

#: The same for options that trainers tend to have of their own.
_IF_THERE = {"sequence_length": 128, "prompt_format": "plain", "validation_pairs": 8}

#: Calls of a tracker: late enough for a checkpoint that is written while the training goes on.
_KILL_AT, _STOP_AT = 5, 2
_SECONDS = 600.0

_USED = (
    "transformers.models.llama.modeling_llama",
    "harness.training.loop",
    "harness.engines.transformers",
    "pydantic",
)

#: The stages of a rehearsal, as messages name them.
_STAGES = {
    "prepare": "making a tiny model and data",
    "plan": "planning with a model folder that has no weights",
    "whole": "training",
    "evaluated": "loading the trained model and asking it",
    "killed": "training until it is killed",
    "stopped": "going on after it was killed",
    "finished": "going on after it was stopped",
}


_Result = TypeVar("_Result")


class _Plan(msgspec.Struct):
    """What the stage "plan" found: the plan, and whether it made the folder for checkpoints."""

    text: str
    wrote: bool


class _Trained(msgspec.Struct):
    """What a training returned; `digest` is the model's, or the error of one that cannot be read."""

    folder: str
    there: bool
    digest: str


class _Evaluated(msgspec.Struct):
    """The prompt format that the folder names, and the error of an answer."""

    prompt_format: str | None
    error: str | None


class _Stage(msgspec.Struct):
    """What became of a stage: its exit code (negative for the signal that ended it) and its last words.

    `result` is what it returned, as JSON; `told` and `closed` are what its tracker saw.
    """

    code: int
    said: str
    result: Any
    told: list[tuple[Any, dict[str, Any]]]
    closed: bool

    def returned(self, kind: type[_Result]) -> _Result:
        """Return the result as what that stage returned."""
        return msgspec.convert(self.result, kind)


def a_plan_needs_no_weights(subject: Subject) -> None:
    """A plan says how many steps there would be; it loads no weights and writes nothing."""
    plan = _stage(subject, "plan").returned(_Plan)
    require("step" in plan.text.lower(), "its plan does not say how many steps there would be")
    require(not plan.wrote, "its plan makes the folder for checkpoints; it is to write nothing")


def it_trains(subject: Subject) -> None:
    """A training of a few steps ends, and returns a folder."""
    whole = _stage(subject, "whole").returned(_Trained)
    require(whole.there, f"it returns {whole.folder!r}, which is no folder")


def trackers_follow_it(subject: Subject) -> None:
    """A tracker is told numbers, steps never going back, and is closed."""
    whole = _stage(subject, "whole")
    steps = [step for step, _ in whole.told]
    require(steps, "its tracker is told nothing")
    require(steps == sorted(steps), f"its tracker is told the steps {steps}")
    for step, values in whole.told:
        good = values and all(isinstance(value, int | float) for value in values.values())
        require(good, f"its tracker is told {values} at step {step}: names and numbers are wanted")
    require(whole.closed, "its tracker is not closed at the end")


def its_model_can_be_evaluated(subject: Subject) -> None:
    """The folder has a harness.json that names the prompt format, and an engine loads the model and asks it so."""
    found = _stage(subject, "evaluated").returned(_Evaluated)
    remedy = "write harness.json with prompt_format, so that the model is evaluated as it was trained"
    require(found.prompt_format, f"its folder has no harness.json that names a prompt format; {remedy}")
    require(found.error is None, f"its model is loaded, but the answer is an error: {found.error}")


def interrupted_training_ends_the_same(subject: Subject) -> None:
    """Killed, and later asked to stop, the same training goes on where it was, and ends with the same weights."""
    whole = _stage(subject, "whole")
    if len(whole.told) < _KILL_AT + _STOP_AT + 1:
        raise SkipTest(f"it tells its trackers {len(whole.told)} times; give options for more steps, saved and logged")
    killed, stopped, finished = (_stage(subject, name) for name in ("killed", "stopped", "finished"))
    require(killed.code == -signal.SIGKILL, f"it survives being killed ({killed.code})")
    for name, one in (("killed", stopped), ("stopped", finished)):
        first = one.told[0][0] if one.told else None
        begun = whole.told[0][0]
        require(first is None or first > begun, f"it begins anew after being {name}, at step {first}")
    same = finished.returned(_Trained).digest == whole.returned(_Trained).digest
    require(same, "it ends with other weights than the same training that was not interrupted")


def _stage(subject: Subject, name: str) -> _Stage:
    """Return what became of a stage of the rehearsal; AssertionError where it failed."""
    rehearsal: dict[str, _Stage] | None = vars(subject).get("rehearsal")
    if rehearsal is None:
        if find_spec("torch") is None or find_spec("transformers") is None:
            raise SkipTest("torch and transformers are not installed: pip install 'posttrain-harness[train]'")
        said = in_fresh_process(subject, "trainers.rehearse", seconds=_SECONDS)
        rehearsal = msgspec.convert(said, dict[str, _Stage])
        vars(subject).update(rehearsal=rehearsal)
    if name not in rehearsal:  # one before it failed
        name = next(stage for stage, found in rehearsal.items() if found.code)
    found = rehearsal[name]
    require(found.code == 0 or name in ("killed", "stopped"), f"{_STAGES[name]}: {found.said}")
    return found


def rehearse(subject: Subject) -> dict[str, _Stage]:
    """Go through the stages until one fails, and return what became of each; runs in a new process."""
    import torch

    for module in _USED:  # here, and not once in each fork
        with suppress(ImportError):
            import_module(module)
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # else each fork goes through all of it when it first collects its garbage
    folder = subject.folder
    os.environ["HARNESS_CACHE"] = str(folder / "cache")
    whole, cut = folder / "out", folder / "interrupted"
    stages: tuple[tuple[str, Callable[[_Told], Any]], ...] = (
        ("prepare", lambda told: _prepare(subject, folder)),
        ("plan", lambda told: _plan(subject, folder, told)),
        ("whole", lambda told: _train(subject, folder, whole, told)),
        ("evaluated", lambda told: _evaluate(str(whole))),
        ("killed", lambda told: _train(subject, folder, cut, told.until(_KILL_AT, signal.SIGKILL))),
        ("stopped", lambda told: _train(subject, folder, cut, told.until(_STOP_AT, signal.SIGTERM))),
        ("finished", lambda told: _train(subject, folder, cut, told)),
    )
    found: dict[str, _Stage] = {}
    for name, function in stages:
        found[name] = _forked(function, folder / f"{name}.log")
        if found[name].code and name not in ("killed", "stopped"):
            break
    return found


class _Told:
    """A tracker that notes what it is told in a file, and may send its own process a signal."""

    name = "told"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls: tuple[int, int] | None = None

    def until(self, calls: int, number: int) -> _Told:
        """Have the signal `number` sent at that call of `log`."""
        self._calls = (calls, number)
        return self

    def available(self) -> None:
        return None

    def start(self, run: RunInfo) -> _Told:
        return self

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._note([step, dict(values)])
        if self._calls is not None:
            left, number = self._calls
            self._calls = (left - 1, number) if left > 1 else None
            if left == 1:
                os.kill(os.getpid(), number)

    def close(self) -> None:
        self._note(None)

    def _note(self, what: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")


def _forked(function: Callable[[_Told], Any], log: Path) -> _Stage:
    """Run a stage in a fork and return what became of it. What it writes goes to the file `log`."""
    told, result = log.with_suffix(".told"), log.with_suffix(".json")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with log.open("w", encoding="utf-8") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # as `harness` does
            result.write_bytes(msgspec.json.encode(function(_Told(told))))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()] if told.exists() else []
    return _Stage(
        code=code,
        said=last_line(log.read_bytes()),
        result=msgspec.json.decode(result.read_bytes()) if result.exists() else None,
        told=[(step, values) for step, values in filter(None, lines)],
        closed=None in lines,
    )


def _prepare(subject: Subject, folder: Path) -> None:
    """Make the model, a copy of it without weights, and data to read demonstrations and preferences from."""
    from harness.testing.tiny import make_tiny_model, word_problems

    if subject.model is None:
        make_tiny_model(folder / "model", context=256)
    else:
        (folder / "model").symlink_to(Path(subject.model).resolve())
    shutil.copytree(folder / "model", folder / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    with (folder / "data.jsonl").open("w", encoding="utf-8") as file:
        for question, answer in word_problems(64, seed=5):
            texts = {"prompt": f"{question}\nAnswer:", "response": f" {answer}", "chosen": answer, "rejected": "#### 0"}
            file.write(json.dumps(texts) + "\n")


def _trainer(subject: Subject, folder: Path) -> Trainer:
    """Return the trainer with options for a few steps, as far as it has them and the subject gives none."""
    from harness.training.options import TrainingOptions

    bare: Any = subject.registry.trainer(subject.name)
    names = {field.name for field in dataclasses.fields(bare)} if dataclasses.is_dataclass(bare) else set()
    small: dict[str, Any] = dict(_FEW_STEPS) if isinstance(bare, TrainingOptions) else {}
    small |= {name: value for name, value in _IF_THERE.items() if name in names}
    if "data" in names and not bare.data:
        small.update(data=(str(folder / "data.jsonl"),))
    trainer: Trainer = configure(bare, merged(small, subject.options), subject.name)
    return trainer


def _run(model: Path, out: Path, told: _Told) -> TrainingRun:
    return TrainingRun(str(model), out, {"model": str(model), "out": str(out)}, (told,))


def _plan(subject: Subject, folder: Path, told: _Told) -> _Plan:
    out = folder / "planned"
    text = _trainer(subject, folder).plan(_run(folder / "bare", out, told))
    return _Plan(text, wrote=out.exists())


def _train(subject: Subject, folder: Path, out: Path, told: _Told) -> _Trained:
    from harness.models import find_model

    made = _trainer(subject, folder).train(_run(folder / "model", out, told))
    try:
        return _Trained(str(made), made.is_dir(), digest=find_model(str(made)).digest)
    except HarnessError as error:  # the check that loads the model says so
        return _Trained(str(made), made.is_dir(), digest=str(error))


def _evaluate(model: str) -> _Evaluated:
    """Load the model and ask it in its own prompt format; return that format's name and the answer's error."""
    from harness.engines.transformers import TransformersEngine
    from harness.prompts import choose_format, read_checkpoint_file
    from harness.types import Generation, Request

    engine = TransformersEngine(device="cpu")
    tokenizer = engine.tokenizer(model)
    prompt = choose_format(model, None, tokenizer).format.render("Ada has 3 apples.", tokenizer)
    loaded = engine.load(model)
    [answer] = loaded.generate([Request("a", prompt, Generation(max_tokens=4))])
    loaded.close()
    return _Evaluated(read_checkpoint_file(Path(model)).get("prompt_format"), answer.error)


CHECKS = [
    Check(a_plan_needs_no_weights),
    Check(it_trains),
    Check(trackers_follow_it),
    Check(its_model_can_be_evaluated),
    Check(interrupted_training_ends_the_same),
]
