"""Transcripts of chats: one JSON object a line, appended and flushed as things happen, so that a kill loses nothing.

The first line (``type`` ``chat``) says with what; a ``turn`` has the prompt as it was sent and the answer; turns that
were edited, tried again or undone stay where they are (``replaces``, ``undo``); a ``verdict`` is a judge's on a turn.
For `harness judge` a transcript is a run whose samples are its answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import ConfigError, RunError
from harness.evaluation.journal import RESULTS, RUN_FORMAT, RunFolder
from harness.evaluation.judgements import Verdict
from harness.evaluation.lines import LineFile, cannot_write, encode_record, scan
from harness.evaluation.results import summarise
from harness.registry import Registry
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
        self._add("verdict", {"judge": judge, **asdict(verdict)})

    def sample(self, turn: Turn) -> Sample:
        """Return a turn as judges see it."""
        return _sample(turn, list(self.turns).index(turn.id), self.turns)

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


class TranscriptRun(RunFolder):
    """A transcript as judges take it; what they say goes into its `judged_folder`.

    Raises RunError for a file that is no transcript.
    """

    def __init__(self, transcript: Path) -> None:
        super().__init__(judged_folder(transcript))
        self.transcript = transcript
        self._lines: list[dict[str, Any]] = []
        try:
            with transcript.open("rb") as file:
                if not file.readline().startswith(_START):
                    raise RunError(f"{transcript}: neither a run's folder nor a chat's transcript")
                scan(file, transcript, self._see, _WHAT)
        except OSError as error:
            raise RunError(f"{transcript}: cannot be read: {error.strerror}") from error
        if not self._lines:
            raise RunError(f"{transcript}: its first line is cut off")

    def _see(self, line: bytes, offset: int) -> None:
        record = json.loads(line)
        if not isinstance(record, dict) or "type" not in record:
            raise ValueError("it has no type")
        self._lines.append(record)

    @property
    def config(self) -> dict[str, Any]:
        """What a run.json would say."""
        facts = self._lines[0]
        if facts.get("format") != RUN_FORMAT:
            raise RunError(f"{self.transcript}: format {facts.get('format')!r} is not the {RUN_FORMAT} read here")
        try:
            own = {"model": facts["name"], "identity": facts["identity"], "command": {"model": facts["model"]}}
        except KeyError as error:
            raise RunError(f"{self.transcript}: its first line has no {error}") from error
        own["command"]["options"] = {}
        return {**facts, **own, "benchmark": "chat", "scorer": SCORER}

    @property
    def results(self) -> dict[str, Any]:
        """The counts of all answers so far, with what judges have said of them."""
        counts = summarise("chat", Registry().get("scorers", SCORER), self.samples(), ())
        said = super().results if (self.path / RESULTS).exists() else {}
        return {**counts, **{name: said[name] for name in ("metrics", "judges") if name in said}}

    def samples(self) -> Iterator[Sample]:
        """Yield every answer, those that were replaced or undone too."""
        turns: dict[str, Turn] = {}
        for record in self._lines:
            if record["type"] != "turn":
                continue
            try:
                turn = Turn(**{name: value for name, value in record.items() if name != "type"})
                turns[turn.id] = turn
                yield _sample(turn, len(turns) - 1, turns)
            except (TypeError, KeyError) as error:
                raise RunError(f"{self.transcript}: a line is no turn of this version ({error})") from error


def _sample(turn: Turn, index: int, turns: Mapping[str, Turn]) -> Sample:
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
