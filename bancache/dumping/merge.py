"""One complete cache out of several stores that each hold a part of it, or have parts of it damaged.

Views are numbered from 0 and shards by their view index, so stores of the same promise hold the same shards under the
same names; merging takes each shard from the first store that has it sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bancache.cache.import_shards import ImportedShard, import_shards, recorded_shards, shards_of
from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import read_manifest
from bancache.cache.opening import open_writer
from bancache.cache.reader import Cache, open_cache
from bancache.dumping.extend import shard_facts
from bancache.dumping.summary import nothing, summarize_entries
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.system.progress import Progress, Silent

_NAMED = 8


@dataclass(frozen=True)
class Merged:
    """A merged cache.

    Attributes:
        cache: The cache, open.
        taken: How many shards came from each input, in their order.
        differing: Shards that another input holds with other bytes; the first input's were taken.
    """

    cache: Cache
    taken: tuple[int, ...]
    differing: int


def merge_caches(paths: Sequence[Path], out: Path, *, progress: Progress | None = None) -> Merged:
    """Join stores that make the same promise into one complete cache.

    If one of them is complete and every file of it is found sound in some input, the result is that cache, also
    where it is itself damaged. Otherwise shards are taken by their records, whole views of complete caches too.

    Args:
        paths: Stores of the same teacher, images, views, number of views, encoding and batches; finished or not.
        out: Where the merged cache goes; links where that is on the same file system.
        progress: Is told of every shard.

    Raises:
        MismatchError: Two of them promise different things, with both values.
        CacheDamagedError: Some shards are in none of them; the message names them.
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
        progress.note(f"{differing} shards differ between inputs; those of the first are taken")
    num_views = promises[0].num_views
    _write(out, promises[0], found, lambda facts: summarize_entries(facts, num_views), progress)
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


def _of_one(cache: Cache, paths: Sequence[Path]) -> dict[int, ImportedShard] | None:
    """Return all shards of a complete cache, each from an input that has its files as written; None if one is lost."""
    count = Layout(cache.manifest).count
    found = {}
    for index, piece in shards_of(cache, {index: nothing() for index in range(count)}).items():
        places = (replace(piece, root=root) for root in (cache.path, *paths))
        sound = next((place for place in places if place.problem() is None), None)
        if sound is None:
            return None
        found[index] = sound
    return found


def _of_all(
    paths: Sequence[Path], promises: Sequence[Manifest], complete: Sequence[Cache]
) -> tuple[dict[int, ImportedShard], int]:
    """Return each shard from the first input that has it sound, and how many others have with other bytes.

    Whole views come first: what is known of a finished cache's view index is known of all its shards together.
    """
    blocks = Layout(promises[0]).blocks
    sources = [_whole_views(cache) for cache in complete]
    whole = {index // blocks for source in sources for index in source}
    unfinished = [p for p in zip(paths, promises, strict=True) if p[0] not in {c.path for c in complete}]
    sources += [recorded_shards(path, promise) for path, promise in unfinished]
    found: dict[int, ImportedShard] = {}
    differing = set()
    for place, source in enumerate(sources):
        for index, piece in source.items():
            if index in found:
                if found[index].files != piece.files:
                    differing.add(index)
            elif place < len(complete) or (index // blocks not in whole and piece.problem() is None):
                found[index] = piece
    return found, len(differing)


def _whole_views(cache: Cache) -> dict[int, ImportedShard]:
    """Return the shards of a complete cache's undamaged views: their facts are known only together."""
    facts, layout = shard_facts(cache), Layout(cache.manifest)
    pieces = shards_of(cache, facts or {})
    lost = {layout.shard(index).view_index for index, piece in pieces.items() if piece.problem() is not None}
    return {index: piece for index, piece in pieces.items() if layout.shard(index).view_index not in lost}


def _said_of(cache: Cache, facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of a cache that comes out as it was."""
    return cache.summary


def _refuse(missing: Sequence[int], manifest: Manifest) -> None:
    layout = Layout(manifest)
    named = ", ".join(str(layout.shard(index)) for index in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    raise CacheDamagedError(
        f"{len(missing)} of {layout.count} shards are sound in none of them: {named}{more}",
        hint="go on with one of the dumps, or repair one of the caches, then merge again",
    )


def _taken(found: Mapping[int, ImportedShard], paths: Sequence[Path]) -> tuple[int, ...]:
    return tuple(sum(piece.root == path for piece in found.values()) for path in paths)


def _write(
    out: Path, manifest: Manifest, found: Mapping[int, ImportedShard], summarize: Any, progress: Progress
) -> None:
    import_shards(out, manifest, found, progress=progress)
    with open_writer(out, manifest) as writer:
        if writer is not None:
            writer.finish(summarize)
