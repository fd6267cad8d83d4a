"""Models of one data set side by side, against closed forms of the normal with a normal prior."""

import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

import thalweg as tw

Y = np.random.default_rng(0).normal(1.0, 1.0, 30)


def fit(scale):
    """mu ~ N(0, scale), y ~ N(mu, 1)."""

    def log_density(p, data):
        return norm.logpdf(p["mu"], 0, scale) + norm.logpdf(data["y"], p["mu"], 1.0).sum()

    target = tw.from_function(
        log_density,
        {"mu": tw.real()},
        {"y": Y},
        log_likelihood=lambda p, data: {"y": norm.logpdf(data["y"], p["mu"], 1.0)},
    )
    return tw.infer(target, "gaussian", progress=False)


def log_evidence(scale):
    return stats.multivariate_normal.logpdf(Y, np.zeros(30), np.eye(30) + scale**2)


def elpd(scale):
    """Leave-one-out, exactly."""
    total = 0.0
    for i in range(30):
        rest = np.delete(Y, i)
        variance = 1 / (1 / scale**2 + len(rest))
        total += stats.norm.logpdf(Y[i], variance * rest.sum(), np.sqrt(variance + 1))
    return total


def test_evidences_and_leave_one_out():
    found = tw.compare({"narrow": fit(0.1), "wide": fit(3.0)})
    assert [row.name for row in found.rows] == sorted(
        ["narrow", "wide"], key=lambda n: -log_evidence({"narrow": 0.1, "wide": 3.0}[n])
    )
    truth = {"narrow": 0.1, "wide": 3.0}
    best = max(log_evidence(s) for s in truth.values())
    for row in found.rows:
        exact = log_evidence(truth[row.name])
        assert abs(row.log_evidence.value - exact) < 4 * row.log_evidence.standard_error + 1e-3
        assert abs(row.log_bayes_factor.value - (exact - best)) < 4 * row.log_bayes_factor.standard_error + 2e-3
        assert row.elpd.value == pytest.approx(elpd(truth[row.name]), abs=0.05)
        assert row.worst_khat is not None
        assert row.worst_khat < 0.7
        assert row.ok
    assert sum(row.probability for row in found.rows) == pytest.approx(1)
    assert found.rows[0].log_bayes_factor.standard_error == 0
    lines = str(found).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("model")


def test_messages():
    posterior = fit(1.0)
    with pytest.raises(ValueError, match="`posteriors` must be a dict of at least two posteriors by name, got 1"):
        tw.compare({"one": posterior})
    with pytest.raises(ValueError, match="`n` must be a whole number of at least 100, got 7"):
        tw.compare({"a": posterior, "b": posterior}, n=7)
    with pytest.raises(ValueError, match=r"`posteriors\['b'\]` must be a Posterior, got int"):
        tw.compare({"a": posterior, "b": 3})
