import json
from pathlib import Path
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from skeletongait.core import SkeletonGaitError
from skeletongait.evaluate import (PROTOCOLS, GalleryProbe, Rule, distances, evaluate, make_embedding_set, plot_cmc, rank_gallery, results_table,
                                   score_probes, score_ranking, summarise)

GOLDEN = Path(__file__).parent/'golden'


def naive_distance(x_cp, y_cp, metric):
    x, y = x_cp.astype(float), y_cp.astype(float)
    if metric == 'euc': return np.sqrt(((x-y)**2).sum(0)).mean()
    return 1 - ((x*y).sum(0)/np.maximum(np.sqrt((x**2).sum(0))*np.sqrt((y**2).sum(0)), 1e-300)).mean()


def naive_scores(d_m, match_m, valid_m):
    "One probe, by the definitions."
    ranked = sorted((j for j in range(len(d_m)) if valid_m[j]), key=lambda j: d_m[j])
    hits = [r for r, j in enumerate(ranked, 1) if match_m[j]]
    if not hits: return float('inf'), float('nan'), float('nan')
    return hits[0], sum(k/r for k, r in enumerate(hits, 1))/len(hits), len(hits)/hits[-1]


def golden(metric):
    with np.load(GOLDEN/f'eval_Gait3D_{metric}.npz') as z: z = {k: z[k] for k in z}
    return [z[k] for k in ('embeddings', 'labels', 'types', 'views')], json.loads(str(z['results']))


@pytest.mark.parametrize('metric', ('euc', 'cos'))
@pytest.mark.parametrize('as_tensor', (False, True))
def test_gait3d_golden(metric, as_tensor):
    (x, *names), expected = golden(metric)
    r = evaluate(torch.from_numpy(x) if as_tensor else x, *names, 'Gait3D', metric, probes=expected['probe'])
    for k in ('Rank-1', 'Rank-5', 'Rank-10', 'mAP', 'mINP'): assert abs(r[k] - expected[k]) < 1e-6, k
    assert (r['probes'], r['probes_left_out'], r['probes_not_found'], r['gallery']) == (40, 0, 0, 162)
    assert json.loads(json.dumps(r)) == r


def test_gait3d_leaves_out_probes_without_a_match():
    (x, *names), expected = golden('euc')
    names = [np.append(o, v) for o, v in zip(names, ('lonely', 't', 'v'))]
    r = evaluate(np.concatenate([x, x[:1]]), *names, 'Gait3D', probes=[*expected['probe'], 'lonely-t-v', 'absent-t-v'])
    assert (r['probes'], r['probes_left_out'], r['probes_not_found']) == (40, 1, 1)
    assert abs(r['mAP'] - expected['mAP']) < 1e-6


@pytest.mark.parametrize('metric', ('euc', 'cos'))
def test_distances(metric):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 5, 3)).astype(np.float32), rng.normal(size=(9, 5, 3)).astype(np.float32)
    x[0] = 0
    expected = [[naive_distance(a, b, metric) for b in y] for a in x]
    d = distances(torch.from_numpy(x), torch.from_numpy(y), metric)
    assert d.dtype == torch.float32
    np.testing.assert_allclose(d, expected, rtol=1e-6)


def test_copies_tie_whatever_their_place():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 256, 16))*20, np.repeat(rng.normal(size=(1, 256, 16))*20, 301, 0)
    for metric in ('euc', 'cos'):
        d = distances(torch.from_numpy(x).float(), torch.from_numpy(y).float(), metric)
        assert all(len(r.unique()) == 1 for r in d)
    assert (distances(torch.from_numpy(y).float(), torch.from_numpy(y).float()) == 0).all()


@st.composite
def rankings(draw):
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32-1)))
    levels = draw(st.sampled_from((1, 3, 1000)))                       # 1: everything ties
    share = draw(st.sampled_from((0., .3, 1.)))
    return rng.integers(0, levels, (n, m)).astype(np.float32), rng.random((n, m)) < .4, rng.random((n, m)) < share


@settings(max_examples=200, deadline=None)
@given(rankings())
def test_core_is_the_naive_loop(case):
    d, match, valid = map(torch.from_numpy, case)
    order = rank_gallery(d, valid)
    assert torch.equal(order.sort(1).values, torch.arange(d.shape[1]).expand(d.shape))
    ours = torch.stack(score_ranking((match & valid).gather(1, order)), 1).numpy()
    np.testing.assert_allclose(ours, [naive_scores(*o) for o in zip(*case)], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32-1), st.integers(2, 25), st.sampled_from(((), ('view',), ('subject', 'view'), ('type',))), st.sampled_from(('euc', 'cos')), st.integers(1, 60))
def test_protocol_is_the_naive_loop(seed, n, exclude, metric, block):
    "Embeddings on a coarse grid, so that distances tie; some probes have no match; blocks of any size."
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, (n, 2, 2)).astype(np.float32)
    names = [[f'{k}{i}' for i in rng.integers(0, 3, n)] for k in 'stv']
    test = make_embedding_set(x, *names)
    probe = rng.random(n) < .5
    probe[0], probe[1] = True, False
    p, g = probe.nonzero()[0], (~probe).nonzero()[0]
    expected = []
    for i in p:
        d = [np.float32(naive_distance(x[i], x[j], metric)) for j in g]
        d = [round(float(o), 5) for o in d]
        same = [{f: getattr(test.sequences[i], f) == getattr(test.sequences[j], f) for f in ('subject', 'type', 'view')} for j in g]
        expected.append(naive_scores(d, [s['subject'] for s in same], [not exclude or not all(s[f] for f in exclude) for s in same]))
    scores = score_probes(test, p, g, metric, exclude, block)
    np.testing.assert_allclose(torch.stack(scores, 1), expected, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32-1))
def test_scores_do_not_depend_on_the_order_of_distinct_sequences(seed):
    rng = np.random.default_rng(seed)
    x, names = rng.normal(size=(20, 3, 2)), [np.array([f'{k}{i}' for i in rng.integers(0, 4, 20)]) for k in 'stv']
    kw = dict(protocol=GalleryProbe(probe={'types': 't0'}, exclude=('subject', 'view')))
    order = rng.permutation(20)
    names[0][:2], names[1][:2] = 's0', ['t0', 't1']                                # at least one match
    names[2][:2] = ['v0', 'v1']
    a, b = evaluate(x, *names, **kw), evaluate(x[order], *(o[order] for o in names), **kw)
    assert a.pop('cmc') == b.pop('cmc') and a == pytest.approx(b)


def test_hand_worked():
    "Hits at ranks 2, 3 and 5 of 5."
    s = score_ranking(torch.tensor([[False, True, True, False, True]]))
    assert s.first.item() == 2 and s.inp.item() == 3/5
    assert abs(s.ap.item() - (1/2 + 2/3 + 3/5)/3) < 1e-12
    r = summarise(s)
    assert (r['Rank-1'], r['Rank-5'], r['cmc'][:3]) == (0, 100, [0, 100, 100])


def test_ties_go_to_the_earlier():
    x, labels = np.ones((4, 2, 2), np.float32), ['a', 'b', 'a', 'b']
    r = evaluate(x, labels, ['g', 'g', 'p', 'p'], ['v']*4, GalleryProbe(probe={'types': 'p'}))
    assert r['Rank-1'] == 50 and r['mAP'] == 75


def test_exclusion():
    x = np.array([0, 1, 5, 0.])[:, None, None]
    names = (['a', 'b', 'a', 'a'], ['g', 'g', 'g', 'p'], ['0', '90', '90', '0'])
    results = {e: evaluate(x, *names, GalleryProbe(probe=Rule(types='p'), exclude=e)) for e in ((), ('view',), ('subject', 'view'))}
    assert [r['Rank-1'] for r in results.values()] == [100, 0, 0]
    assert results[()]['mAP'] == pytest.approx(100*(1 + 2/3)/2) and results['view',]['mAP'] == 50


def test_labels_of_any_kind():
    x, types, views = np.arange(4.)[:, None, None], ['g', 'g', 'p', 'p'], ['v']*4
    expected = evaluate(x, ['0', '1', '0', '1'], types, views, GalleryProbe(probe={'types': 'p'}))
    for labels in ([0, 1, 0, 1], np.array([0, 1, 0, 1]), torch.tensor([0, 1, 0, 1]), ['Jörg', 'a b/ c', 'Jörg', 'a b/ c'], ['*', '[x]', '*', '[x]']):
        assert evaluate(x, labels, types, views, GalleryProbe(probe={'types': 'p'})) == expected


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16, torch.float64, torch.int64))
def test_any_dtype_and_grad(dtype):
    x = torch.arange(4)[:, None, None].to(dtype)
    if dtype.is_floating_point: x.requires_grad_()
    assert evaluate(x, ['a', 'b', 'a', 'b'], ['g', 'g', 'p', 'p'], ['v']*4, GalleryProbe(probe={'types': 'p'}))['Rank-1'] == 50


def test_rules():
    names = [('s1', 'nm-01', '000'), ('s1', 'bg-01', '000'), ('S1', 'nm-02', '090'), ('s2', 'nm-01', '018')]
    seqs = make_embedding_set(np.zeros((4, 1, 1)), *zip(*names)).sequences
    pick = lambda **kw: Rule(**kw).select(seqs).tolist()
    assert pick() == [True]*4
    assert pick(types='nm-*') == [True, False, True, True]
    assert pick(subjects='s?') == [True, True, False, True]                      # case counts
    assert pick(types=['nm-01', 'bg-*'], views='000') == [True, True, False, False]
    assert pick(names=['s2-nm-01-018', 's1-nm-01']) == [False, False, False, True]  # whole names, no patterns
    assert pick(names=['s2-nm-01-018'], views='000') == [False]*4


def test_a_probe_is_not_in_the_gallery():
    r = evaluate(np.arange(4.)[:, None, None], ['a', 'a', 'a', 'b'], ['1', '2', '3', '1'], ['v']*4, GalleryProbe(gallery={'types': '[12]'}, probe={'types': ['2', '3']}))
    assert r['gallery'] == 2 and r['probes'] == 2


def test_from_dict():
    cfg = {'gallery': {'types': ['nm-01']}, 'probe': {'types': 'bg-*', 'subjects': ['00?']}, 'exclude': ['view']}
    assert GalleryProbe.from_dict(cfg) == GalleryProbe(Rule(types=('nm-01',)), Rule(types=('bg-*',), subjects=('00?',)), ('view',))
    assert GalleryProbe.from_dict({}) == PROTOCOLS['Gait3D']


@pytest.mark.parametrize('cfg, said', [
    ({'galery': {}}, "protocol: key 'galery' is not known; did you mean 'gallery'"),
    ({'gallery': {'type': 'x'}}, "gallery: key 'type' is not known; did you mean 'types'"),
    ({'probe': 'bg-01'}, "probe: found 'bg-01', expected a mapping"),
    ({'probe': {'views': [90]}}, 'views: found 90, expected text'),
    ({'exclude': ['views']}, "exclude: found 'views', expected some of subject, type, view"),
    ('Gait3D', 'expected a mapping'),
])
def test_wrong_protocols(cfg, said):
    with pytest.raises(SkeletonGaitError, match=said): GalleryProbe.from_dict(cfg)


@pytest.mark.parametrize('kw, said', [
    (dict(protocol='gait3d', probes=['a-p-v']), "'gait3d' is not known; did you mean 'Gait3D'"),
    (dict(protocol='Gait3D'), 'takes its probes from a list, and none was given'),
    (dict(protocol='Gait3D', probes=['x-y-z']), 'probe: no test sequence is chosen'),
    (dict(protocol='Gait3D', probes=['a-p-v'], metric='cosine'), "metric: found 'cosine', expected one of euc, cos"),
    (dict(protocol='Gait3D', probes=['b-g-v']), 'none of the 1 probes has its subject in the gallery'),
    (dict(protocol='Gait3D', probes=['a-p-v'], csv_path='x.csv'), 'csv_path: protocol Gait3D writes no list'),
    (dict(protocol=GalleryProbe(gallery={'types': 'q'}, probe={'types': 'p'})), 'gallery: no test sequence is chosen'),
])
def test_wrong_calls(kw, said):
    with pytest.raises(SkeletonGaitError, match=said): evaluate(np.arange(3.)[:, None, None], ['a', 'b', 'a'], ['g', 'g', 'p'], ['v']*3, **kw)


@pytest.mark.parametrize('bad', (np.nan, np.inf))
def test_non_finite_embeddings(bad):
    x = np.zeros((3, 2, 2)); x[1, 1, 0] = bad
    with pytest.raises(SkeletonGaitError, match='1 of 3 sequences are not finite .the first: b-t-v'): make_embedding_set(x, ['a', 'b', 'c'], ['t']*3, ['v']*3)


def test_wrong_shapes():
    for x, n in ((np.zeros((3, 2)), 3), (np.zeros((0, 2, 2)), 0)):
        with pytest.raises(SkeletonGaitError, match='expected .sequences, channels, strips'): make_embedding_set(x, ['a']*n, ['t']*n, ['v']*n)
    with pytest.raises(SkeletonGaitError, match=r'found \[3, 3, 2, 3\]'): make_embedding_set(np.zeros((3, 2, 2)), ['a']*3, ['t']*2, ['v']*3)


def test_own_protocol():
    class Count:
        def results(self, test, metric, probes): return {'n': len(test.sequences), 'metric': metric, 'probes': probes}
    assert evaluate(np.zeros((2, 1, 1)), 'ab', 'tt', 'vv', Count(), 'cos', ['x']) == {'n': 2, 'metric': 'cos', 'probes': ['x']}


def test_memory_is_bounded_by_the_block(monkeypatch):
    seen = []
    import skeletongait.evaluate as module
    real = module.distances
    def spy(x, y, metric):
        seen.append(len(x)*len(y))
        return real(x, y, metric)
    monkeypatch.setattr(module, 'distances', spy)
    test = make_embedding_set(np.random.default_rng(0).normal(size=(50, 2, 2)), [f'{i%5}' for i in range(50)], ['t']*50, ['v']*50)
    score_probes(test, np.arange(20), np.arange(20, 50), block=100)
    assert sum(seen) == 20*30 and max(seen) <= 100


def test_table_and_curve():
    (x, *names), expected = golden('euc')
    r = evaluate(x, *names, 'Gait3D', probes=expected['probe'])
    head, values, counts = results_table(r).splitlines()
    assert head.split() == ['Rank-1', 'Rank-5', 'Rank-10', 'mAP', 'mINP'] and values.split() == ['47.50', '75.00', '77.50', '42.76', '27.43']
    assert len(head) == len(values) and 'probes 40' in counts and 'gallery 162' in counts
    fig = plot_cmc({'euc': r}, max_rank=10)
    assert fig.axes[0].lines[0].get_ydata().tolist() == r['cmc'][:10]
