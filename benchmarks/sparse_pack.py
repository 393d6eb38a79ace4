"""A pack of very many black pictures, which takes no room on a disk: its pixels are a hole in the file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from bancache.sources.pack_format import (
    MAGIC,
    PROLOGUE,
    Column,
    Header,
    SplitHeader,
    Splits,
    column_bytes,
    header_bytes,
    paths_columns,
)


def sparse_pack(path: Path, count: int, *, height: int, width: int) -> Path:
    """Write a pack of ``count`` training pictures of one size and one test picture; its fingerprints are made up."""
    size = height * width * 3
    at, splits, index = PROLOGUE.size + (count + 1) * size, {}, bytearray()
    for split, samples, start in (("train", count, PROLOGUE.size), ("test", 1, PROLOGUE.size + count * size)):
        columns: dict[str, Any] = {
            "offsets": start + size * np.arange(samples + 1),
            "heights": np.full(samples, height),
            "widths": np.full(samples, width),
            "labels": np.zeros(samples),
            "sha256": np.full(samples, np.void(hashlib.sha256(bytes(size)).digest())),
            **paths_columns([f"{split}/black/{number:08}.png" for number in range(samples)]),
        }
        where = {}
        for name, values in columns.items():
            content = column_bytes(name, values)
            where[name] = Column(at + len(index), len(content), hashlib.sha256(content).hexdigest())
            index += content
        splits[split] = SplitHeader(samples, 3, "0" * 64, [0.0] * 3, [1.0] * 3, where)
    text = header_bytes(Header("pixels", ("black",), Splits(**splits), "made up", height))
    with path.open("wb") as stream:
        stream.write(PROLOGUE.pack(MAGIC, at + len(index), len(text), hashlib.sha256(text).digest()))
        stream.seek(at)
        stream.write(index + text)
    return path
