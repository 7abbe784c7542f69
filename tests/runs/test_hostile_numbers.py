"Invalid numbers and sizes: in settings, environments, embeddings, trees and partitions."

import os
from pathlib import Path

import numpy as np
import pytest
from hostile import paths, put

from skeletongait.files.settings import MOST, to_dict, to_yaml
from skeletongait.runs.config import check_ready, config_hash, load_config
from skeletongait.runs.schema import make_config
from skeletongait.files.tree import Sequence, Tree, read_tree, walk
from skeletongait.core import SkeletonGaitError
from skeletongait.data.partition import make_partition
from skeletongait.evaluation.ranking import make_embedding_set
from skeletongait.evaluation.protocols import GalleryProbe

VALUES = [-1, 0, float('nan'), float('inf'), 1e308, 10**30, 10**400, 'x', [], {}, None, True]


def settings_of(name):
    "All settings of a packaged configuration, and those that it leaves out."
    tree = to_dict(load_config(name)[0])
    tree['data_cfg'] |= dict(render={}, render_sigma=[4, 8], data_in_use=[True, False])
    return tree | dict(
        evaluator_cfg=tree['evaluator_cfg']
        | dict(
            eval_func='evaluate_gallery_probe',
            protocol={
                'gallery': {'types': 'a'},
                'exclude': ['view'],
                'conditions': {'A': {'probe': {'types': ['b'], 'names': ['a-b-c']}}},
                'submission': {'top': 5},
                'best': None,
                'note': 'n',
                'tables': [{'per': 'all', 'measures': ['Rank-1'], 'decimals': 2}],
            },
        )
    )


TREES = {name: settings_of(name) for name in ('demo_skeletongait', 'skeletongait++_CCPG')}


@pytest.mark.parametrize('name', TREES)
def test_any_value_anywhere_in_the_settings_is_read_or_refused_in_one_line(name):
    for at in paths(TREES[name]):
        for value in VALUES:
            try:
                cfg, _ = make_config(put(TREES[name], at, value))
                assert len(to_yaml(cfg)) < 50_000 and config_hash(cfg)
            except SkeletonGaitError as e:
                assert '\n' not in str(e) and len(str(e)) < 1500, (at, value)
            else:
                try:
                    check_ready(cfg, 'train')
                except SkeletonGaitError:
                    pass


@pytest.mark.parametrize(
    'change, key',
    [
        ('trainer_cfg.total_iter=10000000000000000', 'trainer_cfg.total_iter'),
        ('evaluator_cfg.sampler.batch_size=1000000000', 'evaluator_cfg.sampler.batch_size'),
        ('optimizer_cfg.lr=1e300', 'optimizer_cfg.lr'),
        ('trainer_cfg.sampler.batch_size=[100000, 2]', 'trainer_cfg.sampler.batch_size'),
        (f'trainer_cfg.log_iter={MOST}', 'trainer_cfg.log_iter'),
        ('model_cfg.Backbone.layers=[1, 1, 1, 1000]', 'model_cfg.Backbone.layers'),
        ('data_cfg.num_workers=1000', 'data_cfg.num_workers'),
        ('loss_cfg[0].margin=1e12', 'loss_cfg[0].margin'),
    ],
)
def test_numbers_that_are_too_large_name_their_key(change, key):
    with pytest.raises(SkeletonGaitError, match='below|between') as e:
        load_config('demo_skeletongait', [change])
    assert f': {key}: found ' in str(e.value) and '\n' not in str(e.value)


def test_many_iterations_are_fine():
    cfg, _ = load_config('demo_skeletongait', [f'trainer_cfg.total_iter={MOST - 1}'])
    check_ready(cfg, 'test')
    assert cfg.trainer_cfg.total_iter == MOST - 1


def embeddings(x):
    "Eight embeddings of four people, or the error that says why not."
    return make_embedding_set(x, [f'{i // 2}' for i in range(8)], ['a', 'b'] * 4, ['0'] * 8)


X = np.random.default_rng(0).normal(size=(8, 4, 3))


@pytest.mark.parametrize(
    'x',
    [
        X[:, :, :0],
        X[:, :0],
        X[:0],
        X * 1e31,
        X * 1e200,
        X * 1e-31,
        X * 1e-200,
        X * np.inf,
        np.where(X == X[3, 2, 1], np.nan, X),
        X.astype(complex),
        X > 0,
        X.astype(object),
        X.astype(str),
        [[1.0], [1.0, 2.0]],
        5,
        None,
        'x',
    ],
)
def test_invalid_embeddings_are_one_line(x):
    with pytest.raises(SkeletonGaitError) as e:
        embeddings(x)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('metric', ['euc', 'cos'])
@pytest.mark.parametrize('scale', [1e-29, 1e-13, 1e13, 1e29])
def test_embeddings_of_any_scale_rank_alike(metric, scale):
    ranked = [GalleryProbe({'types': 'a'}, {'types': 'b'}).results(embeddings(x), metric) for x in (X, X * scale)]
    assert ranked[0]['Rank-1'] == ranked[1]['Rank-1'] and ranked[0]['mAP'] == pytest.approx(ranked[1]['mAP'])


def test_a_tree_a_thousand_folders_deep_is_read(tmp_path):
    "Made from folder to folder."
    folders = [os.open(tmp_path, os.O_RDONLY)]
    for _ in range(1100):
        os.mkdir('d', dir_fd=folders[-1])
        folders.append(os.open('d', os.O_RDONLY, dir_fd=folders[-1]))
        os.close(folders[-2])
    os.close(os.open('x.pkl', os.O_CREAT | os.O_WRONLY, dir_fd=folders[-1]))
    os.close(folders[-1])
    assert [e.name for e in walk(tmp_path)] == ['x.pkl']
    with pytest.raises(SkeletonGaitError, match='1 at another depth'):
        read_tree(tmp_path)
    while (tmp_path / 'd' / 'd').exists():  # what removes trees is itself not made for such
        os.rename(tmp_path / 'd' / 'd', tmp_path / 'e')
        os.rmdir(tmp_path / 'd')
        os.rename(tmp_path / 'e', tmp_path / 'd')


def fake_tree(subjects, each):
    return Tree(
        Path('fake'),
        {
            Sequence(f'{i:05d}', f'nm-{k:02d}', '000'): (Path(f'{i}-{k}.pkl'),)
            for i in range(subjects)
            for k in range(each)
        },
        (),
    )


def test_partitions_of_many_subjects_are_as_they_were():
    "The same as by the definition, and soon enough for data sets of any size."
    tree, small = fake_tree(20_000, 2), fake_tree(40, 2)
    p, q = make_partition(tree, 0.5, probe=['*-nm-01-*']), make_partition(small, 0.5, seed=3, probe=['*-nm-01-*'])
    assert len(p.train) == len(p.test) == len(p.probe) == 10_000 and not {*p.train} & {*p.test}
    subjects = sorted({s.subject for s in small.sequences})
    train = np.random.default_rng(3).permutation(subjects)[:20].tolist()
    assert q == (
        tuple(sorted(train)),
        tuple(s for s in subjects if s not in train),
        tuple(str(s) for s in small.sequences if s.subject not in train and s.type == 'nm-01'),
        (),
    )
    assert make_partition(tree, list(p.train)).test == p.test
