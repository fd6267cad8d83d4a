"""Where to cut angles and spheres open: not through the mass."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, in_pieces, log_sum_exp, rows_jit, wrap_angle
from thalweg.ladder._scout import send_scouts
from thalweg.targets import Target

_ENDS, _ANGLES, _FRAMES, _ON_CUT = 4, 64, 17, 16
"""Places looked at; where a circle may be cut; turns of a sphere that are tried, points on the cut of each."""
_NEAR, _WORTH = 0.3, 1.0
"""Radians over which a cut feels the density; nats that another cut must gain."""
_PIECE = 256


@rows_jit
def _joint_piece(target: Target, params: dict[str, Array]) -> Array:
    return target.each(lambda one: target.log_joint(one, target.data))(params)


def turned(target: Target, points: np.ndarray) -> Target:
    """The target, each angle and each unit vector cut open where the density is low, given all else.

    R^d has no place for a mode that a cut goes through: it would come apart in two, far from each other. Looked at from
    a few places uphill of `points`, (k, d).
    """
    if not target.space.turns:
        return target
    scouts = send_scouts(target, points)
    ends = scouts.ends[np.isfinite(scouts.log_p)][:_ENDS]
    if not len(ends):
        return target
    at = [target.constrain(jnp.asarray(u, jnp.result_type(float)))[0] for u in ends]
    params = {n: np.stack([np.asarray(one[n]) for one in at]) for n in target.names}
    new = {}
    for name, turn in target.space.turns.items():
        look = _circle if turn.shape == target.space.shapes[name] else _sphere
        new[name] = np.array(turn)
        for index in np.ndindex(turn.shape if look is _circle else turn.shape[:-2]):
            new[name][index] = look(target, params, name, index, turn[index])
    return target.turned(new)


def _log_joint_where(target: Target, params: dict[str, np.ndarray], name: str, index: Any, values: np.ndarray) -> Any:
    """The log density with one angle or vector at each of m values, all else as at each of k places; (k, m)."""
    k, m = len(params[name]), len(values)
    rows = {n: np.repeat(x, m, axis=0) for n, x in params.items()}
    rows[name] = rows[name].copy()
    rows[name][(slice(None), *index)] = np.concatenate([values] * k)
    found = in_pieces(_joint_piece(target), rows, _PIECE).astype(float).reshape(k, m)
    return np.where(np.isnan(found), -np.inf, found)


def _circle(target: Target, params: dict[str, np.ndarray], name: str, index: Any, turn: Any) -> Any:
    """The angle to add so that the cut, opposite to it, is where the density nearby is lowest."""
    angles = turn - np.pi + 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    found = log_sum_exp(_log_joint_where(target, params, name, index, wrap_angle(angles)), axis=0)
    between = wrap_angle(angles[:, None] - angles)
    cost = log_sum_exp(found - 0.5 * (between / _NEAR) ** 2, axis=1)
    best = int(np.argmin(cost))
    return wrap_angle(angles[best] + np.pi) if cost[best] < cost[0] - _WORTH else turn


def _sphere(target: Target, params: dict[str, np.ndarray], name: str, index: Any, turn: Any) -> Any:
    """Of some orthogonal matrices, that with which the density on the cut (half a great circle) is lowest."""
    k, rng = len(turn), np.random.default_rng(0)
    frames = [turn, *(np.linalg.qr(rng.standard_normal((k, k)))[0] for _ in range(_FRAMES - 1))]
    on_cut = rng.standard_normal((_ON_CUT, k))
    on_cut[:, -1], on_cut[:, -2] = 0, -np.abs(on_cut[:, -2])
    on_cut /= np.linalg.norm(on_cut, axis=1, keepdims=True)
    values = np.concatenate([on_cut @ q.T for q in frames])
    found = _log_joint_where(target, params, name, index, values).reshape(len(params[name]), len(frames), _ON_CUT)
    cost = log_sum_exp(found, axis=(0, 2))
    best = int(np.argmin(cost))
    return frames[best] if cost[best] < cost[0] - _WORTH else turn
