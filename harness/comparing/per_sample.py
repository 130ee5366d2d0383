"""Metrics sample by sample, and example by example: what each adds to a figure that is a mean over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.evaluation.by_sample import by_sample, is_mean
from harness.evaluation.repeats import example_means, of_right_and_wrong, right_among
from harness.interfaces import Scorer
from harness.runs.columns import Recorded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: The end of a metric's name that makes it the mean of the groups' means.
MACRO = "_macro"


def per_sample(run: Recorded, reader: str, scorer: Scorer) -> Mapping[str, Floats]:
    """Return metric → a score a sample, NaN where the metric leaves the sample out, for one parser or judge.

    A score is what the scorer makes of the sample alone. A metric whose value in the run's results is not the mean of
    these, or of the examples' means (a length-controlled win rate, say), is no mean over samples, and is left out.
    """
    columns = {name: column for (of, name), column in run.columns.items() if of == reader}
    figures = run.results.metrics.get(reader, {})
    if reader in run.verdicts:
        asked = np.array([verdict not in (None, "judge_error") for verdict in run.verdicts[reader]], dtype=np.bool_)
    else:
        asked = ~run.failed
    return {
        name: scores
        for name, scores in by_sample(columns, np.flatnonzero(asked), scorer).items()
        if name in figures and is_mean(example_means(scores, run.examples), figures[name].value, figures[name].n)
    }


def per_example(run: Recorded, reader: str, scorer: Scorer) -> dict[str, Floats]:
    """Return metric → a score an example, NaN as in `per_sample`: the mean over its samples.

    Of several samples an example there are also what some and all of them achieve (`harness.evaluation.repeats`).
    """
    scores = per_sample(run, reader, scorer)
    found = {name: example_means(values, run.examples) for name, values in scores.items()}
    right = of_right_and_wrong(scores) if run.record.samples > 1 else None
    if right is not None:
        found |= right_among(right, run.examples, run.record.samples, run.answers.get(reader))
    return found
