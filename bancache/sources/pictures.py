"""Pictures: the encoded images of a split, and their decoding into blocks of equal size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.image_set import ImageSet
from bancache.sources.pixels import Content, decode, is_gray, to_array
from bancache.sources.request import Request

_BLOCK_BYTES = 1 << 24

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Pictures:
    """Encoded images with their labels.

    Attributes:
        labels: int64 ``(N,)``.
        classes: Class names.
        stream: Yields N pairs (file or row, content), the same at every call.
    """

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    stream: Callable[[], Iterator[tuple[str, Content]]]


def pixel_shape(pictures: Pictures, request: Request) -> Shape:
    """Return ``(N, H, W, C)``: H and W of the first picture, and C = 1 only if every picture is gray."""
    stream = pictures.stream()
    where, content = next(stream, ("", b""))
    if not where:
        raise DataError(f"{request.name}: the {request.split} split has no images", hint="check the path")
    first = decode(where, content, image_size=request.image_size)
    # Headers are read only if the first picture is gray, and only up to the first picture in color.
    gray = first.mode == "L" and all(is_gray(where, content) for where, content in stream)
    return len(pictures.labels), first.height, first.width, 1 if gray else 3


def pixel_blocks(pictures: Pictures, shape: Shape, request: Request) -> Iterator[NDArray[np.uint8]]:
    """Yield blocks uint8 ``(B, H, W, C)`` that together are the images of ``shape``, in order.

    Raises:
        DataError: A picture cannot be decoded, or differs in size from the first.
    """
    samples, height, width, channels = shape
    step = max(1, min(256, _BLOCK_BYTES // (height * width * channels)))
    block: list[NDArray[np.uint8]] = []
    index = 0
    title = f"decode {request.name} {request.split}"
    with request.progress.stage(title, total=samples, unit="images") as stage:
        for index, (where, content) in enumerate(pictures.stream(), start=1):
            picture = decode(where, content, image_size=request.image_size)
            if picture.size != (width, height):
                raise DataError(
                    f"{request.name}: images differ in size: the first is {width}x{height}, "
                    f"{where} is {picture.width}x{picture.height}",
                    hint="resize all to one size: --image-size 64",
                )
            block.append(to_array(picture, channels=channels))
            if len(block) == step or index == samples:
                yield np.stack(block)
                stage.advance(len(block))
                block = []
    if index != samples:
        raise DataError(
            f"{request.name}: {samples:,} labels, but {index:,} images",
            hint="the source changed while it was read; try again",
        )


def decode_in_memory(request: Request, pictures: Pictures) -> ImageSet:
    """Return the decoded images without keeping them on disk."""
    shape = pixel_shape(pictures, request)
    images = np.empty(shape, np.uint8)
    done = 0
    for block in pixel_blocks(pictures, shape, request):
        images[done : done + len(block)] = block
        done += len(block)
    return ImageSet(images, pictures.labels, pictures.classes, request.name, request.split)


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
