"""A posterior that answers with made-up numbers, for pages without a fit."""

import numpy as np

from thalweg.diagnostics import psis, summarise
from thalweg.posterior import Estimate, Verdict

VERDICTS = {
    "good": Verdict(True, True, 0.21, 8123.4, 10_000, (), ()),
    "fair": Verdict(True, False, 0.42, 4310.0, 10_000, (), ()),
    "bad": Verdict(
        False,
        False,
        0.93,
        61.0,
        10_000,
        (
            "the weights' tail is too heavy (k-hat 0.93, at most 0.70 is reliable)",
            "only 61 of 10,000 draws are effective",
        ),
        ("give more steps or a richer flow (flow='spline', more layers)", "check the parametrisation"),
    ),
}


class FakePosterior:
    """Eight schools, roughly."""

    def __init__(
        self, verdict="good", name="eight_schools", mu="mu", n_theta=8, target=True, trace=True, predictive=True
    ):
        self.verdict = VERDICTS[verdict]
        self.name, self._mu, self._n_theta = name, mu, n_theta
        self._target, self._predictive = target, predictive
        self.elbo = Estimate(-31.2384, 0.0123)
        self.log_evidence = Estimate(-31.1532, 0.0041) if target else None
        self.log_weights = 0.6 * np.random.default_rng(0).standard_t(6, size=10_000) - 31.0
        steps = np.arange(1500)
        noise = np.random.default_rng(0).normal(size=1500)
        elbo = -31.2 - 400 * np.exp(-steps / 40) + 0.3 * noise
        self.trace = {"step": steps, "elbo": elbo} if trace else {}
        self.settings = {
            "model": name,
            "flow": "realnvp",
            "seed": 0,
            "steps": 1500,
            "learning_rate": 0.01,
            "batch_size": None,
            "dtype": "float32",
            "seconds": 8.31,
        }
        self.steps_taken = (
            "Gaussian start: ELBO -31.92 ± 0.02 after 60 steps; its importance weights ask for more (k-hat 0.63)",
            "realnvp on top of it: ELBO -31.24 ± 0.01 after 1,500 steps",
        )
        self.modes = ()
        self.versions = {"thalweg": "0.1.0", "jax": "0.10.2", "numpy": "2.4.1", "python": "3.11.7"}
        self.citation = "@software{thalweg,\n  title = {Thalweg: a < b & c}\n}"

    @property
    def names(self):
        return [self._mu, "tau", "eta"]

    def _require_target(self):
        if not self._target:
            raise ValueError(
                "resample needs the log density, and this posterior has none; give target= to thalweg.load"
            )

    def sample(self, n, seed=0, shift=0.3):
        rng = np.random.default_rng(seed)
        mu, tau = 4.4 + 3.3 * rng.normal(size=n) + shift, np.exp(1.0 + 0.9 * rng.normal(size=n) - shift / 2)
        eta = rng.normal(size=(n, self._n_theta))
        draws = {self._mu: mu, "tau": tau, "eta": eta}
        return {**draws, "theta": mu[:, None] + tau[:, None] * eta} if self._target else draws

    def resample(self, n, seed=0):
        self._require_target()
        return self.sample(n, seed + 100, shift=0.0)

    def summary(self):
        known = self._target and self.log_weights is not None
        log_weights = psis(self.log_weights).log_weights if known else None
        return summarise(self.sample(10_000), log_weights)

    def predictive(self, n, seed=0):
        self._require_target()
        if not self._predictive:
            return {}
        rng = np.random.default_rng(seed)
        return {
            "y": 4.4 + 14 * rng.normal(size=(n, 8)),
            "count": rng.poisson(4.0, size=(n, 20, 10)),
            "total": rng.normal(size=n),
        }

    def observed(self):
        if not (self._target and self._predictive):
            return {}
        counts = np.random.default_rng(9).poisson(4.3, size=(20, 10))
        return {"y": np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), "count": counts, "total": np.array(0.4)}
