"Distances, ranks and scores against naive loops."
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from skeletongait.core import SkeletonGaitError
from skeletongait.evaluation.ranking import (
    PART, Scores, cmc, distance_blocks, distances, hit_columns, make_embedding_set, name_codes, nearest_sequences,
    order_keys, percentage, plot_cmc, rank_hits, rank_of, score_galleries, score_probes, score_ranks, top_k)

SEEDS = st.integers(0, 2**32-1)


def naive_distance(x_cp, y_cp, metric):
    x, y = x_cp.astype(float), y_cp.astype(float)
    if metric == 'euc': return np.sqrt(((x-y)**2).sum(0)).mean()
    return 1 - ((x*y).sum(0)/np.maximum(np.sqrt((x**2).sum(0))*np.sqrt((y**2).sum(0)), 1e-300)).mean()


def naive_scores(d_m, match_m, valid_m):
    "One probe, by the definitions."
    ranked = sorted((j for j in range(len(d_m)) if valid_m[j]), key=lambda j: d_m[j])
    hits = [r for r, j in enumerate(ranked, 1) if match_m[j]]
    if not hits: return float('inf'), float('nan'), float('nan'), len(ranked)
    return hits[0], sum(k/r for k, r in enumerate(hits, 1))/len(hits), len(hits)/hits[-1], len(ranked)


def random_test(seed, n, grid=2):
    "Embeddings on a coarse grid, so that distances tie, and few names, so that some probes have no match."
    rng = np.random.default_rng(seed)
    return make_embedding_set(rng.integers(1-grid, grid, (n, 2, 2)).astype(np.float32),
                              *[[f'{k}{i}' for i in rng.integers(0, 3, n)] for k in 'stv']), rng


def agree(a, b, fields): return bool(fields) and all(getattr(a, f) == getattr(b, f) for f in fields)


@pytest.mark.parametrize('metric', ('euc', 'cos'))
def test_distances(metric):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 5, 3)).astype(np.float32), rng.normal(size=(9, 5, 3)).astype(np.float32)
    x[0] = 0
    expected = [[naive_distance(a, b, metric) for b in y] for a in x]
    d = distances(torch.from_numpy(x), torch.from_numpy(y), metric)
    assert d.dtype == torch.float32
    np.testing.assert_allclose(d, expected, rtol=1e-6)


@pytest.mark.parametrize('metric', ('euc', 'cos'))
@pytest.mark.parametrize('scale', (1e-3, 20, 1e4))
def test_copies_tie_whatever_their_place(metric, scale):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 256, 16))*scale, np.repeat(rng.normal(size=(1, 256, 16))*scale, PART + 277, 0)
    x, y = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    assert all(len(r.unique()) == 1 for r in distances(x, y, metric))
    assert (distances(y[:301], y, metric) == 0).all()


@pytest.mark.parametrize('metric', ('euc', 'cos'))
def test_distances_are_never_negative_nor_minus_zero(metric):
    x = torch.randn(500, 3, 2, generator=torch.Generator().manual_seed(0))
    x = torch.cat([x, x*2, x*(1 + 1e-6), -x, torch.zeros(2, 3, 2)])
    d = distances(x, x, metric)
    assert not torch.signbit(d).any() and d.isfinite().all()


def test_parts_of_the_gallery_make_no_difference():
    x = torch.randn(3*PART//2, 4, 2, generator=torch.Generator().manual_seed(0))
    whole = distances(x[:5], x)
    assert torch.equal(torch.cat([distances(x[:5], o) for o in x.split(100)], 1), whole)
    assert (whole[torch.arange(5), torch.arange(5)] == 0).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, width=32, allow_nan=False), min_size=1, max_size=30))
def test_keys_sort_like_a_stable_sort(values):
    d = torch.tensor([values]).abs()
    assert torch.equal(order_keys(d).argsort(1), d.sort(dim=1, stable=True).indices)
    assert len(order_keys(d).unique()) == len(values)


@st.composite
def rankings(draw):
    n, m = draw(st.integers(1, 5)), draw(st.sampled_from((1, 2, 9, 40)))
    rng = np.random.default_rng(draw(SEEDS))
    levels = draw(st.sampled_from((1, 3, 1000)))                       # 1: everything ties
    share = draw(st.sampled_from((0., .3, 1.)))
    return rng.integers(0, levels, (n, m)).astype(np.float32), rng.random((n, m)) < .4, rng.random((n, m)) < share


@settings(max_examples=200, deadline=None)
@given(rankings())
def test_counting_is_sorting(case):
    d, match, valid = map(torch.from_numpy, case)
    h = max(1, int(match.sum(1).max()))
    hits = torch.tensor([(m.nonzero()[:, 0].tolist() + [-1]*h)[:h] for m in match])
    ours = score_ranks(rank_hits(d.masked_fill(~valid, torch.inf), hits), valid.sum(1))
    np.testing.assert_allclose(torch.stack(ours, 1), [naive_scores(*o) for o in zip(*case)], rtol=1e-12)


def test_counting_over_several_parts():
    rng = np.random.default_rng(0)
    d = torch.from_numpy(rng.integers(0, 50, (4, 3*PART + 5)).astype(np.float32))
    hits = torch.from_numpy(np.stack([rng.choice(d.shape[1], 700, replace=False) for _ in d]))
    order = d.sort(dim=1, stable=True).indices.argsort(1) + 1
    assert torch.equal(rank_hits(d, hits), order.gather(1, hits).sort(1).values.double())


def test_huge_distances_are_not_exclusions():
    big = torch.finfo(torch.float32).max
    assert rank_hits(torch.tensor([[big, 1., torch.inf]]), torch.tensor([[0, 2]])).tolist() == [[2, torch.inf]]


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.integers(1, 12), st.integers(1, 12))
def test_hit_columns(seed, n, m):
    rng = np.random.default_rng(seed)
    a, b = torch.from_numpy(rng.integers(0, 4, n)), torch.from_numpy(rng.integers(0, 4, m))
    for row, s in zip(hit_columns(a, b), a):
        assert sorted(j for j in row.tolist() if j >= 0) == (b == s).nonzero()[:, 0].tolist()


@settings(max_examples=80, deadline=None)
@given(SEEDS, st.integers(2, 25), st.sampled_from(((), ('view',), ('subject', 'view'), ('type',), ('subject',))),
       st.sampled_from(('euc', 'cos')), st.integers(1, 60))
def test_core_is_the_naive_loop(seed, n, exclude, metric, block):
    test, rng = random_test(seed, n)
    probe = rng.random(n) < .5
    probe[0], probe[1] = True, False
    p, g = probe.nonzero()[0], (~probe).nonzero()[0]
    x, expected = test.embeddings.numpy(), []
    for i in p:
        d = [round(float(np.float32(naive_distance(x[i], x[j], metric))), 5) for j in g]
        pairs = [(test.sequences[i], test.sequences[j]) for j in g]
        expected.append(naive_scores(d, [a.subject == b.subject for a, b in pairs],
                                     [not agree(a, b, exclude) for a, b in pairs]))
    np.testing.assert_allclose(torch.stack(score_probes(test, p, g, metric, exclude, block), 1), expected, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(4, 25), st.sampled_from(((), ('view',), ('subject', 'view'))))
def test_several_galleries_are_as_many_single_ones(seed, n, exclude):
    test, rng = random_test(seed, n)
    p, *galleries = np.split(rng.permutation(n), [n//4 or 1, n//2, n//2 + 1])
    galleries = [g for g in galleries if len(g)]
    together = score_galleries(test, p, galleries, 'euc', exclude)
    for c, g in enumerate(galleries):
        for a, b in zip(together, score_probes(test, p, g, 'euc', exclude)):
            np.testing.assert_array_equal(a[:, c], b)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 40), st.integers(1, 50), st.integers(1, 100))
def test_top_k_is_a_stable_sort(seed, n, k, block):
    test, rng = random_test(seed, n)
    p, g = np.arange(n//2), np.arange(n//2, n)
    near, far = nearest_sequences(test, p, g, k, exclude=('view',), block=block)
    d = torch.cat([o.clone() for _, o in distance_blocks(test, p, g,
                                                         exclude=('view',))]) if len(p) else torch.empty(0, len(g))
    order = d.sort(dim=1, stable=True)
    assert torch.equal(near, torch.from_numpy(g)[order.indices[:, :k]]) and torch.equal(far, order.values[:, :k])


def test_top_k_over_several_parts():
    d = torch.from_numpy(np.random.default_rng(0).integers(0, 40, (6, 3*PART + 7)).astype(np.float32))
    for k in (1, 20, PART + 1, 3*PART + 7):
        assert torch.equal(top_k(d, k), d.sort(dim=1, stable=True).indices[:, :k])


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16, torch.float64, torch.int64))
def test_any_dtype_and_grad(dtype):
    x = torch.arange(4)[:, None, None].to(dtype)
    if dtype.is_floating_point:
        x.requires_grad_()
    s = score_probes(make_embedding_set(x, 'abab', 'ggpp', 'vvvv'), np.array([2, 3]), np.array([0, 1]))
    assert s.first.tolist() == [2, 1] and not s.ap.requires_grad


def test_rows_of_any_memory_layout():
    x = torch.randn(40, 6, 4, generator=torch.Generator().manual_seed(0))
    names = [f'{i % 7}' for i in range(40)], ['t']*40, ['v']*40
    expected = score_probes(make_embedding_set(x, *names), np.arange(10), np.arange(10, 40))
    for other in (x.permute(2, 1, 0).contiguous().permute(2, 1, 0), torch.randn(80, 6, 4)[::2].copy_(x)):
        assert torch.equal(torch.stack(score_probes(make_embedding_set(other, *names), np.arange(10),
                                                    np.arange(10, 40))), torch.stack(expected))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('metric', ('euc', 'cos'))
def test_the_device_makes_no_difference(metric):
    x = torch.randn(300, 32, 4, generator=torch.Generator().manual_seed(0))
    names = [f'{i % 40}' for i in range(300)], ['t']*300, [f'{i % 3}' for i in range(300)]
    args = np.arange(100), np.arange(100, 300), metric, ('view',)
    on_gpu, on_cpu = (score_probes(make_embedding_set(o, *names), *args) for o in (x.cuda(), x))
    assert torch.equal(torch.stack(on_gpu).cpu(), torch.stack(on_cpu))


def test_hand_worked():
    "Hits at ranks 2, 3 and 5 of 5."
    s = score_ranks(torch.tensor([[2, 3, 5.]], dtype=torch.float64), torch.tensor([5]))
    assert s.first.item() == 2 and s.inp.item() == 3/5 and s.among.item() == 5
    assert abs(s.ap.item() - (1/2 + 2/3 + 3/5)/3) < 1e-12
    assert (percentage(s, 'Rank-1'), percentage(s, 'R5'), cmc(s)[:3]) == (0, 100, [0, 100, 100])


def test_probes_without_a_match():
    inf, nan = torch.inf, torch.nan
    s = Scores(*torch.tensor([[1, 1, 1, 9], [inf, nan, nan, 9], [inf, nan, nan, 0]], dtype=torch.float64).T)
    assert (percentage(s, 'R1'), percentage(s, 'R1', 'wrong'),
            percentage(s, 'mAP', 'wrong')) == (100, 50, 100)      # the last has nobody to be compared with
    lost = Scores(*(o[1:] for o in s))
    assert (percentage(lost, 'R1'), percentage(lost, 'R1', 'wrong'), percentage(lost, 'mINP'), cmc(lost),
            cmc(lost, 'wrong')) == (None, 0, None, None, [0]*50)


@pytest.mark.parametrize('measure, k', (('Rank-1', 1), ('Rank@5', 5), ('R20', 20), ('mAP', None), ('mINP', None)))
def test_measures(measure, k): assert rank_of(measure) == k


@pytest.mark.parametrize('measure', ('rank-1', 'R', 'R0', 'R01', 'Rank1', 'top-5', 'map', '', 'R1 '))
def test_wrong_measures(measure):
    with pytest.raises(SkeletonGaitError, match='expected mAP, mINP, or Rank-k'):
        rank_of(measure)


def test_percentages_are_counts_over_counts():
    "So that a cell of 1 in 800 rounds like 0.125, which is even, and not like 0.12500000000000003."
    s = Scores(*torch.ones(4, 800, dtype=torch.float64))
    s.first[1:] = 2
    assert percentage(s, 'R1') == .125


def test_codes():
    test = make_embedding_set(np.zeros((4, 1, 1)), ['a', 'a', 'b', 'a'], ['x', 'y', 'x', 'x'], ['1', '1', '1', '1'])
    assert name_codes(test, ('subject', 'type')).tolist() == [0, 1, 2, 0]
    assert len(name_codes(make_embedding_set(np.zeros((2, 1, 1)), ['a-b', 'a'], ['c', 'b-c'], ['v']*2),
                          ('subject', 'type')).unique()) == 2


def test_wrong_metric():
    x = torch.zeros(2, 1, 1)
    for call in (lambda: distances(x, x, 'cosine'),
                 lambda: score_probes(make_embedding_set(x, 'ab', 'tt', 'vv'), np.array([0]), np.array([1]), 'cosine')):
        with pytest.raises(SkeletonGaitError, match="metric: found 'cosine', expected one of euc, cos"):
            call()


@pytest.mark.parametrize('bad', (np.nan, np.inf))
@pytest.mark.parametrize('at', (1, PART + 3))
def test_non_finite_embeddings(bad, at):
    x = np.zeros((PART + 5, 2, 2))
    x[at, 1, 0] = bad
    with pytest.raises(SkeletonGaitError, match=f'1 of {PART + 5} sequences are not finite .the first: {at}-t-v'):
        make_embedding_set(x, range(PART + 5), ['t']*(PART + 5), ['v']*(PART + 5))


def test_wrong_shapes():
    for x, n in ((np.zeros((3, 2)), 3), (np.zeros((0, 2, 2)), 0)):
        with pytest.raises(SkeletonGaitError, match='expected .sequences, channels, strips'):
            make_embedding_set(x, ['a']*n, ['t']*n, ['v']*n)
    with pytest.raises(SkeletonGaitError, match=r'found \[3, 3, 2, 3\]'):
        make_embedding_set(np.zeros((3, 2, 2)), ['a']*3, ['t']*2, ['v']*3)


@pytest.mark.parametrize('block', (1, 100, 10**9))
def test_memory_is_bounded_by_the_block(block):
    test = make_embedding_set(np.random.default_rng(0).normal(size=(2000, 2, 2)), [f'{i % 5}' for i in range(2000)],
                              ['t']*2000, ['v']*2000)
    seen = [d.shape for _, d in distance_blocks(test, np.arange(1500), np.arange(1500, 2000), block=block)]
    assert sum(n for n, _ in seen) == 1500 and all(m == 500 for _, m in seen)
    assert max(n for n, _ in seen) == min(PART, max(1, block//500))


def test_curve():
    fig = plot_cmc({'a': {'cmc': [50., 75.] + [100.]*48}}, max_rank=10)
    assert fig.axes[0].lines[0].get_ydata().tolist() == [50, 75] + [100]*8
    plt.close(fig)
