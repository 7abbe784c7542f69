"Names that are hardly text: every step takes them, and every output that people or programs read can be read."
import ast
import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies as st
from scripts import ROOT
from toys import tiny, write_config

from skeletongait.viewers.browser import DatasetBrowser
from skeletongait.runs.folder import Run
from skeletongait.runs.config import load_config
from skeletongait.core import SkeletonGaitError, one_line
from skeletongait.files.tree import Sequence, read_tree
from skeletongait.files.text import save_text, unescaped
from skeletongait.data.loader import Batch
from skeletongait.evaluation.ranking import embeddings_file, plot_cmc, read_embeddings
from skeletongait.cli import printing_anything, run_script
from skeletongait.ln_sil_heatmap import ln_sil_heatmap
from skeletongait.main import main
from skeletongait.prepare.manifest import read_manifest
from skeletongait.viewers.monitor import TrainingMonitor
from skeletongait.pretreatment_heatmap import pretreatment_heatmap
from skeletongait.evaluation.protocols import GalleryProbe, PAIRS, evaluate
from skeletongait.evaluation.report import failures_csv, plot_results, write_results
from skeletongait.viewers.retrieval import RetrievalExplorer, named, read_failures, same_name
from skeletongait.pictures import figure_png, in_picture
from skeletongait.core import log
from skeletongait.walkers.datasets import write_walkers
from skeletongait.runs.watch import batch_picture, load_batch, read_scalars, save_batch
from skeletongait.runs.records import read_metrics

LONE = os.fsdecode(b'caf\xe9')
UGLY = [LONE, '张三', 'a$_$b', '_x', '50%', '{}', '<b>&', 'new\nline', '😀', '-dash', 'מִלָּה', 'a,"b', 'long'*40]
ODD = '$ {s} %d_😀' # conditions, runs and data sets are named too


def can_be_made(name, tmp_path):
    "Some file systems take no such name."
    try: (tmp_path/name).mkdir(parents=True)
    except (OSError, UnicodeError): return False
    return True


def write_tree(root, names):
    "A subject of each name, with two types and two views of such names; the subjects' partition."
    n = len(names)
    write_walkers(root, n_subjects=n, n_train=1, types=('nm-01', 'bg-01'), views=('000', '090'), n_frames=6)
    for kind in ('pose', 'silhouette'):
        for i, subject in enumerate(sorted(os.listdir(root/kind))):
            for t, (type, letter) in enumerate((('nm-01', 'g'), ('bg-01', 'p'))):
                for v, view in enumerate(('000', '090')):
                    folder = root/kind/subject/type
                    (folder/view).rename(folder/names[(2*i+v) % n])
                (root/kind/subject/type).rename(root/kind/subject/(letter + names[(i+t) % n]))
            (root/kind/subject).rename(root/kind/names[i])
    save_text(json.dumps(dict(TRAIN_SET=names[1::2], TEST_SET=names[::2])), root/'partition.json')


def settings(root, names):
    "A tiny run whose conditions, folder and data set have such names."
    cfg = tiny(root, total_iter=2, log_iter=1, save_iter=2, with_test=True, save_name=f'r {ODD}')
    e, gallery_probe = cfg.evaluator_cfg, dict(gallery=dict(types=['g*']), probe=dict(types=['p*']))
    cfg.model_cfg.SeparateBNNecks.class_num, cfg.data_cfg.dataset_name = len(names[1::2]), ODD
    e.save_name, e.restore_hint, e.save_embeddings = cfg.trainer_cfg.save_name, 2, True
    by_view = dict(per='view_pair', measures=['R1'], key='{condition}@{measure}')
    e.protocol = dict(exclude=['view'], conditions={'_x': gallery_probe, 'a$_$b': gallery_probe}, tables=[{}, by_view])
    return cfg


@pytest.fixture(scope='module')
def gone(tmp_path_factory):
    "The whole way in this process, below a folder of such a name, with streams that know few letters."
    place, names = tmp_path_factory.mktemp('names'), []
    names = [o for o in UGLY if can_be_made(o, place/'tried')]
    root = place/(f'{LONE} $x$' if LONE in names else '$x$')
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=e, write_through=True) for e in ('latin-1', 'ascii')]
    write_tree(root, names)
    out, err = streams
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        maps = [f'--pose_data_path={root}/pose', f'--save_root={root}/maps', f'--dataset_name={ODD}']
        codes = [run_script(pretreatment_heatmap, maps), run_script(pretreatment_heatmap, maps)]
        trees = [f'--heatmap_data_path={root}/maps/{ODD}_sigma_8.0_/pkl', f'--silhouette_data_path={root}/silhouette']
        codes.append(run_script(ln_sil_heatmap, [*trees, f'--output_path={root}/linked']))
        cfg = settings(root, names)
        write_config(cfg, root/'x.yaml')
        common = [f'--cfgs={root}/x.yaml', f'--output_root={root}/out', '--log_to_file']
        codes += [run_script(main, [*common, f'--phase={phase}']) for phase in ('train', 'test')]
    for h in log.handlers: h.close()
    log.handlers = []
    said = out.buffer.getvalue().decode('latin-1')
    assert codes == [0]*5, said + err.buffer.getvalue().decode()
    return root, names, Run(cfg, root/'out'), said


def test_all_is_drawn_linked_and_said(gone):
    root, names, run, said = gone
    assert f'{4*len(names)} files drawn, 0 failed' in said
    assert f'0 files drawn, 0 failed, {4*len(names)} were there already' in said
    assert f'{4*len(names)} sequences linked' in said
    maps = root/'maps'/f'{ODD}_sigma_8.0_'
    for f in (maps, root/'linked'): assert json.loads((f/'report.json').read_text(encoding='utf-8'))['failed'] == []
    poses = {'/'.join(s) for s in read_tree(root/'pose').sequences}
    assert {o.rpartition('/')[0] for o in read_manifest(maps).records} == poses
    assert {'/'.join(s) for s in read_tree(root/'linked').sequences} == poses
    for part in ('\\u5f20\\u4e09', 'new\\nline', 'a$_$b', '\\U0001f600'): assert part in said


def test_every_text_is_utf8_and_every_table_is_whole(gone):
    root, names, run, said = gone
    texts = [f for f in root.rglob('*') if f.suffix in ('.csv', '.json', '.jsonl', '.yaml', '.txt')]
    assert {f.suffix for f in texts} == {'.csv', '.json', '.jsonl', '.yaml', '.txt'}
    for f in texts: f.read_bytes().decode('utf-8')
    tested = {s for s in read_tree(root/'pose').sequences if s.subject in names[::2]}
    with open(run.results(2).with_suffix('.csv'), newline='', encoding='utf-8') as f: rows = list(csv.DictReader(f))
    assert {o['condition'] for o in rows} == {'_x', 'a$_$b'}
    assert all(None not in o and None not in o.values() for o in rows)
    views = {s.view for s in tested}
    assert {unescaped(o['probe_view']) for o in rows} - {''} == views
    assert json.loads(run.results(2).read_text(encoding='utf-8'))['tables'][-1]['gallery_views'] == sorted(views)
    failed = read_failures(run.results(2).with_name(f'{run.results(2).stem}-failures.csv'))
    assert failed and {o[k] for o in failed for k in ('probe', 'right')} <= set(map(str, tested))
    assert set(read_embeddings(embeddings_file(run.results(2))).sequences) == tested


def test_pictures_logs_and_curves_are_there(gone):
    root, names, run, said = gone
    assert plt.imread(io.BytesIO(run.results(2).with_suffix('.png').read_bytes())).ndim == 3
    logs = sorted((run.folder/'logs').iterdir())
    assert 'new\\nline' in logs[0].read_text(encoding='utf-8') and '张三' in logs[0].read_text(encoding='utf-8')
    assert [o['iteration'] for o in read_metrics(run.metrics) if 'test' in o] == [2]
    curves = read_scalars(run.summary)
    assert {'triplet/loss', 'test/_x Rank-1', 'test/a$_$b@R1'} <= curves.keys()
    assert load_config(run.config)[0].data_cfg.dataset_root == str(root/'linked')


def widgets(w):
    yield w
    for child in getattr(w, 'children', ()): yield from widgets(child)


def readable(viewer):
    "A viewer without a problem, all of whose messages a browser can read."
    assert not viewer.problem and not viewer.notice.value
    for v in [v for w in widgets(viewer) for v in w.get_state().values()]:
        for o in v if isinstance(v, (list, tuple)) else [v]:
            if isinstance(o, str): o.encode()
    return viewer


def looked_at(viewer):
    "The same, drawn in every way."
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        viewer._repr_mimebundle_()['text/plain'].encode()
        assert viewer.snapshot(0).dtype == np.uint8
    return readable(viewer)


@pytest.mark.parametrize('parts', [['linked'], ['pose', 'silhouette']])
def test_browser(gone, parts):
    root, names, run, said = gone
    browser = looked_at(DatasetBrowser.from_folder(*(root/p for p in parts), partition=root/'partition.json'))
    assert sorted(n for _, n in browser.subject.options) == sorted(names)
    for name in names:
        browser.subject.value = name
        assert readable(browser).sequence.value.subject == name
    browser.open_sequence()
    assert not [w for w in widgets(browser) if type(w).__name__ == 'HTML' and '<b>&' in w.value]
    browser.find.value = 'new\\nline'
    assert browser.subject.value == 'new\nline'


def test_monitor(gone):
    root, names, run, said = gone
    looked_at(TrainingMonitor.from_folders(run.folder, follow=False))
    records = read_metrics(run.metrics)
    viewer = readable(TrainingMonitor({o: records for o in names}))
    legend = next(o for o in viewer.figure().legends if len(o.get_texts()) == len(names))
    assert [o.get_text().split(':')[0] for o in legend.get_texts()] == [one_line(o) for o in names]


@pytest.mark.parametrize('kept', [True, False])
def test_retrieval(gone, kept, tmp_path):
    "With embeddings, and with the list of failures alone, whose names have to be cut into subject, type and view."
    root, names, run, said = gone
    shutil.copytree(run.folder/'results', tmp_path/'results')
    if not kept: embeddings_file(tmp_path/'results'/run.results(2).name).unlink()
    viewer = looked_at(RetrievalExplorer.from_results(tmp_path/'results'))
    seen = set()
    for n in range(1, len(viewer.list)+1):
        viewer.position.value = n
        assert not viewer.notice.value and all(viewer.walks.values())
        seen.add(str(viewer.ranking.probe))
    assert seen and seen <= {str(s) for s in read_tree(root/'pose').sequences}
    for subject in viewer.subject.options:
        viewer.subject.value = subject
        assert not viewer.notice.value
    looked_at(viewer)


def test_a_type_may_be_called_all():
    columns = zip(*[(s, t, v) for s in 'ab' for t in ('all', 'b') for v in 'vw'])
    x, protocol = np.random.default_rng(0).normal(size=(8, 4, 2)), dict(gallery=dict(views='w'), probe=dict(views='v'))
    viewer = RetrievalExplorer(x, *columns, protocol=protocol)
    viewer.which.value = 'all probes'
    n = len(viewer.list)
    viewer.type.index = 1
    probes = viewer.questions.n3[viewer.list, 1]
    assert viewer.type.label == 'all' and len(viewer.list) == n//2
    assert {viewer.questions.sequences[i].type for i in probes} == {'all'}


@given(st.lists(st.text('a-', min_size=1, max_size=4), min_size=3, max_size=3))
def test_a_name_is_cut_in_all_ways(parts):
    s = Sequence(*parts)
    ways = list(same_name(named(str(s))))
    assert s in ways and {str(o) for o in ways} == {str(s)}


@pytest.mark.parametrize('name', UGLY, ids=ascii)
def test_picture_of_a_batch(name, tmp_path):
    s = f'{name}-{name}-{name}'
    batch = Batch(torch.zeros(1, 2, 1, 64, 44), None, torch.tensor([0]), [name], [name], [s], 1)
    assert batch_picture(batch).any() and batch_picture(batch).shape[0] == 64+14
    cfg, _ = load_config('demo_skeletongait')
    assert load_batch(save_batch(Run(cfg, tmp_path), batch, 1, 0, f'of {name}'))[0].names == [s]


def scores(names):
    "Results by view and by condition, of subjects, types and views of such names."
    conditions = {o: {'probe': {'types': 'p'}} for o in names[:3]}
    protocol = GalleryProbe(gallery={'types': 'g'}, conditions=conditions, tables=({}, PAIRS))
    columns = zip(*[(s, t, v) for s in 'abc' for t in 'gp' for v in names])
    return evaluate(np.random.default_rng(0).normal(size=(6*len(names), 4, 2)), *columns, protocol)


@pytest.mark.parametrize('usetex', [False, True])
@pytest.mark.parametrize('names', [UGLY[k:k+4] for k in range(0, len(UGLY), 4)], ids=ascii)
def test_pictures_take_names_as_text(names, usetex, tmp_path):
    "Whatever a reader's own settings of matplotlib are, and without a warning."
    with matplotlib.rc_context({'text.usetex': usetex}), warnings.catch_warnings():
        warnings.simplefilter('error')
        written = write_results(tmp_path/'r', scores(names), dict(dataset=names[0], metric='euc', iteration=1))
    assert [f.suffix for f in written] == ['.csv', '.png', '.json']
    assert (tmp_path/'r.png').read_bytes()[:4] == b'\x89PNG'


def test_ticks_titles_and_legends_say_the_names(tmp_path):
    names = ['_x', 'a$_$b', '$\\frac{$']
    fig = plot_results(scores(names), title='$t_$')
    said = {o.get_text() for o in fig.findobj(matplotlib.text.Text) if not o.get_parse_math()}
    assert {*names, '$t_$'} <= said and {f'{o}: rank-1' for o in names} <= {o.rsplit(' ', 2)[0] for o in said}
    plt.close(fig)
    fig = plot_cmc({o: {'cmc': [50., 60.]} for o in UGLY}, max_rank=2)
    said = fig.axes[0].get_legend().get_texts()
    assert [o.get_text().split(': rank-1')[0] for o in said] == [in_picture(o) for o in UGLY]
    assert figure_png(fig)


def test_figures_are_safe_from_their_picture(monkeypatch, tmp_path):
    "Whatever keeps a picture from being drawn: tables and JSON are there, and no picture of another test beside them."
    results = scores(['a', 'b'])
    write_results(tmp_path/'r', results, failed=[])
    (tmp_path/'r.json').unlink()
    def broken(*args): raise ValueError('no picture today')
    monkeypatch.setattr('skeletongait.evaluation.report.plot_results', broken)
    with pytest.raises(ValueError, match='no picture today'): write_results(tmp_path/'r', results, failed=[])
    assert {f.name for f in tmp_path.iterdir()} == {'r.csv', 'r-failures.csv', 'r.json'}
    assert json.loads((tmp_path/'r.json').read_text(encoding='utf-8'))['tables'] == results['tables']


@given(st.text(st.characters(codec=None) | st.sampled_from('\ud800\udc80\udce9\udfff\x1b\u202e'), max_size=12))
@example(LONE)
def test_printed_lines(text):
    line = one_line(text)
    assert line.isprintable() and one_line(line) == line and len(line.encode().splitlines()) <= 1
    assert len(in_picture(text*9)) <= 40


@given(st.text(st.sampled_from('a\\u5\n😀\udce9\udc80é'), max_size=12).filter(lambda o: '\\ud' not in o))
def test_saved_text_comes_back(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp()/'saved.txt'
    save_text(text, path)
    assert unescaped(path.read_bytes().decode('utf-8')) == text


@given(st.lists(st.sampled_from([*UGLY, 'a\rb', "'", ';', ' x ']), min_size=4, max_size=4))
def test_failures_come_back(tmp_path_factory, names):
    path, (condition, probe, view, right) = tmp_path_factory.getbasetemp()/'x-failures.csv', names
    before = [dict(sequence=right, distance=.25)]
    right_one = dict(rank=2, right=right, right_distance=.5, before=before)
    rows = [dict(condition=condition, probe=probe, gallery_view=view, **right_one)]
    save_text(failures_csv(rows), path)
    assert read_failures(path) == rows


@pytest.mark.parametrize('encoding', ['latin-1', 'ascii', 'cp1252', 'utf-8', 'shift_jis'])
def test_any_stream(encoding):
    def says(text:str): # What to say
        "Say it, and something with é in a help."
        print(text)
        return 0
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with contextlib.redirect_stdout(out):
        for name in UGLY: assert run_script(says, [f'--text={name}']) == 0
        with pytest.raises(SystemExit) as e: run_script(says, ['-h'])
        out.flush()
    assert e.value.code == 0 and out.errors == 'strict'
    said = out.buffer.getvalue().decode(encoding)
    assert said.splitlines()[0] == 'caf\\udce9' and 'in a help' in said


def test_streams_without_an_encoding():
    "Not every stdout is a terminal's."
    for stream in (io.StringIO(), None):
        with contextlib.redirect_stdout(stream), printing_anything(): print(LONE)


def test_errors_are_one_line_whatever_the_name(capsys, tmp_path):
    trees = [f'--heatmap_data_path={tmp_path}/a\nb\x1b[2J', f'--silhouette_data_path={tmp_path}/s']
    assert run_script(ln_sil_heatmap, [*trees, f'--output_path={tmp_path}/o']) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and '\x1b' not in said and 'a\\nb\\x1b[2J: no such folder' in said


def test_a_setting_may_be_any_path():
    for name in UGLY[:6]:
        cfg, _ = load_config('demo_skeletongait', [f'data_cfg.dataset_root=/x/{name}'])
        assert cfg.data_cfg.dataset_root == f'/x/{name}'


def test_every_text_file_names_its_encoding():
    "What a file holds must not depend on the machine that wrote it."
    wrong = []
    for path in sorted((ROOT/'skeletongait').rglob('*.py')):
        calls = [o for o in ast.walk(ast.parse(path.read_text(encoding='utf-8'))) if isinstance(o, ast.Call)]
        unnamed = [o for o in calls if takes_text(o) and 'encoding' not in [k.arg for k in o.keywords]]
        wrong += [f'{path.name}:{o.lineno}' for o in unnamed]
    assert not wrong


def takes_text(call):
    "Does a call open a text file?"
    if isinstance(call.func, ast.Attribute): return call.func.attr in ('read_text', 'write_text')
    mode = [o.value for o in call.args[1:2] if isinstance(o, ast.Constant)]
    return getattr(call.func, 'id', '') == 'open' and 'b' not in ''.join(mode)


@pytest.mark.slow
@pytest.mark.parametrize('encoding', ['latin-1', 'ascii', 'cp1252'])
def test_scripts_under_any_encoding(encoding, tmp_path):
    "As a batch system starts them, from poses to results."
    names = [o for o in ('张三', LONE, 'a$_$b', '😀') if can_be_made(o, tmp_path/'tried')]
    write_tree(tmp_path, names)
    write_config(settings(tmp_path, names), tmp_path/'x.yaml')
    trees = dict(heatmap_data_path='maps/W_sigma_8.0_/pkl', silhouette_data_path='silhouette', output_path='linked')
    linked = [f'--{k}={tmp_path}/{v}' for k, v in trees.items()]
    env = {**os.environ, 'PYTHONIOENCODING': encoding, 'OMP_NUM_THREADS': '1'}
    maps = f'--pose_data_path={tmp_path}/pose', f'--save_root={tmp_path}/maps', '--dataset_name=W'
    for name, *args in (('pretreatment_heatmap', *maps),
                        ('ln_sil_heatmap', *linked), ('main', '-h'),
                        ('main', f'--cfgs={tmp_path}/x.yaml', '--phase=train', '--log_to_file'),
                        ('main', f'--cfgs={tmp_path}/x.yaml', '--phase=test')):
        command = [sys.executable, '-m', f'skeletongait.{name}', *args]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300, env=env)
        assert done.returncode == 0 and b'Traceback' not in done.stderr, done.stderr[-2000:]
    results, = tmp_path.rglob('results')
    assert {f.suffix for f in results.iterdir()} == {'.csv', '.json', '.png', '.npz'}


def test_what_an_error_lists_stands_on_lines_of_its_own(capsys):
    def script():
        "Fails."
        raise SkeletonGaitError('a\nb: not ready:\n  first\n  second')
    assert run_script(script, []) == 2
    assert capsys.readouterr().err == 'script: a\\nb: not ready:\n  first\n  second\n'
