"""What is wrong with a data set: a manifest and facts of its images come in, findings and counts go out.

Leakage, duplicates, contradictions, unreadable and odd images, and how far the parts are apart.
"""

from cxrlab.data.audit.finding import Finding
from cxrlab.data.audit.run_audit import AuditReport, audit
from cxrlab.data.audit.terminal import summary, terminal_table, whole

__all__ = ["AuditReport", "Finding", "audit", "summary", "terminal_table", "whole"]
