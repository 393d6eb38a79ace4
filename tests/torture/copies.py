"""Object stores that fail: faulty requests and damaged objects."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from contracts.killing import tree
from contracts.object_store import BUCKET, FAULTS, VARIABLES, FaultyWay, s3
from torture.rows import Ground, NotHere, Row

from bancache.errors import CacheDamagedError
from bancache.remote.pull import pull
from bancache.remote.push import push
from bancache.system.bucket import Bucket, Patience

_PATIENT = Patience(total=30.0, pause=0.02)


@contextmanager
def store() -> Iterator[FaultyWay]:
    try:
        with s3() as port:
            way = FaultyWay(port)
            try:
                with patch.dict(
                    os.environ, {**VARIABLES, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{way.port}"}
                ):
                    yield way
            finally:
                way.close()
    except ImportError as error:
        raise NotHere(f"{error.name} is not installed") from error


def faulty_requests(ground: Ground) -> Iterator[bool]:
    """Every second to fifth request meets a fault; what was pushed comes back, byte for byte."""
    chance = random.Random(21)
    with store() as way:
        for number in ground.numbers(200):
            bucket, back = Bucket(f"s3://{BUCKET}/{number}", _PATIENT), ground.place("trial") / "back.zarr"
            way.set(chance.choice([f for f in FAULTS if f != "stall"]), every=chance.randint(2, 5))
            push(ground.cache, bucket)
            pull(bucket, back)
            yield way.met > 0 and tree(back) == tree(ground.cache)


def damaged_objects(ground: Ground) -> Iterator[bool]:
    """One bit of one object is flipped: it is refused and not stored here; another push repairs it."""
    chance = random.Random(21)
    with store() as way:
        way.set("")
        bucket = Bucket(f"s3://{BUCKET}/damaged")
        push(ground.cache, bucket)
        intact = tree(ground.cache)
        for _ in ground.numbers(200):
            key, back = (
                chance.choice(sorted(set(intact) - {"manifest.json"})),
                ground.place("trial") / "back.zarr",
            )
            content = bytearray(intact[key])
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            bucket.put(key, bytes(content))
            try:
                pull(bucket, back)
                refused = key.endswith("zarr.json")  # these follow from the manifest and are not fetched
            except CacheDamagedError:
                refused = not (back / key).exists()
            push(ground.cache, bucket)
            pull(bucket, back)
            yield refused and tree(back) == intact


ROWS = (
    Row(21, "an object store's requests met by faults", faulty_requests),
    Row(21, "one bit flipped in an object of a copy", damaged_objects),
)
