"""Model folders: found, checked, described and identified."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ModelError, first_line
from harness.models import find_model
from harness.testing.tiny import make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of a model that a test may change."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def described(folder: Path, config: dict[str, Any], generation: dict[str, Any] | None = None) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return str(folder)


def test_a_folder_is_taken_as_it_stands(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model(str(tiny)).with_weights() == tiny
    monkeypatch.chdir(tiny.parent)
    assert find_model("tiny").with_weights().resolve() == tiny.resolve()
    monkeypatch.setenv("HOME", str(tiny.parent))
    assert find_model("~/tiny").with_weights() == tiny


@pytest.mark.parametrize("name", ["./checkpoint", "/no/such/model", "runs/a/b", "a/b/", "~/nothing", "..", "a b", ""])
def test_what_can_only_be_a_path_is_not_asked_of_the_hub(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(ModelError, match=r"no such folder; give a model folder or a name|no config.json"):
        find_model(name).with_weights()


def test_a_file_is_no_model(folder: Path) -> None:
    with pytest.raises(ModelError, match="not a folder; give the folder that holds config.json"):
        find_model(str(folder / "config.json")).with_weights()


def test_a_folder_without_config_is_no_model(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="no config.json, so it is not a Hugging Face model folder"):
        find_model(str(folder)).with_weights()
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="adapter_config.json names no peft_type"):
        find_model(str(folder)).with_weights()


def test_a_pickle_is_never_read(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelError) as caught:
        find_model(str(folder)).with_weights()
    assert "its weights are a pickle" in str(caught.value) and "save_pretrained('CONVERTED')" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()
    assert find_model(str(folder)).tokenizer.encode("a")


def test_missing_weights_and_shards_are_named(folder: Path) -> None:
    weights = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(weights))
    with pytest.raises(ModelError, match="1 of 2 weight files are missing; copy model-00002-of-00002"):
        find_model(str(folder)).with_weights()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "[" * 300}}))
    with pytest.raises(ModelError, match=r"1 of 1 weight files are missing; copy \[{80} there"):
        find_model(str(folder)).with_weights()
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights \(\*.safetensors\)"):
        find_model(str(folder)).with_weights()
    assert find_model(str(folder)).path == folder


def test_a_missing_or_broken_tokenizer_is_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": ')
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded .*copy it anew") as caught:
        _ = find_model(str(folder)).tokenizer
    assert "\n" not in str(caught.value)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer .*copy it from the base model"):
        _ = find_model(str(folder)).tokenizer
    assert capfd.readouterr() == ("", "")


def test_a_tokenizer_with_code_of_its_own_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}})
    )
    (folder / "own.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    try:
        _ = find_model(str(folder)).tokenizer
    except ModelError as error:
        assert "\n" not in str(error)
    assert not (tmp_path / "sprung").exists()


def test_text_is_what_the_tokens_say_whatever_the_configuration_wants_cleaned(folder: Path) -> None:
    """Llama 3's configuration asks for spaces before punctuation to go; transformers warns of that, or does it."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "clean_up_tokenization_spaces": True}))
    tokenizer: Any = find_model(str(folder)).tokenizer
    text = "It does n't matter , does it ?"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert not tokenizer.clean_up_tokenization_spaces


def test_stop_tokens_come_from_the_tokenizer_and_both_configurations(folder: Path) -> None:
    tokenizer: Any = find_model(str(folder)).tokenizer
    end = tokenizer.eos_token_id
    assert find_model(described(folder, {"eos_token_id": 7}, {"eos_token_id": [9, 5]})).stop_ids == (end, 5, 7, 9)
    assert find_model(described(folder, {"eos_token_id": None}, {})).stop_ids == (end,)
    assert find_model(described(folder, {"text_config": {"eos_token_id": [8]}}, {})).stop_ids == (end, 8)
    assert find_model(described(folder, {"eos_token_id": 7}, {"eos_token_id": [9, end]})).tokenizer.taught_end == end
    assert find_model(described(folder, {"eos_token_id": 7}, {"eos_token_id": [9, 5]})).tokenizer.taught_end == 9
    assert find_model(described(folder, {"eos_token_id": 7}, {"eos_token_id": 10**6})).tokenizer.taught_end == 7
    assert find_model(described(folder, {}, {})).tokenizer.taught_end == end
    (folder / "generation_config.json").write_text("[1]")
    with pytest.raises(ModelError, match="generation_config.json is not a JSON object"):
        _ = find_model(str(folder)).stop_ids
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"generation_config.json cannot be read \(.*\); copy it anew"):
        _ = find_model(str(folder)).stop_ids


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024, "n_ctx": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 2048}, "vision_config": {}}, 2048),
        ({"model_type": "mamba"}, None),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "dynamic", "factor": 2}}, 8192),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 4096),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": {"type": "longrope", "factor": 32.0}}, 131072),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 163840,
                "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096},
            },
            163840,
        ),
        (
            {
                "model_type": "gemma3_text",
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            131072,
        ),
    ],
)
def test_the_context_is_what_the_configuration_says(
    tmp_path: Path, config: dict[str, Any], expected: int | None
) -> None:
    assert find_model(described(tmp_path / "model", config)).context == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"attn_implementation": "someone/kernel"},
        {"_attn_implementation": "someone/kernel@v1:run"},
        {"_attn_implementation_internal": "paged|someone/kernel"},
        {"attn_implementation": {"": "sdpa", "vision_config": "someone/kernel"}},
        {"text_config": {"_attn_implementation": "someone/kernel"}},
        {"experts_implementation": "someone/kernel"},
    ],
)
def test_a_configuration_has_no_code_fetched_from_the_hub(folder: Path, changes: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ModelError, match="config.json asks for code of the hub .* delete that line"):
        find_model(str(folder)).with_weights()


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9}, {"n_layer": 1e9}, {"num_local_experts": 10**6},
        {"text_config": {"moe_num_experts": 10**5}},
    ],
)  # fmt: skip
def test_a_configuration_names_no_parts_without_an_end(
    folder: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ModelError, match="config.json gives .* models have at most 4,096 of such"):
        find_model(str(folder)).with_weights()
    monkeypatch.setenv("HARNESS_LIMIT_PARTS", "1000000000")
    assert find_model(str(folder)).with_weights() == folder


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", "[" * 100_000, "maximum recursion depth"),
        ("generation_config.json", '{"eos_token_id": "abc"}', "eos_token_id 'abc' is no token's number"),
        ("generation_config.json", '{"eos_token_id": [1, true]}', "is no token's number"),
        ("generation_config.json", '{"eos_token_id": [[1]]}', "is no token's number"),
    ],
)
def test_odd_values_of_a_model_are_one_line(folder: Path, file: str, content: str, said: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match=said):
        _ = find_model(str(folder)).stop_ids


@pytest.mark.parametrize("scaling", [[1], {"type": "linear", "factor": "2"}, {"rope_type": "yarn", "factor": None}])
def test_a_context_scaled_by_no_number_is_one_line(folder: Path, scaling: Any) -> None:
    described(folder, {"max_position_embeddings": 64, "rope_scaling": scaling, "rope_parameters": None})
    with pytest.raises(ModelError, match="scales the context by no number"):
        _ = find_model(str(folder)).context


def test_the_digest_depends_on_content_and_not_on_place_or_time(tiny: Path, folder: Path) -> None:
    os.utime(folder / "model.safetensors", (1, 1))
    assert find_model(str(folder)).digest == find_model(str(tiny)).digest
    assert len(find_model(str(tiny)).digest) == 64


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"])
def test_the_digest_sees_each_file_that_outputs_depend_on(tiny: Path, folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert find_model(str(folder)).digest != find_model(str(tiny)).digest


def test_the_digest_sees_a_new_chat_template(tiny: Path, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert find_model(str(folder)).digest != find_model(str(tiny)).digest


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "LICENSE.txt",
        "trainer_state.json",
        "optimizer.pt",
        "training_args.bin",
        "harness.json",
        "log.jsonl",
    ],
)
def test_the_digest_ignores_what_outputs_do_not_depend_on(tiny: Path, folder: Path, name: str) -> None:
    (folder / name).write_text("anything")
    (folder / "runs").mkdir()
    (folder / "runs" / "config.json").write_text("{}")
    assert find_model(str(folder)).digest == find_model(str(tiny)).digest


@pytest.mark.parametrize("place", [0, 0.25, 0.5, 0.999, -1])
def test_the_digest_of_a_large_file_sees_changed_weights_and_both_ends(folder: Path, place: float) -> None:
    import numpy

    large = folder / "model.safetensors"
    weights = numpy.random.default_rng(0).integers(0, 256, 20 << 20, dtype=numpy.uint8)
    weights.tofile(large)
    before = find_model(str(folder)).digest
    assert before == find_model(str(folder)).digest
    if place in (0, -1):
        weights[int(place)] ^= 1  # the header, or the last weight
    else:
        start = int(place * (len(weights) - len(weights) // 100))
        weights[start : start + len(weights) // 100] ^= 1  # one layer of a hundred
    weights.tofile(large)
    assert find_model(str(folder)).digest != before


def test_a_folder_is_one_object_until_a_file_of_it_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_model(str(folder))
    assert first is find_model(str(folder)) and first.tokenizer is find_model(str(folder)).tokenizer
    before, digest = first.context, first.digest
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 77}))
    changed = find_model(str(folder))
    assert (changed.context, first.context) == (77, before) and changed.digest != digest
    monkeypatch.chdir(folder.parent)
    here = find_model("model")
    (folder.parent / "below").mkdir()
    shutil.copytree(folder, folder.parent / "below" / "model")
    monkeypatch.chdir(folder.parent / "below")
    assert find_model("model") is not here


def test_a_model_stands_in_messages_as_it_was_named(folder: Path) -> None:
    found = find_model(str(folder))
    with pytest.raises(ModelError, match=f"^{folder}: the data has token 70000 of its tokenizer"):
        found.check_vocabulary(70000)


def test_an_error_without_words_still_has_a_name() -> None:
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("one.\ntwo")) == "one"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a model's download needs: a listing of each revision, and files."""

    commit = "c" * 40
    name = "org/tiny"
    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        type(self).asked.append(self.path)
        head = {"X-Repo-Commit": self.commit}
        api, files = f"/api/models/{self.name}/", f"/{self.name}/resolve/"
        path = self.path.partition("?")[0]
        if path in (f"{api}revision/main", f"{api}revision/{self.commit}"):
            names = sorted(path.name for path in self.folder.iterdir())
            listing = {"id": self.name, "sha": self.commit, "siblings": [{"rfilename": name} for name in names]}
            return self._send(200, {**head, "Content-Type": "application/json"}, json.dumps(listing).encode())
        if path.startswith(api + "tree/"):
            files_listed = [
                {"type": "file", "path": one.name, "size": one.stat().st_size, "oid": "0" * 40}
                for one in sorted(self.folder.iterdir())
            ]
            return self._send(200, {**head, "Content-Type": "application/json"}, json.dumps(files_listed).encode())
        if path.startswith(files) and (self.folder / path.rsplit("/", 1)[1]).is_file():
            content = (self.folder / path.rsplit("/", 1)[1]).read_bytes()
            return self._send(200, {**head, "ETag": f'"{hash(content):x}"'}, content)
        known = path.startswith((api, files))
        self._send(404, {"X-Error-Code": "RevisionNotFound" if known else "RepoNotFound"}, b"")

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tiny: Path) -> Iterator[ThreadingHTTPServer]:
    Hub.folder, Hub.asked = tiny, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask_hub(home: Path, endpoint: str, code: str, **environment: str) -> str:
    """Return the last line that `code` prints, in a process whose hub is at `endpoint` and whose cache is in `home`."""
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "HUGGING")) and not key.lower().endswith("_proxy")
    }
    clean |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    program = (
        "from harness.models import *\nfrom harness.errors import ModelError, first_line\n"
        f"try:\n    print({code})\nexcept ModelError as error:\n    print('ModelError:', error)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_a_hub_model_is_fetched_once_tokenizer_first_and_read_without_a_network(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_address[1]}"
    described = ask_hub(
        tmp_path, endpoint, "find_model('org/tiny').tokenizer.decode([0]), find_model('org/tiny').context"
    )
    assert described == "<|begin_of_text|> 1024"
    digest = ask_hub(tmp_path, endpoint, "find_model('org/tiny').digest")
    assert digest == ask_hub(tmp_path, endpoint, "find_model('org/tiny@main').digest")
    assert not any("safetensors" in path for path in Hub.asked)
    found = Path(ask_hub(tmp_path, endpoint, "find_model('org/tiny').with_weights()"))
    assert found.name == Hub.commit
    assert (found / "model.safetensors").read_bytes() == (Hub.folder / "model.safetensors").read_bytes()
    gone = "http://127.0.0.1:9"
    assert ask_hub(tmp_path, gone, "find_model('org/tiny').with_weights()") == str(found)
    assert ask_hub(tmp_path, gone, "find_model('org/tiny').with_weights()", HF_HUB_OFFLINE="1") == str(found)


def test_what_the_hub_does_not_have_is_one_line(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_address[1]}"
    assert "no such folder, and no such model on the Hugging Face hub" in ask_hub(
        tmp_path, endpoint, "find_model('org/other').tokenizer"
    )
    assert ask_hub(tmp_path, endpoint, "find_model('org/tiny@v9').with_weights()") == (
        "ModelError: org/tiny: has no revision 'v9' on the Hugging Face hub"
    )
    message = ask_hub(tmp_path / "empty", "http://127.0.0.1:9", "find_model('org/tiny').with_weights()")
    assert "hub cannot be reached and nothing is cached" in message and message.endswith("hf download org/tiny")
    assert "hub cannot be reached" in ask_hub(
        tmp_path / "empty", endpoint, "find_model('org/tiny').tokenizer", HF_HUB_OFFLINE="1"
    )


def adapter_on(folder: Path, base: str, header: bytes = b"{}", **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    card = {"peft_type": "LORA", "base_model_name_or_path": base, **more}
    (folder / "adapter_config.json").write_text(json.dumps(card))
    (folder / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


@pytest.mark.parametrize(
    "base",
    ["~nobody-known/base", "a" * 5000, "a" * 5000 + ".gguf", "a--b", "a..b", "a\0b", "org/name@../../x", "\ud800"],
)
def test_a_base_by_an_impossible_name_is_one_line(tmp_path: Path, base: str) -> None:
    for named in (base, str(adapter_on(tmp_path / "adapter", base))):
        with pytest.raises(ModelError) as caught:
            find_model(named)
        assert "\n" not in str(caught.value)


def test_adapters_on_each_other_have_an_end(tiny: Path, tmp_path: Path) -> None:
    for number in range(4):
        adapter_on(tmp_path / f"{number}", str(tmp_path / f"{number - 1}" if number else tiny))
    assert find_model(str(tmp_path / "3")).on_base is not None
    adapter_on(tmp_path / "0", str(tmp_path / "3"))
    with pytest.raises(ModelError, match="more than 4 adapters on each other, perhaps without an end"):
        find_model(str(tmp_path / "3"))


@pytest.mark.parametrize("header", [b"[" * 200_000, b'{"a":' * 200_000, b"[" + b"[]," * (12 << 20) + b"[]]", b"\xff"])
def test_weights_of_an_adapter_with_an_odd_header_are_one_line(tiny: Path, tmp_path: Path, header: bytes) -> None:
    with pytest.raises(ModelError, match="adapter_model.safetensors: cannot be read"):
        find_model(str(adapter_on(tmp_path / "adapter", str(tiny), header)))


@pytest.mark.parametrize("shard", ["../other/model.safetensors", "/etc/model.safetensors", "a/b.safetensors"])
def test_weights_in_another_folder_are_not_read(folder: Path, tmp_path: Path, shard: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ModelError, match="which is no file beside it"):
        find_model(str(folder)).with_weights()
