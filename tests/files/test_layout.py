"Folder layouts: what is read in a path, and that nothing is guessed."

import csv
import io
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from skeletongait.core import SkeletonGaitError
from skeletongait.files.layout import Layout, TableLayout, place_all, read_layout
from skeletongait.files.text import save_text
from skeletongait.files.tree import Sequence, read_tree

SEPARATORS = '-_/'
LETTERS = st.characters(exclude_characters=SEPARATORS + '.\0/\\', exclude_categories=['Cs'])
NAMES = st.tuples(*[st.text(LETTERS, min_size=1, max_size=8)] * 3).map(lambda names: Sequence(*names))


TWO_SEPARATORS = st.tuples(*[st.sampled_from(SEPARATORS)] * 2)


@given(NAMES, st.permutations(Sequence._fields), TWO_SEPARATORS, st.sampled_from(['', '.json']))
def test_names_without_separators_come_back(sequence, order, separators, ending):
    first, second, third = order
    pattern = '{%s}%s{%s}%s{%s}%s' % (first, separators[0], second, separators[1], third, ending)
    path = pattern.format(**sequence._asdict())
    assert Layout(pattern).place(path) == sequence
    assert Layout(pattern.removesuffix('.json')).place(path, ('.json',)) == sequence


@given(NAMES, st.text('ab-_', min_size=1, max_size=6))
def test_a_name_with_separators_is_read_right_or_refused(sequence, type):
    "With the widths of its neighbours it always comes back; without, it is never read as something else."
    sequence = sequence._replace(type=type)
    path = '-'.join(sequence)
    widths = '{subject:%d}-{type}-{view:%d}' % (len(sequence.subject), len(sequence.view))
    assert Layout(widths).place(path) == sequence
    try:
        assert Layout('{subject}-{type}-{view}').place(path) == sequence
    except SkeletonGaitError as e:
        assert '-' in type and 'in several ways' in str(e)


@pytest.mark.parametrize(
    'pattern, path, says',
    [
        ('{subject}/{type}/{view}', '1/2', "it ends after 2 parts, and '{view}' is missing"),
        ('{subject}/{type}/{view}', '1/2/3/4', "its part '4' is one too many, the layout has 3"),
        ('{subject}/{type}/cam{view}', '1/2/3', "its part '3' does not fit 'cam{view}'"),
        ('id{subject}/t{type}/cam{view}', '1/2/3', "its part '1' does not fit 'id{subject}'"),
        ('{subject}{type}/{view}', 'abc/3', "its part 'abc' fits '{subject}{type}' in several ways"),
        ('{subject}/{type}/{view}', '1/../3', "its type is '..'; expected the name of a folder"),
    ],
)
def test_an_error_names_path_pattern_and_part(pattern, path, says):
    with pytest.raises(SkeletonGaitError) as e:
        Layout(pattern).place(path)
    assert path in str(e.value) and says in str(e.value)
    assert pattern in str(e.value) or 'expected the name of a folder' in str(e.value)


def test_a_pattern_is_checked_before_any_path():
    lacking = ('', 'walks', '{}', '{type}/{view}', '{subject}/{type=}', '{subject=a}/{subject}', '{subject}/{kind=a}')
    for pattern in (*lacking, '{subject}/{type}/{view}/{view}', '{subject:0}/{type}/{view}'):
        with pytest.raises(SkeletonGaitError):
            Layout(pattern)


@given(NAMES, st.sampled_from(['', 'clips/']))
def test_a_constant_stands_for_nothing_in_the_path(sequence, above):
    "What a layout says itself is not read; what it leaves out gets the usual name."
    assume(not set('{}*') & set(''.join(sequence)))
    for pattern, path in (
        ('{subject}/{type=%s}/{view}' % sequence.type, f'{sequence.subject}/{sequence.view}'),
        ('{subject}{type=%s}/{view=%s}' % sequence[1:], sequence.subject),
        ('{subject=%s}/{type}/{view}' % sequence.subject, '/'.join(sequence[1:])),
    ):
        assert Layout(above + pattern).place(above + path + '.json', ('.json',)) == sequence
    assert Layout('{subject}').place(sequence.subject) == Sequence(sequence.subject, 'clip', '000')
    assert Layout('{view}_{subject}').usual == {'type': 'clip'}


@pytest.mark.parametrize('path', ['bob', 'bob/nm', 'study/bob/nm/090', 'study/day 2/bob/nm/090'])
def test_the_layout_that_a_message_names_fits(path):
    with pytest.raises(SkeletonGaitError, match='would read subject bob') as e:
        Layout('{subject}/{type}/{view}').place(path)
    assert read_layout(re.search("--layout='([^']*)' would", str(e.value))[1]).place(path).subject == 'bob'


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_a_table_says_the_same(tmp_path_factory, sequences):
    assume(all(name == name.strip('\r\n') for s in sequences for name in s))
    text = io.StringIO(newline='')
    rows = csv.writer(text)
    rows.writerow(['path', 'subject', 'type', 'view'])
    for i, sequence in enumerate(sequences):
        rows.writerow([f'clips/{i}.mp4', *sequence])
    path = tmp_path_factory.getbasetemp() / 'walks.csv'
    path.write_bytes(text.getvalue().encode())
    layout = read_layout(str(path))
    assert isinstance(layout, TableLayout)
    assert [layout.place(f'clips/{i}.mp4') for i in range(len(sequences))] == sequences


@given(st.lists(st.tuples(st.sampled_from('ab'), st.sampled_from('ab')), max_size=6, unique=True))
def test_two_walks_never_share_a_place(names):
    paths = [f'{a}/x/{b}' for a, b in names] + [f'{a}/y/{b}' for a, b in names[:2]]
    placed = place_all(Layout('{subject}/*/{type}{view:1}'), [p + 'v' for p in paths])
    assert len(placed.paths) + len(placed.failed) == len(paths)
    for path, why in placed.failed:
        other = path.replace('/y/', '/x/') if '/y/' in path else path.replace('/x/', '/y/')
        assert path in why and other in why


def test_what_is_placed_is_found_again(tmp_path):
    layout = Layout('{view}/{subject}_{type}.*')
    paths = ['090/1_nm-01.mp4', '000/1_nm-01.mp4', '090/2_bg-02.avi']
    placed = place_all(layout, paths)
    for sequence in placed.paths:
        file = sequence.path(tmp_path) / 'x.pkl'
        file.parent.mkdir(parents=True)
        file.touch()
    assert list(read_tree(tmp_path).sequences) == list(placed.paths)
    assert placed.failed == [] and len(placed.paths) == 3


def test_a_table_that_is_none(tmp_path):
    for text in ('', 'a,b\n', 'path,subject,type,view\n1,2,3\n', 'path,subject,type,view\n"1'):
        save_text(text, tmp_path / 't.csv')
        with pytest.raises(SkeletonGaitError, match='t.csv'):
            read_layout(str(tmp_path / 't.csv'))
    with pytest.raises(SkeletonGaitError, match='or a pattern such as'):
        read_layout('no-such-file')
