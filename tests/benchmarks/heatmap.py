"""How long a skeleton map takes, against the plain version of tests/plain.py, and how far that is from what the
core can do.

`python tests/benchmarks/heatmap.py [--poses FOLDER] [--out FOLDER]` prints a table and writes heatmap.json and
heatmap.png. Without `--poses` it
draws simulated walkers; with it the `.pkl` poses of a tree `<subject>/<type>/<view>/`. One thread and CPU time,
except for the part about processes.
Pairs of runs: the plain and the compiled version take turns on the same sequence; the ratio is the median over
the pairs.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import matplotlib.pyplot as plt
import numba
import numpy as np
import plain
from machine import processor
from results import save_charts, times_faster

from skeletongait.maps import renderer as draw
from skeletongait.files.tree import read_tree
from skeletongait.files.text import save_text
from skeletongait.maps.settings import HeatmapConfig
from skeletongait.maps.heatmap import draw_maps, impute_knn, place_joints, pose_to_heatmap
from skeletongait.files.arrays import load_pickle
from skeletongait.poses.joints import to_coco17
from skeletongait.walkers.recording import make_sequence


def seconds(f, *args, clock=time.process_time):
    "Time of one call."
    start = clock()
    f(*args)
    return clock() - start


def median_ms(f, *args, n_frames, repeats=7):
    "Median milliseconds per frame of some calls."
    return statistics.median(seconds(f, *args) for _ in range(repeats)) / n_frames * 1e3


def read_poses(folder, n_sequences, n_frames):
    "Sequences of `n_frames` frames, COCO-17, float64: from a tree, or simulated."
    if folder is None:
        return [
            make_sequence(seed=0, subject=i, type='nm-01', view=('000', '090')[i % 2], n_frames=n_frames).pose.astype(
                float
            )
            for i in range(n_sequences)
        ]
    found = []
    files = [fs[0] for fs in read_tree(folder).sequences.values()]
    for path in files[:: max(len(files) // n_sequences // 2, 1)]:
        pose = to_coco17(load_pickle(path)).astype(float)[:n_frames]
        if len(pose) == n_frames and len(found) < n_sequences:
            found.append(pose)
    return found


def pairs(poses, ours, theirs, rounds=3):
    "Milliseconds per frame of both, and their ratio: medians over pairs of runs."
    ours(poses[0]), theirs(poses[0][:2])
    rows = [
        (seconds(theirs, p) / len(p) * 1e3, statistics.median(seconds(ours, p) for _ in range(3)) / len(p) * 1e3)
        for _ in range(rounds)
        for p in poses
    ]
    return {
        'plain_ms': statistics.median(r[0] for r in rows),
        'ms': statistics.median(r[1] for r in rows),
        **times_faster(rows),
    }


def with_holes(pose, fraction, seed=0):
    "The pose with some joints missing, none of them everywhere."
    pose, rng = pose.copy(), np.random.default_rng(seed)
    gone = rng.random(pose.shape[:2]) < fraction
    gone[0] = False
    pose[gone] = 0
    return pose


# Parts of the compiled renderer, each including the ones before: their differences are the profile.
@numba.njit(nogil=True)
def list_only(joints, sigma, height, width):
    bumps, n = np.empty(17, draw.BUMP), 0
    for t in range(len(joints)):
        for ends in (draw.LIMB_ENDS, draw.JOINT_ENDS):
            n += draw._list_bumps(joints[t], ends, sigma, height, width, bumps)
    return n


@numba.njit(nogil=True)
def rows_only(joints, sigma, height, width):
    bumps, best, total = np.empty(17, draw.BUMP), np.empty(width), 0.0
    for t in range(len(joints)):
        for ends in (draw.LIMB_ENDS, draw.JOINT_ENDS):
            n = draw._list_bumps(joints[t], ends, sigma, height, width, bumps)
            for y in range(height):
                draw._draw_row(bumps[:n], y, 1 / (2 * sigma * sigma), best)
                total += best[0]
    return total


@numba.njit(nogil=True)
def maps_only(joints, sigma, height, width):
    bumps, best, out = np.empty(17, draw.BUMP), np.empty(width), np.empty((height, width), np.uint8)
    for t in range(len(joints)):
        for ends in (draw.LIMB_ENDS, draw.JOINT_ENDS):
            draw._draw_map(joints[t], ends, sigma, bumps, best, out)


@numba.njit(nogil=True)
def work(joints, sigma, height, width):
    "Values that limbs and joints enter into a map: box pixels of each, summed over the frames."
    bumps, limbs, points = np.empty(17, draw.BUMP), 0, 0
    for t in range(len(joints)):
        for m, ends in enumerate((draw.LIMB_ENDS, draw.JOINT_ENDS)):
            for b in bumps[: draw._list_bumps(joints[t], ends, sigma, height, width, bumps)]:
                area = (b.x1 - b.x0) * (b.y1 - b.y0)
                if b.length > 0:
                    limbs += area
                else:
                    points += area
    return limbs, points


@numba.njit(nogil=True, fastmath=draw._FINITE)
def multiply_add(x, n):
    """8 multiply-adds for every number of `x`, `n` times over: what the core can do when nothing but arithmetic is
    asked of it."""
    for _ in range(n):
        for i in range(len(x)):
            v = x[i]
            a, b = v * 0.5 + 0.1, v * 0.25 + 0.2
            a = a * 0.5 + 0.1
            b = b * 0.5 + 0.3
            a = a * 0.25 + 0.2
            b = b * 0.5 + 0.1
            a = a * 0.5 + 0.1
            b = b * 0.25 + 0.3
            x[i] = max(a, b)


def limit(joints, cfg, ms):
    "Arithmetic of a frame against the measured rate of the core."
    limbs, points = (n / len(joints) for n in work(joints, cfg.sigma, cfg.img_h, cfg.img_w))
    pixels = 2 * cfg.img_h * cfg.img_w
    operations = {'limbs': 10 * limbs, 'joints': 4 * points, 'grey classes': 19 * pixels, 'resize': 3 * pixels}
    x = np.linspace(0, 1, 1024)
    multiply_add(x, 10)
    rate = statistics.median(9 * len(x) * 20000 / seconds(multiply_add, x, 20000) for _ in range(5))
    total = sum(operations.values())
    return {
        'operations_per_frame': operations,
        'giga_operations_per_second': rate / 1e9,
        'least_ms': total / rate * 1e3,
        'ms': ms,
        'share_of_the_limit': total / rate * 1e3 / ms,
    }


def profile(pose, cfg):
    "Milliseconds per frame of each part of the compiled version, and of the plain one."
    n, joints = len(pose), place_joints(pose, cfg)
    j, size = np.ascontiguousarray(joints), (cfg.sigma, cfg.img_h, cfg.img_w)
    for f in (list_only, rows_only, maps_only):
        f(j, *size)
    steps = [
        median_ms(f, *args, n_frames=n)
        for f, args in (
            (list_only, (j, *size)),
            (rows_only, (j, *size)),
            (maps_only, (j, *size)),
            (draw_maps, (j, cfg)),
        )
    ]
    after = {
        'centre, scale, checks': median_ms(place_joints, pose, cfg, n_frames=n),
        'lists of bumps': steps[0],
        'rows of logarithms': steps[1] - steps[0],
        'grey classes': steps[2] - steps[1],
        'cut and resize': steps[3] - steps[2],
    }
    ends = [(i, i) for i in range(17)]
    few = joints[:20]
    greys = [
        [plain.image(f[:, :2], f[:, 2], e, cfg.sigma, (cfg.img_h, cfg.img_w)) for e in (draw.LIMB_ENDS, ends)]
        for f in few
    ]

    def bumps():
        for f in few:
            for e in (draw.LIMB_ENDS, ends):
                for a, b in e:
                    plain.bump(f[a, :2], f[b, :2], f[a, 2], f[b, 2], cfg.sigma, (cfg.img_h, cfg.img_w))

    whole = median_ms(plain.draw, few, cfg.sigma, n_frames=len(few), repeats=3)
    bump, fit = (
        median_ms(bumps, n_frames=len(few), repeats=3),
        median_ms(lambda: [plain.fit(g) for pair in greys for g in pair], n_frames=len(few), repeats=3),
    )
    return {
        'before': {
            'distances and exponentials': bump,
            'maximum of the stack, grey levels': whole - bump - fit,
            'cut and resize': fit,
        },
        'after': after,
    }


def draw_many(args):
    "What one process of the scaling test does."
    pose, rounds = args
    cv2.setNumThreads(1)
    pose_to_heatmap(pose)
    start = time.perf_counter()
    for _ in range(rounds):
        pose_to_heatmap(pose)
    return start, time.perf_counter()


def processes(pose, rounds=60):
    "Frames per second of all processes together."
    out = {}
    for n in range(1, os.cpu_count() + 1):
        with multiprocessing.get_context('fork').Pool(n) as pool:
            spans = pool.map(draw_many, [(pose, rounds)] * n, chunksize=1)
        out[n] = n * rounds * len(pose) / (max(s[1] for s in spans) - min(s[0] for s in spans))
    return out


def lengths(pose, ns=(10, 30, 100, 300, 1000, 3000)):
    "Milliseconds per frame by the length of the sequence."
    longer = {n: np.concatenate([pose] * (n // len(pose) + 1))[:n] for n in ns}
    return {n: median_ms(pose_to_heatmap, p, n_frames=n) for n, p in longer.items()}


def memory(pose, n=30_000):
    "KiB per frame that a long sequence takes at most beyond its result (joints on their way), in a process of its own."
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(peak_of, (np.concatenate([pose] * (n // len(pose) + 1))[:n],))


def peak_of(pose):
    "What the process has needed at most after drawing, less before, less the result."
    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pose_to_heatmap(pose[:100])
    before, maps = peak(), pose_to_heatmap(pose)
    return (peak() - before - maps.nbytes / 1024) / len(pose)


def picture(r, path):
    "Where the time goes before and after, and what it depends on."
    fig, axs = plt.subplot_mosaic(
        [['before', 'after', 'after'], ['lengths', 'sigma', 'processes']],
        figsize=(10, 4.8),
        height_ratios=(0.7, 1),
        width_ratios=(1.1, 1, 0.7),
    )
    for side, name in (('before', 'plain'), ('after', 'compiled')):
        parts = {k: v for k, v in r['profile'][side].items() if v > 0.002}
        axs[side].barh(
            list(parts), [1000 * v for v in parts.values()], color='C0' if side == 'before' else 'C1', height=0.6
        )
        axs[side].invert_yaxis()
        axs[side].set(
            xlabel='microseconds per frame', title=f'{name}: {1000 * sum(parts.values()):,.0f} microseconds per frame'
        )
        axs[side].tick_params(axis='y', labelsize=8)
    axs['after'].set_title(axs['after'].get_title() + f" (arithmetic alone: {1000 * r['limit']['least_ms']:.0f})")
    axs['lengths'].semilogx(list(r['lengths']), [1000 * v for v in r['lengths'].values()], 'o-', c='C1')
    axs['lengths'].set(xlabel='frames in the sequence', ylabel='microseconds per frame', title='compiled: length')
    axs['sigma'].plot(list(r['sigma']), [1000 * v for v in r['sigma'].values()], 'o-', c='C1')
    axs['sigma'].set(xlabel='sigma, pixels', title='compiled: sigma')
    for name in ('lengths', 'sigma'):
        axs[name].set_ylim(0, 1.15 * axs[name].get_ylim()[1])
    axs['processes'].bar(list(map(str, r['processes'])), [v / 1000 for v in r['processes'].values()], 0.6, color='C1')
    axs['processes'].set(xlabel='processes at once', ylabel='1,000 frames per second', title='compiled: processes')
    save_charts(fig, path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--poses', help='tree of .pkl poses; without it walkers are simulated')
    p.add_argument('--out', default='output/benchmarks', help='where heatmap.json and heatmap.png go')
    args = p.parse_args()
    cv2.setNumThreads(1)
    cfg = HeatmapConfig()
    whole = [np.concatenate([impute_knn(p[..., :2]), p[..., 2:]], -1) for p in read_poses(args.poses, 4, 100)]
    if not whole:
        sys.exit(f'{args.poses}: found no sequence of 100 frames')
    holey = [with_holes(p, 0.03) for p in whole]
    for pose in whole:
        np.testing.assert_array_equal(pose_to_heatmap(pose), plain.heatmap(pose))
    r = {
        'machine': processor(),
        'poses': 'simulated walkers' if args.poses is None else 'recorded walkers',
        'frames': len(whole[0]),
        'no_holes': pairs(whole, pose_to_heatmap, plain.heatmap),
        'holes_3_percent': pairs(holey, pose_to_heatmap, plain.heatmap),
    }
    r |= {
        'profile': profile(whole[0], cfg),
        'sigma': {
            s: median_ms(pose_to_heatmap, whole[0], HeatmapConfig(sigma=s), n_frames=100)
            for s in (1, 2, 4, 6, 8, 12, 16)
        },
        'lengths': lengths(whole[0]),
        'KiB_per_frame_beyond_the_result': memory(whole[0]),
        'processes': processes(whole[0]),
    }
    r['limit'] = limit(np.ascontiguousarray(place_joints(whole[0], cfg)), cfg, r['no_holes']['ms'])
    save_text(json.dumps(r, indent=1) + '\n', Path(args.out) / 'heatmap.json')
    picture(r, Path(args.out) / 'heatmap.png')
    print(f"{r['machine']}; {r['poses']}, {r['frames']} frames each, one thread, CPU time")
    for name in ('no_holes', 'holes_3_percent'):
        print(
            '{:16} plain {plain_ms:.2f} ms per frame, compiled {ms:.3f}: {times_faster:.1f} times '
            'faster (median of {pairs} pairs, {range[0]:.1f} to {range[1]:.1f})'.format(
                name, **r[name]
            )
        )
    for side in ('before', 'after'):
        print(f'{side:16} ' + ', '.join(f'{k} {v:.3f}' for k, v in r['profile'][side].items()))
    print('sigma            ' + ', '.join(f'{k}: {v:.3f}' for k, v in r['sigma'].items()))
    print('frames           ' + ', '.join(f"{k}: {v:.3f} ms" for k, v in r['lengths'].items()))
    print(
        f"memory           {r['KiB_per_frame_beyond_the_result']:.1f} KiB per frame beyond the result "
        f"of 8 KiB, for 30,000 frames"
    )
    print('processes        ' + ', '.join(f'{k}: {v:,.0f} frames/s' for k, v in r['processes'].items()))
    print(
        'limit            {least_ms:.3f} ms of arithmetic at {giga_operations_per_second:.1f} '
        'billion vector-lane operations per second: {share_of_the_limit:.0%} of the limit'.format(
            **r['limit']
        )
    )


if __name__ == '__main__':
    main()
