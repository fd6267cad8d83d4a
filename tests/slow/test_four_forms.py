"""Four languages: Stan's log densities, programs that only a compile can refuse, and posteriors that agree."""

import itertools

import jax
import numpy as np
import pytest

import thalweg as tw
from four_forms import FORMS, KIDS, RADON, check_form, make_form

pytest.importorskip("pymc")
pytest.importorskip("numpyro")
pytest.importorskip("httpstan")


@pytest.fixture(autouse=True)
def _as_users_write(pytestconfig, monkeypatch):
    """Users write for the default promotion; compiled programs are kept from one run of the tests to the next."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytestconfig.cache.mkdir("stan")))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", [KIDS, RADON])
def test_log_density_in_stan(name):
    # with all normalising constants, but those of truncation
    assert check_form(name, "stan") == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("data { int n; } model { }", "`program` must have parameters, got none"),
        ("parameters { tuple(real, real) t; } model { t.1 ~ normal(0, 1); }", "must have parameters that are arrays"),
        ("parameters { real x; } model { x ~ normal(0, 1); array[1] real a = {x}; target += a[2]; }", "index 2"),
    ],
)
def test_programs_that_are_right_but_are_no_targets(program, message):
    with pytest.raises(ValueError, match=message):
        tw.from_stan(program, {"n": 1})


EVERY_SUPPORT = """
parameters {
  simplex[3] w;
  ordered[3] o;
  cholesky_factor_corr[3] L;
  array[2, 3] real<lower=-1, upper=2> p;
  unit_vector[2] v;
  cov_matrix[2] S;
  array[2] matrix<lower=0>[2, 3] M;
  real<lower=p[1, 1]> above;
}
model {
  w ~ dirichlet([1, 2, 3]');
  o ~ normal(0, 1);
  L ~ lkj_corr_cholesky(2);
  S ~ wishart(4, identity_matrix(2));
  for (i in 1:2) to_vector(M[i]) ~ exponential(1);
  above ~ normal(0, 1);
}
"""


@pytest.mark.slow
def test_every_support_there_and_back():
    target = tw.from_stan(EVERY_SUPPORT)
    assert target.space.shapes["M"] == (2, 2, 3)
    # a unit vector has one number more than dimensions, whose length is lost on the way
    u = np.random.default_rng(0).standard_normal((5, target.size))
    values = jax.jit(jax.vmap(lambda u: target.constrain(u)[0]))(u)
    np.testing.assert_allclose(values["w"].sum(1), 1)
    assert (np.diff(values["o"]) > 0).all()
    np.testing.assert_allclose(values["S"], values["S"].swapaxes(1, 2))
    assert (values["above"] > values["p"][:, 0, 0]).all()
    again = jax.jit(jax.vmap(lambda p: target.unconstrain(p)))(values)
    rest = np.ones(target.size, bool)
    rest[target.space.slices["v"]] = False
    np.testing.assert_allclose(again[:, rest], u[:, rest], rtol=1e-6)
    assert np.isfinite(jax.jit(jax.vmap(lambda u: target.log_density(u)))(u)).all()


@pytest.mark.slow
def test_posteriors_agree():
    draws = {}
    for form in FORMS:
        with jax.enable_x64(False):
            draws[form] = tw.infer(make_form(KIDS, form), seed=0, progress=False).resample(40_000, seed=1)
    names = make_form(KIDS, "function").names
    for a, b in itertools.combinations(FORMS, 2):
        for n in names:
            apart = np.abs(draws[a][n].mean(0) - draws[b][n].mean(0)) / draws[a][n].std(0)
            assert np.max(apart) < 0.05, (a, b, n)
