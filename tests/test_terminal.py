"A closed terminal, a pipe that nobody reads any more: the work is saved, and unread lines end nothing."
import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import threading
import time

import pytest
from processes import ENV, at_iteration, launcher, run_of, settings, wait_for
from toys import write_config

from skeletongait.runs.checkpoint import load_checkpoint
from skeletongait.cli import output_may_end, stop_signals, stoppable
from skeletongait.runs.records import read_metrics

HANGS_UP = pytest.mark.skipif('SIGHUP' not in signal.Signals.__members__, reason='this system has no SIGHUP')


class Terminal:
    "A terminal in which a command runs, in a session of its own, until it is closed."
    def __init__(self, command, cwd):
        import fcntl
        import termios
        self.end, other = os.openpty()
        def own():
            "The terminal becomes the command's own; `nohup` before the tests is none before the command."
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        self.process = subprocess.Popen([*map(str, command)], cwd=cwd, env=ENV, stdin=other, stdout=other, stderr=other,
                                        start_new_session=True, preexec_fn=own)
        os.close(other)
        self.shown, self.closing = b'', False
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        while not self.closing:
            if select.select([self.end], [], [], .05)[0]:
                with contextlib.suppress(OSError):
                    self.shown += os.read(self.end, 1 << 16)

    def close(self):
        self.closing = True
        self.reader.join()
        os.close(self.end)


def wait_until(happened, terminal, seconds=60):
    "The moment in which `happened()`."
    until = time.monotonic() + seconds
    while not happened():
        assert terminal.process.poll() is None and time.monotonic() < until, terminal.shown.decode()
        time.sleep(.02)


@HANGS_UP
@pytest.mark.parametrize('ranks', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_closed_terminal_ends_a_run_with_a_checkpoint(walkers, tmp_path, ranks):  # noqa: F811
    cfg = settings(walkers, total_iter=2000, save_iter=5000)
    run = run_of(tmp_path, cfg)
    terminal = Terminal([*launcher(ranks), f'--cfgs={write_config(cfg, tmp_path/"x.yaml")}', '--phase=train'], tmp_path)
    wait_until(at_iteration(run, 3), terminal)
    terminal.close()
    assert terminal.process.wait(90) == (130 if ranks == 1 else 1)
    last = max(run.iterations())
    assert 3 <= last < 2000 and load_checkpoint(run.checkpoint(last))['iteration'] == last
    assert any(m.get('event') == 'stopped' for m in read_metrics(run.metrics))


@HANGS_UP
@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_a_hangup_is_as_sigterm_and_nohup_outlives_it(walkers, tmp_path, workers):  # noqa: F811
    "To the whole group of processes, loader workers included."
    for ignored in (False, True):
        cfg = settings(walkers, workers, total_iter=60 if ignored else 2000, save_iter=5000)
        folder = tmp_path/str(ignored)
        folder.mkdir()
        command = [*launcher(1), f'--cfgs={write_config(cfg, folder/"x.yaml")}', '--phase=train']
        before = (lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) if ignored else None
        with open(folder/'out.txt', 'w') as out:
            process = subprocess.Popen(command, cwd=folder, env=ENV, stdout=out, stderr=out, start_new_session=True,
                                       preexec_fn=before)
        run = run_of(folder, cfg)
        wait_for(at_iteration(run, 3), process, folder)
        for _ in range(2):
            os.killpg(process.pid, signal.SIGHUP)
        code, said = process.wait(90), (folder/'out.txt').read_text()
        assert code == (0 if ignored else 130) and 'Traceback' not in said
        assert ('stopped by SIGHUP; iteration' in said) != ignored
        assert (max(run.iterations()) == 60) == ignored


@HANGS_UP
@pytest.mark.slow
def test_a_closed_terminal_ends_drawing_and_linking_tidily(tmp_path):
    from test_endurance import write_poses
    write_poses(tmp_path/'pose', 12, 60, 4)
    (tmp_path/'pose'/'011'/'nm-01'/'090'/'bad.pkl').unlink()
    def drawn():
        return len([*(tmp_path/'maps').rglob('*.pkl')])
    words = ['--pose_data_path=pose', '--save_root=maps', '--dataset_name=mine']
    terminal = Terminal([sys.executable, '-m', 'skeletongait.pretreatment_heatmap', *words], tmp_path)
    wait_until(lambda: drawn() > 40, terminal)
    terminal.close()
    assert terminal.process.wait(60) == 130 and 40 < drawn() < 722
    assert not [p for p in (tmp_path/'maps').rglob('.*')]


@HANGS_UP
def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            assert signal.SIGHUP not in stop_signals() and signal.SIGTERM in stop_signals()
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.name and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# --- output that nobody reads

SPEAKS = """
import sys
from skeletongait.cli import run_script
from tqdm import tqdm
def speaks(times:int): # How often
    for i in tqdm(range(times), mininterval=0): print('x'*1000)
    open('done', 'w').close()
    return 7
sys.exit(run_script(speaks))
"""


@pytest.mark.parametrize('both', [False, True])
def test_a_reader_who_leaves_ends_nothing(tmp_path, both):
    (tmp_path/'speaks.py').write_text(SPEAKS, encoding='utf-8')
    command = [sys.executable, 'speaks.py', '--times=400']
    pipe = subprocess.PIPE
    errors = subprocess.STDOUT if both else pipe
    process = subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=errors, text=True)
    process.stdout.read(10)
    process.stdout.close()
    err = '' if both else process.stderr.read()
    if not both:
        process.stderr.close()
    assert process.wait(60) == 7 and (tmp_path/'done').exists()
    if not both:
        assert err.count('<stdout>: Broken pipe; further output there is lost') == 1
    assert 'Traceback' not in err


def test_a_full_disk_is_still_an_error(monkeypatch):
    class Full:
        def write(self, text): raise OSError(errno.ENOSPC, 'No space left on device')
        def flush(self): pass
    monkeypatch.setattr(sys, 'stdout', Full())
    with pytest.raises(OSError, match='No space left'), output_may_end():
        print('x')


def test_streams_are_put_back_and_may_be_missing(monkeypatch):
    monkeypatch.setattr(sys, 'stderr', None)
    before = sys.stdout
    with output_may_end():
        print('x', file=sys.stderr)
        assert sys.stdout == before and sys.stdout is not before
    assert sys.stdout is before and sys.stderr is None
