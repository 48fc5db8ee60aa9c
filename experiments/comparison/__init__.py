"""Learning curves of several configs and seeds: the plan, the runs, the numbers, the page."""
