"""What a frame change costs in each viewer on the kernel's side, and how much memory a long sequence takes.

`python tests/benchmarks/viewers.py [--out FOLDER] [--frames N]` prints a table and writes viewers.json. Each
viewer runs in a process of its own, on one thread, with a sequence of
N frames (2,000): every frame is shown twice, in order. The first time it is drawn and encoded, the second time
only its value is swapped. Memory is what the process grew by from
before the viewer was made, its input not counted, to after the last frame. The explorer has 5,000 sequences of
256 x 16 and walks of N frames. The training monitor has no frames, and is not among them.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from functools import cache
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
from machine import processor

from skeletongait.files.tree import Sequence
from skeletongait.files.text import save_text
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.walkers.recording import make_sequence


@cache
def walk(n):
    "Poses, maps and silhouettes of n frames."
    rec = make_sequence(seed=0, subject=1, type='bg-01', view='090', n_frames=n)
    return rec.pose, pose_to_heatmap(rec.pose), rec.silhouette


def studio(n):
    from skeletongait.viewers.studio import HeatmapStudio

    pose, _, silhouette = walk(n)
    return lambda: HeatmapStudio(pose, silhouette)


def overlay(n):
    from skeletongait.viewers.overlay import OverlayViewer

    _, maps, silhouette = walk(n)
    return lambda: OverlayViewer(maps, silhouette)


def browser(n):
    from skeletongait.viewers.browser import DatasetBrowser

    _, maps, silhouette = walk(n)
    tree = {Sequence('001', f'nm-{i:02d}', '090'): [maps, silhouette] for i in range(6)}
    return lambda: DatasetBrowser(tree)


def retrieval(n):
    from skeletongait.viewers.retrieval import RetrievalExplorer

    _, maps, _ = walk(n)
    rng, m = np.random.default_rng(0), 5000
    subjects = rng.integers(0, 500, m)
    x = (rng.normal(size=(500, 256, 16))[subjects] + 2 * rng.normal(size=(m, 256, 16))).astype(np.float32)
    types, views = rng.choice(['nm', 'bg'], m), rng.choice(['000', '045', '090'], m)
    protocol = dict(gallery=dict(types='nm'), probe=dict(types='bg'), exclude=['view'])
    return lambda: RetrievalExplorer(x, subjects.astype(str), types, views, lambda s: maps, protocol)


def fusion(n):
    from skeletongait.viewers.fusion import FusionViewer

    _, maps, silhouette = walk(n)
    weights = np.random.default_rng(0).uniform(size=(n, 64, 44)).astype(np.float32)
    return lambda: FusionViewer(maps, silhouette, weights)


VIEWERS = dict(
    HeatmapStudio=studio,
    OverlayViewer=overlay,
    DatasetBrowser=browser,
    RetrievalExplorer=retrieval,
    FusionViewer=fusion,
)


def memory():
    "Bytes of this process that are in memory."
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def times(viewer, frames):
    "Milliseconds of showing each frame."
    out = []
    for t in frames:
        began = time.perf_counter()
        viewer.player.index = t
        out.append(1e3 * (time.perf_counter() - began))
    return out


def measure(name, n):
    "One viewer: seconds to open, milliseconds per frame, megabytes."
    make = VIEWERS[name](n)
    make()  # imports, compiled loops, fonts
    before, began = memory(), time.perf_counter()
    viewer = make()
    opened = time.perf_counter() - began
    assert not viewer.problem, viewer.problem
    frames = range(1, min(viewer.n_frames, n))
    first, again = times(viewer, frames), times(viewer, frames)
    grown = (memory() - before) / 2**20
    began = time.perf_counter()
    viewer.figure()
    return dict(
        viewer=name,
        frames=len(frames) + 1,
        open_s=opened,
        first_ms=statistics.median(first),
        first_99_ms=float(np.percentile(first, 99)),
        again_ms=statistics.median(again),
        again_99_ms=float(np.percentile(again, 99)),
        memory_mb=grown,
        figure_s=time.perf_counter() - began,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', default=tempfile.gettempdir(), help='folder of viewers.json')
    parser.add_argument('--frames', type=int, default=2000)
    args = parser.parse_args()
    with multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
        rows = pool.starmap(measure, [(name, args.frames) for name in VIEWERS], chunksize=1)
    columns = dict(
        viewer='viewer',
        frames='frames',
        open_s='open, s',
        first_ms='first, ms',
        first_99_ms='99 %',
        again_ms='again, ms',
        again_99_ms='99 %',
        memory_mb='MB',
        figure_s='figure, s',
    )
    cells = [list(columns.values())] + [
        [f'{r[k]:.2f}' if isinstance(r[k], float) else str(r[k]) for k in columns] for r in rows
    ]
    print(
        f'{processor()}\n'
        + '\n'.join('  '.join(c.ljust(18) if i == 0 else c.rjust(9) for i, c in enumerate(row)) for row in cells)
    )
    save_text(json.dumps(dict(machine=processor(), rows=rows), indent=1), Path(args.out) / 'viewers.json')


if __name__ == '__main__':
    main()
