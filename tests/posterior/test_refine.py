"""Chains: they have the target's moments where the flow has not, and know its evidence."""

import re

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import thalweg as tw
from thalweg import distributions
from thalweg.posterior._verdict import judge_chains


def log_density(params):
    """x ~ N(0, 1), y ~ N(x^2 / 2, 1), s ~ Exponential(1): a banana and a scale, normalised."""
    return norm.logpdf(params["x"]) + norm.logpdf(params["y"], params["x"] ** 2 / 2, 1.0) - params["s"]


TARGET = tw.from_function(log_density, {"x": tw.real(), "y": tw.real(), "s": tw.positive()}, name="banana")
MEANS = {"x": 0.0, "y": 0.5, "s": 1.0}
SDS = {"x": 1.0, "y": np.sqrt(1.5), "s": 1.0}


@pytest.fixture(scope="module")
def gaussian():
    """A Gaussian fit, which the banana is not."""
    posterior = tw.infer(TARGET, "gaussian", progress=False)
    assert not posterior.verdict.raw_ok
    return posterior


@pytest.mark.parametrize(
    ("flow", "method"),
    [
        pytest.param("realnvp", "imh", marks=pytest.mark.slow),
        ("gaussian", "neutra"),
        pytest.param("realnvp", None, marks=pytest.mark.slow),
    ],
)
def test_refined_draws_have_the_known_moments(gaussian, flow, method, tmp_path):
    before = gaussian if flow == "gaussian" else tw.infer(TARGET, flow, steps=400, progress=False)
    refined = before.refine(method, n=24_000, seed=1, progress=False)
    verdict = refined.verdict
    assert verdict.ok, verdict
    assert verdict.raw_ok == (flow == "realnvp")
    assert verdict.rhat is not None
    assert verdict.rhat < 1.01
    assert f"R-hat {verdict.rhat:.3f}" in str(verdict)
    draws = refined.resample(24_000)
    for name, mean in MEANS.items():
        error = 5 * SDS[name] / np.sqrt(verdict.ess)
        assert abs(draws[name].mean() - mean) < error
        assert draws[name].std() == pytest.approx(SDS[name], rel=0.1)
    rows = {row.name: row for row in refined.summary()}
    assert 0.5 / np.sqrt(24_000) < rows["x"].mcse < 5 / np.sqrt(verdict.ess)
    assert abs(refined.log_evidence.value) < 5 * refined.log_evidence.standard_error
    assert refined.log_evidence.standard_error < 0.05

    again = tw.load(refined.save(tmp_path / "p.thalweg"), TARGET)
    np.testing.assert_array_equal(again.resample(100)["x"], refined.resample(100)["x"])
    assert again.verdict == verdict

    tree = refined.to_arviz(4000)
    assert tree["posterior"]["x"].shape == (16, 250)
    assert arviz_stats.rhat(tree)["x"] < 1.02
    assert "log_weight" not in tree["sample_stats"]


def test_independence_chains_take_auxiliary_flows():
    """On the extended space: the flow's density is not needed."""

    class Widened(distributions.AbstractAuxiliaryDistribution):
        """z = u + e, u and e ~ N(0, 1), so z ~ N(0, 2); r(u | z) is off the exact N(z / 2, 1 / 2)."""

        shape = (1,)
        context_shape = None

        def _sample_joint_and_log_prob(self, key, context):
            u, e = jax.random.normal(key, (2, 1))
            return u + e, u, self._log_joint(u + e, u, context)

        def _log_joint(self, z, u, context):
            return (norm.logpdf(u) + norm.logpdf(z, u)).sum()

        def _sample_reverse(self, key, z, context):
            return 0.4 * z + 0.8 * jax.random.normal(key, (1,))

        def _log_reverse(self, u, z, context):
            return norm.logpdf(u, 0.4 * z, 0.8).sum()

    target = tw.from_function(lambda p: norm.logpdf(p["z"], 0.5, 1.2), {"z": tw.real()})
    posterior = tw.infer(target, Widened(), steps=1, progress=False)
    refined = posterior.refine(n=16_000, progress=False)
    assert refined.chains is not None
    z = refined.chains[..., 0]
    assert abs(z.mean() - 0.5) < 5 * 1.2 / np.sqrt(refined.verdict.ess)
    assert z.std() == pytest.approx(1.2, rel=0.05)
    with pytest.raises(ValueError, match=r'`flow` must be a base pushed .* use method="imh"'):
        posterior.refine("neutra", progress=False)


def test_what_independence_chains_cannot_know():
    """A flow that leaves out 30 % of a ridge: its chains agree with one another, and are not trusted."""

    def log_ridge(p):
        return norm.logpdf(p["x"], 0.0, 3.0) + norm.logpdf(p["y"], p["x"] ** 2, 1.0)

    target = tw.from_function(log_ridge, {"x": tw.real(), "y": tw.real()})

    class Part(distributions.AbstractDistribution):
        """The ridge left of the quantile of order 0.7."""

        shape = (2,)
        context_shape = None

        def _sample_and_log_q(self, key, context):
            own, other = jax.random.split(key)
            x = 3.0 * norm.ppf(0.7 * jax.random.uniform(own, minval=1e-9))
            u = jnp.stack([x, x**2 + jax.random.normal(other)])
            return u, self._log_prob(u, context)

        def _log_prob(self, u, context):
            inside = norm.cdf(u[0] / 3.0) <= 0.7
            return jnp.where(inside, target.log_density(u) - np.log(0.7), -jnp.inf)

    posterior = tw.infer(target, Part(), steps=1, progress=False)
    assert not posterior.verdict.ok
    refined = posterior.refine("imh", n=4000, progress=False)
    assert not refined.verdict.ok
    assert "leave the flow" in str(refined.verdict)


def test_chains_that_disagree_are_not_trusted():
    rng = np.random.default_rng(0)
    chains = rng.standard_normal((8, 500, 2))
    own = rng.standard_normal((1000, 2))
    good = judge_chains(chains, own, 0.1)
    assert good.ok
    assert good.raw_ok
    assert good.n_draws == 4000
    # moments do not show a heavy tail of the weights
    assert not judge_chains(chains, own, 0.8).raw_ok
    assert judge_chains(chains, own, 0.8).ok
    chains[0] += 0.5
    verdict = judge_chains(chains, own, 0.1)
    assert not verdict.ok
    assert "the chains disagree" in str(verdict)
    slow = np.cumsum(rng.standard_normal((8, 500, 2)), axis=1)
    assert not judge_chains(slow, own, 0.1).ok
    assert "another mode" in str(judge_chains(rng.standard_normal((8, 500, 2)), own, 0.1, missed_mode="another mode"))


def test_chains_run_until_their_draws_are_enough(gaussian):
    """A proposal that is mostly refused: the chains go on, twice as long at a time, and keep as many draws."""
    short = gaussian.refine("imh", n=1600, budget=1e-3, progress=False)
    assert short.chains is not None
    assert short.chains.shape[1] < 100
    assert not short.verdict.ok
    long = gaussian.refine("imh", n=1600, progress=False)
    assert long.chains.shape == (16, 100, 3)
    (every,) = map(int, re.findall(r"every (\d+) steps", long.steps_taken[-1]))
    assert every > 5
    assert every % 5 == 0
    assert long.verdict.ess > 320 or every == 160


def test_messages(gaussian):
    with pytest.raises(ValueError, match="`n` must be a whole number of at least 64, got 16"):
        gaussian.refine("imh", n=16, progress=False)
    with pytest.raises(
        ValueError, match=r"`budget` must be a positive number of seconds, or Evaluations\(n\), got -1.0"
    ):
        gaussian.refine("imh", budget=-1.0, progress=False)
    with pytest.raises(ValueError, match="`method` must be one of imh, neutra"):
        gaussian.refine("nuts", progress=False)
    with pytest.raises(ValueError, match="`chains` must be"):
        gaussian.refine("imh", chains=0, progress=False)
    with pytest.raises(ValueError, match="`chains` must be a whole number of at least 2, got 1"):
        gaussian.refine("imh", chains=1, progress=False)


def test_the_report_of_chains_speaks_of_them(gaussian, tmp_path):
    page = tw.report(gaussian.refine("imh", n=800, progress=False), tmp_path / "r.html").read_text()
    assert "R-hat" in page
    assert "Draws of the chains" in page
    assert "reliable below" not in page
