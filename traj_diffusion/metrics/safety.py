"""What must not happen on the road, in the rollouts and, as reference, in the recording itself."""

from traj_diffusion.metrics.collisions import collisions
from traj_diffusion.metrics.feasibility import infeasibility
from traj_diffusion.metrics.figures import Figures, absent
from traj_diffusion.metrics.matching import AgentSet, Matched
from traj_diffusion.metrics.offroad import offroad
from traj_diffusion.metrics.signals import red_lights
from traj_diffusion.metrics.wrong_way import wrong_way

_PARTS = (collisions, offroad, red_lights, wrong_way, infeasibility)


def safety(matched: Matched, agents: AgentSet = AgentSet.EVALUATED) -> Figures:
    """Return all of `collisions`, `offroad`, `red_lights`, `wrong_way`, `infeasibility`: [0, 1], lower is better.

    Each also as `log/...`: the same figure for the recorded future of the same agents, while it is valid. A rate means
    little without that reference: boxes of a recording overlap and its cars cut corners.
    """
    found = {name: figure for part in _PARTS for name, figure in part(matched, agents).items()}
    if not matched.has_future:
        return found | absent([f"log/{name}" for name in found], "the scene has no future")
    log = matched.log_as_rollout()
    return found | {f"log/{name}": figure for part in _PARTS for name, figure in part(log, agents).items()}
