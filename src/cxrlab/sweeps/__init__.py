"""Many runs as one: the table of a sweep, cross-validation, the spread over seeds."""
