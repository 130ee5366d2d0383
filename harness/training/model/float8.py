"""Matrix products in float8, while weights, their masters and everything else stay as they are.

Of a linear layer the input, the weight and the gradient of the output are cast to 8 bits right before they are
multiplied, scaled so that the largest of a tensor (``tensorwise``) or of a row (``rowwise``) still fits
(arXiv:2209.05433; arXiv:2407.21783, section 6.2). The output layer and the embeddings are left out, where rounding
costs the most. Layers that learn are torchao's. Below an adapter weights do not change: they are cast once.

Where gradients are off, as in a validation, nothing is rounded: the figures are of the model that is saved.

Several GPUs gather weights that learn in float8 too, one byte each, where one scale holds for the whole of a weight.
What FSDP holds of such a weight is torchao's wrapper of a rank's part, which casts it when it is gathered.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import ConfigError
from harness.training.options import FLOAT8_GRAIN
from harness.training.parallel import assembled, local

if TYPE_CHECKING:
    from harness.training.options import TrainingOptions

#: The oldest GPUs that multiply float8: Ada and Hopper.
_CAPABILITY = (8, 9)
#: What forward and backward pass round to: finer, and of a wider range.
_FINE, _WIDE = torch.float8_e4m3fn, torch.float8_e5m2


def check_float8(options: TrainingOptions, device: torch.device) -> None:
    """Raise ConfigError where the options ask for float8 and it cannot be had."""
    if options.float8 == "none":
        return
    asked = f"float8={options.float8}"
    if device.type != "cuda":
        raise ConfigError(f"{asked} needs a GPU that computes in it (Hopper, Ada or newer); give float8=none")
    if torch.cuda.get_device_capability(device) < _CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f"{asked}: {name} does not compute in float8 (Hopper, Ada and newer do); give float8=none")
    if options.compile is False:
        raise ConfigError(f"{asked} needs compile: casts that are not compiled take longer than they save")
    if not options.lora_rank:
        _torchao(options)


def _torchao(options: TrainingOptions) -> Any:
    try:
        import torchao.float8
    except ImportError as error:
        raise ConfigError(f"float8={options.float8} needs torchao: pip install 'posttrain-harness[float8]'") from error
    return torchao.float8


def to_float8(lm: Any, options: TrainingOptions, *, world: int = 1, emulate: bool = False) -> list[str]:
    """Make the linear layers of `lm` but the output layer multiply in float8 and return their names.

    They are those of a model without an adapter yet. Layers whose sides are not divisible by 16 stay as they are. With
    several GPUs, `world`, the weights are made such that `shard` gathers them in float8 where it can be done. With
    `emulate`, numbers are rounded to float8 and then multiplied as others are, which runs anywhere. Raises ConfigError
    where torchao is wanted and not installed.
    """
    head = lm.get_output_embeddings()
    chosen = {
        name: module
        for name, module in lm.named_modules()
        if type(module) is nn.Linear and module is not head
        if module.in_features % FLOAT8_GRAIN == module.out_features % FLOAT8_GRAIN == 0
    }
    if options.lora_rank:
        for name, module in chosen.items():
            lm.set_submodule(name, FrozenFloat8(module))
        return list(chosen)
    gathered = _evenly_shared(lm, chosen, world) if gathers_float8(options, world) else set()
    if gathered:
        _convert(lm, options, gathered, emulate=emulate, enable_fsdp_float8_all_gather=True)
    _convert(lm, options, chosen.keys() - gathered, emulate=emulate)
    return list(chosen)


def gathers_float8(options: TrainingOptions, world: int) -> bool:
    """Whether `world` GPUs gather weights in float8, and `scale_weights` is to be called when these have changed."""
    return world > 1 and options.float8 == "tensorwise" and not options.lora_rank


def keep_parts(lm: Any) -> None:
    """Leave this rank's exact part of each weight that is gathered in float8 with its layer, which may need the rest.

    It is for validations, which are short: the layer waits for the parts of the others.
    """
    from torchao.float8.fsdp_utils import WeightWithDynamicFloat8CastTensor

    layers: list[Any] = [module for module in lm.modules() if isinstance(module, _learning_layer())]
    for layer in layers:
        weight = layer.weight.detach()
        if isinstance(weight.to_local(), WeightWithDynamicFloat8CastTensor):
            layer.part = local(weight)


def scale_weights(lm: Any) -> None:
    """Find what the weights that are gathered in float8 are scaled by, in one exchange; all ranks must ask.

    Else each weight would be an exchange of its own, whenever it is gathered.
    """
    from torchao.float8 import precompute_float8_dynamic_scale_for_fsdp

    precompute_float8_dynamic_scale_for_fsdp(lm)


def _convert(lm: Any, options: TrainingOptions, names: Collection[str], **how: bool) -> None:
    """Put layers that learn in float8 in the place of those with these names."""
    torchao = _torchao(options)
    config = replace(torchao.Float8LinearConfig.from_recipe_name(options.float8), **how)
    torchao.convert_to_float8_training(lm, config=config, module_filter_fn=lambda module, name: name in names)
    for name in names:
        lm.get_submodule(name).__class__ = _learning_layer()


@functools.cache
def _learning_layer() -> type[nn.Module]:
    """Return torchao's layer, which is there where float8 is wanted, but exact where gradients are off."""
    from torchao.float8.float8_linear import Float8Linear

    class LearningFloat8(Float8Linear):  # type: ignore[misc]
        """A linear layer that rounds to float8 where gradients are wanted; `part` is as `keep_parts` leaves it."""

        part: Tensor | None = None

        def forward(self, input: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                found: Tensor = super().forward(input)
                return found
            return F.linear(input, self.weight if self.part is None else assembled(self.part), self.bias)

    return LearningFloat8


def _evenly_shared(lm: Any, layers: Mapping[str, nn.Linear], world: int) -> set[str]:
    """Return the names of `layers` whose weights `world` ranks have equal parts of, and no other layer has.

    FSDP pads unequal parts, but not those that torchao casts. And torchao would make two weights of a common one.
    """
    holders = Counter(id(parameter) for _, parameter in lm.named_parameters(remove_duplicate=False))
    return {
        name for name, layer in layers.items() if layer.out_features % world == 0 and holders[id(layer.weight)] == 1
    }


class FrozenFloat8(nn.Linear):
    """A linear layer whose weight does not learn and is multiplied in float8, scaled by its largest element.

    The weight itself is kept as it was, for what is saved; beside it lie two float8 copies, one a transpose: a GPU
    multiplies float8 only where both factors are laid out along what is summed over.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        rounded, inverse = _rounded(linear.weight.detach(), _FINE)
        self.register_buffer("rounded", rounded, persistent=False)
        turned = rounded.view(torch.uint8).t().contiguous().view(_FINE)
        self.register_buffer("turned", turned, persistent=False)
        self.register_buffer("inverse", inverse, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return F.linear(input, self.weight, self.bias)
        rows = input.reshape(-1, input.shape[-1])
        product: Tensor = _Product.apply(rows, self.rounded, self.turned, self.inverse)  # type: ignore[no-untyped-call]
        found = product.view(*input.shape[:-1], self.out_features)
        return found if self.bias is None else found + self.bias


class _Product(torch.autograd.Function):
    """rows · weightᵀ, and back to the rows alone."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, turned: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(turned, inverse)
        return _multiplied(*_rounded(rows, _FINE), weight, inverse, rows.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        turned, inverse = ctx.saved_tensors
        [gradient] = gradients
        return _multiplied(*_rounded(gradient, _WIDE), turned, inverse, gradient.dtype), None, None, None


def _rounded(tensor: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a tensor in float8, scaled so that its largest element is float8's, and what to multiply it with again."""
    most = torch.finfo(dtype).max
    largest = tensor.abs().max().float().clamp(min=1e-12)
    scaled = (tensor.float() * (most / largest)).clamp(-most, most)
    return scaled.to(dtype), largest / most


def _multiplied(rows: Tensor, inverse: Tensor, weight: Tensor, other: Tensor, dtype: torch.dtype) -> Tensor:
    """Return rows · weightᵀ of float8 factors and what to multiply each with, in `dtype`."""
    if not rows.is_cuda:
        return ((rows.float() @ weight.float().t()) * (inverse * other)).to(dtype)
    return torch._scaled_mm(
        rows, weight.t(), scale_a=inverse, scale_b=other, out_dtype=dtype, use_fast_accum=rows.dtype == _FINE
    )
