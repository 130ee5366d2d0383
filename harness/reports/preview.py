"""What will be sent to a model, as plain text: for a person to check before hours of GPU time are spent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from harness.calls import foreign
from harness.evaluation.plan import Plan
from harness.interfaces import Tokenizer
from harness.reports.samples import on_one_line, printable
from harness.reports.tables import table
from harness.respondent import Respondent
from harness.types import Continuation

_BORDER = 8


def describe(plan: Plan) -> str:
    """Return what a run would do, a fact a line."""
    generation, respondent = plan.generation, plan.respondent
    sampling = "greedy" if generation.temperature == 0 else f"temperature {generation.temperature:g}"
    several = f", {plan.options.samples} samples an example" if plan.options.samples > 1 else ""
    facts = [
        ["benchmark", f"{plan.benchmark.title} ({len(plan.selection):,} of {len(plan.examples):,} examples)"],
        ["model", plan.options.model],
        ["engine", f"{respondent.engine.name} ({respondent.engine_reason})"],
        *(["faster", advice] for advice in _advice(plan)),
        ["prompt format", f"{respondent.format.name} ({respondent.choice.reason})"],
        *([name, value] for name, value in _said(respondent)),
        [
            "generation",
            f"{sampling}, top-p {generation.top_p:g}, at most {generation.max_tokens:,} new tokens{several}"
            if plan.generates
            else "none: it is read how likely each option is",
        ],
        ["stop strings", ", ".join(repr(stop) for stop in generation.stop) or "none"],
        ["parsers", ", ".join(parser.name for parser in plan.parsers) or "none"],
        ["scorer", plan.scorer.name],
        ["data", _files(plan)],
        ["fingerprint", plan.fingerprint[:8]],
    ]
    return table(["", ""], facts).lstrip("\n")


def _advice(plan: Plan) -> Iterator[str]:
    """Yield what the engine says of another one, with which texts would be generated faster here."""
    advice = getattr(plan.respondent.engine, "advice", None)
    if not plan.generates or advice is None:
        return
    with foreign(plan.respondent.engine):
        said = advice()
    if said:
        yield said


def _said(respondent: Respondent) -> Iterator[tuple[str, str]]:
    """Yield what the user, or the checkpoint's card, says about prompts."""
    options = respondent.format.options
    if options.system:
        yield "system", on_one_line(options.system)
    if options.template:
        yield "template", on_one_line(options.template)
    if options.arguments:
        yield "chat_template", on_one_line(json.dumps(options.arguments, ensure_ascii=False))


def _files(plan: Plan) -> str:
    named = [f"{file.name} (sha256 {file.sha256[:12]}…)" for file in plan.data]
    return ", ".join(named) if len(named) <= _BORDER else f"{len(named)} files, {named[0]} to {named[-1]}"


def preview(plan: Plan, index: int) -> str:
    """Return the prompt of one example as it will be sent, with its first and last token ids."""
    example, request = plan.request(index)
    parts = [
        describe(plan),
        f"\nexample {on_one_line(example.id)}" + (f" ({on_one_line(example.group)})" if example.group else ""),
        f"gold: {on_one_line(example.gold)}" if example.gold is not None else "no gold answer",
        "\nprompt, between the lines:",
        "─" * 40,
        printable(request.prompt.text),
        "─" * 40,
    ]
    tokenizer = plan.respondent.tokenizer
    if request.prompt.token_ids is None or tokenizer is None:
        parts.append("token ids: none (the engine takes text)")
    else:
        parts.append(_tokens(request.prompt.token_ids, tokenizer))
        parts += [_option(each, tokenizer) for each in request.continuations]
    return "\n".join(parts)


def _option(asked: Continuation, tokenizer: Tokenizer) -> str:
    """Return what the log-likelihood of an option is asked of, and the end of what it is asked behind."""
    given, behind = (
        tokenizer.decode(list(ids)) for ids in (asked.token_ids[: asked.start], asked.token_ids[asked.start :])
    )
    ids = ", ".join(map(str, asked.token_ids[asked.start :]))
    return f"option {on_one_line(asked.answer)}: {behind!r} ({ids}) behind …{given[-40:]!r}"


def _tokens(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the ids at both ends with their texts: where a doubled BOS or a lost newline shows."""
    shown = [*range(min(_BORDER, len(ids))), *range(max(_BORDER, len(ids) - _BORDER), len(ids))]
    lines = [f"{len(ids)} token ids; the first and the last:"]
    for position in shown:
        if position and position - 1 not in shown:
            lines.append("     ⋮")
        lines.append(f"  {position:>5}  {ids[position]:>7}  {tokenizer.decode([ids[position]])!r}")
    return "\n".join(lines)
