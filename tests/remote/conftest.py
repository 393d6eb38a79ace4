"""An S3 for all tests here, a way to it that can be made faulty, and an address of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from contracts.object_store import BUCKET, VARIABLES, FaultyWay, s3

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def way() -> Iterator[FaultyWay]:
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    with s3() as port:
        server = FaultyWay(port)
        yield server
        server.close()


@pytest.fixture
def address(way: FaultyWay, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where nothing lies yet, behind a way without faults until a test asks for some."""
    for name, value in {**VARIABLES, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{way.port}"}.items():
        monkeypatch.setenv(name, value)
    way.set("")
    return f"s3://{BUCKET}/{next(_NUMBERS)}/gen0.zarr"
