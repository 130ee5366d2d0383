"""A chat's transcript as a run to be judged: its samples are the answers in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from harness.errors import RunError
from harness.evaluation.results import summarise
from harness.registry import Registry
from harness.runs.folder import Run
from harness.runs.records import Results, RunRecord
from harness.runs.transcripts import SCORER, Turn, judged_folder, read_transcript, turn_sample
from harness.types import Sample


class TranscriptRun(Run):
    """A transcript as judges take it; what they say goes into its `judged_folder`.

    Raises RunError for a file that is no transcript.
    """

    def __init__(self, transcript: Path) -> None:
        super().__init__(judged_folder(transcript))
        self.transcript = transcript
        self._record, self._turns = read_transcript(transcript)

    @property
    def record(self) -> RunRecord:
        """What a run.json would say."""
        return self._record

    @property
    def results(self) -> Results:
        """The counts of all answers so far, with what judges have said of them."""
        counts = summarise("chat", Registry().scorer(SCORER), self.samples(), ())
        if not self.finished:
            return counts
        said = super().results
        judges = counts.judges if said.judges is None else said.judges
        return msgspec.structs.replace(counts, metrics=said.metrics, judges=judges)

    def samples(self) -> Iterator[Sample]:
        """Yield every answer, those that were replaced or undone too."""
        turns: dict[str, Turn] = {}
        for turn in self._turns:
            turns[turn.id] = turn
            try:
                yield turn_sample(turn, len(turns) - 1, turns)
            except KeyError as error:
                raise RunError(f"{self.transcript}: {turn.id} follows turns that are not there ({error})") from error
