"""Decode one picture to gray or RGB pixels of 8 bits.

The pixels are part of the fingerprint of every data set: increase ``DECODER_VERSION`` in ``decoded.py`` when a
change here changes a pixel.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from bancache.errors import DataError

Content = bytes | Path | NDArray[np.uint8]

_RASTER = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# Errors that Pillow's decoders raise for truncated or altered files, found by fuzzing.
_BROKEN = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


def decode(where: str, content: Content, *, image_size: int | None) -> Image.Image:
    """Return a picture in mode L or RGB, upright, resized to ``image_size`` if given.

    Args:
        where: The file or row, for messages.
        content: Encoded bytes, a file that holds them, or pixels ``(H, W, 1)`` or ``(H, W, 3)``.
        image_size: Height and width in pixels.

    Raises:
        DataError: The content is not a picture, or a damaged one.
    """
    with _naming(where), _open(content) as picture:
        return _resize(_to_8_bits(ImageOps.exif_transpose(picture), where), image_size)


def is_gray(where: str, content: Content) -> bool:
    """Return whether a picture is gray, from its header."""
    with _naming(where), _open(content) as picture:
        return _is_gray_mode(picture.mode)


def to_array(picture: Image.Image, *, channels: int) -> NDArray[np.uint8]:
    """Return pixels ``(H, W, C)`` of a decoded picture; a gray picture among color ones gets C equal channels."""
    pixels = np.asarray(picture.convert("RGB") if channels == 3 else picture)
    return pixels.reshape(picture.height, picture.width, channels)


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError as error:
        raise DataError(
            f"{where} is not an image in a known format ({', '.join(_formats())})",
            hint="replace it or leave it out",
        ) from error
    except _BROKEN as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{where} cannot be decoded: {reason}", hint="replace it or leave it out") from error


def _open(content: Content) -> Image.Image:
    if isinstance(content, np.ndarray):
        return Image.fromarray(content.squeeze(axis=2) if content.shape[2] == 1 else content)
    return Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=_formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return the raster formats that this version of Pillow decodes.

    By default Pillow tries every format, whatever the file name says, and starts ghostscript for PostScript: a
    picture must not start a program.
    """
    Image.init()
    return tuple(name for name in _RASTER if name in Image.OPEN)


def _is_gray_mode(mode: str) -> bool:
    return mode in {"1", "L", "LA", "La", "I", "F"} or mode.startswith("I;16")


def _to_8_bits(picture: Image.Image, where: str) -> Image.Image:
    mode = "L" if _is_gray_mode(picture.mode) else "RGB"
    if picture.mode == "F":
        raise DataError(f"{where} holds floating-point pixels", hint="convert it to 8 bits")
    if picture.mode.startswith("I"):
        return _from_16_bits(picture, where)
    if picture.has_transparency_data:
        # The colors of transparent pixels are arbitrary; on white, drawings stay visible.
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    if picture.mode != mode:
        return picture.convert(mode)
    picture.load()
    return picture


def _from_16_bits(picture: Image.Image, where: str) -> Image.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise DataError(
            f"{where} holds values from {values.min()} to {values.max()}, not 0..65535",
            hint="convert it to 8 bits",
        )
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _resize(picture: Image.Image, image_size: int | None) -> Image.Image:
    if image_size is None or picture.size == (image_size, image_size):
        return picture
    width, height = picture.size
    short = min(width, height)
    width, height = ((side * image_size + short // 2) // short for side in (width, height))
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - image_size) // 2, (height - image_size) // 2
    return picture.crop((left, top, left + image_size, top + image_size))
