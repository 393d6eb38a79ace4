"""What push and pull have in common: their result, and the check that two caches are copies of one."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from bancache.cache.manifest_io import manifest_of
from bancache.errors import MismatchError
from bancache.system.fingerprint import fingerprint_json, short


@dataclass
class Transferred:
    """Result of a push or a pull.

    Attributes:
        complete: Whether the cache at the destination is complete now.
        moved: Files that were transferred.
        kept: Files that were there already.
        bytes: Size of the files that were transferred.
    """

    complete: bool = False
    moved: int = 0
    kept: int = 0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, size: int, *, kept: bool) -> None:
        """Count a file; threads may call this at once."""
        with self._lock:
            if kept:
                self.kept += 1
            else:
                self.moved, self.bytes = self.moved + 1, self.bytes + size


def require_same_cache(place: object, stored: dict[str, Any], given: dict[str, Any], *, hint: str) -> None:
    """Require that the manifest.json at a destination and that of the source belong to copies of one cache.

    Raises:
        MismatchError: Their manifests differ, or both are complete and their contents differ.
    """
    manifest_of(stored).require_same(manifest_of(given))
    pairs = [("manifest", stored["promise"], given["promise"])]
    if stored["complete"] and given["complete"]:
        pairs.append(("content", stored, given))
    for subject, old, new in pairs:
        if (one := fingerprint_json(old)) != (other := fingerprint_json(new)):
            raise MismatchError.between(
                f"{place}: {subject}", stored=f"'{short(one)}'", given=f"'{short(other)}'", hint=hint
            )
