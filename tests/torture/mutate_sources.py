"""Mutated files of every kind of source: each opens, or ends in one of our errors."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from sources.tiny import encode, make_folder, make_npz, make_parquet, random_images
from torture.mutating import Chance, Job, Mutator

from bancache.errors import BancacheError
from bancache.sources import open_source


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Return a file with a few bytes changed, cut out, repeated or cut off."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        at, length = draw.randrange(len(changed) or 1), draw.choice((1, 2, 4, 8))
        act = draw.randrange(6)
        if act < 3:
            changed[at : at + length] = draw.choice((draw.randbytes(length), bytes(length), b"\xff" * length))
        elif act == 3:
            del changed[at : at + length]
        elif act == 4:
            changed[at:at] = changed[at : at + draw.choice((4, 64, 512))]
        elif draw.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def make_sources(root: Path) -> dict[str, Path]:
    """Write one source of each kind, the folder with pictures of every format."""
    made = {"folder": make_folder(root / "folder"), "parquet": make_parquet(root / "parquet")}
    for kind in ("BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP", "AVIF"):
        (root / "folder" / "train" / "dog" / f"9.{kind.lower()}").write_bytes(
            encode(random_images(1)[0], kind)
        )
    for suffix in ("png", "tif"):
        deep = np.arange(25, dtype=np.uint16).reshape(5, 5)
        Image.fromarray(deep).save(root / "folder" / "test" / "dog" / f"16.{suffix}")
    return {**made, "npz": make_npz(root / "d.npz")}


def mutate_once(root: Path, sources: dict[str, Path], draw: random.Random) -> str:
    """Mutate one file of one source, open both splits, restore the file, and return how it ended."""
    kind = draw.choice(sorted(sources))
    place = sources[kind]
    file = draw.choice(sorted(p for p in place.rglob("*") if p.is_file())) if place.is_dir() else place
    content = file.read_bytes()
    file.write_bytes(mutated(content, draw))
    kept = root / "kept"
    try:
        for split in ("train", "test"):
            open_source(f"{kind}:{place}", split, cache_dir=kept, skip_bad=draw.random() < 0.5)
    except BancacheError as error:
        return type(error).__name__
    finally:
        file.write_bytes(content)
        shutil.rmtree(kept, ignore_errors=True)
    return "opened"


def sources(folder: Path, chance: Chance) -> Job:
    """Open one source of each kind of which one file is changed."""
    draw, made = random.Random(chance.one_of(range(1 << 16))), make_sources(folder)
    return lambda: mutate_once(folder, made, draw)


MUTATORS: dict[str, Mutator] = {"sources": sources}
