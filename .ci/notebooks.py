"""Run the notebooks, two at a time: `python .ci/notebooks.py [NOTEBOOK ...]`, all of them without arguments.

`nbdev_test` runs them too, but where a process dies (a crash in a library, no memory left) it cannot say which
notebook that was.
"""

import faulthandler
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, set_start_method
from pathlib import Path
from queue import SimpleQueue

from nbdev.test import test_nb

ROOT = Path(__file__).resolve().parents[1]
AT_ONCE = 2


def prepare() -> None:
    "In a new process: a crash says where; processes that a notebook starts begin as they do elsewhere on this system."
    faulthandler.enable()
    set_start_method(None, force=True)


def new_worker() -> ProcessPoolExecutor:
    "A process, not yet started, that runs one notebook after the other."
    return ProcessPoolExecutor(1, mp_context=get_context('spawn'), initializer=prepare)


def shown(path: Path) -> str:
    "The notebook's name, with its room where it lies in `nbs`."
    folder = ROOT / 'nbs'
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def run_in(workers: SimpleQueue, path: Path) -> bool:
    "Run one notebook in a free worker, and say how that ended."
    worker, start = workers.get(), time.monotonic()
    try:
        passed, _ = worker.submit(test_nb, path, basepath=ROOT).result()
        end = 'passed' if passed else 'FAILED'
    except BrokenProcessPool:
        passed, end, worker = False, 'FAILED: its process died (a crash, or no memory left)', new_worker()
    workers.put(worker)
    print(f'{shown(path)}: {end} ({time.monotonic() - start:.0f} s)', flush=True)
    return passed


def main(paths: list[Path]) -> int:
    "Run the notebooks; 1 if one failed."
    os.chdir(ROOT)
    workers = SimpleQueue()
    for _ in range(AT_ONCE):
        workers.put(new_worker())
    with ThreadPoolExecutor(AT_ONCE) as threads:
        passed = list(threads.map(lambda path: run_in(workers, path), paths))
    for _ in range(AT_ONCE):
        workers.get().shutdown()
    failed = [shown(path) for path, ok in zip(paths, passed) if not ok]
    print(
        f'{len(paths) - len(failed)} notebooks passed, {len(failed)} failed' + ''.join(f'\n  {name}' for name in failed)
    )
    return int(bool(failed))


if __name__ == '__main__':
    sys.exit(main([Path(p).absolute() for p in sys.argv[1:]] or sorted((ROOT / 'nbs').rglob('[!_.]*.ipynb'))))
