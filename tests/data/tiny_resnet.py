"""The ResNet-50 of the models recorded from MMDetection, with few channels."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BottleneckBlock, ResNet


def tiny_resnet_stages(base_channels: int) -> list:
    """Return res2 to res5 of MMDetection's ResNet-50 with this `base_channels` (usually 64)."""
    return [
        L(ResNet.make_stage)(
            block_class=BottleneckBlock,
            num_blocks=num_blocks,
            stride_per_block=[1 if stage == 0 else 2] + [1] * (num_blocks - 1),
            in_channels=8 if stage == 0 else 2 * base_channels * 2**stage,
            bottleneck_channels=base_channels * 2**stage,
            out_channels=4 * base_channels * 2**stage,
            norm="FrozenBN",
            stride_in_1x1=False,
        )
        for stage, num_blocks in enumerate([3, 4, 6, 3])
    ]
