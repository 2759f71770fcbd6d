"""The stages of ResNeXt-101, which Detectron2's `make_default_stages` does not know."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BottleneckBlock, ResNet


def resnext101_stages(num_groups: int, width_per_group: int) -> list:
    """res2 to res5 for `backbone.bottom_up.stages`, e.g. (64, 4) for ResNeXt-101-64x4d."""
    return [
        L(ResNet.make_stage)(
            block_class=BottleneckBlock,
            num_blocks=num_blocks,
            stride_per_block=[1 if stage == 0 else 2] + [1] * (num_blocks - 1),
            in_channels=64 if stage == 0 else 128 * 2**stage,
            bottleneck_channels=num_groups * width_per_group * 2**stage,
            out_channels=256 * 2**stage,
            num_groups=num_groups,
            norm="FrozenBN",
            stride_in_1x1=False,
        )
        for stage, num_blocks in enumerate([3, 4, 23, 3])
    ]
