"""The rooms of the mutation run are those of the code, and the survivors that it lists are still drawn."""

from __future__ import annotations

import tomllib

from tests.mutants.__main__ import HERE, Room, found


def test_every_room_has_files_tests_and_mutants() -> None:
    tables = tomllib.loads((HERE / "rooms.toml").read_text("utf-8"))
    rooms = [Room(name, **table) for name, table in tables.items()]
    drawn = {}
    for room in rooms:
        assert found(room.tests), room.name
        drawn[room.name] = [mutant.key for mutant, _ in room.drawn(None)]
        assert len(drawn[room.name]) == room.count
    listed = tomllib.loads((HERE / "survivors.toml").read_text("utf-8"))
    gone = listed.keys() - {key for keys in drawn.values() for key in keys}
    assert not gone, "these are not drawn any more; tests/mutants/survivors.toml lists them"
