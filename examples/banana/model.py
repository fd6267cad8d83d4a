"""A log density without data: Rosenbrock's banana in two dimensions, normalised, so that its log evidence is 0."""

from jax.scipy.stats import norm

import thalweg as tw

supports = {"x": tw.real(), "y": tw.real()}


def log_density(params):
    """X ~ N(0, 1), y ~ N(x^2, 0.5)."""
    return norm.logpdf(params["x"]) + norm.logpdf(params["y"], params["x"] ** 2, 0.5)
