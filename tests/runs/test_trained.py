"A trained run in Python has the network, the settings and the embedding of the test phase."
import shutil

import numpy as np
import pytest
import torch
from toys import quiet_log, tiny, write_config

from skeletongait.runs.folder import Run
from skeletongait.runs.config import load_config
from skeletongait.files.settings import to_dict
from skeletongait.core import SkeletonGaitError
from skeletongait.files.text import save_text
from skeletongait.data.loader import make_loader
from skeletongait.data.streams import sequence_files
from skeletongait.evaluation.ranking import embeddings_file, read_embeddings
from skeletongait.cli import run_script
from skeletongait.main import main
from skeletongait.files.arrays import load_pickle
from skeletongait.runs import trained as loading
from skeletongait.runs.trained import load_run, read_walk
from skeletongait.runs.trainer import make_dataset

CASES = [('demo_skeletongait', False), ('demo_skeletongait', True), ('demo_skeletongait++', False),
         ('demo_skeletongait++', True)]


def settings(root, name, use_emb2):
    cfg = tiny(root, name, save_iter=2, total_iter=4)
    cfg.model_cfg.use_emb2, cfg.evaluator_cfg.save_embeddings = use_emb2, True
    if cfg.model_cfg.model == 'SkeletonGaitPP':
        cfg.model_cfg.Backbone.C = 1/8
    return cfg


@pytest.fixture(scope='module', params=CASES, ids=[f'{n}, embed_{1+e}' for n, e in CASES])
def done(request, walkers, tmp_path_factory):
    "Settings and folder of a run that was trained and tested by the script."
    cfg, out = settings(walkers, *request.param), tmp_path_factory.mktemp('out')
    path = write_config(cfg, out/'run.yaml')
    for phase in ('train', 'test'):
        assert run_script(main, [f'--cfgs={path}', f'--phase={phase}', f'--output_root={out}']) == 0
    quiet_log()
    return cfg, Run(cfg, out)


@pytest.fixture(scope='module')
def one(walkers, tmp_path_factory):
    "The same, for the first case alone; tests change copies of its folder only."
    cfg, out = settings(walkers, 'demo_skeletongait', False), tmp_path_factory.mktemp('one')
    assert run_script(main, [f'--cfgs={write_config(cfg, out/"run.yaml")}', '--phase=train',
                             f'--output_root={out}']) == 0
    quiet_log()
    return cfg, Run(cfg, out)


def close(a, b): np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-5*b.abs().max().item())


def test_embeddings_are_those_of_the_test(done, walkers):
    "As `evaluator_cfg.save_embeddings` saves them."
    cfg, run = done
    kept, trained = read_embeddings(embeddings_file(run.results(4))), load_run(run.folder)
    x = trained.embed([s.path(walkers/'linked') for s in kept.sequences])
    close(x, kept.embeddings)
    assert (trained.embedding, trained.iteration,
            trained.path) == ('embed_2' if cfg.model_cfg.use_emb2 else 'embed_1', 4, run.checkpoint(4))
    norm_is_one = bool((x.norm(dim=1) - 1).abs().max() < 1e-5)
    assert norm_is_one == cfg.model_cfg.use_emb2  # as only the second embedding is


def test_a_batch_of_the_loader(done):
    cfg, run = done
    kept = read_embeddings(embeddings_file(run.results(4))).embeddings
    data = make_dataset(cfg, training=False)[0]
    loader, trained = make_loader(data, to_dict(cfg.evaluator_cfg.sampler), 0, num_workers=0), load_run(run.folder)
    assert torch.equal(torch.cat([trained.embed(batch) for batch in loader]), kept)


def test_arrays_in_memory(done, walkers):
    cfg, run = done
    folder, trained = walkers/'linked/005/bg-01/090', load_run(run.folder)
    arrays = [load_pickle(f) for f in sequence_files(folder, cfg.data_cfg.data_in_use)]
    walks = [folder, str(folder), arrays] + [arrays[0]]*(len(arrays) == 1)
    x = trained.embed(walks)
    assert all(torch.equal(o, x[0]) for o in x)
    assert trained.frames(folder).shape == (10, trained.model.in_channels, 64, 44)


def test_settings_of_the_folder_are_used(one, tmp_path, caplog, walkers):
    "Another embedding in config.yaml is compared, and the log says so."
    folder = shutil.copytree(one[1].folder, tmp_path/'moved')
    walk, first = walkers/'linked/004/nm-01/000', load_run(folder)
    before = first.embed([walk])
    save_text((folder/'config.yaml').read_text().replace('use_emb2: false', 'use_emb2: true'), folder/'config.yaml')
    second = load_run(folder)
    assert (first.embedding, second.embedding, second.path.parent.parent) == ('embed_1', 'embed_2', folder)
    assert 'THE EMBEDDING HAS CHANGED' in caplog.text
    after = second.embed([walk])
    np.testing.assert_allclose(after.norm(dim=1), 1, atol=1e-5)
    assert (before - after).abs().max() > 1e-3


def test_frames_are_limited_as_in_a_test(one, tmp_path, walkers):
    folder = shutil.copytree(one[1].folder, tmp_path/'short')
    cfg = load_config(folder/'config.yaml', ['evaluator_cfg.sampler.frames_all_limit=3'])[0]
    assert [len(load_run(folder, cfg=c).frames(walkers/'linked/004/nm-01/000')) for c in (None, cfg)] == [10, 3]


def test_which_checkpoint(one, tmp_path):
    run = one[1]
    assert [load_run(run.folder, i).iteration for i in (None, 2, 4)] == [4, 2, 4]
    with pytest.raises(SkeletonGaitError, match='no such checkpoint; this run has 2, 4'):
        load_run(run.folder, 3)
    with pytest.raises(SkeletonGaitError, match='this run has no record of its best checkpoint'):
        load_run(run.folder, 'best')
    moved = shutil.copytree(run.folder, tmp_path/'elsewhere')
    save_text('{"iteration": 2, "name": "Rank-1", "value": 50.0}', moved/'checkpoints/best.json')
    assert load_run(moved, 'best').path == moved/'checkpoints'/run.checkpoint(2).name
    (moved/'checkpoints'/run.checkpoint(4).name).write_bytes(b'half')
    assert load_run(moved).iteration == 2


def test_checkpoints_alone(one, tmp_path, caplog):
    "Settings beside it, in it, none, or given."
    cfg, run = one
    assert load_run(run.checkpoint(2)).cfg.data_cfg.dataset_root == cfg.data_cfg.dataset_root
    state = torch.load(shutil.copy(run.checkpoint(2), tmp_path/'a.pt'), weights_only=True)
    own = load_run(tmp_path/'a.pt')
    assert own.cfg.data_cfg.data_in_use == cfg.data_cfg.data_in_use and own.iteration == 2 and not own.model.training
    torch.save(dict(model={f'module.{k}': v for k, v in state['model'].items()}), tmp_path/'published.pt')
    assert 'holds no settings' not in caplog.text
    bare = load_run(tmp_path/'published.pt')
    assert 'published.pt: holds no settings' in caplog.text
    assert (bare.cfg.data_cfg.data_in_use, bare.embedding, bare.iteration) == (None, 'embed_1', 0)
    cfg = load_config(run.config, ['model_cfg.use_emb2=true'])[0]
    assert load_run(tmp_path/'published.pt', cfg=cfg).embedding == 'embed_2'


def test_paths_that_are_not_runs(one, tmp_path):
    cfg, run = one
    for path, says in ((tmp_path, 'holds no config.yaml'), (tmp_path/'none.pt', 'none.pt: no such checkpoint')):
        with pytest.raises(SkeletonGaitError, match=says):
            load_run(path)
    with pytest.raises(SkeletonGaitError, match='not a folder, so iteration 2 cannot be chosen'):
        load_run(run.checkpoint(4), 2)
    folder = tmp_path/'empty'
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns('*.pt'))
    with pytest.raises(SkeletonGaitError, match='empty: found no checkpoint demo-.*pt in checkpoints'):
        load_run(folder)
    save_text('output_root: x\n', folder/'config.yaml')
    with pytest.raises(SkeletonGaitError, match='config.yaml: model_cfg: not set'):
        load_run(folder)


def test_a_run_whose_settings_changed_does_not_fit(one, tmp_path):
    folder = shutil.copytree(one[1].folder, tmp_path/'other')
    save_text((folder/'config.yaml').read_text().replace('class_num: 4', 'class_num: 9'), folder/'config.yaml')
    with pytest.raises(SkeletonGaitError, match='class_num is 9: set it to 4'):
        load_run(folder)


@pytest.mark.parametrize('walks, says', [
    ('a/folder', 'found one sequence, a/folder; expected a list'),
    (np.zeros((3, 2, 64, 64), np.uint8), 'found one sequence, an array; expected a list'),
    ([], 'found an empty list'), ([[]], 'found no array'), (['a/folder'], 'a/folder: no such folder'),
    ([np.zeros((3, 64, 48, 2), np.uint8)], 'takes widths'), ([np.zeros((3, 17, 3))], 'holds poses'),
    ([np.zeros((3, 3, 64, 64), np.uint8)], 'has 3 channels'),
    ([[np.zeros((3, 2, 64, 64), np.uint8), np.zeros((2, 64, 64), np.uint8)]], 'the same number of frames'),
    ([[None]], 'holds a NoneType')])
def test_walks_that_cannot_be_read(one, walks, says):
    with pytest.raises(SkeletonGaitError, match=says):
        load_run(one[1].folder).embed(walks)


def test_poses_are_drawn_with_the_settings_of_the_run(one, tmp_path, walkers):
    "A pose gives the same as its drawn file."
    cfg = load_config(one[1].config, ['data_cfg.render={}'])[0]
    trained = load_run(one[1].folder, cfg=cfg)
    pose, = (load_pickle(f) for f in sequence_files(walkers/'pose/005/bg-01/090'))
    assert read_walk(pose, cfg)[0][0].shape == (10, 17, 3)
    a, b = trained.embed([pose, walkers/'linked/005/bg-01/090'])
    close(a, b)


def test_precision_is_that_of_the_test(one, monkeypatch):
    "Where a test ignores mixed precision, as on an Apple GPU, so does a loaded run."
    cfg = load_config(one[1].config, ['evaluator_cfg.enable_float16=true'])[0]
    run, asked, mixed = load_run(one[1].folder, cfg=cfg), [], []
    monkeypatch.setattr(loading, 'mixed_precision', lambda where, wanted: asked.append((where.type, wanted)))
    monkeypatch.setattr(loading, 'embed_batch', lambda model, batch, m: mixed.append(m) or torch.zeros(1, 1, 1))
    run.embed([np.zeros((3, 2, 64, 64), np.uint8)])
    assert asked == [('cpu', True)] and mixed == [None]


def test_iteration_0_is_not_a_checkpoint(one):
    with pytest.raises(SkeletonGaitError, match='found iteration 0; expected the iteration of a checkpoint'):
        load_run(one[1].folder, 0)
