"""A run read as columns says the same as its samples, one by one."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import RunError
from harness.reports.samples import kinds_of
from harness.runs.columns import read_run
from harness.runs.folder import RUN_FORMAT, SAMPLES, Run
from harness.runs.samples import encode
from harness.types import Sample, SourceReading
from tests.made_runs import MadeRuns, edit

CONFIG = {
    "format": RUN_FORMAT, "benchmark": "gsm8k", "model": "m", "parsers": ["a", "b"], "engine": "replay",
    "prompt_format": {"name": "plain"}, "identity": {}, "selected": 3, "scorer": "exact", "command": {}, "data": [],
}  # fmt: skip

texts = st.text(st.characters(codec=None), max_size=20)
scores = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.dictionaries(st.sampled_from(["accuracy", "other"]), st.floats(0, 1) | st.just(math.nan), max_size=2),
)


@st.composite
def samples(draw: st.DrawFn) -> list[Sample]:
    """Samples as they come to a journal: in any order, some twice."""
    indices = draw(st.lists(st.integers(0, 9), max_size=14))
    return [
        Sample(
            id=f"id {i}",
            index=i,
            group=draw(st.none() | texts),
            fields={"question": draw(texts)},
            prompt=draw(texts),
            prompt_tokens=draw(st.none() | st.integers(0, 99)),
            completion_tokens=draw(st.none() | st.integers(0, 99)),
            output=draw(texts),
            finish_reason=draw(st.sampled_from(["stop", "length", None])),
            answers=draw(st.dictionaries(st.sampled_from(["a", "b"]), st.none() | texts)),
            gold=draw(st.none() | texts),
            scores=draw(scores),
            status=draw(st.sampled_from(["ok", "unparsed", "engine_error"])),
            category=draw(st.none() | texts),
            response=draw(texts),
            source=draw(
                st.none()
                | st.builds(SourceReading, st.none() | texts, st.none() | texts, st.just({}) | st.just({"exact": 1.0}))
            ),
        )
        for i in indices
    ]


def written(folder: Path, found: list[Sample]) -> Path:
    (folder / "run.json").write_text(json.dumps(CONFIG))
    (folder / SAMPLES).write_bytes(b"".join(map(encode, found)))
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(samples())
def test_columns_say_what_the_samples_say(tmp_path: Path, found: list[Sample]) -> None:
    run = read_run(written(tmp_path, found))
    kept = list(Run(tmp_path).samples())
    assert (run.summed_up, len(run), run.benchmark, run.model) == (None, len(kept), "gsm8k", "m")
    assert run.indices.tolist() == sorted({sample.index for sample in found})
    kinds = run.kinds("a")
    for row, sample in enumerate(kept):
        assert same(dataclasses.asdict(run.sample(row)), dataclasses.asdict(sample))
        assert (run.ids[row], run.groups[row], run.categories[row]) == (sample.id, sample.group, sample.category)
        assert (run.statuses[row], run.lengths[row]) == (sample.status, len(sample.response))
        assert run.truncated[row] == (sample.finish_reason == "length")
        assert run.failed[row] == (sample.status == "engine_error")
        assert same(run.prompt_tokens[row], math.nan if sample.prompt_tokens is None else sample.prompt_tokens)
        for (reader, name), column in run.columns.items():
            assert same(column[row], sample.scores.get(reader, {}).get(name, math.nan))
        if run.source is not None:
            told, score = (
                sample.source,
                math.nan if sample.source is None else sample.source.scores.get("exact", math.nan),
            )
            assert run.source.known[row] == (told is not None) and same(run.source.scores[row], score)
            assert run.source.answered[row] == (told is not None and told.answer is not None)
            for parser, mask in run.source.differing.items():
                read = told is not None and not run.failed[row]
                assert mask[row] == (read and told is not None and told.answer != sample.answers.get(parser))
        assert (run.source is None) == all(each.source is None for each in found)
        for parser, mask in run.unparsed.items():
            assert mask[row] == (not run.failed[row] and sample.answers.get(parser) is None)
        if set(sample.scores.get("a", {})) in ({"accuracy"}, set()):  # which score is the first is up to the samples
            wanted = kinds_of(sample, "a")
            if next((name for reader, name in run.columns if reader == "a"), "accuracy") == "accuracy":
                assert {kind for kind, mask in kinds.items() if mask[row]} == wanted


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, NaN to NaN too."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b or (a != a and b != b))


def test_a_torn_last_line_is_left_out_and_one_in_the_middle_named(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path).gsm8k("m", lambda i: True, n=4)
    (made / "results.json").unlink()
    whole = (made / SAMPLES).read_bytes()
    (made / SAMPLES).write_bytes(whole[:-20])
    assert len(read_run(made)) == 3
    (made / SAMPLES).write_bytes(whole.replace(b'"index": 1', b'"index": -1'))
    with pytest.raises(RunError, match=r"samples.jsonl:2: not a sample .*delete the line to have it done again"):
        read_run(made)


def test_samples_that_results_sum_up_must_be_there(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path).gsm8k("m", lambda i: True, n=4)
    (made / SAMPLES).write_bytes((made / SAMPLES).read_bytes()[:-20])
    with pytest.raises(RunError, match=r"has 3 samples, and results.json sums up 4; move results.json away and give"):
        read_run(made)


def test_verdicts_come_with_the_samples(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path).safety("m", lambda i: ("safe", "unsafe", "Hm.")[i % 3], n=6)
    run = read_run(made)
    assert run.verdicts == {"judge": ["safe", "unsafe", "unreadable"] * 2}
    assert np.array_equal(run.columns["judge", "safe"], [1, 0, math.nan] * 2, equal_nan=True)
    assert {kind: mask.sum() for kind, mask in run.kinds().items()} == {
        "failed": 0, "wrong": 0, "unparsed": 0, "disagreeing": 0, "truncated": 0, "safe": 2, "unsafe": 2,
        "unreadable": 2,
    }  # fmt: skip
    (made / "judged" / "judge.jsonl").write_text('{"id": "stranger", "verdict": "safe", "scores": {}}\n')
    with pytest.raises(RunError, match=r"cannot read .*judge.jsonl .*judge the run again"):
        read_run(made)


def test_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run.json: not a run folder"):
        read_run(tmp_path)
    made = MadeRuns(tmp_path).gsm8k("m", lambda i: True, n=4)
    edit(made / "run.json", lambda config: config.pop("identity"))
    with pytest.raises(RunError, match=r"run.json: not as this version writes it \(.*`identity`\)"):
        read_run(made)
    edit(made / "run.json", lambda config: config.update(format=0))
    with pytest.raises(RunError, match=r"format 0 is not the 1 that this version reads"):
        read_run(made)
