"""Where the layers of VGG-16, and of ZF, are in our models."""

import re

from .conversion import Layout

NO_SUCH_HEAD = "no RoI head of this model has fully connected layers of VGG-16's size"


def vgg_names(layer: str, what: str, layout: Layout) -> list[str]:
    """Our names of a parameter of a layer that has Caffe's name; [] if there is none.

    Convolutions ("conv3_1", ZF's "conv3") are in the backbone; "fc6" and "fc7" are the two layers
    of each RoI head that has them.
    """
    if re.fullmatch(r"conv[1-5](_[1-3])?", layer):
        return [f"{prefix}{layer}.{what}" for prefix in layout.bottom_ups]
    if layer in ("fc6", "fc7"):
        return [f"{head}fc{int(layer[2]) - 5}.{what}" for head in layout.vgg_heads]
    return []
