"""The compiled kernels say what torch's operations say, which training and exported models use."""

import pytest
import torch
from torch.nn import functional

from traj_diffusion.model import ModelConfig, TrafficDiffusion, fused
from traj_diffusion.model.denoiser import NeighbourAttention
from traj_diffusion.model.neighbours import as_seen


def test_modulate_is_layer_norm_scaled_and_shifted() -> None:
    torch.manual_seed(0)
    x, modulation = 3 * torch.randn(2, 5, 1, 4, 96) + 1, torch.randn(2, 5, 1, 8, 96)
    for sublayer in range(4):
        shift, scale = modulation[..., 2 * sublayer, None, :], modulation[..., 2 * sublayer + 1, None, :]
        expected = functional.layer_norm(x, (96,)) * (1 + scale) + shift
        torch.testing.assert_close(fused.modulate(x, modulation, sublayer), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("tokens", "futures", "sharp"), [(2, 1, 1.0), (4, 3, 1.0), (8, 1, 12.0)])
def test_neighbours_answer_as_with_torch(tokens: int, futures: int, sharp: float) -> None:
    torch.manual_seed(1)
    layer = NeighbourAttention(ModelConfig(width=64, knots_per_token=16 // tokens))
    x, relation = sharp * torch.randn(2, 7, futures, tokens, 64), torch.randn(2, 7, 5, 128)
    near, valid = torch.randint(0, 7, (2, 7, 5)), torch.rand(2, 7, 5) < 0.6
    valid[0, 3] = False  # nobody is near
    with torch.no_grad():
        compiled = layer(x, relation, near, valid)
    by_torch = layer(x, relation, near, valid).detach()  # a slope is wanted, so torch's operations it is
    torch.testing.assert_close(compiled, by_torch, rtol=1e-4, atol=1e-4)
    assert (compiled[0, 3] == 0).all()


@pytest.mark.parametrize("maps", [1, 3])
def test_others_are_seen_as_with_torch(maps: int) -> None:
    torch.manual_seed(4)
    pose, velocity = 40 * torch.randn(3, 7, 3), 9 * torch.randn(3, 7, 2)
    other, moving, points = 40 * torch.randn(maps, 11, 3), 9 * torch.randn(maps, 11, 2), 6 * torch.randn(1, 11, 10, 2)
    other[:, 0, :2] = pose[0, 0, :2]  # right there
    points[:, 1] = 0.0  # a point
    index = torch.randint(0, 11, (3, 7, 5))
    index[:, :, :2] = torch.arange(2)
    for moves, lines in ((None, None), (moving, None), (None, points)):
        with torch.no_grad():
            compiled = as_seen(pose, velocity, index, other, moves, lines)
        by_torch = as_seen(pose, velocity, index, other, moves, lines)  # slopes are on
        torch.testing.assert_close(compiled, by_torch, rtol=1e-4, atol=3e-5)


def test_kernels_keep_out_where_they_do_not_fit() -> None:
    x = torch.zeros(2)
    assert not fused.fits(x)  # slopes are on
    with torch.no_grad():
        assert fused.fits(x)
        assert not fused.fits(x.double())
        assert not fused.fits(x.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not fused.fits(x)


def test_a_model_may_be_of_any_width() -> None:
    torch.manual_seed(2)
    model = TrafficDiffusion(ModelConfig(width=36, n_heads=3, memory_heads=1, denoiser_layers=1))
    layer = model.denoiser.layers[0].others
    x = torch.randn(1, 3, 1, 8, 36)
    arguments = (x, torch.randn(1, 3, 2, 72), torch.tensor([[[1, 2], [0, 2], [0, 1]]]), torch.ones(1, 3, 2).bool())
    with torch.no_grad():
        compiled = layer(*arguments)
    torch.testing.assert_close(compiled, layer(*arguments).detach(), rtol=1e-4, atol=1e-5)
