"""The door from draws to a density: known densities, rows held out, resumes, messages."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import thalweg as tw
from thalweg.fit import DensityFit
from thalweg.objectives import ForwardKL
from thalweg.run import Status, run

BANANA = np.random.default_rng(0).standard_normal((4000, 2))
BANANA = np.stack([10 + 3 * BANANA[:, 0], 0.5 * BANANA[:, 1] + BANANA[:, 0] ** 2], axis=1)


def banana_log_prob(x):
    z = (x[:, 0] - 10) / 3
    return stats.norm.logpdf(x[:, 0], 10, 3) + stats.norm.logpdf(x[:, 1], z**2, 0.5)


def fresh_banana(n=2000):
    z = np.random.default_rng(5).standard_normal((n, 2))
    return np.stack([10 + 3 * z[:, 0], 0.5 * z[:, 1] + z[:, 0] ** 2], axis=1)


@pytest.mark.slow
def test_a_banana_is_learnt_to_the_truth():
    flow = tw.fit_density(BANANA, "realnvp", progress=False, steps=800)
    x = fresh_banana()
    gap = banana_log_prob(x) - np.asarray(eqx.filter_jit(flow.log_prob)(jnp.asarray(x)))
    # the forward KL of a Gaussian is above 0.5
    assert 0 < gap.mean() < 0.08


@pytest.mark.slow
def test_an_indexed_flow_learns_by_its_bound():
    flow = tw.fit_density(BANANA, "cif-realnvp", progress=False, steps=600)
    x = fresh_banana(500)
    bound = eqx.filter_jit(lambda q, x: q.log_prob_bounds(0, x, 16).lower)(flow, jnp.asarray(x))
    gap = banana_log_prob(x) - np.asarray(bound)
    assert -0.05 < gap.mean() < 0.2


@pytest.mark.slow
def test_it_stops_before_it_knows_its_rows_by_heart():
    """Of 60 normal rows in five dimensions nothing but the Gaussian is to be learnt."""
    rng = np.random.default_rng(1)
    rows, fresh = rng.standard_normal((60, 5)), rng.standard_normal((2000, 5))
    told = [
        float(np.mean(np.asarray(eqx.filter_jit(tw.fit_density(rows, f, progress=False).log_prob)(jnp.asarray(fresh)))))
        for f in ("gaussian", "realnvp")
    ]
    assert told[1] > told[0] - 0.3
    assert stats.norm.logpdf(fresh).sum(1).mean() - told[1] < 1.0


def test_the_best_by_held_out_rows_is_kept_and_the_fit_stops_by_itself():
    rows = jnp.asarray(np.random.default_rng(2).standard_normal((400, 2)))
    process = DensityFit(ForwardKL(np.asarray(rows[:300])), rows[300:], learning_rate=0.05, patience=2, chunk=20)
    result = run(process, process.init(tw.make_flow("realnvp", 2, layers=4, width=32)), jax.random.key(0), steps=5000)
    assert result.status is Status.CONVERGED
    assert len(result.history["elbo"]) < 5000
    best, last = (
        float(jnp.mean(eqx.filter_jit(q.log_prob)(rows[300:]))) for q in (result.state.model, result.state.fit.model)
    )
    assert best >= last
    assert best == pytest.approx(float(np.mean(result.state.value)), abs=1e-6)


def test_a_fit_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path):
    settings = {"flow": "realnvp", "progress": False, "seed": 3}
    whole = tw.fit_density(BANANA[:500], steps=60, **settings)
    checkpoint = tmp_path / "fit.checkpoint"
    again = tw.fit_density(BANANA[:500], steps=60, checkpoint=checkpoint, **settings)
    resumed = tw.fit_density(BANANA[:500], steps=60, checkpoint=checkpoint, resume=True, **settings)
    assert bool(eqx.tree_equal(whole, again)) and bool(eqx.tree_equal(whole, resumed))
    with pytest.raises(ValueError, match="checkpoint"):
        tw.fit_density(BANANA[:500][::-1], steps=60, checkpoint=checkpoint, resume=True, **settings)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros(30), {}, r"`x` must have shape \(n, d\), n of at least 20, got \(30,\)"),
        (np.zeros((10, 2)), {}, r"`x` must have shape \(n, d\), n of at least 20, got \(10, 2\)"),
        ([["a"] * 2] * 30, {}, "`x` must hold numbers, got list"),
        (np.where(np.arange(60).reshape(30, 2) == 7, np.nan, 1.0), {}, "`x` must be finite, got 1 of 30 rows"),
        (np.stack([np.arange(30.0), np.ones(30)], 1), {}, "`x` must vary in every column, got a constant in column 1"),
        (np.arange(30.0)[:, None] * [1, 2], {}, "`x` must vary in every direction, got columns of which one follows"),
        (BANANA, {"flow": "relnvp"}, "`flow` must be one of .* did you mean 'realnvp'"),
        (BANANA, {"flow": tw.make_flow("gaussian", 3)}, r"`flow` must be a name, or a distribution on R\^2"),
        (BANANA, {"held_out": 0.99}, r"`held_out` must lie in \(0, 0.5\], got 0.99"),
        (BANANA, {"steps": 0}, "`steps` must be"),
        (BANANA, {"resume": True}, "`checkpoint` must be the file to resume from"),
    ],
)
def test_messages(x, options, message):
    with pytest.raises(ValueError, match=message):
        tw.fit_density(x, progress=False, **options)
