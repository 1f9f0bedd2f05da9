"""Many scenes to tables: rolled out or read, scored, summed up."""

from traj_diffusion.evaluation.evaluate import evaluate
from traj_diffusion.evaluation.rows import Run, SceneRow, load_run
from traj_diffusion.evaluation.run import RunSettings, roll_out, scene_count
from traj_diffusion.evaluation.score_row import score_row
from traj_diffusion.evaluation.tables import run_figures, run_table

__all__ = [
    "Run",
    "RunSettings",
    "SceneRow",
    "evaluate",
    "load_run",
    "roll_out",
    "run_figures",
    "run_table",
    "scene_count",
    "score_row",
]
