"The package as `pip install .` makes it, outside the repository."

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ('pretreatment_heatmap', 'ln_sil_heatmap', 'import_poses', 'main', 'demo')


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A fresh environment with the package installed from a clean copy; the packages it needs are borrowed from
    this environment."""
    top = tmp_path_factory.mktemp('install')
    shutil.copytree(
        ROOT,
        top / 'source',
        symlinks=True,
        ignore=shutil.ignore_patterns('.git', '.venv', 'output', '__pycache__', '*.egg-info', 'build'),
    )
    subprocess.run([sys.executable, '-m', 'venv', top / 'env'], check=True)
    def run(*words):
        return (
            subprocess.run(
                [top / 'env' / 'bin' / words[0], *words[1:]],
                cwd=top,
                check=True,
                capture_output=True,
                text=True,
                timeout=300,
            ).stdout
        )
    run('pip', 'install', '--no-deps', str(top / 'source'))
    site = Path(run('python', '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip())
    (site / 'borrowed.pth').write_text(sysconfig.get_path('purelib') + '\n')
    shutil.rmtree(top / 'source')
    return top


def call(installed, *words):
    return subprocess.run(
        [installed / 'env' / 'bin' / words[0], *words[1:]], cwd=installed, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_installed_package_is_whole(installed):
    done = call(
        installed,
        'python',
        '-c',
        'import skeletongait, skeletongait.runs.config as c; print(skeletongait.__file__); '
        'print(*c.packaged_configs())',
    )
    where, configs = done.stdout.splitlines()
    assert str(installed / 'env') in where and len(configs.split()) == 12
    assert (
        call(
            installed,
            'python',
            '-c',
            'from skeletongait.maps.settings import *; print(heatmap_config() == HeatmapConfig())',
        ).stdout.strip()
        == 'True'
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', COMMANDS)
def test_console_commands(installed, name):
    done = call(installed, f'skeletongait_{name}', '--help')
    assert done.returncode == 0 and 'usage:' in done.stdout, done.stderr


@pytest.mark.slow
def test_packaged_settings_are_found_by_name(installed):
    done = call(installed, 'skeletongait_main', '--cfgs=skeletongait_CCPG', '--phase=train')
    assert done.returncode == 2 and 'data_cfg.dataset_root: still your_path' in done.stderr
