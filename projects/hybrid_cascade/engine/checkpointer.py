"""Load and save this project's checkpoints; refuse those that do not fit the model.

Checkpoints of other projects are converted by the package `hybrid_cascade.converters`.
"""

import os
import pickle

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from ..converters.conversion import shorten


class FittingCheckpointer(DetectionCheckpointer):
    """`DetectionCheckpointer` that fails where that one warns and goes on with random weights.

    Weights to start a training from may lack heads, or have heads for other classes: these then
    start from random weights. At least one parameter must fit; with `strict`, all must.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, strict: bool = False, **kwargs):
        super().__init__(model, save_dir, **kwargs)
        self.strict = strict
        self._path = None

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """See `Checkpointer.load`.

        Raises:
            FileNotFoundError: if the file does not exist.
            ValueError: if it is damaged, or its weights do not fit; names the file and keys.
        """
        self._path = path
        if path and "://" not in path and not os.path.isfile(path):
            raise FileNotFoundError(
                f"There is no checkpoint {path!r} (train.init_checkpoint or MODEL.WEIGHTS). "
                'docs/configs.md says where backbones come from; "" trains from scratch.'
            )
        try:
            return super().load(path, checkpointables)
        except (pickle.UnpicklingError, EOFError, OSError, RuntimeError, KeyError) as error:
            raise ValueError(f"The checkpoint {path!r} can't be read: {error}") from error

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict:
        """See `Checkpointer.resume_or_load`; a checkpoint to resume from must fit entirely."""
        if not (resume and self.has_checkpoint()):
            return super().resume_or_load(path, resume=False)
        strict = FittingCheckpointer(
            self.model,
            self.save_dir,
            strict=True,
            save_to_disk=self.save_to_disk,
            **self.checkpointables,
        )
        return strict.load(self.get_checkpoint_file())

    def _load_model(self, checkpoint):
        incompatible = super()._load_model(checkpoint)
        wrong_shapes = [
            f"{key} {tuple(theirs)} instead of {tuple(ours)}"
            for key, theirs, ours in incompatible.incorrect_shapes
        ]
        missing = [k for k in incompatible.missing_keys if not k.endswith("num_batches_tracked")]
        if self.strict and (wrong_shapes or missing):
            raise ValueError(
                f"The checkpoint {self._path!r} does not fit the model of this config: "
                + _list_keys("wrong shapes", wrong_shapes)
                + _list_keys("missing", missing)
                + _list_keys("not in the model", incompatible.unexpected_keys)
            )
        if len(incompatible.missing_keys) == len(self.model.state_dict()):
            raise ValueError(
                f"Nothing in the checkpoint {self._path!r} fits the model of this config: "
                + _list_keys("wrong shapes", wrong_shapes)
                + _list_keys("in the file", incompatible.unexpected_keys)
                + "files of other projects need tools/convert_checkpoint.py."
            )
        return incompatible


def _list_keys(title: str, keys: list[str]) -> str:
    return f"{title}: {shorten(keys, limit=5)}; " if keys else ""


def load_weights(model: nn.Module, path: str) -> None:
    """Load all weights of a model.

    Raises:
        FileNotFoundError, ValueError: if the file does not exist, or does not fit entirely.
    """
    if not path:
        raise ValueError("No weights given (train.init_checkpoint or MODEL.WEIGHTS is empty)")
    FittingCheckpointer(model, strict=True).load(path, checkpointables=[])
