"The first two scripts, as real processes, with good and with bad input."
import pickle
import shutil

import numpy as np
import pytest
from scripts import LAUNCHES, files, start

from skeletongait.files.tree import read_tree
from skeletongait.core import save_pickle
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.cli import arg_parser
from skeletongait.files.arrays import load_pickle
from skeletongait.pretreatment_heatmap import pretreatment_heatmap


@pytest.fixture(scope='module')
def drawn(walkers, tmp_path_factory):
    "Maps of the walkers, by one process without a launcher."
    root = tmp_path_factory.mktemp('maps')
    assert pretreatment_heatmap(str(walkers/'pose'), str(root), 'Gait3D') == 0
    return root/'Gait3D_sigma_8.0_'


def test_maps_and_pictures(walkers, drawn):
    poses, maps = read_tree(walkers/'pose').sequences, read_tree(drawn/'pkl').sequences
    assert poses.keys() == maps.keys() and len(poses) == 12
    for seq, (path,) in poses.items():
        assert maps[seq][0].name == path.name
        np.testing.assert_array_equal(load_pickle(maps[seq][0]), pose_to_heatmap(load_pickle(path)))
    pictures = read_tree(drawn/'images', '.jpg').sequences
    assert list(pictures) == list(poses)[:10]
    assert sorted(p.name for p in next(iter(pictures.values()))) == sorted(f'{k}_{t}.jpg' for k in ('bone', 'pose')
        for t in range(6))


@pytest.mark.slow
@pytest.mark.parametrize('launch', LAUNCHES)
def test_every_way_to_start_gives_the_same_bytes(walkers, drawn, tmp_path, launch):
    done = start(launch, 'pretreatment_heatmap', f'--pose_data_path={walkers/"pose"}', '--save_root=maps',
                 '--dataset_name=Gait3D', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path/'maps'/'Gait3D_sigma_8.0_') == files(drawn)
    assert done.stdout.count('12 files drawn, 0 failed') == 1


def bad_poses(marker):
    class Evil:
        def __reduce__(self): return exec, (f"open({str(marker)!r}, 'w')",)
    good = np.random.default_rng(0).uniform(1, 99, (4, 17, 3))
    nan = good.copy()
    nan[2, 3, 0] = np.nan
    flat = good.copy()
    flat[1, :, 1] = 5
    return {'silhouette': (pickle.dumps(np.zeros((4, 64, 64), np.uint8)), r'shape (4, 64, 64)'),
            'dict': (pickle.dumps({'pose': good}), 'found a dict'),
            'text': (b'no pickle at all', 'no_text.pkl'), 'evil': (pickle.dumps(Evil()), 'exec'),
            'no_frame': (pickle.dumps(np.zeros((0, 17, 3))), 'found no frame'),
            'nan': (pickle.dumps(nan), 'frame 2: NaN'),
                'no_height': (pickle.dumps(flat), 'frame 1: all joints have the same y'),
                'joints_16': (pickle.dumps(np.ones((4, 16, 3))), 'shape (4, 16, 3)'),
            'cut_short': (pickle.dumps(good)[:100], 'not a readable pickle')}


def test_bad_files_are_listed_and_the_rest_is_done(walkers, drawn, tmp_path):
    "With 2 ranks: each bad file gets one line, all good ones are drawn, and the exit code says so."
    marker = tmp_path/'ran'
    shutil.copytree(walkers/'pose', tmp_path/'pose')
    folder = tmp_path/'pose'/'000'/'nm-01'/'000'
    bad = bad_poses(marker)
    for name, (data, _) in bad.items():
        (folder/f'no_{name}.pkl').write_bytes(data)
    done = start('torchrun -m', 'pretreatment_heatmap', '--pose_data_path=pose', '--save_root=maps',
                 '--dataset_name=Gait3D', cwd=tmp_path)
    assert done.returncode != 0 and not marker.exists()
    lines = [line for line in done.stdout.splitlines() if line.startswith('failed:')]
    assert len(lines) == len(bad)
    for name, (_, says) in bad.items():
        assert sum(f'no_{name}.pkl' in line and says in line for line in lines) == 1, name
    assert files(tmp_path/'maps'/'Gait3D_sigma_8.0_'/'pkl') == files(drawn/'pkl')
    assert f'12 files drawn, {len(bad)} failed' in done.stdout


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
    ('pretreatment_heatmap', ['--pose_data_path=nowhere', '--save_root=m', '--dataset_name=GREW'],
     'nowhere: no such folder'),
    ('pretreatment_heatmap', ['--pose_data_path=empty', '--save_root=m', '--dataset_name=GREW'],
     'empty: found no file'),
    ('pretreatment_heatmap', ['--pose_data_path=empty', '--save_root=m', '--dataset_name=GREW',
        '--heatemap_cfg_path=bad.yaml'], "bad.yaml: heatmap settings: align_arg: unknown key"),
    ('pretreatment_heatmap', ['--pose_data=empty', '--save_root=m', '--dataset_name=GREW'],
     'required: --pose_data_path'),
    ('main', ['--cfgs=nothing', '--phase=train'], 'nothing: no such file'),
    ('main', ['--cfgs=bad.yaml', '--phase=train'], 'align_arg: unknown key')],
    ids=lambda v: v if isinstance(v, str) and ' ' not in v else '')
def test_one_clear_line(tmp_path, name, args, says):
    (tmp_path/'empty').mkdir()
    (tmp_path/'bad.yaml').write_text('align_arg: {}\n')
    done = start('python -m', name, *args, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and 'Traceback' not in done.stderr
    assert done.stdout == ''


@pytest.mark.parametrize('func', [pretreatment_heatmap])
def test_every_parameter_is_explained(func):
    assert all(a.help for a in arg_parser(func)._actions)


def test_no_failure_of_one_file_stops_the_others(walkers, tmp_path, monkeypatch, capsys):
    "Even one that nobody foresaw."
    from skeletongait.prepare import render_tree as module
    real = module.draw_file
    monkeypatch.setattr(module, 'draw_file',
                        lambda job, *args: 1/0 if job.pose.startswith('001/') else real(job, *args))
    assert pretreatment_heatmap(str(walkers/'pose'), str(tmp_path), 'mine') == 1
    assert 'ZeroDivisionError' in capsys.readouterr().out
    assert len(read_tree(tmp_path/'mine_sigma_8.0_'/'pkl').sequences) == 8
