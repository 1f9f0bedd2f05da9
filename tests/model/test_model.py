"""The network: what it must not notice (frame, order, padding, absent things), and what it must."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from traj_diffusion.datasets.conditioning import Conditioning, MapTensors
from traj_diffusion.errors import BadConfig
from traj_diffusion.geometry import rotate, wrap_angle
from traj_diffusion.model import ModelConfig, TrafficDiffusion

CONFIG = ModelConfig(
    width=32, n_heads=4, encoder_layers=2, denoiser_layers=2, near_map=10, near_lights=3, near_agents=4
)


def a_model() -> TrafficDiffusion:
    """A model whose output layer is not the zero that training starts from, so that differences show."""
    torch.manual_seed(1)
    model = TrafficDiffusion(CONFIG).eval()
    torch.nn.init.normal_(model.denoiser.out.weight, std=0.3)
    for layer in model.denoiser.layers:
        torch.nn.init.normal_(layer.table, std=0.1)
    return model


def a_scene(agents: int = 6, pieces: int = 14, lights: int = 4, batch: int = 2) -> tuple[Conditioning, MapTensors]:
    g = torch.Generator().manual_seed(2)

    def some(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=g) * scale

    c = Conditioning(
        history=some(batch, agents, 11, 7),
        pose=some(batch, agents, 3, scale=20.0),
        speed=some(batch, agents, 2, scale=3.0),
        velocity=some(batch, agents, 2, scale=3.0),
        size=some(batch, agents, 3).abs(),
        kind=torch.randint(1, 4, (batch, agents), generator=g),
        valid=torch.ones(batch, agents, dtype=torch.bool),
        light_pose=some(batch, lights, 3, scale=20.0),
        light_state=torch.randint(0, 9, (batch, lights), generator=g),
        light_valid=torch.ones(batch, lights, dtype=torch.bool),
        route=torch.randint(0, 3, (batch, agents, pieces), generator=g),
        light_route=torch.randint(0, 3, (batch, agents, lights), generator=g),
    )
    tensors = MapTensors(
        points=some(batch, pieces, 10, 2, scale=5.0),
        pose=some(batch, pieces, 3, scale=20.0),
        length=some(batch, pieces).abs() * 10,
        code=torch.randint(0, 20, (batch, pieces), generator=g),
        speed_limit=some(batch, pieces).abs() * 10,
        valid=torch.ones(batch, pieces, dtype=torch.bool),
    )
    return c, tensors


def predict(model: TrafficDiffusion, c: Conditioning, tensors: MapTensors, x_t: Tensor, t: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x_t, t, model.encode(c, tensors, model.encode_map(tensors)))


def noised(agents: int = 6, futures: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(5)
    return torch.randn(2, agents, futures, 16, 3, generator=g), torch.rand(2, agents, futures, generator=g)


def close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, atol=2e-4, rtol=1e-3))


def test_shifting_and_turning_the_world_changes_nothing() -> None:
    model, (c, tensors), (x_t, t) = a_model(), a_scene(), noised()
    angle, shift = torch.tensor(0.7), torch.tensor([300.0, -120.0])

    def moved(pose: Tensor) -> Tensor:
        turned = rotate(pose[..., :2], angle.expand(pose.shape[:-1])) + shift
        return torch.cat([turned, wrap_angle(pose[..., 2:] + angle)], -1)

    turned = replace(
        c,
        pose=moved(c.pose),
        velocity=rotate(c.velocity, angle.expand(c.velocity.shape[:-1])),
        light_pose=moved(c.light_pose),
    )
    there = replace(tensors, pose=moved(tensors.pose))
    assert close(predict(model, c, tensors, x_t, t), predict(model, turned, there, x_t, t))


def test_the_order_of_agents_does_not_matter() -> None:
    model, (c, tensors), (x_t, t) = a_model(), a_scene(), noised()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    per_agent = ("history", "pose", "speed", "velocity", "size", "kind", "valid", "route", "light_route")
    shuffled = replace(c, **{name: getattr(c, name)[:, order] for name in per_agent})
    there = predict(model, shuffled, tensors, x_t[:, order], t[:, order])
    assert close(predict(model, c, tensors, x_t, t)[:, order], there)


def test_padding_changes_nothing_whatever_it_holds() -> None:
    model, (c, tensors), (x_t, t) = a_model(), a_scene(), noised()
    g = torch.Generator().manual_seed(9)

    def padded(value: Tensor, axis: int, count: int = 2) -> Tensor:
        shape = [*value.shape]
        shape[axis] = count
        if value.dtype == torch.bool:
            junk = torch.zeros(shape, dtype=torch.bool)
        elif value.dtype == torch.long:
            junk = torch.randint(0, 3, shape, generator=g)
        else:
            junk = torch.randn(shape, generator=g)
        return torch.cat([value, junk], axis)

    c2 = Conditioning(
        **{
            name: padded(padded(value, 2), 1) if name in ("route", "light_route") else padded(value, 1)
            for name, value in vars(c).items()
        }
    )
    tensors2 = MapTensors(**{name: padded(value, 1) for name, value in vars(tensors).items()})
    there = predict(model, c2, tensors2, padded(x_t, 1), padded(t, 1))
    assert close(predict(model, c, tensors, x_t, t), there[:, :6])


def test_other_futures_do_not_matter() -> None:
    model, (c, tensors), (x_t, t) = a_model(), a_scene(), noised()
    alone = predict(model, c, tensors, x_t[:, :, :1], t[:, :, :1])
    assert close(predict(model, c, tensors, x_t, t)[:, :, :1], alone)


@pytest.mark.parametrize("what", ["map", "light", "route", "history", "other", "level"])
def test_each_input_is_heard(what: str) -> None:
    model, (c, tensors), (x_t, t) = a_model(), a_scene(), noised()
    before = predict(model, c, tensors, x_t, t)
    if what == "map":
        tensors = replace(tensors, points=tensors.points + 1)
    elif what == "light":
        c = replace(c, light_state=(c.light_state + 1) % 9)
    elif what == "route":
        c = replace(c, route=(c.route + 1) % 3)
    elif what == "history":
        c = replace(c, history=c.history + 0.5)
    elif what == "other":  # what the neighbours are about to do
        x_t = torch.cat([x_t[:, :1], x_t[:, 1:] + 1], 1)
    else:
        t = 1 - t
    assert float((predict(model, c, tensors, x_t, t)[:, 0] - before[:, 0]).abs().max()) > 1e-3


@pytest.mark.parametrize(("agents", "lights"), [(1, 4), (6, 0), (1, 0)])
def test_one_agent_and_no_lights_work(agents: int, lights: int) -> None:
    model, (c, tensors), (x_t, t) = a_model(), a_scene(agents, lights=lights), noised(agents)
    assert torch.isfinite(predict(model, c, tensors, x_t, t)).all()


def test_no_map_works() -> None:
    model, (c, tensors), (x_t, t) = a_model(), a_scene(), noised()
    tensors = replace(tensors, valid=torch.zeros_like(tensors.valid))
    assert torch.isfinite(predict(model, c, tensors, x_t, t)).all()


def test_normalising_goes_both_ways() -> None:
    model, (c, _) = a_model(), a_scene()
    action = torch.randn(2, 6, 16, 3)
    assert close(model.denormalise(model.normalise(action, c.kind), c.kind), action)


def test_a_config_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BadConfig, match="heads"):
        ModelConfig(width=30, n_heads=4)
    with pytest.raises(BadConfig, match="4 heads cannot share 3"):
        ModelConfig(memory_heads=3)
    for name in ("width", "n_heads", "memory_heads", "knots", "knots_per_token"):
        with pytest.raises(BadConfig, match=f"{name} is 0; it must be at least 1"):
            ModelConfig(**{name: 0})
