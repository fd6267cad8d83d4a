"""Targets from PyMC models against PyMC's own log density, computed by PyTensor in Python."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import thalweg as tw
from four_forms import SCHOOLS, data_of, pymc_model
from helpers import count_compiles
from thalweg.targets import find_start, from_pymc

pm = pytest.importorskip("pymc")
pt = pytest.importorskip("pytensor.tensor")

DATA = data_of(SCHOOLS)
Y, SIGMA = DATA["y"] + 0.0, DATA["sigma"] + 0.0
X = np.linspace(-1.0, 2.0, 6)


def schools():
    return pymc_model(SCHOOLS, DATA)


def supports():
    with pm.Model() as model:
        w = pm.Dirichlet("w", np.array([1.0, 2.0, 3.0]))
        o = pm.Normal("o", 0, 1, shape=3, transform=pm.distributions.transforms.ordered, initval=[-1.0, 0.0, 1.0])
        low = pm.TruncatedNormal("low", 0, 1, lower=-1)
        pm.Uniform("above", low, low + w[0])
        p = pm.Beta("p", 2, 2, shape=(2, 3))
        angle = pm.VonMises("angle", 0.5, 2)
        pm.ZeroSumNormal("z", shape=4)
        pm.Potential("f", -p.sum() + pm.math.cos(angle) + o.sum())
        pm.Multinomial("counts", 6, w, observed=[3, 1, 2])
    return model


def correlated():
    with pm.Model(coords={"row": range(4), "side": ["left", "right"]}) as model:
        chol, *_ = pm.LKJCholeskyCov("chol", n=2, eta=2.0, sd_dist=pm.Exponential.dist(1.0))
        mean = pm.Normal("mean", shape=2, dims="side")
        seen = np.arange(8.0).reshape(4, 2) / 4
        pm.MvNormal("seen", mean, chol=chol, observed=seen, dims=("row", "side"))
    return model


def censored():
    with pm.Model() as model:
        scale = pm.HalfFlat("scale")
        of = pm.Exponential.dist(scale)
        pm.Censored("x", of, lower=None, upper=1.0, observed=np.minimum(np.abs(X), 1.0))
    return model


def missing():
    with pm.Model() as model:
        mu = pm.Normal("mu")
        with pytest.warns(pm.exceptions.ImputationWarning):
            pm.Normal("x", mu, 1.0, observed=np.where(X > 1, np.nan, X))
    return model


def mixed():
    with pm.Model() as model:
        weight = pm.Beta("weight", 1, 1)
        parts = [pm.Normal.dist(-1, 1), pm.Normal.dist(2, 0.5)]
        pm.Mixture("x", pm.math.stack([weight, 1 - weight]), parts, observed=X)
    return model


def process():
    with pm.Model() as model:
        scale, length = pm.Gamma("scale", 2, 1), pm.InverseGamma("length", 5, 5)
        gp = pm.gp.Marginal(cov_func=scale**2 * pm.gp.cov.ExpQuad(1, length))
        gp.marginal_likelihood("y", X[:, None], np.sin(X), sigma=pm.HalfNormal("noise"))
    return model


def sized_by_data():
    with pm.Model() as model:
        group = pm.Data("group", np.array([0, 0, 1, 1, 2, 2]))
        a = pm.Normal("a", 0, 1, size=group.max() + 1)
        pm.Normal("x", a[group], 1, observed=X)
        pm.Potential("f", -((a * pm.pytensorf.pt.arange(group.max() + 1)).sum() ** 2))
    return model


QUICK = (schools, censored, missing)
MODELS = (
    *QUICK,
    *(pytest.param(m, marks=pytest.mark.slow) for m in (supports, correlated, mixed, process, sized_by_data)),
)


def call(function, *args):
    """One of a target's optional functions, which must be there."""
    assert function is not None
    return function(*args)


@pytest.mark.parametrize("make", MODELS)
def test_log_density_is_pymcs(make, getkey):
    model = make()
    target = from_pymc(model)
    u = 0.5 * jax.random.normal(getkey(), (target.size,))

    @eqx.filter_jit
    def look(target, u):
        params, log_det = target.constrain(u)
        value, gradient = jax.value_and_grad(target.log_density)(u)
        return params, log_det, value, gradient, target.unconstrain(params), target.log_joint(params, target.data)

    params, log_det, value, gradient, back, joint = look(target, u)
    # PyMC's angles have no cut, and so no volume there
    own, of_cut = target.space.to_own(u)
    start, point = 0, {}
    for v in model.value_vars:
        shape = model.initial_point()[v.name].shape
        point[v.name] = np.asarray(own[start : start + int(np.prod(shape))]).reshape(shape)
        start += int(np.prod(shape))
    # PyTensor takes logarithms of short constants in single precision, and this one does it elsewhere
    almost = {"rtol": 0, "atol": 1e-6}
    compiled = [model.compile_logp(jacobian=jacobian, mode="FAST_COMPILE")(point) for jacobian in (True, False)]
    np.testing.assert_allclose(value - of_cut, compiled[0], **almost)
    np.testing.assert_allclose(log_det - of_cut, compiled[0] - compiled[1], **almost)
    np.testing.assert_allclose(joint, compiled[1], **almost)
    assert target.names == tuple(rv.name for rv in model.free_RVs)
    outputs = model.replace_rvs_by_values(model.free_RVs)
    for rv, graph in zip(model.free_RVs, outputs, strict=True):
        truth = graph.eval({v: point[v.name] for v in model.value_vars}, on_unused_input="ignore")
        np.testing.assert_allclose(params[rv.name], truth, rtol=1e-9)
        assert target.space.shapes[rv.name] == truth.shape
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(back, u, atol=1e-7)
    target.space.check(params, target.data)


def test_gradient_in_closed_form():
    target = from_pymc(schools())
    mu, tau, theta = 2.0, 3.0, np.linspace(-4.0, 9.0, 8)
    z = (theta - mu) / tau
    by_hand = [
        *[-mu / 25 + z.sum() / tau, -2 * tau**2 / (25 + tau**2) + np.sum(z**2 - 1) + 1],
        *(-z / tau + (Y - theta) / SIGMA**2),
    ]
    u = target.unconstrain({"mu": mu, "tau": tau, "theta": theta})
    value, gradient = jax.value_and_grad(target.log_density)(u)
    log_p = stats.norm.logpdf(mu, 0, 5) + stats.halfcauchy.logpdf(tau, 0, 5) + stats.norm.logpdf(theta, mu, tau).sum()
    np.testing.assert_allclose(value, log_p + stats.norm.logpdf(Y, theta, SIGMA).sum() + np.log(tau), atol=1e-6)
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-9)


def test_everything_else_the_model_knows():
    target = from_pymc(schools())
    assert (target.names, target.name, target.observed_names) == (("mu", "tau", "theta"), "model", ("y",))
    assert target.dims == {"theta": ("school",), "y": ("school",)}
    assert target.coords == {"school": tuple("ABCDEFGH")}
    assert set(target.data) == {"sigma", "y_seen"}
    np.testing.assert_array_equal(target.observed()["y"], Y)
    params = target.constrain(jnp.linspace(-1.0, 1.0, 10))[0]
    np.testing.assert_allclose(call(target.deterministic, params, target.data)["variance"], params["tau"] ** 2)
    log_likelihood = call(target.log_likelihood, params, target.data)["y"]
    np.testing.assert_allclose(log_likelihood, stats.norm.logpdf(Y, params["theta"], SIGMA))
    draw = jax.jit(jax.vmap(lambda key: call(target.predictive, key, params, target.data)["y"]))
    draws = draw(jax.random.split(jax.random.key(1), 4000))
    z = (draws.mean(0) - params["theta"]) / (SIGMA / np.sqrt(4000))
    assert float(jnp.abs(z).max()) < 5
    np.testing.assert_allclose(draws.std(0), SIGMA, rtol=0.1)
    completed = target.space.complete({"tau": 5.0}, target.data)
    np.testing.assert_allclose(completed, np.concatenate([[0, np.log(5)], np.zeros(8)]), atol=1e-12)


def test_draws_of_categories_have_their_chances():
    """PyTensor's sampler for JAX takes log p / (1 - p) for log p."""
    with pm.Model() as model:
        w = pm.Dirichlet("w", np.ones(3))
        pm.Categorical("kind", w, observed=[0, 1, 2])
        pm.Mixture("y", w=w, comp_dists=pm.Normal.dist([-9.0, 0.0, 9.0], 1.0), observed=[-9.0, 0.0])
    target = from_pymc(model)
    p = np.array([0.7, 0.2, 0.1])
    keys = jax.random.split(jax.random.key(0), 5000)
    draws = jax.jit(jax.vmap(lambda key: call(target.predictive, key, {"w": jnp.asarray(p)}, target.data)))(keys)
    kinds = np.asarray(draws["kind"]).ravel(), np.round(np.asarray(draws["y"]).ravel() / 9).astype(int) + 1
    for kind in kinds:
        share = np.bincount(kind, minlength=3) / kind.size
        assert np.all(np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / kind.size))


def test_data_are_leaves():
    target = from_pymc(schools())
    compute = eqx.filter_jit(lambda target, u: target.log_density(u))
    u = jnp.linspace(-1.0, 1.0, 10)
    first = compute(target, u)
    moved = target.replace_data({"sigma": SIGMA, "y_seen": Y + 1})
    with count_compiles() as compiles:
        second = compute(moved, u)
    assert compiles.count == 0
    theta = np.asarray(u[2:])
    difference = stats.norm.logpdf(Y + 1, theta, SIGMA).sum() - stats.norm.logpdf(Y, theta, SIGMA).sum()
    assert float(second - first) == pytest.approx(difference)
    np.testing.assert_array_equal(moved.observed()["y"], Y + 1)
    # a shape cannot be a leaf
    assert from_pymc(sized_by_data()).data is None


def test_single_precision_without_a_word():
    model = schools()
    exact = from_pymc(model).log_density(jnp.linspace(-1.0, 1.0, 10))
    with jax.enable_x64(False):
        target = from_pymc(model)
        u = jnp.linspace(-1.0, 1.0, 10)
        value, gradient = jax.jit(jax.value_and_grad(target.log_density))(u)
        params, log_det = target.constrain(u)
        assert {x.dtype.name for x in (value, gradient, log_det, *params.values())} == {"float32"}
        assert {x.dtype.name for x in target.data.values()} == {"float32"}
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    again = target.in_default_precision()
    np.testing.assert_allclose(again.log_density(jnp.linspace(-1.0, 1.0, 10)), exact, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("x64", ["0", "1"])
def test_importing_pymc_leaves_jaxs_precision_alone(x64):
    code = """
import jax, pymc as pm, thalweg as tw
before = jax.config.jax_enable_x64
with pm.Model() as model:
    pm.Normal("a")
with jax.enable_x64(not before):
    tw.from_pymc(model)
assert jax.config.jax_enable_x64 == before
"""
    done = subprocess.run([sys.executable, "-c", code], env={"JAX_ENABLE_X64": x64, "HOME": "."}, check=False)
    assert done.returncode == 0


def test_draws_with_the_models_labels(tmp_path):
    posterior = tw.infer(from_pymc(correlated()), "gaussian", steps=50, progress=False)
    tree = posterior.to_arviz(400)
    assert tree["posterior"]["mean"].dims == ("chain", "draw", "side")
    assert list(tree["posterior"]["side"].values) == ["left", "right"]
    assert "chol_corr" in tree["posterior"]
    assert tree["posterior_predictive"]["seen"].dims == ("chain", "draw", "row", "side")
    assert tree["observed_data"]["seen"].dims == ("row", "side")
    assert tree["log_likelihood"]["seen"].shape == (4, 100, 4)
    loaded = tw.load(posterior.save(tmp_path / "p.thalweg"), posterior.target)
    np.testing.assert_array_equal(loaded.sample(10)["mean"], posterior.sample(10)["mean"])
    draws = posterior.sample(5)
    assert np.isfinite(posterior.log_prob(draws)).all()
    with pytest.raises(ValueError, match=r"give target= to thalweg.load"):
        tw.load(tmp_path / "p.thalweg").sample(10)


def discrete():
    with pm.Model() as model:
        pm.Poisson("k", 3)
        pm.Bernoulli("b", 0.5)
        pm.Normal("a")
    return model


def nothing_free():
    with pm.Model() as model:
        pm.Normal("x", observed=X)
    return model


def minibatches():
    with pm.Model() as model:
        mu = pm.Normal("mu")
        pm.Normal("x", mu, observed=pm.Minibatch(X, batch_size=2), total_size=6)
    return model


def no_jax():
    twice = pytest.importorskip("pytensor.compile.ops").wrap_py([pt.dscalar], [pt.dscalar])(lambda x: 2 * x)
    with pm.Model() as model:
        pm.Normal("x", twice(pm.Normal("mu")), 1, observed=X)
    return model


@pytest.mark.slow
def test_angles_are_proper():
    """PyMC lets its angles go round and round; log evidence by quadrature over one turn."""
    with pm.Model() as model:
        angle = pm.VonMises("angle", 3.0, 2.0, shape=2)
        pm.Normal("y", pt.sin(angle), 0.4, observed=[0.5, -0.2])
    target = from_pymc(model)
    here = np.array([0.3, -0.4])
    assert target.log_density(here) == target.log_density(jnp.asarray(here))
    grid = np.linspace(-np.pi, np.pi, 2001)[:-1]
    prior = stats.vonmises.pdf(grid, 2.0, 3.0)
    parts = [prior * stats.norm.pdf(y, np.sin(grid), 0.4) for y in (0.5, -0.2)]
    posterior = tw.infer(target, seed=0, progress=False)
    evidence = posterior.log_evidence
    assert posterior.verdict.ok
    truth = sum(np.log(p.sum() * (grid[1] - grid[0])) for p in parts)
    assert abs(evidence.value - truth) < 4 * evidence.standard_error
    draws = posterior.resample(20_000, seed=1)["angle"]
    for x, p in zip(draws.T, parts, strict=True):
        assert abs(np.exp(1j * x).mean() - (np.exp(1j * grid) * p).sum() / p.sum()) < 0.03


def test_censored_normals_and_correlations():
    """What PyTensor itself has no JAX function for: log densities are PyMC's own."""
    with pm.Model() as model:
        of = pm.Normal.dist(pm.Normal("mu"), pm.HalfNormal("sd"))
        pm.Censored("x", of, lower=-1.5, upper=1.0, observed=np.clip(X, -1.5, 1.0))
        pm.LKJCorr("corr", n=3, eta=2)
    target, own = from_pymc(model), model.compile_logp()
    with jax.enable_x64(True):
        for mu in (-30.0, 0.3, 30.0):
            point = {"mu": mu, "sd_log__": -0.2, **{v.name: np.array([0.3, -0.2, 0.1]) for v in model.value_vars[2:]}}
            u = jnp.concatenate([jnp.ravel(jnp.asarray(point[v.name], float)) for v in model.value_vars])
            assert float(target.in_default_precision().log_density(u)) == pytest.approx(float(own(point)), rel=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (discrete, "`model` must have continuous free variables, got the discrete 'k', 'b'; sum them out by hand"),
        (nothing_free, "must have at least one free variable, got none; every variable in it is observed"),
        (pm.Model, "must have at least one free variable, got none; it has no random variables"),
        (minibatches, "must have a log density without random numbers, got a pm.Minibatch"),
        (
            no_jax,
            "`model` raised NotImplementedError: No JAX conversion for the given `Op`: FromFunctionOp.*; PyTensor must "
            "be able to put it into JAX; else write it as a log density for from_function",
        ),
        (lambda: 3, "`model` must be a pm.Model, got a int"),
        (lambda: schools, "`model` must be a pm.Model, got schools; call the function that makes one"),
    ],
)
def test_messages(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_pymc(make())
    assert "\n" not in str(caught.value)


def test_without_pymc(monkeypatch):
    model = schools()
    monkeypatch.setitem(sys.modules, "pymc", None)
    with pytest.raises(ImportError, match=r"needs the package pymc.*pip install 'thalweg\[pymc\]'"):
        from_pymc(model)


FILE = "import pymc as pm\n"
BODY = "    a = pm.Normal('a')\n    pm.Normal('x', a, observed={})\n"


@pytest.mark.parametrize(
    ("source", "data", "words"),
    [
        (FILE + "with pm.Model() as model:\n" + BODY.format("[1.0, 2.0]"), None, None),
        (FILE + "def model(x):\n  with pm.Model() as m:\n" + BODY.format("x") + "  return m", {"x": X}, None),
        (
            FILE + "with pm.Model() as model:\n" + BODY.format("[1.0]"),
            {"x": X},
            "`data` must be left out for a pm.Model",
        ),
        (FILE + "def model(x):\n  return pm.Model", {"x": X}, "must return a pm.Model, got a"),
        (FILE + "def model(x):\n  raise KeyError('b')", {"x": X}, "cannot be run: KeyError in line 3"),
        (FILE + "def model(x):\n  pass", {"y": X}, "`data` must have x for the model"),
    ],
)
def test_model_files(tmp_path, source, data, words):
    (tmp_path / "linear.py").write_text(source + "\n")
    if words is None:
        target = tw.from_file(tmp_path / "linear.py", data)
        assert (target.names, target.name) == (("a",), "linear")
    else:
        with pytest.raises(ValueError, match=words):
            tw.from_file(tmp_path / "linear.py", data)


def test_zero_sums_in_single_precision():
    """PyMC wants the sum to be 0 to 1e-9, which no single-precision sum is."""
    with pm.Model() as model:
        pm.ZeroSumNormal("a", 2.0, shape=4)
    target = tw.from_pymc(model)
    with jax.enable_x64(False):
        target = target.in_default_precision()
        u = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
        values, log_dets = jax.vmap(target.constrain)(jnp.asarray(u))
        log_p = jax.vmap(target.log_density)(jnp.asarray(u)) - log_dets
        np.testing.assert_allclose(log_p, stats.norm.logpdf(u, 0, 2).sum(1), rtol=1e-5)
        np.testing.assert_allclose(values["a"].sum(1), 0, atol=1e-6)


def test_an_empty_support_is_told_of():
    with pm.Model() as model:
        pm.Normal("x")
        pm.Uniform("u", 2.0, 1.0)
    with pytest.raises(ValueError, match="because of `u`; a support is empty: its low is not below its high"):
        find_start(from_pymc(model), 0)
