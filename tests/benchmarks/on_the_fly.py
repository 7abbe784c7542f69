"""Training batches from files of maps, and from poses that the loader's workers draw: batches per second, disk,
memory.

`python tests/benchmarks/on_the_fly.py [--out FOLDER]` simulates walkers in a temporary folder, prints a table
and writes on_the_fly.json. A batch is 32
sequences of 30 frames out of 100, published transforms, nothing consumes it. In every round all cases take
turns, each with a fresh loader; figures are
medians over the rounds, ratios medians of the ratios within a round. Without workers also CPU time, which a
busy machine disturbs least.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import torch
from machine import processor

from toys import chain, training_sampler
from skeletongait.files.tree import read_tree
from skeletongait.core import save_pickle
from skeletongait.files.text import save_text
from skeletongait.data.dataset import GaitDataset, first_look
from skeletongait.data.streams import load_stream
from skeletongait.data.loader import make_loader
from skeletongait.data.partition import read_partition
from skeletongait.maps.settings import HeatmapConfig
from skeletongait.maps.heatmap import draw_maps, place_joints, pose_to_heatmap
from skeletongait.files.arrays import load_pickle
from skeletongait.data.transforms import build_transform
from skeletongait.walkers.datasets import write_walkers

SAMPLER = training_sampler([8, 4], 30, 4)
PUBLISHED = chain(0.2)
N_FRAMES, COLD = 100, 'not in the page cache'


def write_trees(root):
    "Twelve walkers, four sequences of 100 frames each, as `pose` (float32) and as `maps`."
    write_walkers(root, n_subjects=12, n_train=12, types=('nm-01', 'bg-01'), views=('000', '090'), n_frames=N_FRAMES)
    for seq, (f,) in read_tree(root / 'pose').sequences.items():
        save_pickle(pose_to_heatmap(load_pickle(f)), seq.path(root / 'maps') / f.name)
    return read_tree(root / 'maps'), read_tree(root / 'pose')


def datasets(maps, poses, partition):
    "Name -> data set; all but the last give the same batches."
    def make(tree, **kw):
        return GaitDataset(tree, partition, True, transform=build_transform(PUBLISHED), **kw)
    cfg = HeatmapConfig()
    return {
        'maps from files': make(maps),
        'maps in memory': make(maps, cache=True),
        'poses from files': make(poses, render=cfg),
        'poses in memory': make(poses, render=cfg, cache=True),
        'poses from files, sigma drawn': make(poses, render=cfg, render_sigma=(4.0, 12.0)),
    }


def paths(data):
    return [f for files in data.files for f in files]


def forget(files):
    "Ask the system to drop the files from its page cache."
    for f in files:
        fd = os.open(f, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def bytes_from_disk():
    "Bytes that this process has had fetched from a disk, as far as the system tells."
    return int(
        next(
            line.split()[1] for line in Path('/proc/self/io').read_text().splitlines() if line.startswith('read_bytes')
        )
    )


def can_forget(data):
    "Does a file that was dropped come from the disk again? Not everywhere: a folder in memory has no disk."
    if not hasattr(os, 'posix_fadvise') or not Path('/proc/self/io').exists():
        return False
    f = paths(data)[0]
    forget([f])
    before = bytes_from_disk()
    f.read_bytes()
    return bytes_from_disk() > before


def measure(data, workers, cold=False, batches=6):
    "Seconds per batch, and CPU seconds of this process."
    it = iter(make_loader(data, SAMPLER, seed=0, num_workers=workers))
    for _ in range(1 + 3 * workers):
        next(it)  # workers have started, and what they prefetched meanwhile is used up
    wall = cpu = 0.0
    for _ in range(batches):
        if cold:
            forget(paths(data))
        w, c = time.perf_counter(), time.process_time()
        next(it)
        wall, cpu = wall + time.perf_counter() - w, cpu + time.process_time() - c
    return wall / batches, cpu / batches


def compare(data, workers, rounds):
    "All cases in turn, several times: case -> seconds per batch in every round."
    cases = [(name, ds, w, False) for name, ds in data.items() for w in workers]
    cases += [
        (f'{name}, {COLD}', data[name], 0, True)
        for name in ('maps from files', 'poses from files')
        if can_forget(data[name])
    ]
    seen = {(name, w): [] for name, _, w, _ in cases}
    for r in range(rounds):
        for name, ds, w, cold in cases if r % 2 == 0 else cases[::-1]:
            seen[name, w].append(measure(ds, w, cold))
    return seen


def summary(seen):
    """Batches per second, CPU milliseconds per batch and, within each round, the time against that from files with
    as many workers."""
    rows = []
    for (name, w), values in seen.items():
        wall, cpu = zip(*values)
        base = [v[0] for v in seen['maps from files' + (f', {COLD}' if name.endswith(COLD) else ''), w]]
        rows.append(
            {
                'case': name,
                'workers': w,
                'batches_per_second': 1 / statistics.median(wall),
                'range': [1 / max(wall), 1 / min(wall)],
                'cpu_ms_per_batch': statistics.median(cpu) * 1e3 if w == 0 else None,
                'time_against_files': statistics.median(a / b for a, b in zip(wall, base)),
            }
        )
    return rows


def parts(data):
    """CPU milliseconds of what a draw is made of: reading a file of maps; reading a pose file, placing its joints,
    drawing 30 frames."""

    def ms(f, *args, n=15):
        times = []
        for _ in range(n):
            start = time.process_time()
            f(*args)
            times.append(time.process_time() - start)
        return statistics.median(times) * 1e3

    cfg, f, m = HeatmapConfig(), paths(data['poses from files'])[5], paths(data['maps from files'])[5]
    pose = load_pickle(f)
    joints = place_joints(pose, cfg)
    return {
        'read maps': ms(load_stream, m),
        'read poses': ms(load_pickle, f),
        'place joints': ms(place_joints, pose, cfg),
        'draw 30 frames': ms(draw_maps, joints[:30], cfg),
        'coordinates_missing': int((pose[..., :2] == 0).sum()),
    }


def disk(data):
    "Bytes of all files, and of the blocks they take."
    stats = [f.stat() for f in paths(data)]
    return {'bytes': sum(o.st_size for o in stats), 'blocks': sum(o.st_blocks * 512 for o in stats)}


def memory(data):
    return sum(x.nbytes for streams in data.cached for x in streams)


def table(r):
    "The figures for people."
    lines = [
        f"{r['machine']}; batches of 32 sequences x 30 frames; medians of {r['rounds']} rounds",
        f"{'':45} {'workers':>7} {'batches/s':>10} {'(range)':>14} {'CPU ms/batch':>13} {'time, files = 1':>16}",
    ]
    for o in r['speed']:
        cpu = '' if o['cpu_ms_per_batch'] is None else f"{o['cpu_ms_per_batch']:.0f}"
        span = f"{o['range'][0]:.1f} - {o['range'][1]:.1f}"
        lines.append(
            f"{o['case']:45} {o['workers']:7} {o['batches_per_second']:10.1f} {span:>14} {cpu:>13} "
            f"{o['time_against_files']:16.2f}"
        )
    lines.append(
        'one sequence, CPU ms: '
        + ', '.join(f'{k} {v:.2f}' for k, v in r['parts'].items() if k != 'coordinates_missing')
        + f" ({r['parts']['coordinates_missing']} coordinates missing)"
    )
    frames = r['sequences'] * N_FRAMES
    for what in ('disk', 'memory'):
        a, b = (o['bytes'] if what == 'disk' else o for o in r[what].values())
        lines.append(
            f"{what:6} maps {a / 1e6:.1f} MB, poses {b / 1e6:.2f} MB: {a / frames:,.0f} and "
            f"{b / frames:,.0f} bytes per frame, {a / b:.0f} times less"
        )
    return '\n'.join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default='output/benchmarks', help='where on_the_fly.json goes')
    p.add_argument('--rounds', type=int, default=5, help='how often the cases take turns')
    args = p.parse_args()
    cv2.setNumThreads(1), torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        maps, poses = write_trees(Path(folder))
        data = datasets(maps, poses, read_partition(Path(folder) / 'partition.json'))
        for ds in data.values():
            first_look(ds)
        expected = next(iter(make_loader(data['maps from files'], SAMPLER, 0, num_workers=0))).frames
        for name, ds in data.items():
            if 'sigma' not in name and not torch.equal(
                next(iter(make_loader(ds, SAMPLER, 0, num_workers=0))).frames, expected
            ):
                sys.exit(f'{name}: other batches than from files')
        workers = (0, 1, 2)
        r = {
            'machine': processor(),
            'rounds': args.rounds,
            'sequences': len(maps.sequences),
            'speed': summary(compare(data, workers, args.rounds)),
            'parts': parts(data),
            'disk': {'maps': disk(data['maps from files']), 'poses': disk(data['poses from files'])},
            'memory': {'maps': memory(data['maps in memory']), 'poses': memory(data['poses in memory'])},
        }
    save_text(json.dumps(r, indent=1) + '\n', Path(args.out) / 'on_the_fly.json')
    print(table(r))


if __name__ == '__main__':
    main()
