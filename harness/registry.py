"""Find, load and report plugins: entry points in, checked objects out.

Listing reads metadata and imports nothing; asking for one plugin imports that one module. A plugin that is broken,
disabled or claimed twice is an error when it is asked for, and a status in the list, and nothing to any other plugin.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, cast

import pluggy

from harness import hookspecs, interfaces
from harness.behaviour import behaviour
from harness.errors import ConfigError, PluginError, nearest
from harness.extras import lacking

if TYPE_CHECKING:
    from harness.types import PluginSource

Kind = Literal["benchmarks", "parsers", "scorers", "trainers", "engines", "trackers", "formats"]

#: Kind → the protocol of its objects. The entry-point group is ``harness.<kind>``, the hook ``harness_<kind>``.
KINDS: dict[Kind, type] = {
    "benchmarks": interfaces.Benchmark,
    "parsers": interfaces.Parser,
    "scorers": interfaces.Scorer,
    "trainers": interfaces.Trainer,
    "engines": interfaces.Engine,
    "trackers": interfaces.Tracker,
    "formats": interfaces.Format,
}

DISTRIBUTION = "posttrain-harness"

#: What stands for the distribution of a plugin that was added by hand.
IN_MEMORY = "in-memory"

_CHECK_SECONDS = 60

#: Class and name of each object that was given out → its plugin; options make new objects of the same class.
_GIVEN: dict[tuple[type, str], Plugin] = {}


@dataclasses.dataclass(frozen=True)
class Plugin:
    """An installed plugin, not yet imported.

    `status` is ``ok``, ``disabled`` or ``conflict: …``; ``broken: …`` and ``missing …`` only where it has been checked.
    """

    kind: Kind
    name: str
    distribution: str
    version: str
    entry_point: EntryPoint = dataclasses.field(repr=False)
    status: str = "ok"

    @property
    def origin(self) -> str:
        """Distribution and version, as messages name them."""
        return f"{self.distribution} {self.version}"

    @property
    def label(self) -> str:
        """Kind and name, as messages name them: ``benchmark 'gsm8k'``."""
        return f"{self.kind[:-1]} {self.name!r}"


class Registry:
    """The plugins of this environment.

    `disabled` holds names of plugins (``gsm8k`` or ``benchmarks:gsm8k``) or of distributions that are not to be used,
    beside those in ``HARNESS_DISABLE_PLUGINS`` (separated by commas); a name that nothing has is a ConfigError.
    """

    def __init__(self, disabled: Collection[str] = ()) -> None:
        from_environment = os.environ.get("HARNESS_DISABLE_PLUGINS", "").split(",")
        names = {name.strip() for name in (*disabled, *from_environment)} - {""}
        self._plugins = [_with_status(plugin, names) for plugin in _installed()]
        self._refuse_unknown(names)
        self._loaded: dict[tuple[Kind, str], Any] = {}

    def plugins(self, kind: Kind | None = None, *, check: bool = False) -> list[Plugin]:
        """List the installed plugins, sorted by kind and name.

        With `check`, plugins of other distributions than this one are imported in a process of their own, so that what
        they do while they are imported can neither slow nor harm this one, and their status says what was found. Of
        all plugins it says what is not installed of what they run with.
        """
        found = [plugin for plugin in self._plugins if kind in (None, plugin.kind)]
        found = _resolve_conflicts(found)
        return [_with_lacking(plugin) for plugin in _checked(found)] if check else found

    def add(self, kind: Kind, plugin: Any) -> None:
        """Provide an object of this process, such as a fake in a test or a benchmark in a notebook, as if installed.

        It takes the place of an installed plugin of its name. Where its class is that plugin's own, so are distribution
        and version; else they are ``in-memory`` and the object's attribute `version`, if it has one, or what it does
        (`harness.behaviour`). Benchmarks and engines need none: what they ask, and what outputs depend on, is recorded.

        Raises PluginError, saying what it lacks, where it does not have all that its interface names.
        """
        name, module = getattr(plugin, "name", None), type(plugin).__module__
        if not isinstance(name, str):
            raise PluginError(f"{type(plugin).__name__} is no {KINDS[kind].__name__}: it has no name")
        replaced = [each for each in self._plugins if (each.kind, each.name) == (kind, name)]
        installed = [each for each in replaced if each.distribution != IN_MEMORY]
        own = [each for each in installed if f"{module}.".startswith(f"{each.entry_point.module}.")]
        version = "" if own else _version(kind, plugin)
        entry = own[0] if own else Plugin(kind, name, IN_MEMORY, version, EntryPoint(name, module, f"harness.{kind}"))
        self._loaded[kind, name] = _pick(entry, [[plugin]])
        _GIVEN[type(plugin), name] = entry
        self._plugins = [*(each for each in self._plugins if each not in replaced), entry]

    def get(self, kind: Kind, name: str) -> Any:
        """Import the plugin called `name` and return its object, checked against the interface of its kind.

        Raises PluginError, naming distribution and version, when it is unknown, disabled, claimed twice or broken.
        """
        if (kind, name) not in self._loaded:
            self._loaded[kind, name] = load(self.find(kind, name))
        return self._loaded[kind, name]

    def benchmark(self, name: str) -> interfaces.Benchmark:
        """Return the benchmark called `name`, as `get` does."""
        return cast(interfaces.Benchmark, self.get("benchmarks", name))

    def parser(self, name: str) -> interfaces.Parser:
        """Return the parser called `name`, as `get` does."""
        return cast(interfaces.Parser, self.get("parsers", name))

    def scorer(self, name: str) -> interfaces.Scorer:
        """Return the scorer called `name`, as `get` does."""
        return cast(interfaces.Scorer, self.get("scorers", name))

    def trainer(self, name: str) -> interfaces.Trainer:
        """Return the trainer called `name`, as `get` does."""
        return cast(interfaces.Trainer, self.get("trainers", name))

    def engine(self, name: str) -> interfaces.Engine:
        """Return the engine called `name`, as `get` does."""
        return cast(interfaces.Engine, self.get("engines", name))

    def tracker(self, name: str) -> interfaces.Tracker:
        """Return the tracker called `name`, as `get` does."""
        return cast(interfaces.Tracker, self.get("trackers", name))

    def format(self, name: str) -> interfaces.Format:
        """Return the format called `name`, as `get` does."""
        return cast(interfaces.Format, self.get("formats", name))

    def find(self, kind: Kind, name: str) -> Plugin:
        """Return the plugin called `name` without importing it; raise PluginError as `get` does."""
        listed = self.plugins(kind)
        named = [plugin for plugin in listed if plugin.name == name]
        usable = [plugin for plugin in named if plugin.status == "ok"]
        if usable:
            return usable[0]
        if named:
            plugin = next((p for p in named if p.status != "disabled"), named[0])
            raise PluginError(f"{plugin.label} from {plugin.origin} cannot be used: {plugin.status}")
        if not listed:
            raise PluginError(
                f"no {kind} are installed: run `pip install {DISTRIBUTION}` (`pip install -e .` in a checkout)"
            )
        raise PluginError(f"unknown {kind[:-1]} {name!r}{nearest(name, [plugin.name for plugin in listed])}")

    def source(self, kind: Kind, name: str) -> PluginSource:
        """Return where the plugin called `name` comes from, for the record of a run."""
        plugin = self.find(kind, name)
        from harness.types import PluginSource

        return PluginSource(kind, name, plugin.distribution, plugin.version)

    def _refuse_unknown(self, names: Collection[str]) -> None:
        known = {alias for plugin in self._plugins for alias in _aliases(plugin)}
        for name in sorted(set(names) - known):
            raise ConfigError(f"cannot disable {name!r}: no such plugin or distribution{nearest(name, known)}")


def load(plugin: Plugin) -> Any:
    """Import one plugin, check it against the hook specifications and return the object of its name.

    Raises PluginError on any failure; ``HARNESS_DEBUG=1`` shows the plugin's own traceback.
    """
    try:
        module = plugin.entry_point.load()
        manager = pluggy.PluginManager("harness")
        manager.add_hookspecs(hookspecs)
        manager.register(module, name=plugin.name)
        manager.check_pending()
        hook = getattr(manager.hook, f"harness_{plugin.kind}")
        if not hook.get_hookimpls():
            raise PluginError(f"module {plugin.entry_point.module!r} implements no hook harness_{plugin.kind}")
        found = _pick(plugin, hook())
        _GIVEN[type(found), plugin.name] = plugin
        return found
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        raise PluginError(f"{plugin.label} from {plugin.origin} failed to load: {_one_line(reason)}") from error


def origin(plugin: Any) -> Plugin | None:
    """Return the plugin that an object is of which a registry gave out, with options or without; None for another."""
    return _GIVEN.get((type(plugin), str(getattr(plugin, "name", None))))


def described(plugin: Any) -> str:
    """Return what messages call an object that a registry gave out, with its options or without: kind, name, origin."""
    given = origin(plugin)
    if given is None:
        return f"{type(plugin).__name__} {getattr(plugin, 'name', None)!r}"
    return given.label if given.distribution == IN_MEMORY else f"{given.label} from {given.origin}"


def _pick(plugin: Plugin, results: Iterable[Any]) -> Any:
    """Return the object called like the plugin from what its hook gave, or raise PluginError."""
    objects: list[Any] = []
    for result in results:
        if isinstance(result, str | bytes) or not isinstance(result, Iterable):
            given = type(result).__name__
            raise PluginError(f"harness_{plugin.kind}() must return an iterable of objects, not {given}")
        objects.extend(result)
    named = [item for item in objects if getattr(item, "name", None) == plugin.name]
    if not named:
        names = ", ".join(repr(getattr(item, "name", item)) for item in objects) or "nothing"
        raise PluginError(f"harness_{plugin.kind}() gave {names}, but no object whose name is {plugin.name!r}")
    if len(named) > 1:
        raise PluginError(f"harness_{plugin.kind}() gave {len(named)} objects called {plugin.name!r}")
    protocol = KINDS[plugin.kind]
    members = _members(protocol)
    if getattr(named[0], "judged", False) is True:
        protocol, members = interfaces.JudgedScorer, members | _members(interfaces.JudgedScorer)
    missing = sorted(member for member in members if not hasattr(named[0], member))
    if missing:
        raise PluginError(f"{type(named[0]).__name__} is no {protocol.__name__}: it lacks {', '.join(missing)}")
    if plugin.kind == "benchmarks":
        _check_benchmark(named[0])
    return named[0]


def _version(kind: Kind, plugin: Any) -> str:
    """Return what stands for the version of an object of this process."""
    given = getattr(plugin, "version", None)
    if isinstance(given, str):
        return given
    return behaviour(plugin) if kind in ("parsers", "scorers") else "0"


def _check_benchmark(benchmark: Any) -> None:
    """Raise PluginError for what would be told as something else later on: the parser 'c' of ``parsers = "choice"``."""
    if not isinstance(benchmark.parsers, tuple) or not all(isinstance(name, str) for name in benchmark.parsers):
        raise PluginError(f"its parsers must be a tuple of names, not {benchmark.parsers!r}")
    if not isinstance(benchmark.scorer, str):
        raise PluginError(f"its scorer must be a name, not {benchmark.scorer!r}")
    from harness.types import Generation

    if not isinstance(benchmark.generation, Generation):
        raise PluginError(f"its generation must be a harness.types.Generation, not {benchmark.generation!r}")


def _members(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


def _installed() -> tuple[Plugin, ...]:
    """Read the entry points of all kinds."""
    found = []
    every = entry_points()
    origins: dict[int, tuple[str, str]] = {}  # by the distribution's identity: each access to its name reads a file
    for kind in KINDS:
        seen = set()
        for entry_point in every.select(group=f"harness.{kind}"):
            dist = entry_point.dist
            if id(dist) not in origins:
                origins[id(dist)] = (dist.name, dist.version) if dist else ("unknown", "?")
            name, version = origins[id(dist)]
            if (entry_point.name, name) not in seen:  # an editable install may be on the path twice
                seen.add((entry_point.name, name))
                found.append(Plugin(kind, entry_point.name, name, version, entry_point))
    order = list(KINDS)
    return tuple(sorted(found, key=lambda p: (order.index(p.kind), p.name, p.distribution)))


def _aliases(plugin: Plugin) -> tuple[str, str, str]:
    return plugin.name, f"{plugin.kind}:{plugin.name}", plugin.distribution


def _with_status(plugin: Plugin, disabled: Collection[str]) -> Plugin:
    if any(alias in disabled for alias in _aliases(plugin)):
        return dataclasses.replace(plugin, status="disabled")
    return plugin


def _with_lacking(plugin: Plugin) -> Plugin:
    status = lacking(plugin.entry_point) if plugin.status == "ok" else None
    return dataclasses.replace(plugin, status=status) if status else plugin


def _resolve_conflicts(plugins: list[Plugin]) -> list[Plugin]:
    """Mark plugins of one kind whose name more than one enabled distribution claims."""
    claims = defaultdict(list)
    for plugin in plugins:
        if plugin.status != "disabled":
            claims[plugin.kind, plugin.name].append(plugin.origin)
    resolved = []
    for plugin in plugins:
        origins = claims[plugin.kind, plugin.name]
        if plugin.status != "disabled" and len(origins) > 1:
            remedy = "uninstall one, or leave it out with --no-plugin DISTRIBUTION"
            plugin = dataclasses.replace(plugin, status=f"conflict: claimed by {' and '.join(origins)}; {remedy}")
        resolved.append(plugin)
    return resolved


def _checked(plugins: list[Plugin]) -> list[Plugin]:
    """Load the third-party plugins among `plugins` in another process, and put down what came of it."""
    foreign = [p for p in plugins if p.distribution not in (DISTRIBUTION, IN_MEMORY) and p.status == "ok"]
    if not foreign:
        return plugins
    found = _check_in_process(foreign)
    if len(found) < len(foreign):  # one of them took the process with it: find out which
        found = {key: status for plugin in foreign for key, status in _check_in_process([plugin]).items()}
    died = "broken: the process that imported it died"
    return [dataclasses.replace(p, status=found.get((p.kind, p.name), died)) if p in foreign else p for p in plugins]


def _check_in_process(plugins: list[Plugin]) -> dict[tuple[str, str], str]:
    import subprocess

    wanted = json.dumps([[p.kind, p.name, p.distribution] for p in plugins])
    program = "import sys; sys.path[:] = sys.argv[2:]; from harness import registry; registry._report(sys.argv[1])"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, wanted, *sys.path],
            capture_output=True,
            timeout=_CHECK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"broken: importing it took more than {_CHECK_SECONDS} s"
        return {(p.kind, p.name): reason for p in plugins} if len(plugins) == 1 else {}
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    reports = [line.partition(_REPORT)[2] for line in lines if line.startswith(_REPORT)]
    return {(kind, name): status for report in reports for kind, name, status in [json.loads(report)]}


_REPORT = "harness-plugin-status "


def _report(wanted: str) -> None:
    """Load the plugins named in the JSON list `wanted` and print one status line each (runs in its own process)."""
    installed = {(p.kind, p.name, p.distribution): p for p in _installed()}
    for kind, name, distribution in json.loads(wanted):
        plugin = installed[kind, name, distribution]
        status = "ok"
        try:
            load(plugin)
        except PluginError as error:
            status = f"broken: {str(error).partition('failed to load: ')[2]}"
        print(f"\n{_REPORT}{json.dumps([kind, name, status])}", flush=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
