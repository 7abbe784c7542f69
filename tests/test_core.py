"Trees, atomic files, names, and the small pieces of launching and showing."
import os
import pickle
import pickletools
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, strategies as st

from skeletongait.files.tree import Sequence, read_tree, walk
from skeletongait.core import SkeletonGaitError, nearest, pick, pickled, save_pickle
from skeletongait.files.text import save_text
from skeletongait.distributed import Ranks, attempt, gather_on_rank0, ranks
from skeletongait.cli import arg_parser, run_script
from skeletongait.files.arrays import load_pickle
from skeletongait.pictures import overlay, pick_frames


def test_tree_is_sorted_and_names_strays(tmp_path):
    for name in ('b/t/v/2.pkl', 'b/t/v/1.pkl', 'a/t/v/x.pkl', 'a/t/x.pkl', 'a/t/v/deep/x.pkl', 'a/t/v/.hidden.pkl',
                 '.git/t/v/x.pkl', 'a/t/v/x.txt'):
        save_text('', tmp_path/name)
    tree = read_tree(tmp_path)
    assert list(tree.sequences) == [Sequence('a', 't', 'v'), Sequence('b', 't', 'v')]
    assert [f.name for f in tree.sequences[Sequence('b', 't', 'v')]] == ['1.pkl', '2.pkl']
    assert [f.relative_to(tmp_path).as_posix() for f in tree.strays] == ['a/t/v/deep/x.pkl', 'a/t/x.pkl']


def test_several_endings(tmp_path):
    for name in ('a/t/v/a.npy', 'a/t/v/a.pkl', 'b/t/v/x.npz', 'c/t/v/x.csv', 'x.npy'):
        save_text('', tmp_path/name)
    tree = read_tree(tmp_path, ('.pkl', '.npy', '.npz'))
    found = {s.subject: [f.name for f in fs] for s, fs in tree.sequences.items()}
    assert found == {'a': ['a.npy', 'a.pkl'], 'b': ['x.npz']}
    assert [f.name for f in tree.strays] == ['x.npy']
    assert [s.subject for s in read_tree(tmp_path, ('.csv',)).sequences] == ['c']
    with pytest.raises(SkeletonGaitError, match=r"view>/\*\.pkl or \*\.h5, but 1 of another kind"):
        read_tree(tmp_path/'c', ('.pkl', '.h5'))
    with pytest.raises(SkeletonGaitError, match=r'expected a tree <subject>/<type>/<view>/\*\.pkl or \*\.npy$'):
        read_tree(tmp_path/'none', ('.pkl', '.npy'))
    with pytest.raises(SkeletonGaitError, match=r'expected a tree <subject>/<type>/<view>/\*\.pkl$'):
        read_tree(tmp_path/'none')


def test_linked_folders_are_followed(tmp_path):
    save_text('', tmp_path/'real'/'t'/'v'/'x.pkl')
    (tmp_path/'tree').mkdir()
    (tmp_path/'tree'/'a').symlink_to(tmp_path/'real')
    assert list(read_tree(tmp_path/'tree').sequences) == [Sequence('a', 't', 'v')]


def test_links_back_and_links_to_nowhere(tmp_path):
    "A loop ends, and finds no file twice; a broken link is listed, so that opening it gives the error."
    save_text('', tmp_path/'a'/'t'/'v'/'x.pkl')
    for at, to in (('self', '.'), ('a/up', '..'), ('a/t/v/loop', '../../..')):
        (tmp_path/at).symlink_to(to)
    found, = read_tree(tmp_path).sequences.values()
    assert [f.relative_to(tmp_path).as_posix() for f in found] == ['a/t/v/x.pkl']
    for at, to in (('a/t/v/y.pkl', 'y.pkl'), ('a/t/v/z.pkl', 'nowhere')):
        (tmp_path/at).symlink_to(to)
    assert [f.name for fs in read_tree(tmp_path).sequences.values() for f in fs] == ['x.pkl', 'y.pkl', 'z.pkl']


def test_folders_that_cannot_be_listed(tmp_path, monkeypatch):
    for s in 'abc':
        save_text('', tmp_path/s/'t'/'v'/'x.pkl')
    real = os.scandir
    def scandir(path):
        if str(path).endswith('b'):
            raise PermissionError(13, 'Permission denied', str(path))
        return real(path)
    monkeypatch.setattr(os, 'scandir', scandir)
    with pytest.raises(PermissionError):
        read_tree(tmp_path)
    closed = []
    assert [s.subject for s in read_tree(tmp_path, onerror=closed.append).sequences] == ['a', 'c']
    assert closed[0].filename == str(tmp_path/'b')
    assert list(walk(tmp_path/'none')) == []


def test_ready_is_the_last_chance(tmp_path):
    def no(): raise SkeletonGaitError('no')
    save_text('old', tmp_path/'x')
    for save in (save_text, save_pickle):
        with pytest.raises(SkeletonGaitError):
            save('new', tmp_path/'x', no)
    assert (tmp_path/'x').read_text() == 'old' and os.listdir(tmp_path) == ['x']


def test_names_as_long_as_a_disk_takes(tmp_path):
    save_text('x', tmp_path/('ä'*127))
    assert (tmp_path/('ä'*127)).read_text() == 'x'


def test_atomic_write_leaves_old_content_on_failure(tmp_path):
    path = tmp_path/'x'/'a.pkl'
    save_pickle([1], path)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_pickle(lambda: 0, path)  # which of the two depends on the Python
    assert pickle.loads(path.read_bytes()) == [1] and os.listdir(path.parent) == ['a.pkl']


ARRAYS = [np.arange(6, dtype=t).reshape(2, 3) for t in ('f4', 'f8', '>f8', 'i8', 'u1')]
ARRAYS += [np.zeros((2, 3)).T, np.ones((3, 4, 5)).transpose(1, 0, 2), np.zeros((0, 17, 3)), np.array(3.),
           np.array(['a', 'bc']), np.zeros(70_000, np.uint8)]
NESTED = [ARRAYS[0], {'a': (ARRAYS[1], 'x', ARRAYS[0])}]


def arguments(data):
    "The arguments of a pickle's instructions, without those that count bytes."
    return [arg for op, arg, _ in pickletools.genops(data) if op.name != 'FRAME']


def under_numpy_1(arg):
    return arg.replace('numpy._core', 'numpy.core') if isinstance(arg, str) else arg


@pytest.mark.parametrize('obj', [*ARRAYS, np.float32(3), np.int64(5), NESTED], ids=repr)
def test_pickles_open_under_every_numpy(tmp_path, obj):
    """They name the modules of numpy 1, which numpy 2 opens without a warning.

    Otherwise they are the standard library's pickles, and our own reader takes them."""
    save_pickle(obj, tmp_path/'x.pkl')
    data = (tmp_path/'x.pkl').read_bytes()
    texts = [arg for op, arg, _ in pickletools.genops(data) if 'UNICODE' in op.name]
    assert data == pickled(obj)
    assert {'numpy.core.multiarray', 'numpy'} <= set(texts) and not any('_core' in o for o in texts)
    assert arguments(data) == [under_numpy_1(arg) for arg in arguments(pickle.dumps(obj, 4))]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read = pickle.loads(data)
    native = repr(obj).replace(", dtype='>f8'", '')  # numpy brings bytes into the machine's order
    assert repr(read) == repr(load_pickle(tmp_path/'x.pkl')) == native


WRITES = """
import sys
import time
from skeletongait.core import atomic_write

with atomic_write(sys.argv[1]) as tmp:
    open(tmp, 'w').write('half')
    print('writing', flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_no_partial_file(tmp_path):
    "A process killed while it writes leaves the old file whole, and beside it a hidden file that no tree lists."
    path = tmp_path/'s'/'t'/'v'/'a.pkl'
    save_pickle('old', path)
    process = subprocess.Popen([sys.executable, '-c', WRITES, path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b'writing\n'
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert pickle.loads(path.read_bytes()) == 'old'
    assert [f.name for fs in read_tree(tmp_path).sequences.values() for f in fs] == ['a.pkl']


@given(st.text(max_size=8), st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=5))
def test_pick(name, known):
    table = {k: i for i, k in enumerate(known)}
    if name in table:
        assert pick('key', name, table) == table[name]
    else:
        with pytest.raises(SkeletonGaitError, match='is not known'):
            pick('key', name, table)
    assert nearest(name, known) in [*known, '']


@given(st.integers(0, 40), st.integers(1, 7))
def test_shares_deal_every_item_once(n, world):
    shares = [Ranks(r, world, r).share(list(range(n))) for r in range(world)]
    assert sorted(sum(shares, [])) == list(range(n)) and max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_needs_no_group(monkeypatch):
    for k in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(k, raising=False)
    assert ranks() == (0, 1, 0) and gather_on_rank0(3) == [3]


def script(
    must:str,        # Needed
    number:int=3,    # A number
    flag:bool=False, # A switch
) -> int:
    "Returns the number, or fails."
    if flag:
        raise SkeletonGaitError('one clear line')
    return number


def test_run_script(capsys):
    assert run_script(script, ['--must=a']) == 3
    assert run_script(script, ['--must', 'a', '--number', '4', '--local-rank=1']) == 4
    assert run_script(script, ['--must=a', '--flag']) == 2 and capsys.readouterr().err == 'script: one clear line\n'
    for argv in ([], ['--must=a', '--numbr=3'], ['--must=a', '--num=3'], ['--must=a', '--number=x']):
        with pytest.raises(SystemExit) as e:
            run_script(script, argv)
        assert e.value.code == 2
    assert [a.dest for a in arg_parser(script)._actions] == ['help', 'must', 'number', 'flag']


@pytest.mark.parametrize('env', [
    dict(RANK='1'), dict(WORLD_SIZE='2'), dict(RANK='2', WORLD_SIZE='2'), dict(RANK='0', WORLD_SIZE='0')])
def test_an_environment_that_makes_no_sense(monkeypatch, capsys, env):
    for k in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(k, raising=False)
    for k, v in env.items():
        monkeypatch.setenv(k, v)
    assert run_script(script, ['--must=a']) == 2
    err = capsys.readouterr().err
    assert err.startswith('script: the environment has ') and 'expected both RANK and WORLD_SIZE' in err
    assert err.count('\n') == 1


@pytest.mark.parametrize('name, read', [
    ('RANK', ranks), ('WORLD_SIZE', ranks), ('LOCAL_RANK', ranks), ('TORCHELASTIC_RESTART_COUNT', attempt)])
@pytest.mark.parametrize('text', ['abc', '', '-1', '1.5', ' 1', '\u0663', '9'*5000])
def test_a_variable_of_the_environment_is_a_whole_number(monkeypatch, name, read, text):
    for k, v in (('RANK', '0'), ('WORLD_SIZE', '1'), (name, text)):
        monkeypatch.setenv(k, v)
    with pytest.raises(SkeletonGaitError, match=f'^the environment has {name}=.{{,50}}; expected a whole number') as e:
        read()
    assert '\n' not in str(e.value)


def test_bugs_keep_their_traceback():
    def bug(): raise KeyError('bug')
    with pytest.raises(KeyError):
        run_script(bug, [])


@given(st.integers(1, 50), st.integers(1, 12))
def test_pick_frames(n, k):
    t = pick_frames(n, k)
    assert t == sorted(set(t)) and t[0] == 0 and len(t) <= k and (len(t) == 1 or t[-1] == n-1)


def test_overlay_centres_narrow_silhouettes():
    maps, sil = np.zeros((64, 64), np.uint8), np.full((64, 44), 255, np.uint8)
    shown = overlay(maps, sil)
    assert shown.shape == (64, 64, 3) and shown[:, 10:54].any(2).all()
    assert not shown[:, :10].any() and not shown[:, 54:].any()
    for wrong in (np.zeros((32, 64)), np.zeros((64, 63)), np.zeros((64, 70))):
        with pytest.raises(ValueError, match='do not match'):
            overlay(maps, wrong)
