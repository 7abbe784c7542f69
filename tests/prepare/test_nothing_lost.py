"Nothing that belongs to somebody is deleted or replaced: not beyond links, not beside what was asked for."
import json
import os
import shutil

import numpy as np
import pytest
from scripts import files

from skeletongait import demo
from skeletongait.prepare import manifest as m
from skeletongait.walkers import datasets as walkers
from skeletongait.core import SkeletonGaitError, is_leftover, save_pickle
from skeletongait.files.text import save_text
from skeletongait.ln_sil_heatmap import ln_sil_heatmap
from skeletongait.viewers.player import SequencePlayer
from skeletongait.files.arrays import load_pickle
from skeletongait.pretreatment_heatmap import pretreatment_heatmap
from skeletongait.walkers.recording import make_sequence
from skeletongait.walkers.datasets import write_like, write_walkers

OUT = 'maps/mine_sigma_8.0_'


def draw(root, poses='pose', save_root='maps', name='mine', **kw):
    "Draw a tree of poses in this process; the exit code."
    return pretreatment_heatmap(str(root/poses), str(root/save_root), name, **kw)


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    "Three poses, and their maps."
    root = tmp_path_factory.mktemp('drawn')
    for i in range(3):
        save_pickle(make_sequence(0, i, 'nm-01', '090', 3).pose, root/'pose'/f'{i:03d}'/'nm-01'/'090'/'x.pkl')
    assert draw(root) == 0
    return root


@pytest.fixture
def tree(drawn, tmp_path):
    "A copy of them, to disturb."
    shutil.copytree(drawn, tmp_path/'x')
    return tmp_path/'x'


def replace_by_link(path, target):
    if path.exists():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


# --- drawing with --overwrite


@pytest.mark.parametrize('part', ['pkl', 'images', 'journal'])
@pytest.mark.parametrize('where', ['pose', 'pose/000', '.'])
def test_a_part_that_is_the_input_is_refused(tree, part, where):
    before = files(tree/'pose')
    replace_by_link(tree/OUT/part, tree/where)
    with pytest.raises(SkeletonGaitError,
                       match=f'{part}: the maps. folder and .*must not lie inside each other.*or remove the link'):
        draw(tree, overwrite=True)
    assert files(tree/'pose') == before


@pytest.mark.parametrize('overwrite', [False, True])
def test_links_within_the_maps_are_not_followed(tree, drawn, capsys, overwrite):
    "To a data set of other maps, with the same names, and to a folder of pictures."
    shutil.copytree(tree/'maps', tree/'other')
    other, before = tree/'other'/'mine_sigma_8.0_', files(tree/'other')
    shutil.copy(tree/'pose/001/nm-01/090/x.pkl', tree/'pose/000/nm-01/090/x.pkl')  # so that it is to be drawn
    replace_by_link(tree/OUT/'pkl'/'000', other/'pkl'/'000')
    replace_by_link(tree/OUT/'pkl'/'zz', other/'pkl')
    replace_by_link(tree/OUT/'images'/'001', other/'images'/'001')
    (other/'pkl'/'.0a1b2c3d.node-17.tmp').write_bytes(b'half')
    assert draw(tree, overwrite=overwrite) == 1
    out = capsys.readouterr().out
    beyond = f'its output would lie beyond the link {tree/OUT}/pkl/000; remove the link'
    assert f"failed: {tree/'pose/000/nm-01/090/x.pkl'}: {beyond}" in out
    assert ('images/001; remove the link' in out) == overwrite
    assert 'no run of this folder has drawn it: pkl/zz/000/nm-01/090/x.pkl' in out
    assert {k: v for k, v in files(tree/'other').items() if not is_leftover(os.path.basename(k))} == before
    assert (other/'pkl'/'.0a1b2c3d.node-17.tmp').exists()
    assert files(tree/OUT/'pkl'/'002') == files(drawn/OUT/'pkl'/'002')


@pytest.mark.parametrize('part', ['pkl', 'images'])
def test_a_part_that_belongs_to_other_maps_is_refused(tree, part):
    assert draw(tree, name='other') == 0
    before = files(tree/'maps'/'other_sigma_8.0_')
    replace_by_link(tree/OUT/part, tree/'maps'/'other_sigma_8.0_'/part)
    with pytest.raises(SkeletonGaitError,
                       match=f'{part}: a link to .*which belongs to the maps in .*other_sigma_8.0_; remove the link'):
        draw(tree, overwrite=True)
    assert files(tree/'maps'/'other_sigma_8.0_') == before


@pytest.mark.parametrize('part, where, says',
    [('pkl', OUT, 'same folder, or above'), ('images', 'maps', 'same folder, or above'),
     ('pkl', f'{OUT}/images', 'same folder, or above'),
    ('journal', 'elsewhere', 'journals must lie beside the maps'), ('pkl', 'nowhere', 'leads nowhere'),
    ('images', f'{OUT}/images', 'leads nowhere')])
def test_links_that_lead_back_or_nowhere(tree, part, where, says):
    (tree/'elsewhere').mkdir()
    replace_by_link(tree/OUT/part, tree/where)
    before = files(tree)
    with pytest.raises(SkeletonGaitError, match=says):
        draw(tree, overwrite=True)
    assert files(tree) == before


def test_a_file_in_the_place_of_a_folder(tree):
    shutil.rmtree(tree/OUT/'images')
    (tree/OUT/'images').write_text('mine')
    with pytest.raises(SkeletonGaitError, match='images: a file; expected a folder'):
        draw(tree, overwrite=True)
    assert (tree/OUT/'images').read_text() == 'mine'


def test_a_dangling_save_root(tree):
    (tree/'later').symlink_to(tree/'nowhere')
    with pytest.raises(SkeletonGaitError, match='later: a link that leads nowhere'):
        draw(tree, save_root='later')


def test_a_link_to_a_folder_above_within_the_maps(tree, drawn):
    "Two data sets beside each other, and a way from the maps of one to both."
    assert draw(tree, name='other') == 0
    before = files(tree/'maps'/'other_sigma_8.0_')
    (tree/OUT/'pkl'/'up').symlink_to(tree/'maps')
    (tree/OUT/'images'/'up').symlink_to(tree/'maps')
    (tree/'maps'/'note.txt').write_text('mine')
    (tree/'maps'/'.0a1b2c3d.node-17.tmp').write_text('half')
    assert draw(tree, overwrite=True) == 0
    assert files(tree/'maps'/'other_sigma_8.0_') == before and (tree/'maps'/'note.txt').exists()
    assert (tree/'maps'/'.0a1b2c3d.node-17.tmp').exists()
    assert all(files(tree/OUT/'pkl'/s) == files(drawn/OUT/'pkl'/s) for s in ('000', '001', '002'))


def test_pose_files_are_not_taken_for_maps(tree):
    "`pkl` leads to another tree of poses, of the same names."
    shutil.copytree(tree/'pose', tree/'other')
    shutil.rmtree(tree/'maps')
    before = files(tree/'other')
    replace_by_link(tree/OUT/'pkl', tree/'other')
    for overwrite, says in ((False, 'holds 3 maps but no manifest'),
                            (True, 'holds 3 files .pkl that no run has drawn')):
        with pytest.raises(SkeletonGaitError, match=says):
            draw(tree, overwrite=overwrite)
    assert files(tree/'other') == before


def test_the_input_reached_by_its_own_links(tree):
    "The poses are links to a disk, and so is the place of their maps."
    (tree/'pose').rename(tree/'disk')
    (tree/'pose').mkdir()
    shutil.rmtree(tree/'maps')
    for s in ('000', '001', '002'):
        (tree/'pose'/s).symlink_to(tree/'disk'/s)
    before = files(tree/'disk')
    replace_by_link(tree/OUT/'pkl', tree/'disk')
    with pytest.raises(SkeletonGaitError, match='no run has drawn'):
        draw(tree, overwrite=True)
    m.write_manifest(tree/OUT, m.Manifest({}, {}))
    (tree/OUT/'manifest.jsonl').write_text(json.dumps(m.make_header(m.HeatmapConfig())) + '\n')
    assert draw(tree) == 1  # with a manifest, file by file
    assert files(tree/'disk') == before


def test_the_users_own_links_keep_working(tree, drawn):
    "The save_root, the folder of maps, or `pkl` and `images`, on another disk."
    (tree/OUT).rename(tree/'disk')
    (tree/OUT).symlink_to(tree/'disk')
    (tree/'maps').rename(tree/'far')
    (tree/'maps').symlink_to(tree/'far')
    for part in ('pkl', 'images'):
        (tree/'disk'/part).rename(tree/part)
        (tree/'disk'/part).symlink_to(tree/part)
    for overwrite in (False, True):
        assert draw(tree, overwrite=overwrite) == 0 and files(tree/'pkl') == files(drawn/OUT/'pkl')
        assert files(tree/'images') == files(drawn/OUT/'images')
    (tree/'pkl/000/nm-01/090/x.pkl').unlink()
    assert draw(tree) == 0 and files(tree/'pkl') == files(drawn/OUT/'pkl')


@pytest.mark.parametrize('kind', ['link', 'hard link', 'dangling link'])
def test_a_maps_file_that_is_a_link_is_replaced_and_not_its_target(tree, drawn, kind):
    maps, target = tree/OUT/'pkl/000/nm-01/090/x.pkl', tree/'pose/000/nm-01/090/x.pkl'
    before = target.read_bytes()
    maps.unlink()
    if kind == 'hard link':
        os.link(target, maps)
    else:
        maps.symlink_to(target if kind == 'link' else tree/'nowhere')
    for overwrite in (False, True):
        assert draw(tree, overwrite=overwrite) == 0 and target.read_bytes() == before
        assert not maps.is_symlink() and files(tree/OUT) == files(drawn/OUT)
    assert not (tree/'nowhere').exists()


def test_pictures_and_unfinished_files_of_others_stay(tree):
    own = ['images/000/nm-01/090/portrait.jpg', 'images/000/nm-01/090/more/bone_0.jpg', 'images/zz/bone_0.jpg',
           'pkl/.notes.tmp', 'journal/notes.jsonl', 'sub/.0a1b2c3d.node-17.tmp']
    for name in own:
        (tree/OUT/name).parent.mkdir(parents=True, exist_ok=True)
        (tree/OUT/name).write_text('mine')
    (tree/'pose/001/nm-01/090/x.pkl').write_bytes(b'no pose')
    (tree/OUT/'images/001/nm-01/090/portrait.jpg').write_text('mine')
    for overwrite in (False, True):
        assert draw(tree, overwrite=overwrite) == 1
    assert all((tree/OUT/name).read_text() == 'mine' for name in [*own, 'images/001/nm-01/090/portrait.jpg'])
    assert not (tree/OUT/'images/001/nm-01/090/bone_0.jpg').exists()


def test_a_folder_without_manifest_is_drawn_again_and_nothing_else_is_removed(tree, drawn):
    (tree/OUT/'manifest.jsonl').unlink()
    for s in ('000', '001'):
        (tree/OUT/'pkl'/s/'nm-01/090/x.pkl').write_bytes(b'of another program')
    save_pickle(np.zeros((3, 2, 64, 64), 'u1'), tree/OUT/'pkl'/'009/nm-01/090/x.pkl')
    with pytest.raises(SkeletonGaitError, match='holds 4 maps but no manifest'):
        draw(tree)
    assert draw(tree, overwrite=True) == 0
    assert files(tree/OUT/'pkl').keys() == files(drawn/OUT/'pkl').keys() | {'009/nm-01/090/x.pkl'}
    assert all(files(tree/OUT/'pkl')[k] == v for k, v in files(drawn/OUT/'pkl').items())
    assert load_pickle(tree/OUT/'pkl/009/nm-01/090/x.pkl').max() == 0


def test_a_manifest_names_nothing_outside(tree):
    "Lines that would lead out of the folder remove nothing."
    first, *lines = (tree/OUT/'manifest.jsonl').read_text().splitlines()
    evil = [json.dumps(json.loads(lines[0]) | {'pose': p})
            for p in ('../../../pose/000/nm-01/090/x.pkl', str(tree/'pose/001/nm-01/090/x.pkl'))]
    (tree/OUT/'manifest.jsonl').write_text('\n'.join([first, *evil]) + '\n')
    before = files(tree/'pose')
    assert draw(tree, overwrite=True) == 0 and files(tree/'pose') == before


# --- linking


@pytest.fixture
def pair(tmp_path):
    "Maps and silhouettes of two sequences, linked."
    rng = np.random.default_rng(0)
    for i in range(2):
        save_pickle(rng.integers(0, 255, (3, 2, 64, 64), 'u1'), tmp_path/'heat'/f'{i:03d}'/'nm'/'090'/'x.pkl')
        save_pickle(rng.integers(0, 255, (3, 64, 44), 'u1'), tmp_path/'sil'/f'{i:03d}'/'nm'/'090'/'x.pkl')
    assert join(tmp_path, 'linked') == 0
    return tmp_path


def join(root, out, **kw):
    return ln_sil_heatmap(str(root/'heat'), str(root/'sil'), str(root/out), **kw)


def links(root):
    return {p.relative_to(root).as_posix(): os.readlink(p) for p in sorted(root.rglob('*')) if p.is_symlink()}


@pytest.mark.parametrize('copy', [False, True])
def test_links_of_another_tree_stay(pair, capsys, copy):
    "A folder of the linked tree is a link into another one: nothing is put there, nothing removed."
    (pair/'other').mkdir()
    for s in ('000', '005'):
        shutil.copytree(pair/'linked'/'000', pair/'other'/s, symlinks=True)
    for p in (pair/'other').rglob('*.pkl'):
        p.unlink()
        p.symlink_to('/nowhere')
    before = links(pair/'other')
    for s in ('000', '005'):
        replace_by_link(pair/'linked'/s, pair/'other'/s)
    assert join(pair, 'linked', copy=copy) == 1
    beyond = f"lies beyond the link {pair/'linked'/'000'}; remove the link"
    assert f"failed: {pair/'linked'/'000'/'nm'/'090'}: {beyond}" in capsys.readouterr().out
    assert links(pair/'other') == before and (pair/'linked'/'001'/'nm'/'090'/'1_sil.pkl').exists()


def test_a_finished_tree_on_several_disks_stays_good(pair):
    (pair/'linked'/'000').rename(pair/'disk')
    (pair/'linked'/'000').symlink_to(pair/'disk')
    assert join(pair, 'linked') == 0


def test_the_linked_tree_itself_may_be_a_link(pair):
    (pair/'linked').rename(pair/'disk')
    (pair/'linked').symlink_to(pair/'disk')
    (pair/'disk'/'000'/'nm'/'090'/'1_sil.pkl').unlink()
    assert join(pair, 'linked') == 0 and (pair/'disk'/'000'/'nm'/'090'/'1_sil.pkl').exists()


def test_a_report_of_somebody_else_stays(drawn, pair):
    "The linked tree is to go into the folder of the maps, which has a report as well."
    shutil.copytree(drawn/'maps', pair/'maps')
    before = files(pair/'maps')
    with pytest.raises(SkeletonGaitError, match='report.json: not a report of this script; move it away'):
        ln_sil_heatmap(str(pair/OUT/'pkl'), str(pair/'sil'), str(pair/OUT))
    assert files(pair/'maps') == before


# --- the demonstration


@pytest.fixture
def demo_folder(tmp_path, monkeypatch):
    "The demonstration ends as soon as it has some data."
    class Interrupted(BaseException): pass
    def make_data(root, population):
        for name in ('pose/000/x.pkl', 'maps/y/manifest.jsonl', 'partition.json',
                     'runs/Walkers/SkeletonGait/demo/config.yaml'):
            save_text('{}', root/name)
        raise Interrupted
    monkeypatch.setattr(demo, 'make_data', make_data)
    monkeypatch.chdir(tmp_path)
    def begin():
        with pytest.raises(Interrupted):
            demo.demo()
        return files(tmp_path/'output'/'demo')
    begin.root = tmp_path/'output'/'demo'
    return begin


@pytest.mark.parametrize('where', ['SkeletonGait/demo/checkpoints/demo-00100.pt', 'pose/mine.pkl', 'notes.txt'])
def test_the_demo_leaves_the_runs_of_a_data_set_called_demo(demo_folder, where):
    save_text('mine', demo_folder.root/where)
    with pytest.raises(SkeletonGaitError,
                       match=r'^output/demo: holds .*demonstration.json is missing\); move it away, '
                             r'or start the demonstration in another folder$'):
        demo.demo()
    assert files(demo_folder.root) == {where: b'mine'}


@pytest.mark.parametrize('where', ['SkeletonGait/mine/config.yaml', 'runs/Walkers/SkeletonGait/other/config.yaml',
                                   'runs/mine/a.pt'])
def test_the_demo_leaves_what_came_after_it(demo_folder, where):
    demo_folder()
    save_text('mine', demo_folder.root/where)
    before = files(demo_folder.root)
    with pytest.raises(SkeletonGaitError, match='demonstration.json does not list it'):
        demo.demo()
    assert files(demo_folder.root) == before


def test_an_interrupted_demo_can_be_redone(demo_folder, monkeypatch):
    first = demo_folder()
    save_text('half', demo_folder.root/'linked'/'x')
    save_text('{}', demo_folder.root/'results.json')
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # in the middle of removing
        def rmtree(path): raise KeyboardInterrupt
        patch.setattr(shutil, 'rmtree', rmtree)
        demo.demo()
    assert demo_folder() == first and demo_folder() == first


def test_the_demo_removes_links_and_not_what_they_lead_to(demo_folder, tmp_path):
    demo_folder.root.mkdir(parents=True)  # an empty folder will do
    demo_folder()
    save_text('mine', tmp_path/'data'/'x')
    replace_by_link(demo_folder.root/'pose', tmp_path/'data')
    demo_folder()
    assert (tmp_path/'data'/'x').read_text() == 'mine' and not (demo_folder.root/'pose').is_symlink()


def test_the_demo_and_a_file_in_its_place(demo_folder):
    save_text('mine', demo_folder.root)
    with pytest.raises(SkeletonGaitError, match='output/demo: not a folder'):
        demo.demo()
    demo_folder.root.unlink()
    demo_folder.root.symlink_to('nowhere')
    with pytest.raises(SkeletonGaitError, match='output/demo: not a folder'):
        demo.demo()


# --- walkers and pictures


@pytest.mark.parametrize('there', ['partition.json', 'pose/001/nm-01/090/x.pkl', 'silhouette/001/nm-01/090/x.pkl'])
def test_walkers_leave_a_data_set(tmp_path, there):
    save_text('mine', tmp_path/there)
    with pytest.raises(SkeletonGaitError, match='already exists, and is not of these walkers.*choose another root'):
        write_walkers(tmp_path, 2, 1, ('nm-01',), ('090',), 3)
    save_text('mine', tmp_path/'Gait3D.json')
    with pytest.raises(SkeletonGaitError, match='already exists'):
        write_like(tmp_path, 'Gait3D', 1, 1, 3)
    assert files(tmp_path) == {there: b'mine', 'Gait3D.json': b'mine'}


def test_interrupted_walkers_are_written_again(tmp_path, monkeypatch):
    few = (tmp_path, 2, 1, ('nm-01',), ('090',), 3)
    def full(*args): raise OSError('full')
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(walkers, 'save_pickle', full)
        write_walkers(*few)
    (tmp_path/'pose').mkdir()
    assert write_walkers(*few) == write_walkers(*few) and len(files(tmp_path)) == 5


@pytest.mark.parametrize('name', ['walk.gif', 'walk.png', 'link.png'])
def test_the_button_leaves_the_files_of_others(tmp_path, name):
    viewer = SequencePlayer(np.zeros((3, 2, 16, 16), 'u1'))
    viewer.keep_name.value, path = str(tmp_path/name), tmp_path/name
    if name.startswith('link'):
        path.symlink_to('nowhere')
    else:
        save_text('mine', path)
    viewer.keep_button.click()
    assert 'already exists, and this viewer did not save it; choose another name' in viewer.notice.value
    assert path.is_symlink() or path.read_bytes() == b'mine'
    path.unlink()
    for _ in range(2):
        viewer.keep_button.click()
        assert f'saved {path}' in viewer.keep_words.value and not viewer.notice.value  # its own may be saved again
