"Frame numbers on their way: from the poses to their maps, and into the linked tree."

import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import start

from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.files.arrays import load_array
from skeletongait.files.frames import FRAMES, read_frames, to_runs, write_frames
from skeletongait.files.tree import Sequence, read_tree
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


def test_without_numbers_all_is_as_before(walks):
    "Rows are compared by position, and `--trim` decides; a report of trees without numbers has no new word."
    root, _ = walks
    for kind in LOST:
        (root / kind / FRAMES).unlink()
    assert link_poses(root) == 1
    assert report(root)['counts']['failed'] == 4
    assert link_poses(root, trim='end') == 0 and len(report(root)['trimmed']) == 4
    new = {'joined', 'numbers_on_one_side', 'warnings'}
    assert not new & (report(root).keys() | report(root)['counts'].keys())


def whole_silhouettes(root, whole):
    "Silhouettes of every frame, without numbers."
    (root / 'silhouette' / FRAMES).unlink()
    for sequence, (file,) in read_tree(root / 'silhouette').sequences.items():
        save_pickle(whole[sequence], file)


def poses_are(root, numbers):
    "Say which frames the poses are."
    runs = to_runs(numbers)
    write_frames(root / 'pose', {sequence: runs for sequence in read_tree(root / 'pose').sequences})


@pytest.mark.parametrize('trim', ['no', 'end', 'start'])
def test_rows_without_numbers_are_frames_from_0(walks, capsys, trim):
    "Poses of frames 3 to 11, silhouettes of all 12 without numbers: no option may pair others."
    root, whole = walks
    whole_silhouettes(root, whole)
    poses_are(root, range(3, 12))
    assert link_poses(root, trim=trim) == 0
    out = capsys.readouterr().out
    line = '000/nm-01/000: 9 frames; without a partner: 0 of maps, 3 of silhouettes (the silhouettes have no numbers'
    assert line in out and 'warning: 4 sequences have frame numbers in one tree only, and the rows of' in out
    found = report(root)
    assert found['trimmed'] == [] and len(found['numbers_on_one_side']) == 4 and 'warnings' not in found
    entry = dict(sequence='000/nm-01/000', frames=9, maps_left_out=0, silhouettes_left_out=3)
    assert found['joined'][0] == entry | dict(counted_from_0='silhouettes')
    for sequence, (first, second) in read_tree(root / 'linked').sequences.items():
        np.testing.assert_array_equal(load_array(second), whole[sequence][3:])
        assert first.is_symlink()


def test_frames_beyond_the_rows_are_refused(walks, capsys):
    "Poses of frames 100 to 108, 12 silhouettes without numbers: `--trim` neither helps nor is advised."
    root, whole = walks
    whole_silhouettes(root, whole)
    poses_are(root, range(100, 109))
    for options in (dict(), dict(trim='end', trim_at_most=50), dict(trim='start')):
        assert link_poses(root, **options) == 1
        out = capsys.readouterr().out
        assert 'the 9 poses are frames 100 to 108' in out and 'the 12 silhouettes have no frame numbers' in out
        assert 'import the silhouettes with their frame numbers' in out and '--trim' not in out
        assert not report(root)['linked'] and not report(root)['trimmed']


def test_as_many_rows_are_paired_by_position(walks, capsys):
    root, whole = walks
    whole_silhouettes(root, {sequence: x[:9] for sequence, x in whole.items()})
    poses_are(root, range(100, 109))
    assert link_poses(root) == 0
    out = capsys.readouterr().out
    assert 'warning: 4 sequences have frame numbers in one tree only, and are paired by position' in out
    assert 'without a partner' not in out and report(root)['joined'] == []


def pair_of(folder, counts):
    "Maps and silhouettes whose rows hold their own index."
    shapes = (2, 8, 8), (64, 44)
    files = folder / 'm.pkl', folder / 's.pkl'
    for file, n, shape in zip(files, counts, shapes):
        rows = np.arange(n, dtype=np.uint8).reshape(n, *[1] * len(shape))
        save_pickle(np.broadcast_to(rows, (n, *shape)).copy(), file)
    return files


def rows_of(stream):
    x = load_array(stream.source) if stream.cut is None else stream.cut
    return x.reshape(len(x), -1)[:, 0].tolist()


@settings(max_examples=40)
@given(st.sets(st.integers(0, 30), min_size=1), st.integers(1, 32), st.booleans(), st.sampled_from(link_tree.TRIMS))
def test_numbers_on_one_side(tmp_path_factory, numbers, n, maps_are_bare, where):
    "Any numbers beside any count of rows: the rows of those frames, by position if equally many, or refused."
    folder = tmp_path_factory.mktemp('pair')
    numbers = sorted(numbers)
    counts, runs = (len(numbers), n), (to_runs(numbers), None)
    if maps_are_bare:
        counts, runs = counts[::-1], runs[::-1]
    files, trim = pair_of(folder, counts), link_tree.Trim(where, 99)
    if len(numbers) != n <= numbers[-1]:
        with pytest.raises(SkeletonGaitError, match='have no frame numbers; expected numbers, or at least') as e:
            link_tree.match_pair(files, trim, runs=runs)
        assert '--trim' not in str(e.value)
    else:
        found = [rows_of(o) for o in link_tree.match_pair(files, trim, runs=runs)]
        bare = numbers if len(numbers) != n else [*range(n)]
        kept = [*range(len(numbers))]
        assert found == ([bare, kept] if maps_are_bare else [kept, bare])
    shutil.rmtree(folder)


def test_numbers_of_another_file_are_refused(tmp_path):
    files = pair_of(tmp_path, (3, 9))
    with pytest.raises(SkeletonGaitError, match='m.pkl: has 3 frames, and frames.json .* has numbers of 2'):
        link_tree.match_pair(files, runs=([[4, 5]], None))


def test_renamed_folders_are_a_warning(walks, capsys):
    root, _ = walks
    for kind in LOST:
        (root / kind / '000').rename(root / kind / 'anna')
    link_poses(root)
    out = capsys.readouterr().out
    said = ('2 sequences of frames.json are not in the tree (the first: 000/nm-01/000), and 2 sequences of the tree '
            'are not in it (the first: anna/nm-01/000): renamed by hand? rename them in frames.json too')
    lines = [f'{root / kind}: {said}' for kind in ('pose', 'silhouette')]
    assert report(root)['warnings'] == lines and report(root)['counts']['warnings'] == 2
    assert all(f'warning: {line}' in out for line in lines)
    for kind in LOST:
        (root / kind / 'anna').rename(root / kind / '000')
    link_poses(root)
    assert 'renamed by hand' not in capsys.readouterr().out and 'warnings' not in report(root)


def test_one_tree_for_both_warns_once(tmp_path, capsys):
    "And a folder whose files have another name is no folder that is gone."
    for subject in ('a', 'b'):
        folder = tmp_path / 'both' / subject / 'nm' / '0'
        save_pickle(np.ones((3, 17, 3)), folder / 'pose.pkl')
        save_pickle(np.ones((3, 64, 44), np.uint8), folder / 'sils.pkl')
    (tmp_path / 'both' / 'c' / 'nm' / '0').mkdir(parents=True)
    names = dict(heatmap_name_begins='pose', dataset_pkl_ext_name='sils.pkl')
    trees = [str(tmp_path / name) for name in ('both', 'both', 'linked')]
    for gone, warned in (('c', 0), ('d', 1)):
        write_frames(tmp_path / 'both', {('a', 'nm', '0'): [[0, 2]], (gone, 'nm', '0'): [[0, 2]]})
        assert ln_sil_heatmap(*trees, **names) == 0
        assert capsys.readouterr().out.count('renamed by hand?') == warned


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


@pytest.mark.parametrize('from_1', ['silhouette', 'pose'])
def test_one_tree_counts_from_1(walks, capsys, from_1):
    "Every pair is one frame apart, some with an empty mask besides: the warning says which tree may count from 1."
    root, _ = walks
    for kind in LOST:
        for sequence, (file,) in read_tree(root / kind).sequences.items():
            save_pickle(np.resize(load_array(file), (11, *load_array(file).shape[1:])), file)
        kept = np.delete(np.arange(12), 5 if kind == from_1 else 3) + (kind == from_1)
        write_frames(root / kind, dict.fromkeys(read_tree(root / kind).sequences, to_runs(kept)))
    link_poses(root)
    (line,) = report(root)['warnings']
    other, name = ('maps or poses', 'silhouettes') if from_1 == 'silhouette' else ('silhouettes', 'maps or poses')
    said = f'in 4 of 4 sequences the first frame of the {other} and the last of the {name} have no partner'
    assert line.startswith(said) and line.endswith('again, with --first_frame=1')
    assert f'warning: {line}' in capsys.readouterr().out


KEPT = st.sets(st.integers(0, 30), min_size=12)


@given(st.lists(st.tuples(KEPT, KEPT), min_size=1, max_size=6), st.booleans())
def test_whole_walks_that_are_shifted_and_those_that_are_not(sides, swapped):
    "Frames lost within a walk hide no shift, and make none up."
    def runs(kept, ends, shift):
        lost = {*range(1, 30)} - kept
        return to_runs(k + shift for k in range(31) if k in ends or k not in lost)
    for shift in (0, 1):
        both = {}
        for i, (a, b) in enumerate(sides):
            pair = runs(a | {1, 29}, {0, 30}, 0), runs(b | {1, 29}, {0, 30}, shift)
            both[Sequence(str(i), 't', 'v')] = pair[::-1] if swapped else pair
        assert len(link_tree._shifted(both)) == shift


def test_a_tree_with_a_frame_0_does_not_count_from_1():
    late = {Sequence(name, 't', 'v'): ([[0, 9]], [[3, 12]]) for name in 'abc'}
    assert len(link_tree._shifted(late)) == 1
    assert link_tree._shifted(late | {Sequence('d', 't', 'v'): ([[0, 9]], [[0, 9]])}) == []
