"""Each family of models that transformers has, tiny and random: it is trained right, or refused before, truly.

Right is: packed rows lose what transformers' own eager attention loses document by document, with the same gradients,
and a checkpoint that is loaded again loses on the validation documents what was measured before it was saved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from harness.errors import HarnessError
from harness.interfaces import TrainingRun
from harness.models import find_model, quiet
from harness.reports.loss import loss_table
from harness.testing.tiny import make_tiny_model
from harness.training.data.packing import DocumentRows
from harness.training.loop import Job, train
from harness.training.loss import measure_loss
from harness.training.model.network import Network, load_network
from harness.training.parallel import join
from harness.training.session import Session
from harness_sft import SFT

pytestmark = pytest.mark.filterwarnings("ignore")  # of what old families say of their configurations

#: Under every name that a family has for it: 2 layers, 32 wide, 4 heads of 8, 4 experts of which 2 are taken.
SIZES = {
    "hidden_size": 32, "n_embd": 32, "d_model": 32, "word_embed_proj_dim": 32, "intermediate_size": 48, "n_inner": 48,
    "ffn_dim": 48, "ffn_hidden_size": 48, "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "n_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "num_heads": 4, "attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 256, "n_positions": 256, "max_seq_len": 256, "rotary_dim": 4,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "moe_k": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "n_group": 1, "topk_group": 1,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4, "v_head_dim": 8, "mamba_n_heads": 4, "mamba_d_head": 16,
}  # fmt: skip
#: Dropout in a configuration, which must be off in training.
DROPOUTS = ("hidden_dropout", "attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout")
LATENT: Mapping[str, Any] = {"num_key_value_heads": 4, "head_dim": None}

DENSE = (
    "llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3", "gemma", "gemma3_text", "phi3", "gpt2", "gpt_neox",
    "gpt_bigcode", "opt", "starcoder2", "olmo", "olmo2", "olmo3", "granite", "cohere", "cohere2", "glm", "glm4",
    "smollm3", "biogpt", "persimmon", "helium", "exaone4", "ernie4_5", "hunyuan_v1_dense", "seed_oss", "arcee",
    "apertus", "bitnet", "cwm", "jais2", "youtu",
)  # fmt: skip
EXPERTS = (
    "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v2", "deepseek_v3", "granitemoe", "granitemoeshared",
    "glm4_moe", "glm4_moe_lite", "ernie4_5_moe", "hunyuan_v1_moe", "dots1", "minimax_m2", "phimoe", "flex_olmo",
    "exaone_moe", "laguna", "solar_open", "afmoe", "jetmoe", "llama4_text",
)  # fmt: skip
MORE: Mapping[str, Mapping[str, Any]] = {
    "deepseek_v2": LATENT, "deepseek_v3": LATENT, "youtu": LATENT, "glm4_moe_lite": LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lfm2": {"layer_types": ["conv", "full_attention"]}, "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
}  # fmt: skip

CLASS = "its attention is of a class of its own"
CARRIES = "its layers carry something from one document of a row to the next"
#: Family → what is said of it; some of two things, of which older versions of transformers meet the second first.
REFUSED = {
    "falcon": CLASS, "gpt_neo": CLASS, "gemma2": r"caps its logits \(final_logit_softcapping=30",
    "vaultgemma": r"caps its logits \(final_logit_softcapping", "nanochat": "caps its logits",
    "gpt_oss": r"attention has sinks \(model.layers.0.self_attn.sinks\)", "mimo_v2_flash": "attention has sinks",
    "granite_swa": "attention has sinks", "phi": "output layer has a bias", "gptj": f"output layer has a bias|{CLASS}",
    "codegen": "output layer has a bias", "bloom": CARRIES, "stablelm": CARRIES, "nemotron": CARRIES, "xglm": CARRIES,
    "mamba": CARRIES, "rwkv": CARRIES, "jamba": CARRIES, "bamba": CARRIES, "minimax": CARRIES, "lfm2_moe": CARRIES,
    "recurrent_gemma": "caps its logits", "nemotron_h": CARRIES,
    "qwen3_next": f"several documents .*flash-linear|{CARRIES}",
    "mpt": "needs more than rows of tokens, such as a mask", "deepseek_v32": "needs more than rows of tokens",
    "doge": "attention has a mask of its own",
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """Folders with models by family, made when they are asked for, and data for them."""

    folder: Path
    tokenizer: Any

    def __call__(self, family: str) -> Path:
        import transformers
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        place = self.folder / family
        kind: Any = CONFIG_MAPPING[family]
        default = kind()
        named = {*getattr(kind, "attribute_map", {}), *(name for name in SIZES if _has(default, name))}
        sizes = {name: size for name, size in SIZES.items() if name in named} | dict(MORE.get(family, {}))
        sizes |= {name: 0.1 for name in DROPOUTS if isinstance(getattr(default, name, None), float)}
        ids = {f"{name}_token_id": getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        given = {name: size for name, size in sizes.items() if size is not None}
        models: Any = transformers.AutoModelForCausalLM
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            models.from_config(_config(kind, {**given, **ids, "vocab_size": len(self.tokenizer)})).save_pretrained(
                place
            )
            self.tokenizer.save_pretrained(place)
        return place


def _has(config: Any, name: str) -> bool:
    try:
        return hasattr(config, name)
    except Exception:  # some refuse to say one number for all layers
        return False


def _config(kind: Any, given: dict[str, Any]) -> Any:
    """Return a configuration; what is a property of others is left out."""
    while True:
        try:
            return kind(**given)
        except AttributeError as error:
            wrong = next((name for name in given if f"'{name}'" in str(error)), None)
            if wrong is None:
                raise
            given = {name: value for name, value in given.items() if name != wrong}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    base = make_tiny_model(tmp_path_factory.mktemp("families") / "base", hidden=32, vocab_size=320)
    return Made(base.parent, find_model(str(base)).tokenizer)


@pytest.fixture(scope="module")
def few(problems: Path) -> Path:
    path = problems.with_name("few.jsonl")
    path.write_text("".join(problems.read_text(encoding="utf-8").splitlines(keepends=True)[:16]), encoding="utf-8")
    return path


def job_of(model: Path, out: Path, data: Path) -> Job:
    chosen = SFT(
        data=(str(data),), prompt_format="plain", sequence_length=128, batch_size=4, microbatch_size=2,
        learning_rate=1e-3, max_steps=1, validation_documents=4, device="cpu",
    )  # fmt: skip
    session = Session(chosen, TrainingRun(str(model), out, {}))
    return session.job(chosen.prepare(session))


def lost(network: Network, rows: DocumentRows, numbers: list[int]) -> torch.Tensor:
    """Return the nats that rows lose, packed."""
    from harness_sft.trainer import nll

    loss: torch.Tensor = network(nll, rows.batch(numbers, len(numbers)), 1.0)[0]
    return loss


def alone(lm: Any, rows: DocumentRows, numbers: list[int]) -> torch.Tensor:
    """Return the nats that their documents lose one by one, by transformers alone."""
    total, tokens = torch.zeros(()), rows.source
    for document in (one for number in numbers for one in rows.documents(number)):
        ids = torch.from_numpy(tokens.document(document).astype(np.int64))
        learned = torch.arange(1, len(ids)) >= int(tokens.prompts[document])
        logits = lm(input_ids=ids[None], use_cache=False).logits[0, :-1]
        total = total + F.cross_entropy(logits[learned], ids[1:][learned], reduction="sum")
    return total


@pytest.mark.parametrize("family", [*DENSE, *EXPERTS])
def test_a_family_is_trained_right(made: Callable[[str], Path], few: Path, tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = made(family)
    job = job_of(folder, tmp_path / "out", few)
    rows: Any = job.rows
    network = load_network(str(folder), job.options, join("cpu"), packed=True).train()
    with quiet():
        eager: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    numbers = [number for number in range(len(rows)) if len(rows.documents(number)) > 1][:2]
    assert numbers, "there are rows of several documents"
    ours, theirs = lost(network, rows, numbers), alone(eager.eval(), rows, numbers)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    (ours + theirs).backward()  # type: ignore[no-untyped-call]
    expected = dict(eager.named_parameters())
    for name, parameter in network.lm.named_parameters():
        if (gradient := expected[name].grad) is not None and gradient.norm() > 1e-6:
            assert (parameter.grad - gradient).norm() <= 1e-5 * gradient.norm(), name

    train(job)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    before, measured = (line["validation/loss"] for line in lines if "validation/loss" in line)
    assert measured < before
    again, validation = (
        load_network(str(tmp_path / "out"), job.options, join("cpu"), packed=True).eval(),
        job.validation,
    )
    assert isinstance(validation, DocumentRows)
    with torch.no_grad():
        total = lost(again, validation, list(range(len(validation)))).item()
    assert total / validation.weights.sum() == pytest.approx(measured, abs=1e-5)


@pytest.mark.parametrize("family", ["bloom", "stablelm", "jamba", "rwkv"])
def test_what_cannot_be_packed_is_measured_one_by_one(made: Callable[[str], Path], few: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = made(family)
    found = measure_loss([few], str(folder), prompt_format="plain", device="cpu")
    assert found.alone is not None and "carry something" in found.alone
    assert "documents were read one by one" in loss_table(found)
    with quiet():
        lm: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = DocumentRows(found.documents, 128, documents=np.arange(len(found.documents)), loss="responses")
    with torch.no_grad():
        expected = alone(lm.eval(), rows, list(range(len(rows)))).item()
    assert found.totals.sum() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_is_refused_before_training(
    made: Callable[[str], Path], few: Path, tmp_path: Path, family: str
) -> None:
    with pytest.raises(HarnessError, match=REFUSED[family]) as caught:
        train(job_of(made(family), tmp_path / "out", few))
    assert "take another model" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out" / "last").exists()
