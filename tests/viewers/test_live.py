"Records of a live run: only what is new is read, damage is told, and a run's status is one line of words."
import datetime
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from skeletongait.core import SkeletonGaitError
from skeletongait.runs.records import read_metrics, rewind_metrics
from skeletongait.viewers.live import RunFolder, Tail, is_over, read_total, run_status, span_of_time
from records import NOW, event, line, run_of, test, write_records as write


LINES = st.sampled_from([
    b'{"iteration": 1}', b'{"iteration": 22, "values": {"a/loss": 0.5}}', b'', b'{"iterat', b'7', b'{"iteration": "x"}',
    b'{"event": "s\xc3\xa9"}', b'\xff'])


def either(read):
    "What reading gives, or the error it ends with."
    try:
        return read()
    except SkeletonGaitError as e:
        return str(e)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=8), st.booleans(), st.lists(st.integers(0, 200), max_size=8))
def test_pieces_read_one_after_the_other_are_the_whole(tmp_path, lines, ended, cuts):
    "However a file grows, damaged or not, and whenever it is looked at."
    path = tmp_path/'metrics.jsonl'
    whole = b'\n'.join(lines)
    if ended:
        whole += b'\n'
    path.write_bytes(b'')
    tail, cuts = Tail(path), sorted({0, len(whole), *(c for c in cuts if c < len(whole))})
    for a, b in zip(cuts, cuts[1:] or [0]):
        with open(path, 'ab') as f:
            f.write(whole[a:b])
        assert either(lambda: tail.read() and None or tail.records) == either(lambda: read_metrics(path))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(['grow', 'tear', 'rewind', 'remove', 'new', 'cut']), st.integers(1, 6)),
                min_size=1, max_size=12))
def test_whatever_happens_to_the_file(tmp_path, steps):
    "Grows, is torn and repaired, resumed earlier, removed, begun anew, or cut in place."
    path, last = tmp_path/'metrics.jsonl', 0
    path.unlink(missing_ok=True)
    tail = Tail(path)
    for k, (what, n) in enumerate(steps, 1):
        last = happen(path, tail, what, n, last, k)
        tail.read()
        assert tail.records == (read_metrics(path) if path.exists() else [])
        if what == 'cut':
            path.unlink(missing_ok=True)
            last = 0


def happen(path, tail, what, n, last, k):
    "Let something happen to the file, with `n` lines or bytes; the last iteration after it."
    if what == 'grow':
        if path.exists():
            rewind_metrics(path, 10**6)  # as a resumption does it: the torn end goes
        write(path, [line(last+j+1, lr=k/7) for j in range(n)], 'a')
        return last + n
    if what == 'tear':
        torn = b'{"iteration": 99999, "ti'[:4*n]
        with open(path, 'ab') as f:
            f.write(torn)
        tail.read()
        os.truncate(path, path.stat().st_size-len(torn))
    elif what == 'rewind':
        last = max(last-n, 1)
        rewind_metrics(path, last)
    elif what in ('remove', 'new'):
        path.unlink(missing_ok=True)
        if what == 'remove': return 0
        write(path, [line(j+1, lr=-k) for j in range(n)])
        return n
    elif path.exists():
        os.truncate(path, path.stat().st_size//2)
    return last


def test_only_new_bytes_are_parsed(tmp_path, monkeypatch):
    path, parsed = tmp_path/'metrics.jsonl', []
    tail = Tail(path)
    monkeypatch.setattr('skeletongait.viewers.live.parse_record', lambda b: parsed.append(b) or json.loads(b))
    write(path, run_of(500))
    assert tail.read() and len(parsed) == 500
    assert not tail.read() and len(parsed) == 500
    write(path, [line(6000)], 'a')
    assert tail.read() and len(parsed) == 501 and len(tail.records) == 501


def test_same_number_in_the_file_system_but_another_content(tmp_path):
    "A file cut to nothing and written anew keeps its number, and may have grown past where reading stopped."
    path = tmp_path/'metrics.jsonl'
    write(path, run_of(3))
    tail = Tail(path)
    tail.read()
    number = path.stat().st_ino
    write(path, [line(i, lr=.5) for i in range(1, 9)])
    assert path.stat().st_ino == number and tail.read() and tail.records == read_metrics(path)


def test_damage_is_told_until_it_is_mended(tmp_path):
    run = RunFolder(tmp_path/'run')
    write(run.tail.path, run_of(3))
    assert run.read() and not run.problem
    with open(run.tail.path, 'ab') as f:
        f.write(b'garbage\n')
    write(run.tail.path, [line(50)], 'a')
    assert run.read() and 'line 4 is' in run.problem and 'garbage' in run.problem and len(run.records) == 3
    assert not run.read() and run.problem
    write(run.tail.path, run_of(5))
    assert run.read() and not run.problem and len(run.records) == 5


@pytest.mark.parametrize(
    'content, total',
    [
        ('trainer_cfg: {total_iter: 60000}', 60000), ('trainer_cfg: {}', 0), ('', 0), ('trainer_cfg: 3', 0), ('[1]', 0),
        ('trainer_cfg: {total_iter: many}', 0)])
def test_how_far_a_run_is_meant_to_go(tmp_path, content, total):
    (tmp_path/'config.yaml').write_text(content)
    assert read_total(tmp_path/'config.yaml') == total
    assert read_total(tmp_path/'none.yaml') == 0


def test_settings_that_cannot_be_read(tmp_path):
    run = RunFolder(tmp_path)
    write(run.tail.path, run_of(2))
    (tmp_path/'config.yaml').write_text('a: [')
    assert run.read() and 'config.yaml: line' in run.problem and 'expected the settings of a run' in run.problem


@pytest.mark.parametrize(
    'seconds, words',
    [
        (-5, '0 s'), (12.4, '12 s'), (119, '119 s'), (120, '2 min'), (7199, '120 min'), (7200, '2 h'),
        (172800, '2 days'), (1e7, '116 days')])
def test_time_in_words(seconds, words): assert span_of_time(seconds) == words


def test_how_a_run_stands():
    records, now = run_of(3), NOW+datetime.timedelta(seconds=42)
    assert run_status(records, 1030, now) == 'iteration 30 of 1,030, 2 it/s, ETA 0:08:20, last record 12 s ago'
    assert run_status(records, 0, now) == 'iteration 30, 2 it/s, last record 12 s ago'
    assert run_status(
        records, 1030, NOW+datetime.timedelta(seconds=151)).endswith('last record 2 min ago, seems stopped')
    slow = [line(30, seconds=60.)]  # a log line every ten minutes
    assert not run_status(slow, 1030, NOW+datetime.timedelta(hours=1)).endswith('stopped')
    assert run_status(slow, 1030, NOW+datetime.timedelta(hours=2)).endswith('seems stopped')
    stopped = event(35, 'stopped')
    words = run_status([*records, event(35, 'saved'), stopped], 1030, now)
    assert words == 'iteration 35 of 1,030, stopped 2024-01-31 12:00:35'
    assert run_status([*records, stopped, event(35, 'resumed')], 1030, now).endswith('last record 7 s ago')
    assert run_status(records, 30, now) == 'iteration 30 of 30, finished 2024-01-31 12:00:30'
    assert run_status([event(0, 'stopped')], 100, now).startswith('iteration 0 of 100, stopped')
    assert run_status([line(30, seconds=None)], 100, now) == 'iteration 30 of 100, last record 12 s ago'


def test_when_a_run_is_over():
    end = [line(10), event(10, 'saved')]
    now = NOW+datetime.timedelta(seconds=20)
    assert not is_over(end, 0, now) and not is_over(end, 11, now) and not is_over(end, 10, now)
    assert not is_over([], 10, now)
    assert is_over([*end, test(10)], 10, now) and is_over(end, 10, now+datetime.timedelta(seconds=600))
    assert not is_over([line(9), event(9, 'stopped')], 10, now+datetime.timedelta(days=9)) # may be taken up again


def test_settings_that_were_half_written_are_read_again(tmp_path):
    write(tmp_path/'metrics.jsonl', run_of(3))
    (tmp_path/'config.yaml').write_text('trainer_cfg: {total_')
    run = RunFolder(tmp_path)
    assert run.read() and 'config.yaml' in run.problem and len(run.records) == 3
    assert not run.read()
    (tmp_path/'config.yaml').write_text('trainer_cfg: {total_iter: 70}')
    assert run.read() and run.problem == '' and run.total == 70 and not run.read()


def test_brackets_without_end_are_no_record(tmp_path):
    (tmp_path/'metrics.jsonl').write_text(json.dumps(line(10)) + '\n' + '['*100_000)
    assert [o['iteration'] for o in read_metrics(tmp_path/'metrics.jsonl')] == [10]
