"""From files of pairs to the rows that are trained on and those that are held out."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from harness.errors import ConfigError, DataError
from harness.files import expanded
from harness.training.batch import Ints
from harness.training.data.pairs import Pairs, Sides, read_pairs
from harness.training.data.tokens import Tokens, permutation
from harness.training.session import Session
from harness_dpo.options import DPOOptions
from harness_dpo.rows import PairRows


@dataclass(frozen=True)
class Data:
    """What is trained on: pairs, both sides of each as token ids, and the rows made of them.

    `dropped` counts pairs of which a side is longer than the sequence length, `sources` names the files that pairs come
    from, `prompt_digest` the text around their prompts (`harness.prompts.PromptFormat.digest`).
    """

    pairs: Pairs
    documents: Tokens
    sources: tuple[str, ...]
    training: PairRows
    validation: PairRows | None
    dropped: int
    prompt_digest: str

    @cached_property
    def digest(self) -> str:
        """A sha256 of all token ids and of where prompts end."""
        digest = hashlib.sha256()
        for array in (self.documents.ids, self.documents.offsets, self.documents.prompts):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def held_out(self) -> str:
        """A sha256 of which pairs are held out."""
        pairs = b"" if self.validation is None else self.validation.pairs.tobytes()
        return hashlib.sha256(pairs).hexdigest()


def read_data(options: DPOOptions, session: Session) -> Data:
    """Read, render, tokenise and lay out the pairs.

    Raises ConfigError for options that do not fit each other, the model or the data, DataError for data that cannot be
    used.
    """
    _refuse_repeated(options)
    several = not session.format.single_turn
    pairs = read_pairs(options.data, columns=options.columns or None, several=several, on_bad_rows=options.on_bad_rows)
    if not len(pairs):
        raise DataError(f"no pairs in {', '.join(options.data)}{_left_out(pairs)}")
    documents = session.tokens(Sides(pairs))
    longest = (documents.lengths - 1).reshape(-1, 2).max(axis=1)
    kept, validated = _divided(options, pairs, documents, longest)
    sources = np.repeat(np.arange(len(pairs.counts)), pairs.counts)
    training, validating = (
        PairRows(documents, pairs, part, sources, share=options.share_prompt)
        for part in (np.setdiff1d(kept, validated), validated)
    )
    validation = validating if options.validation_pairs else None
    training.fit(options.batch_size, options.microbatch_size, session.world, options.seed, validation)
    dropped = len(longest) - len(kept)
    return Data(pairs, documents, source_names(pairs.sources), training, validation, dropped, session.format.digest)


def _divided(options: DPOOptions, pairs: Pairs, documents: Tokens, longest: Ints) -> tuple[Ints, Ints]:
    """Return the numbers of the pairs that are short enough, and of those among them that are held out."""
    kept, count = np.flatnonzero(longest <= options.sequence_length), options.validation_pairs
    if not len(kept):
        raise ConfigError(
            f"each of {len(longest):,} pairs is longer than {options.name}.sequence_length={options.sequence_length} "
            f"tokens, the shortest has {longest.min():,}{_left_out(pairs)}"
        )
    if len(kept) <= count:
        raise ConfigError(
            f"{options.name}.validation_pairs={count} leaves none of {len(kept):,} pairs to train on"
            f" ({len(longest) - len(kept):,} are longer than {options.sequence_length:,} tokens{_left_out(pairs)})"
        )
    validated = held_out(documents, kept[permutation(len(kept), options.seed, 1)], count)
    if count and not len(validated):
        raise ConfigError(f"{options.name}.validation_pairs={count} is less than any prompt has pairs; give more, or 0")
    return kept, validated


def held_out(documents: Tokens, drawn: Ints, count: int) -> Ints:
    """Return up to `count` of the pairs `drawn`, in ascending order: whole prompts, the first ones that fit.

    So no prompt is both trained on and validated on, whatever its case and white space. They are fewer than `count`
    only where every other prompt has too many pairs.
    """
    if not count:
        return drawn[:0]
    prompts: dict[int, list[int]] = {}
    for pair in drawn.tolist():
        prompts.setdefault(int(documents.contents[2 * pair, 0]), []).append(pair)
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


def _refuse_repeated(options: DPOOptions) -> None:
    """Raise ConfigError for a file given twice: pairs that are held out of one would be trained on in the other."""
    seen: dict[Path, str] = {}
    for file in options.data:
        path = expanded(file).resolve()
        if path in seen:
            as_said = "" if seen[path] == file else f", as {seen[path]} too"
            raise ConfigError(f"{options.name}.data names {file} twice{as_said}; give each file once")
        seen[path] = file


def _left_out(pairs: Pairs) -> str:
    said = ", ".join(
        f"{count:,} with {reason} (first: {pairs.firsts[reason]})" for reason, count in pairs.left_out.items()
    )
    return f"; left out: {said}" if said else ""
