"The house keeps its order: rooms import in one direction, open fast, and offer what they say."

import ast
import importlib
import re
import subprocess
import sys

import pytest
from scripts import ROOT

PACKAGE = ROOT / 'skeletongait'
ROOMS = [
    'core',
    'distributed',
    'cli',
    'pictures',
    'files',
    'poses',
    'maps',
    'prepare',
    'estimation',
    'data',
    'nets',
    'evaluation',
    'runs',
    'viewers',
    'walkers',
]  # a room imports only itself and those before it
COMMANDS = [
    'video', 'import_poses', 'import_silhouettes', 'check', 'pretreatment_heatmap', 'ln_sil_heatmap', 'partition',
    'pack',
    'main', 'embed', 'identify', 'demo',
]


def module_name(path):
    return '.'.join(path.relative_to(PACKAGE).with_suffix('').parts).removesuffix('.__init__')


MODULES = {
    module_name(path): path
    for path in PACKAGE.rglob('*.py')
    if path.stem != '_modidx' and path != PACKAGE / '__init__.py'
}


def imported(path):
    "Modules of the package that a module imports, anywhere in it."
    package = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = [*package[: len(package) - node.level + 1], *(node.module or '').split('.')]
        here = '.'.join(filter(None, base))
        for alias in node.names:
            yield f'{here}.{alias.name}'.strip('.') if f'{here}.{alias.name}'.strip('.') in MODULES else here


def room(module):
    return module.split('.')[0]


def test_every_module_lies_in_a_room():
    assert {room(module) for module in MODULES} == {*ROOMS, *COMMANDS}


@pytest.mark.parametrize('module', MODULES)
def test_imports_go_one_way(module):
    "No room imports a command, and none imports a room that comes after it."
    found = {room(other) for other in imported(MODULES[module])} - {''}
    allowed = ROOMS if module in COMMANDS else ROOMS[: ROOMS.index(room(module)) + 1]
    assert found <= {*allowed}


def test_no_module_imports_itself_in_a_circle():
    graph, done = {module: {*imported(path)} & {*MODULES} - {module} for module, path in MODULES.items()}, set()
    while left := [module for module in graph if module not in done]:
        free = [module for module in left if graph[module] <= done]
        assert free, f'in a circle: {left}'
        done.update(free)


@pytest.mark.parametrize('name', [path.parent.name for path in PACKAGE.glob('*/__init__.py')])
def test_a_room_offers_what_it_says(name):
    found = importlib.import_module(f'skeletongait.{name}')
    assert found.__all__ and [*filter(lambda o: not hasattr(found, o), found.__all__)] == []
    with pytest.raises(AttributeError, match=f"'skeletongait.{name}' has no attribute 'nothing'"):
        found.nothing


OPENS_WITHOUT = {
    'skeletongait': {'torch', 'numpy', 'cv2', 'matplotlib'},
    'skeletongait.maps': {'torch', 'numba', 'sklearn'},
    'skeletongait.viewers': {'torch', 'numpy', 'ipywidgets'},
    'skeletongait.nets': {'torch'},
    'skeletongait.runs': {'torch'},
    'skeletongait.poses.joints': {'torch', 'cv2'},
    'skeletongait.viewers.live': {'torch', 'matplotlib', 'ipywidgets'},
    'skeletongait.poses.formats': {'torch', 'cv2'},
    'skeletongait.poses.tracks': {'torch', 'cv2'},
    'skeletongait.poses.quality': {'torch', 'cv2'},
    'skeletongait.maps.quality': {'torch', 'cv2'},
    'skeletongait.prepare.check_tree': {'torch', 'cv2'},
    'skeletongait.viewers.monitor': {'torch'},
    'skeletongait.runs.records': {'torch'},
}


@pytest.mark.parametrize('name', OPENS_WITHOUT)
def test_what_is_not_needed_is_not_imported(name):
    code = f'import sys, {name}; print(*sys.modules)'
    loaded = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert not OPENS_WITHOUT[name] & {*loaded}


def test_notebooks_and_tests_have_the_same_rooms():
    rooms = {name for name in ROOMS if (PACKAGE / name).is_dir()}

    def folders(top):
        return {path.name for path in (ROOT / top).iterdir() if path.is_dir()}

    assert rooms <= folders('nbs') and rooms - folders('tests') == set()
    for path in (ROOT / 'nbs').rglob('[!_.]*.ipynb'):
        text, parent = path.read_text(encoding='utf-8'), path.parent.name
        if '#| default_exp ' in text and parent in rooms:
            assert f'#| default_exp {parent}.' in text, path


def test_help_explains_parameters():
    "For what a room offers, from Python's own `help`."
    code = 'from skeletongait.maps import pose_to_heatmap; from skeletongait.viewers import HeatmapStudio\n'
    code += 'help(pose_to_heatmap); print(HeatmapStudio.__doc__)'
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert shown.count('Parameters:') == 2 and 'cfg: Settings' in shown and 'fps: Frames per second' in shown


def test_the_map_names_every_room_module_and_command():
    "CONTRIBUTING.md, one row for each room, in the order of imports."
    rows = re.findall(r'^\| (`.*?) \| (.*) \|$', (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8'), re.MULTILINE)
    assert [names.strip('`') for names, _ in rows[:-1]] == ROOMS
    for name, text in rows[:-1]:
        inside = {module.split('.')[1] for module in MODULES if module.startswith(f'{name}.')}
        assert inside <= {*re.findall('`([a-z0-9_]+)`', text)}, name
    assert {*re.findall('`([a-z_]+)`', rows[-1][0])} == {*COMMANDS}
