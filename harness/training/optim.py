"""AdamW and RMSprop that lose no update: bf16 weights with exact fp32 masters, and a step without a host sync.

bf16 keeps 8 significant bits, so that at a learning rate of 1e-6 most updates of a plain bf16 weight round away. Here a
bf16 weight and a 16-bit residual together are the bits of its fp32 master: ``master = (weight << 16) + residual``, with
the weight the master rounded to nearest, halves up. Two bytes a parameter instead of four for the same master. Weights
of any other dtype are updated as they are.

AdamW's moments are bf16 beside bf16 weights, written with stochastic rounding (arXiv:2010.06192): rounding to nearest
would hold the second moment still once an update is below 1/256 of it. The random bits are a hash of position and step,
so a resumed run repeats them with no generator to restore. RMSprop's one moment is fp32.

Each parameter's update is one elementwise function; on a GPU those of all parameters are one launch
(`harness.training.fused`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from harness.training.offload import offloaded, on_host
from harness.training.parallel import local, sent

Moments = Literal["auto", "bfloat16", "float32"]

_GOLDEN, _MIX = -1640531527, -2048144789  # 0x9E3779B1 and 0x85EBCA6B as int32 (MurmurHash3's finaliser uses the latter)


class Optimizer:
    """What AdamW and RMSprop share: named parameters, their state, and the step.

    `state` maps ``parameter/kind`` to a tensor shaped, and under FSDP sharded, like the parameter. A share of it,
    `offload`, lies in the host's memory, where the GPU reads and writes it in place while it works on the rest. `steps`
    counts the steps taken. Weight decay (decoupled, as in arXiv:1711.05101) reaches parameters of two or more
    dimensions only: not biases and norms.
    """

    kinds: tuple[str, ...] = ()

    def __init__(
        self, named: Iterable[tuple[str, Tensor]], weight_decay: float, moments: Moments, offload: float = 0.0
    ) -> None:
        self.parameters = {name: parameter for name, parameter in named if parameter.requires_grad}
        if not self.parameters:
            raise ValueError("no parameter asks for gradients")
        self.steps = 0
        self.state: dict[str, Tensor] = {}
        self._weight_decay = weight_decay
        self._fused: dict[torch.dtype, Any] = {}
        shapes: dict[str, tuple[Tensor, torch.dtype]] = {}
        for name, parameter in self.parameters.items():
            if parameter.dtype == torch.bfloat16:
                shapes[f"{name}/residual"] = parameter, torch.int16
            for kind in self.kinds:
                shapes[f"{name}/{kind}"] = parameter, self._dtype(parameter, moments)
        sizes = {name: local(parameter).numel() * dtype.itemsize for name, (parameter, dtype) in shapes.items()}
        away = offloaded(sizes, offload)
        for name, (parameter, dtype) in shapes.items():
            self.state[name] = (on_host if name in away else _like)(parameter, dtype)

    def _dtype(self, parameter: Tensor, moments: Moments) -> torch.dtype:
        if moments == "auto":
            return torch.float32
        return torch.bfloat16 if moments == "bfloat16" else torch.float32

    def _constants(self) -> list[float]:
        """Return the numbers that `_update` takes behind learning rate, decay and gradient scale."""
        raise NotImplementedError

    _update: Callable[..., None]

    @torch.no_grad()
    def step(self, learning_rate: float, scale: Tensor | float = 1.0, proceed: Tensor | bool = True) -> None:
        """Update every parameter that has a gradient from `scale` · its gradient.

        `scale` and `proceed` may be tensors of one element on the parameters' device: where `proceed` is false nothing
        changes but `steps`, and the host need not know.
        """
        self.steps += 1
        device = next(iter(self.parameters.values())).device
        numbers = sent([learning_rate, self._weight_decay, *self._constants()], torch.float32, device)
        seeds = sent([_seed(self.steps, index) for index in range(len(self.parameters))], torch.int32, device)
        if not isinstance(scale, Tensor):
            scale = torch.full((), scale, device=device)
        if not isinstance(proceed, Tensor):
            proceed = torch.full((), proceed, device=device)
        if device.type == "cuda":
            self._step_at_once(numbers, scale, proceed, seeds)
            return
        for index, (name, parameter) in enumerate(self.parameters.items()):
            if parameter.grad is None:
                continue
            residual = self.state.get(f"{name}/residual")
            tensors = [parameter.detach(), parameter.grad, *(self.state[f"{name}/{kind}"] for kind in self.kinds)]
            self._update(
                None if residual is None else local(residual), *map(local, tensors),
                numbers, scale, proceed, seeds[index], parameter.ndim > 1,
            )  # fmt: skip

    def _step_at_once(self, numbers: Tensor, scale: Tensor, proceed: Tensor, seeds: Tensor) -> None:
        """Update all parameters of one dtype in one launch."""
        from harness.training.fused import Fused

        groups: dict[torch.dtype, list[tuple[int, str]]] = {}
        for index, (name, parameter) in enumerate(self.parameters.items()):
            groups.setdefault(parameter.dtype, []).append((index, name))
        for dtype, members in groups.items():
            own = [self.parameters[name] for _, name in members]
            weights = [local(parameter.detach()) for parameter in own]
            if dtype not in self._fused:
                states = [
                    [local(self.state[f"{name}/{kind}"]) for _, name in members]
                    for kind in (("residual",) if dtype == torch.bfloat16 else ()) + self.kinds
                ]
                residuals = states.pop(0) if dtype == torch.bfloat16 else None
                self._fused[dtype] = Fused(weights, residuals, states)
            gradients = [None if parameter.grad is None else local(parameter.grad) for parameter in own]
            drawn = seeds if len(groups) == 1 else seeds[[index for index, _ in members]]
            self._fused[dtype](weights, gradients, numbers, scale, proceed, drawn)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def masters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's name and its fp32 value: the exact master of a bf16 parameter."""
        for name, parameter in self.parameters.items():
            residual = self.state.get(f"{name}/residual")
            value = parameter.detach()
            yield name, value.float() if residual is None else joined(value, residual.to(value.device))

    def load(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Take over the `state` of an optimizer of the same parameters; raise KeyError for one of others."""
        if state.keys() != self.state.keys():
            raise KeyError(f"state of other parameters: {sorted(state.keys() ^ self.state.keys())[:3]}")
        for name, tensor in self.state.items():
            tensor.copy_(state[name])
        self.steps = steps


class AdamW(Optimizer):
    """Adam with decoupled weight decay (arXiv:1711.05101), bias-corrected as in the paper.

    `named` gives names and parameters. `moments` is the dtype of both moments: ``auto`` follows the parameter.
    `offload` is the share of the state that the host keeps.
    """

    kinds = ("mean", "square")

    def __init__(
        self,
        named: Iterable[tuple[str, Tensor]],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        moments: Moments = "auto",
        offload: float = 0.0,
    ) -> None:
        super().__init__(named, weight_decay, moments, offload)
        self._betas, self._eps = betas, eps

    def _dtype(self, parameter: Tensor, moments: Moments) -> torch.dtype:
        return parameter.dtype if moments == "auto" else super()._dtype(parameter, moments)

    def _constants(self) -> list[float]:
        first, second = self._betas
        return [first, second, self._eps, 1 - first**self.steps, math.sqrt(1 - second**self.steps)]

    @staticmethod
    def _update(
        residual: Tensor | None, weight: Tensor, grad: Tensor, mean: Tensor, square: Tensor,
        numbers: Tensor, scale: Tensor, proceed: Tensor, seed: Tensor, decays: bool,
    ) -> None:  # fmt: skip
        rate, decay, first, second, eps, correction, root = numbers.unbind()
        slope = grad.float() * scale
        new_mean = torch.lerp(slope, mean.float(), first)
        new_square = torch.lerp(slope * slope, square.float(), second)
        change = new_mean / correction / (new_square.sqrt() / root + eps)
        _write(weight, residual, change, rate, decay if decays else None, proceed)
        noise = _hash(weight, seed) if mean.dtype == torch.bfloat16 else None
        _store(mean, new_mean, noise, proceed)
        _store(square, new_square, None if noise is None else noise >> 16, proceed)


class RMSprop(Optimizer):
    """RMSprop without momentum (Tieleman and Hinton 2012), as torch computes it: eps stands outside the root."""

    kinds = ("square",)

    def __init__(
        self,
        named: Iterable[tuple[str, Tensor]],
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        moments: Moments = "auto",
        offload: float = 0.0,
    ) -> None:
        super().__init__(named, weight_decay, moments, offload)
        self._alpha, self._eps = alpha, eps

    def _constants(self) -> list[float]:
        return [self._alpha, self._eps]

    @staticmethod
    def _update(
        residual: Tensor | None, weight: Tensor, grad: Tensor, square: Tensor,
        numbers: Tensor, scale: Tensor, proceed: Tensor, seed: Tensor, decays: bool,
    ) -> None:  # fmt: skip
        rate, decay, alpha, eps = numbers.unbind()
        slope = grad.float() * scale
        new_square = torch.lerp(slope * slope, square.float(), alpha)
        _write(weight, residual, slope / (new_square.sqrt() + eps), rate, decay if decays else None, proceed)
        noise = _hash(weight, seed) if square.dtype == torch.bfloat16 else None
        _store(square, new_square, noise, proceed)


def joined(weight: Tensor, residual: Tensor) -> Tensor:
    """Return the fp32 masters of bf16 weights and their int16 residuals, both of one shape."""
    high = weight.view(torch.int16).to(torch.int32) << 16
    return (high + residual.to(torch.int32)).view(torch.float32)


def split(master: Tensor) -> tuple[Tensor, Tensor]:
    """Return bf16 weights, `master` rounded to nearest (halves away from zero), and their int16 residuals."""
    bits = master.view(torch.int32)
    high = (bits + 0x8000) >> 16
    return high.to(torch.int16).view(torch.bfloat16), (bits - (high << 16)).to(torch.int16)


def _write(
    weight: Tensor, residual: Tensor | None, change: Tensor, rate: Tensor, decay: Tensor | None, proceed: Tensor
) -> None:
    """Move the weights by -rate · change, and decay them first."""
    old = weight.float() if residual is None else joined(weight, residual)
    kept = old if decay is None else old * (1 - rate * decay)
    new = torch.where(proceed, kept - rate * change, old)
    if residual is None:
        weight.copy_(new)
        return
    high, low = split(new)
    weight.copy_(high)
    residual.copy_(low)


def _store(moment: Tensor, new: Tensor, noise: Tensor | None, proceed: Tensor) -> None:
    """Write a moment, rounded stochastically by the low 16 bits of `noise` where it is bf16."""
    if noise is not None:
        new = ((new.view(torch.int32) + (noise & 0xFFFF)) >> 16).to(torch.int16).view(torch.bfloat16)
    moment.copy_(torch.where(proceed, new, moment))


def _hash(weight: Tensor, seed: Tensor) -> Tensor:
    """Return 32 well-mixed bits for each element: a function of its position and `seed`."""
    mixed = torch.arange(weight.numel(), dtype=torch.int32, device=weight.device).view(weight.shape) * _GOLDEN + seed
    mixed = (mixed ^ ((mixed >> 16) & 0xFFFF)) * _MIX  # the masks make the shifts logical
    mixed = (mixed ^ ((mixed >> 13) & 0x7FFFF)) * _GOLDEN
    return mixed ^ ((mixed >> 16) & 0xFFFF)


def _seed(step: int, index: int) -> int:
    """Return an int32 that differs from step to step and from parameter to parameter."""
    mixed = (step * 0x9E3779B1 + index * 0x85EBCA6B) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    return (mixed ^ (mixed >> 12)) - (1 << 31)


def _like(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(parameter, dtype=dtype, requires_grad=False, memory_format=torch.contiguous_format)
