"Frame numbers: what is written comes back, and rows are joined by what they show."

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skeletongait.core import SkeletonGaitError
from skeletongait.files.frames import (
    FRAMES,
    check_frames,
    join_frames,
    n_frames,
    read_frames,
    to_numbers,
    to_runs,
    write_frames,
)
from skeletongait.files.tree import Sequence

NUMBERS = st.sets(st.integers(0, 40), max_size=30).map(sorted)
LETTERS = st.characters(codec=None, exclude_characters='/\0') | st.sampled_from('😀\udce9\\')
NAMES = st.text(LETTERS, min_size=1, max_size=5)


@given(NUMBERS)
def test_runs_are_the_numbers(numbers):
    runs = to_runs(numbers)
    assert to_numbers(runs).tolist() == numbers and n_frames(runs) == len(numbers)
    assert all(later[0] - earlier[1] > 1 for earlier, later in zip(runs, runs[1:]))


@given(NUMBERS, NUMBERS)
def test_joined_rows_show_the_same_frames_and_none_is_missed(a, b):
    in_a, in_b = join_frames(np.array(a, int), np.array(b, int))
    assert [a[i] for i in in_a] == [b[i] for i in in_b] == sorted({*a} & {*b})


@given(st.dictionaries(st.builds(Sequence, NAMES, NAMES, NAMES), NUMBERS.filter(len), max_size=5))
def test_a_file_comes_back(tmp_path_factory, frames):
    root = tmp_path_factory.getbasetemp()
    runs = {sequence: to_runs(numbers) for sequence, numbers in frames.items()}
    write_frames(root, runs)
    assert read_frames(root) == runs
    assert (root / FRAMES).exists() == bool(runs)


def test_the_same_numbers_are_not_written_twice(tmp_path):
    runs = {Sequence('1', 'a', '0'): [[0, 5]], Sequence('0', 'a', '0'): [[2, 2]]}
    write_frames(tmp_path, runs)
    before = (tmp_path / FRAMES).stat().st_ino
    write_frames(tmp_path, dict(reversed(runs.items())))
    assert (tmp_path / FRAMES).stat().st_ino == before


@pytest.mark.parametrize(
    'content',
    [
        '{',
        '[]',
        '3',
        {'1/2': [[0, 1]]},
        {'1/2/3': []},
        {'1/2/3': [[0, 1], [1, 2]]},
        {'1/2/3': [[-1, 1]]},
        {'1/2/3': [0]},
    ],
)
def test_a_wrong_file_is_one_clear_error(content, tmp_path):
    (tmp_path / FRAMES).write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')
    with pytest.raises(SkeletonGaitError, match=f'{FRAMES}: .*expected the frame numbers of a tree'):
        read_frames(tmp_path)


def test_numbers_without_end_ask_for_no_memory(tmp_path):
    "A run of 2**60 frames is refused by its count, before anything is made of it."
    (tmp_path / FRAMES).write_text('{"1/2/3": [[0, 1152921504606846976]]}', encoding='utf-8')
    runs = read_frames(tmp_path)[Sequence('1', '2', '3')]
    with pytest.raises(SkeletonGaitError, match='x.pkl: has 40 frames'):
        check_frames(runs, 40, 'x.pkl')
