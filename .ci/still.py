"""Take live widgets out of the saved notebooks: without its kernel a widget shows nothing, and hides the picture
that was saved beside it."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VIEW = 'application/vnd.jupyter.widget-view+json'


def still(book: dict) -> dict:
    "The notebook without live widgets."
    book['metadata'].pop('widgets', None)
    for cell in book['cells']:
        for output in cell.get('outputs', []):
            output.get('data', {}).pop(VIEW, None)
        if 'outputs' in cell:
            cell['outputs'] = [o for o in cell['outputs'] if o.get('data') != {}]
    return book


def still_file(path: Path) -> None:
    "The same for a file, which is written only if that changes it."
    before = path.read_text(encoding='utf-8')
    after = json.dumps(still(json.loads(before)), indent=1, sort_keys=True, ensure_ascii=False) + '\n'
    if after != before:
        path.write_text(after, encoding='utf-8')


if __name__ == '__main__':
    for path in sorted((ROOT / 'nbs').rglob('[!_.]*.ipynb')):
        still_file(path)
