"""A tiny model that vLLM runs on a CPU, and what plain transformers makes of the same token ids."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.engines.vllm import VllmEngine
from harness.interfaces import Model
from harness.models import find_model
from harness.testing.tiny import make_tiny_model, word_problems
from harness.types import Completion, FinishReason, Generation, Prompt, Request
from tests.vllm.thinking import make_thinking_model

HERE = Path(__file__).parent

#: Options that every test here runs with: eager, since a tiny model is compiled for longer than it runs.
OPTIONS: dict[str, Any] = {"enforce_eager": True, "max_model_len": 256, "max_num_seqs": 8}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything below this folder where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="vLLM is not installed: make test-vllm"))


class Expected(NamedTuple):
    """What plain transformers makes of a prompt, greedily, one prompt at a time."""

    text: str
    finish_reason: FinishReason
    tokens: int


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in fp32 that has learnt to answer word problems and to stop."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", steps=500, batch_size=16)


@pytest.fixture(scope="session")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in fp32 that thinks before it answers."""
    return make_thinking_model(tmp_path_factory.mktemp("thinking") / "model")


@pytest.fixture(scope="session")
def model(folder: Path) -> Iterator[Model]:
    """The tiny model, loaded once by the engine for all tests that leave it as it is."""
    loaded = VllmEngine(**OPTIONS).load(str(folder))
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Any:
    """The tiny model's tokenizer, as transformers loads it."""
    return find_model(str(folder)).tokenizer


@pytest.fixture(scope="session")
def prompts(tokenizer: Any) -> list[Prompt]:
    """Twelve prompts of different lengths, with one BOS each."""
    texts = [f"{question}\nAnswer:" for question, _ in word_problems(12, seed=5)]
    texts[3] += " " + texts[4]
    texts[7] = texts[7][20:]
    return [Prompt(text, tuple(tokenizer.encode(text))) for text in texts]


@pytest.fixture(scope="session")
def reference(folder: Path, tokenizer: Any) -> Callable[[Prompt, Generation], Expected]:
    """Return a function that generates with plain transformers."""
    import torch
    from transformers import LlamaForCausalLM

    network: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def generate(prompt: Prompt, generation: Generation) -> Expected:
        ids = torch.tensor([prompt.token_ids])
        stop = {"stop_strings": list(generation.stop), "tokenizer": tokenizer} if generation.stop else {}
        out = network.generate(ids, max_new_tokens=generation.max_tokens, do_sample=False, **stop)[0, ids.shape[1] :]
        text = tokenizer.decode(out, skip_special_tokens=True)
        cut = min((text.index(one) for one in generation.stop if one in text), default=None)
        ended = cut is not None or out[-1] == tokenizer.eos_token_id
        return Expected(text[:cut], "stop" if ended else "length", len(out))

    return generate


@pytest.fixture(scope="session")
def generate(model: Model, prompts: list[Prompt]) -> Callable[[Generation], list[Completion]]:
    """Return a function that has the engine answer all prompts and gives the completions in their order."""

    def completions(generation: Generation) -> list[Completion]:
        requests = [Request(str(index), prompt, generation, index) for index, prompt in enumerate(prompts)]
        found = list(model.generate(requests))
        assert sorted(one.id for one in found) == sorted(request.id for request in requests)
        return sorted(found, key=lambda one: int(one.id))

    return completions
