"""Options: what is given goes in, what does not fit is named."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import assignments, configure, merged, read_toml
from harness.errors import ConfigError
from harness.types import Generation


@dataclass(frozen=True)
class Quiz:
    name: ClassVar[str] = "quiz"
    shots: int = 0
    split: Literal["test", "train"] = "test"
    subjects: tuple[str, ...] = ()
    generation: Generation = Generation()


def test_nested_options_replace_single_fields() -> None:
    quiz = configure(Quiz(), {"shots": "3", "subjects": ["anatomy"], "generation": {"max_tokens": 5}}, "quiz")
    assert quiz == Quiz(shots=3, subjects=("anatomy",), generation=Generation(max_tokens=5))
    assert configure(quiz, {}, "quiz") is quiz


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shot": 3}, "quiz has no option 'shot'; did you mean 'shots'?"),
        ({"shot": 3, "splt": "x"}, "quiz has no option 'shot'.*; quiz has no option 'splt'"),
        ({"max_tokens": 5}, "quiz has no option 'max_tokens'; did you mean 'generation.max_tokens'?"),
        ({"generation": {"max_token": 5}}, "quiz.generation has no option 'max_token'; did you mean 'max_tokens'?"),
        ({"generation": 5}, "quiz.generation is a table of options, not 5"),
        ({"shots": "many"}, "quiz.shots: .*integer.*, not 'many'"),
        ({"split": "dev"}, "quiz.split: .*'test' or 'train', not 'dev'"),
        ({"generation": {"max_tokens": 0}}, "quiz: max_tokens must be at least 1, not 0"),
        ({"name": "x"}, "quiz has no option 'name'"),
        ({"shots": True}, "quiz.shots: Input should be a number, not True"),
        ({"generation": {"max_tokens": True}}, "quiz.generation.max_tokens: Input should be a number, not True"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(Quiz(), options, "quiz")


def test_a_plugin_that_is_no_dataclass_takes_no_options() -> None:
    with pytest.raises(ConfigError, match="plain takes no options"):
        configure(object(), {"x": 1}, "plain")


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.integers() | st.booleans() | st.text("xyz /.-"), max_size=5
    )
)
def test_pairs_come_back_as_they_were_given(table: dict[str, object]) -> None:
    def written(value: object) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    pairs = [f"{key}={written(value)}" for key, value in table.items()]
    expected = {key: value.strip() if isinstance(value, str) else value for key, value in table.items()}
    assert assignments(pairs) == expected


@pytest.mark.parametrize("pair", ["x", "=1", "a..b=1", ".a=1"])
def test_a_pair_must_have_key_and_value(pair: str) -> None:
    with pytest.raises(ConfigError, match="must look like key=value"):
        assignments([pair])


def test_a_value_cannot_become_a_table() -> None:
    with pytest.raises(ConfigError, match="'a' has already been given a value"):
        assignments(["a=1", "a.b=2"])


def test_later_tables_win_key_by_key() -> None:
    assert merged({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}}) == {"a": {"x": 1, "y": 3}, "b": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = 1\na = = 2\n", "not TOML: .*line 2"),
        (b"a = '\xff'", "not UTF-8 .byte 5."),
        (None, "cannot read .*: No such file"),
    ],
)
def test_a_bad_run_file_is_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_toml(path)


def test_a_run_file_is_a_file_or_what_a_shell_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe of a name may have no writer, for ever."""
    (tmp_path / "real.toml").write_text("x = 1\n")
    (tmp_path / "link.toml").symlink_to("real.toml")
    assert read_toml(tmp_path / "link.toml") == {"x": 1}
    ours, theirs = os.pipe()
    os.write(theirs, b"x = 2\n")
    os.close(theirs)
    assert read_toml(Path(f"/dev/fd/{ours}")) == {"x": 2}
    os.close(ours)
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ConfigError, match=r"cannot read .*pipe\.toml: no regular file"):
        read_toml(tmp_path / "pipe.toml")
    monkeypatch.setenv("HARNESS_LIMIT_RECORD", "4")
    with pytest.raises(ConfigError, match=r"real\.toml: larger than 4 .*HARNESS_LIMIT_RECORD"):
        read_toml(tmp_path / "real.toml")
