"Which device is chosen, and what is asked of it: GPUs shared by mistake, other launchers, Apple's GPU without float64."

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, strategies as st
from scripts import ROOT, free_port
from toys import toy, toy_batch
from torch.utils._python_dispatch import TorchDispatchMode

from skeletongait.runs import trainer as training
from skeletongait.core import SkeletonGaitError
from skeletongait.demo import n_processes
from skeletongait.evaluation.ranking import distances, make_embedding_set, strip_distances
from skeletongait.maps.renderer_torch import draw_maps_torch
from skeletongait.distributed import Ranks, Seat, check_seats, device, process_group, ranks
from skeletongait.runs.trainer import autocast, make_trainer, mixed_precision
from skeletongait.runs.metrics import Meter

ONE = Ranks(0, 1, 0)


# --- a GPU for each rank

seats = st.builds(Seat, st.sampled_from('xy'), st.sampled_from(['', 'a', 'b', 'c']))


@given(st.lists(seats, min_size=1, max_size=6))
def test_seats_are_refused_exactly_where_two_share_a_gpu(all_seats):
    taken = [s for s in all_seats if s.gpu]
    if len(set(taken)) == len(taken):
        return check_seats(all_seats)
    with pytest.raises(SkeletonGaitError, match='would share one GPU.*LOCAL_RANK.*CUDA_VISIBLE_DEVICES') as e:
        check_seats(all_seats)
    assert '\n' not in str(e.value)


RANK = """
import os, sys, torch, torch.distributed as dist
from types import SimpleNamespace
from skeletongait.cli import run_script
from skeletongait.distributed import device, process_group
uuids = os.environ['SEES'].split()  # the GPUs that this rank sees
now = []
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: len(uuids)
torch.cuda.set_device, torch.cuda.current_device = now.append, lambda: now[-1]
torch.cuda.get_device_properties = lambda k: SimpleNamespace(uuid=uuids[k])
real = dist.init_process_group
dist.init_process_group = lambda backend, **kw: real('gloo', **kw)
def script():
    "Say which GPU it is."
    with process_group() as r: print(r.rank, uuids[device().index], flush=True)
    return 0
if __name__ == '__main__': sys.exit(run_script(script, []))
"""


def start_ranks(folder, *environments):
    "Exit codes, what they printed, and all lines on stderr."
    (folder / 'rank.py').write_text(RANK, encoding='utf-8')
    base = {k: v for k, v in os.environ.items() if not k.startswith(('LOCAL_', 'SLURM_', 'OMPI_', 'CUDA_'))}
    base |= dict(WORLD_SIZE=str(len(environments)), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    base |= dict(OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    kw = dict(cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started = [
        subprocess.Popen([sys.executable, 'rank.py'], env=base | dict(RANK=str(k)) | env, **kw)
        for k, env in enumerate(environments)
    ]
    said = [p.communicate(timeout=120) for p in started]
    lines = [line for _, e in said for line in e.splitlines() if line.startswith('script')]
    return [p.returncode for p in started], ''.join(o for o, _ in said).split('\n')[:-1], lines


@pytest.mark.slow
@pytest.mark.parametrize(
    'environments, gpus',
    [
        ([dict(SEES='a b', LOCAL_RANK='0'), dict(SEES='a b', LOCAL_RANK='1')], ['0 a', '1 b']),
        ([dict(SEES='a', LOCAL_RANK='0'), dict(SEES='b', LOCAL_RANK='1')], ['0 a', '1 b']),  # as srun may show them
    ],
)
def test_ranks_with_a_gpu_each_begin(tmp_path, environments, gpus):
    assert start_ranks(tmp_path, *environments) == ([0, 0], gpus, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    'environments',
    [
        [dict(SEES='a b'), dict(SEES='a b')],  # no LOCAL_RANK
        [dict(SEES='a', LOCAL_RANK='0'), dict(SEES='a', LOCAL_RANK='1')],  # one GPU for two
    ],
)
def test_ranks_that_would_share_a_gpu_are_refused_in_one_line(tmp_path, environments):
    codes, printed, lines = start_ranks(tmp_path, *environments)
    assert codes == [2, 2] and printed == [] and len(lines) == 1
    assert lines[0].startswith('script: ranks 0 and 1 on ') and 'would share one GPU' in lines[0]
    assert 'LOCAL_RANK=$SLURM_LOCALID' in lines[0]


@pytest.mark.parametrize(
    'launcher, env, says',
    [
        (
            'srun',
            dict(SLURM_STEP_NUM_TASKS='4', SLURM_PROCID='2'),
            'RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_STEP_NUM_TASKS LOCAL_RANK=$SLURM_LOCALID',
        ),
        ('mpirun', dict(OMPI_COMM_WORLD_SIZE='4'), 'RANK=$OMPI_COMM_WORLD_RANK'),
    ],
)
def test_tasks_without_ranks_are_refused(monkeypatch, launcher, env, says):
    for k in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(k, raising=False)
    for k, v in env.items():
        monkeypatch.setenv(k, v)
    with pytest.raises(SkeletonGaitError) as e:
        ranks()
    assert str(e.value).startswith(f'{launcher} has started 4 processes')
    assert says in str(e.value) and '\n' not in str(e.value)
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '1')
    assert ranks() == ONE


def test_one_task_or_a_batch_script_is_one_process(monkeypatch):
    "Slurm sets SLURM_NTASKS for the batch script as well, which is one process."
    for k in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(k, raising=False)
    monkeypatch.setenv('SLURM_NTASKS', '4')
    monkeypatch.setenv('SLURM_STEP_NUM_TASKS', '1')
    assert ranks() == ONE


# --- an Apple GPU


@pytest.fixture
def apple(monkeypatch):
    "A machine with an Apple GPU, as far as it is asked."
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)


def test_an_apple_gpu_is_chosen_for_one_process(apple, monkeypatch):
    for k in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(k, raising=False)
    with process_group() as r:
        assert r == ONE and device() == torch.device('mps')
    assert n_processes() == 1
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(SkeletonGaitError, match='^2 processes on a machine with an Apple GPU, which serves one'):
        with process_group():
            pass


def test_other_devices_go_first_or_stand_in(apple, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: False)
    assert device() == torch.device('cpu') and n_processes() == 2
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 3)
    assert device() == torch.device('cuda', 3)


def test_on_an_apple_gpu_all_is_float32_and_the_log_says_so(caplog):
    mps, cpu = torch.device('mps'), torch.device('cpu')
    with caplog.at_level('INFO', 'skeletongait'):
        assert mixed_precision(cpu, True) and not mixed_precision(cpu, False) and not mixed_precision(mps, False)
        assert not caplog.text
        assert not mixed_precision(mps, True)
    assert 'enable_float16: ignored; on an Apple GPU everything is computed in float32' in caplog.text
    with autocast(mps, False):
        pass
    assert not torch.amp.GradScaler('mps', enabled=False).is_enabled()


class NoFloat64(TorchDispatchMode):
    "Refuses what an Apple GPU refuses: any tensor of float64."

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for o in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(o, torch.Tensor) and o.dtype in (torch.float64, torch.complex128):
                raise TypeError(f'{func} made a tensor of float64')
        return out


class OnApple(torch.Tensor):
    "A tensor that says it is on an Apple GPU."

    device = property(lambda self: torch.device('mps'))

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def posing(x):
    return x.as_subclass(OnApple)


@pytest.mark.parametrize('name', ['demo_skeletongait', 'demo_skeletongait++'])
@pytest.mark.parametrize('solver', ['SGD', 'AdamW'])
def test_a_step_makes_nothing_of_float64(name, solver):
    cfg = toy(name)
    cfg.optimizer_cfg.solver, cfg.optimizer_cfg.arguments = solver, dict(lr=0.02)
    trainer, meter = make_trainer(cfg, ONE), Meter()
    trainer.train_mode()
    with NoFloat64():
        for i in range(2):
            info = trainer.step(toy_batch(cfg, i))
        meter.add({k: posing(v) for k, v in info.items()}, 0.1, 0.1)
    assert meter.read().values.keys() == info.keys()
    with pytest.raises(TypeError, match="float64"), NoFloat64():
        meter.add(info, 0.1, 0.1)  # on a CPU: the mode sees it


def test_what_needs_float64_is_computed_on_the_cpu():
    x = torch.randn(6, 4, 2, generator=torch.Generator().manual_seed(0))
    for metric in ('euc', 'cos'):
        for f, a in ((distances, x), (strip_distances, x[0])):
            out = f(posing(a), posing(x), metric)
            assert type(out) is torch.Tensor and torch.equal(out, f(a, x, metric))
    kept = make_embedding_set(posing(x), 'aabbcc', 'xyxyxy', '000000').embeddings
    assert type(kept) is torch.Tensor and torch.equal(kept, x)


def test_maps_of_joints_on_an_apple_gpu_are_drawn_on_the_cpu(monkeypatch):
    joints = torch.rand(3, 17, 3, generator=torch.Generator().manual_seed(0))
    joints[..., :2] = joints[..., :2] * 100 + 100
    went, real = [], torch.Tensor.to

    def to(self, *args, **kw):
        if args and args[0] == torch.device('mps'):
            went.append('mps')
            return self
        return real(self, *args, **kw)

    maps = draw_maps_torch(joints)
    monkeypatch.setattr(torch.Tensor, 'to', to)
    assert torch.equal(draw_maps_torch(posing(joints)), maps) and went == ['mps']
    assert torch.equal(draw_maps_torch(posing(joints), sigma=posing(torch.full((3,), 8.0))), maps)


def test_trainer_on_an_apple_gpu(monkeypatch):
    "The settings ask for mixed precision; the trainer has neither it nor a scale for it."
    cfg = toy(enable_float16=True)

    class Stays(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def to(self, where):
            assert where == torch.device('mps')
            return self.net

    real = training.build_model
    monkeypatch.setattr(training, 'device', lambda: torch.device('mps'))
    monkeypatch.setattr(training, 'build_model', lambda *args: Stays(real(*args)))
    trainer = make_trainer(cfg, ONE)
    assert not trainer.mixed and not trainer.scaler.is_enabled()
