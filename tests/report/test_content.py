"""What the page says, gathered from a posterior that answers with made-up numbers."""

import numpy as np
import pytest

from report_fakes import FakePosterior
from thalweg.diagnostics import fit_pareto, psis
from thalweg.report._content import gather


def test_gathers_everything():
    content = gather(FakePosterior())
    assert content.missing == {} and content.rows_corrected
    assert len(content.rows) == content.n_scalars == 18 and len(content.marginals) == 12
    assert content.n_pairs == 45 and len(content.pairs) == 8
    assert content.seconds == 8.31 and "seconds" not in content.settings and "batch_size" not in content.settings
    assert [check.name for check in content.checks] == ["y", "count", "total"]
    assert all(check.replicated.shape == (200, check.observed.size) for check in content.checks)


def test_without_a_target_it_says_what_is_missing():
    content = gather(FakePosterior(target=False))
    assert set(content.missing) == {"corrected"}
    assert "give target=" in content.missing["corrected"]
    assert content.checks == [] and not content.rows_corrected
    assert len(content.rows) == 10 and all(s.corrected is None for s in content.marginals)


class Broken(FakePosterior):
    def sample(self, n, seed=0, shift=0.0):
        raise ValueError("saved without its supports")


def test_without_draws_there_is_still_a_page_to_make():
    content = gather(Broken(target=False))
    assert content.rows == [] and content.marginals == [] and content.pairs == []
    assert content.missing["draws"] == "saved without its supports"


class Moved(FakePosterior):
    def sample(self, n, seed=0, shift=0.3):
        draws = super().sample(n, seed, shift=0.0)
        draws["eta"][:, 17] += 5 * shift
        draws["eta"][:, 3] = draws["tau"] + 0.01 * draws["eta"][:, 3]
        draws["eta"][:, 5] = 1.0
        draws["eta"][0, 6] = np.inf
        return draws


def test_shows_what_moves_and_what_is_correlated_and_leaves_out_what_cannot_be_drawn():
    content = gather(Moved(n_theta=20))
    assert "eta[17]" in [s.name for s in content.marginals]
    assert [s.name for s in content.pairs[0]] == ["tau", "eta[3]"]
    assert content.n_scalars == 2 + 2 * 20 - 2  # eta[5] is constant, eta[6] is not finite


def test_tail_is_that_of_psis():
    posterior = FakePosterior()
    tail = gather(posterior).tail
    weights = np.sort(np.exp(posterior.log_weights + 31.0))
    assert tail is not None and tail.n_draws == 10_000 and tail.share == 0.03
    np.testing.assert_allclose(np.mean(tail.ratios), 1.0)
    np.testing.assert_allclose(tail.fit, fit_pareto(weights[-300:] - weights[-301]) / np.array([1, np.mean(weights)]))
    np.testing.assert_allclose(tail.fit.khat, psis(posterior.log_weights).khat, rtol=1e-8)
    assert tail.khat == posterior.verdict.khat


@pytest.mark.parametrize("log_weights", [np.full(1000, -3.0), None], ids=["constant", "none"])
def test_constant_weights_have_no_tail(log_weights):
    posterior = FakePosterior()
    posterior.log_weights = log_weights
    assert gather(posterior).tail is None


def test_counts_the_observations_in_their_intervals():
    check = gather(FakePosterior()).checks[0]
    low, high = np.quantile(check.replicated, [0.05, 0.95], axis=0)
    assert check.inside == np.sum((check.observed >= low) & (check.observed <= high)) == 7


class Huge(FakePosterior):
    def observed(self):
        return {"y": np.zeros(200_000)}


@pytest.mark.parametrize("posterior", [Huge(), FakePosterior(predictive=False)])
def test_no_check_where_there_is_none_or_too_much(posterior):
    assert gather(posterior).checks == []
