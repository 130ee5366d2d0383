"""What every training on the harness's loop does alike: reading the data, the plan, the identity, the card and the job.

A trainer is a dataclass of options with one method, which says what is trained on and what is made small:

    @dataclass(frozen=True)
    class Plain(LoopTrainer):
        name: ClassVar[str] = "plain"

        def prepare(self, session: Session) -> Training:
            rows = DocumentRows(session.tokens(session.texts()), self.sequence_length)
            return Training(rows, nll, rows.digest)
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import configure
from harness.errors import ConfigError, ModelError
from harness.interfaces import TrainingRun
from harness.models import ModelFolder, find_model
from harness.prompts import format_options, read_checkpoint_file
from harness.training.batch import TrainingRows
from harness.training.data.contamination import Overlap, Part, against
from harness.training.data.packing import DocumentRows
from harness.training.data.texts import Learn, Texts, read_texts, training_format
from harness.training.data.tokens import Tokens, cache_folder, fitting, tokenize
from harness.training.model.choice import CHOSEN
from harness.training.options import Attention, TrainingOptions
from harness.training.plan import Chosen, Plan, choose, refuse_uneven
from harness.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.batch import Batch
    from harness.training.loop import Job
    from harness.training.model.network import Network, Objective
    from harness.training.parallel import Ranks


@dataclass(frozen=True)
class Training:
    """What a trainer gives: rows, what is made small over them, and facts of its own.

    Attributes:
        rows: what is trained on. objective: the loss of a microbatch of `rows`, and of `validation` where there is any.
        digest: of all that is learned from and validated on. identity: what else must be equal for a training to be
            resumed, beside the options, the model and the prompt format.
        packed: whether rows hold documents that must not see each other.
        facts: lines of the plan, by their heads. example: the first row of the first step, as text.
        best: the metric whose validation figure picks ``best/``: the lowest, or the highest if `highest`. baseline:
            whether there is a validation before the first step too; it picks nothing.
        reference: whether a second copy of the model stands beside the one that is trained. attention: the kernel where
            the options leave it open.
        texts: gives what the data says, text by text, for benchmarks that it is held against.
        opening: what is done with the output folder held, before the model is loaded.
    """

    rows: TrainingRows
    objective: Objective
    digest: str
    validation: TrainingRows | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    packed: bool = True
    facts: Mapping[str, str] = field(default_factory=dict)
    example: str = ""
    best: str = "loss"
    highest: bool = False
    baseline: bool = False
    reference: bool = False
    attention: Attention = "auto"
    opening: Callable[[Ranks], None] = lambda ranks: None
    texts: Callable[[], Iterable[Part]] = tuple


class LoopTrainer(TrainingOptions, ABC):
    """A trainer on the harness's loop; a dataclass of its options, see the top of this module."""

    @abstractmethod
    def prepare(self, session: Session) -> Training:
        """Read the data and return what is trained on; load no weights and write nothing but caches.

        Raises ConfigError for options that do not fit each other or the model, DataError for data that cannot be used.
        """

    def plan(self, run: TrainingRun) -> str:
        """Return what training would do, and the first row that it would be trained on."""
        session = Session(self, run)
        training = self.prepare(session)
        session.choose(training)
        return session.plan(training)

    def train(self, run: TrainingRun) -> Path:
        """Train, or go on training, and return the folder with the model."""
        from harness.training.loop import train

        session = Session(self, run)
        training = self.prepare(session)
        session.choose(training)
        if session.main:
            import click

            click.echo(session.plan(training), err=True)
        return train(session.job(training))


class TextTrainer(LoopTrainer):
    """A trainer on prompts and responses: a dataclass of its options with one method, the `loss` of a token.

    The texts of the data, in the prompt format, are packed side by side into rows in which none sees another; their
    responses are learned. A trainer that reads or packs them otherwise is a `LoopTrainer`.
    """

    @abstractmethod
    def loss(self, logprobs: Tensor) -> Tensor:
        """Return the loss of each token of a response, given its log-probabilities (nats, fp32, of any shape)."""

    def prepare(self, session: Session) -> Training:
        """Return the rows, with what the plan says of them."""
        rows = DocumentRows(
            session.tokens(session.texts()), self.sequence_length, loss="responses", seed=self.seed
        ).checked()
        return Training(rows, self.objective, rows.digest, facts={"files": readings_text(rows.source)})

    def objective(self, network: Network, batch: Batch, scale: float | Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return `scale` times the loss summed over the labels of a microbatch, and the sum as the metric ``loss``."""
        from harness.training.model.logprobs import IGNORED, selected_logprobs

        labels = batch.labels.flatten()
        losses = self.loss(selected_logprobs(network.hidden(batch), network.lm_head, labels))
        total = losses.where(labels != IGNORED, 0.0).sum()
        return scale * total, {"loss": total.detach()}


class Session:
    """One training of a model with options: the model's folder, the prompt format, and what comes of a `Training`.

    Raises ConfigError where no data is given, a row would be longer than the model's context, or there is no such
    prompt format; ModelError for a model that cannot be found.
    """

    def __init__(self, options: TrainingOptions, run: TrainingRun) -> None:
        self.options, self.run = options, run
        self._overlaps: Mapping[str, Overlap] | None = None
        self._chosen: Chosen | None = None
        if not options.data:
            name = options.name
            raise ConfigError(f"""no data given: data = ["FILE"] under [{name}], or --set '{name}.data=["FILE"]'""")
        self.model: ModelFolder = find_model(run.model)
        refuse_quantized(self.model, options.name)
        limit, length = self.model.context, options.sequence_length
        if limit is not None and length > limit:
            raise ConfigError(f"{options.name}.sequence_length={length} is above the model's {limit:,} tokens")
        self.tokenizer: Any = self.model.tokenizer
        said = format_options(options.system, options.template, options.chat_template)
        self.choice = training_format(run.model, options.prompt_format, self.tokenizer, said)
        self.format = self.choice.format

    @property
    def world(self) -> int:
        """How many processes train together."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def main(self) -> bool:
        """Whether this is the process that talks."""
        return os.environ.get("RANK", "0") == "0"

    def texts(self, entries: Sequence[str | Mapping[str, Any]] | None = None, learn: Learn = "last") -> Texts:
        """Return the texts of files, by default those of the options.

        An entry is a name, or a table of ``file``, ``weight`` and ``columns``; one without columns has the options'.
        `learn` says what is learned of conversations: the last response or all.
        """
        what = f"an entry of {self.options.name}'s data"
        files = [
            _Entry(entry) if isinstance(entry, str) else configure(_Entry(), entry, what)
            for entry in (self.options.data if entries is None else entries)
        ]
        if not all(file.file for file in files):
            raise ConfigError('an entry of the data names no file: { file = "train.jsonl", weight = 2 }')
        return read_texts(
            [file.file for file in files],
            columns=[file.columns or self.options.columns for file in files],
            weights=[file.weight for file in files],
            learn=learn,
            on_bad_rows=self.options.on_bad_rows,
            fits=fitting(self.format, self.tokenizer),
        )

    def tokens(self, texts: Texts) -> Tokens:
        """Return texts in the prompt format as token ids; ModelError where the model has no embedding of one."""
        tokens = tokenize(texts, self.format, self.tokenizer, cache=cache_folder())
        self.model.check_vocabulary(tokens.largest)
        return tokens

    def choose(self, training: Training) -> None:
        """Choose how a training is computed where the options leave it to the GPU (``memory = "auto"``).

        What was chosen stands in `options` from then on. A training that goes on keeps what it began with, as long as
        that fits. Raises ConfigError where nothing fits, or float8 cannot multiply what was given.
        """
        plan = self._plan(training)
        if self.options.memory == "given":
            refuse_uneven(plan)
            return
        from harness.training.checkpoint.folder import TRAINING

        self._chosen = chosen = choose(plan, self.run.out / TRAINING)
        if chosen.choice is not None:
            self.options = options = chosen.choice.of(self.options)
            training.rows.fit(
                options.batch_size, options.microbatch_size, self.world, options.seed, training.validation
            )  # fmt: skip

    def _plan(self, training: Training) -> Plan:
        return Plan(self.options, self.model, training.rows, self.world, training.reference)

    def plan(self, training: Training) -> str:
        """Return, for people, what a training would do, with its first row."""
        plan = self._plan(training)
        facts = {
            "model": str(plan),
            "format": f"{self.format.name} ({self.choice.reason})",
            **training.facts,
            **self._against_facts(training),
            "steps": plan.steps_text,
            **({} if self._chosen is None else {"chosen": self._chosen.text}),
            "memory": plan.memory_text,
        }
        lines = [f"{name:<12}{fact}" for name, fact in facts.items()]
        return "\n".join([*lines, *(["", training.example] if training.example else [])])

    def contamination(self, training: Training) -> Mapping[str, Overlap]:
        """Return what the data shares with the items of each benchmark that the options name."""
        if self._overlaps is None:
            found = against(self.options.against, self.options.against_data, training.texts)
            self._overlaps = {each.benchmark: each for each in found}
        return self._overlaps

    def _against_facts(self, training: Training) -> dict[str, str]:
        lines = [line for found in self.contamination(training).values() for line in found.lines()]
        return {"against": f"\n{'':<12}".join(line.removeprefix("against ") for line in lines)} if lines else {}

    def _contamination_card(self, training: Training) -> dict[str, Any]:
        """Return what harness.json says of items that the data holds, those that the model below was trained on too."""
        cards = dict(read_checkpoint_file(Path(self.run.model)).get("contamination", {}))
        for name, found in self.contamination(training).items():
            before = cards.get(name, {}).get("found", [])
            cards[name] = {**found.card(), "found": list(dict.fromkeys([*before, *found.ids]))}
        return {"contamination": cards} if cards else {}

    def job(self, training: Training) -> Job:
        """Return what the loop is to do."""
        from harness.training.loop import Job

        options = self.options
        if options.attention == "auto":
            options = replace(options, attention=training.attention)
        identity = {
            "trainer": options.name, "model": self.model.digest, "data": training.digest,
            "prompt_digest": self.format.digest, **training.identity, **options.identity(),
        }  # fmt: skip
        if self._chosen is not None and self._chosen.choice is not None:
            identity[CHOSEN] = self._chosen.choice.record()
        card = {
            **self.format.card(), "trainer": options.name, "base_model": self.run.model, "recipe": self.run.recipe,
            "harness": __version__, **self._contamination_card(training),
        }  # fmt: skip
        return Job(
            self.run, options, training.objective, training.rows, training.validation, training.packed, self.tokenizer,
            identity, card, training.best, training.highest, training.baseline, training.opening,
        )  # fmt: skip


@dataclass(frozen=True)
class _Entry:
    """A table among the data files; `weight` is how often an epoch holds each of its texts."""

    file: str = ""
    weight: float = 1.0
    columns: Mapping[str, str] = field(default_factory=dict)


def refuse_quantized(model: ModelFolder, trainer: str) -> None:
    """Raise ModelError for a model whose weights are kept in few bits: nothing could be learned or saved in them."""
    kept = model.config.get("quantization_config")
    if kept is not None:
        method = kept.get("quant_method", "unknown") if isinstance(kept, Mapping) else kept
        raise ModelError(
            f"{model}: its weights are quantized already ({str(method)[:40]!r}), and such are not trained; give the "
            f"model that it was made of, on which adapters can be trained in 4 bits ({trainer}.lora_rank=16, "
            f"{trainer}.base_bits=4)"
        )


def readings_text(tokens: Tokens) -> str:
    """Return what became of each file, in lines of a plan."""
    lines = (line for name, read in zip(tokens.files, tokens.readings, strict=False) for line in read.lines(name))
    return f"\n{'':<12}".join(lines)


def shortened(text: str, limit: int) -> str:
    """Return `text` without its middle where it is longer than about `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"
