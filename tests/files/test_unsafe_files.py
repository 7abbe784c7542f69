"""Files that a stranger may send: malicious, broken, or far larger than they look.

None may run code. A marker proves it: the same file leaves it when numpy or pickle open it.
Each file gives one line that names it, in bounded memory."""
import contextlib
import copyreg
import functools
import gzip
import io
import json
import os
import pickle
import signal
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scripts import start

from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.files.tree import read_tree
from skeletongait.data.dataset import GaitDataset
from skeletongait.data.loader import make_loader
from skeletongait.data.partition import make_partition
from skeletongait.ln_sil_heatmap import ln_sil_heatmap
from skeletongait.prepare.manifest import read_manifest
from skeletongait.files.arrays import OPCODES, ArrayFileError, Limits, UnsafePickleError, load_array, load_pickle
from skeletongait.pretreatment_heatmap import pretreatment_heatmap
from hostile import Child, DEEP, nested, text

POSE = np.random.default_rng(0).random((12, 17, 3))*100
NUMPY_INTERNAL = np.zeros(1).__reduce__()[0].__module__.replace('multiarray', '_internal')


# Classes whose pickles run code: each leaves the marker, a folder

class Reduce:
    def __init__(self, marker): self.marker = marker
    def __reduce__(self): return os.mkdir, (self.marker,)

class ReduceEx(Reduce):
    def __reduce_ex__(self, protocol): return os.makedirs, (self.marker, 0o777, True)

class SetState:
    def __init__(self, marker): self.marker = marker
    def __setstate__(self, state): os.mkdir(state['marker'])

class New:
    def __new__(cls, marker=None, made=True):
        if not made:
            os.mkdir(marker)
        o = super().__new__(cls)
        o.marker = marker
        return o
    def __getnewargs__(self): return self.marker, False
    def __getstate__(self): return None

class NewEx(New):
    def __getnewargs_ex__(self): return (self.marker,), {'made': False}

class Sub(np.ndarray):
    def __setstate__(self, state):
        os.mkdir(state[-1])
        super().__setstate__(state[:-1])
    def __reduce__(self):
        f, args, state = super().__reduce__()
        return f, args, (*state, self.marker)


def call(module:str, name:str, *args:bytes) -> bytes:
    "Instructions that call a function of protocol 2, `GLOBAL` and `REDUCE`."
    return f'c{module}\n{name}\n'.encode() + b'(' + b''.join(args) + b'tR'

def stack_call(module:str, name:str, *args:bytes) -> bytes:
    "The same by protocol 4's `STACK_GLOBAL`, where a name may have dots."
    return text(module) + text(name) + b'\x93(' + b''.join(args) + b'tR'

def saved(save, *args, **kwargs) -> bytes:
    f = io.BytesIO()
    save(f, *args, **kwargs)
    return f.getvalue()

def in_zip(files:dict[str,bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w', method) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return f.getvalue()

@functools.cache
def evil(marker:str) -> dict[str,bytes]:
    "Name -> bytes of files that leave `marker` when `pickle.load`, or `np.load` with `allow_pickle`, opens them."
    sub = POSE.view(Sub)
    sub.marker = marker
    objects = np.empty(1, object)
    objects[0] = Reduce(marker)
    code = f'import os; os.mkdir({marker!r})'
    m = text(marker)
    honest = pickle.dumps(POSE, 2)
    return {
        **{f'reduce{p}.pkl': pickle.dumps(Reduce(marker), p) for p in range(6)},
        **{f'reduce_ex{p}.pkl': pickle.dumps(ReduceEx(marker), p) for p in (0, 2, 4)},
        # protocols 0 and 1 go by copyreg._reconstructor
        **{f'setstate{p}.pkl': pickle.dumps(SetState(marker), p) for p in range(6)},
        **{f'newobj{p}.pkl': pickle.dumps(New(marker), p) for p in (2, 4)},
        # protocol 2 goes by copyreg.__newobj_ex__ or functools.partial
        **{f'newobj_ex{p}.pkl': pickle.dumps(NewEx(marker), p) for p in (2, 4)},
        **{f'subclass{p}.pkl': pickle.dumps(sub, p) for p in (0, 2, 4)},
        **{f'object_array{p}.pkl': pickle.dumps(objects, p) for p in range(6)},
        **{f'in_containers{p}.pkl': pickle.dumps([POSE, {'a': (Reduce(marker),)}], p) for p in (0, 2, 5)},
        'key_of_a_dict.pkl': b'\x80\x02}' + call('os', 'mkdir', m) + b'K\x01s.',
        'nested_module.pkl': b'\x80\x04' + stack_call('os', 'path.os.mkdir', m) + b'.',
        'within_numpy.pkl': b'\x80\x04' + stack_call(NUMPY_INTERNAL, 'ctypes._os.mkdir', m) + b'.',
        'numpy_memmap.pkl': call('numpy', 'memmap', m, text('uint8'), text('w+'), b'K\x00', b'K\x01\x85') + b'.',
        'numpy_savetxt.pkl': call('numpy', 'savetxt', m, b'K\x01\x85') + b'.',
        'numpy_runstring.pkl': call('numpy.testing._private.utils', 'runstring', text(code), b'}') + b'.',
        'inst.pkl': b'(' + m + b'ios\nmkdir\n.',
        'obj.pkl': b'(cos\nmkdir\n' + m + b'o.',
        'eval.pkl': call('builtins', 'eval', text(f"__import__('os').mkdir({marker!r})")) + b'.',
        'exec.pkl': call('__builtin__', 'exec', text(code)) + b'.',
        'getattr.pkl': b'cbuiltins\ngetattr\n(' + call('builtins', '__import__', text('os')) + text('mkdir') + b'tR('
            + m + b'tR.',
        'map.pkl': call('builtins', 'list', call('builtins', 'map', b'cos\nmkdir\n', m + b'\x85')) + b'.',
        'partial.pkl': b'cfunctools\npartial\n(cos\nmkdir\n' + m + b'tR)R.',
        'attrgetter.pkl': b'coperator\nattrgetter\n(' + text('mkdir') + b'tR('
            + call('builtins', '__import__', text('os')) + b'tR(' + m + b'tR.',
        'methodcaller.pkl': b'coperator\nmethodcaller\n(' + text('mkdir') + m + b'tR('
            + call('importlib', 'import_module', text('os')) + b'tR.',
        'reconstructor.pkl': b'ccopyreg\n_reconstructor\n(c' + __name__.encode()
            + b'\nSetState\nc__builtin__\nobject\nNtR}(' + text('marker') + m + b'ub.',
        'before_an_array.pkl': b'\x80\x02' + call('os', 'mkdir', m) + b'0' + honest[2:],
        'after_an_array.pkl': honest[:-1] + b'0' + call('os', 'mkdir', m) + b'.',
        'behind_the_end.pkl': honest[:-1] + call('os', 'mkdir', m) + b'0.',
        'in_the_metadata_of_a_dtype.pkl': honest.replace(b'NNNJ', call('os', 'mkdir', m) + b'0NNNJ'),
        'in_the_memo.pkl': b'\x80\x02' + call('os', 'mkdir', m) + b'q\xc80' + honest[2:],
        'named_npy.npy': pickle.dumps(Reduce(marker)),
        'named_npz.npz': pickle.dumps(Reduce(marker)),
        'objects.npy': saved(np.save, objects, allow_pickle=True),
        'objects.npz': saved(np.savez, objects, allow_pickle=True),
        'objects_compressed.npz': saved(np.savez_compressed, pose=objects),
    }

def long_header(text:str) -> bytes:
    "A `.npy` file with this header and a newline."
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)+1) + text.encode() + b'\n' + POSE.tobytes()

def header(text:str) -> bytes:
    "A `.npy` file with this header, as long as numpy makes it."
    return long_header(text.ljust(117))

@functools.cache
def broken() -> dict[str,bytes]:
    "Files that run nothing even when opened plainly, but hold no array, a damaged one, or one that lies."
    honest = pickle.dumps(POSE, 4)
    old = pickle.dumps(POSE, 2)
    npy = saved(np.save, POSE)
    npz = saved(np.savez_compressed, POSE)
    circle = []
    circle.append(circle)
    around = {}
    around['me'] = around
    through = []
    through.append((through,))
    def shape(*n):
        axes = b''.join(b'\x8a\x09' + i.to_bytes(9, 'little', signed=True) for i in n)
        as_tuple = {2: b'\x86', 3: b'\x87'}[len(n)]
        return old.replace(b'K\x0cK\x11K\x03\x87', axes + as_tuple)
    return {
        'empty.pkl': b'',
        'empty.npy': b'',
        'empty.npz': b'',
        'text.pkl': b'hello, world\n',
        'table.npy': b'1,2,3\n4,5,6\n',
        'page.pkl': b'<!DOCTYPE html><html><body>404</body></html>',
        'gzip.pkl': gzip.compress(honest),
        'zip.pkl': npz,
        'gzip.npy': gzip.compress(npy),
        **{f'torn{i}.pkl': honest[:n] for i, n in enumerate((1, 2, 11, 40, 100, 200, len(honest)//2, len(honest)-1))},
        **{f'torn_old{i}.pkl': pickle.dumps(POSE, 0)[:n] for i, n in enumerate((1, 30, 200, 4000))},
        **{f'torn{i}.npy': npy[:n] for i, n in enumerate((3, 9, 60, 128, 1000, len(npy)-1))},
        'longer.npy': npy + b'x',
        'longer.pkl': honest + b'x',
        'twice.pkl': honest*2,
        **{f'torn{i}.npz': npz[:n] for i, n in enumerate((3, 60, 1000, len(npz)-1))},
        'flipped.npz': npz[:400] + bytes([npz[400] ^ 255]) + npz[401:],
        'circle.pkl': pickle.dumps(circle),
        'dict_in_itself.pkl': pickle.dumps(around),
        'circle_by_a_tuple.pkl': b'\x80\x02]q\x00h\x00\x85a.',
        'recursive_tuple.pkl': pickle.dumps(through[0]),
        'deep.pkl': b'\x80\x02' + b']'*5000 + b'a'*4999 + b'.',
        'deep_tuple.pkl': b'\x80\x02)' + b'\x85'*200_000 + b'.',
        'persistent_id.pkl': b'Pevil\n.',
        'binary_persistent_id.pkl': b'\x80\x02U\x04evilQ.',
        'extension1.pkl': b'\x80\x02\x82\xf0)R.',
        'extension2.pkl': b'\x80\x02\x83\xf0\x00)R.',
        'extension4.pkl': b'\x80\x02\x84\xf0\x00\x00\x00)R.',
        'buffer.pkl': b'\x80\x05\x97.',
        'codec_decode.pkl': call('_codecs', 'decode', text('x'), text('rot13')) + b'.',
        'codec_import.pkl': call('_codecs', 'encode', text('x'), text('antigravity')) + b'.',
        'codec_of_a_list.pkl': call('_codecs', 'encode', b']', text('latin1')) + b'.',
        'codec_text.pkl': call('_codecs', 'encode', text('x'), text('latin1')) + b'.',
        'codec_beyond.pkl': old.replace(text('latin1'), text('utf-16')),
        'name_alone.pkl': b'cnumpy\nndarray\n.',
        'call_of_ndarray.pkl': b'cnumpy\nndarray\n(K\x05\x85tR.',
        'call_of_a_number.pkl': b'K\x01)R.',
        'call_without_tuple.pkl': b'cnumpy\ndtype\nK\x01R.',
        'build_on_a_function.pkl': b'cnumpy.core.multiarray\n_reconstruct\n}' + text('x') + b'K\x01sb.',
        'build_on_a_type.pkl': b'cnumpy\ndtype\n(N}' + text('itemsize') + b'K\x01stb.',
        'build_on_a_list.pkl': b']}b.',
        'append_to_a_dict.pkl': b'}K\x01a.',
        'set_on_a_list.pkl': b']K\x01K\x02s.',
        'odd_dict.pkl': b'(K\x01d.',
        'no_mark.pkl': b'K\x01t.',
        'below_the_mark.pkl': b'K\x01(\x85.',
        'global_with_newline.pkl': b'\x80\x04' + text('a\nfailed: b') + text('c\x1b[31m\u202e') + b'\x93.',
        'unhashable_name.pkl': b'\x80\x04]]\x93.',
        'bytes_with_arguments.pkl': call('builtins', 'bytes', b'J\xff\xff\xff\x7f') + b'.',
        'complex_of_text.pkl': call('builtins', 'complex', text('1')) + b'.',
        'unfinished_array.pkl': b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR.',
        'objects_dtype.pkl': pickle.dumps(np.array([None, {}])),
        'fields.pkl': pickle.dumps(np.zeros(2, 'f4,i4')),
        'dates.pkl': pickle.dumps(np.array(['2020'], 'M8[D]')),
        'void.pkl': pickle.dumps(np.zeros(2, 'V8')),
        'masked.pkl': pickle.dumps(np.ma.array([1])),
        'nothing.pkl': pickle.dumps(None),
        'a_set.pkl': pickle.dumps({1}),
        'bytes.pkl': pickle.dumps(b'x'),
        'made_object.pkl': old.replace(text('f8'), text('O8')),
        'made_fields.pkl': old.replace(text('f8'), text('f4,f4')),
        'made_metadata.pkl': old.replace(b'K\x03' + text('<'), b'K\x03' + text('O')),
        'made_sub_array.pkl': old.replace(b'NNNJ', b'(' + text('f4') + b'K\x02\x85tNNJ'),
        'name_of_numbers.pkl': b'\x80\x04K\x01K\x02\x93.',
        'another_class.pkl': old.replace(b'cnumpy\nndarray', b'cnumpy\ndtype'),
        'version_of_a_dtype.pkl': old.replace(b'K\x03' + text('<'), b'K\x09' + text('<')),
        'wrong_type.pkl': old.replace(text('f8'), text('f4')),
        'wrong_type_longer.pkl': old.replace(text('f8'), text('c16')),
        'empty_text_type.pkl': old.replace(text('f8'), text('S0')),
        'arabic_digits.pkl': old.replace(text('f8'), text('f\u0668')),
        'negative.pkl': shape(-12, -17, 3),
        'huge.pkl': shape(2**40, 17, 3),
        'overflowing.pkl': shape(2**32, 2**32, 3),
        'empty_but_huge.pkl': shape(0, 2**62, 3),
        'long.pkl': pickle.dumps(np.zeros((100_001, 1), np.int8)),
        'one_more.pkl': shape(13, 17, 3),
        'flat.pkl': shape(12, 17),
        'shape_of_text.pkl': old.replace(b'K\x0cK\x11K\x03\x87', text('ab') + b'N\x86'),
        'objects_header.npy': header("{'descr': '|O', 'fortran_order': False, 'shape': (765,), }"),
        'fields_header.npy': header(
            "{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': False, 'shape': (612,), }"),
        'sub_array_header.npy': header("{'descr': '(9999999,)f8', 'fortran_order': False, 'shape': (), }"),
        'code_header.npy': header(
            "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (1,), }"),
        'nested_header.npy': header('('*110),
        'minus_header.npy': header('-'*110 + '1'),
        'open_header.npy': header('{"""'),
        'negative.npy': header("{'descr': '<f8', 'fortran_order': False, 'shape': (-12, -51), }"),
        'huge.npy': header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999, 999999999), }"),
        'empty_but_huge.npy': header("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 4611686018427387904), }"),
        'many_axes.npy': header("{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }" % ('1,'*24 + '1,'*9)),
        'bool_axes.npy': header("{'descr': '<f8', 'fortran_order': False, 'shape': (True, 612), }"),
        'wrong_type.npy': header("{'descr': '<f4', 'fortran_order': False, 'shape': (12, 17, 3), }"),
        'empty_text.npy': header("{'descr': '<U0', 'fortran_order': False, 'shape': (99999,), }"),
        'version3.npy': b'\x93NUMPY\x03\x00' + npy[8:],
        'version9.npy': b'\x93NUMPY\x09\x00' + npy[8:],
        'header_of_4_gb.npy': b'\x93NUMPY\x02\x00\xff\xff\xff\xff' + npy[10:],
        **{f'{k}_header.npy': long_header(v) for k, v in dict(deep='('*9990, deep_list='['*9990, minus='-'*9990 + '1',
            sum='+'.join('1'*4990), attributes='a' + '.b'*4900, dict='{1:'*3000, calls='f' + '()'*4900,
            spaces="{'shape': (" + ' '*9900 + '}',
            digits="{'descr': '<f8', 'fortran_order': False, 'shape': (" + '1'*9900 + ',)}',
            sizes="{'descr': '<f8', 'fortran_order': False, 'shape': (" + '1,'*4900 + ')}',
            twice="{'descr': '<f8', " *600).items()},
        'deep_header.npz': in_zip({'a.npy': long_header('('*9990)}),
        'long_header.npy': long_header(' '*12_000),
        'two.npz': saved(np.savez, POSE, POSE),
        'none.npz': in_zip({}),
        'pickle_inside.npz': in_zip({'pose.pkl': honest}),
        'path_up.npz': in_zip({'../../evil.npy': npy}),
        'path_root.npz': in_zip({'/etc/evil.npy': npy}),
        'path_windows.npz': in_zip({'C:\\evil.npy': npy}),
        'many.npz': in_zip({f'{i}\n.npy': b'' for i in range(300)}),
        'lzma.npz': in_zip({'a.npy': npy}, zipfile.ZIP_LZMA),
        'bzip2.npz': in_zip({'a.npy': npy}, zipfile.ZIP_BZIP2),
        'torn_inside.npz': in_zip({'a.npy': npy[:1000]}),
        'encrypted.npz': npz.replace(b'PK\x01\x02\x2d\x03\x2d\x00\x00',
            b'PK\x01\x02\x2d\x03\x2d\x00\x01').replace(b'PK\x01\x02\x14\x03\x14\x00\x00',
            b'PK\x01\x02\x14\x03\x14\x00\x01'),
        'pose.csv': b'1,2,3',
        'no_ending': honest,
    }


@functools.cache
def deep() -> dict[str,bytes]:
    """Objects nested 150,000 deep, wherever a pickle may have an object.

    Where Python hashes such a pile, it follows it to its end, and the process crashes."""
    pile = nested(150_000)
    old = pickle.dumps(POSE, 2)
    lists = b']'*150_000 + b'a'*149_999
    empty = b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR'
    dtype = b'cnumpy\ndtype\n(' + text('f8') + b'I0\nI1\ntR'
    def state(*parts):
        return b'(' + b''.join(parts) + b'tb.'
    scalars = b'cnumpy.core.multiarray\nscalar\nq\x00' + dtype + b'q\x01' + b'(h\x00(h\x01'*100_000
    return {
        'deep_name.pkl': b'\x80\x04' + pile + text('x') + b'\x93.',
        'deep_module_and_name.pkl': b'\x80\x04' + pile + pile + b'\x93.',
        'deep_second_name.pkl': b'\x80\x04' + text('numpy') + pile + b'\x93.',
        'deep_list_name.pkl': b'\x80\x04' + lists + text('x') + b'\x93.',
        'deep_key.pkl': b'}' + pile + b'Ns.',
        'deep_keys.pkl': b'}(' + pile + b'NK\x01Nu.',
        'deep_dict_key.pkl': b'(' + pile + b'Nd.',
        'deep_class.pkl': b'cnumpy.core.multiarray\n_reconstruct\n(' + pile + b'K\x00\x85U\x01btR.',
        'deep_classes.pkl': b'cnumpy.core.multiarray\n_reconstruct\n(' + pile + pile + b'\x86K\x00\x85U\x01btR.',
        'deep_call.pkl': pile + b')R.',
        'deep_arguments.pkl': b'cnumpy\ndtype\n' + pile + b'R.',
        'deep_code.pkl': b'cnumpy\ndtype\n(' + pile + b'I0\nI1\ntR.',
        'deep_list_of_arguments.pkl': b'cnumpy\ndtype\n' + lists + b'R.',
        'deep_codec.pkl': call('_codecs', 'encode', text('x'), pile) + b'.',
        'deep_text.pkl': call('_codecs', 'encode', pile, text('latin1')) + b'.',
        'deep_complex.pkl': call('builtins', 'complex', pile, pile) + b'.',
        'deep_state.pkl': empty + pile + b'b.',
        'deep_list_state.pkl': empty + lists + b'b.',
        'deep_dtype_state.pkl': dtype + pile + b'b.',
        'deep_build.pkl': pile + pile + b'b.',
        'deep_shape.pkl': empty + state(b'K\x01', pile, dtype, b'\x89', b'C\x00'),
        'deep_axis.pkl': empty + state(b'K\x01', pile + b'\x85', dtype, b'\x89', b'C\x00'),
        'deep_type.pkl': empty + state(b'K\x01', b'K\x00\x85', pile, b'\x89', b'C\x00'),
        'deep_order.pkl': empty + state(b'K\x01', b'K\x00\x85', dtype, pile, b'C\x00'),
        'deep_bytes.pkl': empty + state(b'K\x01', b'K\x00\x85', dtype, b'\x89', pile),
        'deep_version.pkl': empty + state(pile, b'K\x00\x85', dtype, b'\x89', pile),
        'deep_parts_of_a_dtype.pkl': dtype + state(b'K\x03', text('<'), pile, pile, pile,
            b'J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00'),
        'deep_byte_order.pkl': dtype + state(b'K\x03', pile, b'NNN',
            b'J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00'),
        'deep_size.pkl': dtype + state(b'K\x03', text('<'), b'NNN', pile, pile, pile),
        'deep_dtype_version.pkl': dtype + state(pile, text('<'), b'NNNK\x01K\x01K\x00'),
        'deep_buffer_order.pkl': call('numpy.core.numeric', '_frombuffer', b'C\x08' + bytes(8), dtype, b'K\x01\x85',
            pile) + b'.',
        'deep_axes.pkl': call('numpy.core.numeric', '_frombuffer', b'C\x08' + bytes(8), dtype,
            b'K\x01\x85', text('K'), pile) + b'.',
        'deep_scalars.pkl': scalars + text('x') + b'tR'*100_000 + b'.',
        'deep_lists.pkl': lists + b'.',
        'deep_dicts.pkl': b'}K\x01'*150_000 + b'N' + b's'*150_000 + b'.',
        'deep_marks.pkl': b'('*150_000 + b't'*150_000 + b'.',
        'deep_in_the_memo.pkl': pile + b'q\x00' + b'h\x00'*1000 + b'.',
        'deep_below.pkl': pile + old[2:-1] + b'\x86.',
        'deep_beside.pkl': pile + b'K\x01\x86' + b'q\x01' + b'h\x01h\x01\x86.',
        'deep_mixture.pkl': b'(]}K\x01'*50_000 + b'N' + b'sat'*50_000 + b'.',
        'append_to_a_pile.pkl': pile + b'K\x01a.',
        'set_on_a_pile.pkl': pile + b'K\x01K\x02s.',
        'name_in_a_name.pkl': b'\x80\x04' + b'cnumpy\nndarray\n'*2 + b'\x93.',
        'state_of_many.pkl': dtype + b'q\x00(' + b'K\x01'*100_000 + b'lq\x01' + b'b'+ b'h\x01b'*150_000 + b'.',
    }

def understated(data:bytes, size:int) -> bytes:
    "A zip of one file whose table of contents states another size than what it inflates to."
    i = data.rindex(b'PK\x01\x02')
    return data[:i+24] + struct.pack('<I', size) + data[i+28:]

@functools.cache
def bombs() -> dict[str,bytes]:
    "Small files that make a plain reader take gigabytes, or hours."
    number = b'\x8b' + struct.pack('<i', 500_000) + b'\x7f'*500_000
    n = 300_000
    laughs = [1]
    for _ in range(28):
        laughs = [laughs, laughs]
    laughing, zeros = pickle.dumps(laughs, 2)[2:-1], np.zeros((20_000, 1000))
    data, letters = b'B' + struct.pack('<I', n) + bytes(n), text('x'*n)
    def dtype(code):
        return b'cnumpy\ndtype\n(' + text(code) + b'tR'
    # an array that awaits its state; again: h\x00h\x01R
    empty = b'cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nK\x00\x85U\x01b\x87q\x01R'
    shape = b'K\x01M' + struct.pack('<H', n//100) + b'Kd\x86'
    collisions = b''.join(b'\x8a\x0a' + (i*(2**61-1)).to_bytes(10, 'little') + b'N' for i in range(1, 40_000))
    complexes = b''.join(b'h\x00G' + struct.pack('>d', -1000003.*i) + b'G' + struct.pack('>d', float(i)) + b'\x86RN'
        for i in range(1, 40_000))
    big = saved(np.savez_compressed, zeros)          # 160 MB in 160 kB
    honest = saved(np.savez_compressed, POSE)
    return {
        'laughs.pkl': pickle.dumps(laughs),
        'laughs_of_empty_lists.pkl': b'\x80\x02]' + b''.join(b'q%c(' % i + b'h%c'%i*200 + b'l' for i in range(20))
            + b'.',
        'laughing_dtype.pkl': b'cnumpy\ndtype\n(' + laughing + b'I0\nI1\ntR.',
        'laughing_codec.pkl': call('_codecs', 'encode', text('x'), laughing) + b'.',
        'laughing_state.pkl': b'cnumpy\ndtype\n(' + text('f4') + b'tR(' + laughing + b'NNNNNNNtb.',
        'laughing_name.pkl': laughing + text('x') + b'\x93.',
        'laughing_key.pkl': b'}' + laughing + b'Ns.',
        'memo_place.pkl': b'Nr\xff\xff\xff\x7f.',
        'memo_place_text.pkl': b'Np2147483647\n.',
        'memo_place_endless.pkl': b']p' + b'9'*4000 + b'\nNa.',
        'counted_bytes.pkl': b'\x80\x05\x8e' + struct.pack('<Q', 2**40) + b'x.',
        'counted_bytearray.pkl': b'\x80\x05\x96' + struct.pack('<Q', 2**62) + b'x.',
        'counted_text.pkl': b'\x80\x05\x8d' + struct.pack('<Q', 2**40) + b'x.',
        'counted_number.pkl': b'\x80\x02\x8b' + struct.pack('<i', 2**31-1) + b'x.',
        'counted_frame.pkl': b'\x80\x04\x95' + struct.pack('<Q', 2**60) + b'N.',
        'digits.pkl': b'L' + b'9'*1_000_000 + b'L\n.',
        'multiplied_shape.pkl': pickle.dumps(np.zeros(2), 2).replace(b'K\x02\x85',
            b'(' + number + b'q\x80' + b'h\x80'*400 + b't'),
        'many_dicts.pkl': b'\x80\x02' + b'}'*8_000_000 + b'.',
        'many_numbers.pkl': b'(' + b'K\x01'*4_000_000 + b't.',
        'one_state_for_many_arrays.pkl': b'\x80\x02(' + empty + b'(' + shape + dtype('u1') + b'\x89' + data
            + b'tq\x02b' + b'h\x00h\x01Rh\x02b'*1500 + b't.',
        'one_text_for_many_arrays.pkl': b'\x80\x02(' + empty + b'(' + shape + b'q\x03' + dtype('u1')
            + b'q\x04\x89c_codecs\nencode\nq\x05(' + letters + text('latin1') + b'tq\x06Rtb'
                                        + b'h\x00h\x01R(K\x01h\x03h\x04\x89h\x05h\x06Rtb'*1500 + b't.',
        'one_text_for_many_scalars.pkl': b'\x80\x02(cnumpy.core.multiarray\nscalar\nq\x00(' + dtype(f'S{n}') + data
            + b'tq\x01R' + b'h\x00h\x01R'*1500 + b't.',
        'one_buffer_for_many_arrays.pkl': b'\x80\x02(cnumpy.core.numeric\n_frombuffer\nq\x00(' + data + dtype('u1')
            + shape[2:] + text('C') + b'tq\x01R' + b'h\x00h\x01R'*1500 + b't.',
        'colliding_keys.pkl': b'}(' + collisions + b'u.',
        'colliding_complex_keys.pkl': b'}(cbuiltins\ncomplex\nq\x00G' + bytes(8) + b'G' + bytes(8) + b'\x86RN'
            + complexes + b'u.',
        'wide_text.pkl': pickle.dumps(np.zeros(0, 'U1'), 2).replace(text('U1'),
            text('U500000000')).replace(b'J\x04\x00\x00\x00', b'J\x00\x94\x35\x77').replace(b'K\x04K\x04K\x08',
            b'J\x00\x94\x35\x77K\x04K\x08').replace(text('<'), text('>')),
        'empty_text.pkl': pickle.dumps(np.zeros(2, 'S1'), 2).replace(text('S1'), text('S0')).replace(b'K\x02\x85',
            b'J\xff\xff\xff\x7f\x85').replace(b'K\x01K\x01K\x00', b'K\x00K\x01K\x00'),
        'inflates.npz': big,
        'understated.npz': understated(big, 12_368),
        'overstated.npz': understated(honest, 2**31),
        'overstated_within_the_limit.npz': understated(honest, 10**9),
        'bzip2_inflates.npz': in_zip({'a.npy': bytes(200_000_000)}, zipfile.ZIP_BZIP2),
        'table_of_contents.npz': in_zip({f'{i}.npy': b'' for i in range(25_000)}),
    }


SAYS = {   # by which defence some of them must be stopped, so that none stands on its neighbour's shoulders
    'reduce0.pkl': 'a call of posix.mkdir',
    'within_numpy.pkl': 'ctypes._os.mkdir',
    'inst.pkl': 'the instruction INST',
    'after_an_array.pkl': 'the instruction POP',
    'objects.npz': 'dtype object',
    'global_with_newline.pkl': 'a call of a failed: b.c [31m ;',
    'circle.pkl': 'inside themselves',
    'dict_in_itself.pkl': 'inside themselves',
    'deep_tuple.pkl': 'more than 32 deep',
    'negative.pkl': 'an impossible shape',
    'negative.npy': 'an impossible shape',
    'shape_of_text.pkl': 'an impossible shape',
    'made_metadata.pkl': 'a dtype with fields',
    'call_of_ndarray.pkl': 'a call of',
    'call_of_a_number.pkl': 'a call of',
    'call_without_tuple.pkl': 'a call of',
    'name_of_numbers.pkl': 'a name made of something of type int',
    'deep_name.pkl': 'a name made of something of type tuple',
    'deep_class.pkl': 'a custom class',
    'deep_parts_of_a_dtype.pkl': 'a dtype with fields',
    'state_of_many.pkl': 'a state that is something of type list',
    'deep_order.pkl': 'an array whose order is',
    'another_class.pkl': 'a custom class',
    'made_sub_array.pkl': 'a dtype with fields',
    'version_of_a_dtype.pkl': 'a dtype with fields',
    'laughs.pkl': 'expand to more than',
    'laughing_state.pkl': 'a dtype with fields',
    'laughing_key.pkl': 'for a key',
    'colliding_keys.pkl': 'for a key',
    'colliding_complex_keys.pkl': 'for a key',
    'multiplied_shape.pkl': 'an impossible shape',
    'table_of_contents.npz': 'a table of contents',
    'understated.npz': 'Bad CRC',
    'header_of_4_gb.npy': 'header',
    'recursive_tuple.pkl': 'the instruction POP',
}


@contextlib.contextmanager
def within(seconds):
    "An error instead of waiting for hours."
    def late(*_): raise TimeoutError(f'not done after {seconds} s')
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refusal(path, limits=Limits()) -> str:
    "What `load_array` says to a file that it must refuse."
    with pytest.raises(ArrayFileError) as e, within(60):
        load_array(path, limits)
    said = str(e.value)
    assert said.startswith(f'{path}: ') and said.isprintable() and len(said) < len(str(path)) + 400, said
    assert e.value.__cause__ is None and (e.value.__suppress_context__ or e.value.__context__ is None)
    assert SAYS.get(path.name, '') in said, said
    return said.removeprefix(f'{path}: ')


def test_there_are_many():
    assert len(evil('/nowhere')) >= 50 and len(broken()) >= 100 and len(bombs()) >= 30 and len(deep()) >= 40


@pytest.mark.parametrize('name', evil('/nowhere'))
def test_no_code_runs(tmp_path, name):
    marker, path = tmp_path/'ran', tmp_path/name
    path.write_bytes(evil(str(marker))[name])
    with contextlib.suppress(Exception):            # first, that this file would: some fail after their deed
        with open(path, 'rb') as f:
            if path.suffix == '.pkl':
                pickle.load(f)
            else:
                loaded = np.load(f, allow_pickle=True)
                if isinstance(loaded, np.lib.npyio.NpzFile):
                    loaded[loaded.files[0]]
    assert marker.exists(), 'the file is harmless, so this test proves nothing'
    marker.rmdir() if marker.is_dir() else marker.unlink()
    refusal(path)
    assert not marker.exists()
    if path.suffix == '.pkl':
        with pytest.raises(UnsafePickleError):
            load_pickle(path)
        assert not marker.exists()


@pytest.mark.parametrize('name', broken())
def test_broken_files(tmp_path, name):
    (tmp_path/name).write_bytes(broken()[name])
    refusal(tmp_path/name)


@pytest.mark.parametrize('name', bombs())
def test_bombs(tmp_path, name):
    "Refused in less than 64 MB of memory."
    path, data = tmp_path/name, bombs()[name]
    path.write_bytes(data)
    limits = Limits()
    if name == 'inflates.npz':
        limits = Limits(file_mb=64)
    elif 'laughs' in name:
        limits = Limits(frames=20_000) # fewer frames: refused sooner
    tracemalloc.start()
    try:
        said = refusal(path, limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64*2**20, f'{peak/2**20:.0f} MB: {said}'


@pytest.fixture(scope='module')
def child(tmp_path_factory):
    o = Child(tmp_path_factory.mktemp('child'), 'files.arrays', 'load_array')
    yield o
    o.end()


@pytest.mark.parametrize('name', deep())
def test_nothing_is_too_deep(child, name):
    "Each gives one line, and the process that reads it goes on; some are refused for another reason than their depth."
    said = child.read(name, deep()[name])
    assert said != 'read' and SAYS.get(name, '') in said and len(said) < 400, said


# Pickles made of everything that a pickle may hold, in the right places and in wrong ones, up to 150,000 deep

ATOMS = [b'N', b'K\x01', b'J\xff\xff\xff\xff', b'\x88', b'G' + bytes(8), b'C\x08' + bytes(8), b')', b']', b'}',
    b'K\x00\x85', *map(text, ('x', 'f8', '<', 'C', 'K', 'latin1', 'numpy', 'ndarray', 'dtype')),
    b'\x8a\x09' + b'\x7f'*9, b'F1.5\n', b"S'b'\n",
         b'h\x00', b'h\x01', b'cnumpy\nndarray\n', b'cnumpy\ndtype\n', b'cnumpy.core.multiarray\n_reconstruct\n',
         b'cnumpy._core.multiarray\nscalar\n', b'cnumpy.core.numeric\n_frombuffer\n', b'c_codecs\nencode\n',
         b'cbuiltins\ncomplex\n',
         b'cnumpy\ndtype\n(' + text('f8') + b'I0\nI1\ntR',
         b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR',
         pickle.dumps(POSE[0, 0], 2)[2:-1], pickle.dumps(POSE[0, 0], 5)[11:-1]]

PATTERNS = ['(%t', '(%l', '(%d', ']%a', '}%s', '](%e', '}(%u', '%\x93', '%\x86', '%R', '%b', '%b', '(%tR',
            'cnumpy\ndtype\n(%tR', 'cnumpy.core.multiarray\nscalar\n(%tR',
            'cnumpy.core.multiarray\n_reconstruct\n(%tR', 'cnumpy.core.numeric\n_frombuffer\n(%tR',
            'c_codecs\nencode\n(%tR', 'cbuiltins\ncomplex\n(%tR',
            'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(%tb']

def pile_up(pair, times, inner):
    before, after = pair
    return before.encode('latin1')*times + inner + after.encode('latin1')*times

def fill_in(pattern, parts):
    return pattern.encode('latin1').replace(b'%', b''.join(parts))

def around(inner):
    "Larger pieces made of pieces that each leave one object on the stack."
    piled = st.builds(pile_up, st.sampled_from(DEEP), st.sampled_from([1, 2, 40, 3000, 150_000]), inner)
    return piled | st.builds(fill_in, st.sampled_from(PATTERNS), st.lists(inner, max_size=8))

def repeated(piece, times):
    return piece*min(times, 300_000//len(piece))

pieces = st.recursive(st.sampled_from(ATOMS), around, max_leaves=12)
alone = [o for o in OPCODES if not OPCODES[o].arg and OPCODES[o].name != 'STOP']
loose_piece = st.builds(repeated, st.sampled_from(alone + ATOMS), st.sampled_from([1, 1, 1, 3, 150_000]))
loose = st.lists(loose_piece, max_size=12).map(b''.join)

@settings(max_examples=250)
@given(data=st.lists(pieces | loose, min_size=1, max_size=3).map(b''.join))
def test_no_stream_of_instructions_ends_the_reader(child, data):
    "Plain data or an `ArrayFileError`; never another exception, never a dead process."
    child.read('x.pkl', b'\x80\x04' + data + b'.')


def test_streams_of_instructions_reach_arrays(child):
    "The pieces that the streams are made of are the real ones."
    for data in (ATOMS[-1], ATOMS[-2], b'(' + ATOMS[-2] + b'}t'):
        assert child.read('x.pkl', b'\x80\x05' + data + b'.') == 'read'


def test_what_the_bombs_would_do():
    "The same tricks, small enough to be let off: plain readers take what they are told to."
    def unfolded(o):
        return sum(map(unfolded, o)) if type(o) is list else 1
    laughs = [1]
    for _ in range(12):
        laughs = [laughs, laughs]
    small = pickle.dumps(laughs)
    assert unfolded(pickle.loads(small)) == 2**12 and len(small) < 200
    again = b'h\x00h\x01R(K\x01h\x03h\x04\x89h\x05h\x06Rtb'
    arrays = pickle.loads(bombs()['one_text_for_many_arrays.pkl'].replace(again*1500, again*100))
    assert len({a.ctypes.data for a in arrays if isinstance(a, np.ndarray)}) == 101
    with np.load(io.BytesIO(bombs()['inflates.npz'])) as z:
        assert z['arr_0'].nbytes > 1000*len(bombs()['inflates.npz'])


@pytest.mark.parametrize('width', ['1', '2', '4'])
def test_registered_extensions(tmp_path, width):
    "A name that the program itself has registered under a number is not reached by it."
    code = {'1': 240, '2': 300, '4': 70_000}[width]
    instruction = {'1': b'\x82\xf0', '2': b'\x83\x2c\x01', '4': b'\x84\x70\x11\x01\x00'}[width]
    data = b'\x80\x02' + instruction + b'(' + text(str(tmp_path/'ran')) + b'tR.'
    copyreg.add_extension('os', 'mkdir', code)
    try:
        pickle.loads(data)
        (tmp_path/'ran').rmdir()
        (tmp_path/'x.pkl').write_bytes(data)
        refusal(tmp_path/'x.pkl')
        assert not (tmp_path/'ran').exists()
    finally:
        copyreg.remove_extension('os', 'mkdir', code)
        copyreg.clear_extension_cache()


@pytest.mark.parametrize('ending', ['.pkl', '.npy', '.npz'])
def test_paths_that_are_not_files(tmp_path, ending):
    "A pipe would wait for ever, a device never ends, and a file with holes is as large as it says."
    os.mkfifo(tmp_path/f'pipe{ending}')
    (tmp_path/f'zero{ending}').symlink_to('/dev/zero')
    (tmp_path/f'folder{ending}').mkdir()
    with open(tmp_path/f'holes{ending}', 'wb') as f:
        f.truncate(2**31)
    for name in ('pipe', 'zero', 'folder'):
        assert refusal(tmp_path/f'{name}{ending}') == 'not a regular file'
    assert refusal(tmp_path/f'holes{ending}').startswith('2,048.0 MB; at most 1,024 MB')


WATCHED = ('pickle.find_class', 'os.mkdir', 'os.system', 'os.remove', 'os.rename', 'os.symlink', 'subprocess.Popen',
           'ctypes.dlopen', 'socket.connect')
watched = []   # events of the interpreter, while a test listens

def listen(event, args):
    if watched and event in WATCHED:
        watched.append(event)

@pytest.fixture(scope='module')
def audit(): sys.addaudithook(listen)   # cannot be taken away again, but costs nothing

def seeds() -> list[tuple[str,bytes]]:
    "Honest and evil files, to be mutated."
    honest = {'a': np.arange(8, dtype='i4').reshape(2, 4), 'b': [1.5, 'x', (np.float32(2), True, 10**30, 2j)]}
    found = [('.pkl', pickle.dumps(o, p)) for p in range(6) for o in (honest, POSE[:1])]
    found += [('.npy', saved(np.save, POSE[:1])), ('.npz', saved(np.savez, POSE[:1]))]
    found += [('.npz', saved(np.savez_compressed, POSE[:2]))]
    return found + [(os.path.splitext(name)[1], data) for name, data in evil('/nowhere/at/all').items()]

SEEDS = seeds()
kinds = st.sampled_from(['set', 'delete', 'insert', 'copy', 'graft'])
places = st.integers(0, 10**6)
mutations = st.lists(st.tuples(kinds, places, st.integers(0, 255), places), max_size=6)

@settings(max_examples=400)
@given(seed=st.integers(0, len(SEEDS)-1), changes=mutations)
@pytest.mark.filterwarnings('ignore')
def test_mutated_files(tmp_path_factory, audit, seed, changes):
    "Whatever happens to a file, it gives arrays or one line, and reaches no name of any module."
    ending, data = SEEDS[seed]
    data, path = bytearray(data), tmp_path_factory.mktemp('m')/f'x{ending}'
    for kind, at, value, source in changes:
        at %= len(data)+1
        source %= len(data)+1
        match kind:
            case 'set': data[at:at+1] = bytes([value])
            case 'delete': del data[at:at+value]
            case 'insert': data[at:at] = bytes([value])
            case 'copy': data[at:at] = data[source:source+value]
            case 'graft': data[at:at] = SEEDS[source % len(SEEDS)][1][at:at+value]
    path.write_bytes(data)
    watched[:] = ['listening']
    try:
        with within(60):
            load_array(path)
    except ArrayFileError as e:
        assert str(e).startswith(f'{path}: ') and str(e).isprintable()
    finally:
        seen = watched[1:]
        watched.clear()
    assert not seen


def test_the_audit_hears(tmp_path, audit):
    watched[:] = ['listening']
    pickle.loads(pickle.dumps(Reduce(str(tmp_path/'ran'))))
    assert watched[1:] == ['pickle.find_class', 'os.mkdir']
    watched.clear()


@pytest.mark.filterwarnings('ignore')
def test_a_run_goes_on_over_a_deep_file(tmp_path, capsys):
    "Drawing, linking and loading: output, report and error name the deep file and the reason; the others are done."
    def tree(name, array, bad=None):
        for i in range(3):
            save_pickle(array, tmp_path/name/f'{i:03d}'/'nm-01'/'000'/'x.pkl')
        if bad:
            (tmp_path/name/'001'/'nm-01'/'000'/'x.pkl').write_bytes(bad)
        return tmp_path/name
    bad, why = deep()['deep_name.pkl'], 'refused, the pickle holds a name made of something of type tuple'
    poses = tree('pose', POSE, bad)
    maps = tree('maps', np.full((12, 2, 64, 64), 9, np.uint8), bad)
    silhouettes = tree('sil', np.full((12, 64, 64), 9, np.uint8))
    out, linked = tmp_path/'out'/'mine_sigma_8.0_', tmp_path/'linked'
    assert pretreatment_heatmap(str(poses), str(tmp_path/'out'), 'mine') == 1
    assert [s.subject for s in read_tree(out/'pkl').sequences] == ['000', '002']
    assert f"failed: {poses/'001/nm-01/000/x.pkl'}: {why}" in capsys.readouterr().out
    report = json.loads((out/'report.json').read_text())
    assert why in json.dumps(report['failed']) and len(report['failed']) == 1
    assert read_manifest(out).records.keys() == {'000/nm-01/000/x.pkl', '002/nm-01/000/x.pkl'}
    assert ln_sil_heatmap(str(maps), str(silhouettes), str(linked)) == 1
    assert f"{maps/'001/nm-01/000/x.pkl'}: {why}" in capsys.readouterr().out
    assert [s.subject for s in read_tree(linked).sequences] == ['000', '002']
    files = read_tree(maps)
    data = GaitDataset(files, make_partition(files, []), False)
    assert len(data.load(0)) == 12
    with pytest.raises(SkeletonGaitError, match=f'001/nm-01/000/x.pkl: {why}'):
        data.load(1)


def bad_poses(marker):
    "Subject, name and content of every bad file within the default limits, and of arrays that are no poses."
    found = []
    for group, files in (('evil', evil(marker)), ('broken', broken()), ('bomb', bombs()), ('deep', deep())):
        for i, (name, data) in enumerate(files.items()):
            if name.endswith(('.pkl', '.npy', '.npz')) and name != 'inflates.npz':
                found.append((f'{group}{i:03d}', name, data))
    found.append(('odd0', 'list.pkl', pickle.dumps([POSE])))
    found.append(('odd1', 'maps.npy', saved(np.save, np.zeros((3, 64, 64), np.uint8))))
    found.append(('odd2', 'complex.npz', saved(np.savez, POSE.astype(complex))))
    return found


@pytest.mark.slow
def test_a_tree_of_evil(tmp_path):
    "Drawing a tree of bad files among good poses: none runs, each is reported once, the good ones are drawn."
    marker, root = tmp_path/'ran', tmp_path/'pose'
    bad = bad_poses(str(marker))
    good = [(f'good{i}', 'pose.pkl', pickle.dumps(POSE)) for i in range(3)]
    good += [('good3', 'pose.npy', saved(np.save, POSE)), ('good4', 'pose.npz', saved(np.savez, POSE))]
    for subject, name, data in bad + good:
        (root/subject/'nm-01'/'000').mkdir(parents=True)
        (root/subject/'nm-01'/'000'/name).write_bytes(data)
    words = [f'--pose_data_path={root}', f'--save_root={tmp_path/"maps"}', '--dataset_name=mine']
    done = start('python -m', 'pretreatment_heatmap', *words, cwd=tmp_path)
    assert done.returncode != 0 and not marker.exists(), done.stderr[-3000:]
    assert 'Traceback' not in done.stdout + done.stderr, done.stderr[-3000:]
    lines = [l for l in done.stdout.splitlines() if l.startswith('failed: ')]
    for subject, name, _ in bad:
        start_of_line = f'failed: {root/subject/"nm-01"/"000"/name}: '
        assert len([l for l in lines if l.startswith(start_of_line)]) == 1, name
    assert len(lines) == len(bad)
    drawn = read_tree(tmp_path/'maps'/'mine_sigma_8.0_'/'pkl').sequences
    assert [s.subject for s in drawn] == [f'good{i}' for i in range(5)]
    maps = [load_array(fs[0]) for fs in drawn.values()]
    assert all(m.shape == (12, 2, 64, 64) and np.array_equal(m, maps[0]) for m in maps)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['reduce4.pkl', 'setstate0.pkl', 'inst.pkl', 'object_array2.pkl', 'nested_module.pkl',
    'torn4.pkl', 'laughs.pkl', 'deep_name.pkl'])
def test_a_worker_meets_an_evil_file(tmp_path, name):
    "A loader's worker process refuses it as well; the one line arrives where the loader is used."
    marker, root = tmp_path/'ran', tmp_path/'tree'
    for i in range(4):
        save_pickle(np.full((8, 2, 64, 64), 9, np.uint8), root/f'{i:03d}'/'nm-01'/'000'/'0_heatmap.pkl')
    tree = read_tree(root)
    data = GaitDataset(tree, make_partition(tree, ['000', '001']), False)
    cfg = dict(type='InferenceSampler', batch_size=1, sample_type='all_ordered', frames_all_limit=8)
    assert len(list(make_loader(data, cfg, 0, num_workers=2))) == 2
    path = root/'003'/'nm-01'/'000'/'0_heatmap.pkl'
    path.write_bytes({**evil(str(marker)), **broken(), **bombs(), **deep()}[name])
    with pytest.raises(SkeletonGaitError) as e, within(120):
        list(make_loader(data, cfg, 0, num_workers=2))
    assert str(e.value).startswith(f'{path}: ') and str(e.value).isprintable() and not marker.exists()
