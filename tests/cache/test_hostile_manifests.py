"""A manifest that no cache can have is refused within a second and little memory, though its digest fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contracts.hostile import Change, cheaply, check_refused, list_as, reseal
from contracts.small_cache import Q, make_manifest, write

from bancache.cache.reader import open_cache
from bancache.encodings.fields import FieldSpec
from bancache.errors import CacheDamagedError, MismatchError, UsageError

pytestmark = pytest.mark.usefixtures("small_shards")

SIZES = [1 << 60, 0, -1, 1.5, "40", True, None, [40], 10**400]


@pytest.mark.parametrize("size", SIZES, ids=[str(size)[:20] for size in SIZES])
@pytest.mark.parametrize("name", ["samples", "slots", "classes"])
@pytest.mark.parametrize("complete", [True, False])
def test_sizes_that_no_cache_has(cache: Path, name: str, size: object, complete: bool) -> None:
    reseal(cache, lambda stored: (stored["promise"].update({name: size}), stored.update(complete=complete)))
    check_refused(cache, rf"manifest\.json: {name}: expected int|a number has 401 digits")


@pytest.mark.parametrize("complete", [True, False])
def test_sizes_that_only_an_absurd_cache_has_build_no_lists(cache: Path, complete: bool) -> None:
    """2^78 pairs are allowed by themselves; as many files must be listed."""
    absurd = {"samples": (1 << 40) - 1, "slots": (1 << 39)}
    reseal(cache, lambda stored: (stored["promise"].update(absurd), stored.update(complete=complete)))
    check_refused(cache, r"manifest\.json" if complete else r" 0 of [\d,]{20,}")


FIELDS: list[object] = [
    [],
    {},
    None,
    5,
    "q",
    [None],
    ["q"],
    [{"name": "q"}],
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_arrays_that_are_none(cache: Path, fields: object) -> None:
    reseal(cache, _manifest_key("fields", fields))
    check_refused(cache, r"manifest\.json.*(fields|array)")


NAMES = [
    "",
    ".",
    "..",
    "../q",
    "/etc/passwd",
    "q/c",
    "q\\c",
    ".regions",
    "zarr.json",
    "manifest.json",
    "q\n",
    "q\0",
    "Q",
    "\u202eq",
    "q" * 32,
    5,
    None,
    ["q"],
    "shift",
]


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:20] for name in NAMES])
def test_names_that_lead_out_of_the_store_or_onto_its_own_files(cache: Path, name: object) -> None:
    """The last one is the name of the other array."""
    reseal(cache, lambda stored: stored["promise"]["fields"][0].update(name=name))
    check_refused(cache, r"manifest\.json.*(fields|array)")


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "object"},
        {"dtype": "O"},
        {"dtype": "i4,O"},
        {"dtype": "V1000000000000"},
        {"dtype": "<U9999999"},
        {"dtype": "datetime64[s]"},
        {"dtype": "bool"},
        {"dtype": 5},
        {"dtype": ["uint8"]},
        {"shape": [1 << 60]},
        {"shape": [1 << 39]},
        {"shape": [1 << 20, 1 << 20], "dimensions": ["a", "b"]},
        {"shape": [1, 1, 1, 1, 1], "dimensions": ["a", "b", "c", "d", "e"]},
        {"shape": [0]},
        {"shape": [-10]},
        {"shape": [True]},
        {"shape": [10.0]},
        {"shape": ["10"]},
        {"shape": "10"},
        {"shape": 10},
        {"shape": []},
        {"dimensions": []},
        {"dimensions": ["class", "class"]},
        {"dimensions": [5]},
        {"dimensions": ["../x"]},
    ],
    ids=str,
)
def test_types_and_shapes_that_no_array_has(cache: Path, change: dict[str, Any]) -> None:
    reseal(cache, lambda stored: stored["promise"]["fields"][0].update(change))
    check_refused(cache, r"manifest\.json.*(fields|array)")


@pytest.mark.parametrize("where", ["manifest", "promise"])
@pytest.mark.parametrize("version", [0, -1, 1.0, "1", True, None, [1], 4, 10**18], ids=str)
def test_formats_that_are_not_ours(cache: Path, where: str, version: object) -> None:
    reseal(
        cache,
        lambda stored: (stored if where == "manifest" else stored["promise"]).update(format_version=version),
    )
    newer = type(version) is int and version > 3
    with pytest.raises(MismatchError if newer else CacheDamagedError) as caught:
        open_cache(cache)
    assert str(version) in str(caught.value)


PROFILES: dict[str, tuple[dict[str, object], str]] = {
    "none": ({"profile": None}, "profile"),
    "unknown": ({"profile": "tiny"}, "profile: .*'tiny'"),
    "a number": ({"profile": 5}, "profile: .* int"),
    "a list": ({"profile": ["compact"] * 10**5}, "profile: .* array"),
    "of version 1": ({"profile": "default"}, "default .* 2"),
    "nothing to fold": ({"classes": 11}, "compact .*q uint8"),
}


@pytest.mark.parametrize("kind", PROFILES)
def test_profiles_that_there_are_not(tmp_path: Path, kind: str) -> None:
    change, said = PROFILES[kind]
    path = write(tmp_path / "a.zarr", make_manifest(profile="compact"))
    reseal(path, lambda stored: stored["promise"].update(change))
    with cheaply(), pytest.raises(CacheDamagedError, match=said):
        open_cache(path)


def test_a_manifest_of_format_2_names_its_profile(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", make_manifest(profile="mmap"))
    reseal(path, _break("profile"))
    check_refused(path, "profile")


@pytest.mark.parametrize(("where", "said"), [("manifest", " 2, .* 1"), ("promise", " 1, .* 2")])
def test_a_cache_has_one_format(cache: Path, where: str, said: str) -> None:
    """Otherwise a reader that looks at one number would misread what the other one means."""
    reseal(
        cache, lambda stored: (stored if where == "manifest" else stored["promise"]).update(format_version=2)
    )
    check_refused(cache, said)


def test_format_1_knows_no_profiles(cache: Path) -> None:
    """An unknown key of the manifest is ignored, as every reader of version 1 does."""
    reseal(cache, lambda stored: stored["promise"].update(profile="compact"))
    assert open_cache(cache).manifest == make_manifest()


@pytest.mark.parametrize("profile", ["default", "mmap"])
def test_formats_1_and_2_know_no_size_of_shards(tmp_path: Path, profile: str) -> None:
    manifest = make_manifest(profile=profile)
    path = write(tmp_path / "a.zarr", manifest)
    reseal(path, lambda stored: stored["promise"].update(shard_samples=7))
    assert open_cache(path).manifest == manifest


SHARDS: dict[str, tuple[object, str]] = {
    "none": (None, "3 without shard_samples"),
    "empty": (0, "shard_samples: .*>= 1"),
    "a share": (7.5, "shard_samples: .*float"),
    "more than a view": (41, "41 samples"),
    "more than all memory": (10**11, f"{10**11} samples"),
}


@pytest.mark.parametrize("kind", SHARDS)
def test_sizes_of_shards_that_there_are_not(tmp_path: Path, kind: str) -> None:
    change, said = SHARDS[kind]
    path = write(tmp_path / "a.zarr", make_manifest(shard_samples=9))
    reseal(path, lambda stored: stored["promise"].update(shard_samples=change))
    with cheaply(), pytest.raises(CacheDamagedError, match=said):
        open_cache(path)


def test_a_shard_has_at_most_64_mebibytes() -> None:
    """As a mapped one: a reader takes memory for a whole chunk."""
    large = FieldSpec("z", "float32", (1000,), ("class",))
    make_manifest(samples=10**6, fields=(large,), shard_samples=16_778)
    with pytest.raises(UsageError, match="16779 samples of 4,000 bytes"):
        make_manifest(samples=10**6, fields=(large,), shard_samples=16_779)


def test_a_newer_format_is_recognized_whatever_else_it_changed(cache: Path) -> None:
    (cache / "manifest.json").write_text('{"format_version": 4, "promise": [], "complete": "partly"}')
    with pytest.raises(MismatchError, match=r"4.* 3$") as caught:
        open_cache(cache)
    assert "upgrade" in caught.value.hint


def _rename(old: str, new: str) -> Change:
    return lambda stored: stored["files"].update({new: stored["files"].pop(old)})


def _manifest_key(name: str, value: object) -> Change:
    return lambda stored: stored["promise"].update({name: value})


def _break(name: str) -> Change:
    return lambda stored: stored["promise"].pop(name)


DIGESTS: list[object] = [
    None,
    5,
    [],
    [5],
    ["5", "0" * 64],
    [True, "0" * 64],
    [5.0, "0" * 64],
    [5, 5],
    [5, "0" * 64, 1],
    [0, "0" * 64],
    [-1, "0" * 64],
    [1 << 60, "0" * 64],
]
LISTS: dict[str, Change] = {
    "one more": list_as("q/c/3/0/0", [1, "0" * 64]),
    "one less": lambda stored: stored["files"].pop("q/c/0/0/0"),
    "no description": lambda stored: stored["files"].pop("q/zarr.json"),
    "outside": _rename("q/c/0/0/0", "../../etc/passwd"),
    "absolute": _rename("q/c/0/0/0", "/etc/passwd"),
    "roundabout": _rename("q/c/0/0/0", "q/c/0/../0/0/0"),
    "nothing": lambda stored: stored.pop("files"),
    "null": lambda stored: stored.update(files=None),
    "a list": lambda stored: stored.update(files=list(stored["files"])),
    **{f"a digest {value}": list_as("q/c/0/0/0", value) for value in DIGESTS},
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_that_are_not_of_the_stores_own_files(cache: Path, kind: str) -> None:
    reseal(cache, LISTS[kind])
    with cheaply(), pytest.raises(CacheDamagedError, match=r"manifest\.json"):
        open_cache(cache)


NO_OBJECTS: list[object] = [None, [], "x", 5]
REST: dict[str, Change] = {
    **{f"no {name}": _break(name) for name in make_manifest().to_dict() if name != "format_version"},
    **{
        f"{name} of {value}": _manifest_key(name, value)
        for name in ("dataset", "teacher", "encoding")
        for value in NO_OBJECTS
    },
    "no fingerprint": lambda stored: stored["promise"]["dataset"].pop("fingerprint"),
    "a number for a fingerprint": lambda stored: stored["promise"]["teacher"].update(fingerprint=5),
    "no promise": lambda stored: stored.pop("promise"),
    "a list for a promise": lambda stored: stored.update(promise=[]),
    "a complete of 1": lambda stored: stored.update(complete=1),
    "a complete of text": lambda stored: stored.update(complete="no"),
    "a summary of text": lambda stored: stored.update(summary="good"),
}


@pytest.mark.parametrize("kind", REST)
def test_anything_else_that_a_writer_does_not_leave(cache: Path, kind: str) -> None:
    reseal(cache, REST[kind])
    check_refused(cache, r"manifest")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": 0}, "samples: .* >= 1"),
        ({"num_views": True}, "slots: .* bool"),
        ({"fields": ()}, "fields: .* length >= 1"),
        ({"fields": (Q, Q)}, r"\['q', 'q'\]"),
        ({"fields": (FieldSpec("q", ">f4", (), ()),)}, r"fields\[0\]\.dtype: .*>f4"),
        ({"teacher": {"fingerprint": None}}, r"teacher\.fingerprint"),
    ],
)
def test_a_manifest_that_makes_no_sense_cannot_be_made(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_manifest(**change)
