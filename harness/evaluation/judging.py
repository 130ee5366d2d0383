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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from harness.config import merged, options_of
from harness.errors import ConfigError, DataError, RunError, nearest
from harness.evaluation.journal import RESULTS, TIMING, RunFolder
from harness.evaluation.judgements import JudgementLog, Verdict, failed_verdict, verdict_of, write_verdicts
from harness.evaluation.options import run_options
from harness.evaluation.plan import (
    JUDGE,
    Plan,
    RunOptions,
    chat_template_digest,
    choose_engine,
    configured,
    model_name,
)
from harness.evaluation.progress import Progress
from harness.evaluation.provenance import environment
from harness.evaluation.results import as_json, with_judgements
from harness.evaluation.runner import LoadOnce
from harness.interfaces import Engine, JudgedScorer, Model, Tokenizer
from harness.prompts import Choice, choose_format
from harness.registry import Registry
from harness.types import Judged, JudgeQuestion, Request, Sample


@dataclass(frozen=True)
class Judge:
    """A model that judges: how it is run, how it is asked, and all that its replies depend on beside the questions."""

    model: str
    engine: Engine
    tokenizer: Tokenizer | None
    choice: Choice
    identity: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The judge as results and files name it."""
        return model_name(self.model)

    def request(self, identifier: str, index: int, question: JudgeQuestion) -> Request:
        """Return the request that asks `question`."""
        prompt = self.choice.format.render(question.instruction, self.tokenizer, question.system)
        stop = tuple(dict.fromkeys((*question.generation.stop, *self.choice.format.stop)))
        return Request(identifier, prompt, dataclasses.replace(question.generation, stop=stop), index)

    def key(self, request: Request) -> str:
        """Return the digest under which the reply is kept: of the judge, the exact prompt and its generation."""
        return _digest([self.identity, {**dataclasses.asdict(request), "index": None}])


@dataclass(frozen=True)
class JudgeOutcome:
    """What became of judging one run: its results, the judge's label in them, and how many replies were new."""

    folder: RunFolder
    results: dict[str, Any]
    label: str
    asked: int
    resumed: int


def make_judge(options: RunOptions, registry: Registry) -> Judge:
    """Return the judge that `options` name, its weights not loaded.

    Raises HarnessError where its engine cannot run here, or model, options or prompt format do not fit.
    """
    model = options.judge_model
    if not model:
        raise ConfigError("no judge given: --judge MODEL")
    table = options.options.get(JUDGE, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"options of the judge's engine are given as {JUDGE}.OPTION=VALUE, not {JUDGE}={table}")
    tables = {plugin.name: table for plugin in registry.plugins("engines")}
    engine, _ = choose_engine(RunOptions(model=model, engine=options.judge_engine, options=tables), registry)
    tokenizer = engine.tokenizer(model)
    choice = choose_format(
        model, options.judge_prompt_format, tokenizer, applies_chat_template=engine.applies_chat_template
    )
    identity = {
        "engine": engine.name,
        "model": dict(engine.identity(model)),
        "prompt_format": {"name": choice.format.name, "digest": choice.format.digest},
        "chat_template": chat_template_digest(choice, tokenizer),
    }
    return Judge(model, engine, tokenizer, choice, identity)


def judging_options(pairs: Sequence[str], flags: Mapping[str, Any]) -> RunOptions:
    """Return what `harness judge` was given; ConfigError for options that belong to a run."""
    options = run_options(pairs=pairs, flags=flags)
    for field in dataclasses.fields(RunOptions):
        of_run = not field.name.startswith(JUDGE) and field.name not in ("trackers", "options")
        if of_run and getattr(options, field.name) != getattr(RunOptions(), field.name):
            raise ConfigError(f"--set {field.name}: an option of `harness run`; the outputs are there already")
    return options


def judged_scorers(
    folders: Sequence[RunFolder], options: RunOptions, reference: str | None, registry: Registry
) -> list[JudgedScorer]:
    """Return the scorer of each run, with the options of the run and, over them, those in `options`.

    Raises ConfigError for a run that needs no judge, and for options that belong to none of the scorers.
    """
    names = [folder.config["scorer"] for folder in folders]
    known = (JUDGE, *names, *options.trackers)
    for name in options.options:
        if name not in known:
            raise ConfigError(f"unknown option or plugin {name!r}{nearest(name, known)}")
    found = []
    for folder, name in zip(folders, names, strict=True):
        scorer = registry.get("scorers", name)
        if not scorer.judged:
            raise ConfigError(f"{folder.path}: {folder.config['benchmark']} is scored by {name!r}, which asks no judge")
        replaced = {name: {"reference": reference}} if reference is not None else {}
        tables = merged(folder.config["command"].get("options", {}), options.options, replaced)
        found.append(cast(JudgedScorer, configured(tables, name, scorer)))
    return found


def planned_scorer(plan: Plan) -> JudgedScorer | None:
    """Return the scorer of a planned run, or None if it needs no judge; HarnessError for files that it cannot use."""
    if not plan.scorer.judged:
        return None
    scorer = cast(JudgedScorer, plan.scorer)
    scorer.inputs(plan.examples[index] for index in plan.selection)
    return scorer


def judge_run(folder: RunFolder, scorer: JudgedScorer, judge: Judge, models: LoadOnce) -> JudgeOutcome:
    """Ask `judge` what is missing about the finished run in `folder`, and write its results anew.

    Raises HarnessError when it cannot go on; the replies that came stay, and the same command goes on from there.
    """
    results = folder.results  # there are none before the run has finished
    with JudgementLog(folder) as log:
        work = _Work(folder, scorer, judge, log)
        inputs = scorer.inputs(sample.example() for sample in work.samples())
        keys = {asked.request.id: asked.key for asked in work.questions()}
        missing = sum(not log.done(key) for key in keys.values())
        if missing:
            _ask(work, models, len(keys), missing)
        results, label = _write(work, keys, inputs, results)
    return JudgeOutcome(folder, results, label, missing, len(keys) - missing)


def _write(
    work: _Work, keys: Mapping[str, str], inputs: Mapping[str, Any], results: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Write what the replies come to; return `results` with it, and the judge's label in them."""
    folder, scorer, judge = work.folder, work.scorer, work.judge
    described = {"scorer": scorer.name, "options": options_of(scorer), "inputs": dict(inputs)}
    label, digest = _label(results, judge, described)
    judged, failed = work.judged(keys)
    warnings = [*_same_model(folder.config, judge)]
    report: Mapping[str, Any] = {}
    try:
        report = as_json(scorer.report(folder.model, label, judged))
    except DataError as error:
        warnings.append(str(error))
    facts = {"judge": judge.model, **judge.identity, **described, "digest": digest, "warnings": warnings}
    results = with_judgements(results, label, scorer, judged, list(failed), facts)
    results["metrics"][label].update(report)
    write_verdicts(folder, label, judged, failed)
    for name, records in scorer.exports(folder.model, label, judged).items():
        folder.write_export(name, records)
    folder.write(RESULTS, results)
    return results, label


@dataclass(frozen=True)
class _Asked:
    sample: Sample
    request: Request
    key: str


@dataclass(frozen=True)
class _Work:
    """What is to be asked about one run; questions are made anew from disk whenever they are needed."""

    folder: RunFolder
    scorer: JudgedScorer
    judge: Judge
    log: JudgementLog

    def samples(self) -> Iterator[Sample]:
        """Yield the samples that can be judged; there is nothing to say about one that the engine failed on."""
        return (sample for sample in self.folder.samples() if sample.status != "engine_error")

    def questions(self) -> Iterator[_Asked]:
        index = 0
        for sample in self.samples():
            for question in self.scorer.questions(sample.example(), sample.response):
                request = self.judge.request(_identifier(sample, question.key), index, question)
                yield _Asked(sample, request, self.judge.key(request))
                index += 1

    def judged(self, keys: Mapping[str, str]) -> tuple[list[Judged], dict[str, str]]:
        """Return what the replies come to, and for samples that a reply is missing of, why."""
        judged: list[Judged] = []
        failed: dict[str, str] = {}
        for sample in self.samples():
            names = [question.key for question in self.scorer.questions(sample.example(), sample.response)]
            one = _judged(sample, self.scorer, self.judge, self.log, {n: keys[_identifier(sample, n)] for n in names})
            if isinstance(one, str):
                failed[sample.id] = one
            else:
                judged.append(one)
        return judged, failed


def judge_sample(sample: Sample, scorer: JudgedScorer, judge: Judge, model: Model, log: JudgementLog) -> Verdict:
    """Ask a loaded judge what is missing about one response, and return what its replies come to."""
    keys = {}
    for question in scorer.questions(sample.example(), sample.response):
        request = judge.request(_identifier(sample, question.key), 0, question)
        keys[question.key] = judge.key(request)
        if not log.done(keys[question.key]):
            for reply in model.generate([request]):
                log.append(keys[question.key], judge.name, request.prompt.text, reply)
    judged = _judged(sample, scorer, judge, log, keys)
    return failed_verdict(sample.id, judged) if isinstance(judged, str) else verdict_of(judged)


def _judged(
    sample: Sample, scorer: JudgedScorer, judge: Judge, log: JudgementLog, keys: Mapping[str, str]
) -> Judged | str:
    """Return what the replies to a sample's questions come to, or why one is missing; `keys` are theirs in the log."""
    found = log.replies(keys.values())
    clean = judge.choice.format.response
    replies = {name: dataclasses.replace(each, text=clean(each.text)) for name, each in zip(keys, found, strict=True)}
    for reply in replies.values():
        if reply.error is not None:
            return reply.error
    judgement = scorer.judgement(sample.example(), sample.response, replies)
    return Judged(sample, judgement, {name: reply.text for name, reply in replies.items()})


def _identifier(sample: Sample, question: str) -> str:
    return f"{sample.id}#{question}"


def _ask(work: _Work, models: LoadOnce, total: int, missing: int) -> None:
    """Ask what the journal has no reply to; RunError when the judge stops early."""
    judge, waiting = work.judge, dict[str, _Asked]()
    model = models.get(judge.engine, judge.model)

    def requests() -> Iterator[Request]:
        for asked in work.questions():
            if not work.log.done(asked.key):
                waiting[asked.request.id] = asked
                yield asked.request

    started = time.perf_counter()
    with Progress(f"{work.folder.config['benchmark']}, judged by {judge.name}", total, total - missing) as progress:
        for completion in model.generate(requests()):
            asked = waiting.pop(completion.id)
            work.log.append(asked.key, judge.name, asked.request.prompt.text, completion)
            progress.add(completion.completion_tokens or 0)
    if progress.added < missing:
        raise RunError(
            f"{work.folder.path}: the judge gave {progress.added} of {missing} replies and stopped; "
            "give the same command again to do the rest"
        )
    session = {
        "judge": judge.name,
        "load_seconds": round(models.seconds, 3),
        "generation_seconds": round(time.perf_counter() - started, 3),
        "replies": progress.added,
        "completion_tokens": progress.tokens,
        **environment(),
    }
    timing = work.folder.timing
    work.folder.write(TIMING, {**timing, "judging": [*timing.get("judging", []), session]})


def _label(results: Mapping[str, Any], judge: Judge, described: Mapping[str, Any]) -> tuple[str, str]:
    """Return the judge's name, made unlike that of another way of judging by it, and the digest of this one."""
    digest = _digest([judge.identity, described])
    before = results.get("judges", {}).get(judge.name)
    same = before is None or before.get("digest") == digest
    return (judge.name if same else f"{judge.name}-{digest[:8]}"), digest


def _same_model(config: Mapping[str, Any], judge: Judge) -> Sequence[str]:
    """Say so where the judge is the evaluated model."""
    own, evaluated = judge.identity["model"], config["identity"].get("model", {})
    name = config["command"].get("model", config["model"])
    digests = [identity.get("model_digest") for identity in (own, evaluated)]
    if None not in digests:
        same = digests[0] == digests[1]
    else:
        same = own == evaluated or judge.model == name or _same_path(judge.model, name)
    return [f"the judge is the evaluated model itself ({judge.name}); models prefer their own answers"] if same else []


def _same_path(first: str, second: str) -> bool:
    return Path(first).exists() and Path(first).resolve() == Path(second).resolve()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
