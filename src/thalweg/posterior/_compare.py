"""Several posteriors side by side: evidences and predictive accuracy."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from thalweg._core import Seed, check_positive_int, requirement
from thalweg.posterior._arviz import LeaveOneOut, leave_one_out
from thalweg.posterior._estimates import Estimate
from thalweg.posterior._posterior import Posterior

_GOOD_KHAT, _FEWEST = 0.7, 100


@dataclasses.dataclass(frozen=True)
class Compared:
    """One posterior among others.

    Attributes:
        name: its.
        log_evidence: log Z, or None where it is not known.
        log_bayes_factor: log Z less the largest of all, with the error of the difference; None without evidence.
        probability: of this model where all are equally likely before; None without evidence.
        elpd: expected log pointwise predictive density by PSIS-LOO, or None where the model has no pointwise
            log-likelihood.
        elpd_difference: elpd less the largest of all, the error from the pointwise differences; None where there is
            none, or the observations differ.
        worst_khat: the largest Pareto shape of the leave-one-out weights.
        ok: whether its verdict trusts its corrected draws.
    """

    name: str
    log_evidence: Estimate | None
    log_bayes_factor: Estimate | None
    probability: float | None
    elpd: Estimate | None
    elpd_difference: Estimate | None
    worst_khat: float | None
    ok: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Posteriors of the same data, the best evidence first.

    Attributes:
        rows: one a posterior.
    """

    rows: tuple[Compared, ...]

    def __str__(self) -> str:
        """A table."""
        head = ("model", "log evidence", "log Bayes factor", "probability", "elpd (LOO)", "difference", "trusted")
        table = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table)


def _cells(row: Compared) -> tuple[str, ...]:
    def shown(value: object) -> str:
        return "-" if value is None else str(value)

    chance = None if row.probability is None else f"{row.probability:.3f}"
    doubt = "" if row.worst_khat is None or row.worst_khat < _GOOD_KHAT else f" (k-hat {row.worst_khat:.2f})"
    return (
        row.name,
        shown(row.log_evidence),
        shown(row.log_bayes_factor),
        shown(chance),
        shown(row.elpd) + doubt,
        shown(row.elpd_difference),
        "yes" if row.ok else "no",
    )


def compare(posteriors: Mapping[str, Posterior], n: int = 4000, seed: Seed = 0) -> Comparison:
    r"""Evidence, Bayes factors and leave-one-out predictive accuracy of several posteriors.

    The evidences are those of the log densities as they are: comparable where all hold their constants, and where the
    data are the same. Errors of differences take the evidences to be independent.

    Args:
        posteriors: name -> posterior.
        n: corrected draws for LOO, at least 100.
        seed: an int or a JAX key.

    Raises:
        ValueError: if there are fewer than two, or one is no posterior.

    Sources: Kass and Raftery 1995; Vehtari, Gelman and Gabry 2017.
    """
    if not isinstance(posteriors, Mapping) or len(posteriors) < 2:
        got = f"{len(posteriors)}" if isinstance(posteriors, Mapping) else type(posteriors).__name__
        raise ValueError(requirement("posteriors", "be a dict of at least two posteriors by name", got))
    for name, posterior in posteriors.items():
        if not isinstance(posterior, Posterior):
            raise ValueError(requirement(f"posteriors[{name!r}]", "be a Posterior", type(posterior).__name__))
    n = check_positive_int("n", n, _FEWEST)
    evidences = {name: p.log_evidence for name, p in posteriors.items() if p.log_evidence is not None}
    looks = {
        name: leave_one_out(p.to_arviz(n, seed))
        for name, p in posteriors.items()
        if p.target is not None and p.target.log_likelihood is not None
    }
    best = max(evidences, key=lambda name: evidences[name].value, default=None)
    foremost = max(looks, key=lambda name: looks[name].pointwise.sum(), default=None)
    total = np.logaddexp.reduce([e.value for e in evidences.values()]) if evidences else 0.0
    rows = [
        Compared(
            name,
            evidences.get(name),
            None if name not in evidences or best is None else _factor(evidences, name, best),
            float(np.exp(evidences[name].value - total)) if name in evidences else None,
            _sum(looks[name].pointwise) if name in looks else None,
            None if name not in looks or foremost is None else _difference(looks, name, foremost),
            looks[name].worst_khat if name in looks else None,
            posterior.verdict.ok,
        )
        for name, posterior in posteriors.items()
    ]
    return Comparison(tuple(sorted(rows, key=lambda r: np.inf if r.log_evidence is None else -r.log_evidence.value)))


def _factor(evidences: Mapping[str, Estimate], name: str, best: str) -> Estimate:
    own, other = evidences[name], evidences[best]
    error = 0.0 if name == best else math.hypot(own.standard_error, other.standard_error)
    return Estimate(own.value - other.value, error)


def _sum(pointwise: np.ndarray) -> Estimate:
    return Estimate(float(pointwise.sum()), float(np.sqrt(len(pointwise) * np.var(pointwise))))


def _difference(looks: Mapping[str, LeaveOneOut], name: str, foremost: str) -> Estimate | None:
    own, other = looks[name].pointwise, looks[foremost].pointwise
    return _sum(own - other) if own.shape == other.shape else None
