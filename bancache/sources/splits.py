"""Splits by their usual names, those that the ``datasets`` library of Hugging Face knows."""

from __future__ import annotations

import re
from collections.abc import Collection

from bancache.errors import DataError

TRAIN = ("train", "training")
_TEST, _VALIDATION = ("test", "testing", "eval", "evaluation"), ("validation", "valid", "val", "dev")
# A validation split stands in for a test split that is missing.
SPLIT_NAMES = {"train": TRAIN, "test": _TEST + _VALIDATION}
_LIKE_SPLIT = re.compile(rf"({'|'.join(TRAIN + _TEST + _VALIDATION)}|trn|tst|holdout)(set)?")


def choose_test_split(source: str, names: Collection[str]) -> str:
    """Return the name of the split that is the test split, of several usual names.

    Raises:
        DataError: Two of them could be it.

    >>> choose_test_split("folder:photos", ["dev", "eval"]), choose_test_split("folder:photos", ["testing", "test"])
    ('eval', 'test')
    """
    for usual in (("test",), _TEST, _VALIDATION):
        present = [name for name in usual if name in names]
        if len(present) > 1:
            raise DataError(
                f"{source}: which is the test split, {' or '.join(present)}?", hint="name one of them test"
            )
        if present:
            return present[0]
    raise DataError(f"{source}: no usual name of a test split", hint="name it test")


def is_like_split(name: str) -> bool:
    """Return whether a word of a name is a usual one of splits.

    >>> is_like_split("seg_train"), is_like_split("Test set"), is_like_split("trainer")
    (True, True, False)
    """
    return any(_LIKE_SPLIT.fullmatch(word) for word in re.split(r"[^a-z]+", name.lower()))
