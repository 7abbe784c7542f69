"""Poses: what is read from pickles and numpy's own files, and the orders of the joints.

Malicious files are in test_unsafe_files.py."""
import io
import pickle
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from skeletongait.poses.joints import COCO17_FROM, JOINTS, PoseError, to_coco17
from skeletongait.files.arrays import (
    ArrayFileError, ENDINGS, Limits, UnsafePickleError, load_array, load_pickle)

dtypes = st.sampled_from(['f2', 'f4', '>f8', 'i1', '<i8', 'u1', 'c8', '?', 'U3', 'S2'])
plain_arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))


def load(data, tmp_path):
    path = tmp_path/'x.pkl'
    path.write_bytes(data)
    return load_pickle(path)


@given(array=plain_arrays, protocol=st.integers(0, 5), order=st.sampled_from('CF'), writable=st.booleans())
def test_any_plain_array(tmp_path_factory, array, protocol, order, writable):
    array = np.array(array, order=order)
    array.flags.writeable = writable
    read = load(pickle.dumps(array, protocol), tmp_path_factory.mktemp('p'))
    assert type(read) is np.ndarray and read.dtype == array.dtype.newbyteorder('=') and read.shape == array.shape
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize('protocol', range(6))
def test_containers_and_numbers(tmp_path, protocol):
    shared = np.arange(3.)
    obj = {'a': [1, -2.5, 3j, True, 'text', 10**30], 'b': (np.float32(1.5), np.int64(3)), 'again': [shared, shared],
           'empty': [[], (), {}]}
    read = load(pickle.dumps(obj, protocol), tmp_path)
    for key in ('a', 'b', 'empty'):
        assert read[key] == obj[key]
    assert type(read['b']) is tuple
    assert read['again'][0].tolist() == [0, 1, 2] and type(read['again'][0]) is np.ndarray


@pytest.mark.parametrize('protocol', range(4))
def test_names_of_numpy_1_and_2(tmp_path, protocol):
    data = pickle.dumps(np.arange(6.).reshape(2, 3), protocol)
    for old, new in ((b'numpy._core', b'numpy.core'), (b'numpy.core', b'numpy._core')):
        assert load(data.replace(old, new), tmp_path).shape == (2, 3)


@pytest.mark.parametrize('name', [b'numpy.core.numeric', b'numpy._core.numeric'])
def test_names_of_either_numpy_in_protocol_5(tmp_path, name):
    text = pickle.dumps(np.eye(2), 5)
    text = text[:2] + text[11:]  # without the frame, which counts bytes
    written = next(n for n in (b'numpy._core.numeric', b'numpy.core.numeric') if n in text)
    text = text.replace(bytes([0x8c, len(written)]) + written, bytes([0x8c, len(name)]) + name)
    assert name in text and load(text, tmp_path).tolist() == [[1, 0], [0, 1]]


def test_arrays_of_python_2(tmp_path):
    "As Python 2 and numpy 1 wrote them: bytes are a str, in protocol 0 with quotes and escapes."
    array = np.array([[1.5, -2.25, 1e-300]], '<f8')
    quoted = repr(array.tobytes().decode('latin1')).encode('unicode_escape').replace(b'\\\\', b'\\')
    old = (b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nS'b'\np3\ntp4\nRp5\n"
           b"(I1\n(I1\nL3L\ntp6\ncnumpy\ndtype\np7\n(S'f8'\np8\nI0\nI1\ntp9\nRp10\n"
           b"(I3\nS'<'\np11\nNNNI-1\nI-1\nI0\ntp12\nbI00\nS" + quoted + b"\np13\ntp14\nb.")
    binary = (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
              b"(K\x01K\x01K\x03\x86cnumpy\ndtype\nq\x04U\x02f8K\x00K\x01\x87Rq\x05"
              b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x18" + array.tobytes() + b"tb.")
    for data in (old, binary):
        np.testing.assert_array_equal(pickle.loads(data, encoding='latin1'), array)
        read = load(data, tmp_path)
        assert read.dtype == np.float64
        np.testing.assert_array_equal(read, array)


@given(array=plain_arrays, order=st.sampled_from('CF'), kind=st.sampled_from(['npy', 'npz', 'npz compressed']))
def test_any_plain_array_in_numpys_own_files(tmp_path_factory, array, order, kind):
    array, path = np.array(array, order=order), tmp_path_factory.mktemp('p')/f'x.{kind[:3]}'
    if kind == 'npy':
        np.save(path, array)
    else:
        (np.savez_compressed if 'compressed' in kind else np.savez)(path, **{'any name': array})
    read = load_array(path)
    assert type(read) is np.ndarray and read.dtype == array.dtype.newbyteorder('=') and read.shape == array.shape
    assert read.dtype.isnative and read.flags.writeable
    np.testing.assert_array_equal(read, array)


def test_npy_of_version_2_and_a_long_file(tmp_path):
    array = np.random.default_rng(0).random((700, 17, 50))   # more than one piece of 1 MB
    with open(tmp_path/'x.npy', 'wb') as f:
        np.lib.format.write_array(f, array, (2, 0))
    np.savez_compressed(tmp_path/'x.npz', array)
    for name in ('x.npy', 'x.npz'):
        np.testing.assert_array_equal(load_array(tmp_path/name), array)


def test_the_ending_decides(tmp_path):
    array = np.arange(6.).reshape(2, 3)
    pickle.dump(array, open(tmp_path/'x.pkl', 'wb'))
    np.save(tmp_path/'x.npy', array)
    np.savez(tmp_path/'x.npz', array)
    for e in ENDINGS:
        np.testing.assert_array_equal(load_array(tmp_path/f'x{e}'), array)
    for have, name in (('npy', 'pkl'), ('npz', 'pkl'), ('pkl', 'npy'), ('npz', 'npy'), ('pkl', 'npz'), ('npy', 'npz')):
        (tmp_path/f'y.{name}').write_bytes((tmp_path/f'x.{have}').read_bytes())
        with pytest.raises(ArrayFileError, match=f'y.{name}: '):
            load_array(tmp_path/f'y.{name}')
    with pytest.raises(ArrayFileError, match=r"ending '\.csv'; expected \.pkl, \.npy, \.npz"):
        load_array(tmp_path/'x.csv')
    for e in ENDINGS:
        with pytest.raises(FileNotFoundError):
            load_array(tmp_path/f'none{e}')


@pytest.mark.parametrize('ending', ENDINGS)
def test_limits_are_met_exactly(tmp_path, ending):
    "A file of exactly that many frames, or MB, is read; one more of either is not, and the message says what to raise."
    def save(array):
        f = io.BytesIO()
        if ending == '.pkl':
            pickle.dump(array, f)
        elif ending == '.npy':
            np.save(f, array)
        else:
            np.savez_compressed(f, array)
        (tmp_path/f'x{ending}').write_bytes(f.getvalue())
        return tmp_path/f'x{ending}', len(f.getvalue())
    path, _ = save(np.zeros((8, 17, 3)))
    assert len(load_array(path, Limits(frames=8))) == 8
    with pytest.raises(ArrayFileError, match=r'x\.\w+: .* shape \(8, 17, 3\); at most 7 frames .*raise max_frames'):
        load_array(path, Limits(frames=7))
    head = len(save(np.zeros(1000))[0].read_bytes()) - 8000 if ending != '.npz' else 128
    path, n = save(np.zeros(2**20 - head, np.uint8) if ending != '.pkl' else np.zeros((2, 2**19 - 100), np.uint8))
    assert load_array(path, Limits(1, 2**20)).size > 2**20 - 400 and n <= 2**20
    path, n = save(np.zeros(2**20 + 1, np.uint8))
    with pytest.raises(ArrayFileError, match=r'1\.0 MB; at most 1 MB .*raise max_file_mb'):
        load_array(path, Limits(1, 2**30))
    assert len(load_array(path, Limits(2, 2**30))) == 2**20 + 1


@pytest.mark.parametrize('obj', [
    None, b'bytes', bytearray(b'x'), {1}, frozenset(), Path('x'), range(3), slice(1), np.datetime64('2020'),
    np.array([None]), np.zeros(2, [('a', 'f4')]), np.ma.array([1]), np.array(['2020'], 'M8'), int, len], ids=repr)
def test_other_things_are_refused(tmp_path, obj):
    for protocol in (2, 4, 5):
        with pytest.raises(UnsafePickleError):
            load(pickle.dumps(obj, protocol), tmp_path)


def test_damage(tmp_path):
    data = pickle.dumps(np.arange(100.).reshape(10, 10))
    for n in [*range(0, len(data), 7), len(data) - 1]:
        with pytest.raises(UnsafePickleError):
            load(data[:n], tmp_path)


def test_objects_used_again(tmp_path):
    "An array that is mentioned twice is made once; lists may be shared as long as they do not unfold without end."
    shared = np.arange(3.)
    a, b = load(pickle.dumps([shared, shared]), tmp_path)
    assert a is b
    doubled = [1]
    for _ in range(10):
        doubled = [doubled, doubled]
    assert str(load(pickle.dumps(doubled), tmp_path)) == str(doubled)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_pickle(tmp_path/'none.pkl')


pose_dtypes = st.sampled_from(['f4', 'f8', 'i4', 'u1', 'f2'])
pose_shapes = st.tuples(st.integers(1, 3), st.sampled_from([17, 18, 25]), st.integers(2, 3))


@given(hnp.arrays(pose_dtypes, pose_shapes, elements=st.integers(0, 50)))
def test_any_format_becomes_coco17(pose):
    out = to_coco17(pose)
    assert out.shape == (len(pose), 17, pose.shape[2]) and out.dtype in (np.float32, np.float64)
    order = COCO17_FROM.get(pose.shape[1], range(17))
    for i in range(17):
        np.testing.assert_array_equal(out[:, i], pose[:, order[i]])
    if pose.dtype == np.float32:
        assert out.dtype == np.float32


def test_grew_keeps_its_columns():
    "Flat loses its two leading columns; (17, 17, 3), where 17 divides everything, loses nothing."
    pose = np.random.default_rng(0).random((17, 17, 3))
    flat = np.concatenate([np.full((17, 2), 9.), pose.reshape(17, -1)], 1)
    np.testing.assert_array_equal(to_coco17(flat), pose)
    np.testing.assert_array_equal(to_coco17(pose), pose)


NO_POSES = [np.zeros((3, 16, 3)), np.zeros((0, 17, 3)), np.zeros((0, 53)), np.zeros((3, 17, 4)), np.zeros((3, 51)),
            np.zeros(17), np.zeros((2, 17, 3), complex), np.zeros((30, 64, 64), np.uint8), [1], {'a': 1}, 'text',
            np.array([['a']])]


@pytest.mark.parametrize('bad', NO_POSES, ids=lambda b: str(getattr(b, 'shape', b)))
def test_arrays_that_are_not_poses(bad):
    with pytest.raises(PoseError, match='expected'):
        to_coco17(bad)


def test_joint_tables():
    assert len(JOINTS) == 17 and all(len(set(t)) == 17 and max(t) < n for n, t in COCO17_FROM.items())


@pytest.mark.parametrize('bad, says', [
    (np.zeros((5, 26, 3)), "26 joints, the first 17 are COCO's: .*import_poses --format=halpe26"),
    (np.zeros((5, 133, 3)), "133 joints, the first 17 are COCO's: .*--format=wholebody133"),
    (np.zeros((5, 33, 4)), 'import_poses --format=mediapipe33. reads MediaPipe-33'),
    ({'split': {}, 'annotations': []}, 'mmaction2 and pyskl.*import_poses'),
    ({'keypoint': np.zeros((1, 5, 17, 2))}, 'mmaction2 and pyskl.*import_poses')])
def test_a_refusal_that_knows_the_answer_gives_it(bad, says):
    with pytest.raises(PoseError, match=says):
        to_coco17(bad)


def test_numbers_with_a_fraction_may_be_keys(tmp_path):
    "As in the annotations of mmaction2, `valid={0.5: 20}`."
    assert load(pickle.dumps({'valid': {.5: 20, .75: 3}}), tmp_path) == {'valid': {.5: 20, .75: 3}}
