"""Pose files as estimators write them, made from COCO-17 `(T, 17, 3)` by hand.

The orders of the joints are written out here once more, apart from the library's table."""

import csv
import json

import numpy as np

from skeletongait.core import save_pickle
from skeletongait.walkers.recording import make_sequence

SIZE = (1920, 1080)

# For each joint of a set its number in COCO-17; None: COCO has no such joint
ORDERS = {
    'coco17': [*range(17)],
    'coco18': [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3],
    'body25': [0, None, 6, 8, 10, 5, 7, 9, None, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, *[None] * 6],
    'body25b': [*range(17), *[None] * 8],
    'coco23': [*range(17), *[None] * 6],
    'halpe26': [*range(17), *[None] * 9],
    'halpe136': [*range(17), *[None] * 119],
    'wholebody133': [*range(17), *[None] * 116],
    'mediapipe33': [
        *[0, None, 1, None, None, 2, None, 3, 4, None, None, 5, 6, 7, 8, 9, 10],
        *[None] * 6,
        *[11, 12, 13, 14, 15, 16, None, None, None, None],
    ],
    'h36m17': [None, 12, 14, 16, 11, 13, 15, None, None, 0, None, 5, 7, 9, 6, 8, 10],
    'posetrack18': [0, None, None, *range(3, 17)],
    'ntu25': [
        *[None, None, None, 0, 5, 7, 9, None, 6, 8, 10, None, 11, 13, 15, None, 12, 14, 16, None],
        *[None] * 5,
    ],
}


def walker(n=12, subject=1, view='070', type='nm-01', seed=0):
    "A walk `(n, 17, 3)` in which every joint is found; float32, confidences .5 to 1."
    pose = make_sequence(seed=seed, subject=subject, type=type, view=view, n_frames=n).true.astype(np.float32)
    pose[..., 2] = np.random.default_rng(subject).uniform(0.5, 1, pose.shape[:2]).astype(np.float32)
    pose[0, 0, 2] = 1
    return pose


# Joints that COCO lacks: which COCO joints' mean they are at, and how much of the body's height above it
EXTRA = {
    'h36m17': {0: ((11, 12), 0), 7: ((5, 6, 11, 12), 0), 8: ((5, 6), 0), 10: ((0,), 0.06)},
    'posetrack18': {1: ((0,), -0.05), 2: ((0,), 0.09)},
    'ntu25': {
        **{0: ((11, 12), 0), 1: ((5, 6, 11, 12), 0), 2: ((5, 6), 0.03), 20: ((5, 6), 0)},
        **{hand: ((9,), 0) for hand in (7, 21, 22)},
        **{hand: ((10,), 0) for hand in (11, 23, 24)},
        **{15: ((15,), 0), 19: ((16,), 0)},
    },
}


def in_order(pose, name):
    "The pose in the order of another set; joints that COCO lacks are where `EXTRA` says, or near the nose."
    out = np.repeat(pose[:, :1] + np.float32([3, 4, 0]), len(ORDERS[name]), 1)
    for i, joint in enumerate(ORDERS[name]):
        if joint is not None:
            out[:, i] = pose[:, joint]
    height = np.ptp(pose[..., 1], axis=1)
    for i, (joints, above) in EXTRA.get(name, {}).items():
        out[:, i] = pose[:, list(joints)].mean(1)
        out[:, i, 1] -= above * height
    return out


def flat(person):
    return [float(n) for n in np.ravel(person)]


def openpose(pose, path, name='body25', people=lambda t, person: [person]):
    path.mkdir(parents=True, exist_ok=True)
    for t, person in enumerate(in_order(pose, name)):
        persons = [{'person_id': [-1], 'pose_keypoints_2d': flat(o)} for o in people(t, person)]
        (path / f'video_{t:012}_keypoints.json').write_text(json.dumps({'version': 1.3, 'people': persons}))
    return path


def alphapose(pose, path, name='halpe26', track=True):
    people = [
        {'image_id': f'{t}.jpg', 'category_id': 1, 'keypoints': flat(o), 'score': 2.7, 'box': [0, 0, 9, 9]}
        | ({'idx': [1.0]} if track else {})
        for t, o in enumerate(in_order(pose, name))
    ]
    path.with_suffix('.json').write_text(json.dumps(people))
    return path.with_suffix('.json')


def alphapose_cmu(pose, path):
    images = {
        f'{t}.jpg': {'version': 'AlphaPose v0.3', 'bodies': [{'joints': flat(o)}]}
        for t, o in enumerate(in_order(pose, 'coco18'))
    }
    path.with_suffix('.json').write_text(json.dumps(images))
    return path.with_suffix('.json')


def alphapose_open(pose, path):
    images = {
        f'{t}.jpg': {'version': 0.1, 'people': [{'pose_keypoints_2d': flat(o)}]}
        for t, o in enumerate(in_order(pose, 'coco18'))
    }
    path.with_suffix('.json').write_text(json.dumps(images))
    return path.with_suffix('.json')


def coco_results(pose, path):
    people = [{'image_id': t + 7, 'category_id': 1, 'keypoints': flat(o), 'score': 0.9} for t, o in enumerate(pose)]
    path.with_suffix('.json').write_text(json.dumps(people))
    return path.with_suffix('.json')


def posetrack(pose, path):
    names = ['nose', 'head_bottom', 'head_top', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder']
    names += ['left_elbow', 'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip', 'left_knee']
    names += ['right_knee', 'left_ankle', 'right_ankle']
    content = {
        'images': [{'id': 1000 + t, 'frame_id': 3 + t, 'file_name': f'{t}.jpg'} for t in range(len(pose))],
        'annotations': [
            {'image_id': 1000 + t, 'track_id': 0, 'keypoints': flat(o)}
            for t, o in enumerate(in_order(pose, 'posetrack18'))
        ],
        'categories': [{'name': 'person', 'keypoints': names}],
    }
    path.with_suffix('.json').write_text(json.dumps(content))
    return path.with_suffix('.json')


def mmpose(pose, path, name='wholebody133'):
    frames = [
        {'frame_id': t + 1, 'instances': [{'keypoints': o[:, :2].tolist(), 'keypoint_scores': o[:, 2].tolist()}]}
        for t, o in enumerate(in_order(pose, name))
    ]
    path.with_suffix('.json').write_text(json.dumps({'meta_info': {}, 'instance_info': frames}))
    return path.with_suffix('.json')


def ultralytics_json(pose, path):
    frames = [
        [
            {'name': 'dog', 'class': 16, 'confidence': 0.5, 'box': {'x1': 0}},
            {
                'name': 'person',
                'class': 0,
                'confidence': 0.9,
                'box': {'x1': 0},
                'track_id': 2,
                'keypoints': {k: flat(o[:, i]) for i, k in enumerate(('x', 'y', 'visible'))},
            },
        ]
        for o in pose
    ]
    path.with_suffix('.json').write_text(json.dumps(frames))
    return path.with_suffix('.json')


def ultralytics_txt(pose, path):
    path.mkdir(parents=True, exist_ok=True)
    for t, o in enumerate(pose.astype(np.float64) / [*SIZE, 1]):
        numbers = ' '.join(f'{n:.9g}' for n in o.ravel())
        (path / f'video_{t + 1}.txt').write_text(f'0 .5 .5 .2 .8 {numbers} 0.91 3\n')
    return path


def mediapipe_json(pose, path):
    fractions = in_order(pose, 'mediapipe33').astype(np.float64) / [*SIZE, 1]
    frames = [[{'x': x, 'y': y, 'z': -0.1, 'visibility': v} for x, y, v in o.tolist()] for o in fractions]
    path.with_suffix('.json').write_text(json.dumps(frames))
    return path.with_suffix('.json')


def mediapipe_csv(pose, path):
    fractions = in_order(pose, 'mediapipe33').astype(np.float64) / [*SIZE, 1]
    with open(path.with_suffix('.csv'), 'w', newline='') as f:
        table = csv.writer(f)
        table.writerow(['frame', 'landmark', 'x', 'y', 'z', 'visibility'])
        for t, o in enumerate(fractions):
            table.writerows([t, i, x, y, 0.2, v] for i, (x, y, v) in enumerate(o.tolist()))
    return path.with_suffix('.csv')


def mediapipe_array(pose, path):
    fractions = in_order(pose, 'mediapipe33').astype(np.float64) / [*SIZE, 1]
    deep = np.insert(fractions, 2, np.linspace(-0.3, 0.3, 33), -1)
    np.save(path.with_suffix('.npy'), deep)
    return path.with_suffix('.npy')


def movenet(pose, path):
    np.savez(path.with_suffix('.npz'), (pose.astype(np.float64) / [*SIZE, 1])[:, None, :, [1, 0, 2]])
    return path.with_suffix('.npz')


def movenet_multi(pose, path):
    out = np.zeros((len(pose), 6, 56))
    out[:, 3, :51] = (pose.astype(np.float64) / [*SIZE, 1])[:, :, [1, 0, 2]].reshape(-1, 51)
    out[:, 3, 55] = 0.8
    out[:, 0, :51] = 0.5  # five people who are not there
    np.save(path.with_suffix('.npy'), out)
    return path.with_suffix('.npy')


def array(pose, path, name='coco17', ending='.pkl'):
    path = path.with_suffix(ending)
    save_pickle(in_order(pose, name), path) if ending == '.pkl' else np.save(path, in_order(pose, name))
    return path


def ntu(pose, path):
    "Metres, y up: 250 pixels a metre, seen from straight ahead."
    xy = in_order(pose, 'ntu25')[..., :2].astype(np.float64)
    metres = np.concatenate([xy / [250, -250], np.full((*xy.shape[:2], 1), 3.5)], -1)
    np.save(path.with_suffix('.npy'), metres)
    return path.with_suffix('.npy')


def pyskl(pose, path, half=False):
    kind = np.float16 if half else np.float32
    annotation = {
        'frame_dir': 'S001',
        'label': 0,
        'img_shape': SIZE[::-1],
        'total_frames': len(pose),
        'keypoint': pose[None, ..., :2].astype(kind),
        'keypoint_score': pose[None, ..., 2].astype(kind),
        'valid': {0.5: len(pose)},
    }
    save_pickle({'split': {'train': ['S001']}, 'annotations': [annotation]}, path.with_suffix('.pkl'))
    return path.with_suffix('.pkl')


def gaitgraph(pose, path, walks=('001-nm-01-090',)):
    with open(path.with_suffix('.csv'), 'w', newline='') as f:
        table = csv.writer(f)
        table.writerow(['image_name', *range(51)])
        for walk in walks:
            table.writerows([f'x/{walk}/{t:06}.jpg', *flat(o)] for t, o in enumerate(pose))
    return path.with_suffix('.csv')


def grew(pose, path):
    path.mkdir(parents=True, exist_ok=True)
    for t, o in enumerate(pose):
        numbers = ','.join(map(repr, flat(o)))
        (path / f'{t:05}_2d_pose.txt').write_text(f'{t},1,{numbers}')
    return path


def openpose_fractions(pose, path):
    "With `--keypoint_scale 3`: 0 to 1."
    return openpose(pose.astype(np.float64) / [*SIZE, 1], path)


def openpose_around_0(pose, path):
    "With `--keypoint_scale 4`: -1 to 1."
    return openpose(pose.astype(np.float64) / [*SIZE, 1] * [2, 2, 1] - [1, 1, 0], path)


def oumvlp(pose, path):
    "Two people in each frame: the walker and somebody at the margin; frame 2 has nobody and no file."
    folder = path / '00003' / '030_00'
    openpose(pose, folder, 'coco18', lambda t, person: [person, person + np.float32([600, 0, 0])])
    for file in sorted(folder.iterdir()):
        file.rename(folder / f'{int(file.name.split("_")[1]):04}_keypoints.json')
    (folder / '0002_keypoints.json').unlink()
    return path


def sustech(pose, path):
    "The poses twice, at 30 and 10 Hz, beside the data of other sensors."
    path.mkdir(parents=True, exist_ok=True)
    save_pickle(pose, path / '03-090-Camera-Pose.pkl')
    save_pickle(pose[::3], path / '11-sync-090-Camera-Pose.pkl')
    save_pickle(np.zeros((3, 64, 44), np.uint8), path / '05-090-Camera-Sils_aligned.pkl')
    return path


def mmpose_images(pose, path, name='halpe26'):
    "A file per image, as mmpose's inferencer writes for a folder (RTMPose)."
    path.mkdir(parents=True, exist_ok=True)
    for t, o in enumerate(in_order(pose, name)):
        person = {'keypoints': o[:, :2].tolist(), 'keypoint_scores': o[:, 2].tolist(), 'bbox': [[0, 0, 9, 9]]}
        (path / f'{t:06}.json').write_text(json.dumps([person]))
    return path


def vitpose(pose, path):
    "easy_ViTPose's joints with feet: the neck between the ears and the shoulders; y, x, score."
    order = [0, 1, 2, 3, 4, None, *range(5, 11), 11, 12, None, *range(13, 17)]
    names = 'nose left_eye right_eye left_ear right_ear neck left_shoulder right_shoulder left_elbow right_elbow'
    names += ' left_wrist right_wrist left_hip right_hip hip left_knee right_knee left_ankle right_ankle'
    frames = [{'5': [flat(o[i][[1, 0, 2]]) if i is not None else [9.0, 9.0, 0.5] for i in order]} for o in pose]
    content = {'keypoints': frames, 'skeleton': {str(i): name for i, name in enumerate(names.split())}}
    path.with_suffix('.json').write_text(json.dumps(content))
    return path.with_suffix('.json')


def tensorflow_json(pose, path):
    "MoveNet as TensorFlow.js returns it: pixels, x and y by name."
    names = 'nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow'.split()
    names += 'left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle'.split()
    frames = [
        [{'score': 0.8, 'keypoints': [dict(zip(('x', 'y', 'score'), flat(j)), name=n) for j, n in zip(o, names)]}]
        for o in pose
    ]
    path.with_suffix('.json').write_text(json.dumps(frames))
    return path.with_suffix('.json')


def wide_csv(pose, path):
    "MediaPipe's landmarks by number, a row per frame."
    fractions = in_order(pose, 'mediapipe33').astype(np.float64) / [*SIZE, 1]
    with open(path.with_suffix('.csv'), 'w', newline='') as f:
        table = csv.writer(f)
        table.writerow(['frame', *(f'{c}{i}' for i in range(1, 34) for c in 'xyzv')])
        for t, o in enumerate(fractions.tolist()):
            table.writerow([t, *(n for x, y, v in o for n in (x, y, -0.1, v))])
    return path.with_suffix('.csv')


PARTS = """nose L_eye R_eye LEar REar LeftShoulder RightShoulder elbow_left elbow_right wrist.left wrist.right
    l_hip r_hip Knee-left Knee-right left_ankle right_ankle""".split()  # as somebody may have called them


def deeplabcut(pose, path, individuals=()):
    "Three rows of names, or four; the joints in an order of their own, with a tail."
    order = [16, 15, 14, 13, 12, 11, *range(11)]
    names = [PARTS[i] for i in order] + ['tail']
    people = individuals or ('',)
    n = len(people)
    rows = [['scorer', *['DLC_resnet50_walkers'] * 54 * n]]
    rows += [['individuals', *(o for o in people for _ in range(54))]] if individuals else []
    rows += [['bodyparts', *[o for o in names for _ in range(3)] * n]]
    rows += [['coords', *['x', 'y', 'likelihood'] * 18 * n]]
    for t, o in enumerate(pose):
        persons = [o + np.float32([700 * i, 0, 0]) for i in range(n)]
        rows.append([t, *(v for one in persons for v in [*flat(one[order]), 8.0, 9.0, 0.1])])
    with open(path.with_suffix('.csv'), 'w', newline='') as f:
        csv.writer(f).writerows(rows)
    return path.with_suffix('.csv')


def sleap(pose, path):
    "SLEAP's analysis CSV: joints and columns by the alphabet."
    parts = 'eye ear shoulder elbow wrist hip knee ankle'.split()
    sides = [f'{side}_{part}' for part in parts for side in ('left', 'right')]
    names = {'nose': 0} | {name: i for i, name in enumerate(sides, 1)}
    with open(path.with_suffix('.csv'), 'w', newline='') as f:
        table = csv.writer(f)
        columns = sorted(names.items())
        header = [f'{name}.{c}' for name, _ in columns for c in ('score', 'x', 'y')]
        table.writerow(['track', 'frame_idx', 'instance.score', *header])
        for t, o in enumerate(pose):
            table.writerow(['track_0', t, 0.9, *(n for _, i in columns for n in flat(o[i][[2, 0, 1]]))])
    return path.with_suffix('.csv')


def coco_npz(pose, path):
    np.savez_compressed(path.with_suffix('.npz'), pose)
    return path.with_suffix('.npz')
