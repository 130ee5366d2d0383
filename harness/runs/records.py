"""What run.json, results.json and timing.json say, as typed records; `read_record` makes them of JSON and checks it.

A file that was edited by hand, or written by another program, is refused with the place that does not fit. Keys that
are not named here may be there too. A record does not change: what a run gains is written by `harness.runs.folder.Run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from harness import statistics, types
from harness.errors import RunError
from harness.statistics import GroupsAre
from harness.types import DataFile, PluginSource

#: Of whole numbers, those that are written without a fraction stay so.
Number: TypeAlias = int | float

_Record = TypeVar("_Record", bound=msgspec.Struct)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Fields as JSON has them."""


class Gpu(Record, frozen=True, kw_only=True):
    """A GPU of the machine, with its memory in GiB."""

    name: str
    memory_gib: float


class Hardware(Record, frozen=True, kw_only=True):
    """The machine."""

    platform: str = ""
    cores: int | None = None
    gpus: list[Gpu] = []


class Git(Record, frozen=True, kw_only=True):
    """The state of the repository that a command was given in."""

    commit: str
    dirty: bool


class ChosenFormat(Record, frozen=True, kw_only=True):
    """A prompt format and why it was taken."""

    name: str
    reason: str = ""


class Format(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A prompt format, the digest of what it says, and what the user said about it."""

    name: str = ""
    digest: str = ""
    options: dict[str, Any] = {}


class Configured(Record, frozen=True, kw_only=True):
    """A plugin with its options, which stand beside its name."""

    name: str
    options: dict[str, Any] = {}


class Command(Record, frozen=True, kw_only=True):
    """The options that a run was made with, as `harness.evaluation.plan.RunOptions` has them.

    What is empty was not given; `more` is what else stands there.
    """

    benchmark: list[str] = []
    model: str = ""
    engine: str = ""
    prompt_format: str | None = None
    data: str | None = None
    out: str = ""
    limit: int | None = None
    seed: int = 0
    samples: int = 1
    judge_model: str | None = None
    judge_engine: str = ""
    judge_prompt_format: str | None = None
    system: str | None = None
    template: str | None = None
    trackers: list[str] = []
    groups_are: GroupsAre = "auto"
    parsers: list[str] = []
    scorer: str | None = None
    scoring: str = "generated"
    trained_on: list[str] = []
    options: dict[str, Any] = {}
    more: dict[str, Any] = {}


class HasCommand(Record, frozen=True, kw_only=True):
    """The part of run.json that makes a run again."""

    command: Command


class Identity(Record, frozen=True, kw_only=True):
    """What outputs and scores depend on, of which a run's fingerprint is made; `more` is what else stands there."""

    benchmark: dict[str, Any] = {}
    generation: dict[str, Any] = {}
    model: dict[str, Any] = {}
    engine: str = ""
    prompt_format: Format = Format()
    chat_template: str | None = None
    parsers: list[Configured] = []
    scorer: dict[str, Any] = {}
    examples: str = ""
    plugins: list[PluginSource] = []
    limit: int | None = None
    seed: int | None = None
    samples: Annotated[int, msgspec.Meta(ge=1)] = 1
    more: dict[str, Any] = {}

    @property
    def weights(self) -> str | None:
        """The digest of the model's weights; None where the engine knows none, as of a server or recorded outputs."""
        digest = self.model.get("model_digest")
        return None if digest is None else str(digest)

    @property
    def benchmark_options(self) -> dict[str, Any]:
        """The benchmark's own options, without how answers are sampled, which stands in `generation`."""
        return {name: value for name, value in self.benchmark.items() if name not in ("name", "generation")}


class Formerly(Record, frozen=True, kw_only=True):
    """The versions of libraries that made the `samples` before those of a later entry."""

    versions: dict[str, str]
    samples: int


class Contamination(Record, frozen=True, kw_only=True):
    """Examples that share 13 words in a row with what the model was trained on, by id, and from where that is known.

    `sources` are files of training data, and harness.json where the checkpoint says it.
    """

    sources: list[str]
    found: list[str]


class ImportedFile(Record, frozen=True, kw_only=True):
    """A file that outputs were imported from, and the sha256 of its bytes."""

    name: str
    sha256: str


class Imported(Record, frozen=True, kw_only=True):
    """Where an imported run comes from.

    `tool` recorded the outputs, in `version`, and `format` read its files; `settings` are what these say of how the
    outputs were made. `by_id` and `by_text` count the examples that were found by their ids and by the question's text.
    """

    format: str
    tool: str
    version: str | None = None
    model: str | None = None
    files: list[ImportedFile] = []
    settings: dict[str, Any] = {}
    by_id: int = 0
    by_text: int = 0


class RunRecord(Record, frozen=True, kw_only=True):
    """run.json: everything that defines a run.

    `examples` counts those of the benchmark, `selected` those that the run takes, `samples` what it takes of each.
    `created` is a time in ISO format. `imported` is set where no model was asked, but outputs were read that another
    tool had recorded. `formerly` has an entry for each time that the run was resumed under other versions of the
    libraries; `notices` are what an engine had to do otherwise than it was asked.
    """

    format: int
    harness: str = ""
    fingerprint: str = ""
    benchmark: str
    model: str
    engine: str
    command: Command
    prompt_format: ChosenFormat
    parsers: list[str]
    scorer: str
    examples: int | None = None
    selected: int
    data: list[DataFile]
    plugins: list[PluginSource] = []
    identity: Identity
    imported: Imported | None = None
    contamination: Contamination | None = None
    created: str = ""
    versions: dict[str, str] = {}
    formerly: list[Formerly] = []
    notices: list[str] = []
    git: Git | None = None
    hardware: Hardware = Hardware()

    @property
    def samples(self) -> int:
        """How many samples the run takes of each example."""
        return self.identity.samples

    @property
    def headline(self) -> str | None:
        """The parser whose figures stand for the run's; None where there is none."""
        return next(iter(self.parsers), None)


class Estimate(Record, frozen=True, kw_only=True):
    """A `harness.types.Estimate` as it is recorded: None where a number is not known."""

    value: Number | None
    n: int
    stderr: Number | None
    low: Number | None
    high: Number | None
    method: str

    @classmethod
    def of(cls, estimate: types.Estimate) -> Estimate:
        """Return an estimate as it is recorded."""
        return cls(
            value=_known(estimate.value),
            n=estimate.n,
            stderr=_known(estimate.stderr),
            low=_known(estimate.low),
            high=_known(estimate.high),
            method=estimate.method,
        )


#: Metric → estimate, of one reader: a parser or a judge.
Metrics: TypeAlias = dict[str, Estimate]

#: Reader → metric → estimate.
MetricsByReader: TypeAlias = dict[str, Metrics]

#: The name of a metric → the least and the greatest value that it could have.
Bounds: TypeAlias = dict[str, tuple[Number | None, Number | None]]


class Variance(Record, frozen=True, kw_only=True):
    """A `harness.statistics.Variance` as it is recorded, with the share of it that lies between examples."""

    between: Number
    within: Number
    share_between: Number | None

    @classmethod
    def of(cls, variance: statistics.Variance) -> Variance:
        """Return a variance as it is recorded."""
        return cls(between=variance.between, within=variance.within, share_between=_known(variance.share_between))


class Count(Record, frozen=True, kw_only=True):
    """How many samples are of some kind, and the first ids of them."""

    count: int
    ids: list[str]


class Reason(Record, frozen=True, kw_only=True):
    """Why samples failed: one of them in the words of the error, how many failed alike, and the first one's id."""

    reason: str
    count: int
    id: str


class Failures(Count, frozen=True, kw_only=True, omit_defaults=True):
    """How many samples failed, the first ids of them, and the most frequent reasons."""

    reasons: list[Reason] = []


class JudgedBy(Record, frozen=True, kw_only=True):
    """Who judged, and how it was asked.

    `judge` is the model as it was named, `digest` stands for all that verdicts depend on beside the responses.
    """

    judge: str = ""
    engine: str
    model: dict[str, Any] = {}
    prompt_format: Format
    chat_template: str | None = None
    scorer: str = ""
    options: dict[str, Any]
    inputs: dict[str, Any] = {}
    digest: str = ""
    warnings: list[str]


class JudgeRecord(JudgedBy, frozen=True, kw_only=True):
    """What a judge said of a run, and how it was asked.

    `n` samples have a judgement, of which `verdicts` are counts and `unreadable` the others; `failed` have none.
    `details` are the scorer's, beside the other keys in the file.
    """

    n: int
    verdicts: dict[str, int]
    unreadable: Count
    failed: Failures
    details: dict[str, Any] = {}

    def __post_init__(self) -> None:
        msgspec.convert(self.details.get("bounds", {}), Bounds)
        msgspec.convert(self.details.get("first_shown", (0, 0, 0)), tuple[Number, Number, Number])
        msgspec.convert(self.details.get("self_preference", {}), dict[str, tuple[Number, Number, Number, int]])

    @property
    def bounds(self) -> Bounds:
        """What metrics could be, whatever the unreadable replies were meant to say."""
        return {metric: (low, high) for metric, (low, high) in self.details.get("bounds", {}).items()}


class Results(Record, frozen=True, kw_only=True, omit_defaults=True):
    """results.json. `judges` is None where nothing is judged, and empty where nothing has been yet.

    `n` counts samples, of which there are `samples` of each example; metrics count examples. `variance` says, by
    reader, where that of its first metric lies. `disagreeing` counts, by parser, letters that stand beside another
    option's text, where there are any; `cut_thinking` outputs that were cut off in a thought, and `thoughts` others
    that are nothing but an unclosed one, None where there are none; `tokens` has those of thoughts where an engine
    counts them; `unknown_ends` imported outputs whose source does not say whether they were cut off.
    """

    benchmark: str
    n: int
    metrics: MetricsByReader
    categories: dict[str, MetricsByReader]
    groups: dict[str, MetricsByReader]
    unparsed: dict[str, Count]
    truncated: Count
    failed: Failures
    tokens: dict[str, int]
    disagreeing: dict[str, Count] = {}
    samples: Annotated[int, msgspec.Meta(ge=1)] = 1
    variance: dict[str, Variance] = {}
    thoughts: Count | None = None
    cut_thinking: Count | None = None
    unknown_ends: int = 0
    judges: dict[str, JudgeRecord] | None = None

    def __post_init__(self) -> None:
        for label in self.judged:  # which names a file
            if not label or label.startswith(".") or any(sign in label for sign in "/\\\0"):
                raise ValueError(f"{label!r} cannot name a judge: it is no plain name of a file")

    @property
    def judged(self) -> dict[str, JudgeRecord]:
        """What judges said, by their labels."""
        return self.judges or {}

    @property
    def outputs(self) -> int:
        """How many samples have an output: what unparsed and truncated ones are a share of. Failed ones have none."""
        return self.n - self.failed.count


class Session(Record, frozen=True, kw_only=True):
    """One process that generated: what it took in seconds, and what came of it; `examples` counts every sample."""

    load_seconds: float = 0.0
    generation_seconds: float = 0.0
    examples: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class JudgingSession(Record, frozen=True, kw_only=True):
    """One process that judged, what it ran on, and what its engine had to do otherwise than it was asked."""

    judge: str = ""
    load_seconds: float = 0.0
    generation_seconds: float = 0.0
    replies: int = 0
    completion_tokens: int = 0
    notices: list[str] = []
    versions: dict[str, str] = {}
    git: Git | None = None
    hardware: Hardware = Hardware()


class Timing(Record, frozen=True, kw_only=True):
    """timing.json: totals over the sessions, None where they are not known."""

    load_seconds: float | None = None
    generation_seconds: float | None = None
    examples_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    completion_tokens_per_second: float | None = None
    sessions: list[Session] = []
    judging: list[JudgingSession] = []


def _known(value: float) -> float | None:
    return None if isnan(value) else value


def as_record(content: Mapping[str, Any], kind: type[_Record], path: Path) -> _Record:
    """Return JSON data, read from `path`, as a record; RunError, naming the place, where it does not fit."""
    try:
        return msgspec.convert(_folded(content, kind), kind)
    except ValueError as error:  # of msgspec, for a key that is no UTF-8 too
        raise RunError(f"{path}: not as this version writes it ({error}); mend it, or run it --fresh") from error


def as_json(record: Record) -> dict[str, Any]:
    """Return a record as JSON data, its fields in the order in which they stand in a file."""
    content: dict[str, Any] = msgspec.to_builtins(record)
    if isinstance(record, Results):
        for judge in (content.get("judges") or {}).values():
            judge.update(judge.pop("details"))
    if isinstance(record, Timing) and not record.judging:
        del content["judging"]
    if isinstance(record, RunRecord):
        for name in ("formerly", "notices", "imported", "contamination"):
            if not content[name]:
                del content[name]
        identity, command = content["identity"], content["command"]
        for table in (identity, command):
            for name, usual in (("samples", 1), ("scoring", "generated"), ("trained_on", [])):
                if table.get(name) == usual:  # as it is where nothing is said of it
                    del table[name]
        identity.update(identity.pop("more"))
        command.update(command.pop("more"))
        identity["parsers"] = [{"name": each["name"], **each["options"]} for each in identity["parsers"]]
    return content


def _folded(content: Mapping[str, Any], kind: type[msgspec.Struct]) -> Any:
    """Return what a file says with the keys of plugins, which stand beside those of a record, in a field of it."""
    if kind is Results and isinstance(judges := content.get("judges"), dict):
        return {**content, "judges": {label: _apart(said, JudgeRecord, "details") for label, said in judges.items()}}
    found = dict(content)
    if "command" in found:
        found["command"] = _apart(found["command"], Command, "more")
    if isinstance(found.get("identity"), dict):
        identity = found["identity"] = _apart(found["identity"], Identity, "more")
        if isinstance(parsers := identity.get("parsers"), list):
            identity["parsers"] = [_apart(each, Configured, "options") for each in parsers]
    return found


def _apart(content: Any, kind: type[msgspec.Struct], field: str) -> Any:
    """Return an object with the keys that `kind` does not name put into its `field`."""
    if not isinstance(content, dict):
        return content
    names = {*kind.__struct_fields__} - {field}
    found = {name: value for name, value in content.items() if name in names}
    return {**found, field: {name: value for name, value in content.items() if name not in names}}
