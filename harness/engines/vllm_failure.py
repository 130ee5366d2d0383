"""Why vLLM has failed, out of its message and its log, and what helps."""

from __future__ import annotations

import os
import re
import tempfile
from typing import IO

#: What vLLM says on failure → what helps. The first that matches counts.
_REMEDIES = (
    (r"less than desired", "free the memory that other processes hold, or lower vllm.gpu_memory_utilization"),
    (
        r"KV cache|cache blocks|max seq len",
        "shorten the context with vllm.max_model_len, or raise vllm.gpu_memory_utilization",
    ),
    (
        r"out of memory|OutOfMemory|ended with code -9",
        "lower vllm.gpu_memory_utilization or vllm.max_num_seqs, or raise vllm.tensor_parallel_size",
    ),
    (r"max_model_len", "lower vllm.max_model_len"),
)

#: Errors that only point at another process's error, which is in the log.
_INDIRECT = r"[Rr]oot cause|EngineDeadError|ended with code"

#: A line of vLLM's log, or of a bare traceback, that names an exception.
_LOGGED_ERROR = r"^(?:\(.*?pid=\d+\) )?(?:ERROR \S+ \S+ \[\S+\] )?((?:\w+\.)*\w*(?:Error|Exception): .+)"

#: Bytes of its log that are kept with an error.
_MOST_LOG = 1 << 20

#: Characters of vLLM's message that an error quotes.
_LONGEST = 300


def explained(message: str, log: IO[bytes] | None) -> tuple[str, str, str]:
    """Return the cause of a failure, the remedy where one is known, and where the log is, which is kept."""
    cause, where = message, "its log is above"
    if log:
        content = os.pread(log.fileno(), _MOST_LOG, 0).decode("utf-8", "replace")
        where = f"log: {_keep(content)}"
        if re.search(_INDIRECT, message) and (logged := re.search(_LOGGED_ERROR, content, re.MULTILINE)):
            cause = logged[1]  # the first; those after it are the other processes' accounts of it
    remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, cause)), "")
    return cause[:_LONGEST].rstrip(". "), remedy, where


def _keep(log: str) -> str:
    """Write a log to a file that stays, and return its path."""
    descriptor, path = tempfile.mkstemp(prefix="harness-vllm-", suffix=".log")
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(log)
    return path
