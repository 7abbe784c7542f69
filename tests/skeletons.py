"Golden maps, and poses to draw."
from dataclasses import replace

import numpy as np
import torch

from goldens import GOLDEN as GOLDEN_FOLDER

from skeletongait.maps.settings import HeatmapConfig
from skeletongait.maps.heatmap import draw_maps, place_joints
from skeletongait.maps.renderer_torch import draw_maps_torch


GOLDEN = np.load(GOLDEN_FOLDER/'heatmap.npz')


CASES = sorted(k.removeprefix('in_') for k in GOLDEN.files if k.startswith('in_'))


SETTINGS = {'coco18': {'coco18tococo17_args': {'transfer_to_coco17': True}},
            'coco18_missing': {'coco18tococo17_args': {'transfer_to_coco17': True}},
            'sigma4': {'heatmap_generator_args': {'sigma': 4}},
            'sigma2p5': {'heatmap_generator_args': {'sigma': 2.5}},
            'noalign': {'align_args': {'align': False}},
            'size48': {'align_args': {'final_img_size': 48}},
            'sigma4_offset2': {'heatmap_generator_args': {'sigma': 4}, 'align_args': {'offset': 2}}}


def walk(n=12, dtype='f8', seed=0):
    "A pose sequence `(n, 17, 3)` of one body that jitters."
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 15, (17, 2)) + np.linspace((300, 100), (300, 280), 17)
    xy = base + rng.normal(0, 3, (n, 17, 2))
    return np.concatenate([xy, rng.uniform(.3, 1, (n, 17, 1))], -1).astype(dtype)


def apart(joints, cfg=HeatmapConfig(), sigma=None, device='cpu', **kwargs):
    "Largest difference in grey levels to the compiled version."
    sigma_n = None if sigma is None else torch.as_tensor(sigma)
    made = draw_maps_torch(torch.from_numpy(joints).to(device), cfg, sigma_n, **kwargs).cpu().numpy()
    sigmas = [cfg.sigma]*len(joints) if sigma is None else sigma
    want = np.concatenate([draw_maps(j[None], replace(cfg, sigma=float(s))) for j, s in zip(joints, sigmas)])
    assert made.dtype == np.uint8 and made.shape == want.shape
    return np.abs(made.astype(int) - want).max()


def walkers(n_sequences, n=20):
    "Placed joints of bodies with low and high confidences, some joints far off."
    rng, out = np.random.default_rng(5), []
    for seed in range(n_sequences):
        joints = place_joints(walk(n, seed=seed))
        joints[rng.random((n, 17)) < .1, 2] = 1e-3*rng.choice([.999, 1, 1.001])
        joints[..., 2] *= rng.uniform(.2, 1)
        out.append(joints)
    return np.concatenate(out)
