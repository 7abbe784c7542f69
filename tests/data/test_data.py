"Data: partitions, files, draws as pure functions of (seed, iteration, slot), and one line for every mistake."
import gc
import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import traceback
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from toys import chain, equal, training_sampler
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.files.tree import read_tree
from skeletongait.nets.models import SkeletonGait, SkeletonGaitPP
from skeletongait.data.transforms import build_transform
import skeletongait.data.streams
from skeletongait.data.partition import REGULAR, match_partition
from skeletongait.data.samplers import SAMPLE_TYPES, sample_batch, list_rng, slot_rng
from skeletongait.data.streams import load_stream, pick_files
from skeletongait.data.dataset import GaitDataset, first_look
from skeletongait.data.loader import Batch, LostWorkerError, make_loader, naming_lost_workers
from skeletongait.data.partition import (
    Partition, load_partition, make_partition, read_partition, regular_partition, save_partition)
from skeletongait.data.samplers import InferenceSampler, TripletSampler, sample_frames
from skeletongait.data.streams import load_sequence

TRAIN = training_sampler([3, 4], 6, 2)
TEST = dict(type='InferenceSampler', batch_size=3, sample_type='all_ordered', frames_all_limit=12)
TRANSFORM = [chain(0.5)]
def first(it, n):
    return list(itertools.islice(iter(it), n))

def write(root, subjects=6, sil_width=44, size=64, sil=True):
    for s, (k, (type, view)) in itertools.product(
        range(subjects), enumerate(itertools.product(('nm', 'bg'), ('000', '090')))
    ):
        r, n = np.random.default_rng([s, k]), 5+2*s+k
        heat = np.stack(
            [cv2.GaussianBlur(o, (0, 0), 2) for o in r.integers(0, 256, (n * 2, size, size), dtype=np.uint8)]
        ).reshape(n, 2, size, size)
        folder = root/f'{s+1:03d}'/type/view
        save_pickle(heat, folder/'0_heatmap.pkl')
        if sil:
            save_pickle(r.integers(0, 2, (n, size, sil_width), dtype=np.uint8)*255, folder/'1_sil.pkl')
    return root

@pytest.fixture(scope='module')
def root(tmp_path_factory): return write(tmp_path_factory.mktemp('tree with space'))
@pytest.fixture(scope='module')
def tree(root): return read_tree(root)
@pytest.fixture(scope='module')
def part(tree): return make_partition(tree, ['001', '003', '004', '006'])
@pytest.fixture(scope='module')
def train(tree, part):
    return GaitDataset(tree, part, True, transform=build_transform(TRANSFORM), check_size=SkeletonGaitPP.check_size)
@pytest.fixture(scope='module')
def test(tree, part): return GaitDataset(tree, part, False)

def says(error): return pytest.raises(SkeletonGaitError, match=error)

# Partition

def test_regular_partitions():
    size = {
        'CASIA-B': (74, 50),
        'CASIA-E': (200, 814),
        'CCPG': (100, 100),
        'OUMVLP': (5153, 5154),
        'GREW': (20000, 6001),
    }
    ends = {
        'CASIA-B': ('001', '074', '075', '124'),
        'CASIA-E': ('001', '200', '201', '1014'),
        'CCPG': ('000', '099', '100', '199'),
        'OUMVLP': ('00001', '10305', '00002', '10307'),
        'GREW': ('00001train', '20000train', '00001', 'probe'),
    }
    for name in REGULAR:
        p = regular_partition(name)
        assert (len(p.train), len(p.test)) == size[name]
        assert (p.train[0], p.train[-1], p.test[0], p.test[-1]) == ends[name]
        assert not set(p.train) & set(p.test)
        assert len(set(p.train)) == len(p.train)
        assert len(set(p.test)) == len(p.test)
        assert p.probe is None
    assert regular_partition('OUMVLP').test[-2] == '10306'

def test_partition_is_matched_with_the_disk(tree, tmp_path):
    f = tmp_path/'p.json'
    f.write_text(
        json.dumps(
            {
                'TRAIN_SET': ['006', '001', '099'],
                'TEST_SET': ['003', '001'],
                'PROBE_SET': ['003-nm-000', '003-cl-000', '006-nm-000'],
            }
        )
    )
    p = load_partition(f, tree)
    # in the order of the file
    assert p.train == ('006', '001') and p.test == ('003', '001') and p.probe == ('003-nm-000',)
    for part in (
        '1 listed subjects without data are dropped: 099',
        '3 subjects with data are not in the partition and stay unused: 002, 004, 005',
        '1 subjects are in both',
        '2 listed probes are not test sequences on disk and are dropped: 003-cl-000, 006-nm-000',
    ):
        assert any(part in n and str(tree.root) in n for n in p.notices), part
    assert match_partition(p, tree)._replace(notices=()) == p._replace(notices=())

def test_strays_are_reported(root, tree, tmp_path):
    shutil.copytree(root/'001', tmp_path/'001')
    save_pickle(np.zeros(3), tmp_path/'lost.pkl')
    assert any('lost.pkl' in n for n in load_partition('CASIA-B', read_tree(tmp_path)).notices)

def test_missing_file_of_a_regular_data_set_falls_back_on_the_rule(tree):
    a, b = load_partition('CASIA-B', tree), load_partition('./datasets/CASIA-B/CASIA-B.json', tree)
    assert a.train == b.train == tuple(f'{i:03d}' for i in range(1, 7))
    assert 'no such file' in b.notices[0]
    assert b.notices[1:] == a.notices

@pytest.mark.parametrize(
    'name,error',
    [
        ('Gait3D', 'comes with the data set'),
        ('x/SUSTech1K.json', 'comes with the data set'),
        ('CCGP', "did you mean 'CCPG'"),
        ('OUMVLP', 'another data set'),
    ],
)
def test_partition_errors(tree, name, error):
    with says(error):
        load_partition(name, tree)

@pytest.mark.parametrize(
    'text,error',
    [
        ('[]', 'found list'),
        ('{"TRAIN_SET": ["1"]}', 'expected the keys'),
        ('{"TRAIN_SET": "1", "TEST_SET": []}', 'names in quotes'),
        ('{"TRAIN_SET": [1], "TEST_SET": []}', 'names in quotes'),
        ('x', 'not JSON'),
        (b'\xff\xfe', 'not a text file in UTF-8'),
    ],
)
def test_partition_file_errors(tmp_path, text, error):
    f = tmp_path/'p.json'
    f.write_bytes(text if isinstance(text, bytes) else text.encode())
    with says(error) as e:
        read_partition(f)
    assert str(f) in str(e.value)

@given(st.floats(.01, .99), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_make_partition(tree, fraction, seed):
    p = make_partition(tree, fraction, seed)
    assert len(p.train) >= 1 and len(p.test) >= 1 and sorted(p.train + p.test) == [f'{i:03d}' for i in range(1, 7)]
    assert abs(len(p.train) - fraction*6) <= 1 and p == make_partition(tree, fraction, seed)

def test_make_partition_probes_round_trip(tree, tmp_path):
    p = make_partition(tree, ['001'], probe=['*-bg-*', '002-nm-000'])
    assert p.probe[0] == '002-bg-000'
    assert len(p.probe) == 11
    assert '002-nm-000' in p.probe
    assert not any(n.startswith('001') for n in p.probe)
    save_partition(p, tmp_path/'a'/'p.json')
    assert load_partition(tmp_path/'a'/'p.json', tree) == p
    for args, error in (
        ((0.0,), 'between 0 and 1'),
        ((1,), 'between 0 and 1'),
        ((['7'],), 'no such subject: 7'),
        ((0.5, 0, ['*-cl-*']), 'matches no test'),
    ):
        with says(error):
            make_partition(tree, *args)

# Files

def test_data_in_use(tree):
    f = next(iter(tree.sequences.values()))
    assert [
        pick_files(f, u) for u in (None, [True, True], [True, False], [1], [1, 0], [True], [True, False, False])
    ] == [f, f, f[:1], f[1:], f[::-1], f[:1], f[:1]]
    for use in ([True]*3, [2], [-1], [], [False, False], [True, 1.5], 'ab'):
        with says('data_in_use'):
            pick_files(f, use)

def save_two(folder, heat, sil):
    a, b = folder/'1/nm/0/0_heatmap.pkl', folder/'1/nm/0/1_sil.pkl'
    save_pickle(heat, a)
    save_pickle(sil, b)
    return a, b

@pytest.mark.parametrize(
    'heat,sil,shape,col',
    [
        ((64, 64), (64, 44), (5, 3, 64, 44), 10),
        ((64, 64), (64, 64), (5, 3, 64, 64), 0),
        ((128, 128), (128, 88), (5, 3, 128, 88), 20),
        ((64, 44), (64, 64), (5, 3, 64, 44), 0),
    ],
)
def test_join(tmp_path, heat, sil, shape, col):
    r = np.random.default_rng(0)
    h, s = r.integers(0, 256, (5, 2, *heat), dtype=np.uint8), r.integers(0, 256, (5, *sil), dtype=np.uint8)
    x = load_sequence(save_two(tmp_path, h, s))
    assert x.shape == shape and x.dtype == np.uint8
    np.testing.assert_array_equal(x[:, :2], h[..., col:col+shape[3]])
    c = (sil[1]-shape[3])//2
    np.testing.assert_array_equal(x[:, 2], s[..., c:c+shape[3]])

def test_silhouettes_alone(tmp_path):
    _, b = save_two(tmp_path, 0, np.full((4, 64, 44), 7, np.float64))
    assert load_sequence((b,)).shape == (4, 1, 64, 44) and load_sequence((b,)).dtype == np.float32

def Z(*shape, t=np.uint8):
    return np.zeros(shape, t)

@pytest.mark.parametrize(
    'heat,sil,error',
    [
        (Z(5, 2, 64, 64), Z(4, 64, 44), '0_heatmap.pkl 5 frames of 64 x 64, 1_sil.pkl 4 frames'),
        (Z(0, 2, 64, 64), Z(0, 64, 44), 'at least one frame'),
        (Z(5, 2, 64, 64), Z(5, 128, 88), 'one height'),
        (Z(5, 2, 64, 64), Z(5, 64, 43), 'even number'),
        (Z(5, 2, 64, 64), [1, 2], 'holds a list'),
        (Z(5, 2, 64, 64), Z(64, 44), r'array \(64, 44\)'),
        (Z(5, 2, 64, 64), Z(5, 64, 44, t=bool), 'of bool'),
        (Z(5, 2, 64, 64), Z(5, 64, 44, t=np.int64), 'of int64'),
        (Z(5, 2, 64, 64), np.array('text'), 'holds an array|refused'),
    ],
)
def test_files_that_do_not_fit(tmp_path, heat, sil, error):
    with says(error) as e:
        load_sequence(save_two(tmp_path, heat, sil))
    assert str(tmp_path/'1/nm/0') in str(e.value) and '\n' not in str(e.value)

def test_dead_link_and_unsafe_pickle(tmp_path):
    f = tmp_path/'x.pkl'
    f.symlink_to(tmp_path/'gone.pkl')
    with says('cannot be read'):
        load_stream(f)
    g = tmp_path/'y.pkl'
    g.write_bytes(pickle.dumps(print))
    with says('y.pkl'):
        load_stream(g)

# The data set

def test_order_and_labels(tree):
    p = Partition(('004', '001', '002'), ('006', '005'))
    a, b = GaitDataset(tree, p, True, dataset_name='X'), GaitDataset(tree, p, False)
    assert [str(s) for s in a.sequences[:5]] == ['004-bg-000', '004-bg-090', '004-nm-000', '004-nm-090', '001-bg-000']
    assert a.classes == ['X-001', 'X-002', 'X-004'] and a.labels == [2]*4 + [0]*4 + [1]*4
    assert b.labels == ['006']*4 + ['005']*4 and len(b) == 8
    with says('no sequence of a training subject'):
        GaitDataset(tree, Partition((), ('001',)), True)
    with says('found only 2'):
        GaitDataset(tree, p, True, [True, True, True])

@pytest.mark.parametrize(
    'net,size,sil_width,ok',
    [
        (SkeletonGaitPP, 64, 44, 1),
        (SkeletonGaitPP, 64, 64, 1),
        (SkeletonGaitPP, 64, 48, 1),
        (SkeletonGait, 64, 48, 0),
        (SkeletonGaitPP, 64, 32, 0),
        (SkeletonGaitPP, 128, 88, 1),
        (SkeletonGaitPP, 128, 128, 1),
    ],
)
@pytest.mark.parametrize('base', ['BaseSilTransform', 'BaseSilCuttingTransform'])
def test_sizes(tmp_path, net, size, sil_width, ok, base):
    tree = read_tree(write(tmp_path, 2, sil_width, size))
    ds = GaitDataset(
        tree, make_partition(tree, 0.5), True, transform=build_transform({'type': base}), check_size=net.check_size
    )
    if ok:
        assert ds.sample(0, TRAIN, slot_rng(0, 0, 0)).frames.shape == (
            6,
            3,
            size,
            {64: 44, 128: 88}.get(sil_width, sil_width),
        )
    else:
        with says(f'{size} high and {sil_width} wide') as e:
            ds.sample(0, TRAIN, slot_rng(0, 0, 0))
        assert '1_sil.pkl' in str(e.value) and '44' in str(e.value)

def test_cache_changes_nothing_and_is_left_alone(tree, part, train, root):
    kept = GaitDataset(tree, part, True, transform=build_transform(TRANSFORM), cache=True)
    before = [[x.copy() for x in streams] for streams in kept.cached]
    for i in range(len(train)):
        for s in range(3):
            np.testing.assert_array_equal(
                kept.sample(i, TRAIN, slot_rng(0, 0, s)).frames, train.sample(i, TRAIN, slot_rng(0, 0, s)).frames
            )
    for copies, streams in zip(before, kept.cached, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(copies, streams, strict=True))

# Draws

CFG = dict(frames_num_fixed=7, frames_skip_num=3, frames_num_min=4, frames_num_max=9, frames_all_limit=20)
@given(st.integers(1, 60), st.sampled_from(SAMPLE_TYPES), st.integers(0, 10**6))
@settings(max_examples=400, deadline=None)
def test_sample_frames(n, kind, seed):
    cfg = CFG | {'sample_type': kind}
    ids = sample_frames(n, cfg, np.random.default_rng(seed))
    np.testing.assert_array_equal(ids, sample_frames(n, cfg, np.random.default_rng(seed)))
    assert ids.min() >= 0 and ids.max() < n and ids.dtype.kind == 'i'
    if kind == 'all_ordered':
        assert ids.tolist() == list(range(min(n, 20)))
    elif kind.startswith('fixed'):
        assert len(ids) == 7
    else:
        assert 4 <= len(ids) <= 9
    if kind.endswith('unordered') and len(ids) <= n:
        assert len(set(ids)) == len(ids)
    if kind in ('fixed_ordered', 'unfixed_ordered'):
        if n >= len(ids)+3:
            assert (np.diff(ids) > 0).all() and ids[-1]-ids[0] < len(ids)+3
        # unrolled where it falls back to the start, it is a sorted draw from a window of N + S
        unrolled = ids + n*np.concatenate([[0], np.cumsum(np.diff(ids) <= 0)])
        assert unrolled[-1]-unrolled[0] < len(ids)+3

def test_fixed_ordered_is_uniform_over_windows():
    "Every start of the window comes up, the last one included, and without skipping the window is taken whole."
    cfg = dict(sample_type='fixed_ordered', frames_num_fixed=3, frames_skip_num=0)
    starts = [tuple(sample_frames(6, cfg, np.random.default_rng(s))) for s in range(400)]
    assert set(starts) == {(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5)}
    assert min(starts.count(s) for s in set(starts)) > 60
    # 0 1 0 1, windows of 3
    assert {tuple(sample_frames(2, cfg, np.random.default_rng(s))) for s in range(50)} == {(0, 1, 0), (1, 0, 1)}

@pytest.mark.parametrize(
    'cfg,error',
    [
        ({}, 'None is not known'),
        ({'sample_type': 'fixed_order'}, "did you mean 'fixed_ordered'"),
        ({'sample_type': 'fixed_unordered'}, 'frames_num_fixed is None'),
        ({'sample_type': 'fixed_ordered', 'frames_num_fixed': 3}, 'frames_skip_num is None'),
        ({'sample_type': 'fixed_unordered', 'frames_num_fixed': 0}, '1 or more'),
        ({'sample_type': 'unfixed_ordered', 'frames_num_min': 5, 'frames_num_max': 4}, 'frames_num_max is 4'),
        ({'sample_type': 'all_ordered', 'frames_all_limit': 0}, 'frames_all_limit'),
    ],
)
def test_draw_errors(cfg, error):
    with says(error):
        sample_frames(5, cfg, np.random.default_rng(0))

def test_generators_differ():
    draws = {('list', i): list_rng(3, i).integers(2**62) for i in range(20)} | {
        (i, s): slot_rng(3, i, s).integers(2**62) for i in range(20) for s in range(20)
    }
    assert len(set(draws.values())) == len(draws)

def test_draws_of_earlier_versions():
    "What iteration 17,204 of seed 5 has always drawn; the number after the frames is what its warps begin with."
    assert sample_batch([np.arange(3) + 3 * c for c in range(5)], 3, 2, True, list_rng(5, 17204)).tolist() == [
        12,
        4,
        11,
        14,
        9,
        5,
    ]
    for kind, frames, then in (
        ('fixed_ordered', [9, 10, 11, 12, 15, 16], 476285),
        ('fixed_unordered', [38, 35, 23, 9, 18, 16], 358830),
        ('unfixed_ordered', [10, 11, 13, 14], 331700),
    ):
        rng = slot_rng(5, 17204, 3)
        cfg = dict(sample_type=kind, frames_num_fixed=6, frames_skip_num=2, frames_num_min=3, frames_num_max=8)
        assert (sample_frames(40, cfg, rng).tolist(), int(rng.integers(10**6))) == (frames, then)

@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.integers(1, 10),
    st.integers(1, 8),
    st.booleans(),
    st.integers(0, 9),
)
@settings(max_examples=150, deadline=None)
def test_sample_batch(sizes, p, k, shuffle, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    sampler = TripletSampler(np.random.default_rng(0).permutation(labels).tolist(), [p, k], seed, shuffle)
    ids = sample_batch(sampler.by_label, p, k, shuffle, list_rng(seed, 0))
    assert len(ids) == p*k
    owner = {i: c for c, ix in enumerate(sampler.by_label) for i in ix.tolist()}
    groups = np.array([owner[i] for i in ids.tolist()])
    assert all(n % k == 0 for n in np.unique(groups, return_counts=True)[1])
    if p <= len(sizes):
        assert len(set(groups)) == p
        for c in set(groups):
            mine = ids[groups == c]
            if sizes[c] >= k:
                assert len(set(mine.tolist())) == k
    if not shuffle:
        assert (groups.reshape(p, k) == groups.reshape(p, k)[:, :1]).all()

def test_by_label_holds_each_sequence_in_its_class():
    s = TripletSampler([2, 0, 2, 1, 0], [1, 1], 0)
    assert [o.tolist() for o in s.by_label] == [[1, 4], [3], [0, 2]]

@pytest.mark.parametrize(
    'size,world,error',
    [
        ([3, 3], 2, 'shared by 2'),
        (12, 1, r'\[P, K\]'),
        ([3], 1, r'\[P, K\]'),
        ([0, 4], 1, r'\[P, K\]'),
        (None, 1, r'\[P, K\]'),
    ],
)
def test_sampler_errors(size, world, error):
    with says(error):
        TripletSampler([0, 1], size, 0, world=world)

@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 6))
def test_inference_sampler(n, size, world):
    ranks = [InferenceSampler(n, size, r, world) for r in range(world)]
    assert sorted(o for s in ranks for b in s for o in b) == [(i, 0, i) for i in range(n)]
    assert all(
        len(s) == len(list(s)) and [i for b in s for i, _, _ in b] == list(range(s_rank, n, world))
        for s_rank, s in enumerate(ranks)
    )
    if world == 1:
        assert all(len(b) == size for b in list(ranks[0])[:-1])

# The loader

def loader(ds, cfg=TRAIN, seed=5, num_workers=0, **kw):
    return make_loader(ds, cfg, seed, num_workers=num_workers, **kw)

def test_batch_forms(train, test):
    b = next(iter(loader(train)))
    assert b.frames.shape == (12, 6, 3, 64, 44)
    assert b.frames.dtype == torch.uint8
    assert b.lengths is None
    assert b.labels.dtype == torch.int64
    assert b.iteration == 0
    assert [train.labels[[str(s) for s in train.sequences].index(n)] for n in b.names] == b.labels.tolist()
    on = b.to('cpu')
    assert on.frames.dtype == torch.float32 and on.frames.max() <= 1 and on.names == b.names
    bs = list(loader(test, TEST))
    assert [n for b in bs for n in b.names] == [str(s) for s in test.sequences]
    assert len(loader(test, TEST)) == len(bs) == 3
    for b in bs:
        assert b.frames.shape == (1, sum(b.lengths), 3, 64, 44)
        assert max(b.lengths) <= 12
        assert len(b.lengths) == len(b.labels) == len(b.views)
        for x, n in zip(b.frames[0].split(b.lengths), b.names):
            whole = test.load([str(s) for s in test.sequences].index(n))
            assert torch.equal(x, torch.from_numpy(whole[:12]))
    row = next(iter(loader(train, TRAIN | dict(sample_type='unfixed_unordered', frames_num_min=2, frames_num_max=9))))
    assert row.frames.shape[:2] == (1, sum(row.lengths)) and len(set(row.lengths)) > 1
    alike = next(iter(loader(test, TEST | dict(frames_all_limit=3))))
    assert alike.lengths == [3, 3, 3] # packed anyway

@pytest.mark.parametrize('workers', [1, 2])
def test_workers_change_nothing(train, test, workers):
    for a, b in zip(first(loader(train), 5), first(loader(train, num_workers=workers), 5), strict=True):
        assert equal(a, b)
    many = loader(test, TEST, num_workers=workers)
    for _ in range(2): # a second pass uses the same workers
        for a, b in zip(loader(test, TEST), many, strict=True):
            assert equal(a, b)

@pytest.mark.parametrize('world', [2, 3, 4])
def test_ranks_share_one_batch(train, world):
    whole = first(loader(train), 3)
    for r in range(world):
        for a, b in zip(whole, first(loader(train, rank=r, world=world), 3), strict=True):
            assert torch.equal(a.frames[r::world], b.frames)
            assert torch.equal(a.labels[r::world], b.labels)
            assert a.names[r::world] == b.names
            assert a.iteration == b.iteration

@pytest.mark.parametrize('world', [2, 3, 5, 11])
def test_ranks_share_a_test(test, world):
    alone = {n: x for b in loader(test, TEST) for n, x in zip(b.names, b.frames[0].split(b.lengths))}
    seen = [
        (n, x)
        for r in range(world)
        for b in loader(test, TEST, rank=r, world=world)
        for n, x in zip(b.names, b.frames[0].split(b.lengths))
    ]
    assert sorted(n for n, _ in seen) == sorted(alone) and all(torch.equal(x, alone[n]) for n, x in seen)

def test_start_skips(train):
    for a, b in zip(first(loader(train), 6)[4:], first(loader(train, start=4, num_workers=1), 2), strict=True):
        assert equal(a, b)

def test_seed_and_iteration_matter(train):
    a, b = first(loader(train), 2)
    c = next(iter(loader(train, seed=6)))
    assert not torch.equal(a.frames, b.frames) and not torch.equal(a.frames, c.frames)

def test_global_random_state_is_neither_used_nor_changed(train):
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy()
    a = first(loader(train), 2)
    assert np.array_equal(before, np.random.get_state()[1])
    np.random.seed(1)
    torch.manual_seed(1)
    assert all(equal(u, v) for u, v in zip(a, first(loader(train), 2)))

def test_errors_keep_their_line_through_workers(tmp_path, root):
    shutil.copytree(root, tmp_path/'t')
    tree = read_tree(tmp_path/'t')
    bad = tmp_path/'t/002/bg/000/1_sil.pkl'
    save_pickle(Z(3, 64, 44), bad)
    ds = GaitDataset(tree, make_partition(tree, ['001']), False)
    for workers in (0, 1, 2):
        with says('same number of frames') as e:
            list(loader(ds, TEST, num_workers=workers))
        assert str(bad.parent) in str(e.value) and '\n' not in str(e.value) and type(e.value) is SkeletonGaitError
    with says('same number of frames'):
        GaitDataset(tree, make_partition(tree, ['001']), False, cache=True)

class Fails:
    "A transform with a mistake of its own."
    def __call__(self, x_tchw, rng): return 1/0


@pytest.mark.parametrize('workers', [0, 1])
def test_an_unexpected_error_tells_which_sequence(tree, part, workers):
    ds = GaitDataset(tree, part, False, transform=Fails())
    with pytest.raises(ZeroDivisionError) as e:
        list(loader(ds, TEST, num_workers=workers))
    assert f'while loading {ds.files[0][0].parent} (0_heatmap.pkl, 1_sil.pkl)' in ''.join(
        traceback.format_exception(e.value)
    )


def test_sizes_in_one_batch_must_agree(tmp_path, root):
    shutil.copytree(root, tmp_path/'t')
    for f in (tmp_path/'t/001/bg/000').iterdir():
        save_pickle(Z(5, 128, 128), f)
    tree = read_tree(tmp_path/'t')
    ds = GaitDataset(tree, make_partition(tree, ['002']), False)
    with says('of one size .* 128 x 88 uint8 in 001-bg-000'):
        list(loader(ds, TEST, num_workers=1))

def test_loader_errors(train, test):
    for ds, cfg, error in (
        (train, TEST, "training needs 'TripletSampler'"),
        (test, TRAIN, "testing needs 'InferenceSampler'"),
        (test, TEST | {'batch_size': [4]}, 'whole number'),
        (train, TRAIN | {'batch_size': 8}, r'\[P, K\]'),
    ):
        with says(error):
            loader(ds, cfg)
    with says('sample_type'):
        next(iter(loader(train, TRAIN | {'sample_type': 'fixed'}, num_workers=1)))

def test_workers_start_although_opencv_has_threads(train):
    "A forked worker inherits OpenCV's pool without its threads, and would wait for them forever."
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        for _ in range(3):
            cv2.GaussianBlur(Z(2000, 2000), (0, 0), 5)
        assert equal(next(iter(loader(train, num_workers=1))), next(iter(loader(train)))) and cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)

def test_everything_a_worker_needs_can_be_pickled(train):
    again = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(
        again.sample(3, TRAIN, slot_rng(0, 0, 0)).frames, train.sample(3, TRAIN, slot_rng(0, 0, 0)).frames
    )

@pytest.mark.skipif(not torch.cuda.is_available(), reason='pinned memory needs a GPU')
def test_pinned(train):
    b = next(iter(loader(train, num_workers=1)))
    assert isinstance(b, Batch) and b.frames.is_pinned() and b.to('cuda').frames.dtype == torch.float32


# Lost workers

def die_by(name):
    "End this process by a signal; another of its threads may take it, so this one waits and does not read on."
    os.kill(os.getpid(), signal.Signals[name])
    time.sleep(60)

ENDS = {
    'SIGKILL': (
        lambda: die_by('SIGKILL'),
        'was killed by SIGKILL .* ran out of memory: lower data_cfg.num_workers or data_cfg.max_file_mb',
    ),
    'SIGSEGV': (lambda: die_by('SIGSEGV'), 'was killed by SIGSEGV .* a damaged file can cause this'),
    'SIGBUS': (lambda: die_by('SIGBUS'), 'was killed by SIGBUS .* /dev/shm is full'),
    'exit 3': (lambda: os._exit(3), 'ended with exit code 3 .* a damaged file can cause this'),
}

@pytest.fixture
def deadly(monkeypatch):
    "deadly(path, end): reading `path` ends the process that reads it."
    read = skeletongait.data.streams.open_array
    def make(victim, end):
        def load(path, limits):
            if path == victim:
                end()
            return read(path, limits)
        monkeypatch.setattr(skeletongait.data.streams, 'open_array', load) # forked workers inherit it
    return make

def pids(loader):
    return [w.pid for w in loader._iterator._workers]

def gone(pid, seconds=20):
    "Whether a process ends within a while."
    while (
        seconds > 0
        and os.path.exists(f'/proc/{pid}')
        and 'Z' not in open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[0]
    ):
        time.sleep(.1)
        seconds -= .1
    return seconds > 0
def signal_from_outside(pid, name):
    subprocess.run(['kill', f'-{name}', str(pid)], check=True) # a signal from the parent itself would be obeyed

@pytest.mark.parametrize('end,workers', [('SIGKILL', 1), ('SIGKILL', 2), ('SIGSEGV', 2), ('SIGBUS', 1), ('exit 3', 2)])
def test_a_lost_worker_names_the_files_it_was_reading(test, deadly, end, workers):
    victim = test.files[5][1]
    act, text = ENDS[end]
    deadly(victim, act)
    many = loader(test, TEST, num_workers=workers)
    with pytest.raises(LostWorkerError, match=text) as e, naming_lost_workers(many):
        list(many)  # as a training does
    k = 5//3 % workers # batches of three go round
    assert f'loader worker {k} (of {workers}) ' in str(e.value)
    assert f'while loading {victim.parent} (0_heatmap.pkl, 1_sil.pkl)' in str(e.value)
    assert '\n' not in str(e.value)
    left = pids(many)
    del many, e
    gc.collect()
    assert all(gone(pid) for pid in left)

def test_a_lost_worker_of_a_training_surfaces_in_the_step(train, deadly):
    "PyTorch's signal interrupts the main process's step; a second loop over the same loader raises too."
    victim = train.files[3][0]
    deadly(victim, ENDS['SIGKILL'][0])
    many = loader(train, num_workers=2)
    with pytest.raises(LostWorkerError) as e, naming_lost_workers(many):
        batches = iter(many)
        for _ in range(100):
            for _ in range(20):
                time.sleep(.01) # a step
            next(batches)
    assert str(victim.parent) in str(e.value) and isinstance(e.value.__cause__, RuntimeError)
    assert any(
        f.name == 'test_a_lost_worker_of_a_training_surfaces_in_the_step'
        for f in traceback.extract_tb(e.value.__cause__.__traceback__)
    )
    with pytest.raises(LostWorkerError):
        first(many, 100)

def test_a_worker_killed_while_idle(test):
    many = loader(test, TEST, num_workers=2)
    list(many) # after a whole pass the workers wait for the next
    with (
        pytest.raises(
            LostWorkerError, match=r'loader worker 1 \(of 2\) was killed by SIGKILL between two sequences; most likely'
        ),
        naming_lost_workers(many),
    ):
        signal_from_outside(pids(many)[1], 'KILL')
        for _ in range(300):
            time.sleep(.02)

def test_the_death_of_another_loaders_worker_keeps_its_place(train, test):
    "A training worker that dies during a test is told as the training's."
    a, b = loader(train, num_workers=1), loader(test, TEST, num_workers=1)
    next(iter(a))
    def run():
        with naming_lost_workers(a), naming_lost_workers(b):
            next(iter(b))
            signal_from_outside(pids(a)[0], 'KILL')
            for _ in range(300):
                time.sleep(.02)
    with pytest.raises(LostWorkerError, match=r'\(of 1\) was killed by SIGKILL'):
        run()
    assert b.lost() == '' != a.lost()
    assert len(list(b)) == len(list(loader(test, TEST))) # the test's own loader is none the worse

def test_other_errors_pass_through(train):
    many = loader(train, num_workers=1)
    next(iter(many))
    for error in (RuntimeError('out of paper'), SkeletonGaitError('x'), KeyboardInterrupt(), StopIteration()):
        with pytest.raises(type(error)) as e, naming_lost_workers(many):
            raise error
        assert e.value is error
    with pytest.raises(RuntimeError, match='x'), naming_lost_workers(loader(train)):
        raise RuntimeError('x') # no workers at all

def test_signals_to_the_whole_group_leave_workers_alone(train):
    "Ctrl-C and a scheduler's SIGTERM reach workers too; what becomes of them is the main process's to say."
    many, plain = loader(train, num_workers=2), first(loader(train), 8)
    batches = iter(many)
    seen = first(batches, 2) # both have started
    for pid, name in itertools.product(pids(many), ('INT', 'TERM', 'INT', 'TERM')):
        signal_from_outside(pid, name)
    time.sleep(.3)
    seen += first(batches, 6)
    assert all(equal(a, b) for a, b in zip(plain, seen, strict=True)) and not many.lost()
    w = many._iterator._workers[0]
    w.terminate()
    w.join(20)
    assert w.exitcode == 0 # as PyTorch's own workers

def test_a_loader_goes_on_after_an_error(tmp_path, root):
    "The next batch can be asked for, and when loader and error are forgotten the workers end."
    shutil.copytree(root, tmp_path/'t')
    tree = read_tree(tmp_path/'t')
    ds = GaitDataset(tree, make_partition(tree, ['001']), False)
    save_pickle(Z(3, 64, 44), ds.files[4][1])
    many = loader(ds, TEST, num_workers=2)
    batches = iter(many)
    kept = None
    names = []
    for _ in range(len(many)):
        try:
            names += next(batches).names
        except SkeletonGaitError as e:
            kept = e
    assert names == [str(s) for k, s in enumerate(ds.sequences) if k not in (3, 4, 5)]
    assert 'same number of frames' in str(kept)
    with pytest.raises(StopIteration):
        next(batches)
    left = pids(many)
    del many, batches, kept
    gc.collect()
    assert all(gone(pid) for pid in left)

SCRIPT = """
import os
import signal
import sys
import time
sys.path.insert(0, sys.argv[2])
import skeletongait.data.streams
from skeletongait.core import SkeletonGaitError
from skeletongait.files.tree import read_tree
from skeletongait.data.dataset import GaitDataset
from skeletongait.data.loader import make_loader, naming_lost_workers
from skeletongait.data.partition import make_partition
from skeletongait.cli import run_script
read = skeletongait.data.streams.open_array
def load(path, limits):
    if sys.argv[3] == 'kill' and path == data.files[2][1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(path, limits)
skeletongait.data.streams.open_array = load
tree = read_tree(sys.argv[1])
data = GaitDataset(tree, make_partition(tree, ['001']), True)
kept = []
def main():
    "Train until the loader fails."
    cfg = dict(type='TripletSampler', batch_size=[1, 4], sample_type='fixed_unordered', frames_num_fixed=2)
    loader = make_loader(data, cfg, 0, num_workers=2)
    with naming_lost_workers(loader):
        batches, failed = iter(loader), None
        print(*(w.pid for w in loader._iterator._workers), flush=True)
        while True:
            try:
                batch = next(batches)
            except SkeletonGaitError as e:
                failed = e
                kept.append(e) # as ranks do that agree before each step
            if failed and sys.argv[3] == 'forget':
                kept.clear()
            if failed:
                raise failed
sys.exit(run_script(main, []))
"""

@pytest.mark.parametrize('how', ['keep', 'forget', 'kill'])
def test_a_script_ends_when_its_loader_failed(tmp_path, root, how):
    "With its one line, its exit code, and no process left, even if the error is held by a variable until the end."
    shutil.copytree(root, tmp_path/'t')
    (tmp_path/'s.py').write_text(SCRIPT)
    if how != 'kill':
        for f in (tmp_path/'t/001').rglob('1_sil.pkl'):
            f.write_bytes(f.read_bytes()[:999])
    done = subprocess.run(
        [sys.executable, tmp_path / 's.py', tmp_path / 't', str(os.getcwd()), how],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert ('was killed by SIGKILL while loading' if how == 'kill' else '1_sil.pkl') in done.stderr
    assert all(gone(int(pid)) for pid in done.stdout.split())

def test_first_look_looks_further_than_the_first(tmp_path, root):
    from skeletongait.maps.settings import HeatmapConfig
    shutil.copytree(root, tmp_path/'t')
    for f in tmp_path.rglob('1_sil.pkl'):
        f.unlink()
    pose = np.random.default_rng(0).uniform(0, 60, (5, 17, 3)).astype(np.float32)
    pose[..., 2] = .9
    for f in (tmp_path/'t/006').rglob('0_heatmap.pkl'):
        save_pickle(pose, f)
    tree = read_tree(tmp_path/'t')
    p = make_partition(tree, ['001'])
    poses, frames = first_look(GaitDataset(tree, p, False, render=HeatmapConfig()))
    assert poses == 'maps are drawn from poses, sigma 8' and str(tmp_path/'t/002') in frames
    with says('holds frames, whose sigma is fixed'):
        first_look(
            GaitDataset(tree, make_partition(tree, ['006', '001']), True, render=HeatmapConfig(), render_sigma=(4, 8))
        )
