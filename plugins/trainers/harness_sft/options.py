"""The options of the trainer ``sft``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from harness.training.options import TrainingOptions


@dataclass(frozen=True)
class SFTOptions(TrainingOptions):
    """What supervised fine-tuning adds to the options of every training.

    Attributes:
        data: files of demonstrations: names, or tables of ``file``, ``weight`` (how often an epoch holds its texts, 1
            by default) and ``columns``. columns: the names of columns in files that name no others, where they are not
            the usual ones (see `harness.training.data.texts`).
        packing: ``documents`` lays whole documents side by side in rows, each seeing only itself; ``concat`` cuts one
            stream of all documents (shuffled unless shuffle is false) every sequence_length tokens, as CS336's
            assignment does.
        sequence_length: tokens a row. overlong: what becomes of documents longer than a row (``documents`` only).
        loss_on: ``responses``, with their end tokens, or ``all`` tokens.
        learn: of conversations, the ``last`` response or ``all`` of them.
        validation: files to validate on, given likewise; or validation_documents: how many documents of the data are
            held out for it.
    """

    name: ClassVar[str] = "sft"
    free: ClassVar[frozenset[str]] = TrainingOptions.free | {"validation", "learn"}  # the digest of the data says more

    packing: Literal["documents", "concat"] = "documents"
    shuffle: bool = True
    overlong: Literal["split", "drop"] = "split"
    loss_on: Literal["responses", "all"] = "responses"
    learn: Literal["last", "all"] = "last"
    validation: tuple[str | Mapping[str, Any], ...] = ()
    validation_documents: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation_documents < 0:
            raise ValueError(f"validation_documents must be 0 or more, not {self.validation_documents}")
