"""What all tests share: test data, a loopback S3, one local Ray, one Prefect database, the demo corpus.

Everything is made once per session and only when a test asks for it.
"""

from __future__ import annotations

import os

# One thread per process: tests share few cores, and results must not hang on thread counts. No model hub is reachable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # by default 15, so anything else that runs starves Ray
os.environ.setdefault("DO_NOT_TRACK", "1")

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

# A first example may import for seconds on a busy machine; a time limit on examples would be a timed assertion.
settings.register_profile("voxmill", deadline=None)
settings.load_profile("voxmill")

if TYPE_CHECKING:
    import s3fs

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real speech beside the checkout (see its README.md); skips where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no speech test data at {os.path.relpath(SHARED_DATA, ROOT)}, beside the repository")
    return SHARED_DATA


@pytest.fixture(scope="session")
def bundled_checkpoints() -> dict[str, Path]:
    """The checkpoints that come with the repository: family -> file; skips where they have not been trained."""
    folder = ROOT / "infra" / "demo" / "checkpoints"
    found = {}
    for family, suffix in (("whisper", ".pt"), ("conformer", ".nemo")):
        files = sorted(folder.glob(f"{family}*{suffix}"))
        if not files:
            pytest.skip(f"no bundled {family} checkpoint ({family}*{suffix}) in {folder.relative_to(ROOT)}")
        found[family] = files[0]
    return found


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short demo corpus (about a minute of audio); what is said in it stands in ``.truth.jsonl``."""
    from infra.demo.corpus import build

    return build(tmp_path_factory.mktemp("demo") / "corpus", minutes=1.0)


@dataclass(frozen=True)
class S3:
    """A loopback S3 server; credentials stand in the environment, as they do for users."""

    endpoint_url: str
    _used: list[str] = field(default_factory=list)

    @property
    def storage(self) -> dict[str, Any]:
        """Keyword arguments of :class:`schemas.config.Storage`."""
        return {"endpoint_url": self.endpoint_url}

    @property
    def options(self) -> dict[str, Any]:
        """s3fs options, also good for ``storage_options=`` of readers built on fsspec."""
        return {"endpoint_url": self.endpoint_url}

    def filesystem(self) -> s3fs.S3FileSystem:
        """A filesystem that caches no listing, so it sees what other processes write."""
        import s3fs

        return s3fs.S3FileSystem(**self.options, use_listings_cache=False, skip_instance_cache=True)

    def bucket(self, stem: str = "bucket") -> str:
        """Make a new, empty bucket and return its URL, ``s3://...``."""
        name = f"{stem}-{len(self._used):03d}"
        self._used.append(name)
        self.filesystem().mkdir(name)
        return f"s3://{name}"

    def put(self, url: str, data: bytes | Path) -> str:
        """Store one object and return its URL."""
        self.filesystem().pipe_file(url, data.read_bytes() if isinstance(data, Path) else data)
        return url


@pytest.fixture(scope="session")
def aws_environment() -> Iterator[None]:
    """Credentials for the loopback S3. Ray's workers inherit the environment of the moment Ray is started in, so they
    must be there before."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield


@pytest.fixture(scope="session")
def s3(aws_environment: None) -> Iterator[S3]:
    """An S3 server (moto) on a loopback port for the whole session, with credentials set in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3(f"http://{host}:{port}")
    finally:
        server.stop()


@pytest.fixture(scope="session")
def ray_session(aws_environment: None) -> Iterator[None]:
    """One local Ray of two CPUs for all tests that run the data plane in this process."""
    from schemas.config import Cluster, Storage
    from workers.cluster import connect

    with connect(Cluster(cpus=2, object_store_mb=300), Storage()):
        yield


@pytest.fixture(scope="session")
def prefect_harness() -> Iterator[None]:
    """A temporary Prefect database and its ephemeral server, once for all tests that run flows in this process."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield
