"""The trainer ``sft``: its options, its plan and its loss."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness import __version__
from harness.engines.models import model_digest
from harness.interfaces import TrainingRun
from harness.training.options import FREE, TrainingOptions
from harness.training.packing import PackedRows
from harness_sft.data import Data, prepare

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.batch import Batch
    from harness.training.network import Network

_DATA = {"data", "columns", "validation", "prompt_format"}  # the digests of data and format say more


@dataclass(frozen=True)
class SFT(TrainingOptions):
    """Supervised fine-tuning.

    Attributes:
        data: files of demonstrations: names, or tables of ``file``, ``weight`` (how often an epoch holds its texts, 1
            by default) and ``columns``. columns: the names of columns in files that name no others, where they are not
            the usual ones (see `harness.training.texts`).
        prompt_format: how instructions are wrapped; by default what `harness.training.texts.training_format` chooses.
        packing: ``documents`` lays whole documents side by side in rows, each seeing only itself; ``concat`` cuts one
            stream of all documents (shuffled unless shuffle is false) every sequence_length tokens, as CS336's
            assignment does.
        sequence_length: tokens a row. overlong: what becomes of documents longer than a row (``documents`` only).
        loss_on: ``responses``, with their end tokens, or ``all`` tokens.
        validation: files to validate on, given likewise; or validation_documents: how many documents of the data are
            held out for it.
    """

    name: ClassVar[str] = "sft"

    data: tuple[str | Mapping[str, Any], ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    prompt_format: str | None = None
    packing: Literal["documents", "concat"] = "documents"
    shuffle: bool = True
    sequence_length: int = 2048
    overlong: Literal["split", "drop"] = "split"
    loss_on: Literal["responses", "all"] = "responses"
    validation: tuple[str | Mapping[str, Any], ...] = ()
    validation_documents: int = 0

    def __post_init__(self) -> None:
        TrainingOptions.__post_init__(self)
        if self.sequence_length < 1:
            raise ValueError(f"sequence_length must be at least 1, not {self.sequence_length}")
        if self.validation_documents < 0:
            raise ValueError(f"validation_documents must be 0 or more, not {self.validation_documents}")

    def plan(self, run: TrainingRun) -> str:
        """Return what training would do, and the first row that it would be trained on."""
        return _describe(self, run, prepare(self, run))

    def train(self, run: TrainingRun) -> Path:
        """Train, or go on training, and return the folder with the model."""
        from harness.training.loop import Job, train

        data = prepare(self, run)
        if os.environ.get("RANK", "0") == "0":
            import click

            click.echo(_describe(self, run, data), err=True)
        options = {name: value for name, value in dataclasses.asdict(self).items() if name not in FREE | _DATA}
        form = data.choice.format
        identity = {
            "trainer": self.name, "model": model_digest(run.model), "data": data.digest, "prompt_digest": form.digest,
            **options,
        }  # fmt: skip
        card = {
            **form.card(), "trainer": self.name, "base_model": run.model, "recipe": run.recipe, "harness": __version__,
        }  # fmt: skip
        return train(
            Job(run, self, nll, data.rows, data.validation, self.packing == "documents", data.tokenizer, identity, card)
        )


def nll(network: Network, batch: Batch, scale: float) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Return `scale` · Σ −log p over the labels of a microbatch, and the unscaled sum as the metric ``loss``."""
    from harness.training.logprobs import summed_nll

    loss = summed_nll(network.hidden(batch), network.lm_head, batch.labels.flatten(), scale)
    return loss, {"loss": loss.detach() / scale}


def _describe(options: SFT, run: TrainingRun, data: Data) -> str:
    from harness.training.outlook import Outlook, memory_text

    report, outlook = data.rows.report, Outlook.of(options, run.model, len(data.rows))
    microbatches = -(-options.batch_size // (options.microbatch_size * outlook.world))
    validation = "none" if data.validation is None else f"{data.validation.report.documents:,} documents"
    lines = [
        f"model       {outlook}",
        f"format      {data.choice.format.name} ({data.choice.reason})",
        f"data        {report.documents:,} documents, {report.tokens:,} tokens, {report.labels:,} of them learned",
        f"rows        {report.rows:,} of {report.width:,} tokens, {report.fill:.1%} full; "
        f"{report.cut:,} documents cut, {report.dropped:,} dropped, {report.lost_tokens:,} tokens in no row",
        f"validation  {validation}",
        f"steps       {outlook.steps:,} of {options.batch_size} rows ({microbatches} x "
        f"{options.microbatch_size} on {outlook.world} of {outlook.device.type}), {outlook.warmup_text}",
        f"memory      {memory_text(outlook.memory(options, options.sequence_length))}",
        "",
        *_first(options, data),
    ]
    return "\n".join(lines)


def _first(options: SFT, data: Data) -> list[str]:
    """Return the first row of the first step as text, what is not learned and what is by turns."""
    from harness.training.batch import step_rows
    from harness.training.outlook import shortened

    [index, *_] = step_rows(len(data.rows), options.batch_size, options.seed, 0)
    lines = [f"first row ({shortened(data.rows.describe(index), 200)}):"]
    for learned, group in groupby(_tokens_of(data.rows, index), key=lambda token: token[1]):
        text = data.tokenizer.decode([token for token, _ in group])
        lines.append(f"  {'learned' if learned else 'read   '} {shortened(repr(text), 600)}")
    return lines


def _tokens_of(rows: PackedRows, index: int) -> Iterator[tuple[int, bool]]:
    """Yield the tokens of a row, document by document, each with whether it is learned; a label is the next token."""
    batch = rows.batch([index])
    ids, labels = batch.input_ids[0].tolist(), batch.labels[0].tolist()
    filled = int(rows.tokens[index])
    ends = [filled] if batch.borders is None else [end for end in batch.borders.tolist()[1:] if end <= filled]
    for start, end in pairwise([0, *ends]):
        learned = [label != -100 for label in labels[start:end]]
        yield from zip(ids[start:end], [False, *learned[:-1]], strict=True)
        if learned[-1]:
            yield labels[end - 1], True
