"Skeleton maps: the published numbers, the plain version as oracle, and what is better on purpose."
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import plain
from hypothesis import assume, given, settings, strategies as st
from sklearn.impute import KNNImputer

from skeletongait.maps import renderer as draw
from skeletongait.maps import heatmap
from skeletongait.core import SkeletonGaitError
from skeletongait.maps.settings import HeatmapConfig, default_settings, heatmap_config, load_heatmap_config
from skeletongait.maps.heatmap import (
    align_map, centre_and_scale, draw_maps, found_joints, impute_joints, impute_knn, impute_mean, notices,
    place_joints, pose_to_heatmap, render, switch_off)
from skeletongait.poses.joints import COCO17_FROM, JOINTS, LIMBS, PoseError
from skeletons import CASES, GOLDEN, SETTINGS, walk


@pytest.mark.parametrize('case', CASES)
def test_golden(case):
    pose, want = GOLDEN[f'in_{case}'], GOLDEN[f'out_{case}']
    made = pose_to_heatmap(pose, SETTINGS.get(case))
    assert made.dtype == np.uint8 and made.shape == want.shape
    if pose.dtype == np.float64:
        np.testing.assert_array_equal(made, want)
    else:
        off = np.abs(made.astype(int) - want)
        assert off.max() <= 1 and (off > 0).mean() <= 1e-4


coordinate = st.floats(-60, 110, width=32) | st.integers(-10, 40).map(float)
confidence = st.sampled_from([0., 1e-3, 9.9e-4, .5, 1.]) | st.floats(0, 1, width=32)
joints = st.tuples(hnp.arrays('f8', (2, 17, 2), elements=coordinate),
                   hnp.arrays('f8', (2, 17, 1), elements=confidence)).map(lambda o: np.concatenate(o, -1))


@settings(max_examples=60)
@given(joints, st.sampled_from([.4, 1, 2.5, 4, 8, 30]), st.sampled_from([(32, 32), (40, 24)]))
def test_render_equals_plain(k, sigma, shape):
    made = render(k[..., :2], k[..., 2], sigma, *shape)
    for frame, maps in zip(k, made):
        for m, ends in zip(maps, (LIMBS, [(i, i) for i in range(17)])):
            np.testing.assert_array_equal(m, plain.image(frame[:, :2], frame[:, 2], ends, sigma, shape))


@settings(max_examples=60)
@given(joints, st.sampled_from([1, 2.5, 8]), st.sampled_from([(32, 32), (48, 48), (40, 24)]),
       st.sampled_from([8, 11, 16, 24, 40]), st.booleans(), st.sampled_from([0, 2, 50]))
def test_drawn_and_aligned_equals_plain(k, sigma, shape, size, align, offset):
    "Cuts that shrink, by a whole factor or not, that stay and that grow."
    cfg = HeatmapConfig(sigma=sigma, img_h=shape[0], img_w=shape[1], final_img_size=size, align=align, offset=offset,
                        centre=shape[1]//2)
    np.testing.assert_array_equal(draw_maps(k, cfg),
                                  plain.draw(k, sigma, shape, size=size, align=align, offset=offset, centre=cfg.centre))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from(['f4', 'f8']), st.sampled_from([0, .02, .2, .7]),
       st.sampled_from([1.5, 4, 8]), st.sampled_from([False, 'frame', 'joint']))
def test_a_pose_with_holes_equals_plain(seed, n, dtype, missing, sigma, gone):
    "All five stages, over missing patterns, dtypes and sigmas; float32 is placed in float32 and drawn in float64."
    rng = np.random.default_rng(seed)
    pose = walk(n, dtype, seed)
    pose[..., 2] = rng.choice([0, 9.9e-4, 1e-3, .3, 1], pose.shape[:2]).astype(dtype)
    pose[rng.random(pose.shape[:2]) < missing, :2] = 0
    if gone == 'frame' and n > 1:
        pose[rng.integers(n), :, :2] = 0
    if gone == 'joint':
        pose[:, rng.integers(17), :2] = 0
    assume(np.ptp(plain.impute(pose[..., :2])[..., 1], axis=1).all())
    placed = np.concatenate([plain.place(plain.impute(pose[..., :2])), pose[..., 2:]], -1).astype('f8')
    np.testing.assert_array_equal(pose_to_heatmap(pose, HeatmapConfig(sigma=sigma)), plain.draw(placed, sigma))


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from(['f4', 'f8']),
       st.sampled_from(['walk', 'ties', 'copies']), st.sampled_from([.02, .2, .7]), st.booleans(), st.booleans())
def test_imputing_equals_scikit_learn(seed, n, dtype, kind, missing, single, empty):
    "To the bit: also where distances tie, frames repeat, a frame is empty, or only x or y is missing."
    rng = np.random.default_rng(seed)
    xy = {'walk': walk(n, dtype, seed)[..., :2], 'ties': rng.integers(1, 6, (n, 17, 2)),
          'copies': np.repeat(walk(n//4 + 1, dtype, seed)[..., :2], 4, 0)[:n]}[kind].astype(dtype)
    xy[rng.random((n, 17)) < missing] = 0
    if single:
        xy[rng.random(xy.shape) < .05] = 0
    if empty:
        xy[rng.integers(n)] = 0
    np.testing.assert_array_equal(impute_knn(xy), plain.impute(xy))
    gone = (xy == 0).all(0)
    assume(not gone.all())
    filled = impute_knn(xy, impute_others=True)
    np.testing.assert_array_equal(filled[:, gone], 0)
    np.testing.assert_array_equal(filled[:, ~gone], plain.impute(xy[:, ~gone][:, None])[:, 0])


KNN = KNNImputer(missing_values=0, n_neighbors=4, weights='distance')


def nearby(xy, window):
    "Holes filled by scikit-learn, each half window from the window around it; None where one lacks some coordinate."
    table = np.ascontiguousarray(xy).reshape(len(xy), -1)
    out, half = [], window//2
    for a in range(0, len(table), half):
        b = min(max(a - half//2, 0), len(table) - window)
        if (table[b:b+window] == 0).all(0).any(): return None
        out.append(KNN.fit(table[b:b+window]).transform(table[a:a+half]))
    return np.concatenate(out).reshape(xy.shape).astype(xy.dtype)


def long_walk(seed, n, missing):
    "A walk with holes of which no coordinate is missing throughout."
    rng = np.random.default_rng(seed)
    xy = walk(n, 'f8', seed)[..., :2].copy()
    xy[rng.random((n, 17)) < missing] = 0
    seen = rng.integers(n, size=17)
    xy[seen, np.arange(17)] = walk(n, 'f8', seed)[seen, np.arange(17), :2]
    return xy


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([4, 8, 20]), st.sampled_from([.05, .3, .9]))
def test_a_long_walk_is_imputed_window_by_window(seed, n, window, missing):
    "Up to the bound as ever; beyond it from a window alone, and no hole is left that the whole walk could fill."
    xy = long_walk(seed, n, missing)
    assume((xy != 0).any((1, 2)).all() and (xy != 0).any(0).all())
    with pytest.MonkeyPatch.context() as m:
        m.setattr(heatmap, 'WINDOW', window)
        filled = impute_knn(xy)
    assert np.isfinite(filled).all() and (filled != 0).all() and (filled == xy)[xy != 0].all()
    want = plain.impute(xy) if n <= window else nearby(xy, window)
    if want is not None:
        np.testing.assert_allclose(filled, want, rtol=1e-12)


@pytest.mark.parametrize('n', [2000, 2001])
def test_the_bound_of_imputation(n):
    "2,000 frames are imputed as a whole, to the bit; of 2,001 the last asks all but the first."
    rng = np.random.default_rng(0)
    xy = np.tile(walk(100, 'f8', 5)[..., :2], (21, 1, 1))[:n] + rng.normal(0, 1, (n, 17, 2))
    xy[rng.random((n, 17)) < .02] = 0
    xy[0] = xy[-1] # the last frame's best donor, if it may ask it
    xy[-1, 9] = 0
    filled, table = impute_knn(xy), xy.reshape(n, -1)
    if n == 2000:
        np.testing.assert_array_equal(filled, plain.impute(xy))
    else:
        np.testing.assert_allclose(filled[-1].ravel(), KNN.fit(table[1:]).transform(table[-1:])[0], rtol=1e-12)
    assert np.allclose(filled[-1, 9], xy[0, 9], atol=.01) == (n == 2000)


def test_what_lies_outside_its_window_does_not_move_a_frame(monkeypatch):
    monkeypatch.setattr(heatmap, 'WINDOW', 20)
    xy = long_walk(3, 100, .05)
    other = xy.copy()
    other[:40] += 7*(xy[:40] != 0)
    other[70:] = other[69]
    np.testing.assert_array_equal(impute_knn(other)[50:60], impute_knn(xy)[50:60]) # asks 45 to 64
    assert (impute_knn(other)[40:50] != impute_knn(xy)[40:50]).any()               # asks 35 to 54


def test_doubtful_pixels_are_settled_by_the_definition():
    "Confidences that put whole limbs exactly on the border of two grey levels."
    k = np.zeros((1, 17, 3))
    k[0, :, 0] = np.arange(17)*7 + 4
    k[0, :, 1] = 40 + 20*(np.arange(17) % 2)
    for c in (np.arange(1, 256, 5)/256): # exactly a border where the distance is 0
        k[0, :, 2] = c
        np.testing.assert_array_equal(draw_maps(k), plain.draw(k))
        k[0, :, 2] = np.nextafter(c, 0)
        np.testing.assert_array_equal(draw_maps(k), plain.draw(k))


@pytest.mark.parametrize('shape, size', [((128, 64), 32), ((64, 32), 16), ((40, 24), 8), ((49, 49), 1), ((98, 98), 2),
                                         ((105, 105), 5), ((64, 64), 64), ((96, 48), 48)])
@pytest.mark.parametrize('align', [True, False])
def test_ratios_that_are_whole_or_nearly(shape, size, align):
    "OpenCV takes means of blocks where both ratios are whole as it computes them, also if they differ."
    k = np.concatenate([np.random.default_rng(0).uniform(0, shape, (20, 17, 2))[..., ::-1],
                        np.random.default_rng(1).choice([.3, .5, 1], (20, 17, 1))], -1)
    cfg = HeatmapConfig(img_h=shape[0], img_w=shape[1], final_img_size=size, align=align, centre=shape[1]//2)
    np.testing.assert_array_equal(draw_maps(k, cfg), plain.draw(k, 8, shape, size=size, align=align, centre=cfg.centre))


@pytest.mark.parametrize('joints, says', [
    (np.ones((3, 5, 3)), 'shape (3, 5, 3)'),
    (np.ones((3, 17, 2)), 'shape (3, 17, 2)'),
    (np.ones((17, 3)), 'shape (17, 3)'),
    (np.full((1, 17, 3), np.nan), 'NaN')])
def test_joints_that_cannot_be_drawn(joints, says):
    with pytest.raises(PoseError, match=re.escape(says)):
        draw_maps(joints)


@pytest.mark.parametrize('sigma', [0, -3, np.nan, np.inf])
def test_sigmas_that_cannot_be_drawn(sigma):
    with pytest.raises(PoseError, match='sigma'):
        render(np.ones((1, 17, 2)), np.ones((1, 17)), sigma)


def test_compiled_code_that_cannot_be_stored(monkeypatch):
    "A full disk under numba's cache is not the fault of a pose."
    def full(*args): raise OSError(28, 'No space left on device', '/cache')
    monkeypatch.setattr(draw, 'draw_images', full)
    with pytest.raises(SkeletonGaitError, match='/cache.*No space left.*NUMBA_CACHE_DIR'):
        draw.compile_loops()


@pytest.mark.slow
def test_no_place_for_compiled_code(tmp_path):
    "A read-only installation and no home folder: every process compiles for itself."
    package = Path(draw.__file__).parents[1]
    shutil.copytree(package, tmp_path/'skeletongait', ignore=shutil.ignore_patterns('__pycache__'))
    code = ('import numba.core.caching as c; c.CacheImpl._locator_classes = []; '
            'import skeletongait.maps.renderer as d; d.compile_loops(); print(d.__file__)')
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and str(tmp_path) in done.stdout, done.stderr


def test_absurdly_far_joints_equal_plain():
    k = np.random.default_rng(0).normal(64, 20, (3, 17, 3))
    k[..., 2] = .7
    k[0, 0, :2] = 1e7
    k[1, 9, 0] = -3e9
    k[2, 5:9, 1] = 1e6
    np.testing.assert_array_equal(draw_maps(k), plain.draw(k))


@settings(max_examples=25)
@given(hnp.arrays('u1', (40, 40), elements=st.sampled_from([0, 0, 0, 1, 90, 255])), st.sampled_from([16, 64]),
       st.integers(0, 50))
def test_align(grey, size, offset):
    "Rows of the body with `offset` more, a square around the centre, area interpolation."
    made = align_map(grey, size, offset, 20)
    rows = [y for y in range(40) if grey[y].any()]
    if not rows: return np.testing.assert_array_equal(made, 0)
    top, bottom, half = min(rows), max(rows), (max(rows) - min(rows) + 1)//2
    cut = grey[max(top-offset, 0):min(bottom+offset, 39)+1, max(20-half, 0):min(20+half, 39)+1]/255
    resized = cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(made, (resized*255).astype('uint8'))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(.5, 4), st.floats(-500, 500))
def test_place_and_distance_do_not_matter(seed, factor, shift):
    pose = walk(2, seed=seed)
    moved = pose.copy()
    moved[..., :2] = pose[..., :2]*factor + shift + 3000
    assert np.abs(pose_to_heatmap(moved).astype(int) - pose_to_heatmap(pose)).max() <= 2


def test_frames_do_not_influence_each_other_without_holes():
    pose = walk()
    np.testing.assert_array_equal(pose_to_heatmap(pose)[3:5], pose_to_heatmap(pose[3:5]))


def test_float32_stays_near_float64():
    off = np.abs(pose_to_heatmap(walk(dtype='f4')).astype(int) - pose_to_heatmap(walk(dtype='f4').astype('f8')))
    assert off.max() <= 1


def test_input_is_not_changed():
    pose = walk()
    pose[2:4, 5] = 0
    before = pose.copy()
    pose_to_heatmap(pose)
    np.testing.assert_array_equal(pose, before)
    assert not np.shares_memory(impute_knn(pose[..., :2]), pose)


@pytest.mark.parametrize('n_joints', sorted(COCO17_FROM))
@pytest.mark.parametrize('setting', [True, False])
def test_shape_decides_the_format(n_joints, setting):
    "Hips are found by joint, whatever the settings say: no knees for hips."
    pose, other = walk(), np.zeros((12, n_joints, 3))
    other[:, COCO17_FROM[n_joints]] = pose
    cfg = {'coco18tococo17_args': {'transfer_to_coco17': setting}}
    np.testing.assert_array_equal(pose_to_heatmap(other, cfg), pose_to_heatmap(pose, cfg))
    assert bool(notices(pose, heatmap_config(cfg))) == setting and bool(notices(other, heatmap_config(cfg))) != setting


def test_simple_padding_fills_with_the_mean():
    pose = walk()
    pose[3, 7] = 0
    pose[:, 9, 0] = 0
    filled = impute_mean(pose[..., :2])
    np.testing.assert_allclose(filled[3, 7], np.delete(pose[:, 7, :2], 3, 0).mean(0))
    assert (filled[:, 9, 0] == 0).all() and (filled[pose[..., :2] != 0] == pose[..., :2][pose[..., :2] != 0]).all()
    assert (pose_to_heatmap(pose, {'padkeypoints_args': {'pad_method': 'simple'}}) != pose_to_heatmap(pose)).any()


def test_a_joint_never_seen():
    pose = walk()
    pose[:, 9, :2] = 0
    pose[4, 7, :2] = 0
    np.testing.assert_array_equal(impute_knn(pose[..., :2]), pose[..., :2])                # as published
    filled = impute_knn(pose[..., :2], impute_others=True)
    assert (filled[4, 7] != 0).all() and (filled[:, 9] == 0).all()


def test_without_confidences():
    pose = walk()
    pose[..., 2] = np.linspace(0, 1, 17)
    ones = pose.copy()
    ones[..., 2] = 1
    switched_off = ({'padkeypoints_args': {'use_conf': False}}, {'heatmap_generator_args': {'use_score': False}})
    for made in (pose_to_heatmap(pose[..., :2]), *(pose_to_heatmap(pose, cfg) for cfg in switched_off)):
        np.testing.assert_array_equal(made, pose_to_heatmap(ones))


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_frames_that_cannot_be_drawn_are_named(value):
    pose = walk()
    pose[[2, 7], 3, 1] = value
    with pytest.raises(PoseError, match='frames 2, 7:'):
        pose_to_heatmap(pose)
    flat = walk()
    flat[5, :, 1] = 7.
    with pytest.raises(PoseError, match='frame 5: all joints have the same y'):
        pose_to_heatmap(flat)


def test_offset_is_clamped():
    pose = walk()
    for offset in (0, 3, 200):
        assert pose_to_heatmap(pose, {'align_args': {'offset': offset}}).any((2, 3)).all()
    np.testing.assert_array_equal(pose_to_heatmap(pose, {'align_args': {'offset': 128}}),
                                  pose_to_heatmap(pose, {'align_args': {'offset': 300}}))


@pytest.mark.parametrize('dtype', ['f4', 'f8'])
@pytest.mark.parametrize('value', [1.5, 1e17, 1e30])
def test_confidences_above_one_are_white(dtype, value):
    pose, ones = walk(dtype=dtype), walk(dtype=dtype)
    pose[1, 3, 2], ones[1, 3, 2] = value, 1
    assert (pose_to_heatmap(pose)[1] >= pose_to_heatmap(ones)[1]).all()
    assert render(np.full((1, 17, 2), 64.), np.full((1, 17), value))[0, :, 64, 64].tolist() == [255, 255]


def test_coordinates_too_large_to_scale_are_named():
    pose = walk()
    pose[4, 11:13, 0] = 1.7e308
    with pytest.raises(PoseError, match='frame 4'), np.errstate(over='ignore', invalid='ignore'):
        pose_to_heatmap(pose)


def test_far_away_joints_cost_nothing():
    pose = walk()
    pose[0, 0, :2] = 1e12
    assert pose_to_heatmap(pose).shape == (12, 2, 64, 64)


def generator(**settings): return {'heatmap_generator_args': settings}


WRONG_SETTINGS = [
    ({'align_arg': {}}, "align_arg: unknown key; did you mean align_args"),
    ({'align_args': {'ofset': 1}}, "align_args.ofset: unknown key; did you mean offset"),
    ({'align_args': 3}, 'align_args: found 3 .*expected a mapping'),
    ({'align_args': {'final_img_size': 0}}, 'final_img_size'),
    ({'norm_args': {'heatmap_image_height': '${norm_args.heatmap_image_height}'}}, 'refers back to itself'),
    ({'norm_args': {'heatmap_image_height': '${align_args}'}}, 'refers to a whole section'),
    ({'norm_args': {'heatmap_image_height': '${align_args.sice}'}}, 'refers to nothing'),
    ({'norm_args': {'pose_format': 'coco18'}}, 'openpose-18'),
    ({'padkeypoints_args': {'pad_method': 'none'}}, 'knn, simple'),
    ([1], 'mapping'),
    ({'sigma': 4}, 'sigma: unknown key; it belongs at heatmap_generator_args.sigma'),
    ({'min_conf': .3}, 'it belongs at padkeypoints_args.min_conf'),
    ({'joints_off': []}, 'it belongs at heatmap_generator_args.joints_off'),
    (generator(img_w=32), 'outside the image'),
    (generator(with_kp=True), 'both maps are always drawn'),
    *((generator(sigma=v), 'sigma') for v in (1e-9, 'big', True, float('nan'))),
    *(({'padkeypoints_args': {'min_conf': v}},
       'padkeypoints_args.min_conf: found .*, expected (a number|at least 0 and at most 1)')
      for v in (-.1, 1.1, True, '0.3', float('nan'), None)),
    *((generator(joints_off=v), 'heatmap_generator_args.joints_off: found .*, expected a list, each entry text')
      for v in ('left_knee', None, {'left_knee': 1}, 13)),
    (generator(joints_off=['left_nee']), r'joints_off\[0\]: found "left_nee" .* not a joint; did you mean left_knee\?'),
    (generator(joints_off=[['nose']]), 'joints_off: found .*, expected a list, each entry text'),
    (generator(joints_off=[13]), r'joints_off: found \[13\] .*, expected a list, each entry text'),
]


@pytest.mark.parametrize('cfg, says', WRONG_SETTINGS)
def test_settings_that_are_wrong(cfg, says):
    with pytest.raises(SkeletonGaitError, match=says):
        heatmap_config(cfg)


def test_settings_from_a_file(tmp_path):
    path = tmp_path/'h.yaml'
    path.write_text('heatmap_generator_args: {sigma: 4, img_w: "${norm_args.heatmap_image_height}"}\n'
                    'norm_args: {heatmap_image_height: 64}\n')
    cfg = load_heatmap_config(path)
    assert cfg == HeatmapConfig(sigma=4, image_size=64, img_h=64, img_w=64, centre=32)
    assert pose_to_heatmap(walk(), cfg).shape == (12, 2, 64, 64)
    mistakes = {
        'a: [': 'line 1',
        'false': 'mapping',
        '[]': 'mapping',
        '- 1': 'mapping',
        'norm_args: {}\nnorm_args: {}': 'line 2: the key norm_args appears twice',
        'norm: {}': 'norm: unknown key; did you mean norm_args',
    }
    for text, says in mistakes.items():
        path.write_text(text)
        with pytest.raises(SkeletonGaitError, match=says) as e:
            load_heatmap_config(path)
        assert str(path) in str(e.value)


# a threshold, and joints that are not drawn

def test_threshold_makes_joints_missing():
    "A joint below the threshold is drawn as if the estimator had not found it; one at the threshold counts."
    pose = walk()
    pose[3:6, 15, 2], pose[7, 9, 2], pose[8, 7, 2] = .1, .3, .2999
    gone = pose.copy()
    gone[3:6, 15, :2] = 0
    gone[8, 7, :2] = 0
    for o in (dict(), dict(pad_method='simple'), dict(use_conf=False), dict(align=False)):
        cfg = HeatmapConfig(min_conf=.3, **o)
        np.testing.assert_array_equal(found_joints(pose, .3), np.where(pose[..., 2:] < .3, 0, pose[..., :2]))
        np.testing.assert_array_equal(impute_joints(pose, cfg), impute_joints(gone, HeatmapConfig(**o)))
        np.testing.assert_array_equal(pose_to_heatmap(pose, cfg), pose_to_heatmap(gone, HeatmapConfig(**o)))
    assert (pose_to_heatmap(pose, HeatmapConfig(min_conf=.3)) != pose_to_heatmap(pose)).any()
    assert found_joints(pose.astype('f4'), .3).dtype == np.float32 and found_joints(pose[..., :2], .3) is not None
    np.testing.assert_array_equal(pose_to_heatmap(pose[..., :2], HeatmapConfig(min_conf=.3)),
                                  pose_to_heatmap(pose[..., :2]))  # no confidences, no threshold


@pytest.mark.parametrize('case', CASES)
def test_new_settings_at_their_defaults_change_no_byte(case):
    cfg, pose = heatmap_config(SETTINGS.get(case)), GOLDEN[f'in_{case}']
    assert (cfg.min_conf, cfg.joints_off, cfg.leave_out_unseen) == (0, (), False)
    off = {'heatmap_generator_args': {'joints_off': []},
           'padkeypoints_args': {'min_conf': 0, 'leave_out_unseen': False}}
    assert heatmap_config(off) == HeatmapConfig()
    assert hash(HeatmapConfig(joints_off=['nose'])) == hash(HeatmapConfig(joints_off=('nose',)))
    lowest = None
    if pose.ndim == 3 and pose.shape[2] == 3:
        conf, there = pose[..., 2], (pose[..., :2] != 0).any(-1)
        if (conf[there] > 0).all(): lowest = conf[conf > 0].min()/2
    if lowest:
        np.testing.assert_array_equal(pose_to_heatmap(pose, HeatmapConfig(min_conf=float(lowest))),
                                      pose_to_heatmap(pose))  # a threshold that nobody is below


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(JOINTS)), st.booleans(), st.booleans(), st.sampled_from([32, 64, 150]))
def test_joints_off(off, use_conf, align, size):
    "As if the confidence of these joints were 0 when it comes to drawing; everybody else stays where they were."
    pose, o = walk(), dict(use_conf=use_conf, align=align, final_img_size=size)
    cfg, placed = HeatmapConfig(joints_off=tuple(off), **o), place_joints(pose, HeatmapConfig(**o))
    want = placed.copy()
    want[:, [JOINTS.index(n) for n in off], 2] = 0
    np.testing.assert_array_equal(place_joints(pose, cfg), want)
    np.testing.assert_array_equal(switch_off(placed, cfg.joints_off), want)
    maps = pose_to_heatmap(pose, cfg)
    np.testing.assert_array_equal(maps, plain.draw(want, cfg.sigma, (128, 128), size=size, align=align, offset=0,
                                                   centre=64))
    assert maps[:, 1].any() == (len(off) < 17)
    assert maps[:, 0].any() == any(JOINTS[i] not in off and JOINTS[j] not in off for i, j in LIMBS)
    assert (placed == place_joints(pose, HeatmapConfig(**o))).all()  # nothing was written into


def test_joints_off_are_a_set():
    a = HeatmapConfig(joints_off=('left_knee', 'nose', 'nose'))
    b = heatmap_config(generator(joints_off=['nose', 'left_knee']))
    assert a == b and a.joints_off == ('nose', 'left_knee')
    assert default_settings()['heatmap_generator_args']['joints_off'] == []
    assert default_settings()['padkeypoints_args']['min_conf'] == 0


def test_warnings_about_the_threshold():
    pose = walk()
    pose[:, 9, 2] = .1
    assert notices(pose, HeatmapConfig(min_conf=.05)) == []
    says = 'min_conf is 0.2, and no frame has such a confidence for left_wrist: '
    nothing = 'as for any joint never seen, nothing is imputed (impute_others: True fills the other joints)'
    assert notices(pose, HeatmapConfig(min_conf=.2)) == [says + nothing]
    assert notices(pose, HeatmapConfig(min_conf=.2, impute_others=True)) == [says + 'these stay at 0, 0']
    first = notices(pose[..., :2], HeatmapConfig(min_conf=.2))[0]
    assert first == 'min_conf is 0.2, but the poses have no confidences: every joint that is present counts'
    pose[:, 9] = 0
    assert notices(pose, HeatmapConfig(min_conf=.2)) == []  # missing anyway


# a joint that no frame has

UNSEEN = HeatmapConfig(leave_out_unseen=True)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(range(17)), min_size=1, max_size=12), st.sampled_from(['f4', 'f8']), st.booleans(),
       st.sampled_from(['knn', 'simple']))
def test_a_joint_that_no_frame_has_counts_for_nothing(gone, dtype, use_conf, pad_method):
    "As if it lay between the hips and were switched off: neither drawn, nor in the height, nor asked when imputing."
    gone = sorted(gone)
    pose = walk(dtype=dtype)
    pose[3:5, 9, :2] = 0
    pose[:, gone, :2] = 0
    if {11, 12} <= {*gone}:
        with pytest.raises(PoseError, match='no frame has a hip'):
            place_joints(pose, UNSEEN)
        return
    cfg = HeatmapConfig(leave_out_unseen=True, use_conf=use_conf, pad_method=pad_method)
    placed = place_joints(pose, cfg)
    others = [v for v in range(17) if v not in gone]
    filled = impute_joints(pose, HeatmapConfig(pad_method=pad_method, impute_others=True))[:, others]
    height = np.ptp(filled[..., 1], axis=1)
    hips = filled[:, [others.index(v) for v in (11, 12) if v in others]].mean(1)
    want = (filled - hips[:, None])*(85/height)[:, None, None] + 64
    np.testing.assert_allclose(placed[:, others, :2], want, atol=.01)
    assert not placed[:, gone, 2].any() and placed.dtype == pose.dtype
    plainly = plain.draw(placed, cfg.sigma, (128, 128), size=64, align=True, offset=0, centre=64)
    np.testing.assert_array_equal(pose_to_heatmap(pose, cfg), plainly)


def test_leaving_out_changes_nothing_where_all_joints_are_seen():
    pose = walk()
    pose[3:6, 15, :2] = 0
    np.testing.assert_array_equal(pose_to_heatmap(pose, UNSEEN), pose_to_heatmap(pose))
    doubtful = pose.copy()
    doubtful[:, 4, 2] = .1
    gone = doubtful.copy()
    gone[:, 4, :2] = 0
    cfg = HeatmapConfig(leave_out_unseen=True, min_conf=.2)
    np.testing.assert_array_equal(place_joints(doubtful, cfg), place_joints(gone, UNSEEN))
    assert notices(doubtful, cfg)[0].endswith('for right_ear: these are left out')


def test_centre_and_scale():
    xy = centre_and_scale(walk()[..., :2], 128)
    np.testing.assert_allclose(np.ptp(xy[..., 1], axis=1), 85)
    np.testing.assert_allclose((xy[:, 11] + xy[:, 12])/2, 64)
    assert centre_and_scale(walk(dtype='f4')[..., :2]).dtype == np.float32
