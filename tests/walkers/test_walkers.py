import itertools
import json
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from skeletongait.core import SkeletonGaitError
from skeletongait.files.tree import read_tree
from skeletongait.data.partition import REGULAR, match_partition, read_partition, regular_partition
from skeletongait.poses.joints import JOINTS, to_coco17
from skeletongait.files.arrays import load_array
from skeletongait.walkers.body import (
    ANKLE, BODY, CONDITIONS, Camera, KNEE, Outfit, THIGH, Walker, draw_outfit, harmonics, joint_positions, make_walker,
    walking_speed)
from skeletongait.walkers.datasets import DATA_SET_NAMES, write_like, write_walkers
from skeletongait.walkers.looks import (
    align_silhouette, body_balls, body_parts, draw_silhouette, drift, estimate_pose, hidden_joints, project_balls,
    rough)
from skeletongait.walkers.recording import make_sequence, record

OUTFITS = (Outfit(), Outfit(coat=True), *(Outfit(bag=b, side=s) for b in ('hand', 'shoulder') for s in (1, -1)))
AT = {k: i for i, k in enumerate(BODY)}
MIRROR = [AT[k.replace('left', 'x').replace('right', 'left').replace('x', 'right')] for k in BODY]
EVEN = Walker() # the average person is the same on both sides

def extreme(sign):
    return Walker(**{f.name: f.default + sign*f.metadata['half'] for f in fields(Walker)})
people = st.builds(make_walker, st.integers(0, 2**32), st.integers(0, 10_000))

# --- harmonics

@pytest.mark.parametrize('samples', [THIGH, KNEE, ANKLE])
def test_harmonics_are_the_truncated_fourier_series(samples):
    phase = np.linspace(-1, 2, 50)
    n, s = np.arange(10), np.array(samples)
    naive = s.mean() + sum(
        2
        / 10
        * (
            (s * np.cos(2 * np.pi * k * n / 10)).sum() * np.cos(2 * np.pi * k * phase)
            + (s * np.sin(2 * np.pi * k * n / 10)).sum() * np.sin(2 * np.pi * k * phase)
        )
        for k in (1, 2, 3)
    )
    np.testing.assert_allclose(harmonics(samples, phase, 3), naive, atol=1e-10)

def test_harmonics_keep_the_shape_of_phase():
    assert harmonics(KNEE, np.zeros((2, 3))).shape == (2, 3)

# --- walkers

def test_walkers_are_seeded_and_differ():
    assert make_walker(3, 4) == make_walker(3, 4)
    assert len({make_walker(s, i) for s in range(3) for i in range(20)}) == 60

@given(people)
def test_traits_stay_within_their_range(w):
    for f in fields(w):
        assert abs(getattr(w, f.name)-f.default) <= f.metadata['half']*(1+1e-12), f.name

def test_a_day_changes_the_gait_and_no_bone():
    w = make_walker(0, 0)
    v = w.vary(np.random.default_rng(0))
    changed = {f.name for f in fields(w) if getattr(w, f.name) != getattr(v, f.name)}
    assert changed == {f.name for f in fields(w) if f.metadata['daily']}
    assert not changed & {
        'height',
        'thigh',
        'shank',
        'trunk',
        'neck',
        'head',
        'shoulders',
        'hips',
        'upper_arm',
        'forearm',
        'foot',
        'girth',
    }

def test_days_differ_less_than_people():
    for f in fields(Walker):
        if f.metadata['half']:
            assert f.metadata['daily'] < .3*f.metadata['half'], f.name

# --- 3-D

@settings(max_examples=40, deadline=None)
@given(people, st.sampled_from(OUTFITS), st.floats(0, 1), st.integers(1, 80))
def test_every_walk_is_finite_on_the_ground_and_keeps_its_bones(w, outfit, phase, n):
    xyz = joint_positions(w, n, 25, outfit, phase)
    assert xyz.shape == (n, len(BODY), 3) and np.isfinite(xyz).all()
    soles = xyz[:, [AT[f'{s}_{p}'] for s in ('left', 'right') for p in ('heel', 'toe')], 2]
    # always on the ground, never below
    assert soles.min() >= -1e-9 and soles.min(1).max() < 0.012
    for a, b, size in (
        ('hip', 'knee', w.thigh),
        ('knee', 'ankle', w.shank),
        ('shoulder', 'elbow', w.upper_arm),
        ('elbow', 'wrist', w.forearm),
    ):
        for s in ('left', 'right'):
            np.testing.assert_allclose(
                np.linalg.norm(xyz[:, AT[f'{s}_{a}']] - xyz[:, AT[f'{s}_{b}']], axis=-1), size * w.height
            )
    assert (xyz[:, AT['head'], 2] > xyz[:, AT['neck'], 2]).all()
    assert (xyz[:, AT['neck'], 2] > xyz[:, AT['left_hip'], 2]).all()

@pytest.mark.parametrize('w', [EVEN, extreme(1), extreme(-1), *(make_walker(9, i) for i in range(5))])
def test_gait_is_periodic(w):
    w = replace(w, cadence=120.)
    xyz = joint_positions(w, 51)                                                      # 25 frames per cycle
    np.testing.assert_allclose(xyz[25]-xyz[0], np.broadcast_to([walking_speed(w), 0, 0], (len(BODY), 3)), atol=1e-9)
    np.testing.assert_allclose(joint_positions(w, 30, phase=.3), joint_positions(w, 30, phase=1.3), atol=1e-9)

def test_left_and_right_take_turns():
    w = replace(EVEN, cadence=120.)
    a, b = joint_positions(w, 25), joint_positions(w, 25, phase=.5)
    np.testing.assert_allclose(b, a[:, MIRROR]*[1, -1, 1], atol=1e-9)

def test_arms_swing_against_legs_and_shoulders_against_hips():
    xyz = joint_positions(EVEN, 100)
    def gap(p):
        return xyz[:, AT[f'left_{p}'], 0] - xyz[:, AT[f'right_{p}'], 0]

    assert np.corrcoef(gap('ankle'), gap('wrist'))[0, 1] < -.8 and np.corrcoef(gap('hip'), gap('shoulder'))[0, 1] < -.8

@pytest.mark.parametrize('i', range(8))
def test_the_standing_foot_stays(i):
    w = replace(make_walker(2, i), cadence=100., step_asymmetry=0., toe_out=0.)
    xyz = joint_positions(w, 121, 100)                                                # 1.2 s, one cycle
    # 15 to 40 % of the cycle: the sole is down
    toe, body = np.ptp(xyz[18:48, AT['left_toe'], 0]), np.ptp(xyz[18:48, AT['neck'], 0])
    assert toe < .3*body

def test_knees_bend_forward():
    for i in range(20):
        xyz = joint_positions(make_walker(4, i), 60)
        for s in ('left', 'right'):
            hip, knee, ankle = (xyz[:, AT[f'{s}_{p}']] for p in ('hip', 'knee', 'ankle'))
            # about the axis to the left: positive where the shank lags behind the thigh
            bend = np.cross(knee - hip, ankle - knee)[:, 1]
            assert (bend > -.006).all() and bend.max() > .05

def test_a_bag_quietens_its_arm_and_no_other():
    def swing(xyz, s):
        return np.ptp(xyz[:, AT[f'{s}_elbow'], 0] - xyz[:, AT[f'{s}_shoulder'], 0])

    plain = joint_positions(EVEN, 60)
    for bag, side in itertools.product(('hand', 'shoulder'), (1, -1)):
        xyz = joint_positions(EVEN, 60, outfit=Outfit(bag=bag, side=side))
        own, other = ('left', 'right')[::side]
        assert swing(xyz, own) < .6*swing(plain, own) and swing(xyz, other) > .9*swing(plain, other)

def test_types_name_their_condition():
    rng = np.random.default_rng(0)
    assert {draw_outfit('nm-01', rng)[:2] for _ in range(20)} == {(False, '')}
    assert {draw_outfit('cl-01', rng)[:2] for _ in range(20)} == {(True, '')}
    assert {draw_outfit('bg-07', rng) for _ in range(60)} == {
        Outfit(bag=b, side=s) for b in ('hand', 'shoulder') for s in (1, -1)
    }
    for bad in ('', 'NM-01', 'walk', '01'):
        with pytest.raises(SkeletonGaitError, match='expected one of nm, bg, cl'):
            draw_outfit(bad, rng)
    assert CONDITIONS == ('nm', 'bg', 'cl')

# --- camera

def test_camera_is_a_pinhole():
    cam = Camera(90, 5., 1.2, 1000., (640, 480), aim=1.2)                             # level, at (0, 5, 1.2)
    # forward is left, up is a smaller y, near is larger
    np.testing.assert_allclose(
        cam.project(np.array([[0, 0, 1.2], [1, 0, 1.2], [0, 0, 2.2], [0, 1, 2.2]])),
        [[320, 240, 5], [120, 240, 5], [320, 40, 5], [320, -10, 4]],
        atol=1e-9,
    )

@given(st.floats(0, 360), st.floats(3, 9), st.floats(.5, 2.5))
def test_camera_axes_are_a_rotation(azimuth, distance, height):
    place, axes = Camera(azimuth, distance, height).axes()
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.isclose(np.linalg.det(axes), 1) and np.isclose(np.hypot(*place[:2]), distance)

def test_camera_inside_the_walk_is_an_error():
    with pytest.raises(SkeletonGaitError, match=r'azimuth 0: the walk passes through it .* raise its distance \(1 m\)'):
        Camera(0, 1.).project(joint_positions(EVEN, 100))

@pytest.mark.parametrize('azimuth', [0, 30, 90, 135])
def test_view_from_the_other_side_is_the_mirror_image(azimuth):
    a, b = Camera(azimuth), Camera(360-azimuth)
    xyz, later = joint_positions(EVEN, 30, phase=.1), joint_positions(EVEN, 30, phase=.6)
    np.testing.assert_allclose(a.project(xyz)*[-1, 1, 1] + [1280, 0, 0], b.project(later)[:, MIRROR], atol=1e-6)
    sils = [
        align_silhouette(draw_silhouette(project_balls(c, body_balls(EVEN, x)[0]), body_balls(EVEN, x)[1]))
        for c, x in ((a, xyz), (b, later))
    ]
    best = max((sils[0] == np.roll(sils[1][:, :, ::-1], d, 2)).mean() for d in (-1, 0, 1))
    assert best > .97                                                                 # to the pixels at the rim

def test_front_is_front():
    xyz = joint_positions(EVEN, 20)
    front, left, back = (Camera(a).project(xyz) for a in (0, 90, 180))
    assert (front[:, AT['left_shoulder'], 0] > front[:, AT['right_shoulder'], 0]).all()
    assert (back[:, AT['left_shoulder'], 0] < back[:, AT['right_shoulder'], 0]).all()
    assert (left[:, AT['left_hip'], 2] < left[:, AT['right_hip'], 2]).all()
    assert (left[:, AT['nose'], 0] < left[:, AT['neck'], 0]).all()
    assert (front[..., AT['nose'], 1] < front[..., AT['left_ankle'], 1]).all()

# --- body, silhouette, occlusion

@pytest.mark.parametrize('outfit', OUTFITS)
def test_balls_belong_to_parts(outfit):
    xyz = joint_positions(EVEN, 4, outfit=outfit)
    balls, parts = body_balls(EVEN, xyz, outfit)
    assert list(parts) == list(body_parts(outfit))
    assert [i for p in parts.values() for i in range(p.start, p.stop)] == list(range(balls.shape[1]))
    assert (balls[..., 3] > 0).all() and balls.shape == (4, sum(map(len, body_parts(outfit).values())), 4)

def area(outfit, azimuth):
    xyz = joint_positions(EVEN, 25, outfit=outfit, phase=.1)
    balls, parts = body_balls(EVEN, xyz, outfit)
    return (align_silhouette(draw_silhouette(project_balls(Camera(azimuth), balls), parts)) > 0).mean()

@pytest.mark.parametrize('azimuth', [0, 45, 90])
def test_a_coat_and_a_bag_are_seen(azimuth):
    assert area(Outfit(coat=True), azimuth) > 1.1*area(Outfit(), azimuth)
    assert area(Outfit(bag='hand', side=1), azimuth) > 1.005*area(Outfit(), azimuth)

def test_alignment_forgets_scale_and_place():
    disc = np.hypot(*np.mgrid[-20:20, -20:20]) < 15
    small, large = np.zeros((1, 100, 120), np.uint8), np.zeros((1, 200, 240), np.uint8)
    small[0, 50:90, 5:45] = 255*disc
    large[0, 10:90, 130:210] = 255*np.kron(disc, np.ones((2, 2)))
    a, b = align_silhouette(small), align_silhouette(large)
    assert a.dtype == np.uint8 and set(np.unique(a)) == {0, 255} and (a != b).mean() < .02
    assert a[0, 0].any() and a[0, -1].any() and abs(a[0].any(0).nonzero()[0].mean()-31.5) <= 1
    assert not align_silhouette(np.zeros((2, 9, 9), np.uint8)).any()

def test_alignment_of_a_body_wider_than_the_frame():
    assert align_silhouette(np.full((1, 10, 100), 255, np.uint8)).all()

def test_drawing_fills_the_hull_of_the_discs():
    discs = np.array([[[0, 0, 5, 10], [0, 100, 5, 10.]]])
    sil = draw_silhouette(discs, {'bar': slice(0, 2)}, side=160)[0]
    ys, xs = np.nonzero(sil)
    # 120 px high: scale 1
    assert abs(np.ptp(ys) - 120) <= 2
    assert abs(np.ptp(xs) - 20) <= 2
    assert abs((sil > 0).sum() - (20 * 100 + np.pi * 100)) < 0.06 * 2300

def test_hidden_is_what_lies_behind():
    bar = np.array([[[0, 0, 5, 10], [0, 100, 5, 10.]]])
    joints = np.array([[[0, 50, 6], [0, 50, 4], [0, 50, 5.01], [30, 50, 6], [8.7, 50, 6]]])
    h = hidden_joints(joints, bar, {'bar': slice(0, 2)})[0]
    assert h[0] == 1 and h[1] == h[2] == h[3] == 0 and 0 < h[4] < 1
    # a second bar over the fourth joint: hides it unless it is a foot
    two = np.concatenate([bar, bar + [30, 0, 0, 0]], 1)
    assert hidden_joints(joints, two, {'bar': slice(0, 2), 'left_thigh': slice(2, 4)})[0, 3] == 1
    assert hidden_joints(joints, two, {'bar': slice(0, 2), 'left_foot': slice(2, 4)})[0, 3] == 0

# --- estimator

def test_drift_is_stationary():
    x = drift(np.random.default_rng(0), (400, 500))
    np.testing.assert_allclose([x[0].std(), x[-1].std(), (x[1:]*x[:-1]).mean()], [1, 1, .7], atol=.08)

def estimates(hidden, coat=False, n=400, height=500.):
    true = np.zeros((n, 17, 2))
    true[..., 1] = np.linspace(0, height, 17)
    true += 100
    return true, estimate_pose(true, np.full((n, 17), float(hidden)), np.random.default_rng(0), coat)

def test_estimates_get_worse_where_joints_are_hidden():
    out = {}
    for h in (0, 1):
        true, pose = estimates(h)
        missed = (pose[..., :2] == 0).all(-1)
        assert pose.dtype == np.float32
        assert np.isfinite(pose).all()
        assert pose[..., 2].min() >= 0
        assert pose[..., 2].max() <= 1
        assert ((pose[..., :2] == 0).any(-1) == missed).all()                         # both coordinates or none
        out[h] = (missed.mean(), pose[~missed][:, 2].mean(), (pose[..., :2]-true)[~missed].std()/500)
        assert abs((pose[..., :2]-true)[~missed].mean())/500 < .002                   # no bias
    assert out[0][0] < .02 < out[1][0] < .15 and out[0][1] > .85 and .35 < out[1][1] < .55
    assert .005 < out[0][2] < .015 and .015 < out[1][2] < .035

def test_a_coat_makes_hips_and_knees_uncertain():
    c, n = estimates(0, True)[1][..., 2].mean(0), estimates(0, False)[1][..., 2].mean(0)
    under = np.isin([k.split('_')[-1] for k in JOINTS], ('hip', 'knee'))
    assert (c[under] < n[under]-.1).all() and np.allclose(c[~under], n[~under], atol=.02)

def test_rough_keeps_discs_discs():
    discs = np.abs(np.random.default_rng(0).normal(size=(10, 6, 4))) + .1
    out = rough(discs, np.random.default_rng(1), .5)
    assert (out[..., 3] > 0).all() and (out[..., 2] == discs[..., 2]).all() and (out[..., :2] != discs[..., :2]).all()
    np.testing.assert_array_equal(rough(discs, np.random.default_rng(1), 0.), discs)

# --- sequences

@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from(['nm-01', 'bg-01', 'bg-02', 'cl-01']),
    st.integers(0, 359),
    st.sampled_from([1, 2, 30, 90]),
)
def test_every_sequence_is_sound(seed, subject, type, view, n):
    r = make_sequence(seed, subject, type, f'{view:03d}', n)
    assert r.pose.shape == (n, 17, 3) and r.pose.dtype == np.float32 and np.isfinite(r.pose).all()
    assert r.silhouette.shape == (n, 64, 64)
    assert r.silhouette.dtype == np.uint8
    assert set(np.unique(r.silhouette)) == {0, 255}
    # every body fills its 64 rows; the tip of a toe or of hair may be thinner than half a pixel once it is resized
    assert r.silhouette[:, :2].any((1, 2)).all() and r.silhouette[:, -2:].any((1, 2)).all()
    assert (0 <= r.pose[..., 2]).all() and (r.pose[..., 2] <= 1).all()
    missed = (r.pose[..., :2] == 0).any(-1)
    assert (r.pose[missed][:, :2] == 0).all() and missed.mean() < .3

def test_sequences_are_seeded_each_by_itself():
    a, b = make_sequence(5, 6, 'bg-01', '045'), make_sequence(5, 6, 'bg-01', '045')
    for x, y in zip(a, b):
        np.testing.assert_array_equal(x, y)
    state = np.random.get_state()[1].copy()
    make_sequence(5, 6, 'bg-01', '045')
    # the global generator is left alone
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    others = [
        make_sequence(*o).pose
        for o in ((6, 6, 'bg-01', '045'), (5, 7, 'bg-01', '045'), (5, 6, 'bg-02', '045'), (5, 6, 'bg-01', '046'))
    ]
    assert all((o != a.pose).any() for o in others)

@pytest.mark.parametrize('view', ['left', '', '-45', '4.5', '090a'])
def test_views_are_angles(view):
    with pytest.raises(SkeletonGaitError, match='whole degrees'):
        make_sequence(0, 0, 'nm-01', view)

def test_a_sequence_has_frames():
    with pytest.raises(SkeletonGaitError, match='n_frames: found 0, expected at least 1'):
        make_sequence(0, 0, 'nm-01', '090', 0)

def test_record_draws_all_randomness_from_its_generator():
    one, two = (record(EVEN, Camera(90), np.random.default_rng(s), 12) for s in (0, 1))
    np.testing.assert_array_equal(one.true, two.true)
    np.testing.assert_array_equal(one.hidden, two.hidden)
    assert (one.pose != two.pose).any() and (one.silhouette != two.silhouette).any()

# --- who somebody is: in the body, and nowhere else

@pytest.fixture(scope='module')
def crowd():
    return {
        (t, v): [make_sequence(11, i, t, v) for i in range(60)]
        for t in ('nm-01', 'nm-02', 'cl-01')
        for v in ('000', '090')
    }

def found(crowd, describe, view, other):
    "Share of people found by the nearest neighbour, over both probe types."
    x = {k: np.stack([describe(r) for r in rs]) for k, rs in crowd.items()}
    def nearest(p, g):
        return (((p[:, None]-g)**2).sum(-1).argmin(1) == np.arange(len(p))).mean()

    return np.mean([nearest(x[t, view], x['nm-01', other]) for t in ('nm-02', 'cl-01')])

def residual(r):
    seen = (r.pose[..., :2] != 0).any(-1)
    e = np.where(seen[..., None], r.pose[..., :2]-r.true[..., :2], 0)/np.ptp(r.true[..., 1])
    return np.concatenate(
        [e.mean(0).ravel(), e.std(0).ravel(), (np.where(seen, r.pose[..., 2], 0.9) + 0.45 * r.hidden).mean(0)]
    )

LEAKS = dict(
    residual=residual,
    missed=lambda r: (r.pose[..., :2] == 0).all(-1).mean(0),
    when_missed=lambda r: (r.pose[..., :2] == 0).all(-1).ravel().astype(float),
    place=lambda r: np.r_[r.true[..., :2].mean((0, 1)), np.ptp(r.true[..., 1])],
    depth=lambda r: r.true[..., 2].mean((0, 1))[None],
    sureness=lambda r: np.r_[r.pose[..., 2].max(), r.pose[:, 0, 2].std()],
)

@pytest.mark.parametrize('name', LEAKS)
@pytest.mark.parametrize('view,other', [('000', '000'), ('090', '090'), ('090', '000')])
def test_no_leak_of_identity(crowd, name, view, other):
    # chance 1/60; 9 of 120 by chance: p < 0.001
    assert found(crowd, LEAKS[name], view, other) < 0.075

def test_bodies_tell_who_it_is(crowd):
    def body(r):
        xy = r.true[..., :2] - r.true[:, 11:13, :2].mean(1, keepdims=True)
        xy = xy/np.ptp(xy[..., 1], axis=1)[:, None, None]
        return np.concatenate([xy.mean(0), xy.std(0)]).ravel()
    assert found(crowd, body, '090', '090') > .5 and found(crowd, body, '090', '000') < .25

def test_arrays_of_all_people_are_of_one_kind(crowd):
    assert (
        len(
            {
                (r.pose.shape, r.pose.dtype, r.pose.flags.c_contiguous, r.silhouette.shape, r.silhouette.dtype)
                for rs in crowd.values()
                for r in rs
            }
        )
        == 1
    )

# --- files

def test_written_trees(tmp_path):
    partition = write_walkers(tmp_path, 4, 3, ('nm-01', 'bg-01'), ('000', '045'), 6, seed=8)
    assert (
        partition
        == json.loads((tmp_path / 'partition.json').read_text())
        == dict(TRAIN_SET=['000', '001', '002'], TEST_SET=['003'])
    )
    pose, sil = read_tree(tmp_path/'pose'), read_tree(tmp_path/'silhouette')
    assert list(pose.sequences) == list(sil.sequences) and len(pose.sequences) == 16 and not pose.strays + sil.strays
    for seq in pose.sequences:
        (p,), (s,) = pose.sequences[seq], sil.sequences[seq]
        assert p.name == s.name == f'{seq.view}.pkl'
        p, s = pickle.loads(p.read_bytes()), pickle.loads(s.read_bytes())
        r = make_sequence(8, int(seq.subject), seq.type, seq.view, 6)
        np.testing.assert_array_equal(p, r.pose)
        np.testing.assert_array_equal(s, r.silhouette)
        assert len(p) == len(s) == 6
    for tree in (pose, sil):
        assert len({f.stat().st_size for fs in tree.sequences.values() for f in fs}) == 1

def test_more_people_change_nobody(tmp_path):
    write_walkers(tmp_path/'a', 1, 1, ('nm-01',), ('000',), 5)
    write_walkers(tmp_path/'b', 2, 0, ('cl-01', 'nm-01'), ('090', '000'), 5)
    one = 'pose/000/nm-01/000/000.pkl'
    assert (tmp_path/'a'/one).read_bytes() == (tmp_path/'b'/one).read_bytes()

@pytest.mark.parametrize('n_train', [-1, 3])
def test_impossible_partition_writes_nothing(tmp_path, n_train):
    with pytest.raises(SkeletonGaitError, match=f'n_train: found {n_train}, expected 0 to 2'):
        write_walkers(tmp_path, 2, n_train)
    assert not list(tmp_path.iterdir())


# Walkers under the names of public data sets

@pytest.fixture(scope='module')
def likes(tmp_path_factory):
    root = tmp_path_factory.mktemp('like')
    for name in DATA_SET_NAMES:
        write_like(root/name, name, 2, 2, n_frames=4)
    return root

@pytest.mark.parametrize('name', DATA_SET_NAMES)
def test_trees_of_a_data_set(likes, name):
    layout, partition = DATA_SET_NAMES[name], json.loads((likes/name/f'{name}.json').read_text())
    poses, sils = (read_tree(likes/name/o) for o in ('pose', 'silhouette'))
    assert list(poses.sequences) == list(sils.sequences) and not poses.strays and not sils.strays
    assert {s.subject for s in poses.sequences} == set(partition['TRAIN_SET'] + partition['TEST_SET'])
    assert len(partition['TRAIN_SET']) == 2
    for tree, shape in ((poses, (4, layout.joints, 3)), (sils, (4, 64, layout.width))):
        assert {load_array(f).shape for (f,) in tree.sequences.values()} == {shape}
    assert len({f.read_bytes() for (f,) in poses.sequences.values()}) == len(poses.sequences)  # no walk twice
    assert {str(s) for s in poses.sequences} >= set(partition.get('PROBE_SET', ()))
    again = likes/f'{name} again'
    assert write_like(again, name, 2, 2, n_frames=4) == partition
    assert [f.read_bytes() for (f,) in read_tree(again / 'pose').sequences.values()] == [
        f.read_bytes() for (f,) in poses.sequences.values()
    ]

@pytest.mark.parametrize('name', REGULAR)
def test_the_rule_splits_them_alike(likes, name):
    tree = read_tree(likes/name/'pose')
    a, b = (match_partition(p, tree) for p in (regular_partition(name), read_partition(likes/name/f'{name}.json')))
    assert (a.train, a.test, a.probe) == (b.train, b.test, b.probe)

def test_numbers_are_those_of_the_rule():
    for name in REGULAR:
        rule, layout = regular_partition(name), DATA_SET_NAMES[name]
        assert tuple(layout.train[0].format(i) for i in layout.train[1]) == rule.train
        extra = {'GREW': {'probe'}, 'OUMVLP': {'10307'}}.get(name, set())
        assert {layout.test[0].format(i) for i in layout.test[1]} | extra == set(rule.test)

def test_names_as_published(likes):
    names = {name: {(s.type, s.view) for s in read_tree(likes/name/'silhouette').sequences} for name in DATA_SET_NAMES}
    types = {name: {t for t, _ in o} for name, o in names.items()}
    assert types['OUMVLP'] == {'00', '01'}
    assert types['GREW'] == {'00', '01', '02', '03'}
    assert ('U0_D0_BG', '01_0') in names['CCPG']
    assert ('camid0_videoid2', 'seq0') in names['Gait3D']
    assert types['SUSTech1K'] == {'00-nm', '01-nm', '01-bg', '01-cl', '02-cr', '02-ub', '03-uf', '03-oc', '04-nt'}
    assert {'nm-01', 'nm-02', 'nm-05', 'nm-06', 'bg-01', 'bg-02', 'cl-01', 'cl-02'} <= types['CASIA-B']
    assert {'H-scene1-nm-1', 'L-scene3_s-cl-1'} <= types['CASIA-E']
    assert sorted(o.name for o in (likes / 'GREW' / 'pose').iterdir()) == [
        '00001',
        '00001train',
        '00002',
        '00002train',
        'probe',
    ]
    ends = {
        name: {f.name.split('-')[-1] for (f,) in read_tree(likes / name / 'silhouette').sequences.values()}
        for name in ('CCPG', 'SUSTech1K')
    }
    assert ends == {'CCPG': {'sils.pkl'}, 'SUSTech1K': {'Sils_aligned.pkl'}}
    assert all(f.name.startswith('03') for (f,) in read_tree(likes/'SUSTech1K'/'pose').sequences.values())

def test_joints_in_the_order_of_coco18(likes):
    for s, (f,) in list(read_tree(likes/'OUMVLP'/'pose').sequences.items())[:4]:
        want = make_sequence(0, (int(s.subject)-1)//2, f'nm-{s.type}', s.view, 4).pose
        assert np.array_equal(to_coco17(load_array(f)), want)

def test_impossible_layouts(tmp_path):
    with pytest.raises(SkeletonGaitError, match="data set 'OU-MVLP' is not known; did you mean 'OUMVLP'"):
        write_like(tmp_path, 'OU-MVLP')
    for n in ((0, 1), (1, 0), (-1, 2)):
        with pytest.raises(SkeletonGaitError, match='expected at least 1 of each'):
            write_like(tmp_path, 'CCPG', *n)
    assert not list(tmp_path.iterdir())
