"""The names of a ResNet's tensors in torchvision and MMDetection, and in Detectron2."""

import re

_NAME = re.compile(
    r"(?:layer(?P<layer>\d)\.(?P<block>\d+)\.)?"
    r"(?P<module>conv\d|[bg]n\d|downsample\.[01]|conv2\.conv_offset|conv2_offset)\.(?P<what>\w+)"
)
_MODULES = {
    "downsample.0": "shortcut",
    "downsample.1": "shortcut.norm",
    # The offsets of deformable convolutions; MMDetection's older files have Detectron2's name.
    "conv2.conv_offset": "conv2_offset",
}


def resnet_name(name: str) -> str | None:
    """From torchvision's name to Detectron2's; None if it is no name of the convolutional layers.

    "layer1.0.bn2.bias" is "res2.0.conv2.norm.bias", and "conv1.weight" "stem.conv1.weight".
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    layer, block, module, what = match.group("layer", "block", "module", "what")
    place = f"res{int(layer) + 1}.{block}" if layer else "stem"
    module = _MODULES.get(module) or re.sub(r"^[bg]n(\d)$", r"conv\1.norm", module)
    return f"{place}.{module}.{what}"
