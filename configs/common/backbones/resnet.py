"""ResNet and ResNeXt in torchvision's layout, with or without deformable convolutions.

Detectron2's `make_default_stages` can't be used: it gives all stages the same arguments, and can't
make a ResNeXt with groups of width 4.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BottleneckBlock, ResNet

from hybrid_cascade.layers.deform_conv import DeformBottleneckBlock

_BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}


def resnet_stages(
    depth: int,
    num_groups: int = 1,
    width_per_group: int = 64,
    deform: bool = False,
    norm: str = "FrozenBN",
) -> list:
    """Return res2 to res5 for `backbone.bottom_up.stages`; (101, 64, 4) is ResNeXt-101-64x4d.

    Args:
        depth: 50, 101 or 152.
        num_groups: groups of the 3x3 convolutions.
        width_per_group: channels of each group in res2; each following stage has twice as many.
        deform: make the 3x3 convolutions of res3 to res5 (c3-c5) deformable, version 1, with
            torchvision's operator.
        norm: a norm of Detectron2's `get_norm`, such as "SyncBN". Blocks that are frozen get
            "FrozenBN" in place of a batch norm.
    """
    stages = []
    for stage, num_blocks in enumerate(_BLOCKS[depth]):
        block = {"block_class": BottleneckBlock}
        if deform and stage > 0:
            block = {
                "block_class": DeformBottleneckBlock,
                "deform_modulated": False,
                "deform_num_groups": 1,
            }
        stages.append(
            L(ResNet.make_stage)(
                **block,
                num_blocks=num_blocks,
                stride_per_block=[1 if stage == 0 else 2] + [1] * (num_blocks - 1),
                in_channels=64 if stage == 0 else 128 * 2**stage,
                bottleneck_channels=num_groups * width_per_group * 2**stage,
                out_channels=256 * 2**stage,
                num_groups=num_groups,
                norm=norm,
                stride_in_1x1=False,
            )
        )
    return stages
