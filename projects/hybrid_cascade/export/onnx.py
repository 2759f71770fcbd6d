"""Export inference as ONNX, by Detectron2's `TracingAdapter`, and run the file with onnxruntime.

Shapes: K classes, R boxes.
"""

import importlib.util
import os

import torch
from detectron2.layers import shapes_to_tensor
from torch import Tensor, nn
from torch.onnx.symbolic_helper import parse_args

from .detection import adapter_of, check_traceable, inputs_of
from .torchscript import tracing

OPSET = 17  # from 16 on, RoIAlign is aligned as Detectron2's
LOWEST = torch.finfo(torch.float32).min
# torchvision's limit for CPUs, of coordinates. Up to it, classes are told apart by an offset.
MOST_WITH_OFFSET = 4000


def check_packages(*names: str) -> None:
    """Raise an ImportError if a package that ONNX files need is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"The package {name} is missing: pip install 'hybrid_cascade[onnx]'")


def export_onnx(
    model: nn.Module, image: Tensor, path: str | os.PathLike, paste_masks: bool = False
) -> None:
    """Write a graph that does to one image, of any size, what the model does.

    Its inputs are "image" and, with `paste_masks`, "output_size"; its outputs are named as the
    fields of the detections. What they are is said in `trace`. It has operators of ONNX only.

    Args:
        model: in eval mode, on the CPU.
        image: (3, H, W) float32.
        path: of the file.
        paste_masks: as in `trace`.

    Raises:
        ValueError: as `check_traceable`.
        RuntimeError: for a layer that ONNX lacks. It is torch.onnx's error, which names the layer.
        ImportError: if onnx is not installed.
    """
    check_packages("onnx")
    check_traceable(model)
    adapter = adapter_of(model, image, paste_masks)
    inputs = inputs_of(image, tuple(image.shape[1:]) if paste_masks else None)
    names = _output_names(adapter, inputs)
    sizes = {name: {0: "detections"} for name in names if name != "image_size"}
    if paste_masks and "pred_masks" in sizes:
        sizes["pred_masks"] |= {1: "output_height", 2: "output_width"}
    with tracing(_batched_nms):
        torch.onnx.export(
            adapter,
            inputs,
            os.fspath(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image", "output_size"][: len(inputs)],
            output_names=names,
            dynamic_axes={"image": {1: "height", 2: "width"}, **sizes},
        )


def _output_names(adapter: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    adapter(*inputs)
    [instances] = adapter.outputs_schema.schemas
    return [*instances.keys, "image_size"]


class OnnxGraph:
    """A file of `export_onnx` in onnxruntime, on the CPU; takes and returns tensors."""

    def __init__(self, path: str | os.PathLike, threads: int = 0):
        """
        Args:
            path: of the file.
            threads: how many compute; 0 means as onnxruntime decides.

        Raises:
            ImportError: if onnxruntime is not installed.
        """
        check_packages("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, as `trace` says.

        Raises:
            RuntimeError: if the graph fails.
        """
        names = [x.name for x in self.session.get_inputs()]
        arrays = [x.cpu().numpy() for x in inputs]
        try:
            outputs = self.session.run(None, dict(zip(names, arrays, strict=True)))
        except Exception as error:  # onnxruntime's errors have no class in common
            raise RuntimeError(str(error)) from error
        return tuple(map(torch.from_numpy, outputs))


def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Do what torchvision's `batched_nms` does on a CPU, with ONNX's NMS of several classes.

    The boxes (R, 4) have the offset that torchvision gives them if they are few. Classes are told
    apart by a matrix of scores, in either case.
    """
    zero = boxes.new_zeros(1)  # there may be no boxes
    offset = idxs.to(boxes) * (torch.cat([boxes.flatten(), zero]).max() + 1)
    with_offset = shapes_to_tensor([*boxes.shape]).prod() <= MOST_WITH_OFFSET
    boxes = boxes + torch.where(with_offset, offset, 0)[:, None]
    num_classes = torch.cat([idxs, zero.to(idxs)]).max() + 1
    of_class = torch.arange(num_classes, device=idxs.device)[:, None] == idxs
    kept = _NMSOfClasses.apply(boxes, torch.where(of_class, scores, -torch.inf), iou_threshold)
    return kept[scores[kept].sort(descending=True).indices]


class _NMSOfClasses(torch.autograd.Function):
    """NMS of boxes (R, 4) by scores (K, R), of which each box has one that is finite."""

    @staticmethod
    def forward(ctx, boxes, scores, iou_threshold):
        scores, classes = scores.max(dim=0)
        return torch.ops.torchvision.nms(boxes, scores, iou_threshold)

    @staticmethod
    @parse_args("v", "v", "f")
    def symbolic(g, boxes, scores, iou_threshold):
        def constant(value, dtype):
            return g.op("Constant", value_t=torch.tensor([value], dtype=dtype))

        first = constant(0, torch.long)
        selected = g.op(
            "NonMaxSuppression",
            g.op("Unsqueeze", boxes, first),
            g.op("Unsqueeze", scores, first),
            constant(torch.iinfo(torch.int64).max, torch.long),  # any number of boxes
            constant(iou_threshold, torch.float32),
            constant(LOWEST, torch.float32),  # the score must be greater
        )
        # (number, 3): image, class, box
        return g.op("Gather", selected, g.op("Constant", value_t=torch.tensor(2)), axis_i=1)
