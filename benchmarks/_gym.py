"""Posteriors of Inference Gym, of logistic regressions and of a Cox process, from their definitions in mathematics.

Sources: Inference Gym (tensorflow/probability at c847a416) and MODELS.md beside its data; the regressions' reference
says its model itself; the pines are those of spatstat, the process that of Moller et al. 1998.
"""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import cauchy, norm

import thalweg as tw
from benchmarks._record import data_folder


def _table(name):
    """(predictors, y) of a file of UCI."""
    with gzip.open(data_folder() / "uci" / f"{name}.csv.gz", "rt") as f:
        rows = np.loadtxt(f, delimiter=",", skiprows=1)
    return rows[:, :-1], rows[:, -1]


def _standardised(x):
    spread = x.std(0)
    return (x - x.mean(0)) / np.where(spread > 0, spread, 1)


def logistic(p, data):
    """w ~ N(0, 1), y Bernoulli with logit X w."""
    logit = data["x"] @ p["w"]
    return norm.logpdf(p["w"]).sum() - jnp.logaddexp(0, jnp.where(data["y"] == 1, -logit, logit)).sum()


def probit(p, data):
    """The same with the normal's distribution function."""
    z = data["x"] @ p["w"]
    return norm.logpdf(p["w"]).sum() + norm.logcdf(jnp.where(data["y"] == 1, z, -z)).sum()


def eight_schools(p, data):
    """Centred, the logarithm of the spread normal."""
    mu, log_sd, theta = p["avg_effect"], p["log_stddev"], p["school_effects"]
    prior = norm.logpdf(mu, 0, 10) + norm.logpdf(log_sd, 5, 1) + norm.logpdf(theta, mu, jnp.exp(log_sd)).sum()
    return prior + norm.logpdf(data["y"], theta, data["s"]).sum()


def brownian(p, data):
    """A random walk, seen with noise but for its middle."""
    x, seen = p["all"], data["seen"]
    walk = norm.logpdf(jnp.diff(x, prepend=0), 0, data["q"]).sum()
    return walk + jnp.where(seen, norm.logpdf(jnp.where(seen, data["y"], 0), x, data["r"]), 0).sum()


def lorenz(p, data):
    """A noisy Lorenz system, one coordinate seen at both ends."""
    s = p["all"]
    x, y, z = s[:-1].T
    slope = jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)
    h, q = data["h"], data["q"]
    walk = norm.logpdf(s[0]).sum() + norm.logpdf(s[1:], s[:-1] + h * slope, jnp.sqrt(h) * q).sum()
    return walk + jnp.where(data["mask"], norm.logpdf(data["y"], s[:, 0], data["r"]), 0).sum()


def volatility(p, data):
    """Stochastic volatility, centred."""
    phi, mu, s, h = (
        p[k] for k in ("persistence_of_volatility", "mean_log_volatility", "white_noise_shock_scale", "log_volatility")
    )
    b = (phi + 1) / 2
    prior = 19 * jnp.log(b) + 0.5 * jnp.log1p(-b) + cauchy.logpdf(mu, 0, 5) + cauchy.logpdf(s, 0, 2)
    first = norm.logpdf(h[0], mu, s / jnp.sqrt(1 - phi**2))
    walk = norm.logpdf(h[1:], mu + phi * (h[:-1] - mu), s).sum()
    return prior + first + walk + norm.logpdf(data["r"], 0, jnp.exp(h / 2)).sum()


def cox(p, data):
    """A log Gaussian Cox process at 100 points, amplitude and length of its kernel unknown."""
    a, length = p["amplitude"] + 0.001, p["length_scale"] + 0.001
    d = jnp.sqrt(3.0) * data["distance"] / length
    factor = jnp.linalg.cholesky(a**2 * (1 + d) * jnp.exp(-d) + 1e-6 * jnp.eye(len(d)))
    f = p["log_intensity"]
    white = jax.scipy.linalg.solve_triangular(factor, f - data["middle"], lower=True)
    prior = norm.logpdf(white).sum() - jnp.log(jnp.diagonal(factor)).sum()
    for name, sd in (("amplitude", 0.5), ("length_scale", 1.0)):
        prior += norm.logpdf(jnp.log(p[name]), -1, sd) - jnp.log(p[name])
    return prior + (data["counts"] * (f + jnp.log(data["extents"])) - data["extents"] * jnp.exp(f)).sum()


def pines(p, data):
    """A log Gaussian Cox process on 40 x 40 cells of the unit square, its field in the coordinates of its normal prior.

    Covariance 1.91 exp(-33 distance), mean log 126 - 1.91 / 2.
    """
    f = data["mean"] + data["factor"] @ p["z"]
    return norm.logpdf(p["z"]).sum() + (data["counts"] * f - jnp.exp(f) / 1600).sum()


def _cox_data(d):
    x = d["lgcp_locations"]
    distance = np.sqrt(((x[:, None] - x) ** 2).sum(-1))
    counts, extents = d["lgcp_counts"], d["lgcp_extents"]
    middle = np.mean(np.log(counts) - np.log(extents))
    return {"distance": distance, "counts": counts, "extents": extents, "middle": middle}


def _returns(d, n):
    r = np.diff(np.log(d["sp500_closing_prices"]))[-n:]
    return {"r": r - r.mean()}


def _volatility_supports(n):
    return {
        "persistence_of_volatility": tw.interval(-1, 1),
        "mean_log_volatility": tw.real(),
        "white_noise_shock_scale": tw.positive(),
        "log_volatility": tw.real(n),
    }


def _credit():
    x, y = _table("german_credit_numeric")
    return {"x": np.hstack([_standardised(x), np.ones((len(x), 1))]), "y": y}


def _gym():
    """Name -> (log density, supports, data)."""
    with np.load(data_folder() / "inference_gym" / "data.npz") as file:
        d = dict(file)
    regression = {"w": tw.real(25)}
    schools = {"avg_effect": tw.real(), "log_stddev": tw.real(), "school_effects": tw.real(8)}
    scores = {"y": np.array([28, 8, -3, 7, -1, 1, 18, 12.0]), "s": np.array([15, 10, 16, 11, 9, 11, 10, 18.0])}
    walk = {
        "y": np.nan_to_num(d["brownian_observed"]),
        "seen": ~np.isnan(d["brownian_observed"]),
        "q": d["brownian_innovation_noise"],
        "r": d["brownian_observation_noise"],
    }
    bridge = {
        "y": np.nan_to_num(d["lorenz_observed"]),
        "mask": d["lorenz_mask"].astype(bool),
        "r": d["lorenz_observation_scale"],
        "q": d["lorenz_innovation_scale"],
        "h": d["lorenz_step_size"],
    }
    field = {"amplitude": tw.positive(), "length_scale": tw.positive(), "log_intensity": tw.real(100)}
    prices = len(d["sp500_closing_prices"]) - 1
    return {
        "eight_schools": (eight_schools, schools, scores),
        "german_credit_numeric_logistic_regression": (logistic, regression, _credit()),
        "german_credit_numeric_probit_regression": (probit, regression, _credit()),
        "brownian_motion_missing_middle_observations": (brownian, {"all": tw.real(30)}, walk),
        "convection_lorenz_bridge": (lorenz, {"all": tw.real((30, 3))}, bridge),
        "stochastic_volatility_log_sp500_small": (volatility, _volatility_supports(100), _returns(d, 100)),
        "synthetic_log_gaussian_cox_process": (cox, field, _cox_data(d)),
        "stochastic_volatility_log_sp500": (volatility, _volatility_supports(prices), _returns(d, prices)),
    }


GYM = (
    "eight_schools",
    "german_credit_numeric_logistic_regression",
    "german_credit_numeric_probit_regression",
    "brownian_motion_missing_middle_observations",
    "convection_lorenz_bridge",
    "stochastic_volatility_log_sp500_small",
    "synthetic_log_gaussian_cox_process",
    "stochastic_volatility_log_sp500",
)


def load_gym(name):
    """(the target, quantity -> its name among parameters, mean, sd)."""
    density, supports, data = _gym()[name]
    quantities = json.loads((data_folder() / "inference_gym" / f"{name}.json").read_text())["quantities"]
    own = {k: "w" if "w" in supports else k for k in quantities}
    truth = {own[k]: (np.array(q["mean"]), np.array(q["standard_deviation"])) for k, q in quantities.items()}
    if name == "synthetic_log_gaussian_cox_process":
        # of a run on the same points in another order; where counts are large, intensities have their order
        rank = np.argsort(np.argsort(data["counts"], kind="stable"))
        mean, sd = truth["log_intensity"]
        truth["log_intensity"] = tuple(q[np.argsort(mean)[rank]] for q in (mean, sd))
    return tw.from_function(density, supports, data, name=name), truth


def load_regression(name):
    """(the target, its log evidence, means, sds)."""
    truth = json.loads((data_folder() / "uci" / "logistic_reference.json").read_text())["targets"][name]
    x, y = _table(name)
    data = {"x": np.hstack([np.ones((len(x), 1)), _standardised(x)]), "y": y}
    target = tw.from_function(logistic, {"w": tw.real(truth["dim"])}, data, name=name)
    return target, truth["log_evidence"], np.array(truth["mean"]), np.array(truth["sd"])


REGRESSIONS = ("pima_diabetes", "german_credit_numeric", "sonar")


def load_pines():
    """The target; no truth is known."""
    with gzip.open(data_folder() / "uci" / "finnish_pines.csv.gz", "rt") as f:
        x = np.loadtxt(f, delimiter=",", skiprows=1)
    counts, *_ = np.histogram2d(*x.T, bins=40, range=[[0, 1], [0, 1]])
    cells = np.stack(np.meshgrid(np.arange(40), np.arange(40), indexing="ij"), -1).reshape(-1, 2) / 40
    distance = np.sqrt(((cells[:, None] - cells) ** 2).sum(-1))
    factor = np.linalg.cholesky(1.91 * np.exp(-33 * distance))
    data = {"factor": factor, "counts": counts.reshape(-1), "mean": np.log(126.0) - 1.91 / 2}
    return tw.from_function(pines, {"z": tw.real(1600)}, data, name="pines")
