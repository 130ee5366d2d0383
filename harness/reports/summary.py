"""The closing table of a run, as plain text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from harness import types
from harness.errors import HarnessError
from harness.evaluation.progress import rate, speed
from harness.registry import Registry
from harness.reports.samples import on_one_line, printable
from harness.reports.tables import table
from harness.runs.folder import Run
from harness.runs.records import Estimate, JudgeRecord, MetricsByReader, Results, Timing
from harness.statistics import said_of

#: Shares of unparsed, truncated and failed samples above which the table warns.
WARN_ABOVE = 0.02


#: More groups than this are left to results.json unless they are asked for.
MOST_GROUPS = 14


def summary(
    title: str,
    results: Results,
    timing: Timing,
    folder: str,
    *,
    groups: bool = False,
    notes: Sequence[str] = (),
) -> str:
    """Return metrics with intervals, what went wrong, throughput and the run's folder, made `printable`.

    Categories are always shown, groups where there are few or `groups` asks for them.
    """
    lines = [on_one_line(title), *(f"  {line}" for line in several(results))]
    if results.metrics:
        lines.append(_indent(_metrics(results)))
        lines += [f"  {line}" for line in _methods(results)]
    elif results.judges is not None:
        lines.append(f"  not judged yet: harness judge {folder} --judge MODEL")
    lines += [f"  {line}" for judge, said in results.judged.items() for line in _judge(judge, said)]
    if results.categories:
        lines.append(_indent(_breakdown("category", results.categories)))
    if results.groups and (groups or len(results.groups) <= MOST_GROUPS):
        lines.append(_indent(_breakdown("group", results.groups)))
    outputs = results.outputs
    facts = [f"truncated {truncated(results)}"]
    facts.append(f"failed {count_of(results.failed.count, results.n)}")
    for parser, disagreeing in results.disagreeing.items():
        facts.insert(0, f"{parser}: letter and text disagree {count_of(disagreeing.count, outputs)}")
    if results.thoughts is not None:
        facts.append(f"thoughts without a response {count_of(results.thoughts.count, outputs)}")
    if results.cut_thinking is not None:
        facts.append(f"cut off while thinking {count_of(results.cut_thinking.count, outputs)}")
    if thought := results.tokens.get("thought"):
        facts.append(f"{thought:,} of {results.tokens.get('completion', 0):,} output tokens are thoughts")
    if timing.sessions:
        facts += [
            speed(timing.examples_per_second, "examples" if results.samples == 1 else "samples"),
            f"tokens/s: prompt {rate(timing.prompt_tokens_per_second)}, output "
            f"{rate(timing.completion_tokens_per_second)}",
            f"load {timing.load_seconds or 0:.1f} s",
            f"generation {timing.generation_seconds or 0:.1f} s",
        ]
    lines.append(f"  {' · '.join(facts)}")
    lines += [f"  {note}" for note in notes]
    lines += [f"  warning: {warning}" for warning in warnings(results)]
    lines += [f"    {line}" for line in failures(results)]
    lines.append(f"  {folder}")
    return printable("\n".join(lines))


def contaminated(run: Run) -> Iterator[str]:
    """Yield, where that is known, how many examples the model was trained on."""
    if (known := run.record.contamination) is not None:
        said = count_of(len(known.found), run.record.selected)
        yield f"{said} examples share 13 words in a row with what the model was trained on ({', '.join(known.sources)})"


def several(results: Results) -> Iterator[str]:
    """Yield what is to be known of several samples an example: what figures are of, and where their variance lies."""
    if results.samples == 1:
        return
    yield f"{results.samples} samples an example; figures are means over examples, n counts examples"
    for reader, found in results.variance.items():
        if (share := found.share_between) is not None:
            yield f"variance ({reader}): {percent(share)} between examples, {percent(1 - share)} within one"


def benchmark_title(benchmark: str, registry: Registry | None = None) -> str:
    """Return a benchmark's title, its name where no plugin has it (a run is read without its plugin, too)."""
    try:
        return (registry or Registry()).benchmark(benchmark).title
    except HarnessError:
        return benchmark


def rescored(run: Run, results: Results, *, groups: bool = False) -> str:
    """Return the closing table of a run whose outputs were read again, and how many there are if it is unfinished."""
    record = run.record
    wanted = record.selected * record.samples
    part = "" if results.n == wanted else f" · {results.n:,} of {wanted:,} samples so far"
    part += ", and the run is still going" if part and run.going else ""
    title = f"{benchmark_title(record.benchmark)} · {record.model}{part}"
    return summary(title, results, Timing(), str(run.path), groups=groups)


def truncated(results: Results) -> str:
    """Return how many outputs were cut off; of imported ones, as far as that is known."""
    if not results.unknown_ends:
        return count_of(results.truncated.count, results.outputs)
    known = results.outputs - results.unknown_ends
    return f"{results.truncated.count:,} of {known:,} known" if known else "unknown"


def warnings(results: Results) -> Sequence[str]:
    """Return what makes the figures doubtful: shares above 2% unparsed, truncated, failed or unreadable.

    Unparsed and truncated are shares of the outputs, failed of the samples, unreadable of the judgements.
    """
    outputs = results.outputs
    found = []
    if outputs and results.truncated.count / outputs > WARN_ABOVE:
        found.append(f"{count_of(results.truncated.count, outputs)} outputs were cut off before they ended")
    if results.n and results.failed.count / results.n > WARN_ABOVE:
        found.append(f"{count_of(results.failed.count, results.n)} outputs failed and are left out of the figures")
    for parser, unparsed in list(results.unparsed.items())[:1]:
        if outputs and unparsed.count / outputs > WARN_ABOVE:
            found.append(f"{count_of(unparsed.count, outputs)} outputs have no answer that {parser} can read")
    for judge, said in results.judged.items():
        if said.n and said.unreadable.count / said.n > WARN_ABOVE:
            found.append(f"{judge}: {count_of(said.unreadable.count, said.n)} judgements cannot be read")
        if said.failed.count:
            asked = said.n + said.failed.count
            found.append(f"{judge}: {count_of(said.failed.count, asked)} judgements failed and are left out")
        found += [f"{judge}: {warning}" for warning in said.warnings]
    return found


def failures(results: Results) -> Iterator[str]:
    """Yield the most frequent reasons why outputs and judgements failed, with how often each and an example's id."""
    for who, failed in (("", results.failed), *((f"{name}: ", each.failed) for name, each in results.judged.items())):
        told = 0
        for each in failed.reasons:
            yield f"{each.count:,} × {who}{on_one_line(each.reason)} ({on_one_line(each.id)})"  # times
            told += each.count
        if failed.reasons and told < failed.count:
            yield f"{failed.count - told:,} × {who}for other reasons"


def count_of(count: int, n: int) -> str:
    """Return a count with its share of n: ``14 (1.1%)``.

    >>> count_of(14, 1319), count_of(0, 5)
    ('14 (1.1%)', '0')
    """
    return f"{count:,} ({100 * count / n:.1f}%)" if count and n else f"{count:,}"


def percent(value: float | None) -> str:
    """Return a proportion as a percentage, or a dash where it is not known."""
    return "–" if value is None else f"{100 * value:.1f}%"


def points(value: float | None) -> str:
    """Return a difference of proportions in points, with its sign, and as many decimals as it takes to show one.

    >>> points(0.148), points(-0.0213), points(0.0), points(0.0004), points(-0.00004), points(None)
    ('+14.8', '−2.1', '0.0', '+0.04', '−0.004', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    text = f"{100 * value:+.1f}"
    if text in ("+0.0", "-0.0"):
        text = f"{100 * value:+.1g}" if abs(value) > 1e-6 else "0.0"
    return text.replace("-", "−")


def interval(estimate: Estimate) -> str:
    """Return the 95% interval of a proportion, in percent: ``[21.3%, 26.0%]``."""
    return f"[{percent(estimate.low)}, {percent(estimate.high)}]"


def _metrics(results: Results) -> str:
    rows = [
        [reader, metric, percent(each.value), interval(each), f"{each.n:,}", _unread(results, reader)]
        for reader, metrics in results.metrics.items()
        for metric, each in metrics.items()
    ]
    reader, unread = ("parser", "unparsed") if results.judges is None else ("judge", "unreadable")
    return table([reader, "metric", "value", "95% interval", "n", unread], rows)


def _unread(results: Results, name: str) -> str:
    """Return how many answers the parser, or judgements the judge, called `name` has left unread."""
    judge = results.judged.get(name)
    if judge is not None:
        return count_of(judge.unreadable.count, judge.n)
    unparsed = results.unparsed.get(name)
    return count_of(0 if unparsed is None else unparsed.count, results.outputs)


def _methods(results: Results) -> Sequence[str]:
    """Return how the intervals were made, where examples come in groups and it makes a difference."""
    if len(results.groups) < 2:
        return []
    used = dict.fromkeys(said_of(each.method) for metrics in results.metrics.values() for each in metrics.values())
    return [f"intervals: {'; '.join(used)}"]


def _judge(name: str, said: JudgeRecord) -> Sequence[str]:
    """Return a judge's verdicts, what its unreadable replies could change, and how it was asked."""
    counts = {**said.verdicts, "unreadable": said.unreadable.count}
    lines = [f"{name}: {' · '.join(f'{verdict} {count:,}' for verdict, count in counts.items())}"]
    if said.unreadable.count:
        for metric, (low, high) in said.bounds.items():
            lines.append(f"  {metric} lies in [{percent(low)}, {percent(high)}], whatever the unreadable ones mean")
    own, other = (said.details.get(name) for name in ("mean_length", "mean_reference_length"))
    if own is not None:
        lines.append(f"  mean length {own:,.0f} characters, the reference's {other:,.0f}")
    lines += [f"  {bias}" for bias in biases(said)]
    if said.options.get("length_control", "") is None:
        lines.append("  length-controlled win rate: off; --set winrate.length_control=df_gamed.csv, or hub")
    options = " · ".join(f"{key} {said.options[key]}" for key in ("prompt", "orders") if key in said.options)
    lines.append(f"  {said.engine} · {said.prompt_format.name} · {options}")
    return lines


def biases(said: JudgeRecord) -> Iterator[str]:
    """Yield how far a judge favours what is shown first, and its own family's responses, where that is known."""
    if placed := said.details.get("first_shown"):
        preferred, least, most = (percent(each) for each in placed)
        yield f"prefers what is shown first in {preferred} [{least}, {most}]; 50% is no bias"
    for other, (value, low, high, n) in said.details.get("self_preference", {}).items():
        yield favours(on_one_line(other), types.Estimate(value, n, math.nan, low, high, ""))


def favours(known: str, found: types.Estimate) -> str:
    """Return how far a judge favours the model, held against what is `known`."""
    sized = f"{points(found.value)} points [{points(found.low)}, {points(found.high)}], n {found.n:,}"
    return f"favours the model by {sized}, held against {known}; 0 is no self-preference"


def _breakdown(kind: str, labels: Mapping[str, MetricsByReader]) -> str:
    """Return the headline metric of each group or category."""
    reader, metrics = next(iter(next(iter(labels.values())).items()))
    metric = next(iter(metrics))
    rows = []
    for label, by_reader in labels.items():
        if reader not in by_reader:  # a judge that failed on all of a group
            continue
        found = by_reader[reader][metric]
        rows.append([label, percent(found.value), interval(found), f"{found.n:,}"])
    figure = metric if len(next(iter(labels.values()))) == 1 else f"{metric} ({reader})"
    return table([kind, figure, "95% interval", "n"], rows)


def number(value: float | None) -> str:
    """Return a figure for people: one decimal below a thousand, none above, a dash where it is not known."""
    return "–" if value is None else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
