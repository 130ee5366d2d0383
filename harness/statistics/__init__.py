"""Estimates with honest uncertainty, each with one inference: the interval and the test that belong together.

Every function takes plain sequences or arrays and gives an `Estimate` in the unit of what it was given (proportions in
0..1), with a 95% interval. Where values lie in a known range, the interval stays inside it and keeps a width whatever
the data; a p-value is below 0.05 exactly where the interval beside it leaves no difference out. Where the data cannot
say how uncertain a figure is (no value, one group), standard error and interval are NaN, never zero; the interval of a
proportion over nothing is [0, 1]. NaN and infinite values are refused with ValueError: whoever calls decides what a
missing score means.

Each function says what it assumes. How each was checked, with the coverage of every interval, stands in
docs/statistics.md; perf/coverage.py makes those figures. Nothing here draws on global random state. numpy and scipy are
imported by the functions that need them; shares need neither.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.statistics.agreement import cohen_kappa
    from harness.statistics.corrected import corrected_mean
    from harness.statistics.grouping import FEWEST_GROUPS, GROUPS_ARE, GroupsAre, groups_are_sampled, said_of
    from harness.statistics.means import clustered_mean, macro_mean, mean
    from harness.statistics.multiple import holm
    from harness.statistics.paired import PairedDifference, paired_difference
    from harness.statistics.power import plan_samples, plan_size, smallest_detectable, variance_shown
    from harness.statistics.proportions import proportion, share_difference
    from harness.statistics.samples import Variance, maj_at_k, pass_at_k, pass_hat_k, variance_components

__all__ = [
    "FEWEST_GROUPS",
    "GROUPS_ARE",
    "GroupsAre",
    "PairedDifference",
    "Variance",
    "clustered_mean",
    "cohen_kappa",
    "corrected_mean",
    "groups_are_sampled",
    "holm",
    "macro_mean",
    "maj_at_k",
    "mean",
    "paired_difference",
    "pass_at_k",
    "pass_hat_k",
    "plan_samples",
    "plan_size",
    "proportion",
    "said_of",
    "share_difference",
    "smallest_detectable",
    "variance_components",
    "variance_shown",
]

#: The module that defines each, imported when the name is first used: whoever lists runs needs none of them.
_PLACES = {
    "agreement": ("cohen_kappa",),
    "corrected": ("corrected_mean",),
    "grouping": ("FEWEST_GROUPS", "GROUPS_ARE", "GroupsAre", "groups_are_sampled", "said_of"),
    "means": ("clustered_mean", "macro_mean", "mean"),
    "multiple": ("holm",),
    "paired": ("PairedDifference", "paired_difference"),
    "power": ("plan_samples", "plan_size", "smallest_detectable", "variance_shown"),
    "proportions": ("proportion", "share_difference"),
    "samples": ("Variance", "maj_at_k", "pass_at_k", "pass_hat_k", "variance_components"),
}


if not TYPE_CHECKING:  # a type checker would take any name for one that is there

    def __getattr__(name: str) -> Any:
        place = next((place for place, names in _PLACES.items() if name in names), None)
        if place is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f"{__name__}.{place}"), name)
        return value
