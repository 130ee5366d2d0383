"""`harness plugins`: what is installed, from where, and whether it works; checks of one, and the start of a new one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import plugin_names
from harness.errors import ConfigError, nearest
from harness.registry import KINDS

if TYPE_CHECKING:
    from harness.registry import Plugin, Registry

#: Options that say something only beside one of these.
_BELONG = {"--check": ("model", "data", "pairs"), "--new": ("kind", "out")}
_GIVEN_AS = {"model": "--model", "data": "--data", "pairs": "--set", "kind": "--kind", "out": "--out"}


@dataclass(frozen=True)
class _Given:
    """The options that say something only beside --check or --new."""

    model: str | None
    data: str | None
    pairs: tuple[str, ...]
    kind: str | None
    out: str | None


@click.command("plugins")
@click.argument("name", required=False, shell_complete=plugin_names())
@click.option("--check", "checked", metavar="NAME", help="Check what a plugin promises; gsm8k, or benchmarks:gsm8k.")
@click.option(
    "-m", "--model", metavar="MODEL", help="With --check: what engines and trainers load.  [default: a tiny model]"
)
@click.option("--data", metavar="DIR", help="With --check: a benchmark's data folder, or a format's file.")
@click.option(
    "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="With --check: an option of the plugin: sft.epochs=1."
)
@click.option("--new", metavar="NAME", help="Write a small working plugin, with its test, to begin with.")
@click.option("--kind", type=click.Choice([kind[:-1] for kind in KINDS]), help="With --new: the kind of plugin.")
@click.option("-o", "--out", metavar="DIR", help="With --new: where its folder goes.  [default: .]")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
@click.option("--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin or a distribution.")
def command(
    name: str | None,
    checked: str | None,
    new: str | None,
    as_json: bool,
    disabled: tuple[str, ...],
    **options: Any,
) -> int:
    """List the installed plugins, or show the options of NAME; check one, or begin a new one.

    \b
    harness plugins
    harness plugins winrate                          its options: type, default, what they do
    harness plugins engines:openai
    harness plugins --check gsm8k --data DIR
    harness plugins --new trivia --kind benchmark

    The list has kind, name, distribution, version and status. Plugins of other distributions are tried in a process of
    their own; a broken one is named here and harms nothing. --check runs the checks of harness.testing.conformance in
    the same way and exits with 1 if one failed.
    """
    from harness.registry import Registry

    given = _Given(**options)
    _refuse_idle(given, {"--check": checked, "--new": new})
    if name is not None and (checked or new):
        raise ConfigError(f"{name!r} is shown alone; give it to --check or --new to do that with it")
    if new is not None and as_json:
        raise ConfigError("--json goes with the list or with --check, not with --new")
    registry = Registry(disabled)
    if name is not None:
        return _show(name, registry, as_json)
    if new is not None:
        return _new(new, given, registry)
    if checked is not None:
        return _check(checked, given, registry, disabled, as_json)
    rows = [
        {"kind": p.kind, "name": p.name, "distribution": p.distribution, "version": p.version, "status": p.status}
        for p in registry.plugins(check=True)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return 0
    from harness.reports.tables import table

    click.echo(table(["kind", "name", "distribution", "version", "status"], [list(row.values()) for row in rows]))
    return 0


def _refuse_idle(given: _Given, modes: Mapping[str, str | None]) -> None:
    """Raise ConfigError for options that would do nothing."""
    if None not in modes.values():
        raise ConfigError("give --check or --new, not both")
    for mode, names in _BELONG.items():
        idle = [_GIVEN_AS[name] for name in names if getattr(given, name) and modes[mode] is None]
        if idle:
            raise ConfigError(f"{idle[0]} goes with {mode} NAME")


def _show(name: str, registry: Registry, as_json: bool) -> int:
    from harness.reports.options import as_record, described

    found = [(plugin, registry.get(plugin.kind, plugin.name)) for plugin in _named(name, registry)]
    if as_json:
        click.echo(json.dumps([as_record(plugin.kind, plugin.name, each) for plugin, each in found], indent=2))
        return 0
    for plugin, each in found:
        click.echo(described(f"{plugin.label} from {plugin.origin}", plugin.name, each) + "\n")
    return 0


def _new(name: str, given: _Given, registry: Registry) -> int:
    from harness.testing.new import next_steps, write_plugin

    if given.kind is None:
        raise ConfigError(f"no kind given: --kind {', '.join(kind[:-1] for kind in KINDS)}")
    made = write_plugin(name, given.kind, Path(given.out or "."), registry)
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        click.echo(path)
    click.echo(f"next: {next_steps(name, given.kind, made)}")
    return 0


def _check(name: str, given: _Given, registry: Registry, disabled: Sequence[str], as_json: bool) -> int:
    from harness.config import assignments
    from harness.reports.samples import printable
    from harness.testing.conformance import Subject
    from harness.testing.conformance.isolated import run_isolated

    tables = assignments(given.pairs)
    rows: list[dict[str, str]] = []
    statuses: Counter[str] = Counter()
    for plugin in _named(name, registry):
        options = tables.get(plugin.name, {})
        if set(tables) - {plugin.name} or not isinstance(options, Mapping):
            raise ConfigError(f"options of {plugin.label} are given as --set {plugin.name}.OPTION=VALUE")
        if not as_json:
            click.echo(f"{plugin.label} from {plugin.origin}")
        subject = Subject(plugin.kind, plugin.name, options, given.data, given.model)
        said = ""
        for outcome in run_isolated(subject, disabled):
            row = {"kind": plugin.kind, "name": plugin.name, "check": outcome.check}
            rows.append({**row, "status": outcome.status, "why": outcome.why})
            statuses[outcome.status] += 1
            if not as_json:
                why = f": {printable(outcome.why) if outcome.why != said else 'the same'}" if outcome.why else ""
                click.echo(f"  {outcome.status:7}  {outcome.check}{why}")
                said = outcome.why
    counts = ", ".join(f"{statuses[status]} {status}" for status in ("ok", "failed", "skipped"))
    click.echo(json.dumps(rows, indent=2) if as_json else counts)
    return 1 if "failed" in statuses else 0


def _named(name: str, registry: Registry) -> list[Plugin]:
    """Return the plugins that `name` stands for, one of each kind; ConfigError where there is none."""
    listed = registry.plugins()
    found = {plugin.kind: plugin for plugin in listed if name in (plugin.name, f"{plugin.kind}:{plugin.name}")}
    if not found:
        known = {f"{plugin.kind}:{plugin.name}" if ":" in name else plugin.name for plugin in listed}
        raise ConfigError(f"no plugin {name!r}{nearest(name, known)}")
    return list(found.values())
