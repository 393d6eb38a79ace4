"""Pictures of a folder or of parquet files that are decoded whenever they are needed, since all pixels fill too much memory.

They are decoded once in full, for their sizes, their fingerprint and their statistics. These facts are kept, so a second
start decodes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.content import Known, Running, Sums
from bancache.sources.image_set import ImageSet
from bancache.sources.pictures import At, Decoding, Pictures
from bancache.sources.pixels import FULL_RANGE, Rules, UnreadableError, decode, to_array
from bancache.sources.request import Request
from bancache.system.read_ahead import in_order, num_threads
from bancache.system.stored import StoredImages, sketch


@dataclass(frozen=True)
class Facts:
    """What is known of pictures after all of them were decoded once.

    Attributes:
        places: Their numbers in the source, without those that are left out, int64 (N,).
        heights: int32 (N,).
        widths: int32 (N,).
        channels: 1 if every picture is gray, else 3.
        white: What becomes white in pictures of more than 8 bits, or None if there are none.
        sketches: uint64 (N,), ``sketch`` of each.
    """

    places: NDArray[np.int64]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    channels: int
    white: int | None
    sketches: NDArray[np.uint64]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        arrays = {name: getattr(self, name).tolist() for name in ("places", "heights", "widths", "sketches")}
        return {**arrays, "channels": self.channels, "white": self.white}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Facts:
        """Read what ``to_dict`` returned."""
        heights, widths = (np.array(values[name], np.int32) for name in ("heights", "widths"))
        places, sketches = np.array(values["places"], np.int64), np.array(values["sketches"], np.uint64)
        return cls(places, heights, widths, int(values["channels"]), values["white"], sketches)


class EncodedImages(StoredImages):
    """Pictures that are read from their files and decoded one by one."""

    def __init__(self, at: At, facts: Facts, image_size: int | None) -> None:
        """Decode what ``at`` returns to pictures of ``image_size``."""
        self._at, self._facts, self._image_size = at, facts, image_size
        self.heights, self.widths, self.channels = facts.heights, facts.widths, facts.channels
        self.sketches = facts.sketches
        self._rules = Rules(image_size, lambda: FULL_RANGE if facts.white is None else facts.white)

    def read(self, sample: int) -> NDArray[np.uint8]:
        """Return the pixels of one picture, ``(H, W, C)``; DataError if it is not as it was."""
        where, content = self._at(int(self._facts.places[sample]))
        try:
            picture = decode(where, content, replace(self._rules, told=Counter()))
        except DataError as error:
            raise DataError(f"sample {sample}: {error}", hint=error.hint) from error
        pixels, sizes = to_array(picture, channels=self.channels), (self.heights[sample], self.widths[sample])
        if pixels.shape[:2] != sizes:
            raise DataError(
                f"sample {sample}: {where} has {pixels.shape[1]}x{pixels.shape[0]} pixels, not {sizes[1]}x{sizes[0]} as before",
                hint="the source changed: start again",
            )
        return pixels

    def first(self, n: int) -> EncodedImages:
        """Return the first ``n`` pictures."""
        facts = self._facts
        names = ("places", "heights", "widths", "sketches")
        some = replace(facts, **{name: getattr(facts, name)[:n] for name in names})
        return EncodedImages(self._at, some, self._image_size)

    def close(self) -> None:
        """Forget what parts of files are in memory; no file is open."""
        if (close := getattr(self._at, "close", None)) is not None:
            close()


class Look(Decoding):
    """One pass over all pictures by threads, which keeps nothing of their pixels; ``needed`` was called."""

    def __init__(self, pictures: Pictures, request: Request) -> None:
        super().__init__(pictures, request)
        self._sketches: list[int] = []

    def image_set(self, flat: NDArray[np.uint8] | None = None) -> ImageSet:
        """Return the pictures where they lie, with fingerprint and statistics.

        Raises:
            DataError: Pictures cannot be decoded, and are not to be left out.
        """
        pictures, request = self._pictures, self._request
        size, errors = request.image_size, list[UnreadableError]()
        # What pictures will be, unless some are left out or have one size by chance.
        side = None if size is None else (size, size)
        pixels = self._needed // self._channels
        running = Running(len(pictures.labels), pixels, self._channels, side)
        for picture in self._parts(errors):
            running.add(picture, Sums.of(picture, self._channels))
        if errors and not request.skip_bad:
            raise self._unreadable(errors)
        self._require_any()
        images = EncodedImages(self._at, self.facts(), size)
        is_right = running.is_like(running.seen())
        known = running.known(pictures.labels, pictures.classes) if is_right else None
        return image_set_of(request, pictures, images, known, tuple(self._places))

    def facts(self) -> Facts:
        """Return what the pass found."""
        places = np.delete(np.arange(len(self._pictures.labels)), [index for index, _ in self._bad])
        white = self._white if "_white" in vars(self) else None
        sketches = np.array(self._sketches, np.uint64)
        return Facts(places, self._sides(0), self._sides(1), self._channels, white, sketches)

    @property
    def _at(self) -> At:
        assert self._pictures.at is not None, "the caller has looked"
        return self._pictures.at

    def _sides(self, axis: int) -> NDArray[np.int32]:
        return np.array([size[axis] for size in self._sizes], np.int32)

    def _parts(self, errors: list[UnreadableError]) -> Iterator[NDArray[np.uint8]]:
        """Yield the pixels of every picture that can be read."""
        request, samples = self._request, len(self._pictures.labels)
        jobs = (partial(self._work, index) for index in range(samples))
        title = f"decode {request.name} {request.split}"
        with request.progress.stage(title, total=samples, unit="images") as stage:
            for index, (where, found, told) in enumerate(in_order(jobs, ahead=2 * num_threads())):
                self._rules.told.update(told)
                stage.advance(1)
                if isinstance(found, UnreadableError):
                    self._bad.append((index, where))
                    errors.append(found)
                    continue
                self._places.append(where)
                self._sizes.append((found.shape[0], found.shape[1]))
                self._sketches.append(sketch(found))
                yield found

    def _work(self, index: int) -> tuple[str, NDArray[np.uint8] | UnreadableError, Counter[str]]:
        rules = replace(self._rules, told=Counter())
        where, content = self._at(index)
        try:
            return where, self._pixels(where, content, rules), rules.told
        except UnreadableError as error:
            return where, error, Counter()


def image_set_of(
    request: Request,
    pictures: Pictures,
    images: EncodedImages,
    known: Known | None,
    paths: tuple[str, ...] | None,
) -> ImageSet:
    """Return a split whose pictures stay where they lie."""
    labels = pictures.labels[images._facts.places]
    paths = paths if pictures.named else None
    return ImageSet(images, labels, pictures.classes, request.name, request.split, known, paths)
