"Probes: what a video gives to each kind of network."
import logging

import numpy as np
import pytest
import torch
from puppets import Puppet, write_video
from toys import toy

from skeletongait.core import SkeletonGaitError
from skeletongait.estimation import blazepose
from skeletongait.files.arrays import load_array
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.runs.embeddings import embed_sequences
from skeletongait.runs.probes import find_probes, is_video, read_videos, run_that_draws, walk_streams
from skeletongait.runs.trained import trained_run
from skeletongait.walkers.recording import make_sequence

torch.set_num_threads(1)


@pytest.fixture
def clip(tmp_path, monkeypatch):
    "A video of one person, and a stand-in for the networks that finds them."
    puppet = Puppet()
    puppet.places = [(160, 120)]
    monkeypatch.setattr(blazepose, 'BlazePose', lambda: puppet)
    return write_video(tmp_path/'clip.avi')


@pytest.mark.parametrize('name, shapes', [
    ('demo_skeletongait', [(40, 17, 3)]), ('demo_skeletongait++', [(40, 17, 3), (40, 64, 64)])])
def test_each_network_gets_its_streams(clip, name, shapes, caplog):
    "The run's data are maps: poses are drawn as published; SkeletonGait++ gets silhouettes, too."
    caplog.set_level(logging.WARNING, 'skeletongait')
    trained = trained_run(toy(name))
    places = find_probes(clip)
    drawing = run_that_draws(trained, places)
    walks = read_videos(drawing, places)
    assert [*walks] == ['clip'] and [o.shape for o in walks['clip']] == shapes
    maps = pose_to_heatmap(walks['clip'][0])
    out = embed_sequences(drawing, {**walks, 'maps': [maps, *walks['clip'][1:]]})
    assert not out.failed
    torch.testing.assert_close(out.done['clip'], out.done['maps'], rtol=1e-4, atol=1e-5)
    assert trained.cfg.data_cfg.render is None and drawing.about()['settings']['render'] is not None


@pytest.mark.parametrize('name', ['demo_skeletongait', 'demo_skeletongait++'])
@pytest.mark.parametrize('kind', ['maps', 'poses'])
def test_files_as_probes(tmp_path, name, kind):
    "A file, the folder of a sequence, a tree: of maps or poses, beside silhouettes for SkeletonGait++; all the same."
    rec = make_sequence(seed=0, subject=1, type='nm-01', view='090', n_frames=8)
    streams = {'0_heatmap.npy': pose_to_heatmap(rec.pose), '0_pose.npy': rec.pose.astype(np.float32)}
    first = '0_heatmap.npy' if kind == 'maps' else '0_pose.npy'
    folder = tmp_path/'tree/001/nm-01/090'
    folder.mkdir(parents=True)
    np.save(folder/first, streams[first])
    needs_both = name.endswith('++')
    if needs_both:
        np.save(folder/'1_sil.npy', rec.silhouette)
    cfg = toy(name)
    cfg.data_cfg.render = {} if kind == 'poses' else None
    trained = trained_run(cfg)
    expected = trained.embed([[streams[first], rec.silhouette][:1 + needs_both]])[0]
    for probe in (folder, tmp_path/'tree/001', tmp_path/'tree'):
        out = embed_sequences(trained, find_probes(probe))
        assert [*out.done] == [str(folder)], out.failed
        torch.testing.assert_close(out.done[str(folder)], expected, rtol=1e-4, atol=1e-5)
    out = embed_sequences(trained, find_probes(folder/first))
    assert bool(out.failed) == needs_both
    assert not needs_both or 'has 2 channels; this SkeletonGaitPP was built for 3' in out.failed[str(folder/first)]


def test_nothing_changes_without_a_video(tmp_path):
    np.save(tmp_path/'a.npy', np.zeros((5, 17, 3), np.float32))
    trained, places = trained_run(toy()), find_probes(tmp_path/'a.npy')
    assert run_that_draws(trained, places) is trained and read_videos(trained, places) == places
    assert load_array(places[str(tmp_path/'a.npy')]).shape == (5, 17, 3)
    failed = embed_sequences(trained, places).failed
    assert 'holds poses (5, 17, 3), not frames; set data_cfg.render' in failed[str(tmp_path/'a.npy')]


def test_a_network_of_other_channels_is_refused_before_anybody_is_sought(clip, monkeypatch):
    monkeypatch.setattr(blazepose, 'BlazePose', None)
    cfg = toy()
    cfg.model_cfg.Backbone.in_channels = 5
    with pytest.raises(SkeletonGaitError, match='in_channels: found 5; a video gives 1'):
        read_videos(trained_run(cfg), find_probes(clip))


@pytest.mark.parametrize('name, video', [('a.mp4', True), ('a.MOV', True), ('a.npy', False), ('mp4', False)])
def test_names_of_videos(name, video):
    assert is_video(name) is video


def test_only_so_many_streams(clip):
    cfg = toy()
    cfg.model_cfg.Backbone.in_channels = 1
    assert walk_streams(trained_run(cfg)) == ('silhouette',)
