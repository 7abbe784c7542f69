"Start runs as processes, watch them, and stop them."
import os
import shutil
import subprocess
import sys
import time

import pytest

from scripts import BIN
from toys import tiny, write_config

from skeletongait.runs.folder import Run
from skeletongait.runs.records import read_metrics


def namespace():
    "The words before a shell command that may mount a small disk of its own; None if this machine lets nobody do that."
    for words in (['unshare', '--map-root-user', '--mount'], []):
        if not words and os.geteuid() != 0: continue
        if shutil.which('unshare') and subprocess.run([*words, 'sh', '-c', 'd=$(mktemp -d); mount -t tmpfs -o size=1m none $d && umount $d; r=$?; rmdir $d; exit $r'], capture_output=True).returncode == 0: return words


def in_namespace(script, cwd):
    if (words := namespace()) is None: pytest.skip('neither user namespaces nor root: no small disk can be mounted')
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PATH': f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run([*words, 'sh', '-c', script], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


TORCHRUN = [str(BIN/'torchrun'), '--standalone']


ENV = {k: v for k, v in os.environ.items() if k not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'PYTHONPATH')} | {'OMP_NUM_THREADS': '1'}


def launcher(ranks, *options):
    "The words before the script's own arguments."
    return [sys.executable, '-m', 'skeletongait.main'] if ranks == 1 else [*TORCHRUN, f'--nproc_per_node={ranks}', *options, '-m', 'skeletongait.main']


def begin(folder, cfg, ranks=1, *args, options=(), phase='train', new_group=False, words=None):
    "Start a run in `folder`; what it says goes to `out.txt` there."
    folder.mkdir(exist_ok=True, parents=True)
    command = [*(words or launcher(ranks, *options)), f'--cfgs={write_config(cfg, folder/"x.yaml")}', f'--phase={phase}', *args]
    with open(folder/'out.txt', 'a') as out: return subprocess.Popen(command, cwd=folder, env=ENV, stdout=out, stderr=out, start_new_session=new_group)


def said(folder): return (folder/'out.txt').read_text()


def wait_for(condition, process, folder, seconds=120, pause=.005):
    "Wait until `condition()` holds while `process` runs."
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end, f'the process ended, or nothing happened\n{said(folder)}'
        time.sleep(pause)


def at_iteration(run, i): return lambda: run.metrics.exists() and any(m.get('iteration', 0) >= i for m in read_metrics(run.metrics) if 'values' in m)


def run_of(folder, cfg): return Run(cfg, folder/'output')


def settings(walkers, workers=0, **trainer):
    cfg = tiny(walkers, **dict(total_iter=8, log_iter=1, save_iter=4, restore_hint='latest') | trainer)
    cfg.data_cfg.num_workers = workers
    return cfg
