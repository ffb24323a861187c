"""What a run cost: the CPU and GPU time that its stages took, at the price list it was given."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.config import Prices
from schemas.manifest import RunManifest


@dataclass(frozen=True)
class Cost:
    """``stages`` maps a stage to its cost; ``per_hour`` is of an hour of published speech, None where there is none.

    Time that machines stand idle is not in it: it belongs to the cluster, not to a stage.
    """

    currency: str
    total: float
    per_hour: float | None
    stages: dict[str, float]


def cost(manifest: RunManifest) -> Cost | None:
    """The cost of a run; None without a price list, or where it lacks the price of something that was used."""
    prices = Prices.model_validate(manifest.parameters.get("prices") or {})
    charged = {"cpu_s": prices.cpu_hour, "gpu_s": prices.gpu_hour}
    used = {key for spent in manifest.stages.values() for key in charged if spent.get(key)}
    if not used or any(charged[key] is None for key in used):
        return None
    stages = {
        name: sum(spent.get(key, 0.0) / 3600 * (price or 0.0) for key, price in charged.items())
        for name, spent in manifest.stages.items()
    }
    total = sum(stages.values())
    return Cost(prices.currency, total, total / manifest.hours if manifest.hours else None, stages)
