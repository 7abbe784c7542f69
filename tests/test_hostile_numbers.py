"Numbers and sizes that nothing can be done with: settings, environments, embeddings, trees and partitions."
import copy

import pytest

from skeletongait.config import MOST, check_ready, config_hash, load_config, make_config, to_dict, to_yaml
from skeletongait.core import SkeletonGaitError

VALUES = [-1, 0, float('nan'), float('inf'), 1e308, 10**30, 10**400, 'x', [], {}, None, True]


def leaves(o, at=()):
    "The path of every value in a tree, of lists and mappings too."
    for k, v in o.items() if isinstance(o, dict) else enumerate(o):
        if isinstance(v, (dict, list)): yield from leaves(v, (*at, k))
        yield (*at, k)


def put(tree, at, value):
    "A copy of `tree` with another value at a path."
    tree = here = copy.deepcopy(tree)
    for k in at[:-1]: here = here[k]
    here[at[-1]] = value
    return tree


def settings_of(name):
    "All settings of a packaged configuration, and those that it leaves out."
    tree = to_dict(load_config(name)[0])
    tree['data_cfg'] |= dict(render={}, render_sigma=[4, 8], data_in_use=[True, False])
    return tree | dict(evaluator_cfg=tree['evaluator_cfg'] | dict(eval_func='evaluate_gallery_probe', protocol={
        'gallery': {'types': 'a'}, 'exclude': ['view'], 'conditions': {'A': {'probe': {'types': ['b'], 'names': ['a-b-c']}}}, 'submission': {'top': 5}, 'best': None, 'note': 'n',
        'tables': [{'per': 'all', 'measures': ['Rank-1'], 'decimals': 2}]}))


TREES = {name: settings_of(name) for name in ('demo_skeletongait', 'skeletongait++_CCPG')}


@pytest.mark.parametrize('name', TREES)
def test_any_value_anywhere_in_the_settings_is_read_or_refused_in_one_line(name):
    for at in leaves(TREES[name]):
        for value in VALUES:
            try:
                cfg, _ = make_config(put(TREES[name], at, value))
                assert len(to_yaml(cfg)) < 50_000 and config_hash(cfg)
            except SkeletonGaitError as e: assert '\n' not in str(e) and len(str(e)) < 1500, (at, value)
            else:
                try: check_ready(cfg, 'train')
                except SkeletonGaitError: pass


@pytest.mark.parametrize('change, key', [
    ('trainer_cfg.total_iter=10000000000000000', 'trainer_cfg.total_iter'), ('evaluator_cfg.sampler.batch_size=1000000000', 'evaluator_cfg.sampler.batch_size'), ('optimizer_cfg.lr=1e300', 'optimizer_cfg.lr'),
    ('trainer_cfg.sampler.batch_size=[100000, 2]', 'trainer_cfg.sampler.batch_size'), (f'trainer_cfg.log_iter={MOST}', 'trainer_cfg.log_iter'), ('model_cfg.Backbone.layers=[1, 1, 1, 1000]', 'model_cfg.Backbone.layers'),
    ('data_cfg.num_workers=1000', 'data_cfg.num_workers'), ('loss_cfg[0].margin=1e12', 'loss_cfg[0].margin')])
def test_numbers_that_are_too_large_name_their_key(change, key):
    with pytest.raises(SkeletonGaitError, match='below') as e: load_config('demo_skeletongait', [change])
    assert f': {key}: found ' in str(e.value) and '\n' not in str(e.value)


def test_many_iterations_are_fine():
    cfg, _ = load_config('demo_skeletongait', [f'trainer_cfg.total_iter={MOST-1}'])
    check_ready(cfg, 'test')
    assert cfg.trainer_cfg.total_iter == MOST-1
