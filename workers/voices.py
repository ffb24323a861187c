"""Voices dealt to speakers: one speaker keeps one voice, and with a secret key nobody else can tell which."""

from __future__ import annotations

import os
from collections.abc import Sequence

from blake3 import blake3

from schemas.config import TtsSettings
from schemas.errors import VoxmillError
from schemas.ids import seed_of

KEY_VARIABLE = "VOXMILL_VOICE_KEY"  # where the flow puts the key of a Prefect block, for the run alone
_CONTEXT = "voxmill 2026 voices dealt to speakers"  # blake3: one derived key per use of a secret
_LEAST_BYTES = 16


def voice_key(settings: TtsSettings) -> bytes | None:
    """The 32-byte key that ``settings.voice_key`` points to; None where voices are dealt without one.

    Raises VoxmillError where it is not there or too short to keep anything secret; the message never holds it.
    """
    if settings.voice_key is None:
        return None
    kind, _, name = settings.voice_key.partition(":")
    secret = os.environ.get(name if kind == "env" else KEY_VARIABLE, "")
    where = f"the environment variable {name}" if kind == "env" else f"the Secret block {name!r}"
    if not secret:
        raise VoxmillError(f"{where} holds no key", "tts.voice_key", "Set it where the flow runs.")
    if len(secret.encode()) < _LEAST_BYTES:
        raise VoxmillError(
            f"the key in {where} is shorter than {_LEAST_BYTES} bytes",
            "tts.voice_key",
            "Make one: python -c 'import secrets; print(secrets.token_hex())'",
        )
    return blake3(secret.encode(), derive_key_context=_CONTEXT).digest()


def key_digest(key: bytes) -> str:
    """What tells two keys apart in a recipe's fingerprint and tells nothing else of them."""
    return f"blake3:{blake3(b'key', key=key).hexdigest()}"


def deal(speaker: str, voices: Sequence[str | None], count: int, key: bytes | None = None) -> list[str | None]:
    """``count`` different voices of ``voices`` for ``speaker``, the same ones whenever and wherever they are dealt.

    With ``key`` (32 bytes) the place in the list is a keyed hash of the label (blake3): without the key neither who has
    which voice nor, from the voices, who is who can be worked out.
    """
    if key is None:
        first = seed_of("voice", speaker)
    else:
        first = int.from_bytes(blake3(speaker.encode(), key=key).digest(8), "big")
    return [voices[(first + index) % len(voices)] for index in range(count)]
