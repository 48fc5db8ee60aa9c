"""What a run will need and cost, read from its compiled step and from formulas; see plan.py."""
