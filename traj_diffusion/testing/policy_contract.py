"""What every policy owes the loop that asks it, as checks that anyone can run on a policy of their own.

```
@pytest.mark.parametrize("check", POLICY_CONTRACT, ids=lambda check: check.__name__)
def test_contract(check):
    check(MyPolicy())
```

Each check returns None or raises AssertionError saying what was found.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from traj_diffusion.scene import LightState, Plan, PlanRequest, Policy, Scene, WorldState
from traj_diffusion.sim_adapter.worlds import Worlds
from traj_diffusion.testing.scenes import crossing, make_scene

ROW_TOLERANCE = 1e-3  # m: rows of another order are summed in another order


def request_of(policy: Policy, scene: Scene, worlds: int = 2, futures: int = 2, tick: int = 5) -> PlanRequest:
    """Return a question to the policy about a scene at its current index."""
    known = scene.history_only()
    state = Worlds.at_current_index(known, worlds, policy.history_steps).state
    numbers = np.arange(worlds, dtype=np.int32)
    return PlanRequest(policy.encode(known), state, futures, tick, 11, numbers)


def shapes_fit(policy: Policy) -> None:
    """A plan covers every agent of every world in [R, K, A, F], over at least one replanning, in the state's steps."""
    request = request_of(policy, crossing(), worlds=2, futures=3)
    plan = policy.plan(request)
    lead = (2, 3, 3)
    steps = plan.position.shape[3]
    _that(steps * plan.dt >= 0.5, f"a plan reaches {steps * plan.dt} s; at least 0.5 s are needed")
    found = plan.position.shape, plan.heading.shape, plan.velocity.shape, plan.log_weight.shape
    wanted = (*lead, steps, 3), (*lead, steps), (*lead, steps, 2), (2, 3)
    _that(found == wanted, f"position, heading, velocity, log_weight have shapes {found}; wanted {wanted}")
    _that(plan.dt == request.state.dt, f"steps of {plan.dt} s; the state has {request.state.dt} s")
    _that(policy.history_steps >= 1, f"history_steps is {policy.history_steps}; the present step counts")


def everything_is_finite(policy: Policy) -> None:
    """Plans are finite: without a map or a history, for one agent, with agents that are absent, far from the origin."""
    alone = make_scene(np.array([[3.0, 4.0]]), np.array([[5.0, 1.0]]), steps=12, current_index=0)
    for scene in (crossing(), alone, moved(crossing(), 4e4)):
        request = request_of(policy, scene)
        state = request.state
        absent = replace(state, valid=state.valid & (np.arange(len(state.agent_id)) > 0)[:, None])
        for one in (request, replace(request, state=absent)):
            plan = policy.plan(one)
            for name in ("position", "heading", "velocity", "log_weight"):
                _that(bool(np.isfinite(getattr(plan, name)).all()), f"{name} is not finite in scene {scene.id}")


def randomness_is_keyed(policy: Policy) -> None:
    """The same request gives the same bits; more worlds and more futures leave the first ones bit for bit."""
    few = request_of(policy, crossing(), worlds=2, futures=2)
    plan = policy.plan(few)
    _same(policy.plan(few), plan, "the same request asked twice")
    _same(_first(policy.plan(replace(few, futures=5)), 2, 2), plan, "more futures")
    many = request_of(policy, crossing(), worlds=5, futures=2)
    _same(_first(policy.plan(many), 2, 2), plan, "more worlds")
    second = replace(few, state=_world(few.state, 1), world=few.world[1:])
    _same(policy.plan(second), _first(_from_world(plan, 1), 1, 2), "the second world asked by itself")


def order_of_rows_is_free(policy: Policy) -> None:
    """Agents in another order have the same futures, to within rounding."""
    request = request_of(policy, crossing())
    order = np.array([2, 0, 1])
    turned = policy.plan(replace(request, state=_rows(request.state, order)))
    plan = policy.plan(request)
    off = float(np.abs(turned.position - plan.position[:, :, order]).max())
    _that(off <= ROW_TOLERANCE, f"agents in another order end up to {off:.4f} m elsewhere; at most {ROW_TOLERANCE}")


def the_future_is_not_known(policy: Policy) -> None:
    """Encoding a scene with other recorded futures, later agents and later lights changes nothing."""
    scene = crossing()
    position, valid, state = scene.agents.position.copy(), scene.agents.valid.copy(), scene.lights.state.copy()
    position[:, 11:, 1] += 30.0
    valid[0, 40:] = False
    state[:, 20:] = LightState.GO
    agents = replace(scene.agents, position=position, valid=valid)
    other = replace(scene, agents=agents, lights=replace(scene.lights, state=state))
    request = request_of(policy, scene)
    full = replace(request, context=policy.encode(scene))
    _same(policy.plan(full), policy.plan(request), "the full scene encoded, not its history")
    _same(policy.plan(replace(full, context=policy.encode(other))), policy.plan(request), "another future recorded")


def asking_changes_nothing(policy: Policy) -> None:
    """A request is left as it was, and an earlier request gives the same answer after a later one."""
    request = request_of(policy, crossing())
    kept = {name: np.copy(value) for name, value in vars(request.state).items() if isinstance(value, np.ndarray)}
    first = policy.plan(request)
    policy.plan(replace(request, tick=10, seed=3))
    _same(policy.plan(request), first, "asked again after another question")
    for name, value in kept.items():
        _that(np.array_equal(value, getattr(request.state, name)), f"the state's {name} was changed")


POLICY_CONTRACT: tuple[Callable[[Policy], None], ...] = (
    shapes_fit,
    everything_is_finite,
    randomness_is_keyed,
    order_of_rows_is_free,
    the_future_is_not_known,
    asking_changes_nothing,
)


def moved(scene: Scene, by: float) -> Scene:
    """Return the scene moved by that many metres east and north."""
    shift = np.array([by, by, 0.0])
    return replace(
        scene,
        agents=replace(scene.agents, position=scene.agents.position + shift),
        map=replace(scene.map, points=scene.map.points + shift),
        lights=replace(scene.lights, stop_point=scene.lights.stop_point + shift),
    )


def _that(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _same(found: Plan, wanted: Plan, what: str) -> None:
    for name in ("position", "heading", "velocity", "log_weight"):
        same = np.array_equal(getattr(found, name), getattr(wanted, name))
        _that(same, f"{what}: {name} differs, it must be the same bit for bit")


def _first(plan: Plan, worlds: int, futures: int) -> Plan:
    fields = ("position", "heading", "velocity", "log_weight")
    return replace(plan, **{name: getattr(plan, name)[:worlds, :futures] for name in fields})


def _from_world(plan: Plan, world: int) -> Plan:
    fields = ("position", "heading", "velocity", "log_weight")
    return replace(plan, **{name: getattr(plan, name)[world:] for name in fields})


def _world(state: WorldState, world: int) -> WorldState:
    fields = ("position", "heading", "velocity", "valid", "light_state", "light_observed")
    return replace(state, **{name: getattr(state, name)[world : world + 1] for name in fields})


def _rows(state: WorldState, order: np.ndarray) -> WorldState:
    ours = {name: getattr(state, name)[order] for name in ("agent_id", "kind", "size")}
    worlds = {name: getattr(state, name)[:, order] for name in ("position", "heading", "velocity", "valid")}
    return replace(state, **ours, **worlds)
