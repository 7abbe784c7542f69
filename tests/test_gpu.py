"What only a GPU can show; skipped, with that reason, where there is none."
import copy

import numpy as np
import pytest
import torch
from goldens import fill, load
from scripts import start
from test_train import tiny, walkers  # noqa: F401 (a fixture)

from skeletongait.config import to_yaml
from skeletongait.core import save_text
from skeletongait.models import build_model
from skeletongait.train import Run

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize('name', ['model_skeletongait_tiny', 'model_skeletongaitpp_tiny'])
def test_cuda_gives_the_published_embeddings(name):
    d = load(name)
    model = fill(build_model(d['model_cfg'])).eval().cuda()
    with torch.no_grad(): out = model(torch.from_numpy(d['x']).cuda())
    np.testing.assert_allclose(out.embeddings.cpu().numpy(), d['eval_embed1'], atol=1e-3*np.abs(d['eval_embed1']).max())


@pytest.mark.parametrize('launch, processes', [('python -m', 1), ('torchrun -m', 2)])
def test_main_trains_on_cuda(walkers, tmp_path, launch, processes):  # noqa: F811
    if torch.cuda.device_count() < processes: pytest.skip(f'{processes} GPUs are needed, this machine has {torch.cuda.device_count()}')
    cfg = copy.deepcopy(tiny(walkers, enable_float16=True, sync_BN=True))
    save_text(to_yaml(cfg), tmp_path/'x.yaml')
    for phase in ('train', 'test'):
        done = start(launch, 'main', f'--cfgs={tmp_path/"x.yaml"}', f'--phase={phase}', cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert Run(cfg, tmp_path/'output').iterations() == [3, 6]
