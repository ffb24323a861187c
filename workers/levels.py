"""Measured columns of ``utterances``: signal-to-noise ratio, peak, level and clipping.

The signal-to-noise ratio is WADA-SNR (C. Kim and R. M. Stern, "Robust signal-to-noise ratio estimation based on
waveform amplitude distribution analysis", Interspeech 2008): blind, from the distribution of amplitudes alone. Speech
is taken to be Gamma distributed with shape 0.4, noise Gaussian. Against known mixtures of studio speech and white
noise it reads 1 to 2 dB low at 0 to 15 dB and 3 dB low at 20 dB, with a standard deviation of 1 to 2 dB; with noise
that is itself impulsive or speech-like the deviation grows to 5 dB and more. It sorts and slices a corpus; it does not
certify a clip.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_SHAPE = 0.4  # of the Gamma distribution of speech amplitudes, Kim and Stern 2008, section 3
SNR_RANGE_DB = (-20.0, 100.0)  # of the published table; estimates are clamped to it
# Samples this close to full scale count as clipped: 8-bit audio ends at 127/128.
_FULL_SCALE = 0.99
_HALF_STEP = 2.0**-16  # half a quantisation step of 16-bit audio


@lru_cache(maxsize=1)
def _wada_table() -> tuple[np.ndarray, np.ndarray]:
    """(G, SNR in dB): G = log E|x| - E log|x| of speech plus noise, increasing with the SNR.

    Expectations over the noise are exact for each speech amplitude m in units of the noise's deviation: E|m + n| is
    the folded normal mean, E log|m + n| that of a noncentral chi-square variable (a Poisson mixture of central ones).
    Those over speech are means over quantiles of the Gamma distribution.
    """
    from scipy.special import digamma, erf, gammaincinv, gammaln

    half_square = np.linspace(0, 50, 2001)
    j = np.arange(400)
    with np.errstate(divide="ignore", invalid="ignore"):
        poisson = np.exp(j * np.log(half_square[:, None]) - half_square[:, None] - gammaln(j + 1))
    poisson[0] = j == 0
    mean_log = 0.5 * (poisson @ (np.log(2) + digamma(0.5 + j)))
    count = 20_000
    speech = gammaincinv(_SHAPE, (np.arange(count) + 0.5) / count)
    power = _SHAPE * (_SHAPE + 1)  # E s^2 of a Gamma variable of unit scale
    snr_db = np.arange(SNR_RANGE_DB[0], SNR_RANGE_DB[1] + 1)
    found = np.empty(len(snr_db))
    for index, value in enumerate(snr_db):
        m = speech / np.sqrt(power / 10 ** (value / 10))
        q = m * m / 2
        far = np.maximum(m, 1.0)
        logs = np.where(q < half_square[-1], np.interp(q, half_square, mean_log), np.log(far) - 0.5 / far**2)
        folded = np.sqrt(2 / np.pi) * np.exp(-q) + m * erf(m / np.sqrt(2))
        found[index] = np.log(folded.mean()) - logs.mean()
    return found, snr_db


def snr_db(samples: np.ndarray) -> float | None:
    """WADA-SNR of float ``samples`` (n,), dB, clamped to :data:`SNR_RANGE_DB`; None where there is only silence.

    What 16 bits would round to zero is left out: digital silence and what a noise gate has closed on are neither speech
    nor noise, and their logarithms would outweigh all else. Gated audio still tends to the upper end of the range.
    """
    magnitude = np.abs(samples)
    audible = magnitude > _HALF_STEP
    if not audible.all():
        magnitude = magnitude[audible]
    if not len(magnitude):
        return None
    table, values = _wada_table()
    g = np.log(np.mean(magnitude, dtype=np.float64)) - np.mean(np.log(magnitude), dtype=np.float64)
    return float(np.interp(g, table, values))


def levels(raw: np.ndarray, sample_rate: int) -> dict[str, float]:
    """Columns of ``utterances`` measured from float32 mono ``raw`` (n,), n > 0, full scale 1.0.

    Keys: peak, rms_dbfs (at least -200), clipped_ratio, and snr_db where there is anything but digital silence.
    """
    peak = max(float(raw.max()), -float(raw.min()))
    mean_square = float(np.dot(raw, raw)) / len(raw)
    found = {
        "peak": peak,
        "rms_dbfs": 10 * float(np.log10(max(mean_square, 1e-20))),
        "clipped_ratio": 0.0 if peak < _FULL_SCALE else float(np.mean(np.abs(raw) >= _FULL_SCALE)),
    }
    snr = snr_db(raw)
    return found if snr is None else {**found, "snr_db": snr}
