"""A posterior's density, draws, files and ArviZ tree, on a conjugate model in closed form."""

import shutil
import types
from typing import Any

import arviz_base
import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.stats import norm
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy import integrate, stats
from scipy.special import gammaln

import thalweg as tw
from thalweg.posterior import draw_and_score, from_datatree

RNG = np.random.default_rng(3)
Y = RNG.normal(1.5, 2.0, 20)
COUNTS = np.array([3.0, 5.0, 9.0])


def log_likelihood(params, data):
    """One number an observation."""
    return {"y": norm.logpdf(data["y"], params["mu"], 2.0)}


def log_density(params, data):
    """mu ~ N(0, 1) with normal data; p ~ Dirichlet(1, 1, 1) with counts; s ~ Exponential(1)."""
    counted = (data["counts"] * jnp.log(params["p"])).sum() + jnp.log(2.0)
    return norm.logpdf(params["mu"]) + log_likelihood(params, data)["y"].sum() + counted - params["s"]


def deterministic(params, data):
    """Twice mu."""
    return {"double": 2 * params["mu"]}


def predictive(key, params, data):
    """New data."""
    return {"y": params["mu"] + 2.0 * jax.random.normal(key, data["y"].shape)}


def make():
    """The target."""
    supports = {"mu": tw.real(), "s": tw.positive(), "p": tw.simplex(3)}
    extra = {"log_likelihood": log_likelihood, "deterministic": deterministic, "predictive": predictive}
    return tw.from_function(log_density, supports, {"y": Y, "counts": COUNTS}, **extra)


MU_VARIANCE = 1 / (1 + 20 / 4)
MU_MEAN = MU_VARIANCE * Y.sum() / 4


def _log_evidence():
    """The normal part in closed form, and the integral of 2 prod p^counts over the simplex."""
    normal = stats.multivariate_normal(np.zeros(20), np.ones((20, 20)) + 4 * np.eye(20)).logpdf(Y)
    a = COUNTS + 1.0
    return normal + np.log(2.0) + gammaln(a).sum() - gammaln(a.sum())


@pytest.fixture(scope="module")
def posterior():
    return tw.infer(make(), "realnvp", progress=False, steps=500)


def test_evidence_and_moments(posterior):
    estimate = posterior.log_evidence
    assert abs(estimate.value - _log_evidence()) < 5 * estimate.standard_error
    assert posterior.elbo.value <= _log_evidence()
    draws = posterior.resample(10_000, seed=5)
    assert set(draws) == {"mu", "s", "p", "double"}
    assert abs(draws["mu"].mean() - MU_MEAN) < 0.05 * np.sqrt(MU_VARIANCE)
    np.testing.assert_allclose(draws["p"].mean(0), (COUNTS + 1) / 20, atol=0.01)
    np.testing.assert_allclose(draws["p"].sum(1), 1, rtol=1e-12)
    assert abs(draws["s"].mean() - 1) < 0.05
    np.testing.assert_array_equal(draws["double"], 2 * draws["mu"])
    rows = {row.name: row for row in posterior.summary()}
    assert list(rows) == ["mu", "s", "p[0]", "p[1]", "p[2]", "double"]
    assert abs(rows["mu"].mean - MU_MEAN) < 5 * rows["mu"].mcse
    assert abs(rows["mu"].sd / np.sqrt(MU_VARIANCE) - 1) < 0.05


def test_log_prob_is_normalised_in_constrained_space():
    target = tw.from_function(lambda q: -q["s"] - jnp.log(q["s"]) * 0.3, {"s": tw.positive()})
    fitted = tw.infer(target, "gaussian", progress=False)

    # over log s, on a grid wide enough for the base's tails
    log_s = np.linspace(-60, 60, 40_001)
    s = np.exp(log_s)
    total = integrate.trapezoid(np.exp(fitted.log_prob({"s": s}) + log_s), log_s)
    assert total == pytest.approx(1, abs=1e-8)


def test_raw_draws_and_their_scores(posterior):
    draws = posterior.sample(30, seed=1)
    np.testing.assert_array_equal(posterior.sample(10, seed=1)["p"], draws["p"][:10])
    assert not np.array_equal(posterior.sample(10, seed=2)["mu"], draws["mu"][:10])
    same, scores = posterior.sample_and_log_prob(30, seed=1)
    np.testing.assert_array_equal(same["mu"], draws["mu"])
    np.testing.assert_allclose(scores, posterior.log_prob(draws))
    # by hand: log q(u) less the log-determinant of the map
    target = posterior.target
    for i in range(3):
        u = target.unconstrain({k: draws[k][i] for k in ("mu", "s", "p")})
        by_hand = posterior.flow.log_prob(u) - target.constrain(u)[1]
        assert scores[i] == pytest.approx(float(by_hand), rel=1e-8)


def test_flow_inside_jit_and_vmap(posterior):
    flow = posterior.flow
    draws = jax.jit(lambda key: flow.sample(key, (5,)))(jax.random.key(0))
    np.testing.assert_allclose(jax.vmap(flow.log_prob)(draws), jax.jit(lambda u: flow.log_prob(u))(draws), rtol=1e-10)


def test_arviz_tree_where_a_parameter_is_called_as_what_is_ours(tmp_path):
    """Sites "u" and "lp" with dims of their own, beside the flow's coordinates and the log density."""

    def model(y):
        with numpyro.plate("G", 6):
            lp = numpyro.sample("lp", dist.Normal(0, 1))
            with numpyro.plate("S", 3, dim=-2):
                u = numpyro.sample("u", dist.Normal(lp, 1))
                numpyro.sample("y", dist.Normal(u, 1), obs=y)

    target = tw.from_numpyro(model, np.zeros((3, 6)))
    tree = tw.infer(target, "gaussian", progress=False).to_arviz(400)
    assert tree["posterior"]["u"].dims == ("chain", "draw", "S", "G")
    assert tree["posterior"]["lp"].dims == ("chain", "draw", "G")
    assert tree["unconstrained_posterior"]["u"].shape == (4, 100, 24)
    assert tree["sample_stats"]["lp"].dims == ("chain", "draw")
    tree.to_netcdf(tmp_path / "a.nc")


def test_importance_weights(posterior):
    weighted = posterior.importance_weights(4000, seed=2)
    assert np.exp(weighted.log_weights).sum() == pytest.approx(1)
    assert weighted.draws["p"].shape == (4000, 3)
    assert np.isfinite(weighted.raw_log_weights).all()
    with pytest.raises(ValueError, match="`n` must be a whole number of at least 1, got 0"):
        posterior.importance_weights(0)


def test_arviz_tree(posterior):
    tree = posterior.to_arviz(2000)
    assert dict(tree["posterior"].sizes)["chain"] == 4
    assert tree["posterior"]["p"].shape == (4, 500, 3)
    assert set(tree["sample_stats"].data_vars) == {"log_q", "lp", "log_weight"}
    for group in ("raw_posterior", "unconstrained_posterior", "posterior_predictive", "log_likelihood"):
        assert tree[group].sizes["draw"] == 500
    np.testing.assert_array_equal(tree["observed_data"]["y"], Y)
    assert tree["fit"]["elbo"].sizes["step"] == len(posterior.trace["elbo"])
    table = arviz_stats.summary(tree, round_to="none")
    assert abs(float(table.loc["mu", "mean"]) - MU_MEAN) < 0.1
    loo = arviz_stats.loo(tree)
    assert np.isfinite(loo.elpd)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="multiple of 4"):
        posterior.to_arviz(10)


def test_saved_and_loaded(posterior, tmp_path):
    file = posterior.save(tmp_path / "p.thalweg")
    bare, whole = tw.load(file), tw.load(file, make())
    draws = {k: v for k, v in posterior.sample(20, seed=4).items() if k != "double"}
    for loaded in (bare, whole):
        np.testing.assert_array_equal(loaded.sample(20, seed=4)["p"], draws["p"])
        np.testing.assert_array_equal(loaded.log_prob(draws), posterior.log_prob(draws))
        assert (loaded.verdict, loaded.elbo, loaded.log_evidence) == (
            posterior.verdict,
            posterior.elbo,
            posterior.log_evidence,
        )
        np.testing.assert_array_equal(loaded.trace["elbo"], posterior.trace["elbo"])
    np.testing.assert_array_equal(whole.resample(50)["mu"], posterior.resample(50)["mu"])
    for method in (bare.resample, bare.importance_weights, bare.predictive, bare.to_arviz):
        with pytest.raises(ValueError, match=r"needs the log density.*give target= to thalweg\.load"):
            method(4)
    with pytest.raises(ValueError, match="`target` must have the file's parameters"):
        tw.load(file, tw.from_function(lambda q: -(q["x"] ** 2), {"x": tw.real()}))
    with jax.enable_x64(False):
        single = tw.load(file)
        assert single.sample(3)["mu"].dtype == np.float64
        np.testing.assert_array_equal(single.sample(20, seed=4)["p"], draws["p"])


def test_supports_with_unregistered_functions_need_the_target_again(tmp_path):
    supports = {"a": tw.positive(), "b": tw.interval(0.0, lambda earlier: earlier["a"])}
    target = tw.from_function(lambda q: -q["a"] - 2 * q["b"], supports)
    fitted = tw.infer(target, "gaussian", progress=False)
    file = fitted.save(tmp_path / "p.thalweg")
    with pytest.raises(ValueError, match=r"saved without its supports.*give target="):
        tw.load(file).sample(3)
    np.testing.assert_array_equal(tw.load(file, target).sample(3)["b"], fitted.sample(3)["b"])


def _tampered(source, path, change):
    with safe_open(source, framework="np") as file:
        metadata, arrays = dict(file.metadata()), {k: file.get_tensor(k).copy() for k in file.keys()}  # noqa: SIM118
    change(metadata, arrays)
    save_file(arrays, path, metadata)


def test_files_that_cannot_be_trusted(posterior, tmp_path):
    good = posterior.save(tmp_path / "p.thalweg")
    bad = tmp_path / "bad.thalweg"
    bad.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(tw.FileError, match="cut short or changed"):
        tw.load(bad)
    bad.write_bytes(b"\x80\x04\x95" + b"0" * 100)
    with pytest.raises(tw.FileError, match="not a thalweg file"):
        tw.load(bad)

    def move(metadata, arrays):
        name = next(k for k, v in arrays.items() if v.dtype.kind == "f" and v.size)
        arrays[name].flat[0] += 1

    _tampered(good, bad, move)
    with pytest.raises(tw.FileError, match="digest does not match"):
        tw.load(bad)

    def newer(metadata, arrays):
        metadata["thalweg"] = metadata["thalweg"].replace('"format": 1', '"format": 99', 1)

    _tampered(good, bad, newer)
    with pytest.raises(tw.FileError, match="install a newer thalweg"):
        tw.load(bad)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        tw.load(tmp_path / "none.thalweg")
    shutil.rmtree(tmp_path)
    with pytest.raises(OSError, match="there is no folder"):
        posterior.save(tmp_path / "p.thalweg")


def _other(params, data):
    """Another prior for s."""
    return log_density(params, data) - params["s"]


def test_a_file_knows_its_target(posterior, tmp_path):
    file = posterior.save(tmp_path / "p.thalweg")
    target = make()
    loaded = tw.load(file, target)
    np.testing.assert_array_equal(loaded.log_weights, posterior.log_weights)
    np.testing.assert_array_equal(loaded.resample(50)["mu"], posterior.resample(50)["mu"])
    with pytest.raises(ValueError, match="`target` must have the data that the fit was made with"):
        tw.load(file, target.replace_data({"y": Y + 1e-3, "counts": COUNTS}))
    supports = {"mu": tw.real(), "s": tw.positive(), "p": tw.simplex(3)}
    data = {"y": Y, "counts": COUNTS}
    with pytest.raises(ValueError, match="`target` must have the log density that the fit was made with"):
        tw.load(file, tw.from_function(_other, supports, data))
    with pytest.raises(ValueError, match="log density"):
        tw.load(file, tw.from_function(log_density, {**supports, "s": tw.greater_than(0.5)}, data))


def test_scores_come_with_the_draws_exactly():
    """A Dirichlet with a corner: going back from rounded draws would lose nats."""
    target = tw.from_function(lambda q: (-0.9 * jnp.log(q["p"])).sum(), {"p": tw.simplex(4)})
    fitted = tw.infer(target, "gaussian", progress=False, dtype="float32")
    draws, log_q = fitted.sample_and_log_prob(500, seed=2)
    np.testing.assert_array_equal(draws["p"], fitted.sample(500, seed=2)["p"])
    with jax.enable_x64(False):
        u, _ = draw_and_score(fitted.flow, jax.random.key(2), 500)
        flow: Any = fitted.flow
        log_u = flow.log_prob(jnp.asarray(u))
    log_det = jax.vmap(lambda u: target.constrain(u)[1])(jnp.asarray(u, float))
    np.testing.assert_allclose(log_q, np.asarray(log_u) - np.asarray(log_det), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("bad", [1.0, np.ones((0,)), np.ones((3, 2))])
def test_log_prob_wants_rows(posterior, bad):
    with pytest.raises(ValueError, match=r"`draws\['mu'\]` must have shape"):
        posterior.log_prob({"mu": bad, "s": np.ones(3), "p": np.full((3, 3), 1 / 3)})


def test_log_prob_wants_equally_many(posterior):
    with pytest.raises(ValueError, match="`draws` must have equally many of every parameter, got 2 of 'mu', 3 of 's'"):
        posterior.log_prob({"mu": np.ones(2), "s": np.ones(3), "p": np.full((3, 3), 1 / 3)})


def test_what_a_fit_may_start_from_as_a_dict():
    given = types.MappingProxyType({"mu": 1.0})  # a mapping, if no dict
    assert from_datatree(given, ("mu",)) == {"mu": 1.0}
    chains = arviz_base.from_dict({"posterior": {"v": np.arange(24.0).reshape(2, 3, 4)}})
    for tree in (chains, chains["posterior"], chains["posterior"].dataset.transpose("v_dim_0", "draw", "chain")):
        np.testing.assert_array_equal(from_datatree(tree, ("v",))["v"], np.arange(24.0).reshape(6, 4))
