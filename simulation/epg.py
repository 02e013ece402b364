"""Extended phase graphs: the echoes of one tissue in a train of refocusing pulses of any angle.

Transverse and longitudinal magnetisation are expanded in orders of dephasing by the crushers. A pulse mixes the orders
k and -k, half an echo spacing raises k by one (Hennig, Concepts Magn Reson 1991; Weigel, JMRI 2015, Eqs. 15, 24, 25).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def echo_train(
    t1_ms: float, t2_ms: float, spacing_ms: float, excite_rad: Array, refocus_rad: Array, n_echoes: int, before: float
) -> tuple[Array, Array]:
    """A CPMG train: excitation, then refocusing pulses `spacing_ms` apart with crushers on both sides.

    Args:
        excite_rad, refocus_rad: (n,) flip angles of both kinds of pulses, one per value of the transmit field.
        before: longitudinal magnetisation before the excitation, in units of the equilibrium.

    Returns:
        echoes (n, n_echoes) along the axis of the refocusing pulses, as in a perfect train; and the longitudinal
        magnetisation (n,) at the last echo, half a spacing after the last refocusing pulse.
    """
    orders = 2 * n_echoes + 2  # higher orders cannot refocus before the end of the train
    plus, minus, longitudinal = (np.zeros((len(excite_rad), orders), np.complex128) for _ in range(3))
    plus[:, 0] = minus[:, 0] = before * np.sin(excite_rad)
    longitudinal[:, 0] = before * np.cos(excite_rad)
    e1, e2 = np.exp(-spacing_ms / 2 / t1_ms), np.exp(-spacing_ms / 2 / t2_ms)
    cosine, sine = np.cos(refocus_rad)[:, None], np.sin(refocus_rad)[:, None]
    stay, swap = (1 + cosine) / 2, (1 - cosine) / 2

    def half_spacing() -> None:
        nonlocal plus, minus, longitudinal
        plus, minus, longitudinal = plus * e2, minus * e2, longitudinal * e1
        longitudinal[:, 0] += 1 - e1
        plus[:, 1:], minus[:, :-1] = plus[:, :-1].copy(), minus[:, 1:].copy()
        minus[:, -1] = 0
        plus[:, 0] = minus[:, 0].conj()

    echoes = np.empty((len(excite_rad), n_echoes))
    for echo in range(n_echoes):
        half_spacing()
        plus, minus, longitudinal = (
            stay * plus + swap * minus - 1j * sine * longitudinal,
            swap * plus + stay * minus + 1j * sine * longitudinal,
            cosine * longitudinal - 0.5j * sine * (plus - minus),
        )
        half_spacing()
        echoes[:, echo] = plus[:, 0].real
    return echoes, longitudinal[:, 0].real
