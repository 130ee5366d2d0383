"""How often the intervals that are printed hold the truth, and how often a verdict is given where nothing differs.

    python perf/coverage.py [--draws 2000] [--cells] [--only KIND]

Simulates samples whose truth is known, from fixed seeds, and asks `harness.statistics` about each. An interval holds
the truth exactly where the p-value of the truth is at least 0.05 (the tests of statistics hold that), so one call
answers both questions. Groups are as uneven as MMLU's subjects; their effects are normal, cut off where a rate would
leave [0, 1], so the truth is computed with the same cut. Two models' outcomes on one example share their chance half of
the time.

Each line is one kind of figure: its cells, the lowest, middle and highest coverage, how many cells lie below 92%, below
93% and above 97%, and the false positives of its verdicts. --cells prints every cell. With 2,000 draws a figure is good
to ±1%.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist, median
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from harness.statistics import cohen_kappa, corrected_mean, pass_at_k, share_difference
from harness.statistics.means import infer
from harness.statistics.ratio import clustered_ratio

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

SIZES, RATES, GROUPS, EFFECTS = (20, 100, 1000), (0.02, 0.5, 0.98), (5, 10, 57), (0.0, 0.05, 0.15)
ALPHA = 0.05


@dataclass(frozen=True)
class Cell:
    """One combination: `holds` says of a fresh sample whether its interval holds the truth; `null` if that is 0.

    `times` as many samples as of other cells are drawn, where most come again and are known.
    """

    kind: str
    name: str
    holds: Callable[[np.random.Generator], bool]
    null: bool = False
    times: int = 1


def sizes(n: int, groups: int) -> Ints:
    """Return how many of `n` examples each group has: a few large ones, as among MMLU's subjects."""
    weights = 1.0 + 6 * (np.arange(groups) % 9 == 0) + np.arange(groups) % 3
    found: Ints = np.maximum(1, np.floor(weights / weights.sum() * n)).astype(np.int64)
    while found.sum() != n:
        found[np.argmax(found) if found.sum() > n else np.argmin(found)] += np.sign(n - found.sum())
    return found


_NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 20_001) for i in range(20_001)])


def cut(rate: float, effects: Floats) -> Floats:
    """Return the rates of groups with these effects."""
    return np.clip(rate + effects, 0.0, 1.0)


@dataclass(frozen=True)
class Groups:
    """Where examples lie: in groups that are drawn anew for each sample, or in the same ones each time, or in none."""

    of: Ints
    effect: float
    fixed: Floats | None

    def drawn(self, rng: np.random.Generator) -> Floats:
        """Return the groups' effects in one sample."""
        return self.fixed if self.fixed is not None else rng.normal(0.0, self.effect, int(self.of.max()) + 1)

    def mean(self, rates: Callable[[Floats], Floats], *, macro: bool) -> float:
        """Return the true mean of the groups' rates, a function of their effects."""
        if self.fixed is None:
            return float(rates(self.effect * _NORMAL).mean())
        return float((rates(self.fixed) if macro else rates(self.fixed)[self.of]).mean())


def pairs(rng: np.random.Generator, first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Return two models' outcomes on the same examples, which share their chance half of the time."""
    chance = rng.random(len(first))
    other = np.where(rng.random(len(first)) < 0.5, chance, rng.random(len(first)))
    return (chance < first).astype(np.float64), (other < second).astype(np.float64)


def grouped() -> Iterator[tuple[str, int, Groups, bool, bool]]:
    """Yield name, size, groups, whether they are sampled, and whether the figure is a macro average."""
    for n in SIZES:
        yield f"n {n}", n, Groups(np.zeros(n, dtype=np.int64), 0.0, np.zeros(1)), False, False
        for count in GROUPS:
            if count > n:
                continue
            of = np.repeat(np.arange(count), sizes(n, count))
            for effect in EFFECTS:
                name = f"n {n}, {count} groups, effects {100 * effect:g}"
                fixed = np.random.default_rng(count).normal(0.0, effect, count)
                yield f"{name}, drawn", n, Groups(of, effect, None), True, False
                yield f"{name}, macro drawn", n, Groups(of, effect, None), True, True
                yield f"{name}, macro whole", n, Groups(of, effect, fixed), False, True
                yield f"{name}, whole", n, Groups(of, effect, fixed), False, False


def _kind(what: str, groups: Groups, sampled: bool, macro: bool) -> str:
    if len(np.unique(groups.of)) == 1:
        return what
    return f"{what}, {'macro, ' if macro else ''}groups {'drawn' if sampled else 'whole'}"


def single() -> Iterator[Cell]:
    """Yield the cells of one run's accuracy."""
    for name, _, groups, sampled, macro in grouped():
        for rate in RATES:
            truth = groups.mean(lambda effects, rate=rate: cut(rate, effects), macro=macro)  # type: ignore[misc]
            labels = groups.of if sampled or macro else None

            def holds(
                rng: np.random.Generator,
                rate: float = rate,
                truth: float = truth,
                groups: Groups = groups,
                labels: Ints | None = labels,
                sampled: bool = sampled,
                macro: bool = macro,
            ) -> bool:
                x = rng.random(len(groups.of)) < cut(rate, groups.drawn(rng))[groups.of]
                return infer(x, bounds=(0, 1), groups=labels, sampled=sampled, macro=macro).p(truth) >= ALPHA

            yield Cell(_kind("accuracy", groups, sampled, macro), f"{name}, p {rate}", holds)


def paired() -> Iterator[Cell]:
    """Yield the cells of the difference of two runs, which is 0 or ten points."""
    for name, _, groups, sampled, macro in grouped():
        for rate, gain in ((0.02, 0.0), (0.5, 0.0), (0.5, 0.1), (0.98, 0.0)):
            if gain == 0.0 and groups.fixed is not None and groups.fixed.any():
                continue  # groups that are the whole, with effects on the difference: no null hypothesis
            yield _paired_cell(name, groups, sampled, macro, rate, gain)


def _paired_cell(name: str, groups: Groups, sampled: bool, macro: bool, rate: float, gain: float) -> Cell:
    def first(effects: Floats) -> Floats:
        return cut(rate - gain / 2, -effects / 2)

    def second(effects: Floats) -> Floats:
        return cut(rate + gain / 2, effects / 2)

    truth = groups.mean(lambda effects: second(effects) - first(effects), macro=macro)
    labels = groups.of if sampled or macro else None

    def holds(rng: np.random.Generator) -> bool:
        effects = groups.drawn(rng)
        a, b = pairs(rng, first(effects)[groups.of], second(effects)[groups.of])
        return infer(b - a, bounds=(-1, 1), groups=labels, sampled=sampled, macro=macro).p(truth) >= ALPHA

    kind = _kind("difference", groups, sampled, macro)
    return Cell(kind, f"{name}, p {rate}, gain {100 * gain:g}", holds, null=abs(truth) < 1e-9)


def ends() -> Iterator[Cell]:
    """Yield the cells in which all, or nearly all, examples gain, and those in which all tie."""
    for n in SIZES:
        for share in (0.9, 0.98, 1.0):

            def gains(rng: np.random.Generator, n: int = n, share: float = share) -> bool:
                return infer((rng.random(n) < share).astype(float), bounds=(-1, 1)).p(share) >= ALPHA

            yield Cell("all gains", f"n {n}, {100 * share:g}% gain", gains)
        for share in (0.0, 0.02):

            def ties(rng: np.random.Generator, n: int = n, share: float = share) -> bool:
                x = rng.choice([-1.0, 0.0, 1.0], size=n, p=[share / 2, 1 - share, share / 2])
                return infer(x, bounds=(-1, 1)).p(0.0) >= ALPHA

            yield Cell("all ties", f"n {n}, {100 * share:g}% differ", ties, null=True)


def win_rates() -> Iterator[Cell]:
    """Yield the cells of win rates: won, tied and lost, and probabilities between."""
    for n in SIZES:
        for rate in RATES:
            for tied in (0.01, 0.3):
                share = min(tied, 1.9 * rate, 1.9 * (1 - rate))
                chances = [1 - rate - share / 2, share, rate - share / 2]

                def verdicts(
                    rng: np.random.Generator, n: int = n, rate: float = rate, chances: Sequence[float] = chances
                ) -> bool:
                    return infer(rng.choice([0.0, 0.5, 1.0], size=n, p=chances), bounds=(0, 1)).p(rate) >= ALPHA

                yield Cell("win rate, verdicts", f"n {n}, rate {rate}, {100 * share:.3g}% tied", verdicts)
            for weight in (0.5, 5.0):

                def probabilities(
                    rng: np.random.Generator, n: int = n, rate: float = rate, weight: float = weight
                ) -> bool:
                    x = rng.beta(weight * rate, weight * (1 - rate), n)
                    return infer(x, bounds=(0, 1)).p(rate) >= ALPHA

                yield Cell("win rate, probabilities", f"n {n}, rate {rate}, weight {weight}", probabilities)

        def difference(rng: np.random.Generator, n: int = n) -> bool:
            a, b = rng.beta(0.5, 0.5, n), rng.beta(0.5, 0.5, n)
            return infer(b - a, bounds=(-1, 1)).p(0.0) >= ALPHA

        yield Cell("difference of win rates", f"n {n}", difference, null=True)


def repeats() -> Iterator[Cell]:
    """Yield the cells of pass@k over four samples an example, whose chances differ from example to example."""
    for n in SIZES:
        for rate in RATES:
            for k in (1, 2, 4):
                # Beta(a, b) with a + b = 1: the chance that k samples all fail is a product of ratios.
                a, b = rate, 1 - rate
                truth = 1 - float(np.prod([(b + i) / (a + b + i) for i in range(k)]))
                by_right = np.array([pass_at_k(4, right, k) for right in range(5)])

                def holds(
                    rng: np.random.Generator,
                    n: int = n,
                    rate: float = rate,
                    truth: float = truth,
                    by_right: Floats = by_right,
                ) -> bool:
                    x = by_right[rng.binomial(4, rng.beta(rate, 1 - rate, n))]
                    return infer(x, bounds=(0, 1)).p(truth) >= ALPHA

                yield Cell("pass@k of 4 samples", f"n {n}, p {rate}, k {k}", holds)


def kappas() -> Iterator[Cell]:
    """Yield the cells of agreement: two raters who copy a hidden label with some accuracy."""
    for n in SIZES:
        for labels, accuracy in (((0.5, 0.5), 0.85), ((0.5, 0.5), 0.95), ((0.9, 0.1), 0.95), ((0.4, 0.4, 0.2), 0.95)):
            count = len(labels)
            wrong = (1 - accuracy) / (count - 1)
            copies = np.where(np.eye(count) > 0, accuracy, wrong)
            table = copies.T @ np.diag(labels) @ copies
            chance = float(table.sum(axis=0) @ table.sum(axis=1))
            truth = (float(np.trace(table)) - chance) / (1 - chance)

            @cache
            def covers(counts: tuple[int, ...], count: int = count, truth: float = truth) -> bool:
                places = np.repeat(np.arange(count**2), counts)
                e = cohen_kappa((places // count).tolist(), (places % count).tolist())
                return bool(np.isnan(e.low) or e.low <= truth <= e.high)

            def holds(
                rng: np.random.Generator,
                n: int = n,
                table: Floats = table,
                covers: Callable[[tuple[int, ...]], bool] = covers,
            ) -> bool:
                return covers(tuple(rng.multinomial(n, table.ravel()).tolist()))

            times = 10 if n == SIZES[0] and count == 2 else 1
            yield Cell("kappa", f"n {n}, labels {labels}, accuracy {accuracy}", holds, times=times)


def corrections() -> Iterator[Cell]:
    """Yield the cells of a judge's rate corrected by labels: 1,000 judged, of which n are labelled."""
    for n in (20, 100):
        for rate in RATES:
            for right in (0.8, 0.95, 1.0):

                def holds(rng: np.random.Generator, n: int = n, rate: float = rate, right: float = right) -> bool:
                    people = rng.random(1000) < rate
                    judge = np.where(rng.random(1000) < right, people, ~people)
                    e = corrected_mean(judge[n:], judge[:n], people[:n])
                    return e.low <= rate <= e.high

                yield Cell("rate corrected by labels", f"{n} labels, rate {rate}, judge right {right}", holds)


def shares() -> Iterator[Cell]:
    """Yield the cells of the difference of two shares of other examples, as of judgements in either order."""
    for n in SIZES:
        for rate, gain in ((0.02, 0.0), (0.5, 0.0), (0.5, 0.1), (0.98, 0.0)):
            for part in (0.5, 0.2):

                def holds(
                    rng: np.random.Generator, n: int = n, rate: float = rate, gain: float = gain, part: float = part
                ) -> bool:
                    first, second = int(n * part), n - int(n * part)
                    one, other = rng.binomial(first, rate + gain / 2), rng.binomial(second, rate - gain / 2)
                    e = share_difference((one, first), (other, second))
                    return e.low <= gain <= e.high

                name = f"n {n}, {100 * part:g}% in one, rate {rate}, gain {100 * gain:g}"
                yield Cell("difference of two shares", name, holds, null=gain == 0)


def ratios() -> Iterator[Cell]:
    """Yield the cells of the loss of a token over documents whose lengths, and losses, differ."""
    for n in SIZES:
        for spread in (0.3, 1.0):

            def holds(rng: np.random.Generator, n: int = n, spread: float = spread) -> bool:
                lengths = np.ceil(200 * rng.lognormal(-(spread**2) / 2, spread, n))
                losses = rng.gamma(16.0, 2.0 / 16.0, n) + 0.5 * rng.standard_normal(n) / np.sqrt(lengths)
                e = clustered_ratio(losses * lengths, lengths)
                return e.low <= 2.0 <= e.high

            yield Cell("loss of a token", f"{n} documents, lengths of SD {spread} in log", holds)


KINDS = {
    "single": single,
    "paired": paired,
    "ends": ends,
    "win-rates": win_rates,
    "repeats": repeats,
    "kappa": kappas,
    "corrected": corrections,
    "shares": shares,
    "ratios": ratios,
}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--cells", action="store_true", help="print every cell")
    parser.add_argument("--only", choices=tuple(KINDS), action="append", help="one part of the grid")
    options = parser.parse_args()
    start = time.process_time()
    found: dict[str, list[tuple[float, Cell]]] = {}
    for place, name in enumerate(KINDS):
        if options.only and name not in options.only:
            continue
        for number, cell in enumerate(KINDS[name]()):
            rng = np.random.default_rng((place, number))
            draws = cell.times * options.draws
            covered = sum(cell.holds(rng) for _ in range(draws)) / draws
            found.setdefault(cell.kind, []).append((covered, cell))
            if options.cells:
                print(f"{covered:7.1%}  {cell.kind}: {cell.name}", flush=True)
    print(f"{'':34} cells   lowest  middle highest   <92%  <93%  >97%   false positives")
    for kind, cells in found.items():
        figures = [covered for covered, _ in cells]
        null = [1 - covered for covered, cell in cells if cell.null]
        wrong = f"{min(null):.1%} to {max(null):.1%}" if null else ""
        least, low = (sum(figure < bar for figure in figures) for bar in (0.92, 0.93))
        high = sum(figure > 0.97 for figure in figures)
        print(f"{kind:34} {len(cells):5} {min(figures):8.1%} {median(figures):7.1%} {max(figures):7.1%} "
              f"{least:6} {low:5} {high:5}   {wrong}")  # fmt: skip
    print(f"{time.process_time() - start:.0f} CPU seconds")


if __name__ == "__main__":
    main()
