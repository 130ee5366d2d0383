"""A model's weights as a Hugging Face folder, from one process or from the shards of many."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.errors import RunError
from harness.training.model.adapters import Weight, ordinary

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.parallel import Ranks

#: Copies a tensor, under a name that is its own, to where training does not change it.
Keep: TypeAlias = Callable[[str, "Tensor"], "Tensor"]

_FILE_BYTES = 4 << 30


class Weights:
    """The weights of a model, to be written to a folder together with its configuration.

    Where `shapes` are given (`saved_shapes` of a model before it had an adapter), what was written must have these.
    With `keep` they are those of now, copied, and `write` may run beside the training; without, they are gathered while
    they are written, and all ranks must write together. Of many ranks each writes files of its own. A tensor is
    gathered for the one that writes it and dropped by the others, so that no rank ever holds more than its copies, or
    a file's worth, beside its shards.
    """

    def __init__(self, lm: Any, shapes: Mapping[str, tuple[int, ...]], ranks: Ranks, keep: Keep | None) -> None:
        self._ranks = ranks
        self._files = _files(_tensors(lm))
        self._configs = _configs(lm)
        self._shapes = shapes
        self._kept = keep and [self._gathered(number, keep) for number in range(len(self._files))]

    def _gathered(self, number: int, keep: Keep) -> dict[str, Tensor]:
        own, found = number % self._ranks.world == self._ranks.rank, {}
        for key, weight in self._files[number].items():
            tensor = weight.whole()
            if own:
                found[key] = keep(key, tensor)
        return found

    def write(self, folder: Path) -> None:
        """Write weights (safetensors), config.json and generation_config.json.

        Raises OSError, or SafetensorError, when that fails.
        """
        from safetensors.torch import save_file

        names = [
            f"model-{number:05d}-of-{len(self._files):05d}.safetensors" for number in range(1, len(self._files) + 1)
        ]
        if len(names) == 1:
            names = ["model.safetensors"]
        problem: Exception | None = None
        for number, name in enumerate(names):
            tensors = self._kept[number] if self._kept else self._gathered(number, _contiguous)
            try:
                if tensors and problem is None:
                    save_file(tensors, folder / name, metadata={"format": "pt"})
            except Exception as error:
                problem = error  # the other ranks gather what is still to come, and would wait for this one
        if problem is not None:
            raise problem
        if not self._ranks.main:
            return
        _check_shapes(folder, self._shapes)
        for name, text in self._configs.items():
            (folder / name).write_text(text, encoding="utf-8")
        if len(names) > 1:
            size = sum(weight.size for file in self._files for weight in file.values())
            where = {key: name for name, file in zip(names, self._files, strict=True) for key in file}
            index = {"metadata": {"total_size": size}, "weight_map": where}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def saved_shapes(lm: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of an ordinary model's files by their names."""
    return {name: weight.shape for name, weight in _tensors(lm).items()}


def _check_shapes(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise RunError where the weights in a folder are not those of the model before it had an adapter."""
    from safetensors import safe_open

    if not expected:
        return
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if found != expected:
        wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise RunError(
            f"{folder}: merging the adapter made another model ({wrong[0]} and {len(wrong) - 1} others differ in name "
            "or shape); the checkpoint is not kept"
        )


def _contiguous(name: str, tensor: Tensor) -> Tensor:
    return tensor.contiguous()


def _tensors(lm: Any) -> Mapping[str, Weight]:
    """Return the tensors of an ordinary model's files, of tied ones the first."""
    found: dict[str, Weight] = {}
    seen = set()
    for key, weight in ordinary(lm).items():
        if id(weight.tensor) not in seen:
            seen.add(id(weight.tensor))
            found[key] = weight
    if not getattr(lm, "_weight_conversions", None):
        return found
    # Mixtures of experts compute with all experts in one tensor and are saved one by one.
    from transformers.core_model_loading import revert_weight_conversion

    apart = revert_weight_conversion(lm, {key: weight.whole() for key, weight in found.items()})
    return {key: Weight(tensor) for key, tensor in apart.items()}


def _files(tensors: Mapping[str, Weight]) -> list[dict[str, Weight]]:
    """Return the tensors of one file after the other."""
    files: list[dict[str, Weight]] = [{}]
    size = 0
    for key, weight in tensors.items():
        if files[-1] and size + weight.size > _FILE_BYTES:
            files.append({})
            size = 0
        files[-1][key] = weight
        size += weight.size
    return files


def _configs(lm: Any) -> dict[str, str]:
    """Return the texts of a model's configuration files by name."""
    config = lm.config
    config.architectures, config.dtype = [type(lm).__name__], str(lm.dtype).removeprefix("torch.")
    found = {"config.json": config.to_json_string()}
    if lm.can_generate():
        found["generation_config.json"] = lm.generation_config.to_json_string()
    return found
