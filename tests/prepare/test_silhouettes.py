"Silhouettes from masks, against a slow plain reading of the published preprocessing."

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skeletongait.core import SkeletonGaitError
from skeletongait.prepare.silhouettes import cut_silhouette, cut_masks, order_frames, read_mask, read_mask_video
from skeletongait.walkers.recording import make_sequence


def plain_cut(mask):
    "The steps of the published preprocessing, column by column and without an array's help."
    h, w = mask.shape
    if sum(int(v) for v in mask.ravel()) <= 10_000:
        return None
    rows = [y for y in range(h) if any(mask[y, x] for x in range(w))]
    body = np.array([mask[y] for y in range(rows[0], rows[-1] + 1)])
    width = int(64 * w / len(body))
    if width == 0:
        return None
    body = cv2.resize(body, (width, 64), interpolation=cv2.INTER_CUBIC)
    columns = [sum(int(v) for v in body[:, x]) for x in range(width)]
    centre, so_far = None, 0
    for x, column in enumerate(columns):
        so_far += column
        if so_far > sum(columns) / 2:
            centre = x
            break
    if not centre:
        return None
    left, right = centre - 32, centre + 32
    if left <= 0 or right >= width:
        body = np.concatenate([np.zeros((64, 32)), body, np.zeros((64, 32))], axis=1)
        left, right = left + 32, right + 32
    return body[:, left:right].astype('uint8')


def same(mask):
    ours, plain = cut_silhouette(mask), plain_cut(mask)
    assert (ours is None) == (plain is None)
    if ours is not None:
        assert ours.dtype == np.uint8 and ours.shape == (64, 64)
        np.testing.assert_array_equal(ours, plain)
    return ours is not None


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 120)),
    box=st.tuples(*[st.floats(0, 1)] * 4),
    grey=st.sampled_from([1, 128, 255]),
    noise=st.sampled_from([0, 0.02]),
    seed=st.integers(0, 9),
)
def test_any_mask_is_cut_as_published(shape, box, grey, noise, seed):
    "Boxes anywhere, at the edges too, of one pixel or of the whole picture, with holes and specks."
    h, w = shape
    y, x = sorted(round(o * h) for o in box[:2]), sorted(round(o * w) for o in box[2:])
    mask = np.zeros(shape, np.uint8)
    mask[slice(*y), slice(*x)] = grey
    specks = np.random.default_rng(seed).random(shape) < noise
    mask[specks] ^= 255
    same(mask)


@pytest.mark.parametrize('size', [20, 64, 150])
@pytest.mark.parametrize('x', [0, 3, 80, 999])
def test_walkers_near_and_far_are_cut_as_published(size, x):
    "In the middle of the picture, at its edges, and half outside of it."
    for sil in make_sequence(seed=1, subject=2, type='nm-01', view='054', n_frames=3).silhouette:
        small = cv2.resize(sil, (size, size), interpolation=cv2.INTER_NEAREST)
        mask = np.zeros((170, 240), np.uint8)
        left = min(x, 240 - size // 2)
        part = small[:, : 240 - left]
        mask[5 : 5 + size, left : left + size] = np.where(part > 127, 255, 0)
        assert same(mask) or size == 20 and x == 999  # ten columns of a far walker


def test_what_is_dropped():
    thin = np.full((200, 1), 255, np.uint8)
    assert not same(thin) and not same(np.zeros((9, 9), np.uint8))
    speck = np.zeros((99, 99), np.uint8)
    speck[50, 10:49] = 255
    assert speck.sum() <= 10_000 and not same(speck)
    speck[50, 49] = 100
    assert speck.sum() > 10_000 and same(speck)
    left_edge = np.zeros((64, 64), np.uint8)
    left_edge[:, 0] = 255
    assert not same(left_edge)


def test_brightness_alone_changes_nothing_twice():
    "A second cut of a silhouette that fills the frame is the same silhouette."
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 20:44] = 255
    once = cut_silhouette(mask)
    np.testing.assert_array_equal(cut_silhouette(once), once)


NUMBERS = st.lists(st.integers(0, 2000), min_size=1, max_size=12, unique=True)


@given(NUMBERS, st.booleans(), st.sampled_from(['', '001-nm-']))
def test_order_of_frames(numbers, pad, prefix):
    "Padded names keep the order of names; others are put in the order of their numbers, and a warning says so."
    files = [Path(f'{prefix}{n:04d}.png' if pad else f'{prefix}{n}.png') for n in numbers]
    frames = order_frames(files)
    assert frames.numbers == tuple(sorted(numbers))
    assert [int(f.stem.removeprefix(prefix)) for f in frames.files] == sorted(numbers)
    by_name = sorted(files, key=lambda f: f.name)
    assert (frames.notice != '') == (list(frames.files) != by_name)
    if pad:
        assert list(frames.files) == by_name


@given(st.lists(st.text('ab12-', min_size=1, max_size=4), min_size=1, max_size=6, unique=True))
def test_no_frame_is_lost_and_numbers_ascend(stems):
    frames = order_frames([Path(f'{stem}.png') for stem in stems])
    assert sorted(f.stem for f in frames.files) == sorted(stems)
    assert frames.numbers is None or list(frames.numbers) == sorted({*frames.numbers})


def test_rows_keep_the_numbers_of_their_frames():
    sil = make_sequence(seed=1, subject=2, type='nm-01', view='090', n_frames=8).silhouette
    masks = [np.where(s > 127, 255, 0).astype(np.uint8) for s in sil]
    masks[3] = np.zeros_like(masks[3])
    walk = cut_masks(masks, range(10, 18))
    assert walk.numbers == (10, 11, 12, 14, 15, 16, 17) and len(walk.array) == 7
    assert walk.notices == ('frames without a body are dropped',)


def test_colour_palette_and_grey_pictures_are_one_mask(tmp_path):
    mask = np.zeros((40, 30), np.uint8)
    mask[5:35, 10:20] = 255
    cv2.imwrite(str(tmp_path / 'grey.png'), mask)
    cv2.imwrite(str(tmp_path / 'colour.png'), np.dstack([mask] * 3))
    cv2.imwrite(str(tmp_path / 'deep.png'), mask.astype(np.uint16) * 257)
    for name in ('grey', 'colour', 'deep'):
        np.testing.assert_array_equal(read_mask(tmp_path / f'{name}.png'), mask)


def test_what_is_no_picture_and_no_video(tmp_path):
    (tmp_path / 'x.png').write_bytes(b'no picture')
    (tmp_path / 'x.mp4').write_bytes(b'no video')
    with pytest.raises(SkeletonGaitError, match='x.png: cannot be read as a picture'):
        read_mask(tmp_path / 'x.png')
    with pytest.raises(SkeletonGaitError, match='x.mp4: cannot be read as a video'):
        list(read_mask_video(tmp_path / 'x.mp4'))
