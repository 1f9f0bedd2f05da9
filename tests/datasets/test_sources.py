"""SCENES: files, folders, lists and the bundled ones, recognised by content."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.datasets import Entry, list_sources, read_file, read_scenes, sources
from traj_diffusion.datasets.summary import summarise
from traj_diffusion.datasets.womd_writer import write_womd
from traj_diffusion.errors import BadFile
from traj_diffusion.scene import Rollouts, save_scene
from traj_diffusion.testing import crossing, make_scene, straight_road


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two scenes in a TFRecord, one of our own files in a subfolder, and things that are no scenes."""
    write_womd(tmp_path / "b", [straight_road(), crossing()])
    save_scene(straight_road(scene_id="own"), tmp_path / "a" / "x.bin")
    (tmp_path / "README.md").write_text("about these scenes")
    (tmp_path / ".hidden.tfrecord").write_bytes(b"")
    return tmp_path


def ids(source: object) -> list[str]:
    return [scene.id for scene in read_scenes(source)]  # type: ignore[arg-type]


def test_a_folder_is_read_sorted_and_by_content_whatever_the_names(folder: Path) -> None:
    assert list_sources(folder) == [Entry(folder / "a" / "x.bin"), Entry(folder / "b")]
    assert ids(folder) == ids(str(folder)) == ["own", "made", "crossing"]


def test_one_file_is_read_by_its_path_as_text_too(folder: Path) -> None:
    assert [scene.id for scene in read_file(str(folder / "b"))] == ["made", "crossing"]
    with pytest.raises(BadFile, match=r"README\.md: not in a format"):
        next(read_file(str(folder / "README.md")))


def test_a_gzip_file_needs_no_ending(folder: Path) -> None:
    (folder / "c").write_bytes(gzip.compress((folder / "b").read_bytes()))
    assert ids(folder / "c") == ["made", "crossing"]


def test_a_list_is_read_in_its_own_order_relative_to_its_folder(folder: Path) -> None:
    rows = [
        {"file": "b", "id": "crossing", "third": 2},
        {"file": "b", "id": "made"},
        {"file": "a/x.bin", "id": "own"},
        {"file": "b"},
    ]
    (folder / "list.json").write_text(json.dumps(rows))
    assert ids(folder / "list.json") == ["crossing", "made", "own", "made", "crossing"]


def test_the_rest_of_a_list_can_be_read_for_resuming(folder: Path) -> None:
    entries = [Entry(folder / "b", "made"), Entry(folder / "b", "crossing"), Entry(folder / "a" / "x.bin")]
    assert ids(entries[1:]) == ["crossing", "own"]


def test_an_id_that_is_asked_for_twice_comes_twice(folder: Path) -> None:
    assert ids([Entry(folder / "b", "made"), Entry(folder / "b", "made")]) == ["made", "made"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{}]", r"entry 0: wanted is \{'file'"),
        ('[{"file": "b", "id": 7}]', "an id is text, found 7"),
        ('["b"]', "entry 0"),
        ("[", "not a JSON list"),
        ("[" * 100_000, "not a JSON list"),
        ('[{"file": "b", "id": "absent"}]', "holds no scene 'absent'"),
        ('[{"file": "absent", "id": "made"}]', "absent: cannot be read"),
    ],
)
def test_a_list_that_is_wrong_is_one_clear_error(folder: Path, text: str, message: str) -> None:
    (folder / "list.json").write_text(text)
    with pytest.raises(BadFile, match=message):
        ids(folder / "list.json")


def test_an_unknown_format_names_the_known_ones(folder: Path) -> None:
    with pytest.raises(BadFile, match=r"README\.md: .*WOMD Scenario TFRecord, .*GPUDrive or Nocturne JSON"):
        ids(folder / "README.md")


def test_a_broken_file_that_is_named_like_scenes_is_not_passed_over(folder: Path) -> None:
    (folder / "lost.tfrecord-00000-of-00001").write_bytes(b"")
    with pytest.raises(BadFile, match=r"lost\.tfrecord.*named like scenes"):
        list_sources(folder)


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="none of its 0 files"):
        list_sources(tmp_path)
    with pytest.raises(BadFile, match="no such file or folder"):
        list_sources(tmp_path / "absent")


def test_rollouts_in_the_same_folder_are_passed_over(folder: Path) -> None:
    scene = straight_road()
    agents = scene.agents
    Rollouts(
        scene_id="made",
        first_step=11,
        dt=0.1,
        agent_id=agents.id,
        kind=agents.kind,
        position=agents.position[None, :, 11:],
        heading=agents.heading[None, :, 11:],
        valid=agents.valid[None, :, 11:],
    ).save(folder)
    assert ids(folder) == ["own", "made", "crossing"]


def test_bundled_scenes_come_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "files", lambda package: tmp_path)
    with pytest.raises(BadFile, match="no bundled scenes"):
        list_sources("bundled")
    save_scene(crossing(), tmp_path / "bundled" / "crossing.scene.npz")
    assert ids("bundled") == ["crossing"]


@pytest.mark.data
def test_the_148_development_scenes_are_what_their_list_says(shared: Path) -> None:
    path = shared / "data" / "dev_scenes.json"
    rows = json.loads(path.read_text())[::7]
    for row in rows:
        (scene,) = read_scenes([Entry(path.parent / row["file"], row["id"])])
        assert scene.id == row["id"]
        found = {
            "tracks": len(scene.agents),
            "sim_agents": len(scene.sim_agents),
            "tracks_to_predict": int(scene.agents.to_predict.sum()),
            "light_steps": int(scene.lights.observed.any(0).sum()),
        }
        assert found == {name: row[name] for name in found}, row["id"]
    assert len(list_sources(path)) == 148


def test_files_are_read_one_scene_at_a_time(folder: Path) -> None:
    damaged = (folder / "b").read_bytes()[:-1]
    (folder / "b").write_bytes(damaged)
    scenes = read_file(folder / "b")
    assert next(scenes).id == "made"
    with pytest.raises(BadFile, match="record 1"):
        next(scenes)


def test_a_summary_says_what_a_scene_holds() -> None:
    rows = dict(summarise(crossing()))
    assert rows["agents now"] == "3: 2 vehicle, 1 pedestrian"
    assert rows["map: lane"] == "3, 0.40 km"  # 92 m and 108 m of road from west to east, 200 m from south to north
    assert rows["map: crosswalk"] == "1"
    assert rows["lights"] == "1 signals; 91 states: 91 stop"
    assert rows["lane links"] == "recorded: 1 successors, 1 predecessors, 0 left, 0 right"
    assert rows["speed limits"] == "on 0 of 3 lanes"
    assert rows["routes"] == "3 absent"
    assert dict(summarise(make_scene(np.zeros((0, 2)), np.zeros((0, 2)))))["map"] == "no features"
