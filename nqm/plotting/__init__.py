"""Pictures of tables, which are known by their columns only, in one style. Imported only to draw: loads matplotlib."""

from typing import TYPE_CHECKING

from .results import (
    plot_critical_batch_size,
    plot_curves,
    plot_frontier,
    plot_predictions,
    plot_schedule,
    plot_schedules,
    plot_sweep,
)
from .style import (
    COLORS,
    LINES,
    MARKERS,
    STYLE,
    drawing_on,
    logarithmic,
    new_figure,
    powers_of_two,
    sequential,
    series,
    style,
)

if TYPE_CHECKING:
    from .style import Drawn as Drawn

__all__ = [
    "COLORS",
    "LINES",
    "MARKERS",
    "STYLE",
    "drawing_on",
    "logarithmic",
    "new_figure",
    "plot_critical_batch_size",
    "plot_curves",
    "plot_frontier",
    "plot_predictions",
    "plot_schedule",
    "plot_schedules",
    "plot_sweep",
    "powers_of_two",
    "sequential",
    "series",
    "style",
]
