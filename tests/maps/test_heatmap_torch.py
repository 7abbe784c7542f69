"Skeleton maps in PyTorch: never more than a grey level from the compiled version."

import cv2
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from skeletongait.core import SkeletonGaitError
from skeletongait.maps.settings import HeatmapConfig, heatmap_config
from skeletongait.maps.heatmap import place_joints, render
from skeletongait.maps.renderer_torch import (
    _COSTS, _PAIRS, _grey, _levels, _segments, _weights, _windows, draw_maps_torch)
from skeletongait.poses.joints import JOINTS, PoseError
from skeletons import CASES, GOLDEN, SETTINGS, walk
from skeletons import apart, walkers


@pytest.mark.parametrize('case', CASES)
def test_golden(case):
    cfg = heatmap_config(SETTINGS.get(case))
    made = draw_maps_torch(torch.from_numpy(place_joints(GOLDEN[f'in_{case}'], cfg)), cfg)
    assert np.abs(made.numpy().astype(int) - GOLDEN[f'out_{case}']).max() <= 1


coordinate = st.floats(-60, 190) | st.integers(-10, 140).map(float) | st.sampled_from([-1e5, -.5, 63.5, 64., 1e4])
confidence = st.sampled_from([0., 9.99e-4, 1e-3, 1/256, .5, 1., 1.5]) | st.floats(0, 1)


@st.composite
def poses(draw, n=2):
    "Joints anywhere, of any confidence; sometimes few points (short and level limbs), sometimes on whole pixels."
    joints = np.concatenate([draw(hnp.arrays('f8', (n, 17, 2), elements=coordinate)),
                             draw(hnp.arrays('f8', (n, 17, 1), elements=confidence))], -1)
    if draw(st.booleans()):
        joints[..., :2] = 64 + (joints[..., :2] - 64)*draw(st.sampled_from([0, 1e-3, .02, .1, .3]))
    if draw(st.booleans()):
        joints[..., 1] = joints[:, :1, 1]
    return joints.astype(draw(st.sampled_from(['f4', 'f8'])))


configs = st.builds(HeatmapConfig, sigma=st.sampled_from([.3, 1., 2.5, 8., 20.]) | st.floats(.2, 30),
                    img_h=st.sampled_from([32, 97, 128]), img_w=st.sampled_from([32, 70, 128]),
                    align=st.booleans(), final_img_size=st.sampled_from([1, 16, 33, 48, 64, 100, 128, 150]),
                    offset=st.sampled_from([0, 0, 1, 7, 200]), centre=st.sampled_from([16, 20, 31]))


@settings(max_examples=150)
@given(poses(), configs)
def test_any_pose_and_setting(joints, cfg):
    assert apart(joints, cfg) <= 1


@settings(max_examples=60)
@given(poses(), st.floats(.2, 20), st.sampled_from([(64, 64), (50, 90)]))
def test_grey_levels_before_alignment_are_equal(joints, sigma, size):
    sigmas = torch.full((len(joints),), sigma, dtype=torch.float64)
    want = render(joints[..., :2], joints[..., 2], sigma, *size)
    for m, (pairs, costs) in enumerate(zip(_PAIRS, _COSTS)):
        s = _segments(torch.from_numpy(joints).double(), pairs, sigmas, *size)
        made = _grey(costs(s, _windows(s, len(joints))[0], *size), _levels('cpu'))*255
        np.testing.assert_array_equal(made.round().numpy(), want[:, m])


@pytest.mark.parametrize('cfg', [
    HeatmapConfig(),
    HeatmapConfig(sigma=1.),
    HeatmapConfig(sigma=2., final_img_size=100),
    HeatmapConfig(sigma=4., offset=5),
    HeatmapConfig(align=False),
    HeatmapConfig(align=False, final_img_size=200),
    HeatmapConfig(align=False, img_h=50, img_w=100, final_img_size=70),
    HeatmapConfig(final_img_size=128),
    HeatmapConfig(img_h=96, img_w=150, centre=70),
    HeatmapConfig(image_size=64, img_h=64, img_w=64, centre=32)])
def test_bodies(cfg):
    assert apart(walkers(4), cfg) <= 1


@pytest.mark.parametrize('off', [('left_knee', 'nose'), JOINTS[:16], JOINTS])
@pytest.mark.parametrize('align', [True, False])
def test_joints_that_are_off(off, align):
    cfg = HeatmapConfig(joints_off=off, min_conf=.35, align=align)
    joints = place_joints(walk(3), cfg)
    assert apart(joints, cfg) <= 1 and draw_maps_torch(torch.from_numpy(joints), cfg).any() == (len(off) < 17)


@pytest.mark.parametrize('gone', [[2, 4], [0, 1, 2, 3, 4, 11], [15, 16]])
def test_joints_that_no_frame_has(gone):
    cfg = HeatmapConfig(leave_out_unseen=True)
    pose = walk(3)
    pose[:, gone, :2] = 0
    joints = place_joints(pose, cfg)
    assert apart(joints, cfg) <= 1 and draw_maps_torch(torch.from_numpy(joints), cfg).any()


@pytest.mark.parametrize('top', [.2, .3, .34])
def test_a_doubtful_row_is_decided_as_the_compiled_version_does(top):
    "Sigmas on either side of the one at which the map gains a row: closer than float32 can tell."
    joints = place_joints(walk(1))
    joints[:, :7, 2] = top
    def rows(sigma): return render(joints[..., :2], joints[..., 2], sigma)[0].any(2).sum(1).tolist()
    lo, hi = 3., 6.
    first = rows(lo)
    while hi - lo > 1e-12:
        lo, hi = (lo, mid) if rows(mid := (lo + hi)/2) != first else (mid, hi)
    assert rows(lo) != rows(hi)
    sigmas = np.concatenate([np.linspace(lo - 1e-8, lo, 20), np.linspace(hi, hi + 1e-8, 20)])
    assert apart(joints.repeat(40, 0), sigma=sigmas) <= 1


@pytest.mark.parametrize('size', [1, 16, 33, 64, 100, 128])
def test_weights_are_those_of_the_resize(size):
    rng = np.random.default_rng(size)
    def number(v): return torch.tensor([v], dtype=torch.float64)
    for h, w in [*rng.integers(1, 150, (80, 2)).tolist(), (size, size), (2*size, 2*size), (size, 2*size), (1, 150)]:
        image, shrink = rng.random((h, w)), torch.tensor([min(h, w) >= size])
        wy, wx = (_weights(number(0), number(n), shrink, n, size)[0] for n in (h, w))
        made = (wy @ torch.from_numpy(image) @ wx.T).numpy()
        np.testing.assert_allclose(made, cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), atol=1e-6,
                                   rtol=0, err_msg=f'{h} x {w} to {size}')


@settings(max_examples=50)
@given(st.integers(1, 150), st.integers(0, 40), st.sampled_from([16, 64, 100]), st.booleans())
def test_weights_keep_constant_pictures(count, first, size, shrink):
    shrink = shrink and count >= size
    w = _weights(torch.tensor([first]).double(), torch.tensor([count]).double(), torch.tensor([shrink]), 200, size)[0]
    torch.testing.assert_close(w.sum(1), torch.ones(size, dtype=torch.float64), atol=1e-6, rtol=0)
    assert (w >= 0).all() and not w[:, :first].any() and not w[:, first+count:].any()


def test_chunks_change_nothing():
    joints = torch.from_numpy(walkers(2)[:37])
    want = draw_maps_torch(joints)
    for chunk in (1, 5, 36, 37, 1000):
        assert torch.equal(draw_maps_torch(joints, chunk=chunk), want)
    with pytest.raises(SkeletonGaitError, match='chunk: found 0'):
        draw_maps_torch(joints, chunk=0)


def test_frames_do_not_influence_each_other():
    joints = torch.from_numpy(walkers(1))
    far = joints.clone()
    far[3, :, :2] = 1e6
    made, other = draw_maps_torch(joints), draw_maps_torch(far)
    assert not other[3].any() and torch.equal(made[torch.arange(len(made)) != 3], other[torch.arange(len(made)) != 3])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_each_frame_its_sigma(dtype):
    joints, sigma = walkers(1), torch.linspace(.5, 16, 20, dtype=dtype)
    made = draw_maps_torch(torch.from_numpy(joints), sigma=sigma)
    for j, s, m in zip(joints, sigma, made):
        assert torch.equal(draw_maps_torch(torch.from_numpy(j[None]), HeatmapConfig(sigma=float(s)))[0], m)
    assert apart(joints, sigma=sigma.double().numpy()) <= 1


def test_float32_joints_and_other_types():
    joints = walkers(1).astype('f4')
    want = draw_maps_torch(torch.from_numpy(joints.astype('f8')))
    assert torch.equal(draw_maps_torch(torch.from_numpy(joints)), want) and apart(joints) <= 1
    half = torch.from_numpy(joints).half()
    assert torch.equal(draw_maps_torch(half), draw_maps_torch(half.double()))


def test_joints_of_a_strided_view():
    joints = torch.from_numpy(walkers(1))
    assert torch.equal(draw_maps_torch(joints.transpose(0, 1).contiguous().transpose(0, 1)[::2]),
                       draw_maps_torch(joints[::2].clone()))


@pytest.mark.parametrize('value', [1e12, 1e100, 1e300, 1.7e308])
def test_far_away_joints_do_no_harm(value):
    joints = torch.from_numpy(walkers(1)[:4])
    joints[1, [0, 9, 16], :2] = torch.tensor([value, -value], dtype=torch.float64)
    made = draw_maps_torch(joints)
    assert torch.equal(made[[0, 2, 3]], draw_maps_torch(joints[[0, 2, 3]])) and made[1].any()


def test_nothing_to_draw():
    joints = torch.from_numpy(walkers(1)[:3])
    assert draw_maps_torch(joints[:0]).shape == (0, 2, 64, 64)
    assert draw_maps_torch(joints[:0], sigma=torch.zeros(0)).dtype == torch.uint8
    joints[..., 2] = 9.9e-4
    for cfg in (HeatmapConfig(), HeatmapConfig(align=False, final_img_size=48)):
        assert not draw_maps_torch(joints, cfg).any()


@pytest.mark.parametrize('shape', [(17, 3), (2, 3, 17, 3), (4, 18, 3), (4, 17, 2)])
def test_wrong_shapes(shape):
    with pytest.raises(SkeletonGaitError, match=r'expected \(N, 17, 3\)'):
        draw_maps_torch(torch.zeros(shape))


def test_what_cannot_be_drawn():
    joints = torch.from_numpy(walkers(1))
    with pytest.raises(SkeletonGaitError, match=r'sigma: found shape \(3,\); expected \(20,\)'):
        draw_maps_torch(joints, sigma=torch.ones(3))
    with pytest.raises(SkeletonGaitError, match='complex'):
        draw_maps_torch(joints.to(torch.complex64))
    for value in (np.nan, np.inf, -np.inf):
        for coordinate in range(3):
            bad = joints.clone()
            bad[[4, 9], 2, coordinate] = value
            with pytest.raises(PoseError, match='frames 4, 9:'):
                draw_maps_torch(bad)
    for value in (0., -1., np.nan, np.inf):
        sigma = torch.ones(20)
        sigma[6] = value
        with pytest.raises(PoseError, match='frame 6:'):
            draw_maps_torch(joints, sigma=sigma)


def test_input_stays_and_needs_no_gradient():
    joints = torch.from_numpy(walkers(1)).requires_grad_()
    before = joints.detach().clone()
    assert not draw_maps_torch(joints).requires_grad
    assert torch.equal(joints, before)


def test_precision_settings_of_training_do_not_matter():
    joints = torch.from_numpy(walkers(1))
    want, before = draw_maps_torch(joints), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision('medium')
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert torch.equal(draw_maps_torch(joints.float().double()), draw_maps_torch(joints.float()))
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert torch.equal(draw_maps_torch(joints), want)
    finally:
        torch.set_float32_matmul_precision(before)
