"""Judge a run: ask another model about each response, journal its replies, and put what they come to into the results.

Nothing but the run's folder is needed, so that this happens after the run, later, or on another machine. A reply that
is in the journal is not asked for again; one that failed is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import msgspec

from harness.calls import answered, blamed, judgement_of, questions_of
from harness.config import configured, merged, options_of
from harness.errors import ConfigError, DataError, PluginError, PromptError, RunError, nearest
from harness.evaluation.options import run_options
from harness.evaluation.plan import JUDGE, TEMPLATE, Plan, RunOptions
from harness.evaluation.progress import Progress
from harness.evaluation.repeats import averaged
from harness.evaluation.results import recorded, with_judgements
from harness.interfaces import JudgedScorer, Model, SpreadingEngine
from harness.judging.self_preference import family_of, with_self_preference
from harness.parsers import without_reasoning
from harness.prompts import format_options
from harness.registry import Registry
from harness.respondent import Respondent, choose_engine, make_respondent
from harness.runs.environment import environment
from harness.runs.folder import RESULTS, Run
from harness.runs.judgements import (
    JudgementLog,
    Verdict,
    failed_verdict,
    verdict_of,
    without_address,
    write_verdicts,
)
from harness.runs.records import JudgedBy, JudgingSession, Metrics, Results, RunRecord
from harness.runs.selecting import left_out
from harness.types import Example, Judged, JudgeQuestion, Request, Sample, described


@dataclass(frozen=True)
class JudgeOutcome:
    """What became of judging one run: its results, the judge's label in them, and how many replies were new."""

    run: Run
    results: Results
    label: str
    asked: int
    resumed: int


def make_judge(options: RunOptions, registry: Registry) -> Respondent:
    """Return the judge that `options` name, its weights not loaded.

    Raises HarnessError where its engine cannot run here, or model, options or prompt format do not fit.
    """
    model = options.judge_model
    if not model:
        raise ConfigError("no judge given: --judge MODEL")
    table = options.options.get(JUDGE, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"options of the judge's engine are given as {JUDGE}.OPTION=VALUE, not {JUDGE}={table}")
    own = {name: value for name, value in table.items() if name not in ("system", "template", TEMPLATE)}
    tables = _engine_tables(options.judge_engine, own, registry)
    engine, why = choose_engine(options.judge_engine, tables, registry)
    said = format_options(table.get("system"), table.get("template"), table.get(TEMPLATE, {}), f"{JUDGE}.{TEMPLATE}")
    return make_respondent(model, engine, why, options.judge_prompt_format, said)


def _engine_tables(engine: str, own: Mapping[str, Any], registry: Registry) -> Mapping[str, Any]:
    """Return the tables of options of a judge's engine; the options of one that it spreads stand in a table in it.

    ``judge.replicas=4``, and ``judge.vllm.tensor_parallel_size=2``.
    """
    names = [plugin.name for plugin in registry.plugins("engines")]
    if engine == "auto" or not isinstance(registry.engine(engine), SpreadingEngine):
        return dict.fromkeys(names, own)
    within = {name: own[name] for name in names if name in own and name != engine}
    return {**within, engine: {name: value for name, value in own.items() if name not in within}}


def judging_options(pairs: Sequence[str], flags: Mapping[str, Any]) -> RunOptions:
    """Return what `harness judge` was given; ConfigError for options that belong to a run."""
    options = run_options(pairs=pairs, flags=flags)
    for field in dataclasses.fields(RunOptions):
        of_run = not field.name.startswith(JUDGE) and field.name not in ("trackers", "options")
        if of_run and getattr(options, field.name) != getattr(RunOptions(), field.name):
            raise ConfigError(f"--set {field.name}: an option of `harness run`; the outputs are there already")
    return options


def judged_scorers(
    runs: Sequence[Run], options: RunOptions, reference: str | None, registry: Registry
) -> list[JudgedScorer]:
    """Return the scorer of each run, with the options of the run and, over them, those in `options`.

    Raises ConfigError for a run that needs no judge, and for options that belong to none of the scorers.
    """
    records = [run.record for run in runs]
    names = [record.scorer for record in records]
    known = (JUDGE, *names, *options.trackers)
    for name in options.options:
        if name not in known:
            raise ConfigError(f"unknown option or plugin {name!r}{nearest(name, known)}")
    found = []
    for run, record in zip(runs, records, strict=True):
        name = record.scorer
        scorer = registry.scorer(name)
        if not scorer.judged:
            raise ConfigError(f"{run.path}: {record.benchmark} is scored by {name!r}, which asks no judge")
        replaced = {name: {"reference": reference}} if reference is not None else {}
        tables = merged(record.command.options, options.options, replaced)
        found.append(cast(JudgedScorer, configured(tables, name, scorer)))
    return found


def judgeable(runs: Sequence[Run], registry: Registry) -> tuple[list[Run], list[str]]:
    """Return those of several runs that a judge can be asked about, and a line on what is left out, by reason.

    Where none can be, nothing is left out: what is wrong with the first is then said.
    """
    unfinished = [run for run in runs if not run.finished]
    unasked = [run for run in runs if run not in unfinished and not registry.scorer(run.record.scorer).judged]
    kept = [run for run in runs if run not in unfinished and run not in unasked]
    reasons = {"unfinished": unfinished, "scored without a judge": unasked}
    if not kept:
        return list(runs), []
    return kept, [left_out([run.path for run in those], reason) for reason, those in reasons.items() if those]


def planned_scorer(plan: Plan) -> JudgedScorer | None:
    """Return the scorer of a planned run, or None if it needs no judge; HarnessError for files that it cannot use."""
    if not plan.scorer.judged:
        return None
    scorer = cast(JudgedScorer, plan.scorer)
    with blamed(scorer):
        scorer.inputs(plan.examples[index] for index in plan.selection)
    return scorer


def judge_run(run: Run, scorer: JudgedScorer, judge: Respondent, *, progress: bool = True) -> JudgeOutcome:
    """Ask `judge` what is missing about a finished run, and write its results anew.

    The judge is loaded where something is missing, and is the caller's to close. With `progress` it says on standard
    error how far it is. Raises HarnessError when it cannot go on; the replies that came stay, and the same command goes
    on from there.
    """
    results = run.results  # there are none before the run has finished
    judge.asked_at(run.record.created)
    with JudgementLog(run.path) as log:
        work = _Work(run, scorer, judge, log)
        with blamed(scorer):
            inputs = scorer.inputs(work.examples())
        keys = {asked.request.id: asked.key for asked in work.questions()}  # not of those that cannot be asked
        missing = sum(not log.done(key) for key in keys.values())
        if missing:
            _ask(work, len(keys), missing, progress)
        results, label = _write(work, keys, inputs, results)
    return JudgeOutcome(run, results, label, missing, len(keys) - missing)


def _write(work: _Work, keys: Mapping[str, str], inputs: Mapping[str, Any], results: Results) -> tuple[Results, str]:
    """Write what the replies come to; return `results` with it, and the judge's label in them."""
    run, scorer, judge = work.run, work.scorer, work.judge
    record = run.record
    described = {"scorer": scorer.name, "options": options_of(scorer), "inputs": dict(inputs)}
    label, digest = _label(results, judge, described)
    judged, failed = work.judged(keys)
    warnings = [*(_same_model(record, judge) or _same_family(record, judge))]
    report: Metrics = {}
    repeats = [[each for each in judged if each.sample.repeat == repeat] for repeat in range(record.samples)]
    try:
        with blamed(scorer):
            report = recorded(averaged([scorer.report(record.model, label, each) for each in repeats]))
    except DataError as error:
        warnings.append(str(error))
    facts = {"judge": judge.model, **judge.identity, **described, "digest": digest, "warnings": warnings}
    by, groups_are = msgspec.convert(facts, JudgedBy), record.command.groups_are
    with blamed(scorer):
        results = with_judgements(results, label, scorer, judged, failed, by, groups_are)
    results.metrics[label].update(report)
    write_verdicts(run.path, label, [*map(verdict_of, judged), *(failed_verdict(*each) for each in failed)])
    with blamed(scorer):
        results = with_self_preference(run, results, scorer)
    for repeat, same in enumerate(repeats):
        with blamed(scorer):
            for name, records in scorer.exports(record.model, label, same).items():
                run.write_export(name, records, repeat)
    run.update(RESULTS, results)
    return results, label


@dataclass(frozen=True)
class _Asked:
    sample: Sample
    request: Request
    key: str


@dataclass(frozen=True)
class _Work:
    """What is to be asked about one run; questions are made anew from disk whenever they are needed."""

    run: Run
    scorer: JudgedScorer
    judge: Respondent
    log: JudgementLog

    def samples(self) -> Iterator[Sample]:
        """Yield the samples that can be judged; there is nothing to say about one that the engine failed on."""
        return (sample for sample in self.run.samples() if sample.status != "engine_error")

    def examples(self) -> Iterator[Example]:
        """Yield the examples that samples can be judged of, each once."""
        return (next(same).example() for _, same in groupby(self.samples(), lambda sample: sample.index))

    def questions(self) -> Iterator[_Asked]:
        """Yield what is to be asked; a question that no prompt can be made of is left out."""
        index = 0
        for sample in self.samples():
            for question in questions_of(self.scorer, sample.example(), sample.response):
                with suppress(PromptError):
                    request = _request(self.judge, sample, question, index)
                    yield _Asked(sample, request, _key(self.judge, request))
                index += 1

    def judged(self, keys: Mapping[str, str]) -> tuple[list[Judged], list[tuple[Sample, str]]]:
        """Return what the replies come to, and for samples that a reply is missing of, why."""
        judged: list[Judged] = []
        failed: list[tuple[Sample, str]] = []
        for sample in self.samples():
            asked = questions_of(self.scorer, sample.example(), sample.response)
            names = {question.key: keys.get(_identifier(sample, question.key)) for question in asked}
            known = {name: key for name, key in names.items() if key is not None}
            if len(known) < len(names):
                one: Judged | str = _unasked(self.judge, sample, asked)
            else:
                one = _judged(sample, self.scorer, self.judge, self.log, known)
            if isinstance(one, str):
                failed.append((sample, one))
            else:
                judged.append(one)
        return judged, failed


def judge_sample(sample: Sample, scorer: JudgedScorer, judge: Respondent, model: Model, log: JudgementLog) -> Verdict:
    """Ask a loaded judge what is missing about one response, and return what its replies come to."""
    keys = {}
    for question in questions_of(scorer, sample.example(), sample.response):
        request = _request(judge, sample, question)
        keys[question.key] = _key(judge, request)
        if not log.done(keys[question.key]):
            for reply in model.generate([request]):
                log.append(keys[question.key], judge.name, request.prompt.text, reply)
    judged = _judged(sample, scorer, judge, log, keys)
    return failed_verdict(sample, judged) if isinstance(judged, str) else verdict_of(judged)


def _judged(
    sample: Sample, scorer: JudgedScorer, judge: Respondent, log: JudgementLog, keys: Mapping[str, str]
) -> Judged | str:
    """Return what the replies to a sample's questions come to, or why one is missing; `keys` are theirs in the log."""
    found = log.replies(keys.values())
    clean = judge.format.response
    replies = {
        name: dataclasses.replace(each, text=clean(without_reasoning(each.text)))
        for name, each in zip(keys, found, strict=True)
    }
    for reply in replies.values():
        if reply.error is not None:
            return reply.error
    try:
        judgement = judgement_of(scorer, sample.example(), sample.response, replies)
    except PluginError as error:
        return str(error)
    return Judged(sample, judgement, {name: reply.text for name, reply in replies.items()})


def _unasked(judge: Respondent, sample: Sample, questions: Sequence[JudgeQuestion]) -> str:
    """Return why a question cannot be asked."""
    try:
        for question in questions:
            _request(judge, sample, question)
    except PromptError as error:
        return str(error)
    return "it was not asked"


def _request(judge: Respondent, sample: Sample, question: JudgeQuestion, index: int = 0) -> Request:
    identifier, generation = _identifier(sample, question.key), judge.sampling(question.generation)
    return judge.request(identifier, index, question.instruction, generation, system=question.system)


def _key(judge: Respondent, request: Request) -> str:
    """Return the digest under which the reply is kept: of the judge, the exact prompt and its generation."""
    asked = dataclasses.asdict(request)
    for name in ("repeat", "continuations", "generated"):  # the first stands in the id, the others are not a judge's
        del asked[name]
    return _digest([_identity(judge), {**asked, "generation": described(request.generation), "index": None}])


def _identity(judge: Respondent) -> Mapping[str, Any]:
    """Return what a judge's replies depend on beside what it is asked."""
    return {**judge.identity, "model": without_address(judge.model_identity)}


def _identifier(sample: Sample, question: str) -> str:
    return f"{sample.key}#{question}"


def _ask(work: _Work, total: int, missing: int, shown: bool) -> None:
    """Ask what the journal has no reply to; RunError when the judge stops early."""
    judge = work.judge
    model = judge.loaded()
    left = ((asked, asked.request) for asked in work.questions() if not work.log.done(asked.key))
    started = time.perf_counter()
    title = f"{work.run.record.benchmark}, judged by {judge.name}"
    with Progress(title, total, total - missing, shown=shown) as progress:
        try:
            for asked, request, completion in answered(judge.engine, model, left):
                work.log.append(asked.key, judge.name, request.prompt.text, completion)
                progress.add(completion.completion_tokens or 0)
        finally:  # what was interrupted has taken its time, too
            _record_session(work, time.perf_counter() - started, progress, getattr(model, "notices", ()))
    if progress.added < missing:
        raise RunError(
            f"{work.run.path}: the judge gave {progress.added} of {missing} replies and stopped; "
            "give the same command again to do the rest"
        )


def _record_session(work: _Work, seconds: float, progress: Progress, notices: Sequence[str]) -> None:
    session = {
        "judge": work.judge.name,
        "load_seconds": round(work.judge.loading(), 3),
        "generation_seconds": round(seconds, 3),
        "replies": progress.added,
        "completion_tokens": progress.tokens,
        "notices": list(notices),
        **environment(),
    }
    work.run.add_judging(msgspec.convert(session, JudgingSession))


def _label(results: Results, judge: Respondent, described: Mapping[str, Any]) -> tuple[str, str]:
    """Return the judge's name, made unlike that of another way of judging by it, and the digest of this one."""
    digest = _digest([_identity(judge), described])
    before = results.judged.get(judge.name)
    same = before is None or before.digest == digest
    return (judge.name if same else f"{judge.name}-{digest[:8]}"), digest


def _same_model(record: RunRecord, judge: Respondent) -> Sequence[str]:
    """Say so where the judge is the evaluated model."""
    own, evaluated = judge.model_identity, record.identity.model
    name = record.command.model or record.model
    digests = [identity.get("model_digest") for identity in (own, evaluated)]
    if None not in digests:
        same = digests[0] == digests[1]
    else:
        same = own == evaluated or judge.model == name or _same_path(judge.model, name)
    return [f"the judge is the evaluated model itself ({judge.name}); models prefer their own answers"] if same else []


def _same_family(record: RunRecord, judge: Respondent) -> Sequence[str]:
    """Say so where the judge is of the evaluated model's family."""
    family = family_of(judge.model)
    if family is None or family != family_of(record.command.model or record.model):
        return []
    remedy = "have another family's judge judge too, or give --labels, and it is estimated"
    return [f"the judge is of the evaluated model's family ({family}); models prefer their own answers: {remedy}"]


def _same_path(first: str, second: str) -> bool:
    return Path(first).exists() and Path(first).resolve() == Path(second).resolve()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
