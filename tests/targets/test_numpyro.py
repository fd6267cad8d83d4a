"""Targets from NumPyro models against NumPyro's own potential energy."""

import functools
import os
import threading
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from helpers import count_compiles
from thalweg.targets import find_start, from_numpyro

numpyro = pytest.importorskip("numpyro")
dist = numpyro.distributions

Y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SIGMA = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
X = np.linspace(-1.0, 2.0, 6)
GROUP = np.array([0, 0, 1, 1, 2, 2])


def schools(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)
    numpyro.deterministic("variance", tau**2)


def grouped(x, group, y):
    scale = numpyro.sample("scale", dist.LogNormal(0, 1))
    with numpyro.plate("group", len(np.unique(group))):  # needs the numbers of an array
        a = numpyro.sample("a", dist.Normal(0, scale))
    numpyro.sample("y", dist.StudentT(4.0, a[group] * x, 1.0), obs=y)


def constrained(counts):
    w = numpyro.sample("w", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    L = numpyro.sample("L", dist.LKJCholesky(3, 2.0))
    low = numpyro.sample("low", dist.TruncatedNormal(0.0, 1.0, low=-1.0))
    p = numpyro.sample("p", dist.Beta(2, 2).expand([2]).to_event(1))
    angle = numpyro.sample("angle", dist.VonMises(0.5, 2.0))
    ends = numpyro.sample("ends", dist.Uniform(-2.0, 5.0))
    sums = numpyro.sample("sums", dist.ZeroSumNormal(1.5, (4,)))
    numpyro.sample("z", dist.MultivariateNormal(sums[1:], scale_tril=L), obs=jnp.array([0.3, 0.1, -0.4]))
    numpyro.sample("counts", dist.Multinomial(6, probs=w), obs=counts)
    numpyro.factor("f", -(low**2) * p.sum() + jnp.cos(angle) - ends**2)


def dynamic(x):
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    b = numpyro.sample("b", dist.Uniform(0, tau))
    c = numpyro.sample("c", dist.Pareto(x.max(), 3.0))
    numpyro.sample("x", dist.Normal(b, c), obs=x)


def masked(x, keep):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.handlers.mask(mask=keep), numpyro.plate("n", len(x)):
        numpyro.sample("x", dist.Normal(mu, 1.0), obs=x)
    with numpyro.handlers.scale(scale=3.0):
        numpyro.sample("s", dist.Normal(mu, 2.0), obs=jnp.array(0.7))


MODELS = {
    "hierarchical": (schools, (SIGMA, Y)),
    "grouped": (grouped, (X, GROUP, X + 1)),
    "constrained": (constrained, (np.array([3, 1, 2]),)),
    "dynamic": (dynamic, (np.array([0.5, 1.5]),)),
    "masked": (masked, (X, X > 0)),
    "reparametrised": (
        numpyro.handlers.reparam(schools, config={"theta": numpyro.infer.reparam.LocScaleReparam(0)}),
        (SIGMA, Y),
    ),
}


def numpyro_log_density(model, args, params):
    """Minus the potential energy at the point with constrained values `params`, its own log-Jacobians taken out."""
    util = numpyro.infer.util
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        seeded = numpyro.handlers.seed(model, jax.random.key(0))
        z = util.unconstrain_fn(seeded, args, {}, params)
        log_det = 0.0
        trace = numpyro.handlers.trace(numpyro.handlers.substitute(seeded, data=params)).get_trace(*args)
        for name, value in z.items():
            transform = dist.transforms.biject_to(trace[name]["fn"].support)
            log_det += jnp.sum(transform.log_abs_det_jacobian(value, params[name]))
        return -util.potential_energy(seeded, args, {}, z) - log_det


def call(function, *args):
    """One of a target's optional functions, which must be there."""
    assert function is not None
    return function(*args)


@pytest.mark.filterwarnings("ignore:Continuous inference poorly handles circular:UserWarning")
@pytest.mark.parametrize("name", MODELS)
def test_log_density_is_numpyros(name, getkey):
    model, args = MODELS[name]
    target = from_numpyro(model, *args)
    u = 0.5 * jax.random.normal(getkey(), (target.size,))

    @eqx.filter_jit
    def look(target, u):
        params, log_det = target.constrain(u)
        return params, log_det, target.log_density(u), jax.grad(target.log_density)(u), target.unconstrain(params)

    params, log_det, value, gradient, back = look(target, u)
    truth = jax.jit(lambda params: numpyro_log_density(model, args, params))(params)
    np.testing.assert_allclose(value - log_det, truth, rtol=1e-9)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(back, u, atol=1e-8)
    target.space.check(params, target.data)


def test_potential_of_initialize_model_in_equal_coordinates():
    """Where both use the same maps (exp and the identity), log density and potential are the same function of u."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        info = numpyro.infer.util.initialize_model(jax.random.key(0), schools, model_args=(SIGMA, Y))
        u = jnp.linspace(-1.0, 1.0, 10)
        z = {"mu": u[0], "tau": u[1], "theta": u[2:]}
        potential = info.potential_fn(z)
    np.testing.assert_allclose(from_numpyro(schools, SIGMA, Y).log_density(u), -potential)


def test_everything_else_the_model_knows():
    target = from_numpyro(schools, SIGMA, y=Y)
    assert (target.names, target.name, target.observed_names) == (("mu", "tau", "theta"), "schools", ("y",))
    assert target.dims == {"theta": ("school",), "y": ("school",)}
    assert target.coords == {"school": tuple(range(8))}
    assert target.data is not None
    assert set(target.data) == {"sigma", "y"}
    np.testing.assert_array_equal(target.observed()["y"], Y)
    params = target.constrain(jnp.linspace(-1.0, 1.0, 10))[0]
    np.testing.assert_allclose(call(target.deterministic, params, target.data)["variance"], params["tau"] ** 2)
    log_likelihood = call(target.log_likelihood, params, target.data)["y"]
    np.testing.assert_allclose(log_likelihood, jax.scipy.stats.norm.logpdf(Y, params["theta"], SIGMA))
    draw = jax.jit(jax.vmap(lambda key: call(target.predictive, key, params, target.data)["y"]))
    draws = draw(jax.random.split(jax.random.key(1), 4000))
    assert draws.shape == (4000, 8)
    z = (draws.mean(0) - params["theta"]) / (SIGMA / np.sqrt(4000))
    assert float(jnp.abs(z).max()) < 5
    np.testing.assert_allclose(draws.std(0), SIGMA, rtol=0.1)


def test_masks_reach_the_pointwise_likelihood_and_scales_do_not():
    """As in NumPyro's own: what is left out is compared in nats of one observation."""
    target = from_numpyro(masked, X, X > 0)
    terms = call(target.log_likelihood, {"mu": jnp.array(0.2)}, target.data)
    np.testing.assert_allclose(terms["x"], np.where(X > 0, jax.scipy.stats.norm.logpdf(X, 0.2), 0))
    np.testing.assert_allclose(terms["s"], jax.scipy.stats.norm.logpdf(0.7, 0.2, 2.0))


def test_missing_observations():
    """With `obs_mask` the density of what is seen is that of what is seen: the rest integrates to 1."""
    mask, tau = X > 0, 0.7

    def model(y, mask):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("row", len(y)):
            numpyro.deterministic("twice", 2 * mu * jnp.ones(len(y)))
            numpyro.sample("y", dist.Normal(mu, tau), obs=y, obs_mask=mask)

    target = from_numpyro(model, X, mask)
    assert target.dims["twice"] == ("row",)
    unseen = np.linspace(-2, 2, len(X))
    found = target.log_density(target.unconstrain({"mu": jnp.array(0.2), "y_unobserved": unseen}))
    logpdf = jax.scipy.stats.norm.logpdf
    expected = logpdf(0.2) + logpdf(X[mask], 0.2, tau).sum() + logpdf(unseen, 0.2, tau).sum()
    np.testing.assert_allclose(found, expected)


def shared_mean(y):
    mu = numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)  # one distribution for many observations, without a plate


def test_threads_take_turns():
    """NumPyro keeps one stack of handlers for the process: two traces at once would mix them."""

    def slow(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        time.sleep(0.01)
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    target, wrong = from_numpyro(slow, np.array([0.5, 1.0])), []

    def trace():
        try:
            for _ in range(10):
                jax.eval_shape(lambda u: target.log_density(u), jax.ShapeDtypeStruct((1,), jnp.result_type(float)))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=trace) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_names_of_scopes_reach_arviz():
    def model(y):
        with numpyro.handlers.scope(prefix="inner"):
            mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    posterior = tw.infer(tw.from_numpyro(model, np.array([0.5, 1.0])), "gaussian", progress=False)
    assert posterior.sample(3)["inner/mu"].shape == (3,)
    assert posterior.to_arviz()["posterior"]["inner.mu"].shape == (4, 1000)


def test_replicates_have_the_shape_of_the_observations():
    target = from_numpyro(shared_mean, X)
    y = call(target.predictive, jax.random.key(0), {"mu": jnp.array(0.0)}, target.data)["y"]
    assert y.shape == X.shape
    assert len(set(np.asarray(y).tolist())) == len(X)


def test_replicates_follow_the_replicates_before_them():
    """y_i ~ N(phi y_{i-1}, 1): replicates are a series of their own, not a step ahead of what was seen."""

    def series(y):
        phi = numpyro.sample("phi", dist.Normal(0.0, 1.0))
        before = 0.0
        for i in range(len(y)):
            before = numpyro.sample(f"y{i}", dist.Normal(phi * before, 1.0), obs=y[i])

    target, phi, n = from_numpyro(series, np.array([3.0, -5.0, 9.0])), 0.8, 4000
    draw = jax.jit(jax.vmap(lambda key: call(target.predictive, key, {"phi": jnp.array(phi)}, target.data)))
    y = np.stack([draw(jax.random.split(jax.random.key(2), n))[f"y{i}"] for i in range(3)])
    variances = np.array([1, 1 + phi**2, 1 + phi**2 + phi**4])
    np.testing.assert_allclose(y.mean(1) / np.sqrt(variances / n), 0, atol=5)
    np.testing.assert_allclose(y.var(1), variances, rtol=5 * np.sqrt(2 / n))
    assert (y[0] * y[1]).mean() == pytest.approx(phi, abs=5 * np.sqrt((variances[1] + phi**2) / n))


def test_other_numbers_compile_nothing():
    compute = eqx.filter_jit(lambda target, u: target.log_density(u))
    for model, args, other in (
        (schools, (SIGMA, Y), (SIGMA + 1, Y - 1)),
        (dynamic, (np.array([0.5, 1.5]),), (np.array([0.5, 2.5]),)),
        (grouped, (X, GROUP, X), (X, GROUP, X + 1)),
    ):
        one, two = from_numpyro(model, *args), from_numpyro(model, *other)
        assert jax.tree.structure(one) == jax.tree.structure(two)
        u = jnp.zeros(one.size)
        first = compute(one, u)
        with count_compiles() as compiles:
            second = compute(two, u)
        assert compiles.count == 0
        assert float(first) != float(second)


def test_bounds_follow_replaced_data():
    target = from_numpyro(dynamic, np.array([0.5, 1.5]))
    assert float(target.constrain(jnp.zeros(3))[0]["c"]) == pytest.approx(2.5)
    moved = target.replace_data({"x": np.array([0.5, 7.5])})
    assert float(moved.constrain(jnp.zeros(3))[0]["c"]) == pytest.approx(8.5)
    assert find_start(moved, 0, n=10).points.shape == (10, 3)


def discrete():
    numpyro.sample("k", dist.Categorical(jnp.ones(3) / 3))


def improper():
    numpyro.sample("a", dist.Normal())
    numpyro.sample("flat", dist.ImproperUniform(dist.constraints.positive, (), ()))


def with_param():
    numpyro.sample("a", dist.Normal(numpyro.param("loc", 0.0), 1.0))


def subsampled(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("rows", 6, subsample_size=2) as rows:
        numpyro.sample("y", dist.Normal(mu), obs=y[rows])


def nothing_latent(y):
    numpyro.sample("y", dist.Normal(), obs=y)


def zero_sum():
    numpyro.sample("z", dist.ZeroSumNormal(1.0, (3, 2)))


def unequal(x, y):
    slope = numpyro.sample("slope", dist.Normal())
    numpyro.sample("y", dist.Normal(slope * x, 1), obs=y)


def correlation():
    numpyro.sample("R", dist.LKJ(3, 1.0))


def raises(y):
    numpyro.sample("a", dist.Normal())
    raise KeyError("b")


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        (discrete, (), "`site 'k'` must be continuous, got the discrete Categorical.*sum it out by hand"),
        (improper, (), "`site 'flat'` must have a proper prior, got ImproperUniform"),
        (with_param, (), "`site 'loc'` must be a sample site, got a param, which has no prior"),
        (subsampled, (X,), "`plate 'rows'` must run over all of its data, got subsample_size=2 of 6"),
        (
            nothing_latent,
            (X,),
            "at least one latent site, got none in nothing_latent; every numpyro.sample in it is observed",
        ),
        (lambda: numpyro.sample("hole", dist.Normal().expand([0])), (), r"latent site, got `hole` of shape \(0,\)"),
        (lambda: None, (), "must have at least one latent site.*it has no numpyro.sample"),
        (zero_sum, (), "`site 'z'` must have a support that is known here, got zero_sum over 2 axes"),
        (correlation, (), "`site 'R'` must have a support that is known here, got corr_matrix.*LKJCholesky"),
        (raises, (X,), r"`raises` raised KeyError: 'b' \(line \d+ of test_numpyro.py\)"),
        (schools, (), r"`args` must fit schools\(sigma, y=None\), got missing a required argument: 'sigma'"),
        (
            unequal,
            (X, X[:3]),
            r"^`unequal` raised ValueError: site 'y' has shape \(6,\), but what is observed there \(3,\)",
        ),
        (schools, (SIGMA, Y, 1), "`args` must fit schools.*too many positional arguments"),
        (shared_mean, (np.array(["a"]),), r"`data\['y'\]` must be numeric"),
        pytest.param(
            3,
            (),
            "`model` must be a NumPyro model, a function, got a int",
            marks=pytest.mark.skipif(os.environ.get("THALWEG_NO_HOOK") != "1", reason="the hook speaks first"),
        ),
    ],
)
def test_messages(model, args, message):
    with pytest.raises(ValueError, match=message):
        from_numpyro(model, *args)


def test_partial_models():
    target = from_numpyro(functools.partial(schools, SIGMA), y=Y)
    assert float(target.log_density(jnp.zeros(10))) == pytest.approx(
        float(from_numpyro(schools, SIGMA, Y).log_density(jnp.zeros(10)))
    )
