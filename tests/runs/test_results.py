"Every test of a checkpoint keeps its results: a test on other data or by another protocol never replaces them."
import copy
import json
from types import SimpleNamespace

import pytest
from scripts import files
from toys import ONE, tiny, write_config

from skeletongait.runs.folder import Run, name_of_test, of_other_test, settings_of_test
from skeletongait.runs.config import config_hash, load_config
from skeletongait.files.settings import to_dict
from skeletongait.files.text import save_text
from skeletongait.evaluation.ranking import embeddings_file, read_embeddings
from skeletongait.main import main
from skeletongait.nets.models import build_model
from skeletongait.viewers.retrieval import RetrievalExplorer, newest_results
from skeletongait.runs.loop import TrainingRun, test_model as run_test_phase


@pytest.fixture
def cfg(walkers): return tiny(walkers, total_iter=1, save_iter=1)


def changed(cfg, **by_path):
    "The settings with some of them changed, as `evaluator_cfg__metric='cos'`."
    cfg = copy.deepcopy(cfg)
    for path, value in by_path.items():
        *sections, key = path.split('__')
        section = cfg
        for name in sections:
            section = getattr(section, name)
        setattr(section, key, value)
    return cfg


OTHER_RULES = dict(gallery=dict(types=['bg-01']), probe=dict(types=['nm-01']))
TESTS = {  # name of the file -> what is changed for the test
    'demo-00001-Walkers-gallery_probe-euc': {},
    'demo-00001-Strangers_and_friends-gallery_probe-euc': dict(data_cfg__test_dataset_name='Strangers/and friends'),
    'demo-00001-CASIA-B-indoor_dataset-euc': dict(data_cfg__test_dataset_name='CASIA-B',
                                                  evaluator_cfg__eval_func='evaluate_indoor_dataset',
                                                  evaluator_cfg__protocol=None),
    'demo-00001-Walkers-gallery_probe-cos': dict(evaluator_cfg__metric='cos'),
    'demo-00001-Walkers-gallery_probe-euc-embed_2': dict(model_cfg__use_emb2=True),
    'demo-00001-Walkers-gallery_probe-euc-2': dict(evaluator_cfg__protocol=OTHER_RULES),
    'demo-00001-Walkers-gallery_probe-euc-3': dict(evaluator_cfg__sampler__frames_all_limit=5)}


def test_one_checkpoint_by_many_tests(walkers, cfg, tmp_path, capsys):
    "All results and embeddings are kept, for other data sets, protocols, metrics, embeddings, rules, frame numbers."
    for name in ('train', *TESTS):
        path = write_config(changed(cfg, **TESTS.get(name, {})), tmp_path/'x.yaml')
        assert main(str(path), 'train' if name == 'train' else 'test', output_root=str(tmp_path)) == 0
    folder = Run(cfg, tmp_path).folder/'results'
    endings = ('.json', '.csv', '.png', '-failures.csv', '-embeddings.npz')
    assert {f.name for f in folder.iterdir()} == {f'{name}{end}' for name in TESTS for end in endings}
    before = files(folder)
    for name, changes in TESTS.items():  # again, in the same order: each replaces itself
        asked = changed(cfg, **changes)
        found = Run(asked, tmp_path).results(1)
        said = json.loads(found.read_text())
        assert found.stem == name
        assert (said['metric'], said['embedding']) == (asked.evaluator_cfg.metric,
                                                       'embed_2' if asked.model_cfg.use_emb2 else 'embed_1')
        assert said['dataset'] == (asked.data_cfg.test_dataset_name or 'Walkers')
        assert said['test'] == settings_of_test(asked)
        assert len(read_embeddings(embeddings_file(found)).sequences) == 8
        viewer = RetrievalExplorer.from_results(found)
        assert not viewer.problem and viewer.results['tables'] == said['tables']
    main(str(write_config(changed(cfg, **TESTS['demo-00001-Walkers-gallery_probe-euc-2']), tmp_path/'x.yaml')),
         'test', output_root=str(tmp_path))
    assert files(folder).keys() == before.keys()
    assert all(files(folder)[k] == v for k, v in before.items() if k.endswith(('.json', '.csv')))
    # of one iteration the test that was written last
    assert newest_results(folder.parent).stem == 'demo-00001-Walkers-gallery_probe-euc-2'


def test_weights_from_elsewhere_are_another_test(cfg, tmp_path):
    net = build_model(to_dict(cfg.model_cfg))
    for value, name in ((1, ''), ('a.pt', '-2'), ('b.pt', '-3'), ('latest', ''), (None, ''), ('a.pt', '-2')):
        assert Run(asked := changed(cfg, evaluator_cfg__restore_hint=value),
                   tmp_path).results(1).stem == f'demo-00001-Walkers-gallery_probe-euc{name}'
        run_test_phase(net, asked, Run(asked, tmp_path), 1, ONE)


def test_old_results_stay_and_are_read(cfg, tmp_path):
    "They were named by the iteration alone."
    run, net = Run(cfg, tmp_path), build_model(to_dict(cfg.model_cfg))
    run_test_phase(net, cfg, run, 1, ONE)
    for f in list((run.folder/'results').iterdir()):
        f.rename(f.with_name(f.name.replace('-Walkers-gallery_probe-euc', '')))
    old = run.folder/'results'/'demo-00001.json'
    about = json.loads(old.read_text())
    del about['test']
    save_text(json.dumps(about), old)
    before = files(run.folder)
    assert newest_results(run.folder) == old and not RetrievalExplorer.from_results(run.folder).problem
    assert run.tested(1) and not run.tested(2)
    resumed = TrainingRun(SimpleNamespace(iteration=1), run, cfg, ONE)
    assert not resumed.test_missing()  # a run that goes on does not test it again
    run_test_phase(net, cfg, run, 1, ONE)
    assert files(run.folder).items() >= before.items() and newest_results(run.folder) == run.results(1) != old
    assert {i for i, _ in run.files('results')} == {1}


def test_results_of_all_names_are_moved_aside_with_their_run(cfg, tmp_path):
    run = Run(cfg, tmp_path)
    save_text('x', run.checkpoint(2))
    names = {f'demo-0000{i}{end}' for i in (1, 2)
             for end in ('.json', '-Walkers-gallery_probe-euc.json', '-00077-euc-2-failures.csv')}
    for name in names:
        save_text('{}', run.folder/'results'/name)
    aside = run.set_aside(beyond=1)
    assert {f.name for f in (aside/'results').iterdir()} == {n for n in names if n.startswith('demo-00002')}


@pytest.mark.parametrize('name, shown',
                         [('a/b\\c', 'a_b_c'), ('..', '..'), ('data: set *?"<>|\n', 'data_set_'), ('步态', '步态'),
                          ('x'*300, 'x'*60), ('é'*300, 'é'*30), ('\ud800y', '_y'), ('v1.0.json', 'v1.0.json')])
def test_unusual_names_of_data_sets(cfg, tmp_path, name, shown):
    "Each makes a file name that can be written; two data sets of one file name get two."
    asked = changed(cfg, data_cfg__test_dataset_name=name)
    assert name_of_test(asked) == f'{shown}-gallery_probe-euc'
    run = Run(asked, tmp_path)
    first = run.results(3)
    assert first.parent == run.folder/'results' and first.name == f'demo-00003-{shown}-gallery_probe-euc.json'
    save_text(json.dumps(dict(test=settings_of_test(asked))), first)
    assert run.results(3) == first
    assert Run(changed(asked, data_cfg__test_dataset_name=shown + '?'*(shown == name)),
               tmp_path).results(3).name != first.name
    assert embeddings_file(first).name == f'demo-00003-{shown}-gallery_probe-euc-embeddings.npz'
    assert newest_results(run.folder) == first


@pytest.mark.parametrize('save_name', ['demo', 'a-12345', 'a-12345-b', '00099'])
def test_the_newest_results_by_iteration(cfg, tmp_path, save_name):
    "Also where the name of the run or of a data set looks like an iteration."
    for i, dataset in ((7, '99999'), (100000, 'x-00300'), (20, '99998-y')):
        save_text('{}', Run(changed(cfg, trainer_cfg__save_name=save_name, data_cfg__test_dataset_name=dataset),
                            tmp_path).results(i))
    folder = Run(changed(cfg, trainer_cfg__save_name=save_name), tmp_path).folder
    assert '-100000-x-00300-' in newest_results(folder).name == newest_results(folder/'results').name


def test_settings_that_change_nothing_are_the_same_test(cfg):
    same = changed(cfg, evaluator_cfg__sampler__batch_size=1, data_cfg__num_workers=3, data_cfg__cache=True,
                   trainer_cfg__total_iter=99, evaluator_cfg__save_embeddings=False)
    assert settings_of_test(same) == settings_of_test(cfg) and name_of_test(same) == name_of_test(cfg)


def test_the_packaged_settings_have_plain_names():
    assert name_of_test(load_config('skeletongait_Gait3D')[0]) == 'Gait3D-Gait3D-euc'
    assert name_of_test(load_config('skeletongait_OUMVLP')[0]) == 'OUMVLP-indoor_dataset-euc'


@pytest.mark.parametrize('text', ['['*100_000, '{', '[]', '{"test": ' + '9'*5000 + '}'])
def test_a_damaged_file_of_results_is_not_another_test(tmp_path, text):
    "Its place can be used, and its depth crashes no process."
    path = tmp_path/'x.json'
    path.write_text(text, encoding='utf-8')
    assert not of_other_test(path, dict(metric='euc'))


def test_a_training_tests_its_own_weights(cfg, tmp_path):
    "Even if a separate test would load others; a later test of the same checkpoint is the same test."
    elsewhere = changed(cfg, evaluator_cfg__restore_hint=str(tmp_path/'other.pt'), trainer_cfg__with_test=True,
                        output_root=str(tmp_path))
    assert main(str(write_config(elsewhere, tmp_path/'x.yaml')), 'train') == 0
    written = Run(cfg, tmp_path).results(1)
    assert json.loads(written.read_text())['test']['weights'] is None
    assert main(str(write_config(elsewhere, tmp_path/'x.yaml')), 'test', iter=1) == 0
    assert sorted(f.name for f in written.parent.glob('*.json')) == [written.name]


def test_results_keep_the_fingerprint_of_the_settings(cfg, tmp_path):
    "A test during a training and a test of the same checkpoint afterwards write the same results."
    asked = changed(cfg, trainer_cfg__with_test=True, output_root=str(tmp_path))
    config, path, written = str(write_config(asked, tmp_path/'x.yaml')), Run(asked, tmp_path).results(1), []
    for phase in ('train', 'test'):
        assert main(config, phase) == 0
        written.append(json.loads(path.read_text()))
    assert written[0] == written[1] and written[0]['config_hash'] == config_hash(load_config(config)[0])
