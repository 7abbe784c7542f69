"What is wrong with a pose sequence: walkers of all kinds are accused of nothing, and found when they are spoilt."

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skeletongait.poses.joints import JOINTS, PoseError
from skeletongait.poses.quality import (
    FEWEST_FRAMES,
    KINDS,
    ORDER_KINDS,
    _nearing,
    median,
    pose_findings,
    read_body,
    smallest_step,
)
from skeletongait.walkers.datasets import DATA_SET_NAMES, write_like
from skeletongait.walkers.recording import make_sequence
from skeletongait.walkers.spoilt import SPOILERS, spoil


def walk(seed, subject, type, view, n_frames=30, fps=25.0):
    return make_sequence(seed, subject, type, f'{view:03d}', n_frames, fps).pose


walkers = st.builds(
    walk,
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from(['nm-01', 'bg-01', 'bg-02', 'cl-01']),
    st.integers(0, 359),
    st.sampled_from([FEWEST_FRAMES, 20, 30, 60]),
    st.sampled_from([15.0, 25.0, 30.0]),
)
few = settings(max_examples=40, deadline=None)


def kinds(pose):
    return {f.kind for f in pose_findings(pose)}


@few
@given(walkers)
def test_a_walker_is_accused_of_nothing(pose):
    assert pose_findings(pose) == []
    assert pose_findings(pose.astype('f8')) == [] and pose_findings(pose[..., :2]) == []


TOWARDS = ('sides swapped',)  # a walk across the picture does not tell


@pytest.mark.parametrize('kind', [kind for kind in SPOILERS if kind not in TOWARDS])
@few
@given(pose=walkers)
def test_any_walker_spoilt_is_found(kind, pose):
    before = pose.copy()
    found = pose_findings(spoil(pose, kind))
    assert kind in {f.kind for f in found}
    (it,) = [f for f in found if f.kind == kind]
    assert 0 < it.n <= it.of and it.error == (it.n >= KINDS[kind].fatal * it.of) and len(it.first) == min(8, it.n)
    np.testing.assert_array_equal(pose, before)


@few
@given(st.integers(0, 99), st.sampled_from(['nm-01', 'bg-01', 'cl-01']), st.integers(-30, 30), st.booleans())
def test_swapped_sides_of_who_comes_or_goes_are_found(subject, type, angle, back):
    pose = walk(1, subject, type, (angle + 180 * back) % 360, 40)
    assume(_nearing(read_body(pose)))  # slow walkers change too little to tell
    assume(abs(median(pose[:, 5, 0] - pose[:, 6, 0])) > 0.16 * read_body(pose).size)
    assert kinds(pose) == set() and kinds(spoil(pose, 'sides swapped')) == {'sides swapped'}


def test_most_swapped_sides_of_who_comes_or_goes_are_found():
    found = [
        kinds(spoil(walk(2, subject, 'nm-01', (180 * (subject % 2) + subject % 31 - 15) % 360, 60), 'sides swapped'))
        for subject in range(60)
    ]
    assert found.count({'sides swapped'}) >= 57


def from_the_side(frames):
    "A walk from the side, with shoulders as far apart as a bad estimate may put them, and the hips in their order."
    pose = walk(0, 1, 'nm-01', 90, frames).astype('f8')
    size = read_body(pose).size
    pose[:, 5, 0], pose[:, 6, 0] = pose[:, 6, 0] + 0.2 * size, pose[:, 6, 0]
    pose[:, 11, 0] = pose[:, 12, 0] + 0.1 * size
    return pose


def shrunk(pose, factor):
    "Heights times `factor` `(T,)`, about the feet."
    feet = pose[:, :, 1].max(1, keepdims=True)
    out = pose.copy()
    out[..., 1] = np.where(pose[..., 1] > 0, feet + (pose[..., 1] - feet) * factor[:, None], 0)
    return out


def test_sides_are_judged_only_where_the_height_changes_steadily():
    "Who bends down at the end of a walk does not go away."
    pose = from_the_side(60)
    away = shrunk(pose, np.linspace(1, 0.8, 60))
    bent = shrunk(pose, np.where(np.arange(60) < 45, 1, 0.7))
    assert kinds(away) == {'sides swapped'}
    assert kinds(pose) == kinds(bent) == set()


@given(st.lists(st.sampled_from([0.0, 1.5, -3.0, 7.0, np.nan, np.inf]), max_size=9))
def test_median(numbers):
    finite = [v for v in numbers if np.isfinite(v)]
    expected = np.median(finite) if finite else np.nan
    np.testing.assert_equal(median(np.array(numbers, float)), expected)


@few
@given(walkers, st.floats(0.01, 20), st.floats(-500, 5000), st.floats(-500, 5000))
def test_place_and_size_in_the_picture_do_not_matter(pose, scale, x, y):
    assume(scale * np.ptp(pose[..., 1]) > 20)
    found = (pose[..., :2] != 0).any(-1, keepdims=True)
    moved = pose.astype('f8')
    moved[..., :2] = np.where(found, pose[..., :2] * scale + (x, y), 0)
    assert kinds(moved) == set()
    lying = spoil(moved, 'x and y swapped')
    assert kinds(lying) == {'x and y swapped'}


@few
@given(walkers, st.sampled_from([k for k in SPOILERS if k in KINDS and KINDS[k].fatal == 0.0 and k != 'sides swapped']))
def test_faults_that_are_always_errors(pose, kind):
    assert any(f.error for f in pose_findings(spoil(pose, kind)) if f.kind == kind)


@few
@given(walkers, st.sampled_from(['H36M order', 'OpenPose order']))
def test_another_order_is_found_on_exchanged_axes_too(pose, kind):
    "The first step exchanges the axes; the check of what it writes finds the order."
    both = spoil(spoil(pose, kind), 'x and y swapped')
    (found,) = [f for f in pose_findings(both) if f.kind in ORDER_KINDS]
    if found.kind == 'x and y swapped':
        assert found.detail == f'and in {kind}'
    else:  # a body that leans may fit another order, upright
        assert found.kind != 'unlike a body'
    assert kind in kinds(both[..., [1, 0, 2]])


def test_another_order_on_exchanged_axes_is_named():
    both = spoil(spoil(walk(0, 1, 'nm-01', 90), 'H36M order'), 'x and y swapped')
    (found,) = [f for f in pose_findings(both) if f.kind in ORDER_KINDS]
    assert (found.kind, found.detail) == ('x and y swapped', 'and in H36M order')
    (plain,) = pose_findings(spoil(walk(0, 1, 'nm-01', 90), 'x and y swapped'))
    assert plain.detail == ''


@given(st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_half_of_the_frames_decide(n):
    pose = walk(0, 1, 'nm-01', 90, 30)
    pose[:n] = 0
    (found,) = [f for f in pose_findings(pose) if f.kind == 'empty frame']
    assert (found.n, found.of, found.error, found.first) == (n, 30, n >= 15, tuple(range(min(n, 8))))


def test_what_is_said():
    pose = walk(0, 1, 'nm-01', 90)
    (found,) = pose_findings(spoil(pose, 'joint never found'))
    assert found.detail == 'right_eye, right_ear' and found.error
    assert 'padkeypoints_args.leave_out_unseen: True' in KINDS['joint never found'].todo
    (found,) = pose_findings(pose * np.float32([1, 1, 5]))
    assert found.kind == 'score out of range' and found.detail.endswith(f'to {5 * pose[..., 2].max():.2g}')
    assert all(kind.says and kind.todo for kind in KINDS.values()) and KINDS.keys() == SPOILERS.keys()


@pytest.mark.parametrize('hips', [False, True])
def test_a_person_cut_at_the_waist_is_not_accused_of_lost_legs_too(hips):
    pose = walk(0, 1, 'nm-01', 20)
    pose[:, 13:] = (640, 719, 0.02)  # an estimator that always answers puts them on the edge
    if not hips:
        pose[:, 11:13] = 0
    assert kinds(pose) == {'cut at the waist'}


@few
@given(walkers, st.sets(st.integers(0, 10), min_size=1, max_size=6))
def test_a_joint_that_is_placed_on_the_body_without_confidence_is_no_error(pose, joints):
    "An importer places the eyes that Human3.6M lacks at the nose, with confidence 0: they are not drawn."
    nearest = pose[:, [11]] * np.float32([1, 1, 0])
    placed, cornered = pose.copy(), pose.copy()
    placed[:, [*joints]] = nearest
    cornered[:, [*joints]] = 0
    assert not any(f.error for f in pose_findings(placed) if f.kind == 'joint never found')
    assert 'joint never found' in kinds(cornered)


def test_sequences_with_nothing_in_them():
    assert kinds(np.zeros((20, 17, 3))) == {'empty frame'}
    assert kinds(np.zeros((1, 17, 3))) == {'empty frame', 'few frames'}
    assert 'non-finite number' in kinds(np.full((20, 17, 3), np.nan))
    with pytest.raises(PoseError, match='26'):
        pose_findings(np.zeros((20, 26, 3)))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-300, 1.0, 1e300, np.inf]),
    st.sampled_from('fd'),
)
def test_any_numbers_are_looked_at(n, seed, scale, dtype):
    "Whatever a file holds, it makes findings, not errors; warnings of numpy are errors here."
    rng = np.random.default_rng(seed)
    with np.errstate(over='ignore', invalid='ignore'):
        pose = (rng.normal(size=(n, 17, 3)) * scale).astype(dtype)
    pose[rng.random(pose.shape) < 0.3] = 0
    with np.errstate(all='ignore'):
        for f in pose_findings(pose):
            assert f.kind in KINDS and 0 < f.n <= f.of == n


def test_other_joint_sets_are_read_as_coco():
    coco18 = np.zeros((30, 18, 3), 'f4')
    from skeletongait.poses.joints import COCO17_FROM

    coco18[:, COCO17_FROM[18]] = walk(0, 1, 'nm-01', 45)
    assert kinds(coco18) == set()
    body = read_body(coco18)
    assert smallest_step(body, 'coco', 1, 1) > 0.05 > smallest_step(body, 'h36m', 1, 1)
    assert body.found.shape == (30, len(JOINTS))


@pytest.mark.parametrize('name', DATA_SET_NAMES)
def test_published_layouts_are_accused_of_nothing(name, tmp_path):
    from skeletongait.files.arrays import load_array
    from skeletongait.files.tree import read_tree

    write_like(tmp_path, name, n_train=1, n_test=1)
    for files in read_tree(tmp_path / 'pose').sequences.values():
        assert [pose_findings(load_array(f)) for f in files] == [[]]


@pytest.mark.slow
def test_at_most_one_of_a_thousand_walkers_is_accused():
    "2,000 walkers: every view, every look, short and long walks, slow and fast cameras."
    rng = np.random.default_rng(2)
    accused = []
    for subject in range(2000):
        type, view = f'{rng.choice(["nm", "bg", "cl"])}-{subject % 7:02d}', int(rng.integers(360))
        n_frames, fps = int(rng.choice([15, 20, 30, 40, 60])), float(rng.choice([15, 25, 30]))
        found = pose_findings(walk(3, subject, type, view, n_frames, fps))
        accused += [(subject, type, view, n_frames, fps, f.kind) for f in found]
    assert len(accused) <= 2, accused
