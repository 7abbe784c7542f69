"One training step: a retry after an overflow leaves no trace, and a non-finite loss changes no weight."
import math

import pytest
import torch

from skeletongait.core import SkeletonGaitError
from skeletongait.runs.trainer import NonFiniteLossError, make_trainer
from toys import LARGEST_SCALE, ONE, equal, steps, toy, toy_batch, with_scale


@pytest.mark.parametrize('fix_bn', [False, True])
@pytest.mark.parametrize('name', ['demo_skeletongait', 'demo_skeletongait++'])
def test_a_retry_leaves_no_trace(name, fix_bn):
    "The scale overflows until it is lowered; powers of two only move the exponent."
    cfg = toy(name, fix_BN=fix_bn)
    plain = make_trainer(cfg, ONE)
    scaled = with_scale(make_trainer(cfg, ONE), 8*LARGEST_SCALE)
    infos = [steps(t, cfg, 3) for t in (plain, scaled)]
    assert scaled.scaler.get_scale() == LARGEST_SCALE  # so there were three overflows
    assert scaled.iteration == 3 == scaled.scheduler.last_epoch
    assert equal(*infos) and equal(plain.net.state_dict(), scaled.net.state_dict())
    assert equal(plain.optimizer.state_dict(), scaled.optimizer.state_dict())
    assert int(scaled.net.BNNecks.bn1d.num_batches_tracked) == (0 if fix_bn else 3)


def test_an_overflow_that_never_ends_is_an_error():
    cfg = toy()
    trainer = make_trainer(cfg, ONE)
    trainer.scaler = torch.amp.GradScaler('cpu', init_scale=1.)
    next(trainer.net.parameters()).register_hook(lambda g: g*math.inf)
    before = {k: v.clone() for k, v in trainer.net.state_dict().items()}
    with pytest.raises(SkeletonGaitError,
                       match='iteration 0: gradients overflow at every loss scale .* the batch: 000-nm-0, 000-nm-1'):
        steps(trainer, cfg, 1)
    assert trainer.iteration == 0 and equal(before, trainer.net.state_dict())


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_a_non_finite_loss_carries_its_batch(bad):
    cfg = toy()
    trainer = make_trainer(cfg, ONE)
    steps(trainer, cfg, 2)
    batch = toy_batch(cfg, 2)
    batch = batch._replace(frames=batch.frames.float()/255)
    batch.frames[3, 0, 0, 0, 0] = bad
    before = [p.detach().clone() for p in trainer.net.parameters()], trainer.optimizer.state_dict()
    with pytest.raises(NonFiniteLossError, match='iteration 2: the loss is nan; the batch: 000-nm-0, ') as e:
        trainer.step(batch)
    assert isinstance(e.value, SkeletonGaitError) and e.value.iteration == 2 and e.value.batch.names == batch.names
    assert torch.equal(e.value.batch.frames.isfinite(), batch.frames.isfinite())
    assert equal(before, ([p.detach() for p in trainer.net.parameters()], trainer.optimizer.state_dict()))
    assert trainer.iteration == 2


def test_a_loss_scale_between_a_gpu_and_a_cpu():
    "A CPU ignores the scale of a GPU's checkpoint and saves none; a GPU that gets none starts with its own."
    def scaler(enabled):
        return torch.amp.GradScaler('cpu', enabled=enabled)  # as on a GPU, where it is enabled
    gpu, cpu = scaler(True), make_trainer(toy(enable_float16=True), ONE).scaler
    gpu.load_state_dict(gpu.state_dict() | dict(scale=2.**9))
    assert gpu.state_dict()['scale'] == 2.**9 and scaler(True).get_scale() == 65536
    cpu.load_state_dict(gpu.state_dict())
    assert cpu.state_dict() == {} and not cpu.is_enabled() and cpu.get_scale() == 1
