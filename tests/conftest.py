"""What every test runs under: strict JAX, two CPU devices, and one cache of compiled programs that subprocesses share."""

import gc
import os
import pathlib

import jax
import pytest

# as the driver compiles: compiling is what tests cost
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
)


def pytest_configure(config):
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if not cache:
        kept = getattr(config, "cache", None)
        cache = str(kept.mkdir("jax")) if kept else str(pathlib.Path.home() / ".cache" / "jaxnas-tests")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_debug_key_reuse", True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What took over 6 s when it was last measured on two quiet cores, and has quicker relatives, is slow: `tests/slow.txt`."""
    slow = set((pathlib.Path(__file__).parent / "slow.txt").read_text().splitlines())
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """The garbage collector need not look through what was imported, again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def forgets_programs():
    """What a file has traced is no use to the next one, and slows down the garbage collector."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Where the shared data must be there (JAXNAS_REQUIRE_DATA=1), a test that is skipped for want of it has failed."""
    report = (yield).get_result()
    if report.skipped and os.environ.get("JAXNAS_REQUIRE_DATA") == "1" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "shared/data" in reason:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: the shared data is required here (JAXNAS_REQUIRE_DATA=1): {reason}"
