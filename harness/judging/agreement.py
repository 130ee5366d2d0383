"""How far a judge agrees with people: its verdicts against a file of human labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.datasets import Row, read_rows
from harness.errors import DataError, nearest
from harness.judging.self_preference import self_preference
from harness.runs.judgements import Verdict
from harness.statistics import cohen_kappa, corrected_mean, mean, proportion
from harness.types import Estimate

#: What each row of a file of human labels has.
_FIELDS = ("id", "label")


@dataclass(frozen=True)
class Agreement:
    """A judge beside human labels.

    `kappa` is Cohen's, `agreed` the share of equal verdicts; both are over the labelled samples that the judge gave a
    readable verdict on. `unreadable` counts the others. `counts` has (human label, verdict) → samples. `judged` is the
    mean score of the judge's readable verdicts, `corrected` the one that people would give, as far as labels tell.
    `preference` is the judge's `self_preference`, where verdicts compare the model's response with another's.
    """

    kappa: Estimate
    agreed: Estimate
    unreadable: int
    counts: Mapping[tuple[str, str], int]
    judged: Estimate
    corrected: Estimate
    preference: Estimate | None


def read_labels(path: Path, verdicts: Collection[str], ids: Collection[str]) -> dict[str, str]:
    """Read human labels: rows (JSON Lines, JSON or CSV) with ``id``, a sample's key, and ``label``, one of `verdicts`.

    Raises DataError, naming the line, for other labels, ids that the run has not, and ids labelled twice.
    """
    known = set(ids)

    def fault(row: Row) -> str | None:
        identifier, label = (row[name] for name in _FIELDS)
        if label not in verdicts:
            return f"the label {label!r} is none of {', '.join(verdicts)}"
        if identifier not in known:
            return f"the run has no sample {identifier!r}{nearest(str(identifier), sorted(known)[:1])}"
        return None

    rows = read_rows(path, required=_FIELDS, check=fault)
    labels: dict[str, str] = {}
    for index, row in enumerate(rows):
        identifier, label = (row[name] for name in _FIELDS)
        if identifier in labels:
            raise DataError(f"{rows.place(index)}: {identifier!r} is labelled a second time; delete one of the two")
        labels[identifier] = label
    return labels


def agreement(verdicts: Mapping[str, Verdict], labels: Mapping[str, str], scores: Mapping[str, float]) -> Agreement:
    """Compare a judge's `verdicts` with `labels`, both by sample id; `scores` has what each readable verdict counts."""
    pairs = [(label, verdicts[i].verdict if i in verdicts else "judge_error") for i, label in labels.items()]
    readable = [(label, verdict) for label, verdict in pairs if verdict in scores]
    counts: dict[tuple[str, str], int] = {}
    for pair in readable:
        counts[pair] = counts.get(pair, 0) + 1
    compared = any(each.against is not None for each in verdicts.values())
    equal = sum(label == verdict for label, verdict in readable)
    own = [scores[verdict] for _, verdict in readable]
    rest = [scores[each.verdict] for i, each in verdicts.items() if i not in labels and each.verdict in scores]
    return Agreement(
        cohen_kappa([label for label, _ in readable], [verdict for _, verdict in readable]),
        proportion(equal, len(readable)),
        len(pairs) - len(readable),
        counts,
        mean([*own, *rest], bounds=(0, 1)),
        corrected_mean(rest, own, [scores[label] for label, _ in readable]),
        self_preference({i: each.verdict for i, each in verdicts.items()}, labels, scores) if compared else None,
    )
