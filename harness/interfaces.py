"""What a plugin must look like, kind by kind.

A plugin object that is a dataclass has its fields as options: ``--set gsm8k.split=train`` gives the run a copy of the
benchmark with that field replaced, after its type has been checked. Everything else about a plugin is a plain
attribute.

The protocols say all that there must be; the ``Base`` classes beside them have what most plugins of a kind have alike,
to inherit from where that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from harness.types import (
        Choices,
        Columns,
        Completion,
        Estimate,
        Example,
        Generation,
        Judged,
        Judgement,
        JudgeQuestion,
        Likelihood,
        Message,
        Recording,
        Request,
        RunInfo,
        Sample,
        Scores,
    )


class DataSource(Protocol):
    """Finds the files of a benchmark: below ``--data DIR``, or pinned on the Hugging Face hub."""

    def path(self, name: str, hub: Any = None) -> Path:
        """Return a local path for the file `name` of the layout, such as ``gsm8k/test.jsonl``.

        `hub` is a `harness.datasets.HubFile`. Raises DataError, with what to put where, when it cannot be had.
        """

    def find(self, name: str) -> Path | None:
        """Return the file or folder `name` below ``--data``, or None where there is none or no ``--data``."""

    def rows(
        self,
        name: str,
        hub: Any = None,
        *,
        required: Iterable[str] = (),
        columns: Sequence[str] | None = None,
        check: Callable[[Mapping[str, Any]], str | None] | None = None,
    ) -> Sequence[Mapping[str, Any]]:
        """Return the validated rows of that file, read lazily (JSON Lines, JSON, CSV or Parquet by its suffix).

        `check` is given each row and says what is wrong with it, or None. `columns` names those of a CSV without
        header. Raises DataError, with the first bad line and the count of all, when a row is malformed or lacks a
        required field.
        """

    def named_rows(
        self,
        path: str,
        *,
        required: Iterable[str] = (),
        check: Callable[[Mapping[str, Any]], str | None] | None = None,
    ) -> Sequence[Mapping[str, Any]]:
        """Return the rows of a file that an option names, wherever it lies; otherwise as `rows`."""


class Run(Protocol):
    """A recorded run, as exports see it."""

    @property
    def model(self) -> str:
        """The evaluated model's name, as it should appear in exported files."""

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in the benchmark's order, read from disk one by one."""


@runtime_checkable
class Benchmark(Protocol):
    """A set of questions, how each is asked, and how the answers are read and scored."""

    @property
    def name(self) -> str:
        """What users type."""

    @property
    def title(self) -> str:
        """What people call it, such as ``GSM8K``."""

    @property
    def citation(self) -> str:
        """The paper it comes from, on one line."""

    @property
    def generation(self) -> Generation:
        """How completions are sampled."""

    @property
    def parsers(self) -> tuple[str, ...]:
        """Names of the parsers that are reported side by side; the first is the headline."""

    @property
    def scorer(self) -> str:
        """Name of the scorer."""

    def examples(self, source: DataSource) -> Sequence[Example]:
        """Return all examples in their official order; raise DataError on data that cannot be used.

        The sequence may be lazy; it is indexed more than once, and each index must give an equal example.
        """

    def instruction(self, example: Example) -> str | Sequence[Message]:
        """Return what is asked, before any prompt format is put around it.

        Messages are a conversation that the model goes on with: a system message or none, then turns of the user and
        the assistant, the last one the user's.
        """

    def exports(self, run: Run) -> Mapping[str, Iterable[Mapping[str, Any]]]:
        """Return files that other tools expect: name (ending in .json or .jsonl) → records.

        Of a run of several samples an example it is called for each repeat, with the samples of that one.
        """


@runtime_checkable
class ChoiceBenchmark(Benchmark, Protocol):
    """A benchmark of multiple-choice questions that says how each answer is written.

    It need not, where its examples have the `options` that the parser ``choice`` reads: their letters are taken.
    """

    def choices(self, example: Example) -> Choices:
        """Return the answers that the example allows, whose log-probabilities may be asked for."""


class BaseBenchmark:
    """What benchmarks inherit that export nothing."""

    def exports(self, run: Run) -> Mapping[str, Iterable[Mapping[str, Any]]]:
        """No file that another tool expects."""
        return {}


@runtime_checkable
class Parser(Protocol):
    """Reads an answer from a completion: total, pure, and linear in the output's length."""

    @property
    def name(self) -> str:
        """What users type."""

    def parse(self, output: str, example: Example | None = None) -> str | None:
        """Return the answer in its canonical form, or None where there is none; never raise."""


@runtime_checkable
class LikelihoodParser(Parser, Protocol):
    """A parser that reads an answer in how likely the model finds each option, not in what it says."""

    def likeliest(self, likelihoods: Sequence[Likelihood]) -> str | None:
        """Return the answer of the likeliest option, the first of several; None where there are none."""


@runtime_checkable
class Scorer(Protocol):
    """Turns answers into numbers, and many numbers into estimates."""

    @property
    def name(self) -> str:
        """What users type."""

    @property
    def judged(self) -> bool:
        """Whether scores need a judge's replies; such a scorer is a `JudgedScorer`."""

    def score(self, example: Example, answer: str | None) -> Scores:
        """Return the scores of one answer; None is an answer that could not be parsed."""

    def summarise(self, columns: Columns) -> Mapping[str, Estimate]:
        """Return metric → estimate over the columns that `score` gave; the first metric is the headline."""


class BaseScorer:
    """What scorers inherit that need no judge."""

    judged: ClassVar[bool] = False


class JudgedScorer(Scorer, Protocol):
    """A scorer whose `judged` is true: it turns a judge's replies into verdicts and numbers.

    `score` takes a verdict for the answer. `summarise` gets the columns of all judgements, NaN where unreadable.
    """

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdicts there are, as people would label a response too; ``unreadable`` is none of them."""

    def inputs(self, examples: Iterable[Example]) -> Mapping[str, Any]:
        """Read the files that the options name and return digests of all that judgements depend on beside them.

        Called before a judge is loaded. Raises HarnessError for a file that cannot be used with these examples.
        """

    def questions(self, example: Example, response: str) -> Sequence[JudgeQuestion]:
        """Return what the judge is asked about `response`; nothing where the verdict needs no judge."""

    def judgement(self, example: Example, response: str, replies: Mapping[str, Completion]) -> Judgement:
        """Return what the replies, by question, come to. Pure; a reply that says nothing clear is unreadable."""

    def details(self, columns: Columns) -> Mapping[str, Any]:
        """Return what belongs beside the metrics as JSON data.

        ``bounds`` maps a metric to the least and the greatest value it could have, whatever the unreadable replies
        were meant to say; other entries map names to numbers.
        """

    def report(self, model: str, judge: str, judged: Sequence[Judged]) -> Mapping[str, Estimate]:
        """Return overall metrics that need the texts; DataError where the judgements do not allow them."""

    def exports(self, model: str, judge: str, judged: Sequence[Judged]) -> Mapping[str, Iterable[Mapping[str, Any]]]:
        """Return files that other tools expect: name (ending in .json or .jsonl) → records."""


class BaseJudgedScorer:
    """What scorers inherit that need a judge, and no files, no details, no metric of texts, and export nothing."""

    judged: ClassVar[bool] = True

    def inputs(self, examples: Iterable[Example]) -> Mapping[str, Any]:
        """No file is read."""
        return {}

    def details(self, columns: Columns) -> Mapping[str, Any]:
        """Nothing beside the metrics."""
        return {}

    def report(self, model: str, judge: str, judged: Sequence[Judged]) -> Mapping[str, Estimate]:
        """No further metric."""
        return {}

    def exports(self, model: str, judge: str, judged: Sequence[Judged]) -> Mapping[str, Iterable[Mapping[str, Any]]]:
        """No file that another tool expects."""
        return {}


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that prompts are made with."""

    def __hash__(self) -> int: ...

    @property
    def bos_token_id(self) -> int | None: ...

    @property
    def all_special_tokens(self) -> list[str]: ...

    @property
    def chat_template(self) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool = True, **kwargs: Any) -> list[int]: ...

    def decode(self, token_ids: Any, **kwargs: Any) -> Any: ...

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


class Model(Protocol):
    """A model loaded by an engine."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield one completion for each request as it finishes, in any order.

        Requests are taken from the iterable as there is room for them. A request that cannot be answered (a prompt
        longer than the context) gives a completion with `error`; ModelError ends the whole call.
        """

    def close(self) -> None:
        """Free the memory that the model holds; safe to call twice."""


@runtime_checkable
class FedModel(Protocol):
    """A model that can be fed without end: its `generate` takes pauses for what they are.

    Engines that spread work (`ray`) feed such a model for as long as there are requests; others are given lists, one
    after the other.
    """

    @property
    def pauses(self) -> bool:
        """True. None among the requests says that there is none at this moment: go on, and ask again soon."""

    @property
    def room(self) -> int:
        """How many requests it is to have at a time, those that wait included, so that it never runs dry."""

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Yield completions as `Model` does; what the iterable raises ends what runs, and goes on to the caller."""


@runtime_checkable
class StreamingModel(Model, Protocol):
    """A model whose answers can be followed as they are made; `harness chat` shows those of other models as a whole."""

    def stream(self, request: Request) -> Generator[str, None, Completion]:
        """Yield the pieces of an answer as they come, and return the completion that `generate` would give.

        Joined, the pieces are the completion's text: an end that may turn out to belong to a stop string, or is a part
        of a character, is held back. A piece may be empty, while nothing is sure: then, too, the generator can be
        closed, which ends the request; the model can be asked again then.
        """


@runtime_checkable
class Engine(Protocol):
    """A way to run models: a library on this machine, a server, recorded outputs."""

    @property
    def name(self) -> str:
        """What users type."""

    @property
    def applies_chat_template(self) -> bool:
        """Whether models are asked in messages, around which the engine puts a template of its own (a chat server)."""

    def available(self) -> str | None:
        """Return None if the engine can run on this machine, else why not and what to do, on one line."""

    def tokenizer(self, model: str) -> Tokenizer | None:
        """Return the model's tokenizer without loading weights; None where text goes to the engine."""

    def identity(self, model: str) -> Mapping[str, Any]:
        """Return what outputs depend on, for the run's fingerprint: the model's digest and the relevant options."""

    def load(self, model: str) -> Model:
        """Load the model; raise ModelError, with the remedy on one line, when that fails."""


@runtime_checkable
class SpreadingEngine(Engine, Protocol):
    """An engine that has another one run the model, in several places (`ray`)."""

    @property
    def engine(self) -> str:
        """The name of the other, or ``auto``; its options stand in its own table."""

    @property
    def is_here(self) -> bool:
        """Whether the other one runs on this machine, so that it must be available here."""

    @property
    def inner(self) -> Engine | None:
        """The other one; None before it has been given."""

    def over(self, inner: Engine) -> Engine:
        """Return this engine with the other one given to it, which its outputs are those of."""


@runtime_checkable
class LikelihoodEngine(Engine, Protocol):
    """An engine that can say how likely texts are; others are not asked, and a run that needs it is refused at once.

    Its models give each completion the log-probabilities of the request's `continuations`, and an empty text that ends
    with `harness.types.SCORED` where nothing is to be generated beside them.
    """

    @property
    def gives_likelihoods(self) -> bool:
        """Whether it can, with its options as they are."""


class BaseEngine:
    """What engines inherit that run anywhere, are asked in text, and put no template around it."""

    applies_chat_template: ClassVar[bool] = False

    def available(self) -> str | None:
        """None: it can run here."""
        return None

    def tokenizer(self, model: str) -> Tokenizer | None:
        """None: it is given text."""
        return None


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What a trainer is given beside its own options.

    `model` is the folder or hub name to start from, `out` the folder for checkpoints, `recipe` all options as they were
    given, for the record. `trackers` are to follow the metrics.
    """

    model: str
    out: Path
    recipe: Mapping[str, Any]
    trackers: tuple[Tracker, ...] = ()


@runtime_checkable
class Trainer(Protocol):
    """A way to train models: a dataclass whose fields are its options."""

    @property
    def name(self) -> str:
        """What users type."""

    def plan(self, run: TrainingRun) -> str:
        """Return, for people, what training would do: data, steps, memory, an example; load no weights."""

    def train(self, run: TrainingRun) -> Path:
        """Train as the options say, going on where an interrupted training stopped; return the model's folder."""


class TrackerRun(Protocol):
    """One run as a tracker follows it."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record named values at a step."""

    def close(self) -> None:
        """Flush and finish; safe to call twice."""


@runtime_checkable
class Tracker(Protocol):
    """A place that metrics are sent to."""

    @property
    def name(self) -> str:
        """What users type."""

    def available(self) -> str | None:
        """Return None if metrics can be sent from this machine, else why not and what to do, on one line."""

    def start(self, run: RunInfo) -> TrackerRun:
        """Begin to follow a run."""


class BaseTracker:
    """What trackers inherit that work anywhere."""

    def available(self) -> str | None:
        """None: metrics can be sent from here."""
        return None


@runtime_checkable
class Format(Protocol):
    """A form in which other tools record outputs, read by ``harness import``."""

    @property
    def name(self) -> str:
        """What users type."""

    def recognises(self, path: Path, start: bytes) -> bool:
        """Whether the file at `path`, whose first MiB (unpacked) is `start`, is of this form; never raise."""

    def read(self, path: Path) -> Recording:
        """Return what the file says; its outputs may be read as they are gone through.

        Raises DataError, one line with file and line, here or there, for a file that cannot be used.
        """
