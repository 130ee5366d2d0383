"""Servers whose certificate nobody has signed: what is said names the certificate and the remedy, which is right."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import Command

OPENSSL = shutil.which("openssl")
ROW = {"question": "How many legs have two spiders?", "answer": "8 + 8 = 16\n#### 16"}
CHOICE = {"index": 0, "finish_reason": "stop", "text": "#### 16"}
COMPLETION = {"id": "1", "object": "text_completion", "created": 1, "model": "tiny", "choices": [CHOICE]}
REMEDY = (
    "its certificate is not trusted here (self-signed certificate): give the authority that signed it as SSL_CERT_FILE"
)

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes a certificate, is not installed")


class Handler(BaseHTTPRequestHandler):
    """Lists one model, and completes every prompt alike."""

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(COMPLETION)

    def _answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    words = "-newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1".split()  # noqa: SIM905
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "own.pem")]
    subprocess.run([str(OPENSSL), "req", "-x509", *words, *files], check=True, capture_output=True)
    return folder / "own.pem"


@pytest.fixture
def address(certificate: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    (tmp_path / "data" / "gsm8k" / "test.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "outputs.jsonl").write_text(json.dumps({"output": "#### 16"}) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def asked(address: str) -> list[str]:
    return [
        "run",
        "-b",
        "gsm8k",
        "-e",
        "openai",
        "-m",
        "tiny",
        "--data",
        "data",
        "--set",
        f"openai.base_url={address}/v1",
    ]


def test_a_server_of_completions(harness: Command, address: str) -> None:
    done = harness(*asked(address))
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert f"openai: {address}/v1: {REMEDY}" in done.err


def test_the_remedy_is_one(harness: Command, address: str, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    done = harness(*asked(address))
    assert (done.code, "100.0%" in done.out) == (0, True), done.err


@pytest.mark.parametrize(
    "words",
    [("run", "-b", "gsm8k", "-e", "replay", "-m", "outputs.jsonl"),
     ("run", "-b", "gsm8k", "-e", "transformers", "-m", "owner/model", "--data", "data")],
)  # fmt: skip
def test_a_hub(address: str, words: tuple[str, ...]) -> None:
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "harness", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert REMEDY in done.stderr
