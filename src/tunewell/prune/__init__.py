"""Which of the rows at hand are worth tuning on: scores from training dynamics, duplicates, a balanced choice."""
