"""The transformers engine: what it loads and refuses, and what becomes of models that fail as they run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.engines.batching import Decoder
from harness.engines.transformers import TransformersEngine, TransformersModel, harness_engines
from harness.errors import ConfigError, ModelError
from harness.interfaces import Engine
from harness.testing.tiny import make_tiny_model
from tests.engines.asking import answered, outcomes, questions, requests_for

pytestmark = pytest.mark.usefixtures("one_thread")


def test_an_unknown_or_stateful_architecture_is_one_line(trained: Path, tmp_path: Path) -> None:
    import transformers as t

    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"llama"', '"novelty"'))
    with pytest.raises(ModelError, match="config.json cannot be used .*novelty") as caught:
        TransformersEngine().load(str(folder))
    assert "\n" not in str(caught.value)
    t.MambaForCausalLM(t.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1)).save_pretrained(folder)
    with pytest.raises(ModelError, match="MambaForCausalLM .*the engine vllm") as caught:
        TransformersEngine().load(str(folder))
    assert "\n" not in str(caught.value)


def test_missing_weights_are_not_made_up(trained: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing, such as model.layers.1.mlp.up_proj.weight"):
        TransformersEngine().load(str(folder))


def test_loading_says_nothing_and_a_closed_model_says_so(
    trained: Path, tokenizer: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    model = TransformersEngine().load(str(trained))
    assert capfd.readouterr() == ("", "")
    model.close()
    model.close()
    with pytest.raises(ModelError, match="has been closed"):
        list(model.generate(requests_for(tokenizer, questions(1))))


def test_it_is_an_engine_that_says_what_its_outputs_depend_on(trained: Path, tmp_path: Path) -> None:
    (engine,) = harness_engines()
    assert isinstance(engine, Engine) and engine.name == "transformers"
    assert engine.available() is None
    identity = engine.identity(str(trained))
    assert identity == TransformersEngine(batch_tokens=7).identity(str(trained))
    assert identity != TransformersEngine(seed=1).identity(str(trained))
    assert identity != TransformersEngine(dtype="bfloat16").identity(str(trained))
    assert identity != engine.identity(str(make_tiny_model(tmp_path)))
    tokenizer = engine.tokenizer(str(trained))
    assert tokenizer is not None and tokenizer.encode("a")[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"batch_tokens": 0}])
def test_options_that_do_not_fit_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        TransformersEngine(**options)


def test_a_device_that_is_not_there_is_one_line(trained: Path) -> None:
    import torch

    absent = f"cuda:{torch.cuda.device_count()}"
    assert "PyTorch sees" in (TransformersEngine(device=absent).available() or "")
    with pytest.raises(ModelError, match="PyTorch sees"):
        TransformersEngine(device=absent).load(str(trained))
    with pytest.raises(ModelError, match="abacus"):
        TransformersEngine(device="abacus").load(str(trained))


def test_without_torch_or_transformers_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'torch' else find(name, package)\n"
        "from harness.engines.transformers import TransformersEngine\n"
        "print(TransformersEngine().available())\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "torch is not installed: pip install 'posttrain-harness[transformers]'",
        "[]",
    ]


def test_bf16_checkpoints_run_in_fp32_on_a_cpu_unless_told_otherwise(
    trained: Path, tmp_path: Path, tokenizer: Any
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    AutoModelForCausalLM.from_pretrained(trained, dtype=torch.bfloat16).save_pretrained(folder)
    requests = requests_for(tokenizer, questions(5))
    for dtype, expected in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        model: Any = TransformersEngine(dtype=dtype, device="cpu").load(str(folder))
        decoder = model._decoder
        assert isinstance(decoder, Decoder) and decoder._network.dtype == expected
        assert all(one.error is None and one.completion_tokens for one in answered(model, requests))


def tight(model: TransformersModel, tokens: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the model run out of memory when it is given more than `tokens` ids at once; return what was given."""
    import torch

    given: list[int] = []
    decoder = model._decoder
    assert decoder is not None
    whole = decoder._forward

    def forward(ids: Any, *rest: Any) -> Any:
        given.append(ids.numel())
        if ids.numel() > tokens:
            raise torch.OutOfMemoryError("out of memory")
        return whole(ids, *rest)

    monkeypatch.setattr(decoder, "_forward", forward)
    return given


def test_out_of_memory_makes_batches_smaller_and_loses_nothing(
    trained: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, model: TransformersModel
) -> None:
    requests = requests_for(tokenizer, questions(40))
    small: Any = TransformersEngine().load(str(trained))
    given = tight(small, 90, monkeypatch)
    assert outcomes(answered(small, requests)) == outcomes(answered(model, requests))
    assert max(given) > 90 > max(given[-10:])


def test_a_row_that_does_not_fit_fails_alone(
    trained: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    texts = questions(6)
    texts[2] *= 12
    small: Any = TransformersEngine().load(str(trained))
    tight(small, 100, monkeypatch)
    completions = answered(small, requests_for(tokenizer, texts))
    assert [one.id for one in completions if one.error] == ["2"]
    assert (completions[2].error or "").startswith("out of memory at ")
    assert "out of memory: batches hold" in caplog.text


def test_an_error_that_is_not_about_memory_is_not_hidden(trained: Path, tokenizer: Any, monkeypatch: Any) -> None:
    broken: Any = TransformersEngine().load(str(trained))
    monkeypatch.setattr(broken._decoder, "_forward", lambda *args: (_ for _ in ()).throw(RuntimeError("a shape")))
    with pytest.raises(RuntimeError, match="a shape"):
        list(broken.generate(requests_for(tokenizer, questions(2))))


def test_weights_that_are_not_numbers_are_said_to_be_so(trained: Path, tmp_path: Path, tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(trained)
    with torch.no_grad():
        network.model.norm.weight.fill_(float("nan"))
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    network.save_pretrained(folder)
    one = answered(TransformersEngine().load(str(folder)), requests_for(tokenizer, questions(1)))[0]
    assert (one.error or "").startswith("the model gave NaN")
