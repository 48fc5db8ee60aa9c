"""The parts of the loop: parallelism, optimizer, checkpoints, metrics, records."""
