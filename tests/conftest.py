"""Fixtures that more than one test file uses."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from harness.cli import main
from tests.browser import Open, chromium, visits

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest_plugins = ["harness.testing.fixtures"]


# Beside each other, workers share the cores: what waits for a thread of another is slower than one thread. torch reads
# this when it is first imported, and so do the commands that the tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("COLUMNS", None)  # pytest-xdist sets it for its workers; what a command prints goes by it

# A loaded machine takes as long as it takes: tests time nothing.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell starts what runs in the background with Ctrl-C ignored, nohup with hanging up, and their children would too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let torch draw the same in a test whatever ran before it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real benchmark data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("HARNESS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def harness(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command line in this process: ``harness("run", "--benchmark", "gsm8k")``."""

    def command(*words: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, words)])
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        monkeypatch.setattr(os, "_exit", os._exit)
        try:
            with pytest.raises(SystemExit) as caught:
                main()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return Done(int(caught.value.code or 0), captured.out, captured.err)

    return command


QUESTIONS = [
    ("Mo has 3 pens and buys 4 more. How many pens does Mo have?", "3 + 4 = 7\n#### 7"),
    ("A crate holds 1,000 nails. How many nails are in 2 crates?", "2 * 1000 = 2000\n#### 2,000"),
    ("It is 4 degrees and cools by 9. How many degrees is it now?", "4 - 9 = -5\n#### -5"),
    ("Ola cuts 6 m of rope into 3 parts. How long is each part?", "6 / 3 = 2\n#### 2"),
]


@pytest.fixture
def gsm8k_data(tmp_path: Path) -> Path:
    """A data folder with four questions in GSM8K's format."""
    folder = tmp_path / "data" / "gsm8k"
    folder.mkdir(parents=True)
    lines = [json.dumps({"question": question, "answer": answer}) for question, answer in QUESTIONS]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder.parent


@pytest.fixture
def outputs(tmp_path: Path) -> Callable[..., Path]:
    """Write recorded outputs for the replay engine: ``outputs("#### 7", …)``."""

    def write(*texts: str) -> Path:
        path = tmp_path / "outputs.jsonl"
        path.write_text("".join(json.dumps({"output": text}) + "\n" for text in texts), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium without a screen, one for a module; tests that need it are skipped where there is none."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def page_of(browser: Browser) -> Iterator[Open]:
    """Open pages in Chromium: ``page_of(path_or_address, color_scheme="dark", viewport={…})`` gives a `Visit`."""
    with visits(browser) as visit:
        yield visit
