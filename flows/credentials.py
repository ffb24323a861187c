"""S3 credentials kept in a Prefect block, encrypted there; the flow hands them on as environment, nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from pydantic import Field, SecretStr

from schemas.config import Storage, TtsSettings
from schemas.errors import VoxmillError
from workers.voices import KEY_VARIABLE, voice_key


class S3Credentials(Block):
    """Keys of an S3 store. A run names the block in ``storage.credentials_block``.

    Example:
        Save once, then name it in a run's parameters:
        ```python
        from flows.credentials import S3Credentials

        S3Credentials(access_key_id="...", secret_access_key="...").save("speech-lake")
        ```
    """

    _block_type_name = "voxmill S3 credentials"
    _block_type_slug = "voxmill-s3-credentials"
    _logo_url = None

    access_key_id: SecretStr = Field(description="access key")
    secret_access_key: SecretStr = Field(description="secret key")
    session_token: SecretStr | None = Field(default=None, description="session token, for temporary keys")

    def environment(self) -> dict[str, str]:
        """The variables of the standard credential chain. Secrets in clear text: for a process' environment only."""
        names = {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }
        return {name: secret.get_secret_value() for name, secret in names.items() if secret is not None}


def load_credentials(name: str) -> S3Credentials:
    """The block called ``name``; raises VoxmillError where there is none."""
    try:
        return cast(S3Credentials, S3Credentials.load(name))
    except ValueError:
        what = f"Prefect holds no S3 credentials block called {name!r}"
        raise VoxmillError(
            what, "storage.credentials_block", "Save one: flows.credentials.S3Credentials(...).save(name)"
        ) from None


@contextmanager
def voice_secret(tts: TtsSettings) -> Iterator[None]:
    """Put the key of the Secret block that ``tts.voice_key`` names, if any, into this process' environment for the
    while, where :func:`workers.voices.voice_key` finds it.

    Raises VoxmillError where Prefect holds no such block, or the key is missing or too short.
    """
    kind, _, name = (tts.voice_key or "").partition(":")
    before = os.environ.get(KEY_VARIABLE)
    if kind == "block":
        try:
            _set({KEY_VARIABLE: str(cast(Any, Secret.load(name)).get())})
        except ValueError:
            what = f"Prefect holds no Secret block called {name!r}"
            do = "Save one: prefect.blocks.system.Secret(value=...).save(name)"
            raise VoxmillError(what, "tts.voice_key", do) from None
    try:
        voice_key(tts)
        yield
    finally:
        if kind == "block":
            _set({KEY_VARIABLE: before})


@contextmanager
def access(storage: Storage) -> Iterator[None]:
    """Put the credentials block that ``storage`` names, if any, into this process' environment for the while.

    A local Ray started inside inherits it. Filesystems that were opened with other keys are forgotten on both ends.
    """
    if not storage.credentials_block:
        yield
        return
    import s3fs

    secrets = load_credentials(storage.credentials_block).environment()
    before = {
        name: os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    }
    _set({**dict.fromkeys(before), **secrets})
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        yield
    finally:
        _set(before)
        s3fs.S3FileSystem.clear_instance_cache()


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
