"Importing silhouettes, as real processes: good and bad masks, stopped and started again, joined with poses."

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from processes import ENV, in_namespace
from scripts import ROOT, files, start

from skeletongait.core import save_pickle
from skeletongait.files.arrays import load_array
from skeletongait.files.frames import read_frames, to_runs, write_frames
from skeletongait.files.tree import Sequence, read_tree
from skeletongait.import_silhouettes import import_silhouettes
from skeletongait.ln_sil_heatmap import ln_sil_heatmap
from skeletongait.prepare.silhouettes import cut_silhouette
from skeletongait.walkers.recording import make_sequence


def masks_of(subject, n=8):
    "Masks `(T, 120, 200)` of a walker who goes from left to right."
    frames = np.zeros((n, 120, 200), np.uint8)
    for t, sil in enumerate(make_sequence(seed=0, subject=subject, type='nm-01', view='090', n_frames=n).silhouette):
        frames[t, 20:84, 5 + 5 * t : 69 + 5 * t] = np.where(sil > 127, 255, 0)
    return frames


def write_pictures(folder, masks, form='{:03d}.png', first=1):
    folder.mkdir(parents=True, exist_ok=True)
    for t, mask in enumerate(masks):
        cv2.imwrite(str(folder / form.format(first + t)), mask)


@pytest.fixture
def source(tmp_path):
    "Three walks as pictures, in the layout of CASIA-B."
    root = tmp_path / 'masks'
    for subject in range(3):
        name = f'{subject:03d}-nm-01-090-{{:03d}}.png'
        write_pictures(root / f'{subject:03d}' / 'nm-01' / '090', masks_of(subject), name)
    cv2.imwrite(str(root / '000' / 'nm-01' / '090' / 'gei.png'), masks_of(0)[0])
    return root


def run(cwd, *args):
    return start('python file', 'import_silhouettes', *args, cwd=cwd)


def report(root):
    return json.loads((root / 'report.json').read_text(encoding='utf-8'))


def test_pictures_become_silhouettes(source, tmp_path):
    done = run(tmp_path, 'masks', '--save_root=sil')
    assert done.returncode == 0, done.stderr
    assert '3 sequences imported, 0 failed, 0 were there already, 24 frames -> sil' in done.stdout
    assert ' sources/s' in done.stderr and 'warning' not in done.stdout
    out = tmp_path / 'sil'
    for subject in range(3):
        file = out / f'{subject:03d}' / 'nm-01' / '090' / '090.pkl'
        expected = np.stack([cut_silhouette(m) for m in masks_of(subject)])
        np.testing.assert_array_equal(load_array(file), expected)
        assert load_array(file).dtype == np.uint8
    assert read_frames(out) == {Sequence(f'{s:03d}', 'nm-01', '090'): [[1, 8]] for s in range(3)}
    before = files(out)
    stamps = {p: p.stat().st_ino for p in out.rglob('*.pkl')}
    done = run(tmp_path, '--save_root=sil', 'masks')
    assert done.returncode == 0 and '0 sequences imported, 0 failed, 3 were there already' in done.stdout
    assert files(out) == before and stamps == {p: p.stat().st_ino for p in out.rglob('*.pkl')}


def test_one_folder_of_pictures_names_itself(tmp_path):
    write_pictures(tmp_path / 'alice', masks_of(0))
    done = run(tmp_path, 'alice', '--save_root=sil')
    assert done.returncode == 0, done.stderr
    assert 'alice is one clip: subject alice, type clip, view 000' in done.stdout
    assert (tmp_path / 'sil' / 'alice' / 'clip' / '000' / '000.pkl').is_file()


def test_a_video_of_masks(tmp_path):
    "Its frames are numbered from 0; a frame without a body leaves a gap."
    folder = tmp_path / 'videos' / 'nm-01'
    folder.mkdir(parents=True)
    masks = masks_of(1)
    masks[3] = 0
    video = cv2.VideoWriter(str(folder / '001_090.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 25, (200, 120), False)
    for mask in masks:
        video.write(mask)
    video.release()
    done = run(tmp_path, 'videos', '--save_root=sil', '--layout={type}/{subject}_{view}')
    assert done.returncode == 0, done.stderr
    walk = load_array(tmp_path / 'sil' / '001' / 'nm-01' / '090' / '090.pkl')
    expected = np.stack([cut_silhouette(m) for m in np.delete(masks, 3, 0)])
    assert (np.abs(walk.astype(int) - expected) > 128).mean() < 0.01
    assert read_frames(tmp_path / 'sil') == {Sequence('001', 'nm-01', '090'): [[0, 2], [4, 7]]}
    assert 'warning: 1 sequence: frames without a body are dropped' in done.stdout


def test_bad_walks_are_listed_and_the_rest_is_done(source, tmp_path):
    "Each is one line; mended, the same command imports them alone."
    broken = source / '001' / 'nm-01' / '090' / '001-nm-01-090-004.png'
    picture = broken.read_bytes()
    assert run(tmp_path, 'masks', '--save_root=sil').returncode == 0
    broken.write_bytes(picture[:100])
    (source / 'notes.txt').touch()
    write_pictures(source / '003' / 'nm-01' / '090', np.minimum(masks_of(3), 1))
    write_pictures(source / '004', masks_of(3))
    (source / '005' / 'nm-01').mkdir(parents=True)
    (source / '005' / 'nm-01' / '090.mp4').write_bytes(b'no video')
    done = run(tmp_path, 'masks', '--save_root=sil')
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if line.startswith('failed: ')]
    says = {'001': '001-nm-01-090-004.png: cannot be read as a picture', '003': 'the brightest grey level is 1',
            '004': "it ends after 1 part, and '{type}' is missing", '005': 'cannot be read as a video'}
    assert len(lines) == len(says)
    for line, (subject, words) in zip(lines, says.items()):
        assert f'masks/{subject}' in line and words in line
    assert 'warning: ignored, neither PNG nor video: notes.txt' in done.stdout
    assert 'kept: 1 earlier sequence (001/nm-01/090), whose sources have failed now' in done.stdout
    assert [s.subject for s in read_tree(tmp_path / 'sil').sequences] == ['000', '001', '002']
    assert report(tmp_path / 'sil')['imported'] == 2
    broken.write_bytes(picture)
    done = run(tmp_path, 'masks', '--save_root=sil')
    assert '1 sequence imported, 3 failed, 2 were there already' in done.stdout


def test_two_walks_never_share_a_place(source, tmp_path):
    write_pictures(source / '000' / 'nm-02' / '090', masks_of(5))
    assert import_silhouettes(str(source), str(tmp_path / 'sil'), '{subject}/nm-*/{type}{view:2}') == 1
    failed = report(tmp_path / 'sil')['failed']
    assert [f['path'] for f in failed] == ['000/nm-01/090', '000/nm-02/090']
    assert 'would all become' in failed[0]['reason']


def test_changed_and_renamed_frames_are_imported_again(source, tmp_path):
    out = tmp_path / 'sil'
    assert import_silhouettes(str(source), str(out)) == 0
    folder = source / '001' / 'nm-01' / '090'
    for picture in sorted(folder.iterdir(), reverse=True):
        picture.rename(folder / f'{int(picture.stem[-3:]) + 50}.png')
    (source / '002' / 'nm-01' / '090' / '002-nm-01-090-008.png').unlink()
    assert import_silhouettes(str(source), str(out)) == 0
    assert list(read_frames(out).values()) == [[[1, 8]], [[51, 58]], [[1, 7]]]
    assert len(load_array(out / '002' / 'nm-01' / '090' / '090.pkl')) == 7


def test_a_killed_run_goes_on(tmp_path):
    "Killed in the middle, the same command ends with the same bytes as a run that was left alone."
    for subject in range(40):
        write_pictures(tmp_path / 'masks' / f'{subject:03d}' / 'nm-01' / '090', masks_of(subject % 3))
    assert run(tmp_path, 'masks', '--save_root=whole').returncode == 0
    command = [sys.executable, str(ROOT / 'skeletongait' / 'import_silhouettes.py'), 'masks', '--save_root=sil']
    process = subprocess.Popen(command, cwd=tmp_path, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(list((tmp_path / 'sil').rglob('*.pkl'))) < 12 and time.monotonic() < end:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / 'sil' / 'report.json').exists()
    done = run(tmp_path, 'masks', '--save_root=sil')
    assert done.returncode == 0 and ' 0 were there already' not in done.stdout
    ours, whole = files(tmp_path / 'sil'), files(tmp_path / 'whole')
    assert ours.keys() == whole.keys()
    assert [name for name in ours if ours[name] != whole[name]] == []


def test_only_the_frames_of_the_poses(source, tmp_path):
    "And of a walk that the poses lack, one line."
    sequences = [Sequence(f'{s:03d}', 'nm-01', '090') for s in range(3)]
    write_frames(tmp_path / 'poses', {sequences[0]: [[3, 5]], sequences[1]: [[90, 99]]})
    done = run(tmp_path, 'masks', '--save_root=sil', '--frames=poses')
    assert done.returncode == 1
    assert read_frames(tmp_path / 'sil') == {sequences[0]: [[3, 5]]}
    expected = np.stack([cut_silhouette(m) for m in masks_of(0)[2:5]])
    np.testing.assert_array_equal(load_array(tmp_path / 'sil' / '000' / 'nm-01' / '090' / '090.pkl'), expected)
    assert 'none of its frames (1 to 8) is among those of poses (90 to 99)' in done.stdout
    assert 'has no frame numbers of 002/nm-01/090' in done.stdout
    done = run(tmp_path, 'masks', '--save_root=sil')
    assert done.returncode == 0 and '3 sequences imported, 0 failed, 0 were there already' in done.stdout
    assert len(load_array(tmp_path / 'sil' / '000' / 'nm-01' / '090' / '090.pkl')) == 8


def test_silhouettes_meet_their_poses(source, tmp_path):
    "Poses and masks that lost other frames are linked by number."
    for subject in range(3):
        poses = np.random.default_rng(subject).uniform(1, 99, (8, 17, 3))
        kept = np.delete(np.arange(8), [1, 2])
        sequence = Sequence(f'{subject:03d}', 'nm-01', '090')
        save_pickle(poses[kept], sequence.path(tmp_path / 'poses') / '090.pkl')
        write_frames(tmp_path / 'poses', read_frames(tmp_path / 'poses') | {sequence: to_runs(1 + kept)})
        (source / sequence.subject / 'nm-01' / '090' / f'{subject:03d}-nm-01-090-008.png').unlink()
    assert import_silhouettes(str(source), str(tmp_path / 'sil')) == 0
    assert ln_sil_heatmap(*(str(tmp_path / name) for name in ('poses', 'sil', 'linked'))) == 0
    assert report(tmp_path / 'linked')['joined'][0] == dict(
        sequence='000/nm-01/090', frames=5, maps_left_out=1, silhouettes_left_out=2)
    for sequence, (_, second) in read_tree(tmp_path / 'linked').sequences.items():
        masks = masks_of(int(sequence.subject))[[0, 3, 4, 5, 6]]
        np.testing.assert_array_equal(load_array(second), np.stack([cut_silhouette(m) for m in masks]))


@pytest.mark.parametrize(
    'args, says',
    [
        (['nowhere', '--save_root=sil'], 'nowhere: no such folder; expected masks'),
        (['masks', '--save_root=masks/sil'], 'must not lie in masks'),
        (['masks', '--save_root=sil', '--layout={type}/{view}'], '{subject} stands there 0 times'),
        (['masks', '--save_root=sil', '--layout=walks.csv'], 'walks.csv: cannot be read'),
        (['masks', '--save_root=sil', '--frames=masks'], 'no frames.json in this folder'),
        (['empty', '--save_root=sil'], 'empty: holds no PNG and no video'),
    ],
)
def test_one_clear_line(args, says, source, tmp_path):
    (tmp_path / 'empty').mkdir()
    done = run(tmp_path, *args)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / 'sil').exists()


def test_a_full_disk_stops_with_one_line(source, tmp_path):
    for subject in range(40):
        write_pictures(source / f'{subject:03d}' / 'nm-01' / '090', masks_of(0, 24))
    script = f'{sys.executable} {ROOT}/skeletongait/import_silhouettes.py masks --save_root=sil'
    (tmp_path / 'sil').mkdir()
    mount = 'mount -t tmpfs -o size=300k none sil'
    done = in_namespace(f'{mount} && {script}; r=$?; find sil -name ".*.tmp"; exit $r', tmp_path)
    assert done.returncode == 1, done.stderr
    assert 'cannot be written: No space left on device; what is imported stays' in done.stdout
    assert '.tmp' not in done.stdout.replace('stopped', '') and 'Traceback' not in done.stderr


def test_only_the_first_rank_works(source, tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert import_silhouettes(str(source), str(tmp_path / 'sil')) == 0 and not (tmp_path / 'sil').exists()


def test_nothing_beyond_a_link_is_written(source, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'sil').mkdir()
    os.symlink(tmp_path / 'elsewhere', tmp_path / 'sil' / '001')
    assert import_silhouettes(str(source), str(tmp_path / 'sil')) == 1
    assert list((tmp_path / 'elsewhere').iterdir()) == []
    assert 'beyond the link' in report(tmp_path / 'sil')['failed'][0]['reason']
