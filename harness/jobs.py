"""What takes long: evaluating, judging, importing. Each is checked as a whole when it is made, then carried out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError, RunError
from harness.registry import Registry
from harness.runs.folder import Run

if TYPE_CHECKING:
    from harness.evaluation.plan import RunOptions
    from harness.evaluation.runner import Outcome
    from harness.interfaces import JudgedScorer


@dataclass(frozen=True)
class Finished:
    """A benchmark that is done, the one at `position` among those asked for.

    `failed` counts samples or judgements that are missing; `warnings` say what went wrong beside it, `notes` what else
    is to be known.
    """

    position: int
    title: str
    run: Run
    failed: int
    warnings: Sequence[str] = ()
    timed: bool = True
    notes: Sequence[str] = ()

    def summary(self, *, groups: bool = False) -> str:
        """Return the closing table; with `groups` the figures of every group, however many there are."""
        from harness.reports.summary import contaminated, summary
        from harness.runs.records import Timing

        timing = self.run.timing if self.timed else Timing()
        notes = [*self.notes, *contaminated(self.run)]
        return summary(self.title, self.run.results, timing, str(self.run.path), groups=groups, notes=notes)


class Evaluation:
    """An evaluation that everything has been checked of but the weights; HarnessError for what does not fit.

    `warnings` say what is to be known before it is carried out.
    """

    def __init__(self, options: RunOptions, registry: Registry) -> None:
        # Prompts are encoded one by one: threads only get in the way.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from harness.evaluation.plan import make_plans
        from harness.judging.judging import make_judge, planned_scorer
        from harness.trackers.libraries import configured_trackers

        self.plans = make_plans(options, registry)
        options = self.plans[0].options  # without what a run file says of other benchmarks
        self.respondent = self.plans[0].respondent
        self.trackers = configured_trackers(options.trackers, options.options, registry)
        self.judge = make_judge(options, registry) if options.judge_model is not None else None
        self._scorers = [planned_scorer(plan) if self.judge is not None else None for plan in self.plans]
        said = self.judge.choice.warnings if self.judge is not None else ()
        self.warnings: Sequence[str] = [*self.respondent.choice.warnings, *said]

    def describe(self) -> str:
        """Return what would be done, a fact a line; ModelError where the model or the judge cannot be asked."""
        from harness.reports.preview import describe as describe_plan

        self._check()
        lines = [describe_plan(plan) for plan in self.plans]
        if self.judge is not None:
            lines.append(f"judge          {self.judge.model} · {self.judge.engine.name} · {self.judge.format.name}")
        return "\n".join(lines)

    def sized(self, there: str) -> str:
        """Return what the model takes of a cluster of GPUs (``16x80``: so many, of so many GiB), by benchmark.

        Raises ConfigError for another form, ModelError where the model fits on no machine of the kind.
        """
        from harness.evaluation.sizing import described, hardware, size

        cluster = hardware(there)
        parts = [f"{plan.title}\n{described(size(plan, cluster), plan.benchmark.name)}" for plan in self.plans]
        return "\n\n".join(parts)

    def preview(self, index: int) -> str:
        """Return the exact prompt of the first benchmark's example at `index`, counted from 0 or from the end."""
        from harness.reports.preview import preview

        plan = self.plans[0]
        count = len(plan.examples)
        if not -count <= index < count:
            raise ConfigError(f"--index {index}: {plan.benchmark.name} has {count} examples, counted from 0")
        return preview(plan, index % count)

    def carry_out(self, *, fresh: bool = False, progress: bool = True) -> Iterator[Finished]:
        """Yield each benchmark as it is done; those that a judge is asked about after the model has been freed."""
        from harness.evaluation.runner import find_run
        from harness.evaluation.runner import run as run_plan

        if fresh or any(find_run(plan) is None for plan in self.plans):
            self._check()
        judged: list[tuple[int, JudgedScorer, Outcome]] = []
        with self.respondent:
            for position, (plan, scorer) in enumerate(zip(self.plans, self._scorers, strict=True)):
                outcome = run_plan(plan, fresh=fresh, progress=progress)
                if scorer is not None:
                    judged.append((position, scorer, outcome))
                    continue
                warnings = [*outcome.warnings, *self._track(outcome.run)]
                yield Finished(position, plan.title, outcome.run, outcome.results.failed.count, warnings)
        if self.judge is None:
            return
        from harness.judging.judging import judge_run

        with self.judge:
            for position, scorer, outcome in judged:
                found = judge_run(outcome.run, scorer, self.judge, progress=progress)
                failed = outcome.results.failed.count + found.results.judged[found.label].failed.count
                warnings = [*outcome.warnings, *self._track(outcome.run)]
                yield Finished(position, self.plans[position].title, outcome.run, failed, warnings)

    def _track(self, run: Run) -> Sequence[str]:
        from harness.evaluation.tracking import track

        return list(track(self.trackers, run))

    def _check(self) -> None:
        """Raise ModelError, before anything is written, where the model or the judge cannot be asked."""
        self.respondent.check()
        if self.judge is not None:
            self.judge.check()


class Importing:
    """Runs that are to be made of recorded outputs, all of them read, checked and paired with their examples."""

    def __init__(
        self,
        files: Sequence[Path],
        options: RunOptions,
        registry: Registry,
        *,
        form: str | None = None,
        fields: Mapping[str, str],
    ) -> None:
        from harness.evaluation.importing import make_imports

        self.imports = make_imports(files, options, registry, form=form, fields=fields)

    def carry_out(self, *, progress: bool = True) -> Iterator[Finished]:
        """Yield each run as it has been written."""
        from harness.reports.beside_source import beside_source_of

        for position, one in enumerate(self.imports):
            run, added = one.carry_out(progress=progress)
            said = one.paired if added else "imported before: nothing is new"
            beside = beside_source_of(run)
            notes = () if beside is None else (beside.sentence(),)
            yield Finished(position, f"{one.title} · {said}", run, run.results.failed.count, timed=False, notes=notes)


class Judging:
    """Finished runs that are to be judged, or whose judges are to be compared with people, everything checked."""

    def __init__(
        self, runs: Sequence[Run], options: RunOptions, registry: Registry, *, reference: str | Path | None = None
    ) -> None:
        from harness.judging.judging import judged_scorers, make_judge
        from harness.trackers.libraries import configured_trackers

        self.runs = runs
        self._scorers = judged_scorers(runs, options, None if reference is None else str(reference), registry)
        self.trackers = configured_trackers(options.trackers, options.options, registry)
        self.judge = make_judge(options, registry) if options.judge_model is not None else None
        self.warnings: Sequence[str] = self.judge.choice.warnings if self.judge is not None else ()

    def carry_out(self, *, progress: bool = True) -> Iterator[Finished]:
        """Yield each run as it has been judged."""
        from harness.evaluation.tracking import track
        from harness.judging.judging import judge_run
        from harness.reports.summary import benchmark_title

        if self.judge is None:
            raise ConfigError("no judge given: --judge MODEL")
        with self.judge:
            for position, (run, scorer) in enumerate(zip(self.runs, self._scorers, strict=True)):
                found = judge_run(run, scorer, self.judge, progress=progress)
                title = f"{benchmark_title(run.record.benchmark)} · {run.model} · judged by {found.label}"
                failed = found.results.judged[found.label].failed.count
                yield Finished(position, title, run, failed, list(track(self.trackers, run)), timed=False)

    def agreement(self, labels: str | Path) -> Iterator[str]:
        """Yield, for each run, how far its judges agree with people's labels in a file; RunError for one not judged."""
        from harness.judging.agreement import agreement, read_labels
        from harness.judging.self_preference import verdict_scores
        from harness.reports.agreement import agreement_text
        from harness.runs.judgements import read_verdicts

        for run, scorer in zip(self.runs, self._scorers, strict=True):
            judges, words = run.results.judged, scorer.verdicts
            if not judges:
                raise RunError(f"{run.path} has not been judged yet: harness judge {run.path} --judge MODEL")
            known = read_labels(Path(labels), words, [sample.key for sample in run.samples()])
            scores = verdict_scores(scorer, run)
            found = {name: agreement(read_verdicts(run.path, name), known, scores) for name in judges}
            yield "\n".join(agreement_text(name, each, words) for name, each in found.items())
