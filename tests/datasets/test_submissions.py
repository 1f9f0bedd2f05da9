"""Submissions: our codec speaks protobuf's language, and what the challenge would refuse is refused here first."""

import gzip
import importlib.util
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from traj_diffusion.datasets import read_scenes
from traj_diffusion.datasets.submissions import (
    Declaration,
    check_rollouts,
    decode_rollouts,
    encode_rollouts,
    read_submission,
    write_submission,
)
from traj_diffusion.errors import BadConfig, BadFile, BadRecord, BadRollouts
from traj_diffusion.evaluation.official import official_python
from traj_diffusion.metrics import wosac
from traj_diffusion.scene import Rollouts, Scene
from traj_diffusion.testing import straight_road

DECLARATION = Declaration(
    account_name="somebody@example.org",
    unique_method_name="method",
    authors=("A", "B"),
    num_model_parameters="200K",
    uses_lidar_data=False,
    uses_camera_data=False,
    uses_public_model_pretraining=False,
    acknowledge_complies_with_closed_loop_requirement=True,
)
ROAD = straight_road((10.0, 8.0, 6.0))


def made(generation: bool = False, scene: Scene = ROAD, seed: int = 1) -> Rollouts:
    """Rollouts whose values are float32, so that nothing is lost in a file."""
    rng = np.random.default_rng(seed)
    steps, agents = 91 if generation else 80, len(scene.sim_agents)
    shape = (32, agents, steps)
    return Rollouts(
        scene_id=scene.id,
        first_step=0 if generation else 11,
        dt=0.1,
        agent_id=scene.agents.id[scene.sim_agents],
        kind=scene.agents.kind[scene.sim_agents],
        position=rng.normal(0, 1e4, (*shape, 3)).astype(np.float32).astype(np.float64),
        heading=rng.normal(0, 3, shape).astype(np.float32),
        valid=np.ones(shape, bool),
        size=rng.uniform(1, 5, (32, agents, 3)).astype(np.float32) if generation else None,
    )


def same(a: Rollouts, b: Rollouts) -> bool:
    arrays = ("agent_id", "position", "heading", "valid")
    sizes = (a.size is None and b.size is None) or np.array_equal(a.size, b.size)
    return (
        (a.scene_id, a.first_step) == (b.scene_id, b.first_step)
        and sizes
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)
    )


def google_messages(packed: bool = True) -> dict[str, Any]:
    """Google's own classes, made from the field numbers of sim_agents_submission.proto."""
    floats = (
        ("center_x", 2),
        ("center_y", 3),
        ("center_z", 4),
        ("heading", 5),
        ("width", 7),
        ("length", 8),
        ("height", 9),
    )
    file = descriptor_pb2.FileDescriptorProto(name="submission.proto", package="w", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto

    def add(message: Any, name: str, number: int, kind: int, repeated: bool = False, of: str = "") -> None:
        label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        field = message.field.add(name=name, number=number, type=kind, label=label, type_name=of or None)
        if repeated and kind in (kinds.TYPE_FLOAT, kinds.TYPE_BOOL):
            field.options.packed = packed

    trajectory = file.message_type.add(name="SimulatedTrajectory")
    for name, number in floats:
        add(trajectory, name, number, kinds.TYPE_FLOAT, True)
    add(trajectory, "object_id", 6, kinds.TYPE_INT32)
    add(trajectory, "object_type", 10, kinds.TYPE_INT32)
    add(trajectory, "valid", 11, kinds.TYPE_BOOL, True)
    joint = file.message_type.add(name="JointScene")
    add(joint, "simulated_trajectories", 1, kinds.TYPE_MESSAGE, True, ".w.SimulatedTrajectory")
    scenario = file.message_type.add(name="ScenarioRollouts")
    add(scenario, "scenario_id", 1, kinds.TYPE_STRING)
    add(scenario, "joint_scenes", 2, kinds.TYPE_MESSAGE, True, ".w.JointScene")
    whole = file.message_type.add(name="Submission")
    add(whole, "scenario_rollouts", 1, kinds.TYPE_MESSAGE, True, ".w.ScenarioRollouts")
    add(whole, "submission_type", 2, kinds.TYPE_INT32)
    for name, number in (("account_name", 3), ("unique_method_name", 4), ("num_model_parameters", 12)):
        add(whole, name, number, kinds.TYPE_STRING)
    add(whole, "authors", 5, kinds.TYPE_STRING, True)
    for name, number in (("uses_lidar_data", 9), ("acknowledge_complies_with_closed_loop_requirement", 14)):
        add(whole, name, number, kinds.TYPE_BOOL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"w.{name}"))
        for name in ("ScenarioRollouts", "Submission")
    }


@pytest.fixture(scope="module")
def messages() -> dict[str, Any]:
    return google_messages()


@pytest.mark.parametrize("generation", [False, True])
def test_what_is_encoded_is_decoded(generation: bool) -> None:
    rollouts = made(generation)
    back = decode_rollouts(encode_rollouts(rollouts))
    assert same(back, rollouts)
    if generation:
        assert back.kind.tolist() == rollouts.kind.tolist()


def test_googles_parser_reads_the_same_and_writes_the_same_bytes(messages: dict[str, Any]) -> None:
    rollouts = made()
    ours = encode_rollouts(rollouts)
    theirs = messages["ScenarioRollouts"].FromString(ours)
    assert theirs.scenario_id == ROAD.id
    assert len(theirs.joint_scenes) == 32
    trajectory = theirs.joint_scenes[3].simulated_trajectories[1]
    assert trajectory.object_id == 2
    assert list(trajectory.center_y) == rollouts.position[3, 1, :, 1].tolist()
    assert theirs.SerializeToString() == ours


def test_a_submission_is_split_into_shards_that_are_submissions(tmp_path: Path, messages: dict[str, Any]) -> None:
    scenes = [made(scene=replace(ROAD, id=f"s{i}"), seed=i) for i in range(5)]
    path = write_submission(tmp_path / "out.tar.gz", iter(scenes), DECLARATION, shards=2)
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["submission.binproto-00000-of-00002", "submission.binproto-00001-of-00002"]
        first = messages["Submission"].FromString(archive.extractfile(archive.getmembers()[0]).read())
    assert [scenario.scenario_id for scenario in first.scenario_rollouts] == ["s0", "s2", "s4"]
    assert (first.submission_type, first.account_name, first.authors) == (1, "somebody@example.org", ["A", "B"])
    assert (first.num_model_parameters, first.uses_lidar_data) == ("200K", False)
    assert first.acknowledge_complies_with_closed_loop_requirement
    back = {rollouts.scene_id: rollouts for rollouts in read_submission(path)}
    assert all(same(back[rollouts.scene_id], rollouts) for rollouts in scenes)
    assert [p.name for p in tmp_path.iterdir()] == ["out.tar.gz"]


def test_nothing_is_left_of_a_submission_that_fails(tmp_path: Path) -> None:
    with pytest.raises(BadRollouts, match="more than once"):
        write_submission(tmp_path / "out.tar.gz", [made(), made()], DECLARATION, shards=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: replace(r, scene_id=""), "empty"),
        (lambda r: replace(r, position=r.position[:31], heading=r.heading[:31], valid=r.valid[:31]), "31 runs"),
        (lambda r: replace(r, first_step=10), "from step 10"),
        (lambda r: replace(r, agent_id=np.array([1, 1, 2], np.int64)), "repeat"),
        (lambda r: replace(r, agent_id=np.array([1, 2, 4], np.int64)), r"\[3\] are missing and \[4\] are foreign"),
        (lambda r: replace(r, agent_id=np.array([1, 2, 2**40], np.int64)), "32 bits"),
        (lambda r: replace(r, heading=np.full_like(r.heading, np.nan)), "not finite"),
        (lambda r: replace(r, position=np.full_like(r.position, 1e300)), "float32"),
        (lambda r: replace(r, valid=~r.valid), "not there"),
    ],
)
def test_what_the_challenge_cannot_take_is_refused(change: Callable[[Rollouts], Rollouts], message: str) -> None:
    with pytest.raises(BadRollouts, match=message):
        check_rollouts(change(made()), ROAD)
    check_rollouts(made(), ROAD)


@pytest.mark.parametrize(
    "change",
    [
        {"account_name": ""},
        {"authors": ()},
        {"num_model_parameters": "many"},
        {"acknowledge_complies_with_closed_loop_requirement": False},
    ],
)
def test_a_declaration_says_what_it_must(change: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=next(iter(change))):
        replace(DECLARATION, **change)


def test_broken_messages_are_refused(rng: np.random.Generator) -> None:
    whole = encode_rollouts(made())
    for cut in rng.integers(1, len(whole), 20):
        with pytest.raises(BadRecord):
            decode_rollouts(whole[:cut])
    for _ in range(20):
        broken = bytearray(whole)
        for place in rng.integers(len(whole), size=20_000):
            broken[place] = rng.integers(256)
        with pytest.raises(BadRecord):
            decode_rollouts(bytes(broken))


def test_an_agent_that_comes_twice_or_is_missing_is_named(messages: dict[str, Any]) -> None:
    message = messages["ScenarioRollouts"].FromString(encode_rollouts(made()))
    message.joint_scenes[4].simulated_trajectories[0].object_id = 2
    with pytest.raises(BadRecord, match="run 4: agent 2 comes twice"):
        decode_rollouts(message.SerializeToString())
    del message.joint_scenes[4].simulated_trajectories[0]
    with pytest.raises(BadRecord, match="run 4: its agents are not those of run 0"):
        decode_rollouts(message.SerializeToString())


def test_floats_that_are_not_packed_are_read_too() -> None:
    rollouts = made(generation=True)
    packed = encode_rollouts(rollouts)
    loose = google_messages(packed=False)["ScenarioRollouts"].FromString(packed).SerializeToString()
    assert len(loose) > 1.2 * len(packed)
    assert same(decode_rollouts(loose), rollouts)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b broken", gzip.compress(b"x" * 1000)[:-9]])
def test_files_that_are_no_submission_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BadFile):
        list(read_submission(tmp_path / "file"))
    with pytest.raises(BadFile, match="cannot be read"):
        list(read_submission(tmp_path / "none"))


@pytest.mark.data
def test_the_official_test_submission_is_read_written_and_scored(shared: Path) -> None:
    path = shared / "data" / "womd_submission" / "test_submission_637f20cafde22ff8.binproto.gz"
    rollouts = list(read_submission(path))
    assert [item.scene_id for item in rollouts] == ["637f20cafde22ff8"]
    assert rollouts[0].position.shape == (32, 50, 80, 3)
    assert encode_rollouts(rollouts[0]) in gzip.decompress(path.read_bytes())
    scene = next(iter(read_scenes(shared / "data" / "womd" / "raw_637f20cafde22ff8.tfrecord")))
    check_rollouts(rollouts[0], scene)
    score = wosac.score(scene, rollouts[0])
    # Package 1.6.7 on the same file, by tools/official_wosac.py.
    official = {
        "metametric": 0.2582400143146515,
        "linear_speed_likelihood": 0.6471468210220337,
        "linear_acceleration_likelihood": 0.12930943071842194,
        "angular_speed_likelihood": 0.06159553676843643,
        "angular_acceleration_likelihood": 0.30927959084510803,
        "distance_to_nearest_object_likelihood": 0.23723939061164856,
        "collision_indication_likelihood": 0.05286772921681404,
        "time_to_collision_likelihood": 0.7543449401855469,
        "distance_to_road_edge_likelihood": 0.40215301513671875,
        "offroad_indication_likelihood": 0.07356791943311691,
        "traffic_light_violation_likelihood": 0.9999687671661377,
        "average_displacement_error": 2.5052812099456787,
        "min_average_displacement_error": 2.084688663482666,
        "simulated_collision_rate": 0.6875,
        "simulated_offroad_rate": 0.265625,
        "simulated_traffic_light_violation_rate": 0.0,
    }
    assert score.fields == pytest.approx(official, abs=1e-6)
    assert not score.warnings


@pytest.mark.slow
@pytest.mark.parametrize("generation", [False, True])
def test_the_official_validator_takes_our_submission(generation: bool) -> None:
    try:
        official_python()
    except BadConfig as error:
        pytest.skip(str(error))
    path = Path(__file__).resolve().parents[2] / "tools" / "official_wosac.py"
    spec = importlib.util.spec_from_file_location("official_wosac", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    scenes = [replace(ROAD, id=f"s{i}") for i in range(3)]
    config = "scenario_gen_2025" if generation else "sim_agents_2025"
    found = tool.validate([(scene, made(generation, scene)) for scene in scenes], config)
    assert (sorted(found["taken"]), found["refused"]) == (["s0", "s1", "s2"], {})
    # It can say no: rollouts of other agents than the scene has, which our own check would not let pass either.
    other = replace(ROAD, id="s0", agents=replace(ROAD.agents, id=np.array([1, 2, 7], np.int64)))
    found = tool.validate([(other, made(generation, scenes[0]))], config)
    assert found["taken"] == []
    assert "s0" in found["refused"]
