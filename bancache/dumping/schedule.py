"""The order in which one of several processes works on the shards of a cache: its own share first, then the rest."""

from __future__ import annotations

from collections.abc import Callable

from bancache.cache.layout import Shard
from bancache.cache.writer import CacheWriter
from bancache.system.ranks import Rank


class Schedule:
    """The shards that are left, in the order in which this process tries them.

    Its own share is every count-th shard from its rank on, so processes rarely want the same shard.
    """

    def __init__(
        self, writer: CacheWriter, rank: Rank, on_done: Callable[[Shard], object] = lambda shard: None
    ) -> None:
        """Begin with the shards without a record; ``on_done`` is called with each one that others record."""
        self._writer, self._on_done = writer, on_done
        pending = writer.pending()
        own = [shard for shard in pending if shard.index % rank.count == rank.rank]
        rest = [shard for shard in pending if shard.index % rank.count != rank.rank]
        begin = len(rest) * rank.rank // rank.count
        self._left = [*own, *rest[begin:], *rest[:begin]]

    @property
    def left(self) -> int:
        """Number of shards that ``next`` has not returned and that had no record at the last look."""
        return len(self._left)

    def next(self) -> Shard | None:
        """Claim a shard and return it.

        Returns None while each shard is done, claimed by another process, or needs one that is not done.
        """
        kept: list[Shard] = []
        claimed = None
        for position, shard in enumerate(self._left):
            if self._is_done(shard):
                continue
            if self._writer.is_ready(shard) and self._writer.claims.take(shard.index):
                # Another process may have recorded it and released its claim since the check above.
                if not self._is_done(shard):
                    kept.extend(self._left[position + 1 :])
                    claimed = shard
                    break
                self._writer.claims.release(shard.index)
                continue
            kept.append(shard)
        self._left = kept
        return claimed

    def _is_done(self, shard: Shard) -> bool:
        done = self._writer.is_recorded(shard)
        if done:
            self._on_done(shard)
        return done
