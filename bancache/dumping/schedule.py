"""Which shard a process does next, of a cache that several fill: its own share first, then what nobody is at."""

from __future__ import annotations

from collections.abc import Callable

from bancache.cache.layout import Shard
from bancache.cache.writer import CacheWriter
from bancache.system.ranks import Rank


class Schedule:
    """The shards that are left for one process, in the order in which it tries them.

    Its own are every count-th from its rank on, so processes that know of one another rarely want the same.
    """

    def __init__(
        self, writer: CacheWriter, place: Rank, found: Callable[[Shard], object] = lambda shard: None
    ) -> None:
        """Begin with what is not recorded; ``found`` is told of each shard that others record."""
        self._writer, self._found = writer, found
        pending = writer.pending()
        own = [shard for shard in pending if shard.index % place.count == place.rank]
        rest = [shard for shard in pending if shard.index % place.count != place.rank]
        begin = len(rest) * place.rank // place.count
        self._left = [*own, *rest[begin:], *rest[:begin]]

    @property
    def left(self) -> int:
        """How many shards are neither recorded, as far as was looked, nor were handed out by ``next``."""
        return len(self._left)

    def next(self) -> Shard | None:
        """Claim a shard and return it; None while each is done, in another's hands, or builds on one that is."""
        kept: list[Shard] = []
        taken = None
        for position, shard in enumerate(self._left):
            if self._is_done(shard):
                continue
            if self._writer.is_ready(shard) and self._writer.claims.take(shard.index):
                # Its last holder may have recorded it and given up its claim since we looked.
                if not self._is_done(shard):
                    kept.extend(self._left[position + 1 :])
                    taken = shard
                    break
                self._writer.claims.release(shard.index)
                continue
            kept.append(shard)
        self._left = kept
        return taken

    def _is_done(self, shard: Shard) -> bool:
        done = self._writer.is_recorded(shard)
        if done:
            self._found(shard)
        return done
