"""From runs to numbers: intervals, paired differences, detection."""
