"""What is packed: the pictures of a split of any source, what their headers say, and how each becomes bytes of a pack."""

from __future__ import annotations

import functools
import hashlib
import importlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError, UsageError
from bancache.sources import open_source, parse_source
from bancache.sources.content import Sums
from bancache.sources.pack import open_pack, pictures_of
from bancache.sources.pack_format import Kind
from bancache.sources.pictures import Pictures, array_pictures, headers, white_of_pictures
from bancache.sources.pixels import Content, Rules, decode, encoded, is_plain, to_array
from bancache.sources.request import SPLITS, Request, reading
from bancache.system.files import state_of
from bancache.system.fingerprint import fingerprint_json
from bancache.system.memory import require_memory
from bancache.system.progress import Progress, Silent

Pixels = NDArray[np.uint8]
# Brings a box of a picture (top, left, height, width) to a size (height, width).
Resize = Callable[[Pixels, tuple[int, int, int, int], tuple[int, int]], Pixels]

_ENCODED = ("folder", "parquet")
# The resampler's arithmetic is exact up to this.
_MOST_SHRUNK = 255


@dataclass(frozen=True)
class Shape:
    """How pictures become bytes of a pack.

    Attributes:
        kind: Encoded pictures as they are, or pixels.
        size: Length in pixels that the shorter side is brought to; None keeps pictures as they are.
        square: Whether only the center square is kept.
        resize: Resamples pixels; needed if there is a size.
    """

    kind: Kind
    size: int | None = None
    square: bool = False
    resize: Resize | None = field(default=None, compare=False)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the part of a picture that is kept."""
        if not self.square:
            return 0, 0, height, width
        short = min(height, width)
        return (height - short) // 2, (width - short) // 2, short, short

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that a picture gets.

        >>> Shape("pixels", 256).sides(400, 500)
        (256, 320)
        """
        if self.size is None:
            return height, width
        *_, height, width = self.box(height, width)
        short = min(height, width)
        high, wide = ((side * self.size + short // 2) // short for side in (height, width))
        return high, wide

    def apply(self, pixels: Pixels, where: str) -> Pixels:
        """Return a decoded picture as it is packed."""
        height, width = pixels.shape[:2]
        sides = self.sides(height, width)
        if sides == (height, width) or self.resize is None:
            return pixels
        box = self.box(height, width)
        require_memory(
            2 * sides[0] * sides[1] * pixels.shape[2],
            f"the {sides[1]:,} x {sides[0]:,} pixels that {where} becomes",
            hint="use a smaller --size, or leave the picture out",
        )
        if any(long > _MOST_SHRUNK * side for long, side in zip(box[2:], sides, strict=True)):
            raise DataError(f"{where} is too large to become {self.size} pixels", hint="use a larger --size")
        return self.resize(pixels, box, sides)


@dataclass(frozen=True)
class Expected:
    """What the headers of a split's pictures say.

    Attributes:
        channels: 1 if every picture is gray.
        pixels: Of all pictures, after resizing.
        size: Height and width of every picture, or None if they differ.
        bytes: How many a pack of them has.
    """

    channels: int
    pixels: int
    size: tuple[int, int] | None
    bytes: int


class Source:
    """One split of a source, to be packed.

    Attributes:
        request: Source and split.
        pictures: The pictures.
        encoded: Whether there are encoded pictures; arrays have none.
        identity: Changes if the source does.
    """

    def __init__(self, request: Request) -> None:
        """Find the pictures of a split; none of a folder is opened."""
        self.request, self.encoded = request, True
        if request.kind in _ENCODED:
            found = importlib.import_module(f"bancache.sources.{request.kind}").find(request)
            self.pictures: Pictures = found.read()
            self.identity = fingerprint_json(_states(found.files, request.place))
        elif request.kind == "pack":
            pack = open_pack(request)
            self.pictures, self.encoded = pictures_of(pack, request.split), pack.header.kind == "encoded"
            self.identity = pack.digest
        else:
            images = open_source(
                request.name, request.split, download=request.download, progress=request.progress
            )
            self.pictures, self.encoded = array_pictures(images.images, images.labels, images.classes), False
            self.identity = images.fingerprint

    def survey(self, shape: Shape) -> Expected:
        """Read the header of every picture."""
        gray, pixels, held = True, 0, 0
        sizes: set[tuple[int, int]] = set()
        title = f"look at {self.request.name} {self.request.split}"
        with self.request.progress.stage(title, total=len(self.pictures.labels), unit="images") as stage:
            for _, content, header in headers(self.pictures.stream):
                stage.advance(1)
                if header is None:
                    continue
                gray &= header.gray
                height, width = shape.sides(header.height, header.width)
                if len(sizes) < 2:
                    sizes.add((height, width))
                pixels += height * width
                held += content.stat().st_size if isinstance(content, Path) else len(content)
        channels = 1 if gray else 3
        size = sizes.pop() if len(sizes) == 1 else None
        return Expected(channels, pixels, size, held if shape.kind == "encoded" else pixels * channels)

    def name(self, where: str) -> str:
        """Return the name of a picture without the place of the source."""
        return where.removeprefix(f"{str(self.request.place).rstrip('/')}/")


@dataclass(frozen=True)
class Packed:
    """One picture as it is packed.

    Attributes:
        data: The bytes.
        pixels: What a reader will see, ``(H, W, C)``.
        sha256: Of the bytes.
        sums: Of the pixels.
        told: What was decided for it.
    """

    data: Pixels
    pixels: Pixels
    sha256: bytes
    sums: Sums
    told: Counter[str]


class Packer:
    """Makes the bytes of pictures; threads may use it at once."""

    def __init__(self, shape: Shape, channels: int, white: Callable[[], int]) -> None:
        self._shape, self._channels, self._white = shape, channels, white

    def fresh(self, where: str, content: Content) -> Packed:
        """Return a picture of the source as it is packed.

        Raises:
            UnreadableError: It cannot be decoded.
        """
        if self._shape.kind == "encoded":
            assert not isinstance(content, np.ndarray), "arrays are packed as pixels"
            raw = encoded(where, content)
            pixels, told = self._decoded(where, raw)
            data = np.frombuffer(raw, np.uint8)
        else:
            decoded, told = self._decoded(where, content)
            pixels = np.ascontiguousarray(self._shape.apply(decoded, where))
            data = pixels.reshape(-1)
        return Packed(data, pixels, hashlib.sha256(data.data).digest(), Sums.of(pixels, self._channels), told)

    def again(
        self, where: str, content: Content, data: Pixels, sides: tuple[int, int], sha256: bytes
    ) -> Packed:
        """Return a picture that is packed already, with what is decided for it: pixels do not say that."""
        told = Counter[str]()
        if self._shape.kind == "encoded":
            pixels, told = self._decoded(where, data.tobytes())
        else:
            pixels = data.reshape(*sides, self._channels)
            if not is_plain(where, content, self._channels):
                _, told = self._decoded(where, content)
        return Packed(data, pixels, sha256, Sums.of(pixels, self._channels), told)

    def _decoded(self, where: str, content: Content) -> tuple[Pixels, Counter[str]]:
        rules = Rules(white=self._white)
        picture = decode(where, content, rules)
        rules.told["gray among color ones: the channels are equal"] += (
            self._channels == 3 and picture.mode == "L"
        )
        return to_array(picture, channels=self._channels), rules.told


class White:
    """The value that becomes white in pictures of more than 8 bits; calling it finds the value.

    Attributes:
        found: The value, or None if no picture needed it.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._ask = functools.cache(lambda: white_of_pictures(pictures))
        self._lock = threading.Lock()
        self.found: int | None = None

    def __call__(self) -> int:
        """Return the value; only the first call looks at pictures."""
        with self._lock:
            self.found = self._ask()
            return self.found


def sources_of(name: str, *, download: bool, progress: Progress) -> dict[str, Source]:
    """Return both splits of a source; UsageError if it is unknown, DataError if it cannot be found."""
    request = _request(name, progress, download=download)
    with reading(name):
        return {split: Source(replace(request, split=split)) for split in SPLITS}


def has_encoded(kind: str, path: str) -> bool:
    """Return whether a source holds encoded pictures."""
    if kind == "pack":
        return open_pack(_request(f"pack:{path}", Silent())).header.kind == "encoded"
    return kind in _ENCODED


def _request(name: str, progress: Progress, *, download: bool = False) -> Request:
    kind, path = parse_source(name)
    return Request(name, kind, path, "train", None, download, progress, None)


def require_kind(sources: dict[str, Source], shape: Shape) -> None:
    """Raise UsageError for encoded pictures of a source that has none."""
    if shape.kind == "encoded" and not all(source.encoded for source in sources.values()):
        name = sources["train"].request.name
        raise UsageError(f"{name} has no encoded pictures", hint="leave out --kind, or use --kind pixels")


def _states(files: Any, place: Path) -> list[list[Any]]:
    states = ((file, state_of(file)) for file in files)
    return [[str(file.relative_to(place)), s.st_size, s.st_mtime_ns] for file, s in states]
