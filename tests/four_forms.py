"""Three posteriors of posteriordb written four times: as functions (posteriordb_models), in NumPyro, PyMC and Stan."""

import importlib
import json
from pathlib import Path

import jax
import numpy as np

import thalweg as tw
from posteriordb_models import RECORDS, as_params, make

SCHOOLS = "eight_schools-eight_schools_noncentered"
KIDS = "kidiq-kidscore_momiq"
RADON = "radon_mn-radon_hierarchical_intercept_centered"
NAMES = (SCHOOLS, KIDS, RADON)
FORMS = ("function", "numpyro", "pymc", "stan")

STAN = {
    SCHOOLS: """
data {
  int<lower=0> J;
  array[J] real y;
  array[J] real<lower=0> sigma;
}
parameters {
  vector[J] theta;
  real mu;
  real<lower=0> tau;
}
transformed parameters {
  matrix[2, J] both;
  both[1] = theta';
  both[2] = mu + linspaced_row_vector(J, 1, J) * tau;
}
model {
  if (mu > 1e6) reject("mu is too large");
  if (y[1] > 1e6) target += theta[J + 1];
  mu ~ normal(0, 5);
  tau ~ cauchy(0, 5);
  theta ~ normal(mu, tau);
  y ~ normal(theta, sigma);
}
generated quantities {
  vector[J] log_lik;
  array[J] real y_rep = normal_rng(theta, sigma);
  for (j in 1:J) log_lik[j] = normal_lpdf(y[j] | theta[j], sigma[j]);
}
""",
    KIDS: """
data {
  int N;
  vector[N] kid_score;
  vector[N] mom_iq;
}
parameters {
  vector[2] beta;
  real<lower=0> sigma;
}
model {
  sigma ~ cauchy(0, 2.5);
  kid_score ~ normal(beta[1] + beta[2] * mom_iq, sigma);
}
""",
    RADON: """
data {
  int N;
  int J;
  array[N] int county_idx;
  vector[N] log_uppm;
  vector[N] floor_measure;
  vector[N] log_radon;
}
parameters {
  vector[J] alpha;
  vector[2] beta;
  real mu_alpha;
  real<lower=0> sigma_alpha;
  real<lower=0> sigma_y;
}
model {
  sigma_alpha ~ normal(0, 1);
  sigma_y ~ normal(0, 1);
  mu_alpha ~ normal(0, 10);
  beta ~ normal(0, 10);
  alpha ~ normal(mu_alpha, sigma_alpha);
  log_radon ~ normal(alpha[county_idx] + beta[1] * log_uppm + beta[2] * floor_measure, sigma_y);
}
""",
}


def data_of(name):
    """The posterior's data, as they are written."""
    data = RECORDS[name]["data"]
    if data is None:
        data = json.loads((Path(__file__).parents[1] / "examples" / "radon" / "data.json").read_text())
    return {k: np.asarray(v) for k, v in data.items()}


def _numpyro(name, d):
    numpyro = importlib.import_module("numpyro")
    dist = numpyro.distributions

    def schools(sigma, y):
        mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
        with numpyro.plate("school", len(y)):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("y", dist.Normal(theta, sigma), obs=y)

    def kids(x, y):
        # a prior so wide that it is flat, up to a constant
        beta = numpyro.sample("beta", dist.Normal(0, 1e8).expand([2]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
        numpyro.sample("y", dist.Normal(beta[0] + beta[1] * x, sigma), obs=y)

    def radon(county, x, floor, y):
        scale, noise = numpyro.sample("sigma_alpha", dist.HalfNormal(1)), numpyro.sample("sigma_y", dist.HalfNormal(1))
        mean = numpyro.sample("mu_alpha", dist.Normal(0, 10))
        beta = numpyro.sample("beta", dist.Normal(0, 10).expand([2]).to_event(1))
        alpha = numpyro.sample("alpha", dist.Normal(mean, scale).expand([85]).to_event(1))
        numpyro.sample("y", dist.Normal(alpha[county] + beta[0] * x + beta[1] * floor, noise), obs=y)

    if name == SCHOOLS:
        return tw.from_numpyro(schools, d["sigma"], d["y"])
    if name == KIDS:
        return tw.from_numpyro(kids, d["mom_iq"], d["kid_score"])
    return tw.from_numpyro(radon, d["county_idx"] - 1, d["log_uppm"], d["floor_measure"], d["log_radon"])


def pymc_model(name, d):
    """The `pm.Model`."""
    pm = importlib.import_module("pymc")
    with pm.Model(coords={"school": list("ABCDEFGH")}) as model:
        if name == SCHOOLS:
            y, sigma = pm.Data("y_seen", d["y"] + 0.0), pm.Data("sigma", d["sigma"] + 0.0)
            mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
            theta = pm.Normal("theta", mu, tau, dims="school")
            pm.Deterministic("variance", tau**2)
            pm.Normal("y", theta, sigma, observed=y, dims="school")
        elif name == KIDS:
            beta, sigma = pm.Flat("beta", shape=2), pm.HalfCauchy("sigma", 2.5)
            pm.Normal("y", beta[0] + beta[1] * d["mom_iq"], sigma, observed=d["kid_score"])
        else:
            scale, noise = pm.HalfNormal("sigma_alpha", 1), pm.HalfNormal("sigma_y", 1)
            mean, beta = pm.Normal("mu_alpha", 0, 10), pm.Normal("beta", 0, 10, shape=2)
            alpha = pm.Normal("alpha", mean, scale, shape=85)
            county = pm.Data("county", d["county_idx"] - 1)
            at = alpha[county] + beta[0] * d["log_uppm"] + beta[1] * d["floor_measure"]
            pm.Normal("y", at, noise, observed=d["log_radon"])
    return model


def make_form(name, form):
    """The target of one posterior in one form."""
    data = data_of(name)
    match form:
        case "function":
            return make(name)
        case "numpyro":
            return _numpyro(name, data)
        case "pymc":
            return tw.from_pymc(pymc_model(name, data))
        case "stan":
            sizes = {SCHOOLS: {}, KIDS: {"N": 434}, RADON: {"N": 919, "J": 85}}
            return tw.from_stan(STAN[name], {**sizes[name], **data})
    raise ValueError(form)


def check_form(name, form):
    """Against posteriordb's values at reference draws, and the function form's gradient at them."""
    record, target, function = RECORDS[name], make_form(name, form), make_form(name, "function")
    value = jax.jit(lambda u: (target.log_density(u), jax.grad(target.log_density)(u), *target.constrain(u)))
    truth = jax.jit(jax.grad(function.log_density))
    offsets = []
    for i in range(3):
        params = as_params(name, record["points"][i])
        u = target.unconstrain(params)
        log_p, gradient, back, log_det = value(u)
        offsets.append(float(log_p - log_det) - record["log_joint"][i])
        right = truth(function.unconstrain(params))
        for n, where in target.space.slices.items():
            np.testing.assert_allclose(gradient[where], right[function.space.slices[n]], rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(back[n], params[n], rtol=1e-9)
        joint = jax.jit(target.log_joint)(params, target.data)
        np.testing.assert_allclose(joint, log_p - log_det, rtol=1e-9)
    np.testing.assert_allclose(offsets, offsets[0], atol=1e-6)
    return offsets[0]
