"""What docs/format.md says is what is on disk: its Python runs, its numbers are computed again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import zarr
from contracts.damage import DAMAGES
from contracts.small_cache import Q, expected_view, make_manifest, write, write_some

from bancache.cache import Layout
from bancache.cache.layout import shard_samples_of
from bancache.cache.manifest_io import FILES_LIMIT, MANIFEST_LIMIT, read_manifest
from bancache.cache.profile import PROFILES
from bancache.cache.reader import open_cache
from bancache.cache.schema import Dtype
from bancache.encodings.fields import FieldSpec
from bancache.views import Lattice, ViewSpace
from bancache.views.space import Sizes

TEXT = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
ROOT4 = {"name": "root4", "id": "root-1", "root": 4, "levels": 256}


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run all Python blocks, in their order, beside a store called gen0.zarr."""
    write(tmp_path / "gen0.zarr", make_manifest(encoding=ROOT4, fields=(Q,)))
    monkeypatch.chdir(tmp_path)
    defined: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(block, defined)
    return defined


def test_the_documents_reader_gets_the_teachers_probabilities(names: dict[str, Any]) -> None:
    steps = open_cache(Path("gen0.zarr")).read_view(1)["q"].astype(np.float64)
    weights = np.where(steps == 0, 0.25, steps) ** 4
    np.testing.assert_allclose(names["probabilities"], weights / weights.sum(1, keepdims=True), rtol=1e-5)
    assert names["probabilities"].shape == (40, 10)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_the_document_unfolds_a_compact_store_that_plain_zarr_opened(
    names: dict[str, Any], tmp_path: Path, dtype: str
) -> None:
    """Shard by shard; the number of codes in one is not a multiple of eight."""
    manifest = make_manifest(
        samples=39, classes=9, fields=(FieldSpec("q", dtype, (9,), ("class",)),), profile="compact"
    )
    stored: Any = zarr.open_group(write(tmp_path / "c.zarr", manifest), mode="r")["q"]
    starts = range(0, 39, stored.chunks[1])
    assert len(starts) > 1
    for view_index in (1, 2):
        expected = expected_view(manifest, view_index)["q"]
        for start in starts:
            rows = slice(start, min(start + stored.chunks[1], 39))
            found = names["unfold"](stored[view_index, rows], stored[0, rows])
            assert (found.dtype, found.tobytes()) == (expected.dtype, expected[rows].tobytes())


@pytest.mark.usefixtures("small_shards")
def test_the_documents_verification_takes_every_profile(names: dict[str, Any], tmp_path: Path) -> None:
    for profile in (*PROFILES, "large"):
        changes = {"shard_samples": 15} if profile == "large" else {"profile": profile}
        path = write(tmp_path / profile, make_manifest(**changes))
        assert names["problems"](path) == []
        key = "q/c.1.0.0" if profile == "large" else "q/c/1/0/0"
        DAMAGES["flipped"](path / key, path)
        assert names["problems"](path) == [key]


@pytest.mark.usefixtures("small_shards")
def test_the_documents_verification_finds_every_damage(names: dict[str, Any], cache: Path) -> None:
    assert names["problems"](cache) == []
    for key in ("q/c/1/0/0", "zarr.json", "shift/c/0/2"):
        DAMAGES["flipped"](cache / key, cache)
        assert names["problems"](cache) == [key]
        DAMAGES["flipped"](cache / key, cache)
    DAMAGES["deleted"](cache / "q/c/1/0/0", cache)
    assert names["problems"](cache) == ["q/c/1/0/0"]
    text = (cache / "manifest.json").read_text()
    (cache / "manifest.json").write_text(text.replace('"third": 0.3333', '"third": 0.3334'))
    assert names["problems"](cache) == ["manifest.json was changed"]


def test_the_digest_is_that_of_the_files_own_tokens(cache: Path) -> None:
    """What a reader without Python's floats does: the text without its line breaks, indentation and digest."""
    import hashlib

    text = (cache / "manifest.json").read_text()
    lines = [line.strip() for line in text.splitlines() if not line.startswith(' "digest"')]
    flat = "".join(line + " " if line.endswith(",") else line for line in lines)
    assert hashlib.sha256(flat.encode()).hexdigest() == read_manifest(cache)["digest"]


@pytest.mark.parametrize("name", ["identity", "flip", "crop1", "crop4-flip", "crop12-zero"])
@pytest.mark.parametrize("seed", [0, 2**63 + 5])
def test_the_documents_views_are_ours(names: dict[str, Any], name: str, seed: int) -> None:
    space = ViewSpace.parse(name, seed=seed)
    samples = [0, 1, 2, 3, 99, 2**32 + 7, 2**40 + 1]
    for view_index in {0, space.size // 2, space.size - 1}:
        found = [names["view"](space.to_dict(), sample, view_index) for sample in samples]
        assert found == space.view_ids(samples, view_index).tolist()


def test_the_worked_example_is_worked_right(names: dict[str, Any]) -> None:
    (shown,) = re.findall(r'`(\{"id": "lattice-1".*?\})`', TEXT)
    space = Lattice(**{key: value for key, value in eval(shown, {"true": True}).items() if key != "id"})
    assert space.size == 162
    assert names["philox"]((0, 0), (3, 0, 0xFFFFFFFF, 0x5AFE0001))[0] == 0xA9CBB8D9
    assert 0xA9CBB8D9 * 162 >> 32 == 107 == 6 * 16 + 11
    halves = [(6, 11)]
    for step in range(12):
        left, right = halves[-1]
        word = names["philox"]((0, 0), (3, 0, step << 24 | right, 0x5AFE0001))[0]
        if step < 2:
            assert f"counter 2 is 0x{step << 24 | right:08X}, word 0x{word:08X}, left {right}, " in TEXT
            assert f"right {left} xor {word & 15} | {right}, {left ^ word & 15} |" in TEXT
        halves.append((right, left ^ (word & 15)))
    assert "; ".join(f"{left}, {right}" for left, right in halves[3:]) in TEXT
    assert halves[-1] == (1, 9)
    assert space.view_ids(3, np.arange(8)).tolist() == [25, 23, 76, 82, 83, 151, 121, 99]
    assert space.view_ids(np.arange(8), 0).tolist() == [41, 33, 125, 25, 2, 4, 42, 22]
    for numbers in ("25, 23, 76, 82, 83, 151, 121, 99", "41, 33, 125, 25, 2, 4,\n42, 22"):
        assert numbers in TEXT
    assert [int(part) for part in space.params(25)] == [2, 7, 0]
    words = names["philox"]((0, 0), (0, 0, 0, 0))
    assert words == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert all(f"0x{word:08X}" in TEXT for word in words)


@pytest.mark.parametrize(
    ("samples", "classes", "profile", "said"),
    [
        (50_000, 100, "default", "B = 16,667 and three"),
        (1_281_167, 1000, "default", "B = 2,097 and 611"),
        (50_000, 100, "mmap", "B = 50,000 and one"),
        (1_281_167, 1000, "mmap", "B = 64,059 and 20"),
        (1_281_167, 1000, "new", "B = 12,942 and 99"),
    ],
)
def test_the_sizes_of_shards_are_right(samples: int, classes: int, profile: str, said: str) -> None:
    fields = (FieldSpec("q", "uint8", (classes,), ("class",)),)
    changes: dict[str, Any] = {"profile": profile}
    if profile == "new":
        changes = {"shard_samples": shard_samples_of(samples, fields, "default")}
    layout = Layout(make_manifest(samples=samples, classes=classes, fields=fields, **changes))
    blocks = {1: "one", 3: "three"}.get(layout.blocks, layout.blocks)
    assert f"B = {layout.block:,} and {blocks}" == said
    assert said in TEXT


def test_every_key_and_limit_is_told(tmp_path: Path, cache: Path) -> None:
    unfinished = write_some(tmp_path / "b.zarr", [0, 3], make_manifest(profile="compact"))
    record = (unfinished / ".regions" / "000003.json").read_text()
    keys = {*read_manifest(cache), *read_manifest(unfinished), *open_cache(cache).manifest.to_dict()}
    keys |= set(make_manifest(shard_samples=9).to_dict())
    keys |= set(re.findall(r'^ "(\w+)":', record, re.MULTILINE))
    assert {key for key in keys if f"`{key}`" not in TEXT} == set()
    assert {dtype for dtype in get_args(Dtype) if f"`{dtype}`" not in TEXT} == set()
    assert FILES_LIMIT == 400_000
    assert MANIFEST_LIMIT == 64 << 20
    assert "400,000 files" in TEXT
    assert "64 MiB" in TEXT


def test_every_kind_of_views_is_told() -> None:
    assert {kind for kind in ViewSpace.kinds if f"`{kind}`" not in TEXT} == set()
    sizes = Sizes(np.array([300, 20]), np.array([200, 33]))
    boxes = ViewSpace.parse("center").records(np.arange(2), np.zeros(2, np.int64), sizes)[:, :4].tolist()
    assert boxes == [[62, 12, 175, 175], [1, 7, 18, 18]]  # floor((7 * 200 + 4) / 8) = 175


def test_every_link_within_the_document_leads_somewhere() -> None:
    headings = {
        "#" + title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\((#[\w-]+)\)", TEXT)) <= headings
