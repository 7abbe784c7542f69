"The browser of data sets: counts, holes, what a file holds and what is wrong with it, and the widget's choices."
import gc
import os
import weakref

import cv2
import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from skeletongait.viewers.overlay import OverlayViewer
from skeletongait.viewers.browser import (
    LISTED, THUMBS, WALK, DatasetBrowser, cell_state, count_sequences, counts_table, find_holes, kind_of, look_at,
    named_streams, no_picture, problems_of, read_content, read_contents, thumbnail, viewer_for)
from skeletongait.files.tree import Sequence, read_tree
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.data.partition import Partition
from skeletongait.maps.settings import HeatmapConfig
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.viewers.player import paint
from skeletongait.files.arrays import load_array
from skeletongait.pictures import overlay
from skeletongait.viewers.studio import HeatmapStudio
from skeletongait.walkers.recording import make_sequence
from skeletongait.walkers.datasets import write_walkers
from skeletongait.walkers.spoilt import spoil

CFG = HeatmapConfig()
REC = make_sequence(seed=0, subject=1, type='nm-01', view='090', n_frames=12)
MAPS = pose_to_heatmap(REC.pose)
LONG = make_sequence(seed=0, subject=1, type='nm-01', view='090', n_frames=30).pose
names = st.text('ab<&$\'"_é漢', min_size=1, max_size=3)


def decode(png): return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def grey(n, level=9, size=8): return np.full((n, size, size), level, np.uint8)


@pytest.fixture(scope='module')
def walkers(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    write_walkers(root, n_subjects=4, n_train=2, types=('nm-01', 'bg-01'), views=('000', '090'), n_frames=9)
    return root


@pytest.fixture
def browser(walkers):
    return DatasetBrowser.from_folder(walkers/'pose', walkers/'silhouette', partition=walkers/'partition.json')


def places(browser): return [p for p in browser.places if p.sequence]


@given(st.sets(st.builds(Sequence, names, names, names), min_size=1, max_size=40), st.integers(1, 5))
def test_counts_are_those_of_a_loop(sequences, most):
    c = count_sequences(sequences, most)
    assert c.n_tv.sum() == len(sequences) and c.n_tv.shape == (len(c.types), len(c.views))
    assert max(c.n_tv.shape) <= most+1
    for r, t in enumerate(c.types):
        for k, v in enumerate(c.views):
            if c.is_single(r, k):
                n = len({s.subject for s in sequences if (s.type, s.view) == (t, v)})
                assert c.n_tv[r, k] == n
                whole = 'all' if n == c.subjects else 'some'
                assert cell_state(c, r, k) == (whole if n else 'none')


@given(st.sets(st.builds(Sequence, st.sampled_from('abc'), st.sampled_from('xy'), st.sampled_from('01')), min_size=1))
def test_holes_are_those_of_a_loop(sequences):
    subjects = {s.subject for s in sequences}
    def usual(t, v): return 2*sum((o.type, o.view) == (t, v) for o in sequences) >= len(subjects)
    possible = [Sequence(p, t, v) for p in sorted(subjects) for t in 'xy' for v in '01']
    want = [s for s in possible if usual(s.type, s.view) and s not in sequences]
    assert find_holes(sequences) == want


@given(st.sets(st.builds(Sequence, names, names, names), min_size=1, max_size=9))
def test_table_holds_names_as_text(sequences):
    "No name opens a tag, and every tag is closed."
    from xml.etree import ElementTree
    page = counts_table(count_sequences(sequences))
    root = ElementTree.fromstring('<p>' + page + '</p>')
    seen = {th.text for th in root.iter('th')}
    assert {s.type for s in sequences} | {s.view for s in sequences} <= seen


@pytest.mark.parametrize(
    'x, kind',
    [
        (REC.pose, 'poses'), (REC.pose[..., :2], 'poses'), (np.zeros((3, 18, 3)), 'poses'),
        (np.zeros((3, 25, 2), np.float32), 'poses'), (np.zeros((3, 53)), 'poses'), (MAPS, 'maps'), (MAPS/1., 'maps'),
        (REC.silhouette, 'silhouettes'), (REC.silhouette > 0, 'silhouettes'), (MAPS[:, :1], 'silhouettes'),
        (np.zeros((3, 3, 8, 8), np.uint8), 'frames')])
def test_kinds(x, kind):
    assert kind_of(x) == kind
    content = read_content('x', x)
    assert content.kind == kind and str(x.shape) in content.facts and str(x.dtype) in content.facts
    assert kind == 'poses' or content.x.dtype == np.uint8 and content.x.ndim == 4


@pytest.mark.parametrize(
    'x, says',
    [
        ([[1, 2], [3]], 'holds a list; expected one array'), ({'pose': 1}, 'holds a dict'), (None, 'holds a NoneType'),
        (np.zeros((0, 17, 3)), 'at least one frame'), (np.zeros((3, 4)), '(3, 4)'),
        (np.zeros((3, 8, 8), np.int64), 'int64'), (np.array('walk'), '<U4'),
        (np.zeros((3, 8, 0), np.uint8), '(3, 8, 0)')])
def test_what_is_no_sequence(x, says):
    content = read_content('odd.pkl', x)
    assert content.x is None and says in content.problem and content.problem.startswith('odd.pkl: ')
    look = look_at({'odd.pkl': x, 'sil': REC.silhouette}, CFG)
    assert look.n_frames == 12 and look.problems == (content.problem,)
    assert (look.thumb.draw(3) == REC.silhouette[3]).all()


@pytest.mark.parametrize(
    'x, says',
    [
        (grey(3, 1), 'levels are 0 to 1; expected 0 to 255'), (grey(3, .5)*.7, 'all frames are empty'),
        (np.full((3, 8, 8), .7), 'levels are 0 to 0.7'), (np.where(np.eye(8), np.nan, grey(3)), 'NaN or infinite'),
        (grey(3, 0), 'all frames are empty')])
def test_odd_levels(x, says):
    assert says in read_content('s.npy', x).problem


def test_the_browser_says_what_the_check_finds_in_poses():
    "An error of the poses is a problem of the sequence; a warning, or what the settings make harmless, is none."
    problem, = look_at({'p': spoil(LONG, 'upside down')}, CFG).problems
    assert 'stand on their head' in problem and 'python -m skeletongait.check' in problem
    never = spoil(LONG, 'joint never found')
    assert 'joint never found' in look_at({'p': never}, CFG).problems[0]
    for pose, cfg in ((LONG, CFG), (LONG[:9], CFG), (never, HeatmapConfig(leave_out_unseen=True))):
        assert look_at({'p': pose}, cfg).problems == ()


@pytest.mark.parametrize(
    'contents, says',
    [
        ({'a': REC.pose, 'b': REC.silhouette[:-2]}, 'a has 12 frames, b has 10 frames'),
        ({'a': MAPS, 'b': REC.silhouette[:, :60]}, 'maps of 64 x 64 and silhouettes of 60 x 64'),
        ({'a': MAPS, 'b': REC.silhouette[..., :61]}, '64 x 61 cannot be laid over'), ({}, 'the sequence is empty')])
def test_flaws_of_a_sequence(contents, says):
    problem, = problems_of(read_contents(contents))
    assert says in problem
    look_at(contents, CFG)


@pytest.mark.parametrize('width', [44, 48, 64])
def test_thumbnails_are_the_librarys_pictures(width):
    sil = REC.silhouette[..., (64-width)//2:(64+width)//2]
    for x, draw in (
        ([REC.pose], lambda t: paint(MAPS[t, 0])), ([MAPS], lambda t: paint(MAPS[t, 0])), ([sil], lambda t: sil[t]),
        ([REC.pose, sil], lambda t: overlay(MAPS[t, 0], sil[t])), ([MAPS, sil], lambda t: overlay(MAPS[t, 0], sil[t])),
        ([sil[:5], MAPS], lambda t: paint(MAPS[t, 0]))):
        thumb = thumbnail(read_contents(x), CFG)
        assert thumb.n == 12 and all((thumb.draw(t) == draw(t)).all() for t in range(12))


@given(st.integers(1, 700))
def test_thumbnail_begins_in_the_middle_and_walks_every_frame_once(n):
    x = (np.arange(n, dtype=np.uint16)[:, None].view(np.uint8).reshape(n, 1, 2)) # the frame's number as two pixels
    thumb = thumbnail(read_contents([np.ascontiguousarray(x)]), CFG)
    def number(t): return int(thumb.draw(thumb.at(t)).view(np.uint16).item())
    assert number(0) == n//2 and thumb.n == min(n, WALK)
    assert len({number(t) for t in range(thumb.n)}) == thumb.n


def test_other_render_settings():
    thumb = thumbnail(read_contents([REC.pose]), HeatmapConfig(sigma=3.))
    assert (thumb.draw(4) == paint(pose_to_heatmap(REC.pose, HeatmapConfig(sigma=3.))[4, 0])).all()


@pytest.mark.parametrize(
    'o, keys',
    [
        ([REC.pose, MAPS], ['array 0', 'array 1']), (REC.pose, ['array 0']), (lambda: [MAPS], ['array 0']),
        ({'pose': MAPS}, ['pose']), (lambda: {1: MAPS}, ['1'])])
def test_what_a_sequence_may_be(o, keys): assert list(named_streams(o)) == keys


def test_what_a_sequence_may_not_be():
    assert 'found a int; expected a list of arrays' in look_at(5, CFG).problems[0]


@pytest.mark.parametrize(
    'bad, says',
    [
        ({}, 'found none'), ([], 'found a list; expected a mapping'), (None, 'NoneType'), ({'001': 1}, "the key '001'"),
        ({('a', 'b'): 1}, "the key ('a', 'b')"), ({(1, 2, 3): 1}, '(1, 2, 3)')])
def test_wrong_input_is_one_message(bad, says):
    browser = DatasetBrowser(bad)
    assert browser.problem.startswith('sequences: ') and says in browser.problem and len(browser.children) == 1
    assert browser._repr_mimebundle_()['text/plain'] == browser.problem


def test_folders_that_will_not_do(tmp_path, walkers):
    for args, says in (
        ((tmp_path/'none',), 'no such folder'), ((tmp_path,), 'found no file'),
        ((walkers/'pose', tmp_path/'none'), 'no such folder'),
        ((walkers/'pose', None, tmp_path/'none.json'), 'none.json'), ((walkers/'pose'/'000',), 'one level off')):
        assert says in DatasetBrowser.from_folder(*args).problem


def test_files_are_read_when_they_are_looked_at(walkers):
    read = []
    def source(s): return lambda: read.append(s) or [REC.silhouette]
    sequences = {Sequence(f'{i:03d}', t, '000'): source((i, t)) for i in range(50) for t in ('nm', 'bg')}
    browser = DatasetBrowser(sequences)
    assert sorted(read) == [(0, 'bg'), (0, 'nm')]
    browser.subject.value = '007'
    assert sorted(read[2:]) == [(7, 'bg'), (7, 'nm')]
    browser.player.index = 3
    assert len(read) == 4


def test_walking_thumbnails_show_the_right_frames(browser, walkers):
    browser.subject.value = '001'
    tree = read_tree(walkers/'pose').sequences
    assert len(places(browser)) == 4 and browser.n_frames == 9
    for t in (0, 1, 8):
        browser.player.index = t
        for p in places(browser):
            maps = pose_to_heatmap(load_array(tree[p.sequence][0]))
            sil = load_array(p.sequence.path(walkers/'silhouette')/f'{p.sequence.view}.pkl')
            k = (4+t) % 9
            assert (decode(p.panel.image.value) == overlay(maps[k, 0], sil[k])).all()


def test_choices_narrow_each_other(browser):
    browser.type.value = 'nm-01'
    assert [p.sequence.type for p in places(browser)] == ['nm-01', 'nm-01']
    browser.view.value = '090'
    browser.subject.value = '003' # has the same type and view, so the choice stays
    assert [str(p.sequence) for p in places(browser)] == ['003-nm-01-090']
    assert str(browser.sequence.value) == '003-nm-01-090'
    browser.type.value = ''
    assert [p.sequence.view for p in places(browser)] == ['090', '090']
    assert str(browser.sequence.value) == '003-nm-01-090' # still chosen


def test_partition_marks_and_filters(browser):
    assert [n for _, n in browser.subject.options] == ['000', '001', '002', '003']
    assert browser.subject.options[0][0] == '000 · train · 4 sequences'
    assert browser.counts.subjects == 4 and '4 subjects, 16 sequences, 32 files' in browser.table.value
    browser.side.value = 'test'
    assert [n for _, n in browser.subject.options] == ['002', '003'] and browser.subject.value == '002'
    assert browser.counts.subjects == 2 and (browser.counts.n_tv == 2).all()
    assert 'test set: 2 subjects, 8 sequences, 16 files' in browser.table.value
    browser.side.value = ''
    assert browser.counts.subjects == 4
    assert browser.subject.value == '002'
    alone = DatasetBrowser({('a', 'b', 'c'): [MAPS], ('z', 'b', 'c'): [MAPS]}, Partition(('a',), ('q',)))
    assert [label for label, _ in alone.subject.options] == ['a · train · 1 sequence', 'z · unused · 1 sequence']


def test_finding_among_many():
    browser = DatasetBrowser({Sequence(f'{i:05d}', 'nm', '000'): [MAPS] for i in range(10_000)})
    assert len(browser.subject.options) == LISTED and 'the first 200 are listed' in browser.found.value
    browser.find.value = '4321'
    assert [n for _, n in browser.subject.options] == ['04321'] and browser.subject.value == '04321'
    assert str(browser.sequence.value) == '04321-nm-000'
    browser.find.value = 'x'
    assert '0 of 10,000 subjects match' in browser.found.value and browser.subject.options == ()
    assert browser.subject.value is None
    assert not places(browser) and browser.open_button.disabled and 'no sequence' in browser.summary.value
    assert not browser.facts.value and not browser.notice.value
    assert browser.snapshot(0).shape == no_picture().shape and browser.figure()
    browser.find.value = ''
    assert browser.subject.value == '00000' and len(places(browser)) == 1 and not browser.open_button.disabled
    assert '10,000 of 10,000 subjects;' in browser.found.value


def test_a_click_on_a_thumbnail_chooses_it(browser):
    place = places(browser)[2]
    place.button.click()
    assert browser.sequence.value == place.sequence and place.button.description.startswith('● ')
    assert sum(p.button.description.startswith('● ') for p in places(browser)) == 1
    assert str(place.sequence) in browser.facts.value
    assert 'poses of 17 joints, 9 frames, (9, 17, 3) float32' in browser.facts.value


def test_pages(tmp_path):
    sequences = {Sequence('a', f'{i:03d}', 'v'): [grey(i+1)] for i in range(2*THUMBS+3)}
    browser = DatasetBrowser(sequences)
    assert browser.page.max == 3 and browser.n_frames == THUMBS
    browser.page.value = 3
    assert [p.sequence.type for p in places(browser)] == ['024', '025', '026'] and browser.n_frames == 27
    browser.player.index = 26
    browser.page.value = 1
    assert browser.player.index == 0 and browser.player.slider.max == THUMBS-1
    browser.type.value = '020'
    assert browser.page.max == 1 and browser.page.value == 1 and browser.page.layout.display == 'none'


def test_type_and_view_that_do_not_meet():
    browser = DatasetBrowser({('a', 'nm', '000'): [MAPS], ('a', 'bg', '090'): [MAPS]})
    browser.type.value = 'nm'
    browser.view.value = '090'
    assert 'no sequence of type nm and view 090' in browser.notice.value and not places(browser)
    assert browser.open_button.disabled
    assert browser.snapshot(0).shape == no_picture().shape and browser.figure()
    browser.open_button.click()
    assert 'choose a sequence first' in browser.notice.value
    browser.view.value = ''
    assert len(places(browser)) == 1 and not browser.notice.value and not browser.open_button.disabled


def test_broken_files_do_not_hide_the_others(tmp_path):
    write_walkers(tmp_path, n_subjects=1, n_train=1, types=('nm-01', 'nm-02', 'nm-03'), views=('000',), n_frames=6)
    (tmp_path/'pose/000/nm-02/000/000.pkl').write_bytes(b'not a pickle')
    os.remove(tmp_path/'pose/000/nm-03/000/000.pkl')
    os.symlink(tmp_path/'gone.pkl', tmp_path/'pose/000/nm-03/000/000.pkl')
    save_pickle([[1, 2], [3]], tmp_path/'pose/000/nm-01/000/001.pkl')
    browser = DatasetBrowser.from_folder(tmp_path/'pose')
    said = [' '.join(p.look.problems) for p in places(browser)]
    assert 'holds a list; expected one array' in said[0] and 'nm-02/000/000.pkl' in said[1]
    assert 'No such file' in said[2]
    assert [len(p.look.problems) for p in places(browser)] == [1, 1, 1] and '3 with problems' in browser.summary.value
    assert (decode(places(browser)[1].panel.image.value) == no_picture()).all() and places(browser)[0].look.thumb
    browser.sequence.value = places(browser)[1].sequence
    browser.open_button.click()
    assert 'nothing to open' in browser.notice.value and not browser.stage.children


def test_two_trees_say_what_each_lacks(tmp_path):
    write_walkers(tmp_path, n_subjects=3, n_train=1, types=('nm-01',), views=('000', '090'), n_frames=5)
    os.remove(tmp_path/'silhouette/002/nm-01/090/090.pkl')
    os.remove(tmp_path/'pose/001/nm-01/000/000.pkl')
    (tmp_path/'pose/stray.pkl').write_bytes(b'')
    notes = DatasetBrowser.from_folder(tmp_path/'pose', tmp_path/'silhouette').notes
    assert any(n.startswith('missing in') and n.endswith('silhouette: 1 sequence (002-nm-01-090)') for n in notes)
    assert any(n.endswith('pose: 1 sequence (001-nm-01-000)') for n in notes) and any('stray.pkl' in n for n in notes)


def test_what_is_missing_is_marked_everywhere(tmp_path):
    "In the list, at the thumbnail, in the choice of sequences, in the facts, and in the filter."
    write_walkers(tmp_path, n_subjects=4, n_train=2, types=('nm-01',), views=('000', '090'), n_frames=5)
    os.remove(tmp_path/'silhouette/002/nm-01/090/090.pkl')
    os.remove(tmp_path/'pose/001/nm-01/000/000.pkl')
    browser = DatasetBrowser.from_folder(tmp_path/'pose', tmp_path/'silhouette')
    assert [label for label, _ in browser.subject.options] == [
        '000 · 2 sequences', '001 · 2 sequences ⚠ 1', '002 · 2 sequences ⚠ 1', '003 · 2 sequences']
    browser.subject.value = '002'
    assert [p.sign for p in places(browser)] == ['', '⚠ no silhouettes']
    assert '⚠ no silhouettes' in places(browser)[1].panel.title.value
    assert [label for label, _ in browser.sequence.options] == ['nm-01 000', 'nm-01 090 ⚠ no silhouettes']
    assert '1 with problems' in browser.summary.value
    assert '⚠' not in browser.facts.value
    browser.sequence.value = places(browser)[1].sequence
    assert '⚠ no silhouettes' in browser.facts.value
    browser.only_flawed.value = True
    assert [n for _, n in browser.subject.options] == ['001', '002'] and browser.subject.value == '002'
    assert '2 of 4 subjects match' in browser.found.value
    browser.subject.value = '001'
    assert places(browser)[0].sign == '⚠ only silhouettes'


def test_a_subject_bears_a_mark_once_a_flaw_is_seen():
    browser = DatasetBrowser({
        ('a', 'b', 'c'): [MAPS], ('m', 'b', 'c'): [MAPS], ('z', 'b', 'c'): [MAPS, REC.silhouette[:3]],
        ('z', 'd', 'c'): [3]})
    assert [label for label, _ in browser.subject.options] == ['a · 1 sequence', 'm · 1 sequence', 'z · 2 sequences']
    browser.subject.value = 'z'
    assert [label for label, _ in browser.subject.options] == [
        'a · 1 sequence', 'm · 1 sequence', 'z · 2 sequences ⚠ 2']
    assert browser.subject.value == 'z' and len(places(browser)) == 2
    assert [p.sign for p in places(browser)] == ['⚠', '⚠'] and 'differ in length' in browser.facts.value


def test_a_hole_is_a_problem_of_its_subject():
    browser = DatasetBrowser({(n, t, '0'): [MAPS] for n in 'abc' for t in 'xy' if n+t != 'bx'})
    assert [label for label, _ in browser.subject.options] == [
        'a · 2 sequences', 'b · 1 sequence ⚠ 1', 'c · 2 sequences']


def test_a_side_without_subjects():
    browser = DatasetBrowser({('a', 'b', 'c'): [MAPS]}, Partition(('a',), ('q',)))
    browser.side.value = 'test'
    assert not browser.notice.value and '0 of 1 subject match' in browser.found.value
    assert browser.counts.n_tv.shape == (0, 0) and browser.figure()


def test_key_says_what_the_colours_are(browser):
    assert 'skeleton map' in browser.key.value and 'rgb(255, 170, 40)' in browser.key.value
    assert 'middle of each walk' in browser.key.value
    alone = DatasetBrowser({('a', 'b', 'c'): [MAPS]})
    assert 'silhouette' not in alone.key.value and 'middle of each walk' in alone.key.value


def test_long_names_are_whole_on_the_button_and_in_its_tooltip():
    s = Sequence('a', 'a-rather-long-type-of-walk', 'camera-number-twelve')
    place, = places(DatasetBrowser({s: [MAPS]}))
    assert place.button.description == f'● {s.type} {s.view}' and str(s) in place.button.tooltip
    assert place.button.layout.height == 'auto'


def test_names_of_strangers_are_text(tmp_path):
    name = '<img src=x onerror=alert(1)>$x_{$'
    browser = DatasetBrowser({(name, name, name): {name: [1]}, ('b', 'c', 'd'): [MAPS]}, notes=[name])
    browser.subject.value = name
    assert not browser.problem
    widgets = [browser.table, browser.facts, browser.found, browser.summary, *(p.panel.title for p in browser.places)]
    assert not any('<img' in w.value for w in widgets) and any('&lt;img' in w.value for w in widgets)
    assert browser._repr_mimebundle_()['image/png']


def test_opening_reads_the_whole_sequence():
    long = np.tile(REC.silhouette, (30, 1, 1)) # more frames than a thumbnail keeps
    browser = DatasetBrowser({('a', 'nm', '000'): [long], ('a', 'bg', '000'): [MAPS]})
    browser.sequence.value = Sequence('a', 'nm', '000')
    browser.open_button.click()
    opened = browser.stage.children[-1]
    assert opened.n_frames == 360 and not opened.problem
    browser.sequence.value = Sequence('a', 'bg', '000')
    browser.open_button.click()
    assert browser.stage.children[-1].n_frames == 12 and opened.comm is None # the one before is closed


def test_poses_open_in_the_studio(browser):
    browser.open_button.click()
    opened = browser.stage.children[-1]
    assert isinstance(opened, HeatmapStudio) and not opened.problem and opened.n_frames == 9
    assert str(browser.sequence.value) in browser.stage.children[0].value


def test_silhouettes_of_another_length_are_shown_beside_the_poses_and_it_is_said():
    opened = viewer_for(read_contents([REC.pose, REC.silhouette[:-2]]), CFG)
    assert isinstance(opened, HeatmapStudio) and not opened.problem and opened.n_frames == 10
    assert '12' in opened.remarks.value


@pytest.mark.parametrize(
    'streams', [[MAPS], [MAPS, REC.silhouette], [MAPS, REC.silhouette[..., 10:54]], [MAPS/1., REC.silhouette > 0]])
def test_maps_open_in_the_overlay(streams):
    opened = viewer_for(read_contents(streams), CFG)
    assert isinstance(opened, OverlayViewer) and not opened.problem and opened.n_frames == 12


def test_animation_of_the_page(browser, tmp_path):
    shapes = {browser.snapshot(t).shape for t in range(9)}
    assert len(shapes) == 1
    assert Image.open(browser.save_animation(tmp_path/'walk.gif', range(4))).n_frames == 4


def test_memory_of_a_page_is_bounded():
    "Long sequences are cut to the window of the thumbnail, and nothing holds on to the rest."
    read = []
    def source():
        x = np.tile(MAPS, (100, 1, 1, 1))
        read.append(weakref.ref(x))
        return [x]
    browser = DatasetBrowser({('a', 'b', 'c'): source})
    gc.collect()
    assert browser.n_frames == WALK and len(read) == 1 and read[0]() is None


def test_viewer_for_nothing():
    with pytest.raises(SkeletonGaitError, match='nothing to open: .*found a int'):
        viewer_for(read_contents(3), CFG)


def test_two_trees_of_one_name_keep_their_files(tmp_path):
    for kind, x in (('maps', pose_to_heatmap(REC.pose)), ('sils', REC.silhouette)):
        save_pickle(x, Sequence('001', 'nm-01', '090').path(tmp_path/kind/'data')/'0.pkl')
    browser = DatasetBrowser.from_folder(tmp_path/'maps'/'data', tmp_path/'sils'/'data')
    assert 'maps/data/0.pkl: maps' in browser.facts.value and 'sils/data/0.pkl: silhouettes' in browser.facts.value


def test_opened_viewer_that_is_replaced_is_forgotten(browser):
    import gc
    import weakref
    browser.open_button.click()
    opened = weakref.ref(browser.stage.children[-1])
    assert isinstance(opened(), HeatmapStudio)
    browser.open_button.click()
    gc.collect()
    assert opened() is None


@pytest.mark.parametrize('o', [None, 3, iter([])])
def test_sequence_that_holds_nothing_to_read_is_named(o):
    browser = DatasetBrowser({('001', 'nm', '090'): o})
    assert not browser.problem and f'found a {type(o).__name__}; expected a list of arrays' in browser.facts.value


def test_settings_may_be_a_mapping():
    assert DatasetBrowser(
        {('001', 'nm', '090'): REC.pose},
        render={'heatmap_generator_args': {'sigma': 4.}}).render == HeatmapConfig(sigma=4.)
    assert 'heatmap_generator_args.sigm: unknown key' in DatasetBrowser(
        {('001', 'nm', '090'): REC.pose}, render={'heatmap_generator_args': {'sigm': 4.}}).problem


def test_silhouettes_of_another_length_are_opened_and_said():
    browser = DatasetBrowser({('001', 'nm', '090'): [pose_to_heatmap(REC.pose), REC.silhouette[:-2]]})
    browser.open_button.click()
    opened = browser.stage.children[-1]
    assert isinstance(opened, OverlayViewer) and opened.n_frames == len(REC.pose) - 2
    assert 'differ' in opened.badge.value
