"Every protocol against goldens and against loops written from its description; rules, reports, failures."
import csv
import dataclasses
import io
import json
import pickle
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import yaml
from goldens import GOLDEN
from hypothesis import given, settings, strategies as st

from skeletongait.core import SkeletonGaitError
from skeletongait.evaluation.protocols import (
    BY_FUNCTION, GalleryProbe, INDOOR, PROTOCOLS, Rule, evaluate, protocol_for)
from skeletongait.evaluation.open_set import open_set_figures
from skeletongait.evaluation.ranking import make_embedding_set
from skeletongait.evaluation.report import (
    failures, failures_csv, failures_table, plot_matrix, plot_results, results_csv, results_table, write_results)
from skeletongait.files.text import read_yaml

SEEDS = st.integers(0, 2**32-1)
VIEWS = {'CCPG': ['01_0', '02_0', '02_1']}
CASIA_E_SCENES = {'1': ['nm'], '2': ['nm', 'bg', 'cl'], '3_s': ['nm', 'cl']}
TYPES = {
    'Gait3D': ['camid0_videoid2', 'camid1_videoid2'],
    'GREW-realscene': ['01', '02'],
    'GREW-submission': ['01', '02', '03'],
    'OUMVLP': ['00', '01'],
    'OUMVLP-crossview': ['00', '01'],
    'CASIA-B': [f'nm-0{i}' for i in range(1, 7)] + ['bg-01', 'bg-02', 'cl-01', 'cl-02'],
    'CASIA-B-crossview': ['nm-01', 'nm-02', 'bg-01', 'bg-02', 'cl-01', 'cl-02'],
    'CASIA-E': [f'{h}-scene{scene}-{k}-{i}' for h in 'HL' for scene, kinds in CASIA_E_SCENES.items()
                for k in kinds for i in (1, 2)],
    'SUSTech1K': ['00-nm', '01-nm', '01-bg', '01-cl', '02-cr', '02-ub', '03-uf', '03-oc', '04-nt'],
    'CCPG': ['U0_D0', 'U0_D0_BG', 'U0_D3', 'U1_D0', 'U1_D1', 'U2_D2', 'U3_D3']}


def golden(name, metric):
    with np.load(GOLDEN/f'eval_{name}_{metric}.npz') as z:
        z = {k: z[k] for k in z}
    return [z[k] for k in ('embeddings', 'labels', 'types', 'views')], json.loads(str(z['results']))


def walks(name, seed=0, n=4, drop=0.):
    "Embeddings on a grid, laid out like a data set, some walks missing."
    rng = np.random.default_rng(seed)
    names = [(f'{s:03}', t, v) for s in range(n) for t in TYPES[name] for v in VIEWS.get(name, ['000', '090', '270'])
             if rng.random() >= drop]
    return make_embedding_set(rng.integers(-2, 3, (len(names), 3, 2)).astype(np.float32), *zip(*names))


def columns(test): return [test.embeddings, *(test.values(f) for f in ('subject', 'type', 'view'))]


TOLERANCES = {'CCPG': 6e-4}  # the others': by measure


@pytest.mark.parametrize('metric', ('euc', 'cos'))
@pytest.mark.parametrize('name', PROTOCOLS)
def test_goldens(name, metric):
    args, expected = golden(name, metric)
    r = evaluate(*args, name, metric, probes=expected.pop('probe', None))
    for k, v in expected.items():
        tolerance = TOLERANCES.get(name, 5.1e-3 if k.endswith('@R5') else 1e-6)
        assert r[k] == v if isinstance(v, str) else abs(r[k] - v) < tolerance, k
    assert json.loads(json.dumps(r, allow_nan=False)) == r
    assert all(isinstance(v, (float, int, str, list)) for v in r.values())


@pytest.mark.parametrize('name', PROTOCOLS)
def test_tensors_blocks_and_order_of_fields_make_no_difference(name, monkeypatch):
    (x, *names), expected = golden(name, 'euc')
    probes = expected.pop('probe', None)
    a = evaluate(x, *names, name, probes=probes)
    monkeypatch.setattr('skeletongait.evaluation.ranking.PART', 7)
    assert evaluate(torch.from_numpy(x).double(), *map(list, names), PROTOCOLS[name], probes=probes) == a


def test_gait3d_counts():
    (x, *names), expected = golden('Gait3D', 'euc')
    r = evaluate(x, *names, 'Gait3D', probes=expected['probe'])
    assert (r['probes'], r['probes_left_out'], r['probes_not_found'], r['gallery'], r['notes']) == (40, 0, 0, 162, [])
    assert len(r['cmc']) == 50 and r['cmc'][0] == r['Rank-1'] and r['cmc'][9] == r['Rank-10']


def test_gait3d_leaves_out_probes_without_a_match():
    (x, *names), expected = golden('Gait3D', 'euc')
    names = [np.append(o, v) for o, v in zip(names, ('lonely', 't', 'v'))]
    r = evaluate(np.concatenate([x, x[:1]]), *names, 'Gait3D', probes=[*expected['probe'], 'lonely-t-v', 'absent-t-v'])
    assert (r['probes'], r['probes_left_out'], r['probes_not_found']) == (40, 1, 1)
    assert abs(r['mAP'] - expected['mAP']) < 1e-6 and r['Rank-1'] == expected['Rank-1']
    assert r['notes'] == ['1 of 41 probes have no match in the gallery: left out',
                          '1 listed probes are not in the test set, such as absent-t-v']


# Every protocol against loops written from its description.

def nearest(test, i, gallery, k=1):
    x = test.embeddings.double()
    d = {j: np.float32((x[i] - x[j]).square().sum(0).sqrt().mean().item()) for j in gallery}
    return sorted(gallery, key=lambda j: (d[j], j))


def precision(subjects, s):
    hits = [r for r, o in enumerate(subjects, 1) if o == s]
    return 100*sum(k/r for k, r in enumerate(hits, 1))/len(hits) if hits else None


def mean(values):
    values = [v for v in values if v is not None]
    return sum(values)/len(values) if values else None


def is_one_of(*kinds):
    return lambda t: t in kinds


def holds(*texts):
    return lambda t: any(text in t for text in texts)


def scenes(kind):
    return is_one_of(*(f'{h}-scene{c}-{kind}-{i}' for h in 'HL' for c in ('2', '3', '3_s') for i in '12'))


CASIA_E_GALLERY = [f'{h}-scene1-nm-{i}' for h in 'HL' for i in '12']
QUESTIONS = {  # gallery, and probes of each condition
    'CASIA-B': (is_one_of('nm-01', 'nm-02', 'nm-03', 'nm-04'),
                dict(NM=is_one_of('nm-05', 'nm-06'), BG=is_one_of('bg-01', 'bg-02'), CL=is_one_of('cl-01', 'cl-02'))),
    'CASIA-B-crossview': (is_one_of('nm-02', 'bg-02', 'cl-02'),
                          dict(NM=is_one_of('nm-01'), BG=is_one_of('bg-01'), CL=is_one_of('cl-01'))),
    'OUMVLP': (is_one_of('01'), dict(NM=is_one_of('00'))),
    'OUMVLP-crossview': (is_one_of('01'), dict(NM=is_one_of('00'))),
    'CASIA-E': (is_one_of(*CASIA_E_GALLERY), {kind.upper(): scenes(kind) for kind in ('nm', 'bg', 'cl')}),
    'SUSTech1K': (holds('00-nm'),
                  dict(Normal=holds('01-nm'), Bag=holds('bg'), Clothing=holds('cl'), Carrying=holds('cr'),
                       Umberalla=holds('ub'), Uniform=holds('uf'), Occlusion=holds('oc'), Night=holds('nt'),
                       Overall=holds('01', '02', '03', '04')))}


def cross_view_loop(test, gallery, probe, views, decimals):
    "Rank-1 and mAP of one condition: a row per probe view, against all views; without the subject in that view."
    s, rank1, ap = test.sequences, [], []
    for view in views:
        right, precisions = [], []
        for i in probe:
            if s[i].view != view:
                continue
            ranked = nearest(test, i, [j for j in gallery if (s[j].subject, s[j].view) != (s[i].subject, view)])
            if ranked:
                right.append(s[ranked[0]].subject == s[i].subject)
            precisions.append(precision([s[j].subject for j in ranked], s[i].subject))
        rank1.append(np.round(100*mean(right), decimals) if right else None)
        found = mean(precisions)
        ap.append(None if found is None else np.round(found, decimals))
    return mean(rank1), mean(ap)


def view_pair_loop(test, gallery, probe, views, decimals, k):
    "Rank-k of one condition: a cell per pair of different views."
    s, rows = test.sequences, []
    for v in views:
        row = [i for i in probe if s[i].view == v]
        cells = []
        for w in views:
            column = [j for j in gallery if s[j].view == w]
            if v == w or not row or not column:
                continue
            hits = [s[i].subject in [s[j].subject for j in nearest(test, i, column)[:k]] for i in row]
            cells.append(np.round(100*sum(hits)/len(hits), decimals))
        rows.append(mean(cells))
    return mean(rows)


def loop(name, test, decimals=2):
    "Rank-k (and mAP) per condition by loops, rounded before averaging; keys as papers print them."
    s, out = test.sequences, {}
    is_gallery, questions = QUESTIONS[name]
    part = [i for i in range(len(s)) if name != 'CASIA-E' or s[i].view != '270']
    gallery = [i for i in part if is_gallery(s[i].type)]
    views = sorted({o.view for o in s})
    for condition, is_probe in questions.items():
        probe = [i for i in part if is_probe(s[i].type)]
        if name.endswith('crossview'):
            rank1, ap = cross_view_loop(test, gallery, probe, views, decimals)
            out |= {f'{condition}-Rank@1': rank1, f'{condition}-mAP': ap}
            continue
        for k in (1, 5) if name == 'SUSTech1K' else (1,):
            out[f'{condition}@R{k}'] = view_pair_loop(test, gallery, probe, views, decimals, k)
    return out


@settings(max_examples=8, deadline=None)
@given(SEEDS, st.sampled_from((0., .3, .7)))
@pytest.mark.parametrize('name', ['CASIA-B', 'CASIA-B-crossview', 'OUMVLP', 'OUMVLP-crossview', 'CASIA-E', 'SUSTech1K'])
def test_tables_by_view_are_the_naive_loops(name, seed, drop):
    "With ties, missing walks, missing views, probes without a match."
    test = walks(name, seed, 3, drop)
    try:
        r = evaluate(*columns(test), name)
    except SkeletonGaitError:
        return
    expected, unrounded = loop(name, test), loop(name, test, 12)
    for k in expected:
        # sums in another order may fall on the other side of a half hundredth: a mean precision of 44.955
        assert r[k] == pytest.approx(expected[k], abs=.0101 if 'mAP' in k else 1e-9), k
    assert {e['key']: e['unrounded'] for e in r['tables'] if e['key'] in expected} == pytest.approx(unrounded, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from((0., .5)), st.integers(1, 25))
def test_submission_is_a_stable_sort(seed, drop, top):
    test = walks('GREW-submission', seed, 4, drop)
    types = test.values('type')
    if not {'01', '02', '03'} <= set(types): return
    base = PROTOCOLS['GREW-submission']
    r = dataclasses.replace(base, submission=dataclasses.replace(base.submission, top=top)).results(test)
    head, *rows = csv.reader(io.StringIO(r['csv']))
    gallery = [i for i, t in enumerate(types) if t != '03']
    expected = [[s.view, *(str(int(test.sequences[j].subject)) for j in nearest(test, i, gallery)[:top])] for i,
                s in enumerate(test.sequences) if s.type == '03']
    assert rows == expected and head == ['videoId', *(f'rank{k}' for k in range(1, min(top, len(gallery)) + 1))]
    assert any('fewer than' in n for n in r['notes']) == (len(gallery) < top)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_percentages_do_not_depend_on_the_order_of_distinct_sequences(seed):
    rng = np.random.default_rng(seed)
    x, names = rng.normal(size=(20, 3, 2)), [np.array([f'{k}{i}' for i in rng.integers(0, 4, 20)]) for k in 'stv']
    kw = dict(protocol=GalleryProbe(probe={'types': 't0'}, exclude=('subject', 'view')))
    order = rng.permutation(20)
    names[0][:2], names[1][:2] = 's0', ['t0', 't1']                                # at least one match
    names[2][:2] = ['v0', 'v1']
    a, b = evaluate(x, *names, **kw), evaluate(x[order], *(o[order] for o in names), **kw)
    assert a.pop('cmc') == b.pop('cmc')
    for r in (a, b):
        r.pop('tables')
    assert a.pop('notes') == b.pop('notes') and a == pytest.approx(b)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from(sorted(TYPES)), st.sampled_from((.2, .6, .9)))
def test_results_are_json_without_nan_whatever_is_missing(seed, name, drop):
    try:
        test = walks(name, seed, 3, drop)
    except (SkeletonGaitError, ValueError, TypeError):
        return                       # nobody left
    p = PROTOCOLS[name]
    kw = dict(probes=[str(s) for s in test.sequences[::2]]) if name == 'Gait3D' else {}
    try:
        p.split(test.sequences, kw.get('probes'))
    except SkeletonGaitError:
        return
    r = evaluate(*columns(test), name, **kw)  # what the check lets through can be evaluated
    assert json.loads(json.dumps(r, allow_nan=False)) == r
    assert results_table(r) and results_csv(r).count('\n') > 0
    assert p.primary_metric(r)[1] is None or 0 <= p.primary_metric(r)[1] <= 100
    for k in [k for *_, k in p.percentages()]:
        assert r[k] is None or 0 <= r[k] <= 100


# Edge cases

def test_ties_go_to_the_earlier():
    x, labels = np.ones((4, 2, 2), np.float32), ['a', 'b', 'a', 'b']
    r = evaluate(x, labels, ['g', 'g', 'p', 'p'], ['v']*4, GalleryProbe(probe={'types': 'p'}))
    assert r['Rank-1'] == 50 and r['mAP'] == 75


def test_exclusion():
    x = np.array([0, 1, 5, 0.])[:, None, None]
    names = (['a', 'b', 'a', 'a'], ['g', 'g', 'g', 'p'], ['0', '90', '90', '0'])
    results = {e: evaluate(x, *names, GalleryProbe(probe=Rule(types='p'), exclude=e))
               for e in ((), ('view',), ('subject', 'view'))}
    assert [r['Rank-1'] for r in results.values()] == [100, 0, 0]
    assert results[()]['mAP'] == pytest.approx(100*(1 + 2/3)/2) and results['view',]['mAP'] == 50


def test_a_probe_is_not_in_the_gallery():
    r = evaluate(np.arange(4.)[:, None, None], ['a', 'a', 'a', 'b'], ['1', '2', '3', '1'], ['v']*4,
                 GalleryProbe(gallery={'types': '[12]'}, probe={'types': ['2', '3']}))
    assert r['gallery'] == 2 and r['probes'] == 2


def test_labels_of_any_kind():
    x, types, views = np.arange(4.)[:, None, None], ['g', 'g', 'p', 'p'], ['v']*4
    def results(labels):
        return evaluate(x, labels, types, views, GalleryProbe(probe={'types': 'p'}))
    expected = results(['0', '1', '0', '1'])
    numbers = ([0, 1, 0, 1], np.array([0, 1, 0, 1]), torch.tensor([0, 1, 0, 1]))
    texts = (['Jörg', 'a b/ c', 'Jörg', 'a b/ c'], ['*', '[x]', '*', '[x]'], ['', ' ', '', ' '])
    for labels in (*numbers, *texts):
        assert results(labels) == expected


def test_a_condition_without_sequences_is_none_with_a_note():
    test = walks('CASIA-B')
    some = [i for i, s in enumerate(test.sequences) if not s.type.startswith('bg')]
    r = evaluate(test.embeddings[some], *([o[i] for i in some] for o in columns(test)[1:]), 'CASIA-B')
    whole = evaluate(*columns(test), 'CASIA-B')
    assert r['BG@R1'] is None and r['NM@R1'] == whole['NM@R1'] and r['CL@R1'] == whole['CL@R1']
    assert r['notes'] == ['BG: not evaluated, the test set has no probe for it']
    assert PROTOCOLS['CASIA-B'].primary_metric(r)[1] == pytest.approx((r['NM@R1'] + r['CL@R1'])/2)
    assert results_table(r).splitlines()[2].split() == ['BG', '-', '-', '-', '-']
    plot_matrix(r)


def test_a_view_that_a_condition_lacks_is_left_out_of_the_mean_with_a_note():
    test = walks('CASIA-B', n=6)
    some = [i for i, s in enumerate(test.sequences) if not (s.type.startswith('cl') and s.view == '090')
            and not (s.type == 'nm-01' and s.view == '000')]
    some = [i for i in some if not (test.sequences[i].type.startswith('nm-0') and test.sequences[i].type < 'nm-05'
                                    and test.sequences[i].view == '270')]
    part = make_embedding_set(test.embeddings[some], *([o[i] for i in some] for o in columns(test)[1:]))
    r = evaluate(*columns(part), 'CASIA-B')
    assert r['CL@R1'] == pytest.approx(loop('CASIA-B', part)['CL@R1'])
    assert 'CL: no probe from view 090; left out of the mean' in r['notes']
    assert 'NM: no gallery sequence from view 270; left out of the mean' in r['notes']
    entry = next(e for e in r['tables'] if e['key'] == 'CL@R1')
    assert entry['matrix'][1] == [None]*3 and entry['means'][1] is None
    assert [row[2] for row in entry['matrix']] == [None]*3


def test_a_single_view_has_no_cross_view_percentage():
    test = walks('OUMVLP')
    one = [i for i, s in enumerate(test.sequences) if s.view == '090']
    r = evaluate(test.embeddings[one], *([o[i] for i in one] for o in columns(test)[1:]), 'OUMVLP')
    assert r['NM@R1'] is None and r['notes'] == ['NM: only one view, 090: no cross-view figure']
    assert (r['NM probes'], r['NM probes_left_out'], r['NM probes_alone']) == (0, 0, 4)
    assert 'NM: 0 probes, 4 alone, gallery 4' in results_table(r)
    assert PROTOCOLS['OUMVLP'].primary_metric(r) == ('NM@R1', None)
    assert results_table(r).splitlines()[1].split() == ['NM', '-', '-']


def test_probes_with_an_empty_gallery():
    r = evaluate(np.arange(4.)[:, None, None], 'abab', 'ggpp', 'vvvw',
                 GalleryProbe(probe={'types': 'p'}, exclude='view'))
    assert r['notes'] == ['1 of 2 probes have no gallery sequence left after exclusions: left out']
    assert (r['probes'], r['probes_left_out'], r['Rank-1']) == (1, 0, 100)
    r = evaluate(np.arange(4.)[:, None, None], 'abab', 'ggpp', 'vvvv',
                 GalleryProbe(probe={'types': 'p'}, exclude='view'))
    assert r['Rank-1'] is r['mAP'] is None and r['cmc'] is None and '2 of 2 probes' in r['notes'][0]
    assert plot_results(r) is None and (r['probes'], r['probes_left_out'], r['probes_alone']) == (0, 0, 2)
    assert 'probes alone 2' in results_table(r)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from(sorted(set(TYPES) - {'Gait3D'})), st.sampled_from((.3, .8)))
def test_counts_add_up_to_all_probes(seed, name, drop):
    try:
        test = walks(name, seed, 3, drop)
    except (SkeletonGaitError, ValueError, TypeError):
        return
    try:
        r = evaluate(*columns(test), name)
    except SkeletonGaitError:
        return
    for s in PROTOCOLS[name].splits(test.sequences):
        assert sum(r[f'{s.condition.name} {k}'.strip()]
                   for k in ('probes', 'probes_left_out', 'probes_alone')) == len(s.probe)


def test_ccpg_notes_for_each_table_how_probes_without_a_match_count():
    test = walks('CCPG')
    subjects = ['stranger' if s.subject == '000' and s.type == 'U3_D3' else s.subject for s in test.sequences]
    r = evaluate(test.embeddings, subjects, *columns(test)[2:], 'CCPG')
    no_match = 'UP: 3 of 12 probes have no match in the gallery'
    assert f'{no_match}: ReID: left out; R1, R1 incl: counted as wrong' in r['notes']
    assert 'UP: 9 probes, 3 without a match, gallery 12' in results_table(r)


def test_probes_without_a_match_are_wrong_in_tables_by_view():
    test = walks('OUMVLP')
    subjects = ['stranger' if s.subject == '000' and s.type == '00' else s.subject for s in test.sequences]
    r = evaluate(test.embeddings, subjects, *columns(test)[2:], 'OUMVLP')
    assert r['NM probes_left_out'] == 3
    assert r['NM@R1'] == pytest.approx(loop('OUMVLP',
                                            make_embedding_set(test.embeddings, subjects, *columns(test)[2:]))['NM@R1'])
    assert r['notes'] == ['NM: 3 of 12 probes have no match in the gallery: counted as wrong']
    cross = evaluate(test.embeddings, subjects, *columns(test)[2:], 'OUMVLP-crossview')
    no_match = 'NM: 3 of 12 probes have no match in the gallery'
    assert cross['notes'] == [f'{no_match}: Rank@1: counted as wrong; mAP: left out']
    assert cross['NM-mAP'] == pytest.approx(loop('OUMVLP-crossview',
        make_embedding_set(test.embeddings, subjects, *columns(test)[2:]))['NM-mAP'])


def test_ccpg_cuts_views():
    test = walks('CCPG')
    r = evaluate(*columns(test), 'CCPG')
    assert next(e for e in r['tables'] if e['key'] == 'CL@R1')['probe_views'] == ['01', '02']
    again = make_embedding_set(test.embeddings, test.values('subject'), test.values('type'),
                               [v.split('_')[0] for v in test.values('view')])
    assert evaluate(*columns(again), 'CCPG') == r


def test_rounded_cells_and_the_unrounded_mean():
    r = evaluate(*columns(walks('OUMVLP', n=7)), 'OUMVLP')
    e = r['tables'][0]
    cells = np.array(e['matrix'], dtype=float)
    assert e['unrounded'] == pytest.approx(np.nanmean(np.nanmean(cells, 1)))
    assert r['NM@R1'] == e['value'] == pytest.approx(np.nanmean(np.nanmean(cells.round(2), 1)))
    assert e['value'] != e['unrounded'] and np.isnan(cells.diagonal()).all()


def test_real_scene_counts_strangers_as_wrong():
    x = np.array([0, 5, 0, 9.])[:, None, None]
    r = evaluate(x, ['a', 'b', 'a', 'c'], ['01', '01', '02', '02'], ['v']*4, 'GREW-realscene')
    assert (r['Rank-1'], r['Rank-20'], r['probes'], r['probes_left_out']) == (50, 50, 1, 1)


def test_grew_subjects_are_numbers_where_possible():
    x = np.arange(6.)[:, None, None]
    r = evaluate(x, ['00012', '00012', 'x, y', '7', '7', 'probe'], ['01', '02', '01', '01', '02', '03'],
                 ['a', 'b', 'c', 'd', 'e', 'q'], 'GREW-submission')
    assert r['csv'] == 'videoId,rank1,rank2,rank3,rank4,rank5\nq,7,7,"x, y",12,12\n'
    other = evaluate(x, ['٠٧', '٠٧', 'x, y', '7', '7', 'probe'], ['01', '02', '01', '01', '02', '03'],
                     ['a', 'b', 'c', 'd', 'e', 'q'], 'GREW-submission')
    assert other['csv'].endswith('"x, y",٠٧,٠٧\n')  # other digits stay as they are
    assert "not the challenge's" in results_table(r) and r['local 01 in 02 Rank-1'] is not None


def test_grew_without_known_walks_still_submits():
    r = evaluate(np.arange(3.)[:, None, None], ['1', '2', 'probe'], ['01', '01', '03'], 'abq', 'GREW-submission')
    assert r['csv'].splitlines()[1] == 'q,2,1' and r['local 02 in 01 Rank-1'] is None
    assert PROTOCOLS['GREW-submission'].primary_metric(r)[1] is None
    assert plot_results(r) is None


# Rules and mappings

def test_rules():
    names = [('s1', 'nm-01', '000'), ('s1', 'bg-01', '000'), ('S1', 'nm-02', '090'), ('s2', 'nm-01', '018')]
    seqs = make_embedding_set(np.zeros((4, 1, 1)), *zip(*names)).sequences
    def pick(**kw):
        return Rule(**kw).select(seqs).tolist()
    assert pick() == [True]*4
    assert pick(types='nm-*') == [True, False, True, True]
    assert pick(subjects='s?') == [True, True, False, True]                      # case counts
    assert pick(types=['nm-01', 'bg-*'], views='000') == [True, True, False, False]
    assert pick(names=['s2-nm-01-018', 's1-nm-01']) == [False, False, False, True]  # whole names, no patterns
    assert pick(names=['s2-nm-01-018'], views='000') == [False]*4


def test_from_dict():
    cfg = {'gallery': {'types': ['nm-01']}, 'probe': {'types': 'bg-*', 'subjects': ['00?']}, 'exclude': ['view']}
    assert GalleryProbe.from_dict(cfg) == GalleryProbe(Rule(types=('nm-01',)), Rule(types=('bg-*',), subjects=('00?',)),
                                                       ('view',))
    assert GalleryProbe.from_dict({}) == PROTOCOLS['Gait3D'] and PROTOCOLS['Gait3D'].to_dict() == {}


def test_an_empty_key_is_the_default():
    "As `gallery:` alone in a file."
    empty = dict.fromkeys(('gallery', 'probe', 'conditions', 'leave_out', 'best', 'submission'))
    assert GalleryProbe.from_dict(empty) == GalleryProbe()
    assert GalleryProbe.from_dict({'submission': {'gallery': None}}).submission.gallery == Rule()


def test_conditions_keep_their_order():
    names = ['NM', 'BG', 'CL', 'A']
    p = GalleryProbe(conditions={name: {'probe': {'types': name}} for name in names})
    assert [c.name for c in p.asked] == names and [*p.to_dict()['conditions']] == names
    assert [c.probe.types for c in p.asked] == [(name,) for name in names] and p.asked[0].gallery is None


@pytest.mark.parametrize('name', PROTOCOLS)
def test_published_protocols_survive_yaml_and_pickle(name):
    p = PROTOCOLS[name]
    assert GalleryProbe.from_dict(read_yaml(yaml.safe_dump(p.to_dict(), sort_keys=False))) == p
    assert pickle.loads(pickle.dumps(p)) == p


def any_of(**optional):
    "A mapping with some of these keys."
    return st.fixed_dictionaries({}, optional=optional)


TEXT = st.text('ab0_*-', min_size=1, max_size=4)
RULES = st.builds(dict, types=st.lists(TEXT, min_size=1, max_size=2), views=TEXT)
TABLES = st.fixed_dictionaries(
    {'key': st.just('{condition} {measure}')},
    optional=dict(per=st.sampled_from(('all', 'view_pair')), exclude=st.just([]), decimals=st.integers(0, 3)))
MAPPINGS = any_of(
    gallery=RULES, probe=RULES, leave_out=RULES, cut_views=TEXT, note=TEXT,
    exclude=st.lists(st.sampled_from(('subject', 'view')), unique=True),
    conditions=st.dictionaries(TEXT, any_of(probe=RULES, gallery=RULES), max_size=3),
    tables=st.lists(TABLES, min_size=1, max_size=1))


@settings(max_examples=100, deadline=None)
@given(MAPPINGS)
def test_any_protocol_survives_yaml(cfg):
    p = GalleryProbe.from_dict(cfg)
    assert GalleryProbe.from_dict(read_yaml(yaml.safe_dump(p.to_dict(), sort_keys=False))) == p


@pytest.mark.parametrize('cfg, said', [
    ({'galery': {}}, 'protocol.galery: unknown key; did you mean gallery'),
    ({'gallery': {'type': 'x'}}, 'protocol.gallery.type: unknown key; did you mean types'),
    ({'probe': 'bg-01'}, 'protocol.probe: found "bg-01" .text., expected a mapping'),
    ({'probe': {'views': [90]}}, r'protocol.probe.views: found \[90\] .*, expected text.*; write text in quotes'),
    ({'probe': {'views': 90}}, 'protocol.probe.views: found 90 .*, expected text.*; write text in quotes'),
    ({'probe': {'views': None}}, 'protocol.probe.views: found null, expected text'),
    ({'exclude': ['views']}, r'protocol.exclude: found \["views"\] .*, expected one of subject, type, view, or a list'),
    ('Gait3D', 'expected a mapping'),
    ({'conditions': ['NM']}, 'protocol.conditions: found .*, expected a mapping of names'),
    ({'conditions': {'NM': 'nm-01'}},
     'conditions.NM: found "nm-01" .text., expected a mapping with some of the keys probe, gallery'),
    ({'conditions': {'NM': {'probes': {}}}},
     'protocol.conditions.NM.probes: unknown key; did you mean probe(?!.*name)'),
    ({'conditions': {'NM': {'name': 'x'}}}, 'protocol.conditions.NM.name: unknown key; known here: probe, gallery$'),
    ({'conditions': {'NM': {'probe': {'view': []}}}},
     'protocol.conditions.NM.probe.view: unknown key; did you mean views'),
    ({'conditions': {1: {}}},
     'protocol.conditions.1: found the name 1 .a whole number., expected text; write it in quotes'),
    ({'tables': []}, 'protocol.tables: found none'),
    ({'tables': [{'pre': 'all'}]}, r'protocol.tables\[0\].pre: unknown key; did you mean per'),
    ({'tables': [{'per': 'views'}]},
     r'protocol.tables\[0\].per: found "views" .*expected one of all, probe_view, view_pair'),
    ({'tables': [{'measures': ['rank1']}]}, r"protocol.tables\[0\].measures: found 'rank1'"),
    ({'tables': [{'measures': []}]}, 'measures: found none'),
    ({'tables': [{'key': 'R1'}]}, 'key: found "R1" .text., expected text with {measure}'),
    ({'tables': [{'key': 1}]}, 'key: found 1 .a whole number., expected text'),
    ({'tables': [{'decimals': '2'}]}, 'decimals: found "2" .text., expected a whole number, or null'),
    ({'tables': [{'decimals': True}]}, 'decimals: found true, expected a whole number, or null'),
    ({'tables': [{'unmatched': 'leftout'}]},
     'unmatched: found "leftout" .*expected one of left_out, wrong; did you mean left_out'),
    ({'tables': [{}, {}]}, "tables: two figures have the name 'Rank-1'"),
    ({'conditions': {'A': {}, 'B': {}}, 'tables': [{'key': '{measure}'}]},
     "tables: two figures have the name 'Rank-1'"),
    ({'best': 'Rank1'}, 'protocol.best: found "Rank1" .*; did you mean Rank-1'),
    ({'cut_views': 3}, 'cut_views: found 3 .a whole number., expected text'),
    ({'submission': {'top': 0}},
     'protocol.submission.top: found 0 .a whole number., expected at least 1 and below 1,000,000'),
    ({'submission': {'tops': 5}}, 'protocol.submission.tops: unknown key; did you mean top'),
])
def test_wrong_protocols(cfg, said):
    with pytest.raises(SkeletonGaitError, match=said):
        GalleryProbe.from_dict(cfg)


@pytest.mark.parametrize('kw, said', [
    (dict(protocol='gait3d', probes=['a-p-v']), "'gait3d' is not known; did you mean 'Gait3D'"),
    (dict(protocol='Gait3D'), 'takes its probes from a list, and none was given'),
    (dict(protocol='Gait3D', probes=['x-y-z']),
     'probe: no test sequence is chosen by the list of names; the test set has 3 sequences like a-g-v'),
    (dict(protocol='Gait3D', probes=['a-p-v'], metric='cosine'), "metric: found 'cosine', expected one of euc, cos"),
    (dict(protocol='Gait3D', probes=['a-p-v'], csv_path='x.csv'), 'csv_path: protocol Gait3D writes no list'),
    (dict(protocol=GalleryProbe(gallery={'types': 'q'}, probe={'types': 'p'})),
     "gallery: no test sequence is chosen by the rule {'types': \\['q'\\]}"),
    (dict(protocol=GalleryProbe(gallery={'types': '[gp]'}, probe={'types': '?'})),
     "gallery: the rule .* chooses 3 sequences, but all of them are probes, .*a probe is not in its gallery"),
    (dict(protocol=GalleryProbe(probe={'types': 'p'}, leave_out={'types': 'p'})),
     "probe: the rule .* chooses 1 sequences, but all of them are left out by leave_out"),
    (dict(protocol='OUMVLP'), "probe: no test sequence is chosen by the rule {'types': \\['00'\\]}"),
    (dict(protocol='GREW-submission'),
     "submission.probe: no test sequence is chosen by the rule {'types': \\['03'\\]}"),
])
def test_wrong_calls(kw, said):
    with pytest.raises(SkeletonGaitError, match=said):
        evaluate(np.arange(3.)[:, None, None], ['a', 'b', 'a'], ['g', 'g', 'p'], ['v']*3, **kw)


def test_a_probe_without_a_match_has_no_figures():
    "It is ranked all the same (evaluation/test_identify.py)."
    found = evaluate(np.arange(3.)[:, None, None], ['a', 'b', 'a'], ['g', 'g', 'p'], ['v']*3, 'Gait3D',
                     probes=['b-g-v'], open_set=True)
    assert {e['value'] for e in found['tables']} == {None} and found['probes_left_out'] == 1
    assert found['notes'] == ['1 of 1 probes have no match in the gallery: left out']
    assert found['open_set']['']['EER'] is None and found['open_set']['']['impostor_pairs'] == 2


def test_open_set_figures_are_those_of_the_distances():
    "Of each condition, with what the first table excludes; and only where asked for."
    rng = np.random.default_rng(0)
    names = [(s, t, v) for s in 'abcdef' for t in ('nm', 'bg', 'cl') for v in ('000', '090')]
    x = rng.normal(size=(len(names), 4, 2)).astype(np.float32)
    protocol = GalleryProbe({'types': 'nm'}, exclude='view', conditions={
        'BG': {'probe': {'types': 'bg'}}, 'CL': {'probe': {'types': 'cl'}}})
    asked = evaluate(x, *zip(*names), protocol, open_set=True)
    plain = evaluate(x, *zip(*names), protocol)
    assert {key: value for key, value in asked.items() if key != 'open_set'} == plain and 'open_set' not in plain
    for condition in ('BG', 'CL'):
        probe = [i for i, name in enumerate(names) if name[1] == condition.lower()]
        gallery = [i for i, name in enumerate(names) if name[1] == 'nm']
        d_nm = np.linalg.norm(x[probe][:, None] - x[gallery], axis=2).mean(2)
        same_view = [[names[i][2] == names[j][2] for j in gallery] for i in probe]
        d_nm[np.array(same_view)] = np.inf
        expected = open_set_figures(d_nm, [names[i][0] for i in probe], [names[j][0] for j in gallery])
        assert asked['open_set'][condition] == pytest.approx(expected)


def test_own_protocol():
    class Count:
        def results(self, test, metric, probes): return {'n': len(test.sequences), 'metric': metric, 'probes': probes}
    assert evaluate(np.zeros((2, 1, 1)), 'ab', 'tt', 'vv', Count(), 'cos',
                    ['x']) == {'n': 2, 'metric': 'cos', 'probes': ['x']}
    with pytest.raises(SkeletonGaitError, match='has no such figures; leave open_set out'):
        evaluate(np.zeros((2, 1, 1)), 'ab', 'tt', 'vv', Count(), open_set=True)


def test_split_needs_names_only():
    sequences = walks('CASIA-B').sequences
    parts = PROTOCOLS['CASIA-B'].split(sequences)
    assert [(s.condition.name, len(s.probe), len(s.gallery))
            for s in parts] == [('NM', 24, 48), ('BG', 24, 48), ('CL', 24, 48)]
    assert all(not set(s.probe) & set(s.gallery) for s in parts)
    sequences = walks('CASIA-E').sequences
    assert all(sequences[i].view != '270' for s in PROTOCOLS['CASIA-E'].split(sequences)
               for i in (*s.probe, *s.gallery))


PRIMARY = {  # percentages whose mean is the primary metric
    'Gait3D': ['Rank-1'],
    'CASIA-B': ['NM@R1', 'BG@R1', 'CL@R1'],
    'SUSTech1K': ['Overall@R1'],
    'GREW-realscene': ['Rank-1'],
    'CCPG': [f'ReID {c} Rank-1' for c in ('CL', 'UP', 'DN', 'BG')]}


@pytest.mark.parametrize('name', PROTOCOLS)
def test_primary_metric(name):
    (x, *names), expected = golden(name, 'euc')
    r = evaluate(x, *names, name, probes=expected.get('probe'))
    text, v = PROTOCOLS[name].primary_metric(r)
    keys = PRIMARY.get(name)
    if keys:
        assert v == pytest.approx(np.mean([r[k] for k in keys]))
        assert text == (keys[0] if len(keys) == 1 else f"mean of {', '.join(keys)}")
    assert 0 < v <= 100


# From configuration

def test_protocol_for():
    for f, name in BY_FUNCTION.items():
        assert protocol_for(f, 'anything') is PROTOCOLS[name]
    for name in INDOOR:
        assert protocol_for('evaluate_indoor_dataset', name) is PROTOCOLS[name]
    for name in ('CASIA-B', 'OUMVLP'):
        assert protocol_for('evaluate_indoor_dataset', name, True) is PROTOCOLS[f'{name}-crossview']
    assert protocol_for('evaluate_gallery_probe', 'x', False, None) == GalleryProbe()
    assert protocol_for('evaluate_gallery_probe', 'x', False, {'exclude': 'view'}).exclude == ('view',)


@pytest.mark.parametrize('args, said', [
    (('evaluate_indoor_dataset', 'CASIA_B'),
        "data set 'CASIA_B' is not known; did you mean 'CASIA-B'.*CASIA-B, OUMVLP, CASIA-E, SUSTech1K.*"
         "evaluator_cfg.protocol"),
    (('evaluate_indoor_dataset', 'CASIA-E', True), 'Known: CASIA-B, OUMVLP with cross_view_gallery'),
    (('evaluate_grew', 'GREW'), "evaluator_cfg.eval_func 'evaluate_grew' is not known"),
    (('evaluate_gallery_probe', 'x', False, {'galery': {}}), 'did you mean gallery'),
])
def test_wrong_configurations(args, said):
    with pytest.raises(SkeletonGaitError, match=said):
        protocol_for(*args)


# Tables, pictures, files

def test_table_of_reidentification():
    (x, *names), expected = golden('Gait3D', 'euc')
    r = evaluate(x, *names, 'Gait3D', probes=expected['probe'])
    head, values, counts = results_table(r).splitlines()
    assert head.split() == ['Rank-1', 'Rank-5', 'Rank-10', 'mAP', 'mINP']
    assert values.split() == ['47.50', '75.00', '77.50', '42.76', '27.43']
    assert len(head) == len(values) and counts == 'probes 40, probes left out 0, gallery 162, probes not found 0'


def test_table_by_view():
    (x, *names), expected = golden('CASIA-B', 'euc')
    lines = results_table(evaluate(x, *names, 'CASIA-B')).splitlines()
    assert lines[0].split() == ['R1', '000', '018', '036', '090', 'mean']
    assert [o.split()[0] for o in lines[1:4]] == ['NM', 'BG', 'CL']
    assert [float(o.split()[-1]) for o in lines[1:4]] == pytest.approx(list(expected.values()), abs=.006)
    assert lines[4] == 'NM: 80 probes, gallery 160; BG: 80 probes, gallery 160; CL: 80 probes, gallery 160'
    assert len(lines) == 5


@pytest.mark.parametrize('name', PROTOCOLS)
def test_files(name, tmp_path):
    (x, *names), expected = golden(name, 'euc')
    r, probes = evaluate(x, *names, name, probes=expected.get('probe')), expected.pop('probe', None)
    stem, open_figures = tmp_path/'made'/'run-1.5-00100', plt.get_fignums()
    missed = failures(make_embedding_set(x, *names), PROTOCOLS[name], probes=probes, limit=4)
    written = write_results(stem, r, {'iteration': 100}, missed)
    assert sorted(f.name for f in stem.parent.iterdir()) == sorted(f.name
        for f in written)                # nothing half-written is left
    saved = json.loads(stem.with_name('run-1.5-00100.json').read_text())
    assert saved.pop('iteration') == 100 and saved == {k: v for k, v in r.items() if k != 'csv'}
    assert written[-1].suffix == '.json' and written[-2].read_bytes()[:4] == b'\x89PNG'
    assert plt.get_fignums() == open_figures
    rows = list(csv.DictReader(stem.with_name('run-1.5-00100.csv').open()))
    printed = {o['figure']: float(o['percent']) for o in rows if not o['probe_view'] and not o['gallery_view']
               and o['percent']}
    assert all(printed[k] == r[k] for k in expected if k != 'csv')
    assert {o['figure']: o['unrounded_mean'] for o in rows if not o['probe_view']
        and not o['gallery_view']} == {e['key']: '' if e['unrounded'] is None else str(e['unrounded'])
                                       for e in r['tables']}
    if 'csv' in r:
        assert stem.with_name('run-1.5-00100-submission.csv').read_text() == r['csv'] == expected['csv']


@pytest.mark.parametrize('name', ['CASIA-B', 'CASIA-B-crossview', 'CCPG'])
def test_saved_pictures_are_not_cut_off(name, tmp_path):
    "Three views give the smallest panels: nothing dark may touch the edge."
    write_results(tmp_path/'r', evaluate(*columns(walks(name)), name),
                  {'dataset': name, 'iteration': 100, 'metric': 'euc'})
    x = plt.imread(tmp_path/'r.png')[..., :3]
    assert all((edge > .99).all() for edge in (x[:4], x[-4:], x[:, :4], x[:, -4:])) and (x < .5).any()


def test_files_of_an_earlier_evaluation_are_removed(tmp_path):
    test, own = walks('GREW-submission', n=6), GalleryProbe(gallery={'types': '01'}, probe={'types': '02'},
                                                            exclude='view', tables=({'per': 'view_pair'},))
    write_results(tmp_path/'r', evaluate(*columns(test), 'GREW-submission'),
                  failed=failures(test, PROTOCOLS['GREW-submission']))
    (tmp_path/'r-0.csv').write_text('of another stem')
    assert {f.name for f in tmp_path.iterdir()} == {'r.csv', 'r-submission.csv', 'r-failures.csv', 'r.png', 'r.json',
                                                    'r-0.csv'}
    write_results(tmp_path/'r', evaluate(*columns(test), own))
    assert {f.name for f in tmp_path.iterdir()} == {'r.csv', 'r.png', 'r.json', 'r-0.csv'}
    write_results(tmp_path/'r', evaluate(np.arange(3.)[:, None, None], ['1', '2', 'probe'], ['01', '01', '03'], 'abq',
                                         'GREW-submission'))
    assert {f.name for f in tmp_path.iterdir()} == {'r.csv', 'r-submission.csv', 'r.json', 'r-0.csv'}  # nothing to draw


def test_csv_path(tmp_path):
    (x, *names), expected = golden('GREW-submission', 'euc')
    r = evaluate(x, *names, 'GREW-submission', csv_path=tmp_path/'new'/'s.csv')
    assert (tmp_path/'new'/'s.csv').read_bytes().decode() == r['csv'] == expected['csv']


def test_pictures():
    (x, *names), _ = golden('CASIA-B', 'euc')
    fig = plot_matrix(evaluate(x, *names, 'CASIA-B'))
    assert [ax.get_title() for ax in fig.axes] == ['NM@R1 78.75', 'BG@R1 81.25', 'CL@R1 85.42']
    assert len(fig.axes[0].texts) == 4*4 - 4
    (x, *names), _ = golden('GREW-realscene', 'euc')
    r = evaluate(x, *names, 'GREW-realscene')
    with pytest.raises(SkeletonGaitError, match='no percentages by view'):
        plot_matrix(r)
    fig = plot_results(r, 'GREW, iteration 5')
    assert len(fig.axes) == 1 and fig.get_suptitle() == 'GREW, iteration 5'
    assert len(fig.axes[0].lines[0].get_xdata()) == min(20, r['gallery'])
    small = plot_results(evaluate(np.arange(4.)[:, None, None], 'abab', 'ggpp', 'vvvv',
                                  GalleryProbe(probe={'types': 'p'})))
    assert len(small.axes[0].lines[0].get_xdata()) == 2  # a curve ends where the gallery does
    plt.close('all')


# Failures

@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from(('CASIA-B', 'OUMVLP-crossview', 'GREW-realscene', 'CCPG')))
def test_failures_are_all_that_were_not_first(seed, name):
    test, p = walks(name, seed), PROTOCOLS[name]
    rows = failures(test, p, limit=10**6, before=10**6)
    names, seen = [str(s) for s in test.sequences], p.seen(test).sequences
    exclude = p.tables[0].exclude if p.tables[0].exclude is not None else p.exclude
    def may_use(i, j, view):
        shared = exclude and all(getattr(seen[i], f) == getattr(seen[j], f) for f in exclude)
        return (not view or seen[j].view == view) and not shared

    expected = {}
    for s in p.split(test.sequences):
        views = sorted({seen[j].view for j in s.gallery}) if p.tables[0].per == 'view_pair' else ['']
        for i, view in product(s.probe, views):
            ranked = nearest(test, i, [j for j in s.gallery if may_use(i, j, view)])
            hits = [k for k, j in enumerate(ranked, 1) if seen[j].subject == seen[i].subject]
            if hits and hits[0] > 1:
                *earlier, right = [names[j] for j in ranked[:hits[0]]]
                expected[s.condition.name, names[i], view] = (hits[0], right, earlier)
    found = {}
    for o in rows:
        earlier = [b['sequence'] for b in o['before']]
        found[o['condition'], o['probe'], o['gallery_view']] = (o['rank'], o['right'], earlier)
    assert found == expected
    assert [o['rank'] for o in rows] == sorted((o['rank'] for o in rows), reverse=True)
    assert all(a['distance'] <= b['distance'] <= o['right_distance'] for o in rows for a,
               b in zip(o['before'], o['before'][1:] or o['before']))
    assert json.loads(json.dumps(rows)) == rows


def test_failures_are_all_and_a_pair_is_named_once():
    test = walks('SUSTech1K', n=6)
    rows = failures(test, PROTOCOLS['SUSTech1K'])
    pairs = [(o['probe'], o['gallery_view']) for o in rows]
    entries = [e for e in evaluate(*columns(test), 'SUSTech1K')['tables'] if e['key'] == 'Overall@R1']
    wrong = sum(round(6*8*(100-v)/100) for row in entries[0]['matrix'] for v in row
                if v is not None)   # 6 subjects in 8 types per view
    assert len(pairs) == len(set(pairs)) == wrong > 100 and 'Overall' not in {o['condition'] for o in rows}


def test_failures_as_text():
    test = make_embedding_set(np.array([0, 1, 2, 1.1])[:, None, None], ['a', 'b', 'c', 'c'], ['g', 'g', 'g', 'p'],
                              'vvvv')
    rows = failures(test, GalleryProbe(probe={'types': 'p'}), limit=5)
    assert [(o['probe'], o['rank'], o['right'], [b['sequence'] for b in o['before']])
            for o in rows] == [('c-p-v', 2, 'c-g-v', ['b-g-v'])]
    assert failures_table(rows).splitlines()[1].split() == ['c-p-v', 'all', '2', 'c-g-v', '(0.9)', 'b-g-v', '(0.1)']
    assert failures_csv(rows).splitlines()[1].startswith(',c-p-v,,2,c-g-v,')
    assert failures_table([]) == 'no probe failed' and failures_csv([]).count('\n') == 1
    assert failures(test, GalleryProbe(probe={'types': 'p'}), limit=0) == []
