#!/usr/bin/env python
"""Record backbones_mmdet.pth: feature maps of MMDetection's ConvNeXt, Res2Net and HRNet.

Run in an environment with MMDetection 3.3.0 and MMPretrain 1.2.0, whose ConvNeXt it uses. Weights
are those of filled_weights.py, so the file has only their shapes, and the maps of an image.
"""

from pathlib import Path

import mmdet
import mmpretrain
import torch
from filled_weights import filled_weights
from mmdet.models.backbones import HRNet, Res2Net
from mmdet.models.necks import HRFPN
from mmpretrain.models.backbones import ConvNeXt

OUTPUT = Path(__file__).parent / "backbones_mmdet.pth"


def build_models() -> dict[str, torch.nn.ModuleDict]:
    """Return small models under the names of the parts of a detector."""
    convnext = ConvNeXt(
        arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 32, 64]),
        out_indices=[0, 1, 2, 3],
        gap_before_final_norm=False,
        layer_scale_init_value=1.0,
    )
    # 8 channels instead of 64, and so an eighth of the 26 channels of a scale.
    res2net = Res2Net(depth=50, scales=4, base_width=26 / 8, base_channels=8, stem_channels=8)
    blocks = {
        1: ("BOTTLENECK", (1,), (32,)),
        2: ("BASIC", (2, 2), (16, 32)),
        3: ("BASIC", (2, 2, 2), (16, 32, 64)),
        4: ("BASIC", (2, 2, 2, 2), (16, 32, 64, 128)),
    }
    hrnet = HRNet(
        {
            f"stage{stage}": dict(
                num_modules=1,
                num_branches=stage,
                block=block,
                num_blocks=num_blocks,
                num_channels=num_channels,
            )
            for stage, (block, num_blocks, num_channels) in blocks.items()
        }
    )
    hrfpn = HRFPN(in_channels=[16, 32, 64, 128], out_channels=8)
    return {
        "convnext": torch.nn.ModuleDict({"backbone": convnext}),
        "res2net": torch.nn.ModuleDict({"backbone": res2net}),
        "hrnet": torch.nn.ModuleDict({"backbone": hrnet, "neck": hrfpn}),
    }


@torch.no_grad()
def main() -> None:
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 4 - 2
    recorded = {}
    for name, model in build_models().items():
        shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
        model.load_state_dict(filled_weights(shapes))
        maps = model.eval()["backbone"](image)
        if "neck" in model:
            maps = model["neck"](maps)
        recorded[name] = {"shapes": shapes, "maps": list(maps)}
        print(name, [f"{m.std():.3f}" for m in maps])
    meta = {"source": f"mmdet {mmdet.__version__}, mmpretrain {mmpretrain.__version__}"}
    torch.save({"image": image, "models": recorded, "meta": meta}, OUTPUT)
    print(OUTPUT.stat().st_size)


if __name__ == "__main__":
    main()
