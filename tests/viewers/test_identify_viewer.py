"The viewer of answers: what the gallery says, whoever is asked about, and walks that play together."
import cv2
import numpy as np
import pytest
import torch
from puppets import Puppet, write_video
from toys import toy

from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.estimation import blazepose
from skeletongait.evaluation.identify import MUST_FIT, answers, enrol
from skeletongait.files.arrays import load_pickle
from skeletongait.files.text import save_text
from skeletongait.files.settings import to_yaml
from skeletongait.files.tree import Sequence
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.runs.embeddings import embed_tree, open_run
from skeletongait.runs.trained import trained_run
from skeletongait.viewers.identify import IdentifyViewer
from skeletongait.viewers.player import BAD, GOOD, MIDDLE, paint
from skeletongait.walkers.recording import make_sequence

torch.set_num_threads(1)


def decode(png): return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def people(n=6, noise=.1):
    "A gallery of `n` people, two sequences each; probes near the second and far from all; frames of everybody."
    rng = np.random.default_rng(0)
    sequences = [Sequence(f'{i:03d}', t, '090') for i in range(n) for t in ('a', 'b')]
    own = rng.normal(size=(n, 4, 2)).astype(np.float32)
    x = own.repeat(2, 0) + noise*rng.normal(size=(2*n, 4, 2)).astype(np.float32)
    gallery = enrol(x, sequences, dict.fromkeys(MUST_FIT, '') | dict(metric='euc'))
    frames = {s: rng.integers(0, 256, (3 + i, 2, 16, 12), dtype=np.uint8) for i, s in enumerate(sequences)}
    probes = {'near': own[1], 'far': own[1] + 50}
    asked = {name: rng.integers(0, 256, (20, 2, 16, 12), dtype=np.uint8) for name in probes}
    return gallery, np.stack([*probes.values()]), [*probes], frames, asked


def colours(viewer): return [tile.colour for tile in viewer.tiles]


def test_it_shows_what_the_gallery_answers():
    gallery, x, names, *pictures = people()
    viewer = IdentifyViewer(gallery, x, names, *pictures, far=.05, k=3)
    threshold = gallery.threshold(.05)
    found = answers(gallery, torch.as_tensor(x), names, threshold, 3)
    assert not viewer.problem and viewer.answers == found and viewer.threshold == threshold
    assert viewer.headline == f'near: 001, no farther than {threshold.distance:.4g}'
    assert colours(viewer) == [MIDDLE, GOOD, BAD, BAD]
    viewer.probe.value = 1
    assert 'far: nobody of these; even ' in viewer.headline and colours(viewer)[1:] == [BAD]*3
    shown = [panel.title.value for panel in viewer.panels]
    for place, (html, r) in enumerate(zip(shown[1:], found[1].ranked, strict=True), 1):
        assert f'{place} {r.subject}<' in html and str(r.sequence) in html and f'distance {r.distance:#.4g}' in html


def test_walks_play_together_and_begin_again():
    gallery, x, names, frames, asked = people()
    viewer = IdentifyViewer(gallery, x, names, frames, asked, k=3)
    viewer.player.index = 17
    assert viewer.n_frames == 20
    np.testing.assert_array_equal(decode(viewer.panels[0].image.value), paint(asked['near'][17, 0]))
    for panel, r in zip(viewer.panels[1:], viewer.answer.ranked, strict=True):
        walk = frames[r.sequence]
        np.testing.assert_array_equal(decode(panel.image.value), paint(walk[17 % len(walk), 0]))
    assert len({viewer.snapshot(t).shape for t in range(20)}) == 1


def test_a_frame_is_drawn_once(monkeypatch):
    gallery, x, names, frames, asked = people()
    viewer = IdentifyViewer(gallery, x, names, frames, asked, k=3)
    for t in range(20):
        viewer.player.index = t
    monkeypatch.setattr(viewer.tiles[0].__class__, 'draw', None)
    for t in range(20):
        viewer.player.index = t


def test_without_pictures_and_without_a_rate():
    gallery, x, names, *_ = people()
    viewer = IdentifyViewer(gallery, x, names)
    assert viewer.headline == 'near: 001 is nearest' and set(colours(viewer)) == {MIDDLE}
    assert viewer.n_frames == 1 and viewer.player.layout.display == 'none' and viewer.snapshot(0).ndim == 3


def test_pictures_that_cannot_be_read_are_said():
    gallery, x, names, frames, asked = people()
    def broken(s):
        raise SkeletonGaitError(f'{s}: damaged')
    viewer = IdentifyViewer(gallery, x, names, broken, asked)
    assert not viewer.problem and ': damaged' in viewer.notice.value
    assert viewer.tiles[0].walk and viewer.tiles[1].walk is None


@pytest.mark.parametrize('change, says', [
    (dict(names=['one']), 'names: found 1 for 2 embeddings'),
    (dict(embeddings=np.zeros((0, 4, 2), np.float32), names=[]), 'names: found 0 for 0 embeddings'),
    (dict(k=0), 'k: found 0, expected a whole number from 1 to 50'),
    (dict(far=.00001), 'rate of false accepts'),
    (dict(embeddings=np.zeros((2, 5, 2), np.float32)), 'probe: found an embedding (5, 2), expected (4, 2)')])
def test_mistakes_are_messages(change, says):
    gallery, x, names, *_ = people()
    viewer = IdentifyViewer(**dict(gallery=gallery, embeddings=x, names=names) | change)
    assert says in viewer.problem
    with pytest.raises(SkeletonGaitError):
        viewer.snapshot(0)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "An untrained run that draws poses, four people enrolled in a file, and their tree."
    root = tmp_path_factory.mktemp('run')
    cfg = toy()
    cfg.data_cfg.render, cfg.data_cfg.data_in_use = {}, [True]
    (root/'run/checkpoints').mkdir(parents=True)
    torch.save(dict(model=trained_run(cfg).model.state_dict(), iteration=1), root/'run/checkpoints/x.pt')
    save_text(to_yaml(cfg), root/'run/config.yaml')
    for i in range(4):
        pose = make_sequence(seed=0, subject=i, type='nm-01', view='090', n_frames=12).pose
        save_pickle(pose.astype(np.float32), root/f'people/{i:03d}/nm-01/090/090.pkl')
    embed_tree(open_run(root/'run/checkpoints/x.pt'), root/'people', root/'people.npz')
    return root


def test_from_a_run(run):
    file = run/'people/002/nm-01/090/090.pkl'
    viewer = IdentifyViewer.from_run(run/'run/checkpoints/x.pt', run/'people.npz', file, run/'people', k=2)
    assert not viewer.problem and viewer.headline == f'{file}: 002 is nearest'
    assert viewer.answer.ranked[0].distance == pytest.approx(0, abs=1e-5) and viewer.n_frames == 12
    drawn = paint(pose_to_heatmap(load_pickle(file))[0, 0])
    np.testing.assert_array_equal(viewer.tiles[0].draw(0), drawn)
    np.testing.assert_array_equal(viewer.tiles[1].draw(0), drawn)


def test_from_a_video(run, tmp_path, monkeypatch):
    puppet = Puppet()
    puppet.places = [(80, 120), (240, 120)]
    monkeypatch.setattr(blazepose, 'BlazePose', lambda: puppet)
    clip = write_video(tmp_path/'clip.avi')
    viewer = IdentifyViewer.from_run(run/'run/checkpoints/x.pt', run/'people.npz', clip, run/'people')
    assert not viewer.problem and [label for label, _ in viewer.probe.options] == ['clip-1', 'clip-2']
    assert viewer.n_frames == 40 and len(viewer.tiles) == 5 and all(tile.walk for tile in viewer.tiles)


@pytest.mark.parametrize('checkpoint, gallery, probe, says', [
    ('nothing', 'people.npz', 'people', 'nothing'),
    ('run/checkpoints/x.pt', 'nothing.npz', 'people', 'nothing.npz: cannot be read'),
    ('run/checkpoints/x.pt', 'people.npz', 'nowhere', 'nowhere: no such file or folder')])
def test_files_that_will_not_do_are_messages(run, checkpoint, gallery, probe, says):
    assert says in IdentifyViewer.from_run(run/checkpoint, run/gallery, run/probe).problem


def test_what_is_not_embedded_is_listed(run, tmp_path):
    for name, content in dict(a=b'damaged', b=(run/'people/001/nm-01/090/090.pkl').read_bytes()).items():
        (tmp_path/name).mkdir()
        (tmp_path/name/'x.pkl').write_bytes(content)
    viewer = IdentifyViewer.from_run(run/'run/checkpoints/x.pt', run/'people.npz', tmp_path)
    assert '1 of 2 sequences are not embedded:' in viewer.remark.value and len(viewer.answers) == 1
