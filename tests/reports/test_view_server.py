"""`harness view` as a server: connections that keep it, its end, and what it cannot serve."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from tests.conftest import Command
from tests.reports.viewing import Viewing, start, viewing, write_run


def test_connections_that_ask_for_nothing_keep_nobody_out(tmp_path: Path) -> None:
    write_run(tmp_path, "base", 3)
    with viewing(tmp_path) as server, ExitStack() as open_ones:
        place = urlsplit(server.address).hostname or "", urlsplit(server.address).port or 0
        waiting = [open_ones.enter_context(socket.create_connection(place, timeout=30)) for _ in range(600)]
        waiting[-1].sendall(b"GET / HT")
        assert server.get("/").status == 200
        with suppress(ConnectionResetError):
            assert waiting[0].recv(1) == b"", "the one that waited longest has gone"


@pytest.mark.parametrize("answering", [False, True])
def test_a_connection_that_asks_for_or_takes_nothing_is_closed(
    monkeypatch: pytest.MonkeyPatch, answering: bool
) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    from harness.reports.view import connections

    class Transport:
        closed = False

        def get_extra_info(self, name: str) -> None:
            return None

        def get_write_buffer_size(self) -> int:
            return 5 if answering else 0

        def abort(self) -> None:
            self.closed = True

    async def until_closed() -> None:
        connection = connections.Connection(uvicorn.Config(lambda: None), uvicorn.server.ServerState(), {})
        transport = Transport()
        connection.connection_made(transport)
        if answering:
            connection.cycle = SimpleNamespace(response_complete=False)  # type: ignore[assignment]
        while not transport.closed:
            await asyncio.sleep(0.01)

    monkeypatch.setattr(connections, "WAITING", 0.05 if not answering else 0.2)
    monkeypatch.setattr(connections, "TAKING", 0.05 if answering else 1e9)
    asyncio.run(asyncio.wait_for(until_closed(), 30))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_at_once_and_without_noise(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, "--port", "0")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_what_cannot_be_served_is_one_line(harness: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def line(*words: str | Path) -> str:
        done = harness("view", *words)
        assert (done.code, done.out) == (2, "")
        [said] = done.err.splitlines()
        return said

    monkeypatch.chdir(tmp_path)
    assert "no folder runs: `harness run` makes it, or name another" in line()
    (tmp_path / "file").touch()
    assert "no folder" in line(tmp_path / "file")
    assert "no such address here" in line(tmp_path, "--host", "no such host")
    assert "cannot listen on 192.0.2.1, port 0" in line(tmp_path, "--host", "192.0.2.1", "--port", "0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} is in use; --port 0 takes one that is free" in line(tmp_path, "--port", str(port))


def test_another_address_than_this_machines_is_warned_about(tmp_path: Path) -> None:
    process = start(tmp_path, "--host", "0.0.0.0", "--port", "0")
    assert process.stdout is not None
    address = process.stdout.readline().split()[0]
    try:
        server = Viewing(address, process)
        assert server.get("/", Host=f"192.0.2.7:{address.split(':')[2].rstrip('/')}").status == 200
        assert server.get("/", Host="evil.example").status == 421
    finally:
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert "warning: whoever can reach http://0.0.0.0:" in err
    assert "there is no password" in err
