"""The notebooks in examples/ run from the first cell to the last, one after the other in one kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*.ipynb"))

#: What each must have said.
SAYS = {
    "compare_two_models": (" points, from +", "questions gained", "report.html"),
    "evaluate_and_look": ("final-number  accuracy", "with 95% confidence from", "first-number 0.", "GSM8K: 100%"),
    "train_and_watch": ("accuracy (final-number)", "best/ is step ", " points, p = ", "validation/loss"),
    "write_a_benchmark": ("first-word 0.5", "capital 0.75", "unparsed"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries that run notebooks
def test_the_notebooks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("torch", "transformers", "pandas", "ipykernel"):
        pytest.importorskip(library)
    nbformat: Any = pytest.importorskip("nbformat")
    nbclient: Any = pytest.importorskip("nbclient")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    parts = {path.stem: nbformat.read(path, as_version=4) for path in NOTEBOOKS}
    assert list(parts) == sorted(SAYS)
    assert not any(cell.get("outputs") for part in parts.values() for cell in part.cells), "clear the outputs first"
    whole = next(iter(parts.values())).copy()
    whole.cells = []
    for part in parts.values():  # torch is imported once for all of them
        whole.cells += [nbformat.v4.new_code_cell("%reset -f"), *part.cells]
    resources = {"metadata": {"path": str(NOTEBOOKS[0].parent)}}
    nbclient.NotebookClient(whole, timeout=900, kernel_name="python3", resources=resources).execute()
    for name, part in parts.items():
        outputs = [output for cell in part.cells for output in cell.get("outputs", ())]
        said = "".join(each.get("text", "") + "".join(each.get("data", {}).get("text/plain", "")) for each in outputs)
        for words in SAYS[name]:
            assert words in said, said
