"""Start the processes of a run: a single one, or one for each GPU; or join those of torchrun."""

import logging
import os
from collections.abc import Callable

import torch
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm

logger = logging.getLogger(__name__)


def launch(main: Callable, args) -> None:
    """Run `main(args)` in every process.

    Args:
        main: the function to run.
        args: of Detectron2's `default_argument_parser`. Without a GPU, `num_gpus` counts as 1.
            Under torchrun the number of processes is torchrun's, and they talk over NCCL, or over
            gloo without a GPU.
    """
    if "LOCAL_WORLD_SIZE" in os.environ:
        _join_torchrun()
        try:
            main(args)
        finally:
            torch.distributed.destroy_process_group()
        return
    _share_cores(1)
    num_gpus = args.num_gpus if torch.cuda.is_available() else min(args.num_gpus, 1)
    detectron2_launch(
        main,
        num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


def _join_torchrun() -> None:
    local_world_size = int(os.environ["LOCAL_WORLD_SIZE"])
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        _share_cores(local_world_size)
    torch.distributed.init_process_group("nccl" if has_gpu else "gloo")
    comm.create_local_process_group(local_world_size)


def _share_cores(num_processes: int) -> None:
    """Give each process an equal share of the cores (torchrun would give it one, torch all)."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // num_processes))
