"""Checkpoints from strangers: their content is checked before torch reads it.
None runs code, takes more memory than the file has, or crashes the process; harmless files are read as they are."""
import collections
import io
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scripts import ROOT
from toys import ONE, equal, saved, steps, toy
from hostile import Child, DEEP, nested, text

from skeletongait.runs.checkpoint import checkpoint_state, load_state
from skeletongait.files.tensors import load_torch, opens_safely, readable
from skeletongait.runs.restore import restore_state
from skeletongait.core import SkeletonGaitError
from skeletongait.runs.trainer import make_trainer


@pytest.fixture(autouse=True)
def safe(monkeypatch):
    "These files are our own: old forms may be read, whichever torch is here."
    monkeypatch.setattr(torch, '__version__', '2.10.0')


WEIGHTS = {'model': {'w': torch.arange(40.)}}
WHOLE = saved(WEIGHTS)

def archive(pickled=None, data=WHOLE, change=None) -> bytes:
    "The small checkpoint with another description, or with the names and parts of `change(name, part)` for each part."
    change = change or (lambda name, part: [(name, pickled if pickled and name.endswith('/data.pkl') else part)])
    f = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as a, zipfile.ZipFile(f, 'w') as b:
        for o in a.infolist():
            for name, part in change(o.filename, a.read(o)):
                b.writestr(name, part)
    return f.getvalue()

def weights(*pieces) -> bytes:
    "A description `{'model': {'w': ...}}`."
    return b'\x80\x02}' + text('model') + b'}' + text('w') + b''.join(pieces) + b'ss.'

PID = b'(' + text('storage') + b'ctorch\nFloatStorage\n' + text('0') + text('cpu') + b'K(tQ'
def storage(key='0', n=40, kind='FloatStorage') -> bytes:
    return b'(' + text('storage') + f'ctorch\n{kind}\n'.encode() + text(key) + text('cpu') + number(n) + b'tQ'
def number(n) -> bytes: return b'\x8a\x0a' + n.to_bytes(10, 'little', signed=True)
def numbers(*ns) -> bytes: return b'(' + b''.join(map(number, ns)) + b't'
HOOKS = b'ccollections\nOrderedDict\n)R'
def tensor(shape=(40,), stride=(1,), offset=0, storage=PID, hooks=HOOKS) -> bytes:
    layout = number(offset) + numbers(*shape) + numbers(*stride)
    return b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + layout + b'\x89' + hooks + b'tR'
def call(name, *args) -> bytes: return 'c{}\n{}\n('.format(*name.rsplit('.', 1)).encode() + b''.join(args) + b'tR'


def test_the_pieces_make_a_real_checkpoint():
    assert equal(load_state(archive(weights(tensor())), 'x.pt'), WEIGHTS)


# --- what is honest

CIRCLE = torch.arange(24.).reshape(4, 6)
HONEST = dict(
    views=[CIRCLE, CIRCLE.T, CIRCLE[1:, 2:4], CIRCLE[2, 3], CIRCLE[:0], torch.zeros(0, 3)],
    parameter=torch.nn.Parameter(torch.ones(2, 3)), dtypes=[torch.zeros(3, dtype=t) for t in (
        torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
        torch.bool, torch.complex64, torch.complex128, torch.uint16)],
    ordered=collections.OrderedDict(a=1, b=torch.ones(1)), counter=collections.Counter({20: 1, 40: 2}),
    size=torch.Size([2, 3]), device=torch.device('cuda:0'), dtype=torch.float32,
    module=torch.nn.BatchNorm1d(3).state_dict(), numbers=[1, 2.5, True, None, 'x', 10**15, -1, 2j, (1, (2,))],
    optimizer=torch.optim.AdamW(torch.nn.Linear(2, 2).parameters(), fused=False).state_dict())


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('name', HONEST)
def test_harmless_files_are_read_as_torch_reads_them(name, zipped):
    data = saved(HONEST[name], _use_new_zipfile_serialization=zipped)
    if name == 'dtypes' and not zipped:
        data = saved(HONEST[name][:-1],
        _use_new_zipfile_serialization=False)  # torch writes no uint16 in its old form
    read, plain = load_torch(data, 'x.pt'), torch.load(io.BytesIO(data), weights_only=True)
    assert equal(read, plain) and type(read) is type(plain) and repr(read) == repr(plain)
    if name == 'module':
        assert read._metadata == plain._metadata


def test_views_still_share_their_storage():
    a, b = load_torch(saved([CIRCLE, CIRCLE.T]), 'x.pt')
    assert a.data_ptr() == b.data_ptr()


NUMPY = [np.float64(.5), np.float32(.25), np.int64(60000), np.bool_(True), np.complex128(1+2j),
    np.arange(6.).reshape(2, 3), np.array([1, -2], '>i2'), np.zeros((0, 3), np.uint8), np.array(['a', 'bc']),
    np.str_('x')]

@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
@pytest.mark.parametrize('value', NUMPY, ids=repr)
def test_numbers_of_numpy(value, core):
    "Under the names of numpy 1 and of numpy 2, anywhere in a file: a number is the number it is, an array an array."
    state = WEIGHTS | dict(iteration=value, deep=[{'a': (value, 1)}], ordered=collections.OrderedDict(x=value))
    def rename(name, part):
        return [(name, re.sub(rb'numpy\._?core', core.encode(), part) if 'data.pkl' in name else part)]
    before = {*torch.serialization.get_safe_globals()}
    read = load_state(archive(data=saved(state), change=rename), 'x.pt')
    for o in (read['iteration'], read['deep'][0]['a'][0], read['ordered']['x']):
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(o, value, strict=value.dtype.isnative)
        else:
            assert o == value.item() and type(o) is type(value.item())
    assert type(read['ordered']) is collections.OrderedDict and equal(read['model'], WEIGHTS['model'])
    assert {*torch.serialization.get_safe_globals()} == before, 'what is allowed for one file stays allowed'


def test_training_resumes_at_an_iteration_that_is_a_numpy_number(caplog):
    cfg = toy()
    trainer = make_trainer(cfg, ONE)
    steps(trainer, cfg, 2)
    state = checkpoint_state(trainer, cfg)
    state |= dict(iteration=np.int64(2), seed=np.int64(0), embedding=np.str_('embed_1'))
    again = make_trainer(cfg, ONE)
    restore_state(again, load_state(saved(state), 'x.pt'), 'x.pt', cfg, ONE, True)
    assert (again.iteration, type(again.iteration)) == (2, int)


# --- what is not

@pytest.fixture
def torch_sees(monkeypatch):
    "What `torch.load` is given."
    seen, load = [], torch.load
    monkeypatch.setattr(torch, 'load', lambda f, **kwargs: seen.append(f) or load(f, **kwargs))
    return seen


def refused(data, says='') -> str:
    with pytest.raises(SkeletonGaitError, match=r'^x\.pt: ') as e:
        load_state(data, 'x.pt')
    said = str(e.value)
    assert said.isprintable() and len(said) < 400 and says in said, said
    return said


PILE = nested(150_000)
DESCRIPTIONS = {   # description -> what is said of it
    'stride_0': (weights(tensor((10**9,), (0,))), 'a tensor of 1000000000 = 1,000,000,000 numbers in a storage of 40'),
    'stride_0_in_2': (weights(tensor((1000, 40), (0, 1))), 'a tensor of 1000x40 = 40,000 numbers'),
    'overlapping': (weights(tensor((20, 20), (1, 1))), 'a tensor of 20x20 = 400 numbers'),
    'one_more': (weights(tensor((41,), (1,))), 'a tensor of 41 = 41 numbers'),
    'beyond': (weights(tensor((2,), (1,), 39)), 'in a storage of 40'),
    'far_beyond': (weights(tensor((2,), (2**61,))), 'in a storage of 40'),
    'behind': (weights(tensor((), (), 40)), 'a tensor of one = 1 numbers'),
    'negative_offset': (weights(tensor(offset=-1)), 'a tensor with an invalid shape'),
    'negative_stride': (weights(tensor((2,), (-1,), 5)), 'a tensor with an invalid shape'),
    'negative_shape': (weights(tensor((-2, -20), (1, 1))), 'a tensor with an invalid shape'),
    'huge_shape': (weights(tensor((2**70,), (1,))), 'a tensor with an invalid shape'),
    'another_number_of_axes': (weights(tensor((4, 10), (1,))), 'a tensor with an invalid shape'),
    'many_axes': (weights(tensor((1,)*100, (1,)*100)), 'a tensor with an invalid shape'),
    'storage_of_4_gb': (weights(tensor(storage=storage(n=10**9))),
        'a storage of 4,000,000,000 bytes, but the file has 160'),
        'storage_too_small': (weights(tensor((4,), storage=storage(n=4))), 'but the file has 160'),
    'storage_of_another_type': (weights(tensor(storage=storage(kind='DoubleStorage'))), 'a storage of 320 bytes'),
    'negative_storage': (weights(tensor(storage=storage(n=-1))), 'or described in two ways'),
    'no_such_storage': (weights(tensor(storage=storage('7'))), 'but the file has 0'),
    
    'storage_that_is_a_name': (weights(tensor(storage=b'ctorch\nFloatStorage\n')), "not in torch's format"),
    'another_persistent_thing': (weights(b'(' + text('module') + b'ctorch\nFloatStorage\n' + text('0') + text('cpu')
                                         + b'K(tQ'), "not in torch's format"),
    'persistent_text': (weights(text('storage') + b'Q'), "not in torch's format"),
    'persistent_number': (weights(b'K\x01Q'), "not in torch's format"),
    'hooks': (weights(tensor(hooks=b'}K\x01K\x01s')), 'with hooks'),
    'hooks_pile': (weights(tensor(hooks=PILE)), 'with hooks'),
    'bytearray': (weights(call('builtins.bytearray', number(4*10**9))), 'builtins.bytearray, which is neither'),
    'new_storage': (weights(call('torch.FloatStorage', number(10**9))), 'a call of'),
    'new_tensor': (weights(call('torch.Tensor', number(10**9))), 'torch.Tensor, which is neither'),
    'meta': (weights(call('torch._utils._rebuild_meta_tensor_no_storage', b'N')), 'which is neither'),
    'sparse': (weights(call('torch._utils._rebuild_sparse_tensor', b'N')), 'which is neither'),
    'type': (weights(call('torch._tensor._rebuild_from_type_v2', b'N')), 'which is neither'),
    'mkdir': (weights(call('os.mkdir', text('x'))),
        'os.mkdir, which is neither tensor, number nor text and could run code'),
        'load': (weights(call('torch.load', text('x'))), 'torch.load, which is neither'),
        'name_only': (weights(b'cos\nmkdir\n'), 'os.mkdir, which'),
    'pile_for_a_key': (b'\x80\x02}' + PILE + b'Ns.', 'for a key'),
    'pile_for_keys': (b'\x80\x02}(' + PILE + b'NK\x01Nu.', 'for a key'),
    'pile': (weights(PILE), 'nested more than 32 deep'), 'a_thousand_lists': (weights(b']'*1000 + b'a'*999),
        'nested more than 32 deep'),
    'lists': (weights(b']'*150_000 + b'a'*149_999), 'nested more than 32 deep'),
    'dicts': (weights(b'}K\x01'*150_000 + b'N' + b's'*150_000), 'nested more than 32 deep'),
    'circle': (weights(b']q\x00h\x00a'), 'inside themselves'),
    'pile_for_a_storage': (weights(b'(' + PILE*5 + b'tQ'), "not in torch's format"),
    'pile_for_a_shape': (weights(call('torch.Size', PILE)), 'an invalid size'),
    'pile_for_an_attribute': (weights(HOOKS + b'}' + text('_metadata') + PILE + b'sb'), 'nested more than 32 deep'),
    'pile_for_a_state': (weights(HOOKS + PILE + b'b'), 'attributes'),
    'pile_for_arguments': (weights(b'ctorch\nSize\n' + PILE + b'R'), 'an invalid size'),
    'other_attributes': (b'\x80\x02' + HOOKS + b'}' + text('items') + b'K\x01sb.', 'attributes'), 
    'set_on_a_tensor': (weights(tensor(), b'K\x00K\x01s'), 'would change'),
    'set_on_a_list': (weights(b']K\x00K\x01s'), 'would change'),
    'set_on_a_storage': (weights(PID, b'K\x00K\x01s'), 'would change'),
    'append_to_a_tensor': (weights(tensor(), b'K\x01a'), 'would change'),
    'state_of_a_tensor': (weights(tensor(), b')b'), 'would change'),
    'texts_again': (weights(b'(c_codecs\nencode\nq\x00' + text('x'*10_000) + text('latin1') + b'\x86q\x01R'
                            + b'h\x00h\x01R'*100_000 + b't'), 'more memory than the file has'),
                            'codec': (weights(call('_codecs.encode', text('x'), text('antigravity'))), 'in the codec'),
    'counters_again': (weights(b'(ccollections\nCounter\nq\x00}q\x02('
                               + b''.join(number(i) + b'K\x01' for i in range(1000)) + b'u\x85q\x01R'
                               + b'h\x00h\x01R'*10_000 + b't'), 'more memory than the file has'),
                               'counter_of_text': (weights(call('collections.Counter', text('x'))), 'a Counter of'),
    'many_instructions': (weights(b'(' + b'N'*2_100_000 + b't'), 'more than 2,000,000 instructions'),
    'torn': (weights(tensor())[:-3], 'ends before'), 'nothing': (b'', 'ends before'),
    'new': (weights(b'ctorch.nn.parameter\nParameter\n)\x81'), 'which is neither'),
}
DESCRIPTIONS |= {
    'storage_of_two_kinds': (b'\x80\x02}' + text('a') + tensor() + b's' + text('b')
                             + tensor(storage=storage(kind='IntStorage')) + b's.', 'or described in two ways'),
    'hooks_later': (b'\x80\x02}' + text('h') + b'}q\x09s' + text('w') + tensor(hooks=b'h\x09') + b's' + text('x')
                    + b'h\x09K\x01K\x01ss.', 'with hooks'),
                    'laughs': (weights(b']' + b''.join(b'q%c(h%ch%cl' % (i, i, i) for i in range(30)) + b'a'), ''),
    'pile_of_calls': (weights(b'(ctorch._utils\n_rebuild_parameter\nq\x00' + b'h\x00('*50_000 + b'N' + b'tR'*50_000
                              + b't'), 'a call of torch._utils._rebuild_parameter with 1 arguments that do not fit'),
}

@pytest.mark.parametrize('name', DESCRIPTIONS)
def test_descriptions_that_torch_never_sees(torch_sees, name):
    "They are refused before torch has the file."
    pickled, says = DESCRIPTIONS[name]
    refused(archive(pickled or b' '), says if pickled else '')
    assert not torch_sees


def numpy_call(name, *args): return call(f'numpy.core.multiarray.{name}', *args)
def dtype(code='f8', args=b'\x89\x88', state=None) -> bytes:
    state = b'(K\x03' + text('<') + b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t' if state is None else state
    return b'cnumpy\ndtype\n(' + text(code) + args + b'tR' + state + b'b'
EIGHT = call('_codecs.encode', text('\0'*8), text('latin1'))
EMPTY = numpy_call('_reconstruct', b'cnumpy\nndarray\n', b'K\x00\x85',
    call('_codecs.encode', text('b'), text('latin1')))

@pytest.mark.parametrize('pickled, says', [
    (numpy_call('scalar', dtype('O8'), EIGHT), 'an array of dtype'),
    (numpy_call('scalar', dtype('V8'), EIGHT), 'an array of dtype'),
    (numpy_call('scalar', dtype('M8[D]'), EIGHT), 'an array of dtype'),
    (numpy_call('scalar', dtype(), PILE), 'without a dtype or without bytes'),
    (numpy_call('scalar', PILE, EIGHT), 'without a dtype'), (numpy_call('scalar', dtype('f4'), EIGHT), 'expected 4'),
    (numpy_call('scalar', dtype(state=b'(K\x03' + text('<') + b'NNN' + PILE*3 + b't'), EIGHT), 'a dtype with fields'),
    (dtype('O'), 'an array of dtype'),
    (EMPTY + b'(K\x01K\x02\x85' + dtype() + b'\x89' + EIGHT + b'tb', 'expected 16'),
    (EMPTY + b'(K\x01J\xff\xff\xff\x7f\x85' + dtype() + b'\x89' + EIGHT + b'tb',
        'with 8 bytes; expected 17,179,869,176'), (EMPTY + b'(K\x01' + PILE + dtype() + b'\x89' + EIGHT + b'tb',
        'an impossible shape'),
    (numpy_call('_reconstruct', b'ctorch\nFloatStorage\n', b'K\x00\x85', text('b')), 'a custom class'),
    (call('numpy.memmap', text('x')), 'numpy.memmap, which'), (call('numpy.load', text('x')), 'numpy.load, which'),
    (call('numpy.dtypes.Float64DType'), 'numpy.dtypes.Float64DType, which'),
    (call('skeletongait.files.arrays.ArrayDescription'), 'skeletongait.files.arrays.ArrayDescription, which'),
    (call('numpy.ndarray', number(10**9)), 'a call of')])
def test_nothing_unsafe_passes_under_numpys_names(torch_sees, pickled, says):
    refused(archive(weights(pickled)), says)
    assert not torch_sees


def test_numpy_itself_is_never_called():
    "No file changes a type that numpy shares among all arrays, and no memory is taken for a shape that a file names."
    shared = b'\x80\x02}' + text('model') + b'}s' + text('x') + dtype('f8', b'',
        b'(K\x03' + text('>') + b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ft') + b's.'
    refused(archive(shared), 'something of type dtypedescription')
    assert np.dtype('f8').byteorder == '=' and np.zeros(1).dtype == np.dtype('f8') and np.dtype('f8').flags == 0
    large = numpy_call('_reconstruct', b'cnumpy\nndarray\n', numbers(10**12),
        b'K\x00') + b'(K\x01K\x01\x85' + dtype() + b'\x89' + EIGHT + b'tb'
    read = load_state(archive(b'\x80\x02}' + text('model') + b'}s' + text('x') + large + b's.'), 'x.pt')
    np.testing.assert_array_equal(read['x'], [0.])


# --- archives that two readers read differently

@pytest.mark.parametrize('change, says', [
    (lambda name, part: [(name, part), (name.replace('data.pkl', 'DATA.PKL'),
        pickle.dumps(print, 2))] if name.endswith('data.pkl') else [(name, part)], 'something other than tensors'),
    (lambda name, part: [(name.replace('data.pkl', 'DATA.PKL'), part)], 'something other than tensors'),
    (lambda name, part: [(name, part)]*(2 if name.endswith('data.pkl') else 1), 'something other than tensors'),
    (lambda name, part: [(name, part), ('other/data.pkl', part)] if name.endswith('data.pkl') else [(name, part)],
        'something other than tensors'), (lambda name, part: [(name.split('/', 1)[1], part)], ''),
        (lambda name, part: [] if name.endswith('data.pkl') else [(name, part)], 'something other'),
    (lambda name, part: [(name, part), (name.replace('data.pkl', 'constants.pkl'),
        b'')] if name.endswith('data.pkl') else [(name, part)], 'something other')])
@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_ambiguous_archives(torch_sees, change, says):
    refused(archive(change=change), says)
    assert not torch_sees


def test_torch_gets_the_checked_bytes():
    "The parts, and not the bytes of the file: a comment after the archive is gone."
    f = readable(archive(), '2.6.0')
    with zipfile.ZipFile(f) as z, zipfile.ZipFile(io.BytesIO(WHOLE)) as old:
        assert {o: z.read(o) for o in z.namelist()} == {o: old.read(o) for o in old.namelist()}
    with zipfile.ZipFile(g := io.BytesIO(WHOLE), 'a') as z:
        z.comment = b'or so, or so'
    assert b'or so' not in readable(g.getvalue(), '2.6.0').getvalue()


# --- old forms, and old versions of torch

@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('version, safe', [('2.4.0', False), ('2.5.1+cu121', False), ('2.6.0', False),
    ('2.9.1', False), ('2.10.0', True), ('2.10.0a0+git12', True), ('2.13.0+cpu', True), ('3.0.0', True)])
def test_which_torch_reads_which_form(version, safe, zipped):
    assert opens_safely(zipped, version) == (zipped or safe)
    data = saved(WEIGHTS, _use_new_zipfile_serialization=zipped)
    if zipped or safe:
        assert equal(torch.load(readable(data, version), weights_only=True), WEIGHTS)
    else:
        with pytest.raises(ValueError,
            match=re.escape(f'torch {version} cannot read such files safely. Convert it under torch 2.10 or '
                            'later: torch.save(torch.load(path, weights_only=True), new)')):
            readable(data, version)


def test_the_line_that_converts(tmp_path, monkeypatch):
    "The command in the error works."
    path, new = tmp_path/'old.pt', tmp_path/'new.pt'
    path.write_bytes(saved(WEIGHTS, _use_new_zipfile_serialization=False))
    with monkeypatch.context() as m:
        m.setattr(torch, '__version__', '2.9.0')
        line = refused(path.read_bytes(), 'not a zip archive').split('or later: ')[1].rstrip(')') + ')'
    assert line == 'torch.save(torch.load(path, weights_only=True), new)'
    torch.save(torch.load(path, weights_only=True), new)
    monkeypatch.setattr(torch, '__version__', '2.6.0')
    assert equal(load_state(new.read_bytes(), 'x.pt'), WEIGHTS)


OLD = saved(WEIGHTS, _use_new_zipfile_serialization=False)

@pytest.mark.parametrize('data, says', [
    (OLD[:-1], 'storages of 168 bytes, but the file has only 167'),
    (OLD.replace(b'K(', b'J\x00\xca\x9a\x3b'), 'storages of 4,000,000,008 bytes, but the file has only'),
    (pickle.dumps(WEIGHTS['model'].keys().__len__(), 2), 'neither an archive nor'), (b'\x80\x02' + PILE + b'.', ''),
    (OLD.replace(b'K(', b'K)').replace(b'K)\x85', b'K(\x85'), 'storages of 172 bytes'),
    (OLD.replace(b'K(\x85', b'J\x00\xca\x9a\x3b\x85'), 'a tensor of 1000000000'),
    (b'x'*257 + b'ustar' + bytes(2000), '')])
def test_old_forms_are_checked(torch_sees, data, says):
    refused(data, says)
    assert not torch_sees


# --- everywhere, and whatever comes

def test_torch_load_is_called_in_one_place():
    "Another reader would bring back every danger that these tests rule out."
    sources = {f.name: f.read_text(encoding='utf-8') for f in (ROOT/'skeletongait').rglob('*.py')}
    loads = {name: len(re.findall(r'\b(torch|jit)\.load\((?!path)', source)) for name, source in sources.items()}
    assert {name: n for name, n in loads.items() if n} == {'tensors.py': 1}
    others = re.compile(r'\bpickle\.loads?\(|\bnp\.load\(|allow_pickle=True|weights_only=False|\bUnpickler\b')
    assert not [name for name, source in sources.items() if others.search(source)]


@pytest.fixture(scope='module')
def child(tmp_path_factory):
    o = Child(tmp_path_factory.mktemp('child'), 'runs.checkpoint', 'load_checkpoint')
    yield o
    o.end()


ATOMS = [b'N', b'K\x01', b'\x88', b'G' + bytes(8), b')', b']', b'}', HOOKS, PID, tensor(), tensor((4, 5), (5, 1), 3),
    numbers(40), numbers(1), text('storage'), text('0'), text('latin1'), text('_metadata'), text('f8'), text('<'),
    dtype(), EIGHT, EMPTY, number(40),
         number(10**9), b'h\x00', b'h\x01', b'ctorch\nFloatStorage\n', b'ctorch\nfloat32\n', b'ctorch\nSize\n',
         b'ccollections\nCounter\n', b'cnumpy\nndarray\n', b'ctorch._utils\n_rebuild_tensor_v2\n',
         numpy_call('scalar', dtype(), EIGHT)]
PLACES = ['(%t', '(%l', '(%d', ']%a', '}%s', '](%e', '}(%u', '%\x86', '%R', '%b', '(%tR', '%Q',
    '(%tQ'] + [f'c{m}\n{n}\n(%tR' for m, n in (
    ('torch._utils', '_rebuild_tensor_v2'), ('torch._utils', '_rebuild_tensor'),
    ('torch._utils', '_rebuild_parameter'), ('torch', 'Size'), ('torch', 'device'), ('collections', 'Counter'),
    ('_codecs', 'encode'), ('numpy', 'dtype'), ('numpy._core.multiarray', 'scalar'))]
DEEPER = [o for o in DEEP if '\x94' not in o[1]] + [('ctorch\nSize\n(', 'tR'), ('(', 'tQ')]

def around(inner):
    piled = st.tuples(st.sampled_from(DEEPER), st.sampled_from([1, 2, 40, 3000, 150_000]),
        inner).map(lambda o: o[0][0].encode('latin1')*o[1] + o[2] + o[0][1].encode('latin1')*o[1])
    return piled | st.tuples(st.sampled_from(PLACES), st.lists(inner,
        max_size=8)).map(lambda o: o[0].encode('latin1').replace(b'%', b''.join(o[1])))

pieces = st.recursive(st.sampled_from(ATOMS), around, max_leaves=12)

@settings(max_examples=150)
@given(st.lists(pieces, min_size=1, max_size=3).map(b''.join), st.booleans())
def test_no_description_crashes_the_reader(child, data, whole):
    "A checkpoint, or a `SkeletonGaitError`; never another exception, never a dead process."
    child.read('x.pt',
        archive(weights(tensor(), b's' + text('x') + b'(' + data + b't') if whole else b'\x80\x02' + data + b'.'))


def test_descriptions_reach_torch(child):
    assert child.read('x.pt', archive(weights(tensor()))) == 'read'
    for o in (HOOKS, tensor((4, 5), (5, 1), 3), numpy_call('scalar', dtype(), EIGHT)):
        assert child.read('x.pt', archive(b'\x80\x02}' + text('model') + b'}s' + text('x') + o + b's.')) == 'read'
