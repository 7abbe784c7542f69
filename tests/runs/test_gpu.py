"Tests that need a GPU; skipped, with that reason, where there is none."
import copy

import numpy as np
import pytest
import torch
from goldens import fill, load
from scripts import start
from skeletons import apart, walkers as bodies
from toys import tiny

from skeletongait.files.settings import to_yaml
from skeletongait.files.text import save_text
from skeletongait.maps.settings import HeatmapConfig
from skeletongait.maps.renderer_torch import draw_maps_torch
from skeletongait.nets.models import build_model
from skeletongait.runs.folder import Run

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize('name', ['model_skeletongait_tiny', 'model_skeletongaitpp_tiny'])
def test_cuda_gives_the_published_embeddings(name):
    d = load(name)
    model = fill(build_model(d['model_cfg'])).eval().cuda()
    with torch.no_grad():
        out = model(torch.from_numpy(d['x']).cuda())
    np.testing.assert_allclose(out.embeddings.cpu().numpy(), d['eval_embed1'], atol=1e-3*np.abs(d['eval_embed1']).max())


@pytest.mark.parametrize('launch, processes', [('python -m', 1), ('torchrun -m', 2)])
def test_main_trains_on_cuda(walkers, tmp_path, launch, processes):  # noqa: F811
    if torch.cuda.device_count() < processes:
        pytest.skip(f'{processes} GPUs are needed, this machine has {torch.cuda.device_count()}')
    cfg = copy.deepcopy(tiny(walkers, enable_float16=True, sync_BN=True))
    save_text(to_yaml(cfg), tmp_path/'x.yaml')
    for phase in ('train', 'test'):
        done = start(launch, 'main', f'--cfgs={tmp_path/"x.yaml"}', f'--phase={phase}', cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert Run(cfg, tmp_path/'output').iterations() == [3, 6]


@pytest.mark.parametrize('precision', ['highest', 'medium'])
@pytest.mark.parametrize('cfg',
                         [HeatmapConfig(), HeatmapConfig(sigma=1.), HeatmapConfig(sigma=4., offset=5),
                          HeatmapConfig(align=False, final_img_size=200), HeatmapConfig(final_img_size=100, sigma=2.)])
def test_cuda_draws_maps_within_one_level(cfg, precision):
    "Also with TF32 allowed and inside an autocast region."
    joints, before = bodies(4), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        assert apart(joints, cfg, device='cuda') <= 1
        with torch.autocast('cuda', dtype=torch.float16):
            assert apart(joints, cfg, device='cuda', chunk=16) <= 1
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize('dtype', ['f4', 'f8'])
def test_cuda_draws_each_frame_with_its_sigma(dtype):
    joints = bodies(2).astype(dtype)
    assert apart(joints, sigma=np.linspace(.5, 16, len(joints)), device='cuda') <= 1


def test_cuda_draws_where_the_joints_are():
    joints = torch.from_numpy(bodies(2)).cuda()
    maps = draw_maps_torch(joints)
    assert maps.device == joints.device and torch.equal(draw_maps_torch(joints, chunk=7), maps)
    assert draw_maps_torch(joints[:0]).is_cuda
    # a sigma on the CPU is brought along
    assert torch.equal(draw_maps_torch(joints, sigma=torch.full((len(joints),), 8.)), maps)
