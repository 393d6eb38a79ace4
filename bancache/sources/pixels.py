"""Decode one picture to gray or RGB pixels of 8 bits.

The pixels are part of the fingerprint of every data set: where a change here changes a pixel, data specs of older
versions must keep the older rule, and ``DECODER_VERSION`` in ``decoded.py`` increases.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from bancache.errors import DataError
from bancache.system.memory import require_memory

Content = bytes | Path | NDArray[np.uint8]

_RASTER = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

FULL_RANGE = 0xFFFF
_WIDE_COLOR = re.compile(r"\b(?:LA|RGB|RGBA|RGBX|CMYK);16")
_ORIENTATION = 0x0112
_DECODING_BYTES = 16  # a pixel, with the copies in between, measured on RGB and RGBA
_LEAVE_OUT = "replace it, or leave it out with --skip-bad"
# Too many open files, a failing disk, or no memory: what the machine lacks is no damage of a picture.
_MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT})

# Errors that Pillow's decoders raise for truncated or altered files, found by fuzzing.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Rules:
    """How values become 8-bit pixels of one size, and what was decided on the way.

    Attributes:
        image_size: Height and width in pixels that every picture gets; None keeps them.
        white: Returns the value that becomes 255 in pictures of more than 8 bits; asked only if there is one.
        told: Number of pictures by what was done to them.
    """

    image_size: int | None = None
    white: Callable[[], int] = lambda: FULL_RANGE
    told: Counter[str] = field(default_factory=Counter)


class UnreadableError(DataError):
    """One picture is damaged, or of a kind that is not read; the others may be intact."""


def decode(where: str, content: Content, rules: Rules) -> Image.Image:
    """Return a picture in mode L or RGB, upright and resized.

    Args:
        where: The file or row, for messages.
        content: Encoded bytes, a file that holds them, or pixels ``(H, W, 1)`` or ``(H, W, 3)``.
        rules: Size and range of the pixels.

    Raises:
        UnreadableError: The content is not a picture, or a damaged one.
        DataError: The file cannot be read for a reason that is not the picture's.
        OutOfMemoryError: The picture says that it has more pixels than fit.
    """
    if isinstance(content, bytes) and not content:
        raise UnreadableError(f"{where} holds no bytes", hint="embed the images: paths are not followed")
    with _naming(where), _open(content) as picture:
        _require_room(picture, where)
        if _is_wide_color(picture):
            _require_full_range(where, rules)
        if _has_frames(picture):
            rules.told["of several frames: the first one is taken"] += 1
        if _is_turned(picture):
            rules.told["turned upright, as their EXIF data say"] += 1
        ImageOps.exif_transpose(picture, in_place=True)
        return _resize(_to_8_bits(picture, where, rules), where, rules)


def encoded(where: str, content: bytes | Path) -> bytes:
    """Return the bytes of an encoded picture; errors are those of ``decode``."""
    with _naming(where):
        return content.read_bytes() if isinstance(content, Path) else content


@dataclass(frozen=True)
class Header:
    """What a picture says of itself; its sides change places where EXIF data turn it."""

    gray: bool
    width: int
    height: int


def look(where: str, content: Content) -> Header:
    """Return what the header of a picture says; UnreadableError if it has none."""
    if isinstance(content, np.ndarray):
        height, width, channels = content.shape
        return Header(channels == 1, width, height)
    with _naming(where), _open(content) as picture:
        return Header(_is_gray_mode(picture.mode), *picture.size)


def is_plain(where: str, content: Content, channels: int) -> bool:
    """Return whether ``decode`` has nothing to decide for a picture of a data set with so many channels, by its header."""
    with _naming(where), _open(content) as picture:
        odd = (_is_wide_color, _has_frames, _is_turned)
        plain = picture.mode == ("L" if channels == 1 else "RGB") and not picture.has_transparency_data
        return plain and not any(is_odd(picture) for is_odd in odd)


def largest_value(where: str, content: Content) -> int:
    """Return the largest value of a picture of more than 8 bits, 0 for any other, and 65535 if it declares its range."""
    with _naming(where), _open(content) as picture:
        _require_room(picture, where)
        if picture.mode.startswith("I"):
            # This decoder of PPM files has scaled the values from the range in the file's header.
            return FULL_RANGE if "'ppm'" in _stored(picture) else int(np.asarray(picture).max())
        if _is_wide_color(picture):  # Pillow keeps the upper byte of each value only
            return int(np.asarray(picture.convert("RGB")).max()) << 8 | 0xFF
        return 0


def to_array(picture: Image.Image, *, channels: int) -> NDArray[np.uint8]:
    """Return pixels ``(H, W, C)`` of a decoded picture; a gray picture among color ones gets C equal channels."""
    pixels = np.asarray(picture.convert("RGB") if channels == 3 and picture.mode != "RGB" else picture)
    return pixels.reshape(picture.height, picture.width, channels)


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError as error:
        raise UnreadableError(
            f"{where} is not an image in a known format ({', '.join(_formats())})", hint=_LEAVE_OUT
        ) from error
    except _BROKEN as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise DataError(
                f"{where} cannot be read: {error.strerror}", hint="this is not the picture's fault"
            ) from error
        raise UnreadableError(f"{where} cannot be decoded: {reason}", hint=_LEAVE_OUT) from error


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


def _require_room(picture: Image.Image, where: str) -> None:
    """Refuse a picture whose header says that decoding it takes more memory than is free."""
    width, height = picture.size
    require_memory(
        width * height * _DECODING_BYTES,
        f"the {width:,} x {height:,} pixels of {where}",
        hint="make the picture smaller, or leave it out",
    )


def _has_frames(picture: Image.Image) -> bool:
    return bool(getattr(picture, "is_animated", False)) and picture.format != "MPO"


def _is_turned(picture: Image.Image) -> bool:
    return picture.getexif().get(_ORIENTATION, 1) in range(2, 9)


def _is_gray_mode(mode: str) -> bool:
    return mode in {"1", "L", "LA", "La", "I", "F"} or mode.startswith("I;16")


def _is_wide_color(picture: Image.Image) -> bool:
    return not picture.mode.startswith("I") and bool(_WIDE_COLOR.search(_stored(picture)))


def _stored(picture: Image.Image) -> str:
    """Return how the file stores its values, such as "zip … RGB;16B"; pixels in memory have no such text."""
    return str(getattr(picture, "tile", ""))


def _to_8_bits(picture: Image.Image, where: str, rules: Rules) -> Image.Image:
    mode = "L" if _is_gray_mode(picture.mode) else "RGB"
    if picture.mode == "F":
        raise UnreadableError(
            f"{where} holds floating-point pixels", hint=f"convert it to 8 bits, or {_LEAVE_OUT}"
        )
    if picture.mode.startswith("I"):
        return _from_16_bits(picture, where, rules)
    if picture.has_transparency_data:
        # The colors of transparent pixels are arbitrary; on white, drawings stay visible.
        colors = picture.convert("RGBA")
        rules.told["partly transparent, and laid on white"] += colors.getchannel("A").getextrema() != (
            255,
            255,
        )
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), colors)
    if picture.mode == "CMYK":
        rules.told["of printing colors (CMYK), converted without a color profile"] += 1
    if picture.mode != mode:
        return picture.convert(mode)
    picture.load()
    return picture


def _require_full_range(where: str, rules: Rules) -> None:
    if (white := rules.white()) < FULL_RANGE:
        raise DataError(
            f"{where} is a color picture of 16 bits, but no value is above {white:,}: its upper 8 bits are almost black",
            hint="convert the pictures to 8 bits",
        )


def _from_16_bits(picture: Image.Image, where: str, rules: Rules) -> Image.Image:
    values, white = np.asarray(picture).astype(np.int64), rules.white()
    if values.min() < 0 or values.max() > FULL_RANGE:
        raise UnreadableError(
            f"{where} holds values from {values.min()} to {values.max()}, not 0..65535",
            hint=f"convert it to 8 bits, or {_LEAVE_OUT}",
        )
    return Image.fromarray(scaled(values, white))


def scaled(values: NDArray[Any], white: int) -> NDArray[np.uint8]:
    """Return integers 0..white as 0..255, rounded."""
    return ((values.astype(np.int64) * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)


def white_of(largest: int) -> int:
    """Return the largest value of the usual depth (8, 10, 12, 14 or 16 bits) that holds ``largest``.

    >>> white_of(255), white_of(4000), white_of(20000)
    (255, 4095, 65535)
    """
    return next((white for white in (255, 1023, 4095, 16383) if largest <= white), FULL_RANGE)


def _resize(picture: Image.Image, where: str, rules: Rules) -> Image.Image:
    size = rules.image_size
    if size is None or picture.size == (size, size):
        return picture
    width, height = picture.size
    short = min(width, height)
    rules.told["cropped to the center square"] += width != height
    rules.told[f"enlarged to {size} pixels"] += short < size
    width, height = ((side * size + short // 2) // short for side in (width, height))
    require_memory(  # a narrow picture becomes a very long one before its center is cut out
        width * height * _DECODING_BYTES,
        f"the {width:,} x {height:,} pixels of {where}, whose shorter side becomes {size},",
        hint="use a smaller --image-size, or leave the picture out",
    )
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))
