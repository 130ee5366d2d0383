"""The trainer ``dpo``: its pairs, its loss, its reference, and what its plan says of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.training.data.contamination import parts_of
from harness.training.options import Attention
from harness.training.session import LoopTrainer, Session, Training, shortened
from harness_dpo.data import Data, read_data
from harness_dpo.options import DPOOptions

if TYPE_CHECKING:
    from harness.training.parallel import Ranks


@dataclass(frozen=True)
class DPO(DPOOptions, LoopTrainer):
    """Tuning on pairs of responses of which one was preferred; its options are those of `DPOOptions`.

    A loss of one's own makes a trainer of one's own, in a plugin of one's own:

        @dataclass(frozen=True)
        class Mine(DPO):
            name: ClassVar[str] = "mine"
            losses: ClassVar[Mapping[str, PreferenceLoss]] = {"squared": SquaredLoss()}
            loss: str = "squared"
    """

    def prepare(self, session: Session) -> Training:
        """Return the pairs as rows, with what the plan says of them and the first one as text."""
        from harness_dpo.objective import Preference
        from harness_dpo.reference import open_reference, reference_model

        loss = self.preference
        model = reference_model(self, session) if loss.needs_reference else None
        data = read_data(self, session)
        objective = Preference(loss, data.sources)
        attention = _kernel(self)

        def opening(ranks: Ranks) -> None:
            if model is not None:
                options: Any = session.options  # with what was chosen for the GPU, so that both round alike
                objective.reference = open_reference(replace(options, attention=attention), model, data, ranks)

        identity = {"held_out": data.held_out} | ({"reference": model.digest} if model else {})
        return Training(
            data.training, objective, data.digest, data.validation, identity,
            facts=_facts(self, data), example=_pair_text(self, data, session.tokenizer),
            best="accuracy", highest=True, baseline=True,
            reference=model is not None and self.reference == "same", attention=attention, opening=opening,
            texts=lambda: parts_of(data.pairs),
        )  # fmt: skip


def _kernel(options: DPOOptions) -> Attention:
    """Return a kernel for shared prompts, where the options need one and leave the choice open."""
    from harness.training.model.network import weights_dtype
    from harness.training.parallel import device_of

    if not options.share_prompt or options.attention != "auto":
        return options.attention
    device = device_of(options.device)
    fast = device.type == "cuda" and weights_dtype(options, device).itemsize == 2
    return "varlen" if fast else "sdpa"


def _facts(options: DPOOptions, data: Data) -> dict[str, str]:
    rows, held_out = data.training, data.validation
    sources = ", ".join(f"{name} {number:,}" for name, number in zip(data.sources, data.pairs.counts, strict=True))
    firsts = data.pairs.firsts
    left_out = ", ".join(f"{why} {number:,} (first: {firsts[why]})" for why, number in data.pairs.left_out.items())
    unused = ", ".join(f"{name!r} ({number:,} rows)" for name, number in data.pairs.unused.items())
    reference = f"{options.reference_model or 'the same model'} ({options.reference})"
    chosen = ", ".join(f"{name} {value}" for name, value in asdict(options.preference).items())
    return {
        "loss": f"{options.loss} ({chosen})",
        "reference": reference if options.preference.needs_reference else "none",
        "data": f"{len(data.pairs):,} pairs: {sources}",
        "not used": unused or "nothing: every column is read",
        "left out": f"{left_out or 'none'}; longer than {options.sequence_length:,} tokens {data.dropped:,}",
        "training": f"{len(rows):,} pairs, {int(rows.tokens.sum()):,} tokens; "
        f"validation {0 if held_out is None else len(held_out):,} pairs",
    }


def _pair_text(options: DPOOptions, data: Data, tokenizer: Any) -> str:
    """Return the first pair of the first step as text."""
    rows = data.training
    index = rows.step(options.batch_size, options.seed, 0)[0]
    pair = int(rows.pairs[index])
    chosen, rejected = (data.documents.document(2 * pair + side).tolist() for side in (0, 1))
    prompts = data.documents.prompts[2 * pair : 2 * pair + 2].tolist()
    parts = {"prompt": chosen[: prompts[0]], "chosen": chosen[prompts[0] :], "rejected": rejected[prompts[1] :]}
    shown = {name: shortened(repr(tokenizer.decode(ids)), 600) for name, ids in parts.items()}
    return "\n".join(
        [f"first pair ({rows.describe(index)}):", *(f"  {name:<8} {text}" for name, text in shown.items())]
    )
