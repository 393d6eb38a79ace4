"""Which region a process does next, of a cache that several fill: its own share first, then what nobody is at."""

from __future__ import annotations

from collections.abc import Callable

from bancache.cache.layout import Region
from bancache.cache.writer import CacheWriter
from bancache.system.ranks import Place


class Turns:
    """The regions that are left for one process, in the order in which it tries them.

    Its own are every count-th from its rank on, so processes that know of one another rarely want the same.
    """

    def __init__(
        self, writer: CacheWriter, place: Place, found: Callable[[Region], object] = lambda region: None
    ) -> None:
        """Begin with what is not recorded; ``found`` is told of each region that others record."""
        self._writer, self._found = writer, found
        pending = writer.pending()
        own = [region for region in pending if region.index % place.count == place.rank]
        rest = [region for region in pending if region.index % place.count != place.rank]
        begin = len(rest) * place.rank // place.count
        self._left = [*own, *rest[begin:], *rest[:begin]]

    @property
    def left(self) -> int:
        """How many regions are neither recorded, as far as was looked, nor were handed out by ``next``."""
        return len(self._left)

    def next(self) -> Region | None:
        """Claim a region and return it; None while each is done, in another's hands, or builds on one that is."""
        kept: list[Region] = []
        taken = None
        for position, region in enumerate(self._left):
            if self._is_done(region):
                continue
            if self._writer.is_ready(region) and self._writer.claims.take(region.index):
                # Its last holder may have recorded it and given up its claim since we looked.
                if not self._is_done(region):
                    kept.extend(self._left[position + 1 :])
                    taken = region
                    break
                self._writer.claims.release(region.index)
                continue
            kept.append(region)
        self._left = kept
        return taken

    def _is_done(self, region: Region) -> bool:
        done = self._writer.is_recorded(region)
        if done:
            self._found(region)
        return done
