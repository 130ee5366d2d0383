"""The run loop: generate what is missing, parse, score and journal each completion as it finishes, then sum up."""

from __future__ import annotations

import shutil
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.calls import answered, blamed, likelihoods_of, read
from harness.errors import HarnessError, PluginError, PromptError, RunError
from harness.evaluation.contamination import contamination
from harness.evaluation.outputs import disagreeing
from harness.evaluation.plan import Plan
from harness.evaluation.progress import Progress
from harness.evaluation.results import summarise
from harness.files import expanded, make_folder
from harness.interfaces import Model
from harness.parsers import without_reasoning
from harness.runs.environment import environment
from harness.runs.folder import RESULTS, RUN, TIMING, OneRepeat, Run
from harness.runs.journal import Journal
from harness.runs.line_file import cannot_write
from harness.runs.records import Formerly, Results, Session, Timing, as_json
from harness.runs.samples import encode
from harness.runs.selecting import remove
from harness.types import Completion, Example, Likelihood, Prompt, Request, Sample, Scores, Status

#: On so many examples is measured how much room samples take.
_MEASURED = 32


@dataclass(frozen=True)
class Outcome:
    """What became of one benchmark: the run, its results and timing, and how much was new.

    `warnings` say what plugins failed on.
    """

    run: Run
    results: Results
    timing: Timing
    generated: int
    resumed: int
    warnings: tuple[str, ...] = ()


def run(plan: Plan, *, fresh: bool = False, progress: bool = True) -> Outcome:
    """Carry out `plan`, going on with an unfinished run of the same fingerprint unless `fresh`.

    The plan's respondent is loaded where something is missing, and is the caller's to close. With `progress` it says on
    standard error how far it is. Every completion is on disk before the next is looked at. Raises HarnessError when it
    cannot go on; what was finished stays, and the same command goes on from there.
    """
    found = None if fresh else find_run(plan)
    if found is not None and found.record.command.groups_are != plan.options.groups_are:
        found.update(RUN, {"command": plan.command()})  # what the figures alone depend on is the plan's now
    known = contamination(plan)
    if found is None:
        plan.respondent.check()  # before anything is written
        _check_room(plan)
        found = begin_run(plan, {"contamination": known} if known else {})
    elif known is not None:
        found.update(RUN, {"contamination": known})
    plan.respondent.asked_at(found.record.created)
    unread, changed = list[str](), list[str]()
    samples = plan.options.samples
    total = len(plan.selection) * samples
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(found, len(plan.examples), samples))
        asked = ((index, repeat) for index in plan.selection for repeat in range(samples))
        missing = array("q", (index * samples + repeat for index, repeat in asked if not journal.done(index, repeat)))
        resumed = total - len(missing)
        if missing:
            model = plan.respondent.loaded()
            changed = _update_environment(found, resumed)  # now that the engine's hardware is known
            started, load = time.perf_counter(), plan.respondent.loading()
            unit = "examples" if samples == 1 else "samples"
            counted = Progress(plan.benchmark.title, total, resumed, unit=unit, shown=progress)
            stack.enter_context(counted)
            prompt_tokens = 0
            try:
                for sample in _samples(plan, model, missing):
                    journal.append(sample)
                    if sample.error is not None and sample.finish_reason is not None:
                        unread.append(sample.error)
                    counted.add(sample.completion_tokens or 0)
                    prompt_tokens += sample.prompt_tokens or 0
            finally:  # what was interrupted has taken its time, too
                _record_timing(found, load, time.perf_counter() - started, counted, prompt_tokens)
            if notices := [*getattr(model, "notices", ())]:
                found.update(RUN, {"notices": list(dict.fromkeys([*found.record.notices, *notices]))})
        results = finish(plan, found, journal, changed=bool(missing))
    return Outcome(found, results, found.timing, len(missing), resumed, (*changed, *_warnings(unread, found)))


def finish(plan: Plan, found: Run, journal: Journal, *, changed: bool) -> Results:
    """Write results.json and the exports of a run that has all its samples, and return the results.

    `changed` is whether samples are new; where none are, what judges have said since is kept.
    """
    names, groups_are, samples = [parser.name for parser in plan.parsers], plan.options.groups_are, plan.options.samples
    results = summarise(plan.benchmark.name, plan.scorer, journal.samples(), names, groups_are, samples)
    if results.n < (total := len(plan.selection) * samples):
        raise RunError(
            f"{found.path}: the engine gave {results.n} of {total} results and stopped; "
            "give the same command again to do the rest"
        )
    broken: PluginError | None = None
    try:
        for repeat in range(samples):
            with blamed(plan.benchmark):
                whole = Run(found.path, summed_up=False)
                one = whole if samples == 1 else OneRepeat(whole, repeat)
                for name, records in plan.benchmark.exports(one).items():
                    found.write_export(name, records, repeat)
    except PluginError as error:  # no figure is lost with an export
        broken = error
    if plan.scorer.judged and not changed and found.finished:
        results = found.results  # with what judges said since
    else:
        found.write(RESULTS, results)  # last: a run that has it is whole
    if broken is not None:
        raise broken
    return results


def _check_room(plan: Plan) -> None:
    """Raise RunError where the disk has no room for the samples, which take what is asked and more: their outputs.

    What is asked is measured on a few examples.
    """
    count = len(plan.selection)
    measured = plan.selection[:: -(-count // _MEASURED)]
    sizes = []
    for index in measured:
        with suppress(PromptError):
            example, request = plan.request(index)
            sizes.append(len(encode(make_sample(plan, example, request, Completion(example.id, "", None, error="")))))
    needed = sum(sizes) * count * plan.options.samples // max(1, len(sizes))
    folder = next(path for path in (_parent(plan), *_parent(plan).resolve().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        what = f"{count * plan.options.samples:,} samples take at least {needed / 1e9:.3g} GB"
        remedy = "free some space, ask for fewer samples, give a --limit, or choose another --out folder"
        raise RunError(f"{what}, and {folder} has room for {free / 1e9:.3g} GB; {remedy}")


def _warnings(unread: Sequence[str], found: Run) -> Iterator[str]:
    """Say what plugins raised where they were to read or score an output."""
    if unread:
        more = f" (and {len(unread) - 1:,} more)" if len(unread) > 1 else ""
        yield f"{unread[0]}{more}; the output is kept: harness score {found.path} reads it again"


def _update_environment(run: Run, done: int) -> list[str]:
    """Record what the samples from now on are made with, and what the `done` ones were; say so where that differs."""
    now, record = environment(), run.record
    before, versions = record.versions, now.get("versions", {})
    if not done or before == versions:
        run.update(RUN, now)
        return []
    former = [*record.formerly, Formerly(versions=before, samples=done - sum(each.samples for each in record.formerly))]
    run.update(RUN, {**now, "formerly": [as_json(each) for each in former]})
    names = [name for name in {**before, **versions} if before.get(name) != versions.get(name)]
    changes = ", ".join(f"{name} {before.get(name, 'none')}, now {versions.get(name, 'none')}" for name in names)
    return [f"the first {done:,} samples were made with {changes}"]


def find_run(plan: Plan) -> Run | None:
    """Return the latest run with the plan's fingerprint, None where there is none.

    Raises RunError where the folder that is named for it holds another.
    """
    if plan.options.run_dir is not None:
        return _find_in(expanded(plan.options.run_dir), plan)
    for path in sorted(_parent(plan).glob(f"*-{plan.fingerprint[:8]}"), reverse=True):
        found = Run(path)
        if (path / RUN).exists() and found.record.fingerprint == plan.fingerprint:
            return found
    return None


def begin_run(plan: Plan, more: Mapping[str, Any] | None = None) -> Run:
    """Return a new run with its run.json, and `more` in it, written; no process sees the folder before that."""
    parent = _parent(plan)
    created = datetime.now(UTC)
    named = plan.options.run_dir
    content = {**plan.record(), "created": created.isoformat(timespec="seconds"), **environment(), **(more or {})}
    for suffix in ("", *(f".{n}" for n in range(1, 1000))):
        path = parent / f"{created:%Y%m%dT%H%M%SZ}{suffix}-{plan.fingerprint[:8]}"
        if named is not None:
            path = _emptied(plan, expanded(named))
        try:
            if make_folder(path, lambda aside: Run(aside).write(RUN, content)):
                return Run(path)
        except OSError as error:
            raise cannot_write(path, error) from error
        if named is not None:
            raise RunError(f"{path} is there already and no run; name another --run-dir")
    raise RunError(f"too many runs began in {parent} within this second")


def _find_in(path: Path, plan: Plan) -> Run | None:
    if not (path / RUN).exists():
        return None
    found = Run(path)
    if found.record.fingerprint == plan.fingerprint:
        return found
    if not plan.options.replace:
        raise _taken(path, "a run with other options, of another model or of other data")
    return None


def _taken(path: Path, by: str) -> RunError:
    return RunError(f"{path} is {by}; name another --run-dir, or give --replace to put this one in its place")


def _emptied(plan: Plan, path: Path) -> Path:
    """Return the folder that is named for a run, without the run that is to make way, or the nothing, that is there."""
    if (path / RUN).exists():
        if not plan.options.replace:
            raise _taken(path, "a run already")
        remove(path)
    with suppress(OSError):  # one with files in it stays
        path.rmdir()
    return path


def _parent(plan: Plan) -> Path:
    if plan.options.run_dir is not None:
        return expanded(plan.options.run_dir).parent
    return expanded(plan.options.out) / plan.benchmark.name / plan.respondent.name


def _samples(plan: Plan, model: Model, missing: Sequence[int]) -> Iterator[Sample]:
    """Yield a scored sample for each completion, and a failed one for each request that no prompt can be made of.

    An example that is `missing` at several positions has its prompt made once.
    """
    failed: list[Sample] = []
    samples = plan.options.samples

    def requests() -> Iterator[tuple[Example, Request]]:
        for index, positions in groupby(missing, lambda position: position // samples):
            problem = None
            try:
                example, first = plan.request(index)
            except PromptError as error:
                problem, example = str(error), plan.examples[index]
                first = Request(example.id, Prompt(""), plan.generation, index)
            for position in positions:
                request = plan.repeated(first, position % samples)
                if problem is None:
                    yield example, request
                else:
                    completion = Completion(request.id, "", None, error=problem)
                    failed.append(make_sample(plan, example, request, completion))

    for example, request, completion in answered(plan.respondent.engine, model, requests()):
        yield make_sample(plan, example, request, completion)
        while failed:
            yield failed.pop()
    yield from failed


def make_sample(plan: Plan, example: Example, request: Request, completion: Completion) -> Sample:
    """Parse and score one completion. What a plugin fails on is a failed sample, which keeps its output."""
    answers: dict[str, str | None] = {}
    scores: dict[str, Scores] = {}
    error = completion.error
    likelihoods: tuple[Likelihood, ...] = ()
    if error is None:
        try:
            likelihoods = likelihoods_of(request, completion)
            answers, scores = read(plan.parsers, plan.scorer, completion.text, example, likelihoods)
        except HarnessError as unread:
            error = str(unread)
    status: Status = "ok" if error is None else "engine_error"
    if error is None and plan.parsers and answers[plan.parsers[0].name] is None:
        status = "unparsed"
    return Sample(
        id=example.id,
        index=request.index,
        group=example.group,
        fields=example.fields,
        prompt=request.prompt.text,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        output=completion.text,
        finish_reason=completion.finish_reason,
        answers=answers,
        gold=example.gold,
        scores=scores,
        status=status,
        error=error,
        seconds=None if completion.seconds is None else round(completion.seconds, 4),
        category=example.category,
        response=plan.respondent.format.response(without_reasoning(completion.text)),
        disagreeing=() if error is not None else disagreeing(plan.parsers, completion.text, example),
        repeat=request.repeat,
        likelihoods=likelihoods,
        thought_tokens=completion.thought_tokens or None,
    )


def _record_timing(run: Run, load: float, generation: float, progress: Progress, prompt_tokens: int) -> None:
    """Add this session to timing.json, which is apart from results.json since no two runs take the same time."""
    session = Session(
        load_seconds=round(load, 3),
        generation_seconds=round(generation, 3),
        examples=progress.added,
        prompt_tokens=prompt_tokens,
        completion_tokens=progress.tokens,
    )
    sessions = [*run.timing.sessions, session]
    seconds = sum(each.generation_seconds for each in sessions)

    def rate(count: int) -> float | None:
        return round(count / seconds, 6) if seconds else None

    timing = Timing(
        load_seconds=round(sum(each.load_seconds for each in sessions), 3),
        generation_seconds=round(seconds, 3),
        examples_per_second=rate(sum(each.examples for each in sessions)),
        prompt_tokens_per_second=rate(sum(each.prompt_tokens for each in sessions)),
        completion_tokens_per_second=rate(sum(each.completion_tokens for each in sessions)),
        sessions=sessions,
    )
    run.write(TIMING, timing)
