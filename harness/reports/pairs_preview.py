"""A look at preference pairs: both responses side by side, and what there is of them, by source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO

import numpy as np
import numpy.typing as npt

from harness.interfaces import Tokenizer
from harness.reports.data_preview import block, spread, told
from harness.reports.samples import printable
from harness.reports.summary import count_of
from harness.reports.tables import table
from harness.training.data.contamination import parts_of
from harness.training.data.pairs import Pair, Pairs
from harness.training.data.tokens import Tokens, permutation

#: Columns of a terminal from which on there is room for two texts side by side.
_WIDE = 100


@dataclass(frozen=True)
class PairLook:
    """What is looked at: pairs, and both sides of each as tokens (`harness.training.data.pairs.Sides`).

    `width` is the number of columns of the terminal, 0 where there is none; `colour` is for a terminal that has them.
    """

    pairs: Pairs
    tokens: Tokens
    tokenizer: Tokenizer
    width: int = 0
    colour: bool = False

    def drawn(self, count: int, seed: int) -> Sequence[int]:
        """Return the numbers of `count` pairs drawn at random, in their order: as many from each file if it has them.

        A greater count only adds pairs.
        """
        order = permutation(len(self.pairs), seed)
        files = np.repeat(np.arange(len(self.pairs.counts)), self.pairs.counts)[order]
        rounds = np.empty(len(order), np.int64)
        for file in range(len(self.pairs.counts)):
            rounds[files == file] = np.arange(self.pairs.counts[file])
        return sorted(order[np.lexsort((files, rounds))][:count].tolist())

    def example(self, index: int) -> str:
        """Return one pair: where it stands, its prompt, and its responses, side by side where there is room."""
        pair = self.pairs[index]
        prompt, chosen, rejected = (int(lengths[index]) for lengths in (self._prompts, *self._responses))
        heads = [f"chosen, {chosen:,} tokens", f"rejected, {rejected:,} tokens"]
        place = f"── {printable(pair.place)} (prompt {prompt:,} tokens, with the prompt format's)"
        if self.width >= _WIDE:
            asked = "\n".join(block(*part) for part in told(pair.system, pair.history, pair.prompt))
            return f"{place}\n{asked}\n{self._beside(pair, heads)}"
        parts = [*told(pair.system, pair.history, pair.prompt), (heads[0], pair.chosen), (heads[1], pair.rejected)]
        return "\n".join([place, *(block(*part) for part in parts)])

    def _beside(self, pair: Pair, heads: Sequence[str]) -> str:
        """Return both responses under their heads in two columns as wide as the terminal."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 3), expand=True)
        for _ in range(2):
            grid.add_column(ratio=1, overflow="fold")
        styles = ("green", "red") if self.colour else ("", "")
        grid.add_row(*(Text(head, style) for head, style in zip(heads, styles, strict=True)))
        grid.add_row(*(Text(printable(text)) for text in (pair.chosen, pair.rejected)))
        out = StringIO()
        console = Console(
            file=out,
            width=self.width - 2,
            force_terminal=self.colour,
            color_system="standard" if self.colour else None,
        )
        console.print(grid)
        return "\n".join(f"  {line}".rstrip() for line in out.getvalue().splitlines())

    def parts(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield where each pair stands, and the texts in it."""
        return parts_of(self.pairs)

    def summary(self, width: int) -> str:
        """Return pairs by source, what was left out and why, and lengths beside rows of `width` tokens."""
        facts = [*self._lengths(width), *self._faults()]
        parts = [self._sources(), *self._left_out(), table(["", ""], [list(fact) for fact in facts])]
        return "\n\n".join(part.lstrip("\n") for part in parts)

    def _sources(self) -> str:
        rows, start = [], 0
        for name, count, left in zip(self._names, self.pairs.counts, self.pairs.left_out_by_file, strict=True):
            rows.append([name, *self._source(slice(start, start + count), sum(left.values()))])
            start += count
        if len(rows) > 1:
            rows.append(["all", *self._source(slice(start), sum(self.pairs.left_out.values()))])
        return table(["source", "pairs", "left out", "chosen is longer", "mean tokens, chosen and rejected"], rows)

    def _source(self, part: slice, left_out: int) -> Sequence[str]:
        chosen, rejected = (lengths[part] for lengths in self._responses)
        means = f"{chosen.mean():,.1f} and {rejected.mean():,.1f}" if len(chosen) else "–"
        longer = count_of(int((chosen > rejected).sum()), len(chosen))
        return [f"{len(chosen):,}", count_of(left_out, left_out + len(chosen)), longer, means]

    def _left_out(self) -> Iterator[str]:
        firsts = self.pairs.firsts
        rows = [
            [name, reason, f"{count:,}", printable(firsts[reason])]
            for name, left in zip(self._names, self.pairs.left_out_by_file, strict=True)
            for reason, count in sorted(left.items(), key=lambda item: -item[1])
        ]
        if rows:
            yield table(["source", "left out", "rows", "first of all"], rows)

    def _lengths(self, width: int) -> Iterator[tuple[str, str]]:
        chosen, rejected = self._responses
        if unused := self.pairs.unused:
            yield "not used", printable(", ".join(f"{name!r} ({count:,} rows)" for name, count in unused.items()))
        yield "prompt tokens", spread(self._prompts)
        yield "chosen tokens", spread(chosen)
        yield "rejected tokens", spread(rejected)
        longest = self._prompts + np.maximum(chosen, rejected) - 1  # the end token is only ever a label
        yield f"longer than {width:,}", count_of(int((longest > width).sum()), len(longest))

    def _faults(self) -> Iterator[tuple[str, str]]:
        tokens, n = self.tokens, len(self.pairs)
        prompts, pairs = Counter[bytes](), Counter[bytes]()
        for index in range(n):
            chosen, rejected = (tokens.document(side).tobytes() for side in (2 * index, 2 * index + 1))
            prompts[chosen[: 4 * int(tokens.prompts[2 * index])]] += 1
            pairs[chosen + rejected] += 1
        repeated = (count_of(n - len(found), n) for found in (pairs, prompts))
        yield "duplicates", "{} of a whole pair, {} of a prompt".format(*repeated)
        yield (
            "encoded apart",
            f"{count_of(tokens.separate, 2 * n)} responses (they would share a token with the prompt)",
        )
        special = [token for token in self.tokenizer.all_special_tokens if token]
        spelled = sum(
            any(token in text for token in special for text in (pair.prompt, pair.chosen, pair.rejected))
            for pair in self.pairs
        )
        yield "special tokens spelled out", f"{count_of(spelled, n)} (read as ordinary characters)"

    @property
    def _names(self) -> Sequence[str]:
        return [printable(source) for source in self.pairs.sources]

    @property
    def _prompts(self) -> npt.NDArray[np.int64]:
        """The tokens of each pair's prompt, as the prompt format has it."""
        return np.asarray(self.tokens.prompts[::2], np.int64)

    @property
    def _responses(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The tokens of each pair's chosen and rejected response, end tokens included."""
        lengths = self.tokens.lengths - self.tokens.prompts
        return lengths[::2], lengths[1::2]
