"""Seven posteriors of posteriordb as log densities, from their written definitions; data and truths in tests/data."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import cauchy, norm

import thalweg as tw

HERE = Path(__file__).parent
RECORDS = json.loads((HERE / "data" / "posteriordb.json").read_text())["posteriors"]


def eight_schools(p, data):
    """Centred: theta in R^8, mu, tau > 0."""
    prior = (
        norm.logpdf(p["mu"], 0, 5) + cauchy.logpdf(p["tau"], 0, 5) + norm.logpdf(p["theta"], p["mu"], p["tau"]).sum()
    )
    return prior + norm.logpdf(data["y"], p["theta"], data["sigma"]).sum()


def ar5(p, data):
    """Autoregression of order 5, conditioned on the first five values."""
    y = data["y"]
    lags = jnp.stack([y[4 - k : y.shape[0] - 1 - k] for k in range(5)])
    prior = norm.logpdf(p["alpha"], 0, 10) + norm.logpdf(p["beta"], 0, 10).sum() + cauchy.logpdf(p["sigma"], 0, 2.5)
    return prior + norm.logpdf(y[5:], p["alpha"] + p["beta"] @ lags, p["sigma"]).sum()


def garch(p, data):
    """GARCH(1, 1), flat where beta1 < 1 - alpha1."""
    y = data["y"]

    def step(variance, shock):
        new = p["alpha0"] + p["alpha1"] * shock**2 + p["beta1"] * variance
        return new, new

    _, rest = jax.lax.scan(step, data["sigma1"] ** 2, (y - p["mu"])[:-1])
    sd = jnp.sqrt(jnp.concatenate([data["sigma1"][None] ** 2, rest]))
    return norm.logpdf(y, p["mu"], sd).sum()


def kidscore(p, data):
    """A regression on one predictor."""
    mean = p["beta"][0] + p["beta"][1] * data["mom_iq"]
    return cauchy.logpdf(p["sigma"], 0, 2.5) + norm.logpdf(data["kid_score"], mean, p["sigma"]).sum()


def logmesquite(p, data):
    """A log-log regression, flat priors."""
    names = ("diam1", "diam2", "canopy_height", "total_height", "density")
    x = jnp.stack([jnp.ones(46), *(jnp.log(data[k]) for k in names), data["group"]])
    return norm.logpdf(jnp.log(data["weight"]), p["beta"] @ x, p["sigma"]).sum()


def radon(p, data):
    """An intercept a county, centred."""
    prior = norm.logpdf(p["sigma_alpha"]) + norm.logpdf(p["sigma_y"]) + norm.logpdf(p["mu_alpha"], 0, 10)
    prior += norm.logpdf(p["beta"], 0, 10).sum() + norm.logpdf(p["alpha"], p["mu_alpha"], p["sigma_alpha"]).sum()
    mean = p["alpha"][data["county_idx"] - 1] + p["beta"][0] * data["log_uppm"] + p["beta"][1] * data["floor_measure"]
    return prior + norm.logpdf(data["log_radon"], mean, p["sigma_y"]).sum()


def hmm(p, data):
    """Two hidden states with normal emissions; weight 1 for each first state."""
    emission = norm.logpdf(data["y"][:, None], p["mu"], 1.0)
    log_rows = jnp.log(jnp.stack([p["theta1"], p["theta2"]]))

    def step(g, e):
        return jax.nn.logsumexp(g[:, None] + log_rows, axis=0) + e, None

    g, _ = jax.lax.scan(step, emission[0], emission[1:])
    prior = norm.logpdf(p["mu"][0], 3, 1) + norm.logpdf(p["mu"][1], 10, 1)
    return prior + jax.nn.logsumexp(g)


def _room_below(p):
    return 1 - p["alpha1"]


MODELS = {
    "eight_schools-eight_schools_noncentered": (
        eight_schools,
        {"theta": tw.real(8), "mu": tw.real(), "tau": tw.positive()},
    ),
    "arK-arK": (ar5, {"alpha": tw.real(), "beta": tw.real(5), "sigma": tw.positive()}),
    "garch-garch11": (
        garch,
        {"mu": tw.real(), "alpha0": tw.positive(), "alpha1": tw.interval(0, 1), "beta1": tw.interval(0, _room_below)},
    ),
    "kidiq-kidscore_momiq": (kidscore, {"beta": tw.real(2), "sigma": tw.positive()}),
    "mesquite-logmesquite": (logmesquite, {"beta": tw.real(7), "sigma": tw.positive()}),
    "radon_mn-radon_hierarchical_intercept_centered": (
        radon,
        {
            "alpha": tw.real(85),
            "beta": tw.real(2),
            "mu_alpha": tw.real(),
            "sigma_alpha": tw.positive(),
            "sigma_y": tw.positive(),
        },
    ),
    "hmm_example-hmm_example": (
        hmm,
        {"theta1": tw.simplex(2), "theta2": tw.simplex(2), "mu": tw.positive_ordered(2)},
    ),
}


def make(name):
    """The target of one posterior."""
    density, supports = MODELS[name]
    data = RECORDS[name]["data"]
    if data is None:
        data = json.loads((HERE.parent / "examples" / "radon" / "data.json").read_text())
    return tw.from_function(density, supports, {k: np.asarray(v) for k, v in data.items()}, name=name)


def as_matrix(name, draws):
    """Draws as columns in the reference's order of names."""
    columns = []
    for label in RECORDS[name]["names"]:
        base, _, index = label.rstrip("]").partition("[")
        value = np.asarray(draws[base])
        columns.append(value[:, int(index) - 1] if index else value)
    return np.stack(columns, axis=1)


def as_params(name, row):
    """One row of the reference's columns as a dict of parameters."""
    out = {}
    for label, value in zip(RECORDS[name]["names"], row, strict=True):
        out.setdefault(label.partition("[")[0], []).append(value)
    shapes = make(name).space.shapes
    return {k: np.reshape(v, shapes[k]) for k, v in out.items()}
