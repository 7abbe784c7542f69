"One step of training: what a retry after an overflow leaves behind, and what a loss that is no number does not."
import math

import numpy as np
import pytest
import torch

from skeletongait.config import load_config
from skeletongait.core import SkeletonGaitError
from skeletongait.data import Batch
from skeletongait.launch import Ranks
from skeletongait.trainer import NonFiniteLossError, make_trainer


def toy(name='demo_skeletongait', **trainer):
    "Settings of a tiny network, that need no data."
    cfg, _ = load_config(name)
    if cfg.model_cfg.model == 'SkeletonGait': cfg.model_cfg.Backbone.channels = [4, 4, 8, 8]
    cfg.model_cfg.SeparateBNNecks.class_num = 4
    cfg.optimizer_cfg.solver, cfg.optimizer_cfg.arguments = 'SGD', dict(lr=.02, momentum=.9)
    cfg.scheduler_cfg.scheduler, cfg.scheduler_cfg.arguments = 'MultiStepLR', dict(milestones=[4], gamma=.1)
    cfg.trainer_cfg.total_iter = 12
    for k, v in trainer.items(): setattr(cfg.trainer_cfg, k, v)
    return cfg


def toy_batch(cfg, iteration):
    "Four subjects, two sequences of two frames each; the same for the same seed and iteration."
    rng = np.random.default_rng([cfg.trainer_cfg.seed, iteration])
    frames = rng.integers(0, 256, (8, 2, cfg.model_cfg.Backbone.in_channels, 64, 44), dtype=np.uint8)
    return Batch(torch.from_numpy(frames), None, torch.arange(8)//2, ['nm']*8, ['000']*8, [f'00{i//2}-nm-{i%2}' for i in range(8)], iteration)


def steps(trainer, cfg, upto):
    "Train to an iteration; what was logged on the way."
    trainer.train_mode()
    return [{k: v.detach().clone() for k, v in trainer.step(toy_batch(cfg, trainer.iteration)).items()} for _ in range(upto - trainer.iteration)]


def equal(a, b):
    "Are two states the same to the last bit?"
    if isinstance(a, torch.Tensor): return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict): return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(equal, a, b))
    return a == b or a != a and b != b


LARGEST_SCALE = 2.**10


def with_scale(trainer, init_scale, growth_interval=2000):
    "A loss scale on the CPU; gradients overflow beyond `LARGEST_SCALE`, on every processor alike."
    trainer.scaler = torch.amp.GradScaler('cpu', init_scale=init_scale, growth_interval=growth_interval)
    overflow = lambda grad: torch.full_like(grad, math.inf) if trainer.scaler.get_scale() > LARGEST_SCALE else grad
    next(trainer.net.parameters()).register_hook(overflow)
    return trainer


@pytest.mark.parametrize('fix_bn', [False, True])
@pytest.mark.parametrize('name', ['demo_skeletongait', 'demo_skeletongait++'])
def test_a_retry_leaves_no_trace(name, fix_bn):
    "The scale overflows until it is lowered; powers of two only move the exponent."
    cfg = toy(name, fix_BN=fix_bn)
    plain = make_trainer(cfg, Ranks(0, 1, 0))
    scaled = with_scale(make_trainer(cfg, Ranks(0, 1, 0)), 8*LARGEST_SCALE)
    infos = [steps(t, cfg, 3) for t in (plain, scaled)]
    assert scaled.scaler.get_scale() == LARGEST_SCALE  # so there were three overflows
    assert scaled.iteration == 3 == scaled.scheduler.last_epoch
    assert equal(*infos) and equal(plain.net.state_dict(), scaled.net.state_dict()) and equal(plain.optimizer.state_dict(), scaled.optimizer.state_dict())
    assert int(scaled.net.BNNecks.bn1d.num_batches_tracked) == (0 if fix_bn else 3)


def test_an_overflow_that_never_ends_is_an_error():
    cfg = toy()
    trainer = make_trainer(cfg, Ranks(0, 1, 0))
    trainer.scaler = torch.amp.GradScaler('cpu', init_scale=1.)
    next(trainer.net.parameters()).register_hook(lambda g: g*math.inf)
    before = {k: v.clone() for k, v in trainer.net.state_dict().items()}
    with pytest.raises(SkeletonGaitError, match='iteration 0: gradients overflow at every loss scale .* the batch: 000-nm-0, 000-nm-1'): steps(trainer, cfg, 1)
    assert trainer.iteration == 0 and equal(before, trainer.net.state_dict())


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_a_loss_that_is_no_number_carries_its_batch(bad):
    cfg = toy()
    trainer = make_trainer(cfg, Ranks(0, 1, 0))
    steps(trainer, cfg, 2)
    batch = toy_batch(cfg, 2); batch = batch._replace(frames=batch.frames.float()/255); batch.frames[3, 0, 0, 0, 0] = bad
    before = [p.detach().clone() for p in trainer.net.parameters()], trainer.optimizer.state_dict()
    with pytest.raises(NonFiniteLossError, match='iteration 2: the loss is nan; the batch: 000-nm-0, ') as e: trainer.step(batch)
    assert isinstance(e.value, SkeletonGaitError) and e.value.iteration == 2 and e.value.batch.names == batch.names
    assert torch.equal(e.value.batch.frames.isfinite(), batch.frames.isfinite())
    assert equal(before, ([p.detach() for p in trainer.net.parameters()], trainer.optimizer.state_dict())) and trainer.iteration == 2


def test_a_loss_scale_between_a_gpu_and_a_cpu():
    "A CPU leaves the scale of a GPU's checkpoint aside and saves none; a GPU that gets none begins with its own."
    scaler = lambda enabled: torch.amp.GradScaler('cpu', enabled=enabled)  # as on a GPU, where it is enabled
    gpu, cpu = scaler(True), make_trainer(toy(enable_float16=True), Ranks(0, 1, 0)).scaler
    gpu.load_state_dict(gpu.state_dict() | dict(scale=2.**9))
    assert gpu.state_dict()['scale'] == 2.**9 and scaler(True).get_scale() == 65536
    cpu.load_state_dict(gpu.state_dict())
    assert cpu.state_dict() == {} and not cpu.is_enabled() and cpu.get_scale() == 1
