"""Fixtures of pytest for plugin authors: ``pytest_plugins = ["harness.testing.fixtures"]`` in a conftest.py or a test.

Nothing registers them by itself: a plugin of pytest would be imported by every test run on a machine with the harness.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from harness.testing.distributions import write_distribution

FakeDistribution = Callable[..., Path]


@pytest.fixture
def fake_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDistribution]:
    """Install a distribution for the length of a test, without pip.

    ``fake_distribution("harness-sums", entry_points={"harness.benchmarks": {"sums": "harness_sums"}},
    modules={"harness_sums": source})``, as `harness.testing.distributions.write_distribution`. Returns its folder.
    """

    modules_before = set(sys.modules)
    installed: set[str] = set()

    def install(
        name: str,
        *,
        version: str = "1.0",
        entry_points: Mapping[str, Mapping[str, str]],
        modules: Mapping[str, str],
    ) -> Path:
        folder = tmp_path / "installed" / name
        write_distribution(folder, name, version=version, entry_points=entry_points, modules=modules)
        monkeypatch.syspath_prepend(str(folder))
        installed.update(modules)
        return folder

    yield install
    for module in installed - modules_before:
        sys.modules.pop(module, None)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny real model with random weights; skipped where torch and transformers are not installed."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from harness.testing.tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", context=256)
