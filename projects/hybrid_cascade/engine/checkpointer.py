"""Load and save this project's checkpoints; refuse those that do not fit the model.

Checkpoints of other projects are converted by the package `hybrid_cascade.converters`.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlparse

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils import comm
from torch import nn

from ..converters.conversion import shorten
from ..converters.weight_values import find_fault
from ..converters.weights_file import find_weights, read_file
from .checkpoint_folder import WholeFiles, find_checkpoints, find_newest_whole, is_complete
from .trained_with import KEY, differences, read_description

logger = logging.getLogger(__name__)

# What the names in MMDetection's files start with, and none here does.
_MMDETECTION = ("neck.", "rpn_head.", "roi_head.", "bbox_head.", "mask_head.")
_MMDETECTION_ADVICE = (
    "it is a file of MMDetection; convert it with tools/convert_checkpoint.py --from mmdet."
)
_ADVICE = "files of other projects need tools/convert_checkpoint.py."
_STRICT_ADVICE = "use the config, with the overrides, that the checkpoint was trained with."
_NO_WEIGHTS = ("_momentum", "num_batches_tracked")  # of Caffe2 and pycls
_ANCHORS = "anchor_generator.cell_anchors"
_STATISTICS = (".running_mean", ".running_var")


class CheckpointError(ValueError):
    """A checkpoint can't be read or does not fit; the message names the file, and what to do."""


class FittingCheckpointer(DetectionCheckpointer):
    """`DetectionCheckpointer` that fails where that one warns and goes on with random weights.

    It reads what `hybrid_cascade.converters.weights_file.read_file` reads, and so runs no code from
    a file. It writes files beside those that they replace, and renames them when they are complete.

    Weights to start a training from may lack heads, or have heads for other classes: these then
    start from random weights. At least one parameter must fit. With `strict`, all must, and the
    file may have no others: they are of another model. These keys alone may be surplus:

    - "num_batches_tracked", a counter that frozen batch normalizations lack,
    - buffers that a model keeps out of its checkpoints (`pixel_mean`, `pixel_std`), which are in
      old checkpoints of Detectron2, if the values are the model's,
    - the `cell_anchors` of such old checkpoints, which Detectron2 leaves out.

    Attributes:
        trained_with: what is written into every checkpoint under this name, see
            `describe_training`. With `strict`, a file whose model took images in another way than
            this one does not fit; without, a warning says so.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, strict: bool = False, **kwargs):
        super().__init__(model, save_dir, **kwargs)
        self.strict = strict
        self.trained_with: dict[str, Any] = {}
        self.path_manager = WholeFiles(self.path_manager)
        self._path = None

    def save(self, name: str, **kwargs: Any) -> None:
        """See `Checkpointer.save`.

        Raises:
            OSError: if the file can't be written; an earlier one of the same name stays.
        """
        with self._explain_failure(name):
            super().save(name, **{KEY: self.trained_with}, **kwargs)

    def save_weights(self, name: str, **extra: Any) -> None:
        """Save the weights without the state of the training, which is most of a checkpoint.

        `last_checkpoint` stays as it is.

        Raises:
            OSError: see `save`.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        content = {"model": self.model.state_dict(), KEY: self.trained_with, **extra}
        path = os.path.join(self.save_dir, f"{name}.pth")
        with self._explain_failure(name), self.path_manager.open(path, "wb") as file:
            torch.save(content, file)

    @contextmanager
    def _explain_failure(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # PyTorch's writer hides the OSError in another
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            raise OSError(
                f"The checkpoint {name}.pth can't be written to {self.save_dir!r}: {reason}. "
                "Those from before are complete."
            ) from error

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """See `Checkpointer.load`.

        Raises:
            FileNotFoundError: if the file does not exist.
            CheckpointError: if it is damaged, or its weights do not fit; names the file and keys.
        """
        self._path = path
        local_path = urlparse(path)._replace(query="").geturl() if path else path
        if path and "://" not in path and not os.path.isfile(local_path):
            raise FileNotFoundError(
                f"There is no checkpoint {path!r} (train.init_checkpoint or MODEL.WEIGHTS). "
                'docs/configs.md says where backbones come from; "" trains from scratch.'
            )
        try:
            return super().load(path, checkpointables)
        except CheckpointError:
            raise
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, AssertionError) as error:
            raise CheckpointError(f"The checkpoint {path!r} can't be read: {error}") from error
        finally:
            self._parsed_url_during_load = None  # Detectron2 leaves it after an error

    def find_checkpoint(self) -> str:
        """Return the file to resume from, "" if there is none; see `find_newest_whole`.

        The main process looks for it. All processes must call this, and have the file.
        """
        path = error = ""
        if comm.is_main_process():
            try:
                path = find_newest_whole(self.save_dir, list(self.checkpointables))
            except ValueError as caught:
                error = str(caught)
        path, error = comm.all_gather((path, error))[0]
        if error:
            raise CheckpointError(error)
        return path

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict:
        """See `Checkpointer.resume_or_load`; a checkpoint to resume from must fit entirely.

        Raises:
            FileExistsError: without `resume`, if the folder has checkpoints, which the training
                would overwrite.
            CheckpointError: with it, if none of the folder's checkpoints is whole.
        """
        if not resume:
            self._refuse_to_overwrite()
            return self.load(path, checkpointables=[])
        last = self.find_checkpoint()
        return self.resume(last) if last else self.load(path, checkpointables=[])

    def resume(self, path: str) -> dict:
        """Load a checkpoint with the state of the training; it must fit entirely."""
        strict = FittingCheckpointer(
            self.model,
            self.save_dir,
            strict=True,
            save_to_disk=self.save_to_disk,
            **self.checkpointables,
        )
        return strict.load(path)

    def save_if_incomplete(self, name: str, iteration: int) -> None:
        """Save a checkpoint of an iteration unless there is a whole one of that name."""
        path = os.path.join(self.save_dir, f"{name}.pth")
        if self.save_to_disk and not is_complete(path, list(self.checkpointables), iteration):
            self.save(name, iteration=iteration)

    def _refuse_to_overwrite(self) -> None:
        found = find_checkpoints(self.save_dir) if self.save_dir and comm.is_main_process() else []
        [found, *_] = comm.all_gather(found)
        if found:
            raise FileExistsError(
                f"The output folder {self.save_dir!r} has checkpoints of an earlier training "
                f"({shorten(found, limit=3)}), which this one would overwrite. Continue it with "
                "--resume, name another folder (train.output_dir or OUTPUT_DIR), or delete them."
            )

    def _load_file(self, filename: str) -> dict:
        content = read_file(filename)
        weights = find_weights(content, filename)
        rest = {}
        if isinstance(content, dict) and isinstance(content.get("model"), dict):
            rest = {key: value for key, value in content.items() if key != "model"}
        elif filename.endswith(".pkl"):  # of Caffe2
            rest = {"__author__": "Caffe2", "matching_heuristics": True}
        elif filename.endswith(".pyth"):  # of pycls
            rest = {"__author__": "pycls", "matching_heuristics": True}
        options = parse_qs(urlparse(self._path).query)
        if options.pop("matching_heuristics", None) == ["True"]:
            rest["matching_heuristics"] = True
        if options:
            raise ValueError(f"unknown options after the question mark: {', '.join(options)}")
        if rest.get("matching_heuristics"):
            weights = {k: v for k, v in weights.items() if not k.endswith(_NO_WEIGHTS)}
        return {**rest, "model": weights}

    def _load_model(self, checkpoint: dict) -> Any:
        weights = checkpoint["model"]
        if all(key.startswith("module.") for key in weights):  # of DistributedDataParallel
            weights = {key.removeprefix("module."): value for key, value in weights.items()}
        ours = self.model.state_dict()
        is_caffe2 = checkpoint.get("__author__") == "Caffe2"
        if checkpoint.pop("matching_heuristics", False):
            weights = align_and_update_state_dicts(ours, weights, c2_conversion=is_caffe2)
        # Normalizations of Caffe2 have no statistics, and Detectron2's fill them in.
        self._check_fit(weights, ours, without_statistics=is_caffe2)
        self._check_preparation(read_description(checkpoint))
        checkpoint["model"] = weights
        incompatible = super()._load_model(checkpoint)
        filled = [key for key in _missing_keys(weights, ours) if key.endswith(_STATISTICS)]
        if not is_caffe2:
            incompatible.missing_keys.extend(set(filled) - set(incompatible.missing_keys))
        return incompatible

    def _check_fit(
        self,
        weights: dict[str, torch.Tensor],
        ours: dict[str, torch.Tensor],
        without_statistics: bool,
    ) -> None:
        """Raise an error if the weights of a file do not fit as they have to."""
        used = [k for k, v in weights.items() if k in ours and v.shape == ours[k].shape]
        faults = [find_fault(key, weights[key], ours[key]) for key in used if not _is_counter(key)]
        if faults := list(filter(None, faults)):
            raise CheckpointError(
                f"The checkpoint {self._path!r} has values that are no weights: "
                f"{shorten(faults, limit=5)}."
            )
        shapes = {
            key: f"{key} {tuple(value.shape)} instead of {tuple(ours[key].shape)}"
            for key, value in weights.items()
            if key in ours and value.shape != ours[key].shape
        }
        missing = _missing_keys(weights, ours)
        if without_statistics:
            missing = [key for key in missing if not key.endswith(_STATISTICS)]
        surplus, wrong_values = self._check_surplus([k for k in weights if k not in ours], weights)
        lists = (
            _list_keys("wrong shapes", list(shapes.values()))
            + _list_keys("missing", missing if self.strict else [])
            + _list_keys("not in the model", surplus)
            + _list_keys("other values than the config's", wrong_values)
        )
        is_foreign = any(key.startswith(_MMDETECTION) for key in weights)
        if all(map(_is_counter, used)):
            raise CheckpointError(
                f"Nothing in the checkpoint {self._path!r} fits the model of this config: {lists}"
                + (_MMDETECTION_ADVICE if is_foreign else _ADVICE)
            )
        if self.strict and (shapes or missing or surplus or wrong_values):
            raise CheckpointError(
                f"The checkpoint {self._path!r} does not fit the model of this config: {lists}"
                + (_MMDETECTION_ADVICE if is_foreign else _STRICT_ADVICE)
            )
        transposed = [
            text
            for key, text in shapes.items()
            if sorted(weights[key].shape) == sorted(ours[key].shape)
        ]
        if transposed:
            raise CheckpointError(
                f"The checkpoint {self._path!r} has transposed weights: "
                f"{shorten(transposed, limit=5)}. Transpose them, or remove them from the file, so "
                "that they start from random weights."
            )
        if shapes or missing:
            logger.warning(
                "%s fills %d of the model's %d weights; the others start from random ones",
                self._path,
                len(used),
                len(ours),
            )

    def _check_preparation(self, trained_with: dict[str, Any]) -> None:
        if found := "; ".join(differences(trained_with, self.model)):
            message = f"The model of the checkpoint {self._path!r} took images with {found}"
            if self.strict:
                raise CheckpointError(f"{message}: {_STRICT_ADVICE}")
            logger.warning("%s. With the config's, it may detect less.", message)

    def _check_surplus(
        self, keys: list[str], weights: dict[str, torch.Tensor]
    ) -> tuple[list[str], list[str]]:
        """Return the keys of a file that the model lacks, and the buffers of other values.

        A buffer that the model has, but keeps out of its checkpoints, is in neither list if the
        file has the same values.
        """
        buffers = dict(self.model.named_buffers())
        surplus = [
            key
            for key in keys
            if key not in buffers and not _is_counter(key) and _ANCHORS not in key
        ]
        wrong_values = [
            key
            for key in keys
            if key in buffers
            and _ANCHORS not in key
            and not torch.equal(weights[key].flatten().to(buffers[key]), buffers[key].flatten())
        ]
        return surplus, wrong_values


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _missing_keys(weights: dict[str, torch.Tensor], ours: dict[str, torch.Tensor]) -> list[str]:
    return [key for key in ours if key not in weights and not _is_counter(key)]


def _list_keys(title: str, keys: list[str]) -> str:
    return f"{title}: {shorten(keys, limit=5)}; " if keys else ""


def load_weights(model: nn.Module, path: str) -> dict[str, Any]:
    """Load all weights of a model, see `FittingCheckpointer` with `strict`.

    Returns:
        What the checkpoint says of its training, see `describe_training`; {} if it says nothing.

    Raises:
        FileNotFoundError, ValueError: if the file does not exist; if it does not fit entirely, or
            has weights that the model lacks.
    """
    if not path:
        raise ValueError("No weights given (train.init_checkpoint or MODEL.WEIGHTS is empty)")
    checkpoint = FittingCheckpointer(model, strict=True).load(path, checkpointables=[])
    return read_description(checkpoint)
