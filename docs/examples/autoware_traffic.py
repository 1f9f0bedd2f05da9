"""Vehicles of a CARLA world driven by the traffic backend, called as a run of autoware_carla_scenario calls it.

Needs `pip install 'traj-diffusion[autoware]'`, in an environment of its own, and a running CARLA. A scenario run needs
no code: `traffic.backend=traj_diffusion traffic.options.policy=small`. **Its test runs it against a fake** world
(`traj_diffusion.testing.carla_fake`) and the real package. `drive` wants a world in synchronous mode.
"""

import tempfile
from pathlib import Path

from autoware_carla_scenario.traffic import registry
from autoware_carla_scenario.traffic.base import DrivenEntity, TrafficContext


class Npc(DrivenEntity):
    """What the backend sees of a vehicle."""

    def __init__(self, actor):
        self.actor, self.role_name = actor, f"npc{actor.id}"


def drive(world, actors, ego_id, dt=0.05, seconds=2.0, policy="idm"):
    """Drive these actors but the ego for some seconds, and return what the backend says of itself."""
    registry.load_traffic_backend_plugins()
    backend = registry.build_backend("traj_diffusion", {"policy": policy})
    with tempfile.TemporaryDirectory() as folder:
        backend.prepare(TrafficContext(world=world, fixed_delta_seconds=dt, random_seed=0, output_dir=Path(folder)))
        for actor in actors:
            backend.adopt(Npc(actor))
        backend.start(world, skip_actor_ids=[ego_id])
        for tick in range(round(seconds / dt)):
            world.tick()
            backend.tick(world, dt * (tick + 1))
        backend.close()
    return backend.describe()
