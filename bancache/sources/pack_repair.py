"""Damaged pictures of a pack written anew from where they came."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from bancache.errors import MismatchError
from bancache.sources.pack import Pack, PackImages
from bancache.sources.pack_check import verify_pack
from bancache.sources.pack_source import Packer, Resize, Shape, Source, White, sources_of
from bancache.sources.pixels import FULL_RANGE, UnreadableError
from bancache.sources.request import SPLITS
from bancache.system.progress import Progress


def repair_pack(pack: Pack, source: str | None, resize: Resize, *, progress: Progress) -> int:
    """Write damaged pictures anew from the source, if it still has the same ones; return how many were damaged.

    Args:
        pack: The pack, which is changed where it lies. A file has each picture whole or damaged at any instant; an object is
            put anew as a whole, so mended pictures are held in memory until then.
        source: Where the pictures are now; None for where they were.
        resize: Resamples pixels, as it was when they were packed.
        progress: Receives progress.

    Raises:
        DataError: The index is damaged, or the source cannot be read.
        MismatchError: The source has other pictures now; those that are the same were mended.
        StorageError: The pack cannot be written.
    """
    damaged = [each for each in verify_pack(pack, progress=progress) if each.sample is not None]
    if not damaged:
        return 0
    header, left = pack.header, list[str]()
    shape = Shape(header.kind, header.size, header.square, resize)
    sources = sources_of(source or header.source, download=False, progress=progress)
    white = functools.partial(int, header.white or FULL_RANGE) if header.kind == "encoded" else None

    def pieces() -> Iterator[tuple[int, bytes]]:
        for split in SPLITS:
            samples = [each.sample for each in damaged if each.split == split and each.sample is not None]
            images, mended = pack.images(split), set[int]()
            packer = Packer(shape, images.channels, white or White(sources[split].pictures))
            for sample, data in _found_again(images, samples, sources[split], packer):
                mended.add(sample)
                yield int(images.index.offsets[sample]), data
            left.extend(images.where(sample) for sample in samples if sample not in mended)

    pack.file.rewrite(pieces())
    if left:
        raise MismatchError(
            f"{left[0]}: {sources['train'].request.name} has another picture now"
            f"{f', and {len(left) - 1:,} more' if len(left) > 1 else ''}",
            hint="name a copy of the source as it was with --data, or pack it anew",
        )
    return len(damaged)


def _found_again(
    images: PackImages, samples: list[int], source: Source, packer: Packer
) -> Iterator[tuple[int, bytes]]:
    """Yield those of some samples that the source still has, with their bytes."""
    paths = images.index.paths() if images.index.has_paths and samples else []
    wanted: dict[str | int, int] = {paths[sample] if paths else sample: sample for sample in samples}
    for number, (where, content) in enumerate(source.pictures.stream() if samples else ()):
        sample = wanted.get(source.name(where) if paths else number)
        if sample is None:
            continue
        with contextlib.suppress(UnreadableError):
            packed = packer.fresh(where, content)
            if packed.sha256 == images.index.sha256(sample):
                yield sample, packed.data.tobytes()
