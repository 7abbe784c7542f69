"""Skeleton maps the plain way: one frame, one bump and one array at a time.

The oracle of the tests and the baseline of the benchmark.
"""
import cv2
import numpy as np
from sklearn.impute import KNNImputer

from skeletongait.poses.joints import LIMBS

GREY = (np.linspace(0, 1, 256)*255).astype(np.uint8)
JOINT_ENDS = [(i, i) for i in range(17)]


def impute(xy):
    "Holes of `(T, V, 2)` filled by scikit-learn alone; nothing is filled if some coordinate is never seen."
    table = np.ascontiguousarray(xy).reshape(len(xy), -1)
    if (table == 0).all(0).any(): return xy
    filled = KNNImputer(missing_values=0, n_neighbors=4, weights='distance').fit_transform(table)
    return filled.reshape(xy.shape).astype(xy.dtype)


def place(xy, size=128):
    "Centred at the hips and scaled to a height of `size // 1.5`, in the middle of the image."
    xy = xy - ((xy[:, 11] + xy[:, 12])/2)[:, None]
    return xy*((size//1.5)/np.ptp(xy[..., 1], axis=1))[:, None, None] + size//2


def span(lo, hi, size):
    "The part of a box along one axis that lies in the image."
    return slice(max(int(lo), 0), max(min(int(hi) + 1, size), 0))


def bump(a, b, s_a, s_b, sigma, shape):
    "One limb (or joint, where a is b): its values, and the pixels of its box; None if it draws nothing."
    c = min(s_a, s_b)
    if c < 1e-3: return None
    u = b - a
    short = (u*u).sum() < 1
    if short:
        b, c = a, s_a
    low, high = np.minimum(a, b) - 3*sigma, np.maximum(a, b) + 3*sigma
    box = span(low[1], high[1], shape[0]), span(low[0], high[0], shape[1])
    y, x = (np.arange(o.start, o.stop, dtype=np.float64) for o in box)  # float32 would make numpy 1 compute in float32
    if short:
        d2 = (x - a[0])**2 + (y[:, None] - a[1])**2
    else:
        w = np.clip(((x - a[0])*u[0] + (y[:, None] - a[1])*u[1])/(u*u).sum(), 0, 1)
        d2 = ((np.stack(np.meshgrid(x, y), -1) - (a + w[..., None]*u))**2).sum(-1)
    return c*np.exp(-d2/2/sigma**2), box


def image(k, s, ends, sigma, shape):
    "One grey map of one frame, before alignment."
    stack = np.zeros((len(ends), *shape), np.float32)
    for layer, (i, j) in zip(stack, ends):
        made = bump(k[i], k[j], s[i], s[j], sigma, shape)
        if made is not None:
            layer[made[1]] = made[0]
    return GREY[np.minimum((stack.max(0)*np.float32(256)).astype(int), 255)]


def fit(grey, size=64, align=True, offset=0, centre=64):
    "Cut to the rows that are not empty and to as many columns, then resized."
    rows = np.flatnonzero(grey.any(1))
    if align and not len(rows): return np.zeros((size, size), np.uint8)
    if align:
        top, bottom = rows[0], rows[-1]
        half = (bottom - top + 1)//2
        grey = grey[max(top - offset, 0):bottom + offset + 1, max(centre - half, 0):centre + half + 1]
    return (cv2.resize(grey/255., (size, size), interpolation=cv2.INTER_AREA)*255).astype(np.uint8)


def draw(joints, sigma=8., shape=(128, 128), **aligned):
    "Both maps of every frame of placed joints `(T, 17, 3)`."
    def both(frame):
        images = (image(frame[:, :2], frame[:, 2], ends, sigma, shape) for ends in (LIMBS, JOINT_ENDS))
        return [fit(grey, **aligned) for grey in images]
    return np.array([both(frame) for frame in joints])


def heatmap(pose, sigma=8.):
    "Skeleton maps of `(T, 17, 3)` with the published settings."
    placed = place(impute(pose[..., :2]))
    return draw(np.concatenate([placed, pose[..., 2:]], -1), sigma)
