"""What stands beside a run's figures in a comparison, and which examples its model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.comparing.pairing import stated_differences
from harness.errors import RunError
from harness.runs.columns import Recorded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Facts:
    """What stands beside a run's figures: counts, means over samples (None where unknown), rates, and how it was made.

    `n` counts samples, of which there are `samples` of each example. `unparsed` is by parser, `unreadable` by judge,
    and so is `judged`, how many judgements there are. `differs` says in what the run differs from the baseline, beside
    the model.
    """

    path: str
    model: str
    n: int
    samples: int
    failed: int
    truncated: int | None
    unparsed: Mapping[str, int]
    unreadable: Mapping[str, int]
    judged: Mapping[str, int]
    prompt_tokens: float | None
    completion_tokens: float | None
    characters: float | None
    examples_per_second: float | None
    prompt_tokens_per_second: float | None
    completion_tokens_per_second: float | None
    prompt_format: str
    engine: str
    differs: Sequence[str]

    @property
    def outputs(self) -> int:
        """How many samples have an output: what unparsed and truncated ones are a share of."""
        return self.n - self.failed


def format_of(run: Recorded) -> str:
    """Return the name of the prompt format that a run was asked in."""
    return run.record.prompt_format.name


def engine_of(run: Recorded) -> str:
    """Return the name of the engine that ran it."""
    return run.record.engine


def facts_of(run: Recorded, baseline: Recorded) -> Facts:
    """Return what stands beside the figures of a run, compared with `baseline`."""
    answered = ~run.failed
    return Facts(
        path=str(run.path),
        model=run.model,
        n=len(run),
        samples=run.record.samples,
        failed=int(run.failed.sum()),
        truncated=None if run.results.unknown_ends else int(run.truncated.sum()),
        unparsed={parser: int(mask.sum()) for parser, mask in run.unparsed.items()},
        unreadable={judge: sum(each == "unreadable" for each in said) for judge, said in run.verdicts.items()},
        judged={judge: sum(each not in (None, "judge_error") for each in v) for judge, v in run.verdicts.items()},
        prompt_tokens=_mean(run.prompt_tokens[answered]),
        completion_tokens=_mean(run.completion_tokens[answered]),
        characters=_mean(run.lengths[answered].astype(np.float64)),
        examples_per_second=run.examples_per_second,
        prompt_tokens_per_second=run.timing.prompt_tokens_per_second or None,
        completion_tokens_per_second=run.timing.completion_tokens_per_second or None,
        prompt_format=format_of(run),
        engine=engine_of(run),
        differs=stated_differences(baseline, run),
    )


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def contaminated(runs: Sequence[Recorded]) -> set[str]:
    """Return the ids of examples that a model was trained on; RunError for a run that does not say."""
    found = set[str]()
    known = [run.record.contamination for run in runs]
    if not any(known):
        raise RunError(
            f"{runs[0].path}, and those beside it, do not say what was trained on: name the benchmark in the recipe "
            f"(against), or give the training data to harness run (--trained-on FILE)"
        )
    for each in known:
        found.update(each.found if each is not None else ())
    return found
