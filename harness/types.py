"""The data that flows through the harness: small frozen records, nothing but the standard library."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

Status: TypeAlias = Literal["ok", "unparsed", "engine_error", "judge_error"]

#: How a completion ended: ``stop``, ``length``, or what else a server calls it.
FinishReason: TypeAlias = str

#: The end of a completion of which nothing was asked but the log-probabilities of continuations.
SCORED: Final = "scored"

#: The named numbers that a scorer gives one answer, such as ``{"accuracy": 1.0}``.
Scores: TypeAlias = Mapping[str, float]

#: The scores of many samples, one column a name, all of the same length; a missing score is NaN.
Columns: TypeAlias = "Mapping[str, array[float]]"


@dataclass(frozen=True, slots=True)
class Example:
    """One question of a benchmark.

    `id` is unique within the benchmark and stable across processes and versions of the data's packaging.
    `fields` holds what the benchmark's instruction is made of (question, options, …), as JSON values.
    `gold` is the right answer in the form that the benchmark's parsers give, or None where there is none.
    `group` is the unit of stratification and of the breakdown (a subject, a harm area), or None. `category` is a
    coarser breakdown, of several groups each (STEM, humanities), or None.
    """

    id: str
    fields: Mapping[str, Any]
    gold: str | None = None
    group: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """How a completion is sampled.

    `max_tokens` counts new tokens. `stop` strings end the completion and are not part of its text. `temperature` 0 is
    greedy. `seed` makes sampling repeatable for each request, whatever else is in the batch. `logprobs` asks for that
    many most likely tokens at each generated position (0: none). Thoughts that are still open after `thinking_tokens`
    new tokens are closed there, so that the rest is the answer's (None: they may take all).
    """

    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: int = 0
    thinking_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.thinking_tokens is not None and not 0 < self.thinking_tokens < self.max_tokens:
            what = f"thinking_tokens must be at least 1 and below max_tokens ({self.max_tokens})"
            raise ValueError(f"{what}, not {self.thinking_tokens}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 (greedy) or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if self.logprobs < 0:
            raise ValueError(f"logprobs must be 0 or more, not {self.logprobs}")
        if "" in self.stop:
            raise ValueError("a stop string must not be empty")


@dataclass(frozen=True, slots=True)
class Choices:
    """The answers that a multiple-choice question allows, as a model would write them behind the prompt.

    `texts` maps each answer, in the form of the parsers' answers, to its text (``{"A": "A"}``). `lead` stands between
    prompt and text (``The correct answer is``) and is part of what is given. Neither begins or ends with white space: a
    space joins them where there is none.
    """

    texts: Mapping[str, str]
    lead: str = ""


def described(generation: Generation) -> dict[str, Any]:
    """Return how completions are sampled, for records: without what is not asked of them."""
    fields = asdict(generation)
    return {name: value for name, value in fields.items() if name != "thinking_tokens" or value is not None}


def sample_key(identifier: str, repeat: int) -> str:
    """Return what one sample of an example is called: the example's id and, of a repeat after the first, its number.

    >>> sample_key("test-0007", 0), sample_key("test-0007", 3)
    ('test-0007', 'test-0007#3')
    """
    return f"{identifier}#{repeat}" if repeat else identifier


class Message(NamedTuple):
    """What one speaker says in a conversation; models know the roles ``system``, ``user``, ``assistant`` and ``tool``.

    `more` holds what else chat templates take from a message (``tool_calls``, ``reasoning_content``).
    """

    role: str
    content: str
    more: Mapping[str, Any] = {}  # nobody writes to it, and what is sent to other processes is pickled

    def as_dict(self) -> dict[str, Any]:
        """Return the message as servers and templates take it."""
        return {"role": self.role, "content": self.content, **self.more}


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to a model.

    `text` is the exact prompt. `token_ids` are its ids, with exactly one BOS where the tokenizer has one; None where no
    tokenizer is at hand (a server, recorded outputs). `messages` is set instead of ids when a server is to apply its
    own chat template; `template_arguments` then go to it.
    """

    text: str
    token_ids: tuple[int, ...] | None = None
    messages: tuple[Message, ...] | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Continuation:
    """One of the texts of which a model is asked how likely each is behind the prompt.

    `answer` is what it stands for, in the form of the parsers' answers, `text` what is continued with, without the
    white space that joins it to the prompt. `token_ids` are those of prompt and text together, of which the text's
    begin at `start`; up to there those of all continuations of a request are the same.
    """

    answer: str
    text: str
    token_ids: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a model finds a continuation: the sum of its `tokens`' natural log-probabilities."""

    answer: str
    text: str
    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt for an engine.

    `id` comes back on its completion and is unique within a call of `generate`; `index` is the example's position in
    the benchmark's order, for engines that hold recorded outputs in that order. `repeat` says which of an example's
    samples it asks for: 0 the first; others have an `id` and a seed of their own. `continuations` are to be given
    log-probabilities, by engines that can; where `generated` is false nothing else is asked for.
    """

    id: str
    prompt: Prompt
    generation: Generation
    index: int = 0
    repeat: int = 0
    continuations: tuple[Continuation, ...] = ()
    generated: bool = True


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model made of a request.

    `text` has neither the stop string nor special tokens, but for the borders of reasoning. `finish_reason` is ``stop``
    (an end token or a stop string) or ``length`` (max_tokens or the context's end), or a server's own name for another
    end, None after an error. `prompt_tokens` counts the ids sent, BOS included; `completion_tokens` the ids generated,
    the end token and the tokens of the stop string included; None where the engine does not know. `seconds` runs from
    the moment the engine took the request to its last token. `error` says in one line why there is no output.
    `top_logprobs` holds, for each generated position when asked for, token text → natural log probability.
    `continuations` are the natural log-probabilities of the request's, in their order: of each the sum over its tokens.
    `thought_tokens` are those of the completion's that are thoughts with their borders.
    """

    id: str
    text: str
    finish_reason: FinishReason | None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float | None = None
    error: str | None = None
    top_logprobs: tuple[Mapping[str, float], ...] = ()
    continuations: tuple[float, ...] = ()
    thought_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class RecordedOutput:
    """One output that another tool recorded; what its file does not say is None or empty, never made up.

    `place` says where it stands, for messages (``samples.jsonl:17``). `id` is the source's, `question` the text of the
    question alone, `options` those of a multiple-choice question, `prompt` all that the model was sent. `answer` is
    what the source itself read in the output, in its own words, and `scores` what it gave for that, the first being its
    headline. Several outputs of one example are told apart by `repeat`, from 0. An example that failed there has no
    `output`, and an `error` that says why.
    """

    place: str
    output: str | None
    id: str | None = None
    question: str | None = None
    options: tuple[str, ...] | None = None
    prompt: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: FinishReason | None = None
    seconds: float | None = None
    answer: str | None = None
    scores: Scores = field(default_factory=dict)
    repeat: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file of recorded outputs says; None or empty is what it does not.

    `tool` wrote it, in `version`; `model` gave the outputs, with `settings`, as JSON data. `outputs` may be gone
    through more than once and should read the file as it goes, so that a million outputs take no memory.
    """

    tool: str
    outputs: Iterable[RecordedOutput]
    version: str | None = None
    model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceReading:
    """What the source of an imported output read in it itself.

    `said` is its answer in its own words, `answer` the same in the form of the headline parser's answers, None where it
    read none. `scores` are what it gave for that, by its own names; the first is its headline.
    """

    said: str | None
    answer: str | None
    scores: Scores


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of samples.jsonl: an example, what the model was sent, what it gave, and what became of it.

    `index` is the example's position in the benchmark's order, `repeat` which of its samples this is (0 the first, and
    the only one unless a run takes several). `answers` and `scores` are keyed by parser. `status` is
    ``ok``, ``unparsed`` (the headline parser found no answer), ``engine_error`` (`error` says why: no output, or one
    that a parser or scorer failed on, which has a `finish_reason`) or ``judge_error``. `response` is the
    answer in `output`, as judges and other tools are to see it: without the white space and the closing code fence that
    belong to the prompt format, and without reasoning. `disagreeing` names the parsers whose answer is a letter that
    stands beside another option's text. In imported runs, what the source does not say is unknown: an empty `prompt`,
    no token counts, no `finish_reason`; `source` is what it read itself. `likelihoods` are those of the example's
    options, where they were asked for. `thought_tokens` are those of the completion's that are thoughts, where there
    are any and the engine knows.
    """

    id: str
    index: int
    group: str | None
    fields: Mapping[str, Any]
    prompt: str
    prompt_tokens: int | None
    completion_tokens: int | None
    output: str
    finish_reason: FinishReason | None
    answers: Mapping[str, str | None]
    gold: str | None
    scores: Mapping[str, Scores]
    status: Status
    error: str | None = None
    seconds: float | None = None
    category: str | None = None
    response: str = ""
    disagreeing: tuple[str, ...] = ()
    repeat: int = 0
    source: SourceReading | None = None
    likelihoods: tuple[Likelihood, ...] = ()
    thought_tokens: int | None = None

    @property
    def key(self) -> str:
        """What the sample is called: the example's id, and the repeat after the first."""
        return sample_key(self.id, self.repeat)

    def example(self) -> Example:
        """Return the example that this sample answers."""
        return Example(self.id, self.fields, self.gold, self.group, self.category)


@dataclass(frozen=True, slots=True)
class JudgeQuestion:
    """What a judge is asked about one response.

    `key` tells the questions about one response apart (``reference-first``). `system` is a system message, for judges
    whose chat template knows one.
    """

    key: str
    instruction: str
    generation: Generation
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge's replies to all questions about one response come to.

    `verdict` is one of the scorer's verdicts, or ``unreadable``; `scores` that are not known are NaN. `against` is the
    text that the response was compared with, if any.
    """

    verdict: str
    scores: Scores
    against: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A sample and what the judge's replies to it come to; `replies` are the judge's words by question."""

    sample: Sample
    judgement: Judgement
    replies: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its uncertainty: `value` over `n` samples, standard error, 95% interval, and how it was made."""

    value: float
    n: int
    stderr: float
    low: float
    high: float
    method: str


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file that was read: its name in the layout, the sha256 of its bytes, and the hub's revision if any."""

    name: str
    sha256: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class PluginSource:
    """Where a plugin comes from."""

    kind: str
    name: str
    distribution: str
    version: str


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a tracker is told when a run or a training begins."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
