"""Maps drawn by the loader's workers: the same maps, so the same losses, as from files.

Also: a sigma drawn for each sequence, and one line for every bad pose.
"""
import copy
import itertools
import json
import logging
import os
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings, strategies as st
from toys import chain, equal, tiny, training_sampler

import skeletongait.data.dataset as data_module
from skeletongait.data import streams
from skeletongait.runs.schema import make_config, render_settings
from skeletongait.maps.settings import heatmap_tree
from skeletongait.runs.changes import map_changes
from skeletongait.runs.config import parse_yaml
from skeletongait.files.settings import SettingsError, to_dict, to_yaml
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.files.tree import read_tree
from skeletongait.files.text import save_text
from skeletongait.data.dataset import GaitDataset, first_look
from skeletongait.data.samplers import sample_frames, slot_rng
from skeletongait.data.streams import is_pose, load_sequence, load_streams, take_frames
from skeletongait.data.loader import make_loader
from skeletongait.data.partition import read_partition
from skeletongait.maps.settings import HeatmapConfig, heatmap_config
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.distributed import Ranks
from skeletongait.cli import run_script
from skeletongait.main import main
from skeletongait.files.arrays import ENDINGS, Limits, UnsafePickleError, load_pickle
from skeletongait.poses.joints import COCO17_FROM, JOINTS, PoseError
from skeletongait.runs.folder import Run
from skeletongait.runs.checkpoint import load_checkpoint
from skeletongait.runs.loop import TrainingRun, test_model as run_test_phase, train
from skeletongait.runs.trainer import make_dataset, make_trainer
from skeletongait.runs.watch import read_scalars
from skeletongait.data.transforms import build_transform
from skeletongait.walkers.datasets import write_walkers

TRAIN = training_sampler([4, 2], 6, 2)
TEST = dict(type='InferenceSampler', batch_size=3, sample_type='all_ordered', frames_all_limit=9)
CHAIN = [chain(0.5)]
NETS = {'SkeletonGait': 'demo_skeletongait', 'SkeletonGait++': 'demo_skeletongait++'}


def first(it, n): return list(itertools.islice(iter(it), n))
def loader(ds, cfg=TRAIN, workers=0, **kw):
    return make_loader(ds, cfg, 5, num_workers=workers, **kw)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "Six walkers: `pose`, `linked` (maps and silhouettes) and `linked_pose` (poses and silhouettes)."
    root = tmp_path_factory.mktemp('walkers')
    write_walkers(root, n_subjects=6, n_train=4, types=('nm-01', 'bg-01'), views=('000', '090'), n_frames=12)
    for seq, (f,) in read_tree(root/'pose').sequences.items():
        pose, sil = load_pickle(f), load_pickle(seq.path(root/'silhouette')/f.name)
        for tree, x in (('linked', pose_to_heatmap(pose)), ('linked_pose', pose)):
            save_pickle(x, seq.path(root/tree)/f'0_{"heatmap" if tree == "linked" else "pose"}.pkl')
            save_pickle(sil, seq.path(root/tree)/'1_sil.pkl')
    return root


@pytest.fixture(scope='module')
def part(root): return read_partition(root/'partition.json')


def dataset(root, part, tree='linked_pose', training=True, use=None, **kw):
    return GaitDataset(
        read_tree(root / tree), part, training, use, transform=build_transform(CHAIN) if training else None, **kw
    )


# The same maps

@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('use', [[True, False], [True, True]])
@pytest.mark.parametrize(
    'cfg',
    [
        TRAIN,
        TRAIN | dict(sample_type='fixed_unordered', frames_num_fixed=20),
        TRAIN | dict(sample_type='unfixed_ordered', frames_num_min=3, frames_num_max=15),
    ],
    ids=lambda o: o['sample_type'],
)
def test_batches_equal_those_from_files(root, part, workers, use, cfg):
    files, fly = dataset(root, part, 'linked', use=use), dataset(root, part, use=use, render=HeatmapConfig())
    for a, b in zip(first(loader(files, cfg), 3), first(loader(fly, cfg, workers), 3), strict=True):
        assert equal(a, b)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_test_equals_that_from_files(root, part, workers):
    files, fly = dataset(root, part, 'linked', False), dataset(root, part, training=False, render=HeatmapConfig())
    for a, b in zip(loader(files, TEST), loader(fly, TEST, workers), strict=True):
        assert equal(a, b)
    assert all(np.array_equal(files.load(i), fly.load(i)) for i in range(len(files)))


def test_a_tree_of_poses_alone(root, part):
    files, fly = dataset(root, part, 'linked', use=[0]), dataset(root, part, 'pose', render=HeatmapConfig())
    for a, b in zip(first(loader(files), 2), first(loader(fly), 2), strict=True):
        assert equal(a, b)


def any_pose(data, n, v):
    "A pose sequence of n frames in a format of v joints (53: a flat one), with holes."
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    k = 17 if v == 53 else v
    pose = np.concatenate([rng.uniform(50, 300, (n, k, 2)), rng.uniform(0, 1, (n, k, 1))], -1)
    pose[rng.random((n, k)) < data.draw(st.sampled_from([0, .2, .6]))] = 0
    pose[:, [8, 9, 11, 12], :2] += 400*(pose[:, [8, 9, 11, 12], :2] == 0)  # some hips are seen
    if v == 53:
        pose = np.concatenate([np.zeros((n, 2)), pose.reshape(n, -1)], 1)
    elif data.draw(st.booleans()):
        pose = pose[..., :2]
    return pose.astype(data.draw(st.sampled_from([np.float32, np.float64])))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_frames_of_any_pose(tmp_path_factory, data):
    "Rendering the drawn frames is indexing the drawn maps: any format, dtype, holes, settings, frames."
    n, v = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([17, 18, 25, 53]))
    pose = any_pose(data, n, v)
    cfg = heatmap_config(
        dict(
            heatmap_generator_args=dict(sigma=data.draw(st.sampled_from([2.0, 8.0, 11.5]))),
            align_args=dict(align=data.draw(st.booleans()), offset=data.draw(st.integers(0, 3))),
            padkeypoints_args=dict(pad_method=data.draw(st.sampled_from(['knn', 'simple']))),
        )
    )
    f = tmp_path_factory.getbasetemp()/'any.pkl'
    save_pickle(pose, f)
    try:
        maps = pose_to_heatmap(pose, cfg)
    except PoseError as e:
        with pytest.raises(PoseError) as told:
            load_streams((f,), cfg)
        assert str(told.value) == f'{f}: {e}'
        return
    ids = np.array(data.draw(st.lists(st.integers(0, n-1), min_size=1, max_size=12)))
    streams = load_streams((f,), cfg)
    np.testing.assert_array_equal(take_frames(streams, ids, (f,), cfg), maps[ids])
    np.testing.assert_array_equal(load_sequence((f,), cfg), maps)


def test_only_drawn_frames_are_drawn_and_each_once(root, part, monkeypatch):
    seen, real = [], streams.draw_maps
    monkeypatch.setattr(streams, 'draw_maps', lambda joints, cfg: seen.append(len(joints)) or real(joints, cfg))
    ds = dataset(root, part, 'pose', render=HeatmapConfig())
    for cfg in (
        TRAIN,
        TRAIN | dict(sample_type='fixed_unordered', frames_num_fixed=30),
        TRAIN | dict(sample_type='fixed_ordered', frames_num_fixed=20),
    ):
        ids = sample_frames(12, cfg, slot_rng(0, 0, 0))
        item = ds.sample(0, cfg, slot_rng(0, 0, 0))
        assert len(item.frames) == len(ids) and seen.pop() == len(set(ids)) and not seen


@pytest.mark.parametrize(
    'shape,yes',
    [
        ((5, 17, 3), 1),
        ((5, 17, 2), 1),
        ((5, 18, 3), 1),
        ((5, 25, 2), 1),
        ((5, 53), 1),
        ((0, 17, 3), 1),
        ((5, 17, 4), 0),
        ((5, 16, 3), 0),
        ((5, 51), 0),
        ((5, 64, 44), 0),
        ((5, 2, 64, 64), 0),
        ((5, 17, 3, 1), 0),
        ((53,), 0),
        ((17, 3), 0),
    ],
)
def test_the_shape_says_what_a_pose_is(shape, yes):
    assert is_pose(np.zeros(shape)) is bool(yes)


def test_other_joint_orders_serve(root, part, tmp_path):
    "COCO-18 and GREW's flat form give the maps of the same person in COCO-17."
    for seq, (f,) in read_tree(root/'pose').sequences.items():
        pose = load_pickle(f)
        coco18 = np.zeros((len(pose), 18, 3), np.float32)
        coco18[:, COCO17_FROM[18]] = pose
        save_pickle(coco18, seq.path(tmp_path/'18')/'p.pkl')
        save_pickle(
            np.concatenate([np.zeros((len(pose), 2), np.float32), pose.reshape(len(pose), -1)], 1),
            seq.path(tmp_path / 'flat') / 'p.pkl',
        )
    want = first(loader(dataset(root, part, 'pose', render=HeatmapConfig())), 1)[0]
    for form in ('18', 'flat'):
        assert equal(first(loader(dataset(tmp_path, part, form, render=HeatmapConfig())), 1)[0], want)


# Formats and limits

@pytest.mark.parametrize('ending', ['.npy', '.npz'])
def test_arrays_without_pickle(root, part, tmp_path, ending):
    for tree in ('linked', 'linked_pose'):
        for seq, files in read_tree(root/tree).sequences.items():
            for f in files:
                to = seq.path(tmp_path/tree)/f'{f.stem}{ending}'
                to.parent.mkdir(parents=True, exist_ok=True)
                np.save(to, load_pickle(f)) if ending == '.npy' else np.savez_compressed(to, load_pickle(f))
    want = first(loader(dataset(root, part, 'linked')), 2)
    for tree, render in (('linked', None), ('linked_pose', HeatmapConfig())):
        ds = GaitDataset(read_tree(tmp_path/tree, ENDINGS), part, True, transform=build_transform(CHAIN), render=render)
        for a, b in zip(first(loader(ds), 2), want, strict=True):
            assert equal(a, b)
        cfg = tiny(root, NETS['SkeletonGait++'])
        cfg.data_cfg.dataset_root, cfg.data_cfg.render = str(tmp_path/tree), None if render is None else {}
        assert len(make_dataset(cfg, training=True)[0]) == 16


@pytest.mark.parametrize(
    'key,value,says',
    [('max_frames', 11, 'at most 11 frames'), ('max_frames', 12, None), ('max_file_mb', 1, 'at most 1 MB')],
)
@pytest.mark.parametrize('ending', ['.pkl', '.npy'])
def test_limits_come_from_the_settings(root, tmp_path, key, value, says, ending):
    cfg = tiny(root)
    cfg.data_cfg.dataset_root = str(tmp_path)
    cfg.data_cfg.render = {}
    cfg.data_cfg.data_in_use = [True]
    setattr(cfg.data_cfg, key, value)
    for seq, (f,) in read_tree(root/'pose').sequences.items():
        to = seq.path(tmp_path)/f'p{ending}'
        x = np.tile(load_pickle(f), (1 if key == 'max_frames' else 500, 1, 1))
        save_pickle(x, to) if ending == '.pkl' else (to.parent.mkdir(parents=True), np.save(to, x))
    if says is None:
        assert make_dataset(cfg, training=True)[0].limits == Limits(frames=12)
    else:
        with pytest.raises(SkeletonGaitError, match=f'p{ending}.*{says}.*raise {key}'):
            make_dataset(cfg, training=True)


# Sigma as augmentation

def sigmas(ds, n=200):
    return [ds.sample_settings(slot_rng(1, i, s)).sigma for i in range(n//4) for s in range(4)]


def test_sigma_is_drawn_in_training_only_and_for_each_draw(root, part):
    ds = dataset(root, part, 'pose', render=HeatmapConfig(offset=2), render_sigma=[3, 9.5])
    drawn = np.array(sigmas(ds, 2000))
    assert len(set(drawn)) == 2000 and drawn.min() >= 3 and drawn.max() <= 9.5
    assert np.abs(np.quantile(drawn, np.linspace(.1, .9, 9)) - np.linspace(3.65, 8.85, 9)).max() < .35   # uniform
    assert ds.sample_settings(slot_rng(0, 0, 0)).offset == 2 and ds.render == HeatmapConfig(offset=2)
    test = dataset(root, part, 'pose', training=False, render=HeatmapConfig(sigma=5.), render_sigma=[3, 9.5])
    assert set(sigmas(test)) == {5.0}
    assert np.array_equal(test.load(0), pose_to_heatmap(load_pickle(test.files[0][0]), HeatmapConfig(sigma=5.0)))


def test_a_drawn_sigma_moves_nothing_else(root, part):
    "Frames and warps of every slot are those of the fixed sigma; a range of one value is that value, bit for bit."
    fixed, one, wide = (dataset(root, part, render=HeatmapConfig(), render_sigma=o) for o in (None, [8, 8], [3, 12]))
    for s, i in itertools.product(range(4), range(len(fixed))):
        a, b, c = (ds.sample(i, TRAIN, slot_rng(0, s, i)).frames for ds in (fixed, one, wide))
        assert np.array_equal(a, b) and not np.array_equal(a[:, :2], c[:, :2])
        assert np.array_equal(a[:, 2], c[:, 2])  # the silhouettes, warped along with the maps


def test_a_drawn_sigma_is_the_slot_s_own(root, part):
    "Workers, ranks and a resume change nothing; the maps are those of the sigma that was drawn."
    ds = dataset(root, part, render=HeatmapConfig(), render_sigma=[3, 12])
    whole = first(loader(ds), 3)
    for workers in (1, 2):
        for a, b in zip(whole, first(loader(ds, workers=workers), 3), strict=True):
            assert equal(a, b)
    assert equal(whole[2], first(loader(ds, start=2), 1)[0])
    for r in range(2):
        for a, b in zip(whole, first(loader(ds, rank=r, world=2), 3), strict=True):
            assert torch.equal(a.frames[r::2], b.frames)
    plain = GaitDataset(read_tree(root/'pose'), part, True, render=HeatmapConfig(), render_sigma=[3, 12])
    for slot in range(5):
        x = plain.sample(slot, TRAIN, slot_rng(7, 1, slot)).frames
        sigma = plain.sample_settings(slot_rng(7, 1, slot)).sigma
        maps = pose_to_heatmap(load_pickle(plain.files[slot][0]), HeatmapConfig(sigma=sigma))
        assert np.array_equal(x, maps[sample_frames(12, TRAIN, slot_rng(7, 1, slot))][..., 10:54])


# In memory

@pytest.mark.parametrize('workers', [0, 2])
def test_cache_keeps_joints_and_changes_nothing(root, part, workers):
    fly, kept = (dataset(root, part, render=HeatmapConfig(), render_sigma=[4, 12], cache=o) for o in (False, True))
    assert [[x.shape for x in s] for s in kept.cached] == [[(12, 17, 3), (12, 1, 64, 64)]]*16
    before = copy.deepcopy(kept.cached)
    for a, b in zip(first(loader(fly), 3), first(loader(kept, workers=workers), 3), strict=True):
        assert equal(a, b)
    assert all(np.array_equal(x, y) for s, t in zip(before, kept.cached) for x, y in zip(s, t))


def test_cache_reads_and_places_once(root, part, monkeypatch):
    ds = dataset(root, part, 'pose', render=HeatmapConfig(), cache=True)
    def no(*args): raise AssertionError('read again')
    for name in ('open_array', 'place_joints'):
        monkeypatch.setattr(streams, name, no)
    first(loader(ds), 3)
    assert sum(x.nbytes for s in ds.cached for x in s) == 16*12*17*3*4


# What can be wrong

class Evil:
    def __init__(self, marker): self.marker = marker
    def __reduce__(self): return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def spoilt(kind, x):
    "A pose that no map can be drawn of."
    if kind == 'nan':
        x[-1, 5, 0] = np.nan
    if kind == 'inf':
        x[3, 5, 2] = np.inf
    if kind == 'flat body':
        x[4, :, 1] = 200
    others = {
        'no frame': x[:0],
        'one frame more': np.concatenate([x, x[:1]]),
        'text': np.array(['a']),
        'dict': {'pose': x},
        '19 joints': np.repeat(x, 2, 1)[:, :19],
    }
    return others.get(kind, x)


def spoil(kind, f, folder):
    "Make one pose file bad."
    x = load_pickle(f)
    if kind == 'evil':
        f.write_bytes(pickle.dumps(Evil(folder/'ran')))
    elif kind == 'evil array':
        f.write_bytes(pickle.dumps(np.array([Evil(folder/'ran')], object)))
    elif kind == 'truncated':
        f.write_bytes(f.read_bytes()[:700])
    elif kind == 'empty':
        f.write_bytes(b'')
    elif kind == 'gone':
        f.unlink()
        f.symlink_to(folder/'gone')
    else:
        save_pickle(spoilt(kind, x), f)


BAD = {
    'evil': 'refused',
    'evil array': 'refused',
    'truncated': 'not a readable pickle',
    'empty': 'the file is empty',
    'gone': 'cannot be read',
    'nan': 'frame 11: NaN',
    'inf': 'frame 3: NaN or inf',
    'flat body': 'frame 4: all joints have the same y',
    'no frame': 'found no frame',
    'text': 'expected at least one frame',
    'dict': 'holds a dict',
}


@pytest.fixture
def copied(root, tmp_path):
    for seq, files in read_tree(root/'linked_pose').sequences.items():
        for f in files:
            save_pickle(load_pickle(f), seq.path(tmp_path/'tree')/f.name)
    return tmp_path


@pytest.mark.parametrize('workers', [0, 1, 2])
@pytest.mark.parametrize('kind', BAD)
def test_a_bad_pose_is_one_line_that_names_the_file(copied, part, kind, workers):
    ds = dataset(copied, part, 'tree', False, render=HeatmapConfig())
    f = ds.files[3][0]
    spoil(kind, f, copied)
    with pytest.raises(SkeletonGaitError, match=BAD[kind]) as e:
        list(loader(ds, TEST, workers))
    assert str(e.value).startswith(f'{f}: ') and '\n' not in str(e.value) and not (copied/'ran').exists()
    if 'evil' in kind:
        assert type(e.value) is UnsafePickleError
    with pytest.raises(SkeletonGaitError, match=BAD[kind]):
        dataset(copied, part, 'tree', False, render=HeatmapConfig(), cache=True)


def test_a_bad_frame_is_an_error_even_if_it_is_never_drawn(copied, part):
    ds = dataset(copied, part, 'tree', False, render=HeatmapConfig())
    spoil('nan', ds.files[0][0], copied)
    with pytest.raises(PoseError, match='frame 11'):
        ds.sample(0, TEST | dict(frames_all_limit=1), slot_rng(0, 0, 0))


def test_lengths_of_pose_and_silhouette_must_agree(copied, part):
    ds = dataset(copied, part, 'tree', False, render=HeatmapConfig())
    spoil('one frame more', ds.files[1][0], copied)
    with pytest.raises(
        SkeletonGaitError, match='same number of frames; found 0_pose.pkl 13 poses, 1_sil.pkl 12 frames of 64 x 64'
    ) as e:
        list(loader(ds, TEST, 1))
    assert str(ds.files[1][0].parent) in str(e.value)


@pytest.mark.parametrize('workers', [0, 1])
def test_poses_without_the_setting(root, part, workers):
    with pytest.raises(
        SkeletonGaitError,
        match=r'0_pose.pkl: holds poses \(12, 17, 3\), not frames; set data_cfg.render .* or draw files first',
    ) as e:
        list(loader(dataset(root, part, training=False), TEST, workers))
    assert '\n' not in str(e.value)


def test_an_unknown_number_of_joints_is_reported_with_the_shape(copied, part):
    ds = dataset(copied, part, 'tree', False, render=HeatmapConfig())
    spoil('19 joints', ds.files[1][0], copied)
    with pytest.raises(SkeletonGaitError, match='found 0_pose.pkl 12 frames of 19 x 3') as e:
        list(loader(ds, TEST, 1))
    assert str(ds.files[1][0].parent) in str(e.value)


def test_sizes_that_do_not_go_together(root, part):
    ds = dataset(root, part, training=False, render=heatmap_config(dict(align_args=dict(final_img_size=128))))
    with pytest.raises(
        SkeletonGaitError, match='one height.*0_pose.pkl 9 frames of 128 x 128, 1_sil.pkl 9 frames of 64 x 64'
    ):
        list(loader(ds, TEST))


def test_first_look(root, part):
    assert first_look(dataset(root, part, 'linked')) == ()
    for training, sigmas, says in (
        (True, None, '6.5'),
        (True, [4, 12.5], 'drawn from 4 to 12.5'),
        (False, [4, 12.5], '6.5'),
    ):
        assert first_look(
            dataset(root, part, training=training, render=HeatmapConfig(sigma=6.5), render_sigma=sigmas)
        ) == (f'maps are drawn from poses, sigma {says}',)
    for training, sigmas in ((True, None), (False, [4, 12])):  # a test draws no sigma, so a range of them does no harm
        note, = first_look(dataset(root, part, 'linked', training, render=HeatmapConfig(), render_sigma=sigmas))
        assert 'data_cfg.render is set, but the files hold frames' in note and '0_heatmap.pkl, 1_sil.pkl' in note


def test_a_range_of_sigmas_without_poses_is_an_error(root, part):
    ds = dataset(root, part, 'linked', render=HeatmapConfig(), render_sigma=[4, 12])
    with pytest.raises(
        SkeletonGaitError,
        match=r'0_heatmap.pkl, 1_sil.pkl\): holds frames, whose sigma is fixed, '
        r'but data_cfg.render_sigma .* or remove render_sigma',
    ) as e:
        first_look(ds)
    assert str(ds.files[0][0].parent) in str(e.value) and '\n' not in str(e.value)
    with pytest.raises(SkeletonGaitError, match='render_sigma'):
        make_dataset(settings_of(root, 'SkeletonGait++', 'linked', 0, render={}, render_sigma=[4, 12]), training=True)


@pytest.mark.parametrize('training', [True, False])
def test_the_renderer_is_compiled_before_workers_start(root, part, monkeypatch, training):
    calls = []
    monkeypatch.setattr(data_module, 'compile_loops', lambda: calls.append(1))
    for tree, render, n in (('linked', None, 0), ('linked', HeatmapConfig(), 0), ('linked_pose', HeatmapConfig(), 1)):
        first_look(dataset(root, part, tree, training, render=render))
        assert len(calls) == n
    def full(): raise SkeletonGaitError('no room for compiled code')
    monkeypatch.setattr(data_module, 'compile_loops', full)
    with pytest.raises(SkeletonGaitError, match='no room'):
        make_dataset(settings_of(root, 'SkeletonGait++', 'linked_pose', 0, render={}), training)


# Settings

def read(text): return make_config(parse_yaml(text))[0]


def test_resolved_settings(tmp_path):
    save_text('heatmap_generator_args: {sigma: 6.0}\nnorm_args: {heatmap_image_height: 96}\n', tmp_path/'heatmap.yaml')
    a = read(f'data_cfg: {{render: {tmp_path/"heatmap.yaml"}}}')
    b = read('data_cfg: {render: {heatmap_generator_args: {sigma: 6.0}, norm_args: {heatmap_image_height: 96}}}')
    assert a == b
    assert a.data_cfg.render['heatmap_generator_args'] | {} == dict(
        sigma=6.0, use_score=True, img_h=96, img_w=96, with_limb=None, with_kp=None
    )
    (tmp_path/'heatmap.yaml').unlink()
    # the file is not needed again
    assert read(to_yaml(a)) == a and yaml.safe_load(to_yaml(a))['data_cfg']['render'] == a.data_cfg.render
    assert render_settings(a.data_cfg.render) == heatmap_config(
        dict(heatmap_generator_args=dict(sigma=6.0), norm_args=dict(heatmap_image_height=96))
    )
    c = read('data_cfg: {render: {}, render_sigma: [4, 12]}')
    assert render_settings(c.data_cfg.render) == HeatmapConfig() and c.data_cfg.render_sigma == [4, 12]
    for o in ('data_cfg: {}', 'data_cfg: {render: null, render_sigma: null}'):
        d = read(o).data_cfg
        assert (d.render, d.render_sigma, d.max_file_mb, d.max_frames) == (None, None, *Limits())
        assert 'render' not in to_dict(d)


@given(
    st.builds(
        lambda *args, **new: HeatmapConfig(*args[:-1], min(args[-1], args[8] - 1), **new),
        st.booleans(),
        st.sampled_from(['knn', 'simple']),
        st.booleans(),
        st.booleans(),
        st.sampled_from(['coco', 'openpose-18', 'openpose-25']),
        st.integers(2, 4096),
        st.floats(0.01, 9999),
        st.integers(2, 4096),
        st.integers(2, 4096),
        st.booleans(),
        st.integers(1, 512),
        st.integers(0, 99),
        st.integers(1, 2048),
        min_conf=st.sampled_from([0, 0.0, 0.25, 1, 1.0]),
        joints_off=st.lists(st.sampled_from(JOINTS), max_size=3),
        leave_out_unseen=st.booleans(),
    )
)
def test_heatmap_tree_is_read_back_as_the_same_settings(o):
    assert heatmap_config(heatmap_tree(o)) == o
    assert (
        'min_conf' in heatmap_tree(o)['padkeypoints_args'],
        'joints_off' in heatmap_tree(o)['heatmap_generator_args'],
        'leave_out_unseen' in heatmap_tree(o)['padkeypoints_args'],
    ) == (o.min_conf > 0, o.joints_off != (), o.leave_out_unseen)
    cfg = make_config(dict(data_cfg=dict(render=heatmap_tree(o))))[0]
    assert cfg.data_cfg.render == heatmap_tree(o)
    assert render_settings(make_config(parse_yaml(to_yaml(cfg)))[0].data_cfg.render) == o


@pytest.mark.parametrize(
    'text,words',
    [
        ('render: true', ('data_cfg.render', 'found true', 'text, or a mapping')),
        ('render: [a]', ('data_cfg.render', 'text, or a mapping')),
        ('render: {sigma: 4}', ('data_cfg.render.sigma: unknown key', 'it belongs at heatmap_generator_args.sigma')),
        ('render: {heatmap_generator_args: {sigm: 4}}',
         ('data_cfg.render.heatmap_generator_args.sigm: unknown key', 'did you mean sigma?')),
        ('render: {heatmap_generator_args: {sigma: 0}}',
         ('data_cfg.render.heatmap_generator_args.sigma: found 0', 'at least 0.01')),
        ('render: {align_args: 4}', ('data_cfg.render.align_args: found 4', 'a mapping')),
        ('render: no/such.yaml', ('data_cfg.render: no/such.yaml: cannot be read',)),
        ('render: {padkeypoints_args: {pad_method: nearest}}',
         ('data_cfg.render.padkeypoints_args.pad_method: found', 'knn, simple')),
        ('render_sigma: [4, 12]', ('data_cfg.render_sigma', 'no effect without data_cfg.render')),
        ('{render: {}, render_sigma: 4}', ('data_cfg.render_sigma', 'a list of 2')),
        ('{render: {}, render_sigma: [4]}', ('data_cfg.render_sigma', 'a list of 2')),
        ('{render: {}, render_sigma: [4, "12"]}', ('data_cfg.render_sigma', 'a list of 2')),
        ('{render: {}, render_sigma: [12, 4]}', ('data_cfg.render_sigma', '[12, 4]', 'low first')),
        ('{render: {}, render_sigma: [0, 4]}', ('data_cfg.render_sigma', 'from 0.01')),
        ('{render: {}, render_sigma: [0.009, 4]}', ('data_cfg.render_sigma', 'from 0.01')),
        ('{render: {}, render_sigma: [-1, 4]}', ('data_cfg.render_sigma', 'from 0.01')),
        ('{render: {}, render_sigma: [4, 1e5]}', ('data_cfg.render_sigma', 'to 10,000')),
        ('max_frames: 0', ('data_cfg.max_frames', 'at least 1')),
        ('max_file_mb: 0', ('data_cfg.max_file_mb', 'at least 1')),
        ('max_frames: null', ('data_cfg.max_frames', 'a whole number')),
        ('renders: {}', ('data_cfg.renders: unknown key', 'did you mean render')),
    ],
)
def test_refused(text, words):
    with pytest.raises(SettingsError) as e:
        make_config(dict(data_cfg=parse_yaml(text)))
    assert '\n' not in str(e.value) and all(w in str(e.value) for w in words), str(e.value)


def test_map_changes():
    def drawn(**o):
        return dict(render=heatmap_tree(HeatmapConfig(**o)), dataset_root=str(o))

    assert map_changes({}, {}) == map_changes(dict(render=None), {}) == map_changes(dict(render={}), drawn()) == ''
    assert map_changes(drawn(), drawn(sigma=4.0)) == 'sigma: 8.0 then, 4.0 now'
    assert map_changes({}, drawn(sigma=4.0)) == 'render: null then, given now'
    assert map_changes(drawn(align=False) | dict(render_sigma=[4, 12]), drawn(offset=2, pad_method='simple')).split(
        '; '
    ) == [
        'render_sigma: [4, 12] then, null now',
        'pad_method: knn then, simple now',
        'align: false then, true now',
        'offset: 0 then, 2 now',
    ]
    with pytest.raises(SettingsError, match='data_cfg.render'):
        map_changes(dict(render=4), {})


# Whole runs

def settings_of(root, net, tree, workers, **data):
    cfg = tiny(root, NETS[net], log_iter=1)
    d = cfg.data_cfg
    d.dataset_root, d.num_workers = str(root/tree), workers
    for k, v in data.items():
        setattr(d, k, v)
    return make_config(to_dict(cfg))[0]


def outcome(cfg, folder):
    "Train: every logged number, and the weights at the end."
    trainer, run = run_all_with_workers(cfg, folder)
    losses = {
        k: v for k, v in read_scalars(run.folder / 'summary').items() if not k.startswith(('seconds', 'throughput'))
    }
    return losses, trainer.net.state_dict(), run, trainer


def run_all_with_workers(cfg, folder):
    one = Ranks(0, 1, 0)
    training = TrainingRun(make_trainer(cfg, one), Run(cfg, folder), cfg, one)
    data, _, _ = make_dataset(cfg, training=True)
    t = cfg.trainer_cfg
    train(training, make_loader(data, to_dict(t.sampler), t.seed, num_workers=cfg.data_cfg.num_workers))
    return training.trainer, training.run


@pytest.mark.parametrize('net', NETS)
def test_same_losses_as_from_files(root, tmp_path, net):
    losses, weights, run, trainer = outcome(settings_of(root, net, 'linked', 0), tmp_path/'files')
    assert losses['triplet/loss'][0] == [1, 2, 3, 4, 5, 6] and len(set(losses['softmax/loss'][1])) == 6
    results = run_test_phase(trainer.net, settings_of(root, net, 'linked', 0), run, 6, Ranks(0, 1, 0))
    for workers in (0, 2):
        cfg = settings_of(root, net, 'linked_pose', workers, render={})
        l, w, r, t = outcome(cfg, tmp_path/f'fly{workers}')
        assert l == losses and all(torch.equal(w[k], weights[k]) for k in weights)
        assert run_test_phase(t.net, cfg, r, 6, Ranks(0, 1, 0)) == results
    saved = load_checkpoint(r.checkpoint(6))['config']
    assert saved['data_cfg']['render'] == heatmap_tree(HeatmapConfig()) and make_config(saved)[0] == cfg


def test_another_sigma_has_other_losses(root, tmp_path):
    "What the files were drawn with and what the settings say are two things; and a drawn sigma repeats itself."
    fixed, *drawn, other = (
        outcome(settings_of(root, 'SkeletonGait', 'linked_pose', w, **data), tmp_path / str(i))[0]['triplet/loss']
        for i, (w, data) in enumerate(
            [
                (0, dict(render={})),
                (0, dict(render={}, render_sigma=[4, 12])),
                (2, dict(render={}, render_sigma=[4, 12])),
                (0, dict(render=dict(heatmap_generator_args=dict(sigma=4.0)))),
            ]
        )
    )
    assert drawn[0] == drawn[1] and len({str(o) for o in (fixed, drawn[0], other)}) == 3


@pytest.fixture
def quiet_log():
    yield
    logging.getLogger('skeletongait').handlers = []


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('net', NETS)
def test_the_main_script(root, tmp_path, net, workers, quiet_log):
    "Both phases on a tree of poses, and the resolved settings in the checkpoint."
    save_text('heatmap_generator_args: {sigma: 5.0}', tmp_path/'heatmap.yaml')
    cfg = settings_of(root, net, 'linked_pose', workers, render=str(tmp_path/'heatmap.yaml'), render_sigma=[4, 6])
    tree = to_dict(cfg)
    tree['data_cfg']['render'] = str(tmp_path/'heatmap.yaml')
    save_text(yaml.safe_dump(tree), tmp_path/'x.yaml')
    for phase in ('train', 'test'):
        assert run_script(main, [f'--cfgs={tmp_path/"x.yaml"}', f'--phase={phase}', f'--output_root={tmp_path}']) == 0
    run = Run(cfg, tmp_path)
    saved = load_checkpoint(run.checkpoint(6))['config']
    assert saved['data_cfg']['render']['heatmap_generator_args']['sigma'] == 5.0
    assert saved['data_cfg']['render_sigma'] == [4, 6]
    assert json.loads(run.results(6).read_text())['probes'] == 4


def said_by_run(root, folder, capsys, phase, tree, *args, **data):
    "The log of one phase of a run."
    config = folder/'x.yaml'
    save_text(to_yaml(settings_of(root, 'SkeletonGait++', tree, 0, **data)), config)
    assert run_script(main, [f'--cfgs={config}', f'--phase={phase}', f'--output_root={folder}', *args]) == 0
    return capsys.readouterr().out


def results_of_run(root, folder, i, tree, **data):
    "The file of results of iteration `i`."
    return Run(settings_of(root, 'SkeletonGait++', tree, 0, **data), folder).results(i)


def test_a_run_says_how_its_maps_were_drawn_and_what_changed(root, tmp_path, capsys, quiet_log):
    "In the log of every phase, in the results, and against the checkpoint."
    said = partial(said_by_run, root, tmp_path, capsys)
    results = partial(results_of_run, root, tmp_path)
    four = dict(heatmap_generator_args=dict(sigma=4.))
    changed = 'was trained with other settings of the maps: '
    out = said('train', 'linked_pose', render={}, render_sigma=[4, 12])
    assert 'maps are drawn from poses, sigma drawn from 4 to 12' in out and changed not in out
    out = said('test', 'linked_pose', '--iter=6', render={}, render_sigma=[4, 12])
    assert 'maps are drawn from poses, sigma 8' in out and changed not in out
    assert json.loads(results(6, 'linked_pose', render={}).read_text())['data_cfg'] == dict(
        dataset_root=str(root / 'linked_pose'),
        render=heatmap_tree(HeatmapConfig()),
        render_sigma=[4, 12],
        data_in_use=[True, True],
    )
    out = said('test', 'linked_pose', '--iter=6', render=four)
    assert 'demo-00006.pt ' + changed + 'render_sigma: [4, 12] then, null now; sigma: 8.0 then, 4.0 now' in out
    assert 'poses, sigma 4' in out
    out = said('train', 'linked', '--iter=3')
    assert 'demo-00003.pt was trained with other settings;' in out
    assert 'data_cfg.render_sigma: [4, 12] then, null now' in out
    assert 'from poses' not in out
    # the run went on from files
    assert 'render: null then, given now' in said('test', 'linked_pose', '--iter=6', render={})
    said('test', 'linked', '--iter=6')
    assert json.loads(results(6, 'linked').read_text())['data_cfg'] == dict(
        dataset_root=str(root / 'linked'), render=None, render_sigma=None, data_in_use=[True, True]
    )
    # none has taken another's place
    files = {results(6, 'linked'), results(6, 'linked_pose', render={}), results(6, 'linked_pose', render=four)}
    assert len(files) == 3


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('kind', ['evil', 'nan'])
def test_the_main_script_ends_with_one_line(copied, part, capsys, kind, workers, quiet_log, root):
    cfg = settings_of(root, 'SkeletonGait', 'linked_pose', workers, render={})
    cfg.data_cfg.dataset_root = str(copied/'tree')
    bad = dataset(copied, part, 'tree').files[7][0]
    spoil(kind, bad, copied)
    save_text(to_yaml(cfg), copied/'x.yaml')
    assert run_script(main, [f'--cfgs={copied/"x.yaml"}', '--phase=train', f'--output_root={copied}']) == 2
    err = capsys.readouterr().err
    assert f'{bad}: {"refused" if kind == "evil" else "frame 11: NaN"}' in err
    assert 'Traceback' not in err
    assert not (copied / 'ran').exists()


# Workers and the compiler

@pytest.mark.slow
def test_spawned_workers(root, part):
    "Nothing is inherited: all that a worker needs travels as a pickle, and the renderer is compiled or loaded there."
    ds = dataset(root, part, render=HeatmapConfig(), render_sigma=[4, 12], limits=Limits(frames=500))
    again = pickle.loads(pickle.dumps(ds))
    assert (again.render, again.render_sigma, again.limits) == (ds.render, ds.render_sigma, ds.limits)
    spawned = loader(ds, workers=1)
    spawned.multiprocessing_context = 'spawn'
    for a, b in zip(first(spawned, 2), first(loader(ds), 2), strict=True):
        assert equal(a, b)


COLD = '''
import sys
from functools import partial
import numpy as np
from skeletongait.files.tree import read_tree
from skeletongait.data.dataset import GaitDataset, first_look
from skeletongait.data.loader import make_loader
from skeletongait.data.partition import read_partition
from skeletongait.maps.settings import HeatmapConfig
root, warm = sys.argv[1], sys.argv[2] == 'warm'
partition = read_partition(f'{root}/partition.json')
data = GaitDataset(read_tree(f'{root}/linked_pose'), partition, True, render=HeatmapConfig())
if warm:
    first_look(data)
cfg = dict(type='TripletSampler', batch_size=[4, 2], sample_type='fixed_unordered', frames_num_fixed=4)
it = iter(make_loader(data, cfg, 5, num_workers=2))
for name in ('a', 'b'):
    np.save(f'{sys.argv[3]}/{name}.npy', next(it).frames.numpy())
'''


@pytest.mark.slow
@pytest.mark.parametrize('how', ['warm', 'cold'])
def test_forked_workers_with_nothing_compiled(root, part, tmp_path, how):
    "Without compiled code: compiled before the fork (`warm`) or in two forked workers at once (`cold`), the same maps."
    cache = tmp_path/'numba'
    done = subprocess.run(
        [sys.executable, '-c', COLD, root, how, tmp_path],
        env=os.environ | {'NUMBA_CACHE_DIR': str(cache), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
    assert list(cache.rglob('*.nbi')), 'the compiled code was kept'
    ds = GaitDataset(read_tree(root/'linked'), part, True)
    cfg = dict(type='TripletSampler', batch_size=[4, 2], sample_type='fixed_unordered', frames_num_fixed=4)
    for name, b in zip('ab', first(make_loader(ds, cfg, 5, num_workers=0), 2), strict=True):
        assert np.array_equal(np.load(tmp_path/f'{name}.npy'), b.frames.numpy())
