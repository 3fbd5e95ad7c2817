"""How good a net is: predictions, scores, folds."""
