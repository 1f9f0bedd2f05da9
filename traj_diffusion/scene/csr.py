"""Ragged data: a flat array of indices and where each row of it starts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64


@dataclass(frozen=True)
class Csr:
    """Rows of varying length. Row i is `index[start[i]:start[i + 1]]`."""

    start: Int64[np.ndarray, " starts"]
    index: Int32[np.ndarray, " entries"]

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, row: int) -> Int32[np.ndarray, " length"]:
        """Return the entries of one row."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.index[self.start[row] : self.start[row + 1]]

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]]) -> "Csr":
        """Return the rows as one flat array.

        >>> Csr.from_lists([[3, 1], [], [2]])[0].tolist()
        [3, 1]
        """
        start = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        index = np.array([entry for row in rows for entry in row], dtype=np.int32)
        return cls(start, index)

    @classmethod
    def empty(cls, rows: int) -> "Csr":
        """Return that many rows with nothing in them."""
        return cls(np.zeros(rows + 1, np.int64), np.zeros(0, np.int32))
