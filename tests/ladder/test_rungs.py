"""Each rung by itself, against closed forms; which are climbed, and what is said of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from jax.scipy.stats import t as student

import thalweg as tw
from helpers import count_compiles
from thalweg import problems
from thalweg.distributions import Mixture
from thalweg.flows import make_flow
from thalweg.infer import checked_settings
from thalweg.ladder import Budget, Climb, _ascent
from thalweg.ladder._ascent import Ascent
from thalweg.ladder._fits import fit_gaussians
from thalweg.ladder._powers import Powers
from thalweg.ladder._rungs import (
    RUNGS,
    BestGaussian,
    Chains,
    Flow,
    FlowEachMode,
    GaussianAgain,
    GaussianEachMode,
    HeavyTails,
    NonCentred,
    Particles,
    Refit,
)
from thalweg.posterior import WeighedDraws
from thalweg.run import Limit, Progress
from thalweg.targets import find_start

KEY = jax.random.key(0)


@functools.cache
def fitted(make, *args):
    """A target with its Gaussians, fitted once."""
    target = make(*args)
    budget = Budget(Limit.of(None), Progress(show=False), None)
    return target, *fit_gaussians(target, find_start(target, 0), jax.random.key(1), budget)


def ascent(make, *args, **numbers):
    """After the Gaussians have been fitted."""
    target, modes, gaussian = fitted(make, *args)
    budget = Budget(Limit.of(None), Progress(show=False), None)
    settings = checked_settings(target, "auto", dtype="float64", **numbers)
    made = Ascent(target, settings, budget, None, jax.random.key(2), modes, gaussian)
    made.say(gaussian.sentence)
    return made


@functools.cache
def normal():
    return tw.from_function(lambda p: norm.logpdf(p["x"], 1.0, 2.0).sum(), {"x": tw.real(2)})


@functools.cache
def bent():
    """N(0, 1) and N(x^2, 0.5)."""

    def log_density(p):
        x, y = p["x"]
        return norm.logpdf(x) + norm.logpdf(y, x**2, 0.5)

    return tw.from_function(log_density, {"x": tw.real(2)})


@functools.cache
def two_normals():
    """.8 N(-5, 1) + .2 N(5, 1), in a plane."""

    def log_density(p):
        left, right = (norm.logpdf(p["x"], m, 1.0).sum() for m in (-5.0, 5.0))
        return jnp.logaddexp(jnp.log(0.8) + left, jnp.log(0.2) + right)

    return tw.from_function(log_density, {"x": tw.real(2)})


@functools.cache
def two_bent():
    """`bent` twice, mirrored and moved apart."""

    def log_density(p):
        x, y = p["x"]
        up = norm.logpdf(x) + norm.logpdf(y - 8, x**2, 0.5)
        down = norm.logpdf(x) + norm.logpdf(-y - 8, x**2, 0.5)
        return jnp.logaddexp(jnp.log(0.6) + up, jnp.log(0.4) + down)

    return tw.from_function(log_density, {"x": tw.real(2)})


def three_normals():
    """.5, .3, .2 of unit normals in a plane, 10 apart."""

    def log_density(p):
        each = [norm.logpdf(p["x"], jnp.asarray(m), 1.0).sum() for m in ((0.0, 0.0), (10.0, 0.0), (0.0, 10.0))]
        return jax.nn.logsumexp(jnp.stack(each) + jnp.log(jnp.asarray([0.5, 0.3, 0.2])))

    return tw.from_function(log_density, {"x": tw.real(2)})


def ridge(sd):
    """N(0, sd^2) and N(x^2, 0.3): so sharp that Gaussians along it lie apart."""

    def log_density(p):
        x, y = p["x"]
        return norm.logpdf(x, 0, sd) + norm.logpdf(y, x**2, 0.3)

    return tw.from_function(log_density, {"x": tw.real(2)})


def is_right(posterior):
    """Trusted, and log Z = 0 within its error."""
    estimate = posterior.log_evidence
    return posterior.verdict.ok and abs(estimate.value) < 4 * estimate.standard_error + 1e-6


def test_few_steps_of_flows_that_compile_long_are_compiled_with_less_effort():
    few, many = ascent(normal), ascent(normal, steps=4000)
    assert few.process("realnvp").quick
    assert not few.process("spline").quick
    assert not many.process("realnvp").quick


def test_what_is_compiled_beforehand_is_what_the_fit_of_the_flow_calls(monkeypatch):
    monkeypatch.setattr(_ascent, "ahead", lambda work: work())
    climb = ascent(bent)
    climb.prepare("realnvp")
    process = climb.process("realnvp")
    start = make_flow("realnvp", 2, **climb.modes.gaussians[0].parameters, seed=jax.random.key(5))
    state, key = process.init(start), jax.random.key(6)
    with count_compiles() as compiles:
        process.advance(state, key, 0, 3)
    assert not compiles.count


def test_a_flow_is_compiled_beforehand_where_a_gaussian_s_weights_ask_for_one(monkeypatch):
    begun = []
    monkeypatch.setattr(_ascent, "ahead", begun.append)
    for make in (normal, bent):
        climb = ascent(make)
        climb.foresee(climb.modes.gaussians[0])
        assert len(begun) == (make is bent)


def test_a_good_gaussian_is_enough_and_a_bad_one_says_what_it_lacks():
    good, bad = ascent(normal), ascent(bent)
    rung = BestGaussian()
    posterior = rung.climb(good, KEY)
    assert posterior is not None
    assert is_right(posterior)
    assert rung.is_enough(posterior)
    assert rung.climb(bad, KEY) is None
    assert "its weights ask for more (k-hat " in bad.steps_taken[-1]


def test_a_flow_bends_what_a_gaussian_cannot():
    climb, rung = ascent(bent), Flow()
    assert rung.is_due(climb)
    posterior = rung.climb(climb, KEY)
    assert is_right(posterior)
    assert rung.is_enough(posterior)
    assert posterior.resample(10_000, seed=0)["x"][:, 1].mean() == pytest.approx(1.0, abs=0.1)
    assert any(s.startswith("flow realnvp: ELBO ") for s in climb.steps_taken)


def test_one_coordinate_gets_a_spline():
    one = tw.from_function(lambda p: norm.logpdf(p["x"]), {"x": tw.real()})
    assert ascent(lambda: one).richer == "spline"


def counts(d):
    """Counts with a log-normal mean each, in turned coordinates: (target, log evidence, means, sds), by quadrature."""
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    y = rng.poisson(np.exp(rng.standard_normal(d))).astype(float)

    def log_density(p, data):
        x = data["turn"] @ p["z"]
        return norm.logpdf(x).sum() + (data["y"] * x - jnp.exp(x)).sum()

    x = np.linspace(-8, 6, 4001)
    density = np.exp(-0.5 * x**2 + y[:, None] * x - np.exp(x)) / np.sqrt(2 * np.pi)
    mass = density.sum(1) * (x[1] - x[0])
    mean, square = ((density * x**k).sum(1) * (x[1] - x[0]) / mass for k in (1, 2))
    target = tw.from_function(log_density, {"z": tw.real(d)}, {"turn": turn, "y": y})
    return target, np.log(mass).sum(), mean, np.sqrt(square - mean**2)


@pytest.mark.slow
def test_many_coordinates():
    """Sketches of the Gaussian, and the chains that go on from it, are right where d^2 draws would be too many."""
    target, log_evidence, mean, sd = counts(150)
    posterior = tw.infer(target, seed=0, progress=False)
    assert posterior.verdict.ok
    assert "one fit" in posterior.steps_taken[0]
    np.testing.assert_allclose(posterior.log_evidence.value, log_evidence, atol=0.1)
    x = posterior.resample(10_000, seed=0)["z"] @ np.asarray(target.data["turn"]).T
    np.testing.assert_allclose((x.mean(0) - mean) / sd, 0, atol=0.1)
    np.testing.assert_allclose(x.std(0) / sd, 1, atol=0.1)


def test_of_too_many_coordinates_chains_go_on_from_the_gaussian(monkeypatch):
    climb, rung = ascent(lambda: counts(120)[0]), Chains(BestGaussian, Flow)
    alone = climb.finish(climb.best_gaussian())
    climb.found["Gaussian"] = dataclasses.replace(alone, verdict=dataclasses.replace(alone.verdict, ok=False))
    monkeypatch.setattr(Flow, "most", 119)
    assert not Flow().is_due(climb)
    assert rung.is_due(climb)
    assert Flow().is_due(ascent(bent))


def test_chains_go_on_from_a_flow_that_is_not_trusted():
    """A flow fitted for a moment, which for the test's sake is not believed."""
    climb, rung = ascent(bent, steps=40), Chains(Flow)
    assert not rung.is_due(climb)
    flow = Flow().climb(climb, KEY)
    climb.found["flow"] = dataclasses.replace(flow, verdict=dataclasses.replace(flow.verdict, ok=False))
    assert rung.is_due(climb)
    posterior = rung.climb(climb, KEY)
    assert posterior is not None
    assert posterior.verdict.rhat is not None
    assert is_right(posterior)
    assert "Hamiltonian Monte Carlo" in climb.steps_taken[-1]


def test_each_mode_gets_a_gaussian_of_its_weight():
    climb, rung = ascent(two_normals), GaussianEachMode()
    assert climb.has_modes
    assert not any(r.is_due(climb) for r in (BestGaussian(), Flow(), GaussianAgain()))
    assert rung.is_due(climb)
    posterior = rung.climb(climb, KEY)
    assert is_right(posterior)
    assert rung.is_enough(posterior)
    assert isinstance(posterior.flow, Mixture)
    weights = np.asarray(posterior.flow.weights)
    assert sorted(weights) == pytest.approx([0.2, 0.8], abs=0.03)
    assert not rung.is_due(ascent(normal))


def test_the_modes_are_reported_with_their_shares(tmp_path):
    posterior = tw.infer(three_normals(), progress=False)
    assert is_right(posterior)
    assert len(posterior.modes) == 3
    for mode, share, place in zip(posterior.modes, (0.5, 0.3, 0.2), ((0, 0), (10, 0), (0, 10)), strict=True):
        assert abs(mode.share.value - share) < 4 * mode.share.standard_error
        named, numbers = mode.near.split("=")
        assert named == "x"
        assert [float(v) for v in numbers.strip("[]").split(",")] == pytest.approx(place, abs=0.2)
        assert str(mode).endswith(f"near {mode.near}")
    assert tw.load(posterior.save(tmp_path / "a.thalweg")).modes == posterior.modes
    assert str(posterior.modes[2]) in tw.report(posterior, tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_a_ridge_that_several_gaussians_follow_is_no_modes():
    climb = ascent(ridge, 3)
    assert climb.modes.far
    assert not climb.has_modes
    assert Flow().is_due(climb)
    assert ascent(two_bent).has_modes


def test_each_mode_gets_a_flow_where_they_are_few():
    climb, rung = ascent(two_bent, steps=300), FlowEachMode()
    assert not GaussianEachMode().is_enough(GaussianEachMode().climb(climb, KEY))
    assert rung.is_due(climb)
    posterior = rung.climb(climb, KEY)
    assert is_right(posterior)
    y = posterior.resample(10_000, seed=0)["x"][:, 1]
    assert (y > 0).mean() == pytest.approx(0.6, abs=0.03)
    assert f"a mixture of {len(climb.modes.elbo)} flows realnvp" in climb.steps_taken[-1]


@pytest.mark.slow
def test_a_flow_is_refitted_over_what_it_left_out():
    climb, rung = ascent(ridge, 2, steps=300), Refit(Flow)
    assert not rung.is_due(climb)
    flow = Flow().climb(climb, KEY)
    assert not flow.verdict.ok
    climb.found["flow"] = flow
    assert rung.is_due(climb)
    refitted = rung.climb(climb, KEY)
    assert "2,000 particles followed the log density" in climb.steps_taken[-1]
    # what the flow's own weights lacked is there
    assert refitted.verdict.ess > 2 * flow.verdict.ess
    assert abs(refitted.log_evidence.value) < 4 * refitted.log_evidence.standard_error
    climb.found["refit"] = refitted
    assert is_right(Chains(Flow, Refit).climb(climb, KEY))


@pytest.mark.slow
def test_one_flow_learns_from_particles():
    """Eight modes, which separate: log Z is known by quadrature."""
    problem, rung = problems.many_well(6), Particles()
    climb = ascent(lambda: problem.target)
    assert rung.is_due(climb)
    posterior = rung.climb(climb, KEY)
    assert posterior.verdict.ok
    assert abs(posterior.log_evidence.value - problem.log_evidence) < 4 * posterior.log_evidence.standard_error
    # each of the three pairs of wells has .843 of its mass in the upper one
    x = posterior.resample(20_000, seed=1)["x"]
    exact = problem.draw(np.random.default_rng(1), 100_000)
    np.testing.assert_allclose((x > 0).mean(0), (exact > 0).mean(0), atol=0.03)
    assert not rung.is_due(ascent(normal))


def test_a_flow_that_went_astray_gives_way_to_the_gaussian():
    """One step at a rate of a million."""
    posterior = tw.infer(normal(), progress=False)
    assert len(posterior.steps_taken) == 1
    climb = ascent(normal, steps=1, learning_rate=1e6)
    climb.found["flow"] = Flow().climb(climb, KEY)
    assert not climb.found["flow"].verdict.ok
    rung = GaussianAgain()
    assert rung.is_due(climb)
    assert is_right(rung.climb(climb, KEY))
    assert "weighed again" in climb.steps_taken[-1]


def test_the_best_is_a_trusted_one_then_one_with_all_modes_then_that_of_the_most_effective_draws():
    climb = ascent(normal)
    assert climb.best() is None
    one = BestGaussian().climb(climb, KEY)
    for name, ok, ess in (("poor", False, 300.0), ("trusted", True, 400.0), ("even", False, 900.0)):
        climb.found[name] = dataclasses.replace(one, verdict=dataclasses.replace(one.verdict, ok=ok, ess=ess))
    assert climb.best() is climb.found["trusted"]
    assert climb.best({"poor", "even"}) is climb.found["even"]
    assert climb.best({"chains"}) is None
    blind = dataclasses.replace(one.verdict, ok=False, ess=9000.0, missed_mode="another start ended in another mode")
    climb.found["blind"] = dataclasses.replace(one, verdict=blind)
    assert climb.best({"poor", "blind"}) is climb.found["poor"]


def test_without_a_rung_what_the_others_found_is_left():
    target = bent()
    settings = checked_settings(target, "auto", dtype="float64", steps=5)
    budget = Budget(Limit.of(None), Progress(show=False), None)
    rungs = tuple(r for r in RUNGS if isinstance(r, BestGaussian | Flow))
    posterior = Climb(target, settings, KEY, budget, None, rungs).run("auto", find_start(target, 0))
    assert not posterior.verdict.ok
    assert "not trusted: " in posterior.steps_taken[-1]
    alone = Climb(target, settings, KEY, budget, None, ()).run("auto", find_start(target, 0))
    assert len(alone.steps_taken) == 1
    assert not alone.verdict.ok


def test_a_rung_draws_the_same_whatever_other_rungs_there_are():
    target = normal()
    settings = checked_settings(target, "auto", dtype="float64", steps=5)

    def elbo_of(*rungs):
        budget = Budget(Limit.of(None), Progress(show=False), None)
        return Climb(target, settings, KEY, budget, None, rungs).run("auto", find_start(target, 0)).trace["elbo"]

    class Idle(Flow):
        name = "idle"

        def climb(self, _ascent, _key):
            return None

    np.testing.assert_array_equal(elbo_of(Flow()), elbo_of(Idle(), Flow()))


def groups(n_each, y):
    """Ten groups about a common middle; NumPyro knows what each is drawn around."""
    numpyro = pytest.importorskip("numpyro")
    dist = numpyro.distributions

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        tau = numpyro.sample("tau", dist.LogNormal(0, 1))
        theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([10]).to_event(1))
        numpyro.sample("y", dist.Normal(theta, 1 / np.sqrt(n_each)).to_event(1), obs=y)

    return tw.from_numpyro(model, y)


def test_where_data_say_little_the_gaussian_is_non_centred_and_the_rungs_go_on_from_there():
    y = np.zeros(10)
    climb, rung = ascent(lambda: groups(0.2, y)), NonCentred()
    before = climb.target
    assert rung.is_due(climb)
    posterior = rung.climb(climb, KEY)
    assert climb.target is not before
    assert climb.target.space.noncentred
    assert climb.steps_taken[-1].startswith("non-centred Gaussian: ELBO ")
    assert not rung.is_due(climb)
    assert posterior is not None
    assert posterior.verdict.ok


def test_where_data_say_much_it_stays_as_it_is():
    y = np.random.default_rng(0).normal(0, 1, 10)
    climb = ascent(lambda: groups(100.0, y))
    before = climb.target
    assert NonCentred().climb(climb, KEY) is None
    assert climb.target is before
    assert "non-centred it is not better (ELBO " in climb.steps_taken[-1]


def test_a_model_that_tells_nothing_of_its_groups_is_not_non_centred():
    assert not NonCentred().is_due(ascent(bent))


@pytest.mark.parametrize(("even", "dear", "fits"), [(True, 50, 1), (False, 50, 2), (False, 1, 1)])
def test_a_flow_goes_further_unless_its_weights_are_all_but_even_or_fair_where_steps_are_dear(
    monkeypatch, even, dear, fits
):
    climb = ascent(bent)
    monkeypatch.setattr(WeighedDraws, "are_even", even)
    monkeypatch.setattr(_ascent, "_DEAR", dear)
    before = len(climb.steps_taken)
    assert Flow().climb(climb, KEY).verdict.ok
    assert len(climb.steps_taken) - before == fits


def test_heavy_tails_that_make_no_better_weights_are_not_fitted():
    """Eight degrees of freedom in one of two coordinates, where the Gaussian's weights are nearly even already."""
    target = tw.from_function(
        lambda p: student.logpdf(p["x"], 8.0) + norm.logpdf(p["y"]), {"x": tw.real(), "y": tw.real()}
    )
    made = ascent(lambda: target)
    gaussian = made.modes.gaussians[0]
    assert abs(Powers.of(target, gaussian, np.random.default_rng(0)).degrees().min() - 8) < 0.5
    assert HeavyTails().climb(made, KEY) is None
    assert len(made.steps_taken) == 1


@functools.cache
def many_governed():
    """v ~ N(0, 1), 119 coordinates ~ N(0, e^(0.6 v)); the evidence is 1."""

    def log_density(p):
        return norm.logpdf(p["v"]) + norm.logpdf(p["x"], 0.0, jnp.exp(0.6 * p["v"])).sum()

    return tw.from_function(log_density, {"v": tw.real(), "x": tw.real(119)})


@pytest.mark.slow
def test_of_many_coordinates_those_that_govern_others_move_them():
    climb = ascent(many_governed)
    climb.found["Gaussian"] = BestGaussian().climb(climb, KEY)
    assert not climb.found["Gaussian"].verdict.ok
    rung = Flow()
    assert rung.is_due(climb)
    posterior = rung.climb(climb, KEY)
    assert "Gaussian" not in climb.found
    assert posterior.verdict.ok
    assert abs(posterior.log_evidence.value) < 0.03
    draws = posterior.resample(10_000, seed=1)
    assert abs(draws["v"].mean()) < 0.1
    assert draws["v"].std() == pytest.approx(1, abs=0.1)
    assert not Refit(Flow).is_due(climb)
