"""The options of the engine `ray`, apart from it, for those who carry them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class RayOptions:
    """What `harness.engines.ray.engine.RayEngine` says of them."""

    engine: str = "auto"
    replicas: int | Literal["auto"] = "auto"
    address: str = ""
    gpus: float | None = None
    cpus: float = 1.0
    timeout: float = 1800.0
    start_timeout: float = 300.0
    runtime_env: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.replicas, int) and self.replicas < 1:
            raise ValueError(f"replicas must be at least 1, or auto, not {self.replicas}")
        if self.gpus is not None and (self.gpus < 0 or (self.gpus > 1 and self.gpus % 1)):
            raise ValueError(f"gpus must be a part of one GPU or a whole number of them, not {self.gpus}")
        if self.cpus <= 0:
            raise ValueError(f"cpus must be more than 0, not {self.cpus}")
        for name in ("timeout", "start_timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0 seconds, not {getattr(self, name)}")
