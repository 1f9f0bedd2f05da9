"""Many scenes to tables: rolled out or read, scored, summed up."""

from traj_diffusion.evaluation.headline import headline
from traj_diffusion.evaluation.run import (
    RunSettings,
    evaluate_folder,
    evaluate_policy,
    roll_out,
    scene_count,
    summary,
    write_summary,
)

__all__ = [
    "RunSettings",
    "evaluate_folder",
    "evaluate_policy",
    "headline",
    "roll_out",
    "scene_count",
    "summary",
    "write_summary",
]
