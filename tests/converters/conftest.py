from pathlib import Path

import pytest
import torch

from hybrid_cascade.converters import MMDET, convert
from hybrid_cascade.engine import build_model, load_config

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(scope="session")
def golden_file():
    return torch.load(DATA / "htc_tiny_mmdet.pth", weights_only=True)


@pytest.fixture(scope="session")
def outputs(golden_file):
    """What MMDetection 3.3.0 computes from the image: every intermediate."""
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
