"""The model as the loop trains it: hidden states of packed rows, the output layer, and a loss computed inside."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from harness.errors import ModelError, first_line, unloadable
from harness.models import find_model, quiet
from harness.training.batch import Batch
from harness.training.checkpoint.weights import saved_shapes
from harness.training.model.adapters import (
    adapter_config,
    add_adapter,
    join_layers,
    quantization,
    settle_quantized,
)
from harness.training.model.attention import implementation
from harness.training.model.float8 import check_float8, gathers_float8, keep_parts, scale_weights, to_float8
from harness.training.model.memory import recompute_activations
from harness.training.model.suitable import (
    ANOTHER,
    logit_factor,
    refuse_leaks,
    refuse_other_logits,
    refuse_unsuitable,
)
from harness.training.options import TrainingOptions
from harness.training.parallel import Ranks, shard

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
        refuse_unsuitable(lm)
        self._factor = logit_factor(lm)
        base = lm.base_model
        self._decoder: list[Any] = [lm.model if base is lm else base]  # in a list: it is a module of the model already
        self._sharded_head: list[Any] = []

    def train(self, mode: bool = True) -> Self:
        """Set whether gradients are wanted; the model itself stays as it is evaluated, with no dropout of any kind."""
        super().train(mode)
        self.lm.eval()
        return self

    def forward(self, objective: Objective, batch: Batch, scale: float | Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        return objective(self, batch, scale)

    def hidden(self, batch: Batch) -> Tensor:
        """Return the hidden states of a microbatch, [rows · width, H], whose products with `lm_head` are logits."""
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
        if batch.borders is not None:
            inputs = {name: tensor.reshape(1, -1) for name, tensor in inputs.items()}
            inputs |= {f"cu_seq_lens_{side}": batch.borders for side in "qk"}
            inputs |= {f"max_length_{side}": batch.longest for side in "qk"}
            if batch.keys is not None:
                inputs |= {"cu_seq_lens_k": batch.key_borders, "keys": batch.keys}
        output = torch.flatten(self._decoder[0](**inputs, use_cache=False).last_hidden_state, 0, 1)
        for head in self._sharded_head:
            output = head(output)
        return output if self._factor == 1 else output * self._factor

    @property
    def lm_head(self) -> Tensor:
        """The output layer's weight, [V, H]."""
        for head in self._sharded_head:
            head.unshard()
        weight: Tensor = self.lm.get_output_embeddings().weight
        return weight

    def head_apart(self) -> nn.Module | None:
        """Return the output layer as a unit for FSDP, None where its weight is the embeddings' too.

        A loss multiplies with its weight itself, chunk by chunk. As a layer it hands on the hidden states as they are,
        which tells FSDP when the weight is needed and when its gradient is there.
        """
        head: Any = self.lm.get_output_embeddings()
        if head.weight is self.lm.get_input_embeddings().weight:
            return None
        head.forward = lambda hidden: hidden
        self._sharded_head = [head]
        unit: nn.Module = head
        return unit

    @property
    def decoder(self) -> nn.Module:
        """The model without its output layer."""
        found: nn.Module = self._decoder[0]
        return found

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
    refuse_other_logits(network, model)
    if packed:
        refuse_leaks(network, model)
    if options.float8 != "none":
        to_float8(lm, options, world=ranks.world)
    if adapter is not None:
        network.shapes = saved_shapes(lm)
        add_adapter(lm, adapter, dtype, options.seed)
    return prepared(network, options, ranks)


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
    described = find_model(model)
    folder: Path = described.with_weights()
    from transformers import AutoModelForCausalLM

    models: Any = AutoModelForCausalLM  # untyped

    more = {} if quantized is None else {"quantization_config": quantized, "device_map": {"": device}}
    try:
        with quiet():
            lm, report = models.from_pretrained(
                folder, config=copy.deepcopy(described.transformers_config), dtype=dtype, attn_implementation=attention,
                trust_remote_code=False, local_files_only=True, output_loading_info=True, **more,
            )  # fmt: skip
    except KeyError as error:
        if error.args != (attention,):
            raise ModelError(f"{model}: cannot be loaded for training ({first_line(error)})") from error
        raise ModelError(
            f"{model}: its attention is of a class of its own, which does not take the kernels here; {ANOTHER}"
        ) from error
    except Exception as error:  # the library raises whatever its parsers raise
        raise ModelError(f"{model}: cannot be loaded for training ({unloadable(error)})") from error
    if missing := sorted(report.get("missing_keys")):
        raise ModelError(f"{model}: {len(missing)} weights are missing, such as {missing[0]}; save the model anew")
    if quantized is None:
        return lm.to(device)
    settle_quantized(lm)
    return lm


def compile_layers(layers: nn.ModuleList, **more: Any) -> None:
    """Compile each layer as a whole when it is first called; `more` is for torch.compile."""
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    inductor.deterministic = True  # kernels chosen by timing them would round otherwise in another process
    # What adapted layers of one input leave each other is gone at the end of a pass, recomputed or not.
    if hasattr(dynamo, "skip_fwd_side_effects_in_bwd_under_checkpoint"):  # else such layers run uncompiled
        dynamo.skip_fwd_side_effects_in_bwd_under_checkpoint = True
    for layer in layers:
        layer.compile(dynamic=False, **more)


def prepared(network: Network, options: TrainingOptions, ranks: Ranks) -> Network:
    """Make a network on this rank's device ready to train: dropout off, recomputation, compilation, shards."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if options.lora_rank and ranks.world == 1:
        join_layers(network.decoder)
    recompute_activations(network.layers, options.recompute, narrow=3 * options.lora_rank)  # of q, k and v together
    compiles = ranks.device.type == "cuda" if options.compile == "auto" else options.compile
    if compiles:
        compile_layers(network.layers)
    if ranks.world > 1:
        if getattr(network.lm, "_weight_conversions", None):
            name = type(network.lm).__name__
            raise ModelError(f"{name} is saved in another form than it computes in; train it on one GPU")
        shard(network, list(network.layers), ranks, late=network.head_apart())
    if gathers_float8(options, ranks.world):
        keep_parts(network.lm)
        scale_weights(network.lm)
    return network.train()
