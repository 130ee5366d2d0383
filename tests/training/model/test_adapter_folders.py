"""A folder with an adapter is a model: what it and its base come to, merged once, for every command that takes one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.engines.vllm import VllmEngine
from harness.errors import ModelError
from harness.models import find_model, quiet
from harness.prompts import read_checkpoint_file
from harness.respondent import model_name
from harness.training.merge import merge_adapter
from tests.conftest import Command

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore:.is_gradient_checkpointing:FutureWarning")


def adapted(base: Path, out: Path, *, tokens: int = 0, **more: Any) -> Any:
    """Have peft alone write an adapter of `base`, with `tokens` new ones, and return the model as peft computes it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with quiet():
        lm: Any = AutoModelForCausalLM.from_pretrained(base)
    if tokens:
        lm.resize_token_embeddings(lm.config.vocab_size + tokens, mean_resizing=False)
        more["modules_to_save"] = ["embed_tokens"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = get_peft_model(lm, config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
    model.save_pretrained(out)
    return model.eval()


def reloaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    with quiet():
        return AutoModelForCausalLM.from_pretrained(find_model(str(folder)).with_weights())


IDS = torch.arange(40)[None]


@pytest.mark.parametrize("kind", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_an_adapter_of_peft_is_the_model_that_peft_computes(tiny: Path, tmp_path: Path, kind: dict[str, Any]) -> None:
    expected = adapted(tiny, tmp_path / "adapter", **kind)
    model = find_model(str(tmp_path / "adapter"))
    assert (model.context, model.stop_ids) == (find_model(str(tiny)).context, find_model(str(tiny)).stop_ids)
    assert not list(model.path.glob("*.safetensors")), "nothing is merged before weights are asked for"
    with torch.no_grad():
        torch.testing.assert_close(
            reloaded(tmp_path / "adapter")(IDS).logits, expected(IDS).logits, rtol=1e-4, atol=1e-4
        )


def test_an_adapter_with_tokens_of_its_own(tiny: Path, tmp_path: Path) -> None:
    expected = adapted(tiny, tmp_path / "adapter", tokens=3)
    model = find_model(str(tmp_path / "adapter"))
    size = find_model(str(tiny)).config["vocab_size"]
    assert model.config["vocab_size"] == size + 3
    model.check_vocabulary(size + 2)
    with torch.no_grad():
        torch.testing.assert_close(
            reloaded(tmp_path / "adapter")(IDS).logits, expected(IDS).logits, rtol=1e-4, atol=1e-4
        )


def test_every_command_takes_it(harness: Command, tiny: Path, problems: Path, gsm8k_data: Path, tmp_path: Path) -> None:
    """The same outputs and losses as of the merged model, and records that name both parts."""
    adapter, merged = tmp_path / "sft" / "last" / "adapter", tmp_path / "merged"
    adapted(tiny, adapter)
    (adapter.parent / "harness.json").write_text(json.dumps({"prompt_format": "plain"}), encoding="utf-8")
    assert harness("merge", adapter, "-o", merged).code == 0
    outputs, losses, records = [], [], []
    for model in (adapter, merged):
        done = harness("loss", problems, "-m", model, "--device", "cpu")
        assert done.code == 0, done.err
        losses.append(done.out)
        done = harness(
            "run", "--benchmark", "gsm8k", "--data", gsm8k_data, "--model", model, "--out", tmp_path / "runs",
            "--engine", "transformers", "--limit", "2",
        )  # fmt: skip
        assert done.code == 0, done.err
        [run] = (tmp_path / "runs" / "gsm8k" / model_name(str(model))).iterdir()
        lines = (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        outputs.append([json.loads(line)["output"] for line in lines])
        records.append(json.loads((run / "run.json").read_text(encoding="utf-8")))
    assert losses[0] == losses[1] and outputs[0] == outputs[1]
    assert records[0]["prompt_format"]["name"] == "plain"
    parts = records[0]["identity"]["model"]
    assert parts["base_model"] == str(tiny) and parts["base_digest"] == find_model(str(tiny)).digest
    assert len({parts["model_digest"], parts["base_digest"], parts["adapter_digest"]}) == 3
    assert "base_model" not in records[1]["identity"]["model"]
    assert model_name(str(adapter)) == "sft--last--adapter"
    assert "Mo has 3 pens" in harness("preview", "gsm8k", "--model", adapter, "--data", gsm8k_data).out
    assert find_model(str(adapter)).with_weights() == Path(VllmEngine().setup(str(adapter)).arguments["model"])


def test_a_config_beside_an_adapter_makes_it_no_model(tiny: Path, tmp_path: Path) -> None:
    adapted(tiny, tmp_path / "adapter")
    shutil.copy2(tiny / "config.json", tmp_path / "adapter")
    assert find_model(str(tmp_path / "adapter")).on_base is not None
    whole = Path(shutil.copytree(tiny, tmp_path / "whole"))
    shutil.copy2(tmp_path / "adapter" / "adapter_config.json", whole)
    assert find_model(str(whole)).on_base is None


def test_another_adapter_is_another_model(tiny: Path, tmp_path: Path) -> None:
    adapted(tiny, tmp_path / "adapter")
    first, second = find_model(str(tmp_path / "adapter")), Path(shutil.copytree(tiny, tmp_path / "base"))
    adapted(second, tmp_path / "adapter", use_rslora=True)
    third = find_model(str(tmp_path / "adapter"))
    assert first.digest != third.digest and first.with_weights() != third.with_weights()
    assert find_model(str(tmp_path / "adapter")) is third


def test_what_cannot_be_merged_is_one_line(harness: Command, tiny: Path, tmp_path: Path) -> None:
    adapted(tiny, tmp_path / "adapter")
    card = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    for change, said in (
        (
            {"base_model_name_or_path": str(tmp_path / "gone")},
            "an adapter on .*gone, which cannot be read .*harness merge",
        ),
        ({"base_model_name_or_path": None}, "names no base"),
        ({"peft_type": "PROMPT_TUNING"}, "the kind PROMPT_TUNING, which cannot be merged"),
        ({"peft_type": None}, "names no peft_type"),
        ({"task_type": "SEQ_CLS"}, "an adapter for SEQ_CLS, which writes no text"),
    ):
        changed = json.dumps({**card, **change})
        (tmp_path / "adapter" / "adapter_config.json").write_text(changed, encoding="utf-8")
        done = harness("preview", "gsm8k", "--model", tmp_path / "adapter")
        assert (done.code, len(done.err.splitlines())) == (2, 1) and re.search(said, done.err), done.err


def test_a_base_of_few_bits_and_pickled_adapters_are_refused(tiny: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    adapted(base, tmp_path / "adapter")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {}}), encoding="utf-8")
    with pytest.raises(ModelError, match="holds weights in few bits"):
        find_model(str(tmp_path / "adapter")).with_weights()
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(ModelError, match="no adapter_model.safetensors; pickles are not read"):
        find_model(str(tmp_path / "adapter")).with_weights()


def test_the_card_of_the_checkpoint_below_counts(tiny: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    (base / "harness.json").write_text(json.dumps({"prompt_format": "plain"}), encoding="utf-8")
    adapted(base, tmp_path / "adapter")
    assert read_checkpoint_file(tmp_path / "adapter") == {"prompt_format": "plain"}


def test_merging_touches_nothing_beside_its_folder(tiny: Path, tmp_path: Path) -> None:
    adapted(tiny, tmp_path / "adapter")
    (tmp_path / "merged.new").mkdir()
    (tmp_path / "merged.new" / "notes.txt").write_text("mine")
    (tmp_path / ".merged.999999999").mkdir()
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    assert (tmp_path / "merged.new" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / ".merged.999999999").exists(), "which a killed process left"
    with pytest.raises(ModelError, match="is there already and not empty"):
        merge_adapter(tmp_path / "adapter", tmp_path / "merged")
