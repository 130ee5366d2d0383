"""The trainer ``sft``: from data files to rows, its loss, and what its plan says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError
from harness.training.batch import Ints
from harness.training.data.contamination import parts_of
from harness.training.data.packing import DocumentRows, PackedRows, StreamRows, rows_digest
from harness.training.data.texts import Texts
from harness.training.data.tokens import Tokens, permutation
from harness.training.session import LoopTrainer, Session, Training, readings_text, shortened
from harness_sft.options import SFTOptions

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.batch import Batch
    from harness.training.model.network import Network


@dataclass(frozen=True)
class SFT(SFTOptions, LoopTrainer):
    """Supervised fine-tuning; its options are those of `SFTOptions`."""

    def prepare(self, session: Session) -> Training:
        """Return the rows, with what the plan says of them and the first one as text."""
        rows, validation = read_rows(self, session)
        report, drawn = rows.report, len(rows.source.draw(self.seed))
        held = validation.report.documents if validation is not None and validation.source is rows.source else 0
        equal = drawn - report.documents - held
        facts = {
            "files": readings_text(rows.source),
            "data": f"{report.documents:,} documents, {report.tokens:,} tokens, {report.labels:,} of them learned",
            "rows": f"{report.rows:,} of {report.width:,} tokens, {report.fill:.1%} full; "
            f"{report.cut:,} documents cut, {report.dropped:,} dropped, {report.lost_tokens:,} tokens in no row",
            "validation": "none"
            if validation is None
            else f"{validation.report.documents:,} documents"
            + (f"; {equal:,} others read alike and are not trained on" if equal > 0 else ""),
        }
        [first, *_] = rows.step(self.batch_size, self.seed, 0)
        return Training(
            rows, nll, rows_digest(rows, validation), validation,
            packed=rows.isolated, baseline=True, facts=facts, example=row_text(rows, first, session.tokenizer),
            texts=lambda: parts_of(session.texts(learn=self.learn)),
        )  # fmt: skip


def read_rows(options: SFTOptions, session: Session) -> tuple[PackedRows, PackedRows | None]:
    """Read, render, tokenise and pack the data; return rows to train on and rows to validate on, if any.

    Raises ConfigError for options that do not fit each other or the model, DataError for data that cannot be used.
    """
    if options.validation and options.validation_documents:
        raise ConfigError(f"give {options.name}.validation files or {options.name}.validation_documents, not both")
    if any(isinstance(entry, Mapping) and entry.get("weight", 1) != 1 for entry in options.validation):
        raise ConfigError("files to validate on have no weight: each of their texts counts once")
    if options.patience and not (options.validation or options.validation_documents):
        raise ConfigError(
            f"{options.name}.patience={options.patience} needs {options.name}.validation or "
            f"{options.name}.validation_documents"
        )
    texts, validation = session.texts(learn=options.learn), None
    held_out, unseen = np.zeros(0, np.int64), np.zeros(0, np.uint64)
    files = session.texts(options.validation, learn=options.learn) if options.validation else None
    if files is not None:
        _refuse_both(options, texts, files)
    tokens = session.tokens(texts)
    if files is not None:
        others = session.tokens(files)
        validation, unseen = _packed(options, others, np.arange(len(others))), others.contents[:, 1]
    elif options.validation_documents:
        held_out = _held_out(options, tokens)
        validation, unseen = _packed(options, tokens, held_out), tokens.contents[held_out, 1]
    return _packed(options, tokens, _trained_on(options, tokens, held_out, unseen)), validation


def _refuse_both(options: SFTOptions, data: Texts, validation: Texts) -> None:
    """Raise ConfigError for a file that is both trained and validated on."""
    paths = {file.path.resolve() for file in data.files}
    for file in validation.files:
        if file.path.resolve() in paths:
            raise ConfigError(
                f"{file.path} is in {options.name}.data and in {options.name}.validation: validating on what is "
                f"trained on says nothing; hold some of it out with {options.name}.validation_documents"
            )


def _held_out(options: SFTOptions, tokens: Tokens) -> Ints:
    """Return the numbers of the documents that are validated on."""
    count = options.validation_documents
    if count >= len(tokens):
        raise ConfigError(
            f"{options.name}.validation_documents={count} leaves none of {len(tokens):,} documents to train on"
        )
    return np.sort(permutation(len(tokens), options.seed, 1)[:count])


def _trained_on(options: SFTOptions, tokens: Tokens, held_out: Ints, unseen: npt.NDArray[np.uint64]) -> Ints:
    """Return the numbers of the documents to train on, in their order: none that reads as one of `unseen` does."""
    drawn = tokens.draw(options.seed)
    kept = drawn[~np.isin(drawn, held_out)]
    kept = kept[~np.isin(tokens.contents[kept, 1], unseen)]
    if not len(kept):
        raise ConfigError(f"all of {len(tokens):,} documents are validated on too, so none is left to train on")
    if options.packing == "concat" and options.shuffle:
        kept = kept[permutation(len(kept), options.seed)]
    return kept


def _packed(options: SFTOptions, tokens: Tokens, documents: Ints) -> PackedRows:
    """Return documents in rows; DataError where there is nothing to learn in them."""
    more: dict[str, Any] = {"documents": documents, "loss": options.loss_on}
    if options.packing == "concat":
        return StreamRows(tokens, options.sequence_length, **more).checked()
    more |= {"overlong": options.overlong, "seed": options.seed}
    return DocumentRows(tokens, options.sequence_length, **more).checked()


def nll(network: Network, batch: Batch, scale: float | Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Return `scale` · Σ −log p over the labels of a microbatch, and the unscaled sum as the metric ``loss``."""
    from harness.training.model.logprobs import summed_nll

    loss = summed_nll(network.hidden(batch), network.lm_head, batch.labels.flatten(), scale)
    return loss, {"loss": loss.detach() / scale}


def row_text(rows: PackedRows, index: int, tokenizer: Any) -> str:
    """Return a row as text, what is not learned and what is by turns."""
    lines = [f"first row ({shortened(rows.describe(index), 200)}):"]
    for learned, group in groupby(_tokens_of(rows, index), key=lambda token: token[1]):
        text = tokenizer.decode([token for token, _ in group])
        lines.append(f"  {'learned' if learned else 'read   '} {shortened(repr(text), 600)}")
    return "\n".join(lines)


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
