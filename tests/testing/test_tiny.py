"""The tiny models that tests and plugin authors build on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.models import find_model
from harness.testing.tiny import BOS, EOS, PAD, make_tiny_model, word_problems


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", chat_template="{{ messages[0]['content'] }}")


def test_it_is_an_ordinary_model_folder_that_loads_without_a_word(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    assert (type(model).__name__, str(model.dtype)) == ("LlamaForCausalLM", "torch.float32")
    assert tokenizer.decode(tokenizer.encode("hello")) == f"{BOS}hello"
    out, said = capfd.readouterr()
    assert out == "" and not [line for line in said.splitlines() if line.strip() and "Loading weights" not in line]
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_its_special_tokens_are_distinct_and_named_where_engines_look(folder: Path) -> None:
    tokenizer: Any = find_model(str(folder)).tokenizer
    special = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token]
    assert special == [BOS, EOS, PAD]
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == tokenizer.eos_token_id
    assert find_model(str(folder)).stop_ids == (tokenizer.eos_token_id,)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"


@settings(max_examples=50, deadline=None)
@given(text=st.text())
def test_any_text_comes_back_from_its_ids_with_one_bos_in_front(folder: Path, text: str) -> None:
    tokenizer: Any = find_model(str(folder)).tokenizer
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1 + text.count(BOS)
    if not any(special in text for special in (BOS, EOS, PAD)):
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_without_bos_the_tokenizer_has_none(tmp_path: Path) -> None:
    tokenizer: Any = find_model(str(make_tiny_model(tmp_path, bos=False))).tokenizer
    assert tokenizer.bos_token_id is None
    assert tokenizer.decode(tokenizer.encode("3 + 4")) == "3 + 4"


def test_training_is_repeatable_and_changes_the_weights(tmp_path: Path) -> None:
    texts = ["one two", "three four", "five six"]
    first = make_tiny_model(tmp_path / "a", texts=texts, steps=3, batch_size=2)
    again = make_tiny_model(tmp_path / "b", texts=texts, steps=3, batch_size=2)
    longer = make_tiny_model(tmp_path / "c", texts=texts, steps=4, batch_size=2)
    other = make_tiny_model(tmp_path / "d", texts=texts, steps=3, batch_size=2, seed=1)
    digests = [find_model(str(folder)).digest for folder in (first, again, longer, other)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_making_one_leaves_the_caller_random_state_alone(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    make_tiny_model(tmp_path, steps=1, texts=["a b c"])
    assert torch.equal(torch.rand(1), expected)


def test_sizes_are_what_was_asked_for(tmp_path: Path) -> None:
    config = json.loads((make_tiny_model(tmp_path, layers=3, hidden=128, context=77) / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"], config["max_position_embeddings"]) == (3, 128, 77)
    assert config["num_key_value_heads"] < config["num_attention_heads"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 200}, "vocab_size must be at least 259"),
        ({"hidden": 40}, "hidden must be a multiple of 32, not 40"),
        ({"texts": ["a b c d e f g h"], "steps": 1, "context": 4}, "but the context is 4"),
        ({"texts": [], "steps": 1}, "texts must not be empty"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_tiny_model(tmp_path, **options)


def test_word_problems_are_right_varied_and_nested() -> None:
    problems = word_problems(200, seed=4)
    assert problems[:50] == word_problems(50, seed=4)
    assert problems != word_problems(200, seed=5)
    assert len(set(problems)) > 190
    for _, answer in problems:
        sum_line, final = answer.split("\n#### ")
        left, right = sum_line.split(" has ")[1].removesuffix(" now.").split(" = ")
        first, sign, second = left.split()
        assert int(right) == int(final) == int(first) + (int(second) if sign == "+" else -int(second)) >= 0
