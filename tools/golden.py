"""Write the golden JPEGs, ``bancache/sources/golden.json``: tiny pictures of every common kind, with the sha256 of their pixels.

They are frozen: a decoder that gives other pixels gives other data. ``python -m tools.golden`` writes them where there are none.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bancache.sources.golden import FILE, pixels_hash

_SIDES = 24, 32
_TURNED = 6


def _picture(channels: int) -> Image.Image:
    """Return edges, gradients and noise: what the inverse transform and the upsampling of colors can do differently."""
    y, x = np.mgrid[: _SIDES[0], : _SIDES[1]]
    noise = np.random.default_rng(0).integers(-40, 40, (*_SIDES, channels))
    waves = [np.where((x // 5 + y // 3) % 2, 220, 40), x * 8, 255 - y * 10, (x * y) % 256]
    pixels = np.clip(np.stack(waves[:channels], -1) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels.squeeze(), {1: "L", 3: "RGB", 4: "CMYK"}[channels])


def _encoded(channels: int = 3, **options: Any) -> bytes:
    stream = io.BytesIO()
    _picture(channels).save(stream, "JPEG", quality=60, optimize=True, **options)
    return stream.getvalue()


def _turned_on_its_side(jpeg: bytes) -> bytes:
    """Return a 4:2:2 JPEG as 4:4:0, which Pillow does not write: two blocks beside each other become one above the other."""
    at = jpeg.index(b"\xff\xc0") + 5  # height, width, then number, sampling and table of each component
    height, width = (int.from_bytes(jpeg[at + k : at + k + 2]) for k in (0, 2))
    content = bytearray(jpeg)
    content[at : at + 4] = (height * 2).to_bytes(2) + (width // 2).to_bytes(2)
    assert content[at + 6] == 0x21, "it is 4:2:2"
    content[at + 6] = 0x12
    return bytes(content)


def pictures() -> dict[str, bytes]:
    """Return the JPEGs by name."""
    turned = Image.Exif()
    turned[0x0112] = _TURNED
    return {
        "4:2:0": _encoded(subsampling="4:2:0"),
        "4:2:2": _encoded(subsampling="4:2:2"),
        "4:4:4": _encoded(subsampling="4:4:4"),
        "4:4:0": _turned_on_its_side(_encoded(subsampling="4:2:2")),
        "gray": _encoded(1),
        "CMYK": _encoded(4),
        "progressive": _encoded(subsampling="4:2:0", progressive=True),
        "turned by EXIF": _encoded(subsampling="4:2:0", exif=turned),
    }


def main(file: Path = FILE) -> None:
    """Write the file if there is none."""
    if file.exists():
        raise SystemExit(f"{file} is frozen")
    made = {
        name: {"jpeg": base64.b64encode(jpeg).decode(), "pixels": pixels_hash(jpeg)}
        for name, jpeg in pictures().items()
    }
    file.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
