"""What a scorer promises: bounded scores, estimates that hold together, and, if it asks a judge, a verdict always."""

from __future__ import annotations

import itertools
import json
import math
import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast
from unittest import SkipTest

from harness.errors import DataError
from harness.interfaces import JudgedScorer
from harness.testing.conformance.check import Check, quoted, require
from harness.testing.conformance.corpus import PLAIN, STRANGE
from harness.testing.conformance.subject import Subject
from harness.types import Columns, Completion, Estimate, Example, Judged, Judgement, JudgeQuestion, Sample, Scores

#: Examples with the fields that the shipped benchmarks have.
_EXAMPLES = tuple(
    Example(
        f"example-{gold}",
        {
            "instruction": f"Name a number near {gold}.",
            "question": f"Which number is near {gold}?",
            "options": ["1", "2", "3", "4"],
            "reference": f"A number near {gold} is {gold}.",
            "reference_generator": "reference",
        },
        gold=gold,
        group="numbers",
    )
    for gold in ("1", "2", "B")
)

_ANSWERS = (None, "1", "2", "B", "1.0", "", "Paris", "1e999", "nan", "\ud800", "9" * 1000)

_FIGURES = ("value", "stderr", "low", "high")

_MARK = "a response that is like no other"
_RESPONSES = (_MARK, "", "safe", "Output (a) is better.\n\nunsafe", "\x1b[31m\u202e\ud800\x00", "word " * 5000)


def scores_lie_between_0_and_1(subject: Subject) -> None:
    """Every answer, and none, gets the same names of scores, each a number from 0 to 1."""
    scorer = subject.plugin
    require(isinstance(scorer.judged, bool), f"its judged is {scorer.judged!r}, not True or False")
    answers = scorer.verdicts if scorer.judged else _ANSWERS
    names: set[tuple[str, ...]] = set()
    for example in _examples(subject):
        for answer in (*answers, *([] if scorer.judged else [example.gold])):
            scores: Scores = scorer.score(example, answer)
            where = f"the answer {quoted(answer)} to {example.id!r}"
            require(scores, f"{where} gets no score")
            for name, value in scores.items():
                good = isinstance(value, int | float) and 0 <= value <= 1
                require(good, f"{where} gets {name} = {quoted(value)}, not a number from 0 to 1")
            names.add(tuple(scores))
    require(len(names) == 1, f"answers get scores of different names: {sorted(names)}")


def the_same_answer_gets_the_same_score(subject: Subject) -> None:
    """An answer is scored alike the second time."""
    for example, answer in itertools.product(_examples(subject), _ANSWERS):
        first, second = (repr(dict(subject.plugin.score(example, answer))) for _ in range(2))
        require(first == second, f"{quoted(answer)} to {example.id!r} gets {first}, and {second} the second time")


def estimates_hold_together(subject: Subject) -> None:
    """Each estimate lies within its interval and counts no more samples than there are, be it none or one."""
    for what, columns in _tables(subject):
        rows = max(map(len, columns.values()), default=0)
        metrics: Mapping[str, Estimate] = subject.plugin.summarise(columns)
        require(metrics, f"{what}: it gives no metric")
        for name, one in metrics.items():
            require(isinstance(one, Estimate), f"{what}: {name} is {quoted(one)}, not a harness.types.Estimate")
            require(0 <= one.n <= rows, f"{what}: {name} counts {one.n} samples of {rows}")
            said = f"{what}: {name} is {one.value:g} with the interval [{one.low:g}, {one.high:g}]"
            known = not any(math.isnan(part) for part in (one.value, one.low, one.high))
            require(not known or one.low <= one.value <= one.high, said)
            require(rows == 0 or one.n == 0 or not math.isnan(one.value), f"{said} over {one.n} samples")


def the_order_makes_no_difference(subject: Subject) -> None:
    """The same samples in another order give the same estimates, but for rounding."""
    for what, columns in _tables(subject):
        order = list(range(max(map(len, columns.values()), default=0)))
        random.Random(1).shuffle(order)
        shuffled = {name: array("d", (column[i] for i in order)) for name, column in columns.items()}
        first, second = subject.plugin.summarise(columns), subject.plugin.summarise(shuffled)
        require(first.keys() == second.keys(), f"{what}: other metrics in another order: {sorted(second)}")
        for name in first:
            pairs = ((getattr(first[name], part), getattr(second[name], part)) for part in _FIGURES)
            same = all(_close(one, other) for one, other in pairs)
            require(same, f"{what}: {name} is {first[name].value!r}, and {second[name].value!r} in another order")


def a_judge_is_shown_the_response(subject: Subject) -> None:
    """Questions have keys of their own and show the response; what they depend on can be written as JSON."""
    scorer = _judged(subject)
    examples = _examples(subject)
    json.dumps(dict(scorer.inputs(examples)))
    for example in examples:
        questions = scorer.questions(example, _MARK)
        require(all(isinstance(q, JudgeQuestion) for q in questions), f"its questions are {quoted(questions)}")
        keys = [question.key for question in questions]
        require(len(set(keys)) == len(keys) > 0, f"the keys of its questions about one response are {keys}")
        shown = all(_MARK in f"{question.system or ''}\n{question.instruction}" for question in questions)
        require(shown, f"a question about {example.id!r} does not show the response")


def any_reply_gives_a_verdict(subject: Subject) -> None:
    """Whatever a judge replies, the verdict is one of the scorer's or unreadable; an empty reply is unreadable."""
    scorer = _judged(subject)
    require("unreadable" not in scorer.verdicts and scorer.verdicts, f"its verdicts are {scorer.verdicts}")
    seen: set[str] = set()
    for example, response, reply in itertools.product(_examples(subject), _RESPONSES, _replies(subject)):
        where = f"the reply {quoted(reply)} about {quoted(response)}"
        judgement = _judge(scorer, example, response, reply)
        if judgement is None:
            continue
        known = judgement.verdict in (*scorer.verdicts, "unreadable")
        require(known, f"{where} gives the verdict {judgement.verdict!r}, none of {scorer.verdicts}")
        readable = judgement.verdict != "unreadable"
        headline = next(iter(judgement.scores.values()), math.nan)
        said = f"{where} is {judgement.verdict} and gets {headline:g}"
        require(math.isnan(headline) != readable, f"{said}: a score is NaN where, and only where, it is unreadable")
        require(reply.strip() or not readable, f"{where} is {judgement.verdict}, not unreadable")
        again = _judge(scorer, example, response, reply)
        require(repr(again) == repr(judgement), f"{where} gives another judgement the second time")
        seen.add(judgement.verdict)
    if seen == {"unreadable"}:
        raise SkipTest("none of the usual replies is readable; give Subject(outputs=…) such as its judge gives")


def judged_responses_are_reported(subject: Subject) -> None:
    """Details, report and exports are JSON data, and bounds enclose what is known."""
    scorer = _judged(subject)
    judged = list(_all_judged(subject, scorer))
    columns = _columns([one.judgement.scores for one in judged])
    details = json.loads(json.dumps(dict(scorer.details(columns))))
    for name, (low, high) in details.get("bounds", {}).items():
        require(low <= high, f"the bounds of {name} are [{low:g}, {high:g}]")
    json.dumps(dict(scorer.details({})))
    with suppress(DataError):  # these judgements may not allow it
        scorer.report("model", "judge", judged)
    for name, records in scorer.exports("model", "judge", judged).items():
        good = name.endswith((".json", ".jsonl")) and not {"/", "\\"} & set(name)
        require(good, f"an exported file is called {name!r}: a plain name that ends in .json or .jsonl is needed")
        for record in records:
            json.dumps(dict(record), allow_nan=False)


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))


def _judged(subject: Subject) -> JudgedScorer:
    if not subject.plugin.judged:
        raise SkipTest("it asks no judge")
    return cast(JudgedScorer, subject.plugin)


def _examples(subject: Subject) -> Sequence[Example]:
    return subject.examples or _EXAMPLES


def _replies(subject: Subject) -> tuple[str, ...]:
    return (*subject.outputs, *PLAIN, *STRANGE)


def _judge(scorer: JudgedScorer, example: Example, response: str, reply: str) -> Judgement | None:
    """Return what `reply` to every question comes to; None where there is no question."""
    keys = [question.key for question in scorer.questions(example, response)]
    replies = {key: Completion(key, reply, "stop") for key in keys}
    return scorer.judgement(example, response, replies) if keys else None


def _all_judged(subject: Subject, scorer: JudgedScorer) -> Iterator[Judged]:
    for example, reply in itertools.product(_examples(subject), _replies(subject)):
        judgement = _judge(scorer, example, _MARK, reply)
        if judgement is not None:
            sample = Sample(
                id=example.id, index=0, group=example.group, fields=example.fields, prompt="", prompt_tokens=1,
                completion_tokens=1, output=_MARK, finish_reason="stop", answers={}, gold=example.gold, scores={},
                status="ok", response=_MARK,
            )  # fmt: skip
            keys = [question.key for question in scorer.questions(example, _MARK)]
            yield Judged(sample, judgement, dict.fromkeys(keys, reply))


def _tables(subject: Subject) -> Iterator[tuple[str, Columns]]:
    """Yield columns of scores as a run would gather them: mixed, alike, of one sample, of none, with gaps."""
    scorer: Any = subject.plugin
    examples = _examples(subject)
    if scorer.judged:
        rows = [one.judgement.scores for one in _all_judged(subject, scorer)]
        rows.sort(key=lambda row: math.isnan(next(iter(row.values()))))
    else:
        rows = [scorer.score(example, answer) for example in examples for answer in (*_ANSWERS, example.gold)]
    yield "mixed samples", _columns(rows)
    yield "equal samples", _columns([rows[0]] * 7)
    yield "one sample", _columns(rows[:1])
    yield "no samples", _columns([])
    if scorer.judged:
        yield "unreadable samples", _columns([dict.fromkeys(rows[0], math.nan)] * 3)


def _columns(rows: Sequence[Scores]) -> Columns:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: array("d", (row.get(name, math.nan) for row in rows)) for name in names}


CHECKS = [
    Check(scores_lie_between_0_and_1),
    Check(the_same_answer_gets_the_same_score),
    Check(estimates_hold_together),
    Check(the_order_makes_no_difference),
    Check(a_judge_is_shown_the_response),
    Check(any_reply_gives_a_verdict),
    Check(judged_responses_are_reported),
]
