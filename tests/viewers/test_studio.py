"HeatmapStudio: it shows the library's maps, what it saves draws the same bytes, and wrong input becomes a message."
import shlex

import cv2
import ipywidgets as W
import numpy as np
import pytest
from PIL import Image
from hypothesis import given, settings, strategies as st

from skeletongait.core import SkeletonGaitError, save_pickle
from skeletongait.maps.settings import HeatmapConfig, load_heatmap_config
from skeletongait.maps.heatmap import impute_joints, place_joints, pose_to_heatmap
from skeletongait.pictures import LEFT_RGB, MIDDLE_RGB, RIGHT_RGB
from skeletongait.viewers.player import paint
from skeletongait.poses.joints import COCO17_FROM, JOINTS
from skeletongait.files.arrays import load_array
from skeletongait.pretreatment_heatmap import pretreatment_heatmap
from skeletongait.viewers.studio import (
    BONES, LEVELS, SIDES, HeatmapStudio, body_box, draw_skeleton, drawing_command, joint_levels, same_walk,
    save_settings)
from skeletongait.walkers.recording import make_sequence

REC = make_sequence(seed=1, subject=2, type='nm-01', view='090', n_frames=30)
POSE, SIL = REC.pose.copy(), REC.silhouette
POSE[10:14, 15], POSE[20:24, 9, 2] = 0, .2


def studio(*args, **kwargs):
    made = HeatmapStudio(*(args or (POSE, SIL)), **kwargs)
    assert made.problem == ''
    return made

def set_controls(s, **values):
    for name, value in values.items():
        getattr(s, name).value = value

def level_of(png):
    "The grey levels `(h, w)` behind a painted map's PNG."
    rgb = cv2.imdecode(np.frombuffer(png, np.uint8), 1)[..., ::-1].astype(int)
    colours = paint(np.arange(256)).astype(int)
    number = {tuple(c): i for i, c in enumerate(colours)}
    return np.array([[number[tuple(c)] for c in row] for row in rgb], np.uint8)

def every(widget):
    "A widget and all that is in it."
    return [widget] + [w for child in getattr(widget, 'children', ()) for w in every(child)]

def seen(s): return np.stack([level_of(s.panels[name].image.value) for name in ('limb map', 'joint map')])


# the pose as a picture

def test_sides():
    for name, rgb in zip(JOINTS, SIDES, strict=True):
        assert (rgb == LEFT_RGB) == ('left' in name)
        assert (rgb == RIGHT_RGB) == ('right' in name)
        assert (rgb == MIDDLE_RGB) == (name == 'nose')
    # the limb between the hips belongs to neither side
    assert [BONES.count(c) for c in (LEFT_RGB, RIGHT_RGB, MIDDLE_RGB)] == [8, 8, 1]


def test_skeleton():
    box = body_box(POSE[..., :2])
    assert all(box[0] < x < box[2] and box[1] < y < box[3] for x, y in POSE[..., :2].reshape(-1, 2) if x and y)
    shapes = {draw_skeleton(p, box).shape for p in POSE}
    assert len(shapes) == 1 and shapes.pop()[0] == 288
    lost, ring = draw_skeleton(POSE[11], box), draw_skeleton(POSE[11], box, impute_joints(POSE)[11])
    scale = 288/(box[3] - box[1])  # by height: the box is not so wide that it would be narrowed
    x, y = ((impute_joints(POSE)[11, 15] - box[:2])*scale).round().astype(int)
    assert (lost[y, x] == 255).all()
    assert (ring[y, x] == 255).all()
    assert (ring[y-8:y+9, x-8:x+9] == LEFT_RGB).all(-1).any()
    assert not (lost[y-8:y+9, x-8:x+9] == LEFT_RGB).all(-1).any()
    bold = draw_skeleton(POSE[0], box, fade=False)
    assert (bold == LEFT_RGB).all(-1).any() and (bold == RIGHT_RGB).all(-1).any()
    np.testing.assert_array_equal(draw_skeleton(POSE[0, :, :2], box), bold)  # no confidences: nothing is pale
    assert bold.astype(int).sum() < draw_skeleton(POSE[0] * [1, 1, .1], box).astype(int).sum() < 255*bold.size


def test_skeleton_keeps_its_scale_and_fits():
    wide = body_box(np.array([[[10., 10]], [[2000., 60]]]))
    a, b = draw_skeleton(np.zeros((17, 3)), wide), draw_skeleton(POSE[0], body_box(POSE[:1, :, :2]))
    assert a.shape == (288, 396, 3) and (a == 255).all() and b.shape[0] == 288
    assert draw_skeleton(np.zeros((17, 2))).shape[0] == 288  # nobody at all
    assert draw_skeleton(np.full((17, 3), 1e12), wide).shape == a.shape  # far outside


# found, doubted, missing, off

def test_levels():
    cfg = HeatmapConfig(min_conf=.25, joints_off=('nose', 'left_ankle'))
    levels = joint_levels(POSE, cfg)
    assert levels.shape == (17, 30) and levels.dtype == np.uint8 and len(LEVELS) == 4
    assert (levels[[0, 15]] == 3).all() and (levels[9, 20:24] == 1).all()
    plain = joint_levels(POSE, HeatmapConfig())
    np.testing.assert_array_equal(plain == 2, (POSE[..., :2] == 0).any(-1).T)
    assert set(np.unique(plain)) <= {0, 2} and (joint_levels(POSE[..., :2], HeatmapConfig(min_conf=1.)) == plain).all()


# settings leave as a file

def test_save_settings(tmp_path):
    cfg = HeatmapConfig(sigma=2.5, min_conf=.3, joints_off=('left_knee',), align=False, final_img_size=32)
    for name in ('a.yaml', 'new/b.yml'):
        path = save_settings(cfg, tmp_path/name)
        assert load_heatmap_config(path) == cfg
    assert load_heatmap_config(save_settings(HeatmapConfig(), path)) == HeatmapConfig()  # settings replace settings
    others = {'notes.yaml': 'my notes', 'run.yaml': 'trainer_cfg: {total_iter: 3}', 'bad.yaml': 'a: ['}
    for name, content in others.items():
        (tmp_path/name).write_text(content)
        with pytest.raises(SkeletonGaitError, match=f'{name}.*choose another name'):
            save_settings(cfg, tmp_path/name)
        assert (tmp_path/name).read_text() == content
    (tmp_path/'folder.yaml').mkdir()
    (tmp_path/'link.yaml').symlink_to(tmp_path/'nowhere.yaml')
    for name in ('folder.yaml', 'link.yaml'):
        with pytest.raises(SkeletonGaitError, match='choose another name'):
            save_settings(cfg, tmp_path/name)
    for name in ('x.txt', 'x', '', '.yaml'):
        with pytest.raises(SkeletonGaitError, match='found the ending .* give a name that ends in .yaml or .yml'):
            save_settings(cfg, tmp_path/name)
    with pytest.raises(SkeletonGaitError, match='^settings: found no name; give a name that ends in .yaml or .yml$'):
        save_settings(cfg, '')
    words = shlex.split(drawing_command(tmp_path/"it's a name.yaml"))
    assert words[-1] == f"--heatmap_cfg_path={tmp_path}/it's a name.yaml"


# the studio

def test_shows_the_librarys_maps():
    s, want = studio(), pose_to_heatmap(POSE)
    assert s.settings == HeatmapConfig() and (s.n_frames, len(s.panels)) == (30, 4)
    for t in (0, 11, 29):
        s.player.index = t
        np.testing.assert_array_equal(seen(s), want[t])
        png = np.frombuffer(s.panels['silhouette'].image.value, np.uint8)
        np.testing.assert_array_equal(cv2.imdecode(png, 0), SIL[t])


@settings(max_examples=12, deadline=None)
@given(
    st.builds(
        dict, sigma=st.sampled_from([.5, 1.7, 4., 16.]), min_conf=st.sampled_from([0., .25, .4]),
        method=st.sampled_from(['knn', 'simple']), impute_others=st.booleans(), use_conf=st.booleans(),
        align=st.booleans(), size=st.sampled_from([32, 64, 128])),
    st.sets(st.sampled_from(JOINTS)), st.integers(0, 29))
def test_every_control(changes, off, t):
    s = studio(POSE)
    s.player.index = t
    with s.together():
        set_controls(s, **changes)
        for name in off:
            s.joints[name].value = False
    names = dict(method='pad_method', size='final_img_size')
    cfg = HeatmapConfig(**{names.get(k, k): v for k, v in changes.items()}, joints_off=tuple(off))
    assert s.settings == cfg and s.notice.value == ''
    np.testing.assert_array_equal(seen(s), pose_to_heatmap(POSE, cfg)[t])
    alone = studio(POSE, cfg=cfg)  # the same by the front door
    alone.player.index = t
    assert [p.image.value for p in alone.panels.values()] == [p.image.value for p in s.panels.values()]
    assert alone.wanted() == cfg


def test_buttons_and_one_drawing():
    s = studio()
    count, show = [], s.show
    s.show = lambda t: (count.append(t), show(t))
    not_left = [n for n in JOINTS if 'left' not in n]
    not_right = [n for n in JOINTS if 'right' not in n]
    for which, off in (('none', JOINTS), ('all', ()), ('only left', not_left), ('only right', not_right)):
        count.clear()
        s.buttons[which].click()
        assert s.settings.joints_off == tuple(off) and count == [0]
    s.buttons['none'].click()
    assert not seen(s).any()


def test_imputation_before_and_after():
    s = studio()
    s.player.index = 11
    before, maps = s.panels['skeleton'].image.value, seen(s)
    s.imputed.value = True
    assert s.panels['skeleton'].image.value != before
    assert (seen(s) == maps).all()  # it changes what is shown, not the maps
    s.joints['left_ankle'].value = False  # the one that is missing there: no ring
    assert s.panels['skeleton'].image.value == before and not (seen(s) != maps).any()
    s.joints['left_ankle'].value, s.joints['left_knee'].value = True, False
    assert s.panels['skeleton'].image.value != before and (seen(s) != maps).any()
    s.imputed.value, s.joints['left_knee'].value = False, True
    assert s.panels['skeleton'].image.value == before and (seen(s) == maps).all()


def test_stages_1_to_3_run_once_for_settings_that_move_nothing(monkeypatch):
    calls = []
    def counted(*args):
        calls.append(args)
        return place_joints(*args)
    monkeypatch.setattr('skeletongait.viewers.studio.place_joints', counted)
    s = studio()
    s.sigma.value = 3.
    s.align.value = False
    s.size.value = 32
    s.joints['nose'].value = False
    s.player.index = 9
    assert len(calls) == 1
    s.min_conf.value = .3
    s.min_conf.value = 0.
    assert len(calls) == 2


def test_what_the_library_refuses_is_a_notice():
    s = studio()
    s.player.index = 12
    kept = s.settings, [p.image.value for p in s.panels.values()], s.timeline.image.value
    s.min_conf.value = 1.
    for word in (
        'in 29 of 30 frames (0, 1, 2 ...) no joint, or too few, reaches confidence 1.00; lower it',
        'still show the last settings that could be drawn',
    ):
        assert word in s.notice.value
    assert (s.settings, [p.image.value for p in s.panels.values()], s.timeline.image.value) == kept
    s.player.index = 13  # it still plays
    np.testing.assert_array_equal(seen(s), pose_to_heatmap(POSE)[13])
    s.min_conf.value = .2
    assert s.notice.value == '' and s.settings.min_conf == .2


def test_what_the_library_refuses_is_not_saved(tmp_path):
    s = studio()
    s.save_name.value, s.keep_name.value = str(tmp_path/'refused.yaml'), str(tmp_path/'shown.png')
    s.save_button.click()
    assert load_heatmap_config(tmp_path/'refused.yaml') == HeatmapConfig() and s.saved.value
    (tmp_path/'refused.yaml').unlink()
    s.min_conf.value = 1.
    said = s.notice.value
    s.save_button.click()
    assert s.notice.value == said and s.saved.value == '' and not (tmp_path/'refused.yaml').exists()
    s.keep_button.click()  # pictures of what is shown; the notice remains
    assert s.notice.value == said and (tmp_path/'shown.png').exists()
    s.keep_name.value = str(tmp_path/'shown.jpg')
    s.min_conf.value = 0.
    s.keep_button.click()
    assert 'shown.jpg' in s.notice.value


def test_a_threshold_that_leaves_some_frames_bare():
    pose = POSE.copy()
    pose[:, :, 2] = np.where(np.arange(30)[:, None] < 2, .1, .8)
    pose[:, 0, 2] = .1  # one joint is never seen: nothing is imputed, as published
    s = studio(pose)
    s.min_conf.value = .5
    assert 'in 2 of 30 frames (0, 1) no joint' in s.notice.value
    s.impute_others.value = True
    assert s.notice.value == '' and s.settings.impute_others and s.settings.min_conf == .5
    problem = HeatmapStudio(pose, cfg=HeatmapConfig(min_conf=.5)).problem
    assert 'in 2 of 30 frames (0, 1) no joint, or too few, reaches confidence 0.50; lower it' in problem
    assert 'still show' not in problem  # nothing is shown


@pytest.mark.parametrize('cfg', [
    HeatmapConfig(),
    HeatmapConfig(sigma=3.333, min_conf=.123, align=False, joints_off=('nose',)),
    HeatmapConfig(sigma=.07, final_img_size=48),
])
def test_sliders_that_count_in_steps_change_no_setting(cfg):
    s = studio(POSE, cfg=cfg)
    for slider in (s.sigma, s.min_conf):  # as a browser's slider counts
        slider.value = slider.min + round((slider.value - slider.min)/slider.step)*slider.step + 1e-15
    assert s.settings == s.wanted() == cfg
    s.sigma.value, s.min_conf.value = .5 + 28*.1, .1 + .2
    assert (s.settings.sigma, s.settings.min_conf) == (3.3 if cfg.sigma != 3.333 else 3.333, .3)


@pytest.mark.parametrize('cfg,name', [
    (HeatmapConfig(), 'Published settings'),
    (HeatmapConfig(sigma=3., joints_off=('nose',)), 'Settings as given'),
])
def test_back_to_the_beginning(cfg, name):
    s = studio(POSE, cfg=cfg)
    shown = [p.image.value for p in s.panels.values()]
    with s.together():
        set_controls(
            s, sigma=2., min_conf=.2, method='simple', impute_others=True, use_conf=False, align=False, size=32)
    assert s.settings == s.wanted() != cfg
    with s.together():
        s.method.value = 'knn'
        s.impute_others.value = False
        s.min_conf.value = 1.
    assert s.notice.value
    s.buttons['only left'].click()
    s.reset_button.click()
    assert s.reset_button.description == name
    assert s.notice.value == ''
    assert s.settings == cfg
    assert [p.image.value for p in s.panels.values()] == shown


def test_keys_and_remarks():
    s = studio()
    page = '\n'.join(w.value for w in every(s) if isinstance(w, W.HTML))
    for name, colour in {**LEVELS, 'left': LEFT_RGB, 'right': RIGHT_RGB, 'middle': MIDDLE_RGB}.items():
        assert f'background: rgb{tuple(colour)}"></span>{name}' in page
    assert 'paler: less confident' in page and 'imputed</div>' in page and '<span>frame 0</span><span>29</span>' in page
    s.buttons['none'].click()
    assert 'all joints are switched off' in s.remarks.value
    s.buttons['all'].click()
    assert s.remarks.value == ''
    s.save_name.value = ' '
    s.save_button.click()
    assert 'give a name that ends in .yaml or .yml' in s.notice.value


def test_saved_settings_draw_the_same_bytes(tmp_path):
    s = studio()
    with s.together():
        set_controls(s, sigma=3.3, min_conf=.25, use_conf=False, size=32)
        s.joints['right_knee'].value = False
    s.save_name.value = str(tmp_path/'found.yaml')
    s.save_button.click()
    assert s.notice.value == ''
    assert 'skeletongait.pretreatment_heatmap' in s.saved.value
    assert load_heatmap_config(tmp_path/'found.yaml') == s.settings
    save_pickle(POSE, tmp_path/'poses'/'002'/'nm-01'/'090'/'090.pkl')
    poses, maps = str(tmp_path/'poses'), str(tmp_path/'maps')
    assert pretreatment_heatmap(poses, maps, 'CASIA-B', heatmap_cfg_path=s.save_name.value) == 0
    drawn = load_array(tmp_path/'maps'/'CASIA-B_sigma_3.3_'/'pkl'/'002'/'nm-01'/'090'/'090.pkl')
    for t in (0, 11, 21):
        s.player.index = t
        np.testing.assert_array_equal(seen(s), drawn[t])
    (tmp_path/'notes.yaml').write_text('my notes')
    s.save_name.value = str(tmp_path/'notes.yaml')
    s.save_button.click()
    assert 'choose another name' in s.notice.value
    assert s.saved.value == ''
    assert (tmp_path/'notes.yaml').read_text() == 'my notes'


def body25(pose):
    out = np.zeros((len(pose), 25, 3), pose.dtype)
    out[:, COCO17_FROM[25]] = pose
    return out

@pytest.mark.parametrize('pose,says', [
    (body25(POSE), '25 joints: reordered'),
    (POSE[..., :2], 'no confidences'),
    (np.concatenate([np.zeros((30, 2)), POSE.reshape(30, 51)], 1), ''),
    (POSE[:1], ''),
    (POSE.astype(np.float64), ''),
])
def test_other_forms_of_poses(pose, says):
    s = studio(pose)
    assert says in s.remarks.value and (says or not s.remarks.value)
    np.testing.assert_array_equal(seen(s), pose_to_heatmap(pose)[0])
    s.figure()
    assert s.snapshot(0).dtype == np.uint8


def nan():
    bad = POSE.copy()
    bad[3, 2, 0] = np.nan
    return bad

@pytest.mark.parametrize('args,says', [
    ((nan(),), 'frame 3: NaN'),
    ((nan(), None, HeatmapConfig(min_conf=.5)), 'frame 3: NaN'),
    ((POSE*0,), 'expected a body with some height'),
    ((POSE[:0],), 'found no frame'),
    ((SIL,), 'found an array of shape (30, 64, 64)'),
    ((None,), 'found a NoneType'),
    (('a.pkl',), 'found a str'),
    (([[1], [2, 3]],), 'found a list'),
    ((POSE, SIL[:0]), 'silhouette: found an empty array'),
    ((POSE, [[1], [2, 3]]), 'silhouette: found rows of different lengths'),
    ((POSE, POSE), 'silhouette: found an array of shape (30, 17, 3)'),
    ((POSE, np.stack([SIL, SIL], 1)), 'silhouette: found 2 channels'),
    ((POSE, None, {'sigma': 3}), 'it belongs at heatmap_generator_args.sigma'),
    ((POSE, None, 'no/such.yaml'), 'no/such.yaml: cannot be read'),
    ((POSE, None, {'heatmap_generator_args': {'joints_off': ['left_nee']}}), 'did you mean left_knee?'),
])
def test_wrong_input_is_a_message(args, says):
    s = HeatmapStudio(*args)
    assert says in s.problem and len(s.children) == 1 and s._repr_mimebundle_()['text/plain'] == s.problem
    with pytest.raises(SkeletonGaitError, match='nothing to save'):
        s.save_animation('x.gif')


def test_other_lengths_are_remarked():
    assert same_walk(30, None) == (None, 30, '')
    for n in (12, 30):
        s = studio(POSE, SIL[:n])
        assert s.n_frames == n == s.player.slider.max + 1 and ('first 12 of both' in s.remarks.value) == (n == 12)
        np.testing.assert_array_equal(seen(s), pose_to_heatmap(POSE)[0])  # imputation still asks all frames
    s = studio(POSE[:12], SIL)
    assert s.n_frames == 12 and '12 frames of poses but 30 silhouettes' in s.remarks.value
    assert (same_walk(30, SIL > 0)[0] == 255*(SIL > 0)).all()
    assert (same_walk(30, (SIL > 0).astype(np.uint8))[0] == 255*(SIL > 0)).all()


def test_from_files(tmp_path):
    pose, sil, flat = tmp_path/'p.pkl', tmp_path/'s.npy', tmp_path/'flat.pkl'
    save_pickle(POSE, pose)
    np.save(sil, SIL)
    save_pickle(POSE*0, flat)
    (tmp_path/'c.yaml').write_text('heatmap_generator_args: {sigma: 20}\nalign_args: {final_img_size: 48}\n')
    s = HeatmapStudio.from_files(pose, sil, cfg=tmp_path/'c.yaml', fps=10)
    assert s.problem == ''
    assert (s.settings.sigma, s.settings.final_img_size, s.fps, len(s.panels)) == (20, 48, 10, 4)
    assert s.sigma.value == 20
    for args, says in (
        ((tmp_path/'none.pkl',), 'none.pkl'),
        ((pose, tmp_path/'none.pkl'), 'none.pkl'),
        ((sil,), f'{sil}: found an array of shape'),
        ((flat, sil), f'{flat} and {sil}: frames 0'),
        ((pose, None, tmp_path/'none.yaml'), f'{tmp_path}/none.yaml: cannot be read'),
        ((tmp_path/'a.txt',), '.pkl, .npy, .npz'),
    ):
        s = HeatmapStudio.from_files(*args)
        assert says in s.problem and s.problem.count('none.yaml') <= 1 and isinstance(s, HeatmapStudio)


def test_pictures(tmp_path):
    s = studio()
    assert len({s.snapshot(t).shape for t in (0, 11, 29)}) == 1 and len(s.figure().axes) == 4*8 + 1
    with Image.open(s.save_animation(tmp_path/'walk.gif', range(0, 30, 6))) as gif:
        assert gif.n_frames == 5
    assert 'image/png' in s._repr_mimebundle_()


def test_names_of_files_are_text():
    s = studio()
    s.save_name.value = '<img src=x onerror=alert(1)>.txt'
    s.save_button.click()
    assert '&lt;img' in s.notice.value and '<img' not in s.notice.value


@pytest.mark.parametrize('sil, remark', [
    (np.ones((60, 8, 8), np.uint8), 'levels 0 and 1'),
    (np.ones((60, 8, 8), bool), ''),
    (np.zeros((60, 8, 8), np.uint8), ''),
    (np.full((60, 8, 8), 7, np.uint8), ''),
])
def test_brightened_silhouettes_are_remarked(sil, remark):
    shown, n, says = same_walk(60, sil)
    assert shown.max() == {1: 255}.get(int(sil.max()), sil.max())
    assert n == 60
    assert remark in says if remark else says == ''


@pytest.mark.parametrize('name', ['~nobody-of-this-name/x.yaml', 'a\0b.yaml', '/proc/nowhere/x.yaml'])
def test_names_that_cannot_be_written_are_a_notice(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    studio = HeatmapStudio(POSE)
    studio.save_name.value = name
    studio.save_button.click()
    assert bool(studio.notice.value) == (name[0] != '~') and len(list(tmp_path.rglob('*.yaml'))) == (name[0] == '~')


def test_home_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert save_settings(HeatmapConfig(), '~/x.YAML') == tmp_path/'x.YAML' and (tmp_path/'x.YAML').is_file()
