"""Ten seconds of a CARLA world in which a policy drives eight cars; CARLA's own drivers and the ego have the rest.

Needs a running CARLA 0.9.16 and `pip install 'traj-diffusion[carla]'`. Run as: python carla_traffic.py [POLICY] [HOST]
"""

import math
import sys

import carla

import traj_diffusion as td
from traj_diffusion.sim_adapter.hosts.carla import CarlaTraffic

policy = td.load_policy(sys.argv[1] if len(sys.argv) > 1 else "idm")
client = carla.Client(sys.argv[2] if len(sys.argv) > 2 else "localhost", 2000)
client.set_timeout(20.0)
world = client.get_world()
before, settings = world.get_settings(), world.get_settings()
settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.1
world.apply_settings(settings)
car = world.get_blueprint_library().find("vehicle.lincoln.mkz_2020")

mine: set[int] = set()
try:
    with CarlaTraffic(td.TrafficModel(policy, futures=4), client, lambda actor: actor.id in mine) as traffic:
        for point in world.get_map().get_spawn_points()[:8]:  # CARLA's y runs south and its yaw clockwise
            place, heading = point.location, -math.radians(point.rotation.yaw)
            mine.add(traffic.spawn(car, place.x, -place.y, heading).id)
        world.tick()  # from now on they are there
        for _ in range(100):
            step = traffic.step()
        vehicles = world.get_actors().filter("vehicle.*")
        print(f"{step.time:.1f} s: {len(traffic.driven)} of {len(vehicles)} vehicles driven by {policy.name}")
        print(f"latency p50 {step.latency.p50:.1f} ms, p99 {step.latency.p99:.1f} ms")
finally:
    world.apply_settings(before)
