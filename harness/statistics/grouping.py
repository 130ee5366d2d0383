"""Whether groups are a sample of more such groups, or the whole: one choice, wherever a figure is made."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias, get_args

GroupsAre: TypeAlias = Literal["auto", "sample", "whole"]

#: What ``groups_are`` may be; the first is the default.
GROUPS_ARE: tuple[GroupsAre, ...] = get_args(GroupsAre)

#: From so many groups on ``auto`` takes them as a sample. Fewer cannot stand for a population of groups: MMLU's 57
#: subjects can, five harm areas are all that there are.
FEWEST_GROUPS = 10

#: With fewer drawn groups it is said that the quantile is Student's; it always is, and hardly differs with more.
FEW_GROUPS = 15


def groups_are_sampled(count: int, choice: GroupsAre) -> bool:
    """Whether `count` groups are taken as a sample; fewer than two never are."""
    return count > 1 and (choice == "sample" or (choice == "auto" and count >= FEWEST_GROUPS))


def said_of(method: str) -> str:
    """Return in words how an interval was made, given an estimate's ``method``.

    >>> said_of("clustered-score, 57 groups")
    'score method with the variance between 57 groups, taken as a sample of such groups'
    >>> said_of("clustered-score, 9 groups").partition(", ")[2]
    "taken as a sample of such groups, by Satterthwaite's t"
    >>> said_of("wilson"), said_of("something-else")
    ("Wilson's score method, examples independent", 'something-else')
    """
    whole = re.fullmatch(r"(clustered-)?(macro-)?(score|t)(?:, (\d+) groups)?", method)
    if whole is None:
        return _OTHERS.get(method, method)
    clustered, macro, kind, count = whole.groups()
    name = "score method" if kind == "score" else "Student's t"
    means = " of the groups' means" if macro else ""
    if clustered:
        few = ", by Satterthwaite's t" if int(count) < FEW_GROUPS else ""
        return f"{name}{means} with the variance between {count} groups, taken as a sample of such groups{few}"
    return f"{name}{means}, {'groups taken as the whole' if macro else 'examples independent'}"


_OTHERS = {
    "wilson": "Wilson's score method, examples independent",
    "prediction-powered": "the judge's mean plus what labels show it to miss",
    "newcombe": "Newcombe's score method for two independent shares",
    "posterior": "draws from the posterior of the table of labels",
    "refitting-bootstrap": "refits on resampled instructions",
}
