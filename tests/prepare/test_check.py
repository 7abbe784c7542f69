"""Checking a tree: every file is looked at, whatever it is; the table, the page and the JSON say the same.

What is wrong with one sequence is in tests/poses/test_quality.py."""

import html.parser
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scripts import ROOT

from skeletongait import check as command
from skeletongait.cli import run_script
from skeletongait.core import one_line, save_pickle
from skeletongait.files.arrays import Limits, load_array
from skeletongait.files.tree import Sequence, read_tree
from skeletongait.import_poses import import_poses
from skeletongait.prepare import check_tree
from skeletongait.prepare.check_page import html_page
from skeletongait.prepare.check_tree import Tally, check_file, check_sequence, look_at, table
from skeletongait.pretreatment_heatmap import pretreatment_heatmap
from skeletongait.walkers.datasets import DATA_SET_NAMES, write_like, write_linked, write_walkers
from skeletongait.walkers.spoilt import SPOILERS, spoil


def check(*words, cwd, **env):
    command = [sys.executable, '-m', 'skeletongait.check', *words]
    env = os.environ | {'PYTHONPATH': str(ROOT)} | env
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=env, timeout=300)


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    "Three people, twice each in two views: poses, silhouettes, and both as maps linked."
    root = tmp_path_factory.mktemp('good')
    write_linked(root, n_subjects=3, n_train=2, types=('nm-01', 'nm-02'), views=('000', '090'))
    return root


def tallied(tree, processes=1):
    tally = Tally()
    for looked in look_at(tree, Limits(), processes):
        tally.add(looked)
    return tally


def rows_of(root):
    return {r.kind: r for r in tallied(read_tree(root, ('.pkl', '.npy', '.npz'))).rows()}


@pytest.mark.parametrize('part', ['pose', 'silhouette', 'linked'])
def test_good_trees(good, part):
    assert rows_of(good / part) == {}


@pytest.mark.parametrize('name', DATA_SET_NAMES)
def test_published_layouts(name, tmp_path):
    "With their partition and their protocol, as a user would check them."
    write_like(tmp_path, name, n_train=2, n_test=2)
    protocol = {'GREW': 'GREW-submission'}.get(name, name)
    for part in ('pose', 'silhouette'):
        out = tmp_path / 'report.json'
        names = dict(partition=str(tmp_path / f'{name}.json'), protocol=protocol)
        assert command.check(str(tmp_path / part), json=str(out), **names) == 0
        assert json.loads(out.read_text())['findings'] == []


def test_the_cases_of_a_tree(good, tmp_path):
    "A spoilt walk each; one file under two names; people with one walk; files of different lengths."
    write_walkers(tmp_path, n_subjects=4, n_train=2, types=('nm-01', 'nm-02'), views=('000', '020'))
    files = [f for (f,) in read_tree(tmp_path / 'pose').sequences.values()]
    for kind, file in zip(SPOILERS, files):
        save_pickle(spoil(load_array(file), kind), file)
    rows = rows_of(tmp_path / 'pose')
    assert rows.keys() == {*SPOILERS}
    for kind, file in zip(SPOILERS, files):
        assert [c.name for c in rows[kind].cases] == ['/'.join(file.relative_to(tmp_path / 'pose').parts[:-1])]
        assert rows[kind].n == 1 and rows[kind].of == 16

    root = tmp_path / 'linked'
    pairs = [*read_tree(good / 'linked').sequences.values()]
    for name, (maps, silhouettes), cut in (('a', pairs[0], 0), ('b', pairs[0], 0), ('c', pairs[1], 2)):
        save_pickle(load_array(maps), root / name / 't' / 'v' / '0_heatmap.pkl')
        save_pickle(load_array(silhouettes)[cut:], root / name / 't' / 'v' / '1_sil.pkl')
    rows = rows_of(root)
    assert rows.keys() == {'same bytes', 'one sequence', 'lengths differ'}
    assert rows['same bytes'].n == 2 and rows['same bytes'].cases[0].name == 'a, b' and rows['same bytes'].error
    assert (rows['one sequence'].n, rows['one sequence'].error) == (3, False)
    assert rows['lengths differ'].cases[0].note == '30 of maps, 28 of silhouettes'


def test_one_of_a_hundred_is_a_warning():
    kind = check_tree.KINDS['upside down']
    cases = [check_tree.Case(f'{i}', 1.0, True, '') for i in range(3)]
    assert [check_tree.make_row(kind, 'upside down', cases[:n], 200).error for n in (1, 2, 3)] == [False, False, True]


NAMES = ['<script>alert(1)', 'line\nbreak', '\x1b[31mred', 'quote"&amp;', '张三', 'b\udcffyte', 'a' * 200]


def hostile(root):
    "Files that are no data, under names that are no words."
    contents = [
        b'', b'cos\nsystem\n(S"true"\ntR.', b'\x80\x04' + b']' * 1000, b'PK\x03\x04', b'\x93NUMPY', os.urandom(999),
        b'(' * 5000]  # fmt: skip
    for i, (name, content) in enumerate(zip(NAMES, contents)):
        folder = root / name / 't' / 'v'
        folder.mkdir(parents=True)
        (folder / ('x.npy' if i > 3 else 'x.pkl')).write_bytes(content)
    odd = {
        'dict': {'keypoint': 1}, 'list': [1, 2], 'text': 'x', 'scalar': np.float64(3), 'empty': np.zeros((0, 17, 3)),
        'complex': np.zeros((20, 17, 3), complex), 'nan': np.full((20, 64, 64), np.nan),
        'huge': np.full((20, 17, 3), 1e308),
        'objects': np.array([['a'] * 17]), 'flat': np.zeros((20, 53)), 'thin': np.zeros((20, 4, 1)),
        'tall': np.ones((3, 2, 1, 9), 'u1')}  # fmt: skip
    for name, o in odd.items():
        save_pickle(o, root / name / 't' / 'v' / 'x.pkl')
    (root / 'gone' / 't' / 'v').mkdir(parents=True)
    (root / 'gone' / 't' / 'v' / 'x.pkl').symlink_to(root / 'nowhere.pkl')
    os.mkfifo(root / 'gone' / 't' / 'v' / 'fifo.npy')
    (root / 'gone' / 't' / 'v' / 'folder.pkl').mkdir()
    return len(contents) + len(odd) + 1


def test_hostile_files_and_names(tmp_path):
    "One line each; nothing runs, nothing hangs, nothing escapes into the page or onto the terminal."
    n = hostile(tmp_path / 'tree')
    done = check('tree', '--html=r.html', '--json=r.json', cwd=tmp_path)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert done.stdout.splitlines()[-1] == '-> r.html, r.json'
    report = json.loads((tmp_path / 'r.json').read_text())
    assert report['sequences'] == n and not report['sensible']
    found = {o['kind']: o for o in report['findings']}
    assert {one_line(name) for name in NAMES} <= {c['name'].split('/')[0] for c in found['unreadable']['cases']}
    page = (tmp_path / 'r.html').read_text()
    assert '<script' not in page and '\x1b' not in page

    class Tags(html.parser.HTMLParser):
        seen = set()

        def handle_starttag(self, tag, attrs):
            self.seen.add(tag)
            assert all(not value.startswith(('http', 'file')) for name, value in attrs if name in ('src', 'href'))

    Tags().feed(page)
    known = 'html head meta title style body h1 h2 p b br code small section img details summary ol li'
    assert Tags.seen <= {*known.split()}


def test_report_page_and_table_agree(tmp_path):
    write_walkers(tmp_path, n_subjects=2, n_train=1, types=('nm-01', 'nm-02'), views=('090',))
    for (file,) in read_tree(tmp_path / 'pose').sequences.values():
        save_pickle(spoil(load_array(file), 'upside down'), file)
    (tmp_path / 'pose' / 'stray.pkl').write_bytes(b'')
    done = check('pose', '--json', 'r.json', '--html', 'r.html', '--partition=partition.json', cwd=tmp_path)
    assert done.returncode == 1
    assert 'error   upside down: 4 of 4 sequences' in done.stdout and 'warning wrong depth: 1 of 5 files' in done.stdout
    summary = '4 sequences, 4 files, 120 frames (4 of poses): 1 error, 1 warning'
    assert done.stdout.splitlines()[-2:] == [summary, '-> r.html, r.json']
    report = json.loads((tmp_path / 'r.json').read_text())
    assert [(o['kind'], o['n'], o['of'], len(o['cases'])) for o in report['findings']] == [
        ('upside down', 4, 4, 4),
        ('wrong depth', 1, 5, 1),
    ]
    page = (tmp_path / 'r.html').read_text()
    assert page.count('<section') == 2 and page.count('data:image/png;base64,') == 1


def test_exit_codes(good, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('RANK', raising=False)
    assert run_script(command.check, [str(good / 'pose')]) == 0
    for words, says in (
        (['nowhere'], 'nowhere: no such folder'),
        ([str(good)], 'at another depth'),
        ([str(good / 'pose'), f'--html={good}'], 'a folder; expected a file'),
        ([str(good / 'pose'), '--partition=nobody'], 'found no such file'),
        ([str(good / 'pose'), '--protocol=CASIA-C'], 'did you mean'),
    ):
        assert run_script(command.check, words) == 2
        assert says in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_several_processes_find_the_same(good, monkeypatch):
    tree = read_tree(good / 'pose')
    alone = [*look_at(tree, Limits(), 2)]
    monkeypatch.setattr(check_tree, '_WORTH_IT', 1)
    monkeypatch.setattr(check_tree, '_PIECE', 5)
    assert [*look_at(tree, Limits(), 2)] == alone == [*map(check_sequence, tree.sequences.items())]


def test_other_files_beside_the_poses_are_a_warning(good, tmp_path):
    "As in SUSTech1K, whose folders hold point clouds too."
    (pose,) = read_tree(good / 'pose').sequences[Sequence('000', 'nm-01', '090')]
    save_pickle(np.zeros((30, 500, 3)), tmp_path / 'a' / 't' / 'v' / '00-pcd.pkl')
    save_pickle(load_array(pose), tmp_path / 'a' / 't' / 'v' / '03-pose.pkl')
    rows = rows_of(tmp_path)
    assert rows['unknown array'].error is False and rows.keys() == {'unknown array', 'one sequence'}


def test_limits(good):
    (pose,) = read_tree(good / 'pose').sequences[Sequence('000', 'nm-01', '090')]
    (found,) = check_file(pose, Limits(frames=10)).findings
    assert found.kind == 'unreadable' and 'max_frames' in found.detail


def test_a_picture_that_cannot_be_drawn_says_why(good, tmp_path):
    "The worst example was removed between the check and the page."
    (pose,) = read_tree(good / 'pose').sequences[Sequence('000', 'nm-01', '090')]
    file = tmp_path / 'a' / 't' / 'v' / 'x.pkl'
    save_pickle(spoil(load_array(pose), 'upside down'), file)
    rows = tallied(read_tree(tmp_path)).rows()
    assert html_page('t', 's', rows).count('<img') == 1
    file.unlink()
    assert 'No picture: ' in html_page('t', 's', rows)
    assert 'Nothing is wrong' in html_page('t', 's', []) and table([]) == ''


def advised_command(text):
    return shlex.split(re.search('`(python -m skeletongait.import_poses [^`]+)`', text)[1])[3:]


@pytest.mark.parametrize('kind', [kind for kind, o in check_tree.KINDS.items() if 'import_poses <tree>' in o.todo])
def test_the_advised_command_mends_the_tree(kind, tmp_path, monkeypatch, capsys):
    "It is run as it is printed, in a tree whose name needs quotes."
    monkeypatch.chdir(tmp_path)
    write_walkers('w', n_subjects=2, n_train=1, types=('nm-01', 'nm-02'), views=('090',))
    for sequence, (file,) in read_tree('w/pose').sequences.items():
        save_pickle(spoil(load_array(file), kind), sequence.path('my poses') / 'p.pkl')
    command.check('my poses')
    assert run_script(import_poses, advised_command(capsys.readouterr().out)) == 0
    capsys.readouterr()
    assert command.check('my poses-mended') == 0 and 'nothing found' in capsys.readouterr().out


def test_several_faults_are_repaired_from_the_top(tmp_path, monkeypatch, capsys):
    "Joints of Human3.6M, y before x, scores in percent: the first command of each table, until nothing is left."
    monkeypatch.chdir(tmp_path)
    write_walkers('w', n_subjects=2, n_train=1, types=('nm-01', 'nm-02'), views=('090',))
    for sequence, (file,) in read_tree('w/pose').sequences.items():
        pose = load_array(file)
        for kind in ('H36M order', 'x and y swapped', 'score out of range'):
            pose = spoil(pose, kind)
        save_pickle(pose, sequence.path('t') / 'p.pkl')
    for tree, first in (('t', 'x and y swapped'), ('t-mended', 'H36M order')):
        assert command.check(tree) == 1
        said = capsys.readouterr().out
        lines = said.splitlines()
        assert lines[0].startswith('repair from the top') == (tree == 't')
        assert next(line for line in lines if line.startswith('error')).startswith(f'error   {first}: 4 of 4')
        assert run_script(import_poses, advised_command(said)) == 0
        capsys.readouterr()
    assert command.check('t-mended-mended') == 0 and 'nothing found' in capsys.readouterr().out


def test_good_ones_among_bad_ones_are_imported_to_the_same_tree(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_walkers('w', n_subjects=2, n_train=1, types=('nm-01', 'nm-02'), views=('090',))
    for sequence, (file,) in read_tree('w/pose').sequences.items():
        pose, bad = load_array(file), sequence.subject == '000'
        save_pickle(spoil(pose, 'H36M order') if bad else pose, sequence.path('t') / 'p.pkl')
    assert command.check('t') == 1
    said = capsys.readouterr().out
    assert 'only 2 of 4 are: first move the others to another folder' in said
    (tmp_path / 'others').mkdir()
    (tmp_path / 't' / '001').rename(tmp_path / 'others' / '001')
    assert run_script(import_poses, advised_command(said)) == 0
    assert run_script(import_poses, ['others', '--save_root=t-mended']) == 0
    capsys.readouterr()
    assert command.check('t-mended') == 0
    assert capsys.readouterr().out.startswith('4 sequences')


MENDED = [('joint never found', 'leave_out_unseen: True'), ('score out of range', 'use_conf: False')]


@pytest.mark.parametrize('kind, setting', MENDED)
def test_what_the_settings_make_harmless_is_a_warning(kind, setting, tmp_path, capsys):
    "The check names the very setting; drawing with it says nothing any more, and drawing without it does."
    write_walkers(tmp_path, n_subjects=2, n_train=1, types=('nm-01', 'nm-02'), views=('090',))
    for (file,) in read_tree(tmp_path / 'pose').sequences.values():
        save_pickle(spoil(load_array(file), kind), file)
    poses, cfg = str(tmp_path / 'pose'), tmp_path / 'mine.yaml'
    cfg.write_text(f'padkeypoints_args: {{{setting}}}')
    assert command.check(poses) == 1 and f'padkeypoints_args.{setting}' in capsys.readouterr().out
    assert command.check(poses, heatmap_cfg_path=str(cfg)) == 0 and f'warning {kind}: 4 of 4' in capsys.readouterr().out
    for words, want in (((), {kind: 4}), ((f'--heatmap_cfg_path={cfg}', '--ext_name=mended'), {})):
        command_line = [f'--pose_data_path={poses}', f'--save_root={tmp_path}', '--dataset_name=mine', *words]
        assert run_script(pretreatment_heatmap, command_line) == 0
        said = capsys.readouterr().out
        name = 'mine_sigma_8.0_' + ('mended' if words else '')
        assert json.loads((tmp_path / name / 'report.json').read_text())['findings'] == want
        line = f'warning: look at the poses: {kind} (4 files); python -m skeletongait.check {poses} shows where'
        assert (line in said) == bool(want)
        assert run_script(pretreatment_heatmap, command_line) == 0  # a second run draws nothing, and still says it
        assert (line in capsys.readouterr().out) == bool(want)


@pytest.mark.slow
def test_a_stop_leaves_nothing(tmp_path):
    "Ctrl-C in the middle of several processes: one line, exit code 130, no report, no process that goes on."
    write_walkers(tmp_path, n_subjects=1, n_train=1, types=('nm-01',), views=('090',), n_frames=300)
    (source,) = read_tree(tmp_path / 'pose').sequences[Sequence('000', 'nm-01', '090')]
    for i in range(6000):
        folder = tmp_path / 'many' / f'{i:05d}' / 't' / 'v'
        folder.mkdir(parents=True)
        os.link(source, folder / 'x.pkl')
    command = [sys.executable, '-m', 'skeletongait.check', 'many', '--json=r.json']
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True, **pipes)
    while not re.search('[1-9][0-9]*/6000', process.stderr.read(80)):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and 'stopped by SIGINT' in errors and 'Traceback' not in errors
    assert not (tmp_path / 'r.json').exists()  # and no process holds the pipes: `communicate` has returned
