"Overlay viewer: blends, what the loader cuts, warps, badges, files."
import numpy as np
import pytest
from hypothesis import given, strategies as st

from skeletongait.viewers.overlay import (
    CROPPED, DONE, KEY, OverlayViewer, applied, badge, fit_streams, is_random, kept_columns, key, sample_words, steps,
    training_transform, veil)
from skeletongait.data.streams import sequence_files
from skeletongait.runs.config import packaged_configs
from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.data.streams import join_streams, load_sequence
from skeletongait.maps.settings import HeatmapConfig
from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.viewers.player import paint
from skeletongait.pictures import BLENDS, MAP_RGB, SIL_RGB, overlay
from skeletongait.data.transforms import TRANSFORMS, BaseSilTransform, RandomTransform, build_transform, fit_width
from skeletongait.walkers.recording import make_sequence
from pages import decode

REC = make_sequence(seed=0, subject=1, type='bg-01', view='090', n_frames=20)
MAPS, SILS = pose_to_heatmap(REC.pose), REC.silhouette
ALWAYS = {'type': 'Compose', 'trf_cfg': [{'type': 'RandomPerspective', 'prob': 1}, {'type': 'RandomRotate', 'prob': 1}]}


def noise(*shape): return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@given(st.sampled_from([*BLENDS]), st.floats(0, 1), st.sampled_from([64, 44, 2]))
def test_every_blend_of_nothing_is_the_other_one(blend, alpha, width):
    "Without a map the silhouette is blue, without a silhouette the map is orange, in every blend."
    sil, nothing = noise(64, width), np.zeros((64, 64), np.uint8)
    padded = np.pad(sil, ((0, 0), ((64-width)//2,)*2))
    assert (overlay(nothing, sil, alpha, blend) == (padded[..., None]/255*SIL_RGB).astype(np.uint8)).all()
    orange = (alpha*noise(64, 64)[..., None]/255*MAP_RGB).astype(np.uint8)
    assert (overlay(noise(64, 64), nothing, alpha, blend) == orange).all()


def test_difference_is_empty_where_both_agree():
    assert not overlay(noise(64, 64), noise(64, 64), 1., 'difference').any()


def test_over_is_the_default():
    assert (overlay(MAPS[0, 0], SILS[0]) == overlay(MAPS[0, 0], SILS[0], .8, 'over')).all()


@pytest.mark.parametrize('blend', ['ovr', None, ''])
def test_unknown_blend(blend):
    with pytest.raises(SkeletonGaitError, match='overlay: blend .* is not known'):
        overlay(MAPS[0, 0], SILS[0], blend=blend)


@given(st.integers(2, 160), st.integers(-40, 40))
def test_kept_columns_are_those_the_loader_keeps(w, d):
    "Mark each column of the maps with its own level, and see which levels come out of the loader."
    other = w + 2*d
    if other < 1: return
    marked = np.broadcast_to(np.arange(w, dtype=np.uint8), (1, 1, 64, w))
    x = fit_width(join_streams([marked, np.zeros((1, 1, 64, other), np.uint8)], ('a', 'b')))
    assert kept_columns([w, other]).nonzero()[0].tolist() == x[0, 0, 0].tolist()


def test_veil_hides_only_what_is_cut():
    kept, rgb = kept_columns([64, 44]), noise(64, 64, 3)
    assert (veil(rgb, kept)[:, 10:54] == rgb[:, 10:54]).all() and (veil(rgb, kept)[:, :10] == rgb[:, :10]//2 + 60).all()
    assert (veil(rgb, np.ones(64, bool)) == rgb).all()


@pytest.mark.parametrize('sils', [SILS, SILS[..., 10:54], np.repeat(SILS, 2, 2)[..., 20:108]])
@pytest.mark.parametrize('entry', [
    ALWAYS,
    'skeletongait++_CCPG',
    'skeletongait++_Gait3D',
    {'type': 'RandomErasing', 'prob': 1},
])
def test_one_warp_for_the_whole_sequence(sils, entry):
    "Frame by frame the same as the loader makes of all frames at once; also where silhouettes are wider than maps."
    viewer = OverlayViewer(MAPS, sils, entry)
    x = join_streams([MAPS, sils[:, None]], ('a', 'b'))
    for seed in (0, 7):
        viewer.seed.value = seed
        expected = fit_width(training_transform(entry)(x, np.random.default_rng(seed)))
        assert (np.stack([viewer.seen(t) for t in range(20)]) == expected).all()
        for t in (0, 13):
            viewer.player.index = t
            assert (decode(viewer.panels['seen'].image.value) == overlay(expected[t, 0], expected[t, 2])).all()


@pytest.mark.parametrize('which, pick', [
    ('limb', lambda m: m[0]),
    ('joint', lambda m: m[1]),
    ('both', lambda m: m.max(0)),
])
def test_controls_reach_the_picture(which, pick):
    viewer = OverlayViewer(MAPS, SILS, 'skeletongait++_Gait3D')
    viewer.player.index, viewer.channel.value, viewer.alpha.value, viewer.cut.value = 5, which, .35, False
    for blend in BLENDS:
        viewer.blend.value = blend
        assert (decode(viewer.panels['overlay'].image.value) == overlay(pick(MAPS[5]), SILS[5], .35, blend)).all()
    viewer.transform.value = 'none'
    expected = overlay(pick(MAPS[5, :, :, 10:54]), SILS[5, :, 10:54], .35, blend)
    assert (decode(viewer.panels['seen'].image.value) == expected).all()
    viewer.cut.value = True
    expected = veil(overlay(pick(MAPS[5]), SILS[5], .35, blend), kept_columns([64, 64]))
    assert (decode(viewer.panels['overlay'].image.value) == expected).all()


def test_a_setting_draws_only_the_frame_in_view():
    viewer = OverlayViewer(MAPS, SILS)
    for t in range(20):
        viewer.player.index = t
    viewer.alpha.value = .5
    assert [*viewer.panels['overlay'].frames.kept] == [*viewer.panels['seen'].frames.kept] == [19]
    viewer.seed.value = 1
    assert viewer.panels['overlay'].frames.kept and [*viewer.panels['seen'].frames.kept] == [19]


def test_drawing_again_counts_and_says_what_happened():
    viewer = OverlayViewer(MAPS, SILS, ALWAYS)
    viewer.sample_button.click()
    assert viewer.seed.value == 1
    said = '<span title="RandomPerspective, RandomRotate">this sample: seen askew, rotated</span>'
    assert viewer.sampled.value == said
    assert not viewer.sample_button.disabled and not viewer.seed.disabled
    viewer.transform.value = 'none'
    assert 'nothing random: frames left as they are' in viewer.sampled.value
    assert viewer.sample_button.disabled
    assert viewer.seed.disabled
    viewer.transform.value = 'my own'
    first = decode(viewer.panels['seen'].image.value)
    viewer.sample_button.click()
    viewer.seed.value = 1
    assert (decode(viewer.panels['seen'].image.value) == first).all() # a draw can be repeated
    assert not viewer.sample_button.disabled and not viewer.seed.disabled


def test_every_transform_has_words():
    assert {*DONE} == {*TRANSFORMS} - {BaseSilTransform.__name__} # it changes no frame of uint8
    assert sample_words(['<b>']) == '<span title="&lt;b&gt;">this sample: &lt;b&gt;</span>'


@pytest.mark.parametrize('name', TRANSFORMS)
def test_sampling_again_works_where_samples_can_differ(name):
    viewer = OverlayViewer(MAPS, SILS, {'type': name})
    assert viewer.sample_button.disabled == viewer.seed.disabled == (not issubclass(TRANSFORMS[name], RandomTransform))


def test_compositions_of_compositions():
    transform = build_transform({'type': 'Compose', 'trf_cfg': [{'type': 'BaseSilTransform'}, ALWAYS]})
    assert [type(s).__name__ for s in steps(transform)] == ['BaseSilTransform', 'RandomPerspective', 'RandomRotate']
    assert is_random(transform)
    assert applied(transform, np.random.default_rng(0)) == ['RandomPerspective', 'RandomRotate']


def test_colours_are_explained():
    "In the page and in the picture; the colours named are those of the overlay."
    viewer, alone, apart = OverlayViewer(MAPS, SILS), OverlayViewer(MAPS), OverlayViewer(MAPS, SILS[:, ::2])
    assert viewer.key in viewer.children and all(words in viewer.key.value for words in (*KEY, CROPPED))
    for rgb in (MAP_RGB, SIL_RGB):
        assert 'rgb({:.0f}, {:.0f}, {:.0f})'.format(*rgb) in key()
    assert not alone.key.value and not apart.key.value # nothing is orange or blue there
    assert len(viewer.snapshot(0)) > len(alone.snapshot(0))


@pytest.mark.parametrize('width, words', [
    (64, 'show the cut to 44 columns'),
    (128, 'show the cut to 88 columns'),
    (44, 'nothing is cut'),
])
def test_the_cut_in_numbers(width, words):
    viewer = OverlayViewer(noise(3, 2, width if width != 44 else 64, width))
    assert viewer.cut.description == words and viewer.cut.disabled == (width == 44)


@pytest.mark.parametrize('name', packaged_configs())
def test_every_packaged_transform_can_be_drawn(name):
    viewer = OverlayViewer(MAPS, SILS)
    viewer.transform.value = name
    assert not viewer.notice.value and viewer.seen(0).shape == (3, 64, 44)


@given(st.integers(0, 10**6))
def test_applied_tells_whether_frames_change(seed):
    "In a picture with no two equal neighbours; a turn by a hundredth of a degree may leave a soft map as it was."
    transform, sharp = training_transform('skeletongait++_Gait3D'), noise(1, 1, 64, 44)
    names = applied(transform, np.random.default_rng(seed), (64, 44))
    def same(x):
        return (transform(x, np.random.default_rng(seed)) == x).all()
    assert same(sharp) == (not names) and (names or same(MAPS[:1]))


@pytest.mark.parametrize('one, names', [
    ({'type': 'BaseSilTransform'}, []),
    ({'type': 'BaseSilCuttingTransform'}, ['BaseSilCuttingTransform']),
    ({'type': 'RandomRotate', 'prob': 1}, ['RandomRotate']),
])
def test_applied_takes_a_single_transform(one, names):
    assert applied(build_transform(one), np.random.default_rng(0)) == names


def test_lengths_that_differ_are_said_and_the_common_frames_shown():
    viewer = OverlayViewer(MAPS, SILS[:-3])
    assert viewer.n_frames == 17 == viewer.player.slider.max + 1
    assert '▲ the lengths differ: 20 maps and 17 silhouettes; the first 17 of both are shown' in viewer.badge.value
    assert not viewer.problem
    assert viewer.snapshot(16).shape == viewer.snapshot(0).shape


@pytest.mark.parametrize('sils, says', [
    (SILS[:, ::2], 'silhouettes of 32 x 64'),
    (SILS[..., :45], 'silhouettes of 64 x 45'),
])
def test_sizes_that_do_not_fit_stand_side_by_side(sils, says):
    viewer = OverlayViewer(MAPS, sils)
    assert says in viewer.badge.value and 'expected frames of one height' in viewer.badge.value and not viewer.problem
    viewer.player.index, viewer.channel.value = 4, 'joint'
    assert (decode(viewer.panels['maps'].image.value) == paint(MAPS[4, 1])).all()
    assert (decode(viewer.panels['silhouettes'].image.value) == sils[4][..., None]).all()
    assert 'seen' not in viewer.panels and viewer._repr_mimebundle_()['image/png']


def test_two_things_wrong_are_both_said():
    fit = fit_streams([MAPS, SILS[:-1, None, ::2]])
    assert 'lengths differ' in fit.problem and '32 x 64' in fit.problem and not fit.joins


def test_dark_silhouettes_are_noticed():
    assert 'levels from 0 to 1, expected 0 to 255' in OverlayViewer(MAPS, SILS//255).badge.value
    assert '✓' in OverlayViewer(MAPS, SILS > 0).badge.value # booleans are silhouettes


def test_maps_alone():
    viewer = OverlayViewer(MAPS)
    assert viewer.transform.value == 'skeletongait_Gait3D' and '✓ 20 frames: maps 64 x 64' in viewer.badge.value
    viewer.transform.value, viewer.player.index = 'none', 3
    assert (decode(viewer.panels['seen'].image.value) == paint(MAPS[3, 0, :, 10:54])).all()


def test_one_map_of_one_frame():
    viewer = OverlayViewer(MAPS[:1, 0], SILS[:1])
    assert viewer.channel.disabled and '1 frame of both' in viewer.badge.value
    assert (viewer.draw_overlay(0)[:, 10:54] == overlay(MAPS[0, 0], SILS[0])[:, 10:54]).all()


def test_nothing_to_cut():
    viewer = OverlayViewer(MAPS[..., 10:54], SILS[..., 10:54])
    assert viewer.cut.disabled and viewer.kept.all()


@pytest.mark.parametrize('args, says', [
    ((MAPS[:0], SILS), 'maps: found an empty array'),
    ((MAPS, SILS[:0]), 'silhouettes: found an empty array'),
    ((MAPS, 'sil.pkl'), 'silhouettes: found str'),
    ((noise(5, 3, 64, 64), SILS), 'maps: found 3 channels'),
    ((MAPS, MAPS), 'silhouettes: found 2 channels'),
    ((MAPS.astype(int), SILS), 'maps: found an array of shape (20, 2, 64, 64) and dtype int64'),
    ((MAPS, [[1, 2], [3]]), 'silhouettes: found rows of different lengths'),
    ((MAPS, SILS, 'skeletongait_Gait4D'), 'did you mean'),
    ((MAPS, SILS, {'type': 'RandomRotat'}), 'did you mean RandomRotate?'),
    ((MAPS, SILS, []), 'transform: found a list of 0'),
])
def test_wrong_input_is_one_message(args, says):
    viewer = OverlayViewer(*args)
    assert says in viewer.problem and len(viewer.children) == 1


def linked(folder, maps=MAPS, sils=SILS):
    save_pickle(maps, folder/'0_heatmap.pkl')
    save_pickle(sils, folder/'1_sil.pkl')
    return folder


def test_folder_shows_what_the_loader_loads(tmp_path):
    viewer = OverlayViewer.from_folder(linked(tmp_path/'001/nm-01/090'), transform=ALWAYS)
    x = load_sequence(sequence_files(tmp_path/'001/nm-01/090'))
    expected = fit_width(build_transform(ALWAYS)(x, np.random.default_rng(0)))
    assert (np.stack([viewer.seen(t) for t in range(20)]) == expected).all()


def test_poses_are_drawn_as_the_loader_draws_them(tmp_path):
    render = HeatmapConfig(sigma=4.)
    folder = linked(tmp_path/'s', REC.pose)
    viewer = OverlayViewer.from_folder(folder, render=render, transform={'type': 'BaseSilTransform'})
    x = load_sequence(sequence_files(tmp_path/'s'), render)
    assert (np.stack([viewer.seen(t) for t in range(20)]) == fit_width(x)).all()
    assert OverlayViewer.from_files(tmp_path/'s/0_heatmap.pkl').n_frames == 20


def test_folder_with_three_files(tmp_path):
    linked(tmp_path)
    save_pickle(SILS, tmp_path/'2_more.pkl')
    assert 'found 3 files, 0_heatmap.pkl, 1_sil.pkl, 2_more.pkl' in OverlayViewer.from_folder(tmp_path).problem
    assert not OverlayViewer.from_folder(tmp_path, [0, 2]).problem
    assert not OverlayViewer.from_folder(tmp_path, [True, True, False]).problem


def test_folders_that_will_not_do(tmp_path):
    assert 'no such folder' in OverlayViewer.from_folder(tmp_path/'nowhere').problem
    (tmp_path/'sub').mkdir()
    save_pickle(MAPS, tmp_path/'sub'/'maps.pkl')
    assert 'found no file that ends in .pkl' in OverlayViewer.from_folder(tmp_path).problem
    linked(tmp_path, sils=np.zeros((3, 3, 3, 3, 3)))
    assert '1_sil.pkl' in OverlayViewer.from_folder(tmp_path).problem
    linked(tmp_path, sils=MAPS) # two channels
    assert str(tmp_path) in OverlayViewer.from_folder(tmp_path).problem
    assert 'silhouettes: found 2 channels' in OverlayViewer.from_folder(tmp_path).problem
    assert 'cannot be read' in OverlayViewer.from_files(tmp_path/'none.pkl', tmp_path/'1_sil.pkl').problem


def test_animation_and_figure(tmp_path):
    viewer = OverlayViewer(MAPS, SILS[:15])
    viewer.save_animation(tmp_path/'walk.gif', range(0, 15, 5))
    assert (tmp_path/'walk.gif').stat().st_size > 1000
    assert len({viewer.snapshot(t).shape for t in range(15)}) == 1


def test_strangers_names_are_text():
    assert '<i>' not in badge('<i>', True)
