"Windows and macOS, as far as another system can show them: what CPython lacks there is taken away, the rest is played."
import errno
import ntpath
import os
import subprocess
import sys
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import numpy as np
import pytest
from scripts import ROOT, TESTS

from skeletongait import core
from skeletongait.ln_sil_heatmap import ln_sil_heatmap
from skeletongait.prepare import link_tree as linking, manifest
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.files.text import save_text
from skeletongait.prepare.render_tree import output_folder

# What others need of it they have imported before it goes; ours comes after.
AS_ON_WINDOWS = """
import sys
import cv2, filelock, ipywidgets, IPython.display, matplotlib.pyplot, numba.core.caching, sklearn.metrics, tensorboard
import torch.distributed, torch.utils.data
import asyncio, concurrent.futures
import multiprocessing.popen_spawn_posix, multiprocessing.queues, multiprocessing.synchronize
import os, signal, types
import multiprocessing.resource_tracker, torch.utils.data._utils.signal_handling
whole = types.ModuleType('signal')
vars(whole).update(vars(signal))
multiprocessing.resource_tracker.signal = torch.utils.data._utils.signal_handling.signal = whole # they do without there
for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'): sys.modules[name] = None
for name in ('uname', 'fork', 'forkpty', 'getuid', 'geteuid', 'getgid', 'killpg', 'getpgid', 'setsid', 'mkfifo',
             'chown', 'sched_getaffinity', 'register_at_fork', 'openpty'):
    if hasattr(os, name): delattr(os, name)
stays = ('SIGINT', 'SIGTERM', 'SIGABRT', 'SIGFPE', 'SIGILL', 'SIGSEGV')
for name in ('sigwaitinfo', 'sigwait', 'sigtimedwait', 'pthread_sigmask', 'pthread_kill', 'alarm', 'setitimer', 'pause',
             'siginterrupt', 'SIG_BLOCK', *(o for o in signal.Signals.__members__ if o not in stays)):
    if hasattr(signal, name): delattr(signal, name)
lacks = [o for o in signal.Signals if not hasattr(signal, o.name)]
for o in lacks: del signal.Signals._member_map_[o.name]
signal.Signals._member_names_[:] = signal.Signals._member_map_
"""

IMPORTS = AS_ON_WINDOWS + """
import importlib, pkgutil, skeletongait
names = [o.name for o in pkgutil.walk_packages(skeletongait.__path__, 'skeletongait.')]
for name in names: importlib.import_module(name)
print(len(names))
"""

WORKS = AS_ON_WINDOWS + """
import multiprocessing
if __name__ == '__main__':
    multiprocessing.set_start_method('spawn')
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from toys import make_walkers, tiny, write_config
    from skeletongait import ln_sil_heatmap, pretreatment_heatmap
    from skeletongait.cli import run_script, stop_signals, stoppable
    from skeletongait.main import main
    assert [s.name for s in stop_signals()] == ['SIGINT', 'SIGTERM']
    root = make_walkers(Path('w'))
    words = ['--pose_data_path=w/pose', '--save_root=maps', '--dataset_name=mine']
    with stoppable(): assert run_script(pretreatment_heatmap.pretreatment_heatmap, words) == 0
    words = ['--heatmap_data_path=maps/mine_sigma_8.0_/pkl', '--silhouette_data_path=w/silhouette',
             '--output_path=linked', '--copy']
    with stoppable(): assert run_script(ln_sil_heatmap.ln_sil_heatmap, words) == 0
    for name in ('demo_skeletongait', 'demo_skeletongait++'):
        cfg = tiny(root, name, total_iter=2, save_iter=1)
        cfg.data_cfg.dataset_root, cfg.data_cfg.num_workers = 'linked', 2
        cfg.data_cfg.dataset_name = name.replace('+', 'p')
        path = write_config(cfg, Path(name + '.yaml'))
        for phase in ('train', 'test'):
            assert run_script(main, [f'--cfgs={path}', f'--phase={phase}', '--log_to_file']) == 0
    print('all done')
"""


def as_on_windows(script, folder, *args):
    (folder/'as_on_windows.py').write_text(script, encoding='utf-8')
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    command = [sys.executable, 'as_on_windows.py', *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)


def test_every_module_can_be_imported(tmp_path):
    done = as_on_windows(IMPORTS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len([*(ROOT/'skeletongait').rglob('*.py')]) - 1  # all but the package itself


@pytest.mark.slow
def test_maps_links_and_training_with_spawned_workers(tmp_path):
    done = as_on_windows(WORKS, tmp_path, str(TESTS))
    assert done.returncode == 0 and done.stdout.endswith('all done\n'), done.stdout + done.stderr
    names = [p.name for p in tmp_path.rglob('*')]
    assert len(names) > 100 and not [o for o in names if set(o) & set('<>:"|?*\\')]


class WindowsFolder(PureWindowsPath):
    "A folder of another system: it has a path, and nothing in it."
    def is_dir(self): return False


def test_maps_are_found_behind_backslashes(monkeypatch):
    size = SimpleNamespace(st_size=7)
    def entry(o):
        return SimpleNamespace(path=o, name=ntpath.basename(o), is_file=lambda: True, stat=lambda: size)
    below = {'pkl': ['001\\nm-01\\090\\a.pkl', '001\\notes.txt'], 'images': [], 'journal': []}
    monkeypatch.setattr(manifest, 'walk', lambda out: [entry(f'{out}\\{o}') for o in below[out.name]])
    monkeypatch.setattr(manifest, 'Path', PureWindowsPath)
    found = manifest.look_around(WindowsFolder('C:/maps/mine_sigma_8.0_'))
    assert found == ({'001/nm-01/090/a.pkl': 7}, [], ['pkl/001/notes.txt'])


@pytest.mark.parametrize('name', ['a/b', 'a\\b', 'C:x', '/', '\\'])
def test_a_name_that_would_be_several_folders(monkeypatch, name):
    monkeypatch.setattr('skeletongait.prepare.render_tree.Path', PureWindowsPath)
    with pytest.raises(SkeletonGaitError, match='has a slash'): output_folder('maps', name, 8)
    with pytest.raises(SkeletonGaitError, match='has a slash'): output_folder('maps', 'mine', 8, name)
    assert output_folder('maps', 'mine', 8, '').name == 'mine_sigma_8.0_'
    assert output_folder('maps', '.', 8, '..').name == '._sigma_8.0_..'


def test_lines_end_alike_everywhere(tmp_path, monkeypatch):
    "Text files of one content have the same bytes on every system."
    opened, real = [], Path.open
    def opens(self, mode='r', buffering=-1, encoding=None, errors=None, newline=None):
        opened.append((mode, newline))
        return real(self, mode, buffering, encoding, errors, newline)
    monkeypatch.setattr(Path, 'open', opens)
    save_text('a\nb\n', tmp_path/'x')
    assert ('w', '\n') in opened and (tmp_path/'x').read_bytes() == b'a\nb\n'


def in_use(winerror):
    e = PermissionError(errno.EACCES, 'The process cannot access the file')
    e.winerror = winerror
    return e


@pytest.mark.parametrize('winerror, times, ends', [
    (32, 3, True), (5, 1, True), (5, 99, False), (19, 1, False), (None, 1, False)])
def test_a_reader_delays_a_file_but_does_not_lose_it(tmp_path, monkeypatch, winerror, times, ends):
    "Windows renames no file over one that is open; a monitor reads for a moment only."
    real, asked = os.replace, []
    def replace(a, b):
        asked.append(a)
        if len(asked) <= times: raise in_use(winerror)
        real(a, b)
    monkeypatch.setattr(core.os, 'replace', replace)
    monkeypatch.setattr(core.time, 'sleep', lambda s: None)
    if ends: save_text('x', tmp_path/'f')
    else:
        with pytest.raises(PermissionError): save_text('x', tmp_path/'f')
    assert [p.name for p in tmp_path.iterdir()] == ['f'] * ends and (winerror in (5, 32) or len(asked) == 1)


def privilege():
    e = OSError(errno.EINVAL, 'A required privilege is not held by the client')
    e.winerror = 1314
    return e


NO_LINKS = [OSError(o, os.strerror(o)) for o in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)]


@pytest.mark.parametrize('error', [privilege(), *NO_LINKS], ids=str)
def test_where_no_links_can_be_made_one_line_says_so(tmp_path, monkeypatch, capsys, error):
    for i in range(6):
        save_pickle(np.zeros((3, 2, 64, 64), np.uint8), tmp_path/'maps'/f'{i}'/'t'/'v'/'x.pkl')
        save_pickle(np.zeros((3, 64, 44), np.uint8), tmp_path/'sil'/f'{i}'/'t'/'v'/'x.pkl')
    def refuses(*args, **kw): raise error
    monkeypatch.setattr(os, 'symlink', refuses)
    words = [str(tmp_path/o) for o in ('maps', 'sil', 'linked')]
    assert ln_sil_heatmap(*words) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 1
    assert f'this link cannot be made ({error.strerror}); if links are not supported here, use --copy' in out[0]
    assert ln_sil_heatmap(*words, copy=True) == 0


def test_links_are_recognised_as_windows_reads_them(tmp_path, monkeypatch):
    source, path = tmp_path/'a.pkl', tmp_path/'b.pkl'
    source.touch()
    linking.link(source, path)
    real = os.readlink
    monkeypatch.setattr(os, 'readlink', lambda p: '\\\\?\\' + real(p))
    assert linking.holds(path, linking.Stream('b.pkl', source, 1), False)
