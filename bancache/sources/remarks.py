"""What is odd about images that can be read; it is said, and nothing is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bancache.system.progress import Progress

if TYPE_CHECKING:
    from bancache.sources.image_set import ImageSet

# Sources of pictures, whose statistics are known when they are opened.
_ENCODED = ("folder", "parquet", "pack")
NEARLY_BLACK = 16


def remark_on(images: ImageSet, kind: str, progress: Progress) -> None:
    """Say what is odd about a split of a source of some kind."""
    if images.split == "train":
        note_missing_classes(images, progress)
        _note_order(images, progress)
        _warn_of_classes(images, progress)
    if kind in _ENCODED:
        _warn_of_black(images, progress)


def note_missing_classes(images: ImageSet, progress: Progress) -> None:
    """Say it if training images of some classes are missing, such as class 0 where labels begin at 1."""
    import numpy as np

    present = set(np.unique(images.labels).tolist())
    missing = [name for index, name in enumerate(images.classes) if index not in present]
    if missing:
        progress.note(
            f"{images.name}: {len(missing):,} of {len(images.classes):,} classes have no training image, "
            f"such as '{missing[0]}'"
        )


def _note_order(images: ImageSet, progress: Progress) -> None:
    """Say it if classes that are named by numbers do not stand in the order of the numbers."""
    numbers = [name for name in images.classes if name.isdecimal()]
    if len(numbers) == len(images.classes) and numbers != sorted(numbers, key=int):
        progress.note(
            f"{images.name}: the numbers that name its classes are sorted as text: class 2 is '{numbers[2]}'"
        )


def _warn_of_classes(images: ImageSet, progress: Progress) -> None:
    """Warn of a single class, of one without a name, and of names that differ in spaces or capitals alone."""
    if len(images.classes) == 1:
        progress.warn(f"{images.name}: there is one class, '{images.classes[0]}', so nothing can be learned")
    seen: dict[str, str] = {}
    for name in images.classes:
        other = seen.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            progress.warn(f"{images.name}: classes '{other}' and '{name}' differ in spaces or capitals alone")
            break
    if "" in seen:
        progress.warn(f"{images.name}: a class has no name: are labels missing?")


def _warn_of_black(images: ImageSet, progress: Progress) -> None:
    """Warn of pixels that are nearly black: the mean of all, each weighted by itself, is at most the largest."""
    pairs = list(zip(images.statistics.mean, images.statistics.std, strict=True))
    if all(mean == 0 or mean * mean + std * std <= NEARLY_BLACK * mean for mean, std in pairs):
        progress.warn(
            f"{images.name}: the pixels of {images.split} are nearly black, {max(pairs)[0]:.2g} of 255 on average; "
            f"were they scaled to 0..1?"
        )
