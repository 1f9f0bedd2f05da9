"""Two seconds of traffic on a bundled scene, asked of a running `traj-diffusion serve` over gRPC as AlpaSim does.

Needs `pip install 'traj-diffusion[serve]'`. Run `traj-diffusion serve --port 50051`, then python serve_client.py [PORT]
"""

import sys

import grpc
import numpy as np

import traj_diffusion as td
from traj_diffusion.scene import AgentKind
from traj_diffusion.sim_adapter.hosts.alpasim_messages import METHODS, message

channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1] if len(sys.argv) > 1 else 50051}")


def call(method, request):
    """Return the answer to one of the five calls."""
    asked, answered = (message(name) for name in METHODS[method])
    send = channel.unary_unary(f"/traffic.TrafficService/{method}", asked.SerializeToString, answered.FromString)
    return send(request, timeout=60)


scene = next(td.read_scenes("bundled"))
start = message("traffic.TrafficSessionRequest")(session_uuid="1", scene_id=scene.id, handover_time_us=1_000_000)
for row in scene.sim_agents.tolist():
    kind = AgentKind(scene.agents.kind[row]).name.lower()
    one = start.logged_object_trajectories.add(object_id=f"agent {row}", label_class=kind)
    one.aabb.size_x, one.aabb.size_y, one.aabb.size_z = scene.agents.size[row, 10].tolist()
    for step in np.flatnonzero(scene.agents.valid[row, :11]).tolist():
        pose = one.trajectory.poses.add(timestamp_us=100_000 * step).pose
        pose.vec.x, pose.vec.y, pose.vec.z = scene.agents.position[row, step].tolist()
        half = scene.agents.heading[row, step] / 2
        pose.quat.w, pose.quat.z = np.cos(half), np.sin(half)
call("start_session", start)
for time_us in range(1_100_000, 3_000_001, 100_000):
    answer = call("simulate", message("traffic.TrafficRequest")(session_uuid="1", time_query_us=time_us))
print(f"{scene.id}: {len(answer.object_trajectory_updates)} agents driven for 2.0 s")
