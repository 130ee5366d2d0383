"""What is small and takes much, what is no file, servers without an end: one line each, in time and within 1 GiB."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from harness import limits
from harness.errors import ConfigError
from tests.faults.guarded import Outcome, guarded
from tests.faults.hostile import Hostile
from tests.faults.strange import ODD

ROW = {"question": "What is 1?", "answer": "#### 1"}
RUN = ("run", "-b", "gsm8k", "-e", "replay", "-m", "outputs.jsonl", "--data", "data")

Give = Callable[..., Outcome]


@pytest.fixture
def give(tmp_path: Path) -> Give:
    """Give a command in a folder with data and outputs, of which a stranger has made some."""
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    (tmp_path / "data" / "gsm8k" / "test.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "outputs.jsonl").write_text('{"output": "#### 1"}\n')
    return lambda *words, **options: guarded(words, tmp_path, tmp_path / "said", **options)


def refused(outcome: Outcome, *words: str) -> None:
    """Check that a command has ended with one line that has these words."""
    assert outcome.problem() is None, outcome.err
    assert outcome.code == 2, outcome.err
    for word in words:
        assert word in outcome.err


def many_lists(size: int) -> bytes:
    return b"[" + b"[]," * size + b"[]]"


def many_objects(size: int) -> bytes:
    return b'[{"a":0}' + b',{"a":0}' * size + b"]"


def one_text_for_many_rows(path: Path) -> None:
    indices = pyarrow.array([0] * 100_000, pyarrow.int32())
    texts = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["x" * 10_000_000]))
    parquet.write_table(pyarrow.table({"question": texts, "answer": indices}), path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("test.json", lambda: many_lists(12 << 20), "HARNESS_LIMIT_MEMORY"),
        ("test.json", lambda: many_objects(6 << 20), "HARNESS_LIMIT_MEMORY"),
        ("test.json.gz", lambda: gzip.compress(many_lists(12 << 20), 1), "HARNESS_LIMIT_MEMORY"),
        ("test.json.gz", lambda: gzip.compress(b" " * (300 << 20), 1), "unpacks to more than"),
        ("test.jsonl.gz", lambda: gzip.compress(b"x" * (70 << 20), 1), "HARNESS_LIMIT_LINE"),
        ("test.jsonl", lambda: b'{"question": ' + many_lists(12 << 20), "HARNESS_LIMIT_MEMORY"),
        ("test.json", lambda: b"\0" * (2 << 20), "it begins with neither"),
        ("test.json", lambda: b"[" * 200_000, "not JSON"),
        ("test.parquet", one_text_for_many_rows, "HARNESS_LIMIT_MEMORY"),
    ],
)
def test_data_that_would_take_all_memory(give: Give, tmp_path: Path, name: str, content: object, said: str) -> None:
    path = tmp_path / "data" / "gsm8k" / name
    path.with_name("test.jsonl").unlink()
    if content is one_text_for_many_rows:
        one_text_for_many_rows(path)
    else:
        path.write_bytes(content())  # type: ignore[operator]
    refused(give(*RUN), str(path.relative_to(tmp_path)), said)


@pytest.mark.parametrize("name", ["run.json", "results.json", "samples.jsonl"])
def test_a_run_that_would_take_all_memory(give: Give, tmp_path: Path, name: str) -> None:
    assert give(*RUN, "--run-dir", "run").code == 0
    content = many_objects(3 << 20)
    (tmp_path / "run" / name).write_bytes(b'{"index": 0, "a": ' + content + b"}\n" if "l" in name[-1] else content)
    refused(give("show", "run"), f"run/{name}", "HARNESS_LIMIT_MEMORY")


@pytest.mark.parametrize("odd", ["pipe", "link to itself", "link to zeros", "socket", "folder", "link to a terminal"])
def test_no_command_waits_for_what_is_no_file(give: Give, tmp_path: Path, odd: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for path, words in (
        (tmp_path / "outputs.jsonl", RUN),
        (tmp_path / "data" / "gsm8k" / "test.jsonl", RUN),
        (tmp_path / "log.json", ("import", "log.json", "-b", "gsm8k", "--data", "data")),
        (tmp_path / "annotations.json", ("score", "annotations.json")),
    ):
        path.unlink(missing_ok=True)
        ODD[odd](path, victim)
        refused(give(*words))
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        path.write_text(json.dumps(ROW | {"output": "1"}) + "\n")
    assert victim.read_text() == "precious"


def test_a_bound_can_be_moved_and_a_wrong_one_is_told(
    give: Give, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.LINE.told == "64 MiB"
    for given, value in {"3": 3, "2KiB": 2048, "2 mb": 2 << 20, "1G": 1 << 30, "1T": 1 << 40}.items():
        monkeypatch.setenv("HARNESS_LIMIT_LINE", given)
        assert limits.LINE.value == value
    monkeypatch.setenv("HARNESS_LIMIT_LINE", "20")
    refused(give(*RUN), "a line of more than 20 bytes, no row (HARNESS_LIMIT_LINE)")
    for wrong in ("much", "-1", "1.5G", "1XB"):
        monkeypatch.setenv("HARNESS_LIMIT_LINE", wrong)
        with pytest.raises(ConfigError, match="HARNESS_LIMIT_LINE=.* must be a whole number, such as 64MiB"):
            _ = limits.LINE.value
    refused(give(*RUN), "HARNESS_LIMIT_LINE='1XB'")


@pytest.fixture(scope="module")
def hostile() -> Iterator[str]:
    import openai

    import harness.engines.openai
    import harness.evaluation.runner

    assert all([openai, harness.engines.openai, harness.evaluation.runner])  # forks need not import them
    with Hostile() as url:
        yield url


def asking(url: str, **more: str) -> tuple[str, ...]:
    settings = {"timeout": "1", "max_retries": "0", "base_url": url, **more}
    words = (word for name, value in settings.items() for word in ("--set", f"openai.{name}={value}"))
    return ("run", "-b", "gsm8k", "--data", "data", "-m", "tiny", "-e", "openai", *words)


@pytest.mark.parametrize(
    "behaviour",
    ["slow-drips-continue", "slow-endless-chunks", "wire-gzip-in-gzip", "wire-redirect-self", "wire-error-key"],
)
def test_a_hostile_server(
    give: Give, tmp_path: Path, hostile: str, behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-SECRET-0123456789")
    for place in (f"{hostile}/{behaviour}/v1", f"{hostile}/{behaviour}/all/v1"):  # answers, and the list of models
        outcome = give(*asking(place))
        assert outcome.problem() is None, outcome.err
        told = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
        assert not any(word in text for text in told for word in ("SECRET", "456789"))


def test_a_server_has_so_much_time_and_room_for_a_whole_command(give: Give, tmp_path: Path, hostile: str) -> None:
    (tmp_path / "data" / "gsm8k" / "test.jsonl").write_text(f"{json.dumps(ROW)}\n" * 5)
    words = asking(f"{hostile}/slow-never/v1", total_timeout="2", timeout="600")
    refused(give(*words), "the server has had 2 s in all (openai.total_timeout)", "to go on")
    words = asking(f"{hostile}/body-text-long/v1", total_bytes="1000", concurrency="1")
    refused(give(*words), "the server's answers have more than 1,000 bytes in all (openai.total_bytes)", "to go on")
    runs = sorted((tmp_path / "runs" / "gsm8k" / "tiny").iterdir())
    assert [0 < (run / "samples.jsonl").read_bytes().count(b"\n") < 5 for run in runs] == [False, True]


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("config.json", lambda path: path.write_bytes(many_objects(3 << 20)), "HARNESS_LIMIT_MEMORY"),
        ("tokenizer.json", lambda path: os.truncate(path, 1 << 30), "HARNESS_LIMIT_TOKENIZER"),
        ("chat_template.jinja", lambda path: path.write_bytes(b"{{ a }}" * (1 << 20)), "HARNESS_LIMIT_TEMPLATE"),
        ("generation_config.json", lambda path: ODD["pipe"](path, path), "no regular file"),
        ("special_tokens_map.json", lambda path: ODD["link to zeros"](path, path), "no regular file"),
    ],
)
def test_a_models_description_that_no_library_is_to_read(
    give: Give, tmp_path: Path, name: str, make: Callable[[Path], object], said: str
) -> None:
    (tmp_path / "model").mkdir()
    for file in ("config.json", "tokenizer.json"):
        (tmp_path / "model" / file).write_text("{}")
    path = tmp_path / "model" / name
    if said == "no regular file":
        path.unlink(missing_ok=True)
    make(path)
    words = ("preview", "gsm8k", "--data", "data", "-m", "model", "-e", "transformers")
    refused(give(*words), name, said)
