"""A pack: the pictures of both splits in one file, which ``bancache pack`` wrote; pictures are read when they are needed.

Opening one reads its index and hashes no picture. A pack whose pixels take at most half of the free memory is read into it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.golden import require_decoder
from bancache.sources.image_set import ImageSet
from bancache.sources.pack_format import AGAIN, MAGIC, Index, read_header
from bancache.sources.pictures import Pictures, decode_in_memory
from bancache.sources.pixels import FULL_RANGE, Content, Rules, decode, to_array
from bancache.sources.request import Request, is_address
from bancache.system.address import Address
from bancache.system.memory import free_on_host
from bancache.system.object_parts import ObjectParts
from bancache.system.ragged import RaggedImages
from bancache.system.ranks import processes_here
from bancache.system.read_ahead import in_order, num_threads
from bancache.system.reading import ByteSource, LocalFile
from bancache.system.stored import StoredImages
from bancache.system.wording import command, count


class DamagedError(DataError):
    """One picture of a pack is not what was packed."""


class Pack:
    """An open pack.

    Attributes:
        name: For messages.
        file: Where it lies.
        header: What it says of itself.
        digest: sha256 of the header, and so of all that it describes.

    Raises:
        DataError: It is no pack, is cut or damaged, or makes no sense.
    """

    def __init__(self, file: ByteSource) -> None:
        self.file, self.name = file, file.name
        self.header, self._end, self.digest = read_header(file)

    def index(self, split: str) -> Index:
        """Read and check the index of a split."""
        index = Index(self.file, self.header, getattr(self.header.splits, split), self._end)
        for label in (int(index.labels.min()), int(index.labels.max())):
            if not 0 <= label < len(self.header.classes):
                raise DataError(
                    f"{self.name}: label {label} of {len(self.header.classes):,} classes", hint=AGAIN
                )
        return index

    def images(self, split: str) -> PackImages:
        """Return the pictures of a split."""
        return PackImages(self, split, self.index(split))


class Paths(Sequence[str]):
    """Where the pictures of a split came from, read when it is first asked for."""

    def __init__(self, index: Index) -> None:
        self._index = index

    @functools.cached_property
    def _read(self) -> tuple[str, ...]:
        return tuple(self._index.paths())

    def __len__(self) -> int:
        return self._index.header.samples

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self._read[index]


class PackImages(StoredImages):
    """The pictures of one split of a pack."""

    def __init__(self, pack: Pack, split: str, index: Index, samples: int | None = None) -> None:
        """Take the first ``samples`` pictures, or all."""
        self.pack, self.split, self.index = pack, split, index
        self.heights, self.widths = index.heights[:samples], index.widths[:samples]
        self.channels = index.header.channels
        # A file on a disk is checked where it is first read, an object of a store at every answer.
        self._checked = np.zeros(len(self.heights), np.bool_)

    def first(self, n: int) -> PackImages:
        """Return the first ``n`` pictures."""
        return PackImages(self.pack, self.split, self.index, min(n, len(self)))

    def close(self) -> None:
        """Close the file; reading opens it again."""
        self.pack.file.close()

    @functools.cached_property
    def paths(self) -> Sequence[str] | None:
        """Where the pictures came from."""
        return Paths(self.index) if self.index.has_paths else None

    def where(self, sample: int) -> str:
        """Return the name of a picture, for messages."""
        try:
            path = f" ({self.paths[sample]})" if self.paths else ""
        except DataError:  # they are damaged, too
            path = ""
        return f"{self.pack.name}: sample {sample} of {self.split}{path}"

    def content(self, sample: int, *, checked: bool = True) -> NDArray[np.uint8]:
        """Return the bytes of a picture as they were packed, ``(length,)``.

        Raises:
            DamagedError: They are others.
        """
        start, end = (int(offset) for offset in self.index.offsets[sample : sample + 2])
        found = self.pack.file.read(start, end - start)
        if checked and hashlib.sha256(found.data).digest() != self.index.sha256(sample):
            raise DamagedError(
                f"{self.where(sample)} is damaged",
                hint=f"mend it with {command('repair', self.pack.name.removeprefix('pack:'), '--data', 'SOURCE')}",
            )
        return found

    def read(self, sample: int) -> NDArray[np.uint8]:
        """Return the pixels of a picture, ``(H, W, C)``."""
        if sample < 0:
            sample += len(self)
        found = self.content(sample, checked=not (self.pack.file.near and self._checked[sample]))
        self._checked[sample] = True
        shape = int(self.heights[sample]), int(self.widths[sample]), self.channels
        if self.pack.header.kind == "pixels":
            return found.reshape(shape)
        rules = Rules(white=lambda: self.pack.header.white or FULL_RANGE)
        pixels = to_array(decode(self.where(sample), found.tobytes(), rules), channels=self.channels)
        if pixels.shape != shape:
            raise DataError(f"{self.where(sample)} has {pixels.shape}, the index says {shape}", hint=AGAIN)
        return pixels

    def in_memory(self, request: Request) -> RaggedImages:
        """Return all pictures, read and decoded by some threads."""
        flat, done = np.empty(self.nbytes, np.uint8), 0
        jobs = (functools.partial(self.read, sample) for sample in range(len(self)))
        title = f"read {request.name} {request.split}"
        with request.progress.stage(title, total=len(self), unit="images") as stage:
            for pixels in in_order(jobs, ahead=2 * num_threads()):
                flat[done : done + pixels.size] = pixels.reshape(-1)
                done += pixels.size
                stage.advance(1)
        return RaggedImages(flat, self.heights, self.widths, self.channels)

    def stream(self) -> Iterator[tuple[str, Content]]:
        """Yield the pictures as other sources give them."""
        pixels = self.pack.header.kind == "pixels"
        for sample in range(len(self)):
            where = self.paths[sample] if self.paths else f"image {sample}"
            yield where, self.read(sample) if pixels else self.content(sample).tobytes()


def open_images(request: Request) -> ImageSet:
    """Return a split of a pack: in memory if it takes at most half of what is free, else read picture by picture."""
    pack = open_pack(request)
    if pack.header.kind == "encoded":
        require_decoder()
    stored = pack.images(request.split)
    if request.image_size is not None:
        return decode_in_memory(request, pictures_of(pack, request.split))
    needed, free = stored.nbytes, free_on_host() // processes_here()
    images: RaggedImages | PackImages = stored
    if needed <= free // 2:
        images = stored.in_memory(request)
        stored.close()
    else:
        request.progress.note(
            f"{request.name} {request.split}: {needed / 1e9:,.1f} GB of pixels are read picture by picture, "
            f"{free / 1e9:,.1f} GB of memory are free for this process"
        )
    if request.split == "test":
        _warn_of_shared(pack, stored, request)
    header = pack.header
    return ImageSet(
        images,
        stored.index.labels,
        header.classes,
        request.name,
        request.split,
        stored.index.header.known,
        stored.paths,
    )


def _warn_of_shared(pack: Pack, test: PackImages, request: Request) -> None:
    """Warn of test pictures among training pictures that are streamed; a training compares those in memory."""
    train = pack.images("train")
    if train.nbytes <= free_on_host() // 2:
        return
    shared = int(np.isin(test.index.digests(), train.index.digests()).sum())
    if shared > len(test) // 100:
        request.progress.warn(
            f"{request.name}: among the training images too: {shared:,} of {count(len(test), 'test image')}, "
            "so test figures say little"
        )


def open_pack(request: Request) -> Pack:
    """Open the pack that a request names: a file, or an object in a store."""
    if is_address(request.path):
        return Pack(ObjectParts(request.path, request.name))
    place = request.existing_place(lambda place: place.is_file(), "file")
    return Pack(LocalFile(place, request.name))


def open_file(path: Path) -> Pack:
    """Open a pack by its path, or its address in an object store."""
    name = str(path)
    return Pack(ObjectParts(name, name) if isinstance(path, Address) else LocalFile(path, name))


def has_magic(path: Path) -> bool:
    """Return whether a file is a pack, by its first bytes."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def pictures_of(pack: Pack, split: str) -> Pictures:
    """Return the pictures of a split of a pack as a source of pictures."""
    images = pack.images(split)
    other = pack.images("test" if split == "train" else "train")
    named = images.index.has_paths
    return Pictures(images.index.labels, pack.header.classes, images.stream, other.stream, named=named)
