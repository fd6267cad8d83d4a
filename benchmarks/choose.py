"""Every flow by name on five densities of known evidence: how near it comes, what its weights say, what it takes.

The densities integrate to 1, so that minus the ELBO is KL(q, p) in nats. 2000 steps of 128 draws each, on top of the
Gaussian start that every flow has; seconds are of the whole fit in one process, compiling and weights included, and
are quoted from the first seed: later ones find their programs compiled. A cell that is in the results already is not
run again, unless its settings changed.
"""

import json
import math
import time

from benchmarks._record import RESULTS, TRIED, write
from benchmarks._workers import QUICK

STEPS = 100 if QUICK else 2000
SEEDS = (0, 1, 2)


def _densities():
    import jax.numpy as jnp
    import numpy as np
    from jax.scipy.special import gammaln
    from jax.scipy.stats import norm

    factor = np.tril(np.random.default_rng(0).normal(0, 0.5, (20, 20)), -1) + np.eye(20)
    log_det = float(np.log(np.diagonal(factor)).sum())

    def correlated(p):
        return norm.logpdf(jnp.asarray(factor, p["x"].dtype) @ p["x"]).sum() + log_det

    def bananas(p):
        x, y = p["x"][::2], p["x"][1::2]
        return norm.logpdf(x).sum() + norm.logpdf(y, 0.7 * x**2, 0.7).sum()

    def funnel(p):
        x = p["x"]
        return norm.logpdf(x[0], 0, 1.5) + norm.logpdf(x[1:], 0.0, jnp.exp(x[0] / 2)).sum()

    def skew(p):
        x = p["x"]
        return (0.5 * x - jnp.exp(x) - gammaln(0.5)).sum()

    def two_modes(p):
        x, y = p["x"]
        left, right = norm.logpdf(x, -1.5, 0.6), norm.logpdf(x, 1.5, 0.6)
        return jnp.logaddexp(left, right) - math.log(2) + norm.logpdf(y, 0.3 * x**2, 0.6)

    return {
        "correlated normal, 20-d": (correlated, 20),
        "five bananas, 10-d": (bananas, 10),
        "funnel, 10-d": (funnel, 10),
        "log of gamma(1/2), 10-d": (skew, 10),
        "two modes, joined, 2-d": (two_modes, 2),
    }


def cell(log_density, size, flow, seed):
    """One fit, in numbers."""
    import thalweg as tw

    start = time.perf_counter()
    target = tw.from_function(log_density, {"x": tw.real(size)})
    posterior = tw.infer(target, flow, seed=seed, steps=STEPS, progress=False)
    verdict, elbo, evidence = posterior.verdict, posterior.elbo, posterior.log_evidence
    return {
        # without weights that can be read there is neither
        "KL": math.inf if elbo is None else -elbo.value,
        "KL's standard error": math.inf if elbo is None else elbo.standard_error,
        "log evidence": -math.inf if evidence is None else evidence.value,
        "k-hat": verdict.khat,
        "effective share": verdict.ess / verdict.n_draws,
        "verdict": "raw" if verdict.raw_ok else "corrected" if verdict.ok else "no",
        "seconds": time.perf_counter() - start,
    }


def main():
    """Measure what is missing and write after every density."""
    from thalweg.flows import EXACT_FLOWS

    path = (TRIED if QUICK else RESULTS) / "choose.json"
    setting = {"steps": STEPS, "draws": 128}
    before = json.loads(path.read_text()) if path.exists() else {}
    densities = _densities()
    cells = {k: v for k, v in before["cells"].items() if k in densities} if before.get("setting") == setting else {}
    flows = ("gaussian", "realnvp") if QUICK else EXACT_FLOWS
    for seed in SEEDS:
        for name, (log_density, size) in densities.items():
            for flow in flows:
                own = cells.setdefault(name, {}).setdefault(flow, {})
                if str(seed) not in own:
                    own[str(seed)] = cell(log_density, size, flow, seed)
            write("choose", ["thalweg", "jax", "jaxlib", "numpy"], {"setting": setting, "cells": cells}, quick=QUICK)


if __name__ == "__main__":
    main()
