"""What is wrong with a plan and its slope as one compiled kernel, for guidance on a CPU.

A few agents, looks and lights make tensors so small that torch's operations spend their time on being called, twice
where a slope is wanted. Here one pass goes over each world: where everybody is at each look, what is wrong there, and
the way back through `kinematics.decode`. GPUs take torch's own operations, to which tests/policies/test_fused.py holds
these: `lean.fault` is where the terms are explained.
"""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from torch import Tensor

from traj_diffusion.kinematics import DT, LIMITS, STEPS_PER_KNOT
from traj_diffusion.policies.boxes import PARALLEL
from traj_diffusion.policies.road import REACH
from traj_diffusion.policies.surroundings import STANDING, STILL, Guidance, Surroundings

_LIMITS = np.array(
    [
        (
            *limits.forward,
            *limits.acceleration,
            limits.sideways,
            limits.side_acceleration,
            limits.curvature,
            limits.spin,
            limits.grip,
            limits.yaw_rate,
            limits.axle,
        )
        for limits in LIMITS
    ]
)
_SLOWEST = 1e-3  # m/s, at which `decode` takes the grip's bound on the yaw rate


def fits(x0: Tensor) -> bool:
    """Return whether the kernel may stand in for torch's operations."""
    return x0.device.type == "cpu" and x0.dtype == torch.float32


def fault_and_slope(
    x0: Float[Tensor, "B A k 3"], around: Surroundings, guidance: Guidance
) -> tuple[Float[Tensor, "B A"], Float[Tensor, "B A k 3"]]:
    """Return each agent's fault, zero for who may not be leant, and the slope of their sum along who may."""
    own, slope = torch.zeros(x0.shape[:2]), torch.zeros(x0.shape)
    field = around.field
    _fault_and_slope(
        _array(x0),
        *(
            _array(value)
            for value in (
                around.scale[:, :, 0],
                around.pose,
                around.speed,
                around.size,
                around.kind,
                around.valid,
                around.near,
                around.pair,
                around.bound,
                around.free,
                around.light,
                around.stops,
            )
        ),
        np.zeros((0, 0), np.float32) if field is None else _array(field.distance),
        *((0.0, 0.0, 1.0) if field is None else (*field.low, field.cell)),
        min(guidance.knots, x0.shape[2]),
        guidance.every,
        guidance.kerb,
        guidance.gap,
        guidance.line,
        own.numpy(),
        slope.numpy(),
    )
    return own, slope


def _array(value: Tensor) -> np.ndarray:
    return value.detach().contiguous().numpy()


@njit(cache=True, nogil=True)
@no_type_check  # a run-time check of shapes would wrap the function before numba sees it
def _fault_and_slope(  # pragma: no cover
    x0,
    scale,
    pose,
    speed,
    size,
    kind,
    valid,
    near,
    pair,
    bound,
    free,
    light,
    stops,
    field,
    low_x,
    low_y,
    cell,
    knots,
    every,
    kerb,
    keep,
    line,
    own,
    slope,
):
    worlds, agents = valid.shape
    steps = knots * STEPS_PER_KNOT
    looks = steps // every
    u, w = np.zeros((agents, steps + 1)), np.zeros((agents, steps + 1))
    yaw, facing = np.zeros((agents, steps + 1)), np.zeros((agents, steps + 1))
    at = np.zeros((agents, looks, 4))  # x, y in the world's frame, cosine and sine of the heading there
    back = np.zeros((agents, looks, 3))  # slopes along x, y and the heading
    moves = np.zeros(agents, np.bool_)
    axis, touching = np.zeros((looks, 2)), np.zeros(looks, np.bool_)
    for world in range(worlds):
        back[:] = 0
        for a in range(agents):
            moves[a] = False
            if valid[world, a]:
                moves[a] = _drive(
                    x0[world, a],
                    scale[world, a],
                    speed[world, a],
                    _LIMITS[kind[world, a]],
                    size[world, a, 0],
                    pose[world, a],
                    knots,
                    every,
                    u[a],
                    w[a],
                    yaw[a],
                    facing[a],
                    at[a],
                )
        for a in range(agents):
            if not (moves[a] and free[world, a]):  # who stands cannot be leant, nor whose plan is given
                continue
            fault = 0.0
            if bound[world, a] and field.size:
                fault += _beyond_kerb(at[a], size[world, a], field, low_x, low_y, cell, kerb, back[a])
            for s in range(light.shape[1]):
                if stops[world, a, s]:
                    fault += _beyond_line(at[a], size[world, a, 0], light[world, s], line, back[a])
            for rank in range(near.shape[2]):
                if pair[world, a, rank]:
                    other = near[world, a, rank]
                    fault += _into(
                        at[a], size[world, a], at[other], size[world, other], keep, axis, touching, back[a], back[other]
                    )
            own[world, a] = fault
        for a in range(agents):
            if moves[a] and free[world, a]:
                _way_back(
                    back[a],
                    x0[world, a],
                    scale[world, a],
                    _LIMITS[kind[world, a]],
                    size[world, a, 0],
                    pose[world, a, 2],
                    knots,
                    every,
                    u[a],
                    w[a],
                    yaw[a],
                    facing[a],
                    slope[world, a],
                )


@njit(cache=True, nogil=True)
@no_type_check
def _clip(value, low, high):  # pragma: no cover
    return min(max(value, low), high)


@njit(cache=True, nogil=True)
@no_type_check
def _turn(pace, limits):  # pragma: no cover
    """Return the highest yaw rate at that pace, and its slope along the pace."""
    curvature, spin, grip, highest = limits[6], limits[7], limits[8], limits[9]
    turn, along = highest, 0.0
    if grip / max(pace, _SLOWEST) < turn:
        turn, along = grip / max(pace, _SLOWEST), -grip / pace**2 if pace > _SLOWEST else 0.0
    if spin + curvature * pace < turn:
        turn, along = spin + curvature * pace, curvature
    return turn, along


@njit(cache=True, nogil=True)
@no_type_check
def _drive(x0, scale, speed, limits, length, pose, knots, every, u, w, yaw, facing, at):  # pragma: no cover
    """Write where a plan leads, as `kinematics.decode` has it, and return whether it leads anywhere."""
    slowest, fastest, brake, accelerate = limits[0], limits[1], limits[2], limits[3]
    sideways, side_acceleration = limits[4], limits[5]
    axle = limits[10] * length
    u[0], w[0], facing[0] = _clip(speed[0], slowest, fastest), _clip(speed[1], -sideways, sideways), 0.0
    x, y, farthest, look = -axle, 0.0, 0.0, 0
    cos_pose, sin_pose = np.cos(pose[2]), np.sin(pose[2])
    for knot in range(knots):
        begin = knot * STEPS_PER_KNOT
        forward = _clip(x0[knot, 0] * scale[0], brake, accelerate)
        lateral = _clip(x0[knot, 2] * scale[2], -side_acceleration, side_acceleration)
        for step in range(1, STEPS_PER_KNOT + 1):
            n = begin + step
            u[n] = _clip(u[begin] + forward * step * DT, slowest, fastest)
            w[n] = _clip(w[begin] + lateral * step * DT, -sideways, sideways)
            u_mid, w_mid = (u[n] + u[n - 1]) / 2, (w[n] + w[n - 1]) / 2
            turn, _ = _turn(abs(u_mid), limits)
            yaw[n] = _clip(x0[knot, 1] * scale[1], -turn, turn)
            facing[n] = facing[n - 1] + yaw[n] * DT
            middle = facing[n] - yaw[n] * DT / 2
            cos, sin = np.cos(middle), np.sin(middle)
            x += (u_mid * cos - w_mid * sin) * DT
            y += (u_mid * sin + w_mid * cos) * DT
            if n % every == 0 and look < len(at):
                cos, sin = np.cos(facing[n]), np.sin(facing[n])
                local_x, local_y = x + axle * cos, y + axle * sin
                farthest = max(farthest, np.hypot(local_x, local_y))
                at[look, 0] = pose[0] + local_x * cos_pose - local_y * sin_pose
                at[look, 1] = pose[1] + local_x * sin_pose + local_y * cos_pose
                at[look, 2] = cos * cos_pose - sin * sin_pose
                at[look, 3] = sin * cos_pose + cos * sin_pose
                look += 1
    moves = np.hypot(speed[0], speed[1]) > STANDING or farthest > STILL
    if not moves:
        at[:, 0], at[:, 1], at[:, 2], at[:, 3] = pose[0], pose[1], cos_pose, sin_pose
    return moves


@njit(cache=True, nogil=True)
@no_type_check
def _beyond_kerb(at, size, field, low_x, low_y, cell, kerb, back):  # pragma: no cover
    """Return how far corners come beyond the road's edge, summed over looks."""
    fault = 0.0
    rows, columns = field.shape
    for look in range(len(at)):
        cos, sin = at[look, 2], at[look, 3]
        worst, along_x, along_y, arm_x, arm_y = -REACH, 0.0, 0.0, 0.0, 0.0
        for corner in range(4):
            ahead = size[0] / 2 if corner < 2 else -size[0] / 2
            left = size[1] / 2 if corner % 2 else -size[1] / 2
            dx, dy = ahead * cos - left * sin, ahead * sin + left * cos
            column, row = (at[look, 0] + dx - low_x) / cell, (at[look, 1] + dy - low_y) / cell
            if not (0 <= column < columns - 1 and 0 <= row < rows - 1):
                continue
            i, j = int(row), int(column)
            y, x = row - i, column - j
            near, far = field[i, j] * (1 - x) + field[i, j + 1] * x, field[i + 1, j] * (1 - x) + field[i + 1, j + 1] * x
            beyond = near * (1 - y) + far * y
            if beyond > worst:
                worst, arm_x, arm_y = beyond, dx, dy
                along_x = (
                    (field[i, j + 1] - field[i, j]) * (1 - y) + (field[i + 1, j + 1] - field[i + 1, j]) * y
                ) / cell
                along_y = (far - near) / cell
        if worst + kerb > 0:
            fault += worst + kerb
            back[look, 0] += along_x
            back[look, 1] += along_y
            back[look, 2] += along_y * arm_x - along_x * arm_y
    return fault


@njit(cache=True, nogil=True)
@no_type_check
def _beyond_line(at, length, light, line, back):  # pragma: no cover
    """Return how far the front comes beyond a line at which somebody has to stop, summed over looks."""
    fault = 0.0
    cos_light, sin_light = np.cos(light[2]), np.sin(light[2])
    for look in range(len(at)):
        arm_x, arm_y = length / 2 * at[look, 2], length / 2 * at[look, 3]
        dx, dy = at[look, 0] + arm_x - light[0], at[look, 1] + arm_y - light[1]
        beyond = dx * cos_light + dy * sin_light + line
        if beyond > 0:
            fault += beyond
            back[look, 0] += cos_light
            back[look, 1] += sin_light
            back[look, 2] += sin_light * arm_x - cos_light * arm_y
    return fault


@njit(cache=True, nogil=True)
@no_type_check
def _reach(box, size, cos_line, sin_line):  # pragma: no cover
    """Return how far a box reaches to either side of its centre along a line, and the slope along its heading."""
    cos = box[2] * cos_line + box[3] * sin_line
    sin = box[3] * cos_line - box[2] * sin_line
    along = (
        0.0 if min(abs(cos), abs(sin)) < PARALLEL else (size[1] * cos * np.sign(sin) - size[0] * sin * np.sign(cos)) / 2
    )
    return (size[0] * abs(cos) + size[1] * abs(sin)) / 2, along


@njit(cache=True, nogil=True)
@no_type_check
def _widest_gap(box, size, other, other_size, axis):  # pragma: no cover
    """Return the widest gap between two boxes along any of their sides, and write the unit vector along it."""
    x, y = box[0] - other[0], box[1] - other[1]
    widest = -np.inf
    for side in range(4):
        one, length = (box, size) if side < 2 else (other, other_size)
        cos, sin = (-one[3], one[2]) if side % 2 else (one[2], one[3])
        way = x * cos + y * sin
        across = other if side < 2 else box
        gap = abs(way) - length[side % 2] / 2 - _reach(across, other_size if side < 2 else size, cos, sin)[0]
        if gap > widest:
            widest = gap
            axis[0], axis[1] = (-cos, -sin) if way < 0 else (cos, sin)
    return widest


@njit(cache=True, nogil=True)
@no_type_check
def _into(at, size, other, other_size, keep, axis, touching, back, back_other):  # pragma: no cover
    """Return by how much one box comes too near to another, summed over looks; see `boxes.intrusion`."""
    nearest = np.inf
    for look in range(len(at)):
        nearest = min(nearest, (at[look, 0] - other[look, 0]) ** 2 + (at[look, 1] - other[look, 1]) ** 2)
    if nearest >= ((np.hypot(size[0], size[1]) + np.hypot(other_size[0], other_size[1])) / 2 + keep) ** 2:
        return 0.0
    first = -1
    for look in range(len(at)):
        touching[look] = _widest_gap(at[look], size, other[look], other_size, axis[look]) < keep
        if touching[look] and first < 0:
            first = look
    if first < 0:
        return 0.0
    cos, sin, fault = axis[max(first - 1, 0), 0], axis[max(first - 1, 0), 1], 0.0
    for look in range(first, len(at)):
        reach, turning = _reach(at[look], size, cos, sin)
        other_reach, other_turning = _reach(other[look], other_size, cos, sin)
        inside = (
            reach + other_reach + keep - (at[look, 0] - other[look, 0]) * cos - (at[look, 1] - other[look, 1]) * sin
        )
        if touching[look] and inside > 0:
            fault += inside
            back[look, 0] -= cos
            back[look, 1] -= sin
            back[look, 2] += turning
            back_other[look, 0] += cos
            back_other[look, 1] += sin
            back_other[look, 2] += other_turning
    return fault


@njit(cache=True, nogil=True)
@no_type_check
def _way_back(back, x0, scale, limits, length, heading, knots, every, u, w, yaw, facing, slope):  # pragma: no cover
    """Write the slope along actions, from that along places: `_drive` the other way round, last step first."""
    slowest, fastest, brake, accelerate = limits[0], limits[1], limits[2], limits[3]
    sideways, side_acceleration = limits[4], limits[5]
    axle = limits[10] * length
    cos_pose, sin_pose = np.cos(heading), np.sin(heading)
    along_u, along_w = np.zeros(len(u)), np.zeros(len(w))
    along_x, along_y, along_facing = 0.0, 0.0, 0.0  # summed over all later steps
    for n in range(knots * STEPS_PER_KNOT, 0, -1):
        knot, look = (n - 1) // STEPS_PER_KNOT, n // every - 1
        if n % every == 0 and look < len(back):
            x = back[look, 0] * cos_pose + back[look, 1] * sin_pose
            y = back[look, 1] * cos_pose - back[look, 0] * sin_pose
            along_x += x
            along_y += y
            along_facing += back[look, 2] + axle * (y * np.cos(facing[n]) - x * np.sin(facing[n]))
        u_mid, w_mid = (u[n] + u[n - 1]) / 2, (w[n] + w[n - 1]) / 2
        middle = facing[n] - yaw[n] * DT / 2
        cos, sin = np.cos(middle), np.sin(middle)
        along_middle = (along_y * (u_mid * cos - w_mid * sin) - along_x * (u_mid * sin + w_mid * cos)) * DT
        along_facing += along_middle
        along_yaw = (along_facing - along_middle / 2) * DT
        along_u_mid, along_w_mid = (along_x * cos + along_y * sin) * DT, (along_y * cos - along_x * sin) * DT
        turn, steeper = _turn(abs(u_mid), limits)
        wanted = x0[knot, 1] * scale[1]
        if abs(wanted) <= turn:
            slope[knot, 1] += along_yaw * scale[1]
        else:
            along_u_mid += along_yaw * np.sign(wanted) * steeper * np.sign(u_mid)
        along_u[n] += along_u_mid / 2
        along_u[n - 1] += along_u_mid / 2
        along_w[n] += along_w_mid / 2
        along_w[n - 1] += along_w_mid / 2
    for knot in range(knots - 1, -1, -1):
        begin = knot * STEPS_PER_KNOT
        forward, lateral = x0[knot, 0] * scale[0], x0[knot, 2] * scale[2]
        for step in range(1, STEPS_PER_KNOT + 1):
            n, time = begin + step, step * DT
            if slowest <= u[begin] + _clip(forward, brake, accelerate) * time <= fastest:
                along_u[begin] += along_u[n]
                if brake <= forward <= accelerate:
                    slope[knot, 0] += along_u[n] * time * scale[0]
            if abs(w[begin] + _clip(lateral, -side_acceleration, side_acceleration) * time) <= sideways:
                along_w[begin] += along_w[n]
                if abs(lateral) <= side_acceleration:
                    slope[knot, 2] += along_w[n] * time * scale[2]
