"""PNG files: right size, something in them, the same bytes again, and no scene that breaks them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from traj_diffusion.errors import BadRollouts
from traj_diffusion.scene import LightState, Map, MapKind, Rollouts, Scene
from traj_diffusion.testing import crossing, make_map, make_scene, straight_road
from traj_diffusion.viz import colours, save_picture
from traj_diffusion.viz.ground import TOLERANCE, visible_features, zebra

Noisy = Callable[..., Rollouts]


def pixels(path: Path) -> np.ndarray:
    return (imread(path)[..., :3] * 255).round().astype(int)


def count_of(image: np.ndarray, colour: str) -> int:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image - wanted).max(-1) <= 2).sum())


def test_a_picture_has_the_size_asked_for_and_shows_ego_others_and_light(
    tmp_path: Path, noisy: Noisy, rng: np.random.Generator
) -> None:
    scene = crossing(LightState.STOP)
    path = save_picture(tmp_path / "deep" / "a.png", scene, noisy(scene, rng), size=(1300, 700))
    image = pixels(path)
    assert image.shape == (700, 1300, 3)
    middle = image[60:640]  # neither title nor legend
    for colour in (colours.EGO, colours.KIND[1], colours.KIND[2], colours.STOP, colours.ASPHALT):
        assert count_of(middle, colour) > 20, colour
    assert count_of(middle, colours.GO) == 0
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_the_legend_names_only_what_lies_in_the_picture(tmp_path: Path) -> None:
    scene = crossing(LightState.STOP)
    away = replace(scene, lights=replace(scene.lights, stop_point=scene.lights.stop_point + 5e3))
    near, far = (pixels(save_picture(tmp_path / "a.png", one))[-50:] for one in (scene, away))
    assert count_of(near, colours.STOP) > 20
    assert count_of(far, colours.STOP) == 0
    assert count_of(far, colours.KIND[2]) == count_of(near, colours.KIND[2]) > 20


def test_a_box_has_its_size_in_pixels(tmp_path: Path) -> None:
    # 60 m is the least that a picture spans: 1200 pixels then give 20 to the metre, so 4.5 m x 2 m is 90 x 40.
    scene = make_scene(np.zeros((1, 2)), np.array([[0.0, 0.0]]), heading=np.zeros(1))
    image = pixels(save_picture(tmp_path / "a.png", scene, size=(1200, 800)))
    box = np.argwhere(np.abs(image[60:740] - [0xE4, 0x57, 0x2E]).max(-1) <= 2)
    assert np.ptp(box, 0) + 1 == pytest.approx([40, 90], abs=3)


def test_futures_and_record_are_drawn(tmp_path: Path, noisy: Noisy, rng: np.random.Generator) -> None:
    scene = straight_road()
    bare = pixels(save_picture(tmp_path / "a.png", scene.history_only()))[60:-60]
    logged = pixels(save_picture(tmp_path / "b.png", scene))[60:-60]
    planned = pixels(save_picture(tmp_path / "c.png", scene, noisy(scene, rng)))[60:-60]
    ran = pixels(save_picture(tmp_path / "d.png", scene, noisy(scene, rng, futures=None)))[60:-60]
    assert count_of(logged, colours.INK) > count_of(bare, colours.INK) + 100
    warm = [int(((image[..., 0] - image[..., 2]) > 100).sum()) for image in (logged, planned, ran)]
    assert warm[1] > warm[0] + 500
    assert warm[2] > warm[0] + 500


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, noisy: Noisy, rng: np.random.Generator) -> None:
    scene = crossing()
    rollouts = noisy(scene, rng)
    first, again = (save_picture(tmp_path / name, scene, rollouts).read_bytes() for name in ("a.png", "b.png"))
    assert first == again
    assert b"Matplotlib" not in first


@pytest.mark.parametrize("scene_id", ["$\\frac{", "</script>", "\u4e2d\u6587\x00\n", "x" * 500, ""])
def test_no_scene_id_breaks_a_picture(scene_id: str, tmp_path: Path) -> None:
    assert save_picture(tmp_path / "a.png", replace(crossing(), id=scene_id)).stat().st_size > 5000


def none_valid() -> Scene:
    scene = straight_road()
    return replace(scene, agents=replace(scene.agents, valid=np.zeros_like(scene.agents.valid)))


@pytest.mark.parametrize(
    "scene",
    [
        straight_road(speeds=(3.0,)),
        replace(crossing(), map=Map.empty()),
        make_scene(np.zeros((0, 2)), np.zeros((0, 2))),
        none_valid(),
        straight_road(steps=1, current_index=0),
    ],
    ids=["one agent", "no map", "nobody", "nobody valid", "one step"],
)
def test_sparse_scenes_have_pictures(scene: Scene, tmp_path: Path) -> None:
    assert save_picture(tmp_path / "a.png", scene).stat().st_size > 4000


def test_a_crowd_of_300_has_a_picture(
    tmp_path: Path, noisy: Noisy, crowd: Callable[..., Scene], rng: np.random.Generator
) -> None:
    scene = crowd(300)
    image = pixels(save_picture(tmp_path / "a.png", scene, noisy(scene, rng, runs=2, futures=8)))
    assert count_of(image, colours.KIND[1]) > 2000


def test_rollouts_of_another_scene_are_refused(tmp_path: Path, noisy: Noisy, rng: np.random.Generator) -> None:
    scene = crossing()
    rollouts = noisy(scene, rng)
    with pytest.raises(BadRollouts, match="'crossing': cannot be drawn on scene 'made'"):
        save_picture(tmp_path / "a.png", straight_road(), rollouts)
    with pytest.raises(BadRollouts, match="agent 77 is not in the scene"):
        save_picture(tmp_path / "a.png", scene, replace(rollouts, agent_id=np.array([1, 2, 77], np.int64)))
    with pytest.raises(BadRollouts, match="first step is 12"):
        save_picture(tmp_path / "a.png", scene, replace(rollouts, first_step=12))
    assert not list(tmp_path.iterdir())


def test_a_size_that_the_legend_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="300 x 300 pixels"):
        save_picture(tmp_path / "a.png", crossing(), size=(300, 300))


def test_a_crosswalk_of_ten_metres_has_bars_of_half_its_area() -> None:
    # Bars of 0.6 m with gaps of 0.6 m along the longer side; eight full ones fit into 9.6 m.
    bars = zebra(np.array([[0.0, 0], [9.6, 0], [9.6, 3], [0, 3]]))
    assert len(bars) == 8
    for bar in bars:
        assert np.ptp(bar, 0) == pytest.approx([0.6, 3.0])


def test_thinning_moves_no_line_by_more_than_its_tolerance() -> None:
    along = np.linspace(0, 60, 601)
    curve = np.stack([along, 5 * np.sin(along / 9), np.zeros_like(along)], -1)
    ground = make_map([(MapKind.LANE, 2, curve)])
    (feature,) = visible_features(ground, np.array([-1.0, -9]), np.array([61.0, 9]))
    assert len(feature.xy) < 60
    assert (
        np.abs(np.interp(along, *feature.xy.T) - curve[:, 1]).max() <= TOLERANCE * 1.2
    )  # measured upright, not across
    assert visible_features(ground, np.array([100.0, 0]), np.array([200.0, 9])) == []
