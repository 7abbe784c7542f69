"A notebook that fails, or takes its process with it, is named, and the others run all the same."

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_notebook(path, source):
    "A notebook of one cell."
    cell = dict(cell_type='code', id='a', metadata={}, execution_count=None, outputs=[], source=source)
    kernel = dict(name='python3', display_name='python3', language='python')
    path.write_text(
        json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)), encoding='utf-8'
    )
    return path


def test_a_process_that_dies_names_its_notebook(tmp_path):
    cells = dict(good='1 + 1', dies='import os; os.abort()', wrong='assert False', late='2 + 2')
    books = [write_notebook(tmp_path / f'{name}.ipynb', source) for name, source in cells.items()]
    done = subprocess.run(
        [sys.executable, ROOT / '.ci' / 'notebooks.py', *books], capture_output=True, text=True, timeout=120
    )
    said = {line.split(':')[0]: line for line in done.stdout.splitlines() if ': ' in line}
    assert done.returncode == 1
    assert 'passed' in said['good.ipynb'] and 'passed' in said['late.ipynb']
    assert 'its process died' in said['dies.ipynb'] and 'Fatal Python error: Aborted' in done.stderr
    assert 'FAILED (' in said['wrong.ipynb'] and 'AssertionError' in done.stderr
    assert done.stdout.rstrip().endswith('2 notebooks passed, 2 failed\n  dies.ipynb\n  wrong.ipynb')
