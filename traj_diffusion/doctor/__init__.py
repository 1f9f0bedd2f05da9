"""The checklist of silent diffusion bugs, as checks with a figure, a threshold, a verdict and a remedy.

`examine(subject)` runs them on anybody's model that was made a `Subject`; `subject_of_checkpoint` makes one of ours.
"""

from traj_diffusion.doctor.adapt import load_data, subject_of_checkpoint, subject_of_model
from traj_diffusion.doctor.findings import Finding, Series, Verdict
from traj_diffusion.doctor.registry import CHECKS, NAMES, Report, examine
from traj_diffusion.doctor.subject import Subject, plain_subject

__all__ = [
    "CHECKS",
    "NAMES",
    "Finding",
    "Report",
    "Series",
    "Subject",
    "Verdict",
    "examine",
    "load_data",
    "plain_subject",
    "subject_of_checkpoint",
    "subject_of_model",
]
