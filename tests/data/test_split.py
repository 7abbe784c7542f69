"Partitions of one's own subjects, and the command that writes them."

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import start

from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.data.partition import load_partition, read_partition
from skeletongait.data.split import (
    check_split,
    draw_test,
    lonely,
    match_test,
    split_folds,
    split_subjects,
    split_table,
)
from skeletongait.files.tree import Sequence, Tree, read_tree

NAMES = st.lists(st.text('abPQ01', min_size=1, max_size=4), min_size=2, max_size=12, unique=True)


def tree_of(subjects, n_types=2):
    sequences = {Sequence(s, f't{i}', '0'): () for s in sorted(subjects) for i in range(n_types)}
    return Tree('tree', sequences, ())


@given(NAMES, st.floats(0, 1, exclude_min=True, exclude_max=True), st.integers(0, 5))
def test_a_fraction_puts_everybody_on_one_side(subjects, fraction, seed):
    tree = tree_of(subjects)
    p = split_subjects(tree, draw_test(tree, fraction, seed))
    assert sorted(p.train + p.test) == sorted(subjects) and p.train and p.test
    assert abs(len(p.test) - fraction * len(subjects)) <= 1
    assert p == split_subjects(tree, draw_test(tree, fraction, seed))


@given(NAMES, st.data(), st.integers(0, 5))
def test_folds_test_everybody_once(subjects, data, seed):
    k = data.draw(st.integers(2, len(subjects)))
    folds = split_folds(tree_of(subjects), k, seed)
    assert sorted(s for p in folds for s in p.test) == sorted(subjects)
    assert all(sorted(p.train + p.test) == sorted(subjects) for p in folds)
    sizes = [len(p.test) for p in folds]
    assert len(folds) == k and max(sizes) - min(sizes) <= 1


def test_patterns_are_case_sensitive_and_must_match():
    tree = tree_of(['P1', 'P2', 'p3', 'x'])
    assert match_test(tree, ['P*']) == ['P1', 'P2']
    for patterns in (['Q*'], ['P*', 'Q*']):
        with pytest.raises(SkeletonGaitError, match='Q.: matches no subject'):
            match_test(tree, patterns)


@pytest.mark.parametrize('test', [[], ['a', 'b'], ['c']])
def test_a_split_without_a_side_is_refused(test):
    with pytest.raises(SkeletonGaitError):
        split_subjects(tree_of('ab'), test)


def test_one_subject_cannot_be_split():
    for call in (draw_test, split_folds):
        with pytest.raises(SkeletonGaitError, match='one level off'):
            call(tree_of('a'), 1)


def test_subjects_without_a_gallery_are_said():
    tree = tree_of('abc')
    del tree.sequences[Sequence('c', 't1', '0')]
    p = split_subjects(tree, ['b', 'c'])
    check_split(p, tree)
    assert lonely(p, tree) == ['c'] and split_table(p, tree).endswith('(1): c')
    assert 'warning' not in split_table(split_subjects(tree, ['b']), tree)


@pytest.fixture
def data(tmp_path):
    "Six subjects with two sequences each, and one with a single one."
    sequences = [Sequence(f'{s:03d}', t, '090') for s in range(6) for t in ('nm-01', 'bg-01')]
    for sequence in [*sequences, Sequence('P01', 'nm-01', '090')]:
        save_pickle(0, sequence.path(tmp_path / 'tree') / 'x.pkl')
    return tmp_path


def run(cwd, *args):
    return start('python file', 'partition', 'tree', *args, cwd=cwd)


def test_the_file_is_the_published_form(data):
    done = run(data, '--test=0.3', '--seed=1', '--save=deep/p.json')
    assert done.returncode == 0, done.stderr
    content = json.loads((data / 'deep' / 'p.json').read_text(encoding='utf-8'))
    assert content.keys() == {'TRAIN_SET', 'TEST_SET'}
    assert (len(content['TRAIN_SET']), len(content['TEST_SET'])) == (5, 2)
    assert load_partition(data / 'deep' / 'p.json', read_tree(data / 'tree')).notices == ()
    table = [line.split() for line in done.stdout.splitlines()]
    assert table[0] == ['subjects', 'sequences', 'types', 'views']
    assert table[1][:2] == ['train', '5'] and table[2][:2] == ['test', '2']


def test_a_list_a_pattern_and_folds(data):
    (data / 'test.txt').write_text('P01\r\n\n003\n', encoding='utf-8')
    done = run(data, '--test_list=test.txt', '--save=a.json')
    assert done.returncode == 0 and 'one sequence, for which no gallery is left (1): P01' in done.stdout
    assert read_partition(data / 'a.json').test == ('003', 'P01')
    assert run(data, '--test_pattern=00[0-1]', '--test_pattern=P*', '--save=b.json').returncode == 0
    assert read_partition(data / 'b.json').test == ('000', '001', 'P01')
    assert run(data, '--folds=3', '--save=c.json').returncode == 0
    tested = [read_partition(data / f'c-fold{i}.json').test for i in (1, 2, 3)]
    assert sorted(s for test in tested for s in test) == sorted({s.subject for s in read_tree(data / 'tree').sequences})
    assert not (data / 'c.json').exists()


def test_nothing_is_written_without_save_and_nothing_is_replaced(data):
    before = sorted(data.rglob('*'))
    assert 'nothing is written' in run(data, '--test=0.5').stdout and sorted(data.rglob('*')) == before
    assert run(data, '--folds=2', '--save=p.json').returncode == 0
    (data / 'p-fold1.json').unlink()
    kept = (data / 'p-fold2.json').read_bytes()
    done = run(data, '--folds=2', '--seed=2', '--save=p.json')
    assert done.returncode == 2 and 'p-fold2.json: holds another partition' in done.stderr
    assert (data / 'p-fold2.json').read_bytes() == kept and not (data / 'p-fold1.json').exists()


@pytest.mark.parametrize(
    'args, says',
    [
        ([], 'found none of them; expected one of --test, --test_list, --test_pattern, --folds'),
        (['--test=0.3', '--folds=2'], 'found --test and --folds; expected one of'),
        (['--test=0'], '--test=0.0: expected a fraction of the 7 subjects'),
        (['--folds=8'], '--folds=8: expected 2 to 7'),
        (['--test_list=none.txt'], 'none.txt: cannot be read'),
        (['--test_list=empty.txt'], 'empty.txt: is empty'),
        (['--test_list=wrong.txt'], "has no subject '7'"),
        (['--test_pattern=*'], '0 subjects would train and 7 test'),
        (['--test=0.3', '--save=empty.txt'], 'empty.txt: not JSON'),
    ],
)
def test_one_clear_line(args, says, data):
    (data / 'empty.txt').write_text('\n', encoding='utf-8')
    (data / 'wrong.txt').write_text('000\n7\n', encoding='utf-8')
    done = run(data, *args)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1
