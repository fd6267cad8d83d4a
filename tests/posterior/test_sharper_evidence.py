"""Further draws for the evidence of a posterior that is trusted."""

import jax
import numpy as np
from jax.scipy.stats import logistic, norm, t

import thalweg as tw
from thalweg._core import precision
from thalweg.diagnostics import log_mean_exp
from thalweg.distributions import Transformed
from thalweg.flows import make_flow
from thalweg.ladder._powers import base_of
from thalweg.posterior import make_posterior, with_sharper_evidence
from thalweg.run import Evaluations, Limit

KEY = jax.random.key(1)


def logistics(size):
    return tw.from_function(lambda p: logistic.logpdf(p["x"]).sum(), {"x": tw.real(size)})


def test_uneven_weights_are_drawn_further_until_the_evidence_is_sharp():
    posterior = tw.infer(logistics(24), "gaussian", dtype="float64", progress=False)
    by_the_verdict = log_mean_exp(posterior.log_weights)[1]
    estimate = posterior.log_evidence
    assert posterior.verdict.ok
    assert by_the_verdict > 0.006
    assert estimate.standard_error < 0.9 * by_the_verdict
    assert abs(estimate.value) < 4 * estimate.standard_error


def test_even_weights_and_what_is_not_trusted_are_left_as_they_are():
    normal = tw.from_function(lambda p: norm.logpdf(p["x"]).sum(), {"x": tw.real(2)})
    even = tw.infer(normal, dtype="float64", progress=False)
    assert with_sharper_evidence(even, KEY, Limit.of(None)).log_evidence == even.log_evidence
    uneven = tw.infer(logistics(60), "gaussian", dtype="float64", progress=False)
    assert not uneven.verdict.ok
    assert with_sharper_evidence(uneven, KEY, Limit.of(None)) is uneven


def test_no_further_draws_once_the_budget_is_over():
    # enough for the fit and the search for modes, which the verdict's own evaluations then use up
    posterior = tw.infer(logistics(24), "gaussian", dtype="float64", budget=Evaluations(100_000), progress=False)
    noise = log_mean_exp(posterior.log_weights)[1]
    assert posterior.verdict.ok
    assert noise > 0.006
    assert np.isclose(posterior.log_evidence.standard_error, noise)


def test_the_error_of_a_bent_flow_holds_what_its_checks_do_not_see():
    def log_density(p):
        return norm.logpdf(p["x"]) + norm.logpdf(p["y"], p["x"] ** 2, 0.5)

    bent = tw.from_function(log_density, {"x": tw.real(), "y": tw.real()})
    posterior = tw.infer(bent, "realnvp", dtype="float64", progress=False)
    noise = log_mean_exp(posterior.log_weights)[1]
    error = posterior.log_evidence.standard_error
    assert posterior.verdict.ok
    assert noise < 0.004
    assert np.isclose(error, np.hypot(noise, 0.01), rtol=0.05)
    assert abs(posterior.log_evidence.value) < 3 * error


def test_the_error_of_an_exact_fit_holds_the_rounding_of_its_density():
    loc, scale = np.linspace(-2, 2, 10), np.logspace(-1, 1, 10)

    def log_density(p, data):
        return t.logpdf(p["x"], 2.5, data["loc"], data["scale"]).sum()

    with precision("float32"):
        target = tw.from_function(log_density, {"x": tw.real(10)}, {"loc": loc, "scale": scale}).in_default_precision()
        affine = make_flow("gaussian", 10, loc=loc, scale_tril=np.diag(scale)).bijection
        flow = Transformed(base_of(np.full(10, 2.5), 10), affine)
        told = {"dtype": "float32", "trace": {}, "settings": {}, "steps_taken": ()}
        found = [make_posterior(flow, target, seed=seed, **told).log_evidence for seed in range(8)]
    assert min(e.standard_error for e in found) < 1e-5
    assert max(abs(e.value) / e.standard_error for e in found) < 3
