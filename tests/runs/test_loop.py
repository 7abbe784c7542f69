"Training, checkpoints and the test phase: in this process, over real ranks, and as scripts."
import json
import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
import skeletongait.runs.loop
import skeletongait.runs.trainer
from ddp import run_in_ddp
from scripts import LAUNCHES, start
from toys import ONE, tiny

from skeletongait.runs.folder import Run, read_best
from skeletongait.runs.checkpoint import load_checkpoint
from skeletongait.runs.schema import make_config
from skeletongait.files.settings import to_dict, to_yaml
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.files.tree import read_tree
from skeletongait.files.text import save_text
from skeletongait.data.loader import make_loader
from skeletongait.distributed import Ranks, launch_name
from skeletongait.cli import Stop, run_script
from skeletongait.main import main
from skeletongait.nets.models import build_model
from skeletongait.files.arrays import load_pickle
from skeletongait.runs.loop import TrainingRun, broadcast_value, fetch, is_restart, test_model as run_test_phase, train
from skeletongait.runs.trainer import make_dataset, make_trainer
from skeletongait.runs.watch import load_batch, read_scalars
from skeletongait.runs.records import read_metrics

pytestmark = pytest.mark.usefixtures('quiet_log')


def new_training(cfg, folder, stop=None):
    "A training on this process, not begun."
    return TrainingRun(make_trainer(cfg, ONE), Run(cfg, folder), cfg, ONE, stop or Stop())


def begun(cfg, folder, stop=None):
    "A training on this process, restored as its settings say."
    training = new_training(cfg, folder, stop)
    training.begin()
    return training


def batches_of(cfg, start=0):
    "The training batches of the settings, from an iteration on."
    data, _, _ = make_dataset(cfg, training=True)
    t = cfg.trainer_cfg
    return make_loader(data, to_dict(t.sampler), t.seed, start=start, num_workers=0)


def run_all(cfg, folder):
    "Train in this process; return the trainer and its run."
    training = begun(cfg, folder)
    train(training, batches_of(cfg, training.iteration))
    return training.trainer, training.run


def with_infinity(batch):
    "The batch with one frame of infinite pixels."
    bad = batch._replace(frames=batch.frames.float())
    bad.frames[1, 0] = math.inf
    return bad


@pytest.fixture(scope='module')
def trained(walkers, tmp_path_factory):
    cfg = tiny(walkers)
    return (cfg, *run_all(cfg, tmp_path_factory.mktemp('run')))


def test_checkpoints_and_scalars(trained):
    cfg, trainer, run = trained
    assert run.iterations() == [3, 6] and trainer.iteration == 6
    assert run.checkpoint(6).as_posix().endswith('Walkers/SkeletonGait/demo/checkpoints/demo-00006.pt')
    state = torch.load(run.checkpoint(6), weights_only=True)
    assert {'model', 'optimizer', 'scheduler', 'iteration'} <= state.keys()
    assert state['iteration'] == 6 and state['embedding'] == 'embed_1'
    assert make_config(state['config'])[0] == make_config(to_dict(cfg))[0]
    scalars = read_scalars(run.folder/'summary')
    assert scalars['triplet/loss'][0] == [2, 4, 6] and scalars['learning_rate'][1] == pytest.approx([.02, .002, .002])
    assert all(math.isfinite(v) for _, values in scalars.values() for v in values)


def test_a_finished_one_cycle_schedule_cannot_continue(walkers, tmp_path, capsys):
    "Nor can one that is too short; the error comes before the first step, and names the switch that helps."
    def script(total_iter, total_steps, *args, **trainer):
        cfg = tiny(walkers, total_iter=total_iter, **trainer)
        cfg.scheduler_cfg.scheduler = 'OneCycleLR'
        cfg.scheduler_cfg.arguments = dict(max_lr=.02, total_steps=total_steps)
        save_text(to_yaml(cfg), tmp_path/'x.yaml')
        command = [f'--cfgs={tmp_path/"x.yaml"}', '--phase=train', f'--output_root={tmp_path}', *args]
        return run_script(main, command), capsys.readouterr().err

    code, err = script(5, 4)
    assert code == 2
    assert 'OneCycleLR is planned for 4 steps, but training from iteration 0 to total_iter 5 takes it to 5' in err
    assert 'set total_steps to 5 or more' in err
    assert script(4, 4)[0] == 0
    code, err = script(6, 6, '--iter=4')
    assert code == 2 and 'Traceback' not in err
    assert 'scheduler_cfg.total_steps: 4 then, 6 now' in err and 'scheduler_reset' in err
    code, err = script(6, 4, '--iter=4')
    assert code == 2 and 'Traceback' not in err
    assert 'planned for 4 steps, but training from iteration 4 to total_iter 6 takes it to 6' in err
    assert 'scheduler_reset: true' in err
    assert script(6, 6, '--iter=4', scheduler_reset=True)[0] == 0


def test_a_non_finite_loss_stops_and_names_the_batch(walkers):
    cfg = tiny(walkers)
    trainer, batch = make_trainer(cfg, ONE), next(iter(batches_of(cfg)))
    before = [p.clone() for p in trainer.net.parameters()]
    says = f'iteration 0: the loss is nan; the batch: {batch.names[0]}'
    with pytest.raises(SkeletonGaitError, match=says):
        trainer.step(with_infinity(batch))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.net.parameters())) and trainer.iteration == 0


def test_the_batch_of_a_non_finite_loss_is_saved(walkers, tmp_path):
    cfg = tiny(walkers)
    batch = next(iter(batches_of(cfg)))
    training = new_training(cfg, tmp_path)
    says = r'iteration 1: the loss is nan; the batch: .*; the batch is saved in .*1-rank0\.pt'
    with pytest.raises(SkeletonGaitError, match=says):
        train(training, iter([batch, with_infinity(batch), batch]))
    kept, why = load_batch(training.run.folder/'nonfinite'/'1-rank0.pt')
    assert kept.names == batch.names and kept.frames[1, 0].isinf().all() and 'the loss is nan' in why
    assert training.run.iterations() == []


def test_with_test_records_the_best_and_runs_a_missed_test(walkers, tmp_path):
    settings = dict(total_iter=8, save_iter=2, keep_last=1)
    figures, tested = {2: 40., 4: 70., 6: 70., 8: None}, []
    run = Run(tiny(walkers, **settings), tmp_path)

    def test(i):
        tested.append(i)
        if len(tested) == 3:
            stop.arrived('SIGTERM')     # during the third test
        save_text('{}', run.results(i))
        return {'Rank-1': figures[i]}, ('Rank-1', figures[i])

    def go(cfg):
        training = begun(cfg, tmp_path, stop)
        return train(training, batches_of(cfg, training.iteration), test)

    stop = Stop()
    with pytest.raises(KeyboardInterrupt, match='stopped by SIGTERM'):
        go(tiny(walkers, **settings))
    assert tested == [2, 4, 6] and run.iterations() == [4, 6]
    stop = Stop()
    assert go(tiny(walkers, **settings, restore_hint='latest')) is None
    assert tested == [2, 4, 6, 6, 8]
    assert read_best(run)['iteration'] == 4 and run.iterations() == [4, 8] # the best, and the newest
    recorded = [m['test'] for m in read_metrics(run.metrics) if 'test' in m]
    assert recorded == [{'Rank-1': 40.}, {'Rank-1': 70.}, {'Rank-1': 70.}, {}]
    assert read_scalars(run.summary)['test/Rank-1'][1] == [40., 70., 70.]


def test_a_signal_is_handled_between_steps(walkers, tmp_path):
    cfg, stop = tiny(walkers, save_iter=100), Stop()
    batches = list(zip(range(6), batches_of(cfg)))

    def told():
        for i, b in batches:
            if i == 2: # the terminal's and the launcher's
                stop.arrived('SIGTERM')
                stop.arrived('SIGINT')
            yield b

    training = new_training(cfg, tmp_path, stop)
    assert 'stopped by SIGTERM; iteration 2 is saved in' in train(training, told())
    assert training.run.iterations() == [2]
    assert [m['event'] for m in read_metrics(training.run.metrics) if 'event' in m] == ['saved', 'stopped']
    stop = Stop()
    stop.name = 'SIGINT'
    assert 'nothing was trained yet' in train(new_training(cfg, tmp_path/'x', stop), told())


def test_only_restarted_ranks_resume_by_themselves(walkers, tmp_path, monkeypatch):
    cfg = tiny(walkers, total_iter=3)
    _, run = run_all(cfg, tmp_path)
    assert not is_restart(run)
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    assert is_restart(run) and load_checkpoint(run.checkpoint(3))['launch'] == launch_name()
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'another-job')
    assert not is_restart(run) and not is_restart(Run(cfg, tmp_path/'empty'))
    assert begun(cfg, tmp_path).iteration == 0 and run.iterations() == [] # another job's run is set aside


def test_half_written_files_of_a_killed_run_are_removed(walkers, tmp_path):
    cfg = tiny(walkers, total_iter=3, restore_hint='latest')
    _, run = run_all(cfg, tmp_path)
    torn = run.checkpoint(3).parent/'.demo-00006.pt.123.tmp'
    torn.write_bytes(b'PK')
    assert begun(cfg, tmp_path).iteration == 3 and not torn.exists()


def said_by_two_ranks(fn, folder):
    "Call `fn(folder)` on two ranks; what each has written to `<rank>.json`."
    run_in_ddp(2, fn, folder)
    return [json.loads((folder/f'{rank}.json').read_text()) for rank in (0, 1)]


def _one_of_two(folder):
    "Rank 1 finds a broken file, rank 0 none; then rank 0 gets a signal."
    rank = torch.distributed.get_rank()

    def batches():
        yield 'fine'
        if rank: raise SkeletonGaitError('maps.pkl: broken')
        yield 'fine'
    mine, stop, said = batches(), Stop(), []
    for told in (False, False, True):
        if told and rank == 0:
            stop.name = 'SIGTERM'
        batch, state, error = fetch(mine if not told else iter(['more']), stop)
        said.append([batch, state, error and type(error).__name__])
    (folder/f'{rank}.json').write_text(json.dumps(said))


def test_ranks_end_together(tmp_path):
    first, second = said_by_two_ranks(_one_of_two, tmp_path)
    assert first == [['fine', 0, None], ['fine', 2, 'OtherRankError'], ['more', 1, None]]
    assert second == [['fine', 0, None], [None, 2, 'SkeletonGaitError'], ['more', 1, None]]


def _broadcast_values(folder):
    "Rank 0 alone makes the values; the last attempt fails."
    rank = torch.distributed.get_rank()
    got = []
    for value in (True, False, 7, 'a/b.pt', b'', b'\x00\xff', None):
        got.append(broadcast_value(lambda: value if rank == 0 else pytest.fail('not rank 0')) == value)

    def fails(): raise SkeletonGaitError('no such checkpoint')
    try:
        broadcast_value(fails)
    except SkeletonGaitError as e:
        got.append(type(e).__name__)
    (folder/f'{rank}.json').write_text(json.dumps(got))


def test_values_are_the_same_on_all_ranks(tmp_path):
    first, second = said_by_two_ranks(_broadcast_values, tmp_path)
    assert first == [True]*7 + ['SkeletonGaitError'] and second == [True]*7 + ['OtherRankError']


def _save_slowly(folder):
    "Rank 0 saves slowly, and fails: rank 1 must not leave before, or the launcher would end rank 0."
    rank, path, said = torch.distributed.get_rank(), folder/'saved', []
    run, watch = SimpleNamespace(checkpoint=lambda i: path), SimpleNamespace(note=lambda *args: None)
    training = TrainingRun(SimpleNamespace(iteration=3), run, None, Ranks(rank, 2, rank), watch=watch)

    def saves(*args):
        time.sleep(1)
        path.touch()

    def fails(*args): raise SkeletonGaitError('no space')

    for save in (saves, fails):
        skeletongait.runs.loop.save_checkpoint = save
        try:
            training.save()
            said.append(path.exists())
        except SkeletonGaitError as e:
            said.append(type(e).__name__)
    (folder/f'{rank}.json').write_text(json.dumps(said))


def test_no_rank_leaves_before_the_checkpoint_is_saved(tmp_path):
    first, second = said_by_two_ranks(_save_slowly, tmp_path)
    assert first == [True, 'SkeletonGaitError'] and second == [True, 'OtherRankError']


def test_fixed_batch_norm_keeps_its_statistics(walkers):
    cfg = tiny(walkers, fix_BN=True)
    trainer = make_trainer(cfg, ONE)
    trainer.train_mode()
    trainer.step(next(iter(batches_of(cfg))))
    for name, b in trainer.net.named_buffers():
        if name.endswith('running_mean'):
            assert not b.any(), name


def first_step(root, mixed=False, exact=False):
    "Loss and gradient of the first global batch on this rank; batch norm fixed; float64 where `exact`, else float32."
    torch.set_num_threads(1)
    cfg, r = tiny(root, fix_BN=True, enable_float16=mixed), ONE
    if torch.distributed.is_initialized():
        r = Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size(), 0)
    kind = torch.float64 if exact else torch.float32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skeletongait.runs.trainer, 'build_model', lambda *args: build_model(*args).to(kind))
        trainer = make_trainer(cfg, r)
    trainer.train_mode()
    data, _, _ = make_dataset(cfg, training=True)
    loader = make_loader(data, to_dict(cfg.trainer_cfg.sampler), 0, r.rank, r.world, num_workers=0)
    batch = next(iter(loader)).to('cpu')
    total, _ = trainer.losses(batch._replace(frames=batch.frames.to(kind)))
    total.backward()
    return total.item(), {k: p.grad.numpy() for k, p in trainer.net.named_parameters()}


def save_first_step(root, folder):
    "On each rank: `first_step`, saved in a file for the test."
    loss, grads = first_step(root, exact=True)
    np.savez(folder/f'{torch.distributed.get_rank()}.npz', loss=loss, **grads)


def test_two_ranks_equal_one(walkers, tmp_path):
    "In float64: sums in another order differ by some 1e-15 of what is added; sums that nearly cancel, by much more."
    loss, grads = first_step(walkers, exact=True)
    run_in_ddp(2, save_first_step, walkers, tmp_path)
    for rank in (0, 1):
        other = np.load(tmp_path/f'{rank}.npz')
        assert other['loss'].dtype == np.float64 and other['loss'] == pytest.approx(loss, rel=1e-12)
        for k, g in grads.items():
            assert g.dtype == other[k].dtype == np.float64
            np.testing.assert_allclose(other[k], g, rtol=1e-9, atol=1e-9*np.abs(g).max())


def test_mixed_precision_trains_on_cpu(walkers):
    assert first_step(walkers, mixed=True)[0] == pytest.approx(first_step(walkers)[0], rel=.05)


def test_results_do_not_depend_on_batches(trained, tmp_path):
    cfg, trainer, _ = trained
    seen = []
    for size in (1, 3, 100):
        cfg.evaluator_cfg.sampler.batch_size = size
        seen.append(run_test_phase(trainer.net, cfg, Run(cfg, tmp_path), size, ONE)[0])
        assert json.loads(Run(cfg, tmp_path).results(size).read_text())['Rank-1'] == seen[-1]['Rank-1']
    assert seen[0] == seen[1] == seen[2]


def main_args(root, phase, name='x.yaml'): return f'--cfgs={root/name}', f'--phase={phase}', '--log_to_file'


@pytest.mark.slow
@pytest.mark.parametrize('launch', LAUNCHES)
def test_every_way_to_start(walkers, tmp_path, launch):
    cfg = tiny(walkers, with_test=True, sync_BN=True)
    cfg.data_cfg.num_workers = 1
    save_text(to_yaml(cfg), tmp_path/'x.yaml')
    results = []
    for phase in ('train', 'test'):
        done = start(launch, 'main', *main_args(tmp_path, phase), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(Run(cfg, tmp_path/'output').results(6).read_text()))
    run = Run(cfg, tmp_path/'output')
    assert run.iterations() == [3, 6] and len(list((run.folder/'logs').iterdir())) == 2
    ends = ('.json', '.csv', '.png', '-failures.csv', '-embeddings.npz') # the demo's settings keep embeddings
    expected = {f'demo-0000{i}-Walkers-gallery_probe-euc{end}' for i in (3, 6) for end in ends}
    assert {f.name for f in (run.folder/'results').iterdir()} == expected
    assert results[0] == results[1] # tested after training, and again from the checkpoint
    log = '\n'.join(p.read_text() for p in (run.folder/'logs').iterdir())
    assert 'iteration 6/6' in log and 'ETA' in log and 'Rank-1' in log
    assert ('sync_BN: needs several GPUs' in log) == (not torch.cuda.is_available())


def two_transforms(c):
    c['trainer_cfg']['transform'] = [{'type': 'BaseSilTransform'}, {'type': 'BaseSilCuttingTransform'}]


def no_probe(c):
    c['trainer_cfg']['with_test'] = True
    c['evaluator_cfg']['protocol']['probe']['types'] = ['xx-*']


@pytest.mark.parametrize('change, says', [
    (lambda c: c['trainer_cfg'].update(log_itr=3), 'trainer_cfg.log_itr: unknown key; did you mean log_iter?'),
    (lambda c: c['data_cfg'].update(dataset_partition='OUMVLP'), 'is it the partition of another data set?'),
    (lambda c: c['data_cfg'].update(dataset_root='nowhere'), 'nowhere: no such folder'),
    (lambda c: c['data_cfg'].update(dataset_root='your_path'), 'data_cfg.dataset_root: still your_path'),
    (lambda c: c['model_cfg']['SeparateBNNecks'].update(class_num=3),
     'class_num: found 3, but the training set has 4 subjects'),
    (lambda c: c['model_cfg']['Backbone'].update(in_channels=3), 'built for 3'),
    (lambda c: c['data_cfg'].update(data_in_use=[True, True]), 'has 3 channels'),
    (lambda c: c['trainer_cfg'].update(restore_hint=99), 'demo-00099.pt: no such checkpoint'),
    (two_transforms, 'trainer_cfg.transform'),
    (no_probe, 'probe: no test sequence is chosen'),
    (lambda c: c['trainer_cfg']['sampler'].update(batch_size=[1, 1]), 'expected at least two sequences'),
    (lambda c: c['trainer_cfg']['sampler'].update(frames_num_fixed=0), 'expected at least 1')])
def test_one_clear_line(walkers, tmp_path, capsys, change, says):
    settings = to_dict(tiny(walkers))
    change(settings)
    save_text(yaml.safe_dump(settings), tmp_path/'x.yaml')
    assert run_script(main, [f'--cfgs={tmp_path/"x.yaml"}', '--phase=train', f'--output_root={tmp_path}']) == 2
    err = capsys.readouterr().err
    assert says in err and 'Traceback' not in err


def test_sizes_that_do_not_match_name_the_file(walkers, tmp_path, capsys):
    "Heatmaps 64 wide beside silhouettes 32 wide."
    cfg = tiny(walkers, 'demo_skeletongait++')
    cfg.data_cfg.dataset_root = str(tmp_path/'linked')
    for seq, (maps, silhouettes) in read_tree(walkers/'linked').sequences.items():
        folder = seq.path(tmp_path/'linked')
        save_pickle(load_pickle(maps), folder/'0_heatmap.pkl')
        save_pickle(load_pickle(silhouettes)[..., 16:48], folder/'1_sil.pkl')
    save_text(to_yaml(cfg), tmp_path/'x.yaml')
    assert run_script(main, [f'--cfgs={tmp_path/"x.yaml"}', '--phase=train', f'--output_root={tmp_path}']) == 2
    err = capsys.readouterr().err
    assert '1_sil.pkl' in err and '32' in err and '44' in err and 'Traceback' not in err
