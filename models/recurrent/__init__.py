"""Recurrence: cells, the scan that runs them fast, layers, and the models made of them."""
