"""Places of their own, by draws whose places are known."""

import itertools

import numpy as np
import pytest

from thalweg.ladder._modes import Fitted, Mode
from thalweg.ladder._places import places

RNG = np.random.default_rng(0)
N = 4000


def gaussians(locs, scales, elbo):
    factors = [np.diag(np.broadcast_to(s, len(locs[0]))).astype(float) for s in scales]
    return Fitted([Mode(np.array(m, float), f) for m, f in zip(locs, factors, strict=True)], np.array(elbo, float))


def shares(modes, u):
    found = places(modes, u)
    return [np.mean(found == k) for k in range(found.max() + 1)]


def test_normals_apart():
    centers, weights = np.array([[0, 0], [10, 0], [0, 10]]), [0.2, 0.5, 0.3]
    u = centers[RNG.choice(3, N, p=weights)] + RNG.normal(size=(N, 2))
    assert shares(gaussians(centers, [1] * 3, np.log(weights)), u) == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


@pytest.mark.parametrize(("apart", "found"), [(3, 1), (4, 1), (5, 2), (6, 2)])
def test_a_valley_is_needed(apart, found):
    """Two unit normals: between them the density is 2 exp(-apart^2 / 8) of a peak's, .27 at 4 and .09 at 5."""
    u = RNG.normal(size=(N, 3))
    u[:, 0] += apart * (RNG.random(N) < 0.5)
    assert len(shares(gaussians([[0, 0, 0], [apart, 0, 0]], [1, 1], [0, 0]), u)) == found


def test_a_banana_and_a_ring_are_one_place():
    x = 3 * RNG.normal(size=N)
    along = np.linspace(-6, 6, 9)
    tangents = [np.array([[0.7, 0], [1.4 * m, 0.65]]) for m in along]
    parts = [Mode(np.array([m, m**2]), np.linalg.cholesky(t @ t.T)) for m, t in zip(along, tangents, strict=True)]
    banana = np.stack([x, x**2 + 0.3 * RNG.normal(size=N)], 1)
    assert shares(Fitted(parts, -0.5 * (along / 3) ** 2), banana) == [1.0]
    angle, at = RNG.uniform(0, 2 * np.pi, N), np.arange(8) * np.pi / 4
    ring = (4 + 0.3 * RNG.normal(size=N))[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    assert shares(gaussians(4 * np.stack([np.cos(at), np.sin(at)], 1), [0.9] * 8, [0] * 8), ring) == [1.0]


def test_wide_about_narrow_is_one_place():
    u = RNG.normal(size=(N, 2)) * np.where(RNG.random(N) < 0.5, 0.1, 3)[:, None]
    assert shares(gaussians([[0, 0], [0.02, 0.01]], [0.1, 3], [0, 0]), u) == [1.0]


def test_corners_of_a_cube_and_many_dimensions():
    corners = 3 * np.array(list(itertools.product([-1, 1], repeat=4)))
    u = corners[RNG.integers(16, size=N)] + 0.4 * RNG.normal(size=(N, 4))
    assert shares(gaussians(corners, [0.4] * 16, [0] * 16), u) == pytest.approx([1 / 16] * 16, abs=0.02)
    v = RNG.normal(size=(N, 50))
    halves = gaussians([[-0.8] + [0] * 49, [0.8] + [0] * 49], [1, 1], [0, 0])
    assert shares(halves, v) == [1.0]
    v[:, 0] += 8 * (RNG.random(N) < 0.1)
    far = gaussians([[0] * 50, [8] + [0] * 49], [1, 1], np.log([0.9, 0.1]))
    assert shares(far, v) == pytest.approx([0.9, 0.1], abs=0.02)
