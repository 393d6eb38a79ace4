"""Where what is kept between runs lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from bancache.errors import UsageError
from bancache.system.files import cache_directory


def test_the_users_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CACHE_HOME if it is absolute, otherwise ~/.cache; without a home one line says what to set."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory("decoded") == tmp_path / ".cache" / "bancache" / "decoded"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory("decoded") == tmp_path / ".cache" / "bancache" / "decoded"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory("targets") == tmp_path / "bancache" / "targets"
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(UsageError, match="home"):
        cache_directory("decoded")
