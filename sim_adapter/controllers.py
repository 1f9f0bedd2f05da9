"""Who drives which agent: besides the traffic's own policy, other policies and functions, each for some agents."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from traj_diffusion.errors import BadInput
from traj_diffusion.scene import AgentKind, Observation, Policy
from traj_diffusion.scene.observation import MAX_SPEED
from traj_diffusion.sim_adapter.between import Motion

# (what is seen, row of the agent, dt) -> centre [2 or 3], heading and velocity [2] of the agent dt later.
Callback = Callable[[Observation, int, float], tuple[Any, Any, Any]]
Controller = Policy | Callback
# Which controller drives an agent, by its id, or by a function of id and kind; None is the traffic's own policy.
Assign = Mapping[int, str] | Callable[[int, AgentKind], str | None]


class Controllers:
    """Controllers by name, and who is driven by which."""

    def __init__(self, controllers: Mapping[str, Controller], assign: Assign) -> None:
        self.policies: dict[str, Policy] = {}
        self.callbacks: dict[str, Callback] = {}
        for name, controller in controllers.items():
            # By what it can do: since Python 3.12 isinstance does not see what a wrapper hands on to another policy.
            if hasattr(controller, "plan"):
                self.policies[name] = cast(Policy, controller)
            else:
                self.callbacks[name] = controller
        self._assign = assign

    @property
    def names(self) -> list[str]:
        """All controllers."""
        return [*self.policies, *self.callbacks]

    def rows(self, seen: Observation, where: str) -> dict[str, list[int]]:
        """Return the rows of controlled agents that each controller drives."""
        found: dict[str, list[int]] = {}
        if not self.names:
            return found
        for row in np.flatnonzero(seen.is_controlled).tolist():
            agent, kind = int(seen.agent_id[row]), AgentKind(int(seen.kind[row]))
            name = self._assign(agent, kind) if callable(self._assign) else self._assign.get(agent)
            if name is None:
                continue
            if name not in self.policies and name not in self.callbacks:
                raise BadInput(f"{where}: agent {agent} is assigned to {name!r}; known controllers: {self.names}")
            found.setdefault(name, []).append(row)
        return found

    def called(self, seen: Observation, rows: Mapping[str, list[int]], dt: float, where: str) -> dict[int, Motion]:
        """Return where the agents that functions drive are next, by agent. Raises BadInput where one makes no sense."""
        return {
            int(seen.agent_id[row]): _called(self.callbacks[name], name, seen, row, dt, where)
            for name, driven in rows.items()
            if name in self.callbacks
            for row in driven
        }


def _called(callback: Callback, name: str, seen: Observation, row: int, dt: float, where: str) -> Motion:
    who = f"{where}: controller {name!r} of agent {seen.agent_id[row]}"
    returned = callback(seen, row, dt)
    try:
        place, heading, velocity = (np.asarray(value, np.float64).reshape(-1) for value in returned)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{who} returned no (position, heading, velocity): {error}") from None
    if len(place) == 2:
        place = np.append(place, seen.position[row, 2])
    if (len(place), len(heading), len(velocity)) != (3, 1, 2):
        raise BadInput(f"{who} returned {len(place)}, {len(heading)} and {len(velocity)} numbers; 3 (or 2), 1, 2 fit")
    fine = np.isfinite(place).all() and np.isfinite(heading).all() and (np.abs(velocity) <= MAX_SPEED).all()
    if not fine:
        raise BadInput(f"{who} returned values that are not finite, or too large")
    return Motion(place[None], heading.astype(np.float32), velocity.astype(np.float32)[None])
