"""The loss of a model on files: what a validation computes, document by document, without a training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.calls import answered, blamed
from harness.errors import ConfigError, DataError, ModelError
from harness.interfaces import Engine
from harness.models import find_model
from harness.prompts import NO_OPTIONS, FormatOptions
from harness.statistics.ratio import clustered_ratio
from harness.training.batch import Batch
from harness.training.data.packing import IGNORE, DocumentRows, Loss
from harness.training.data.texts import BadRows, Columns, read_texts, training_format
from harness.training.data.tokens import Tokens, cache_folder, fitting, tokenize
from harness.training.options import TrainingOptions
from harness.types import Continuation, Estimate, Generation, Prompt, Request

if TYPE_CHECKING:
    from harness.training.model.network import Network
    from harness.training.parallel import Ranks

#: Tokens a row at least, and about as many in a microbatch.
_WIDTH, _TOGETHER = 2048, 16_384


@dataclass(frozen=True)
class FileLoss:
    """What a model loses on the documents of a file, in nats a token and in bits a byte of the text that is counted.

    Intervals are of another sample of as many documents; `tokens` and `bytes` are those that count.
    """

    name: str
    loss: Estimate
    bits_per_byte: Estimate
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> Estimate:
        """e to the loss, likewise its interval."""
        ends = (math.exp(end) for end in (self.loss.value, self.loss.low, self.loss.high))
        value, low, high = ends
        return replace(self.loss, value=value, stderr=value * self.loss.stderr, low=low, high=high)


@dataclass(frozen=True)
class Losses:
    """The losses of a model: by file, of all together, and by document.

    `totals` are nats, `tokens` and `bytes` what they are of, each [documents] in the order of `documents`, which says
    where each comes from. `cut` counts documents that are longer than the model can attend to and were read in pieces.
    `alone` says why documents were read one by one, where the model cannot keep those of a row apart.
    """

    documents: Tokens
    totals: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    cut: int
    format: str
    alone: str | None = None

    def files(self) -> list[FileLoss]:
        """Return the losses of each file, and of all where there are several."""
        ends = np.cumsum(self.documents.counts).tolist()
        parts = [
            (name, slice(end - count, end))
            for name, count, end in zip(self.documents.files, self.documents.counts, ends, strict=True)
        ]
        return [self._of(*part) for part in [*parts, *([("all", slice(None))] if len(parts) > 1 else [])]]

    def _of(self, name: str, part: slice) -> FileLoss:
        counted = self.tokens[part] > 0
        totals, tokens, size = (each[part][counted] for each in (self.totals, self.tokens, self.bytes))
        return FileLoss(
            name, clustered_ratio(totals, tokens), clustered_ratio(totals / math.log(2), np.maximum(size, 1)),
            int(tokens.sum()), int(size.sum()),
        )  # fmt: skip


def measure_loss(
    files: Sequence[str | Path],
    model: str,
    *,
    loss: Loss = "responses",
    columns: Columns | None = None,
    prompt_format: str | None = None,
    on_bad_rows: BadRows = "refuse",
    device: str = "auto",
    said: FormatOptions = NO_OPTIONS,
    engine: Engine | None = None,
) -> Losses:
    """Return the losses of a model on texts, in the prompt format that a training would take where that is `said`.

    An `engine` that says how likely texts are runs the model in the place of this process's own network on `device`.
    Raises ConfigError, DataError or ModelError for what cannot be read, asked or loaded.
    """
    if engine is not None and not getattr(engine, "gives_likelihoods", False):
        raise ConfigError(f"the engine {engine.name!r} does not say how likely texts are; transformers and vllm do")
    folder = find_model(model)
    tokenizer: Any = folder.tokenizer
    form = training_format(model, prompt_format, tokenizer, said).format
    texts = read_texts(files, columns=columns, on_bad_rows=on_bad_rows, fits=fitting(form, tokenizer))
    tokens = tokenize(texts, form, tokenizer, cache=cache_folder())
    folder.check_vocabulary(tokens.largest)
    longest = max(int(tokens.lengths.max(initial=0)), _WIDTH)
    width = min(longest, folder.context or longest)
    rows = DocumentRows(tokens, width, documents=np.arange(len(tokens)), loss=loss)
    if not len(rows):
        raise DataError(f"{', '.join(map(str, files))}: nothing in it that a loss could be computed of")
    if engine is None:
        totals, counts, alone = _by_network(model, rows, width, device)
    else:
        (totals, counts), alone = _by_engine(engine, model, rows), None
    if len(wrong := np.flatnonzero(~np.isfinite(totals))):
        raise ModelError(
            f"{model}: the loss of {len(wrong)} of {len(tokens)} documents is no number (the first is "
            f"{tokens.place(int(wrong[0]))}): its weights are damaged, or overflow as they are computed"
        )
    sizes = np.array([_bytes(tokens, number, loss, tokenizer) for number in range(len(tokens))], np.int64)
    return Losses(tokens, totals, counts, sizes, rows.report.cut, form.name, alone)


def _by_network(
    model: str, rows: DocumentRows, width: int, device: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], str | None]:
    """Return what `summed_losses` does, and why documents were read one by one, if they were."""
    from harness.training.loop import prepare_process
    from harness.training.model.network import load_network
    from harness.training.model.suitable import NotApartError
    from harness.training.parallel import join, leave

    size = rows_together(width)
    options = TrainingOptions(sequence_length=width, microbatch_size=size, device=device, compile=False)
    prepare_process()
    ranks = join(device)
    alone: str | None = None
    try:
        try:
            network = load_network(model, options, ranks, packed=True).eval()
        except NotApartError as error:
            alone = str(error).partition("; ")[0]
            network = load_network(model, options, ranks, packed=False).eval()
        totals, counts = summed_losses(network, rows, size, ranks, alone=alone is not None)
    finally:
        leave()
    return totals, counts, alone


def _by_engine(engine: Engine, model: str, rows: DocumentRows) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the nats of each document, and of how many tokens they are, as an engine finds them."""
    totals, counts = np.zeros(len(rows.source)), np.zeros(len(rows.source), np.int64)
    with blamed(engine):
        loaded = engine.load(model)
    try:
        for document, request, completion in answered(engine, loaded, _spans(rows)):
            if completion.error is not None:
                raise ModelError(f"document {document + 1} (counted from 1): {completion.error}")
            totals[document] -= sum(completion.continuations)
            counts[document] += sum(len(each.token_ids) - each.start for each in request.continuations)
    finally:
        loaded.close()
    return totals, counts


def _spans(rows: DocumentRows) -> Iterator[tuple[int, Request]]:
    """Yield, with its document, each run of tokens that count, as the continuation of all before them."""
    nothing = Generation(max_tokens=1)
    numbers = count()
    for batch, owners in _batches(rows, 1, True):
        ids, labels = batch.input_ids.flatten().tolist(), batch.labels.flatten().numpy()
        edges = np.flatnonzero(np.diff(np.concatenate([[False], labels != IGNORE, [False]]).astype(np.int8)))
        for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            before = tuple(ids[: first + 1])
            whole = Continuation("", "", (*before, *labels[first:end].tolist()), len(before))
            prompt = Prompt("", token_ids=before)
            yield (
                int(owners[first]),
                Request(str(next(numbers)), prompt, nothing, continuations=(whole,), generated=False),
            )


def rows_together(width: int) -> int:
    """Return how many rows of a `width` are read at a time."""
    return max(1, _TOGETHER // width)


def summed_losses(
    network: Network, rows: DocumentRows, size: int, ranks: Ranks, *, alone: bool = False
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the nats of each document, and of how many tokens they are.

    `size` rows are read at a time, or each document `alone`.
    """
    import torch

    from harness.training.model.attention import fastest_kernels
    from harness.training.model.logprobs import selected_logprobs

    totals, counts = np.zeros(len(rows.source)), np.zeros(len(rows.source), np.int64)
    with torch.no_grad(), fastest_kernels(ranks.device):
        for batch, owners in _batches(rows, size, alone):
            labels = batch.labels.flatten()
            learned = torch.nonzero(labels != IGNORE).flatten()
            if not len(learned):
                continue
            there, chosen = batch.to(ranks.device), learned.to(ranks.device)
            hidden = network.hidden(there)[chosen]  # positions that count nothing need no logits
            found = -selected_logprobs(hidden, network.lm_head, there.labels.flatten()[chosen])
            np.add.at(totals, owners[learned.numpy()], found.cpu().double().numpy())
            np.add.at(counts, owners[learned.numpy()], 1)
    return totals, counts


def _batches(rows: DocumentRows, size: int, alone: bool) -> Iterator[tuple[Batch, npt.NDArray[np.int64]]]:
    """Yield what is read at a time, with the document that each of its positions belongs to."""
    for start in range(0, len(rows), 1 if alone else size):
        numbers = range(start, min(start + (1 if alone else size), len(rows)))
        batch, owners, at = rows.batch(numbers, len(numbers)), _owners(rows, numbers), 0
        if not alone:
            yield batch, owners
        for length in rows.lengths(start) if alone else ():
            part = slice(at, at + length)
            ids, labels, places = (each[:, part] for each in (batch.input_ids, batch.labels, batch.position_ids))
            yield Batch(ids, labels, places, None, length), owners[part]
            at += length


def _owners(rows: DocumentRows, numbers: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the document that each position of a batch of these rows belongs to, 0 where it is padding."""
    owners = np.zeros((len(numbers), rows.width), np.int64)
    for place, number in enumerate(numbers):
        spans = np.repeat(rows.documents(number), rows.lengths(number))
        owners[place, : len(spans)] = spans
    return owners.ravel()


def _bytes(tokens: Tokens, number: int, loss: Loss, tokenizer: Any) -> int:
    """Return the bytes of the text whose tokens are counted in a document."""
    first, last = map(int, tokens.offsets[number : number + 2])
    counted = tokens.ids[first + 1 : last] if loss == "all" else tokens.ids[first:last][tokens.learned(first, last)]
    return len(tokenizer.decode(counted.tolist(), skip_special_tokens=True).encode())
