"""The page: content and figures through one template; the one file that knows Jinja."""

import itertools
import math
from importlib import resources
from typing import Any

import numpy as np

from thalweg._core import import_guest
from thalweg.calibrate import Calibration
from thalweg.diagnostics import SummaryRow
from thalweg.posterior import CITATION, LARGEST_RHAT, Bound, Estimate, Verdict
from thalweg.report._content import Content
from thalweg.report._figures import Figure, Figures

_TABLE_ROWS = 2000
_NONE = "\N{EN DASH}"
_NAMED = 5
_MINUS = "\N{MINUS SIGN}"
_PARTS = {
    "summary": "Corrected summary",
    "draws": "Draws",
    "corrected": "Corrected draws",
    "names": "Pairs",
    "checks": "Predictive check",
}


def render(content: Content, figures: Figures) -> str:
    """The HTML of a posterior."""
    return _fill(
        "page.html.j2",
        kind="Thalweg posterior report",
        name=content.name,
        content=content,
        figures=figures,
        grade=_grade(content.verdict),
        headline=_headline(content.verdict),
        can_correct="corrected" not in content.missing,
        key_figures=_key_figures(content),
        left_out=[(_PARTS[part], reason) for part, reason in content.missing.items()],
        table_note=_table_note(content),
        table=_table(content.rows[:_TABLE_ROWS]),
        settings=_settings(content.settings),
        versions=content.versions,
        citation=content.citation,
    )


def render_calibration(calibration: Calibration, panels: list[Figure], coverage: Figure | None) -> str:
    """The HTML of a calibration; the figures are of the most uneven quantities."""
    quantities = calibration.quantities()
    levels = list(quantities[0].coverage)
    shown = sorted(quantities, key=lambda q: q.p_value)[:_TABLE_ROWS]
    head, _, rest = str(calibration).partition(": ")
    seconds = calibration.settings.get("seconds")
    return _fill(
        "calibration.html.j2",
        kind="Thalweg calibration report",
        name=calibration.name,
        grade="good" if calibration.ok else "bad" if head.startswith("Not") else "fair",
        headline=(head, rest[:1].upper() + rest[1:]),
        key_figures=[
            ("Trusted", f"{calibration.n_trusted}", f"of {len(calibration.outcome)} posteriors"),
            ("p-value", _number(calibration.p_value, 3), f"of the worst of {len(quantities)}, for all together"),
            *([] if seconds is None else [("Run time", _duration(float(seconds)), "for all")]),
        ],
        panels=panels,
        coverage=coverage,
        level="95 %",
        n_quantities=len(quantities),
        heads=["Name", "p-value", "Mean place", *(f"In {100 * c:.0f} %" for c in levels)],
        table=[
            (q.name, _number(q.p_value, 3), _number(float(np.mean(q.pit)), 2), *_percents(q.coverage)) for q in shown
        ]
        if panels
        else [],
        failures=calibration.failures,
        settings=_settings(calibration.settings),
        versions=calibration.versions,
        citation=CITATION,
    )


def _percents(coverage: dict[float, float]) -> list[str]:
    return [f"{100 * share:.0f} %" for share in coverage.values()]


def _settings(settings: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _setting(value)) for name, value in settings.items()]


def _fill(template: str, **values: Any) -> str:
    """A page; everything that comes from outside is escaped, but for the figures' own SVG."""
    jinja2, folder = import_guest("jinja2", "report"), resources.files("thalweg.report")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
    )
    return environment.get_template(template).render(**values)


def _grade(verdict: Verdict) -> str:
    return "good" if verdict.raw_ok else "fair" if verdict.ok else "bad"


def _headline(verdict: Verdict) -> tuple[str, str]:
    """What to do, and why in a sentence."""
    if verdict.raw_ok:
        return "Trust it", "The flow itself matches the posterior."
    if verdict.ok:
        return "Trust the corrected draws", "The flow's raw draws are off, but reweighting them works."
    return "Do not trust it", "Neither the flow nor its corrected draws can be relied on."


def _key_figures(content: Content) -> list[tuple[str, str, str]]:
    """(label, value, note)."""
    verdict = content.verdict
    if verdict.rhat is not None:
        shape = ("R-hat", _number(verdict.rhat, 3), f"reliable to {LARGEST_RHAT}")
    else:
        few = not math.isfinite(content.threshold)
        note = "too few draws to judge" if few else f"reliable below {content.threshold:.2f}"
        shape = ("k-hat", _number(verdict.khat, 2), note)
    ess = f"{verdict.ess:,.0f}" if math.isfinite(verdict.ess) else _NONE
    shown = [
        ("Log evidence", *_estimate(content.log_evidence)),
        ("ELBO", *_estimate(content.elbo)),
        shape,
        ("Effective draws", ess, f"of {verdict.n_draws:,}"),
    ]
    if content.seconds is not None:
        shown.append(("Run time", _duration(float(content.seconds)), "for the fit"))
    return shown


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{seconds / 3600:.1f} h"


def _estimate(value: Estimate | Bound | None) -> tuple[str, str]:
    if isinstance(value, Estimate):
        error = value.standard_error
        if not (math.isfinite(error) and error > 0):
            return _number(value.value, 3), "nats"
        return _number(value.value, _decimals(error, 2)), f"± {_number(error, _decimals(error, 2))} nats"
    if isinstance(value, Bound):
        low, high = (None if x is None else f"{float(np.asarray(x)):.4g}" for x in (value.lower, value.upper))
        if low and high:
            return f"{low} to {high}", "nats, bounds"
        return (f"≥ {low}" if low else f"≤ {high}" if high else _NONE), "nats, a bound"
    return _NONE, "not known"


def _decimals(scale: float, digits: int) -> int:
    """Decimals that show `digits` significant digits of `scale`, at most 6."""
    if not (math.isfinite(scale) and scale > 0):
        return 3
    return int(np.clip(digits - 1 - math.floor(math.log10(scale)), 0, 6))


def _number(value: float, decimals: int) -> str:
    """A number with a true minus sign; scientific where that is shorter."""
    if math.isnan(value):
        return _NONE
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    small = value != 0 and abs(value) < 0.5 * 10.0**-decimals and decimals >= 6
    text = f"{value:.2e}" if small or abs(value) >= 1e7 else f"{value:z,.{decimals}f}"  # z: no minus zero
    return text.replace("-", _MINUS)


def _table_note(content: Content) -> str:
    if not content.rows_corrected:
        return "The flow's own draws, not corrected."
    kind = "Corrected (weighted) draws" if content.verdict.rhat is None else "Draws of the chains"
    note = f"{kind}: " + ("what to report." if content.verdict.ok else "not to be relied on.")
    heavy = [row.name for row in content.rows if row.khat > content.threshold]
    # where all weights are but even, their own k-hat says nothing of a parameter
    even = content.verdict.rhat is None and content.verdict.khat > content.threshold
    if not heavy or not content.verdict.ok or even:
        return note
    named = ", ".join(heavy[:_NAMED]) + (f" and {len(heavy) - _NAMED} more" if len(heavy) > _NAMED else "")
    return f"{note} Not the means of {named}, whose k-hat is above {content.threshold:.2f}: report quantiles."


def _table(rows: list[SummaryRow]) -> list[tuple[str, ...]]:
    """Cells of text; the elements of one array share their decimals, so that columns can be compared by eye."""
    table = []
    for _, group in itertools.groupby(rows, key=lambda row: row.name.split("[")[0]):
        block = list(group)
        sds = [row.sd for row in block if math.isfinite(row.sd) and row.sd > 0]
        decimals = _decimals(float(np.median(sds)) if sds else math.nan, 3)
        for row in block:
            numbers = (row.mean, row.sd, row.q05, row.q50, row.q95)
            cells = (*(_number(x, decimals) for x in numbers), _number(row.mcse, decimals + 1), _number(row.khat, 2))
            table.append((row.name, *cells))
    return table


def _setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
