"""What positions over time tell: velocity and heading, and the same recording at another step.

Everything looks at direct neighbours only: a gap in a track is never bridged.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Float64

from traj_diffusion.errors import BadScene
from traj_diffusion.geometry import wrap_angle
from traj_diffusion.scene.scene import Lights, Scene

STEP = 0.1  # s, of every scene that a model sees
MAX_STEP = 1.0  # s; what happens between states that are further apart is a guess
STANDING = 0.3  # m/s; below it the direction of a displacement is noise


def velocity_of_motion(
    position: Float64[np.ndarray, "N T D"], valid: Bool[np.ndarray, "N T"], dt: float
) -> Float64[np.ndarray, "N T D"]:
    """Return central differences [m/s]; one-sided ones at the ends of a track, 0 for a state that stands alone."""
    before, after = np.zeros_like(position), np.zeros_like(position)
    both = valid[:, 1:] & valid[:, :-1]
    step = np.where(both[..., None], np.diff(np.where(valid[..., None], position, 0.0), axis=1), 0.0) / dt
    before[:, 1:], after[:, :-1] = step, step
    count = np.zeros(valid.shape, int)
    count[:, 1:] += both
    count[:, :-1] += both
    velocity: np.ndarray = (before + after) / np.maximum(count, 1)[..., None]
    return velocity


def heading_of_motion(
    velocity: Float64[np.ndarray, "N T 2"] | Float32[np.ndarray, "N T 2"], valid: Bool[np.ndarray, "N T"]
) -> tuple[Float32[np.ndarray, "N T"], Bool[np.ndarray, " N"]]:
    """Return the direction of motion [rad], and who ever moves.

    Who stands keeps the direction of the last motion before, or else of the first one after; who never moves gets 0.
    """
    moving = valid & (np.hypot(velocity[..., 0], velocity[..., 1]) > STANDING)
    steps = np.arange(valid.shape[1])
    last = np.maximum.accumulate(np.where(moving, steps, -1), axis=1)
    first = np.argmax(moving, axis=1)
    chosen = np.where(last >= 0, last, first[:, None])
    angle = np.arctan2(velocity[..., 1], velocity[..., 0])
    ever = moving.any(1)
    heading = np.where(ever[:, None] & valid, np.take_along_axis(angle, chosen, 1), 0.0)
    return heading.astype(np.float32), ever


def resample_scene(scene: Scene, dt: float = STEP) -> Scene:
    """Return the scene at steps of `dt`, the current one kept in place; the scene itself where it has that step.

    Positions follow cubic Hermite curves with central differences as tangents (Catmull and Rom 1974), exact for
    constant acceleration between inner states; headings turn the shorter way, velocities are interpolated linearly,
    sizes and lights hold. A state between two is valid where both are. Raises BadScene beyond MAX_STEP.
    """
    if abs(scene.dt - dt) < 1e-6 * dt:
        return scene
    if not 0 < scene.dt <= MAX_STEP:
        raise BadScene(
            f"scene {scene.id}: a step of {scene.dt:g} s cannot be resampled to {dt:g} s; at most {MAX_STEP:g} s can"
        )
    now, ratio = scene.current_index, dt / scene.dt
    back = int(now / ratio + 1e-6)
    ahead = int((scene.steps - 1 - now) / ratio + 1e-6)
    at = now + np.arange(-back, ahead + 1) * ratio
    # A grid point that meets a recorded step, up to rounding, is that step.
    at = np.where(np.abs(at - np.rint(at)) < 1e-6, np.rint(at), at)
    low = np.clip(np.floor(at).astype(np.int64), 0, scene.steps - 1)
    high = np.minimum(low + 1, scene.steps - 1)
    part = at - low
    agents = scene.agents
    exact = part == 0
    valid = agents.valid[:, low] & (agents.valid[:, high] | exact)
    tangent = velocity_of_motion(agents.position, agents.valid, 1.0)
    u = part[None, :, None]
    position = (
        (1 + 2 * u) * (1 - u) ** 2 * agents.position[:, low]
        + u * (1 - u) ** 2 * tangent[:, low]
        + u**2 * (3 - 2 * u) * agents.position[:, high]
        + u**2 * (u - 1) * tangent[:, high]
    )
    position = np.where(exact[None, :, None], agents.position[:, low], position)
    turn = np.where(exact, 0.0, part * wrap_angle(agents.heading[:, high].astype(np.float64) - agents.heading[:, low]))
    velocity = np.where(exact[None, :, None], agents.velocity[:, low], _between(agents.velocity, low, high, u))
    lights = scene.lights
    return replace(
        scene,
        dt=dt,
        current_index=back,
        agents=replace(
            agents,
            position=np.where(valid[..., None], position, 0.0),
            heading=np.where(valid, agents.heading[:, low] + turn, 0.0).astype(np.float32),
            velocity=np.where(valid[..., None], velocity, 0.0).astype(np.float32),
            size=np.where(valid[..., None], agents.size[:, low], np.float32(0)),
            valid=valid,
        ),
        lights=Lights(lights.lane_id, lights.stop_point[:, low], lights.state[:, low], lights.observed[:, low]),
        report=(*scene.report, (f"steps recorded, resampled to {dt:g} s", scene.steps)),
    )


def _between(values: np.ndarray, low: np.ndarray, high: np.ndarray, part: np.ndarray) -> np.ndarray:
    between: np.ndarray = (1 - part) * values[:, low] + part * values[:, high]
    return between
