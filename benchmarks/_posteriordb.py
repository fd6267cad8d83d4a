"""The posteriors of posteriordb as log densities, from their definitions in mathematics.

Source: https://github.com/stan-dev/posteriordb at 28f8d3d6, and MODELS.md beside the data.
"""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jax.scipy.stats import beta, cauchy, dirichlet, gamma, norm, t

import thalweg as tw
from benchmarks._record import data_folder


def eight_schools(p, data):
    """Centred: theta in R^8, mu, tau > 0."""
    prior = (
        norm.logpdf(p["mu"], 0, 5) + cauchy.logpdf(p["tau"], 0, 5) + norm.logpdf(p["theta"], p["mu"], p["tau"]).sum()
    )
    return prior + norm.logpdf(data["y"], p["theta"], data["sigma"]).sum()


def ar5(p, data):
    """Autoregression of order 5, conditioned on the first five values."""
    y = data["y"]
    lags = jnp.stack([y[4 - k : y.shape[0] - 1 - k] for k in range(5)])
    prior = norm.logpdf(p["alpha"], 0, 10) + norm.logpdf(p["beta"], 0, 10).sum() + cauchy.logpdf(p["sigma"], 0, 2.5)
    return prior + norm.logpdf(y[5:], p["alpha"] + p["beta"] @ lags, p["sigma"]).sum()


def garch(p, data):
    """GARCH(1, 1), flat where beta1 < 1 - alpha1."""
    y = data["y"]

    def step(variance, shock):
        new = p["alpha0"] + p["alpha1"] * shock**2 + p["beta1"] * variance
        return new, new

    _, rest = jax.lax.scan(step, data["sigma1"] ** 2, (y - p["mu"])[:-1])
    sd = jnp.sqrt(jnp.concatenate([data["sigma1"][None] ** 2, rest]))
    return norm.logpdf(y, p["mu"], sd).sum()


def kidscore(p, data):
    """A regression on one predictor."""
    mean = p["beta"][0] + p["beta"][1] * data["mom_iq"]
    return cauchy.logpdf(p["sigma"], 0, 2.5) + norm.logpdf(data["kid_score"], mean, p["sigma"]).sum()


def logmesquite(p, data):
    """A log-log regression, flat priors."""
    names = ("diam1", "diam2", "canopy_height", "total_height", "density")
    x = jnp.stack([jnp.ones(46), *(jnp.log(data[k]) for k in names), data["group"]])
    return norm.logpdf(jnp.log(data["weight"]), p["beta"] @ x, p["sigma"]).sum()


def radon(p, data):
    """An intercept a county, centred."""
    prior = norm.logpdf(p["sigma_alpha"]) + norm.logpdf(p["sigma_y"]) + norm.logpdf(p["mu_alpha"], 0, 10)
    prior += norm.logpdf(p["beta"], 0, 10).sum() + norm.logpdf(p["alpha"], p["mu_alpha"], p["sigma_alpha"]).sum()
    mean = p["alpha"][data["county_idx"] - 1] + p["beta"][0] * data["log_uppm"] + p["beta"][1] * data["floor_measure"]
    return prior + norm.logpdf(data["log_radon"], mean, p["sigma_y"]).sum()


def hmm(p, data):
    """Two hidden states with normal emissions; weight 1 for each first state."""
    emission = norm.logpdf(data["y"][:, None], p["mu"], 1.0)
    log_rows = jnp.log(jnp.stack([p["theta1"], p["theta2"]]))

    def step(g, e):
        return jax.nn.logsumexp(g[:, None] + log_rows, axis=0) + e, None

    g, _ = jax.lax.scan(step, emission[0], emission[1:])
    prior = norm.logpdf(p["mu"][0], 3, 1) + norm.logpdf(p["mu"][1], 10, 1)
    return prior + jax.nn.logsumexp(g)


def hmm_drive(p, data):
    """Two hidden states with two exponential emissions each; weight 1 for each first state."""
    rates = jnp.stack([p["phi"], p["lambda"]])
    seen = jnp.stack([data["u"], data["v"]], -1)
    emission = (jnp.log(rates) - seen[:, :, None] * rates).sum(1)
    rows = jnp.stack([p["theta1"], p["theta2"]])

    def step(g, e):
        return jax.nn.logsumexp(g[:, None] + jnp.log(rows), axis=0) + e, None

    g, _ = jax.lax.scan(step, emission[0], emission[1:])
    centers = jnp.array([0.0, 3.0])
    prior = norm.logpdf(p["phi"], centers).sum() + norm.logpdf(p["lambda"], centers).sum()
    prior += sum(dirichlet.logpdf(row, alpha) for row, alpha in zip(rows, data["alpha"] * 1.0, strict=True))
    return prior + jax.nn.logsumexp(g)


def diamonds(p, data):
    """24 slopes whose predictors are almost collinear."""
    x = data["X"][:, 1:] - data["X"][:, 1:].mean(0)
    prior = norm.logpdf(p["b"]).sum() + t.logpdf(p["Intercept"], 3, 8, 10)
    prior += t.logpdf(p["sigma"], 3, 0, 10) + jnp.log(2.0)
    return prior + norm.logpdf(data["Y"], p["Intercept"] + x @ p["b"], p["sigma"]).sum()


def earn_height(p, data):
    """Earnings by height, flat priors."""
    return norm.logpdf(data["earn"], p["beta"][0] + p["beta"][1] * data["height"], p["sigma"]).sum()


def logearn_height(p, data):
    """Log earnings by height, flat priors."""
    return norm.logpdf(jnp.log(data["earn"]), p["beta"][0] + p["beta"][1] * data["height"], p["sigma"]).sum()


def logearn_interaction(p, data):
    """Log earnings by standardised height, sex and both, flat priors."""
    z = (data["height"] - jnp.mean(data["height"])) / jnp.std(data["height"], ddof=1)
    b, male = p["beta"], data["male"]
    return norm.logpdf(jnp.log(data["earn"]), b[0] + b[1] * z + b[2] * male + b[3] * z * male, p["sigma"]).sum()


def gp_regression(p, data):
    """A Gaussian process with a squared exponential kernel."""
    x, y = data["x"], data["y"]
    kernel = p["alpha"] ** 2 * jnp.exp(-((x[:, None] - x) ** 2) / (2 * p["rho"] ** 2)) + p["sigma"] * jnp.eye(11)
    prior = gamma.logpdf(p["rho"], 25, scale=0.25) + norm.logpdf(p["alpha"], 0, 2) + norm.logpdf(p["sigma"])
    factor = jnp.linalg.cholesky(kernel)
    white = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
    return prior + norm.logpdf(white).sum() - jnp.log(jnp.diagonal(factor)).sum()


def lotka_volterra(p, data):
    """Predators and prey, by the classical Runge-Kutta method with 20 steps a year."""
    a, b, c, d = p["theta"]

    def slope(state):
        u, v = state
        return jnp.stack([(a - b * v) * u, (d * u - c) * v])

    def step(state, _):
        h = 1 / 20
        k1 = slope(state)
        k2 = slope(state + h / 2 * k1)
        k3 = slope(state + h / 2 * k2)
        k4 = slope(state + h * k3)
        return state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    def year(state, _):
        state, _ = jax.lax.scan(step, state, None, length=20)
        return state, state

    _, states = jax.lax.scan(year, p["z_init"], None, length=20)
    log_states = jnp.log(jnp.maximum(states, 1e-30))
    prior = norm.logpdf(p["theta"], jnp.array([1, 0.05, 1, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05])).sum()
    prior += _log_normal(p["sigma"], -1.0, 1.0) + _log_normal(p["z_init"], jnp.log(10.0), 1.0)
    first = _log_normal(data["y_init"], jnp.log(p["z_init"]), p["sigma"])
    return prior + first + _log_normal(data["y"], log_states, p["sigma"])


def _log_normal(x, location, scale):
    return (norm.logpdf(jnp.log(x), location, scale) - jnp.log(x)).sum()


def kidscore_interaction(p, data):
    """Two predictors and their product."""
    b, hs, iq = p["beta"], data["mom_hs"], data["mom_iq"]
    mean = b[0] + b[1] * hs + b[2] * iq + b[3] * hs * iq
    return cauchy.logpdf(p["sigma"], 0, 2.5) + norm.logpdf(data["kid_score"], mean, p["sigma"]).sum()


def kilpisjarvi(p, data):
    """Temperature by calendar year, not centred."""
    prior = norm.logpdf(p["alpha"], data["pmualpha"], data["psalpha"])
    prior += norm.logpdf(p["beta"], data["pmubeta"], data["psbeta"])
    return prior + norm.logpdf(data["y"], p["alpha"] + p["beta"] * data["x"], p["sigma"]).sum()


def gauss_mix(p, data):
    """Two normals, their means in order."""
    mu, sigma, theta = p["mu"], p["sigma"], p["theta"]
    parts = norm.logpdf(data["y"][:, None], mu, sigma) + jnp.log(jnp.stack([theta, 1 - theta]))
    prior = norm.logpdf(mu, 0, 2).sum() + norm.logpdf(sigma, 0, 2).sum() + beta.logpdf(theta, 5, 5)
    return prior + jax.nn.logsumexp(parts, axis=1).sum()


def accel_gp(p, data):
    """Mean and log sd by Gaussian processes in a Hilbert space basis."""

    def function(x, frequency, scale, length, z):
        density = scale**2 * jnp.sqrt(2 * jnp.pi) * length * jnp.exp(-(length**2) * frequency[:, 0] ** 2 / 2)
        return x @ (jnp.sqrt(density) * z)

    prior = t.logpdf(p["Intercept"], 3, -13, 36) + t.logpdf(p["Intercept_sigma"], 3, 0, 10)
    for part in ("", "_sigma"):
        prior += t.logpdf(p[f"sdgp{part}_1"], 3, 0, 36) + norm.logpdf(p[f"zgp{part}_1"]).sum()
        prior += _inverse_gamma(p[f"lscale{part}_1"], 1.124909, 0.0177)
    mean, logs = (
        p[f"Intercept{part}"]
        + function(
            data[f"Xgp{part}_1"], data[f"slambda{part}_1"], p[f"sdgp{part}_1"], p[f"lscale{part}_1"], p[f"zgp{part}_1"]
        )
        for part in ("", "_sigma")
    )
    return prior + norm.logpdf(data["Y"], mean, jnp.exp(logs)).sum()


def _inverse_gamma(x, shape, scale):
    return shape * jnp.log(scale) - gammaln(shape) - (shape + 1) * jnp.log(x) - scale / x


def mesquite(p, data):
    """A regression, flat priors."""
    names = ("diam1", "diam2", "canopy_height", "total_height", "density", "group")
    x = jnp.stack([jnp.ones(46), *(data[k] for k in names)])
    return norm.logpdf(data["weight"], p["beta"] @ x, p["sigma"]).sum()


def nes(p, data):
    """Party by ideology, race, age, education, gender and income, flat priors."""
    ages = [data["age_discrete"] == k for k in (2, 3, 4)]
    columns = [data["real_ideo"], data["race_adj"], *ages, data["educ1"], data["gender"], data["income"]]
    x = jnp.stack([jnp.ones(ages[0].shape), *(c * 1.0 for c in columns)])
    return norm.logpdf(data["partyid7"], p["beta"] @ x, p["sigma"]).sum()


def blr(p, data):
    """A regression with normal priors."""
    prior = norm.logpdf(p["beta"], 0, 10).sum() + norm.logpdf(p["sigma"], 0, 10)
    return prior + norm.logpdf(data["y"], data["X"] @ p["beta"], p["sigma"]).sum()


def wells(p, data):
    """A logistic regression, flat priors."""
    d = (data["dist"] - data["dist"].mean()) / 100
    a = data["arsenic"] - data["arsenic"].mean()
    x = jnp.stack([d, a, d * a, data["assoc"], data["educ"] / 4])
    logit = p["alpha"] + p["beta"] @ x
    return -jnp.logaddexp(0, jnp.where(data["switched"] == 1, -logit, logit)).sum()


def _room_below(p):
    return 1 - p["alpha1"]


SCALARS = ("sigma1", "pmualpha", "psalpha", "pmubeta", "psbeta")
"""Data that is one number; other numbers are sizes."""

MODELS = {
    "eight_schools-eight_schools_noncentered": (
        eight_schools,
        {"theta": tw.real(8), "mu": tw.real(), "tau": tw.positive()},
    ),
    "arK-arK": (ar5, {"alpha": tw.real(), "beta": tw.real(5), "sigma": tw.positive()}),
    "garch-garch11": (
        garch,
        {"mu": tw.real(), "alpha0": tw.positive(), "alpha1": tw.interval(0, 1), "beta1": tw.interval(0, _room_below)},
    ),
    "kidiq-kidscore_momiq": (kidscore, {"beta": tw.real(2), "sigma": tw.positive()}),
    "mesquite-logmesquite": (logmesquite, {"beta": tw.real(7), "sigma": tw.positive()}),
    "radon_mn-radon_hierarchical_intercept_centered": (
        radon,
        {
            "alpha": tw.real(85),
            "beta": tw.real(2),
            "mu_alpha": tw.real(),
            "sigma_alpha": tw.positive(),
            "sigma_y": tw.positive(),
        },
    ),
    "hmm_example-hmm_example": (
        hmm,
        {"theta1": tw.simplex(2), "theta2": tw.simplex(2), "mu": tw.positive_ordered(2)},
    ),
    "bball_drive_event_0-hmm_drive_0": (
        hmm_drive,
        {
            "theta1": tw.simplex(2),
            "theta2": tw.simplex(2),
            "phi": tw.positive_ordered(2),
            "lambda": tw.positive_ordered(2),
        },
    ),
    "diamonds-diamonds": (diamonds, {"b": tw.real(24), "Intercept": tw.real(), "sigma": tw.positive()}),
    "earnings-earn_height": (earn_height, {"beta": tw.real(2), "sigma": tw.positive()}),
    "earnings-logearn_height": (logearn_height, {"beta": tw.real(2), "sigma": tw.positive()}),
    "earnings-logearn_interaction_z": (logearn_interaction, {"beta": tw.real(4), "sigma": tw.positive()}),
    "gp_pois_regr-gp_regr": (gp_regression, {"rho": tw.positive(), "alpha": tw.positive(), "sigma": tw.positive()}),
    "hudson_lynx_hare-lotka_volterra": (
        lotka_volterra,
        {"theta": tw.positive(4), "z_init": tw.positive(2), "sigma": tw.positive(2)},
    ),
    "kidiq-kidscore_interaction": (kidscore_interaction, {"beta": tw.real(4), "sigma": tw.positive()}),
    "kilpisjarvi_mod-kilpisjarvi": (kilpisjarvi, {"alpha": tw.real(), "beta": tw.real(), "sigma": tw.positive()}),
    "low_dim_gauss_mix-low_dim_gauss_mix": (
        gauss_mix,
        {"mu": tw.ordered(2), "sigma": tw.positive(2), "theta": tw.interval(0, 1)},
    ),
    "mcycle_gp-accel_gp": (
        accel_gp,
        {
            "Intercept": tw.real(),
            "sdgp_1": tw.positive(),
            "lscale_1": tw.positive(),
            "zgp_1": tw.real(40),
            "Intercept_sigma": tw.real(),
            "sdgp_sigma_1": tw.positive(),
            "lscale_sigma_1": tw.positive(),
            "zgp_sigma_1": tw.real(20),
        },
    ),
    "mesquite-mesquite": (mesquite, {"beta": tw.real(7), "sigma": tw.positive()}),
    "nes1972-nes": (nes, {"beta": tw.real(9), "sigma": tw.positive()}),
    "nes1980-nes": (nes, {"beta": tw.real(9), "sigma": tw.positive()}),
    "sblrc-blr": (blr, {"beta": tw.real(5), "sigma": tw.positive()}),
    "wells_data-wells_daae_c_model": (wells, {"alpha": tw.real(), "beta": tw.real(5)}),
}


def as_matrix(names, draws):
    """Draws by name as columns in the order of `names`, such as beta[2] (or of names without an index)."""
    columns = []
    for label in names:
        base, _, index = label.rstrip("]").partition("[")
        value = np.asarray(draws[base], float)
        columns.append(value[:, int(index) - 1] if index else value)
    return np.stack(columns, axis=1)


def as_params(names, row, shapes):
    """One row of such columns as a dict of parameters."""
    out = {}
    for label, value in zip(names, row, strict=True):
        out.setdefault(label.partition("[")[0], []).append(value)
    return {k: np.reshape(v, shapes[k]) for k, v in out.items()}


IN_NUMPYRO = "eight_schools-eight_schools_noncentered in NumPyro"
"""The one posterior whose model tells what its parameters are drawn around: what non-centring is measured by."""


def _eight_schools_in_numpyro(y, sigma):
    """`eight_schools`, as the model of another library."""
    import numpyro
    import numpyro.distributions as dist

    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([len(y)]).to_event(1))
    numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def load(name):
    """(the target, the reference's names of columns, means and sds, and log densities to check by or None)."""
    by_name, name = name, name.removesuffix(" in NumPyro")
    folder = data_folder() / "posteriordb"
    entry = next(p for p in json.loads((folder / "index.json").read_text())["posteriors"] if p["name"] == name)
    with gzip.open(folder / entry["data"]) as f:
        data = {k: np.asarray(v) for k, v in json.load(f).items() if np.ndim(v) or k in SCALARS}
    density, supports = MODELS[name]
    reference = np.load(folder / "draws" / f"{name}.npz")
    if by_name == IN_NUMPYRO:
        target = tw.from_numpyro(_eight_schools_in_numpyro, **data)
    else:
        target = tw.from_function(density, supports, data, name=name)
    return target, [str(n) for n in reference["names"]], reference["mean"], reference["sd"], entry.get("check")
