"What a partition and a protocol ask for and the data lack, before anything is computed."

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skeletongait.core import SkeletonGaitError
from skeletongait.data.partition import Partition, regular_partition
from skeletongait.evaluation.coverage import COVERAGE_KINDS, find_partition, partition_rows, protocol_rows
from skeletongait.evaluation.protocols import PROTOCOLS, GalleryProbe, evaluate
from skeletongait.files.tree import Sequence

SUBJECTS = ('a', 'b', 'c', 'd')
subjects = st.lists(st.sampled_from(SUBJECTS), unique=True).map(tuple)


@given(subjects, subjects, subjects)
def test_a_partition_and_a_tree(train, test, have):
    "Each kind holds exactly the subjects that the sets say."
    rows = {r.kind: r for r in partition_rows(Partition(train, test), [Sequence(s, 't', 'v') for s in have])}
    named = {kind: {c.name for c in r.cases} for kind, r in rows.items()}
    listed = {*train, *test}
    want = {
        'on both sides': {*train} & {*test},
        'missing subject': listed - {*have},
        'unlisted subject': {*have} - listed,
    }
    assert named == {kind: names for kind, names in want.items() if names}
    if 'on both sides' in rows:
        assert rows['on both sides'].error
    if 'missing subject' in rows:
        assert rows['missing subject'].error == (not {*have} & {*train} or not {*have} & {*test})


def test_listed_probes():
    partition = Partition(('a',), ('b',), ('b-t-v', 'b-t-w', 'a-t-v'))
    (row,) = partition_rows(partition, [Sequence('a', 't', 'v'), Sequence('b', 't', 'v')])
    assert (row.kind, row.n, row.of) == ('missing probe', 2, 3) and row.todo == COVERAGE_KINDS['missing probe'].todo


def test_partitions_by_name_and_from_files(tmp_path):
    assert find_partition('CASIA-B') == regular_partition('CASIA-B')
    (tmp_path / 'p.json').write_text('{"TRAIN_SET": ["a"], "TEST_SET": ["b"]}')
    assert find_partition(tmp_path / 'p.json') == Partition(('a',), ('b',))
    with pytest.raises(SkeletonGaitError, match="'CASIA' is not known; did you mean 'CASIA-"):
        find_partition('CASIA')


names = st.lists(
    st.sampled_from([*itertools.product('abc', ['nm-01', 'nm-05', 'bg-01', 'cl-01'], ['000', '090'])]),
    unique=True,
    min_size=1,
)
CONDITIONS = dict(
    gallery={'types': 'nm-01'},
    conditions={'NM': {'probe': {'types': 'nm-05'}}, 'BG': {'probe': {'types': 'bg-01'}}},
)
protocols = st.sampled_from(
    [
        PROTOCOLS['CASIA-B'],
        GalleryProbe.from_dict(CONDITIONS),
        GalleryProbe.from_dict(CONDITIONS | {'exclude': ['view']}),
    ]
)


@settings(deadline=None)
@given(names.map(lambda o: [Sequence(*s) for s in o]), protocols)
def test_a_protocol_and_a_tree(sequences, protocol):
    "Errors are exactly the tests that the evaluation refuses, or has nothing to score in."
    rows = {r.kind: r for r in protocol_rows(protocol, sequences)}
    try:
        refused = any('nothing to score' in line for line in protocol.gaps(sequences))
    except SkeletonGaitError:
        refused = True
    assert any(r.error for r in rows.values()) == refused


def test_what_is_counted_is_what_the_evaluation_counts():
    sequences = [Sequence(s, t, 'v') for s, t in [('a', 'nm-01'), ('a', 'nm-05'), ('b', 'nm-05'), ('c', 'nm-01')]]
    protocol = GalleryProbe.from_dict(CONDITIONS)
    empty, lost = protocol_rows(protocol, sequences)
    assert [c.name for c in empty.cases] == ['BG'] and [c.name for c in lost.cases] == ['b-nm-05-v']
    results = evaluate(np.random.default_rng(0).normal(size=(4, 2, 3)), *zip(*sequences), protocol)
    assert any('1 of 2 probes' in note for note in results['notes'])
