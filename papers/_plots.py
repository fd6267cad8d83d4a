"""How the papers' figures look: one style, densities without axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, ACCENT, MUTED = "#1b1f24", "#1f6f8b", "#8a9099"
SERIES = (ACCENT, "#c8553d", "#588157", "#7b5ea7", "#b08900")
"""Colours that are told apart in greys too."""
_SIDE, _DPI = 1.25, 110


def new_figure(width: float, height: float) -> Figure:
    """An empty one, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, folder: Path, name: str) -> str:
    """As PNG, under another name first."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{name}.new"
    figure.savefig(new, dpi=_DPI, format="png", metadata={"Software": None})
    new.replace(folder / f"{name}.png")
    return f"{name}.png"


def densities(
    rows: Sequence[Sequence[np.ndarray | None]], across: Sequence[str], down: Sequence[str], under: Any = None
) -> Figure:
    """Densities on grids, (first axis across, second up), in a table; `under` words below each, or None."""
    below = 0.16 if under else 0.0
    figure = new_figure(_SIDE * len(across) + 0.5, (_SIDE + below) * len(down) + 0.35)
    axes = figure.subplots(len(down), len(across), squeeze=False)
    for i, row in enumerate(rows):
        for j, density in enumerate(row):
            ax = axes[i][j]
            ax.set(xticks=[], yticks=[])
            for spine in ax.spines.values():
                spine.set(color="#d5d9de", linewidth=0.6)
            if density is None:
                ax.axis("off")
                continue
            ax.imshow(density.T, origin="lower", cmap="Blues", interpolation="bilinear", vmin=0, aspect="equal")
            if under and under[i][j]:
                ax.set_xlabel(under[i][j], fontsize=6.5, color=MUTED, labelpad=2)
            if i == 0:
                ax.set_title(across[j], fontsize=8, color=INK)
            if j == 0:
                ax.set_ylabel(down[i], fontsize=8, color=INK)
    return figure


def curves(ax: Any, series: dict[str, tuple[Sequence[float], Sequence[float]]], *, x: str, y: str) -> None:
    """Lines with marks on logarithmic axes, named at their ends."""
    for (name, (across, up)), colour in zip(series.items(), SERIES * 3, strict=False):
        ax.plot(across, up, marker="o", markersize=3, linewidth=1.3, color=colour, label=name)
    ax.set(xscale="log", yscale="log")
    ax.set_xlabel(x, fontsize=8, color=INK)
    ax.set_ylabel(y, fontsize=8, color=INK)
    ax.tick_params(labelsize=7, colors=MUTED)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=7, frameon=False)
