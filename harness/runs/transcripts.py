"""Transcripts of chats: one JSON object a line, appended and flushed as things happen, so that a kill loses nothing.

The first line (``type`` ``chat``) says with what; a ``turn`` has the prompt as it was sent and the answer; turns that
were edited, tried again or undone stay where they are (``replaces``, ``undo``); a ``verdict`` is a judge's on a turn.
For `harness judge` a transcript is a run whose samples are its answers: `harness.judging.transcripts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.errors import ConfigError, RunError
from harness.files import open_read
from harness.runs.folder import RUN_FORMAT
from harness.runs.judgements import Verdict, verdict_record
from harness.runs.line_file import LineFile, cannot_write, encode_record, scan
from harness.runs.records import RunRecord, as_record
from harness.types import FinishReason, Sample

#: The scorer that judges answers in chats.
SCORER = "safety"

_START = b'{"type": "chat", '
_WHAT = "line of a chat's transcript"


@dataclass(frozen=True, slots=True)
class Turn:
    """An instruction and its answer.

    `kind` is how it came about; `replaces` names the turn that it was made from by editing or trying again. `history`
    names the turns before it in the prompt, `generation` is how the answer was sampled. `output` is the answer as
    `generate` gives it, or as much as had come when it was `interrupted`; `response` is what of it the next prompt
    shows. Counts are in tokens; `time` is when it ended, in UTC.
    """

    id: str
    kind: Literal["say", "edit", "retry"]
    replaces: str | None
    history: tuple[str, ...]
    system: str | None
    instruction: str
    prompt: str
    generation: Mapping[str, Any]
    output: str
    response: str
    finish_reason: FinishReason | None
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float | None
    interrupted: bool
    error: str | None
    time: str


class Transcript:
    """A transcript under way, whose first line is what `facts` gives when there is something to write.

    Raises ConfigError for a file that is there already, RunError for one that cannot be written.
    """

    def __init__(self, path: Path, facts: Callable[[], Mapping[str, Any]]) -> None:
        self.path = path
        self.turns: dict[str, Turn] = {}
        self._facts: Callable[[], Mapping[str, Any]] | None = facts
        if path.exists():
            raise ConfigError(f"{path} is there already: give another --out, or none")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._file = LineFile(path, lambda line, offset: None, _WHAT)

    def turn(self, turn: Turn) -> None:
        """Add a turn."""
        self.turns[turn.id] = turn
        self._add("turn", asdict(turn))

    def undo(self, turn: Turn) -> None:
        """Note that a turn has been taken back."""
        self._add("undo", {"id": turn.id})

    def verdict(self, judge: str, verdict: Verdict) -> None:
        """Add what a judge says of a turn."""
        self._add("verdict", {"judge": judge, **verdict_record(verdict)})

    def sample(self, turn: Turn) -> Sample:
        """Return a turn as judges see it."""
        return turn_sample(turn, list(self.turns).index(turn.id), self.turns)

    def close(self) -> None:
        """Close the file; one in which nothing was said is removed."""
        if not self.turns:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def _add(self, kind: str, record: Mapping[str, Any]) -> None:
        if self._facts is not None:
            self._file.append(encode_record({"type": "chat", **self._facts()}) + b"\n")
            self._facts = None
        self._file.append(encode_record({"type": kind, **record}) + b"\n")


def judged_folder(transcript: Path) -> Path:
    """Return the folder of what judges say about a transcript: ``NAME.judged`` beside ``NAME.jsonl``."""
    return transcript.with_suffix(".judged")


def read_transcript(path: Path) -> tuple[RunRecord, list[Turn]]:
    """Return what a run.json would say of a chat, and every turn, those that were replaced or undone too.

    Raises RunError for a file that is no transcript.
    """
    lines: list[dict[str, Any]] = []

    def see(line: bytes, offset: int) -> None:
        found = json.loads(line)
        if not isinstance(found, dict) or "type" not in found:
            raise ValueError("it has no type")
        lines.append(found)

    try:
        with open_read(path) as file:
            if not file.readline().startswith(_START):
                raise RunError(f"{path}: neither a run's folder nor a chat's transcript")
            scan(file, path, see, _WHAT)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    if not lines:
        raise RunError(f"{path}: its first line is cut off")
    try:
        turns = [msgspec.convert(line, Turn) for line in lines if line["type"] == "turn"]
    except ValueError as error:
        raise RunError(f"{path}: a line is no turn of this version ({error})") from error
    return _record(lines[0], len(turns), path), turns


def _record(first: Mapping[str, Any], turns: int, path: Path) -> RunRecord:
    if first.get("format") != RUN_FORMAT:
        raise RunError(f"{path}: format {first.get('format')!r} is not the {RUN_FORMAT} read here")
    try:
        own = {"model": first["name"], "identity": first["identity"], "command": {"model": first["model"]}}
    except KeyError as error:
        raise RunError(f"{path}: its first line has no {error}") from error
    content = {
        "engine": "",
        "prompt_format": {"name": ""},
        **first,
        **own,
        "benchmark": "chat",
        "scorer": SCORER,
        "parsers": [],
        "selected": turns,
        "data": [],
    }
    return as_record(content, RunRecord, path)


def turn_sample(turn: Turn, index: int, turns: Mapping[str, Turn]) -> Sample:
    """Return a turn as a sample, whose instruction tells the judge of the turns before it too."""
    earlier = [turns[name] for name in turn.history]
    said = [f"User: {one.instruction}\n\nAssistant: {one.response}\n\n" for one in earlier]
    asked = f"{''.join(said)}User: {turn.instruction}" if said else turn.instruction
    return Sample(
        id=turn.id,
        index=index,
        group=None,
        fields={"instruction": asked},
        prompt=turn.prompt,
        prompt_tokens=turn.prompt_tokens,
        completion_tokens=turn.completion_tokens,
        output=turn.output,
        finish_reason=turn.finish_reason,
        answers={},
        gold=None,
        scores={},
        status="ok" if turn.error is None else "engine_error",
        error=turn.error,
        seconds=turn.seconds,
        response=turn.response,
    )
