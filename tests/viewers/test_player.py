"Frames, player, timeline, animations and the promises of every viewer."
import base64
import gc
import weakref

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from ipywidgets.widgets.widget import _instances
from PIL import Image

from skeletongait.core import SkeletonGaitError
from skeletongait.viewers.player import (
    BAD, Frames, Panel, Player, SequencePlayer, Timeline, Viewer, as_array, as_frames, enlarge, paint, short_names,
    side_by_side, write_animation)
from pages import decode


def widgets(): return _instances


def noise(*shape): return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_painted_map_can_be_read_back():
    table = {tuple(c): i for i, c in enumerate(paint(np.arange(256)))}
    grey = noise(20, 30)
    png = Frames(lambda t: paint(grey), 1)[0]
    assert [table[tuple(c)] for c in decode(png).reshape(-1, 3)] == grey.ravel().tolist()


def counting(draw, drawn):
    "`draw`, which notes the frames it draws."
    def noted(t):
        drawn.append(t)
        return draw(t)
    return noted


def test_frames_are_encoded_once_and_only_when_wanted():
    drawn = []
    viewer = SequencePlayer(noise(50, 2, 8, 8))
    for panel in viewer.panels:
        panel.frames.draw = counting(panel.frames.draw, drawn)
    for t in (3, 4, 3, 4, 49):
        viewer.player.index = t
    assert drawn == [3, 3, 4, 4, 49, 49]


@given(st.integers(1, 3000), st.integers(1, 5), st.data())
def test_every_bad_frame_is_on_the_timeline(n, rows, data):
    "Whatever the length: a single high level is seen in its row, and the cursor is inside."
    levels = np.zeros((rows, n), np.uint8)
    r, t = data.draw(st.integers(0, rows-1)), data.draw(st.integers(0, n-1))
    levels[r, t] = 1
    line = Timeline()
    line.load(levels, np.array([(255, 255, 255), BAD]))
    bad = (line.rows == BAD).all(-1)
    assert bad[r].any() and not np.delete(bad, r, 0).any()
    assert line.rows.shape == (rows, line.width, 3)
    dark = (line.picture(t) == 20).all((0, 2)).nonzero()[0]
    assert 1 <= len(dark) <= 2
    line.show(t)
    assert (decode(line.image.value) == line.picture(t)).all()


@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 200))
def test_enlarging_keeps_every_pixel(h, w, height):
    image = noise(h, w, 3)
    big = enlarge(image, height)
    k = big.shape[0]//h
    assert big.shape == (h*k, w*k, 3) and big.shape[0] >= height and (k == 1 or h*(k-1) < height)
    assert (big.reshape(h, k, w, k, 3) == image[:, None, :, None]).all()


def test_side_by_side_pads_with_white():
    out = side_by_side([noise(10, 10), noise(20, 5, 3)], height=10, gap=4)
    assert out.shape == (20, 10+4+5, 3) and (out[10:, :10] == 255).all() and (out[:, 10:14] == 255).all()


@pytest.mark.parametrize('ending', ['.gif', '.mp4', '.GIF'])
@pytest.mark.parametrize('shape', [(40, 60), (41, 61)])
def test_animation_has_every_frame(tmp_path, ending, shape):
    pictures = [np.full((*shape, 3), 20*i, np.uint8) for i in range(12)]
    path = write_animation(tmp_path/f'new/walk{ending}', iter(pictures), fps=20)
    video = cv2.VideoCapture(str(path))
    means = [f.mean() for ok, f in iter(video.read, (False, None)) if ok]
    assert np.abs(np.array(means) - np.arange(12)*20).max() < 4
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    if ending == '.gif':
        assert Image.open(path).info['duration'] == 50 and Image.open(path).info['loop'] == 0


def test_animation_is_whole_or_absent(tmp_path):
    def breaking():
        yield np.zeros((16, 16, 3), np.uint8)
        raise SkeletonGaitError('no second frame')
    for ending in ('.gif', '.mp4'):
        with pytest.raises(SkeletonGaitError, match='no second frame'):
            write_animation(tmp_path/f'walk{ending}', breaking())
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize('ending', ['.avi', ''])
def test_animation_in_no_known_format(tmp_path, ending):
    with pytest.raises(SkeletonGaitError, match='expected one of .gif, .mp4'):
        write_animation(tmp_path/f'walk{ending}', [])


@pytest.mark.parametrize('bad, says', [
    (np.zeros((0, 4, 4), np.uint8), 'empty array of shape (0, 4, 4)'),
    ([[1, 2], [3]], 'rows of different lengths'),
    (None, 'found NoneType'),
    ('walk.pkl', 'found str'),
    (np.zeros((3, 4), np.uint8), 'shape (3, 4)'),
    (np.zeros((3, 4, 4), int), 'int64'),
    (np.zeros((2, 2, 2, 2, 2), np.uint8), 'shape (2, 2, 2, 2, 2)'),
    (np.array(['a']), '<U1'),
    ({}, 'found dict'),
])
def test_wrong_input_is_one_message(bad, says):
    viewer = SequencePlayer(bad)
    assert viewer.problem.startswith('frames: found') and says in viewer.problem and 'expected' in viewer.problem
    assert len(viewer.children) == 1 and 'sg-message' in viewer.children[0].value
    bundle = viewer._repr_mimebundle_()
    assert bundle['text/plain'] == viewer.problem and 'image/png' not in bundle
    with pytest.raises(SkeletonGaitError, match='nothing to save or to show'):
        viewer.save_animation('x.gif')


def test_message_is_text_not_html():
    def make():
        raise FileNotFoundError(2, 'No such file', '<script>alert(1)</script>.pkl')
    viewer = SequencePlayer.opened(make)
    assert isinstance(viewer, SequencePlayer)
    assert '<script>' in viewer.problem
    assert '<script>' not in viewer.children[0].value


def test_errors_of_the_library_itself_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        SequencePlayer.opened(lambda: 1/0)
    with pytest.raises(ZeroDivisionError), Viewer().guard():
        1/0


def test_notice_goes_with_the_next_success():
    viewer = SequencePlayer(noise(3, 8, 8))
    with viewer.noticing():
        raise SkeletonGaitError('disk full')
    assert 'disk full' in viewer.notice.value and not viewer.problem
    with viewer.noticing():
        pass
    assert viewer.notice.value == ''


def test_picture_for_readers_without_a_kernel():
    viewer = SequencePlayer(noise(6, 2, 32, 32), ('limb map', 'joint map'))
    viewer.player.index = 4
    bundle = viewer._repr_mimebundle_()
    assert bundle['application/vnd.jupyter.widget-view+json']['model_id'] == viewer.model_id
    assert decode(base64.b64decode(bundle['image/png'])).shape == viewer.snapshot(4).shape


def test_titles_that_do_not_fit():
    assert 'titles: found 1, expected 2' in SequencePlayer(noise(3, 2, 8, 8), ('limb',)).problem


def test_player_counts_inside_its_range():
    seen, player = [], Player(10, fps=50)
    player.watch(seen.append)
    for t in (4, 99, -3):
        player.index = t
    assert seen == [0, 4, 9, 0] and player.play.interval == 20
    player.index = 9
    player.resize(5)
    assert player.index == 4 and seen[-1] == 4
    player.speed.value = .25
    assert player.play.interval == 80


def test_single_frame():
    viewer = SequencePlayer(noise(1, 8, 8))
    viewer.player.index = 5
    assert viewer.player.index == 0 and viewer.panels[0].image.value


def test_empty_panel_shows_nothing():
    panel = Panel('none')
    panel.show(3)
    assert panel.image.value == b''


def test_floats_are_grey_levels():
    levels = np.array([[[-3, .4, 254.6, 300, np.nan, np.inf]]], np.float32)
    assert as_frames(levels, 'maps').tolist() == [[[[0, 0, 255, 255, 0, 255]]]]


def test_booleans_are_silhouettes():
    assert as_frames(np.ones((2, 3, 3), bool), 's').max() == 255


def test_pictures_are_saved_by_a_button(tmp_path):
    viewer = SequencePlayer(noise(6, 2, 32, 32))
    assert viewer.keep_button in viewer.children[-1].children and viewer.notice in viewer.children
    for name in ('walk.gif', 'walk.mp4', 'new/walk.png'):
        viewer.keep_name.value = str(tmp_path/name)
        viewer.keep_button.click()
        assert (tmp_path/name).stat().st_size
        assert f'saved {tmp_path/name}' in viewer.keep_words.value
        assert not viewer.notice.value
    assert Image.open(tmp_path/'walk.gif').n_frames == 6
    for name, says in (
        ('', 'found no name'),
        (f'{tmp_path}/walk.avi', 'expected one of .gif, .mp4'),
        ('/proc/nowhere/walk.png', '/proc/nowhere'),
    ):
        viewer.keep_name.value = name
        viewer.keep_button.click()
        assert says in viewer.notice.value and not viewer.keep_words.value


def test_viewer_with_a_message_has_no_pictures():
    viewer = SequencePlayer(None)
    for ask in (viewer.figure, lambda: viewer.snapshot(0), lambda: viewer.save_figure('x.png')):
        with pytest.raises(SkeletonGaitError, match='nothing to save or to show: frames: found NoneType'):
            ask()


@pytest.mark.parametrize('fps', [0, -1, None, '25', float('nan'), float('inf'), True])
def test_wrong_speed(fps): assert SequencePlayer(noise(3, 8, 8), fps=fps).problem.startswith('fps: found')


def test_closed_viewer_is_forgotten():
    "ipywidgets keeps no reference to any part of it, which would keep its pictures."
    before = set(widgets())
    viewer = SequencePlayer(noise(3, 2, 8, 8))
    known = weakref.ref(viewer)
    assert len(widgets()) > len(before) + 20
    viewer.close()
    del viewer
    gc.collect()
    assert known() is None
    assert [type(w).__name__ for k, w in widgets().items() if k not in before] == []


def test_tensors_are_arrays():
    assert as_array(torch.ones(2, 3, requires_grad=True), 'x').shape == (2, 3)


@pytest.mark.parametrize(
    'folders, names',
    [
        (('a/x', 'a/y'), ['x', 'y']), (('a/x', 'b/x'), ['a/x', 'b/x']), (('x',), ['x']), ((), []),
        (('/', '/a'), ['/', 'a'])])
def test_names_are_short_and_differ(folders, names): assert short_names(folders) == names
