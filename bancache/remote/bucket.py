"""Bucket: all traffic with an object store, with every failure tried again for a while and then said in one line.

An object is put whole or not at all, and puts are safe to repeat: one whose answer was lost is put again with the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from bancache.errors import CacheDamagedError, MissingExtraError, StorageError, UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# What one request may return at once; a listing has no more objects than a cache has files and records.
_LISTED_AT_ONCE = 1000
_BUCKET_HINT = "make the bucket, or name another"
_CREDENTIALS_HINT = "look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and what they may do there"
_AGAIN_HINT = "run the same command again once it can be reached; what was done is kept"
_REASON_CHARACTERS = 160
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")

Result = TypeVar("Result")


class Entry(NamedTuple):
    """What a listing says of an object; on S3 ``tag`` is the md5 of its bytes, in hex, unless keys of KMS encrypt them."""

    size: int
    tag: str
    modified: datetime


@dataclass(frozen=True)
class Patience:
    """How long a failing object store is tried, in seconds.

    Attributes:
        connect: Until a connection stands.
        read: Between two pieces of an answer.
        request: For a whole request.
        retries: For failed requests to be sent again, by the client.
        total: After which nothing is begun again.
        pause: Between two attempts.
    """

    connect: float = 5.0
    read: float = 10.0
    request: float = 25.0
    retries: float = 8.0
    total: float = 10.0
    pause: float = 1.0

    @property
    def longest(self) -> float:
        """After which an operation that fails has failed: one attempt may begin just before the end."""
        return self.total + self.pause + self.retries + self.pause + self.request


# For what is worth one attempt: to say that one lives, which is said again soon, or that one is done.
IMPATIENT = Patience(connect=2.0, read=2.0, request=4.0, retries=1.0, total=0.0, pause=0.5)
PATIENCE = Patience()


class Bucket:
    """The objects below an address such as ``s3://bucket/gen0.zarr``; keys are relative to it.

    Attributes:
        address: As it was given.
    """

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        """Open an address; nothing is asked of it yet.

        Credentials, shard and endpoint are those of the variables that the store's own tools read (``AWS_...``).

        Raises:
            MissingExtraError: obstore is not installed.
            UsageError: The address is of a kind that obstore does not know.
        """
        self.address, self._patience = address.rstrip("/"), patience or PATIENCE
        self._store = _open(self.address, self._patience)

    def get(self, key: str, limit: int) -> bytes | None:
        """Return an object of at most ``limit`` bytes, or None where there is none.

        Raises:
            CacheDamagedError: It is larger.
            StorageError: The store fails.
        """
        import obstore

        def ask() -> bytes | None:
            found = obstore.get(self._store, key)
            if found.meta["size"] > limit:
                raise CacheDamagedError(
                    f"{self.name(key)} is {found.meta['size']:,} bytes; at most {limit:,} make sense"
                )
            return bytes(found.bytes())

        return self._try(key, ask, absent=None)

    def put(self, key: str, content: bytes) -> None:
        """Put an object, whole; what was there before is replaced.

        Raises:
            StorageError: The store fails.
        """
        self._put(key, content, "overwrite")

    def create(self, key: str, content: bytes) -> str | None:
        """Put an object where there is none and return its tag; None where somebody else's is there.

        Raises:
            StorageError: The store fails.
        """
        return self._conditionally(key, content, "create")

    def replace(self, key: str, content: bytes, tag: str) -> str | None:
        """Put an object in the place of the one with a tag and return its own; None where that one is there no more.

        Raises:
            StorageError: The store fails.
        """
        return self._conditionally(key, content, {"e_tag": f'"{tag}"'})

    def look(self, key: str) -> Entry | None:
        """Return what the store says of an object, or None where there is none.

        Raises:
            StorageError: The store fails.
        """
        import obstore

        return self._try(key, lambda: _entry(obstore.head(self._store, key)), absent=None)

    def listed(self) -> dict[str, Entry]:
        """Return all objects below the address.

        Raises:
            StorageError: The store fails.
        """
        import obstore

        def ask() -> dict[str, Entry]:
            pages = obstore.list(self._store, chunk_size=_LISTED_AT_ONCE)
            return {meta["path"]: _entry(meta) for page in pages for meta in page}

        return self._try("", ask, absent={})

    def delete(self, keys: list[str]) -> None:
        """Remove objects; those that are not there are none to remove.

        Raises:
            StorageError: The store fails.
        """
        import obstore

        if keys:
            self._try(keys[0], lambda: obstore.delete(self._store, keys), absent=None)

    def name(self, key: str) -> str:
        """Return what to call an object."""
        return f"{self.address}/{key}" if key else self.address

    def _put(self, key: str, content: bytes, mode: Any) -> str:
        import obstore

        # In one request: what is put in several parts has a tag that is no digest of its bytes.
        def ask() -> str:
            return _tag(obstore.put(self._store, key, content, mode=mode, use_multipart=False)["e_tag"])

        return self._try(key, ask, absent="")

    def _conditionally(self, key: str, content: bytes, mode: Any) -> str | None:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            return self._put(key, content, mode) or None  # to replace what is gone puts nothing
        except (AlreadyExistsError, PreconditionError):
            # Perhaps by ourselves: the answer to the first attempt may have been lost.
            there = self.look(key)
            mine = there is not None and there.size == len(content) and self.get(key, len(content)) == content
            return there.tag if there is not None and mine else None

    def _try(self, key: str, ask: Callable[[], Result], *, absent: Result) -> Result:
        """Ask until there is an answer or patience is at its end."""
        from obstore.exceptions import (
            AlreadyExistsError,
            BaseError,
            PermissionDeniedError,
            PreconditionError,
            UnauthenticatedError,
        )

        began = time.monotonic()
        while True:
            try:
                return ask()
            except (AlreadyExistsError, PreconditionError):
                raise
            except (BaseError, OSError) as error:
                homeless = "NoSuchBucket" in str(error)
                if isinstance(error, FileNotFoundError) and not homeless:
                    return absent
                refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
                final = homeless or refused
                if final or time.monotonic() - began >= self._patience.total:
                    raise StorageError(
                        f"{_reason(error)}: {self.name(key)}",
                        hint=_BUCKET_HINT if homeless else _CREDENTIALS_HINT if refused else _AGAIN_HINT,
                    ) from error
            time.sleep(self._patience.pause)


def entry_of(content: bytes) -> Entry:
    """Return what a listing would say of an object that has just been put."""
    return Entry(len(content), _md5(content), datetime.now(UTC))


def is_same(there: Entry | None, content: bytes) -> bool:
    """Whether an object that was listed has these bytes, as far as the store says so."""
    return there is not None and there.size == len(content) and there.tag == _md5(content)


def _open(address: str, patience: Patience) -> ObjectStore:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise MissingExtraError("obstore is not installed", hint='pip install "bancache[s3]"') from error
    try:
        # Its types tell the kinds of store apart; ours is known when it runs.
        opened: Any = from_url
        store: ObjectStore = opened(
            address, client_options=_client(patience, os.environ), retry_config=_retries(patience)
        )
    except (BaseError, ValueError, TypeError) as error:
        raise UsageError(
            f"{address} is no address of an object store", hint="name one like s3://bucket/gen0.zarr"
        ) from error
    return store


def _client(patience: Patience, environment: Mapping[str, str]) -> dict[str, Any]:
    named = [environment[name] for name in _ENDPOINTS if name in environment]
    return {
        "timeout": timedelta(seconds=patience.request),
        "connect_timeout": timedelta(seconds=patience.connect),
        "read_timeout": timedelta(seconds=patience.read),
        # Whoever names an endpoint without TLS means it.
        "allow_http": any(endpoint.startswith("http://") for endpoint in named),
    }


def _retries(patience: Patience) -> dict[str, Any]:
    backoff = {
        "init_backoff": timedelta(seconds=patience.pause / 10),
        "max_backoff": timedelta(seconds=patience.pause),
        "base": 2,
    }
    return {"max_retries": 5, "retry_timeout": timedelta(seconds=patience.retries), "backoff": backoff}


def _entry(meta: Any) -> Entry:
    return Entry(meta["size"], _tag(meta["e_tag"]), meta["last_modified"])


def _tag(e_tag: str | None) -> str:
    return (e_tag or "").strip('"')


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _reason(error: Exception) -> str:
    r"""Return the one line of an error that says something: its cause, without addresses, answers and states.

    >>> _reason(OSError("Generic S3 error: Error performing PUT http://x/y in 1ms - Server returned status 503: <a>\nb"))
    'server returned status 503'
    """
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    line = line.rpartition(" - ")[2].partition(": <")[0]
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    said = f"{line} ({code[1]})" if code else line
    # A server may have put anything into it.
    said = "".join(letter for letter in said if letter.isprintable())[:_REASON_CHARACTERS]
    return said if said[:2].isupper() else said[:1].lower() + said[1:]
