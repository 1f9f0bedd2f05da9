"""Which samples a step gets, from one cache and from several, and how they are changed on the way."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.datasets.cache import (
    Augment,
    Cache,
    CacheShape,
    Mixture,
    batch_rows,
    load_augment,
    open_caches,
    pack,
    stream,
    write_cache,
)
from traj_diffusion.datasets.cache.augment import alter
from traj_diffusion.datasets.cache.order import mixed_rows
from traj_diffusion.datasets.conditioning import CODES
from traj_diffusion.errors import BadConfig, BadFile
from traj_diffusion.geometry import box_corners, rotate
from traj_diffusion.scene import AgentKind
from traj_diffusion.testing import busy_scene, straight_road

SHAPE = CacheShape(agents=16, pieces=64, lights=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Caches of 5 and of 12 scenes."""
    made = []
    for count in (5, 12):
        made.append(tmp_path_factory.mktemp("caches") / f"of{count}")
        scenes = [busy_scene(np.random.default_rng(i), agents=6, scene_id=f"{count}.{i}") for i in range(count)]
        write_cache(made[-1], scenes)
    return made


def test_an_epoch_visits_every_sample_once() -> None:
    agents = np.arange(40) % 7
    seen = np.concatenate([batch_rows(agents, 4, seed=1, step=step) for step in range(10)])
    assert sorted(seen.tolist()) == list(range(40))
    assert not np.array_equal(batch_rows(agents, 4, 1, 0), batch_rows(agents, 4, 1, 10))


def test_a_mixture_keeps_its_shares_and_visits_every_sample_equally_often() -> None:
    parts = [np.arange(30), np.arange(7), np.arange(100)]
    seen = np.stack([mixed_rows(parts, [6.0, 3.0, 1.0], batch=10, seed=3, step=step) for step in range(64)])
    share = [np.count_nonzero((seen >= low) & (seen < high)) for low, high in ((0, 30), (30, 37), (37, 137))]
    assert share == [384, 192, 64]
    counts = np.bincount(seen.ravel(), minlength=137)
    assert set(counts[:30]) <= {12, 13}
    assert set(counts[30:37]) <= {27, 28}
    assert set(counts[37:]) <= {0, 1}


def test_every_cache_of_a_mixture_is_seen_however_small_its_weight() -> None:
    parts = [np.zeros(5), np.zeros(5)]
    seen = np.concatenate([mixed_rows(parts, [1.0, 1e-9], 4, 0, step) for step in range(32)])
    assert np.count_nonzero(seen >= 5) == 1


def test_a_batch_of_a_mixture_depends_on_seed_and_step_alone(folders: list[Path]) -> None:
    def rows(seed: int, step: int) -> list[int]:
        mixture = Mixture([(Cache(folder, SHAPE), weight) for folder, weight in zip(folders, (1.0, 2.0), strict=True)])
        return mixture.rows(4, seed, step).tolist()

    assert rows(1, 100) == rows(1, 100)
    assert rows(1, 100) != rows(2, 100)
    assert rows(1, 100) != rows(1, 101)


def test_a_mixture_gives_the_samples_of_its_caches(folders: list[Path]) -> None:
    five, twelve = (Cache(folder, SHAPE) for folder in folders)
    mixture = Mixture([(five, 1.0), (twelve, 1.0)])
    batch = mixture.batch(np.array([16, 2, 5]))
    for slot, (cache, row) in enumerate(((twelve, 11), (five, 2), (twelve, 0))):
        alone = cache.batch(np.array([row]))
        assert all(np.array_equal(batch[name][slot], alone[name][0]) for name in alone)
    assert (len(mixture), mixture.agents.tolist()) == (17, [*five.agents, *twelve.agents])


def test_what_cannot_be_mixed_is_refused(folders: list[Path]) -> None:
    five = Cache(folders[0], SHAPE)
    for parts in ([], [(five, 0.0)], [(five, float("nan"))]):
        with pytest.raises(ValueError, match="weights are positive"):
            Mixture(parts)
    with pytest.raises(ValueError, match="one shape"):
        Mixture([(five, 1.0), (Cache(folders[1]), 1.0)])


def test_caches_are_opened_with_weights(folders: list[Path]) -> None:
    assert isinstance(open_caches([str(folders[0])]), Cache)
    mixture = open_caches([f"{folders[0]}=3", str(folders[1])], SHAPE)
    rows = np.concatenate([mixture.rows(4, 0, step) for step in range(32)])
    assert np.count_nonzero(rows < 5) == 96
    for wrong in (f"{folders[0]}=0", f"{folders[0]}=nan"):
        with pytest.raises(BadFile, match="weight that is not a positive number"):
            open_caches([wrong])
    with pytest.raises(BadFile, match="not a finished cache"):
        open_caches([f"{folders[0]}=much"])


def test_a_stream_goes_on_at_any_step(folders: list[Path]) -> None:
    cache = Cache(folders[1], SHAPE, augment=Augment(rotate=True, jitter=1.0))
    whole = list(islice(stream(cache, 3, seed=5), 6))
    later = list(islice(stream(cache, 3, seed=5, first=4), 2))
    for ours, theirs in zip(whole[4:], later, strict=True):
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_how_a_sample_is_changed_depends_on_key_and_row_and_not_on_its_batch(folders: list[Path]) -> None:
    everything = Augment(True, 0.1, 0.3, 0.3, 3.0, 1.0)
    cache, plain = Cache(folders[1], SHAPE, augment=everything), Cache(folders[1], SHAPE)
    one, many = cache.batch(np.array([7]), (1, 2)), cache.batch(np.array([3, 7, 9]), (1, 2))
    assert all(np.array_equal(one[name][0], many[name][1]) for name in one)
    other, unchanged = cache.batch(np.array([7]), (1, 3)), cache.batch(np.array([7]))
    assert not np.array_equal(one["position"], other["position"])
    assert all(np.array_equal(unchanged[name], plain.batch(np.array([7]))[name]) for name in unchanged)


def changed(augment: Augment, seed: int = 0, **scene: object) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return a sample and what became of it."""
    before = pack(busy_scene(np.random.default_rng(seed), **scene), SHAPE)  # type: ignore[arg-type]
    after = {name: array.copy() for name, array in before.items()}
    alter(after, augment, np.random.default_rng(seed))
    return before, after


def test_a_rotation_turns_everything_by_one_angle() -> None:
    before, after = changed(Augment(rotate=True))
    angle = float(after["heading"][0, 10] - before["heading"][0, 10])
    assert abs(angle) > 0.01
    for name in ("position", "velocity"):
        assert after[name] == pytest.approx(rotate(before[name], np.float64(angle)), abs=1e-3)
    for name, valid in (("map_pose", "map_valid"), ("light_pose", "light_seen")):
        mask = before[valid]
        assert after[name][mask][:, 2] - before[name][mask][:, 2] == pytest.approx(angle, abs=1e-4)
        assert after[name][:, :2] == pytest.approx(rotate(before[name][:, :2], np.float64(angle)), abs=1e-3)
    assert not after["heading"][~after["valid"]].any()
    for name in ("valid", "size", "kind", "map_points", "route", "light_state"):
        assert np.array_equal(after[name], before[name])


def test_history_noise_leaves_the_present_and_the_future() -> None:
    before, after = changed(Augment(history_noise=0.5), agents=16)
    valid = before["valid"]
    for name in ("position", "velocity", "heading"):
        assert np.array_equal(after[name][:, 10:], before[name][:, 10:])
        assert not (after[name] - before[name])[~valid].any()
    shift = (after["position"] - before["position"])[:, :10][valid[:, :10]]
    assert shift.std() == pytest.approx(0.5, rel=0.15)


def test_jitter_shakes_what_moves_and_leaves_what_stands() -> None:
    before, after = changed(Augment(jitter=1.0), agents=16, noise=0.0)
    valid = before["valid"]
    seen = [before["position"][row][valid[row]] for row in range(16)]
    moves = np.array([len(track) > 0 and np.ptp(track, axis=0).max() > 0.2 for track in seen])
    assert 3 < moves[valid.any(1)].sum() < valid.any(1).sum()
    shift = after["position"] - before["position"]
    assert not shift[~moves].any()
    assert not shift[~valid].any()
    along = rotate(shift, -before["heading"])[moves[:, None] & valid]
    assert 0.005 < along[:, 0].std() < 0.02
    assert 0.2 < along[:, 1].std() / along[:, 0].std() < 0.6


def test_dropped_agents_make_room_for_others_and_the_ego_stays(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", [straight_road(speeds=(5.0,) * 60, gap=3.0)])
    shape = CacheShape(agents=10, pieces=20, lights=1)
    cache = Cache(tmp_path / "cache", shape, augment=Augment(drop_agents=0.5, drop_pieces=0.9))
    plain = Cache(tmp_path / "cache", shape).batch(np.array([0]))
    kept = [cache.batch(np.array([0]), (step,)) for step in range(20)]
    for sample in kept:
        assert sample["valid"].any(-1).all()  # sixty are there, so thirty stay and ten fit
        assert not np.array_equal(sample["position"][0, :, 10], plain["position"][0, :, 10])
        assert np.abs(sample["position"][0, 0, 10]).max() == 0
        count = int(sample["map_valid"].sum())
        assert sample["map_valid"][0, :count].all()  # packed from the front, as `trimmed` wants
    assert np.mean([sample["map_valid"].sum() for sample in kept]) < 15
    nobody = Cache(tmp_path / "cache", shape, augment=Augment(drop_agents=1.0)).batch(np.array([0]), (1,))
    assert nobody["valid"][0, :, 10].sum() in (1, 2)  # the ego, and one who has to stay


def test_parked_cars_stand_beside_lanes_and_in_nobodys_way() -> None:
    road = straight_road(speeds=(10.0, 8.0))
    before = pack(road, CacheShape(agents=30, pieces=128, lights=1))
    placed = 0
    for seed in range(12):
        after = {name: array.copy() for name, array in before.items()}
        alter(after, Augment(parked=6.0), np.random.default_rng(seed))
        new = np.flatnonzero(after["valid"].any(1) & ~before["valid"].any(1))
        placed += len(new)
        assert after["valid"][new].all()
        assert (after["kind"][new] == AgentKind.VEHICLE).all()
        assert not after["velocity"][new].any()
        assert not after["route"][new].any()
        assert (np.ptp(after["position"][new], axis=1) == 0).all()
        assert np.array_equal(after["position"][:2], before["position"][:2])
        corners = box_corners(
            after["position"][:, 0], after["heading"][:, 0], after["size"][:, 0], after["size"][:, 1]
        )[new]
        assert (np.abs(corners[..., 1]) > 1.0).all()  # the cars that drive are 2 m wide, on y = 0
        assert np.abs(after["position"][new, 0, 1]).max(initial=0) < 9
    assert placed > 40


def test_where_there_is_no_lane_nobody_parks() -> None:
    sample = pack(replace(straight_road(), map=busy_scene(np.random.default_rng(0), polylines=0).map), SHAPE)
    alter(sample, Augment(parked=50.0), np.random.default_rng(0))
    assert sample["valid"].any(1).sum() == 2


def test_codes_of_streets_are_those_of_the_conditioning() -> None:
    sample = pack(straight_road(), SHAPE)
    assert sample["map_code"][0] == 2 < CODES


def test_settings_are_checked() -> None:
    assert load_augment([]) is None
    assert load_augment(["rotate=true", "parked=3", "drop_agents=0.1"]) == Augment(
        rotate=True, parked=3.0, drop_agents=0.1
    )
    for wrong, why in (("drop_agents=2", "between 0 and 1"), ("parkd=1", "did you mean 'parked'"), ("jitter", "key=")):
        with pytest.raises(BadConfig, match=why):
            load_augment([wrong])
