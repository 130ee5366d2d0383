"""From files of pairs to the rows that are trained on and those that are held out."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.engines.models import check_vocabulary, context_length, load_tokenizer
from harness.errors import ConfigError, DataError
from harness.interfaces import TrainingRun
from harness.prompts import Choice
from harness.training.batch import Ints
from harness.training.pairs import Pairs, Sides, read_pairs
from harness.training.texts import training_format
from harness.training.tokens import Tokens, cache_folder, permutation, tokenize
from harness_dpo.rows import PairRows

if TYPE_CHECKING:
    from harness_dpo.trainer import DPO


@dataclass(frozen=True)
class Data:
    """What is trained on: tokenizer, prompt format, pairs, both sides of each as token ids, and the rows made of them.

    `dropped` counts pairs of which a side is longer than the sequence length, `sources` names the files that pairs come
    from. `digest` is the sha256 of all token ids and of where prompts end.
    """

    tokenizer: Any
    choice: Choice
    pairs: Pairs
    documents: Tokens
    sources: tuple[str, ...]
    training: PairRows
    validation: PairRows | None
    dropped: int
    digest: str


def prepare(options: DPO, run: TrainingRun) -> Data:
    """Read, render, tokenise and lay out the pairs.

    Raises ConfigError for options that do not fit each other, the model or the data, DataError for data that cannot be
    used.
    """
    if not options.data:
        raise ConfigError("""no data given: data = ["pairs.jsonl.gz"] under [dpo], or --set 'dpo.data=["…"]'""")
    _refuse_repeated(options.data)
    limit = context_length(run.model)
    if limit is not None and options.sequence_length > limit:
        raise ConfigError(f"dpo.sequence_length={options.sequence_length} is above the model's {limit:,} tokens")
    tokenizer = load_tokenizer(run.model)
    choice = training_format(run.model, options.prompt_format, tokenizer)
    pairs = read_pairs(options.data, columns=options.columns or None)
    if not len(pairs):
        raise DataError(f"no pairs in {', '.join(options.data)}{_left_out(pairs)}")
    documents = tokenize(Sides(pairs), choice.format, tokenizer, cache=cache_folder())
    check_vocabulary(run.model, documents.largest)
    longest = (documents.lengths - 1).reshape(-1, 2).max(axis=1)
    kept = np.flatnonzero(longest <= options.sequence_length)
    count = options.validation_pairs
    if not len(kept):
        raise ConfigError(
            f"each of {len(longest):,} pairs is longer than dpo.sequence_length={options.sequence_length} tokens, "
            f"the shortest has {longest.min():,}{_left_out(pairs)}"
        )
    if len(kept) <= count:
        raise ConfigError(
            f"dpo.validation_pairs={count} leaves none of {len(kept):,} pairs to train on"
            f" ({len(longest) - len(kept):,} are longer than {options.sequence_length:,} tokens{_left_out(pairs)})"
        )
    validated = held_out(documents, kept[permutation(len(kept), options.seed, 1)], count)
    if count and not len(validated):
        raise ConfigError(f"dpo.validation_pairs={count} is less than any prompt has pairs; give more, or 0")
    sources = np.repeat(np.arange(len(pairs.counts)), pairs.counts)
    training, validating = (
        PairRows(documents, pairs, part, sources, share=options.share_prompt)
        for part in (np.setdiff1d(kept, validated), validated)
    )
    validation = validating if count else None
    world = int(os.environ.get("WORLD_SIZE", "1"))
    training.fit(options.batch_size, options.microbatch_size, world, options.seed, validation)
    dropped = len(longest) - len(kept)
    names = source_names(pairs.sources)
    return Data(tokenizer, choice, pairs, documents, names, training, validation, dropped, _digest(documents))


def held_out(documents: Tokens, drawn: Ints, count: int) -> Ints:
    """Return up to `count` of the pairs `drawn`, in ascending order: whole prompts, the first ones that fit.

    So no prompt is both trained on and validated on. They are fewer than `count` only where every other prompt has too
    many pairs.
    """
    if not count:
        return drawn[:0]
    prompts: dict[bytes, list[int]] = {}
    for pair in drawn.tolist():
        prompt = documents.document(2 * pair)[: documents.prompts[2 * pair]]
        prompts.setdefault(prompt.tobytes(), []).append(pair)
    chosen: list[int] = []
    for pairs in prompts.values():
        if len(chosen) + len(pairs) <= count:
            chosen += pairs
    return np.sort(np.array(chosen, np.int64))


def source_names(files: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of files without what their formats add, unless two would become one.

    >>> source_names(("harmless-base.jsonl.gz", "more.parquet"))
    ('harmless-base', 'more')
    """
    names = tuple(re.sub(r"(\.(jsonl?|csv|parquet|gz|zst))+$", "", name) for name in files)
    names = names if len(set(names)) == len(set(files)) else files
    return tuple(name.replace("#", "_") for name in names)  # which stands for counts in names of metrics


def _refuse_repeated(files: Sequence[str]) -> None:
    """Raise ConfigError for a file given twice: pairs that are held out of one would be trained on in the other."""
    seen: dict[Path, str] = {}
    for file in files:
        path = Path(file).expanduser().resolve()
        if path in seen:
            as_said = "" if seen[path] == file else f", as {seen[path]} too"
            raise ConfigError(f"dpo.data names {file} twice{as_said}; give each file once")
        seen[path] = file


def _left_out(pairs: Pairs) -> str:
    said = ", ".join(f"{count:,} with {reason}" for reason, count in pairs.left_out.items())
    return f"; left out: {said}" if said else ""


def _digest(documents: Tokens) -> str:
    digest = hashlib.sha256()
    for array in (documents.ids, documents.offsets, documents.prompts):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
