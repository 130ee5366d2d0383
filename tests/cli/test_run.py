"""`harness run` from end to end with recorded outputs, and everything that can be wrong with what it is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.evaluation.options import run_options
from tests.conftest import Command

Outputs = Callable[..., Path]
RIGHT = ("3 + 4 = 7\n#### 7", "The answer is $2,000.00.", "**-5** degrees", "Each part is 2 m long.")


@pytest.fixture
def run(harness: Command, gsm8k_data: Path, tmp_path: Path) -> Callable[..., Any]:
    def command(model: Path, *words: str) -> Any:
        base = ["run", "-b", "gsm8k", "-e", "replay", "-m", model, "--data", gsm8k_data, "-o", tmp_path / "runs"]
        return harness(*base, *words)

    return command


def folders(tmp_path: Path) -> list[Path]:
    return sorted(path.parent for path in (tmp_path / "runs").rglob("run.json"))


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_leaves_a_record_and_a_table(run: Command, outputs: Outputs, tmp_path: Path) -> None:
    done = run(outputs("#### 7", "I cannot tell.", "First 4, then -5.\n# Query:\nWhat is 3?", "#### 3"))
    assert done.code == 0
    [folder] = folders(tmp_path)
    assert folder.parent == tmp_path / "runs" / "gsm8k" / "outputs"
    config, results = read(folder, "run.json"), read(folder, "results.json")
    assert folder.name.endswith(config["fingerprint"][:8])
    accuracy = results["metrics"]["final-number"]["accuracy"]
    assert (accuracy["value"], accuracy["n"], accuracy["method"]) == (0.5, 4, "wilson")
    assert results["metrics"]["last-number"]["accuracy"]["value"] == 0.25
    assert results["unparsed"]["final-number"] == {"count": 1, "ids": ["test-0001"]}
    assert (results["truncated"]["count"], results["failed"]["count"]) == (0, 0)
    assert "final-number accuracy 50.0% [15.0%, 85.0%] 4 1 (25.0%)" in " ".join(done.out.split())
    assert "warning: 1 (25.0%) outputs have no answer that final-number can read" in done.out
    assert str(folder) in done.out
    sample = lines(folder)[2]
    assert sample["status"] == "ok"
    assert sample["answers"] == {"final-number": "-5", "last-number": "3"}
    assert sample["prompt"].endswith("How many degrees is it now?\nAnswer:```\n\n# Answer:\n```\n")
    assert sample["gold"] == "-5"


def test_the_same_command_again_does_nothing_twice(run: Command, outputs: Outputs, tmp_path: Path) -> None:
    model = outputs(*RIGHT)
    run(model)
    [folder] = folders(tmp_path)
    before = {name: (folder / name).read_bytes() for name in ("samples.jsonl", "results.json", "timing.json")}
    assert run(model).code == 0
    assert folders(tmp_path) == [folder]
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert run(model, "--fresh").code == 0
    assert len(folders(tmp_path)) == 2


def test_a_torn_run_is_completed_to_the_same_results(run: Command, outputs: Outputs, tmp_path: Path) -> None:
    model = outputs(*RIGHT)
    run(model)
    [folder] = folders(tmp_path)
    whole, results = (folder / "samples.jsonl").read_bytes(), (folder / "results.json").read_bytes()
    for cut in range(0, len(whole), 97):
        (folder / "samples.jsonl").write_bytes(whole[:cut])
        (folder / "results.json").unlink()
        assert run(model).code == 0
        assert (folder / "results.json").read_bytes() == results
        assert len(lines(folder)) == 4


def test_other_options_are_another_run(run: Command, outputs: Outputs, tmp_path: Path) -> None:
    model = outputs(*RIGHT)
    run(model)
    run(model, "--prompt-format", "plain")
    run(model, "--set", "gsm8k.generation.max_tokens=64")
    run(model, "--limit", "2")
    run(model, "--limit", "2", "--seed", "1")
    assert len(folders(tmp_path)) == 5
    outputs(*RIGHT[:3], "#### 99")
    run(model)
    assert len(folders(tmp_path)) == 6


def test_a_limit_takes_a_seeded_sample_and_finds_its_outputs(run: Command, outputs: Outputs, tmp_path: Path) -> None:
    assert run(outputs(*RIGHT), "--limit", "2", "--seed", "3").code == 0
    [folder] = folders(tmp_path)
    assert read(folder, "results.json")["n"] == 2
    assert read(folder, "results.json")["metrics"]["final-number"]["accuracy"]["value"] == 1
    assert (read(folder, "run.json")["examples"], read(folder, "run.json")["selected"]) == (4, 2)


def test_an_earlier_run_can_be_repeated_from_its_record(
    harness: Command, run: Command, outputs: Outputs, tmp_path: Path
) -> None:
    run(outputs(*RIGHT), "--limit", "3", "--set", "gsm8k.generation.max_tokens=9")
    [folder] = folders(tmp_path)
    assert harness("run", "--from", folder / "run.json", "--fresh").code == 0
    first, second = folders(tmp_path)
    assert read(first, "results.json") == read(second, "results.json")
    assert read(first, "run.json")["fingerprint"] == read(second, "run.json")["fingerprint"]


def test_a_run_file_gives_options_and_flags_win(
    harness: Command, outputs: Outputs, gsm8k_data: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'benchmark = "gsm8k"\nmodel = "{outputs(*RIGHT)}"\nengine = "replay"\ndata = "{gsm8k_data}"\nlimit = 1\n'
        f'out = "{tmp_path / "runs"}"\n[gsm8k.generation]\nmax_tokens = 7\n'
    )
    assert harness("run", config, "--limit", "2").code == 0
    [folder] = folders(tmp_path)
    command = read(folder, "run.json")["command"]
    assert (command["limit"], command["options"]) == (2, {"gsm8k": {"generation": {"max_tokens": 7}}})


def test_a_run_file_of_several_benchmarks_is_narrowed_by_name(
    harness: Command, outputs: Outputs, gsm8k_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "four.toml"
    path.write_text(
        'benchmark = ["gsm8k", "alpaca_eval"]\njudge_model = "no-such-judge"\njudge_engine = "openai"\n'
        '[judge]\napi = "chat"\n[winrate]\norders = "one"\n[mmlu]\nshots = 0\n',
        encoding="utf-8",
    )
    words = ["run", path, "-b", "gsm8k", "-e", "replay", "-m", outputs(*RIGHT), "--data", gsm8k_data]
    words += ["-o", tmp_path / "runs"]
    assert harness(*words).code == 0
    [folder] = folders(tmp_path)
    assert read(folder, "run.json")["command"]["options"] == {}
    assert read(folder, "run.json")["command"]["judge_model"] is None
    for given, message in (
        (["--set", "mmlu.shots=1"], "unknown option or plugin 'mmlu'"),  # what is typed is meant
        (["--judge", "another"], "gsm8k needs no judge; leave it out"),
    ):
        done = harness(*words, *given)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert message in done.err
    path.write_text("[winrat]\norders = 'one'\n", encoding="utf-8")
    assert "unknown option or plugin 'winrat'" in harness(*words).err


def test_a_run_can_be_given_a_folder_of_its_own(run: Command, outputs: Outputs, tmp_path: Path) -> None:
    folder, model = tmp_path / "a" / "base-gsm8k", outputs(*RIGHT)
    given = ("--run-dir", folder)
    (folder / ".hidden").parent.mkdir(parents=True)
    assert run(model, *given).code == 0
    assert folders(tmp_path) == []
    assert read(folder, "results.json")["n"] == 4
    before = (folder / "run.json").read_bytes()
    assert run(model, *given).code == 0  # the same again goes on with it
    assert (folder / "run.json").read_bytes() == before
    for words, message in (
        (("--limit", "2"), "is a run with other options, of another model or of other data; name another --run-dir"),
        (("--fresh",), "is a run already; name another --run-dir, or give --replace"),
        (("-b", "mmlu"), "is the folder of one run; 2 benchmarks are given"),
    ):
        done = run(model, *given, *words)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert message in done.err
    assert (folder / "run.json").read_bytes() == before
    assert run(model, *given, "--limit", "2", "--replace").code == 0
    assert read(folder, "results.json")["n"] == 2
    assert "--replace goes with --run-dir" in run(model, "--replace").err
    (other := tmp_path / "other").mkdir()
    (other / "mine.txt").write_text("kept", encoding="utf-8")
    assert "is there already and no run; name another --run-dir" in run(model, "--run-dir", other).err
    assert [path.name for path in other.iterdir()] == ["mine.txt"]


def test_a_dry_run_says_everything_and_writes_nothing(run: Command, outputs: Outputs, tmp_path: Path) -> None:
    done = run(outputs(*RIGHT), "--dry-run", "--limit", "3")
    assert done.code == 0
    for fact in ("GSM8K (3 of 4 examples)", "replay", "zero_shot_system", "'# Query:'", "final-number, last-number"):
        assert fact in done.out
    assert not (tmp_path / "runs").exists()


def test_outputs_of_any_kind_are_recorded_and_shown_safely(
    harness: Command, run: Command, outputs: Outputs, tmp_path: Path
) -> None:
    nasty = [
        "\x1b[2J\x1b]0;title\x07 #### 7",
        "lone \udc80 surrogate 2000",
        "\u202e#### -5\x00",
        "9 " * 500_000 + "#### 2",
    ]
    assert run(outputs(*nasty)).code == 0
    [folder] = folders(tmp_path)
    assert [line["output"] for line in lines(folder)] == nasty
    assert read(folder, "results.json")["metrics"]["final-number"]["accuracy"]["value"] == 1
    shown = harness("show", folder)
    assert shown.code == 0
    assert not set(shown.out) & set("\x1b\x07\x00\u202e\udc80")
    assert "\\x1b[2J" in shown.out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question": "a", "answer": "#### 1"}\n{"question": \n{"a"\n', "test.jsonl:2: not JSON.*2 bad lines in all"),
        (b'{"question": "a"}\n', "test.jsonl:1: .*'answer'"),
        (b'{"question": "a", "answer": "one"}\n', "test.jsonl:1: 'answer' has no number behind ####"),
        (b'{"question": "a", "answer": 7}\n', "test.jsonl:1: 'answer' must be text"),
        (b'{"question": "a", "answer": "#### \xff"}\n', "test.jsonl:1: not UTF-8"),
        (b"", "test.jsonl: empty"),
    ],
)
def test_bad_data_is_one_line(run: Command, outputs: Outputs, gsm8k_data: Path, content: bytes, message: str) -> None:
    (gsm8k_data / "gsm8k" / "test.jsonl").write_bytes(content)
    check_one_line(run(outputs(*RIGHT)), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-b", "gsm8"], "unknown benchmark 'gsm8'; did you mean 'gsm8k'"),
        (["-e", "replai"], "unknown engine 'replai'; did you mean 'replay'"),
        (["--set", "gsm8k.splitt=train"], "gsm8k has no option 'splitt'; did you mean 'split'"),
        (["--set", "gsm8=1"], "unknown option or plugin 'gsm8'; did you mean 'gsm8k'"),
        (["--set", "vllm.dtype=x"], "unknown option or plugin 'vllm'"),
        (["--set", "modle=x"], "unknown option or plugin 'modle'; did you mean 'model'"),
        (["--set", "nonsense"], "--set 'nonsense' must look like key=value"),
        (["--prompt-format", "alpaca_sf"], "unknown prompt format 'alpaca_sf'; did you mean 'alpaca_sft'"),
        (["--limit", "0"], "limit must be at least 1, not 0"),
        (["--no-plugin", "replay"], "engine 'replay' from posttrain-harness .* disabled"),
        (["--no-plugin", "nobody"], "cannot disable 'nobody'"),
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["-m", "none.jsonl"], "none.jsonl"),
        (["--from", "none.json"], "cannot read none.json: No such file"),
        (["none.toml"], "cannot read none.toml: No such file"),
    ],
)
def test_what_does_not_fit_is_one_line(run: Command, outputs: Outputs, words: list[str], message: str) -> None:
    check_one_line(run(outputs(*RIGHT), *words), message)


def test_a_run_without_benchmark_or_model_says_so(harness: Command) -> None:
    check_one_line(harness("run"), "no benchmark given")
    check_one_line(harness("run", "-b", "gsm8k"), "no model given")


def test_too_few_outputs_are_one_line(run: Command, outputs: Outputs) -> None:
    check_one_line(run(outputs(*RIGHT[:3])), "outputs.jsonl: .*3 outputs have no ids")


def test_a_missing_output_is_a_failure_not_a_wrong_answer(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_text('{"id": "test-0000", "output": "#### 7"}\n{"id": "test-0001", "output": "#### 1"}\n')
    done = run(path)
    assert done.code == 1
    [folder] = folders(tmp_path)
    results = read(folder, "results.json")
    assert (results["failed"]["count"], results["failed"]["ids"]) == (2, ["test-0002", "test-0003"])
    [reason] = results["failed"]["reasons"]  # they differ in the id alone
    assert (reason["count"], reason["id"]) == (2, "test-0002")
    assert "2 × no output with the id 'test-0002'" in done.out
    assert (results["n"], results["metrics"]["final-number"]["accuracy"]["n"]) == (4, 2)
    assert "warning: 2 (50.0%) outputs failed and are left out of the figures" in done.out


def test_an_unwritable_out_folder_is_one_line(run: Command, outputs: Outputs, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    check_one_line(run(outputs(*RIGHT)), "cannot write .*runs.*: ")


def test_an_internal_error_is_one_line_too_unless_debugging(harness: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("harness.registry.Registry.plugins", broken)
    done = harness("plugins")
    assert done.code == 70
    assert done.err.startswith("harness: internal error: ZeroDivisionError: by zero")
    monkeypatch.setenv("HARNESS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        harness("plugins")


def test_a_device_without_room_is_one_line(harness: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has 1 GiB.")

    monkeypatch.setattr("harness.registry.Registry.plugins", full)
    check_one_line(harness("plugins"), "out of memory: CUDA out of memory.*; for a training give a smaller microbatch")


def check_one_line(done: Any, message: str) -> None:
    import re

    assert done.code == 2, done
    [line] = done.err.strip().splitlines()
    assert re.search(message, line), line


@pytest.mark.parametrize("table", ["openai", "judge", "vllm"])
def test_an_earlier_run_names_no_server_that_gets_the_key_and_has_no_code_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    def options(*pairs: str, **said: Any) -> Any:
        command = {"benchmark": ["gsm8k"], "model": "m", "engine": "openai", "options": {table: said}}
        (tmp_path / "run.json").write_text(json.dumps({"format": 1, "command": command}))
        return run_options(earlier=tmp_path, pairs=pairs).options[table]

    elsewhere = "http://elsewhere.example/v1"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert options(base_url=elsewhere) == {"base_url": elsewhere}, "there is no key to be got"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    for url in (elsewhere, "http://localhost.example:8000/v1", "http://localhost@elsewhere.example/v1", "http://[/v1"):
        with pytest.raises(ConfigError, match=f"{table}.base_url = .* which would get OPENAI_API_KEY"):
            options(base_url=url)
    for url in ("http://localhost:8000/v1", "http://127.0.0.1:8000/v1", "http://[::1]:8000/v1"):
        assert options(base_url=url) == {"base_url": url}
    assert options(f"{table}.base_url={elsewhere}", base_url=elsewhere) == {"base_url": elsewhere}
    monkeypatch.setenv("OPENAI_BASE_URL", f"{elsewhere}/")
    assert options(base_url=elsewhere) == {"base_url": elsewhere}, "which is the user's own"
    with pytest.raises(ConfigError, match=f"{table}.engine_args = .*, which can have vLLM run code"):
        options(engine_args={"trust_remote_code": True})
    with pytest.raises(ConfigError, match="which can have vLLM run code"):
        options(f"{table}.engine_args.kv_cache_dtype=fp8", engine_args={"trust_remote_code": True})
    given = options(f"{table}.engine_args.kv_cache_dtype=fp8", engine_args={"kv_cache_dtype": "fp8"})
    assert given == {"engine_args": {"kv_cache_dtype": "fp8"}}


@pytest.mark.parametrize("path", ["x" * 5000, "a\\u0000b"])
@pytest.mark.parametrize("option", ["model", "out", "data"])
def test_what_no_path_can_be_is_one_line(
    harness: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"model": "o.jsonl", "data": "data", "out": "runs", option: path}
    lines = ['benchmark = ["gsm8k"]', 'engine = "replay"', *(f'{name} = "{value}"' for name, value in given.items())]
    (tmp_path / "run.toml").write_text("\n".join(lines))
    (tmp_path / "o.jsonl").write_text('{"output": "#### 1"}\n')
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    (tmp_path / "data" / "gsm8k" / "test.jsonl").write_text('{"question": "?", "answer": "#### 1"}\n')
    done = harness("run", "run.toml")
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert len(done.err) < 300
