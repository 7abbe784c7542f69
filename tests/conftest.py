"Marks and shared pieces of the tests."

import os
import sys

os.environ.setdefault(
    'OMP_NUM_THREADS', '1'
)  # the tests start processes of their own; threads would fight over the cores

import pytest
import torch

from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile('shared', deadline=None)  # a busy machine is no failure
settings.load_profile('shared')


# These send signals, limit resources or mount small disks, which Windows has in another way or not at all.
NEEDS_POSIX = [
    'test_core',
    'test_embed_and_identify',
    'test_repository',
    'test_terminal',
    'data/test_data',
    'files/test_unsafe_files',
    'prepare/test_endurance',
    'prepare/test_link',
    'runs/test_checkpoint',
    'runs/test_runs',
    'runs/test_watch',
]
collect_ignore = [f'{name}.py' for name in NEEDS_POSIX] if sys.platform == 'win32' else []


@pytest.fixture(scope='module')
def walkers(tmp_path_factory):
    "Six walkers as a linked tree, and a partition."
    from toys import make_walkers

    return make_walkers(tmp_path_factory.mktemp('walkers'))


@pytest.fixture
def quiet_log():
    "Remove the log's handlers after a test."
    yield
    from toys import quiet_log as remove

    remove()


def pytest_report_header():
    return f'not run on Windows, as they need POSIX: {", ".join(collect_ignore)}' if collect_ignore else None


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes more than about 20 seconds; run by `make test-slow`')
    config.addinivalue_line('markers', 'gpu: needs a CUDA device')


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if 'gpu' in item.keywords:
            item.add_marker(pytest.mark.skip(reason='no CUDA device on this machine'))


@pytest.fixture(scope='session')
def sample():
    "The demonstration video of Sports2D; its networks are in the cache. Both come from the package index."
    pytest.importorskip('ai_edge_litert', reason='ai-edge-litert has no wheel for this system')
    from skeletongait.core import SkeletonGaitError
    from skeletongait.estimation import networks

    try:
        networks.get_networks()
        return networks.sample_video()
    except SkeletonGaitError as e:
        if 'pip could not download it' not in str(e):
            raise
        pytest.skip(f'no package index, and nothing in the cache: {e}')
