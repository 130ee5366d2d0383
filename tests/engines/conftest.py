"""A server for the engine ``openai`` to ask, a model for the engine ``transformers``, and torch on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.engines.transformers import TransformersEngine, TransformersModel
from harness.models import find_model
from harness.testing.tiny import make_tiny_model
from tests.completions_server import CompletionsServer


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is set on this machine out of the tests."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    with CompletionsServer() as running:
        yield running


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Several threads only wait for each other at the size of the tests' models, and for long on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned something of word problems, so that no two tokens are as likely; not to be changed."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "trained", steps=500)


@pytest.fixture(scope="module")
def model(trained: Path) -> Iterator[TransformersModel]:
    loaded = TransformersEngine().load(str(trained))
    assert isinstance(loaded, TransformersModel)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def tokenizer(trained: Path) -> Any:
    return find_model(str(trained)).tokenizer
