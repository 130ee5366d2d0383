"""Where a benchmark's files come from: a folder given by the user, or the Hugging Face hub at a pinned revision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from harness.datasets.hub import HubFile, download
from harness.datasets.read import KINDS, read_rows
from harness.datasets.rows import Row, Rows, file_sha256
from harness.datasets.unpacked import PACKED
from harness.errors import DataError
from harness.files import expanded
from harness.types import DataFile


class DataSource:
    """Finds the files of benchmarks and remembers which were used, for the run record.

    With a `root` (``--data DIR``) files are looked for there and nowhere else, so that a typing error never turns into
    a download. Without one they come from the hub at the revision that the benchmark pins.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = None if root is None else expanded(root)
        if self.root is not None and not self.root.is_dir():
            what = "not a folder" if self.root.exists() else "no such folder"
            raise DataError(f"--data {self.root}: {what}")
        self._used: dict[str, DataFile] = {}

    @property
    def used(self) -> tuple[DataFile, ...]:
        """The files handed out by `path` and `rows` so far, in the order of first use."""
        return tuple(self._used.values())

    def find(self, name: str) -> Path | None:
        """Return the file or folder `name` (``mmlu/test``) below the root, or None where there is none or no root.

        It is looked for at ``ROOT/mmlu/test``, then, as users point at a benchmark's own folder too, at ``ROOT/test``.
        A file of rows may be of another kind, or packed (``test.parquet`` or ``test.jsonl.gz`` for ``test.jsonl``).
        What is only found is not recorded as used.
        """
        return next((path for path in _with_kinds(self._candidates(name)) if path.exists()), None)

    def path(self, name: str, hub: HubFile | None = None) -> Path:
        """Return a local path for the file `name` of the layout, such as ``gsm8k/test.jsonl``.

        Below a root, the same file as the hub names it (``ROOT/gsm8k/main/test-00000-of-00001.parquet``) does as well,
        and so does a file of rows of another kind, or packed: the path's suffix tells which kind it is. A file from the
        hub is checked against the pinned digest, where `hub` has one; files below a root are the user's own and are
        only recorded.

        Raises DataError, with what to put where, when the file cannot be had or is not what was pinned.
        """
        if self.root is not None:
            path = self._local(name, hub)
            file = DataFile(name, file_sha256(path))
        elif hub is not None:
            path, file = _pinned(name, hub)
        else:
            raise DataError(f"{name}: this file is not on the hub; give --data DIR with DIR/{name} in it")
        self._used[name] = file
        return path

    def rows(
        self,
        name: str,
        hub: HubFile | None = None,
        *,
        required: Iterable[str] = (),
        columns: Sequence[str] | None = None,
        check: Callable[[Row], str | None] | None = None,
    ) -> Rows:
        """Return the rows of the file that `path` finds; `required`, `columns` and `check` as in `read_rows`."""
        return read_rows(self.path(name, hub), required=required, columns=columns, check=check)

    def named_rows(
        self, path: str, *, required: Iterable[str] = (), check: Callable[[Row], str | None] | None = None
    ) -> Rows:
        """Return the rows of a file that the user named, wherever it lies, and record it as used."""
        rows = read_rows(expanded(path), required=required, check=check)
        self._used[path] = DataFile(path, rows.sha256)
        return rows

    def _candidates(self, name: str, hub: HubFile | None = None) -> list[Path]:
        """Return where the file or folder may lie below the root, best first."""
        if self.root is None:
            return []
        folder, inner = name.split("/", 1) if "/" in name else ("", name)
        names = [inner, hub.path] if hub else [inner]
        return [self.root / start / end for start in dict.fromkeys((folder, "")) for end in names]

    def _local(self, name: str, hub: HubFile | None) -> Path:
        candidates = self._candidates(name, hub)
        found = next((path for path in _with_kinds(candidates) if path.is_file()), None)
        if found is None:
            remedy = f", or leave out --data to get it from the hub ({hub.repo})" if hub else ""
            places = ", ".join(map(str, candidates))
            kinds = f" ({', '.join(KINDS)} will do, packed or not)" if Path(name).suffix in KINDS else ""
            raise DataError(f"{name} is missing: put it at the first of {places}{kinds}{remedy}")
        return found


def _with_kinds(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield paths and then, for those of files of rows, the same of other kinds and packed."""
    yield from paths
    for path in paths:
        if path.suffix in KINDS:
            others = [path.suffix, *(kind for kind in KINDS if kind != path.suffix)]
            for kind in others:
                yield from (
                    path.with_suffix(f"{kind}{packed}") for packed in ("", *(PACKED if kind != ".parquet" else ()))
                )


def _pinned(name: str, hub: HubFile) -> tuple[Path, DataFile]:
    """Return a file from the hub after checking it against the pinned digest, if there is one."""
    path, revision = download(hub, name)
    digest = file_sha256(path)
    if hub.sha256 not in (None, digest):
        raise DataError(
            f"{name}: {hub.url} has sha256 {digest} here, but {hub.sha256} is pinned; "
            f"delete {path.resolve()} to have it downloaded again, or give --data DIR with DIR/{name} in it"
        )
    return path, DataFile(name, digest, revision)
