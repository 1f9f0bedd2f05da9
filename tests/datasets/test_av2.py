"""Argoverse 2 forecasting scenarios: parquet and map become a scene whose gaps are filled and counted."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import read_file, read_scenes
from traj_diffusion.errors import BadFile, BadRecord, MissingExtra
from traj_diffusion.scene import AgentKind, LineType, MapKind, Origin, Scene
from traj_diffusion.testing import crossing
from traj_diffusion.testing.foreign import av2_columns, av2_map


@pytest.fixture
def parquet() -> Any:
    return pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: the extra [av2] is not tested")


def write(parquet: Any, folder: Path, columns: dict[str, Any], document: Any) -> Path:
    import pyarrow

    path = folder / "scenario_crossing.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    if document is not None:
        (folder / "log_map_archive_crossing.json").write_text(json.dumps(document))
    return path


def left_of(line: np.ndarray) -> np.ndarray:
    """Return points 0.1 m to the left of the middle of each piece of a line."""
    step = np.diff(line, axis=0)
    return (line[1:] + line[:-1]) / 2 + 0.1 * np.stack([-step[:, 1], step[:, 0]], -1) / np.hypot(*step.T)[:, None]


def test_a_made_scenario_comes_back_with_what_it_lacks_filled_and_counted(parquet: Any, tmp_path: Path) -> None:
    wanted = crossing()
    (scene,) = read_file(write(parquet, tmp_path, av2_columns(wanted), av2_map()))
    agents, valid = scene.agents, wanted.agents.valid
    assert (scene.id, scene.current_index, scene.steps, scene.dt) == ("crossing", 10, 91, 0.1)
    assert scene.ego == wanted.ego
    assert np.array_equal(agents.valid, valid)
    assert np.array_equal(agents.position[valid][:, :2], wanted.agents.position[valid][:, :2])
    assert np.array_equal(agents.heading[valid], wanted.agents.heading[valid])
    assert np.array_equal(agents.velocity[valid], wanted.agents.velocity[valid])
    assert np.array_equal(agents.kind, wanted.agents.kind)
    assert np.array_equal(agents.to_predict, wanted.agents.to_predict)
    assert agents.source_id is not None
    assert "AV" in agents.source_id
    assert (agents.size[agents.kind == AgentKind.VEHICLE, 10, 0] == np.float32(4.1)).all()
    assert not agents.position[..., 2].any()
    assert dict(scene.report) == {
        "links to lanes outside the map, dropped": 1,
        "agents without a size, the usual one of their class assumed": 3,
        "agents and map without heights, laid flat at z = 0": 1,
    }


def test_the_map_has_lanes_lines_a_crossing_and_one_outline_of_all_areas(parquet: Any, tmp_path: Path) -> None:
    (scene,) = read_file(write(parquet, tmp_path, av2_columns(crossing()), av2_map()))
    map_ = scene.map
    kinds = [MapKind.LANE] * 2 + [MapKind.ROAD_LINE] * 2 + [MapKind.CROSSWALK, MapKind.ROAD_EDGE]
    assert map_.kind.tolist() == kinds
    assert map_.id.tolist() == [7, 8, 9, 10, 11, 12]
    assert map_.links.successors[0].tolist() == [1]
    assert map_.links.predecessors[1].tolist() == [0]
    assert map_.subtype[2] == LineType.SOLID_DOUBLE_YELLOW
    # The outline of a crossing does not cut itself: 3 m by 8 m.
    x, y = map_.polyline(4)[:, :2].T
    assert abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2 == pytest.approx(24)
    edge = map_.polyline(5)[:, :2]
    assert map_.edge_origin == Origin.DERIVED
    assert np.hypot(*np.diff(edge, axis=0).T).sum() == pytest.approx(2 * (40 + 8))
    x, y = left_of(edge).T
    assert ((x > 0) & (x < 40) & (y > 0) & (y < 8)).all()


def test_neighbours_share_a_painted_line_once(parquet: Any, tmp_path: Path) -> None:
    document = av2_map()
    other = document["lane_segments"]["8"]
    other["left_lane_boundary"] = document["lane_segments"]["7"]["left_lane_boundary"][::-1]
    (scene,) = read_file(write(parquet, tmp_path, av2_columns(crossing()), document))
    assert len(scene.map.rows(MapKind.ROAD_LINE)) == 1


def test_a_scenario_without_its_map_is_read_and_says_so(parquet: Any, tmp_path: Path) -> None:
    (scene,) = read_file(write(parquet, tmp_path, av2_columns(crossing()), None))
    assert not len(scene.map)
    assert dict(scene.report)["no map file beside the scenario, read without a map"] == 1


def test_without_pyarrow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scenario_x.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"traj-diffusion\[av2\]"):
        next(read_file(path))


def changed(columns: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return columns | {name: [value, *columns[name][1:]]}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c: {k: v for k, v in c.items() if k != "heading"}, BadFile, "no column 'heading'"),
        (lambda c: changed(c, "timestep", -1), BadRecord, "no number of a step"),
        (lambda c: changed(c, "timestep", 10**12), BadRecord, "no number of a step"),
        (lambda c: changed(c, "timestep", 1), BadRecord, "two states at one step"),
        (lambda c: changed(c, "position_x", float("nan")), BadRecord, "position is"),
        (lambda c: c | {"position_x": ["x"] * len(c["heading"])}, BadFile, "not readable parquet"),
        (lambda c: c | {"track_id": list(range(len(c["heading"])))}, BadFile, "'track_id' holds int64, not text"),
        (lambda c: {k: v[:0] for k, v in c.items()}, BadFile, "null|no states"),
    ],
)
def test_broken_columns_are_one_error(
    change: Any, error: type[BadFile], message: str, parquet: Any, tmp_path: Path
) -> None:
    path = write(parquet, tmp_path, change(av2_columns(crossing())), av2_map())
    with pytest.raises(error, match=rf"scenario_crossing\.parquet.*({message})"):
        next(read_file(path))


@pytest.mark.parametrize(
    ("document", "error"),
    [({}, BadRecord), ([], BadRecord), (av2_map() | {"lane_segments": {"7": {}}}, BadRecord), (7, BadRecord)],
)
def test_a_broken_map_is_one_error(document: Any, error: type[BadFile], parquet: Any, tmp_path: Path) -> None:
    path = write(parquet, tmp_path, av2_columns(crossing()), document)
    with pytest.raises(error, match=r"scenario_crossing\.parquet, record 0: its map"):
        next(read_file(path))


@pytest.mark.data
def test_the_recorded_scenarios_are_read(shared: Path, parquet: Any) -> None:
    scenes: list[Scene] = list(read_scenes(shared / "data" / "av2" / "motion_forecasting"))
    assert [len(scene.agents) for scene in scenes] == [40, 73, 58]
    for scene in scenes:
        assert (scene.steps, scene.current_index) == (110, 49)
        assert scene.ego is not None
        ego = scene.agents.position[scene.ego, 49, :2]
        lanes = np.concatenate([scene.map.polyline(int(row)) for row in scene.map.rows(MapKind.LANE)])
        assert np.hypot(*(lanes[:, :2] - ego).T).min() < 3
        step = np.diff(scene.agents.position[..., :2], axis=1)
        moving = scene.agents.valid[:, 1:] & scene.agents.valid[:, :-1] & (np.hypot(*np.moveaxis(step, -1, 0)) > 0.5)
        off = scene.agents.heading[:, 1:][moving] - np.arctan2(step[..., 1], step[..., 0])[moving]
        assert np.cos(off).mean() > 0.99
