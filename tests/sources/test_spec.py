"""DataSpec travels as JSON and refuses what cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bancache.errors import UsageError
from bancache.sources.spec import DataSpec


def test_round_trip_through_json() -> None:
    """What a checkpoint stores gives back an equal spec."""
    for spec in (DataSpec("digits"), DataSpec("folder:photos", limit=7, image_size=32)):
        assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_unknown_key_names_the_nearest() -> None:
    """A setting from a newer version, or misspelt, is not dropped silently."""
    with pytest.raises(UsageError, match="'limits'") as caught:
        DataSpec.from_dict({"source": "digits", "limits": 3})
    assert caught.value.hint == "did you mean 'limit'?"


def test_resolved_makes_the_path_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path, one with dots and one from home become absolute; digits has none."""
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DataSpec("folder:x").resolved().source == f"folder:{tmp_path}/a/x"
    assert DataSpec("parquet:../x", limit=2).resolved() == DataSpec(f"parquet:{tmp_path}/x", limit=2)
    assert DataSpec("npz:~/x.npz").resolved().source == f"npz:{tmp_path}/x.npz"
    assert DataSpec("digits").resolved() == DataSpec("digits")


def test_kind() -> None:
    """Defaults of a run depend on the kind alone."""
    assert DataSpec("digits").kind == "digits"
    assert DataSpec("fashion-mnist:data").kind == "fashion-mnist"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "digit"}, "'digit'"),
        ({"source": "digits", "limit": 0}, "limit 0"),
        ({"source": "digits", "image_size": 0}, "size 0"),
    ],
)
def test_refuses(values: dict[str, Any], message: str) -> None:
    """A wrong setting is found when the spec is made, before a long run starts."""
    with pytest.raises(UsageError, match=message):
        DataSpec(**values)
