"""Checks of samples against the data: speed, jerk, overlaps, lanes left, variety, repeatability, closed loop."""

import math

import numpy as np
import torch
from torch import Tensor

from traj_diffusion.doctor.case import Case, rounded
from traj_diffusion.doctor.findings import Finding, NotApplicable, Series, factor, judged
from traj_diffusion.kinematics import DT, KNOT, STEPS_PER_KNOT, Motion
from traj_diffusion.metrics.collisions import overlaps
from traj_diffusion.scene import AgentKind
from traj_diffusion.sim_adapter import rollout

LANE_CODES = 4  # the first codes of map pieces are lanes
OFF_LANE = 3.0  # m from the nearest point of any lane
# How much more often samples may collide or leave lanes than recorded actions: one agent in ten. It is a bug where they
# do so as often as agents that drive each other's recorded actions, which know nothing of the place or of each other.
EXCESS = 0.1


def speed(case: Case) -> Finding:
    """Samples must go as fast as the data, on average."""
    if not case.moving.any():
        raise NotApplicable("nobody moves in the data")
    sampled, recorded = _speeds(case, case.sampled), _speeds(case, case.recorded)
    ratio = float(sampled.mean() / recorded.mean().clamp(min=1e-6))
    shares = torch.linspace(0, 1, 21)
    lines = {"samples": rounded(sampled.quantile(shares).tolist()), "data": rounded(recorded.quantile(shares).tolist())}
    return judged(
        "samples.speed",
        factor(ratio),
        1.25,
        1.6,
        f"moving agents go {float(sampled.mean()):.2f} m/s on average, {float(recorded.mean()):.2f} in the data",
        "actions are scaled wrongly on their way out, integrated with another dt, or biased",
        (Series("speeds, m/s", "quantile", rounded(shares.tolist()), lines),),
    )


def _speeds(case: Case, motion: Motion) -> Tensor:
    pace = motion.velocity.norm(dim=-1)
    return pace[case.moving].flatten()[:200_000]


def jerk(case: Case) -> Finding:
    """Samples must be as smooth as the data: jerk and the change of the yaw rate, knot by knot."""
    ratios = {
        name: float(sampled / recorded.clamp(min=1e-6))
        for (name, sampled), (_, recorded) in zip(
            _roughness(case, case.sampled).items(), _roughness(case, case.recorded).items(), strict=True
        )
        if recorded > 0.02
    }
    if not ratios:
        raise NotApplicable("the data neither brake nor turn")
    worst = max(ratios, key=lambda name: ratios[name])
    return judged(
        "samples.jerk",
        ratios[worst],
        1.6,
        2.5,
        ", ".join(f"{name} {ratio:.2f} times that of the data" for name, ratio in ratios.items()),
        "noise is left in the samples: take more denoising steps, end the grid at clean data, check the last step",
    )


def _roughness(case: Case, motion: Motion) -> dict[str, Tensor]:
    now = motion.velocity[..., STEPS_PER_KNOT - 1 :: STEPS_PER_KNOT, :].norm(dim=-1)
    turned = motion.heading[..., STEPS_PER_KNOT - 1 :: STEPS_PER_KNOT]
    jerk_of = now.diff(dim=-1).diff(dim=-1) / KNOT**2
    swing = turned.diff(dim=-1).diff(dim=-1) / KNOT**2
    rows = case.moving
    return {"jerk": jerk_of[rows].square().mean().sqrt(), "change of yaw rate": swing[rows].square().mean().sqrt()}


def overlap(case: Case) -> Finding:
    """Agents must not drive through each other more often than recorded actions do."""
    sampled, recorded, strange = (_overlap_rate(case, m) for m in (case.sampled, case.recorded, case.handed_round))
    return judged(
        "samples.overlap",
        sampled - recorded,
        EXCESS,
        max(2 * EXCESS, strange - recorded),
        f"{sampled:.1%} of moving agents come to overlap somebody, {recorded:.1%} in the data, "
        f"{strange:.1%} where each drives another one's record",
        "a future of a scene must be drawn jointly: one noise level for all of its agents, neighbours' plans visible",
    )


def _overlap_rate(case: Case, motion: Motion) -> float:
    c = case.batch.conditioning
    position, heading = case.in_world(motion)
    hits = count = 0
    for row in range(len(c.valid)):
        there, runs = c.valid[row], position.shape[2]
        if there.sum() < 2:
            continue
        # The present comes first, so that who overlaps already can be told.
        centre = torch.cat([c.pose[row, :, None, None, :2].expand(-1, runs, 1, 2), position[row]], 2)[there]
        facing = torch.cat([c.pose[row, :, None, None, 2].expand(-1, runs, 1), heading[row]], 2)[there]
        place = centre.transpose(0, 1).double().numpy()
        angle = facing.transpose(0, 1).double().numpy()
        size = np.repeat(c.size[row, there, :2].double().numpy()[None], runs, 0)
        valid = np.ones(angle.shape, bool)
        _, hit = overlaps(place, angle, size, valid)
        _, now = overlaps(place[:, :, :1], angle[:, :, :1], size, valid[:, :, :1])
        new = (hit & ~now).any(-1)[:, case.moving[row, there].numpy()]
        hits, count = hits + int(new.sum()), count + new.size
    if not count:
        raise NotApplicable("no example of the data has two agents")
    return hits / count


def offroad(case: Case) -> Finding:
    """Vehicles that are on a lane must stay on lanes as long as recorded actions keep them there."""
    sampled, recorded, strange = (_off_lane_rate(case, m) for m in (case.sampled, case.recorded, case.handed_round))
    return judged(
        "samples.offroad",
        sampled - recorded,
        EXCESS,
        max(2 * EXCESS, strange - recorded),
        f"{sampled:.1%} of moving vehicles on a lane leave all lanes within the plan, {recorded:.1%} in the data, "
        f"{strange:.1%} where each drives another one's record",
        "the map is not used, lies in another frame, or headings are off: see conditioning.map and model.equivariance",
    )


def _off_lane_rate(case: Case, motion: Motion) -> float:
    c, pieces = case.batch.conditioning, case.batch.map
    position, _ = case.in_world(motion)
    off = count = 0
    for row in range(len(c.valid)):
        map_row = min(row, len(pieces.code) - 1)
        lanes = pieces.valid[map_row] & (pieces.code[map_row] < LANE_CODES)
        chosen = case.moving[row] & (c.kind[row] == AgentKind.VEHICLE)
        if not (lanes.any() and chosen.any()):
            continue
        pose, points = pieces.pose[map_row, lanes], pieces.points[map_row, lanes]
        cos, sin = pose[:, None, 2].cos(), pose[:, None, 2].sin()
        lane = torch.stack(
            [cos * points[..., 0] - sin * points[..., 1], sin * points[..., 0] + cos * points[..., 1]], -1
        )
        lane = (lane + pose[:, None, :2]).flatten(0, 1)
        began = torch.cdist(c.pose[row, chosen, :2], lane).amin(-1) < OFF_LANE
        # Beyond where the map was cut off nothing can be told.
        knots = position[row, chosen][began][:, :, STEPS_PER_KNOT - 1 :: STEPS_PER_KNOT]
        if not len(knots):
            continue
        distance = torch.cdist(knots.flatten(0, 2), lane).amin(-1).reshape(knots.shape[:-1])
        extent = pose[:, :2].norm(dim=-1).max()
        known = knots.norm(dim=-1) < extent
        off += int(((distance > OFF_LANE) & known).any(-1).sum())
        count += distance[..., 0].numel()
    if not count:
        raise NotApplicable("no moving vehicle of the data is on a lane")
    return off / count


def diversity(case: Case) -> Finding:
    """Futures must spread about as far apart as the record lies from them; less is collapse (spread and skill)."""
    position = case.sampled.position
    futures = position.shape[2]
    pairs = [(i, j) for i in range(futures) for j in range(i + 1, futures)]
    apart = torch.stack([(position[:, :, i] - position[:, :, j]).norm(dim=-1).mean(-1) for i, j in pairs]).mean(0)
    spread, miss = float(apart[case.moving].mean()), case.ade(position)
    return judged(
        "samples.diversity",
        spread / max(miss, 1e-9),
        0.35,
        0.15,
        f"two futures of an agent lie {spread:.2f} m apart on average, and {miss:.2f} m from the record",
        "futures share their noise, or the network answers the mean: key noise by future; see model.one_step",
    )


def determinism(case: Case) -> Finding:
    """The same seed must give the same bits, another seed other samples, more futures the same first ones."""
    again, other = case.draw(case.batch), case.draw(case.batch, seed=1)
    moved = float((again - case.samples).abs().max())
    differs = float((other - case.samples).abs().max())
    if moved == 0 and differs == 0:
        moved, text = math.inf, "another seed gives the same samples: the seed is not used"
    else:
        text = f"drawn twice with one seed, samples differ by at most {moved:.2g}; with another seed by {differs:.2g}"
    return judged(
        "samples.determinism",
        moved,
        0.0,
        1e-6,
        text,
        "draw noise from a generator (or keys) made from the seed, never from a global one; no dropout in sampling",
    )


def replan(case: Case) -> Finding:
    """In closed loop nobody may jump where one plan ends and the next begins."""
    policy, scenes = case.subject.policy, case.subject.scenes
    if policy is None:
        raise NotApplicable("the subject has no policy")
    if not scenes:
        raise NotApplicable("closed loops need scenes, these data are a cache")
    every, jumps, peaks = 5, 0.0, []
    for scene in scenes[:2]:
        made = rollout(scene, policy, rollouts=2, replan_every=every, seconds=2.5)
        rows = scene.sim_agents
        past = scene.agents.position[rows, scene.current_index, :2]
        start = np.broadcast_to(past[None, :, None], (*made.position.shape[:2], 1, 2))
        pace = scene.agents.velocity[rows, scene.current_index]
        before = start - np.broadcast_to(pace[None, :, None] * DT, start.shape)
        order = np.argsort(np.argsort(made.agent_id)) if (made.agent_id != scene.agents.id[rows]).any() else slice(None)
        track = np.concatenate([before, start, made.position[:, order, :, :2]], axis=2)
        change = np.linalg.norm(np.diff(track, 2, axis=2), axis=-1) / DT  # m/s from one step to the next
        peaks.append(change.max((0, 1)))
        at_plan = np.arange(change.shape[2]) % every == 0
        jumps = max(jumps, float((change[..., at_plan] > _JUMP).any(-1).mean()))
    longest = np.stack(peaks).max(0)
    return judged(
        "closed_loop.replan",
        jumps,
        0.02,
        0.1,
        f"{jumps:.1%} of agents change their velocity by more than {_JUMP:g} m/s within one step of a new plan",
        "plans do not begin at the simulated state: stale history, another frame, velocities not updated",
        (
            Series(
                "largest change of velocity in one step, m/s",
                "step",
                tuple(map(float, range(len(longest)))),
                {"largest": rounded(longest.tolist())},
            ),
        ),
    )


_JUMP = 2.0  # m/s within a step of .1 s; tyres give .9
