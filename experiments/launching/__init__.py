"""Many runs: the plan of a launch, what executes it, and the table of how far it is."""
