"A gallery of people: kept in a file, ranked for a probe, silent about strangers."
import json
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from skeletongait.core import SkeletonGaitError
from skeletongait.evaluation.identify import (
    NOBODY, answers, answers_csv, answers_data, answers_table, check_rate, enrol, load_gallery, misfits, rank_people,
    share_words, unmatched_probes)
from skeletongait.evaluation.open_set import threshold_at
from skeletongait.evaluation.protocols import GalleryProbe
from skeletongait.evaluation.ranking import distances, make_embedding_set, read_embeddings, save_embeddings
from skeletongait.files.tree import Sequence

ABOUT = dict(model='SkeletonGait', weights='5f0c', iteration=3, embedding='embed_1', metric='euc',
             settings=dict(render=None, frames_all_limit=720))


def people(n, of_each, seed=0, noise=.3, metric='euc'):
    "A gallery, and the true embedding of each person."
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(n, 6, 3))
    x = np.repeat(true, of_each, 0) + noise*rng.normal(size=(n*of_each, 6, 3))
    sequences = [Sequence(f'p{i//of_each}', f'w{i%of_each}', '090') for i in range(n*of_each)]
    return enrol(x.astype(np.float32), sequences, ABOUT | {'metric': metric}), true


def test_a_file_holds_all_of_it(tmp_path):
    gallery, _ = people(4, 2)
    gallery.save(tmp_path/'g.npz')
    again = load_gallery(tmp_path/'g.npz', ABOUT)
    assert again.about == ABOUT and again.test.sequences == gallery.test.sequences
    assert (again.test.embeddings == gallery.test.embeddings).all() and again.people == ['p0', 'p1', 'p2', 'p3']
    assert read_embeddings(tmp_path/'g.npz').sequences == gallery.test.sequences
    assert [o.name for o in tmp_path.iterdir()] == ['g.npz']


def test_names_may_be_anything(tmp_path):
    names = ['', ' ', 'Zoë', '人', 'a\nb', '"{}', 'x'*300, '../..', '\udcff']
    gallery = enrol(np.eye(9)[:, :, None], [Sequence(o, o, o) for o in names], ABOUT | {'settings': {'é': names}})
    gallery.save(tmp_path/'g.npz')
    again = load_gallery(tmp_path/'g.npz')
    assert again.people == names and again.about['settings'] == {'é': names}


@pytest.mark.parametrize('change, says', [
    (dict(weights='b13c'), 'weights "5f0c" there, "b13c" here'),
    (dict(model='SkeletonGaitPP'), 'model "SkeletonGait" there'),
    (dict(embedding='embed_2'), 'embedding "embed_1" there'),
    (dict(metric='cos'), 'metric "euc" there'),
    (dict(settings=dict(render=None, frames_all_limit=30)), 'settings.frames_all_limit 720 there, 30 here')])
def test_another_run_is_refused(tmp_path, change, says):
    people(2, 1)[0].save(tmp_path/'g.npz')
    with pytest.raises(SkeletonGaitError) as e:
        load_gallery(tmp_path/'g.npz', ABOUT | change)
    assert says in str(e.value) and str(tmp_path/'g.npz') in str(e.value) and '\n' not in str(e.value)


def test_what_does_not_matter():
    drawn = ABOUT | dict(settings=dict(render={'sigma': 8}, frames_all_limit=720))
    thinner = ABOUT | dict(settings=dict(render={'sigma': 4}, frames_all_limit=720))
    assert misfits(ABOUT, ABOUT | dict(iteration=7)) == [] == misfits(ABOUT, drawn)
    assert misfits(drawn, thinner) == ['settings.render.sigma 8 there, 4 here']


@pytest.mark.parametrize('note', [None, '', '{', '[]', '{}', '"x"', '[' * 5000, json.dumps(ABOUT | {'settings': 3})])
def test_a_note_that_is_none(tmp_path, note):
    test = people(2, 1)[0].test
    save_embeddings(test, tmp_path/'g.npz')
    if note is not None:
        arrays = {name: np.load(tmp_path/'g.npz')[name] for name in ('embeddings', 'labels', 'types', 'views')}
        np.savez(tmp_path/'g.npz', **arrays, about=np.array([note]))
    with pytest.raises(SkeletonGaitError, match='g.npz: (does not say which network|no gallery)'):
        load_gallery(tmp_path/'g.npz')


@pytest.mark.parametrize('about', [np.zeros(0), np.array([1.5]), np.array(['a', 'b']), np.array('x')])
def test_a_note_of_another_kind(tmp_path, about):
    save_embeddings(people(2, 1)[0].test, tmp_path/'g.npz')
    arrays = {name: np.load(tmp_path/'g.npz')[name] for name in ('embeddings', 'labels', 'types', 'views')}
    np.savez(tmp_path/'g.npz', **arrays, about=about)
    with pytest.raises(SkeletonGaitError, match='g.npz'):
        load_gallery(tmp_path/'g.npz')


def test_other_files(tmp_path):
    (tmp_path/'text.npz').write_text('no zip')
    with zipfile.ZipFile(tmp_path/'empty.npz', 'w'):
        pass
    for name in ('text.npz', 'empty.npz', 'none.npz'):
        with pytest.raises(SkeletonGaitError, match=name):
            load_gallery(tmp_path/name)


@settings(max_examples=60)
@given(st.integers(0, 2**32-1))
def test_people_are_ranked_by_their_nearest_sequence(seed):
    rng = np.random.default_rng(seed)
    m = rng.integers(1, 12)
    d_m = rng.integers(0, 5, m).astype(np.float32)
    d_m[rng.random(m) < .2] = np.inf
    sequences = [Sequence(f's{i}', str(j), '') for j, i in enumerate(rng.integers(0, 4, m))]
    nearest = {}
    for j in sorted(range(m), key=lambda j: d_m[j]):
        if d_m[j] < np.inf:
            nearest.setdefault(sequences[j].subject, (sequences[j].subject, float(d_m[j]), sequences[j]))
    assert [tuple(r) for r in rank_people(d_m, sequences)] == [*nearest.values()]
    assert rank_people(d_m, sequences, 2) == rank_people(d_m, sequences)[:2]


@pytest.mark.parametrize('metric', ['euc', 'cos'])
def test_distances_are_those_of_the_definition(metric):
    gallery, true = people(5, 2, metric=metric)
    x = gallery.test.embeddings.numpy().astype(float)
    for probe in true:
        if metric == 'euc':
            d = np.linalg.norm(x - probe, axis=1).mean(1)
        else:
            cosine = (x*probe).sum(1)/np.linalg.norm(x, axis=1)/np.linalg.norm(probe, axis=0)
            d = 1 - cosine.mean(1)
        ranked = gallery.rank(probe)
        assert ranked[0].distance == pytest.approx(d.min(), rel=1e-5)
        assert ranked[0].sequence == gallery.test.sequences[d.argmin()] and len(ranked) == 5
    assert gallery.rank_all(true) == [gallery.rank(probe) for probe in true]
    for wrong in (true[:1], true[0, 0], 'a clip'):
        with pytest.raises(SkeletonGaitError, match='expected one embedding .c, p., such as run.embed'):
            gallery.rank(wrong)


@settings(max_examples=40)
@given(st.integers(0, 2**32-1), st.sampled_from([.05, .1, .29, .5]))
def test_threshold_from_the_gallery(seed, far):
    "As many pairs of different people as the rate allows, counted one by one; and how many searches they name."
    gallery, _ = people(6, 2, seed, noise=1)
    t = gallery.threshold(far)
    x, who = gallery.test.embeddings.numpy().astype(float), gallery.test.values('subject')
    d = np.linalg.norm(x[:, None] - x, axis=2).mean(2)
    others = [[d[i, j] for j in range(12) if who[j] != who[i]] for i in range(12)]
    pairs = [d[i, j] for i in range(12) for j in range(i) if who[i] != who[j]]
    assert (t.pairs, t.searches) == (len(pairs), 12) == (60, 12)
    assert t.distance == pytest.approx(max(e for e in pairs if e <= threshold_at(np.sort(pairs), far)))
    assert t.false_accepts == sum(e < t.distance*(1 + 1e-6) for e in pairs) <= far*60
    assert t.named == sum(min(row) < t.distance*(1 + 1e-6) for row in others) and t.people == 6
    assert gallery.threshold(.9).distance >= t.distance


def test_the_promise_holds_on_average():
    "Of strangers drawn like the enrolled, as many comparisons pass as asked for, and as many get a name as is said."
    promised, found = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(60, 2, 1)).astype(np.float32)
        gallery = enrol(x[:15], [Sequence(str(i), 'w', '0') for i in range(15)], ABOUT)
        t = gallery.threshold(.02)
        d_nm = distances(torch.from_numpy(x[15:]), torch.from_numpy(x[:15])).numpy()
        passed = d_nm <= t.distance
        promised.append((t.false_accepts/t.pairs, t.named/t.searches))
        found.append((passed.mean(), passed.any(1).mean()))
    (per_pair, per_search), (per_pair_found, per_search_found) = np.mean(promised, 0), np.mean(found, 0)
    assert per_pair == pytest.approx(2/105) and per_pair_found == pytest.approx(per_pair, rel=.15)
    assert per_search_found == pytest.approx(per_search, rel=.15)


def test_the_promise_in_words():
    gallery, _ = people(15, 1, noise=1)
    t = gallery.threshold(.01)
    said = str(t).splitlines()
    assert said[0].endswith('chosen on 105 pairs of different enrolled people at a false-accept rate of 1 %.')
    assert 'about 1 in 105 comparisons with a stranger to pass (1 of the 105 pairs, so this is a rough' in said[1]
    assert f'With 15 people enrolled, expect about 1 in 8 strangers to get a name ({t.named} of 15 ' in said[2]
    assert 'rough' not in str(t._replace(false_accepts=30)) and len(said) == 4


@settings(max_examples=60)
@given(st.integers(1, 10**6), st.data())
def test_a_share_in_words_is_near_the_share(of, data):
    n = data.draw(st.integers(1, of))
    words = share_words(n, of).split()
    assert words[0] == 'about' and int(words[1])/int(words[3]) == pytest.approx(n/of, rel=.25, abs=.05)
    assert share_words(0, of) == f'fewer than 1 in {max(of//3, 1)}'


def test_names_and_strangers():
    gallery, true = people(12, 3)
    t = gallery.threshold(.01)
    strangers = 4*np.random.default_rng(7).normal(size=(20, 6, 3))  # unlike anybody
    assert [gallery.identify(probe, t) for probe in true] == gallery.people
    assert [gallery.identify(probe, t) for probe in strangers] == [None]*20
    found = answers(gallery, np.concatenate([true[:1], strangers[:1]]), ['one', 'two'], t, most=2)
    assert [(a.probe, a.verdict, len(a.ranked)) for a in found] == [('one', 'p0', 2), ('two', NOBODY, 2)]
    assert NOBODY in answers_table(found) and len(answers_csv(found).splitlines()) == 5
    data = json.loads(json.dumps(answers_data(found, t)))
    assert data['probes'][0]['ranked'][0]['name'] == 'p0' and data['threshold']['pairs'] == t.pairs == 594
    unasked = answers(gallery, true[:1], ['one'])
    assert unasked[0].verdict is None and 'verdict' not in answers_table(unasked)


@pytest.mark.parametrize('call, says', [
    (lambda: people(3, 2)[0].threshold(.01), 'found 12 comparisons of different people, expected at least 100'),
    (lambda: check_rate(['a', 'a', 'b', 'b', 'c', 'c'], .01), 'found 12 comparisons of different people, expected'),
    (lambda: people(1, 3)[0].threshold(.5), 'found 0 comparisons of different people, expected at least 2'),
    (lambda: people(3, 2)[0].threshold(2), 'found 2, expected a number above 0 and below 1'),
    (lambda: people(3, 2)[0].rank(np.zeros((5, 3))), r'found an embedding \(5, 3\), expected \(6, 3\)'),
    (lambda: people(3, 2)[0].rank(np.full((6, 3), np.nan)), 'not finite'),
    (lambda: enrol(np.zeros((0, 6, 3)), [], ABOUT), 'at least one of each'),
    (lambda: enrol(np.ones((1, 6, 3)), [Sequence('a', 'b', 'c')]*2, ABOUT), 'expected the same number'),
    (lambda: enrol(np.ones((1, 6, 3)), [Sequence('a', 'b', 'c')], {}), 'about: lacks model, weights')])
def test_errors(call, says):
    with pytest.raises(SkeletonGaitError, match=says):
        call()


def test_probes_without_a_match_are_ranked():
    "By the rules of the protocol, with what it excludes; the others are not listed."
    names = [Sequence(s, t, v) for s, t in (('a', 'in'), ('b', 'in'), ('a', 'out'), ('x', 'out')) for v in ('1', '2')]
    x = np.array([0, .1, 5, 5.1, .2, .3, 4, .4])[:, None, None] + 1
    protocol = GalleryProbe({'types': 'in'}, {'types': 'out'}, exclude='view')
    found = unmatched_probes(make_embedding_set(x, *zip(*names)), protocol)
    assert [(a.probe, [(r.subject, r.sequence.view) for r in a.ranked]) for a in found] == [
        ('x-out-1', [('b', '2'), ('a', '2')]), ('x-out-2', [('a', '1'), ('b', '1')])]
