"""Histories that the model drove: where they lead, and that the record is still what is learnt."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from traj_diffusion.datasets.cache import Cache, CacheShape, Sample, write_cache
from traj_diffusion.geometry import to_world
from traj_diffusion.model import ModelConfig, TrafficDiffusion
from traj_diffusion.scene import AgentKind
from traj_diffusion.testing import crossing, straight_road
from traj_diffusion.training import TrainConfig
from traj_diffusion.training.batch import Batch, make_batch

NOW = 10
CONFIG = TrainConfig(
    model=ModelConfig(
        width=16, n_heads=2, encoder_layers=1, denoiser_layers=1, near_map=4, near_lights=2, near_agents=2
    ),
    drop_history=0.0,
    disturb=0.0,
    roll_in=1.0,
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder: Path = tmp_path_factory.mktemp("cache")
    write_cache(folder, [straight_road(speeds=(4.0, 6.0)), straight_road(speeds=(5.0, 9.0)), crossing(), crossing()])
    found = Cache(folder, CacheShape(agents=4, pieces=32, lights=2)).batch(np.arange(4), (0, 0))
    # Records that sway, so that nobody's looks like a drive that goes straight on.
    found["position"][:, :, : NOW + 1] += 0.2 * np.sin(1.3 * np.arange(NOW + 1))[:, None].astype(np.float32)
    return found


@pytest.fixture(scope="module")
def straight_on() -> TrafficDiffusion:
    """Return a model that has learnt nothing: its output is zero, which is to go on as one does."""
    return TrafficDiffusion(CONFIG.model).eval()


def batches(sample: Sample, driver: TrafficDiffusion, seed: int) -> tuple[Batch, Batch]:
    """Return the batch as it was recorded and as the driver had it, agents in the same order."""
    generator = torch.Generator().manual_seed(seed)
    recorded = make_batch(sample, replace(CONFIG, roll_in=0.0), generator, driver)
    return recorded, make_batch(sample, CONFIG, torch.Generator().manual_seed(seed), driver)


@pytest.mark.parametrize("seed", range(4))
def test_the_record_is_what_is_learnt_from_wherever_the_drive_ended(
    sample: Sample, straight_on: TrafficDiffusion, seed: int
) -> None:
    with torch.no_grad():  # a driver that turns and speeds up
        straight_on.denoiser.out.bias.copy_(torch.linspace(-0.6, 0.6, len(straight_on.denoiser.out.bias)))
    recorded, rolled = batches(sample, straight_on, seed)
    with torch.no_grad():
        straight_on.denoiser.out.bias.zero_()
    count = rolled.weight.shape[1]
    there = recorded.valid & rolled.valid
    assert there.any()
    assert torch.equal(recorded.valid, rolled.valid)
    moved = (recorded.conditioning.pose - rolled.conditioning.pose).norm(dim=-1)[:, :count]
    assert (moved[there.any(-1)] > 1e-3).any()

    def in_world(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        pose = batch.conditioning.pose[:, :count, None]
        return to_world(batch.position, pose[..., :2], pose[..., 2]), batch.heading + pose[..., 2]

    (places, facings), (places_too, facings_too) = in_world(recorded), in_world(rolled)
    torch.testing.assert_close(places[there], places_too[there], atol=1e-3, rtol=0)
    apart = facings[there] - facings_too[there]
    torch.testing.assert_close(apart.cos(), torch.ones_like(apart), atol=1e-4, rtol=0)


def straight_from(batch: Batch) -> set[int]:
    """Return the indices of the history, of those that a drive may begin at, from which all vehicles go straight on."""
    c, ours = batch.conditioning, slice(batch.weight.shape[1])
    cars = (c.valid & (c.kind == AgentKind.VEHICLE))[:, ours]
    assert cars.any()
    place, pace = c.history[:, ours][cars][..., :2], c.history[:, ours][cars][..., 4:6]

    def holds(begin: int) -> bool:
        steps = torch.arange(NOW + 1 - begin)[:, None]
        return torch.allclose(place[:, begin:], place[:, begin, None] + 0.1 * steps * pace[:, begin, None], atol=2e-3)

    return {begin for begin in (NOW - 10, NOW - 5) if holds(begin)}


def test_who_goes_straight_on_is_where_a_constant_speed_leads(sample: Sample, straight_on: TrafficDiffusion) -> None:
    found = []
    for seed in range(8):
        recorded, rolled = batches(sample, straight_on, seed)
        assert not straight_from(recorded)
        found.append(straight_from(rolled))
    assert {NOW - 5} in found  # for half a second
    assert {NOW - 10, NOW - 5} in found  # or for a whole one
    assert all(found)


def test_who_came_late_stays_as_recorded(sample: Sample, straight_on: TrafficDiffusion) -> None:
    late = {name: value.copy() for name, value in sample.items()}
    late["valid"][:, 0, :9] = False
    for seed in range(3):
        recorded, rolled = batches(late, straight_on, seed)
        came = ~recorded.conditioning.history[..., :9, 6].any(-1) & recorded.conditioning.valid
        assert came.any()
        assert torch.equal(recorded.conditioning.history[came], rolled.conditioning.history[came])
        others = recorded.conditioning.valid & ~came
        assert not torch.allclose(recorded.conditioning.history[others], rolled.conditioning.history[others], atol=0.01)


def test_whoever_is_beyond_the_focus_is_not_driven(sample: Sample, straight_on: TrafficDiffusion) -> None:
    config = replace(CONFIG, focus=1)
    recorded = make_batch(sample, replace(config, roll_in=0.0), torch.Generator().manual_seed(0), straight_on)
    rolled = make_batch(sample, config, torch.Generator().manual_seed(0), straight_on)
    assert torch.equal(recorded.conditioning.history[:, 1:], rolled.conditioning.history[:, 1:])
    assert not torch.allclose(recorded.conditioning.history[:, 0], rolled.conditioning.history[:, 0], atol=0.01)
