"A packed tree holds what its files hold, whatever happens while it is made."

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scripts import environment, start

from skeletongait.check import check
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.data.dataset import GaitDataset
from skeletongait.data.loader import make_loader
from skeletongait.data.partition import Partition
from skeletongait.data.streams import load_sequence, sequence_files
from skeletongait.files.arrays import load_array, open_array
from skeletongait.files.frames import read_frames, write_frames
from skeletongait.files.packed import PACKED, PackedError, find_packed, read_packed, write_packed, write_shard
from skeletongait.files.tree import Sequence, read_tree
from skeletongait.pack import pack

NAMES = [Sequence(f'{s:03}', t, v) for s in range(6) for t in ('nm-01', 'bg-01') for v in ('000', '090')]


def write_tree(root, frames=20, seed=0):
    "A linked tree of noise: maps and silhouettes of 24 walks."
    rng = np.random.default_rng(seed)
    for name in NAMES:
        n = frames + int(rng.integers(8))
        save_pickle(rng.integers(0, 256, (n, 2, 64, 64), np.uint8), name.path(root) / '0_heatmap.pkl')
        save_pickle(rng.integers(0, 256, (n, 64, 44), np.uint8), name.path(root) / '1_sil.pkl')


def content(out):
    "Every file of a packed tree, but for the place and the times that it was made from."
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob('*') if p.is_file()}
    return {name: data for name, data in found.items() if name.endswith('.bin')} | {
        name: data.splitlines()[1:] for name, data in found.items() if name.endswith('.jsonl')
    }


def same_trees(a, b):
    "Both trees hold the same sequences with the same arrays."
    first, second = read_tree(a), read_tree(b)
    assert [*first.sequences] == [*second.sequences]
    for sequence, files in first.sequences.items():
        others = second.sequences[sequence]
        assert [f.name for f in files] == [f.name for f in others]
        for f, o in zip(files, others):
            x, y = load_array(f), load_array(o)
            assert x.dtype == y.dtype and np.array_equal(x, y) and np.array_equal(x, open_array(o))


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    "A tree of files, and the same packed into several shards."
    root = tmp_path_factory.mktemp('trees')
    write_tree(root / 'files')
    assert pack(str(root / 'files'), str(root / 'packed'), shard_mb=1) == 0
    assert len(read_packed(root / 'packed').shards) > 3
    return root


NUMBERS = st.one_of(*map(st.just, ('?', 'i1', '<i2', '>i4', 'i8', 'u1', 'u2', '>u4', 'u8', '<f2', '>f4', 'f8')))


@given(arrays(NUMBERS, array_shapes(min_dims=0, max_dims=4, max_side=5)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_an_array_comes_back(tmp_path_factory, x, fortran):
    root = tmp_path_factory.mktemp('one')
    name = 'a/b/c/x.pkl'
    x = np.asfortranarray(x) if fortran else x
    write_packed(root, '', [write_shard(root, '00000', '', [('a/b/c/w.pkl', np.ones(3)), (name, x)])])
    for y in (load_array(root / name), open_array(root / name)):
        assert (y.shape, y.dtype) == (x.shape, x.dtype.newbyteorder('=')) and y.tobytes() == x.astype(y.dtype).tobytes()


def test_a_packed_tree_holds_what_the_files_hold(trees):
    same_trees(trees / 'files', trees / 'packed')
    folder = NAMES[0].path(trees / 'packed')
    assert [f.name for f in sequence_files(folder)] == ['0_heatmap.pkl', '1_sil.pkl']
    assert np.array_equal(
        load_sequence(sequence_files(folder)), load_sequence(sequence_files(NAMES[0].path(trees / 'files')))
    )


TRAIN = dict(type='TripletSampler', batch_size=[3, 2], sample_type='fixed_unordered', frames_num_fixed=8)
TEST = dict(type='InferenceSampler', batch_size=2, sample_type='all_ordered', frames_all_limit=720)


def flip(x, rng):
    "A transform that draws."
    return x[..., ::-1] if rng.random() < 0.5 else x


@pytest.mark.parametrize('training, cfg, workers', [(True, TRAIN, 0), (True, TRAIN, 2), (False, TEST, 0)])
def test_batches_are_the_same(trees, training, cfg, workers):
    subjects = tuple(sorted({s.subject for s in NAMES}))
    batches = []
    for place in ('files', 'packed'):
        data = GaitDataset(read_tree(trees / place), Partition(subjects[:4], subjects[4:]), training, transform=flip)
        loader = iter(make_loader(data, cfg, 3, num_workers=workers))
        batches.append([next(loader) for _ in range(4)])
        del loader
    for a, b in zip(*batches):
        assert a.frames.dtype == b.frames.dtype and a.frames.equal(b.frames)
        assert (a.names, a.lengths) == (b.names, b.lengths)


def test_only_the_frames_that_are_drawn_are_read(trees):
    "An array that is opened lies in the mapped file; one that is loaded does not."
    path = NAMES[3].path(trees / 'packed') / '0_heatmap.pkl'
    x = open_array(path)
    assert not x.flags.owndata and not x.flags.writeable
    assert load_array(path).flags.writeable


@pytest.mark.parametrize('seed', range(5))
def test_a_killed_packing_is_finished_by_the_same_command(trees, tmp_path, seed):
    out = tmp_path / 'packed'
    program = (
        'import sys; from skeletongait.pack import pack; from skeletongait.prepare import pack_tree; '
        f'pack_tree._BYTES_EACH = {1 if seed % 2 else 2**40}; pack(*sys.argv[1:], shard_mb=1)'
    )  # a process for each shard, or this one for all
    command = [sys.executable, '-c', program, str(trees / 'files'), str(out)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), start_new_session=True)
    rng = random.Random(seed)
    wanted = rng.randrange(len(read_packed(trees / 'packed').shards))  # shards that are done at the kill
    while process.poll() is None and len([*out.glob('shards/*.bin')]) < wanted:
        time.sleep(0.001)
    time.sleep(rng.random() * 0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if not (out / PACKED).exists() and [*out.glob('shards/*.bin')]:
        with pytest.raises(SkeletonGaitError, match='packing was stopped'):
            read_tree(out)
    assert pack(str(trees / 'files'), str(out), shard_mb=1) == 0
    assert content(out) == content(trees / 'packed')
    assert sorted(p.name for p in out.iterdir()) == [PACKED, 'shards']


def test_a_damaged_shard_is_named_and_nothing_else_is_lost(trees, tmp_path, capsys):
    out = tmp_path / 'packed'
    pack(str(trees / 'files'), str(out), shard_mb=1)
    shard = read_packed(out).shards[2]
    whole = shard.path(out).read_bytes()
    shard.path(out).write_bytes(whole[:-1])
    mine, others = [], []
    for sequence, files in read_tree(out).sequences.items():
        for f in files:
            (mine if find_packed(f).path == shard.path(out) else others).append(f)
    assert len(mine) == shard.arrays and others
    for f in mine:
        with pytest.raises(PackedError, match='00002.bin: has .* bytes, its index says'):
            open_array(f)
    for f in others:
        assert np.array_equal(load_array(f), load_array(trees / 'files' / f.relative_to(out)))
    before = {p: p.stat().st_mtime_ns for p in out.glob('shards/*')}
    assert pack(str(trees / 'files'), str(out), shard_mb=1) == 0
    assert '(1 made now)' in capsys.readouterr().out
    changed = {p.stem for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert changed == {'00002'} and shard.path(out).read_bytes() == whole


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_changed_byte_is_found(trees, tmp_path_factory, data):
    "Whoever reads the whole array finds the change, and so does the packing."
    out = tmp_path_factory.mktemp('changed') / 'packed'
    pack(str(trees / 'files'), str(out), shard_mb=1)
    shard = data.draw(st.sampled_from(read_packed(out).shards))
    places = [o for o in map(find_packed, sum(read_tree(out).sequences.values(), ())) if o.path == shard.path(out)]
    one = data.draw(st.sampled_from(places))
    with open(one.path, 'r+b') as f:
        f.seek(one.at + data.draw(st.integers(0, 64 * 44)))
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ data.draw(st.integers(1, 255))]))
    with pytest.raises(PackedError, match=f'the bytes of {one.name} are not those'):
        load_array(out / one.name)
    assert pack(str(trees / 'files'), str(out), shard_mb=1) == 0
    assert content(out) == content(trees / 'packed')


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_hostile_index_is_refused_or_harmless(trees, tmp_path_factory, data):
    "Whatever an index says, reading gives an array within its shard, or one error."
    root = tmp_path_factory.mktemp('hostile')
    shard = write_shard(root, '00000', '', [('a/b/c/x.pkl', np.arange(100))])
    row = ['a/b/c/x.pkl', 0, [100], '<i8', 0]
    row[data.draw(st.integers(1, 4))] = data.draw(
        st.one_of(st.none(), st.integers(), st.text(max_size=4), st.lists(st.integers(-3, 2**40), max_size=9))
    )
    head, _ = shard.index(root).read_text().splitlines()
    shard.index(root).write_text(f'{head}\n{json.dumps(row)}\n')
    write_packed(root, '', [shard])
    try:
        x = open_array(root / 'a/b/c/x.pkl')
    except SkeletonGaitError as e:
        assert '00000.jsonl' in str(e) or 'frames are read' in str(e)
    else:
        assert x.nbytes <= 800


def test_what_cannot_be_read_is_left_out_and_tried_again(tmp_path, capsys):
    write_tree(tmp_path / 'files')
    bad = NAMES[5].path(tmp_path / 'files') / '1_sil.pkl'
    whole = bad.read_bytes()
    for harm in (lambda: bad.write_bytes(whole[:99]), lambda: save_pickle({'a': 1}, bad)):
        harm()
        assert pack(str(tmp_path / 'files'), str(tmp_path / 'packed'), shard_mb=1) == 1
        said = capsys.readouterr().out
        assert f'left out: {bad}' in said and '1 sequence left out' in said
        assert NAMES[5] not in read_tree(tmp_path / 'packed').sequences
        assert len(read_tree(tmp_path / 'packed').sequences) == len(NAMES) - 1
    bad.write_bytes(whole)
    assert pack(str(tmp_path / 'files'), str(tmp_path / 'packed'), shard_mb=1) == 0
    same_trees(tmp_path / 'files', tmp_path / 'packed')


def test_a_changed_tree_changes_the_packed_one(tmp_path):
    write_tree(tmp_path / 'files')
    write_frames(tmp_path / 'files', {NAMES[0]: [[0, 19]]})
    out = tmp_path / 'packed'
    assert pack(str(tmp_path / 'files'), str(out), shard_mb=1) == 0
    for f in NAMES[-1].path(tmp_path / 'files').iterdir():
        f.unlink()
    write_tree(tmp_path / 'more', seed=1)
    (NAMES[0].path(tmp_path / 'files') / '0_heatmap.pkl').write_bytes(
        (NAMES[0].path(tmp_path / 'more') / '0_heatmap.pkl').read_bytes()
    )
    assert pack(str(tmp_path / 'files'), str(out), shard_mb=1) == 0
    same_trees(tmp_path / 'files', out)
    assert read_frames(out) == {NAMES[0]: [[0, 19]]}
    assert pack(str(tmp_path / 'files'), str(out), shard_mb=64) == 0  # fewer shards: the others go
    assert len([*out.glob('shards/*')]) == 2
    same_trees(tmp_path / 'files', out)


def test_a_second_run_touches_nothing(trees):
    before = {p: p.stat().st_mtime_ns for p in (trees / 'packed').rglob('*')}
    assert pack(str(trees / 'files'), str(trees / 'packed'), shard_mb=1) == 0
    assert before == {p: p.stat().st_mtime_ns for p in (trees / 'packed').rglob('*')}


def test_places_that_are_not_ours_are_refused(trees, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.tex').touch()
    for tree, out, why in (
        (trees / 'files', tmp_path / 'mine', 'thesis.tex, which is no part'),
        (trees / 'files', trees / 'files' / 'packed', 'lies in the tree'),
        (trees / 'packed', tmp_path / 'again', 'is packed already'),
    ):
        with pytest.raises(SkeletonGaitError, match=why):
            pack(str(tree), str(out))


def test_the_check_reads_a_packed_tree(trees, tmp_path, capsys):
    codes = [check(str(trees / place), json=str(tmp_path / f'{place}.json')) for place in ('files', 'packed')]
    found = [json.loads((tmp_path / f'{place}.json').read_text()) for place in ('files', 'packed')]
    for one in found:
        one.pop('tree')
    assert codes[0] == codes[1] and str(found[0]).replace('/files', '/packed') == str(found[1])


@pytest.mark.parametrize('name', ['python -m', 'python file', 'torchrun -m'])
def test_the_command(trees, tmp_path, name):
    done = start(name, 'pack', trees / 'files', 'out', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('0 sequences left out -> out') == 1
    same_trees(trees / 'files', tmp_path / 'out')
