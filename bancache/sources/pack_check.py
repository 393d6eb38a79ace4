"""Every picture of a pack checked against its sha256."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.sources.content import Running, Sums
from bancache.sources.golden import require_decoder
from bancache.sources.pack import Pack, PackImages
from bancache.sources.request import SPLITS
from bancache.system.progress import Progress
from bancache.system.read_ahead import in_order, num_threads


@dataclass(frozen=True)
class Damage:
    """A picture that is not what was packed, or a split that is not what the header says.

    Attributes:
        split: Its split.
        sample: Its number; None for the split.
        problem: What is wrong, with the names of pack and picture.
    """

    split: str
    sample: int | None
    problem: str


def verify_pack(pack: Pack, *, deep: bool = False, progress: Progress) -> list[Damage]:
    """Read every picture and return what is damaged; ``deep`` also decodes all and computes the fingerprints anew.

    Raises:
        DataError: The header or the index is damaged, so that nothing more can be said.
    """
    found: list[Damage] = []
    if deep and pack.header.kind == "encoded":
        require_decoder()
    for split in SPLITS:
        images = pack.images(split)
        if images.index.has_paths:
            images.index.paths()
        running, damaged = Running.like(images), False
        jobs = (functools.partial(_look, images, sample, deep) for sample in range(len(images)))
        with progress.stage(f"verify {pack.name} {split}", total=len(images), unit="images") as stage:
            for sample, (problem, pixels) in enumerate(in_order(jobs, ahead=2 * num_threads())):
                stage.advance(1)
                if problem:
                    found.append(Damage(split, sample, problem))
                    damaged = True
                elif pixels is not None:
                    running.add(pixels, Sums.of(pixels, images.channels))
        header = images.index.header
        if deep and not damaged and running.known(images.index.labels, pack.header.classes) != header.known:
            found.append(
                Damage(split, None, f"{pack.name}: the fingerprint of {split} is not that of its pictures")
            )
    return found


def _look(images: PackImages, sample: int, deep: bool) -> tuple[str, NDArray[np.uint8] | None]:
    """Return what is wrong with a picture, and its pixels if they are asked for."""
    try:
        images.content(sample)
        return "", images.read(sample) if deep else None
    except DataError as error:
        return str(error), None
