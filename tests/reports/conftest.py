"""Runs that are reported, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.reports.html import render
from harness.runs.columns import read_run
from tests.reports.recorded_runs import make_runs


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs of four benchmarks by three models, model by model; they are to be left as they are."""
    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def report(reported: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of these runs."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text("".join(render([read_run(run) for run in reported])), encoding="utf-8")
    return path
