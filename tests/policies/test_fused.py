"""The compiled kernel of guidance says what torch's operations say, wherever a slope has one side only."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from traj_diffusion.datasets import read_scenes
from traj_diffusion.policies import fused, lean
from traj_diffusion.policies.road import RoadField, road_field
from traj_diffusion.policies.surroundings import Guidance, Surroundings
from traj_diffusion.scene import AgentKind, Scene

WORLDS = 3
SCALE = torch.tensor([1.2, 0.3, 0.3])


def surroundings(scene: Scene, generator: torch.Generator) -> Surroundings:
    """Return the present of a scene, shaken so that people touch and kerbs are crossed, with some red lights."""
    now, agents = scene.current_index, scene.agents
    seen = np.flatnonzero(agents.valid[:, now])[:48]
    origin = agents.position[seen, now, :2].mean(axis=0)
    pose = torch.zeros(WORLDS, len(seen), 3)
    pose[..., :2] = torch.from_numpy(agents.position[seen, now, :2] - origin)
    pose[..., 2] = torch.from_numpy(agents.heading[seen, now])
    pose += torch.randn(pose.shape, generator=generator) * torch.tensor([1.5, 1.5, 0.2])
    speed = torch.rand(WORLDS, len(seen), 2, generator=generator) * torch.tensor([12.0, 0.5])
    speed[:, ::5] = 0
    light = pose[:, ::6].clone()
    light[..., :2] += 6 * torch.stack([light[..., 2].cos(), light[..., 2].sin()], -1)
    kind = torch.randint(1, len(AgentKind), (WORLDS, len(seen)), generator=generator)
    return Surroundings.of(
        pose=pose,
        speed=speed,
        size=torch.from_numpy(agents.size[seen, now]).float().expand(WORLDS, -1, -1),
        kind=kind,
        valid=torch.rand(kind.shape, generator=generator) < 0.9,
        scale=SCALE.expand(WORLDS, len(seen), 1, 3),
        free=torch.rand(kind.shape, generator=generator) < 0.9,
        light=light,
        red=torch.ones(light.shape[:2], dtype=torch.bool),
        field=road_field(scene.map, origin, agents.position[seen, now]),
    )


def in_double(around: Surroundings) -> Surroundings:
    """Return the same in float64, in which the kernel works."""
    exact = {name: getattr(around, name).double() for name in ("pose", "speed", "size", "scale", "light")}
    field = None if around.field is None else replace(around.field, distance=around.field.distance.double())
    return replace(around, **exact, field=field)


@pytest.mark.parametrize("wild", [0.3, 1.0, 4.0])
def test_faults_and_slopes_are_those_of_torch(wild: float) -> None:
    generator = torch.Generator().manual_seed(int(10 * wild))
    alike: list[bool] = []
    for scene in list(read_scenes("bundled"))[:6]:
        around = surroundings(scene, generator)
        x0 = wild * torch.randn(*around.valid.shape, 16, 3, generator=generator)
        own, slope = lean.fault_and_slope(x0.double(), in_double(around), Guidance())
        found, found_slope = fused.fault_and_slope(x0, around, Guidance())
        torch.testing.assert_close(found.double(), own, rtol=1e-4, atol=1e-4)
        assert (found_slope[~around.free] == 0).all()
        same = torch.isclose(found_slope.double(), slope, rtol=1e-3, atol=1e-3).all(-1).all(-1)
        alike += same[own > 0].tolist()
    # Where a box lies along the line that parts it from another, its reach has two slopes, and rounding takes one.
    assert len(alike) > 100
    assert np.mean(alike) > 0.98


def test_other_looks_and_no_field_are_as_with_torch() -> None:
    generator = torch.Generator().manual_seed(3)
    around = replace(surroundings(next(iter(read_scenes("bundled"))), generator), field=None)
    for guidance in (Guidance(knots=4, every=3), Guidance(knots=16, every=1), Guidance(knots=1, every=5)):
        x0 = torch.randn(*around.valid.shape, 16, 3, generator=generator)
        own, _ = lean.fault_and_slope(x0, around, guidance)
        found, _ = fused.fault_and_slope(x0, around, guidance)
        torch.testing.assert_close(found, own, rtol=1e-3, atol=1e-3)
        assert (own > 0).any()


def test_a_field_of_one_cell_is_left_without_a_fault() -> None:
    generator = torch.Generator().manual_seed(4)
    around = surroundings(next(iter(read_scenes("bundled"))), generator)
    around = replace(around, field=RoadField(torch.full((1, 1), 5.0), (0.0, 0.0), 0.5), bound=around.valid)
    x0 = torch.randn(*around.valid.shape, 16, 3, generator=generator)
    assert torch.isfinite(fused.fault_and_slope(x0, around, Guidance())[1]).all()


def test_the_kernel_keeps_out_where_it_does_not_fit() -> None:
    assert fused.fits(torch.zeros(2))
    assert not fused.fits(torch.zeros(2).double())
    assert not fused.fits(torch.zeros(2, device="meta"))
