"""samples.jsonl of a run under way: appended to as examples finish, and gone on with after a crash."""

from __future__ import annotations

from collections.abc import Iterator

from harness.runs.folder import SAMPLES, Run
from harness.runs.line_file import LineFile, read_lines
from harness.runs.samples import SampleIndex, decode, encode
from harness.types import Sample


class Journal:
    """samples.jsonl of a run under way: locked against a second process, recovered after a crash, appended to.

    `size` is the number of examples in the benchmark, `samples` how many of each the run takes. Raises RunError when
    another process holds the run, when a line other than the last cannot be read, or one is of a sample that is done
    already or not to be taken.
    """

    def __init__(self, run: Run, size: int, samples: int = 1) -> None:
        self._path = run.path / SAMPLES
        self._index = SampleIndex(size, samples)
        self._file = LineFile(self._path, self._index.see, "sample")

    def done(self, index: int, repeat: int = 0) -> bool:
        """Whether a sample of the example at `index` has a result that is not an engine's failure."""
        return self._index.done(index, repeat)

    def append(self, sample: Sample) -> None:
        """Write one finished sample; RunError when the disk is full or gone (what was written before is kept)."""
        place = self._file.append(encode(sample))
        self._index.add(sample.index, sample.repeat, place, sample.status == "engine_error")

    def samples(self) -> Iterator[Sample]:
        """Yield the finished samples in the benchmark's order, read back from disk one by one."""
        return (decode(line, self._path) for line in read_lines(self._path, self._index.places()))

    def close(self) -> None:
        """Close the file and give up the lock."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
