"""States between known ones: answers known on paper."""

import numpy as np
import pytest

from traj_diffusion.sim_adapter.between import Motion, between


def on_a_circle(time: float, radius: float = 8.0, speed: float = 10.0) -> Motion:
    """A body that drives counter-clockwise on a circle around the origin."""
    angle = speed / radius * time
    facing = angle + np.pi / 2
    return Motion(
        radius * np.array([[np.cos(angle), np.sin(angle), 0.0]]),
        np.float32([facing]),
        np.float32([[speed * np.cos(facing), speed * np.sin(facing)]]),
    )


def test_a_circle_stays_a_circle() -> None:
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        found = between(on_a_circle(0.0), on_a_circle(0.5), 0.5, share)
        wanted = on_a_circle(0.5 * share)
        assert found.position == pytest.approx(wanted.position, abs=1e-5)
        assert found.heading == pytest.approx(wanted.heading, abs=1e-6)
        assert found.velocity == pytest.approx(wanted.velocity, abs=1e-4)
    chord = on_a_circle(0.0).position + on_a_circle(0.5).position
    assert np.linalg.norm(chord / 2) < 7.7, "a straight line would have cut the corner by 30 cm"


def test_braking_follows_the_parabola() -> None:
    def at(time: float) -> Motion:  # 10 m/s, braking at 4 m/s²
        place = np.array([[10 * time - 2 * time**2, 0, 0]])
        return Motion(place, np.zeros(1, np.float32), np.float32([[10 - 4 * time, 0]]))

    found = between(at(0), at(0.5), 0.5, 0.4)
    assert found.position == pytest.approx(at(0.2).position)
    assert found.velocity == pytest.approx(at(0.2).velocity)


def test_headings_turn_the_short_way_and_ends_are_met_whatever_the_velocities_say() -> None:
    start = Motion(np.array([[1.0, 2.0, 3.0]]), np.float32([3.1]), np.float32([[5, 1]]))
    end = Motion(np.array([[1.5, 2.5, 4.0]]), np.float32([-3.1]), np.float32([[-7, 0]]))
    assert between(start, end, 0.1, 0.5).heading == pytest.approx(np.pi, abs=1e-6)
    for share, known in ((0.0, start), (1.0, end)):
        found = between(start, end, 0.1, share)
        assert found.position == pytest.approx(known.position)
        assert found.velocity == pytest.approx(known.velocity)
    assert between(start, end, 0.1, 0.25).position[0, 2] == pytest.approx(3.25)
