"People become tracks: crossings, gaps, newcomers, and the file's own numbers."

import numpy as np
from hypothesis import assume, given, settings, strategies as st

import pose_writers as w
from skeletongait.poses.joints import JOINT_SETS
from skeletongait.poses.recording import PoseRecording
from skeletongait.poses.tracks import LEAST_FRAMES, boxes_of, costs, find_tracks, overlaps, pairs, step_of

BODIES = {subject: w.walker(60, subject, '090') for subject in (1, 2, 3)}


def moving(subject, start, speed, n=60):
    "A body `(n, 17, 3)` of which the left hip starts at a column and moves evenly."
    pose = BODIES[subject][:n].copy()
    pose[..., 0] += (start + speed * np.arange(n) - pose[:, 11, 0])[:, None]
    return pose


def recording(frames, ids=None, step=1):
    "From the people of each frame."
    people = tuple(np.stack(there) if there else np.zeros((0, 17, 3), np.float32) for there in frames)
    ids = tuple(map(tuple, ids)) if ids else tuple((None,) * len(there) for there in frames)
    return PoseRecording(np.arange(len(frames)) * step, people, ids, None, JOINT_SETS['coco17'])


def same(track, pose, frames):
    "Are the frames of the track those of the pose?"
    rows = [int(np.flatnonzero(track.frames == t)[0]) for t in frames]
    np.testing.assert_array_equal(track.pose[rows], pose[frames])


@settings(max_examples=60, deadline=None)
@given(
    speeds=st.tuples(st.integers(5, 15), st.integers(5, 15)),
    meet=st.integers(15, 45),
    seed=st.integers(0, 999),
    lift=st.integers(-30, 30),
)
def test_two_people_cross(speeds, meet, seed, lift):
    "Wherever they meet, and in whatever order a frame lists them."
    rng = np.random.default_rng(seed)
    a = moving(1, 1000 - speeds[0] * meet, speeds[0])
    b = moving(2, 1000 + speeds[1] * meet, -speeds[1])
    b[..., 1] += lift
    found = find_tracks(recording([[pair[i] for i in rng.permutation(2)] for pair in zip(a, b)]))
    assert [len(track.frames) for track in found.tracks] == [60, 60] and not found.dropped and not found.cuts
    first, second = sorted(found.tracks, key=lambda track: track.pose[0, 11, 0])
    same(first, a, [*range(60)])
    same(second, b, [*range(60)])


@settings(max_examples=60, deadline=None)
@given(start=st.integers(12, 40), length=st.integers(1, 20), speed=st.integers(-12, 12), step=st.integers(1, 5))
def test_gaps_are_filled_or_cut(start, length, speed, step):
    "Up to ten frames (.4 s at 25 a second) in a straight line; beyond that the track is cut."
    assume(start + length <= 59)
    a = moving(1, 1000, speed)
    frames = [[] if start <= t < start + length else [a[t]] for t in range(60)]
    found = find_tracks(recording(frames, step=step))
    assert sum(len(track.frames) - track.filled for track in found.tracks) >= 60 - length - found.dropped * LEAST_FRAMES
    if length <= 10:
        (track,) = found.tracks
        assert track.frames.tolist() == [t * step for t in range(60)] and track.filled == length
        share = 1 / (length + 1)
        middle = a[start - 1] + (a[start + length] - a[start - 1]) * share
        np.testing.assert_allclose(track.pose[start], middle, rtol=1e-5)
    else:
        assert all(not track.filled for track in found.tracks)
        assert len(found.tracks) + found.dropped == 2


def test_a_newcomer_and_one_who_leaves():
    a, b = moving(1, 500, 8), moving(3, 1500, 8)
    frames = [[o[t] for o, first, last in ((b, 20, 60), (a, 0, 45)) if first <= t < last] for t in range(60)]
    found = find_tracks(recording(frames))
    assert [(track.frames[0], track.frames[-1]) for track in found.tracks] == [(0, 44), (20, 59)]
    same(found.tracks[0], a, [*range(45)])
    same(found.tracks[1], b, [*range(20, 60)])


def test_short_tracks_are_dropped_beside_longer_ones_only():
    a, ghost = moving(1, 500, 8), moving(2, 3000, 0)
    beside = find_tracks(recording([[a[t], ghost[t]] if t < 5 else [a[t]] for t in range(60)]))
    assert (len(beside.tracks), beside.dropped) == (1, 1)
    alone = find_tracks(recording([[a[t]] for t in range(5)]))
    assert (len(alone.tracks[0].frames), alone.dropped) == (5, 0)


def test_the_numbers_of_the_file_are_believed():
    "Even where two people change places; people without a number are left out and counted."
    a, b = moving(1, 500, 0), moving(2, 520, 0)
    frames = [[a[t], b[t], b[t]] for t in range(30)]
    swapped = [(7, 9, None) if t < 15 else (9, 7, None) for t in range(30)]
    found = find_tracks(recording(frames, swapped))
    assert found.own_ids and found.without_id == 30 and {track.id for track in found.tracks} == {7, 9}
    seven = next(track for track in found.tracks if track.id == 7)
    np.testing.assert_array_equal(seven.pose, np.concatenate([a[:15], b[15:30]]))


def test_a_number_twice_in_a_frame_is_not_believed():
    a, b = moving(1, 500, 0), moving(2, 2000, 0)
    found = find_tracks(recording([[a[t], b[t]] for t in range(30)], [(1, 1)] * 30))
    assert not found.own_ids and len(found.tracks) == 2


@given(st.lists(st.lists(st.floats(0, 3), min_size=3, max_size=3), min_size=1, max_size=4))
def test_pairs_take_each_once_and_the_best_first(cost):
    cost = np.array(cost)
    found = pairs(cost, 1.25)
    assert len({row for row, _ in found}) == len({column for _, column in found}) == len(found)
    assert all(cost[pair] <= 1.25 for pair in found)
    assert [cost[pair] for pair in found] == sorted(cost[pair] for pair in found)
    left = [cost[r, c] for r in range(len(cost)) for c in range(3)
            if r not in {p[0] for p in found} and c not in {p[1] for p in found}]  # fmt: skip
    assert all(value > 1.25 for value in left)


def test_boxes_and_costs():
    a = moving(1, 500, 0)[:1]
    assert costs(a, a) == 0 and np.isinf(costs(a, a * np.float32([1, 1, 0]))).all()
    one, others = np.array([[0, 0, 2, 2.0]]), np.array([[1, 0, 3, 2.0], [5, 5, 6, 6]])
    np.testing.assert_allclose(overlaps(one, others), [[1 / 3, 0]])
    half = a.copy()
    half[0, 0] = 0
    assert (boxes_of(half)[:, :2] > 0).all()


def test_steps():
    assert [step_of(np.array(o)) for o in ([3], [1, 2, 3], [0, 5, 10, 30], [0, 2, 5])] == [1, 1, 5, 2]
