"""What push and pull have in common: their result, and the check that two caches are copies of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bancache.cache.manifest_io import manifest_of
from bancache.errors import MismatchError
from bancache.system.fingerprint import fingerprint_json, short


@dataclass(frozen=True)
class Transferred:
    """Result of a push or a pull.

    Attributes:
        complete: Whether the cache at the destination is complete now.
        moved: Files that were transferred.
        kept: Files that were there already.
        bytes: Size of the files that were transferred.
    """

    complete: bool
    moved: int
    kept: int
    bytes: int


def require_same_cache(place: object, stored: dict[str, Any], given: dict[str, Any], *, hint: str) -> None:
    """Require that two manifest.json belong to copies of one cache.

    Args:
        place: The destination, named in the error.
        stored: The manifest.json there.
        given: The manifest.json of the source.
        hint: Of the error.

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
