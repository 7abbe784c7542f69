"The training monitor: reading what is new, curves, cursor, controls, and following a run that trains."
import asyncio
import datetime
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from toys import make_walkers, tiny, write_config

from skeletongait.runs.folder import Run
from skeletongait.core import SkeletonGaitError
from skeletongait.viewers.monitor import (
    DASHES, RunFolder, Tail, TrainingMonitor, between, check_records, curves_of, drawn, is_over, lines_table,
    read_total, run_status, short_names, smoothed, span_of_time, style, tests_table as table_of_tests, thinned,
    with_cursor)
from skeletongait.runs.records import read_metrics, rewind_metrics
from records import NOW, event, line, test


def run_of(n, step=10): return [line(i) for i in range(step, n*step+1, step)]


def write(path, records, mode='w'):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, mode) as f:
        f.writelines(json.dumps(o)+'\n' for o in records)


def cells(table): return [c for c in re.findall('>([^<>]+)<', table)]


def pixels(viewer): return (plt.imread(io.BytesIO(viewer.image.value))*255).round().astype(np.uint8)


# Reading

def either(read):
    "What reading gives, or the error it ends with."
    try:
        return read()
    except SkeletonGaitError as e:
        return str(e)


LINES = st.sampled_from([
    b'{"iteration": 1}', b'{"iteration": 22, "values": {"a/loss": 0.5}}', b'', b'{"iterat', b'7', b'{"iteration": "x"}',
    b'{"event": "s\xc3\xa9"}', b'\xff'])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=8), st.booleans(), st.lists(st.integers(0, 200), max_size=8))
def test_pieces_read_one_after_the_other_are_the_whole(tmp_path, lines, ended, cuts):
    "However a file grows, damaged or not, and whenever it is looked at."
    path = tmp_path/'metrics.jsonl'
    whole = b'\n'.join(lines)
    if ended:
        whole += b'\n'
    path.write_bytes(b'')
    tail, cuts = Tail(path), sorted({0, len(whole), *(c for c in cuts if c < len(whole))})
    for a, b in zip(cuts, cuts[1:] or [0]):
        with open(path, 'ab') as f:
            f.write(whole[a:b])
        assert either(lambda: tail.read() and None or tail.records) == either(lambda: read_metrics(path))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(['grow', 'tear', 'rewind', 'remove', 'new', 'cut']), st.integers(1, 6)),
                min_size=1, max_size=12))
def test_whatever_happens_to_the_file(tmp_path, steps):
    "Grows, is torn and repaired, resumed earlier, removed, begun anew, or cut in place."
    path, last = tmp_path/'metrics.jsonl', 0
    path.unlink(missing_ok=True)
    tail = Tail(path)
    for k, (what, n) in enumerate(steps, 1):
        last = happen(path, tail, what, n, last, k)
        tail.read()
        assert tail.records == (read_metrics(path) if path.exists() else [])
        if what == 'cut':
            path.unlink(missing_ok=True)
            last = 0


def happen(path, tail, what, n, last, k):
    "Let something happen to the file, with `n` lines or bytes; the last iteration after it."
    if what == 'grow':
        if path.exists():
            rewind_metrics(path, 10**6)  # as a resumption does it: the torn end goes
        write(path, [line(last+j+1, lr=k/7) for j in range(n)], 'a')
        return last + n
    if what == 'tear':
        torn = b'{"iteration": 99999, "ti'[:4*n]
        with open(path, 'ab') as f:
            f.write(torn)
        tail.read()
        os.truncate(path, path.stat().st_size-len(torn))
    elif what == 'rewind':
        last = max(last-n, 1)
        rewind_metrics(path, last)
    elif what in ('remove', 'new'):
        path.unlink(missing_ok=True)
        if what == 'remove': return 0
        write(path, [line(j+1, lr=-k) for j in range(n)])
        return n
    elif path.exists():
        os.truncate(path, path.stat().st_size//2)
    return last


def test_only_new_bytes_are_parsed(tmp_path, monkeypatch):
    path, parsed = tmp_path/'metrics.jsonl', []
    tail = Tail(path)
    monkeypatch.setattr('skeletongait.viewers.monitor.parse_record', lambda b: parsed.append(b) or json.loads(b))
    write(path, run_of(500))
    assert tail.read() and len(parsed) == 500
    assert not tail.read() and len(parsed) == 500
    write(path, [line(6000)], 'a')
    assert tail.read() and len(parsed) == 501 and len(tail.records) == 501


def test_same_number_in_the_file_system_but_another_content(tmp_path):
    "A file cut to nothing and written anew keeps its number, and may have grown past where reading stopped."
    path = tmp_path/'metrics.jsonl'
    write(path, run_of(3))
    tail = Tail(path)
    tail.read()
    number = path.stat().st_ino
    write(path, [line(i, lr=.5) for i in range(1, 9)])
    assert path.stat().st_ino == number and tail.read() and tail.records == read_metrics(path)


def test_damage_is_told_until_it_is_mended(tmp_path):
    run = RunFolder(tmp_path/'run')
    write(run.tail.path, run_of(3))
    assert run.read() and not run.problem
    with open(run.tail.path, 'ab') as f:
        f.write(b'garbage\n')
    write(run.tail.path, [line(50)], 'a')
    assert run.read() and 'line 4 is' in run.problem and 'garbage' in run.problem and len(run.records) == 3
    assert not run.read() and run.problem
    write(run.tail.path, run_of(5))
    assert run.read() and not run.problem and len(run.records) == 5


@pytest.mark.parametrize(
    'content, total',
    [
        ('trainer_cfg: {total_iter: 60000}', 60000), ('trainer_cfg: {}', 0), ('', 0), ('trainer_cfg: 3', 0), ('[1]', 0),
        ('trainer_cfg: {total_iter: many}', 0)])
def test_how_far_a_run_is_meant_to_go(tmp_path, content, total):
    (tmp_path/'config.yaml').write_text(content)
    assert read_total(tmp_path/'config.yaml') == total
    assert read_total(tmp_path/'none.yaml') == 0


def test_settings_that_cannot_be_read(tmp_path):
    run = RunFolder(tmp_path)
    write(run.tail.path, run_of(2))
    (tmp_path/'config.yaml').write_text('a: [')
    assert run.read() and 'config.yaml: line' in run.problem and 'expected the settings of a run' in run.problem


# Records and words

@pytest.mark.parametrize(
    'records, says',
    [
        (None, 'found NoneType'), ('metrics.jsonl', 'found str'), ([3], 'record 1: found int'),
        ([{}], 'found iteration None'), ([line(3), line(2)], 'record 2: found iteration 2 after 3'),
        ([line(1, time=5)], 'found time 5'), ([line(1, time='2024-01-31T12:00:00+01:00')], 'found time'),
        ([line(1, values=[1])], 'found values [1]'), ([line(1, values={'loss': 'low'})], "found loss 'low'"),
        ([line(1, n='many')], "found n 'many'"),
        ([{k: v for k, v in line(1).items() if k != 'lr'}], "found lr 'nothing'"),
        ([test(1) | {'headline': 3}], 'found headline 3'), ([test(1, 'high')], "'high'")])
def test_wrong_records_are_one_message(records, says):
    with pytest.raises(SkeletonGaitError, match='expected') as e:
        check_records(records, 'wide')
    assert says in str(e.value) and str(e.value).startswith('wide: ')
    viewer = TrainingMonitor({'wide': records})
    assert viewer.problem == str(e.value) and len(viewer.children) == 1


@pytest.mark.parametrize(
    'runs, says',
    [({}, 'found none'), ([], 'found list'), (None, 'found NoneType'), ({'<script>': 3}, '<script>: found int')])
def test_wrong_runs_are_one_message(runs, says):
    viewer = TrainingMonitor(runs)
    assert says in viewer.problem and '<script>' not in viewer.children[0].value
    viewer.close()


def test_wrong_folders_are_one_message(tmp_path):
    (tmp_path/'file').write_text('')
    assert 'a file; expected the folder of a run' in TrainingMonitor.from_folders(tmp_path/'file').problem
    assert 'found twice' in TrainingMonitor.from_folders(tmp_path, f'{tmp_path}/.').problem
    assert 'found none' in TrainingMonitor.from_folders().problem


@pytest.mark.parametrize(
    'folders, names',
    [
        (('a/x', 'a/y'), ['x', 'y']), (('a/x', 'b/x'), ['a/x', 'b/x']), (('x',), ['x']), ((), []),
        (('/', '/a'), ['/', 'a'])])
def test_names_are_short_and_differ(folders, names): assert short_names(folders) == names


@pytest.mark.parametrize(
    'seconds, words',
    [
        (-5, '0 s'), (12.4, '12 s'), (119, '119 s'), (120, '2 min'), (7199, '120 min'), (7200, '2 h'),
        (172800, '2 days'), (1e7, '116 days')])
def test_time_in_words(seconds, words): assert span_of_time(seconds) == words


def test_how_a_run_stands():
    records, now = run_of(3), NOW+datetime.timedelta(seconds=42)
    assert run_status(records, 1030, now) == 'iteration 30 of 1,030, 2 it/s, ETA 0:08:20, last heard of 12 s ago'
    assert run_status(records, 0, now) == 'iteration 30, 2 it/s, last heard of 12 s ago'
    assert run_status(
        records, 1030, NOW+datetime.timedelta(seconds=151)).endswith('last heard of 2 min ago, seems stopped')
    slow = [line(30, seconds=60.)]  # a log line every ten minutes
    assert not run_status(slow, 1030, NOW+datetime.timedelta(hours=1)).endswith('stopped')
    assert run_status(slow, 1030, NOW+datetime.timedelta(hours=2)).endswith('seems stopped')
    stopped = event(35, 'stopped')
    words = run_status([*records, event(35, 'saved'), stopped], 1030, now)
    assert words == 'iteration 35 of 1,030, stopped 2024-01-31 12:00:35'
    assert run_status([*records, stopped, event(35, 'resumed')], 1030, now).endswith('last heard of 7 s ago')
    assert run_status(records, 30, now) == 'iteration 30 of 30, finished 2024-01-31 12:00:30'
    assert run_status([event(0, 'stopped')], 100, now).startswith('iteration 0 of 100, stopped')
    assert run_status([line(30, seconds=None)], 100, now) == 'iteration 30 of 100, last heard of 12 s ago'


def test_a_loss_that_was_no_number():
    c = curves_of([line(10), line(20, values={'triplet/loss': None})])
    assert np.isnan(c.values['triplet/loss'][1]) and np.isnan(c.values['softmax/loss'][1]) and c.x.tolist() == [10, 20]
    assert 'nan' in cells(lines_table({'a': c.lines[1]})) and 'nan' not in cells(lines_table({'a': c.lines[0]}))
    viewer = TrainingMonitor({'a': [line(20, values={'triplet/loss': None}, lr=None, throughput=None, data=None)]})
    viewer.smooth.value, viewer.log_y.value = .5, True
    assert not viewer.problem and 'above zero' in viewer.notice.value


# Curves

@given(st.lists(st.one_of(st.just(np.nan), st.floats(-100, 100)), max_size=30), st.floats(.01, .99))
def test_smoothing_is_a_weighted_mean(values, weight):
    y = np.array(values, float)
    there = np.flatnonzero(~np.isnan(y))
    for k, v in enumerate(smoothed(y, weight)):
        past = there[there <= k]
        if np.isnan(y[k]):
            assert np.isnan(v)
        else:
            np.testing.assert_allclose(v, np.average(y[past], weights=weight**np.arange(len(past))[::-1]), atol=1e-9)


@given(st.integers(0, 3000), st.integers(4, 400), st.integers(0, 2**31))
def test_thinning_keeps_peaks_holes_and_ends(length, n, seed):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(length) < rng.choice([0, .05, 1]), np.nan, rng.normal(size=length))
    x = np.arange(length)*10
    a, b = thinned(x, y, n)
    np.testing.assert_array_equal(b, y[a//10])
    assert (np.diff(a) > 0).all() and np.isnan(b).any() == np.isnan(y).any()
    assert len(a) <= n*1.5+4
    if length:
        assert (a[0], a[-1]) == (x[0], x[-1])
    if np.isfinite(y).any():
        assert (np.nanmin(b), np.nanmax(b)) == (np.nanmin(y), np.nanmax(y))


def test_runs_differ_without_colour():
    looks = [style(k) for k in range(56)]
    assert len({*looks}) == 56 and len({(o.dash, o.marker) for o in looks[:8]}) == 8
    assert all(style(k).dash in DASHES for k in range(99))


def test_a_range_includes_both_ends():
    c = between(curves_of([*run_of(5), event(50, 'saved'), test(50), line(60)]), (20, 50))
    assert c.x.tolist() == [20, 30, 40, 50] and len(c.tests) == 1 and c.events == [('saved', 50)]
    assert len(c.values['lr']) == 4


# The viewer

@pytest.fixture
def viewer():
    return TrainingMonitor(
        {
            'wide': [
                *run_of(8), event(80, 'stopped'), event(80, 'resumed'), *[line(i) for i in range(90, 101, 10)],
                event(100, 'saved'), test(100)], 'narrow': [line(i) for i in range(15, 76, 15)]}, {'wide': 100})


def test_cursor_is_where_matplotlib_would_draw_it(viewer):
    fig = viewer.draw({'wide': 'wide'})
    picture, boxes = drawn(fig)
    axes = [ax for ax in fig.axes if ax.get_gid() == 'iterations']
    assert len(axes) == len(boxes) == 6
    for ax in axes:
        ax.axvline(50, color=(1, 0, 0), lw=2*.72, zorder=99, antialiased=False)
    red = (drawn(fig)[0] == (255, 0, 0)).all(-1)
    black = (with_cursor(picture, boxes, 50) != picture).any(-1)
    for b in boxes:
        middle = (b.top+b.bottom)//2
        columns = [np.flatnonzero(m[middle, int(b.left):int(b.right)]).mean() for m in (red, black)]
        assert abs(columns[0]-columns[1]) <= 1


def test_frames_are_log_lines_of_all_runs(viewer):
    assert viewer.points.tolist() == sorted({*range(10, 101, 10), *range(15, 76, 15)})
    assert viewer.n_frames == len(viewer.points) == viewer.player.slider.max+1
    assert viewer.player.index == viewer.n_frames-1
    viewer.player.index = 2
    assert viewer.cursor() == 20 and (pixels(viewer) == with_cursor(viewer.picture, viewer.boxes, 20)).all()
    head, n = [
        'at the cursor', 'iteration', 'triplet/loss', 'softmax/loss', 'softmax/accuracy', 'lr', 's/it', 'data, s/it',
        'sequences/s'], 9
    said = cells(viewer.words.value)
    assert said[:n] == head and said[n:2*n] == ['wide', '20', '0.05', '0.1', '0.95', '0.1', '0.5', '0.1', '64']
    assert said[2*n:2*n+2] == ['narrow', '15']
    viewer.player.index = 0
    assert cells(viewer.words.value)[-2:] == ['narrow', 'no log line yet']


def test_picture_is_drawn_anew_only_when_something_changed(viewer):
    picture = viewer.picture
    viewer.redraw()
    viewer.refresh()
    viewer.player.index = 3
    assert viewer.picture is picture
    for control, value in (
        (viewer.smooth, .5), (viewer.log_y, True), (viewer.span, (20, 60)), (viewer.shown['narrow'], False)):
        picture = viewer.picture
        control.value = value
        assert viewer.picture is not picture and (viewer.picture != picture).any()
    assert viewer.points.tolist() == [20, 30, 40, 50, 60]


def test_cursor_stays_where_it_is_while_the_range_changes(viewer):
    viewer.player.index = viewer.points.tolist().index(50)
    viewer.span.value = (30, 60)
    assert viewer.cursor() == 50
    viewer.span.value = (0, 40)
    assert viewer.cursor() == 40


def test_controls_that_leave_nothing_to_see(viewer):
    for box in viewer.shown.values():
        box.value = False
    assert 'no run is shown' in viewer.notice.value and viewer.words.value == '' and viewer.n_frames == 1
    viewer.figure(), viewer.snapshot(0)
    viewer.shown['narrow'].value = True
    assert viewer.notice.value == ''
    viewer.span.value = (1, 2)
    assert viewer.n_frames == 1 and not viewer.problem


def test_nothing_of_matplotlib_stays(viewer):
    plt.close('all')
    before = dict(plt.rcParams)
    with plt.rc_context({'axes.facecolor': 'black', 'text.color': 'white'}):
        viewer.smooth.value = .5
        dark = viewer.picture
    viewer.smooth.value = 0
    viewer.smooth.value = .5
    assert (viewer.picture == dark).all() and plt.get_fignums() == [] and dict(plt.rcParams) == before


def test_snapshots_and_animation(viewer, tmp_path):
    assert {viewer.snapshot(t).shape for t in range(viewer.n_frames)} == {(622, 960, 3)}
    assert (viewer.snapshot(2)[22:] == with_cursor(viewer.picture, viewer.boxes, 20)).all()
    assert viewer.save_animation(tmp_path/'run.gif', range(0, 12, 4)).stat().st_size > 1000
    assert 'image/png' in viewer._repr_mimebundle_() and plt.get_fignums() == []
    texts = [t.get_text() for legend in viewer.figure().legends for t in legend.get_texts()]
    assert texts[0].startswith('wide: iteration 100 of 100, finished') and {'saved', 'stopped', 'resumed'} < {*texts}


def test_names_are_text_not_html():
    bad = '<img src=x onerror=alert(1)>'
    viewer = TrainingMonitor({bad: [line(1, values={f'{bad}/loss': 1.}), test(1) | {'test': {bad: 3.}}]})
    for part in (viewer.words, viewer.tests, viewer.status[bad]):
        assert '<img' not in part.value
    assert not viewer.shown[bad].description_allow_html


def test_table_has_the_last_tests():
    html = table_of_tests({
        'a': curves_of([test(10, 20.), test(20, 30.)]), 'b': curves_of([test(5, None) | {'test': {'NM': 7.25}}]),
        'c': curves_of([line(1)])})
    assert cells(html) == [
        'last test', 'iteration', 'Rank-1 %', 'mAP %', 'NM %', 'a', '20', '30', '40', 'b', '5', '7.25']
    assert html.count('nowrap') == 15 # every cell, empty ones too
    assert table_of_tests({'c': curves_of([line(1)])}) == ''


def test_counts_of_probes_are_shown_where_there_are_any():
    counted = dict(probes=12, probes_left_out=0, probes_alone=0, gallery=6)
    def table(**more):
        figures = {'NM mAP': 100.} | counted | more
        return table_of_tests({'a': curves_of([test(10) | {'test': figures}])})
    assert cells(table()) == ['last test', 'iteration', 'NM mAP %', 'probes', 'gallery', 'a', '10', '100', '12', '6']
    assert cells(table(probes_left_out=1234))[4:6] == ['probes left out', 'gallery']
    assert '1,234' in cells(table(probes_left_out=1234))


def test_only_runs_that_are_ticked_are_in_the_tables():
    viewer = TrainingMonitor({'a': [line(10), test(10, 20.)], 'b': [line(10), test(10, 30.)]})
    viewer.shown['a'].value = False
    assert 'a' not in cells(viewer.tests.value) and 'a' not in cells(viewer.words.value)
    assert 'b' in cells(viewer.tests.value)
    assert viewer.image.layout.display is None
    viewer.shown['b'].value = False
    assert viewer.tests.value == viewer.words.value == ''
    assert viewer.image.layout.display == viewer.player.layout.display == 'none'


def test_panels_say_their_units(viewer):
    fig = viewer.draw({'wide': 'wide'})
    assert [ax.get_title('left') for ax in fig.axes] == [
        'triplet/loss', 'softmax/loss', 'softmax/accuracy, 0 to 1', 'test: Rank-1, %', 'learning rate',
        'sequences per second', 'time per iteration']
    assert [ax.get_xlabel() for ax in fig.axes] == ['']*3 + ['iteration']*3 + ['seconds']


def test_a_run_with_one_line_or_events_alone():
    for records in ([line(1)], [event(0, 'stopped')], [test(5)], [line(7, values={})], []):
        viewer = TrainingMonitor({'a': records})
        assert not viewer.problem and viewer.n_frames == 1 and viewer.snapshot(0).shape == (622, 960, 3)
    assert 'no records' in viewer.status['a'].value


# Live

def test_nothing_is_followed_without_a_loop(tmp_path):
    viewer = TrainingMonitor.from_folders(tmp_path/'run')
    assert viewer.task is None and not viewer.follow.value and 'no event loop' in viewer.notice.value
    assert TrainingMonitor.from_folders(tmp_path/'run', follow=False).notice.value == ''


def test_when_a_run_is_over():
    end = [line(10), event(10, 'saved')]
    now = NOW+datetime.timedelta(seconds=20)
    assert not is_over(end, 0, now) and not is_over(end, 11, now) and not is_over(end, 10, now)
    assert not is_over([], 10, now)
    assert is_over([*end, test(10)], 10, now) and is_over(end, 10, now+datetime.timedelta(seconds=600))
    assert not is_over([line(9), event(9, 'stopped')], 10, now+datetime.timedelta(days=9)) # may be taken up again


def test_nothing_is_followed_that_is_over(tmp_path):
    async def story():
        path = tmp_path/'run'/'metrics.jsonl'
        write(path, run_of(3))
        (tmp_path/'run'/'config.yaml').write_text('trainer_cfg: {total_iter: 40}')
        viewer = TrainingMonitor.from_folders(path.parent)
        viewer.stop()
        viewer.every = .01
        viewer.start()
        assert viewer.follow.value
        write(path, [line(40), event(40, 'saved'), test(40)], 'a')
        while viewer.follow.value:
            await asyncio.sleep(.01)
        assert viewer.points.tolist() == [10, 20, 30, 40] and viewer.tests.value and viewer.task is None
        assert viewer.notice.value == ''
        viewer.follow.value = True
        assert not viewer.follow.value and 'nothing to follow' in viewer.notice.value
        write(path, [event(40, 'saved')], 'a')
        viewer.look.click()
        assert len(viewer.curves['run'].events) == 2
        again = TrainingMonitor.from_folders(path.parent)
        assert not again.follow.value and again.notice.value == ''
    asyncio.run(story())


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path):
    viewer = TrainingMonitor.from_folders(tmp_path/'run', follow=False)
    assert 'does not exist yet' in viewer.status['run'].value and viewer.image.layout.display == 'none'
    (tmp_path/'run').mkdir()
    viewer.refresh()
    assert 'waits for' in viewer.status['run'].value and 'does not exist' not in viewer.status['run'].value
    write(tmp_path/'run'/'metrics.jsonl', run_of(1))
    viewer.refresh()
    assert viewer.image.layout.display is None


def test_refresh_reads_what_is_new(tmp_path):
    viewer = TrainingMonitor.from_folders(tmp_path/'run', follow=False)
    assert 'waits for' in viewer.status['run'].value and viewer.n_frames == 1
    path = tmp_path/'run'/'metrics.jsonl'
    write(path, run_of(3))
    viewer.look.click()
    assert viewer.points.tolist() == [10, 20, 30] and viewer.cursor() == 30 and viewer.span.value == (0, 30)
    write(path, [line(40)], 'a')
    viewer.look.click()
    assert viewer.cursor() == 40 and viewer.span.value == (0, 40)  # at the end: stays at the end
    viewer.player.index, viewer.span.value = 1, (0, 30)
    write(path, [line(50)], 'a')
    viewer.look.click()
    assert viewer.cursor() == 20 and viewer.span.value == (0, 30) and viewer.span.max == 50  # elsewhere: stays there
    path.unlink()
    viewer.look.click()
    assert 'waits for' in viewer.status['run'].value and viewer.n_frames == 1
    write(path, run_of(2))
    viewer.look.click()
    assert viewer.points.tolist() == [10, 20]


def test_one_damaged_run_hides_no_other(tmp_path):
    for name in 'ab':
        write(tmp_path/name/'metrics.jsonl', run_of(3))
    viewer = TrainingMonitor.from_folders(tmp_path/'a', tmp_path/'b', follow=False)
    with open(tmp_path/'a'/'metrics.jsonl', 'a') as f:
        f.write('garbage\n{"iteration": 40}\n')
    write(tmp_path/'b'/'metrics.jsonl', [line(40)], 'a')
    viewer.refresh()
    assert 'line 4 is' in viewer.status['a'].value and 'iteration 40' in viewer.status['b'].value and not viewer.problem


def test_following(tmp_path):
    "A task looks, the toggle stops it, and an error that ends it is told."
    async def story():
        viewer = TrainingMonitor.from_folders(tmp_path/'run')
        viewer.every = .01
        assert viewer.task and viewer.follow.value
        await asyncio.sleep(0)
        viewer.follow.value = False
        assert viewer.task is None
        viewer.follow.value = True
        write(tmp_path/'run'/'metrics.jsonl', run_of(3))
        while len(viewer.points) < 3:
            await asyncio.sleep(.01)
        first = viewer.task
        viewer.follow.value = False
        await asyncio.wait([first])
        write(tmp_path/'run'/'metrics.jsonl', [line(40)], 'a')
        await asyncio.sleep(.05)
        assert first.cancelled() and len(viewer.points) == 3 and viewer.notice.value == ''
        viewer.follow.value = True
        while len(viewer.points) < 4:
            await asyncio.sleep(.01)
        def fail(): return 1/0
        viewer.runs['run'].read = fail
        while viewer.follow.value:
            await asyncio.sleep(.01)
        assert 'ZeroDivisionError' in viewer.notice.value and viewer.task is None
    asyncio.run(story())


def test_closing_stops_following(tmp_path):
    async def story():
        viewer = TrainingMonitor.from_folders(tmp_path/'run')
        task = viewer.task
        viewer.close()
        await asyncio.wait([task])
        assert task.cancelled()
    asyncio.run(story())


async def wait_until(viewer, name, what, process, seconds=240):
    "Wait until the monitor says this of a run; the lines that it shows only grow."
    begin, seen = time.monotonic(), []
    while what not in viewer.stands(name):
        seen.append(len(viewer.points))
        passed = time.monotonic() - begin
        runs = process.poll() is None or passed < 200
        assert runs and passed < seconds, viewer.stands(name)
        await asyncio.sleep(.05)
    assert seen == sorted(seen)


@pytest.mark.slow
def test_a_real_training_is_followed_to_its_end(tmp_path):
    "Stopped by a signal, resumed, finished: the monitor that waited for the folder says each."
    cfg = tiny(
        make_walkers(tmp_path/'walkers'), total_iter=200, log_iter=5, save_iter=200, restore_hint='latest',
        with_test=True)
    run = Run(cfg, tmp_path/'output')
    words = [
        sys.executable, '-m', 'skeletongait.main', f'--cfgs={write_config(cfg, tmp_path/"x.yaml")}', '--phase=train']
    without = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'PYTHONPATH')
    env = {k: v for k, v in os.environ.items() if k not in without} | {'OMP_NUM_THREADS': '1'}
    def start(out): return subprocess.Popen(words, cwd=tmp_path, env=env, stdout=out, stderr=out)
    def until(viewer, what, process): return wait_until(viewer, run.name, what, process)

    async def story():
        viewer = TrainingMonitor.from_folders(run.folder)
        viewer.stop()
        viewer.every = .1
        viewer.start()
        assert viewer.stands(run.name).startswith('waits for')
        with open(tmp_path/'out.txt', 'w') as out:
            process = start(out)
            await until(viewer, 'it/s', process)
            while len(viewer.points) < 4:
                await asyncio.sleep(.02)
            process.send_signal(signal.SIGTERM)
            await until(viewer, 'stopped 2', process)
            process.wait(60)
            stopped = viewer.runs[run.name].records[-1]['iteration']
            process = start(out)
            await until(viewer, 'finished', process)
            assert process.wait(60) == 0
        while not viewer.tests.value:
            await asyncio.sleep(.05)
        await asyncio.sleep(.3)
        assert viewer.runs[run.name].records == read_metrics(run.metrics) and viewer.notice.value == ''
        assert not viewer.runs[run.name].problem
        assert viewer.points.tolist() == list(range(5, 201, 5)) and viewer.runs[run.name].total == 200
        assert ('stopped', stopped) in viewer.curves[run.name].events
        assert ('resumed', stopped) in viewer.curves[run.name].events
        viewer.close()
    asyncio.run(story())


# What strangers' files hold

def test_names_are_no_formulas():
    "A $ in a run's or a value's name is shown, not typeset."
    records = [o | dict(values=o['values'] | {r'$\x$/loss': 1.}) for o in run_of(5)]
    viewer = TrainingMonitor({r'a$\frac$': records, '$b$': run_of(3)})
    assert not viewer.problem and pixels(viewer).shape[2] in (3, 4)
    viewer.figure()


def test_settings_that_were_half_written_are_read_again(tmp_path):
    write(tmp_path/'metrics.jsonl', run_of(3))
    (tmp_path/'config.yaml').write_text('trainer_cfg: {total_')
    run = RunFolder(tmp_path)
    assert run.read() and 'config.yaml' in run.problem and len(run.records) == 3
    assert not run.read()
    (tmp_path/'config.yaml').write_text('trainer_cfg: {total_iter: 70}')
    assert run.read() and run.problem == '' and run.total == 70 and not run.read()


@pytest.mark.parametrize('seconds', [float('nan'), float('inf'), 10**400, 1e301])
def test_times_that_are_none(seconds):
    assert 'expected a number' in TrainingMonitor({'a': [line(10, seconds=seconds)]}).problem


@pytest.mark.parametrize('seconds', [1e15, 1e-300, -1., 0])
def test_strange_times_end_no_monitor(seconds):
    viewer = TrainingMonitor({'a': [line(10, seconds=seconds)]}, {'a': 10**9})
    assert not viewer.problem and 'iteration 10 of 1,000,000,000' in viewer.status['a'].value


def test_brackets_without_end_are_no_record(tmp_path):
    (tmp_path/'metrics.jsonl').write_text(json.dumps(line(10)) + '\n' + '['*100_000)
    assert [o['iteration'] for o in read_metrics(tmp_path/'metrics.jsonl')] == [10]


def test_range_begins_anew_with_the_run(tmp_path):
    write(tmp_path/'metrics.jsonl', run_of(40))
    viewer = TrainingMonitor.from_folders(tmp_path, follow=False)
    viewer.span.value = 200, 400
    write(tmp_path/'metrics.jsonl', run_of(4))
    viewer.refresh()
    assert viewer.span.value == (0, 40)
