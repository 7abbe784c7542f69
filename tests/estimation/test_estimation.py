"People in video: geometry, following, and what is written; the networks themselves in the slow tests."

import json
import math
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from puppets import Puppet, write_video
from scripts import ROOT

from skeletongait.core import SkeletonGaitError
from skeletongait.estimation import networks
from skeletongait.estimation.blazepose import Square, body_square, cut_out, merge_boxes, move, refine
from skeletongait.estimation.clips import find_people, find_walks, look_at_video, read_video, to_walks
from skeletongait.estimation.people import AGAIN, SLIPPED, TOO_CLOSE, Follower, Motion, MotionFinder, picture_squares
from skeletongait.files.arrays import load_array
from skeletongait.files.frames import read_frames, to_numbers
from skeletongait.files.tree import read_tree

number = st.floats(-500, 500)
squares = st.builds(Square, number, number, st.floats(1, 900), st.floats(-7, 7))


@given(squares, number, number)
def test_a_square_keeps_distances(square, x, y):
    "Turned or not: places inside it are `size` times farther apart in the picture, and its middle is its centre."
    matrix = square.to_picture()
    middle, point = move(matrix, np.array([[0.5, 0.5], [x, y]]))
    np.testing.assert_allclose(middle, square[:2], atol=1e-6)
    np.testing.assert_allclose(math.dist(point, middle), square.size * math.dist((x, y), (0.5, 0.5)), rtol=1e-6)


@given(st.integers(2, 40), st.integers(0, 3))
def test_a_turned_square_turns_the_picture(n, quarters):
    picture = np.random.default_rng(n).integers(0, 255, (n, n), dtype=np.uint8)
    square = Square(n / 2, n / 2, n, quarters * math.pi / 2)
    np.testing.assert_array_equal(cut_out(picture, square, n), np.rot90(picture, quarters))


@given(st.floats(-math.pi, math.pi), st.floats(5, 300))
def test_the_body_is_inside_its_square(direction, length):
    "The circle around the hips that goes through `top` lies inside, and `top` is straight above the hips."
    hips = np.array([200.0, 300.0])
    top = hips + length * np.array([math.cos(direction), math.sin(direction)])
    square = body_square(hips, top)
    inside = move(cv2.invertAffineTransform(square.to_picture()), top)
    np.testing.assert_allclose(inside, [0.5, 0.5 - 0.5 / 1.25], atol=1e-6)


side = st.floats(1, 50)


@given(st.lists(st.tuples(number, number, side, side, st.floats(0.5, 1)), min_size=1, max_size=12))
def test_merged_boxes_do_not_overlap_their_leaders(boxes):
    values, scores = np.zeros((len(boxes), 12)), np.array([o[4] for o in boxes])
    values[:, :4] = [(x, y, x + w, y + h) for x, y, w, h, _ in boxes]
    merged = merge_boxes(scores, values)
    found = [score for score, _ in merged]
    assert found == sorted(found, reverse=True) and found[0] == scores.max() and len(merged) <= len(boxes)
    for _, box in merged:
        assert (box[:4] >= values[:, :4].min(0) - 1e-6).all() and (box[:4] <= values[:, :4].max(0) + 1e-6).all()


@given(st.integers(0, 10**6), st.floats(-0.2, 1.2), st.floats(-0.2, 1.2))
def test_refining_moves_a_point_by_three_cells_at_most(seed, x, y):
    heat = np.random.default_rng(seed).normal(0, 9, (64, 64, 1))
    moved = refine(np.array([[x, y]]), heat)[0]
    assert np.abs(moved - [x, y]).max() <= 4 / 64


@given(st.integers(10, 2000), st.integers(10, 2000))
def test_every_place_is_looked_at_closely(width, height):
    "The squares of the smaller side cover the picture, and each stands whole inside it."
    _, *close = [*picture_squares(width, height)] if width != height else [None, *picture_squares(width, height)]
    side = min(width, height)
    starts = sorted((o.x if width > height else o.y) - side / 2 for o in close)
    assert starts[0] == pytest.approx(0) and starts[-1] + side == pytest.approx(max(width, height))
    assert all(b - a <= side / 2 + 1e-6 for a, b in zip(starts, starts[1:]))


def nothing_moves(picture):
    "Stands for the search for motion, which black pictures need not be put through."
    return Motion(0.0, np.zeros((0, 4)))


def follow(scene, n_frames, width=800):
    "Tracks of a scene: a function from the frame to the places of people."
    puppet, picture = Puppet(), np.zeros((300, width, 3), np.uint8)
    follower = Follower(puppet)
    follower.motion = nothing_moves
    for t in range(n_frames):
        puppet.places = scene(t)
        follower.step(t, picture)
    return follower.close()


def x_of(track):
    return np.array([o.joints[:, 0].mean() for o in track.sightings])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True), st.integers(1, 4))
def test_each_person_is_one_track(lanes, speed):
    "People on lanes that are half a body apart or more."
    tracks = follow(lambda t: [(150 + 140 * lane + speed * t, 120) for lane in lanes], 45)
    assert len(tracks) == len(lanes)
    for track in tracks:
        assert [o.frame for o in track.sightings] == [*range(45)]
        np.testing.assert_allclose(np.diff(x_of(track)), speed)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(30, 60))
def test_people_who_cross_keep_their_tracks(speed, apart):
    tracks = follow(lambda t: [(100 + speed * t, 120), (700 - speed * t, 120 + apart)], 100)
    assert len(tracks) == 2
    assert sorted(round(float(np.diff(x_of(o)).mean())) for o in tracks) == [-speed, speed]
    assert all(len(o.sightings) == 100 for o in tracks)


def test_where_two_meet_both_tracks_end():
    "Nobody knows who is who after two people were at one place: no track goes on from before to after."
    tracks = follow(lambda t: [(100 + 3 * t, 120), (400, 122)], 130)
    assert [o.end for o in tracks].count(TOO_CLOSE) == 2
    met = max(o.sightings[-1].frame for o in tracks if o.end == TOO_CLOSE)
    assert all(o.sightings[-1].frame <= met or o.sightings[0].frame > met for o in tracks)


@settings(max_examples=8, deadline=None)
@given(st.integers(4, 7), st.integers(-3, 3))
def test_crossing_at_one_place_mixes_nobody(speed, apart):
    "Each track shows people of one direction only, and several tracks are counted as unsure."
    tracks = follow(lambda t: [(100 + speed * t, 120), (700 - speed * t, 120 + apart)], 600 // speed)
    for track in tracks:
        steps = np.diff(x_of(track)) / np.diff([o.frame for o in track.sightings])
        assert len(steps) == 0 or np.ptp(steps) < 1e-6
    assert to_walks(tracks, 800, 300).close >= 2


def test_a_track_that_changes_over_to_a_neighbour_ends():
    "Two people side by side, seen by turns: one track may not show both."
    tracks = follow(lambda t: [(150 + 3 * t + (15 if t >= 40 else 0), 120)], 100)
    assert [o.end for o in tracks] == [SLIPPED, 'the video ends']
    assert [len(o.sightings) for o in tracks] == [40, 60]


def test_a_walker_who_turns_keeps_the_track():
    "Slowing down, stopping and walking back is no slip."
    (track,) = follow(lambda t: [(400 - (t - 60) ** 2 / 20, 120)], 120)
    assert len(track.sightings) == 120


@pytest.mark.parametrize('hidden', [3, AGAIN - 10])
def test_hidden_for_a_moment(hidden):
    "A person behind a tree goes on with the old track; the frames between are missing."
    (track,) = follow(lambda t: [] if 40 <= t < 40 + hidden else [(100 + 2 * t, 120)], 90)
    frames = {o.frame for o in track.sightings}
    assert {*range(40)} <= frames and 89 in frames and not frames & {*range(40, 40 + hidden)}


def test_hidden_for_long_is_another_track():
    assert len(follow(lambda t: [] if 40 <= t < 80 else [(100 + 2 * t, 120)], 130)) == 2


def test_nobody():
    assert follow(lambda t: [], 30) == []


def test_poses_and_silhouettes_are_of_the_same_frames(tmp_path):
    path, puppet = write_video(tmp_path / 'a.avi'), Puppet()
    puppet.places = [(160, 120)]
    *_, follower = find_people(path, puppet)
    video = look_at_video(path)
    (walk,) = to_walks(follower.close(), video.width, video.height).walks
    assert walk.pose.shape == (40, 17, 3) and walk.pose.dtype == np.float32
    assert walk.silhouette.shape == (40, 64, 64) and walk.silhouette.dtype == np.uint8
    np.testing.assert_array_equal(walk.frames, range(40))


@pytest.mark.parametrize('content', [b'', b'no video', b'\0' * 5000, b'RIFF\xff\xff\xff\xffAVI LIST'])
def test_what_is_no_video_is_said(tmp_path, content):
    (tmp_path / 'a.mp4').write_bytes(content)
    with pytest.raises(SkeletonGaitError, match='a.mp4: OpenCV finds no frame in it; expected a video'):
        [*read_video(tmp_path / 'a.mp4')]


SIZES = [(24, (1280, 720)), (40, (1920, 1080)), (300, (640, 480))]


@pytest.mark.parametrize(('height', 'frame'), SIZES)
def test_small_walkers_are_seen_to_move(height, frame):
    "A person 40 pixels high is found in full HD."
    width, finder = frame[0], MotionFinder()
    for t in range(20):
        picture = np.full((frame[1], width, 3), 120, np.uint8)
        x, y = width // 4 + 8 * t, frame[1] // 2
        cv2.ellipse(picture, (x, y), (height // 6, height // 2), 0, 0, 360, (30, 60, 160), -1)
        motion = finder(picture)
    left, top, wide, high = motion.boxes[0]
    assert left <= x <= left + wide and top <= y <= top + high and high < 2 * height


@pytest.mark.parametrize('n_frames', [1, 40])
@pytest.mark.parametrize('size', [(320, 240), (62, 46), (30, 98), (16, 16)])
def test_nobody_in_it_is_said(tmp_path, size, n_frames):
    "However small or short: one clear error, and no other."
    path = write_video(tmp_path / 'a.avi', n_frames, size)
    with pytest.raises(SkeletonGaitError, match='a.avi: nobody is completely visible in 15 frames or more'):
        find_walks(path, Puppet())


def test_grey_videos_are_read_as_colour(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'a.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 25, (64, 48), False)
    for t in range(5):
        writer.write(np.full((48, 64), 40 * t, np.uint8))
    writer.release()
    frames = [*read_video(tmp_path / 'a.avi')]
    assert [o.shape for o in frames] == [(48, 64, 3)] * 5
    np.testing.assert_allclose([o.mean() for o in frames], [40 * t for t in range(5)], atol=2)


MATRICES = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def turned_video(path, degrees, size=(64, 48)):
    "A video as a phone writes it: the pixels lie on their side, and its header says so (the matrix in `tkhd`)."
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 25, size)
    for _ in range(5):
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        picture[: size[1] // 2] = 200  # bright above
        writer.write(picture)
    writer.release()
    content = bytearray(path.read_bytes())
    start = content.index(b'tkhd') + 4 + 40
    a, b, c, d = (o * 65536 for o in MATRICES[degrees])
    content[start : start + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(('degrees', 'bright'), [(90, 'right'), (180, 'bottom'), (270, 'left')])
def test_turned_videos_are_read_upright(tmp_path, degrees, bright):
    "Header and frames agree on the size, and the frames are turned as the header says."
    path = turned_video(tmp_path / 'a.mp4', degrees)
    frames, video = [*read_video(path)], look_at_video(path)
    assert len(frames) == 5 and {o.shape[:2] for o in frames} == {(video.height, video.width)}
    assert (video.width, video.height) == ((64, 48) if degrees == 180 else (48, 64))
    half_y, half_x = video.height // 2, video.width // 2
    picture = frames[0].astype(int)
    parts = dict(left=picture[:, :half_x], right=picture[:, half_x:], top=picture[:half_y], bottom=picture[half_y:])
    assert max(parts, key=lambda o: parts[o].mean()) == bright


def test_a_video_that_ends_early_gives_what_it_has(tmp_path):
    path = write_video(tmp_path / 'a.avi', 60, (640, 480))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 10 < len([*read_video(path)]) < 60


def test_a_truncated_video_is_said(tmp_path, caplog):
    "Its whole frames are kept, and a warning says how many there should have been."
    path, puppet = write_video(tmp_path / 'a.avi', 60, (640, 480)), Puppet()
    puppet.places = [(320, 240)]
    assert len(find_walks(path, puppet).walks[0].pose) == 60 and not caplog.records
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    n_read = len([*read_video(path)])
    assert len(find_walks(path, puppet).walks[0].pose) == n_read
    assert f'a.avi: {n_read} of 60 frames could be read' in caplog.text


def wheel_of(path, content):
    with zipfile.ZipFile(path, 'w') as z:
        for file in networks.NETWORKS.values():
            z.writestr(file.member, content)
    return path


def test_networks_with_another_checksum_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('SKELETONGAIT_CACHE', str(tmp_path / 'cache'))
    with pytest.raises(SkeletonGaitError, match=r'pose_detection.tflite: found SHA-256 .*expected 9ba9dd3d42efaaba'):
        networks.get_networks(wheel_of(tmp_path / 'a.whl', 'harmful'))
    assert not (tmp_path / 'cache').exists()
    (tmp_path / 'cache').mkdir()
    (tmp_path / 'cache' / 'pose_detection.tflite').write_bytes(b'harmful')
    with pytest.raises(SkeletonGaitError, match='remove the file, it will be fetched again'):
        networks.get_networks()


@pytest.mark.parametrize('content', [b'no zip', None])
def test_what_is_no_wheel_is_said(tmp_path, monkeypatch, content):
    monkeypatch.setenv('SKELETONGAIT_CACHE', str(tmp_path / 'cache'))
    path = tmp_path / 'a.whl'
    if content:
        path.write_bytes(content)
    else:
        zipfile.ZipFile(path, 'w').close()
    with pytest.raises(SkeletonGaitError, match='expected the wheel of mediapipe==0.10.21'):
        networks.get_networks(path)


def test_no_package_index(tmp_path, monkeypatch):
    "The error says what to do on a machine without a network."
    monkeypatch.setenv('SKELETONGAIT_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path))
    with pytest.raises(SkeletonGaitError, match='pip could not download it .*give its path'):
        networks.get_networks()


def test_without_the_runtime(tmp_path):
    "The package that runs the networks is an extra; the error names it."
    code = (
        'import sys; sys.modules["ai_edge_litert"] = None\n'
        'from skeletongait.estimation.networks import Network; from skeletongait.core import SkeletonGaitError\n'
        'try: Network("x.tflite")\n'
        'except SkeletonGaitError as e: print(e)'
    )
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "pip install 'ai-edge-litert>=2.3'" in shown


def command(*arguments, **more):
    return [sys.executable, '-m', 'skeletongait.video', *map(str, arguments)], dict(cwd=ROOT, text=True, **more)


def run_command(*arguments):
    words, options = command(*arguments, capture_output=True)
    return subprocess.run(words, timeout=300, **options)


def test_bad_videos_are_lines_and_end_non_zero(tmp_path):
    "In a folder: no networks are needed to say that no video can be read, or that paths do not fit the layout."
    (tmp_path / 'in' / 'ann' / 'walk').mkdir(parents=True)
    (tmp_path / 'in' / 'lost.mp4').write_bytes(b'')
    (tmp_path / 'in' / 'notes.txt').write_bytes(b'')
    done = run_command(tmp_path / 'in', f'--save_root={tmp_path / "out"}')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert f'failed: {tmp_path}/in/lost.mp4: ' in done.stdout
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert report['rows'] == [] and [o['path'] for o in report['failed']] == ['lost.mp4']
    empty = run_command(tmp_path / 'in' / 'ann', f'--save_root={tmp_path / "out"}')
    assert empty.returncode == 2 and 'found no video (.mp4' in empty.stderr


@pytest.mark.slow
def test_a_video_to_two_trees(sample, tmp_path):
    "A woman walks from right to left past a man on a roof: both are found, whole, and nobody else for long."
    done = run_command(sample, f'--save_root={tmp_path}')
    assert done.returncode == 0, done.stderr
    tree = read_tree(tmp_path / 'pose')
    poses = {sequence: load_array(file) for sequence, (file,) in tree.sequences.items()}
    walker = max(poses, key=lambda o: np.ptp(poses[o][:, 11, 0]))
    pose, frames = poses[walker], to_numbers(read_frames(tmp_path / 'pose')[walker])
    assert len(pose) == len(frames) > 140 and frames[0] < 60 and frames[-1] > 180
    hips = pose[:, 11:13, 0].mean(1)
    assert hips[0] > 1400 and hips[-1] < 300 and (np.diff(hips) < 25).all()
    height = np.ptp(pose[..., 1], axis=1)
    shin = np.linalg.norm(pose[:, 13, :2] - pose[:, 15, :2], axis=1)
    assert 330 < np.median(height) < 480 and 0.15 < np.median(shin / height) < 0.35
    silhouette = load_array(walker.path(tmp_path / 'silhouette') / f'{walker.view}.pkl')
    assert silhouette.shape == (len(pose), 64, 64) and 0.1 < (silhouette > 127).mean() < 0.4
    again = run_command(sample, f'--save_root={tmp_path}')
    assert again.returncode == 0 and again.stdout == done.stdout and 'frames/s' not in again.stderr


@pytest.mark.slow
def test_killed_and_finished(sample, tmp_path):
    "A run that is killed, or stopped, leaves whole files; the same command does the rest."
    folder = tmp_path / 'in' / 'ann' / 'walk'
    folder.mkdir(parents=True)
    for view in ('000', '090'):
        (folder / f'{view}.mp4').write_bytes(sample.read_bytes())
    words, options = command(tmp_path / 'in', f'--save_root={tmp_path / "out"}')
    for blow in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
        time.sleep(6)
        process.send_signal(blow)
        process.wait(60)
    done = run_command(tmp_path / 'in', f'--save_root={tmp_path / "out"}')
    assert done.returncode == 0, done.stderr
    whole = run_command(sample, f'--save_root={tmp_path / "whole"}')
    assert whole.returncode == 0
    for tree in ('pose', 'silhouette'):
        once = [load_array(f) for (f,) in read_tree(tmp_path / 'whole' / tree).sequences.values()]
        both = read_tree(tmp_path / 'out' / tree).sequences
        assert len(both) == 2 * len(once)
        for view in ('000', '090'):
            found = [load_array(f) for sequence, (f,) in both.items() if sequence.view == view]
            for a, b in zip(once, found, strict=True):
                np.testing.assert_array_equal(a, b)
    assert not [o for o in os.listdir(tmp_path / 'out') if o.endswith('.tmp')]
