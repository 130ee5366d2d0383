"""Run the server of `harness view` until it is interrupted."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path

from harness.errors import ConfigError
from harness.reports.view.folder import RunsFolder


def serve(path: Path, host: str, port: int, ready: Callable[[str, bool], None]) -> None:
    """Serve the runs below `path` on `host` and `port` (0: any that is free) until SIGINT or SIGTERM.

    `ready` is told the address and whether only this machine can reach it, once it is listened on. Raises ConfigError
    for a folder that is not there, and for an address that cannot be had.
    """
    try:
        import uvicorn

        from harness.reports.view.app import make_app
        from harness.reports.view.connections import Connection
        from harness.reports.view.guard import Guard, is_loopback, names_of
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'posttrain-harness[view]'") from error
    runs = RunsFolder(path)
    with _listen(host, port) as listener:
        address, number = listener.getsockname()[:2]
        loopback = is_loopback(address)
        app = Guard(make_app(runs), names_of(host), loopback=loopback)
        config = uvicorn.Config(
            app,
            http=Connection,
            lifespan="off",
            ws="none",
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="critical",
            timeout_graceful_shutdown=1,
        )

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets=sockets)  # from here on it hears signals
                ready(f"http://{f'[{host}]' if ':' in host else host}:{number}/", loopback)

        try:
            Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # the way to end it; uvicorn has stopped already, and hands the signal on
            return


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise ConfigError(f"--host {host}: no such address here ({error})") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is in use; --port 0 takes one that is free") from error
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return listener
