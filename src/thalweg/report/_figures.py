"""Figures as inline SVG whose colours are the page's CSS variables, so that they follow light and dark.

The one file that knows matplotlib; its object interface alone, for no global state is touched.
"""

import dataclasses
import io
import re
from typing import Any

import numpy as np

from thalweg._core import import_guest
from thalweg.calibrate import Quantity
from thalweg.diagnostics import SummaryRow, ecdf, ecdf_band
from thalweg.posterior import Estimate
from thalweg.report._content import Check, Content, Series, Tail

INK, MUTED, LINE, RAW, ACCENT = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", RAW: "--raw", ACCENT: "--accent"}
"""Colours that are drawn with -> the CSS variables that the page shows."""
_SMALL, _WIDE = (180, 132), (360, 216)
_CLOUD, _CURVE, _PANELS = 400, 400, 12
_SETTINGS = {
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 4),
    "svg.fonttype": "none",
    "svg.hashsalt": "thalweg",
    "text.color": MUTED,
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 9,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 9,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """An SVG element, words for who cannot see it, and a caption."""

    svg: str
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Figures:
    """The page's figures; None or empty where there is nothing to draw."""

    marginals: list[Figure]
    pairs: list[Figure]
    tail: Figure | None
    trace: Figure | None
    checks: list[Figure]


def draw_figures(content: Content) -> Figures:
    """Draw everything that `content` holds numbers for."""
    matplotlib = import_guest("matplotlib", "report")
    rows = {row.name: row for row in content.rows}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_SETTINGS}):
        return Figures(
            marginals=[_marginal(series, i, rows.get(series.name)) for i, series in enumerate(content.marginals)],
            pairs=[_pair(across, up, i) for i, (across, up) in enumerate(content.pairs)],
            tail=None if content.tail is None else _tail(content.tail),
            trace=_trace(*content.trace, content.log_evidence) if content.trace[0].size > 1 else None,
            checks=[_check(check, i) for i, check in enumerate(content.checks)],
        )


def draw_calibration(quantities: list[Quantity]) -> tuple[list[Figure], Figure | None]:
    """(the ranks of the most uneven quantities, the coverage of all); nothing where no run was trusted."""
    if not quantities or not len(quantities[0].pit):
        return [], None
    matplotlib = import_guest("matplotlib", "report")
    worst = sorted(quantities, key=lambda q: q.p_value)[:_PANELS]
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_SETTINGS}):
        return [_ranks(q, i) for i, q in enumerate(worst)], _coverage(quantities)


def _ranks(quantity: Quantity, number: int) -> Figure:
    """The empirical distribution function less the even one, in its band."""
    axes = _axes(_SMALL, left=32)
    band = ecdf_band(len(quantity.pit))
    at = np.concatenate([[0.0], band.at, [1.0]])
    low, high = (np.concatenate([[0.0], part - band.at, [0.0]]) for part in (band.low, band.high))
    axes.fill_between(at, low, high, color=RAW, alpha=0.25, linewidth=0)
    axes.plot(at, ecdf(quantity.pit, at) - at, color=ACCENT, linewidth=1.6)
    axes.axhline(0, color=LINE, linewidth=0.8)
    axes.set(xlim=(0, 1), xticks=[0, 0.5, 1])
    alt = f"Ranks of {quantity.name}: p-value {quantity.p_value:.2g}"
    return Figure(_svg(axes, f"ranks-{number}"), alt, f"{quantity.name} (p = {quantity.p_value:.2g})")


def _coverage(quantities: list[Quantity]) -> Figure:
    """Of central intervals: what they hold against what they should."""
    axes = _axes(_WIDE, left=48, bottom=36)
    levels = np.linspace(0.01, 0.99, 99)
    n = len(quantities[0].pit)
    held = np.array([[np.mean(np.abs(q.pit - 0.5) <= c / 2) for c in levels] for q in quantities])
    spread = 2 * np.sqrt(levels * (1 - levels) / n)
    axes.fill_between(levels, levels - spread, levels + spread, color=RAW, alpha=0.25, linewidth=0)
    for own in held:
        axes.plot(levels, own, color=ACCENT, linewidth=1, alpha=max(0.2, 1 / np.sqrt(len(held))))
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, dashes=(4, 2))
    axes.set(xlabel="central interval", ylabel="share that held the true value", xlim=(0, 1), ylim=(0, 1))
    caption = (
        f"One line a quantity. Dashed: as it should be. Band: two standard errors of {n} runs, at each place by itself."
    )
    return Figure(_svg(axes, "coverage"), "Coverage of central intervals", caption)


def _axes(size: tuple[int, int], left: int = 12, bottom: int = 20) -> Any:
    """Axes in a figure of `size` points, with fixed margins: nothing is laid out twice."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    width, height = size
    canvas = Canvas(figsize=(width / 72, height / 72), facecolor="none")
    FigureCanvasSVG(canvas)
    right = top = 12
    box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    axes = canvas.add_axes(box, facecolor="none")
    axes.xaxis.set_major_locator(MaxNLocator(3 if size == _SMALL else 5))
    axes.yaxis.set_major_locator(MaxNLocator(3 if size == _SMALL else 5))
    return axes


def _svg(axes: Any, label: str) -> str:
    """The figure as one small SVG element: own ids, no metadata, two decimals, CSS variables."""
    buffer = io.StringIO()
    axes.figure.savefig(buffer, format="svg", facecolor="none", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' (xmlns|xmlns:xlink|version)="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'<svg width="[^"]*" height="[^"]*"', '<svg aria-hidden="true" focusable="false"', text)
    # two decimals are a hundredth of a point; colours and ids have no decimal point
    text = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), text)
    text = re.sub(
        r" ?font-family: [^;\"]*;?", "", text
    )  # the page's own font; how it is written depends on the version
    text = re.sub(r"font: (?:\w+ )*?([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{label}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r"\s*\n\s*", "\n", text)


def _dots(axes: Any, x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    """A cloud as one path of round dots, a fifth of the size that one marker element a draw would take."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points = np.repeat(np.stack([x, y], axis=1), 2, axis=0)
    path = Path(points, np.tile([Path.MOVETO, Path.LINETO], len(x)))
    path.should_simplify = False
    # an artist, not a patch: the limits are set by hand, and finding them from the path takes longer than drawing it
    axes.add_artist(PathPatch(path, fill=False, capstyle="round", transform=axes.transData, **style))


def _limits(*samples: np.ndarray) -> tuple[float, float]:
    """A window on all but the furthest two in a thousand, a little wider."""
    edges = np.array([np.quantile(sample, [0.002, 0.998]) for sample in samples])
    low, high = float(np.min(edges[:, 0])), float(np.max(edges[:, 1]))
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _marginal(series: Series, number: int, row: SummaryRow | None) -> Figure:
    axes = _axes(_SMALL)
    shown = [series.raw] if series.corrected is None else [series.raw, series.corrected]
    low, high = _limits(*shown)
    bins = np.linspace(low, high, 37)
    if series.corrected is not None:
        axes.hist(series.corrected, bins, density=True, histtype="stepfilled", color=ACCENT, alpha=0.75, linewidth=0)
    axes.hist(series.raw, bins, density=True, histtype="step", color=RAW, linewidth=1.2)
    axes.set(xlim=(low, high), yticks=[])
    axes.spines["left"].set_visible(False)
    where = "" if row is None else f", mean {row.mean:.3g}, 90 % between {row.q05:.3g} and {row.q95:.3g}"
    return Figure(_svg(axes, f"marginal-{number}"), f"Histogram of {series.name}{where}", series.name)


def _pair(across: Series, up: Series, number: int) -> Figure:
    axes = _axes(_SMALL, left=32)
    _dots(axes, across.raw[:_CLOUD], up.raw[:_CLOUD], edgecolor=RAW, alpha=0.6, linewidth=1.8)
    if across.corrected is not None and up.corrected is not None:
        _dots(axes, across.corrected[:_CLOUD], up.corrected[:_CLOUD], edgecolor=ACCENT, alpha=0.8, linewidth=2.3)
    axes.set(xlim=_limits(across.raw, across.best), ylim=_limits(up.raw, up.best))
    correlation = float(np.corrcoef(across.best, up.best)[0, 1])
    alt = f"Draws of {up.name} (up) against {across.name} (across), correlation {correlation:.2f}"
    return Figure(_svg(axes, f"pair-{number}"), alt, f"{up.name} against {across.name}")


def _tail(tail: Tail) -> Figure:
    axes = _axes(_WIDE, left=48, bottom=36)
    count = tail.ratios.size
    above = np.arange(count, 0, -1) / tail.n_draws
    kept = np.unique(count - np.round(np.geomspace(1, count, _CURVE)).astype(int))
    kept = kept[kept >= count // 100]  # the few smallest would only stretch the axis
    _dots(axes, tail.ratios[kept], above[kept], edgecolor=ACCENT, linewidth=2.6)
    low, high = tail.ratios[kept].min(), tail.ratios[kept].max()
    if np.isfinite(tail.fit.khat):
        excess = np.geomspace(1e-3, 3.0, 80) * (tail.ratios[-1] - tail.start)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            base = np.maximum(1 + tail.fit.khat * excess / tail.fit.scale, 0.0)
            log_share = -np.log(base) / tail.fit.khat if tail.fit.khat else -excess / tail.fit.scale
            share = tail.share * np.exp(log_share)
        drawn = share > 0.3 / tail.n_draws
        axes.plot(tail.start + excess[drawn], share[drawn], color=INK, linewidth=1.4, dashes=(4, 2))
        high = max(high, tail.start + excess[drawn].max(initial=0.0))
    axes.set(yscale="log", xlabel="weight / mean weight", ylabel="share of draws above")
    if high > 20 * low:  # a log scale of less may have no number on it
        axes.set_xscale("log")
    axes.set_xlim(low, 1.05 * high)
    axes.minorticks_off()
    axes.set_ylim(0.3 / tail.n_draws, 1.5)
    alt = f"Share of draws whose weight exceeds a value, on a log scale; k-hat {tail.khat:.2f}"
    caption = (
        f"Dots: the weights of {tail.n_draws:,} draws, largest on the right. Dashed: the generalised Pareto tail "
        f"fitted to the largest {tail.share:.0%}, with k-hat {tail.khat:.2f}. The flatter the line falls, the more "
        "rests on a few draws."
    )
    return Figure(_svg(axes, "tail"), alt, caption)


def _trace(step: np.ndarray, elbo: np.ndarray, evidence: Any) -> Figure:
    axes = _axes(_WIDE, left=56, bottom=36)
    window = max(elbo.size // 40, 1)
    padded = np.concatenate([[0.0], np.cumsum(elbo)])
    mean = (padded[window:] - padded[:-window]) / window
    every = max(elbo.size // _CURVE, 1)
    axes.plot(step[::every], elbo[::every], color=RAW, linewidth=0.7, alpha=0.7)
    axes.plot(step[window // 2 :][: mean.size : every], mean[::every], color=ACCENT, linewidth=1.6)
    known = isinstance(evidence, Estimate) and np.isfinite(evidence.value)
    low, high = np.quantile(elbo, 0.1), np.max(elbo)
    high = max(high, evidence.value) if known else high
    margin = 0.12 * (high - low) or 0.5
    axes.set(xlabel="step", ylabel="ELBO, nats", xlim=(step[0], step[-1]), ylim=(low - margin, high + margin))
    if known:
        axes.axhline(evidence.value, color=INK, linewidth=1, dashes=(4, 2))
    alt = f"ELBO over {int(step[-1]) + 1:,} steps, from {elbo[0]:.4g} to {mean[-1]:.4g}"
    dashed = " Dashed: the log evidence." if known else ""
    return Figure(_svg(axes, "trace"), alt, f"ELBO of the batch at each step, and its running mean.{dashed}")


def _check(check: Check, number: int) -> Figure:
    axes = _axes(_WIDE, left=48, bottom=36)
    count = check.observed.size
    words = _draw_intervals(axes, check) if 1 < count <= 60 else _draw_histograms(axes, check)
    single = "The observation lies" if check.inside else "The observation does not lie"
    covered = f"{single} in its" if count == 1 else f"{check.inside:,} of {count:,} observations lie in their"
    caption = f"{check.name}: {covered} 90 % predictive interval{'' if count == 1 else 's'}. {words}"
    return Figure(_svg(axes, f"check-{number}"), f"Predictive check of {check.name}", caption)


def _draw_intervals(axes: Any, check: Check) -> str:
    from matplotlib.ticker import MaxNLocator

    at = np.arange(check.observed.size)
    low, lower, middle, upper, high = np.quantile(check.replicated, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    thick = float(np.clip(150 / at.size, 2, 9))
    axes.vlines(at, low, high, color=ACCENT, linewidth=thick, alpha=0.28)
    axes.vlines(at, lower, upper, color=ACCENT, linewidth=thick, alpha=0.5)
    _dots(axes, at, check.observed, edgecolor=INK, linewidth=min(thick, 5))
    axes.set(xlabel="observation", ylabel="value", xlim=(-0.7, at.size - 0.3))
    axes.set_ylim(_limits(np.concatenate([low, high, check.observed, middle])))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return "Dots: observed. Bars: 50 and 90 % of the replicated values."


def _draw_histograms(axes: Any, check: Check) -> str:
    low, high = _limits(check.observed, check.replicated.ravel())
    whole = bool(np.all(check.observed == np.round(check.observed))) and high - low < 60
    bins = (
        np.arange(np.floor(low) - 0.5, np.ceil(high) + 1)
        if whole
        else np.linspace(low, high, 22 if check.observed.size == 1 else 42)
    )
    axes.set(xlabel="value", ylabel="density", xlim=(bins[0], bins[-1]))
    if check.observed.size == 1:
        axes.hist(check.replicated.ravel(), bins, density=True, color=ACCENT, alpha=0.5, linewidth=0)
        axes.axvline(check.observed[0], color=INK, linewidth=1.6)
        return "Line: observed. Bars: the replicated values."
    heights = np.array([np.histogram(row, bins)[0] for row in check.replicated]) / check.observed.size / np.diff(bins)
    for tails, alpha in ((0.05, 0.25), (0.25, 0.4)):
        bottom, top = np.quantile(heights, [tails, 1 - tails], axis=0)
        axes.stairs(top, bins, baseline=bottom, fill=True, color=ACCENT, alpha=alpha, linewidth=0)
    observed = np.histogram(check.observed, bins)[0] / check.observed.size / np.diff(bins)
    axes.stairs(observed, bins, color=INK, linewidth=1.4)
    axes.set_ylim(bottom=0)
    return "Line: histogram of the observed values. Bands: 50 and 90 % of the histograms of replicated data sets."
