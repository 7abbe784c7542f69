"Viewers of damaged or hostile records of a run show one line, never a traceback."
import json
import random
import warnings

import pytest
from hostile import paths, put
from hypothesis import HealthCheck, given, settings, strategies as st
from records import event, line, test as tested
from records import write_test

from skeletongait.core import SkeletonGaitError
from skeletongait.viewers.live import MOST_PANELS, check_records
from skeletongait.viewers.monitor import TrainingMonitor
from skeletongait.viewers.retrieval import RetrievalExplorer, newest_results, read_results
from skeletongait.runs.records import MOST_METRICS, parse_record, read_metrics, rewind_metrics

ODD = [-1, 0, 10**30, 2**60, 1e308, -1e308, 1e-320, float('nan'), float('inf'), 'x', '', ' ', '\ud800', '\0', 'a\nb',
       [], {}, None, True, [1], [[1], [1, 2]], [[], [1]], {'a': 1}, {'': 1}, {' ': 1.5}, {'\ud800/loss': 1},
       {'a/loss': 1e308, 'b/loss': -1e308}, {'a/loss': [1]}, {'lr': 'x'}, {'name': ['x'], 'value': 1},
       {'name': 'x', 'value': 'y'}, '9999-12-31T23:59:59', '0001-01-01', '2024-01-31T12:00:00+01:00', '$\\frac{']
RUN = [line(10), event(10, 'saved'), tested(10), line(20), event(20, 'stopped')]


def plain_line(e): assert '\n' not in str(e) and len(str(e)) < 1000


@settings(max_examples=400)
@given(st.sampled_from([at for at in paths(dict(enumerate(RUN)), 2)]), st.sampled_from(ODD))
def test_records_are_checked_field_by_field(at, value):
    try:
        check_records(list(put(dict(enumerate(RUN)), at, value).values()), 'run')
    except SkeletonGaitError as e:
        plain_line(e)


def look(folder):
    "All that a monitor shows of a run."
    v = TrainingMonitor.from_folders(folder, follow=False)
    v.snapshot(0)
    for o in (v.notice, *v.status.values()):
        o.value.encode()
    return v


PLACES = [*(('values', k) for k in ('triplet/loss', 'softmax/accuracy')), ('values',), ('iteration',), ('lr',),
          ('time',)]
CASES = [(0, at, v) for at in PLACES for v in ODD] + [(2, at, v)
                                                      for at in (('test',), ('test', 'mAP'), ('headline',),
                                                          ('headline', 'name'), ('headline', 'value'), ('event',))
                                                          for v in ODD] + [(1, ('event',), v) for v in ODD]


@pytest.mark.parametrize('k', range(12))
def test_a_monitor_of_damaged_records(tmp_path, k):
    "A dozen of the cases, drawn by chance; the slow test looks at eighty."
    watch(tmp_path, *random.Random(k).choice(CASES))


@pytest.mark.slow
def test_a_monitor_of_many_damaged_records(tmp_path):
    "Each draws for half a second, so these are eighty of the 455 cases."
    for case in random.Random(0).sample(CASES, 80):
        watch(tmp_path, *case)


def watch(folder, record, at, value):
    "One damaged record, as a monitor sees it."
    path, records = folder/'metrics.jsonl', [*RUN]
    records[record] = put(records[record], at, value)
    path.write_text(''.join(json.dumps(o) + '\n' for o in records))
    for read in (lambda: read_metrics(path), lambda: TrainingMonitor({'a': read_metrics(path)})):
        try:
            read()
        except SkeletonGaitError as e:
            plain_line(e)
    assert look(folder).curves is not None
    with warnings.catch_warnings():
        try:
            rewind_metrics(path, 15)
        except SkeletonGaitError as e:
            plain_line(e)


@pytest.mark.parametrize('damage',
                         [b'['*100_000, b'{"iteration": ' + b'9'*5000 + b'}',
                          b'{"iteration": 1000000000000000000000000000000}', b'{"iteration": true}',
                          b'{"iteration": 1, "iteration": 2}', b'\xff', b'7',
                                    b'{"iteration": 1, "more": "' + b'x'*2**20 + b'"}'])
def test_a_line_that_is_not_a_record(tmp_path, damage):
    assert parse_record(damage) is None
    (path := tmp_path/'metrics.jsonl').write_bytes(damage + b'\n' + json.dumps(line(10)).encode() + b'\n')
    for read in (read_metrics, lambda path: rewind_metrics(path, 15)):
        with pytest.raises(SkeletonGaitError, match='line 1 is') as e:
            read(path)
        plain_line(e.value)
    assert 'line 1 is' in look(tmp_path).runs[tmp_path.name].problem


def test_files_that_are_not_metrics(tmp_path):
    (path := tmp_path/'metrics.jsonl').mkdir()
    assert 'cannot be read' in look(tmp_path).runs[tmp_path.name].problem
    with pytest.raises(SkeletonGaitError, match='cannot be read'):
        read_metrics(path)
    path.rmdir()
    with open(path, 'wb') as f:
        f.truncate(MOST_METRICS+1)
    assert 'takes 512 MB' in look(tmp_path).runs[tmp_path.name].problem
    with pytest.raises(SkeletonGaitError, match='takes 512 MB'):
        read_metrics(path)


def test_more_losses_than_can_be_drawn():
    with pytest.raises(SkeletonGaitError, match='kinds of values'):
        check_records([line(1, values={f'{i}/loss': 1. for i in range(MOST_PANELS+1)})], 'run')
    with pytest.raises(SkeletonGaitError, match='kinds of values'):
        check_records([line(i, values={f'{i}-{k}': 1. for k in range(10)}) for i in range(1, 100)], 'run')


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_explorer_of_damaged_results(tmp_path, data):
    if not (tmp_path/'whole.json').exists():
        write_test(tmp_path)
        (tmp_path/'whole.json').write_bytes(newest_results(tmp_path/'results').read_bytes())
    whole, path = json.loads((tmp_path/'whole.json').read_text()), newest_results(tmp_path/'results')
    at, value = data.draw(st.sampled_from([*paths(whole, 2)])), data.draw(st.sampled_from(ODD))
    path.write_text(json.dumps(put(whole, at, value)))
    explore(tmp_path, path)


def explore(folder, path):
    try:
        read_results(path)
    except SkeletonGaitError as e:
        plain_line(e)
    v = RetrievalExplorer.from_results(folder)
    if v.problem: return plain_line(v.problem)
    v.figure()
    v.snapshot(0)
