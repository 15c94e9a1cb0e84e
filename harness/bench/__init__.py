"""Say how fast an op is: checked first, timed with its spread, against what this machine can do."""
