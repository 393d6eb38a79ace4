"""Pictures: the encoded images of a split, and their decoding into one run of pixels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.image_set import ImageSet
from bancache.sources.pixels import (
    FULL_RANGE,
    Content,
    Header,
    Rules,
    UnreadableError,
    decode,
    largest_value,
    look,
    to_array,
    white_of,
)
from bancache.sources.request import DECODER, Request
from bancache.system.memory import require_memory
from bancache.system.ragged import RaggedImages

_BLOCK_BYTES, _BLOCK_PICTURES = 1 << 24, 256
_NAMED = 10

Stream = Callable[[], Iterator[tuple[str, Content]]]
At = Callable[[int], tuple[str, Content]]


@dataclass(frozen=True)
class Pictures:
    """Encoded images with their labels.

    Attributes:
        labels: int64 ``(N,)``.
        classes: Class names.
        stream: Yields N pairs (file or row, content), the same at every call.
        others: Yields the pictures of the other split, which are looked at to find the range of 16-bit pictures.
        notes: What was decided before decoding.
        named: Whether the stream's names say where a picture comes from.
        at: Returns one of the stream's pairs, for threads at once; None if only the whole stream can be read.
    """

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    stream: Stream
    others: Stream = lambda: iter(())
    notes: tuple[str, ...] = ()
    named: bool = True
    at: At | None = None


@dataclass(frozen=True)
class Encoded:
    """The pictures of a split, where they lie.

    Attributes:
        files: All files that they depend on.
        read: Returns the pictures.
    """

    files: Sequence[Path]
    read: Callable[[], Pictures]


def headers(stream: Stream) -> Iterator[tuple[str, Content, Header | None]]:
    """Yield each picture with its header, or None where it has none.

    Whether a split is gray depends on headers, and so do fingerprints: what cannot be decoded before the first picture that
    can says no color.
    """
    first = True
    for where, content in stream():
        header = None
        with contextlib.suppress(UnreadableError):
            found = look(where, content)
            if first:
                decode(where, content, Rules(white=lambda: FULL_RANGE))
                first = False
            header = found
        yield where, content, header


def white_of_pictures(pictures: Pictures, decoder: int = DECODER) -> int:
    """Return what becomes white in pictures of more than 8 bits; both splits have the same."""
    if decoder < 2:
        return FULL_RANGE
    largest = 0
    for where, content in chain(pictures.stream(), pictures.others()):
        with contextlib.suppress(UnreadableError):
            largest = max(largest, largest_value(where, content))
        if white_of(largest) == FULL_RANGE:
            break
    return white_of(largest)


class Decoding:
    """One pass over the pictures of a split, with what it left out and what it decided."""

    def __init__(self, pictures: Pictures, request: Request) -> None:
        self._pictures, self._request = pictures, request
        self._rules = Rules(request.image_size, lambda: self._white)
        self._bad: list[tuple[int, str]] = []
        self._places: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._channels, self._needed, self._done = 3, 0, 0

    def needed(self) -> int:
        """Return how many bytes the pixels take by the pictures' headers; one that cannot be read may take none.

        Pixels have one channel only if every picture is gray.
        """
        size, gray, pixels = self._request.image_size, True, 0
        for _, _, header in headers(self._pictures.stream):
            if header is not None:
                gray &= header.gray
                pixels += header.width * header.height
            if size is not None and not gray:
                break
        self._channels = 1 if gray else 3
        pixels = pixels if size is None else len(self._pictures.labels) * size * size
        self._needed = self._channels * pixels
        return self._needed

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the pixels of the readable pictures in order, some pictures at a time, each (bytes,); ``needed`` was called.

        Raises:
            DataError: Pictures cannot be decoded, and are not to be left out.
        """
        samples, request = len(self._pictures.labels), self._request
        changed = "the source changed while it was read; try again"
        block: list[NDArray[np.uint8]] = []
        index, held, errors = -1, 0, []
        title = f"decode {request.name} {request.split}"
        with request.progress.stage(title, total=samples, unit="images") as stage:
            for index, (where, content) in enumerate(self._pictures.stream()):
                try:
                    block.append(self._decoded(where, content))
                except UnreadableError as error:
                    self._bad.append((index, where))
                    errors.append(error)
                    continue
                held += block[-1].size
                self._done += block[-1].size
                if self._done > self._needed:
                    raise DataError(f"{where} is larger than its header said", hint=changed)
                if len(block) == _BLOCK_PICTURES or held >= _BLOCK_BYTES:
                    yield np.concatenate(block)
                    stage.advance(len(block))
                    block, held = [], 0
            if block:
                yield np.concatenate(block)
                stage.advance(len(block))
        if errors and not request.skip_bad:
            raise self._unreadable(errors)
        if index + 1 != samples:
            raise DataError(
                f"{request.name}: {samples:,} labels, but {index + 1:,} images",
                hint=changed,
            )
        self._require_any()

    def _require_any(self) -> None:
        if not self._sizes:
            raise DataError(
                f"{self._request.name}: the {self._request.split} split has no images that can be read",
                hint="check the path",
            )

    def _decoded(self, where: str, content: Content) -> NDArray[np.uint8]:
        pixels = self._pixels(where, content, self._rules)
        self._places.append(where)
        self._sizes.append((pixels.shape[0], pixels.shape[1]))
        return pixels.reshape(-1)

    def _pixels(self, where: str, content: Content, rules: Rules) -> NDArray[np.uint8]:
        """Return the pixels of a picture, (H, W, C); what was decided goes to ``rules.told``."""
        picture = decode(where, content, rules)
        gray_as_color = self._channels == 3 and picture.mode == "L"
        rules.told["gray among color ones: the channels are equal"] += gray_as_color
        return to_array(picture, channels=self._channels)

    def shape(self) -> tuple[int, ...]:
        """Return ``(N, H, W, C)``, or ``(bytes,)`` if the decoded pictures differ in size."""
        if len(set(self._sizes)) > 1:
            return (self._done,)
        return len(self._sizes), *self._sizes[0], self._channels

    def image_set(self, flat: NDArray[np.uint8]) -> ImageSet:
        """Return the decoded images, whose pixels are those of all blocks."""
        heights, widths = np.array(self._sizes, np.int32).T
        images = RaggedImages(flat, heights, widths, self._channels)
        labels = np.delete(self._pictures.labels, [index for index, _ in self._bad])
        paths = tuple(self._places) if self._pictures.named else None
        request = self._request
        return ImageSet(images, labels, self._pictures.classes, request.name, request.split, paths=paths)

    def notes(self, images: ImageSet) -> list[str]:
        """Return what was decided, a line each."""
        start, total = f"{self._request.name} {self._request.split}: ", len(self._pictures.labels)
        lines = list(self._pictures.notes)
        lines += [f"{start}{what}: {n:,} of {total:,} pictures" for what, n in self._rules.told.items() if n]
        if not images.uniform:
            shown: Any = images.images
            lines.append(f"{start}pictures differ in size, {shown.span}: each keeps its own")
        if self._bad:
            lines.append(f"{start}left out, as {unreadable_text([where for _, where in self._bad], total)}")
        if "_white" in vars(self):  # it was asked for
            lines.append(f"{start}pictures of 16 bits became 8 bits: the value {self._white:,} is white")
        return lines

    @cached_property
    def _white(self) -> int:
        return white_of_pictures(self._pictures, self._request.decoder)

    def _unreadable(self, errors: list[UnreadableError]) -> DataError:
        """Return the error that names all unreadable pictures of both splits, so that one run finds them."""
        found, total = [where for _, where in self._bad], len(self._pictures.labels)
        for where, content in self._pictures.others():
            total += 1
            try:
                decode(where, content, Rules(white=lambda: FULL_RANGE))
            except UnreadableError as error:
                found.append(where)
                errors.append(error)
        return unreadable(self._request.name, found, total, errors[0])


def unreadable(source: str, places: list[str], total: int, first: UnreadableError) -> DataError:
    """Return the error that names all pictures that cannot be read."""
    if len(places) == 1:
        return first
    return DataError(
        f"{source}: {unreadable_text(places, total)}; {first}", hint="replace them, or add --skip-bad"
    )


def unreadable_text(places: list[str], total: int) -> str:
    """Return how many pictures cannot be read, and which."""
    more = ", …" if len(places) > _NAMED else ""
    listed = ", ".join(places[:_NAMED])
    return f"{len(places):,} of {total:,} pictures cannot be read: {listed}{more}"


def decode_in_memory(request: Request, pictures: Pictures) -> ImageSet:
    """Return the decoded images without keeping them on disk."""
    decoding = Decoding(pictures, request)
    needed = decoding.needed()
    require_memory(
        needed,
        f"the pixels of {len(pictures.labels):,} pictures",
        hint="use smaller images: --image-size",
    )
    flat = np.empty(needed, np.uint8)
    done = 0
    for block in decoding.blocks():
        flat[done : done + len(block)] = block
        done += len(block)
    images = decoding.image_set(flat[:done])
    for note in decoding.notes(images):
        request.progress.note(note)
    return images


def arrays_in_memory(
    request: Request, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]
) -> ImageSet:
    """Return images ``(N, H, W, C)`` that need no decoding, resized to the request's image size."""
    given = ImageSet(images, labels, classes, request.name, request.split)
    if request.image_size is None or images.shape[1:3] == (request.image_size, request.image_size):
        return given
    return decode_in_memory(request, array_pictures(given.images, labels, classes))


def array_pictures(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]
) -> Pictures:
    """Return images ``(N, H, W, C)`` as pictures."""
    return Pictures(
        labels,
        classes,
        lambda: ((f"image {index}", image) for index, image in enumerate(images)),
        named=False,
    )
