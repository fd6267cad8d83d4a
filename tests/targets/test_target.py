"""Targets from functions: values, data as leaves, rows, the look at the door, and where to start."""

import dataclasses
import os
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats as jstats
from scipy import stats

from helpers import count_compiles
from thalweg.targets import (
    Stack,
    find_start,
    from_function,
    from_likelihood,
    interval,
    is_rounding,
    positive,
    real,
    simplex,
    value_and_score_of_rows,
)

# eight schools (Rubin 1981); the draw and its log density are those of posteriordb's reference draws, number 0
Y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SIGMA = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
DRAW = {
    "mu": 9.33884525330527,
    "tau": 1.7939466756273,
    "theta": np.array(
        [
            *(10.6802773011458, 9.71770681295263, 7.77507099674238, 9.02804654605565),
            *(9.65893576633312, 8.82344036757095, 9.67957708445449, 13.7360810246561),
        ]
    ),
}
LOG_JOINT = -52.50172444469616


def schools_prior(p):
    of_mu = jstats.norm.logpdf(p["mu"], 0.0, 5.0) + jstats.cauchy.logpdf(p["tau"], 0.0, 5.0)
    return of_mu + jstats.norm.logpdf(p["theta"], p["mu"], p["tau"]).sum()


def schools_likelihood(p, data):
    return {"y": jstats.norm.logpdf(data["y"], p["theta"], data["sigma"])}


def schools(p, data):
    return schools_prior(p) + schools_likelihood(p, data)["y"].sum()


def line_prior(p):
    return jstats.norm.logpdf(p["slope"]) + jstats.expon.logpdf(p["noise"])


def line_likelihood(p, data):
    return jstats.norm.logpdf(data["y"], data["offset"] + p["slope"] * data["x"], p["noise"])


def line(n=50, seed=0):
    rng = np.random.default_rng(seed)
    data = {"x": rng.standard_normal(n), "y": rng.standard_normal(n), "offset": 0.5}
    return from_likelihood(line_prior, line_likelihood, {"slope": real(), "noise": positive()}, data)


SUPPORTS = {"mu": real(), "tau": positive(), "theta": real(8)}
DATA = {"y": Y, "sigma": SIGMA}


def make_schools(data=None):
    return from_function(schools, SUPPORTS, data or DATA, log_likelihood=schools_likelihood)


def test_eight_schools_has_the_reference_value():
    target = make_schools()
    u = target.unconstrain(DRAW)
    assert float(target.log_density(u)) == pytest.approx(LOG_JOINT + np.log(DRAW["tau"]), abs=1e-9)
    values, log_det = target.constrain(u)
    assert float(log_det) == pytest.approx(np.log(DRAW["tau"]))
    np.testing.assert_allclose(values["theta"], DRAW["theta"])
    assert (target.size, target.names, target.name) == (10, ("mu", "tau", "theta"), "schools")
    assert target.observed_names == ("y",)
    np.testing.assert_array_equal(target.observed()["y"], Y)


def test_split_and_whole_agree_with_scipy():
    target = line()
    slope, noise = 0.3, 1.7
    u = jnp.array([slope, np.log(noise)])
    x, y = (np.asarray(target.data[k]) for k in "xy")
    likelihood = stats.norm.logpdf(y, 0.5 + slope * x, noise).sum()
    prior = stats.norm.logpdf(slope) + stats.expon.logpdf(noise) + np.log(noise)
    assert float(target.log_density(u)) == pytest.approx(prior + likelihood)
    assert float(target.log_density(u, weight=2.5)) == pytest.approx(prior + 2.5 * likelihood)
    assert float(target.log_joint(target.constrain(u)[0], target.data)) == pytest.approx(
        prior + likelihood - np.log(noise)
    )


def test_rows_estimate_the_log_density_without_bias():
    target = line(n=40)
    assert (target.is_split, target.n_rows) == (True, 40)
    u = jnp.array([0.3, 0.2])

    @jax.jit
    @jax.vmap
    def estimate(key):
        batch, weight = target.rows(key, None, 8)
        assert (batch["x"].shape, batch["offset"].shape) == ((8,), ())
        return target.log_density(u, batch, weight)

    estimates = estimate(jax.random.split(jax.random.key(0), 4000))
    error = 5 * estimates.std() / np.sqrt(4000)
    assert abs(estimates.mean() - target.log_density(u)) < error
    everything, weight = target.rows(jax.random.key(0), None, 40)
    assert everything is target.data
    assert float(weight) == 1
    assert not make_schools().is_split
    with pytest.raises(ValueError, match="`weight` must be 1 for a target that is not split"):
        make_schools().log_density(jnp.zeros(10), weight=2.0)
    with pytest.raises(ValueError, match="`target` must be split into prior and likelihood to have rows"):
        make_schools().n_rows  # noqa: B018


def test_other_numbers_compile_nothing():
    compute = eqx.filter_jit(lambda target, u: target.log_density(u))
    u = jnp.zeros(10)
    first, start = compute(make_schools(), u), find_start(make_schools(), 0, n=20).points
    other = make_schools({"y": Y + 1, "sigma": SIGMA})
    with count_compiles() as compiles:
        second = compute(other, u)
        third = compute(make_schools().replace_data({"y": Y - 1, "sigma": SIGMA}), u)
        again = find_start(other, 0, n=20).points
    assert compiles.count <= 2  # slicing of the good starts, not the target
    assert len({float(v) for v in (first, second, third)}) == 3
    assert start.shape == again.shape
    structures = {jax.tree.structure(make_schools()) for _ in range(2)} | {jax.tree.structure(other)}
    assert len(structures) == 1
    assert jax.tree.structure(line()) == jax.tree.structure(line(seed=1))


def no_data(p):
    return -(p["x"] ** 2)


def test_functions_without_data_give_equal_structure():
    one, two = (from_function(no_data, {"x": real()}, deterministic=lambda_free) for _ in range(2))
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert float(one.log_density(jnp.array([2.0]))) == -4


def lambda_free(p):
    return {"twice": 2 * p["x"]}


def test_datasets_are_vmapped():
    target = make_schools()
    u = jnp.zeros(10)
    many = {"y": jnp.stack([Y, Y + 1, Y + 2]), "sigma": jnp.stack([SIGMA] * 3)}
    values = jax.vmap(lambda data: target.log_density(u, data))(many)
    truth = [target.replace_data({"y": Y + i, "sigma": SIGMA}).log_density(u) for i in range(3)]
    np.testing.assert_allclose(values, truth)


def test_data_become_arrays():
    data = {
        "a": [1.0, 2.0],
        "n": 3,
        "b": np.array([True]),
        "i": np.arange(3),
        "f": np.array([1.5], np.float32),
        "t": (1.0, [2]),
    }
    target = from_function(lambda p, data: -(p["x"] ** 2), {"x": real()}, data)
    kinds = jax.tree.map(lambda x: (x.dtype.name, x.shape), target.data)
    assert kinds["a"] == ("float64", (2,))
    assert (kinds["n"], kinds["b"], kinds["i"]) == (("int64", ()), ("bool", (1,)), ("int64", (3,)))
    assert kinds["f"] == ("float64", (1,))
    assert kinds["t"] == (("float64", ()), ("int64", (1,)))
    with jax.enable_x64(False):
        target = from_function(lambda p, data: -(p["x"] ** 2), {"x": real()}, {"a": np.arange(3.0)})
        assert target.data["a"].dtype == "float32"
        assert target.log_density(jnp.zeros(1)).dtype == "float32"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"y": Y}, r"`data\['sigma'\]` must be there, as in the target's data, got none"),
        ({"y": Y, "sigma": SIGMA, "z": 1.0}, r"`data\['z'\]` must be left out"),
        (
            {"y": Y[:3], "sigma": SIGMA},
            r"`data\['y'\]` must have shape \(8,\) and dtype float64, got \(3,\) and float64",
        ),
        ({"y": np.arange(8), "sigma": SIGMA}, r"`data\['y'\]` must have .* dtype float64, got \(8,\) and int64"),
    ],
)
def test_replaced_data_keep_their_form(data, message):
    with pytest.raises(ValueError, match=message):
        make_schools().replace_data(data)


def uses_numpy(p):
    return float(np.sum(np.asarray(p["x"])))


def branches(p):
    return p["x"] if p["x"] > 0 else -p["x"]


@dataclasses.dataclass  # equal by value, so not hashable
class NotHashable:
    scale: float

    def __call__(self, p):
        return -self.scale * p["x"] ** 2


def hook_off(*values):
    """A row for what the annotation checks of the tests would say first."""
    return pytest.param(*values, marks=pytest.mark.skipif(os.environ.get("THALWEG_NO_HOOK") != "1", reason="hook"))


X = {"x": real()}
NAN = np.array([1.0, np.nan])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: from_function(lambda p: p["y"], X),
            r"`log_density` raised KeyError: 'y' \(line \d+ of test_target.py\)",
        ),
        (
            lambda: from_function(uses_numpy, X),
            "`log_density` works on plain numbers but not under jax.jit; use jax.numpy",
        ),
        (lambda: from_function(branches, X), "jnp.where or jax.lax.cond instead of if.*TracerBoolConversionError"),
        (lambda: from_function(lambda p: jnp.ones(3) * p["x"], X), r"must return one number.*shape \(3,\); sum it"),
        (lambda: from_function(lambda p: p["x"][None], X), r"an array of shape \(1,\); sum it: jnp.sum"),
        (lambda: from_function(lambda p: 3, X), "`log_density` must return a float, got dtype int"),
        (lambda: from_function(lambda p: p["x"] > 0, X), "`log_density` must return a float, got dtype bool"),
        (lambda: from_function(lambda p: None, X), "`log_density` must return one number, a 0-d array, got None"),
        (
            lambda: from_function(lambda p: (p["x"], 1), X),
            "`log_density` must return one number, a 0-d array, got a tuple",
        ),
        hook_off(lambda: from_function(cast(Any, 3), X), "`log_density` must be a function, got a int"),
        (
            lambda: from_function(NotHashable(1.0), X),
            "`log_density` must be hashable.*got a NotHashable, .*through `data`",
        ),
        (lambda: from_function(lambda: 0.0, X), r"`log_density` must take \(params\) or \(params, data\).*0 arguments"),
        (lambda: from_function(lambda a, b, c: 0.0, X), "got a function of 3 arguments"),
        (
            lambda: from_function(lambda p, data: 0.0, X),
            r"`data` must be given, since `log_density` takes \(params, data\)",
        ),
        (
            lambda: from_function(no_data, X, {"y": Y}),
            r"`log_density` must take \(params, data\) where `data` is given",
        ),
        (
            lambda: from_function(schools, SUPPORTS, {"y": NAN, "sigma": NAN}),
            r"NaN in data\['sigma'\] \(1 of 2\), data\['y'\]",
        ),
        (
            lambda: from_function(schools, SUPPORTS, {"y": ["a", "b"]}),
            r"`data\['y'\]` must be numeric, got list of dtype <U1",
        ),
        (
            lambda: from_function(schools, SUPPORTS, {"y": np.array([None])}),
            r"`data\['y'\]` must be numeric.*dtype object",
        ),
        (
            lambda: from_function(schools, SUPPORTS, {"y": [[1], [1, 2]]}),
            r"`data\['y'\]` must be an array.*different lengths",
        ),
        (
            lambda: from_function(no_data, X, deterministic=lambda p: 1.0),
            "`deterministic` must return a dict of arrays",
        ),
        (
            lambda: from_function(no_data, X, deterministic=lambda p: p),
            "`deterministic` must use names that no parameter has",
        ),
        (lambda: from_function(no_data, X, predictive=lambda k, p: 1.0), "`predictive` must return a dict of arrays"),
        hook_off(lambda: from_function(no_data, {"x": cast(Any, real)}), r"the function real; call it: real\(\)"),
        (
            lambda: from_likelihood(no_data, lambda p: p["x"], X, None),
            "with data given, got no data; use from_function",
        ),
        (lambda: from_likelihood(no_data, lambda p: p["x"], X, Y), "got a likelihood of the parameters alone"),
        (
            lambda: from_likelihood(no_data, lambda p, d: d.sum(), X, Y),
            r"`log_likelihood` must return one number for each row",
        ),
        (lambda: from_likelihood(schools, schools_likelihood, SUPPORTS, DATA), r"`log_prior` must take \(params\)"),
    ],
)
def test_messages(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_users_error_is_chained():
    with pytest.raises(ValueError, match="`log_density` raised KeyError") as caught:
        from_function(lambda p: p["y"], X)
    assert isinstance(caught.value.__cause__, KeyError)


def test_starts_are_good_and_the_first_is_init():
    target = make_schools()
    starts = find_start(target, 0).points
    assert starts.shape == (100, 10)
    np.testing.assert_array_equal(starts[0], np.zeros(10))
    assert float(jnp.abs(starts).max()) <= 2
    starts = find_start(target, 0, init={"tau": 3.0}).points
    np.testing.assert_allclose(starts[0], np.array([0, np.log(3), *[0] * 8]))
    np.testing.assert_array_equal(starts[1:], find_start(target, 0).points[1:])
    with pytest.raises(ValueError, match="must name exactly mu, tau, theta, got an unknown 'sigma'"):
        find_start(target, 0, init={"sigma": 1.0})
    with pytest.raises(ValueError, match=r"`init\['tau'\]` must lie in greater_than\(0\), got -1.0"):
        find_start(target, 0, init={"tau": -1.0})


def test_draws_to_start_from():
    target = make_schools()
    rng = np.random.default_rng(0)
    draws = {"mu": rng.normal(1, 2, 400), "tau": rng.exponential(3, 400), "theta": rng.normal(0, 1, (400, 8))}
    starts = find_start(target, 0, init=draws)
    u = np.column_stack([draws["mu"], np.log(draws["tau"]), draws["theta"]])
    np.testing.assert_allclose(starts.points[0], u.mean(0))
    assert starts.scale_tril is not None
    shrunk = (400 * np.cov(u.T) + 5e-3 * np.eye(10)) / 405
    np.testing.assert_allclose(starts.scale_tril @ starts.scale_tril.T, shrunk, atol=1e-12)
    assert find_start(target, 0).scale_tril is None
    few = find_start(target, 0, init={k: v[:3] for k, v in draws.items()}).scale_tril
    assert few is not None
    assert (np.diagonal(few) > 0).all()
    with pytest.raises(ValueError, match="must name exactly mu, tau, theta, got none for 'tau'"):
        find_start(target, 0, init={k: v for k, v in draws.items() if k != "tau"})
    with pytest.raises(ValueError, match=r"`init\['tau'\]` must lie in greater_than\(0\), got -"):
        find_start(target, 0, init={**draws, "tau": -draws["tau"]})
    with pytest.raises(ValueError, match=r"`init` must have at least 2 draws"):
        find_start(target, 0, init={k: v[:1] for k, v in draws.items()})


def test_only_finite_starts_are_kept():
    target = from_function(lambda p: jnp.where(p["x"] > 1, -p["x"], -jnp.inf), X)
    starts = find_start(target, 0).points
    assert 0 < starts.shape[0] < 100
    assert bool((starts > 1).all())


MU_TAU = {"mu": real(), "tau": positive(), "w": simplex(2)}


@pytest.mark.parametrize(
    ("log_density", "message"),
    [
        (
            lambda p: p["mu"] + jnp.log(-p["tau"]),
            r"NaN \(from log at test_target.py:\d+.* because of `tau`; look for log",
        ),
        (
            lambda p: p["mu"] / (p["w"].sum() - p["w"].sum()) - jnp.inf,
            "at all 100 starting points, the first of them mu=0",
        ),
        (lambda p: -(p["mu"] ** 2) - jnp.where(p["tau"] > 100, 0.0, jnp.inf), "-inf at all 100 .* because of `tau`"),
        (lambda p: p["mu"] * 0 - jnp.inf, "-inf at all 100 .*tau=1, w=.* whichever of `mu`, `tau`, `w` is moved"),
        (lambda p: jnp.sqrt(0 * p["tau"]) + p["mu"], "a gradient that is not, with respect to `tau`.*behind jnp.where"),
    ],
)
def test_what_no_start_can_help_is_told(log_density, message):
    target = from_function(log_density, MU_TAU)
    with pytest.raises(ValueError, match=message):
        find_start(target, 0)


def test_nan_is_never_minus_infinity():
    target = from_function(lambda p: jnp.log(-p["tau"]), {"tau": positive()})
    assert bool(jnp.isnan(target.log_density(jnp.zeros(1))))


def test_a_dependent_bound_in_a_target():
    target = from_function(
        lambda p, data: 0.0 * p["x"], {"s": positive(), "x": interval(0, lambda e: e["s"])}, {"y": Y}
    )
    u = jnp.array([0.5, 0.0])
    assert float(target.log_density(u)) == pytest.approx(0.5 + 0.5 + np.log(0.25))


def test_rounding_is_told_from_a_log_density():
    """1 + e - e is 1, but 0 or 2 where e is so large that only every second whole number is a float64."""
    target = from_function(lambda p: 1e3 * ((1 + jnp.exp(p["x"])) - jnp.exp(p["x"])) - 1e3 * p["x"], {"x": real()})
    assert is_rounding(target, np.linspace(37, 37.3, 100)[:, None]).mean() > 0.3
    assert not is_rounding(target, np.linspace(-3, 3, 100)[:, None]).any()
    # the log of a wall is no rounding
    walled = from_function(lambda p: jnp.where(p["x"] < 1, -(p["x"] ** 2), -jnp.inf), {"x": real()})
    assert not is_rounding(walled, np.array([[0.5], [2.0]])).any()


@pytest.mark.parametrize("at_once", [10_000_000, 500])
def test_a_stack_is_as_its_targets(at_once, monkeypatch):
    """Rows of the first target, then of the second; more of them than go at once; large ones one after the other."""
    monkeypatch.setattr("thalweg.targets._rows._NUMBERS_AT_ONCE", at_once)

    def log_density(params, data):
        return -jnp.sum((params["x"] - data["y"]) ** 2) - jnp.sum(params["x"] ** 4)

    rng = np.random.default_rng(0)
    target = from_function(log_density, {"x": real(2)}, {"y": np.zeros(2)})
    targets = [target.replace_data({"y": rng.standard_normal(2)}) for _ in range(3)]
    u = rng.standard_normal((3 * 150, 2))
    found = value_and_score_of_rows(Stack(targets), u)
    own = zip(targets, np.split(u, 3), strict=True)
    expected = [jax.vmap(jax.value_and_grad(t.log_density))(jnp.asarray(rows)) for t, rows in own]
    for ours, theirs in zip(found, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(ours, np.concatenate(theirs), rtol=1e-12, atol=1e-12)
