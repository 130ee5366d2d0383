"""Find, verify and read data: local files and the Hugging Face hub.

A `DataSource` stands for ``--data DIR``, or for the hub where no folder is given:

    source = DataSource("data")
    rows = source.rows("gsm8k/test.jsonl", hub=TEST, required=("question", "answer"))
    rows[16]["question"]  # parsed now; the whole file was checked when it was opened
    rows.place(16)        # "data/gsm8k/test.jsonl:17", for messages
    source.used           # names, digests and revisions, for the run record

Examples made from rows may stay as lazy as these: see `Mapped`.
"""

from harness.datasets.hub import HubFile
from harness.datasets.mapped import Mapped
from harness.datasets.read import read_rows
from harness.datasets.rows import Row, Rows, file_sha256
from harness.datasets.source import DataSource
from harness.datasets.tables import read_json_file

__all__ = ["DataSource", "HubFile", "Mapped", "Row", "Rows", "file_sha256", "read_json_file", "read_rows"]
