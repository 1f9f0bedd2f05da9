"""What is odd about a scene is counted and named; what cannot be is refused."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from traj_diffusion.datasets.summary import summarise
from traj_diffusion.errors import BadScene
from traj_diffusion.scene import Csr, Lights, Routes, Scene, check_scene, doubts
from traj_diffusion.testing import crossing, straight_road


def in_place(change: Callable[[Scene], object]) -> Scene:
    scene = straight_road()
    change(scene)
    return scene


def test_a_plain_scene_is_not_odd() -> None:
    assert doubts(straight_road()) == doubts(crossing()) == ()


@pytest.mark.parametrize(
    ("what", "count", "scene"),
    [
        ("heading lies across their motion", 2, in_place(lambda s: s.agents.heading.fill(1.57))),
        ("go backwards", 2, in_place(lambda s: s.agents.heading.fill(np.pi))),
        ("beyond four turns, degrees perhaps", 2, in_place(lambda s: s.agents.heading.fill(360))),
        ("velocity is not that of their motion", 2, in_place(lambda s: s.agents.velocity.__imul__(3.6))),  # km/h
        ("states faster than 70 m/s", 2, in_place(lambda s: s.agents.position[1, 40].__iadd__(30))),
        ("wider than long", 2, in_place(lambda s: s.agents.size[..., 1].fill(9))),
        ("beyond 30 m", 2, in_place(lambda s: s.agents.size.fill(4500))),  # millimetres
        ("more than 300 m off the map", 2, in_place(lambda s: s.agents.position.__iadd__(5000))),
        ("never valid", 1, in_place(lambda s: s.agents.valid[1].fill(False))),
        ("nobody is there at the current step", 1, in_place(lambda s: s.agents.valid[:, 10].fill(False))),
        ("map ids that are used more than once", 1, in_place(lambda s: s.map.id.fill(7))),
        (
            "lights of lanes outside the map",
            1,
            replace(
                straight_road(),
                lights=Lights(np.array([7]), np.zeros((1, 91, 3)), np.ones((1, 91), np.uint8), np.ones((1, 91), bool)),
            ),
        ),
    ],
)
def test_what_is_odd_is_counted_and_shown(what: str, count: int, scene: Scene) -> None:
    check_scene(scene)
    found = {name: number for name, number in doubts(scene) if what in name}
    assert list(found.values()) == [count]
    assert any(row == "odd" and what in text for row, text in summarise(scene))


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (replace(crossing(), routes=Routes(Csr.from_lists([[0], [9], []]), np.ones(3, np.uint8))), "routes: an entry"),
        (replace(crossing(), routes=Routes(Csr.from_lists([[0]]), np.ones(3, np.uint8))), "1 routes for 3 agents"),
        (
            replace(crossing(), map=replace(crossing().map, links=replace(crossing().map.links, left=Csr.empty(2)))),
            "the links left: `start` does not cut",
        ),
        (
            replace(crossing(), map=replace(crossing().map, speed_limit=np.full(4, -1, np.float32))),
            "a speed limit is negative",
        ),
        (replace(crossing(), agents=replace(crossing().agents, source_id=("a",))), "as many source ids as agents"),
    ],
)
def test_links_routes_limits_and_names_that_do_not_fit_are_refused(scene: Scene, message: str) -> None:
    with pytest.raises(BadScene, match=f"scene crossing: .*{message}"):
        check_scene(scene)
