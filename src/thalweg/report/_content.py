"""What the page says, as plain numbers: gathered from a posterior, so that figures and page never ask it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from thalweg.diagnostics import ParetoFit, SummaryRow, fit_pareto, khat_threshold, summarise
from thalweg.posterior import Bound, Estimate, ModeShare, Verdict

_DRAWS, _FEWEST_DRAWS = 2000, 200
_NUMBERS = 20_000_000
"""Draws times scalars kept at once, to bound memory."""
_REPLICATES = 200
_LARGEST_PREDICTIVE = 100_000
_MARGINALS, _PAIRS, _PAIRED = 12, 8, 60


@dataclasses.dataclass(frozen=True)
class Series:
    """Draws of one scalar quantity of the array `base`: raw (n,), and corrected (n,) or None."""

    base: str
    name: str
    raw: np.ndarray
    corrected: np.ndarray | None

    @property
    def best(self) -> np.ndarray:
        """Corrected draws where there are any."""
        return self.raw if self.corrected is None else self.corrected


@dataclasses.dataclass(frozen=True)
class Tail:
    """The largest weights: ascending weights over their mean, the share of draws above the first, and their fit."""

    ratios: np.ndarray
    start: float
    share: float
    fit: ParetoFit
    khat: float
    n_draws: int


@dataclasses.dataclass(frozen=True)
class Check:
    """Observed data (m,) against replicated data (n, m), with how many of them lie in their 90 % intervals."""

    name: str
    observed: np.ndarray
    replicated: np.ndarray
    inside: int


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything on the page.

    Attributes:
        name: of the model.
        verdict: whether to believe it.
        threshold: the k-hat below which weights are reliable.
        log_evidence: an Estimate, a Bound, or None where unknown.
        elbo: the same.
        modes: what each mode holds, perhaps empty.
        rows: the table of parameters, perhaps empty.
        rows_corrected: whether the rows are of corrected draws.
        marginals: the scalars shown on their own.
        n_scalars: how many there are in all.
        pairs: parameters shown two by two, (across, up).
        n_pairs: how many such pairs there are in all.
        tail: of the weights, or None.
        trace: (step, elbo), perhaps empty.
        checks: observed against replicated data.
        settings: what decided the result.
        seconds: how long the fit took, or None.
        steps_taken: sentences.
        versions: package -> version.
        citation: BibTeX.
        missing: part of the page -> a sentence that says why it is not there.
    """

    name: str
    verdict: Verdict
    threshold: float
    log_evidence: Estimate | Bound | None
    elbo: Estimate | Bound | None
    modes: tuple[ModeShare, ...]
    rows: list[SummaryRow]
    rows_corrected: bool
    marginals: list[Series]
    n_scalars: int
    pairs: list[tuple[Series, Series]]
    n_pairs: int
    tail: Tail | None
    trace: tuple[np.ndarray, np.ndarray]
    checks: list[Check]
    settings: dict[str, Any]
    seconds: float | None
    steps_taken: tuple[str, ...]
    versions: dict[str, str]
    citation: str
    missing: dict[str, str]


def gather(posterior: Any) -> Content:
    """Ask a posterior for all that the page shows; a ValueError of one part becomes a sentence in `missing`."""
    missing: dict[str, str] = {}

    def attempt(part: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except ValueError as error:
            missing[part] = str(error)
            return None

    rows = attempt("summary", posterior.summary)
    n = int(np.clip(_NUMBERS // max(len(rows or []), 1), _FEWEST_DRAWS, _DRAWS))
    raw = attempt("draws", lambda: posterior.sample(n, seed=1))
    corrected = attempt("corrected", lambda: posterior.resample(n, seed=1))
    if rows is None and raw is not None:
        rows = summarise(raw)
    series = _series(raw, corrected)
    names = set(attempt("names", lambda: posterior.names) or [])
    parameters = [s for s in series if s.base in names]
    settings = dict(posterior.settings)
    return Content(
        name=str(posterior.name),
        verdict=posterior.verdict,
        threshold=khat_threshold(posterior.verdict.n_draws),
        log_evidence=posterior.log_evidence,
        elbo=posterior.elbo,
        modes=tuple(posterior.modes),
        rows=list(rows or []),
        rows_corrected="summary" not in missing and corrected is not None,
        marginals=_choose_marginals(series, names),
        n_scalars=len(series),
        pairs=_choose_pairs(parameters),
        n_pairs=len(parameters) * (len(parameters) - 1) // 2,
        tail=None if posterior.log_weights is None else _tail(posterior.log_weights, posterior.verdict.khat),
        trace=_trace(posterior.trace),
        checks=attempt("checks", lambda: _checks(posterior)) or [],
        settings={k: v for k, v in settings.items() if k not in ("model", "seconds") and v is not None},
        seconds=settings.get("seconds"),
        steps_taken=tuple(posterior.steps_taken),
        versions=dict(posterior.versions),
        citation=str(posterior.citation),
        missing=missing,
    )


def _columns(draws: dict[str, Any]) -> dict[tuple[str, str], np.ndarray]:
    """One column a scalar: (`theta`, `theta[0,1]`) -> (n,)."""
    columns = {}
    for name, values in draws.items():
        array = np.asarray(values, dtype=np.float64)
        for index in np.ndindex(*array.shape[1:]):
            label = f"{name}[{','.join(map(str, index))}]" if index else name
            columns[name, label] = array[(slice(None), *index)]
    return columns


def _series(raw: dict[str, Any] | None, corrected: dict[str, Any] | None) -> list[Series]:
    """Every scalar that varies and is finite, in the draws' own order."""
    before = {} if raw is None else _columns(raw)
    after = {} if corrected is None else _columns(corrected)
    series = [Series(*key, column, after.get(key)) for key, column in before.items()]
    return [s for s in series if np.all(np.isfinite(s.raw)) and np.all(np.isfinite(s.best)) and np.ptp(s.raw) > 0]


def _choose_marginals(series: list[Series], parameters: set[str]) -> list[Series]:
    """All, or where they are too many: single parameters, then those that the correction moves most, then the derived.

    They are shown in their own order.
    """
    if len(series) <= _MARGINALS:
        return series

    def rank(s: Series) -> tuple[bool, bool, float]:
        moved = abs(np.mean(s.best) - np.mean(s.raw)) / np.std(s.raw)
        return s.base not in parameters, s.name != s.base, -float(moved)

    chosen = sorted(sorted(range(len(series)), key=lambda i: rank(series[i]))[:_MARGINALS])
    return [series[i] for i in chosen]


def _choose_pairs(series: list[Series]) -> list[tuple[Series, Series]]:
    """The most correlated pairs (by ranks) among the first scalars."""
    candidates = series[:_PAIRED]
    if len(candidates) < 2:
        return []
    ranks = np.argsort(np.argsort([s.best for s in candidates], axis=1), axis=1)
    correlation = np.abs(np.corrcoef(ranks))
    across, up = np.triu_indices(len(candidates), k=1)
    order = np.argsort(-np.round(correlation[across, up], 6), kind="stable")[:_PAIRS]
    return [(candidates[across[i]], candidates[up[i]]) for i in order]


def _tail(raw_log_weights: np.ndarray, khat: float) -> Tail | None:
    size = raw_log_weights.size
    length = int(min(0.2 * size, 3 * np.sqrt(size)))  # as in psis
    weights = np.sort(np.exp(raw_log_weights - np.max(raw_log_weights)))
    ratios = weights / np.mean(weights)
    if length == 0 or ratios[-1] == ratios[0]:
        return None
    start = float(ratios[size - length - 1])
    excess = ratios[size - length :] - start
    return Tail(ratios[ratios > 0], start, length / size, fit_pareto(excess[excess > 0]), khat, size)


def _trace(trace: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    elbo = np.asarray(trace.get("elbo", ()), dtype=np.float64).ravel()
    step = np.asarray(trace.get("step", np.arange(elbo.size)), dtype=np.float64).ravel()
    finite = np.isfinite(elbo) if step.size == elbo.size else np.zeros(elbo.size, bool)
    return step[: elbo.size][finite], elbo[finite]


def _checks(posterior: Any) -> list[Check]:
    observed = {name: np.asarray(value, dtype=np.float64).ravel() for name, value in posterior.observed().items()}
    size = sum(value.size for value in observed.values())
    if size > _LARGEST_PREDICTIVE:
        raise ValueError(f"the check is left out for more than {_LARGEST_PREDICTIVE:,} observations (here {size:,})")
    replicated = posterior.predictive(_REPLICATES, seed=1) if observed else {}
    checks = []
    for name, values in observed.items():
        known = np.isfinite(values)
        copies = np.asarray(replicated.get(name, ()), dtype=np.float64)
        if not known.any() or copies.size != _REPLICATES * values.size:
            continue
        copies, values = copies.reshape(_REPLICATES, -1)[:, known], values[known]
        copies = copies[np.all(np.isfinite(copies), axis=1)]
        if len(copies) < 2:
            continue
        low, high = np.quantile(copies, [0.05, 0.95], axis=0)
        checks.append(Check(name, values, copies, int(np.count_nonzero((low <= values) & (values <= high)))))
    return checks
