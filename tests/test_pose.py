"Pickles: what is read, what is refused, and that nothing runs."
import pickle
import struct
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from skeletongait.pose import COCO17_FROM, JOINTS, PoseError, UnsafePickleError, load_pickle, to_coco17

plain_arrays = hnp.arrays(st.sampled_from(['f2', 'f4', '>f8', 'i1', '<i8', 'u1', 'c8', '?', 'U3', 'S2']), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))


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
    obj = {'a': [1, -2.5, 3j, True, 'text', 10**30], 'b': (np.float32(1.5), np.int64(3)), 'again': [shared, shared], 'empty': [[], (), {}]}
    read = load(pickle.dumps(obj, protocol), tmp_path)
    assert read['a'] == obj['a'] and read['b'] == obj['b'] and read['empty'] == obj['empty'] and type(read['b']) is tuple
    assert read['again'][0].tolist() == [0, 1, 2] and type(read['again'][0]) is np.ndarray


@pytest.mark.parametrize('protocol', range(4))
def test_names_of_numpy_1_and_2(tmp_path, protocol):
    data = pickle.dumps(np.arange(6.).reshape(2, 3), protocol)
    for old, new in ((b'numpy._core', b'numpy.core'), (b'numpy.core', b'numpy._core')):
        assert load(data.replace(old, new), tmp_path).shape == (2, 3)


def test_numpy_1_names_in_protocol_5(tmp_path):
    text = pickle.dumps(np.eye(2), 5)
    text = text[:2] + text[11:]                                # without the frame, which counts bytes
    i = text.index(b'\x8c\x13numpy._core.numeric')
    assert load(text[:i] + b'\x8c\x12numpy.core.numeric' + text[i+21:], tmp_path).tolist() == [[1, 0], [0, 1]]


def test_python_2_bytes(tmp_path):
    "An array as Python 2 wrote it: its bytes are a str."
    data = pickle.dumps(np.arange(3, dtype=np.uint8), 2)
    assert load(data, tmp_path).tolist() == [0, 1, 2]


def marker_payloads(marker):
    "Pickles that would write `marker` if any of their code ran."
    call = f"open({str(marker)!r}, 'w').close()"

    class Reduce:
        def __reduce__(self): return exec, (call,)

    array = pickle.dumps(np.arange(3.), 2)
    objects = np.empty(1, object); objects[0] = Reduce()
    yield 'reduce', [pickle.dumps(Reduce(), p) for p in range(6)]
    yield 'in a list', [pickle.dumps([np.arange(3), {'k': Reduce()}], p) for p in range(6)]
    yield 'object array', [pickle.dumps(objects, p) for p in range(6)]
    yield 'old style instance', [b'(S"' + call.encode() + b'"\ni__builtin__\neval\n.', b'(c__builtin__\neval\nS"' + call.encode() + b'"\no.']
    yield 'after an array', [array[:-1] + b'0' + pickle.dumps(Reduce(), 2)[2:]]
    yield 'dotted name', [b'\x80\x04\x8c\x05numpy\x8c\x0ecore.multiarray\x93.', b'\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.']
    yield 'codec', [b'c_codecs\ndecode\n(Vx\nVrot13\ntR.', b'c_codecs\nencode\n(Vx\nVidna\ntR.']
    yield 'persistent id', [b'\x80\x02U\x01xQ.', b'Px\n.']
    yield 'extension', [b'\x80\x02\x82\x01.']
    yield 'class of numpy', [b'cnumpy\nmemmap\n(V' + str(marker).encode() + b'\nVuint8\nVw+\nI0\n(I1\nttR.', b'cnumpy\nload\n.', b'cnumpy.core.multiarray\nfromfile\n.']


def test_nothing_runs(tmp_path):
    marker = tmp_path/'ran'
    for name, payloads in marker_payloads(marker):
        for data in payloads:
            with pytest.raises(UnsafePickleError) as e: load(data, tmp_path)
            assert str(tmp_path/'x.pkl') in str(e.value) and '\n' not in str(e.value), name
            assert not marker.exists(), name


@pytest.mark.parametrize('obj', [None, b'bytes', bytearray(b'x'), {1}, frozenset(), Path('x'), range(3), slice(1), np.datetime64('2020'), np.array([None]),
                                 np.zeros(2, [('a', 'f4')]), np.ma.array([1]), np.array(['2020'], 'M8'), int, len], ids=repr)
def test_other_things_are_refused(tmp_path, obj):
    for protocol in (2, 4, 5):
        with pytest.raises(UnsafePickleError): load(pickle.dumps(obj, protocol), tmp_path)


def test_state_of_functions_cannot_be_set(tmp_path):
    "BUILD with a dict of attributes on a stand-in changes nothing."
    for name in (b'cnumpy\ndtype\n', b'cnumpy.core.multiarray\n_reconstruct\n', b'cnumpy\nndarray\n'):
        for state in (b'}(V_call\nI1\nub', b'(N}(V_call\nI1\nutb'):
            with pytest.raises(UnsafePickleError): load(name + state + b'.', tmp_path)
    assert load(pickle.dumps(np.arange(2)), tmp_path).tolist() == [0, 1]


def test_damage(tmp_path):
    data = pickle.dumps(np.arange(100.).reshape(10, 10))
    for n in [*range(0, len(data), 7), len(data) - 1]:
        with pytest.raises(UnsafePickleError): load(data[:n], tmp_path)


@given(position=st.integers(0, 10**6), value=st.integers(0, 255), protocol=st.integers(0, 5))
def test_a_flipped_byte_gives_an_array_or_a_clear_error(tmp_path_factory, position, value, protocol):
    data = bytearray(pickle.dumps({'a': np.arange(8, dtype='i4').reshape(2, 4), 'b': [1.5, 'x']}, protocol))
    data[position % len(data)] = value
    try: load(bytes(data), tmp_path_factory.mktemp('p'))
    except UnsafePickleError: pass


def test_sizes_that_lie(tmp_path):
    huge = pickle.dumps(np.zeros(2), 2).replace(b'K\x02\x85', b'\x8a\x05\x00\x00\x00\x00\x01\x85')
    negative = pickle.dumps(np.zeros(2), 2).replace(b'K\x02\x85', b'J\xff\xff\xff\xff\x85')
    memo = b'\x80\x02]r\xff\xff\xff\x7f.'
    counted = b'\x80\x05\x96' + struct.pack('<Q', 2**40) + b'x.'
    deep = b'\x80\x02' + b']'*100 + b'a'*99 + b'.'
    for data in (huge, negative, memo, counted, deep):
        with pytest.raises(UnsafePickleError): load(data, tmp_path)


def test_circles(tmp_path):
    circle = []; circle.append(circle)
    with pytest.raises(UnsafePickleError, match='circle'): load(pickle.dumps(circle), tmp_path)
    doubled = [1]
    for _ in range(25): doubled = [doubled, doubled]     # 2**25 leaves in a few bytes
    read = load(pickle.dumps(doubled), tmp_path)
    assert read[0] is read[1]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError): load_pickle(tmp_path/'none.pkl')


@given(hnp.arrays(st.sampled_from(['f4', 'f8', 'i4', 'u1', 'f2']), st.tuples(st.integers(1, 3), st.sampled_from([17, 18, 25]), st.integers(2, 3)), elements=st.integers(0, 50)))
def test_any_format_becomes_coco17(pose):
    out = to_coco17(pose)
    assert out.shape == (len(pose), 17, pose.shape[2]) and out.dtype in (np.float32, np.float64)
    order = COCO17_FROM.get(pose.shape[1], range(17))
    for i in range(17): np.testing.assert_array_equal(out[:, i], pose[:, order[i]])
    if pose.dtype == np.float32: assert out.dtype == np.float32


def test_grew_keeps_its_columns():
    "Flat loses its two leading columns; (17, 17, 3), where 17 divides everything, loses nothing."
    pose = np.random.default_rng(0).random((17, 17, 3))
    flat = np.concatenate([np.full((17, 2), 9.), pose.reshape(17, -1)], 1)
    np.testing.assert_array_equal(to_coco17(flat), pose)
    np.testing.assert_array_equal(to_coco17(pose), pose)


@pytest.mark.parametrize('bad', [np.zeros((3, 16, 3)), np.zeros((0, 17, 3)), np.zeros((0, 53)), np.zeros((3, 17, 4)), np.zeros((3, 51)), np.zeros(17), np.zeros((2, 17, 3), complex),
                                 np.zeros((30, 64, 64), np.uint8), [1], {'a': 1}, 'text', np.array([['a']])], ids=lambda b: str(getattr(b, 'shape', b)))
def test_no_pose(bad):
    with pytest.raises(PoseError, match='expected'): to_coco17(bad)


def test_joint_tables():
    assert len(JOINTS) == 17 and all(len(set(t)) == 17 and max(t) < n for n, t in COCO17_FROM.items())
