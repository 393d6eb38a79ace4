"""Merge caches that each hold a part of one cache, unfinished or damaged, into a complete one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bancache.cache.import_shards import (
    ImportedShard,
    import_shards,
    recorded_shards,
    require_other,
    shards_of,
)
from bancache.cache.layout import Layout
from bancache.cache.manifest_io import manifest_of, read_manifest
from bancache.cache.reader import Cache, open_cache
from bancache.dumping.summary import Facts, empty_facts, shard_facts, summarize_shards
from bancache.errors import CacheDamagedError, MismatchError
from bancache.system.progress import Progress, Silent
from bancache.system.wording import count

_NAMED = 8


@dataclass(frozen=True)
class Merged:
    """A merged cache, open.

    ``taken`` is the number of shards from each input, in the inputs' order; ``differing`` counts the shards of which
    inputs hold different bytes.
    """

    cache: Cache
    taken: tuple[int, ...]
    differing: int


def merge_caches(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> Merged:
    """Merge caches with the same manifest into a complete one: each shard from the first input where it is intact.

    If an input is complete and each of its files is intact in some input, the result is byte-identical to that
    cache. Otherwise complete inputs give the views that are intact as a whole, unfinished ones give the rest.
    The new cache shares files with the inputs by hard links where possible.

    Raises:
        MismatchError: Two inputs have different manifests, with both values.
        CacheDamagedError: Shards are intact in no input; the message names them.
    """
    inputs, progress = [Path(path) for path in paths], progress or Silent()
    require_other(out, inputs)
    manifests = {path: manifest_of(read_manifest(path)) for path in inputs}
    manifest = manifests[inputs[0]]
    for path in inputs[1:]:
        try:
            manifest.require_same(manifests[path])
            manifest.require_same_device(manifests[path])
        except MismatchError as error:
            raise MismatchError(
                f"{inputs[0].name} and {path.name} are not parts of one cache: {error}",
                hint="merge caches of one teacher, data set, view space, number of views, encoding, batch size and kind of device",
            ) from error
    complete = [open_cache(path) for path in inputs if read_manifest(path)["complete"]]
    restored = next(((cache, shards) for cache in complete if (shards := _restored(cache, inputs))), None)
    if restored is not None:
        cache, shards = restored
        manifest, summary, differing = cache.manifest, cache.summary, 0
    else:
        done = {cache.path for cache in complete}
        unfinished = [recorded_shards(path, manifests[path]) for path in inputs if path not in done]
        shards, differing = _collected([_whole_views(cache) for cache in complete], unfinished)
        _require_all(shards, Layout(manifest))
        summary = None
    if differing:
        progress.note(
            f"the inputs differ in {count(differing, 'shard')}: each is from a complete one if that has it, else from the first"
        )

    def summarize(facts: Sequence[Facts]) -> Facts:
        return summarize_shards(facts, manifest.num_views) if summary is None else summary

    import_shards(out, manifest, shards, summarize=summarize, progress=progress)
    taken = tuple(sum(shard.root == path for shard in shards.values()) for path in inputs)
    return Merged(open_cache(Path(out)), taken, differing)


def _restored(cache: Cache, inputs: Sequence[Path]) -> dict[int, ImportedShard] | None:
    """Return each shard of a complete cache from an input with intact files; None if a shard has no such input."""
    facts = {index: empty_facts() for index in range(Layout(cache.manifest).count)}
    shards = {}
    for index, shard in shards_of(cache, facts).items():
        copies = (replace(shard, root=root) for root in (cache.path, *inputs))
        intact = next((copy for copy in copies if copy.problem() is None), None)
        if intact is None:
            return None
        shards[index] = intact
    return shards


def _whole_views(cache: Cache) -> dict[int, ImportedShard]:
    """Return the shards of a complete cache's intact views: their facts are known only as sums of a view."""
    blocks, shards = Layout(cache.manifest).blocks, shards_of(cache, shard_facts(cache) or {})
    damaged = {index // blocks for index, shard in shards.items() if shard.problem() is not None}
    return {index: shard for index, shard in shards.items() if index // blocks not in damaged}


def _collected(
    complete: Sequence[dict[int, ImportedShard]],
    unfinished: Sequence[dict[int, ImportedShard]],
) -> tuple[dict[int, ImportedShard], int]:
    """Return each shard from the first input where it is intact, complete ones first, and how many differ between inputs."""
    shards: dict[int, ImportedShard] = {}
    for source in complete:
        shards = {**source, **shards}
    # A view of a complete cache comes whole, since its facts do: none of its shards is missing here.
    for source in unfinished:
        for index, shard in source.items():
            if index not in shards and shard.problem() is None:
                shards[index] = shard
    others = ((index, other) for source in (*complete, *unfinished) for index, other in source.items())
    differing = {index for index, other in others if index in shards and other.files != shards[index].files}
    return shards, len(differing)


def _require_all(shards: Mapping[int, ImportedShard], layout: Layout) -> None:
    missing = [str(shard) for shard in layout.shards() if shard.index not in shards]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise CacheDamagedError(
            f"{len(missing)} of {layout.count} shards are intact in no input: {', '.join(missing[:_NAMED])}{more}",
            hint="finish one of the dumps with `bancache dump`, or repair one of the caches with `bancache repair`",
        )
