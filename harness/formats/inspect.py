"""The format ``inspect``: the ``.eval`` and ``.json`` logs of Inspect.

They are read by inspect_ai's own reader, sample by sample, where it is installed (the extra ``inspect``); without it a
``.json`` log is read as the JSON that it is, and a ``.eval`` file cannot be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import msgspec

from harness.datasets import read_json_file
from harness.errors import DataError, first_line
from harness.formats.values import identifier_of
from harness.hookspecs import hookimpl
from harness.interfaces import Format
from harness.types import FinishReason, RecordedOutput, Recording

#: What Inspect calls the ends of an output, and we; other words stay as they are.
_ENDS: Mapping[str, FinishReason | None] = {"max_tokens": "length", "model_length": "length", "unknown": None}

#: Inspect's scores in letters: correct, incorrect, partial, no answer.
_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}

_EVAL = re.compile(rb'"eval"\s*:\s*\{')

#: What stands for a long text that a log keeps apart.
_ATTACHED = "attachment://"


class _Message(msgspec.Struct):
    """A message; its content is a text, or parts."""

    content: str | list[_Part]
    role: str = "assistant"


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    stop_reason: str | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Output(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    time: float | None = None
    error: str | None = None


class _Score(msgspec.Struct):
    value: Any
    answer: Any = None


class _Error(msgspec.Struct):
    message: str


class _Sample(msgspec.Struct):
    """What is needed of a sample in a log."""

    id: int | str
    input: str | list[_Message]
    epoch: int = 1
    choices: list[str] | None = None
    messages: list[_Message] | None = None
    output: _Output | None = None
    scores: dict[str, _Score] | None = None
    error: _Error | None = None
    attachments: dict[str, str] | None = None


class _Evaluation(msgspec.Struct):
    task: str | None = None
    model: str | None = None
    model_generate_config: dict[str, Any] | None = None
    packages: dict[str, str] | None = None


class _Log(msgspec.Struct):
    """What is needed of a log."""

    eval: _Evaluation
    status: str | None = None
    samples: list[Any] | None = None  # of a log that is read as JSON


#: Goes through the samples of a log, each as JSON data.
_Samples: TypeAlias = Callable[[], Iterator[Any]]


@dataclass(frozen=True)
class InspectFormat:
    """The format; `scorer` is the one whose answers and scores are kept beside ours, by default each sample's first."""

    name: ClassVar[str] = "inspect"

    scorer: str | None = None

    def recognises(self, path: Path, start: bytes) -> bool:
        """Whether it is a zip archive called ``.eval``, or JSON that begins as Inspect's logs do."""
        if path.suffix.lower() == ".eval":
            return start.startswith(b"PK")
        opening = start[:4096].lstrip()
        return opening.startswith(b"{") and b'"version"' in opening and _EVAL.search(opening) is not None

    def read(self, path: Path) -> Recording:
        """Return the outputs of a log; DataError for one that is damaged, or that needs inspect_ai where it is not."""
        if find_spec("inspect_ai") is not None:
            header, samples = _by_its_reader(path)
        elif path.suffix.lower() == ".eval":
            raise DataError(f"{path}: inspect_ai is needed to read it; pip install 'posttrain-harness[inspect]'")
        else:
            header, samples = _as_json(path)
        told = header.eval
        config = {name: value for name, value in (told.model_generate_config or {}).items() if value is not None}
        settings = {"task": told.task, "status": header.status, **({"generation": config} if config else {})}
        version = (told.packages or {}).get("inspect_ai")
        outputs = _Outputs(path, samples, self.scorer)
        return Recording("Inspect", outputs, version, told.model, settings)


class _Outputs(Iterable[RecordedOutput]):
    def __init__(self, path: Path, samples: _Samples, scorer: str | None) -> None:
        self._path = path
        self._samples = samples
        self._scorer = scorer

    def __iter__(self) -> Iterator[RecordedOutput]:
        for number, sample in enumerate(self._samples(), start=1):
            place = f"{self._path}, sample {number}"
            try:
                yield self._output(msgspec.convert(sample, _Sample), place)
            except ValueError as error:
                raise DataError(f"{place}: not as Inspect writes it ({first_line(error)})") from error

    def _output(self, sample: _Sample, place: str) -> RecordedOutput:
        output = sample.output or _Output()
        usage = output.usage or _Usage()
        choice = output.choices[0] if output.choices else None
        error = sample.error.message if sample.error else output.error or None
        answer, scores = self._score(sample, place)
        asked = sample.input
        return RecordedOutput(
            place=place,
            output=_text(choice.message.content, sample) if choice and error is None else None,
            id=identifier_of(sample.id),
            question=_text(asked, sample) if isinstance(asked, str) else _last_of_user(asked, sample),
            options=tuple(sample.choices) if sample.choices else None,
            prompt=_prompt(sample),
            prompt_tokens=usage.input_tokens,
            completion_tokens=usage.output_tokens,
            finish_reason=_ENDS.get(choice.stop_reason, choice.stop_reason) if choice and choice.stop_reason else None,
            seconds=output.time,
            answer=answer,
            scores=scores,
            repeat=sample.epoch - 1,
            error=None if error is None else " ".join(error.split()),
        )

    def _score(self, sample: _Sample, place: str) -> tuple[str | None, dict[str, float]]:
        """Return what the scorer took for the answer, and the score it gave, where that is a number from 0 to 1."""
        scores = sample.scores or {}
        name = self._scorer or next(iter(scores), None)
        if name is None:
            return None, {}
        if name not in scores:
            raise DataError(f"{place}: no scorer {name!r} there, only {', '.join(map(repr, scores)) or 'none'}")
        value, said = scores[name].value, scores[name].answer
        value = _LETTERS.get(value, value) if isinstance(value, str) else value
        known = isinstance(value, int | float) and 0 <= value <= 1
        return (said if isinstance(said, str) else None), ({name: float(value)} if known else {})


def _by_its_reader(path: Path) -> tuple[_Log, _Samples]:
    """Return a log's header and its samples, as inspect_ai reads them one by one."""
    from inspect_ai.log import read_eval_log, read_eval_log_samples

    def samples() -> Iterator[Any]:
        with _damage(path):
            for sample in read_eval_log_samples(str(path), all_samples_required=False, resolve_attachments=True):
                yield sample.model_dump(mode="json", include=set(_Sample.__struct_fields__))

    with _damage(path):
        header = read_eval_log(str(path), header_only=True)
        return msgspec.convert(header.model_dump(mode="json", include={"eval", "status"}), _Log), samples


def _as_json(path: Path) -> tuple[_Log, _Samples]:
    """Return the header and the samples of a ``.json`` log."""
    try:
        log = msgspec.convert(read_json_file(path), _Log)
    except ValueError as error:  # of msgspec, for a key that is no UTF-8 too
        raise DataError(f"{path}: not a log of Inspect ({error})") from None
    return log, lambda: iter(log.samples or [])


class _damage:
    """Makes a DataError of what inspect_ai raises for a file that it cannot read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, DataError):
            raise DataError(f"{self._path}: no log that inspect_ai can read ({first_line(error)})") from error


def _text(content: str | list[_Part], sample: _Sample) -> str:
    """Return a message's text: parts that are texts joined, thoughts in the borders that models write them in."""
    if isinstance(content, list):
        return "".join(_of_part(part, sample) for part in content)
    if content.startswith(_ATTACHED):
        return (sample.attachments or {}).get(content.removeprefix(_ATTACHED), content)
    return content


def _of_part(part: _Part, sample: _Sample) -> str:
    if part.type == "reasoning":
        thoughts = _text(part.reasoning or "", sample)
        return f"<think>\n{thoughts}\n</think>\n\n" if thoughts else ""
    return _text(part.text or "", sample)


def _last_of_user(messages: list[_Message], sample: _Sample) -> str | None:
    asked = [message.content for message in messages if message.role == "user"]
    return _text(asked[-1], sample) if asked else None


def _prompt(sample: _Sample) -> str | None:
    """Return the messages before the output: a single one as it is, more with their roles; None where none is there."""
    messages = list(sample.messages or [])
    while messages and messages[-1].role == "assistant":
        messages.pop()
    texts = [(message.role, _text(message.content, sample)) for message in messages]
    if len(texts) <= 1:
        return texts[0][1] if texts else None
    return "\n\n".join(f"{role}: {text}" for role, text in texts)


@hookimpl
def harness_formats() -> Iterable[Format]:
    """Provide ``inspect``."""
    return [InspectFormat()]
