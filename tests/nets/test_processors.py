"""The same networks with the instructions of other processors: no process crashes, and losses and gradients are right.

A kernel that writes past its memory may go unpunished, so each process checks its heap where the C library can (glibc),
and every gradient is compared with float64, which other kernels compute.
"""
import ctypes
import json
import os
import subprocess
import sys

import pytest
from scripts import TESTS
import torch

WIDTHS = {'float32': [*range(1, 18), 24, 31, 32, 33, 48], 'bfloat16': [1, 2, 3, 4, 7, 8, 16, 17, 32, 48]}
PROCESSORS = {
    'this one': {},
    'AVX2': {'ONEDNN_MAX_CPU_ISA': 'AVX2'},
    'AVX-512 without AMX': {'ONEDNN_MAX_CPU_ISA': 'AVX512_CORE'},
    'plain loops in PyTorch': {'ATEN_CPU_CAPABILITY': 'default'},
}
LOSS_BAR = {'float32': 1e-3, 'bfloat16': .1}
# a maximum that nearly ties may go the other way; garbage is off by the whole
GRADIENT_BAR = {'float32': 1e-2, 'bfloat16': 0.5}


def checked_heap():
    "Settings that end a process whose heap is damaged; none where the C library has no such check."
    try:
        ctypes.CDLL('libc_malloc_debug.so.0')
    except OSError:
        return {}
    return {'LD_PRELOAD': 'libc_malloc_debug.so.0', 'MALLOC_CHECK_': '3'}


def train_in_child(precision, widths, folder, **env):
    "A step of every network in a process of its own; name -> losses and sketches of gradients."
    file = folder/f'{precision}.json'
    command = [sys.executable, TESTS/'one_step.py', precision, json.dumps(widths), file]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=1200)
    last = (done.stdout.splitlines() or ['nothing'])[-1]
    assert done.returncode == 0, f'exit code {done.returncode} at {last}: {done.stderr[-2000:]}'
    return json.loads(file.read_text(encoding='utf-8'))


def furthest(numbers, others):
    return max(abs(a - b) for a, b in zip(numbers, others, strict=True))


@pytest.fixture(scope='module')
def exact(tmp_path_factory):
    "The values in float64, for the widths of both precisions."
    return {kind: train_in_child('float64', widths, tmp_path_factory.mktemp(kind)) for kind, widths in WIDTHS.items()}


@pytest.mark.slow
@pytest.mark.parametrize('precision', LOSS_BAR)
@pytest.mark.parametrize('processor', PROCESSORS)
def test_every_network_trains_on_other_processors(exact, tmp_path, processor, precision):
    if processor.startswith('AVX-512') and torch.backends.cpu.get_cpu_capability() != 'AVX512':
        pytest.skip(f'this processor has {torch.backends.cpu.get_cpu_capability()}, not AVX-512')
    results = train_in_child(precision, WIDTHS[precision], tmp_path, **PROCESSORS[processor], **checked_heap())
    assert results.keys() == exact[precision].keys() and len(results) == 6*len(WIDTHS[precision])
    for name, want in exact[precision].items():
        got = results[name]
        assert furthest(got['losses'], want['losses']) <= LOSS_BAR[precision]*min(want['losses']), name
        longest = max(length for length, _ in want['sketches'].values())
        assert got['sketches'].keys() == want['sketches'].keys()
        for key, numbers in want['sketches'].items():
            assert furthest(got['sketches'][key], numbers) <= GRADIENT_BAR[precision]*longest, f'{name}: {key}'
