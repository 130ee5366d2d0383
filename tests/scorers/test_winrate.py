"""Win rates against the published leaderboard, the alpaca_eval package's own figures, and simulated truth."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError, HarnessError
from harness.scorers.alpaca_order import digest, instruction_order
from harness.scorers.winrate import length_controlled_win_rate, win_rate
from harness.scorers.winrate_fit import LengthControlData, LengthControlledWinRate, read_length_control

ROOT = Path(__file__).parents[2]
MODELS = ["alpaca-7b", "gpt-3.5-turbo-1106", "text_davinci_001"]
PUBLISHED = ["win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws", "n_total"]
KEPT = [i for i in range(805) if i % 8 != 3]


def perf_winrate() -> Any:
    """Load perf/winrate.py, which makes the simulated inputs and runs the package."""
    spec = importlib.util.spec_from_file_location("perf_winrate", ROOT / "perf" / "winrate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["perf_winrate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made() -> Any:
    """A simulated model on 805 made instructions: length -1.2, difficulty 1, bias -1."""
    return perf_winrate().simulation(805, 7)


@pytest.fixture(scope="module")
def data(made: Any) -> LengthControlData:
    return read_length_control(made.gamed, made.instructions)


def unreadable(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the annotations, every fiftieth without a preference."""
    return [{**a, "preference": None if i % 50 == 0 else a["preference"]} for i, a in enumerate(annotations)]


def fitted(annotations: list[dict[str, Any]], data: LengthControlData, replicates: int = 2) -> LengthControlledWinRate:
    pytest.importorskip("sklearn")
    return length_controlled_win_rate(annotations, data, replicates=replicates)


@pytest.mark.parametrize("model", MODELS)
def test_the_published_figures(shared_data: Path, model: str) -> None:
    folder = shared_data / "alpaca_eval"
    ours = win_rate(json.loads((folder / "annotations" / f"{model}.json").read_text(encoding="utf-8")))
    with (folder / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        published = {row[""]: row for row in csv.DictReader(file)}[model]
    for name in PUBLISHED:
        assert getattr(ours, name) == pytest.approx(float(published[name]), abs=1e-8, rel=0), name
    assert ours.unreadable == 0
    assert ours.lowest == pytest.approx(ours.win_rate)
    assert ours.highest == pytest.approx(ours.win_rate)


@pytest.mark.parametrize(("model", "off"), [("alpaca-7b", 0.001), ("gpt-3.5-turbo-1106", 0.1)])
def test_the_published_length_controlled_figures(shared_data: Path, model: str, off: float) -> None:
    annotations, gamed = _length_controlled(shared_data, model)
    assert fitted(annotations, gamed).length_controlled_winrate == pytest.approx(
        _published(shared_data, model), abs=off
    )


def test_a_published_figure_that_counts_the_rows_it_has(shared_data: Path) -> None:
    """Two instructions have no judgement, and the leaderboard's figure takes what follows them for the ones before."""
    annotations, gamed = _length_controlled(shared_data, "text_davinci_001")
    got = fitted(annotations, gamed)
    assert got.missing == 2
    assert got.length_controlled_winrate == pytest.approx(6.48, abs=0.005)
    lines = (shared_data / "alpaca_eval" / "alpaca_eval.jsonl").read_text(encoding="utf-8").splitlines()
    by_row = {gamed.order[digest(text)]: text for text in (json.loads(line)["instruction"] for line in lines)}
    counted = [{**each, "instruction": by_row[row]} for row, each in enumerate(annotations)]
    published = _published(shared_data, "text_davinci_001")
    assert published == pytest.approx(9.03, abs=0.005)
    assert fitted(counted, gamed).length_controlled_winrate == pytest.approx(published, abs=0.005)


def _length_controlled(shared_data: Path, model: str) -> tuple[list[dict[str, Any]], LengthControlData]:
    folder = shared_data / "alpaca_eval"
    annotations = json.loads((folder / "annotations" / f"{model}.json").read_text(encoding="utf-8"))
    return annotations, read_length_control(folder / "df_gamed_recovered.csv")


def _published(shared_data: Path, model: str) -> float:
    with (shared_data / "alpaca_eval" / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        return float({row[""]: row for row in csv.DictReader(file)}[model]["length_controlled_winrate"])


def test_wins_draws_and_probabilities() -> None:
    # By hand: 0, 1, 1/2, 1/2, 0.25 and 1/2 + 1e-9 are 2.75 wins of 6; 2 wins, 2 losses and 2 draws counted whole.
    got = win_rate([{"preference": p} for p in (1, 2, 1.5, 0, 1.25, 1.5 + 1e-9)])
    assert (got.n_wins, got.n_wins_base, got.n_draws, got.n_total) == (2, 2, 2, 6)
    assert got.win_rate == pytest.approx(100 * 2.75 / 6, abs=1e-6)
    assert got.discrete_win_rate == pytest.approx(50, abs=1e-9)
    assert got.standard_error == pytest.approx(
        100 * np.std([0, 1, 0.5, 0.5, 0.25, 0.5], ddof=1) / math.sqrt(6), abs=1e-6
    )


@pytest.mark.parametrize("nothing", [None, math.nan, -1, 3, 0.5, 2.0001, math.inf])
def test_unreadable_judgements_are_counted_and_bounded(nothing: float | None) -> None:
    got = win_rate([{"preference": p} for p in (2, 2, 1, nothing)])
    assert (got.n_total, got.unreadable) == (3, 1)
    assert got.win_rate == pytest.approx(200 / 3)
    assert (got.lowest, got.highest) == (50, 75)


def test_no_judgement_and_one() -> None:
    for none in (win_rate([]), win_rate([{"preference": None}])):
        assert math.isnan(none.win_rate) and math.isnan(none.discrete_win_rate) and none.n_total == 0
    assert math.isnan(win_rate([]).lowest)
    only_unreadable = win_rate([{"preference": None}])
    assert (only_unreadable.lowest, only_unreadable.highest) == (0, 100)
    one = win_rate([{"preference": 2}])
    assert one.win_rate == 100 and math.isnan(one.standard_error)


@pytest.mark.parametrize(
    ("record", "message"),
    [({}, "there is no 'preference'"), ({"preference": "2"}, "'2', not a number"), ({"preference": True}, "True, not")],
)
def test_a_record_that_is_no_judgement_is_named(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"annotation 2: .*{message}"):
        win_rate([{"preference": 1}, record])


@given(st.lists(st.one_of(st.none(), st.just(0), st.floats(1, 2), st.just(math.nan)), max_size=40))
def test_the_bounds_hold_the_figures_and_swapping_the_sides_mirrors_them(preferences: list[float | None]) -> None:
    got = win_rate([{"preference": p} for p in preferences])
    swapped = win_rate([{"preference": 3 - p if p else p} for p in preferences])
    assert got.n_total + got.unreadable == len(preferences)
    assert got.n_wins + got.n_wins_base + got.n_draws == got.n_total
    assert (swapped.n_wins, swapped.n_draws, swapped.unreadable) == (got.n_wins_base, got.n_draws, got.unreadable)
    if got.n_total:
        assert got.lowest - 1e-9 <= got.win_rate <= got.highest + 1e-9
        assert swapped.win_rate == pytest.approx(100 - got.win_rate, abs=1e-9)
        assert swapped.discrete_win_rate == pytest.approx(100 - got.discrete_win_rate, abs=1e-9)


# Figures of alpaca_eval 0.6.6 (scikit-learn 1.9.1, pandas 3.1.1), metrics.glm_winrate.get_length_controlled_winrate, on
# perf/winrate.py's simulation(805, seed 7); rows left out were given to it with their true row numbers as index.
@pytest.mark.parametrize(
    ("kept", "readable", "rate", "error"),
    [
        (list(range(805)), True, 29.520936741229093, 0.5940308702111318),
        (KEPT, True, 30.122746980566667, 0.6438748342790482),
        (list(range(805)), False, 29.509655432466054, 0.5849351397715175),
    ],
)
def test_the_packages_length_controlled_figures(
    made: Any, data: LengthControlData, kept: list[int], readable: bool, rate: float, error: float
) -> None:
    annotations = made.annotations if readable else unreadable(made.annotations)
    got = fitted([annotations[i] for i in kept], data)
    assert got.length_controlled_winrate == pytest.approx(rate, abs=1e-3)
    assert got.lc_standard_error == pytest.approx(error, abs=1e-3)
    assert got.missing == 805 - len(kept)
    assert got.raw.unreadable == (0 if readable else 17)


def test_the_package_gives_the_same_figures_here(made: Any, data: LengthControlData, tmp_path: Path) -> None:
    if importlib.util.find_spec("alpaca_eval") is None:
        pytest.skip("alpaca_eval is not installed")
    perf = perf_winrate()
    perf.write_gamed(tmp_path / "df_gamed.csv", made.gamed)
    everything, some = list(range(805)), [made.annotations[i] for i in KEPT]
    inputs = [(made.annotations, everything), (some, KEPT), (unreadable(made.annotations), everything)]
    theirs = perf.package_figures(sys.executable, tmp_path / "df_gamed.csv", inputs)
    for (rows, _), (rate, error) in zip(inputs, theirs, strict=True):
        got = fitted(rows, data)
        assert got.length_controlled_winrate == pytest.approx(rate, abs=0.01)
        assert got.lc_standard_error == pytest.approx(error, abs=0.01)


def test_the_fit_finds_the_law_behind_the_judgements(made: Any, data: LengthControlData) -> None:
    got = fitted(made.annotations, data, replicates=60)
    difficulties = np.array([data.difficulties[i] for i in range(805)])
    truth = float((100 / (1 + np.exp(1 - difficulties))).mean())
    assert got.low < truth < got.high
    assert got.low < got.length_controlled_winrate < got.high
    assert got.bootstrap_standard_error > 1.5 * got.lc_standard_error
    assert got.length == pytest.approx(-1.2, abs=0.3)
    assert got.difficulty == pytest.approx(1.0, abs=0.2)
    assert got.bias == pytest.approx(-1.0, abs=0.2)


def test_the_order_of_the_annotations_changes_nothing(made: Any, data: LengthControlData) -> None:
    some = [made.annotations[i] for i in KEPT]
    shuffled = [some[i] for i in np.random.default_rng(0).permutation(len(some))]
    assert fitted(shuffled, data, 5) == fitted(some, data, 5)
    padded = [{**a, "instruction": f"  {a['instruction']}\n"} for a in some]
    assert fitted(padded, data, 5) == fitted(some, data, 5)


def test_the_interval_repeats_with_its_seed(made: Any, data: LengthControlData) -> None:
    pytest.importorskip("sklearn")
    rows = made.annotations[:100]
    first, again, other = (length_controlled_win_rate(rows, data, seed=s, replicates=5) for s in (1, 1, 2))
    assert first == again
    assert (first.low, first.length_controlled_winrate) != (other.low, other.length_controlled_winrate)
    with pytest.raises(ValueError, match="at least 2 replicates"):
        length_controlled_win_rate(rows, data, replicates=1)


def test_a_path_rows_and_data_are_the_same(made: Any, data: LengthControlData, tmp_path: Path) -> None:
    path = tmp_path / "df_gamed.csv"
    perf_winrate().write_gamed(path, made.gamed)
    read = read_length_control(path, made.instructions)
    for name in ("features", "probabilities", "weights"):
        np.testing.assert_array_equal(getattr(read, name), getattr(data, name))
    assert (read.difficulties, read.order) == (data.difficulties, data.order)
    assert set(data.weights.tolist()) == {0.1}


def test_real_instructions_join_without_being_given(shared_data: Path, made: Any, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    folder = shared_data / "alpaca_eval"
    annotations = json.loads((folder / "annotations" / "text_davinci_001.json").read_text(encoding="utf-8"))
    reference = json.loads((folder / "gpt4_1106_preview.json").read_text(encoding="utf-8"))
    path = tmp_path / "df_gamed.csv"
    perf_winrate().write_gamed(path, made.gamed)
    got = length_controlled_win_rate(annotations, path, replicates=2)
    given_order = read_length_control(path, [record["instruction"] for record in reference])
    assert got == length_controlled_win_rate(annotations[::-1], given_order, replicates=2)
    assert got == length_controlled_win_rate(annotations, made.gamed, replicates=2)
    assert got.missing == 2


def test_the_order_kept_here_is_alpacaevals_own(shared_data: Path) -> None:
    reference = json.loads((shared_data / "alpaca_eval" / "gpt4_1106_preview.json").read_text(encoding="utf-8"))
    official = [record["instruction"] for record in reference]
    lines = (shared_data / "alpaca_eval" / "alpaca_eval.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["instruction"] for line in lines] == official
    assert instruction_order() == instruction_order(official)


def test_the_order_kept_here_is_whole() -> None:
    order = instruction_order()
    assert list(order.values()) == list(range(805))
    assert all(re.fullmatch("[0-9a-f]{8}", key) for key in order)
    first = hashlib.sha256(b"What are the names of some famous actors that started their careers on Broadway?")
    assert order[first.hexdigest()[:8]] == 0


def test_a_model_against_itself_has_fifty(made: Any, data: LengthControlData) -> None:
    got = length_controlled_win_rate([{**a, "generator_2": "baseline"} for a in made.annotations], data)
    assert (got.length_controlled_winrate, got.lc_standard_error, got.low, got.high) == (50, 0, 50, 50)


def test_outputs_as_long_as_the_baselines_need_no_control(made: Any, data: LengthControlData) -> None:
    got = fitted([{**a, "output_1": "same", "output_2": "size"} for a in made.annotations], data)
    assert got.length_controlled_winrate == pytest.approx(got.raw.win_rate, abs=1.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": "Never asked."}, r"annotation 3 \('Never asked.'\): not one of the 805 instructions"),
        ({"instruction": "made instruction 0"}, r"annotation 3 \('made instruction 0'\): .* a second time"),
        ({"output_2": None}, "annotation 3: output_2 is missing or not a text"),
        ({"instruction": 7}, "annotation 3: instruction is missing or not a text"),
        ({"generator_2": "another"}, "more than one generator_2: another, model"),
        ({"preference": "m"}, "annotation 3: preference is 'm'"),
    ],
)
def test_annotations_that_cannot_be_joined_are_named(
    made: Any, data: LengthControlData, change: dict[str, Any], message: str
) -> None:
    rows = [{**a, **(change if i == 2 else {})} for i, a in enumerate(made.annotations[:5])]
    with pytest.raises(DataError, match=message):
        length_controlled_win_rate(rows, data)


def test_what_cannot_be_fitted_is_said(made: Any, data: LengthControlData) -> None:
    few = [{**a, "preference": None} for a in made.annotations[:9]] + [made.annotations[9]]
    with pytest.raises(DataError, match="at least two readable judgements.* but there are 1 and 1610"):
        length_controlled_win_rate(few, data)
    tiny = read_length_control(made.gamed[:2], made.instructions)
    with pytest.raises(DataError, match="5 with the fixed ones, but there are 2 and 2"):
        length_controlled_win_rate(made.annotations[:2], tiny)
    same = [{**a, "output_1": "long", "output_2": "brief"} for a in made.annotations]
    with pytest.raises(DataError, match="differs from the baseline's by the same number of characters"):
        length_controlled_win_rate(same, data)


def test_without_scikit_learn_the_remedy_is_named(
    made: Any, data: LengthControlData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(HarnessError, match="pip install 'scikit-learn"):
        length_controlled_win_rate(made.annotations, data)


def test_a_few_annotations_still_have_an_interval(made: Any, data: LengthControlData) -> None:
    got = fitted(made.annotations[:2], data, replicates=20)
    assert 0 <= got.low <= got.high <= 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": 805}, "line 2: index 805 is not a row of the 805"),
        ({"index": -1}, "line 2: index -1 is not a row"),
        ({"index": 1.5}, r"line 2: index 1\.5 is not a row"),
        ({"instruction_difficulty": ""}, "line 2: a value is missing"),
        ({"std_delta_len": "inf"}, "line 2: a value is missing, infinite"),
        ({"preference": 1.5}, r"line 2: .*a preference outside 0\.\.1"),
        ({"preference": "much"}, "line 2: not a number.*much"),
        ({"not_gamed_baseline": "no"}, "line 2: .*not True or False: 'no'"),
        ({"index": 0}, "line 2: instruction 0 has a second, different difficulty"),
        ({"instruction_difficulty": None, "index": None}, "line 2: there is no index, instruction_difficulty"),
    ],
)
def test_a_length_control_row_that_is_wrong_is_named(made: Any, change: dict[str, Any], message: str) -> None:
    rows = [made.gamed[0], {**made.gamed[1], **change}]
    with pytest.raises(DataError, match=message):
        read_length_control(rows, made.instructions)


def test_a_length_control_file_that_is_wrong_is_named(tmp_path: Path, made: Any) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        read_length_control(tmp_path / "gone.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"other\.csv, line 2: there is no preference, index"):
        read_length_control(tmp_path / "other.csv")
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"empty\.csv: no usable rows"):
        read_length_control(tmp_path / "empty.csv")
    with pytest.raises(DataError, match="1 of the 2 instructions are repeated"):
        read_length_control(made.gamed, ["twice", "twice"])


def test_gamed_rows_without_a_preference_are_left_out_but_lend_their_difficulty(made: Any) -> None:
    rows = [{**made.gamed[0], "preference": ""}, {**made.gamed[1], "preference": math.nan}, *made.gamed[2:5]]
    data = read_length_control(rows, made.instructions)
    assert len(data.probabilities) == 3
    assert sorted(data.difficulties) == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match=r"annotation 6 .*no difficulty for it \(index 5\)"):
        length_controlled_win_rate(made.annotations[:6], data)


@pytest.mark.parametrize("preference", [[2.0], [1.0], [1.5], [1.0, 2.0]], ids=str)
def test_judgements_that_are_alike_leave_a_width(made: Any, data: LengthControlData, preference: list[float]) -> None:
    annotations = [{**a, "preference": preference[i % len(preference)]} for i, a in enumerate(made.annotations)]
    for count in (20, 805):
        found = fitted(annotations[:count], data, replicates=3)
        assert 0 <= found.low <= found.length_controlled_winrate <= found.high <= 100
        assert found.high - found.low >= 0.9 * (found.raw.high - found.raw.low) > 0.2
