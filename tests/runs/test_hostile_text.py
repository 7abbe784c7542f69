"Damaged and hostile text: settings and JSON end in an error of one line, within limits of depth, size and time."

import json
import os

import pytest
from hypothesis import given, settings, strategies as st

from skeletongait.runs.folder import Run, read_best
from skeletongait.runs.config import load_config
from skeletongait.files.settings import SettingsError
from skeletongait.files.text import DEEPEST, MOST_TEXT, MOST_VALUES, read_json, read_text, read_yaml
from skeletongait.core import SkeletonGaitError
from skeletongait.data.partition import read_partition
from skeletongait.maps.settings import load_heatmap_config
from skeletongait.prepare.manifest import MANIFEST, Record, from_line, maps_name, read_manifest, to_line
from skeletongait.viewers.live import read_total


def bomb(levels, wide, first, one):
    "Aliases of aliases: `wide` to the power of `levels` values in a few lines."
    return first + ''.join(f'a{i}: &a{i} {one(f"*a{i - 1}, " * wide)}\n' for i in range(1, levels))


LAUGHS = bomb(12, 9, 'a0: &a0 [x]\n', lambda o: f'[{o}]')
MERGES = bomb(9, 12, 'a0: &a0 {x: 1}\n', lambda o: f'\n  <<: [{o}]')
HOSTILE_YAML = {
    'int': ('!!int abc', 'found .abc.'),
    'no int': ('a:\n !!int ""', '^line 2: '),
    'bits': ('!!int 0b', 'expected int'),
    'bool': ('!!bool x', 'expected bool'),
    'float': ('!!float x', 'expected float'),
    'date': ('!!timestamp x', 'timestamp'),
    'no date': ('!!timestamp 2001-99-99', 'timestamp'),
    'binary': ('!!binary x', 'binary'),
    'set': ('!!set {a}', 'set'),
    'object': ('!!python/object:os.system x', 'python'),
    'digits': ('b: 1\na: ' + '9' * 5000, '^line 2: '),
    'digits within the limit': ('a: ' + '9' * 4000, '300 digits'),
    'brackets': ('[' * 3000, 'more than 64'),
    'many brackets': ('[' * 100_000, 'more than 64'),
    'whole brackets': ('[' * 3000 + ']' * 3000, 'more than 64'),
    'braces': ('{a: ' * 3000, 'more than 64'),
    'dashes': ('- ' * 20_000, 'more than 64'),
    'questions': ('? ' * 3000, 'more than 64'),
    'steps': ('\n'.join(' ' * i + 'a:' for i in range(500)), 'more than 64'),
    'laughs': (LAUGHS, 'more than 50,000 values'),
    'merges': (MERGES, 'more than 50,000 values'),
    'itself': ('a: &a [*a]', 'inside'),
    'merges itself': ('&a {<<: *a}', 'inside'),
    'nowhere': ('*a', 'undefined alias'),
    'values': ('- 1\n' * (MOST_VALUES + 1), 'more than 50,000 values'),
    'long': ('#' * (MOST_TEXT + 1), 'at most 262,144'),
    'key of a list': ('a: 1\n? [a]\n: b', '^line 2: found unhashable key'),
    'nul': ('a: 1\nb: \0', '^line 2: not YAML'),
    'bell': ('a: \a', '^line 1: not YAML'),
    'surrogate': ('a: "\\ud800"', 'expected text'),
    'written nul': (r'a: "\0"', 'expected text'),
    'beyond unicode': (r'a: "\U00110000"', '^line 1: not YAML'),
    'far beyond': (r'a: "\UFFFFFFFF"', '^line 1: not YAML'),
    'version': ('%YAML ' + '9' * 5000 + '.1\n--- a', '^line 1: not YAML'),
    'key of two lines': (r'"a\nb": 1', 'expected a name'),
    'long key': ('? ' + 'k' * 300 + '\n: 1', 'expected a name'),
    'two documents': ('a\n---\nb', '^line 2: '),
    'twice in two lines': ('{"a b": 1, "a b": 2}', 'appears twice'),
}


def one_line(f, *args):
    "The one line that `f` ends with."
    with pytest.raises(SkeletonGaitError) as e:
        f(*args)
    message = str(e.value)
    assert '\n' not in message and len(message) < 2000 and message.isprintable(), message
    return message


@pytest.mark.parametrize('name', HOSTILE_YAML)
def test_hostile_yaml_is_one_line(tmp_path, name):
    text, said = HOSTILE_YAML[name]
    with pytest.raises(SkeletonGaitError, match=said):
        read_yaml(text)
    one_line(read_yaml, text)
    (path := tmp_path / 'x.yaml').write_text(text, encoding='utf-8')
    for read in (load_config, load_heatmap_config, read_total) if len(text) < 20_000 else ():
        assert one_line(read, path).startswith(f'{path}: ')
    if len(text) < 1000:
        assert isinstance(
            pytest.raises(SettingsError, load_config, 'skeletongait_Gait3D', [f'model_cfg={text}']).value,
            SkeletonGaitError,
        )


def test_yaml_that_is_accepted():
    assert read_yaml('a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, y: 3}\nc: [*a, *a]\nd: !!str 5\ne: !!int 7\n? 3\n: f') == {
        'a': (a := {'x': 1, 'y': [1, 2]}),
        'b': {'x': 1, 'y': 3},
        'c': [a, a],
        'd': '5',
        'e': 7,
        3: 'f',
    }
    assert len(read_yaml('- 1\n' * (MOST_VALUES - 1))) == MOST_VALUES - 1
    deep = read_yaml('[' * (DEEPEST - 1) + '1' + ']' * (DEEPEST - 1))
    for _ in range(DEEPEST - 1):
        (deep,) = deep
    assert deep == 1


@settings(max_examples=300)
@given(st.text(st.sampled_from('[]{}&*!?:-,|>%@\'"\\#~<= \n\tab01.xUu'), max_size=40))
def test_any_text_is_yaml_or_one_line(text):
    try:
        read_yaml(text)
    except SkeletonGaitError as e:
        assert '\n' not in str(e)


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text()),
    lambda o: st.lists(o) | st.dictionaries(st.text(), o),
    max_leaves=20,
)


@given(PLAIN)
def test_json_is_read_as_python_reads_it(o):
    text = json.dumps(o)
    assert repr(read_json(text)) == repr(read_json(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize(
    'text',
    [
        '',
        '{',
        '[1,]',
        '{"a": 1, "a": 1}',
        '9' * 5000,
        str(2**63),
        str(-(2**63) - 1),
        '[' * 100_000,
        '{"a":' * 100_000,
        '[' * 65 + ']' * 65,
        b'\xff',
        b'\x00\x00',
        b'[1',
    ],
)
def test_hostile_json_is_one_line(text):
    assert one_line(read_json, text).startswith(('not JSON: ', 'JSON nested more than 64 deep'))


def test_json_of_the_greatest_depth():
    assert read_json('[' * DEEPEST + ']' * DEEPEST)


@pytest.fixture
def places(tmp_path):
    "Paths that are not files of text."
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'bytes').write_bytes(b'a: \xff')
    os.mkfifo(tmp_path / 'pipe')
    with open(tmp_path / 'huge', 'wb') as f:
        f.truncate(10**12)
    (tmp_path / 'circle').symlink_to(tmp_path / 'circle')
    return {name: tmp_path / name for name in ('folder', 'bytes', 'pipe', 'huge', 'circle', 'none')}


@pytest.mark.parametrize('name', ['folder', 'bytes', 'pipe', 'huge', 'circle', 'none'])
def test_paths_that_are_not_text_are_one_line(places, name):
    for read in (load_config, load_heatmap_config, read_partition, lambda path: read_text(path, 'a note')):
        assert str(places[name]) in one_line(read, places[name])


@pytest.mark.parametrize(
    'text',
    [
        '[]',
        '1',
        'null',
        '{"TRAIN_SET": {}, "TEST_SET": []}',
        '{"TRAIN_SET": [], "TEST_SET": [1]}',
        '{"a\\nb": 1}',
        '{"TRAIN_SET": [], "TEST_SET": [], "PROBE_SET": null}',
        '{"TRAIN_SET": ["a\\nb", 1], "TEST_SET": []}',
        '[' * 100_000,
        '9' * 5000,
        '{"TRAIN_SET": [], "TRAIN_SET": [], "TEST_SET": []}',
    ],
)
def test_hostile_partition_is_one_line(tmp_path, text):
    (path := tmp_path / 'p.json').write_text(text)
    assert one_line(read_partition, path).startswith(f'{path}: ')


RECORD = Record('001/nm-01/090/x.pkl', 10, 1700000000000000000, 'a' * 64, 20, 30, ('a warning',))


@given(st.sampled_from(Record._fields), PLAIN)
def test_a_record_is_whole_or_none(field, value):
    "Whatever one of its fields holds."
    r = from_line(json.dumps(RECORD._asdict() | {field: value}))
    if r is None:
        return
    assert from_line(to_line(r)) == r and type(r.size) is type(r.mtime_ns) is type(r.bytes) is type(r.frames) is int
    assert maps_name(r.pose).endswith('.pkl') and all(isinstance(o, str) for o in r.notices)


@pytest.mark.parametrize(
    'line',
    [
        b'{}',
        b'[]',
        b'1',
        b'null',
        b'[' * 100_000,
        b'9' * 5000,
        b'\xff',
        to_line(RECORD).encode()[:-1],
        to_line(RECORD)[:-1].encode() + b', "more": 1}',
        to_line(RECORD)[:-1].encode() + b', "size": 1}',
        to_line(RECORD._replace(pose='')).encode(),
        to_line(RECORD._replace(pose='..')).encode(),
        to_line(RECORD._replace(pose='a/..')).encode(),
        to_line(RECORD._replace(size=10**30)).encode(),
        to_line(RECORD._replace(window=1.5)).encode(),
    ],
)
def test_lines_that_are_not_records(tmp_path, line):
    assert from_line(line) is None
    (tmp_path / MANIFEST).write_bytes(b'{"settings": {}}\n' + line + b'\n' + to_line(RECORD).encode() + b'\n')
    assert read_manifest(tmp_path).records == {RECORD.pose: RECORD}
    (tmp_path / MANIFEST).write_bytes(line + b'\n')
    assert 'its first line is not a header' in one_line(read_manifest, tmp_path)


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[]',
        '{"iteration": 1e30, "value": 1}',
        '{"iteration": 1, "value": true}',
        '{"iteration": 1, "value": NaN}',
        '{"iteration": 1, "value": Infinity}',
        '{"iteration": 1, "value": "1"}',
        '[' * 100_000,
        '{"iteration": %s, "value": 1}' % ('9' * 5000),
    ],
)
def test_a_damaged_record_of_the_best_is_a_warning(tmp_path, caplog, text):
    run = Run(load_config('skeletongait_Gait3D')[0], tmp_path)
    run.best_file.parent.mkdir(parents=True)
    run.best_file.write_text(text)
    assert read_best(run) == {} and caplog.text.count('best.json: ') == 1
