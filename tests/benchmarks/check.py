"""How long a check takes, and how many walkers it accuses wrongly.

`python tests/benchmarks/check.py [--walkers N]` prints CPU time of one core for a pose file and for a pair of maps
and silhouettes, what the same functions add to the drawing of maps, and the walkers among N that are accused.
100,000 sequences are an extrapolation from these: files that must come from a disk take longer.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import processor

from skeletongait.core import save_pickle
from skeletongait.files.tree import Sequence
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.poses.quality import pose_findings
from skeletongait.prepare.check_tree import check_sequence
from skeletongait.walkers.recording import make_sequence

N_FRAMES = 110  # GREW's average


def milliseconds(func, items):
    "CPU time of one call."
    func(items[0])
    start = time.process_time()
    for o in items:
        func(o)
    return 1000 * (time.process_time() - start) / len(items)


def write(root, recordings):
    "Pose files and linked pairs; the jobs that read them."
    poses, pairs = [], []
    for i, o in enumerate(recordings):
        files = [root / f'{i}-{name}.pkl' for name in ('pose', 'maps', 'sil')]
        for file, x in zip(files, (o.pose, pose_to_heatmap(o.pose), o.silhouette)):
            save_pickle(x, file)
        poses.append((Sequence(f'{i}', 't', 'v'), (files[0],)))
        pairs.append((Sequence(f'{i}', 't', 'v'), (files[1], files[2])))
    return poses, pairs


def count_accused(n):
    "Walkers of all views and looks with any finding."
    rng = np.random.default_rng(4)
    accused = 0
    for subject in range(n):
        type, view = f'{rng.choice(["nm", "bg", "cl"])}-01', f'{rng.integers(360):03d}'
        accused += bool(pose_findings(make_sequence(4, subject, type, view, int(rng.choice([15, 30, 60]))).pose))
    return accused


def main(n):
    recordings = [make_sequence(0, i, 'nm-01', '090', N_FRAMES) for i in range(100)]
    with tempfile.TemporaryDirectory() as folder:
        poses, pairs = write(Path(folder), recordings)
        one, two = milliseconds(check_sequence, poses), milliseconds(check_sequence, pairs)
    arrays = [o.pose for o in recordings]
    added, drawn = milliseconds(pose_findings, arrays), milliseconds(pose_to_heatmap, arrays)
    print(f'{processor()}; {N_FRAMES} frames a sequence, CPU time of one core')
    print(f'a pose file                {one:6.2f} ms; 100,000 of them: {one / 0.6:.1f} min')
    print(f'maps and silhouettes       {two:6.2f} ms; 100,000 of them: {two / 0.6:.1f} min')
    print(f'findings while drawing     {added:6.2f} ms, {added / drawn:.1%} of the {drawn:.1f} ms that drawing takes')
    print(f'accused without a reason   {count_accused(n)} of {n:,} walkers')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--walkers', type=int, default=2000)
    main(parser.parse_args().walkers)
