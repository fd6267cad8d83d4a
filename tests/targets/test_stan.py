"""Targets from Stan programs; one program is compiled, once for all runs of these tests."""

import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import thalweg as tw
from four_forms import SCHOOLS, STAN, check_form, data_of, make_form
from helpers import count_compiles
from thalweg.targets import find_start, from_stan

pytest.importorskip("httpstan")

DATA = data_of(SCHOOLS)
Y, SIGMA = DATA["y"] + 0.0, DATA["sigma"] + 0.0
PARAMS = {"mu": np.array(2.0), "tau": np.array(3.0), "theta": np.linspace(-4.0, 9.0, 8)}


@pytest.fixture(autouse=True)
def _kept(pytestconfig, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytestconfig.cache.mkdir("stan")))


@pytest.fixture(scope="module")
def schools(pytestconfig):
    """The target of eight schools."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(pytestconfig.cache.mkdir("stan")))
        return make_form(SCHOOLS, "stan")


def call(function, *args):
    """One of a target's optional functions, which must be there."""
    assert function is not None
    return function(*args)


@pytest.mark.slow
def test_log_density_is_posteriordbs():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        # normalising constants are kept, so that the evidence is one
        assert check_form(SCHOOLS, "stan") == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_gradient_in_closed_form(schools):
    u = schools.unconstrain(PARAMS)
    mu, tau, theta = (PARAMS[k] for k in ("mu", "tau", "theta"))
    z = (theta - mu) / tau
    by_hand = np.concatenate(
        [
            -z / tau + (Y - theta) / SIGMA**2,
            [-mu / 25 + np.sum(z) / tau, -2 * tau**2 / (25 + tau**2) + np.sum(z**2 - 1) + 1],
        ]
    )
    log_p = stats.norm.logpdf(mu, 0, 5) + stats.cauchy.logpdf(tau, 0, 5) + stats.norm.logpdf(theta, mu, tau).sum()
    log_p += stats.norm.logpdf(Y, theta, SIGMA).sum() + np.log(tau)
    value, gradient = jax.value_and_grad(schools.log_density)(u)
    np.testing.assert_allclose(value, log_p, rtol=1e-12)
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-10)
    tangent = jnp.linspace(-1.0, 2.0, 10)
    np.testing.assert_allclose(jax.jvp(schools.log_density, (u,), (tangent,))[1], by_hand @ tangent)


@pytest.mark.slow
def test_jit_vmap_and_plain_agree(schools, getkey):
    u = jax.random.normal(getkey(), (3, 4, 10))
    function = jax.value_and_grad(schools.log_density)
    value, gradient = jax.jit(jax.vmap(jax.vmap(function)))(u)
    last = jax.vmap(schools.log_density, in_axes=1)(u[0].T)
    np.testing.assert_array_equal(last, value[0])
    for i in np.ndindex(3, 4):
        one = function(u[i])
        np.testing.assert_array_equal(value[i], one[0])
        np.testing.assert_array_equal(gradient[i], one[1])


@pytest.mark.slow
def test_everything_else_the_program_knows(schools):
    assert (schools.names, schools.name, schools.observed_names) == (("theta", "mu", "tau"), "program", ("y",))
    u = jnp.linspace(-1.0, 1.0, 10)
    params, log_det = schools.constrain(u)
    assert float(log_det) == pytest.approx(1.0)
    np.testing.assert_allclose(params["tau"], np.exp(1.0))
    np.testing.assert_allclose(schools.unconstrain(params), u, atol=1e-12)
    np.testing.assert_allclose(
        schools.space.complete({"tau": 5.0}, schools.data), np.append(np.zeros(9), np.log(5)), atol=1e-12
    )
    both = call(schools.deterministic, params, schools.data)
    assert list(both) == ["both"]  # matrices are not transposed
    expected = np.stack([params["theta"], params["mu"] + np.arange(1.0, 9.0) * params["tau"]])
    np.testing.assert_allclose(both["both"], expected)
    log_likelihood = call(schools.log_likelihood, params, schools.data)
    np.testing.assert_allclose(log_likelihood["y"], stats.norm.logpdf(Y, params["theta"], SIGMA))
    np.testing.assert_array_equal(schools.observed()["y"], Y)
    draw = jax.jit(jax.vmap(lambda key: call(schools.predictive, key, params, schools.data)["y"]))
    draws = draw(jax.random.split(jax.random.key(1), 4000))
    z = (draws.mean(0) - params["theta"]) / (SIGMA / np.sqrt(4000))
    assert float(jnp.abs(z).max()) < 5
    np.testing.assert_allclose(draws.std(0), SIGMA, rtol=0.1)
    np.testing.assert_array_equal(draws, draw(jax.random.split(jax.random.key(1), 4000)))


@pytest.mark.slow
def test_rejected_points(schools):
    u = jnp.zeros((3, 10)).at[1, 8].set(2e6)
    value, gradient = jax.vmap(jax.value_and_grad(schools.log_density))(u)
    assert np.isneginf(value).tolist() == [False, True, False]
    np.testing.assert_array_equal(gradient[1], 0)
    assert np.isfinite(gradient).all()
    assert np.isneginf(schools.log_density(u[1]))


@pytest.mark.slow
def test_single_precision_computes_in_double(schools):
    with jax.enable_x64(False):
        target = schools.in_default_precision()
        u = jnp.linspace(-1.0, 1.0, 10)
        value, gradient = jax.value_and_grad(target.log_density)(u)
        assert (value.dtype, gradient.dtype, target.data["y"].dtype) == ("float32", "float32", "float32")
        params, log_det = target.constrain(u)
        assert {x.dtype.name for x in (*params.values(), log_det, target.unconstrain(params))} == {"float32"}
    exact = schools.log_density(jnp.asarray(np.asarray(u), jnp.float64))
    np.testing.assert_array_equal(value, np.float32(exact))


TIGHT = """
data { vector[3] y; }
parameters { simplex[4] w; unit_vector[3] v; cov_matrix[2] s; cholesky_factor_corr[3] l; ordered[3] c; }
model {
  w ~ dirichlet(rep_vector(2.0, 4)); s ~ wishart(4, identity_matrix(2)); l ~ lkj_corr_cholesky(2);
  c ~ normal(0, 2); y ~ normal(c, 1); target += dot_product(v, y);
}
"""


@pytest.mark.slow
def test_an_empty_support():
    target = from_stan("parameters { real<lower=3, upper=1> x; } model { x ~ normal(0, 1); }")
    with pytest.raises(ValueError, match="the support of `x` is empty: its low is not below its high"):
        find_start(target, 0)


@pytest.mark.slow
def test_draws_in_single_precision_are_in_their_supports():
    """Their sums are 1 within float32's rounding, not within Stan's 1e-8; and float64 without the process's flag."""
    # a C++ exception, which a rejection is, is looked up among all that XLA has compiled: 3 ms among 3,000 functions
    jax.clear_caches()
    with jax.enable_x64(False):
        target = from_stan(TIGHT, {"y": np.array([-1.0, 0.2, 1.9])})
        for dtype in ("float32", "float64"):
            posterior = tw.infer(target, "gaussian", dtype=dtype, progress=False)
            assert target.space.many_to_one == ("v",)
            for call in (lambda p: p.log_prob(p.sample(5)), lambda p: p.sample_and_log_prob(5)):
                with pytest.raises(ValueError, match="unit vector 'v', which forgets a length"):
                    call(posterior)
            u = target.in_default_precision().unconstrain
            draws = posterior.sample(50)
            assert np.isfinite([u({k: v[i] for k, v in draws.items()}) for i in range(50)]).all()
            again = tw.infer(target, "realnvp", init=posterior.resample(500), steps=20, dtype=dtype, progress=False)
            assert np.isfinite(again.log_evidence.value)
            chains = again.refine("imh", n=160, budget=1.0, progress=False).chains
            assert chains.dtype == dtype


@pytest.mark.slow
def test_evidence_with_unit_vectors_and_draws_with_derived_quantities():
    """A normal density on the circle and on two more: by quadrature, 2 pi each where it is flat."""
    program = """
    parameters { array[2] unit_vector[2] w; real m; }
    transformed parameters { real twice = 2 * m; }
    model { w[1] ~ normal(0.2, 1); m ~ normal(0, 1); }
    """
    posterior = tw.infer(from_stan(program), seed=0, progress=False)
    angle = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
    around = np.exp(stats.norm.logpdf(np.cos(angle), 0.2) + stats.norm.logpdf(np.sin(angle), 0.2)).mean() * 2 * np.pi
    error = posterior.log_evidence.value - np.log(around * 2 * np.pi)
    assert abs(error) < 5 * posterior.log_evidence.standard_error
    draws = posterior.resample(500)
    assert "twice" in draws
    again = tw.infer(posterior.target, "gaussian", init=draws, progress=False)
    assert abs(again.log_evidence.value - np.log(around * 2 * np.pi)) < 0.2


@pytest.mark.slow
def test_data_are_leaves(schools):
    compute = eqx.filter_jit(lambda target, u: target.log_density(u))
    u = jnp.linspace(-1.0, 1.0, 10)
    other = from_stan(STAN[SCHOOLS], {**DATA, "y": Y + 1})
    assert jax.tree.structure(schools) == jax.tree.structure(other)
    first = compute(schools, u)
    with count_compiles() as compiles:
        second = compute(other, u)
        third = compute(schools.replace_data({**schools.data, "y": Y + 2}), u)
    assert compiles.count == 0
    many = {k: jnp.stack([v] * 3) for k, v in schools.data.items()}
    many["y"] = many["y"] + jnp.arange(3.0)[:, None]
    by_data = jax.vmap(lambda data: jax.vmap(lambda u: schools.log_density(u, data))(jnp.stack([u, 0 * u])))(many)
    np.testing.assert_allclose(by_data[:, 0], [first, second, third], rtol=1e-12)
    with pytest.raises(ValueError, match="`data` must be constant where JAX differentiates"):
        jax.grad(lambda y: schools.log_density(u, {**schools.data, "y": y}))(jnp.asarray(Y))


@pytest.mark.slow
def test_labels_and_files(tmp_path):
    (tmp_path / "schools.stan").write_text(STAN[SCHOOLS])
    (tmp_path / "d.json").write_text(json.dumps({k: v.tolist() for k, v in DATA.items()}))
    labels = {"coords": {"school": list("ABCDEFGH")}, "dims": {"theta": ["school"], "y": ["school"]}}
    target = from_stan(tmp_path / "schools.stan", tmp_path / "d.json", **labels)
    assert (target.name, target.dims["theta"], target.coords["school"][0]) == ("schools", ("school",), "A")
    again = tw.from_file(tmp_path / "schools.stan", tmp_path / "d.json")
    assert again.name == "schools"
    assert float(again.log_density(jnp.zeros(10))) == float(target.log_density(jnp.zeros(10)))


BAD = {**DATA, "y": Y[:3]}


@pytest.mark.parametrize(
    ("program", "data", "message"),
    [
        (3, None, "`program` must be a .stan file or a Stan program, got a int"),
        ("nothing.stan", None, "`program` must be a .stan file or a Stan program, got 'nothing.stan'; check the path"),
        ("", None, "`program` must be a .stan file or a Stan program, got ''; check the path"),
        (
            "model { x ~ normal(0, 1) }",
            None,
            "must be a Stan program that compiles, got Syntax error .*line 1, column 25",
        ),
        ("parameters { real x; }\nmodel { x ~ nrmal(0, 1); }", None, "Semantic error .*line 2.*nrmal"),
        (STAN[SCHOOLS], {**DATA, "y": Y * np.nan}, r"`data` must hold no NaN, got NaN in data\['y'\] \(8 of 8\)"),
        (STAN[SCHOOLS], {**DATA, "y": ["a"]}, r"`data\['y'\]` must be numeric"),
        (STAN[SCHOOLS], {**DATA, "y": {"1": 2.0}}, "`data` must be arrays by name"),
        (STAN[SCHOOLS], [1.0], "`data` must be a dict or a data file, got a list"),
        (STAN[SCHOOLS], "nothing.json", "`data` must be a file, got nothing.json"),
    ],
)
def test_messages(program, data, message):
    check_message(program, data, message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "`data` must fit the program's data block, got variable does not exist.*name=J"),
        (BAD, r"`data` must fit.*dims declared=\(8\); dims found=\(3\)"),
        ({**DATA, "sigma": -SIGMA}, "`data` must fit.*sigma.*greater than or equal to 0"),
        ({**DATA, "J": 8.5}, "`data` must fit.*J"),
        ({**DATA, "J": 2**40}, "`data` must have whole numbers of 32 bits, .*got 1099511627776"),
        ({**DATA, "y": Y * 1e6}, "`program` must run at every point, or reject it.*out of range"),
    ],
)
def test_messages_of_a_compiled_program(data, message):
    check_message(STAN[SCHOOLS], data, message)


def check_message(program, data, message):
    # the data as they are given: no annotation forestalls the sentence
    with pytest.raises(ValueError, match=message) as caught:
        getattr(from_stan, "__wrapped__", from_stan)(program, data)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_error_in_the_program_while_it_runs(schools, caplog):
    broken = schools.replace_data({**schools.data, "y": Y * 1e6})
    with pytest.raises(jax.errors.JaxRuntimeError, match="`program` must run at every point"):
        broken.log_density(jnp.zeros(10))
    with pytest.raises(ValueError, match="`log_density` raised JaxRuntimeError"):
        find_start(broken, 0)
    with pytest.raises(jax.errors.JaxRuntimeError, match="`data` must fit"):
        schools.replace_data({**schools.data, "sigma": -SIGMA}).log_density(jnp.zeros(10))


@pytest.mark.slow
def test_draws_outside_the_supports(schools):
    with pytest.raises(ValueError, match=r"`draws` must lie in the support of theta in the model, .* tau=-3"):
        schools.space.check({**PARAMS, "tau": np.array(-3.0)}, schools.data)
    schools.space.check({**PARAMS, "tau": np.array(0.0)}, schools.data)  # the boundary
    with pytest.raises(ValueError, match=r"`values\['theta'\]` must have shape \(8,\)"):
        schools.unconstrain({**PARAMS, "theta": np.zeros(3)})
    with pytest.raises(ValueError, match="`u` must have shape"):
        schools.constrain(jnp.zeros(3))


def test_without_httpstan_or_a_compiler(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "httpstan", None)
        with pytest.raises(ImportError, match=r"needs the package httpstan.*pip install 'thalweg\[stan\]'"):
            from_stan(STAN[SCHOOLS], DATA)
    with monkeypatch.context() as patch:
        patch.setenv("CXX", str(tmp_path / "no-compiler"))
        with pytest.raises(ValueError, match=r"`CXX` must be a C.. compiler.*no-compiler; install"):
            from_stan(STAN[SCHOOLS], DATA)
    with monkeypatch.context() as patch:
        (tmp_path / "file").write_text("")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with pytest.raises(ValueError, match="`XDG_CACHE_HOME` must be a folder that can be written"):
            from_stan(STAN[SCHOOLS], DATA)
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path))
        patch.setenv("CXX", "false")
        with pytest.raises(ValueError, match="`program` must be compiled by false, got exit status 1"):
            from_stan(STAN[SCHOOLS], DATA)
        assert not list(tmp_path.rglob("*.so"))
