"""What others offer for the same density on R^d: each gives draws, and what it knows of the evidence.

Settings are those of the libraries' own examples, or their defaults: NumPyro's guides by Adam(0.003) for 10,000 steps,
as in its NeuTra example; BlackJAX's Pathfinder as it is, from one or from 16 points of [-2, 2]^d; flowjax's masked
autoregressive flow by its variational fit, 2,000 steps of 100 draws.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

_STEPS, _RATE = 10_000, 3e-3
_PATHS = 16
_JUDGED = 2000


def _begin(target, seed, n):
    return jnp.asarray(np.random.default_rng(seed).uniform(-2, 2, (n, target.size)), jnp.float32)


def _log_mean_exp(log_w):
    largest = log_w.max()
    return float(largest + np.log(np.mean(np.exp(log_w - largest))))


def nuts(target, n):
    """NumPyro's NUTS, 4 x (1000 + 1000) by its default chain method; a fit of other seeds compiles nothing again."""
    from numpyro.infer import MCMC, NUTS

    kernel = NUTS(potential_fn=lambda u: -target.log_density(u, target.data))
    mcmc = MCMC(kernel, num_warmup=1000, num_samples=1000, num_chains=4, progress_bar=False)

    def fit(seed):
        mcmc.run(jax.random.key(seed), init_params=_begin(target, seed, 4))
        return np.asarray(mcmc.get_samples()), {}

    return fit


def _guide(name):
    def make(target, n):
        import numpyro
        from numpyro import distributions as dist
        from numpyro.infer import SVI, Trace_ELBO, autoguide

        def model():
            u = numpyro.sample("u", dist.ImproperUniform(dist.constraints.real_vector, (), (target.size,)))
            numpyro.factor("log_density", target.log_density(u, target.data))

        guide = getattr(autoguide, name)(model)
        svi = SVI(model, guide, numpyro.optim.Adam(_RATE), Trace_ELBO())

        def fit(seed):
            fit_key, draw_key, judge_key = jax.random.split(jax.random.key(seed), 3)
            found = svi.run(fit_key, _STEPS, progress_bar=False)
            draws = guide.sample_posterior(draw_key, found.params, sample_shape=(n,))["u"]
            elbo = -Trace_ELBO(num_particles=_JUDGED).loss(judge_key, found.params, model, guide)
            return np.asarray(draws), {"ELBO": float(elbo)}

        return fit

    return make


def pathfinder(target, n):
    """One path, its draws as they are."""
    from blackjax.vi import pathfinder as of

    def log_density(u):
        return target.log_density(u, target.data)

    @jax.jit
    def run(key, begin):
        state, _ = of.approximate(key, log_density, begin)
        u, log_q = of.sample(key, state, n)
        return u, jax.vmap(log_density)(u), log_q

    def fit(seed):
        u, log_p, log_q = map(np.asarray, run(jax.random.key(seed), _begin(target, seed, 1)[0]))
        return u, {"log Z": _log_mean_exp((log_p - log_q).astype(float))}

    return fit


def multi_pathfinder(target, n):
    """Sixteen paths, n draws in all, resampled by Pareto-smoothed weights."""
    from blackjax.vi import multipathfinder as of

    from thalweg.diagnostics import psis

    def log_density(u):
        return target.log_density(u, target.data)

    each = math.ceil(n / _PATHS)
    run = jax.jit(lambda key, begin: of.multi_approximate(key, log_density, begin, num_samples=each)[0])

    def fit(seed):
        state = run(jax.random.key(seed), _begin(target, seed, _PATHS))
        u = np.asarray(state.samples).reshape(-1, target.size)
        log_w = np.asarray(state.logp - state.logq, float).ravel()
        log_w = np.where(np.isfinite(log_w), log_w, -np.inf)
        smoothed = psis(log_w)
        chosen = np.random.default_rng(seed).choice(len(u), n, p=np.exp(smoothed.log_weights))
        return u[chosen], {"log Z": _log_mean_exp(log_w), "k-hat": float(smoothed.khat)}

    return fit


def flowjax(target, n):
    """A masked autoregressive flow by the variational fit, ready to draw from."""
    from flowjax import bijections, distributions, flows, train

    try:
        from flowjax.train.losses import ElboLoss
    except ImportError:
        from flowjax.train import ElboLoss

    def log_density(u):
        return target.log_density(u, target.data)

    fit_to = getattr(train, "fit_to_variational_target", None) or train.fit_to_key_based_loss

    def fit(seed):
        make_key, fit_key, draw_key = jax.random.split(jax.random.key(seed), 3)
        base = distributions.Normal(jnp.zeros(target.size))
        transformer = bijections.RationalQuadraticSpline(knots=8, interval=4)
        flow = flows.masked_autoregressive_flow(make_key, base_dist=base, transformer=transformer, invert=False)
        loss = ElboLoss(log_density, num_samples=100)
        flow, losses = fit_to(fit_key, flow, loss, steps=2000, learning_rate=5e-3, show_progress=False)
        u = flow.sample(draw_key, (n,))
        return np.asarray(u), {"ELBO": -float(np.mean(losses[-50:]))}

    return fit


METHODS = {
    "NUTS": nuts,
    "AutoMultivariateNormal": _guide("AutoMultivariateNormal"),
    "AutoIAFNormal": _guide("AutoIAFNormal"),
    "AutoBNAFNormal": _guide("AutoBNAFNormal"),
    "Pathfinder": pathfinder,
    "multi-path Pathfinder": multi_pathfinder,
    "flowjax": flowjax,
}
"""Name -> (target, n) -> fit; fit(seed) -> (draws on R^d, what else it knows)."""
