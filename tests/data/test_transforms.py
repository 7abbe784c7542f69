"Transforms: one draw for a whole sequence, sizes, grey levels, and what a configuration may say."
import pickle
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from toys import chain
from skeletongait.core import SkeletonGaitError
from skeletongait.data.transforms import TRANSFORMS, affine_points, erased_box, perspective_corners, warp
from skeletongait.data.transforms import (
    BaseSilCuttingTransform, BaseSilTransform, Compose, RandomAffine, RandomErasing, RandomHorizontalFlip,
    RandomPerspective, RandomRotate, build_transform, fit_width, to_float)

RANDOM = [
    RandomPerspective(1),
    RandomHorizontalFlip(1),
    RandomRotate(1),
    RandomRotate(1, about_centre=True),
    RandomAffine(1),
    RandomErasing(1),
]
PUBLISHED = chain(0.2)
rng = np.random.default_rng
def smooth(t=4, c=3, h=64, w=64, seed=0):
    x = rng(seed).integers(0, 256, (t, c, h, w), dtype=np.uint8)
    return np.stack([cv2.GaussianBlur(o, (0, 0), 1.5) for o in x.reshape(-1, h, w)]).reshape(x.shape)

@pytest.mark.parametrize('t', RANDOM, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize('size', [(64, 64), (64, 44), (128, 88), (128, 128), (64, 48), (48, 48)])
def test_one_draw_for_all_frames_and_channels(t, size):
    x = smooth(3, 2, *size)
    kept = x.copy()
    for seed in range(5):
        y = t(x, rng(seed))
        assert y.shape == x.shape and y.dtype == np.uint8
        for i in range(3):
            for c in range(2):
                np.testing.assert_array_equal(y[i:i+1, c:c+1], t(x[i:i+1, c:c+1], rng(seed)))
    np.testing.assert_array_equal(x, kept)

@pytest.mark.parametrize('t', RANDOM, ids=lambda t: type(t).__name__)
def test_bytes_and_floats_agree_to_half_a_grey_level(t):
    x = smooth()
    for seed in range(10):
        assert np.abs(t(x, rng(seed)) - t(x.astype(np.float32), rng(seed))).max() < .51

@pytest.mark.parametrize('cls', [RandomPerspective, RandomHorizontalFlip, RandomRotate, RandomAffine, RandomErasing])
def test_probability(cls):
    x = smooth(1, 1)
    assert cls(0)(x, rng(0)) is x
    hits = sum(cls(.2)(x, rng(s)) is not x for s in range(500))
    assert 60 < hits < 140

@pytest.mark.parametrize(
    'h,w,expected', [(64, 64, 44), (128, 128, 88), (64, 44, 44), (128, 88, 88), (64, 48, 48), (128, 96, 96)]
)
@pytest.mark.parametrize('base', [BaseSilTransform, BaseSilCuttingTransform])
def test_either_base_ends_at_a_width_of_the_networks(h, w, expected, base):
    x = smooth(1, 1, h, w)
    y = fit_width(base()(x, rng(0)))
    np.testing.assert_array_equal(y, x[..., (w-expected)//2:(w+expected)//2])

def test_cut_is_ten_columns_per_64():
    assert BaseSilCuttingTransform()(np.zeros((1, 1, 64, 64), np.uint8), rng(0)).shape[-1] == 44
    assert BaseSilCuttingTransform()(np.zeros((1, 1, 128, 128), np.uint8), rng(0)).shape[-1] == 88

def test_divided_once():
    x = smooth()
    for base in (BaseSilTransform(), BaseSilCuttingTransform()):
        assert base(x, rng(0)).dtype == np.uint8
        a, b = to_float(torch.tensor(base(x, rng(0)))), to_float(torch.tensor(base(x.astype(np.float32), rng(0))))
        assert a.dtype == b.dtype == torch.float32
        torch.testing.assert_close(a, b)
    ramp = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(to_float(ramp), torch.arange(256)/255, rtol=0, atol=6e-8)
    assert ramp[255] == 255 # not in place

@given(st.sampled_from([(64, 64), (64, 44), (128, 88), (128, 128)]), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_draws_stay_in_range(size, seed):
    (h, w), r = size, rng(seed)
    c = w//44*10
    assert c == {44: 10, 64: 10, 88: 20, 128: 20}[w]
    tl, tr, br, bl = perspective_corners(h, w, r)
    for (x, y), top, left in ((tl, 1, 1), (tr, 1, 0), (br, 0, 0), (bl, 0, 1)):
        assert x == int(x) and y == (0 if top else h) and (0 <= x < c if left else w-c <= x < w)
    s = h//64*10
    (a, b), (a1, b1), (a2, b2) = affine_points(h, w, r)
    assert 0 <= min(a, b, b1, a2) and max(a, b, b1, a2) < s and h-s < a1 <= h and w-s < b2 <= w
    rows, cols = erased_box(h, w, .05, .2, .3, r)
    bh, bw = rows.stop-rows.start, cols.stop-cols.start
    assert 0 <= rows.start and rows.stop <= h and 0 <= cols.start and cols.stop <= w
    assert .045 < bh*bw/h/w < .21 and .27 < bh/bw < 3.7

def test_perspective_maps_the_drawn_corners_to_the_frame():
    "A bright dot between two drawn corners lands where the matrix says."
    h = w = 64
    for seed in range(5):
        corners = perspective_corners(h, w, rng(seed))
        m = cv2.getPerspectiveTransform(corners, np.float32([(0, 0), (w, 0), (w, h), (0, h)]))
        np.testing.assert_allclose(
            cv2.perspectiveTransform(corners[None], m)[0], [(0, 0), (w, 0), (w, h), (0, h)], atol=1e-3
        )
        dot = np.zeros((1, 1, h, w), np.uint8)
        dot[0, 0, 30:33, 30:33] = 255
        # the transform throws its coin first, then draws the corners
        class Fixed:
            def __init__(self): self.r = rng(seed)
            def random(self): return 0.
            def integers(self, *a): return self.r.integers(*a)
        out = RandomPerspective(1)(dot, Fixed())[0, 0].astype(float)
        x, y = cv2.perspectiveTransform(np.float32([[(31, 31)]]), m)[0, 0]
        yy, xx = np.mgrid[:h, :w]
        assert abs((out*xx).sum()/out.sum() - x) < .2 and abs((out*yy).sum()/out.sum() - y) < .2

def test_rotation_point():
    "The point that stays is x = H // 2, y = W // 2, or the centre proper."
    for about_centre, (x, y) in ((False, (32, 22)), (True, (22, 32))):
        h, w = (64, 44) if not about_centre else (65, 45)
        dot = np.zeros((1, 1, h, w), np.uint8)
        dot[0, 0, y, x] = 255
        for seed in range(5):
            assert RandomRotate(1, 10, about_centre)(dot, rng(seed))[0, 0, y, x] >= 254

def test_flip_twice_is_nothing():
    x = smooth()
    f = RandomHorizontalFlip(1)
    np.testing.assert_array_equal(f(f(x, rng(0)), rng(0)), x)

def test_warp_of_the_identity():
    x = smooth()
    np.testing.assert_array_equal(warp(x, np.eye(2, 3)), x)
    np.testing.assert_array_equal(warp(x, np.eye(3)), x)
    flipped = x[..., ::-1] # a view with a negative stride, as the flip before a rotation gives
    np.testing.assert_array_equal(warp(flipped, np.eye(2, 3)), flipped)

def test_compose_draws_in_order_from_one_generator():
    a, b = RandomPerspective(1), RandomRotate(1)
    x = smooth()
    r = rng(3)
    np.testing.assert_array_equal(Compose([a, b])(x, rng(3)), b(a(x, r), r))

def test_build():
    t = build_transform(PUBLISHED)
    assert [type(o).__name__ for o in t.transforms] == [
        'RandomPerspective',
        'BaseSilCuttingTransform',
        'RandomHorizontalFlip',
        'RandomRotate',
    ]
    assert [getattr(o, 'prob', None) for o in t.transforms] == [.2, None, .2, .2] and t.transforms[3].degree == 10
    x = smooth()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(t))(x, rng(1)), t(x, rng(1)))
    np.testing.assert_array_equal(build_transform([PUBLISHED])(x, rng(1)), t(x, rng(1)))
    for name in TRANSFORMS:
        assert type(build_transform({'type': name})).__name__ == name
    assert build_transform({'type': 'RandomErasing', 'prob': .3, 'sl': .1, 'sh': .3, 'r1': .5}).sh == .3
    nested = build_transform({'type': 'Compose', 'trf_cfg': [PUBLISHED, {'type': 'RandomErasing'}]})
    assert nested(x, rng(0)).shape == (4, 3, 64, 44)

@pytest.mark.parametrize('make, says', [
    (lambda: RandomRotate(1.2), 'prob: found 1.2 (a number), expected at least 0 and at most 1'),
    (lambda: RandomRotate(degree=181), 'degree: found 181 (a whole number), expected at least 0 and at most 180'),
    (lambda: RandomErasing(sl=.3), 'sl: found 0.3 (a number), expected at most sh, which is 0.2'),
    (lambda: RandomAffine('often'), 'prob: found "often" (text), expected a number'),
])
def test_made_in_python_it_is_checked_too(make, says):
    with pytest.raises(SkeletonGaitError) as e:
        make()
    assert str(e.value) == says

@pytest.mark.parametrize(
    'cfg,says',
    [
        ({'type': 'RandomRotation'}, 'did you mean RandomRotate?'),
        ({'type': 'RandomRotation'}, 'transform.type: found "RandomRotation" (text), expected one of BaseSil'),
        ({'type': 'RandomRotate', 'degrees': 3}, 'transform.degrees: unknown key; did you mean degree?'),
        ({'type': 'BaseSilTransform', 'prob': 3},
            'transform.prob: unknown key; it belongs at transform.prob (for RandomAffine, '),
        ({'type': 'Compose'}, 'transform.trf_cfg: missing; expected a list'),
        ({'type': 'Compose', 'trf_cfg': {}}, 'a list'),
        ({'type': 'Compose', 'trf_cfg': [{'type': 'Flip'}]},
            'transform.trf_cfg[0].type: found "Flip" (text), expected one'),
        ({'prob': 1}, 'transform.type: missing; expected one of BaseSil'),
        ([], 'a list of 0'),
        ([PUBLISHED, PUBLISHED], 'a list of 2'),
        ([3], 'mapping'),
        (None, 'mapping'),
        ({'type': 'RandomRotate', 'prob': 1.2},
            'transform.prob: found 1.2 (a number), expected at least 0 and at most 1'),
        ({'type': 'RandomRotate', 'prob': 'high'}, 'prob: found "high" (text), expected a number'),
        ({'type': 'RandomRotate', 'prob': True}, 'prob: found true, expected a number'),
        ({'type': 'RandomRotate', 'degree': -1},
            'degree: found -1 (a whole number), expected at least 0 and at most 180'),
        ({'type': 'RandomErasing', 'sl': 0.5}, 'transform.sl: found 0.5 (a number), expected at most sh, which is 0.2'),
        ({'type': 'RandomErasing', 'r1': 0}, 'r1: found 0 (a whole number), expected at least 0.01 and at most 1'),
        ({'type': ['RandomRotate']}, 'transform.type: found ["RandomRotate"] (a list), expected one of'),
    ],
)
def test_build_errors(cfg, says):
    with pytest.raises(SkeletonGaitError) as e:
        build_transform(cfg)
    assert says in str(e.value) and '\n' not in str(e.value)
