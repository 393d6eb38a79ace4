"""DataSpec: the data of a run, stored in checkpoints and manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bancache.errors import UsageError
from bancache.sources import check_image_size, open_source, parse_source
from bancache.sources.image_set import ImageSet
from bancache.sources.remarks import note_missing_classes
from bancache.sources.request import DECODER, absolute, is_address
from bancache.system import configs
from bancache.system.progress import Progress, Silent

_DECODED = ("folder:", "parquet:")


@dataclass(frozen=True)
class DataSpec:
    """A source, the number of training images, and their size.

    Attributes:
        source: As typed, such as ``"digits"`` or ``"parquet:../data"``.
        limit: Use only so many training images, equally many of each class; the test split stays whole.
        image_size: Height and width in pixels of every image; None keeps each picture's own.
        skip_bad: Leave out pictures that cannot be read.
        decoder: Version of the rules by which pictures become pixels; a spec without it, from older versions, has 1.
        balanced: Whether ``limit`` takes equally many of each class; older versions took the first images.

    Raises:
        UsageError: A value is invalid.

    >>> DataSpec.from_dict(DataSpec("digits", limit=100).to_dict())
    DataSpec(source='digits', limit=100, image_size=None, skip_bad=False, decoder=2, balanced=True)
    """

    source: str
    limit: int | None = None
    image_size: int | None = None
    skip_bad: bool = False
    decoder: int = DECODER
    balanced: bool = True

    def __post_init__(self) -> None:
        parse_source(self.source)
        check_image_size(self.image_size)
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit {self.limit} leaves no training image", hint="for example --limit 1000")

    @property
    def kind(self) -> str:
        """The part of the source before the colon; the defaults of a run depend on it."""
        return parse_source(self.source)[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, without those that older versions do not know and this data does not need."""
        values = configs.to_dict(self)
        if not self.skip_bad:
            del values["skip_bad"]
        if not self.source.startswith(_DECODED):
            del values["decoder"]
        if self.limit is None or not self.balanced:
            del values["balanced"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataSpec:
        """Return the spec from ``to_dict``; an unknown key raises UsageError."""
        decoded = str(values.get("source")).startswith(_DECODED)
        older: dict[str, Any] = {"decoder": 1} if decoded else {}
        if values.get("limit") is not None:
            older["balanced"] = False
        return configs.from_dict(cls, {**older, **values}, what="data")

    def resolved(self) -> DataSpec:
        """Return the same data with an absolute path."""
        kind, path = parse_source(self.source)
        if not path or is_address(path):
            return self
        return replace(self, source=f"{kind}:{absolute(path)}")

    def moved(self, source: str | None) -> DataSpec:
        """Return the same data read from another source; unchanged if ``source`` is None."""
        return self if source is None else replace(self, source=source)

    def as_begun(self, recorded: Mapping[str, Any]) -> DataSpec:
        """Return the same data, limited as in a run that goes on; ``recorded`` is its data, empty for a new run."""
        older = recorded.get("limit") is not None and "balanced" not in recorded
        return replace(self, balanced=False) if older else self

    def open(
        self,
        split: str,
        *,
        download: bool = False,
        progress: Progress | None = None,
        cache_dir: Path | None = None,
    ) -> ImageSet:
        """Open a split as ``open_source`` does, with ``limit`` applied to the training images."""
        images = open_source(
            self.source,
            split,
            image_size=self.image_size,
            download=download,
            progress=progress,
            cache_dir=cache_dir,
            skip_bad=self.skip_bad,
            decoder=self.decoder,
        )
        if self.limit is None or split != "train":
            return images
        if self.limit >= len(images):
            return images
        progress = progress or Silent()
        limited = images.first_of_each(self.limit) if self.balanced else images.first(self.limit)
        if self.balanced:
            counts = np.unique(limited.labels, return_counts=True)[1]
            span = " to ".join(f"{number:,}" for number in sorted({counts.min(), counts.max()}))
            progress.note(
                f"{images.name}: {self.limit:,} training images, the first {span} of each of {len(counts):,} classes"
            )
        note_missing_classes(limited, progress)
        return limited

    def open_both(
        self, *, download: bool = False, progress: Progress | None = None
    ) -> tuple[ImageSet, ImageSet]:
        """Open the training and the test images; these first, as they are fewer, and may be missing."""
        test, train = (self.open(split, download=download, progress=progress) for split in ("test", "train"))
        return train, test
