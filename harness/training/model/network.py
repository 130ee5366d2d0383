"""The model as the loop trains it: hidden states of packed rows, the output layer, and a loss computed inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from harness.errors import HarnessError, ModelError, first_line
from harness.models import find_model, quiet
from harness.training.batch import Batch
from harness.training.checkpoint.weights import saved_shapes
from harness.training.model.adapters import (
    adapter_config,
    add_adapter,
    quantization,
    settle_quantized,
)
from harness.training.model.attention import implementation
from harness.training.model.float8 import check_float8, to_float8
from harness.training.model.memory import recompute_activations
from harness.training.options import TrainingOptions
from harness.training.parallel import Ranks, shard

_ALONE = "take another model (the trainer sft can do without borders: sft.packing=concat)"

#: What a loss is to the loop: given network, microbatch and scale, it returns `scale` · the loss summed over what the
#: microbatch counts, attached to the graph, and named sums for the metrics (detached, not scaled), ``loss`` among them.
#: In training the scale is a tensor of one element, which a recorded microbatch finds another value in each time.
Objective = Callable[["Network", Batch, "float | Tensor"], tuple[Tensor, Mapping[str, Tensor]]]


class Network(nn.Module):
    """A causal language model whose logits are never built.

    Calling it with an objective computes that objective's loss: inside of the call, so that under FSDP the output layer
    is gathered once for all chunks of the loss.
    """

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm = lm
        self.shapes: Mapping[str, tuple[int, ...]] = {}  # of an adapted model's checkpoints, by their names
        _refuse_unsupported(lm)

    def train(self, mode: bool = True) -> Self:
        """Set whether gradients are wanted; the model itself stays as it is evaluated, with no dropout of any kind."""
        super().train(mode)
        self.lm.eval()
        return self

    def forward(self, objective: Objective, batch: Batch, scale: float | Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        return objective(self, batch, scale)

    def hidden(self, batch: Batch) -> Tensor:
        """Return the last hidden states of a microbatch, [rows · width, H]."""
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
        if batch.borders is not None:
            inputs = {name: tensor.reshape(1, -1) for name, tensor in inputs.items()}
            inputs |= {f"cu_seq_lens_{side}": batch.borders for side in "qk"}
            inputs |= {f"max_length_{side}": batch.longest for side in "qk"}
            if batch.keys is not None:
                inputs |= {"cu_seq_lens_k": batch.key_borders, "keys": batch.keys}
        output = self.lm.base_model(**inputs, use_cache=False).last_hidden_state
        return torch.flatten(output, 0, 1)

    @property
    def lm_head(self) -> Tensor:
        """The output layer's weight, [V, H]."""
        weight: Tensor = self.lm.get_output_embeddings().weight
        return weight

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers."""
        return decoder_layers(self.lm)


def decoder_layers(lm: Any) -> nn.ModuleList:
    """Return the longest list of modules in a model, which is its decoder; ModelError where there is none."""
    lists = [module for module in lm.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ModelError(f"{type(lm).__name__} has no list of layers: not a decoder that can be trained here")
    return max(lists, key=len)


def load_network(model: str, options: TrainingOptions, ranks: Ranks, *, packed: bool) -> Network:
    """Load `model` for training on this rank's device, as the options say.

    Dropout is off. Raises ModelError for a model that cannot be loaded or trained here.
    """
    dtype = weights_dtype(options, ranks.device)
    check_float8(options, ranks.device)
    adapter, quantized = adapter_config(options), quantization(options, dtype, ranks.world)
    attention = implementation(options.attention, ranks.device, dtype, packed)
    lm = load_lm(model, dtype, ranks.device, attention, quantized)
    network = Network(lm)
    if packed:
        _refuse_leaks(network, model)
    if options.float8 != "none":
        to_float8(lm, options)
    if adapter is not None:
        network.shapes = saved_shapes(lm)
        add_adapter(lm, adapter, dtype, options.seed)
    return prepared(network, options, ranks)


@torch.no_grad()
def _refuse_leaks(network: Network, model: str) -> None:
    """Raise ModelError for a model that does not keep documents apart which stand side by side in a row.

    Layers that carry a state, or that do not hand the borders on to their attention, do so silently: another first
    document then changes the hidden states of the second.
    """
    embeddings = network.lm.get_input_embeddings()
    device, lengths = embeddings.weight.device, [12, 4]
    places = torch.cat([torch.arange(length, device=device) for length in lengths])
    borders = torch.tensor([0, 12, 16], dtype=torch.int32, device=device)
    found = []
    for first in (1, 5):
        ids = (places * 7 + 3) % embeddings.num_embeddings
        ids[:12] = (places[:12] * first + first) % embeddings.num_embeddings
        try:
            found.append(network.hidden(Batch(ids[None], ids[None], places[None], borders, 12))[12:].float())
        except HarnessError:
            raise
        except Exception as error:  # whatever a model's own code raises
            raise ModelError(
                f"{model}: cannot read rows of several documents ({first_line(error)}); {_ALONE}"
            ) from error
    allowed = 1e-4 if embeddings.weight.dtype == torch.float32 else 0.05  # experts may round otherwise
    if ((found[0] - found[1]).abs().max() > allowed * found[0].abs().max()).item():
        raise ModelError(f"{model}: its layers do not keep the documents of a row apart; {_ALONE}")


def weights_dtype(options: TrainingOptions, device: torch.device) -> torch.dtype:
    """Return the dtype that the options mean: bf16 on a GPU, fp32 on a CPU unless told otherwise."""
    name = options.dtype
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def load_lm(model: str, dtype: torch.dtype, device: torch.device, attention: str, quantized: Any = None) -> Any:
    """Load a causal language model from safetensors.

    All its parameters are in `dtype`, but for linear layers that `quantized`, a configuration of transformers', says to
    hold in fewer bits.
    """
    folder: Path = find_model(model).with_weights()
    from transformers import AutoModelForCausalLM

    models: Any = AutoModelForCausalLM  # untyped

    more = {} if quantized is None else {"quantization_config": quantized, "device_map": {"": device}}
    try:
        with quiet():
            lm, report = models.from_pretrained(
                folder, dtype=dtype, attn_implementation=attention, trust_remote_code=False, local_files_only=True,
                output_loading_info=True, **more,
            )  # fmt: skip
    except Exception as error:  # the library raises whatever its parsers raise
        raise ModelError(f"{model}: cannot be loaded for training ({first_line(error)})") from error
    if missing := sorted(report.get("missing_keys")):
        raise ModelError(f"{model}: {len(missing)} weights are missing, such as {missing[0]}; save the model anew")
    if quantized is None:
        return lm.to(device)
    settle_quantized(lm)
    return lm


def prepared(network: Network, options: TrainingOptions, ranks: Ranks) -> Network:
    """Make a network on this rank's device ready to train: dropout off, recomputation, compilation, shards."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    recompute_activations(network.layers, options.recompute)
    compiles = ranks.device.type == "cuda" if options.compile == "auto" else options.compile
    if compiles:
        from torch._inductor import config as inductor

        inductor.deterministic = True  # kernels chosen by timing them would round otherwise in another process
        for layer in network.layers:
            layer.compile(dynamic=False)
    if ranks.world > 1:
        if getattr(network.lm, "_weight_conversions", None):
            name = type(network.lm).__name__
            raise ModelError(f"{name} is saved in another form than it computes in; train it on one GPU")
        shard(network, list(network.layers), ranks)
    return network.train()


def _refuse_unsupported(lm: Any) -> None:
    """Raise ModelError for a model whose logits are more than hidden states times the output layer's weight."""
    head = lm.get_output_embeddings()
    name = type(lm).__name__
    if head is None or not isinstance(head, nn.Linear) or head.bias is not None:
        raise ModelError(f"{name} has no plain output layer; its loss cannot be computed in chunks")
    config = lm.config.get_text_config()
    for option in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(config, option, None) not in (None, 1, 1.0):
            raise ModelError(f"{name} changes its logits ({option}); training it is not supported")
