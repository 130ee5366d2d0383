"""How each run was made, and the command that makes it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.reports.html.survey import Survey
from harness.reports.html.tables import each_run, hardware

#: Flags of `harness run` by the option in run.json, in the order in which people give them.
_FLAGS = {
    "model": "--model", "prompt_format": "--prompt-format", "data": "--data", "out": "--out", "limit": "--limit",
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
            _brief(run.config),
            [
                (name, value)
                for name, value in (*_facts(run.config, str(run.folder.path)), *_judges(run.results or {}))
                if value
            ],
            [
                (str(file["name"]), str(file["sha256"]), str(file.get("revision") or ""))
                for file in run.config.get("data", [])
            ],
            command(run.config),
        )
        for title, label, place, run in each_run(survey)
    ]


def _brief(config: Mapping[str, Any]) -> list[str]:
    """Return prompt format, examples, version, commit and date."""
    git = config.get("git") or {}
    return [
        str(config["prompt_format"].get("name")),
        f"{config['selected']:,} of {config.get('examples', config['selected']):,}",
        str(config.get("harness") or "–"),
        f"{str(git.get('commit'))[:8]}{' +' if git.get('dirty') else ''}" if git else "–",
        str(config.get("created") or "–")[:16].replace("T", " "),
    ]


def command(config: Mapping[str, Any]) -> str:
    """Return the command that makes a run again, from what its run.json says."""
    given = dict(config.get("command", {}))
    benchmark = (given.get("benchmark") or [config["benchmark"]])[0]  # of a prompt file, config has the stem alone
    words = ["harness", "run", "--benchmark", str(benchmark), "--engine", str(config["engine"])]
    if given.get("judge_model") is None:
        given.pop("judge_engine", None)
    for name, flag in _FLAGS.items():
        if given.get(name) is not None:
            words += [flag, str(given[name])]
    if given.get("limit") is not None:
        words += ["--seed", str(given.get("seed", 0))]
    for key, value in _flat(given.get("options", {})):
        words += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]
    return shlex.join(words)


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, value


def _facts(config: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    identity, chosen = config["identity"], config["prompt_format"]
    yield "run", path
    yield "model", str(config.get("command", {}).get("model") or config["model"])
    yield "model's identity", _pairs(identity.get("model"))
    yield "engine", str(config["engine"])
    yield "prompt format", " · ".join(str(chosen[key]) for key in ("name", "reason") if chosen.get(key))
    yield "prompt format's digest", str((identity.get("prompt_format") or {}).get("digest") or "")
    yield "chat template's digest", str(identity.get("chat_template") or "")
    yield "sampling", _pairs(identity.get("generation"))
    yield (
        "benchmark's options",
        _pairs(
            {
                key: value
                for key, value in (identity.get("benchmark") or {}).items()
                if key not in ("name", "generation")
            }
        ),
    )
    yield "parsers and scorer", ", ".join(str(name) for name in [*config["parsers"], config.get("scorer")] if name)
    yield "examples", f"{config['selected']:,} of {config.get('examples', config['selected']):,}"
    yield "examples' digest", str(identity.get("examples") or "")
    yield "hardware", " · ".join([hardware(config), str((config.get("hardware") or {}).get("platform") or "")])
    yield "versions", _pairs(config.get("versions"))
    yield "git", _git(config.get("git"))
    yield "made", str(config.get("created") or "")
    yield "fingerprint", str(config.get("fingerprint") or "")


def _judges(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield who judged, and how."""
    for label, said in results.get("judges", {}).items():
        yield f"judge {label}", _pairs({key: said.get(key) for key in ("judge", "engine", "scorer", "digest")})
        yield f"judge {label}, model", _pairs(said.get("model"))
        yield f"judge {label}, prompt format", _pairs(said.get("prompt_format"))
        yield f"judge {label}, options", _pairs(said.get("options"))


def _git(state: Mapping[str, Any] | None) -> str:
    if not state:
        return "no repository"
    return f"{state.get('commit')}{' with changes that are not committed' if state.get('dirty') else ''}"


def _pairs(values: Any) -> str:
    """Return a table of options in one line."""
    if not isinstance(values, Mapping):
        return "" if values is None else str(values)
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if value is not None and value != []
    )
