"""Keeps what XLA compiled, so that the next start takes seconds."""

import jax

from training import distributed


def keep_compiled(data_dir: str) -> None:
    """Reads and writes compiled programs below data_dir, however small they are.

    XLA's own caches stay off: their folder is part of the key under which a program is found,
    so that nothing would be found from another place.

    Several processes of CPUs keep nothing. In a program that was read back, collective operations
    no longer wait for each other, and Gloo, whose messages have no names, then takes one for
    another: wrong numbers, or an abort (seen with four processes and jax 0.10.2).
    """
    if distributed.number() > 1 and jax.default_backend() == "cpu":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_compilation_cache_dir", f"{data_dir}/xla")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
