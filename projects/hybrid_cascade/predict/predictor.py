"""Find the objects in images with a trained model.

    from hybrid_cascade import Predictor

    predictor = Predictor("configs/quick_start/htc_toy.py", "output/quick_start/model_final.pth")
    for result in predictor(["a.jpg", "b.jpg"]):
        result.save("out/")

Shapes: (H, W) the size of an image.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from omegaconf import DictConfig

from ..engine import (
    as_run_config,
    build_model,
    inference_autocast,
    load_config,
    load_weights,
    prepare_inference,
    with_test_time_options,
)
from ..visualization.class_colors import thing_name
from .class_names import find_class_names
from .inputs import InputImage, Source, as_model_input, read_inputs
from .result import Result


class Predictor:
    """A model with its weights that takes images as they come.

    Images are resized as the config says for test images, and turned into RGB if the model was
    trained so.

    Attributes:
        model: in eval mode. Its layers are joined, and it computes in 16 bits within autocast, if
            the config says so (`engine.prepare_inference`).
        metadata: with the names of the classes, `thing_classes`, as far as they are known.
    """

    def __init__(
        self,
        config: str | os.PathLike | DictConfig | CfgNode,
        weights: str | os.PathLike | None = None,
        *,
        device: str | None = None,
        overrides: Sequence[str] = (),
        class_names: Sequence[str] | None = None,
        score_thresh: float = 0.5,
        batch_size: int = 1,
    ):
        """
        Args:
            config: a LazyConfig (.py) or a YAML file, the name of a config of this project, such as
                "htc/htc_r50_fpn_1x.py", or a config that is loaded.
            weights: a checkpoint; None for those that the config names.
            device: "cpu", "cuda", "cuda:1"; None: as the config says, the CPU if there is no GPU.
            overrides: of a config file, as on the command line of train_net.py.
            class_names: of the instance classes; None: those that the checkpoint was trained on,
                or, if it does not say, those of the config's test dataset.
            score_thresh: detections with lower scores are left out.
            batch_size: images that go through the model together. They are padded to one size,
                which changes results slightly near the padding.

        Raises:
            FileNotFoundError: if the config or the weights do not exist.
            ValueError: if the weights do not fit entirely, or names and classes differ in number.
        """
        if not isinstance(config, DictConfig | CfgNode):
            config = load_config(os.fspath(config), overrides)
        elif overrides:
            raise ValueError("overrides are for config files; change a loaded config itself")
        run_config = as_run_config(config)
        if device is not None:
            run_config = run_config.replaced(device=device)
        model = build_model(run_config.cfg)
        path = os.fspath(weights) if weights else run_config.initial_weights
        trained_with = load_weights(model, path)
        self.model = prepare_inference(
            run_config.cfg, with_test_time_options(run_config.cfg, model)
        )
        self._cfg = run_config.cfg
        # Of ROI heads, or of a detector without them.
        self._num_classes = getattr(model, "roi_heads", model).num_classes
        if class_names is not None:
            trained_with = {"thing_classes": class_names}
            if len(class_names) != self._num_classes:
                raise ValueError(
                    f"{len(class_names)} class_names for a model of {self._num_classes} classes"
                )
        self.metadata = find_class_names(trained_with, (run_config.test_dataset_names or [None])[0])
        if len(self.metadata.get("thing_classes", [])) != self._num_classes:
            self.metadata = Metadata()  # of a dataset that the model was not trained on
        self.score_thresh = score_thresh
        self.batch_size = batch_size
        self._preparation = run_config.build_test_augmentations()

    @property
    def class_names(self) -> list[str]:
        """The names of the classes; "class 7" where none is known."""
        return [thing_name(index, self.metadata) for index in range(self._num_classes)]

    def __call__(self, images: Source | Iterable[Source]) -> Iterator[Result]:
        """Yield what is found in each image, in their order; images are read as they are needed.

        Args:
            images: see `read_inputs`.

        Raises:
            FileNotFoundError, ValueError: see `read_inputs`.
        """
        inputs = read_inputs(images)
        while batch := list(islice(inputs, self.batch_size)):
            yield from self.predict(batch)

    @torch.no_grad()
    def predict(self, batch: Sequence[InputImage]) -> list[Result]:
        """Return what is found in the images of a batch."""
        with inference_autocast(self._cfg):
            outputs = self.model([as_model_input(x, *self._preparation) for x in batch])
        results = []
        for x, output in zip(batch, outputs, strict=True):
            instances = output["instances"].to("cpu")
            instances = instances[instances.scores >= self.score_thresh]
            results.append(Result(x.name, x.image, instances, self.metadata))
        return results
