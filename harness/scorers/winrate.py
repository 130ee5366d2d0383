"""Win rates: how often a judge prefers a model's responses to a reference model's.

`win_rate` and `length_controlled_win_rate` score judgements that were already made, in AlpacaEval's own format; the
scorer `winrate` asks a judge. Source: X. Li et al., AlpacaEval (2023), https://github.com/tatsu-lab/alpaca_eval.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from harness.datasets import DataSource, HubFile, file_sha256, read_rows
from harness.errors import ConfigError, DataError
from harness.files import expanded
from harness.hookspecs import hookimpl
from harness.interfaces import BaseJudgedScorer, Scorer
from harness.parsers import parse_preference
from harness.scorers.alpaca_order import digest
from harness.scorers.judge_prompt import JudgePrompt, instruction_of, own_words, read_judge_prompt
from harness.scorers.references import REFERENCE_FIELDS, Reference, join_references, reference_fault
from harness.scorers.winrate_fit import (
    LengthControlData,
    length_controlled_win_rate,
    read_length_control,
    require_sklearn,
    win_rate,
)
from harness.statistics import mean, proportion
from harness.types import (
    Columns,
    Completion,
    Estimate,
    Example,
    Generation,
    Judged,
    Judgement,
    JudgeQuestion,
    Scores,
)

__all__ = ["WinRateScorer", "length_controlled_win_rate", "preference", "win_rate"]

_GAMED = HubFile(
    "tatsu-lab/alpaca_eval",
    "df_gamed.csv",
    "2edc6fad8be6b14ea7230aabfd08188da6b8b814",
    "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d",
)

#: The two questions: which output the judge is shown first.
_REFERENCE_FIRST, _MODEL_FIRST = "reference-first", "model-first"

#: What `parse_preference` gives → the probability that the second output is preferred.
_SECOND = {1: 0.0, 2: 1.0, 0: 0.5}

_VERDICTS = {"won": 1.0, "lost": 0.0, "tied": 0.5}


@dataclass(frozen=True)
class WinRateScorer(BaseJudgedScorer):
    """Asks a judge which of two responses is better: the model's, or the one in the example's field ``reference``.

    `prompt` is the judge's prompt: a shipped one, or a file with ``{instruction}``, ``{output_1}`` and ``{output_2}``,
    AlpacaEval's own included. `orders` is ``both`` (each pair is asked about twice, once with each response first, and
    the two preferences are averaged) or ``one`` (once; a hash of `seed` and instruction says which is first).
    `reference` is a file of outputs to compare with instead of those in the run. `length_control` is the path of
    AlpacaEval's df_gamed.csv, or ``hub`` for the pinned one: with it the length-controlled win rate is reported.
    Preferences come from the log-probabilities of the reply's first token where the engine gives `generation.logprobs`
    of them and the reply begins with its choice, else from its text.
    """

    name: ClassVar[str] = "winrate"
    verdicts: ClassVar[tuple[str, ...]] = tuple(_VERDICTS)

    prompt: str = "judge_pairwise"
    orders: Literal["both", "one"] = "both"
    seed: int = 0
    reference: str | None = None
    length_control: str | None = None
    generation: Generation = Generation(max_tokens=64, logprobs=5)

    @cached_property
    def _prompt(self) -> JudgePrompt:
        return read_judge_prompt(self.prompt, ("instruction", "output_1", "output_2"))

    @cached_property
    def _replaced(self) -> dict[str, Reference]:
        """The references that `inputs` has read, by instruction."""
        return {}

    @cached_property
    def _gamed_path(self) -> Path:
        if self.length_control == "hub":
            return DataSource().path("alpaca_eval/df_gamed.csv", _GAMED)
        return expanded(self.length_control or "")

    @cached_property
    def length_control_data(self) -> LengthControlData:
        """The data that `length_control` names, read once; HarnessError where it cannot be had or used."""
        require_sklearn()
        return read_length_control(self._gamed_path)

    def inputs(self, examples: Iterable[Example]) -> Mapping[str, Any]:
        """Return the digests of prompt, reference file and length-control file.

        Raises HarnessError where one of them cannot be used: a reference file without each instruction exactly once, or
        instructions that the length-control data does not know.
        """
        instructions = [instruction_of(example) for example in examples]
        found = {"prompt": self._prompt.digest}
        if self.reference is not None:
            rows = read_rows(self.reference, required=REFERENCE_FIELDS, check=reference_fault)
            self._replaced.update(join_references(instructions, rows, self.reference, whole=False))
            found |= {"reference": rows.sha256}
        if self.length_control is not None:
            unknown = [text for text in instructions if digest(text) not in self.length_control_data.order]
            if unknown:
                what = (
                    f"{len(unknown)} of {len(instructions)} instructions are not AlpacaEval's, such as {unknown[0]!r}"
                )
                raise ConfigError(f"winrate.length_control: {what}; leave the option out")
            found |= {"length_control": file_sha256(self._gamed_path)}
        return found

    def _reference(self, example: Example) -> Reference:
        if self.reference is not None:
            return self._replaced[instruction_of(example)]
        output, generator = example.fields.get("reference"), example.fields.get("reference_generator")
        if not isinstance(output, str):
            raise DataError(f"example {example.id!r} has no reference output; give --reference FILE")
        return Reference(output, str(generator or "reference"))

    def questions(self, example: Example, response: str) -> Sequence[JudgeQuestion]:
        """Return one question for each order; none where the two responses are the same text, which is a tie."""
        reference = self._reference(example).output
        if response == reference:
            return []
        return [self._question(key, example, response, reference) for key in self._orders(example)]

    def _orders(self, example: Example) -> tuple[str, ...]:
        if self.orders == "both":
            return _REFERENCE_FIRST, _MODEL_FIRST
        drawn = hashlib.sha256(f"{self.seed}/{instruction_of(example)}".encode("utf-8", "surrogatepass")).digest()
        return (_MODEL_FIRST if drawn[0] % 2 else _REFERENCE_FIRST,)

    def _question(self, key: str, example: Example, response: str, reference: str) -> JudgeQuestion:
        first, second = (reference, response) if key == _REFERENCE_FIRST else (response, reference)
        texts = {"instruction": instruction_of(example), "output_1": first, "output_2": second}
        instruction, system = self._prompt.fill(texts)
        return JudgeQuestion(key, instruction, self.generation, system)

    def judgement(self, example: Example, response: str, replies: Mapping[str, Completion]) -> Judgement:
        """Return ``won``, ``lost``, ``tied`` or ``unreadable``, with the probability that the response is preferred.

        Scores: ``win`` (0..1, the mean over the orders; NaN as soon as one reply is unreadable), ``agreement`` (1 where
        both orders give the same verdict), ``first_shown`` (how far the response shown first is preferred, over both
        orders: 0.5 where its place makes no odds), and the lengths of both responses in characters.
        """
        reference = self._reference(example).output
        given = (instruction_of(example), response, reference)
        second = {key: preference(reply, given) for key, reply in replies.items()}
        found = [_for_model(key, each) for key, each in second.items()]
        win = sum(found) / len(found) if found else 0.5
        both = len(found) == 2 and not math.isnan(win)
        agreement = float(_verdict(found[0]) == _verdict(found[1])) if both else math.nan
        scores = {
            "win": win,
            "agreement": agreement,
            "first_shown": 1 - sum(second.values()) / 2 if both else math.nan,
            "length": float(len(response)),
            "reference_length": float(len(reference)),
        }
        return Judgement(_verdict(win), scores, against=reference)

    def score(self, example: Example, answer: str | None) -> Scores:
        """Return ``{"win": …}`` of a verdict: 1 won, 0 lost, 0.5 tied, NaN for anything else."""
        return {"win": _VERDICTS.get(answer or "", math.nan)}

    def summarise(self, columns: Columns) -> Mapping[str, Estimate]:
        """Return win rate, discrete win rate and how often the two orders agree, over the readable judgements."""
        wins = [value for value in columns.get("win", ()) if not math.isnan(value)]
        agreements = [value for value in columns.get("agreement", ()) if not math.isnan(value)]
        found = {
            "win_rate": mean(wins, bounds=(0, 1)),
            "discrete_win_rate": mean([_VERDICTS[_verdict(value)] for value in wins], bounds=(0, 1)),
        }
        if agreements:
            found |= {"position_agreement": proportion(sum(agreements), len(agreements))}
        return found

    def details(self, columns: Columns) -> Mapping[str, Any]:
        """Return the bounds of the win rate (all unreadable lost, or won), mean lengths in characters, position bias.

        ``first_shown`` is how often the response shown first is preferred, of pairs asked about in both orders, with
        its 95% interval: one half where the place makes no odds. Source: P. Wang et al., arXiv:2305.17926.
        """
        found = win_rate(_preferences(columns.get("win", ())))
        n = found.n_total + found.unreadable
        placed = [value for value in columns.get("first_shown", ()) if not math.isnan(value)]
        bias = mean(placed, bounds=(0, 1))
        return {
            **({"first_shown": [bias.value, bias.low, bias.high]} if placed else {}),
            "bounds": {"win_rate": [found.lowest / 100, found.highest / 100]} if n else {},
            "mean_length": sum(columns.get("length", ())) / n if n else None,
            "mean_reference_length": sum(columns.get("reference_length", ())) / n if n else None,
        }

    def report(self, model: str, judge: str, judged: Sequence[Judged]) -> Mapping[str, Estimate]:
        """Return the length-controlled win rate where `length_control` gives its data; DataError if it has no fit."""
        if self.length_control is None:
            return {}
        fit = length_controlled_win_rate(self._annotations(model, judge, judged), self.length_control_data)
        figures = (fit.length_controlled_winrate, fit.bootstrap_standard_error, fit.low, fit.high)
        value, stderr, low, high = (figure / 100 for figure in figures)
        return {"length_controlled_win_rate": Estimate(value, len(judged), stderr, low, high, "refitting-bootstrap")}

    def exports(self, model: str, judge: str, judged: Sequence[Judged]) -> Mapping[str, Iterable[Mapping[str, Any]]]:
        """Return the judgements as AlpacaEval's own annotations."""
        return {f"annotations.{judge}.json": self._annotations(model, judge, judged)}

    def _annotations(self, model: str, judge: str, judged: Sequence[Judged]) -> list[dict[str, Any]]:
        found = []
        for each in judged:
            example, win = each.sample.example(), each.judgement.scores["win"]
            reference = self._reference(example)
            found.append(
                {
                    "instruction": instruction_of(example),
                    "output_1": reference.output,
                    "generator_1": reference.generator,
                    "output_2": each.sample.response,
                    "generator_2": model,
                    "dataset": example.group,
                    "annotator": judge,
                    "preference": None if math.isnan(win) else 1 + win,
                }
            )
        return found


def preference(reply: Completion, given: Iterable[str] = ()) -> float:
    """Return the probability that a judge prefers the second output, NaN where its reply does not say.

    Lines that the reply has copied from the `given` texts are not read. The text must name one output (or a tie). Where
    it begins with that name, as a token of its own for which there are log-probabilities, the probability is that of
    all first tokens naming the second output among those that name either; names that hold less than half of the
    probability do not count, and the text does.

    >>> reply = Completion("", "2", "stop", top_logprobs=({"2": -0.105, "1": -2.303, "The": -9.0},))
    >>> round(preference(reply), 2), preference(Completion("", "Output 1 is better.", "stop"))
    (0.9, 0.0)
    """
    text = own_words(reply.text, given)
    said = parse_preference(text)
    if said is None:
        return math.nan
    first = reply.top_logprobs[0] if reply.top_logprobs else {}
    named = {token: read for token in first if (read := parse_preference(token)) is not None}
    masses = {read: sum(math.exp(first[token]) for token in named if named[token] == read) for read in (0, 1, 2)}
    total = sum(masses.values())
    begins = any(read == said and _begins(text, token) for token, read in named.items())
    if not begins or total < 0.5:
        return _SECOND[said]
    return (masses[2] + masses[0] / 2) / total


def _begins(text: str, token: str) -> bool:
    """Whether `text` begins with `token` as a word of its own."""
    text, word = text.lstrip(), token.strip()
    return text.startswith(word) and not text[len(word) : len(word) + 1].isalnum()


def _for_model(key: str, second: float) -> float:
    """Return the model's probability, whichever output it was."""
    return second if key == _REFERENCE_FIRST else 1 - second


def _verdict(win: float) -> str:
    if math.isnan(win):
        return "unreadable"
    return "won" if win > 0.5 else "lost" if win < 0.5 else "tied"


def _preferences(wins: Iterable[float]) -> Iterator[Mapping[str, float | None]]:
    return ({"preference": None if math.isnan(win) else 1 + win} for win in wins)


@hookimpl
def harness_scorers() -> Iterable[Scorer]:
    """Provide `winrate`."""
    return [WinRateScorer()]
