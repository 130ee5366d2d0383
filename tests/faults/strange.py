"""What a stranger may do to a file: to its bytes, its lines, the values in its JSON, and to what it is at all.

All is drawn from a `random.Random`, so that a seed gives the same again.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import socket
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: A file that something executed would leave in the working folder.
EXECUTED = "executed"


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (EXECUTED,))


PICKLE = pickle.dumps(_Runs())
TEMPLATE = (
    "{{ cycler.__init__.__globals__.os.mkdir('" + EXECUTED + "') }}",
    "{% for a in range(99999999) %}{% for b in range(99999999) %}x{% endfor %}{% endfor %}",
    "{{ 'x' * 9999999999 }}",
    "{{ (range(99999999)|list)|length }}",
    "{% set ns = namespace(x='x') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ '%99999999999d' % 1 }}",
    "{{ messages|tojson(indent=999999999) }}",
    "{% include '/etc/passwd' %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ raise_exception('\x1b[31m\u202e') }}",
    "{{ strftime_now('%' * 99999) }}",
    "{" * 100_000,
    "{% if " + "(" * 20_000 + "1" + ")" * 20_000 + " %}{% endif %}",
    "{% for m in messages %}{{ m.content }}{% endfor %}{{ bos_token }}\0\u202e",
)

#: Values for a place in JSON, as text: what Python's own reader takes, standard or not.
VALUES: tuple[str, ...] = (
    "null", "true", "false", "0", "-1", "1", "0.5", "-0.0", "1e308", "-1e308", "1e999", "NaN", "Infinity", "-Infinity",
    str(2**31), str(2**32), str(2**53 + 1), str(2**63), str(-(2**63) - 1), str(2**64), "1" + "0" * 30, "9" * 5000,
    '""', '" "', '"\\u0000"', '"\\ud800"', '"\\u202e\\u2066"', '"\\u001b[31m"', '"a\\nb"', '"/etc/passwd"',
    '"../../victim/precious.txt"', '"victim"', '"/dev/zero"', '"\\u0000/x"', '"org/name"', '"%s%n{0}"', '"latest:*"',
    '"__import__(\'os\').mkdir(\'executed\')"', '"' + "x" * 300 + '"', '"' + "ä\U0001f600" * 50_000 + '"',
    "[]", "{}", "[[]]", "[null]", '[""]', "[0]", "[1e308]", '{"": null}', '{"a": {"a": {"a": 1}}}',
    "[" * 500 + "]" * 500, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000,
    "[" + "0," * 100_000 + "0]", "[" + "{}," * 300_000 + "{}]", '["' + '","' * 50_000 + '"]',
    json.dumps(TEMPLATE[0]), json.dumps(TEMPLATE[1]), json.dumps(TEMPLATE[2]),
)  # fmt: skip

Parts = tuple[Any, ...]


def changed(content: bytes, name: str, chance: random.Random) -> bytes:
    """Return a file's content with one to three things changed in it, as becomes its name."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        kinds = [_bytes]
        if name.endswith(".jsonl"):
            kinds = [_line_of_json, _line_of_json, _line_of_json, _lines, _bytes]
        elif name.endswith(".json"):
            kinds = [_json, _json, _json, _bytes]
        elif name.endswith((".csv", ".tsv", ".txt", ".jinja", ".prompt", ".toml")):
            kinds = [_lines, _words, _bytes]
        elif name.endswith(".safetensors"):
            kinds = [_header, _header, _bytes]
        content = chance.choice(kinds)(content, chance)
    return content


def _bytes(content: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(content) + 1), chance.choice((1, 2, 8, 64))
    piece = chance.choice(
        (b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n", b'"', b"[", b"{", b"\x1b[2J", b"\x80" * 9,
         PICKLE, b"x" * 100_000, b"\0" * 4096, content[:200])
    )  # fmt: skip
    match chance.randrange(5):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + piece + content[at:]
        case 2:
            return content[:at] + piece + content[at + len(piece) :]
        case 3:
            return content[:at] + content[at + size :]
        case _:
            return (
                content[:at]
                + bytes(b ^ 1 << chance.randrange(8) for b in content[at : at + size])
                + content[at + size :]
            )


def _lines(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b"\n"]
    at = chance.randrange(len(lines))
    match chance.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[chance.randrange(len(lines))])
        case 2:
            lines.insert(at, chance.choice((b"\n", b"{}\n", b"[]\n", b"null\n", b"\0\n", b"x" * 2_000_000 + b"\n")))
        case 3:
            chance.shuffle(lines)
        case 4:
            lines[at] = lines[at].rstrip(b"\n")
        case _:
            lines = lines[at:] * chance.choice((1, 2, 50))
    return b"".join(lines)


def _words(content: bytes, chance: random.Random) -> bytes:
    pieces = chance.choice(
        (b",", b'"', b'""', b"\t", b"=cmd()", b"{{", b"}}", b"{x.__class__}", b"{% for a in b %}", b"\xe2\x80\xae",
         *(each.encode("utf-8", "surrogatepass") for each in TEMPLATE))
    )  # fmt: skip
    at = chance.randrange(len(content) + 1)
    return content[:at] + pieces + content[at:]


def _line_of_json(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    at = chance.randrange(len(lines))
    lines[at] = _json(lines[at], chance).replace(b"\n", b"") + b"\n"
    return b"".join(lines)


def _json(content: bytes, chance: random.Random) -> bytes:
    """Put a value in the place of one, add a key, or leave one out."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(content, chance)
    places = list(_places(value))
    if not places:
        return chance.choice(VALUES).encode("utf-8", "surrogatepass")
    holder, key = places[chance.randrange(len(places))]
    mark = f"@{chance.randrange(1 << 60)}@"
    match chance.randrange(8):
        case 0:
            del holder[key]
            mark = ""
        case 1:
            if isinstance(holder, dict):
                holder[chance.choice(("", "__class__", "\0", "a" * 1000, "format", "type", "path", "options"))] = mark
            else:
                holder[key:key] = [mark] * chance.choice((1, 2, 1000))
        case 2:
            other, place = places[chance.randrange(len(places))]
            holder[key] = json.loads(json.dumps(other[place]))
            mark = ""
        case _:
            holder[key] = mark
    text = json.dumps(value)
    if mark:
        text = text.replace(f'"{mark}"', chance.choice(VALUES))
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 5000:
        each = waiting.pop()
        names: Sequence[Any] = (
            list(each) if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else []
        )
        found += [(each, name) for name in names]
        waiting += [each[name] for name in names]
    return found


def _header(content: bytes, chance: random.Random) -> bytes:
    """Change the header of a safetensors file: its JSON, or the size that stands before it."""
    size = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + size], content[8 + size :]
    if chance.random() < 0.2:
        lie = chance.choice((0, 1, size - 1, size + 1, len(content), 2**31, 2**63, 2**64 - 1))
        return (lie % 2**64).to_bytes(8, "little") + header + rest
    header = _json(header, chance)
    return len(header).to_bytes(8, "little") + header + rest


#: What may stand in the place of a file; `victim` is the user's own, which must stay as it is.
Odd = Callable[[Path, Path], object]


def _bind(path: Path, victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(path.parent)  # the name of a socket has at most 108 bytes
        try:
            server.bind(path.name)
        finally:
            os.chdir(before)


def _sparse(path: Path, victim: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def _packed_zeros(path: Path, victim: Path) -> None:
    path.write_bytes(gzip.compress(b"[" * (8 << 20), 1))


def _zip(path: Path, victim: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../escaped", b"0" * (1 << 20))
    path.write_bytes(packed.getvalue())


ODD: dict[str, Odd] = {
    "link to a file": lambda path, victim: path.symlink_to(victim),
    "link to itself": lambda path, victim: path.symlink_to(path.name),
    "link to nothing": lambda path, victim: path.symlink_to(victim.with_name("nothing")),
    "link to zeros": lambda path, victim: path.symlink_to("/dev/zero"),
    "link to a folder": lambda path, victim: path.symlink_to(victim.parent),
    "link to a terminal": lambda path, victim: path.symlink_to("/dev/tty"),
    "second name of a file": lambda path, victim: path.hardlink_to(victim),
    "pipe": lambda path, victim: os.mkfifo(path),
    "socket": _bind,
    "folder": lambda path, victim: path.mkdir(),
    "empty": lambda path, victim: path.write_bytes(b""),
    "missing": lambda path, victim: None,
    "sparse": _sparse,
    "pickle": lambda path, victim: path.write_bytes(PICKLE),
    "packed": _packed_zeros,
    "zip": _zip,
    "brackets": lambda path, victim: path.write_bytes(b"[" * (4 << 20)),
    "lists": lambda path, victim: path.write_bytes(b"[" + b"[]," * (12 << 20) + b"[]]"),
    "objects": lambda path, victim: path.write_bytes(b'[{"a":0}' + b',{"a":0}' * (6 << 20) + b"]"),
    "one line": lambda path, victim: path.write_bytes(b'{"output": "' + b"x" * (80 << 20) + b'"}\n'),
    "wide characters": lambda path, victim: path.write_bytes("\U0001f600".encode() + b'"' * (90 << 20)),
}
