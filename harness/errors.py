"""The errors a user can meet: each carries one line that names the place and the remedy.

    HarnessError
     ├── DataError       a file that cannot be used: file, line, remedy
     ├── ConfigError     an option that does not exist or does not fit
     ├── PluginError     a plugin that is missing, broken or ambiguous
     ├── ModelError      a model or an engine that cannot be loaded
     │    └── PromptError  a text that a prompt format cannot hold
     └── RunError        a run folder that cannot be written, resumed or read

The command line prints the message alone and exits with 2; `HARNESS_DEBUG=1` shows the traceback.
"""

from __future__ import annotations

from collections.abc import Iterable


class HarnessError(Exception):
    """The base of every error whose message is meant for the user as it stands."""


class HarnessWarning(UserWarning):
    """What a caller from Python is told where the command line prints a warning."""


class DataError(HarnessError):
    """A data file is missing, malformed or not what was pinned."""


class ConfigError(HarnessError):
    """An option, a run file or a name given by the user does not fit."""


class PluginError(HarnessError):
    """A plugin is unknown, broken, disabled or claimed by two distributions."""


class ModelError(HarnessError):
    """A model, a tokenizer or an engine cannot be loaded or run here."""


class PromptError(ModelError):
    """One text that the model's prompt format cannot hold; others may do."""


class RunError(HarnessError):
    """A run folder cannot be created, locked, resumed or read."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``; did you mean 'gsm8k'?``, or the known names when none is near.

    >>> nearest("gsm8", ["gsm8k", "mmlu"])
    "; did you mean 'gsm8k'?"
    >>> nearest("x", ["mmlu", "gsm8k"])
    '; known: gsm8k, mmlu'
    >>> nearest("x", [])
    ''
    """
    names = sorted(set(known))
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without its full stop, or its type if it has none.

    >>> first_line(ValueError("Not valid:\\n  the width is 0.\\n  Look it up."))
    'Not valid: the width is 0'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines[0] += f" {lines[1]}"
    return lines[0].rstrip(".") if lines else type(error).__name__


def unloadable(error: BaseException) -> str:
    """Return why transformers could not load weights; of shapes its message tells a setting that nobody has made."""
    if "ignore_mismatched_sizes" in str(error):
        return "its weights have other shapes than config.json says"
    return first_line(error)


def untrusted(error: BaseException | None) -> str | None:
    """Return why an encrypted connection was not trusted, with the remedy, where that is what led to `error`."""
    while error is not None:
        said = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in said:
            reason = said.partition("verify failed: ")[2].partition(" (_ssl")[0].partition("\n")[0]
            authority = "give the authority that signed it as SSL_CERT_FILE=FILE.pem"
            return f"its certificate is not trusted here{f' ({reason})' if reason else ''}: {authority}"
        error = error.__cause__ or error.__context__
    return None
