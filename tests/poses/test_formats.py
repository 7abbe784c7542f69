"Every format is read back to the joints that were written, and gives the maps that COCO arrays give."

import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import pose_writers as w
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.estimation.networks import download_wheel
from skeletongait.files.arrays import Limits
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.poses.formats import find_videos, read_poses, read_videos
from skeletongait.poses.joints import JOINTS, JOINT_SETS
from skeletongait.poses.quality import pose_findings
from skeletongait.poses.recording import (
    CUT_UP_TO,
    FORMATS,
    RawPoses,
    fill_never_found,
    make_recording,
    mark_missing,
    scale_scores,
    to_coco,
)
from skeletongait.poses.tracks import find_tracks

FRACTIONS = {'image_size': w.SIZE}
# writer, how to read it, tolerance in pixels; 0: to the last bit
WRITERS = {
    'openpose body25': (w.openpose, {}, 0),
    'openpose body25b': (lambda pose, path: w.openpose(pose, path, 'body25b'), {'format': 'body25b'}, 0),
    'openpose coco18': (lambda pose, path: w.openpose(pose, path, 'coco18'), {}, 0),
    'alphapose halpe26': (w.alphapose, {}, 0),
    'alphapose halpe136': (lambda pose, path: w.alphapose(pose, path, 'halpe136', False), {}, 0),
    'alphapose coco': (lambda pose, path: w.alphapose(pose, path, 'coco17'), {}, 0),
    'alphapose cmu': (w.alphapose_cmu, {}, 0),
    'alphapose open': (w.alphapose_open, {}, 0),
    'coco results': (w.coco_results, {}, 0),
    'mmpose wholebody': (w.mmpose, {}, 0),
    'mmpose coco': (lambda pose, path: w.mmpose(pose, path, 'coco17'), {}, 0),
    'mmpose coco23': (lambda pose, path: w.mmpose(pose, path, 'coco23'), {}, 0),
    'mmpose h36m': (lambda pose, path: w.mmpose(pose, path, 'h36m17'), {'format': 'h36m17'}, 0),
    'ultralytics json': (w.ultralytics_json, {}, 0),
    'mmpose images halpe26': (w.mmpose_images, {}, 0),
    'openpose halpe26': (lambda pose, path: w.openpose(pose, path, 'halpe26'), {}, 0),  # RTMPose in Pose2Sim, Sports2D
    'openpose fractions': (w.openpose_fractions, FRACTIONS, 0),
    'vitpose': (w.vitpose, {}, 0),
    'ultralytics txt': (w.ultralytics_txt, FRACTIONS, 1e-3),
    'mediapipe json': (w.mediapipe_json, FRACTIONS, 0),
    'mediapipe csv': (w.mediapipe_csv, FRACTIONS, 0),
    'mediapipe wide csv': (w.wide_csv, FRACTIONS, 0),
    'mediapipe array': (w.mediapipe_array, FRACTIONS, 1e-9),
    'movenet': (w.movenet, FRACTIONS | {'format': 'movenet'}, 1e-9),
    'movenet multi': (w.movenet_multi, FRACTIONS, 1e-9),
    'tensorflow.js': (w.tensorflow_json, {}, 0),
    'posetrack': (w.posetrack, {}, 0),
    'pyskl': (w.pyskl, {}, 0),
    'gaitgraph': (w.gaitgraph, {}, 0),
    'grew': (w.grew, {}, 0),
    'sustech': (w.sustech, {}, 0),
    'deeplabcut': (w.deeplabcut, {}, 0),
    'deeplabcut individuals': (lambda pose, path: w.deeplabcut(pose, path, ('anna',)), {}, 0),
    'sleap': (w.sleap, {}, 0),
    'array npz': (w.coco_npz, {}, 0),
    'array pkl': (w.array, {}, 0),
    **{
        f'array {name}': (
            lambda pose, path, name=name: w.array(pose, path, name, '.npy'),
            {} if name in ('coco17', 'coco18', 'body25', 'halpe26', 'wholebody133') else {'format': name},
            0,
        )
        for name in ('coco17', 'coco18', 'body25', 'halpe26', 'wholebody133', 'h36m17', 'posetrack18')
    },
}


def as_coco(recording):
    "The one person of each frame, `(T, 17, 3)`."
    assert {len(people) for people in recording.people} == {1}
    return to_coco(np.concatenate(recording.people), recording.joints)


WALKERS = st.builds(
    w.walker,
    n=st.integers(1, 12),
    subject=st.integers(1, 99),
    view=st.integers(0, 359).map('{:03}'.format),
    type=st.sampled_from(['nm-01', 'bg-01', 'cl-02']),
    seed=st.integers(0, 9),
)


@pytest.mark.parametrize('name', WRITERS)
@settings(max_examples=6, deadline=None)
@given(pose=WALKERS)
def test_read_back(tmp_path_factory, name, pose):
    "The joints of any walker come back, and where none is missing, the maps of COCO arrays do so to the byte."
    write, how, tolerance = WRITERS[name]
    recording = read_poses(write(pose, tmp_path_factory.mktemp('any') / 'video'), **how)
    read = as_coco(recording)
    lacking = [i for i, joint in enumerate(JOINTS) if joint in recording.joints.missing]
    known = [i for i in range(17) if i not in lacking]
    np.testing.assert_allclose(read[:, known], pose[:, known], rtol=0, atol=tolerance)
    assert not read[:, lacking].any()
    assert len(recording.frames) == len(pose) and (np.diff(recording.frames) == 1).all()
    if not lacking and not tolerance:
        np.testing.assert_array_equal(pose_to_heatmap(read), pose_to_heatmap(pose))
    if not lacking:
        near = np.abs(pose_to_heatmap(read).astype(int) - pose_to_heatmap(pose))
        assert near.max() <= 3


CERTAIN = WRITERS | {'ntu metres': (w.ntu, {'format': 'ntu25'}, 0)}


@pytest.mark.parametrize('name', CERTAIN)
@settings(max_examples=6, deadline=None)
@given(pose=WALKERS)
def test_no_format_is_read_as_another(tmp_path_factory, name, pose):
    "Without `--format` a file is read as what it is, or refused with the name of the format or the size it needs."
    write, how, _ = CERTAIN[name]
    path = write(pose, tmp_path_factory.mktemp('any') / 'video')
    right = read_poses(path, **how)
    for size in (None, w.SIZE):
        try:
            read = read_poses(path, image_size=size)
        except SkeletonGaitError as e:
            needed = f'--format={how["format"]}' if 'format' in how else '--image_size=WIDTHxHEIGHT'
            assert needed in str(e)
            assert 'format' in how or size is None and 'image_size' in how
        else:
            assert read.joints == right.joints
            np.testing.assert_array_equal(np.concatenate(read.people), np.concatenate(right.people))


@pytest.mark.parametrize('ending', ['.npy', '.pkl', '.json'])
def test_a_chosen_format_is_not_questioned(tmp_path, ending):
    "People who lie down are read by those who know that they do."
    lying = w.walker()[..., [1, 0, 2]]
    path = w.coco_results(lying, tmp_path / 'x') if ending == '.json' else w.array(lying, tmp_path / 'x', ending=ending)
    with pytest.raises(SkeletonGaitError, match='--format=movenet, or --format=coco17 if they are what they seem'):
        read_poses(path)
    np.testing.assert_array_equal(as_coco(read_poses(path, 'coco17')), lying)


def test_fractions_around_0_are_refused(tmp_path):
    path = w.openpose_around_0(w.walker(), tmp_path / 'video')
    with pytest.raises(SkeletonGaitError, match='run from -1 to 1.*--keypoint_scale 0'):
        read_poses(path, image_size=w.SIZE)


def test_oumvlp_has_several_people_and_gaps(tmp_path):
    pose = w.walker()
    recording = read_poses(w.oumvlp(pose, tmp_path / 'OUMVLP-Pose'))
    assert recording.joints.name == 'coco18' and recording.frames.tolist() == [0, 1, *range(3, 12)]
    found = find_tracks(recording)
    assert len(found.tracks) == 2 and found.filled == 2
    there = [t for t in range(12) if t != 2]
    tracks = sorted(found.tracks, key=lambda o: o.pose[0, 0, 0])
    for track, right in zip(tracks, (pose, pose + np.float32([600, 0, 0]))):
        np.testing.assert_array_equal(track.pose[there], right[there])


def test_individuals_and_missing_joints_of_tables(tmp_path):
    "DeepLabCut's individuals are tracks; an empty cell is a joint that was not found."
    pose = w.walker()
    path = w.deeplabcut(pose, tmp_path / 'x', ('anna', 'ben'))
    recording = read_poses(path)
    assert {*recording.ids} == {(0, 1)}
    np.testing.assert_array_equal(np.stack([o[1] for o in recording.people]), pose + np.float32([700, 0, 0]))
    lines = path.read_text().splitlines()
    cells = lines[4].split(',')
    cells[1:4] = ['', '', '']  # the right ankle
    path.write_text('\n'.join([*lines[:4], ','.join(cells), *lines[5:]]))
    assert not read_poses(path).people[0][0, 16].any()
    (tmp_path / 'mouse.csv').write_text('scorer,a,a\nbodyparts,snout,snout\ncoords,x,y\n0,1,2\n')
    with pytest.raises(SkeletonGaitError, match='There is no left_shoulder'):
        read_poses(tmp_path / 'mouse.csv')


@pytest.fixture(scope='module')
def pose2sim(tmp_path_factory):
    "Files of OpenPose's BODY_25B for one camera, from the wheel of Pose2Sim 0.3.7 (BSD-3-Clause)."
    folder = tmp_path_factory.mktemp('pose2sim')
    try:
        wheel = download_wheel('pose2sim==0.3.7', folder)
    except SkeletonGaitError as e:
        pytest.skip(f'no package index: {e}')
    with zipfile.ZipFile(wheel) as z:
        z.extractall(folder, [name for name in z.namelist() if '/pose-2d/cam2_json/' in name])
    return folder / 'Pose2Sim' / 'Demo' / 'pose-2d' / 'cam2_json'


def test_files_that_openpose_wrote(pose2sim):
    with pytest.raises(SkeletonGaitError, match='read as body25b, not as body25; choose --format=body25b'):
        read_poses(pose2sim)
    recording = read_poses(pose2sim, 'body25b')
    assert recording.frames.tolist() == [*range(100)]
    first = json.loads((pose2sim / 'cam02.0000.json').read_text())['people'][0]['pose_keypoints_2d']
    np.testing.assert_array_equal(recording.people[0][0], np.reshape(first, (25, 3)).astype(np.float32))
    tracks = find_tracks(recording).tracks
    assert [len(track.pose) for track in tracks] == [100, 100]
    assert not [finding for track in tracks for finding in pose_findings(track.pose)]


def test_metres_have_another_scale_and_place_only(tmp_path):
    pose = w.walker()
    recording = read_poses(w.ntu(pose, tmp_path / 'video'), format='ntu25')
    read = as_coco(recording)
    known = [i for i, joint in enumerate(JOINTS) if joint not in recording.joints.missing]
    np.testing.assert_allclose(read[:, known, :2] - pose[:, known, :2], 5000, atol=0.01)
    assert recording.joints.missing == JOINTS[1:5]


def test_half_precision_annotation(tmp_path):
    pose = w.walker()
    read = as_coco(read_poses(w.pyskl(pose, tmp_path / 'video', half=True)))
    np.testing.assert_allclose(read, pose, atol=0.6)


@pytest.mark.parametrize('name', w.ORDERS)
def test_table_and_writers_agree(name):
    order = w.ORDERS[name]
    assert len(order) == len(JOINT_SETS[name].joints)
    assert JOINT_SETS[name].coco == tuple(order.index(i) if i in order else -1 for i in range(17))


def test_frame_numbers_and_tracks(tmp_path):
    pose = w.walker()
    assert read_poses(w.posetrack(pose, tmp_path / 'a')).frames[0] == 3
    assert read_poses(w.coco_results(pose, tmp_path / 'b')).frames[0] == 7
    assert {*read_poses(w.alphapose(pose, tmp_path / 'c')).ids} == {(1,)}
    assert {*read_poses(w.ultralytics_txt(pose, tmp_path / 'd'), **FRACTIONS).ids} == {(3,)}
    assert read_poses(w.ultralytics_json(pose, tmp_path / 'e')).ids[0] == (2,)
    assert {*read_poses(w.openpose(pose, tmp_path / 'f')).ids} == {(None,)}


def test_several_videos_in_a_file(tmp_path):
    path = w.gaitgraph(w.walker(), tmp_path / 'x', ('001-nm-01-090', '002-bg-02-000'))
    (source,) = find_videos(tmp_path)
    assert [o.name for o in read_videos(source)] == ['001-nm-01-090', '002-bg-02-000']
    with pytest.raises(SkeletonGaitError, match='holds 2 videos'):
        read_poses(path)


def test_sources_of_a_folder(tmp_path):
    pose = w.walker(2)
    w.openpose(pose, tmp_path / 'one')
    w.grew(pose, tmp_path / 'grew' / '00001' / 'abc')
    (tmp_path / 'both').mkdir()
    for name in ('a', 'b'):
        for t in (9, 10):
            frame = [{'keypoints': [[1, 2]] * 17, 'keypoint_scores': [1] * 17}]
            (tmp_path / 'both' / f'{name}_{t}.json').write_text(json.dumps(frame))
    w.array(pose, tmp_path / '03-nm-Camera-Pose')
    w.array(pose, tmp_path / '11-sync-nm-Camera-Pose')
    names = {source.name: [path.name for path in source.files] for source in find_videos(tmp_path)}
    assert [*names] == ['03-nm-Camera-Pose', 'both/a', 'both/b', 'grew/00001/abc', 'one']
    assert names['both/a'] == ['a_9.json', 'a_10.json'] and len(names['one']) == 2


REFUSED = {
    '{"a": 1': 'not JSON',
    '[' * 100_000: 'nested more than 64 deep',
    '{"people": 3}': 'expected a list of objects',
    '{"people": [{"a": 1}]}': 'no pose_keypoints_2d',
    '{"people": [{"pose_keypoints_2d": [1, 2, 3, 4]}]}': 'three|3 for each joint',
    '{"people": [{"pose_keypoints_2d": ["x", 2, 3]}]}': 'are not numbers .found .*expected x, y, confidence',
    '{"people": [{"pose_keypoints_2d": [5, 6, 1, 5, 7, 1]}]}': 'found 2 joints',
    '{"people": []}': 'found nobody in 1 frame',
    '[{"image_id": [1], "keypoints": [1, 2, 3]}]': 'lacks its image_id',
    '{"images": [{"id": [1]}], "annotations": []}': 'unlike|no frames',
    '{"meta_info": {"dataset_name": "ap10k"}, "instance_info": [{"instances": [{"keypoints": '
    + str([[9, 9]] * 17)
    + ', "keypoint_scores": '
    + str([1] * 17)
    + '}]}]}': 'ap10k',
    '[]': 'found nobody',
    '{}': 'not poses in a known form',
    'null': 'not poses in a known form',
}


@pytest.mark.parametrize('text', REFUSED, ids=lambda text: text[:40])
def test_broken_json_is_one_line(tmp_path, text):
    path = tmp_path / 'x.json'
    path.write_text(text)
    with pytest.raises(SkeletonGaitError, match=REFUSED[text]) as told:
        read_poses(path)
    assert str(told.value).startswith(str(path)) and '\n' not in str(told.value) and len(str(told.value)) < 500


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.sampled_from(['', 'x', '1.jpg']),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ['people', 'bodies', 'pose_keypoints_2d', 'joints', 'image_id', 'keypoints', 'keypoint_scores']
                + ['instance_info', 'instances', 'frame_id', 'meta_info', 'images', 'annotations', 'categories', 'id']
                + ['box', 'class', 'track_id', 'x', 'y', 'visible', 'frames', 'landmarks', 'dataset_name', 'frame']
            ),
            inner,
            max_size=4,
        ),
        max_leaves=20,
    )
)
def test_any_json_is_read_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp('any')
    for name in ('a_0.json', 'a_1.json'):
        (folder / name).write_text(json.dumps(content))
    try:
        for source in find_videos(folder):
            read_videos(source)
    except SkeletonGaitError as e:
        assert str(e).startswith(str(folder))


def test_refusals_say_what_to_choose(tmp_path):
    pose = w.walker()
    with pytest.raises(SkeletonGaitError, match='--image_size=WIDTHxHEIGHT'):
        read_poses(w.movenet(pose, tmp_path / 'a'), format='movenet')
    with pytest.raises(SkeletonGaitError, match='found 26 joints; coco17 has 17; --format=halpe26 would fit'):
        read_poses(w.array(pose, tmp_path / 'b', 'halpe26'), format='coco17')
    with pytest.raises(SkeletonGaitError, match='for this say h36m17'):
        read_poses(w.array(pose, tmp_path / 'c'), format='h36n')
    deep = pose.copy()
    deep[..., 2] -= 0.8
    np.save(tmp_path / 'deep.npy', deep)
    with pytest.raises(SkeletonGaitError, match='third number of a joint is negative.*ntu25'):
        read_poses(tmp_path / 'deep.npy')
    with pytest.raises(SkeletonGaitError, match='at most 5 are read'):
        read_poses(w.openpose(pose, tmp_path / 'long'), limits=Limits(frames=5))
    save_pickle({'keypoint': 'x'}, tmp_path / 'x.pkl')
    with pytest.raises(SkeletonGaitError, match='keypoint is a str'):
        read_poses(tmp_path / 'x.pkl')


MARKS = st.sampled_from([
    (0, 0, 0), (0, 0, 0.3), (-1, -1, 0.5), (-1, -1, -1), (np.nan, 5, 1), (5, 5, np.nan), (np.inf, 5, 1), (5, 5, 0),
    (5, 5, -1),
])  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 16), MARKS), max_size=30))
def test_every_mark_means_not_found(holes):
    pose = w.walker().astype(np.float64)
    marked, expected = pose.copy(), pose.copy()
    for t, joint, mark in holes:
        marked[t, joint], expected[t, joint] = mark, 0
    np.testing.assert_array_equal(mark_missing(marked), expected)
    raw = RawPoses([*range(12)], [[person] for person in marked], [[None]] * 12, dtype=np.float64)
    recording = make_recording(raw)
    for people, person in zip(recording.people, expected):
        assert len(people) == (person[:, 2] > 0).any()
        np.testing.assert_allclose(people, person[None][: len(people)])


@given(st.lists(st.floats(0.001, 1000), min_size=17, max_size=17))
def test_scores_end_between_0_and_1_in_the_same_order(scores):
    people = np.ones((1, 17, 3))
    people[0, :, 2] = scores
    scaled = scale_scores(people)[0, :, 2]
    assert scaled.max() <= 1 and (np.diff(scaled[np.argsort(scores)]) >= 0).all()
    if max(scores) <= 1:
        np.testing.assert_array_equal(scaled, scores)
    if max(scores) > CUT_UP_TO:
        np.testing.assert_allclose(scaled, np.array(scores) / max(scores))


@given(st.sets(st.integers(0, 16), max_size=16))
def test_joints_never_found_spoil_nothing(missing):
    "They stand inside the body with confidence 0: the box of the body is that of the joints that are there."
    pose = w.walker()
    pose[:, sorted(missing)] = 0
    filled, never = fill_never_found(pose)
    assert never == tuple(JOINTS[i] for i in sorted(missing))
    there = [i for i in range(17) if i not in missing]
    np.testing.assert_array_equal(filled[:, there], pose[:, there])
    assert not filled[:, sorted(missing), 2].any()
    for extreme in (np.min, np.max):
        np.testing.assert_array_equal(extreme(filled[..., :2], 1), extreme(pose[:, there, :2], 1))


def test_every_joint_set_is_a_format():
    assert {form.joints for form in FORMATS.values()} == {*JOINT_SETS} and {*JOINT_SETS} <= {*FORMATS}
