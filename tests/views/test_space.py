"""The numbering of views and the order in which a sample shows them."""

import numpy as np
import pytest
from contracts.lattices import lattice

from bancache.errors import UsageError
from bancache.views import Lattice, ViewSpace

NAMES = ["identity", "flip", "crop1", "crop4", "crop4-flip", "crop4-zero-flip", "crop12-zero"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_and_a_dict_read_back_as_the_same_space(name: str) -> None:
    space = ViewSpace.parse(name, seed=7)
    assert space.name == name
    assert ViewSpace.parse(space.name, seed=7) == space
    assert ViewSpace.from_dict(space.to_dict()) == space


@pytest.mark.parametrize(
    "name", ["", "crop0", "crop", "crop4flip", "-flip", "flip-crop4", "crop4-", "rotate"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no views are called"):
        ViewSpace.parse(name)


def test_the_lattice_of_the_paper_has_162_views() -> None:
    space = lattice("crop4-flip")
    assert space.size == 9 * 9 * 2
    dy, dx, flip = space.params(np.arange(162))
    assert len({*zip(dy.tolist(), dx.tolist(), flip.tolist(), strict=True)}) == 162
    assert [int(part) for part in space.params(space.identity)] == [4, 4, 0]
    assert [int(part) for part in space.params(161)] == [8, 8, 1]
    assert [int(part) for part in space.params(81 + 2 * 9 + 5)] == [2, 5, 1]


@pytest.mark.parametrize("name", NAMES)
def test_the_views_of_a_sample_are_all_views_once(name: str) -> None:
    space = ViewSpace.parse(name, seed=11)
    order = space.view_ids(np.arange(50)[:, None], np.arange(space.size)[None])
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(space.size), (50, 1)))


def test_addresses_are_frozen() -> None:
    """Every cache on disk depends on these numbers: if one changes, no old cache can be read."""
    space = Lattice(pad=4, flip=True)
    assert space.view_ids(np.arange(8), 0).tolist() == [41, 33, 125, 25, 2, 4, 42, 22]
    assert space.view_ids(3, np.arange(8)).tolist() == [25, 23, 76, 82, 83, 151, 121, 99]
    seeded = Lattice(pad=4, flip=True, seed=2**63 + 5)
    assert seeded.view_ids([0, 2**40 + 1], [161, 77]).tolist() == [87, 68]
    assert ViewSpace.parse("crop1").view_ids(np.arange(8), 8).tolist() == [0, 0, 0, 4, 7, 5, 4, 1]
    assert ViewSpace.parse("flip", seed=1).view_ids(np.arange(8), 1).tolist() == [0, 1, 0, 0, 0, 0, 1, 0]


def test_view_ids_do_not_depend_on_the_samples_computed_together() -> None:
    """Many are computed in parts, and the parts leave no trace."""
    space, count = ViewSpace.parse("crop4-flip", seed=9), 40_000
    together = space.view_ids(np.arange(count), 3)
    some = np.array([0, 16_383, 16_384, 32_767, 32_768, 39_999])
    np.testing.assert_array_equal(space.view_ids(some, 3), together[some])
    assert together[some].tolist() == [42, 3, 21, 82, 53, 91]


@pytest.mark.parametrize("name", ["crop1", "crop4-flip"])
def test_pairs_of_views_are_uniform_over_pairs_of_views(name: str) -> None:
    """Chi-squared over all ordered pairs of different views stays within four deviations."""
    space, count = ViewSpace.parse(name, seed=5), 100_000
    first, second = (space.view_ids(np.arange(count), view_index) for view_index in (0, 1))
    pairs = np.zeros((space.size, space.size))
    np.add.at(pairs, (first, second), 1)
    cells = space.size * (space.size - 1)
    expected = count / cells
    off_diagonal = pairs[~np.eye(space.size, dtype=bool)]
    statistic = ((off_diagonal - expected) ** 2 / expected).sum() / (cells - 1)
    assert abs(statistic - 1) < 4 * np.sqrt(2 / (cells - 1))


def test_a_view_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="no view 9 among 9 views"):
        ViewSpace.parse("crop1").view_ids(0, 9)
    with pytest.raises(UsageError):
        ViewSpace.parse("crop1").view_ids(np.arange(2), np.array([-1, 0]))
