"""The registry: lazy by name, loud about what was asked for, quiet about the rest."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from harness.engines.transformers import TransformersEngine
from harness.errors import ConfigError, PluginError
from harness.registry import DISTRIBUTION, IN_MEMORY, KINDS, Registry
from harness.testing.distributions import write_distribution

GOOD = """
from harness.hookspecs import hookimpl

class Shout:
    name = "shout"
    def parse(self, output, example=None):
        return output.upper()

@hookimpl
def harness_parsers():
    return [Shout()]
"""

BROKEN = {
    "import": ("import a_package_that_nobody_has", "ModuleNotFoundError"),
    "syntax": ("def :", "SyntaxError"),
    "exit": ("raise SystemExit(3)", "SystemExit"),
    "misspelt": (GOOD.replace("def harness_parsers", "def harness_parser"), "unknown hook 'harness_parser'"),
    "signature": (GOOD.replace("harness_parsers()", "harness_parsers(colour)"), "'colour'"),
    "no hook": ("x = 1", "implements no hook harness_parsers"),
    "not iterable": (GOOD.replace("[Shout()]", "3"), "must return an iterable of objects, not int"),
    "a string": (GOOD.replace("[Shout()]", '"shout"'), "must return an iterable of objects, not str"),
    "raises": (GOOD.replace("return [Shout()]", "raise KeyError('x')"), "KeyError: 'x'"),
    "other name": (GOOD.replace('name = "shout"', 'name = "whisper"'), "gave 'whisper', but no object whose name is"),
    "twice": (GOOD.replace("[Shout()]", "[Shout(), Shout()]"), "gave 2 objects called 'shout'"),
    "no parser": (GOOD.replace("def parse", "def read"), "Shout is no Parser: it lacks parse"),
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    return Install(tmp_path, monkeypatch)


class Install:
    """Installs fake distributions of one parser plugin each."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch

    def __call__(self, source: str, distribution: str = "harness-shout", name: str = "shout") -> None:
        module = distribution.replace("-", "_") + "_module"
        folder = write_distribution(
            self.folder / distribution,
            distribution,
            version="2.3",
            entry_points={"harness.parsers": {name: module}},
            modules={module: source},
        )
        self.monkeypatch.syspath_prepend(str(folder))
        self.monkeypatch.delitem(sys.modules, module, raising=False)


def status(registry: Registry, name: str) -> list[str]:
    return [plugin.status for plugin in registry.plugins(check=True) if plugin.name == name]


def test_a_third_partys_parser_is_found_and_loaded(install: Install) -> None:
    install(GOOD)
    registry = Registry()
    assert registry.parser("shout").parse("a") == "A"
    source = registry.source("parsers", "shout")
    assert (source.distribution, source.version) == ("harness-shout", "2.3")
    assert status(registry, "shout") == ["ok"]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_one_line_when_asked_for_and_nothing_to_others(install: Install, kind: str) -> None:
    source, reason = BROKEN[kind]
    install(source)
    registry = Registry()
    with pytest.raises(PluginError) as caught:
        registry.parser("shout")
    message = str(caught.value)
    assert message.startswith("parser 'shout' from harness-shout 2.3 failed to load: ")
    assert reason in message
    assert "\n" not in message
    [shown] = status(registry, "shout")
    assert shown.startswith("broken: ")
    assert reason in shown
    assert registry.parser("final-number").parse("#### 18") == "18"


def test_a_plugin_that_kills_the_process_does_not_kill_the_list(install: Install) -> None:
    install("import os; os._exit(1)")
    install(GOOD, "harness-calm", "calm-shout")
    registry = Registry()
    assert status(registry, "shout") == ["broken: the process that imported it died"]
    [shown] = status(registry, "calm-shout")
    assert "gave 'shout', but no object whose name is 'calm-shout'" in shown


def test_two_distributions_with_one_name_are_a_conflict_until_one_is_left_out(install: Install) -> None:
    install(GOOD)
    install(GOOD.replace("upper", "lower"), "harness-murmur")
    registry = Registry()
    with pytest.raises(PluginError, match=r"claimed by harness-murmur 2\.3 and harness-shout 2\.3"):
        registry.parser("shout")
    assert all(shown.startswith("conflict: ") for shown in status(registry, "shout"))
    assert Registry(["harness-murmur"]).parser("shout").parse("aB") == "AB"


def test_a_third_party_cannot_replace_a_shipped_plugin_unseen(install: Install) -> None:
    install(GOOD.replace('"shout"', '"final-number"'), name="final-number")
    with pytest.raises(PluginError, match="conflict: claimed by harness-shout 2.3 and posttrain-harness"):
        Registry().parser("final-number")


@pytest.mark.parametrize("name", ["shout", "parsers:shout", "harness-shout"])
def test_a_plugin_can_be_disabled_by_flag_and_environment(
    install: Install, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    install(GOOD)
    assert status(Registry([name]), "shout") == ["disabled"]
    monkeypatch.setenv("HARNESS_DISABLE_PLUGINS", f" {name},gsm8k ")
    registry = Registry()
    assert status(registry, "shout") == ["disabled"]
    with pytest.raises(PluginError, match="benchmark 'gsm8k' from posttrain-harness .* cannot be used: disabled"):
        registry.benchmark("gsm8k")


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(PluginError, match="unknown benchmark 'gsm8'; did you mean 'gsm8k'?"):
        Registry().benchmark("gsm8")
    with pytest.raises(ConfigError, match="cannot disable 'gsm9k'.*did you mean 'gsm8k'"):
        Registry(["gsm9k"])


def test_every_shipped_plugin_loads() -> None:
    registry = Registry()
    shipped = [plugin for plugin in registry.plugins() if plugin.distribution == "posttrain-harness"]
    assert {plugin.kind for plugin in shipped} >= {"benchmarks", "parsers", "scorers", "engines"}
    for plugin in shipped:
        assert registry.get(plugin.kind, plugin.name).name == plugin.name


def test_installed_entry_points_are_those_of_pyproject() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for kind in KINDS:
        group = f"harness.{kind}"
        installed = {e.name: e.value for e in entry_points(group=group) if e.dist and e.dist.name == project["name"]}
        assert installed == project["entry-points"].get(group, {}), "run `pip install -e .` again"


@pytest.mark.parametrize("words", [["--help"], ["plugins"], ["run", "--help"]])
def test_starting_loads_nothing_heavy_and_no_plugin(words: list[str]) -> None:
    program = (
        "import sys; sys.argv[0] = 'harness'\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "finally: print('LOADED', *sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.rpartition("LOADED ")[2].split())
    heavy = {
        "torch",
        "transformers",
        "vllm",
        "pydantic",
        "numpy",
        "scipy",
        "openai",
        "huggingface_hub",
        "harness_gsm8k",
    }
    assert "click" in loaded
    assert not loaded & heavy


class Shout:
    """A parser of this process."""

    def __init__(self, name: object, version: str | None = None) -> None:
        self.name = name
        if version is not None:
            self.version = version

    def parse(self, output: str, example: object = None) -> str | None:
        return output.upper()


def test_an_object_is_recorded_by_its_own_version_or_what_it_does() -> None:
    registry = Registry()
    for parser in (Shout("a"), Shout("b"), Shout("c", version="3")):
        registry.add("parsers", parser)
    found = {name: registry.source("parsers", name) for name in "abc"}
    assert {source.distribution for source in found.values()} == {IN_MEMORY}
    assert len(found["a"].version) == 12 and found["a"].version != found["b"].version
    assert found["c"].version == "3"
    with pytest.raises(PluginError, match="Shout is no Parser: it has no name"):
        registry.add("parsers", Shout(None))


def test_an_object_takes_the_place_of_an_installed_plugin() -> None:
    registry = Registry()
    own: Any = Shout("last-number")
    registry.add("parsers", own)
    assert registry.parser("last-number") is own
    assert registry.source("parsers", "last-number").distribution == IN_MEMORY
    again: Any = Shout("last-number", version="2")
    registry.add("parsers", again)
    assert registry.parser("last-number") is again
    assert [each.version for each in registry.plugins("parsers") if each.name == "last-number"] == ["2"]
    engine = TransformersEngine(dtype="bfloat16")
    registry.add("engines", engine)
    assert registry.engine("transformers") is engine
    assert registry.source("engines", "transformers").distribution == DISTRIBUTION
