"""An S3 for all tests here, a way to it that can be made faulty, and an address of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from contracts.object_store import BUCKET, VARIABLES, FaultyWay, s3

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def _server() -> Iterator[FaultyWay]:
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    with s3() as port:
        server = FaultyWay(port)
        yield server
        server.close()


@pytest.fixture
def address(_server: FaultyWay, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where nothing lies yet."""
    for name, value in {**VARIABLES, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{_server.behind}"}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{next(_NUMBERS)}/gen0.zarr"


@pytest.fixture
def way(address: str, _server: FaultyWay, monkeypatch: pytest.MonkeyPatch) -> FaultyWay:
    """The way that a test's requests then take; without faults until it asks for some."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{_server.port}")
    _server.set("")
    return _server
