"""From SUMO's motion to people's: smooth paths and speeds, wandering within the lane, then what sensors add.

SUMO's cars turn on a polyline, change speed in corners and stay exactly on their offset; pedestrians walk on rails.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from traj_diffusion.datasets.synthesis.record import DT, Tracks
from traj_diffusion.geometry import arc_length
from traj_diffusion.scene import AgentKind

GRID = 0.25  # m, spacing of a path while it is smoothed
REACH = 12.0  # m, how far a path is continued straight beyond its ends
REAR_AXLE = 0.3  # of the length behind the centre: a car's wheelbase is about 0.6 of its length
CREEP = 0.02  # m/s; slower counts as standing

# kind: sd of smoothing in time [s] and space [m]; wander: range of sd [m] and its wave [m]; speed waver [m], its time
# [s], and the speed [m/s] below which it fades; lever of the reference point behind the centre.
STYLE = {
    AgentKind.VEHICLE: (0.4, 2.0, (0.05, 0.3), 12.0, (0.1, 0.6), 0.8, 3.0, REAR_AXLE),
    AgentKind.CYCLIST: (0.4, 1.5, (0.05, 0.25), 8.0, (0.1, 0.5), 0.7, 3.0, REAR_AXLE),
    AgentKind.PEDESTRIAN: (0.5, 0.7, (0.05, 0.25), 1.5, (0.05, 0.3), 0.7, 1.0, 0.0),
}


def humanise(rng: np.random.Generator, tracks: Tracks) -> Tracks:
    """Return the tracks driven again along smoothed paths; who never moves is left alone."""
    centre, heading, speed = tracks.centre.copy(), tracks.heading.copy(), tracks.speed.copy()
    for i in range(len(tracks.name)):
        steps = np.flatnonzero(tracks.valid[i])
        along = slice(steps[0], steps[-1] + 1)
        if len(steps) < 4 or len(steps) != along.stop - along.start:
            continue
        done = retrack(
            rng, AgentKind(int(tracks.kind[i])), float(tracks.size[i, 0]), centre[i, along], heading[i, along]
        )
        if done is not None:
            centre[i, along], heading[i, along], speed[i, along] = done
    return replace(tracks, centre=centre, heading=heading, speed=speed)


def retrack(
    rng: np.random.Generator,
    kind: AgentKind,
    length: float,
    centre: Float64[np.ndarray, "T 2"],
    heading: Float64[np.ndarray, " T"],
) -> tuple[Float64[np.ndarray, "T 2"], Float64[np.ndarray, " T"], Float64[np.ndarray, " T"]] | None:
    """Return centre, heading and speed of one agent driven along its smoothed path, or None if it moves under 1 m.

    The path is that of the rear axle (kinematic bicycle model), whose tangent is the heading.
    """
    time_sd, path_sd, wander, wave, waver, waver_time, fade, lever = STYLE[kind]
    reference = centre - lever * length * np.stack([np.cos(heading), np.sin(heading)], -1)
    travelled = arc_length(reference)
    if travelled[-1] < 1.0:
        return None
    path = _smooth_path(rng, reference, travelled, heading, path_sd, float(rng.uniform(*wander)), wave)
    distance = smooth(travelled, time_sd / DT)
    speed = np.gradient(distance) / DT
    # A bounded waver in distance, not in speed: it cannot add up to a collision with the car ahead.
    size = float(rng.uniform(*waver))
    distance = distance + size * coloured(rng, len(distance), waver_time / DT) * np.clip(speed / fade, 0, 1)
    steps = np.diff(distance)
    distance = distance[0] + np.concatenate([[0.0], np.cumsum(np.where(steps < CREEP * DT, 0.0, steps))])
    at = distance + REACH
    grid = np.arange(len(path)) * GRID

    def point(where: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(where, grid, path[:, axis]) for axis in (0, 1)], -1)

    half = 0.5 if kind == AgentKind.PEDESTRIAN else 1.0
    chord = point(at + half) - point(at - half)
    turned = np.unwrap(np.arctan2(chord[:, 1], chord[:, 0]))
    ahead = np.stack([np.cos(turned), np.sin(turned)], -1)
    moved = point(at) + lever * length * ahead
    return moved, turned, np.concatenate([[steps[0]], np.diff(distance)]).clip(0) / DT


def _smooth_path(
    rng: np.random.Generator,
    reference: np.ndarray,
    travelled: np.ndarray,
    heading: np.ndarray,
    path_sd: float,
    wander: float,
    wave: float,
) -> np.ndarray:
    """Return points every GRID metres from REACH before the start to REACH beyond the end."""
    moving = np.concatenate([[True], np.diff(travelled) > 1e-6])
    known, points = travelled[moving], reference[moving]
    grid = np.arange(-REACH, known[-1] + REACH + GRID, GRID)
    inside = np.stack([np.interp(grid, known, points[:, axis]) for axis in (0, 1)], -1)
    first = np.array([np.cos(heading[0]), np.sin(heading[0])])
    last = np.array([np.cos(heading[-1]), np.sin(heading[-1])])
    inside += np.minimum(grid, 0)[:, None] * first + np.maximum(grid - known[-1], 0)[:, None] * last
    path = np.stack([smooth(inside[:, axis], path_sd / GRID) for axis in (0, 1)], -1)
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    offset = wander * coloured(rng, len(path), wave / GRID)
    return path + offset[:, None] * np.stack([-tangent[:, 1], tangent[:, 0]], -1)


def smooth(values: Float64[np.ndarray, " T"], sd: float) -> Float64[np.ndarray, " T"]:
    """Return values under a Gaussian window of `sd` steps; the ends are continued point-symmetrically."""
    kernel = _kernel(sd)
    reach = min(len(kernel) // 2, len(values) - 1)
    kernel = kernel[len(kernel) // 2 - reach : len(kernel) // 2 + reach + 1]
    before = 2 * values[0] - values[1 : reach + 1][::-1]
    after = 2 * values[-1] - values[-reach - 1 : -1][::-1]
    return np.convolve(np.concatenate([before, values, after]), kernel / kernel.sum(), "valid")


def coloured(rng: np.random.Generator, count: int, sd: float) -> Float64[np.ndarray, " T"]:
    """Return Gaussian noise of unit variance whose neighbours agree over about `sd` steps."""
    kernel = _kernel(sd)
    white = rng.standard_normal(count + len(kernel) - 1)
    return np.convolve(white, kernel / np.sqrt((kernel**2).sum()), "valid")


def _kernel(sd: float) -> np.ndarray:
    reach = max(int(np.ceil(3 * sd)), 1)
    return np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sd, 1e-6)) ** 2)
