"""The same models in PyTorch, as a competent user writes them: what ours is measured against."""
