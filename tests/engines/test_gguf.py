"""Models in llama.cpp's form: loaded as transformers reads it where the library is there, else how to serve them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from harness.engines.transformers import TransformersEngine
from harness.errors import ModelError
from harness.models import find_model
from harness.prompts import find_format
from harness.testing.tiny import make_tiny_model
from harness.types import Generation, Prompt, Request
from tests.conftest import Command

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<a>"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(folder: Path, file: Path) -> Path:
    """Write a tiny Llama as GGUF, which holds rotated heads in another order."""
    gguf = pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto: Any = AutoModelForCausalLM
    network, tokenizer = auto.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    config, writer = network.config, gguf.GGUFWriter(str(file), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.head_dim)
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types(
        [kinds.CONTROL if token in tokenizer.all_special_tokens else kinds.NORMAL for token, _ in tokens]
    )
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    for name, tensor in network.state_dict().items():
        values = tensor.numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads:
            values = values.reshape(heads, 2, -1, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(gguf_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def gguf_name(name: str) -> str:
    given = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    part = name.removesuffix(".weight")
    if part in given:
        return f"{given[part]}.weight"
    _, _, layer, own = part.split(".", 3)
    return f"blk.{layer}.{NAMES[own]}.weight"


def test_a_file_or_its_folder_is_the_model_that_it_was_made_of(tmp_path: Path, harness: Command) -> None:
    folder = make_tiny_model(tmp_path / "model", chat_template=TEMPLATE, steps=60)
    (tmp_path / "gguf").mkdir()
    file = write_gguf(folder, tmp_path / "gguf" / "tiny.gguf")
    found = find_model(str(file))
    assert found.context == 1024 and found.stop_ids == find_model(str(folder)).stop_ids
    assert found.digest == find_model(str(file.parent)).digest != find_model(str(folder)).digest
    ids = tuple(find_model(str(folder)).tokenizer.encode("Ada has three apples.\nAnswer:"))
    request = Request("a", Prompt("", ids), Generation(max_tokens=30))
    said = [next(iter(TransformersEngine().load(str(each)).generate([request]))) for each in (folder, file)]
    assert said[0].error is None and (said[0].text, said[0].completion_tokens) == (
        said[1].text,
        said[1].completion_tokens,
    )
    tokenizer = TransformersEngine().tokenizer(str(file))
    assert find_format("chat").render("Hello", tokenizer).text == "<user>Hello<a>"
    rows = tmp_path / "p.jsonl"
    rows.write_text('{"prompt": "Hello"}\n')
    words = ["-b", rows, "-m", file, "-e", "transformers", "--set", "prompts.generation.max_tokens=3"]
    assert harness("run", *words, "-o", tmp_path / "runs").code == 0
    assert (tmp_path / "runs" / "p" / "tiny").is_dir()
    with pytest.raises(
        ModelError, match=r"GGUF is loaded by --engine transformers alone; or serve it \(llama-server -m"
    ):
        find_model(str(file)).with_weights()
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ModelError, match=r"tiny.gguf cannot be used \(.*\); serve it"):
        _ = find_model(str(file)).config


def test_what_cannot_be_loaded_says_how_to_serve_it(
    tmp_path: Path, harness: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "tiny.gguf"
    whole.write_bytes(b"GGUF")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else find_spec(name))
    served = f"serve it (llama-server -m {whole} --port 8080) and ask the server: --engine openai"
    for model in (whole, tmp_path):
        done = harness("run", "-b", "gsm8k", "-m", model, "-e", "transformers", "--data", tmp_path)
        assert done.code == 2 and done.err.count("\n") == 1
        assert "GGUF, which needs a library: pip install gguf; or " in done.err and served in done.err
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        ModelError, match=r"2 GGUF files \(other.gguf, tiny.gguf\); give one of them: --model .*other.gguf"
    ):
        find_model(str(tmp_path))
    part = tmp_path / "big-00001-of-00002.gguf"
    part.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="GGUF in several files, which transformers does not load; serve it"):
        find_model(str(part))
