"""An imported run beside what the source of its outputs read in them itself."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.reports.summary import count_of, percent, points

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.runs.columns import Recorded
    from harness.runs.folder import Run
    from harness.types import Scores

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

_NAN = float("nan")

#: Of each `BesideSource`, in the order of `cells`.
HEADS = (
    "outputs", "the source's figure", "ours", "read differently", "ours alone is right", "the source's alone",
    "both or none", "stating nothing, yet read by the source", "of its figure",
)  # fmt: skip


@dataclass(frozen=True)
class BesideSource:
    """How the headline parser and the source read the same outputs.

    `outputs` counts those of which the source says what it read. `theirs` and `ours` are mean scores over those that
    both scored, None where there are none. `differing` outputs are read differently: in `we_are_right` and
    `source_is_right` one alone is right, by the gold answer. Our parser finds nothing stated in `nothing` outputs in
    which the source read an answer; `by_nothing` is the part of its figure that comes of these.
    """

    outputs: int
    theirs: float | None
    ours: float | None
    differing: int
    we_are_right: int
    source_is_right: int
    nothing: int
    by_nothing: float | None

    def cells(self) -> list[str]:
        """Return the figures under `HEADS`."""
        equal = self.differing - self.we_are_right - self.source_is_right
        return [
            f"{self.outputs:,}",
            percent(self.theirs),
            percent(self.ours),
            count_of(self.differing, self.outputs),
            f"{self.we_are_right:,}",
            f"{self.source_is_right:,}",
            f"{equal:,}",
            count_of(self.nothing, self.outputs),
            f"{points(self.by_nothing)} points" if self.by_nothing is not None else "–",
        ]

    def sentence(self) -> str:
        """Return the same in words, on one line."""
        said = [f"read differently {count_of(self.differing, self.outputs)}"]
        if self.theirs is not None:
            said.insert(0, f"the source's own figure {percent(self.theirs)}, ours {percent(self.ours)}")
            said[1] += f": ours alone is right in {self.we_are_right:,}, the source's in {self.source_is_right:,}"
        if self.nothing:
            share = "" if self.by_nothing is None else f", which is {100 * self.by_nothing:.2f} points of its figure"
            said.append(f"it read an answer in {self.nothing:,} that state nothing{share}")
        return f"beside the source: {'; '.join(said)}"


def beside_source(run: Recorded) -> BesideSource | None:
    """Return how an imported run's headline parser reads beside its source; None where the source says nothing."""
    parser = run.record.headline
    if run.source is None or parser is None:
        return None
    import numpy as np

    mine = next((column for (reader, _), column in run.columns.items() if reader == parser), None)
    return _compared(
        run.source.known & ~run.failed,
        run.source.answered,
        run.source.scores,
        np.full(len(run), np.nan) if mine is None else mine,
        run.source.differing[parser],
        run.unparsed[parser],
    )


def beside_source_of(run: Run) -> BesideSource | None:
    """Return the same of a run that has been written, read line by line: it takes 20 bytes an output."""
    parser = run.record.headline
    if parser is None:
        return None
    import numpy as np

    known, answered, differing, unparsed = (array("b") for _ in range(4))
    theirs, ours = array("d"), array("d")
    for sample in run.samples():
        said, read = sample.source, sample.status != "engine_error"
        answer = sample.answers.get(parser)
        known.append(said is not None and read)
        answered.append(said is not None and said.answer is not None)
        differing.append(said is not None and read and said.answer != answer)
        unparsed.append(read and answer is None)
        theirs.append(_first({} if said is None else said.scores))
        ours.append(_first(sample.scores.get(parser, {})))
    if not any(known):
        return None
    masks = [np.array(column, dtype=np.bool_) for column in (known, answered, differing, unparsed)]
    return _compared(masks[0], masks[1], np.array(theirs), np.array(ours), masks[2], masks[3])


def _first(scores: Scores) -> float:
    return next((_NAN if value is None else value for value in scores.values()), _NAN)


def _compared(
    known: Bools, answered: Bools, theirs: Floats, ours: Floats, differing: Bools, unparsed: Bools
) -> BesideSource:
    """Return the figures; a row is an output, and a score that is not there is NaN."""
    import numpy as np

    both = known & ~np.isnan(ours) & ~np.isnan(theirs)
    differing = differing & known
    nothing = unparsed & known & answered
    scored = int(both.sum())
    return BesideSource(
        outputs=int(known.sum()),
        theirs=float(theirs[both].mean()) if scored else None,
        ours=float(ours[both].mean()) if scored else None,
        differing=int(differing.sum()),
        we_are_right=int((differing & both & (ours >= 1) & (theirs < 1)).sum()),
        source_is_right=int((differing & both & (ours < 1) & (theirs >= 1)).sum()),
        nothing=int(nothing.sum()),
        by_nothing=float(theirs[nothing & both].sum() / scored) if scored else None,
    )
