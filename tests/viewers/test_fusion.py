"Fusion viewer: the weights of a network, colours, strips, runs."
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from skeletongait.runs.folder import Run
from skeletongait.runs.config import load_config
from skeletongait.files.settings import to_yaml
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.files.text import save_text
from skeletongait.viewers.fusion import (
    EQUAL, HARDLY, NOBODY, SCALES, FusionViewer, as_weights, body_mask, evaluating, fusion_weights, model_weights,
    network_frames, paint_trust, range_words, scale_rgb, strip_weights, trust_levels, trust_on_body)
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.nets.layers import horizontal_pool
from skeletongait.nets.models import build_model
from skeletongait.viewers.player import paint
from skeletongait.pictures import MAP_RGB, SIL_RGB
from skeletongait.data.transforms import to_float
from skeletongait.walkers.recording import make_sequence
from pages import decode

REC = make_sequence(seed=0, subject=1, type='cl-01', view='045', n_frames=20)
MAPS, SILS = pose_to_heatmap(REC.pose), REC.silhouette
X = network_frames(MAPS, SILS)


def network(model='SkeletonGaitPP', class_num=5, seed=1, **backbone):
    small = dict(in_channels=2, layers=[1]*4, channels=[8]*4)
    if model == 'SkeletonGaitPP':
        small = dict(in_channels=3, blocks=[1]*4, C=.25)
    cfg = dict(model=model, Backbone=small | backbone, SeparateBNNecks=dict(class_num=class_num))
    return build_model(cfg, seed=seed)


@pytest.fixture(scope='module')
def model(): return network().eval()


@pytest.fixture(scope='module')
def weights(model): return fusion_weights(model, X)


class Verdict(nn.Module):
    "A score for the silhouette whatever is seen."
    def __init__(self, score):
        super().__init__()
        self.score = score
    def forward(self, x):
        zero = x[:, :x.shape[1]//2]*0
        return torch.cat([zero + self.score, zero], 1)


def test_weights_are_those_inside_forward(model, weights):
    seen = []
    hook = model.fusion.register_forward_hook(lambda m, streams, out: seen.append((m.weight(*streams), *streams, out)))
    with torch.no_grad():
        model(to_float(torch.from_numpy(X))[None])
    hook.remove()
    (inside, sil, maps, out), = seen
    assert weights.shape == (20, 8, 64, 44) and weights.dtype == np.float32
    np.testing.assert_allclose(weights, inside.numpy(), atol=1e-6)
    w = torch.from_numpy(weights)
    np.testing.assert_allclose((w*sil + (1-w)*maps).numpy(), out.numpy(), atol=1e-4)  # what goes on


@pytest.mark.parametrize('score, weight', [(0, .5), (1e3, 1), (-1e3, 0)])
def test_forced_scores(score, weight):
    model = network()
    model.fusion.conv = Verdict(score)
    assert (fusion_weights(model, X) == weight).all()
    viewer = FusionViewer.from_model(model, MAPS, SILS)
    assert (viewer.body_t == weight).all() and f'{weight:.1%} silhouette, {1-weight:.1%} skeleton' in viewer.words.value
    colour = {.5: EQUAL, 1: SIL_RGB, 0: MAP_RGB}[weight]
    assert (decode(viewer.panels['weights'].image.value) == np.uint8(colour)).all()


def test_zero_last_layer_weighs_both_alike():
    model = network()
    nn.init.zeros_([m for m in model.fusion.modules() if isinstance(m, nn.Conv2d)][-1].weight)
    assert (fusion_weights(model, X) == .5).all()


def test_model_is_left_as_it_was():
    model = network().train()
    model.fusion.eval() # as fix_BN does with some modules
    modes, state = [m.training for m in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}
    fusion_weights(model, X[:3])
    assert [m.training for m in model.modules()] == modes
    assert all((v == state[k]).all() for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ZeroDivisionError), evaluating(model):
        1/0
    assert [m.training for m in model.modules()] == modes


def test_a_frame_is_weighed_by_itself(model, weights):
    "Whatever else is in its piece, and whether the network was in training mode."
    for part in (slice(7, 8), slice(3, 10, 2)):
        np.testing.assert_allclose(fusion_weights(network().train(), X[part]), weights[part], atol=1e-6)


def test_floats_are_divided_already(model, weights):
    np.testing.assert_allclose(fusion_weights(model, X.astype(np.float32)/255), weights, atol=1e-6)


@pytest.mark.parametrize('make, x, says', [
    (lambda: network('SkeletonGait'), X, 'found a SkeletonGait; expected a SkeletonGaitPP'),
    (lambda: network(fusion='CatFusion'), X, 'joins its streams by CatFusion'),
    (lambda: network(fusion='PlusFusion'), X, 'joins its streams by PlusFusion'),
    (network, X[:, 1:], 'has 2 channels'),
    (network, X[..., :40], '40 wide'),
    (network, X[:0], 'nothing to embed'),
])
def test_networks_and_frames_that_will_not_do(make, x, says):
    with pytest.raises(SkeletonGaitError, match=says):
        fusion_weights(make(), x)


def test_model_weights_keep_the_mean_and_ask_for_channels(model, weights):
    w = model_weights(model, X)
    assert w.channels == 8 and w.mean_thw.dtype == np.float32
    np.testing.assert_allclose(w.mean_thw, weights.mean(1), atol=1e-6)
    np.testing.assert_allclose(w.one(11, 3), weights[11, 3], atol=1e-6)


def test_scale_has_a_colour_for_each_level():
    rgb = scale_rgb()
    assert rgb.shape == (255, 3) and (rgb[0] == NOBODY).all() and (rgb[1] == EQUAL).all() and (rgb[2] == EQUAL).all()
    assert (rgb[253] == MAP_RGB).all() and (rgb[254] == SIL_RGB).all()
    assert len(np.unique(rgb[1:], axis=0)) == 253  # all different, but for the two of equal


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from([*SCALES.values()]))
def test_levels_order_weights_by_how_one_sided_they_are(a, b, half):
    la, lb = (int(trust_levels(np.array(w), half)) for w in (a, b))
    assert 1 <= la <= 254
    if la > 2:
        assert (la % 2 == 0) == (a > .5)
    if abs(a-.5) <= abs(b-.5):
        assert (la-1)//2 <= (lb-1)//2
    if abs(a-.5) >= half:
        assert la >= 253


@given(arrays(np.float32, (3, 32, 5), elements=st.floats(0, 1, width=32)), arrays(bool, (3, 32, 5)))
def test_strips_are_means_on_the_body(w, body):
    strips = strip_weights(w, body)
    for t in range(3):
        for s in range(16):
            here = w[t, 2*s:2*s+2][body[t, 2*s:2*s+2]]
            assert np.isnan(strips[t, s]) if not len(here) else abs(strips[t, s] - here.mean()) < 1e-5
    whole = strip_weights(w, body, 1)[:, 0]
    assert all(np.isnan(o) if not b.any() else abs(o - v[b].mean()) < 1e-5 for o, v, b in zip(whole, w, body))


def test_strips_are_the_rows_that_the_network_pools():
    "A picture that is bright in one strip alone is pooled into that strip alone."
    for s in range(16):
        w = np.zeros((1, 64, 44), np.float32)
        w[:, 4*s:4*s+4] = 1
        pooled = horizontal_pool(torch.from_numpy(w)[None], 16)[0, 0].numpy()/2
        assert (pooled == strip_weights(w, np.ones_like(w, bool))[0]).all()


def test_panels_show_frames_and_weights(weights):
    viewer = FusionViewer(MAPS, SILS, weights)
    mean = weights.mean(1)
    for scale, half in SCALES.items():
        viewer.scale.value, viewer.player.index = scale, 13
        shown = {k: decode(p.image.value) for k, p in viewer.panels.items()}
        assert (shown['silhouette'] == X[13, 2][..., None]).all() and (shown['map'] == paint(X[13, 0])).all()
        assert (shown['weights'] == paint_trust(mean[13], half)).all()
        assert (shown['weights on the body'] == trust_on_body(mean[13], X[13], half)).all()
    viewer.channel.value = 'joint'
    assert (decode(viewer.panels['map'].image.value) == paint(X[13, 1])).all()
    viewer.single.value, viewer.which.value = True, 6
    assert (decode(viewer.panels['weights'].image.value) == paint_trust(weights[13, 6], half)).all()
    assert not viewer.which.disabled
    viewer.single.value = False
    assert (decode(viewer.panels['weights'].image.value) == paint_trust(mean[13], half)).all() and viewer.which.disabled


def test_timeline_has_a_row_for_each_strip(weights):
    viewer = FusionViewer(MAPS, SILS, weights)
    viewer.scale.value = '0 to 100 %'
    expected = paint_trust(strip_weights(weights.mean(1), body_mask(X)).T)
    assert (viewer.timeline.rows[:, ::32] == expected).all()  # 640 pixels, 20 frames
    viewer.scale.value, viewer.player.index = '40 to 60 %', 7
    assert (viewer.timeline.rows[:, ::32] == paint_trust(strip_weights(weights.mean(1), body_mask(X)).T, .1)).all()
    assert (decode(viewer.timeline.image.value) == viewer.timeline.picture(7)).all()
    assert '60% skeleton' in viewer.ends[0].value and '60% silhouette' in viewer.ends[1].value


@pytest.mark.parametrize('width, scale', [
    (.004, '49 to 51 %'),
    (.018, '48 to 52 %'),
    (.04, '45 to 55 %'),
    (.09, '40 to 60 %'),
    (.2, '25 to 75 %'),
    (.5, '0 to 100 %'),
])
def test_scale_fits_what_is_shown(width, scale):
    "A network that hardly decides is no white page."
    n, _, h, w = X.shape
    slope_thw = np.linspace(-1, 1, h, dtype=np.float32)[None, :, None].repeat(n, 0).repeat(w, 2)
    viewer = FusionViewer(MAPS, SILS, np.float32(.5) + np.float32(width)*slope_thw)
    assert viewer.scale.value == scale
    assert len(np.unique(decode(viewer.panels['weights'].image.value).reshape(-1, 3), axis=0)) > 10


def test_scale_holds_what_lies_beside_the_body(weights):
    "A network that weighs both alike on the body, and elsewhere does not, is no page of flat orange."
    viewer = FusionViewer(MAPS, SILS, np.where(body_mask(X), np.float32(.5), np.float32(.47)))
    assert viewer.scale.value == '45 to 55 %' and 'hardly' in viewer.range.value
    assert (decode(viewer.panels['weights'].image.value) != np.uint8(MAP_RGB)).any(-1).all()
    assert (decode(viewer.panels['weights'].image.value)[body_mask(X)[0]] == EQUAL).all()


def test_ends_of_a_stretched_scale_are_or_more(weights):
    viewer = FusionViewer(MAPS, SILS, weights)
    for scale, half in SCALES.items():
        viewer.scale.value = scale
        assert all(('or more' in end.value) == (half < .5) and f'{.5+half:.0%}' in end.value for end in viewer.ends)


@pytest.mark.parametrize('off, hardly', [(.003, True), (.019, True), (.021, False), (.3, False)])
def test_a_preference_that_is_none_is_called_so(off, hardly):
    "By the strips: head and feet on opposite sides are an opinion, though the body's mean is equal."
    side_h = np.where(np.arange(64) < 32, 1, -1).astype(np.float32)
    w = np.float32(.5) + np.float32(off)*side_h[None, :, None]*np.ones((20, 1, 44), np.float32)
    viewer = FusionViewer(MAPS, SILS, w)
    assert ('hardly prefers either' in viewer.range.value) == hardly == (off <= HARDLY)
    assert f'single strips {50-100*off:.1f} to {50+100*off:.1f} %' in viewer.range.value
    assert viewer.range in viewer.children


def test_range_of_all_frames():
    words = range_words(np.array([.31, np.nan, .4]), np.array([[.2, .5]]))
    assert words == 'all frames: 31.0 to 40.0 % silhouette on the body, single strips 20.0 to 50.0 %'
    nobody = FusionViewer(MAPS*0, SILS*0, np.full((20, 64, 44), .5))
    assert 'all frames: nobody in the picture' in nobody.range.value
    assert nobody.snapshot(0).shape == nobody.snapshot(9).shape


def test_sentence_is_the_mean_on_the_body(weights):
    viewer = FusionViewer(MAPS, SILS, np.where(body_mask(X)[:, None], np.float32(.63), np.float32(0)))
    viewer.player.index = 12
    assert viewer.sentence(12) == 'frame 12: 63.0% silhouette, 37.0% skeleton on the body'
    assert viewer.sentence(12) in viewer.words.value


def test_nobody_in_the_picture(weights):
    maps, sils = MAPS.copy(), SILS.copy()
    maps[3], sils[3] = 0, 0
    viewer = FusionViewer(maps, sils, weights)
    viewer.player.index = 3
    assert 'frame 3: nobody in the picture' in viewer.words.value and (viewer.timeline.rows[:, 3*32] == NOBODY).all()
    assert viewer.snapshot(3).shape == viewer.snapshot(4).shape


def test_single_channel_of_weights(weights):
    viewer = FusionViewer(MAPS[:, 0], SILS, weights[:, 0].astype(np.float16))
    assert viewer.single.disabled and viewer.channel.disabled and not viewer.problem


@pytest.mark.parametrize('args, says', [
    (lambda w: (MAPS[1:], SILS, w), 'found 19 maps and 20 silhouettes'),
    (lambda w: (MAPS, SILS[:, ::2], w), 'expected frames of one height'),
    (lambda w: (MAPS, SILS, w[1:]), 'weights: found 19 x 64 x 44'),
    (lambda w: (MAPS, SILS, np.pad(w, ((0, 0), (0, 0), (0, 0), (10, 10)))), 'expected 20 x 64 x 44'),
    (lambda w: (MAPS, SILS, w*3), 'expected 0 to 1'),
    (lambda w: (MAPS, SILS, w*np.nan), 'found values from nan'),
    (lambda w: (MAPS, SILS, (w*255).astype(np.uint8)), 'expected floats'),
    (lambda w: (MAPS, SILS, w[:0]), 'weights: found an empty array'),
    (lambda w: (MAPS, SILS, None), 'weights: found NoneType'),
    (lambda w: (MAPS, SILS, [[.1], [.1, .2]]), 'rows of different lengths'),
    (lambda w: (MAPS[:, :, 1:51], SILS[:, 1:51], w[:, :, 1:51]), 'expected a multiple of 16'),
    (lambda w: (None, SILS, w), 'maps: found NoneType'),
])
def test_wrong_input_is_one_message(weights, args, says):
    viewer = FusionViewer(*args(weights))
    assert says in viewer.problem and len(viewer.children) == 1


def test_wrong_networks_are_one_message():
    assert 'expected a SkeletonGaitPP' in FusionViewer.from_model(network('SkeletonGait'), MAPS, SILS).problem
    assert 'built for 3' in FusionViewer.from_model(network(), MAPS[:, 0], SILS).problem


def make_run(root, model, iterations=(10, 20)):
    small = [
        'model_cfg.Backbone.blocks=[1,1,1,1]', 'model_cfg.Backbone.C=0.25', 'model_cfg.SeparateBNNecks.class_num=5']
    cfg, _ = load_config('skeletongait++_Gait3D', small)
    run = Run(cfg, root)
    save_text(to_yaml(cfg), run.config)
    run.checkpoint(0).parent.mkdir()
    for i in iterations:
        torch.save(dict(model=model.state_dict()), run.checkpoint(i))
    return run


def sequence(root):
    save_pickle(MAPS, root/'0_heatmap.pkl')
    save_pickle(SILS, root/'1_sil.pkl')
    return root


def test_run_shows_its_newest_whole_network(tmp_path, model, weights):
    run = make_run(tmp_path/'runs', network(seed=2), [10])
    torch.save(dict(model=model.state_dict()), run.checkpoint(20))
    run.checkpoint(30).write_bytes(run.checkpoint(20).read_bytes()[:-100])  # truncated
    def mean(at):
        return FusionViewer.from_run(at, sequence(tmp_path/'s')).weights.mean_thw
    np.testing.assert_allclose(mean(run.folder), weights.mean(1), atol=1e-6)
    np.testing.assert_allclose(mean(run.checkpoint(20)), weights.mean(1), atol=1e-6)
    assert np.abs(mean(run.checkpoint(10)) - weights.mean(1)).max() > 1e-4 # of another network
    np.testing.assert_allclose(mean(run.folder.rename(tmp_path/'elsewhere')), weights.mean(1), atol=1e-6)


def test_a_checkpoint_without_settings_will_do(tmp_path, model, weights):
    torch.save(dict(model={f'module.{k}': v for k, v in model.state_dict().items()}), tmp_path/'published.pt')
    viewer = FusionViewer.from_run(tmp_path/'published.pt', sequence(tmp_path/'s'))
    np.testing.assert_allclose(viewer.weights.mean_thw, weights.mean(1), atol=1e-6)


def test_settings_of_the_run_draw_poses(tmp_path, model, weights):
    run = make_run(tmp_path/'runs', model)
    folder = sequence(tmp_path/'s')
    save_pickle(REC.pose, folder/'0_heatmap.pkl')
    assert 'holds poses' in FusionViewer.from_run(run.folder, folder).problem
    settings = run.config.read_text().replace('dataset_name: Gait3D', 'dataset_name: Gait3D\n  render: {}', 1)
    save_text(settings, run.config)
    np.testing.assert_allclose(FusionViewer.from_run(run.folder, folder).weights.mean_thw, weights.mean(1), atol=1e-6)


def test_runs_that_will_not_do(tmp_path, model):
    folder = sequence(tmp_path/'s')
    assert 'holds no config.yaml' in FusionViewer.from_run(folder, folder).problem
    assert 'no such checkpoint' in FusionViewer.from_run(tmp_path/'none.pt', folder).problem
    run = make_run(tmp_path/'runs', model, [])
    assert f'{run.folder}: found no checkpoint' in FusionViewer.from_run(run.folder, folder).problem
    run.checkpoint(10).write_bytes(b'')
    assert 'none can be read' in FusionViewer.from_run(run.folder, folder).problem
    run = make_run(tmp_path/'more', model)
    assert 'no such folder' in FusionViewer.from_run(run.folder, tmp_path/'nowhere').problem
    save_pickle(SILS[:-1], folder/'1_sil.pkl')
    assert 'same number of frames' in FusionViewer.from_run(run.folder, folder).problem


def test_animation_and_picture(tmp_path, weights):
    viewer = FusionViewer(MAPS, SILS, weights)
    viewer.save_animation(tmp_path/'a.gif', range(0, 20, 5))
    assert len({viewer.snapshot(t).shape for t in range(20)}) == 1 and viewer._repr_mimebundle_()['image/png']


def test_settings_draw_only_the_frame_in_view(weights):
    viewer = FusionViewer(MAPS, SILS, weights)
    for t in range(20):
        viewer.player.index = t
    viewer.scale.value = '25 to 75 %'
    kept = {k: len(p.frames.kept) for k, p in viewer.panels.items()}
    assert kept == {'silhouette': 20, 'map': 20, 'weights': 1, 'weights on the body': 1}


def test_given_weights_are_not_copied(weights):
    w = as_weights(weights)
    assert np.shares_memory(w.one(0, 0), weights) and w.channels == 8


def test_crowded_timeline_says_so():
    for n, says in ((640, False), (641, True)):
        viewer = FusionViewer(MAPS[:1].repeat(n, 0), SILS[:1].repeat(n, 0), np.full((n, 64, 44), .5, np.float32))
        assert ('the most one-sided' in viewer.below()) == says
