"""The outlines of a mask, along the edges of its pixels."""

import cv2
import numpy as np


def trace_outlines(
    mask: np.ndarray, *, parts: int, with_holes: bool = False, tolerance: float = 0
) -> list[np.ndarray]:
    """Return the outlines of the pieces of a mask.

    Args:
        mask: (H, W), not 0 inside.
        parts: of a pixel along each axis. OpenCV goes through the middles of the border pixels, so
            these are made small: the outlines are half of a part inside of the pixels' edges.
        with_holes: whether holes have outlines, too.
        tolerance: in pixels, by which corners may be left out.

    Returns:
        (P, 2) float x and y in pixels, each.
    """
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    enlarged = np.kron(
        mask[top : top + height, left : left + width], np.ones((parts, parts), np.uint8)
    )
    pieces = cv2.RETR_CCOMP if with_holes else cv2.RETR_EXTERNAL
    contours, _ = cv2.findContours(enlarged, pieces, cv2.CHAIN_APPROX_SIMPLE)
    if tolerance:
        contours = [cv2.approxPolyDP(c, tolerance * parts, closed=True) for c in contours]
    return [(contour[:, 0] + 0.5) / parts + (left, top) for contour in contours]
