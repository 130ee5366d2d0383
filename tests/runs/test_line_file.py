"""Whether a file of records is being written is known by its lock, and asking disturbs no writer."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import RunError
from harness.runs.folder import Run
from harness.runs.journal import Journal
from harness.runs.line_file import locked, scan, write_atomically

WRITER = (
    "import sys; from pathlib import Path\n"
    "from harness.runs.folder import Run\n"
    "from harness.runs.journal import Journal\n"
    "with Journal(Run(Path(sys.argv[1])), 1): print('held', flush=True); sys.stdin.read()"
)


def test_a_file_is_locked_as_long_as_its_writer_lives(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    assert not locked(path), "there is none"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "held\n"
    assert locked(path)
    assert Run(tmp_path).going
    writer.kill()
    writer.communicate()
    assert not locked(path)


def test_asking_all_the_time_refuses_no_writer(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.touch()
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.001):
            locked(path)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        for _ in range(200):
            Journal(Run(tmp_path), 1).close()
    finally:
        ended.set()
        asker.join()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_that_is_not_finished_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b"old")

    def chunks() -> Iterator[bytes]:
        yield b"new"
        raise error

    with pytest.raises(error):
        write_atomically(path, chunks())
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("results.json", b"old")]
    with pytest.raises(RunError, match="cannot write"):
        write_atomically(path / "below a file", [b"new"])


@pytest.mark.parametrize(
    ("end", "torn"),
    [
        (b"", True),
        (b'{"a": 2}', True),
        (b'{"a": \n', True),
        (b"{", True),
        (b"\0\0\0", True),
        (b'{"a": 2}\n', False),
        (b"[2]\n", False),
        (b"a\n", False),
    ],
)
def test_a_last_line_is_torn_where_it_is_the_beginning_of_one(tmp_path: Path, end: bytes, torn: bool) -> None:
    path, whole = tmp_path / "samples.jsonl", b'{"a": 1}\n'
    path.write_bytes(whole + end)
    seen: list[bytes] = []

    def see(line: bytes, _: int) -> None:
        seen.append(line)
        if line != whole:
            raise ValueError("no sample")

    with path.open("rb") as file:
        if torn:
            assert scan(file, path, see, "sample") == len(whole) and seen[0] == whole
        else:
            with pytest.raises(RunError, match="samples.jsonl:2: not a sample"):
                scan(file, path, see, "sample")
