"""A Ray of the tests' own, one for all of them; they are skipped where Ray is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.engines.ray.cluster import join, leave

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything below this folder where Ray is not installed, but for the tests of that."""
    if importlib.util.find_spec("ray") is None:
        for item in items:
            if HERE in item.path.parents and "absent" not in item.path.stem:
                item.add_marker(pytest.mark.skip(reason="Ray is not installed: pip install 'posttrain-harness[ray]'"))


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Ray on this machine, which is left running between the tests."""
    join("", {}, 4)
    yield
    leave()
