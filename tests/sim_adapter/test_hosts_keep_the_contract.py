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
from traj_diffusion.testing import WitnessedTraffic, crossing, host_findings, straight_road
from traj_diffusion.testing.host_contract import obey


def test_sumo_keeps_the_contract(tmp_path: Path) -> None:
    libsumo = pytest.importorskip("libsumo", reason="needs the extra [sumo]")
    from traj_diffusion.datasets.synthesis.tools import sumo_home
    from traj_diffusion.sim_adapter.hosts.sumo import SumoTraffic

    net = tmp_path / "town.net.xml"
    options = "--grid --grid.number 2 --grid.length 100 --grid.attach-length 60 --sidewalks.guess"
    subprocess.run([sumo_home() / "bin" / "netgenerate", *options.split(), "-o", net], check=True, capture_output=True)
    settings = "--step-length 0.1 --time-to-teleport -1 --no-step-log true"

    def run(traffic: WitnessedTraffic) -> None:
        libsumo.start(["sumo", "-n", str(net), *settings.split()])
        try:
            libsumo.route.add("turns", ["left0A0", "A0A1", "A1B1", "B1B0"])
            libsumo.route.add("north", ["bottom0A0", "A0A1", "A1top0"])
            for number in range(3):
                libsumo.vehicle.add(f"car{number}", "turns", depart=str(2 * number), departSpeed="8")
                libsumo.vehicle.add(f"own{number}", "north", depart=str(2 * number), departSpeed="8")
            libsumo.person.add("walker", "A0B0", 20)
            libsumo.person.appendWalkingStage("walker", ["A0B0"], 80)
            with SumoTraffic(traffic, libsumo, net, lambda name: name.startswith(("car", "walker"))) as town:
                for _ in range(150):
                    town.step()
                assert len(town.driven) >= 2
        finally:
            libsumo.close()

    assert host_findings(run, lambda: WitnessedTraffic(IdmFollower())) == ()


def test_highwayenv_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("highway_env", reason="needs the extra [highway]")
    import gymnasium
    import highway_env

    from traj_diffusion.sim_adapter.hosts import highway

    gymnasium.register_envs(highway_env)
    path = "traj_diffusion.sim_adapter.hosts.highway.DrivenVehicle"

    def run(traffic: WitnessedTraffic) -> None:
        monkeypatch.setattr(highway, "TrafficModel", lambda *_, **__: traffic)
        env = gymnasium.make("highway-fast-v0", config={"other_vehicles_type": path, "vehicles_count": 8})
        env.reset(seed=1)
        for _ in range(5):
            env.step(1)
        env.close()

    monkeypatch.setattr(highway.DrivenVehicle, "policy", IdmFollower())
    dt = 1 / 5  # highway-fast's simulation_frequency
    assert host_findings(run, lambda: WitnessedTraffic(IdmFollower(), dt=dt)) == ()


def test_gymnasium_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    gymnasium = pytest.importorskip("gymnasium", reason="needs the extra [gym]")
    from traj_diffusion.sim_adapter.hosts import gym, learning  # noqa: F401  # registers TrajDiffusion-v0

    def run(traffic: WitnessedTraffic) -> None:
        monkeypatch.setattr(learning, "TrafficModel", lambda *_, **__: traffic)
        env = gymnasium.make("TrajDiffusion-v0", scenes="bundled", policy=ConstantVelocity())
        env.reset(seed=1)
        for _ in range(30):
            env.step(np.array([0.2, 0.3], np.float32))
        env.close()

    assert host_findings(run, lambda: WitnessedTraffic(IdmFollower())) == ()


def test_pettingzoo_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pettingzoo", reason="needs the extra [pettingzoo]")
    from traj_diffusion.sim_adapter.hosts import learning
    from traj_diffusion.sim_adapter.hosts.pettingzoo import TrafficParallelEnv

    def run(traffic: WitnessedTraffic) -> None:
        monkeypatch.setattr(learning, "TrafficModel", lambda *_, **__: traffic)
        env = TrafficParallelEnv("bundled", ConstantVelocity(), learners=2)
        env.reset(seed=1)
        for _ in range(30):
            env.step({agent: np.array([0.1, 0.2], np.float32) for agent in env.agents})
        env.close()

    assert host_findings(run, lambda: WitnessedTraffic(IdmFollower())) == ()


def test_the_witness_notices_a_host_that_does_not_repeat() -> None:
    moods = iter((0.0, 0.2))

    def run(traffic: WitnessedTraffic) -> None:
        seen, mood = Observation.from_scene(crossing(), uncontrolled=[1]), next(moods)
        seen = replace(seen, position=seen.position + mood)
        traffic.reset(crossing(), seen)
        traffic.step(seen)

    found = host_findings(run, lambda: WitnessedTraffic(ConstantVelocity()))
    assert [one.split(":")[0] for one in found] == ["repeat"]
    moods = iter((0.0, 0.2))
    assert host_findings(run, lambda: WitnessedTraffic(ConstantVelocity()), within=0.3) == ()


def test_the_witness_notices_who_enters_inside_of_somebody_and_who_flickers() -> None:
    def shown(time: float, agents: list[int], places: list[list[float]]) -> Observation:
        still = np.zeros((len(agents), 2))
        size = (4.5, 2.0, 1.6)
        return Observation.from_arrays(
            time, agent_id=agents, kind=1, position=places, heading=still[:, 0], velocity=still, size=size
        )

    traffic = WitnessedTraffic(ConstantVelocity())
    traffic.reset(None, shown(0.0, [1, 2], [[0, 0], [20, 0]]))
    for time, agents, places in (
        (0.0, [1, 2], [[0, 0], [20, 0]]),
        (0.1, [1], [[0, 0]]),
        (0.2, [1, 2, 3], [[0, 0], [20, 0], [0.5, 0.5]]),
    ):
        traffic.step(shown(time, agents, places))
    assert [one.split(":")[0] for one in traffic.findings()] == ["spawn", "gone"]


@pytest.mark.parametrize("spoil", ["mirrored map", "map elsewhere", "no such lane", "light elsewhere"])
def test_the_witness_notices_maps_and_lights_in_another_frame(spoil: str) -> None:
    scene = crossing()
    map_ = scene.map
    if spoil == "mirrored map":  # turned about: its lanes lead the other way
        middle = map_.points.mean(0)
        map_ = replace(map_, points=2 * middle - map_.points)
    if spoil == "map elsewhere":
        map_ = replace(map_, points=map_.points + 500.0)
    traffic, seen = WitnessedTraffic(ConstantVelocity()), Observation.from_scene(scene)
    assert len(seen.light_lane)
    if spoil == "no such lane":
        seen = replace(seen, light_lane=seen.light_lane + 10_000)
    if spoil == "light elsewhere":
        seen = replace(seen, light_stop=seen.light_stop + 100.0)
    traffic.reset(map_, seen)
    for _ in range(25):
        seen = obey(seen, traffic.step(seen))
    kinds = {one.split(":")[0] for one in traffic.findings()}
    assert kinds >= {"map" if "map" in spoil else "light"}


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
