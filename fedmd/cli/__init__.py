"""What an operator does with a run folder. Each command takes its arguments and returns an exit code."""
