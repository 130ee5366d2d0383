"""What every request must pass and every answer carries, whatever page it is for."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import traceback
from collections.abc import Collection
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request

_POLICY = {
    "default-src": "'none'",
    "style-src": "'self'",
    "script-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}

#: Of every page but a report.
CONTENT_POLICY = "; ".join(f"{name} {value}" for name, value in _POLICY.items())

#: Of a report, which says by itself what more is forbidden: all but the one script and the one style in it, by digest.
REPORT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "script-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_of(host: str) -> frozenset[str]:
    """Return the names besides addresses that requests may call a server by that listens on `host`."""
    if is_loopback(host):
        return frozenset({"localhost"})
    return frozenset({"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()})


class Guard:
    """An ASGI application around another: GET and HEAD alone, addressed to this server by its own name.

    The Host header is checked since a page elsewhere can have its own name resolve to this machine (DNS rebinding) and
    would then be of the same origin. An address needs no name to be resolved, so that none can be rebound: any is
    accepted, unless `loopback`, when only loopback ones are. It is to be served without lifespan events and websockets.
    """

    def __init__(self, app: Any, names: Collection[str], *, loopback: bool) -> None:
        self._app = app
        self._names = names
        self._loopback = loopback

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        refusal = self._refusal(Request(scope))
        if refusal is not None:
            await _plain(send, *refusal)
            return

        async def guarded(message: Any) -> None:
            if "headers" in message:
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except Exception as error:  # which the application has made a page of
            said = f"internal error: {type(error).__name__}: {error}"
            print(f"harness: {ascii(said)[1:-1]} (HARNESS_DEBUG=1 shows where; please report it)", file=sys.stderr)
            if os.environ.get("HARNESS_DEBUG", "0") not in ("", "0"):
                traceback.print_exc()

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        if request.method not in ("GET", "HEAD"):
            return 405, "This page is for reading: GET and HEAD alone."
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._own(hosts[0]):
            return 421, "This server does not go by that name; open the address that `harness view` printed."
        return None

    def _own(self, host: str) -> bool:
        name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
        try:
            return ipaddress.ip_address(name).is_loopback or not self._loopback
        except ValueError:
            return name.lower().removesuffix(".") in self._names


async def _plain(send: Any, status: int, text: str) -> None:
    body = f"{text}\n".encode()
    headers = {**_HEADERS, "content-type": "text/plain; charset=utf-8", "content-length": str(len(body))}
    headers |= {"allow": "GET, HEAD"} if status == 405 else {}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
