"What a protocol's rules leave to score is known from names alone, and reported before any work."
import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from toys import tiny, write_config

from skeletongait.runs.folder import Run
from skeletongait.files.tree import Sequence
from skeletongait.core import SkeletonGaitError
from skeletongait.files.text import save_text
from skeletongait.evaluation.ranking import make_embedding_set, score_galleries
from skeletongait.cli import run_script
from skeletongait.main import main
from skeletongait.evaluation.protocols import PROTOCOLS, GalleryProbe, Split, reach

pytestmark = pytest.mark.usefixtures('quiet_log')


def walks(subjects='ab', types=('nm', 'bg'),
          views=('000', '090')): return list(map(Sequence._make, product(subjects, types, views)))


PAIR = dict(gallery={'types': 'nm'}, probe={'types': 'bg'})


def embedded(sequences):
    x = np.random.default_rng(0).normal(size=(len(sequences), 3, 2)).astype(np.float32)
    return make_embedding_set(x, *zip(*sequences))


# Counting from names

some = st.lists(st.builds(Sequence, *[st.sampled_from(o) for o in ('abc', ('nm', 'bg'), ('000', '090'))]), min_size=2,
                max_size=14)

@given(some, st.integers(1, 13), st.lists(st.sampled_from(Sequence._fields), unique=True).map(tuple))
@settings(deadline=None, max_examples=60)
def test_counts_from_names_are_those_of_the_scores(sequences, n, exclude):
    n = min(n, len(sequences) - 1)
    s = Split(None, np.arange(n), np.arange(n, len(sequences)))
    scores, r = score_galleries(embedded(sequences), s.probe, [s.gallery],
                                exclude=exclude), reach(s, sequences, exclude)
    assert (r.among == scores.among[:, 0].numpy()).all()
    assert ((r.own > 0) == np.isfinite(scores.first[:, 0].numpy())).all()


# Nothing to score

@pytest.mark.parametrize('protocol, sequences, says', [
    (GalleryProbe(**PAIR, exclude='view'), walks(views=['090']),
     "^exclude \\[view\\]: nothing to score: 2 probes and 2 gallery sequences are chosen, "
     "but none of the probes keeps a gallery sequence of its own subject; "
     "the test set has 4 sequences like a-nm-090, types bg, nm, views 090; change what is excluded"),
    (GalleryProbe(**PAIR, exclude=('subject',)), walks(),
     '^exclude \\[subject\\]: nothing to score: 4 probes and 4 gallery'),
    (GalleryProbe(**PAIR, tables=[{'exclude': ['view']}]), walks(views=['090']),
     '^tables\\[0\\].exclude \\[view\\]: nothing to score'),
    (GalleryProbe({'types': 'nm'}, {'types': 'cl'}), walks(),
        "^probe: no test sequence is chosen by the rule {'types': \\['cl'\\]}; "
         "the test set has 8 sequences .* types bg, nm, views 000, 090"),
    (GalleryProbe({'types': 'nm'}, conditions={'CL': {'probe': {'types': 'cl'}}}), walks(),
     "^conditions.CL.probe: no test sequence is chosen by the rule {'types': \\['cl'\\]}"),
    (GalleryProbe({'types': 'cl'}, {'types': 'bg'}), walks(),
     "^gallery: no test sequence is chosen by the rule {'types': \\['cl'\\]}")])
def test_nothing_to_score_names_the_rule(protocol, sequences, says):
    with pytest.raises(SkeletonGaitError, match=says) as e:
        protocol.gaps(sequences)
    assert '\n' not in str(e.value)


def test_probes_that_nobody_has_labelled_are_a_warning():
    "They can be ranked, so that a test of them is not refused."
    first, *others = GalleryProbe({'subjects': 'a'}, {'subjects': 'b'}).gaps(walks())
    assert first.startswith('none of the 4 probes has its subject in the gallery: they are ranked, but there is '
                            'nothing to score;') and 'types bg, nm' in first
    assert others == ['4 of 4 probes have no match in the gallery: left out']


def test_rules_without_gaps(): assert GalleryProbe(**PAIR, exclude='view').gaps(walks()) == []


def test_one_scored_value_is_enough():
    "One table of a single view has percentages, the other has none, which is reported."
    sequences = walks(types=('U0_D0', 'U0_D0_BG', 'U3_D3', 'U0_D3', 'U1_D0', 'U1_D1'), views=['01_a'])
    gaps = PROTOCOLS['CCPG'].gaps(sequences)
    assert 'UP: R1: only one view, 01: no cross-view figure' in gaps
    notes = PROTOCOLS['CCPG'].results(embedded(sequences))['notes']
    assert set(notes) <= set(gaps)  # beside the patterns that match nothing


# Something is left out

@pytest.mark.parametrize('protocol, sequences, says', [
    (GalleryProbe({'types': 'nm'}, conditions={'BG': {'probe': {'types': 'bg'}}, 'CL': {'probe': {'types': 'cl'}}}),
     walks(),
     ['conditions.CL.probe.types: cl matches nothing; the test set has types bg, nm',
      'CL: not evaluated, the test set has no probe for it']),
    (GalleryProbe({'types': 'nm'}, {'types': ['bg', 'cl-*']}), walks(),
     ['probe.types: cl-* matches nothing; the test set has types bg, nm']),
    (GalleryProbe(**PAIR), [*walks(), Sequence('c', 'bg', '000')],
     ['1 of 5 probes have no match in the gallery: left out']),
    (GalleryProbe(**PAIR, exclude='view'), [*walks(views=['090']), Sequence('a', 'bg', '000')],
     ['2 of 3 probes have no gallery sequence left after exclusions: left out']),
    (GalleryProbe(**PAIR, tables=[{'per': 'view_pair', 'measures': ['R1'], 'exclude': ['view']}]),
     [*walks(views=['090']), Sequence('a', 'bg', '000')],
     ['2 of 3 probes have no gallery sequence left after exclusions: left out',
      'no gallery sequence from view 000; left out of the mean',
      'no gallery sequence left for the probes from view 090; left out of the mean'])])
def test_what_is_left_out_is_reported(protocol, sequences, says):
    "The same before the work and with the results; patterns before it only."
    assert protocol.gaps(sequences) == says
    assert protocol.results(embedded(sequences))['notes'] == [o for o in says if 'matches nothing' not in o]


def test_many_types_are_cut_short():
    with pytest.raises(SkeletonGaitError, match=r'types t0, t1, t10, t11, t12, t13, t14, t15, \.\.\., views'):
        GalleryProbe({'types': 'nm'}, {'types': 'x'}).gaps(walks(types=[f't{i}' for i in range(20)]))


# By the script


def go(cfg, out, phase, capfd, name='run.yaml'):
    code = run_script(main, [f'--cfgs={write_config(cfg, out/name)}', f'--phase={phase}', f'--output_root={out}'])
    return code, ''.join(capfd.readouterr())


def one_camera(walkers, out, **trainer):
    "The test subjects as one camera sees them; of the others all."
    root = out/'data'
    for old in (walkers/'linked').glob('*/*/*'):
        if old.parts[-3] in ('004', '005') and old.name == '000':
            continue
        new = root/old.relative_to(walkers/'linked')
        new.parent.mkdir(parents=True, exist_ok=True)
        new.symlink_to(old)
    cfg = tiny(walkers, total_iter=2, save_iter=2, **trainer)
    cfg.data_cfg.dataset_root = str(root)
    return cfg


@pytest.mark.parametrize('phase, trainer', [('train', {}), ('train', dict(with_test=True)), ('test', {})])
def test_one_camera_and_views_excluded(walkers, tmp_path, capfd, phase, trainer):
    cfg = one_camera(walkers, tmp_path, **trainer)
    cfg.evaluator_cfg.restore_hint = 0
    code, text = go(cfg, tmp_path, phase, capfd)
    assert code == 2
    assert 'evaluator_cfg.protocol: exclude [view]: nothing to score' in text
    assert '2 probes and 2 gallery sequences are chosen' in text
    assert 'views 090' in text and not list(tmp_path.rglob('*.pt')) + list(tmp_path.rglob('*.json'))


@pytest.mark.parametrize('with_test', [False, True])
def test_a_probe_pattern_that_matches_nothing(walkers, tmp_path, capfd, with_test):
    cfg = tiny(walkers, total_iter=2, save_iter=2, with_test=with_test)
    cfg.evaluator_cfg.protocol['probe'] = dict(types=['bg-02'])
    code, text = go(cfg, tmp_path, 'train', capfd)
    assert code == 2
    assert "evaluator_cfg.protocol: probe: no test sequence is chosen by the rule {'types': ['bg-02']}" in text
    assert 'types bg-01, nm-01' in text
    assert ('leave TEST_SET in the partition file empty' in text) == (not with_test)
    assert not list(tmp_path.rglob('*.pt'))


def test_part_of_a_rule_is_a_warning(walkers, tmp_path, capfd):
    cfg = tiny(walkers, total_iter=2, save_iter=2)
    cfg.evaluator_cfg.protocol['probe'] = dict(types=['bg-01', 'cl-01'])
    code, text = go(cfg, tmp_path, 'train', capfd)
    assert code == 0
    assert text.count('evaluator_cfg.protocol: probe.types: cl-01 matches nothing') == 1
    assert Run(cfg, tmp_path).checkpoint(2).exists()


def without_test_set(walkers, tmp_path, cfg):
    d = json.loads((walkers/'partition.json').read_text())
    save_text(json.dumps(d | {'TEST_SET': []}), tmp_path/'p.json')
    cfg.data_cfg.dataset_partition = str(tmp_path/'p.json')


def test_no_test_set_trains(walkers, tmp_path, capfd):
    cfg = tiny(walkers, total_iter=2, save_iter=2)
    cfg.evaluator_cfg.protocol['probe'] = dict(types=['bg-02'])
    without_test_set(walkers, tmp_path, cfg)
    code, text = go(cfg, tmp_path, 'train', capfd)
    assert code == 0 and 'warning: no test subject has data' in text


def test_no_protocol_trains(walkers, tmp_path, capfd):
    cfg = tiny(walkers, total_iter=2, save_iter=2)
    cfg.evaluator_cfg.protocol, cfg.evaluator_cfg.eval_func = None, 'evaluate_indoor_dataset'
    code, text = go(cfg, tmp_path, 'train', capfd)
    assert code == 0 and 'a test will need other settings: evaluate_indoor_dataset: data set' in text


def test_an_empty_list_of_failures_says_what_it_means(walkers, tmp_path, capfd):
    "The first table has nobody to find, the second has."
    cfg = one_camera(walkers, tmp_path)
    cfg.evaluator_cfg.restore_hint = 0
    cfg.evaluator_cfg.protocol = dict(gallery=dict(types=['nm-01']), probe=dict(types=['bg-01']),
                                      tables=[dict(exclude=['view'], key='far {measure}'), dict(key='near {measure}')])
    code, text = go(cfg, tmp_path, 'test', capfd)
    assert code == 0 and 'no probe of the first table has a match' in text and 'no probe failed' not in text
    assert 'far: 2 of 2 probes have no gallery sequence left after exclusions' in text
