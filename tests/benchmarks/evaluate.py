"""How long it takes to rank a gallery and to score the rankings, against a loop per probe, and how much memory a
large gallery takes.

`python tests/benchmarks/evaluate.py [--out FOLDER] [--pairs N] [--quick]` prints a table and writes
evaluate.json and evaluate.png. The size is Gait3D's: 1,000
probes, 5,369 gallery sequences, embeddings of 256 channels x 16 strips, random ones. One thread and CPU time;
one line says what all cores make of it.
Pairs of runs: a loop over some probes and the whole set in blocks take turns; the loop's time is per probe, so
it is scaled to all probes, and the ratio is the
median over the pairs. Memory is measured in a process of its own, at 100,000 gallery sequences.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import matplotlib.pyplot as plt
import numpy as np
import torch
from machine import processor
from results import save_charts, times_faster

from skeletongait.evaluation import ranking as ev
from skeletongait.files.tree import Sequence
from skeletongait.files.text import save_text

N, M, C, P = 1000, 5369, 256, 16


def seconds(f, *args, clock=time.process_time):
    "Time of one call."
    start = clock()
    f(*args)
    return clock() - start


def make_test(n, m, c=C, p=P, subjects=1000, seed=0):
    "Random embeddings of n probes, then m gallery sequences; a subject's are near each other."
    g = torch.Generator().manual_seed(seed)
    who = [i % subjects for i in range(n)] + torch.randint(0, subjects, (m,), generator=g).tolist()
    x = torch.empty(n + m, c, p)
    for part in x.split(1024):
        part.normal_(generator=g)
    own = torch.randn(subjects, c, generator=g)
    for i, part in enumerate(x.split(1024)):
        part += 0.2 * own[who[i * 1024 : i * 1024 + len(part)], :, None]
    return (
        ev.EmbeddingSet(x, [Sequence(str(s), 't', str(i % 4)) for i, s in enumerate(who)]),
        np.arange(n),
        np.arange(n, n + m),
    )


def score_one(d_m, match_m):
    "First hit, AP and INP of one probe: a stable sort, then the definitions."
    ranks = match_m[d_m.sort(stable=True).indices].nonzero()[:, 0] + 1
    if not len(ranks):
        return float('inf'), float('nan'), float('nan')
    k = torch.arange(1, len(ranks) + 1)
    return ranks[0].item(), (k / ranks.double()).mean().item(), len(ranks) / ranks[-1].item()


def plain_loop(test, probe, gallery):
    "A loop per probe as one would write it: subtract, square, sum, root, mean, sort. float32."
    x, who = test.embeddings, np.array(test.values('subject'))
    y = x[gallery]
    return [
        score_one((y - x[i]).square().sum(1).sqrt().mean(1), torch.from_numpy(who[gallery] == who[i])) for i in probe
    ]


def careful_loop(test, probe, gallery):
    "A loop per probe with all that can be done once done before: strips in one piece, squares summed. float32."
    x, who = test.embeddings, np.array(test.values('subject'))
    y = x[gallery].permute(2, 0, 1).contiguous()
    return _loop_over(x, y, y.square().sum(2), who, probe, gallery)


def _loop_over(x, y_pmc, squares_pm, who, probe, gallery):
    out = []
    for i in probe:
        x_pc1 = x[i].T[..., None].contiguous()
        square = squares_pm + x_pc1.square().sum(1) - 2 * torch.bmm(y_pmc, x_pc1)[..., 0]
        out.append(score_one(square.clamp_min(0).sqrt().mean(0), torch.from_numpy(who[gallery] == who[i])))
    return out


def score_sorted(test, probe, gallery):
    "The blocks of the library, but with a full stable sort where it counts."
    who = ev.name_codes(test, ('subject',))
    for rows, d_nm in ev.distance_blocks(test, probe, gallery):
        hit = (who[rows][:, None] == who[gallery]).gather(1, d_nm.sort(dim=1, stable=True).indices)
        rank = torch.arange(1, hit.shape[1] + 1, dtype=torch.float64)
        (hit.cumsum(1) / rank * hit).sum(1) / hit.sum(1)


def pairs(case, loop, n_loop, rounds):
    "Seconds of both for all probes, and their ratio: medians over pairs of runs."
    test, probe, gallery = case
    rows = []
    for i in range(rounds):
        some = probe[np.arange(i * n_loop, (i + 1) * n_loop) % len(probe)]
        set_up = seconds(loop, test, probe[:0], gallery)  # what a loop does once, not per probe
        theirs = set_up + max(seconds(loop, test, some, gallery) - set_up, 0) * len(probe) / n_loop
        rows.append((theirs, seconds(ev.score_probes, test, probe, gallery)))
    return {
        'loop_s': statistics.median(r[0] for r in rows),
        's': statistics.median(r[1] for r in rows),
        **times_faster(rows),
    }


def check(case):
    "Both loops give what the library gives, to float32."
    test, probe, gallery = case
    ours = torch.stack(ev.score_probes(test, probe[:10], gallery)[:3], 1)
    for loop in (plain_loop, careful_loop):
        np.testing.assert_allclose(loop(test, probe[:10], gallery), ours, rtol=2e-2)


def profile(case, rounds):
    "Seconds of each part of the library's run: medians."
    test, probe, gallery = case
    x = test.embeddings
    rows, columns = x[probe], x[gallery]
    d_nm = ev.distances(rows, columns)
    who = ev.name_codes(test, ('subject',))
    hits = ev.hit_columns(who[probe], who[gallery])
    def strips():
        return [ev._strips(o, 'euc') for o in columns.split(ev.PART)]
    ready = [ev._strips(o, 'euc') for o in (rows, columns[: ev.PART])]
    n_parts = len(gallery) / ev.PART
    def median(f):
        return statistics.median(seconds(f) for _ in range(rounds))
    product = n_parts * median(lambda: [a @ b.T for a, b in zip(*ready)])
    return {
        'strips to float64': median(strips),
        'products': product,
        'roots and means': max(median(lambda: ev.distances(rows, columns)) - median(strips) - product, 0),
        'names and hits': median(lambda: (ev.name_codes(test, ('subject',)), ev.hit_columns(who[probe], who[gallery]))),
        'ranks by counting': median(lambda: ev.score_ranks(ev.rank_hits(d_nm, hits), torch.ones(len(d_nm)))),
        'instead: a stable sort': median(lambda: d_nm.sort(dim=1, stable=True)),
        'instead: the 20 nearest': median(lambda: ev.top_k(d_nm, 20)),
    }


def limit(rounds):
    "Billions of float64 operations per second that a large matrix product makes on this core."
    a, b = (torch.randn(2048, 2048, dtype=torch.float64) for _ in range(2))
    a @ b
    return 2 * 2048**3 / statistics.median(seconds(lambda: a @ b) for _ in range(rounds)) / 1e9


def resident():
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() / 2**20


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_of(n, m):
    "MiB that a process has needed at most beyond the embeddings (Linux), their size, and CPU seconds."
    torch.set_num_threads(1)
    test, probe, gallery = make_test(n, m)
    ev.score_probes(*make_test(50, 100))
    before = resident()
    made = ev.make_embedding_set(test.embeddings, *(test.values(f) for f in Sequence._fields))
    checked, start = peak(), time.process_time()
    ev.score_probes(made, probe, gallery)
    return {
        'gallery': m,
        'probes': n,
        'embeddings_MiB': test.embeddings.nbytes / 2**20,
        'check_MiB': checked - before,
        'MiB': peak() - before,
        's': time.process_time() - start,
    }


def memory(n, m):
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(memory_of, (n, m))


def wall(case, rounds):
    "Wall-clock seconds with every core."
    torch.set_num_threads(os.cpu_count())
    try:
        return statistics.median(seconds(ev.score_probes, *case, clock=time.perf_counter) for _ in range(rounds))
    finally:
        torch.set_num_threads(1)


def picture(r, path):
    "Against the loops, where the time goes, and memory."
    fig, axs = plt.subplots(1, 3, figsize=(10, 2.9), width_ratios=(1, 1.3, 1))
    bars = {
        'plain loop': r['plain_loop']['loop_s'],
        'careful loop': r['careful_loop']['loop_s'],
        'blocks': r['plain_loop']['s'],
    }
    axs[0].bar(list(bars), list(bars.values()), 0.6, color=['C0', 'C0', 'C1'])
    axs[0].set(yscale='log', ylabel='seconds', title='1,000 probes, gallery of 5,369')
    for i, v in enumerate(bars.values()):
        axs[0].text(i, v * 1.1, f'{v:.1f}', ha='center', fontsize=8)
    axs[0].set_ylim(None, 3 * max(bars.values()))
    parts = r['profile']
    axs[1].barh(
        list(parts), list(parts.values()), color=['.6' if k.startswith('instead') else 'C1' for k in parts], height=0.6
    )
    axs[1].invert_yaxis()
    axs[1].set(xlabel='seconds', title='where the time goes')
    axs[2].plot(
        [o['gallery'] for o in r['memory']],
        [o['embeddings_MiB'] for o in r['memory']],
        'o-',
        c='C0',
        label='the embeddings themselves',
    )
    axs[2].plot(
        [o['gallery'] for o in r['memory']], [o['MiB'] for o in r['memory']], 'o-', c='C1', label='beyond them, at most'
    )
    axs[2].set(xlabel='gallery sequences', ylabel='MiB', title='memory', ylim=(0, None))
    axs[2].legend(fontsize=8)
    for ax in axs:
        ax.tick_params(labelsize=8)
    save_charts(fig, path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default='output/benchmarks', help='where evaluate.json and evaluate.png go')
    p.add_argument('--pairs', type=int, default=5, help='pairs of runs')
    p.add_argument('--quick', action='store_true', help='a tenth of everything, to see that it works')
    args = p.parse_args()
    torch.set_num_threads(1)
    scale = 10 if args.quick else 1
    case = make_test(N // scale, M // scale)
    check(case)
    r = {'machine': processor(), 'probes': N // scale, 'gallery': M // scale, 'channels': C, 'strips': P}
    r |= {loop.__name__: pairs(case, loop, 20, args.pairs) for loop in (plain_loop, careful_loop)}
    r |= {
        'profile': profile(case, args.pairs),
        'float64_giga_operations_per_second': limit(args.pairs),
        'all_cores_wall_s': wall(case, args.pairs),
    }
    r['least_s'] = 2 * r['probes'] * r['gallery'] * C * P / r['float64_giga_operations_per_second'] / 1e9
    r['memory'] = [memory(1000 // scale, m // scale) for m in (5_000, 20_000, 50_000, 100_000)]
    save_text(json.dumps(r, indent=1) + '\n', Path(args.out) / 'evaluate.json')
    picture(r, Path(args.out) / 'evaluate.png')
    print(
        f"{r['machine']}; {r['probes']:,} probes, {r['gallery']:,} gallery sequences, {C} channels x "
        f"{P} strips, one thread, CPU time"
    )
    for name in ('plain_loop', 'careful_loop'):
        print(
            '{:16} {loop_s:.1f} s (float32), in blocks {s:.2f} s (float64): {times_faster:.1f} times '
            'faster (median of {pairs} pairs, {range[0]:.1f} to {range[1]:.1f})'.format(
                name, **r[name]
            )
        )
    print('profile          ' + ', '.join(f'{k} {v:.3f} s' for k, v in r['profile'].items()))
    print(
        f"limit            {r['float64_giga_operations_per_second']:.0f} billion float64 operations "
        f"per second in a matrix product: the products alone take {r['least_s']:.2f} s"
    )
    print(f"all cores        {r['all_cores_wall_s']:.2f} s of wall-clock time")
    for o in r['memory']:
        print(
            'memory           {probes:,} probes, {gallery:,} gallery sequences: {MiB:.0f} MiB beyond '
            'the embeddings of {embeddings_MiB:,.0f} MiB, {s:.1f} s'.format(
                **o
            )
        )


if __name__ == '__main__':
    main()
