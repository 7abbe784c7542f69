"Marks and shared pieces of the tests."
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # the tests start processes of their own; threads would fight over the cores

import pytest
import torch

from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile('shared', deadline=None)  # a busy machine is no failure
settings.load_profile('shared')


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes more than about 20 seconds; run by `make test-slow`')
    config.addinivalue_line('markers', 'gpu: needs a CUDA device')


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available(): return
    for item in items:
        if 'gpu' in item.keywords: item.add_marker(pytest.mark.skip(reason='no CUDA device on this machine'))
