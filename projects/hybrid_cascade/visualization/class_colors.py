"""The name and the colour of each instance class, from the metadata or made up."""

import numpy as np
from detectron2.data import Metadata
from matplotlib.colors import hsv_to_rgb

Color = tuple[float, float, float]  # RGB in [0, 1]


def palette(index: int) -> Color:
    """Return a bright colour; the hues of near indices are far from each other."""
    golden = 0.618034
    return tuple(hsv_to_rgb((index * golden % 1, (0.85, 0.6)[index % 2], (1, 0.8)[index // 2 % 2])))


def thing_name(index: int, metadata: Metadata) -> str:
    """Return the name of an instance class, "class 7" if the metadata don't name it."""
    names = metadata.get("thing_classes") or []
    return names[index] if index < len(names) else f"class {index}"


def thing_color(index: int, metadata: Metadata) -> Color:
    """Return the colour of an instance class, from the palette if the metadata have none."""
    colors = metadata.get("thing_colors") or []
    return tuple(np.divide(colors[index], 255)) if index < len(colors) else palette(index)
