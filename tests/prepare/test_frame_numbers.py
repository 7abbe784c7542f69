"Frame numbers on their way: from the poses to their maps, and into the linked tree."

import json
import os

import numpy as np
import pytest
from scripts import start

from skeletongait.core import save_pickle
from skeletongait.files.arrays import load_array
from skeletongait.files.frames import FRAMES, read_frames, to_runs, write_frames
from skeletongait.files.tree import read_tree
from skeletongait.ln_sil_heatmap import ln_sil_heatmap
from skeletongait.prepare import link_tree
from skeletongait.pretreatment_heatmap import pretreatment_heatmap
from skeletongait.walkers.datasets import write_walkers

LOST = {'pose': [0, 1, 5], 'silhouette': [3, 9]}  # frames that are missing in either tree
FIRST = 100  # number of a walk's first frame


def thin(root, kind):
    "Remove some frames of every file of a tree, and write the numbers of the others."
    frames = {}
    for sequence, (file,) in read_tree(root / kind).sequences.items():
        x = load_array(file)
        kept = np.delete(np.arange(len(x)), LOST[kind])
        save_pickle(x[kept], file)
        frames[sequence] = to_runs(FIRST + kept)
    write_frames(root / kind, frames)


@pytest.fixture
def walks(tmp_path):
    "Poses and silhouettes of two walkers, each without frames of its own; and the silhouettes as they were."
    write_walkers(tmp_path, n_subjects=2, n_train=1, types=('nm-01',), views=('000', '090'), n_frames=12)
    whole = {s: load_array(file) for s, (file,) in read_tree(tmp_path / 'silhouette').sequences.items()}
    for kind in LOST:
        thin(tmp_path, kind)
    return tmp_path, whole


def draw(root):
    return pretreatment_heatmap(str(root / 'pose'), str(root / 'maps'), 'Gait3D')


def report(root):
    return json.loads((root / 'linked' / 'report.json').read_text(encoding='utf-8'))


def test_from_poses_to_the_linked_tree(walks):
    "As real processes: numbers go along, rows are paired by them, and what has no partner is counted."
    root, whole = walks
    args = ['--pose_data_path=pose', '--save_root=maps', '--dataset_name=Gait3D']
    done = start('python file', 'pretreatment_heatmap', *args, cwd=root)
    assert done.returncode == 0, done.stderr
    maps = root / 'maps' / 'Gait3D_sigma_8.0_' / 'pkl'
    assert read_frames(maps) == read_frames(root / 'pose')
    warnings = [line for line in done.stdout.splitlines() if line.startswith('warning: ')]
    assert len(warnings) == 1 and 'look at the poses: few frames' in warnings[0]
    trees = [f'--heatmap_data_path={maps}', '--silhouette_data_path=silhouette', '--output_path=linked']
    done = start('python file', 'ln_sil_heatmap', *trees, cwd=root)
    assert done.returncode == 0, done.stderr
    assert '4 of them joined by frame number (8 frames of maps and 12 of silhouettes left out)' in done.stdout
    assert done.stdout.count('joined by frame number: ') == 4
    entry = dict(frames=7, maps_left_out=2, silhouettes_left_out=3)
    names = ['/'.join(s) for s in whole]
    assert report(root)['joined'] == [dict(sequence=name, **entry) for name in names]
    lost = sorted({*LOST['pose'], *LOST['silhouette']})
    for sequence, (first, second) in read_tree(root / 'linked').sequences.items():
        np.testing.assert_array_equal(load_array(second), np.delete(whole[sequence], lost, 0))
        assert len(load_array(first)) == 7


def test_a_second_run_changes_nothing(walks):
    root, _ = walks

    def stamps():
        paths = [p for name in ('maps', 'linked') for p in (root / name).rglob('*') if not p.is_dir()]
        return {p: (os.lstat(p).st_ino, os.lstat(p).st_mtime_ns) for p in paths if p.name != 'manifest.jsonl'}

    args = [str(root / name) for name in ('maps/Gait3D_sigma_8.0_/pkl', 'silhouette', 'linked')]
    assert (draw(root), ln_sil_heatmap(*args)) == (0, 0)
    before = stamps()
    assert (draw(root), ln_sil_heatmap(*args)) == (0, 0)
    after = stamps()
    assert {p for p in before if before[p] != after.get(p)} <= {root / 'maps' / 'Gait3D_sigma_8.0_' / 'report.json'}


def test_numbers_go_when_the_poses_have_none(walks):
    root, _ = walks
    assert draw(root) == 0
    (root / 'pose' / FRAMES).unlink()
    assert draw(root) == 0
    assert not list((root / 'maps').rglob(FRAMES))


def link_poses(root, **options):
    return ln_sil_heatmap(*(str(root / name) for name in ('pose', 'silhouette', 'linked')), **options)


def test_without_numbers_on_both_sides_all_is_as_before(walks, capsys):
    "Rows are compared by position, and `--trim` decides; a report of trees without numbers has no new word."
    root, _ = walks
    (root / 'pose' / FRAMES).unlink()
    assert link_poses(root) == 1
    assert 'have frame numbers in one tree only, and are paired by position' in capsys.readouterr().out
    assert report(root)['counts']['failed'] == 4 and len(report(root)['numbers_on_one_side']) == 4
    assert link_poses(root, trim='end') == 0 and len(report(root)['trimmed']) == 4
    (root / 'silhouette' / FRAMES).unlink()
    assert link_poses(root, trim='end') == 0
    assert not {'joined', 'numbers_on_one_side'} & (report(root).keys() | report(root)['counts'].keys())


def test_one_wrong_sequence_is_one_line(walks, capsys):
    "A file with other rows than its numbers say, and one of another moment; the others are linked."
    root, _ = walks
    first, second, *_ = read_tree(root / 'pose').sequences
    frames = read_frames(root / 'silhouette')
    frames[first] = [[0, 3]]
    frames[second] = [[900, 909]]
    write_frames(root / 'silhouette', frames)
    assert link_poses(root) == 1
    out = capsys.readouterr().out
    assert 'has 10 frames, and frames.json at the top of its tree has numbers of 4' in out
    assert 'have no frame in common (frames 102 to 111 and 900 to 909' in out
    assert report(root)['counts']['linked'] == 2


def test_a_damaged_file_of_numbers_ends_the_command(walks):
    root, _ = walks
    (root / 'pose' / FRAMES).write_text('{"001": [[0, 1]]}', encoding='utf-8')
    done = start('python file', 'ln_sil_heatmap', '--heatmap_data_path=pose', '--silhouette_data_path=silhouette',
                 '--output_path=linked', cwd=root)
    assert done.returncode == 2 and 'frames.json' in done.stderr and len(done.stderr.splitlines()) == 1


def test_numbers_that_seem_shifted_by_one_are_a_warning():
    "One tree counts from 0, the other from 1: every pair is one frame apart, and each side lacks one frame."
    shifted = [dict(sequence=f'{i}/t/v', frames=49, maps_left_out=1, silhouettes_left_out=1) for i in range(3)]
    (*_, line) = link_tree._left_out(dict(joined=shifted))
    assert line.startswith('warning: 3 of 3 sequences lack one frame in each tree (the first: 0/t/v)')
    whole = [o | dict(maps_left_out=0, silhouettes_left_out=0) for o in shifted]
    lines = link_tree._left_out(dict(joined=[*whole, shifted[0]]))
    assert len(lines) == 1 and 'warning' not in lines[0]
