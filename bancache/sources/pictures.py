"""Pictures: the encoded images of a split, and their decoding into blocks of equal size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.image_set import ImageSet
from bancache.sources.pixels import (
    FULL_RANGE,
    Content,
    Rules,
    UnreadableError,
    decode,
    is_gray,
    largest_value,
    to_array,
    white_of,
)
from bancache.sources.request import Request
from bancache.system.memory import require_memory

_BLOCK_BYTES = 1 << 24
_NAMED = 10

Shape = tuple[int, int, int, int]
Stream = Callable[[], Iterator[tuple[str, Content]]]


@dataclass(frozen=True)
class Pictures:
    """Encoded images with their labels.

    Attributes:
        labels: int64 ``(N,)``.
        classes: Class names.
        stream: Yields N pairs (file or row, content), the same at every call.
        others: Yields the pictures of the other split, which are looked at to find the range of 16-bit pictures.
        notes: What was decided before decoding.
    """

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    stream: Stream
    others: Stream = lambda: iter(())
    notes: tuple[str, ...] = ()


class Decoding:
    """One pass over the pictures of a split, with what it left out and what it decided."""

    def __init__(self, pictures: Pictures, request: Request) -> None:
        self._pictures, self._request = pictures, request
        self._rules = Rules(request.image_size, lambda: self._white)
        self._bad: list[tuple[int, str]] = []

    def shape(self) -> Shape:
        """Return ``(N, H, W, C)``: H and W of the first readable picture, and C = 1 only if every picture is gray."""
        rules = Rules(self._request.image_size, lambda: self._white)
        stream = self._pictures.stream()
        for where, content in stream:
            with contextlib.suppress(UnreadableError):
                first = decode(where, content, rules)
                break
        else:
            list(self.blocks((len(self._pictures.labels), 1, 1, 1)))  # names what cannot be read
            raise DataError(
                f"{self._request.name}: the {self._request.split} split has no images that can be read",
                hint="check the path",
            )
        # Headers are read only if the first picture is gray, and only up to the first picture in color.
        gray = first.mode == "L" and all(_may_be_gray(where, content) for where, content in stream)
        return len(self._pictures.labels), first.height, first.width, 1 if gray else 3

    def blocks(self, shape: Shape) -> Iterator[NDArray[np.uint8]]:
        """Yield blocks uint8 ``(B, H, W, C)`` that together are the readable images, in order.

        Raises:
            DataError: Pictures cannot be decoded, and are not to be left out; or one differs in size from the first.
        """
        samples, height, width, channels = shape
        request, told = self._request, self._rules.told
        step = max(1, min(256, _BLOCK_BYTES // (height * width * channels)))
        block: list[NDArray[np.uint8]] = []
        index, errors = -1, []
        title = f"decode {request.name} {request.split}"
        with request.progress.stage(title, total=samples, unit="images") as stage:
            for index, (where, content) in enumerate(self._pictures.stream()):
                try:
                    picture = decode(where, content, self._rules)
                except UnreadableError as error:
                    self._bad.append((index, where))
                    errors.append(error)
                    continue
                if picture.size != (width, height):
                    raise DataError(
                        f"{request.name}: images differ in size: the first is {width}x{height}, "
                        f"{where} is {picture.width}x{picture.height}",
                        hint="resize all to one size: --image-size 64",
                    )
                told["gray among color ones: the channels are equal"] += channels == 3 and picture.mode == "L"
                block.append(to_array(picture, channels=channels))
                if len(block) == step:
                    yield np.stack(block)
                    stage.advance(len(block))
                    block = []
            if block:
                yield np.stack(block)
                stage.advance(len(block))
        if errors and not request.skip_bad:
            raise self._unreadable(errors)
        if index + 1 != samples:
            raise DataError(
                f"{request.name}: {samples:,} labels, but {index + 1:,} images",
                hint="the source changed while it was read; try again",
            )

    def labels(self) -> NDArray[np.int64]:
        """Return the labels of the images that the blocks held, int64 ``(N,)``."""
        return np.delete(self._pictures.labels, [index for index, _ in self._bad])

    def notes(self) -> list[str]:
        """Return what was decided, a line each."""
        start, total = f"{self._request.name} {self._request.split}: ", len(self._pictures.labels)
        lines = list(self._pictures.notes)
        lines += [f"{start}{what}: {n:,} of {total:,} pictures" for what, n in self._rules.told.items() if n]
        if self._bad:
            lines.append(f"{start}left out {_named([where for _, where in self._bad], total)}")
        if "_white" in vars(self):  # it was asked for
            lines.append(f"{start}pictures of 16 bits became 8 bits: the value {self._white:,} is white")
        return lines

    @cached_property
    def _white(self) -> int:
        """What becomes white in pictures of more than 8 bits; both splits have the same."""
        if self._request.decoder < 2:
            return FULL_RANGE
        largest = 0
        for where, content in chain(self._pictures.stream(), self._pictures.others()):
            with contextlib.suppress(UnreadableError):
                largest = max(largest, largest_value(where, content))
            if white_of(largest) == FULL_RANGE:
                break
        return white_of(largest)

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
        if len(found) == 1:
            return errors[0]
        return DataError(
            f"{self._request.name}: {_named(found, total)}; {errors[0]}",
            hint="replace them, or add --skip-bad",
        )


def _named(places: list[str], total: int) -> str:
    more = ", …" if len(places) > _NAMED else ""
    listed = ", ".join(places[:_NAMED])
    return f"{len(places):,} of {total:,} pictures cannot be read: {listed}{more}"


def _may_be_gray(where: str, content: Content) -> bool:
    try:
        return is_gray(where, content)
    except UnreadableError:
        return True


def decode_in_memory(request: Request, pictures: Pictures) -> ImageSet:
    """Return the decoded images without keeping them on disk."""
    decoding = Decoding(pictures, request)
    shape = decoding.shape()
    require_memory(
        int(np.prod(shape, dtype=object)),
        f"{shape[0]:,} images of {shape[1]} x {shape[2]} pixels",
        hint="use smaller images: --image-size",
    )
    images = np.empty(shape, np.uint8)
    done = 0
    for block in decoding.blocks(shape):
        images[done : done + len(block)] = block
        done += len(block)
    for note in decoding.notes():
        request.progress.note(note)
    return ImageSet(images[:done], decoding.labels(), pictures.classes, request.name, request.split)


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
        labels, classes, lambda: ((f"image {index}", image) for index, image in enumerate(images))
    )
