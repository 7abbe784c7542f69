"Strip distances, kept embeddings, and the explorer that shows what the evaluator scored."
import json
import zipfile

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from skeletongait.viewers import retrieval
from skeletongait.runs.folder import Run
from skeletongait.runs.config import load_config
from skeletongait.files.settings import to_dict
from skeletongait.files.tree import Sequence
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.evaluation.ranking import (
    METRICS, distances, embeddings_file, make_embedding_set, nearest_sequences, read_embeddings, save_embeddings,
    score_probes, strip_distances)
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.distributed import Ranks
from skeletongait.nets.models import build_model
from skeletongait.viewers.player import BAD, GOOD, paint
from skeletongait.pictures import figure_png
from skeletongait.evaluation.protocols import GalleryProbe, PROTOCOLS, make_cells
from skeletongait.evaluation.report import (
    failures, failures_csv, matrix_entries, plot_matrix, plot_results, write_results)
from skeletongait.viewers.retrieval import (
    ALL, ERRORS, HARDEST, Failures, Questions, RetrievalExplorer, named, read_failures, strip_bars, strip_major)
from skeletongait.pictures import overlay
from skeletongait.runs.loop import keep_embeddings, test_model as run_test
from skeletongait.walkers.recording import make_sequence
from skeletongait.walkers.datasets import write_walkers
from records import RULES, toy, write_test

torch.set_num_threads(1)
CONDITIONS = dict(
    gallery=dict(types=['nm-*']),
    conditions=dict(
        BG=dict(probe=dict(types=['bg-*'])), CL=dict(probe=dict(types=['cl-*'])),
        Overall=dict(probe=dict(types=['bg-*', 'cl-*']))))


def decode(png): return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def pictures(n=3):
    "Three channels of `n` frames, other ones for each sequence."
    def look_up(s):
        rng = np.random.default_rng([ord(c) for c in str(s)])
        return rng.integers(0, 256, (n + len(s.view)*int(s.subject), 3, 16, 12), dtype=np.uint8)
    return look_up


def explorer(protocol=RULES, **kwargs):
    x, who = toy(**{k: kwargs.pop(k) for k in ('n', 'types', 'views', 'noise', 'shape') if k in kwargs})
    return RetrievalExplorer(x, *who, protocol=protocol, **kwargs)


# strips

@given(st.integers(1, 5), st.integers(1, 3000), st.integers(1, 17), st.sampled_from(METRICS), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_mean_over_strips_is_the_distance(c, m, p, metric, seed):
    rng = torch.Generator().manual_seed(seed)
    probe, gallery = torch.randn(c, p, generator=rng), torch.randn(m, c, p, generator=rng)
    d_mp = strip_distances(probe, gallery, metric)
    assert d_mp.shape == (m, p) and d_mp.dtype == torch.float64 and (d_mp >= 0).all()
    torch.testing.assert_close(d_mp.mean(1).float(), distances(probe[None], gallery, metric)[0], rtol=2e-7, atol=1e-9)


def test_strip_distances_of_a_copy_are_zero_and_a_moved_strip_is_the_only_one():
    x = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    moved = x.clone()
    moved[:, 5] += 1
    d = strip_distances(x, torch.stack([x, moved]))
    assert (d[0] == 0).all() and d[1].nonzero().flatten().tolist() == [5]
    assert d[1, 5].item() == pytest.approx(6**.5)


def test_strip_distances_refuse_another_metric():
    with pytest.raises(SkeletonGaitError, match="found 'l2', expected one of euc, cos"):
        strip_distances(torch.ones(2, 3), torch.ones(1, 2, 3), 'l2')


@pytest.mark.parametrize('metric', METRICS)
def test_memory_order_changes_no_distance(metric):
    "Turned embeddings, and blocks written over each other, give the same bits."
    x, who = toy(shape=(7, 5))
    test = make_embedding_set(np.concatenate([x]*12), *(np.tile(o, 12) for o in who)) # more than one part
    d = distances(test.embeddings[:3], test.embeddings, metric)
    assert torch.equal(distances(strip_major(test).embeddings[:3], strip_major(test).embeddings, metric), d)
    assert torch.equal(strip_major(test).embeddings, test.embeddings)
    assert torch.equal(
        torch.cat([distances(test.embeddings[:3], part, metric) for part in test.embeddings.split(100)], 1), d)


# kept embeddings

def test_embeddings_survive_the_disk(tmp_path):
    x, who = toy()
    names = (['日本', 'a"b', '', *who[0][3:]], *who[1:])
    test = make_embedding_set(x.astype(np.float64), *names)
    save_embeddings(test, tmp_path/'deep'/'a.npz')
    again = read_embeddings(tmp_path/'deep'/'a.npz')
    assert again.sequences == test.sequences and again.embeddings.dtype == torch.float32
    assert torch.equal(again.embeddings, test.embeddings.float())
    assert [f.name for f in (tmp_path/'deep').iterdir()] == ['a.npz'] # no temporary file stays
    with np.load(tmp_path/'deep'/'a.npz', allow_pickle=False) as f:
        assert sorted(f) == ['embeddings', 'labels', 'types', 'views']


class Bomb:
    def __reduce__(self): return (print, ('run',))


def member(path, **arrays):
    x, who = toy(n=1)
    np.savez(path, **{**dict(embeddings=x, labels=who[0], types=who[1], views=who[2]), **arrays})


def test_files_that_are_no_embeddings_say_so(tmp_path, capsys):
    x, who = toy(n=1)
    cases = {
        'absent.npz': (lambda f: None, 'cannot be read'),
        'text.npz': (lambda f: f.write_text('hello'), 'not a file of embeddings'),
        'lacks.npz': (lambda f: np.savez(f, embeddings=x), 'not a file of embeddings'),
        'pickled.npz': (
            lambda f: member(f, labels=np.array([Bomb()]*len(x), dtype=object)), 'not a file of embeddings'),
        'numbers.npz': (lambda f: member(f, labels=np.arange(len(x))), 'expected embeddings float32'),
        'double.npz': (lambda f: member(f, embeddings=x.astype(np.float64)), 'expected embeddings float32'),
        'fewer.npz': (lambda f: member(f, embeddings=x[:3]), 'expected the same number of each'),
        'nan.npz': (lambda f: member(f, embeddings=x*np.nan), 'not finite'),
        'flat.npz': (lambda f: member(f, embeddings=x[:, 0]), 'expected (sequences, channels, strips)'),
        'bomb.npz': (
            lambda f: np.savez_compressed(
                f, embeddings=np.zeros((10**4, 16, 16), np.float32), labels=who[0], types=who[1], views=who[2]),
            'not compressed')}
    for name, (write, says) in cases.items():
        write(tmp_path/name)
        with pytest.raises(SkeletonGaitError) as e:
            read_embeddings(tmp_path/name)
        assert says in str(e.value) and name in str(e.value), name
    assert 'run' not in capsys.readouterr().out


@pytest.mark.parametrize('header', ['('*9990, '['*9990, '-'*9990 + '1', '1+'*4990 + '1', "{'descr': '<f4"])
def test_headers_that_no_parser_should_see(tmp_path, header):
    "Brackets to the end: Python's own parser would go down a step for each."
    member(tmp_path/'a.npz')
    with zipfile.ZipFile(tmp_path/'a.npz') as z:
        parts = {o: z.read(o) for o in z.namelist()}
    parts['labels.npy'] = b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header.encode() + bytes(64)
    with zipfile.ZipFile(tmp_path/'a.npz', 'w') as z:
        for name, part in parts.items():
            z.writestr(name, part)
    with pytest.raises(SkeletonGaitError,
        match='a.npz: not a file of embeddings .its header is not that'):
        read_embeddings(tmp_path/'a.npz')


def test_a_header_that_promises_more_than_the_file_has(tmp_path):
    member(tmp_path/'a.npz')
    data = (tmp_path/'a.npz').read_bytes()
    shape = str(np.load(tmp_path/'a.npz')['embeddings'].shape).encode()
    assert data.count(shape) == 1
    lie = b'(99999, 4, 16)'
    gap = len(lie) - len(shape)
    at = data.index(shape)
    data = data[:at] + lie + data[at+len(shape):].replace(b' '*gap, b'', 1) # the header keeps its length
    (tmp_path/'a.npz').write_bytes(data)
    with pytest.raises(SkeletonGaitError, match='not a file of embeddings'):
        read_embeddings(tmp_path/'a.npz')


def test_too_large_a_file_is_not_read(tmp_path):
    x, who = toy(n=8, shape=(64, 64))
    save_embeddings(make_embedding_set(x, *who), tmp_path/'a.npz')
    with pytest.raises(SkeletonGaitError, match='raise max_mb if the file is yours'):
        read_embeddings(tmp_path/'a.npz', max_mb=1)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_embeddings_never_raise_anything_else(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('f')/'a.npz'
    member(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw)-1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw[:data.draw(st.integers(0, len(raw)))]) if data.draw(st.booleans()) else bytes(raw))
    try:
        read_embeddings(path)
    except SkeletonGaitError as e:
        assert 'a.npz' in str(e)


def test_embeddings_lie_beside_the_results_and_move_with_them(tmp_path):
    cfg, _ = load_config('demo_skeletongait')
    run = Run(cfg, tmp_path)
    test = make_embedding_set(*(lambda x, who: (x, *who))(*toy()))
    for i in (5, 10):
        assert keep_embeddings(test, run.results(i), True) == [embeddings_file(run.results(i))]
        write_results(run.results(i).with_suffix(''), GalleryProbe.from_dict(RULES).results(test))
    assert {i for i, f in run.files('results') if f.name.endswith('-embeddings.npz')} == {5, 10}
    (run.folder/'checkpoints').mkdir()
    aside = run.set_aside(beyond=5)
    assert embeddings_file(run.results(5)).exists() and not embeddings_file(run.results(10)).exists()
    assert (aside/'results'/embeddings_file(run.results(10)).name).exists()
    assert keep_embeddings(test, run.results(5), False) == [] and not embeddings_file(run.results(5)).exists()


def test_settings_that_keep_embeddings():
    assert load_config('demo_skeletongait')[0].evaluator_cfg.save_embeddings
    assert load_config('demo_skeletongait++')[0].evaluator_cfg.save_embeddings
    assert not load_config('skeletongait_Gait3D')[0].evaluator_cfg.save_embeddings


# rankings

@pytest.mark.parametrize('metric', METRICS)
@pytest.mark.parametrize(
    'rules',
    [
        RULES, CONDITIONS, {**RULES, 'tables': [dict(per='view_pair', measures=['R1'], exclude=['view'])]},
        {**RULES, 'tables': [dict(per='probe_view', measures=['R1'])]}, {**RULES, 'exclude': ['subject', 'view']},
        {**RULES, 'cut_views': '_'}])
def test_every_ranking_is_the_evaluators(rules, metric):
    "Entries are those of `nearest_sequences`, ranks those of `make_cells`, question by question."
    x, who = toy(n=6, views=('0_a', '0_b', '9_a'))
    test, protocol = make_embedding_set(x, *who), GalleryProbe.from_dict(rules)
    q = Questions(test, protocol, metric)
    seen, splits = protocol.seen(test), protocol.split(test.sequences)
    table, views = protocol.tables[0], protocol.views(splits, test.sequences)
    cells = [make_cells(table, s, seen, views, protocol.exclude, metric) for s in splits]
    assert len(q.n3) == sum(len(s.probe)*len(c.columns) for s, c in zip(splits, cells))
    for i, (c, probe, v) in enumerate(q.n3.tolist()):
        r, view = q.ranking(i, 5), q.views[v]
        gallery, column = cells[c].columns[view], list(cells[c].columns).index(view)
        near, far = (o[0].tolist() for o in nearest_sequences(seen, [probe], gallery, 5, metric, q.exclude))
        assert [(e.at, e.distance) for e in r.entries] == [(a, d) for a, d in zip(near, far) if d < np.inf]
        assert [e.place for e in r.entries] == list(range(1, len(r.entries)+1))
        assert all(e.right == (e.sequence.subject == r.probe.subject) for e in r.shown)
        assert all(e.sequence == test.sequences[e.at] for e in r.shown)
        first = cells[c].scores.first[splits[c].probe.tolist().index(probe), column].item()
        assert (r.right.place if r.right else np.inf) == first
        if r.right and r.wrong:
            assert 1 in (r.right.place, r.wrong.place) and r.right.place != r.wrong.place
        s = score_probes(seen, [probe], gallery, metric, q.exclude)
        assert r.says == retrieval.score_words(first, s.ap.item(), s.among.item())


def test_ties_are_ranked_as_the_evaluator_ranks_them():
    x, who = toy(n=5)
    q = Questions(make_embedding_set(np.ones_like(x), *who), GalleryProbe.from_dict(RULES))
    r = q.ranking(len(q.n3)-1, 3)
    assert [e.at for e in r.entries] == sorted(e.at for e in r.entries) and r.right.place > 3


@pytest.mark.parametrize('metric', METRICS)
def test_bars_add_up_to_what_decided(metric):
    x, who = toy()
    q = Questions(make_embedding_set(x, *who), GalleryProbe.from_dict(RULES), metric)
    for i in range(0, len(q.n3), 5):
        r = q.ranking(i, 4)
        for e in r.shown:
            v = q.verdict(r, e)
            assert not v.wrong.right and v.right.right and e in (v.wrong, v.right)
            assert v.speaks_p.sum() == pytest.approx(v.wrong.distance - v.right.distance, abs=1e-5)
            assert v.share_2p.sum(1) == pytest.approx([1, 1])


def test_bars_stand_at_their_strips_and_point_to_their_side():
    values = np.array([1., -2, 0, .5])
    bars = strip_bars(values, ['']*4, size=(64, 100))
    assert bars.shape == (64, 100, 3)
    axis = (bars == 20).all((0, 2)).nonzero()[0]
    assert len(axis) == 1
    for p, v in enumerate(values):
        good, bad = ((bars[16*p:16*p+16] == c).all(-1).any(0).nonzero()[0] for c in (GOOD, BAD))
        assert (len(good) > 0) == (v > 0) and (len(bad) > 0) == (v < 0)
        assert (good > axis[0]).all() and (bad < axis[0]).all()


def test_all_zero_bars():
    assert strip_bars(np.zeros(16), ['+0']*16).shape == (448, 320, 3)


# which questions failed

def test_failures_are_in_the_order_of_the_library():
    v = explorer(noise=1.6)
    rows = failures(v.questions.test, v.questions.protocol)
    assert 3 < len(rows) < len(v.questions.n3)
    v.which.value = HARDEST
    asked = []
    for n in range(1, len(v.list)+1):
        v.position.value = n
        asked.append((str(v.ranking.probe), v.ranking.right.place))
    assert asked == [(o['probe'], o['rank']) for o in rows]
    v.which.value = ERRORS
    assert sorted(v.list) == list(v.list) and len(v.list) == len(rows)


def test_a_failure_of_two_conditions_is_found_in_both():
    "`failures` names it once; the pickers show it wherever it is a failure."
    v = explorer(CONDITIONS, noise=1.6)
    v.which.value = ERRORS
    n = {}
    for name in ('BG', 'CL', 'Overall'):
        v.condition.value = name
        n[name] = len(v.list)
        for i in v.list:
            assert v.questions.ranking(i, 1).right.place > 1
    assert n['Overall'] == n['BG'] + n['CL'] > 0


def test_failures_of_other_data_are_refused():
    x, who = toy()
    q = Questions(make_embedding_set(x, *who), GalleryProbe.from_dict(RULES))
    row = dict(
        condition='', probe='999-bg-01-000', gallery_view='', rank=2, right='999-nm-01-000', right_distance=1.,
        before=[])
    with pytest.raises(SkeletonGaitError, match="name '999-bg-01-000'"):
        q.note_failures([row])
    q.note_failures([])
    assert (q.failed_n == -1).all()


@given(st.text('ab-', min_size=2).filter(lambda s: s.count('-') > 1))
def test_names_survive_the_split(name): assert str(named(name)) == name


# the viewer

def test_pixels_are_the_librarys():
    look_up = pictures()
    v = explorer(pictures=look_up, k=3)
    for name, draw in (
        ('map on silhouette', lambda x: overlay(x[0], x[2])), ('limb map', lambda x: paint(x[0])),
        ('joint map', lambda x: paint(x[1])), ('silhouette', lambda x: paint(x[2], 'gray'))):
        v.channel.value = name
        for t in (0, 2, 7):
            v.player.index = t
            for panel, s in zip((v.probe_panel, *v.panels), (v.ranking.probe, *(e.sequence for e in v.ranking.shown))):
                x = look_up(s)
                assert (decode(panel.image.value) == draw(x[t % len(x)])).all()
            for panel, s in zip(v.compared, (v.ranking.probe, v.verdict.wrong.sequence, v.verdict.right.sequence)):
                assert (decode(panel.image.value) == draw(look_up(s)[t % len(look_up(s))])).all()


def test_all_walk_together_to_the_end_of_the_longest():
    look_up = pictures()
    v = explorer(pictures=look_up)
    shown = [v.ranking.probe, *(e.sequence for e in (*v.ranking.shown, v.ranking.wrong))]
    longest = max(len(look_up(s)) for s in shown)
    assert v.n_frames == v.player.slider.max+1 == longest
    assert len({v.snapshot(t).shape for t in range(longest)}) == 1


def test_right_and_wrong_are_said_in_words_and_borders():
    v = explorer(noise=1.6, k=6)
    v.which.value = HARDEST
    for panel, e in zip(v.panels, v.ranking.shown):
        assert ('✓' in panel.title.value, 'WRONG' in panel.title.value) == (e.right, not e.right)
        assert panel.layout.border_top == f'3px solid rgb{GOOD if e.right else BAD}'
        assert str(e.sequence) in panel.title.value
    assert v.ranking.right in v.ranking.shown and v.ranking.right.place > 1


def test_pickers_narrow_and_buttons_step():
    v = explorer()
    v.which.value = ALL
    assert len(v.list) == len(v.questions.n3)
    n = len(v.list)
    v.view.value = '045'
    assert {v.questions.sequences[i].view for i in v.questions.n3[v.list, 1]} == {'045'}
    assert v.position.max == len(v.list) < n
    v.subject.value = '003'
    assert v.ranking.probe == Sequence('003', 'bg-01', '045') and len(v.list) == 1 and v.previous.disabled
    assert v.next.disabled
    v.subject.value, v.view.index = '', 0
    assert len(v.list) == n
    v.next.click()
    v.next.click()
    assert v.position.value == 3 and v.ranking.probe == v.questions.sequences[v.questions.n3[v.list[2], 1]]
    v.previous.click()
    assert v.position.value == 2


def test_pickers_that_leave_nobody_keep_the_probe_and_say_so():
    "A message, 0 of all, and nothing to step through until the pickers leave somebody."
    v = explorer()
    v.which.value = ALL
    v.next.click()
    before, probe = v.list, v.ranking.probe
    n, steps = len(v.questions.n3), (v.position, v.previous, v.next)
    v.subject.value = '<b>nobody</b>'
    assert f'no probe matches these choices: 0 of {n}' in v.notice.value and v.list is before
    assert v.ranking.probe == probe
    assert f'>0 of {n}<' in v.count.value and not v.position.readout and all(o.disabled for o in steps)
    assert v.children.index(v.notice) < v.children.index(v.pickers)
    v.subject.value = '001'
    assert v.notice.value == '' and v.ranking.probe.subject == '001' and v.position.value == 1
    assert f'>of {len(v.list)}<' in v.count.value and v.position.readout
    assert [o.disabled for o in steps] == [False, True, len(v.list) == 1]


def test_it_opens_on_the_hardest_error_or_on_all_probes():
    v = explorer(noise=1.6)
    assert v.which.value == HARDEST and len(v.list) == (v.questions.failed_n >= 0).sum()
    assert v.questions.failed_n[v.list[0]] == 0
    assert v.ranking == v.questions.ranking(v.list[0], v.k) and v.ranking.right.place > 1
    v = explorer(noise=.01)
    assert v.which.value == ALL and (v.questions.failed_n == -1).all() and len(v.list) == len(v.questions.n3)


@pytest.mark.parametrize('channels, name', [(1, None), (2, 'limb map'), (3, 'map on silhouette'), (5, 'channel 0')])
def test_the_picture_that_is_shown_is_the_one_that_is_named(channels, name):
    v = explorer(pictures=lambda s: np.zeros((2, channels, 16, 12), np.uint8))
    assert v.channel.value == v.channel.options[0] and name in (None, v.channel.value)
    assert (v.channel.layout.display == 'none') == (channels == 1)


def test_distances_are_named_and_of_one_width():
    v = explorer(k=6)
    words = [retrieval.far(e.distance) for e in v.ranking.shown]
    assert all(f'>{o}<' in p.title.value for o, p in zip(words, v.panels)) and len({len(o) for o in words}) == 1
    for d, says in ((2, '2.000'), (1.8264, '1.826'), (12.34567, '12.35'), (.01234567, '0.01235'), (0, '0.000')):
        assert retrieval.far(d) == f'distance {says}'


def test_the_comparison_stands_in_one_row():
    "Bars between the two that they compare, as high as their pictures, so that each strip's bar is beside it."
    v = explorer(pictures=pictures())
    probe, wrong, right = v.compared
    assert v.beside.children == (probe, wrong, v.bars, right, v.shares) and v.beside.layout.flex_flow is None
    assert v.beside.layout.align_items == 'flex-end'
    assert {p.image.layout.height for p in v.beside.children} == {'160px'}
    assert {p.layout.flex for p in v.beside.children} == {'0 0 auto'}
    assert {p.layout.border_bottom.split(' rgb')[0].split(' trans')[0] for p in v.beside.children} == {'3px solid'}


def test_any_entry_can_be_compared():
    v = explorer(noise=1.6)
    v.which.value = HARDEST
    for i, e in enumerate(v.ranking.shown):
        v.entry.value = i
        assert e in (v.verdict.wrong, v.verdict.right)
        assert (decode(v.bars.image.value) == retrieval.balance_bars(v.verdict)).all()
        assert (decode(v.shares.image.value) == retrieval.share_bars(v.verdict, int(e.right))).all()
    v.position.value = 2
    assert v.entry.value == 0 and v.ranking.shown[0] in (v.verdict.wrong, v.verdict.right)


def test_figures_are_the_evaluators():
    v = explorer()
    assert v.results == v.questions.protocol.results(v.questions.test)
    assert (decode(v.scores.value) == decode(figure_png(plot_results(v.results)))).all()


# views

@pytest.mark.parametrize(
    'rules',
    [
        RULES, CONDITIONS, {**RULES, 'exclude': []}, {**RULES, 'cut_views': '_'},
        {**RULES, 'tables': [dict(per='probe_view', measures=['mAP'], unmatched='wrong')]},
        {**RULES, 'tables': [dict(exclude=['subject', 'view'])]}])
def test_rank_1_by_views_for_protocols_that_count_all_probes_at_once(rules):
    "The cells are those of the same protocol with a table per pair of views."
    v = explorer(rules, noise=1.6, views=('0_a', '0_b', '9_a'))
    table = v.questions.protocol.tables[0]
    by_pair = dict(per='view_pair', measures=['Rank-1'], exclude=list(v.questions.exclude), unmatched=table.unmatched)
    pairs = GalleryProbe.from_dict({**rules, 'tables': [by_pair]}).results(v.questions.test)
    for ours, theirs in zip(v.by_view['tables'], pairs['tables'], strict=True):
        for k in ('condition', 'matrix', 'probe_views', 'gallery_views', 'value'):
            assert ours[k] == theirs[k]
    assert (decode(v.matrix.value) == decode(figure_png(plot_matrix(v.by_view)))).all()
    assert v.figures.children == (v.scores, v.matrix) and v.no_views.value == '' and v.matrix.layout.display is None
    v.figure()


def test_same_views_that_are_excluded_are_empty_cells():
    matrix = np.array(explorer(noise=1.6).by_view['tables'][0]['matrix'], dtype=float)
    assert (np.isnan(matrix) == np.eye(3, dtype=bool)).all()


def test_a_protocol_with_its_own_matrix_gets_no_second_one():
    v = explorer({**RULES, 'tables': [dict(per='view_pair', measures=['R1'], exclude=['view'])]})
    assert matrix_entries(v.results) and v.by_view is None and v.matrix.layout.display == 'none'
    assert v.no_views.value == ''


@pytest.mark.parametrize('n', [1, 2, 20, 21])
def test_too_few_or_too_many_views_are_said(n):
    v = explorer({**RULES, 'exclude': []}, n=3, views=[f'{i:03d}' for i in range(n)])
    assert (v.by_view is not None) == (1 < n < 21) == (v.no_views.value == '')
    if v.by_view is None:
        assert f'these sequences have {n}' in v.no_views.value and v.evaluate_button.layout.display == 'none'


def test_a_large_evaluation_waits_for_the_button(monkeypatch):
    monkeypatch.setattr(retrieval, 'EAGER', 0)
    v = explorer(noise=1.6)
    assert v.results is None and v.evaluate_button.layout.display is None and v.ranking and v.verdict
    v.which.value = ERRORS
    assert "press &#x27;rank all probes&#x27; first" in v.notice.value and len(v.list) == len(v.questions.n3)
    assert v.by_view is None and 'press &#x27;rank all probes&#x27;' in v.no_views.value
    v.figure()
    v.evaluate_button.click()
    assert v.results and v.by_view and v.no_views.value == '' and v.notice.value == ''
    assert v.evaluate_button.layout.display == 'none'
    assert len(v.list) < len(v.questions.n3) and (v.questions.failed_n[v.list] >= 0).all() # what was asked for before
    v.which.value = ALL
    assert v.notice.value == '' and len(v.list) == len(v.questions.n3)


def test_results_of_a_large_test_leave_the_views_to_the_button(tmp_path, monkeypatch):
    write_test(tmp_path)
    monkeypatch.setattr(retrieval, 'EAGER', 0)
    v = RetrievalExplorer.from_results(tmp_path)
    assert v.which.value == HARDEST and v.by_view is None and v.evaluate_button.layout.display is None
    v.evaluate_button.click()
    assert v.by_view and v.evaluate_button.layout.display == 'none'


def test_a_probe_with_nobody_to_compare():
    "Alone after exclusions, or without a match: words, no bars, and still a picture."
    x = np.random.default_rng(0).normal(size=(5, 4, 16)).astype(np.float32)
    who = (('a', 'a', 'b', 'b', 'c'), ('nm', 'bg', 'nm', 'bg', 'bg'), ('0', '9', '0', '9', '0'))
    v = RetrievalExplorer(
        x, *who, protocol=dict(gallery=dict(types=['nm']), probe=dict(types=['bg']), exclude=['view']))
    assert v.ranking.entries
    v.which.value, v.subject.value = ALL, 'c'
    assert v.ranking.entries == [] and v.verdict is None and 'no gallery sequence is left' in v.heading.value
    assert v.comparison.layout.display == 'none'
    v.figure(), v.snapshot(0)
    v = RetrievalExplorer(x, *who, protocol=dict(gallery=dict(types=['nm']), probe=dict(types=['bg'])))
    v.which.value, v.subject.value = ALL, 'c'
    assert v.ranking.right is None and v.verdict is None and 'no right one' in v.words.value
    assert len(v.ranking.shown) == 2
    v.figure(), v.snapshot(0)


def test_names_are_shown_not_run():
    x, (labels, types, views) = toy()
    labels = [f'<img src=x onerror=alert({s})>' for s in labels]
    v = RetrievalExplorer(x, labels, types, views, protocol=RULES)
    shown = [o.value for o in (v.heading, v.words, *(p.title for p in (v.probe_panel, *v.panels, *v.compared)))]
    assert not any('<img' in o for o in shown) and '&lt;img' in shown[0]


def test_pictures_that_fail_leave_the_name_and_a_notice():
    look_up = pictures()
    def some(s):
        if s.subject == '000' and s.type.startswith('bg'):
            raise SkeletonGaitError(f'{s}: the file is gone')
        return look_up(s) if s.subject != '003' else np.zeros((2, 2))
    v = explorer(pictures=some)
    assert 'the file is gone' in v.notice.value and v.probe_panel.image.layout.display == 'none'
    assert v.panels[0].image.value
    v.subject.value = '003'
    assert 'expected frames (T, h, w)' in v.notice.value
    v.subject.value = '001'
    assert decode(v.probe_panel.image.value).shape == (16, 12, 3)


def test_pictures_may_be_a_mapping_with_gaps():
    look_up, (x, who) = pictures(), toy()
    some = {s: look_up(s) for s in map(Sequence, *who) if s.type.startswith('bg')}
    v = RetrievalExplorer(x, *who, pictures=some, protocol=RULES)
    assert v.probe_panel.image.value and v.panels[0].image.layout.display == 'none' and v.notice.value == ''
    v.figure()


@pytest.mark.parametrize('kwargs, says', [
    (dict(protocol=None), 'none was given: pass probes='),
    (dict(protocol='CASIA-C'), "did you mean 'CASIA-E'"),
    (dict(protocol=3), 'protocol: found int'),
    (dict(protocol=dict(galery={})), 'did you mean gallery'),
    (dict(metric='l2'), "found 'l2'"),
    (dict(k=0), 'k: found 0'),
    (dict(protocol=dict(gallery=dict(types=['x']), probe=dict(types=['bg-*']))), 'gallery: no test sequence is chosen'),
    (dict(protocol=None, probes=['nobody']), 'probe: no test sequence is chosen')])
def test_wrong_input_is_a_message_in_the_viewers_place(kwargs, says):
    v = explorer(**{'protocol': RULES, **kwargs})
    assert says in v.problem and len(v.children) == 1
    with pytest.raises(SkeletonGaitError, match='nothing to save'):
        v.save_animation('x.gif')


@pytest.mark.parametrize(
    'change, says',
    [
        (lambda x, w: (x[:0], *(o[:0] for o in w)), 'embeddings: found an empty array of shape (0, 4, 16)'),
        (lambda x, w: (x, w[0][:-1], *w[1:]), 'expected the same number of each'),
        (lambda x, w: (x*np.nan, *w), 'not finite'),
        (lambda x, w: (x[:, :, 0], *w), 'expected (sequences, channels, strips)')])
def test_wrong_arrays_are_a_message(change, says):
    assert says in RetrievalExplorer(*change(*toy()), protocol=RULES).problem


def test_a_list_of_probes_is_enough():
    x, who = toy()
    v = RetrievalExplorer(x, *who, probes=['003-bg-01-045', '004-nm-01-000'])
    assert len(v.list) == 2
    assert {str(v.questions.sequences[i]) for i in v.questions.n3[:, 1]} == {'003-bg-01-045', '004-nm-01-000'}
    assert len(v.questions.galleries[0]['']) == len(x)-2


@pytest.mark.parametrize('name', ['CASIA-B', 'OUMVLP', 'CCPG', 'SUSTech1K', 'GREW-submission'])
def test_published_protocols_can_be_explored(name):
    types = {
        'CASIA-B': ('nm-01', 'nm-05', 'bg-01', 'cl-02'), 'OUMVLP': ('00', '01'),
        'CCPG': ('U0_D0', 'U0_D0_BG', 'U1_D1', 'U3_D3', 'U0_D3'), 'SUSTech1K': ('00-nm', '01-nm', '02-bg'),
        'GREW-submission': ('01', '02', '03')}[name]
    v = explorer(name, types=types, noise=1.4)
    assert not v.problem and v.results == PROTOCOLS[name].results(v.questions.test)
    v.which.value = HARDEST
    assert v.ranking.right.place > 1
    v.figure()


def test_moving_pictures(tmp_path):
    v = explorer(pictures=pictures(), k=2)
    assert v.save_animation(tmp_path/'a.gif', range(3)).stat().st_size > 0
    assert v.save_animation(tmp_path/'a.mp4').stat().st_size > 0
    assert 'image/png' in v._repr_mimebundle_()


# from the files of a test


def test_from_results_is_the_same_as_from_arrays(tmp_path):
    write_test(tmp_path)
    x, who = toy(noise=1.6)
    a = RetrievalExplorer(x, *who, protocol=RULES, metric='cos')
    for path in (tmp_path, tmp_path/'results', tmp_path/'results'/'run-00010.json'):
        b = RetrievalExplorer.from_results(path)
        assert not b.problem and (b.questions.failed_n == a.questions.failed_n).all()
        assert b.scores.value == a.scores.value
        a.which.value = b.which.value = HARDEST
        assert a.ranking == b.ranking and a.words.value == b.words.value
        assert any('Names only' in o.value for o in b.children if hasattr(o, 'value') and isinstance(o.value, str))


def test_from_results_takes_the_latest(tmp_path):
    for name in ('run-00090', 'run-00100', 'other-00020'):
        write_test(tmp_path, name)
    assert retrieval.newest_results(tmp_path).name == 'run-00100.json'


def test_without_embeddings_failures_are_shown(tmp_path):
    test = write_test(tmp_path, embeddings=False)
    v = RetrievalExplorer.from_results(tmp_path)
    rows = failures(test, GalleryProbe.from_dict(RULES), 'cos')
    assert isinstance(v.questions, Failures) and len(v.list) == len(rows)
    for n, o in enumerate(rows, 1):
        v.position.value = n
        assert str(v.ranking.probe) == o['probe']
        assert [str(e.sequence) for e in v.ranking.entries] == [b['sequence'] for b in o['before']]
        assert (v.ranking.right.place, str(v.ranking.right.sequence)) == (o['rank'], o['right'])
    assert 'evaluator_cfg.save_embeddings: true' in v.words.value and v.verdict is None and v.scores.value
    assert v.by_view is None and 'by views needs embeddings' in v.no_views.value
    assert v.evaluate_button.layout.display == 'none'
    v.figure(), v.snapshot(0)
    v.subject.value = v.ranking.probe.subject
    assert v.notice.value == ''


def test_without_failures_the_button_finds_them(tmp_path):
    write_test(tmp_path, told=False)
    v = RetrievalExplorer.from_results(tmp_path)
    assert v.questions.failed_n is None and v.evaluate_button.layout.display is None and v.scores.value
    v.evaluate_button.click()
    v.which.value = HARDEST
    assert v.notice.value == '' and v.ranking.right.place > 1


def test_listed_probes_come_from_the_results(tmp_path):
    names = ['000-bg-01-000', '003-cl-01-045']
    write_test(tmp_path, protocol={}, probes=names, probe_names=names)
    v = RetrievalExplorer.from_results(tmp_path)
    assert not v.problem and len(v.questions.n3) == 2
    about = json.loads((tmp_path/'results'/'run-00010.json').read_text())
    del about['probe_names']
    (tmp_path/'results'/'run-00010.json').write_text(json.dumps(about))
    assert 'pass probes=' in RetrievalExplorer.from_results(tmp_path).problem
    assert not RetrievalExplorer.from_results(tmp_path, probes=names).problem


def test_pictures_of_the_tested_tree_are_drawn_as_tested(tmp_path):
    "Poses with the run's own pen, one frame at a time; another tree on request."
    who = list(map(Sequence, *toy()[1]))
    poses = {s: make_sequence(0, int(s.subject), s.type, s.view, 4) for s in who}
    for s, rec in poses.items():
        save_pickle(rec.pose, s.path(tmp_path/'pose')/'a.pkl')
        save_pickle(rec.silhouette, s.path(tmp_path/'sil')/'a.pkl')
    render = dict(heatmap_generator_args=dict(sigma=4.))
    write_test(
        tmp_path,
        data_cfg=dict(dataset_root=str(tmp_path/'pose'), render=render, render_sigma=None, data_in_use=[True]))
    v = RetrievalExplorer.from_results(tmp_path)
    v.player.index = 2
    maps = pose_to_heatmap(poses[v.ranking.probe].pose, render)
    assert (decode(v.probe_panel.image.value) == paint(maps[2, 0])).all()
    v = RetrievalExplorer.from_results(tmp_path, data=tmp_path/'sil')
    v.player.index = 3
    assert (decode(v.probe_panel.image.value) == paint(poses[v.ranking.probe].silhouette[3], 'gray')).all()
    (v.ranking.probe.path(tmp_path/'sil')/'a.pkl').write_bytes(b'x')
    v = RetrievalExplorer.from_results(tmp_path, data=tmp_path/'sil')
    assert 'a.pkl' in v.notice.value and v.panels[0].image.value


def test_names_do_not_lead_out_of_the_tree(tmp_path):
    save_pickle(np.zeros((2, 64, 64), np.uint8), tmp_path/'secret'/'a'/'b'/'x.pkl')
    (tmp_path/'tree').mkdir()
    look_up = retrieval.tree_walks(tmp_path/'tree')
    for s in (
        Sequence('../secret', 'a', 'b'), Sequence('..', 'secret/a', 'b'), Sequence(str(tmp_path/'secret'), 'a', 'b'),
        Sequence('', '', '')):
        with pytest.raises(SkeletonGaitError, match='holds no sequence'):
            look_up(s)


def test_results_that_will_not_do(tmp_path):
    write_test(tmp_path)
    file = tmp_path/'results'/'run-00010.json'
    about = json.loads(file.read_text())
    for wrong, says in (
        ('{', 'not JSON'), ('[]', 'not the results of a test'),
        ('{"tables": [1], "protocol": {}, "metric": "euc"}', 'not the results of a test'),
        (json.dumps({**about, 'metric': 3}), 'metric is missing'),
        (json.dumps({**about, 'protocol': dict(galery={})}), 'did you mean gallery')):
        file.write_text(wrong)
        assert says in RetrievalExplorer.from_results(tmp_path).problem
    file.write_text(json.dumps(about))
    assert 'no such folder' in RetrievalExplorer.from_results(tmp_path, data=tmp_path/'nowhere').problem
    assert 'no results of a test' in RetrievalExplorer.from_results(tmp_path/'nowhere').problem
    embeddings_file(file).write_bytes(b'x')
    assert 'not a file of embeddings' in RetrievalExplorer.from_results(tmp_path).problem
    embeddings_file(file).unlink()
    (tmp_path/'results'/'run-00010-failures.csv').write_text('a,b\n1,2\n')
    assert 'not the failures of a test' in RetrievalExplorer.from_results(tmp_path).problem
    (tmp_path/'results'/'run-00010-failures.csv').write_text(failures_csv([]))
    assert 'no probe failed' in RetrievalExplorer.from_results(tmp_path).problem
    (tmp_path/'results'/'run-00010-failures.csv').unlink()
    assert 'set evaluator_cfg.save_embeddings: true' in RetrievalExplorer.from_results(tmp_path).problem


def test_failures_survive_the_disk(tmp_path):
    x, who = toy(noise=1.6)
    rows = failures(
        make_embedding_set(x, *who),
        GalleryProbe.from_dict({**CONDITIONS, 'tables': [dict(per='view_pair', measures=['R1'])]}))
    (tmp_path/'f.csv').write_text(failures_csv(rows))
    assert read_failures(tmp_path/'f.csv') == rows


def test_what_a_test_writes_can_be_explored(tmp_path, monkeypatch):
    """A real test of an untrained network, from poses drawn while loading.

    What it keeps says the same as its figures, and the last file is the JSON."""
    monkeypatch.chdir(tmp_path)
    write_walkers('.', n_subjects=5, n_train=1, types=('nm-01', 'bg-01'), views=('000', '090'), n_frames=6)
    cfg, _ = load_config('demo_skeletongait')
    d = cfg.data_cfg
    d.dataset_root, d.dataset_partition = 'pose', 'partition.json'
    d.render, d.data_in_use = {}, [True]
    d.num_workers = 0
    cfg.model_cfg.Backbone.channels = [8, 8, 16, 16]
    cfg.evaluator_cfg.protocol = dict(gallery=dict(types=['nm-01']), probe=dict(types=['bg-01']))
    torch.manual_seed(0)
    run = Run(cfg, 'output')
    results, _ = run_test(build_model(to_dict(cfg.model_cfg)), cfg, run, 7, Ranks(0, 1, 0))
    files = sorted((run.folder/'results').iterdir(), key=lambda f: f.stat().st_mtime_ns)
    assert embeddings_file(run.results(7)) == files[0] # figures first
    assert files[-2:] == [run.results(7), run.results(7).with_suffix('.png')]
    v = RetrievalExplorer.from_results(run.folder)
    assert not v.problem and v.notice.value == '' and v.n_frames == 6 and len(v.questions.n3) == 8
    assert v.questions.evaluate()['tables'] == results['tables']
    assert v.ranking.entries and decode(v.panels[0].image.value).shape == (64, 64, 3)


# what strangers' data holds

def test_names_are_no_formulas():
    x, (labels, types, views) = toy()
    v = RetrievalExplorer(x, [rf'a$\frac${s}' for s in labels], types, views, protocol=RULES)
    assert not v.problem and v.figure()


@pytest.mark.parametrize(
    'embeddings, says',
    [
        (None, 'embeddings: found NoneType'), (['a', 'b'], 'embeddings: found list'),
        ([[1, 2], [3]], 'embeddings: found rows of different lengths')])
def test_embeddings_that_are_none(embeddings, says):
    assert says in RetrievalExplorer(embeddings, *toy()[1], protocol=RULES).problem


def test_pictures_of_some_by_a_function():
    look_up, known = pictures(), {}
    x, who = toy()
    known.update({s: look_up(s) for s in map(Sequence, *who) if s.type.startswith('bg')})
    v = RetrievalExplorer(x, *who, pictures=lambda s: known[s], protocol=RULES)
    assert v.probe_panel.image.value and v.notice.value == '' and v.ranking is not None


@pytest.mark.parametrize(
    'change, says',
    [
        (dict(metric='x'), 'metric is x'), (dict(data_cfg=3), 'data_cfg is 3'),
        (dict(probe_names=3), 'probe_names is 3'),
        (dict(data_cfg=dict(dataset_root=3)), "data_cfg is {'dataset_root': 3}"), (dict(value='a'), 'tables is'),
        (dict(matrix=3), 'tables is'), (dict(probe_views=[3]), 'tables is')])
def test_results_of_other_kinds_are_a_message(tmp_path, change, says):
    write_test(tmp_path)
    path = tmp_path/'results'/'run-00010.json'
    o = json.loads(path.read_text())
    if change.keys() & {'value', 'matrix', 'probe_views'}:
        o['tables'][0] |= change
    else:
        o |= change
    path.write_text(json.dumps(o))
    v = RetrievalExplorer.from_results(tmp_path)
    assert says in v.problem and str(path) in v.problem
