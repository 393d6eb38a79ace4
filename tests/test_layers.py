"""The import contract, so that plain pytest catches a wrong import."""

from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tools import rooms


def test_imports_go_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).parent.parent / "pyproject.toml"
    status = lint_imports(config_filename=str(config), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_no_imports_form_a_circle_not_even_for_types() -> None:
    """Of modules and of rooms; imports under TYPE_CHECKING and inside functions count."""
    imports = rooms.imports()
    assert rooms.circle(imports) == []
    assert rooms.circle(rooms.by_room(imports)) == []


def test_imports_are_read_wherever_they_stand() -> None:
    imports = rooms.imports()
    assert "bancache.errors" in imports["bancache.cache.reader"]
    assert {room for others in rooms.by_room(imports).values() for room in others} <= set(
        rooms.by_room(imports)
    )
    assert sorted(rooms.by_room(imports)) == sorted(room for layer in rooms.layers() for room in layer)


def test_a_circle_is_found() -> None:
    assert len(rooms.circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == 4


def test_every_room_of_the_way_exists() -> None:
    known = {room for layer in rooms.layers() for room in layer}
    assert {room for room, _ in rooms.WAY} <= known
