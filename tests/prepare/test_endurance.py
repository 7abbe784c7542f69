"Drawing a data set survives whatever happens to it: kills, full disks, lost machines, changed poses and settings."
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scripts import BIN, environment, files, free_port, start, wait_for

from skeletongait.prepare import render_tree as module
from skeletongait.prepare import manifest as m
from skeletongait.core import SkeletonGaitError, is_leftover, save_pickle
from skeletongait.files.tree import read_tree
from skeletongait.maps.settings import HeatmapConfig
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.distributed import Board, LostRankError
from skeletongait.files.arrays import load_pickle
from skeletongait.pretreatment_heatmap import pretreatment_heatmap
from skeletongait.walkers.recording import make_sequence
from processes import in_namespace

N = 480  # files of the larger tree
OUT = Path('maps')/'mine_sigma_8.0_'


def write_poses(root, n_subjects, n_files, n_frames):
    "A tree of poses, all different, some of them in other formats."
    rng = np.random.default_rng(0)
    for i in range(n_subjects):
        pose = make_sequence(0, i, 'nm-01', '090', n_frames).pose
        folder = root/f'{i:03d}'/'nm-01'/'090'
        for k in range(n_files):
            save_pickle(pose + rng.normal(0, .5, pose.shape).astype(pose.dtype)*(pose != 0)*(1, 1, 0),
                        folder/f'{k:03d}.pkl')
    np.save(folder/'npy.npy', pose)
    np.savez(folder/'npz.npz', pose=pose)
    (folder/'000.pkl').with_name('bad.pkl').write_bytes(b'no pose')


def run(root, **kw):
    "Draw `root`/pose in this process; the exit code."
    return pretreatment_heatmap(str(root/'pose'), str(root/'maps'), 'mine', **kw)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "Twelve good pose files, one bad, drawn without disturbance."
    root = tmp_path_factory.mktemp('small')
    write_poses(root/'pose', 5, 2, 4)
    assert run(root) == 1
    return root


@pytest.fixture
def tree(small, tmp_path):
    "A copy of it, to disturb."
    shutil.copytree(small, tmp_path/'x')
    return tmp_path/'x'


def finished(root, small): return files(root/OUT) == files(small/OUT)


def touched(root):
    return {p.relative_to(root/OUT/'pkl').as_posix(): p.stat().st_mtime_ns for p in (root/OUT/'pkl').rglob('*.pkl')}


def last(capsys): return capsys.readouterr().out.splitlines()[-1]


# --- what is fresh, what is stale


def test_second_run_changes_nothing(tree, small, capsys):
    before = touched(tree)
    assert run(tree) == 1 and touched(tree) == before and finished(tree, small)
    assert last(capsys) == f"0 files drawn, 1 failed, 12 were there already -> {tree/OUT/'pkl'}"


def test_maps_equal_those_drawn_from_the_poses(small):
    for seq, fs in read_tree(small/'pose').sequences.items():
        for f in fs:
            if f.stem != 'bad':
                np.testing.assert_array_equal(load_pickle(seq.path(small/OUT/'pkl')/f.name),
                                              pose_to_heatmap(load_pickle(f)))
    assert (small/OUT/'pkl/004/nm-01/090/npy.pkl').read_bytes() == (small/OUT/'pkl/004/nm-01/090/npz.pkl').read_bytes()
    assert sorted(p.name for p in (small/OUT).iterdir()) == ['images', 'journal', 'manifest.jsonl', 'pkl',
        'report.json']


def test_manifest_and_report(small):
    header, records = m.read_manifest(small/OUT)
    assert header['drawing'] == m.DRAWING and header['settings']['sigma'] == 8.0 and len(header['settings']) == 13
    lines = (small/OUT/'manifest.jsonl').read_text().splitlines()
    assert len(lines) == 13 and list(records) == sorted(records)
    r = records['004/nm-01/090/npy.npy']
    f = small/'pose'/r.pose
    assert r == (r.pose, f.stat().st_size, f.stat().st_mtime_ns, m.file_sha256(f),
                 (small/OUT/'pkl'/m.maps_name(r.pose)).stat().st_size, 4, (), 0, (), ('few frames',))
    report = json.loads((small/OUT/'report.json').read_text())
    assert 'pickle' in report['failed'][0].pop('reason')
    assert report == dict(files=13, sequences=5, maps=12, frames=48, left=0,
        failed=[dict(path='004/nm-01/090/bad.pkl')], notices={}, findings={'few frames': 12}, strays=[],
        maps_without_pose=[], unlisted=[], lost=[])


def test_long_sequences_of_an_earlier_release_are_drawn_again(tmp_path, capsys, monkeypatch):
    "Those beyond the bound of imputation, and no others; their lines say so, and the next run finds nothing to do."
    monkeypatch.setattr('skeletongait.maps.heatmap.WINDOW', 20)
    for i, n in enumerate((3, 20, 21)):
        save_pickle(make_sequence(0, i, 'nm-01', '090', n).pose, tmp_path/'pose'/f'{i:03d}'/'nm-01'/'090'/'0.pkl')
    assert run(tmp_path) == 0
    path = tmp_path/OUT/'manifest.jsonl'
    assert [r.window for r in m.read_manifest(tmp_path/OUT).records.values()] == [0, 0, 20]
    now = path.read_text()
    path.write_text(now.replace(', "window": 20', ''))
    before = touched(tmp_path)
    assert run(tmp_path) == 0 and path.read_text() == now
    assert [k for k, t in touched(tmp_path).items() if t != before[k]] == ['002/nm-01/090/0.pkl']
    assert run(tmp_path) == 0 and last(capsys).startswith('0 files drawn, 0 failed, 3 were there already')


@pytest.mark.parametrize('what', ['deleted', 'cut short', 'no record'])
def test_missing_maps_are_drawn_again(tree, small, what):
    before, maps = touched(tree), tree/OUT/'pkl'/'001'/'nm-01'/'090'/'000.pkl'
    if what == 'deleted':
        maps.unlink()
    if what == 'cut short':
        maps.write_bytes(maps.read_bytes()[:-7])
    if what == 'no record':
        path = tree/OUT/'manifest.jsonl'
        path.write_text(''.join(line for line in path.read_text().splitlines(True)
                                if '"001/nm-01/090/000.pkl"' not in line))
    assert run(tree) == 1 and finished(tree, small)
    assert [k for k, t in touched(tree).items() if t != before[k]] == ['001/nm-01/090/000.pkl']


def test_touched_poses_are_kept_and_changed_ones_drawn(tree, small, capsys):
    before, folder = touched(tree), tree/'pose'/'002'/'nm-01'/'090'
    os.utime(folder/'000.pkl', ns=(5, 5))
    pose = load_pickle(folder/'001.pkl')
    stamp = (folder/'001.pkl').stat()
    save_pickle(pose[::-1].copy(), folder/'001.pkl')  # as long as before
    assert (folder/'001.pkl').stat().st_size == stamp.st_size
    capsys.readouterr()
    assert run(tree) == 1
    assert last(capsys).startswith('1 file drawn, 1 failed, 11 were there')
    assert [k for k, i in touched(tree).items() if before[k] != i] == ['002/nm-01/090/001.pkl']
    assert m.read_manifest(tree/OUT).records['002/nm-01/090/000.pkl'].mtime_ns == 5
    np.testing.assert_array_equal(load_pickle(tree/OUT/'pkl'/'002/nm-01/090/001.pkl'), pose_to_heatmap(pose[::-1]))


def test_pictures_follow_their_sequence(tree):
    "A shorter pose leaves no pictures of frames that it no longer has; one that turned bad leaves none."
    first, second = (tree/'pose'/s/'nm-01'/'090'/'000.pkl' for s in ('000', '001'))
    save_pickle(load_pickle(first)[:2], first)
    save_pickle(np.zeros((2, 2)), second)
    assert run(tree) == 1
    assert sorted(p.name for p in (tree/OUT/'images'/'000'/'nm-01'/'090').iterdir()) == ['bone_0.jpg', 'bone_1.jpg',
        'pose_0.jpg', 'pose_1.jpg']
    assert not any((tree/OUT/'images'/'001'/'nm-01'/'090').iterdir())
    assert not (tree/OUT/'pkl'/'001/nm-01/090/000.pkl').exists()
    assert '001/nm-01/090/000.pkl' not in m.read_manifest(tree/OUT).records


def test_maps_without_pose_are_listed_and_kept(tree, capsys):
    (tree/'pose'/'003'/'nm-01'/'090'/'001.pkl').unlink()
    for _ in range(2):
        assert run(tree) == 1
        assert 'kept, though their pose file is gone: 003/nm-01/090/001.pkl' in capsys.readouterr().out
    assert json.loads((tree/OUT/'report.json').read_text())['maps_without_pose'] == ['003/nm-01/090/001.pkl']
    assert run(tree, overwrite=True) == 1
    assert json.loads((tree/OUT/'report.json').read_text())['maps_without_pose'] == []
    assert not (tree/OUT/'pkl'/'003/nm-01/090/001.pkl').exists()


def test_two_poses_of_one_name(tree, capsys):
    folder = tree/'pose'/'001'/'nm-01'/'090'
    np.save(folder/'001.npy', load_pickle(folder/'001.pkl'))
    assert run(tree) == 1
    out = capsys.readouterr().out
    assert f"failed: {folder/'001.npy'}: 001.npy and 001.pkl would both become 001.pkl; keep one of them" in out
    assert '0 files drawn, 2 failed, 11 were there' in out
    assert not (tree/OUT/'pkl'/'001/nm-01/090/001.pkl').exists()
    (folder/'001.pkl').unlink()  # the other one takes its place
    assert run(tree) == 1 and '001/nm-01/090/001.npy' in m.read_manifest(tree/OUT).records
    assert (tree/OUT/'pkl'/'001/nm-01/090/001.pkl').exists()


def test_strays_and_notices_come_from_the_state(tree, capsys):
    save_pickle(np.zeros((4, 17, 3)), tree/'pose'/'lost.pkl')
    (tree/'cfg.yaml').write_text('coco18tococo17_args: {transfer_to_coco17: true}')
    for expect in ('12 files drawn', '0 files drawn'):
        assert run(tree, ext_name='x', heatmap_cfg_path=str(tree/'cfg.yaml')) == 1
        out = capsys.readouterr().out
        assert expect in out and 'warning: 12 files: transfer_to_coco17 is True' in out
        assert 'ignored, not at <subject>/<type>/<view>/: lost.pkl' in out
    report = json.loads((tree/'maps'/'mine_sigma_8.0_x'/'report.json').read_text())
    assert report['strays'] == ['lost.pkl'] and list(report['notices'].values()) == [12]


def test_limits(tree, capsys):
    assert run(tree, ext_name='y', max_frames=3) == 1
    out = capsys.readouterr().out
    assert '0 files drawn, 13 failed' in out and out.count('failed: ') == 13


# --- settings


def settings_file(root, text):
    (root/'cfg.yaml').write_text(text)
    return str(root/'cfg.yaml')


def test_changed_settings_never_mix(tree, small):
    cfg = settings_file(tree, 'align_args: {align: false, offset: 3}')
    before = files(tree/OUT)
    with pytest.raises(SkeletonGaitError,
                       match=r'12 maps were drawn with other settings: align was True and is False, '
                             r'offset was 0 and is 3; choose another --ext_name or --save_root.*--overwrite'):
        run(tree, heatmap_cfg_path=cfg)
    assert files(tree/OUT) == before
    assert run(tree, heatmap_cfg_path=cfg, ext_name='other') == 1 and finished(tree, small)
    assert run(tree, heatmap_cfg_path=cfg, overwrite=True) == 1
    assert files(tree/OUT/'pkl') == files(tree/'maps'/'mine_sigma_8.0_other'/'pkl') != files(small/OUT/'pkl')
    assert files(tree/OUT/'pkl').keys() == files(small/OUT/'pkl').keys()
    assert run(tree, overwrite=True) == 1 and finished(tree, small)


def test_a_new_version_of_the_drawing_is_a_changed_setting(tree, monkeypatch):
    monkeypatch.setattr(m, 'DRAWING', m.DRAWING + 1)
    with pytest.raises(SkeletonGaitError, match='version of the drawing was 1 and is 2'):
        run(tree)


def test_a_new_version_of_the_library_changes_no_setting(tree, small, monkeypatch):
    monkeypatch.setattr(m, '__version__', '99.0')
    (tree/OUT/'pkl/001/nm-01/090/000.pkl').unlink()
    assert run(tree) == 1 and finished(tree, small)


def test_maps_of_another_program(tree, small):
    (tree/OUT/'manifest.jsonl').unlink()
    with pytest.raises(SkeletonGaitError, match='holds 12 maps but no manifest.jsonl'):
        run(tree)
    assert run(tree, overwrite=True) == 1 and finished(tree, small)


@pytest.mark.parametrize('head', ['[1]', '', '{}', '{"settings": null}', '{"settings": 3}', 'nonsense'])
def test_damaged_header(tree, small, head):
    (tree/OUT/'manifest.jsonl').write_text(f'{head}\n')
    with pytest.raises(SkeletonGaitError, match='first line is not a header.*--overwrite'):
        run(tree)
    assert run(tree, overwrite=True) == 1 and finished(tree, small)


def test_mistakes_on_the_command_line(tree, small):
    for kw, says in ((dict(ext_name='a/b'), '--ext_name=a/b: has a slash'),
        (dict(patience=float('nan')), '--patience=nan: expected seconds'), (dict(patience=-1.), '--patience')):
        with pytest.raises(SkeletonGaitError, match=says):
            run(tree, **kw)
    with pytest.raises(SkeletonGaitError, match='--dataset_name=x/mine: has a slash'):
        pretreatment_heatmap(str(tree/'pose'), str(tree/'maps'), 'x/mine')
    for save_root, poses in ((tree/'pose', tree/'pose'), (tree/'maps', tree/OUT/'pkl'), (tree/'maps', tree/OUT)):
        with pytest.raises(SkeletonGaitError, match='must not lie inside each other'):
            pretreatment_heatmap(str(poses), str(save_root), 'mine', overwrite=True)
    assert files(tree) == files(small)


class Killed(BaseException): "Stands for SIGKILL: nothing below it runs."


def dies_in(where, name, after, patch):
    "The function runs `after` times, then the run dies."
    real, calls = getattr(where, name), []
    def dies(*args):
        calls.append(args)
        if len(calls) > after: raise Killed
        return real(*args)
    patch.setattr(where, name, dies)


@pytest.mark.parametrize('where, name, after', [
    (module, 'start_over', 0), (module, 'remove_all', 0), (module, 'clear', 0),
    (m, 'remove_all', 0), (m, 'remove_all', 1), (Path, 'unlink', 7),
    (module, 'write_manifest', 0), (module, 'draw_file', 0), (module, 'draw_file', 5)],
    ids=lambda v: getattr(v, '__name__', str(v)).split('.')[-1])
def test_killed_while_overwriting(tree, small, monkeypatch, where, name, after):
    "Wherever --overwrite ends, the old maps are all there, or a plain second run finishes; never a mixture."
    (tree/'pose'/'003'/'nm-01'/'090'/'gone.pkl').write_bytes((tree/'pose'/'003'/'nm-01'/'090'/'001.pkl').read_bytes())
    cfg = settings_file(tree, 'align_args: {align: false}')
    assert run(tree, heatmap_cfg_path=cfg, overwrite=True) == 1
    (tree/'pose'/'003'/'nm-01'/'090'/'gone.pkl').unlink()
    if where is Path:  # in the middle of clearing
        real, n = m.remove_all, []
        def some(files):
            n.extend(files)
            real(n[:after])
            raise Killed
        where, name = m, 'remove_all'
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(m, 'remove_all', some)
            run(tree, overwrite=True)
    else:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            dies_in(where, name, after, patch)
            run(tree, overwrite=True)
    begun = m.read_manifest(tree/OUT).header['settings']['align']
    assert begun == (name != 'start_over')
    if not begun:
        with pytest.raises(SkeletonGaitError, match='13 maps were drawn with other .*: align was False and is True'):
            run(tree)
        assert len(touched(tree)) == 13
    assert run(tree, overwrite=not begun) == 1 and finished(tree, small)


def test_overwrite_removes_what_the_manifest_lists(tree, small, capsys):
    "What no run of this folder has drawn stays, and is said; so does what lies beyond a link."
    (tree/'pose'/'003'/'nm-01'/'090'/'001.pkl').unlink()  # its maps are listed, and go
    others = ['pkl/000/nm-01/090/foreign.pkl', 'pkl/000/nm-01/090/notes.txt', 'pkl/zz/t/v/x.pkl', 'images/mine.jpg']
    (tree/OUT/'images').rename(tree/'elsewhere')
    (tree/OUT/'images').symlink_to(tree/'elsewhere')
    for name in others:
        (tree/OUT/name).parent.mkdir(parents=True, exist_ok=True)
        (tree/OUT/name).write_bytes(b'mine')
    for overwrite in (True, False):
        capsys.readouterr()
        assert run(tree, overwrite=overwrite) == 1
        out = capsys.readouterr().out
        assert all(f'warning: kept, though no run of this folder has drawn it: {name}' in out for name in others)
        assert 'pose file is gone' not in out
        report = json.loads((tree/OUT/'report.json').read_text())
        assert report['unlisted'] == sorted(others)
        assert report['maps_without_pose'] == ['000/nm-01/090/foreign.pkl', 'zz/t/v/x.pkl']
    assert all((tree/OUT/name).read_bytes() == b'mine' for name in others) and (tree/OUT/'images').is_symlink()
    kept = {name.removeprefix('pkl/'): b'mine' for name in others if name.startswith('pkl/')}
    wanted = {k: v for k, v in files(small/OUT/'pkl').items() if k != '003/nm-01/090/001.pkl'}
    assert files(tree/OUT/'pkl') == wanted | kept
    assert files(tree/'elsewhere') == files(small/OUT/'images') | {'mine.jpg': b'mine'}


@pytest.mark.parametrize('where, name, after',
    [(module, 'collect_records', 0), (module, 'save_state', 0), (module, 'write_manifest', 0), (module, 'save_text', 0),
     (module, 'summary', 0)], ids=lambda v: str(v) if isinstance(v, str) else '')
def test_killed_at_the_end(tree, small, monkeypatch, capsys, where, name, after):
    (tree/OUT/'pkl/001/nm-01/090/000.pkl').unlink()
    assert run(tree) == 1  # so that the manifest is as the next run wants it, and is written at its end only
    (tree/'pose'/'002'/'nm-01'/'090'/'new.pkl').write_bytes((tree/'pose'/'002'/'nm-01'/'090'/'000.pkl').read_bytes())
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies_in(where, name, after, patch)
        run(tree)
    capsys.readouterr()
    assert run(tree) == 1
    assert last(capsys).startswith('0 files drawn, 1 failed, 13 were there already')
    (tree/'pose'/'002'/'nm-01'/'090'/'new.pkl').unlink()
    (tree/OUT/'pkl/002/nm-01/090/new.pkl').unlink()
    assert run(tree) == 1 and finished(tree, small)


# --- journals


def killed_run(root, monkeypatch, after):
    "A run that dies after `after` files."
    real, n = module.draw_file, []
    def dies(*args):
        n.append(args)
        if len(n) > after: raise Killed
        return real(*args)
    with monkeypatch.context() as patch:
        patch.setattr(module, 'draw_file', dies)
        with pytest.raises(Killed):
            run(root)


def test_journals_of_killed_runs_are_gathered(tree, small, monkeypatch, capsys):
    shutil.rmtree(tree/'maps')
    for after in (4, 3):
        killed_run(tree, monkeypatch, after)
    assert len(m.read_manifest(tree/OUT).records) == 4 and len(list((tree/OUT/'journal').iterdir())) == 1
    assert run(tree) == 1 and finished(tree, small)
    assert last(capsys).startswith('5 files drawn, 1 failed, 7 were there already')


@pytest.mark.parametrize('cut', [1, 40, 150])
def test_a_truncated_journal_line_is_not_a_record(tree, small, monkeypatch, capsys, cut):
    shutil.rmtree(tree/'maps')
    killed_run(tree, monkeypatch, 6)
    journal, = (tree/OUT/'journal').iterdir()
    journal.write_bytes(journal.read_bytes()[:-1 - cut])
    assert run(tree) == 1 and finished(tree, small)
    assert last(capsys).startswith('7 files drawn, 1 failed, 5 were there already')


def test_leftovers_are_removed(tree, small):
    for name in ('pkl/001/nm-01/090/.000.pkl.there-17.tmp', 'images/000/nm-01/090/.bone_0.jpg.there-17.tmp',
                 '.manifest.jsonl.there-17.tmp', 'pkl/001/nm-01/090/.000.pkl.17.tmp'):
        (tree/OUT/name).write_text('half')
        assert is_leftover(Path(name).name)
    assert run(tree) == 1 and finished(tree, small)


names = st.text(min_size=1, max_size=5)
parts = names.filter(lambda s: not {'/', '\0', '\\'} & set(s) and s not in ('.', '..'))
paths = st.lists(parts, min_size=1, max_size=4).map('/'.join)
counts = st.integers(0, 2**63 - 1)
records = st.builds(
    m.Record, pose=paths, size=counts, mtime_ns=st.integers(-2**63, 2**63 - 1), sha256=names, bytes=counts,
    frames=st.integers(1, 2**63 - 1),
    notices=st.lists(names, max_size=2).map(tuple), window=counts,
    findings=st.lists(names, max_size=2).map(tuple))


@given(st.lists(records, max_size=6, unique_by=lambda r: r.pose), st.data())
def test_manifest_and_journals_round_trip(tmp_path_factory, rs, data):
    out = tmp_path_factory.mktemp('m')
    m.write_manifest(out, m.Manifest(m.make_header(HeatmapConfig()), {r.pose: r for r in rs}))
    assert m.read_manifest(out).records == {r.pose: r for r in rs}
    (out/'j').touch()
    for r in rs:
        m.add_record(out/'j', r)
    raw = (out/'j').read_bytes() if rs else b''
    n = data.draw(st.integers(0, len(raw)))
    (out/'j').write_bytes(raw[:n])
    whole = raw[:n + 1].count(b'\n')  # a line that lacks only its end is whole
    assert m.read_journals([out/'j']) == {r.pose: r for r in rs[:whole]}


@given(st.sampled_from(['sigma', 'img_h', 'use_conf', 'offset', 'pad_method', 'min_conf', 'joints_off',
                        'leave_out_unseen']))
def test_every_setting_counts(name):
    other = replace(HeatmapConfig(), **{name: {'sigma': 3., 'img_h': 64, 'use_conf': False, 'offset': 2,
                                               'pad_method': 'simple', 'min_conf': .2, 'joints_off': ('nose',),
                                               'leave_out_unseen': True}[name]})
    difference, = m.settings_difference(m.make_header(HeatmapConfig()), m.make_header(other))
    assert difference.startswith(f'{name} was ')
    header = json.loads(json.dumps(m.make_header(other)))                                # as it is read again
    assert m.settings_difference(header, m.make_header(other)) == [] and HeatmapConfig(**header['settings']) == other


def test_headers_of_earlier_releases_stay_valid():
    "Settings that came later are named only where they are set: their absence means their default."
    earlier = dict(transfer_to_coco17=False, pad_method='knn', impute_others=False, use_conf=True, pose_format='coco',
                   image_size=128, sigma=8., img_h=128, img_w=128, align=True, final_img_size=64, offset=0, centre=64)
    header = m.make_header(HeatmapConfig(sigma=8))
    assert header['settings'] == earlier and list(header['settings']) == list(earlier)
    assert m.settings_difference(header, m.make_header(HeatmapConfig(min_conf=.25))) == ['min_conf was 0.0 and is 0.25']
    assert m.settings_difference(m.make_header(HeatmapConfig(joints_off=('nose',))),
                                 header) == ["joints_off was ['nose'] and is []"]


# --- trouble with writing


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES])
@pytest.mark.parametrize('where', ['save_pickle', 'add_record', 'save_text'])
def test_output_errors_stop_at_once(tree, small, monkeypatch, capsys, code, where):
    shutil.rmtree(tree/'maps')
    real, calls = getattr(module, where), []
    def fails(*args):
        calls.append(args)
        if len(calls) == 4 or where == 'save_text':
            with m.writing(args[0] if where == 'add_record' else args[1]):
                raise OSError(code, os.strerror(code))
        return real(*args)
    with monkeypatch.context() as patch:
        patch.setattr(module, where, fails)
        assert run(tree) == 1
    out = capsys.readouterr().out
    assert out.count('stopped: ') == 1 and os.strerror(code) in out and 'run the same command again' in out
    if where != 'save_text':
        assert len(calls) == 4 and '3 of 13 files drawn' in out
        assert json.loads((tree/OUT/'report.json').read_text())['left'] == 10
    assert not [p for p in (tree/OUT).rglob('*') if is_leftover(p.name)]
    assert run(tree) == 1 and finished(tree, small)
    assert last(capsys).startswith(f"{0 if where == 'save_text' else 9} files drawn")


def test_an_error_with_one_target_stops_nothing(tree, capsys):
    "A folder stands where maps should be."
    target = tree/OUT/'pkl/001/nm-01/090/000.pkl'
    target.unlink()
    (target/'x').mkdir(parents=True)
    assert run(tree) == 1
    assert f"failed: {tree/'pose/001/nm-01/090/000.pkl'}: Is a directory" in capsys.readouterr().out


def test_an_unreadable_pose_stops_nothing(tree, monkeypatch, capsys):
    real = module.load_array
    def unreadable(path, limits):
        if path.name == '001.pkl':
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, limits)
    monkeypatch.setattr(module, 'load_array', unreadable)
    assert run(tree, ext_name='z') == 1
    out = capsys.readouterr().out
    assert out.count('001.pkl: Permission denied') == 5 and '7 files drawn, 6 failed' in out


def test_a_pose_that_cannot_be_read_keeps_its_maps(tree, small, monkeypatch, capsys):
    pose = tree/'pose'/'001'/'nm-01'/'090'/'000.pkl'
    pose.rename(tree/'aside')
    pose.symlink_to('nowhere')
    for _ in range(2):
        assert run(tree) == 1
        out = capsys.readouterr().out
        assert f'failed: {pose}: No such file or directory' in out
        assert '0 files drawn, 2 failed, 12 were there already' in out and 'removed' not in out
    pose.unlink()
    (tree/'aside').rename(pose)
    before = touched(tree)
    assert run(tree) == 1 and finished(tree, small) and touched(tree) == before
    os.utime(pose, ns=(5, 5))  # so that its content would decide
    def unreadable(path): raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    with monkeypatch.context() as patch:
        patch.setattr(module, 'file_sha256', unreadable)
        assert run(tree) == 1 and touched(tree) == before
        assert f'failed: {pose}: Permission denied' in capsys.readouterr().out
    pose.write_bytes(b'x'*pose.stat().st_size)  # cannot be read first, then can, and is no pose
    find_fresh = module.find_fresh
    def blind(*args):
        with monkeypatch.context() as patch:
            patch.setattr(module, 'file_sha256', unreadable)
            return find_fresh(*args)
    monkeypatch.setattr(module, 'find_fresh', blind)
    assert run(tree) == 1 and '1 earlier map removed' in capsys.readouterr().out
    assert '001/nm-01/090/000.pkl' not in m.read_manifest(tree/OUT).records
    assert '001/nm-01/090/000.pkl' not in touched(tree)


def test_a_folder_that_cannot_be_listed(tree, monkeypatch, capsys):
    real, before = os.scandir, touched(tree)
    def scandir(path):
        if str(path) == str(tree/'pose'/'002'):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, 'scandir', scandir)
        assert run(tree) == 1
    out = capsys.readouterr().out
    assert f"failed: {tree/'pose'/'002'}: Permission denied" in out
    assert '0 files drawn, 2 failed' in out and touched(tree) == before
    assert run(tree) == 1 and touched(tree) == before
    assert '0 files drawn, 1 failed, 12 were there already' in capsys.readouterr().out


def test_pipes_and_changing_files(tree, small, monkeypatch, capsys):
    "A pipe, also in place of a known file, does not make the run wait; a file that changes meanwhile is not recorded."
    os.mkfifo(tree/'pose'/'000'/'nm-01'/'090'/'new.pkl')
    known = tree/'pose'/'001'/'nm-01'/'090'/'000.pkl'
    data = known.read_bytes()
    known.unlink()
    os.mkfifo(known)
    assert run(tree) == 1 and capsys.readouterr().out.count('not a regular file') == 2
    (tree/'pose'/'000'/'nm-01'/'090'/'new.pkl').unlink()
    known.unlink()
    known.write_bytes(data)
    real = module.load_array
    def changing(path, limits):
        array = real(path, limits)
        if path == known:
            os.utime(path, ns=(7, 7))
        return array
    with monkeypatch.context() as patch:
        patch.setattr(module, 'load_array', changing)
        assert run(tree) == 1 and 'changed while it was read' in capsys.readouterr().out
        assert '001/nm-01/090/000.pkl' not in touched(tree)
    assert run(tree) == 1 and files(tree/OUT/'pkl') == files(small/OUT/'pkl')


def test_long_names(tree):
    name = 'x'*251 + '.pkl'
    (tree/'pose'/'000'/'nm-01'/'090'/name).write_bytes((tree/'pose'/'000'/'nm-01'/'090'/'000.pkl').read_bytes())
    assert run(tree) == 1 and f'000/nm-01/090/{name}' in touched(tree)


def test_no_place_for_compiled_code(tree, small, monkeypatch, capsys):
    (tree/OUT/'pkl'/'001/nm-01/090/000.pkl').unlink()
    def full(): raise SkeletonGaitError('__pycache__: compiled code cannot be stored there')
    with monkeypatch.context() as patch:
        patch.setattr(module, 'compile_loops', full)
        assert run(tree) == 1
    out = capsys.readouterr().out
    assert 'stopped: rank 0: __pycache__: compiled code cannot be stored there; 0 of 2 files drawn' in out
    assert 'failed:' not in out and len(touched(tree)) == 11
    assert run(tree) == 1 and finished(tree, small)


def test_installations_that_may_not_take_a_share(tree):
    header = m.make_header(HeatmapConfig())
    assert module.refusal(header, tree/'pose', tree/OUT) == ''
    assert f"{tree/'none'}: no such folder on " in module.refusal(header, tree/'none', tree/OUT)
    assert f"{tree/'none'}: no such folder on " in module.refusal(header, tree/'pose', tree/'none')
    assert module.refusal(m.make_header(HeatmapConfig(min_conf=.2, joints_off=('nose',))), tree/'pose', tree/OUT) == ''
    for other in (header | dict(drawing=0), header | dict(settings={'sigma': 8.0}),
                  header | dict(settings=header['settings'] | {'newer': 1})):
        assert 'install the same version' in module.refusal(other, tree/'pose', tree/OUT)


ARGS = '--pose_data_path=pose --save_root=maps --dataset_name=mine'


def test_read_only_disk(tree, small):
    shutil.rmtree(tree/'maps')
    (tree/'maps').mkdir()
    done = in_namespace('mount -t tmpfs -o ro none maps && '
                        f'python -m skeletongait.pretreatment_heatmap {ARGS}; r=$?; umount maps; exit $r', tree)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'stopped: maps/mine_sigma_8.0_' in done.stdout and 'cannot be written: Read-only file system' in done.stdout
    assert run(tree) == 1 and finished(tree, small)


# --- real processes


def begin(command, root, **env):
    "Start a process in `root`, its output in files."
    return subprocess.Popen([*map(str, command)], cwd=root, env=environment(**env), stdout=open(root/'out.txt', 'w'),
                            stderr=open(root/'err.txt', 'w'), text=True)


def by_hand(rank, world, port, root, *args, program=('-m', 'skeletongait.pretreatment_heatmap')):
    "A rank started without a launcher."
    return subprocess.Popen([sys.executable, *program, *ARGS.split(), *args],
        cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port)))


def count(root):
    "Maps that are there now; all of a tree made by `write_poses` are in few folders."
    return sum(name.endswith('.pkl') and not name.startswith('.') for d in (root/OUT/'pkl').glob('*/*/*')
               for name in os.listdir(d))


def begun(root, ranks):
    "How many of these ranks have drawn something."
    return sum(p.stat().st_size > 0 for p in (root/OUT/'journal').glob(f'*-{ranks}-*-*.jsonl'))


def recorded(root):
    "Pose files whose maps have a record."
    return {r.pose for p in [root/OUT/'manifest.jsonl', *(root/OUT/'journal').glob('*')]
            for r in map(m.from_line, p.read_bytes().split(b'\n')) if r}


@pytest.fixture(scope='session')
def large(tmp_path_factory):
    "A larger tree, drawn by one process without disturbance."
    root = tmp_path_factory.mktemp('large')
    write_poses(root/'pose', 12, N//12, 6)
    (root/'pose'/'011'/'nm-01'/'090'/'bad.pkl').unlink()
    assert run(root) == 0
    return root


@pytest.fixture
def blank(large, tmp_path):
    "Its poses, nothing drawn."
    shutil.copytree(large/'pose', tmp_path/'x'/'pose')
    return tmp_path/'x'


@pytest.mark.parametrize('number', [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_tidily(blank, large, number, capsys):
    process = begin([sys.executable, '-m', 'skeletongait.pretreatment_heatmap', *ARGS.split()], blank)
    wait_for(lambda: count(blank) > N//10, process)
    process.send_signal(number)
    assert process.wait(60) == 130
    err = (blank/'err.txt').read_text()
    assert f'pretreatment_heatmap: stopped by {number.name}' in err.splitlines()[-1]
    assert 'nothing is lost' in err and 'Traceback' not in err
    assert not [p for p in (blank/OUT).rglob('*') if is_leftover(p.name)]
    done = recorded(blank)
    assert N//10 <= len(done) < N
    assert run(blank) == 0 and finished(blank, large)
    assert f'{N + 2 - len(done)} files drawn, 0 failed, {len(done)} were there already' in capsys.readouterr().out


PAUSES = """
import os, signal, sys
from skeletongait import core
from skeletongait.cli import run_script
from skeletongait.prepare import render_tree as module
from skeletongait.pretreatment_heatmap import pretreatment_heatmap
where, real, n = {where}, {where}.{name}, []
def pauses(*args, **kw):
    n.append(1)
    if len(n) == {at}: os.kill(os.getpid(), signal.{signal})
    return real(*args, **kw)
where.{name} = pauses
sys.exit(run_script(pretreatment_heatmap, sys.argv[1:]))
"""


def pause(root, where, name, at, how='SIGSTOP'):
    "A run that sends itself a signal at the `at`-th call of a function; returned when it has."
    process = begin([sys.executable, '-c', PAUSES.format(where=where, name=name, at=at, signal=how), *ARGS.split()],
                    root)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status) or os.WIFSIGNALED(status), (root/'err.txt').read_text()
    return process


PLACES_TO_STOP = [('module', 'pose_to_heatmap', 4), ('core._Pickler', 'dump', 4), ('module', 'do_share', 1),
                  ('module', 'add_record', 3), ('module', 'remove_outputs', 1), ('module', 'collect_records', 1),
                  ('module', 'save_state', 1)]


@pytest.mark.parametrize('other', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize('where, name, at', [
    ('core.os', 'fsync', 40), *(pytest.param(*o, marks=pytest.mark.slow) for o in PLACES_TO_STOP)])
def test_a_run_that_was_replaced_touches_nothing(tree, small, where, name, at, other):
    "A run is stopped anywhere, and another one draws everything (or with other settings); resumed, it changes nothing."
    shutil.rmtree(tree/'maps')
    process = pause(tree, where, name, at)
    kw = dict(heatmap_cfg_path=settings_file(tree, 'align_args: {align: false}'), overwrite=True) if other else {}
    assert run(tree, **kw) == 1
    after, stamps = files(tree/OUT), touched(tree)
    assert other or finished(tree, small)
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 2, (tree/'out.txt').read_text()
    err = (tree/'err.txt').read_text()
    assert 'another run has taken over; this one stops' in err and 'Traceback' not in err
    assert files(tree/OUT) == after and touched(tree) == stamps


@pytest.mark.slow
@pytest.mark.parametrize('name', ['manifest.jsonl', 'report.json'])
def test_killed_in_the_final_write(tree, small, name):
    "By SIGKILL, when the new file is whole but has not taken its place."
    shutil.rmtree(tree/'maps')
    at = {'manifest.jsonl': 2, 'report.json': 1}[name]
    code = PAUSES.replace('n.append(1)', f"str(args[1]).endswith('{name}') and n.append(1)").format(where='core.os',
        name='replace', at=at, signal='SIGKILL')
    process = begin([sys.executable, '-c', code, *ARGS.split()], tree)
    assert process.wait(60) == -signal.SIGKILL
    assert any(is_leftover(p.name) for p in (tree/OUT).iterdir())
    before = touched(tree)
    assert len(before) == 12
    assert run(tree) == 1 and finished(tree, small) and touched(tree) == before


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(4))
def test_two_runs_at_once(blank, large, seed):
    "At least one of them ends well, none with a traceback."
    for k in range(2):
        (blank/str(k)).mkdir()
        (blank/str(k)/'pose').symlink_to(blank/'pose')
        (blank/str(k)/'maps').symlink_to(blank/'maps')
    (blank/'maps').mkdir()
    runs = []
    for k in range(2):
        runs.append(begin([sys.executable, '-m', 'skeletongait.pretreatment_heatmap', *ARGS.split()], blank/str(k)))
        time.sleep(.15*seed)
    codes = [p.wait(120) for p in runs]
    said = [(blank/str(k)/'err.txt').read_text() for k in range(2)]
    assert 0 in codes and set(codes) <= {0, 2} and 'Traceback' not in ''.join(said), (codes, said)
    assert all('another run has taken over' in s for s, c in zip(said, codes) if c == 2)
    assert run(blank) == 0 and finished(blank, large)


def test_a_machine_that_does_not_see_the_poses(blank, large, tmp_path):
    port = free_port()
    (tmp_path/'elsewhere').mkdir()
    ranks = [by_hand(k, 2, port, root) for k, root in enumerate((blank, tmp_path/'elsewhere'))]
    said = [p.communicate(timeout=120) for p in ranks]
    assert [p.returncode for p in ranks] == [1, 0]
    assert 'stopped: rank 1: pose: no such folder on ' in said[0][0]
    assert f'{N//2 + 1} files left' in said[0][0] and 'failed:' not in said[0][0]
    assert run(blank) == 0 and finished(blank, large)


@pytest.mark.parametrize('how', [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_lost_rank_is_reported_and_its_share_left(blank, large, how):
    port = free_port()
    ranks = [by_hand(k, 2, port, blank, '--patience=2') for k in range(2)]
    wait_for(lambda: begun(blank, '1') == 1, ranks[0])
    ranks[1].send_signal(how)
    out, err = ranks[0].communicate(timeout=120)
    if how == signal.SIGKILL:
        ranks[1].communicate()
    assert ranks[0].returncode == 1 and 'Traceback' not in err, err
    assert 'rank 1 has been silent for 2 s' in out and 'lost: rank 1; ' in out
    assert 'run the same command again' in out
    report = json.loads((blank/OUT/'report.json').read_text())
    assert report['lost'] == [dict(rank=1, files=report['left'])] and 0 < report['left'] <= N//2 + 1
    assert report['maps'] == N + 2 - report['left']
    assert run(blank) == 0 and finished(blank, large)
    if how == signal.SIGSTOP:  # not dead: it comes back, sees that others have done its work, and leaves that alone
        ranks[1].send_signal(signal.SIGCONT)
        err = ranks[1].communicate(timeout=60)[1]
        assert ranks[1].returncode == 2 and 'another run has taken over; this one stops' in err
        assert 'Traceback' not in err
        assert finished(blank, large)


LONG = """
import sys, time
from skeletongait.cli import run_script
from skeletongait.prepare import render_tree as module
from skeletongait.pretreatment_heatmap import pretreatment_heatmap
real = module.pose_to_heatmap
def long(*args):
    end = time.monotonic() + {seconds}
    maps = real(*args)
    while time.monotonic() < end: maps = real(*args)
    return maps
module.pose_to_heatmap = long
sys.exit(run_script(pretreatment_heatmap, sys.argv[1:]))
"""


def at_long_files(root, seconds, patience):
    "Two ranks with one file of 1,000 frames each; rank 1 draws its own over and over, for so many seconds."
    for i in range(2):
        save_pickle(make_sequence(0, i, 'nm-01', '090', 1000).pose, root/'pose'/f'{i:03d}'/'nm-01'/'090'/'0.pkl')
    port = free_port()
    def program(k): return '-c', LONG.format(seconds=seconds*k)
    return [by_hand(k, 2, port, root, f'--patience={patience}', program=program(k)) for k in range(2)]


def test_a_rank_that_hangs_falls_silent(monkeypatch):
    "After the longest time at one file; as soon as it goes on it is heard of again."
    monkeypatch.setattr(module, 'MOST_SECONDS', .2)
    board = Board()
    with module.Heartbeat(board, 1) as tell:
        first = board.wait('beat/1', 60)
        time.sleep(1.5)
        assert board.read('beat/1') == first
        tell(1)
        monkeypatch.setattr(module, 'MOST_SECONDS', 60)
        while board.read('beat/1') == first:
            time.sleep(.05)
        assert board.read('done/1') == 1


def test_no_rank_is_lost_while_rank_0_does_not_look(monkeypatch):
    "Rank 0 draws for long itself, or all ranks were suspended: others get the whole patience from its next look on."
    now, job = [0.], module.Job('a/t/v/x.pkl', False)
    monkeypatch.setattr(module.time, 'monotonic', lambda: now[0])
    board = Board()
    with module.tqdm(total=1, file=io.StringIO()) as bar:
        watch = module.ProgressWatch(board, [[], [job]], 4, bar)
        for t, silent in ((1, False), (1000, False), (1002, False), (1003.9, False), (1004.1, True)):
            now[0] = t
            watch(0)
            assert (1 in watch.silent) == silent and watch.waits() != silent, t
        board.post('beat/1', 7) # it was not dead
        now[0] = 1005
        watch(0)
        assert watch.waits() and not watch.silent


def test_a_lost_board_is_a_lost_rank(monkeypatch):
    board = Board()
    with module.tqdm(total=1, file=io.StringIO()) as bar:
        watch = module.ProgressWatch(board, [[], [module.Job('a/t/v/x.pkl', False)]], 60, bar)
        def gone(key): raise LostRankError('gone')
        monkeypatch.setattr(board, 'read', gone)
        watch(0)
        assert not watch.waits()


@pytest.mark.slow
def test_a_rank_at_one_long_file_is_not_lost(tmp_path):
    "It works four times as long as rank 0's patience."
    ranks = at_long_files(tmp_path, 12, 3)
    said = [p.communicate(timeout=120) for p in ranks]
    assert [p.returncode for p in ranks] == [0, 0], said
    assert 'lost' not in said[0][0] and 'silent' not in said[0][0] and '2 files drawn, 0 failed' in said[0][0]
    assert said[0][0].count('rank 1 has been working on "001/nm-01/090/0.pkl" for ') == 1


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_ends_at_a_long_file_is_lost(tmp_path, how):
    ranks = at_long_files(tmp_path, 60, 2)
    lines = iter(ranks[0].stdout.readline, '')
    assert any('rank 1 has been working on ' in line for line in lines)
    ranks[1].send_signal(how)
    said = ''.join(lines)
    assert ranks[0].wait(30) == 1 and 'lost: rank 1; 1 file left to the next run' in said
    ranks[1].kill()
    ranks[1].communicate()


def test_without_rank_0_the_others_finish_their_share(blank, large):
    port = free_port()
    ranks = [by_hand(k, 2, port, blank) for k in range(2)]
    wait_for(lambda: begun(blank, '1') == 1, ranks[1])
    ranks[0].kill()
    ranks[0].communicate()
    out, err = ranks[1].communicate(timeout=120)
    assert ranks[1].returncode == 2 and 'pretreatment_heatmap (rank 1): ' in err
    assert f'This rank drew {N//2 + 1} of {N//2 + 1} files' in err
    assert len(recorded(blank)) >= N//2 + 1
    assert run(blank) == 0 and finished(blank, large)


def test_a_mistake_is_reported_once_by_rank_0(tmp_path):
    port = free_port()
    (tmp_path/'pose').mkdir()
    ranks = [by_hand(k, 2, port, tmp_path) for k in range(2)]
    said = [p.communicate(timeout=120) for p in ranks]
    assert [p.returncode for p in ranks] == [2, 0]
    assert 'pose: found no file' in said[0][1] and said[1] == ('', '')


def test_ranks_that_cannot_connect(monkeypatch):
    for k, v in dict(RANK='1', WORLD_SIZE='2').items():
        monkeypatch.setenv(k, v)
    for k in ('MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(k, raising=False)
    with pytest.raises(LostRankError, match='cannot connect to each other.*MASTER_ADDR'):
        Board(1)
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', str(free_port()))
    with pytest.raises(LostRankError, match='cannot connect to each other'):
        Board(1)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda o: st.lists(o) | st.dictionaries(st.text(), o),
                    max_leaves=8), st.integers(1, 9))
def test_long_notices(obj, part):
    board = Board(part=part)
    board.post('k', obj)
    assert board.read('k') == obj and board.read('l') is None


def command(n, *args):
    "The script with `n` ranks."
    launcher = [sys.executable] if n == 1 else [BIN/'torchrun', f'--nproc_per_node={n}', f'--master_port={free_port()}']
    return [*map(str, launcher), '-m', 'skeletongait.pretreatment_heatmap', *ARGS.split(), *args]


def environment_of(pid):
    "The environment variables of a running process."
    words = Path(f'/proc/{pid}/environ').read_bytes().decode().split('\0')
    return dict(word.split('=', 1) for word in words if '=' in word)


def ranks_of(agent):
    "The processes that a launcher has started, by rank."
    pids = [pid for task in Path(f'/proc/{agent.pid}/task').iterdir() for pid in (task/'children').read_text().split()]
    env = {pid: environment_of(pid) for pid in pids}
    return {int(env[pid]['RANK']): int(pid) for pid in pids if 'RANK' in env[pid]}


def kill_all(agent, pids):
    for pid in [agent.pid, *pids]:
        os.kill(pid, signal.SIGKILL)
    agent.wait()


def assert_whole(root, whole):
    "Every map that is there is one of the whole tree's, byte for byte."
    reference = files(whole/OUT/'pkl')
    there = {k: v for k, v in files(root/OUT/'pkl').items() if not is_leftover(Path(k).name)}
    assert all(v == reference[k] for k, v in there.items())
    return len(there)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(10))
def test_killed_anywhere_and_finished_by_any_number_of_ranks(blank, large, seed):
    rng = np.random.default_rng(seed)
    at = int((.05 + .083*(seed + rng.random()))*(N + 2))
    agent = begin(command(2), blank)
    wait_for(lambda: count(blank) >= at, agent)
    pids = ranks_of(agent)
    if seed % 2:  # one rank: the launcher ends the other one
        os.kill(pids[int(rng.integers(2))], signal.SIGKILL)
        assert agent.wait(90) != 0
    else:
        kill_all(agent, pids.values())
    there = assert_whole(blank, large)
    assert .05 <= there/(N + 2) <= .95
    known = recorded(blank)
    assert there - 2 <= len(known) <= there  # at most the file that each rank was at
    before = touched(blank)
    done = subprocess.run(command(1 + seed % 3), cwd=blank, env=environment(), capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    assert finished(blank, large)
    assert f'{N + 2 - len(known)} files drawn, 0 failed, {len(known)} were there already' in done.stdout
    after = touched(blank)
    assert all(after[m.maps_name(k)] == before[m.maps_name(k)] for k in known)


@pytest.mark.slow
def test_torchrun_restarts_the_ranks(blank, large):
    agent = begin([*command(2)[:1], '--max-restarts=1', *command(2)[1:]], blank)
    wait_for(lambda: count(blank) >= N//4, agent)
    os.kill(ranks_of(agent)[1], signal.SIGKILL)
    assert agent.wait(120) == 0 and finished(blank, large), (blank/'err.txt').read_text()


@pytest.mark.slow
def test_a_notice_longer_than_the_store_takes(tmp_path):
    code = ("from skeletongait.distributed import *; b, r = Board(60), ranks()\n"
            "if r.rank: b.post('n', 'x'*20_000_000); b.wait('read', 60)\n"
            "else: assert len(b.wait('n', 60)) == 20_000_000; b.post('read', 1)")
    port = free_port()
    ranks = [begin([sys.executable, '-c', code], tmp_path, RANK=str(k), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                   MASTER_PORT=str(port)) for k in range(2)]
    assert ranks[0].wait(120) == 0, (tmp_path/'err.txt').read_text()
    ranks[1].wait(60)


@pytest.mark.slow
@pytest.mark.parametrize('n', [1, 2])
def test_full_disk(blank, large, n):
    whole = sum(p.stat().st_size for p in (large/OUT).rglob('*') if p.is_file())
    draw = ' '.join(command(n))
    (blank/'maps').mkdir()
    done = in_namespace(f"""mount -t tmpfs -o size={whole*6//10//1024}k none maps || exit 99
        {draw} > first.txt 2> first.err; echo $? > first.rc; cp -a maps first
        mount -o remount,size=1g maps
        {draw} > second.txt 2> second.err; echo $? > second.rc; cp -a maps second; umount maps""", blank)
    assert done.returncode == 0, done.stderr
    text = {name: (blank/name).read_text()
            for name in ('first.txt', 'first.err', 'first.rc', 'second.txt', 'second.rc', 'second.err')}
    # torchrun's own traceback names none of our files
    assert text['first.rc'] == '1\n' and 'skeletongait/' not in text['first.err'], text['first.err']
    assert 'No space left on device' in text['first.txt']
    assert 'fix it and run the same command again' in text['first.txt']
    (blank/'maps').rmdir()
    (blank/'first').rename(blank/'maps')
    there = assert_whole(blank, large)
    assert .2 <= there/(N + 2) <= .95 and not [p for p in (blank/OUT).rglob('*') if is_leftover(p.name)]
    known = recorded(blank)
    shutil.rmtree(blank/'maps')
    (blank/'second').rename(blank/'maps')
    assert text['second.rc'] == '0\n', text['second.err']
    assert finished(blank, large) and f'0 failed, {len(known)} were there already' in text['second.txt']


def on_node(k, n_ranks, port, *args):
    "The script on one of two machines."
    launcher = [BIN/'torchrun', '--nnodes=2', f'--node_rank={k}', f'--nproc_per_node={n_ranks}',
                '--master_addr=127.0.0.1', f'--master_port={port}']
    return [*launcher, '-m', 'skeletongait.pretreatment_heatmap', *ARGS.split(), *args]


@pytest.mark.slow
def test_a_lost_machine(blank, large):
    "Two nodes share a folder; one of them goes down with all its processes."
    port = free_port()
    def node(k): return on_node(k, 2, port, '--patience=4')
    (blank/'0').mkdir()
    (blank/'1').mkdir()
    for k in range(2):
        (blank/str(k)/'pose').symlink_to(blank/'pose')
        (blank/str(k)/'maps').symlink_to(blank/'maps')
    (blank/'maps').mkdir()
    first, second = (begin(node(k), blank/str(k)) for k in range(2))
    wait_for(lambda: count(blank) >= N//5, first)
    wait_for(lambda: begun(blank, '[23]') == 2, first)
    kill_all(second, ranks_of(second).values())
    assert first.wait(200) != 0
    out = (blank/'0'/'out.txt').read_text()
    assert 'lost: rank 2' in out and 'lost: rank 3' in out and 'run the same command again' in out
    report = json.loads((blank/OUT/'report.json').read_text())
    assert .05*N < report['maps'] < .95*N and sum(o['files'] for o in report['lost']) == report['left'] > 0
    assert_whole(blank, large)
    done = start('python -m', 'pretreatment_heatmap', *ARGS.split(), cwd=blank)
    assert done.returncode == 0 and finished(blank, large), done.stderr
    assert f"{report['left']} files drawn, 0 failed, {report['maps']} were there already" in done.stdout


@pytest.mark.slow
def test_two_machines_that_see_the_folders_elsewhere(blank, large):
    "Shares name files below the tree only; each node has its own path to it."
    port = free_port()
    for k in range(2):
        (blank/str(k)).mkdir()
        (blank/str(k)/'pose').symlink_to(blank/'pose')
        (blank/str(k)/'maps').symlink_to(blank/'maps')
    (blank/'maps').mkdir()
    nodes = [begin(on_node(k, 1, port), blank/str(k)) for k in range(2)]
    assert [p.wait(200) for p in nodes] == [0, 0]
    assert finished(blank, large)
