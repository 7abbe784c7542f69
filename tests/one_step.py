"""A training step of every small network, in the process that `test_processors` starts: `python one_step.py
PRECISION WIDTHS FILE`.

Prints each case before it begins, so that the last line names the one that ended the process.
"""

import json
import sys
import zlib

import numpy as np
import torch

from skeletongait.runs.config import load_config
from skeletongait.files.settings import to_dict
from skeletongait.nets.losses import LossAggregator
from skeletongait.nets.models import MODES, build_model
from skeletongait.runs.trainer import autocast

CPU = torch.device('cpu')
NECK = dict(class_num=2)


def cases(widths):
    "Name -> settings of a network, for every width of the first stage; the others are as wide, or 8, or 24 wide."
    found = {}
    for w in widths:
        for mode in MODES:
            narrow = dict(in_channels=2, layers=[1] * 4, channels=[w, 8, w, 24], mode=mode)
            found[f'SkeletonGait {mode} {w}'] = dict(model='SkeletonGait', Backbone=narrow, SeparateBNNecks=NECK)
        for fusion in ('attention', 'CatFusion', 'PlusFusion'):
            two_streams = dict(in_channels=3, blocks=[1] * 4, C=w / 32, fusion=fusion)
            found[f'SkeletonGait++ {fusion} {w}'] = dict(
                model='SkeletonGaitPP', Backbone=two_streams, SeparateBNNecks=NECK
            )
    return found


def sketch(name, gradient):
    "Two numbers that a wrong gradient changes: its length, and its part along a direction drawn from its name."
    direction = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(gradient.numel())
    direction = torch.from_numpy(direction / np.linalg.norm(direction))
    gradient = gradient.double().flatten()
    return [gradient.norm().item(), (gradient @ direction).item()]


def one_step(model_cfg, precision, frames):
    """Losses before and after a step, and a sketch of every gradient. Batch norms keep still: a batch of four is
    too small for them."""
    kind = torch.float64 if precision == 'float64' else torch.float32
    model = build_model(model_cfg).to(kind).eval()
    loss = LossAggregator(to_dict(load_config('demo_skeletongait')[0])['loss_cfg'])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = np.random.default_rng(0).random((4, frames, model.in_channels, 64, 44), dtype=np.float32)
    x, labels, losses = torch.from_numpy(x).to(kind), torch.tensor([0, 0, 1, 1]), []
    for _ in range(2):
        with autocast(CPU, precision == 'bfloat16'):
            out = model(x)
        total, _ = loss(out, labels)
        losses.append(total.item())
        if len(losses) == 1:
            total.backward()
            sketches = {k: sketch(k, p.grad) for k, p in model.named_parameters() if p.grad is not None}
            optimizer.step()
    return dict(losses=losses, sketches=sketches)


def main(precision, widths, file):
    torch.set_num_threads(1)
    results = {}
    for i, (name, model_cfg) in enumerate(cases(json.loads(widths)).items()):
        print(name, flush=True)
        results[name] = one_step(
            model_cfg, precision, frames=2 + i // 6 % 2
        )  # two frames of one width, three of the next
    with open(file, 'w', encoding='utf-8') as f:
        json.dump(results, f)


if __name__ == '__main__':
    main(*sys.argv[1:])
