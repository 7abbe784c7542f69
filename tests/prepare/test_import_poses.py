"The importer end to end: maps as from COCO arrays, bad files, kills, resumes, workers, places that are taken."

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import pose_writers as w
from scripts import ROOT, files, start
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.files.arrays import load_array
from skeletongait.files.frames import read_frames
from skeletongait.files.layout import Layout
from skeletongait.files.tree import Sequence, read_tree
from skeletongait.import_poses import import_poses
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.poses.formats import find_videos, read_poses
from skeletongait.poses.joints import PoseError
from skeletongait.poses.tracks import find_tracks
from skeletongait.prepare.imported import IMPORTED, ImportJob, read_all, read_records
from skeletongait.prepare.pose_tree import Options, import_pose_tree, people_of
from skeletongait.pretreatment_heatmap import pretreatment_heatmap

LAYOUT = Layout('{subject}/{type}/{view}')


def write_videos(root, n=3, n_frames=12):
    "OpenPose's files of some walkers; returns the poses that they show."
    poses = {}
    for subject in range(n):
        poses[f'{subject:03}'] = w.walker(n_frames, subject, '090')
        w.openpose(poses[f'{subject:03}'], root / f'{subject:03}' / 'nm-01' / '090')
    return poses


def imported(root):
    "Sequence -> its poses."
    return {'/'.join(s): load_array(found[0]) for s, found in read_tree(root).sequences.items()}


def test_from_openpose_to_maps_as_real_processes(tmp_path):
    "The maps are those of the same poses as COCO arrays, to the byte."
    poses = write_videos(tmp_path / 'json')
    for subject, pose in poses.items():
        save_pickle(pose, tmp_path / 'coco' / subject / 'nm-01' / '090' / 'pose.pkl')
    done = start('python -m', 'import_poses', 'json', '--save_root=poses', cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert '3 sources (0 imported before), 0 failures, 3 sequences with 36 frames' in done.stdout
    for name in ('poses', 'coco'):
        words = [f'--pose_data_path={name}', f'--save_root={name}_maps', '--dataset_name=mine']
        assert start('python -m', 'pretreatment_heatmap', *words, cwd=tmp_path, PYTHONPATH=str(ROOT)).returncode == 0
    maps = [files(tmp_path / f'{name}_maps' / 'mine_sigma_8.0_' / 'pkl') for name in ('poses', 'coco')]
    assert maps[0].pop('frames.json') and maps[0] == maps[1] and len(maps[0]) == 3


def test_a_bad_file_costs_one_line(tmp_path, capsys):
    write_videos(tmp_path / 'json')
    bad = tmp_path / 'json' / '003' / 'nm-01' / '090' / 'x.json'
    bad.parent.mkdir(parents=True)
    bad.write_text('{"people": [')
    assert import_poses(str(tmp_path / 'json'), str(tmp_path / 'poses')) == 1
    said = capsys.readouterr().out
    assert said.count('\nfailed: ') == 1 and f'failed: {bad}: not JSON' in said
    report = json.loads((tmp_path / 'poses' / 'report.json').read_text())
    assert len(report['rows']) == 3 and report['failed'][0]['path'] == str(bad)
    w.openpose(w.walker(), bad.parent)
    bad.unlink()
    assert import_poses(str(tmp_path / 'json'), str(tmp_path / 'poses')) == 0
    assert '(3 imported before)' in capsys.readouterr().out
    assert len(imported(tmp_path / 'poses')) == 4


def test_one_clip_names_itself(tmp_path, capsys):
    "A folder of frames or one file needs no layout; one that is given must fit its name."
    w.openpose(w.walker(), tmp_path / '001_nm_090')
    w.array(w.walker(), tmp_path / 'alice', ending='.npy')
    for name, place in (('001_nm_090', '001_nm_090/clip/000'), ('alice.npy', 'alice/clip/000')):
        for done in (0, 1):
            assert import_poses(str(tmp_path / name), str(tmp_path / 'out' / name)) == 0
            said = capsys.readouterr().out
            assert f'({done} imported before)' in said and f"subject {place.split('/')[0]}, type clip, view 000" in said
        assert [*imported(tmp_path / 'out' / name)] == [place]
    for layout, place in (('{subject}_{type}_{view}', '001/nm/090'), ('{subject}/{type=bg}', '001_nm_090/bg/000')):
        assert import_poses(str(tmp_path / '001_nm_090'), str(tmp_path / layout), layout=layout) == 0
        assert [*imported(tmp_path / layout)] == [place]
    assert 'all sequences got view 000' in capsys.readouterr().out
    assert import_poses(str(tmp_path / '001_nm_090'), str(tmp_path / 'no'), layout='{subject}/{view}') == 1
    assert "--layout='{subject}' would read subject 001_nm_090" in capsys.readouterr().out


def test_the_name_of_an_estimator_is_a_format(tmp_path, capsys):
    def poses_of(root):
        return {s: x.tobytes() for s, x in imported(root).items()}

    for name in ('body25', 'coco18'):
        w.openpose(w.walker(), tmp_path / 'openpose' / name, name)
    assert import_poses(str(tmp_path / 'openpose'), str(tmp_path / 'out'), 'OpenPose', '{subject}') == 0
    by_content = import_poses(str(tmp_path / 'openpose'), str(tmp_path / 'same'), '', '{subject}')
    assert by_content == 0 and poses_of(tmp_path / 'out') == poses_of(tmp_path / 'same')
    with pytest.raises(SkeletonGaitError, match='for this say body25 or coco18'):
        import_poses(str(tmp_path / 'openpose'), str(tmp_path / 'no'), 'openpose_body')
    capsys.readouterr()


def test_a_second_run_writes_nothing_and_a_change_only_that(tmp_path):
    poses = write_videos(tmp_path / 'json')
    out = tmp_path / 'poses'

    def stamps():
        return {p.as_posix(): p.stat().st_mtime_ns for p in out.rglob('pose.pkl')}

    import_pose_tree(tmp_path / 'json', out, LAYOUT)
    first, memory = stamps(), (out / IMPORTED).read_bytes()
    report = import_pose_tree(tmp_path / 'json', out, LAYOUT)
    assert report['done_before'] == 3 and stamps() == first and (out / IMPORTED).read_bytes() == memory
    changed = tmp_path / 'json' / '001' / 'nm-01' / '090'
    w.openpose(poses['001'] + np.float32([10, 0, 0]), changed)
    (out / '002' / 'nm-01' / '090' / 'pose.pkl').unlink()
    assert import_pose_tree(tmp_path / 'json', out, LAYOUT)['done_before'] == 1
    assert [k for k, v in stamps().items() if first[k] != v] == [
        (out / s / 'nm-01' / '090' / 'pose.pkl').as_posix() for s in ('001', '002')
    ]
    np.testing.assert_allclose(imported(out)['001/nm-01/090'], poses['001'] + np.float32([10, 0, 0]), rtol=1e-6)


@pytest.mark.slow
def test_killed_and_started_again(tmp_path):
    "Killed at any moment, the same command ends where an undisturbed run ends."
    write_videos(tmp_path / 'json', 40)
    import_pose_tree(tmp_path / 'json', tmp_path / 'whole', LAYOUT)
    out, command = tmp_path / 'poses', [sys.executable, '-m', 'skeletongait.import_poses', 'json', '--save_root=poses']
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len([*out.rglob('pose.pkl')]) < 5 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert len(read_records(out)) >= 4
    (out / '000' / 'nm-01' / '090' / f'.00000000.x-{process.pid}.tmp').write_bytes(b'half')
    done = start('python -m', 'import_poses', 'json', '--save_root=poses', cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    expected, found = files(tmp_path / 'whole'), files(out)
    for name in ('report.json', IMPORTED):
        assert expected.pop(name) and found.pop(name)
    assert found == expected and not [*(out / 'journal').iterdir()]


@pytest.mark.skipif(not hasattr(signal, 'SIGTERM') or os.name == 'nt', reason='signals of POSIX')
def test_a_signal_is_one_line(tmp_path):
    write_videos(tmp_path / 'json', 40)
    command = [sys.executable, '-m', 'skeletongait.import_poses', 'json', '--save_root=poses']
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not [*(tmp_path / 'poses').rglob('pose.pkl')] and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and 'Traceback' not in error
    assert 'nothing is lost, the same command imports the rest' in error


def test_workers_find_what_one_process_finds(tmp_path):
    write_videos(tmp_path / 'json', 4)
    jobs = [ImportJob(o.name, o.name, o.files, o) for o in find_videos(tmp_path / 'json')]
    alone, together = (list(read_all(jobs, people_of, workers)) for workers in (0, 2))
    for a, b in zip(alone, together, strict=True):
        assert a.stamp == b.stamp
        np.testing.assert_array_equal(a.found[0].found.tracks[0].pose, b.found[0].found.tracks[0].pose)


def crowd(t, person):
    "Somebody who is there from the fifth frame on, beside the one who always is."
    return [person] if t < 5 else [person + np.float32([700, 0, 0]), person]


def test_everybody_or_the_longest(tmp_path, capsys):
    pose = w.walker(30)
    w.openpose(pose, tmp_path / 'json' / '001' / 'nm-01' / '090', people=crowd)
    import_pose_tree(tmp_path / 'json', tmp_path / 'longest', LAYOUT)
    report = import_pose_tree(tmp_path / 'json', tmp_path / 'all', LAYOUT, Options(person='all'))
    assert [*imported(tmp_path / 'longest')] == ['001/nm-01/090']
    assert {k: len(v) for k, v in imported(tmp_path / 'all').items()} == {'001-1/nm-01/090': 30, '001-2/nm-01/090': 25}
    assert read_frames(tmp_path / 'all')[Sequence('001-2', 'nm-01', '090')] == [[5, 29]]
    assert import_pose_tree(tmp_path / 'json', tmp_path / 'all', LAYOUT, Options(person='all'))['done_before'] == 1
    assert report['rows'][0]['tracks'] == 2
    capsys.readouterr()
    report = import_pose_tree(tmp_path / 'json', tmp_path / 'all', LAYOUT)  # another choice replaces what was there
    assert [*imported(tmp_path / 'all')] == ['001/nm-01/090']
    assert report['removed'] == ['001-1/nm-01/090', '001-2/nm-01/090']
    assert 'removed: 2 earlier sequences (001-1/nm-01/090, 001-2/nm-01/090)' in capsys.readouterr().out


def test_names_inside_a_file(tmp_path):
    (tmp_path / 'table').mkdir()
    w.gaitgraph(w.walker(), tmp_path / 'table' / 'casia', ('001-nm-01-090', '002-bg-02-000'))
    import_pose_tree(tmp_path / 'table', tmp_path / 'poses', Layout('{subject:3}-{type}-{view:3}'))
    assert [*imported(tmp_path / 'poses')] == ['001/nm-01/090', '002/bg-02/000']


def test_two_videos_of_one_place(tmp_path, capsys):
    "The first one has it; the other is a failure, in every run."
    for folder in ('a', 'b'):
        w.openpose(w.walker(), tmp_path / 'json' / folder / '001-nm-01-090')
    layout = '*/{subject:3}-{type}-{view:3}'
    for _ in range(2):
        assert import_poses(str(tmp_path / 'json'), str(tmp_path / 'poses'), layout=layout) == 1
        assert 'would become 001/nm-01/090, as ' in capsys.readouterr().out
    assert [*imported(tmp_path / 'poses')] == ['001/nm-01/090']


def test_files_of_others_stay(tmp_path, capsys):
    write_videos(tmp_path / 'json', 1)
    theirs = tmp_path / 'poses' / '000' / 'nm-01' / '090' / 'pose.pkl'
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b'mine')
    assert import_poses(str(tmp_path / 'json'), str(tmp_path / 'poses')) == 1
    assert 'exists and was not imported' in capsys.readouterr().out and theirs.read_bytes() == b'mine'


def test_a_link_leads_nowhere_else(tmp_path, capsys):
    write_videos(tmp_path / 'json', 1)
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'poses').mkdir()
    (tmp_path / 'poses' / '000').symlink_to(tmp_path / 'elsewhere')
    assert import_poses(str(tmp_path / 'json'), str(tmp_path / 'poses')) == 1
    assert 'beyond the link' in capsys.readouterr().out and not [*(tmp_path / 'elsewhere').iterdir()]


def test_sources_of_two_folders_share_a_tree(tmp_path):
    "What was imported from one folder stays when another one is imported."
    write_videos(tmp_path / 'one', 2)
    w.openpose(w.walker(), tmp_path / 'two' / '009' / 'nm-01' / '000')
    import_pose_tree(tmp_path / 'one', tmp_path / 'poses', LAYOUT)
    import_pose_tree(tmp_path / 'two', tmp_path / 'poses', LAYOUT)
    assert len(imported(tmp_path / 'poses')) == 3 and len(read_frames(tmp_path / 'poses')) == 3


def test_a_damaged_memory_is_imported_anew(tmp_path):
    write_videos(tmp_path / 'json', 2)
    import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)
    path = tmp_path / 'poses' / IMPORTED
    path.write_bytes(path.read_bytes()[:-40] + b'\n[1]\n{"source": 3}\n')
    assert import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)['done_before'] == 1
    assert import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)['done_before'] == 2


def test_wrong_options_change_nothing(tmp_path):
    write_videos(tmp_path / 'json', 1)
    wrong = [
        ({'format': 'h36n'}, 'for this say h36m17'), ({'image_size': '1920'}, 'as in 1920x1080'),
        ({'fps': -1.0}, 'above 0'), ({'person': 'first'}, "'first' is not known"), ({'layout': '{who}'}, 'who'),
        ({'save_root': str(tmp_path / 'json' / 'poses')}, 'inside each other'),
        ({'source': str(tmp_path / 'nothing')}, 'no such file or folder'),
    ]  # fmt: skip
    for options, says in wrong:
        arguments = {'source': str(tmp_path / 'json'), 'save_root': str(tmp_path / 'poses')} | options
        with pytest.raises(SkeletonGaitError, match=says):
            import_poses(**arguments)
    assert not (tmp_path / 'poses').exists()


def test_refusals_of_the_other_commands_lead_here(tmp_path, capsys):
    write_videos(tmp_path / 'json', 1)
    with pytest.raises(SkeletonGaitError, match=r'cam|video_0+_keypoints\.json.*import_poses'):
        pretreatment_heatmap(str(tmp_path / 'json'), str(tmp_path / 'maps'), 'mine')
    for name, words in (('halpe26', '--format=halpe26'), ('pyskl', 'import_poses')):
        folder = tmp_path / name / '001' / 'nm-01' / '090'
        folder.mkdir(parents=True)
        w.pyskl(w.walker(), folder / 'x') if name == 'pyskl' else w.array(w.walker(), folder / 'x', name)
        assert pretreatment_heatmap(str(tmp_path / name), str(tmp_path / 'maps' / name), 'mine') == 1
        assert words in capsys.readouterr().out
        assert import_poses(str(tmp_path / name), str(tmp_path / 'poses' / name)) == 0


def test_what_stands_for_a_pose_leads_to_one(tmp_path):
    "A recording, a track, a path: each is told how to get at the array."
    w.openpose(w.walker(), tmp_path / 'a')
    w.openpose(w.walker(), tmp_path / 'b')
    recording = read_poses(tmp_path / 'a')
    track = find_tracks(recording).tracks[0]
    for given, says in (
        (recording, 'find_tracks'), (track, '.pose is one'), ('a.pkl', 'load_array'), ([[1]], 'numpy.asarray'),
    ):
        with pytest.raises(PoseError, match=says):
            pose_to_heatmap(given)
    assert len(pose_to_heatmap(track.pose)) == 12
    with pytest.raises(SkeletonGaitError, match='holds 2 videos .the first: .*a/.*Give the path of one'):
        read_poses(tmp_path)


def test_names_that_are_no_utf8(tmp_path):
    name = os.fsdecode(b'caf\xe9')
    w.openpose(w.walker(), tmp_path / 'json' / name / 'nm-01' / '090')
    for done in (0, 1):
        assert import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)['done_before'] == done
    assert [*imported(tmp_path / 'poses')] == [f'{name}/nm-01/090']


def test_a_failure_takes_nothing_away(tmp_path):
    "With a layout that fits nothing, what was imported stays; so does a video whose file has become unreadable."
    write_videos(tmp_path / 'json', 2)
    import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)
    before = files(tmp_path / 'poses')
    for wrong in ('{subject}/{type}/{view}/deeper', '{view}-{subject}/{type}'):
        assert len(import_pose_tree(tmp_path / 'json', tmp_path / 'poses', Layout(wrong))['failed']) == 2
    (tmp_path / 'json' / '000' / 'nm-01' / '090' / 'video_000000000000_keypoints.json').write_text('{')
    assert len(import_pose_tree(tmp_path / 'json', tmp_path / 'poses', LAYOUT)['failed']) == 1
    after = files(tmp_path / 'poses')
    for name in (IMPORTED, 'report.json'):
        before.pop(name), after.pop(name)
    assert after == before and len(after) == 3


def test_videos_in_one_folder_do_not_take_each_others_place(tmp_path, capsys):
    (tmp_path / 'json').mkdir()
    for name in ('001-nm-01-090_a', '001-nm-01-090_b'):
        w.openpose(w.walker(), tmp_path / name)
        for path in (tmp_path / name).iterdir():
            path.rename(tmp_path / 'json' / f'{name}_{path.name.split("_")[1]}_keypoints.json')
    layout = '{subject:3}-{type:5}-{view:3}_*'
    for _ in range(2):
        assert import_poses(str(tmp_path / 'json'), str(tmp_path / 'poses'), layout=layout) == 1
        assert 'would become 001/nm-01/090, as ' in capsys.readouterr().out
