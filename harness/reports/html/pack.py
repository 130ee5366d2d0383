"""The samples of a report as data in the page: columns to filter by, and texts, compressed in chunks.

Whatever a model wrote leaves here as deflated JSON in base64, in elements that no browser executes, and is turned back
into text nodes by browser.js alone.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness.errors import HarnessError
from harness.evaluation.journal import SAMPLES
from harness.evaluation.judgements import Verdict, read_verdicts
from harness.evaluation.lines import read_lines
from harness.evaluation.per_sample import per_sample
from harness.evaluation.recorded import Recorded
from harness.registry import Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

#: Characters of JSON in a chunk: one is unpacked to show one sample, all of them to search.
_CHUNK = 400_000

#: The first bits of a sample's flags; those of the kinds follow.
_SCORED, _GOOD, _KINDS = 1, 2, 2
_MOST_KINDS = 28


@dataclass(frozen=True)
class PackedRuns:
    """The runs of one benchmark: `index` is for filters, and `chunks` gives the texts."""

    index: str
    runs: Sequence[Recorded]

    def chunks(self) -> Iterator[tuple[int, str]]:
        """Yield each chunk with the place of its first example, read from disk on the way."""
        return _chunks(self.runs)


def pack(runs: Mapping[str, Recorded], places: Mapping[str, int], reader: str | None) -> PackedRuns:
    """Return the samples of `runs` of one benchmark, all over the same examples; keys are the runs' labels.

    `places` are the labels' places among the report's series. Samples are right or wrong as `reader` has read them, the
    parser or judge of the benchmark's headline; a run that it has not read goes by its own first judge or parser.
    """
    first = next(iter(runs.values()))
    rows = [_rows(first, run) for run in runs.values()]
    readers = {label: _reader(run, reader) for label, run in runs.items()}
    values = {label: good(run, readers[label]) for label, run in runs.items()}
    kinds = {label: _kinds(run, readers[label], values[label]) for label, run in runs.items()}
    names = list(dict.fromkeys(name for found in kinds.values() for name in found))[:_MOST_KINDS]
    groups = list(dict.fromkeys(group for group in first.groups if group is not None))
    place_of = {group: place for place, group in enumerate(groups)}
    content = {
        "ids": list(first.ids),
        "groups": groups,
        "group": [-1 if group is None else place_of[group] for group in first.groups],
        "kinds": names,
        "runs": [
            {
                "label": label,
                "series": places[label],
                "flags": _flags(values[label], kinds[label], names)[order].tolist(),
            }
            for label, order in zip(runs, rows, strict=True)
        ],
    }
    return PackedRuns(packed(content), list(runs.values()))


def packed(content: Any) -> str:
    """Return JSON data deflated, in base64. Lone surrogates survive, as escapes."""
    return base64.b64encode(zlib.compress(json.dumps(content).encode("ascii"), 6)).decode("ascii")


def _reader(run: Recorded, wanted: str | None) -> str:
    """Return `wanted` if it is a judge or parser of the run, else the run's first judge, else its first parser."""
    readers = [*run.verdicts, *run.config["parsers"]]
    return wanted if wanted is not None and wanted in readers else next(iter(readers), "")


def good(run: Recorded, reader: str) -> Floats:
    """Return 1 for each sample that `reader` finds right, safe or preferred, 0 for others, NaN where it says nothing.

    A score between 0 and 1 is good above one half, as in a comparison. Where the run's scorer is not installed, what it
    recorded counts.
    """
    try:
        columns = per_sample(run, reader, Registry().get("scorers", run.config["scorer"]))
    except HarnessError:
        columns = {}
    recorded = (values for (of, _), values in run.columns.items() if of == reader)
    column = next(iter([*columns.values(), *recorded]), None)
    if column is None:
        return np.full(len(run), np.nan)
    return np.where(np.isnan(column), np.nan, (column > 0.5).astype(np.float64))


def _rows(first: Recorded, run: Recorded) -> NDArray[np.int64]:
    """Return the row of `run` with each example of `first`."""
    if list(first.ids) == list(run.ids):
        return np.arange(len(run))
    rows = {identifier: row for row, identifier in enumerate(run.ids)}
    return np.array([rows[identifier] for identifier in first.ids], dtype=np.int64)


def _kinds(run: Recorded, reader: str, value: Floats) -> dict[str, Bools]:
    """Return the kinds of sample that `harness show` knows and a run can have, with a mask each."""
    found: dict[str, Bools] = {}
    failed = run.failed
    if reader in run.verdicts:
        said = np.array([verdict or "" for verdict in run.verdicts[reader]], dtype=np.str_)
        for verdict in dict.fromkeys([*_verdicts(run, reader), "unreadable"]):
            found[verdict] = said == verdict
        failed = failed | (said == "judge_error")
    elif reader:
        found["right"] = value == 1
        found["wrong"] = (value == 0) & ~run.unparsed[reader]
        found["unparsed"] = run.unparsed[reader]
    return {**found, "truncated": run.truncated & ~failed, "failed": failed}


def _verdicts(run: Recorded, judge: str) -> list[str]:
    return list((run.results or {}).get("judges", {}).get(judge, {}).get("verdicts", {}))


def _flags(value: Floats, kinds: Mapping[str, Bools], names: Sequence[str]) -> NDArray[np.int64]:
    flags: NDArray[np.int64] = _SCORED * (~np.isnan(value)).astype(np.int64) + _GOOD * (value == 1).astype(np.int64)
    for bit, name in enumerate(names, start=_KINDS):
        if name in kinds:
            flags |= kinds[name].astype(np.int64) << bit
    return flags


def _chunks(runs: Sequence[Recorded]) -> Iterator[tuple[int, str]]:
    judged = [{judge: read_verdicts(run.folder, judge) for judge in run.verdicts} for run in runs]
    lines = [read_lines(run.folder.path / SAMPLES, run.offsets[_rows(runs[0], run)].tolist()) for run in runs]
    held: list[str] = []
    size = first = 0
    for place, texts in enumerate(zip(*lines, strict=True)):
        example = json.dumps(_example([_decode(text) for text in texts], judged))
        held.append(example)
        size += len(example)
        if size >= _CHUNK:
            yield first, _joined(held)
            held, size, first = [], 0, place + 1
    if held:
        yield first, _joined(held)


def _joined(examples: Sequence[str]) -> str:
    text = f"[{','.join(examples)}]"
    return base64.b64encode(zlib.compress(text.encode("ascii"), 6)).decode("ascii")


def _decode(line: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(line)
    except ValueError:  # NaN and lone surrogates, which are Python's JSON alone
        found = json.loads(line)
    return found


def _example(samples: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Mapping[str, Verdict]]]) -> Any:
    """Return an example's texts: what runs have in common once, then each run's own."""
    prompts = list(dict.fromkeys(sample["prompt"] for sample in samples))
    verdicts = [
        [(judge, by_id[sample["id"]]) for judge, by_id in by_judge.items() if sample["id"] in by_id]
        for sample, by_judge in zip(samples, judged, strict=True)
    ]
    compared = list(dict.fromkeys(said.against for found in verdicts for _, said in found if said.against is not None))
    return {
        "gold": samples[0]["gold"],
        "prompts": prompts,
        "compared": compared,
        "runs": [
            {
                "prompt": prompts.index(sample["prompt"]),
                "output": sample["output"],
                "answers": list(sample["answers"].items()),
                "error": sample["error"],
                "tokens": sample["completion_tokens"],
                "judged": [
                    [
                        judge,
                        said.verdict,
                        list(said.replies.items()),
                        None if said.against is None else compared.index(said.against),
                        said.error,
                    ]
                    for judge, said in found
                ],
            }
            for sample, found in zip(samples, verdicts, strict=True)
        ],
    }
