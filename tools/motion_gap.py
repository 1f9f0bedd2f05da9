"""How far the motion in one set of scenes is from another's: python -P tools/motion_gap.py SCENES OTHER_SCENES

Prints JSON: for vehicles and pedestrians that move 2 m or more after the current index, the total variation between the
two sets' histograms of speed, acceleration, angular speed and angular acceleration (central differences over 0.2 s, as
the Sim Agents metrics take them, in 20 bins), and each set's percentiles. 0 is equal, 1 is disjoint.
"""

import json
import sys
from itertools import chain

import numpy as np

from traj_diffusion.datasets.sources import read_scenes
from traj_diffusion.geometry import wrap_angle
from traj_diffusion.scene import AgentKind, Scene

BORDERS = {
    "speed": np.linspace(0, 25, 21),
    "acceleration": np.linspace(-12, 12, 21),
    "angular_speed": np.linspace(-0.628, 0.628, 21),
    "angular_acceleration": np.linspace(-3.14, 3.14, 21),
}


def features(scene: Scene, kind: AgentKind) -> dict[str, np.ndarray]:
    """Return the values of all moving agents of a kind after the current index, where the steps around are valid."""
    agents, now, dt = scene.agents, scene.current_index, scene.dt
    rows = scene.sim_agents[agents.kind[scene.sim_agents] == kind]
    valid = agents.valid[rows]
    xy, heading = agents.position[rows, :, :2], agents.heading[rows].astype(np.float64)

    def central(values: np.ndarray) -> np.ndarray:
        padded = np.full_like(values, np.nan)
        padded[:, 1:-1] = values[:, 2:] - values[:, :-2]
        return padded

    velocity = np.stack([central(np.where(valid, xy[..., axis], np.nan)) for axis in (0, 1)], -1) / (2 * dt)
    speed = np.linalg.norm(velocity, axis=-1)
    turn = wrap_angle(central(np.where(valid, heading, np.nan))) / (2 * dt)
    change = wrap_angle(central(turn) * 2 * dt) / (2 * dt)
    values = {
        "speed": speed,
        "acceleration": central(speed) / (2 * dt),
        "angular_speed": turn,
        "angular_acceleration": change / (2 * dt),
    }
    last = valid.shape[1] - 1 - valid[:, ::-1].argmax(1)
    went = np.linalg.norm(xy[np.arange(len(rows)), last] - xy[:, now], axis=-1) >= 2
    return {name: value[went, now + 1 :][np.isfinite(value[went, now + 1 :])] for name, value in values.items()}


def pooled(source: str, kind: AgentKind) -> dict[str, np.ndarray]:
    """Return the features of all scenes of a source."""
    found = [features(scene, kind) for scene in read_scenes(source)]
    return {name: np.array(list(chain.from_iterable(part[name] for part in found))) for name in BORDERS}


def main(ours: str, theirs: str) -> None:
    """Print the comparison."""
    report: dict[str, dict[str, object]] = {}
    for kind in (AgentKind.VEHICLE, AgentKind.PEDESTRIAN):
        one, other = pooled(ours, kind), pooled(theirs, kind)
        report[kind.name.lower()] = {}
        for name, borders in BORDERS.items():
            pair = (one[name], other[name])
            shares = [np.histogram(x.clip(borders[0], borders[-1]), borders)[0] / max(len(x), 1) for x in pair]
            report[kind.name.lower()][name] = {
                "total_variation": round(float(np.abs(shares[0] - shares[1]).sum() / 2), 3),
                "percentiles_5_50_95": [
                    np.percentile(x, [5, 50, 95]).round(3).tolist() if len(x) else [] for x in pair
                ],
                "values": [len(one[name]), len(other[name])],
            }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:3])
