"""Observations that hosts get wrong: mutations of a good one, for traffic models to work with or to refuse."""

from dataclasses import replace
from typing import Any

import numpy as np

from traj_diffusion.errors import BadInput, HostError
from traj_diffusion.scene import GivenFuture, Observation, Scene
from traj_diffusion.sim_adapter import TrafficModel
from traj_diffusion.testing.host_contract import obey

ODD = (np.nan, np.inf, -np.inf, 1e300, -1.0, 0.0, 1e6, 7.5, 255.0)
ROWS = ("agent_id", "kind", "position", "heading", "velocity", "size", "is_controlled")


def mutated(seen: Observation, rng: np.random.Generator) -> Observation:
    """Return an observation with one to three things changed that hosts get wrong."""
    changed = {name: np.copy(value) for name, value in vars(seen).items() if isinstance(value, np.ndarray)}
    time, given = seen.time, seen.given
    for _ in range(int(rng.integers(1, 4))):
        name = str(rng.choice([*changed, "time", "rows", "copy", "given"]))
        if name == "time":
            time = float(rng.choice([seen.time - 0.1, np.nan, np.inf, seen.time + 1e9, seen.time + 1e-9]))
        elif name == "rows":  # some are gone, the others in another order
            count = len(changed["agent_id"])
            order = rng.permutation(count)[: int(rng.integers(0, count + 1))]
            changed |= {field: changed[field][order] for field in ROWS}
        elif name == "copy" and len(changed["agent_id"]):  # somebody is listed again, half of the times under a new id
            row = int(rng.integers(0, len(changed["agent_id"])))
            changed |= {field: np.concatenate([changed[field], changed[field][row : row + 1]]) for field in ROWS}
            changed["agent_id"][-1] += 1000 * int(rng.integers(0, 2))
        elif name == "given":
            given = (*given, _path(seen, rng))
        elif name in changed and changed[name].size:
            flat = changed[name].reshape(-1)
            with np.errstate(all="ignore"):
                flat[int(rng.integers(0, len(flat)))] = np.array(rng.choice(ODD)).astype(changed[name].dtype)
    fields: dict[str, Any] = {**changed}
    return replace(seen, time=time, given=given, **fields)


def _path(seen: Observation, rng: np.random.Generator) -> GivenFuture:
    """Return a given future, sound or with one thing wrong."""
    row = int(rng.integers(0, len(seen)))
    ahead = 0.1 * np.arange(1, 11)
    place = np.repeat(seen.position[row : row + 1], 10, axis=0)
    place[:, :2] += seen.velocity[row] * ahead[:, None]
    time, heading, agent = seen.time + ahead, np.repeat(seen.heading[row], 10), int(seen.agent_id[row])
    wrong = int(rng.integers(0, 8))
    if wrong == 0:
        place[int(rng.integers(0, 10)), int(rng.integers(0, 3))] = rng.choice(ODD)
    elif wrong == 1:
        time[int(rng.integers(0, 10))] = rng.choice([np.nan, np.inf, 0.0])
    elif wrong == 2:
        agent += 1
    elif wrong == 3:
        time = time - 5.0
    return GivenFuture(agent, time, place, heading)


def outcome(scene: Scene, base: TrafficModel, good: Observation, rng: np.random.Generator) -> str:
    """Return "worked" or "refused": how a fork of the traffic took a mutated observation.

    Raises AssertionError where it neither worked nor was refused in one line naming the tick, or where the tick was
    half applied: after a refusal the good observation must go on, bit for bit, as if nothing had been.
    """
    traffic, unharmed = base.fork(), base.fork()
    bad = mutated(good, rng)
    try:
        step = traffic.step(bad)
    except (BadInput, HostError) as error:
        if not str(error).startswith("tick ") or "\n" in str(error):
            raise AssertionError(f"scene {scene.id}: refused, but not in one line with its tick: {error}") from error
        one, other = traffic.step(good), unharmed.step(good)
        for name in ("position", "heading", "velocity"):
            if not np.array_equal(getattr(one, name), getattr(other, name)):
                raise AssertionError(f"scene {scene.id}: {name} differs after a refused tick ({error})") from error
        return "refused"
    driven = bad.agent_id[bad.is_controlled]
    if not np.array_equal(step.agent_id, driven):
        raise AssertionError(f"scene {scene.id}: {step.agent_id} are driven, not {driven}")
    if not all(np.isfinite(getattr(step, name)).all() for name in ("position", "heading", "velocity")):
        raise AssertionError(f"scene {scene.id}: a state that is not finite came back")
    return "worked"


def begun(base: TrafficModel, scene: Scene, ticks: int = 2) -> Observation:
    """Return what an obedient host shows after that many ticks of a new episode."""
    seen = Observation.from_scene(scene)
    base.reset(scene, seen)
    for _ in range(ticks):
        seen = obey(seen, base.step(seen))
    return seen
