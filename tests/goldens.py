"Golden numbers of the published implementation: where they are, and the weights they were made with."

import json
import zlib
from pathlib import Path
import numpy as np
import torch

GOLDEN = Path(__file__).parent / 'golden'


def load(
    name: str,  # File name below tests/golden, without ending
) -> dict:
    """The arrays of a golden file; JSON texts (`model_cfg`, `triplet_info`) parsed, `x` drawn where the file holds
    its seed."""
    with np.load(GOLDEN / f'{name}.npz') as f:
        d = {k: f[k] for k in f.files}
    for k in ('model_cfg', 'triplet_info'):
        if k in d:
            d[k] = json.loads(str(d[k]))
    if 'x_seed' in d:
        d['x'] = np.random.default_rng(int(d['x_seed'])).random(tuple(d['x_shape']), dtype=np.float32)
    return d


def _values(key: str, shape: tuple[int, ...]) -> np.ndarray:
    r = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape)
    if key.endswith('running_var'):
        return r.uniform(0.5, 1.5, shape)
    if key.endswith('running_mean'):
        return r.normal(0, 0.1, shape)
    if key.endswith('fc_bin'):
        return r.normal(0, (1 / shape[1]) ** 0.5, shape)
    if len(shape) == 1:
        return r.uniform(0.9, 1.1, shape) if key.endswith('weight') else r.normal(0, 0.05, shape)
    return r.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)


def fill(
    model: torch.nn.Module,  # Filled in place
) -> torch.nn.Module:
    "Give every weight and buffer of `model` the value that follows from its name."
    state = model.state_dict()
    model.load_state_dict(
        {
            k: torch.from_numpy(np.asarray(_values(k, tuple(v.shape)), dtype=np.float32)).to(v.dtype)
            for k, v in state.items()
        }
    )
    return model
