"""Random numbers that depend on the seed and the iteration only."""

from detectron2.engine.hooks import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng


class SeedEachIteration(HookBase):
    """Make the random numbers of an iteration depend on the seed and its number only.

    A resumed run then draws the same numbers as a run without interruption, and ends with the same
    weights bit for bit. The random numbers of the images are `SeedEachSample`'s.
    """

    def __init__(self, seed: int):
        """
        Args:
            seed: of the run, 0 or more.
        """
        self.seed = seed

    def before_step(self) -> None:
        step = self.trainer.iter * comm.get_world_size() + comm.get_rank()
        seed_all_rng((self.seed + step) % 2**32)
