"""Checkpoints in the form in which trained ones are published, through the scripts' test phase and back into training.
The weights are those of the golden files, which follow from their names;
so the embeddings must be the published implementation's."""
import json

import numpy as np
import pytest
import torch
from goldens import fill, load
from toys import write_config

import skeletongait.runs.loop as train
from skeletongait.runs.folder import Run
from skeletongait.runs.misfit import describe_weights
from skeletongait.runs.checkpoint import load_checkpoint
from skeletongait.runs.config import load_config
from skeletongait.runs.schema import make_config
from skeletongait.files.settings import to_dict
from skeletongait.core import save_pickle
from skeletongait.files.text import save_text
from skeletongait.cli import run_script
from skeletongait.main import main
from skeletongait.nets.models import build_model

TINY = ['skeletongait_tiny', 'skeletongait_tiny_2d', 'skeletongait_tiny_3d', 'skeletongaitpp_tiny',
        'skeletongaitpp_tiny_w48_emb2']
FULL = ['skeletongait_Gait3D', 'skeletongaitpp_Gait3D']


def published(model_cfg, path, prefix='module.', momentum=True, **more):
    "Write a checkpoint as published ones are: four entries, states of its time's torch, names of a wrapped model."
    model = fill(build_model(model_cfg))
    weights = list(model.parameters())
    buffers = {i: {'momentum_buffer': torch.full_like(p, 1e-4)} for i, p in enumerate(weights)} if momentum else {}
    group = dict(lr=.1*.1**3, momentum=.9, dampening=0, weight_decay=5e-4, nesterov=False, initial_lr=.1,
                 params=list(range(len(weights))))
    schedule = dict(milestones={20000: 1, 30000: 1, 40000: 1}, gamma=.1, base_lrs=[.1], last_epoch=60000,
                    _step_count=60001, verbose=False, _get_lr_called_within_step=False, _last_lr=[.1*.1**3])
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(model={prefix+k: v for k, v in model.state_dict().items()},
                    optimizer=dict(state=buffers, param_groups=[group]), scheduler=schedule, iteration=60000, **more),
                    path)
    return path


def write_frames(root, x_nschw, lengths=None):
    "Golden input as a linked tree: two test subjects, their sequences cut to `lengths`, and two training subjects."
    if lengths is not None:
        x_nschw = np.split(x_nschw.reshape(-1, *x_nschw.shape[2:]), np.cumsum(lengths)[:-1])
    names = [('0', 'a'), ('0', 'b'), ('1', 'a'), ('1', 'b')][:len(x_nschw)]
    for (subject, kind), x in [*zip(names, x_nschw), *((('8', k), x_nschw[0]) for k in 'ab'),
                               *((('9', k), x_nschw[1]) for k in 'ab')]:
        folder = root/'linked'/subject/kind/'000'
        save_pickle(x[:, :2]*np.float32(255), folder/'0_heatmap.pkl')
        save_pickle((x[:, 2] if x.shape[1] == 3 else x[:, 0])*np.float32(255), folder/'1_sil.pkl')
    save_text(json.dumps(dict(TRAIN_SET=['8', '9'], TEST_SET=['0', '1'],
                              PROBE_SET=[f'{s}-{k}-000' for s, k in names if k == 'b'])), root/'partition.json')


def settings(root, model_cfg, **trainer):
    "The published settings of Gait3D for this model, on these frames."
    pp = model_cfg['model'] == 'SkeletonGaitPP'
    tree = to_dict(load_config('skeletongait++_Gait3D' if pp else 'skeletongait_Gait3D')[0])
    tree['data_cfg'] |= dict(dataset_root=str(root/'linked'), dataset_partition=str(root/'partition.json'),
                             num_workers=0)
    tree['model_cfg'] = model_cfg
    tree['evaluator_cfg'] |= dict(enable_float16=False, restore_hint=60000)
    if not pp or model_cfg.get('use_emb2'):
        tree['evaluator_cfg'] |= dict(eval_func='evaluate_gallery_probe',
                                      protocol=dict(gallery=dict(types=['a']),
                                                    probe=dict(types=['b']))) # else as published
    tree['trainer_cfg'] |= dict(enable_float16=False,
                                sampler=tree['trainer_cfg']['sampler']
                                | dict(batch_size=[2, 2], frames_num_fixed=3)) | trainer
    return make_config(tree)[0]


@pytest.fixture
def embeddings(monkeypatch, quiet_log):
    "What the test phase embeds, in the data set's order."
    seen, embed = [], train.embed
    monkeypatch.setattr(train, 'embed', lambda *args, **kwargs: seen.append(embed(*args, **kwargs)) or seen[-1])
    return seen


def start(cfg, root, phase, *args):
    return run_script(main, [f'--cfgs={write_config(cfg, root/"x.yaml")}', f'--phase={phase}',
                             f'--output_root={root}/output', *args])


def close(a, b, tol=1e-5):
    assert a.shape == b.shape and np.abs(a.numpy() - b).max() <= tol*np.abs(b).max()


@pytest.mark.parametrize('name, prefix',
                         [(n, 'module.') for n in TINY + FULL]
                         + [('skeletongait_tiny', ''), ('skeletongaitpp_tiny', '')])
def test_published_weights_give_the_published_embeddings(tmp_path, embeddings, capsys, name, prefix):
    "Strictly loaded, by the command line: the four sequences, and others of different lengths in one packed batch."
    d = load(f'model_{name}')
    cfg = settings(tmp_path, d['model_cfg'])
    path = published(d['model_cfg'], Run(cfg, tmp_path/'output').checkpoint(60000), prefix, momentum=name in TINY)
    write_frames(tmp_path, d['x'])
    assert start(cfg, tmp_path, 'test') == 0
    close(embeddings[0], d['eval_inference'])
    said = capsys.readouterr().out
    use_emb2 = d['model_cfg'].get('use_emb2', False)
    assert (f"does not say by which embedding it is tested; the settings choose embed_{1+use_emb2} "
            f"(model_cfg.use_emb2: {str(use_emb2).lower()})") in said
    assert 'Warning' not in said
    results = json.loads(Run(cfg, tmp_path/'output').results(60000).read_text())
    assert (results['iteration'], results['embedding']) == (60000, f'embed_{1+use_emb2}')
    write_frames(tmp_path/'packed', d['x'], d['packed_lengths'])
    assert start(settings(tmp_path/'packed', d['model_cfg']), tmp_path, 'test',
                 f'--set=evaluator_cfg.restore_hint={path}') == 0
    close(embeddings[1], d['packed_inference'])


def test_mixed_precision_is_close(tmp_path, embeddings):
    "As published: the test runs in half precision."
    d = load('model_skeletongait_tiny')
    cfg = settings(tmp_path, d['model_cfg'])
    cfg.evaluator_cfg.enable_float16 = True
    published(d['model_cfg'], Run(cfg, tmp_path/'output').checkpoint(60000))
    write_frames(tmp_path, d['x'])
    assert start(cfg, tmp_path, 'test') == 0
    close(embeddings[0], d['eval_inference'], .05)


def test_training_resumes_from_a_published_checkpoint(tmp_path, capsys):
    "Weights, momentum and schedule of an older torch, at iteration 60000, for two steps; what is saved then is ours."
    d = load('model_skeletongait_tiny')
    cfg = settings(tmp_path, d['model_cfg'], total_iter=60002, restore_hint=60000, log_iter=1)
    run = Run(cfg, tmp_path/'output')
    published(d['model_cfg'], run.checkpoint(60000))
    write_frames(tmp_path, d['x'])
    assert start(cfg, tmp_path, 'train') == 0
    said = capsys.readouterr().out
    assert 'resuming at iteration 60000' in said and 'lr 0.0001' in said
    state = load_checkpoint(run.checkpoint(60002))
    assert run.iterations() == [60000, 60002] and state['iteration'] == 60002
    assert state['embedding'] == 'embed_1'
    assert state['optimizer']['param_groups'][0]['lr'] == pytest.approx(1e-4)
    moved = state['optimizer']['state'][0]['momentum_buffer']
    assert torch.isfinite(moved).all() and moved.abs().sum() > 0


# What goes wrong with somebody else's file: one line that says what to set

def refused(capsys, root, cfg, phase='test'):
    assert start(cfg, root, phase) == 2
    said = capsys.readouterr().err
    assert 'Traceback' not in said and len(said.splitlines()) <= 12
    return said.splitlines()[0]


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "A published checkpoint of each network, and frames for both."
    root = tmp_path_factory.mktemp('files')
    for name in ('skeletongait_tiny', 'skeletongaitpp_tiny'):
        d = load(f'model_{name}')
        published(d['model_cfg'], root/f'{name}.pt')
    write_frames(root, d['x'])
    return root


@pytest.mark.parametrize('name, key, value, right', [
    ('skeletongait_tiny', 'SeparateBNNecks.class_num', 20, 10),
    ('skeletongait_tiny', 'Backbone.layers', [1, 4, 4, 1], [1, 1, 1, 1]),
    ('skeletongait_tiny', 'Backbone.in_channels', 3, 2),
    ('skeletongait_tiny', 'Backbone.channels', [64, 128, 256, 512], [8, 16, 32, 64]),
    ('skeletongait_tiny', 'Backbone.mode', '3d', 'p3d'), ('skeletongait_tiny', 'Backbone.mode', '2d', 'p3d'),
    ('skeletongaitpp_tiny', 'SeparateBNNecks.class_num', 3000, 10),
    ('skeletongaitpp_tiny', 'Backbone.blocks', [1, 4, 4, 1], [1, 1, 1, 1]),
    ('skeletongaitpp_tiny', 'Backbone.in_channels', 2, 3),
    ('skeletongaitpp_tiny', 'Backbone.C', 2, 1), ('skeletongaitpp_tiny', 'Backbone.fusion', 'CatFusion', 'attention'),
    ('skeletongaitpp_tiny', 'Backbone.fusion', 'PlusFusion', 'attention')])
def test_a_wrong_setting_is_named_with_the_right_value(files, tmp_path, capsys, name, key, value, right):
    model_cfg = load(f'model_{name}')['model_cfg']
    section, word = key.split('.')
    wrong = model_cfg | {section: model_cfg[section] | {word: value}}
    cfg = settings(files, wrong)
    cfg.evaluator_cfg.restore_hint = str(files/f'{name}.pt')
    said = refused(capsys, tmp_path, cfg)
    assert f'{name}.pt: the checkpoint was made ' in said
    assert f'model_cfg.{key} is {value}: set it to {right}' in said and said.count('set it to') == 1


@pytest.mark.parametrize('phase', ['test', 'train'])
@pytest.mark.parametrize('mine, other, theirs',
                         [('skeletongait_tiny', 'skeletongaitpp_tiny', 'SkeletonGaitPP'),
                          ('skeletongaitpp_tiny', 'skeletongait_tiny', 'SkeletonGait')])
def test_the_checkpoint_of_the_other_network(files, tmp_path, capsys, mine, other, theirs, phase):
    cfg = settings(files, load(f'model_{mine}')['model_cfg'], restore_hint=str(files/f'{other}.pt'))
    cfg.evaluator_cfg.restore_hint = str(files/f'{other}.pt')
    said = refused(capsys, tmp_path, cfg, phase)
    assert f'{other}.pt: this is a checkpoint of {theirs}, model_cfg.model is ' in said
    assert f'set it to {theirs}, with Backbone {{' in said


def test_following_the_advice_works(files, tmp_path):
    "What `describe_weights` finds in a file is a `model_cfg` that fits it."
    for name in ('skeletongait_tiny', 'skeletongaitpp_tiny'):
        made = describe_weights(load_checkpoint(files/f'{name}.pt')['model'])
        cfg = settings(files, made)
        cfg.evaluator_cfg.restore_hint = str(files/f'{name}.pt')
        assert start(cfg, tmp_path, 'test') == 0


@pytest.mark.parametrize('stored, use_emb2', [('embed_1', True), ('embed_2', False), (None, True), (None, False)])
def test_the_other_embedding_is_logged_and_used(tmp_path, embeddings, capsys, stored, use_emb2):
    "A file of ours says which; a published one does not. The settings decide in any case."
    d = load('model_skeletongaitpp_tiny')
    cfg = settings(tmp_path, d['model_cfg'] | dict(use_emb2=use_emb2))
    published(d['model_cfg'], Run(cfg, tmp_path/'output').checkpoint(60000),
              **({} if stored is None else dict(embedding=stored)))
    write_frames(tmp_path, d['x'])
    assert start(cfg, tmp_path, 'test') == 0
    said, now = capsys.readouterr().out, f'embed_{1+use_emb2}'
    if stored:
        assert 'THE EMBEDDING HAS CHANGED' in said
        assert (f'was trained to be tested by {stored}, the settings test by {now}; set model_cfg.use_emb2: '
                f'{str(not use_emb2).lower()} to compare {stored}') in said
    else:
        assert f'the settings choose {now} (model_cfg.use_emb2: {str(use_emb2).lower()})' in said
    if use_emb2:
        close(embeddings[0].norm(dim=1), np.ones((4, 16)))   # embed_2 has unit length
    else:
        close(embeddings[0], d['eval_embed1'])
