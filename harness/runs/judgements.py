"""What judges said: judgements.jsonl, every reply as it came, and judged/LABEL.jsonl, what the replies came to.

judgements.jsonl is append-only, like samples.jsonl. A line's ``key`` is a digest of the judge, the exact prompt and how
the reply was generated, so that nothing is asked twice, and judges and versions of their prompt lie side by side.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import RunError
from harness.files import each_line, open_read
from harness.runs.line_file import (
    LineFile,
    cannot_write,
    encode_record,
    json_lines,
    line_decoder,
    read_lines,
    write_atomically,
)
from harness.types import Completion, FinishReason, Judged, Sample, sample_key

JUDGEMENTS, JUDGED = "judgements.jsonl", "judged"


@dataclass(frozen=True, slots=True)
class Reply:
    """One line of judgements.jsonl: what a judge was asked and what it said; `top_logprobs` has the first token's."""

    key: str
    id: str
    judge: str
    prompt: str
    output: str
    finish_reason: FinishReason | None
    prompt_tokens: int | None
    completion_tokens: int | None
    top_logprobs: tuple[Mapping[str, float], ...]
    error: str | None


class _Seen(msgspec.Struct):
    """What is taken of a line to know what has been asked; its texts are passed over."""

    key: str
    output: str
    error: str | None = None


def without_address(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a judge's identity but for its server's address: it goes by its name, wherever it is served."""
    return {name: value for name, value in model.items() if name != "base_url"}


class JudgementLog:
    """judgements.jsonl in a run's folder: locked against a second process, recovered after a crash, appended to."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / JUDGEMENTS
        try:
            folder.mkdir(exist_ok=True)  # there is none yet beside a chat's transcript
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._offsets: dict[str, int] = {}
        self._failed: set[str] = set()
        self._file = LineFile(self._path, self._see, "judgement")

    def _see(self, line: bytes, offset: int) -> None:
        try:
            seen = _see(line)
        except ValueError as error:  # of msgspec, for a key that is no UTF-8 too
            raise ValueError("it has no key and output") from error
        self._add(seen.key, offset, seen.error is not None)

    def _add(self, key: str, offset: int, failed: bool) -> None:
        self._offsets[key] = offset
        (self._failed.add if failed else self._failed.discard)(key)

    def done(self, key: str) -> bool:
        """Whether there is a reply, and not an engine's failure."""
        return key in self._offsets and key not in self._failed

    def append(self, key: str, judge: str, prompt: str, reply: Completion) -> None:
        """Write one reply; RunError when the disk is full or gone (what was written before is kept)."""
        told = Reply(
            key,
            reply.id,
            judge,
            prompt,
            reply.text,
            reply.finish_reason,
            reply.prompt_tokens,
            reply.completion_tokens,
            reply.top_logprobs[:1],
            reply.error,
        )
        self._add(key, self._file.append(encode_record(asdict(told)) + b"\n"), reply.error is not None)

    def replies(self, keys: Iterable[str]) -> Iterator[Completion]:
        """Yield the last reply of each key; `top_logprobs` has the first token's alone."""
        for line in read_lines(self._path, [self._offsets[key] for key in keys]):
            try:
                told = _decode_reply(line)
            except ValueError as error:
                raise RunError(f"{self._path}: a line is no judgement of this version ({error})") from error
            yield Completion(
                told.id,
                told.output,
                told.finish_reason,
                told.prompt_tokens,
                told.completion_tokens,
                None,
                told.error,
                told.top_logprobs,
            )

    def close(self) -> None:
        """Close the file and give up the lock."""
        self._file.close()

    def __enter__(self) -> JudgementLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of judged/LABEL.jsonl: what a judge's replies about one sample came to, in its words.

    `verdict` is one of the scorer's, ``unreadable``, or ``judge_error``, where `error` says why there is no reply.
    """

    id: str
    verdict: str
    scores: Mapping[str, float | None]
    replies: Mapping[str, str]
    against: str | None = None
    error: str | None = None
    repeat: int = 0

    @property
    def key(self) -> str:
        """What the sample is called, as `harness.types.Sample.key`."""
        return sample_key(self.id, self.repeat)


_see, _decode_reply, _decode_verdict = line_decoder(_Seen), line_decoder(Reply), line_decoder(Verdict)


def write_verdicts(folder: Path, label: str, verdicts: Iterable[Verdict]) -> None:
    """Replace the verdicts of the judge `label`."""
    write_atomically(_path(folder, label), json_lines(map(verdict_record, verdicts)), root=folder)


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as it is written, its repeat only where it is not the first."""
    record = asdict(verdict)
    repeat = record.pop("repeat")
    return {"id": verdict.id, "repeat": repeat, **record} if repeat else record


def verdict_of(judged: Judged) -> Verdict:
    """Return what a judge's replies to a sample come to, as it is written down."""
    sample, judgement = judged.sample, judged.judgement
    scores = {name: _known(value) for name, value in judgement.scores.items()}
    replies, against = dict(judged.replies), judgement.against
    return Verdict(sample.id, judgement.verdict, scores, replies, against, repeat=sample.repeat)


def failed_verdict(sample: Sample, error: str) -> Verdict:
    """Return the verdict on a sample that the judge gave no reply to."""
    return Verdict(sample.id, "judge_error", {}, {}, error=error, repeat=sample.repeat)


def each_verdict(folder: Path, label: str, keys: Container[str] | None = None) -> Iterator[Verdict]:
    """Yield the verdicts of the judge `label`, read from disk one by one.

    Raises RunError where there are none, and for one on a sample that is not among `keys`.
    """
    path = _path(folder, label)
    try:
        with open_read(path, root=folder) as file:
            for line in each_line(file):
                verdict = _decode_verdict(line)
                if keys is not None and verdict.key not in keys:
                    raise ValueError(f"the run has no sample {verdict.key!r}")
                yield verdict
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"cannot read {path} ({said}); judge the run again to have it written anew") from error


def read_verdicts(folder: Path, label: str) -> dict[str, Verdict]:
    """Return the verdicts of the judge `label` by what samples are called; RunError where there are none."""
    return {verdict.key: verdict for verdict in each_verdict(folder, label)}


def _path(folder: Path, label: str) -> Path:
    return folder / JUDGED / f"{label}.jsonl"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
