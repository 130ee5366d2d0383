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

import numpy as np

from harness.comparing.pairing import paired_rows
from harness.comparing.per_sample import per_sample
from harness.errors import HarnessError
from harness.interfaces import Parser
from harness.registry import Registry
from harness.reports.deciding import explaining, reasons
from harness.reports.samples import likelihoods, prompt_of
from harness.runs.columns import Recorded
from harness.runs.judgements import Verdict, read_verdicts
from harness.types import Sample

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
    """The runs of one benchmark: `index` is for filters, and `chunks` gives the texts.

    `parsers` are those of each run that can explain their answers.
    """

    index: str
    runs: Sequence[Recorded]
    parsers: Sequence[Sequence[Parser]]

    def chunks(self) -> Iterator[tuple[int, str]]:
        """Yield each chunk with the place of its first example, read from disk on the way."""
        return _chunks(self.runs, self.parsers)


def pack(runs: Mapping[str, Recorded], places: Mapping[str, int], reader: str | None, registry: Registry) -> PackedRuns:
    """Return the samples of `runs` of one benchmark, all over the same examples; keys are the runs' labels.

    `places` are the labels' places among the report's series. Samples are right or wrong as `reader` has read them, the
    parser or judge of the benchmark's headline; a run that it has not read goes by its own first judge or parser.
    """
    first = next(iter(runs.values()))
    rows = [paired_rows(first, run) for run in runs.values()]
    readers = {label: _reader(run, reader) for label, run in runs.items()}
    values = {label: good(run, readers[label], registry) for label, run in runs.items()}
    kinds = {label: _kinds(run, readers[label], values[label]) for label, run in runs.items()}
    names = list(dict.fromkeys(name for found in kinds.values() for name in found))[:_MOST_KINDS]
    groups = list(dict.fromkeys(group for group in first.groups if group is not None))
    place_of = {group: place for place, group in enumerate(groups)}
    content = {
        "ids": first.keys,
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
    parsers = [explaining(run.record.parsers, registry) for run in runs.values()]
    return PackedRuns(packed(content), list(runs.values()), parsers)


def packed(content: Any) -> str:
    """Return JSON data deflated, in base64. Lone surrogates survive, as escapes."""
    return base64.b64encode(zlib.compress(json.dumps(content).encode("ascii"), 6)).decode("ascii")


def _reader(run: Recorded, wanted: str | None) -> str:
    """Return `wanted` if it is a judge or parser of the run, else the run's first judge, else its first parser."""
    readers = [*run.verdicts, *run.record.parsers]
    return wanted if wanted is not None and wanted in readers else next(iter(readers), "")


def good(run: Recorded, reader: str, registry: Registry) -> Floats:
    """Return 1 for each sample that `reader` finds right, safe or preferred, 0 for others, NaN where it says nothing.

    A score between 0 and 1 is good above one half, as in a comparison. Where the run's scorer is not installed, what it
    recorded counts.
    """
    try:
        columns = per_sample(run, reader, registry.scorer(run.record.scorer))
    except HarnessError:
        columns = {}
    recorded = (values for (of, _), values in run.columns.items() if of == reader)
    column = next(iter([*columns.values(), *recorded]), None)
    if column is None:
        return np.full(len(run), np.nan)
    return np.where(np.isnan(column), np.nan, (column > 0.5).astype(np.float64))


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
        unparsed = run.unparsed[reader]
        found = {"right": value == 1, "wrong": (value == 0) & ~unparsed, "unparsed": unparsed}
        if (disagreeing := run.disagreeing[reader]).any():
            found |= {"disagreeing": disagreeing}
    return {**found, "truncated": run.truncated & ~failed, "failed": failed}


def _verdicts(run: Recorded, judge: str) -> list[str]:
    said = run.results.judged.get(judge)
    return [] if said is None else list(said.verdicts)


def _flags(value: Floats, kinds: Mapping[str, Bools], names: Sequence[str]) -> NDArray[np.int64]:
    flags: NDArray[np.int64] = _SCORED * (~np.isnan(value)).astype(np.int64) + _GOOD * (value == 1).astype(np.int64)
    for bit, name in enumerate(names, start=_KINDS):
        if name in kinds:
            flags |= kinds[name].astype(np.int64) << bit
    return flags


def _chunks(runs: Sequence[Recorded], parsers: Sequence[Sequence[Parser]]) -> Iterator[tuple[int, str]]:
    judged = [{judge: read_verdicts(run.path, judge) for judge in run.verdicts} for run in runs]
    samples = [run.samples(paired_rows(runs[0], run)) for run in runs]
    held: list[str] = []
    size = first = 0
    for place, same in enumerate(zip(*samples, strict=True)):
        example = json.dumps(_example(same, judged, parsers))
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


def _example(
    samples: Sequence[Sample],
    judged: Sequence[Mapping[str, Mapping[str, Verdict]]],
    parsers: Sequence[Sequence[Parser]],
) -> Any:
    """Return an example's texts: what runs have in common once, then each run's own."""
    prompts = list(dict.fromkeys(map(prompt_of, samples)))
    verdicts = [
        [(judge, by_key[sample.key]) for judge, by_key in by_judge.items() if sample.key in by_key]
        for sample, by_judge in zip(samples, judged, strict=True)
    ]
    compared = list(dict.fromkeys(said.against for found in verdicts for _, said in found if said.against is not None))
    return {
        "gold": samples[0].gold,
        "prompts": [text for text, _ in prompts],
        "sent": [sent for _, sent in prompts],
        "compared": compared,
        "runs": [
            {
                "prompt": prompts.index(prompt_of(sample)),
                "output": sample.output,
                "likelihoods": likelihoods(sample),
                "answers": _answers(sample, explaining_its),
                "error": sample.error,
                "tokens": sample.completion_tokens,
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
            for sample, found, explaining_its in zip(samples, verdicts, parsers, strict=True)
        ],
    }


def _answers(sample: Sample, parsers: Sequence[Parser]) -> list[list[Any]]:
    """Return parser, answer and, where known, the rule, and where the deciding words stand in JavaScript's units."""
    why = reasons(sample, parsers)
    found: list[list[Any]] = []
    for parser, answer in sample.answers.items():
        known: list[Any] = []
        if (reason := why.get(parser)) is not None:
            places = [_utf16(sample.output, reason.start), _utf16(sample.output, reason.end)]
            known = [reason.rule, *(places if reason.end else [])]
        found.append([parser, answer, *known])
    return found


def _utf16(text: str, place: int) -> int:
    """Return how many units of UTF-16 stand before a place: a character beyond U+FFFF takes two."""
    before = text[:place]
    return place if before.isascii() else place + sum(character > "\uffff" for character in before)
