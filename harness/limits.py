"""Bounds on what others hand over: each has a default that real use does not meet, and a variable that moves it.

``HARNESS_LIMIT_LINE=1GiB harness show RUN`` reads longer lines. Where a bound is met, the error names its variable.

    >>> LINE.value, str(LINE)
    (67108864, 'HARNESS_LIMIT_LINE')
    >>> LINE.told
    '64 MiB'
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from harness.errors import ConfigError

_SIZE = re.compile(r"(\d{1,18})\s*([KMGT]i?B?)?", re.IGNORECASE)
_UNITS = "KMGT"


@dataclass(frozen=True)
class Limit:
    """A bound: what its variable is called behind ``HARNESS_LIMIT_``, its default, and whether it counts bytes."""

    name: str
    default: int
    of_bytes: bool = True

    def __str__(self) -> str:
        return f"HARNESS_LIMIT_{self.name}"

    @property
    def value(self) -> int:
        """The bound that holds now. Raises ConfigError where the variable holds no such number."""
        given = os.environ.get(str(self))
        if not given:
            return self.default
        found = _SIZE.fullmatch(given.strip())
        if found is None:
            such = self._worded(self.default).replace(" ", "")
            raise ConfigError(f"{self}={given!r} must be a whole number, such as {such}")
        unit = found[2]
        return int(found[1]) << (10 * (1 + _UNITS.index(unit[0].upper())) if unit else 0)

    @property
    def told(self) -> str:
        """The bound as it is told."""
        return self._worded(self.value)

    def _worded(self, value: int) -> str:
        if not self.of_bytes:
            return f"{value:,}"
        power = next((power for power in (3, 2, 1) if value and value % (1 << 10 * power) == 0), 0)
        return f"{value >> 10 * power:,} {['bytes', 'KiB', 'MiB', 'GiB'][power]}"


#: A file of one JSON record, or one that describes a model.
RECORD = Limit("RECORD", 32 << 20)
#: A tokenizer's vocabulary.
TOKENIZER = Limit("TOKENIZER", 256 << 20)
#: A line of a file of records or rows.
LINE = Limit("LINE", 64 << 20)
#: A .json file of rows, which is read as a whole.
JSON = Limit("JSON", 1 << 30)
#: What the values in a JSON record, line or file are reckoned to take of memory.
MEMORY = Limit("MEMORY", 512 << 20)
#: What a packed file may unpack to, however small it is.
UNPACKED = Limit("UNPACKED", 1 << 30)
#: The samples of a run, by their indices.
SAMPLES = Limit("SAMPLES", 1 << 24, of_bytes=False)
#: The rows of a Parquet file.
ROWS = Limit("ROWS", 1 << 27, of_bytes=False)
#: An answer of a server.
ANSWER = Limit("ANSWER", 64 << 20)
#: A data file, or a model's description, that is downloaded from a hub.
DOWNLOAD = Limit("DOWNLOAD", 16 << 30)
#: Seconds in which a hub sends nothing that could be stored (its client stores 10 MB at once).
STALL = Limit("STALL", 600, of_bytes=False)
#: Seconds that a parser or scorer may take over one output.
SECONDS = Limit("SECONDS", 30, of_bytes=False)
#: A chat template.
TEMPLATE = Limit("TEMPLATE", 1 << 20)
#: Layers, or experts of a layer, that a model is made of, by its description.
PARTS = Limit("PARTS", 4096, of_bytes=False)
#: Turns of loops and calls of macros of a chat template over one conversation.
STEPS = Limit("STEPS", 200_000, of_bytes=False)
