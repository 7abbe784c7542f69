"Runs that are stopped, killed, restarted and moved: real processes, compared with an undisturbed run."
import os
import random
import shutil
import signal
import subprocess

import pytest
import torch
from scripts import BIN, free_port

from skeletongait.runs.checkpoint import load_checkpoint
from skeletongait.core import is_leftover
from skeletongait.runs.records import read_metrics
from skeletongait.runs.watch import read_scalars
from processes import ENV, at_iteration, begin, launcher, run_of, said, settings, wait_for


def go(folder, cfg, ranks=1, *args, code=0, **kw):
    "Run to the end and return what was printed."
    before = len(said(folder)) if (folder/'out.txt').exists() else 0
    assert begin(folder, cfg, ranks, *args, **kw).wait(300) == code, said(folder)[before:]
    return said(folder)[before:]


def curve(folder, cfg):
    "Iteration -> what was logged there, without clocks."
    return {m['iteration']: (m['values'], m['lr']) for m in read_metrics(run_of(folder, cfg).metrics) if 'values' in m}


def same(a, b):
    "Equal to the last bit, at every level."
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_same_end(folder, undisturbed, cfg):
    "The last checkpoints and the curves of two runs are equal."
    i = cfg.trainer_cfg.total_iter
    a, b = (load_checkpoint(run_of(f, cfg).checkpoint(i)) for f in (folder, undisturbed))
    for k in ('model', 'optimizer', 'scheduler', 'scaler', 'iteration', 'seed'):
        assert same(a[k], b[k]), k
    assert curve(folder, cfg) == curve(undisturbed, cfg)


@pytest.fixture(scope='module')
def undisturbed(walkers, tmp_path_factory):
    "`undisturbed(cfg, ranks)` is the folder of such a run that nobody stopped."
    done = {}

    def get(cfg, ranks):
        key = (repr(cfg.trainer_cfg), ranks)
        if key not in done:
            done[key] = tmp_path_factory.mktemp('undisturbed')
            go(done[key], cfg, ranks)
        return done[key]
    return get


@pytest.mark.slow
@pytest.mark.parametrize('ranks', [1, 2])
@pytest.mark.parametrize('workers', [0, 2])
def test_n_stop_n_is_2n(walkers, tmp_path, undisturbed, ranks, workers):
    "Losses and weights, bit for bit; the averages of a log line go across the stop."
    cfg = settings(walkers, workers, log_iter=3)
    whole = undisturbed(settings(walkers, log_iter=3), ranks)
    half = settings(walkers, workers, log_iter=3, total_iter=4)
    go(tmp_path, half, ranks)
    out = go(tmp_path, cfg, ranks)
    assert 'resuming at iteration 4' in out
    assert_same_end(tmp_path, whole, cfg)
    assert list(curve(tmp_path, cfg)) == [3, 6]


@pytest.mark.parametrize('number', [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_logs_it(walkers, tmp_path, number):
    cfg = settings(walkers, total_iter=400, save_iter=1000)
    process = begin(tmp_path, cfg)
    run = run_of(tmp_path, cfg)
    wait_for(at_iteration(run, 3), process, tmp_path)
    process.send_signal(number)
    assert process.wait(60) == 130
    last, out = max(run.iterations()), said(tmp_path)
    assert 3 <= last < 400 and f'stopped by {number.name}' in out and f'demo-{last:05d}.pt' in out
    assert 'Traceback' not in out
    assert load_checkpoint(run.checkpoint(last))['iteration'] == last == max(curve(tmp_path, cfg))
    assert any(m.get('event') == 'stopped' for m in read_metrics(run.metrics))


@pytest.mark.slow
@pytest.mark.parametrize('ranks', [1, 2])
def test_stopped_twice_is_undisturbed(walkers, tmp_path, undisturbed, ranks):
    "SIGTERM to the launcher, twice, at any moment."
    cfg = settings(walkers, total_iter=60, save_iter=25)
    for _ in range(2):
        process, run = begin(tmp_path, cfg, ranks), run_of(tmp_path, cfg)
        wait_for(at_iteration(run, max(run.iterations(), default=0) + 7), process, tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == (130 if ranks == 1 else 1)
    last = max(run.iterations())
    assert last not in (0, 25, 50)
    assert f'resuming at iteration {last}' in go(tmp_path, cfg, ranks)
    assert 'Traceback' not in said(tmp_path).split('torch/distributed')[0]
    assert_same_end(tmp_path, undisturbed(cfg, ranks), cfg)
    scalars = read_scalars(run.summary)
    assert scalars['softmax/loss'][0] == list(range(1, 61))


def pids(process):
    "The ranks below a launcher."
    children = subprocess.run(['ps', '-o', 'pid=,args=', '--ppid', str(process.pid)], capture_output=True,
                              text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in children if 'skeletongait.main' in line]


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
@pytest.mark.parametrize('hint', [0, 'latest'])
def test_a_killed_rank_is_restarted(walkers, tmp_path, undisturbed, victim, hint):
    "kill -9 of one rank: torchrun restarts both, and they resume; they do not resume an earlier run in that folder."
    cfg = settings(walkers, total_iter=60, save_iter=5, restore_hint=hint)
    if hint == 0:
        go(tmp_path, settings(walkers, total_iter=3, save_iter=1, restore_hint=0))
    process, run = begin(tmp_path, cfg, 2, options=['--max-restarts=2']), run_of(tmp_path, cfg)
    wait_for(lambda: 10 in run.iterations() and len(pids(process)) == 2, process, tmp_path)
    os.kill(sorted(pids(process))[victim], signal.SIGKILL)
    assert process.wait(200) == 0, said(tmp_path)
    out = said(tmp_path)
    assert 'resuming at iteration' in out
    assert_same_end(tmp_path, undisturbed(settings(walkers, total_iter=60, save_iter=5), 2), cfg)


@pytest.mark.slow
def test_all_killed_while_a_checkpoint_is_written(walkers, tmp_path):
    "Cut at several lengths, the file never counts as a checkpoint; earlier ones stay whole."
    cfg = settings(walkers, total_iter=6, save_iter=1)
    cfg.model_cfg.Backbone.channels = [64, 128, 256, 512] # a file that takes a while
    cfg.trainer_cfg.sampler.batch_size, cfg.trainer_cfg.sampler.frames_num_fixed = [2, 2], 1
    whole, killed = tmp_path/'whole', tmp_path/'killed'
    go(whole, cfg)
    size, run, rng, hits = run_of(whole, cfg).checkpoint(6).stat().st_size, run_of(killed, cfg), random.Random(3), 0
    for share in (.02, .5, .95):
        before, least = run.iterations(), rng.randint(0, 1)

        def half_written():
            folder = run.checkpoint(0).parent
            try:
                return len(run.iterations()) >= len(before) + least and any(is_leftover(p.name)
                    and p.stat().st_size >= share*size for p in folder.iterdir())
            except FileNotFoundError:
                return False
        process = begin(killed, cfg, new_group=True)
        wait_for(half_written, process, killed, pause=.0005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        hits += any(is_leftover(p.name) for p in run.checkpoint(0).parent.iterdir())
        for i in run.iterations():
            assert load_checkpoint(run.checkpoint(i))['iteration'] == i
        assert set(before) <= set(run.iterations())
    assert hits
    go(killed, cfg)
    assert_same_end(killed, whole, cfg)
    assert not any(is_leftover(p.name) for p in run.checkpoint(0).parent.iterdir())


@pytest.mark.parametrize('damage',
                         ['truncated', pytest.param('flipped', marks=pytest.mark.slow),
                          pytest.param('empty', marks=pytest.mark.slow)])
def test_a_damaged_newest_checkpoint_is_skipped(walkers, tmp_path, damage):
    cfg = settings(walkers, save_iter=2, total_iter=6)
    go(tmp_path, cfg)
    run, kept = run_of(tmp_path, cfg), tmp_path/'kept'
    shutil.copytree(run.folder, kept)
    data = bytearray(run.checkpoint(6).read_bytes())
    if damage == 'flipped':
        data[len(data)//2] ^= 1
    run.checkpoint(6).write_bytes(dict(truncated=data[:len(data)//2], flipped=data, empty=b'')[damage])
    out = go(tmp_path, cfg)
    assert 'demo-00006.pt' in out and 'resuming at iteration 4' in out
    assert same(load_checkpoint(run.checkpoint(6))['model'],
                load_checkpoint(kept/'checkpoints'/'demo-00006.pt')['model'])
    for i in run.iterations():
        run.checkpoint(i).write_bytes(b'PK')
    out = go(tmp_path, cfg, code=2)
    assert out.splitlines()[-1].startswith('main: ') and 'none' in out.splitlines()[-1]
    assert run.iterations() == [2, 4, 6]


@pytest.mark.slow
@pytest.mark.parametrize('ranks', [(2, 1), (1, 2), (2, 4)])
def test_another_number_of_ranks_resumes(walkers, tmp_path, undisturbed, ranks):
    "The same batches: constant weights (no learning rate, batch norm fixed) have the losses of one whole process."
    cfg, half = (settings(walkers, fix_BN=True, total_iter=n) for n in (8, 4))
    for c in (cfg, half):
        c.optimizer_cfg.arguments['lr'] = 0.
    go(tmp_path, half, ranks[0])
    out = go(tmp_path, cfg, ranks[1])
    assert 'resuming at iteration 4' in out and f'{ranks[0]} process' in out
    a, b = curve(tmp_path, cfg), curve(undisturbed(cfg, 1), cfg)
    assert a.keys() == b.keys()
    for i in a:
        for k in a[i][0]:
            assert a[i][0][k] == pytest.approx(b[i][0][k], rel=1e-4, abs=1e-5), (i, k)
    assert len({v['triplet/loss'] for v, _ in a.values()}) == 8


@pytest.mark.slow
def test_nodes_without_a_shared_folder(walkers, tmp_path, undisturbed):
    "Two nodes, each in a folder of its own: only the first one's has files, and a resume reaches both."
    cfg, half = settings(walkers, with_test=True), settings(walkers, total_iter=4, with_test=True)

    def both(c):
        common = [str(BIN/'torchrun'), '--nnodes=2', '--nproc_per_node=1', '--master_addr=127.0.0.1',
                  f'--master_port={free_port()}']
        nodes = [begin(tmp_path/f'node{k}', c, words=[*common, f'--node_rank={k}', '-m', 'skeletongait.main'])
                 for k in range(2)]
        assert [p.wait(300) for p in nodes] == [0, 0], said(tmp_path/'node0') + said(tmp_path/'node1')
    both(half)
    both(cfg)
    assert not (tmp_path/'node1'/'output').exists()
    assert 'resuming at iteration 4' in said(tmp_path/'node0')
    assert_same_end(tmp_path/'node0', undisturbed(cfg, 2), cfg)


@pytest.mark.slow
def test_a_bad_file_of_one_rank_is_one_line(walkers, tmp_path):
    "Both ranks end, one says why, and neither mentions connections."
    shutil.copytree(walkers/'linked', tmp_path/'linked')
    cfg = settings(walkers, total_iter=2000)
    cfg.data_cfg.dataset_root = str(tmp_path/'linked')
    process, run = begin(tmp_path, cfg, 2), run_of(tmp_path, cfg)
    wait_for(at_iteration(run, 3), process, tmp_path)
    bad = next((tmp_path/'linked'/'001').rglob('0_heatmap.pkl'))
    bad.write_bytes(b'no pickle')
    assert process.wait(120) == 1
    out = said(tmp_path)
    own = [line for line in out.replace('\r', '\n').splitlines() if 'main (rank' in line]
    assert len(own) == 1 and str(bad) in own[0] and 'closed by peer' not in out
    last = max(run.iterations())
    assert f'iteration {last} is saved in' in out and last == max(curve(tmp_path, cfg))


@pytest.mark.slow
def test_a_new_run_moves_the_old_one_aside(walkers, tmp_path, undisturbed):
    cfg = settings(walkers, total_iter=6, save_iter=2, restore_hint=0)
    go(tmp_path, cfg)
    first = curve(tmp_path, cfg)
    out = go(tmp_path, settings(walkers, total_iter=2, save_iter=2, restore_hint=0))
    run = run_of(tmp_path, cfg)
    assert run.iterations() == [2] and 'earlier-' in out and 'restore_hint: latest' in out
    (old,) = run.folder.glob('earlier-*')
    assert len(list((old/'checkpoints').glob('*.pt'))) == 3
    assert {m['iteration'] for m in read_metrics(old/'metrics.jsonl') if 'values' in m} == set(first)


def test_changed_settings_are_logged(walkers, tmp_path):
    "Changes that take effect are logged; those that a checkpoint would silently override are refused."
    go(tmp_path, settings(walkers, total_iter=2))
    out = go(tmp_path, settings(walkers, total_iter=3), 1, '--set', 'loss_cfg[0].margin=0.3', '--set',
             'trainer_cfg.log_iter=2')
    assert 'loss_cfg[0].margin: 0.2 then, 0.3 now' in out and 'log_iter: 1 then' not in out
    out = go(tmp_path, settings(walkers, total_iter=4), 1, '--set', 'optimizer_cfg.lr=0.01', code=2)
    assert 'optimizer_cfg.lr: 0.02 then, 0.01 now' in out and 'scheduler_reset' in out
    go(tmp_path, settings(walkers, total_iter=4), 1, '--set', 'optimizer_cfg.lr=0.01', '--set',
       'trainer_cfg.optimizer_reset=true', '--set', 'trainer_cfg.scheduler_reset=true')
    assert curve(tmp_path, settings(walkers))[4][1] == .01


@pytest.mark.slow
def test_one_run_at_a_time(walkers, tmp_path):
    "A second one in the same folder waits, then gives up, and changes nothing; a killed one releases the folder."
    cfg = settings(walkers, total_iter=2000, save_iter=20)
    first, run = begin(tmp_path, cfg), run_of(tmp_path, cfg)
    wait_for(lambda: 20 in run.iterations(), first, tmp_path)
    second = subprocess.run([*launcher(1), f'--cfgs={tmp_path/"x.yaml"}', '--phase=train', '--set',
                             'trainer_cfg.restore_hint=0'], cwd=tmp_path, env=ENV, capture_output=True, text=True,
                             timeout=120)
    assert second.returncode == 2 and str(first.pid) in second.stderr and first.poll() is None
    assert not list(run.folder.glob('earlier-*'))
    first.kill()
    first.wait()
    assert 'resuming at iteration' in go(tmp_path, settings(walkers, total_iter=max(run.iterations())+1))


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_line(walkers, tmp_path):
    (tmp_path/'output').write_text('a file')
    out = go(tmp_path, settings(walkers), 2, '--log_to_file', code=1)
    assert len([line for line in out.splitlines() if line.startswith('main')]) == 1
    assert 'closed by peer' not in out and 'skeletongait/main.py' not in out
