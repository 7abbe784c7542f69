"Six walkers and a network that trains in seconds, for the tests of training."
import io
import logging
import math

import numpy as np
import torch

from skeletongait.data.loader import Batch
from skeletongait.distributed import Ranks
from skeletongait.files.text import save_text
from skeletongait.runs.config import load_config
from skeletongait.files.settings import to_yaml
from skeletongait.walkers.datasets import write_linked


def make_walkers(root):
    "Six walkers as a linked tree, and a partition."
    write_linked(root, n_subjects=6, n_train=4, types=('nm-01', 'bg-01'), views=('000', '090'), n_frames=10)
    return root


def small(cfg):
    "Four subjects, a network of a few channels, plain SGD."
    if cfg.model_cfg.model == 'SkeletonGait':
        cfg.model_cfg.Backbone.channels = [4, 4, 8, 8]
    cfg.model_cfg.SeparateBNNecks.class_num = 4
    cfg.optimizer_cfg.solver = 'SGD'
    cfg.optimizer_cfg.arguments = dict(lr=.02, momentum=.9)
    cfg.scheduler_cfg.scheduler = 'MultiStepLR'
    return cfg


def tiny(root, name='demo_skeletongait', **trainer):
    "Settings of a run that takes seconds: a tiny network, plain SGD."
    cfg = small(load_config(name)[0])
    cfg.data_cfg.dataset_root = str(root/'linked')
    cfg.data_cfg.dataset_partition = str(root/'partition.json')
    cfg.data_cfg.num_workers = 0
    cfg.scheduler_cfg.arguments = dict(milestones=[4])
    cfg.evaluator_cfg.restore_hint = None
    cfg.evaluator_cfg.protocol = dict(gallery=dict(types=['nm-01']), probe=dict(types=['bg-01']), exclude=['view'])
    t = cfg.trainer_cfg
    t.total_iter = 6
    t.log_iter = 2
    t.save_iter = 3
    t.sampler.batch_size = [4, 2]
    t.sampler.frames_num_fixed = 4
    for k, v in trainer.items():
        setattr(t, k, v)
    return cfg


def write_config(cfg, path):
    "Save settings where a script reads them."
    save_text(to_yaml(cfg), path)
    return path


def toy(name='demo_skeletongait', **trainer):
    "Settings of a tiny network, that need no data."
    cfg = small(load_config(name)[0])
    cfg.scheduler_cfg.arguments = dict(milestones=[4], gamma=.1)
    cfg.trainer_cfg.total_iter = 12
    for k, v in trainer.items():
        setattr(cfg.trainer_cfg, k, v)
    return cfg


def toy_batch(cfg, iteration):
    "Four subjects, two sequences of two frames each; the same for the same seed and iteration."
    rng = np.random.default_rng([cfg.trainer_cfg.seed, iteration])
    frames = rng.integers(0, 256, (8, 2, cfg.model_cfg.Backbone.in_channels, 64, 44), dtype=np.uint8)
    return Batch(
        frames=torch.from_numpy(frames),
        lengths=None,
        labels=torch.arange(8)//2,
        types=['nm']*8,
        views=['000']*8,
        names=[f'00{i//2}-nm-{i%2}' for i in range(8)],
        iteration=iteration,
    )


def steps(trainer, cfg, upto):
    "Train to an iteration; what was logged on the way."
    trainer.train_mode()
    logged = []
    for _ in range(upto - trainer.iteration):
        info = trainer.step(toy_batch(cfg, trainer.iteration))
        logged.append({k: v.detach().clone() for k, v in info.items()})
    return logged


def equal(a, b):
    "Are two states the same to the last bit?"
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b or a != a and b != b


def saved(state, **kwargs) -> bytes:
    "A state as `torch.save` writes it."
    f = io.BytesIO()
    torch.save(state, f, **kwargs)
    return f.getvalue()


def quiet_log():
    "Remove the handlers that a script has added to the log."
    logging.getLogger('skeletongait').handlers = []


LARGEST_SCALE = 2.**10


def with_scale(trainer, init_scale, growth_interval=2000):
    "A loss scale on the CPU; gradients overflow beyond `LARGEST_SCALE`, on every processor alike."
    trainer.scaler = torch.amp.GradScaler('cpu', init_scale=init_scale, growth_interval=growth_interval)

    def overflow(grad):
        return torch.full_like(grad, math.inf) if trainer.scaler.get_scale() > LARGEST_SCALE else grad

    next(trainer.net.parameters()).register_hook(overflow)
    return trainer


ONE = Ranks(0, 1, 0)


def chain(prob):
    "The transforms of the published trainings, each drawn with this probability."
    return {
        'type': 'Compose',
        'trf_cfg': [
            {'type': 'RandomPerspective', 'prob': prob},
            {'type': 'BaseSilCuttingTransform'},
            {'type': 'RandomHorizontalFlip', 'prob': prob},
            {'type': 'RandomRotate', 'prob': prob},
        ],
    }


def training_sampler(batch_size, n_frames, skip):
    "A shuffled batch of P subjects x K sequences, some frames of each in order, as the published trainings draw it."
    return dict(
        type='TripletSampler',
        batch_size=batch_size,
        batch_shuffle=True,
        sample_type='fixed_ordered',
        frames_num_fixed=n_frames,
        frames_skip_num=skip,
    )
