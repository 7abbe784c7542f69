"Any tree is embedded: what cannot be read is listed, a stop loses nothing, a test keeps its embeddings."
import csv
import json
import os
import shutil
import time

import numpy as np
import pytest
import torch
from toys import tiny, write_config

from skeletongait.cli import run_script
from skeletongait.core import SkeletonGaitError, log
from skeletongait.evaluation.identify import load_gallery
from skeletongait.evaluation.protocols import GalleryProbe
from skeletongait.evaluation.ranking import embeddings_file, read_embeddings
from skeletongait.files.arrays import load_pickle
from skeletongait.files.text import save_text
from skeletongait.main import main
from skeletongait.runs import embeddings as chapter
from skeletongait.runs.embeddings import embed_sequences, embed_tree, find_sequences, open_run
from skeletongait.runs.folder import Run
from skeletongait.runs.trained import TrainedRun, load_run


@pytest.fixture(autouse=True)
def quiet():
    yield
    log.handlers = []


@pytest.fixture(scope='module')
def run(walkers, tmp_path_factory):
    "Two steps of training and a test that keeps its embeddings."
    cfg, out = tiny(walkers, total_iter=2, save_iter=2), tmp_path_factory.mktemp('out')
    cfg.evaluator_cfg.save_embeddings = True
    path = write_config(cfg, out/'run.yaml')
    for phase in ('train', 'test'):
        assert run_script(main, [f'--cfgs={path}', f'--phase={phase}', f'--output_root={out}']) == 0
    log.handlers = []
    return Run(cfg, out)


@pytest.fixture
def tree(walkers, tmp_path):
    "A copy of the walkers, to be damaged."
    shutil.copytree(walkers/'linked', tmp_path/'tree')
    return tmp_path/'tree'


def interrupted(trained, n, ends=KeyboardInterrupt):
    "The same run, which somebody stops after `n` sequences; and the list of what it was asked for."
    asked = []

    class Stopping(TrainedRun):
        def embed(self, walks):
            if len(asked) == n:
                raise ends
            asked.append(walks)
            return super().embed(walks)

    return Stopping(trained.model, trained.cfg, trained.path, trained.iteration), asked


def test_embeddings_are_those_of_the_test(run, walkers, tmp_path):
    trained = load_run(run.folder)
    gallery, out = embed_tree(trained, walkers/'linked', tmp_path/'all.npz')
    kept = read_embeddings(embeddings_file(run.results(2)))
    place = {sequence: i for i, sequence in enumerate(gallery.test.sequences)}
    mine = gallery.test.embeddings[[place[s] for s in kept.sequences]]
    np.testing.assert_allclose(mine, kept.embeddings, rtol=0, atol=1e-5*kept.embeddings.abs().max().item())
    assert len(gallery) == 24 and out.failed == {} and gallery.people == [f'00{i}' for i in range(6)]
    assert load_gallery(tmp_path/'all.npz', trained.about()).about['iteration'] == 2


def test_a_note_tells_weights_and_settings_apart(run, tmp_path):
    trained = load_run(run.folder)
    about = trained.about()
    moved = shutil.copy(run.checkpoint(2), tmp_path/'elsewhere.pt')
    assert load_run(moved).about() == about == json.loads(json.dumps(about))
    with torch.no_grad():
        next(trained.model.parameters()).flatten()[0] += 1e-3
    assert trained.about()['weights'] != about['weights']
    shorter = open_run(run.folder, None, ['evaluator_cfg.sampler.frames_all_limit=5'])
    assert shorter.about()['settings']['frames_all_limit'] == 5 and shorter.about()['weights'] == about['weights']


def test_what_cannot_be_read_is_listed(run, tree, tmp_path):
    first, second, third = (tree/f'00{i}/nm-01/090/0_heatmap.pkl' for i in range(3))
    first.write_bytes(first.read_bytes()[:99])
    second.unlink()
    (second.parent/'0_heatmap.pkl').symlink_to('nowhere')
    trained = load_run(run.folder)
    gallery, out = embed_tree(trained, tree, tmp_path/'all.npz')
    assert len(gallery) == 22 and sorted(map(str, out.failed)) == ['000-nm-01-090', '001-nm-01-090']
    said = out.report()
    assert said[0] == '2 of 24 sequences are not embedded:' and len(said) == 3 and str(first) in ''.join(said)


def test_nothing_can_be_read(run, tmp_path):
    save_text('no pickle', tmp_path/'tree/a/b/c/d.pkl')
    with pytest.raises(SkeletonGaitError, match='none of 1 sequences could be embedded; the first: .*d.pkl'):
        embed_tree(load_run(run.folder), tmp_path/'tree', tmp_path/'all.npz')
    assert not list(tmp_path.glob('*.npz'))


def test_a_gallery_grows_and_loses_nobody(run, tree, tmp_path):
    "The same run and tree, with one more person; other files stay, and nothing is embedded for them."
    trained, save = load_run(run.folder), tmp_path/'all.npz'
    shutil.move(tree/'005', tmp_path/'later')
    assert len(embed_tree(trained, tree, save)[0]) == 20
    shutil.move(tmp_path/'later', tree/'005')
    assert len(embed_tree(trained, tree, save)[0]) == len(load_gallery(save)) == 24
    shutil.rmtree(tree/'000/nm-01/090')
    before = save.read_bytes()
    counting, asked = interrupted(trained, -1)
    with pytest.raises(SkeletonGaitError, match='all.npz: holds 1 sequences that .*lacks .the first: 000-nm-01-090'):
        embed_tree(counting, tree, save)
    other = open_run(run.folder, None, ['evaluator_cfg.sampler.frames_all_limit=5'])
    with pytest.raises(SkeletonGaitError, match='frames_all_limit 720 there, 5 here.*; it would be replaced: choose'):
        embed_tree(other, tree, save)
    np.savez(tmp_path/'poses.npz', np.zeros((3, 17, 3)))
    with pytest.raises(SkeletonGaitError, match='poses.npz: not a file of embeddings .*; it would be replaced'):
        embed_tree(counting, tree, tmp_path/'poses.npz')
    assert not asked and save.read_bytes() == before


@pytest.mark.parametrize('ends', [KeyboardInterrupt, MemoryError])
def test_a_stop_loses_nothing(run, walkers, tmp_path, ends):
    stopping, asked = interrupted(load_run(run.folder), 5, ends)
    with pytest.raises(ends):
        embed_tree(stopping, walkers/'linked', tmp_path/'all.npz')
    assert [o.name for o in tmp_path.iterdir()] == ['all.part.npz']
    going_on, later = interrupted(load_run(run.folder), -1)
    gallery, _ = embed_tree(going_on, walkers/'linked', tmp_path/'all.npz')
    assert [o.name for o in tmp_path.iterdir()] == ['all.npz'] and (len(asked), len(later)) == (5, 19)
    whole, _ = embed_tree(load_run(run.folder), walkers/'linked', tmp_path/'whole.npz')
    assert (tmp_path/'all.npz').read_bytes() == (tmp_path/'whole.npz').read_bytes()
    assert gallery.test.sequences == whole.test.sequences


def test_a_kill_loses_a_minute(run, walkers, tmp_path, monkeypatch):
    "Nobody can catch a kill: what counts is the part that lies there by then."
    monkeypatch.setattr(chapter, 'SAVE_EVERY', -1)
    monkeypatch.setattr(chapter.Part, 'write', chapter.Part.write)
    stopping, _ = interrupted(load_run(run.folder), 3)
    seen = []

    def keep(part, out, own=chapter.Part.keep):
        own(part, out)
        seen.append(len(read_embeddings(part.path).sequences))

    monkeypatch.setattr(chapter.Part, 'keep', keep)
    with pytest.raises(KeyboardInterrupt):
        embed_tree(stopping, walkers/'linked', tmp_path/'all.npz')
    assert seen == [1, 2, 3]


@pytest.mark.parametrize('what', ['changed file', 'another run', 'another tree', 'damaged part'])
def test_a_part_that_does_not_fit(run, tree, tmp_path, what, caplog):
    stopping, _ = interrupted(load_run(run.folder), 5)
    with pytest.raises(KeyboardInterrupt):
        embed_tree(stopping, tree, tmp_path/'all.npz')
    trained, expected, root = load_run(run.folder), 24, tree
    if what == 'changed file':
        expected = 20
        later = time.time() + 10
        os.utime(tree/'000/bg-01/000/0_heatmap.pkl', (later, later))
    elif what == 'another run':
        trained = open_run(run.folder, None, ['evaluator_cfg.sampler.frames_all_limit=5'])
    elif what == 'another tree':
        root = shutil.copytree(tree, tmp_path/'copy')
    else:
        (tmp_path/'all.part.npz').write_bytes(b'PK')
    counting, asked = interrupted(trained, -1)
    gallery, _ = embed_tree(counting, root, tmp_path/'all.npz')
    assert len(asked) == expected and len(gallery) == 24
    assert ('begun anew' in caplog.text) == (what != 'changed file')


def test_sequences_of_any_folder(walkers, run):
    one = walkers/'linked/004/nm-01/090'
    assert [*find_sequences(one).values()] == [one]
    assert [*find_sequences(walkers/'linked/004/nm-01')] == [str(one.with_name('000')), str(one)]
    assert len(find_sequences(walkers/'linked')) == 24
    trained = load_run(run.folder)
    file = one/'0_heatmap.pkl'
    done = embed_sequences(trained, find_sequences(file)).done
    assert torch.equal(done[str(file)], trained.embed([load_pickle(file)])[0])
    cases = {one/'none': 'no such file or folder', run.folder/'checkpoints': 'found no file that ends'}
    for nothing, says in cases.items():
        with pytest.raises(SkeletonGaitError, match=says):
            find_sequences(nothing)


def test_settings_need_a_run(run, tmp_path):
    alone = shutil.copy(run.checkpoint(2), tmp_path/'alone.pt')
    with pytest.raises(SkeletonGaitError, match='alone.pt: --set needs the settings of the run'):
        open_run(alone, None, ['data_cfg.render={}'])
    with pytest.raises(SkeletonGaitError, match='did you mean frames_all_limit'):
        open_run(run.folder, None, ['evaluator_cfg.sampler.frames_all_limt=5'])


# The test phase

def test_phase(run, walkers, out, *changes, code=0):
    "Test the run's checkpoint with other settings; the path of the results, if there are any."
    cfg = tiny(walkers, total_iter=2)
    cfg.evaluator_cfg.save_embeddings = True
    cfg.evaluator_cfg.restore_hint = str(run.checkpoint(2))
    argv = [f'--cfgs={write_config(cfg, out/"test.yaml")}', '--phase=test', f'--output_root={out}']
    assert run_script(main, [*argv, *(f'--set={o}' for o in changes)]) == code
    return next((o for o in out.rglob('results/*.json')), None)


test_phase.__test__ = False
UNLABELLED = 'evaluator_cfg.protocol={gallery: {subjects: ["004"]}, probe: {subjects: ["005"]}}'


def test_clips_that_nobody_has_labelled(run, walkers, tmp_path, capfd):
    results = test_phase(run, walkers, tmp_path, UNLABELLED)
    said = json.loads(results.read_text())
    assert said['Rank-1'] is None and said['probes_left_out'] == 4 and said['gallery'] == 4
    rows = [*csv.DictReader((results.with_name(f'{results.stem}-unmatched.csv')).open())]
    assert [(row['probe'], row['rank'], row['name']) for row in rows] == [
        (f'005-{type}-{view}', '1', '004') for type in ('bg-01', 'nm-01') for view in ('000', '090')]
    assert len(read_embeddings(embeddings_file(results)).sequences) == 8
    assert '4 probes without a match in the gallery' in ''.join(capfd.readouterr())


def test_a_list_of_another_test_goes(run, walkers, tmp_path):
    results = test_phase(run, walkers, tmp_path)
    stale = results.with_name(f'{results.stem}-unmatched.csv')
    assert not stale.exists()
    stale.touch()
    test_phase(run, walkers, tmp_path)
    assert not stale.exists()


def test_an_error_in_scoring_keeps_the_embeddings(run, walkers, tmp_path, monkeypatch, capfd):
    def broken(*args): raise SkeletonGaitError('scoring went wrong')
    monkeypatch.setattr(GalleryProbe, 'results', broken)
    assert test_phase(run, walkers, tmp_path, code=2) is None
    kept = next(tmp_path.rglob('*-embeddings.npz'))
    assert len(read_embeddings(kept).sequences) == 8 and 'scoring went wrong' in ''.join(capfd.readouterr())


def test_open_set_figures_where_asked_for(run, walkers, tmp_path, capfd):
    plain = json.loads(test_phase(run, walkers, tmp_path/'a').read_text())
    asked = json.loads(test_phase(run, walkers, tmp_path/'b', 'evaluator_cfg.open_set=true').read_text())
    figures = asked.pop('open_set')['']
    assert asked.pop('config_hash') != plain.pop('config_hash') and asked == plain
    assert figures['genuine_pairs'] + figures['impostor_pairs'] == 8 and 0 <= figures['EER'] <= 100
    assert 'open set' in ''.join(capfd.readouterr())


def test_another_data_set(run, walkers, tmp_path, capfd):
    "In one command: its name, tree, partition and protocol; beside the tests on the run's own data set."
    others = tmp_path/'others'
    shutil.copytree(walkers/'linked', others)
    for old in sorted(others.iterdir()):
        old.rename(old.with_name(f'x{old.name}'))
    save_text(json.dumps(dict(TRAIN_SET=['x000'], TEST_SET=['x001', 'x003'])), tmp_path/'others.json')
    own = test_phase(run, walkers, tmp_path/'out')
    argv = [f'--cfgs={tmp_path/"out/test.yaml"}', '--phase=test', f'--output_root={tmp_path/"out"}']
    elsewhere = ['test_dataset_name=Others', f'dataset_root={others}', f'dataset_partition={tmp_path/"others.json"}']
    before = own.read_bytes()
    assert run_script(main, [*argv, *(f'--set=data_cfg.{o}' for o in elsewhere)]) == 0
    said = json.loads(own.with_name(own.name.replace('Walkers', 'Others')).read_text())
    assert (said['trained_on'], said['dataset'], said['probes']) == ('Walkers', 'Others', 4)
    assert 'trained on Walkers, tested on Others: 8 sequences' in ''.join(capfd.readouterr())
    assert own.read_bytes() == before and json.loads(before)['trained_on'] == 'Walkers'


def test_the_protocol_of_another_data_set_is_a_warning(run, walkers, tmp_path, capfd):
    changes = ['data_cfg.test_dataset_name=CCPG', 'evaluator_cfg.eval_func=evaluate_Gait3D']
    cfg = tiny(walkers, total_iter=2)
    cfg.evaluator_cfg.protocol = None
    path = write_config(cfg, tmp_path/'test.yaml')
    argv = [f'--cfgs={path}', '--phase=test', f'--set=evaluator_cfg.restore_hint={run.checkpoint(2)}']
    assert run_script(main, [*argv, f'--output_root={tmp_path}', *(f'--set={o}' for o in changes)]) == 2
    assert 'evaluate_Gait3D is the protocol of Gait3D, but the test set is CCPG' in ''.join(capfd.readouterr())
