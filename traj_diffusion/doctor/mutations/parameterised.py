"""The healthy tiny model as one that says eps or v, and what goes wrong between saying and sampling."""

from dataclasses import replace

from torch import Tensor

from traj_diffusion.diffusion import TableVP, convert, linear_beta
from traj_diffusion.doctor.mutations.mutation import Mutation, of, says
from traj_diffusion.doctor.subject import Bound, Subject, plain_subject
from traj_diffusion.training.batch import Batch

_STEPS = 16  # DDPM's schedule hurries through the levels at which data are decided


def as_parameterisation(subject: Subject, name: str) -> Subject:
    """Return a healthy subject whose network says `name`, on DDPM's schedule, which never loses all signal."""
    schedule = TableVP(linear_beta())
    plain, known = plain_subject(schedule, name, _STEPS), subject.schedule

    def bind(batch: Batch) -> Bound:
        bound = of(subject)(batch)

        def ask(x_t: Tensor, t: Tensor) -> Tensor:
            # Both schedules preserve variance, so that the same log SNR means the same x_t.
            x0 = bound(x_t, known.t_of_log_snr(schedule.log_snr(t)))
            return convert(x0, subject.parameterisation, name, x_t, schedule.alpha(t), schedule.sigma(t))

        return ask

    return replace(
        subject,
        schedule=schedule,
        parameterisation=name,
        network=bind,
        add_noise=plain.add_noise,
        target=plain.target,
        to_x0=plain.to_x0,
        prior=plain.prior,
        sampler=plain.sampler,
        fresh=None,
        earlier=(),
    )


def _taken_for(subject: Subject, said: str, sampled: str) -> Subject:
    return replace(as_parameterisation(subject, sampled), network=of(as_parameterisation(subject, said)))


BUGS = (
    Mutation("eps trained, x0 sampled", lambda s: _taken_for(s, "eps", "x0"), ("model.parameterisation",)),
    Mutation("v trained, eps sampled", lambda s: _taken_for(s, "v", "eps"), ("model.parameterisation",)),
    Mutation("u trained, v sampled", lambda s: _taken_for(s, "u", "v"), ("model.parameterisation",)),
    Mutation(
        "v trained with the other sign",
        lambda s: says(lambda said: -said)(as_parameterisation(s, "v")),
        ("model.parameterisation",),
    ),
)
