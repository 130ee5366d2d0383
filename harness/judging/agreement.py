"""How far a judge agrees with people: its verdicts against a file of human labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.datasets import Row, read_rows
from harness.errors import DataError, nearest
from harness.judging.self_preference import self_preference
from harness.runs.judgements import Verdict
from harness.statistics import cohen_kappa, corrected_mean, mean
from harness.types import Estimate, sample_key

#: What each row of a file of human labels has.
_FIELDS = ("id", "label")


@dataclass(frozen=True)
class Agreement:
    """A judge beside human labels.

    `kappa` is Cohen's, `agreed` the share of equal verdicts; both are over the labelled samples that the judge gave a
    readable verdict on. `unreadable` counts the others. `counts` has (human label, verdict) → samples. `judged` is the
    mean score of the judge's readable verdicts, `corrected` the one that people would give, as far as labels tell.
    `preference` is the judge's `self_preference`, where verdicts compare the model's response with another's. Several
    samples of one example count as one in all but the counts: the example is the unit.
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

    Of several samples of an example, ``id`` is the sample's key, or the example's with a number in ``repeat``. Raises
    DataError, naming the line, for other labels, ids that the run has not, and ids labelled twice.
    """
    known = set(ids)

    def fault(row: Row) -> str | None:
        _, label = (row[name] for name in _FIELDS)
        if label not in verdicts:
            return f"the label {label!r} is none of {', '.join(verdicts)}"
        repeat = str(row.get("repeat") or 0)
        if not (repeat.isascii() and repeat.isdigit()):
            return f"the repeat {repeat!r} is no number from 0 on"
        if _key(row) not in known:
            return f"the run has no sample {_key(row)!r}{nearest(str(_key(row)), sorted(known)[:1])}"
        return None

    rows = read_rows(path, required=_FIELDS, check=fault)
    labels: dict[str, str] = {}
    for index, row in enumerate(rows):
        key, (_, label) = _key(row), (row[name] for name in _FIELDS)
        if key in labels:
            raise DataError(f"{rows.place(index)}: {key!r} is labelled a second time; delete one of the two")
        labels[key] = label
    return labels


def _key(row: Row) -> Any:
    """Return the key of the sample that a row labels; the id as it is where it is no text."""
    identifier, _ = (row[name] for name in _FIELDS)
    repeat = int(row.get("repeat") or 0)
    return sample_key(identifier, repeat) if repeat else identifier


def agreement(verdicts: Mapping[str, Verdict], labels: Mapping[str, str], scores: Mapping[str, float]) -> Agreement:
    """Compare a judge's `verdicts` with `labels`, both by sample; `scores` has what each readable verdict counts."""
    readable = {
        key: (label, verdicts[key])
        for key, label in labels.items()
        if key in verdicts and verdicts[key].verdict in scores
    }
    counts = Counter((label, said.verdict) for label, said in readable.values())
    examples = [said.id for _, said in readable.values()]
    labelled = {verdicts[key].id if key in verdicts else key for key in labels}
    judged = {key: each for key, each in verdicts.items() if each.verdict in scores}
    rest = {key: each for key, each in judged.items() if each.id not in labelled}
    by_judge = _means((said.id, scores[said.verdict]) for _, said in readable.values())
    by_people = _means((said.id, scores[label]) for label, said in readable.values())
    people, judges = ([(label, said.verdict)[side] for label, said in readable.values()] for side in (0, 1))
    compared = any(each.against is not None for each in verdicts.values())
    return Agreement(
        cohen_kappa(people, judges, groups=examples),
        mean(_means((said.id, label == said.verdict) for label, said in readable.values()), bounds=(0, 1)),
        len(labels) - len(readable),
        counts,
        mean(_means((each.id, scores[each.verdict]) for each in judged.values()), bounds=(0, 1)),
        corrected_mean(_means((each.id, scores[each.verdict]) for each in rest.values()), by_judge, by_people),
        self_preference(verdicts, labels, scores) if compared else None,
    )


def _means(values: Iterable[tuple[str, float]]) -> list[float]:
    """Return the mean of each example's values, in the order in which the examples come."""
    of: dict[str, list[float]] = {}
    for example, value in values:
        of.setdefault(example, []).append(value)
    return [sum(each) / len(each) for each in of.values()]
