"What is wrong with maps and silhouettes."

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skeletongait.maps.heatmap import pose_to_heatmap
from skeletongait.maps.quality import KINDS, good_size, map_findings, silhouette_findings
from skeletongait.maps.settings import HeatmapConfig
from skeletongait.prepare.link_tree import mismatch
from skeletongait.walkers.recording import make_sequence

WALK = make_sequence(0, 1, 'nm-01', '090', 30)
MAPS, SILHOUETTES = pose_to_heatmap(WALK.pose), WALK.silhouette


def kinds(found):
    return {f.kind for f in found}


def with_gap(x, n):
    x = x.copy()
    x[:n] = 0
    return x


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 99),
    st.sampled_from(['nm-01', 'bg-01', 'cl-01']),
    st.integers(0, 359),
    st.sampled_from([1.0, 4.0, 8.0, 16.0]),
    st.booleans(),
)
def test_walkers_are_accused_of_nothing(subject, type, view, sigma, use_conf):
    walk = make_sequence(5, subject, type, f'{view:03d}', 20)
    maps = pose_to_heatmap(walk.pose, HeatmapConfig(sigma=sigma, use_conf=use_conf))
    assert map_findings(maps) == [] and silhouette_findings(walk.silhouette) == []
    assert silhouette_findings(walk.silhouette[..., 10:54]) == []


FAULTS = [
    (map_findings, MAPS[:9], {'few frames'}),
    (map_findings, with_gap(MAPS, 3), {'black frame'}),
    (map_findings, MAPS.astype('f4'), {'float frames'}),
    (map_findings, MAPS.astype('i4'), {'wrong type'}),
    (map_findings, MAPS[..., :40], {'odd size'}),
    (map_findings, 255 * (MAPS > 99).astype('u1'), {'binary map'}),
    (map_findings, MAPS[[3] * 20], {'repeated frame'}),
    (map_findings, pose_to_heatmap(WALK.pose * np.float32([1, 1, 5])), {'white blobs'}),
    (map_findings, MAPS / np.float32(255), {'float frames', 'values 0 to 1'}),
    (silhouette_findings, SILHOUETTES // 255, {'values 0 to 1'}),
    (silhouette_findings, 255 - SILHOUETTES, {'inverted silhouette'}),
    (silhouette_findings, with_gap(SILHOUETTES, 20), {'black frame'}),
    (silhouette_findings, SILHOUETTES > 0, {'wrong type', 'values 0 to 1'}),
    (silhouette_findings, np.zeros_like(SILHOUETTES), {'black frame'}),
]


@pytest.mark.parametrize('look, x, want', FAULTS, ids=lambda o: str(o) if isinstance(o, set) else '')
def test_faults(look, x, want):
    found = look(x)
    assert kinds(found) == want
    assert all(f.error == (f.n >= KINDS[f.kind].fatal * f.of) and f.of == len(x) for f in found)


def test_half_of_the_frames_decide():
    assert [map_findings(with_gap(MAPS, n))[0].error for n in (14, 15)] == [False, True]


@given(st.sampled_from([32, 64, 96, 128, 256]), st.integers(1, 300))
def test_good_sizes_are_those_that_link(height, width):
    x = np.ones((2, height, width), np.uint8)
    assert good_size(height, width) == (mismatch(MAPS, x) is None)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.sampled_from(['u1', 'i2', 'f4', '?']), st.integers(0, 2**32 - 1))
def test_any_frames_are_looked_at(n, side, dtype, seed):
    x = (np.random.default_rng(seed).normal(size=(n, 2, side, side)) * 200).astype(dtype)
    if x.dtype.kind == 'f':
        x[0, 0, 0, 0] = np.nan
    assert kinds(map_findings(x) + silhouette_findings(x[:, 0])) <= {*KINDS}
