"""Many runs as one.

In: what each job of a multirun returned and wrote. Out: the sweep's table, the mean of the folds of a
cross-validation with pooled predictions, and the spread over seeds. Pandas is imported when it is needed.
"""

from cxrlab.sweeps.callback import SweepTable

__all__ = ["SweepTable"]
