"""What a format of recorded outputs promises: it knows its own files, and reads them alike each time."""

from __future__ import annotations

from pathlib import Path
from unittest import SkipTest

from harness.errors import DataError
from harness.formats.beginnings import start_of
from harness.testing.conformance.check import Check, quoted, require
from harness.testing.conformance.subject import Subject
from harness.types import RecordedOutput, Recording

#: Beginnings of files of any kind.
_STRANGE = (
    b"", b"\x00\xff\xfe", b"PK\x03\x04", b"[", b"{", b'{"a": [{', b"[" * 5000, b"id,text\n1,x\n", b'{"id": 1}\n',
    b"null", b'[{"question": 1}]', "\ufeff{}".encode(), b"PAR1",
)  # fmt: skip


def any_beginning_can_be_looked_at(subject: Subject) -> None:
    """Asked whether it recognises a file, it answers True or False whatever stands there, and never raises."""
    for start in _STRANGE:
        for name in ("outputs.jsonl", "outputs.eval", "no suffix"):
            found = subject.plugin.recognises(Path(name), start)
            require(
                isinstance(found, bool), f"recognises() gives {quoted(found)} for {quoted(start)}, not True or False"
            )


def a_file_of_its_own_is_recognised(subject: Subject) -> None:
    """It recognises the file that it is given as one of its own."""
    path = _file(subject)
    require(subject.plugin.recognises(path, start_of(path)), f"it does not recognise {path}")


def outputs_are_the_same_each_time(subject: Subject) -> None:
    """Its outputs can be gone through twice, each with a place and with an output or an error, and are the same."""
    recording = subject.plugin.read(_file(subject))
    require(isinstance(recording, Recording), f"read() gives {quoted(recording)}, not a harness.types.Recording")
    first, second = list(recording.outputs), list(recording.outputs)
    require(first, f"{_file(subject)} gives no outputs")
    require(first == second, "going through the outputs a second time gives others")
    for output in first:
        require(isinstance(output, RecordedOutput), f"{quoted(output)} is no harness.types.RecordedOutput")
        require(output.place, f"{quoted(output)} does not say where it stands")
        told = output.output is not None or output.error is not None
        require(told, f"{output.place} has neither an output nor an error")
        fine = all(0 <= score <= 1 for score in output.scores.values())
        require(fine, f"{output.place} has scores outside 0 to 1: {quoted(dict(output.scores))}")


def a_damaged_file_is_refused(subject: Subject) -> None:
    """A file that is none of its own, or cut off within an output, is a DataError of one line."""
    content = _file(subject).read_bytes()
    path = subject.new_folder() / _file(subject).name
    for damaged in (content[:20], b"\x00\x01nothing of the kind"):
        path.write_bytes(damaged)
        try:
            list(subject.plugin.read(path).outputs)
        except DataError as error:
            require("\n" not in str(error), f"the error for a damaged file has several lines: {quoted(str(error))}")
        else:
            raise AssertionError(f"a file with nothing but {quoted(damaged)} is read as if it were whole")


def _file(subject: Subject) -> Path:
    if subject.data is None:
        raise SkipTest("give a file of its own (--data FILE)")
    return Path(subject.data)


CHECKS = [
    Check(any_beginning_can_be_looked_at),
    Check(a_file_of_its_own_is_recognised),
    Check(outputs_are_the_same_each_time),
    Check(a_damaged_file_is_refused),
]
