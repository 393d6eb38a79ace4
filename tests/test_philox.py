"""philox4x32-10 against the published known answers."""

import numpy as np
import pytest

from bancache.philox import Words, derive_seed, permutation, philox, split_seed


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # Random123's kat_vectors for philox4x32, ten rounds.
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    c0, c1, c2, c3 = counter
    assert tuple(int(word) for word in philox(key, c0, c1, c2, c3)) == expected


def test_first_words_are_those_of_the_published_known_answers() -> None:
    """The cheaper way to a first word, when three counter words stay."""

    def first(counter: tuple[int, ...], key: tuple[int, int]) -> int:
        c0, c1, c2 = (np.array([word], np.uint64) for word in counter[:3])
        return int(Words(key, c0, c1, counter[3]).at(c2)[0])

    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert first((0, 0, 0, 0), (0, 0)) == 0x6627E8D5
    assert first((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2) == 0x408F276D
    assert first(pi, (0xA4093822, 0x299F31D0)) == 0xD16CFE09


def test_a_word_can_be_asked_for_again() -> None:
    """Nothing that is computed once is changed by asking."""
    rng = np.random.default_rng(0)
    c0, c1, c2 = (rng.integers(0, 1 << 32, 1000, dtype=np.uint64) for _ in range(3))
    words = Words((5, 6), c0, c1, 7)
    for turn in range(3):
        expected = philox((5, 6), c0, c1, c2 ^ np.uint64(turn), 7)[0]
        np.testing.assert_array_equal(words.at(c2 ^ np.uint64(turn)), expected)


def test_counters_broadcast() -> None:
    words = philox((1, 2), np.arange(3), 0, 0, 0)[2]
    assert words.tolist() == [int(philox((1, 2), i, 0, 0, 0)[2]) for i in range(3)]


def test_a_seed_is_64_bits() -> None:
    assert split_seed(2**64 - 1) == (2**32 - 1, 2**32 - 1)
    with pytest.raises(ValueError, match="between 0 and 2"):
        split_seed(-1)


def test_derived_seeds_depend_on_the_whole_path() -> None:
    seeds = {derive_seed(s, name, g) for s in range(3) for name in ("init", "order") for g in range(3)}
    assert len(seeds) == 18
    assert derive_seed(0, "init", 1) == 4434143040239287774


def test_domains_keep_orders_apart() -> None:
    assert not np.array_equal(permutation(0, 0, 50, domain=1), permutation(0, 0, 50, domain=2))
