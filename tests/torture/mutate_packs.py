"""Packs of both kinds, changed at random: bytes of the file, or values and arrays with checksums that fit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sources.tiny import make_folder
from torture.mutating import Chance, Job, Mutator

from bancache.sources import open_source
from bancache.sources.pack import PackImages, open_file
from bancache.sources.pack_check import verify_pack
from bancache.sources.pack_format import MAGIC, PROLOGUE
from bancache.sources.pack_source import Shape
from bancache.sources.pack_writer import pack
from bancache.system.progress import Silent
from bancache.system.signals import Interrupt


def packs(folder: Path, chance: Chance) -> Job:
    """Open a changed pack and read all of it."""
    file, source = folder / "d.pack", f"folder:{make_folder(folder / 'f')}"
    shape = Shape(chance.one_of(["encoded", "pixels"]))
    pack(source, file, shape, progress=Silent(), interrupt=Interrupt())
    change = chance.one_of([_bytes, _header, _header, _array, _array])
    file.write_bytes(change(file.read_bytes(), chance))
    return lambda: _read(file)


def _read(file: Path) -> None:
    for split in ("train", "test"):
        found = open_source(f"pack:{file}", split)
        assert len(list(found.paths or found.labels)) == len(found)
    opened = open_file(file)
    for split in ("train", "test"):
        images = opened.images(split)
        assert isinstance(images, PackImages)
        for sample in range(len(images)):
            images.read(sample)
    verify_pack(opened, deep=True, progress=Silent())


def _bytes(content: bytes, chance: Chance) -> bytes:
    return chance.bytes(content)


def _header(content: bytes, chance: Chance) -> bytes:
    body, header = _parts(content)
    return _sealed(body, chance.value(header))


def _array(content: bytes, chance: Chance) -> bytes:
    """Change the bytes of one array of the index, and its checksum."""
    body, header = _parts(content)
    columns = header["splits"][chance.one_of(header["splits"])]["columns"]
    column = columns[chance.one_of(columns)]
    start, stop = column["at"], column["at"] + column["bytes"]
    changed = (chance.bytes(body[start:stop]) + bytes(stop - start))[: stop - start]
    column["sha256"] = hashlib.sha256(changed).hexdigest()
    return _sealed(body[:start] + changed + body[stop:], header)


def _parts(content: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return what lies before the header, and the header."""
    _, at, length, _ = PROLOGUE.unpack(content[: PROLOGUE.size])
    return content[:at], json.loads(content[at : at + length])


def _sealed(body: bytes, header: Any) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    begin = PROLOGUE.pack(MAGIC, len(body), len(text), hashlib.sha256(text).digest())
    return begin + body[PROLOGUE.size :] + text


MUTATORS: dict[str, Mutator] = {"packs": packs}
