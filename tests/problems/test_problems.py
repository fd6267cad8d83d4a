"""Known answers are right: evidence by quadrature or by exact draws, exact draws by the identity of scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from scipy.special import gamma

from thalweg import problems as of
from thalweg.targets import value_and_score_of_rows

ALL = [
    of.funnel(4),
    of.banana(),
    of.funana(4),
    of.student_t(2.5, 3),
    of.gaussian(5),
    of.correlated_gaussian(4),
    of.lattice(9),
    of.lattice(16),
    of.gmm40(),
    of.many_well(4),
    of.many_well(4, rotated=True),
    of.ring(),
    *(of.energy(k) for k in (1, 2, 3, 4)),
]


@pytest.mark.parametrize("problem", ALL, ids=lambda p: p.name)
def test_exact_draws_follow_the_density(problem):
    """E[g grad log p + grad g] = 0 for a bounded g of every coordinate (Stein's identity)."""
    x = problem.draw(np.random.default_rng(0), 20_000)
    _, score = value_and_score_of_rows(problem.target, x)
    scale = np.quantile(np.abs(x), 0.7, axis=0)
    g = np.tanh(x / scale)
    terms = g * score + (1 - g**2) / scale
    z = terms.mean(0) / (terms.std(0) / np.sqrt(len(x)))
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("problem", [p for p in ALL if p.target.size == 2], ids=lambda p: p.name)
def test_evidence_in_the_plane(problem):
    log_density = jax.jit(problem.target.log_density)
    x = problem.draw(np.random.default_rng(0), 1000)
    low, high = x.min(0) - 3 * x.std(0), x.max(0) + 3 * x.std(0)
    n = 1500
    axes = [np.linspace(a, b, n) for a, b in zip(low, high, strict=True)]
    points = jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2))
    values = np.asarray(jax.lax.map(log_density, points, batch_size=10_000))
    total = np.exp(values).sum() * (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    assert np.log(total) == pytest.approx(problem.log_evidence, abs=2e-3)


def test_evidence_of_wells():
    one = integrate.dblquad(lambda y, x: np.exp(0.5 * x + 6 * x**2 - x**4 - 0.5 * y**2), -4, 4, -8, 8)[0]
    assert of.many_well(6).log_evidence == pytest.approx(3 * np.log(one), abs=1e-6)


def test_coverage():
    problem = of.lattice(9)
    assert problem.coverage(problem.draw(np.random.default_rng(0), 20_000)) > 0.999
    assert problem.coverage(np.zeros((100, 2))) == 0
    assert np.isnan(of.banana().coverage(np.zeros((10, 2))))


def test_energies_by_their_closed_forms():
    """Along z_2 U_2 to U_4 integrate to a constant, along z_1 the window to 8 Gamma(9 / 8)."""
    window = 8 * gamma(9 / 8)
    for k, widths in {2: 0.4, 3: 0.7, 4: 0.75}.items():
        assert of.energy(k).log_evidence == pytest.approx(np.log(window * widths * np.sqrt(2 * np.pi)), abs=1e-6)
    # of the first the published grids, on [-4, 4]^2 and [-8, 8]^2, say the same
    assert of.energy(1).log_evidence == pytest.approx(1.8775, abs=5e-5)


def test_messages():
    with pytest.raises(ValueError, match="`number` must be one of 1, 2, 3, 4"):
        of.energy(5)
    with pytest.raises(ValueError, match="`modes` must be one of 9, 16"):
        of.lattice(4)
