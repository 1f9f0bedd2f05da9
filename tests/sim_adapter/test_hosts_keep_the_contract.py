"""Each host shows its agents where and how they were put, and its own as they are; the witness notices who does not."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from traj_diffusion.datasets.conditioning import ABSENT_ROUTE, OFF_ROUTE, ON_ROUTE
from traj_diffusion.errors import BadInput
from traj_diffusion.policies import ConstantVelocity, DiffusionPolicy, IdmFollower
from traj_diffusion.scene import Csr, MapKind, Observation, Origin, PlanRequest, Routes, Step, check_observation
from traj_diffusion.sim_adapter.history import world_state
from traj_diffusion.testing import WitnessedTraffic, crossing, straight_road
from traj_diffusion.testing.host_contract import obey


def test_sumo_keeps_the_contract(tmp_path: Path) -> None:
    libsumo = pytest.importorskip("libsumo", reason="needs the extra [sumo]")
    from traj_diffusion.datasets.synthesis.tools import sumo_home
    from traj_diffusion.sim_adapter.hosts.sumo import SumoTraffic

    net = tmp_path / "town.net.xml"
    options = "--grid --grid.number 2 --grid.length 100 --grid.attach-length 60 --sidewalks.guess"
    subprocess.run([sumo_home() / "bin" / "netgenerate", *options.split(), "-o", net], check=True, capture_output=True)
    settings = "--step-length 0.1 --time-to-teleport -1 --no-step-log true --pedestrian.model nonInteracting"
    libsumo.start(["sumo", "-n", str(net), *settings.split()])
    try:
        libsumo.route.add("turns", ["left0A0", "A0A1", "A1B1", "B1B0"])
        libsumo.route.add("north", ["bottom0A0", "A0A1", "A1top0"])
        for number in range(3):
            libsumo.vehicle.add(f"car{number}", "turns", depart=str(2 * number), departSpeed="8")
            libsumo.vehicle.add(f"own{number}", "north", depart=str(2 * number), departSpeed="8")
        libsumo.person.add("walker", "A0B0", 20)
        libsumo.person.appendWalkingStage("walker", ["A0B0"], 80)
        traffic = WitnessedTraffic(IdmFollower())
        wanted = ("car", "walker")
        with SumoTraffic(traffic, libsumo, net, lambda name: name.startswith(wanted)) as town:
            for _ in range(150):
                town.step()
            assert len(town.driven) >= 2
        assert traffic.findings() == ()
    finally:
        libsumo.close()


def test_highwayenv_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("highway_env", reason="needs the extra [highway]")
    import gymnasium
    import highway_env

    from traj_diffusion.sim_adapter.hosts import highway

    gymnasium.register_envs(highway_env)
    monkeypatch.setattr(highway.DrivenVehicle, "policy", IdmFollower())
    monkeypatch.setattr(highway, "TrafficModel", WitnessedTraffic)
    path = "traj_diffusion.sim_adapter.hosts.highway.DrivenVehicle"
    env = gymnasium.make("highway-fast-v0", config={"other_vehicles_type": path, "vehicles_count": 8})
    env.reset(seed=1)
    for _ in range(5):
        env.step(1)
    traffic = env.unwrapped.road.traffic.model
    assert traffic.findings() == ()
    env.close()


def test_gymnasium_and_pettingzoo_keep_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    from traj_diffusion.sim_adapter.hosts import learning

    monkeypatch.setattr(learning, "TrafficModel", WitnessedTraffic)
    scene = crossing()
    ego = int(scene.agents.id[0])
    episode = learning.Episode(scene, ConstantVelocity(), 0, [ego])
    for _ in range(20):
        episode.step({ego: np.array([0.2, 0.3])})
    assert episode.traffic.findings() == ()  # type: ignore[attr-defined]


def _spoilt(name: str, by: Callable[[np.ndarray], np.ndarray]) -> Callable[[Observation], Observation]:
    return lambda seen: replace(seen, **{name: by(getattr(seen, name)).astype(getattr(seen, name).dtype)})


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (_spoilt("position", lambda x: x + np.array([0.3, 0, 0])), "placed"),
        (_spoilt("heading", lambda x: x + 0.1), "heading"),
        (_spoilt("velocity", lambda x: x * 3.6), "velocity"),
        (_spoilt("size", lambda x: x * 1.1), "size"),
        (lambda seen: replace(seen, time=seen.time + 0.02), "time"),
    ],
)
def test_the_witness_notices_a_host_that_counts_otherwise(
    spoil: Callable[[Observation], Observation], what: str
) -> None:
    traffic = WitnessedTraffic(ConstantVelocity())
    seen = Observation.from_scene(straight_road())
    traffic.reset(straight_road(), seen)
    step: Step = traffic.step(seen)
    seen = obey(seen, step)
    step = traffic.step(seen)
    assert traffic.findings() == ()
    traffic.step(spoil(obey(seen, step)))
    assert {one.split(":")[0] for one in traffic.findings()} >= {what}


@pytest.mark.parametrize(
    ("heading", "velocity", "what"),
    [([0.0, 0.0], [[10.0, 0.0], [2.0, 0.0]], "motion"), ([0.0, 1.2], [[10.0, 0.0], [8.0, 0.0]], "facing")],
)
def test_the_witness_notices_wrong_units_and_angles_of_the_hosts_own(
    heading: list[float], velocity: list[list[float]], what: str
) -> None:
    traffic = WitnessedTraffic(ConstantVelocity())

    def shown(time: float) -> Observation:
        return Observation.from_arrays(
            time,
            agent_id=[1, 2],
            kind=1,
            position=[[10 * time, 0], [8 * time, 20]],
            heading=heading,
            velocity=velocity,
            size=(4.5, 2.0, 1.6),
            is_controlled=[True, False],
        )

    traffic.reset(None, shown(0.0))
    for tick in range(3):
        traffic.step(shown(0.1 * tick))
    assert {one.split(":")[0] for one in traffic.findings()} == {what}


def test_routes_of_an_observation_reach_the_network_over_those_of_the_scene(random_policy: DiffusionPolicy) -> None:
    scene = crossing()
    lanes = scene.map.rows(MapKind.LANE).tolist()
    seen = Observation.from_scene(scene)
    told = [[lanes[0]], *[[]] * (len(seen) - 1)]
    origin = np.array([Origin.RECORDED if way else Origin.ABSENT for way in told], np.uint8)
    seen = replace(seen, routes=Routes(Csr.from_lists(told), origin))
    context = random_policy.encode(scene)
    state = world_state((seen,), 11)
    codes = random_policy.condition(PlanRequest(context, state, 1, 0, 0, np.zeros(1, np.int32))).route[0].numpy()
    on_lane = context.piece_row == lanes[0]
    assert on_lane.any()
    assert set(codes[0, : len(on_lane)][on_lane].tolist()) == {ON_ROUTE}
    assert set(codes[0, : len(on_lane)][~on_lane].tolist()) == {OFF_ROUTE}
    assert set(codes[1].tolist()) == {ABSENT_ROUTE}


def test_routes_that_are_not_one_per_agent_are_refused() -> None:
    seen = Observation.from_scene(crossing())
    with pytest.raises(BadInput, match=r"1 routes for \d+ agents"):
        check_observation(replace(seen, routes=Routes.absent(1)))
