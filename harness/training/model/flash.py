"""Which flash kernels attend in long packed rows: torch's own, or others that are installed here and faster.

torch runs FlashAttention 3 and 4 in the place of its own kernels where it is told to; they use what Hopper and newer
GPUs have. Each is given a microbatch of the training, forward and backward. It is taken where it is faster than torch's
own and gives the same but for rounding.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.errors import first_line
from harness.models import find_model
from harness.training.model.attention import VARLEN, implementation, varlen_kernel
from harness.training.model.memory import Shape

if TYPE_CHECKING:
    from harness.training.batch import TrainingRows
    from harness.training.options import TrainingOptions
    from harness.training.parallel import Ranks

#: The shortest rows for which attention is worth the seconds that it takes to try others.
LONG = 4096
#: How far results may be from those of torch's own kernels, relative to their length: both round to bf16.
_APART = 0.01
#: How often each is run beforehand, and then timed.
_WARM, _TIMES = 3, 5

#: Attends, causally and within documents: (queries, keys, values, borders, the longest document) → output.
Attend = Callable[..., Tensor]


@dataclass(frozen=True)
class FlashChoice:
    """The kernels that were chosen, None for torch's own, and a line for each that was tried."""

    name: str | None
    said: tuple[str, ...]


def settle_flash(
    options: TrainingOptions, model: str, rows: TrainingRows, dtype: torch.dtype, packed: bool, ranks: Ranks
) -> str | None:
    """Return the name of the fastest kernels for a training's rows, None for torch's own.

    It is for long rows of several documents on a GPU, where the options leave attention open and results need not
    repeat to the bit. All ranks take what the first one chooses, and torch's own where one of them cannot use that.
    """
    if options.attention != "auto" or options.deterministic or options.sequence_length < LONG:
        return None
    if implementation(options.attention, ranks.device, dtype, packed) != VARLEN:
        return None
    first = rows.step(options.batch_size, options.seed, 0)
    part = next(iter(rows.microbatches(first, options.microbatch_size, ranks.rank, ranks.world)))
    batch = rows.batch(part, options.microbatch_size).to(ranks.device)
    if batch.borders is None or batch.keys is not None:
        return None
    config = find_model(model).transformers_config.get_text_config()
    shape, heads = Shape.of(config), int(config.num_attention_heads)
    size = shape.attended // heads
    counts = heads, *[shape.key_values // size] * 2
    generator = torch.Generator(ranks.device).manual_seed(0)
    inputs = [_random((batch.input_ids.numel(), count, size), generator).requires_grad_() for count in counts]
    kernel, scale = varlen_kernel(), size**-0.5

    def attend(query: Tensor, key: Tensor, value: Tensor, borders: Tensor, longest: int) -> Tensor:
        return kernel(query, key, value, borders, borders, longest, longest, window_size=(-1, 0), scale=scale)

    choice = choose_flash(attend, inputs, batch.borders, batch.longest)
    name: str | None = ranks.gathered(choice.name)[0]
    lacking = ranks.any(not _usable(name))
    if ranks.main and len(choice.said) > 1:
        taken = f"torch's own, as another rank cannot use {name}" if lacking else name or "torch's own"
        print(f"attention: {'; '.join(choice.said)}: taking {taken}", file=sys.stderr, flush=True)
    return None if lacking else name


def choose_flash(attend: Attend, inputs: Sequence[Tensor], borders: Tensor, longest: int) -> FlashChoice:
    """Try all kernels that torch knows and that are installed, and return the fastest; in use are those from before.

    `inputs` are queries, keys and values, [tokens, heads, size], which ask for gradients.
    """
    from torch.nn import attention

    towards = _random(inputs[0].shape, torch.Generator(inputs[0].device).manual_seed(1))

    def run() -> tuple[Tensor, ...]:
        output = attend(*inputs, borders, longest)
        return (output.detach(), *torch.autograd.grad(output, inputs, towards))

    with flash_kernels(None):
        exact, least = run(), _seconds(run)
    chosen, said = None, [f"torch's own {1000 * least:.2f} ms a layer"]
    for name in attention.list_flash_attention_impls():
        try:
            with flash_kernels(name):
                apart = _apart(run(), exact)
                seconds = _seconds(run)
        except ImportError:
            continue  # not installed
        except Exception as error:  # whatever kernels of another version raise
            said.append(f"{name} is installed and cannot be used ({first_line(error)})")
            continue
        said.append(f"{name} {1000 * seconds:.2f} ms")
        if not apart <= _APART:
            said[-1] += f", but its results are {apart:.1%} away"
        elif seconds < least:
            chosen, least = name, seconds
    return FlashChoice(chosen, tuple(said))


@contextmanager
def flash_kernels(name: str | None) -> Iterator[str | None]:
    """Let torch attend by the kernels of this name in here, None for its own, and behind it as it did before.

    Raises ImportError where they are not installed.
    """
    before = flash_in_use()
    try:
        use_flash(name)
        yield name
    finally:
        use_flash(before)


def use_flash(name: str | None) -> None:
    """Let torch attend by the kernels of this name, None for its own; raise ImportError where they are not there."""
    from torch.nn import attention

    if flash_in_use() is not None:
        attention.restore_flash_attention_impl()
    if name is not None:
        attention.activate_flash_attention_impl(name)


def flash_in_use() -> str | None:
    """Return the name of the kernels by which torch attends, None for its own."""
    from torch.nn import attention

    return attention.current_flash_attention_impl()


def _usable(name: str | None) -> bool:
    """Whether torch can attend by the kernels of this name in this process."""
    try:
        with flash_kernels(name):
            return True
    except Exception:  # whatever kernels of another version raise
        return False


def _random(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return the next bf16 numbers of a generator, on its device."""
    return torch.randn(shape, dtype=torch.bfloat16, device=generator.device, generator=generator)


def _apart(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Return how far tensors are from others, relative to the others' length: the largest of all, or NaN."""
    pairs = [(one.float(), other.float()) for one, other in zip(found, exact, strict=True)]
    return float(torch.stack([(one - other).norm() / other.norm() for one, other in pairs]).max())


def _seconds(run: Callable[[], object]) -> float:
    for _ in range(_WARM):
        run()
    _finish()
    began = time.perf_counter()
    for _ in range(_TIMES):
        run()
    _finish()
    return (time.perf_counter() - began) / _TIMES


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
