"""The whole procedure on data simulated from the model: right ones pass, wrong ones are told of, nothing is lost."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

import thalweg as tw
from helpers import count_compiles
from thalweg.posterior import Posterior
from thalweg.targets import Simulator

numpyro = pytest.importorskip("numpyro")
dist = numpyro.distributions

X = np.linspace(-1.0, 1.0, 8)
KEY = jax.random.key(3)


def line(x, y=None):
    a = numpyro.sample("a", dist.Normal(0.5, 1.5))
    b = numpyro.sample("b", dist.Normal(-1, 2))
    numpyro.deterministic("at_two", a + 2 * b)
    numpyro.sample("obs", dist.Normal(a + b * x, 0.7), obs=y)


def series(y):
    phi = numpyro.sample("phi", dist.Uniform(-1, 1))
    numpyro.sample("rest", dist.Normal(phi * y[:-1], 1), obs=y[1:])


def autoregression(y):
    phi = numpyro.sample("phi", dist.Uniform(-1, 1))
    numpyro.sample("y", dist.Normal(phi * jnp.roll(y, 1), 1), obs=y)


def factored(y):
    mu = numpyro.sample("mu", dist.Normal())
    numpyro.factor("more", -(mu**4))
    numpyro.sample("y", dist.Normal(mu, 1), obs=y)


def log_density(params, data):
    return norm.logpdf(params["mu"], 0, 1) + norm.logpdf(data["y"], params["mu"], 1).sum()


def simulate(key, data):
    mu_key, y_key = jax.random.split(key)
    mu = jax.random.normal(mu_key)
    return {"mu": mu}, {"y": mu + jax.random.normal(y_key, data["y"].shape)}


def overdispersed(key, data):
    params, found = simulate(key, data)
    return params, {"y": params["mu"] + 2 * (found["y"] - params["mu"])}


def shifted(key, data):
    params, found = simulate(key, data)
    return {"mu": params["mu"] + 1}, found


FUNCTION = tw.from_function(log_density, {"mu": tw.real()}, {"y": np.zeros(4)})
LINE = tw.from_numpyro(line, X, np.zeros(8))


def test_a_models_own_draws():
    """Moments of the prior and of the data against the model's closed form."""
    simulator = Simulator.of(LINE)
    drawn = [simulator(k) for k in jax.random.split(KEY, 700)]
    a, b = (np.array([float(params[n]) for params, _ in drawn]) for n in "ab")
    y = np.stack([np.asarray(target.data["y"]) for _, target in drawn])
    assert stats.kstest(a, stats.norm(0.5, 1.5).cdf).pvalue > 1e-3
    assert stats.kstest(b, stats.norm(-1, 2).cdf).pvalue > 1e-3
    assert stats.kstest((y - a[:, None] - b[:, None] * X)[:, 3], stats.norm(0, 0.7).cdf).pvalue > 1e-3
    np.testing.assert_array_equal(drawn[0][1].data["x"], X)


def test_other_data_compile_nothing():
    tw.calibrate(LINE, 3, progress=False)
    with count_compiles() as compiled:
        found = tw.calibrate(LINE, 3, seed=1, progress=False)
    assert compiled.count == 0
    assert list(found.ranks) == ["a", "b", "at_two", "log density"]


@pytest.mark.slow
def test_a_right_procedure_is_calibrated():
    found = tw.calibrate(LINE, 30, seed=1, progress=False)
    assert found.ok
    assert str(found).startswith("Calibrated: the ranks of 4 quantities are even")
    assert found.n_trusted == 30
    for quantity in found.quantities():
        assert stats.kstest(quantity.pit, "uniform").pvalue > 1e-3
        # 30 runs: five standard errors
        assert all(
            abs(held - level) < 5 * np.sqrt(level * (1 - level) / 30) for level, held in quantity.coverage.items()
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "words"),
    [(overdispersed, "posteriors are too narrow"), (shifted, "posteriors are too low")],
)
def test_a_wrong_model_is_told_of(own, words):
    found = tw.calibrate(FUNCTION, 22, "gaussian", simulate=own, progress=False)
    assert not found.ok
    assert str(found).startswith("Not calibrated: the ranks of ")
    assert words in str(found) or "log density" in str(found)
    assert found.p_value < 0.01


def test_too_few_runs_say_nothing():
    found = tw.calibrate(FUNCTION, 3, "gaussian", simulate=simulate, progress=False)
    assert not found.ok
    assert str(found) == "Nothing can be said: 3 of 3 posteriors were trusted, and 20 are needed."


def test_interrupted_and_resumed_to_the_same_ranks(tmp_path, monkeypatch):
    """In the middle of a group of data sets whose Gaussians are fitted at once; the last group is not full."""
    monkeypatch.setattr(sys.modules["thalweg.calibrate"], "_TOGETHER", 2)
    options = {"flow": "gaussian", "seed": 2, "progress": False, "checkpoint": tmp_path / "c.thalweg"}
    whole = tw.calibrate(FUNCTION, 5, simulate=simulate, **{**options, "checkpoint": None})
    resample, calls = Posterior.resample, []

    def stopping(*arguments, **named):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return resample(*arguments, **named)

    monkeypatch.setattr(Posterior, "resample", stopping)
    with pytest.raises(KeyboardInterrupt):
        tw.calibrate(FUNCTION, 5, simulate=simulate, **options)
    resumed = tw.calibrate(FUNCTION, 5, simulate=simulate, resume=True, **options)
    # three were kept
    assert len(calls) - 4 == 5 - 3
    np.testing.assert_array_equal(resumed.ranks["mu"], whole.ranks["mu"])
    np.testing.assert_array_equal(resumed.khat, whole.khat)


def test_data_sets_together_are_as_alone(monkeypatch):
    """One after the other they have other random numbers, and the same posterior."""
    together = tw.calibrate(FUNCTION, 4, seed=2, simulate=simulate, progress=False)
    monkeypatch.setattr(sys.modules["thalweg.calibrate"], "_TOGETHER", 1)
    alone = tw.calibrate(FUNCTION, 4, seed=2, simulate=simulate, progress=False)
    assert together.n_trusted == alone.n_trusted == 4
    # of 1000 draws each, to five standard errors
    np.testing.assert_allclose(together.ranks["mu"], alone.ranks["mu"], atol=5 * np.sqrt(2 * 250))


def test_a_resumed_calibration_must_be_the_same(tmp_path):
    options = {"flow": "gaussian", "seed": 2, "progress": False, "checkpoint": tmp_path / "c.thalweg"}
    tw.calibrate(FUNCTION, 1, simulate=simulate, **options)
    with pytest.raises(ValueError, match="`seed` must be as in the run that is resumed"):
        tw.calibrate(FUNCTION, 1, simulate=simulate, resume=True, **{**options, "seed": 3})


def test_a_budget_ends_it_early():
    found = tw.calibrate(FUNCTION, 500, "gaussian", budget=tw.Evaluations(50_000), simulate=simulate, progress=False)
    assert 1 <= len(found.outcome) < 20
    assert len(found.ranks["mu"]) == len(found.outcome)


@pytest.mark.slow
def test_failed_fits_are_counted():
    def sometimes(key, data):
        params, found = simulate(key, data)
        return params, {"y": jnp.where(params["mu"] > 1, jnp.nan, found["y"])}

    found = tw.calibrate(FUNCTION, 24, "gaussian", simulate=sometimes, progress=False)
    failed = int(np.sum(found.outcome == 0))
    assert 0 < failed < 20
    assert f"{failed} failed" in str(found)
    assert len(found.failures) >= 1
    with pytest.raises(ValueError, match="NaN"):
        tw.calibrate(
            FUNCTION, 3, "gaussian", simulate=lambda k, d: (simulate(k, d)[0], {"y": d["y"] * jnp.nan}), progress=False
        )


@pytest.mark.parametrize(
    ("target", "own", "message"),
    [
        (FUNCTION, None, "`simulate` must be given for a target that cannot draw from its prior"),
        (tw.from_numpyro(factored, X), None, "`simulate` must be given for a target that cannot draw from its prior"),
        (tw.from_numpyro(series, X), None, "`target` must have what is observed as 'rest' among its data arrays"),
        (tw.from_numpyro(autoregression, X), None, "whose observed data are used for something else too"),
        (tw.from_numpyro(line, X, X), None, "among its data arrays, as it is, got several that are equal to it"),
        (tw.from_numpyro(line, X), None, "`simulate` must be given for a target that cannot draw from its likelihood"),
        (FUNCTION, 3, "`simulate` must be a function, got a int"),
        (FUNCTION, lambda key, data: 1, r"`simulate` must return \(parameters by name, data\), got a int"),
        (FUNCTION, lambda key, data: ({"nu": 1.0}, data), "`simulate` must return the parameters {'mu': \\(\\)}, got"),
        (FUNCTION, lambda key, data: ({"mu": 1.0}, {"y": np.zeros(3)}), r"`data\['y'\]` must"),
        (FUNCTION, lambda key, data: 1 / 0, "`simulate` raised ZeroDivisionError"),
        (line, None, "`target` must be a Target, got function"),
    ],
)
def test_messages(target, own, message):
    with pytest.raises(ValueError, match=message):
        tw.calibrate(target, 3, simulate=own, progress=False)


@pytest.mark.slow
def test_pymc():
    pm = pytest.importorskip("pymc")
    with pm.Model() as model:
        mu = pm.Normal("mu", 1, 2)
        sigma = pm.HalfNormal("sigma", 1)
        y = pm.Data("y", np.zeros(6))
        pm.Normal("obs", mu, sigma, observed=y)
    target = tw.from_pymc(model)
    drawn = [Simulator.of(target)(k)[0] for k in jax.random.split(KEY, 300)]
    assert stats.kstest([float(p["mu"]) for p in drawn], stats.norm(1, 2).cdf).pvalue > 1e-3
    assert stats.kstest([float(p["sigma"]) for p in drawn], stats.halfnorm.cdf).pvalue > 1e-3
    found = tw.calibrate(target, 3, progress=False)
    assert list(found.ranks) == ["mu", "sigma", "log density"]
    with model:
        pm.Potential("more", -(mu**4))
    with pytest.raises(ValueError, match="cannot draw from its prior"):
        tw.calibrate(tw.from_pymc(model), 3, progress=False)


def _made(shares, outcome):
    """A calibration of one quantity with these ranks, without the work."""
    n = len(shares)
    ranks = {"mu": (np.asarray(shares) * 1000).astype(int)}
    return tw.Calibration(
        "made", ranks, 1000, np.full(n, outcome), np.zeros(n), ("one sentence",), {"seconds": 3.0}, {}
    )


def test_sentences():
    rng = np.random.default_rng(0)
    assert str(_made(rng.random(100), 2)).startswith("Calibrated: the ranks of the quantity are even (p = ")
    for shares, words in (
        (rng.beta(0.4, 0.4, 100), "its posteriors are too narrow"),
        (rng.beta(3, 3, 100), "its posteriors are too wide"),
        (rng.beta(2, 1, 100), "its posteriors are too low"),
        (rng.beta(1, 2, 100), "its posteriors are too high"),
    ):
        found = _made(shares, 2)
        assert not found.ok
        assert words in str(found)
    refused = _made(rng.random(100), 1)
    assert str(refused) == "Nothing can be said: 0 of 100 posteriors were trusted, 100 refused, and 20 are needed."
    assert len(refused.quantities(trusted=False)[0].pit) == 100


def test_the_report(tmp_path):
    found = _made(np.random.default_rng(0).random(50), 2)
    page = tw.report(found, tmp_path / "report.html").read_text()
    # ranks, coverage, and the verdict's sign
    assert page.count("<svg") == 3
    assert "Thalweg calibration report" in page
    assert re.search(r"<th [^>]*>mu</th>", page)
    assert "http" not in re.sub(r"http://www.w3.org[^\"]*", "", page)
    few = _made([0.5, 0.2], 2)
    assert "Nothing can be said" in tw.report(few, tmp_path / "few.html").read_text()


def test_the_command(tmp_path):
    model = tmp_path / "model.py"
    model.write_text(
        "import jax, jax.numpy as jnp, thalweg as tw\n"
        "from jax.scipy.stats import norm\n"
        "supports = {'mu': tw.real()}\n"
        "def log_density(params, data):\n"
        "    return norm.logpdf(params['mu']) + norm.logpdf(data['y'], params['mu']).sum()\n"
        "def simulate(key, data):\n"
        "    a, b = jax.random.split(key)\n"
        "    mu = jax.random.normal(a)\n"
        "    return {'mu': mu}, {'y': mu + jax.random.normal(b, data['y'].shape)}\n"
    )
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"y": [0.1, 0.2, 0.3]}))
    command = [
        str(Path(sys.executable).parent / "thalweg"),
        "calibrate",
        model,
        "--data",
        data,
        "--out",
        tmp_path / "out",
    ]
    done = subprocess.run([*map(str, command), "-n", "2"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 3, done.stderr
    assert "Nothing can be said: 2 of 2 posteriors were trusted" in " ".join(done.stdout.split())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["calibration.json", "report.html"]
    kept = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert kept["ok"] is False
    assert len(kept["ranks"]["mu"]) == 2
