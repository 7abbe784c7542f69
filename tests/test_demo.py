"The demonstration learns, and only because the labels are true. Minutes each."
import json
import os
import shutil
import sys
import subprocess

import numpy as np
import pytest

from skeletongait.files.tree import Sequence, read_tree
from skeletongait.demo import CONFIGS, POPULATION, demo_config, train_and_test


@pytest.fixture(scope='module')
def done(tmp_path_factory):
    "The demonstration, run as `make demo` runs it, in an empty folder."
    top = tmp_path_factory.mktemp('demo')
    env = {k: v for k, v in os.environ.items() if k != 'OMP_NUM_THREADS'}
    subprocess.run([sys.executable, '-m', 'skeletongait.demo'], cwd=top, env=env, check=True, timeout=1500)
    return top


@pytest.mark.slow
def test_both_networks_learn(done):
    "On unseen people, in another view and other clothes: 20 points of rank-1 above the untrained and no network."
    root = done/'output'/'demo'
    partition = json.loads((root/'partition.json').read_text())
    assert len(partition['TEST_SET']) >= 20 and not set(partition['TEST_SET']) & set(partition['TRAIN_SET'])
    lines = {l['model']: l for l in json.loads((root/'results.json').read_text())}
    rank1 = {name: l['results']['Rank-1'] for name, l in lines.items()}
    for name, without in (('SkeletonGait', 'no network: maps'), ('SkeletonGait++', 'no network: maps and silhouettes')):
        assert rank1[name] >= 20 + max(rank1[f'{name}, untrained'], rank1[without]), rank1
        assert lines[name]['results']['probes_left_out'] == 0 and lines[name]['iterations'] == 150
    table = (root/'results.txt').read_text()
    assert all(word in table for word in ('model', 'iterations', 'Rank-1', 'Rank-5', 'mAP', 'mINP', 'seconds', *lines))
    assert all((root/f'{name}.png').stat().st_size > 10_000 for name in ('strip', 'losses', 'cmc'))


def shuffle_labels(linked, subjects, seed=0):
    "Deal the training sequences out anew: every subject keeps as many, but they are anybody's."
    sequences = [s for s in read_tree(linked).sequences if s.subject in subjects]
    order = np.random.default_rng(seed).permutation(len(sequences))
    for s in sequences:
        s.path(linked).rename(s.path(linked).with_name(f'{s.view}-{s.subject}'))
    for i, s in zip(order, sequences):
        other = sequences[i]
        other.path(linked).with_name(f'{other.view}-{other.subject}').rename(Sequence(s.subject, s.type,
            s.view).path(linked))


@pytest.mark.slow
def test_with_shuffled_labels_nothing_is_learnt(done, monkeypatch):
    root = done/'output'/'demo'
    shutil.copytree(root/'linked', done/'shuffled'/'linked', symlinks=True)
    shutil.copy(root/'partition.json', done/'shuffled')
    shuffle_labels(done/'shuffled'/'linked', json.loads((root/'partition.json').read_text())['TRAIN_SET'])
    n_walks = POPULATION['n_subjects']*len(POPULATION['types'])*len(POPULATION['views'])
    assert len(read_tree(done/'shuffled'/'linked').sequences) == n_walks
    monkeypatch.chdir(done)
    true = {l['model']: l['results']['Rank-1'] for l in json.loads((root/'results.json').read_text())}
    for name, packaged in CONFIGS.items():
        cfg, path = demo_config(packaged, done/'shuffled')
        before, after = [l.results['Rank-1'] for l in train_and_test(name, cfg, path, done/'shuffled'/'runs')]
        without = true['no network: maps' if name == 'SkeletonGait' else 'no network: maps and silhouettes']
        assert after < 20 + max(before, without) and after < true[name] - 20
