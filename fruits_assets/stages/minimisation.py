"""The minimum of a smooth, strictly convex function of many variables."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fruits_assets.stages.arrow import Matrix

_REMEMBERED = 10
_MAX_ITERATIONS, _MAX_STEPS = 1000, 30
_ENOUGH = 0.5  # of the slope has to be gone for a step that went beyond the minimum
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Minimum:
    """Where it is, after how many evaluations, and whether it is as close as was asked for."""

    at: Matrix
    n_evaluations: int
    has_converged: bool


def minimum(
    evaluate: Callable[[Matrix], tuple[float, Matrix]], start: Matrix, curvature: Matrix, tolerance: float
) -> Minimum:
    """Limited-memory BFGS (Nocedal and Wright 2006, algorithms 7.4 and 7.5) with a diagonal to begin with.

    It ends where the value is about `tolerance` above the least one, by half of g' H^-1 g for the gradient g
    and the diagonal H (the decrement of Newton's method), which tells that far below the value's rounding.

    Args:
        evaluate: value and gradient.
        curvature: second derivatives at the start, of its shape, positive; it says how the variables compare.
    """
    at = start
    value, gradient = evaluate(at)
    n_evaluations = 1
    pairs: deque[tuple[Matrix, Matrix]] = deque(maxlen=_REMEMBERED)
    for _ in range(_MAX_ITERATIONS):
        if 0.5 * float((gradient**2 / curvature).sum()) <= tolerance:
            return Minimum(at, n_evaluations, True)
        direction = -_times_inverse_hessian(gradient, pairs, curvature)
        slope = float((direction * gradient).sum())
        step = 1.0
        for _ in range(_MAX_STEPS):
            new_value, new_gradient = evaluate(at + step * direction)
            n_evaluations += 1
            new_slope = float((direction * new_gradient).sum())
            if new_slope <= -_ENOUGH * slope and new_value <= value + _ROUNDING * abs(value):
                break
            # The slope of a convex function rises along the way: where it would be 0 if it rose evenly.
            step *= min(0.9, max(0.1, slope / (slope - new_slope)))
        else:
            break
        pairs.append((step * direction, new_gradient - gradient))
        at, value, gradient = at + step * direction, new_value, new_gradient
    return Minimum(at, n_evaluations, False)


def _times_inverse_hessian(
    gradient: Matrix, pairs: deque[tuple[Matrix, Matrix]], curvature: Matrix
) -> Matrix:
    """The two loops of algorithm 7.4, over steps and the changes of the gradient on them."""
    product, weights = gradient, []
    for step, change in reversed(pairs):
        weights.append((step * product).sum() / (step * change).sum())
        product = product - weights[-1] * change
    product = product / curvature
    if pairs:
        step, change = pairs[-1]
        product *= (step * change).sum() / (change**2 / curvature).sum()
    for (step, change), weight in zip(pairs, reversed(weights), strict=True):
        product = product + step * (weight - (change * product).sum() / (step * change).sum())
    return product
