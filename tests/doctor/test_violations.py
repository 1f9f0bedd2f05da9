"""What counts as leaving a route, and as passing a red light, on a road made by hand."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from traj_diffusion.datasets.conditioning import OFF_ROUTE, ON_ROUTE, PIECE_POINTS, MapTensors, condition
from traj_diffusion.diffusion import make_schedule
from traj_diffusion.doctor.case import Case
from traj_diffusion.doctor.conditioning import other_lights, same_shown, without_lights
from traj_diffusion.doctor.subject import drive, plain_subject
from traj_diffusion.doctor.violations import Violations, reds_run, routes_left
from traj_diffusion.kinematics import Motion
from traj_diffusion.scene import AgentKind, LightState
from traj_diffusion.training.batch import Batch

STEPS = 20


def road(*lights: tuple[float, float, LightState]) -> Batch:
    """A car of 4.5 m at 10 m/s on a road of two pieces to the east, 40 m long, its route; one to the north is not."""
    along = torch.linspace(-10, 10, PIECE_POINTS)
    line = torch.stack([along, torch.zeros(PIECE_POINTS)], -1)
    history = torch.arange(-10.0, 1.0)
    still = torch.zeros(1, 1, 11)
    count = len(lights)
    c = condition(
        position=torch.stack([history, torch.zeros(11)], -1)[None, None],
        heading=still,
        velocity=torch.tensor([10.0, 0.0]).expand(1, 1, 11, 2),
        valid=still == 0,
        size=torch.tensor([[[4.5, 2.0, 1.6]]]),
        kind=torch.full((1, 1), int(AgentKind.VEHICLE)),
        light_pose=torch.tensor([[x, y, 0.0] for x, y, _ in lights]).reshape(1, count, 3),
        light_state=torch.tensor([int(state) for _, _, state in lights], dtype=torch.long).reshape(1, count),
        light_valid=torch.ones(1, count, dtype=torch.bool),
        route=torch.tensor([[[ON_ROUTE, ON_ROUTE, OFF_ROUTE]]]),
        light_route=torch.full((1, 1, count), ON_ROUTE),
    )
    flat = torch.zeros(1, 3)
    pieces = MapTensors(
        points=line.expand(1, 3, PIECE_POINTS, 2),
        pose=torch.tensor([[[10.0, 0, 0], [30.0, 0, 0], [20.0, 10, torch.pi / 2]]]),
        length=flat + 20,
        code=flat.long(),
        speed_limit=flat,
        valid=flat == 0,
    )
    recorded = ending((20.0, 0.0))
    return Batch(
        conditioning=c,
        map=pieces,
        action=torch.zeros(1, 1, 4, 3),
        action_valid=torch.ones(1, 1, 4, dtype=torch.bool),
        position=recorded.position[:, :, 0],
        heading=recorded.heading[:, :, 0],
        valid=torch.ones(1, 1, STEPS, dtype=torch.bool),
        weight=torch.ones(1, 1),
    )


def ending(*ends: tuple[float, float]) -> Motion:
    """Futures that go straight to these places, without turning."""
    share = torch.linspace(0, 1, STEPS + 1)[1:, None]
    position: Tensor = (share * torch.tensor(ends)[:, None])[None, None]
    return Motion(position, torch.zeros(position.shape[:-1]), torch.zeros_like(position))


def case_of(batch: Batch) -> Case:
    return Case(replace(plain_subject(make_schedule("cosine")), batch=batch, drive=drive))


def test_a_route_is_left_at_its_side_and_not_ahead_of_its_end() -> None:
    kept = ending((20.0, 0.0), (20.0, 4.0), (60.0, 9.0))  # on it, a lane beside it, beyond it
    found = routes_left(case_of(road()), kept, ending((20.0, 8.0), (20.0, 0.0)))
    assert found == Violations(shown=0.0, hidden=0.5, recorded=0.0, vehicles=1)
    assert found.say("cars", "leave it") == "of 1 cars, 0.0% leave it, 50.0% without (none with it), 0.0% in the data"


def test_who_has_no_route_or_leaves_it_in_the_record_does_not_count() -> None:
    batch = road()
    c = batch.conditioning
    for codes in ([0, 0, 0], [OFF_ROUTE, OFF_ROUTE, ON_ROUTE]):
        other = replace(batch, conditioning=replace(c, route=torch.tensor([[codes]])))
        found = routes_left(case_of(other), ending((20.0, 8.0)), ending((20.0, 8.0)))
        assert found.vehicles == 0
        assert found.say("vehicles with a route", "leave it") == "no vehicles with a route"


def test_a_red_light_is_passed_by_the_bumper_in_the_lane() -> None:
    batch = road((25.0, 0.0, LightState.STOP))
    through = ending(
        (30.0, 0.0), (30.0, 8.0), (22.0, 0.0), (23.0, 0.0)
    )  # 22 + 2.25 is before the line, 23.5 nosed over
    found = reds_run(case_of(batch), through, ending((30.0, 0.0), (20.0, 0.0)))
    assert found == Violations(shown=0.25, hidden=0.5, recorded=0.0, vehicles=1)
    assert "(2.00 times)" in found.say("cars", "pass")


@pytest.mark.parametrize(
    "lights",
    [
        [(25.0, 0.0, LightState.GO)],
        [(25.0, 0.0, LightState.STOP), (25.0, 1.0, LightState.GO)],  # another light of the line lets it pass
        [(90.0, 0.0, LightState.STOP)],
        [(-5.0, 0.0, LightState.STOP)],
        [(25.0, 4.0, LightState.STOP)],
    ],
)
def test_only_vehicles_before_a_line_that_is_closed_to_them_count(
    lights: list[tuple[float, float, LightState]],
) -> None:
    assert reds_run(case_of(road(*lights)), ending((30.0, 0.0)), ending((30.0, 0.0))).vehicles == 0


def test_where_no_light_is_seen_there_is_none_to_exchange() -> None:
    batch = without_lights(road((25.0, 0.0, LightState.STOP)))
    assert same_shown(other_lights(batch), batch)
