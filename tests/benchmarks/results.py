"How benchmarks sum up pairs of runs, and how their charts look and are written."

import statistics

from skeletongait.core import atomic_write


def times_faster(pairs):
    "How many times faster the second run of each pair is: the median, the range and the number of pairs."
    ratios = [before / after for before, after in pairs]
    return {
        'times_faster': statistics.median(ratios),
        'range': [min(ratios), max(ratios)],
        'pairs': len(ratios),
    }


def save_charts(fig, path):
    "Write a figure of charts as PNG, atomically: small titles, no frame above and at the right."
    for ax in fig.axes:
        ax.title.set_fontsize(9)
        ax.spines[['top', 'right']].set_visible(False)
    fig.tight_layout()
    with atomic_write(path) as tmp:
        fig.savefig(tmp, dpi=90, format='png')
