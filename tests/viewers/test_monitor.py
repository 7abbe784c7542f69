"The training monitor: its picture, its words, and following a run that trains."
import asyncio
import io
import os
import signal
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, strategies as st
from toys import make_walkers, tiny, write_config

from skeletongait.runs.folder import Run
from skeletongait.core import SkeletonGaitError
from skeletongait.viewers.live import check_records
from skeletongait.viewers.monitor import (
    DASHES, MOST_POINTS, RECENT, TrainingMonitor, averaged, curves_of, plot_runs, style)
from skeletongait.runs.records import read_metrics
from records import event, line, run_of, test, write_records as write


def pixels(viewer): return (plt.imread(io.BytesIO(viewer.image.value))*255).round().astype(np.uint8)


def seen(viewer, name='run'):
    "The iterations of a run's curves."
    return viewer.curves[name].x.tolist()


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


def test_runs_differ_without_colour():
    looks = [style(k) for k in range(56)]
    assert len({*looks}) == 56 and len({(o.dash, o.marker) for o in looks[:8]}) == 8
    assert all(style(k).dash in DASHES for k in range(99))


# The picture

def test_a_loss_that_was_no_number():
    c = curves_of([line(10), line(20, values={'triplet/loss': None})])
    assert np.isnan(c.values['triplet/loss'][1]) and np.isnan(c.values['softmax/loss'][1]) and c.x.tolist() == [10, 20]
    viewer = TrainingMonitor({'a': [line(20, values={'triplet/loss': None}, lr=None, throughput=None, data=None)]})
    assert not viewer.problem and not viewer.notice.value


def plotted(records):
    "The axes of one run, by their titles."
    fig = plot_runs({'a': curves_of(records)}, {'a': style(0)}, {'a': 'a'})
    return {ax.get_title('left'): ax for ax in fig.axes}


def test_curves_show_every_log_line():
    records = [*run_of(3000), test(30000, 50.)]
    records[1234] = line(12350, values={'triplet/loss': 99.})
    values, means = plotted(records)['triplet/loss'].lines[:2]
    x, y = values.get_data()
    assert x.tolist() == list(range(10, 30001, 10)) and y[1234] == 99  # a spike stays
    x, y = means.get_data()
    assert len(x) == MOST_POINTS and x[-1] == 30000


@given(st.lists(st.one_of(st.just(np.nan), st.floats(-100, 100)), min_size=1, max_size=1000))
def test_means_weigh_every_value_once(values):
    y = np.array(values)
    x, means = averaged(np.arange(len(y)), y)
    assert len(x) <= MOST_POINTS and x[-1] == len(y)-1 and (np.diff(x) > 0).all()
    groups = np.split(y, x[:-1]+1)
    for group, mean in zip(groups, means):
        there = group[np.isfinite(group)]
        if len(there):
            np.testing.assert_allclose(mean, there.mean(), atol=1e-9)
        else:
            assert np.isnan(mean)


def test_marks_stand_where_it_happened():
    marked = [event(20, 'saved'), event(30, 'stopped'), event(30, 'resumed')]
    panels = plotted([line(10), line(20), *marked, line(30), test(30)])
    times = panels.pop('time per iteration')
    for ax in panels.values():
        marks = {o.get_marker(): list(o.get_xdata()) for o in ax.lines if o.get_linestyle() == 'None'}
        assert marks == {'X': [30], '>': [30], '|': [20]}
    assert not [o for o in times.lines if o.get_marker() in ('X', '>', '|')]


def test_tests_stand_beside_the_curves():
    panels = plotted([line(10), test(10, 20.), line(20), test(20, None), line(30), test(30, 62.5)])
    ax = panels['test: Rank-1, %']
    assert ax.lines[0].get_xydata().tolist() == [[10, 20], [30, 62.5]]  # a test without its metric leaves none
    assert [o.get_text() for o in ax.texts] == ['62.5']
    assert len({o.get_xlim() for title, o in panels.items() if title != 'time per iteration'}) == 1


def test_time_is_split_into_its_parts():
    slow = [line(i, data=9., compute=9., other=9.) for i in range(1, 50)]
    recent = [line(i, data=.1, compute=.3, other=.2) for i in range(50, 50+RECENT)]
    bars = plotted(slow + recent)['time per iteration'].patches
    assert [o.get_x() for o in bars] == pytest.approx([0, .3, .4])
    assert [o.get_width() for o in bars] == pytest.approx([.3, .1, .2])  # compute, data, other


# The viewer

@pytest.fixture
def viewer():
    return TrainingMonitor(
        {
            'wide': [
                *run_of(8), event(80, 'stopped'), event(80, 'resumed'), *[line(i) for i in range(90, 101, 10)],
                event(100, 'saved'), test(100)], 'narrow': [line(i) for i in range(15, 76, 15)]}, {'wide': 100})


def test_names_are_text_not_html():
    bad = '<img src=x onerror=alert(1)>'
    viewer = TrainingMonitor({bad: [line(1, values={f'{bad}/loss': 1.}), test(1) | {'test': {bad: 3.}}]})
    assert '<img' not in viewer.status[bad].value and '&lt;img' in viewer.status[bad].value


def test_panels_say_their_units(viewer):
    fig = viewer.figure()
    assert [ax.get_title('left') for ax in fig.axes] == [
        'triplet/loss', 'softmax/loss', 'softmax/accuracy, 0 to 1', 'test: Rank-1, %', 'learning rate',
        'time per iteration']
    assert [ax.get_xlabel() for ax in fig.axes] == ['']*3 + ['iteration']*2 + ['seconds']


def test_a_run_with_one_line_or_events_alone():
    for records in ([line(1)], [event(0, 'stopped')], [test(5)], [line(7, values={})], []):
        viewer = TrainingMonitor({'a': records})
        assert not viewer.problem and viewer.snapshot(0).shape == (600, 960, 3)
    assert 'no records' in viewer.status['a'].value


def test_nothing_of_matplotlib_stays(viewer):
    plt.close('all')
    before = dict(plt.rcParams)
    light = viewer.picture
    with plt.rc_context({'axes.facecolor': 'black', 'text.color': 'white', 'font.size': 20}):
        viewer.take()
    assert viewer.picture is not light and (viewer.picture == light).all()
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before


def test_the_picture_can_be_kept(viewer, tmp_path):
    assert (viewer.snapshot(0) == viewer.picture).all() and viewer.n_frames == 1
    viewer.keep_name.value = str(tmp_path/'runs.png')
    viewer.keep_button.click()
    assert plt.imread(tmp_path/'runs.png').shape[2] in (3, 4) and not viewer.notice.value
    assert 'image/png' in viewer._repr_mimebundle_() and plt.get_fignums() == []
    texts = [t.get_text() for legend in viewer.figure().legends for t in legend.get_texts()]
    assert texts[0].startswith('wide: iteration 100 of 100, finished') and {'saved', 'stopped', 'resumed'} < {*texts}


# Live

def test_nothing_is_followed_without_a_loop(tmp_path):
    viewer = TrainingMonitor.from_folders(tmp_path/'run')
    assert viewer.task is None and not viewer.follow.value and 'no event loop' in viewer.notice.value
    assert TrainingMonitor.from_folders(tmp_path/'run', follow=False).notice.value == ''


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
        assert seen(viewer) == [10, 20, 30, 40] and viewer.curves['run'].tests and viewer.task is None
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
    assert 'waiting for' in viewer.status['run'].value and 'does not exist' not in viewer.status['run'].value
    write(tmp_path/'run'/'metrics.jsonl', run_of(1))
    viewer.refresh()
    assert viewer.image.layout.display is None


def test_refresh_reads_what_is_new(tmp_path):
    viewer = TrainingMonitor.from_folders(tmp_path/'run', follow=False)
    assert 'waiting for' in viewer.status['run'].value and viewer.image.layout.display == 'none'
    path = tmp_path/'run'/'metrics.jsonl'
    write(path, run_of(3))
    viewer.look.click()
    assert seen(viewer) == [10, 20, 30] and viewer.image.layout.display is None
    picture = viewer.picture
    viewer.look.click()
    assert viewer.picture is picture  # nothing is new, nothing is plotted
    write(path, [line(40)], 'a')
    viewer.look.click()
    assert seen(viewer) == [10, 20, 30, 40] and (viewer.picture != picture).any()
    assert (pixels(viewer) == viewer.picture).all()
    path.unlink()
    viewer.look.click()
    assert 'waiting for' in viewer.status['run'].value and viewer.image.layout.display == 'none'
    write(path, run_of(2))
    viewer.look.click()
    assert seen(viewer) == [10, 20]


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
        while len(seen(viewer)) < 3:
            await asyncio.sleep(.01)
        first = viewer.task
        viewer.follow.value = False
        await asyncio.wait([first])
        write(tmp_path/'run'/'metrics.jsonl', [line(40)], 'a')
        await asyncio.sleep(.05)
        assert first.cancelled() and len(seen(viewer)) == 3 and viewer.notice.value == ''
        viewer.follow.value = True
        while len(seen(viewer)) < 4:
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
    begin, lengths = time.monotonic(), []
    while what not in viewer.status_words(name):
        lengths.append(len(seen(viewer, name)))
        passed = time.monotonic() - begin
        runs = process.poll() is None or passed < 200
        assert runs and passed < seconds, viewer.status_words(name)
        await asyncio.sleep(.05)
    assert lengths == sorted(lengths)


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
        assert viewer.status_words(run.name).startswith('waiting for')
        with open(tmp_path/'out.txt', 'w') as out:
            process = start(out)
            await until(viewer, 'it/s', process)
            while len(seen(viewer, run.name)) < 4:
                await asyncio.sleep(.02)
            process.send_signal(signal.SIGTERM)
            await until(viewer, 'stopped 2', process)
            process.wait(60)
            stopped = viewer.runs[run.name].records[-1]['iteration']
            process = start(out)
            await until(viewer, 'finished', process)
            assert process.wait(60) == 0
        while not viewer.curves[run.name].tests:
            await asyncio.sleep(.05)
        await asyncio.sleep(.3)
        assert viewer.runs[run.name].records == read_metrics(run.metrics) and viewer.notice.value == ''
        assert not viewer.runs[run.name].problem
        assert seen(viewer, run.name) == list(range(5, 201, 5)) and viewer.runs[run.name].total == 200
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


@pytest.mark.parametrize('seconds', [float('nan'), float('inf'), 10**400, 1e301])
def test_times_that_are_none(seconds):
    assert 'expected a number' in TrainingMonitor({'a': [line(10, seconds=seconds)]}).problem


@pytest.mark.parametrize('seconds', [1e15, 1e-300, -1., 0])
def test_strange_times_end_no_monitor(seconds):
    viewer = TrainingMonitor({'a': [line(10, seconds=seconds)]}, {'a': 10**9})
    assert not viewer.problem and 'iteration 10 of 1,000,000,000' in viewer.status['a'].value
