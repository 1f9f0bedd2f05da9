"""Keyed noise: known answers, the normal law, and streams that nothing else can move."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from traj_diffusion.diffusion.noise import fold_keys, keyed_normal, philox

ONES = 0xFFFFFFFF
# kat_vectors of Random123 (Salmon et al. 2011): counter, key, result of philox4x32-10.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(counter: tuple[int, ...], key: tuple[int, ...], answer: tuple) -> None:
    assert tuple(int(word) for word in philox(*counter, *key)) == answer


def test_the_mixer_is_that_of_splitmix64() -> None:
    # The first output of splitmix64 from seed 0 (Steele et al. 2014) is mix(0 + golden).
    from traj_diffusion.diffusion.noise import _GOLDEN, _mix

    assert int(_mix(np.array([_GOLDEN]))[0]) == 0xE220A8397B1DCDAF


def test_the_law_is_unit_normal() -> None:
    z = keyed_normal([3, np.arange(2000)], 100).ravel().astype(np.float64)
    n = z.size
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs(stats.skew(z)) < 4 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(z)) < 4 * np.sqrt(24 / n)
    assert stats.kstest(z, "norm").pvalue > 1e-3


@pytest.mark.parametrize("word", range(5))
def test_neighbouring_keys_are_independent(word: int) -> None:
    keys = [np.full(400, base) for base in (0, 1, 17, 5, 2)]
    keys[word] = keys[word] + np.arange(400)
    z = keyed_normal(keys, 256).astype(np.float64)
    correlation = np.corrcoef(z)[np.triu_indices(400, 1)] * np.sqrt(256)
    assert stats.kstest(correlation, "norm").pvalue > 1e-4
    lagged = (z[:-1] * z[1:]).mean() * np.sqrt(z[1:].size)
    assert abs(lagged) < 4


@given(
    rows=st.integers(1, 12),
    more_rows=st.integers(0, 12),
    count=st.integers(0, 20),
    more=st.integers(0, 20),
    seed=st.integers(-(2**63), 2**63 - 1),
)
@settings(max_examples=60, deadline=None)
def test_more_rows_or_a_longer_stream_leave_the_first_ones_bit_for_bit(
    rows: int, more_rows: int, count: int, more: int, seed: int
) -> None:
    few = keyed_normal([seed, np.arange(rows)], count)
    many = keyed_normal([seed, np.arange(rows + more_rows)], count + more)
    assert np.array_equal(few.view(np.uint32), many[:rows, :count].view(np.uint32))


def test_a_row_depends_on_its_own_words_only() -> None:
    ids = np.array([9, 4, 7])
    together = keyed_normal([1, ids, np.array([0, 5, 5])], 10)
    alone = keyed_normal([1, 7, 5], 10)
    assert np.array_equal(together[2], alone[0])


def test_order_and_number_of_words_count() -> None:
    keys = {int(fold_keys(words)[0]) for words in ([1, 2], [2, 1], [1], [1, 2, 0], [0, 1, 2], [-1, 2], [0], [0, 0])}
    assert len(keys) == 8


def test_a_million_neighbouring_keys_do_not_collide() -> None:
    a, b = np.divmod(np.arange(1_000_000), 1000)
    assert len(np.unique(fold_keys([a, b]))) == 1_000_000


def test_words_of_any_integer_type_mean_their_value() -> None:
    kinds = [np.int8, np.int32, np.uint16, np.uint64, np.int64]
    assert len({int(fold_keys([np.array([5], kind)])[0]) for kind in kinds}) == 1


def test_bad_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        keyed_normal([1.5 * np.ones(2)], 3)
    with pytest.raises(ValueError, match="at least one word"):
        keyed_normal([], 3)
    with pytest.raises(ValueError, match="broadcast"):
        keyed_normal([np.arange(2), np.arange(3)], 3)
    with pytest.raises(ValueError, match="count"):
        keyed_normal([1], -1)
