"""One complete cache out of several stores that each hold a part of it, or have parts of it damaged.

Slots are numbered from 0 and regions by their slot, so stores of the same promise hold the same regions under the
same names; merging takes each region from the first store that has it sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bancache.cache.import_shards import Piece, pieces_of, plant, recorded_pieces
from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import read_manifest
from bancache.cache.opening import open_writer
from bancache.cache.reader import Cache, open_cache
from bancache.dumping.extend import region_facts
from bancache.dumping.summary import nothing, summarise_entries
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.system.progress import Progress, Silent

_NAMED = 8


@dataclass(frozen=True)
class Merged:
    """A merged cache.

    Attributes:
        cache: The cache, open.
        taken: How many regions came from each input, in their order.
        differing: Regions that another input holds with other bytes; the first input's were taken.
    """

    cache: Cache
    taken: tuple[int, ...]
    differing: int


def merge_caches(paths: Sequence[Path], out: Path, *, progress: Progress | None = None) -> Merged:
    """Join stores that make the same promise into one complete cache.

    If one of them is complete and every file of it is found sound in some input, the result is that cache, also
    where it is itself damaged. Otherwise regions are taken by their records, whole slots of complete caches too.

    Args:
        paths: Stores of the same teacher, images, views, number of views, encoding and batches; finished or not.
        out: Where the merged cache goes; links where that is on the same file system.
        progress: Is told of every region.

    Raises:
        MismatchError: Two of them promise different things, with both values.
        CacheDamagedError: Some regions are in none of them; the message names them.
        StorageError: The disk is full, read-only or failing.
    """
    progress = progress or Silent()
    if out.resolve() in {path.resolve() for path in paths}:
        raise UsageError(f"{out} is one of those that are merged", hint="choose another --out")
    promises = [_promise(path) for path in paths]
    for path, promise in zip(paths[1:], promises[1:], strict=True):
        _require_same(paths[0], promises[0], path, promise)
    complete = [open_cache(path) for path in paths if read_manifest(path)["complete"]]
    for cache in complete:
        if (all_of_it := _of_one(cache, paths)) is not None:
            _write(out, cache.manifest, all_of_it, partial(_said_of, cache), progress)
            return Merged(open_cache(out), _taken(all_of_it, paths), 0)
    found, differing = _of_all(paths, promises, complete)
    count = Layout(promises[0]).count
    if missing := [index for index in range(count) if index not in found]:
        _refuse(missing, promises[0])
    if differing:
        progress.note(f"{differing} regions differ between inputs; those of the first are taken")
    slots = promises[0].slots
    _write(out, promises[0], found, lambda facts: summarise_entries(facts, slots), progress)
    return Merged(open_cache(out), _taken(found, paths), differing)


def _promise(path: Path) -> Manifest:
    return Manifest.from_dict(read_manifest(path)["promise"])


def _require_same(first: Path, ours: Manifest, other: Path, theirs: Manifest) -> None:
    try:
        ours.require_same(theirs)
    except MismatchError as error:
        raise MismatchError(
            f"{first.name} and {other.name} are not parts of one cache: {error}",
            hint="merge stores of one teacher, data set, view space, number of views, encoding and batch size",
        ) from error


def _of_one(cache: Cache, paths: Sequence[Path]) -> dict[int, Piece] | None:
    """Return all regions of a complete cache, each from an input that has its files as written; None if one is lost."""
    count = Layout(cache.manifest).count
    found = {}
    for index, piece in pieces_of(cache, {index: nothing() for index in range(count)}).items():
        places = (replace(piece, root=root) for root in (cache.path, *paths))
        sound = next((place for place in places if place.problem() is None), None)
        if sound is None:
            return None
        found[index] = sound
    return found


def _of_all(
    paths: Sequence[Path], promises: Sequence[Manifest], complete: Sequence[Cache]
) -> tuple[dict[int, Piece], int]:
    """Return each region from the first input that has it sound, and how many others have with other bytes.

    Whole slots come first: what is known of a finished cache's slot is known of all its regions together.
    """
    blocks = Layout(promises[0]).blocks
    sources = [_whole_slots(cache) for cache in complete]
    whole = {index // blocks for source in sources for index in source}
    unfinished = [p for p in zip(paths, promises, strict=True) if p[0] not in {c.path for c in complete}]
    sources += [recorded_pieces(path, promise) for path, promise in unfinished]
    found: dict[int, Piece] = {}
    differing = set()
    for place, source in enumerate(sources):
        for index, piece in source.items():
            if index in found:
                if found[index].files != piece.files:
                    differing.add(index)
            elif place < len(complete) or (index // blocks not in whole and piece.problem() is None):
                found[index] = piece
    return found, len(differing)


def _whole_slots(cache: Cache) -> dict[int, Piece]:
    """Return the regions of a complete cache's undamaged slots: their facts are known only together."""
    facts, layout = region_facts(cache), Layout(cache.manifest)
    pieces = pieces_of(cache, facts or {})
    lost = {layout.region(index).slot for index, piece in pieces.items() if piece.problem() is not None}
    return {index: piece for index, piece in pieces.items() if layout.region(index).slot not in lost}


def _said_of(cache: Cache, facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of a cache that comes out as it was."""
    return cache.summary


def _refuse(missing: Sequence[int], manifest: Manifest) -> None:
    layout = Layout(manifest)
    named = ", ".join(str(layout.region(index)) for index in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    raise CacheDamagedError(
        f"{len(missing)} of {layout.count} regions are sound in none of them: {named}{more}",
        hint="go on with one of the dumps, or repair one of the caches, then merge again",
    )


def _taken(found: Mapping[int, Piece], paths: Sequence[Path]) -> tuple[int, ...]:
    return tuple(sum(piece.root == path for piece in found.values()) for path in paths)


def _write(
    out: Path, manifest: Manifest, found: Mapping[int, Piece], summarise: Any, progress: Progress
) -> None:
    plant(out, manifest, found, progress=progress)
    with open_writer(out, manifest) as writer:
        if writer is not None:
            writer.finish(summarise)
