"""One file an experiment. A config is data: only what differs from the options' defaults."""
