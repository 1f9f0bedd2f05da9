"""A tiny model, trained once, with which the doctor's checks are tried."""

import pytest

from traj_diffusion.doctor.bench import Trained, bench_subject, train_tiny
from traj_diffusion.doctor.subject import Subject
from traj_diffusion.testing.scenes import crossing, straight_road


@pytest.fixture(scope="session")
def trained() -> Trained:
    """Half a minute of training on one core."""
    return train_tiny()


@pytest.fixture
def healthy(trained: Trained) -> Subject:
    """The tiny model as it should be."""
    return bench_subject(trained, (straight_road(), crossing()))
