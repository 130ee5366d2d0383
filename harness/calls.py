"""Calls of plugins: what one raises, or gives that nobody can use, names the plugin, its distribution and the example.

Plugins are other people's code. An output costs more than reading it does, so what goes wrong with one output is that
example's failure and no other's; the output is kept, and `harness score` reads it again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from numbers import Real
from string import ascii_uppercase
from types import TracebackType
from typing import Any, ClassVar, TypeGuard, TypeVar

from harness import limits, overdue
from harness.errors import HarnessError, PluginError, PromptError
from harness.interfaces import Benchmark, Engine, JudgedScorer, LikelihoodParser, Model, Parser, Scorer
from harness.parsers import Explanation
from harness.registry import DISTRIBUTION, described, origin
from harness.types import (
    Choices,
    Columns,
    Completion,
    Estimate,
    Example,
    Judgement,
    JudgeQuestion,
    Likelihood,
    Message,
    Request,
    Scores,
)

T = TypeVar("T")


class blamed:
    """Names `plugin`, and the example, for what is raised inside: ``with blamed(parser, example): …``.

    It becomes a PluginError of one line. HarnessErrors, which are written for users, stay as they are.
    """

    __slots__ = ("_example", "_plugin")

    #: What is nobody's fault: Ctrl-C, and the end of a generator that has this around what it yields.
    _passed: ClassVar[tuple[type[BaseException], ...]] = (KeyboardInterrupt, GeneratorExit)

    def __init__(self, plugin: Any, example: Example | None = None) -> None:
        self._plugin = plugin
        self._example = example

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None and not _has_closed_a_stream():
            return
        if error is None:
            raise fault(self._plugin, "it closes standard output or standard error", self._example)
        if isinstance(error, HarnessError):
            return
        if isinstance(error, overdue.TooLong):
            late = f"it takes more than {overdue.patience():g} s ({limits.SECONDS})"
            raise fault(self._plugin, late, self._example) from None
        if not isinstance(error, self._passed):
            place = _place(self._plugin, trace)
            raise fault(
                self._plugin, f"it raises {type(error).__name__}: {_said(error)}{place}", self._example
            ) from error


class foreign(blamed):
    """The same for plugins of other distributions: what one of ours raises where it should not is a fault of ours.

    What the machine does to a plugin, a full disk or no memory, stays as it is.
    """

    __slots__ = ()

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        given = origin(self._plugin)
        ours = given is not None and given.distribution == DISTRIBUTION
        machine = isinstance(error, OSError | MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's
        if not ours and not machine:
            super().__exit__(kind, error, trace)


class timed(blamed):
    """The same, for at most `overdue.patience()` seconds, for what a plugin does with one output."""

    __slots__ = ()

    _passed = (KeyboardInterrupt,)

    def __enter__(self) -> None:
        overdue.begin()

    @overdue.leaving
    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        overdue.end()
        super().__exit__(kind, error, trace)


def _has_closed_a_stream() -> bool:
    """Tell whether standard output or error is closed, and put something else in its place, so that more can be said.

    It also takes the descriptor, which the next file would get otherwise, and with it whatever a library prints there.
    """
    closed = False
    for name, other in (("stdout", "stderr"), ("stderr", "stdout")):
        stream = getattr(sys, name)
        if stream is not None and stream.closed:
            closed = True
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            rest = getattr(sys, other)
            setattr(sys, name, nowhere if name == "stdout" or rest is None or rest.closed else rest)
    return closed


def fault(plugin: Any, what: str, example: Example | None = None) -> PluginError:
    """Return the error that says what is wrong with a plugin, on one line."""
    about = f", example {example.id!r}" if example is not None else ""
    return PluginError(" ".join(f"{described(plugin)}{about}: {what}".split()))


def examples_of(benchmark: Benchmark, examples: Sequence[Example]) -> Iterator[Example]:
    """Yield a benchmark's examples; PluginError for one that cannot be made, or whose parts are not what they must be.

    A list as gold answer, say, would be compared as its repr.
    """
    for number, example in enumerate(_made(benchmark, examples), start=1):
        yield _checked(benchmark, example, number)


def _made(benchmark: Benchmark, examples: Sequence[Example]) -> Iterator[Example]:
    made = 0
    try:
        with blamed(benchmark):
            for example in examples:
                made += 1
                yield example
    except PluginError as error:
        raise PluginError(f"{error}, in making example {made + 1} (counted from 1)") from error


def _checked(benchmark: Benchmark, example: Any, number: int) -> Example:
    if not isinstance(example, Example):
        raise fault(benchmark, f"example {number} (counted from 1) is {_quoted(example)}, not a harness.types.Example")
    if not isinstance(example.id, str):
        raise fault(benchmark, f"example {number} (counted from 1) has the id {_quoted(example.id)}, not text")
    if not isinstance(example.fields, Mapping):
        raise fault(benchmark, f"its fields are {_quoted(example.fields)}, not a mapping", example)
    for part in ("gold", "group", "category"):
        value = getattr(example, part)
        if value is not None and not isinstance(value, str):
            raise fault(benchmark, f"its {part} is {_quoted(value)}, not text or None", example)
    return example


def instruction_of(benchmark: Benchmark, example: Example) -> str | tuple[Message, ...]:
    """Return what is asked; PluginError where that is neither text nor messages, such as a list of texts."""
    with blamed(benchmark, example):
        asked = benchmark.instruction(example)
    if isinstance(asked, str):
        return asked
    try:
        return messages_of(asked)
    except ValueError as error:
        raise fault(
            benchmark, f"its instruction is {_quoted(asked)}, neither text nor messages ({error})", example
        ) from None


def question_of(benchmark: Benchmark, example: Example) -> str:
    """Return what is asked as one text, of messages their contents a blank line apart."""
    asked = instruction_of(benchmark, example)
    return asked if isinstance(asked, str) else "\n\n".join(message.content for message in asked)


def messages_of(given: Any) -> tuple[Message, ...]:
    """Return a conversation that a model is to go on with, given as messages or as objects with `role` and `content`.

    Raises ValueError, with what is wrong, for anything else than a system message, or none, and turns of user and
    assistant, of which the last is the user's.
    """
    if not isinstance(given, list | tuple) or not given:
        raise ValueError("messages are a list")
    found = []
    for number, each in enumerate(given, start=1):
        fields = each._asdict() if isinstance(each, Message) else each
        role, content = (fields.get("role"), fields.get("content")) if isinstance(fields, Mapping) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise ValueError(f"message {number} has no 'role' and 'content' that are texts")
        found.append(Message(role, content))
    turns = found[1:] if found[0].role == "system" else found
    for number, turn in enumerate(turns, start=1 + len(found) - len(turns)):
        expected = "user" if (len(found) - number) % 2 == 0 else "assistant"
        if turn.role != expected:
            raise ValueError(
                f"message {number} is of {turn.role!r}, where {expected!r} would be: the last is the user's"
            )
    if not turns or not turns[-1].content.strip():
        raise ValueError("the last message asks nothing")
    return tuple(found)


def choices_of(benchmark: Benchmark, example: Example) -> Choices:
    """Return the answers that an example allows: the benchmark's own, or the letters of its field ``options``.

    Raises PromptError where there are not several, PluginError where the benchmark gives no such.
    """
    own = getattr(benchmark, "choices", None)
    if own is None:
        options = example.fields.get("options")
        count = len(options) if isinstance(options, list | tuple) else 0
        found = Choices({letter: letter for letter in ascii_uppercase[:count]})
    else:
        with blamed(benchmark, example):
            found = own(example)
        if not isinstance(found, Choices):
            raise fault(benchmark, f"its choices are {_quoted(found)}, not harness.types.Choices", example)
    if len(found.texts) < 2 or not all(text.strip() for text in found.texts.values()):
        raise PromptError(f"{benchmark.name}: {example.id!r} has no options whose log-likelihood could be compared")
    return found


def answered(
    engine: Engine, model: Model, asked: Iterable[tuple[T, Request]]
) -> Iterator[tuple[T, Request, Completion]]:
    """Yield what was asked, with its request and its completion, as the engine's completions come.

    Only what the engine has in hand is held in memory. A completion that lacks log-probabilities is a failed one.
    Raises PluginError where the engine raises something that is not for users, or gives a completion that nothing waits
    for.
    """
    waiting: dict[str, tuple[T, Request]] = {}

    def requests() -> Iterator[Request]:
        for one, request in asked:
            waiting[request.id] = one, request
            yield request

    with blamed(engine):
        for completion in model.generate(requests()):
            if completion.id not in waiting:
                raise fault(engine, f"its completion {completion.id!r} was not asked for, or is the second one")
            one, request = waiting.pop(completion.id)
            yield one, request, _weighed(engine, request, completion)


def likelihoods_of(request: Request, completion: Completion) -> tuple[Likelihood, ...]:
    """Return how likely a request's continuations are, of a completion that says it."""
    return tuple(
        Likelihood(each.answer, each.text, float(value), len(each.token_ids) - each.start)
        for each, value in zip(request.continuations, completion.continuations, strict=True)
    )


def _weighed(engine: Engine, request: Request, completion: Completion) -> Completion:
    """Return the completion; a failed one where the engine does not say how likely each continuation is."""
    asked, given = request.continuations, completion.continuations
    if completion.error is not None or (not asked and not given):
        return completion
    if len(given) == len(asked) and all(isinstance(value, Real) and not isnan(value) for value in given):
        return completion
    said = fault(engine, f"of {len(asked)} continuations it gives the log-probabilities {_quoted(given)}")
    return replace(completion, finish_reason=None, error=str(said), continuations=())


def read(
    parsers: Sequence[Parser], scorer: Scorer, output: str, example: Example, likelihoods: Sequence[Likelihood] = ()
) -> tuple[dict[str, str | None], dict[str, Scores]]:
    """Return the answers that `parsers` find in an output and, but where a judge gives them, the scores, by parser.

    Those that read `likelihoods` are given them. Raises HarnessError, in most cases PluginError, where one of them
    fails on this output.
    """
    answers: dict[str, str | None] = {}
    scores: dict[str, Scores] = {}
    for parser in parsers:
        answer = (
            likeliest(parser, likelihoods, example) if reads_likelihoods(parser) else parse(parser, output, example)
        )
        answers[parser.name] = answer
        scores[parser.name] = {} if scorer.judged else score(scorer, example, answer)
    return answers, scores


def parse(parser: Parser, output: str, example: Example | None = None) -> str | None:
    """Return a parser's answer; HarnessError where it raises, gives neither text nor None, or takes too long."""
    with timed(parser, example):
        answer = parser.parse(output, example)
    return _answer(parser, answer, example)


def reads_likelihoods(parser: Parser) -> TypeGuard[LikelihoodParser]:
    """Whether a parser reads how likely options are, and not what the model says."""
    return hasattr(parser, "likeliest")


def likeliest(parser: LikelihoodParser, likelihoods: Sequence[Likelihood], example: Example) -> str | None:
    """Return the answer that a parser reads in the likelihoods of an example's options; HarnessError as of `parse`."""
    with timed(parser, example):
        answer = parser.likeliest(likelihoods)
    return _answer(parser, answer, example)


def _answer(parser: Parser, answer: Any, example: Example | None) -> str | None:
    if answer is not None and not isinstance(answer, str):
        raise fault(parser, f"its answer is {_quoted(answer)}, not text or None", example)
    return None if answer is None else str.__str__(answer)  # text of a kind of its own may compare as it likes


def explained(parser: Parser, output: str, example: Example | None = None) -> Explanation[str]:
    """Return why a parser's answer is what it is; HarnessError where it raises, gives no such, or takes too long."""
    with timed(parser, example):
        found = parser.explain(output, example)  # type: ignore[attr-defined]  # only of parsers that have it
    if not isinstance(found, Explanation):
        raise fault(parser, f"its explanation is {_quoted(found)}, not a harness.parsers.Explanation", example)
    return found


def score(scorer: Scorer, example: Example, answer: str | None) -> Scores:
    """Return the scores of an answer; HarnessError where it raises, takes too long, or gives other than 0 to 1 or NaN.

    A truth value or a number of another library becomes a float.
    """
    with timed(scorer, example):
        given = scorer.score(example, answer)
    if not isinstance(given, Mapping):
        raise fault(scorer, f"its scores are {_quoted(given)}, not a mapping of names to numbers", example)
    for value in given.values():
        if type(value) is not float or not 0 <= value <= 1:
            return _as_scores(scorer, example, given)
    return given


def _as_scores(scorer: Scorer, example: Example, given: Mapping[Any, Any]) -> Scores:
    found: dict[str, float] = {}
    for name, value in given.items():
        number = float(value) if isinstance(value, Real) else None
        if number is None or not (isnan(number) or 0 <= number <= 1):
            raise fault(scorer, f"its score {name} is {_quoted(value)}, not a number from 0 to 1", example)
        found[name] = number
    return found


def judgement_of(scorer: JudgedScorer, example: Example, response: str, replies: Mapping[str, Completion]) -> Judgement:
    """Return what a judge's replies come to; HarnessError where the scorer raises, takes too long or gives no such."""
    with timed(scorer, example):
        judgement = scorer.judgement(example, response, replies)
    if not isinstance(judgement, Judgement):
        raise fault(scorer, f"its judgement is {_quoted(judgement)}, not a harness.types.Judgement", example)
    if not isinstance(judgement.verdict, str):
        raise fault(scorer, f"its verdict is {_quoted(judgement.verdict)}, not text", example)
    for name, value in judgement.scores.items():
        if not isinstance(value, Real):
            raise fault(scorer, f"its score {name} is {_quoted(value)}, not a number", example)
    return judgement


def questions_of(scorer: JudgedScorer, example: Example, response: str) -> Sequence[JudgeQuestion]:
    """Return what a judge is asked about a response."""
    with blamed(scorer, example):
        return list(scorer.questions(example, response))


def estimates_of(scorer: Scorer, columns: Columns) -> Mapping[str, Estimate]:
    """Return a scorer's estimates; PluginError where it raises or gives something else."""
    with blamed(scorer):
        estimates = scorer.summarise(columns)
    for name, one in estimates.items() if isinstance(estimates, Mapping) else [("", estimates)]:
        if not isinstance(one, Estimate):
            raise fault(scorer, f"its summary {name or 'of scores'} is {_quoted(one)}, not a harness.types.Estimate")
    return estimates


def _place(plugin: Any, trace: TracebackType | None) -> str:
    """Return where a plugin's own code was when something was raised: `` (harness_sums.py, line 12)``."""
    module = sys.modules.get(type(plugin).__module__)
    own, place = getattr(module, "__file__", None), ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name == own:
            place = f" ({name.rpartition('/')[2]}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a plugin's own error, whose words are its own code
        return "what it says cannot be read"


def _quoted(value: object, most: int = 80) -> str:
    try:
        text = ascii(value)
    except Exception:  # a plugin's own value, likewise
        text = f"what cannot be shown, of the type {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 4]} ..."
