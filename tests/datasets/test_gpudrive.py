"""GPUDrive and Nocturne JSON: both schemas, and what each leaves out."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import list_sources, read_file
from traj_diffusion.datasets.readers.gpudrive import document_to_scene
from traj_diffusion.errors import BadFile, BadRecord
from traj_diffusion.scene import LineType, MapKind, Origin, Scene
from traj_diffusion.testing import straight_road


def document(scene: Scene, newer: bool = True) -> dict[str, Any]:
    """Return a scene as such a file has it: the newer schema in radians, the older one in degrees."""
    agents = scene.agents
    objects = []
    for row in range(len(agents)):
        valid = agents.valid[row]
        unit = 1.0 if newer else 180 / np.pi
        entry = {
            "position": [
                dict(zip("xyz" if newer else "xy", xyz.tolist() if ok else [-10000.0] * 3, strict=False))
                for xyz, ok in zip(agents.position[row], valid, strict=True)
            ],
            "velocity": [
                {"x": float(v[0]) if ok else -10000.0, "y": float(v[1]) if ok else -10000.0}
                for v, ok in zip(agents.velocity[row], valid, strict=True)
            ],
            "heading": [float(h) * unit if ok else -10000.0 for h, ok in zip(agents.heading[row], valid, strict=True)],
            "valid": valid.tolist(),
            "length": float(agents.size[row, 0, 0]),
            "width": float(agents.size[row, 0, 1]),
            "type": "vehicle",
        }
        objects.append(entry | ({"id": int(agents.id[row]), "height": 1.5} if newer else {}))
    roads = [
        {"type": "road_line", "map_element_id": 9, "id": 4, "geometry": [{"x": 0, "y": 0}, {"x": 9, "y": 0}]},
        {"type": "stop_sign", "map_element_id": 17, "id": 9, "geometry": [{"x": 8, "y": 8, "z": 1.5}]},
        {"type": "volcano", "id": 10, "geometry": []},
    ]
    result = {"name": "some.json", "objects": objects, "roads": roads, "tl_states": {}}
    if newer:
        metadata = {"sdc_track_index": 1, "tracks_to_predict": [{"track_index": 0, "difficulty": 0}]}
        result |= {"scenario_id": "abc", "metadata": metadata}
    return result


def read(tmp_path: Path, content: object) -> Scene:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    (scene,) = read_file(path)
    return scene


def turned(heading: float, speed: float = 8.0) -> Scene:
    """Return the straight road with its cars driving in another direction."""
    scene = straight_road(speeds=(speed, speed / 2))
    time = (np.arange(91) - 10) * 0.1
    for row, v in enumerate((speed, speed / 2)):
        scene.agents.position[row, :, 0] = v * np.cos(heading) * time
        scene.agents.position[row, :, 1] = v * np.sin(heading) * time
    scene.agents.heading[:] = heading
    scene.agents.valid[1, 50:] = False
    return scene


def test_the_newer_schema_is_read_whole(tmp_path: Path) -> None:
    wanted = turned(2.0)
    scene = read(tmp_path, document(wanted))
    assert (scene.id, scene.ego, scene.current_index, scene.dt) == ("abc", 1, 10, 0.1)
    assert scene.agents.to_predict.tolist() == [True, False]
    assert np.array_equal(scene.agents.valid, wanted.agents.valid)
    valid = wanted.agents.valid
    assert np.array_equal(scene.agents.position[valid], wanted.agents.position[valid])
    assert np.array_equal(scene.agents.heading[valid], wanted.agents.heading[valid])
    assert scene.map.kind.tolist() == [MapKind.ROAD_LINE, MapKind.STOP_SIGN]
    assert scene.map.subtype[0] == LineType.BROKEN_SINGLE_YELLOW
    assert scene.map.polyline(1).tolist() == [[8, 8, 1.5]]
    assert scene.map.links.origin == Origin.ABSENT
    assert dict(scene.report) == {"map features of no known kind, dropped": 1}


def test_sentinels_become_zero_where_a_state_is_invalid(tmp_path: Path) -> None:
    agents = read(tmp_path, document(turned(1.0))).agents
    for values in (agents.position, agents.velocity, agents.heading, agents.size):
        assert not values[1, 50:].any()


@pytest.mark.parametrize(
    ("heading", "speed"),
    # A reversing car that faces pi is left out: forwards at 3.14 degrees is the same motion.
    [(h, 8.0) for h in (-7.5, -3.0, -1.2, 0.03, 0.8, 2.5, np.pi, 6.0, 9.0)]
    + [(h, -3.0) for h in (-7.5, -1.2, 0.8, 9.0)],
)
def test_degrees_are_told_from_radians_by_the_motion(heading: float, speed: float, tmp_path: Path) -> None:
    # Forwards and backwards: `turned` moves the cars along their heading by a signed speed.
    wanted = turned(heading, speed)
    for newer in (True, False):
        scene = read(tmp_path, document(wanted, newer))
        assert scene.agents.heading[0] == pytest.approx(heading, abs=1e-6), newer


def test_where_nobody_moves_magnitude_decides_and_the_report_says_so(tmp_path: Path) -> None:
    scene = read(tmp_path, document(turned(1.5, speed=0.0), newer=False))
    assert scene.agents.heading[0] == pytest.approx(1.5, abs=1e-6)
    assert "unit of headings not to be told from motion, judged by magnitude" in dict(scene.report)


def test_what_the_older_schema_lacks_is_filled_and_counted(tmp_path: Path) -> None:
    content = document(turned(2.0), newer=False)
    for road in content["roads"]:
        del road["id"]
    scene = read(tmp_path, content)
    assert (scene.id, scene.ego, scene.agents.id.tolist()) == ("some", None, [0, 1])
    assert scene.agents.size[0, 0, 2] == pytest.approx(1.6)
    assert len(scene.report) == 4


def test_a_scene_of_one_step_and_one_without_agents_are_read() -> None:
    content = document(turned(1.0))
    content["objects"], content["metadata"] = [], {}
    assert len(document_to_scene(content, "x").agents) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("roads"), "not in a format|no entry 'roads'"),
        (lambda d: d["objects"][1].pop("length"), "no entry 'length'"),
        (lambda d: d["objects"][1]["heading"].pop(), "object 1: its lists have .90, 91. entries"),
        (lambda d: d["objects"][1]["valid"].__setitem__(0, 2), "object 1: its `valid`"),
        (lambda d: d["objects"][1].update(id=1), "more than once"),
        (lambda d: d["objects"][1].update(id="7"), "no integer"),
        (lambda d: d["objects"][0]["position"][3].update(x=float("nan")), "position is"),
        (lambda d: d["objects"][0]["position"][3].update(x="here"), "could not convert"),
        (lambda d: d["metadata"].update(sdc_track_index=2), "metadata names object 2, found are 2"),
        (lambda d: d["roads"][0].update(geometry=None), "object|NoneType"),
        (lambda d: d.update(objects=[7]), "object"),
    ],
)
def test_what_is_broken_is_one_error_that_names_the_file(change: Any, message: str, tmp_path: Path) -> None:
    content = document(turned(1.0))
    change(content)
    with pytest.raises(BadRecord, match=rf"(?s)x\.json, record 0: .*({message})"):
        read(tmp_path, content)


def test_cut_and_oversized_files_are_refused(tmp_path: Path) -> None:
    text = json.dumps(document(turned(1.0))).encode()
    path = tmp_path / "x.json"
    for content, message in [
        (text[:-9], "not readable JSON"),
        (gzip.compress(text)[:-9], "cannot be read"),
        (gzip.compress(text + b" " * 70 * 2**20, 1), "too many for one recording"),
    ]:
        path.write_bytes(content)
        with pytest.raises(BadFile, match=message):
            list(read_file(path))


@pytest.mark.data
def test_every_recorded_file_is_read_and_headings_lie_along_the_motion(shared: Path) -> None:
    for entry in list_sources(shared / "data" / "gpudrive_json")[::6]:
        (scene,) = read_file(entry.file)
        agents = scene.agents
        step = np.diff(agents.position[..., :2], axis=1)
        moving = agents.valid[:, 1:] & agents.valid[:, :-1] & (np.hypot(*np.moveaxis(step, -1, 0)) > 0.5)
        moving &= (agents.kind == 1)[:, None]
        off = agents.heading[:, 1:][moving] - np.arctan2(step[..., 1], step[..., 0])[moving]
        # Slow cars jitter and turn; headings in the wrong unit would come out near 0.
        assert len(off) < 50 or np.cos(off).mean() > 0.9, entry.file.name
