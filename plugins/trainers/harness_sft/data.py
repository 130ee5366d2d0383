"""From data files to the rows that are trained on and those that are validated on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.config import configure
from harness.engines.models import check_vocabulary, context_length, load_tokenizer
from harness.errors import ConfigError
from harness.interfaces import TrainingRun
from harness.prompts import Choice
from harness.training.packing import DocumentRows, PackedRows, StreamRows
from harness.training.texts import read_texts, training_format
from harness.training.tokens import Tokens, cache_folder, permutation, tokenize

if TYPE_CHECKING:
    from harness_sft.trainer import SFT


@dataclass(frozen=True)
class Data:
    """What is trained on: tokenizer, prompt format, documents, and the rows packed from them.

    `digest` is a sha256 of all token ids and of what is learned of them.
    """

    tokenizer: Any
    choice: Choice
    tokens: Tokens
    rows: PackedRows
    validation: PackedRows | None
    digest: str


def prepare(options: SFT, run: TrainingRun) -> Data:
    """Read, render, tokenise and pack the data.

    Raises ConfigError for options that do not fit each other or the model, DataError for data that cannot be used.
    """
    if not options.data:
        raise ConfigError("""no data given: data = ["train.jsonl"] under [sft], or --set 'sft.data=["train.jsonl"]'""")
    if options.validation and options.validation_documents:
        raise ConfigError("give sft.validation files or sft.validation_documents, not both")
    limit = context_length(run.model)
    if limit is not None and options.sequence_length > limit:
        raise ConfigError(f"sft.sequence_length={options.sequence_length} is above the model's {limit:,} tokens")
    tokenizer = load_tokenizer(run.model)
    choice = training_format(run.model, options.prompt_format, tokenizer)
    files = _files(options, options.data)
    tokens = _tokens(files, choice, tokenizer, run.model)
    documents, held_out = _divided(options, tokens, [file.weight for file in files])
    validation = None
    if options.validation:
        others = _files(options, options.validation)
        if any(file.weight != 1 for file in others):
            raise ConfigError("files to validate on have no weight: each of their texts counts once")
        other = _tokens(others, choice, tokenizer, run.model)
        validation = _packed(options, other, np.arange(len(other))).checked()
    elif len(held_out):
        validation = _packed(options, tokens, held_out).checked()
    if validation is None and options.patience:
        raise ConfigError(f"sft.patience={options.patience} needs sft.validation or sft.validation_documents")
    rows = _packed(options, tokens, documents).checked()
    return Data(tokenizer, choice, tokens, rows, validation, _digest(rows, validation))


@dataclass(frozen=True)
class _Entry:
    """A table among the data files; `weight` is how often an epoch holds each of its texts."""

    file: str = ""
    weight: float = 1.0
    columns: Mapping[str, str] = field(default_factory=dict)


def _files(options: SFT, entries: Sequence[str | Mapping[str, Any]]) -> list[_Entry]:
    """Return the data files; those without columns of their own have those of the options."""
    files = [
        _Entry(entry) if isinstance(entry, str) else configure(_Entry(), entry, "an entry of sft's data")
        for entry in entries
    ]
    if not all(file.file for file in files):
        raise ConfigError('an entry of the data names no file: { file = "train.jsonl", weight = 2 }')
    return [replace(file, columns=file.columns or options.columns) for file in files]


def _tokens(files: Sequence[_Entry], choice: Choice, tokenizer: Any, model: str) -> Tokens:
    texts = read_texts(
        [file.file for file in files],
        columns=[file.columns for file in files],
        weights=[file.weight for file in files],
    )
    tokens = tokenize(texts, choice.format, tokenizer, cache=cache_folder())
    check_vocabulary(model, tokens.largest)
    return tokens


def _divided(
    options: SFT, tokens: Tokens, weights: Sequence[float]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the numbers of the documents to train on, in their order, and of those held out."""
    drawn = tokens.draw(weights, options.seed)
    count = options.validation_documents
    if count >= len(tokens):
        raise ConfigError(f"sft.validation_documents={count} leaves none of {len(tokens):,} documents to train on")
    held_out = permutation(len(tokens), options.seed, 1)[:count]
    kept = drawn[~np.isin(drawn, held_out)]
    if options.packing == "concat" and options.shuffle:
        kept = kept[permutation(len(kept), options.seed)]
    return kept, np.sort(held_out)


def _packed(options: SFT, tokens: Tokens, documents: np.ndarray[Any, Any]) -> PackedRows:
    width = options.sequence_length
    if options.packing == "concat":
        return StreamRows(tokens, width, documents=documents, loss=options.loss_on)
    return DocumentRows(
        tokens, width, documents=documents, loss=options.loss_on, overlong=options.overlong, seed=options.seed
    )


def _digest(rows: PackedRows, validation: PackedRows | None) -> str:
    digest = hashlib.sha256()
    for part in (rows, validation):
        if part is not None:
            digest.update(part.source.digest.encode())
            for array in (part.weights, part.tokens):
                digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
