"""Views that are drawn anew at every view index: their names, and the records that a name draws."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from contracts import drawing
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.views import Lattice, ViewSpace, mixing
from bancache.views.counters import Counters
from bancache.views.record import FLIP, WHOLE
from bancache.views.space import ENDLESS, PRESETS, Sizes

NAMES = [
    "rrc",
    "rrc-flip",
    "rrc0.25x1.5-flip",
    "rrcx2",
    "rrc-flip-rand-m9-n2-erase0.25",
    "rrc-flip-trivial-cutmix1.0",
    "rrc-flip-rand-m9-n2-erase0.25-mixup0.8-cutmix1.0",
    "crop4-flip-color0.4-mixup0.8",
    "crop4-zero-erase1",
    "identity-mixup0.2",
    "flip-trivial",
]
COUNT = 300


def sizes_for(name: str, count: int = COUNT) -> Sizes:
    """Pictures of 1 to 500 pixels a side; of one size where crops are padded."""
    each = np.arange(count, dtype=np.int64)
    if ViewSpace.parse(name).needs_one_size:
        return Sizes(np.full(count, 32), np.full(count, 24))
    return Sizes(1 + each * 37 % 500, 1 + each * 101 % 500)


def records(
    name: str, samples: NDArray[np.int64], view_ids: NDArray[np.int64], seed: int = 7
) -> NDArray[np.int32]:
    return ViewSpace.parse(name, seed=seed).records(samples, view_ids, sizes_for(name))


# Names.


@pytest.mark.parametrize("name", NAMES)
def test_a_name_and_a_dict_read_back_as_the_same_space(name: str) -> None:
    space = ViewSpace.parse(name, seed=7)
    assert isinstance(space, Counters)
    assert space.name == name
    assert space.to_dict() == {"id": "counters-1", "name": name, "seed": 7}
    assert ViewSpace.from_dict(space.to_dict()) == space
    assert space != ViewSpace.parse(name, seed=8)
    assert space.is_endless
    assert space.size == ENDLESS


@pytest.mark.parametrize(
    "name",
    [
        "crop4flip-mixup0.8",
        "mixup0.8",
        "erase0.25",
        "-rrc",
        "rrc-",
        "rrc-flip-",
        "rrc-flip-flip",
        "flip-rrc",
        "rrc-crop4-flip",
        "center-mixup0.8",
        "rrc-flip-mixup0.8-erase0.25",
        "rrc-flip-cutmix1.0-mixup0.8",
        "rrc-flip-erase0.25-rand-m9-n2",
        "rrc-flip-trivial-color0.4",
        "rrc-flip-mixup",
        "rrc-flip-mixup.8",
        "rrc-flip-mixup-0.8",
        "rrc-flip-mixup1e1",
        "rrc-flip-mixup0.8\n",
        "rrc-flip-mixup\u0660.\u0668",
        "rrc00.25",
        "rrc0.25x",
        "rrc-flip-rand-m11-n2",
        "rrc-flip-color0",
        "rrc-flip-rand-m9-n2-rand-m9-n2",
        "deit-mixup0.8",
        # The grammar's, but out of range.
        "rrc0",
        "rrc2",
        "rrc0.25x0.5",
        "rrcx17",
        "rrc-flip-erase0",
        "rrc-flip-erase0.00001",
        "rrc-flip-erase1.1",
        "rrc-flip-mixup0",
        "rrc-flip-mixup0.001",
        "rrc-flip-cutmix101",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        ViewSpace.parse(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rrc2", "rrc0.25x1.5"),
        ("rrc-erase2", "erase0.25"),
        ("rrc-mixup0", "mixup0.8"),
        ("rrc-cutmix0", "cutmix0.8"),
    ],
)
def test_a_number_out_of_range_comes_with_one_that_is_not(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        ViewSpace.parse(name)
    assert hint in caught.value.hint
    assert name.split("-")[-1] in str(caught.value)


def test_presets_are_names_of_their_parts() -> None:
    """Caches store the parts, so a preset could change without changing a cache."""
    assert PRESETS == {
        "imagenet": "rrc-flip",
        "tinyvit": "rrc-flip-rand-m9-n2-erase0.25",
        "deit": "rrc-flip-rand-m9-n2-erase0.25-mixup0.8-cutmix1.0",
    }
    for name, full in PRESETS.items():
        assert ViewSpace.parse(name, seed=3) == Counters(full, 3)
        assert ViewSpace.parse(name).to_dict()["name"] == full


def test_views_without_operations_stay_a_lattice_and_reflection_needs_no_word() -> None:
    assert isinstance(ViewSpace.parse("crop4-flip"), Lattice)
    assert ViewSpace.parse("crop4-reflect-flip-mixup0.8").name == "crop4-flip-mixup0.8"


@pytest.mark.parametrize(
    "values",
    [
        {"id": "counters-1", "name": "rrc-flip"},
        {"id": "counters-1", "name": "rrc-flip", "seed": 0, "size": 3},
        {"id": "counters-1", "name": "crop4-flip", "seed": 0},
        {"id": "counters-1", "name": "deit", "seed": 0},
        {"id": "counters-2", "name": "rrc-flip", "seed": 0},
    ],
)
def test_what_another_version_wrote_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ViewSpace.from_dict(values)


def test_a_view_index_is_its_own_id_and_ends_at_2_to_the_31() -> None:
    space = ViewSpace.parse("rrc-flip")
    assert space.view_ids([[0], [5]], [3, ENDLESS - 1]).tolist() == [[3, ENDLESS - 1]] * 2
    with pytest.raises(UsageError):
        space.view_ids(0, ENDLESS)
    with pytest.raises(UsageError):
        space.view_ids(0, np.array([-1]))


# Records.


@pytest.mark.parametrize(
    ("name", "width", "digest"),
    [
        ("deit", 34, "a41fa1e05896529d"),
        ("rrc-flip-trivial-cutmix1.0", 30, "bcd3ff1201de00f0"),
        ("crop4-flip-color0.4-mixup0.8", 38, "aed9a0bb43fbe027"),
        ("rrc0.25x1.5", 10, "ae6da0917ad7d222"),
    ],
)
def test_records_are_frozen(name: str, width: int, digest: str) -> None:
    """Every cache of such views depends on these numbers: if one changes, no old cache can be read."""
    samples = np.arange(COUNT)
    found = [
        records(name, samples, view_ids, seed)
        for seed in (0, 2**63 + 5)
        for view_ids in (np.zeros(COUNT, np.int64), samples * 13 % 50, np.full(COUNT, ENDLESS - 1))
    ]
    assert {(part.shape, part.dtype) for part in found} == {((COUNT, width), np.dtype(np.int32))}
    assert hashlib.sha256(np.stack(found).astype("<i4").tobytes()).hexdigest()[:16] == digest


def test_records_are_those_of_the_definition() -> None:
    """Each number is drawn from the words of its lane, as contracts/drawing.py does one by one."""
    name, seed = "rrc-flip-erase0.25-mixup0.8-cutmix1.0", 2**40 + 3
    samples, view_ids = np.arange(COUNT), np.arange(COUNT) * 7 % 11
    sizes = sizes_for(name)
    sides = list(zip(sizes.heights.tolist(), sizes.widths.tolist(), strict=True))
    for sample, record in enumerate(records(name, samples, view_ids, seed).tolist()):
        view, partner = sample * 7 % 11, record[15]
        shown = drawing.own(seed, sample, view, *sides[sample])
        beside = drawing.own(seed, partner, view, *sides[partner])
        assert record == [*shown, *drawing.mixed(seed, sample, view), partner, *beside]


@pytest.mark.parametrize("name", NAMES)
def test_records_do_not_depend_on_what_is_computed_together(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a view, in another order, a few, views of several indices, and a data set too large to keep its partners."""
    samples, view_ids = np.arange(COUNT), np.arange(COUNT) % 3
    rng = np.random.default_rng(0)
    together = records(name, samples, view_ids)
    for view_id in range(3):
        whole = records(name, samples, np.full(COUNT, view_id))
        np.testing.assert_array_equal(whole[view_ids == view_id], together[view_ids == view_id])
    order = rng.permutation(COUNT)
    np.testing.assert_array_equal(records(name, samples[order], view_ids[order]), together[order])
    for sample in (0, 31, 299):
        one = slice(sample, sample + 1)
        np.testing.assert_array_equal(records(name, samples[one], view_ids[one]), together[one])
    monkeypatch.setattr(mixing, "_MOST_KEPT", 10)
    np.testing.assert_array_equal(records(name, samples, np.zeros(COUNT, np.int64))[::3], together[::3])


def test_no_view_at_all_has_no_records() -> None:
    empty = np.empty(0, np.int64)
    assert records("deit", empty, empty).shape == (0, 34)


@pytest.mark.parametrize(
    ("name", "crops"), [("crop4-flip", "crop4-flip-color0.4-mixup0.8"), ("flip", "flip-erase0.5")]
)
def test_the_crops_of_padded_views_are_those_of_their_lattice(name: str, crops: str) -> None:
    """In its order, again and again: the first views of a sample are all crops once."""
    lattice, space = Lattice.read(name, 7), ViewSpace.parse(crops, seed=7)
    assert lattice is not None
    assert (space.mode, space.needs_one_size) == (lattice.mode, True)
    sizes = sizes_for(crops)
    for view_index in (0, 1, lattice.size - 1, lattice.size, 5 * lattice.size + 1):
        samples = np.arange(COUNT)
        drawn = space.records(samples, space.view_ids(samples, view_index), sizes)
        ids = lattice.view_ids(samples, view_index % lattice.size)
        expected = lattice.records(samples, ids, sizes)
        np.testing.assert_array_equal(drawn[:, : FLIP + 1], expected[:, : FLIP + 1])


def test_a_part_of_a_name_does_not_change_what_the_others_draw() -> None:
    """Each part has random words of its own: a student can compare views with and without erasing."""
    samples, view_ids = np.arange(COUNT), np.arange(COUNT) % 7
    plain, erased = (records(name, samples, view_ids) for name in ("rrc-flip", "rrc-flip-erase0.25"))
    mixed = records("rrc-flip-trivial-erase0.25-mixup0.8", samples, view_ids)
    layout = ViewSpace.parse("rrc-flip-trivial-erase0.25-mixup0.8").layout
    np.testing.assert_array_equal(plain[:, : FLIP + 1], erased[:, : FLIP + 1])
    np.testing.assert_array_equal(plain[:, : FLIP + 1], mixed[:, : FLIP + 1])
    np.testing.assert_array_equal(erased[:, FLIP + 1 :], mixed[:, layout.erased.start : layout.own])


def test_other_seeds_samples_and_indices_draw_other_views() -> None:
    sizes, first = Sizes(np.full(2 * COUNT, 300), np.full(2 * COUNT, 400)), np.arange(COUNT)
    seen: set[tuple[int, ...]] = set()
    for samples, view_index, seed in (
        (first, 0, 7),
        (first + COUNT, 0, 7),
        (first, 1, 7),
        (first, 1 << 30, 7),
        (first, 0, 8),
        (first, 0, 7 + (1 << 32)),
    ):
        space = ViewSpace.parse("rrc", seed=seed)
        seen |= set(map(tuple, space.records(samples, np.full(COUNT, view_index), sizes)[:, :4].tolist()))
    assert len(seen) > 0.99 * 6 * COUNT


def test_half_of_the_views_are_mirrored() -> None:
    samples = np.arange(20_000) % COUNT
    flips = records("rrc-flip", samples, np.arange(20_000))[:, FLIP]
    assert set(flips.tolist()) == {0, 1}
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / np.sqrt(20_000)
    assert not records("rrc", samples, np.arange(20_000))[:, FLIP].any()


@pytest.mark.parametrize("share", ["0.25", "1"])
def test_views_are_erased_as_often_as_asked(share: str) -> None:
    name, count = f"rrc-erase{share}", 20_000
    layout = ViewSpace.parse(name).layout
    drawn = records(name, np.arange(count) % COUNT, np.arange(count))
    top, left, height, width = drawn[:, layout.erased].T
    rate, probability = (height > 0).mean(), float(share)
    # One of some ten thousand finds no box in ten tries.
    assert abs(rate - probability) <= 4 * np.sqrt(probability * (1 - probability) / count) + 1e-3
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= WHOLE).all()
    assert (left + width <= WHOLE).all()
    colors = drawn[height > 0, layout.fill]
    for shift in (0, 8, 16):
        assert abs((colors >> shift & 255).mean() - 127.5) < 4 * 74 / np.sqrt(len(colors))
    assert colors.min() >= 0
    assert colors.max() < 1 << 24
