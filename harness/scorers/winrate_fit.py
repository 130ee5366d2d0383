"""Win rates of AlpacaEval from judgements already made: raw, discrete, and length-controlled.

Figures are in percent, as AlpacaEval publishes them. An annotation is a mapping in AlpacaEval's own format:
`instruction`, `output_1` (the baseline's), `output_2` (the model's), `generator_1`, `generator_2`, and `preference`: 1
when the baseline's output is preferred, 2 when the model's is, anything between as a probability, 1.5 or 0 for a draw.
A preference of None, NaN or outside that range is unreadable: it is counted, and bounds say what it could have
changed.

Sources: X. Li et al., AlpacaEval (2023); Y. Dubois et al., Length-Controlled AlpacaEval, arXiv:2404.04475; the package
`alpaca_eval` 0.6.6, metrics/helpers.py and metrics/glm_winrate.py (`length_controlled_v1`).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from harness import statistics
from harness.errors import DataError, HarnessError
from harness.scorers.alpaca_order import digest, instruction_order

Annotation: TypeAlias = Mapping[str, Any]
Floats: TypeAlias = npt.NDArray[np.float64]

_COLUMNS = ("preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")
_TEXTS = ("instruction", "output_1", "output_2")
_GAMED_WEIGHT = 0.2 / 2  # the package's regularisation strength, shared by its two gamed baselines
_FOLDS = 5
_SOLVER = {"solver": "liblinear", "fit_intercept": False, "random_state": 123}


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often a model's outputs are preferred to the baseline's, in percent.

    `win_rate` is the mean probability, `standard_error` its standard error (ddof 1), `low` and `high` its 95% t
    interval. `discrete_win_rate` counts each judgement as a win, a loss or half a win. `n_total` judgements were
    readable and are what these figures are about; `unreadable` were not, and `lowest` and `highest` are what the win
    rate would be if all of those were losses or wins. Without any readable judgement the figures are NaN.
    """

    win_rate: float
    standard_error: float
    low: float
    high: float
    discrete_win_rate: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    unreadable: int
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class LengthControlledWinRate:
    """What the win rate would be if the model's outputs were as long as the baseline's, in percent.

    `length_controlled_winrate` and `lc_standard_error` are the package's figures. The latter is the spread of the
    fitted probabilities over instructions and leaves out the uncertainty of the fit itself, so it is far too small;
    `bootstrap_standard_error` and the 95% interval `low` to `high` come from `replicates` refits on resampled
    instructions. `length`, `difficulty` and `bias` are the fitted weights, `strength` the inverse penalty that
    cross-validation chose. `raw` is the ordinary win rate of the same annotations; `missing` instructions of the set
    have no annotation and are no part of any figure.
    """

    length_controlled_winrate: float
    lc_standard_error: float
    bootstrap_standard_error: float
    low: float
    high: float
    replicates: int
    length: float
    difficulty: float
    bias: float
    strength: float
    missing: int
    raw: WinRate


@dataclass(frozen=True, slots=True)
class LengthControlData:
    """The fixed data that length control needs: judgements of outputs made short and long on purpose, and difficulties.

    `features` (rows, 3) are tanh(standardised length difference), instruction difficulty and the not-gamed flag (0 or
    1) of df_gamed.csv's readable rows, `probabilities` (rows) the judge's in 0..1, `weights` (rows) what a row counts
    for. `difficulties` gives the difficulty by row number in the set of instructions, `order` the row number by
    digest.
    """

    features: Floats
    probabilities: Floats
    weights: Floats
    difficulties: Mapping[int, float]
    order: Mapping[str, int]


def win_rate(annotations: Iterable[Annotation]) -> WinRate:
    """Return the win rate of judged pairs.

    Only `preference` is read. Raises DataError when an annotation has none, or one that is not a number or None.
    """
    p = np.array([_probability(annotation, i) for i, annotation in enumerate(annotations, 1)], dtype=np.float64)
    readable = p[~np.isnan(p)]
    n, unreadable = len(readable), int(np.isnan(p).sum())
    wins, losses = int((readable > 0.5).sum()), int((readable < 0.5).sum())
    draws = n - wins - losses
    estimate = statistics.mean(100 * readable, bounds=(0.0, 100.0))
    return WinRate(
        win_rate=estimate.value,
        standard_error=estimate.stderr,
        low=estimate.low,
        high=estimate.high,
        discrete_win_rate=100 * (wins + draws / 2) / n if n else math.nan,
        n_wins=wins,
        n_wins_base=losses,
        n_draws=draws,
        n_total=n,
        unreadable=unreadable,
        lowest=100 * float(readable.sum()) / len(p) if len(p) else math.nan,
        highest=100 * (float(readable.sum()) + unreadable) / len(p) if len(p) else math.nan,
    )


def read_length_control(
    gamed: str | Path | Iterable[Mapping[str, Any]], instructions: Sequence[str] | None = None
) -> LengthControlData:
    """Read AlpacaEval's df_gamed.csv, or its rows as mappings.

    Needs the columns preference (0..1, the judge's probability for the gamed output; empty or NaN rows are left out, as
    the package does), index (row number in the set of instructions), std_delta_len, instruction_difficulty and
    not_gamed_baseline (True or False). `instructions` is the set of instructions in the order that `index` counts;
    None is AlpacaEval's own 805. Raises DataError, naming file and line, for anything else.
    """
    rows: Iterable[Mapping[str, Any]]
    if isinstance(gamed, str | Path):
        path, source, first = Path(gamed), str(gamed), 2
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{source}: cannot be read as CSV ({error}); give AlpacaEval's df_gamed.csv") from error
    else:
        rows, source, first = gamed, "length-control rows", 1
    order = instruction_order(instructions)
    if instructions is not None and len(order) != len(instructions):
        raise DataError(f"{len(instructions) - len(order)} of the {len(instructions)} instructions are repeated")
    table: list[tuple[float, ...]] = []
    difficulties: dict[int, float] = {}
    for line, row in enumerate(rows, first):
        preference, index, length, difficulty, not_gamed = _gamed_row(row, f"{source}, line {line}")
        if index not in range(len(order)):
            raise DataError(f"{source}, line {line}: index {index:g} is not a row of the {len(order)} instructions")
        if difficulties.setdefault(int(index), difficulty) != difficulty:
            raise DataError(f"{source}, line {line}: instruction {index:g} has a second, different difficulty")
        if not math.isnan(preference):
            table.append((math.tanh(length), difficulty, not_gamed, preference))
    if not table:
        raise DataError(f"{source}: no usable rows; give AlpacaEval's df_gamed.csv")
    columns = np.array(table, dtype=np.float64)
    weights = np.where(columns[:, 2] == 1, 1.0, _GAMED_WEIGHT)
    return LengthControlData(columns[:, :3], columns[:, 3], weights, difficulties, order)


def length_controlled_win_rate(
    annotations: Iterable[Annotation],
    gamed: LengthControlData | str | Path | Iterable[Mapping[str, Any]],
    *,
    seed: int = 0,
    replicates: int = 1000,
) -> LengthControlledWinRate:
    """Return AlpacaEval 2's length-controlled win rate, with an interval by refitting on resampled instructions.

    The model is a logistic regression without intercept, logit P(model preferred) = length * tanh((len_1 - len_2) /
    sd) + difficulty * difficulty_i + bias * [not gamed], lengths in characters, fitted with an L1 penalty whose
    strength is chosen by 5-fold cross-validation, on these annotations and, at a tenth of the weight, on `gamed`. The
    figure is the mean prediction over the annotated instructions with the length term at 0; a model judged against
    itself has 50.

    `gamed` is df_gamed.csv's path or rows, or what `read_length_control` made of them (needed for instructions other
    than AlpacaEval's own). Difficulties are joined by the instruction's text and rows put into the official order
    before the fit, so neither the annotations' order nor missing rows change which difficulty an instruction gets; on
    complete annotations in the official order the figures are the package's. Each replicate draws instructions with
    replacement and repeats standardisation, fit and prediction; `gamed`, being part of the metric, and the strength
    stay as they are. The interval is never narrower than the win rate's own, moved to the figure: it keeps a width
    where all judgements are alike.

    The figure is comparable with the leaderboard's only for AlpacaEval 2's own judge and baseline. Needs scikit-learn.
    Raises DataError for an instruction outside the set, a repeated one, a missing output, more than one model or
    baseline, and where nothing can be fitted: no readable judgement, or lengths that all differ by the same amount.
    """
    if replicates < 2:
        raise ValueError(f"an interval needs at least 2 replicates, not {replicates}")
    records = list(annotations)
    raw = win_rate(records)
    data = gamed if isinstance(gamed, LengthControlData) else read_length_control(gamed)
    own = _join(records, data)
    missing = len(data.order) - len(own)
    if _is_baseline(records):
        return LengthControlledWinRate(50.0, 0.0, 0.0, 50.0, 50.0, 0, 0.0, 0.0, 0.0, math.nan, missing, raw)
    if raw.n_total < 2 or raw.n_total + len(data.probabilities) < _FOLDS:
        raise DataError(
            f"length control needs at least two readable judgements, and {_FOLDS} with the fixed ones, "
            f"but there are {raw.n_total} and {len(data.probabilities)}"
        )
    if own[:, 1].any() and np.ptp(own[:, 1]) == 0:
        raise DataError("no fit: every output's length differs from the baseline's by the same number of characters")
    weights, strength = _fit(*_training(own, np.ones(len(own)), data))
    predicted = 100 * _predict(own, weights)
    refits = _refits(own, data, strength, seed, replicates)
    value = float(predicted.mean())
    low, high = np.quantile(refits, [0.025, 0.975])
    # Refits all say the same where each judgement does, or where nothing is fitted.
    low, high = min(low, value - (raw.win_rate - raw.low)), max(high, value + (raw.high - raw.win_rate))
    error = float(predicted.std(ddof=1)) / math.sqrt(len(predicted))
    length, difficulty, bias = weights.tolist()
    return LengthControlledWinRate(
        value, error, float(refits.std(ddof=1)), max(0.0, float(low)), min(100.0, float(high)), replicates,
        length, difficulty, bias, strength, missing, raw,
    )  # fmt: skip


def _probability(annotation: Annotation, number: int) -> float:
    """Return the probability in 0..1 that the model's output is preferred, NaN where it is unreadable."""
    if "preference" not in annotation:
        raise DataError(f"annotation {number}: there is no 'preference'")
    preference = annotation.get("preference")
    if preference is None:
        return math.nan
    if not isinstance(preference, Real) or isinstance(preference, bool):
        raise DataError(f"annotation {number}: preference is {preference!r}, not a number from 1 to 2 or None")
    value = float(preference)
    if value == 0:
        return 0.5
    return value - 1 if 1 <= value <= 2 else math.nan


def _gamed_row(row: Mapping[str, Any], place: str) -> tuple[float, ...]:
    absent = [column for column in _COLUMNS if row.get(column) is None]
    if set(absent) == {"preference"}:
        row, absent = {**row, "preference": math.nan}, []
    if absent:
        raise DataError(f"{place}: there is no {', '.join(absent)}; give AlpacaEval's df_gamed.csv")
    *measured, flag = _COLUMNS
    flags = {"True": 1.0, "False": 0.0}
    try:
        numbers = [float(row[column] if row[column] != "" else math.nan) for column in measured]
        not_gamed = flags[str(row[flag])]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{place}: not a number, or not True or False: {error}") from error
    if not all(map(math.isfinite, numbers[1:])) or not (math.isnan(numbers[0]) or 0 <= numbers[0] <= 1):
        raise DataError(f"{place}: a value is missing, infinite, or a preference outside 0..1")
    return (*numbers, not_gamed)


def _join(records: Sequence[Annotation], data: LengthControlData) -> Floats:
    """Return rows of (probability, length difference, difficulty), in the order of the instructions."""
    rows: dict[int, tuple[float, float, float]] = {}
    for number, record in enumerate(records, 1):
        instruction, baseline, output = (_text(record, key, number) for key in _TEXTS)
        name = f"annotation {number} ({instruction.strip()[:60]!r})"
        row = data.order.get(digest(instruction))
        if row is None:
            raise DataError(f"{name}: not one of the {len(data.order)} instructions that the difficulties belong to")
        if row not in data.difficulties:
            raise DataError(f"{name}: the length-control data has no difficulty for it (index {row})")
        if row in rows:
            raise DataError(f"{name}: this instruction comes a second time; average repeated judgements first")
        difference = len(baseline) - len(output)
        rows[row] = (_probability(record, number), difference, data.difficulties[row])
    return np.array([rows[row] for row in sorted(rows)], dtype=np.float64).reshape(-1, 3)


def _text(record: Annotation, key: str, number: int) -> str:
    text = record.get(key)
    if not isinstance(text, str):
        raise DataError(f"annotation {number}: {key} is missing or not a text; length control needs it")
    return text


def _is_baseline(records: Sequence[Annotation]) -> bool:
    names = []
    for key in ("generator_1", "generator_2"):
        found = {str(record[key]) for record in records if key in record}
        if len(found) > 1:
            raise DataError(f"annotations of more than one {key}: {', '.join(sorted(found))}; give one model at a time")
        names.append(found)
    return bool(names[0]) and names[0] == names[1]


def _refits(own: Floats, data: LengthControlData, strength: float, seed: int, replicates: int) -> Floats:
    """Return the win rates of resamples of the rows, each fitted anew.

    A resample that cannot be fitted, without a readable judgement or with a single length difference, is drawn again.
    """
    rng = np.random.default_rng(seed)
    found: list[float] = []
    while len(found) < replicates:
        counts = rng.multinomial(len(own), np.full(len(own), 1 / len(own))).astype(np.float64)
        used = own[counts > 0]
        if np.isnan(used[:, 0]).all() or (own[:, 1].any() and np.ptp(used[:, 1]) == 0):
            continue
        weights = _refit(*_training(own, counts, data), strength)
        found.append(100 * float(np.average(_predict(own, weights), weights=counts)))
    return np.array(found)


def _training(own: Floats, counts: Floats, data: LengthControlData) -> tuple[Floats, Floats, Floats]:
    """Return features, probabilities and weights to fit, where row i of `own` occurs counts[i] times."""
    probabilities, differences, difficulties = own.T
    deviation = 1.0  # for outputs that are all as long as the baseline's
    if differences.any():
        centred = differences - np.average(differences, weights=counts)
        deviation = math.sqrt(float((counts * centred**2).sum()) / (counts.sum() - 1))
    # Standardised but not centred, as in the package.
    features = np.stack([np.tanh(differences / deviation), difficulties, np.ones(len(own))], axis=1)
    readable = ~np.isnan(probabilities)
    return (
        np.concatenate([data.features, features[readable]]),
        np.concatenate([data.probabilities, probabilities[readable]]),
        np.concatenate([data.weights, counts[readable]]),
    )


def _fit(x: Floats, p: Floats, weight: Floats) -> tuple[Floats, float]:
    """Return the weights of the three features, and the inverse penalty that cross-validation chose for them."""
    sklearn = require_sklearn()
    scorer = sklearn.metrics.make_scorer(_loss, response_method="predict_proba", greater_is_better=False)
    with sklearn.config_context(enable_metadata_routing=True):
        model = sklearn.linear_model.LogisticRegressionCV(
            Cs=10,
            cv=sklearn.model_selection.GroupKFold(_FOLDS),
            scoring=scorer.set_score_request(p=True, weight=True),
            l1_ratios=(1.0,),
            use_legacy_attributes=False,
            **_SOLVER,
        ).set_fit_request(sample_weight=True)
        rows = np.tile(np.arange(len(x)), 2)
        model.fit(**_doubled(x, p, weight), groups=rows, p=p[rows], weight=weight[rows])
    return np.asarray(model.coef_[0], dtype=np.float64), float(model.C_)


def _refit(x: Floats, p: Floats, weight: Floats, strength: float) -> Floats:
    """Return the weights of the three features under a given inverse penalty."""
    model = require_sklearn().linear_model.LogisticRegression(C=strength, l1_ratio=1.0, **_SOLVER)
    return np.asarray(model.fit(**_doubled(x, p, weight)).coef_[0], dtype=np.float64)


def require_sklearn() -> Any:
    """Return scikit-learn with the modules that the fit needs; HarnessError, with the remedy, where it is missing."""
    try:
        import sklearn.linear_model
        import sklearn.metrics
        import sklearn.model_selection
    except ModuleNotFoundError as error:
        raise HarnessError("length control needs scikit-learn: pip install 'scikit-learn>=1.8'") from error
    return sklearn


def _doubled(x: Floats, p: Floats, weight: Floats) -> dict[str, Any]:
    """Return what fits probabilities: each row counts once as 1 with weight p and once as 0 with weight 1 - p."""
    return {
        "X": np.concatenate([x, x]),
        "y": np.repeat([1, 0], len(x)),
        "sample_weight": np.concatenate([p * weight, (1 - p) * weight]),
    }


def _loss(_labels: Any, predicted: Floats, p: Floats, weight: Floats) -> float:
    """Return the mean loss of predicted probabilities, where the truth is a probability too."""
    q = np.clip(predicted, 1e-15, 1 - 1e-15)
    return float(-(weight * (p * np.log(q) + (1 - p) * np.log(1 - q))).mean())


def _predict(own: Floats, weights: Floats) -> Floats:
    """Return the probability of each instruction with outputs of equal length."""
    return np.asarray(np.exp(-np.logaddexp(0, -(own[:, 2] * weights[1] + weights[2]))), dtype=np.float64)
