"""A chat template is known before the tokenizer is loaded, and is the one that transformers gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.engines.folder_tokenizer import FolderTokenizer
from harness.errors import ModelError
from harness.models import find_model

FIRST, SECOND = "{{ messages[0]['content'] }}\n", "{{ bos_token }}{{ messages[0]['content'] }}"


def no_template(folder: Path) -> None:
    configured(folder, None)


def configured(folder: Path, template: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))


def text(folder: Path) -> None:
    configured(folder, FIRST)


def named(folder: Path) -> None:
    configured(folder, [{"name": "default", "template": FIRST}, {"name": "tool_use", "template": SECOND}])


def file_over_text(folder: Path) -> None:
    configured(folder, FIRST)
    (folder / "chat_template.jinja").write_text(SECOND, encoding="utf-8")


def several_files(folder: Path) -> None:
    file_over_text(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text(FIRST, encoding="utf-8")


@pytest.mark.parametrize("written", [no_template, text, named, file_over_text, several_files])
def test_the_template_is_what_transformers_reads(tiny_model: Path, tmp_path: Path, written: Any) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    written(folder)
    expected = find_model(str(folder)).tokenizer
    found = FolderTokenizer(find_model(str(folder)))
    assert found.chat_template == expected.chat_template
    assert (found.chat_template is None) == (written is no_template)
    assert found.encode("one two") == expected.encode("one two")
    assert found.decode(found.encode("one two")) == expected.decode(expected.encode("one two"))
    assert (found.bos_token_id, found.all_special_tokens) == (expected.bos_token_id, expected.all_special_tokens)
    assert found.vocab_size == expected.vocab_size
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = found.no_such_thing


@pytest.mark.parametrize("content", ["{", "[]", '{"chat_template": [{"name": "default"}]}'])
def test_a_template_that_cannot_be_read_is_one_line(tiny_model: Path, tmp_path: Path, content: str) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"model: the chat template cannot be read \(.+\); copy it anew"):
        FolderTokenizer(find_model(str(folder)))


def test_a_template_that_changes_before_the_tokenizer_is_loaded_is_said(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    tokenizer = FolderTokenizer(find_model(str(folder)))
    (folder / "chat_template.jinja").write_text("{{ 'another' }}", encoding="utf-8")
    with pytest.raises(ModelError, match="another chat template than its files hold"):
        tokenizer.encode("a")
