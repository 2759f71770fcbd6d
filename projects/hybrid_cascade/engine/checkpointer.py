"""Load and save this project's checkpoints; refuse those that do not fit the model.

Checkpoints of other projects are converted by the package `hybrid_cascade.converters`.
"""

import os
import pickle

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from ..converters.conversion import shorten


class FittingCheckpointer(DetectionCheckpointer):
    """`DetectionCheckpointer` that fails where that one warns and goes on with random weights.

    Weights to start a training from may lack heads, or have heads for other classes: these then
    start from random weights. At least one parameter must fit. With `strict`, all must, and the
    file may have no others: they are of another model. These keys alone may be surplus:

    - "num_batches_tracked", a counter that frozen batch normalizations lack,
    - buffers that a model keeps out of its checkpoints (`pixel_mean`, `pixel_std`), which are in
      old checkpoints of Detectron2, if the values are the model's,
    - the `cell_anchors` of such old checkpoints, which Detectron2 leaves out.
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
        weights = checkpoint["model"]
        incompatible = super()._load_model(checkpoint)
        wrong_shapes = [
            f"{key} {tuple(theirs)} instead of {tuple(ours)}"
            for key, theirs, ours in incompatible.incorrect_shapes
        ]
        missing = _without_counters(incompatible.missing_keys)
        surplus, wrong_values = self._check_surplus(incompatible.unexpected_keys, weights)
        if self.strict and (wrong_shapes or missing or surplus or wrong_values):
            raise ValueError(
                f"The checkpoint {self._path!r} does not fit the model of this config: "
                + _list_keys("wrong shapes", wrong_shapes)
                + _list_keys("missing", missing)
                + _list_keys("not in the model", surplus)
                + _list_keys("other values than the config's", wrong_values)
                + "use the config, with the overrides, that the checkpoint was trained with."
            )
        if len(incompatible.missing_keys) == len(self.model.state_dict()):
            raise ValueError(
                f"Nothing in the checkpoint {self._path!r} fits the model of this config: "
                + _list_keys("wrong shapes", wrong_shapes)
                + _list_keys("in the file", incompatible.unexpected_keys)
                + "files of other projects need tools/convert_checkpoint.py."
            )
        return incompatible

    def _check_surplus(
        self, keys: list[str], weights: dict[str, torch.Tensor]
    ) -> tuple[list[str], list[str]]:
        """Return the keys of a file that the model lacks, and the buffers of other values.

        A buffer that the model has, but keeps out of its checkpoints, is in neither list if the
        file has the same values.
        """
        buffers = dict(self.model.named_buffers())
        surplus = [key for key in _without_counters(keys) if key not in buffers]
        wrong_values = [
            key
            for key in keys
            if key in buffers
            and key in weights
            and not torch.equal(weights[key].flatten().to(buffers[key]), buffers[key].flatten())
        ]
        return surplus, wrong_values


def _without_counters(keys: list[str]) -> list[str]:
    return [key for key in keys if not key.endswith("num_batches_tracked")]


def _list_keys(title: str, keys: list[str]) -> str:
    return f"{title}: {shorten(keys, limit=5)}; " if keys else ""


def load_weights(model: nn.Module, path: str) -> None:
    """Load all weights of a model, see `FittingCheckpointer` with `strict`.

    Raises:
        FileNotFoundError, ValueError: if the file does not exist; if it does not fit entirely, or
            has weights that the model lacks.
    """
    if not path:
        raise ValueError("No weights given (train.init_checkpoint or MODEL.WEIGHTS is empty)")
    FittingCheckpointer(model, strict=True).load(path, checkpointables=[])
