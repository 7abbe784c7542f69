"Write nbs/names.ipynb: every public name, what it is, and the chapter that makes it."

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def chapters() -> dict[str, Path]:
    "Module -> the notebook that exports it."
    found = {}
    for path in sorted((ROOT / 'nbs').rglob('[!_.]*.ipynb')):
        module = re.search(r'#\| default_exp ([\w.]+)', path.read_text(encoding='utf-8'))
        if module and not module[1].endswith('__init__'):
            found[module[1]] = path.relative_to(ROOT / 'nbs')
    return found


def public_names(module: str) -> list[tuple[str, str]]:
    "Names in a module's `__all__` that are functions or classes, with the first sentence of what they say."
    tree = ast.parse((ROOT / 'skeletongait' / f'{module.replace(".", "/")}.py').read_text(encoding='utf-8'))
    listed = next(
        ast.literal_eval(o.value)
        for o in tree.body
        if isinstance(o, ast.Assign) and ast.unparse(o.targets[0]) == '__all__'
    )
    made = {o.name: ast.get_docstring(o) or '' for o in tree.body if isinstance(o, ast.FunctionDef | ast.ClassDef)}
    return [(name, made[name].split('\n')[0]) for name in listed if name in made]


def rows() -> list[str]:
    "One line of the table for each name, in alphabetical order."
    lines = []
    for module, chapter in chapters().items():
        for name, text in public_names(module):
            text = re.sub(r'([|<>])', r'\\\1', text)
            lines.append(f'| [`{name}`]({chapter.as_posix()}) | `skeletongait.{module}` | {text} |')
    return sorted(lines, key=str.lower)


def notebook() -> dict:
    "The page as a notebook."
    intro = [
        '# Names\n',
        '\n',
        '> Every public function and class, and the chapter that explains it\n',
        '\n',
        '| name | module | what it is |\n',
        '|---|---|---|\n',
    ]
    cell = dict(cell_type='markdown', id='names', metadata={}, source=intro + '\n'.join(rows()).splitlines(True))
    kernel = dict(display_name='python3', language='python', name='python3')
    return dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)


if __name__ == '__main__':
    text = json.dumps(notebook(), indent=1, sort_keys=True, ensure_ascii=False) + '\n'
    (ROOT / 'nbs' / 'names.ipynb').write_text(text, encoding='utf-8')
