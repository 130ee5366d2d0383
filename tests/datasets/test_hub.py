"""Files from the hub: a local server, the hub's real client, and a process of its own for each call.

The client reads its environment once, when it is imported; hence the processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.datasets import HubFile
from tests.faults.hostile import Hostile
from tests.hub_server import HubServer, Repository, StoredFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = [{"question": "How many legs have two spiders?", "answer": "8 + 8 = 16\n#### 16"}]
CONTENT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
TOKEN = "hf_a_token_that_nobody_may_see"

FETCH = """
import json, sys, time
time.sleep = lambda seconds: None
from harness.datasets import DataSource, HubFile
from harness.errors import DataError
source = DataSource()
try:
    rows = source.rows(sys.argv[1], HubFile(*json.loads(sys.argv[2])), required=("question",))
except DataError as error:
    print(json.dumps({"error": str(error)}))
else:
    used = [[file.name, file.sha256, file.revision] for file in source.used]
    print(json.dumps({"rows": list(rows), "path": str(rows.path), "used": used}))
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    files = {"plain.jsonl": StoredFile(CONTENT), "main/large.jsonl": StoredFile(CONTENT, large=True)}
    with HubServer({"owner/sums": Repository(COMMIT, files)}) as server:
        yield server


class Fetch:
    """Reads a file from the hub in a new process, with a cache of its own below `home`."""

    def __init__(self, endpoint: str, home: Path) -> None:
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("HF_", "HUGGING")) and not key.lower().endswith("_proxy")
        }
        self.environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
        self.stderr = ""

    def __call__(self, *file: str | None, name: str = "sums/test.jsonl", **environment: str) -> dict[str, Any]:
        command = [sys.executable, "-W", "error", "-c", FETCH, name, json.dumps(file)]
        done = subprocess.run(command, env=self.environment | environment, capture_output=True, text=True, timeout=100)
        self.stderr = done.stderr
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result


@pytest.fixture
def fetch(hub: HubServer, tmp_path: Path) -> Fetch:
    return Fetch(hub.url, tmp_path / "home")


@pytest.mark.parametrize("path", ["plain.jsonl", "main/large.jsonl"])
def test_a_file_is_downloaded_once_and_checked_each_time(hub: HubServer, fetch: Fetch, path: str) -> None:
    first = fetch("owner/sums", path, COMMIT, DIGEST)
    assert first["rows"] == ROWS
    assert first["used"] == [["sums/test.jsonl", DIGEST, COMMIT]]
    assert fetch.stderr == ""
    asked = [seen.method for seen in hub.asked]
    assert asked == ["HEAD", "GET"]
    assert fetch("owner/sums", path, COMMIT, DIGEST, HF_HUB_OFFLINE="1") == first
    assert fetch("owner/sums", path, COMMIT, DIGEST) == first
    assert [seen.method for seen in hub.asked] == asked


def test_a_branch_is_recorded_as_the_commit_it_stood_for(fetch: Fetch) -> None:
    assert fetch("owner/sums", "plain.jsonl", "main")["used"] == [["sums/test.jsonl", DIGEST, COMMIT]]


def test_parquet_from_the_hub(hub: HubServer, fetch: Fetch, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"question": "?", "choices": ["a", "b"], "answer": 1}]), tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    hub.repositories["owner/sums"].files["all/test-00000-of-00001.parquet"] = StoredFile(content, large=True)
    result = fetch("owner/sums", "all/test-00000-of-00001.parquet", COMMIT, hashlib.sha256(content).hexdigest())
    assert result["rows"] == [{"question": "?", "choices": ["a", "b"], "answer": 1}]


def test_a_corrupted_download_is_refused_until_it_is_deleted(hub: HubServer, fetch: Fetch) -> None:
    stored = hub.repositories["owner/sums"].files["plain.jsonl"]
    stored.served = CONTENT.replace(b"16", b"17")
    wrong = hashlib.sha256(stored.served).hexdigest()
    message = fetch("owner/sums", "plain.jsonl", COMMIT, DIGEST)["error"]
    assert (
        f"/datasets/owner/sums/resolve/{COMMIT}/plain.jsonl has sha256 {wrong} here, but {DIGEST} is pinned" in message
    )
    stored.served = None
    assert fetch("owner/sums", "plain.jsonl", COMMIT, DIGEST)["error"] == message
    Path(message.split("delete ")[1].split(" to have it")[0]).unlink()
    assert fetch("owner/sums", "plain.jsonl", COMMIT, DIGEST)["rows"] == ROWS


def test_a_truncated_download_is_refused(hub: HubServer, fetch: Fetch) -> None:
    hub.repositories["owner/sums"].files["main/large.jsonl"].served = CONTENT[:-9]
    message = fetch("owner/sums", "main/large.jsonl", COMMIT)["error"]
    assert message.startswith("sums/test.jsonl: owner/sums cannot be downloaded: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("repo", "path", "revision", "reason"),
    [
        ("owner/nothing", "plain.jsonl", COMMIT, "the hub has no data set owner/nothing, or it is private"),
        ("owner/sums", "plain.jsonl", "f" * 40, f"owner/sums has no revision {'f' * 40} on the hub"),
        ("owner/sums", "x.jsonl", COMMIT, f"owner/sums has no file x.jsonl at revision {COMMIT}"),
        ("not a name", "x.jsonl", COMMIT, "not a name cannot be downloaded: HFValidationError"),
    ],
)
def test_what_the_hub_does_not_have(fetch: Fetch, repo: str, path: str, revision: str, reason: str) -> None:
    message = fetch(repo, path, revision)["error"]
    assert message.startswith(f"sums/test.jsonl: {reason}")
    assert message.endswith("then give --data DIR")
    assert "\n" not in message


def test_offline_says_what_to_put_where(fetch: Fetch) -> None:
    assert fetch("owner/sums", "main/large.jsonl", COMMIT, DIGEST, HF_HUB_OFFLINE="1")["error"] == (
        "sums/test.jsonl: owner/sums is not in the hub's cache, and HF_HUB_OFFLINE is set; where it works, run "
        f"`hf download --repo-type dataset --revision {COMMIT} --local-dir DIR/sums owner/sums main/large.jsonl`, "
        "then give --data DIR"
    )
    assert fetch.stderr == ""


def test_the_hub_out_of_reach(tmp_path: Path) -> None:
    with HubServer({}) as gone:
        endpoint = gone.url
    fetch = Fetch(endpoint, tmp_path)
    message = fetch("owner/sums", "plain.jsonl", COMMIT)["error"]
    assert "owner/sums is not in the hub's cache, and the hub cannot be reached (" in message
    assert fetch.stderr == ""


def test_the_hub_out_of_order(hub: HubServer, fetch: Fetch) -> None:
    hub.status = HTTPStatus.BAD_GATEWAY
    message = fetch("owner/sums", "plain.jsonl", COMMIT)["error"]
    assert "the hub answered with status 502" in message
    assert fetch.stderr == ""


def test_not_a_hub(hub: HubServer, fetch: Fetch) -> None:
    hub.status = HTTPStatus.OK
    message = fetch("owner/sums", "plain.jsonl", COMMIT)["error"]
    assert "the hub cannot be reached (FileMetadataError" in message


def test_a_token_is_sent_to_the_hub_and_never_shown(hub: HubServer, fetch: Fetch) -> None:
    repository = hub.repositories["owner/sums"]
    repository.token = TOKEN
    assert "private" in fetch("owner/sums", "plain.jsonl", COMMIT)["error"]
    assert fetch("owner/sums", "plain.jsonl", COMMIT, HF_TOKEN=TOKEN)["rows"] == ROWS
    assert fetch("owner/sums", "main/large.jsonl", COMMIT, HF_TOKEN=TOKEN)["rows"] == ROWS
    assert {seen.authorization for seen in hub.asked if seen.path.startswith("/large/")} == {None}
    repository.gated = True
    message = fetch("owner/sums", "plain.jsonl", "main", HF_TOKEN=TOKEN)["error"]
    assert "owner/sums is restricted: accept its terms on the hub and set HF_TOKEN" in message
    assert TOKEN not in message + fetch.stderr


def test_a_cache_that_cannot_be_written(fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    message = fetch("owner/sums", "plain.jsonl", COMMIT)["error"]
    assert message.startswith("sums/test.jsonl: owner/sums cannot be stored: Not a directory: ")


@pytest.mark.parametrize(("package", "file"), [("huggingface_hub", "plain.jsonl"), ("pyarrow", "x.parquet")])
def test_a_missing_package_is_named_with_its_remedy(
    hub: HubServer, fetch: Fetch, tmp_path: Path, package: str, file: str
) -> None:
    hub.repositories["owner/sums"].files["x.parquet"] = StoredFile(b"PAR1")
    (tmp_path / f"{package}.py").write_text("raise ImportError('not installed')")
    path = os.pathsep.join([str(tmp_path), fetch.environment.get("PYTHONPATH", "")])
    message = fetch("owner/sums", file, COMMIT, PYTHONPATH=path)["error"]
    assert f"{package} is needed to " in message
    assert "pip install 'posttrain-harness[hub]'" in message


def test_a_pin_is_checked_when_it_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="sha256 must be 64 hexadecimal digits"):
        HubFile("owner/sums", "plain.jsonl", COMMIT, "short")
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example/")
    assert HubFile("a/b", "c", "main").url == "http://mirror.example/datasets/a/b/resolve/main/c"


@pytest.mark.parametrize(
    ("behaviour", "bounds", "said"),
    [
        ("slow-drips-body", {"STALL": "2"}, "nothing came for 2 s (HARNESS_LIMIT_STALL)"),
        ("slow-endless-body", {"DOWNLOAD": "1MiB"}, "owner/sums cannot be downloaded: "),
    ],
)
def test_a_download_without_headway_or_end_is_given_up(
    fetch: Fetch, behaviour: str, bounds: dict[str, str], said: str
) -> None:
    with Hostile() as url:
        fetch.environment |= {"HF_ENDPOINT": f"{url}/{behaviour}"}
        fetch.environment |= {f"HARNESS_LIMIT_{name}": value for name, value in bounds.items()}
        assert said in fetch("owner/sums", "plain.jsonl", COMMIT)["error"]


@pytest.mark.parametrize(("large", "up"), [(False, "../../../.."), (True, None)])
def test_a_hub_names_no_place_outside_the_cache(
    hub: HubServer, fetch: Fetch, tmp_path: Path, large: bool, up: str | None
) -> None:
    """The client stores a file below the name that a header gives to its content."""
    outside = tmp_path / "outside"
    outside.mkdir()
    called = f"{up or tmp_path}/outside/written"
    hub.repositories["owner/sums"].files["plain.jsonl"] = StoredFile(CONTENT, large=large, called=called)
    error = fetch("owner/sums", "plain.jsonl", COMMIT)["error"]
    assert "that leads out of the cache" in error
    assert list(outside.rglob("*")) == []
    hub.repositories["owner/sums"] = Repository("../../../../../outside", {"plain.jsonl": StoredFile(CONTENT)})
    assert "error" in fetch("owner/sums", "plain.jsonl", "main")
    assert list(outside.rglob("*")) == []
