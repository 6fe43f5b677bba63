"""The rooms that start Ray and processes."""
