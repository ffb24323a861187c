"""Figures as SVG that takes the page's colours, and spectrograms as PNG. Drawn by matplotlib, without a display."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import image as mpl_image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import signal

from workers.quality.bins import NOT_MEASURED
from workers.report.compare import Comparison
from workers.report.evidence import Predictor

# Stand-ins that the page's style sheet replaces: the same figure then works on light and dark ground.
_INK, _MUTED, _LINE, _FIRST, _SECOND = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _LINE: "--line", _FIRST: "--first", _SECOND: "--second"}
_STYLE: Any = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED, "xtick.color": _MUTED, "ytick.color": _MUTED, "text.color": _INK, "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": _LINE, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "text.parse_math": False,
    "xtick.major.size": 0, "ytick.major.size": 0, "legend.frameon": False,
}  # fmt: skip
SPECTROGRAM_SIZE = (560, 96)  # columns x rows, pixels
DYNAMIC_RANGE_DB = 80.0


def _svg(figure: Figure, name: str, label: str) -> str:
    sink = io.StringIO()
    figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", text)
    text = re.sub(r' id="[a-zA-Z]+\d*_\d+"', "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _axes(name: str, width: float = 4.6, height: float = 2.5, left: float = 0.62) -> tuple[Figure, Axes]:
    """A figure with one plot; sizes and the room left of the plot for its labels in inches.

    Margins are fixed: a layout that measures its labels draws everything twice.
    """
    matplotlib.rcParams["svg.hashsalt"] = f"voxmill-{name}"
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left / width, 0.46 / height, 1 - 0.16 / width, 1 - 0.1 / height)
    return figure, figure.add_subplot()


def forest(rows: Sequence[dict[str, Any]]) -> str:
    """WER with its interval per engine and input, from rows of ``quality``."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes("forest", 4.6, 0.6 + 0.42 * len(rows), left=0.1)
        for at, row in enumerate(reversed(rows)):
            colour = _FIRST if row["input"] == "raw" else _SECOND
            if row["wer_low"] is not None:
                axes.plot([100 * row["wer_low"], 100 * row["wer_high"]], [at, at], color=colour, linewidth=2.2)
            axes.plot([100 * row["wer"]], [at], "o", color=colour, markersize=6)
            # Above its line, not on the axis: names are long and phones narrow.
            label = f"{row['engine']}, {row['input']}"
            axes.annotate(label, (0, at), (3, 6), textcoords="offset points", fontsize=8, color=_MUTED)
        axes.set_yticks([])
        axes.set_ylim(-0.5, len(rows) - 0.2)
        axes.set_xlim(left=0)
        axes.grid(False, axis="y")
        axes.set_xlabel("word error rate, %, with 95% interval")
        return _svg(figure, "forest", "Word error rates with intervals")


def by_snr(bins: Sequence[tuple[str, Comparison]]) -> str:
    """What denoising does to WER, in points, per SNR bin."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes("by-snr")
        for at, (_, one) in enumerate(bins):
            if one.difference.low is not None and one.difference.high is not None:
                ends = [100 * one.difference.low, 100 * one.difference.high]
                axes.plot([at, at], ends, color=_SECOND, linewidth=2.2)
            axes.plot([at], [100 * one.difference.value], "o", color=_SECOND, markersize=6)
        axes.axhline(0, color=_MUTED, linewidth=0.8)
        axes.set_xticks(range(len(bins)), [label.replace(" dB", "").replace(" and over", "+") for label, _ in bins])
        axes.set_xlim(-0.6, len(bins) - 0.4)
        axes.grid(False, axis="x")
        axes.set_xlabel("signal-to-noise ratio, dB")
        axes.set_ylabel("denoised − raw, points")
        return _svg(figure, "by-snr", "Difference that denoising makes, by signal-to-noise ratio")


def distribution(name: str, series: Sequence[tuple[str, np.ndarray]], label: str, limits: tuple[float, float]) -> str:
    """Histograms of one or two series over ``limits``; what lies outside is counted in the outermost bars."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(name)
        edges = np.linspace(*limits, 25)
        for (title, values), colour in zip(series, (_FIRST, _SECOND), strict=False):
            clipped = np.clip(values[np.isfinite(values)], *limits)
            axes.hist(clipped, bins=edges.tolist(), color=colour, alpha=0.75 if len(series) == 1 else 0.5, label=title)
        axes.set_xlim(*limits)
        axes.grid(False, axis="x")
        axes.set_xlabel(label)
        axes.set_ylabel("utterances")
        if len(series) > 1:
            axes.legend(fontsize=8)
        return _svg(figure, name, f"Distribution of {label}")


def kept_curve(predictors: Sequence[Predictor], together: Predictor | None) -> str:
    """WER of the kept set against the share kept, of all signs together and of the best two."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes("kept", height=3.0)
        drawn = [
            *([(together, _INK, 2.4)] if together else []),
            *zip(predictors, (_FIRST, _SECOND), (1.8, 1.8), strict=False),
        ]
        for one, colour, width in drawn:
            kept = [100 * value for value in one.kept_wer]
            axes.plot([100 * share for share in one.shares], kept, color=colour, linewidth=width, label=one.name)
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("utterances kept, %")
        axes.set_ylabel("WER of the kept, %")
        axes.legend(fontsize=8, loc="upper left")
        return _svg(figure, "kept", "Word error rate of the kept set against the share kept")


def calibration(groups: Sequence[tuple[float, ...]]) -> str:
    """Measured against estimated WER of groups of utterances; on the diagonal both are the same."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes("calibration", height=3.0)
        estimated, measured = (np.array([100 * group[at] for group in groups]) for at in (0, 1))
        top = 1.08 * max(float(estimated.max()), float(measured.max()), 1.0)
        axes.plot([0, top], [0, top], color=_MUTED, linewidth=0.8)
        axes.plot(estimated, measured, "o", color=_FIRST, markersize=6)
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_xlabel("WER estimated, %")
        axes.set_ylabel("WER measured, %")
        return _svg(figure, "calibration", "Measured against estimated word error rate")


def power_db(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Spectrogram of ``samples`` (n,): (rows, columns), time to the right, half the rate down to 0, in dB."""
    width, height = SPECTROGRAM_SIZE
    window = 2 * (height - 1) * 2
    if len(samples) < window:
        samples = np.pad(samples, (0, window - len(samples)))
    hop = max(window // 4, len(samples) // width)
    _, _, power = signal.spectrogram(samples, fs=sample_rate, nperseg=window, noverlap=max(0, window - hop))
    level: np.ndarray = 10 * np.log10(power + 1e-12)
    return level[::-1]


def spectrogram(level: np.ndarray, top: float) -> str:
    """PNG data URI of :func:`power_db`, its colours from DYNAMIC_RANGE_DB below ``top`` up to ``top`` dB."""
    shade = np.clip((level - top) / DYNAMIC_RANGE_DB + 1, 0, 1)
    sink = io.BytesIO()
    mpl_image.imsave(
        sink, shade[: 2 * SPECTROGRAM_SIZE[1]], cmap="magma", vmin=0, vmax=1, format="png",
        metadata={"Software": "voxmill"}, pil_kwargs={"compress_level": 3},
    )  # fmt: skip
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def measured_bins(pairs: Sequence[tuple[str, Comparison]]) -> list[tuple[str, Comparison]]:
    """The SNR bins among comparisons, without the whole and without what was not measured."""
    return [(label, one) for label, one in pairs if label not in ("all", NOT_MEASURED)]
