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
