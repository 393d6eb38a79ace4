"""What push and pull have in common: transfers in threads, their result, and the check that two caches are copies of one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bancache.cache.files import at_once
from bancache.cache.manifest_io import manifest_of
from bancache.errors import MismatchError
from bancache.system.fingerprint import fingerprint_json, short
from bancache.system.progress import Progress, Silent
from bancache.system.read_ahead import in_threads
from bancache.system.signals import Interrupt

Item = TypeVar("Item")


def transfer_all(
    verb: str,
    work: Callable[[Item], object],
    items: Sequence[Item],
    *,
    largest: int,
    progress: Progress | None,
    interrupt: Interrupt | None,
) -> None:
    """Call ``work`` for each shard in ``items``, a few at a time; ``largest`` is the size of the largest object in bytes.

    After an error or a stop, transfers that have not begun are dropped, and those under way are waited for.
    """
    with (
        (progress or Silent()).stage(verb, total=len(items), unit="shards") as stage,
        closing(in_threads(work, items, at_once(largest))) as done,
    ):
        for count, _ in enumerate(done, 1):
            stage.advance(1)
            if interrupt is not None:
                interrupt.check(f"{count} of {len(items)} shards")


@dataclass
class Transferred:
    """Result of a push or a pull."""

    complete: bool = False  # whether the cache at the destination is complete now
    moved: int = 0  # files that were transferred
    kept: int = 0  # files that were there already
    bytes: int = 0  # of the files that were transferred
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, size: int, *, kept: bool) -> None:
        """Count a file; threads may call this at once."""
        with self._lock:
            if kept:
                self.kept += 1
            else:
                self.moved, self.bytes = self.moved + 1, self.bytes + size


def require_same_cache(place: object, stored: dict[str, Any], given: dict[str, Any], *, hint: str) -> None:
    """Require that the manifest.json at a destination and that of the source belong to copies of one cache."""
    manifest_of(stored).require_same(manifest_of(given))
    pairs = [("manifest", stored["promise"], given["promise"])]
    if stored["complete"] and given["complete"]:
        pairs.append(("content", stored, given))
    for subject, old, new in pairs:
        if (one := fingerprint_json(old)) != (other := fingerprint_json(new)):
            raise MismatchError.between(
                f"{place}: {subject}", stored=f"'{short(one)}'", given=f"'{short(other)}'", hint=hint
            )
