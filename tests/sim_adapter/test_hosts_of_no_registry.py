"""Waymax, nuPlan and NAVSIM as hosts, each against a fake with its published signatures: no registry has them."""

import importlib
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from traj_diffusion.datasets import read_scenes
from traj_diffusion.errors import HostError, MissingExtra, MissingSource
from traj_diffusion.policies import ConstantVelocity, DiffusionPolicy, IdmFollower
from traj_diffusion.scene import AgentKind, MapKind, Scene
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing import WitnessedTraffic, crossing, nuplan_fake, waymax_fake

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
HOSTS = {"waymax": "waymo-research/waymax", "nuplan": "motional/nuplan-devkit", "navsim": "autonomousvision/navsim"}


def recorded() -> Scene:
    """Return a bundled scene, whose agents come and go, with lights."""
    return next(iter(read_scenes("bundled")))


def host(name: str) -> Any:
    return importlib.import_module(f"traj_diffusion.sim_adapter.hosts.{name}")


@pytest.mark.parametrize("name", HOSTS)
def test_a_missing_package_is_one_line_that_says_where_it_comes_from(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("waymax", "nuplan", "navsim"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"traj_diffusion.sim_adapter.hosts.{name}", raising=False)
    with pytest.raises(
        MissingSource, match=f"no registry has: install it from its source, github.com/{HOSTS[name]}"
    ) as e:
        host(name)
    assert isinstance(e.value, MissingExtra)
    assert "\n" not in str(e.value)


# --- Waymax ------------------------------------------------------------------------------------------------------


@pytest.fixture
def waymax(monkeypatch: pytest.MonkeyPatch) -> Any:
    waymax_fake.install(monkeypatch)
    return host("waymax")


def not_the_sdc(state: Any) -> np.ndarray:
    return ~state.object_metadata.is_sdc


def test_waymax_objects_go_where_the_traffic_says_and_the_host_keeps_the_contract(waymax: Any) -> None:
    scene = recorded()
    witness = WitnessedTraffic(IdmFollower())
    actor = waymax.TrafficActor(witness, not_the_sdc)
    assert actor.name == "traj_diffusion idm"
    state = waymax_fake.state_of(scene)
    memory = actor.init(None, state)
    episode = memory._episode
    assert len(episode.ground.map) == len(scene.map)
    assert len(episode.seen) == 11, "the second before the handover is known"
    for _ in range(20):
        output = actor.select_action({}, state, memory, None)
        driven = np.flatnonzero(output.is_controlled)
        there = scene.agents.valid[:, int(state.timestep)] & not_the_sdc(state)
        assert set(driven) <= set(np.flatnonzero(there | output.is_controlled))
        assert output.action.data.shape == (len(scene.agents), 5)
        assert output.action.data.dtype == np.float32
        assert output.action.valid.shape == (len(scene.agents), 1)
        state, memory = waymax_fake.advance(state, output), output.actor_state
        assert state.sim_trajectory.x[driven, int(state.timestep)] == pytest.approx(output.action.data[driven, 0])
    assert memory.findings() == ()


def test_a_waymax_actor_goes_on_from_the_state_that_it_is_handed(waymax: Any, random_policy: DiffusionPolicy) -> None:
    actor = waymax.TrafficActor(TrafficModel(random_policy, seed=2), not_the_sdc)
    state = waymax_fake.state_of(crossing())
    memory = actor.init(None, state)
    once, twice = (actor.select_action({}, state, memory, None) for _ in range(2))
    assert np.array_equal(once.action.data, twice.action.data), "a call leaves the state that it was handed as it was"


def test_waymax_lights_and_map_arrive_and_what_does_not_fit_is_refused(waymax: Any) -> None:
    scene = recorded()
    actor = waymax.TrafficActor(TrafficModel(ConstantVelocity()), not_the_sdc)
    state = waymax_fake.state_of(scene)
    episode = actor.init(None, state)._episode
    seen = episode.seen[-1]
    assert seen.light_lane.tolist() == scene.lights.lane_id[scene.lights.observed[:, scene.current_index]].tolist()
    assert (episode.ground.map.kind == MapKind.LANE).sum() == (scene.map.kind == MapKind.LANE).sum()
    state.roadgraph_points = None
    assert len(actor.init(None, state)._episode.ground.map) == 0
    with pytest.raises(HostError, match=r"Waymax steps by 0\.1 s and the traffic model by 0\.05 s"):
        waymax.TrafficActor(TrafficModel(ConstantVelocity(), dt=0.05), not_the_sdc)

    class Traced:
        def __array__(self, *args: Any, **more: Any) -> np.ndarray:
            raise TypeError("TracerArrayConversionError")

    state.timestep = Traced()
    with pytest.raises(HostError, match=r"outside of jax\.jit"):
        actor.init(None, state)


def example(name: str) -> dict[str, Any]:
    """Run an example, which is short and says that a fake stands behind it, and return what it defines."""
    text = (EXAMPLES / f"{name}_traffic.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert "**Its test runs it against a\nfake**" in text or "**Its test runs it against a fake**" in text
    return runpy.run_path(str(EXAMPLES / f"{name}_traffic.py"))


def test_the_waymax_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    waymax_fake.install(monkeypatch, recorded())
    monkeypatch.setattr(sys, "argv", ["waymax_traffic.py"])
    state = example("waymax")["state"]
    assert state.remaining_timesteps == 0
    assert (state.object_metadata.ids == -1).any(), "Waymax fills its arrays up"
    assert "objects driven by traj_diffusion idm" in capsys.readouterr().out


# --- nuPlan ------------------------------------------------------------------------------------------------------


@pytest.fixture
def scenario(monkeypatch: pytest.MonkeyPatch) -> nuplan_fake.FakeScenario:
    made = nuplan_fake.FakeScenario(recorded())
    nuplan_fake.install(monkeypatch, made)
    return made


def test_nuplan_agents_are_driven_from_where_the_log_has_them_and_cones_stay(
    scenario: nuplan_fake.FakeScenario,
) -> None:
    witness = WitnessedTraffic(IdmFollower())
    observations = host("nuplan").DrivenAgents(scenario, witness)
    assert observations.observation_type() is nuplan_fake.DetectionsTracks
    found = nuplan_fake.simulate(scenario, observations, 30)
    logged = scenario.get_tracked_objects_at_iteration(0).tracked_objects
    assert [one.track_token for one in found[0].tracked_objects] == [one.track_token for one in logged]
    for tracks in found:
        assert sum(one.track_token == "cone" for one in tracks.tracked_objects) == 1
    assert witness.findings() == ()
    episode = witness._episode
    assert len(episode.ground.map) > len(scenario.scene.map.rows(MapKind.LANE)), "lanes and road edges"
    last = episode.seen[-1]
    assert last.agent_id[~last.is_controlled].tolist()[0] == 0, "the ego is the planner's"
    assert (last.kind == AgentKind.OTHER).sum() == 1
    assert len(last.light_lane) == len(scenario.scene.lights)
    one, then = (next(one for one in tracks.tracked_objects if one.track_token != "cone") for tracks in found[:2])
    assert then.box.length == one.box.length
    assert then.metadata.track_token == one.metadata.track_token
    assert then.metadata.timestamp_us == nuplan_fake.START + 100_000


def test_only_the_types_that_were_asked_for_are_driven_and_a_second_run_is_equal(
    scenario: nuplan_fake.FakeScenario,
) -> None:
    observations = host("nuplan").DrivenAgents(scenario, TrafficModel(IdmFollower()), driven=["VEHICLE"])
    first, second = (nuplan_fake.simulate(scenario, observations, 5)[-1] for _ in range(2))
    logged = {one.track_token: one for one in scenario.get_tracked_objects_at_iteration(5).tracked_objects}
    for one, other in zip(first.tracked_objects, second.tracked_objects, strict=True):
        assert one.center == other.center
        if one.tracked_object_type.name != "VEHICLE":
            assert one.center == logged[one.track_token].center
    with pytest.raises(ValueError, match="objects of type TRAFFIC_CONE cannot be driven"):
        host("nuplan").DrivenAgents(scenario, TrafficModel(IdmFollower()), driven=["TRAFFIC_CONE"])
    with pytest.raises(HostError, match=r"nuPlan steps by 0\.1 s and the traffic model by 0\.05 s"):
        host("nuplan").DrivenAgents(scenario, TrafficModel(IdmFollower(), dt=0.05))


def test_the_nuplan_example_runs(scenario: nuplan_fake.FakeScenario) -> None:
    simulation = example("nuplan")["simulated"](scenario, "idm")
    first, last = (simulation.history.data[at].observation.tracked_objects for at in (0, -1))
    begin = {one.track_token: one.center for one in first}
    gone = [np.hypot(one.center.x - begin[one.track_token].x, one.center.y - begin[one.track_token].y) for one in last]
    assert len(simulation.history.data) == scenario.scene.steps - scenario.scene.current_index
    assert max(gone) > 20.0


# --- NAVSIM ------------------------------------------------------------------------------------------------------


def test_navsim_traffic_reacts_to_a_given_path_and_each_call_is_an_episode_of_its_own(
    scenario: nuplan_fake.FakeScenario, random_policy: DiffusionPolicy
) -> None:
    sampling = SimpleNamespace(num_poses=40, interval_length=0.1)
    policy = host("navsim").DrivenTrafficAgents(sampling, TrafficModel(random_policy, seed=5))
    states, cache = nuplan_fake.metric_cache(scenario, 40)
    found = policy.simulate_environment(states, cache)
    assert len(found) == 41
    again = policy.simulate_environment(states, cache)
    ends = [[one.center for one in tracks[-1].tracked_objects] for tracks in (found, again)]
    assert ends[0] == ends[1]
    names = {one.tracked_object_type.name for one in found[-1].tracked_objects}
    assert names <= {"VEHICLE", "PEDESTRIAN", "BICYCLE"}
    with pytest.raises(HostError, match=r"NAVSIM steps by 0\.5 s"):
        host("navsim").DrivenTrafficAgents(SimpleNamespace(interval_length=0.5), TrafficModel(random_policy))


def test_navsims_rear_axle_becomes_the_box_centre_and_the_traffic_sees_the_ego_on_its_path(
    scenario: nuplan_fake.FakeScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    class Spy(WitnessedTraffic):
        def fork(self) -> "Spy":
            return self

        def step(self, observation: Any) -> Any:
            seen.append(observation)
            return super().step(observation)

    witness = Spy(ConstantVelocity())
    policy = host("navsim").DrivenTrafficAgents(SimpleNamespace(interval_length=0.1), witness)
    states, cache = nuplan_fake.metric_cache(scenario, 20)
    policy.simulate_environment(states, cache)
    assert witness.findings() == ()
    for tick, observation in enumerate(seen):
        wanted = scenario.ego_state(tick).car_footprint.oriented_box.center
        assert observation.position[0, :2] == pytest.approx([wanted.x, wanted.y], abs=1e-6)
        (given,) = observation.given
        assert given.agent_id == observation.agent_id[0] == 0


def test_the_navsim_example_runs(scenario: nuplan_fake.FakeScenario) -> None:
    states, cache = nuplan_fake.metric_cache(scenario, 40)
    tracks = cache.current_tracked_objects[0].tracked_objects
    fast = max(
        (one for one in tracks if hasattr(one, "velocity")), key=lambda one: np.hypot(one.velocity.x, one.velocity.y)
    )
    in_its_way = np.zeros_like(states)
    heading = fast.center.heading
    in_its_way[:, :3] = fast.center.x + 20 * np.cos(heading), fast.center.y + 20 * np.sin(heading), heading
    beside_log, behind_it = example("navsim")["reactions"]("idm", [states, in_its_way], cache)
    assert beside_log.keys() == behind_it.keys()
    short = np.subtract(beside_log[fast.track_token], behind_it[fast.track_token])
    assert np.hypot(*short) > 5.0, "who is in the way is reacted to"
