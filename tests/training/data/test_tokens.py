"""Token ids on disk: encoded once, never stale, whole or not there."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import ConfigError, DataError
from harness.models import find_model
from harness.prompts import find_format
from harness.testing.tiny import make_tiny_model
from harness.training.data.texts import read_texts
from harness.training.data.tokens import Tokens, _read, cache_folder, tokenize

ROWS = [{"prompt": f"Name {n}.", "response": f"It is {n}."} for n in range(50)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "data.jsonl", ROWS)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def encode(data: Path, model: Path, cache: Path | None, name: str = "alpaca_sft", **options: Any) -> Tokens:
    return tokenize(read_texts([data], **options), find_format(name), find_model(str(model)).tokenizer, cache=cache)


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def same(one: Tokens, other: Tokens) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("ids", "offsets", "prompts"))


@pytest.mark.parametrize("name", ["plain", "alpaca_sft", "chat"])
def test_the_end_that_is_taught_is_one_that_the_models_files_name(data: Path, tmp_path: Path, name: str) -> None:
    """transformers reads the end of some GGUF files as the token that begins a turn."""
    template = "{% for m in messages %}<|pad|>{{ m.role }}\n{{ m.content }}<|end_of_text|>\n{% endfor %}"
    template += "{% if add_generation_prompt %}<|pad|>assistant\n{% endif %}"
    model = make_tiny_model(tmp_path / "model", chat_template=template)
    expected = encode(data, model, tmp_path / "cache", name)
    for path in (model / "tokenizer_config.json", model / "special_tokens_map.json"):
        if path.exists():
            path.write_text(path.read_text().replace('"eos_token": "<|end_of_text|>"', '"eos_token": "<|pad|>"'))
    folder = find_model(str(model))
    assert folder.tokenizer.eos_token == "<|pad|>"  # as its file says
    tokens = encode(data, model, tmp_path / "cache", name)
    assert same(tokens, expected) and tokens.end == expected.end
    ends = {tokens.document(number).tolist()[-1] for number in range(len(tokens))}
    assert ends == {tokens.end} and folder.tokenizer.decode([*ends]) == "<|end_of_text|>"
    named = json.loads((model / "generation_config.json").read_text())["eos_token_id"]
    assert named == tokens.end and ends < {*folder.stop_ids}
    spelled = write(tmp_path / "b.jsonl", [{"prompt": "a", "response": "b<|end_of_text|>"}])
    with pytest.raises(DataError, match="the response ends with '<.end_of_text.>'"):
        encode(spelled, model, None, name)


def test_documents_lie_one_behind_the_other(data: Path, model: Path) -> None:
    tokens, tokenizer = encode(data, model, None), find_model(str(model)).tokenizer
    prompt_format = find_format("alpaca_sft")
    assert (len(tokens), tokens.counts, tokens.files, tokens.end) == (50, (50,), (str(data),), tokenizer.eos_token_id)
    for number, row in enumerate(ROWS):
        document = prompt_format.document(row["prompt"], row["response"], tokenizer)
        assert tokens.document(number).tolist() == list(document.token_ids)
        assert tokens.prompts[number] == document.prompt_tokens
    assert tokens.lengths.sum() == len(tokens.ids)
    assert tokens.place(49) == f"{data}, text 50"


def test_what_is_in_the_cache_is_not_even_read(data: Path, model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = encode(data, model, cache)
    assert same(first, encode(data, model, None))
    [entry] = entries(cache)
    texts = read_texts([data])
    again = tokenize(texts, find_format("alpaca_sft"), find_model(str(model)).tokenizer, cache=cache)
    assert same(first, again)
    assert isinstance(again.ids, np.memmap)
    assert "_opened" not in vars(texts)
    assert entries(cache) == [entry]


def test_another_content_format_column_or_tokenizer_is_another_entry(data: Path, model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = encode(data, model, cache)
    written = data.stat()
    content = data.read_bytes().replace(b"Name 7.", b"Nome 7.")
    data.write_bytes(content)  # of the same size, and made to look as old
    os.utime(data, ns=(written.st_atime_ns, written.st_mtime_ns))
    changed = encode(data, model, cache)
    assert not same(first, changed)
    assert same(changed, encode(data, model, None))
    assert len(entries(cache)) == 2
    encode(data, model, cache, "plain")
    encode(data, model, cache, columns={"prompt": "response", "response": "prompt"})
    other = make_tiny_model(tmp_path / "other", texts=["something else"])
    encode(data, other, cache)
    assert len(entries(cache)) == 5


def test_a_settled_file_is_digested_once(data: Path, model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    encode(data, model, cache)
    assert list(cache.glob("*.digest")) == []  # changed a moment ago: the clock may not tell the next change apart
    while time.time_ns() - data.stat().st_ctime_ns < 2_100_000_000:
        time.sleep(0.1)
    encode(data, model, cache)
    [digest] = cache.glob("*.digest")
    data.write_bytes(data.read_bytes().replace(b"Name 7.", b"Nome 7."))
    assert same(encode(data, model, cache), encode(data, model, None))
    digest.write_text("")  # as a crash of the machine may leave it
    assert same(encode(data, model, cache), encode(data, model, None))


@pytest.mark.parametrize("harm", ["cut", "gone", "garbled", "older", "list"])
def test_a_damaged_entry_is_made_anew(data: Path, model: Path, tmp_path: Path, harm: str) -> None:
    cache = tmp_path / "cache"
    first = encode(data, model, None)
    encode(data, model, cache)
    [entry] = entries(cache)
    if harm == "cut":
        os.truncate(cache / entry / "ids.bin", 100)
    elif harm == "gone":
        (cache / entry / "prompts.npy").unlink()
    else:
        facts = json.loads((cache / entry / "facts.json").read_text())
        facts.pop("known")
        content = {"garbled": "{", "older": json.dumps(facts), "list": "[]"}[harm]
        (cache / entry / "facts.json").write_text(content)
    assert same(first, encode(data, model, cache))
    assert entries(cache) == [entry]
    assert [path for path in cache.iterdir() if path.suffix == ".tmp"] == []


def _encode_beside_others(data: Path, model: Path, cache: Path, queue: Any) -> None:
    tokens = encode(data, model, cache)
    queue.put((len(tokens), int(tokens.ids.sum())))


def test_many_processes_at_once_make_one_entry(data: Path, model: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    queue, cache = context.Queue(), tmp_path / "cache"
    processes = [context.Process(target=_encode_beside_others, args=(data, model, cache, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    found = {queue.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    expected = encode(data, model, None)
    assert found == {(len(expected), int(expected.ids.sum()))}
    assert len(entries(cache)) == 1


def test_a_text_with_the_tokens_that_are_added_anyway_is_refused(model: Path, tmp_path: Path) -> None:
    for row, fault in [
        ({"prompt": "<|begin_of_text|>Hi", "response": "a"}, "the prompt begins with '<|begin_of_text|>'"),
        ({"prompt": "Hi", "response": "<|begin_of_text|>a"}, "the response begins with '<|begin_of_text|>'"),
        ({"prompt": "Hi", "response": "a<|end_of_text|>"}, "the response ends with '<|end_of_text|>'"),
    ]:
        data = write(tmp_path / "a.jsonl", [*ROWS, row])
        for cache in (None, tmp_path / "cache"):
            with pytest.raises(DataError) as caught:
                encode(data, model, cache)
            assert str(caught.value) == f"{data}:51: {fault}, which is added anyway; take it out"
    assert entries(tmp_path / "cache") == []


def test_a_conversation_in_a_format_of_one_turn_is_refused_by_line(model: Path, tmp_path: Path) -> None:
    said = [{"role": role, "content": "a"} for role in ("user", "assistant") * 2]
    data = write(tmp_path / "a.jsonl", [{"messages": said[:2]}, {"messages": said}])
    with pytest.raises(ConfigError) as caught:
        encode(data, model, tmp_path / "cache")
    assert str(caught.value).startswith(f"{data}:2: the prompt format 'alpaca_sft' has a single turn")


def test_what_is_made_up_for_timing_is_an_entry(data: Path, tmp_path: Path) -> None:
    made = runpy.run_path(str(Path(__file__).parents[3] / "perf" / "packing.py"))
    made["write_entry"](tmp_path, np.array([20, 16]))
    tokens = _read(tmp_path, read_texts([data]))
    assert tokens is not None
    assert (tokens.lengths.tolist(), tokens.largest) == ([20, 16], 35)


def test_empty_responses_in_the_cache_are_still_refused_for_training(model: Path, tmp_path: Path) -> None:
    data, cache = write(tmp_path / "a.jsonl", [*ROWS, {"prompt": "Hi", "response": ""}]), tmp_path / "cache"
    assert encode(data, model, cache, empty=True).empty == 1
    with pytest.raises(DataError, match=r"a\.jsonl:51: the response is empty"):
        encode(data, model, cache)


def test_a_cache_that_cannot_be_written_is_one_line(data: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"token ids cannot be kept there \(Not a directory\); make room, or set HARNESS"
    ):
        encode(data, model, tmp_path / "file" / "cache")


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/harness/tokens")
    monkeypatch.setenv("HARNESS_CACHE", "/y")
    assert cache_folder() == Path("/y/tokens")


def test_weights_repeat_and_sample_files() -> None:
    tokens = Tokens(
        np.zeros(0, np.int32), np.zeros(111, np.int64), np.zeros(110, np.int32), ("a", "b"), (10, 100), 0, 0, 1
    )
    assert tokens.draw().tolist() == list(range(110))
    tokens = replace(tokens, weights=(2.5, 0.25))
    drawn = tokens.draw(seed=3)
    first, second = drawn[drawn < 10], drawn[drawn >= 10]
    assert sorted(np.bincount(first).tolist()) == [2] * 5 + [3] * 5
    assert len(set(second.tolist())) == len(second) == 25
    assert drawn.tolist() == tokens.draw(seed=3).tolist() != tokens.draw(seed=4).tolist()
    assert [tokens.place(n) for n in (9, 10)] == ["a, text 10", "b, text 1"]
