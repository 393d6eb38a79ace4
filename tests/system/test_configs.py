"""Settings as TOML: what is written is read again, whatever characters a path has."""

from __future__ import annotations

from pathlib import Path

import pytest

from bancache.errors import UsageError
from bancache.system.configs import read_toml, write_toml


@pytest.mark.parametrize(
    "text",
    ["plain", "naïve/café", "photos 📷/火", 'a "quoted" \\ path', "tab\tline\n", "\x7f delete", ""],
    ids=ascii,
)
def test_every_path_is_read_again_as_it_was_written(tmp_path: Path, text: str) -> None:
    tables = {"data": {"source": f"folder:{text}", "limit": 5}, "sequence": {"seeds": [0, 1], "rate": 0.1}}
    write_toml(tmp_path / "run.toml", tables)
    assert read_toml(tmp_path / "run.toml") == tables


def test_a_value_of_none_is_left_out(tmp_path: Path) -> None:
    write_toml(tmp_path / "run.toml", {"data": {"source": "digits", "limit": None}})
    assert read_toml(tmp_path / "run.toml") == {"data": {"source": "digits"}}


@pytest.mark.parametrize("content", [None, b"[data\n", b"\xff\xfe"], ids=["missing", "torn", "not UTF-8"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"run\.toml"):
        read_toml(tmp_path / "run.toml")
