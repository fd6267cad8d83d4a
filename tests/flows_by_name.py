"""What every flow by name must do; one of them among the fast tests."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

import thalweg as tw
from thalweg.flows import EXACT_FLOWS

FAST = ("planar",)
SLOW = tuple(f for f in EXACT_FLOWS if f not in ("gaussian", "realnvp", *FAST))


def check_improves_on_the_gaussian(flow):
    """On a banana; and the flow scores what it draws."""

    def banana(params):
        return norm.logpdf(params["x"]) + norm.logpdf(params["y"], 0.7 * params["x"] ** 2, 0.6)

    target = tw.from_function(banana, {"x": tw.real(), "y": tw.real()})
    gaussian = tw.infer(target, "gaussian", progress=False)
    posterior = tw.infer(target, flow, progress=False, steps=400, n_draws=64)
    # a radial flow bends little
    gain = 0.01 if flow == "radial" else 0.1
    assert posterior.elbo.value > gaussian.elbo.value + gain
    assert posterior.elbo.value < 5 * posterior.elbo.standard_error
    # the flow scores what it draws
    raw = posterior.sample(500, seed=2)
    log_q = posterior.log_prob(raw)
    u = np.stack([raw["x"], raw["y"]], axis=1)
    log_p = np.asarray(jax.vmap(target.log_density)(jnp.asarray(u)))
    elbo = (log_p - log_q).mean()
    error = (log_p - log_q).std() / np.sqrt(500)
    assert abs(elbo - posterior.elbo.value) < 5 * np.hypot(error, posterior.elbo.standard_error)
