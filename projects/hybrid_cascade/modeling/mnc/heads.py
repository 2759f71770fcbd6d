"""The mask stage of MNC (arXiv 1512.04412, Section 3.2)."""

import fvcore.nn.weight_init as weight_init
from detectron2.layers import ShapeSpec
from torch import Tensor, nn
from torch.nn import functional as F


class MNCMaskHead(nn.Module):
    """Two fully connected layers that see a whole RoI and predict one mask, without a class."""

    def __init__(self, input_shape: ShapeSpec, fc_dim: int = 256, mask_side: int = 21):
        """
        Args:
            input_shape: channels, height and width of the RoI features.
            fc_dim: the width of the hidden layer.
            mask_side: m, the rows and columns of a mask (21 as released, 28 in the paper).
        """
        super().__init__()
        self.mask_side = mask_side
        inputs = input_shape.channels * input_shape.height * input_shape.width
        self.fc = nn.Linear(inputs, fc_dim)
        self.predictor = nn.Linear(fc_dim, mask_side**2)
        weight_init.c2_xavier_fill(self.fc)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, x: Tensor) -> Tensor:
        """RoI features (R, C, h, w) to mask logits (R, m, m)."""
        logits = self.predictor(F.relu(self.fc(x.flatten(1))))
        return logits.reshape(-1, self.mask_side, self.mask_side)
