"""Debian's Chromium, driven by Playwright: pages as people see them, and all that they ask the network for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Visit:
    """An open page, the addresses that were requested for it, and what went wrong in it (errors, dialogs)."""

    page: Page
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def dismiss(self, dialog: Dialog) -> None:
        """Note a dialog, which no page of ours has, and close it."""
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def violations(self) -> list[str]:
        """Return axe-core's serious and critical findings (WCAG 2.2 AA and best practice), one line each.

        What stands inside a chart is left out: to whoever cannot see it, a chart is one image with a label.
        """
        from axe_playwright_python.sync_playwright import Axe

        parts, options = {"exclude": [["svg.chart > *"]]}, {"resultTypes": ["violations"]}
        found = Axe().run(self.page, context=parts, options=options).response["violations"]
        return [
            f"{each['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]


#: Opens a file or an address; the options are those of Playwright's `Browser.new_context`.
Open = Callable[..., Visit]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium without a screen; skip the test where there is none.

    While it runs, Playwright keeps an event loop in this thread, so it must not outlive the tests of a module.
    """
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_QUIET))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visits(browser: Browser) -> Iterator[Open]:
    """Give a function that opens pages, each with storage of its own; all are closed at the end."""
    contexts = []

    def visit(target: Path | str, **options: Any) -> Visit:
        context = browser.new_context(**options)
        contexts.append(context)
        found = Visit(context.new_page())
        page = found.page
        context.on("request", lambda request: found.requests.append(request.url))
        page.on("pageerror", lambda error: found.faults.append(f"error: {error}"))
        page.on("console", lambda said: found.faults.append(said.text) if said.type == "error" else None)
        page.on("dialog", found.dismiss)
        page.goto(target.as_uri() if isinstance(target, Path) else target)
        return found

    try:
        yield visit
    finally:
        for context in contexts:
            context.close()
