"""Low-rank adapters (LoRA, arXiv:2106.09685) through peft: a frozen model with small trained matrices beside it.

The frozen model may be held in 4 bits (QLoRA, arXiv:2305.14314) through bitsandbytes: NF4 with double quantisation.

A checkpoint holds the merged weights, so that it is an ordinary model; the adapter itself lies in ``adapter/``, in
peft's format. A 4-bit base is merged as the training saw it, from its 4-bit values: that is the model whose validation
loss was measured, where the adapter on top of the original weights would be another one.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.adapted import ADAPTER_CONFIG, ADAPTER_WEIGHTS, nothing_fetched
from harness.errors import ConfigError
from harness.training.parallel import like, whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from harness.training.options import TrainingOptions


_NAME = "default"
#: Layers that are called with the same input one after the other.
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_PREFIX = "base_model.model."


def adapter_config(options: TrainingOptions) -> Any:
    """Return peft's configuration of the adapter that the options ask for, None where they ask for none.

    Raises ConfigError where peft is not installed.
    """
    if not options.lora_rank:
        return None
    try:
        with nothing_fetched():
            from peft import LoraConfig
    except ImportError as error:
        raise ConfigError("lora_rank needs peft: pip install 'posttrain-harness[lora]'") from error
    targets = list(options.lora_targets) or "all-linear"
    return LoraConfig(r=options.lora_rank, lora_alpha=options.lora_alpha, target_modules=targets, task_type="CAUSAL_LM")


def quantization(options: TrainingOptions, dtype: torch.dtype, world: int) -> Any:
    """Return transformers' configuration of a 4-bit base computed in `dtype`, None where the options ask for none.

    Raises ConfigError where bitsandbytes is not installed or several GPUs train together.
    """
    if not options.base_bits:
        return None
    if world > 1:
        raise ConfigError(
            f"base_bits={options.base_bits} trains on one GPU; start a single process, or give base_bits=0"
        )
    try:
        with nothing_fetched():
            import bitsandbytes  # noqa: F401
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        raise ConfigError("base_bits needs bitsandbytes: pip install 'posttrain-harness[qlora]'") from error
    configure: Any = BitsAndBytesConfig  # untyped
    return configure(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def settle_quantized(lm: Any) -> None:
    """Make a model with 4-bit layers an ordinary one to everything but these layers."""
    lm.hf_quantizer.remove_quantization_config(lm)
    for module in lm.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # it repacks weights in evaluation, which training cannot read


def add_adapter(lm: Any, config: Any, dtype: torch.dtype, seed: int) -> None:
    """Freeze `lm` and put an adapter in `dtype` beside the linear layers that `config` names; `seed` alone decides it.

    Raises ConfigError where a layer has no such name or is not linear, or is the output layer: losses compute with its
    weight alone.
    """
    import torch
    from peft import inject_adapter_in_model

    given = config.target_modules
    asked = given if isinstance(given, str) else sorted(given)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, lm, _NAME)
        except ValueError as error:
            raise ConfigError(f"lora_targets={asked}: {str(error).splitlines()[0]}") from error
    for name, layer in _adapted(lm).items():
        if not hasattr(layer.get_base_layer(), "weight"):
            linear = '["q_proj", "k_proj", "v_proj", "o_proj"]'
            raise ConfigError(
                f"lora_targets={asked}: {name} holds several matrices in one tensor (experts), of which no checkpoint "
                f"could be merged; name linear layers, such as lora_targets={linear}, or train without lora_rank"
            )
        if layer is lm.get_output_embeddings():
            raise ConfigError(f"lora_targets={asked}: {name} is the output layer, which gets no adapter; leave it out")
        if _NAME not in layer.lora_A:
            raise ConfigError(f"lora_targets={asked}: {name} is not a linear layer")
        for part in (layer.lora_A, layer.lora_B):
            part.to(dtype)
    for module in lm.modules():
        for names in _TOGETHER:
            layers = [getattr(module, name, None) for name in names]
            if all(hasattr(layer, "lora_A") for layer in layers):
                _put_together(layers)


def _put_together(layers: Sequence[Any]) -> None:
    """Let adapted layers of the same input multiply it with their first matrices in one product.

    A product of rank 16 takes as long as reading the input does, and so do its gradients. They are layers of another
    class then, not of another method: compiled code of one decoder layer has to be that of all.
    """
    for place, layer in enumerate(layers):
        kind: Any = type(layer)
        layer.__class__ = _together(kind)
        # not as modules that it holds, which it does not
        layer.__dict__.update(together=tuple(layers), place=place, input=None, inner=None)
        layer.register_buffer("joined", None, persistent=False)


def join_layers(decoder: Any) -> int:
    """Put weights and adapters of layers of the same input into one matrix each, where they can be; return how many.

    Each pass of the decoder begins with what the adapters hold then.
    """
    from harness.training.model.joined import Joined, may_be_joined

    made: list[Joined] = []
    for module in decoder.modules():
        layers = module.__dict__.get("together")
        if layers and layers[0] is module and may_be_joined(layers, _NAME):
            made.append(Joined(layers, _NAME))
            module.joined = made[-1].matrix

    def refresh(*_: Any) -> None:
        for joined in made:
            joined.refresh()

    if made:
        decoder.register_forward_pre_hook(refresh)
    return len(made)


@functools.cache
def _together(kind: Any) -> Any:
    import torch
    from torch.nn import functional as F

    from harness.training.model.joined import product

    class Together(kind):  # type: ignore[misc]  # known when it runs
        def forward(self, input: Tensor) -> Tensor:
            first = self.together[0]
            if input is not first.input:
                first.input, first.inner = input, self._inner(first, input)
            own: Tensor = first.inner[self.place]
            if self.place == len(self.together) - 1:
                first.input = first.inner = None
            if first.joined is not None:
                return own
            found: Tensor = self.base_layer(input) + F.linear(own * self.scaling[_NAME], self.lora_B[_NAME].weight)
            return found

        def _inner(self, first: Any, input: Tensor) -> Sequence[Tensor]:
            """Return, of each layer, all that it gives where they are joined, else its adapter's first product."""
            if first.joined is None:
                matrices = [layer.lora_A[_NAME].weight for layer in self.together]
                return torch.split(F.linear(input, torch.cat(matrices)), [len(one) for one in matrices], dim=-1)
            pairs = [part[_NAME].weight for layer in self.together for part in (layer.lora_A, layer.lora_B)]
            return product(input, first.joined, self.scaling[_NAME], pairs)

    return Together


def adapter_weights(lm: Any) -> dict[str, Tensor]:
    """Return the adapter's parameters by name; empty for a model without one."""
    return {name: tensor.detach() for name, tensor in lm.state_dict(keep_vars=True).items() if ".lora_" in name}


def adapter_card(lm: Any, base: str) -> str:
    """Return the content of peft's adapter_config.json for the adapter of a model trained from `base`."""
    card = {**lm.peft_config[_NAME].to_dict(), "base_model_name_or_path": base, "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in card.items()}
    return json.dumps(plain, indent=2, sort_keys=True) + "\n"


def save_adapter(folder: Path, weights: Mapping[str, Tensor], card: str) -> None:
    """Write an adapter as peft reads it, from its parameters by name and its card."""
    from safetensors.torch import save_file

    folder.mkdir()
    named = {_PREFIX + name.replace(f".{_NAME}.", "."): tensor.contiguous() for name, tensor in weights.items()}
    save_file(named, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (folder / ADAPTER_CONFIG).write_text(card, encoding="utf-8")


def restore_adapter(folder: Path, lm: Any) -> None:
    """Put an adapter that `save_adapter` wrote in the place of the model's own."""
    from safetensors.torch import load_file

    saved = load_file(folder / ADAPTER_WEIGHTS)
    for name, tensor in adapter_weights(lm).items():
        tensor.copy_(like(saved[_PREFIX + name.replace(f".{_NAME}.", ".")], tensor))


@dataclass(frozen=True)
class Weight:
    """One tensor of the model that base and adapter come to: the base's, and the adapted layer that it belongs to."""

    tensor: Tensor
    layer: Any = None

    @property
    def size(self) -> int:
        """Its bytes in the ordinary model."""
        kept = getattr(self.tensor, "quant_state", None)
        return int(self.tensor.nbytes if kept is None else kept.shape.numel() * kept.dtype.itemsize)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in the ordinary model."""
        return tuple(getattr(self.tensor, "quant_state", self.tensor).shape)

    def whole(self) -> Tensor:
        """Return it merged, in the base's dtype, from the shards of all ranks, which must all ask.

        Products and sums are computed in fp32 and rounded once; the model itself is not touched.
        """
        base = whole(_dequantized(self.tensor))
        if self.layer is None or _NAME not in self.layer.lora_A:
            return base
        first, second = (whole(part[_NAME].weight.detach()).float() for part in (self.layer.lora_A, self.layer.lora_B))
        scale: float = self.layer.scaling[_NAME]
        change = second @ first
        if self.layer.fan_in_fan_out:  # a Conv1D holds its matrix the other way round
            change = change.T
        return (base.float() + scale * change).to(base.dtype)


def ordinary(lm: Any) -> dict[str, Weight]:
    """Return what an ordinary model of the same outputs consists of, by the names that it has there."""
    adapted = _adapted(lm)
    state = lm.state_dict(keep_vars=True)  # which makes FSDP put back the shards that its parameters stand for
    own = {name for named in (lm.named_parameters, lm.named_buffers) for name, _ in named(remove_duplicate=False)}
    found: dict[str, Weight] = {}
    for key, tensor in state.items():
        if ".lora_" in key or key not in own:  # a 4-bit layer's state has more entries than tensors of the model
            continue
        name, inside, kind = key.rpartition(".base_layer.")
        if inside:
            found[f"{name}.{kind}"] = Weight(tensor, adapted[name] if kind == "weight" else None)
        else:
            found[key] = Weight(tensor)
    return found


def _adapted(lm: Any) -> dict[str, Any]:
    return {name: module for name, module in lm.named_modules() if hasattr(module, "lora_A")}


def _dequantized(tensor: Tensor) -> Tensor:
    kept = getattr(tensor, "quant_state", None)
    if kept is None:
        return tensor.detach()
    from bitsandbytes.functional import dequantize_4bit

    found: Tensor = dequantize_4bit(tensor.data, kept)
    return found
