"""Commands that ask a hostile server: they end in time, in one line, and tell nobody the key."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.faults.guarded import guarded
from tests.faults.hostile import Hostile, behaviours

KEY = "sk-SECRET-0123456789"

#: What of the key nobody is to find anywhere.
_SECRET = ("SECRET", "456789")

#: So many are met, however little time there is.
_LEAST = 8

#: Seconds for one request and, as a command asks several and is given some for its own beginning, for all of it.
_TIMEOUT, _ALL = 2, 40


class Servers:
    """Behaviours in an order drawn from `seed`, each met by commands that ask for the completions or the models."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self._folder = folder
        self._begun = folder / "begun"
        (self._begun / "data" / "gsm8k").mkdir(parents=True)
        rows = [{"question": f"What is {n}?", "answer": "#### 1"} for n in range(2)]
        (self._begun / "data" / "gsm8k" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (self._begun / "outputs.jsonl").write_text('{"output": "#### 1"}\n' * 2)
        self.names = list(behaviours())
        random.Random(seed).shuffle(self.names)
        self.tried: list[str] = []

    def carry_out(self, until: float) -> Iterator[str]:
        """Meet behaviours until that time; yield what is wrong."""
        before = os.environ.get("OPENAI_API_KEY")
        os.environ["OPENAI_API_KEY"] = KEY
        try:
            with Hostile() as url:
                for name in self.names:
                    if time.monotonic() > until and len(self.tried) >= _LEAST:
                        return
                    for where, words, prepare in self._commands(f"{url}/{name}"):
                        yield from (f"{name} ({where}): {problem}" for problem in self._problems(words, prepare))
                    self.tried.append(name)
        finally:
            if before is None:
                del os.environ["OPENAI_API_KEY"]
            else:
                os.environ["OPENAI_API_KEY"] = before

    def _commands(self, url: str) -> Iterator[tuple[str, tuple[str, ...], Callable[[], object]]]:
        ask = ("-b", "gsm8k", "--data", "data", "-m", "tiny", "-e", "openai")
        sets = {"timeout": str(_TIMEOUT), "max_retries": "0"}

        def words(base: str, **more: str) -> tuple[str, ...]:
            given = {**sets, "base_url": base, **more}
            return ("run", *ask, *(word for key, value in given.items() for word in ("--set", f"openai.{key}={value}")))

        yield "completions", words(f"{url}/v1"), _nothing
        if "/body-" not in url:
            yield "models", words(f"{url}/all/v1", api="chat"), _nothing
            fetch = ("run", *ask[:2], "-e", "replay", "-m", "outputs.jsonl")
            yield "hub", fetch, partial(_hub, url, self._folder / "work" / "cache")
            yield "hub (all)", fetch, partial(_hub, f"{url}/all", self._folder / "work" / "cache")
        yield "stream", ("chat", *ask[4:], *words(f"{url}/v1", api="chat")[9:], "-o", "chat.jsonl"), _nothing

    def _problems(self, words: tuple[str, ...], prepare: Callable[[], object]) -> Iterator[str]:
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self._begun, work)
        outcome = guarded(words, work, self._folder / "said", seconds=_ALL, said_to_it="Hello?\n", prepare=prepare)
        if problem := outcome.problem():
            yield problem
        texts = [
            outcome.out,
            outcome.err,
            *(path.read_text(errors="replace") for path in work.rglob("*") if path.is_file()),
        ]
        if any(secret in text for text in texts for secret in _SECRET):
            yield "the key is told"


def _nothing() -> None:
    pass


def _hub(url: str, cache: Path) -> None:
    """Have huggingface_hub ask `url`, and wait no longer than this can."""
    from huggingface_hub import constants

    os.environ |= {"HF_ENDPOINT": url, "HF_TOKEN": KEY, "HARNESS_LIMIT_STALL": "6", "HARNESS_LIMIT_DOWNLOAD": "64MiB"}
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    names = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in {**names, "HF_HUB_DOWNLOAD_TIMEOUT": _TIMEOUT, "HF_HUB_ETAG_TIMEOUT": _TIMEOUT}.items():
        setattr(constants, name, value)
    time.sleep = lambda seconds: None  # between attempts
