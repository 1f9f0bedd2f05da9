"""Many scenes to tables: rolled out or read, scored, summed up."""

from traj_diffusion.evaluation.run import (
    RunSettings,
    evaluate_folder,
    evaluate_policy,
    headline,
    read_rows,
    roll_out,
    summary,
)

__all__ = ["RunSettings", "evaluate_folder", "evaluate_policy", "headline", "read_rows", "roll_out", "summary"]
