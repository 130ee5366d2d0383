"""How each run was made, and the command that makes it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.reports.html.survey import Survey
from harness.reports.html.tables import each_run, hardware
from harness.runs.records import Git, Results, RunRecord, Timing

#: Flags of `harness run` by the option in run.json, in the order in which people give them.
_FLAGS = {
    "model": "--model", "prompt_format": "--prompt-format", "data": "--data", "out": "--out", "limit": "--limit",
    "system": "--system", "template": "--template",
    "judge_model": "--judge", "judge_engine": "--judge-engine", "judge_prompt_format": "--judge-prompt-format",
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """How one run was made: what readers ask first, all `facts` by name, data files with digests, and the command."""

    benchmark: str
    label: str
    series: int
    values: Sequence[str]
    facts: Sequence[tuple[str, str]]
    data: Sequence[tuple[str, str, str]]
    command: str


def provenance(survey: Survey) -> list[Made]:
    """Return how each run was made."""
    return [
        Made(
            title,
            label,
            place,
            _brief(run.record),
            [
                (name, value)
                for name, value in (*_facts(run.record, str(run.path)), *_judges(run.results, run.timing))
                if value
            ],
            [(file.name, file.sha256, file.revision or "") for file in run.record.data],
            command(run.record),
        )
        for title, label, place, run in each_run(survey)
    ]


def _brief(record: RunRecord) -> list[str]:
    """Return prompt format, examples, version, commit and date."""
    git = record.git
    return [
        record.prompt_format.name,
        _examples(record),
        record.harness or "–",
        f"{git.commit[:8]}{' +' if git.dirty else ''}" if git is not None else "–",
        (record.created or "–")[:16].replace("T", " "),
    ]


def _examples(record: RunRecord) -> str:
    total = record.selected if record.examples is None else record.examples
    several = f", {record.samples} samples of each" if record.samples > 1 else ""
    return f"{record.selected:,} of {total:,}{several}"


def command(record: RunRecord) -> str:
    """Return the command that makes a run again, from what its run.json says."""
    given = record.command
    benchmark = next(iter(given.benchmark), record.benchmark)  # of a prompt file, the record has the stem alone
    words = ["harness", "run", "--benchmark", benchmark, "--engine", record.engine]
    for name, flag in _FLAGS.items():
        value = getattr(given, name)
        if value not in (None, "") and not (name == "judge_engine" and given.judge_model is None):
            words += [flag, str(value)]
    if given.limit is not None:
        words += ["--seed", str(given.seed)]
    if given.samples > 1:
        words += ["--samples", str(given.samples)]
    if given.scoring != "generated":
        words += ["--scoring", given.scoring]
    for key, value in (("parsers", given.parsers), ("scorer", given.scorer)):
        words += ["--set", f"{key}={json.dumps(value)}"] if value else []
    for key, value in _flat(given.options):
        words += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]
    return shlex.join(words)


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, value


def _facts(record: RunRecord, path: str) -> Iterator[tuple[str, str]]:
    identity, chosen = record.identity, record.prompt_format
    yield "run", path
    yield "model", record.command.model or record.model
    yield "model's identity", _pairs(identity.model)
    yield "engine", record.engine
    yield "prompt format", " · ".join(each for each in (chosen.name, chosen.reason) if each)
    yield "said about prompts", _pairs(identity.prompt_format.options)
    yield "prompt format's digest", identity.prompt_format.digest
    yield "chat template's digest", identity.chat_template or ""
    yield "sampling", _pairs(identity.generation)
    yield "benchmark's options", _pairs(identity.benchmark_options)
    yield "parsers and scorer", ", ".join(name for name in [*record.parsers, record.scorer] if name)
    yield "examples", _examples(record)
    yield "examples' digest", identity.examples
    yield "hardware", " · ".join([hardware(record.hardware), record.hardware.platform])
    yield "versions", _pairs(record.versions)
    yield "sent otherwise than asked", "; ".join(record.notices)
    for each in record.formerly:
        changed = {name: value for name, value in each.versions.items() if record.versions.get(name) != value}
        yield f"versions of {each.samples:,} samples, before it was resumed", _pairs(changed)
    yield "git", _git(record.git)
    yield "made", record.created
    yield "fingerprint", record.fingerprint


def _judges(results: Results, timing: Timing) -> Iterator[tuple[str, str]]:
    """Yield who judged, and how."""
    for judge in dict.fromkeys(session.judge for session in timing.judging):
        notices = [notice for session in timing.judging if session.judge == judge for notice in session.notices]
        yield f"judge {judge}, sent otherwise than asked", "; ".join(dict.fromkeys(notices))
    for label, said in results.judged.items():
        who = {"judge": said.judge, "engine": said.engine, "scorer": said.scorer, "digest": said.digest}
        yield f"judge {label}", _pairs({name: value or None for name, value in who.items()})
        yield f"judge {label}, model", _pairs(said.model)
        yield (
            f"judge {label}, prompt format",
            _pairs({"name": said.prompt_format.name, "digest": said.prompt_format.digest}),
        )
        yield f"judge {label}, options", _pairs(said.options)


def _git(state: Git | None) -> str:
    if state is None:
        return "no repository"
    return f"{state.commit}{' with changes that are not committed' if state.dirty else ''}"


def _pairs(values: Mapping[str, Any]) -> str:
    """Return a table of options in one line."""
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if value is not None and value != []
    )
