"How the benchmarks' charts look, and how they are written."

from skeletongait.core import atomic_write


def save_charts(fig, path):
    "Write a figure of charts as PNG, atomically: small titles, no frame above and at the right."
    for ax in fig.axes:
        ax.title.set_fontsize(9)
        ax.spines[['top', 'right']].set_visible(False)
    fig.tight_layout()
    with atomic_write(path) as tmp:
        fig.savefig(tmp, dpi=90, format='png')
