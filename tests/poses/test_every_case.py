"Every way in which real poses go wrong, in any strength: the check finds it, or the importer puts it right."

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scripts import start
from toys import tiny, write_config

from skeletongait.core import save_pickle
from skeletongait.files.arrays import load_array
from skeletongait.import_poses import import_poses
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.maps.quality import map_findings
from skeletongait.poses.joints import LIMBS, PoseError
from skeletongait.poses.quality import LEVELS, pose_findings
from skeletongait.prepare.check_tree import sample_faults
from skeletongait.walkers.body import Camera, draw_outfit, make_walker
from skeletongait.walkers.datasets import write_walkers
from skeletongait.walkers.recording import record
from skeletongait.walkers.spoilt import spoil


@st.composite
def walks(draw, shortest=15):
    "Anybody, before any camera: azimuth, size and place in the picture, length, frame rate and noise are drawn."
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, fps = draw(st.integers(shortest, 80)), draw(st.floats(10, 60))
    person = make_walker(draw(st.integers(0, 99)), draw(st.integers(0, 99))).vary(rng)
    outfit = draw_outfit(draw(st.sampled_from(['nm-01', 'bg-01', 'cl-01'])), rng)
    camera = Camera(
        azimuth=draw(st.floats(0, 360)),
        distance=rng.uniform(5, 7.5) + n / fps,
        height=rng.uniform(1.1, 1.7),
        focal=rng.uniform(1100, 1500) * 1.72 / person.height,
        aim=rng.uniform(0.4, 0.64) * person.height,
    )
    pose = record(person, camera, rng, n, fps, outfit, rng.uniform(), rng.uniform(-0.4, 0.4)).pose.astype('f8')
    found = (pose[..., :2] != 0).any(-1, keepdims=True)
    height = np.ptp(np.where(found, pose, np.nan)[0, :, 1][found[0, :, 0]])
    noise = rng.normal(0, draw(st.floats(0, 0.02)) * height, (n, 17, 2))
    scale = draw(st.floats(60, 1500)) / height
    place = draw(st.floats(-300, 3000)), draw(st.floats(-300, 3000))
    pose[..., :2] = np.where(found, (pose[..., :2] + noise) * scale + place, 0)
    return pose


few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def kinds(pose):
    return {f.kind for f in pose_findings(pose)}


def errors(pose):
    return {f.kind for f in pose_findings(pose) if f.error}


@few
@given(walks())
def test_a_good_walk_is_accused_of_nothing(pose):
    assert pose_findings(pose) == []


def some_frames(draw, n, least=1):
    "The numbers of some frames, at least `least`."
    return sorted(draw(st.sets(st.integers(0, n - 1), min_size=least, max_size=n)))


def with_lost(pose, frames, joints, score=0.0):
    "A copy in which some joints of some frames lie at (0, 0)."
    out = pose.copy()
    out[np.ix_(frames, joints)] = (0, 0, score)
    return out


def non_finite(draw, pose):
    t, joint, axis = draw(st.tuples(st.integers(0, len(pose) - 1), st.integers(0, 16), st.integers(0, 2)))
    pose = pose.copy()
    pose[t, joint, axis] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    return pose


def few_frames(draw, pose):
    return pose[: draw(st.integers(1, 14))]


def empty_frame(draw, pose):
    return with_lost(pose, some_frames(draw, len(pose)), range(17))


def cut_at_the_waist(draw, pose):
    "Hips found or not; the score of a joint outside of the picture is small, or 0."
    first = draw(st.sampled_from([11, 13]))
    return with_lost(pose, some_frames(draw, len(pose)), range(first, 17), draw(st.sampled_from([0.0, 0.02])))


def joint_never_found(draw, pose):
    "Up to six of head and arms; estimators give what they did not find some confidence."
    joints = draw(st.sets(st.integers(0, 10), min_size=1, max_size=6))
    return with_lost(pose, range(len(pose)), [*joints], draw(st.floats(0, 0.3)))


def score_out_of_range(draw, pose):
    return pose * (1, 1, draw(st.floats(2, 255)))


def normalised(draw, pose):
    "Fractions of the picture, from 0 to 1 or from -1 to 1."
    size = pose[..., :2].max((0, 1)).clip(1) * draw(st.floats(1, 3))
    assume(pose[..., :2].min() >= 0)
    found = (pose[..., :2] != 0).any(-1, keepdims=True)
    middle = draw(st.booleans())
    pose = pose.copy()
    pose[..., :2] = np.where(found, pose[..., :2] / size * (1 + middle) - middle, 0)
    return pose


def x_and_y_swapped(draw, pose):
    return pose[..., [1, 0, 2]]


def upside_down(draw, pose):
    found = (pose[..., :2] != 0).any(-1)
    pose = pose.copy()
    pose[..., 1] = np.where(found, draw(st.floats(0, 5000)) - pose[..., 1], 0)
    return pose


def h36m_order(draw, pose):
    return spoil(pose, 'H36M order')


def openpose_order(draw, pose):
    return spoil(pose, 'OpenPose order')


def unlike_a_body(draw, pose):
    "Two levels of the body exchanged: shoulders where the ankles are, and the like."
    a, b = draw(st.sampled_from([(1, 3), (1, 4), (2, 4)]))
    one, other = LEVELS['coco'][a], LEVELS['coco'][b]
    order = np.arange(17)
    order[[*one, *other]] = [*other, *one]
    return pose[:, order]


def frozen(draw, pose):
    t = draw(st.integers(0, len(pose) - 2))
    pose = pose.copy()
    pose[t:] = pose[t]
    return pose


def jump(draw, pose):
    "Somebody else from some frame on, at least a body height away."
    t = draw(st.integers(1, len(pose) - 1))
    found = (pose[..., :2] != 0).any(-1)
    away = draw(st.sampled_from([-1, 1])) * draw(st.floats(1.3, 10)) * np.ptp(pose[found][:, 1])
    pose = pose.copy()
    pose[t:, :, 0] += np.where(found[t:], away, 0)
    return pose


SPOILT = [
    (non_finite, {'non-finite number'}),
    (few_frames, {'few frames'}),
    (empty_frame, {'empty frame'}),
    (cut_at_the_waist, {'cut at the waist'}),
    (joint_never_found, {'joint never found'}),
    (score_out_of_range, {'score out of range'}),
    (normalised, {'normalised'}),
    (x_and_y_swapped, {'x and y swapped'}),
    (upside_down, {'upside down'}),
    (h36m_order, {'H36M order'}),
    (openpose_order, {'OpenPose order'}),
    (unlike_a_body, {'unlike a body', 'H36M order', 'OpenPose order', 'upside down', 'x and y swapped'}),
    (frozen, {'frozen'}),
    (jump, {'jump'}),
]


@pytest.mark.parametrize('how, expected', SPOILT, ids=[how.__name__ for how, _ in SPOILT])
@few
@given(data=st.data())
def test_any_walk_spoilt_in_any_strength_is_found(how, expected, data):
    pose = how(data.draw, data.draw(walks()))
    assert kinds(pose) & expected, kinds(pose)


@few
@given(walks(), st.data())
def test_no_frame_becomes_black_unsaid(pose, data):
    "Whatever joints are lost in whatever frames: where a map is black, the check of the poses has said so before."
    joints = sorted(data.draw(st.sets(st.integers(0, 16), min_size=1)))
    lost = with_lost(pose, some_frames(data.draw, len(pose)), joints)
    if data.draw(st.booleans()):  # found, but without any confidence
        lost[..., :2] = pose[..., :2]
    try:
        maps = pose_to_heatmap(lost)
    except PoseError:
        return
    assert 'black frame' not in {f.kind for f in map_findings(maps)} or kinds(lost)


@few
@given(walks(), st.sampled_from(LIMBS), st.data())
def test_a_frame_is_empty_where_no_limb_is_left(pose, limb, data):
    "Two joints of a limb draw it; two others leave the limb map black."
    frames = some_frames(data.draw, len(pose))
    assume((pose[:, list(limb), :2] != 0).any(-1).all())
    other = data.draw(st.sampled_from([(3, 16), (9, 14), (0, 13), (4, 15)]))
    kept, broken = (with_lost(pose, frames, [j for j in range(17) if j not in two]) for two in (limb, other))
    assert 'empty frame' not in kinds(kept)
    (found,) = [f for f in pose_findings(broken) if f.kind == 'empty frame']
    assert found.n == len(frames) and found.first == tuple(frames[:8])


def imported(pose, folder, **options):
    "The pose that the importer makes of an array."
    (folder / 'in/a/b/c').mkdir(parents=True, exist_ok=True)
    np.save(folder / 'in/a/b/c/pose.npy', pose)
    assert import_poses(str(folder / 'in'), str(folder / 'out'), **options) == 0
    return load_array(folder / 'out/a/b/c/pose.pkl')


@pytest.mark.parametrize('how', ['yx', 'normalised', 'scores'])
@few
@given(pose=walks(), data=st.data())
def test_the_importer_puts_it_right(how, pose, data, tmp_path_factory):
    "The maps are those of the unspoilt walk."
    place = tmp_path_factory.mktemp(how)
    pose[..., :2] = np.where(pose[..., :2] != 0, pose[..., :2] - pose[..., :2].min((0, 1)).clip(max=0) + 1, 0)
    size = pose[..., :2].max((0, 1)).astype(int) + data.draw(st.integers(1, 500))
    spoilt, options = {
        'yx': (pose[..., [1, 0, 2]], dict(format='movenet')),
        'normalised': (pose / (*size, 1), dict(image_size='{}x{}'.format(*size))),
        'scores': (pose * (1, 1, data.draw(st.floats(2, 255))), {}),
    }[how]
    assert errors(spoilt)
    right, mended = imported(pose, place / 'good'), imported(spoilt, place / 'spoilt', **options)
    assert errors(mended) == set()
    np.testing.assert_allclose(mended[..., :2], right[..., :2], rtol=1e-4, atol=1e-2)
    if how != 'scores':  # these are divided by their largest value, which need not have been 1
        difference = np.abs(pose_to_heatmap(mended).astype(int) - pose_to_heatmap(right))
        assert difference.max() <= 2


@few
@given(pose=walks(), data=st.data())
def test_what_the_importer_places_harms_nothing(pose, data, tmp_path_factory):
    "Joints that no frame has: by themselves, and those that Human3.6M lacks."
    place = tmp_path_factory.mktemp('placed')
    lost = joint_never_found(data.draw, pose)
    assert 'joint never found' in errors(lost) and errors(imported(lost, place / 'lost')) == set()
    human = spoil(pose, 'H36M order')
    assert errors(human) == {'H36M order'} and errors(imported(human, place / 'human', format='h36m17')) == set()


WRONG = ('H36M order', 'x and y swapped', 'normalised', 'joint never found', 'score out of range', 'empty frame')


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    "Six people, each of whose first walks is wrong in another way; a seventh has poses without any confidence."
    root = tmp_path_factory.mktemp('cases')
    write_walkers(root, n_subjects=7, n_train=4, types=('nm-01', 'bg-01'), views=('090',), n_frames=16)
    for subject, kind in enumerate(WRONG):
        (file,) = (root / f'pose/{subject:03d}/nm-01/090').iterdir()
        save_pickle(spoil(load_array(file), kind), file)
    return root


def test_drawing_linking_and_training_say_what_the_check_says(tree):
    "As real processes, on one tree."
    done = start('python file', 'check', 'pose', '--json=check.json', cwd=tree)
    assert done.returncode == 1
    report = json.loads((tree / 'check.json').read_text())
    assert {o['kind']: o['n'] for o in report['findings'] if o['kind'] in WRONG} == dict.fromkeys(WRONG, 1)
    draw = ('--pose_data_path=pose', '--save_root=maps', '--dataset_name=mine')
    done = start('python file', 'pretreatment_heatmap', *draw, cwd=tree)
    assert done.returncode == 0
    (line,) = [o for o in done.stdout.splitlines() if o.startswith('warning: look at the poses')]
    assert all(kind in line for kind in WRONG) and 'skeletongait.check pose' in line
    places = ('--heatmap_data_path=pose', '--silhouette_data_path=silhouette', '--output_path=linked')
    done = start('python file', 'ln_sil_heatmap', *places, cwd=tree)
    assert done.returncode == 0
    line = done.stdout.splitlines()[-1]
    assert line.startswith('warning: look at the data: of 14 sequences looked at, these show errors: ')
    assert all(kind in line for kind in WRONG) and 'skeletongait.check linked' in line
    cfg = tiny(tree, total_iter=1, save_iter=1)
    cfg.data_cfg.dataset_root, cfg.data_cfg.data_in_use = str(tree / 'pose'), [True]
    cfg.data_cfg.render = dict(padkeypoints_args=dict(leave_out_unseen=True))
    cfg.evaluator_cfg.protocol = dict(gallery=dict(types=['nm-01']), probe=dict(types=['bg-01']))
    config = f'--cfgs={write_config(cfg, tree / "x.yaml")}'
    done = start('python file', 'main', config, '--phase=train', cwd=tree)
    assert done.returncode == 0, done.stderr
    (line,) = [o for o in (done.stdout + done.stderr).splitlines() if 'look at the data' in o]
    assert all(kind in line for kind in WRONG[:3]) and 'of 8 sequences' in line  # of the four subjects that train
    assert 'joint never found' not in line  # these settings make it harmless


def test_black_maps_are_a_failure_and_no_file(tree):
    "Nothing found at all, and found but without confidence; the others are drawn."
    for name, factor in (('nowhere', (0, 0, 0)), ('unsure', (1, 1, 0))):
        file = tree / f'black/{name}/nm-01/090/pose.pkl'
        save_pickle(load_array(*(tree / 'pose/006/bg-01/090').iterdir()) * np.float32(factor), file)
    save_pickle(load_array(*(tree / 'pose/006/bg-01/090').iterdir()), tree / 'black/good/nm-01/090/pose.pkl')
    draw = ('--pose_data_path=black', '--save_root=maps', '--dataset_name=black')
    done = start('python file', 'pretreatment_heatmap', *draw, cwd=tree)
    assert done.returncode == 1 and '1 file drawn, 2 failed' in done.stdout
    assert 'failed: black/unsure/nm-01/090/pose.pkl: every map would be black' in done.stdout
    drawn = [*(tree / 'maps').rglob('pose.pkl')]
    assert [o.relative_to(tree / 'maps').parts[2] for o in drawn if 'black' in o.parts[-6]] == ['good']


def test_a_few_of_many_are_looked_at(tree):
    "As many as there are, and never more than 32, whatever their number; unreadable files are named, too."
    good = next((tree / 'silhouette/000/nm-01/090').iterdir())
    jobs = [(('000', 'nm', '090'), (good,))]
    assert sample_faults(jobs, tree) == () and sample_faults(jobs * 1000, tree) == ()
    missing = [(('000', 'nm', '090'), (tree / 'gone.pkl',))]
    (line,) = sample_faults(missing * 1000, tree)
    assert 'of 32 sequences looked at' in line and 'unreadable (32)' in line
