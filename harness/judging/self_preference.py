"""Whether a judge favours responses of its own family, held against people's labels or another family's judge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isnan
from pathlib import Path

import msgspec

from harness.files import expanded, read_json
from harness.interfaces import JudgedScorer
from harness.runs.folder import Run
from harness.runs.judgements import Verdict, read_verdicts
from harness.runs.records import Results
from harness.statistics import share_difference
from harness.types import Estimate

#: What begins the names of models, and their ``model_type``, by the families that are told apart.
_FAMILIES = (
    "aya", "bloom", "claude", "command", "deepseek", "falcon", "gemini", "gemma", "glm", "gpt", "granite", "grok",
    "internlm", "kimi", "llama", "ministral", "mistral", "mixtral", "nemotron", "olmo", "opt", "phi", "pythia", "qwen",
    "smollm", "stablelm", "yi",
)  # fmt: skip

#: Families that go by several names.
_ALIKE = {"ministral": "mistral", "mixtral": "mistral"}


def family_of(model: str) -> str | None:
    """Return the family of a model, by the ``model_type`` of its folder or by its name; None where neither says.

    >>> family_of("meta-llama/Meta-Llama-3-70B-Instruct"), family_of("gpt-4-turbo"), family_of("ckpt")
    ('llama', 'gpt', None)
    """
    try:
        config = read_json(expanded(model) / "config.json")
    except (OSError, ValueError):
        config = None
    kind = str(config.get("model_type", "")) if isinstance(config, dict) else Path(model).name
    words = re.findall(r"[a-z]+", kind.lower())
    found = next(
        (name for word in words for name in _FAMILIES if word == name or (len(name) > 3 and name in word)), None
    )
    return _ALIKE.get(found, found) if found is not None else None


def self_preference(said: Mapping[str, Verdict], known: Mapping[str, str], scores: Mapping[str, float]) -> Estimate:
    """Return by how much more often a judge is right about the model's good responses than about the other side's.

    `said` and `known` are verdicts by sample, the judge's and those it is held against; `scores` says what each is
    worth to the model, 0 to 1. Of the samples that `known` gives to the model, the share that the judge gives it too,
    less the same of those that `known` gives to the other side; ties of the judge count by half, and several samples of
    one example as one, their mean. 0 is no preference, 1 a judge for whom the model always wins. Source: equal
    opportunity, as K. Wataoka et al. (2024, arXiv:2410.21819) define self-preference bias.
    """
    right: dict[float, dict[str, list[float]]] = {1.0: {}, 0.0: {}}
    for key, label in known.items():
        verdict = said.get(key)
        if verdict is not None and verdict.verdict in scores and scores.get(label) in right:
            given, best = scores[verdict.verdict], scores[label]
            right[best].setdefault(verdict.id, []).append(given if best else 1 - given)
    own, other = ([sum(each) / len(each) for each in right[best].values()] for best in (1.0, 0.0))
    return share_difference((sum(own), len(own)), (sum(other), len(other)))


def verdict_scores(scorer: JudgedScorer, run: Run) -> dict[str, float]:
    """Return what each verdict of a run's scorer counts."""
    example = next(run.samples()).example()
    return {word: next(iter(scorer.score(example, word).values())) for word in scorer.verdicts}


def with_self_preference(run: Run, results: Results, scorer: JudgedScorer) -> Results:
    """Return `results` with what each judge of the evaluated model's family shows against those of other families.

    It stands in the judge's details under ``self_preference``, by the other judge: value, low, high and n. Only
    verdicts that compare the model's response with another's can show it.
    """
    if len(results.judged) < 2:
        return results
    record, scores = run.record, verdict_scores(scorer, run)
    families = {label: family_of(said.judge) for label, said in results.judged.items()}
    own = family_of(record.command.model or record.model)
    others = [label for label, family in families.items() if family not in (None, own)]
    judges = dict(results.judged)
    for label, said in results.judged.items():
        found = {}
        if own is not None and families[label] == own and others:
            verdicts = read_verdicts(run.path, label)
            for other in others if any(each.against is not None for each in verdicts.values()) else ():
                e = self_preference(verdicts, _words(read_verdicts(run.path, other)), scores)
                if not isnan(e.value):
                    found[other] = [e.value, e.low, e.high, e.n]
        details = {name: value for name, value in said.details.items() if name != "self_preference"}
        judges[label] = msgspec.structs.replace(
            said, details={**details, **({"self_preference": found} if found else {})}
        )
    return msgspec.structs.replace(results, judges=judges)


def _words(verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    return {key: each.verdict for key, each in verdicts.items()}
