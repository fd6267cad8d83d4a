"""Importance-weighted, Renyi, forward KL and annealing, against closed forms and each other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

import thalweg as tw
from thalweg.bijections import Affine, Coupling, TriangularAffine
from thalweg.bijections import AffineTransformer as AffineMap
from thalweg.distributions import Mixture, StandardNormal, Transformed
from thalweg.fit import Fit
from thalweg.objectives import Annealing, ForwardKL, ImportanceWeighted, Renyi, ReverseKL, Sum
from thalweg.objectives._importance import _log_mean_exp
from thalweg.run import run

LOG_Z, SHIFT = 1.7, 0.6
TARGET = tw.from_function(lambda p: LOG_Z + norm.logpdf(p["x"], SHIFT, 1.0), {"x": tw.real()})


def _normal(loc=0.0, scale=1.0):
    return Transformed(StandardNormal((1,)), Affine(np.array([loc]), np.array([scale])))


@eqx.filter_jit
def slopes_of(objective, flow):
    return eqx.filter_grad(lambda f: objective(f, jax.random.key(0))[0])(flow)


@eqx.filter_jit
def value_of(objective, flow, key, batch=None):
    return objective(flow, key, *([] if batch is None else [batch]))


def _estimates(objective, flow, n):
    """(mean, standard error) of the loss over n keys."""
    losses = np.asarray(
        eqx.filter_jit(jax.vmap(lambda k: objective(flow, k)[0]))(jax.random.split(jax.random.key(0), n))
    )
    return losses.mean(), losses.std() / np.sqrt(n)


def test_importance_weights_tighten_the_bound():
    means = [_estimates(ImportanceWeighted(TARGET, k, 64), _normal(), 50) for k in (1, 4, 64)]
    elbo = LOG_Z - 0.5 * SHIFT**2
    assert abs(-means[0][0] - elbo) < 5 * means[0][1]
    assert -means[0][0] < -means[1][0] < -means[2][0] < LOG_Z + 5 * means[2][1]
    assert LOG_Z + means[2][0] < 0.01
    exact, _ = value_of(ImportanceWeighted(TARGET, 5), _normal(SHIFT), jax.random.key(0))
    np.testing.assert_allclose(-exact, LOG_Z, rtol=1e-12)


def test_the_doubly_reparametrised_gradient_is_the_plain_one_with_less_noise():
    flow = _normal(0.1, 1.3)

    @eqx.filter_jit
    def gradients(keys, *, doubly):
        objective = ImportanceWeighted(TARGET, 8, 64, doubly)
        one = lambda key: eqx.filter_grad(lambda f: objective(f, key)[0])(flow)  # noqa: E731
        return jnp.stack([jnp.ravel(g) for g in jax.tree.leaves(jax.vmap(one)(keys))])

    keys = jax.random.split(jax.random.key(1), 400)
    doubly, plain = (np.asarray(gradients(keys, doubly=d)) for d in (True, False))
    error = np.sqrt((doubly.var(1) + plain.var(1)) / 400)
    assert np.all(np.abs(doubly.mean(1) - plain.mean(1)) < 5 * error)
    assert np.any(np.abs(doubly.mean(1)) > 5 * error)
    assert np.all(doubly.var(1) < 0.3 * plain.var(1))


@pytest.mark.parametrize(
    "objective",
    [
        ReverseKL(TARGET, path=False),
        ReverseKL(TARGET),
        ImportanceWeighted(TARGET, 4, doubly=False),
        ImportanceWeighted(TARGET, 4),
        Renyi(TARGET, 0.5),
    ],
    ids=lambda o: type(o).__name__,
)
def test_the_weights_of_a_mixture_are_left_alone(objective):
    """No gradient passes through the choice of a component: what passes through the density alone is wrong."""
    flow = Mixture([_normal(-1.0), _normal(2.0, 0.5)], [0.3, 0.7])
    slopes = slopes_of(objective, flow)
    np.testing.assert_array_equal(slopes.logits, 0.0)
    assert np.any(np.asarray(jax.tree.leaves(slopes.components)[0]) != 0)
    slopes = slopes_of(ForwardKL(np.array([[2.0], [2.1]])), flow)
    assert slopes.logits[0] > 0 > slopes.logits[1]


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0, -0.5])
def test_renyi_bounds_of_gaussians(alpha):
    """N(0, 1) against N(m, 1): log Z - alpha m^2 / 2."""
    loss, error = _estimates(Renyi(TARGET, alpha, 20_000), _normal(), 20)
    bound = LOG_Z - 0.5 * alpha * SHIFT**2
    assert abs((loss if alpha < 0 else -loss) - bound) < 5 * error + 1e-4


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6])
def test_renyi_meets_the_elbo_in_single_precision(distance):
    """By what it differs, alpha near 1, half the variance of the log weights tells: rounding is not divided by it."""
    log_w = np.random.default_rng(0).normal(100.0, 2.0, 128).astype(np.float32)
    bound = log_w.mean() + _log_mean_exp(jnp.asarray(distance * (log_w - log_w.mean()))) / distance
    assert bound.dtype == jnp.float32
    assert float(bound) == pytest.approx(log_w.mean() + 0.5 * distance * log_w.var(), abs=1e-4)


def test_forward_kl_is_the_weighted_mean_score():
    rng = np.random.default_rng(0)
    points, weights = rng.standard_normal((200, 2)), rng.exponential(1.0, 200)
    flow = Transformed(StandardNormal((2,)), TriangularAffine(np.array([0.3, -1.0]), np.array([[1.2, 0], [0.5, 0.7]])))
    tril: np.ndarray = np.array([[1.2, 0], [0.5, 0.7]])
    log_q = stats.multivariate_normal([0.3, -1.0], tril @ tril.T).logpdf(points)
    log_weights = np.log(weights)
    log_weights[3] = -np.inf
    weights[3] = 0
    expected = (weights * log_q).sum() / weights.sum()
    loss, aux = value_of(ForwardKL(points, log_weights + 1000), flow, jax.random.key(0))
    np.testing.assert_allclose([-loss, aux["elbo"]], expected, rtol=1e-10)
    mean, error = _estimates(ForwardKL(points, log_weights, batch_size=50), flow, 400)
    assert abs(-mean - expected) < 5 * error
    loss, _ = value_of(ForwardKL(points), flow, jax.random.key(0), (jnp.asarray(points[:7]), None))
    np.testing.assert_allclose(-loss, log_q[:7].mean(), rtol=1e-10)


def test_a_minibatch_of_forward_kl_takes_no_room_for_all_rows():
    """It takes 100 of 50,000 weighted draws: a number or two for each draw, not one for each draw and row."""
    rng = np.random.default_rng(0)
    objective = ForwardKL(rng.standard_normal((50_000, 2)), rng.standard_normal(50_000), batch_size=100)
    step = jax.jit(lambda key: objective(StandardNormal((2,)), key)[0]).lower(jax.random.key(0)).compile()
    assert step.memory_analysis().temp_size_in_bytes < 3 * 8 * 50_000


def test_forward_kl_fits_a_conditional_regression():
    """X given c is N(2 c - 1, 0.5^2): the fit finds slope, shift and scale."""
    rng = np.random.default_rng(1)
    context = rng.standard_normal((2000, 1))
    points = 2 * context - 1 + 0.5 * rng.standard_normal((2000, 1))
    layer = Coupling(1, AffineMap(), context_size=1, depth=0)
    process = Fit(ForwardKL(points, context=context, batch_size=200), learning_rate=0.05, chunk=100)
    q = run(process, process.init(Transformed(StandardNormal((1,)), layer)), jax.random.key(0), steps=600).state.model
    at = jnp.asarray([[-1.0], [0.0], [2.0]])
    draws = np.asarray(eqx.filter_jit(q.sample)(0, 4000, at))[:, :, 0]
    np.testing.assert_allclose(draws.mean(0), [-3, -1, 3], atol=0.1)
    np.testing.assert_allclose(draws.std(0), 0.5, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((3, 1)), np.zeros(2)), r"`log_weights` must have shape \(3,\), got \(2,\)"),
        ((np.full((3, 1), np.nan),), "`points` must be finite, got 3 that are not"),
        ((np.ones((3, 1)), np.full(3, -np.inf)), "`log_weights` must hold a finite number"),
        ((np.ones((3, 1)), None, np.ones((2, 1))), "`context` must have 3 rows"),
        ((np.zeros((0, 2)),), "`points` must have at least one row"),
    ],
)
def test_wrong_draws(arguments, message):
    with pytest.raises(ValueError, match=message):
        ForwardKL(*arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReverseKL(TARGET, 0), "`n_draws` must be"),
        (lambda: ReverseKL(TARGET, annealing=Annealing(on="kl")), '`annealing` must be on "joint" for a target'),
        (lambda: Renyi(TARGET, float("inf")), "`alpha` must be a finite number, got inf"),
        (lambda: Renyi(TARGET, 0.5, batch_size=0), "`batch_size` must be"),
        (lambda: ImportanceWeighted(TARGET, batch_size=-1), "`batch_size` must be"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def _conjugate():
    y = np.array([0.5, 1.5, -0.3])
    return tw.from_likelihood(
        lambda p: norm.logpdf(p["m"]), lambda p, data: norm.logpdf(data["y"], p["m"], 1.0), {"m": tw.real()}, {"y": y}
    )


@pytest.mark.parametrize("path", [True, False])
def test_annealing_multiplies_what_it_says(path):
    target, key, flow = _conjugate(), jax.random.key(3), _normal(0.2, 0.8)
    u, log_q = (np.asarray(a) for a in flow.sample_and_log_q(jax.random.split(key, 64)))
    prior = stats.norm.logpdf(u[:, 0])
    likelihood = stats.norm.logpdf(np.asarray(target.data["y"])[None], u, 1.0).sum(1)
    for step, beta in ((0, 0.1), (40, 0.5), (1000, 1.0)):
        joint, kl = (
            value_of(
                ReverseKL(target, 64, path=path, annealing=Annealing(100, 0.1, on)).at(jnp.asarray(step)), flow, key
            )
            for on in ("joint", "kl")
        )
        np.testing.assert_allclose(joint[0], (log_q - beta * (prior + likelihood)).mean(), rtol=1e-9)
        np.testing.assert_allclose(joint[1]["elbo"], (prior + likelihood - log_q).mean(), rtol=1e-9)
        np.testing.assert_allclose(kl[0], (beta * (log_q - prior) - likelihood).mean(), rtol=1e-9)


@pytest.mark.parametrize("on", ["joint", "kl"])
def test_an_annealed_fit_ends_at_the_posterior(on):
    target = _conjugate()
    objective = ReverseKL(target, 64, annealing=Annealing(100, 0.01, on))
    process = Fit(objective, learning_rate=0.05, window=None)
    q = run(process, process.init(_normal(3.0)), jax.random.key(0), steps=600).state.model
    sd = 1 / np.sqrt(4)
    np.testing.assert_allclose(q.bijection.loc[0], np.asarray(target.data["y"]).sum() / 4, atol=0.02)
    np.testing.assert_allclose(np.exp(q.bijection.log_scale[0]), sd, rtol=0.03)


@pytest.mark.parametrize("on", ["joint", "kl"])
def test_an_annealed_fit_far_from_the_prior_is_not_taken_for_one_that_runs_off(on):
    """The ELBO falls by hundreds of nats while beta grows; closed form: m_i ~ N(3, 1 / 2), y_i ~ N(0, 2)."""
    y = np.full(20, 6.0)
    target = tw.from_likelihood(
        lambda p: norm.logpdf(p["m"]).sum(),
        lambda p, data: norm.logpdf(data["y"], p["m"], 1.0),
        {"m": tw.real(20)},
        {"y": y},
    )
    process = Fit(ReverseKL(target, 64, annealing=Annealing(2000, 0.01, on)), learning_rate=0.05)
    fitted = run(process, process.init(tw.make_flow("gaussian", 20)), jax.random.key(0), steps=3000)
    assert fitted.status.ok
    assert int(fitted.state.n_rollbacks) == 0
    assert int(fitted.state.cooling[0]) >= process.objective.steps_of_change == 1980
    u = np.asarray(fitted.state.model.sample(1, 20_000))
    np.testing.assert_allclose(u.mean(0), 3.0, atol=0.05)
    np.testing.assert_allclose(u.std(0), np.sqrt(0.5), rtol=0.05)
    np.testing.assert_allclose(fitted.history["elbo"][-50:].mean(), stats.norm.logpdf(y, 0, np.sqrt(2)).sum(), atol=0.1)


def test_a_sum_is_that_of_its_parts_in_value_and_gradient():
    """KL(q | p) - log Z, and the cross entropy from a point mass at 2, in closed form."""
    both = Sum((ReverseKL(TARGET, 4096), ForwardKL(np.full((1, 1), 2.0))), (1.0, 0.5))
    flow, key = _normal(0.3), jax.random.key(0)
    loss, told = value_of(both, flow, key)
    kl, cross = 0.5 * (0.3 - SHIFT) ** 2, -stats.norm.logpdf(2.0, 0.3)
    assert float(loss) == pytest.approx(kl - LOG_Z + 0.5 * cross, abs=0.05)
    assert float(told["elbo"]) == pytest.approx(LOG_Z - kl, abs=0.05)
    slope = slopes_of(both, flow).bijection.loc
    assert float(slope[0]) == pytest.approx((0.3 - SHIFT) - 0.5 * (2.0 - 0.3), abs=0.1)
    assert both.evaluations == ReverseKL(TARGET, 4096).evaluations > 0
    with pytest.raises(ValueError, match="`shares` must be one for each of the 2 objectives"):
        Sum(both.objectives, (1.0,))


def test_a_sum_with_an_annealed_part_changes_as_long_as_that_does():
    both = Sum((ReverseKL(TARGET, 8, annealing=Annealing(30)), ForwardKL(np.zeros((1, 1)))), (1.0, 1.0))
    assert both.steps_of_change == both.objectives[0].steps_of_change > 0
    assert both.at(jnp.asarray(0))(_normal(), jax.random.key(0))[0] != both(_normal(), jax.random.key(0))[0]
