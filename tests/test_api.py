"""The public names."""

import importlib
import subprocess
import sys

import pytest

import bancache


def test_every_public_name_resolves_and_they_are_sorted() -> None:
    assert sorted(bancache.__all__) == bancache.__all__
    assert set(bancache._HOMES) == set(bancache.__all__)
    for name in bancache.__all__:
        assert getattr(bancache, name) is not None


@pytest.mark.parametrize("package", ["bancache", "bancache.models", "bancache.training"])
def test_another_name_is_an_attribute_error(package: str) -> None:
    assert not hasattr(importlib.import_module(package), "nothing")


def test_importing_bancache_and_asking_for_help_loads_no_torch() -> None:
    """In a process of its own, since this one has torch already."""
    code = """
import sys
import bancache
from bancache_cli import main
assert main(["--help"]) == 0
assert main(["dump", "--help"]) == 0
heavy = {"torch", "zarr", "torchvision", "sklearn", "pyarrow"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Example: bancache dump --teacher gen0.pt" in done.stdout.replace("`", "")
