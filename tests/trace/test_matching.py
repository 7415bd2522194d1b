"""Two sequences laid side by side: a longest common subsequence, told from the table of all lengths."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from layerprof.trace.graphs.matching import MOST_DIFFERENCES, NOTHING, exchanged, partners


def longest(a: list[int], b: list[int]) -> int:
    """Return how many elements two sequences can have in common, by the table of all their beginnings."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def numbers(values: list[int]) -> np.ndarray:
    """Return an array of whole numbers."""
    return np.array(values, np.int64)


class TestPartners:
    """Equal elements, in the same order."""

    @pytest.mark.parametrize("seed", range(40))
    def test_partners_are_a_longest_common_subsequence(self, seed: int) -> None:
        """Random sequences of few symbols, of any length."""
        rng = random.Random(seed)
        symbols = rng.choice([1, 2, 3, 6])
        a, b = ([rng.randrange(symbols) for _ in range(rng.randrange(20))] for _ in range(2))
        found = partners(numbers(a), numbers(b)).tolist()
        pairs = [(here, there) for here, there in enumerate(found) if there != NOTHING]
        assert all(a[here] == b[there] for here, there in pairs)
        assert all(before[1] < after[1] for before, after in pairwise(pairs))
        assert len(pairs) == longest(a, b)

    def test_what_stands_in_the_other_as_it_is_is_found_there(self) -> None:
        """However long: launches before and after the graph's."""
        a = list(range(5000))
        assert partners(numbers(a), numbers([9, 9, *a, 7])).tolist() == list(range(2, 5002))

    def test_sequences_that_differ_too_much_have_none(self) -> None:
        """Another graph, not a variant of this one."""
        many = MOST_DIFFERENCES + 1
        assert (partners(numbers([1] * many), numbers([2] * many)) == NOTHING).all()

    @pytest.mark.parametrize("sides", [([], []), ([], [1]), ([1], [])])
    def test_an_empty_sequence_has_no_partners(self, sides: tuple[list[int], list[int]]) -> None:
        """On either side."""
        assert partners(numbers(sides[0]), numbers(sides[1])).tolist() == [NOTHING] * len(sides[0])


class TestExchanged:
    """One element in another's place."""

    def test_stretches_of_equal_length_between_partners_are_laid_on_each_other(self) -> None:
        """1 2 3 4 beside 1 8 9 4."""
        found = partners(numbers([1, 2, 3, 4]), numbers([1, 8, 9, 4]))
        assert found.tolist() == [0, NOTHING, NOTHING, 3]
        assert exchanged(found, 4, lambda here, there: True).tolist() == [0, 1, 2, 3]

    def test_stretches_of_other_lengths_or_that_do_not_fit_are_not(self) -> None:
        """Nothing says which is which; what fits is asked with the places in both."""
        found = partners(numbers([1, 2, 4]), numbers([1, 8, 9, 4]))
        assert exchanged(found, 4, lambda here, there: True).tolist() == [0, NOTHING, 3]
        found = partners(numbers([1, 2, 5, 4]), numbers([7, 1, 8, 9, 4]))
        asked: list[tuple[list[int], list[int]]] = []

        def fits(here: np.ndarray, there: np.ndarray) -> bool:
            asked.append((here.tolist(), there.tolist()))
            return False

        assert exchanged(found, 5, fits).tolist() == [1, NOTHING, NOTHING, 4]
        assert asked == [([1, 2], [2, 3])]
