"""nuPlan logs and SMARTS traffic histories: agents without a map, from SQLite files that nobody vouches for."""

import gzip
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.datasets import read_file, read_scenes
from traj_diffusion.datasets.readers import database
from traj_diffusion.errors import BadFile, BadRecord
from traj_diffusion.geometry import wrap_angle
from traj_diffusion.scene import AgentKind, LightState, Scene
from traj_diffusion.testing import crossing, straight_road
from traj_diffusion.testing.foreign import write_nuplan, write_smarts

Writer = Callable[[Path, Scene], Path]


def test_a_made_nuplan_log_comes_back_with_the_ego_at_its_centre(tmp_path: Path) -> None:
    wanted = crossing()
    (scene,) = read_file(write_nuplan(tmp_path / "x.db", wanted))
    assert (scene.id, scene.current_index, scene.steps, scene.dt, scene.ego) == ("x.0", 10, 91, 0.1, 0)
    order = [wanted.ego or 0, *(row for row in range(len(wanted.agents)) if row != wanted.ego)]
    theirs = wanted.agents
    assert np.array_equal(scene.agents.kind, theirs.kind[order])
    assert np.array_equal(scene.agents.valid[1:], theirs.valid[order[1:]])
    valid = theirs.valid[order]
    assert scene.agents.position[valid] == pytest.approx(theirs.position[order][valid], abs=1e-9)
    assert scene.agents.heading[valid] == pytest.approx(theirs.heading[order][valid], abs=1e-6)
    assert scene.agents.velocity[valid] == pytest.approx(theirs.velocity[order][valid], abs=1e-6)
    assert np.array_equal(scene.agents.size[1:], theirs.size[order[1:]])
    assert np.array_equal(scene.lights.lane_id, wanted.lights.lane_id)
    assert np.array_equal(scene.lights.state, wanted.lights.state)
    assert np.array_equal(scene.lights.observed, wanted.lights.observed)
    assert not len(scene.map)
    assert dict(scene.report)["no map in a nuPlan database, agents only"] == 1


def test_of_each_tenth_of_a_second_the_nearest_sweep_is_taken(tmp_path: Path) -> None:
    path = write_nuplan(tmp_path / "x.db", straight_road(speeds=(8.0,), steps=20), rate=2)
    changed = sqlite3.connect(path)
    # Sweep 6 is the one of step 3. 20 ms late it is still the nearest; without 9 to 11 step 5 is empty.
    changed.execute("UPDATE lidar_pc SET timestamp = timestamp + 20000 WHERE token = ?", ((6).to_bytes(4, "big"),))
    for sweep in (9, 10, 11):
        changed.execute("DELETE FROM lidar_pc WHERE token = ?", (sweep.to_bytes(4, "big"),))
    changed.commit()
    changed.close()
    (scene,) = read_file(path)
    assert np.flatnonzero(~scene.agents.valid[0]).tolist() == [5]
    assert scene.agents.position[0, 3, 0] == pytest.approx((3 - 10) * 0.8)
    assert dict(scene.report)["steps without a sweep, nobody valid there"] == 1


def test_a_made_history_comes_back_with_headings_from_east(tmp_path: Path) -> None:
    wanted = crossing()
    (scene,) = read_file(write_smarts(tmp_path / "x.shf", wanted))
    agents, theirs = scene.agents, wanted.agents
    valid = theirs.valid
    assert (scene.id, scene.current_index, scene.dt, scene.ego) == ("x.0", 10, 0.1, wanted.ego)
    assert np.array_equal(agents.valid, valid)
    assert np.array_equal(agents.kind, theirs.kind)
    assert np.array_equal(agents.position[valid][:, :2], theirs.position[valid][:, :2])
    assert np.abs(wrap_angle(agents.heading[valid] - theirs.heading[valid])).max() < 1e-6
    assert agents.velocity[valid] == pytest.approx(theirs.velocity[valid], abs=1e-5)
    assert np.array_equal(agents.size[valid][:, :2], theirs.size[valid][:, :2])
    assert agents.size[agents.kind == AgentKind.VEHICLE, 10, 2] == pytest.approx(1.6)
    assert dict(scene.report) == {
        "no map in a traffic history, agents only": 1,
        "agents without a height, the usual one of their type assumed": 3,
    }


@pytest.mark.parametrize(("write", "name"), [(write_nuplan, "x.db"), (write_smarts, "x.shf")])
def test_a_long_recording_is_cut_into_windows_and_gzip_is_unpacked(write: Writer, name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, straight_road(steps=200))
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    for scenes in (list(read_file(path)), list(read_file(packed / f"{name}.gz"))):
        assert [scene.id for scene in scenes] == ["x.0", "x.91"]
        assert [scene.steps for scene in scenes] == [91, 91]
        assert dict(scenes[1].report)["steps at the end, too few for a window, dropped"] == 18
        assert scenes[1].agents.position[0, 0, 0] - scenes[0].agents.position[0, 90, 0] == pytest.approx(
            scenes[0].agents.position[0, 1, 0] - scenes[0].agents.position[0, 0, 0]
        )


@pytest.mark.parametrize(
    ("write", "name", "change", "error", "message"),
    [
        (write_nuplan, "x.db", "ALTER TABLE lidar_box DROP COLUMN yaw", BadFile, "no such column: yaw"),
        (write_nuplan, "x.db", "DELETE FROM lidar_pc", BadRecord, "no sweeps with a pose"),
        (write_nuplan, "x.db", "UPDATE lidar_box SET x = NULL", BadRecord, "position is"),
        (write_nuplan, "x.db", "UPDATE lidar_pc SET timestamp = 0 WHERE rowid = 1", BadRecord, "states are read"),
        (write_nuplan, "x.db", "UPDATE traffic_light_status SET lane_connector_id = 'a'", BadRecord, "no number"),
        (write_smarts, "x.shf", "DELETE FROM Trajectory", BadRecord, "no states"),
        (write_smarts, "x.shf", "UPDATE Trajectory SET sim_time = 1e308 WHERE rowid = 5", BadRecord, "of seconds"),
        (write_smarts, "x.shf", "UPDATE Trajectory SET sim_time = 1e8 WHERE rowid = 5", BadRecord, "states are read"),
        (write_smarts, "x.shf", "UPDATE Trajectory SET heading_rad = 'n'", BadRecord, "could not convert"),
        (write_smarts, "x.shf", "UPDATE Vehicle SET id = 1", BadRecord, "more than once"),
    ],
)
def test_what_is_broken_is_one_error(
    write: Writer, name: str, change: str, error: type[BadFile], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, crossing())
    changed = sqlite3.connect(path)
    changed.execute(change)
    changed.commit()
    changed.close()
    with pytest.raises(error, match=rf"(?s)x\.\w+.*{message}"):
        list(read_file(path))


FOREVER = "WITH RECURSIVE n(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM n) SELECT count(a) FROM n"


def test_a_query_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MAX_STEPS", 3_000_000)
    path = write_smarts(tmp_path / "x.shf", straight_road(steps=15))
    with (
        pytest.raises(BadFile, match=r"x\.shf: not a readable SQLite file \(interrupted"),
        database.connect(path) as opened,
    ):
        opened.execute(FOREVER).fetchall()


def test_a_view_in_place_of_a_table_is_not_looked_at(tmp_path: Path) -> None:
    path = write_smarts(tmp_path / "x.shf", straight_road(steps=15))
    changed = sqlite3.connect(path)
    changed.execute("DROP TABLE Trajectory")
    changed.execute(f"CREATE VIEW Trajectory AS {FOREVER}")
    changed.commit()
    changed.close()
    with pytest.raises(BadFile, match="not in a format"):
        list(read_file(path))


@pytest.mark.data
def test_the_recorded_nuplan_log_is_seven_windows(shared: Path) -> None:
    scenes = list(read_scenes(shared / "data" / "nuplan_db"))
    assert [scene.id.rsplit(".", 1)[1] for scene in scenes] == [str(91 * number) for number in range(7)]
    assert dict(scenes[-1].report)["steps at the end, too few for a window, dropped"] == 3
    red = scenes[0].lights.state[scenes[0].lights.observed]
    assert len(red) == 33
    assert (red == LightState.STOP).all()
    for scene in scenes:
        assert scene.ego == 0
        assert scene.agents.valid[0].all()
        step = np.diff(scene.agents.position[0, :, :2], axis=0)
        off = scene.agents.velocity[0, 1:] - step / 0.1
        assert np.hypot(*off.T).mean() < 0.5
        # Only the rear axle moves where the car points, in bends.
        heading = scene.agents.heading[0]
        axle = scene.agents.position[0, :, :2] - 1.461 * np.stack([np.cos(heading), np.sin(heading)], -1)
        step = np.diff(axle, axis=0)
        moving = np.hypot(*step.T) > 0.3
        assert np.cos(heading[1:] - np.arctan2(step[:, 1], step[:, 0]))[moving].mean() > 0.999


@pytest.mark.data
def test_the_recorded_history_drives_where_its_headings_point(shared: Path) -> None:
    (scene,) = read_scenes(shared / "data" / "ngsim" / "ngsim_i80_smarts" / "50_actors_i80_0400-0415.shf")
    agents = scene.agents
    assert (len(agents), scene.steps, scene.current_index) == (50, 91, 10)
    assert agents.valid.all()
    step = np.diff(agents.position[..., :2], axis=1)
    moving = np.hypot(*np.moveaxis(step, -1, 0)) > 0.3
    off = agents.heading[:, 1:][moving] - np.arctan2(step[..., 1], step[..., 0])[moving]
    assert np.cos(off).mean() > 0.999
    assert np.abs(agents.velocity[:, 1:] - step / 0.1)[moving].mean() < 0.1
