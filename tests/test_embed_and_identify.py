"Who is it? The commands as a user starts them: train for two steps, embed, ask; names come out, a stranger gets none."
import csv
import json
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from processes import ENV
from puppets import Puppet, write_video
from scripts import start
from toys import tiny, write_config

from skeletongait.cli import run_script
from skeletongait.evaluation.identify import load_gallery
from skeletongait.core import save_pickle
from skeletongait.estimation import blazepose
from skeletongait.estimation.clips import find_walks, read_video
from skeletongait.files.arrays import load_pickle
from skeletongait.identify import identify
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.runs.trained import load_run
from skeletongait.walkers.datasets import write_walkers


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A run that draws maps of poses, after two steps; eight people are enrolled, `clips` holds what nobody labelled."
    root = tmp_path_factory.mktemp('who')
    write_walkers(root, n_subjects=12, n_train=4, types=('nm-01', 'nm-02', 'bg-01'), views=('090',), n_frames=10)
    cfg = tiny(root, total_iter=2, save_iter=2)
    cfg.data_cfg.dataset_root, cfg.data_cfg.render, cfg.data_cfg.data_in_use = str(root/'pose'), {}, [True]
    cfg.evaluator_cfg.protocol = dict(gallery=dict(types=['nm-01']), probe=dict(types=['bg-01']))
    done = start('python -m', 'main', f'--cfgs={write_config(cfg, root/"x.yaml")}', '--phase=train', cwd=root)
    assert done.returncode == 0, done.stderr
    for subject in range(4, 12):
        for type in ('nm-01', 'nm-02'):
            shutil.copytree(root/f'pose/{subject:03d}/{type}', root/f'people/{subject:03d}/{type}')
    (root/'clips').mkdir()
    shutil.copy(root/'people/005/nm-01/090/090.pkl', root/'clips/known.pkl')
    np.save(root/'clips/stranger.npy', np.random.default_rng(0).uniform(0, 100, (10, 17, 3)).astype(np.float32))
    return root


RUN = '--checkpoint=output/Walkers/SkeletonGait/demo'


@pytest.fixture(scope='module')
def gallery(place):
    done = start('python -m', 'embed', 'people', RUN, '--save=people.npz', cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '16 sequences of 8 subjects in people.npz\n'
    return place/'people.npz'


def ask(place, *argv):
    return start('python -m', 'identify', RUN, *argv, cwd=place)


def test_embed(place, gallery):
    "The embeddings of the run, for whoever reads the file."
    trained = load_run(place/'output/Walkers/SkeletonGait/demo')
    kept = load_gallery(gallery, trained.about())
    again = trained.embed([s.path(place/'people') for s in kept.test.sequences])
    np.testing.assert_allclose(kept.test.embeddings, again, rtol=0, atol=1e-5*again.abs().max().item())


def test_a_name_comes_out(place, gallery):
    done = ask(place, '--gallery=people.npz', '--probe=clips/known.pkl', '--far=0.1', '--top=3', '--save=a/known')
    assert done.returncode == 0, done.stderr
    head, first, second, third, *promise, files = done.stdout.splitlines()
    assert head.split() == ['probe', 'rank', 'name', 'distance', 'nearest', 'sequence', 'verdict']
    assert first.split() == ['clips/known.pkl', '1', '005', '0', '005-nm-01-090', '005']
    assert second.split()[0] == '2' and third.split()[0] == '3'
    assert 'chosen on 112 pairs of different enrolled people at a false-accept rate of 10 %.' in promise[0]
    assert 'With 8 people enrolled, expect about ' in promise[2] and len(promise) == 4
    assert files == 'a/known.csv, a/known.json'
    rows = [*csv.DictReader((place/'a/known.csv').open())]
    said = json.loads((place/'a/known.json').read_text())
    assert [row['name'] for row in rows] == [o['name'] for o in said['probes'][0]['ranked']] and len(rows) == 3
    assert said['probes'][0]['verdict'] == '005' and said['about']['iteration'] == 2 and said['failed'] == {}
    assert said['threshold']['false_accepts'] <= 11 and said['threshold']['people'] == 8


def test_a_stranger_gets_no_name(place, gallery):
    done = ask(place, '--gallery=people.npz', '--probe=clips/stranger.npy', '--far=0.05', '--save=stranger')
    assert done.returncode == 0, done.stderr
    assert json.loads((place/'stranger.json').read_text())['probes'][0]['verdict'] == 'nobody of these'


def test_a_ranking_without_a_verdict(place, gallery):
    done = ask(place, '--gallery=people.npz', '--probe=clips/known.pkl', '--save=b/ranked')
    assert done.returncode == 0 and 'verdict' not in done.stdout and 'threshold' not in done.stdout
    said = json.loads((place/'b/ranked.json').read_text())
    assert said['threshold'] is None and said['probes'][0]['verdict'] is None


def test_answers_of_an_earlier_run_stay(place, gallery, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = [f'--checkpoint={place}/output/Walkers/SkeletonGait/demo', f'--gallery={gallery}',
            f'--probe={place}/clips/known.pkl']
    for _ in range(3):
        assert run_script(identify, argv) == 0
    files = sorted(str(o) for o in (tmp_path/'output').iterdir() if o.suffix == '.csv')
    assert [o.rsplit('/', 1)[1] for o in files] == ['identified-2.csv', 'identified-3.csv', 'identified.csv']
    assert capsys.readouterr().out.splitlines()[-1] == 'output/identified-3.csv, output/identified-3.json'
    before = (tmp_path/'output/identified.csv').read_bytes()
    assert run_script(identify, [*argv, '--save=output/identified']) == 2
    says = '--save=output/identified: would replace output/identified.csv and output/identified.json; choose another'
    assert says in capsys.readouterr().err
    assert (tmp_path/'output/identified.csv').read_bytes() == before
    assert len([*(tmp_path/'output').iterdir()]) == 6


def test_a_tree_is_enrolled_without_the_probe(place):
    "The walk that is asked about lies in the tree of those one knows."
    done = ask(place, '--gallery=people', '--probe=people/005/nm-01', '--save=c/own')
    assert done.returncode == 0, done.stderr
    assert 'people: 1 of 16 sequences are probes, and not enrolled' in done.stdout
    ranked = json.loads((place/'c/own.json').read_text())['probes'][0]['ranked']
    assert ranked[0]['distance'] > 0 and '005-nm-01-090' not in [o['sequence'] for o in ranked]


def test_maps_are_taken_as_they_are(place, gallery):
    "Of the same walk, drawn before: the same person, at nearly no distance."
    np.save(place/'clips/maps.npy', pose_to_heatmap(load_pickle(place/'clips/known.pkl')))
    done = ask(place, '--gallery=people.npz', '--probe=clips/maps.npy', '--save=maps')
    assert done.returncode == 0, done.stderr
    first = json.loads((place/'maps.json').read_text())['probes'][0]['ranked'][0]
    assert first['name'] == '005' and first['distance'] < 1e-4


def test_damaged_clips_are_listed(place, gallery):
    clips = place/'some'
    for i, content in enumerate((b'damaged', (place/'clips/known.pkl').read_bytes())):
        (clips/str(i)).mkdir(parents=True)
        (clips/str(i)/'x.pkl').write_bytes(content)
    done = ask(place, '--gallery=people.npz', '--probe=some', '--save=some-answers')
    assert done.returncode == 1 and '1 of 2 sequences are not embedded:' in done.stdout
    said = json.loads((place/'some-answers.json').read_text())
    assert list(said['failed']) == ['some/0'] and [o['probe'] for o in said['probes']] == ['some/1']


@pytest.mark.parametrize('argv, says', [
    (['--gallery=people.npz', '--probe=clips/known.pkl', '--far=0.001'],
     'rate of false accepts 0.001: found 112 comparisons of different people, expected at least 1000'),
    (['--gallery=people', '--probe=clips/known.pkl', '--far=0.001'], 'found 112 comparisons of different people'),
    (['--gallery=people.npz', '--probe=nowhere'], 'nowhere: no such file or folder'),
    (['--gallery=people.npz', '--probe=clips/known.pkl', '--set=evaluator_cfg.metric=cos'],
     'people.npz: these embeddings cannot be compared with those of this run: metric "euc" there, "cos" here'),
    (['--gallery=nothing.npz', '--probe=clips/known.pkl'], 'nothing.npz: cannot be read'),
    (['--gallery=people', '--probe=people'], 'people: all 16 sequences are probes; expected people to compare with'),
    (['--gallery=people.npz', '--probe=clips/known.pkl', '--top=0'], '--top: found 0, expected 1 or more')])
def test_mistakes_are_one_line(place, gallery, argv, says, monkeypatch, capfd):
    monkeypatch.chdir(place)
    assert run_script(identify, [RUN, *argv, '--save=wrong']) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith('identify: ')]
    assert len(lines) == 1 and says in lines[0] and not [*place.glob('wrong*')]


def test_another_checkpoint_is_refused(place, gallery):
    "The same network after other steps."
    done = start('python -m', 'main', '--cfgs=x.yaml', '--phase=train', '--output_root=longer',
                 '--set=trainer_cfg.total_iter=3', '--set=trainer_cfg.save_iter=3', cwd=place)
    assert done.returncode == 0, done.stderr
    done = start('python -m', 'identify', '--checkpoint=longer/Walkers/SkeletonGait/demo', '--gallery=people.npz',
                 '--probe=clips/known.pkl', cwd=place)
    assert done.returncode == 2 and 'cannot be compared with those of this run: weights' in done.stderr


@pytest.fixture
def estimator(monkeypatch):
    "Stands in for the networks."
    puppet = Puppet()
    monkeypatch.setattr(blazepose, 'BlazePose', lambda: puppet)
    return puppet


def names_of(file):
    return [o['probe'] for o in json.loads(file.read_text())['probes']]


@pytest.mark.parametrize('people, names', [
    ([(160, 120)], ['clip']),
    ([(80, 120), (240, 120)], ['clip-1', 'clip-2'])])
def test_everybody_in_a_video_is_a_probe(place, gallery, tmp_path, estimator, monkeypatch, capsys, people, names):
    "Drawn by the settings of the run, as the same poses in files are."
    monkeypatch.chdir(place)
    estimator.places = people
    clip = write_video(tmp_path/'clip.avi')
    argv = [RUN, '--gallery=people.npz', '--far=0.1', f'--save={tmp_path}/found']
    assert run_script(identify, [*argv, f'--probe={clip}']) == 0
    out = capsys.readouterr()
    assert names_of(tmp_path/'found.json') == names and 'published settings' not in out.err
    for name, walk in zip(names, find_walks(clip, estimator).walks, strict=True):
        save_pickle(walk.pose, tmp_path/f'poses/{name}/x.pkl')
    assert run_script(identify, [*argv[:-1], f'--save={tmp_path}/files', f'--probe={tmp_path}/poses']) == 0
    video, files = (json.loads((tmp_path/f'{o}.json').read_text()) for o in ('found', 'files'))
    told = [o['ranked'] for o in video['probes']]
    assert told == sorted((o['ranked'] for o in files['probes']), key=told.index) and video['about'] == files['about']


def test_nobody_in_a_video_is_one_line(place, gallery, tmp_path, estimator, monkeypatch, capsys):
    monkeypatch.chdir(place)
    clip = write_video(tmp_path/'clip.avi')
    assert run_script(identify, [RUN, '--gallery=people.npz', f'--probe={clip}', f'--save={tmp_path}/found']) == 2
    assert f'{clip}: nobody is completely visible in 15 frames or more' in capsys.readouterr().err
    assert not (tmp_path/'found.json').exists()


def test_a_damaged_video_is_one_line(place, gallery, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (place/'damaged.mp4').write_bytes(b'no video')
    assert run_script(identify, [RUN, '--gallery=people.npz', '--probe=damaged.mp4']) == 2
    assert 'damaged.mp4: OpenCV finds no frame in it' in capsys.readouterr().err
    assert run_script(identify, [RUN, '--gallery=people.npz', '--probe=missing.mov']) == 2
    assert 'missing.mov: no such file; expected a video' in capsys.readouterr().err


def test_only_a_video_needs_the_estimation():
    code = 'import sys, skeletongait.identify; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], env=ENV, capture_output=True, text=True, check=True)
    assert 'skeletongait.runs.probes' in done.stdout and 'skeletongait.estimation' not in done.stdout


@pytest.mark.slow
def test_the_walker_of_a_real_video_is_found_again(sample, place, tmp_path, monkeypatch):
    "Enrolled from the first half of the video, beside eight others; asked about with the second half."
    halves = [tmp_path/'first.avi', tmp_path/'second.avi']
    frames = [*read_video(sample)]
    for path, part in zip(halves, (frames[:118], frames[118:])):
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 25, part[0].shape[1::-1])
        for frame in part:
            writer.write(frame[..., ::-1])
        writer.release()
    shutil.copytree(place/'people', tmp_path/'people')
    poses = [[walk.pose for walk in find_walks(path, blazepose.BlazePose()).walks] for path in halves]
    walkers = [max(range(len(o)), key=lambda i, o=o: np.ptp(o[i][:, 11, 0])) for o in poses]
    save_pickle(poses[0][walkers[0]], tmp_path/'people/walker/clip/000/000.pkl')
    monkeypatch.chdir(place)
    argv = [RUN, f'--gallery={tmp_path}/people', f'--probe={halves[1]}', f'--save={tmp_path}/found']
    assert run_script(identify, argv) == 0
    asked = json.loads((tmp_path/'found.json').read_text())['probes']
    assert len(asked) == len(poses[1]) and asked[walkers[1]]['ranked'][0]['name'] == 'walker', asked


@pytest.mark.slow
def test_a_signal_keeps_what_is_embedded(place, tmp_path):
    "And the same command goes on."
    shutil.copytree(place/'pose', tmp_path/'pose')
    for i in range(12):
        shutil.copytree(place/'pose', tmp_path/f'more/{i}')
    tree = tmp_path/'tree'
    for i in range(12):
        for subject in (tmp_path/f'more/{i}').iterdir():
            shutil.move(subject, tree/f'{i}-{subject.name}')
    command = [sys.executable, '-m', 'skeletongait.embed', f'--checkpoint={place}/output/Walkers/SkeletonGait/demo',
               str(tree), '--save=all.npz']
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, cwd=tmp_path, env=ENV, **pipes)
    seen = ''
    end = time.monotonic() + 120
    while '/432' not in seen or ' 0/432' in seen[-120:]:
        seen += process.stderr.read(1)
        assert process.poll() is None and time.monotonic() < end, seen
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, seen + rest
    assert 'stopped by SIGTERM; what is embedded is kept, the same command goes on' in rest
    assert sorted(o.name for o in tmp_path.glob('*.npz')) == ['all.part.npz']
    done = subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == '432 sequences of 144 subjects in all.npz\n', done.stderr
    assert sorted(o.name for o in tmp_path.glob('*.npz')) == ['all.npz']
