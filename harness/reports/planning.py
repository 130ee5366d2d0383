"""How many examples a comparison needs, in words."""

from __future__ import annotations

from harness.comparing.planning import Plan


def planning_text(plan: Plan) -> str:
    """Return what a plan comes to, a line each, the assumption last."""
    assumption = plan.assumption
    target = f"a true difference of {plan.detect:g} points with {plan.power:g}% power"
    lines = [f"{plan.needed:,} examples, paired, show {target}"]
    if assumption.samples > 1:
        lines.append(f"{plan.needed_sampled:,} examples with {assumption.samples} samples of each do")
    if assumption.examples and plan.shown is not None:
        lines.append(f"{assumption.benchmark} has {assumption.examples:,}, which show {plan.shown:.2g} points")
        if assumption.examples < plan.needed and plan.within:
            lines.append(_samples(plan))
    lines.append(f"assumed: {assumption.said}")
    return "\n".join(lines)


def _samples(plan: Plan) -> str:
    if plan.samples is None:
        return "no number of samples an example is enough: too much varies between examples"
    return f"{plan.samples:,} samples of each would do, as {plan.within:.3g}% of the variance is within examples"
