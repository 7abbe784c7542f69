"The first two scripts, as real processes, with good and with bad input."
import os
import pickle
import shutil

import numpy as np
import pytest
from scripts import LAUNCHES, files, start

from skeletongait.core import SkeletonGaitError, read_tree, save_pickle
from skeletongait.heatmap import pose_to_heatmap
from skeletongait.launch import arg_parser
from skeletongait.ln_sil_heatmap import ln_sil_heatmap, mismatch
from skeletongait.pose import load_pickle
from skeletongait.pretreatment_heatmap import pretreatment_heatmap
from skeletongait.walkers import write_walkers


@pytest.fixture(scope='module')
def walkers(tmp_path_factory):
    "Poses and silhouettes of three walkers in two views."
    root = tmp_path_factory.mktemp('walkers')
    write_walkers(root, n_subjects=3, n_train=2, types=('nm-01', 'bg-01'), views=('000', '090'), n_frames=6)
    return root


@pytest.fixture(scope='module')
def drawn(walkers):
    "Maps of the walkers, by one process without a launcher."
    assert pretreatment_heatmap(str(walkers/'pose'), str(walkers/'maps'), 'Gait3D') == 0
    return walkers/'maps'/'Gait3D_sigma_8.0_'


def test_maps_and_pictures(walkers, drawn):
    poses, maps = read_tree(walkers/'pose').sequences, read_tree(drawn/'pkl').sequences
    assert poses.keys() == maps.keys() and len(poses) == 12
    for seq, (path,) in poses.items():
        assert maps[seq][0].name == path.name
        np.testing.assert_array_equal(load_pickle(maps[seq][0]), pose_to_heatmap(load_pickle(path)))
    pictures = read_tree(drawn/'images', '.jpg').sequences
    assert list(pictures) == list(poses)[:10]
    assert sorted(p.name for p in next(iter(pictures.values()))) == sorted(f'{k}_{t}.jpg' for k in ('bone', 'pose') for t in range(6))


@pytest.mark.slow
@pytest.mark.parametrize('launch', LAUNCHES)
def test_every_way_to_start_gives_the_same_bytes(walkers, drawn, tmp_path, launch):
    done = start(launch, 'pretreatment_heatmap', f'--pose_data_path={walkers/"pose"}', '--save_root=maps', '--dataset_name=Gait3D', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path/'maps'/'Gait3D_sigma_8.0_') == files(drawn)
    assert done.stdout.count('12 sequences drawn, 0 failed') == 1
    done = start(launch, 'ln_sil_heatmap', '--heatmap_data_path=maps/Gait3D_sigma_8.0_/pkl', f'--silhouette_data_path={walkers/"silhouette"}', '--output_path=linked', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(read_tree(tmp_path/'linked').sequences) == 12 and done.stdout.count('12 sequences linked') == 1


def bad_poses(marker):
    class Evil:
        def __reduce__(self): return exec, (f"open({str(marker)!r}, 'w')",)
    good = np.random.default_rng(0).uniform(1, 99, (4, 17, 3))
    nan = good.copy(); nan[2, 3, 0] = np.nan
    flat = good.copy(); flat[1, :, 1] = 5
    return {'silhouette': (pickle.dumps(np.zeros((4, 64, 64), np.uint8)), r'shape (4, 64, 64)'), 'dict': (pickle.dumps({'pose': good}), 'found a dict'),
            'text': (b'no pickle at all', 'no_text.pkl'), 'evil': (pickle.dumps(Evil()), 'exec'), 'no_frame': (pickle.dumps(np.zeros((0, 17, 3))), 'found no frame'),
            'nan': (pickle.dumps(nan), 'frames 2: NaN'), 'no_height': (pickle.dumps(flat), 'frames 1: all joints have the same y'), 'joints_16': (pickle.dumps(np.ones((4, 16, 3))), 'shape (4, 16, 3)'),
            'cut_short': (pickle.dumps(good)[:100], 'no readable pickle')}


def test_bad_files_are_listed_and_the_rest_is_done(walkers, drawn, tmp_path):
    "With 2 ranks: each bad file gets one line, all good ones are drawn, and the exit code says so."
    marker = tmp_path/'ran'
    shutil.copytree(walkers/'pose', tmp_path/'pose')
    folder = tmp_path/'pose'/'000'/'nm-01'/'000'
    bad = bad_poses(marker)
    for name, (data, _) in bad.items(): (folder/f'no_{name}.pkl').write_bytes(data)
    done = start('torchrun -m', 'pretreatment_heatmap', '--pose_data_path=pose', '--save_root=maps', '--dataset_name=Gait3D', cwd=tmp_path)
    assert done.returncode != 0 and not marker.exists()
    lines = [line for line in done.stdout.splitlines() if line.startswith('failed:')]
    assert len(lines) == len(bad)
    for name, (_, says) in bad.items(): assert sum(f'no_{name}.pkl' in line and says in line for line in lines) == 1, name
    assert files(tmp_path/'maps'/'Gait3D_sigma_8.0_'/'pkl') == files(drawn/'pkl')
    assert f'12 sequences drawn, {len(bad)} failed' in done.stdout


def test_a_file_that_turned_bad_loses_its_old_maps(walkers, tmp_path):
    shutil.copytree(walkers/'pose', tmp_path/'pose')
    args = (str(tmp_path/'pose'), str(tmp_path/'maps'), 'mine')
    assert pretreatment_heatmap(*args) == 0
    seq, (path,) = next(iter(read_tree(tmp_path/'pose').sequences.items()))
    save_pickle(np.zeros((1, 2)), path)
    assert pretreatment_heatmap(*args) == 1
    assert seq not in read_tree(tmp_path/'maps'/'mine_sigma_8.0_'/'pkl').sequences


def test_sustech1k_takes_only_its_pose_files(walkers, tmp_path):
    shutil.copytree(walkers/'pose', tmp_path/'pose')
    for seq, (path,) in read_tree(tmp_path/'pose').sequences.items():
        path.rename(path.with_name('03_pose.pkl'))
        save_pickle(np.zeros((6, 64, 64), np.uint8), path.with_name('01_sils.pkl'))
    assert pretreatment_heatmap(str(tmp_path/'pose'), str(tmp_path/'maps'), 'sustech1k', 'x') == 0
    made = read_tree(tmp_path/'maps'/'sustech1k_sigma_8.0_x'/'pkl').sequences
    assert {f.name for fs in made.values() for f in fs} == {'03_pose.pkl'}


@pytest.mark.parametrize('name, args, says', [
    ('pretreatment_heatmap', ['--pose_data_path=nowhere', '--save_root=m', '--dataset_name=GREW'], 'nowhere: no such folder'),
    ('pretreatment_heatmap', ['--pose_data_path=empty', '--save_root=m', '--dataset_name=GREW'], 'empty: found no file'),
    ('pretreatment_heatmap', ['--pose_data_path=empty', '--save_root=m', '--dataset_name=GREW', '--heatemap_cfg_path=bad.yaml'], "bad.yaml: heatmap settings: top level: key 'align_arg'"),
    ('pretreatment_heatmap', ['--pose_data=empty', '--save_root=m', '--dataset_name=GREW'], 'required: --pose_data_path'),
    ('ln_sil_heatmap', ['--heatmap_data_path=nowhere', '--silhouette_data_path=empty', '--output_path=o'], 'nowhere: no such folder'),
    ('main', ['--cfgs=nothing', '--phase=train'], 'nothing: no such file'),
    ('main', ['--cfgs=bad.yaml', '--phase=train'], 'align_arg: unknown key')], ids=lambda v: v if isinstance(v, str) and ' ' not in v else '')
def test_one_clear_line(tmp_path, name, args, says):
    (tmp_path/'empty').mkdir()
    (tmp_path/'bad.yaml').write_text('align_arg: {}\n')
    done = start('python -m', name, *args, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and 'Traceback' not in done.stderr
    assert done.stdout == ''


@pytest.fixture
def pair(walkers, drawn, tmp_path):
    "A copy of maps and silhouettes to break."
    shutil.copytree(drawn/'pkl', tmp_path/'maps'); shutil.copytree(walkers/'silhouette', tmp_path/'sil')
    return tmp_path


def link_all(root, **kw): return ln_sil_heatmap(str(root/'maps'), str(root/'sil'), str(root/'linked'), **kw)


def test_links(pair):
    assert link_all(pair) == 0
    linked = read_tree(pair/'linked').sequences
    assert len(linked) == 12
    for seq, fs in linked.items():
        assert [f.name for f in fs] == ['0_heatmap.pkl', '1_sil.pkl']
        for f, side in zip(fs, ('maps', 'sil')): assert f.is_symlink() and os.path.isabs(os.readlink(f)) and f.resolve() == next(seq.path(pair/side).iterdir()).resolve()


def test_second_run_changes_nothing_and_mends_stale_links(pair):
    assert link_all(pair) == 0
    stamp = {f: os.lstat(f).st_ino for fs in read_tree(pair/'linked').sequences.values() for f in fs}
    stale = next(iter(stamp)); stale.unlink(); stale.symlink_to(pair/'gone.pkl')
    assert link_all(pair) == 0
    assert {f: os.lstat(f).st_ino for f in stamp if f != stale} == {f: i for f, i in stamp.items() if f != stale} and stale.exists()


def test_relative_paths_and_odd_names(pair, monkeypatch):
    (pair/'maps'/'000').rename(pair/'maps'/'a b; $(x)&'); (pair/'sil'/'000').rename(pair/'sil'/'a b; $(x)&')
    monkeypatch.chdir(pair)
    assert ln_sil_heatmap('maps', 'sil', 'out put') == 0
    assert len(read_tree('out put').sequences) == 12


def test_what_does_not_match_is_listed(pair, capsys):
    seqs = list(read_tree(pair/'maps').sequences)
    shutil.rmtree(seqs[0].path(pair/'maps')); shutil.rmtree(seqs[1].path(pair/'sil'))
    first = lambda i: next(seqs[i].path(pair/'sil').iterdir())
    save_pickle(load_pickle(first(2))[1:], first(2))
    save_pickle(np.zeros((6, 64, 32), np.uint8), first(3))
    shutil.copy(first(4), first(4).with_name('second.pkl'))
    first(5).write_bytes(b'')
    assert link_all(pair) == 1
    out = capsys.readouterr().out
    for text in (f'only silhouettes: {seqs[0]}', f'only maps: {seqs[1]}', '6 frames of maps, 5 of silhouettes', 'silhouettes of 64 x 32 (height x width)', f'{seqs[4]}: several files', 'no readable pickle',
                 '6 sequences linked (6 new, 0 as they were), 4 failed, 1 with maps only, 1 with silhouettes only'): assert text in out, text
    assert list(read_tree(pair/'linked').sequences) == seqs[6:]


def test_a_pair_that_stopped_matching_loses_its_links(pair):
    assert link_all(pair) == 0
    seq, (path,) = next(iter(read_tree(pair/'sil').sequences.items()))
    save_pickle(np.zeros((1, 64, 64), np.uint8), path)
    assert link_all(pair) == 1
    assert seq not in read_tree(pair/'linked').sequences


def test_a_real_file_is_never_overwritten(pair):
    target = pair/'linked'/'000'/'nm-01'/'000'/'0_heatmap.pkl'
    target.parent.mkdir(parents=True); target.write_text('precious')
    assert link_all(pair) == 1 and target.read_text() == 'precious'


def test_nothing_to_link_is_an_error(pair):
    shutil.rmtree(pair/'sil'); save_pickle(np.zeros((1, 64, 64), np.uint8), pair/'sil'/'x'/'y'/'z'/'z.pkl')
    assert link_all(pair) == 1
    with pytest.raises(SkeletonGaitError, match='aligned-sils.pkl'): link_all(pair, dataset_pkl_ext_name='aligned-sils.pkl')


def test_silhouettes_by_the_end_of_their_name(pair):
    for seq, (path,) in read_tree(pair/'sil').sequences.items():
        save_pickle(np.zeros(3), path.with_name('other.pkl')); path.rename(path.with_name('x-aligned-sils.pkl'))
    assert link_all(pair, dataset_pkl_ext_name='aligned-sils.pkl') == 0


@pytest.mark.parametrize('func', [pretreatment_heatmap, ln_sil_heatmap])
def test_every_parameter_is_explained(func):
    assert all(a.help for a in arg_parser(func)._actions)


def test_only_linked_pairs_stay_linked(pair):
    "A silhouette that vanished and one that broke: their links of an earlier run go, and are counted."
    assert link_all(pair) == 0
    first, second, *rest = read_tree(pair/'sil').sequences
    shutil.rmtree(first.path(pair/'sil')); next(second.path(pair/'sil').iterdir()).write_bytes(b'')
    assert link_all(pair) == 1
    assert list(read_tree(pair/'linked').sequences) == rest


@pytest.mark.parametrize('shape, ok', [((6, 64, 44), True), ((6, 64, 48), True), ((6, 128, 88), True), ((6, 128, 128), True), ((6, 64, 32), False), ((6, 32, 32), False), ((6, 64), False)])
def test_silhouette_sizes(shape, ok):
    assert (mismatch(np.zeros((6, 2, 64, 64), np.uint8), np.zeros(shape, np.uint8)) is None) == ok


def test_no_failure_of_one_file_stops_the_others(walkers, tmp_path, monkeypatch, capsys):
    "Even one that nobody foresaw."
    from skeletongait import pretreatment_heatmap as module
    real = module.do_job
    monkeypatch.setattr(module, 'do_job', lambda job, cfg: 1/0 if job.sequence.subject == '001' else real(job, cfg))
    assert pretreatment_heatmap(str(walkers/'pose'), str(tmp_path), 'mine') == 1
    assert 'ZeroDivisionError' in capsys.readouterr().out and len(read_tree(tmp_path/'mine_sigma_8.0_'/'pkl').sequences) == 8
