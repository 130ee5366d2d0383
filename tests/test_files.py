"""The one door to files: regular ones alone, through no link below a root, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.files import each_line, make_folder, open_append, open_read, read_bytes, read_json, replace_file


def test_a_link_is_followed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    (tmp_path / "link").symlink_to("file")
    assert read_json(tmp_path / "link", links=True) == 1
    for door in (open_read, open_append, read_bytes):
        with pytest.raises(OSError, match="a symbolic link, which is not followed here"):
            door(tmp_path / "link")


def test_a_link_to_a_folder_below_the_root_is_not_followed_and_above_it_is(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("1")
    (tmp_path / "link").symlink_to("outside")
    assert read_json(tmp_path / "link" / "file") == 1, "the folder that the user named"
    assert read_json(tmp_path / "link" / "file", root=tmp_path / "link") == 1
    for root in (tmp_path,):
        with pytest.raises(OSError, match="in link/, which is a symbolic link"):
            read_json(tmp_path / "link" / "file", root=root)
        with pytest.raises(OSError, match="in link/, which is a symbolic link"):
            replace_file(tmp_path / "link" / "new", [b"x"], root=root)
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["file"]


@pytest.mark.parametrize("links", [True, False])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, links: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(OSError, match="no regular file|a folder"):
            open_read(path, links=links)
    with pytest.raises(OSError, match="no regular file"):
        open_append(tmp_path / "pipe")


def test_sizes_and_lengths_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bytes(path, most=5) == b"12345"
    with pytest.raises(OSError, match="larger than the 4 bytes"):
        read_bytes(path, most=4)
    monkeypatch.setenv("HARNESS_LIMIT_LINE", "3")
    monkeypatch.setattr("harness.files._SMALL", 0)
    path.write_bytes(b"12\n34")
    with open_read(path) as file:
        assert list(each_line(file)) == [b"12\n", b"34"]
    path.write_bytes(b"12\n3456")
    with open_read(path) as file, pytest.raises(ValueError, match="longer than 3 bytes .HARNESS_LIMIT_LINE"):
        list(each_line(file))


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "file").symlink_to("victim")
    (tmp_path / f".file.{os.getpid()}").symlink_to("victim")
    replace_file(tmp_path / "file", [b"new"])
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "file").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "victim"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")

    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "file", chunks())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_appears_with_all_that_is_in_it(tmp_path: Path) -> None:
    def fill(aside: Path) -> None:
        assert not (tmp_path / "below" / "folder").exists()
        replace_file(aside / "file", [b"1"])

    def fail(aside: Path) -> None:
        fill(aside)
        raise ValueError("no")

    folder = tmp_path / "below" / "folder"
    with pytest.raises(ValueError, match="no"):
        make_folder(folder, fail)
    assert list(folder.parent.iterdir()) == []
    assert make_folder(folder, fill)
    assert not make_folder(folder, fail), "it is there already"
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


def test_another_process_that_is_faster_keeps_its_folder(tmp_path: Path) -> None:
    def fill(aside: Path) -> None:
        (aside / "file").write_text("mine")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "file").write_text("theirs")

    assert not make_folder(tmp_path / "folder", fill)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "file").read_text() == "theirs"


def test_what_dead_processes_left_of_other_files_goes_too(tmp_path: Path) -> None:
    for name in (".timing.json.999999999", ".mine.json.999999999"):
        (tmp_path / name).write_text("{")
    replace_file(tmp_path / "results.json", [b"1"], others=["timing.json"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.json.999999999", "results.json"]
