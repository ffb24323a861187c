"""What the engines made of NeMo's models share: how they are restored, and quietly."""

from __future__ import annotations

import contextlib
import io
import logging as python_logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from schemas.errors import VoxmillError
from workers.engines.checkpoints import Checkpoint


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """NeMo tells its whole configuration while it is imported and restored; what matters here comes as exceptions."""
    before = python_logging.root.manager.disable
    python_logging.disable(python_logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        python_logging.disable(before)


def restored(base: Any, checkpoint: Checkpoint, device: torch.device, what: str) -> tuple[Any, Path]:
    """The model of ``checkpoint``, of a class derived from NeMo's ``base``, and its .nemo file.

    Raises VoxmillError where it cannot be had, ``what`` saying of which kind it must be.
    """
    with quiet():
        from nemo.utils import logging

        logging.setLevel(logging.ERROR)
        try:
            path = Path(checkpoint.path or base.from_pretrained(checkpoint.model, return_model_file=True))
            model = base.restore_from(str(path), map_location=device)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise VoxmillError(
                f"the checkpoint cannot be loaded ({reason})", checkpoint.spec, f"It must be the .nemo of {what}."
            ) from error
    if not isinstance(model, base):
        raise VoxmillError(f"the checkpoint is a {type(model).__name__}", checkpoint.spec, f"It must be {what}.")
    return model, path
