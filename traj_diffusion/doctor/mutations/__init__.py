"""Deliberate bugs, each injected alone into a healthy subject: the doctor must name the check that it belongs to.

They are the silent ones: nothing crashes, the loss may even fall.
"""

from traj_diffusion.doctor.mutations.mutation import Mutation
from traj_diffusion.doctor.mutations.parameterised import as_parameterisation
from traj_diffusion.doctor.mutations.suite import (
    diagnosis,
    healthy_subjects,
    mutated,
    mutations,
    run_mutations,
    to_row,
    to_table,
)

__all__ = [
    "Mutation",
    "as_parameterisation",
    "diagnosis",
    "healthy_subjects",
    "mutated",
    "mutations",
    "run_mutations",
    "to_row",
    "to_table",
]
