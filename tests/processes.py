"Start runs as processes, watch them, and stop them."
import os
import shutil
import subprocess
import sys

import pytest

import scripts
from scripts import BIN
from toys import tiny, write_config

from skeletongait.runs.folder import Run
from skeletongait.runs.records import read_metrics


def namespace():
    "The words before a shell command that may mount a small disk of its own; None if this machine lets nobody do that."
    if not shutil.which('unshare'): return None
    script = 'd=$(mktemp -d); mount -t tmpfs -o size=1m none $d && umount $d; r=$?; rmdir $d; exit $r'
    for words in (['unshare', '--map-root-user', '--mount'], []):
        if not words and os.geteuid() != 0: continue
        tried = subprocess.run([*words, 'sh', '-c', script], capture_output=True)
        if tried.returncode == 0: return words


def in_namespace(script, cwd):
    "Run a shell script that may mount a small disk of its own."
    words = namespace()
    if words is None:
        pytest.skip('neither user namespaces nor root: no small disk can be mounted')
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PATH': f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run([*words, 'sh', '-c', script], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


TORCHRUN = [str(BIN/'torchrun'), '--standalone']
ENV = scripts.environment()


def launcher(ranks, *options):
    "The words before the script's own arguments."
    script = ['-m', 'skeletongait.main']
    if ranks == 1: return [sys.executable, *script]
    return [*TORCHRUN, f'--nproc_per_node={ranks}', *options, *script]


def begin(folder, cfg, ranks=1, *args, options=(), phase='train', new_group=False, words=None):
    "Start a run in `folder`; what it says goes to `out.txt` there."
    folder.mkdir(exist_ok=True, parents=True)
    words = words or launcher(ranks, *options)
    command = [*words, f'--cfgs={write_config(cfg, folder/"x.yaml")}', f'--phase={phase}', *args]
    with open(folder/'out.txt', 'a') as out:
        return subprocess.Popen(command, cwd=folder, env=ENV, stdout=out, stderr=out, start_new_session=new_group)


def said(folder): return (folder/'out.txt').read_text()


def wait_for(condition, process, folder, seconds=120, pause=.005):
    "Wait until `condition()` holds while the `process` of `begin` runs in `folder`."
    scripts.wait_for(condition, process, seconds, pause, lambda: said(folder))


def at_iteration(run, i):
    "A condition: the run has logged iteration `i`, or a later one."
    def reached():
        if not run.metrics.exists(): return False
        return any(m.get('iteration', 0) >= i for m in read_metrics(run.metrics) if 'values' in m)
    return reached


def run_of(folder, cfg): return Run(cfg, folder/'output')


def settings(walkers, workers=0, **trainer):
    cfg = tiny(walkers, **dict(total_iter=8, log_iter=1, save_iter=4, restore_hint='latest') | trainer)
    cfg.data_cfg.num_workers = workers
    return cfg
