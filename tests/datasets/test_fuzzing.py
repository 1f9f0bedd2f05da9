"""Broken files never end in anything but scenes or one typed error that names the file."""

import time
from collections import Counter
from pathlib import Path

import pytest

from traj_diffusion.testing.fuzzing import NEEDS, READERS, fuzz_once


@pytest.mark.parametrize("reader", READERS)
def test_three_hundred_broken_files_end_well(reader: str, tmp_path: Path) -> None:
    if reader in NEEDS:
        pytest.importorskip(NEEDS[reader], reason=f"{NEEDS[reader]} is not installed")
    ends: Counter[str] = Counter()
    for number in range(300):
        start = time.perf_counter()
        ends[fuzz_once(reader, 7, number, tmp_path)] += 1
        assert time.perf_counter() - start < 60  # a hang, also where a first call compiles on a busy machine
    # Mutations that never break anything, or break everything at the door, would test nothing.
    assert ends["scene"] > 10
    assert sum(ends.values()) - ends["scene"] > 10
