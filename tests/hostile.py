"Values put anywhere into a tree, pickles made by hand, and a process of its own that reads them."
import copy
import os
import struct
import subprocess
import sys

from scripts import ROOT


def text(s:str) -> bytes:
    "The instruction that pushes `s`."
    data = s.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def paths(o, longest=None, at=()):
    "The path of every value in a tree, of mappings and lists too; of lists only the first `longest` items."
    for k, v in o.items() if isinstance(o, dict) else enumerate(o[:longest]):
        if isinstance(v, (dict, list)):
            yield from paths(v, longest, (*at, k))
        yield (*at, k)


def put(o, at, value):
    "A copy of a tree with another value at a path."
    o = here = copy.deepcopy(o)
    for k in at[:-1]:
        here = here[k]
    here[at[-1]] = value
    return o


def nested(depth:int) -> bytes:
    "Instructions that leave a tuple in a tuple in a tuple ..., one byte for each."
    return b')' + b'\x85'*depth


CHILD = '''import sys
from skeletongait.{module} import {load} as load
from skeletongait.core import SkeletonGaitError
for path in map(str.strip, sys.stdin):
    try:
        load(path)
        said = 'read'
    except SkeletonGaitError as e:
        said = str(e)
    except BaseException as e:
        said = repr(e)[:300]
    print(said, flush=True)
'''


class Child:
    "A process of its own that reads files one after another: if one of them crashes it, the tests go on."
    def __init__(self, folder, module, load):
        self.folder = folder
        self.code = CHILD.format(module=module, load=load)
        self.process = None

    def start(self):
        env = os.environ | {'PYTHONPATH': str(ROOT)}
        self.process = subprocess.Popen([sys.executable, '-c', self.code], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=env)

    def read(self, name:str, data:bytes) -> str:
        "Return 'read', or the error for a file of this content; an `AssertionError` if the process has died."
        if not self.process:
            self.start()
        (self.folder/name).write_bytes(data)
        self.process.stdin.write(f'{self.folder/name}\n')
        self.process.stdin.flush()
        said = self.process.stdout.readline().rstrip('\n')
        if not said:
            code, self.process = self.process.wait(), None
        assert said, f'{name}: the process is dead ({code})'
        assert said == 'read' or said.startswith(f'{self.folder/name}: ') and said.isprintable(), said
        return said

    def end(self):
        if not self.process: return
        self.process.kill()  # the end of its input may never come: another test's workers have inherited the pipe
        self.process.communicate()


DEEP = [('', '\x85'), ('(', 't'), ('(', 'l'), (']', 'a'), ('](', 'e'), ('}K\x01', 's'), ('}(K\x01', 'u'),
    ('(K\x01', 'd'), ('N', '\x86'), ('NN', '\x87'), ('', 'q\x00'), ('', '\x94'), ('cnumpy\ndtype\n(', 'tR'),
    ('h\x00(h\x01', 'tR'), ('h\x00', 'b'), ('}', 'Ns')]
