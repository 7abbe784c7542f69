"The memory of the importers: cut off anywhere, told something else, with sources gone and files that others changed."

import itertools
import json
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pose_writers as w
from processes import ENV
from scripts import ROOT, files
from skeletongait import video as command
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.estimation.clips import Video, VideoWalk, VideoWalks
from skeletongait.files.arrays import load_array
from skeletongait.files.frames import read_frames
from skeletongait.files.layout import Layout
from skeletongait.files.tree import Sequence, read_tree
from skeletongait.import_poses import import_poses
from skeletongait.import_silhouettes import import_silhouettes
from skeletongait.ln_sil_heatmap import ln_sil_heatmap
from skeletongait.prepare.imported import IMPORTED, Memory, to_record
from skeletongait.prepare.pose_tree import Options, import_pose_tree

LAYOUT = Layout('{subject}/{type}/{view}')


def two_people(t, person):
    "Somebody else is there from the fifth frame on."
    return [person] if t < 5 else [person + np.float32([700, 0, 0]), person]


def write_videos(root, n=2, people=two_people, n_frames=20):
    for subject in range(n):
        pose = w.walker(n_frames, subject, '090')
        w.openpose(pose, root / f'{subject:03}' / 'nm-01' / '090', people=people)


def work(root):
    "Files of a tree except for its report, which tells what a run has removed."
    return {name: content for name, content in files(root).items() if name != 'report.json'}


def sequences(root):
    return ['/'.join(s) for s in read_tree(root).sequences]


class Kill(BaseException):
    "Stands for a kill: nothing is done any more."


def cut_after(monkeypatch, n):
    "Let `n` writes pass: lines of the journal, and files of sequences."
    left = itertools.count(n, -1)
    for name in ('remember', 'write_file'):

        def method(self, *args, real=getattr(Memory, name)):
            if next(left) <= 0:
                raise Kill
            return real(self, *args)

        monkeypatch.setattr(Memory, name, method)


def test_cut_off_at_every_write_and_told_something_else(tmp_path, monkeypatch):
    "Each track, cut off, then the longest only: what an undisturbed run of the second leaves, to the byte."
    write_videos(tmp_path / 'json')
    import_pose_tree(tmp_path / 'json', tmp_path / 'whole', LAYOUT)
    expected = work(tmp_path / 'whole')
    for n in itertools.count():
        out = tmp_path / f'cut{n}'
        with monkeypatch.context() as patch:
            cut_after(patch, n)
            try:
                import_pose_tree(tmp_path / 'json', out, LAYOUT, Options(person='all'))
                break
            except Kill:
                pass
        import_pose_tree(tmp_path / 'json', out, LAYOUT)
        assert work(out) == expected
    assert n == 8  # two sources: a line before, two files, a line after


@pytest.mark.slow
@pytest.mark.parametrize('n_files', [0, 1, 7, 20])
def test_killed_processes(n_files, tmp_path):
    write_videos(tmp_path / 'json', 24)
    import_pose_tree(tmp_path / 'json', tmp_path / 'whole', LAYOUT, Options(person='all'))
    words = [sys.executable, '-m', 'skeletongait.import_poses', 'json', '--save_root=poses']
    options = dict(cwd=tmp_path, env=ENV | {'PYTHONPATH': str(ROOT)}, stderr=subprocess.DEVNULL)
    for person in ('longest', 'all'):
        process = subprocess.Popen([*words, f'--person={person}'], stdout=subprocess.DEVNULL, **options)
        end = time.monotonic() + 120
        while len([*(tmp_path / 'poses').rglob('pose.pkl')]) < n_files and time.monotonic() < end:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run([*words, '--person=all'], stdout=subprocess.DEVNULL, **options).returncode == 0
    assert work(tmp_path / 'poses') == work(tmp_path / 'whole')


def test_a_source_that_is_gone_is_named(tmp_path, capsys):
    write_videos(tmp_path / 'json')
    import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)
    (tmp_path / 'json' / '000').rename(tmp_path / 'elsewhere')
    report = import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)
    assert report['without_source'] == ['000/nm-01/090'] and report['sequences'] == 1
    assert 'kept: 1 earlier sequence (000/nm-01/090), whose sources are gone' in capsys.readouterr().out
    assert sequences(tmp_path / 'poses') == ['000/nm-01/090', '001/nm-01/090']
    assert len(read_frames(tmp_path / 'poses')) == 2


def test_the_place_of_a_source_that_is_gone_is_free(tmp_path):
    write_videos(tmp_path / 'json', 1)
    import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)
    (tmp_path / 'json').rename(tmp_path / 'moved')
    for done in (0, 1):
        report = import_pose_tree(tmp_path / 'moved', tmp_path / 'poses', LAYOUT)
        assert report['done_before'] == done and not report['failed'] and not report['without_source']


def test_what_somebody_has_changed_is_not_removed(tmp_path, capsys):
    write_videos(tmp_path / 'json', 1)
    import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT, Options(person='all'))
    theirs = tmp_path / 'poses' / '000-2' / 'nm-01' / '090' / 'pose.pkl'
    theirs.write_bytes(b'mine')
    report = import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)
    assert (report['removed'], report['changed']) == (['000-1/nm-01/090'], ['000-2/nm-01/090'])
    assert theirs.read_bytes() == b'mine' and 'but whose files were changed since' in capsys.readouterr().out


def test_two_videos_of_a_file_never_share_a_place(tmp_path):
    (tmp_path / 'table').mkdir()
    w.gaitgraph(w.walker(), tmp_path / 'table' / 'casia', ('001-nm-01-090', '001-nm-01-090b'))
    report = import_pose_tree(tmp_path / 'table', tmp_path / 'poses', Layout('{subject:3}-{type:5}-{view:3}*'))
    assert [f['reason'] for f in report['failed']] == [
        'would become 001/nm-01/090, as another part of this source does; tell them apart in the layout'
    ]


def test_poses_and_silhouettes_do_not_share_a_tree(tmp_path):
    write_videos(tmp_path / 'json', 1)
    import_poses(str(tmp_path / 'json'), str(tmp_path / 'out'))
    write_masks(tmp_path / 'masks' / '000' / 'nm-01' / '090')
    with pytest.raises(SkeletonGaitError, match='out: holds imported poses; expected silhouettes, or a new folder'):
        import_silhouettes(str(tmp_path / 'masks'), str(tmp_path / 'out'))


GOOD = dict(
    source='/a', stamp='1', how={'kind': 'poses'}, failed=[],
    rows=[dict(sequence='a/b/c', runs=[[0, 1]], files={'a/b/c/pose.pkl': 3})],
)  # fmt: skip
ROW = GOOD['rows'][0]


@pytest.mark.parametrize(
    'wrong',
    [
        dict(rows=[ROW | dict(files={path: 3})]) for path in ('../../../x/pose.pkl', '/a/b/c/pose.pkl', 'pose.pkl', '')
    ] + [
        dict(rows=[ROW | dict(files={'a/b/c/pose.pkl': '3'})]), dict(rows=[ROW | dict(files=['a/b/c/pose.pkl'])]),
        dict(rows=[ROW | dict(runs=[[3, 1]])]), dict(rows=[ROW | dict(sequence='a/b')]), dict(rows={}), dict(rows=[1]),
        dict(how=[]), dict(stamp=None), dict(source=1), dict(more=1),
    ],
)  # fmt: skip
def test_lines_of_strangers_are_not_believed(wrong):
    assert to_record(json.dumps(GOOD).encode()) is not None
    assert to_record(json.dumps(GOOD | wrong).encode()) is None


@given(st.binary(max_size=40) | st.integers(0, 200).map(lambda n: json.dumps(GOOD).encode()[:n]))
def test_any_line_is_read_or_skipped(line):
    record = to_record(line)
    assert record is None or record._asdict() == GOOD


def test_trees_of_earlier_versions_are_imported_again(tmp_path):
    "Without a memory that is understood, files of the same content have their owner again."
    write_videos(tmp_path / 'json', 1)
    import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)
    old = dict(source='/a', stamp='', how=['', None, 25.0, 'longest'], outputs=[], failed=[])
    (tmp_path / 'poses' / IMPORTED).write_text(json.dumps(old) + '\n')
    for done in (0, 1):
        report = import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)
        assert report['done_before'] == done and not report['failed']


def write_masks(folder, first=1, n=12):
    folder.mkdir(parents=True)
    for t in range(n):
        mask = np.zeros((120, 90), np.uint8)
        mask[10:110, 20 : 40 + t] = 255
        cv2.imwrite(str(folder / f'{first + t:03}.png'), mask)


def test_pictures_from_1_and_poses_from_0_are_in_step(tmp_path):
    "`--first_frame` of either importer says how its files count; what is written counts from 0."
    write_videos(tmp_path / 'json', 1, people=lambda t, person: [person], n_frames=12)
    write_masks(tmp_path / 'masks' / '000' / 'nm-01' / '090')
    assert import_poses(str(tmp_path / 'json'), str(tmp_path / 'poses')) == 0
    assert import_silhouettes(str(tmp_path / 'masks'), str(tmp_path / 'sil')) == 0
    trees = [str(tmp_path / name) for name in ('poses', 'sil', 'linked')]
    place = Sequence('000', 'nm-01', '090')
    assert read_frames(tmp_path / 'sil') == {place: [[1, 12]]}
    assert import_silhouettes(str(tmp_path / 'masks'), str(tmp_path / 'sil'), first_frame=1) == 0
    assert read_frames(tmp_path / 'poses') == read_frames(tmp_path / 'sil') == {place: [[0, 11]]}
    assert ln_sil_heatmap(*trees) == 0
    joined = json.loads((tmp_path / 'linked' / 'report.json').read_text())['joined']
    assert joined == [dict(sequence='000/nm-01/090', frames=12, maps_left_out=0, silhouettes_left_out=0)]
    assert import_poses(str(tmp_path / 'json'), str(tmp_path / 'poses'), first_frame=1) == 1
    failed = json.loads((tmp_path / 'poses' / 'report.json').read_text())['failed'][0]['reason']
    assert 'found a frame with number 0; expected 1 or more, as --first_frame=1 says' in failed


@pytest.fixture
def people(monkeypatch):
    "Stands for the networks: everybody who is seen in a video, by name, with the number of frames."
    seen = {}

    def find(path, estimator, shortest):
        def walk(n):
            return VideoWalk(np.full((n, 17, 3), n), np.zeros((n, 64, 64), np.uint8), np.arange(n), 0)

        return VideoWalks([walk(n) for n in seen[path.stem] if n >= shortest], 0, 0)

    monkeypatch.setattr(command, 'find_walks', find)
    monkeypatch.setattr(command, 'look_at_video', lambda path: Video(640, 480, 50, 25.0))
    monkeypatch.setattr(command, 'BlazePose', lambda networks: None)
    return seen


def test_people_who_are_no_longer_found_are_removed(people, tmp_path, capsys):
    "By another `--shortest`, or since the video has changed; from both trees, with their numbers."
    folder, out = tmp_path / 'in' / 'ann' / 'walk', tmp_path / 'out'
    folder.mkdir(parents=True)
    for view in ('000', '090'):
        (folder / f'{view}.mp4').write_bytes(b'video')
    people |= {'000': [40, 20], '090': [30]}

    def found():
        trees = [sequences(out / tree) for tree in ('pose', 'silhouette')]
        numbers = [['/'.join(o) for o in read_frames(out / tree)] for tree in ('pose', 'silhouette')]
        assert trees[0] == trees[1] == numbers[0] == numbers[1]
        return trees[0]

    assert command.video(str(tmp_path / 'in'), str(out)) == 0
    assert found() == ['ann/walk/090', 'ann-1/walk/000', 'ann-2/walk/000']
    assert command.video(str(tmp_path / 'in'), str(out), shortest=25) == 0
    assert found() == ['ann/walk/000', 'ann/walk/090']
    assert 'removed: 2 earlier sequences (ann-1/walk/000, ann-2/walk/000)' in capsys.readouterr().out
    (folder / '000.mp4').write_bytes(b'another video')
    people['000'] = [50, 45]
    assert command.video(str(tmp_path / 'in'), str(out), shortest=25) == 0
    assert found() == ['ann/walk/090', 'ann-1/walk/000', 'ann-2/walk/000']
    del people['090']  # it would fail if it were read again
    (out / 'pose' / 'ann-1' / 'walk' / '000' / '000.pkl').unlink()
    assert command.video(str(tmp_path / 'in'), str(out), shortest=25) == 0
    assert len(load_array(out / 'pose' / 'ann-1' / 'walk' / '000' / '000.pkl')) == 50


def test_a_video_never_replaces_what_it_has_not_written(people, tmp_path, capsys):
    (tmp_path / 'ann.mp4').write_bytes(b'video')
    people['ann'] = [20]
    theirs = tmp_path / 'out' / 'pose' / 'ann' / 'clip' / '000' / '000.pkl'
    save_pickle(np.zeros((3, 17, 3)), theirs)
    before = theirs.read_bytes()
    assert command.video(str(tmp_path / 'ann.mp4'), str(tmp_path / 'out')) == 1
    assert 'which exists and was not imported' in capsys.readouterr().out and theirs.read_bytes() == before
