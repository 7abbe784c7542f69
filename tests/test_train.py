"Training, checkpoints and the test phase: in this process, over real ranks, and as scripts."
import json
import logging
import math
import pickle

import numpy as np
import pytest
import torch
import yaml
from ddp import run_in_ddp
from scripts import LAUNCHES, start
from toys import make_walkers, tiny

from skeletongait.config import load_config, make_config, to_dict, to_yaml
from skeletongait.core import SkeletonGaitError, read_tree, save_pickle, save_text
from skeletongait.data import make_loader
from skeletongait.heatmap import pose_to_heatmap
from skeletongait.launch import Ranks, run_script
from skeletongait.main import main
from skeletongait.models import build_model
from skeletongait.pose import load_pickle
from skeletongait.checkpoint import Run, find_checkpoint, load_checkpoint, load_weights, restore, tell_map_changes
from skeletongait.train import protocol_of, test_model as run_test_phase, train
from skeletongait.trainer import make_dataset, make_trainer
from skeletongait.watch import Meter, read_scalars
from skeletongait.walkers import write_walkers


@pytest.fixture(scope='module')
def walkers(tmp_path_factory):
    return make_walkers(tmp_path_factory.mktemp('walkers'))


def run_all(cfg, folder):
    "Train in this process; the trainer and its run."
    run = Run(cfg, folder)
    trainer = make_trainer(cfg, Ranks(0, 1, 0))
    restore(trainer, run, cfg)
    data, _, _ = make_dataset(cfg, training=True)
    train(trainer, make_loader(data, to_dict(cfg.trainer_cfg.sampler), cfg.trainer_cfg.seed, start=trainer.iteration, num_workers=0), run, cfg)
    return trainer, run


@pytest.fixture(scope='module')
def trained(walkers, tmp_path_factory):
    cfg = tiny(walkers)
    return (cfg, *run_all(cfg, tmp_path_factory.mktemp('run')))


def test_checkpoints_and_scalars(trained):
    cfg, trainer, run = trained
    assert run.iterations() == [3, 6] and trainer.iteration == 6
    assert run.checkpoint(6).as_posix().endswith('Walkers/SkeletonGait/demo/checkpoints/demo-00006.pt')
    state = torch.load(run.checkpoint(6), weights_only=True)
    assert {'model', 'optimizer', 'scheduler', 'iteration'} <= state.keys() and state['iteration'] == 6 and state['embedding'] == 'embed_1'
    assert make_config(state['config'])[0] == make_config(to_dict(cfg))[0]
    scalars = read_scalars(run.folder/'summary')
    assert scalars['triplet/loss'][0] == [2, 4, 6] and scalars['learning_rate'][1] == pytest.approx([.02, .002, .002])
    assert all(math.isfinite(v) for _, values in scalars.values() for v in values)


@pytest.mark.parametrize('hint', [3, 'latest'])
def test_stop_and_resume_is_exact(trained, walkers, tmp_path, hint):
    cfg, trainer, run = trained
    other = Run(cfg, tmp_path)
    other.checkpoint(3).parent.mkdir(parents=True)
    other.checkpoint(3).write_bytes(run.checkpoint(3).read_bytes())
    again, _ = run_all(tiny(walkers, restore_hint=hint), tmp_path)
    assert again.iteration == 6
    for a, b in zip(trainer.net.state_dict().values(), again.net.state_dict().values()): assert torch.equal(a, b)


def test_restore_from_a_path_starts_at_zero(trained, walkers, tmp_path):
    _, trainer, run = trained
    cfg = tiny(walkers, restore_hint=str(run.checkpoint(6)), optimizer_reset=True, scheduler_reset=True)
    fresh = make_trainer(cfg, Ranks(0, 1, 0))
    restore(fresh, Run(cfg, tmp_path), cfg)
    assert fresh.iteration == 0 and fresh.optimizer.state_dict()['state'] == {} and fresh.scheduler.get_last_lr() == [.02]
    assert all(torch.equal(a, b) for a, b in zip(fresh.net.state_dict().values(), trainer.net.state_dict().values()))


def test_hints(trained, walkers, tmp_path):
    _, _, run = trained
    assert find_checkpoint(0, run) is None and find_checkpoint('latest', run) == run.checkpoint(6) and find_checkpoint('x.pt', run).name == 'x.pt'
    assert find_checkpoint('latest', Run(tiny(walkers), tmp_path)) is None
    with pytest.raises(SkeletonGaitError, match='this run has 3, 6'): find_checkpoint(4, run)
    with pytest.raises(SkeletonGaitError, match='none yet'): find_checkpoint(4, Run(tiny(walkers), tmp_path))


@pytest.mark.parametrize('change, switch', [(dict(optimizer={}), 'optimizer_reset'), (dict(scheduler={}), 'scheduler_reset'), (dict(scheduler=dict(total_steps=3, last_epoch=3)), 'scheduler_reset')])
def test_states_that_do_not_fit_name_the_switch(trained, walkers, tmp_path, change, switch):
    _, _, run = trained
    torch.save(load_checkpoint(run.checkpoint(6)) | change, tmp_path/'x.pt')
    cfg = tiny(walkers, restore_hint=str(tmp_path/'x.pt'))
    with pytest.raises(SkeletonGaitError, match=switch): restore(make_trainer(cfg, Ranks(0, 1, 0)), Run(cfg, tmp_path), cfg)
    restore(make_trainer(cfg, Ranks(0, 1, 0)), Run(cfg, tmp_path), tiny(walkers, restore_hint=str(tmp_path/'x.pt'), **{switch: True}))


def test_a_finished_one_cycle_cannot_go_on_by_itself(walkers, tmp_path, capsys):
    "Nor can one that is planned too short; said before the first step, with the switch that helps."
    def script(total_iter, total_steps, *args, **trainer):
        cfg = tiny(walkers, total_iter=total_iter, **trainer)
        cfg.scheduler_cfg.scheduler, cfg.scheduler_cfg.arguments = 'OneCycleLR', dict(max_lr=.02, total_steps=total_steps)
        save_text(to_yaml(cfg), tmp_path/'x.yaml')
        return run_script(main, [f'--cfgs={tmp_path/"x.yaml"}', '--phase=train', f'--output_root={tmp_path}', *args]), capsys.readouterr().err
    code, err = script(5, 4)
    assert code == 2 and 'OneCycleLR is planned for 4 steps, but training from iteration 0 to total_iter 5 takes it to 5; set total_steps to 5 or more' in err
    assert script(4, 4)[0] == 0
    code, err = script(6, 6, '--iter=4')
    assert code == 2 and 'planned for 4 steps, but training from iteration 4 to total_iter 6 takes it to 6' in err and 'scheduler_reset: true' in err and 'Traceback' not in err
    assert script(6, 6, '--iter=4', scheduler_reset=True)[0] == 0


@pytest.mark.parametrize('config, says', [(None, ''), ('x', ''), (dict(data_cfg=4), ''), ({}, ''), (dict(data_cfg={}), ''),
                                          (dict(data_cfg=dict(render={'heatmap_generator_args': {'sigma': 0}})), 'those of the checkpoint cannot be read (data_cfg.render: ')])
def test_settings_of_maps_in_a_checkpoint_that_say_nothing(trained, walkers, caplog, config, says):
    with caplog.at_level(logging.INFO, 'skeletongait'): tell_map_changes({'config': config}, tiny(walkers), 'x.pt')
    assert says in caplog.text and bool(caplog.text) == bool(says)


def test_states_of_older_torch_load(trained, walkers, tmp_path):
    "Published checkpoints come from versions that knew fewer switches."
    _, _, run = trained
    state = load_checkpoint(run.checkpoint(6))
    for g in state['optimizer']['param_groups']:
        for k in ('maximize', 'foreach', 'differentiable', 'fused'): del g[k]
    state['scheduler'] = {k: v for k, v in state['scheduler'].items() if k in ('milestones', 'gamma', 'base_lrs', 'last_epoch', '_step_count', '_last_lr')} | {'verbose': False}
    torch.save({k: state[k] for k in ('model', 'optimizer', 'scheduler', 'iteration')}, tmp_path/'x.pt')
    cfg = tiny(walkers, restore_hint=str(tmp_path/'x.pt'))
    trainer = make_trainer(cfg, Ranks(0, 1, 0)); restore(trainer, Run(cfg, tmp_path), cfg)
    data, _, _ = make_dataset(cfg, training=True)
    trainer.train_mode(); trainer.step(next(iter(make_loader(data, to_dict(cfg.trainer_cfg.sampler), 0, num_workers=0))))
    assert trainer.iteration == 1


def test_finetuning_with_other_classes_needs_a_fresh_optimizer(trained, walkers, tmp_path):
    _, _, run = trained
    cfg = tiny(walkers, restore_hint=str(run.checkpoint(6)), restore_ckpt_strict=False); cfg.model_cfg.SeparateBNNecks.class_num = 7
    with pytest.raises(SkeletonGaitError, match='optimizer_reset'): restore(make_trainer(cfg, Ranks(0, 1, 0)), run, cfg)


def test_a_published_protocol_to_come_does_not_stop_training(walkers, tmp_path, capsys):
    cfg = tiny(walkers, with_test=True, total_iter=1); cfg.evaluator_cfg.eval_func, cfg.evaluator_cfg.protocol = 'evaluate_indoor_dataset', None
    save_text(to_yaml(cfg), tmp_path/'x.yaml')
    assert run_script(main, [f'--cfgs={tmp_path/"x.yaml"}', '--phase=train', f'--output_root={tmp_path}']) == 0
    assert 'evaluate_indoor_dataset is not available in this version' in capsys.readouterr().out


def test_published_names_and_prefixes_load(trained, walkers):
    cfg, trainer, _ = trained
    published = {'model': {f'module.{k}': v for k, v in trainer.net.state_dict().items()}, 'optimizer': {}, 'scheduler': {}, 'iteration': 60000}
    model = build_model(to_dict(cfg.model_cfg), seed=1)
    load_weights(model, published, 'x.pt')
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), trainer.net.state_dict().values()))


@pytest.mark.parametrize('change, key', [(dict(SeparateBNNecks=dict(class_num=9)), 'class_num'), (dict(Backbone=dict(in_channels=3)), 'in_channels'), (dict(Backbone=dict(layers=[1, 2, 1, 1])), 'layers')])
def test_misfits_name_the_setting(trained, change, key):
    cfg, trainer, run = trained
    model_cfg = to_dict(cfg.model_cfg)
    for section, values in change.items(): model_cfg[section].update(values)
    model, state = build_model(model_cfg), load_checkpoint(run.checkpoint(6))
    with pytest.raises(SkeletonGaitError, match=f'look at model_cfg.*{key}'): load_weights(model, state, 'x.pt')
    load_weights(model, state, 'x.pt', strict=False)
    assert torch.equal(model.state_dict()['layer4.0.conv2.forward_block.0.weight'], state['model']['layer4.0.conv2.forward_block.0.weight'])


def test_checkpoints_that_are_none(trained, tmp_path):
    _, _, run = trained
    marker = tmp_path/'ran'

    class Evil:
        def __reduce__(self): return exec, (f"open({str(marker)!r}, 'w')",)
    torch.save({'model': Evil()}, tmp_path/'evil.pt'); (tmp_path/'pickle.pt').write_bytes(pickle.dumps(Evil(), 2))
    (tmp_path/'short.pt').write_bytes(run.checkpoint(6).read_bytes()[:1000]); (tmp_path/'empty.pt').write_bytes(b''); torch.save([1], tmp_path/'list.pt')
    for name in ('evil.pt', 'pickle.pt', 'short.pt', 'empty.pt', 'list.pt', 'missing.pt'):
        with pytest.raises(SkeletonGaitError, match=name) as e: load_checkpoint(tmp_path/name)
        assert '\n' not in str(e.value) and not marker.exists()


def test_a_loss_that_is_no_number_stops_and_names_the_batch(walkers):
    cfg = tiny(walkers)
    trainer, (data, _, _) = make_trainer(cfg, Ranks(0, 1, 0)), make_dataset(cfg, training=True)
    batch = next(iter(make_loader(data, to_dict(cfg.trainer_cfg.sampler), 0, num_workers=0)))
    before = [p.clone() for p in trainer.net.parameters()]
    bad = batch._replace(frames=batch.frames.float()); bad.frames[1, 0] = math.inf
    with pytest.raises(SkeletonGaitError, match=f'iteration 0: the loss is nan; the batch: {batch.names[0]}'): trainer.step(bad)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.net.parameters())) and trainer.iteration == 0


def test_fixed_batch_norm_keeps_its_statistics(walkers):
    cfg = tiny(walkers, fix_BN=True)
    trainer, (data, _, _) = make_trainer(cfg, Ranks(0, 1, 0)), make_dataset(cfg, training=True)
    trainer.train_mode()
    trainer.step(next(iter(make_loader(data, to_dict(cfg.trainer_cfg.sampler), 0, num_workers=0))))
    for name, b in trainer.net.named_buffers():
        if name.endswith('running_mean'): assert not b.any(), name


def first_step(root, mixed=False):
    "Loss and gradient of the first global batch on this rank; batch norm fixed, float32."
    torch.set_num_threads(1)
    cfg, r = tiny(root, fix_BN=True, enable_float16=mixed), Ranks(0, 1, 0)
    if torch.distributed.is_initialized(): r = Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size(), 0)
    trainer, (data, _, _) = make_trainer(cfg, r), make_dataset(cfg, training=True)
    trainer.train_mode()
    batch = next(iter(make_loader(data, to_dict(cfg.trainer_cfg.sampler), 0, r.rank, r.world, num_workers=0)))
    total, _ = trainer.losses(batch.to('cpu'))
    total.backward()
    return total.item(), {k: p.grad.numpy() for k, p in trainer.net.named_parameters()}


def save_first_step(root, folder):
    "On each rank: `first_step`, kept in a file for the test."
    loss, grads = first_step(root)
    np.savez(folder/f'{torch.distributed.get_rank()}.npz', loss=loss, **grads)


def test_two_ranks_equal_one(walkers, tmp_path):
    loss, grads = first_step(walkers)
    run_in_ddp(2, save_first_step, walkers, tmp_path)
    for rank in (0, 1):
        other = np.load(tmp_path/f'{rank}.npz')
        assert other['loss'] == pytest.approx(loss, rel=1e-5)
        for k, g in grads.items(): np.testing.assert_allclose(other[k], g, rtol=1e-5, atol=1e-5*np.abs(g).max())


def test_mixed_precision_trains_on_cpu(walkers):
    assert first_step(walkers, mixed=True)[0] == pytest.approx(first_step(walkers)[0], rel=.05)


def test_results_do_not_depend_on_batches(trained, tmp_path):
    cfg, trainer, _ = trained
    seen = []
    for size in (1, 3, 100):
        cfg.evaluator_cfg.sampler.batch_size = size
        seen.append(run_test_phase(trainer.net, cfg, Run(cfg, tmp_path), size, Ranks(0, 1, 0)))
        assert json.loads(Run(cfg, tmp_path).results(size).read_text())['Rank-1'] == seen[-1]['Rank-1']
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize('name', ['evaluate_indoor_dataset', 'GREW_submission', 'evaluate_CCPG', 'evaluate_real_scene'])
def test_protocols_to_come_say_so(walkers, name):
    cfg = tiny(walkers); cfg.evaluator_cfg.eval_func = name
    with pytest.raises(SkeletonGaitError, match=f'{name} is not available'): protocol_of(cfg)


def test_meter_averages():
    meter = Meter()
    for v in (1., 3.): meter.add({'x': torch.tensor([v, v+2])}, .5)
    values, _, data = meter.read()
    assert values == {'x': 3.} and data == .5


def main_args(root, phase, name='x.yaml'): return f'--cfgs={root/name}', f'--phase={phase}', '--log_to_file'


@pytest.mark.slow
@pytest.mark.parametrize('launch', LAUNCHES)
def test_every_way_to_start(walkers, tmp_path, launch):
    cfg = tiny(walkers, with_test=True, sync_BN=True); cfg.data_cfg.num_workers = 1
    save_text(to_yaml(cfg), tmp_path/'x.yaml')
    results = []
    for phase in ('train', 'test'):
        done = start(launch, 'main', *main_args(tmp_path, phase), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(Run(cfg, tmp_path/'output').results(6).read_text()))
    run = Run(cfg, tmp_path/'output')
    assert run.iterations() == [3, 6] and len(list((run.folder/'logs').iterdir())) == 2
    assert {f.name for f in (run.folder/'results').iterdir()} == {'demo-00003.json', 'demo-00006.json'}
    assert results[0] == results[1] # tested after training, and again from the checkpoint
    log = '\n'.join(p.read_text() for p in (run.folder/'logs').iterdir())
    assert 'iteration 6/6' in log and 'ETA' in log and 'Rank-1' in log
    assert ('sync_BN: needs several GPUs' in log) == (not torch.cuda.is_available())


@pytest.mark.parametrize('change, says', [
    (lambda c: c['trainer_cfg'].update(log_itr=3), 'trainer_cfg.log_itr: unknown key; did you mean log_iter?'),
    (lambda c: c['data_cfg'].update(dataset_partition='OUMVLP'), 'is it the partition of another data set?'),
    (lambda c: c['data_cfg'].update(dataset_root='nowhere'), 'nowhere: no such folder'),
    (lambda c: c['data_cfg'].update(dataset_root='your_path'), 'data_cfg.dataset_root: still your_path'),
    (lambda c: c['model_cfg']['SeparateBNNecks'].update(class_num=3), 'class_num: found 3, but the training set has 4 subjects'),
    (lambda c: c['model_cfg']['Backbone'].update(in_channels=3), 'built for 3'),
    (lambda c: c['data_cfg'].update(data_in_use=[True, True]), 'has 3 channels'),
    (lambda c: c['trainer_cfg'].update(restore_hint=99), 'demo-00099.pt: no such checkpoint'),
    (lambda c: c['trainer_cfg'].update(transform=[{'type': 'BaseSilTransform'}, {'type': 'BaseSilCuttingTransform'}]), 'trainer_cfg.transform: found 2 different entries'),
    (lambda c: c['trainer_cfg'].update(with_test=True) or c['evaluator_cfg']['protocol']['probe'].update(types=['xx-*']), 'probe: no test sequence is chosen'),
    (lambda c: c['trainer_cfg']['sampler'].update(batch_size=[1, 1]), 'expected at least two sequences'),
    (lambda c: c['trainer_cfg']['sampler'].update(frames_num_fixed=0), 'expected at least 1')])
def test_one_clear_line(walkers, tmp_path, capsys, change, says):
    settings = to_dict(tiny(walkers)); change(settings)
    save_text(yaml.safe_dump(settings), tmp_path/'x.yaml')
    assert run_script(main, [f'--cfgs={tmp_path/"x.yaml"}', '--phase=train', f'--output_root={tmp_path}']) == 2
    err = capsys.readouterr().err
    assert says in err and 'Traceback' not in err


def test_sizes_that_do_not_go_together_name_the_file(walkers, tmp_path, capsys):
    "Heatmaps 64 wide beside silhouettes 32 wide."
    cfg = tiny(walkers, 'demo_skeletongait++'); cfg.data_cfg.dataset_root = str(tmp_path/'linked')
    for seq, files in read_tree(walkers/'linked').sequences.items():
        save_pickle(load_pickle(files[0]), seq.path(tmp_path/'linked')/'0_heatmap.pkl'); save_pickle(load_pickle(files[1])[..., 16:48], seq.path(tmp_path/'linked')/'1_sil.pkl')
    save_text(to_yaml(cfg), tmp_path/'x.yaml')
    assert run_script(main, [f'--cfgs={tmp_path/"x.yaml"}', '--phase=train', f'--output_root={tmp_path}']) == 2
    err = capsys.readouterr().err
    assert '1_sil.pkl' in err and '32' in err and '44' in err and 'Traceback' not in err


@pytest.fixture(autouse=True)
def quiet_log():
    "No handler of one test is left for the next."
    yield
    logging.getLogger('skeletongait').handlers = []
