"Run a function in several real processes that communicate over gloo, on this machine."

import gc
import os
import tempfile
import torch.distributed as dist
import torch.multiprocessing as mp


def _rank(rank, world_size, folder, fn, args):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    dist.init_process_group('gloo', init_method=f'file://{folder}/init', rank=rank, world_size=world_size)
    try:
        fn(*args)
    finally:
        gc.collect()  # wrapped models keep the group's threads alive
        dist.destroy_process_group()


def run_in_ddp(world_size, fn, *args):
    "Call the top-level function `fn(*args)` on `world_size` gloo ranks; an exception on any rank is raised here."
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (world_size, folder, fn, args), nprocs=world_size)
