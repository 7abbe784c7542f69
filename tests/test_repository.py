"""The repository is in order: notebooks and library in step, notebooks clean, README made from the index, nothing
leaks from the machine it was written on."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / 'nbs').rglob('[!_.]*.ipynb'))
BIN = Path(sys.executable).parent


@pytest.fixture(scope='module')
def remade(tmp_path_factory):
    "A copy of the repository, exported and cleaned anew."
    top = tmp_path_factory.mktemp('copy') / 'repository'
    shutil.copytree(
        ROOT,
        top,
        symlinks=True,
        ignore=shutil.ignore_patterns(
            '.git', '.venv', 'output', '__pycache__', '.ipynb_checkpoints', '*.egg-info', 'golden'
        ),
    )
    steps = [
        [BIN / 'nbdev_export'],
        [sys.executable, '.ci/names.py'],
        [BIN / 'nbdev_clean'],
        [sys.executable, '.ci/still.py'],
        [sys.executable, '.ci/readme.py'],
    ]
    for command in steps:
        subprocess.run(command, cwd=top, check=True, capture_output=True, timeout=120)
    return top


def test_library_is_the_notebooks_export(remade):
    made, here = (
        {p.relative_to(top).as_posix(): p.read_text() for p in (top / 'skeletongait').rglob('*.py')}
        for top in (remade, ROOT)
    )
    assert made.keys() == here.keys()
    assert [k for k in made if made[k] != here[k]] == [], 'run `make notebooks`'


def test_notebooks_are_clean(remade):
    assert [p.name for p in NOTEBOOKS if (remade / p.relative_to(ROOT)).read_text() != p.read_text()] == [], (
        'run `make notebooks`'
    )


def test_readme_is_made_from_the_index(remade):
    assert (remade / 'README.md').read_text() == (ROOT / 'README.md').read_text(), 'run `make notebooks`'


def test_quarto_settings_are_one_file():
    link = ROOT / 'nbs' / '_quarto.yml'
    assert link.is_symlink() and link.readlink() == Path('../_quarto.yml')


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / 'nbs').with_suffix('').as_posix())
def test_saved_outputs(path):
    "Every notebook is run, small, without errors or warnings, and names no folder of the machine that ran it."
    assert path.stat().st_size < 1_000_000
    cells = [c for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code']
    text = json.dumps(
        [
            [
                {k: v for k, v in o.items() if k != 'data'}
                | {'data': {k: v for k, v in o.get('data', {}).items() if not k.startswith('image/')}}
                for o in c['outputs']
            ]
            for c in cells
        ]
    )
    assert not [o for c in cells for o in c['outputs'] if o['output_type'] == 'error']
    assert not re.findall(r'(?:/(?:home|root|tmp|Users|work|var)/[^"\\ ]*)|\w*Warning:', text)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / 'nbs').with_suffix('').as_posix())
def test_no_live_widget_is_saved(path):
    "Readers without a kernel see the picture; a live widget would hide it."
    book = json.loads(path.read_text())
    assert 'widgets' not in book['metadata']
    assert not [
        o
        for c in book['cells']
        for o in c.get('outputs', [])
        if 'application/vnd.jupyter.widget-view+json' in o.get('data', {})
    ], 'run `make notebooks`'


NOTHING_TO_SEE = {'00_core', '02_cli', 'files/03_text'}  # text only
CHAPTERS = {
    p.relative_to(ROOT / 'nbs').with_suffix('').as_posix(): p
    for p in NOTEBOOKS
    if '#| export' in p.read_text(encoding='utf-8')
}


@pytest.mark.parametrize('name', sorted(CHAPTERS.keys() - NOTHING_TO_SEE))
def test_chapter_shows_a_picture(name):
    path = CHAPTERS[name]
    outputs = [o for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code' for o in c['outputs']]
    assert any('image/png' in o.get('data', {}) for o in outputs)


def test_packages_agree():
    "`pip check` finds no conflict."
    done = subprocess.run([sys.executable, '-m', 'pip', 'check'], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r'\]\((?!https?:)([^)#]+)', (ROOT / 'README.md').read_text(encoding='utf-8'))
    assert len(links) > 30 and [link for link in links if not (ROOT / link).exists()] == []


def test_links_between_chapters_lead_somewhere():
    lost = []
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            links = (
                re.findall(r'\]\((?!https?:|#)([^)#\s]+)', ''.join(cell['source']))
                if cell['cell_type'] == 'markdown'
                else []
            )
            lost += [f'{path.name}: {link}' for link in links if not (path.parent / link).exists()]
    assert lost == []
