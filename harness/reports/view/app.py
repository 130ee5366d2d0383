"""The pages: the list of runs, a report of one or several, a comparison, and a run that is still going."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from importlib.resources import files
from threading import Lock
from typing import Any, Generic, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from harness.comparing.comparison import Comparison, compare
from harness.errors import HarnessError, RunError
from harness.reports.view.folder import ListedRun, MissingRun, RunsFolder
from harness.reports.view.following import Following
from harness.reports.view.guard import REPORT_POLICY
from harness.reports.view.listing import listing
from harness.reports.view.rendering import templates
from harness.runs.columns import Recorded, read_run
from harness.runs.folder import SAMPLES

#: Made reports and followed runs that are kept at hand.
_REPORTS, _FOLLOWED = 4, 32

_STATIC = {"view.css": "text/css; charset=utf-8", "view.js": "text/javascript; charset=utf-8"}

_UNFINISHED = ("going", "stopped")

T = TypeVar("T")


def make_app(runs: RunsFolder) -> Starlette:
    """Return the ASGI application; a `harness.reports.view.guard.Guard` goes around it."""
    pages = _Pages(runs)
    return Starlette(
        routes=[
            Route("/", pages.index),
            Route("/report", pages.report),
            Route("/progress", pages.progress),
            Route("/compare", pages.compare),
            Route("/compare.json", pages.compare_json),
            Route("/{name:str}", pages.static),
        ],
        exception_handlers={HarnessError: pages.refuse, HTTPException: pages.refuse, Exception: pages.fail},
    )


class _Pages:
    """Functions that are no coroutines: Starlette runs each in a thread, as they read files and take a while."""

    def __init__(self, runs: RunsFolder) -> None:
        self._runs = runs
        self._reports = _Kept[bytes](_REPORTS)
        self._following = _Kept[Following](_FOLLOWED)
        self._templates = templates()

    def index(self, request: Request) -> Response:
        found = listing(self._runs.rows(), request.query_params)
        return self._page("list.html.j2", found=found, ticked=set(request.query_params.getlist("run")))

    def report(self, request: Request) -> Response:
        rows = self._asked(request)
        if len(rows) == 1 and rows[0].state in _UNFINISHED:
            return self._progress(rows[0])
        key = tuple((row.key, self._runs.signature(row.key)) for row in rows)
        page = self._reports.get(key, lambda: _rendered(self._recorded(rows)))
        return HTMLResponse(page, headers={"content-security-policy": REPORT_POLICY})

    def progress(self, request: Request) -> Response:
        """What a page that follows a run asks for again and again; no content where there is a report now."""
        [row] = self._asked(request)[:1]
        return self._progress(row) if row.state in _UNFINISHED else Response(status_code=204)

    def _progress(self, row: ListedRun) -> Response:
        run = self._runs.open(row.key)
        following = self._following.get((row.key, row.created), lambda: Following(run.path / SAMPLES))
        return self._page("progress.html.j2", row=row, run=run, record=run.record, now=following.update())

    def compare(self, request: Request) -> Response:
        rows = self._asked(request)
        keys = {str(self._runs.open(row.key).path): row.key for row in rows}
        baseline = request.query_params.get("baseline", "")
        return self._page("compare.html.j2", found=self._compared(rows), rows=rows, keys=keys, baseline=baseline)

    def compare_json(self, request: Request) -> Response:
        status = 200
        try:
            content = self._compared(self._asked(request)).as_json()
        except HarnessError as error:
            content, status = {"error": str(error)}, _status(error)
        return Response(json.dumps(content, indent=2) + "\n", status, media_type="application/json")

    def static(self, request: Request) -> Response:
        name = request.path_params.get("name")
        if name not in _STATIC:
            raise HTTPException(404, "There is no such page.")
        content = files("harness.reports.view").joinpath("static", name).read_bytes()
        return Response(content, headers={"content-type": _STATIC[name]})

    def refuse(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else _status(error)
        said = error.detail if isinstance(error, HTTPException) else str(error)
        return self._page("refusal.html.j2", status, said=said)

    def fail(self, request: Request, error: Exception) -> Response:
        said = "This is a defect of the harness; the terminal that it runs in says more."
        return self._page("refusal.html.j2", 500, said=said)

    def _asked(self, request: Request) -> Sequence[ListedRun]:
        """Return the runs asked for, the baseline first, then the oldest: what a model came from comes before it."""
        keys = dict.fromkeys(request.query_params.getlist("run"))
        if not keys:
            raise RunError("no run is ticked: tick one or more in the list")
        rows = [self._runs.row(key) for key in keys]
        broken = [note for row in rows if row.state == "unreadable" for note in row.notes]
        if broken:
            raise RunError("; ".join(broken))
        baseline = request.query_params.get("baseline")
        return sorted(rows, key=lambda row: (row.key != baseline, row.created, row.name))

    def _compared(self, rows: Sequence[ListedRun]) -> Comparison:
        return compare(self._recorded(rows))

    def _recorded(self, rows: Sequence[ListedRun]) -> Sequence[Recorded]:
        for row in rows:
            if row.state in _UNFINISHED:
                how = "is still going" if row.state == "going" else "has stopped before its end"
                raise RunError(f"{row.name} {how}: {row.n:,} of {row.selected:,} samples; untick it to see the others")
        return [read_run(self._runs.open(row.key).path) for row in rows]

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        text = self._templates.get_template(template).render(runs=self._runs.path, **values)
        return HTMLResponse(text, status)


def _rendered(runs: Sequence[Recorded]) -> bytes:
    from harness.reports.html import render  # with matplotlib, which the other pages do without

    return "".join(render(runs, home="/")).encode()


def _status(error: Exception) -> int:
    """Return 404 for a run that is not there, and 422 for runs with which what is asked cannot be done."""
    return 404 if isinstance(error, MissingRun) else 422


class _Kept(Generic[T]):
    """The last few things made, by key; one is made at a time, as matplotlib allows no more."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._made: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
                if len(self._made) > self._most:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return self._made[key]
