("The nine published configurations: as files of their time, and at full width on walkers that play the part of "
 "each data set.")
import json
import re

import pytest
import torch
import yaml

from skeletongait.runs.folder import Run
from skeletongait.runs.config import load_config, packaged_configs, parse_yaml
from skeletongait.runs.schema import make_config
from skeletongait.files.settings import to_dict, to_yaml
from skeletongait.files.tree import read_tree
from skeletongait.files.text import save_text
from skeletongait.ln_sil_heatmap import ln_sil_heatmap
from skeletongait.main import main
from skeletongait.nets.models import build_model
from skeletongait.files.arrays import load_array
from skeletongait.pretreatment_heatmap import pretreatment_heatmap
from skeletongait.walkers.datasets import DATA_SET_NAMES, write_like

NINE = [n for n in packaged_configs() if not n.startswith('demo')]
MILLIONS = {'skeletongait_Gait3D': 25.49, 'skeletongait_GREW': 95.12, 'skeletongait_OUMVLP': 29.14,
            'skeletongait_SUSTech1K': 9.06, 'skeletongait_CCPG': 8.45,
            'skeletongait++_Gait3D': 25.57, 'skeletongait++_GREW': 95.20, 'skeletongait++_SUSTech1K': 9.14,
            'skeletongait++_CCPG': 8.52}  # parameters


# Files as they were published: the same settings, in the words of their time

SPELT_RIGHT = ('skeletongait++_CCPG', 'skeletongait_CCPG')  # the other seven write loss_term_weights

def as_published(name):
    "The text of a packaged configuration with old keys, old spellings and block lists."
    tree = to_dict(load_config(name)[0])
    del tree['output_root']
    for section, key in (('data_cfg', 'max_file_mb'), ('data_cfg', 'max_frames'), ('trainer_cfg', 'keep_last'),
                         ('trainer_cfg', 'seed')):
        del tree[section][key]
    tree['data_cfg'] |= dict(remove_no_gallery=False, cache=False)
    tree['evaluator_cfg']['sampler']['batch_shuffle'] = False
    if name not in SPELT_RIGHT:
        for o in tree['loss_cfg']:
            o['loss_term_weights'] = o.pop('loss_term_weight')
    return yaml.safe_dump(tree, default_flow_style=False, sort_keys=True)

@pytest.mark.parametrize('name', NINE)
def test_a_published_file_loads_unchanged(name):
    cfg, notices = make_config(parse_yaml(as_published(name)))
    assert cfg == load_config(name)[0]
    assert len(notices) == 2 + 2*(name not in SPELT_RIGHT)
    assert all(re.search('deprecated, has no effect|read as loss_term_weight$', o) for o in notices)

def test_a_checkpoint_from_another_machine():
    "One published file names a checkpoint by its path there, and a partition beside the code."
    text = as_published('skeletongait++_Gait3D')
    text = text.replace('restore_hint: 60000', 'restore_hint: ../runs/a/checkpoints/a-60000.pt')
    text = text.replace('your_path/Gait3D.json', './datasets/Gait3D/Gait3D.json')
    cfg, _ = make_config(parse_yaml(text))
    assert (cfg.evaluator_cfg.restore_hint, cfg.data_cfg.dataset_partition) == ('../runs/a/checkpoints/a-60000.pt',
        './datasets/Gait3D/Gait3D.json')


# Built, trained for a step and tested, at full width

@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    "A linked tree of walkers for each data set, made by the first two steps with its options, when first asked for."
    made = {}
    def tree(name):
        if name in made: return made[name]
        root = tmp_path_factory.mktemp(name)
        write_like(root, name, n_train=2, n_test=2, n_frames=5)
        assert pretreatment_heatmap(str(root/'pose'), str(root/'maps'), name) == 0
        ending = {'CCPG': 'aligned-sils.pkl', 'SUSTech1K': 'Camera-Sils_aligned.pkl'}.get(name, '.pkl')
        assert ln_sil_heatmap(str(root/'maps'/f'{name}_sigma_8.0_'/'pkl'), str(root/'silhouette'), str(root/'linked'),
                              ending) == 0
        return made.setdefault(name, root)
    return tree

FIGURES = {  # what a test of each must report
    ('evaluate_Gait3D', 'Gait3D'): ('Rank-1', 'Rank-5', 'Rank-10', 'mAP', 'mINP'), ('GREW_submission', 'GREW'): (),
    ('evaluate_indoor_dataset', 'OUMVLP'): ('NM@R1',),
    ('evaluate_indoor_dataset',
     'SUSTech1K'): tuple(f'{o}@R{k}'
                         for o in ('Normal', 'Bag', 'Clothing', 'Carrying', 'Umberalla', 'Uniform', 'Occlusion',
                                   'Night', 'Overall') for k in (1, 5)),
    ('evaluate_CCPG', 'CCPG'): tuple(f'{o}@R1' for o in ('CL', 'UP', 'DN', 'BG'))
    + tuple(f'ReID {o} {m}' for o in ('CL', 'UP', 'DN', 'BG') for m in ('Rank-1', 'mAP', 'mINP'))}

def small_run(name, root, out):
    "The file of a run of one step, with 2 x 2 sequences of 4 frames; all else as published."
    dataset = name.split('_')[1]
    changes = [f'data_cfg.dataset_root={root}/linked', f'data_cfg.dataset_partition={root}/{dataset}.json',
               'data_cfg.num_workers=0', 'trainer_cfg.sampler.batch_size=[2,2]',
               'trainer_cfg.sampler.frames_num_fixed=4', 'trainer_cfg.total_iter=1', 'trainer_cfg.save_iter=1',
               'trainer_cfg.log_iter=1', 'evaluator_cfg.sampler.frames_all_limit=2']
    cfg, _ = load_config(name, changes)
    save_text(to_yaml(cfg), out/'run.yaml')
    return cfg, str(out/'run.yaml')

def trained_and_tested(name, trees, out):
    "The file of results of a run of one step."
    root, dataset = trees(name.split('_')[1]), name.split('_')[1]
    cfg, path = small_run(name, root, out)
    assert main(path, 'train', output_root=str(out)) == 0 and main(path, 'test', output_root=str(out)) == 0
    folder = out/dataset/cfg.model_cfg.model/cfg.trainer_cfg.save_name
    checkpoint = folder/'checkpoints'/f'{cfg.trainer_cfg.save_name}-00001.pt'
    state = torch.load(checkpoint, weights_only=True, mmap=True)
    assert state['iteration'] == 1 and all(torch.isfinite(v).all() for v in state['model'].values())
    assert next(v for k, v in state['model'].items() if 'fc_bin' in k
                and 'BNNecks' in k).shape[-1] == cfg.model_cfg.SeparateBNNecks.class_num
    del state
    checkpoint.unlink()  # up to a gigabyte
    return cfg, Run(cfg, out).results(1)

def check(name, trees, out):
    cfg, path = trained_and_tested(name, trees, out)
    results, e = json.loads(path.read_text()), cfg.evaluator_cfg
    assert (results['iteration'], results['eval_func'], results['metric'], results['embedding']) == (1, e.eval_func,
        'euc', 'embed_2' if name == 'skeletongait_CCPG' else 'embed_1')
    for key in FIGURES[e.eval_func, cfg.data_cfg.test_dataset_name]:
        assert results[key] is None or 0 <= results[key] <= 100, key
    if e.eval_func == 'GREW_submission':
        head, *rows = path.with_name(f'{path.stem}-submission.csv').read_text().splitlines()
        assert head.split(',')[:2] == ['videoId', 'rank1'] and len(rows) == 2
        assert all({'1', '2'} == set(r.split(',')[1:]) - {''} for r in rows)

@pytest.mark.parametrize('name', [n for n in NINE if 'GREW' not in n])
def test_trains_and_tests(name, trees, tmp_path): check(name, trees, tmp_path)

@pytest.mark.slow
@pytest.mark.parametrize('name', [n for n in NINE if 'GREW' in n])
def test_trains_and_tests_with_twenty_thousand_classes(name, trees, tmp_path): check(name, trees, tmp_path)

@pytest.mark.parametrize('name', NINE)
def test_parameters(name):
    "Counted without memory for them."
    with torch.device('meta'):
        model = build_model(to_dict(load_config(name)[0].model_cfg))
    assert round(sum(p.numel() for p in model.parameters())/1e6, 2) == MILLIONS[name]

def test_frames_reach_the_networks_44_wide(trees):
    "Gait3D stores silhouettes 44 wide, the others 64; maps are 64 wide."
    for name in ('Gait3D', 'OUMVLP'):
        maps, sils = next(iter(read_tree(trees(name)/'linked').sequences.values()))
        assert (maps.name, sils.name) == ('0_heatmap.pkl', '1_sil.pkl')
        assert load_array(maps).shape == (5, 2, 64, 64)
        assert load_array(sils).shape == (5, 64, DATA_SET_NAMES[name].width)
