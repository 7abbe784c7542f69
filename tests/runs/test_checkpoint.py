"Checkpoints are whole, run no code, and resume exactly where a run stopped."
import copy
import errno
import io
import json
import logging
import os
import pickle
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from goldens import load
from hypothesis import given, settings, strategies as st
from processes import in_namespace
from scripts import TESTS
from toys import LARGEST_SCALE, ONE, equal, saved, steps, toy, with_scale

from skeletongait.runs import folder
from skeletongait.runs.folder import Run, claim, note_best, prune, read_best
from skeletongait.runs.restore import (
    check_steps, find_checkpoint, load_optimizer, load_scheduler, read_hint, read_start, restore_state, tell_embedding,
    tell_map_changes)
from skeletongait.runs.checkpoint import (
    checkpoint_state, load_checkpoint, load_state, random_states, save_checkpoint, set_random_states)
from skeletongait.runs.misfit import describe_weights, load_weights
from skeletongait.runs.optimizers import OptimizerCfg, SchedulerCfg, make_optimizer, make_scheduler, torch_classes
from skeletongait.runs.config import config_hash
from skeletongait.runs.schema import make_config
from skeletongait.files.settings import to_dict
from skeletongait.core import SkeletonGaitError
from skeletongait.distributed import Ranks
from skeletongait.nets.models import build_model
from skeletongait.runs.trainer import make_trainer


def again(state) -> dict: return load_state(saved(state), 'x.pt')


def trainer_of(cfg, upto=0):
    trainer = make_trainer(cfg, ONE)
    steps(trainer, cfg, upto)
    return trainer


class Trained(tuple):
    "Settings, a trainer after three steps, and its checkpoint as bytes."
    def __repr__(self): return 'three steps of a toy'


@pytest.fixture(scope='module')
def trained():
    cfg = toy()
    trainer = trainer_of(cfg, 3)
    return Trained((cfg, trainer, saved(checkpoint_state(trainer, cfg, meter={'n': 3, 'sums': {'triplet/loss': .1}}))))


def fake(run, *iterations, data=b'x'):
    "Files with the names of checkpoints."
    for i in iterations:
        run.checkpoint(i).parent.mkdir(parents=True, exist_ok=True)
        run.checkpoint(i).write_bytes(data)


def fill(run, trainer, cfg, *iterations):
    "Checkpoints of these iterations, all with the current weights."
    before = trainer.iteration
    for trainer.iteration in iterations:
        save_checkpoint(run, trainer, cfg)
    trainer.iteration = before


# --- what is in it

def test_a_checkpoint_holds_what_it_promises(trained):
    cfg, trainer, data = trained
    state = torch.load(io.BytesIO(data), weights_only=True)
    assert list(state)[:4] == ['model', 'optimizer', 'scheduler', 'iteration'] and state['iteration'] == 3
    assert (state['seed'], state['world'], len(state['random']), state['embedding'], state['torch']) == (0, 1, 1,
        'embed_1', torch.__version__)
    assert make_config(state['config'])[0] == make_config(to_dict(cfg))[0] and state['config_hash'] == config_hash(cfg)
    assert state['meter'] == {'n': 3, 'sums': {'triplet/loss': .1}} and type(state['torch']) is str


def draws():
    return random.random(), random.gauss(0, 1), np.random.random(), np.random.standard_normal(), torch.rand(3).tolist()


@given(st.integers(0, 700), st.integers(0, 700), st.integers(0, 3))
@settings(max_examples=25)
def test_random_states_continue(a, b, c):
    before = random_states()
    try:
        for _ in range(a):
            random.random()
        np.random.random(b)
        torch.rand(a+1)
        for _ in range(c):
            random.gauss(0, 1)
            np.random.standard_normal()
        state = again({'model': {}, 'random': random_states()})['random']
        want = draws()
        draws()
        set_random_states(state)
        assert draws() == want
    finally:
        set_random_states(before)


# --- stop and go on

def adamw(cfg):
    cfg.optimizer_cfg.solver, cfg.optimizer_cfg.arguments = 'AdamW', dict(lr=.01, weight_decay=.01)
    cfg.scheduler_cfg.scheduler, cfg.scheduler_cfg.arguments = 'OneCycleLR', dict(max_lr=.01, total_steps=13)
    return cfg


def scaler(trainer, scaled):
    "Two good steps double the scale, which overflows at once and is halved again: as eventful as a scale can be."
    return with_scale(trainer, LARGEST_SCALE, growth_interval=2) if scaled else trainer


@pytest.mark.parametrize('name', ['demo_skeletongait', 'demo_skeletongait++'])
@pytest.mark.parametrize('change, scaled, stops',
                         [(copy.copy, False, (1, 4)), (adamw, False, (3,)), (adamw, True, (2, 5)),
                          (copy.copy, True, (3,))])
def test_stopping_changes_nothing(tmp_path, name, change, scaled, stops):
    "N steps, stop, N steps equal 2 N, in every bit of every state."
    cfg = change(toy(name, restore_hint='latest'))
    run = Run(cfg, tmp_path)
    whole = scaler(make_trainer(cfg, ONE), scaled)
    want = steps(whole, cfg, 6)
    seen = []
    for upto in (*stops, 6):
        trainer = scaler(make_trainer(cfg, ONE), scaled)
        data, path, resume = read_start(cfg, run)
        assert resume == bool(seen)
        if path:
            assert restore_state(trainer, load_state(data, path), path, cfg, ONE, resume) == {'n': trainer.iteration}
        seen += steps(trainer, cfg, upto)
        save_checkpoint(run, trainer, cfg, meter={'n': upto})
    assert equal(seen, want)
    for part in ('net', 'optimizer', 'scheduler', 'scaler'):
        assert equal(getattr(whole, part).state_dict(), getattr(trainer, part).state_dict()), part
    if scaled:
        # six steps without an overflow would have made it 8 times as large
        assert whole.scaler.get_scale() <= 2*LARGEST_SCALE
    assert trainer.iteration == 6 and run.iterations() == sorted({*stops, 6})


def test_random_layers_continue_their_draws():
    "A network with dropout: here the random states matter."
    cfg = toy()
    def make():
        trainer = make_trainer(cfg, ONE)
        trainer.net.FCs.register_forward_hook(lambda m, i, o: torch.nn.functional.dropout(o, .5))
        return trainer
    before = random_states()
    try:
        torch.manual_seed(1)
        whole = make()
        want = steps(whole, cfg, 4)
        torch.manual_seed(1)
        first = make()
        steps(first, cfg, 2)
        state = again(checkpoint_state(first, cfg))
        torch.manual_seed(5)
        second = make()
        restore_state(second, state, 'x.pt', cfg, ONE, True)
        assert equal(steps(second, cfg, 4), want[2:]) and equal(whole.net.state_dict(), second.net.state_dict())
        torch.manual_seed(5)
        other = make()
        restore_state(other, state | {'random': None}, 'x.pt', cfg, ONE, True)
        assert not equal(steps(other, cfg, 4), want[2:])
    finally:
        set_random_states(before)


ARGUMENTS = dict(StepLR=dict(step_size=2), MultiStepLR=dict(milestones=[2, 5]), ExponentialLR=dict(gamma=.9),
                 CosineAnnealingLR=dict(T_max=8), CyclicLR=dict(base_lr=.001, max_lr=.1),
                 CosineAnnealingWarmRestarts=dict(T_0=3), OneCycleLR=dict(max_lr=.1, total_steps=9))


@pytest.mark.parametrize('solver, schedule',
                         [(o, 'MultiStepLR') for o in torch_classes(OptimizerCfg()) if o != 'SparseAdam']
                         + [('SGD', o) for o in torch_classes(SchedulerCfg())])
def test_every_optimizer_and_schedule_of_torch_can_be_stopped(solver, schedule):
    def make():
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2, bias=False)
        o = make_optimizer(OptimizerCfg(solver, dict(lr=.05) | (dict(momentum=.9) if solver == 'SGD' else {})),
                           net.parameters())
        return net, o, make_scheduler(SchedulerCfg(schedule, ARGUMENTS.get(schedule, {})), o)

    def go(net, optimizer, scheduler, n):
        for _ in range(n):
            optimizer.zero_grad()
            net(torch.eye(3)).square().sum().backward()
            optimizer.step()
            scheduler.step()
    before = torch.get_rng_state()
    try:
        (whole, first, second) = (make() for _ in range(3))
    finally:
        torch.set_rng_state(before)
    go(*whole, 7)
    go(*first, 4)
    state = again(dict(model=first[0].state_dict(), optimizer=first[1].state_dict(), scheduler=first[2].state_dict()))
    second[0].load_state_dict(state['model'])
    load_optimizer(second[1], state['optimizer'], 'x.pt')
    load_scheduler(second[2], state['scheduler'], 'x.pt')
    go(*second, 3)
    for a, b in zip(whole[:2], second[:2]):
        assert equal(a.state_dict(), b.state_dict())
    assert whole[2].get_last_lr() == second[2].get_last_lr()


@pytest.mark.parametrize('world, rank', [(2, 0), (2, 1), (1, 0), (3, 1)])
def test_every_rank_gets_its_own_random_states(trained, caplog, world, rank):
    "With another number of processes they are not restored, and the log says so."
    cfg, trainer, _ = trained
    before = random_states()
    try:
        states, want = [], []
        for seed in (1, 2):
            torch.manual_seed(seed)
            states.append(random_states())
            want.append(torch.rand(2).tolist())
        torch.manual_seed(9)
        other = torch.rand(2).tolist()
        torch.manual_seed(9)
        with caplog.at_level(logging.INFO, 'skeletongait'):
            restore_state(make_trainer(cfg, ONE), again(checkpoint_state(trainer, cfg, states)), 'x.pt', cfg,
                          Ranks(rank, world, rank), True)
        assert torch.rand(2).tolist() == (want[rank] if world == 2 else other)
        assert (f'written by 2 process(es), this run has {world}' in caplog.text) == (world != 2 and rank == 0)
        assert bool(caplog.text) == (rank == 0)
    finally:
        set_random_states(before)


# --- files that are not whole

def refused(data) -> str:
    with pytest.raises(SkeletonGaitError, match=r'^x\.pt: ') as e:
        load_state(data, 'x.pt')
    assert '\n' not in str(e.value) and '\x1b' not in str(e.value) and len(str(e.value)) < 400
    return str(e.value)


@given(st.data())
@settings(max_examples=60)
def test_truncated_anywhere_is_refused(trained, o):
    data = trained[2]
    refused(data[:o.draw(st.integers(0, len(data)-1) | st.integers(len(data)-200, len(data)-1))])


@pytest.fixture(scope='module')
def small():
    state = {'model': {'w': torch.arange(40.), 'v': torch.zeros(2, dtype=torch.int64)}, 'iteration': 6,
             'config': {'a': [1, .5, 'x', None, True]}}
    return state, saved(state)


@pytest.mark.filterwarnings('ignore')
@given(st.data())
@settings(max_examples=600)
def test_a_flipped_byte_is_refused_or_harmless(small, o):
    "Anywhere in the file: names, sizes, dates, checksums, content."
    state, data = small
    i, flip = o.draw(st.integers(0, len(data)-1)), o.draw(st.integers(1, 255))
    try:
        got = load_state(data[:i] + bytes([data[i] ^ flip]) + data[i+1:], 'x.pt')
    except SkeletonGaitError:
        return
    assert equal(got, state)


@pytest.mark.filterwarnings('ignore')
@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_garbage_is_refused(data): refused(data)


@pytest.mark.filterwarnings('ignore')
@given(st.binary(max_size=100))
@settings(max_examples=100)
def test_garbage_that_begins_well_is_refused(small, data):
    refused(small[1][:200] + data)
    refused(b'PK\x03\x04' + data)


def test_a_flipped_byte_in_the_middle_of_a_weight_is_noticed(trained):
    "`torch.load` alone gives other weights without a word."
    data = trained[2]
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        info = next(o for o in z.infolist() if o.filename.endswith('data/0'))
    at = info.header_offset + 200 + info.file_size//2
    bad = data[:at] + bytes([data[at] ^ 1]) + data[at+1:]
    assert 'its checksum does not match' in refused(bad)
    assert isinstance(torch.load(io.BytesIO(bad), weights_only=True), dict)


class Evil:
    def __init__(self, marker): self.marker = marker
    def __reduce__(self): return os.mkdir, (str(self.marker),)


def repacked(data, method=zipfile.ZIP_STORED, change=lambda name, part: part, attributes=0):
    "The same archive, written by another program."
    f = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as a, zipfile.ZipFile(f, 'w', method) as b:
        for o in a.infolist():
            new = zipfile.ZipInfo(o.filename)
            new.compress_type, new.external_attr = method, attributes
            b.writestr(new, change(o.filename, a.read(o)))
    return f.getvalue()


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_evil_files_run_nothing(trained, small, tmp_path):
    marker = tmp_path/'ran'
    pickle.loads(pickle.dumps(Evil(marker)))
    assert marker.exists()
    marker.rmdir()  # it would
    state = load_state(trained[2], 'x.pt')
    for evil in ({'model': Evil(marker)}, Evil(marker), {**state, 'optimizer': Evil(marker)},
                 {**state, 'meter': [Evil(marker)]}):
        assert 'mkdir, which is neither tensor, number nor text and could run code' in refused(saved(evil))
        for protocol in (0, 2, 4):
            refused(pickle.dumps(evil, protocol))
    assert 'mkdir' in refused(repacked(small[1], change=lambda name,
                                       part: pickle.dumps(Evil(marker), 2) if name.endswith('data.pkl') else part))
    torch.save({'model': Evil(marker)}, f := io.BytesIO(), _use_new_zipfile_serialization=False)
    refused(f.getvalue())
    assert not marker.exists()


def test_archives_that_deceive(small):
    state, data = small
    assert equal(load_state(repacked(data), 'x.pt'), state)
    # a tensor larger than what is there
    refused(repacked(data, change=lambda name, part: part[:8] if name.endswith('data/0') else part))
    # torch would leave its memory as it is
    assert 'marked as a folder' in refused(repacked(data, attributes=0x10))
    bomb = repacked(data, zipfile.ZIP_DEFLATED, lambda name, part: bytes(10**7) if name.endswith('data/1') else part)
    assert 'its parts are larger than the file' in refused(bomb) and len(bomb) < 10**5


@pytest.mark.parametrize('state',
                         [[1], None, 3, {}, {'optimizer': {}}, {'model': None}, {'model': [torch.ones(2)]},
                          {'model': {'w': 3}}, {'model': {3: torch.ones(2)}}])
def test_files_that_are_not_checkpoints(state): assert 'expected a dict with model' in refused(saved(state))


def test_old_forms_load(small, monkeypatch):
    "Files of torch before 1.6 are not archives and hold no checksums."
    monkeypatch.setattr(torch, '__version__', '2.10.0') # whichever it is: this file is our own
    state, _ = small
    torch.save(state, f := io.BytesIO(), _use_new_zipfile_serialization=False)
    assert equal(load_state(f.getvalue(), 'x.pt'), state)


def test_paths_that_are_not_files(tmp_path):
    (tmp_path/'empty.pt').touch()
    (tmp_path/'folder.pt').mkdir()
    os.mkfifo(tmp_path/'pipe.pt')
    (tmp_path/'nowhere.pt').symlink_to('gone')
    for name, says in (('empty', 'the file is empty'), ('folder', 'a folder; expected'),
                       ('pipe', 'not a file; expected'), ('nowhere', 'no such checkpoint'),
                       ('missing', 'no such checkpoint')):
        with pytest.raises(SkeletonGaitError, match=f'{name}.pt: .*{says}'):
            load_checkpoint(tmp_path/f'{name}.pt')


# --- what is taken

@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_latest_skips_damaged_checkpoints(trained, tmp_path, caplog):
    cfg, trainer, data = trained
    run, cfg = Run(cfg, tmp_path), toy(restore_hint='latest')
    fill(run, trainer, cfg, 1, 2)
    bad = bytearray(data)
    bad[len(bad)//2] ^= 16
    fake(run, 3, data=bytes(bad))
    fake(run, 4, data=data[:-1])
    fake(run, 5, data=b'')
    fake(run, 7, data=pickle.dumps(Evil(tmp_path/'ran')))
    run.checkpoint(6).mkdir()
    (run.checkpoint(1).parent/f'.{run.name}-00009.pt.host-1.tmp').write_bytes(data)  # what a killed writer leaves
    content, path, resume = read_start(cfg, run)
    assert path == run.checkpoint(2) and resume and load_state(content, path)['iteration'] == 2
    assert not (tmp_path/'ran').exists()
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == 5 and all(f'{i:05d}.pt: ' in w for i, w in zip((7, 6, 5, 4, 3), warned))
    assert 'the file is empty' in warned[2]
    for i in (1, 2):
        run.checkpoint(i).write_bytes(b'')
    with pytest.raises(SkeletonGaitError,
                       match='checkpoints of the iterations 1, 2, 3, 4, 5, 6, 7, but none can be read'):
        read_start(cfg, run)


def test_latest_without_checkpoints_is_the_beginning(tmp_path, caplog):
    run = Run(toy(), tmp_path)
    with caplog.at_level(logging.INFO, 'skeletongait'):
        assert read_start(toy(restore_hint='latest'), run) == (None, None, False)
    assert 'no checkpoint yet' in caplog.text
    assert read_start(toy(restore_hint='latest'), run, restarted=True) == (None, None, False)


def test_hints(trained, tmp_path):
    cfg, trainer, data = trained
    run = Run(cfg, tmp_path)
    fill(run, trainer, cfg, 3, 6)
    (tmp_path/'x.pt').write_bytes(data)
    assert find_checkpoint(0, run) is None and find_checkpoint('latest', run) == run.checkpoint(6)
    assert find_checkpoint('x.pt', run).name == 'x.pt'
    with pytest.raises(SkeletonGaitError, match='best.json: this run has no record of its best checkpoint'):
        find_checkpoint('best', run)
    note_best(run, 3, 'Rank-1', 4.)
    starts = {0: (None, False), 3: (run.checkpoint(3), True), 'latest': (run.checkpoint(6), True),
              'best': (run.checkpoint(3), True), str(tmp_path/'x.pt'): (tmp_path/'x.pt', False)}
    for hint, want in starts.items():
        content, *got = read_start(toy(restore_hint=hint), run)
        assert tuple(got) == want and (content is None) == (want[0] is None) and read_hint(hint, run)[1] == want[0]
        # a restart goes on where the run was
        assert read_start(toy(restore_hint=hint), run, restarted=True)[1:] == (run.checkpoint(6), True)
    with pytest.raises(SkeletonGaitError, match='this run has 3, 6'):
        find_checkpoint(4, run)
    with pytest.raises(SkeletonGaitError, match='none yet'):
        find_checkpoint(4, Run(toy(save_name='other'), tmp_path))
    with pytest.raises(SkeletonGaitError, match='y.pt: no such checkpoint'):
        read_start(toy(restore_hint=str(tmp_path/'y.pt')), run)
    run.checkpoint(3).unlink()
    with pytest.raises(SkeletonGaitError, match='no record of its best checkpoint'):
        find_checkpoint('best', run)


@pytest.mark.parametrize('name', ['a[b]*', 'a.b-1', 'a b', 'ä'])
def test_names_of_files(tmp_path, name):
    run = Run(toy(save_name=name), tmp_path)
    fake(run, 3, 123456)
    for other in (f'{name}-6.pt', f'{name}-00003.txt', f'{name}-٠٠٠٠٤.pt', f'{name}x-00007.pt',
                  f'{name}-00008-00009.pt', f'{name}-000010.pt'):
        (run.folder/'checkpoints'/other).touch()
    assert run.iterations() == [3, 123456]


# --- what stays

@given(st.sets(st.integers(1, 40), max_size=12), st.integers(0, 5), st.integers(0, 40), st.none() | st.integers(0, 40))
@settings(max_examples=60)
def test_prune_keeps_the_newest_and_the_best(tmp_path_factory, iterations, keep, best, now):
    run = Run(toy(), tmp_path_factory.mktemp('prune'))
    fake(run, *iterations)
    note_best(run, best, 'Rank-1', 1.)
    gone = prune(run, keep, now)
    past = sorted(i for i in iterations if now is None or i <= now)
    stay = {i for i in iterations if i in past[-keep:] or i == best or i not in past} if keep else iterations
    assert run.iterations() == sorted(stay) and gone == sorted(iterations - stay)


def test_old_checkpoints_are_deleted_only_after_the_new_one_is_whole(trained, tmp_path, monkeypatch):
    cfg, trainer, _ = trained
    cfg = toy(keep_last=1)
    run = Run(cfg, tmp_path)
    fake(run, 1, 2)
    def torn(state, f):
        f.write(b'half')
        raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(torch, 'save', torn)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(run, trainer, cfg)
    assert run.iterations() == [1, 2] and len(os.listdir(run.folder/'checkpoints')) == 2
    fake(run, 9)                                                # of a future that this run does not have
    assert save_checkpoint(run, trainer, cfg) == run.checkpoint(3) and run.iterations() == [3, 9]


def test_a_full_disk_is_one_line_and_costs_no_checkpoint(trained, tmp_path):
    cfg, trainer, _ = trained
    cfg = toy(keep_last=1)
    run = Run(cfg, tmp_path)
    fake(run, 1)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(SkeletonGaitError,
                           match=r'00003.pt: the checkpoint cannot be written \(.*restore_hint: latest$'):
            save_checkpoint(run, trainer, cfg)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(run.folder/'checkpoints') == [run.checkpoint(1).name]


REAL = """
import os, sys
from skeletongait.runs.folder import Run, note_best
from skeletongait.runs.checkpoint import save_checkpoint
from skeletongait.core import SkeletonGaitError
from skeletongait.distributed import Ranks
from skeletongait.runs.trainer import make_trainer
from toys import toy
cfg = toy(keep_last=1)
run, trainer = Run(cfg, 'disk'), make_trainer(cfg, Ranks(0, 1, 0))
trainer.iteration = 1
save_checkpoint(run, trainer, cfg)
disk = os.statvfs('disk')
blocks = disk.f_bavail - int(sys.argv[1]) # so many are left
with open('disk/filler', 'wb', buffering=0) as f:
    f.write(bytes(blocks*disk.f_frsize))
trainer.iteration = 2
for write in (lambda: save_checkpoint(run, trainer, cfg), lambda: note_best(run, 2, 'Rank-1', 3.)):
    try:
        write()
    except SkeletonGaitError as e:
        print(e)
    assert {*os.listdir(run.folder/'checkpoints')} <= {'demo-00001.pt', 'best.json'} and run.iterations() == [1]
"""

@pytest.mark.parametrize('room', [0, 1, 7])
def test_a_really_full_disk(tmp_path, room):
    "One line, no leftover, and the earlier checkpoint stays; with some blocks left, torch fails inside an archive."
    (tmp_path/'disk').mkdir()
    (tmp_path/'real.py').write_text(REAL)
    done = in_namespace(f'mount -t tmpfs -o size=2m none disk && PYTHONPATH={TESTS} {sys.executable} real.py '
                        f'{room}; r=$?; umount disk; exit $r', tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert ('demo-00002.pt: the checkpoint cannot be written (No space left on device); the earlier checkpoints '
            'are untouched') in lines[0]
    assert len(lines) == 1 + (room == 0)
    best = 'best.json: the record of the best checkpoint cannot be written (No space left on device)'
    assert room or best in lines[1]


def test_the_cause_is_found_in_the_chain_and_other_errors_stay(trained, tmp_path, monkeypatch):
    cfg, trainer, _ = trained
    run = Run(cfg, tmp_path)
    def hidden(state, f):
        f.write(b'half')
        try:
            raise OSError(errno.EDQUOT, 'Disk quota exceeded')
        except OSError:
            raise RuntimeError('unexpected pos 64 vs 0')  # noqa: B904 (as torch raises it)
    def broken(state, f): raise RuntimeError('of another kind')
    monkeypatch.setattr(torch, 'save', hidden)
    with pytest.raises(SkeletonGaitError, match='00003.pt: .*Disk quota exceeded') as e:
        save_checkpoint(run, trainer, cfg)
    assert '\n' not in str(e.value) and os.listdir(run.folder/'checkpoints') == []
    monkeypatch.setattr(torch, 'save', broken)
    with pytest.raises(RuntimeError, match='of another kind'):
        save_checkpoint(run, trainer, cfg)
    def full(*args): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(folder, 'save_text', full)
    with pytest.raises(SkeletonGaitError, match='best.json: .*No space left'):
        note_best(run, 3, 'Rank-1', 3.)


def test_what_cannot_be_deleted_is_a_warning(tmp_path, caplog):
    run = Run(toy(), tmp_path)
    fake(run, 2, 3)
    run.checkpoint(1).mkdir()
    assert prune(run, 1) == [2] and run.iterations() == [1, 3]
    assert '00001.pt: this old checkpoint cannot be deleted' in caplog.text


values = st.none() | st.just(float('nan')) | st.integers(0, 4).map(lambda o: o*25.)

@given(st.lists(values, max_size=8))
@settings(max_examples=40)
def test_the_best_is_the_first_of_the_largest(tmp_path_factory, figures):
    run, best = Run(toy(), tmp_path_factory.mktemp('best')), None
    for i, v in enumerate(figures, 1):
        better = v is not None and v == v and (best is None or v > best[1])
        if better:
            best = i, v
        assert note_best(run, i, 'Rank-1', v) == better
    assert read_best(run) == ({} if best is None else dict(iteration=best[0], name='Rank-1', value=best[1]))
    assert run.best() is None
    if best:
        fake(run, best[0])
        assert run.best() == best[0]


def test_another_metric_starts_a_new_comparison(tmp_path):
    run = Run(toy(), tmp_path)
    assert note_best(run, 1, 'Rank-1', 90.) and note_best(run, 2, 'mAP', 50.)
    assert not note_best(run, 3, 'mAP', 50.) and read_best(run)['iteration'] == 2


@pytest.mark.parametrize('text', ['', '{', '[1]', '{"iteration": "x", "value": 3}', '{"iteration": 3}', '\udc80'])
def test_a_damaged_record_of_the_best_is_a_warning(tmp_path, caplog, text):
    run = Run(toy(), tmp_path)
    fake(run, 3)
    run.best_file.write_text(text, errors='surrogateescape')
    assert run.best() is None
    assert 'best.json: ' in caplog.text and 'no checkpoint counts as the best' in caplog.text
    assert note_best(run, 3, 'Rank-1', 1.) and run.best() == 3


# --- an earlier run in the same folder

def everything(root, skip=()):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()
            and p.relative_to(root).parts[0] not in skip}


def old_run(folder):
    "A run with every file that a run writes."
    run = Run(toy(), folder)
    fake(run, 3, 6, 9)
    for i in (3, 6, 9):
        for ending in ('.json', '.csv', '.png', '-failures.csv'):
            f = run.results(i).with_name(run.results(i).stem + ending)
            f.parent.mkdir(exist_ok=True)
            f.write_text(f'{i}{ending}')
    for f in (run.config, run.metrics, run.summary/'events', run.folder/'logs'/'a.txt',
              run.folder/'nonfinite'/'3-rank0.pt'):
        f.parent.mkdir(exist_ok=True)
        f.write_text(f.name)
    note_best(run, 6, 'Rank-1', 3.)
    return run


def test_an_earlier_run_is_set_aside_whole(tmp_path):
    run = old_run(tmp_path)
    before = everything(run.folder)
    aside = run.set_aside()
    assert everything(run.folder, [aside.name]) == {'logs/a.txt': b'a.txt'}
    assert everything(aside) == {k: v for k, v in before.items() if not k.startswith('logs')}
    assert run.set_aside() is None and run.iterations() == [] and run.best() is None
    for ask in (lambda: read_start(toy(restore_hint=str(run.checkpoint(6))), run), lambda: find_checkpoint(6, run)):
        with pytest.raises(SkeletonGaitError,
                           match=f'demo-00006.pt: no such checkpoint; it was set aside as '
                                 f'.*{aside.name}/checkpoints/demo-00006.pt'):
            ask()
    old_run(tmp_path)
    other = run.set_aside()
    # perhaps in the same second
    assert other != aside and everything(other) == everything(aside) and other.name.startswith('earlier-')


def test_going_back_moves_later_iterations_aside(tmp_path):
    run = old_run(tmp_path)
    before = everything(run.folder)
    aside = run.set_aside(beyond=3)
    copies, moved = {k: before[k] for k in ('metrics.jsonl', 'config.yaml', 'summary/events')}, everything(aside)
    assert {k for k in moved} == {*copies,
                                  'checkpoints/best.json'} | {o for i in (6, 9)
                                      for o in (f'checkpoints/demo-0000{i}.pt',
                                                *(f'results/demo-0000{i}-Walkers-gallery_probe-euc{e}'
                                                  for e in ('.json', '.csv', '.png', '-failures.csv')))}
    assert everything(run.folder, [aside.name]) | moved == before and run.iterations() == [3]
    assert run.set_aside(beyond=3) is None
    # the watch cuts the ones, the others stay
    assert everything(run.folder, [aside.name]).items() >= copies.items() <= moved.items()
    run = old_run(tmp_path/'other')
    run.set_aside(beyond=6)
    assert run.iterations() == [3, 6] and run.best() == 6


def test_a_mere_resume_copies_nothing(tmp_path):
    run = old_run(tmp_path)
    before = everything(run.folder)
    assert run.set_aside(beyond=9) is None and everything(run.folder) == before


def test_a_run_without_curves_goes_back(tmp_path):
    run = old_run(tmp_path)
    run.metrics.unlink()
    shutil.rmtree(run.summary)
    assert not {'metrics.jsonl', 'summary'} & {o.name for o in run.set_aside(beyond=3).iterdir()}


@pytest.mark.parametrize('name', ['copy2', 'copytree'])
@pytest.mark.parametrize('error, says',
                         [(KeyboardInterrupt(), None)]
                         + [(o, 'earlier-.*No space left')
                            for o in (OSError(errno.ENOSPC, 'No space left on device'),
                                      shutil.Error([('a', 'b', 'No space left on device')]))])
def test_an_interrupted_copy_moves_nothing(tmp_path, monkeypatch, name, error, says):
    "They have no final name, and the next start copies again."
    run = old_run(tmp_path)
    before = everything(run.folder)
    def cut(source, target, **kw):
        (target if name == 'copy2' else target.parent/'half').write_bytes(b'ha')
        raise error
    with monkeypatch.context() as m:
        m.setattr(shutil, name, cut)
        with pytest.raises(SkeletonGaitError if says else KeyboardInterrupt, match=says):
            run.set_aside(3)
    assert everything(run.folder, [o.name for o in run.folder.glob('.earlier-*')]) == before
    assert not [*run.folder.glob('earlier-*')]
    aside = run.set_aside(3)
    assert not [*run.folder.glob('.earlier-*')] and everything(run.folder, [aside.name]) | everything(aside) == before


@pytest.mark.parametrize('beyond', [0, 3])
@pytest.mark.parametrize('after', range(6))
def test_an_interrupted_move_is_completed(tmp_path, monkeypatch, after, beyond):
    run = old_run(tmp_path)
    before, rename, moves = everything(run.folder), os.rename, []
    def cut(self, target):
        if len(moves) == after: raise KeyboardInterrupt
        moves.append(rename(self, target))
    with monkeypatch.context() as m:
        m.setattr(type(tmp_path), 'rename', cut)
        with pytest.raises(KeyboardInterrupt):
            run.set_aside(beyond)
    if not beyond and after:
        assert run.iterations() == []   # `latest` will not take up half a run
    run.set_aside(beyond)
    assert run.iterations() == ([3] if beyond else []) and run.set_aside(beyond) is None
    kept = everything(run.folder, [f.name for f in run.folder.glob('earlier-*')])
    for f in run.folder.glob('earlier-*'):
        kept |= everything(f)
    assert kept == before


def test_a_new_run_is_not_pruned_by_an_old_one(trained, tmp_path):
    cfg, trainer, _ = trained
    cfg = toy(keep_last=2)
    run = Run(cfg, tmp_path)
    fake(run, 60000, 70000)
    run.set_aside()
    fill(run, trainer, cfg, 1, 2, 3)
    assert run.iterations() == [2, 3] and find_checkpoint('latest', run) == run.checkpoint(3)


def test_nothing_to_set_aside(tmp_path):
    run = Run(toy(), tmp_path)
    assert run.set_aside() is None and run.set_aside(7) is None and not run.folder.exists()
    (run.folder/'logs').mkdir(parents=True)
    (run.folder/'checkpoints').mkdir()
    assert run.set_aside() is None
    assert [o.name for o in run.folder.iterdir()] in (['logs', 'checkpoints'], ['checkpoints', 'logs'])


# --- one run at a time

HOLD = """
import sys
from pathlib import Path
from skeletongait.runs.folder import Run, claim
from toys import toy
with claim(Run(toy(), sys.argv[1]), 0): print('held', flush=True); sys.stdin.read()
"""

@pytest.fixture
def holder(tmp_path):
    "Another process that holds the run's folder until its input ends."
    env = os.environ | dict(PYTHONPATH=str(TESTS), OMP_NUM_THREADS='1')
    other = subprocess.Popen([sys.executable, '-c', HOLD, str(tmp_path)], env=env, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    assert other.stdout.readline() == b'held\n'
    yield other
    other.kill()
    other.wait()
    other.stdin.close()
    other.stdout.close()


def test_a_folder_in_use_is_refused(tmp_path, holder):
    run = Run(toy(), tmp_path)
    for _ in range(2):   # the refusal gives nothing up
        with pytest.raises(SkeletonGaitError,
                           match=rf'demo: in use by process {holder.pid} on {platform.node()}, since 2\d\d\d-.*; '
                                 'wait until it ends, or set another save_name or output_root$'):
            claim(run, 0)
    claim(Run(toy(save_name='other'), tmp_path), 0).close()


def test_a_killed_run_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with claim(run := Run(toy(), tmp_path), 5):
        assert (run.folder/'lock.txt').read_text().startswith(f'process {os.getpid()} on ')
    assert run.set_aside() is None and (run.folder/'lock').exists()


def test_a_claim_waits_for_its_predecessor(tmp_path, holder, caplog):
    later = threading.Timer(.5, holder.stdin.close)
    later.start()
    with caplog.at_level(logging.INFO, 'skeletongait'), claim(Run(toy(), tmp_path), 60):
        pass
    later.join()
    assert holder.wait(60) == 0 and caplog.text.count('warning: waiting for process') == 1


FORKS = """
import os, sys
from skeletongait.runs.folder import Run, claim
from toys import toy
with claim(Run(toy(), sys.argv[1]), 0):
    worker, stays = os.fork(), sys.argv[2] == 'stays'
    if not worker:
        os.write(1, b'forked\\n')
        if stays: os.read(0, 1)
        os._exit(0)
    if not stays: os.waitpid(worker, 0)
    os.write(1, b'on\\n')
    os.read(0, 1)
"""

def start_forking(folder, how):
    env = os.environ | dict(PYTHONPATH=str(TESTS), OMP_NUM_THREADS='1')
    run = subprocess.Popen([sys.executable, '-c', FORKS, str(folder), how], env=env, stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, start_new_session=True)
    assert sorted(run.stdout.readline() for _ in range(2)) == [b'forked\n', b'on\n']
    with pytest.raises(SkeletonGaitError, match='in use by process'):
        claim(Run(toy(), folder), 0)
    return run


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system does not fork')
def test_a_forked_worker_holds_no_claim(tmp_path):
    "It may live longer than the run that started it."
    run = start_forking(tmp_path, 'stays')
    run.kill()
    run.wait()
    os.killpg(run.pid, 0)                  # the worker lives
    with claim(Run(toy(), tmp_path), 5):
        pass
    run.communicate()


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system does not fork')
def test_a_forked_worker_that_ends_keeps_the_claim(tmp_path):
    run = start_forking(tmp_path, 'ends')
    run.communicate()
    with claim(Run(toy(), tmp_path), 5):
        pass


def test_a_process_may_claim_again(tmp_path):
    "As a notebook does whose cell is run twice."
    first = claim(Run(toy(), tmp_path), 0)
    with claim(Run(toy(), tmp_path), 0):
        pass
    first.close()


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog, number):
    def refuse(*args): raise OSError(number, os.strerror(number))
    for name in ('flock', 'lockf'):
        monkeypatch.setattr(f'fcntl.{name}', refuse)
    with claim(Run(toy(), tmp_path), 0):
        pass
    assert 'lock: this file system does not support locks' in caplog.text


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path/'file').touch()
    with pytest.raises(SkeletonGaitError, match='file/.*/lock: the lock cannot be written .*output_root'):
        claim(Run(toy(), tmp_path/'file'), 0)


# --- what fits, and what does not

def test_a_path_starts_at_zero(trained):
    cfg, trainer, data = trained
    cfg = toy(optimizer_reset=True, scheduler_reset=True)
    fresh = make_trainer(cfg, ONE)
    assert restore_state(fresh, load_state(data, 'x.pt'), 'x.pt', cfg, ONE, False) is None
    assert fresh.iteration == 0 and fresh.optimizer.state_dict()['state'] == {}
    assert fresh.scheduler.get_last_lr() == [.02]
    assert equal(fresh.net.state_dict(), trainer.net.state_dict())


@pytest.mark.parametrize('switches, says', [
    ({}, 'restored x.pt; training starts at iteration 0 with its optimizer and schedule (step 5, lr 0.002); set '
         'trainer_cfg.optimizer_reset and scheduler_reset: true to reset them'),
    (dict(optimizer_reset=True),
     'restored x.pt; training starts at iteration 0 with its schedule (step 5, lr 0.002); set '
     'trainer_cfg.scheduler_reset: true to reset it'),
    (dict(scheduler_reset=True),
     'restored x.pt; training starts at iteration 0 with its optimizer; set trainer_cfg.optimizer_reset: true to '
     'reset it'),
    (dict(optimizer_reset=True, scheduler_reset=True), 'restored the weights of x.pt; training starts at iteration 0')])
def test_a_path_logs_what_is_restored(caplog, switches, says):
    "And nothing else does, the loss scale included."
    cfg = toy()
    old = scaler(make_trainer(cfg, ONE), True)
    steps(old, cfg, 5)
    trainer, first = (scaler(make_trainer(cfg, ONE), True) for _ in range(2))
    with caplog.at_level(logging.INFO, 'skeletongait'):
        restore_state(trainer, again(checkpoint_state(old, cfg)), 'x.pt', toy(**switches), ONE, False)
    assert [r.getMessage() for r in caplog.records][-1] == says and trainer.iteration == 0
    for part, switch in (('optimizer', 'optimizer_reset'), ('scaler', 'optimizer_reset'),
                         ('scheduler', 'scheduler_reset')):
        new = getattr(trainer, part).state_dict()
        expected = getattr(first if switch in switches else old, part).state_dict()
        if equal(new, expected): continue
        assert part == 'optimizer', part
        assert new['param_groups'][0]['lr'] == trainer.scheduler.get_last_lr()[0]
    if len(switches) == 2:
        assert equal(trainer.optimizer.state_dict(), first.optimizer.state_dict())


@pytest.mark.parametrize('change, switch',
                         [(dict(optimizer={}), 'optimizer_reset'), (dict(scheduler={}), 'scheduler_reset'),
                          (dict(scheduler=dict(total_steps=3, last_epoch=3)), 'scheduler_reset')])
def test_states_that_do_not_fit_name_the_switch(trained, change, switch):
    cfg, _, data = trained
    state = load_state(data, 'x.pt') | change
    with pytest.raises(SkeletonGaitError, match=switch):
        restore_state(make_trainer(cfg, ONE), state, 'x.pt', cfg, ONE, True)
    trainer = make_trainer(cfg, ONE)
    restore_state(trainer, state, 'x.pt', toy(**{switch: True}), ONE, True)
    assert trainer.iteration == 3


def test_the_rate_is_the_schedules(trained):
    "If only one of optimizer and schedule is reset, the optimizer uses the rate of the schedule."
    cfg = toy(total_iter=12)
    state = again(checkpoint_state(trainer_of(cfg, 5), cfg))   # past the milestone at 4
    for switches, want in ((dict(), .002), (dict(optimizer_reset=True), .002), (dict(scheduler_reset=True), .02),
                           (dict(optimizer_reset=True, scheduler_reset=True), .02)):
        trainer = make_trainer(cfg, ONE)
        restore_state(trainer, state, 'x.pt', toy(**switches), ONE, True)
        assert trainer.optimizer.param_groups[0]['lr'] == pytest.approx(want), switches
        assert trainer.scheduler.get_last_lr() == pytest.approx([want]), switches


def test_states_of_older_torch_load(trained):
    "Published checkpoints come from versions with fewer settings."
    cfg, _, data = trained
    state = load_state(data, 'x.pt')
    for g in state['optimizer']['param_groups']:
        for k in ('maximize', 'foreach', 'differentiable', 'fused'):
            del g[k]
    state['scheduler'] = {k: v for k,
                          v in state['scheduler'].items()
                          if k in ('milestones', 'gamma', 'base_lrs', 'last_epoch', '_step_count',
                                   '_last_lr')} | {'verbose': False}
    trainer = make_trainer(cfg, ONE)
    restore_state(trainer, again({k: state[k] for k in ('model', 'optimizer', 'scheduler', 'iteration')}), 'x.pt',
                  cfg, ONE, True)
    want = steps(trainer_of(cfg, 3), cfg, 6)
    assert equal(steps(trainer, cfg, 6), want)


def test_finetuning_with_other_classes_needs_a_fresh_optimizer(trained):
    _, _, data = trained
    cfg = toy(restore_ckpt_strict=False)
    cfg.model_cfg.SeparateBNNecks.class_num = 7
    with pytest.raises(SkeletonGaitError, match='optimizer_reset'):
        restore_state(make_trainer(cfg, ONE), load_state(data, 'x.pt'), 'x.pt', cfg, ONE, False)
    cfg.trainer_cfg.optimizer_reset = True
    trainer = make_trainer(cfg, ONE)
    restore_state(trainer, load_state(data, 'x.pt'), 'x.pt', cfg, ONE, False)
    assert len(steps(trainer, cfg, 1)) == 1


def test_a_schedule_that_ends_too_soon():
    trainer = make_trainer(adamw(toy()), ONE)
    check_steps(trainer, 13)
    check_steps(make_trainer(toy(), ONE), 10**6)
    with pytest.raises(SkeletonGaitError, match='OneCycleLR is planned for 13 steps, .* set total_steps to 14 or more'):
        check_steps(trainer, 14)
    trainer.iteration = trainer.scheduler.last_epoch = 13
    with pytest.raises(SkeletonGaitError,
                       match='from iteration 13 to total_iter 20 takes it to 20.*scheduler_reset: true'):
        check_steps(trainer, 20)


strange = st.recursive(st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3)
                       | st.just(torch.ones(2)),
                       lambda o: st.lists(o, max_size=2)
                       | st.dictionaries(st.sampled_from(['state', 'param_groups', 'params', 'torch', 'scale',
                                                          'data_cfg', '0']), o, max_size=3), max_leaves=6)

@given(st.dictionaries(st.sampled_from(['optimizer', 'scheduler', 'scaler', 'random', 'iteration', 'config',
                                        'embedding', 'seed', 'meter', 'world']), strange, min_size=1, max_size=2))
@settings(max_examples=60)
def test_invalid_parts_are_one_clear_error_or_none(trained, parts):
    cfg, _, data = trained
    before, trainer = random_states(), scaler(make_trainer(cfg, ONE), True)
    try:
        restore_state(trainer, load_state(data, 'x.pt') | parts, 'x.pt', cfg, ONE, True)
    except SkeletonGaitError as e:
        assert str(e).startswith('x.pt: ') and '\n' not in str(e)
    finally:
        set_random_states(before)


# --- what the weights say

GOLDENS = ['skeletongait_tiny', 'skeletongait_tiny_2d', 'skeletongait_tiny_3d', 'skeletongait_Gait3D',
           'skeletongaitpp_tiny', 'skeletongaitpp_tiny_w48_emb2', 'skeletongaitpp_Gait3D']

@pytest.mark.parametrize('name', GOLDENS)
def test_weights_describe_themselves(name):
    "From the published names and shapes alone."
    d = load(f'model_{name}')
    made = describe_weights({f'module.{k}': torch.empty(json.loads(s), device='meta') for k,
                             s in zip(d['keys'], d['shapes'])})
    want = d['model_cfg']
    assert made['model'] == want['model'].replace('DeepGaitV2', 'SkeletonGait')
    assert made['SeparateBNNecks'] == want['SeparateBNNecks']
    assert made['Backbone'].items() >= want['Backbone'].items()


four = st.tuples(*[st.integers(1, 3)]*4).map(list)
skeletongait = st.builds(lambda b, k: dict(model='SkeletonGait', Backbone=b, SeparateBNNecks=dict(class_num=k)),
                         st.fixed_dictionaries(
    dict(in_channels=st.integers(1, 4), layers=four, channels=four, mode=st.sampled_from(['p3d', '2d', '3d']))),
    st.integers(1, 12))
skeletongait_pp = st.builds(lambda b, k: dict(model='SkeletonGaitPP', Backbone=b, SeparateBNNecks=dict(class_num=k)),
                            st.fixed_dictionaries(
    dict(in_channels=st.integers(2, 4), blocks=four, C=st.sampled_from([1/32, 1/4, 1]),
         fusion=st.sampled_from(['attention', 'CatFusion', 'PlusFusion']))), st.integers(1, 12))

@given(skeletongait | skeletongait_pp)
@settings(max_examples=25)
def test_a_description_builds_the_same_network(cfg):
    model = build_model(cfg)
    made = describe_weights(model.state_dict())
    assert made == cfg
    assert {k: v.shape for k, v in build_model(made).state_dict().items()} == {k: v.shape for k,
        v in model.state_dict().items()}


@given(skeletongait | skeletongait_pp, skeletongait | skeletongait_pp)
@settings(max_examples=40)
def test_a_misfit_says_what_to_set(then, now):
    "Following the advice makes the checkpoint fit."
    state = {'model': build_model(then).state_dict()}
    try:
        load_weights(build_model(now), state, 'x.pt')
    except SkeletonGaitError as e:
        text = str(e).split('\n')[0]
    else:
        assert then == now
        return
    if then['model'] != now['model']:
        assert f"this is a checkpoint of {then['model']}, model_cfg.model is {now['model']}" in text
        assert str(describe_weights(state['model'])['Backbone']) in text
        return
    for section in ('Backbone', 'SeparateBNNecks'):
        for k, v in then[section].items():
            assert (f'model_cfg.{section}.{k} is {now[section][k]}: set it to {v}' in text) == (v != now[section][k])


def old_head(state, width):
    "A checkpoint of an earlier version: its embedding is `width` wide, whatever the third stage."
    model = {k: v.clone() for k, v in state['model'].items()}
    strips, c_in, _ = model['FCs.fc_bin'].shape
    model['FCs.fc_bin'] = torch.ones(strips, c_in, width)
    model['BNNecks.fc_bin'] = torch.ones(strips, width, model['BNNecks.fc_bin'].shape[2])
    for k in ('weight', 'bias', 'running_mean', 'running_var'):
        model[f'BNNecks.bn1d.{k}'] = torch.ones(strips*width)
    return state | dict(model=model)


def test_a_head_of_the_old_width_says_so(trained):
    cfg, _, data = trained # channels 4, 4, 8, 8
    other = to_dict(cfg.model_cfg)
    with pytest.raises(SkeletonGaitError) as e:
        load_weights(build_model(other), old_head(load_state(data, 'x.pt'), 4), 'x.pt')
    head, *rest = str(e.value).split('\n')
    assert head == ('x.pt: the checkpoint has embeddings 4 wide, half of channels[3] 8, as an earlier version of '
                    'skeletongait made them; now they are as wide as channels[2], which is 8, '
                    'as published, and no setting gives the old width. Test it with that version, train again, or '
                    'continue from its backbone alone with '
                    'trainer_cfg.restore_ckpt_strict: false and optimizer_reset: true.')
    assert rest[0] == '  6 weights do not fit:'
    assert 'FCs.fc_bin: 16x8x4 in the checkpoint, 16x8x8 in the model' in rest[1]


def test_a_head_of_the_old_width_beside_other_differences(trained):
    cfg, _, data = trained
    other = to_dict(cfg.model_cfg)
    other['SeparateBNNecks']['class_num'] = 9
    with pytest.raises(SkeletonGaitError, match='class_num is 9: set it to 4; the checkpoint has embeddings 4 wide'):
        load_weights(build_model(other), old_head(load_state(data, 'x.pt'), 4), 'x.pt')


@pytest.mark.parametrize('head', [torch.ones(()), torch.ones(3), torch.ones(16, 8)])
def test_an_invalid_head_is_one_kind_of_error(trained, head):
    cfg, _, data = trained
    state = load_state(data, 'x.pt')
    state['model'] = state['model'] | {'FCs.fc_bin': head}
    with pytest.raises(SkeletonGaitError, match='x.pt: '):
        load_weights(build_model(to_dict(cfg.model_cfg)), state, 'x.pt')


def test_the_advice_for_an_old_head_works(trained):
    "The backbone is loaded, and training continues from it."
    cfg, _, data = trained
    state = old_head(load_state(data, 'x.pt'), 4)
    new = replace(cfg, trainer_cfg=replace(cfg.trainer_cfg, restore_ckpt_strict=False, optimizer_reset=True))
    trainer = make_trainer(new, ONE)
    restore_state(trainer, state, 'x.pt', new, ONE, resume=True)
    assert all(torch.equal(v, state['model'][k]) for k,
               v in trainer.net.state_dict().items() if not k.startswith(('FCs', 'BNNecks')))


def test_messages_in_full(trained):
    cfg, _, data = trained
    state, other = load_state(data, 'x.pt'), to_dict(cfg.model_cfg)
    other['SeparateBNNecks']['class_num'] = 9
    with pytest.raises(SkeletonGaitError) as e:
        load_weights(build_model(other), state, 'x.pt')
    assert str(e.value) == ('x.pt: the checkpoint was made for 4 classes, model_cfg.SeparateBNNecks.class_num is '
                            '9: set it to 4.\n'
                            '  1 weights do not fit:\n    BNNecks.fc_bin: 16x8x4 in the checkpoint, 16x8x9 in '
                            'the model')
    with pytest.raises(SkeletonGaitError,
                       match="x.pt: these are not weights of SkeletonGait or SkeletonGaitPP; the names begin "
                             "conv1.weight, fc.weight"):
        load_weights(build_model(other), {'model': {'conv1.weight': torch.ones(2), 'fc.weight': torch.ones(2)}}, 'x.pt')
    with pytest.raises(SkeletonGaitError, match='the names begin nowhere'):
        load_weights(build_model(other), {'model': {}}, 'x.pt')


def test_weights_that_fit_are_loaded_if_wanted(trained, caplog):
    cfg, _, data = trained
    state, other = load_state(data, 'x.pt'), to_dict(cfg.model_cfg)
    other['SeparateBNNecks']['class_num'] = 9
    model = build_model(other)
    load_weights(model, state, 'x.pt', strict=False)
    assert 'class_num is 9: set it to 4' in caplog.text and 'the other weights are loaded' in caplog.text
    assert all(torch.equal(v, state['model'][k]) for k, v in model.state_dict().items() if k != 'BNNecks.fc_bin')


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_names_with_and_without_prefix(trained, prefix):
    cfg, trainer, _ = trained
    model = build_model(to_dict(cfg.model_cfg), seed=1)
    load_weights(model, again({'model': {prefix+k: v for k, v in trainer.net.state_dict().items()}, 'optimizer': {},
                               'scheduler': {}, 'iteration': 60000}), 'x.pt')
    assert equal(model.state_dict(), trainer.net.state_dict())


# --- what is no longer as it was

def told(trained, caplog, resume=True, state=(), **changes):
    cfg = toy()
    for path, v in changes.items():
        *sections, k = path.split('__')
        at = cfg
        for o in sections:
            at = getattr(at, o) if not o.isdecimal() else at[int(o)]
        setattr(at, k, v)
    with caplog.at_level(logging.INFO, 'skeletongait'):
        restore_state(make_trainer(cfg, ONE), load_state(trained[2], 'x.pt') | dict(state), 'x.pt', cfg, ONE, resume)
    return '\n'.join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)


def test_unchanged_settings_log_nothing(trained, caplog):
    assert told(trained, caplog) == '' and 'resuming at iteration 3' in caplog.text


def test_changed_settings_that_compute_are_logged(trained, caplog):
    text = told(trained, caplog, loss_cfg__0__margin=.3, trainer_cfg__sampler__frames_num_fixed=9,
                trainer_cfg__log_iter=7, data_cfg__num_workers=3, evaluator_cfg__metric='cos')
    assert 'loss_cfg[0].margin: 0.2 then, 0.3 now' in text and 'frames_num_fixed: 6 then, 9 now' in text
    assert 'not comparable' in text
    assert not any(k in text for k in ('log_iter', 'num_workers', 'metric', 'SEED', 'EMBEDDING'))


CHANGES = [('optimizer_cfg', 'lr', .01, 'optimizer_cfg.lr: 0.02 then, 0.01 now (trainer_cfg.scheduler_reset)'),
           ('optimizer_cfg', 'momentum', .5, 'optimizer_cfg.momentum: 0.9 then, 0.5 now (trainer_cfg.optimizer_reset)'),
           ('scheduler_cfg', 'milestones', [6, 8],
            'scheduler_cfg.milestones: [4] then, [6, 8] now (trainer_cfg.scheduler_reset)')]

@pytest.mark.parametrize('section, key, value, says', CHANGES)
def test_changes_that_a_restored_state_overrides_are_refused(trained, caplog, section, key, value, says):
    "Until their switch is set; then the run computes with them."
    cfg = toy()
    getattr(cfg, section).arguments[key] = value
    state, switch = load_state(trained[2], 'x.pt'), says[:-1].split('_cfg.')[-1]
    def restored(resume=True):
        trainer = make_trainer(cfg, ONE)
        restore_state(trainer, state, 'x.pt', cfg, ONE, resume)
        return trainer
    for other in ('optimizer_reset', 'scheduler_reset'):
        setattr(cfg.trainer_cfg, other, other != switch)
        with pytest.raises(SkeletonGaitError) as e:
            restored()
        assert says in str(e.value) and len(str(e.value).splitlines()) == 3
        assert str(e.value).startswith('x.pt: ')
        assert 'Restore the old values; or set the switch' in str(e.value)
        setattr(cfg.trainer_cfg, other, False)
    setattr(cfg.trainer_cfg, switch, True)
    trainer = restored()
    assert 'x.pt was trained with other settings' in caplog.text and trainer.iteration == 3
    if key == 'momentum':
        assert trainer.optimizer.param_groups[0]['momentum'] == .5
    else:
        want, lr, milestones = [], (.01 if key == 'lr' else .02), ([6, 8] if key == 'milestones' else [4])
        for i in range(9):
            want.append(lr*.1**sum(m <= i for m in milestones))
            assert trainer.optimizer.param_groups[0]['lr'] == pytest.approx(want[-1])
            steps(trainer, cfg, 4+i)
    setattr(cfg.trainer_cfg, switch, False)
    restored(resume=False)   # a new run's settings are its own


def test_several_are_listed_at_once(trained):
    cfg = toy()
    for section, key, value, _ in CHANGES:
        getattr(cfg, section).arguments[key] = value
    with pytest.raises(SkeletonGaitError) as e:
        restore_state(make_trainer(cfg, ONE), load_state(trained[2], 'x.pt'), 'x.pt', cfg, ONE, True)
    assert str(e.value).splitlines()[1:-1] == ['  '+o for *_, o in CHANGES]
    with pytest.raises(SkeletonGaitError,
                       match='optimizer_cfg.solver: "SGD" then, "AdamW" now .trainer_cfg.optimizer_reset.'):
        restore_state(make_trainer(adamw(toy()), ONE), load_state(trained[2], 'x.pt'), 'x.pt', adamw(toy()), ONE, True)
    both = adamw(toy(optimizer_reset=True, scheduler_reset=True))
    trainer = make_trainer(both, ONE)
    restore_state(trainer, load_state(trained[2], 'x.pt'), 'x.pt', both, ONE, True)
    assert len(steps(trainer, both, 5)) == 2


@pytest.mark.parametrize('resume', [True, False])
def test_only_rank_0_logs(trained, caplog, resume):
    cfg = toy(seed=5, restore_ckpt_strict=False, optimizer_reset=True)
    cfg.model_cfg.use_emb2, cfg.model_cfg.SeparateBNNecks.class_num = True, 7
    said, before = [], random_states()
    for rank in (0, 1):
        caplog.clear()
        with caplog.at_level(logging.INFO, 'skeletongait'):
            restore_state(make_trainer(cfg, ONE), load_state(trained[2], 'x.pt'), 'x.pt', cfg, Ranks(rank, 2, rank),
                          resume)
        said.append(len(caplog.records))
    set_random_states(before)
    assert said[0] >= 3 and said[1] == 0 and not logging.getLogger('skeletongait').disabled


def test_another_seed_is_a_warning(trained, caplog):
    text = told(trained, caplog, trainer_cfg__seed=5)
    assert 'THE SEED HAS CHANGED: 0 in the checkpoint, 5 now' in text
    assert 'set trainer_cfg.seed: 0 for an exact resume' in text


def test_a_new_run_may_have_its_own_settings(trained, caplog):
    assert told(trained, caplog, resume=False, trainer_cfg__seed=5, loss_cfg__0__margin=.3) == ''
    assert 'training starts at iteration 0' in caplog.text


@pytest.mark.parametrize('config',
                         [None, 'x', {}, dict(data_cfg=4), dict(data_cfg={}, trainer_cfg=3),
                          dict(data_cfg=dict(new_key=1))])
def test_checkpoints_without_usable_settings(trained, caplog, config):
    text = told(trained, caplog, state=dict(config=config))
    assert ('those of the checkpoint cannot be read' in text) == (isinstance(config, dict)
        and isinstance(config.get('data_cfg'), dict))
    assert 'resuming at iteration 3' in caplog.text


@pytest.mark.parametrize('config, says',
                         [(None, ''), ('x', ''), (dict(data_cfg=4), ''), ({}, ''), (dict(data_cfg={}), ''),
                                          (dict(data_cfg=dict(render={'heatmap_generator_args': {'sigma': 0}})),
                                           'those of the checkpoint cannot be read (data_cfg.render.')])
def test_unusable_settings_of_maps(caplog, config, says):
    with caplog.at_level(logging.INFO, 'skeletongait'):
        tell_map_changes({'config': config}, toy(), 'x.pt')
    assert says in caplog.text and bool(caplog.text) == bool(says)


@pytest.mark.parametrize('then, use_emb2, level, says', [
    (None, False, logging.INFO,
     'x.pt does not say by which embedding it is tested; the settings choose embed_1 (model_cfg.use_emb2: false)'),
    ('embed_2', True, logging.INFO, 'tested by embed_2, as x.pt was trained to be (model_cfg.use_emb2: true)'),
    ('embed_2', False, logging.WARNING,
     'x.pt was trained to be tested by embed_2, the settings test by embed_1; set model_cfg.use_emb2: true to '
     'compare embed_2'),
    ('embed_1', True, logging.WARNING,
     'x.pt was trained to be tested by embed_1, the settings test by embed_2; set model_cfg.use_emb2: false to '
     'compare embed_1')])
def test_the_embedding_is_logged(caplog, then, use_emb2, level, says):
    cfg = toy()
    cfg.model_cfg.use_emb2 = use_emb2
    with caplog.at_level(logging.INFO, 'skeletongait'):
        tell_embedding({'embedding': then}, cfg, 'x.pt')
    (record,) = caplog.records
    assert record.levelno == level and says in record.getMessage()
