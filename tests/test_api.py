"""What `import harness` offers: the same as the command line, with objects in the place of plugins, light and typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import harness
from harness.interfaces import DataSource
from harness.interfaces import Run as RunLike
from harness.statistics import mean
from harness.testing.fakes import FakeEngine, RecordingTracker
from harness.types import Columns, Estimate, Example, Generation, Request, Scores
from tests.conftest import Command

Outputs = Callable[..., Path]


@dataclass(frozen=True)
class Sums:
    """A benchmark that needs no data and is installed nowhere; `count` is its option."""

    name: ClassVar[str] = "sums"
    title: ClassVar[str] = "Sums"
    citation: ClassVar[str] = "made up here"
    parsers: ClassVar[tuple[str, ...]] = ("final-number",)
    scorer: ClassVar[str] = "exact"
    generation: Generation = Generation(max_tokens=16)
    count: int = 4

    def examples(self, source: DataSource) -> Sequence[Example]:
        return [Example(f"{n}", {"n": n}, str(n + n), group="odd" if n % 2 else "even") for n in range(self.count)]

    def instruction(self, example: Example) -> str:
        return f"What is {example.fields['n']} + {example.fields['n']}?"

    def exports(self, run: RunLike) -> Mapping[str, Iterable[Mapping[str, Any]]]:
        return {}


class FirstWord:
    """A parser."""

    name = "first-word"

    def parse(self, output: str, example: Example | None = None) -> str | None:
        return output.split()[0] if output.split() else None


class LastWord(FirstWord):
    """A parser of the same name that does something else."""

    def parse(self, output: str, example: Example | None = None) -> str | None:
        return output.split()[-1] if output.split() else None


class Near:
    """A scorer: right within one."""

    name = "near"
    judged = False

    def score(self, example: Example, answer: str | None) -> Scores:
        return {"near": float(answer is not None and abs(int(answer) - int(example.gold or 0)) <= 1)}

    def summarise(self, columns: Columns) -> Mapping[str, Estimate]:
        return {"near": mean(columns["near"])} if "near" in columns else {}


def double(request: Request) -> str:
    """Answer right, but for 3 + 3."""
    n = int(request.id)
    return f"{n + n + (n == 3)} is what {n} and {n} make: {n + n + (n == 3)}"


def sums(tmp_path: Path, **options: Any) -> harness.Run:
    options = {"engine": FakeEngine(double), "prompt_format": "plain", "out": tmp_path / "runs", **options}
    run: harness.Run = harness.evaluate(options.pop("benchmark", Sums()), "some-model", progress=False, **options)
    return run


@pytest.fixture
def harness_command(request: pytest.FixtureRequest) -> Command:
    """The command line; its fixture is called as the package is."""
    command: Command = request.getfixturevalue("harness")
    return command


def recorded(run: harness.Run) -> dict[tuple[str, str], tuple[str, str]]:
    return {(one.kind, one.name): (one.distribution, one.version) for one in run.record.plugins}


# What is offered


def test_importing_it_loads_nothing() -> None:
    program = "import sys; before = set(sys.modules); import harness; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.partition(".")[0] == "harness"} == {"harness", "harness.version"}
    assert not {name.partition(".")[0] for name in loaded} - {"harness", *sys.stdlib_module_names}


def test_reading_runs_needs_neither_torch_nor_click(tmp_path: Path) -> None:
    run = sums(tmp_path)
    program = (
        f"import sys, harness; print(harness.describe(harness.load_run({str(run.path)!r})));"
        "sys.exit(str(sorted({'torch', 'transformers', 'click'} & set(sys.modules)) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "" and "75.0%" in done.stdout


def test_every_name_is_there() -> None:
    assert set(harness.__all__) <= set(dir(harness))
    for name in harness.__all__:
        assert getattr(harness, name) is getattr(harness, name)
    assert issubclass(harness.RunError, harness.errors.HarnessError)
    with pytest.raises(AttributeError, match="module 'harness' has no attribute 'evalute'"):
        _ = harness.evalute  # type: ignore[attr-defined]


SCRIPT = """
import harness

run = harness.evaluate("gsm8k", "ckpt/", limit=3, vllm={"dtype": "bfloat16"})
print(run.results.metrics["final-number"]["accuracy"].value, run.record.model, run.timing.load_seconds)
for each in harness.evaluate(["gsm8k", "mmlu"], "ckpt/"):
    print(each.path)
folder = harness.train("sft", "sft.toml", model="base/", out="ckpt/", learning_rate=1e-5)
print(harness.compare(run, "runs/other").labels, folder.name)
"""

#: What mypy need not read to know the harness's own types.
LARGE = (
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "pydantic",
    "rich",
    "click",
    "pluggy",
    "jinja2",
    "matplotlib",
    "tqdm",
)

#: A mistake in the script → what mypy says of it.
MISTAKES = {
    "run.record.model": ("run.record.modle", '"RunRecord" has no attribute "modle"'),
    ".value": (".vlaue", '"Estimate" has no attribute "vlaue"'),
    "limit=3": ('limit="3"', "No overload variant"),
    "each.path": ("each.pathh", '"Run" has no attribute "pathh"'),
    "folder.name": ("folder.nam", '"Path" has no attribute "nam"'),
    ".labels": (".label", '"Comparison" has no attribute "label"'),
}


def test_mypy_sees_a_misspelt_field_of_a_users_script(tmp_path: Path) -> None:
    scripts = {"right.py": SCRIPT}
    scripts |= {f"wrong_{n}.py": SCRIPT.replace(*pair) for n, pair in enumerate(_mistakes())}
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\nfollow_imports = silent\nignore_missing_imports = true\n"
        f"[mypy-{','.join(f'{each}.*' for each in LARGE)}]\nfollow_imports = skip\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", "cache", *scripts],
        cwd=tmp_path, env={**os.environ, "MYPYPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout
    assert "right.py" not in said, said
    for number, (_, message) in enumerate(MISTAKES.values()):
        assert any(line.startswith(f"wrong_{number}.py") and message in line for line in said.splitlines()), said


def _mistakes() -> Iterator[tuple[str, str]]:
    return ((before, after) for before, (after, _) in MISTAKES.items())


# The same as the command line


def test_it_is_the_run_that_the_command_line_makes(
    harness_command: Command, gsm8k_data: Path, outputs: Outputs, tmp_path: Path
) -> None:
    texts = ["#### 7", "It is 2,000.", "I do not know", "#### 3"]
    words = ["run", "-b", "gsm8k", "-e", "replay", "-m", outputs(*texts), "--data", gsm8k_data, "-o", tmp_path / "runs"]
    done = harness_command(*words, "--set", "gsm8k.generation.max_tokens=9", "-n", "3")
    run = harness.evaluate(
        "gsm8k", outputs(*texts), engine="replay", data=gsm8k_data, out=tmp_path / "runs", limit=3,
        gsm8k={"generation": {"max_tokens": 9}},
    )  # fmt: skip
    assert str(run.path) in done.out
    assert harness.describe(run) == done.out.rstrip("\n")
    assert [run.path] == [each.path for each in harness.load_runs(tmp_path / "runs")]
    assert repr(run) == f"Run({str(run.path)!r})"
    again: dict[str, Any] = {"engine": "replay", "data": gsm8k_data, "out": tmp_path / "runs", "limit": 3}
    again |= {"gsm8k": {"generation": {"max_tokens": 9}}}
    assert harness.evaluate("gsm8k", outputs(*texts), **again).path == run.path
    assert harness.evaluate("gsm8k", outputs(*texts), fresh=True, **again).path != run.path


def test_a_folder_of_its_own_a_run_file_and_an_earlier_run(gsm8k_data: Path, outputs: Outputs, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"""
        limit = 3
        out = "{tmp_path / "runs"}"
        [gsm8k.generation]
        max_tokens = 9
        [mmlu]
        shots = 5
    """)
    model, named = outputs("#### 7", "2,000", "-5", "2"), tmp_path / "named"
    given: dict[str, Any] = {"engine": "replay", "data": gsm8k_data, "progress": False}
    run = harness.evaluate("gsm8k", model, config=file, run_dir=named, **given)
    assert (run.path, run.results.n) == (named, 3)
    assert (run.record.identity.generation["max_tokens"], (tmp_path / "runs").exists()) == (9, False)
    with pytest.raises(harness.RunError, match="run with other options"):
        harness.evaluate("gsm8k", model, config=file, run_dir=named, limit=2, **given)
    fewer = harness.evaluate("gsm8k", model, config=file, run_dir=named, replace=True, limit=2, **given)
    assert (fewer.path, fewer.results.n) == (named, 2)
    again = harness.evaluate("gsm8k", model, earlier=fewer, out=tmp_path / "runs", gsm8k={"split": "test"}, **given)
    assert (again.record.fingerprint, again.path) != (fewer.record.fingerprint, named)
    assert (again.results.n, again.record.identity.generation["max_tokens"]) == (2, 9)
    with pytest.raises(harness.ConfigError, match="nowhere.toml: No such file"):
        harness.evaluate("gsm8k", model, config="nowhere.toml", **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limti": 3}, "unknown option or plugin 'limti'; did you mean 'limit'"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"limit": "many"}, "evaluate.limit: Input should be a valid integer"),
        ({"engine": "vlm"}, "unknown engine 'vlm'; did you mean 'vllm'"),
        ({"sums": {"cuont": 3}}, "sums has no option 'cuont'; did you mean 'count'"),
        ({"judge": "j"}, "sums needs no judge"),
        ({"parsers": ["none"]}, "unknown parser 'none'"),
        ({"engine": FirstWord()}, "FirstWord is no Engine: it lacks"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.HarnessError, match=message) as caught:
        sums(tmp_path, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_the_model_is_loaded_once_for_several_benchmarks(tmp_path: Path, gsm8k_data: Path) -> None:
    loads: list[str] = []

    class Counting(FakeEngine):
        def load(self, model: str) -> Any:
            loads.append(model)
            return super().load(model)

    runs = harness.evaluate(
        ["gsm8k", Sums()], "some-model", engine=Counting(lambda asked: "7"), prompt_format="plain", data=gsm8k_data,
        out=tmp_path, progress=False,
    )  # fmt: skip
    assert [run.record.benchmark for run in runs] == ["gsm8k", "sums"]
    assert loads == ["some-model"]


def test_progress_is_said_unless_it_is_not_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.evaluation.progress._SECONDS_BETWEEN_LINES", 0.0)
    run = sums(tmp_path)
    assert capsys.readouterr() == ("", "")
    harness.evaluate(
        Sums(), "some-model", engine=FakeEngine(double), prompt_format="plain", out=tmp_path / "said", limit=2
    )
    assert "Sums: 2 of 2, " in capsys.readouterr().err
    lines = (run.path / "samples.jsonl").read_text().splitlines(keepends=True)
    (run.path / "samples.jsonl").write_text("".join(lines[:1]))
    harness.evaluate(Sums(), "some-model", engine=FakeEngine(double), prompt_format="plain", out=tmp_path / "runs")
    assert "Sums: 1 of 4 were done before" in capsys.readouterr().err


def test_what_is_to_be_known_is_a_warning(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "harness.json").write_text(json.dumps({"prompt_format": "alpaca_sft"}))
    with pytest.warns(harness.HarnessWarning, match="was trained with the prompt format 'alpaca_sft'") as told:
        harness.evaluate(
            Sums(), model, engine=FakeEngine(double), prompt_format="plain", out=tmp_path / "runs", progress=False
        )
    assert [one.filename for one in told] == [__file__]


# Objects in the place of plugins


def test_objects_are_used_and_recorded_as_what_they_are(tmp_path: Path) -> None:
    tracker = RecordingTracker()
    run = sums(tmp_path, parsers=[FirstWord(), "last-number"], scorer=Near(), trackers=[tracker], sums={"count": 6})
    assert run.results.n == 6
    assert run.results.metrics["first-word"]["near"].value == 1
    assert set(run.results.metrics) == {"first-word", "last-number"} == set(run.record.parsers)
    assert (run.record.command.parsers, run.record.command.scorer) == (["first-word", "last-number"], "near")
    found = recorded(run)
    assert found["benchmarks", "sums"] == ("in-memory", "0") == found["engines", "fake"]
    assert found["parsers", "last-number"][0] == "posttrain-harness"
    for kind, name in (("parsers", "first-word"), ("scorers", "near")):
        distribution, version = found[kind, name]
        assert distribution == "in-memory" and len(version) == 12
    [followed] = tracker.runs
    assert followed.values[0][1]["sums/first-word/near"] == 1


def test_a_run_goes_on_with_the_same_object_and_never_with_another(tmp_path: Path) -> None:
    first = sums(tmp_path, parsers=[FirstWord()])
    assert sums(tmp_path, parsers=[FirstWord()]).path == first.path
    assert sums(tmp_path, parsers=[LastWord()]).path != first.path
    assert sums(tmp_path, parsers=[FirstWord()], benchmark=Sums(count=5)).path != first.path
    assert sums(tmp_path, parsers=[FirstWord()], scorer=Near()).path != first.path


def test_other_readers_are_in_the_record_that_a_run_is_made_again_from(
    harness_command: Command, gsm8k_data: Path, outputs: Outputs, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"engine": "replay", "data": gsm8k_data, "out": tmp_path / "runs"}
    run = harness.evaluate("gsm8k", outputs("7", "2", "-5", "2"), parsers=["last-number"], scorer="answered", **options)
    assert list(run.results.metrics) == ["last-number"]
    done = harness_command("run", "--from", run.path)
    assert done.code == 0 and str(run.path) in done.out


def test_a_prompt_file_is_read_by_an_object(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [{"instruction": f"{n}?", "id": str(n), "gold": f"{n + n}"} for n in (1, 3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = sums(tmp_path, benchmark=path, parsers=[FirstWord()], scorer="exact")
    assert run.results.metrics["first-word"]["accuracy"].value == 0.5


def test_a_registry_of_the_callers_is_used(tmp_path: Path) -> None:
    registry = harness.Registry()
    registry.add("parsers", FirstWord())
    run = sums(tmp_path, parsers=["first-word"], registry=registry)
    assert harness.score(run, registry=registry).metrics["first-word"]["accuracy"].value == 0.75
    with pytest.raises(harness.PluginError, match="unknown parser 'first-word'"):
        harness.score(run)
    assert harness.score(run, parsers=[LastWord()]).metrics["first-word"]["accuracy"].value == 0.75


# Ctrl-C

INTERRUPTED = """
import sys, time
import harness
from harness.testing.fakes import FakeEngine
sys.path.insert(0, sys.argv[2])
from tests.test_api import Sums, double

def slow(request):
    time.sleep(0.03)
    return double(request)

try:
    harness.evaluate(Sums(count=60), "some-model", engine=FakeEngine(slow), prompt_format="plain", out=sys.argv[1])
except KeyboardInterrupt:
    run, = harness.load_runs(sys.argv[1])
    print(len(list(run.samples())), run.going, run.finished)
"""


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    program = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "runs"), str(Path(__file__).parents[1])]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(path.read_bytes().count(b"\n") >= 3 for path in tmp_path.glob("runs/*/*/2*/samples.jsonl")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    count, going, finished = out.split()
    assert 3 <= int(count) < 60 and (going, finished) == ("False", "False")

    asked: list[str] = []

    def rest(request: Request) -> str:
        asked.append(request.id)
        return double(request)

    run = sums(tmp_path, benchmark=Sums(count=60), engine=FakeEngine(rest))
    assert run.finished and len(asked) == 60 - int(count)
