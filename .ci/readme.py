"""Write README.md from nbs/index.ipynb: text as it is, code with its printed output. `nbdev_readme` does the same
where quarto is installed."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def printed(output: dict) -> str:
    "The text of one saved output."
    text = output.get('text') or output.get('data', {}).get('text/plain', '')
    return ''.join(text).rstrip()


def markdown(cell: dict) -> str:
    "One cell as Markdown; hidden cells and directives leave nothing."
    source = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown':
        return re.sub(r'\]\(([\w./]+\.(?:ipynb|png|md))\)', lambda m: f'](nbs/{m[1]})', source).replace(
            '](nbs/../', ']('
        )
    if cell['cell_type'] != 'code' or re.search(r'^#\|\s*hide', source, re.M):
        return ''
    code = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip()
    results = [printed(o) for o in cell['outputs']]
    return '\n\n'.join([f'```python\n{code}\n```'] + [f'```\n{r}\n```' for r in results if r])


def readme() -> str:
    "The whole README."
    cells = json.loads((ROOT / 'nbs' / 'index.ipynb').read_text(encoding='utf-8'))['cells']
    note = '<!-- Made from nbs/index.ipynb by `make notebooks`; edit that notebook. -->'
    return '\n\n'.join([note] + [t for t in map(markdown, cells) if t]) + '\n'


if __name__ == '__main__':
    (ROOT / 'README.md').write_text(readme(), encoding='utf-8')
