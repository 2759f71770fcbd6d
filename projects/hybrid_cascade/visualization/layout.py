"""Lay out tiles in rows, with titles and a legend.

All tiles have the same size. A cell is a tile with its title and the gap to the next one.
"""

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .class_colors import Color

MAX_WIDTH = 2400  # of all tiles of a row; all sizes are in pixels
TILE_SIDE = (400, 560)  # least and most of the longer side
MIN_CELL_WIDTH = 240  # the longest title has to fit over a narrow tile
TITLE_HEIGHT = 30
GAP = 12
LEGEND_ENTRY = (180, 24)  # width, height
DPI = 100

Tile = tuple[str, np.ndarray]  # title; (H, W, 3) uint8 RGB


def tile_size(height: int, width: int, columns: int) -> tuple[int, int]:
    """Return the height and width of the tile of an image in a panel with so many columns."""
    longer = max(height, width)
    side = min(int(np.clip(longer, *TILE_SIDE)), MAX_WIDTH // columns - 2 * GAP)
    return max(1, round(height * side / longer)), max(1, round(width * side / longer))


def resize_to_tile(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an RGB image of any numeric type to the (height, width) of its tile, as uint8."""
    interpolation = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    image = np.clip(image, 0, 255).astype(np.uint8)
    return cv2.resize(image, size[::-1], interpolation=interpolation)


def compose(rows: list[list[Tile]], legend: list[tuple[str, Color]]) -> np.ndarray:
    """Lay out rows of tiles under their titles, and the legend after the last tile.

    Args:
        rows: the tiles of each row; empty rows are left out.
        legend: names and colours.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rows = [row for row in rows if row]
    h, w = rows[0][0][1].shape[:2]
    cell_width, cell_height = max(w, MIN_CELL_WIDTH) + GAP, h + TITLE_HEIGHT + GAP
    columns = max(len(rows[0]), len(rows[-1]) + bool(legend))
    width, height = columns * cell_width + GAP, len(rows) * cell_height
    # 0.01 px keeps Agg from truncating to one pixel less.
    figure = Figure(figsize=((width + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, (title, tile) in enumerate(row):
            x, y = GAP + c * cell_width, TITLE_HEIGHT + r * cell_height
            pixels[y : y + h, x : x + w] = tile
            figure.text(x / width, 1 - (y - 8) / height, title, fontsize=12)
    figure.figimage(pixels, origin="upper")
    if legend:
        x, y = GAP + len(rows[-1]) * cell_width, TITLE_HEIGHT + (len(rows) - 1) * cell_height
        per_column = max(1, h // LEGEND_ENTRY[1])
        fits = per_column * max(1, (width - x) // LEGEND_ENTRY[0])
        handles = [Patch(color=color, label=name) for name, color in legend[:fits]]
        if len(legend) > fits:
            handles[-1] = Patch(color="none", label=f"and {len(legend) - fits + 1} more")
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(x / width, 1 - y / height),
            ncols=-(-len(handles) // per_column),
            fontsize=11,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
        )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
