"Open-set figures against the definitions, counted one pair and one search at a time."
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from skeletongait.core import SkeletonGaitError
from skeletongait.evaluation.open_set import (
    Pairs, det_curve, equal_error_rate, miss_rate, open_set_figures, open_set_lines, pairs_between, pairs_within,
    plot_open_set, rank1_within, search_gallery, threshold_at, true_accept_rate)

DISTANCE = st.sampled_from([0, .25, .5, 1, 2, 3, 5])  # few values, so that many tie
DISTANCES = st.lists(DISTANCE, min_size=1, max_size=12)
RATE = st.sampled_from([.01, .1, .29, 1/3, .5, .9])


def make_pairs(genuine, impostor): return Pairs(np.sort(np.float32(genuine)), np.sort(np.float32(impostor)))


def naive_rates(pairs, t):
    "False match and false non-match rate, by the definition."
    false_matches = sum(1 for e in pairs.impostor if e <= t)
    false_non_matches = sum(1 for d in pairs.genuine if d > t)
    return Fraction(false_matches, len(pairs.impostor)), Fraction(false_non_matches, len(pairs.genuine))


def naive_eer(pairs):
    "The rule of FVC2000, over every threshold that makes a difference."
    thresholds = [float('-inf'), *sorted({*pairs.genuine.tolist(), *pairs.impostor.tolist()})]
    rates = [naive_rates(pairs, t) for t in thresholds]
    last = max(i for i, (fmr, fnmr) in enumerate(rates) if fmr <= fnmr)
    first = min(i for i, (fmr, fnmr) in enumerate(rates) if fmr >= fnmr)
    chosen = last if sum(rates[last]) <= sum(rates[first]) else first
    return float(sum(rates[chosen])/2), thresholds[chosen]


@given(DISTANCES, DISTANCES)
def test_det_curve(genuine, impostor):
    pairs = make_pairs(genuine, impostor)
    det = det_curve(pairs)
    assert [*zip(det.fmr, det.fnmr)] == [tuple(map(float, naive_rates(pairs, t))) for t in det.threshold]
    assert (np.diff(det.threshold) > 0).all() and (np.diff(det.fmr) >= 0).all() and (np.diff(det.fnmr) <= 0).all()
    assert (det.fmr[0], det.fnmr[0], det.fmr[-1], det.fnmr[-1]) == (0, 1, 1, 0)


@given(DISTANCES, DISTANCES)
def test_equal_error_rate(genuine, impostor):
    pairs = make_pairs(genuine, impostor)
    rate, t = equal_error_rate(pairs)
    assert (rate, t) == pytest.approx(naive_eer(pairs))
    assert rate == pytest.approx(float(sum(naive_rates(pairs, t)))/2) and 0 <= rate <= 1


def test_equal_error_rates_one_knows():
    assert equal_error_rate(make_pairs([1, 2], [3, 4]))[0] == 0
    assert equal_error_rate(make_pairs([1, 1], [1, 1]))[0] == .5  # all the same: half of all is wrong, whatever t
    assert equal_error_rate(make_pairs([3, 4], [1, 2]))[0] == 1
    same = np.arange(10)
    assert equal_error_rate(make_pairs(same, same))[0] == .5


@given(DISTANCES, RATE)
def test_threshold(impostor, rate):
    "It keeps the rate, and the next larger distance would not."
    d = np.sort(np.float32(impostor))
    allowed = Fraction(str(rate))*len(d)
    if allowed < 1:
        with pytest.raises(SkeletonGaitError, match='comparisons of different people, expected at least'):
            threshold_at(d, rate)
        return
    t = threshold_at(d, rate)
    assert sum(d <= t) <= allowed < sum(d <= d[d > t][0])


@given(DISTANCES, DISTANCES, RATE, RATE)
def test_true_accept_rate(genuine, impostor, one, other):
    "As many genuine pairs as the best threshold within the rate accepts; more for a larger rate."
    pairs, found = make_pairs(genuine, impostor), []
    candidates = [float('-inf'), *(x + d for x in {*genuine, *impostor} for d in (-.01, 0, .01))]
    for rate in sorted((one, other)):
        if Fraction(str(rate))*len(impostor) < 1: continue
        within = [t for t in candidates if naive_rates(pairs, t)[0] <= Fraction(str(rate))]
        found.append(true_accept_rate(pairs, rate))
        assert found[-1] == pytest.approx(1 - float(min(naive_rates(pairs, t)[1] for t in within)))
    assert found == sorted(found)


def naive_search(d_m, subject, gallery):
    "One search: is the subject there, the nearest distance, is it the subject's, the nearest of the others."
    compared = [j for j, d in enumerate(d_m) if d < float('inf')]
    nearest = min(compared, key=lambda j: d_m[j], default=None)
    others = [d_m[j] for j in compared if gallery[j] != subject]
    own = any(gallery[j] == subject for j in compared)
    return own, nearest, min(others, default=None)


@settings(max_examples=200)
@given(st.integers(0, 2**32-1), st.booleans())
def test_figures_of_a_matrix(seed, strangers):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 9, 2)
    gallery = [f's{i}' for i in rng.integers(0, 4, m)]
    probe = [f's{i}' for i in rng.integers(0, 6 if strangers else 4, n)]
    d_nm = rng.integers(0, 5, (n, m)).astype(np.float32)
    d_nm[rng.random((n, m)) < .2] = np.inf

    every = [(i, j) for i in range(n) for j in range(m) if d_nm[i, j] < np.inf]
    pairs = pairs_between(d_nm, probe, gallery)
    assert pairs.genuine.tolist() == sorted(d_nm[i, j] for i, j in every if probe[i] == gallery[j])
    assert pairs.impostor.tolist() == sorted(d_nm[i, j] for i, j in every if probe[i] != gallery[j])

    found = [naive_search(d_nm[i].tolist(), probe[i], gallery) for i in range(n)]
    s = search_gallery(d_nm, probe, gallery)
    known = [(i, near) for i, (own, near, _) in enumerate(found) if own]
    assert s.known.tolist() == [d_nm[i, j] for i, j in known]
    assert s.right.tolist() == [probe[i] == gallery[j] for i, j in known]
    strange = [d_nm[i, near] for i, (own, near, _) in enumerate(found) if not own and near is not None]
    left_out = [other for *_, other in found if other is not None]
    assert s.left_out == (not strange) and s.stranger.tolist() == sorted(strange or left_out)
    for t in range(6):
        if known:
            named = [(i, j) for i, j in known if d_nm[i, j] <= t]
            right = [(i, j) for i, j in named if probe[i] == gallery[j]]
            assert miss_rate(s, t) == pytest.approx(1 - len(right)/len(known))
            assert rank1_within(s, t) == (pytest.approx(len(right)/len(named)) if named else None)

    figures = open_set_figures(d_nm, probe, gallery, (.5, .1))
    assert figures['genuine_pairs'] + figures['impostor_pairs'] == len(every)
    assert all(value is None or 0 <= value <= 100 for key, value in figures.items() if key == 'EER' or '@' in key)
    assert (figures['EER'] is None) == (not len(pairs.genuine) or not len(pairs.impostor))
    assert len(open_set_lines({'': figures})) == 2


@given(st.integers(0, 2**32-1))
def test_scale_and_order_make_no_difference(seed):
    rng = np.random.default_rng(seed)
    d = rng.random((8, 8))
    d = d + d.T
    subjects = rng.choice([*'abc'], 8).tolist()
    order = rng.permutation(8)
    one = pairs_within(d, subjects)
    other = pairs_within(2*d[order][:, order], [subjects[i] for i in order])
    assert (2*one.genuine == other.genuine).all() and (2*one.impostor == other.impostor).all()
    assert len(one.genuine) + len(one.impostor) == 28


def test_strangers_that_are_nearer_are_named_more_often():
    "A search in a larger gallery: FPIR grows, at one threshold."
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6))
    d = np.linalg.norm(x[:50, None] - x[None, 50:], axis=2)
    accepted = [(search_gallery(d[:, :m], [f'p{i}' for i in range(50)], [f'g{i}' for i in range(m)]).stranger <= 1.5)
                .mean() for m in (10, 50, 350)]
    assert accepted == sorted(accepted) and accepted[0] < accepted[-1]


@pytest.mark.parametrize('call, words', [
    (lambda: pairs_between(np.zeros((2, 3)), 'ab', 'ab'), r'found shape \(2, 3\), expected \(2, 2\)'),
    (lambda: pairs_between(np.full((1, 1), np.nan), 'a', 'a'), 'found NaN'),
    (lambda: det_curve(make_pairs([], [1])), '0 genuine and 1 impostor pairs'),
    (lambda: threshold_at(np.zeros(5), 1), 'above 0 and below 1'),
    (lambda: threshold_at(np.zeros(5), float('nan')), 'above 0 and below 1'),
    (lambda: threshold_at(np.zeros(0), .1), 'found 0 comparisons of different people, expected at least 10;'),
    (lambda: threshold_at(np.zeros(50), .01), 'found 50 .* at least 100; the smallest rate they can show is 0.02')])
def test_errors(call, words):
    with pytest.raises(SkeletonGaitError, match=words):
        call()


def test_picture():
    fig = plot_open_set(make_pairs([1, 2, 3], [2, 4, 5]))
    assert [ax.get_xlabel() for ax in fig.axes] == ['distance', 'false match rate (%)']
