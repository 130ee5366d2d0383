"""What a training keeps in memory: recomputing activations instead of keeping them, and an estimate of it all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError, first_line
from harness.models import quiet
from harness.training.options import Recompute, TrainingOptions

if TYPE_CHECKING:
    from torch import nn

_GIB = 2**30

#: The share of the host's free memory that the optimizer's state may take; pinned memory comes in powers of two.
HOST_SHARE = 0.75


def recompute_activations(layers: Sequence[nn.Module] | nn.ModuleList, recompute: Recompute, narrow: int = 0) -> None:
    """Make `layers` keep fewer activations for the backward pass.

    ``full`` keeps a layer's input alone, but in the last eighth of the layers: their activations are gone before the
    gradients of the others are there, so where a step has one microbatch it peaks no higher. ``selective`` keeps
    attention outputs and every second matrix product, as torchtitan does: the cheap and the half of the dear are
    computed anew. Products of at most `narrow` columns, those of adapters, are cheap. ``none`` keeps everything.
    """
    if recompute == "none":
        return
    more: dict[str, Any] = {"context_fn": partial(_selective, narrow)} if recompute == "selective" else {}
    for layer in layers[: len(layers) - _kept_whole(len(layers), recompute)]:
        layer.forward = _recomputing(layer.forward, more)


def _kept_whole(layers: int, recompute: Recompute) -> int:
    return {"none": layers, "selective": 0, "full": layers // 8}[recompute]


def _recomputing(forward: Callable[..., Any], more: dict[str, Any]) -> Callable[..., Any]:
    from torch.utils.checkpoint import checkpoint

    def recomputed(*inputs: Any, **options: Any) -> Any:  # a frame of its own, which compilation takes as a whole
        return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **more, **options)

    return recomputed


def _selective(narrow: int) -> Any:
    import torch
    from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

    aten = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_cudnn_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
    }
    products = {aten.mm.default, aten.addmm.default}
    count = {True: 0, False: 0}

    def policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = operator in attention or "varlen_attn" in str(operator)
        if operator in products and min(*args[-1].shape) > narrow:
            count[context.is_recompute] += 1
            kept = count[context.is_recompute] % 2 == 1
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    contexts: Any = create_selective_checkpoint_contexts  # untyped
    return contexts(policy)


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that memory and arithmetic depend on.

    `parameters` are all of the model's, `matrix_parameters` those that it multiplies with, the output layer's among
    them, and `active_parameters` those of the latter that a token meets: of experts it meets a few. `attended` is the
    width of all heads together.
    """

    layers: int
    hidden: int
    intermediate: int
    key_values: int
    vocabulary: int
    parameters: int
    matrix_parameters: int
    active_parameters: int
    attended: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """Read the sizes from a transformers configuration, and count the parameters of the model that it makes.

        The model is built without memory for its weights. Raises ModelError for a configuration without sizes, such as
        that of a model without attention, or of which no decoder can be made.
        """
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
            if not isinstance(getattr(config, name, None), int):
                kind = getattr(config, "model_type", "")
                raise ModelError(f"a model of type {kind!r} has no {name}; give a decoder with attention")
        hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
        size = int(getattr(config, "head_dim", None) or hidden // heads)
        groups = int(getattr(config, "num_key_value_heads", None) or heads)
        intermediate = int(getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden)
        return cls(
            int(config.num_hidden_layers), hidden, intermediate, size * groups, int(config.vocab_size),
            *_counted(config), size * heads,
        )  # fmt: skip

    def adapter(self, rank: int) -> int:
        """Return the parameters of low-rank adapters beside all linear layers of a Llama of these sizes."""
        sides = 4 * self.hidden + 2 * (self.hidden + self.key_values) + 3 * (self.hidden + self.intermediate)
        return self.layers * rank * sides

    def flops(self, tokens: float, squares: float) -> float:
        """Return the operations of forward and backward pass over `tokens` in documents whose lengths' squares sum up.

        Six a matrix parameter that a token meets, and causal attention at half the square; what is recomputed is not
        counted.
        """
        return 6 * self.active_parameters * tokens + 6 * self.layers * self.attended * squares


def _counted(config: Any) -> tuple[int, int, int]:
    """Return a model's parameters, those of its matrices, and those of the matrices that one token meets."""
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM

    models: Any = AutoModelForCausalLM  # untyped
    try:
        with quiet(), torch.device("meta"):
            lm = models.from_config(config, trust_remote_code=False)
            lm.tie_weights()
    except Exception as error:  # the code of each architecture raises whatever it meets
        kind = getattr(config, "model_type", "")
        raise ModelError(f"no decoder can be made of a model of type {kind!r} ({first_line(error)})") from error
    head = lm.get_output_embeddings()
    tables = {id(module.weight) for module in lm.modules() if isinstance(module, nn.Embedding)}
    tables -= set() if head is None else {id(head.weight)}
    met = getattr(config, "num_experts_per_tok", None)
    matrices = [each for each in lm.parameters() if each.ndim > 1 and id(each) not in tables]
    active = (each.numel() * met // len(each) if each.ndim == 3 and met else each.numel() for each in matrices)
    return sum(each.numel() for each in lm.parameters()), sum(each.numel() for each in matrices), sum(active)


@dataclass(frozen=True)
class Memory:
    """What a training takes on one GPU at its peak, in GiB; `reference` is a second model's weights."""

    weights: float
    optimizer: float
    gradients: float
    activations: float
    loss: float
    reference: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.optimizer + self.gradients + self.activations + self.loss + self.reference


def estimate(
    shape: Shape, options: TrainingOptions, tokens: int, microbatches: int, bytes_a_weight: int, world: int
) -> Memory:
    """Return what a training takes on one GPU at its peak.

    A GPU computes so many `microbatches` a step, each of so many `tokens`, padding included. Activations follow what
    compiled Llama layers keep. What the allocator loses to fragments, a few per cent, is not counted, nor is what lies
    in the host's memory.

    A backward pass frees a layer's activations and makes its gradients, and those are fewer bytes. So the peak is
    before it, beside the gradients of the microbatches before; where a step has a single microbatch there are none
    yet, and the peak is the larger of that moment and the end, when all gradients are there and one layer's
    activations.
    """
    layer = 6 * shape.hidden + 4 * shape.key_values + 3 * shape.intermediate  # what a layer keeps of a token
    if options.float8 != "none" and not options.lora_rank:
        layer = layer * 7 // 10  # what is multiplied later is kept in 8 bits
    kept = {
        "none": layer,
        # the layer's input, queries and values (the first and third product), attention, and the gate (the fifth)
        "selective": 3 * shape.hidden + shape.key_values + shape.intermediate,
        "full": shape.hidden,
    }[options.recompute]
    whole = _kept_whole(shape.layers, options.recompute)
    again = 0 if options.recompute == "none" else layer  # one layer's, while its backward pass runs
    trained = shape.adapter(options.lora_rank) if options.lora_rank else shape.parameters
    output = shape.vocabulary * shape.hidden * bytes_a_weight
    gathered = 0 if world == 1 else shape.parameters - shape.matrix_parameters + output // bytes_a_weight
    weights = _weights(shape, options, bytes_a_weight) / world + gathered * bytes_a_weight
    optimizer = trained * states(options, bytes_a_weight) * (1 - options.offload) / world
    gradients = trained * bytes_a_weight / world
    before = (
        gradients if microbatches > 1 else 0,
        tokens * bytes_a_weight * ((shape.layers - whole) * kept + whole * layer + again),
        # a chunk's logits and their gradients, and the gradient of the output layer
        min(1024, tokens) * shape.vocabulary * 6 + (0 if options.lora_rank else output),
    )
    end = (gradients, tokens * bytes_a_weight * layer, 0)
    return Memory(*(size / _GIB for size in (weights, optimizer, *max(before, end, key=sum))))


def offloaded_gib(shape: Shape, options: TrainingOptions, bytes_a_weight: int, world: int) -> float:
    """Return what of the optimizer's state lies in the memory of a GPU's host, in GiB."""
    trained = shape.adapter(options.lora_rank) if options.lora_rank else shape.parameters
    return trained * states(options, bytes_a_weight) * options.offload / world / _GIB


def _weights(shape: Shape, options: TrainingOptions, bytes_a_weight: int) -> float:
    """Return the bytes of all weights and of an adapter beside them."""
    plain, quantized = shape.parameters, 0
    if options.base_bits:
        quantized = shape.matrix_parameters - shape.vocabulary * shape.hidden  # all but the output layer
        plain -= quantized
    adapter = shape.adapter(options.lora_rank) if options.lora_rank else 0
    if options.lora_rank and options.float8 != "none":  # two copies of a frozen layer beside it
        adapter += 2 * (shape.matrix_parameters - shape.vocabulary * shape.hidden) // bytes_a_weight
    # 4 bits, and a scale a block of 64: a byte each, and a float for 256 of these
    return (plain + adapter) * bytes_a_weight + quantized * (1 / 2 + 1 / 64 + 4 / 64 / 256)


def states(options: TrainingOptions, bytes_a_weight: int) -> int:
    """Return the bytes that the optimizer keeps for each weight that is trained."""
    residual = 2 if bytes_a_weight == 2 else 0
    if options.optimizer == "rmsprop":
        return residual + (2 if options.moments == "bfloat16" else 4)
    short = options.moments == "bfloat16" or (options.moments == "auto" and bytes_a_weight == 2)
    return residual + 2 * (2 if short else 4)


def free_memory() -> int | None:
    """Return how many bytes this host, or the container that this is, can still give; None where nothing says so."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            found.append(int(limit) - sum(int(used.get(name, 0)) for name in ("anon", "shmem")))
    except OSError:
        pass
    return min(found, default=None)
