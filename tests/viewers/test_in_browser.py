"""Every widget in JupyterLab in a real browser: opened from a notebook and operated; the page's pixels are the
library's,
and nothing went wrong in the browser's console, in a cell or in a widget's call in the kernel."""

import importlib.util
import json
import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import nbformat
import pytest

import browser
from scripts import ROOT
from skeletongait.viewers.overlay import DONE, applied
from skeletongait.runs.config import load_config
from skeletongait.core import save_pickle
from skeletongait.evaluation.ranking import make_embedding_set, nearest_sequences
from skeletongait.viewers.fusion import SCALES, model_weights, network_frames, paint_trust, trust_on_body
from skeletongait.maps.settings import HeatmapConfig, load_heatmap_config
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.nets.models import build_model
from skeletongait.viewers.monitor import curves_of, figure_pixels, plot_runs, style
from skeletongait.viewers.player import SequencePlayer, paint
from skeletongait.pictures import figure_png
from skeletongait.poses.joints import JOINTS
from skeletongait.files.arrays import load_array
from skeletongait.evaluation.protocols import GalleryProbe
from skeletongait.viewers.retrieval import Entry, balance_bars, judge
from skeletongait.pictures import MAP_RGB, SIL_RGB, overlay
from skeletongait.data.transforms import build_transform
from skeletongait.walkers.recording import make_sequence
from skeletongait.walkers.datasets import write_walkers
from pages import WALK, MAPS, OVERLAY, PLAYER, STUDIO

pytestmark = pytest.mark.slow
SEEN = 'seen = []\nviewer.player.slider.observe(lambda change: seen.append(change.new), "value")'


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "One server and one browser for all tests."
    if lacks := browser.missing():
        pytest.fail(lacks, pytrace=False)
    with browser.laboratory(tmp_path_factory.mktemp('lab')) as lab:
        yield lab


@pytest.fixture(scope='module')
def rec():
    return make_sequence(**WALK)


@pytest.fixture(scope='module')
def maps(rec):
    return pose_to_heatmap(rec.pose)


def test_missing_browser_is_said_in_one_line(monkeypatch):
    monkeypatch.setenv('PATH', '')
    assert (
        browser.missing()
        == 'no Chromium found; on Debian or Ubuntu: '
        'apt-get install -y --no-install-recommends chromium fonts-dejavu-core'
    )


@pytest.mark.parametrize(
    'cell, says',
    [
        ('1/0', 'ZeroDivisionError'),
        ('import warnings; warnings.warn("old")', 'old'),
        ('import ipywidgets as W; b = W.IntSlider(); b.observe(lambda c: 1/0, "value"); b', 'ZeroDivisionError'),
        ('from IPython.display import HTML; HTML("<img src=nowhere.png onerror=\'console.error(1)\'>")', 'nowhere.png'),
    ],
    ids=('a cell', 'a warning', 'a call of a widget', 'the page'),
)
def test_no_error_goes_unseen(lab, cell, says):
    "The tests below hold that nothing went wrong; this one, that they would have noticed."
    with pytest.raises(AssertionError, match=says), lab.notebook(cell) as book:
        if 'W.' in cell:
            book.press(book.find('.noUi-handle'), 'ArrowRight')
            book.until('b.value', 1)


def test_player_shows_the_librarys_pixels(lab, maps):
    with lab.notebook(PLAYER) as book:
        panels = [book.image(title) for title in ('limb map', 'joint map')]
        frame = book.slider('frame')
        for c, panel in enumerate(panels):
            book.shows(panel, paint(maps[0, c]))
            panel.evaluate('image => { image.first = true }')
        for key, times, t in (
            ('ArrowRight', 3, 3),
            ('ArrowLeft', 1, 2),
            ('End', 1, 39),
            ('ArrowRight', 1, 39),
            ('Home', 1, 0),
        ):
            book.press(frame, key, times)
            for c, panel in enumerate(panels):
                book.shows(panel, paint(maps[t, c]))
            assert book.readout('frame').inner_text() == str(t)
            book.until('viewer.player.index', t)
        assert all(panel.evaluate('image => image.first') for panel in panels)  # swapped, never drawn anew


def test_pixels_are_enlarged_as_squares(lab, maps):
    "On the screen there is no colour that the picture does not have."
    with lab.notebook(PLAYER) as book:
        image = book.image('limb map')
        book.press(book.slider('frame'), 'ArrowRight')
        book.shows(image, paint(maps[1, 0]))
        seen = book.screen(image)[1:-1, 1:-1]  # the picture may begin between two rows of the screen
        assert min(seen.shape[:2]) > 100
        assert {tuple(c) for c in seen.reshape(-1, 3)} == {tuple(c) for c in paint(maps[1, 0]).reshape(-1, 3)}


def test_player_plays_loops_and_stops(lab, maps):
    with lab.notebook(PLAYER, SEEN) as book:
        play, stop, loop = (book.find('.widget-play button').nth(i) for i in range(3))
        book.dropdown('speed').select_option(label='4 x')
        book.until('viewer.player.play.interval', 10)
        book.press(play, 'Space')
        book.until('len(seen) > 5 and any(b < a for a, b in zip(seen, seen[1:]))', True)  # round and round
        book.press(play, 'Space')
        book.until('viewer.player.play.playing', False)
        book.settle()
        t = int(book.readout('frame').inner_text())
        book.until('viewer.player.index', t)
        book.shows(book.image('joint map'), paint(maps[t, 1]))
        loop.click()
        book.press(book.slider('frame'), 'Home')
        play.click()
        book.until('(viewer.player.index, viewer.player.play.playing)', [39, False])
        book.shows(book.image('limb map'), paint(maps[39, 0]))
        stop.click()
        book.shows(book.image('limb map'), paint(maps[0, 0]))


def test_keyboard_reaches_every_control(lab):
    with lab.notebook(PLAYER) as book:
        book.find('.widget-play button').first.focus()
        reached = []
        for _ in range(6):
            reached.append(
                book.page.evaluate('() => document.activeElement.className || document.activeElement.tagName')
            )
            book.page.keyboard.press('Tab')
        assert [r.split()[0] for r in reached] == ['jupyter-button'] * 3 + ['noUi-handle', 'widget-readout', 'SELECT']


def test_nothing_queues_while_one_drags(lab, maps):
    """However many steps a drag has: a kernel that is slow to draw the first gets that and the last, and the last
    is what one sees."""
    slow = (
        'import time\nslow = lambda change: len(seen) == 1 and time.sleep(3)\n'
        'viewer.player.slider.observe(slow, "value")'
    )
    with lab.notebook(PLAYER, SEEN, slow) as book:
        image, frame = book.image('limb map'), book.slider('frame')
        book.shows(image, paint(maps[0, 0]))
        image.evaluate(browser.COUNT)
        book.drag(frame, np.linspace(0, 1, 80))
        book.shows(image, paint(maps[39, 0]))
        book.settle()
        assert book.ask('seen[-1]') == 39 and image.evaluate('image => image.swaps') == book.ask('len(seen)') <= 3
        book.drag(frame, np.linspace(1, 0, 80))  # and with nothing in its way
        book.shows(image, paint(maps[0, 0]))
        book.settle()
        assert image.evaluate('image => image.swaps') == book.ask('len(seen)')


def test_wrong_input_is_a_message(lab):
    with lab.notebook(
        f'{MAPS}\nfrom skeletongait.viewers.player import SequencePlayer\nSequencePlayer(maps[:0])',
        'SequencePlayer([[1, 2], [3]])',
        'SequencePlayer(maps, ("<img src=x onerror=alert(1)>", "<b>"))',
    ) as book:
        assert book.find('.sg-message').all_inner_texts() == [
            'frames: found an empty array of shape (0, 2, 64, 64); expected at least one frame',
            'frames: found rows of different lengths; expected one array',
        ]
        assert book.find('.sg-title').all_inner_texts() == ['<img src=x onerror=alert(1)>', '<b>']
        assert book.find('img').count() == 2 and book.find('button').count() == 4  # play, stop, loop, save


def test_without_a_kernel_readers_see_the_picture(lab, maps):
    "Run, saved, the live views taken out as `make notebooks` does, and opened again by somebody who runs nothing."
    with lab.notebook(PLAYER, 'viewer.player.index = 9', 'viewer', 'SequencePlayer(maps[:0])') as book:
        path = book.save()
    spec = importlib.util.spec_from_file_location('still', ROOT / '.ci' / 'still.py')
    spec.loader.exec_module(script := importlib.util.module_from_spec(spec))
    assert script.VIEW in path.read_text()
    script.still_file(path)
    viewer = SequencePlayer(maps, ('limb map', 'joint map'))
    with lab.notebook(nbformat.read(path, 4), run=False) as book:
        for i, t in enumerate((0, 9)):
            viewer.player.index = t
            book.shows(book.find('img').nth(i), browser.decoded(figure_png(viewer.figure())))
        assert 'expected at least one frame' in book.find('pre').last.inner_text()
        assert book.find('.widget-slider').count() == 0


@pytest.fixture(scope='module')
def tree(lab):
    "Poses and silhouettes of four walkers, where the notebooks are; one file of the last is no pickle."
    write_walkers(
        lab.folder / 'walkers', n_subjects=4, n_train=2, types=('nm-01', 'cl-01'), views=('000', '090'), n_frames=12
    )
    (lab.folder / 'walkers' / 'pose' / '003' / 'cl-01' / '090' / '090.pkl').write_bytes(b'<b>no pickle</b>')
    return lab.folder / 'walkers'


def recorded(tree, *names):
    "The poses and silhouettes of one sequence of the tree."
    return tuple(load_array(tree.joinpath(kind, *names, f'{names[-1]}.pkl')) for kind in ('pose', 'silhouette'))


def test_browser_finds_shows_and_opens(lab, tree):
    cell = '''from skeletongait.viewers.browser import DatasetBrowser
viewer = DatasetBrowser.from_folder('walkers/pose', 'walkers/silhouette', 'walkers/partition.json')
viewer'''
    with lab.notebook(cell) as book:
        def thumb(name):
            return book.find(f'.widget-vbox:has(> button:has-text("{name}")) img')
        book.find('.sg-browser select[multiple], .sg-browser .widget-select select').select_option(
            label='002 · test · 4 sequences'
        )
        pose, sil = recorded(tree, '002', 'cl-01', '090')
        limbs = pose_to_heatmap(pose)[:, 0]
        book.shows(thumb('cl-01 090'), overlay(limbs[6], sil[6]))
        book.press(book.slider('frame'), 'ArrowRight', 8)
        book.shows(thumb('cl-01 090'), overlay(limbs[2], sil[2]))  # 12 frames, around and around
        book.dropdown('type').select_option(label='cl-01')
        book.until('[tuple(s) for s in viewer.chosen]', [['002', 'cl-01', '000'], ['002', 'cl-01', '090']])
        book.shows(thumb('cl-01 090'), overlay(limbs[6], sil[6]))
        book.button('cl-01 090').click()
        book.button('Open').click()
        book.shows(book.image('limb map'), paint(limbs[0]))  # in a studio, below
        book.find('.sg-browser .sg-studio').wait_for()
        book.find('.widget-text input').first.fill('nobody')
        book.find('.widget-text input').first.press('Enter')
        book.find('.sg-note', has_text='0 of 4 subjects match').wait_for()
        thumb('cl-01 090').wait_for(state='hidden')
        book.find('.widget-text input').first.fill('003')
        book.find('.widget-text input').first.press('Enter')
        book.until('viewer.subject.value', '003')
        book.button('cl-01 090').click()
        book.find('.sg-browser .sg-message', has_text='090.pkl').first.wait_for()
        assert book.find('b', has_text='no pickle').count() == 0


def test_studio_shows_and_saves_what_the_library_draws(lab, rec, tmp_path):
    """The page shows the library's map of the settings; and so does the script, run with the saved settings by the
    command that the page names."""
    pose = rec.pose.copy()
    pose[10:20, 15] = 0
    save_pickle(pose, tmp_path / 'poses' / '001' / 'bg-01' / '090' / '090.pkl')
    cfg = HeatmapConfig()
    with lab.notebook(STUDIO) as book:
        limb, joint = book.image('limb map'), book.image('joint map')
        def at(cfg, t):
            return [paint(m) for m in pose_to_heatmap(pose, cfg)[t]]

        def check(cfg, t):
            for image, expected in zip((limb, joint), at(cfg, t)):
                book.shows(image, expected)

        check(cfg, 0)
        book.shows(book.image('silhouette'), np.repeat(rec.silhouette[0][..., None], 3, -1))
        book.press(book.slider('frame'), 'ArrowRight', 12)
        check(cfg, 12)
        book.press(book.slider('sigma, pixels of 128'), 'ArrowLeft', 20)
        check(cfg := replace(cfg, sigma=round(cfg.sigma - 2, 1)), 12)
        book.until('viewer.settings.sigma', cfg.sigma)
        book.checkbox('left knee').click()
        check(cfg := replace(cfg, joints_off=('left_knee',)), 12)
        book.checkbox('cut to the body').click()
        check(cfg := replace(cfg, align=False), 12)
        book.dropdown('map size').select_option(label='32')
        check(cfg := replace(cfg, final_img_size=32), 12)
        book.button('only left').click()
        check(cfg := replace(cfg, joints_off=tuple(j for j in JOINTS if not j.startswith('left'))), 12)
        book.button('Save as config').click()
        said = book.find('.sg-command')
        said.wait_for()
        words = shlex.split(said.inner_text().splitlines()[-1])
        fill = {'POSES': tmp_path / 'poses', 'MAPS': tmp_path / 'maps', 'NAME': 'CASIA-B'}
        words = [
            sys.executable,
            *(f'{k}={fill.get(v, v)}' if v else k for k, _, v in (w.partition('=') for w in words[1:])),
        ]
        done = subprocess.run(words, cwd=lab.folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        (drawn,) = (load_array(f) for f in tmp_path.glob('maps/**/090.pkl'))
        for key, t in (('Home', 0), ('End', 39), ('ArrowLeft', 38)):
            book.press(book.slider('frame'), key)
            for c, image in enumerate((limb, joint)):
                book.shows(image, paint(drawn[t, c]))
        assert (drawn == pose_to_heatmap(pose, cfg)).all()


def test_studio_says_what_it_cannot_do(lab, tmp_path):
    with lab.notebook(
        STUDIO, f'viewer.save_name.value = {str(tmp_path / "refused.yaml")!r}\nHeatmapStudio(rec.silhouette)'
    ) as book:
        joint = book.image('joint map')
        joint.wait_for()
        before = book.pixels(joint)
        book.press(book.slider('confidence, at least'), 'End')
        book.find('.sg-message').nth(1).wait_for()
        book.settle()
        assert book.find('.sg-message').count() == 2
        assert (book.pixels(joint) == before).all()
        said = book.find('.sg-message').first.inner_text()
        assert '(0, 1, 2 ...) no joint, or too few, reaches confidence 1.00; lower it' in said
        book.button('Save as config').click()
        book.settle()
        assert book.find('.sg-message').first.inner_text() == said and book.find('.sg-command').count() == 0
        assert not (tmp_path / 'refused.yaml').exists()
        book.press(book.slider('confidence, at least'), 'Home')
        book.until('viewer.notice.value', '')
        assert book.find('.sg-message').count() == 1


def test_studio_that_is_merely_shown_changes_no_setting(lab, tmp_path):
    "Sliders count in steps of a tenth and are not exact; the settings are. And all the way back there is a button."
    with lab.notebook(STUDIO, f'viewer.save_name.value = {str(tmp_path / "shown.yaml")!r}') as book:
        book.slider('sigma, pixels of 128').wait_for()
        book.settle()
        book.button('Save as config').click()
        book.find('.sg-command').wait_for()
        assert (
            load_heatmap_config(tmp_path / 'shown.yaml') == HeatmapConfig()
            and 'sigma: 8.0' in (tmp_path / 'shown.yaml').read_text()
        )
        book.press(book.slider('sigma, pixels of 128'), 'ArrowRight', 3)
        book.press(book.slider('confidence, at least'), 'ArrowRight', 7)
        book.until('[viewer.settings.sigma, viewer.settings.min_conf]', [8.3, 0.07])
        book.button('none').click()
        book.find('.sg-note', has_text='all joints are switched off').wait_for()
        book.button('Published settings').click()
        book.until('viewer.settings == viewer.cfg == type(viewer.cfg)()', True)
        book.settle()
        book.until('viewer.settings == viewer.cfg', True)
        assert book.find('.sg-note', has_text='all joints are switched off').count() == 0


def write_run(folder, lines):
    "Records of a run that was resumed at 20 and tested at 40, as `metrics.jsonl` has them; as many lines as asked for."
    folder.mkdir(parents=True, exist_ok=True)
    def record(i, **more):
        return dict(iteration=i, time=f'2026-01-01T12:{i // 60:02d}:{i % 60:02d}', **more)
    def values(i):
        return {'triplet/loss': 2 / i, 'softmax/loss': 4 / i, 'softmax/accuracy': i / 100}
    def step(i):
        return record(
            i, values=values(i), lr=0.1, seconds=0.5, data=0.1, compute=0.3, other=0.1, throughput=16.0, n=2
        )
    records = [step(i) for i in range(2, 81, 2)]
    records[10:10] = [record(20, event='resumed')]
    records[21:21] = [record(40, test={'rank-1': 50.0}, headline=dict(name='rank-1', value=50.0))]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in records[:lines]))
    (folder / 'config.yaml').write_text('trainer_cfg: {total_iter: 80}')
    return records[:lines]


def monitored(records):
    "The monitor's picture of one run."
    return figure_pixels(plot_runs({'one': curves_of(records)}, {'one': style(0)}, {'one': 'one'}))


def test_monitor_follows_a_run_that_grows(lab):
    folder = lab.folder / 'runs' / 'one'
    records = write_run(folder, 22)
    with lab.notebook(
        "from skeletongait.viewers.monitor import TrainingMonitor\nviewer = "
        "TrainingMonitor.from_folders('runs/one', follow=False)\nviewer"
    ) as book:
        image = book.find('.sg-monitor img')
        book.shows(image, monitored(records))
        book.find('.sg-note', has_text='one: iteration 40 of 80').wait_for()
        records = write_run(folder, 30)
        book.button('refresh').click()
        book.shows(image, monitored(records))
        book.button('follow').click()
        book.settle()
        records = write_run(folder, 42)
        book.shows(image, monitored(records))  # by itself
        book.find('.sg-note', has_text='one: iteration 80 of 80, finished').wait_for()
        book.until('viewer.task is None and not viewer.follow.value', True)  # all is told
        assert book.find('.sg-message').count() == 0


EMBEDDINGS = '''import numpy as np
names = [(f'{i:03d}', t, v) for i in range(4) for t in ('nm-01', 'cl-01') for v in ('000', '090')]
embeddings = np.random.default_rng(0).normal(size=(16, 8, 16)).astype(np.float32)
embeddings += 2*np.random.default_rng(1).normal(size=(4, 8, 16)).astype(np.float32).repeat(4, 0)'''
PROTOCOL = dict(gallery=dict(types=['nm-01']), probe=dict(types=['cl-01']), exclude=['view'])


def ranked(k):
    "The evaluator's answers: for each probe the nearest sequences, and whether each is right."
    exec(EMBEDDINGS, made := {})
    test = make_embedding_set(made['embeddings'], *zip(*made['names']))
    (split,) = GalleryProbe.from_dict(PROTOCOL).split(test.sequences, None)
    nearest, distance = nearest_sequences(test, split.probe, split.gallery, k, 'euc', ('view',))
    def answer(probe, i, d):
        return (test.sequences[i], d, test.sequences[i].subject == probe.subject)
    return test, {
        (probe := test.sequences[p]): [answer(probe, i, d) for i, d in zip(row, ds) if d < np.inf]
        for p, row, ds in zip(split.probe, nearest.tolist(), distance.tolist())
    }


def test_retrieval_shows_the_evaluators_ranking(lab, tree):
    _, answers = ranked(4)
    cell = f'''{EMBEDDINGS}
from skeletongait.maps.settings import HeatmapConfig
from skeletongait.viewers.retrieval import RetrievalExplorer, tree_walks
walks = tree_walks('walkers/pose', render=HeatmapConfig())
viewer = RetrievalExplorer(embeddings, *zip(*names), walks, {PROTOCOL!r}, k=4)
viewer'''
    def maps(s):
        return pose_to_heatmap(recorded(tree, *s)[0])
    with lab.notebook(cell) as book:
        def image(s):
            return book.find(f'.widget-vbox:has(> .widget-html .sg-note:text-is("{s}")) > img').first
        book.dropdown('show').select_option(label='all probes')
        for n, (probe, entries) in enumerate(list(answers.items())[:3]):
            book.find('.sg-title', has_text=f'probe {probe}').first.wait_for()
            book.press(book.slider('frame'), 'Home')
            book.press(book.slider('frame'), 'ArrowRight', n)
            for s in [probe, *(e[0] for e in entries)]:
                book.shows(image(s), paint(maps(s)[n, 0]))
            heads, notes = (book.find(kind).all_inner_texts() for kind in ('.sg-title', '.sg-note'))
            for place, (_, d, right) in enumerate(entries, 1):
                assert (
                    f"{'✓' if right else '✗'} {place} {'right' if right else 'WRONG'}" in heads
                    and f'distance {d:#.4g}' in notes
                )
            book.button('next').click()
        book.dropdown('picture').select_option(label='joint map')
        probe, entries = list(answers.items())[3]
        for s in [probe, *(e[0] for e in entries)]:
            book.shows(image(s), paint(maps(s)[2, 1]))


def test_retrieval_says_by_which_strip(lab, tree):
    "Each of the nearest against the first of the other kind: the bars are the evaluator's distances of the strips."
    test, answers = ranked(8)
    probe, entries = next(iter(answers.items()))
    entries = [Entry(s, i, d, right, test.sequences.index(s)) for i, (s, d, right) in enumerate(entries, 1)]
    first = {right: next(e for e in entries if e.right == right) for right in (True, False)}
    cell = f"""{EMBEDDINGS}
from skeletongait.viewers.retrieval import RetrievalExplorer
viewer = RetrievalExplorer(embeddings, *zip(*names), protocol={PROTOCOL!r})
viewer"""
    with lab.notebook(cell) as book:
        book.dropdown('show').select_option(label='all probes')
        bars = book.image('wrong | right')
        for e in (entries[0], entries[-1], next(e for e in entries if e.right), entries[1]):
            book.button(f"{e.place}{'✓' if e.right else '✗'}").click()
            wrong, right = (first[False], e) if e.right else (e, first[True])
            book.shows(bars, balance_bars(judge(test, test.sequences.index(probe), wrong, right)))


def test_retrieval_lays_the_strips_beside_the_walkers(lab, tree):
    """In a narrow window, too: one row, the bars level with the pictures, whole words on the buttons; and a
    subject that does not exist."""
    cell = f"""{EMBEDDINGS}
from skeletongait.maps.settings import HeatmapConfig
from skeletongait.viewers.retrieval import RetrievalExplorer, tree_walks
viewer = RetrievalExplorer(embeddings, *zip(*names), tree_walks('walkers/pose', render=HeatmapConfig()), {PROTOCOL!r})
viewer"""
    _, answers = ranked(8)
    n, wide = len(answers), 900
    with lab.notebook(cell) as book:
        book.page.set_viewport_size(dict(width=wide, height=1000))
        book.page.evaluate("() => jupyterapp.shell.collapseLeft()")
        book.dropdown('show').select_option(label='all probes')
        book.until('viewer.channel.value', 'limb map')
        book.settle()
        assert book.dropdown('picture').evaluate('o => o.selectedOptions[0].text').split() == ['limb', 'map']
        images = book.image('wrong | right').locator('xpath=ancestor::*[contains(@class, "widget-hbox")][1]//img')
        boxes = [images.nth(i).bounding_box() for i in range(5)]  # probe, wrong, bars, right, shares
        assert images.count() == 5 and {(round(b['y']), round(b['height'])) for b in boxes} == {
            (round(boxes[0]['y']), 160)
        }
        assert (
            all(a['x'] + a['width'] <= b['x'] for a, b in zip(boxes, boxes[1:]))
            and boxes[-1]['x'] + boxes[-1]['width'] <= wide
        )
        buttons, word = book.find('.widget-toggle-button'), book.label('compare').bounding_box()
        assert buttons.count() > 3 and all(
            buttons.nth(i).evaluate('o => o.scrollWidth <= o.clientWidth') for i in range(buttons.count())
        )
        first = buttons.first.bounding_box()
        assert word['x'] + word['width'] <= first['x'] and abs(word['y'] - first['y']) < first['height']
        subject = book.find('.widget-text input[placeholder=all]').first
        subject.fill('nobody')
        subject.press('Enter')
        book.find('.sg-message', has_text=f'no probe matches these choices: 0 of {n}').wait_for()
        book.find('.sg-note', has_text=f'0 of {n}').first.wait_for()
        assert not book.button('next').is_enabled()
        subject.fill('')
        subject.press('Enter')
        book.find('.sg-message').wait_for(state='detached')
        assert book.button('next').is_enabled()


def test_identify_shows_whom_the_gallery_names(lab, tree):
    "Names, distances and verdicts of the gallery, and the frames that the library draws, for one probe and the next."
    code = f"""{EMBEDDINGS}
from skeletongait.evaluation.identify import MUST_FIT, enrol
from skeletongait.files.tree import Sequence
who = [Sequence(*o) for o in names]
known, asked = ([i for i, s in enumerate(who) if s.type == t] for t in ('nm-01', 'cl-01'))
about = dict.fromkeys(MUST_FIT, '') | dict(metric='euc')
gallery = enrol(embeddings[known], [who[i] for i in known], about)
probes = [str(who[i]) for i in asked]
x = embeddings[asked]"""
    exec(code, made := {})
    found = made['gallery'].rank_all(made['x'], 3)
    cell = f"""{code}
from skeletongait.maps.settings import HeatmapConfig
from skeletongait.viewers import IdentifyViewer
from skeletongait.viewers.retrieval import named, tree_walks
walks = tree_walks('walkers/pose', render=HeatmapConfig())
viewer = IdentifyViewer(gallery, x, probes, walks, lambda name: walks(named(name)), far=.2, k=3)
viewer"""
    with lab.notebook(cell) as book:
        for n, (i, probe) in enumerate(list(zip(made['asked'], made['probes']))[:2]):
            book.dropdown('probe').select_option(label=probe)
            book.find('.sg-title', has_text=f'{probe}: ').first.wait_for()
            book.press(book.slider('frame'), 'ArrowRight', n)
            for s in [made['who'][i], *(r.sequence for r in found[n])]:
                image = book.find(f'.widget-vbox:has(> .widget-html .sg-note:text-is("{s}")) > img').first
                book.shows(image, paint(pose_to_heatmap(recorded(tree, *s)[0])[n, 0]))
            heads, notes = (book.find(kind).all_inner_texts() for kind in ('.sg-title', '.sg-note'))
            for place, r in enumerate(found[n], 1):
                assert f'{place} {r.subject}' in heads and f'distance {r.distance:#.4g}' in notes
            assert {'near enough', 'too far'} & {*notes}


def test_overlay_shows_what_the_loader_cuts_and_training_warps(lab, rec, maps):
    sils = rec.silhouette[..., 10:54]
    joined = np.concatenate([maps[..., 10:54], sils[:, None]], 1)
    transform = build_transform(load_config('skeletongait++_Gait3D')[0].trainer_cfg.transform[0])
    with lab.notebook(OVERLAY, 'OverlayViewer(maps, rec.silhouette[:30])') as book:
        frame = book.slider('frame').first
        whole, seen = book.image('overlay').first, book.image('what the network sees, 64 x 44').first
        def inside(image):
            return book.pixels(image)[:, 10:54]

        def check(t, seed, alpha=0.8, blend='over'):
            warped = transform(joined, np.random.default_rng(seed))
            book.shows(seen, overlay(warped[t, 0], warped[t, 2], alpha, blend))
            assert (
                inside(whole) == overlay(maps[t, 0], np.pad(sils[t], ((0, 0), (10, 10))), alpha, blend)[:, 10:54]
            ).all()

        check(0, 0)
        book.press(frame, 'ArrowRight', 9)
        check(9, 0)
        for seed in (1, 2, 3):
            book.button('sample again').first.click()
            book.until('viewer.seed.value', seed)
            check(9, seed)
        assert book.find('.widget-html', has_text='this sample:').first.inner_text() == 'this sample: ' + ', '.join(
            DONE[name] for name in applied(transform, np.random.default_rng(3), (64, 44))
        )
        book.press(book.slider("map's weight").first, 'ArrowRight', 4)
        check(9, 3, 1.0)
        book.dropdown('blend').first.select_option(label='difference')
        check(9, 3, 1.0, 'difference')
        book.checkbox('show the cut to 44 columns').first.click()
        book.shows(whole, overlay(maps[9, 0], np.pad(sils[9], ((0, 0), (10, 10))), 1.0, 'difference'))
        assert 'the lengths differ: 40 maps and 30 silhouettes' in book.find('.sg-badge').last.inner_text()
        chips = book.find('.sg-key').first.locator('span')
        assert [chips.nth(i).evaluate('o => getComputedStyle(o).color') for i in (0, 1)] == [
            'rgb({:.0f}, {:.0f}, {:.0f})'.format(*rgb) for rgb in (MAP_RGB, SIL_RGB)
        ]
        book.dropdown('transform').first.select_option(label='none')
        book.find('.widget-html', has_text='nothing random').wait_for()
        assert not book.button('sample again').first.is_enabled()


NETWORK = dict(
    model='SkeletonGaitPP', Backbone=dict(in_channels=3, blocks=[1, 1, 1, 1], C=0.25), SeparateBNNecks=dict(class_num=8)
)
FUSION = f'''{MAPS}
from skeletongait.viewers.fusion import FusionViewer
from skeletongait.nets.models import build_model
model = build_model({NETWORK!r}, seed=0)
viewer = FusionViewer.from_model(model, maps, rec.silhouette)
viewer'''


def test_fusion_shows_the_networks_weights(lab, rec, maps):
    frames = network_frames(maps, rec.silhouette)
    weights = model_weights(build_model(NETWORK, seed=0), frames)
    with lab.notebook(FUSION) as book:
        weight, body = book.image('weights'), book.image('weights on the body')

        def check(t, w_hw, half):
            book.shows(weight, paint_trust(w_hw, half))
            book.shows(body, trust_on_body(w_hw, frames[t], half))

        half = SCALES[book.ask('viewer.scale.value')]
        check(0, weights.mean_thw[0], half)
        book.press(book.slider('frame'), 'ArrowRight', 7)
        check(7, weights.mean_thw[7], half)
        book.shows(book.image('map'), paint(frames[7, 0]))
        for name, half in SCALES.items():
            book.dropdown('scale').select_option(label=name)
            check(7, weights.mean_thw[7], half)
        book.checkbox('one channel').click()
        book.settle()  # only then the slider takes keys
        book.press(book.slider('number'), 'ArrowRight', 3)
        check(7, weights.one(7, 3), half)
        assert 'hardly prefers either' in book.find('.sg-note', has_text='all frames:').inner_text()
        book.page.set_viewport_size(dict(width=900, height=1000))
        book.page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")  # the list of files
        book.settle()
        boxes = [book.image(title).bounding_box() for title in ('silhouette', 'map', 'weights', 'weights on the body')]
        assert len({round(b['y']) for b in boxes}) == 1 and all(
            a['x'] + a['width'] <= b['x'] for a, b in zip(boxes, boxes[1:])
        )  # four in one row


def test_workbench_runs_as_it_stands(lab):
    """The place to start: all cells are run, every viewer is there with a picture, and none is a message. Only its
    training is shorter here."""
    book = nbformat.read(ROOT / 'nbs' / 'tutorials' / 'workbench.ipynb', 4)
    short = {
        'total_iter=60': 'total_iter=6',
        'save_iter=20': 'save_iter=3',
        'log_iter=2': 'log_iter=1',
        'total_steps=61': 'total_steps=7',
    }
    (training,) = (c for c in book.cells if 'total_iter=60' in c.source)
    for long in short:
        training.source = training.source.replace(long, short[long])
    with lab.notebook(book) as book:
        for kind in ('studio', 'overlay', 'browser', 'monitor', 'retrieval', 'identify', 'fusion'):
            image = book.find(f'.sg-{kind} img').first
            image.scroll_into_view_if_needed()
            assert min(book.pixels(image).shape[:2]) >= 32
        assert book.find('.sg-message').all_inner_texts() == []
