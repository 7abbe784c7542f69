"Start scripts as users do, on a small data set of simulated walkers."

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / 'tests'
BIN = Path(sys.executable).parent


def free_port():
    "A port that nobody uses at this moment."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


LAUNCHES = {  # name -> the words before the script's own arguments
    'torchrun -m': lambda name: [BIN / 'torchrun', '--standalone', '--nproc_per_node=2', '-m', f'skeletongait.{name}'],
    'torchrun file': lambda name: [
        BIN / 'torchrun',
        '--standalone',
        '--nproc_per_node=2',
        ROOT / 'skeletongait' / f'{name}.py',
    ],
    'distributed.launch file': lambda name: [
        sys.executable,
        '-m',
        'torch.distributed.launch',
        '--nproc_per_node=2',
        f'--master_port={free_port()}',
        ROOT / 'skeletongait' / f'{name}.py',
    ],
    'python -m': lambda name: [sys.executable, '-m', f'skeletongait.{name}'],
    'python file': lambda name: [sys.executable, ROOT / 'skeletongait' / f'{name}.py'],
    'console command': lambda name: [BIN / f'skeletongait_{name}'],
}


def environment(**more):
    "The environment of a script: the installed package, one thread, and no rank unless `more` gives one."
    unset = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'PYTHONPATH')
    return {k: v for k, v in os.environ.items() if k not in unset} | {'OMP_NUM_THREADS': '1'} | more


def start(launch, name, *args, cwd, **env):
    "Run one script to its end; the finished process, with stdout and stderr as text."
    command = [*map(str, LAUNCHES[launch](name)), *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=600)


def wait_for(condition, process, seconds=120, pause=.002, said=lambda: ''):
    "Wait until `condition()` holds while `process` runs; `said` returns its output, for a failure."
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f'the process ended\n{said()}'
        assert time.monotonic() < end, f'nothing happened\n{said()}'
        time.sleep(pause)


def files(root):
    "Every file below `root` and its bytes."
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(Path(root).rglob('*')) if p.is_file()}
