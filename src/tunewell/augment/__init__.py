"""More training rows from those at hand: words swapped, left out, misspelt, or replaced by what fits."""
