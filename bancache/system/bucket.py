"""Requests to an object store; each is repeated for a while if it fails, and then raises one error of one line.

An object is put whole or not at all. Puts are safe to repeat: after a lost response, the same bytes are put again.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from bancache.errors import CacheDamagedError, MissingExtraError, StorageError, UsageError
from bancache.system.locks import HOLDER
from bancache.system.wording import reason_of

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_LISTED_AT_ONCE, _LISTED_AT_MOST = 1000, 1_000_000
# The beginnings of the variables that clients read.
_CREDENTIALS = ("AWS_", "AZURE_", "GOOGLE_", "HTTP", "SSL_")
# S3 takes 10,000 parts of an object, each of 5 MB or more.
_PART, _MOST_PARTS, _PART_RETRIES = 1 << 23, 9_000, 8
_BUCKET_HINT = "make the bucket, or name another"
_CREDENTIALS_HINT = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and their permissions"
_AGAIN_HINT = "run the same command again once it can be reached; what was done is kept"
_METADATA = "/latest/api/token"
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")

Result = TypeVar("Result")
# The process whose threads do the requests: the first one that made one.
_PROCESS = 0


class ObjectInfo(NamedTuple):
    """An object as listed; on S3 ``tag`` is the md5 of its bytes in hexadecimal, unless KMS keys encrypt them."""

    size: int
    tag: str
    modified: datetime


@dataclass(frozen=True)
class Patience:
    """How long a failing object store is tried, in seconds."""

    connect: float = 5.0
    read: float = 10.0  # between two pieces of a response
    request: float = 25.0
    total: float = 18.0  # after this, no request is repeated
    pause: float = 0.5  # between two requests


# For renewing a lease, which is soon done again, and releasing it.
IMPATIENT = Patience(connect=2.0, read=2.0, request=4.0, total=1.0)
PATIENCE = Patience()


class Bucket:
    """The objects below an address such as ``s3://bucket/gen0.zarr``; keys are relative to it.

    Every method raises StorageError if the store keeps failing.
    """

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        """Open an address without a request; credentials, region and endpoint come from the ``AWS_`` variables."""
        self.address, self._patience = address.rstrip("/"), patience or PATIENCE
        self._store = _open(self.address, self._patience)

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, Patience]]:
        """Open it again in another process, with the credentials of that one."""
        return Bucket, (self.address, self._patience)

    def get(self, key: str, limit: int) -> bytes | None:
        """Return an object, or None where there is none."""
        found = self.tagged(key, limit)
        return None if found is None else found[0]

    def tagged(self, key: str, limit: int) -> tuple[bytes, str] | None:
        """Return an object and its tag, or None where there is none."""
        import obstore

        def request() -> tuple[bytes, str] | None:
            found = obstore.get(self._store, key)
            size, parts = found.meta["size"], bytearray()
            # A store may send more than it announced.
            for part in found.stream() if size <= limit else ():
                parts += part
                if len(parts) > limit:
                    size = len(parts)
                    break
            if size > limit:
                raise CacheDamagedError(f"{self.name(key)} is {size:,} bytes; at most {limit:,} make sense")
            return bytes(parts), _tag(found.meta.get("e_tag"))

        return self._try(key, request, absent=None)

    def part(self, key: str, start: int, length: int) -> bytes | None:
        """Return ``length`` bytes of an object, or None where there is none; too short an answer is asked for again."""
        import obstore

        def request() -> bytes:
            found = bytes(obstore.get_range(self._store, key, start=start, length=length))
            if len(found) != length:
                raise OSError(f"{len(found):,} of {length:,} bytes came")
            return found

        return self._try(key, request, absent=None) if length else b""

    def put(self, key: str, content: bytes) -> None:
        """Put an object; one that is there is replaced."""
        self._put(key, content, "overwrite")

    def put_streamed(self, key: str, parts: Callable[[], Iterator[bytes]], size: int) -> None:
        """Put an object of any ``size`` whose bytes come in parts; one that is there is replaced when all have come."""
        import obstore

        store = _open(self.address, self._patience, retries=_PART_RETRIES)
        part = max(_PART, size // _MOST_PARTS)

        def request() -> None:
            writer = obstore.open_writer(store, key, buffer_size=part, max_concurrency=2)
            for content in parts():
                writer.write(content)
            writer.close()  # only now there is another object

        self._try(key, request, absent=None)

    def create(self, key: str, content: bytes) -> str | None:
        """Put an object where there is none and return its tag, or None where another one is."""
        return self._put_if(key, content, "create")

    def replace(self, key: str, content: bytes, tag: str) -> str | None:
        """Put an object in place of the one with ``tag`` and return its own tag, or None if that one is gone."""
        return self._put_if(key, content, {"e_tag": f'"{tag}"'})

    def head(self, key: str) -> ObjectInfo | None:
        """Return what the store says of an object, or None where there is none."""
        import obstore

        return self._try(key, lambda: _info(obstore.head(self._store, key)), absent=None)

    def listed(self, limit: int = _LISTED_AT_MOST, *, below: str | None = None) -> dict[str, ObjectInfo]:
        """Return all objects below the address, or ``below`` a folder there; CacheDamagedError if there are more than ``limit``."""
        import obstore

        def request() -> dict[str, ObjectInfo]:
            found: dict[str, ObjectInfo] = {}
            count = 0
            for page in obstore.list(self._store, below, chunk_size=_LISTED_AT_ONCE):
                count += len(page)
                if count > limit:
                    raise CacheDamagedError(
                        f"{self.address} lists more than {limit:,} objects, more than its cache can have",
                        hint="push the cache to an address of its own",
                    )
                found.update((meta["path"], _info(meta)) for meta in page)
            return found

        return self._try("", request, absent={})

    def delete(self, keys: list[str]) -> None:
        """Remove objects; missing ones are ignored."""
        import obstore

        if keys:
            self._try(keys[0], lambda: obstore.delete(self._store, keys), absent=None)

    def name(self, key: str) -> str:
        """Return an object's full address."""
        return f"{self.address}/{key}" if key else self.address

    def _put(self, key: str, content: bytes, mode: Any) -> str:
        import obstore

        # In one request: the tag of an object put in several parts is not the md5 of its bytes.
        def request() -> str:
            return _tag(obstore.put(self._store, key, content, mode=mode, use_multipart=False)["e_tag"])

        return self._try(key, request, absent="")

    def _put_if(self, key: str, content: bytes, mode: Any) -> str | None:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            return self._put(key, content, mode) or None  # replacing a missing object puts nothing
        except (AlreadyExistsError, PreconditionError):
            # This process may have put it: the response to the first request may have been lost.
            there = self.head(key)
            mine = there is not None and there.size == len(content) and self.get(key, len(content)) == content
            return there.tag if there is not None and mine else None

    def _try(self, key: str, request: Callable[[], Result], *, absent: Result) -> Result:
        """Repeat a request until there is a response or patience ends; a missing object gives ``absent``."""
        from obstore import exceptions as known

        _require_own_threads(self.name(key))
        began = time.monotonic()
        while True:
            try:
                return request()
            except (known.AlreadyExistsError, known.PreconditionError):
                raise
            except (known.BaseError, OSError) as error:
                no_bucket = "NoSuchBucket" in str(error)
                if isinstance(error, FileNotFoundError) and not no_bucket:
                    return absent
                # Without any, it asks the metadata service that machines in a cloud have.
                nameless = _METADATA in str(error)
                refused = nameless or isinstance(
                    error, known.PermissionDeniedError | known.UnauthenticatedError
                )
                if no_bucket or refused or time.monotonic() - began >= self._patience.total:
                    hint = _BUCKET_HINT if no_bucket else _CREDENTIALS_HINT if refused else _AGAIN_HINT
                    reason = "no credentials were found" if nameless else reason_of(error)
                    raise StorageError(f"{reason}: {self.name(key)}", hint=hint) from error
            time.sleep(self._patience.pause)


def _require_own_threads(name: str) -> None:
    """Refuse a fork of a process that has made requests: obstore's threads are missing in it, and it would wait for ever."""
    global _PROCESS
    _PROCESS = _PROCESS or os.getpid()
    if os.getpid() != _PROCESS:
        raise UsageError(
            f"{name} was opened in another process, of which this one is a fork",
            hint="start processes by spawn, such as DataLoader(…, multiprocessing_context='spawn')",
        )


def info_of(content: bytes) -> ObjectInfo:
    """Return what a listing would say of an object that has just been put."""
    return ObjectInfo(len(content), _md5(content), datetime.now(UTC))


def is_same(there: ObjectInfo | None, content: bytes) -> bool:
    """Whether a listed object has these bytes, by size and tag."""
    return there is not None and there.size == len(content) and there.tag == _md5(content)


def seconds_unchanged(bucket: Bucket, there: ObjectInfo, token: str) -> float:
    """Return for how many seconds an object has stayed unchanged, by the store's clock alone; ``token`` is the caller's own."""
    probe = f"{HOLDER}.{token}"
    bucket.put(probe, b"")
    now = bucket.head(probe)
    bucket.delete([probe])
    return 0.0 if now is None else (now.modified - there.modified).total_seconds()


def _open(address: str, patience: Patience, retries: int = 0) -> ObjectStore:
    credentials = tuple(sorted(item for item in os.environ.items() if item[0].startswith(_CREDENTIALS)))
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        return _client(from_url, address, patience, retries, credentials, os.getpid())
    except ImportError as error:
        raise MissingExtraError("obstore is not installed", hint='pip install "bancache[s3]"') from error
    except (BaseError, ValueError, TypeError) as error:
        raise UsageError(
            f"{address} is not an address of an object store", hint="name one like s3://bucket/gen0.zarr"
        ) from error


@lru_cache(maxsize=8)
def _client(
    connect: Callable[..., ObjectStore], address: str, patience: Patience, retries: int, *key: object
) -> ObjectStore:
    """Return the client for an address, as long as ``key`` is the same: making one reads all certificates, for 10 ms."""
    # ``_try`` repeats requests: for more kinds of failure than the client does, but not a part of an object.
    options, retry = client_options(patience, os.environ), {"max_retries": retries}
    return connect(address, client_options=options, retry_config=retry)


def client_options(patience: Patience, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return obstore's client options; HTTP without TLS is allowed only if an endpoint is named so."""
    endpoints = [environment[name] for name in _ENDPOINTS if name in environment]
    return {
        "timeout": timedelta(seconds=patience.request),
        "connect_timeout": timedelta(seconds=patience.connect),
        "read_timeout": timedelta(seconds=patience.read),
        "allow_http": any(endpoint.startswith("http://") for endpoint in endpoints),
    }


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(meta["size"], _tag(meta["e_tag"]), meta["last_modified"])


def _tag(e_tag: str | None) -> str:
    return (e_tag or "").strip('"')


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
