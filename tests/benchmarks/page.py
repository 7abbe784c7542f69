"""Milliseconds in the page from a key to the next picture, decoded: the message of the slider, the answer of the
kernel, the image.

`python tests/benchmarks/page.py` prints a line for each viewer and slider, of 30 presses.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from browser import laboratory
from pages import OVERLAY, PLAYER, STUDIO

DELAY = '''(image) => ({done: new Promise(done => {
    let pressed
    document.addEventListener('keydown', () => { pressed = performance.now() }, {once: true, capture: true})
    new MutationObserver(async (_, watch) => {
        watch.disconnect()
        await image.decode()
        done(performance.now() - pressed)
    }).observe(image, {attributeFilter: ['src']})
})})'''
CASES = (
    ('SequencePlayer', PLAYER, 'limb map', 'frame'),
    ('HeatmapStudio', STUDIO, 'limb map', 'frame'),
    ('HeatmapStudio', STUDIO, 'limb map', 'sigma, pixels of 128'),
    ('OverlayViewer', OVERLAY, 'overlay', 'frame'),
)


def delay(book, image, slider):
    "From pressing the right arrow on a slider to the next picture."
    slider.focus()
    waiting = image.evaluate_handle(DELAY)
    book.page.keyboard.press('ArrowRight')
    ms = waiting.evaluate('waiting => waiting.done')
    book.settle()
    return ms


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder, laboratory(Path(folder)) as lab:
        for name, cells, title, slider in CASES:
            with lab.notebook(cells) as book:
                book.image(title).wait_for()
                ms = [delay(book, book.image(title), book.slider(slider)) for _ in range(30)]
            print(f'{name}, {slider}: median {median(ms):.0f} ms, {min(ms):.0f} to {max(ms):.0f}')
