"Watching a run: averages and records equal those of an undisturbed run, and the batch of a non-finite loss is saved."
import contextlib
import errno
import io
import json
import logging
import math
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from processes import namespace

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from skeletongait.runs.folder import Run
from skeletongait.runs.config import load_config
from skeletongait.core import SkeletonGaitError
from skeletongait.data.loader import Batch
from skeletongait.distributed import Ranks
from skeletongait.core import log
from skeletongait.runs.metrics import BarFile, Meter, Reading, log_line, start_log
from skeletongait.runs.watch import Watch, _Events, batch_picture, load_batch, read_scalars, save_batch
from skeletongait.runs.records import Records, read_metrics, rewind_metrics

FIRST, SECOND = Ranks(0, 2, 0), Ranks(1, 2, 1)
READING = Reading({'triplet/loss': .5, 'softmax/loss': 2., 'softmax/accuracy': .25}, .5, .1, .375, .025, 10)

@pytest.fixture
def cfg():
    c, _ = load_config('demo_skeletongait')
    c.trainer_cfg.total_iter = 100
    return c

@pytest.fixture
def run(cfg, tmp_path): return Run(cfg, tmp_path)

def metrics(run): return read_metrics(run.folder/'metrics.jsonl')
def batch(n=3, s=5, c=3, h=64, w=44, packed=False, strings=False, floats=False):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, s, c, h, w), dtype=np.uint8))
    if floats:
        x = x.float()/255
    names = [f'{i:03d}-nm-090' for i in range(n)]
    return Batch(x.flatten(0, 1)[None] if packed else x, [s]*n if packed else None,
                 [f'{i:03d}' for i in range(n)] if strings else torch.arange(n), ['nm']*n, ['090']*n, names, 7)
def same(a, b):
    return all(torch.equal(u, v) if isinstance(u, torch.Tensor) else u == v for u, v in zip(a, b, strict=True))
def images(run):
    return EventAccumulator(str(run.folder/'summary'), size_guidance={'images': 0}).Reload().Images('batch')

# Meter

def test_averages():
    meter = Meter()
    for v in (1., 3.):
        meter.add({'x': torch.tensor([v, v+2])}, .5, .25)
    r = meter.read()
    assert (r.values, r.data, r.compute, r.other, r.n) == ({'x': 3.}, .5, .25, 0., 2) and r.seconds > 0
    meter.add({'y': torch.tensor(5)}, 0., 0.)
    assert meter.read().values == {'y': 5.} # begun anew, whole numbers too

@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), st.data())
def test_a_resumed_meter_equals_an_undisturbed_one(values, data):
    stops = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    infos = [{'a/loss': torch.tensor([v, v/3, 1/7]), 'b': torch.tensor(v, dtype=torch.float16)} for v in values]
    whole, part = Meter(), Meter()
    for k, info in enumerate(infos):
        for _ in range(stops.count(k)):
            file = io.BytesIO()
            torch.save(part.state(), file)
            file.seek(0)
            part = Meter()
            part.load(torch.load(file, weights_only=True))
        whole.add(info, 0., 0.)
        part.add(info, 0., 0.)
    assert json.dumps(part.state()) == json.dumps(whole.state()) # as text, where NaN equals itself
    a, b = whole.read(), part.read()
    assert json.dumps(a.values) == json.dumps(b.values) and a.n == b.n == len(values)

def test_a_meters_state_is_plain():
    meter = Meter()
    meter.add({'x': torch.ones(3, requires_grad=True)}, .1, .1)
    assert meter.state() == {'n': 1, 'sums': {'x': 1.}} and type(meter.state()['sums']['x']) is float
    assert type(meter.state()['n']) is int
    meter.load(None)
    assert meter.state() == {'n': 0, 'sums': {}}

def test_times_are_those_of_this_process():
    meter = Meter()
    meter.load({'n': 9, 'sums': {'x': 9.}})
    meter.add({'x': torch.tensor(11.)}, .5, .25)
    r = meter.read()
    assert (r.values, r.n, r.data, r.compute) == ({'x': 2.}, 10, .5, .25)

def test_paused_time_is_not_counted(monkeypatch):
    now = [0.]
    monkeypatch.setattr(time, 'perf_counter', lambda: now[0])
    meter = Meter()
    for _ in range(4):
        now[0] += 10
        meter.add({}, 2., 5.) # 2 waiting, 5 computing, 3 other
        with contextlib.suppress(KeyError), meter.pause():
            now[0] += 100
            raise KeyError # also when it ends in an error
    assert meter.read()[1:] == (10., 2., 5., 3., 4)

# Log

def test_log_line():
    text = log_line(40, 100, READING, .05, 16)
    assert text == ('iteration 40/100  triplet/loss 0.5  softmax/loss 2  softmax/accuracy 0.25  lr 0.05  0.500 '
                    's/it (data 0.100, compute 0.375, other 0.025)  32 sequences/s  ETA 0:00:30')

@pytest.mark.parametrize('r', [FIRST, SECOND])
def test_start_log(run, r, capsys):
    before = log.handlers[:]
    try:
        start_log(run, r, True)
        log.info('of interest')
        log.warning('of importance')
        for h in log.handlers:
            h.flush()
        files = list((run.folder/'logs').glob('*.txt')) if r.rank == 0 else []
        assert len(files) == (r.rank == 0) and (run.folder/'logs').exists() == (r.rank == 0)
        if files:
            lines = files[0].read_text().splitlines()
            assert [line.split('] ')[1] for line in lines] == ['of interest', 'of importance']
        assert ('of interest' in capsys.readouterr().out) == (r.rank == 0)
    finally:
        for h in log.handlers:
            h.close()
        log.handlers = before
        log.setLevel(logging.NOTSET)

# Watch

def test_everything_a_watch_writes(cfg, run, caplog):
    caplog.set_level(logging.INFO, 'skeletongait')
    with Watch(run, cfg, FIRST, 0) as watch:
        watch.pictures(0, batch())
        for _ in range(10):
            watch.step()
        watch.tell(10, READING, .1, 16)
        assert watch.bar.n == 10 and watch.bar.postfix == 'triplet/loss 0.5  softmax/loss 2'
        watch.note('saved', 10, file='demo-00010.pt')
        watch.results(10, {'Rank-1': 50, 'mAP': 40.5, 'mINP': float('nan'), 'probes': None, 'cmc': [1, 2], 'ok': True,
                           'csv': 'a,b'}, ('Rank-1', 50))
        assert len(metrics(run)) == 3 # on the disk as soon as written
    lines = metrics(run)
    times = [line.pop('time') for line in lines]
    assert times == sorted(times) and len(times[0]) == 19
    assert lines == [dict(iteration=10, values=READING.values, lr=.1, seconds=.5, data=.1, compute=.375, other=.025,
                          throughput=32., n=10),
                     dict(iteration=10, event='saved', file='demo-00010.pt'),
                     dict(iteration=10, test={'Rank-1': 50., 'mAP': 40.5, 'mINP': None},
                          headline=dict(name='Rank-1', value=50))]
    scalars = read_scalars(run.folder/'summary')
    names = {*READING.values, 'learning_rate', 'seconds/data', 'seconds/compute', 'seconds/other', 'throughput',
             'test/Rank-1', 'test/mAP', 'test/mINP'}
    assert scalars.keys() == names
    assert all(iterations == [10] for iterations, _ in scalars.values())
    assert scalars['throughput'][1] == [32.] and scalars['seconds/compute'][1] == [.375]
    assert scalars['test/mAP'][1] == [40.5]
    picture, = images(run)
    assert picture.step == 0
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8),
                                               cv2.IMREAD_GRAYSCALE), batch_picture(batch()))
    assert [r.message for r in caplog.records] == [log_line(10, 100, READING, .1, 16)]

def test_other_ranks_do_nothing(cfg, run, capsys, caplog):
    caplog.set_level(logging.INFO, 'skeletongait')
    with Watch(run, cfg, SECOND, 5) as watch:
        watch.step()
        watch.tell(6, READING, .1, 16)
        watch.pictures(6, None)
        watch.results(6, None, None)
        watch.note('saved', 6)
    assert not run.folder.exists() and not caplog.records and capsys.readouterr() == ('', '')

def tell_until(watch, first, last):
    for i in range(first, last+1):
        watch.step()
        if i % 5 == 0:
            watch.tell(i, READING._replace(values={'loss': 1/i}), .1, 16)
            watch.note('saved', i)

def without_times(run): return [{k: v for k, v in m.items() if k != 'time'} for m in metrics(run)]

@pytest.mark.parametrize('stop,resume', [(20, 20), (23, 20), (24, 23), (99, 5), (7, 3), (20, 1)])
def test_a_resumed_run_leaves_the_records_of_an_undisturbed_one(cfg, tmp_path, stop, resume):
    whole, parts = Run(cfg, tmp_path/'a'), Run(cfg, tmp_path/'b')
    with Watch(whole, cfg, FIRST, 0) as watch:
        tell_until(watch, 1, 100)
    with pytest.raises(RuntimeError), Watch(parts, cfg, FIRST, 0) as watch:
        tell_until(watch, 1, stop)
        raise RuntimeError('dies')
    with open(parts.folder/'metrics.jsonl', 'a') as f:
        f.write('{"iteration": 25, "val') # in the middle of a line
    with Watch(parts, cfg, FIRST, resume) as watch:
        assert (watch.bar.initial, watch.bar.n, watch.bar.total) == (resume, resume, 100)
        tell_until(watch, resume+1, 100)
    assert without_times(parts) == without_times(whole) and len(without_times(whole)) == 40
    assert read_scalars(parts.folder/'summary') == read_scalars(whole.folder/'summary')
    assert not [f for f in parts.folder.iterdir() if f.name.startswith('.')]

def test_a_new_run_keeps_no_records(cfg, run):
    for _ in range(2):
        with Watch(run, cfg, FIRST, 0) as watch:
            watch.note('started', 0)
            tell_until(watch, 1, 10)
    assert [m['iteration'] for m in metrics(run)] == [0, 5, 5, 10, 10]

def test_rate_and_eta_after_a_resume(cfg, run):
    "2 seconds an iteration from the 50th on, 40 of 100 still to go: 80 seconds, whatever the time of a test between."
    with Watch(run, cfg, FIRST, 50) as watch:
        now = [0.]
        watch.bar._time = lambda: now[0]
        watch.bar.start_t = watch.bar.last_print_t = 0.
        for i in range(10):
            now[0] += 2
            watch.step()
            if i == 5:
                now[0] += 1000
                watch.results(56, {}, ('Rank-1', None))
        text = str(watch.bar)
        assert '60/100' in text and '<01:20' in text and '2.00s/ it' in text, text

@given(st.integers(0, 400))
@settings(max_examples=60)
def test_a_file_cut_anywhere_is_read_up_to_there(tmp_path_factory, cut):
    f = tmp_path_factory.mktemp('m')/'metrics.jsonl'
    lines = [json.dumps(dict(iteration=i, values={'Größe': i/3})) for i in range(1, 9)]
    whole = '\n'.join(lines).encode() + b'\n'
    f.write_bytes(whole[:cut])
    n = sum(len('\n'.join(lines[:k+1])) <= cut for k in range(8)) # a line is whole with its last brace
    assert read_metrics(f) == [json.loads(o) for o in lines[:n]]
    rewind_metrics(f, 5)
    assert f.read_bytes() == whole[:len('\n'.join(lines[:min(n, 5)]))+1 if n else 0]
    before = f.stat().st_ino
    rewind_metrics(f, 5)
    assert f.stat().st_ino == before # nothing to do: nothing written

@pytest.mark.parametrize('bad', ['{"iteration"', '[1]', '{"time": 1}', '{"iteration": "3"}', 'NULL', '\0\0\0'])
def test_metrics_damaged_in_the_middle(tmp_path, bad):
    f = tmp_path/'metrics.jsonl'
    f.write_text('{"iteration": 1}\n' + bad + '\n{"iteration": 3}\n')
    for act in (read_metrics, lambda p: rewind_metrics(p, 2)):
        with pytest.raises(SkeletonGaitError, match='line 2 is .* remove the line') as e:
            act(f)
        assert str(f) in str(e.value) and '\n' not in str(e.value)
    f.write_text('{"iteration": 1}\n' + bad)
    assert read_metrics(f) == [{'iteration': 1}]

def test_missing_metrics(tmp_path):
    with pytest.raises(SkeletonGaitError, match='nowhere.jsonl: cannot be read'):
        read_metrics(tmp_path/'nowhere.jsonl')
    rewind_metrics(tmp_path/'nowhere.jsonl', 3)
    assert not list(tmp_path.iterdir())

def test_non_finite_numbers_are_null_in_strict_json(cfg, run):
    with Watch(run, cfg, FIRST, 0) as watch:
        watch.tell(1, READING._replace(values={'a': math.nan, 'b': math.inf, 'c': 1.}), .1, 16)
    line, = (run.folder/'metrics.jsonl').read_text().splitlines()
    def refuse(word): raise AssertionError(word)
    assert json.loads(line, parse_constant=refuse)['values'] == {'a': None, 'b': None, 'c': 1.}

# A full disk

class SmallDisk:
    "A file on a disk with room for `room` more bytes."
    def __init__(self, file, room=0, error=errno.ENOSPC): self.file, self.room, self.error = file, room, error
    def __getattr__(self, name): return getattr(self.file, name)
    def write(self, b):
        if not self.room: raise OSError(self.error, os.strerror(self.error))
        n = self.file.write(b[:self.room])
        self.room -= n
        return n

@given(st.integers(0, 60), st.integers(0, 7), st.integers(0, 7))
def test_records_are_whole_or_missing(tmp_path_factory, room, full, again):
    path = tmp_path_factory.mktemp('r')/'f'
    path.write_bytes(b'was there\n')
    records, expected = Records(path), b'was there\n'
    for k in range(8):
        record = b'%d' % k*(k + 3) + b'\n'
        if k == full:
            records.file = SmallDisk(records.file, room)
        if k == again and k > full:
            records.file.room = 10**6
        try:
            records.write(record)
            expected += record
        except OSError:
            pass
        assert path.read_bytes().startswith(expected)
    records.close()
    assert path.read_bytes() == expected and records.file.closed

def test_a_full_disk_does_not_end_a_run(cfg, run, caplog):
    caplog.set_level(logging.WARNING, 'skeletongait')
    with Watch(run, cfg, FIRST, 0) as watch:
        tell_until(watch, 1, 10)
        watch.metrics.file, watch.events.file.file = disks = SmallDisk(watch.metrics.file,
            30), SmallDisk(watch.events.file.file, 70)
        tell_until(watch, 11, 25)
        watch.pictures(25, batch())
        watch.results(25, {'Rank-1': 50.}, ('Rank-1', 50.))
        watch.note('saved', 25)
        assert watch.bar.n == 25 and [m['iteration'] for m in metrics(run)] == [5, 5, 10, 10]
        for d in disks:
            d.room = 10**7
        tell_until(watch, 26, 40)
        watch.pictures(40, batch())
        for d in disks:
            d.room = 20
        tell_until(watch, 41, 45) # at the end it is full again
    told = [5, 10, 30, 35, 40]
    assert [m['iteration'] for m in metrics(run)] == [i for i in told for _ in range(2)]
    assert (run.folder/'metrics.jsonl').read_bytes()[-2:] == b'}\n'
    assert read_scalars(run.folder/'summary')['loss'] == (told, pytest.approx([1/i for i in told]))
    assert [e.step for e in images(run)] == [40]
    assert sorted(r.message for r in caplog.records) == [f'{run.folder/f}: cannot be written (No space left on '
                                                         'device); training continues; the records of these '
                                                         'iterations are lost'
                                                         for f in ('metrics.jsonl', 'summary')] # once each

def test_an_error_while_closing_is_a_warning(cfg, run, caplog):
    with Watch(run, cfg, FIRST, 0) as watch:
        watch.note('started', 0)
        def refuse(): raise OSError(errno.EDQUOT, 'Disk quota exceeded')
        watch.events.file.file = disk = SmallDisk(watch.events.file.file)
        disk.close = refuse
    assert [r.message.split('; ')[0]
            for r in caplog.records] == [f"{run.folder/'summary'}: cannot be written (Disk quota exceeded)"]
    assert watch.metrics.file.closed
    disk.file.close()

@pytest.mark.parametrize('what', ['folder', 'metrics', 'summary', 'full'])
def test_an_error_while_opening_is_an_error(cfg, run, monkeypatch, what):
    path = dict(folder=run.folder, metrics=run.folder/'metrics.jsonl', summary=run.folder/'summary',
                full=run.folder)[what]
    if what == 'full':
        monkeypatch.setattr(Records, 'write',
                            lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, 'No space left on device')))
    elif what == 'metrics':
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('in the way')
    with pytest.raises(SkeletonGaitError,
                       match='expected a folder with room for the records of a run') as e, Watch(run, cfg, FIRST, 0):
        pass
    assert str(e.value).startswith(f'{path}: cannot be written (') and '\n' not in str(e.value)

def test_a_log_that_cannot_be_written_is_reported_once(run, capsys):
    before = log.handlers[:]
    try:
        start_log(run, FIRST, True)
        for h in log.handlers:
            h.setLevel(logging.INFO)
        console, file = log.handlers
        whole, file.stream = file.stream, type('Full', (),
                                               dict(write=lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC,
                                                   'No space left on device')), flush=lambda _: None))()
        for k in range(3):
            log.info(f'line {k}')
        file.stream = whole
        log.info('line 3')
        out, err = capsys.readouterr()
        assert err == f'{file.baseFilename}: No space left on device; lines of the log are lost\n'
        assert out.count('line') == 4
        assert Path(file.baseFilename).read_text().split('] ')[1:] == ['line 3\n']
    finally:
        for h in log.handlers:
            h.close()
        log.handlers = before
        log.setLevel(logging.NOTSET)

def test_a_bar_that_cannot_be_drawn():
    full = SmallDisk(io.StringIO())
    bar = BarFile(full)
    bar.write('x')
    bar.flush()
    assert bar == full and bar != io.StringIO()

def test_events_are_tensorboards(tmp_path):
    "Several files of one second and process are read in order; each ends where the next one starts."
    for start in (0, 3, 2):
        events = _Events(tmp_path, start)
        for i in range(max(start, 1), 5):
            events.scalars(i, {'a/b c@d': 10*start + i, 'nan': math.nan})
        events.close()
    assert read_scalars(tmp_path)['a/b c@d'] == ([1, 2, 3, 4], [1., 22., 23., 24.])

SCRIPT = """
import logging, sys
from skeletongait.runs.folder import Run
from skeletongait.runs.config import load_config
from skeletongait.distributed import Ranks
from skeletongait.core import log
from skeletongait.runs.metrics import Reading, start_log
from skeletongait.runs.watch import Watch
cfg, _ = load_config('demo_skeletongait'); cfg.trainer_cfg.total_iter = 400
run, one = Run(cfg, 'disk'), Ranks(0, 1, 0)
start_log(run, one, True)
with Watch(run, cfg, one, 0) as watch:
    for i in range(1, 401):
        if i == 200: open('full', 'w').close(); input()
        watch.step(); watch.tell(i, Reading({f'value {k}': i/3 for k in range(20)}, .5, .1, .3, .1, 10), .1, 8)
print('trained')
"""

def test_a_really_full_disk(tmp_path):
    "With records, log file and the process's own output on it."
    words = namespace()
    if words is None:
        pytest.skip('neither user namespaces nor root: no small disk can be mounted')
    (tmp_path/'disk').mkdir()
    (tmp_path/'script.py').write_text(SCRIPT)
    shell = f"""mount -t tmpfs -o size=120k none disk || exit 99
        mkfifo go
        (while [ ! -e full ]; do sleep .1; done; cp -r disk seen; mount -o remount,size=10m disk; echo > go) &
        {sys.executable} script.py < go > disk/out 2> disk/err & child=$!
        exec 3> go; wait $child; echo $? > rc; cp -r disk after; umount disk"""
    done = subprocess.run([*words, 'sh', '-c', shell], cwd=tmp_path, env={**os.environ, 'OMP_NUM_THREADS': '1'},
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert (tmp_path/'rc').read_text() == '0\n' and 'trained' in (tmp_path/'after'/'out').read_text()
    assert 'Traceback' not in (tmp_path/'after'/'err').read_text()
    cfg, _ = load_config('demo_skeletongait')
    run = Run(cfg, tmp_path/'after')
    lines = [m['iteration'] for m in metrics(run)]
    # as long as it was full nothing, after it everything
    assert lines[0] == 1 and lines[-201:] == list(range(200, 401)) and len(lines) < 390
    assert (run.folder/'metrics.jsonl').read_text().count('\n') == len(lines)
    steps = read_scalars(run.folder/'summary')['value 0'][0]
    assert steps[0] == 1 and steps[-201:] == list(range(200, 401)) and len(steps) < 390

# Pictures

@pytest.mark.parametrize('c', [1, 2, 3])
def test_picture_is_what_the_network_sees(c):
    b = batch(n=6, c=c)
    p = batch_picture(b, sequences=4, frames=3)
    assert p.dtype == np.uint8 and p.shape == (4*(14+64), c*3*44+(c-1)*6)
    for n in range(4):
        for ch in range(c):
            for k, t in enumerate((0, 2, 4)):
                np.testing.assert_array_equal(p[n*78+14:(n+1)*78, ch*(3*44+6)+k*44:][:, :44], b.frames[n, t, ch])
    assert p[:14].max() > 100 # the name

def test_pictures_of_every_form_of_batch():
    plain = batch_picture(batch())
    for kw in (dict(packed=True), dict(floats=True), dict(packed=True, floats=True)):
        np.testing.assert_array_equal(batch_picture(batch(**kw)), plain)
    assert batch_picture(batch(n=1, s=1)).shape == (78, 3*44+12)
    assert batch_picture(batch(strings=True)).shape == plain.shape
    uneven = batch(packed=True)._replace(lengths=[9, 1, 5])
    assert batch_picture(uneven).shape == (3*78, 3*6*44+12) # a short one is filled with black
    holes = batch(floats=True)
    holes.frames[0, 0] = torch.nan
    holes.frames[0, 1] = torch.inf
    assert batch_picture(holes)[14:78, :44].max() == 0 and batch_picture(holes)[14:78, 44:88].min() == 255

# The batch that broke the loss

@pytest.mark.parametrize('kw', [{}, dict(floats=True), dict(packed=True, strings=True)])
def test_a_saved_batch_is_read_back(run, kw):
    b = batch(**kw)
    path = save_batch(run, b, 1234, 1, 'the loss is nan')
    assert path == run.folder/'nonfinite'/'1234-rank1.pt' and [f.name for f in path.parent.iterdir()] == [path.name]
    again, reason = load_batch(path)
    assert same(again, b._replace(iteration=1234)) and again.frames.dtype == b.frames.dtype
    assert reason == 'the loss is nan'

def test_only_the_batch_is_saved_not_the_tensor_it_views(run):
    large = torch.zeros(400, 5, 3, 64, 44, dtype=torch.uint8)
    assert save_batch(run, batch()._replace(frames=large[:3]), 1, 0, '').stat().st_size < 200_000

def test_files_that_are_not_saved_batches(tmp_path, run):
    whole = save_batch(run, batch(), 1, 0, 'x').read_bytes()
    f = tmp_path/'f.pt'
    with pytest.raises(SkeletonGaitError, match='no such batch'):
        load_batch(f)
    for content in (b'', b'x'*100, whole[:100], whole[:len(whole)//2], pickle.dumps(print, protocol=2)):
        f.write_bytes(content)
        with pytest.raises(SkeletonGaitError, match='f.pt: not a readable batch') as e:
            load_batch(f)
        assert '\n' not in str(e.value)
    for o, text in (([1], 'found list'), ({'model': {}}, 'found model')):
        torch.save(o, f)
        with pytest.raises(SkeletonGaitError, match=text):
            load_batch(f)
    with pytest.raises(SkeletonGaitError, match='a folder; expected a batch'):
        load_batch(tmp_path)
    torch.save({'frames': torch.zeros(1).expand(10**9)}, f)
    with pytest.raises(SkeletonGaitError,
        match='f.pt: not a readable batch .it holds a tensor of 1000000000'):
        load_batch(f)

def test_a_batch_that_cannot_be_saved(run, monkeypatch):
    (run.folder/'nonfinite'/'7-rank0.pt').mkdir(parents=True)
    def full(self, content): raise OSError(errno.ENOSPC, 'No space left on device')
    with pytest.raises(SkeletonGaitError,
                       match='7-rank0.pt: cannot be written .*; what was wrong with it: the loss is nan'):
        save_batch(run, batch(), 7, 0, 'the loss is nan')
    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(SkeletonGaitError, match=r'8-rank0.pt: cannot be written \(No space left on device\)'):
        save_batch(run, batch(), 8, 0, 'the loss is nan')
    assert [f.name for f in (run.folder/'nonfinite').iterdir()] == ['7-rank0.pt']
