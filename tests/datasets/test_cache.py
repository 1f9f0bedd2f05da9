"""What a cache keeps of a scene, how closely, in how many bytes; and what becomes of bytes that were damaged."""

import json
import pickle
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from traj_diffusion.datasets.cache import Cache, CacheShape, pack, write_cache
from traj_diffusion.datasets.cache.codec import MAX_BYTES, Reader, Writer
from traj_diffusion.datasets.cache.compact import (
    ANGLE,
    LINE,
    MAX_PIECES,
    PACE,
    PLACE,
    SIZE,
    CompactMap,
    CompactScene,
    compact_map,
    compact_scene,
)
from traj_diffusion.datasets.cache.shard import _TRAILER, open_shard
from traj_diffusion.datasets.conditioning import cut_map, light_poses, light_rows, route_codes
from traj_diffusion.errors import BadFile, BadRecord, BadScene
from traj_diffusion.scene import Map, MapKind, Scene
from traj_diffusion.testing import busy_scene, make_map, straight_road

SHAPE = CacheShape(agents=16, pieces=64, lights=4)
WHOLE = st.integers(-(2**62), 2**62) | st.integers(-300, 300)


def cached(tmp_path: Path, *scenes: Scene, shape: CacheShape = SHAPE, **options: object) -> Cache:
    write_cache(tmp_path / "cache", scenes)
    return Cache(tmp_path / "cache", shape, **options)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays(np.int64, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9), elements=WHOLE)))
def test_numbers_come_back_as_they_were_put(values: list[np.ndarray]) -> None:
    out = Writer()
    with np.errstate(over="ignore"):  # differences may wrap around, and back
        for number, array in enumerate(values):
            out.put(array, number % 3)
    source = Reader(out.block())
    for number, array in enumerate(values):
        assert np.array_equal(source.take(*array.shape, number % 3), array)
    source.end()


@settings(max_examples=30, deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20)))
def test_truth_values_come_back_as_they_were_put(values: np.ndarray) -> None:
    out = Writer()
    out.put_bits(values)
    assert np.array_equal(Reader(out.block()).take_bits(*values.shape), values)


def test_a_block_that_holds_less_or_more_than_it_says_is_refused() -> None:
    out = Writer()
    out.put(np.arange(6).reshape(2, 3), 2)
    with pytest.raises(ValueError, match="bytes where"):
        Reader(out.block()).take(2, 4, 2)
    with pytest.raises(ValueError, match="more than it says"):
        Reader(out.block()).end()
    with pytest.raises(ValueError, match="damaged"):
        Reader(b"no zlib at all")
    with pytest.raises(ValueError, match="cut off"):
        Reader(out.block()[:-1])


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(MAX_BYTES // 2**20 + 8)) + packer.flush()
    assert len(bomb) < 200_000
    with pytest.raises(ValueError, match="more than"):
        Reader(bomb)


@pytest.mark.parametrize("seed", range(4))
def test_a_sample_is_the_recording_to_within_half_a_unit(seed: int, tmp_path: Path) -> None:
    scene = busy_scene(np.random.default_rng(seed))
    agents, now = scene.agents, scene.current_index
    sample = {name: array[0] for name, array in cached(tmp_path, scene).batch(np.array([0])).items()}
    centre = agents.position[0, now, :2]
    rows = sorted(scene.sim_agents.tolist(), key=lambda r: np.hypot(*(agents.position[r, now, :2] - centre)))
    for slot, row in enumerate(rows):
        valid = agents.valid[row]
        assert np.array_equal(sample["valid"][slot], valid)
        for name, given_, unit in (
            ("position", agents.position[row, :, :2] - centre, 2 * PLACE),  # the centre is one of them
            ("heading", agents.heading[row], ANGLE),
            ("velocity", agents.velocity[row], PACE),
        ):
            miss = np.abs(sample[name][slot][valid] - given_[valid]).max()
            assert miss <= unit / 2 + 1e-5, name
            assert not sample[name][slot][~valid].any()
        assert np.abs(sample["size"][slot] - agents.size[row, now]).max() <= SIZE / 2 + 1e-6
        assert sample["kind"][slot] == agents.kind[row]
    assert not sample["valid"][len(rows) :].any()

    pieces = cut_map(scene.map, centre)
    near = np.sort(np.argsort(np.linalg.norm(pieces.pose[:, :2], axis=-1), kind="stable")[: SHAPE.pieces])
    m = len(near)
    assert sample["map_valid"].sum() == m > 40
    assert np.abs(sample["map_points"][:m] - pieces.points[near]).max() <= LINE / 2 + 1e-5
    assert np.abs(sample["map_pose"][:m, :2] - pieces.pose[near, :2]).max() <= (LINE + PLACE) / 2 + 1e-4
    assert np.abs(sample["map_pose"][:m, 2] - pieces.pose[near, 2]).max() <= ANGLE / 2 + 1e-5
    assert np.abs(sample["map_length"][:m] - pieces.length[near]).max() <= SIZE / 2 + 1e-5
    assert np.array_equal(sample["map_code"][:m], pieces.code[near])
    assert np.array_equal(sample["route"][: len(rows), :m], route_codes(scene.routes, np.array(rows), pieces.row[near]))

    stop, state, ever = scene.lights.last_seen(now)
    poses = light_poses(scene.map, scene.lights.lane_id, stop, centre)
    lights = [light for light in np.argsort(np.linalg.norm(poses[:, :2], axis=-1)) if ever[light]]
    s = len(lights)
    assert s == sample["light_seen"].sum() > 0
    assert np.abs(sample["light_pose"][:s] - poses[lights]).max() <= (LINE + PLACE) / 2 + 1e-4
    assert np.array_equal(sample["light_state"][:s], state[lights])
    of = light_rows(scene.map, scene.lights.lane_id)[lights]
    assert np.array_equal(sample["light_route"][: len(rows), :s], route_codes(scene.routes, np.array(rows), of))


def test_a_cache_gives_what_pack_gives(tmp_path: Path, rng: np.random.Generator) -> None:
    scenes = [busy_scene(rng, scene_id=str(number)) for number in range(3)]
    batch = cached(tmp_path, *scenes).batch(np.array([2, 0]))
    for slot, number in enumerate((2, 0)):
        packed = pack(scenes[number], SHAPE)
        assert all(np.array_equal(batch[name][slot], packed[name]) for name in SHAPE.fields())


@pytest.mark.parametrize("current_index", [0, 4, 49])
def test_whatever_the_current_index_it_comes_to_lie_at_the_eleventh_step(current_index: int) -> None:
    scene = busy_scene(np.random.default_rng(3), steps=110, current_index=current_index)
    sample = pack(scene, SHAPE)
    assert np.array_equal(sample["valid"][:, 10].sum(), len(scene.sim_agents))
    assert np.abs(sample["position"][0, 10]).max() == 0
    history = min(current_index, 10)
    assert sample["valid"][0].sum() == history + min(110 - current_index, 81)
    assert not sample["valid"][:, : 10 - history].any()
    if current_index:
        step = scene.agents.position[0, current_index - 1, :2] - scene.agents.position[0, current_index, :2]
        assert sample["position"][0, 9] == pytest.approx(step, abs=PLACE + 1e-5)


def test_a_long_recording_gives_windows(tmp_path: Path, rng: np.random.Generator) -> None:
    scene = busy_scene(rng, steps=198, current_index=0)
    whole = cached(tmp_path, scene)
    cut = Cache(tmp_path / "cache", SHAPE, window_stride=50)
    assert (len(whole), [cut.scene(row)[1] for row in range(len(cut))]) == (1, [0, 10, 60, 110])
    for row in range(len(cut)):
        now = cut.scene(row)[1]
        packed = pack(replace(scene, current_index=now), SHAPE)
        found = cut.batch(np.array([row]))
        assert cut.agents[row] == packed["valid"][:, 10].sum()
        # The origin of the units is another one, so that the last unit may differ.
        assert np.abs(found["position"][0] - packed["position"]).max() <= 2 * PLACE + 1e-5
        assert np.array_equal(found["light_state"][0], packed["light_state"])


def test_windows_of_one_run_share_their_map(tmp_path: Path, rng: np.random.Generator) -> None:
    one = busy_scene(rng, agents=2, polylines=200)
    copied = replace(one, id="c", map=replace(one.map, points=one.map.points.copy()))  # equal, and not the same object
    write_cache(tmp_path / "one", [one])
    write_cache(tmp_path / "many", [one, replace(one, id="b", current_index=20), copied])
    shard, _ = open_shard(tmp_path / "many" / "000000.shard")
    alone, _ = open_shard(tmp_path / "one" / "000000.shard")
    assert len(shard.maps) == 1
    assert shard.size - alone.size < alone.maps[0, 1]  # two scenes more take less than one map more


def test_a_map_that_is_too_large_is_cut_down_to_what_is_near(tmp_path: Path) -> None:
    grid = [
        (MapKind.LANE, 1, np.array([[x, y], [x + 15.0, y]])) for x in range(0, 1600, 16) for y in range(0, 1600, 16)
    ]
    features = make_map(grid)
    assert len(features) > MAX_PIECES
    first = straight_road(speeds=(5.0,))
    shift = np.array([810.0, 700.0, 0.0])
    near = replace(first, map=features, agents=replace(first.agents, position=first.agents.position + shift))
    later = replace(
        near, id="later", agents=replace(near.agents, position=near.agents.position + np.array([9.0, 40.0, 0]))
    )
    cache = cached(tmp_path, near, later, shape=CacheShape(agents=1, pieces=448, lights=1))
    assert len(open_shard(tmp_path / "cache" / "000000.shard")[0].maps) == 1
    for row, scene in enumerate((near, later)):
        pieces = cut_map(features, scene.agents.position[0, 10, :2])
        far = np.sort(np.linalg.norm(pieces.pose[:, :2], axis=-1))[:448]
        found = np.sort(np.linalg.norm(cache.batch(np.array([row]))["map_pose"][0, :, :2], axis=-1))
        assert found == pytest.approx(far, abs=0.01)


def test_a_scene_of_32_agents_and_256_polylines_takes_less_than_25_kB(tmp_path: Path, rng: np.random.Generator) -> None:
    scene = busy_scene(rng, agents=32, polylines=256)
    cached(tmp_path, scene)
    assert (tmp_path / "cache" / "000000.shard").stat().st_size < 25_000


def test_300_agents_and_2000_polylines_fit(tmp_path: Path, rng: np.random.Generator) -> None:
    scene = busy_scene(rng, agents=300, polylines=2000)
    batch = cached(tmp_path, scene, shape=CacheShape(agents=300, pieces=3000, lights=3)).batch(np.array([0]))
    assert batch["valid"][0, :, 10].sum() == len(scene.sim_agents) > 200
    assert batch["map_valid"].sum() == len(cut_map(scene.map, np.zeros(2))) >= 2000


def test_a_scene_without_map_lights_or_ego_fits(tmp_path: Path) -> None:
    scene = replace(straight_road(), map=Map.empty(), ego=None)
    batch = cached(tmp_path, scene).batch(np.array([0]))
    assert not batch["map_valid"].any()
    assert batch["position"][0, :2, 10].mean(0) == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dt": 0.2}, "time step is 0.2 s"),
        ({"current_index": 5}, "no agent is valid at its current index"),
        ({"agents": 0}, "no agents"),
        ({"steps": 12_000}, "too many"),
    ],
)
def test_what_a_cache_cannot_hold_is_named(change: dict[str, int], why: str) -> None:
    scene = straight_road(speeds=(1.0,) * 90, steps=change.pop("steps", 91))
    scene.agents.valid[:, 5] = False
    if "agents" in change:
        scene = straight_road(speeds=(), **{k: v for k, v in change.items() if k != "agents"})
    else:
        scene = replace(scene, **change)
    with pytest.raises(BadScene, match=why):
        compact_scene(scene)


def test_absurd_values_survive() -> None:
    scene = straight_road(speeds=(1e6, -1e6))
    scene.agents.heading[:] = 1e6
    kept = compact_scene(scene)
    again = CompactScene.unpack(kept.pack(), CompactMap.unpack(kept.map.pack()))
    for name in ("position", "heading", "velocity", "size", "valid", "light_state", "route_row"):
        assert np.array_equal(getattr(again, name), getattr(kept, name)), name


def test_a_cache_can_be_sent_to_another_process(tmp_path: Path, rng: np.random.Generator) -> None:
    cache = cached(tmp_path, busy_scene(rng))
    wanted = cache.batch(np.array([0]))
    found = pickle.loads(pickle.dumps(cache)).batch(np.array([0]))
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_any_flipped_byte_is_noticed_and_shard_and_row_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    scenes = [busy_scene(rng, agents=3, polylines=4, scene_id=str(number)) for number in range(3)]
    cached(tmp_path, *scenes)
    path = tmp_path / "cache" / "000000.shard"
    whole = path.read_bytes()
    named = set()
    for place in [*range(0, len(whole), 97), *range(len(whole) - 40, len(whole))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(BadFile, match=r"000000.shard") as raised:
            Cache(tmp_path / "cache", SHAPE).batch(np.arange(3))
        if isinstance(raised.value, BadRecord):
            named.add(str(raised.value).partition(": ")[0].rpartition(", ")[2])
    assert named == {"row 0 (0)", "row 1 (1)", "row 2 (2)"}


@pytest.mark.parametrize("length", [0, 7, 40, 300, -41, -40, -1])
def test_a_truncated_shard_is_refused(length: int, tmp_path: Path, rng: np.random.Generator) -> None:
    cached(tmp_path, busy_scene(rng))
    path = tmp_path / "cache" / "000000.shard"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BadFile, match="not a whole shard"):
        Cache(tmp_path / "cache")


def test_a_shard_that_changes_under_an_open_cache_is_noticed(tmp_path: Path, rng: np.random.Generator) -> None:
    cache = cached(tmp_path, busy_scene(rng))
    write_cache(tmp_path / "other", [busy_scene(rng, agents=3)])
    (tmp_path / "other" / "000000.shard").replace(tmp_path / "cache" / "000000.shard")
    with pytest.raises(BadFile, match="has changed"):
        cache.batch(np.array([0]))
    with pytest.raises(BadFile, match="the index of the cache says"):
        Cache(tmp_path / "cache")


def test_sizes_that_an_edited_block_claims_are_bounded(rng: np.random.Generator) -> None:
    kept = compact_scene(busy_scene(rng, agents=3, polylines=4))
    block, features = kept.pack(), kept.map.pack()
    for place in range(0, 24):  # the numbers in its head
        edited = block[:place] + b"\x7f" + block[place + 1 :]
        try:
            again = CompactScene.unpack(edited, kept.map)
        except ValueError:
            continue
        assert again.valid.shape == kept.valid.shape
    with pytest.raises(ValueError, match="pieces"):
        CompactMap.unpack(b"\xff\xff\xff\x7f" + features[4:])
    assert compact_map(Map.empty(), np.zeros(2)).pack()


def test_another_version_and_a_folder_that_is_no_cache_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    cached(tmp_path, busy_scene(rng))
    folder = tmp_path / "cache"
    shard = folder / "000000.shard"
    data = bytearray(shard.read_bytes())
    data[-_TRAILER.size + 20] = 9
    shard.write_bytes(data)
    with pytest.raises(BadFile, match="version 9, this release reads 2"):
        Cache(folder)
    shard.unlink()
    with pytest.raises(BadFile, match=r"000000\.shard: cannot be read"):
        Cache(folder)
    (folder / "index.json").write_text(json.dumps({"schema_version": 1, "shape": {}, "ids": []}))
    with pytest.raises(BadFile, match="version 1, this release reads 2"):
        Cache(folder)
    (folder / "index.json").write_text(json.dumps({"schema_version": 2, "shards": [{"name": "../x", "bytes": 1}]}))
    with pytest.raises(BadFile, match="outside the folder"):
        Cache(folder)
    with pytest.raises(BadFile, match="not a finished cache"):
        Cache(tmp_path)
