"""Eight schools (Rubin 1981): the effects of coaching on test scores in eight schools, partially pooled.

    mu ~ N(0, 5), tau ~ half-Cauchy(0, 5), theta[j] ~ N(mu, tau), y[j] ~ N(theta[j], sigma[j])

written with theta = mu + tau * z, z ~ N(0, 1) (non-centred), which spares every method the funnel at small tau.
Data: eight_schools of posteriordb (github.com/stan-dev/posteriordb, BSD-3-Clause).
"""

import jax
import jax.numpy as jnp
from jax.scipy.stats import cauchy, norm

import thalweg as tw

supports = {"mu": tw.real(), "tau": tw.positive(), "z": tw.real(8)}


def deterministic(params, data):
    """The schools' effects."""
    return {"theta": params["mu"] + params["tau"] * params["z"]}


def log_likelihood(params, data):
    """One number a school."""
    return {"y": norm.logpdf(data["y"], deterministic(params, data)["theta"], data["sigma"])}


def log_density(params, data):
    """Log prior + log likelihood."""
    prior = norm.logpdf(params["mu"], 0, 5) + jnp.log(2) + cauchy.logpdf(params["tau"], 0, 5)
    return prior + norm.logpdf(params["z"]).sum() + log_likelihood(params, data)["y"].sum()


def predictive(key, params, data):
    """Scores that the schools might have had."""
    theta = deterministic(params, data)["theta"]
    return {"y": theta + data["sigma"] * jax.random.normal(key, theta.shape)}
