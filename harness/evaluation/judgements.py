"""What judges said: judgements.jsonl, every reply as it came, and judged/LABEL.jsonl, what the replies came to.

judgements.jsonl is append-only, like samples.jsonl. A line's ``key`` is a digest of the judge, the exact prompt and how
the reply was generated, so that nothing is asked twice, and judges and versions of their prompt lie side by side.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.errors import ConfigError, RunError, nearest
from harness.evaluation.journal import RESULTS, RunFolder
from harness.evaluation.lines import LineFile, encode_record, json_lines, read_lines, write_atomically
from harness.types import Completion, Judged

JUDGEMENTS, JUDGED = "judgements.jsonl", "judged"

#: The verdicts that `harness show` can be asked for.
VERDICT_KINDS = ("lost", "unsafe", "unreadable")


class JudgementLog:
    """judgements.jsonl of a run: locked against a second process, recovered after a crash, appended to."""

    def __init__(self, folder: RunFolder) -> None:
        folder.path.mkdir(exist_ok=True)  # there is none yet beside a chat's transcript
        self._path = folder.path / JUDGEMENTS
        self._offsets: dict[str, int] = {}
        self._failed: set[str] = set()
        self._file = LineFile(self._path, self._see, "judgement")

    def _see(self, line: bytes, offset: int) -> None:
        record = json.loads(line)
        if not isinstance(record, dict) or not isinstance(record.get("key"), str) or "output" not in record:
            raise ValueError("it has no key and output")
        self._add(record["key"], offset, record.get("error") is not None)

    def _add(self, key: str, offset: int, failed: bool) -> None:
        self._offsets[key] = offset
        (self._failed.add if failed else self._failed.discard)(key)

    def done(self, key: str) -> bool:
        """Whether there is a reply, and not an engine's failure."""
        return key in self._offsets and key not in self._failed

    def append(self, key: str, judge: str, prompt: str, reply: Completion) -> None:
        """Write one reply; RunError when the disk is full or gone (what was written before is kept)."""
        record = {
            "key": key,
            "id": reply.id,
            "judge": judge,
            "prompt": prompt,
            "output": reply.text,
            "finish_reason": reply.finish_reason,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "top_logprobs": [dict(each) for each in reply.top_logprobs[:1]],
            "error": reply.error,
        }
        self._add(key, self._file.append(encode_record(record) + b"\n"), reply.error is not None)

    def replies(self, keys: Iterable[str]) -> Iterator[Completion]:
        """Yield the last reply of each key; `top_logprobs` has the first token's alone."""
        for line in read_lines(self._path, [self._offsets[key] for key in keys]):
            record = json.loads(line)
            yield Completion(
                record["id"],
                record["output"],
                record["finish_reason"],
                record["prompt_tokens"],
                record["completion_tokens"],
                None,
                record["error"],
                tuple(record["top_logprobs"]),
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


def write_verdicts(folder: RunFolder, label: str, judged: Iterable[Judged], failed: Mapping[str, str]) -> None:
    """Replace the verdicts of the judge `label`; `failed` maps ids to why there is no judgement."""
    verdicts = [*map(verdict_of, judged), *(failed_verdict(*each) for each in failed.items())]
    path = _path(folder, label)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json_lines(asdict(verdict) for verdict in verdicts))


def verdict_of(judged: Judged) -> Verdict:
    """Return what a judge's replies to a sample come to, as it is written down."""
    scores = {name: _known(value) for name, value in judged.judgement.scores.items()}
    return Verdict(judged.sample.id, judged.judgement.verdict, scores, dict(judged.replies), judged.judgement.against)


def failed_verdict(identifier: str, error: str) -> Verdict:
    """Return the verdict on a sample that the judge gave no reply to."""
    return Verdict(identifier, "judge_error", {}, {}, error=error)


def read_verdicts(folder: RunFolder, label: str) -> dict[str, Verdict]:
    """Return the verdicts of the judge `label` by sample id; RunError where there are none."""
    path = _path(folder, label)
    try:
        with path.open("rb") as file:
            verdicts = [Verdict(**json.loads(line)) for line in file]
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"cannot read {path} ({error}); judge the run again to have it written anew") from error
    return {verdict.id: verdict for verdict in verdicts}


def verdicts_of(folder: RunFolder, judge: str | None, kinds: Collection[str]) -> dict[str, Verdict]:
    """Return the verdicts of the judge called `judge`, of the first if it is None; nothing for a run without judges.

    Raises ConfigError for a judge that has not judged the run, and for `kinds` of verdict where none has.
    """
    judges = list(folder.results.get("judges", {})) if (folder.path / RESULTS).exists() else []
    if judge is not None and judge not in judges:
        raise ConfigError(f"the run has no judge {judge!r}{nearest(judge, judges)}")
    if not judges:
        asked = [kind for kind in kinds if kind in VERDICT_KINDS]
        if asked:
            remedy = f"harness judge {folder.path} --judge MODEL"
            raise ConfigError(f"no sample can be {' or '.join(asked)}: {folder.path} has not been judged ({remedy})")
        return {}
    return read_verdicts(folder, judge or judges[0])


def _path(folder: RunFolder, label: str) -> Path:
    return folder.path / JUDGED / f"{label}.jsonl"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
