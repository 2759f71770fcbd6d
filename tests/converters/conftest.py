"""Models that other projects' weights are converted for, and such weights."""

from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo as detectron2_zoo
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from torch import nn

from hybrid_cascade import use_htc_heads, use_semantic_branch
from hybrid_cascade.converters import CAFFE_MNC, MMDET, convert
from hybrid_cascade.engine import build_model, load_config
from hybrid_cascade.modeling import VGG16

from .mnc_caffe_weights import make_mnc_weights, our_shapes

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(scope="session")
def golden_file():
    return torch.load(DATA / "htc_tiny_mmdet.pth", weights_only=True)


@pytest.fixture(scope="session")
def outputs(golden_file):
    """All intermediate results of MMDetection 3.3.0 for the image of the golden file."""
    return golden_file["outputs"]


@pytest.fixture
def tiny_model():
    return build_model(load_config(str(DATA / "htc_tiny_mmdet.py"), ["train.device=cpu"]))


@pytest.fixture(scope="session")
def golden_model(golden_file):
    """Our model with MMDetection's weights."""
    model = build_model(load_config(str(DATA / "htc_tiny_mmdet.py"), ["train.device=cpu"]))
    converted = convert(MMDET, golden_file["state_dict"], model.state_dict())
    model.load_state_dict(converted.state_dict)
    return model


@pytest.fixture(scope="module")
def mask_rcnn():
    """Detectron2's Mask R-CNN, without memory for its parameters."""
    with torch.device("meta"):
        return instantiate(detectron2_zoo.get_config("common/models/mask_rcnn_fpn.py").model)


@pytest.fixture(scope="module")
def htc():
    """The same model with the heads and the semantic branch of HTC."""
    cfg = detectron2_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    use_htc_heads(cfg)
    use_semantic_branch(cfg)
    with torch.device("meta"):
        return instantiate(cfg)


@pytest.fixture(scope="module")
def two_pathways():
    """The parts of MNC that ImageNet weights fill, and a narrower head that they do not fit."""
    heads = {"masked_head": 4096, "box_head": 4096, "narrow_head": 1024}
    with torch.device("meta"):
        model = nn.ModuleDict({"backbone": VGG16(), "roi_heads": nn.ModuleDict()})
        for name, size in heads.items():
            shape = ShapeSpec(channels=512, height=7, width=7)
            head = FastRCNNConvFCHead(shape, conv_dims=[], fc_dims=[size, size])
            model["roi_heads"][name] = head
    return model


@pytest.fixture
def mnc_weights():
    """The layers of MNC's network in Caffe."""
    return make_mnc_weights()


@pytest.fixture
def converted(mnc_weights):
    """The same weights under our names."""
    return convert(CAFFE_MNC, mnc_weights, our_shapes()).state_dict
