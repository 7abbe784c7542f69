"Configurations: the published runs value by value, old files, and what is refused with which words."

import dataclasses
import inspect
import json
import os
import subprocess
import sys
from typing import get_args

import pytest
import torch
import yaml
from hypothesis import given, settings, strategies as st

from skeletongait.runs import config as C
from skeletongait.runs.schema import config_table, make_config, schema_rows
from skeletongait.runs.config import apply_changes, check_ready, config_hash, load_config, packaged_configs, parse_yaml
from skeletongait.runs.changes import computes, config_changes
from skeletongait.runs.optimizers import make_optimizer, make_scheduler
from skeletongait.files.settings import SettingsError, to_dict, to_yaml
from skeletongait.core import SkeletonGaitError, nearest
from skeletongait.nets.losses import CrossEntropyLoss, TripletLoss

NEEDS_MUON = pytest.mark.skipif(
    not hasattr(torch.optim, 'Muon'), reason='this torch has no Muon, which takes matrices only'
)

DEEP, FLAT = [1, 4, 4, 1], [1, 1, 1, 1]
# layers, classes, batch, milestones (thousands), total, save every (thousands), eval_func
PUBLISHED = {
    'skeletongait_Gait3D': (DEEP, 3000, [32, 4], [20, 30, 40], 60, 10, 'evaluate_Gait3D'),
    'skeletongait_GREW': (DEEP, 20000, [32, 4], [80, 120, 150], 180, 30, 'GREW_submission'),
    'skeletongait_OUMVLP': (FLAT, 5153, [32, 8], [60, 80, 100], 120, 20, 'evaluate_indoor_dataset'),
    'skeletongait_SUSTech1K': (FLAT, 250, [8, 8], [20, 30, 40], 50, 10, 'evaluate_indoor_dataset'),
    'skeletongait_CCPG': (FLAT, 100, [8, 16], [20, 30, 40], 60, 10, 'evaluate_CCPG'),
    'skeletongait++_Gait3D': (DEEP, 3000, [32, 4], [20, 30, 40], 60, 10, 'evaluate_Gait3D'),
    'skeletongait++_GREW': (DEEP, 20000, [32, 4], [80, 120, 150], 180, 30, 'GREW_submission'),
    'skeletongait++_SUSTech1K': (FLAT, 250, [8, 8], [20, 30, 40], 50, 10, 'evaluate_indoor_dataset'),
    'skeletongait++_CCPG': (FLAT, 100, [8, 16], [20, 30, 40], 60, 10, 'evaluate_CCPG'),
}


def read(text):
    return make_config(parse_yaml(text))


def refused(text, *words):
    "The one error of `text`, which holds all `words`."
    with pytest.raises(SettingsError) as e:
        read(text)
    message = str(e.value)
    assert '\n' not in message
    for w in words:
        assert w in message, message
    return message


class TestPublished:
    def test_all_nine_are_packaged(self):
        assert [n for n in packaged_configs() if not n.startswith('demo')] == sorted(PUBLISHED)

    @pytest.mark.parametrize('name', PUBLISHED)
    def test_values(self, name):
        layers, classes, batch, milestones, total, save, eval_func = PUBLISHED[name]
        pp, dataset, sustech = '++' in name, name.split('_')[1], 'SUSTech1K' in name
        cfg, notices = load_config(name)
        assert notices == []
        d, e, m, t = cfg.data_cfg, cfg.evaluator_cfg, cfg.model_cfg, cfg.trainer_cfg
        assert (d.dataset_name, d.test_dataset_name, d.dataset_root, d.num_workers) == (
            dataset,
            dataset,
            'your_path',
            4 if sustech else 1,
        )
        assert d.dataset_partition == (
            dataset if dataset in ('CCPG', 'OUMVLP', 'GREW') else f'your_path/{dataset}.json'
        )
        assert d.data_in_use == ([True, True] if pp else [True, False])
        assert m.model == ('SkeletonGaitPP' if pp else 'DeepGaitV2') and m.SeparateBNNecks.class_num == classes
        assert m.use_emb2 is (name == 'skeletongait_CCPG')
        if pp:
            assert (m.Backbone.in_channels, m.Backbone.blocks, m.Backbone.C) == (3, layers, 2)
        else:
            assert (m.Backbone.in_channels, m.Backbone.layers, m.Backbone.channels, m.Backbone.mode) == (
                2,
                layers,
                [64, 128, 256, 512],
                'p3d',
            )
        assert (t.total_iter, t.save_iter, t.log_iter, t.with_test) == (
            total * 1000,
            save * 1000,
            100,
            name == 'skeletongait_SUSTech1K',
        )
        assert (t.enable_float16, t.sync_BN, t.fix_BN, t.restore_hint, t.restore_ckpt_strict, t.seed) == (
            True,
            True,
            False,
            0,
            True,
            0,
        )
        assert t.save_name == e.save_name == ('SkeletonGaitPP' if pp else 'SkeletonGait')
        s = t.sampler
        assert (s.type, s.batch_size, s.batch_shuffle, s.frames_skip_num) == ('TripletSampler', batch, True, 4)
        assert (s.sample_type, s.frames_num_fixed) == (('fixed_unordered', 10) if sustech else ('fixed_ordered', 30))
        assert (e.eval_func, e.metric, e.enable_float16, e.restore_hint, e.restore_ckpt_strict) == (
            eval_func,
            'euc',
            True,
            total * 1000,
            True,
        )
        assert to_dict(e.sampler) == dict(
            type='InferenceSampler', batch_size=4, sample_type='all_ordered', frames_all_limit=720
        )
        assert to_dict(cfg.optimizer_cfg) == dict(solver='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)
        assert to_dict(cfg.scheduler_cfg) == dict(
            scheduler='MultiStepLR', gamma=0.1, milestones=[1000 * o for o in milestones]
        )
        assert [to_dict(o) for o in cfg.loss_cfg] == [
            dict(type='TripletLoss', log_prefix='triplet', loss_term_weight=1.0, margin=0.2),
            dict(
                type='CrossEntropyLoss',
                log_prefix='softmax',
                loss_term_weight=1.0,
                scale=16,
                label_smooth=True,
                eps=0.1,
                log_accuracy=True,
            ),
        ]

    @pytest.mark.parametrize('name', PUBLISHED)
    def test_transforms(self, name):
        cfg, _ = load_config(name)
        cut = {'type': 'BaseSilTransform' if name == 'skeletongait++_Gait3D' else 'BaseSilCuttingTransform'}
        chain = (
            [cut, {'type': 'RandomHorizontalFlip', 'prob': 0.5}]
            if 'OUMVLP' in name
            else [
                {'type': 'RandomPerspective', 'prob': 0.2},
                cut,
                {'type': 'RandomHorizontalFlip', 'prob': 0.2},
                {'type': 'RandomRotate', 'prob': 0.2},
            ]
        )
        assert cfg.evaluator_cfg.transform == [cut]
        assert cfg.trainer_cfg.transform == [{'type': 'Compose', 'trf_cfg': chain}]

    def test_form(self):
        for name in packaged_configs():
            text = C._read_text(name)
            assert text.startswith('# ') and list(yaml.safe_load(text)) == [
                'data_cfg',
                'evaluator_cfg',
                'loss_cfg',
                'model_cfg',
                'optimizer_cfg',
                'scheduler_cfg',
                'trainer_cfg',
            ]
            assert yaml.safe_load(text) == parse_yaml(text)  # any YAML reader reads them the same

    def test_placeholders_are_asked_for_by_a_run_only(self):
        cfg, _ = load_config('skeletongait_SUSTech1K')
        with pytest.raises(SettingsError) as e:
            check_ready(cfg, 'train')
        assert 'data_cfg.dataset_root: still your_path; set it' in str(
            e.value
        ) and 'data_cfg.dataset_partition: still your_path/SUSTech1K.json' in str(e.value)
        cfg.data_cfg.dataset_root, cfg.data_cfg.dataset_partition = 'data/linked', 'SUSTech1K.json'
        check_ready(cfg, 'train')
        check_ready(cfg, 'test')

    @pytest.mark.parametrize('name', ['demo_skeletongait', 'demo_skeletongait++'])
    def test_demo_is_ready(self, name):
        cfg, notices = load_config(name)
        check_ready(cfg, 'train')
        check_ready(cfg, 'test')
        assert notices == [] and cfg.evaluator_cfg.restore_hint == cfg.trainer_cfg.total_iter


OLD_FILE = '''
data_cfg:
  dataset_name: CCPG
  dataset_root: your_path
  dataset_partition: ./datasets/CCPG/CCPG.json
  num_workers: 1
  data_in_use: [True, True] # maps, silhouettes
  remove_no_gallery: false
  test_dataset_name: CCPG
  cache: false
evaluator_cfg:
  enable_float16: true
  restore_ckpt_strict: true
  restore_hint: some/where/CCPG-60000.pt
  save_name: SkeletonGaitPP
  eval_func: evaluate_CCPG
  sampler:
    batch_shuffle: false
    batch_size: 4
    sample_type: all_ordered
    frames_all_limit: 720
  metric: euc
  transform:
    - type: BaseSilCuttingTransform
loss_cfg:
  - loss_term_weights: 1.0
    margin: 0.2
    type: TripletLoss
    log_prefix: triplet
  - loss_term_weights: 0.5
    scale: 16
    type: CrossEntropyLoss
    log_prefix: softmax
    log_accuracy: true
model_cfg:
  model: SkeletonGaitPP
  Backbone:
    in_channels: 3
    blocks:
      - 1
      - 1
      - 1
      - 1
    C: 2
  SeparateBNNecks:
    class_num: 100
  use_emb2: true
optimizer_cfg: {lr: 1e-1, momentum: 0.9, solver: SGD, weight_decay: 5e-4}
scheduler_cfg:
  gamma: 0.1
  milestones:
    - 20000
    - 30000
  scheduler: MultiStepLR
trainer_cfg:
  find_unused_parameters: false
  enable_float16: true
  fix_BN: false
  with_test: false
  log_iter: 100
  optimizer_reset: true
  scheduler_reset: true
  restore_ckpt_strict: true
  restore_hint: 30000
  save_iter: 10000
  save_name: SkeletonGaitPP
  sync_BN: true
  total_iter: 60000
  sampler:
    batch_shuffle: true
    batch_size:
      - 8
      - 16
    frames_num_fixed: 30
    frames_num_min: 20
    frames_num_max: 40
    frames_skip_num: 4
    sample_type: unfixed_ordered
    type: TripletSampler
  transform:
    - type: Compose
      trf_cfg:
        - {type: RandomPerspective, prob: 0.2}
        - type: BaseSilCuttingTransform
'''


class TestOldFiles:
    def test_loads_with_notices(self):
        cfg, notices = read(OLD_FILE)
        assert notices == [
            'data_cfg.remove_no_gallery: deprecated, has no effect',
            'evaluator_cfg.sampler.batch_shuffle: deprecated, has no effect',
            'loss_cfg[0].loss_term_weights: read as loss_term_weight',
            'loss_cfg[1].loss_term_weights: read as loss_term_weight',
        ]
        assert [o.loss_term_weight for o in cfg.loss_cfg] == [1.0, 0.5]
        assert cfg.evaluator_cfg.restore_hint == 'some/where/CCPG-60000.pt' and cfg.trainer_cfg.restore_hint == 30000
        assert cfg.trainer_cfg.optimizer_reset and cfg.trainer_cfg.scheduler_reset
        assert cfg.optimizer_cfg.arguments == dict(lr=0.1, momentum=0.9, weight_decay=5e-4)

    def test_old_keys_leave_no_trace(self):
        with_old, _ = read('data_cfg: {remove_no_gallery: true}\nevaluator_cfg: {sampler: {batch_shuffle: true}}')
        assert with_old == read('data_cfg: {}')[0] and not any(
            w in to_yaml(with_old) for w in ('remove_no_gallery', 'evaluator_cfg.sampler.batch_shuffle')
        )

    def test_one_loss_is_a_list_of_one(self):
        cfg, notices = read('loss_cfg: {type: CrossEntropyLoss, scale: 30}')
        assert notices == [] and [to_dict(o)['scale'] for o in cfg.loss_cfg] == [30]

    def test_both_names_of_the_model(self):
        for name in ('DeepGaitV2', 'SkeletonGait'):
            assert read(f'model_cfg: {{model: {name}}}')[0].model_cfg.model == name

    def test_true_in_capitals(self):
        assert read('trainer_cfg: {sync_BN: True}')[0].trainer_cfg.sync_BN is True


class TestMerging:
    def test_defaults(self):
        cfg, _ = make_config({})
        assert (
            cfg.data_cfg.dataset_name,
            cfg.data_cfg.test_dataset_name,
            cfg.data_cfg.num_workers,
            cfg.data_cfg.cache,
        ) == ('CASIA-B', 'CASIA-B', 1, False)
        e, t = cfg.evaluator_cfg, cfg.trainer_cfg
        assert (
            e.enable_float16,
            e.restore_ckpt_strict,
            e.save_name,
            e.eval_func,
            e.metric,
            e.cross_view_gallery,
            e.protocol,
        ) == (False, True, 'tmp', 'evaluate_indoor_dataset', 'euc', False, None)
        assert (
            t.find_unused_parameters,
            t.enable_float16,
            t.with_test,
            t.fix_BN,
            t.sync_BN,
            t.log_iter,
            t.save_iter,
            t.save_name,
            t.total_iter,
            t.restore_hint,
            t.restore_ckpt_strict,
            t.optimizer_reset,
            t.scheduler_reset,
        ) == (False, True, False, False, False, 100, 2000, 'tmp', 80000, 0, True, False, False)
        assert e.transform == [{'type': 'BaseSilCuttingTransform'}] and e.restore_hint == 80000
        assert to_dict(t.sampler) == dict(
            type='TripletSampler',
            batch_size=[8, 16],
            batch_shuffle=False,
            sample_type='fixed_unordered',
            frames_num_fixed=30,
            frames_num_min=25,
            frames_num_max=50,
            frames_skip_num=0,
        )
        assert to_dict(cfg.optimizer_cfg) == dict(solver='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)

    def test_key_by_key_and_lists_whole(self):
        cfg, _ = read(
            'trainer_cfg: {sampler: {frames_num_fixed: 10}}\noptimizer_cfg: {lr: 0.01}\ndata_cfg: {data_in_use: [1, 0]}'
        )
        assert (
            cfg.trainer_cfg.sampler.frames_num_fixed,
            cfg.trainer_cfg.sampler.batch_size,
            cfg.trainer_cfg.total_iter,
        ) == (10, [8, 16], 80000)
        assert cfg.optimizer_cfg.arguments == dict(lr=0.01, momentum=0.9, weight_decay=5e-4)
        assert cfg.data_cfg.data_in_use == [1, 0]

    def test_defaults_are_not_shared(self):
        a, b = make_config({})[0], make_config({})[0]
        a.trainer_cfg.sampler.batch_size.append(1)
        a.optimizer_cfg.arguments['lr'] = 7
        a.trainer_cfg.transform[0]['type'] = 'x'
        assert b == make_config({})[0] != a

    def test_resolved(self):
        cfg, _ = read('data_cfg: {dataset_name: GREW}\ntrainer_cfg: {total_iter: 7}')
        assert (cfg.data_cfg.test_dataset_name, cfg.evaluator_cfg.restore_hint) == ('GREW', 7)
        assert read('evaluator_cfg: {restore_hint: 5}')[0].evaluator_cfg.restore_hint == 5


class TestUnknownKeys:
    @pytest.mark.parametrize(
        'row', [o for o in schema_rows() if not o.path.endswith('*')], ids=lambda o: o.path + o.case
    )
    def test_every_key_misspelt(self, row):
        "Every key of the schema, with its last letter doubled, is refused by its full path."
        *heads, name = row.path.split('.')
        bad, node = name + name[-1], {}
        tree, at = node, ''
        for h in heads:
            at = f"{at}.{h}" if at else h
            child = {}
            node[h.removesuffix('[]')] = [child] if h.endswith('[]') else child
            node = child
            if at == 'model_cfg':
                node['model'] = row.case
            if h == 'loss_cfg[]':
                node['type'] = row.case
        node[bad] = 1
        with pytest.raises(SettingsError) as e:
            make_config(tree)
        assert str(e.value).startswith(f"{'.'.join([*heads, bad]).replace('[]', '[0]')}: ") and str(e.value).endswith(
            f"; did you mean {name}?"
        )

    def test_a_key_in_the_wrong_section(self):
        refused(
            'trainer_cfg: {class_num: 3}',
            'trainer_cfg.class_num: unknown key; it belongs at model_cfg.SeparateBNNecks.class_num',
        )
        refused(
            'evaluator_cfg: {sampler: {frames_num_fixed: 3}}',
            'evaluator_cfg.sampler.frames_num_fixed',
            'it belongs at trainer_cfg.sampler.frames_num_fixed',
        )
        refused('total_iter: 10', 'it belongs at trainer_cfg.total_iter')
        refused(
            'sampler: {batch_size: 3}',
            'sampler: unknown key; it belongs at evaluator_cfg.sampler or trainer_cfg.sampler',
        )
        refused(
            '{model_cfg: {model: SkeletonGait}, data_cfg: {Backbone: {}}}',
            'data_cfg.Backbone: unknown key; it belongs at model_cfg.Backbone',
        )

    def test_a_key_of_the_other_model(self):
        refused(
            'model_cfg: {model: SkeletonGait, Backbone: {blocks: [1, 1, 1, 1]}}',
            'model_cfg.Backbone.blocks',
            'for SkeletonGaitPP',
        )
        refused(
            'model_cfg: {model: SkeletonGaitPP, Backbone: {layers: [1, 1, 1, 1]}}',
            'model_cfg.Backbone.layers',
            'for SkeletonGait)',
        )
        refused(
            'loss_cfg: [{type: TripletLoss}, {type: CrossEntropyLoss, margin: 1}]',
            'loss_cfg[1].margin: unknown key; it belongs at loss_cfg[].margin (for TripletLoss)',
        )
        refused('loss_cfg: [{type: TripletLoss, scale: 16}]', 'loss_cfg[0].scale', '(for CrossEntropyLoss)')

    def test_nothing_similar(self):
        refused('data_cfg: {zzz: 1}', 'data_cfg.zzz: unknown key; known here: dataset_name, dataset_root')

    def test_a_key_that_is_no_text(self):
        refused('data_cfg: {1: 2}', 'data_cfg.1: unknown key')


class TestTypes:
    @pytest.mark.parametrize(
        'text,words',
        [
            ('trainer_cfg: {total_iter: "60000"}', ('trainer_cfg.total_iter', '"60000" (text)', 'a whole number')),
            ('trainer_cfg: {total_iter: 6e4}', ('trainer_cfg.total_iter', '60000.0 (a number)', 'a whole number')),
            ('trainer_cfg: {total_iter: true}', ('trainer_cfg.total_iter', 'found true', 'a whole number')),
            ('trainer_cfg: {total_iter: null}', ('trainer_cfg.total_iter', 'found null', 'a whole number')),
            ('loss_cfg: {type: CrossEntropyLoss, eps: 1}', ('loss_cfg[0].eps', 'at least 0 and below 1')),
            ('loss_cfg: {type: CrossEntropyLoss, eps: 1.5}', ('loss_cfg[0].eps', 'below 1')),
            ('loss_cfg: {type: CrossEntropyLoss, eps: -0.1}', ('loss_cfg[0].eps', 'at least 0')),
            ('loss_cfg: {type: TripletLoss, loss_term_weight: -1}', ('loss_cfg[0].loss_term_weight', 'at least 0')),
            ('data_cfg: {data_in_use: [0, -1]}', ('data_cfg.data_in_use', '[0, -1]', 'at least 0')),
            ('trainer_cfg: {keep_last: -1}', ('trainer_cfg.keep_last', 'at least 0')),
            ('output_root: 3', ('output_root', 'expected text')),
            ('trainer_cfg: {total_iter: 0}', ('trainer_cfg.total_iter', 'at least 1')),
            ('trainer_cfg: {seed: -1}', ('trainer_cfg.seed', 'at least 0')),
            ('trainer_cfg: {seed: 9223372036854775808}', ('trainer_cfg.seed', 'below 9,223,372,036,854,775,808')),
            ('data_cfg: {data_in_use: []}', ('data_cfg.data_in_use: found []', 'at least one true')),
            ('data_cfg: {data_in_use: [false, false]}', ('data_cfg.data_in_use', 'selects no file')),
            ('scheduler_cfg: {gamma: -1}', ('scheduler_cfg.gamma: found -1', 'above 0')),
            ('scheduler_cfg: {gamma: 0}', ('scheduler_cfg.gamma', 'above 0')),
            (
                'scheduler_cfg: {scheduler: ExponentialLR, gamma: [0.9]}',
                ('scheduler_cfg.gamma: found [0.9]', 'above 0'),
            ),
            ('trainer_cfg: {restore_hint: -1}', ('trainer_cfg.restore_hint', 'at least 0')),
            ('trainer_cfg: {restore_hint: null}', ('trainer_cfg.restore_hint', 'a whole number, or text')),
            ('trainer_cfg: {sync_BN: 1}', ('trainer_cfg.sync_BN', '1 (a whole number)', 'true or false')),
            ('trainer_cfg: {save_name: 5}', ('trainer_cfg.save_name', '5 (a whole number)', 'text')),
            ('trainer_cfg: {sampler: [8, 16]}', ('trainer_cfg.sampler', '[8, 16] (a list)', 'a mapping')),
            (
                'trainer_cfg: {sampler: {batch_size: 8}}',
                ('trainer_cfg.sampler.batch_size', 'a list of 2, each entry a whole number'),
            ),
            ('trainer_cfg: {sampler: {batch_size: [8]}}', ('trainer_cfg.sampler.batch_size', 'a list of 2')),
            ('trainer_cfg: {sampler: {batch_size: [8, 0]}}', ('trainer_cfg.sampler.batch_size', 'at least 1')),
            (
                'trainer_cfg: {sampler: {sample_type: fixed_order}}',
                ('trainer_cfg.sampler.sample_type', 'did you mean fixed_ordered'),
            ),
            ('trainer_cfg: {transform: {type: Compose}}', ('trainer_cfg.transform', 'a list, each entry a mapping')),
            ('data_cfg: {data_in_use: [true, 1]}', ('data_cfg.data_in_use', '[true, 1]')),
            ('data_cfg:', ('data_cfg', 'found null', 'a mapping')),
            ('loss_cfg: TripletLoss', ('loss_cfg', '"TripletLoss" (text)', 'a list of mappings')),
            ('loss_cfg: [TripletLoss]', ('loss_cfg[0]', 'a mapping')),
            ('loss_cfg: [{margin: 0.2}]', ('loss_cfg[0].type: missing', 'TripletLoss, CrossEntropyLoss')),
            ('loss_cfg: [{type: TripletLos}]', ('loss_cfg[0].type', 'did you mean TripletLoss')),
            ('loss_cfg: [{type: [a]}]', ('loss_cfg[0].type', 'expected one of')),
            ('loss_cfg: {type: TripletLoss, margin: .nan}', ('loss_cfg[0].margin', 'a number')),
            (
                'loss_cfg: {type: TripletLoss, loss_term_weight: 1, loss_term_weights: 1}',
                ('loss_cfg[0].loss_term_weights', 'remove one'),
            ),
            ('model_cfg: {Backbone: {C: 2}}', ('model_cfg.model: missing',)),
            ('model_cfg: {model: SkeletonGait++}', ('model_cfg.model', 'did you mean SkeletonGaitPP?')),
            (
                'model_cfg: {model: SkeletonGait, Backbone: {layers: [1, 4, 4]}}',
                ('model_cfg.Backbone.layers', 'a list of 4'),
            ),
            ('model_cfg: {model: SkeletonGait, Backbone: {mode: 2D}}', ('model_cfg.Backbone.mode', 'did you mean 2d?')),
            (
                'model_cfg: {model: SkeletonGait, SeparateBNNecks: {class_num: null}}',
                ('model_cfg.SeparateBNNecks.class_num', 'found null'),
            ),
            (
                'evaluator_cfg: {eval_func: evaluate_gait3d}',
                ('evaluator_cfg.eval_func', 'did you mean evaluate_Gait3D?'),
            ),
            ('evaluator_cfg: {metric: euclidean}', ('evaluator_cfg.metric', 'one of euc, cos')),
            (
                'evaluator_cfg: {sampler: {sample_type: fixed_unordered}}',
                ('evaluator_cfg.sampler.sample_type', 'all_ordered'),
            ),
            (
                'evaluator_cfg: {protocol: {gallery: {}}}',
                ('evaluator_cfg.protocol', 'set eval_func: evaluate_gallery_probe'),
            ),
            ('evaluator_cfg: {protocol: nm}', ('evaluator_cfg.protocol', 'a mapping')),
        ],
    )
    def test_refused(self, text, words):
        refused(text, *words)

    def test_a_long_value_is_cut(self):
        assert len(refused('trainer_cfg: {total_iter: ' + 'x' * 500 + '}')) < 200

    @pytest.mark.parametrize('name', get_args(C.EvalFunc))
    def test_eval_funcs(self, name):
        assert read(f'evaluator_cfg: {{eval_func: {name}}}')[0].evaluator_cfg.eval_func == name

    @pytest.mark.parametrize('at', ['data_cfg.dataset_name', 'trainer_cfg.save_name', 'evaluator_cfg.save_name'])
    def test_names_that_become_folders(self, at):
        section, key = at.split('.')
        for bad in ('', '.', '..', 'a/b', '../../../esc', '/tmp', 'a\\b', 'a\0'):
            with pytest.raises(SettingsError, match=f'^{at}: found .*expected the name of one folder'):
                make_config({section: {key: bad}})
        for good in ('...', '.a', 'a b', 'SkeletonGait++', 'ä', '01'):
            assert getattr(getattr(make_config({section: {key: good}})[0], section), key) == good

    def test_any_seed_below_the_limit(self):
        assert read(f'trainer_cfg: {{seed: {2**63 - 1}}}')[0].trainer_cfg.seed == 2**63 - 1

    def test_the_first_file_alone(self):
        assert read('data_cfg: {data_in_use: [0]}')[0].data_cfg.data_in_use == [0]

    def test_whole_numbers_are_numbers(self):
        assert read('loss_cfg: {type: TripletLoss, margin: 1}')[0].loss_cfg[0].margin == 1


class TestYaml:
    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_floats_as_python_writes_them(self, x):
        assert parse_yaml(f'a: {x!r}')['a'] == x and parse_yaml(f'a: {x:e}')['a'] == float(f'{x:e}')

    @given(st.integers())
    def test_integers(self, n):
        got = parse_yaml(f'a: {n}')['a']
        assert type(got) is int and got == n

    @pytest.mark.parametrize('word', ['5e-4', '1E3', '5.e-4', '.5', '-1.5e+3', '1.'])
    def test_numbers(self, word):
        assert parse_yaml(f'a: {word}') == {'a': float(word)}

    @pytest.mark.parametrize(
        'word', ['01', '08', '000', '0x1f', '12:30', '2024-05-17', 'nm-01', 'e5', '1e', '.', '1_0e', '5e-4x']
    )
    def test_text(self, word):
        assert parse_yaml(f'a: {word}') == {'a': word}

    def test_words(self):
        assert parse_yaml('{a: true, b: False, c: null, d: ~}') == dict(a=True, b=False, c=None, d=None)

    @pytest.mark.parametrize(
        'text,words',
        [
            ('a: 1\nb: 2\na: 3', ('line 3', 'the key a appears twice (first in line 1)')),
            ('{a: 1, a: 2}', ('line 1', 'the key a appears twice')),
            ('s:\n  x: 1\n  x: 1', ('line 3', 'the key x appears twice')),
            ('a:\n\tb: 1', ('line 2',)),
            ('a: [1, 2\nb: 3', ('line 2',)),
            ('a: b: c', ('line 1',)),
            ('a: !!python/object/apply:os.getcwd []', ('line 1', 'constructor')),
            ('a: *b', ('line 1', 'alias')),
            ('a: \x00', ('not YAML',)),
            ('', ('found nothing', 'data_cfg')),
            ('# only a remark', ('found nothing',)),
            ('- a', ('["a"] (a list)', 'a mapping')),
            ('hello', ('"hello" (text)',)),
            ('a: 1\n---\nb: 2', ('line 2',)),
        ],
    )
    def test_refused(self, text, words):
        with pytest.raises(SettingsError) as e:
            parse_yaml(text)
        assert '\n' not in str(e.value)
        for w in words:
            assert w in str(e.value), str(e.value)

    def test_anchors_and_merge_keys(self):
        assert parse_yaml('a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}') == {'a': dict(p=1, q=2), 'b': dict(p=1, q=3)}


class TestFiles:
    def test_the_error_names_the_file(self, tmp_path):
        path = tmp_path / 'run.yaml'
        for content, words in [
            (b'trainer_cfg: {log_itr: 1}', 'trainer_cfg.log_itr: unknown key; did you mean log_iter?'),
            (b'', 'found nothing'),
            (b'a: [', 'line 1'),
            (b'a: \xff', 'not a text file in UTF-8'),
        ]:
            path.write_bytes(content)
            with pytest.raises(SettingsError) as e:
                load_config(path)
            assert str(e.value).startswith(f'{path}: ') and words in str(e.value)

    def test_missing(self, tmp_path):
        for source, words in (
            (tmp_path / 'none.yaml', 'no such file'),
            (tmp_path, 'a folder; expected a YAML file'),
            ('skeletongait_nothing', 'no such file'),
        ):
            with pytest.raises(SettingsError) as e:
                load_config(source)
            assert words in str(e.value) and str(e.value).count('skeletongait_OUMVLP') == 1
        with pytest.raises(SettingsError, match=r'did you mean skeletongait\+\+_CCPG\?'):
            load_config('configs/skeletongaitpp_ccpg.yaml')

    def test_byte_order_mark_and_umlauts(self, tmp_path):
        (tmp_path / 'a.yaml').write_bytes('\ufefftrainer_cfg: {save_name: Läufer}'.encode())
        cfg, _ = load_config(tmp_path / 'a.yaml')
        assert cfg.trainer_cfg.save_name == 'Läufer' and 'Läufer' in to_yaml(cfg)

    def test_errors_are_skeletongait_errors(self):
        assert issubclass(SettingsError, SkeletonGaitError)

    def test_a_packaged_name_wins_whatever_lies_in_the_folder(self, tmp_path, monkeypatch):
        (tmp_path / 'skeletongait_CCPG').write_text('data_cfg: {}')
        monkeypatch.chdir(tmp_path)
        assert load_config('skeletongait_CCPG')[0].data_cfg.dataset_name == 'CCPG'


def again(cfg):
    return make_config(parse_yaml(to_yaml(cfg)))


class TestBackToYaml:
    @pytest.mark.parametrize('name', packaged_configs())
    def test_packaged(self, name):
        cfg, _ = load_config(name)
        assert again(cfg) == (cfg, [])
        assert yaml.safe_load(to_yaml(cfg)) == to_dict(cfg)  # any YAML reader reads it the same

    def test_old_file_needs_no_notice_any_more(self):
        cfg, _ = read(OLD_FILE)
        assert again(cfg) == (cfg, [])

    @settings(max_examples=60, deadline=None)
    @given(
        name=st.text(
            st.characters(codec='utf-8', exclude_categories=['Cs', 'Cc'], exclude_characters='/\\'), min_size=1
        ).filter(lambda o: o not in ('.', '..')),
        word=st.sampled_from(['5e-4', '01', '08', 'true', 'null', '1:30', '2024-05-17', '~', '<<']),
        lr=st.floats(1e-12, 1e3),
        hint=st.one_of(st.integers(0, 10**9), st.text('ab/.-05e', min_size=1)),
        use=st.one_of(st.none(), st.lists(st.booleans()).filter(any), st.lists(st.integers(0, 9), min_size=1)),
    )
    def test_any_values(self, name, word, lr, hint, use):
        cfg, _ = make_config(
            dict(
                trainer_cfg=dict(save_name=name, restore_hint=hint),
                data_cfg=dict(data_in_use=use, dataset_name=word),
                optimizer_cfg=dict(lr=lr),
                evaluator_cfg=dict(eval_func='evaluate_gallery_probe', protocol=dict(gallery=dict(types=[word]))),
            )
        )
        assert again(cfg) == (cfg, []) and yaml.safe_load(to_yaml(cfg)) == to_dict(cfg)

    def test_dict_is_a_copy(self):
        cfg, _ = load_config('skeletongait_CCPG')
        d = to_dict(cfg)
        d['trainer_cfg']['transform'][0]['type'] = 'x'
        d['optimizer_cfg']['lr'] = 3
        d['trainer_cfg']['sampler']['batch_size'][0] = 0
        assert cfg == load_config('skeletongait_CCPG')[0]


class TestTorch:
    def test_solver_and_scheduler(self):
        cfg, notices = read(
            'optimizer_cfg: {solver: Adam, lr: 0.001, betas: [0.8, 0.9], weight_decay: 0}\n'
            'scheduler_cfg: {scheduler: StepLR, step_size: 2, gamma: 0.5}'
        )
        optimizer = make_optimizer(cfg.optimizer_cfg, [torch.nn.Parameter(torch.zeros(1))])
        scheduler = make_scheduler(cfg.scheduler_cfg, optimizer)
        rates = []
        for _ in range(5):
            rates.append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            scheduler.step()
        assert type(optimizer) is torch.optim.Adam and rates == [0.001, 0.001, 0.0005, 0.0005, 0.00025]
        assert notices == []

    def test_defaults_taken_over_are_told(self):
        cfg, notices = read('optimizer_cfg: {solver: Adagrad, lr: 0.01}')
        assert cfg.optimizer_cfg.arguments == dict(lr=0.01, weight_decay=5e-4)
        assert notices == ['optimizer_cfg: Adagrad also gets the defaults weight_decay: 0.0005']

    @pytest.mark.parametrize(
        'text,words',
        [
            ('optimizer_cfg: {solver: SDG}', ('optimizer_cfg.solver', 'did you mean SGD?')),
            ('optimizer_cfg: {solver: adamw}', ('did you mean AdamW?',)),
            ('optimizer_cfg: {solver: LBFGS}', ('optimizer_cfg.solver', 'can be used here')),
            ('optimizer_cfg: {solver: Optimizer}', ('optimizer_cfg.solver',)),
            ('optimizer_cfg: {solver: lr_scheduler}', ('optimizer_cfg.solver',)),
            (
                'optimizer_cfg: {momentun: 0.9}',
                ('optimizer_cfg.momentun: unknown key for SGD', 'did you mean momentum?'),
            ),
            ('optimizer_cfg: {solver: Adam, momentum: 0.9}', ('optimizer_cfg.momentum: unknown key for Adam',)),
            ('optimizer_cfg: {lr: fast}', ('optimizer_cfg.lr: found "fast" (text), expected a number',)),
            ('optimizer_cfg: {nesterov: "yes"}', ('optimizer_cfg.nesterov', 'expected true or false')),
            ('scheduler_cfg: {gamma: fast}', ('scheduler_cfg.gamma', 'expected a number')),
            ('optimizer_cfg: {momentum: [1]}', ('optimizer_cfg.momentum: found [1] (a list), expected a number',)),
            ('optimizer_cfg: {weight_decay: {a: 1}}', ('optimizer_cfg.weight_decay', 'expected a number')),
            ('optimizer_cfg: {nesterov: [true]}', ('optimizer_cfg.nesterov', 'expected true or false')),
            ('optimizer_cfg: {lr: null}', ('optimizer_cfg.lr: found null, expected a number',)),
            ('optimizer_cfg: {momentum: true}', ('optimizer_cfg.momentum', 'expected a number')),
            (
                'scheduler_cfg: {scheduler: StepLR, step_size: 3, milestones: [3]}',
                (
                    'scheduler_cfg.milestones: unknown key for StepLR',
                    'replace the whole section: --set scheduler_cfg={scheduler: StepLR, ...}',
                ),
            ),
            ('optimizer_cfg: {params: []}', ('optimizer_cfg.params: unknown key for SGD',)),
            ('optimizer_cfg: {arguments: {lr: 1}}', ('optimizer_cfg.arguments: unknown key for SGD',)),
            ('optimizer_cfg: {solver: [SGD]}', ('optimizer_cfg.solver', 'expected text')),
            ('scheduler_cfg: {scheduler: MultistepLR}', ('did you mean MultiStepLR?',)),
            ('scheduler_cfg: {scheduler: LambdaLR}', ('scheduler_cfg.scheduler',)),
            (
                'scheduler_cfg: {milestone: [1]}',
                ('scheduler_cfg.milestone: unknown key for MultiStepLR', 'did you mean milestones?'),
            ),
        ],
    )
    def test_refused(self, text, words):
        refused(text, *words)

    @pytest.mark.parametrize(
        'text',
        [
            'optimizer_cfg: {lr: -1}',
            'scheduler_cfg: {scheduler: CyclicLR, base_lr: 1}',
            pytest.param('optimizer_cfg: {solver: Muon}', marks=NEEDS_MUON),
        ],
    )
    def test_what_torch_refuses(self, text):
        cfg, _ = read(text)
        with pytest.raises(SettingsError, match=text.split(':')[0] + ': torch refuses'):
            make_scheduler(cfg.scheduler_cfg, make_optimizer(cfg.optimizer_cfg, [torch.nn.Parameter(torch.zeros(1))]))


class TestTogether:
    "Values that are fine each by itself."

    @pytest.mark.parametrize(
        'stones',
        ['20000', '[30000, 20000]', '[10, 10]', '[0, 10]', '[-5]', '[1.5]', '[true]', '{a: 1}', 'text', 'null'],
    )
    def test_milestones(self, stones):
        refused(
            f'scheduler_cfg: {{milestones: {stones}}}',
            'scheduler_cfg.milestones: found',
            'each later than the one before',
        )

    def test_only_multistep_has_milestones(self):
        refused('scheduler_cfg: {scheduler: StepLR, step_size: 3, milestones: [3, 2]}', 'unknown key for StepLR')

    def test_beyond_the_end(self):
        _, notices = read('{trainer_cfg: {total_iter: 50}, scheduler_cfg: {milestones: [20, 50, 60]}}')
        assert [o.split(':')[0] for o in notices] == [
            'scheduler_cfg.milestones',
            'trainer_cfg.save_iter',
            'trainer_cfg.log_iter',
        ] and '50, 60 without effect' in notices[0]
        assert (
            read('{trainer_cfg: {total_iter: 50, save_iter: 50, log_iter: 50}, scheduler_cfg: {milestones: [20, 49]}}')[
                1
            ]
            == []
        )

    def test_frames(self):
        refused(
            'trainer_cfg: {sampler: {sample_type: unfixed_unordered, frames_num_max: 24}}',
            'trainer_cfg.sampler.frames_num_min: found 25',
            'frames_num_max, which is 24',
        )
        for text in (
            '{sample_type: fixed_ordered, frames_num_max: 24}',
            '{sample_type: unfixed_ordered, frames_num_min: 9, frames_num_max: 9}',
        ):
            read(f'trainer_cfg: {{sampler: {text}}}')

    @pytest.mark.parametrize('section', ['trainer_cfg', 'evaluator_cfg'])
    @pytest.mark.parametrize(
        'text,words',
        [
            ('[]', ('found 0 different entries',)),
            (
                '[{type: BaseSilTransform}, {type: BaseSilCuttingTransform}]',
                ('found 2 different entries', 'joined first'),
            ),
            (
                '[{type: BaseSilTransfrom}]',
                ('transform[0].type: found "BaseSilTransfrom" (text)', 'did you mean BaseSilTransform?'),
            ),
            ('[{prob: 0.2}]', ('transform[0].type: missing; expected one of BaseSil',)),
            (
                '[{type: RandomRotate, degrees: 5}]',
                ('transform[0].degrees: unknown key', 'did you mean degree?'),
            ),
            ('[{type: RandomRotate, degree: 181}]', ('transform[0].degree: found 181 ', 'at least 0 and at most 180')),
            (
                '[{type: RandomHorizontalFlip, prob: 1.1}]',
                ('transform[0].prob: found 1.1 ', 'at least 0 and at most 1'),
            ),
            ('[{type: RandomHorizontalFlip, prob: true}]', ('transform[0].prob: found true, expected a number',)),
            ('[{type: RandomErasing, sl: 0.3}]', ('transform[0].sl: found 0.3 ', 'at most sh, which is 0.2')),
            ('[{type: Compose}]', ('transform[0].trf_cfg: missing; expected a list',)),
            (
                '[{type: Compose, trf_cfg: [{type: RandomAffine, p: 1}]}]',
                ('transform[0].trf_cfg[0].p: unknown key',),
            ),
        ],
    )
    def test_transforms(self, section, text, words):
        refused(f'{section}: {{transform: {text}}}', f'{section}.transform', *words)

    def test_one_transform_for_each_stream(self):
        assert (
            len(
                read('trainer_cfg: {transform: [{type: BaseSilTransform}, {type: BaseSilTransform}]}')[
                    0
                ].trainer_cfg.transform
            )
            == 2
        )

    def test_hints(self):
        for hint in ('best', 'latest', 'a/b.pt', 0, 7):
            assert [
                getattr(read(f'{s}: {{restore_hint: {hint}}}')[0], s).restore_hint
                for s in ('trainer_cfg', 'evaluator_cfg')
            ] == [hint] * 2

    def test_a_protocol_is_checked_and_kept_as_it_is(self):
        tree = {
            'evaluator_cfg': {
                'eval_func': 'evaluate_gallery_probe',
                'protocol': {'conditions': {'NM': {'gallery': {'types': ['01']}, 'probe': {'types': '02'}}}},
            }
        }
        assert (
            make_config(tree)[0].evaluator_cfg.protocol == tree['evaluator_cfg']['protocol']
            and again(make_config(tree)[0])[0] == make_config(tree)[0]
        )
        tree['evaluator_cfg']['protocol']['condition'] = {}
        says = r'evaluator_cfg.protocol.condition: unknown key; did you mean conditions\?'
        with pytest.raises(SettingsError, match=says):
            make_config(tree)

    def test_cross_view_gallery_that_nobody_looks_at_is_told(self):
        def notices(f):
            return make_config({'evaluator_cfg': {'eval_func': f, 'cross_view_gallery': True}})[1]
        assert any('cross_view_gallery: no effect' in n for n in notices('evaluate_Gait3D')) and not any(
            'cross_view' in n for n in notices('evaluate_indoor_dataset')
        )


def changed(*changes, text='data_cfg: {}'):
    return make_config(apply_changes(parse_yaml(text), changes))[0]


class TestChanges:
    @pytest.mark.parametrize(
        'change,get,value',
        [
            ('trainer_cfg.seed=3', lambda c: c.trainer_cfg.seed, 3),
            (' trainer_cfg . seed = 3', lambda c: c.trainer_cfg.seed, 3),
            ('trainer_cfg.sampler.batch_size=[4,4]', lambda c: c.trainer_cfg.sampler.batch_size, [4, 4]),
            ('trainer_cfg.sampler.batch_size[1]=4', lambda c: c.trainer_cfg.sampler.batch_size, [8, 4]),
            (
                'trainer_cfg.sampler={frames_num_fixed: 7}',
                lambda c: (c.trainer_cfg.sampler.frames_num_fixed, c.trainer_cfg.sampler.batch_size),
                (7, [8, 16]),
            ),
            (
                'optimizer_cfg.lr=5e-4',
                lambda c: c.optimizer_cfg.arguments,
                dict(lr=5e-4, momentum=0.9, weight_decay=5e-4),
            ),
            ('optimizer_cfg={solver: Adam, lr: 1e-3}', lambda c: c.optimizer_cfg.solver, 'Adam'),
            ('data_cfg.test_dataset_name=01', lambda c: c.data_cfg.test_dataset_name, '01'),
            ('data_cfg.dataset_root=/a b/c=d', lambda c: c.data_cfg.dataset_root, '/a b/c=d'),
            ('data_cfg.dataset_root="x: y"', lambda c: c.data_cfg.dataset_root, 'x: y'),
            (
                'data_cfg.render.heatmap_generator_args.sigma=4',
                lambda c: c.data_cfg.render['heatmap_generator_args']['sigma'],
                4,
            ),
            (
                'evaluator_cfg.transform[0].type=BaseSilTransform',
                lambda c: c.evaluator_cfg.transform,
                [{'type': 'BaseSilTransform'}],
            ),
            (
                'evaluator_cfg.transform.0={type: BaseSilTransform}',
                lambda c: c.evaluator_cfg.transform,
                [{'type': 'BaseSilTransform'}],
            ),
            ('trainer_cfg.total_iter=9', lambda c: c.evaluator_cfg.restore_hint, 9),
            ('output_root=runs', lambda c: c.output_root, 'runs'),
        ],
    )
    def test_over_the_defaults(self, change, get, value):
        assert get(changed(change)) == value

    @pytest.mark.parametrize(
        'text',
        [
            'loss_cfg: {type: TripletLoss, margin: 0.1, loss_term_weights: 2}',
            'loss_cfg: [{type: TripletLoss, margin: 0.1, loss_term_weight: 2}]',
        ],
    )
    def test_losses(self, text):
        for spelling in ('loss_cfg[0]', 'loss_cfg.0'):
            cfg = changed(f'{spelling}.loss_term_weight=3', f'{spelling}.margin=0.5', text=text)
            assert [(o.margin, o.loss_term_weight) for o in cfg.loss_cfg] == [(0.5, 3)]
            assert changed(f'{spelling}.loss_term_weights=3', text=text).loss_cfg[0].loss_term_weight == 3
        assert (
            changed('loss_cfg=[]', text=text).loss_cfg == []
            and changed('loss_cfg.margin=1', text='loss_cfg: {type: TripletLoss}').loss_cfg[0].margin == 1
        )

    def test_in_their_order(self):
        assert changed('trainer_cfg.seed=1', 'trainer_cfg.seed=2').trainer_cfg.seed == 2
        assert changed(
            'evaluator_cfg.protocol.gallery.types=[a]', 'evaluator_cfg.eval_func=evaluate_gallery_probe'
        ).evaluator_cfg.protocol == {'gallery': {'types': ['a']}}  # either first
        assert changed('model_cfg={model: SkeletonGaitPP}', 'model_cfg.Backbone.C=1').model_cfg.Backbone.C == 1
        assert changed('model_cfg.Backbone.C=1', 'model_cfg.model=SkeletonGaitPP').model_cfg.Backbone.C == 1

    def test_the_tree_stays(self):
        tree = parse_yaml(OLD_FILE)
        before = parse_yaml(OLD_FILE)
        apply_changes(
            tree,
            [
                'loss_cfg[1].scale=3',
                'trainer_cfg.transform[0].trf_cfg[0].prob=0.9',
                'model_cfg.Backbone.blocks[2]=7',
                'data_cfg={}',
            ],
        )
        assert tree == before

    def test_a_mistake_of_the_file_may_be_mended(self):
        assert changed('trainer_cfg.seed=1', text='trainer_cfg: {seed: one}').trainer_cfg.seed == 1

    @pytest.mark.parametrize(
        'change,words',
        [
            ('trainer_cfg.seed', 'expected a key and its value'),
            ('=3', 'expected a key and its value'),
            ('trainer_cfg..seed=1', 'expected a key and its value'),
            ('', 'expected a key and its value'),
            ('trainer_cfg.seed=[', 'the value is not YAML: line 1'),
            ('trainer_cfg.seed={a: 1, a: 2}', 'the value is not YAML: line 1: the key a appears twice'),
            ('trainer_cfg.sede=1', 'trainer_cfg.sede: unknown key; did you mean seed?'),
            ('class_num=3', 'it belongs at model_cfg.SeparateBNNecks.class_num'),
            ('trainer.seed=1', 'trainer: unknown key; did you mean trainer_cfg?'),
            ('trainer_cfg.seed.x=1', 'trainer_cfg.seed: holds 0 (a whole number); there is no x in it'),
            ('loss_cfg[2].margin=1', 'loss_cfg: found [2], but this list has 2 entries'),
            ('loss_cfg.first.margin=1', 'loss_cfg: found [first]'),
            ('loss_cfg[-1].margin=1', 'loss_cfg[-1]: unknown key'),
            (
                'trainer_cfg.sampler.batch_size[2]=1',
                'trainer_cfg.sampler.batch_size: found [2], but this list has 2 entries',
            ),
            ('model_cfg.Backbone.blokcs=[1,1,1,1]', 'model_cfg.Backbone.blokcs: unknown key; did you mean blocks?'),
            ('loss_cfg[0].marign=1', 'loss_cfg[0].marign: unknown key; did you mean margin?'),
        ],
    )
    def test_lead_nowhere(self, change, words):
        with pytest.raises(SettingsError) as e:
            apply_changes(parse_yaml(OLD_FILE), ['data_cfg.cache=true', change])
        assert str(e.value).startswith(f'--set {change}: ') and words in str(e.value) and '\n' not in str(e.value)

    @pytest.mark.parametrize(
        'change,key',
        [
            ('trainer_cfg.seed=x', 'trainer_cfg.seed'),
            ('trainer_cfg.transform[0].trf_cfg[0].prob=2', 'trainer_cfg.transform[0].trf_cfg[0].prob'),
            ('optimizer_cfg.lrr=1', 'optimizer_cfg.lrr'),
            ('loss_cfg.0.scale=1', 'loss_cfg[0].scale'),
            ('trainer_cfg.sampler={batch: 1}', 'trainer_cfg.sampler.batch'),
            ('evaluator_cfg.protocol={}', 'evaluator_cfg.protocol'),
            ('model_cfg.model=SkeletonGaitPP', 'model_cfg.Backbone.layers'),
            ('scheduler_cfg.milestones=3', 'scheduler_cfg.milestones'),
            ('loss_cfg.1.eps=1', 'loss_cfg[1].eps'),
        ],
    )
    def test_the_error_names_the_change(self, change, key):
        with pytest.raises(SettingsError) as e:
            load_config('skeletongait_CCPG', ['data_cfg.cache=true', change, 'data_cfg.num_workers=0'])
        assert str(e.value).startswith(f'skeletongait_CCPG with --set {change}: {key}: ')

    def test_a_mistake_of_the_file_is_the_files(self, tmp_path):
        (tmp_path / 'a.yaml').write_text('trainer_cfg: {seed: one}')
        with pytest.raises(SettingsError) as e:
            load_config(tmp_path / 'a.yaml', ['data_cfg.cache=true'])
        assert str(e.value).startswith(f"{tmp_path / 'a.yaml'}: trainer_cfg.seed: ")

    def test_told(self):
        assert (
            load_config('skeletongait_CCPG', ['trainer_cfg.seed=1'])[1] == ['--set trainer_cfg.seed=1']
            and load_config('skeletongait_CCPG', [])[1] == []
        )

    @pytest.mark.parametrize('name', packaged_configs())
    def test_every_value_set_to_itself(self, name):
        "Setting each value of a configuration to what it is changes nothing."
        cfg, _ = load_config(name)

        def leaves(o, at):
            if isinstance(o, dict) and o:
                return [x for k, v in o.items() for x in leaves(v, f'{at}.{k}' if at else k)]
            if isinstance(o, list) and o and isinstance(o[0], dict):
                return [x for i, v in enumerate(o) for x in leaves(v, f'{at}[{i}]')]
            return [f'{at}={json.dumps(o)}']

        assert changed(*leaves(to_dict(cfg), ''), text=C._read_text(name)) == cfg


FINGERPRINTS = {
    'demo_skeletongait': '96f60afc5ce8948f',
    'demo_skeletongait++': '29f3b5101fd3bd47',
    'demo_skeletongait_toy': '801a58aa92426620',
    'skeletongait++_CCPG': '5e8c62a45e4a161d',
    'skeletongait++_GREW': '4692c6e8ac46b92c',
    'skeletongait++_Gait3D': '877d4244cae79258',
    'skeletongait++_SUSTech1K': '0a1540c00da886b8',
    'skeletongait_CCPG': '02d1976bbdda1874',
    'skeletongait_GREW': '5f97b94c865e6ba5',
    'skeletongait_Gait3D': '0c98bc2f2236ec7a',
    'skeletongait_OUMVLP': '456baa24198a4b6c',
    'skeletongait_SUSTech1K': '9f4a89a825b84dc6',
}
RULES = 'protocol: {gallery: {types: nm}, conditions: {A: {probe: {types: [x]}}}}'
STEPS = '[{type: Compose, trf_cfg: [{type: RandomErasing}, {type: Compose, trf_cfg: []}]}]'
OLDER = [
    (OLD_FILE, '599fc76367386120'),
    ('{}', '00f4d5bc6937636c'),
    ('data_cfg: {render: {}}', 'b4ff5af498433ed1'),
    (f'evaluator_cfg: {{eval_func: evaluate_gallery_probe, {RULES}}}', '11fcd848aa4c2509'),
    (f'trainer_cfg: {{transform: {STEPS}}}', '136b8309f30571ff'),
]


class TestFingerprint:
    def test_order_and_form(self):
        a, b = (
            read(o)[0]
            for o in (
                '{trainer_cfg: {seed: 1, total_iter: 9}, loss_cfg: [{margin: 1, type: TripletLoss}]}',
                '{loss_cfg: {type: TripletLoss, margin: 1.0}, trainer_cfg: {total_iter: 9, seed: 1}}',
            )
        )
        assert (
            config_hash(a) == config_hash(b) == config_hash(again(a)[0])
            and len(config_hash(a)) == 16
            and set(config_hash(a)) <= set('0123456789abcdef')
        )

    @pytest.mark.parametrize('name', packaged_configs())
    def test_yaml_round_trip(self, name):
        assert config_hash(again(load_config(name)[0])[0]) == config_hash(load_config(name)[0])

    @pytest.mark.parametrize('name', FINGERPRINTS)
    def test_stays(self, name):
        "Checkpoints and results of earlier versions carry these."
        assert config_hash(load_config(name)[0]) == FINGERPRINTS[name]

    @pytest.mark.parametrize('text, fingerprint', OLDER)
    def test_of_other_files_stays(self, text, fingerprint):
        assert config_hash(read(text)[0]) == fingerprint

    def test_all_differ(self):
        assert len({config_hash(load_config(n)[0]) for n in packaged_configs()}) == len(packaged_configs())

    def test_does_not_depend_on_the_process(self):
        code = "from skeletongait.runs.config import *; print(config_hash(load_config('skeletongait_CCPG')[0]))"
        out = {
            subprocess.run(
                [sys.executable, '-c', code],
                env={**os.environ, 'PYTHONHASHSEED': seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ('1', '2')
        }
        assert out == {config_hash(load_config('skeletongait_CCPG')[0]) + '\n'}

    @settings(max_examples=80)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda o: st.lists(o, max_size=3) | st.dictionaries(st.text(max_size=3), o, max_size=3),
            max_leaves=8,
        ),
        st.randoms(use_true_random=False),
    )
    def test_any_protocol(self, value, random):
        def shuffled(o):
            if isinstance(o, dict):
                keys = list(o)
                random.shuffle(keys)
                return {k: shuffled(o[k]) for k in keys}
            return [shuffled(x) for x in o] if isinstance(o, list) else o

        def of(v):
            cfg, _ = make_config({})
            cfg.evaluator_cfg.protocol = dict(x=v)
            return config_hash(cfg)

        assert of(value) == of(shuffled(value)) and of(value) != of([value, 'more'])


class TestConfigChanges:
    def test_none(self):
        for name in packaged_configs():
            cfg, _ = load_config(name)
            assert config_changes(to_dict(cfg), parse_yaml(C._read_text(name))) == []

    @pytest.mark.parametrize(
        'change,line,computing',
        [
            ('trainer_cfg.seed=1', 'trainer_cfg.seed: 0 then, 1 now', True),
            ('trainer_cfg.sampler.batch_size=[4,4]', 'trainer_cfg.sampler.batch_size: [8, 16] then, [4, 4] now', True),
            ('loss_cfg[1].scale=8', 'loss_cfg[1].scale: 16 then, 8 now', True),
            ('loss_cfg[1].log_accuracy=false', 'loss_cfg[1].log_accuracy: true then, false now', False),
            (
                'trainer_cfg.transform[0].trf_cfg[2].prob=0.5',
                'trainer_cfg.transform[0].trf_cfg[2].prob: 0.2 then, 0.5 now',
                True,
            ),
            ('optimizer_cfg.lr=0.2', 'optimizer_cfg.lr: 0.1 then, 0.2 now', True),
            ('optimizer_cfg.nesterov=true', 'optimizer_cfg.nesterov: null then, true now', True),
            ('scheduler_cfg.milestones=[5]', 'scheduler_cfg.milestones: [20000, 30000, 40000] then, [5] now', True),
            ('model_cfg.Backbone.layers[1]=2', 'model_cfg.Backbone.layers: [1, 1, 1, 1] then, [1, 2, 1, 1] now', True),
            ('model_cfg.use_emb2=false', 'model_cfg.use_emb2: true then, false now', False),
            ('data_cfg.data_in_use=[true]', 'data_cfg.data_in_use: [true, false] then, [true] now', True),
            ('data_cfg.num_workers=9', 'data_cfg.num_workers: 1 then, 9 now', False),
            ('trainer_cfg.keep_last=0', 'trainer_cfg.keep_last: 10 then, 0 now', False),
            ('output_root=x', 'output_root: "output" then, "x" now', False),
            (
                'evaluator_cfg.sampler.frames_all_limit=3',
                'evaluator_cfg.sampler.frames_all_limit: 720 then, 3 now',
                False,
            ),
            ('trainer_cfg.enable_float16=false', 'trainer_cfg.enable_float16: true then, false now', True),
        ],
    )
    def test_one(self, change, line, computing):
        then, now = (to_dict(load_config('skeletongait_CCPG', o)[0]) for o in ([], [change]))
        assert config_changes(then, now) == [line] and config_changes(then, now, computing=True) == [line] * computing
        assert len(config_changes(now, then)) == 1

    def test_maps(self):
        def of(sigma):
            return dict(data_cfg=dict(render={'heatmap_generator_args': {'sigma': sigma}}))
        assert (
            config_changes(of(8.0), of(4.0), computing=True)
            == ['data_cfg.render.heatmap_generator_args.sigma: 8.0 then, 4.0 now']
            and config_changes(of(8.0), dict(data_cfg=dict(render={}))) == []
        )
        assert config_changes({}, of(4.0))[0].startswith('data_cfg.render: null then, {')

    def test_lists_of_unequal_length(self):
        term = [{'type': 'TripletLoss'}, {'type': 'CrossEntropyLoss'}]
        (line,) = config_changes({'loss_cfg': term[:1]}, {'loss_cfg': term})
        assert line.startswith('loss_cfg[1]: null then, {"type": "CrossEntropyLoss"')
        assert [o.split(':')[0] for o in config_changes({'loss_cfg': term}, {'loss_cfg': term[1:]}, computing=True)][
            -1
        ] == 'loss_cfg[1]'

    def test_two_sides_are_never_alike(self):
        (line,) = config_changes(
            *(dict(data_cfg=dict(dataset_root='/data' * 30 + o + 'z' * n)) for o, n in (('a', 99), ('b', 99)))
        )
        then, now = line.split(': ', 1)[1].removesuffix(' now').split(' then, ')
        assert then != now and len(line) < 200
        then, now = (dict(scheduler_cfg=dict(milestones=[*range(1, n)])) for n in (50, 60))
        assert len(set(config_changes(then, now)[0].split(': ', 1)[1].removesuffix(' now').split(' then, '))) == 2

    def test_another_model(self):
        names = [
            o.split(':')[0]
            for o in config_changes(*(parse_yaml(C._read_text(f'skeletongait{o}_CCPG')) for o in ('', '++')))
        ]
        assert {
            'model_cfg.model',
            'model_cfg.Backbone.layers',
            'model_cfg.Backbone.blocks',
            'data_cfg.data_in_use',
        } <= set(names)

    def test_an_older_version(self):
        """Keys that a checkpoint's version did not know count as their defaults; keys that this one does not know
        are told."""
        now = to_dict(load_config('skeletongait_CCPG')[0])
        then = to_dict(load_config('skeletongait_CCPG')[0])
        del then['trainer_cfg']['keep_last'], then['output_root']
        assert config_changes(then, now) == []
        with pytest.raises(SettingsError, match='trainer_cfg.magic: unknown key'):
            config_changes(then | {'trainer_cfg': {'magic': 1}}, now)

    def test_long_values_are_cut(self):
        (line,) = config_changes({}, dict(data_cfg=dict(dataset_root='x' * 500)))
        assert len(line) < 120

    def test_every_key_is_one_or_the_other(self):
        for row in schema_rows():
            assert computes(row.path.replace('[]', '[0]').replace('.*', '.lr')) == row.computes
        assert (
            computes('trainer_cfg.transform[0].trf_cfg')
            and not computes('evaluator_cfg.protocol.gallery')
            and computes('loss_cfg')
        )


class TestReady:
    @pytest.mark.parametrize(
        'change, words',
        [
            ('optimizer_cfg.lr=-1', 'optimizer_cfg: torch refuses SGD'),
            ('scheduler_cfg={scheduler: OneCycleLR, max_lr: 0.1}', 'scheduler_cfg: torch refuses OneCycleLR'),
            pytest.param('optimizer_cfg={solver: Muon}', 'optimizer_cfg: torch refuses Muon', marks=NEEDS_MUON),
        ],
    )
    def test_what_torch_refuses_is_found_before_the_data(self, change, words):
        cfg, _ = load_config('demo_skeletongait', ['optimizer_cfg={}', 'scheduler_cfg={milestones: [3]}', change])
        check_ready(cfg, 'test')
        with pytest.raises(SettingsError, match=words):
            check_ready(cfg, 'train')

    def test_the_message_names_the_file(self):
        for changes, words in (
            ([], 'not ready to train'),
            (['data_cfg.dataset_root=x', 'optimizer_cfg.lr=-1'], 'optimizer_cfg: torch refuses'),
        ):
            with pytest.raises(SettingsError, match=f'^my.yaml: {words}'):
                check_ready(load_config('skeletongait_CCPG', changes)[0], 'train', 'my.yaml')

    def lines(self, text, phase):
        with pytest.raises(SettingsError) as e:
            check_ready(read(text)[0], phase)
        head, *lines = str(e.value).splitlines()
        assert head == f'not ready to {phase}:'
        return [o.strip().split(':')[0] for o in lines]

    def test_all_at_once(self):
        needed = ['data_cfg.dataset_root', 'data_cfg.dataset_partition']
        assert self.lines('data_cfg: {}', 'train') == [*needed, 'loss_cfg', 'model_cfg', 'scheduler_cfg.milestones']
        assert self.lines('model_cfg: {model: SkeletonGait}', 'test') == [
            *needed,
            'model_cfg.Backbone.layers',
            'model_cfg.SeparateBNNecks.class_num',
        ]
        assert self.lines('model_cfg: {model: SkeletonGaitPP}', 'test') == [
            *needed,
            'model_cfg.Backbone.blocks',
            'model_cfg.SeparateBNNecks.class_num',
        ]
        assert 'evaluator_cfg.protocol' in self.lines('evaluator_cfg: {eval_func: evaluate_gallery_probe}', 'test')

    def test_a_folder_that_only_begins_alike(self):
        cfg, _ = load_config('skeletongait_CCPG')
        cfg.data_cfg.dataset_root = 'your_paths'
        check_ready(cfg, 'train')


class TestSchema:
    def test_every_key_is_documented(self):
        table = config_table()
        for row in schema_rows():
            assert row.field.metadata['meaning'] and f'| `{row.path}` |' in table
        assert table.count('\n') == len(list(schema_rows())) + 1
        assert all(line.count('|') == 6 for line in table.splitlines())

    def test_defaults_fit_their_types(self):
        for row in schema_rows():
            value = row.field.default_factory()
            if not row.field.metadata['needed']:
                assert C.fits(value, row.hint), row.path

    def test_section_table(self):
        assert all('`optimizer_cfg' in o for o in config_table('optimizer_cfg').splitlines()[2:])

    @given(st.text(max_size=20), st.lists(st.text(max_size=8), max_size=5))
    def test_nearest_is_known_or_nothing(self, word, known):
        assert nearest(word, known) in [*known, '']


class TestOtherChapters:
    "The schema and the chapters that use the settings agree."

    @pytest.mark.parametrize(
        'name', ['skeletongait_CCPG', 'skeletongait++_CCPG', 'demo_skeletongait', 'demo_skeletongait++']
    )
    def test_models_losses_transforms(self, name):
        from skeletongait.nets.losses import LossAggregator
        from skeletongait.nets.models import build_model
        from skeletongait.data.transforms import build_transform

        cfg = to_dict(load_config(name)[0])
        model = build_model(cfg['model_cfg'])
        if name.endswith('CCPG'):
            assert (
                round(sum(p.numel() for p in model.parameters()) / 1e6, 2)
                == {'skeletongait_CCPG': 8.45, 'skeletongait++_CCPG': 8.52}[name]
            )
        assert LossAggregator(cfg['loss_cfg']).prefixes == ['triplet', 'softmax']
        for o in cfg['trainer_cfg']['transform'] + cfg['evaluator_cfg']['transform']:
            build_transform(o)

    def test_names(self):
        from skeletongait.data import samplers as data
        from skeletongait.nets import models
        from skeletongait.evaluation import protocols

        assert get_args(C.TripletSamplerCfg.__annotations__['sample_type']) == data.SAMPLE_TYPES
        assert set(get_args(C.SkeletonGaitPPBackboneCfg.__annotations__['fusion'])) == set(models.FUSIONS)
        assert {
            o for c in (C.SkeletonGaitCfg, C.SkeletonGaitPPCfg) for o in get_args(c.__annotations__['model'])
        } == set(models.MODELS)
        protocols.GalleryProbe.from_dict(load_config('demo_skeletongait')[0].evaluator_cfg.protocol)


def test_defaults_of_losses_are_those_of_their_classes():
    for section, loss in ((C.TripletLossCfg, TripletLoss), (C.CrossEntropyLossCfg, CrossEntropyLoss)):
        parameters = inspect.signature(loss).parameters
        for field in dataclasses.fields(section):
            if field.name in parameters and parameters[field.name].default is not inspect.Parameter.empty:
                assert getattr(section(), field.name) == parameters[field.name].default, field.name
