"""A folder of images: ``PATH/train/CLASS/*.png`` and ``PATH/test/CLASS/*.png``, and the usual variants.

Splits may have other usual names, in any case (``splits.py``). Without splits, ``PATH/CLASS/*.png``, every fifth image of each
class is a test image. A split with ``val_annotations.txt`` beside ``images/`` (Tiny-ImageNet) takes its labels from that file.
"""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bancache.errors import DataError
from bancache.sources.decoded import open_kept
from bancache.sources.image_set import ImageSet
from bancache.sources.nearest import ARCHIVES, listing
from bancache.sources.pictures import Encoded, Pictures
from bancache.sources.request import SPLITS, Request
from bancache.sources.splits import SPLIT_NAMES, TRAIN, choose_test_split, is_like_split

_SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg"}
_SUFFIXES |= {".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_ANNOTATIONS = "val_annotations.txt"
_HELD_OUT, _LISTED = 5, 8
# Where one of these is alone, a training split is missing; any other usual name may be that of a class.
_ONLY_SPLITS = frozenset({"test", "val", "valid", "validation"})


@dataclass
class _Tree:
    """The image files of a split, and what was left out.

    Attributes:
        directory: Where the split lies.
        files: Sorted image files by class.
        left_out: Number of files or directories by reason.
        inner: The directories below those of classes, by their names, each with an example.
    """

    directory: Path
    files: dict[str, list[Path]]
    left_out: Counter[str] = field(default_factory=Counter)
    inner: dict[str, Path] = field(default_factory=dict)

    @property
    def reasons(self) -> str:
        """What was left out, in words."""
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))


def open_images(request: Request) -> ImageSet:
    """Return a split: classes sorted by name, and in each class files sorted by name, with subdirectories."""
    encoded = find(request)
    paths = tuple(name for name, _ in encoded.read().stream())
    return open_kept(request, encoded.files, encoded.read, paths=paths)


def find(request: Request) -> Encoded:
    """Return the image files of a split; none of them is opened."""
    place = request.existing_place(lambda place: place.is_dir(), "directory")
    trees = _find_splits(request, place)
    tree = trees[request.split]
    if tree is None:
        (first, *more), train = SPLIT_NAMES[request.split], trees["train"]
        share = f", or hold out every fifth image: --data folder:{train.directory}" if train else ""
        raise DataError(
            f"{request.name}: no directory {first}, nor {', '.join(more)}; {listing(place)}",
            hint=f"{request.other_kind()}lay it out as train/CLASS/ and test/CLASS/{share}",
        )
    classes = _classes(request, trees)
    files = [tree.files.get(name, []) for name in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(of_class) for of_class in files])
    if tree.left_out:
        request.progress.note(f"{tree.directory}: left out {tree.left_out.total():,} ({tree.reasons})")
    if len(tree.inner) > 1:
        example = min(tree.inner.values())
        request.progress.note(
            f"{tree.directory}: images in {example} are of class {example.parts[0]}, and so on"
        )

    def stream(split: str) -> Iterator[tuple[str, Path]]:
        tree = trees[split]
        return ((str(file), file) for name in classes for file in (tree.files.get(name, []) if tree else ()))

    # Classes and the range of 16-bit pictures depend on both splits.
    known = [file for split in SPLITS for _, file in stream(split)]
    known += [a for tree in trees.values() if tree and (a := tree.directory / _ANNOTATIONS).is_file()]
    other = next(split for split in SPLITS if split != request.split)
    flat = [file for of_class in files for file in of_class]
    pictures = Pictures(
        labels,
        classes,
        lambda: stream(request.split),
        lambda: stream(other),
        at=lambda index: (str(flat[index]), flat[index]),
    )
    return Encoded(known, lambda: pictures)


def _find_splits(request: Request, place: Path) -> dict[str, _Tree | None]:
    """Return the tree of each split, or None for a split without a directory."""
    directories = [p for p in sorted(place.iterdir(), reverse=True) if p.is_dir()]
    by_name = {p.name.lower(): p for p in directories}
    trains = [_scan(by_name[name]) for name in TRAIN if name in by_name]
    tests = {name: _scan(by_name[name]) for name in SPLIT_NAMES["test"] if name in by_name}
    if not trains and not (tests.keys() & _ONLY_SPLITS):
        whole = _scan(place)
        whole.files = {name: files for name, files in whole.files.items() if files}
        if whole.files:
            return _shared_out(request, whole)
    train = next(iter(trains), None)
    if train is not None and len(train.inner) > 1:
        _require_classes(request, train, "move the classes up, to train/CLASS/")
    known = {_same(name) for name in train.files} if train else set()
    # Test images without labels lie in one folder, which is no class of the training images.
    labeled = [name for name, tree in tests.items() if {_same(name) for name in tree.files} <= known]
    chosen = tests[choose_test_split(request.name, labeled or tests)] if tests else None
    for split, kept, found in (("train", train, trains), ("test", chosen, tests.values())):
        others = [tree.directory.name for tree in found if tree is not kept]
        others += [
            p.name
            for p in directories
            if p.name.lower() in SPLIT_NAMES[split] and p != by_name[p.name.lower()]
        ]
        if kept is not None:
            request.note_split(split, kept.directory.name, others)
    return {"train": train, "test": chosen}


def _shared_out(request: Request, whole: _Tree) -> dict[str, _Tree | None]:
    """Return both splits of a directory of classes."""
    place, names = whole.directory, list(whole.files)
    _require_classes(request, whole, "did you mean folder:{}?")
    inner = set(whole.inner)
    if all(map(is_like_split, names)) or (inner and all(map(is_like_split, inner))) or inner & set(names):
        shown = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
        raise DataError(
            f"{request.name}: {place} has {shown}, and in them {', '.join(sorted(inner)[:_LISTED]) or 'images'}: "
            f"which are splits, which are classes?",
            hint="lay it out as train/CLASS/ and test/CLASS/",
        )
    if all(len(files) < _HELD_OUT for files in whole.files.values()):
        raise DataError(
            f"{request.name}: {place} has no directories train and test, and no class has {_HELD_OUT} images, "
            f"so that one could be a test image",
            hint="lay it out as train/CLASS/ and test/CLASS/",
        )
    request.progress.note(
        f"{place} has no directories train and test: every fifth image of each class is a test image"
    )
    return {split: _hold_out(whole, split) for split in SPLITS}


def _require_classes(request: Request, tree: _Tree, hint: str) -> None:
    """Refuse a single directory: it is around those of the classes, or its images have no classes."""
    if len(tree.files) != 1:
        return
    only = tree.directory / next(iter(tree.files))
    inside = any(p.is_dir() and not _is_hidden(p.name) for p in only.iterdir())
    raise DataError(
        f"{request.name}: all images are of one class, {only.name}; {listing(only if inside else tree.directory)}",
        hint=hint.format(only) if inside else "put the images of a class into its own directory",
    )


def _hold_out(tree: _Tree, split: str) -> _Tree:
    last = _HELD_OUT - 1
    files = {
        name: [file for i, file in enumerate(of_class) if (i % _HELD_OUT == last) == (split == "test")]
        for name, of_class in tree.files.items()
    }
    return _Tree(tree.directory, files, tree.left_out, tree.inner)


def _scan(directory: Path) -> _Tree:
    """Find the image files of a split."""
    tree = _Tree(directory, {})
    if (directory / _ANNOTATIONS).is_file():
        _annotate(tree)
        return tree
    for child in sorted(directory.iterdir()):
        if child.is_dir() and not _is_hidden(child.name):
            tree.files[child.name] = sorted(_images(child, tree))
        elif child.is_dir():
            tree.left_out["hidden"] += 1
        elif child.suffix.lower() in _SUFFIXES and not _is_hidden(child.name):
            tree.left_out["outside the directories of classes"] += 1
        elif child.suffix.lower() in ARCHIVES:
            tree.left_out[child.suffix.lower()] += 1
    return tree


def _annotate(tree: _Tree) -> None:
    """Sort the images of a split by the labels in its annotation file: file, tabulator, class, and more."""
    text = (tree.directory / _ANNOTATIONS).read_text(errors="replace")
    labels = dict(sorted(row[:2] for line in text.splitlines() if len(row := line.split("\t")) >= 2))
    images = {file.name: file for file in _images(tree.directory / "images", tree)}
    for name, label in labels.items():
        if name in images:
            tree.files.setdefault(label, []).append(images.pop(name))
        else:
            tree.left_out[f"in {_ANNOTATIONS} alone"] += 1
    if images:
        tree.left_out[f"not in {_ANNOTATIONS}"] += len(images)


def _images(directory: Path, tree: _Tree) -> Iterator[Path]:
    """Yield the image files below a class directory, and count what is not one."""
    left_out = tree.left_out
    for root, directories, names in os.walk(directory, onerror=_refuse):
        here, found = Path(root), False
        for name in list(directories):
            if _is_hidden(name) or (here / name).is_symlink():
                directories.remove(name)
                left_out["hidden" if _is_hidden(name) else "symbolic link to a directory"] += 1
        for name in names:
            file = here / name
            if _is_hidden(name):
                left_out["hidden"] += 1
            elif file.suffix.lower() not in _SUFFIXES:
                left_out[file.suffix.lower() or "without suffix"] += 1
            elif file.exists() and not file.is_file():  # reading a pipe or a device may never end
                left_out["not a regular file"] += 1
            else:
                found = True
                yield file
        if found and here != directory:
            below = here.relative_to(directory.parent).parts[:2]
            tree.inner.setdefault(below[1], Path(*below))


def _refuse(error: OSError) -> None:
    """Raise what ``os.walk`` would pass over in silence: a directory that cannot be read."""
    raise error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _same(name: str) -> str:
    """Return a name in the form in which equal names are equal: macOS writes é as two characters."""
    return unicodedata.normalize("NFC", name)


def _classes(request: Request, trees: dict[str, _Tree | None]) -> tuple[str, ...]:
    """Return the classes of the training split, after a check that the test split has no others."""
    train, test = trees["train"], trees["test"]
    for split, tree in trees.items():
        if tree is not None and not tree.files:
            raise DataError(
                f"{request.name}: the {split} split has no classes",
                hint="put the images of a class into its own directory",
            )
    first = train or test
    assert first is not None, "the caller has found a split"
    for name, files in first.files.items():
        if not files:
            beside = f"; left out in {first.directory.name}: {first.reasons}" if first.left_out else ""
            raise DataError(
                f"{request.name}: {first.directory / name} has no images{beside}",
                hint="remove the class, or add files such as .png or .jpg",
            )
    classes = tuple(first.files)
    if train is None or test is None:
        return classes
    spelled = {_same(name): name for name in classes}
    if odd := sorted(name for name in test.files if _same(name) not in spelled):
        near = difflib.get_close_matches(odd[0], classes, n=1)
        similar = f"train has '{near[0]}'; " if near else ""
        raise DataError(
            f"{request.name}: class '{odd[0]}' is in test but not in train "
            f"({len(train.files)} classes in train, {len(test.files)} in test)",
            hint=f"{similar}give both splits the same classes",
        )
    test.files = {spelled[_same(name)]: files for name, files in test.files.items()}
    if missing := [name for name in classes if not test.files.get(name)]:
        request.progress.note(
            f"{request.name}: {len(missing)} of {len(classes)} classes have no test image, such as '{missing[0]}'"
        )
    return classes
