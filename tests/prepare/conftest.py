"The walkers that the tests of this room draw and link."

import pytest

from skeletongait.walkers.datasets import write_walkers


@pytest.fixture(scope='session')
def walkers(tmp_path_factory):
    "Poses and silhouettes of three walkers in two views; never changed."
    root = tmp_path_factory.mktemp('walkers')
    write_walkers(root, n_subjects=3, n_train=2, types=('nm-01', 'bg-01'), views=('000', '090'), n_frames=6)
    return root
