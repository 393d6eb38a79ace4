"""Damaged bytes, reordered targets, odd time zones and file names."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from contracts.damage import DAMAGES
from contracts.forging import EncodedViews, forge
from contracts.killing import tree
from contracts.tiny import CPU
from torture.rows import Ground, Row
from torture.writers import ROOT

from bancache.cache.reader import open_cache
from bancache.cache.verify import verify_cache
from bancache.dumping.audit import audit
from bancache.errors import BancacheError
from bancache.models.checkpoint import load_checkpoint
from bancache.models.teacher import load_teacher
from bancache.sources.spec import DataSpec


def _refuses(path: Path) -> bool:
    """Whether verify finds something, or opening the cache is refused."""
    try:
        return bool(verify_cache(path))
    except BancacheError:
        return True


def flipped_bits(ground: Ground) -> Iterator[bool]:
    """One bit of one byte of one file of a cache; each kind of file in turn."""
    chance = random.Random(4)
    files = sorted(tree(ground.cache))
    kinds = [
        [f for f in files if "/c/" in f],
        [f for f in files if f.endswith("zarr.json")],
        ["manifest.json"],
    ]
    for number in ground.numbers(600):
        path = shutil.copytree(ground.cache, ground.place("trial") / "a.zarr")
        file = path / chance.choice(kinds[number % 3])
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
        yield _refuses(path)


def flipped_bits_of_checkpoints(ground: Ground) -> Iterator[bool]:
    """One bit of one byte of a checkpoint: it is refused, or the byte belongs to no tensor and no header."""
    chance, sound = random.Random(5), ground.teacher.read_bytes()
    expected = load_checkpoint(ground.teacher)
    for _ in ground.numbers(400):
        content = bytearray(sound)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path = ground.place("trial") / "gen0.pt"
        path.write_bytes(content)
        try:
            found = load_checkpoint(path)
            yield (found.fingerprint, found.header) == (expected.fingerprint, expected.header)
        except BancacheError:
            yield True


def other_damage(ground: Ground) -> Iterator[bool]:
    """Truncated, emptied, deleted, swapped, linked: found, and repaired to the same bytes."""
    ways, chance = sorted(DAMAGES), random.Random(6)
    chunks = sorted(f for f in tree(ground.cache) if "/c/" in f)
    for number in ground.numbers(80):
        path = shutil.copytree(ground.cache, ground.place("trial") / "a.zarr")
        one, other = chance.sample(chunks, 2)
        DAMAGES[ways[number % len(ways)]](path / one, path / other)
        found = _refuses(path)
        if (path / one).is_dir() and not (path / one).is_symlink():
            (path / one).rmdir()
        code, _ = ground.forker.run(["repair", str(path), "-q"])
        left = {name for name in tree(path) if not name.endswith(".aside")}
        yield found and code == 0 and left == set(tree(ground.cache)) and not verify_cache(path)


def forged(ground: Ground) -> Iterator[bool]:
    """Views or rows in another order, with valid digests: found by new forward passes of the teacher."""
    teacher = load_teacher(str(ground.teacher), device=CPU)
    data = DataSpec.from_dict(open_cache(ground.cache).manifest.dataset["spec"]).open("train")
    for number in ground.numbers(40):

        def change(encoded_views: EncodedViews, number: int = number) -> EncodedViews:
            if number % 2:
                return [
                    {k: np.roll(v, 1 + number, axis=0) for k, v in encoded.items()}
                    for encoded in encoded_views
                ]
            return encoded_views[1 + number % 5 :] + encoded_views[: 1 + number % 5]

        path = forge(ground.cache, ground.place("trial") / "a.zarr", change)
        yield audit(path, teacher, data, device=CPU, num_pairs=64, seed=number).verdict == "mismatch"


def intact(ground: Ground) -> Iterator[bool]:
    """An intact cache, audited on other pairs every time: never a mismatch."""
    teacher = load_teacher(str(ground.teacher), device=CPU)
    data = DataSpec.from_dict(open_cache(ground.cache).manifest.dataset["spec"]).open("train")
    for number in ground.numbers(200):
        yield audit(ground.cache, teacher, data, device=CPU, num_pairs=64, seed=number).verdict != "mismatch"


def zones_and_names(ground: Ground) -> Iterator[bool]:
    """Whole processes in odd time zones, without a locale, with odd file names."""
    zones = ("Pacific/Kiritimati", "America/St_Johns", "Asia/Kathmandu", "UTC")
    names = ("a b.zarr", "ü [1]*?.zarr", "-a.zarr", "\udcff.zarr")
    for number in ground.numbers(8):
        out = ground.place("trial") / names[number % 4]
        plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "bancache_cli", *map(os.fsencode, ground.dump_args(out))],
            env={
                **plain,
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}",
                "TZ": zones[number % 4],
            },
            capture_output=True,
            check=False,
        )
        yield done.returncode == 0 and ground.is_whole(out)


ROWS = (
    Row(8, "one bit flipped in a file of a cache", flipped_bits),
    Row(8, "one bit flipped in a checkpoint", flipped_bits_of_checkpoints),
    Row(8, "chunks truncated, emptied, deleted, swapped, linked, then repaired", other_damage),
    Row(10, "views or rows reordered under digests that hold, teacher asked again", forged),
    Row(10, "an honest cache, teacher asked again", intact),
    Row(24, "odd time zones, no locale, odd names", zones_and_names),
)
