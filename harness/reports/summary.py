"""The closing table of a run, as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.reports.samples import on_one_line, printable
from harness.reports.tables import table

#: Shares of unparsed, truncated and failed samples above which the table warns.
WARN_ABOVE = 0.02


#: More groups than this are left to results.json unless they are asked for.
MOST_GROUPS = 10


def summary(
    title: str, results: Mapping[str, Any], timing: Mapping[str, Any], folder: str, *, groups: bool = False
) -> str:
    """Return metrics with intervals, what went wrong, throughput and the run's folder, made `printable`.

    Categories are always shown, groups where there are few or `groups` asks for them.
    """
    n = results["n"]
    lines = [on_one_line(title)]
    if results["metrics"]:
        lines.append(_indent(_metrics(results)))
    elif "judges" in results:
        lines.append(f"  not judged yet: harness judge {folder} --judge MODEL")
    lines += [f"  {line}" for judge, said in results.get("judges", {}).items() for line in _judge(judge, said)]
    if results["categories"]:
        lines.append(_indent(_breakdown("category", results["categories"])))
    if results["groups"] and (groups or len(results["groups"]) <= MOST_GROUPS):
        lines.append(_indent(_breakdown("group", results["groups"])))
    counts = {kind: results[kind]["count"] for kind in ("truncated", "failed")}
    facts = [f"{kind} {count_of(count, n)}" for kind, count in counts.items()]
    if timing.get("sessions"):
        facts += [
            f"{number(timing['examples_per_second'])} examples/s",
            f"{number(timing['completion_tokens_per_second'])} tokens/s",
            f"load {timing['load_seconds']:.1f} s",
            f"generation {timing['generation_seconds']:.1f} s",
        ]
    lines.append(f"  {' · '.join(facts)}")
    lines += [f"  warning: {warning}" for warning in warnings(results)]
    lines.append(f"  {folder}")
    return printable("\n".join(lines))


def warnings(results: Mapping[str, Any]) -> Sequence[str]:
    """Return what makes the figures doubtful: shares above 2% of samples unparsed, truncated, failed or unreadable."""
    n = results["n"]
    said = {"truncated": "were cut off before they ended", "failed": "failed and are left out of the figures"}
    found = [
        f"{count_of(results[kind]['count'], n)} outputs {what}"
        for kind, what in said.items()
        if n and results[kind]["count"] / n > WARN_ABOVE
    ]
    headline = next(iter(results["unparsed"].items()), None)
    if headline and n and headline[1]["count"] / n > WARN_ABOVE:
        found.append(f"{count_of(headline[1]['count'], n)} outputs have no answer that {headline[0]} can read")
    for judge, said in results.get("judges", {}).items():
        asked = said["n"] + said["failed"]["count"]
        if said["n"] and said["unreadable"]["count"] / said["n"] > WARN_ABOVE:
            found.append(f"{judge}: {count_of(said['unreadable']['count'], said['n'])} judgements cannot be read")
        if said["failed"]["count"]:
            found.append(f"{judge}: {count_of(said['failed']['count'], asked)} judgements failed and are left out")
        found += [f"{judge}: {warning}" for warning in said["warnings"]]
    return found


def count_of(count: int, n: int) -> str:
    """Return a count with its share of n: ``14 (1.1%)``.

    >>> count_of(14, 1319), count_of(0, 5)
    ('14 (1.1%)', '0')
    """
    return f"{count:,} ({100 * count / n:.1f}%)" if count and n else f"{count:,}"


def percent(value: float | None) -> str:
    """Return a proportion as a percentage, or a dash where it is not known."""
    return "–" if value is None else f"{100 * value:.1f}%"


def _metrics(results: Mapping[str, Any]) -> str:
    rows = [
        [
            parser,
            metric,
            percent(figures["value"]),
            f"[{percent(figures['low'])}, {percent(figures['high'])}]",
            f"{figures['n']:,}",
            _unread(results, parser),
        ]
        for parser, metrics in results["metrics"].items()
        for metric, figures in metrics.items()
    ]
    reader, unread = ("judge", "unreadable") if "judges" in results else ("parser", "unparsed")
    return table([reader, "metric", "value", "95% interval", "n", unread], rows)


def _unread(results: Mapping[str, Any], name: str) -> str:
    """Return how many answers the parser, or judgements the judge, called `name` has left unread."""
    judge = results.get("judges", {}).get(name)
    if judge is not None:
        return count_of(judge["unreadable"]["count"], judge["n"])
    return count_of(results["unparsed"].get(name, {"count": 0})["count"], results["n"])


def _judge(name: str, said: Mapping[str, Any]) -> Sequence[str]:
    """Return a judge's verdicts, what its unreadable replies could change, and how it was asked."""
    counts = {**said["verdicts"], "unreadable": said["unreadable"]["count"]}
    lines = [f"{name}: {' · '.join(f'{verdict} {count:,}' for verdict, count in counts.items())}"]
    if said["unreadable"]["count"]:
        for metric, (low, high) in said["bounds"].items():
            lines.append(f"  {metric} lies in [{percent(low)}, {percent(high)}], whatever the unreadable ones mean")
    if said.get("mean_length") is not None:
        lines.append(
            f"  mean length {said['mean_length']:,.0f} characters, the reference's {said['mean_reference_length']:,.0f}"
        )
    options = " · ".join(f"{key} {said['options'][key]}" for key in ("prompt", "orders") if key in said["options"])
    lines.append(f"  {said['engine']} · {said['prompt_format']['name']} · {options}")
    return lines


def _breakdown(kind: str, labels: Mapping[str, Any]) -> str:
    """Return the headline metric of each group or category."""
    parser, metrics = next(iter(next(iter(labels.values())).items()))
    metric = next(iter(metrics))
    rows = []
    for label, by_parser in labels.items():
        if parser not in by_parser:  # a judge that failed on all of a group
            continue
        figures = by_parser[parser][metric]
        interval = f"[{percent(figures['low'])}, {percent(figures['high'])}]"
        rows.append([label, percent(figures["value"]), interval, f"{figures['n']:,}"])
    figure = metric if len(next(iter(labels.values()))) == 1 else f"{metric} ({parser})"
    return table([kind, figure, "95% interval", "n"], rows)


def number(value: float | None) -> str:
    """Return a figure for people: one decimal below a thousand, none above, a dash where it is not known."""
    return "–" if value is None else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
