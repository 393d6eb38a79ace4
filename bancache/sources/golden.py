"""The decoder of JPEGs that is installed here, compared with the one that encoded packs mean.

The same JPEG has other pixels in a decoder with a fast transform or plain upsampling of colors: up to 36 of 255 apart. Tiny JPEGs
of every common kind, with the sha256 of their pixels, are decoded once before pictures are: it takes milliseconds.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from pathlib import Path

from bancache.errors import DataError
from bancache.sources.pixels import Rules, UnreadableError, decode, to_array

FILE = Path(__file__).with_name("golden.json")


def golden() -> dict[str, tuple[bytes, str]]:
    """Return the JPEGs by name, each with the sha256 of its pixels."""
    found = json.loads(FILE.read_text())
    return {name: (base64.b64decode(one["jpeg"]), one["pixels"]) for name, one in found.items()}


def pixels_hash(jpeg: bytes) -> str:
    """Return the sha256 of the size and the pixels of a JPEG as sources decode it."""
    picture = decode("a golden JPEG", jpeg, Rules())
    pixels = to_array(picture, channels=len(picture.getbands()))
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


@functools.cache
def require_decoder() -> None:
    """Raise DataError if the decoder here gives other pixels; it is asked once in a process."""
    if wrong := [name for name, (jpeg, pixels) in golden().items() if not _same(jpeg, pixels)]:
        raise DataError(
            f"{decoder_name()} decodes JPEGs of these kinds to other pixels than other decoders: {', '.join(wrong)}",
            hint="install Pillow's own wheel: pip install --force-reinstall pillow; or use a pack of kind pixels",
        )


def decoder_name() -> str:
    """Return name and version of the decoder."""
    import PIL
    from PIL import features

    library = "libjpeg-turbo" if features.check_feature("libjpeg_turbo") else "libjpeg"
    version = features.version("libjpeg_turbo") or features.version("jpg")
    return f"Pillow {PIL.__version__} with {library} {version}"


def _same(jpeg: bytes, pixels: str) -> bool:
    try:
        return pixels_hash(jpeg) == pixels
    except UnreadableError:
        return False
