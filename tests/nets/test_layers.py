"Every layer against a plain version of itself, in float64."
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from hypothesis import given, settings, strategies as st
from skeletongait.nets.layers import (
    AttentionFusion,
    Block2D,
    Block3D,
    BlockP3D,
    Conv2d,
    PointConv3d,
    SeparateBNNecks,
    SeparateFCs,
    SpaceTimeConv,
    TemporalConv,
    horizontal_pool,
    temporal_max,
)

def rand(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))
def close(a, b): torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
lengths = st.lists(st.integers(1, 6), min_size=1, max_size=4)

def plain_3d(conv, x_fchw, lengths): # PyTorch's own 3-D convolution, one sequence after the other
    return torch.cat(
        [nn.Conv3d.forward(conv, x.transpose(0, 1)[None])[0].transpose(0, 1) for x in x_fchw.split(lengths)]
    )

@pytest.mark.parametrize(
    'conv', [TemporalConv(3, 5), SpaceTimeConv(3, 5), SpaceTimeConv(3, 5, 2), PointConv3d(3, 5), PointConv3d(3, 5, 2)]
)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@settings(max_examples=10, deadline=None)
@given(lengths=lengths, size=st.tuples(st.integers(1, 7), st.integers(1, 7)))
def test_convolutions_in_time(conv, memory_format, lengths, size):
    conv = conv.double()
    x = rand(sum(lengths), 3, *size).contiguous(memory_format=memory_format).requires_grad_()
    got = conv(x) if isinstance(conv, PointConv3d) else conv(x, lengths)
    want = plain_3d(conv, x, lengths)
    close(got, want)
    for a, b in zip(
        torch.autograd.grad(got.square().sum(), (x, conv.weight)),
        torch.autograd.grad(want.square().sum(), (x, conv.weight)),
    ):
        close(a, b)

@pytest.mark.parametrize('k,stride', [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_convolutions_on_frames(k, stride):
    conv, x = Conv2d(3, 5, k, stride).double(), rand(2, 3, 8, 7)
    close(conv(x), nn.Conv2d.forward(conv, x))

@pytest.mark.parametrize('block', [Block2D, BlockP3D, Block3D])
def test_identity_past_a_block(block): # with all convolutions at zero nothing is left but the identity
    b, x = block(4, 4).double().eval(), rand(5, 4, 8, 6).relu()
    for m in b.modules():
        if isinstance(m, (nn.Conv2d, nn.Conv3d)):
            nn.init.zeros_(m.weight)
    close(b(x, [2, 3]), x)

@pytest.mark.parametrize('block,reach', [(Block2D, 0), (BlockP3D, 1), (Block3D, 2)])
def test_reach_in_time(block, reach):
    b, x = block(2, 2).double().eval(), rand(9, 2, 5, 5).requires_grad_()
    for m in b.modules():
        if isinstance(m, (nn.Conv2d, nn.Conv3d)):
            nn.init.constant_(m.weight, .1)
    b(x.abs(), [9])[4].sum().backward()
    assert torch.nonzero(x.grad.abs().amax((1, 2, 3))).flatten().tolist() == list(range(4-reach, 5+reach))

@given(lengths=lengths)
def test_temporal_max(lengths):
    x = rand(sum(lengths), 2, 3, 4)
    close(temporal_max(x, lengths), torch.stack([o.amax(0) for o in x.split(lengths)]))

@pytest.mark.parametrize('h', [16, 32, 48])
def test_horizontal_pool(h):
    x = rand(2, 3, h, 5).contiguous(memory_format=torch.channels_last)
    k = h//16
    strips = [x[:, :, i*k:i*k+k].flatten(2) for i in range(16)]
    close(horizontal_pool(x), torch.stack([o.mean(-1) + o.amax(-1) for o in strips], -1))

def test_neck():
    x = rand(6, 4, 16)
    neck = SeparateBNNecks(16, 4, 3).double()
    fcs = SeparateFCs(16, 4, 5).double()
    nn.init.uniform_(neck.bn1d.weight, .5, 1.5)
    nn.init.uniform_(neck.bn1d.bias, -1, 1)
    embed, logits = neck(x)
    w, b = neck.bn1d.weight.view(4, 16), neck.bn1d.bias.view(4, 16)      # channel-major: index = channel * 16 + strip
    for p in range(16):
        e = (x[..., p] - x[..., p].mean(0))/(x[..., p].var(0, unbiased=False) + 1e-5).sqrt()*w[:, p] + b[:, p]
        e = e/e.norm(dim=1, keepdim=True)
        close(embed[..., p], e)
        close(logits[..., p], e @ F.normalize(neck.fc_bin[p], dim=0))
        close(fcs(x)[..., p], x[..., p] @ fcs.fc_bin[p])
    assert logits.abs().max() <= 1 + 1e-9

def test_attention_weighs_silhouette_first():
    fuse = AttentionFusion(32).double().eval()
    sil, maps = rand(2, 32, 8, 6), rand(2, 32, 8, 6, seed=1)
    weights = fuse.conv(torch.cat([sil, maps], 1)).unflatten(1, (2, 32)).softmax(1)
    close(fuse(sil, maps), weights[:, 0]*sil + weights[:, 1]*maps)
    close(fuse.weight(sil, maps), weights[:, 0])

@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('frames', [1, 2, 3, 5])
@pytest.mark.parametrize('stride', [1, 2])
def test_the_gradient_of_a_space_time_weight(stride, frames, dtype):
    "For two frames torch's own kernel does not write it, in bfloat16 on AVX-512."
    conv, x = SpaceTimeConv(8, 8, stride).to(dtype), rand(2*frames, 8, 16, 12).to(dtype)
    exact = SpaceTimeConv(8, 8, stride).double()
    exact.load_state_dict(conv.state_dict())
    conv(x, [frames]*2).square().sum().backward()
    plain_3d(exact, x.double(), [frames]*2).square().sum().backward()
    error = (conv.weight.grad.double() - exact.weight.grad).norm()/exact.weight.grad.norm()
    assert error < (.02 if dtype == torch.bfloat16 else 1e-5)
