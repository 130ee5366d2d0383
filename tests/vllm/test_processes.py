"""The vLLM engine's processes: replicas, what is left after closing, and what is said when one cannot start or dies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # vLLM depends on it
import pytest

from harness.config import configure
from harness.engines.vllm import VllmEngine, harness_engines
from harness.errors import ConfigError, ModelError
from harness.types import Generation, Prompt, Request

OPTIONS: dict[str, Any] = {"enforce_eager": True, "max_model_len": 256, "max_num_seqs": 8}


def processes() -> list[Any]:
    """Return the processes below this one."""
    return [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def shared_memory(started: list[Any]) -> set[Path]:
    """Return the shared memory that these processes use."""
    maps = [Path(f"/proc/{one.pid}/maps").read_text() for one in started]
    return {Path(name) for text in maps for name in re.findall(r"/dev/shm/psm_\w+", text)}


def wait_until_gone(started: list[Any]) -> None:
    _, alive = psutil.wait_procs(started, timeout=60)
    assert [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []


def ask(prompts: list[Prompt], count: int, max_tokens: int = 200) -> list[Request]:
    generation = Generation(max_tokens=max_tokens, stop=("never",))
    return [Request(str(n), prompts[n % len(prompts)], generation, n) for n in range(count)]


def test_two_replicas_share_the_work_and_leave_nothing(
    folder: Path, prompts: list[Prompt], reference: Callable[[Prompt, Generation], Any]
) -> None:
    before = processes()
    model = VllmEngine(**OPTIONS, data_parallel_size=2).load(str(folder))
    started = [child for child in processes() if child not in before]
    shared = shared_memory(started)
    assert sum("EngineCore" in child.name() or "EngineCor" in child.name() for child in started) == 2
    generation = Generation(max_tokens=60)
    requests = [Request(str(n), prompts[n % 12], generation, n) for n in range(48)]
    completions = list(model.generate(requests))
    assert sorted(int(one.id) for one in completions) == list(range(48))
    for completion in completions:
        expected = reference(prompts[int(completion.id) % 12], generation)
        assert (completion.text, completion.finish_reason, completion.completion_tokens) == expected
    model.close()
    wait_until_gone(started)
    assert shared and not [path for path in shared if path.exists()]
    model.close()  # twice is once
    with pytest.raises(ModelError, match="closed"):
        next(model.generate(requests))


def test_a_killed_engine_is_one_line_and_a_new_load_works(folder: Path, prompts: list[Prompt]) -> None:
    before = processes()
    model = VllmEngine(**OPTIONS).load(str(folder))
    started = [child for child in processes() if child not in before]
    shared = shared_memory(started)
    (core,) = [child for child in started if "EngineCor" in child.name()]
    completions = model.generate(ask(prompts, 1000))
    next(completions)
    core.kill()
    with pytest.raises(ModelError) as raised:
        list(completions)
    message = str(raised.value)
    assert message.startswith("vLLM died while generating: its process EngineCore ended with code -9")
    assert "\n" not in message and "lower vllm.gpu_memory_utilization" in message
    log = Path(message.rpartition("log: ")[2])
    assert log.is_file()
    log.unlink()
    wait_until_gone(started)
    assert shared and not [path for path in shared if path.exists()]
    with pytest.raises(ModelError, match="closed"):
        next(model.generate(ask(prompts, 1)))
    model.close()

    again = VllmEngine(**OPTIONS).load(str(folder))  # as a judge is loaded after the evaluated model
    assert [one.error for one in again.generate(ask(prompts, 3, max_tokens=5))] == [None] * 3
    again.close()


def test_a_killed_harness_leaves_no_process(folder: Path) -> None:
    program = (
        "from harness.engines.vllm import VllmEngine\n"
        "from harness.types import Generation, Prompt, Request\n"
        f"model = VllmEngine(**{OPTIONS!r}).load({str(folder)!r})\n"
        "requests = (Request(str(n), Prompt('', (40, 41)), Generation(max_tokens=200)) for n in range(10**9))\n"
        "for completion in model.generate(requests):\n"
        "    print('one', flush=True)\n"
    )
    harness = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert harness.stdout is not None
    assert harness.stdout.readline() == "one\n"
    started = psutil.Process(harness.pid).children(recursive=True)
    assert any("EngineCor" in child.name() for child in started)
    harness.kill()
    harness.stdout.close()
    harness.wait()
    wait_until_gone(started)


def test_what_vllm_refuses_is_one_line_with_the_remedy(folder: Path) -> None:
    before = processes()
    with pytest.raises(ModelError) as raised:
        VllmEngine(enforce_eager=True, max_model_len=5000).load(str(folder))
    message = str(raised.value)
    assert "vLLM cannot load the model: " in message and "max_model_len (5000)" in message
    assert "lower vllm.max_model_len" in message and "\n" not in message
    Path(message.rpartition("log: ")[2]).unlink()
    wait_until_gone([child for child in processes() if child not in before])


def test_a_cause_in_a_worker_process_is_found(folder: Path) -> None:
    """The first process only hears that another one has failed."""
    with pytest.raises(ModelError) as raised:
        VllmEngine(enforce_eager=True, engine_args={"kv_cache_memory_bytes": 1 << 18}).load(str(folder))
    message = str(raised.value)
    assert "KV cache" in message and "shorten the context with vllm.max_model_len" in message and "\n" not in message
    Path(message.rpartition("log: ")[2]).unlink()


def test_an_interrupted_load_leaves_no_process(folder: Path) -> None:
    program = f"from harness.engines.vllm import VllmEngine; VllmEngine(enforce_eager=True).load({str(folder)!r})"
    harness = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    started: list[Any] = []
    while not started:
        time.sleep(0.1)
        started = psutil.Process(harness.pid).children(recursive=True)
    time.sleep(2)
    started = psutil.Process(harness.pid).children(recursive=True)
    harness.send_signal(signal.SIGINT)
    _, errors = harness.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    wait_until_gone(started)


def test_a_folder_with_a_pickle_only_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        VllmEngine(**OPTIONS).load(str(copy))


def test_a_folder_without_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        VllmEngine(**OPTIONS).load(str(copy))


def test_available_where_vllm_is_and_not_where_it_is_not(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert VllmEngine().available() is None
    monkeypatch.setitem(sys.modules, "vllm", None)  # what Python itself does to say that a module cannot be had
    reason = VllmEngine().available()
    assert reason is not None and "pip install" in reason
    with pytest.raises(ModelError, match="not installed"):
        VllmEngine().load(str(folder))


def test_options_are_checked() -> None:
    (engine,) = harness_engines()
    table = {"tensor_parallel_size": "2", "max_model_len": 512, "engine_args": {"kv_cache_dtype": "fp8"}}
    configured = configure(engine, table, "vllm")
    assert configured == VllmEngine(tensor_parallel_size=2, max_model_len=512, engine_args={"kv_cache_dtype": "fp8"})
    for wrong in ({"tensor_parallel_size": 0}, {"gpu_memory_utilization": 1.5}, {"max_num_seqs": 0}, {"tp": 2}):
        with pytest.raises(ConfigError):
            configure(engine, wrong, "vllm")


def test_identity_is_of_what_completions_depend_on(folder: Path) -> None:
    identity = VllmEngine().identity(str(folder))
    assert VllmEngine(data_parallel_size=2, max_num_seqs=4).identity(str(folder)) == identity
    assert VllmEngine(dtype="bfloat16").identity(str(folder)) != identity
    assert VllmEngine(engine_args={"kv_cache_dtype": "fp8"}).identity(str(folder)) != identity


def test_a_log_level_of_the_user_brings_the_log_to_the_terminal(folder: Path) -> None:
    program = f"from harness.engines.vllm import VllmEngine; VllmEngine(max_model_len=5000).load({str(folder)!r})"
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "INFO"}
    loud = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert loud.returncode == 1 and loud.stdout == ""
    assert "INFO" in loud.stderr and "its log is above" in loud.stderr
