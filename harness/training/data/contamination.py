"""Training texts that hold words of a benchmark's items, thirteen in a row (as in GPT-3, arXiv:2005.14165, appendix C).

Words are runs of letters and digits, whatever their case and what stands between them. Of an item the texts of its
fields count, each by itself, and not what the benchmark asks around them, which all its items share. Words that more
than one in ten items share say nothing of any and are left out; so are items without thirteen words in a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.datasets import DataSource
from harness.registry import Registry
from harness.training.data.pairs import Pairs, holds_pairs, read_pairs
from harness.training.data.texts import Texts, read_texts
from harness.types import Example

#: A text by where it stands, with its parts.
Part = tuple[str, Sequence[str]]

#: Words in a row that two texts have in common only if one is from the other.
WORDS = 13

_WORD = re.compile(r"\w+")
_BOILERPLATE = 0.1


@dataclass(frozen=True)
class Shared:
    """A training text and an item that share words: their places, and the first of these words."""

    text: str
    item: str
    words: str


@dataclass(frozen=True)
class Overlap:
    """What training texts share with a benchmark of so many `items`, of which `short` are too short to be compared.

    `found` has one entry for each text and item.
    """

    benchmark: str
    items: int
    short: int
    texts: int
    found: Sequence[Shared]

    @property
    def ids(self) -> list[str]:
        """The items that share words with a text."""
        return list(dict.fromkeys(each.item for each in self.found))

    @property
    def items_found(self) -> int:
        """How many items share words with a text."""
        return len(self.ids)

    @property
    def texts_found(self) -> int:
        """How many texts share words with an item."""
        return len({each.text for each in self.found})

    def card(self) -> dict[str, Any]:
        """Return what the harness.json of a model that was trained on the texts says of it: the ids of the items."""
        return {"words": WORDS, "items": self.items - self.short, "texts": self.texts_found, "found": self.ids}

    def lines(self, most: int = 10) -> Iterator[str]:
        """Yield what was found in words, the first `most` cases by name."""
        compared = self.items - self.short
        yield (
            f"against {self.benchmark}: {self.texts_found:,} of {self.texts:,} texts share {WORDS} words in a row with "
            f"{self.items_found:,} of {compared:,} items"
            + (f" ({self.short:,} others are shorter than that)" if self.short else "")
        )
        for each in self.found[:most]:
            yield f'  {each.text} and {each.item}: "{each.words}"'
        if len(self.found) > most:
            yield f"  … and {len(self.found) - most:,} more"


def shingles(text: str) -> Iterator[str]:
    """Yield all runs of thirteen words of a text.

    >>> list(shingles("A b, c; d e f g h i j k l M n!"))
    ['a b c d e f g h i j k l m', 'b c d e f g h i j k l m n']
    """
    words = _WORD.findall(text.casefold())
    for start in range(len(words) - WORDS + 1):
        yield " ".join(words[start : start + WORDS])


def against(names: Iterable[str], data: str | None, texts: Callable[[], Iterable[Part]]) -> Iterator[Overlap]:
    """Yield what texts share with each benchmark, whose files are in the folder `data`, by default on the hub.

    Raises PluginError or DataError for a benchmark, or its data, that is not there.
    """
    for name in names:
        yield overlap(name, Registry().benchmark(name).examples(DataSource(data)), texts())


def parts_of(texts: Texts | Pairs) -> Iterator[Part]:
    """Yield where each text or pair stands, and what is said in it."""
    if isinstance(texts, Pairs):
        for pair in texts:
            yield pair.place, [pair.prompt, pair.chosen, pair.rejected, *(each.content for each in pair.history)]
        return
    for index, text in enumerate(texts):
        yield texts.place(index), [text.prompt, text.response, *(each.content for each in text.history)]


def parts_in(files: Sequence[str | Path]) -> Iterator[Part]:
    """Yield the same of all texts or pairs in files that can be read; DataError for a file of which none can."""
    for file in files:
        if holds_pairs([file], None):
            yield from parts_of(read_pairs([file], several=True, on_bad_rows="skip"))
        else:
            yield from parts_of(read_texts([file], empty=True, on_bad_rows="skip"))


def overlap(benchmark: str, examples: Iterable[Example], texts: Iterable[tuple[str, Sequence[str]]]) -> Overlap:
    """Return what texts, each a place and its parts, share with the examples of a benchmark."""
    owners: dict[str, list[str]] = {}
    items = short = 0
    for example in examples:
        items += 1
        own = {shingle for part in _texts(example.fields) for shingle in shingles(part)}
        short += not own
        for shingle in own:
            owners.setdefault(shingle, []).append(example.id)
    most = max(1, int(_BOILERPLATE * items))
    found: dict[tuple[str, str], Shared] = {}
    count = 0
    for place, parts in texts:
        count += 1
        for shingle in (each for part in parts for each in shingles(part)):
            ids = owners.get(shingle, ())
            for item in ids if len(ids) <= most else ():
                found.setdefault((place, item), Shared(place, item, shingle))
    return Overlap(benchmark, items, short, count, list(found.values()))


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in the fields of an example."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _texts(each)
