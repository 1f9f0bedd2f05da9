"""300 agents and 2,000 polylines, from arrays to a picture: nothing on the way is built for less."""

from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.cli import main
from traj_diffusion.datasets.cache import Cache, CacheShape, prepare_cache
from traj_diffusion.scene import Scene, save_scene

AGENTS, POLYLINES = 300, 2000


@pytest.fixture(scope="module")
def scene() -> Scene:
    rng = np.random.default_rng(8)
    start = rng.uniform(-150, 150, (AGENTS, 1, 2))
    velocity = rng.uniform(-8, 8, (AGENTS, 1, 2))
    begin = rng.uniform(-150, 150, (POLYLINES, 1, 2))
    along = rng.uniform(-1, 1, (POLYLINES, 1, 2)) * np.linspace(0, 15, 20)[:, None]
    return Scene.from_arrays(
        start + velocity * 0.1 * np.arange(91)[:, None],
        dt=0.1,
        kind=[("vehicle", "pedestrian", "cyclist")[row % 3] for row in range(AGENTS)],
        ego=0,
        map_lines=list(begin + along),
        map_kinds=[("lane", "road_line", "road_edge", "crosswalk")[row % 4] for row in range(POLYLINES)],
        scene_id="large",
    )


def test_a_cache_and_a_batch_hold_all_of_it(scene: Scene, tmp_path: Path) -> None:
    path = save_scene(scene, tmp_path / "in" / "large.scene.npz")
    report = prepare_cache([str(path)], tmp_path / "cache")
    assert (report.scenes, report.files[0].agents) == (1, AGENTS)
    shape = CacheShape(agents=AGENTS, pieces=4096, lights=1)
    batch = Cache(tmp_path / "cache", shape).batch(np.array([0, 0]))
    assert batch["valid"][0].all()
    assert batch["valid"].shape[:2] == (2, AGENTS)
    assert batch["map_valid"][0].sum() >= POLYLINES
    order = np.argsort(np.linalg.norm(scene.agents.position[:, 10, :2] - scene.agents.position[0, 10, :2], axis=1))
    near = batch["position"][0, :, 10]
    assert np.linalg.norm(near, axis=1) == pytest.approx(
        np.linalg.norm(scene.agents.position[order, 10, :2] - scene.agents.position[0, 10, :2], axis=1), abs=2e-3
    )


def test_a_smaller_shape_takes_the_nearest(scene: Scene, tmp_path: Path) -> None:
    path = save_scene(scene, tmp_path / "in" / "large.scene.npz")
    prepare_cache([str(path)], tmp_path / "cache")
    batch = Cache(tmp_path / "cache", CacheShape(agents=40, pieces=448, lights=1)).batch(np.array([0]))
    apart = np.sort(np.linalg.norm(scene.agents.position[:, 10, :2] - scene.agents.position[0, 10, :2], axis=1))
    assert np.linalg.norm(batch["position"][0, :, 10], axis=1) == pytest.approx(apart[:40], abs=2e-3)


def test_inspect_lists_and_draws_it(scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, picture = save_scene(scene, tmp_path / "large.scene.npz"), tmp_path / "large.png"
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(path), "--picture", str(picture)])
    assert not ended.value.code
    assert "300: 100 vehicle, 100 pedestrian, 100 cyclist" in capsys.readouterr().out
    assert picture.stat().st_size > 50_000
