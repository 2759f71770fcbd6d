"""Pictures of detections stage by stage, of training curves and of precision over recall."""

from .cascade_panel import draw_cascade_panel
from .contact_sheet import draw_contact_sheet
from .precision_recall import plot_precision_recall
from .training_curves import plot_training_curves

__all__ = [
    "draw_cascade_panel",
    "draw_contact_sheet",
    "plot_precision_recall",
    "plot_training_curves",
]
