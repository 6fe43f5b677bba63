"""What a run leaves behind: records of every round, detection quality, summaries, figures and comparisons."""
